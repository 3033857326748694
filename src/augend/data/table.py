"""A table of pictures: a CSV file with the columns ``path`` and ``label``, and perhaps ``split`` and ``group``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from augend.contract import AugendError
from augend.data.listing import PIECES, Entry, Listing, some

__all__ = ["TABLES", "list_table"]

#: Suffixes of tables.
TABLES = frozenset({".csv", ".tsv"})

_COLUMNS = {
    "path": ("path", "file", "filename", "image"),
    "label": ("label", "class", "target"),
    "split": ("split",),
    "group": ("group",),
}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = file.read_bytes()[: error.start].count(b"\n") + 1
        raise AugendError(f"{file}, line {line}: not UTF-8 text; save the table as UTF-8") from None
    except OSError as error:
        raise AugendError(f"{file}: {error.strerror or error}") from None


def _columns(file: Path, header: list[str]) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    found: dict[str, int] = {}
    for column, words in _COLUMNS.items():
        places = [i for i, name in enumerate(names) if name in words]
        if len(places) > 1:
            both = " and ".join(repr(header[i].strip()) for i in places[:2])
            raise AugendError(f"{file}, line 1: {both} both mean the {column}; rename one")
        if places:
            found[column] = places[0]
    for column in ("path", "label"):
        if column not in found:
            have = some(tuple(name.strip() or "''" for name in header))
            raise AugendError(
                f"{file}, line 1: no column {column!r} (or {', '.join(_COLUMNS[column][1:])}); the first line names the"
                f" columns, found: {have or 'nothing'}"
            )
    return found


def _rows(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that is not empty; the line where a cell with line breaks ends."""
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count) if file.suffix.lower() != ".tsv" else "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise AugendError(f"{file}, line {reader.line_num}: not a line of a table ({error})") from None


def list_table(path: str | Path) -> Listing:
    """The pictures that a table names.

    The first line names the columns: ``path`` (or file, filename, image) and ``label`` (or class, target); a column
    ``split`` (train, val, test) and a column ``group`` may be there, others are passed over. Commas, semicolons or tabs
    separate. Paths are relative to the table. In ``group``, pictures of one name belong together; an empty cell is a
    picture on its own.

    Raises:
        AugendError: with the number of the line: no such column, an empty cell, an unknown split, a file that is not there,
            a file with two labels.
    """
    file = Path(path)
    rows = _rows(file, _text(file))
    _, header = next(rows, (1, []))
    columns = _columns(file, header)
    seen: dict[str, tuple[int, Entry]] = {}
    absent: list[tuple[int, str]] = []
    again, blank = 0, 0
    for line, cells in rows:
        values = {name: cells[i].strip() if i < len(cells) else "" for name, i in columns.items()}
        for column in ("path", "label"):
            if not values[column]:
                raise AugendError(f"{file}, line {line}: the {column} is empty; fill it in or remove the line")
        name = os.path.normpath(values["path"].replace("\\", "/") if os.sep == "\\" else values["path"])
        name = Path(name).as_posix()
        split = values.get("split", "")
        if split and split.lower() not in PIECES:
            raise AugendError(f"{file}, line {line}: split is {split!r}; write train, val or test")
        blank += not split
        entry = Entry(name, values["label"], PIECES.get(split.lower(), "all"), values.get("group") or None)
        if name in seen:
            before, other = seen[name]
            if entry != other:
                raise AugendError(
                    f"{file}, line {line}: {name} stands in line {before} too, with another label, split or group; keep one"
                )
            again += 1
            continue
        if not (file.parent / name).exists():
            absent.append((line, name))
        seen[name] = (line, entry)
    if absent:
        line, name = absent[0]
        others = f", nor those of {len(absent) - 1} more lines" if len(absent) > 1 else ""
        raise AugendError(
            f"{file}, line {line}: there is no file {name}{others}; paths are relative to {file.parent}, correct or"
            " remove the lines"
        )
    if not seen:
        raise AugendError(f"{file}: no pictures, only the line of column names; add lines of path and label")
    entries = sorted(entry for _, entry in seen.values())
    pieces = {entry.piece for entry in entries}
    if "all" in pieces and len(pieces) > 1:
        line, entry = next((line, entry) for line, entry in seen.values() if entry.piece == "all")
        raise AugendError(f"{file}, line {line}: split is empty, but not in other lines; write train, val or test")
    if "all" not in pieces and "train" not in pieces:
        raise AugendError(f"{file}: no line has split train")
    places: dict[str, str] = {piece: piece for piece in ("all", "train", "valid", "test") if piece in pieces}
    notes = [f"lines that repeat an earlier one, left out: {again}"] if again else []
    return Listing(str(file), file.parent, entries, places, "add some or remove its lines", notes)
