"""A step of a denoising autoencoder as a run takes it, against the plain way: eager fp32, pictures augmented one by one.

    python bench/vae.py                    # the paper's network, 64 pictures of 64x64 a step, one thread: about 3 minutes
    python bench/vae.py --side 32

The plain way is a DataLoader over PIL pictures with torchvision's transforms (turns by up to 60 degrees) and a loop by hand.
Ours is a whole step of `denoise-then-classify`: pictures resident, augmented in batch, channels-last, in fp32 and in bf16, of
which `auto` takes the faster, in a process that keeps freed memory as a run's does. So each way has a process of its own, and
they take turns. First what makes it fair: the same network gives the same loss.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from augend import Bernoulli, DenoisingVAE, GaussianKL
from augend.recipes.resolve import resolve
from augend.runner.hardware import Hardware, keep_pages
from augend.runner.probe import trial_of
from common import machine, report
from loop import made_up

ROWS, OFTEN, PICTURES, ROUNDS = 64, 2, 512, 7
WIDTHS = (32, 64, 128, 256, 512)
SETTINGS = {"optimizer": {"adam": {"lr": 1e-4}}, "batch": ROWS, "pixels": [{"rotate": 60}]}


def ours(side: int, precision: str) -> Callable[[], None]:
    """A function that takes `OFTEN` steps of the recipe's first phase."""
    plan = resolve(
        "denoise-then-classify",
        SETTINGS,
        sizes={"main": PICTURES},
        traits={"main": frozenset({"rotate", "crop"})},
        data="made-up",
        model="small",
        budget="1000step",
    )
    hardware = Hardware(threads=1, channels_last=True, precision=precision)
    step = trial_of(plan, {"main": made_up((3, side, side), PICTURES)})(hardware)

    def several() -> None:
        for _ in range(OFTEN):
            step()

    return several


class _Plain(nn.Module):
    """The paper's network written out, for sides that are halved five times."""

    def __init__(self, side: int) -> None:
        super().__init__()
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            down += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        turned = WIDTHS[::-1]
        for before, after in zip(turned, (*turned[1:], WIDTHS[0]), strict=True):
            up += [
                nn.ConvTranspose2d(before, after, 3, 2, 1, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up, nn.Conv2d(WIDTHS[0], 3, 3, padding=1))
        self.smallest = (WIDTHS[-1], side // 32, side // 32)
        flat = math.prod(self.smallest)
        self.mean, self.logvar, self.widen = nn.Linear(flat, 128), nn.Linear(flat, 128), nn.Linear(128, flat)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        deep = self.encoder(x).flatten(1)
        mean, logvar = self.mean(deep), self.logvar(deep)
        drawn = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        return self.decoder(self.widen(drawn).view(-1, *self.smallest)), mean, logvar


class _Files(Dataset[tuple[Tensor, Tensor]]):
    """PIL pictures, each augmented as it is asked for."""

    def __init__(self, side: int) -> None:
        from torchvision.transforms import v2
        from torchvision.transforms.functional import to_pil_image

        pixels = made_up((3, side, side), PICTURES).train.pixels[:]
        self._pictures = [to_pil_image(picture) for picture in pixels]
        self._turn = v2.RandomRotation(60, interpolation=v2.InterpolationMode.BILINEAR)
        self._tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return PICTURES

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        picture = self._pictures[number]
        return self._tensor(self._turn(picture)), self._tensor(picture)


def plain(side: int) -> Callable[[], None]:
    """The same steps by hand."""
    vae = _Plain(side).train()
    optimizer = torch.optim.Adam(vae.parameters(), 1e-4)

    def endless() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from DataLoader(_Files(side), ROWS, shuffle=True, drop_last=True)

    batches = endless()

    def several() -> None:
        for _ in range(OFTEN):
            noisy, clean = next(batches)
            loss = bound(*vae(noisy), clean)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return several


def bound(logits: Tensor, mean: Tensor, logvar: Tensor, clean: Tensor) -> Tensor:
    """What is minimised, by hand."""
    fit = functional.binary_cross_entropy_with_logits(logits, clean, reduction="sum")
    kl = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum()
    return (fit + kl) / len(clean)


def same_loss(side: int) -> bool:
    """Network and terms give what the loop by hand computes, on one batch, with the same weights and draws."""
    ours_, plain_ = DenoisingVAE(128, shape=(3, side, side)).train(), _Plain(side).train()
    plain_.load_state_dict(dict(zip(plain_.state_dict(), _in_its_order(ours_), strict=True)))
    x = torch.rand(8, 3, side, side)
    torch.manual_seed(0)
    out = ours_(x, {"logits", "mean", "logvar"})
    torch.manual_seed(0)
    by_hand = bound(*plain_(x), x)
    return bool(
        torch.isclose(Bernoulli()(out["logits"], x) + GaussianKL()(out["mean"], out["logvar"]), by_hand, rtol=1e-5)
    )


def _in_its_order(vae: DenoisingVAE) -> list[Tensor]:
    state = vae.state_dict()
    parts = ("encoder.", "decoder.", "mean_head.", "logvar_head.", "widen.")
    return [one for part in parts for name, one in state.items() if name.startswith(part)]


def one(side: int, way: str) -> None:
    """Each line of stdin asks for `OFTEN` steps; answered is their CPU time, in seconds."""
    torch.set_num_threads(1)
    if way != "plain":
        keep_pages()
    several = plain(side) if way == "plain" else ours(side, way)
    for _ in sys.stdin:
        begin = time.process_time()
        several()
        print(time.process_time() - begin, flush=True)


class _Way:
    """A process that takes steps one way when it is asked."""

    def __init__(self, side: int, way: str) -> None:
        command = [sys.executable, __file__, "--side", str(side), "--one", way]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self) -> float:
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None and answered is not None
        asked.write("\n")
        asked.flush()
        return float(answered.readline())


def main(side: int) -> None:
    torch.set_num_threads(1)
    same = same_loss(side)
    print("the loss is that of the network and the sums by hand:", same)
    ways = {"plain": _Way(side, "plain"), "fp32": _Way(side, "32-true"), "bf16": _Way(side, "bf16-mixed")}
    rounds = [{name: way() for name, way in ways.items()} for _ in range(ROUNDS + 1)]
    found = {name: min(taken[name] for taken in rounds[1:]) for name in ways}  # the first warms up
    each = {name: f"{1e3 * seconds / OFTEN:.0f}ms" for name, seconds in found.items()}
    best = min(found["fp32"], found["bf16"])
    report(
        f"step of the denoiser, {side}x{side}, plain over ours",
        found["plain"] / best,
        ">= 2",
        same and found["plain"] / best >= 2,
        **each,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--one", choices=["plain", "32-true", "bf16-mixed"])
    asked = parser.parse_args()
    if asked.one:
        one(asked.side, asked.one)
        sys.exit()
    print(machine())
    main(asked.side)
