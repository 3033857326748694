"""Measures of orders: against a plain loop for each order; the run that correlates them with what the orders came to."""

from __future__ import annotations

import copy
import json
import math
import multiprocessing
import os
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from augend import AugendError
from augend.contract import Component
from augend.data.pictures import Pictures
from augend.order import MEASURES, Copies, measure_orders
from augend.report import measured as page
from augend.study import measured
from augend.study.tables import kind_of
from augend.study.whole import rank_correlation

TABLE = "procedures/order-measures"


def _made() -> tuple[nn.Module, list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    x, y = torch.randn(5, 8, 6), torch.randint(0, 3, (5, 8))
    return model, list(zip(x[:4], y[:4], strict=True)), (x[4], y[4])


def _sgd(weights: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, lr=0.1, momentum=0.9)


def _naive(model: nn.Module, batches: Any, order: list[int], held: Any) -> dict[str, list[float]]:
    """One order by itself, every number by its definition."""
    model = copy.deepcopy(model)
    weights = list(model.parameters())
    optimizer, start = _sgd(weights), [w.detach().clone() for w in weights]
    found: dict[str, list[float]] = {name: [] for name in MEASURES}
    before: list[Tensor] = []

    def dot(one: list[Tensor], other: list[Tensor]) -> float:
        return sum(float((a * b).sum()) for a, b in zip(one, other, strict=True))

    def cosine(one: list[Tensor], other: list[Tensor]) -> float:
        return dot(one, other) / math.sqrt(dot(one, one) * dot(other, other))

    for number in order:
        x, y = batches[number]
        model.eval()
        outside = list(torch.autograd.grad(functional.cross_entropy(model(held[0]), held[1]), weights))
        clean = float(functional.cross_entropy(model(x), y).detach())
        model.train()
        loss = functional.cross_entropy(model(x), y)
        gradient = list(torch.autograd.grad(loss, weights))
        old = [w.detach().clone() for w in weights]
        for weight, own in zip(weights, gradient, strict=True):
            weight.grad = own
        optimizer.step()
        model.eval()
        update = [w.detach() - o for w, o in zip(weights, old, strict=True)]
        moved = [w.detach() - s for w, s in zip(weights, start, strict=True)]
        shares = [float((y == c).float().mean()) for c in range(3)]
        found["loss"].append(float(loss.detach()))
        found["delta"].append(clean - float(functional.cross_entropy(model(x), y).detach()))
        found["gradient"].append(math.sqrt(dot(gradient, gradient)))
        found["held-out"].append(cosine(gradient, outside))
        found["previous"].append(cosine(update, before) if before else math.nan)
        found["balance"].append(-sum(s * math.log(s) for s in shares if s) / math.log(3))
        found["distance"].append(math.sqrt(dot(moved, moved)))
        before = update
    return found


def test_measures_are_those_of_each_order_by_itself() -> None:
    model, batches, held = _made()
    orders = torch.tensor([[0, 1, 2, 3], [3, 1, 2, 0], [0, 1, 3, 2], [0, 2, 1, 3], [0, 1, 2, 3]])
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure_orders(model, _sgd, batches, orders, held=held, classes=3)
    for number, order in enumerate(orders.tolist()):
        for name, values in _naive(model, batches, order, held).items():
            torch.testing.assert_close(
                found[name][number],
                torch.tensor(values),
                equal_nan=True,
                rtol=1e-4,
                atol=1e-5,
                msg=f"{name} of {order}",
            )
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_measures_go_on_from_a_copy_with_its_momentum() -> None:
    """The first update of an order is that of the training before it, and its distance is from there."""
    model, batches, held = _made()
    trained = copy.deepcopy(model)
    optimizer = _sgd(trained.parameters())
    for x, y in batches[2:]:
        optimizer.zero_grad()
        functional.cross_entropy(trained(x), y).backward()
        optimizer.step()
    before = copy.deepcopy(trained)
    start = Copies.of(trained, optimizer)
    orders = torch.tensor([[0, 1], [1, 0]])
    found = measure_orders(model, _sgd, batches, orders, held=held, classes=3, start=start)
    for x, y in batches[:2]:
        optimizer.zero_grad()
        functional.cross_entropy(trained(x), y).backward()
        optimizer.step()
    moved = [w.detach() - b.detach() for w, b in zip(trained.parameters(), before.parameters(), strict=True)]
    distance = math.sqrt(sum(float((move * move).sum()) for move in moved))
    assert float(found["distance"][0, 1]) == pytest.approx(distance, rel=1e-4)
    with pytest.raises(AugendError, match="goes on from one copy, found 2"):
        measure_orders(model, _sgd, batches, orders, held=held, classes=3, start=start.take([0, 0]))


class _Partly(nn.Module):
    """A network that does not use all its weights."""

    def __init__(self, used: nn.Module) -> None:
        super().__init__()
        self.used, self.unused = used, nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_weights_that_the_loss_does_not_reach_are_one_line() -> None:
    model, batches, held = _made()
    partly = _Partly(model)
    with pytest.raises(AugendError, match=r"measure_orders: unused\.weight gets no gradient from the loss; freeze it"):
        measure_orders(partly, _sgd, batches, torch.tensor([[0, 1]]), held=held, classes=3)
    partly.unused.requires_grad_(False)
    found = measure_orders(partly, _sgd, batches, torch.tensor([[0, 1]]), held=held, classes=3)
    assert torch.equal(
        found["distance"],
        measure_orders(model, _sgd, batches, torch.tensor([[0, 1]]), held=held, classes=3)["distance"],
    )


def test_orders_are_numbers_of_batches() -> None:
    model, batches, held = _made()
    with pytest.raises(AugendError, match="orders are numbers of 4 batches"):
        measure_orders(model, _sgd, batches, torch.tensor([[0, 4]]), held=held, classes=3)


def test_rank_correlations_of_what_is_there() -> None:
    assert rank_correlation(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 4.0, 9.0, 16.0])) == pytest.approx(1)
    assert rank_correlation(np.array([1.0, np.nan, 3.0, 4.0]), np.array([9.0, 0.0, 4.0, 1.0])) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])) is None
    assert rank_correlation(np.array([1.0, 2.0]), np.array([1.0, 2.0])) is None


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made pictures in CIFAR-10's place."""
    generator = torch.Generator().manual_seed(0)

    def made(count: int) -> Pictures:
        pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
        return Pictures(pixels, torch.arange(count) % 10, tuple(f"p/{n}" for n in range(count)))

    both = made(400), made(400)
    monkeypatch.setattr(measured, "cifar10_pictures", lambda root: both)
    table = measured.load_measured(TABLE).model_copy(update={"model": Component("small", {})})
    monkeypatch.setattr(measured, "load_measured", lambda name: table)
    monkeypatch.setattr("augend.order.every.CHUNKS", (1,))  # two runs may find another number of copies the fastest


def _run(out: Path, **how: Any) -> dict[str, Any]:
    asked = {"seed": 0, "root": None, "command": "augend reproduce", "listen": lambda now: None, "workers": 1, **how}
    return measured.run_measured(TABLE, "smoke", out, **asked)


def test_a_run_goes_on_where_it_was_killed_and_is_shown(pictures: None, tmp_path: Path) -> None:
    whole = _run(tmp_path / "whole")

    class Killed(BaseException):
        pass

    def dying(now: Any) -> None:
        if now["start"] == 3:
            raise Killed

    with pytest.raises(Killed):
        _run(tmp_path / "killed", listen=dying)
    done = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "killed" / "starts").iterdir()}
    assert len(done) == 3
    again = _run(tmp_path / "killed")
    assert all((tmp_path / "killed" / "starts" / name).stat().st_mtime_ns == when for name, when in done.items())
    for one, other in zip(whole["starts"], again["starts"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    first = whole["starts"][0]["running"]
    assert first["loss"]["best"] == pytest.approx(min(first["losses"]), abs=1e-5) and len(first["losses"]) == 6
    for which in ("running", "renewed"):  # training went on between the starts
        assert whole["starts"][0][which]["losses"] != whole["starts"][1][which]["losses"]
        assert whole["correlations"][which]["previous"][0] is None and len(whole["correlations"][which]["loss"]) == 4
    assert first["losses"] != whole["starts"][0]["renewed"]["losses"]
    text = page.write(tmp_path / "whole", whole).read_text()
    assert "| held-out: cosine" in text and (tmp_path / "whole" / "figures" / "measures.png").is_file()
    assert json.loads((tmp_path / "whole" / "measures.json").read_text()) == whole
    said = re.search(r"Of (\d+) cells one in twenty", text)
    counted = len(re.findall(r"\d to [+−]\d", text.partition("trail the weights")[0]))  # that have an interval
    assert said is not None and int(said[1]) == counted
    fewer = copy.deepcopy(whole)
    fewer["correlations"]["running"]["loss"][0] |= {"low": None, "high": None}
    assert f"Of {counted - 1} cells" in page.write(tmp_path / "fewer", fewer).read_text()
    assert kind_of(TABLE) == "order-measures"


def test_splits_side_by_side_change_no_bit(pictures: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are shared out once a first start has said that it is worth it; one that is killed is carried on."""
    alone = _run(tmp_path / "alone")
    monkeypatch.setattr(measured, "WORTH", 0.0)
    heard: list[Any] = []

    def killing(now: Any) -> None:
        heard.append(now)
        if now["start"] == 2:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(AugendError, match=r"a process that tried a start has died .* repeat the command to go on"):
        _run(tmp_path / "beside", listen=killing, workers=2)
    assert not multiprocessing.active_children() and [now["start"] for now in heard][:2] == [1, 2]
    _run(tmp_path / "beside", workers=2)
    again: list[Any] = []
    for out in (tmp_path / "beside", tmp_path / "at once"):
        beside = _run(out, listen=again.append, workers=2)
        for one, other in zip(alone["starts"], beside["starts"], strict=True):
            assert {**one, "seconds": 0} == {**other, "seconds": 0}
        assert beside["correlations"] == alone["correlations"]
    assert [now["start"] for now in again] == [1, 2, 3, 4]  # each once


def test_later_starts_go_on_with_the_momentum_of_their_training(
    pictures: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, Copies]] = []

    def spied(name: str) -> None:
        real = getattr(measured, name)

        def spy(*given: Any, start: Copies | None = None, **how: Any) -> Any:
            if start is not None:
                begun.append((name, start))
            return real(*given, start=start, **how)

        monkeypatch.setattr(measured, name, spy)

    for name in ("every_order", "measure_orders"):
        spied(name)
    _run(tmp_path / "run")
    assert [name for name, _ in begun] == ["every_order", "measure_orders"] * 4
    for number, (_, start) in enumerate(begun):
        untrained = number % 4 < 2  # of each split: as it was made, then after an epoch
        assert (start.state == {}) == untrained
        assert untrained or all(float(own["momentum_buffer"].abs().sum()) > 0 for own in start.state.values())
    file = next((tmp_path / "run" / "starts").iterdir())
    kept = json.loads(file.read_text())
    kept["schema"] = 2
    file.write_text(json.dumps(kept))
    with pytest.raises(AugendError, match=r"is of an earlier version; give another --out"):
        _run(tmp_path / "run")


def test_a_measure_that_tells_is_bold() -> None:
    starts = [{"split": split, "running": {"correlation": {"loss": [0.5 + 0.01 * split, None]}}} for split in range(4)]
    sure, none = measured._over_splits(starts, "running", "loss")
    assert sure is not None and sure["low"] > 0.4 and sure["repeats"] == 4 and none is None
    assert page._cell(sure).startswith("**+0.5") and page._cell(none) == "–"
    assert page._cell({"mean": -0.1, "low": -0.3, "high": 0.1}) == "−0.10 (−0.30 to +0.10)"
