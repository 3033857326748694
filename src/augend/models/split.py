"""One network as two: a trunk that ends, and a head that begins, at a module's name; and where to split by default."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from augend.contract import AugendError
from augend.models.layout import layout
from augend.models.stages import Stages
from augend.models.trace import Piece

__all__ = ["Part", "default_split", "split_model"]


class Part(nn.Module):
    """A stretch of a network that holds the network's own modules, under their own names.

    Its `state_dict` has the network's names, so it can be loaded back into the network with ``strict=False``.
    """

    def __init__(self, model: nn.Module, steps: Iterable[fx.Node], pieces: tuple[Piece, Piece]) -> None:
        super().__init__()
        self._pieces = pieces
        for node in steps:
            path = str(node.target)
            above, _, name = path.rpartition(".")
            holder: nn.Module = self
            for step in above.split(".") if above else ():
                if step not in holder._modules:
                    holder.add_module(step, nn.Module())
                holder = holder.get_submodule(step)
            if node.op == "call_module":
                holder.add_module(name, model.get_submodule(path))
                continue
            source = model.get_submodule(above)
            if name in source._parameters:
                holder.register_parameter(name, source._parameters[name])
            else:
                holder.register_buffer(name, source._buffers[name], name not in source._non_persistent_buffers_set)
        self.training = model.training

    def forward(self, x: Tensor) -> Any:
        """What the network computes of `x` on this stretch."""
        return self._pieces[self.training](self, x)


def split_model(model: nn.Module, at: str) -> tuple[Part, Part]:
    """Split a network before the module named `at`, without copying anything.

    ``head(trunk(x))`` equals ``model(x)`` bit for bit, in eval mode and, from the same random state, in train mode. Both
    parts share the network's modules and weights: training one trains the network.

    Args:
        model: an `nn.Sequential`, or a classifier of torchvision or timm.
        at: the dotted name of the module that the head begins with: "layer3", "stages.2", "blocks.6", "features.denseblock3".

    Returns:
        (trunk, head). The trunk takes what the network takes and returns the tensor that enters `at`; the head takes that
        tensor and returns what the network returns.

    Raises:
        AugendError: there is no such module (the nearest name is said), or more than one tensor passes the cut, as at a
            skip connection (the tensors are named, with a cut that works).

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
        >>> trunk, head = split_model(model, "2")
        >>> x = torch.rand(5, 4)
        >>> torch.equal(head(trunk(x)), model(x)), len(list(head.parameters()))
        (True, 2)
    """
    plan = layout(model, (at,), classifier=False)
    cut = plan.cut(at)
    parts: list[Part] = []
    for begin, end in ((None, cut), (cut, None)):
        found = [line.piece(begin and begin[mode], end and end[mode]) for mode, line in enumerate(plan.lines)]
        steps = dict.fromkeys(node for _, nodes in found for node in nodes)
        parts.append(Part(model, steps, (found[0][0], found[1][0])))
    return parts[0], parts[1]


def default_split(stages: Stages, shape: tuple[int, ...] | None = None) -> str:
    """The stage at which the last quarter or so of a network begins: what `$split: auto` means.

    Of the numbered stages (layer1 … layer4, stages.0 … stages.3, blocks.0 … blocks.11) the last when there are up to five,
    otherwise the first of the last third; or the next one at which the network can be cut.

    Args:
        shape: of the input, ``(C, H, W)``; when given, the cut is tried on two rows, in eval mode.

    Example:
        >>> from augend.contract import Component
        >>> from augend.models import build
        >>> default_split(build(Component("figure1"), shape=(1, 28, 28), classes=10, generator_seed=0))
        'conv3'
    """
    weighty = [name for name in stages.names if any(p.ndim > 1 for p in stages.parameters_of(name))]
    families: dict[str, list[str]] = {}
    for name in weighty:
        numbered = re.fullmatch(r"(.*?)[._]?\d+[a-z]?", name)
        if numbered:
            families.setdefault(numbered[1], []).append(name)
    family = max(families.values(), key=len, default=[])
    if len(family) > 1:
        wished = weighty.index(family[-1] if len(family) <= 5 else family[-(len(family) // 3)])
    else:
        wished = (3 * len(weighty)) // 4
    for name in weighty[wished:] + weighty[:wished][::-1]:
        with contextlib.suppress(AugendError):
            stages.position(f":{name}")
            if shape is not None:
                _try(stages, f":{name}", shape)
            return name
    return stages.names[-1]


def _try(stages: Stages, key: str, shape: tuple[int, ...]) -> None:
    modes = {module: module.training for module in stages.modules()}
    stages.eval()
    try:
        with torch.no_grad():
            stages(torch.zeros(2, *shape, device=next(stages.parameters()).device), {key})
    finally:
        for module, mode in modes.items():
            module.training = mode
