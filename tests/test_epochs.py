"""Validation accuracy after each epoch: read at the ends of epochs, paired by seed, beside what a paper printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augend.contract import AugendError
from augend.recipes.reading import Place
from augend.recipes.schema import checked
from augend.report import reproduction
from augend.runner import curve
from augend.runner.job import Job, load_splits, resolve_job
from augend.study import reproduce, results
from augend.study.tables import Table, load_table
from augend.study.trials import run_trial
from runs import SMALL, train

WORDS: dict[str, Any] = {
    "title": "T",
    "source": "S",
    "settings": "quick",
    "model": "mlp",
    "reference": "plain",
    "repeats": 3,
    "overrides": ["batch=30"],
    "epochs": {"printed_in": ["one"], "rows": {"plain": [0.25, 0.5, 0.75], "augmented": []}},
    "protocols": {
        "one": {"about": "A", "data": SMALL, "budget": "3epoch"},
        "two": {"about": "B", "data": SMALL, "budget": "21step"},
    },
    "rows": {"plain": {"as": "P"}, "augmented": {"as": "A", "repeats": 2}},
    "claims": [
        {"says": "ahead", "better": "augmented", "than": "plain", "after": 2},
        {"says": "ahead later", "better": "augmented", "than": "plain", "after": 9},
    ],
}


def run_table(patch: pytest.MonkeyPatch, out: Path, protocol: str) -> tuple[dict[str, Any], str]:
    table = Table.model_validate(WORDS)
    for module in (reproduce, reproduction):
        patch.setattr(module, "load_table", lambda name: table)
    study = reproduce.open_reproduction("procedures/test", protocol, out, command="command")
    for name in study.names:
        assert run_trial(out / "trials" / name, lambda kind, values: None) == "finished"
    results.write(out)
    said = reproduce.gather(out)
    return said, reproduction.write(out, said).read_text(encoding="utf-8")


def points(out: Path, row: str, repeat: int) -> dict[int, float]:
    lines = (out / "trials" / f"{row}-r{repeat}" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["global_step"]: line["accuracy"] for line in map(json.loads, lines) if line["kind"] == "valid"}


def test_a_table_by_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 pictures in batches of 30: 6.67 steps an epoch, which ends after steps 7, 14 and 20."""
    found, text = run_table(monkeypatch, tmp_path / "one", "one")
    own = {row: [points(tmp_path / "one", row, r) for r in range(n)] for row, n in (("plain", 3), ("augmented", 2))}
    for row, curves in own.items():
        levels = found["by_epoch"][row]["levels"]
        assert [one["mean"] for one in levels] == [
            pytest.approx(np.mean([of_it[end] for of_it in curves])) for end in (7, 14, 20)
        ]
        assert {one["repeats"] for one in levels} == {len(curves)}
    versus = found["by_epoch"]["augmented"]["versus"]
    apart = [b[14] - a[14] for a, b in zip(own["plain"], own["augmented"], strict=False)]
    assert versus[1]["mean"] == pytest.approx(np.mean(apart)) and versus[1]["repeats"] == 2
    spread = np.std(apart, ddof=1) * np.sqrt(1 / 2 + 40 / 200)  # redrawn validation pictures, Nadeau and Bengio
    half = 12.7062 * max(float(spread), 1 / 40)  # t of one degree of freedom; no surer than one picture
    assert versus[1]["high"] == pytest.approx(min(1.0, np.mean(apart) + half), abs=1e-4)
    assert found["by_epoch"]["plain"]["versus"] == []
    (claim,) = found["claims"]  # there is no ninth epoch to say anything about
    assert claim["difference"] == pytest.approx(versus[1]) and claim["at_equal_cost"] is None
    for said in ("| 2 | ", "; printed 50.0 |", "(n = 3, 2)", "Points against P after each epoch", "| epoch | A |"):
        assert said in text, said


def test_where_a_budget_is_in_steps_nothing_is_said_of_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, text = run_table(monkeypatch, tmp_path / "two", "two")
    assert found["by_epoch"] == {} and "after each epoch" not in text and found["claims"] == []
    assert found["printed_by_epoch"] == {}


@pytest.mark.parametrize(
    ("budget", "epochs", "count"), [("3epoch", 3, 9), ("20step", None, 8), ("1.5epoch", None, 8), ("50epoch", 50, None)]
)
def test_points_fall_on_the_ends_of_epochs(budget: str, epochs: int | None, count: int | None) -> None:
    job = Job(data=SMALL, recipe="augmented", settings="quick", model="mlp", budget=budget, overrides=("batch=30",))
    splits = load_splits(job)
    plan = resolve_job(job, splits)
    assert plan.epochs == epochs
    assert count is None or curve.points(plan, 40) == count
    if epochs == 50:  # more than a curve has points: as many as without
        assert curve.points(plan, 40) <= curve.POINTS


def test_every_end_is_in_the_curve(tmp_path: Path) -> None:
    how: dict[str, Any] = {"settings": "quick", "model": "mlp", "overrides": ("batch=30",)}
    train(tmp_path / "run", "random-scores", budget="7epoch", **how)
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    steps = {line["global_step"] for line in lines if line["kind"] == "valid"}
    assert {-(-epoch * 47 // 7) for epoch in range(1, 8)} <= steps  # 1,400 pictures in 47 steps


def test_a_claim_after_an_epoch_is_about_rows_of_that_table() -> None:
    words = {**WORDS, "epochs": {"rows": {"plain": []}}}
    with pytest.raises(AugendError, match="a claim is about epoch 2; its rows must be among the table's `epochs`"):
        checked(Table, words, Place("t"))
    with pytest.raises(AugendError, match="found row 'plian'"):
        checked(Table, {**WORDS, "epochs": {"rows": {"plian": []}}}, Place("t"))


@pytest.mark.parametrize("number", [2, 3, 4])
def test_tables_of_chapter_2_have_what_is_printed(number: int) -> None:
    table = load_table(f"procedures/table-2-{number}")
    for row, printed in table.epochs.rows.items():
        assert len(printed) == 10 and all(0.3 < one < 0.9 for one in printed)
        for protocol in table.epochs.printed_in:
            last = table.rows[row].printed_in(protocol)
            assert last is None or last == printed[-1]
    assert table.epochs.printed("small") == {}
