"""What autoencoders made of changed pictures as numbers: shares, scores and differences with the intervals of a study."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from augend.evaluate.decoded import Decoded
from augend.study import given_back
from augend.study.attacked import share_of
from augend.study.evidence import Record
from augend.study.statistics import estimate


def record(*, fixed: bool) -> Record:
    sizes = {"train": 1000, "valid": 100, "test": 100}
    return Record(Path(), (), "mine", 9, 0.01, "accuracy", sizes, fixed, ("a", "b"), {})


def shares(*means: float, pictures: int = 400, apart: bool = False) -> list[given_back.OverPictures]:
    """One a repeat: of the first pictures the label is kept."""
    return [
        given_back.OverPictures(
            (np.arange(pictures) < round(mean * pictures)).astype(np.float64),
            np.array([f"{number if apart else 0}/{one}" for one in range(pictures)]),
        )
        for number, mean in enumerate(means)
    ]


def test_intervals_of_shares_are_shares() -> None:
    found = given_back.over_repeats(record(fixed=True), shares(0.0, 0.0, 0.4, pictures=5))
    assert found is not None and 0 == found["low"] < found["mean"] < found["high"] <= 1 and found["of"] == 5
    same = given_back.over_repeats(record(fixed=True), shares(0.0, 0.0, pictures=5))
    assert (
        same is not None and same["mean"] == 0 and same["high"] > 0.2
    )  # two repeats of five pictures are not sure of nothing
    assert given_back.over_repeats(record(fixed=True), shares(pictures=0)) is None
    assert given_back.over_repeats(record(fixed=True), shares(0.0, 0.0, pictures=0)) is None


def test_repeats_that_see_the_same_pictures_are_no_surer_than_these() -> None:
    """All six agree on every picture; how sure the mean is, the pictures alone say."""
    each = shares(*[0.5] * 6)
    alone = share_of(each[0].added, each[0].shows)
    found = given_back.over_repeats(record(fixed=True), each)
    assert found is not None and alone is not None
    assert found["high"] - found["low"] > alone["high"] - alone["low"] and found["high"] - found["mean"] < 0.1
    (one,) = shares(0.5)
    assert given_back.over_repeats(record(fixed=True), [one]) == {**alone, "of": 400}  # one repeat: Wilson's


def test_repeats_with_pictures_of_their_own_overlap() -> None:
    each = shares(0.2, 0.3, 0.7, apart=True)
    found = given_back.over_repeats(record(fixed=False), each)
    wanted = estimate([0.2, 0.3, 0.7], evaluated=400, trained=1000).interval
    assert found is not None and wanted is not None and wanted[0] < 0
    assert (found["low"], found["high"]) == (0, pytest.approx(min(1, wanted[1])))
    some = given_back.over_repeats(record(fixed=False), [*each, *shares(0.0, pictures=0)])
    assert some is not None and some["mean"] == found["mean"] and some["repeats"] == 3  # one that has no such picture


def looks(missed: list[list[float]], right: list[list[int]]) -> dict[int, given_back.Looked]:
    """One a repeat: pictures that a turn moves by 1 to 3, what is wrong after it, and whose labels the judge still sees."""
    out = {}
    for repeat, (one, kept) in enumerate(zip(missed, right, strict=True)):
        labels = np.zeros(len(one), np.int64)
        found = Decoded(labels)
        found.moved["rotate"], found.missed["rotate"] = np.linspace(1, 3, len(one)), np.array(one)
        found.judged |= {"changed/original": labels, "changed/rotate": labels + 1, "decoded/rotate": 1 - np.array(kept)}
        out[repeat] = given_back.Looked(found, np.array([f"{repeat}/{n}" for n in range(len(one))]), ("a", "b"))
    return out


def test_differences_of_what_is_given_back_know_their_pictures() -> None:
    """Two repeats that agree to the digit are no surer than one picture, and redrawn splits overlap."""
    few = record(fixed=False)
    few = dataclasses.replace(few, sizes={**few.sizes, "train": 40})
    mine = looks([[0.5] * 18, [0.5] * 18], [[1] + [0] * 17] * 2)
    back = given_back.GivenBack.of(few, {"mine": mine, "other": looks([[1.0] * 18, [1.0] * 18], [[0] * 18] * 2)}, {})
    kept = back.difference("mine", "other", "kept", "rotate")
    assert kept is not None and kept.mean == pytest.approx(1 / 18) and kept.error == pytest.approx(1 / 18)
    assert kept.separated == 0
    itself = back.difference("mine", "mine", "kept", "rotate")
    assert itself is not None and itself.mean == pytest.approx(1 / 18)  # over pictures left changed, which keep none
    undone = back.difference("mine", "other", "undone", "rotate")
    assert undone is not None and undone.mean == pytest.approx(0.5 / 2.0) and (undone.error or 0) >= 1 / 18
    assert back.difference("mine", "nobody", "kept", "rotate") is None


def test_a_scores_interval_is_that_of_a_ratio() -> None:
    rng = np.random.default_rng(0)
    moved, noise = rng.uniform(0.5, 3, 400), rng.uniform(0, 1, 400)
    found = Decoded(np.zeros(400, np.int64), moved={"rotate": moved}, missed={"rotate": moved * noise})
    look = given_back.Looked(found, np.array([str(n) for n in range(400)]), ("a",))
    score = given_back.summary(look)["rotate"]["score"]
    picks = rng.integers(0, 400, (2000, 400))
    drawn = 1 - (moved * noise)[picks].mean(1) / moved[picks].mean(1)
    assert score["mean"] == pytest.approx(1 - (moved * noise).mean() / moved.mean())
    assert (score["high"] - score["low"]) / 3.92 == pytest.approx(drawn.std(), rel=0.1)  # as drawn anew
