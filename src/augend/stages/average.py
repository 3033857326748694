"""Averaged weights: an exponential moving average of everything a phase moves, running statistics included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Exponential moving average of what moves in a module, with a short memory at the beginning.

    At update t (from 0) the decay is ``min(decay, (1 + t) / (10 + t))``. What moves is decided when the average is made:
    weights that ask for a gradient, and floating-point buffers of modules in train mode (running statistics of batch norm,
    so that averaged weights are used with the statistics of those very weights, and not with the last ones'). The rest is
    frozen, and is used as it is. Cost: one fused pass a step over what moves.

    Args:
        module: whose parameters and buffers are averaged, frozen and in the modes that it is trained in.
        decay: in (0, 1); None switches averaging off.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> average = Average(layer, 0.9)
        >>> average.update()
        >>> with average.applied():
        ...     shown = float(layer.weight.detach())
    """

    def __init__(self, module: nn.Module, decay: float | None) -> None:
        self._every = {n: t for n, t in module.state_dict(keep_vars=True).items() if t.is_floating_point()}
        self.decay = decay
        self.updates = 0
        self._mean: dict[str, Tensor] = {}
        moving = _moving(module) if decay is not None else set()
        self._follow({name: tensor for name, tensor in self._every.items() if name in moving})

    def _follow(self, start: Mapping[str, Tensor]) -> None:
        """Average these tensors from now on, from these values."""
        self._live = {name: self._every[name] for name in start}
        self._mean = {
            name: torch.empty_like(live).detach().copy_(start[name].detach()) for name, live in self._live.items()
        }
        self._means, self._lives = list(self._mean.values()), [t.detach() for t in self._live.values()]

    def update(self) -> None:
        """Take the current weights in."""
        if self.decay is None:
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        with torch.no_grad():
            torch._foreach_lerp_(self._means, self._lives, 1.0 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module with its averaged weights, for an evaluation or an export; its own come back afterwards."""
        if self.decay is None or not self.updates:
            yield
            return
        raw = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._write(self._mean)
        try:
            yield
        finally:
            self._write(raw)

    def _write(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self._live.items():
                tensor.copy_(values[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The averages, and how many updates they hold."""
        return {**self._mean, "updates": torch.tensor(self.updates)} if self.decay is not None else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved average."""
        if self.decay is None or not state:
            return
        self.updates = int(state["updates"])
        self._follow({name: tensor for name, tensor in state.items() if name != "updates"})


def _moving(module: nn.Module) -> set[str]:
    found = set()
    for prefix, part in module.named_modules(prefix="", remove_duplicate=False):
        own = {name for name, weight in part._parameters.items() if weight is not None and weight.requires_grad}
        own |= set(part._buffers) if part.training else set()
        found |= {f"{prefix}.{name}" if prefix else name for name in own}
    return found
