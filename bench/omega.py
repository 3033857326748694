"""Omega against augmenting pictures, at N views a picture, beside what Equation 8 of the embedding paper predicts.

    python bench/omega.py                      # resnet18-cifar, 128 pictures of 32x32, N = 2, 5, 10, 50: about 9 minutes
    python bench/omega.py --model small        # a cheap trunk, where Omega saves less

One epoch of a head's training on N views of every picture (the picture itself is one), CPU time, one thread. Pictures: each
view is cropped and flipped, passes the frozen trunk, then a step of the head. Embeddings: one pass, N - 1 of Omega,
the same steps. First the equality: with an Omega that does nothing and pictures left as they are, both heads end in the same
bits. Prediction: from the costs of trunk, Omega and head, measured alone in the same process, in turns.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from augend import EmbeddingAugmenter
from augend.augment.chain import Chain
from augend.augment.geometry import HFlip, PaddedCrop
from augend.contract import Component
from augend.cost import EmbeddingCost
from augend.models import build
from augend.randomness import Draws
from common import interleaved, machine, report

CLASSES, SIDE = 10, 32
Step = Callable[[Tensor], None]
CHAIN = Chain([PaddedCrop(), HFlip()])


class Task:
    """A frozen trunk, Omega, and what a head is trained on."""

    def __init__(self, model: str, rows: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(256, (rows, 3, SIDE, SIDE), generator=draw, dtype=torch.uint8)
        self.labels = torch.arange(rows) % CLASSES
        self.trunk = build(Component(model), shape=(3, SIDE, SIDE), classes=CLASSES, generator_seed=1).eval()
        self.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.width = self.embed(self.floats()).shape[1]

    def floats(self, view: int = 0) -> Tensor:
        """The pictures, or their view-th augmented version."""
        if not view:
            x = self.pixels.float() / 255
        else:
            x = CHAIN.apply(self.pixels, CHAIN.draw(Draws(0, "bench", view, len(self.pixels)), 0.0))
        return x.contiguous(memory_format=torch.channels_last)

    def embed(self, x: Tensor) -> Tensor:
        """Pictures -> embeddings."""
        with torch.no_grad():
            return self.trunk(x, frozenset({"features"}))["features"]  # type: ignore[no-any-return]

    def stepper(self) -> tuple[nn.Module, Step]:
        """A new head, always the same, and a step of its training."""
        head = build(Component("mlp", {"widths": [1024, 128]}), shape=(self.width,), classes=CLASSES, generator_seed=2)
        optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)

        def step(z: Tensor) -> None:
            nn.functional.cross_entropy(head(z)[""], self.labels).backward()
            optimizer.step()
            optimizer.zero_grad()

        return head, step


def pictures(task: Task, step: Step, views: int, *, augmented: bool = True) -> None:
    """An epoch on augmented pictures."""
    for view in range(views):
        step(task.embed(task.floats(view if augmented else 0)))


def embeddings(task: Task, step: Step, views: int, omega: Callable[[Tensor], Tensor], z: Tensor | None = None) -> None:
    """An epoch on augmented embeddings; `z`: as an earlier epoch left them."""
    z = task.embed(task.floats()) if z is None else z
    for view in range(views):
        step(omega(z) if view else z)


def parts(task: Task, omega: EmbeddingAugmenter) -> EmbeddingCost:
    """CPU seconds of a row in the trunk, in Omega, in a step of the head, and of augmenting a picture."""
    x = task.floats()
    z, (_, step) = task.embed(x), task.stepper()
    often = 20

    def repeated(what: Callable[[int], object]) -> None:
        for number in range(often):
            what(number + 1)

    found = interleaved(
        {
            "trunk": functools.partial(task.embed, x),
            "omega": functools.partial(repeated, lambda number: omega.transform(z)),
            "head": functools.partial(repeated, lambda number: step(z)),
            "pixels": functools.partial(repeated, task.floats),
        },
        rounds=7,
    )
    alone = {part: seconds / (1 if part == "trunk" else often) / len(x) for part, seconds in found.items()}
    print("ms a row:", "  ".join(f"{part} {1e3 * seconds:.3f}" for part, seconds in alone.items()))
    return EmbeddingCost(alone["trunk"], alone["omega"], alone["head"], alone["pixels"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet18-cifar")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--views", type=int, nargs="+", default=[2, 5, 10, 50])
    parser.add_argument(
        "--base", type=int, default=2000, help="pictures that Omega would learn from, as many as the target's"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)
    task = Task(asked.model, asked.rows)
    (ours, one), (theirs, other) = task.stepper(), task.stepper()
    embeddings(task, one, 3, lambda z: z)
    pictures(task, other, 3, augmented=False)
    same = all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    print(f"with an Omega that does nothing, heads are {'the same bits' if same else 'DIFFERENT'}")

    fitted = torch.randn(asked.base, task.width, generator=torch.Generator().manual_seed(3))
    begin = time.process_time()
    model = EmbeddingAugmenter(lr=0.1, epochs=50).fit(fitted, fitted.roll(1, 1))
    learning = (time.process_time() - begin) / asked.base
    cost = parts(task, model)
    for views in asked.views:
        arms = {
            "pictures": functools.partial(pictures, task, one, views),
            "embeddings": functools.partial(embeddings, task, other, views, model.transform),
        }
        found = interleaved(arms, rounds=2 if views > 10 else 3)
        measured, predicted = found["pictures"] / found["embeddings"], cost.ratio(views)
        printed = EmbeddingCost(cost.trunk, cost.augmenter, cost.head).ratio(views, printed=True)
        report(
            f"N = {views}, over what Equation 8 predicts",
            measured / predicted,
            ">= 0.95",
            same and measured >= 0.95 * predicted,
            measured=f"{measured:.2f}",
            predicted=f"{predicted:.2f}",
            printed=f"{printed:.2f}",
        )
    twice = EmbeddingCost(cost.trunk, cost.augmenter, cost.head, cost.pixels, fitting=2 * cost.trunk + learning)
    print(
        f"Omega's training on as many pictures, 50 epochs: {1e3 * learning:.2f} ms a picture and two passes; it pays from "
        f"N = {twice.pays_from()} on in one epoch; ratios with it: "
        + ", ".join(f"{twice.ratio(n):.2f}" for n in asked.views)
    )
    z = task.embed(task.floats())
    later = interleaved(
        {
            "pictures": functools.partial(pictures, task, one, 5),
            "embeddings": functools.partial(embeddings, task, other, 5, model.transform, z),
        }
    )
    ratio = later["pictures"] / later["embeddings"]
    report("a later epoch, embeddings kept", ratio, ">= 100", same and ratio >= 100)


if __name__ == "__main__":
    print(machine())
    main()
