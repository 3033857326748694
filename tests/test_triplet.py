"""Mining and triplet losses against pytorch-metric-learning, against plain loops, and at their edges."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning import losses, miners
from pytorch_metric_learning.distances import LpDistance
from torch import Tensor

import augend
from augend.objective.triplet import BatchTriplet, SoftMarginTriplet, SoftmaxTriplet
from augend.randomness import Draws


def made(pictures: int = 16, copies: int = 3, width: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(pictures * copies, width, generator=generator), torch.arange(pictures).repeat_interleave(copies)


@pytest.mark.parametrize("seed", range(5))
def test_strict_mining_is_the_hardest_of_pytorch_metric_learning(seed: int) -> None:
    z, ids = made(seed=seed)
    miner = miners.BatchHardMiner(distance=LpDistance(normalize_embeddings=False))
    theirs = sorted(zip(*(t.tolist() for t in miner(z, ids)), strict=True))
    ours = sorted(zip(*(t.tolist() for t in augend.batch_hardest(z, ids)), strict=True))
    assert ours == theirs
    tiny = sorted(zip(*(t.tolist() for t in augend.batch_hard(z, ids, hardest=1e-6)), strict=True))
    assert tiny == theirs  # a pool of one candidate


@pytest.mark.parametrize("mining", ["relaxed", "strict", "random"])
def test_the_soft_margin_is_that_of_pytorch_metric_learning(mining: str) -> None:
    z, ids = made()
    theirs_z, ours_z = z.clone().requires_grad_(), z.clone().requires_grad_()
    draws = Draws(0, "step", 0, len(ids))
    ours = SoftMarginTriplet(mining=mining)(ours_z, ids=ids, draws=draws)
    triplets = mined(z, ids, draws, mining)
    distance = LpDistance(normalize_embeddings=False)
    theirs = losses.TripletMarginLoss(margin=0, smooth_loss=True, distance=distance)(theirs_z, ids, triplets)
    torch.testing.assert_close(ours, theirs)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(ours_z.grad, theirs_z.grad)


def mined(z: Tensor, ids: Tensor, draws: Draws, mining: str) -> tuple[Tensor, Tensor, Tensor]:
    """The triplets that a loss mines, by a plain loop over the rows."""
    uniform = draws.uniform(2)
    apart = torch.cdist(z.double(), z.double())
    found = []
    for a in range(len(ids)):
        positives = [j for j in range(len(ids)) if ids[j] == ids[a] and j != a]
        negatives = sorted((j for j in range(len(ids)) if ids[j] != ids[a]), key=lambda j: float(apart[a, j]))
        farthest = max(positives, key=lambda j: float(apart[a, j]))
        if mining == "strict":
            found.append((a, farthest, negatives[0]))
        elif mining == "relaxed":
            pool = max(1, math.floor(0.2 * len(negatives)))
            found.append((a, farthest, negatives[min(int(uniform[a, 0] * pool), pool - 1)]))
        else:
            others = sorted(negatives)
            found.append((a, positives[int(uniform[a, 1] * len(positives))], others[int(uniform[a, 0] * len(others))]))
    a, p, n = (torch.tensor(column) for column in zip(*found, strict=True))
    return a, p, n


def test_relaxed_mining_takes_the_papers_pool() -> None:
    """16 pictures x 3 copies: the negative is one of the nearest floor(0.2 * 45) = 9, and each of them is taken."""
    z, ids = made()
    apart = torch.cdist(z, z)
    ranks = set()
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        anchors, positives, negatives = augend.batch_hard(z, ids, 0.2, generator)
        assert (ids[anchors] == ids[positives]).all() and (anchors != positives).all()
        assert (ids[anchors] != ids[negatives]).all()
        order = apart.masked_fill(ids[:, None] == ids[None, :], math.inf).argsort(1)
        ranks |= {int((order[a] == n).nonzero()) for a, n in zip(anchors, negatives, strict=True)}
    assert ranks == set(range(9))


def test_random_triplets_are_uniform() -> None:
    ids = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(7, 7)
    for _ in range(3000):
        anchors, positives, negatives = augend.random_triplets(ids, generator)
        counts[anchors, positives] += 1
        counts[anchors, negatives] += 1
    share = counts / 3000
    assert (share.diagonal() == 0).all()
    torch.testing.assert_close(share[0], torch.tensor([0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]), atol=0.04, rtol=0)
    torch.testing.assert_close(share[3], torch.tensor([0.2, 0.2, 0.2, 0, 1, 0.2, 0.2]), atol=0.04, rtol=0)


@pytest.mark.parametrize("mine", [augend.batch_hard, augend.batch_hardest, lambda z, ids: augend.random_triplets(ids)])
def test_rows_without_a_partner_are_left_out(mine: object) -> None:
    z, ids = torch.randn(5, 2), torch.tensor([0, 0, 1, 2, 2])
    anchors, _, _ = mine(z, ids)  # type: ignore[operator]
    assert anchors.tolist() == [0, 1, 3, 4]
    assert [len(t) for t in mine(z[:2], ids[:2])] == [0, 0, 0]  # type: ignore[operator]  # nobody else is there


def test_losses_by_hand() -> None:
    z = torch.tensor([[0.0], [3.0], [4.0], [8.0]], dtype=torch.float64)
    ids = torch.tensor([0, 0, 1, 1])
    gaps = torch.tensor([3 - 4, 3 - 1, 4 - 1, 4 - 5.0], dtype=torch.float64)  # farthest copy minus nearest other
    of = {"mining": "strict", "reduction": "none"}
    rows = SoftMarginTriplet(**of)(z, ids=ids)
    torch.testing.assert_close(rows.double(), torch.log1p(gaps.exp()), atol=1e-5, rtol=0)
    rows = SoftmaxTriplet(**of)(z, ids=ids)
    torch.testing.assert_close(rows.double(), (1 / (1 + (-gaps).exp())) ** 2, atol=1e-5, rtol=0)
    rows = BatchTriplet(**of)(z, ids=ids)
    whole = math.sqrt(9 + 9 + 16 + 16) - math.sqrt(16 + 1 + 1 + 25)
    torch.testing.assert_close(rows, torch.full((4,), math.log1p(whole)), atol=1e-5, rtol=0)


def test_the_authors_loss_has_no_gradient_where_theirs_is_minus_infinity() -> None:
    z = torch.tensor([[0.0], [0.1], [50.0], [50.1]], requires_grad=True)
    loss = BatchTriplet()(z, ids=torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1e-7)) and (z.grad == 0).all()


@pytest.mark.parametrize("loss", [SoftMarginTriplet, SoftmaxTriplet])
def test_copies_that_are_equal_have_a_finite_gradient(loss: type[SoftMarginTriplet]) -> None:
    z = torch.zeros(6, 4, requires_grad=True)
    loss()(z, ids=torch.tensor([0, 0, 1, 1, 2, 2]), draws=Draws(0, "s", 0, 6)).backward()
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("options", [{"hardest": 0.0}, {"hardest": 1.5}, {"mining": "semi"}, {"reduction": "sum"}])
def test_wrong_options_are_one_line(options: dict[str, object]) -> None:
    with pytest.raises(augend.AugendError):
        SoftMarginTriplet(**options)  # type: ignore[arg-type]
