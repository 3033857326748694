"""Trial steps for ordering against the naive way of trying them, and every order of an epoch against training each by itself.

    python bench/ordering.py                       # PreResNet-56, 8 candidates of 128 pictures, one thread: about 6 minutes
    python bench/ordering.py --model preresnet-20 --rows 64
    python bench/ordering.py --only orders          # every order of six batches
    python bench/ordering.py --only judge           # perfect ordering's judge

Naive: for each candidate copy the model and its optimizer, take the loss, step, take the loss again; then take the winner's
step. Ours tries steps on a shadow and writes nothing; where the trial is the step, the winner's gradients are used. First
what makes the comparison fair: the same choice in every round.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from augend import Draws, Picks
from augend.contract import Component
from augend.data.named import mnist_pictures
from augend.models import build
from augend.order import Copies, LoopProbe, every_order, judge_copies
from augend.order.scoring import Delta
from augend.study.starts import MEAN, STD, network
from augend.study.windows import WindowJudge
from common import interleaved, machine, report

K, CHECKED = 8, 10


class Logits(nn.Module):
    """A network of ours as somebody's own loop would have it."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.net = build(Component("preresnet", {"depth": depth}), shape=(3, 32, 32), classes=10, generator_seed=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, frozenset({""}))[""]  # type: ignore[no-any-return]


def sgd(weights: Iterable[Tensor]) -> torch.optim.SGD:
    return torch.optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4, fused=True)


def naive(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[tuple[Tensor, Tensor]]
) -> tuple[int, list[float]]:
    """The choice, and every gain: as the authors score, in evaluation mode; then the winner's step in training mode."""
    gains = []
    for x, y in batches:
        tried, stepper = copy.deepcopy((model, optimizer))
        tried.eval()
        with torch.no_grad():
            before = functional.cross_entropy(tried(x), y)
        stepper.zero_grad()
        functional.cross_entropy(tried(x), y).backward()
        stepper.step()
        with torch.no_grad():
            gains.append(float(before - functional.cross_entropy(tried(x), y)))
    chosen = max(range(len(gains)), key=gains.__getitem__)
    step(model, optimizer, *batches[chosen])
    return chosen, gains


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


def trials(depth: int, rows: int) -> None:
    pictures = torch.randn(1024, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(1024) % 10
    pictures[:, 0, 0, 0] += labels  # something to learn
    draw = torch.Generator().manual_seed(1)

    def candidates() -> list[Tensor]:
        return [torch.randperm(1024, generator=draw)[:rows] for _ in range(K)]

    def made(trial: str, last: bool = False) -> tuple[nn.Module, torch.optim.Optimizer, Delta, LoopProbe]:
        model = Logits(depth).train()
        shown = pictures
        if last:
            model.to(memory_format=torch.channels_last)
            shown = pictures.contiguous(memory_format=torch.channels_last)
        optimizer = sgd(list(model.parameters()))
        probe = LoopProbe(model, optimizer, lambda index: (shown[index], labels[index]))
        return model, optimizer, Delta(trial=trial), probe  # type: ignore[arg-type]

    def ours(trial: str, last: bool = False):  # type: ignore[no-untyped-def]
        model, optimizer, scoring, probe = made(trial, last)

        def go(index: list[Tensor]) -> tuple[int, list[float]]:
            with torch.autocast("cpu", torch.bfloat16, enabled=last):
                scores = scoring(probe, [Picks(i[:, None]) for i in index], Draws(0, "bench"), Draws(0, "epoch"))
                chosen = int(scores.values.argmax())
                if scores.taken is None:
                    step(model, optimizer, *probe._fetch(index[chosen]))
                    return chosen, scores.values.tolist()
            taken = scores.taken(chosen)
            for name, parameter in model.named_parameters():
                parameter.grad = taken.gradients[name]
            for name, buffer in model.named_buffers():
                buffer.copy_(taken.buffers[name])
            optimizer.step()
            optimizer.zero_grad()
            return chosen, scores.values.tolist()

        return go

    plain_model, plain_optimizer, *_ = made("eval")
    fast = ours("eval")
    same = 0
    scoring = Delta()
    for _ in range(CHECKED):  # both on the same weights: apart, rounding drives two networks apart in a few steps
        index = candidates()
        probe = LoopProbe(plain_model, plain_optimizer, lambda rows: (pictures[rows], labels[rows]))
        values = scoring(probe, [Picks(i[:, None]) for i in index], Draws(0, "bench"), Draws(0, "epoch")).values
        slow, gains = naive(plain_model, plain_optimizer, [(pictures[i], labels[i]) for i in index])
        same += int(values.argmax()) == slow
        assert max(abs(a - b) for a, b in zip(gains, values.tolist(), strict=True)) < 1e-3
    print(f"the same choice in {same} of {CHECKED} rounds, each after the step of the one before")
    index = candidates()
    runs = {
        "naive": lambda: naive(plain_model, plain_optimizer, [(pictures[i], labels[i]) for i in index]),
        "eval": lambda: fast(index),
    }
    for name, trial, last in (("step", "step", False), ("eval, bf16", "eval", True), ("step, bf16", "step", True)):
        go = ours(trial, last)
        runs[name] = lambda go=go: go(index)  # type: ignore[misc]
    found = interleaved(runs, rounds=3)
    for name, goal in (("eval", 1.2), ("step", 1.3), ("eval, bf16", 2.5), ("step, bf16", 2.5)):
        ratio = found["naive"] / found[name]
        met = same == CHECKED and ratio >= goal
        report(
            f"naive over trial: {name}, depth {depth}, K {K}", ratio, f">= {goal}", met, seconds=f"{found[name]:.2f}"
        )


def orders(batches: int) -> None:
    """All orders of a small network's batches: wall clock on all threads, once each, since it takes minutes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 2), nn.ReLU(), nn.BatchNorm2d(16), nn.Conv2d(16, 32, 2), nn.ReLU(), nn.BatchNorm2d(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip
    x, y = torch.randn(batches, 8, 1, 28, 28), torch.randint(2, (batches, 8))
    held, labels = torch.randn(64, 1, 28, 28), torch.randint(2, (64,))
    plain = lambda weights: torch.optim.SGD(weights, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4)  # noqa: E731
    begin = time.perf_counter()
    found = every_order(model, plain, list(zip(x, y, strict=True)))
    fast = time.perf_counter() - begin
    begin = time.perf_counter()
    slow_losses = []
    judging = 0.0
    for order in itertools.permutations(range(batches)):
        tried = copy.deepcopy(model).train()
        stepper = plain(tried.parameters())
        for number in order:
            stepper.zero_grad()
            functional.cross_entropy(tried(x[number]), y[number]).backward()
            stepper.step()
        judged = time.perf_counter()
        tried.eval()
        with torch.no_grad():
            slow_losses.append(float(functional.cross_entropy(tried(held), labels)))
        judging += time.perf_counter() - judged
    slow = time.perf_counter() - begin - judging
    losses, _ = judge_copies(model, found.copies, held, labels)
    top = losses.argsort()[:12].tolist() == torch.tensor(slow_losses).argsort()[:12].tolist()
    print(f"the best order and the top 12 are the naive ones: {top}; chunk {found.chunk}, {found.steps} steps")
    name, ratio = f"every order of {batches} batches, naive over ours", slow / fast
    report(name, ratio, ">= 7", top and ratio >= 7, ours=f"{fast:.1f}s")


def judging() -> None:
    """Perfect ordering's judge on 2,048 zeros and ones of MNIST (which must be here), and the network, 128 rows at a time."""
    train, _ = mnist_pictures()
    index = (train.labels < 2).nonzero()[:2048, 0]
    x, y = (train.take(index).pixels[:].float() / 255 - MEAN) / STD, train.labels[index]
    model = network(0)
    with torch.no_grad():  # running statistics of its own, as after training
        model.train()(x[:256])
    copies, judge = Copies.of(model), WindowJudge(x, y)
    losses = [float(way(copies)[0][0]) for way in (judge, lambda some: judge_copies(model, some, x, y))]
    same = abs(losses[0] - losses[1]) < 1e-5
    print("the same loss:", same)
    found = interleaved(
        {"network": lambda: judge_copies(model, copies, x, y, rows=128), "judge": lambda: judge(copies)}
    )
    ratio = found["network"] / found["judge"]
    report(
        "judging a copy, network over judge", ratio, ">= 3", same and ratio >= 3, judge=f"{1e3 * found['judge']:.0f}ms"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="preresnet-56")
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["trials", "orders", "judge"])
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(machine())
    if asked.only in (None, "trials"):
        trials(int(asked.model.removeprefix("preresnet-")), asked.rows)
    if asked.only in (None, "orders"):
        orders(asked.batches)
    if asked.only in (None, "judge"):
        judging()
