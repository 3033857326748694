"""A trained model judged on every split: from its stored predictions, or anew on other data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augend.checkpoint import read_arrays
from augend.contract import AugendError
from augend.data import load as load_data
from augend.data.pictures import Pictures, Split
from augend.evaluate import metrics
from augend.evaluate.load import Classifier, load

__all__ = ["judge", "scores"]


def scores(labels: NDArray[np.int64], probabilities: NDArray[np.float32], classes: tuple[str, ...]) -> dict[str, Any]:
    """Accuracy, balanced accuracy, cross-entropy (nats), expected calibration error and recall by class; shares in [0, 1].

    Args:
        labels: int64 ``(N,)``.
        probabilities: ``(N, C)``, rows sum to 1.
    """
    recall = metrics.recall(labels, probabilities)
    return {
        "pictures": len(labels),
        "accuracy": metrics.accuracy(labels, probabilities),
        "balanced_accuracy": metrics.balanced_accuracy(labels, probabilities),
        "nll": metrics.nll(labels, probabilities),
        "ece": metrics.calibration(labels, probabilities).error,
        "recall": {
            name: None if np.isnan(value) else float(value) for name, value in zip(classes, recall, strict=True)
        },
    }


def judge(
    run: str | Path, data: str | None = None, root: str | None = None, *, test_alone: bool = False
) -> dict[str, Any]:
    """Scores of a run's model on each split.

    Args:
        run: a run's folder (its stored predictions are used), or a model file with `data`.
        data: another data set, whose every piece is predicted anew; its classes must be the model's.
        root: folder of named data sets.
        test_alone: of `data`, the other pieces hold pictures that the model was trained on.
    """
    if data is None:
        return {"model": str(run), "data": None, "splits": _stored(Path(run))}
    model = load(run)
    split = load_data(data, root=root, size=max(model.shape[1:]))
    unknown = [name for name in split.classes if name not in model.classes]
    if unknown:
        raise AugendError(
            f"{data}: class {unknown[0]!r} is none of the model's ({', '.join(model.classes[:8])}"
            f"{', …' if len(model.classes) > 8 else ''})"
        )
    found = {
        piece.replace("shifted/", "shifted:"): _anew(model, split, pictures)
        for piece, pictures in split.pieces().items()
        if len(pictures) and (piece == "test" or not test_alone)
    }
    return {"model": str(run), "data": data, "splits": found}


def _stored(folder: Path) -> dict[str, Any]:
    file = folder / "predictions.npz"
    if (folder / "study.json").is_file():
        raise AugendError(
            f"{folder}: a study is judged in its report.html; judge one trial, as {folder}/trials/NAME, or name data to "
            "judge the model on: --data"
        )
    if not folder.exists():
        raise AugendError(f"{folder}: there is no such file or folder")
    if not file.is_file():
        raise AugendError(
            f"{folder}: no finished run (predictions.npz is missing); name data to judge a model file: --data"
        )
    try:
        rows = read_arrays(file, ("labels", "probabilities", "split"))
    except AugendError as error:
        raise AugendError(f"{error}; run it again") from error
    classes = load(folder).classes
    return {
        str(word): scores(rows["labels"][rows["split"] == word], rows["probabilities"][rows["split"] == word], classes)
        for word in dict.fromkeys(rows["split"].tolist())
        if word != "train"
    }


def _anew(model: Classifier, split: Split, pictures: Pictures) -> dict[str, Any]:
    shown = np.concatenate(
        [model.probabilities(pictures.pixels[begin : begin + 250]).numpy() for begin in range(0, len(pictures), 250)]
    )
    own = np.array([model.classes.index(name) for name in split.classes])
    return scores(own[pictures.labels.numpy()], shown, model.classes)
