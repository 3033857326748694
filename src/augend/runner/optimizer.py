"""Optimizers by word, with state that is saved and restored by parameter name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from augend.contract import AugendError, Component

__all__ = ["OPTIMIZERS", "build_optimizer", "load_optimizer", "save_optimizer"]

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def build_optimizer(component: Component, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
    """A fused optimizer over named parameters, each in exactly one group."""
    if component.word not in OPTIMIZERS:
        raise AugendError(f"unknown optimizer {component.word!r} (known: {', '.join(OPTIMIZERS)})")
    if not parameters:
        raise AugendError("no weight moves: check `train` of the phase")
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in component.options.items()}
    try:
        optimizer = OPTIMIZERS[component.word](list(parameters.values()), fused=True, **options)
    except (TypeError, ValueError) as error:
        raise AugendError(f"optimizer {component.word}: {error}") from error
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    weights = [p for p in parameters.values() if p.ndim == 4 and p.device.type == "cpu"]
    if weights and _walks(component.word):
        _spare_copies(optimizer, weights)
    return optimizer


def _spare_copies(optimizer: Optimizer, weights: Sequence[nn.Parameter]) -> None:
    """Show gradients that are channels last to an optimizer's steps as what they are in memory: contiguous.

    Fused steps on a CPU walk through memory, whose order does not matter to them, but torch first makes a contiguous copy of
    each gradient, for nothing: half of the time of a step of SGD (bench/updates.py). The bits are the same.
    """
    shown: list[tuple[Tensor, Tensor]] = []

    def before(*_: Any) -> None:
        heavy = any(group.get("momentum") for group in optimizer.param_groups)
        for weight in weights:
            gradient = weight.grad
            if gradient is None or gradient.is_contiguous() or gradient.stride() != weight.stride():
                continue
            if heavy and optimizer.state.get(weight, {}).get("momentum_buffer") is None:
                continue  # it is made of the gradient's shape
            if gradient.is_contiguous(memory_format=torch.channels_last):
                shown.append((gradient, gradient.data))
                gradient.data = gradient.data.permute(0, 2, 3, 1)

    def after(*_: Any) -> None:
        while shown:
            gradient, data = shown.pop()
            gradient.data = data

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)


@functools.cache
def _walks(word: str) -> bool:
    """Whether this torch's fused steps walk through memory: a weight comes to the same bits, however its gradient looks."""
    found = []
    for shown in (False, True):
        weight = nn.Parameter(torch.arange(120.0).sin().view(2, 3, 4, 5).to(memory_format=torch.channels_last))
        weight.grad = weight.detach().cos()
        if shown:
            weight.grad.data = weight.grad.data.permute(0, 2, 3, 1)
        try:
            OPTIMIZERS[word]([weight], lr=0.1, fused=True).step()
        except RuntimeError:
            return False
        found.append(weight.detach())
    return torch.equal(*found)


def save_optimizer(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """ "NAME//KEY" -> tensor, for every parameter that has state."""
    return {
        f"{name}//{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def load_optimizer(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor]) -> None:
    """Restore state into tensors with the parameter's own strides (channels-last): the next step has the same bits."""
    for full, value in saved.items():
        name, _, key = full.partition("//")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            own = torch.empty_like(parameter, dtype=value.dtype, memory_format=torch.preserve_format)
            own.copy_(value)
        else:
            own = value.clone()
        optimizer.state[parameter][key] = own.detach()
