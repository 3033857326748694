"""Every order of an epoch's batches, from one start: what a perfect choice would have been, found by trying all of them.

n batches have n! orders. Orders that begin alike share their first steps, so the tree of their prefixes is walked instead
(6 batches: 1,956 steps instead of 4,320), level by level; copies of the model train side by side, in chunks of the size that
turns out to be the fastest, which may be one.
"""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer
from torch.optim.swa_utils import update_bn

from augend.contract import AugendError
from augend.order.trial import evaluating, in_mode

__all__ = ["Copies", "EveryOrder", "every_order", "judge_copies", "renew_statistics"]

MOST = 9  # batches: 9! = 362,880 orders
CHUNKS = (1, 6, 12, 24, 72, 144)
COUNTERS = ("step", "eta", "mu")  # of torch's optimizers, beside a weight that is a number itself
SLOWER = 1.15  # than the best, and larger chunks are not tried
Batches = Callable[[int], tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Copies:
    """Copies of a model side by side.

    Attributes:
        weights, buffers: name -> ``(copies, ...)``.
        state: name of a weight -> the optimizer's state of it, ``(copies, ...)`` each; numbers that all copies share, such
            as Adam's step, are scalars.
    """

    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    state: dict[str, dict[str, Tensor]]

    @classmethod
    def of(cls, model: nn.Module, optimizer: Optimizer | None = None) -> Copies:
        """One copy of a model, and of what the optimizer that has trained it remembers; without one, of a fresh start."""
        named = dict(model.named_parameters())
        weights = {name: p.detach().clone()[None] for name, p in named.items()}
        buffers = {name: b.detach().clone()[None] for name, b in model.named_buffers()}
        kept = {} if optimizer is None else _kept(optimizer, named)
        state = {
            name: {key: (v if _shared(named[name], key, v) else v[None]).clone() for key, v in own.items()}
            for name, own in kept.items()
        }
        return cls(weights, buffers, state)

    def __len__(self) -> int:
        return len(next(iter(self.weights.values())))

    def take(self, index: Tensor | Sequence[int]) -> Copies:
        """Some of them, by number; a number may be repeated."""
        index = torch.as_tensor(index)

        def taken(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: value if value.ndim == 0 else value[index] for name, value in values.items()}

        return Copies(taken(self.weights), taken(self.buffers), {name: taken(own) for name, own in self.state.items()})

    def load_into(self, model: nn.Module, number: int, optimizer: Optimizer | None = None) -> None:
        """Write a copy's weights and buffers into a model, and what it remembers into the model's optimizer."""
        with torch.no_grad():
            for own, given in ((model.named_parameters(), self.weights), (model.named_buffers(), self.buffers)):
                for name, value in own:
                    value.copy_(given[name][number])
        if optimizer is not None:
            optimizer.state.clear()
            for name, weight in model.named_parameters():
                if name in self.state:
                    kept = self.state[name].items()
                    optimizer.state[weight] = {key: (v if v.ndim == 0 else v[number]).clone() for key, v in kept}

    @staticmethod
    def joined(parts: Sequence[Copies]) -> Copies:
        """All copies of several, one after the other."""

        def cat(values: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
            first = values[0]
            return {
                name: first[name] if first[name].ndim == 0 else torch.cat([v[name] for v in values]) for name in first
            }

        state = {name: cat([part.state[name] for part in parts]) for name in parts[0].state}
        return Copies(cat([part.weights for part in parts]), cat([part.buffers for part in parts]), state)


@dataclass(frozen=True)
class EveryOrder:
    """What every order of an epoch came to.

    Attributes:
        orders: int64 ``(n!, n)``, lexicographic: which batch comes at each position.
        copies: the model after each of them.
        steps: that were taken; the naive way takes n! * n.
        chunk: copies side by side that were the fastest.
    """

    orders: Tensor
    copies: Copies
    steps: int
    chunk: int


def every_order(
    model: nn.Module,
    optimizer: Callable[[Iterable[Tensor]], Optimizer],
    batches: Batches | Sequence[tuple[Tensor, Tensor]],
    count: int | None = None,
    *,
    start: Copies | None = None,
    loss: Loss = functional.cross_entropy,
    chunk: int | None = None,
    after: Callable[[int, int], None] = lambda done, total: None,
) -> EveryOrder:
    """Train a model one epoch in every order of its batches.

    Args:
        model: trained in training mode, from its own weights where no `start` is given; left as it is. Weights that need no
            gradient stay. Dropout of any kind is refused, and so are weights that the loss does not reach.
        optimizer: makes an optimizer of torch over the tensors it is given. It must treat every weight by itself, as SGD,
            Adam and AdamW do.
        batches: inputs and labels of each batch, up to 9 of them, all of one shape; or a function of the position in the
            epoch (random crops that follow the step, as in the paper) that returns ``(n, rows, ...)`` and ``(n, rows)``.
        count: n, where `batches` is a function.
        start: one copy to go on from, its optimizer's state included.
        loss: logits ``(rows, classes)`` and labels -> scalar.
        chunk: copies side by side; None: several sizes are tried as it goes, and the fastest serves the rest. Another chunk
            changes the last bits.
        after: called with steps done and in all.

    Returns:
        All orders and the models they end in.

    Cost:
        Of n batches sum over k of n!/k! steps: 6 batches 1,956, 7 batches 13,699. Memory: n! copies of weights and state.

    Example:
        >>> x, y = torch.randn(3, 4, 5), torch.tensor([[0, 1, 0, 1]] * 3)
        >>> def sgd(weights): return torch.optim.SGD(weights, lr=0.1, momentum=0.9)
        >>> found = every_order(nn.Linear(5, 2), sgd, list(zip(x, y)))
        >>> found.orders.shape, len(found.copies), found.steps
        (torch.Size([6, 3]), 6, 15)

    Source: training procedure augmentations, 2.2 (perfect ordering by brute force). Deviation: prefixes are shared, which
    changes nothing but the cost; the paper trains each order from its start.
    """
    at, n = _batches(batches, count)
    if chunk is not None and chunk < 1:
        raise AugendError(f"every_order: chunk is {chunk}; it must be a whole number from 1 on, or None")
    if any(isinstance(module, _DropoutNd) and module.p for module in model.modules()):
        raise AugendError("every_order: dropout draws other masks for every order; leave it out of the model")
    copies = Copies.of(model) if start is None else start
    if len(copies) != 1:
        raise AugendError(f"every_order: goes on from one copy, found {len(copies)}; take one: copies.take([number])")
    total = sum(math.perm(n, k) for k in range(1, n + 1))
    step = _Stepper(model, optimizer, loss)
    prefixes: list[tuple[int, ...]] = [()]
    done, pace = 0, _Pace(chunk)
    for position in range(n):
        x, y = at(position)
        children = [(p, b) for p, prefix in enumerate(prefixes) for b in range(n) if b not in prefix]
        made, first = [], 0
        while first < len(children):
            part = children[first : first + pace.size(len(children) - first)]
            parents, which = (torch.tensor(side) for side in zip(*part, strict=True))
            begin = time.perf_counter()
            made.append(step(copies.take(parents), x[which], y[which]))
            pace.took(len(part), time.perf_counter() - begin)
            first += len(part)
            done += len(part)
            after(done, total)
        copies = Copies.joined(made)
        prefixes = [(*prefixes[p], b) for p, b in children]
    return EveryOrder(torch.tensor(prefixes), copies, done, pace.best)


def judge_copies(
    model: nn.Module, copies: Copies, x: Tensor, y: Tensor, *, rows: int = 256, chunk: int = 1
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats and share of right answers of every copy: float32 ``(copies,)`` each, where `x` lies.

    Args:
        x, y: pictures and labels.
        rows: pictures at a time; `chunk`: copies at a time.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> losses, accuracies = judge_copies(model, Copies.of(model), torch.randn(8, 3), torch.zeros(8, dtype=torch.int64))
        >>> losses.shape, 0 <= float(accuracies[0]) <= 1
        (torch.Size([1]), True)
    """

    def predict(weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor], part: Tensor) -> Tensor:
        return torch.func.functional_call(model, {**weights, **buffers}, (part,))  # type: ignore[no-any-return]

    losses, right = torch.zeros(2, len(copies), device=x.device)
    with torch.no_grad(), evaluating(model):
        for begin in range(0, len(copies), chunk):
            some = copies.take(range(begin, min(begin + chunk, len(copies))))
            for first in range(0, len(x), rows):
                shown, labels = x[first : first + rows], y[first : first + rows]
                if chunk == 1:
                    alone = [{n: v[0] for n, v in part.items()} for part in (some.weights, some.buffers)]
                    out = predict(alone[0], alone[1], shown)[None]
                else:
                    out = _side_by_side(predict, in_dims=(0, 0, None))(some.weights, some.buffers, shown)
                each = functional.cross_entropy(out.flatten(0, 1), labels.repeat(len(out)), reduction="none")
                losses[begin : begin + chunk] += each.view(len(out), -1).sum(1)
                right[begin : begin + chunk] += (out.argmax(2) == labels).sum(1)
    return losses / len(x), right / len(x)


def renew_statistics(model: nn.Module, copies: Copies, x: Tensor) -> Copies:
    """Copies whose batch norm has the statistics of some pictures, under their own weights, instead of its running ones.

    Running statistics trail the weights by tens of steps, and weigh the last batches most: after an epoch of a few batches
    they are much of what its order changes. Judging copies with and without them tells that from what the weights learned.

    Args:
        x: inputs, all of one pass; those that were trained on, for instance.

    Returns:
        Copies that share weights and state with those given. What a model has no batch norm for stays as it is.

    Cost:
        A forward pass of `x` a copy.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        >>> found = renew_statistics(model, Copies.of(model), torch.ones(8, 3))
        >>> torch.allclose(found.buffers["1.running_mean"][0], model[0](torch.ones(3)))
        True
    """
    own = copy.deepcopy(model)
    buffers = {name: value.clone() for name, value in copies.buffers.items()}
    for number in range(len(copies)):
        copies.load_into(own, number)
        update_bn([x], own)
        for name, value in own.named_buffers():
            buffers[name][number] = value
    return Copies(copies.weights, buffers, copies.state)


def _batches(batches: Batches | Sequence[tuple[Tensor, Tensor]], count: int | None) -> tuple[Batches, int]:
    if callable(batches):
        if count is None:
            raise AugendError("every_order: how many batches an epoch has is missing: count")
        at, n = batches, count
    else:
        if not batches:
            raise AugendError("every_order: there are no batches")
        shapes = [(tuple(x.shape), tuple(y.shape)) for x, y in batches]
        odd = next((number for number, shape in enumerate(shapes) if shape != shapes[0]), None)
        if odd is not None:
            raise AugendError(
                f"every_order: batch {odd} has inputs of shape {shapes[odd][0]}, batch 0 of {shapes[0][0]}; all must be of "
                "one size, so leave a shorter last one out"
            )
        stacked = torch.stack([x for x, _ in batches]), torch.stack([y for _, y in batches])
        at, n = (lambda position: stacked), len(batches)
    if not 1 <= n <= MOST:
        raise AugendError(f"every_order: an epoch of {n} batches; allowed: 1 to {MOST} ({MOST}! orders)")
    return at, n


def _side_by_side(what: Callable[..., Any], in_dims: Any = 0) -> Callable[..., Any]:
    """vmap; that it has no rule for some operator, and is slower there, is found by timing and need not be said."""

    def run(*given: Any) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")
            return torch.func.vmap(what, in_dims=in_dims)(*given)

    return run


class _Stepper:
    """A step of every copy, each on its own batch, by the optimizer's own update.

    A copy alone is put into a model of ours and trained like any other, to the same bits; several are trained side by side,
    their weights stacked.
    """

    def __init__(self, model: nn.Module, optimizer: Callable[[Iterable[Tensor]], Optimizer], loss: Loss) -> None:
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._own = copy.deepcopy(model).train()
        self._weights, self._buffers = dict(self._own.named_parameters()), dict(self._own.named_buffers())
        self._moving = {name: weight for name, weight in self._weights.items() if weight.requires_grad}
        self._stepper = optimizer(list(self._moving.values()))
        self._checked = False
        self._gradients = _side_by_side(torch.func.grad(self._lost, has_aux=True))

    def __call__(self, copies: Copies, x: Tensor, y: Tensor) -> Copies:
        """The copies after a step on ``x (copies, rows, ...)`` and ``y (copies, rows)``."""
        return self._alone(copies, x[0], y[0]) if len(copies) == 1 else self._together(copies, x, y)

    def _alone(self, copies: Copies, x: Tensor, y: Tensor) -> Copies:
        with torch.no_grad():
            for own, given in ((self._weights, copies.weights), (self._buffers, copies.buffers)):
                for name, value in own.items():
                    value.copy_(given[name][0])
        self._stepper.state.clear()
        for name, weight in self._moving.items():
            weight.grad = None
            if name in copies.state:
                self._stepper.state[weight] = {
                    key: (value if value.ndim == 0 else value[0]).clone() for key, value in copies.state[name].items()
                }
        with torch.enable_grad():
            self._loss(self._own(x), y).backward()  # type: ignore[no-untyped-call]
        if not self._checked:
            self._check()
        self._stepper.step()
        state = {
            name: {key: v if _shared(self._weights[name], key, v) else v[None] for key, v in own.items()}
            for name, own in _kept(self._stepper, self._moving).items()
        }
        stacked = [{n: v.detach().clone()[None] for n, v in part.items()} for part in (self._weights, self._buffers)]
        return Copies(stacked[0], stacked[1], state)

    def _check(self) -> None:
        """Weights without a gradient would stay in a copy alone, and decay where copies are side by side."""
        missing = [name for name, weight in self._moving.items() if weight.grad is None]
        if missing:
            raise AugendError(
                f"every_order: {missing[0]} gets no gradient from the loss; freeze it: requires_grad_(False)"
            )
        self._checked = True

    def _together(self, copies: Copies, x: Tensor, y: Tensor) -> Copies:
        if not self._checked:
            self._alone(copies.take([0]), x[0], y[0])
        held = {name: weight for name, weight in copies.weights.items() if name not in self._moving}
        moving = {name: copies.weights[name].clone() for name in self._moving}
        gradients, buffers = self._gradients(moving, held, copies.buffers, x, y)
        stepper = self._optimizer(list(moving.values()))
        for name, weight in moving.items():
            weight.grad = gradients[name]
            if name in copies.state:
                stepper.state[weight] = {key: value.clone() for key, value in copies.state[name].items()}
        stepper.step()
        state = _kept(stepper, moving)
        for weight in moving.values():
            weight.grad = None
        return Copies({name: {**held, **moving}[name] for name in self._weights}, buffers, state)

    def _lost(
        self, moving: dict[str, Tensor], held: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one copy on a batch, and its buffers after the forward."""
        own = {name: value.clone() for name, value in buffers.items()}  # batch norm writes into these
        with in_mode(self._model, training=True):
            return self._loss(torch.func.functional_call(self._model, {**moving, **held, **own}, (x,)), y), own


def _shared(weight: Tensor, key: str, value: Tensor) -> bool:
    """Whether a number of the optimizer's state is that of all copies, such as Adam's step."""
    return value.ndim == 0 and (weight.ndim > 0 or key in COUNTERS)


def _kept(optimizer: Optimizer, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Name of a weight -> what the optimizer keeps of it."""
    found = {
        name: {key: value for key, value in optimizer.state[weight].items() if isinstance(value, Tensor)}
        for name, weight in weights.items()
        if optimizer.state.get(weight)
    }
    return {name: own for name, own in found.items() if own}


class _Pace:
    """How many copies train side by side: sizes are tried on the work itself, twice each, so that trying costs nothing but
    the difference. A size is only tried where the one before was about as fast as the best.

    Args:
        fixed: a size that is not to be questioned.
    """

    def __init__(self, fixed: int | None) -> None:
        self._fixed = fixed
        self._each: dict[int, list[float]] = {}  # size -> seconds a copy

    @property
    def best(self) -> int:
        """The fastest size so far."""
        if self._fixed or not self._each:
            return self._fixed or 1
        return min(self._each, key=lambda size: min(self._each[size]))

    def size(self, left: int) -> int:
        """How many of the copies that are left go next."""
        best = self.best
        if not self._fixed:
            fastest = min(self._each[best]) if self._each else float("inf")
            for size in CHUNKS:
                turns = self._each.get(size, [])
                if len(turns) < 2:
                    return min(size, left)
                if min(turns) > SLOWER * fastest:
                    break
        return min(best, left)

    def took(self, size: int, seconds: float) -> None:
        """So long for a step of so many copies."""
        if size in CHUNKS:
            self._each.setdefault(size, []).append(seconds / size)
