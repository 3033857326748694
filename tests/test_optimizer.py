"""The runner's optimizers: torch's own, to the same bits, without the copies that it makes of channels-last gradients."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from augend.contract import Component
from augend.runner.optimizer import OPTIMIZERS, build_optimizer, load_optimizer, save_optimizer
from toys import one_thread  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS: list[tuple[str, Mapping[str, Any]]] = [
    ("sgd", {"lr": 0.1}),
    ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    ("adam", {"lr": 0.01, "amsgrad": True}),
    ("adamw", {"lr": 0.01}),
]


def network(layout: torch.memory_format = torch.channels_last) -> nn.Module:
    torch.manual_seed(0)
    parts = (nn.Conv2d(3, 17, 3), nn.ReLU(), nn.Conv2d(17, 33, 2), nn.Flatten(), nn.Linear(33 * 5 * 5, 4))
    return nn.Sequential(*parts).to(memory_format=layout)


def learn(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4) -> None:
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last)
    for number in range(steps):
        optimizer.zero_grad()
        (net(x) - number).square().mean().backward()
        before = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
        optimizer.step()
        for name, p in net.named_parameters():
            assert p.grad is not None and p.grad.shape == p.shape and torch.equal(p.grad, before[name])


@pytest.mark.parametrize(("word", "options"), KINDS)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_steps_are_torchs_own(word: str, options: dict[str, Any], layout: torch.memory_format) -> None:
    plain = network(layout)
    learn(plain, OPTIMIZERS[word](plain.parameters(), fused=True, **options))
    ours = network(layout)
    named = dict(ours.named_parameters())
    learn(ours, build_optimizer(Component(word, options), named))
    assert all(map(torch.equal, ours.state_dict().values(), plain.state_dict().values()))
    again = network(layout)  # half, then on from what was kept, by an optimizer of its own
    half = build_optimizer(Component(word, options), dict(again.named_parameters()))
    learn(again, half, 2)
    state = {name: value.clone() for name, value in save_optimizer(half, dict(again.named_parameters())).items()}
    other = build_optimizer(Component(word, options), dict(again.named_parameters()))
    load_optimizer(other, dict(again.named_parameters()), state)
    learn(again, other, 2)
    straight = network(layout)
    whole = build_optimizer(Component(word, options), dict(straight.named_parameters()))
    learn(straight, whole, 2)
    learn(straight, whole, 2)
    assert all(map(torch.equal, again.state_dict().values(), straight.state_dict().values()))


@pytest.mark.parametrize("word", ["sgd", "adam", "adamw"])
def test_no_gradient_is_copied(word: str) -> None:
    def copies(optimizer: torch.optim.Optimizer) -> int:
        with torch.profiler.profile() as seen:
            optimizer.step()
        return sum(event.key == "aten::clone" and event.count for event in seen.key_averages())

    net = network()
    plain = OPTIMIZERS[word](net.parameters(), lr=0.1, fused=True)
    learn(net, plain, 1)
    ours = build_optimizer(Component(word, {"lr": 0.1}), dict(net.named_parameters()))
    ours.step()
    assert copies(ours) == 0
    if copies(plain) == 0:
        pytest.skip("this torch copies nothing by itself")


def test_shadows_take_the_same_steps() -> None:
    net = network()
    optimizer = build_optimizer(Component("sgd", {"lr": 0.1, "momentum": 0.9}), dict(net.named_parameters()))
    learn(net, optimizer, 2)
    shadow = copy.deepcopy(optimizer)
    theirs = [p for group in shadow.param_groups for p in group["params"]]
    for own, other in zip(net.parameters(), theirs, strict=True):
        other.grad = None if own.grad is None else own.grad.clone()
    shadow.step()
    optimizer.step()
    assert all(map(torch.equal, net.parameters(), theirs))
