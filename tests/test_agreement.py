"""Terms that compare predictions: exact values, symmetry, gradients, and torch's own functions as oracles."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from augend import AugendError, AugmentationInvariance, MutualLearning

SHAPES = {"logits": (7, 5), "features": (4, 64), "maps": (3, 6, 4, 4)}


def views(shape: tuple[int, ...], count: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(*shape, generator=generator) for _ in range(count)]


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of logits, row by row, from its definition in float64."""
    p, q = (one.double().flatten(1).softmax(1) for one in (p, q))
    return (p * (p.log() - q.log())).sum(1)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("metric", ["kl", "euclid", "kl+euclid"])
def test_values_are_those_of_the_definition(metric: str, shape: tuple[int, ...]) -> None:
    a, b = views(shape)
    wanted = torch.zeros(len(a), dtype=torch.float64)
    if "kl" in metric:
        wanted += kl(a, b) + kl(b, a)
    if "euclid" in metric:
        wanted += (a.double() - b.double()).flatten(1).norm(dim=1)
    rows = AugmentationInvariance(metric, reduction="none")(a, b)
    torch.testing.assert_close(rows.double(), wanted, rtol=1e-5, atol=1e-5)
    assert AugmentationInvariance(metric)(a, b) == rows.mean()
    assert torch.equal(rows, AugmentationInvariance(metric, reduction="none")(b, a))  # symmetric to the last bit
    assert torch.equal(AugmentationInvariance(metric, reduction="none")(a, a), torch.zeros(len(a)))
    assert bool((rows > 0).all())


def test_it_is_torchs_kl_div() -> None:
    a, b = views((16, 10))
    logs = [functional.log_softmax(one, 1) for one in (a, b)]
    wanted = sum(functional.kl_div(x, y, reduction="batchmean", log_target=True) for x, y in permutations(logs))
    assert float(AugmentationInvariance()(a, b)) == pytest.approx(float(wanted), rel=1e-6)


def test_held_fixed_the_gradient_is_the_difference_of_the_predictions() -> None:
    a, b = (one.requires_grad_() for one in views((6, 9)))
    AugmentationInvariance()(a, b).backward()
    difference = (a.softmax(1) - b.softmax(1)).detach() / 6
    assert a.grad is not None and b.grad is not None
    torch.testing.assert_close(a.grad, difference, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(b.grad, -difference, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("metric", ["kl", "euclid", "kl+euclid"])
def test_through_both_sides_the_gradient_is_that_of_the_formula(metric: str) -> None:
    a, b = views((5, 8))
    ours, theirs = (
        [one.clone().to(kind).requires_grad_() for one in (a, b)] for kind in (torch.float32, torch.float64)
    )
    AugmentationInvariance(metric, detach=False)(*ours).backward()
    x, y = theirs
    value = torch.zeros(5, dtype=torch.float64)
    if "kl" in metric:
        value = value + kl(x, y) + kl(y, x)
    if "euclid" in metric:
        value = value + (x - y).norm(dim=1)
    value.mean().backward()
    for mine, exact in zip(ours, theirs, strict=True):
        assert mine.grad is not None and exact.grad is not None
        torch.testing.assert_close(mine.grad.double(), exact.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("metric", ["kl", "euclid", "kl+euclid"])
def test_gradients_of_equal_and_of_extreme_rows_are_finite(metric: str, detach: bool) -> None:
    a = torch.tensor([[1.0, 2.0], [80.0, -80.0], [1e4, -1e4]])
    b = torch.tensor([[1.0, 2.0], [-80.0, 80.0], [1e4, -1e4]])
    a.requires_grad_()
    value = AugmentationInvariance(metric, detach)(a, b)
    value.backward()
    assert a.grad is not None and bool(torch.isfinite(a.grad).all()) and bool(torch.isfinite(value))
    assert float(a.grad[0].abs().max()) < 1e-7


def test_peers_minimise_the_mean_divergence_from_the_others() -> None:
    logits = [one.requires_grad_() for one in views((6, 9), 3)]
    MutualLearning()(*logits).backward()
    wanted = sum(kl(peer, mine).mean() for mine, peer in permutations([one.detach() for one in logits], 2)) / 2
    assert float(MutualLearning()(*logits).detach()) == pytest.approx(float(wanted), rel=1e-5)
    p = [one.softmax(1).detach() for one in logits]
    for number, one in enumerate(logits):
        others = sum(p[other] for other in range(3) if other != number)
        assert isinstance(others, Tensor) and one.grad is not None
        torch.testing.assert_close(one.grad, (2 * p[number] - others) / 2 / 6, rtol=1e-4, atol=1e-7)


def test_two_peers_on_two_views_are_the_pairs_of_invariance() -> None:
    a, b = views((6, 9))
    assert float(MutualLearning()(a, b)) == pytest.approx(float(AugmentationInvariance()(a, b)), rel=1e-6)


def test_a_mistake_is_one_line() -> None:
    a, b = views((4, 3))
    with pytest.raises(AugendError, match=r"metric is 'l2'; it is one of kl, euclid, kl\+euclid"):
        AugmentationInvariance("l2")
    with pytest.raises(AugendError, match="compares two views, found 3"):
        AugmentationInvariance()(a, b, a)
    with pytest.raises(AugendError, match="shapes"):
        AugmentationInvariance()(a, b[:3])
