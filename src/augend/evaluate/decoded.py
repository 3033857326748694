"""What an autoencoder makes of changed pictures: whether it undoes the change, and whether the label is still to be seen.

Every picture is changed once, by numbers drawn by its place in the set, so that all models are shown the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augend.augment import build
from augend.augment.chain import Chain
from augend.augment.grid import of_all_classes
from augend.contract import AugendError, Component
from augend.data.pictures import Pictures
from augend.evaluate.attacked import batch_of
from augend.evaluate.load import Classifier
from augend.evaluate.shifts import ORIGINAL, picked, shown
from augend.randomness import seed_default_generators, undisturbed

__all__ = ["CHANGES", "Decoded", "autoencoder", "changes", "changing", "decode", "recognised"]

CHANGES: dict[str, tuple[Component, ...]] = {
    "zoom": (Component("resized-crop", {"scale": [0.5625, 0.5625], "ratio": [1, 1]}),),
    "rotate": (Component("rotate", {"degrees": 60}),),
    "light": (Component("jitter", {"brightness": 0.5, "contrast": 0.5, "saturation": 0, "hue": 0}),),
    "hue": (Component("jitter", {"brightness": 0, "contrast": 0, "saturation": 0.5, "hue": 0.5}),),
}
"""Name -> what is done to each picture: those of the learned-augmentation paper. Its zoom is 24 of 32 pixels; in training it
comes half of the time, here always, for what is not changed keeps its label. Its strengths of light and hue are not said, and
are these."""
COLOURED = frozenset({"hue"})
SHOWN = 8  # pictures that are kept to look at
PARTS = ("moved", "missed", "judged")


def changes(text: str, channels: int) -> list[str]:
    """The changes that ``all`` or ``zoom,rotate`` names; pictures as they are come first.

    >>> changes("all", 1)
    ['original', 'zoom', 'rotate', 'light']
    """
    possible = [name for name in CHANGES if channels == 3 or name not in COLOURED]
    return [ORIGINAL, *picked("--decoded", text, possible, COLOURED)]


def changing(names: list[str], shape: tuple[int, int, int]) -> dict[str, Chain]:
    """What is done to pictures ``(C, H, W)`` under each of `CHANGES`; `ORIGINAL` is an empty chain."""
    return {name: Chain([build(one) for one in CHANGES.get(name, ())], shape[1:]) for name in names}


def autoencoder(model: Classifier, what: str) -> str:
    """The network of a model that gives pictures back."""
    for name in model.networks:
        if "picture" in model.networks.stages(name).outputs:
            return str(name)
    raise AugendError(f"{what}: has no network that gives pictures back; train one with --recipe denoise-then-classify")


@dataclass
class Decoded:
    """Of N pictures, under each change.

    Attributes:
        labels: int64 ``(N,)``, class numbers of the judge, or of the model.
        moved: change -> float64 ``(N,)``, mean square over a picture's entries of what the change does to it.
        missed: the same of what the autoencoder's answer to the changed picture is away from the clean one.
        constant: the same, as a mean over all pictures, of the best answer that is one picture for all of them: their mean.
        judged: "changed/NAME" and "decoded/NAME" -> int64 ``(N,)``, what a judge calls them, -1 for no answer; empty
            without one.
        seen: change -> uint8 ``(3, pictures, C, H, W)``: some of them clean, changed, decoded.
    """

    labels: NDArray[np.int64]
    constant: float = 0.0
    moved: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    missed: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    judged: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it by name, to be kept; `of` reads it."""
        by_change = {f"{part}/{key}": one for part in PARTS for key, one in getattr(self, part).items()}
        tiles = {f"seen/{key}": one.numpy() for key, one in self.seen.items()}
        return {"labels": self.labels, "constant": np.array(self.constant), **by_change, **tiles}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Decoded:
        """What `arrays` gave."""
        out = cls(arrays["labels"], float(arrays["constant"]))
        for name, one in arrays.items():
            part, _, key = name.partition("/")
            if part in PARTS:
                getattr(out, part)[key] = one
            elif part == "seen":
                out.seen[key] = torch.from_numpy(one)
        return out


def decode(
    model: Classifier,
    pictures: Pictures,
    labels: Tensor,
    chains: Mapping[str, Chain],
    judge: Classifier | None = None,
    after: Callable[[int, int], None] | None = None,
    *,
    answers: Mapping[str, NDArray[np.int64]] | None = None,
    what: str = "the model",
) -> Decoded:
    """Show an autoencoder all pictures under every change, and what it makes of them to a judge.

    Args:
        model: in evaluation mode, with a network that gives pictures back.
        labels: int64 ``(N,)``, class numbers of the judge where there is one.
        chains: name of a change -> what is done to each picture (`changing`).
        judge: a classifier that knows nothing of the autoencoder.
        after: called with (pictures done, pictures in all).
        answers: "changed/NAME" -> what the judge calls these pictures under a change, where that is known from before.
    """
    network = model.networks.stages(autoencoder(model, what))
    parts: dict[str, list[Tensor]] = {}
    out, done = Decoded(labels.cpu().numpy(), judged=dict(answers or {})), 0
    sums = torch.zeros((2, *model.shape), dtype=torch.float64)
    with torch.no_grad(), undisturbed():
        for numbers in torch.split(torch.arange(len(pictures)), batch_of(pictures)):
            seen, _ = pictures.fetch(numbers[:, None])
            clean = shown(Chain([]), ORIGINAL, seen[:, 0], numbers)
            sums += torch.stack([clean.double().sum(0), clean.double().square().sum(0)]).cpu()
            for name, chain in chains.items():
                x = shown(chain, name, seen[:, 0], numbers)
                seed_default_generators(int(numbers[0]))
                back = network(x, frozenset({"picture"}))["picture"].float()
                for kind, one in (("moved", x), ("missed", back)):
                    square = (one - clean).double().square().flatten(1).mean(1)
                    parts.setdefault(f"{kind}/{name}", []).append(square)
                if judge is not None:
                    for asked, one in ((f"changed/{name}", x), (f"decoded/{name}", back)):
                        if asked not in out.judged:
                            parts.setdefault(f"judged/{asked}", []).append(_answered(judge, one, int(numbers[0])))
                if after is not None:
                    after(done + len(numbers), len(pictures))
            done += len(numbers)
        numbers = torch.tensor(of_all_classes(labels.tolist(), SHOWN))
        seen, _ = pictures.fetch(numbers[:, None])
        clean = shown(Chain([]), ORIGINAL, seen[:, 0], numbers)
        for name, chain in chains.items():
            x = shown(chain, name, seen[:, 0], numbers)
            tiles = torch.stack([clean, x, network(x, frozenset({"picture"}))["picture"].float()])
            out.seen[name] = tiles.mul(255).round().clamp(0, 255).to(torch.uint8)
    mean, square = sums / len(pictures)
    out.constant = float((square - mean.square()).mean())
    for key, values in parts.items():
        kind, _, name = key.partition("/")
        getattr(out, kind)[name] = torch.cat(values).numpy()
    return out


def _answered(judge: Classifier, pictures: Tensor, seed: int) -> Tensor:
    """Classes, and -1 where a row is not finite: it is no answer. A judge that draws draws the same each time."""
    seed_default_generators(seed)
    logits = judge(pictures)
    return torch.where(logits.isfinite().all(1), logits.argmax(1), -1)


def recognised(found: Decoded) -> NDArray[np.bool_]:
    """Which pictures the judge recognises as they are, ``(N,)``."""
    right: NDArray[np.bool_] = found.judged[f"changed/{ORIGINAL}"] == found.labels
    return right
