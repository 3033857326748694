"""`augend.fit` on a module and data of one's own, and the way back by `augend.load`."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import augend


def blobs(count: int, seed: int) -> list[tuple[Tensor, int]]:
    """A bright square on the left (class 0) or on the right (class 1), in noise."""
    generator = torch.Generator().manual_seed(seed)
    data = []
    for number in range(count):
        x = torch.rand(1, 8, 8, generator=generator) * 0.5
        x[:, 2:6, (4 if number % 2 else 0) : (8 if number % 2 else 4)] += 0.5
        data.append((x, number % 2))
    return data


def network(width: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 2))


def right(model: nn.Module, data: list[tuple[Tensor, int]]) -> float:
    with torch.no_grad():
        answers = model(torch.stack([x for x, _ in data])).argmax(1)
    return float((answers == torch.tensor([y for _, y in data])).float().mean())


@pytest.fixture
def trained(tmp_path: Path) -> tuple[nn.Sequential, Path]:
    net = network()
    result = augend.fit("plain", net, blobs(80, 0), blobs(40, 1), budget="60step", out=tmp_path / "run")
    assert result["valid"] > 0.9
    return net, tmp_path / "run"


def test_the_module_itself_is_trained(trained: tuple[nn.Sequential, Path]) -> None:
    net, _ = trained
    raw = blobs(40, 2)
    mean, std = (getattr(augend.load(trained[1], model=net).networks.stages("net"), k) for k in ("mean", "std"))
    assert right(nn.Sequential(Normalised(mean, std), net), raw) > 0.9


class Normalised(nn.Module):
    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def test_a_loaded_model_answers_as_the_trained_one(trained: tuple[nn.Sequential, Path]) -> None:
    net, run = trained
    x = torch.stack([x for x, _ in blobs(6, 3)])
    loaded = augend.load(run, model=network())
    stages = loaded.networks.stages("net")
    torch.testing.assert_close(loaded(x), net((x - stages.mean) / stages.std))


def test_loading_writes_into_no_module_of_the_user(trained: tuple[nn.Sequential, Path]) -> None:
    _, run = trained
    other = network()
    before = copy.deepcopy(other.state_dict())
    augend.load(run, model=other)
    assert all(torch.equal(before[key], value) for key, value in other.state_dict().items())


def test_the_same_call_again_gives_the_same_weights(trained: tuple[nn.Sequential, Path]) -> None:
    net, run = trained
    again = network()
    augend.fit("plain", again, blobs(80, 0), blobs(40, 1), budget="60step", out=run)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in again.state_dict().items())


def test_a_module_of_other_layers_is_refused(trained: tuple[nn.Sequential, Path]) -> None:
    with pytest.raises(augend.AugendError, match="do not fit"):
        augend.load(trained[1], model=network(width=9))


def test_another_process_is_told_to_bring_the_module(trained: tuple[nn.Sequential, Path], tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    from PIL import Image

    Image.new("L", (8, 8)).save(picture)
    done = subprocess.run(
        [sys.executable, "-m", "augend", "predict", str(trained[1]), str(picture)], capture_output=True, text=True
    )
    assert done.returncode == 2 and "module of your own (Sequential)" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
