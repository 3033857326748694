"""Optimizers by word, with state that is saved and restored by parameter name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    return optimizer


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
