"""What augmenting embeddings saves over augmenting pictures: Equation 8 from a study's own terms, beside the measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from augend.cost import EmbeddingCost
from augend.study.evidence import Evidence, read_json

__all__ = ["equation8"]

_TRAINING = ("data", "augment", "step", "order")  # seconds of taking steps


def equation8(evidence: Evidence, pictures: str, embeddings: str, none: str) -> dict[str, Any] | None:
    """Networks' sizes, cost terms, and the ratio of costs over the head's training: predicted and measured.

    Args:
        pictures: the row whose head sees augmented pictures, each sent through the trunk.
        embeddings: that whose head sees augmented embeddings.
        none: that whose head sees embeddings as they are: what the head itself costs.

    Returns:
        None until every row has a trial, and where the head's embeddings were not cached; else ``costs`` in FLOPs and in
        seconds: a row's `trunk`, `augmenter` and `head`, the ratio as Equation 8 of the embedding paper has it (`predicted`)
        and as it was (`measured`), both with Omega's own training (``…_trained``), and the N from which Omega pays (of
        which one view is the picture itself).
    """
    rows = {name: _head(evidence, name) for name in (pictures, embeddings, none)}
    if any(row is None for row in rows.values()) or not (rows[none] or {}).get("FLOPs filling"):
        return None
    seen, made, plain = (rows[name] or {} for name in (pictures, embeddings, none))
    networks = read_json(evidence.trials[embeddings, evidence.repeats(embeddings)[0]].folder / "result.json")[
        "networks"
    ]
    train = evidence.record.sizes["train"]
    views = made["rows"] / train
    costs: dict[str, dict[str, Any]] = {}
    for unit in ("FLOPs", "seconds"):
        filled, head = plain[f"{unit} filling"] / train, plain[f"{unit} stepping"] / plain["rows"]
        if unit == "FLOPs":
            augmenter = 2.0 * networks["omega"]["macs"]
        else:
            augmenter = max(0.0, made[f"{unit} stepping"] / made["rows"] - head)
        cost = EmbeddingCost(filled, augmenter, head, fitting=made[f"{unit} fitting"] / train)
        alone = EmbeddingCost(filled, augmenter, head)
        spent = made[f"{unit} filling"] + made[f"{unit} stepping"]
        saw = (seen[f"{unit} filling"] + seen[f"{unit} stepping"]) * made["rows"] / seen["rows"]
        costs[unit] = {
            "trunk": filled,
            "augmenter": augmenter,
            "head": head,
            "predicted": alone.ratio(round(views), printed=True),
            "measured": saw / spent,
            "predicted_trained": cost.ratio(round(views), printed=True),
            "measured_trained": saw / (spent + made[f"{unit} fitting"]),
            "pays_from": cost.pays_from(),
        }
    return {"pictures": pictures, "embeddings": embeddings, "networks": networks, "views": views, "costs": costs}


def _head(evidence: Evidence, name: str) -> dict[str, float] | None:
    """What the head's phase of a row cost: filling caches and taking steps; and the phases before it (Omega's)."""
    if not evidence.repeats(name):
        return None
    trials = [evidence.trials[name, repeat] for repeat in evidence.repeats(name)]
    once = (
        2 * evidence.record.sizes["train"] * read_json(trials[0].folder / "result.json")["networks"]["source"]["macs"]
    )
    found = [_split(trial.ledger["phases"], once) for trial in trials]
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def _split(phases: Mapping[str, Any], once: int) -> dict[str, float]:
    """`once`: FLOPs of passing every picture through the trunk once, which a row does that fills a cache."""
    head, others = phases["head"], [phase for name, phase in phases.items() if name != "head"]
    stepping = sum(head["seconds"][part] for part in _TRAINING)
    filling = head["seconds"]["cache"] + head["seconds"].get("bank", 0.0)
    return {
        "rows": head["rows"],
        "seconds stepping": stepping,
        "seconds filling": filling,
        "seconds fitting": sum(phase["marginal_seconds"] + phase["seconds"].get("bank", 0.0) for phase in others),
        "FLOPs stepping": head["flops"] - (once if filling else 0),
        "FLOPs filling": once if filling else 0,
        "FLOPs fitting": sum(phase["flops"] for phase in others),
    }
