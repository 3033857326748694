"""Metrics against scikit-learn and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from augend.evaluate import metrics


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 7, 500)
    logits = rng.standard_normal((500, 7)) + 1.5 * np.eye(7)[labels]
    shown = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, shown


def test_scores_equal_scikit_learns(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    labels, shown = drawn
    answers = shown.argmax(axis=1)
    assert metrics.accuracy(labels, shown) == pytest.approx(sk.accuracy_score(labels, answers), abs=1e-12)
    assert metrics.balanced_accuracy(labels, shown) == pytest.approx(sk.balanced_accuracy_score(labels, answers))
    assert metrics.nll(labels, shown) == pytest.approx(sk.log_loss(labels, shown))
    np.testing.assert_array_equal(metrics.confusion(labels, shown), sk.confusion_matrix(labels, answers))
    np.testing.assert_allclose(metrics.recall(labels, shown), sk.recall_score(labels, answers, average=None))
    for k in (1, 3, 6):
        assert metrics.top_k(labels, shown, k) == pytest.approx(sk.top_k_accuracy_score(labels, shown, k=k))


def test_ties_go_to_the_lowest_class_and_top_1_is_accuracy() -> None:
    shown = np.full((4, 4), 0.25)
    labels = np.array([0, 1, 2, 3])
    assert metrics.accuracy(labels, shown) == 0.25 == metrics.top_k(labels, shown, 1)
    assert metrics.top_k(labels, shown, 3) == 0.75


def test_calibration_equals_the_sum_over_bins(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    labels, shown = drawn
    found = metrics.calibration(labels, shown)
    sure, right = shown.max(axis=1), shown.argmax(axis=1) == labels
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (sure > low) & (sure <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert found.error == pytest.approx(error, abs=1e-12)
    assert found.count.sum() == 500


def test_calibration_of_a_network_that_is_always_sure_is_its_error_rate() -> None:
    labels = np.arange(10) % 2
    shown = np.tile([1.0, 0.0], (10, 1))
    found = metrics.calibration(labels, shown)
    assert found.error == 0.5
    assert found.count[-1] == 10 and np.isnan(found.accuracy[0])


def test_rows_that_are_not_finite_are_wrong_answers() -> None:
    shown = np.array([[0.9, 0.1], [np.nan, np.nan], [0.2, 0.8]])
    labels = np.array([0, 0, 1])
    assert metrics.predicted(shown).tolist() == [0, -1, 1]
    assert metrics.accuracy(labels, shown) == pytest.approx(2 / 3)
    assert metrics.top_k(labels, shown, 2) == pytest.approx(2 / 3)
    assert metrics.confusion(labels, shown).sum() == 2
    assert math.isnan(metrics.nll(labels, shown))
    assert metrics.worst_mistakes(labels, shown).tolist() == []


def test_a_class_without_pictures_has_no_recall_and_does_not_count() -> None:
    labels, shown = np.array([0, 0, 2]), np.eye(3)[[0, 1, 2]]
    assert np.isnan(metrics.recall(labels, shown)[1])
    assert metrics.balanced_accuracy(labels, shown) == 0.75


def test_worst_mistakes_are_the_surest_wrong_answers() -> None:
    shown = np.array([[0.6, 0.4], [0.95, 0.05], [0.9, 0.1], [0.05, 0.95], [0.9, 0.1]])
    labels = np.array([1, 0, 1, 0, 1])
    assert metrics.worst_mistakes(labels, shown, 3).tolist() == [3, 2, 4]


def test_nll_of_an_impossible_answer_is_finite() -> None:
    assert metrics.nll(np.array([1]), np.array([[1.0, 0.0]])) == pytest.approx(-math.log(1e-12))
