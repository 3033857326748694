"""Orders from a file that names its pictures: they are those that are trained on, whatever their numbers there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from augend import AugendError, Draws
from augend.order import Given
from augend.runner.assembly import build_networks, stage
from augend.runner.job import Job, load_splits, resolve_job
from runs import SMALL, train


def _file(folder: Path, **words: Any) -> Path:
    (folder / "order.json").write_text(json.dumps(words))
    return folder / "order.json"


def _started(file: Path, size: int, ids: list[str] | None = None) -> Given:
    order = Given(str(file))
    order.ids = ids
    order.start(size, Draws(0, "order"))
    return order


def test_numbers_are_places_in_the_files_own_list(tmp_path: Path) -> None:
    file = _file(tmp_path, pictures=["d", "b"], batches=[[0, 1], [1, 1]])
    order = _started(file, 4, list("abcd"))
    assert [order.next(step, 2).index[:, 0].tolist() for step in (0, 1)] == [[3, 1], [1, 1]]
    with pytest.raises(AugendError, match=r"batch 0 has a number outside 0 \.\. 1"):
        _started(_file(tmp_path, pictures=["d", "b"], batches=[[3, 1]]), 4, list("abcd"))


def test_pictures_that_are_not_trained_on_are_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, pictures=["d", "x", "y"], batches=[[0, 1]])
    with pytest.raises(
        AugendError, match=r"2 of the 3 pictures that it names are not trained on, x among them; train on"
    ):
        _started(file, 4, list("abcd"))
    with pytest.raises(AugendError, match=r"1 of the 1 pictures .*, 7 among them"):
        _started(_file(tmp_path, pictures=[7], batches=[[0]]), 4, list("abcd"))


def test_a_bare_loop_says_which_pictures_are_which(tmp_path: Path) -> None:
    file = _file(tmp_path, pictures=["d", "b"], batches=[[0, 1]])
    assert _started(file, 2).next(0, 2).index[:, 0].tolist() == [0, 1]  # just these two, in the file's order
    with pytest.raises(AugendError, match=r"names 2 pictures, and there are 4; say which are which .* order.ids = "):
        _started(file, 4)


@pytest.mark.parametrize("batch", [[1.9, 0], [True, 0], ["1"], [[1]], [None], 3, {}])
def test_picture_numbers_are_whole(batch: Any, tmp_path: Path) -> None:
    with pytest.raises(AugendError, match="batch 1 is no list of picture numbers, which are whole"):
        _started(_file(tmp_path, batches=[[0], batch]), 4)


@pytest.mark.parametrize("words", [{"batches": 3}, {"batches": [[0]], "pictures": "ab"}, {}])
def test_files_that_hold_no_order(words: Any, tmp_path: Path) -> None:
    with pytest.raises(AugendError, match=r"order.json: holds no \{"):
        _started(_file(tmp_path, **words), 4)
    (tmp_path / "order.json").write_text("[1]")
    with pytest.raises(AugendError, match=r"order.json: holds no \{"):
        _started(tmp_path / "order.json", 4)


def test_numbers_too_large_for_a_tensor_are_outside(tmp_path: Path) -> None:
    with pytest.raises(AugendError, match="batch 0 has a number outside"):
        _started(_file(tmp_path, batches=[[2**80]]), 4)


def test_a_run_replays_the_pictures_that_are_named(tmp_path: Path) -> None:
    """On data of other pictures before them, and refused before anything is written where one is missing."""
    ids = load_splits(Job(data=SMALL, recipe="plain"))["main"].train.ids
    names = [ids[n] for n in (17, 3, 150, 80)]
    file = _file(tmp_path, pictures=names, batches=[[0, 1], [2, 3], [3, 0]])
    job = Job(
        data=SMALL,
        recipe="replay-order",
        budget="3step",
        settings="quick",
        params={"order": str(file)},
        overrides=("batch=2",),
    )
    splits = load_splits(job)
    plan = resolve_job(job, splits)
    scene = stage(plan.phases[0], build_networks(plan, splits, seed=0), splits, seed=0)
    shown = [scene.picks(step, Draws(0, "replay", step, 2), 0.0).index[:, 0].tolist() for step in range(3)]
    assert shown == [[17, 3], [150, 80], [80, 17]]
    how: dict[str, Any] = {"settings": "quick", "budget": "3step", "overrides": ("batch=2", f"order={file}")}
    assert train(tmp_path / "run", "replay-order", **how)["steps"] == 3
    _file(tmp_path, pictures=[*names[:3], "of another set"], batches=[[0, 1], [2, 3], [3, 0]])
    with pytest.raises(
        AugendError, match="1 of the 4 pictures that it names are not trained on, of another set among them"
    ):
        train(tmp_path / "other", "replay-order", **how)
    assert not (tmp_path / "other").exists()
