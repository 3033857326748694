"""A bare loop with an order in it, as small as it can be."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from augend import Draws
from augend.order import LoopProbe

SIZE, ROWS = 50, 8


def loop(order: Any, seed: int = 0) -> tuple[Any, nn.Module, torch.optim.Optimizer, Tensor, Tensor]:
    """The order, started, and what it sees: model, optimizer, pictures and labels."""
    torch.manual_seed(seed)
    x, y = torch.randn(SIZE, 6), torch.arange(SIZE) % 3
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    held = torch.randn(20, 6), torch.arange(20) % 3
    probe = LoopProbe(model, optimizer, lambda i: (x[i], y[i]), held=held, scores=torch.arange(SIZE).float())
    order.start(SIZE, Draws(seed, "order"), probe)
    return order, model, optimizer, x, y


def steps_of(
    order: Any, model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: range
) -> list[list[int]]:
    """Train these steps; the pictures of each."""
    seen = []
    for step in steps:
        picks = order.next(step, ROWS, progress=step / 40)
        index = picks.index[:, 0]
        optimizer.zero_grad()
        rows = functional.cross_entropy(model(x[index]), y[index], reduction="none")
        rows.mean().backward()
        flat = torch.cat([p.grad.flatten() for p in model.parameters()])
        order.feedback(picks, loss=rows.detach(), gradient=flat)
        optimizer.step()
        seen.append(index.tolist())
    return seen
