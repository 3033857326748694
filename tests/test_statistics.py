"""Intervals and probabilities against scipy and simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from augend.study import statistics
from augend.study.evidence import Evidence, _scored, one_set, read_record, read_trials
from augend.study.statistics import estimate, guess, picture_variance, pictures_needed, probabilities, resolvable
from fixture_study import make_study, outcomes

VALUES = [0.012, 0.031, -0.004, 0.022, 0.009]


def test_redrawn_splits_use_nadeau_and_bengio() -> None:
    found = estimate(VALUES, evaluated=300, trained=900)
    error = math.sqrt(np.var(VALUES, ddof=1) * (1 / 5 + 300 / 900))
    assert found.error == pytest.approx(error)
    low, high = stats.t.interval(0.95, 4, np.mean(VALUES), error)
    assert found.interval == pytest.approx((low, high))


def test_a_fixed_set_adds_the_pictures() -> None:
    found = estimate(VALUES, evaluated=5000, trained=200, pictures=2.5e-5)
    assert found.error == pytest.approx(math.sqrt(np.var(VALUES, ddof=1) / 5 + 2.5e-5))


def test_the_redrawn_formula_is_refused_outside_its_range() -> None:
    with pytest.raises(ValueError, match="evaluated <= trained"):
        estimate(VALUES, evaluated=901, trained=900)


def test_three_probabilities_are_those_of_the_t_distribution() -> None:
    found = estimate(VALUES, evaluated=300, trained=900)
    three = probabilities(found, 0.01)
    law = stats.t(4, found.mean, found.error)
    assert three is not None
    assert three.better == pytest.approx(law.sf(0.01))
    assert three.worse == pytest.approx(law.cdf(-0.01))
    assert three.better + three.within + three.worse == pytest.approx(1)


def test_one_repeat_has_no_interval() -> None:
    found = estimate([0.02], evaluated=300, trained=900)
    assert (found.error, found.interval, found.separated, probabilities(found, 0.01)) == (None, None, 0, None)
    assert resolvable(found) is None and resolvable(guess(1, evaluated=300, trained=900, fixed=False)) is None


def test_recipes_that_agree_everywhere_are_not_known_without_error() -> None:
    found = estimate([0.0] * 5, evaluated=50, trained=150)
    assert found.error == 1 / 50 and found.separated == 0


def test_copies_of_a_picture_are_no_pictures_more() -> None:
    """Five rows a picture, answered alike, know no more than one row a picture."""
    generator = np.random.default_rng(3)
    ids, labels = np.arange(60), generator.integers(0, 3, 60)
    values = [generator.integers(0, 2, 60).astype(float) for _ in range(4)]
    once = picture_variance([ids] * 4, values)
    five = picture_variance([ids.repeat(5)] * 4, [v.repeat(5) for v in values])
    assert five == pytest.approx(once)
    five = picture_variance([ids.repeat(5)] * 4, [v.repeat(5) for v in values], [labels.repeat(5)] * 4)
    assert five == pytest.approx(picture_variance([ids] * 4, values, [labels] * 4))
    unlike = picture_variance([np.arange(300)] * 4, [v.repeat(5) for v in values])
    assert unlike < once / 4  # what rows without their pictures would have claimed


def test_repeats_that_share_their_validation_pictures(tmp_path: Path) -> None:
    """A folder that brings its own: more repeats do not make more of them, whatever is known of its test set."""
    study = make_study(tmp_path, fixed_test=True, fixed_valid=True, sizes=(900, 100, 300), repeats=3, curves=False)
    record = read_record(study)
    evidence = Evidence(record, read_trials(record, test=False))
    found = evidence.difference("aug-ft", "plain", "valid")
    parts = [[evidence.trials[name, r].splits["valid"] for r in range(3)] for name in ("aug-ft", "plain")]
    moved = [one.right - two.right for one, two in zip(*parts, strict=True)]
    assert found is not None and found.spread is not None
    assert found.shared == pytest.approx(np.mean(moved, axis=0).var(ddof=1) / 100)
    assert found.shared > 3 * found.spread**2 * 100 / 900  # what redrawn pictures would have let believe
    assert one_set([np.array(["b", "a"]), np.array(["a", "b"])]) and not one_set([np.array(["a"])])
    assert not one_set([np.array(["a", "b"]), np.array(["a", "c"])])


def test_picture_variance_of_accuracy_and_of_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    ids = np.arange(60)
    labels = np.repeat([0, 1], [40, 20])
    values = [rng.integers(-1, 2, 60).astype(float) for _ in range(3)]
    means = np.mean(values, axis=0)
    assert picture_variance([ids] * 3, values) == pytest.approx(means.var(ddof=1) / 60)
    balanced = (means[:40].var(ddof=1) / 40 + means[40:].var(ddof=1) / 20) / 4
    assert picture_variance([ids] * 3, values, [labels] * 3) == pytest.approx(balanced)
    order = rng.permutation(60)  # another order in one repeat is the same set
    moved = picture_variance([ids, ids[order], ids], [values[0], values[1][order], values[2]])
    assert moved == pytest.approx(means.var(ddof=1) / 60)


def test_sets_that_overlap_in_part_count_each_picture_once() -> None:
    ids = [np.array(["a", "b", "c"]), np.array(["b", "c", "d"])]
    values = [np.array([1.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0])]
    assert picture_variance(ids, values) == pytest.approx(np.var([1.0, 0.5, 1.0, 0.0], ddof=1) / 4)


def test_a_resolvable_difference_is_separated_four_times_out_of_five() -> None:
    rng = np.random.default_rng(1)
    plan = guess(5, evaluated=400, trained=400_000, fixed=False)  # splits that hardly overlap: repeats are independent
    size = resolvable(plan)
    assert size is not None and plan.spread is not None
    draws = size + plan.spread * rng.standard_normal((4000, 5))
    share = np.mean([estimate(row, evaluated=400, trained=400_000).separated > 0 for row in draws])
    assert 0.77 < share < 0.83


def test_what_a_study_can_resolve_shrinks_with_pictures_and_hardly_with_repeats() -> None:
    few, many = (resolvable(guess(r, evaluated=300, trained=900, fixed=False)) for r in (5, 20))
    large = resolvable(guess(5, evaluated=1200, trained=3600, fixed=False))
    assert few is not None and many is not None and large is not None
    assert large == pytest.approx(few / 2)
    assert few > many > 0.6 * few


def test_pictures_needed() -> None:
    found = estimate(VALUES, evaluated=300, trained=900)
    now = resolvable(found, 20)
    assert now is not None
    assert pictures_needed(found, now * 1.01, 1500, 20) == 0
    assert pictures_needed(found, now / 2, 1500, 20) == 4500
    assert pictures_needed(found, 0.0, 1500, 20) is None
    assert pictures_needed(found, 1e-6, 1500, 20) is None


def _false_separations(n: int, *, fixed: bool, studies: int) -> float:
    """Two equal recipes, 300 pictures for test: how often the 95 % interval excludes 0."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(studies):
        difficulty = rng.standard_normal(1500)
        own = [
            0.6 * rng.standard_normal(1500) for _ in range(2)
        ]  # each recipe has pictures of its own that it finds hard
        values, pictures, ids = [], [], []
        for _ in range(n):
            test = np.arange(300) if fixed else rng.choice(1500, 300, replace=False)
            shared = difficulty[test]
            right = [outcomes(0.9, (shared + mine[test]) / math.sqrt(1.36), rng).astype(float) for mine in own]
            values.append(right[0].mean() - right[1].mean())
            pictures.append(right[0] - right[1])
            ids.append(test)
        shared_part = picture_variance(ids, pictures) if fixed else None
        hits += estimate(values, evaluated=300, trained=900, pictures=shared_part).separated != 0
    return hits / studies


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("n", [3, 5])
def test_equal_recipes_are_seldom_separated(n: int, fixed: bool) -> None:
    assert _false_separations(n, fixed=fixed, studies=400) <= 0.05


def test_scipy_stats_is_not_loaded() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from augend.study.statistics import estimate, probabilities;"
        "probabilities(estimate([0.0, 0.1], evaluated=10, trained=20), 0.01);"
        "assert 'scipy.stats' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_guess_is_of_the_right_size() -> None:
    """Two recipes at 90 % on 300 pictures: the guessed spread of a paired difference is near the simulated one."""
    rng = np.random.default_rng(2)
    differences = []
    for _ in range(300):
        shared = rng.standard_normal(300)
        differences.append(outcomes(0.9, shared, rng).mean() - outcomes(0.9, shared, rng).mean())
    spread = guess(5, evaluated=300, trained=900, fixed=False).spread
    assert spread is not None
    assert abs(np.std(differences) / spread - 1) < 1 / 3
    assert statistics.DISAGREEMENT == 0.10


def test_rotated_copies_are_known_by_their_ids() -> None:
    ids = np.array(["digits/01@-15", "digits/01@+0", "cat@2x.png", "digits/02"])
    rows = {
        "ids": ids,
        "labels": np.zeros(4, np.int64),
        "probabilities": np.full((4, 2), 0.5, np.float32),
        "split": np.array(["test"] * 4),
    }
    assert _scored(rows, "test").shows.tolist() == ["cat@2x.png", "digits/01", "digits/01", "digits/02"]
