"""Tables of papers: their files are sound, a small one runs, and its verdicts follow from the predictions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from augend import AugendError
from augend.recipes.language import compose, reaching
from augend.recipes.library import load
from augend.recipes.reading import Place
from augend.recipes.resolve import check
from augend.recipes.schema import checked
from augend.report.figures import _mean
from augend.report.reproduction import markdown
from augend.runner.job import Job, load_splits, resolve_job
from augend.study.equal import equal_budget, plan_flops
from augend.study.evidence import read_record, read_trials
from augend.study.reach import Price, reached, spent
from augend.study.reproduce import _columns_fit, _shifts, gather, open_reproduction, verdict
from augend.study.request import Study
from augend.study.statistics import Estimate, estimate
from augend.study.tables import Table, known_tables, load_table, recipe_text

SMALL = ["factoring/generalisation", "--protocol", "digits-rotation", "--budget", "60step", "--repeats", "2"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "augend", "reproduce", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_curves_say_of_how_many_seeds_they_are() -> None:
    assert [_mean(seeds) for seeds in ({1}, {6}, {3, 10})] == [
        "one seed",
        "mean of 6 seeds, band from least to most",
        "mean of 3 to 10 seeds, band from least to most",
    ]


@pytest.mark.parametrize("name", known_tables())
def test_a_tables_file_is_sound(name: str) -> None:
    """Every row of every protocol is a recipe that resolves under its settings, and figures draw rows that exist."""
    table, paper = load_table(name), name.partition("/")[0]
    ways = {
        (asked.protocol, asked.settings, asked.overrides): asked
        for scale in table.scales or [None]
        for protocol in (table.scales[scale].protocols if scale else None) or table.protocols
        for asked in [table.asked(name, protocol, scale)]
    }
    composed = {row: compose(load(recipe_text(paper, row))) for row in table.rows}
    for asked in ways.values():
        for row in table.rows_of(asked.protocol):
            params = {"weights": "file"} if table.rows[row].base else {}
            its = reaching(asked.overrides, composed[row], list(composed.values())) + table.rows[row].overrides
            check(recipe_text(paper, row), asked.settings, overrides=its, params=params, budget=asked.budget)
        if table.bases is not None:
            bases = load_table(table.bases)
            its = bases.asked(table.bases, asked.protocol, asked.scale)
            # omega learns where the base did; what learned from the table's own pictures has no other
            assert (f"base={its.data}" in asked.overrides or its.data == asked.data) and its.model == asked.model
            assert {row.base for row in table.rows.values() if row.base is not None} <= set(bases.rows)
    for figure in table.figures:
        drawn = [*figure.get("rows", ()), *(row for line in figure.get("lines", {}).values() for row in line)]
        for row in drawn or ([figure["row"]] if "row" in figure else []):  # some draw no rows
            assert row in table.rows, (figure["name"], row)
        assert all(len(line) == len(figure["along"]) for line in figure.get("lines", {}).values())
    for claim in table.claims:
        for row in (claim.equal, claim.than_equal):
            assert row is None or row in table.rows


def test_every_column_that_is_named_is_there() -> None:
    for name in known_tables():
        table = load_table(name)
        for scale in table.scales or [None]:
            allowed = None if scale is None else table.scales[scale].protocols
            for protocol in allowed or table.protocols:
                _columns_fit(name, table, table.asked(name, protocol, scale))
    table = load_table("learned/figure-5-authors")
    other = table.model_copy(update={"measures": ("loss",)})
    with pytest.raises(AugendError, match="a number is printed for the column 'top-5'"):
        _columns_fit("x", other, other.asked("x", "cifar10", "paper"))


def test_printed_numbers_are_the_papers() -> None:
    rows = load_table("factoring/table-1").rows
    printed = {row.called: row.printed for row in rows.values() if row.printed is not None}
    assert printed == {"B": 0.700, "B+": 0.796, "FT": 0.766, "Aug-FT": 0.813}


def _found(mean: float, error: float, repeats: int = 10) -> Estimate:
    return Estimate(mean, repeats, error * repeats**0.5, 0.0, 0.0, repeats - 1)


@pytest.mark.parametrize(
    ("found", "equal", "word"),
    [
        (_found(0.02, 0.002), _found(0.01, 0.002), "held"),
        (_found(0.02, 0.002), _found(0.001, 0.002), "held; at equal cost not separable"),
        (_found(0.02, 0.002), _found(-0.01, 0.002), "held only at unequal cost"),
        (_found(0.02, 0.002), None, "held; cost not compared"),
        (_found(0.02, 0.002), estimate([0.5], evaluated=10, trained=100), "held; cost not compared"),
        (_found(0.001, 0.002), _found(0.02, 0.002), "not separable with n = 10"),
        (_found(-0.02, 0.002), _found(0.02, 0.002), "reversed only at unequal cost"),
        (_found(-0.02, 0.002), _found(0.001, 0.002), "reversed"),
        (_found(-0.02, 0.002), None, "reversed"),
        (estimate([0.5], evaluated=10, trained=100), None, "not separable with n = 1"),
        (None, None, "not separable with n = 0"),
    ],
)
def test_the_words_of_a_verdict(found: Estimate | None, equal: Estimate | None, word: str) -> None:
    assert verdict(found, equal) == word


def test_an_equal_budget_costs_the_same() -> None:
    asked = {"data": "digits:train=200", "settings": "factoring", "model": "figure1", "budget": "4000step"}
    dear, cheap = Job(recipe="augmented", **asked), Job(recipe="ft", **asked)  # type: ignore[arg-type]
    splits = load_splits(dear)

    def flops(job: Job) -> int:
        return sum(steps * each for steps, each in plan_flops(resolve_job(job, splits), splits))

    longer = Job(recipe="ft", **{**asked, "budget": equal_budget(cheap, dear, splits)})  # type: ignore[arg-type]
    assert flops(cheap) < 0.85 * flops(dear)
    assert flops(longer) == pytest.approx(flops(dear), rel=1e-3)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reproduced") / "study"
    done = run(*SMALL, "--rows", "plain,augmented,aug-ft", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "| B+ | `augmented` |" in done.stdout and "reference" in done.stdout
    return out


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_numbers_are_those_of_the_predictions(reproduced: Path) -> None:
    from recompute import recompute

    found, again = _read(reproduced / "reproduction.json"), recompute(reproduced)
    assert list(found["rows"]) == ["plain", "augmented", "aug-ft"]
    for name, row in found["rows"].items():
        level = row["levels"]["test"]
        for key in ("mean", "low", "high"):
            assert level[key] == pytest.approx(min(1.0, max(0.0, again[name]["test"][key])), abs=1e-12)
    claim = found["claims"][0]
    against = again["aug-ft"]["test"]["versus_reference"]
    assert (claim["better"], claim["than"]) == ("aug-ft", "augmented")
    assert claim["difference"]["mean"] == pytest.approx(against["mean"], abs=1e-12)
    assert claim["flops_ratio"] < 0.9 and claim["at_equal_cost"]["rows"] == ["aug-ft", "augmented"]
    assert found["complete"] and (reproduced / "reproduction.md").is_file()


def test_seconds_of_a_quiet_bench_stand_beside_the_flops(reproduced: Path) -> None:
    """0.5 ms a plain step, 0.1 above a cached trunk, 2 ms to fill it: the shares follow by hand."""
    plain = {"steps": 30, "plain": 5e-4}
    rows = {"plain": [{**plain, "steps": 60}], "augmented": [{**plain, "steps": 60}]}
    rows["aug-ft"] = [plain, {"steps": 30, "plain": 4e-4, "cached": 1e-4, "fill": 2e-3}]
    bench = reproduced / "seconds.json"
    bench.write_text(json.dumps({"rows": rows}))
    try:
        found = gather(reproduced)
        reach, page = found["rows"]["aug-ft"]["to_reference"], markdown(found)
    finally:
        bench.unlink()
    assert reach["whole"]["seconds_plain"] == pytest.approx(27 / 30)
    assert reach["whole"]["seconds_cached"] == pytest.approx((15 + 2 + 3) / 30)
    assert reach["whole"]["flops"] == pytest.approx(found["claims"][0]["flops_ratio"], abs=0.2)
    assert found["rows"]["augmented"]["to_reference"]["part"]["seconds_plain"] <= 1
    assert "| Aug-FT | 60 |" in page and "seconds, cached trunk: to there" in page
    assert "seconds, cached trunk" not in markdown(gather(reproduced))


def test_the_part_of_a_run_that_counts(tmp_path: Path) -> None:
    """A cache is paid when its phase begins, and the first line that is good enough ends the count."""
    prices = [Price(10, 2.0), Price(10, 1.0, fill=5.0)]
    assert [spent(prices, step) for step in (0, 10, 11, 20, None)] == [0, 20, 26, 35, 35]
    rows = [("valid", 5, 0.3), ("train", 10, 0.9), ("valid", 10, 0.6), ("valid", 20, 0.5)]
    lines = [json.dumps({"kind": kind, "global_step": step, "accuracy": value}) for kind, step, value in rows]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert reached(tmp_path, 0.5) == 10 and reached(tmp_path, 0.7) is None


def test_shifts_of_colours_are_left_out_where_pictures_have_none(reproduced: Path) -> None:
    table = load_table("factoring/generalisation").model_copy(update={"shifts": "grayscale,rotate,colour"})
    trials = read_trials(read_record(reproduced), test=True, peers=True)
    assert _shifts(table, trials) == "rotate" and _shifts(table, []) == ""


def test_trials_of_several_codes_are_told(reproduced: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(reproduced, study)
    of_one = gather(study)
    assert of_one["made_by"] == {} and "Not one code" not in markdown(of_one)
    path = study / "trials" / "plain-r0" / "environment.json"
    path.write_text(json.dumps({**_read(path), "commit": "0ff1ce0"}), encoding="utf-8")
    found = gather(study)
    trials = len(list((study / "trials").iterdir()))
    assert sorted(map(len, found["made_by"].values())) == [1, trials - 1]
    assert [trials for said, trials in found["made_by"].items() if "0ff1ce0" in said] == [["plain-r0"]]
    assert "**Not one code and machine.**" in markdown(found) and "0ff1ce0: 1 of the trials" not in markdown(of_one)
    path.write_text("[1]", encoding="utf-8")  # what is no record is passed over
    assert gather(study)["made_by"] == {}


def test_it_is_continued_and_extended(reproduced: Path) -> None:
    before = (reproduced / "trials" / "plain-r0" / "predictions.npz").stat().st_mtime_ns
    done = run(*SMALL[:-1], "3", "--out", str(reproduced), "--json")
    assert done.returncode == 0, done.stderr
    assert {row["repeats"] for row in json.loads(done.stdout)["rows"].values()} == {3}
    assert (reproduced / "trials" / "plain-r0" / "predictions.npz").stat().st_mtime_ns == before


def test_another_table_does_not_go_into_its_folder(reproduced: Path) -> None:
    done = run("factoring/generalisation", "--protocol", "digits-crop", "--out", str(reproduced))
    assert done.returncode == 2 and "holds another study" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--budget", "70step"], "with budget '60step'"),
        (["--seed", "3"], "with seed 0"),
        (["--rows", "plain"], "--rows"),
    ],
)
def test_what_a_study_was_made_with_stands(arguments: list[str], fragment: str, reproduced: Path) -> None:
    done = run(*SMALL[:3], *arguments, "--out", str(reproduced))
    assert done.returncode == 2 and fragment in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["factoring/tabel-1"], "did you mean 'factoring/table-1'"),
        (["factoring/table-1", "--protocol", "author"], "did you mean 'authors'"),
        ([*SMALL, "--rows", "plian"], "did you mean 'plain'"),
        (["factoring/table-1", "--scale", "cpu"], "it has one scale; leave --scale out"),
        (["factoring/table-1", "--bases", "runs/some"], "its rows start from nothing; leave --bases out"),
        (["embedding/table-2", "--protocol", "resnet18"], "no protocol 'resnet18' at scale cpu (known: small)"),
        (["embedding/table-2", "--rows", "transfer-nome"], "did you mean 'transfer-none'"),
        (["embedding/table-2", "--bases", __file__], "a file, not a folder; give another --bases"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], fragment: str, tmp_path: Path) -> None:
    done = run(*arguments, "--out", str(tmp_path / "study"))
    assert done.returncode == 2 and fragment in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "study").exists()


def test_bases_of_another_table_are_one_line(reproduced: Path, tmp_path: Path) -> None:
    done = run("embedding/table-2", "--bases", str(reproduced), "--out", str(tmp_path / "study"))
    assert done.returncode == 2 and "holds another study than embedding/bases; give another --bases" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "study").exists()


def test_without_a_name_the_tables_are_listed() -> None:
    listed = run().stdout
    assert all(name in listed for name in known_tables()) and "[authors, standard]" in listed


def test_a_scale_stands_over_its_protocol_and_this_over_the_table() -> None:
    table = Table.model_validate(
        {
            "title": "T",
            "source": "S",
            "settings": "quick",
            "reference": "plain",
            "overrides": ["a=1"],
            "model": "small",
            "protocols": {
                "one": {"about": "first", "data": "digits", "overrides": ["b=2"], "budget": "9step"},
                "two": {"about": "second", "model": "figure1", "data": "mnist"},
            },
            "scales": {
                "smoke": {"about": "little", "data": "digits:train=50", "overrides": ["c=3"], "repeats": 1},
                "cpu": {"about": "more", "protocols": ["two"], "budget": "5step"},
            },
            "rows": {"plain": {"as": "B", "printed": {"one": 0.5}}},
        }
    )
    little = table.asked("p/t", "one", "smoke")
    assert (little.data, little.model, little.budget, little.repeats) == ("digits:train=50", "small", "9step", 1)
    assert little.overrides == ("a=1", "b=2", "c=3") and little.about == "first; little"
    usual = table.asked("p/t")
    assert (usual.protocol, usual.scale, usual.data, usual.model, usual.budget) == (
        "two",
        "cpu",
        "mnist",
        "figure1",
        "5step",
    )
    assert (
        usual.repeats == 10
        and table.rows["plain"].printed_in("one") == 0.5
        and table.rows["plain"].printed_in("two") is None
    )
    with pytest.raises(AugendError, match=r"no protocol 'one' at scale cpu \(known: two\)"):
        table.asked("p/t", "one", "cpu")
    with pytest.raises(AugendError, match=r"no scale 'smoky'; did you mean 'smoke'.*known: smoke, cpu"):
        table.asked("p/t", "one", "smoky")


def test_rows_start_from_bases_that_were_trained_once(tmp_path: Path) -> None:
    """The smallest scale of a table with bases: trained first, in their own study, and found again by the next table."""
    if not os.environ.get("AUGEND_DATA"):
        pytest.skip("needs CIFAR")
    asked = [
        "embedding/table-2",
        "--scale",
        "smoke",
        "--repeats",
        "1",
        "--rows",
        "transfer-none,transfer-embed,transfer-pixel",
    ]
    done = run(*asked, "--out", str(tmp_path / "arms"))
    assert done.returncode == 0, done.stderr
    bases = tmp_path / "reproduce-embedding-bases-small-smoke"
    trained = {trial.name: trial for trial in (bases / "trials").iterdir()}
    assert set(trained) == {f"base-{kind}-r{repeat}" for kind in ("none", "hflip", "hv") for repeat in range(1)}
    for row in ("transfer-none", "transfer-embed", "transfer-pixel"):
        start = load_file(trained["base-hflip-r0"] / "model.safetensors")
        arm = load_file(tmp_path / "arms" / "trials" / f"{row}-r0" / "model.safetensors")
        for name, weight in start.items():
            assert torch.equal(arm[name.replace("net.", "source.", 1)], weight), name
    found = _read(tmp_path / "arms" / "reproduction.json")
    assert (found["protocol"], found["scale"], found["complete"]) == ("small", "smoke", True)
    omega = found["rows"]["transfer-embed"]["augmenters"]["omega"]
    own = _read(tmp_path / "arms" / "trials" / "transfer-embed-r0" / "result.json")["augmenters"]["omega"]["score"]
    assert omega["mean"] == own and omega["values"] == [own]
    costs = found["equation8"]["costs"]
    assert costs["FLOPs"]["measured"] == pytest.approx(costs["FLOPs"]["predicted"], rel=0.05)
    # seconds of trials beside others: a loaded machine has moved them by more than half
    assert 1 / 3 < costs["seconds"]["measured"] / costs["seconds"]["predicted"] < 3
    assert costs["FLOPs"]["measured_trained"] < costs["FLOPs"]["measured"] and costs["FLOPs"]["pays_from"] > 1
    assert "Equation 8, N = 100" in done.stdout and "score of omega" in done.stdout

    def opened(out: str, **given: Any) -> Study:
        asked = {"command": "", "bases": bases, "repeats": 1, **given}
        return open_reproduction("embedding/figure-3", None, tmp_path / out, scale="smoke", **asked)

    other = opened("other")
    assert other.pending == ["figure-3-unseen-r0", "figure-3-seen-r0"]
    start = _read(tmp_path / "other" / "trials" / "figure-3-seen-r0" / "trial.json")["job"]["params"]["weights"]
    assert start == str(trained["base-hv-r0"] / "model.safetensors")
    for given, said in (
        ({"repeats": 2}, "its rows start from 1 networks each"),
        ({"bases": tmp_path / "arms"}, "its rows start from .*; leave --bases out"),
    ):
        with pytest.raises(AugendError, match=said):
            opened("other", **given)
    with pytest.raises(AugendError, match="was made with seed 0, not 7"):
        opened("third", seed=7)
    file = trained["base-hv-r0"] / "model.safetensors"
    file.write_bytes((trained["base-none-r0"] / "model.safetensors").read_bytes())
    with pytest.raises(AugendError, match="is no longer what this study began with"):
        opened("other")
    file.unlink()
    with pytest.raises(AugendError, match=r"holds no model of base-hv at base-hv-r0, and 1 are needed"):
        opened("third")


def test_a_name_that_is_no_table() -> None:
    with pytest.raises(AugendError, match="known: embedding/"):
        load_table("nothing")


def test_a_table_on_other_pictures(tmp_path: Path) -> None:
    out, words = tmp_path / "study", ["--rows", "augmented,ait", "--repeats", "1", "--budget", "8step"]
    data = "digits:train=200,valid=50,test=100"
    done = run("invariance/digits", "--scale", "smoke", "--data", data, *words, "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = _read(out / "reproduction.json")
    assert found["sizes"]["train"] == 200 and found["about"].endswith(f"but on {data}")
    assert all(row["printed"] is None and row["beside"] == {} for row in found["rows"].values())
    again = run("invariance/digits", "--scale", "smoke", "--data", "digits", *words, "--out", str(out))
    assert again.returncode == 2 and f"is invariance/digits on {data}; give another --out" in again.stderr
    assert run("invariance/digits", "--out", str(out)).returncode == 0  # it knows its data


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"says": "x", "better": "plain", "than": "plain", "bettr": 1}, "found key 'bettr', which is not known there"),
        ({"says": "x", "better": "plain"}, "than is missing"),
        (3, "Input should be a valid dictionary"),
    ],
)
def test_a_mistake_within_a_list_names_its_entry(entry: Any, problem: str) -> None:
    words = {"title": "t", "source": "s", "settings": "quick", "reference": "plain", "rows": {"plain": {"as": "B"}}}
    words |= {"protocols": {"p": {"about": "a"}}, "claims": [{"says": "x", "better": "plain", "than": "plain"}, entry]}
    with pytest.raises(AugendError, match=f"^mine.yaml: claims: entry 2: {problem}"):
        checked(Table, words, Place("mine.yaml"))
