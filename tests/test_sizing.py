"""Seconds become steps: plans are sized so that all cost alike and end in time, and what is left is estimated."""

from __future__ import annotations

import heapq
import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from augend import AugendError
from augend.cli.remaining import Remaining, recipe_of
from augend.data import from_dataset
from augend.data.pictures import Pictures
from augend.recipes import resolve
from augend.recipes.plan import Plan
from augend.runner.hardware import Hardware
from augend.runner.job import Job, load_splits, resolve_job, widened
from augend.runner.timing import PhaseTime, RunTime, time_plan
from augend.stages.pca import Pca
from augend.study import sizing
from augend.study.request import Request, seconds_of
from augend.study.sizing import SAFE, agreed, makespan, measure, size, sized_by
from runs import SMALL, splits_of, train

SIZES = {"main": 200}


def plan(recipe: str, **how: Any) -> Plan:
    facts = {"sizes": SIZES, "traits": {"main": frozenset({"rotate", "crop"})}, "data": "digits", "model": "figure1"}
    return resolve(recipe, split="conv3", budget="1000step", **facts, **how)


PLANS = {"plain": plan("plain"), "augmented": plan("augmented"), "aug-ft": plan("aug-ft")}
TIMES = {
    "plain": RunTime((PhaseTime(0.010),), 1.0, 0.05, 0.5, 40),
    "augmented": RunTime((PhaseTime(0.016),), 1.0, 0.05, 0.5, 40),
    "aug-ft": RunTime((PhaseTime(0.010), PhaseTime(0.014, cached=0.004, fill=2.0, worth=100)), 1.0, 0.05, 0.5, 40),
}
ORDER = [name for _ in range(5) for name in PLANS]


def sized(**how: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "equal": "seconds",
        "seconds": 300.0,
        "reference": "augmented",
        "order": ORDER,
        "workers": 2,
    }
    return size(PLANS, TIMES, dict.fromkeys(PLANS, SIZES), **{**asked, **how})


def test_equal_seconds_end_in_time() -> None:
    found = sized()
    training = [one.training for one in found.values()]
    assert max(training) - min(training) < 0.02  # a step or two
    whole = makespan([found[name].total for name in ORDER], 2)
    assert 0.97 * SAFE * 300 < whole <= SAFE * 300
    assert found["aug-ft"].budget > found["plain"].budget > found["augmented"].budget
    assert sized(seconds=600.0)["plain"].budget > 1.9 * found["plain"].budget
    assert sized(workers=1)["plain"].budget < 0.6 * found["plain"].budget
    assert sized(more=1.0)["plain"].budget < 0.9 * found["plain"].budget


def slower(by: float, **others: float) -> dict[str, RunTime]:
    """`TIMES` on a machine that is that much slower for the moment, as a yardstick says, and unseen by it on some recipes."""
    return {name: replace(one.scaled(by * others.get(name, 1.0)), unit=0.01 * by) for name, one in TIMES.items()}


def test_timings_of_several_moments_keep_what_recipes_cost_beside_one_another() -> None:
    """A machine that others share: a third faster or slower for minutes, or for one recipe, and a stumble."""
    found = agreed([slower(1.0, augmented=1.3), slower(1.4), slower(0.8)])
    steps = {name: [phase.step for phase in one.phases] for name, one in found.items()}
    assert steps["plain"][0] == pytest.approx(0.010) and steps["augmented"][0] == pytest.approx(0.016)
    assert found["aug-ft"].phases[1] == PhaseTime(pytest.approx(0.014), pytest.approx(0.004), pytest.approx(2.0), 100)
    assert found["augmented"].total(PLANS["augmented"]) == pytest.approx(TIMES["augmented"].total(PLANS["augmented"]))
    alone = agreed([slower(1.1)])
    assert alone["aug-ft"].phases == slower(1.1)["aug-ft"].phases
    uneven = agreed([{**slower(1.2), "plain": slower(1.6)["plain"]}])  # once timed only, one of them at a worse moment
    assert uneven["plain"].phases[0].step == pytest.approx(0.012) and uneven["aug-ft"].unit == pytest.approx(0.012)


@pytest.mark.parametrize(
    ("took", "once", "passes"),
    [(1.0, False, 3), (12.0, False, 2), (30.0, False, 1), (1.0, True, 1)],
    ids=["long", "middling", "short", "once"],
)
def test_a_long_study_is_worth_three_timings(
    took: float, once: bool, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of other orders, so that no recipe is always timed beside the same one; in at most 15 % of the study's 130 s."""
    asked: list[list[str]] = []
    clock = [0.0]
    monkeypatch.setattr(sizing, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def time_all(names: Sequence[str], whole: int) -> dict[str, RunTime]:
        asked.append([*names])
        assert whole == (1 if len(asked) == 1 else passes)
        clock[0] += took
        return {name: slower((1.0, 1.5, 0.7)[len(asked) - 1])[name] for name in names}

    def size_all(times: Mapping[str, RunTime]) -> dict[str, Any]:
        return size(
            PLANS, times, dict.fromkeys(PLANS, SIZES), equal="seconds", reference="augmented", order=ORDER,
            workers=2, seconds=None,
        )  # fmt: skip

    found = sized_by(time_all, size_all, order=ORDER, workers=2, once=once)
    assert len(asked) == passes == len({tuple(names) for names in asked})
    assert all(sorted(names) == sorted(PLANS) for names in asked)
    usual = 1.25 if passes == 2 else 1.0
    assert found["plain"].budget == 1600 and found["plain"].training == pytest.approx(16.0 * usual)


def test_equal_steps_and_flops() -> None:
    steps = {one.budget for one in sized(equal="steps").values()}
    assert len(steps) == 1
    flops = {"plain": [10], "augmented": [10], "aug-ft": [10, 5]}
    found = sized(equal="flops", flops=flops)
    assert found["plain"].budget == found["augmented"].budget
    assert found["aug-ft"].budget == pytest.approx(found["plain"].budget * 10 / 7.5, rel=1e-3)


def test_without_a_promise_the_reference_keeps_its_budget() -> None:
    found = sized(seconds=None)
    assert found["augmented"].budget == 1000
    assert found["plain"].budget == 1600 and found["plain"].training == pytest.approx(16.0)


def test_what_takes_fixed_steps_keeps_them() -> None:
    fixed = {"plain": plan("plain", overrides=["plain.until=70step"])}
    found = size(
        fixed, TIMES, {"plain": SIZES}, equal="seconds", reference="plain", order=["plain"], workers=1, seconds=60.0
    )  # fmt: skip
    assert found["plain"].budget is None and found["plain"].training == pytest.approx(0.7)


def test_too_little_time_gives_every_phase_a_step() -> None:
    assert all(one.budget >= 1 for one in sized(seconds=0.1).values())
    assert sized(seconds=0.1)["aug-ft"].budget >= 2


def test_a_long_phase_of_a_fixed_length_costs_more_and_it_is_said() -> None:
    """Three epochs of dear steps take more than all shall cost: a step is left for the rest, and the share says how much."""
    dear = {**PLANS, "loss-delta": plan("loss-delta")}
    times = {**TIMES, "loss-delta": RunTime((PhaseTime(2.0), PhaseTime(0.016)), 1.0, 0.05, 0.5, 40)}
    held = {**dict.fromkeys(PLANS, SIZES), "loss-delta": {"main": 180}}
    found = size(
        dear, times, held, equal="seconds", reference="augmented", order=[], workers=1, seconds=None
    )  # fmt: skip
    warm = 3 * -(-180 // 32)
    assert found["loss-delta"].budget == pytest.approx(warm + 1, abs=1)
    assert (
        found["loss-delta"].share == pytest.approx(found["loss-delta"].training / 16.0)
        and found["loss-delta"].share > 1.1
    )
    assert found["plain"].share == pytest.approx(1.0, abs=1e-3) and found["augmented"].share == 1.0


def test_what_is_held_out_changes_no_network_and_no_budget() -> None:
    """A recipe that holds pictures out, and a last model that has more of them, train what the study's other trials train."""
    edge = "digits:train=1000,valid=200,test=200"  # 900 of them left, 1,200 with those that validate
    how: dict[str, Any] = {"data": edge, "settings": "good-practice", "budget": "10epoch"}
    jobs = [
        Job(recipe="augmented", **how),
        Job(recipe="loss-delta", **how),
        Job(recipe="loss-delta", leaks=True, **how),  # of the test pictures, so none is missing from the others
        Job(recipe="augmented", refit="trainval", **how),
    ]
    plans = []
    for job in jobs:
        splits = load_splits(job)
        plans.append(resolve_job(job, splits))
    assert [plan.budget for plan in plans] == [plans[0].budget] * 4
    assert [len(load_splits(job)["main"].train) for job in jobs] == [1000, 900, 1000, 1200]


@pytest.mark.parametrize(
    ("pictures", "model", "batch"), [(5000, "preresnet", 64), (2000, "small", 64), (1999, "small", 32)]
)
def test_the_choice_is_by_the_pictures_of_the_study(pictures: int, model: str, batch: int) -> None:
    """At the edges where another network or batch is chosen, neither fewer pictures held out nor more choose another one."""
    made = [
        Pictures(torch.zeros(n, 3, 8, 8, dtype=torch.uint8), torch.arange(n) % 10, tuple(f"{n}/{i}" for i in range(n)))
        for n in (pictures, 400)
    ]
    split = from_dataset(*made)
    found = []
    for refit, main in (
        ("train", split),
        ("train", split.hold({"external": 0.1})),
        ("trainval", widened(split, "trainval")),
    ):
        plan = resolve_job(Job(data="own", recipe="augmented", refit=refit), {"main": main})
        found.append((plan.networks["net"].model.word, plan.phases[0].rows))
    assert found == [(model, batch)] * 3


BEST = "{best: valid/accuracy}"


@pytest.mark.parametrize(("recipe", "keep"), [("plain", "last"), ("plain", BEST), ("sums", BEST)])
def test_looks_at_validation_are_foreseen(recipe: str, keep: str, tmp_path: Path) -> None:
    """As many as a run takes, one in as many rows as there are pictures where the best is kept."""
    how: dict[str, Any] = {"settings": "quick", "overrides": ("batch=20", f"plain.keep={keep}"), "budget": "60step"}
    train(tmp_path / "run", recipe, **how)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    job = Job(data=SMALL, recipe=recipe, **how)
    splits = splits_of(job)
    seconds = RunTime((PhaseTime(0.0),), 0.0, 1.0, 0.0, len(splits["main"].valid), (len(splits["main"].train),))
    taken = sum(line["kind"] == "valid" for line in lines)
    assert seconds.total(resolve_job(job, splits)) == pytest.approx(taken, abs=1.01) and (keep == "last") == (taken > 6)


def test_a_cache_that_does_not_pay_is_not_filled() -> None:
    timed = TIMES["aug-ft"].phases[1]
    assert timed.seconds(100) == pytest.approx(1.4) and timed.seconds(101) == pytest.approx(2.404)
    assert PhaseTime(0.0, 0.0, 7.0, worth=-1).seconds(0) == 7.0  # a closed form takes no steps
    assert RunTime.from_json(TIMES["aug-ft"].to_json()) == TIMES["aug-ft"]


@pytest.mark.parametrize("recipe", ["plain", "aug-ft"])
def test_timing_is_of_real_steps(recipe: str, tmp_path: Path) -> None:
    """Timed steps against a run's own ledger; other processes may be running here, so only the order of size counts."""
    from augend.runner.folder import RunFolder
    from augend.runner.job import start

    job = Job(data=SMALL, recipe=recipe, budget="200step", overrides=("pixels=tilt-5",))
    splits, hardware = load_splits(job), Hardware(threads=1)
    made = resolve_job(job, splits)
    found = time_plan(made, splits, hardware)
    assert len(found.phases) == len(made.phases)
    if recipe == "aug-ft":
        pairs = [(found.phases[1].cached, found.phases[1].step)]
        while pairs[-1][0] is not None and pairs[-1][0] >= pairs[-1][1] and len(pairs) < 5:  # somebody else was busy
            again = time_plan(made, splits, hardware).phases[1]
            pairs.append((again.cached, again.step))
        assert pairs[-1][0] is not None and pairs[-1][0] < pairs[-1][1], pairs
        assert found.phases[1].fill > 0 and found.phases[1].worth == 200 * 5 // made.phases[1].rows
    pairs = []
    for number in range(5):  # likewise
        result = start(job, RunFolder(tmp_path / str(number)), hardware, splits=splits)
        used = sum(v for part, v in result["ledger"]["seconds"].items() if part != "evaluation")
        pairs.append((found.training(made), used))
        if pairs[-1][0] == pytest.approx(used, rel=0.6):
            break
        found = time_plan(made, splits, hardware)
    assert pairs[-1][0] == pytest.approx(pairs[-1][1], rel=0.6), pairs


def test_principal_components_are_timed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """On made-up rows, as wide as the pictures are."""
    job = Job(data=SMALL, recipe="pca-then-classify", settings="quick", budget="40step")
    splits = load_splits(job)
    made, asked = resolve_job(job, splits), list[tuple[tuple[int, ...], int]]()
    fit = Pca.fit

    def slow(self: Pca, rows: Tensor, components: int) -> Pca:
        asked.append((tuple(rows.shape), components))
        time.sleep(1.0)
        return fit(self, rows, components)

    monkeypatch.setattr(Pca, "fit", slow)
    found = time_plan(made, splits, Hardware(threads=1)).phases[0]
    (shape, components), *more = asked
    assert not more and components == 128 and shape[1] == 28 * 28
    assert 1.0 <= found.fill * shape[0] / len(splits["main"].train) < 2.0 and found.worth == -1


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({"time": "soon"}, "90s, 30min or 2h"),
        ({"time": "0min"}, "90s, 30min or 2h"),
        ({"time": "1h", "budget": "100step"}, "give one of them"),
        ({"equal": "pictures"}, "steps, seconds, flops"),
        ({"refit": "test"}, "train, trainval, all"),
        ({"tune": 2}, "3 or more"),
        ({"repeats": 0}, "1 or more"),
        ({"margin": 0.0}, "--margin is 0; it is a number of points above 0 and below 100"),
        ({"margin": 1.0}, "--margin is 100;"),
        ({"margin": -0.01}, "--margin is -1;"),
        ({"margin": float("nan")}, "--margin is nan;"),
        ({"margin": float("inf")}, "--margin is inf;"),
    ],
)
def test_a_request_is_checked(given: Mapping[str, Any], fragment: str) -> None:
    with pytest.raises(AugendError, match=re.escape(fragment)):
        Request(**given)


def test_lengths_of_time() -> None:
    assert [seconds_of(text) for text in ("45s", "1.5 min", "2h", "1d")] == [45, 90, 7200, 86400]


def test_recipes_of_trials() -> None:
    names = ("aug-ft-r3", "refit/aug-ft", "tuning/aug-ft-0.01", "tuning/aug-ft-3.33e-05", "tuning/aug-ft-1e-06")
    assert [recipe_of(name) for name in names] == ["aug-ft"] * 5
    assert recipe_of("tuning/cascade-1-0.003") == "cascade-1"


def simulated(
    predicted: Mapping[str, float], work: Mapping[str, float] | None = None
) -> list[tuple[float, float | None]]:
    """(time, what was estimated to be left) of a study of two recipes on two workers, every trial taking what it takes."""
    took, steps = {"cheap": 10.0, "dear": 25.0}, {"cheap": 100, "dear": 100}
    trials = [f"{name}-r{repeat}" for repeat in range(4) for name in took]
    now = [0.0]
    left = Remaining(trials, steps, 2, predicted, work or {}, clock=lambda: now[0])
    events: list[tuple[float, int, dict[str, Any]]] = []
    count = itertools.count()
    free = [0.0, 0.0]
    for trial in trials:
        begin = heapq.heappop(free)
        seconds = took[recipe_of(trial)]
        for part in range(1, 11):
            line = {"trial": trial, "kind": "line", "global_step": 10 * part}
            events.append((begin + seconds * (part - 0.9) / 10, next(count), line))
        events.append((begin + seconds, next(count), {"trial": trial, "kind": "ended", "state": "finished"}))
        heapq.heappush(free, begin + seconds)
    said = []
    for moment, _, event in sorted(events, key=lambda one: one[:2]):
        now[0] = moment
        left.hear(event)
        said.append((moment, left.seconds()))
    return said


@pytest.mark.parametrize("predicted", [{}, {"cheap": 8.0, "dear": 20.0}])
def test_the_end_is_estimated_after_the_first_repeat(predicted: dict[str, float]) -> None:
    said = simulated(predicted)
    end = said[-1][0]
    for moment, left in said:
        if moment >= 35.0:  # both recipes have ended once
            assert left is not None and moment + left == pytest.approx(end, rel=0.1), moment
    if predicted:
        first = next(left for moment, left in said if left is not None)
        assert first == pytest.approx(end, rel=0.3)


def test_work_tells_dear_recipes_before_they_have_ended() -> None:
    """Once a cheap one has, where both take equally many steps: by these alone, half of what is left is not foreseen."""
    said, by_steps = (
        [left for left in found if 10 <= left[0] < 20]
        for found in (simulated({}, {"cheap": 4e9, "dear": 1e10}), simulated({}))
    )
    assert said and all(left is not None and moment + left == pytest.approx(80, rel=0.02) for moment, left in said)
    assert any(left is not None and moment + left < 60 for moment, left in by_steps)


def test_a_makespan() -> None:
    assert makespan([3, 1, 1, 2], 2) == 4 and makespan([5.0], 3) == 5


def test_a_trial_that_is_resumed_is_no_short_one() -> None:
    """Its last fifth says how long all of one takes, and of itself no more than that fifth is left."""
    now = [0.0]
    left = Remaining(["plain-r0", "plain-r1"], {"plain": 100}, 1, clock=lambda: now[0])
    left.hear({"trial": "plain-r0", "kind": "phase", "global_step": 80})
    assert left.seconds() is None  # what it did before says nothing about now
    now[0] = 2.0
    left.hear({"trial": "plain-r0", "kind": "line", "global_step": 90})
    assert left.each("plain") == pytest.approx(20.0)
    assert left.seconds() == pytest.approx(2.0 + 20.0)
    now[0] = 4.0
    left.hear({"trial": "plain-r0", "kind": "phase", "global_step": 100})  # another phase is no resumption
    left.hear({"trial": "plain-r0", "kind": "ended", "state": "finished"})
    assert left.each("plain") == pytest.approx(20.0) and left.seconds() == pytest.approx(20.0)


def test_recipes_are_timed_against_the_reference() -> None:
    """In processes of their own, side by side: what is timed against itself takes one of its steps, however busy it is."""
    how: dict[str, Any] = {"data": SMALL, "model": "small", "budget": "60step"}
    jobs = {"augmented": Job(recipe="augmented", **how), "sums": Job(recipe="sums", **how)}
    told: list[int] = []
    found = measure(jobs, Hardware(threads=1), 2, told.append, against=jobs["augmented"])
    alone = measure({"augmented": jobs["augmented"]}, Hardware(threads=1), 1)
    assert told == [1, 2] and all(0 < one.unit < 1 for one in found.values()) and alone["augmented"].unit == 1.0
    assert found["augmented"].phases[0].step / found["augmented"].unit == pytest.approx(1.0, abs=0.15)
    assert [len(one.phases) for one in found.values()] == [
        len(resolve_job(j, splits_of(j)).phases) for j in jobs.values()
    ]


def test_a_reference_without_flexible_phases_keeps_its_length() -> None:
    """Such as a probe, which takes no steps: no budget of 0 steps is made of that."""
    fixed = {**PLANS, "augmented": plan("augmented", overrides=["plain.until=70step"])}
    asked: dict[str, Any] = {
        "equal": "seconds",
        "seconds": None,
        "reference": "augmented",
        "order": ORDER,
        "workers": 2,
    }
    found = size(fixed, TIMES, dict.fromkeys(fixed, SIZES), **asked)
    assert found["augmented"].budget is None and found["plain"].budget == 112  # 70 steps of 16 ms in ones of 10 ms
