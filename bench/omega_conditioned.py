"""Omega that is told what was drawn, and omegas one after the other: do they do what one plain omega does not?

    python bench/omega_conditioned.py MODEL…      # about 3 minutes each on a quiet core

Models are those that `augend reproduce embedding/bases-eight --scale cpu` leaves, trials/base-none-r*/model.safetensors. For
each an omega learns an augmentation of 10,000 pictures of CIFAR-100 from four draws a picture, plain, or with the drawn
parameters as further inputs. Scored on 1,000 other pictures and fresh draws. Then heads for CIFAR-10 (5,000 pictures) on
embeddings as they are, under the plain omega, under the conditioned one with fresh parameters in every step, under a chain
of two omegas (a flip, then this one), and on eight cached views; half of the rows stay as they are. Nothing is tuned here.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor, nn
from torch.nn import functional

import augend
from augend.address import Address
from augend.augment import build
from augend.augment.chain import Chain
from augend.augment.pairs import Scales
from augend.contract import Component
from augend.data import load
from augend.data.pictures import Pictures
from augend.evaluate.load import Classifier
from augend.randomness import Draws
from augend.study.statistics import mean_of
from common import machine

DRAWS, VIEWS, EPOCHS, BATCH = 4, 8, 30, 128
KINDS = {
    "rotation by up to 15 degrees": Component("rotate", {"degrees": 15}),
    "shift by up to 4 pixels": Component("crop", {"padding": 4}),
}


class Conditioned(nn.Module):
    """d + parameters -> 2 d -> ReLU -> d."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width + told, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, z: Tensor, params: Tensor) -> Tensor:
        return self.net(torch.cat([z, params], 1))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """The features of a trained classifier."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model.networks.tensor(Address(self.model.result, "features"), x)


def embedded(
    trunk: nn.Module, pictures: Pictures, chain: Chain | None = None, stream: str = ""
) -> tuple[Tensor, Tensor]:
    """Embeddings ``(n, d)`` of pictures, augmented by fresh draws, and the parameters that were drawn."""
    made, drawn = [], []
    for begin in range(0, len(pictures), 500):
        keys = torch.arange(begin, min(begin + 500, len(pictures)))
        x = pictures.pixels[begin : begin + 500]
        if chain is None:
            shown, params = x.float() / 255, torch.zeros(len(x), 1)
        else:
            params = chain.draw(Draws(0, stream, keys=keys), 0.0)
            shown = chain.apply(x, params)
        with torch.no_grad():
            made.append(trunk(shown))
        drawn.append(params)
    return torch.cat(made), torch.cat(drawn)


def learned(z: Tensor, zg: Tensor, params: Tensor | None, seed: int) -> nn.Module | augend.EmbeddingAugmenter:
    """Plain or conditioned, by the same descent on the same pairs."""
    if params is None:
        return augend.EmbeddingAugmenter(epochs=EPOCHS, batch=BATCH, seed=seed).fit(z, zg)
    torch.manual_seed(seed)
    scales = Scales(z, zg)
    x, y = scales.entering(z), scales.leaving(zg)
    net = Conditioned(z.shape[1], params.shape[1])
    steps = math.ceil(EPOCHS * len(z) / BATCH)
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.9, fused=True)
    for step in range(steps):
        rows = torch.randint(len(z), (BATCH,))
        loss = (net(x[rows], params[rows]) - y[rows]).square().mean()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
        optimizer.zero_grad()

    class Whole(nn.Module):
        def forward(self, z: Tensor, params: Tensor) -> Tensor:
            with torch.no_grad():
                return net(scales.entering(z), params) * scales.size.float() + scales.target.float()  # type: ignore[no-any-return]

    return Whole()


def accuracy(rows, labels: Tensor, test: tuple[Tensor, Tensor], seed: int) -> float:  # type: ignore[no-untyped-def]
    """A head (d, 1024, 128, classes) trained on ``rows(index, step)``; its share of right answers on test embeddings."""
    torch.manual_seed(seed)
    width = test[0].shape[1]
    head = nn.Sequential(nn.Linear(width, 1024), nn.ReLU(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, fused=True)
    steps = EPOCHS * len(labels) // BATCH
    for step in range(steps):
        index = torch.randint(len(labels), (BATCH,))
        functional.cross_entropy(head(rows(index, step)), labels[index]).backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return float((head(test[0]).argmax(1) == test[1]).float().mean())


def heads(  # type: ignore[no-untyped-def]
    z: Tensor, whole: Tensor, chained: Tensor, views: Tensor, told: nn.Module, span: Tensor, drawn
):
    """Name -> what a head's step sees of some rows."""

    def half(index: Tensor, other: Tensor) -> Tensor:
        return torch.where(torch.rand(len(index), 1) < 0.5, other, z[index])

    return {
        "nothing": lambda i, s: z[i],
        "plain": lambda i, s: half(i, whole[i]),
        "told what was drawn": lambda i, s: half(i, told(z[i], drawn(i, s) / span)),
        "a flip's, then plain": lambda i, s: half(i, chained[i]),
        "eight cached views": lambda i, s: half(i, views[i, torch.randint(VIEWS, (len(i),))]),
    }


def scored(z: Tensor, zg: Tensor, made: Tensor) -> float:
    return 1 - float((made - zg).square().sum() / (z - zg).square().sum())


def main(models: list[str]) -> None:
    base = load("cifar100:train=10000,valid=1000,test=100")
    found: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
    for number, path in enumerate(models):
        model = augend.load(path)
        trunk = Trunk(model)
        target = load("cifar10:train=5000,valid=100,test=5000", repeat=number)
        plain = embedded(trunk, base.train)[0]
        flip = embedded(trunk, base.train, Chain([build(Component("hflip", {"p": 1}))]), "flip")[0]
        flipping = learned(plain, flip, None, number)
        z, labels = embedded(trunk, target.train)[0], target.train.labels
        test = embedded(trunk, target.test)[0], target.test.labels
        outside = embedded(trunk, base.valid)[0]
        for kind, component in KINDS.items():
            chain = Chain([build(component)], (32, 32))
            made = [embedded(trunk, base.train, chain, f"draw/{n}") for n in range(DRAWS)]
            zg, params = torch.cat([one for one, _ in made]), torch.cat([one for _, one in made])
            span = params.abs().amax(0).clamp(min=1e-6)
            repeated = plain.repeat(DRAWS, 1)
            one = learned(repeated, zg, None, number)
            told = learned(repeated, zg, params / span, number)
            fresh, drawn = embedded(trunk, base.valid, chain, "fresh")
            here = found[kind]
            here.setdefault("score, plain", []).append(scored(outside, fresh, one.transform(outside)))
            here.setdefault("score, told what was drawn", []).append(
                scored(outside, fresh, told(outside, drawn / span))
            )
            views = torch.stack([embedded(trunk, target.train, chain, f"view/{n}")[0] for n in range(VIEWS)], 1)
            whole, chained = one.transform(z), one.transform(flipping.transform(z))

            asked = Draws(number, f"{kind}/head")

            def drawn_now(index: Tensor, step: int, chain: Chain = chain, asked: Draws = asked) -> Tensor:
                return chain.draw(Draws(0, f"{asked.key}", step, index), 0.0)

            arms = heads(z, whole, chained, views, told, span, drawn_now)
            for name, rows in arms.items():
                here.setdefault(name, []).append(accuracy(rows, labels, test, number))
    for kind, values in found.items():
        print(f"\n{kind}, {len(models)} base networks: mean (95 % interval); heads in points against nothing, paired")
        for name, each in values.items():
            is_score = name.startswith("score") or name == "nothing"
            shown = each if is_score else [100 * (a - b) for a, b in zip(each, values["nothing"], strict=True)]
            said = mean_of(shown)
            assert said is not None
            ends = "" if said.interval is None else f" ({said.interval[0]:.3f} to {said.interval[1]:.3f})"
            print(f"  {name:<28} {said.mean:.3f}{ends}")


if __name__ == "__main__":
    print(machine())
    main(sys.argv[1:])
