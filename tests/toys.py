"""A small trained classifier of made-up pictures (ten noisy patterns), for tests of attacks."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

CLASSES, SHAPE = 10, (1, 8, 8)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks this small are slower on several threads, much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Normalised(nn.Module):
    """Normalisation, then a small network with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.5))
        self.net = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1),
            nn.Flatten(), nn.Linear(192, CLASSES),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x - self.mean) / 0.25)


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """float32 ``(count, 1, 8, 8)`` on the grid of 256 grey levels, and labels."""
    patterns = torch.rand(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    noisy = (0.5 * patterns[labels] + 0.25 + 0.25 * torch.randn(count, *SHAPE, generator=draw)).clamp(0, 1)
    return (noisy * 255).round() / 255, labels


@functools.cache
def trained() -> nn.Module:
    """The classifier, in eval mode, about 90 % right. Tests must leave it as it is."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(1)
        model = Normalised()
        x, y = pictures(600, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(80):
            rows = torch.arange(step * 60, step * 60 + 60) % 600
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())
