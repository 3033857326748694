"""The commands as a person uses and misuses them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import augend
import photos
from inprocess import run as here
from runs import SMALL, same_run


def run(*arguments: str, timeout: int = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "augend", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    done = run("train", SMALL, "--recipe", "plain", "--budget", "60step", "--out", str(out), "--json", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 60
    return out


def test_a_run_is_a_folder(trained: Path) -> None:
    for name in (
        "recipe.yaml",
        "plan.json",
        "environment.json",
        "metrics.jsonl",
        "ledger.json",
        "checkpoints",
        "model.safetensors",
    ):
        assert (trained / name).exists(), name
    assert json.loads((trained / "environment.json").read_text())["command"].startswith("augend train digits:")


def test_evaluate_says_what_the_run_said(trained: Path, tmp_path: Path) -> None:
    found = json.loads(here("evaluate", str(trained), "--json").stdout)
    assert found["splits"]["test"]["accuracy"] == json.loads((trained / "result.json").read_text())["test"]
    alone = shutil.copy(trained / "model.safetensors", tmp_path / "alone.safetensors")  # nothing beside it says more
    anew = json.loads(here("evaluate", str(alone), "--data", SMALL, "--json").stdout)
    assert anew["splits"]["test"]["accuracy"] == pytest.approx(found["splits"]["test"]["accuracy"])


def test_predict_pictures(trained: Path, tmp_path: Path) -> None:
    from PIL import Image

    from augend.data import load

    test = load(SMALL).test
    for number in range(6):
        Image.fromarray(test.pixels[number, 0].numpy()).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    done = here("predict", str(trained), str(tmp_path), "--json")
    rows = json.loads(done.stdout)
    assert done.returncode == 3 and "broken.png: not a readable picture" in done.stderr
    with torch.no_grad():
        shown = augend.load(trained)(test.pixels[:6]).softmax(1)
    assert [int(row["class"]) for row in rows] == shown.argmax(1).tolist()
    for row, expected in zip(rows, shown, strict=True):
        values, order = expected.topk(3)
        assert [int(one["class"]) for one in row["top"]] == order.tolist()
        assert [one["probability"] for one in row["top"]] == pytest.approx(values.tolist(), rel=1e-5)
        assert row["probability"] == row["top"][0]["probability"]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "broken.png").replace(tmp_path / "deep" / ".hidden.png")
    (tmp_path / "0.png").replace(tmp_path / "deep" / "er" / "=1+1,\n.png")
    done = here("predict", str(trained), str(tmp_path / "deep"), "--top", "2")
    assert done.returncode == 0 and done.stdout.count("%") == 2 and "=1+1,\\n.png: " in done.stdout
    assert len(json.loads(here("predict", str(trained), str(tmp_path), "--json", "--top", "99").stdout)[0]["top"]) == 10


def test_predictions_for_a_spreadsheet(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import csv

    from PIL import Image

    monkeypatch.chdir(tmp_path)
    names = ["=1+1.png", "+a.png", "-b.png", "@c.png", 'plain, "quoted".png']
    for name in names:
        Image.new("L", (30, 40), 90).save(name)
    done = run("predict", str(trained), *(f"./{name}" for name in names[:1]), "--csv", "--", *names[1:])
    header, *rows = csv.reader(done.stdout.splitlines())
    assert header == ["picture", "class", "probability", "class2", "probability2", "class3", "probability3"]
    assert [row[0] for row in rows] == ["'=1+1.png", "'+a.png", "'-b.png", "'@c.png", 'plain, "quoted".png']
    assert all(len(row) == 7 and float(row[2]) >= float(row[4]) >= float(row[6]) > 0 for row in rows)


def test_export_a_run(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    made = json.loads(here("export", str(trained), "--to", str(target), "--json").stdout)
    assert made["files"][0]["difference"] < 1e-5 and target.is_file() and (tmp_path / "model.md").is_file()
    again = here("export", str(trained), "--to", str(target))
    assert again.returncode == 2 and len(again.stderr.splitlines()) == 1 and "already" in again.stderr


MISTAKES: list[tuple[list[str], str]] = [
    (["train", "no-such-folder"], "no-such-folder"),
    (["train", "digits", "--recipe", "augmentd"], "did you mean 'augmented'"),
    (["train", "digits", "plain.agument=none"], "agument"),
    (["train", "digits", "--model", "resnet81", "--budget", "5step"], "resnet"),
    (["train", "digits", "--budget", "5 steps"], "5 steps"),
    (["train", "digits", "--precision", "half", "--budget", "5step"], "32-true"),
    (["train", "digits", "--plugin", "nowhere.py"], "nowhere.py"),
    (["compare", "digits", "--recipes", "plain,plain"], "twice"),
    (["compare", "digits", "--repeats", "0", "--budget", "5step"], "1 or more"),
    (
        ["compare", SMALL, "--recipes", "plain,augmented", "--reference", "augmentd", "--budget", "5step"],
        "mean 'augmented'",
    ),
    (["compare", SMALL, "--recipes", "plain,mixup", "--reference", "augmented", "--budget", "5step"], "(plain, mixup)"),
    (["compare", "digits", "--augment", "heavy", "--recipes", "plain", "--budget", "5step"], "heavy"),
    (["resume", "."], "no run"),
    (["evaluate", "."], "no finished run"),
    (["evaluate", "nowhere"], "nowhere: there is no such file or folder"),
    (["train", "digits", "--recipe", "vae-then-classify", "--model", "resnet"], "brings its own networks"),
    (
        ["train", "digits", "--recipe", "vae-then-classify", "--set", "widths=3"],
        "widths: found 3; allowed: a list of whole numbers",
    ),
    (["train", "digits", "--weights", "."], "is a folder; name a file"),
    (["predict", ".", "x.png"], "no model here"),
    (["export", ".", "--to", "m.safetensors"], "no model here"),
    (["export", ".", "--to", "m.h5"], "one of .onnx, .safetensors, .pt2"),
    (["report", "."], "no study"),
    (["trial", ".", "0"], "study.json"),
    (["recipes", "show", "aug-tf"], "aug-ft"),
]


@pytest.mark.parametrize(("arguments", "fragment"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line(
    arguments: list[str], fragment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = here(*arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1 and fragment in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists(), "a refused command leaves nothing behind"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_saves_and_says_how_to_go_on(number: int, code: int, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "augend",
        "train",
        SMALL,
        "--recipe",
        "plain",
        "--budget",
        "200000step",
        "--out",
        str(out),
    ]
    process = subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    late = threading.Timer(120, process.kill)
    late.start()
    assert any(line.startswith("phase ") for line in process.stderr)  # it has begun, however slow the machine
    late.cancel()
    time.sleep(1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"augend resume {out}" in said
    assert list((out / "checkpoints").glob("step-*.ckpt"))


def _ended(process: subprocess.Popen[str]) -> str:
    """What a process that should end says on stderr; one that does not is killed, so that the test fails and goes on."""
    try:
        return process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@pytest.mark.parametrize("seconds", [0.6, 2.0, 4.0])
def test_an_early_interrupt_is_one_line(seconds: float, tmp_path: Path) -> None:
    """While modules are imported, pictures decoded, steps timed."""
    data = photos.fill(tmp_path / "data", {"a": 200, "b": 200}, size=(400, 300))
    command = [sys.executable, "-m", "augend", "compare", str(data), "--time", "5min", "--out", str(tmp_path / "study")]
    environment = {**os.environ, "AUGEND_CACHE": str(tmp_path / "cache"), "AUGEND_OFFLINE": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        said = _ended(process)
    lines = [line for line in said.strip().splitlines() if not line.startswith("decoding: ")]
    assert process.returncode == 130 and lines == ["augend: interrupted; what was finished is kept"], said
    assert not (tmp_path / "study").exists()


DEAF = """
import time
from augend.cli import app, main

@app.command("deaf")
def deaf() -> None:
    print("begun", flush=True)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass

main()
"""


def test_an_interrupt_that_a_library_swallows_ends_the_command_all_the_same() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DEAF, "deaf"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        said = _ended(process)
    assert process.returncode == 130 and said == "augend: interrupted; what was finished is kept\n"


LOSS = '''
import torch
from torch import nn
import augend

@augend.register.objective("confident")
class Confident(nn.Module):
    """Cross-entropy plus a little entropy."""
    def __init__(self, weight: float = 0.1):
        super().__init__()
        self.weight = weight
    def forward(self, logits, targets):
        p = logits.log_softmax(1)
        return nn.functional.nll_loss(p, targets, reduction="none") - self.weight * (p.exp() * p).sum(1)
'''
RECIPE = "mine:\n  phases: [{name: plain, augment: pixels, objective: {confident: {of: net, weight: 0.2}}}]\n"


def test_a_loss_of_ones_own_goes_everywhere(tmp_path: Path) -> None:
    """Twelve lines outside the package: train, compare, kill and resume."""
    (tmp_path / "loss.py").write_text(LOSS)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    mine = ["--plugin", str(tmp_path / "loss.py"), "--budget", "60step", "--precision", "32-true"]
    done = run(
        "train", SMALL, "--recipe", str(tmp_path / "mine.yaml"), *mine, "--threads", "1", "--out", str(tmp_path / "run")
    )
    assert done.returncode == 0, done.stderr
    done = run(
        *("compare", SMALL, "--recipes", f"plain,{tmp_path / 'mine.yaml'}", *mine, "--repeats", "1", "--json"),
        *("--out", str(tmp_path / "study")),
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["recipes"]) == {"plain", "mine"}
    from killer import __file__ as killer

    marker = tmp_path / "killed"
    killed = run(
        *("train", SMALL, "--recipe", str(tmp_path / "mine.yaml"), *mine, "--threads", "1"),
        *("--out", str(tmp_path / "again"), "--plugin", killer),
        AUGEND_KILL=f"step:33:{marker}",
    )
    assert killed.returncode == -9 and marker.exists()
    assert run("resume", str(tmp_path / "again")).returncode == 0
    from runs import same_run

    same_run(tmp_path / "run", tmp_path / "again")


def test_a_study_is_continued_and_only_repeats_grow(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "study")]
    asked = ["compare", SMALL, "--recipes", "plain,augmented", "--budget", "20step"]
    assert here(*asked, "--repeats", "1", "--prepare-only", *out).returncode == 0
    said = json.loads((tmp_path / "study" / "study.json").read_text())["command"]
    assert said.startswith("augend compare") and "--prepare-only" not in said
    assert here("trial", str(tmp_path / "study"), "0").returncode == 0
    done = here("report", str(tmp_path / "study"))
    assert done.returncode == 3, done.stderr  # not every trial is there
    done = here("compare", *out, "--repeats", "2", "--json")
    assert done.returncode == 0, done.stderr
    results: dict[str, Any] = json.loads(done.stdout)
    assert results["trials"]["finished"] == 4
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "study" / "trials").rglob("*") if p.is_file()}
    assert here("compare", *out).returncode == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "study" / "trials").rglob("*") if p.is_file()}
    done = here("compare", *out, "--budget", "30step")
    assert done.returncode == 2 and "20step" in done.stderr and "30step" in done.stderr
    assert here("compare", *out, "--repeats", "1").returncode == 2


def test_the_report_needs_nothing_else(tmp_path: Path) -> None:
    done = here(
        "compare",
        SMALL,
        "--recipes",
        "plain",
        "--reference",
        "plain",
        "--budget",
        "5step",
        "--repeats",
        "1",
        "--out",
        str(tmp_path / "s"),
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "s" / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page


@pytest.mark.parametrize("command", [["compare", "digits"], ["train", "digits", "--recipe", "plain"]])
def test_out_is_a_file(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is said before anything is read, timed or trained."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("data were read")

    for room in ("augend.cli.train", "augend.runner.job", "augend.study.compare", "augend.study.sizing"):
        monkeypatch.setattr(f"{room}.load_splits", never, raising=False)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "closed").mkdir()
    for out in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / "closed" / "below"):
        with monkeypatch.context() as context:
            if out.parent.name == "closed":
                context.setattr(os, "access", lambda path, mode: Path(path).name != "closed")
            done = here(*command, "--out", str(out))
        assert done.returncode == 2 and done.stderr.startswith(f"augend: {out}: "), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """No file may grow past a size at which the first saving fails; without the limit the run ends as if nothing had been."""
    train = ["train", SMALL, "--recipe", "plain", "--budget", "60step", "--threads", "1", "--precision", "32-true"]
    assert run(*train, "--out", str(tmp_path / "whole")).returncode == 0
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, -1)); from augend.cli import main; "
        f"sys.argv = ['augend', *{[*train, '--out', str(tmp_path / 'run')]!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and "File too large" in done.stderr.splitlines()[-1]
    done = run("resume", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    same_run(tmp_path / "whole", tmp_path / "run")


def test_a_padded_folder_stays_padded(tmp_path: Path) -> None:
    """`--fit pad` reaches the model file, so predict sees a wide picture whole; it is refused where it means nothing."""
    from PIL import Image

    for number in range(24):  # what tells the classes apart is at the ends, which a centre crop cuts off
        kind, at = ("left", 0) if number % 2 else ("right", 52)
        picture = Image.new("RGB", (64, 16), (40, 40 + number, 40))
        picture.paste((250, 240, 230), (at, 0, at + 12, 16))
        (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "data" / kind / f"{number}.png")
    base = (
        "train",
        str(tmp_path / "data"),
        "--recipe",
        "plain",
        "--budget",
        "60step",
        "--size",
        "16",
        "--threads",
        "1",
    )
    done = here(*base, "--fit", "pad", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert augend.load(tmp_path / "run").about["fit"] == "pad"
    rows = json.loads(here("predict", str(tmp_path / "run"), str(tmp_path / "data"), "--json").stdout)
    assert sum(Path(row["picture"]).parent.name == row["class"] for row in rows) >= 22
    refused = here("train", SMALL, "--fit", "pad", "--out", str(tmp_path / "other"))
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    unknown = here(*base, "--fit", "pda", "--out", str(tmp_path / "other"))
    assert unknown.returncode == 2 and "did you mean 'pad'" in unknown.stderr
