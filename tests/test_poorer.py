"""Fewer training pictures, false labels: what changes, what does not, and that every command can ask for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from augend import AugendError
from augend.data import load
from augend.runner.job import Job, Kept, load_splits
from augend.study.request import Request

SPLIT = load("digits")


def test_a_fraction_is_a_stratified_part_of_the_training_pictures() -> None:
    half = SPLIT.poorer(fraction=0.5)
    assert set(half.train.ids) < set(SPLIT.train.ids) and len(half.train) == round(0.5 * len(SPLIT.train))
    for before, after in zip(SPLIT.train.counts(10), half.train.counts(10), strict=True):
        assert abs(after - before / 2) <= 1
    assert half.valid is SPLIT.valid and half.test is SPLIT.test
    labels = dict(zip(SPLIT.train.ids, SPLIT.train.labels.tolist(), strict=True))
    assert [labels[name] for name in half.train.ids] == half.train.labels.tolist()


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 1.0])
def test_false_labels_are_drawn_from_all_classes(share: float) -> None:
    noisy = SPLIT.poorer(false_labels=share)
    wrong = noisy.train.labels != SPLIT.train.labels
    wanted, count = share * 0.9, len(wrong)
    assert abs(float(wrong.float().mean()) - wanted) < 4 * (wanted * (1 - wanted) / count) ** 0.5
    assert torch.bincount(noisy.train.labels[wrong], minlength=10).min() > 0
    assert noisy.train.ids == SPLIT.train.ids and torch.equal(noisy.train.pixels, SPLIT.train.pixels)
    assert torch.equal(noisy.valid.labels, SPLIT.valid.labels) and noisy.digest != SPLIT.digest
    assert noisy.notes[-1].startswith(f"{int(wrong.sum())} of {count} training labels are false")


def test_a_repeat_draws_its_own_and_always_the_same() -> None:
    one, again, other = (load("digits", repeat=r).poorer(0.5, 0.5).train for r in (0, 0, 1))
    assert one.ids == again.ids and torch.equal(one.labels, again.labels)
    assert one.ids != other.ids


@pytest.mark.parametrize(("fraction", "false_labels"), [(0.0, 0.0), (1.5, 0.0), (1.0, -0.1), (1.0, 1.1)])
def test_a_share_is_a_share(fraction: float, false_labels: float) -> None:
    with pytest.raises(AugendError, match=r"it is a share (from 0|above 0)"):
        SPLIT.poorer(fraction, false_labels)


def test_jobs_ask_for_it_and_older_jobs_do_not() -> None:
    job = Job(data="digits:train=200", recipe="plain", fraction=0.5, false_labels=0.5)
    assert len(load_splits(job)["main"].train) == 100
    raw = {key: value for key, value in job.to_json().items() if key not in ("fraction", "false_labels")}
    assert Job.from_json(raw).fraction == 1.0
    asked = Request(data="digits", recipes=("plain", "augmented"), poorer={"augmented": {"fraction": 0.1}})
    assert (asked.job("plain", 0).fraction, asked.job("augmented", 0).fraction) == (1.0, 0.1)


def test_the_command_says_what_it_did(tmp_path: Path) -> None:
    words = ["digits:train=200", "--recipe", "plain", "--budget", "4step", "--fraction", "0.5", "--false-labels", "0.2"]
    done = subprocess.run(
        [sys.executable, "-m", "augend", "train", *words, "--out", str(tmp_path / "run"), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "100 of 200 training pictures are used" in done.stderr and "training labels are false" in done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["job"]["fraction"] == 0.5


def test_one_repeats_data_make_room_for_the_next() -> None:
    """Repeats split the same pictures anew; a study of many must not hold them all."""
    kept: Kept = {}
    for repeat in (0, 0, 1):
        load_splits(Job(data="digits:train=30,valid=10,test=10", recipe="plain", repeat=repeat), kept=kept)
        assert [key[3] for key in kept] == [repeat]
