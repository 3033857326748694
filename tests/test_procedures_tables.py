"""Tables with attacked columns, rows with settings of their own, and the figures of sums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import augend
from augend import AugendError
from augend.evaluate.attacks import fgsm
from augend.pixels import to_float
from augend.recipes.library import known_settings, settings
from augend.report import reproduction
from augend.report.sums import errors
from augend.runner.job import load_splits
from augend.study import reproduce, results
from augend.study.evidence import Evidence, read_record, read_trials
from augend.study.reach import reaches
from augend.study.tables import Table, load_table
from augend.study.trials import run_trial

WORDS: dict[str, Any] = {
    "title": "T",
    "source": "S",
    "settings": "quick",
    "model": "mlp",
    "reference": "augmented",
    "repeats": 2,
    "overrides": ["monitor={every: 4step, batch: 20, norms: [net], objective: cross-entropy}"],
    "attacked": {"attack": "fgsm", "eps": "8/255", "sums": "k=2,weight=1,draws=4", "samples": 2},
    "protocols": {"one": {"about": "A", "data": "digits:train=100,valid=40,test=60", "budget": "12step"}},
    "rows": {
        "augmented": {"as": "baseline", "printed": 0.5, "printed_columns": {"fgsm 8/255, bare model": {"one": 0.25}}},
        "sums": {"as": "sums", "overrides": ["batch=10"], "printed": 0.6, "logged_columns": {"clean, test-time sums": 0.125}},
    },
    "claims": [
        {"says": "sums withstand", "better": "sums", "than": "augmented", "attacked": "fgsm 8/255, bare model"},
        {
            "says": "sums at test time help",
            "better": "sums",
            "than": "sums",
            "attacked": "clean, test-time sums",
            "than_attacked": "clean, bare model",
        },
    ],
    "figures": [
        {"kind": "errors", "name": "gone", "rows": ["sums"], "title": "E"},
        {"kind": "summed", "name": "pictures", "of": [1, 4], "title": "P"},
        {"kind": "coefficients", "name": "coefficients", "of": 4, "title": "C"},
        {"kind": "monitor", "name": "norms", "rows": ["sums"], "value": "norm of net", "label": "norm", "title": "N"},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    patch = pytest.MonkeyPatch()
    table = Table.model_validate(WORDS)
    for module in (reproduce, reproduction):
        patch.setattr(module, "load_table", lambda name: table)
    out = tmp_path_factory.mktemp("tables") / "study"
    study = reproduce.open_reproduction("procedures/test", None, out, command="command")
    for name in study.names:
        assert run_trial(out / "trials" / name, lambda kind, values: None) == "finished"
    results.write(out)
    said = reproduce.gather(out)
    text = reproduction.write(out, said).read_text(encoding="utf-8")
    patch.undo()
    return {**said, "out": out, "text": text, "request": study.request}


def _shares(found: dict[str, Any], row: str, how: Any) -> list[float]:
    """The share of test pictures that are right, for each repeat."""
    shares = []
    for repeat in (0, 1):
        model = augend.load(found["out"] / "trials" / f"{row}-r{repeat}")
        test = load_splits(found["request"].job(row, repeat))["main"].test
        shares.append(float((how(model, to_float(test.pixels), test.labels) == test.labels).float().mean()))
    return shares


def test_attacked_columns_are_what_the_models_answer(found: dict[str, Any]) -> None:
    def attacked(model: torch.nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        moved = fgsm(model, x, labels, 8 / 255)
        with torch.no_grad():
            answers: torch.Tensor = model(moved).argmax(1)
        return answers

    own = {row: _shares(found, row, attacked) for row in ("augmented", "sums")}
    column = "attacked:fgsm 8/255, bare model"
    for row, shares in own.items():
        assert found["rows"][row]["levels"][column]["values"] == pytest.approx(shares)
    claim = found["claims"][0]
    assert claim["split"] == claim["than_split"] == column
    assert claim["difference"]["mean"] == pytest.approx(np.mean(own["sums"]) - np.mean(own["augmented"]))
    assert set(found["columns"].values()) == {
        "test",
        "clean, bare model",
        "clean, test-time sums",
        *(f"fgsm 8/255, {threat}" for threat in ("bare model", "transferred", "adaptive")),
    }


def test_a_row_may_be_compared_with_itself_asked_otherwise(found: dict[str, Any]) -> None:
    claim, levels = found["claims"][1], found["rows"]["sums"]["levels"]
    through, bare = levels["attacked:clean, test-time sums"], levels["attacked:clean, bare model"]
    assert bare["values"] == levels["test"]["values"]  # all test pictures were shown
    differences = np.subtract(through["values"], bare["values"])
    assert claim["difference"]["mean"] == pytest.approx(differences.mean()) and claim["difference"]["repeats"] == 2
    assert claim["at_equal_cost"] is None and claim["flops_ratio"] is None  # asking costs more, and that is not counted


def test_a_page_says_how_rows_were_attacked(found: dict[str, Any]) -> None:
    about, column = found["attacked"], "fgsm 8/255, bare model"
    assert about["of"] == "test" and set(about["rows"]) == set(found["rows"]) and about["asked"]["seed"] == 0
    assert about["procedures"][column] == "1 step of eps" and "clean, bare model" not in about["procedures"]
    for row, one in about["rows"].items():
        levels = found["rows"][row]["levels"]
        clean, left = (levels[f"attacked:{name}"]["mean"] for name in ("clean, bare model", column))
        assert one["blind"] == 0 and one["success"][column]["mean"] == pytest.approx(1 - left / clean, abs=0.05)
    assert f"sums: {about['pictures']} test pictures." in found["text"]
    assert "* fgsm, bare model: 1 step of eps." in found["text"]
    assert "of what is right when clean, wrong under" in found["text"]


def test_a_row_has_settings_of_its_own(found: dict[str, Any]) -> None:
    jobs = {row: found["request"].job(row, 0) for row in ("augmented", "sums")}
    assert "batch=10" in jobs["sums"].overrides and "batch=10" not in jobs["augmented"].overrides


def test_printed_and_logged_numbers_stand_in_their_columns(found: dict[str, Any]) -> None:
    lines = {line.split("|")[1].strip(): line for line in found["text"].splitlines() if line.startswith("| ")}
    assert "; printed 25.0" in lines["baseline"] and "logged" not in lines["baseline"]
    assert "; logged 12.5" in lines["sums"] and "; printed" not in lines["sums"]


def test_how_much_error_is_gone(found: dict[str, Any]) -> None:
    """Figure 3.6: half of an error of 40 points is 20 points."""
    levels = {"augmented": {"test": {"mean": 0.6}}, "sums": {"test": {"mean": 0.8}}}
    versus = {"augmented": {}, "sums": {"test": {"mean": 0.2, "low": 0.1, "high": 0.3, "repeats": 3}}}
    rows = {
        name: {
            "called": name,
            "printed": {"augmented": 0.5, "sums": 0.6}[name],
            "levels": one,
            "versus_reference": versus[name],
        }
        for name, one in levels.items()
    }
    figure = Figure()
    said = errors(
        figure, Path(), {"rows": rows, "reference": "augmented", "headline": "test"}, {"rows": ["sums"], "title": "E"}
    )
    drawn = [list(line.get_xdata()) for line in figure.axes[0].lines]
    for wanted in ([25.0, 75.0], [50.0], [20.0]):
        assert any(xs == pytest.approx(wanted) for xs in drawn if len(xs) == len(wanted)), drawn
    assert "40.0 %" in said and "3 seeds" in said


def test_figures_are_drawn(found: dict[str, Any]) -> None:
    for name, said in {
        "gone": "95 % intervals of the difference",
        "pictures": "rows of 1, 4 pictures of digits",
        "coefficients": "C: those of 4 pictures",
        "norms": "N",
    }.items():
        image = Image.open(found["out"] / "figures" / f"{name}.png")
        colours = image.convert("RGB").getcolors(1 << 20)
        assert colours is not None and len(colours) > 20 and min(image.size) > 80
        assert said in found["text"]


def test_a_mistake_about_attacks_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table.model_validate({**WORDS, "attacked": {"attack": "fgms"}})
    monkeypatch.setattr(reproduce, "load_table", lambda name: table)
    with pytest.raises(AugendError, match="there is no 'fgms'; did you mean 'fgsm'"):
        reproduce.open_reproduction("procedures/test", None, tmp_path / "study", command="")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"claims": [{**WORDS["claims"][0], "attacked": "pgd 8/255, bare model"}]},
            "a claim is about the column 'pgd 8/255, bare",
        ),
        ({"claims": [{**WORDS["claims"][1], "than_attacked": "clean"}]}, "a claim is about the column 'clean'"),
        (
            {"rows": {**WORDS["rows"], "augmented": {"as": "b", "printed_columns": {"fgsm 8/255, bare modl": 0.5}}}},
            "is printed for the column 'fgsm 8/255, bare modl'; did you mean 'fgsm 8/255, bare model'",
        ),
    ],
)
def test_columns_that_are_not_there_are_said_before_training(
    change: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table.model_validate({**WORDS, **change})
    monkeypatch.setattr(reproduce, "load_table", lambda name: table)
    with pytest.raises(AugendError, match=said):
        reproduce.open_reproduction("procedures/test", None, tmp_path / "study", command="")


def test_what_is_not_priced_is_not_claimed(found: dict[str, Any], tmp_path: Path) -> None:
    """Where a row keeps its best weights, its way to the reference's accuracy cannot be compared."""
    assert found["rows"]["sums"]["to_reference"] is not None
    plan = found["out"] / "trials" / "sums-r0" / "plan.json"
    text = plan.read_text()
    record = read_record(found["out"])
    try:
        plan.write_text(text.replace('"keep": "last"', '"keep": "valid/accuracy"'))
        assert reaches(Evidence(record, read_trials(record, test=True))) == {}
    finally:
        plan.write_text(text)


def test_a_paper_of_several_parts_has_several_settings() -> None:
    assert {"procedures/sums", "procedures/sums-full", "procedures/sums-1000"} <= set(known_settings())
    full = settings("procedures/sums-full").words
    assert full.batch == 100 and "cascade.sum8" in full.phases
    asked = load_table("procedures/table-3-1").asked("procedures/table-3-1", "wrn-40-4-100", "paper")
    assert asked.settings == "procedures/sums-1000" and asked.data == "cifar10:train=1000,valid=5000"
