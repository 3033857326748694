"""A trained model back from its file: a plain `nn.Module` that takes pictures of any size."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from augend.address import Address
from augend.checkpoint import read_described
from augend.contract import AugendError, Component
from augend.data.rows import centred
from augend.models import build
from augend.models.stages import Stages
from augend.names import OWN, own_model
from augend.stages.networks import Networks

__all__ = ["Classifier", "load"]


class Classifier(nn.Module):
    """A trained classifier.

    Attributes:
        classes: names, by class number.
        shape: ``(C, H, W)`` that it was trained at.
        resize: the short side that larger pictures are brought to before their middle is cut out; 1.15 times the training
            size where the training pictures were larger files.
        about: how its file describes it: ``networks`` (word, options, input, classes), ``recipe``, ``schema``.

    Called on uint8 pictures or floats in [0, 1], ``(N, C, H, W)`` or ``(C, H, W)`` of any size, it resizes the short side
    to `resize`, crops the centre, and returns logits ``(N, classes)``; pictures of the training size are taken as they are.
    Colour is made grey, or grey repeated, where the model asks for it. Normalisation is part of the model.
    """

    def __init__(self, networks: Networks, about: Mapping[str, Any]) -> None:
        super().__init__()
        channels, height, width = about["shape"]
        self.networks, self.about = networks, about
        self.result: str = about["result"]
        self.classes: tuple[str, ...] = tuple(about["classes"])
        self.shape: tuple[int, int, int] = (channels, height, width)
        self.resize: int = about.get("resize", min(height, width))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits ``(N, classes)``, float32."""
        return self.networks.tensor(Address(self.result), self.fitted(pictures)).float()

    def probabilities(self, pictures: Tensor) -> Tensor:
        """Softmax of the logits, without gradients: float32 ``(N, classes)``."""
        with torch.no_grad():
            return functional.softmax(self(pictures), dim=1)

    def fitted(self, pictures: Tensor) -> Tensor:
        """Pictures as the networks take them: float32 in [0, 1], the training size and number of channels."""
        x = pictures if pictures.ndim == 4 else pictures[None]
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise AugendError(f"pictures must be (N, C, H, W) with 1 or 3 channels, found {tuple(pictures.shape)}")
        x = x.float().div(255.0) if x.dtype == torch.uint8 else x.float()
        channels, height, width = self.shape
        if x.shape[1] != channels:
            weights = x.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
            x = (x * weights).sum(1, keepdim=True) if channels == 1 else x.expand(-1, channels, -1, -1)
        if x.shape[2:] == (height, width):
            return x
        scale = max(height / x.shape[2], width / x.shape[3]) * self.resize / min(height, width)
        size = [max(height, round(x.shape[2] * scale)), max(width, round(x.shape[3] * scale))]
        x = functional.interpolate(x, size=size, mode="bilinear", antialias=True).clamp(0, 1)
        middle: Tensor = centred(x, (height, width))
        return middle


def load(path: str | Path, model: nn.Module | None = None) -> Classifier:
    """A trained model, in eval mode, from a run's or a study's folder or from its ``model.safetensors``.

    Nothing is unpickled. A file that is damaged, foreign or of a newer schema is one clear error.

    Args:
        path: the folder or file.
        model: for a run of `augend.fit`: a module of the same layers as the trained one; it is copied, not written to.

    Example:
        >>> import augend
        >>> data = [(torch.rand(1, 8, 8), n % 2) for n in range(40)]
        >>> net, run = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2)), getfixture("tmp_path") / "run"
        >>> finished = augend.fit("plain", net, data, budget="4step", out=run)
        >>> trained = load(run, model=net)
        >>> trained(torch.zeros(3, 40, 60, dtype=torch.uint8)).shape
        torch.Size([1, 2])
    """
    file = Path(path)
    if not file.exists():
        raise AugendError(f"{path}: there is no such folder of a run or study, nor such a file")
    if file.is_dir():
        file = file / "model.safetensors"
    if not file.is_file() and (file.parent / "study.json").is_file():
        raise AugendError(
            f"{path}: this study has left no model (it advises none yet); name one of its trials, as {path}/trials/NAME"
        )
    if not file.is_file():
        raise AugendError(f"{path}: there is no model here (no {file.name}); a run writes it when it ends")
    tensors, about = _read(file)
    networks: dict[str, Stages] = {}
    inputs: dict[str, Address | None] = {}
    shape = tuple(about["shape"])
    for name, spec in about["networks"].items():
        word = spec["model"]["word"]
        if word.startswith(OWN):
            if model is None:
                raise AugendError(
                    f"{file}: trained by augend.fit on a module of your own ({word.removeprefix(OWN)}); "
                    f"in Python: augend.load({str(path)!r}, model=yours)"
                )
            own_model(word, model)
        inputs[name] = None if spec["input"] is None else Address.parse(spec["input"])
        entering = shape
        if inputs[name] is not None:
            so_far = Networks(networks, inputs).eval()
            assert isinstance(so_far, Networks)
            with torch.no_grad():
                entering = tuple(so_far.tensor(inputs[name], torch.zeros(2, *shape)).shape[1:])  # type: ignore[arg-type]
        mean, std = (tensors.get(f"{name}.{key}") for key in ("mean", "std"))
        networks[name] = build(
            Component(word, spec["model"]["options"]),
            shape=entering,
            classes=spec["classes"],
            cuts=spec["cuts"],
            generator_seed=0,
            mean=None if mean is None else mean.flatten().tolist(),
            std=None if std is None else std.flatten().tolist(),
        )
    built = Networks(networks, inputs)
    try:
        built.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise AugendError(f"{file}: its weights do not fit the network that it describes ({first})") from error
    return Classifier(built, about).eval()


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = read_described(file)
    if "augend" not in metadata:
        raise AugendError(f"{file}: weights without augend's description; only models that augend wrote can be loaded")
    about: dict[str, Any] = json.loads(metadata["augend"])
    if about.get("schema") != 1:
        raise AugendError(f"{file}: written by a newer augend (schema {about.get('schema')}); update this one")
    return tensors, about
