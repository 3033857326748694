"""Stratified splits: exact sizes, every class where possible, stable over processes, redrawn by repeat."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from augend.contract import AugendError
from augend.data import Pictures, stratified
from augend.data.splits import limited, three_ways, two_ways
from augend.randomness import Draws


def pool(labels: list[int]) -> Pictures:
    n = len(labels)
    return Pictures(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.tensor(labels), tuple(map(str, range(n))))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("counts", "parts"),
    [
        ([50, 30, 20], (None, 0.2, 0.2)),
        ([997, 3, 11, 400], (None, 0.2, 0.2)),
        ([100] * 10, (200, 300)),
        ([7] * 13, (None, 13)),
        ([3] * 9, (None, 0.2, 0.2)),
        ([1000, 1, 2, 3], (10, 10, None)),
    ],
)
def test_parts_are_disjoint_exact_and_in_proportion(
    counts: list[int], parts: tuple[float | None, ...], seed: int
) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    n = len(labels)
    result = stratified(labels, parts, Draws(seed, "t"))
    sizes = [p if isinstance(p, int) else round(p * n) if p else None for p in parts]
    rest = n - sum(s for s in sizes if s is not None)
    assert [len(r) for r in result] == [rest if s is None else s for s in sizes]
    everything = torch.cat(result)
    assert len(everything.unique()) == len(everything)
    for index in result:
        assert torch.equal(index, index.sort().values)
        have = torch.bincount(labels[index], minlength=len(counts))
        quota = torch.tensor(counts) * len(index) / n
        # Rounding up or down, where no class is so rare that others make room for it.
        off = (have - quota).abs()
        assert (off < (1.5 if min(counts) > 3 else len(counts))).all()


def test_every_class_is_in_every_part_where_it_has_a_picture_for_each() -> None:
    counts = [900, 3, 3, 4, 2, 1]
    labels = torch.repeat_interleave(torch.arange(6), torch.tensor(counts))
    for seed in range(20):
        train, valid, test = stratified(labels, (None, 0.2, 0.2), Draws(seed, "t"))
        for part in (train, valid, test):
            assert {0, 1, 2, 3} <= set(labels[part].tolist())
        assert {4, 5} <= set(labels[train].tolist())  # what is too rare for all is trained on


def test_more_classes_than_places() -> None:
    labels = torch.arange(30).repeat(4)
    train, valid = stratified(labels, (None, 7), Draws(0, "t"))
    assert len(valid) == 7 and len(labels[valid].unique()) == 7
    assert len(labels[train].unique()) == 30


def test_balanced_classes_stay_balanced() -> None:
    labels = torch.arange(10).repeat(100)
    for index in stratified(labels, (600, 200, 200), Draws(3, "t")):
        assert torch.bincount(labels[index]).unique().numel() == 1


def test_one_label_for_all_is_plain_shuffling() -> None:
    hits = torch.zeros(40)
    for seed in range(400):
        hits[stratified(torch.zeros(40, dtype=torch.int64), (10,), Draws(seed, "t"))[0]] += 1
    # 100 expected, standard deviation 8.7
    assert hits.sum() == 4000 and (hits - 100).abs().max() < 4.5 * 8.7


def test_repeats_redraw_and_the_fixed_piece_stays() -> None:
    data = pool([0, 1] * 100)
    first, again, other = (three_ways(data, None, 0.2, 0.2, 0, r, what="t") for r in (0, 0, 1))
    assert all(a.ids == b.ids for a, b in zip(first, again, strict=True))
    assert all(a.ids != b.ids for a, b in zip(first, other, strict=True))
    assert {*first[0].ids, *first[1].ids, *first[2].ids} == set(data.ids)
    train, valid = two_ways(data, 50, None, 0, 1, what="t")
    assert len(train) == 150 and len(valid) == 50 and not set(train.ids) & set(valid.ids)
    assert limited(data, 20, 0, what="t").ids == limited(data, 20, 0, what="t").ids
    assert limited(data, None, 0, what="t") is data


def test_the_same_in_another_process() -> None:
    code = (
        "import torch; from augend.data import stratified; from augend.randomness import Draws;"
        "print([p.tolist() for p in stratified(torch.arange(5).repeat(12), (None, 0.2, 7), Draws(4, 's', 2))])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = [p.tolist() for p in stratified(torch.arange(5).repeat(12), (None, 0.2, 7), Draws(4, "s", 2))]
    assert out.strip() == str(here)


@pytest.mark.parametrize("parts", [(None, -1), (None, 1.5), (None, "10"), (5, 6), (None, True)])
def test_bad_parts_are_one_line(parts: tuple[object, ...]) -> None:
    with pytest.raises(AugendError) as caught:
        stratified(torch.arange(2).repeat(5), parts, Draws(0, "t"), what="mine")  # type: ignore[arg-type]
    assert str(caught.value).startswith("mine: ") and "\n" not in str(caught.value)
