"""A study folder made of thin air: recipes with given true accuracies, as `augend compare` would leave it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri


@dataclass(frozen=True)
class Made:
    """One recipe to make: its true accuracy on test, seconds of training, number of phases."""

    accuracy: float
    seconds: float = 10.0
    phases: int = 1
    title: str = ""
    shifted: float | None = None


DEFAULT: Mapping[str, Made] = {
    "plain": Made(0.86, 6.0, 1, "plain training", 0.70),
    "augmented": Made(0.905, 10.0, 1, "augmented training", 0.80),
    "aug-ft": Made(0.90, 4.2, 2, "freeze, then augment", 0.79),
    "augment-then-plain": Made(0.89, 8.0, 2, "augment, then plain", 0.75),
}


def outcomes(
    accuracy: float, shared: NDArray[np.float64], rng: np.random.Generator, *, persistent: float = 0.7
) -> NDArray[np.bool_]:
    """Right or wrong with P = accuracy; a part of the difficulty of a picture (`shared`, standard normal) persists."""
    noise = rng.standard_normal(len(shared))
    return np.sqrt(persistent) * shared + np.sqrt(1 - persistent) * noise < ndtri(accuracy)


def answers(
    labels: NDArray[np.int64], right: NDArray[np.bool_], classes: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Probabilities whose largest entry is the label where right, another class where wrong."""
    count = len(labels)
    chosen = np.where(right, labels, (labels + rng.integers(1, classes, count)) % classes)
    top = np.where(right, rng.uniform(0.6, 0.999, count), rng.uniform(0.5, 0.9, count))
    rest = rng.dirichlet(np.ones(classes - 1), count) * (1 - top)[:, None] * 0.999
    shown = np.insert(np.zeros((count, classes - 1)), 0, 0.0, axis=1)
    for column in range(classes - 1):
        shown[np.arange(count), (chosen + 1 + column) % classes] = rest[:, column]
    shown[np.arange(count), chosen] = 1 - rest.sum(axis=1)
    return shown.astype(np.float32)


def grid(path: Path, rng: np.random.Generator) -> None:
    """A small picture of coloured tiles."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    tiles = rng.integers(0, 255, (4, 8, 3), dtype=np.uint8).repeat(28, 0).repeat(28, 1)
    Image.fromarray(tiles).save(path)


def make_study(
    folder: Path,
    recipes: Mapping[str, Made] = DEFAULT,
    *,
    repeats: int = 5,
    sizes: tuple[int, int, int] = (900, 300, 300),
    fixed_test: bool = False,
    fixed_valid: bool = False,
    classes: Sequence[str] = tuple("0123456789"),
    reference: str = "augmented",
    metric: str = "accuracy",
    margin: float = 0.01,
    seed: int = 0,
    finished: Sequence[str] | None = None,
    skewed: bool = False,
    curves: bool = True,
    grids: bool = False,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write the folder. `finished`: names of the trials that are done (None: all); `skewed`: class 0 holds half.

    `fixed_valid`, beside a fixed test set: validation is the same in every repeat.
    """
    rng = np.random.default_rng(seed)
    n_train, n_valid, n_test = sizes
    total, count = sum(sizes), len(classes)
    ids = np.array([f"{i % count}/picture-{i:05d}.png" for i in range(total)])
    labels = np.where(rng.random(total) < 0.5, 0, rng.integers(0, count, total)) if skewed else np.arange(total) % count
    labels = labels.astype(np.int64)
    difficulty = rng.standard_normal(total)
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "schema": 1,
        "command": "augend compare --out study",
        "data": {"name": "tilted-digits", "path": "tilted-digits", "digest": "blake2b:0123"},
        "default": True,
        "recipes": [{"name": n, "title": m.title or n, "phases": m.phases} for n, m in recipes.items()],
        "reference": reference,
        "repeats": repeats,
        "margin": margin,
        "seed": seed,
        "metric": metric,
        "plan": {name: {"steps": 800, "phases": {"train": 800}, "epochs": 32.0} for name in recipes},
        "n_train": n_train,
        "n_valid": n_valid,
        "n_test": n_test,
        "fixed_test": fixed_test,
        "classes": list(classes),
        "environment": {"torch": "2.13.0", "python": "3.11", "device": "cpu", "threads": 1},
        **(extra or {}),
    }
    (folder / "study.json").write_text(json.dumps(record, indent=1))
    for repeat in range(repeats):
        pool = rng.permutation(total - n_test) if fixed_test else rng.permutation(total)
        if fixed_valid:
            pool = np.concatenate([rng.permutation(n_train), np.arange(n_train, n_train + n_valid)])
        parts = {
            "train": pool[:n_train],
            "valid": pool[n_train : n_train + n_valid],
            "test": np.arange(total - n_test, total) if fixed_test else pool[n_train + n_valid :],
        }
        for name, made in recipes.items():
            trial = folder / "trials" / f"{name}-r{repeat}"
            trial.mkdir(parents=True, exist_ok=True)
            done = finished is None or trial.name in finished
            (trial / "state.json").write_text(json.dumps({"state": "finished" if done else "running"}))
            if not done:
                continue
            rows: dict[str, list[Any]] = {"ids": [], "labels": [], "probabilities": [], "split": []}
            levels = [("train", None), ("valid", made.accuracy), ("test", made.accuracy)]
            if made.shifted is not None:
                levels.append(("shifted:tilt", made.shifted))
            for split, level in levels:
                which = rng.permutation(parts["test" if split.startswith("shifted") else split])
                if level is None:
                    shown = np.full((len(which), count), np.nan, dtype=np.float32)
                else:
                    shown = answers(labels[which], outcomes(level, difficulty[which], rng), count, rng)
                rows["ids"].append(ids[which])
                rows["labels"].append(labels[which])
                rows["probabilities"].append(shown)
                rows["split"].append(np.full(len(which), split))
            np.savez(trial / "predictions.npz", **{k: np.concatenate(v) for k, v in rows.items()})
            spent = made.seconds * rng.uniform(0.98, 1.02)
            seconds = {"data": 0.05, "augment": 0.2, "step": 0.7, "cache": 0.04, "evaluation": 0.1, "order": 0.01}
            ledger = {
                "seconds": {part: share * spent for part, share in seconds.items()},
                "rows": 40000,
                "pictures": 40000,
                "flops": int(1e9 * made.seconds),
                "forward": 800,
                "backward": 800,
                "memory": 300 * 2**20,
            }
            (trial / "ledger.json").write_text(json.dumps({"phases": {"train": ledger}, "total": ledger}))
            if curves:
                _curve(trial / "metrics.jsonl", made, spent, rng)
            if grids and repeat == 0:
                for number in range(made.phases):
                    grid(trial / "grids" / f"phase{number + 1}-x.png", rng)
    return folder


def _curve(path: Path, made: Made, seconds: float, rng: np.random.Generator) -> None:
    lines = []
    for step in range(50, 801, 50):
        phase = min(made.phases, 1 + (step - 1) * made.phases // 800)
        row = {"phase": f"phase{phase}", "step": step, "global_step": step, "seconds": seconds * step / 800}
        lines.append({**row, "kind": "train", "loss": float(np.exp(-step / 200))})
        height = made.accuracy * (1 - np.exp(-step / 150)) + 0.01 * rng.standard_normal()
        lines.append({**row, "kind": "valid", "accuracy": float(height)})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
