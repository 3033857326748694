"""An independent script finds the same numbers in the predictions as results.json and the page's cells have."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from augend.report.page import render
from augend.study.results import write
from fixture_study import DEFAULT, Made, make_study
from recompute import recompute

CASES: dict[str, dict[str, Any]] = {
    "redrawn": {"seed": 1},
    "fixed": {"fixed_test": True, "sizes": (300, 200, 700), "seed": 2},
    "balanced": {"metric": "balanced_accuracy", "skewed": True, "seed": 3},
    "balanced-fixed": {"metric": "balanced_accuracy", "skewed": True, "fixed_test": True, "sizes": (400, 200, 900)},
    "fixed-valid": {"fixed_test": True, "fixed_valid": True, "sizes": (400, 200, 300), "seed": 4},
    "copies": {"seed": 7},
    "one": {"repeats": 1, "seed": 5},
    "partial": {
        "finished": [f"{name}-r{r}" for name, n in zip(DEFAULT, (3, 2, 2, 1), strict=True) for r in range(n)],
        "seed": 6,
    },
}


class Cells(HTMLParser):
    """Recipe -> cell name -> text, of every table row and cell that says what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str]] = {}
        self.recipe: str | None = None
        self.cell: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "tr":
            self.recipe = given.get("data-recipe")
        elif tag in ("td", "th"):
            self.cell = given.get("data-cell")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data: str) -> None:
        if self.recipe and self.cell and data.strip():
            row = self.found.setdefault(self.recipe, {})
            row[self.cell] = row.get(self.cell, "") + data.strip()


def close(found: Any, wanted: Any, where: str) -> None:
    if isinstance(found, dict):
        for key in ("mean", "low", "high", "better", "within", "worse"):
            if key in found:
                close(found[key], wanted[key], f"{where}.{key}")
    elif found is None or wanted is None:
        assert found is wanted, where
    else:
        assert found == pytest.approx(wanted, abs=1e-9), where


def copied(study: Path) -> None:
    """Every five rows of validation and test become rotated copies of one picture."""
    for path in study.glob("trials/*/predictions.npz"):
        rows = dict(np.load(path))
        names = rows["ids"].astype("U40")
        for split in ("valid", "test"):
            chosen = np.flatnonzero(rows["split"] == split)
            for place, row in enumerate(chosen[np.argsort(rows["ids"][chosen])]):
                names[row] = f"{split}-{place // 5}@{15 * (place % 5 - 2):+d}"
        np.savez(path, **{**rows, "ids": names})


def clipped(level: dict[str, Any]) -> dict[str, Any]:
    return {**level, **{end: None if level[end] is None else min(1, max(0, level[end])) for end in ("low", "high")}}


def number(share: float) -> str:
    return f"{100 * share:.1f}"


def signed(share: float) -> str:
    text = f"{100 * share:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


@pytest.mark.parametrize("case", CASES)
def test_every_number_can_be_found_again(tmp_path: Path, case: str) -> None:
    study = make_study(tmp_path / "study", curves=False, **CASES[case])
    if case == "copies":
        copied(study)
    page = render(write(study), {}, study)
    results = json.loads((study / "results.json").read_text())
    again = recompute(study)
    cells = Cells()
    cells.feed(page)
    assert set(results["recipes"]) == set(again) == set(cells.found)
    for name, recipe in results["recipes"].items():
        wanted, shown = again[name], cells.found[name]
        for split, level in {
            **{s: recipe[s] for s in ("valid", "test")},
            "shifted:tilt": recipe["shifted"]["tilt"],
        }.items():
            close(level, clipped(wanted[split]), f"{name} {split}")
            against = level["versus_reference"] if split.startswith("shifted") else recipe["versus_reference"][split]
            theirs = wanted[split]["versus_reference"]
            assert (against is None) == (theirs is None)
            if against is not None:
                close(against, theirs, f"{name} {split} against the reference")
                if against["probabilities"] is not None:
                    close(against["probabilities"], theirs["probabilities"], f"{name} {split} probabilities")
            if split != "valid":  # the page: accuracy with its interval, from the recomputed numbers
                level = clipped(wanted[split])
                text = number(level["mean"])
                if level["low"] is not None:
                    text += f" ({number(level['low'])} to {number(level['high'])})"
                assert shown[split] == text
        theirs = wanted["test"]["versus_reference"]
        if theirs is not None:
            text = signed(theirs["mean"])
            if theirs["low"] is not None:
                text += f" ({signed(theirs['low'])} to {signed(theirs['high'])})"
                three = theirs["probabilities"]
                first, last = round(100 * three["better"]), round(100 * three["worse"])
                assert shown["probabilities"] == f"{first} / {max(0, 100 - first - last)} / {last}"
            assert shown["difference"] == text
        for key in ("accuracy", "balanced_accuracy", "nll", "calibration_error"):
            assert recipe[key] == pytest.approx(wanted[key], abs=1e-6), key
        assert shown["valid"] == number(wanted["valid"]["mean"])
        assert shown["accuracy"] == number(wanted["accuracy"])
        assert shown["balanced_accuracy"] == number(wanted["balanced_accuracy"])
        assert shown["nll"] == f"{wanted['nll']:.3f}"
        assert shown["calibration_error"] == number(wanted["calibration_error"])
        np.testing.assert_allclose(recipe["recall"], wanted["recall"])
    advised = results["advised"]
    np.testing.assert_array_equal(advised["confusion"], again[advised["recipe"]]["confusion"])


def test_a_changed_prediction_changes_the_numbers(tmp_path: Path) -> None:
    """The comparison above would fail if results.json were written from anything but the predictions."""
    study = make_study(tmp_path, {"augmented": Made(0.9), "aug-ft": Made(0.9)}, repeats=2, curves=False)
    before = recompute(study)["aug-ft"]["test"]["mean"]
    path = study / "trials" / "aug-ft-r0" / "predictions.npz"
    rows = dict(np.load(path))
    rows["probabilities"][rows["split"] == "test"] = 0.1
    np.savez(path, **rows)
    assert recompute(study)["aug-ft"]["test"]["mean"] < before - 0.2
    assert len(DEFAULT) == 4
