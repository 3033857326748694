"""Attacks: what they keep, what they leave alone, and that they are the field's own, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from augend import AugendError, Draws
from augend.evaluate.attacks import EPS, bim, fgsm, fgsm_sweep, input_gradient, mim, pgd, within
from toys import CLASSES, accuracy, one_thread, pictures, trained  # noqa: F401

Attack = Callable[..., Tensor]
pytestmark = pytest.mark.usefixtures("one_thread")
ALL: dict[str, Attack] = {"fgsm": fgsm, "bim": bim, "mim": mim, "pgd": pgd}
AWKWARD = [8 / 255, 0.1, 1 / 3, 1e-9, 0.9999999]


def by_hand(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    alpha: float,
    steps: int,
    *,
    decay: float | None = None,
    start: Tensor | None = None,
) -> Tensor:
    """The plainest loop: the loss's backward, a step, back into the ball; as torchattacks writes it."""
    adversarial = (x if start is None else start).clone()
    momentum = torch.zeros_like(x)
    for _ in range(steps):
        adversarial = adversarial.detach().requires_grad_(True)
        loss = functional.cross_entropy(model(adversarial), y, reduction="sum")
        loss.backward()
        assert adversarial.grad is not None
        gradient = adversarial.grad
        if decay is not None:
            gradient = gradient / gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
            gradient = gradient + decay * momentum
            momentum = gradient
        adversarial = adversarial.detach() + alpha * gradient.sign()
        delta = torch.clamp(adversarial - x, min=-eps, max=eps)
        adversarial = torch.clamp(x + delta, 0, 1)
    model.zero_grad()
    return adversarial


@pytest.mark.parametrize("eps", [2 / 255, 8 / 255, 0.1])
def test_each_attack_is_the_plain_loop_to_the_bit(eps: float) -> None:
    model, (x, y) = trained(), pictures(64, 5)
    ball = lambda found: within(found, x, eps)  # noqa: E731  # what ours does at the end, and nothing else
    assert torch.equal(fgsm(model, x, y, eps), ball(by_hand(model, x, y, eps, eps, 1)))
    assert torch.equal(bim(model, x, y, eps), ball(by_hand(model, x, y, eps, eps / 10, 10)))
    assert torch.equal(mim(model, x, y, eps), ball(by_hand(model, x, y, eps, eps / 10, 10, decay=1.0)))
    assert torch.equal(mim(model, x, y, eps, decay=0.5), ball(by_hand(model, x, y, eps, eps / 10, 10, decay=0.5)))
    assert torch.equal(pgd(model, x, y, eps), ball(by_hand(model, x, y, eps, eps / 4, 10)))
    draws = Draws(3, "start", keys=len(x))
    noise = draws.child("start/0").uniform(64, -1.0, 1.0).view(x.shape)
    start = torch.clamp(x + eps * noise, 0, 1)
    ours = pgd(model, x, y, eps, random_start=True, draws=draws)
    assert torch.equal(ours, ball(by_hand(model, x, y, eps, eps / 4, 10, start=start)))


def test_the_last_projection_moves_single_bits() -> None:
    model, (x, y) = trained(), pictures(64, 5)
    rough, ours = by_hand(model, x, y, EPS, EPS / 4, 10), pgd(model, x, y)
    assert float((rough - ours).abs().max()) < 1e-7
    assert float((rough.double() - x.double()).abs().max()) > EPS  # why it is done


def test_the_thesis_settings_are_the_defaults() -> None:
    model, (x, y) = trained(), pictures(16, 5)
    assert EPS / 4 == 2 / 255
    assert torch.equal(pgd(model, x, y), pgd(model, x, y, 8 / 255, alpha=2 / 255, steps=10, random_start=False))
    assert torch.equal(bim(model, x, y), bim(model, x, y, 8 / 255, alpha=8 / 2550, steps=10))


@pytest.mark.parametrize(
    "name", ["LinfPGD", "LinfBasicIterativeAttack", "FGSM", "LinfMomentumIterativeFastGradientMethod"]
)
def test_foolbox_does_the_same(name: str) -> None:
    foolbox = pytest.importorskip("foolbox")
    model, (x, y) = trained(), pictures(64, 6)
    made: dict[str, tuple[Any, Callable[[], Tensor]]] = {
        "LinfPGD": (
            lambda: foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=10, random_start=False),
            lambda: pgd(model, x, y),
        ),
        "LinfBasicIterativeAttack": (
            lambda: foolbox.attacks.LinfBasicIterativeAttack(rel_stepsize=0.1, steps=10, random_start=False),
            lambda: bim(model, x, y),
        ),
        "FGSM": (lambda: foolbox.attacks.FGSM(random_start=False), lambda: fgsm(model, x, y)),
        "LinfMomentumIterativeFastGradientMethod": (
            lambda: foolbox.attacks.LinfMomentumIterativeFastGradientMethod(rel_stepsize=0.1, steps=10, momentum=0.0),
            lambda: mim(model, x, y, decay=0.0),
        ),
    }
    theirs, ours = made[name]
    _, clipped, _ = theirs()(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=EPS)
    model.zero_grad()
    assert torch.equal(ours(), within(clipped, x, EPS))


@pytest.mark.parametrize("name", ["FGSM", "BIM", "MIFGSM", "PGD"])
def test_torchattacks_does_the_same(name: str) -> None:
    """Its own BIM rounds otherwise than its PGD, which with these steps is BIM."""
    torchattacks = pytest.importorskip("torchattacks")
    model, (x, y) = trained(), pictures(64, 7)  # a power of two: its mean loss has the sum's gradient, scaled exactly
    made: dict[str, tuple[Any, Tensor]] = {
        "FGSM": (torchattacks.FGSM(model, eps=EPS), fgsm(model, x, y)),
        "BIM": (torchattacks.PGD(model, eps=EPS, alpha=EPS / 10, steps=10, random_start=False), bim(model, x, y)),
        "MIFGSM": (torchattacks.MIFGSM(model, eps=EPS, alpha=EPS / 10, steps=10, decay=1.0), mim(model, x, y)),
        "PGD": (torchattacks.PGD(model, eps=EPS, alpha=2 / 255, steps=10, random_start=False), pgd(model, x, y)),
    }
    theirs, ours = made[name]
    assert torch.equal(ours, within(theirs(x, y), x, EPS))


@pytest.mark.parametrize("name", ALL)
def test_without_a_budget_nothing_changes(name: str) -> None:
    model, (x, y) = trained(), pictures(20, 8)
    x[0, 0, 0, :3] = torch.tensor([0.0, 1.0, 1e-30])
    found = ALL[name](model, x, y, 0.0)
    assert torch.equal(found, x) and found.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("eps", AWKWARD)
@pytest.mark.parametrize("name", ALL)
def test_the_budget_holds_to_the_last_bit(name: str, eps: float) -> None:
    model, (x, y) = trained(), pictures(40, 9)
    x[0] = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)) * 1e-4  # fine floats beside a coarse budget
    before = x.clone()
    for more in [{}] if name == "fgsm" else [{"steps": 1}, {"steps": 12, "alpha": 0.7 * eps}]:
        found = ALL[name](model, x, y, eps, **more)
        assert found.dtype == torch.float32 and found.shape == x.shape
        assert float((found.double() - x.double()).abs().max()) <= eps  # as real numbers
        assert float((found - x).abs().max()) <= eps and bool(((found - x).abs() <= eps).all())  # and as most check it
        assert bool(((found >= 0) & (found <= 1)).all())
    assert torch.equal(x, before)


def test_the_ball_is_used_in_full() -> None:
    """Moving inwards costs at most one unit in the last place."""
    x = torch.rand(10_000, 1, generator=torch.Generator().manual_seed(3))
    for eps in AWKWARD:
        for side in (-1.0, 1.0):
            edge = within(x + side * 2, x, eps)
            outwards = torch.nextafter(edge, torch.full_like(edge, side * 9))
            open_ = (edge > 0) & (edge < 1)
            assert bool(((outwards.double() - x.double()).abs() > eps * (1 - 2e-7))[open_].all())
            assert bool(((edge.double() - x.double()).abs() <= eps).all())


def test_a_step_of_bim_is_fgsm_and_mim_without_memory_is_bim() -> None:
    model, (x, y) = trained(), pictures(50, 10)
    one = fgsm(model, x, y)
    for attack in (bim, mim, pgd):
        assert torch.equal(attack(model, x, y, alpha=EPS, steps=1), one)
    assert torch.equal(mim(model, x, y, decay=0.0), bim(model, x, y))  # a positive divisor changes no sign
    assert not torch.equal(mim(model, x, y), bim(model, x, y))
    assert torch.equal(bim(model, x, y, alpha=EPS / 4), pgd(model, x, y))
    swept = fgsm_sweep(model, x, y, [0.0, 1 / 255, EPS])
    for found, eps in zip(swept, [0.0, 1 / 255, EPS], strict=True):
        assert torch.equal(found, fgsm(model, x, y, eps))


def test_attacks_work_and_larger_budgets_and_more_restarts_work_better() -> None:
    model, (x, y) = trained(), pictures(200, 11)
    clean = accuracy(model, x, y)
    by_eps = [accuracy(model, pgd(model, x, y, eps), y) for eps in (2 / 255, 8 / 255, 0.1, 0.5)]
    assert clean > 0.8 and clean >= by_eps[0] and by_eps == sorted(by_eps, reverse=True) and by_eps[-1] == 0
    assert accuracy(model, pgd(model, x, y), y) <= accuracy(model, fgsm(model, x, y), y)
    restarted = [accuracy(model, pgd(model, x, y, steps=2, restarts=count), y) for count in (1, 2, 4, 8)]
    assert restarted == sorted(restarted, reverse=True)
    wrong = [model(pgd(model, x, y, steps=2, restarts=count)).argmax(1) != y for count in (1, 4)]
    assert bool((wrong[1] | ~wrong[0]).all())  # picture by picture


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_else_is_touched(name: str, frozen: bool) -> None:
    model, (x, y) = trained(), pictures(20, 12)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(not (frozen and number % 2))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    generator, x0, y0 = torch.get_rng_state(), x.clone(), y.clone()
    more: dict[str, Any] = {"restarts": 2, "random_start": True} if name == "pgd" else {}
    with torch.no_grad():  # it asks for its gradient itself
        found = ALL[name](model, x, y, **more)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert flags == [parameter.requires_grad for parameter in model.parameters()]
    assert not any(part.training for part in model.modules())
    assert not found.requires_grad and x.grad is None and not x.requires_grad
    assert torch.equal(x, x0) and torch.equal(y, y0)
    model.requires_grad_(True)


def test_draws_decide_alone_and_follow_the_pictures() -> None:
    model, (x, y) = trained(), pictures(30, 13)
    draws = Draws(0, "attack", keys=30)
    torch.manual_seed(5)
    one = pgd(model, x, y, random_start=True, draws=draws)
    torch.manual_seed(6)
    assert torch.equal(one, pgd(model, x, y, random_start=True, draws=draws))
    assert not torch.equal(one, pgd(model, x, y, random_start=True, draws=Draws(1, "attack", keys=30)))
    part = pgd(model, x[10:], y[10:], random_start=True, draws=Draws(0, "attack", keys=torch.arange(10, 30)))
    assert float((part - one[10:]).abs().gt(1e-6).float().mean()) < 0.02  # bits follow the batch's shape


def test_the_gradient_is_of_the_sum_and_a_picture_without_one_stays() -> None:
    model, (x, y) = trained(), pictures(12, 14)
    torch.testing.assert_close(input_gradient(model, x, y)[:4], input_gradient(model, x[:4], y[:4]))
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)).eval()
    nn.init.zeros_(flat[1].weight)
    for attack in ALL.values():
        assert torch.equal(attack(flat, x, y), x)


def test_a_gradient_of_ones_own_is_used() -> None:
    model, (x, y) = trained(), pictures(12, 15)
    seen: list[int] = []

    def upwards(pictures: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        seen.append(draws.key)
        return torch.ones_like(pictures)

    found = bim(model, x, y, gradient=upwards)
    torch.testing.assert_close(found, (x + EPS).clamp(max=1))
    assert len(set(seen)) == 10  # fresh draws a step


@pytest.mark.parametrize("name", ALL)
def test_mistakes_are_one_line(name: str) -> None:
    attack, model, (x, y) = ALL[name], trained(), pictures(4, 16)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))
    for arguments, said in [
        ((other, x, y), "train mode"),
        ((model, (x * 255).byte(), y), r"float32 \(N, \.\.\.\) in \[0, 1\], found uint8"),
        ((model, x - 0.5, y), r"must lie in \[0, 1\]"),
        ((model, torch.full_like(x, torch.nan), y), r"must lie in \[0, 1\]"),
        ((model, x, y[:2]), "labels must be int64"),
        ((model, x, y.float()), "labels must be int64"),
        ((model, x, y, 1.5), "eps is 1.5"),
        ((model, x, y, -0.1), "eps is -0.1"),
        ((model, x, y, float("nan")), "eps is nan"),
    ]:
        with pytest.raises(AugendError, match=said):
            attack(*arguments)
    with pytest.raises(AugendError, match="draws nothing"):
        attack(model, x, y, samples=4)
    with pytest.raises(AugendError, match="3 rows for 4 pictures"):
        attack(model, x, y, draws=Draws(0, "attack", keys=3))
    if name != "fgsm":
        with pytest.raises(AugendError, match="steps is 0"):
            attack(model, x, y, steps=0)
        with pytest.raises(AugendError, match="alpha is -1"):
            attack(model, x, y, alpha=-1.0)
    inner = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, CLASSES)).eval()
    inner[1].train()
    with pytest.raises(AugendError, match=r"train mode \(1\)"):
        attack(inner, x, y)

    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), CLASSES)

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.layer(x.detach().flatten(1))
            return found

    for model in (Detached(), Cut()):
        with pytest.raises(AugendError, match="no gradient to its input"):
            attack(model.eval(), x, y)


def test_a_pixel_without_a_slope_does_not_hold_its_picture() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            return torch.stack([flat.sum(1) + 0 * flat[:, 0].sqrt() * 0, -flat.sum(1)], 1)

    x = torch.full((2, 1, 4, 4), 0.5)
    x[0, 0, 0, 0] = 0  # the root's slope is infinite there, and 0 of that is no number
    moved = mim(Root().eval(), x, torch.tensor([0, 0]), eps=0.1)
    assert bool((moved[0].flatten()[1:] < 0.45).all()) and float(moved[0, 0, 0, 0]) == 0
