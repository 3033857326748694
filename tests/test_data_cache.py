"""Decoded once: kills, changes, two processes, full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photos
from augend.checkpoint import exclusive
from augend.contract import AugendError
from augend.data import load
from augend.data.cache import check_room, decoded
from augend.data.decode import decode_file
from augend.data.own import own

DECODE = """
import os, resource, signal, sys
from augend.data import cache
from augend.data.own import own
cache.SAVE_SECONDS, cache._TASK_FILES = 0.0, 4
kill_at, most_bytes = float(sys.argv[3]), int(sys.argv[4])
if most_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
def progress(done, total):
    print(done, total, flush=True)
    if done >= kill_at * total:
        os.kill(os.getpid(), signal.SIGKILL)
split = own(sys.argv[1], 16, cache=sys.argv[2], progress=progress)
print(split.digest, split.ids_digest)
"""


def started(data: Path, cache: Path, kill_at: float = 2.0, most_bytes: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DECODE, str(data), str(cache), str(kill_at), str(most_bytes)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> tuple[list[str], list[str]]:
    out, err = process.communicate(timeout=240)
    return out.splitlines(), err.splitlines()


def here(data: Path, cache: Path) -> tuple[str, list[tuple[int, int]]]:
    """Digests, and what progress said, of decoding in this process."""
    calls: list[tuple[int, int]] = []
    split = own(data, 16, cache=cache, progress=lambda done, total: calls.append((done, total)))
    return f"{split.digest} {split.ids_digest}", calls


def test_a_kill_at_80_percent_costs_only_the_rest(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 40, "b": 60})
    whole, _ = here(data, tmp_path / "other")

    killed = started(data, tmp_path / "cache", kill_at=0.8)
    assert said(killed)[0][-1] == "80 100" and killed.returncode == -signal.SIGKILL
    entry = next((tmp_path / "cache").iterdir())
    with (entry / "rows.u8").open("ab") as rows:
        rows.write(b"half a row")  # as a kill in the middle of a row leaves it
    with (entry / "index.jsonl").open("ab") as index:
        index.write(b'{"stamp": ["a/0')
    # What was decoded must not be decoded again: its files could not be any more.
    for file in sorted(data.rglob("*.jpg"))[:80]:
        stat = file.stat()
        file.write_bytes(b"x" * stat.st_size)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert here(data, tmp_path / "cache") == (whole, [(100, 100)])
    assert here(data, tmp_path / "cache") == (whole, [])


def test_two_processes_decode_each_file_once_and_agree(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 80, "b": 80})
    both = [started(data, tmp_path / "cache") for _ in range(2)]
    lines = [said(process)[0] for process in both]
    assert lines[0][-1] == lines[1][-1] == here(data, tmp_path / "other")[0]
    (entry,) = (tmp_path / "cache").iterdir()
    assert (entry / "rows.u8").stat().st_size == 160 * 3 * 18 * 18  # 16 pixels and their margin
    assert len((entry / "index.jsonl").read_text().splitlines()) == 160


def test_a_process_waits_for_the_one_that_decodes(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 5, "b": 5})
    whole, _ = here(data, tmp_path / "cache")
    (path,) = (tmp_path / "cache").iterdir()
    (path / "index.jsonl").unlink()
    with exclusive(path / "lock", lambda: None):
        other = started(data, tmp_path / "cache")
        assert other.stdout is not None and other.stdout.readline() == "0 10\n"  # says how far the other one is
        assert other.stdout.readline() == "0 10\n" and not (path / "index.jsonl").exists()
    lines, _ = said(other)
    assert lines[-2:] == ["10 10", whole]


def test_a_disk_that_is_full_is_one_line_and_keeps_what_was_done(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 40, "b": 40})
    _, errors = said(started(data, tmp_path / "cache", most_bytes=40000))
    assert "AugendError: cannot keep pictures in" in errors[-1] and "File too large" in errors[-1]
    assert "AUGEND_CACHE" in errors[-1]
    entry = next((tmp_path / "cache").iterdir())
    assert len((entry / "index.jsonl").read_text().splitlines()) >= 36  # of the 39 whose greys have room
    assert here(data, tmp_path / "cache")[0] == here(data, tmp_path / "other")[0]


def test_a_disk_without_room_is_said_before_the_long_decoding(tmp_path: Path) -> None:
    with pytest.raises(AugendError, match=r"need 1e\+06 GB in .* are free; set AUGEND_CACHE"):
        check_room(tmp_path, 10**15)
    check_room(tmp_path, 10)


def test_what_could_not_be_opened_is_tried_again_and_what_is_damaged_is_not(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 3})
    files = ["a/000.jpg", "a/001.jpg", "a/loop.jpg", "a/text.jpg"]
    (data / "a/loop.jpg").mkdir()  # opening it is an error of the system's, not of the picture
    (data / "a/text.jpg").write_text("no picture")
    calls: list[int] = []

    def again() -> dict[str, str]:
        found = decoded(data, files, 16, tmp_path / "cache", lambda done, total: calls.append(done))
        assert found.index.tolist() == [0, 1]
        return found.unreadable

    first = again()
    assert list(first) == ["a/loop.jpg", "a/text.jpg"] and "directory" in first["a/loop.jpg"]
    assert again() == first and calls == [4, 4]  # the folder is tried again
    assert len(next((tmp_path / "cache").glob("*/index.jsonl")).read_text().splitlines()) == 3


def test_sizes_fits_and_folders_have_entries_of_their_own(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 3}, size=(60, 30))
    files = [f"a/{i:03d}.jpg" for i in range(3)]
    for size, fit in ((16, "crop"), (16, "pad"), (8, "pad")):
        found = decoded(data, files, size, tmp_path / "cache", fit=fit)  # type: ignore[arg-type]
        for row, name in enumerate(files):
            wanted, _ = decode_file(data / name, size, fit)  # type: ignore[arg-type]
            assert np.array_equal(found.pixels[row].numpy(), wanted)
        assert found.sizes.tolist() == [[60, 30]] * 3
    assert len(list((tmp_path / "cache").iterdir())) == 3


# ---------------------------------------------------------------------------------------------- single files


def test_pad_keeps_the_edges_and_fills_with_the_mean(tmp_path: Path) -> None:
    wide = np.full((20, 60, 3), (10, 100, 200), np.uint8)
    wide[:, :3], wide[:, -3:] = (250, 0, 0), (0, 250, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    crop, _ = decode_file(tmp_path / "wide.png", 30)
    pad, _ = decode_file(tmp_path / "wide.png", 30, "pad")
    assert crop.shape == pad.shape == (3, 30, 30)
    assert crop[0].max() == 10 and (pad[0, 10:20, 0] > 200).all() and (pad[1, 10:20, -1] > 200).all()
    mean = np.asarray(Image.fromarray(wide).resize((30, 10), Image.Resampling.BILINEAR), float).mean((0, 1)).round()
    assert (pad[:, :10] == mean[:, None, None]).all() and (pad[:, 20:] == mean[:, None, None]).all()
    Image.fromarray(wide[..., 2].T.copy()).save(tmp_path / "high.png")
    grey, one_channel = decode_file(tmp_path / "high.png", 30, "pad")
    assert one_channel and (grey[:, :, 10:20] != grey[:, :, :1]).any() and len(np.unique(grey[:, :, :10])) == 1
    Image.new("RGB", (400, 1)).save(tmp_path / "line.png")
    assert decode_file(tmp_path / "line.png", 16, "pad")[0].shape == (3, 16, 16)
    for fit, says in (("pda", "did you mean 'pad'"), ("stretch", "known: crop, pad")):
        with pytest.raises(AugendError, match=says):
            load(tmp_path, fit=fit)


@pytest.mark.parametrize("turned", [1, 2, 3, 4, 5, 6, 7, 8])
def test_every_exif_orientation_is_shown_upright(tmp_path: Path, turned: int) -> None:
    upright = photos.photo(5, (64, 64))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that EXIF's takes back
    stored = upright if turned == 1 else upright.transpose(Image.Transpose(undo[turned]))
    stored.save(tmp_path / "a.jpg", exif=photos.exif(turned), quality=98)
    got, _ = decode_file(tmp_path / "a.jpg", 32)
    wanted = np.asarray(upright.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(got.astype(int) - wanted).mean() < 3


def test_palettes_and_wide_greys(tmp_path: Path) -> None:
    palette = photos.photo(1).quantize(64)
    palette.save(tmp_path / "p.png")
    got, grey = decode_file(tmp_path / "p.png", 48)
    wanted = np.asarray(palette.convert("RGB").crop((8, 0, 56, 48))).transpose(2, 0, 1)
    assert not grey and np.array_equal(got, wanted)
    Image.new("I", (8, 8), 65535).save(tmp_path / "i.tif")
    assert (decode_file(tmp_path / "i.tif", 8)[0] == 255).all()


def test_files_do_not_stay_open(tmp_path: Path) -> None:
    data = photos.fill(tmp_path / "data", {"a": 3, "b": 3})
    load(data)
    handles = Path("/proc/self/fd")
    if not handles.is_dir():
        pytest.skip("no list of open files on this system")
    before = len(list(handles.iterdir()))
    for repeat in range(20):
        load(data, repeat=repeat)
    assert len(list(handles.iterdir())) <= before + 2
