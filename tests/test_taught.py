"""Orders that ask a network of the recipe for scores: what it is asked, when, what that costs, and what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from augend import AugendError
from augend.order import ByDelta, ByScore
from augend.randomness import Draws
from augend.recipes import check
from augend.runner import timing
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job
from augend.runner.probe import trial_of
from augend.runner.sight import Sight
from augend.runner.stopwatch import Stopwatch
from augend.runner.timing import PhaseTime, time_plan
from augend.study.equal import equal_budget, plan_flops
from runs import SMALL, Killed, final_state, finish, killed_at, same_run, splits_of, train

EXACT = Hardware(threads=1, precision="32-true")
HOW: dict[str, Any] = {"settings": "quick", "model": "small", "budget": "26step", "hardware": EXACT}
STEPS = ("batch=20", "taught=5step", "warm.until=14step")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """What teachers answered, beside the cross-entropy of the same network, computed here."""
    found: list[tuple[Tensor, Tensor]] = []
    taught = Sight.taught

    def heard(self: Sight, network: str, column: str) -> Tensor:
        values = taught(self, network, column)
        own, pictures = self._scene.phase.networks.stages(network), self._scene.pictures
        modes = {name: module.training for name, module in own.named_modules()}
        own.eval()
        with torch.no_grad():
            answers = own(pictures.pixels / 255.0, frozenset({""}))[""]
        for name, module in own.named_modules():
            module.train(modes[name])
        p = answers.double().softmax(1)
        entropy = -(p * p.clamp(min=1e-300).log()).sum(1).float()
        losses = functional.cross_entropy(answers, pictures.labels, reduction="none")
        found.append((values, losses if column == "score" else entropy))
        return values

    monkeypatch.setattr(Sight, "taught", heard)
    return found


@pytest.mark.parametrize("column", ["score", "entropy"])
def test_what_a_teacher_says_is_its_loss_as_the_phase_begins(
    column: str, tmp_path: Path, asked: list[tuple[Tensor, Tensor]]
) -> None:
    """Then the run is, to the last bit, that of a file with these scores."""
    order = "{by-score: {candidates: 4, column: %s, %s}}"
    overrides = (*STEPS, "warm.order=" + order % (column, "teacher: teacher"))
    train(tmp_path / "run", "curriculum-taught", overrides=overrides, **HOW)
    ((values, wanted),) = asked
    torch.testing.assert_close(values, wanted, rtol=1e-6, atol=1e-6)
    assert values.std() > 1e-4

    ids = splits_of(Job(data=SMALL, recipe="augmented"))["main"].train.ids
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", column))
        writer.writerows((one, repr(float(value))) for one, value in zip(ids, values, strict=True))
    overrides = (*STEPS, "warm.order=" + order % (column, f"file: {tmp_path / 'scores.csv'}"))
    train(tmp_path / "file", "curriculum-taught", overrides=overrides, **HOW)
    one, other = final_state(tmp_path / "run"), final_state(tmp_path / "file")
    for name in [name for name in one if "net." in name and "teacher" not in name]:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize("recipe", ["curriculum-taught", "teacher-student-taught"])
def test_a_teacher_is_charged(recipe: str, tmp_path: Path) -> None:
    """A forward of every picture, once, beside what is charged of the same order by a file; foreseen by equal FLOPs."""
    job = Job(data=SMALL, recipe=recipe, settings="quick", model="small", budget="26step", overrides=STEPS)
    splits = splits_of(job)
    epoch = len(splits["main"].train) // 20
    overrides = (*STEPS[:2], f"warm.until={epoch}step")  # what is left of an epoch counts, so a whole one
    job = dataclasses.replace(job, overrides=overrides)
    train(tmp_path / "run", recipe, overrides=overrides, **HOW)
    spent = json.loads((tmp_path / "run" / "ledger.json").read_text())["phases"]
    step = spent["teach"]["flops"] / 5
    pictures = len(splits["main"].train)
    if recipe == "curriculum-taught":
        # A step of 20 pictures is a forward and a backward, of which the first layer's gradient of its input is not computed.
        forward = (spent["warm"]["flops"] - epoch * step) / pictures
        assert 0.3 < 20 * forward / step < 0.4
        assert spent["warm"]["forward"] == 2 * epoch and spent["warm"]["backward"] == epoch
    plan = resolve_job(job, splits)
    foreseen = {
        phase.name: steps * each for phase, (steps, each) in zip(plan.phases, plan_flops(plan, splits), strict=True)
    }
    for name, phase in spent.items():
        assert phase["flops"] == pytest.approx(foreseen[name], rel=1e-6), name
    plain = dataclasses.replace(job, recipe="augmented", overrides=STEPS[:1])
    same = splits_of(plain)
    assert int(equal_budget(plain, job, same, splits).removesuffix("step")) > 28


def test_a_run_that_is_killed_asks_its_teacher_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[tuple[Tensor, Tensor]]
) -> None:
    train(tmp_path / "whole", "curriculum-taught", overrides=STEPS, **HOW)
    undo = killed_at(9, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", "curriculum-taught", overrides=STEPS, **HOW)
    before = len(asked)
    undo()
    finish(tmp_path / "killed")
    assert len(asked) == before == 2
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_network_may_be_its_own_teacher(tmp_path: Path, asked: list[tuple[Tensor, Tensor]]) -> None:
    """What it finds easy when the phase begins; it moves on, its scores do not."""
    phases = (
        "{phases: [{name: plain, until: 6step, augment: pixels}, "
        "{name: own, augment: pixels, order: {by-score: {teacher: net, candidates: 4}}}]}"
    )
    (tmp_path / "mine.yaml").write_text(phases)
    train(tmp_path / "run", str(tmp_path / "mine.yaml"), overrides=("batch=20",), **HOW)
    ((values, wanted),) = asked
    torch.testing.assert_close(values, wanted, rtol=1e-4, atol=1e-5)


def test_no_teacher_is_asked_where_steps_are_only_tried(asked: list[tuple[Tensor, Tensor]]) -> None:
    """The fastest hardware is found by a few steps: an answer for all pictures would be charged to the first."""
    job = Job(data=SMALL, recipe="curriculum-taught", settings="quick", model="small", budget="26step", overrides=STEPS)
    splits = splits_of(job)
    plan = resolve_job(job, splits)
    taught = dataclasses.replace(plan, phases=plan.phases[1:2])
    step = trial_of(taught, splits)(EXACT)
    assert step() > 0 and not asked


def test_the_time_of_asking_a_teacher_is_foreseen(
    asked: list[tuple[Tensor, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted once, however many steps there are, and nobody is asked about all pictures."""
    job = Job(data=SMALL, recipe="curriculum-taught", settings="quick", model="small", budget="26step", overrides=STEPS)
    splits = splits_of(job)
    times = time_plan(resolve_job(job, splits), splits, Hardware(threads=1))
    teach, warm, rest = times.phases
    assert teach.once == rest.once == 0.0 < warm.once < 100 * warm.step and not asked
    assert warm.seconds(20) - warm.seconds(10) == pytest.approx(10 * warm.step)
    monkeypatch.setattr(Stopwatch, "of", lambda self, step: float(step() is not None))  # the few asked take a second
    monkeypatch.setattr(timing, "FEW_PICTURES", 20)
    warm = time_plan(resolve_job(job, splits), splits, Hardware(threads=1)).phases[1]
    assert warm.once == len(splits["main"].train) / 20
    assert PhaseTime(1.0, 0.5, 10.0, 30, once=3.0).seconds(40) == 33.0
    assert PhaseTime.combined([PhaseTime(1.0, once=3.0), PhaseTime(2.0, once=2.0)], min) == PhaseTime(1.0, once=2.0)


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ("{by-score: {teacher: teecher}}", "phase warm, order.teacher: found network 'teecher'; allowed: net, teacher"),
        ("{by-score: {teacher: teacher.features}}", "a teacher is asked for its answers; write teacher"),
        ("{by-score: {teacher: teacher, file: a.csv}}", "write one of them"),
        ("by-score", "write one of them"),
        ("{by-score: {teacher: teacher, column: margin}}", "column is 'margin'; of a teacher allowed: score, entropy"),
        ("{by-delta: {teacher: teacher, minus: a.csv}}", "write one of them"),
        (
            "{by-delta: {teacher: teacher, take: average}}",
            "take: average takes every candidate's step .* leave teacher out",
        ),
    ],
)
def test_teachers_that_cannot_be_asked(order: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(AugendError, match=says):
        train(tmp_path / "run", "curriculum-taught", overrides=(f"warm.order={order}",), **HOW)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_other_classes_is_refused() -> None:
    recipe = {
        "data": {"base": "digits:train=100,valid=20,test=20"},
        "networks": {"other": {"model": "$model", "classes": "base"}},
        "phases": [
            {"name": "teach", "data": "base", "objective": {"cross-entropy": {"of": "other"}}, "train": "other"},
            {"name": "warm", "train": "net", "order": {"by-score": {"teacher": "other"}}},
        ],
    }
    with pytest.raises(AugendError, match="network 'other' answers the classes of role 'base'"):
        check(recipe)


def test_a_bare_loop_gives_the_scores_itself() -> None:
    """A LoopProbe's scores stand for any teacher's."""
    from loops import ROWS, loop

    one, *_ = loop(ByScore(teacher="guide", candidates="all", item="sample"))
    assert one.next(0, ROWS).index[:, 0].tolist() == list(range(ROWS))
    assert one.table is not None and one.table.values is not None
    one.start(8, Draws(0, "again"))  # of other pictures: what the teacher said of the first is forgotten
    assert one.table.values is None
    by_file, by_name = loop(ByDelta(candidates=3, minus="given"))[0], loop(ByDelta(candidates=3, teacher="guide"))[0]
    assert torch.equal(by_file.next(0, ROWS).index, by_name.next(0, ROWS).index)
