"""A folder of class folders: ``DIR/CLASS/PICTURE``, or ``DIR/{train,val,test}/CLASS/PICTURE``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from augend.contract import AugendError
from augend.data.decode import Progress, decoded, unreadable_note
from augend.data.named import cache_folder
from augend.data.pictures import Pictures, Split
from augend.data.splits import Amount, limited, three_ways, two_ways

__all__ = ["SUFFIXES", "folder"]

#: Files taken for pictures; others are counted in the notes.
SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("jpg", "jpeg", "jfif", "png", "bmp", "gif", "webp", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "avif", "heic", "heif"),
    )
)
_PIECES = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
}
_LEAST = 3  # pictures a class needs to have one in each of train, validation and test


@dataclass
class _Found:
    """Files of one piece by class, names relative to the data's folder, and what was passed over."""

    classes: dict[str, list[str]]
    empty: list[str]
    loose: int
    others: Counter[str]


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith((".", "__MACOSX")))
    except OSError as error:
        raise AugendError(f"{folder}: {error.strerror or error}") from None


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.is_dir()


def _list(root: Path, base: Path) -> _Found:
    found = _Found({}, [], 0, Counter())
    for entry in _visible(base):
        if not entry.is_dir():
            found.loose += _is_picture(entry)
            continue
        files, deeper = [], []
        for path in _visible(entry):
            if path.is_dir():
                deeper.append(path)
            elif _is_picture(path):
                files.append(path.relative_to(root).as_posix())
            elif path.name not in {"Thumbs.db", "desktop.ini"}:
                found.others[path.suffix.lower() or "no suffix"] += 1
        inner = next((p for nested in deeper for p in sorted(nested.rglob("*")) if _is_picture(p)), None)
        if inner is not None:
            raise AugendError(
                f"{root}: {inner.relative_to(root).as_posix()} lies too deep; pictures belong right into their class's"
                f" folder, CLASS/PICTURE or {{train,val,test}}/CLASS/PICTURE"
            )
        if files:
            found.classes[entry.name] = files
        else:
            found.empty.append(entry.name)
    return found


def _pieces(root: Path) -> dict[str, Path]:
    """The folders of train, valid and test, or nothing where the class folders lie in `root` itself."""
    folders = [p for p in _visible(root) if p.is_dir()]
    pieces: dict[str, Path] = {}
    for path in folders:
        piece = _PIECES.get(path.name.lower())
        if piece is None:
            continue
        # "train" may also be a class (beside "car" and "plane"): a piece holds folders, a class holds pictures.
        if any(_is_picture(p) for p in _visible(path)) or not any(p.is_dir() for p in _visible(path)):
            return {}
        if piece in pieces:
            raise AugendError(
                f"{root}: both {pieces[piece].name!r} and {path.name!r} would be the {piece} pictures; keep one"
            )
        pieces[piece] = path
    if pieces and "train" not in pieces:
        raise AugendError(
            f"{root}: there is {', '.join(p.name for p in pieces.values())} but no train folder beside it"
        )
    return pieces


def _checked(root: Path, name: str, found: _Found, least: int, classes: tuple[str, ...] | None) -> None:
    where = f"{root}" if name == "all" else f"{root}: {name}"
    if not found.classes:
        loose = f" ({found.loose} lie loose in it)" if found.loose else ""
        raise AugendError(f"{where}: no pictures in class folders{loose}; make one folder a class, CLASS/PICTURE")
    if classes is None and len(found.classes) < 2:
        raise AugendError(f"{where}: only one class, {next(iter(found.classes))!r}; a classifier needs at least two")
    if classes is not None and (new := sorted(set(found.classes) - set(classes))):
        raise AugendError(f"{where}: class {new[0]!r} is not among the classes of train ({_some(classes)})")
    few = {c: len(files) for c, files in found.classes.items() if len(files) < least}
    if few:
        worst = min(few, key=few.__getitem__)
        others = f"; so have {len(few) - 1} more classes" if len(few) > 1 else ""
        raise AugendError(
            f"{where}: class {worst!r} has too few readable pictures, {few[worst]} (at least {least}){others};"
            " add some or remove the folder"
        )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")


def _notes(found: dict[str, _Found], unreadable: dict[str, str]) -> list[str]:
    notes = [unreadable_note(unreadable)] if unreadable else []
    others = sum((f.others for f in found.values()), Counter[str]())
    if others:
        notes.append(f"no pictures, left out: {', '.join(f'{n} {suffix}' for suffix, n in sorted(others.items()))}")
    empty = [name for f in found.values() for name in f.empty]
    if empty:
        notes.append(f"folders without pictures, left out: {_some(tuple(empty))}")
    loose = sum(f.loose for f in found.values())
    if loose:
        notes.append(f"pictures outside any class folder, left out: {loose}")
    return notes


def folder(
    path: str | Path,
    size: int = 64,
    train: int | None = None,
    valid: Amount | None = None,
    test: Amount | None = None,
    *,
    seed: int = 0,
    repeat: int = 0,
    traits: frozenset[str] | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Split:
    """Pictures of one's own, decoded once, resized and centre-cropped to squares.

    Class folders right in `path` are split 60/20/20, redrawn with each repeat. A ``test`` folder is a fixed test set,
    and a ``val`` folder validation; with ``train`` and ``val`` alone, ``val`` is the fixed test set (the numbers that
    people report are those of ``val``), and validation is redrawn out of train. Names may be train, training, val,
    valid, validation, test. Hidden files are passed over; what cannot be read is left out and counted in
    `Split.notes`.

    Args:
        path: the folder; ids are relative to it.
        size: side of the squares in pixels.
        train: how many pictures to train on (all that are left).
        valid: number or fraction for validation (0.2 where it is drawn).
        test: number or fraction for test (0.2 where it is drawn). Of a ``val`` or ``test`` folder: how many of its
            pictures to take, the same in every repeat (all).
        traits: what labels survive; by default those of photographs: hflip, colour (unless all are grey), rotate,
            crop.
        cache: where decoded pictures are kept (``AUGEND_CACHE``/pictures).
        progress: called with (files done, files in all) while decoding.

    Raises:
        AugendError: one line, for a folder with no pictures, one class, a class with too few pictures, folders too
            deep, a class in test that train lacks, or a cache that cannot be written.
    """
    root = Path(path)
    if not root.is_dir():
        raise AugendError(f"{path}: {'not a folder' if root.exists() else 'there is no such folder'}")
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 4096:
        raise AugendError(f"{path}: size must be a number of pixels from 1 to 4096, found {size!r}")
    where = _pieces(root) or {"all": root}
    found = {piece: _list(root, base) for piece, base in where.items()}
    main = "train" if "train" in found else "all"
    alone = found.keys() <= {"train", "all"}
    carved = not alone and not {"valid", "test"} <= found.keys()
    least = _LEAST if alone else 2 if carved else 1
    _checked(root, main, found[main], least, None)  # before the long decoding, and once more after it

    names = tuple(sorted(found[main].classes))
    number = {name: i for i, name in enumerate(names)}
    files = sorted(name for f in found.values() for group in f.classes.values() for name in group)
    result = decoded(root, files, size, cache if cache is not None else cache_folder() / "pictures", progress)
    readable = [files[i] for i in result.index.tolist()]
    row = {name: i for i, name in enumerate(readable)}
    for piece, f in found.items():
        f.classes = {c: kept for c, group in f.classes.items() if (kept := [name for name in group if name in row])}
        missing = set(names) - set(f.classes) if piece == main else set()
        if missing:
            raise AugendError(
                f"{root}: no picture of class {min(missing)!r} can be read ({unreadable_note(result.unreadable)})"
            )
        _checked(root, piece, f, least if piece == main else 1, None if piece == main else names)

    pixels = torch.from_numpy(np.asarray(result.pixels))

    def gathered(piece: str) -> Pictures:
        labelled = [(row[name], number[c], name) for c, group in found[piece].classes.items() for name in group]
        index, labels, ids = zip(*sorted(labelled), strict=True)
        return Pictures(pixels.index_select(0, torch.tensor(index)), torch.tensor(labels), ids)

    notes = _notes(found, result.unreadable)
    text = str(path)
    pool = gathered(main)
    drawn_valid, drawn_test = (0.2 if amount is None else amount for amount in (valid, test))
    if alone:
        pieces = three_ways(pool, train, drawn_valid, drawn_test, seed, repeat, what=text)
    else:
        exam = limited(gathered("test" if "test" in found else "valid"), test, seed, what=f"{text}: test")
        if carved:
            pieces = (*two_ways(pool, drawn_valid, train, seed, repeat, what=text), exam)
        else:
            checked = limited(gathered("valid"), valid, seed, what=f"{text}: valid")
            pieces = (limited(pool, train, seed, what=f"{text}: train"), checked, exam)
        if "test" not in found:
            notes.append(
                f"{where['valid'].name} is the fixed test set; validation is drawn out of {where['train'].name}"
            )
    if traits is None:
        traits = frozenset({"hflip", "rotate", "crop"} | ({"colour"} if pool.shape[0] == 3 else set()))
    return Split(text, names, *pieces, traits, fixed_test=not alone, seed=seed, repeat=repeat, notes=tuple(notes))
