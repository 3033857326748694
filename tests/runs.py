"""Small real runs for tests: the embedded digits, a few dozen steps, one thread."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from augend.checkpoint import read
from augend.data import Split
from augend.recipes.language import compose
from augend.recipes.library import load as load_recipe
from augend.runner import fitting, keeper
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, Kept, load_splits, resume, start
from augend.stages import fit

ONE_THREAD = Hardware(threads=1)
SMALL = "digits:train=200,valid=40,test=60"
KEPT: Kept = {}  # data sets that tests have read


class Killed(BaseException):
    """Ends a run in process, past every handler of ordinary exceptions."""


def train(
    folder: Path, recipe: str, *, budget: str = "30step", hardware: Hardware = ONE_THREAD, **job: Any
) -> dict[str, Any]:
    asked = Job(data=SMALL, recipe=recipe, budget=budget, **job)
    return start(asked, RunFolder(folder), hardware, splits=splits_of(asked))


@functools.cache
def required(recipe: str) -> dict[str, Any]:
    """Values of the parameters that a recipe does not have: files of scores, an order, an autoencoder, for `SMALL`; and
    autoencoders as small as they can be.
    """
    files = Path(tempfile.mkdtemp(prefix="augend-required-"))
    atexit.register(shutil.rmtree, files, ignore_errors=True)
    params = compose(load_recipe(recipe)).params
    found: dict[str, Any] = {"widths": [8, 16, 16], "latent": 16} if "widths" in params else {}
    for name in [key for key, value in params.items() if value == "required"]:
        if name == "vae":
            train(files / "vae", "denoise-then-classify", settings="quick", budget="6step", params=dict(found))
            found[name] = str(files / "vae" / "model.safetensors")
            continue
        found[name] = str(files / f"{name}.{'json' if name == 'order' else 'csv'}")
        train_ = splits_of(Job(data=SMALL, recipe="plain"))["main"].train
        lines = [f"{one},{0.1 * (n % 7)},{0.1 * (n % 5)}\n" for n, one in enumerate(train_.ids)]
        batches = [[(64 * step + n) * 7 % len(train_) for n in range(64)] for step in range(40)]
        text = json.dumps({"batches": batches}) if name == "order" else "id,score,entropy\n" + "".join(lines)
        Path(found[name]).write_text(text, encoding="utf-8")
    return found


def splits_of(job: Job) -> dict[str, Split]:
    """The job's data, read once for all tests."""
    return load_splits(job, kept=KEPT)


def killed_at(step: int, monkeypatch: Any) -> Callable[[], None]:
    """From now on every step is saved and the run dies right after global step `step`; returns how to undo that."""
    monkeypatch.setattr(keeper, "SAVE_SECONDS", 0.0)
    before = keeper.Keeper.after

    def after(self: keeper.Keeper, terms: Mapping[str, torch.Tensor]) -> bool:
        ended = before(self, terms)
        if self.at.global_step == step:
            raise Killed
        return ended

    monkeypatch.setattr(keeper.Keeper, "after", after)
    return monkeypatch.undo


def killed_in(place: str, count: int, monkeypatch: Any) -> Callable[[], None]:
    """From now on the run dies in a phase that is fitted: in the COUNTth batch that is embedded ("embedding"), after the
    COUNTth penalty that is tried ("fitting"), or when the weights stand and nothing is saved ("fitted")."""
    monkeypatch.setattr(keeper, "SAVE_SECONDS", 0.0)
    left = [count]

    def counted() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    def after(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any) -> Any:
            result = original(*args)
            if not (isinstance(result, torch.Tensor) and result.is_meta):  # a copy whose FLOPs are counted
                counted()
            return result

        monkeypatch.setattr(owner, name, wrapped)

    if place == "embedding":
        after(fitting.Embedder, "forward")
    elif place == "fitting":
        after(fit, "_chosen")
    else:
        after(keeper.Keeper, "fitted")
    return monkeypatch.undo


def finish(folder: Path) -> dict[str, Any]:
    job = Job.from_json(RunFolder(folder).read("run.json")["job"])
    return resume(folder, splits=splits_of(job))


def final_state(folder: Path) -> dict[str, torch.Tensor]:
    """Weights, optimizer, averages and order; a finished trial of a study has the model's weights alone."""
    newest = RunFolder(folder).checkpoints.paths()
    return read(newest[0])[0] if newest else load_file(folder / "model.safetensors")


def lines(folder: Path) -> list[dict[str, Any]]:
    """Metrics without what may differ: seconds."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in found]


def ledger(folder: Path) -> dict[str, Any]:
    """The ledger without seconds and memory."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: bare(v) for k, v in value.items() if "second" not in k and "memory" not in k}
        return value

    return bare(json.loads((folder / "ledger.json").read_text()))


def same_run(one: Path, other: Path) -> None:
    """Two runs ended with the same bits: weights, optimizer, metrics, ledger, predictions."""
    first, second = final_state(one), final_state(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert lines(one) == lines(other)
    assert [list(line) for line in lines(one)] == [list(line) for line in lines(other)]  # sums are taken in this order
    assert ledger(one) == ledger(other)
    for name in ("predictions.npz", "model.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
