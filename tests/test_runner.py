"""Promises of the runner that no single recipe shows."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from augend.contract import AugendError
from augend.recipes.plan import Plan
from augend.runner.assembly import build_networks
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job, resume, start
from inprocess import run as command
from runs import ONE_THREAD, SMALL, Killed, final_state, finish, killed_at, lines, same_run, splits_of, train

FINITE = "tilt-5"


PAGES = """
import ctypes, sys, torch
from augend.runner.hardware import keep_pages
if sys.argv[1] == "kept":
    keep_pages()
torch.set_num_threads(1)
libc = ctypes.CDLL(None)
word, asked = (ctypes.c_size_t, "mallinfo2") if hasattr(libc, "mallinfo2") else (ctypes.c_int, "mallinfo")
names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
Info = type("Info", (ctypes.Structure,), {"_fields_": [(name, word) for name in names]})
getattr(libc, asked).restype = Info
def held():
    info = getattr(libc, asked)()
    return (info.arena + info.hblkhd) >> 20
def step():
    some = [torch.ones(12 << 20) for _ in range(4)]  # 48 MB each, which nobody keeps by default: up to 32 it depends
    del some
for _ in range(5):
    step()
within = [torch.ones(12 << 20) for _ in range(4)]
most = held()
del within
print(most - held())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 35),
    reason="another allocator, or one that keeps nothing above 32 MB",
)
def test_pages_are_kept_from_step_to_step() -> None:
    """How many of the 192 MB of a step's tensors go back to the system when they are freed, in the allocator's own books: not
    every system counts page faults or pages."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}

    def given_back(how: str, **more: str) -> int:
        asked = [sys.executable, "-c", PAGES, how]
        done = subprocess.run(asked, env={**own, **more}, capture_output=True, text=True, check=True)
        return int(done.stdout)

    kept, plain = given_back("kept"), given_back("plain")
    assert kept < 20 < 150 < plain, (kept, plain)
    assert given_back("kept", MALLOC_TRIM_THRESHOLD_="131072") > 150  # somebody's own tuning stands


def test_equal_phases_of_two_recipes_show_the_same_pictures(tmp_path: Path) -> None:
    # `plain` of B and of Aug-FT is one phase by name, so both are the same network after 50 of its steps
    train(tmp_path / "b", "plain", budget="100step")
    train(tmp_path / "ft", "aug-ft", budget="200step")
    runs = [[x for x in lines(tmp_path / r) if x["kind"] == "valid" and x["phase"] == "plain"] for r in ("b", "ft")]
    alone, within = ({line["step"]: line["valid_loss"] for line in run} for run in runs)
    shared = sorted(set(alone) & set(within))
    assert len(shared) > 5 and [alone[n] for n in shared] == [within[n] for n in shared]


@pytest.mark.parametrize("hardware", [ONE_THREAD, Hardware(threads=1, channels_last=True)], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize(("model", "budget"), [("figure1", "120step"), ("preresnet", "12step")])
def test_cache_gives_the_same_bits_as_recomputing(model: str, budget: str, hardware: Hardware, tmp_path: Path) -> None:
    how = {"budget": budget, "model": model, "hardware": hardware}
    views = "tune.augment=tilt-5"
    train(tmp_path / "cached", "aug-ft", overrides=(views, "tune.cache=true"), **how)
    train(tmp_path / "recomputed", "aug-ft", overrides=(views, "tune.cache=false"), **how)
    assert lines(tmp_path / "cached") == lines(tmp_path / "recomputed")
    for name in ("predictions.npz", "model.safetensors"):
        assert (tmp_path / "cached" / name).read_bytes() == (tmp_path / "recomputed" / name).read_bytes()
    costs = [json.loads((tmp_path / run / "ledger.json").read_text()) for run in ("cached", "recomputed")]
    assert (costs[0]["phases"]["tune"]["flops"] < costs[1]["phases"]["tune"]["flops"]) == (model == "figure1")


def test_a_cached_phase_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"budget": "60step", "overrides": ("tune.augment=tilt-5", "tune.cache=true")}
    train(tmp_path / "whole", "aug-ft", **extra)
    undo = killed_at(45, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", "aug-ft", **extra)
    undo()
    finish(tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_cache_true_with_infinite_augmentation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AugendError, match="cache"):
        train(tmp_path / "run", "aug-ft", overrides=("tune.augment=[rotate]", "tune.cache=true"))


def test_a_bank_of_views_serves_infinite_augmentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"budget": "40step", "overrides": ("tune.augment=[rotate]", "tune.cache={views: 3}")}
    train(tmp_path / "whole", "aug-ft", **extra)
    undo = killed_at(31, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", "aug-ft", **extra)
    undo()
    finish(tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_damaged_newest_checkpoint_falls_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", "plain", budget="20step")
    undo = killed_at(15, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", "plain", budget="20step")
    undo()
    newest, before = RunFolder(tmp_path / "killed").checkpoints.paths()
    assert newest.name.endswith("15.ckpt") and before.name.endswith("14.ckpt")
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    said: list[str] = []
    resume(tmp_path / "killed", listen=lambda kind, values: said.append(values["text"]) if kind == "note" else None)
    assert any("damaged" in text and "falling back" in text for text in said)
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_a_diverging_run_stops_with_a_clear_line_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(AugendError, match="not finite"):
        train(tmp_path / "run", "plain", budget="200step", overrides=("optimizer=sgd", "optimizer.lr=1e20"))
    for path in RunFolder(tmp_path / "run").checkpoints.paths():
        from augend.checkpoint import read

        assert all(torch.isfinite(t).all() for t in read(path)[0].values() if t.is_floating_point())


def test_a_weight_without_gradient_is_an_error(tmp_path: Path) -> None:
    recipe = {
        "name": "headless",
        "phases": [
            {
                "name": "embed",
                "objective": {"soft-margin-triplet": {"of": "net.features"}},
                "train": "all",
                "order": {"groups": {"copies": 3}},
                "augment": "pixels",
            }
        ],
    }
    path = tmp_path / "headless.yaml"
    path.write_text(json.dumps({"headless": {k: v for k, v in recipe.items() if k != "name"}}))
    with pytest.raises(AugendError, match="get no gradient"):
        train(tmp_path / "run", str(path))


def test_keep_best_and_plateau_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plateau.yaml"
    path.write_text(
        "plateau:\n  phases:\n"
        "  - {name: first, until: {plateau: {watch: train/loss, patience: 1}, at most: 60step}, schedule: {lr: constant},\n"
        "     keep: {best: valid/accuracy}}\n"
        "  - {name: second, until: 10step, optimizer: fresh}\n"
    )
    train(tmp_path / "whole", str(path), budget="100step")
    plan = Plan.from_json((tmp_path / "whole" / "plan.json").read_text())
    assert plan.phases[1].steps == 10
    undo = killed_at(11, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", str(path), budget="100step")
    undo()
    finish(tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")


def test_two_processes_cannot_work_in_one_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.lock()
    with pytest.raises(AugendError, match="another process"):
        start(Job(data="tilted-digits", recipe="plain", budget="5step"), RunFolder(tmp_path / "run"), ONE_THREAD)
    folder.unlock()


def test_changed_pictures_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undo = killed_at(3, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "run", "plain", budget="10step")
    undo()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    record["data"]["main"]["digest"] = "0" * 32
    (tmp_path / "run" / "run.json").write_text(json.dumps(record))
    with pytest.raises(AugendError, match="have changed"):
        finish(tmp_path / "run")


def test_another_build_is_said_and_threads_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undo = killed_at(3, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "run", "plain", budget="10step")
    undo()
    path = tmp_path / "run" / "environment.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "torch": "1.0"}))
    said: list[str] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    resume(tmp_path / "run", listen=lambda kind, values: said.append(values["text"]) if kind == "note" else None)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    assert any("torch was '1.0'" in text and "last bits" in text for text in said)


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    how = ("optimizer=sgd", "optimizer.lr=1.0", "schedule={lr: constant}")
    train(tmp_path / "free", "plain", budget="1step", settings="quick", overrides=how)
    train(tmp_path / "clipped", "plain", budget="1step", settings="quick", overrides=(*how, "clip=0.01"))
    job = Job(data=SMALL, recipe="plain", budget="1step", settings="quick", overrides=how)
    begun = build_networks(resolve_job(job, splits_of(job)), splits_of(job), seed=0).state_dict()

    def moved(run: str) -> float:
        ended = {k.removeprefix("net/"): v for k, v in final_state(tmp_path / run).items() if k.startswith("net/")}
        return float(sum((ended[k] - v).square().sum() for k, v in begun.items()).sqrt())

    assert moved("clipped") == pytest.approx(0.01, rel=1e-3) and moved("free") > 0.02


def test_a_command_that_is_suggested_can_be_pasted(tmp_path: Path) -> None:
    out = tmp_path / "my runs" / "one"
    train(out, "plain", settings="quick", budget="2step")
    words = ["train", SMALL, "--recipe", "plain", "--settings", "quick", "--budget", "2step", "--out", str(out)]
    done = command(*words)
    asked = done.stderr.strip().rpartition("continue it with: ")[2]
    assert done.returncode == 2 and shlex.split(asked) == ["augend", "resume", str(out)]
    assert command(*shlex.split(asked)[1:]).returncode == 0
