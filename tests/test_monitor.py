"""The monitor sees what it should and leaves no trace in what is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from augend import AugendError
from augend.recipes.resolve import resolve
from runs import Killed, finish, killed_at, ledger, lines, train

PLAIN: dict[str, Any] = {"optimizer": {"adam": {"lr": 1e-3}}, "batch": 24, "pixels": "tilt-5"}
LOOK = (
    "monitor={every: 7step, order: {groups: {copies: 3}}, batch: 24, augment: pixels, norms: [net, 'net[conv3:]'], "
    "objective: {soft-margin-triplet: {weight: 0.1, of: net.features}}}"
)


def _settings(folder: Path) -> str:
    path = folder / "small.yaml"
    path.write_text(json.dumps(PLAIN))
    return str(path)


def _seen(folder: Path) -> list[dict[str, Any]]:
    return [line for line in lines(folder) if line["kind"] == "monitor"]


def test_training_is_the_same_with_and_without(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    train(tmp_path / "without", "init-embedding", settings=settings)
    train(tmp_path / "with", "init-embedding", settings=settings, overrides=(LOOK,))
    assert [line["global_step"] for line in _seen(tmp_path / "with")] == [0, 7, 14, 21, 28]
    assert [line["phase"] for line in _seen(tmp_path / "with")] == ["embed"] * 3 + ["classify"] * 2
    assert [line for line in lines(tmp_path / "with") if line["kind"] != "monitor"] == lines(tmp_path / "without")
    assert ledger(tmp_path / "with") == ledger(tmp_path / "without")
    for name in ("model.safetensors", "predictions.npz"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_values_are_right(tmp_path: Path) -> None:
    """At the last step: the norm by hand; before the first: log 2, where an untrained network maps all to one point."""
    train(
        tmp_path / "run", "init-embedding", settings=_settings(tmp_path), overrides=(LOOK.replace("7step", "30step"),)
    )
    first, last = _seen(tmp_path / "run")
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    weights = {name: t for name, t in tensors.items() if name.endswith(("weight", "bias"))}
    assert last["norm of net"] == pytest.approx(sum(float(t.double().norm()) for t in weights.values()), rel=1e-6)
    high = [t for name, t in weights.items() if "conv1" not in name and "conv2" not in name]
    assert last["norm of net[conv3:]"] == pytest.approx(sum(float(t.double().norm()) for t in high), rel=1e-6)
    assert first["soft-margin-triplet"] == pytest.approx(
        torch.tensor(2.0).log().item(), abs=0.1
    )  # its weight is not used


@pytest.mark.parametrize("step", [7, 10, 15])
def test_a_killed_run_sees_the_same(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(tmp_path)
    train(tmp_path / "whole", "init-embedding", settings=settings, overrides=(LOOK,))
    undo = killed_at(step, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", "init-embedding", settings=settings, overrides=(LOOK,))
    undo()
    finish(tmp_path / "killed")
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


@pytest.mark.parametrize(
    ("monitor", "fragment"),
    [
        ("{every: 2epoch}", "number of steps"),
        ("{every: 5step, norms: [nett]}", "'nett'"),
        ("{every: 5step, objective: {soft-margin-triplet: {of: nett.features}}}", "'nett'"),
        ("{every: 5step, train: net}", "train"),
        ("{}", "every"),
    ],
)
def test_a_mistake_is_one_line(monitor: str, fragment: str) -> None:
    with pytest.raises(AugendError, match=fragment):
        resolve(
            "plain",
            PLAIN,
            sizes={"main": 200},
            traits={"main": frozenset()},
            data="digits",
            model="figure1",
            budget="20step",
            overrides=[f"monitor={monitor}"],
        )


def test_too_few_validation_pictures(tmp_path: Path) -> None:
    with pytest.raises(AugendError, match="40 validation pictures"):
        train(
            tmp_path / "run",
            "plain",
            settings=_settings(tmp_path),
            overrides=("monitor={every: 5step, batch: 64, objective: cross-entropy}",),
        )
