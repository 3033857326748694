"""A table's further columns: peers of a run, shifted test pictures, rows with poorer data; and the figures drawn of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import augend
from augend.report import reproduction
from augend.report.shifts import views
from augend.runner.job import load_splits
from augend.study import reproduce
from augend.study.evidence import read_rows
from augend.study.shifted import features_of_views
from augend.study.tables import Table
from augend.study.trials import run_trial

SHIFTS = "vflip,brightness"
TABLE = Table.model_validate(
    {
        "title": "T",
        "source": "S",
        "settings": "quick",
        "model": "figure1",
        "reference": "augmented",
        "repeats": 2,
        "shifts": SHIFTS,
        "protocols": {
            "one": {
                "about": "A",
                "data": "digits:train=100,valid=40,test=60",
                "budget": "12step",
                "overrides": ["peer=small"],
                "columns": {"test": "first", "peer/test": "second"},
            }
        },
        "rows": {
            "augmented": {"as": "baseline", "logged": {"one": 0.5}},
            "multi-ait": {"as": "peers"},
            "ait": {"as": "AIT on half", "fraction": 0.5, "flops": "augmented"},
        },
        "claims": [
            {"says": "peers help", "better": "multi-ait", "than": "augmented"},
            {"says": "peers help under a flip", "better": "multi-ait", "than": "augmented", "shift": "vflip"},
        ],
        "figures": [
            {
                "kind": "levels",
                "name": "along",
                "along": [1, 2],
                "label": "x",
                "lines": {"all": ["augmented", "ait"]},
                "title": "L",
            },
            {
                "kind": "levels",
                "name": "words",
                "along": ["a", "b"],
                "label": "x",
                "lines": {"all": ["augmented", "ait"]},
                "baseline": "multi-ait",
                "title": "W",
            },
            {"kind": "variation", "name": "apart", "rows": ["augmented", "ait"], "title": "V"},
            {"kind": "views", "name": "views", "rows": ["augmented", "multi-ait"], "title": "P"},
        ],
    }
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    patch = pytest.MonkeyPatch()
    for module in (reproduce, reproduction):
        patch.setattr(module, "load_table", lambda name: TABLE)
    out = tmp_path_factory.mktemp("tables") / "study"
    study = reproduce.open_reproduction("invariance/test", None, out, command="command")
    for name in study.names:
        assert run_trial(out / "trials" / name, lambda kind, values: None) == "finished"
    from augend.study import results

    results.write(out)
    said = reproduce.gather(out)
    text = reproduction.write(out, said).read_text(encoding="utf-8")
    patch.undo()
    return {**said, "out": out, "text": text, "request": study.request}


def _right(path: Path, split: str) -> np.ndarray[Any, Any]:
    rows = read_rows(path)
    chosen = rows["split"] == split
    right: np.ndarray[Any, Any] = rows["probabilities"][chosen].argmax(1) == rows["labels"][chosen]
    return right


def test_a_peer_has_a_column_of_its_own(found: dict[str, Any]) -> None:
    level = found["rows"]["multi-ait"]["levels"]["peer/test"]
    own = [_right(found["out"] / "trials" / f"multi-ait-r{r}" / "predictions-peer.npz", "test").mean() for r in (0, 1)]
    assert level["values"] == pytest.approx(own) and level["mean"] == pytest.approx(np.mean(own))
    assert "peer/test" not in found["rows"]["augmented"]["levels"]
    assert found["columns"] == {
        "test": "first",
        "peer/test": "second",
        "under:vflip": "vflip",
        "under:brightness": "brightness",
    }
    assert "| second |" in found["text"] and found["rows"]["augmented"]["logged"] == 0.5


def test_claims_may_be_about_shifted_pictures(found: dict[str, Any]) -> None:
    """The difference under a flip, by hand from the models."""
    differences = []
    for repeat in (0, 1):
        shares = []
        for row in ("multi-ait", "augmented"):
            folder = found["out"] / "trials" / f"{row}-r{repeat}"
            test = load_splits(found["request"].job(row, repeat))["main"].test
            model = augend.load(folder)
            shares.append(float((model.probabilities(test.pixels.flip(-2)).argmax(1) == test.labels).float().mean()))
        differences.append(shares[0] - shares[1])
    claim = found["claims"][1]
    assert claim["split"] == "under:vflip" and claim["difference"]["mean"] == pytest.approx(np.mean(differences))
    kept = found["rows"]["augmented"]["levels"]["test"]["values"]
    assert kept == pytest.approx(
        [_right(found["out"] / "trials" / f"augmented-r{r}" / "predictions.npz", "test").mean() for r in (0, 1)]
    )


def test_rows_may_have_poorer_data_and_cost_the_same(found: dict[str, Any]) -> None:
    sizes = {
        row: int((read_rows(found["out"] / "trials" / f"{row}-r0" / "predictions.npz")["split"] == "train").sum())
        for row in found["rows"]
    }
    assert sizes == {"augmented": 100, "multi-ait": 100, "ait": 50}
    assert found["rows"]["ait"]["flops"] == pytest.approx(found["rows"]["augmented"]["flops"], rel=0.1)
    assert found["rows"]["ait"]["steps"] == 6


def test_what_was_seen_is_kept(found: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "load_table", lambda name: TABLE)
    monkeypatch.setattr("augend.study.shifted.look", None)  # nobody looks again
    again = reproduce.gather(found["out"])
    assert again["rows"] == found["rows"] and again["claims"] == found["claims"]


def test_figures_are_drawn(found: dict[str, Any]) -> None:
    for name, said in {
        "along": "L: means of 2 seeds",
        "words": "W: means",
        "apart": "95 % intervals over 2 seeds",
        "views": "P (crops",
    }.items():
        image = Image.open(found["out"] / "figures" / f"{name}.png")
        colours = image.convert("RGB").getcolors(1 << 20)
        assert colours is not None and len(colours) > 20 and min(image.size) > 150
        assert said in found["text"]
    variation = found["rows"]["augmented"]["variation"]
    assert set(variation) == {"original, vflip", "original, brightness", "vflip, brightness"}
    assert all(one["kl"]["mean"] > 0 and one["features"]["mean"] > 0 for one in variation.values())


def test_rows_that_were_left_out_are_not_drawn(found: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    assert views(Figure(), found["out"], found, {"rows": ["nobody"], "title": "P"}) == ""


def test_views_are_of_the_first_test_pictures(found: dict[str, Any]) -> None:
    folder = found["out"] / "trials" / "augmented-r0"
    features = features_of_views(folder, 5, 4, {})
    assert features is not None and features.shape[:2] == (5, 4) and features.dtype == np.float32
    assert (features.std(axis=1).max(axis=1) > 0).all()  # views differ
