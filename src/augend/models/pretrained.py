"""Pretrained weights as one file: from timm's or torchvision's caches or the network, once, and then from our own cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from augend.checkpoint import write_bytes
from augend.contract import AugendError, Component
from augend.models.factory import build
from augend.models.stages import Stages

__all__ = ["digest_of", "fetch_weights", "native_side"]

SIDE = 224


def native_side(model: str) -> int:
    """The side in pixels that a model's pretrained weights were trained at (224 where nothing says another)."""
    if model.startswith("torchvision:"):
        from torchvision import models

        found = models.get_model_weights(model.removeprefix("torchvision:"))
        crop = next(iter(found)).transforms().crop_size if len(found) else [SIDE]
        return int(crop[0])
    import timm

    cfg = timm.get_pretrained_cfg(model) if timm.is_model(model) else None
    return int(cfg.input_size[-1]) if cfg is not None else SIDE


def fetch_weights(model: str, folder: Path, *, side: int | None = None, channels: int = 3) -> Path:
    """A safetensors file of a model's pretrained weights and their normalisation, its classifier left out.

    Args:
        model: a name of timm, or ``torchvision:NAME``.
        folder: where such files are kept; one that is there is taken without a look at the network.
        side: of the pictures, for networks of one size (default: the weights' own).
        channels: 3, or 1 where the network adapts itself to grey pictures.

    Raises:
        AugendError: they can neither be found on this machine nor fetched within five seconds.
    """
    from safetensors.torch import save

    side = side or native_side(model)
    name = hashlib.blake2b(f"{model} {side} {channels}".encode(), digest_size=6).hexdigest()
    path = folder / f"{model.replace(':', '-').replace('/', '-')}-{name}.safetensors"
    if path.is_file():
        return path
    stages = build(
        Component(model),
        shape=(channels, side, side),
        classes=2,
        pretrained=True,
        mean=None,
        std=None,
        generator_seed=0,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, save(_trunk(stages)))
    return path


def _trunk(stages: Stages) -> dict[str, Tensor]:
    """The tensors of a network without its classifier, with its normalisation, contiguous."""
    owned = {p for module in stages.modules_of("classify") for p in [*module.parameters(), *module.buffers()]}
    with torch.no_grad():
        live = stages.state_dict(keep_vars=True)
        return {name: tensor.detach().contiguous().clone() for name, tensor in live.items() if tensor not in owned}


def digest_of(path: Path) -> str:
    """16 hexadecimal digits of a file's contents, by which a study knows its weights again."""
    try:
        digest = hashlib.blake2b(digest_size=8)
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError as error:
        raise AugendError(f"weights {path}: {error.strerror or error}") from None
    return digest.hexdigest()
