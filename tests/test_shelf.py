"""Shelves: rows found again by what entered, in any order, by any run, with the bits that computing them gives."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from augend.address import Address
from augend.contract import Saved
from augend.models import as_stages
from augend.runner import banks, keeper, lending
from augend.runner.lending import Lending
from augend.stages.bank import Kept
from augend.stages.networks import Networks
from augend.stages.shelf import Placed, Shelf, prune
from runs import final_state, finish, same_run, train

KEY = {"weights": "one", "batch": 8}


def shown(order: Tensor) -> Callable[[Tensor], Tensor]:
    """Pictures by number, in channels-last order; `order` says which picture row i is."""
    return lambda rows: (
        torch.arange(24.0).view(1, 3, 2, 4).add(100 * order[rows % len(order)].view(-1, 1, 1, 1))
    ).contiguous(memory_format=torch.channels_last)


class Counted:
    """A frozen network that counts what passes it."""

    def __init__(self, factor: float = 2.0) -> None:
        self.rows, self.factor = 0, factor

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        assert x.shape == (8, 3, 2, 4) and x.is_contiguous(memory_format=torch.channels_last)
        self.rows += len(x)
        return {"wide": self.factor * x.flatten(1), "vector": x.flatten(1)[:, ::5].bfloat16()}


def filled(path: Path, order: Tensor, network: Counted) -> tuple[dict[str, Placed], Shelf]:
    with Shelf(path, KEY) as shelf:
        return shelf.fill(shown(order), network, len(order), 8), shelf


def right(found: dict[str, Placed], order: Tensor, factor: float = 2.0) -> None:
    x = shown(order)(torch.arange(len(order))).flatten(1)
    for name, wanted in (("wide", factor * x), ("vector", x[:, ::5].bfloat16())):
        assert torch.equal(found[name].resident(), wanted)
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


def test_a_row_costs_the_same_wherever_it_stands_in_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Showing a chunk takes 8 ticks and computing a batch 4, so a row takes 1.5, with duplicates before it or without."""
    ticks = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: ticks[0])

    def slow(order: Tensor) -> Callable[[Tensor], Tensor]:
        def show(rows: Tensor) -> Tensor:
            ticks[0] += 8
            return shown(order)(rows)

        return show

    class Slow(Counted):
        def __call__(self, x: Tensor) -> dict[str, Tensor]:
            ticks[0] += 4
            return super().__call__(x)

    for name, order in (("plain", torch.arange(16)), ("shifted", torch.tensor([0, 0, 0, *range(1, 14)]))):
        with Shelf(tmp_path / name, KEY) as shelf:
            shelf.fill(slow(order), Slow(), 16, 8)
        assert shelf.seconds == pytest.approx(16 * 1.5), name


def test_rows_of_other_code_are_not_taken(tmp_path: Path) -> None:
    """The first batch, which the caller has computed, is compared with what lies there."""
    filled(tmp_path / "shelf", torch.arange(19), Counted())
    other = Counted(3.0)
    show, order = shown(torch.arange(4, 23)), torch.arange(4, 23)
    with Shelf(tmp_path / "shelf", KEY) as shelf:
        found = shelf.fill(show, other, 19, 8, first=other(show(torch.arange(8))))
        right(found, order, 3.0)
    assert other.rows == 8 + 24 and shelf.found == 0
    with Shelf(tmp_path / "shelf", KEY) as shelf:
        shelf.fill(show, other, 19, 8, first=other(show(torch.arange(8))))
    assert shelf.found == 19


def test_a_shelf_that_would_grow_too_large_begins_anew(tmp_path: Path) -> None:
    def grown(begin: int) -> int:
        order, network = torch.arange(begin, begin + 16), Counted()
        with Shelf(tmp_path / "shelf", KEY, most=16 * 3 * (4 * 24 + 2 * 5 + 16)) as shelf:
            found = shelf.fill(shown(order), network, 16, 8, first=network(shown(order)(torch.arange(8))))
            right(found, order)
        return int(json.loads((tmp_path / "shelf" / "state.json").read_text())["done"])

    assert [grown(begin) for begin in (0, 100, 200, 300)] == [16, 32, 48, 16]


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
    def left() -> set[str]:
        return {path.name for path in tmp_path.iterdir() if path.is_dir()}

    for age, name in enumerate(("new", "old", "oldest")):
        filled(tmp_path / name, torch.arange(8), Counted())
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    each = 60 + sum(file.stat().st_size for file in (tmp_path / "new").iterdir())  # times have more digits or fewer
    prune(tmp_path, 3 * each)
    assert left() == {"new", "old", "oldest"}
    with Shelf(tmp_path / "oldest", KEY):
        os.utime(tmp_path / "oldest", (1e9 - 2, 1e9 - 2))
        prune(tmp_path, 2 * each)
    assert left() == {"new", "oldest"}
    prune(tmp_path, 0)
    assert left() == set()
    prune(tmp_path / "nothing", 0)


WAITER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import torch
from augend.stages.shelf import Shelf
from test_shelf import KEY, Counted, filled, right
with Shelf(Path({path!r}), KEY, lambda: print("waiting", flush=True)) as shelf:
    found = shelf.fill(__import__("test_shelf").shown(torch.arange(40)), Counted(), 40, 8)
    right(found, torch.arange(40))
print(shelf.found)
"""


def test_who_waits_finds_what_the_other_left_also_when_it_was_deleted_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "shelf"
    child = WAITER.format(tests=str(Path(__file__).parent), path=str(path))
    for deleted in (False, True):
        with Shelf(path, KEY) as shelf:
            process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None and process.stdout.readline() == "waiting\n"
            shelf.fill(shown(torch.arange(40)), Counted(), 40, 8)
            if deleted:
                shutil.rmtree(path)
        said = process.communicate(timeout=120)[0].split()
        assert process.returncode == 0 and said[-1] == ("0" if deleted else "40")


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
    monkeypatch.setattr(lending, "LEAST_SECONDS", 1e9)
    train(tmp_path / "disk", "transfer-none", **LENT)
    assert final_state(tmp_path / "disk").keys() == final_state(tmp_path / "memory").keys()
    same_run(tmp_path / "memory", tmp_path / "disk")


def test_steps_and_closed_forms_find_each_others(passed: list[int], tmp_path: Path) -> None:
    """One tensor has one name on a shelf, whatever a phase calls it; batches have one shape."""
    how = {"budget": "20step", "model": "small"}
    train(tmp_path / "probe", "probe", **how)
    before = len(passed)
    train(tmp_path / "finetune", "finetune", **how)
    train(tmp_path / "again", "probe", **how)
    assert len(passed) == before
    same_run(tmp_path / "probe", tmp_path / "again")


def test_a_full_disk_costs_the_bank_and_not_the_run(
    passed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "wanted", "transfer-none", **LENT)
    shutil.rmtree(tmp_path / "kept")

    def full(self: Kept) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Kept, "_save", full)
        train(tmp_path / "full", "transfer-none", **LENT)
    same_run(tmp_path / "wanted", tmp_path / "full")
    spent = json.loads((tmp_path / "full" / "ledger.json").read_text())["total"]["seconds"]
    assert spent["cache"] > 0 == spent["bank"]


@pytest.mark.parametrize("recipe", ["transfer-embed", "transfer-ridge"])
def test_a_stop_while_a_later_view_is_filled_charges_nothing_twice(
    recipe: str, passed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For steps (omega's two views) and for a closed form of the same pairs."""
    steps = ("omega.until=10step",) if recipe == "transfer-embed" else ()
    until = ("base.until=10step", "head.until=20step", "pixels=hflip", *steps)
    how: dict[str, Any] = {"budget": "60step", "model": "small", "overrides": until}
    train(tmp_path / "wanted", recipe, **how)
    shutil.rmtree(tmp_path / "kept")
    views = [0]  # banks that were begun

    def filled(self: Shelf, show: Any, compute: Any, total: int, size: int, after: Any, first: Any) -> Any:
        views[0] += 1
        return before(self, show, compute, total, size, after, first)

    def stopping(self: keeper.Keeper) -> bool:
        if views[0] == 2:
            self.stop.asked = signal.SIGINT
        return asked(self)

    before, asked = Shelf.fill, keeper.Keeper.stopping
    with monkeypatch.context() as patch:
        patch.setattr(Shelf, "fill", filled)
        patch.setattr(keeper.Keeper, "stopping", stopping)
        with pytest.raises(Saved):
            train(tmp_path / "stopped", recipe, **how)
    finish(tmp_path / "stopped")
    same_run(tmp_path / "wanted", tmp_path / "stopped")


def test_what_a_row_depends_on_is_in_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path))

    def network(seed: int) -> Networks:
        torch.manual_seed(seed)
        layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
        layers.get_submodule("1").register_buffer("table", torch.zeros(3), persistent=False)
        return Networks({"net": as_stages(layers, ["2"])}, {"net": None}).eval()

    def name(networks: Networks, tensor: str = "features", size: int = 8, side: int = 2, **about: Any) -> str:
        place, _ = Lending({"precision": "32-true", **about})._place(
            networks, {"": Address("net", tensor)}, torch.zeros(size, 3, side, 2), {"": torch.zeros(size, 5)}, size
        )
        return place.name

    same = name(network(0))
    assert same == name(network(0))
    changed, buffered, normalised = network(0), network(0), network(0)
    with torch.no_grad():
        next(iter(changed.stages("net").parameters_of("classify"))).add_(1)
    assert same == name(changed)  # above the tensor that is kept
    with torch.no_grad():
        next(iter(changed.stages("net").parameters_of("1"))).add_(1)
        buffered.stages("net").get_submodule("model.1").table.add_(1)  # type: ignore[operator, union-attr]
    normalised.stages("net").normalise([0.5] * 3, [0.5] * 3)
    others = [
        name(changed),
        name(buffered),
        name(normalised),
        name(network(1)),
        name(network(0), ":2"),
        name(network(0), size=16),
        name(network(0), side=4),
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
