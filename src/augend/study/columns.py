"""What a reproduction says of a row beside its accuracies, and which row is chosen by validation."""

from __future__ import annotations

import json
from typing import Any

from augend.contract import AugendError
from augend.evaluate.metrics import nll, top_k
from augend.study.evidence import Evidence, read_json, read_rows
from augend.study.statistics import Estimate, mean_of, said
from augend.study.tables import TOP_FIVE, Choice

__all__ = ["augmenters", "chosen_by_validation", "measured", "score_difference", "scored"]

NOTHING = {"mean": None, "low": None, "high": None, "repeats": 0}


def measured(evidence: Evidence, row: str, measure: str) -> dict[str, Any]:
    """A measure of a row's runs, with its interval over the repeats alone.

    Args:
        measure: ``top-5`` or ``loss`` (cross-entropy in nats) of the test pictures, or ``PHASE/TERM``: a term of a phase's
            objective, unweighted, as the mean over steps that the run logged last; nothing for a row without it.
    """
    of = _term if "/" in measure else _of_predictions
    values = [of(evidence, row, repeat, measure) for repeat in evidence.repeats(row)]
    ends = (0, 1) if measure == TOP_FIVE else (0,) if "/" not in measure else ()
    known = [value for value in values if value is not None]
    floor = max((1 / pictures for _, pictures in known), default=0.0) if measure == TOP_FIVE else 0.0
    return said(mean_of([value for value, _ in known], floor), *ends) or NOTHING


def _of_predictions(evidence: Evidence, row: str, repeat: int, measure: str) -> tuple[float, int]:
    """The value, and of how many pictures: a share is no surer than one of them."""
    rows = read_rows(evidence.trials[row, repeat].folder / "predictions.npz")
    test = rows["split"] == "test"
    labels, probabilities = rows["labels"][test], rows["probabilities"][test]
    return (top_k(labels, probabilities, 5) if measure == TOP_FIVE else nll(labels, probabilities)), len(labels)


def _term(evidence: Evidence, row: str, repeat: int, measure: str) -> tuple[float, int] | None:
    folder = evidence.trials[row, repeat].folder
    phase, _, term = measure.partition("/")
    phases = {one["name"]: one for one in read_json(folder / "plan.json")["phases"]}
    weights = {one["name"]: one["weight"] for one in phases.get(phase, {}).get("terms", ())}
    if not weights.get(term):
        return None
    found, path = None, folder / "metrics.jsonl"
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            one = json.loads(line)
            if one.get("kind") == "train" and one.get("phase") == phase and term in one:
                found = float(one[term]) / weights[term]  # what is logged is its share of the loss
    except (OSError, ValueError) as error:
        raise AugendError(f"{path}: is no file of metrics ({error}); run this trial again") from error
    return None if found is None else (found, 1)


def chosen_by_validation(evidence: Evidence, choice: Choice, headline: str) -> dict[str, Any] | None:
    """Which of some rows is the best on validation pictures, and what it is on the others; None before all have as many runs.

    Args:
        headline: the split that the table is about.
    """
    if len({tuple(evidence.repeats(row)) for row in choice.among}) > 1 or not evidence.repeats(*choice.among):
        return None
    valid = {row: evidence.level(row, "valid") for row in choice.among}
    best = max(choice.among, key=lambda row: valid[row].mean)
    return {
        "says": choice.says,
        "chosen": best,
        "valid": {row: said(level, 0, 1) for row, level in valid.items()},
        "level": said(evidence.level(best, headline), 0, 1),
    }


def augmenters(evidence: Evidence, row: str) -> dict[str, dict[str, Any]]:
    """The networks of a row that learned to augment, as its first repeat scored them."""
    return _scores(evidence, row, evidence.repeats(row)[0]) if evidence.repeats(row) else {}


def _scores(evidence: Evidence, row: str, repeat: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read_json(evidence.trials[row, repeat].folder / "result.json").get(
        "augmenters", {}
    )
    return found


def scored(evidence: Evidence, row: str, network: str) -> dict[str, Any]:
    """The score of a network that learned to augment, on held-out pictures, with its interval over the repeats."""
    found = [_scores(evidence, row, repeat)[network]["score"] for repeat in evidence.repeats(row)]
    values = [score for score in found if score is not None]
    return {**(said(mean_of(values)) or NOTHING), "values": values}


def score_difference(evidence: Evidence, row: str, other: str) -> Estimate | None:
    """The paired difference between the scores of two rows' omegas."""
    differences = []
    for repeat in evidence.repeats(row, other):
        one, two = (_scores(evidence, name, repeat).get("omega", {}).get("score") for name in (row, other))
        if one is not None and two is not None:
            differences.append(float(one) - float(two))
    return mean_of(differences)
