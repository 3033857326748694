"""Networks as named stages: what an address asks for and a slice names.

`Stages` is what every network of a procedure is; `Chain` is the usual kind, whose stages are called one after the other, so
that it can be stopped and started between any two of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from augend.contract import AugendError
from augend.models.layout import Layout, layout
from augend.models.trace import Cut, Piece
from augend.names import nearest

__all__ = ["Chain", "Stages", "as_stages"]

RESULT = frozenset({""})


class Stages(nn.Module):
    """A network with named stages. A network that is no chain (a variational autoencoder) inherits and has its own forward.

    Args:
        names: stages in order; a classifier's last is "classify".
        outputs: tensors that can be asked for by name: "" (the result), "features" (what enters "classify"), "mean", …
        modules: stage -> paths of the modules it owns; by default each stage is the child of that name.
        mean, std: floats a channel, or None. When both are given, pixels are normalised before the first stage.

    Attributes:
        mean, std: float32 buffers ``(C, 1, 1)``, or None.
        notes: what was noticed while the network was made, one line each.
    """

    mean: Tensor | None
    std: Tensor | None
    random: frozenset[str] = frozenset()
    """Tensors that are drawn anew each time, from torch's default generator, and so never cached."""

    def __init__(
        self,
        names: Sequence[str],
        outputs: Iterable[str] = RESULT,
        *,
        modules: Mapping[str, Sequence[str]] | None = None,
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.outputs = frozenset(outputs) | RESULT
        self.aliases: dict[str, str] = {}
        self.notes: tuple[str, ...] = ()
        self._modules_of = {name: tuple((modules or {}).get(name, (name,))) for name in self.names}
        self._tensors_of: dict[str, tuple[str, ...]] = {}
        self._positions: dict[str, int] = {}
        self.register_buffer("mean", None)
        self.register_buffer("std", None)
        self.normalise(mean, std)

    def normalise(self, mean: Sequence[float] | Tensor | None, std: Sequence[float] | Tensor | None) -> None:
        """Set what pixels are normalised by, ``(x - mean) / std``, floats a channel; None for both: not at all."""
        if (mean is None) != (std is None):
            raise AugendError("normalisation needs both mean and std, or neither")
        for name, values in (("mean", mean), ("std", std)):
            tensor = None if values is None else torch.as_tensor(values, dtype=torch.float32).reshape(-1, 1, 1).clone()
            self.register_buffer(name, tensor)

    def normalised(self, x: Tensor) -> Tensor:
        """Pixels ``(rows, C, H, W)`` in [0, 1] as the first stage takes them."""
        return x if self.mean is None or self.std is None else (x - self.mean) / self.std

    def stage(self, name: str) -> str:
        """The stage meant by `name`, which may be the module's own name ("fc" for "classify")."""
        found = self.aliases.get(name, name)
        if found not in self.names:
            near = nearest(name, [*self.names, *self.aliases])
            raise AugendError(f"there is no stage {name!r}{near} (stages: {', '.join(self.names)})")
        return found

    def position(self, key: str) -> int:
        """Number of the stage that a tensor enters; ``len(names)`` for the result and for other named outputs.

        Args:
            key: "", "features", ":STAGE" or another of `outputs`.

        Raises:
            AugendError: there is no such tensor; the message lists those there are.
        """
        if key not in self._positions:
            self._positions[key] = self._position(key)
        return self._positions[key]

    def _position(self, key: str) -> int:
        if key == "features" and key in self.outputs and "classify" in self.names:
            return self.names.index("classify")
        if key in self.outputs:
            return len(self.names)
        raise self._unknown(key)

    def _unknown(self, key: str) -> AugendError:
        tensors = ", ".join(sorted(name or "the result" for name in self.outputs))
        return AugendError(f"there is no tensor {key!r}; tensors: {tensors}; stages: {', '.join(self.names)}")

    def modules_of(self, stage: str) -> list[nn.Module]:
        """The modules that a stage owns; no module is in two stages."""
        return [self.get_submodule(path) for path in self._modules_of[self.stage(stage)]]

    def parameters_of(self, stage: str) -> list[nn.Parameter]:
        """The weights that a stage owns. A weight that two stages share belongs to the first."""
        wanted = self.stage(stage)
        seen: set[nn.Parameter] = set()
        for name in self.names:
            own = [p for module in self.modules_of(name) for p in module.parameters()]
            own += [self.get_parameter(path) for path in self._tensors_of.get(name, ())]
            new = [p for p in dict.fromkeys(own) if p not in seen]
            if name == wanted:
                return new
            seen.update(new)
        return []

    def forward(self, x: Tensor, want: Iterable[str] = RESULT, start: str | None = None) -> dict[str, Tensor]:
        """The tensors wanted, by key.

        Args:
            x: pixels ``(rows, C, H, W)`` in [0, 1], or the tensor that enters stage `start`.
            want: keys: "", "features", ":STAGE", or another of `outputs`. Nothing is computed beyond the furthest.
            start: the stage that `x` enters; None: the network's input.
        """
        raise AugendError(f"{type(self).__name__} has no forward of its own")


class _Step(NamedTuple):
    keys: tuple[str, ...]  # under which what enters this piece is handed out
    lent: bool  # whether someone else may still hold what enters
    number: int
    pieces: tuple[Piece, Piece]
    mode: int  # the stage whose mode this piece is in


class Chain(Stages):
    """A network whose stages run one after the other.

    The network stands under `model` as it is, so state-dict names stay its own. Stages that share code outside of modules
    (a dropout function in the root's forward) have their own mode: `modules_of` holds a marker for it.

    Args:
        model: the network.
        plan: its stages, from `augend.models.layout.layout`.
        cuts: stages between which it is prepared to stop; others are prepared when they are asked for.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Layout,
        cuts: Sequence[str] = (),
        *,
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> None:
        outputs = {"", "features"} if plan.last is not None else {""}
        owned = {name: [f"model.{path}" for path in paths] for name, paths in plan.modules.items()}
        for number, name in enumerate(plan.names):
            owned[name].append(f"modes.{number}")
        super().__init__(plan.names, outputs, modules=owned, mean=mean, std=std)
        self.model = model
        self.modes = nn.ModuleList(nn.Identity() for _ in plan.names)
        self.training = model.training
        self.modes.train(model.training)
        self.aliases = plan.aliases
        self._tensors_of = {name: tuple(f"model.{path}" for path in paths) for name, paths in plan.tensors.items()}
        self._plan = plan
        self._cuts: dict[str, tuple[Cut, Cut]] = {}
        self._pieces: list[tuple[Piece, Piece]] = []
        self._ways: dict[tuple[frozenset[str], str | None], tuple[list[_Step], tuple[str, ...]]] = {}
        self._edits: dict[tuple[int, bool], bool] = {}
        self._prepare([name for name in (*cuts, *(["classify"] if plan.last else [])) if self._works(name)])

    def _works(self, name: str) -> bool:
        try:
            self._plan.cut(self.stage(name))
        except AugendError:  # said when a tensor is asked for there; the name may still stand in slices
            return False
        return True

    def _prepare(self, names: Sequence[str]) -> None:
        cuts = self._cuts | {self.stage(name): self._plan.cut(self.stage(name)) for name in names}
        self._cuts = {name: cuts[name] for name in self.names if name in cuts}
        ends = [None, *self._cuts.values(), None]
        self._pieces = [self._plan.piece(*pair) for pair in itertools.pairwise(ends)]
        self._ways.clear()
        self._edits.clear()

    def _position(self, key: str) -> int:
        if not key.startswith(":"):
            return super()._position(key)
        if self.aliases.get(key[1:], key[1:]) not in self.names:
            raise self._unknown(key)
        self._plan.cut(self.stage(key[1:]))
        return self.names.index(self.stage(key[1:]))

    def _way(self, want: frozenset[str], start: str | None) -> tuple[list[_Step], tuple[str, ...]]:
        """The pieces to run and what to hand out before each; last the keys of what leaves the last piece."""
        first = -1 if start is None else self.position(f":{start}")
        goals = {key: self.position(key) for key in want}
        early = [key for key, position in goals.items() if position < first]
        if early:
            raise AugendError(f"tensor {early[0]!r} comes before stage {start!r}, where this forward starts")
        inner = {key: self.names[position] for key, position in goals.items() if position < len(self.names)}
        new = {name for name in (*inner.values(), *([self.stage(start)] if start else ())) if name not in self._cuts}
        if new:
            self._prepare(sorted(new))
        order = list(self._cuts)
        keys: dict[int, tuple[str, ...]] = {}  # by the piece that the tensor enters
        for key, name in inner.items():
            keys[order.index(name) + 1] = (*keys.get(order.index(name) + 1, ()), key)
        begin = 0 if start is None else order.index(self.stage(start)) + 1
        end = len(self._pieces) if "" in want else max(keys, default=begin)
        lent = begin if start is not None else min(keys, default=end)
        modes = [*(max(self.names.index(name) - 1, 0) for name in order), len(self.names) - 1]
        steps = [_Step(keys.get(n, ()), n >= lent, n, self._pieces[n], modes[n]) for n in range(begin, end)]
        return steps, ("",) if "" in want else keys.get(end, ())

    def forward(self, x: Tensor, want: Iterable[str] = RESULT, start: str | None = None) -> dict[str, Tensor]:
        """The tensors wanted, by key; see `Stages.forward`.

        Raises:
            AugendError: an unknown tensor or stage, one before `start`, or a stage at which the network cannot be cut.
        """
        asked = (frozenset(want), start)
        way = self._ways.get(asked)
        if way is None:
            way = self._way(*asked)
            self._ways[asked] = way
        steps, last = way
        out: dict[str, Tensor] = {}
        if start is None:
            x = self.normalised(x)
        for step in steps:
            for key in step.keys:
                out[key] = _single(x, key)
            training = self.modes[step.mode].training
            piece = step.pieces[training]
            x = self._beside(step, training, piece, x) if step.lent else piece(self.model, x)
        for key in last:
            out[key] = _single(x, key)
        return out

    def _beside(self, step: _Step, training: bool, piece: Piece, x: Tensor) -> Tensor:
        """Run a piece on a tensor that others hold too: on a copy when the piece changes its input in place.

        Whether it does is seen at its first call, by the copy's version.
        """
        known = self._edits.get((step.number, training))
        result: Tensor
        if known is False or not isinstance(x, Tensor):
            result = piece(self.model, x)
            return result
        copy = x.clone()
        versioned = known is None and not torch.compiler.is_compiling() and not copy.is_inference()
        before = copy._version if versioned else 0
        result = piece(self.model, copy)
        if versioned:
            self._edits[step.number, training] = copy._version != before
        return result


def _single(x: Any, key: str) -> Tensor:
    if not isinstance(x, Tensor):
        raise AugendError(
            f"{f'tensor {key!r}' if key else 'the result'} is {type(x).__name__} of several, not one tensor"
        )
    return x


class _Whole(Stages):
    """A network that cannot be followed: one stage, and its result alone."""

    def __init__(self, model: nn.Module, reason: str, **normalisation: Any) -> None:
        super().__init__(("whole",), modules={"whole": ("model",)}, **normalisation)
        self.model = model
        self.training = model.training
        self.notes = (reason,)

    def _unknown(self, key: str) -> AugendError:
        return AugendError(f"there is no tensor {key!r}, only the result: {self.notes[0]}")

    def forward(self, x: Tensor, want: Iterable[str] = RESULT, start: str | None = None) -> dict[str, Tensor]:
        for key in (*want, *([] if start is None else [f":{start}"])):
            self.position(key)
        return {"": self.model(self.normalised(x))}


def as_stages(
    model: nn.Module,
    cuts: Sequence[str] = (),
    *,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    classifier: bool = True,
) -> Stages:
    """Any network as `Stages`; its weights are shared, its modules stay as they are.

    Args:
        model: an `nn.Sequential` (its children are the stages), a classifier of torchvision or timm, another module whose
            forward can be followed, or a `Stages`, which is returned itself.
        cuts: dotted paths of modules between which it must be possible to stop; children of the root need not be listed.
        mean, std: floats a channel by which pixels are normalised, or None.
        classifier: False for a network whose result is no class scores: it has no stage "classify".

    A module that cannot be followed is one stage named "whole" (unless `cuts` asks for more, which is an error).

    Example:
        >>> net = as_stages(nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)))
        >>> net.names
        ('0', '1', '2', 'classify')
        >>> tuple(net(torch.rand(5, 1, 2, 2), {"features"})["features"].shape)
        (5, 8)
    """
    if isinstance(model, Stages):
        for cut in cuts:
            model.stage(cut)
        if mean is not None or std is not None:
            model.normalise(mean, std)
        return model
    try:
        plan = layout(model, cuts, classifier)
    except AugendError as error:
        if [cut for cut in cuts if cut != "classify"]:
            raise
        return _Whole(model, str(error), mean=mean, std=std)
    return Chain(model, plan, cuts, mean=mean, std=std)
