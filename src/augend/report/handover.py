"""A trained model handed over: files that other programs read, each checked on real pictures, and a card beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augend.checkpoint import write_bytes
from augend.contract import AugendError
from augend.evaluate.export import LIMIT, check_target, export_model
from augend.evaluate.load import Classifier, load
from augend.evaluate.pictures import picture_files, read_picture
from augend.report.card import card
from augend.study.origin import origin_of, real_pictures

__all__ = ["export"]

CHECKED = 64


def export(
    run: str | Path,
    to: str | Path | Sequence[str | Path],
    *,
    model: nn.Module | None = None,
    pictures: Tensor | Sequence[str | Path] | None = None,
) -> dict[str, Any]:
    """Write a trained model as ONNX, plain safetensors or a torch program, with a card beside it.

    Every file is read back by its own reader and must answer as the original does, to 1e-4 in every logit; otherwise
    nothing is written. Files that exist are never replaced.

    Args:
        run: a run's or a study's folder, or a ``model.safetensors`` in one.
        to: one file or several: ``.onnx`` (needs the extra ``onnx``), ``.safetensors`` or ``.pt2``.
        model: for a run of `augend.fit`: a module of the same layers as the trained one.
        pictures: what the check is done on: uint8 or float pictures ``(n, C, H, W)``, or picture files and folders. By
            default test pictures of the run's own data.

    Returns:
        ``files``, each with its ``file``, ``format``, ``bytes``, ``difference`` (of a logit), ``pictures`` and ``reader``;
        the ``card``; and ``limit``.

    Example:
        >>> import augend
        >>> data = [(torch.rand(1, 8, 8), n % 2) for n in range(40)]
        >>> net, folder = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), getfixture("tmp_path")
        >>> finished = augend.fit("plain", net, data, budget="4step", out=folder / "run")
        >>> shown = torch.stack([picture for picture, _ in data])
        >>> made = export(folder / "run", folder / "model.safetensors", model=net, pictures=shown)
        >>> made["files"][0]["difference"] < 1e-5
        True
    """
    files = [Path(one) for one in ([to] if isinstance(to, str | Path) else to)]
    for file in files:
        check_target(file)
    beside = _beside(files[0])
    classifier, origin = load(run, model), origin_of(run)
    if isinstance(pictures, Tensor):
        shown = pictures[:CHECKED]
    elif pictures is not None:
        shown = _read(classifier, pictures)
    else:
        try:
            shown = real_pictures(origin, CHECKED)
        except AugendError as error:
            raise AugendError(f"{error}; name pictures to check the export on: --pictures FOLDER") from error
    made = [export_model(classifier, file, shown) for file in files]
    write_bytes(beside, card(classifier, origin, made).encode())
    return {
        "files": [
            {
                "file": str(one.file),
                "format": one.format,
                "bytes": one.file.stat().st_size,
                "difference": one.difference,
                "pictures": one.pictures,
                "reader": one.reader,
            }
            for one in made
        ],
        "card": str(beside),
        "limit": LIMIT,
    }


def _beside(file: Path) -> Path:
    """Where the card goes: ``model.md``, or ``model.onnx.md`` where there is such a file."""
    for path in (file.with_suffix(".md"), file.with_name(f"{file.name}.md")):
        if not path.exists():
            return path
    raise AugendError(f"{file}.md: there is such a card already; remove it or give another --to")


def _read(classifier: Classifier, paths: Sequence[str | Path]) -> Tensor:
    files, missing = picture_files(paths)
    if missing:
        raise AugendError(f"--pictures {missing[0]}")
    shown = []
    for file in files[:CHECKED]:
        try:
            shown.append(read_picture(classifier, file))
        except Exception:  # whatever Pillow raises; others will do
            continue
    if len(shown) < 2:
        raise AugendError(f"--pictures {', '.join(map(str, paths))}: the check needs two readable pictures or more")
    return torch.stack(shown)
