"""Two architectures in one run: what each learns, that both are left, and that a kill changes nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import augend
from augend.evaluate.load import load
from augend.runner.job import Job
from runs import Killed, finish, killed_at, same_run, splits_of, train

PEERS = {
    "recipe": "multi-ait",
    "params": {"peer": "small"},
    "model": "figure1",
    "settings": "quick",
    "budget": "12step",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers") / "whole"
    train(folder, **PEERS)
    return folder


def test_each_is_left_with_its_own_predictions(whole: Path) -> None:
    nets = [load(whole), load(whole / "model-peer.safetensors")]
    assert [next(iter(net.about["networks"].values()))["model"]["word"] for net in nets] == ["figure1", "small"]
    assert nets[0].result == "net" and nets[1].result == "peer"
    test = splits_of(Job(data="digits:train=200,valid=40,test=60", recipe="plain"))["main"].test
    result = json.loads((whole / "result.json").read_text())
    for net, said in zip(nets, (result["test"], result["peer"]["test"]), strict=True):
        right = (net.probabilities(test.pixels).argmax(1) == test.labels).float().mean()
        assert float(right) == pytest.approx(said)
    assert set(result["networks"]) == {"net", "peer"}


@pytest.mark.parametrize("step", [1, 5, 11])
def test_a_killed_run_of_two_architectures_resumes_to_the_same_bits(
    step: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "killed"
    undo = killed_at(step, monkeypatch)
    with pytest.raises(Killed):
        train(folder, **PEERS)
    undo()
    finish(folder)
    same_run(whole, folder)
    for name in ("model-peer.safetensors", "predictions-peer.npz"):
        assert (whole / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_peer_is_exported_as_any_model(whole: Path, tmp_path: Path) -> None:
    target = tmp_path / "peer.pt2"
    command = [sys.executable, "-m", "augend", "export", str(whole / "model-peer.safetensors"), "--to", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    x = torch.rand(3, 1, 28, 28)
    made = torch.export.load(target).module()(x)
    torch.testing.assert_close(made, augend.load(whole / "model-peer.safetensors")(x), rtol=1e-4, atol=1e-5)


def test_what_a_peer_teaches_changes_the_other(whole: Path, tmp_path: Path) -> None:
    """With weight 0 the first network is bit for bit another; and with it, not what it would be alone."""
    alone = tmp_path / "alone"
    train(alone, **{**PEERS, "overrides": ("train.objective.mutual.weight=0",)})
    one, other = load_file(whole / "model.safetensors"), load_file(alone / "model.safetensors")
    assert one.keys() == other.keys() and any(not torch.equal(one[name], other[name]) for name in one)
