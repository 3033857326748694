"""Test sets that are changed in a fixed way: how a model's accuracy, predictions and features move with them.

Every picture of such a set is made once: its parameters are drawn by its number, so that all models are shown the same sets.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from augend.address import Address
from augend.augment import build
from augend.augment.chain import Chain
from augend.contract import AugendError, Component
from augend.data.pictures import Pictures
from augend.evaluate.load import Classifier
from augend.names import nearest
from augend.pixels import to_float
from augend.randomness import Draws, seed_default_generators, undisturbed

__all__ = [
    "ORIGINAL",
    "SHIFTS",
    "Looks",
    "apart",
    "chosen",
    "laid_out",
    "look",
    "picked",
    "shifting",
    "summary",
    "variation",
]

ORIGINAL = "original"
SHIFTS: dict[str, tuple[Component, ...]] = {
    "crop": (Component("crop", {"padding": 4}),),
    "grayscale": (Component("grayscale", {"p": 1.0}),),
    "colour": (Component("jitter", {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1}),),
    "hflip": (Component("hflip", {"p": 1.0}),),
    "vflip": (Component("vflip", {"p": 1.0}),),
    "rotate": (Component("rotate", {"degrees": 30}),),
    "brightness": (Component("brightness", {"strength": 0.4}),),
}
"""Name -> what is done to each picture. The first three are those of the invariance paper (section 4.5)."""
COLOURED = frozenset({"grayscale", "colour"})  # that change nothing on grey pictures
BATCH = 250


def chosen(text: str, channels: int) -> list[str]:
    """The shifts that ``all`` or ``crop,rotate`` names, for pictures of some channels; `ORIGINAL` comes first.

    >>> chosen("all", 1)
    ['original', 'crop', 'hflip', 'vflip', 'rotate', 'brightness']
    """
    possible = [name for name in SHIFTS if channels == 3 or name not in COLOURED]
    return [ORIGINAL, *picked("--shifts", text, possible, COLOURED)]


def picked(option: str, text: str, possible: list[str], coloured: Collection[str]) -> list[str]:
    """The names that ``all`` or ``a,b`` says, each once.

    Args:
        option: where it was said, for messages.
        possible: what may be named.
        coloured: what is known, but for pictures with colours alone.
    """
    words = [part.strip() for part in text.split(",") if part.strip()]
    named = possible if "all" in words else words
    for name in named:
        if name in coloured and name not in possible:
            raise AugendError(f"{option}: {name} changes nothing on grey pictures; choose of {', '.join(possible)}")
        if name not in possible:
            raise AugendError(
                f"{option}: there is no {name!r}{nearest(name, possible)} (known: all, {', '.join(possible)})"
            )
    if not named:
        raise AugendError(f"{option}: names none (known: all, {', '.join(possible)})")
    return list(dict.fromkeys(named))


def shifting(shifts: Sequence[str], shape: tuple[int, int, int]) -> dict[str, Chain]:
    """What is done to pictures ``(C, H, W)`` under each of `SHIFTS`; `ORIGINAL` is an empty chain."""
    return {name: Chain([build(one) for one in SHIFTS.get(name, ())], shape[1:]) for name in shifts}


@dataclass(frozen=True)
class Looks:
    """What a model makes of one set of pictures under several shifts.

    Attributes:
        labels: int64 ``(N,)``, class numbers of the model.
        logits: shift -> float32 ``(N, classes)``.
        features: shift -> float32 ``(N, d)``; empty where the network has none.
    """

    labels: NDArray[np.int64]
    logits: Mapping[str, NDArray[np.float32]]
    features: Mapping[str, NDArray[np.float32]]

    def right(self, shift: str) -> NDArray[np.float64]:
        """1 where a picture is recognised, else 0, ``(N,)``."""
        found: NDArray[np.float64] = (self.logits[shift].argmax(1) == self.labels).astype(np.float64)
        return found


def look(
    model: Classifier,
    pictures: Pictures,
    labels: Tensor,
    chains: Mapping[str, Chain],
    after: Callable[[int, int], None] | None = None,
    *,
    keep_features: bool = True,
) -> Looks:
    """Show a model all pictures under every shift.

    Args:
        model: in eval mode; pictures have its training shape.
        labels: int64 ``(N,)``, class numbers of the model.
        chains: name of a shift -> what is done to each picture (`shifting`); an empty chain leaves it.
        after: called with (pictures done, pictures in all).
        keep_features: False: logits alone.
    """
    shifts = list(chains)
    logits: dict[str, list[Tensor]] = {name: [] for name in shifts}
    features: dict[str, list[Tensor]] = {name: [] for name in shifts}
    asked = Address(model.result), Address(model.result, "features")
    has = keep_features and "features" in model.networks.stages(model.result).outputs
    done, total = 0, len(shifts) * len(pictures)
    with torch.no_grad(), undisturbed():
        for numbers in torch.split(torch.arange(len(pictures)), BATCH):
            seen, _ = pictures.fetch(numbers[:, None])
            for name, chain in chains.items():
                seed_default_generators(int(numbers[0]))  # a network that draws draws the same, whatever ran before
                x = shown(chain, name, seen[:, 0], numbers)
                logits[name].append(model.networks.tensor(asked[0], x).float())
                if has:
                    features[name].append(model.networks.tensor(asked[1], x).float().flatten(1))
                done += len(numbers)
                if after is not None:
                    after(done, total)
    return Looks(
        labels.cpu().numpy(),
        {name: torch.cat(parts).numpy() for name, parts in logits.items()},
        {name: torch.cat(parts).numpy() for name, parts in features.items() if parts},
    )


def shown(chain: Chain, name: str, pixels: Tensor, numbers: Tensor) -> Tensor:
    """Floats ``(rows, C, H, W)`` of uint8 pictures under a shift; `numbers` are theirs within the set."""
    if not chain.ops:
        return laid_out(to_float(pixels))
    return laid_out(chain.apply(pixels, chain.draw(Draws(0, f"shift/{name}", keys=numbers), 0.0)))


def laid_out(x: Tensor) -> Tensor:
    """Pictures as networks that only look at them get them: on the CPU channels last, which is faster (bench/looking.py)."""
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def summary(looks: Looks) -> dict[str, dict[str, Any]]:
    """Shift -> ``accuracy``, and how far below that of the original with a 95 % interval over the pictures (paired;
    never surer than one picture).
    """
    before = looks.right(ORIGINAL)
    found = {}
    for name in looks.logits:
        now = looks.right(name)
        change = now - before
        half = (
            1.96 * max(float(change.std(ddof=1)) / math.sqrt(len(change)), 1 / len(change)) if len(change) > 1 else None
        )
        mean = float(change.mean())
        found[name] = {
            "accuracy": float(now.mean()),
            "change": mean,
            "low": None if half is None else mean - half,
            "high": None if half is None else mean + half,
            "pictures": len(now),
        }
    return found


def apart(looks: Looks, a: str, b: str) -> NDArray[np.float64]:
    """KL(p_a || p_b) + KL(p_b || p_a) of each picture's predictions under two shifts, nats, ``(N,)``."""
    one, two = (functional.log_softmax(torch.from_numpy(looks.logits[name]).double(), 1) for name in (a, b))
    found: NDArray[np.float64] = ((one.exp() - two.exp()) * (one - two)).sum(1).numpy()
    return found


def variation(looks: Looks) -> dict[str, dict[str, float]]:
    """For each pair of sets the mean over pictures of how far predictions and features are apart (Figure 5 of the
    invariance paper): ``kl``, both directions summed, and ``features``, the distance of the features.
    """
    found = {}
    for a, b in itertools.combinations(looks.logits, 2):
        pair = {"kl": float(apart(looks, a, b).mean())}
        if looks.features:
            pair["features"] = float(np.linalg.norm(looks.features[a] - looks.features[b], axis=1).mean())
        found[f"{a}, {b}"] = pair
    return found
