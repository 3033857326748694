"""Trial steps: the fast scorer chooses what the naive loop chooses, and leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from augend.contract import Component, Picks
from augend.models import build
from augend.order import LoopProbe, TrialSteps
from augend.order.scoring import Delta
from augend.randomness import Draws

ROWS, CLASSES, ROUNDS = 16, 4, 50


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, CLASSES))


def _dropped() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.3),
        nn.Flatten(), nn.Linear(128, CLASSES),
    )  # fmt: skip


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = build(Component("preresnet", {"depth": 20}), shape=(3, 8, 8), classes=CLASSES, generator_seed=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x, frozenset({""}))[""]


NETWORKS: dict[str, Callable[[], nn.Module]] = {"mlp": _mlp, "dropout": _dropped, "preresnet-20": _Residual}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
}


def _made(
    network: str, optimizer: str
) -> tuple[nn.Module, torch.optim.Optimizer, Tensor, Tensor, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    model = NETWORKS[network]().train()
    x, y = torch.randn(400, 3, 8, 8), torch.randint(CLASSES, (400,))
    x[torch.arange(400), 0, 0, 0] += 3 * y  # something to learn
    held = torch.randn(64, 3, 8, 8), torch.randint(CLASSES, (64,))
    return model, OPTIMIZERS[optimizer](list(model.parameters())), x, y, held


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    moments = [v for p in model.parameters() for v in optimizer.state.get(p, {}).values() if isinstance(v, Tensor)]
    kept = [*model.state_dict().values(), *moments, torch.get_rng_state()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return [[t.clone() for t in kept], grads, [m.training for m in model.modules()]]


def _same(before: list[Any], after: list[Any]) -> None:
    assert len(before[0]) == len(after[0])
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    assert all(
        (a is None) == (b is None) and (a is None or torch.equal(a, b))
        for a, b in zip(before[1], after[1], strict=True)
    )
    assert before[2] == after[2]


def _naive(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, on: tuple[Tensor, Tensor]
) -> float:
    """As the authors score: a deep copy takes the step in evaluation mode, losses before and after."""
    model, optimizer = copy.deepcopy((model, optimizer))
    model.eval()
    with torch.no_grad():
        before = functional.cross_entropy(model(on[0]), on[1])
    optimizer.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    with torch.no_grad():
        return float(before - functional.cross_entropy(model(on[0]), on[1]))


@pytest.mark.parametrize("against", ["same", "external"])
@pytest.mark.parametrize(("network", "optimizer"), [("mlp", "adamw"), ("dropout", "sgd"), ("preresnet-20", "sgd")])
def test_the_naive_loops_choice_in_every_round_and_no_trace(network: str, optimizer: str, against: Any) -> None:
    """50 of 50, while the network trains; weights, running statistics, momentum, generators and gradients are untouched."""
    model, stepper, x, y, held = _made(network, optimizer)
    probe = LoopProbe(model, stepper, lambda index: (x[index], y[index]), held=held)
    scoring = Delta(against, draw=64)
    agreed = 0
    for number in range(ROUNDS):
        draws = Draws(0, "round", number)
        candidates = [torch.randint(400, (ROWS,), generator=draws.child(str(n)).generator()) for n in range(4)]
        before = _state(model, stepper)
        fast = scoring(probe, [Picks(index[:, None]) for index in candidates], draws, draws.child("epoch")).values
        _same(before, _state(model, stepper))
        slow = [_naive(model, stepper, x[i], y[i], held if against == "external" else (x[i], y[i])) for i in candidates]
        agreed += int(fast.argmax()) == max(range(4), key=slow.__getitem__)
        assert fast.tolist() == pytest.approx(slow, abs=2e-5)
        chosen = candidates[int(fast.argmax())]
        functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        stepper.step()
        if number % 2:  # gradients that are there must stay there
            stepper.zero_grad()
    assert agreed == ROUNDS


@pytest.mark.parametrize(("network", "optimizer"), [("mlp", "adamw"), ("dropout", "sgd"), ("preresnet-20", "sgd")])
def test_a_trial_that_is_the_step_is_the_step(network: str, optimizer: str) -> None:
    """Its weights, gradients and running statistics are those of the step that then comes, dropout included, bit for bit."""
    model, stepper, x, y, _ = _made(network, optimizer)
    probe = LoopProbe(model, stepper, lambda index: (x[index], y[index]))
    steps = TrialSteps(probe, train=True)
    for number in range(5):
        index = torch.arange(number * ROWS, (number + 1) * ROWS)
        before = _state(model, stepper)
        trial = steps.take(probe.training(index))
        steps.losses(trial, probe.training(index))  # who is asked does not change
        steps.external(trial, probe.training(index))
        _same(before, _state(model, stepper))
        stepper.zero_grad()
        functional.cross_entropy(model(x[index]), y[index]).backward()
        for name, parameter in model.named_parameters():
            assert torch.equal(trial.taken.gradients[name], parameter.grad)
        stepper.step()
        for name, parameter in model.named_parameters():
            assert torch.equal(trial.weights[name], parameter)
        for name, buffer in model.named_buffers():
            assert torch.equal(trial.taken.buffers[name], buffer)


def test_clipping_and_frozen_weights_are_tried_as_they_are_taken() -> None:
    model, stepper, x, y, _ = _made("dropout", "sgd")
    model[0].weight.requires_grad_(False)
    probe = LoopProbe(model, stepper, lambda index: (x[index], y[index]), clip=0.1)
    model.eval()
    trial = TrialSteps(probe).take(probe.training(torch.arange(ROWS)))
    functional.cross_entropy(model(x[:ROWS]), y[:ROWS]).backward()
    torch.testing.assert_close(
        trial.taken.gradients["6.weight"], model[6].weight.grad
    )  # unclipped: the loop clips its own
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    stepper.step()
    assert "0.weight" not in trial.weights
    for name, weight in trial.weights.items():
        torch.testing.assert_close(weight, dict(model.named_parameters())[name])
