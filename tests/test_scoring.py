"""Scores of learning items: shared among ranks, of losses that are no numbers, of held-out pictures, of files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from augend import AugendError, Draws
from augend.evaluate.load import load
from augend.order import ByDelta, ByLoss, ByScore, Given, LoopProbe, sampled, taken_first
from augend.order.scoring import row_scores, standardised
from augend.runner.job import Job, resolve_job
from augend.runner.sight import check_orders, read_scores
from augend.study.compare import compare
from augend.study.teacher import write_scores
from loops import ROWS, SIZE, loop, steps_of
from runs import SMALL, splits_of, train


class _TwoRanks(LoopProbe):
    """The first of two ranks; what the other found is the zeros that it would send."""

    def __init__(self, *given: Any, **how: Any) -> None:
        super().__init__(*given, **how)
        self.ranks = 2


def test_pictures_are_shared_among_ranks() -> None:
    order, model, optimizer, x, y = loop(ByLoss(item="sample"))
    mine = _TwoRanks(model, optimizer, lambda i: (x[i], y[i]))
    pictures = torch.arange(3 * ROWS + 2)
    whole = row_scores(order.scoring, order._probe, pictures, ROWS, Draws(0, "step"))
    half = row_scores(order.scoring, mine, pictures, ROWS, Draws(0, "step"))
    expected = torch.cat([part * (n % 2 == 0) for n, part in enumerate(torch.split(whole, ROWS))])
    assert torch.equal(half, expected) and len(whole) == len(pictures) and bool((whole > 0).all())


def test_the_external_batch_is_one_an_epoch() -> None:
    order, *mine = loop(ByDelta(candidates=2, against="external", draw=5))
    probe, seen = order._probe, []
    fetch = probe.external
    probe.external = lambda index: seen.append(index.tolist()) or fetch(index)
    steps = -(-SIZE // ROWS)
    steps_of(order, *mine, range(2 * steps))
    first, second = seen[:steps], seen[steps:]
    assert all(one == first[0] for one in first) and all(one == second[0] for one in second)
    assert first[0] != second[0] and len(set(first[0])) == 5


def test_what_is_no_number_comes_last() -> None:
    nan = float("nan")
    assert taken_first(torch.tensor([nan, 2.0, nan, 1.0]), "lowest").tolist() == [3, 1, 0, 2]
    assert taken_first(torch.tensor([nan, 2.0, nan, 3.0]), "highest").tolist() == [3, 1, 0, 2]
    worst = sampled(torch.tensor([0.0, nan, 1.0]), 1000, "direct", Draws(0, "x")).bincount(minlength=3)
    assert worst[0] == 0 and 400 < worst[1] < 600  # as likely as the largest loss that is a number
    assert standardised(torch.tensor([nan, 1.0, 3.0])).nan_to_num(nan=9.0).tolist() == [9.0, -1.0, 1.0]


@pytest.mark.parametrize("take", ["highest", "lowest"])
@pytest.mark.parametrize("minus", [None, "given"])
def test_the_tried_step_is_that_of_the_chosen_batch(take: Any, minus: str | None) -> None:
    """Only the trials that can win are kept in memory; whichever wins, its own gradients come with it."""
    order, model, optimizer, x, y = loop(ByDelta(candidates=5, take=take, trial="step", minus=minus))
    for step in range(12):
        picks = order.next(step, ROWS)
        index = picks.index[:, 0]
        optimizer.zero_grad()
        functional.cross_entropy(model(x[index]), y[index]).backward()
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter.grad, picks.taken.gradients[name])
        optimizer.step()


def test_the_mean_of_all_candidates() -> None:
    order, model, _, x, y = loop(ByDelta(candidates=3, take="average"))
    batches = [order._batches.batch(int(n)) for n in order._batches.drawn(order._draws.child("step/0"), 3, ROWS)]
    taken = order.next(0, ROWS).taken
    losses = torch.stack([functional.cross_entropy(model(x[index]), y[index]) for index in batches])
    gradients = torch.autograd.grad(losses.mean(), list(model.parameters()))
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(taken.gradients[name], gradient)
    torch.testing.assert_close(taken.losses.total, losses.mean().detach())


def test_a_table_of_scores_is_kept_with_the_run() -> None:
    """The file may be gone, or another, when a run goes on: what was read first counts."""
    order, *mine = loop(ByScore("teacher.csv", candidates=3))
    begun = steps_of(order, *mine, range(4))
    again, *other = loop(ByScore("teacher.csv", candidates=3))
    again._probe._scores = torch.arange(SIZE).flip(0).float()
    again.load_state_dict(order.state_dict())
    assert steps_of(again, *other, range(4, 8)) == steps_of(order, *mine, range(4, 8)) and begun


def test_a_given_order_must_not_change(tmp_path: Path) -> None:
    file = tmp_path / "order.json"
    file.write_text('{"batches": [[1, 2], [3, 4]]}')
    first, same, changed = Given(str(file)), Given(str(file)), Given(str(file))
    first.start(SIZE, Draws(0, "order"))
    same.start(SIZE, Draws(0, "order"))
    same.load_state_dict(first.state_dict())
    file.write_text('{"batches": [[1, 2], [4, 3]]}')
    changed.start(SIZE, Draws(0, "order"))
    with pytest.raises(AugendError, match="has changed since the phase began"):
        changed.load_state_dict(first.state_dict())


@pytest.mark.parametrize(("batches", "says"), [(29, "holds 29 batches, and step 30"), (30, None)])
def test_a_given_order_is_checked_whole_before_anything_is_written(
    batches: int, says: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "order.json"
    file.write_text(json.dumps({"batches": [[n, n + 1] for n in range(batches)]}))
    how = {"settings": "quick", "overrides": (f"order={file}", "batch=2")}
    if says is None:
        assert train(tmp_path / "run", "replay-order", **how)["steps"] == 30
        return
    with pytest.raises(AugendError, match=says):
        train(tmp_path / "run", "replay-order", **how)
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()  # a folder that was there before stays
    with pytest.raises(AugendError, match=says):
        train(tmp_path / "mine", "replay-order", **how)
    assert (tmp_path / "mine").is_dir()


def test_a_teacher_that_diverged_is_refused(tmp_path: Path) -> None:
    pictures = splits_of(Job(data=SMALL, recipe="plain", budget="1step"))["main"].train
    file = tmp_path / "scores.csv"
    file.write_text("id,score\n" + "".join(f"{one},{'nan' if n == 3 else n}\n" for n, one in enumerate(pictures.ids)))
    with pytest.raises(AugendError, match=f"the score of {pictures.ids[3]} is nan"):
        read_scores(str(file), pictures)


def test_a_teacher_writes_its_losses_and_how_sure_it_is(tmp_path: Path) -> None:
    train(tmp_path / "run", "augmented", settings="quick", budget="40step")
    model, split = load(tmp_path / "run"), splits_of(Job(data=SMALL, recipe="augmented"))["main"]
    file = tmp_path / "teacher.csv"
    counts = write_scores(tmp_path / "run", file)
    assert counts["train"] == len(split.train) and "valid" in counts
    with torch.no_grad():
        answers = model(split.train.pixels[:])
    losses = functional.cross_entropy(answers, split.train.labels, reduction="none")
    torch.testing.assert_close(read_scores(str(file), split.train), losses, rtol=1e-4, atol=1e-5)
    p = answers.double().softmax(1)
    entropy = -(p * p.clamp(min=1e-300).log()).sum(1).float()
    torch.testing.assert_close(read_scores(str(file), split.train, "entropy"), entropy, rtol=1e-4, atol=1e-5)
    with pytest.raises(AugendError, match="no table with the columns id and margin"):
        read_scores(str(file), split.train, "margin")
    for recipe in ("curriculum", "curriculum-entropy"):
        result = train(tmp_path / recipe, recipe, settings="quick", overrides=(f"scores={file}",))
        assert result["steps"] == 30
    asked = {"recipes": ("augmented", "curriculum"), "settings": "quick", "budget": "30step"}
    asked["overrides"] = (f"scores={file}",)
    with pytest.raises(
        AugendError, match=r"repeat 1 of curriculum draws other pictures than repeat 0: .* have no score"
    ):
        compare(SMALL, out=tmp_path / "study", **asked, repeats=2)
    assert not (tmp_path / "study").exists()
    assert compare(SMALL, out=tmp_path / "study", **asked, repeats=1)["complete"]
    with pytest.raises(AugendError, match="repeat 1 of curriculum draws other pictures"):
        compare(out=tmp_path / "study", repeats=3)
    assert compare(out=tmp_path / "study")["complete"]


def test_held_out_pictures_need_a_term_with_labels() -> None:
    order = "{by-delta: {candidates: 2, against: external}}"
    job = Job(
        data=SMALL, recipe="init-embedding", settings="quick", budget="12step", overrides=(f"embed.order={order}",)
    )
    splits = splits_of(job)
    with pytest.raises(AugendError, match="scores by cross-entropy with labels, and the phase has none"):
        check_orders(resolve_job(job, splits), splits)
