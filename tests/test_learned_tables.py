"""The learned-augmentation paper's tables: their rows are what they say, and top-5 and loss are those of the predictions."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from augend import AugendError
from augend.recipes import check, resolve
from augend.recipes.reading import Place, parse
from augend.recipes.schema import checked
from augend.report.reproduction import markdown
from augend.study.columns import chosen_by_validation, measured
from augend.study.decoded import decoded
from augend.study.statistics import Estimate, mean_of
from augend.study.tables import Choice, Table, load_table, recipe_text, table_text
from inprocess import run

TABLES = ("learned/figure-5", "learned/figure-5-authors", "learned/augmentation", "learned/beta")


@pytest.mark.parametrize("name", TABLES)
def test_every_row_is_a_sound_recipe(name: str) -> None:
    table = load_table(name)
    for row in table.rows:
        check(recipe_text("learned", row), table.settings, budget="50000step")
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
        ids = np.array([str(number) for number in range(30)])
        np.savez(folder / "predictions.npz", ids=ids, labels=labels, probabilities=p, split=split)
        trials["row", repeat] = SimpleNamespace(folder=folder, p=p[:20], labels=labels[:20])
    evidence: Any = SimpleNamespace(trials=trials, repeats=lambda row: [0, 1])
    five = [
        np.mean([label in np.argsort(-p)[:5] for p, label in zip(t.p, t.labels, strict=True)]) for t in trials.values()
    ]
    loss = [-np.log(t.p[np.arange(20), t.labels]).mean() for t in trials.values()]
    assert measured(evidence, "row", "top-5")["mean"] == pytest.approx(np.mean(five))
    assert measured(evidence, "row", "loss")["mean"] == pytest.approx(np.mean(loss), rel=1e-5)
    assert measured(evidence, "row", "top-5")["high"] <= 1


def test_terms_as_they_last_were_in_training(tmp_path: Path) -> None:
    for repeat, last in enumerate((3.0, 5.0)):
        (tmp_path / str(repeat)).mkdir()
        lines = [
            {"kind": "train", "phase": "denoise", "loss": 9, "gaussian-kl": 7.0},
            {"kind": "train", "phase": "denoise", "loss": 9, "gaussian-kl": last},
            {"kind": "valid", "phase": "denoise", "gaussian-kl": 100},
            {"kind": "train", "phase": "classify", "loss": 1, "cross-entropy": 2.0},
        ]
        (tmp_path / str(repeat) / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        terms = [{"name": "gaussian-kl", "weight": 0.5}]
        (tmp_path / str(repeat) / "plan.json").write_text(json.dumps({"phases": [{"name": "denoise", "terms": terms}]}))
    trials = {("row", repeat): SimpleNamespace(folder=tmp_path / str(repeat)) for repeat in (0, 1)}
    evidence: Any = SimpleNamespace(trials=trials, repeats=lambda row: [0, 1])
    found = measured(evidence, "row", "denoise/gaussian-kl")
    assert found["mean"] == 8.0 and found["low"] < 0 < found["high"]  # an interval of numbers that have no bounds
    assert measured(evidence, "row", "denoise/cross-entropy")["mean"] is None
    assert measured(evidence, "row", "classify/gaussian-kl")["mean"] is None
    (tmp_path / "0" / "metrics.jsonl").write_text("{")
    with pytest.raises(AugendError, match=r"metrics.jsonl: is no file of metrics .* run this trial again"):
        measured(evidence, "row", "denoise/gaussian-kl")


def test_a_row_is_chosen_on_validation_and_not_on_test() -> None:
    shares = {("a", "valid"): 0.5, ("b", "valid"): 0.6, ("a", "test"): 0.9, ("b", "test"): 0.4}
    asked: list[tuple[str, str]] = []

    def level(row: str, split: str) -> Estimate | None:
        asked.append((row, split))
        return mean_of([shares[row, split]])

    evidence: Any = SimpleNamespace(repeats=lambda *rows: [] if "c" in rows else [0], level=level)
    choice = Choice.model_validate({"says": "The weight", "among": ["a", "b"]})
    found = chosen_by_validation(evidence, choice, "test")
    assert found is not None and found["chosen"] == "b" and found["level"]["mean"] == 0.4
    assert asked == [("a", "valid"), ("b", "valid"), ("b", "test")]
    unfinished = Choice.model_validate({"says": "The weight", "among": ["a", "c"]})
    assert chosen_by_validation(evidence, unfinished, "test") is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"measures": ["top5"]}, "found measure 'top5'; allowed: top-5, loss, PHASE/TERM"),
        ({"choices": [{"says": "x", "among": ["nobody"]}]}, "choice 'x': there is no row 'nobody'"),
    ],
)
def test_tables_name_what_there_is(words: dict[str, Any], says: str) -> None:
    own = {**parse(table_text("learned/figure-5"), "x"), **words}
    with pytest.raises(AugendError, match=re.escape(says)):
        checked(Table, own, Place("x"))


@pytest.mark.slow
def test_figure_5_runs(tmp_path: Path) -> None:
    done = run("reproduce", "learned/figure-5", "--scale", "smoke", "--out", str(tmp_path / "study"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "study" / "reproduction.json").read_text())
    assert "| top-5 | loss |" in markdown(found) and "score of vae" in markdown(found)


@pytest.mark.slow
def test_the_sweep_of_beta_runs(tmp_path: Path) -> None:
    done = run("reproduce", "learned/beta", "--scale", "smoke", "--out", str(tmp_path / "study"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "study" / "reproduction.json").read_text())
    text = markdown(found)
    assert text.count("chosen by validation: **") == 2 and "gaussian-kl while it learned (denoise)" in text
    rows = found["rows"]
    free, tight = (rows[name]["measures"]["denoise/gaussian-kl"]["mean"] for name in ("plain-2e-5", "plain-1"))
    assert free > tight  # nothing holds what it costs down


def test_autoencoders_are_judged_by_a_row(tmp_path: Path) -> None:
    out = tmp_path / "study"
    data = "digits:train=200,valid=50,test=60"
    rows = "vae-then-classify,denoise-rotate,random-encoder,judge"
    words = ["--scale", "smoke", "--repeats", "1", "--data", data, "--rows", rows]
    done = run("reproduce", "learned/figure-5", *words, "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "reproduction.json").read_text())
    given_back = found["decoded"]
    assert set(given_back) == {"vae-then-classify", "denoise-rotate"}  # neither the judge nor what learned nothing
    assert set(given_back["denoise-rotate"]) == {"original", "zoom", "rotate", "light"}  # digits have no hue
    assert set(found["columns"].values()) == {"test", "crop", "rotate"}
    trials = out / "trials"
    for row, repeat in (("denoise-rotate", 0), ("vae-then-classify", 0)):
        alone, _ = decoded(trials / f"{row}-r{repeat}", "rotate", trials / f"judge-r{repeat}")
        one = given_back[row]["rotate"]["each"][str(repeat)]
        assert one["score"] == pytest.approx(alone["changes"]["rotate"]["score"]["mean"])
        shares = {key: alone["changes"]["rotate"][key] for key in ("kept", "kept_changed")}
        assert all(one[key] == (share and pytest.approx(share["mean"])) for key, share in shares.items())
    claims = {(one["better"], one["than"], one.get("of"), one.get("change")): one for one in found["claims"]}
    each = [given_back[row]["rotate"]["each"] for row in ("denoise-rotate", "vae-then-classify")]
    beside = claims["denoise-rotate", "vae-then-classify", "undone", "rotate"]["difference"]["mean"]
    assert beside == pytest.approx(np.mean([each[0][r]["score"] - each[1][r]["score"] for r in "0"]))
    itself = claims["denoise-rotate", "denoise-rotate", "undone", "rotate"]["difference"]["mean"]
    assert itself == pytest.approx(np.mean([each[0][r]["score"] for r in "0"]))
    page = (out / "reproduction.md").read_text()
    by_class = page.partition("The same by class:")[2].partition("\n\n\n")[0]
    assert [by_class.count(f"\n| {n} | ") for n in range(10)] == [4] * 10  # a table a change, a line a class
    called, some = next(one for one in given_back["denoise-rotate"]["rotate"]["classes"].items() if one[1] is not None)
    (cells,) = re.findall(rf"\n\| {called} \|(.*)\|", by_class.partition("| rotate |")[2].partition("| light |")[0])
    assert cells.split(" | ")[-1].startswith(f"{100 * some['mean']:.1f} (")
    assert "| *left as changed* |" in page and all((out / f"figures/figure-{n}.png").is_file() for n in (2, 5, 6, 7))
    found["decoded"]["judge"] = copy.deepcopy(given_back["vae-then-classify"])  # as a row that has another head has
    again, called = markdown(found), found["rows"]["judge"]["called"]
    assert f'\n\n"{called}" has the autoencoder of "plain VAE".\n\nThe same by class:' in again
    assert f"| {called} |" not in again.partition("How far a change")[2].partition("| claim |")[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decoded": {"judge": "jugde"}}, "there is no row 'jugde'; did you mean 'judge'"),
        ({"decoded": None}, "names a change, in a table with `decoded`"),
        ({"claims": [{"says": "x", "better": "judge", "than": "judge", "of": "kept"}]}, "names a change"),
        ({"claims": [{"says": "x", "better": "judge", "than": "judge", "change": "zoom"}]}, "others name none"),
    ],
)
def test_a_claim_of_pictures_given_back_names_its_change(change: dict[str, Any], said: str) -> None:
    words = parse(table_text("learned/figure-5"), "x")
    with pytest.raises(ValueError, match=said):
        Table.model_validate({**words, **change})
