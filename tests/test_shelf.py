"""Shelves: rows found again by what entered, in any order, by any run, with the bits that computing them gives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from augend.address import Address
from augend.models import as_stages
from augend.runner import banks, lending
from augend.runner.lending import Lending
from augend.stages.networks import Networks
from augend.stages.shelf import Placed, Shelf, prune
from runs import final_state, same_run, train

KEY = {"weights": "one", "batch": 8}


def shown(order: Tensor) -> Callable[[Tensor], Tensor]:
    """Pictures by number, in channels-last order; `order` says which picture row i is."""
    return lambda rows: (torch.arange(24.0).view(1, 3, 2, 4).add(100 * order[rows].view(-1, 1, 1, 1))).contiguous(
        memory_format=torch.channels_last
    )


class Counted:
    """A frozen network that counts what passes it."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        assert x.shape == (8, 3, 2, 4) and x.is_contiguous(memory_format=torch.channels_last)
        self.rows += len(x)
        return {"map": 2 * x, "vector": x.flatten(1)[:, ::5].bfloat16()}


def filled(path: Path, order: Tensor, network: Counted) -> tuple[dict[str, Placed], Shelf]:
    with Shelf(path, KEY) as shelf:
        return shelf.fill(shown(order), network, len(order), 8), shelf


def right(found: dict[str, Placed], order: Tensor) -> None:
    x = shown(order)(torch.arange(len(order)))
    for name, wanted in (("map", 2 * x), ("vector", x.flatten(1)[:, ::5].bfloat16())):
        assert torch.equal(found[name].resident(), wanted) and found[name].resident().stride() == wanted.stride()
        assert torch.equal(found[name][torch.tensor([3, 0, 3])], wanted[[3, 0, 3]]) and len(found[name]) == len(order)


def test_what_was_computed_is_found_in_any_order_and_only_the_rest_is_computed(tmp_path: Path) -> None:
    network = Counted()
    found, shelf = filled(tmp_path / "shelf", torch.arange(19), network)
    right(found, torch.arange(19))
    assert network.rows == 24 and shelf.found == 0 and shelf.seconds > 0
    other = torch.tensor([18, 3, 40, 0, 41, 3, 40, 7, 8, 9, 10])
    found, shelf = filled(tmp_path / "shelf", other, network)
    right(found, other)
    assert network.rows == 32 and shelf.found == 8  # 40 and 41 are new, once each
    found, shelf = filled(tmp_path / "shelf", other, network)
    right(found, other)
    assert network.rows == 32 and shelf.found == 11
    assert json.loads((tmp_path / "shelf" / "state.json").read_text())["done"] == 21


def test_seconds_are_those_of_the_rows_whoever_computed_them(tmp_path: Path) -> None:
    _, first = filled(tmp_path / "shelf", torch.arange(16), Counted())
    _, again = filled(tmp_path / "shelf", torch.arange(16), Counted())
    _, half = filled(tmp_path / "shelf", torch.arange(8), Counted())
    assert again.seconds == first.seconds and half.seconds == pytest.approx(first.seconds / 2)


CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
import augend.stages.bank as bank
from augend.stages.shelf import Shelf
from test_shelf import KEY, Counted, shown
bank.SAVE_SECONDS = 0.0
network = Counted()

def until(x):
    if network.rows == 24:
        os.kill(os.getpid(), signal.SIGKILL)
    return network(x)

with Shelf(Path({path!r}), KEY) as shelf:
    shelf.fill(shown(torch.arange(40)), until, 40, 8)
"""


def test_a_killed_shelf_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "shelf"
    child = CHILD.format(tests=str(Path(__file__).parent), path=str(path))
    assert subprocess.run([sys.executable, "-c", child], timeout=120).returncode == -signal.SIGKILL
    with (path / "1.rows").open("ab") as file:
        file.write(b"a part of a row")
    network = Counted()
    found, shelf = filled(path, torch.arange(40), network)
    right(found, torch.arange(40))
    assert shelf.found == 24 and network.rows == 16


def test_a_damaged_shelf_is_computed_anew(tmp_path: Path) -> None:
    filled(tmp_path / "shelf", torch.arange(8), Counted())
    with (tmp_path / "shelf" / "0.rows").open("r+b") as file:
        file.truncate(100)
    network = Counted()
    right(filled(tmp_path / "shelf", torch.arange(8), network)[0], torch.arange(8))
    assert network.rows == 8


def test_the_oldest_shelves_go_first_and_those_in_use_stay(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        filled(tmp_path / name, torch.arange(8), Counted())
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    each = sum(file.stat().st_size for file in (tmp_path / "new").iterdir())
    prune(tmp_path, 3 * each)
    assert {p.name for p in tmp_path.iterdir()} == {"new", "old", "oldest"}
    with Shelf(tmp_path / "oldest", KEY):
        os.utime(tmp_path / "oldest", (1e9 - 2, 1e9 - 2))
        prune(tmp_path, 2 * each)
    assert {p.name for p in tmp_path.iterdir()} == {"new", "oldest"}
    prune(tmp_path, 0, keep=tmp_path / "new")
    assert {p.name for p in tmp_path.iterdir()} == {"new"}
    prune(tmp_path / "nothing", 0)


# ---------------------------------------------------------------- in runs

LENT = {"budget": "40step", "model": "small", "overrides": ("base.until=10step", "head.until=30step")}


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Every bank is kept, in a folder of this test; the number of rows that pass frozen networks, a batch an entry."""
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path / "kept"))
    monkeypatch.setattr(lending, "LEAST_SECONDS", 0.0)
    rows: list[int] = []
    before = Shelf.fill

    def fill(self: Shelf, show: Any, compute: Any, *rest: Any) -> Any:
        def counted(x: Tensor) -> Any:
            rows.append(len(x))
            return compute(x)

        return before(self, show, counted, *rest)

    monkeypatch.setattr(Shelf, "fill", fill)
    return rows


def test_a_run_that_finds_its_embeddings_ends_in_the_same_bits_at_the_same_price(
    passed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "first", "transfer-none", **LENT)
    assert sum(passed) >= 200
    before = len(passed)
    train(tmp_path / "second", "transfer-none", **LENT)
    assert len(passed) == before  # nothing was computed again
    monkeypatch.setattr(lending, "LEAST_SECONDS", 1e9)
    train(tmp_path / "alone", "transfer-none", **LENT)
    same_run(tmp_path / "first", tmp_path / "second")
    same_run(tmp_path / "first", tmp_path / "alone")
    one, two, alone = (
        json.loads((tmp_path / name / "ledger.json").read_text())["total"] for name in ("first", "second", "alone")
    )
    assert one["seconds"]["bank"] == two["seconds"]["bank"] > 0 == alone["seconds"]["bank"]
    assert one["seconds"]["cache"] == two["seconds"]["cache"] == 0 < alone["seconds"]["cache"]
    assert two["marginal_seconds"] == pytest.approx(two["training_seconds"] - two["seconds"]["bank"])


def test_other_recipes_find_what_one_has_left(passed: list[int], tmp_path: Path) -> None:
    """Omega's first view and its controls show the same pictures, though in batches of another shape."""
    until = ("base.until=10step", "omega.until=10step", "head.until=20step", "pixels=hflip")
    how = {"budget": "60step", "model": "small", "overrides": until}
    train(tmp_path / "embed", "transfer-embed", **how)
    before = len(passed)
    train(tmp_path / "noise", "transfer-noise", **how)
    assert len(passed) == before


def test_a_closed_form_finds_them_too(passed: list[int], tmp_path: Path) -> None:
    how = {"budget": "20step", "model": "small"}
    train(tmp_path / "one", "probe", **how)
    assert (before := len(passed)) > 0
    train(tmp_path / "two", "probe", **how)
    assert len(passed) == before
    same_run(tmp_path / "one", tmp_path / "two")


def test_banks_that_do_not_fit_in_memory_are_read_from_the_disk(
    passed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "memory", "transfer-none", **LENT)
    for module in (lending, banks):
        monkeypatch.setattr(module, "CACHE_BYTES", 100)
    monkeypatch.setattr(banks.worth_caching, "__defaults__", (100, 0))
    monkeypatch.setattr(lending, "LEAST_SECONDS", 1e9)
    train(tmp_path / "disk", "transfer-none", **LENT)
    assert final_state(tmp_path / "disk").keys() == final_state(tmp_path / "memory").keys()
    same_run(tmp_path / "memory", tmp_path / "disk")


def test_what_a_row_depends_on_is_in_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path))

    def network(seed: int) -> Networks:
        torch.manual_seed(seed)
        layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
        return Networks({"net": as_stages(layers, ["2"])}, {"net": None}).eval()

    def name(networks: Networks, tensor: str = "features", size: int = 8, **about: Any) -> str:
        shelf = Lending({"precision": "32-true", **about}).shelf(networks, [Address("net", tensor)], size)
        assert shelf is not None
        return shelf._kept.path.name

    same = name(network(0))
    assert same == name(network(0))
    changed = network(0)
    with torch.no_grad():
        next(iter(changed.stages("net").parameters_of("classify"))).add_(1)
    assert same == name(changed)  # above the tensor that is kept
    with torch.no_grad():
        next(iter(changed.stages("net").parameters_of("1"))).add_(1)
    normalised = network(0)
    normalised.stages("net").normalise([0.5] * 3, [0.5] * 3)
    others = [
        name(changed),
        name(network(1)),
        name(normalised),
        name(network(0), ":2"),
        name(network(0), size=16),
        name(network(0), precision="bf16-mixed"),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_no_folder_to_keep_them_in_is_no_error(
    passed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path / "file"))
    train(tmp_path / "run", "transfer-none", **LENT)
    assert json.loads((tmp_path / "run" / "ledger.json").read_text())["total"]["seconds"]["cache"] > 0
