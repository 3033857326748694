"""Weights from a file, put where they belong: exactly, or not at all."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augend.contract import AugendError
from augend.models.stages import Stages

__all__ = ["load_weights", "put_weights", "read_weights"]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name, from safetensors or from what `torch.save` wrote of a state dict. Nothing is unpickled but tensors.

    A checkpoint that holds its weights under ``state_dict_ema``, ``model_ema``, ``state_dict`` or ``model`` gives those.
    """
    file = Path(path)
    if not file.is_file():
        if file.is_dir():
            raise AugendError(f"weights {path}: is a folder; name a file, as {file / 'model.safetensors'}")
        raise AugendError(f"weights {path}: there is no such file")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch would advise to unpickle it after all
        raise AugendError(
            f"weights {path}: no state dict, or one that holds more than tensors, and objects of other code are never "
            "loaded; save model.state_dict(), or safetensors"
        ) from error
    except Exception as error:  # whatever a damaged or foreign file makes the readers say
        first = str(error).strip().split("\n")[0]
        raise AugendError(f"weights {path}: cannot be read as safetensors or as a state dict ({first})") from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    tensors = (
        {name: value for name, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}
    )
    if not tensors:
        raise AugendError(f"weights {path}: there are no tensors in it; save a state dict")
    return tensors


def load_weights(stages: Stages, path: str | Path) -> bool:
    """Load a file into a network; see `put_weights`. Returns whether the file brought its normalisation."""
    return put_weights(stages, read_weights(path), f"weights {path}")


def put_weights(stages: Stages, state: dict[str, Tensor], source: str) -> bool:
    """Copy weights into a network, by name.

    A common prefix ("module.", "model.", "net.model.") is found by itself. A classifier of another shape is left out, which
    is added to ``stages.notes``; anything else that does not fit is an error that lists the first names. Normalisation
    stored beside the weights is taken over.

    Returns:
        Whether there was such a normalisation.
    """
    model = stages.get_submodule("model") if hasattr(stages, "model") else stages
    own = model.state_dict()
    prefix = _prefix(own, state)
    given = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    beside = prefix.removesuffix("model.")
    scales = [state.get(f"{beside}{name}") for name in ("mean", "std")] if "mean" not in own else [None, None]
    given = {name: value for name, value in given.items() if name in own or name not in ("mean", "std")}
    if not _fits(own, given):
        adapt = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
        if adapt is not None:  # timm's: older names, other numbers of positions
            given = adapt(given, model)
    last = _classifier_names(stages, model)
    odd = [name for name in own if name not in given or given[name].shape != own[name].shape]
    odd = [name for name in odd if not name.endswith("num_batches_tracked")]
    if odd and all(name in last for name in odd):
        given = {name: value for name, value in given.items() if name not in last}
        stages.notes += (f"{source}: its classifier does not fit {len(odd)} tensors here and was left out",)
        odd = []
    unexpected = [name for name in given if name not in own]
    if odd or unexpected:
        raise AugendError(f"{source}: do not fit {type(model).__name__}: {_mismatch(own, given, odd, unexpected)}")
    model.load_state_dict(given, strict=False)
    if scales[0] is not None and scales[1] is not None:
        stages.normalise(scales[0], scales[1])
        return True
    return False


def _prefix(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    prefixes = {""}
    for name in list(own)[:3]:
        prefixes |= {other.removesuffix(name) for other in state if other.endswith(f".{name}")}
    return max(sorted(prefixes, key=len), key=lambda prefix: sum(f"{prefix}{name}" in state for name in own))


def _fits(own: dict[str, Tensor], given: dict[str, Tensor]) -> bool:
    return own.keys() == given.keys() and all(given[name].shape == own[name].shape for name in own)


def _classifier_names(stages: Stages, model: nn.Module) -> set[str]:
    if "classify" not in stages.names:
        return set()
    inside = {p for module in stages.modules_of("classify") for p in [*module.parameters(), *module.buffers()]}
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name for name, tensor in named if tensor in inside}


def _mismatch(own: dict[str, Tensor], given: dict[str, Tensor], odd: list[str], unexpected: list[str]) -> str:
    missing = [name for name in odd if name not in given]
    shapes = [f"{n} {tuple(given[n].shape)} for {tuple(own[n].shape)}" for n in odd if n in given]
    parts = [("missing", missing), ("not known here", unexpected), ("of another shape", shapes)]
    return "; ".join(
        f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in parts
        if names
    )
