"""Orders at their edges: batches larger than the set, options that do not go together, what is left scored anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from augend import AugendError, Draws
from augend.order import ByDelta, ByLoss, ByScore, GraB, InfoBatch, LoopProbe, RandomScores, SampleByLoss, TrialSteps
from loops import ROWS, SIZE, loop, steps_of

LARGE: dict[str, Callable[[], Any]] = {
    "by-loss": lambda: ByLoss(candidates=2),
    "by-loss, all": lambda: ByLoss(candidates="all"),
    "by-loss, pictures": lambda: ByLoss(candidates=2, item="sample"),
    "by-loss, all pictures": lambda: ByLoss(candidates="all", item="sample"),
    "by-loss, pictures once an epoch": lambda: ByLoss(item="sample", refresh="epoch"),
    "by-loss, once an epoch": lambda: ByLoss(refresh="epoch"),
    "by-loss, prefix": lambda: ByLoss(candidates=2, prefix=True),
    "by-delta": lambda: ByDelta(candidates=2),
    "by-score, pictures": lambda: ByScore("given", candidates="all", item="sample"),
    "sampled": lambda: SampleByLoss(pool=2),
    "random": lambda: RandomScores(candidates=2),
    "infobatch": InfoBatch,
    "grab": GraB,
}


@pytest.mark.parametrize("rows", [SIZE + 7, 2 * SIZE, 3 * SIZE + 20])
@pytest.mark.parametrize("name", LARGE)
def test_batches_may_be_larger_than_the_set(name: str, rows: int) -> None:
    """Full ones, that hold every picture about as often as any other where the order is one of epochs."""
    order, *_ = loop(LARGE[name]())
    for step in range(3):
        picks = order.next(step, rows)
        order.feedback(picks, loss=torch.ones(rows), gradient=torch.ones(4))
        counts = picks.index[:, 0].bincount(minlength=SIZE)
        assert picks.index.shape == (rows, 1)
        if name not in ("sampled", "by-loss, prefix"):
            assert int(counts.min()) >= rows // SIZE - 1 and int(counts.max()) <= rows // SIZE + 2, counts


def test_all_that_is_left_is_scored_at_every_step() -> None:
    """refresh: step with all pictures: the lowest of those left, by the model as it is now."""
    order, model, optimizer, x, y = loop(ByLoss(candidates="all", item="sample"))
    left = set(range(SIZE))
    for step in range(SIZE // ROWS):
        model.eval()
        with torch.no_grad():
            losses = functional.cross_entropy(model(x), y, reduction="none")
        model.train()
        best = set(sorted(left, key=lambda n: float(losses[n]))[:ROWS])
        (seen,) = steps_of(order, model, optimizer, x, y, range(step, step + 1))
        assert set(seen) == best
        left -= best
    batches = -(-SIZE // ROWS)
    often, items = order.asked(ROWS)
    assert often == 1 and items == pytest.approx(
        sum(max(ROWS, SIZE - ROWS * n) / ROWS for n in range(batches)) / batches
    )


def test_scores_that_do_not_change_are_looked_up_once() -> None:
    order, *_ = loop(ByScore("given", candidates="all", item="sample"))
    assert order.asked(ROWS) == (ROWS / SIZE, SIZE / ROWS)
    order, *_ = loop(ByDelta(refresh="epoch", against="external", draw=10))
    assert order.asked(ROWS) == (1 / 7, 7) and order.passes(ROWS).held == pytest.approx(10 * 8 / 7)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"against": "external"}, "against"),
        ({"relative": True}, "relative"),
        ({"redraw": True}, "redraw"),
        ({"trial": "step"}, "trial"),
        ({"minus": "scores.csv"}, "minus"),
        ({"against": "external", "redraw": True}, "against, redraw"),
    ],
)
def test_an_average_compares_nothing(options: dict[str, Any], names: str) -> None:
    with pytest.raises(
        AugendError, match=f"average takes every candidate's step and compares none; leave {names} out$"
    ):
        ByDelta(take="average", **options)


def test_losses_below_zero_have_been_heard() -> None:
    """A likelihood's losses, say: of those below the mean half are left out, as of any others."""
    order = InfoBatch(prune=0.5)
    order.start(100, Draws(0, "order"))
    for step in range(10):
        picks = order.next(step, 10)
        order.feedback(picks, loss=-1.0 - picks.index[:, 0].float(), gradient=None)
    order.next(10, 10)
    assert order.pruned == 25
    state = order.state_dict()
    again = InfoBatch(prune=0.5)
    again.start(100, Draws(0, "order"))
    before = again.state_dict()
    assert not bool(before["heard"].any()) and all(
        one.isfinite().all() for one in before.values()
    )  # checkpoints refuse others
    again.load_state_dict(state)
    assert torch.equal(again.next(11, 10).index, order.next(11, 10).index)
    order.feedback(picks, loss=torch.full((10,), torch.inf), gradient=None)
    state = order.state_dict()
    assert int(state["heard"].sum()) == 90 and bool(state["losses"].isfinite().all())


def test_pictures_whose_losses_are_no_numbers_stay() -> None:
    order = InfoBatch(prune=0.9)
    order.start(100, Draws(0, "order"))
    for step in range(10):
        picks = order.next(step, 10)
        number = picks.index[:, 0]
        order.feedback(picks, loss=torch.where(number < 20, torch.nan, 1.0 + number), gradient=None)
    picks = order.next(10, 10)
    state = order.state_dict()
    left = torch.cat((picks.index[:, 0], state["queue"]))
    assert picks.weight is not None and order.pruned == 36  # of the 40 whose losses are below the mean
    weights = torch.cat((picks.weight, state["weights"]))[left < 20]
    assert set(left[left < 20].tolist()) == set(range(20)) and weights.tolist() == [1.0] * 20


@pytest.mark.parametrize("train", [False, True])
def test_a_trial_leaves_the_gradients_that_it_gives(train: bool) -> None:
    """An optimizer may write into the gradients of its step: SGD with Nesterov momentum adds the momentum to them."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(6, 3), torch.randn(16, 6), torch.arange(16) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    for _ in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    probe = LoopProbe(model, optimizer, lambda index: (x[index], y[index]))
    taken = TrialSteps(probe, train=train).take(probe.training(torch.arange(8))).taken
    expected = torch.autograd.grad(functional.cross_entropy(model(x[:8]), y[:8]), list(model.parameters()))
    for (name, _), gradient in zip(model.named_parameters(), expected, strict=True):
        assert torch.equal(taken.gradients[name], gradient)


def test_steps_that_ask_for_the_loss_again_are_not_tried() -> None:
    model, x = nn.Linear(6, 3), torch.randn(16, 6)
    probe = LoopProbe(model, torch.optim.LBFGS(model.parameters()), lambda index: (x[index], index % 3))
    with pytest.raises(AugendError, match="a trial step of LBFGS would ask for its loss many times"):
        TrialSteps(probe).take(probe.training(torch.arange(8)))
