"""PGD of ours against the plainest loop (and torchattacks, foolbox where they are installed), and what the early stop saves.

    python bench/attacks.py                    # a ResNet-18 for 32x32, 8 pictures, one thread: about 3 minutes
    python bench/attacks.py --model small      # a small network, where the loop around it counts

First the equality: all of them end in the same bits (ours then moves single bits inwards; for the comparison so do theirs).
Then PGD-10 in turns, also of pictures that lie channels last, and with gradients in bfloat16, as `--fast` does it (gradients
that differ by rounding move some pixels the other way; what the loss rises by is compared); eight budgets of FGSM from one
gradient against eight; and the share of draws that votes, and averaged probabilities, use before they are certain, on
networks trained for some seconds on the digits.
"""

from __future__ import annotations

import argparse
import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from augend import TestTimeSums
from augend.contract import Component
from augend.data import load
from augend.evaluate.attacks import EPS, fgsm, fgsm_sweep, gradient_of, in_bfloat16, pgd, within
from augend.models import build
from common import interleaved, machine, report

SIDE, CLASSES, BUDGETS = 32, 10, [2.0**n / 255 for n in range(8)]


class Bare(nn.Module):
    """A network of ours as a plain module: pixels in, logits out."""

    def __init__(self, model: str) -> None:
        super().__init__()
        mean, std = [0.5] * 3, [0.25] * 3
        self.net = build(Component(model), shape=(3, SIDE, SIDE), classes=CLASSES, generator_seed=1, mean=mean, std=std)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[""]


def plainest(model: nn.Module, x: Tensor, y: Tensor, steps: int = 10) -> Tensor:
    """The loop that anybody writes: backward through everything."""
    now = x.clone()
    for _ in range(steps):
        now = now.detach().requires_grad_(True)
        functional.cross_entropy(model(now), y, reduction="sum").backward()
        assert now.grad is not None
        now = now.detach() + EPS / 4 * now.grad.sign()
        now = torch.clamp(x + torch.clamp(now - x, min=-EPS, max=EPS), 0, 1)
    model.zero_grad()
    return now


def peers(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Callable[[], Tensor]]:
    """PGD-10 of the libraries that are installed."""
    found: dict[str, Callable[[], Tensor]] = {}
    for name in ("torchattacks", "foolbox"):
        try:
            library: Any = importlib.import_module(name)
        except ImportError:
            print(f"{name} is not installed")
            continue
        if name == "torchattacks":
            attack = library.PGD(model, eps=EPS, alpha=2 / 255, steps=10, random_start=False)
            found[name] = functools.partial(attack, x, y)
        else:
            target = library.PyTorchModel(model, bounds=(0, 1), device="cpu")
            own = library.attacks.LinfPGD(rel_stepsize=0.25, steps=10, random_start=False)
            found[name] = lambda own=own, target=target: own(target, x, y, epsilons=EPS)[1]
    return found


def speed(word: str, rows: int) -> None:
    draw = torch.Generator().manual_seed(0)
    model = Bare(word).eval()
    x = torch.randint(256, (rows, 3, SIDE, SIDE), generator=draw).float() / 255
    y = torch.arange(rows) % CLASSES
    arms: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: pgd(model, x, y),
        "plainest": lambda: plainest(model, x, y),
        **peers(model, x, y),
    }
    ends = {name: within(arm(), x, EPS) for name, arm in arms.items()}
    same = {name: torch.equal(end, ends["ours"]) for name, end in ends.items()}
    print("the same bits as ours:", same)
    found = interleaved(arms, rounds=5)
    each = {name: f"{1e3 * seconds:.0f}ms" for name, seconds in found.items()}
    goals = {"plainest": 1.0, "torchattacks": 0.97, "foolbox": 1.35}
    for name, goal in goals.items():
        if name in found:
            ratio = found[name] / found["ours"]
            report(f"PGD-10, {word}, {name} over ours", ratio, f">= {goal}", same[name] and ratio >= goal, **each)
    last = x.contiguous(memory_format=torch.channels_last)  # as `augend evaluate --attack` shows pictures
    others: dict[str, Callable[[], Tensor]] = {
        "last": lambda: pgd(model, last, y),
        "fast": lambda: pgd(model, last, y, gradient=in_bfloat16(gradient_of(model))),
    }
    library = "foolbox" if "foolbox" in arms else "plainest"
    found = interleaved({"given": arms["ours"], library: arms[library], **others}, rounds=5)

    def rise(end: Tensor) -> float:
        with torch.no_grad():
            return float(functional.cross_entropy(model(end), y) - functional.cross_entropy(model(x), y))

    whole = rise(ends["ours"])
    for name, over, goal in (("last", "given", 1.0), ("fast", library, 2.0)):
        ratio, rises = found[over] / found[name], rise(others[name]()) / whole
        met = ratio >= goal and rises > 0.98
        report(f"PGD-10, {word}, {over} over {name}", ratio, f">= {goal:g}", met, rises=f"{rises:.4f}")
    sweep = {
        "one gradient": lambda: fgsm_sweep(model, x, y, BUDGETS),
        "eight": lambda: torch.stack([fgsm(model, x, y, eps) for eps in BUDGETS]),
    }
    alike = torch.equal(sweep["one gradient"](), sweep["eight"]())
    found = interleaved(sweep, rounds=3)
    ratio = found["eight"] / found["one gradient"]
    report(f"FGSM at 8 budgets, {word}, over one gradient", ratio, ">= 4", alike and ratio >= 4)


def stopping() -> None:
    """The share of 16 draws that is used, on models of two kinds: trained on pictures, and on sums of pictures."""
    split = load("digits:train=1000,valid=97,test=700")
    (x, y), (test, labels) = ((part.pixels.float() / 255, part.labels) for part in (split.train, split.test))
    for mixed in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.LazyLinear(256), nn.ReLU(), nn.Linear(256, CLASSES))
        model(x[:2])
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        for _ in range(1500 if mixed else 500):
            rows, others = torch.randint(len(x), (2, 100))
            one = functional.one_hot(y[rows], CLASSES).float()
            if mixed:
                shown, wanted = (x[rows] + x[others]) / 2, (one + functional.one_hot(y[others], CLASSES)) / 2
            else:
                shown, wanted = x[rows], one
            functional.cross_entropy(model(shown), wanted).backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        kind = "sums" if mixed else "pictures"
        for weight in (1.0, 4.0):
            sums = TestTimeSums(model, x, weight=weight, draws=16, average="probabilities")
            for name, decide in (("votes", sums.vote), ("probabilities", sums.classify)):
                stopped, full = decide(test), decide(test, stop=False)
                same = torch.equal(stopped.classes, full.classes)
                right = {"right": f"{float((full.classes == labels).float().mean()):.3f}", "same decisions": same}
                met = same and stopped.share <= 0.65
                report(f"share, {name}, weight {weight:g}, trained on {kind}", stopped.share, "<= 0.65", met, **right)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet18-cifar")
    parser.add_argument("--rows", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(machine())
    speed(asked.model, asked.rows)
    stopping()
