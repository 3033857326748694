"""What a study says before it trains, learning rates that are tuned, and the model that is trained once more."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from augend.cli import display
from augend.contract import AugendError
from augend.study import sizing
from augend.study.compare import open_study, plan_only
from augend.study.tuning import choose_rates, tuning_jobs
from runs import SMALL

BASE = ["compare", SMALL, "--recipes", "plain,augmented", "--repeats", "2", "--precision", "32-true"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "augend", *arguments], capture_output=True, text=True, timeout=300, env={**os.environ}
    )


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_a_plan_trains_nothing(tmp_path: Path) -> None:
    done = run(*BASE, "--budget", "120step", "--plan", "--out", str(tmp_path / "study"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "study").exists()
    for said in ("200 pictures to train", "in all, ", "of memory", "can be separated", "under 300 steps", "120"):
        assert said in done.stdout, said
    raw = json.loads(run(*BASE, "--budget", "120step", "--equal", "seconds", "--plan", "--json").stdout)
    seconds = [raw["predicted"][name]["training"] for name in ("plain", "augmented")]
    steps = [raw["plan"][name]["steps"] for name in ("plain", "augmented")]
    assert steps[1] == 120 and steps[0] > 60  # augmented is the reference; other processes disturb the clock
    assert seconds[0] == pytest.approx(seconds[1], rel=0.05)


def test_a_plan_says_what_cannot_cost_as_little(tmp_path: Path) -> None:
    """Three epochs of scored steps alone cost more than the reference's 40 steps, and nobody is told that all cost alike."""
    asked = ["compare", SMALL, "--recipes", "augmented,loss-delta", "--precision", "32-true", "--plan"]
    done = run(*asked, "--budget", "40step", "--equal", "flops", "--out", str(tmp_path / "study"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"warning: not equal in flops: loss-delta \d+\.\d times what the others cost", done.stdout), (
        done.stdout
    )


def test_timing_says_how_far_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(display, "EVERY", 0.0)
    line = display.Timing()

    def told(done: int, total: int) -> None:
        seen.append((done, total))
        line(done, total)

    against: list[str] = []
    measure = sizing.measure
    monkeypatch.setattr(
        sizing,
        "measure",
        lambda *given, **how: (against.append(how["against"] and how["against"].recipe), measure(*given, **how))[1],
    )
    asked = {"data": SMALL, "recipes": ("plain", "augmented", "mixup"), "budget": "20step", "equal": "seconds"}
    plan_only(tmp_path / "study", {**asked, "precision": "32-true"}, "a test", timing=told)
    assert set(against) == {"augmented"}  # the reference
    first = [pair for pair in seen if pair[1] == 3]  # where one is left over, another is timed beside it once more
    assert first == [(1, 3), (2, 3), (3, 3)] and all(done <= total for done, total in seen)
    assert "timing: 3 of 3 recipes" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--time", "1h", "--budget", "9step"], "give one of them"),
        (["--time", "later"], "30min"),
        (["--equal", "money"], "steps, seconds, flops"),
        (["--prepare-only", "--tune", "3"], "leave --tune out"),
        (["--weights", "nowhere.pt"], "nowhere.pt"),
        (["--regime", "big"], "pretrained, scratch"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], fragment: str, tmp_path: Path) -> None:
    done = run(*BASE, *arguments, "--out", str(tmp_path / "study"))
    assert done.returncode == 2 and fragment in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "study").exists()


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "study"
    done = run(*BASE, "--budget", "80step", "--tune", "3", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("tuned ") == 2
    return out


def test_rates_are_chosen_on_validation_and_charged(tuned: Path) -> None:
    record, results = read(tuned / "study.json"), read(tuned / "results.json")
    for name, about in record["tuned"].items():
        assert [float(rate) for rate in about["tried"]] == [0.001, 0.003, 0.009]
        best = max(about["tried"].values())
        chosen = about["override"].removeprefix("optimizer.lr=")
        assert about["tried"][chosen] == best
        spent = 0.0
        for rate, reached in about["tried"].items():
            run_folder = tuned / "tuning" / f"{name}-{rate}"
            result = read(run_folder / "result.json")
            assert result["valid"] == reached and result["steps"] == 20
            spent += sum(v for part, v in result["ledger"]["seconds"].items() if part != "evaluation")
        assert about["override"] in read(tuned / "trials" / f"{name}-r1" / "trial.json")["job"]["overrides"]
        cost = results["recipes"][name]["cost"]
        assert cost["parts"]["tuning"] == pytest.approx(spent)
        assert cost["seconds"] == pytest.approx(cost["trained"] + spent)


@pytest.mark.parametrize("rate", [0.01, 0.0001])
def test_rates_lie_around_the_settings_own_and_decoding_is_charged_once(rate: float, tmp_path: Path) -> None:
    """Whose first phase takes a tenth of the rate: `init-embedding`, under a rate of the command line; one of those that are
    tried is written as 3.33e-05.
    """
    study = open_study(
        tmp_path / "study",
        {
            "data": SMALL,
            "recipes": ("init-embedding",),
            "repeats": 1,
            "budget": "60step",
            "tune": 3,
            "settings": "quick",
            "precision": "32-true",
            "overrides": (f"optimizer.lr={rate}",),
        },
        "a test",
    )
    jobs = tuning_jobs(study)
    rates = [float(tuned.rate) for tuned in jobs.values()]
    assert rates == pytest.approx([rate / 3, rate, 3 * rate], rel=0.01)
    for name, tuned in jobs.items():
        assert name == f"tuning/init-embedding-{tuned.rate}" and tuned.recipe == "init-embedding"
        assert tuned.job.overrides[-1] == f"optimizer.lr={tuned.rate}"
        folder = study.path / name
        seconds = {"step": 2.0, "augment": 0.5, "evaluation": 7.0, "decoding": 11.0}
        (folder / "result.json").write_text(json.dumps({"valid": -float(tuned.rate), "ledger": {"seconds": seconds}}))
        (folder / "state.json").write_text(json.dumps({"state": "finished"}))
    state = study.path / next(iter(jobs)) / "state.json"
    state.write_text(json.dumps({"state": "running"}))
    with pytest.raises(AugendError, match="has not ended, so no rate can be chosen yet"):
        choose_rates(study)  # a worker that was killed says nothing about the rate
    state.write_text(json.dumps({"state": "failed"}))
    assert [one["tried"][next(iter(jobs.values())).rate] for one in choose_rates(study).values()] == [None]
    state.write_text(json.dumps({"state": "finished"}))
    (found,) = choose_rates(study).values()
    assert [*found["tried"]] == [tuned.rate for tuned in jobs.values()]
    assert found["seconds"] == pytest.approx(3 * 2.5) and found["override"] == f"optimizer.lr={rates[0]:g}"


def test_the_model_has_seen_validation_too(tuned: Path) -> None:
    results = read(tuned / "results.json")
    advised = results["choice"]["advised"] or results["choice"]["leader"]
    if results["choice"]["advised"] is None:
        pytest.skip("nothing learned in 80 steps, so no model is handed over")
    assert results["model"] == {"recipe": advised, "trained_on": "trainval"}
    again = tuned / "refit" / advised
    assert (tuned / "model.safetensors").read_bytes() == (again / "model.safetensors").read_bytes()
    assert (
        read(again / "run.json")["data"]["main"]["counts"]["train"]
        != read(tuned / "trials" / f"{advised}-r0" / "run.json")["data"]["main"]["counts"]["train"]
    )
    assert sum(read(again / "run.json")["data"]["main"]["counts"]["train"]) == 240
    first = load_file(tuned / "trials" / f"{advised}-r0" / "model.safetensors")
    assert any((first[name] != tensor).any() for name, tensor in load_file(tuned / "model.safetensors").items())
    assert read(again / "plan.json")["budget"] == read(tuned / "trials" / f"{advised}-r0" / "plan.json")["budget"]


def test_a_finished_study_is_left_as_it_is(tuned: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tuned.glob("*/*/model.safetensors")}
    done = run("compare", "--out", str(tuned))
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in tuned.glob("*/*/model.safetensors")} == before


def test_repeat_0s_own_model(tmp_path: Path) -> None:
    out = tmp_path / "study"
    done = run(*BASE[:4], "--repeats", "1", "--budget", "150step", "--refit", "train", "--out", str(out))
    assert done.returncode == 0, done.stderr
    results = read(out / "results.json")
    if results["choice"]["advised"] is not None:
        own = out / "trials" / f"{results['choice']['advised']}-r0" / "model.safetensors"
        assert (out / "model.safetensors").read_bytes() == own.read_bytes() and not (out / "refit").exists()
        assert results["model"]["trained_on"] == "train"


@pytest.mark.slow
def test_a_promise_of_time_is_kept(tmp_path: Path) -> None:
    """Three minutes end within three and a half, and the ledger is within 15 % of what was predicted."""
    begun = time.monotonic()
    done = run("compare", "--time", "3min", "--repeats", "3", "--out", str(tmp_path / "study"))
    took = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    assert 100 < took < 210, took
    for name, recipe in read(tmp_path / "study" / "results.json")["recipes"].items():
        print(name, recipe["cost"]["used_of_predicted"])
        assert recipe["cost"]["used_of_predicted"] == pytest.approx(1, abs=0.15), name


@pytest.mark.slow
def test_the_estimated_end_is_right(tmp_path: Path) -> None:
    """After the first repeat, what is left is known within a quarter."""
    arguments = ["compare", SMALL, "--recipes", "plain,augmented,aug-ft", "--repeats", "5", "--budget", "1500step"]
    command = [sys.executable, "-u", "-m", "augend", *arguments, "--refit", "train", "--out", str(tmp_path / "study")]
    said: list[tuple[float, int, float]] = []  # when, trials done, seconds left
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.match(r"(\d+) of 15 trials done.*?; about (?:(\d+):(\d+) min|(\d+) s) left", line)
            if found:
                left = int(found[4]) if found[4] else 60 * int(found[2]) + int(found[3])
                said.append((time.monotonic(), int(found[1]), left))
        ended = time.monotonic()
    assert process.returncode == 0
    when, done, left = next(one for one in said if one[1] >= 3)
    real = ended - when
    print(f"after {done} trials: {left:.0f} s left were said, {real:.1f} s it took")
    assert left == pytest.approx(real, rel=0.25)


def test_stopping_does_not_wait_for_an_idle_worker(tmp_path: Path) -> None:
    """A worker that ended its trial before the signal came would wait for the next name, and the study for it."""
    import time

    from augend.study.pool import Pool

    pool = Pool(tmp_path, 1)
    worker = pool._workers[0]
    try:
        assert pool._events.get(timeout=60)[1] is not None  # it is ready, and has no signal to answer
        begun = time.monotonic()
        worker.send_signal = lambda number: None  # type: ignore[method-assign]
        pool.stop(timeout=20.0)
        assert time.monotonic() - begun < 10 and worker.returncode == 0
    finally:
        worker.kill()


def test_one_process_runs_recipes_of_other_roles(tmp_path: Path) -> None:
    """A repeat's recipes share the data that a process has read; one with a role more has that read too."""
    from augend.study.compare import open_study
    from augend.study.trials import run_trial

    given = {"data": SMALL, "recipes": ("plain", "transfer-embed"), "budget": "12step", "precision": "32-true"}
    study = open_study(tmp_path / "study", {**given, "repeats": 1}, "test")
    for name in study.names:
        assert run_trial(study.path / "trials" / name, lambda kind, values: None) == "finished", name


def test_a_set_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from augend.runner import job as jobs

    read: list[str] = []
    before = jobs.load_data

    def counted(text: str, **how: Any) -> Any:
        read.append(text)
        return before(text, **how)

    monkeypatch.setattr(jobs, "load_data", counted)
    kept: jobs.Kept = {}
    first = jobs.load_splits(jobs.Job(data=SMALL, recipe="plain"), kept=kept)
    second = jobs.load_splits(jobs.Job(data=SMALL, recipe="transfer-embed"), kept=kept)
    assert read == [SMALL] and second["base"] is second["main"] is first["main"]
    jobs.load_splits(jobs.Job(data=SMALL, recipe="plain", repeat=1), kept=kept)
    assert read == [SMALL, SMALL]
