"""A folder of class folders: ``DIR/CLASS/PICTURE``, or ``DIR/{train,val,test}/CLASS/PICTURE``."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from augend.contract import AugendError
from augend.data.listing import PIECES, Entry, Listing, some

__all__ = ["SUFFIXES", "list_folder"]

#: Files taken for pictures; others are counted in the notes.
SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("jpg", "jpeg", "jfif", "png", "bmp", "gif", "webp", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "avif", "heic", "heif"),
    )
)


@dataclass
class _Found:
    """Files of one piece by class, names relative to the data's folder, and what was passed over."""

    classes: dict[str, list[str]]
    empty: list[str]
    loose: int
    others: Counter[str]


def _visible(folder: str | Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, by name; entries know whether they are folders without another look at the disk."""
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise AugendError(f"{folder}: {error.strerror or error}") from None
    return sorted(found, key=lambda entry: entry.name)


def _is_text(name: str) -> bool:
    """Whether a name can be written to files and pages: bytes of names that are not UTF-8 come as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return _suffix(entry.name) in SUFFIXES and not entry.is_dir()


def _list(root: Path, prefix: str, deep: bool) -> _Found:
    """The classes below ROOT/PREFIX, a piece's folder ("" or "train/")."""
    found = _Found({}, [], 0, Counter())
    for entry in _visible(root / prefix):
        if not entry.is_dir():
            found.loose += _is_picture(entry)
            continue
        files = _inside(root, f"{prefix}{entry.name}/", found, deep)
        if files and not _is_text(entry.name):
            raise AugendError(f"{root / prefix}: the name of class folder {entry.name!a} is not UTF-8; rename it")
        if files:
            found.classes[entry.name] = files
        else:
            found.empty.append(entry.name)
    return found


def _inside(root: Path, prefix: str, found: _Found, deep: bool) -> list[str]:
    files, nested = [], []
    for entry in _visible(root / prefix):
        if entry.is_dir():
            nested.append(f"{prefix}{entry.name}/")
        elif _is_picture(entry):
            files.append(prefix + entry.name)
        elif entry.name not in {"Thumbs.db", "desktop.ini"}:
            found.others[_suffix(entry.name) or "no suffix"] += 1
    inner = [file for below in nested for file in _inside(root, below, found, deep=True)]
    if inner and not deep:
        raise AugendError(
            f"{root}: {inner[0]} lies too deep; pictures belong right into their class's folder, CLASS/PICTURE or"
            " {train,val,test}/CLASS/PICTURE (with --group parent: CLASS/GROUP/PICTURE)"
        )
    return files + inner


def _pieces(root: Path) -> dict[str, str]:
    """The folders of train, valid and test by name, or nothing where the class folders lie in `root` itself."""
    pieces: dict[str, str] = {}
    for entry in _visible(root):
        piece = PIECES.get(entry.name.lower())
        if piece is None or not entry.is_dir():
            continue
        # "train" may also be a class (beside "car" and "plane"): a piece holds folders, a class holds pictures.
        inside = _visible(entry.path)
        if any(map(_is_picture, inside)) or not any(one.is_dir() for one in inside):
            return {}
        if piece in pieces:
            raise AugendError(
                f"{root}: both {pieces[piece]!r} and {entry.name!r} would be the {piece} pictures; keep one"
            )
        pieces[piece] = entry.name
    if pieces and "train" not in pieces:
        raise AugendError(f"{root}: there is {', '.join(pieces.values())} but no train folder beside it")
    return pieces


def _notes(found: dict[str, _Found]) -> list[str]:
    notes = []
    others = sum((f.others for f in found.values()), Counter[str]())
    if others:
        notes.append(f"no pictures, left out: {', '.join(f'{n} {suffix}' for suffix, n in sorted(others.items()))}")
    empty = [name for f in found.values() for name in f.empty]
    if empty:
        notes.append(f"folders without pictures, left out: {some(tuple(empty))}")
    loose = sum(f.loose for f in found.values())
    if loose:
        notes.append(f"pictures outside any class folder, left out: {loose}")
    return notes


def list_folder(path: str | Path, *, deep: bool = False) -> Listing:
    """The pictures of a folder, by their class folders.

    Args:
        path: the folder; files are relative to it.
        deep: pictures may lie in folders of their class's folder, ``CLASS/GROUP/PICTURE``.

    Raises:
        AugendError: no such folder, one without pictures, pictures too deep, pieces without train.
    """
    root = Path(path)
    places = _pieces(root) or {"all": "all"}
    found = {piece: _list(root, "" if piece == "all" else f"{name}/", deep) for piece, name in places.items()}
    entries = [
        Entry(file, label, piece) for piece, f in found.items() for label, files in f.classes.items() for file in files
    ]
    remedy = "add some or remove the folder"
    listing = Listing(str(root), root, sorted(entries), places, remedy, _notes(found))
    for piece, f in found.items():
        if not f.classes:
            loose = f" ({f.loose} lie loose in it)" if f.loose else ""
            raise AugendError(
                f"{listing.where(piece)}: no pictures in class folders{loose}; make one folder a class, CLASS/PICTURE"
            )
    return listing
