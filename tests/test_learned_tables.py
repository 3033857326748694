"""The learned-augmentation paper's tables: their rows are what they say, and top-5 and loss are those of the predictions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from augend.recipes import check, resolve
from augend.report.reproduction import markdown
from augend.study.reproduce import _measured
from augend.study.tables import load_table, recipe_text
from inprocess import run

TABLES = ("learned/figure-5", "learned/figure-5-authors", "learned/augmentation")


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_a_sound_recipe(name: str) -> None:
    table = load_table(name)
    for row in table.rows:
        params = {"vae": "x"} if row.startswith("through") else None
        check(recipe_text("learned", row), table.settings, params=params, budget="50000step")
    assert {"smoke", "cpu", "paper"} == set(table.scales)


def test_the_paper_s_lengths_and_the_code_s_weight() -> None:
    facts: dict[str, Any] = {"sizes": {"main": 6400}, "traits": {"main": frozenset()}, "data": "x", "model": "small"}
    plan = resolve("denoise-then-classify", "learned", **facts)
    assert [phase.steps for phase in plan.phases] == [100 * 100, 40 * 100] and plan.phases[0].rows == 64
    assert plan.phases[0].optimizer.options["lr"] == 1e-4 and plan.phases[0].terms[1].weight == 1
    assert load_table("learned/figure-5-authors").scales["paper"].overrides == ("beta=2e-5",)
    slipped = resolve("denoise-authors", "learned", overrides=["beta=2e-5"], **facts)
    assert slipped.phases[0].terms[1].weight == 2e-5 and str(slipped.networks["net"].input) == "vae.slipped"
    assert [str(part) for part in slipped.phases[1].train] == ["net", "vae[norms]"] and slipped.phases[1].cache is False


def test_measures_are_of_the_test_predictions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    trials = {}
    for repeat in (0, 1):
        p = rng.dirichlet(np.ones(8), 30).astype(np.float32)
        labels, split = rng.integers(0, 8, 30), np.array(["test"] * 20 + ["valid"] * 10)
        folder = tmp_path / str(repeat)
        folder.mkdir()
        np.savez(folder / "predictions.npz", labels=labels, probabilities=p, split=split)
        trials["row", repeat] = SimpleNamespace(folder=folder, p=p[:20], labels=labels[:20])
    evidence: Any = SimpleNamespace(trials=trials, repeats=lambda row: [0, 1])
    five = [
        np.mean([label in np.argsort(-p)[:5] for p, label in zip(t.p, t.labels, strict=True)]) for t in trials.values()
    ]
    loss = [-np.log(t.p[np.arange(20), t.labels]).mean() for t in trials.values()]
    assert _measured(evidence, "row", "top-5")["mean"] == pytest.approx(np.mean(five))
    assert _measured(evidence, "row", "loss")["mean"] == pytest.approx(np.mean(loss), rel=1e-5)
    assert _measured(evidence, "row", "top-5")["high"] <= 1


@pytest.mark.slow
def test_figure_5_runs(tmp_path: Path) -> None:
    done = run("reproduce", "learned/figure-5", "--scale", "smoke", "--out", str(tmp_path / "study"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "study" / "reproduction.json").read_text())
    assert "| top-5 | loss |" in markdown(found) and "score of vae" in markdown(found)
