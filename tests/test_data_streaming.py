"""Sets too large for memory: the same answers, read from the file."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import photos
from augend.contract import AugendError
from augend.data import Pictures, Split, load
from augend.data.rows import RowFile, StoredPixels, resident_limit


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """The same pictures in memory and in their file."""
    base = tmp_path_factory.mktemp("streaming")
    data = photos.fill(base / "data", {"a": 40, "b": 30, "c": 25})
    os.environ["AUGEND_CACHE"], before = str(base / "cache"), os.environ["AUGEND_CACHE"]
    try:
        return load(data, size=20, repeat=1), load(data, size=20, repeat=1, memory=1000)
    finally:
        os.environ["AUGEND_CACHE"] = before


def test_all_answers_are_those_of_pictures_in_memory(both: tuple[Split, Split]) -> None:
    resident, streamed = both
    assert streamed.train.streamed and not resident.train.streamed
    assert isinstance(streamed.test.pixels, StoredPixels) and streamed.shape == resident.shape == (3, 20, 20)
    assert streamed.digest == resident.digest and streamed.ids_digest == resident.ids_digest
    assert streamed.mean == resident.mean and streamed.std == resident.std
    assert streamed.train.counts(3) == resident.train.counts(3) and streamed.majority() == resident.majority()
    assert {k: v for k, v in streamed.record().items() if k != "notes"} == {
        k: v for k, v in resident.record().items() if k != "notes"
    }
    assert any("read from the cache batch by batch" in note for note in streamed.notes) and not resident.notes
    assert streamed.to("cpu").digest == resident.digest


CHANGES: dict[str, Callable[[Pictures], Pictures]] = {
    "as it is": lambda p: p,
    "taken": lambda p: p.take([5, 3, 3, 0]),
    "taken twice": lambda p: p.take(torch.arange(20)).take(torch.tensor([19, 2])),
    "smaller": lambda p: p.resized(11),
    "larger, then smaller": lambda p: p.resized(33).resized(9),
    "smaller, then taken": lambda p: p.resized(11).take([4, 1]),
    "joined": lambda p: p.take([7]).joined(p.take([1, 0])),
    "moved": lambda p: p.to("cpu").to(torch.device("cpu")),
    "back in memory": lambda p: p.resident(),
    "none": lambda p: p.take([]),
}


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_changed_pictures_are_the_same(both: tuple[Split, Split], change: str) -> None:
    resident, streamed = (CHANGES[change](split.train) for split in both)
    n = len(resident)
    assert len(streamed) == n and streamed.shape == resident.shape and streamed.ids == resident.ids
    assert streamed.streamed is (change != "back in memory")
    assert torch.equal(streamed.labels, resident.labels) and torch.equal(streamed.pixels[:], resident.pixels)
    assert torch.equal(torch.cat([*streamed.parts(), resident.pixels[:0]]), resident.pixels)
    if n:
        index = torch.tensor([[0, n - 1], [n // 2, n // 2]])
        for a, b in zip(streamed.fetch(index), resident.fetch(index), strict=True):
            assert torch.equal(a, b) and a.dtype == b.dtype
        assert torch.equal(streamed.pixels[-1], resident.pixels[-1])
        assert torch.equal(streamed.pixels[1 : n - 1], resident.pixels[1 : n - 1])
        assert torch.equal(streamed.pixels[torch.tensor([n - 1, 0])], resident.pixels[[n - 1, 0]])
    with pytest.raises(IndexError):
        streamed.fetch(torch.tensor([[n]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_on_a_gpu_only_what_is_fetched_moves(both: tuple[Split, Split]) -> None:
    resident, streamed = (split.to("cuda") for split in both)
    before = torch.cuda.memory_allocated()
    index = torch.tensor([[3, 1], [0, 7]])
    for where in (index, index.cuda()):
        for a, b in zip(streamed.train.fetch(where), resident.train.fetch(where), strict=True):
            assert a.device.type == "cuda" and torch.equal(a, b)
    assert streamed.train.streamed and torch.equal(streamed.test.pixels[2:5], resident.test.pixels[2:5])
    assert streamed.train.labels.device.type == "cuda" and torch.cuda.memory_allocated() - before < 10**5
    assert streamed.digest == resident.digest


def test_held_pieces_and_greys(both: tuple[Split, Split], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [split.hold({"external": 0.3}) for split in both]
    assert held[0].digest == held[1].digest and held[1].held["external"].streamed
    monkeypatch.setenv("AUGEND_CACHE", str(tmp_path / "cache"))
    for seed in range(12):
        (tmp_path / "grey" / "ab"[seed % 2]).mkdir(parents=True, exist_ok=True)
        photos.photo(seed).convert("L").save(tmp_path / "grey" / "ab"[seed % 2] / f"{seed}.jpg")
    monkeypatch.setenv("AUGEND_MEMORY", "1kB")
    streamed = load(tmp_path / "grey", size=12)
    monkeypatch.setenv("AUGEND_MEMORY", "1GB")
    resident = load(tmp_path / "grey", size=12)
    assert streamed.train.streamed and streamed.shape == (1, 12, 12) and not resident.train.streamed
    assert streamed.digest == resident.digest


def test_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUGEND_MEMORY", raising=False)
    assert 10**8 < resident_limit() < 10**13
    for text, wanted in (("1000", 1000), ("64MB", 64 * 10**6), ("1.5 GiB", 15 * 10**8), ("2k", 2000)):
        monkeypatch.setenv("AUGEND_MEMORY", text)
        assert resident_limit() == wanted
    monkeypatch.setenv("AUGEND_MEMORY", "a lot")
    with pytest.raises(AugendError, match="AUGEND_MEMORY is 'a lot'; give a number of bytes, as 500MB"):
        resident_limit()


def test_a_file_that_is_cut_is_one_line_and_a_removed_one_still_there(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(bytes(range(240)))
    file = RowFile(path, 24)
    assert file.read(torch.tensor([9, 0, 1, 2])).tolist()[0][:2] == [216, 217]
    with path.open("r+b") as handle:
        handle.truncate(200)
    with pytest.raises(AugendError, match="was cut short") as caught:
        file.read(torch.tensor([9]))
    assert "\n" not in str(caught.value)
    path.unlink()
    assert file.read(torch.tensor([3]), 2).tolist() == [[72, 73]]


needs_peak = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no memory peak on this system")
TRAIN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.argv = ["augend", "train", sys.argv[1], "--recipe", "plain", "--model", "linear", "--size", "128", "--budget", "6step",
            "--precision", "32-true", "--threads", "1", "--out", sys.argv[2], "batch=16"]
from augend.cli import main
try:
    main()
finally:
    # Not the peak of getrusage: that of a child begins with its parent's.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print("peak", int(peak.split()[1]) // 1024)
"""


def train(data: Path, out: Path, memory: str) -> int:
    """Megabytes that `augend train` needed at most."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(data), str(out)],
        env={
            **os.environ,
            "AUGEND_MEMORY": memory,
            "AUGEND_CACHE": str(out.parent / "cache"),
            "MALLOC_ARENA_MAX": "1",  # what is freed goes back at once, so that the peak is that of what was needed
            "MALLOC_MMAP_THRESHOLD_": "131072",
        },
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert ("batch by batch" in done.stderr) is (memory == "4MB")
    return int(done.stdout.split()[-1])


def trained_both_ways(folder: Path, pictures: int) -> tuple[int, int]:
    """Train on small files from the file and resident, to the same bits; the peaks of memory in MB."""
    rng = np.random.default_rng(0)
    for i in range(pictures):  # 49 kB each at 128 pixels; without compression, so that the test is quick
        file = folder / "data" / "ab"[i % 2] / f"{i:04d}.ppm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"P6 12 12 255\n" + rng.integers(0, 256, 432, np.uint8).tobytes())
    streamed = train(folder / "data", folder / "streamed", "4MB")
    resident = train(folder / "data", folder / "resident", "4GB")
    one, other = ((folder / how / "model.safetensors").read_bytes() for how in ("streamed", "resident"))
    assert one == other
    with np.load(folder / "streamed/predictions.npz") as one, np.load(folder / "resident/predictions.npz") as other:
        for name in ("ids", "labels", "probabilities", "split"):
            assert np.array_equal(one[name], other[name], equal_nan=name == "probabilities")
    return streamed, resident


@needs_peak
def test_training_from_the_file_gives_the_same_bits(tmp_path: Path) -> None:
    trained_both_ways(tmp_path, 200)


@pytest.mark.slow
@needs_peak
def test_training_from_the_file_needs_little_memory(tmp_path: Path) -> None:
    """Of 315 MB; peaks differ by up to 150 from run to run, with what the allocator keeps and the libraries' own pages."""
    streamed, resident = trained_both_ways(tmp_path, 6400)
    assert resident - streamed > 120, (resident, streamed)
