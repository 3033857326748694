"""A trained model's loss on single pictures, written as a file of scores: what an order by a teacher reads."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

import torch

from augend.checkpoint import write_bytes
from augend.contract import AugendError
from augend.data import load as load_data
from augend.data.pictures import Split
from augend.evaluate.load import load
from augend.evaluate.predict import losses_and_entropies
from augend.recipes.resolve import Asked
from augend.runner.folder import RunFolder
from augend.runner.job import Job, load_splits

__all__ = ["write_scores"]

ROWS = 250
COLUMNS = ("id", "score", "entropy", "class", "piece")


def write_scores(run: str | Path, file: str | Path, data: str | None = None, root: str | None = None) -> dict[str, int]:
    """What a trained model says of every picture that a run might train on, clean: columns id, score, entropy, class, piece.

    The score is its cross-entropy, the entropy that of its soft label, both in nats.

    Args:
        run: a run's folder, or a model file with `data`.
        file: the CSV file to write.
        data: another data set or folder (default: the run's own); its classes must be the model's.
        root: folder of named data sets.

    Returns:
        Pictures of each piece that was scored. A test set that is the same in every repeat is left out; one that is redrawn
        is not, since another repeat trains on its pictures.
    """
    model = load(run)
    split = _own(Path(run), root) if data is None else load_data(data, root=root, size=max(model.shape[1:]))
    unknown = [name for name in split.classes if name not in model.classes]
    if unknown:
        raise AugendError(f"{split.name}: class {unknown[0]!r} is none of the model's")
    number = torch.tensor([model.classes.index(name) for name in split.classes])
    path, counts = Path(file), {}
    if path.is_dir() or not path.parent.is_dir():
        raise AugendError(
            f"--scores {path}: " + ("is a folder" if path.is_dir() else f"there is no folder {path.parent}")
        )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(COLUMNS)
    if path.exists() and not path.read_bytes().startswith(",".join(COLUMNS[:2]).encode()):
        raise AugendError(f"--scores {path}: is there already, and holds no scores; name another file")
    for piece, pictures in split.pieces().items():
        if not len(pictures) or piece.startswith("shifted/") or (piece == "test" and split.fixed_test):
            continue
        counts[piece] = len(pictures)
        for begin in range(0, len(pictures), ROWS):
            labels = number[pictures.labels[begin : begin + ROWS]]
            with torch.no_grad():
                answers = model(pictures.pixels[begin : begin + ROWS])
            said = losses_and_entropies(answers, labels)
            values = (said[name].tolist() for name in ("score", "entropy"))
            rows = zip(pictures.ids[begin : begin + ROWS], *values, labels.tolist(), strict=True)
            for one, loss, entropy, label in rows:
                writer.writerow([one, f"{loss:.6g}", f"{entropy:.6g}", model.classes[label], piece])
    write_bytes(path, table.getvalue().encode())
    return counts


def _own(run: Path, root: str | None) -> Split:
    folder = RunFolder(run)
    if (folder.path / "study.json").is_file():
        raise AugendError(f"{run}: is a study; name one of its runs, as {run}/trials/NAME, or pictures with --data")
    if not (folder.path / "run.json").is_file():
        raise AugendError(f"{run}: no run that says which pictures it was trained on; name them with --data")
    job = Job.from_json(folder.about()["job"])
    return load_splits(dataclasses.replace(job, root=root or job.root), Asked({"main": job.data}, {}))["main"]
