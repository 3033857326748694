"""Orders by scores, by gradients and from files: what they pick, that they go on exactly, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from augend import AugendError, Draws, Picks
from augend.order import (
    ByDelta,
    ByLoss,
    ByScore,
    Given,
    GraB,
    InfoBatch,
    LoopProbe,
    RandomScores,
    SampleByLoss,
    sampled,
)  # fmt: skip
from augend.order.pools import CutBatches, Remaining
from augend.recipes import check, dump
from augend.runner.job import Job, load_splits, resolve_job
from augend.study.equal import equal_budget, plan_flops
from augend.study.tables import load_table
from loops import ROWS, SIZE, loop, steps_of
from runs import SMALL, splits_of, train

ORDERS: dict[str, Callable[[], Any]] = {
    "by-loss": lambda: ByLoss(candidates=4),
    "by-loss, highest": lambda: ByLoss(candidates=4, take="highest"),
    "by-loss, all": lambda: ByLoss(candidates="all"),
    "by-loss, pictures": lambda: ByLoss(candidates=3, item="sample"),
    "by-loss, once an epoch": lambda: ByLoss(refresh="epoch"),
    "by-loss, pictures once an epoch": lambda: ByLoss(item="sample", refresh="epoch"),
    "by-delta, same": lambda: ByDelta(candidates=3),
    "by-delta, external": lambda: ByDelta(candidates=3, against="external", draw=10),
    "by-delta, relative": lambda: ByDelta(candidates=3, relative=True),
    "by-delta, step": lambda: ByDelta(candidates=3, trial="step"),
    "by-delta, once an epoch": lambda: ByDelta(refresh="epoch"),
    "by-delta, teacher": lambda: ByDelta(candidates=3, minus="given"),
    "by-score": lambda: ByScore("given", candidates=4),
    "random": lambda: RandomScores(candidates=4),
    "random, cut": lambda: RandomScores(candidates=4, cut=True),
    "infobatch": lambda: InfoBatch(prune=0.5, until=0.9),
    "grab": GraB,
}
CUT = {
    name
    for name in ORDERS
    if "delta" in name or "cut" in name or name in ("by-loss, all", "by-loss, once an epoch", "grab")
}
PARTIAL = {"infobatch"}  # leaves pictures out on purpose


@pytest.mark.parametrize("name", ORDERS)
def test_every_picture_once_an_epoch(name: str) -> None:
    """The first epoch's batches hold every picture, and over several epochs none is favoured.

    Where batches are cut beforehand the one that takes its rest from the next epoch may come at any place.
    """
    seen = steps_of(*loop(ORDERS[name]()), range(7 * 5))
    first = [i for batch in seen[:7] for i in batch]
    assert len(set(first)) == SIZE
    if name not in CUT:
        assert all(len(set(batch)) == ROWS for batch in seen)
        assert len(set(first[:48])) == 48
    counts = torch.bincount(torch.tensor(seen).flatten(), minlength=SIZE)
    if name not in PARTIAL:
        cut = len(seen) * ROWS / SIZE
        assert counts.min() >= int(cut) - 2 and counts.max() <= int(cut) + 3, counts


@pytest.mark.parametrize("name", [*ORDERS, "sampled"])
@pytest.mark.parametrize("stop", [1, 6, 7, 11])
def test_goes_on_in_the_middle_of_an_epoch(name: str, stop: int) -> None:
    """State saved and loaded into a new order: the same pictures follow, whatever the model has become."""
    make = ORDERS.get(name, lambda: SampleByLoss(pool=3))
    order, model, optimizer, x, y = loop(make())
    whole = steps_of(order, model, optimizer, x, y, range(20))
    order, model, optimizer, x, y = loop(make())
    begun = steps_of(order, model, optimizer, x, y, range(stop))
    state = {key: value.clone() for key, value in order.state_dict().items()}
    other = make()
    other.start(SIZE, Draws(0, "order"), getattr(order, "_probe", None))
    other.load_state_dict(state)
    assert begun + steps_of(other, model, optimizer, x, y, range(stop, 20)) == whole


def test_the_lowest_loss_is_taken() -> None:
    """Of four candidates, seen as they are drawn, the one that the network in evaluation mode finds easiest."""
    order, model, _, x, y = loop(ByLoss(candidates=4))
    pool = Remaining(SIZE)
    drawn = pool.drawn(Draws(0, "order").child("step/0"), 4, ROWS)
    model.eval()
    losses = [functional.cross_entropy(model(x[i]), y[i]).item() for i in drawn]
    model.train()
    assert order.next(0, ROWS).index[:, 0].tolist() == drawn[losses.index(min(losses))].tolist()
    assert model.training and all(p.grad is None for p in model.parameters())


def test_single_pictures_by_their_scores() -> None:
    """item: sample takes the best rows of all candidates; given scores are the picture's numbers here."""
    order, *_ = loop(ByScore("given", candidates="all", item="sample"))
    assert order.next(0, ROWS).index[:, 0].tolist() == list(range(ROWS))
    assert order.next(1, ROWS).index[:, 0].tolist() == list(range(ROWS, 2 * ROWS))


def test_the_published_index_error() -> None:
    """Half of the pictures are not seen in an epoch, and the first fifth make up half of what is."""
    size, rows = 4000, 20
    pool = Remaining(size, prefix=True)
    seen = []
    for step in range(size // rows):
        batch = pool.drawn(Draws(0, "prefix", step), 1, rows)[0]
        pool.take(batch)
        seen.append(batch)
    counts = torch.cat(seen).bincount(minlength=size)
    assert float((counts == 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(counts[: size // 5].sum() / counts.sum()) == pytest.approx(0.52, abs=0.02)


def test_probabilities_follow_the_losses() -> None:
    scores = torch.tensor([1.0, 2.0, 5.0])
    direct = sampled(scores, 20000, "direct", Draws(0, "a")).bincount(minlength=3) / 20000
    inverse = sampled(scores, 20000, "inverse", Draws(0, "b")).bincount(minlength=3) / 20000
    torch.testing.assert_close(direct, scores / scores.sum(), atol=0.015, rtol=0)
    torch.testing.assert_close(inverse, (1 / scores) / (1 / scores).sum(), atol=0.015, rtol=0)
    assert sampled(torch.zeros(3), 300, "direct", Draws(0, "c")).unique().numel() == 3


def test_random_scores_choose_like_shuffling() -> None:
    """Which picture comes at a place in the epoch is uniform: chi-square over 400 epochs of twelve pictures."""
    counts = torch.zeros(12, 12)
    for seed in range(400):
        order = RandomScores(candidates=3)
        order.start(12, Draws(seed, "order"))
        for step in range(4):
            for place, picture in enumerate(order.next(step, 3).index[:, 0].tolist()):
                counts[3 * step + place, picture] += 1
    chi = float(((counts - 400 / 12) ** 2 / (400 / 12)).sum())
    assert 60 < chi < 190  # 121 degrees of freedom: 121 +- 4.4 standard deviations


def test_cut_batches_change_their_size_only_between_epochs() -> None:
    pool = CutBatches(10, Draws(0, "cut"))
    pool.drawn(Draws(0, "a"), 2, 4)
    with pytest.raises(AugendError, match="cut into batches of 4 pictures, and now 2"):
        pool.drawn(Draws(0, "b"), 2, 2)


def test_infobatch_keeps_the_expected_gradient() -> None:
    """Weights times kept pictures give every picture weight 1 in the mean, and dropped ones are below the mean loss."""
    losses = torch.linspace(0, 1, 100) ** 2
    total = torch.zeros(100)
    for seed in range(300):
        order = InfoBatch(prune=0.5, until=1.0)
        order.start(100, Draws(seed, "order"))
        for _ in range(10):
            picks = order.next(0, 10, progress=0.1)
            order.feedback(picks, loss=losses[picks.index[:, 0]], gradient=None)
        first = order.next(0, 10, progress=0.1)
        left = (100 - order.pruned) // 10 - 1
        parts = [first, *(order.next(0, 10, progress=0.1) for _ in range(left))]
        for picks in parts:
            total[picks.index[:, 0]] += picks.weight
    below = losses < losses.mean()
    assert order.pruned == int(0.5 * int(below.sum()))
    assert float(total[below].mean() / 300) == pytest.approx(1.0, abs=0.05)
    assert float(total[~below].mean() / 300) == pytest.approx(1.0, abs=0.05)


def test_grab_is_the_paper_s_algorithm() -> None:
    """Two epochs of fixed gradients against Algorithm 4 written out with norms."""
    torch.manual_seed(0)
    gradients = torch.randn(6, 5)
    order = GraB()
    order.start(12, Draws(3, "order"))
    batches = {}
    mean = stale = torch.zeros(5)
    expected: list[int] | None = None
    for _ in range(3):
        current = []
        running, mean = torch.zeros(5), torch.zeros(5)
        front: list[int] = []
        back: list[int] = []
        for _ in range(6):
            picks = order.next(0, 2)
            number = batches.setdefault(tuple(picks.index[:, 0].tolist()), len(batches))
            current.append(number)
            order.feedback(picks, loss=None, gradient=gradients[number])
            centred = gradients[number] - stale
            if (running + centred).norm() < (running - centred).norm():
                running = running + centred
                front.append(number)
            else:
                running = running - centred
                back.insert(0, number)
            mean = mean + gradients[number] / 6
        if expected is not None:
            assert current == expected
        stale, expected = mean, [*front, *back]
    assert len(batches) == 6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "holds no"),
        ('{"batches": [[1, 99]]}', "batch 0 has a number outside 0 .. 49"),
        ('{"batches": [[]]}', "batch 0 is no list"),
        ('{"order": []}', "holds no"),
        (None, "there is no such file"),
    ],
)
def test_a_given_order_that_is_none(text: str | None, says: str, tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(AugendError, match=says):
        Given(str(file)).start(SIZE, Draws(0, "order"))


def test_a_given_order_ends_and_has_a_length(tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    file.write_text(json.dumps({"batches": [[1, 2]]}))
    order = Given(str(file))
    order.start(SIZE, Draws(0, "order"))
    with pytest.raises(AugendError, match="has 2 pictures, and a step takes 3"):
        order.next(0, 3)
    with pytest.raises(AugendError, match="holds 1 batches, and step 2"):
        order.next(1, 2)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ByLoss(take="best"), "take is 'best'; allowed: lowest, highest"),
        (lambda: ByLoss(candidates="many"), "candidates is 'many'; allowed: a number, or all"),
        (lambda: ByLoss(candidates=0), "candidates is 0"),
        (lambda: ByLoss(item="pixel"), "item is 'pixel'"),
        (lambda: ByLoss(prefix=True, refresh="epoch"), "prefix is a way of drawing"),
        (lambda: ByDelta(against="test"), "against is 'test'; allowed: same, external"),
        (lambda: ByDelta(trial="step", redraw=True), "leave redraw out"),
        (lambda: ByDelta(trial="step", refresh="epoch"), "use trial: eval"),
        (lambda: ByDelta(draw=0), "draw is 0"),
        (lambda: SampleByLoss(weighing="odd"), "weighing is 'odd'"),
        (lambda: InfoBatch(prune=1.0), "prune is 1"),
    ],
)
def test_options_that_make_no_order(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(AugendError, match=says):
        make()


def test_orders_say_what_they_miss() -> None:
    order = ByLoss()
    order.start(SIZE, Draws(0, "order"))
    with pytest.raises(AugendError, match="start the order with a probe"):
        order.next(0, ROWS)
    with pytest.raises(AugendError, match="hears the gradient"):
        GraB().feedback(Picks(torch.zeros(1, 1, dtype=torch.int64)), loss=None, gradient=None)
    with pytest.raises(AugendError, match="hears the loss of every row"):
        InfoBatch().feedback(Picks(torch.zeros(1, 1, dtype=torch.int64)), loss=None, gradient=None)
    model = nn.Linear(2, 2)
    probe = LoopProbe(model, torch.optim.SGD(model.parameters(), lr=0.1), lambda i: (torch.zeros(len(i), 2), i % 2))
    order = ByDelta(against="external")
    order.start(SIZE, Draws(0, "order"), probe)
    with pytest.raises(AugendError, match="write hold"):
        order.next(0, ROWS)


CHARGED = [
    "loss-ascending",
    "loss-delta",
    "loss-delta-same",
    "loss-delta-short",
    "loss-delta-step",
    "loss-delta-average",
    "loss-sampled",
    "random-scores",
]


@pytest.mark.parametrize("recipe", CHARGED)
def test_the_ledger_counts_what_scores_cost(recipe: str, tmp_path: Path) -> None:
    """Over whole epochs of the warm-up: the run's FLOPs are those that comparisons at equal cost predict."""
    job = Job(data=SMALL, recipe=recipe, budget="24step", settings="quick", overrides=("batch=20",))
    splits = splits_of(job)
    epoch = -(-len(splits["main"].train) // 20)
    overrides = ("batch=20", f"warm.until={2 * epoch}step")
    job = Job(data=SMALL, recipe=recipe, budget=f"{2 * epoch + 1}step", settings="quick", overrides=overrides)
    plan = resolve_job(job, splits)
    predicted = sum(steps * flops for steps, flops in plan_flops(plan, splits))
    train(tmp_path / "run", recipe, budget=f"{2 * epoch + 1}step", settings="quick", overrides=overrides)
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())
    charged = sum(phase["flops"] for phase in ledger["phases"].values()) if "phases" in ledger else None
    assert charged == pytest.approx(predicted, rel=1e-6), ledger


def test_a_step_that_was_tried_is_not_computed_again(tmp_path: Path) -> None:
    """With one candidate a trial that is the step is plain training, to the last bit."""
    order = "{by-delta: {candidates: 1, trial: step}}"
    plain = "{random-scores: {candidates: 1, cut: true}}"
    losses = []
    for name, written in (("tried", order), ("plain", plain)):
        train(tmp_path / name, "augmented", settings="quick", overrides=(f"plain.order={written}",))
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if line["kind"] == "train"])
    assert losses[0] == losses[1] and len(losses[0]) > 0


def test_equal_flops_count_the_scores_of_held_out_pictures() -> None:
    """A baseline as dear as a recipe that scores: its budget follows from the data that the other holds out."""
    overrides = ("batch=20", "warm.until=12step")
    dear = Job(data=SMALL, recipe="loss-delta", budget="24step", settings="quick", overrides=overrides)
    cheap = Job(data=SMALL, recipe="augmented", budget="24step", settings="quick", overrides=("batch=20",))
    splits, others = splits_of(cheap), splits_of(dear)
    budget = equal_budget(cheap, dear, splits, others)
    ours = plan_flops(resolve_job(dataclasses.replace(cheap, budget=budget), splits), splits)
    theirs = plan_flops(resolve_job(dear, others), others)
    spent, wanted = (sum(steps * flops for steps, flops in prices) for prices in (ours, theirs))
    assert spent == pytest.approx(wanted, rel=0.01)
    assert int(budget.removesuffix("step")) > 24 + 12 * 5  # up to eight steps, and looks at held-out pictures


def test_a_leak_scores_on_test_pictures_and_keeps_the_training_set() -> None:
    """What the published code does; only a table's protocol can ask for it."""
    job = Job(data=SMALL, recipe="loss-delta", leaks=True)
    leaking, honest = load_splits(job)["main"], load_splits(dataclasses.replace(job, leaks=False))["main"]
    assert leaking.held["external"] is leaking.test and len(leaking.train) == 200
    assert len(honest.train) == 180 and not set(honest.held["external"].ids) & {*honest.test.ids, *honest.train.ids}
    table = load_table("procedures/table-2-4")
    assert table.asked("procedures/table-2-4", "authors-small", "smoke").leaks
    assert not table.asked("procedures/table-2-4", "small", "smoke").leaks


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ({"like": "sums", "set": {"plain.order": "infobatch"}}, "infobatch chooses single pictures"),
        ({"like": "sums", "set": {"plain.order": {"by-loss": {"item": "sample"}}}}, "choose batches, such as by-loss"),
        (
            {"like": "gradual-cascade", "set": {"gradual.order": {"by-delta": {}}}},
            "cuts an epoch into batches of one size",
        ),
        ({"like": "gradual-cascade", "set": {"gradual.order": "grab"}}, "made of 8 pictures at first and of"),
        ({"like": "plain", "hold": {"external": "110%"}}, "a share above 0% and below 100%"),
        ({"like": "plain", "hold": ["external"]}, "{NAME: 10%}"),
        ({"like": "plain", "set": {"plain.order": {"by-loss": {"take": "best"}}}}, "take is 'best'"),
    ],
)
def test_mixtures_that_cannot_work_are_refused_before_anything_runs(recipe: dict[str, Any], says: str) -> None:
    with pytest.raises(AugendError) as caught:
        check(recipe)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "recipe",
    [
        {"like": "gradual-cascade", "set": {"gradual.order": {"by-loss": {"candidates": 2}}}},
        {"like": "ait", "set": {"train.order": {"by-delta": {"candidates": 2, "trial": "step"}}}},
        {
            "like": "aug-ft",
            "hold": {"external": 40},
            "set": {"tune.order": {"by-delta": {"candidates": 2, "against": "external"}}},
        },
        {"like": "dml", "set": {"train.order": {"by-delta": {"candidates": 2, "trial": "step"}}}},
    ],
    ids=["sums", "views", "frozen", "peers"],
)
def test_orders_compose_with_the_other_answers(recipe: dict[str, Any], tmp_path: Path) -> None:
    """Sums that fade, two views, a frozen trunk, two networks: trained, charged for, finite."""
    file = tmp_path / "mine.yaml"
    file.write_text(dump(recipe))
    result = train(tmp_path / "run", str(file), settings="quick", budget="12step")
    assert result["steps"] == 12
