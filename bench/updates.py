"""An optimizer's fused step over weights that are channels last: torch's own over the runner's, which spares it copies.

    python bench/updates.py                        # the weights of a ResNet-18 of CIFAR's size, one thread; ten seconds

First what makes it fair: after five steps the weights are the same, bit for bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from augend.contract import Component
from augend.models import build
from augend.runner.optimizer import OPTIMIZERS, build_optimizer
from common import interleaved, machine, report

KINDS: dict[str, dict[str, Any]] = {"sgd": {"lr": 0.1, "momentum": 0.9}, "adam": {"lr": 1e-3}, "adamw": {"lr": 1e-3}}


def steps(net: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """A function that takes five steps with gradients that lie as the weights do."""
    generator = torch.Generator().manual_seed(0)
    for weight in net.parameters():
        weight.grad = torch.empty_like(weight).normal_(generator=generator)

    def five() -> None:
        for _ in range(5):
            optimizer.step()

    return five


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(machine())
    first = build(Component("resnet18-cifar", {}), shape=(3, 32, 32), classes=10, generator_seed=0)
    first = first.to(memory_format=torch.channels_last)
    for word, options in KINDS.items():
        plain, ours = copy.deepcopy(first), copy.deepcopy(first)
        ways = {
            "torch": steps(plain, OPTIMIZERS[word](plain.parameters(), fused=True, **options)),
            "ours": steps(ours, build_optimizer(Component(word, options), dict(ours.named_parameters()))),
        }
        for way in ways.values():
            way()
        same = all(map(torch.equal, plain.state_dict().values(), ours.state_dict().values()))
        found = interleaved(ways)
        ratio = found["torch"] / found["ours"]
        each = {name: f"{1e3 * seconds / 5:.1f}ms" for name, seconds in found.items()}
        report(f"step of {word}, torch's own over ours", ratio, ">= 1.3", same and ratio >= 1.3, **each)
