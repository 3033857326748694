"""Seconds of orders that score: those of scoring are part of what a step is said to take, whenever it is done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from augend.runner import stopwatch, timing
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job
from augend.runner.outputs import Phase
from runs import SMALL, splits_of

# Of ten batches an epoch: forwards a step, its own among them, the mean over the epoch.
FORWARDS = {
    "random-scores": 1.0,
    "sampled": 1.0,
    "loss-ascending-epoch": 1 + 1.0,
    "loss-ascending": 8 + 1.0,
    "loss-ascending:all": 5.5 + 1.0,
    "loss-ascending:pictures": 5.5 + 1.0,
    "loss-sampled": 8 + 1.0,
    "loss-delta-same": 2 * 5.2 + 1.0,
    "loss-delta-step": 2 * 5.2,
    "loss-delta-average": 5.2,
}
OPTIONS = {
    "all": "{by-loss: {candidates: all}}",
    "pictures": "{by-loss: {candidates: all, item: sample}}",
}


@pytest.fixture(autouse=True)
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that a forward moves by a second, and nothing else."""
    clock, forward = [0.0], Phase.forward

    def ticking(self: Phase, *given: Any) -> Any:
        clock[0] += 1.0
        return forward(self, *given)

    monkeypatch.setattr(Phase, "forward", ticking)
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    for name in ("PHASE_SECONDS", "SHORT_SECONDS"):
        monkeypatch.setattr(stopwatch, name, 0.0)


def _steps(recipe: str, *overrides: str) -> list[float]:
    job = Job(data=SMALL, recipe=recipe, settings="quick", budget="60step", overrides=("batch=20", *overrides))
    splits = splits_of(job)
    found = timing.time_plan(resolve_job(job, splits), splits, Hardware(threads=1))
    return [phase.step for phase in found.phases]


@pytest.mark.parametrize("name", FORWARDS)
def test_a_step_takes_its_scoring(name: str) -> None:
    recipe, _, option = name.partition(":")
    assert _steps(recipe, *([f"warm.order={OPTIONS[option]}"] if option else ())) == pytest.approx([FORWARDS[name], 1])


def test_many_items_are_timed_by_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done once, the loss of the held-out pictures before, is not multiplied with the items that are left out."""
    monkeypatch.setattr(timing, "ITEMS", 2)
    warm, _ = _steps("loss-delta", "warm.order={by-delta: {candidates: 8, against: external, draw: 20}}")
    items = (8 + sum(range(1, 9))) / 9  # nine batches an epoch: a tenth of the pictures is held out
    assert warm == pytest.approx(2 * items + 1 + 1)
