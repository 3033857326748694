"""Banks on the disk: the same rows as in memory, found again, gone on with after a kill, never taken for others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import augend
from augend.contract import AugendError
from augend.stages.bank import Kept, Resident, chunks, fill

KEY = {"weights": "one", "size": 32}


def compute(rows: Tensor) -> dict[str, Tensor]:
    """A picture a row in channels-last order, a vector in another precision, and the row's number."""
    x = torch.arange(24.0).view(1, 3, 2, 4) + 100 * rows.view(-1, 1, 1, 1)
    vector = (rows.view(-1, 1) * torch.tensor([0.5, -3.0])).bfloat16()
    return {"map": x.contiguous(memory_format=torch.channels_last), ":vector": vector, "number": rows.clone()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]) and tensor.dtype == other[name].dtype, name
        assert tensor.stride() == other[name].stride(), name


@pytest.mark.parametrize("total", [1, 8, 19])
def test_the_disk_holds_what_memory_does(total: int, tmp_path: Path) -> None:
    wanted = fill(compute, total, 8)
    with Kept(tmp_path / "bank", KEY, total) as store:
        same(fill(compute, total, 8, store=store), wanted)
        assert (store.found, store.done) == (0, total)
    with Kept(tmp_path / "bank", KEY, total) as store:

        def never(rows: Tensor) -> dict[str, Tensor]:
            raise AssertionError("everything is there")

        found = fill(never, total, 8, store=store)
        assert store.found == total and store.seconds > 0
    same(found, wanted)
    found["map"][0] = 7  # of the mapping in memory, not of the file
    with Kept(tmp_path / "bank", KEY, total) as store:
        same(store.tensors(), wanted)


def test_chunks_go_on_where_they_were() -> None:
    assert [(rows.tolist(), real) for rows, real in chunks(5, 2, 4)] == [([4, 0], 1)]
    assert list(chunks(5, 2, 5)) == []
    assert isinstance(Resident(0).tensors(), dict)


CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from types import SimpleNamespace
import augend.stages.bank as bank
from test_bank import KEY, compute
bank.SAVE_SECONDS = 0.0

def until(rows):
    if int(rows[0]) == 24:
        os.kill(os.getpid(), signal.SIGKILL)
    return compute(rows)

with bank.Kept(Path({path!r}), KEY, 40) as store:
    bank.fill(until, 40, 8, store=store)
"""


def test_a_killed_bank_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "bank"
    child = CHILD.format(tests=str(Path(__file__).parent), path=str(path))
    assert subprocess.run([sys.executable, "-c", child], timeout=120).returncode == -signal.SIGKILL
    assert json.loads((path / "state.json").read_text())["done"] == 24
    with (path / "0.rows").open("ab") as file:
        file.write(b"a part of a row")  # as a kill in the middle of writing leaves it
    begun: list[int] = []

    def counted(rows: Tensor) -> dict[str, Tensor]:
        begun.append(int(rows[0]))
        return compute(rows)

    with Kept(path, KEY, 40) as store:
        same(fill(counted, 40, 8, store=store), fill(compute, 40, 8))
        assert store.found == 24 and begun == [24, 32]


def test_a_stale_or_damaged_bank_is_never_taken(tmp_path: Path) -> None:
    with Kept(tmp_path / "bank", KEY, 9) as store:
        fill(compute, 9, 4, store=store)
    for key, total, what in (({**KEY, "weights": "two"}, 9, "weights"), (KEY, 8, "rows")):
        with (
            pytest.raises(AugendError, match=f"made with other {what}; delete it"),
            Kept(tmp_path / "bank", key, total),
        ):
            pass
    with (tmp_path / "bank" / "1.rows").open("r+b") as file:
        file.truncate(3)
    with Kept(tmp_path / "bank", KEY, 9) as store:
        assert store.done == 0
        same(fill(compute, 9, 4, store=store), fill(compute, 9, 4))
    (tmp_path / "bank" / "state.json").write_text("{")
    with Kept(tmp_path / "bank", KEY, 9) as store:
        assert store.done == 0


def test_no_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with (
        pytest.raises(AugendError, match=r"the frozen network gives needs .* are free"),
        Kept(tmp_path / "bank", KEY, 9) as store,
    ):
        fill(compute, 9, 4, store=store)
    (tmp_path / "file").write_text("")
    with pytest.raises(AugendError, match="cannot keep what a frozen network gives"), Kept(tmp_path / "file", KEY, 9):
        pass


def test_two_processes_compute_once(tmp_path: Path) -> None:
    """The second waits for the first, then finds everything."""
    path = tmp_path / "bank"
    said: list[str] = []
    child = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\nfrom augend.stages.bank import Kept, fill\nfrom test_bank import KEY, compute\n"
        f"with Kept(Path({str(path)!r}), KEY, 40) as store:\n    print('mine', flush=True); time.sleep(1.5)\n"
        "    fill(compute, 40, 8, store=store)\n"
    )
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "mine\n"
        with Kept(path, KEY, 40, lambda: said.append("waiting")) as store:
            assert said and store.found == 40
    assert process.returncode == 0


def test_a_cached_trunk_is_kept_with_its_labels(tmp_path: Path) -> None:
    pictures = [(torch.rand(3, 8, 8), n % 3) for n in range(10)]
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    one = augend.cache_trunk(trunk, pictures, path=tmp_path / "bank", batch_size=4)
    two = augend.cache_trunk(trunk, pictures, path=tmp_path / "bank", batch_size=4)
    assert torch.equal(one.features, two.features) and two.labels.tolist() == [n % 3 for n in range(10)]
    with pytest.raises(AugendError, match="the data set is empty"):
        augend.cache_trunk(trunk, [])
