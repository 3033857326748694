"""Where a user stands: pictures of their own and a pretrained network, or training from scratch. It decides the network, the
pictures' size, the recipes that are compared and the reference, wherever the user named none.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from augend.contract import AugendError, Component
from augend.data.cache import Progress
from augend.data.named import cache_folder
from augend.recipes.library import known
from augend.runner.job import Kept, load_splits
from augend.study.request import DIGITS, Request

__all__ = ["settled"]

PRETRAINED = ("probe", "probe-views", "probe-mix", "finetune", "aug-ft", "transfer-embed")
SCRATCH = ("plain", "augmented", "aug-ft", "augment-then-plain", "mixup", "gradual-cascade")
SCRATCH_LARGE = ("augmented", "augment-then-plain", "mixup", "small-then-strong", "ait")
LARGE = 20_000  # training pictures
EMBEDDED = ("plain", "augmented", "aug-ft", "augment-then-plain")
BACKBONES = ("mobilenetv3_small_100", "resnet18")  # of a CPU: whichever is faster here
REGIMES = ("auto", "pretrained", "scratch")


def settled(asked: Request, kept: Kept, progress: Progress | None = None) -> tuple[Request, list[str]]:
    """The request with regime, network, weights, size, recipes and reference filled in, and what is to be said about it.

    Args:
        kept: data that were read, see `augend.runner.job.load_splits`.
        progress: called with (files done, files in all) while a folder is decoded.
    """
    if asked.regime not in REGIMES:
        raise AugendError(f"--regime is {asked.regime!r}; it is one of {', '.join(REGIMES)}")
    if asked.regime == "scratch" and asked.weights is not None:
        raise AugendError("--regime scratch starts from no weights; leave --weights out")
    notes: list[str] = []
    words: dict[str, Any] = {"regime": "scratch"}
    if asked.weights is not None:
        words = _given(asked)
    elif asked.regime == "pretrained" or (asked.regime == "auto" and _own_pictures(asked)):
        try:
            words = _fetched(asked)
        except AugendError as error:
            if asked.regime == "pretrained":
                raise
            notes.append(
                "NO PRETRAINED WEIGHTS, so training is from scratch, which few pictures suffer from; give --weights FILE "
                f"if you have one. {error}"
            )
    found = dataclasses.replace(asked, **words)
    if not found.recipes:
        found = dataclasses.replace(found, recipes=_recipes(found, kept, progress))
    if not found.reference:
        usual = "finetune" if found.regime == "pretrained" else "augmented"
        found = dataclasses.replace(found, reference=usual)
    if found.settings == "auto":
        found = dataclasses.replace(found, settings="pretrained" if found.regime == "pretrained" else "good-practice")
    return found, notes


def _own_pictures(asked: Request) -> bool:
    """Folders and tables of somebody's own, when no other network than a pretrained one was named."""
    from augend import names

    own = asked.data.partition(":")[0] not in names.known("data")
    return own and (asked.model is None or asked.model not in names.known("model"))


def _recipes(asked: Request, kept: Kept, progress: Progress | None) -> tuple[str, ...]:
    if asked.data == DIGITS:
        return EMBEDDED
    if asked.regime == "pretrained":
        wanted: tuple[str, ...] = PRETRAINED
    else:
        split = load_splits(asked.job("plain", 0), None, progress, kept)["main"]
        wanted = SCRATCH if len(split.train) < LARGE else SCRATCH_LARGE
    built = {recipe.name for recipe in known()}
    return tuple(name for name in wanted if name in built)


def _given(asked: Request) -> dict[str, Any]:
    """A file of weights, and the network that it fits."""
    assert asked.weights is not None
    model = asked.model or _fitting(Path(asked.weights))
    return {"regime": "pretrained", "model": model, "size": asked.size or _side(asked, model)}


def _side(asked: Request, model: str) -> int | None:
    """The side of a folder's pictures under a network: its weights' own. Named sets have theirs."""
    from augend import names
    from augend.models.pretrained import native_side

    if asked.data.partition(":")[0] in names.known("data") or model in names.known("model"):
        return None
    return native_side(model)


def _fitting(file: Path) -> str:
    from augend.models import build
    from augend.models.weights import read_weights

    read_weights(file)  # what cannot be read at all is no question of which network
    said = []
    for model in BACKBONES:
        try:
            build(Component(model), shape=(3, 64, 64), classes=2, weights=file, generator_seed=0)
        except AugendError as error:
            said.append(str(error))
        else:
            return model
    raise AugendError(f"{said[0]}; say which network the weights belong to (--model)")


def _fetched(asked: Request) -> dict[str, Any]:
    """Pretrained weights from this machine's caches or the hub, put into a file of our own cache."""
    from augend.models.pretrained import fetch_weights

    folder = cache_folder() / "weights"
    candidates = [asked.model] if asked.model is not None else list(BACKBONES)
    had: dict[str, Path] = {}
    first: AugendError | None = None
    for model in candidates:
        try:
            had[model] = fetch_weights(model, folder, side=asked.size)
        except AugendError as error:
            first = first or error
            if "AUGEND_OFFLINE" not in str(error) and len(candidates) > 1:
                break  # the network is not there for the next one either
    if not had:
        assert first is not None
        raise first
    model = min(had, key=lambda name: _step_seconds(name, asked.size)) if len(had) > 1 else next(iter(had))
    return {
        "regime": "pretrained",
        "model": model,
        "weights": str(had[model]),
        "size": asked.size or _side(asked, model),
    }


def _step_seconds(model: str, size: int | None) -> float:
    """Seconds of a training step of 8 pictures, the better of two after one of warm-up."""
    import torch

    from augend.models import build
    from augend.models.pretrained import native_side

    side = size or native_side(model)
    stages = build(Component(model), shape=(3, side, side), classes=10, generator_seed=0)
    x, best = torch.rand(8, 3, side, side), float("inf")
    for number in range(3):
        begin = time.perf_counter()
        stages(x)[""].sum().backward()
        best = min(best, time.perf_counter() - begin) if number else best
    return best
