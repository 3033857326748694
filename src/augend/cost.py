"""What a run costs: FLOPs counted once a kind of step, and a ledger of rows, pictures, passes, FLOPs, seconds and memory.

One multiply-add is 2 FLOPs. Counted are convolutions and matrix products (linear layers, attention), forward and backward;
what is done element by element (batch norm, activations, pooling, sums of residuals, pixel augmentations) counts nothing.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["PARTS", "EmbeddingCost", "Flops", "Ledger", "PhaseCost", "count_flops"]

PARTS = ("decoding", "data", "augment", "step", "cache", "evaluation", "order", "bank")
"""What seconds are split into. Files are decoded once for all runs, and embeddings that take long are computed once (bank);
each run is charged what that took for its own pictures."""

_LENT = ("decoding", "bank")  # what one more run on the same pictures finds

_COUNTS = ("rows", "pictures", "forward", "backward", "flops")


class Flops(NamedTuple):
    """FLOPs of one call: the forward, and the backward of its result."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Forward and backward together."""
        return self.forward + self.backward


@dataclasses.dataclass(frozen=True)
class EmbeddingCost:
    """What augmenting embeddings saves over augmenting pictures: Equation 8 of the embedding paper, with what it leaves out.

    Args:
        trunk: cost of one picture's pass through the frozen network, in any unit: seconds, FLOPs.
        augmenter: of one row through Omega.
        head: of one row through the head, forward and backward.
        pixels: of augmenting one picture (the paper drops it).
        fitting: of training Omega, all of it, divided by the target's pictures (the paper drops it).

    Example:
        >>> cost = EmbeddingCost(trunk=490.0, augmenter=0.3, head=0.7)
        >>> [round(cost.ratio(views), 2) for views in (2, 10, 100)]
        [2.0, 9.82, 83.21]
        >>> dataclasses.replace(cost, fitting=4900.0).pays_from()
        12

    Source: embedding, Equation 8, N (C_Phi + C_Psi + C_PsiBP) / (C_Phi + N (C_Omega + C_Psi + C_PsiBP)), which
    ``printed=True`` gives. Deviation: of the N views one is the picture itself, without Omega or an augmentation.
    """

    trunk: float
    augmenter: float
    head: float
    pixels: float = 0.0
    fitting: float = 0.0

    def ratio(self, views: int, *, printed: bool = False) -> float:
        """How many times as much N `views` a picture cost when pictures are augmented; the one as it is counts as a view."""
        made = views if printed else views - 1
        plain = views * (self.trunk + self.head) + made * self.pixels
        return plain / (self.trunk + self.fitting + made * self.augmenter + views * self.head)

    def pays_from(self) -> int | None:
        """The smallest N at which Omega costs less, its training included; None where a row of it costs as much as a pass."""
        saved = self.trunk + self.pixels - self.augmenter
        return None if saved <= 0 else 1 + math.floor(self.fitting / saved) + 1


def _convolution_backward(grad_out: Any, x: Any, weight: Any, *rest: Any, **_: Any) -> int:
    """The forward's FLOPs for each gradient that is wanted: torch's own formula forgets that groups divide the work."""
    transposed, mask = rest[4], rest[7]  # after bias, stride, padding, dilation; output padding, groups
    places = math.prod((x if transposed else grad_out)[2:])
    forward: int = 2 * x[0] * places * math.prod(weight)
    return forward * (int(mask[0]) + int(mask[1]))


def count_flops(module: nn.Module, *inputs: Any, backward: bool = True) -> Flops:
    """FLOPs of ``module(*inputs)``, and of the backward of its result, without computing anything.

    The module is copied without its weights (to the meta device), so it is left as it is: no gradients, no running
    statistics, no random numbers. Frozen weights cost no weight gradient, what lies below them no gradient at all, and
    inputs get none unless they ask for it. A module that cannot run without values (it looks at them, or counts rows by
    them) is copied whole and run once.

    Args:
        module: returns a tensor or a dict of tensors; what is minimised is their sum. Not a compiled module.
        inputs: tensors, or dataclasses, dicts, lists and tuples of them; values do not matter, shapes do.
        backward: False counts the forward alone, without gradients.

    Returns:
        Flops(forward, backward); `backward` is 0 where nothing requires a gradient.

    Example:
        >>> count_flops(nn.Linear(10, 20), torch.zeros(4, 10))
        Flops(forward=1600, backward=1600)
    """
    try:
        return _counted(_without_values(module), _mapped(inputs, lambda t: t.to("meta")), backward)
    except RuntimeError:
        used = {t.device.index or 0 for t in _leaves(inputs) if t.is_cuda}
        with torch.random.fork_rng(devices=sorted(used)):
            return _counted(copy.deepcopy(module), _mapped(inputs, torch.clone), backward)


def _counted(module: nn.Module, inputs: tuple[Any, ...], backward: bool) -> Flops:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    formulas = {torch.ops.aten.convolution_backward: _convolution_backward}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused operation would not be counted; nor fused attention
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            with torch.set_grad_enabled(backward):
                result = module(*inputs)
            forward = counter.get_total_flops()
            parts = [t.sum() for t in _leaves(result) if t.requires_grad]
            if backward and parts:
                torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call]
            return Flops(forward, counter.get_total_flops() - forward)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _without_values(module: nn.Module) -> nn.Module:
    """A deep copy whose parameters and buffers have shapes but no values; the weights are never copied."""
    known: dict[int, Any] = {}
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                empty = torch.empty_like(parameter, device="meta", requires_grad=False)
                known[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
        for buffer in part._buffers.values():
            if buffer is not None:
                known[id(buffer)] = buffer.to("meta")
    return copy.deepcopy(module, known)


def _mapped(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor changed, and cut off from the graph it came from."""
    if isinstance(tree, Tensor):
        return change(tree.detach()).requires_grad_(tree.requires_grad)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {f.name: _mapped(getattr(tree, f.name), change) for f in dataclasses.fields(tree) if f.init}
        return dataclasses.replace(tree, **fields)
    if isinstance(tree, Mapping):
        return {key: _mapped(value, change) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_mapped(value, change) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(_mapped(value, change) for value in tree)
    return tree


def _leaves(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for f in dataclasses.fields(tree):
            yield from _leaves(getattr(tree, f.name))
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _leaves(value)


class PhaseCost:
    """What one phase has cost so far.

    Attributes:
        rows: labelled examples that entered a loss; pictures: pictures that were read for them.
        forward, backward: passes of a network over one batch of rows.
        flops: forward and backward.
        seconds: by part, in the order of `PARTS`.
        memory: largest number of bytes in use: of the process, or on the GPU.
    """

    __slots__ = ("backward", "flops", "forward", "memory", "pictures", "rows", "seconds")

    def __init__(self) -> None:
        self.rows = self.pictures = self.forward = self.backward = self.flops = self.memory = 0
        self.seconds = [0.0] * len(PARTS)

    @property
    def training_seconds(self) -> float:
        """Seconds of everything but evaluation: training and what prepares it."""
        return sum(self.seconds) - self.seconds[PARTS.index("evaluation")]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers; `from_dict` gives the same back, to the last bit."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "seconds": dict(zip(PARTS, self.seconds, strict=True)),
            "memory": self.memory,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PhaseCost:
        """What `to_dict` gave."""
        cost = cls()
        for name in (*_COUNTS, "memory"):
            setattr(cost, name, int(values[name]))
        cost.seconds = [float(values["seconds"].get(part, 0.0)) for part in PARTS]
        return cost


class Ledger:
    """Counts and seconds of a run, by phase. Charging a step and its laps costs less than 3 us.

    Time is charged by laps: everything since the last lap goes to the part that the lap names. On a GPU, work is queued, so
    laps say when the queue was filled; sums over a phase are right when `lap` is called after a synchronisation at its end.

    Select a phase first: what is charged before goes nowhere.

    Example:
        >>> ledger = Ledger()
        >>> ledger.phase("plain").rows
        0
        >>> ledger.charge(rows=50, pictures=50, forward=1, backward=1, flops=1000)
        >>> ledger.lap("step")
        >>> ledger.total().flops, list(ledger.phases)
        (1000, ['plain'])
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.phases: dict[str, PhaseCost] = {}
        self._clock = clock
        self._numbers = {part: number for number, part in enumerate(PARTS)}
        self._now = PhaseCost()
        self._seconds = self._now.seconds
        self._last = clock()

    def phase(self, name: str) -> PhaseCost:
        """Charge this phase from now on (again, when it was charged before) and restart the clock."""
        self._now = self.phases.setdefault(name, PhaseCost())
        self._seconds = self._now.seconds
        self._last = self._clock()
        return self._now

    def charge(self, rows: int = 0, pictures: int = 0, forward: int = 0, backward: int = 0, flops: int = 0) -> None:
        """Add to the counts of the phase at hand."""
        now = self._now
        now.rows += rows
        now.pictures += pictures
        now.forward += forward
        now.backward += backward
        now.flops += flops

    def lap(self, part: str) -> None:
        """Charge the seconds since the last lap to a part (one of `PARTS`)."""
        now = self._clock()
        self._seconds[self._numbers[part]] += now - self._last
        self._last = now

    def spend(self, part: str, seconds: float) -> None:
        """Charge seconds that were spent before, by whoever decoded the pictures or filled a bank."""
        self._seconds[self._numbers[part]] += seconds

    def restart(self) -> None:
        """Forget the seconds since the last lap: what was done belongs to nobody (saving, drawing, waiting)."""
        self._last = self._clock()

    def observe_memory(self, device: torch.device | str = "cpu") -> None:
        """Note the peak memory: of the process so far, or what torch has allocated at most on a GPU."""
        on_gpu = torch.device(device).type == "cuda"
        used = torch.cuda.max_memory_allocated(device) if on_gpu else _resident()
        self._now.memory = max(self._now.memory, used)

    def total(self) -> PhaseCost:
        """All phases together: sums, and the largest memory."""
        whole = PhaseCost()
        for cost in self.phases.values():
            for name in _COUNTS:
                setattr(whole, name, getattr(whole, name) + getattr(cost, name))
            whole.seconds = [a + b for a, b in zip(whole.seconds, cost.seconds, strict=True)]
            whole.memory = max(whole.memory, cost.memory)
        return whole

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values, phase by phase."""
        return {name: cost.to_dict() for name, cost in self.phases.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; select the phase to charge next."""
        self.phases = {name: PhaseCost.from_dict(values) for name, values in state.items()}
        self._now = PhaseCost()
        self._seconds = self._now.seconds

    def to_json(self) -> str:
        """The text of ``ledger.json``: `phases` and `total`, each with its `training_seconds`, and without decoding."""
        described = {name: _described(cost) for name, cost in self.phases.items()}
        return json.dumps({"schema": 1, "phases": described, "total": _described(self.total())}, indent=1)


def _described(cost: PhaseCost) -> dict[str, Any]:
    training = cost.training_seconds
    marginal = training - sum(cost.seconds[PARTS.index(part)] for part in _LENT)  # of one more run on the same pictures
    return {**cost.to_dict(), "training_seconds": training, "marginal_seconds": marginal}


def _resident() -> int:
    """Peak resident bytes of this process; 0 where the system does not say."""
    with contextlib.suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return 0
