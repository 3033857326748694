"""Tables of papers: their files are sound, a small one runs, and its verdicts follow from the predictions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from augend import AugendError
from augend.recipes.resolve import check
from augend.report.reproduction import markdown
from augend.runner.job import Job, load_splits, resolve_job
from augend.study.equal import equal_budget, plan_flops
from augend.study.reach import Price, reached, spent
from augend.study.reproduce import verdict
from augend.study.statistics import Estimate, estimate
from augend.study.tables import known_tables, load_table, recipe_text

SMALL = ["factoring/generalisation", "--protocol", "digits-rotation", "--budget", "60step", "--repeats", "2"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "augend", "reproduce", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", known_tables())
def test_a_tables_file_is_sound(name: str) -> None:
    """Every row of every protocol is a recipe that resolves under its settings, and figures draw rows that exist."""
    table, paper = load_table(name), name.partition("/")[0]
    for protocol, asked in table.protocols.items():
        for row in table.rows_of(protocol):
            overrides = (*table.overrides, *asked.overrides)
            check(recipe_text(paper, row), asked.settings or table.settings, overrides=overrides)
    for figure in table.figures:
        for row in figure.get("rows", [figure.get("row")]):
            assert row in table.rows, (figure["name"], row)
    for claim in table.claims:
        for row in (claim.equal, claim.than_equal):
            assert row is None or row in table.rows


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
        (_found(0.02, 0.002), _found(0.001, 0.002), "held only at unequal cost"),
        (_found(0.02, 0.002), None, "held only at unequal cost"),
        (_found(0.001, 0.002), _found(0.02, 0.002), "not separable with n = 10"),
        (_found(-0.02, 0.002), _found(0.02, 0.002), "reversed"),
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
            assert level[key] == pytest.approx(again[name]["test"][key], abs=1e-12)
    claim = found["claims"][0]
    against = again["aug-ft"]["test"]["versus_reference"]
    assert (claim["better"], claim["than"]) == ("aug-ft", "augmented")
    assert claim["difference"]["mean"] == pytest.approx(against["mean"], abs=1e-12)
    assert claim["flops_ratio"] < 0.9 and claim["at_equal_cost"]["rows"] == ["aug-ft", "augmented"]
    assert found["complete"] and (reproduced / "reproduction.md").is_file()


def test_seconds_of_a_quiet_bench_stand_beside_the_flops(reproduced: Path) -> None:
    """0.5 ms a plain step, 0.1 above a cached trunk, 2 ms to fill it: the shares follow by hand."""
    from augend.study.reproduce import gather

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
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], fragment: str, tmp_path: Path) -> None:
    done = run(*arguments, "--out", str(tmp_path / "study"))
    assert done.returncode == 2 and fragment in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "study").exists()


def test_without_a_name_the_tables_are_listed() -> None:
    listed = run().stdout
    assert all(name in listed for name in known_tables()) and "[authors, standard]" in listed


def test_a_name_that_is_no_table() -> None:
    with pytest.raises(AugendError, match="known: factoring/"):
        load_table("nothing")
