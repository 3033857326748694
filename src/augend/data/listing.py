"""A list of pictures with their classes, wherever it came from: what a folder and a table have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from augend.contract import AugendError

__all__ = ["PIECES", "Entry", "Listing", "grouped_by", "some"]

#: Names of pieces, as folders and the column ``split`` write them.
PIECES = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
}


@dataclass(frozen=True, order=True)
class Entry:
    """One picture: its file (relative to the data, also its id), class, piece ("all" or a value of `PIECES`), group."""

    file: str
    label: str
    piece: str = "all"
    group: str | None = None


@dataclass
class Listing:
    """The pictures of a data set of the user's own, none of them opened yet.

    Attributes:
        text: the data set as errors name it.
        root: the folder that files are relative to.
        entries: the pictures.
        places: piece -> what the user calls it; one piece "all", or "train" with others.
        remedy: what to do about a class with too few pictures.
        notes: what the user should know about it.
    """

    text: str
    root: Path
    entries: list[Entry]
    places: Mapping[str, str]
    remedy: str
    notes: list[str] = field(default_factory=list)

    @property
    def main(self) -> str:
        """The piece that is trained on."""
        return "train" if "train" in self.places else "all"

    @property
    def alone(self) -> bool:
        """Whether there is no test set, so that all three parts are redrawn with each repeat."""
        return self.places.keys() <= {"train", "all"}

    @property
    def carved(self) -> bool:
        """Whether there is a test set but no validation set beside it, so that validation is drawn out of train."""
        return not self.alone and not {"valid", "test"} <= self.places.keys()

    @property
    def least(self) -> int:
        """Pictures that a class needs for one in each part that is drawn."""
        return 3 if self.alone else 2 if self.carved else 1

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of what is trained on."""
        return tuple(sorted({entry.label for entry in self.entries if entry.piece == self.main}))

    def where(self, piece: str) -> str:
        """A piece as errors name it."""
        return self.text if piece == "all" else f"{self.text}: {piece}"

    def check(self, counts: Mapping[str, Mapping[str, int]], what: str = "pictures") -> None:
        """That there is enough to train on; counts are piece -> class -> number.

        Raises:
            AugendError: a piece with nothing in it, one class, a class with too few, a class that train lacks.
        """
        main, names = self.main, self.classes
        if len(names) < 2:
            only = f"only one class, {names[0]!r}" if names else "no pictures"
            raise AugendError(f"{self.where(main)}: {only}; a classifier needs at least two classes")
        for piece in (main, *(piece for piece in self.places if piece != main)):
            have = counts.get(piece, {})
            if not have:
                raise AugendError(f"{self.where(piece)}: none of its {what} is left")
            if new := sorted(set(have) - set(names)):
                raise AugendError(
                    f"{self.where(piece)}: class {new[0]!r} is not among the classes of train ({some(names)})"
                )
        few = {name: n for name, n in counts[main].items() if n < self.least}
        if few:
            worst = min(few, key=lambda name: (few[name], name))
            others = f"; so have {len(few) - 1} more classes" if len(few) > 1 else ""
            raise AugendError(
                f"{self.where(main)}: class {worst!r} has too few {what}, {few[worst]} (at least {self.least}){others};"
                f" {self.remedy}"
            )

    def counts(self, entries: Iterable[Entry] | None = None) -> dict[str, Counter[str]]:
        """Piece -> class -> number of pictures."""
        found: dict[str, Counter[str]] = {}
        for entry in self.entries if entries is None else entries:
            found.setdefault(entry.piece, Counter())[entry.label] += 1
        return found

    def grouped(self, group: str) -> list[Entry]:
        """The entries with groups by their paths, see `grouped_by`."""
        names = grouped_by(group, [entry.file for entry in self.entries])
        return [
            Entry(entry.file, entry.label, entry.piece, name) for entry, name in zip(self.entries, names, strict=True)
        ]


def grouped_by(group: str, files: Iterable[str]) -> list[str]:
    r"""The name of each file's group.

    Args:
        group: ``parent``, the name of the folder that a picture lies in; or a regular expression that is searched in the
            path relative to the data, whose first group (the whole match where it has none) is the name.
        files: paths, "/" between their parts.

    Raises:
        AugendError: the expression cannot be read, or a file does not match it.

    Example:
        >>> grouped_by(r"p(\d+)_", ["cat/p12_a.jpg", "cat/p12_b.jpg", "dog/p3_a.jpg"]), grouped_by("parent", ["a/b/c.jpg"])
        (['12', '12', '3'], ['b'])
    """
    if group == "parent":
        return [PurePosixPath(file).parent.name for file in files]
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise AugendError(
            f"--group {group!r} is no regular expression ({error}); give one whose first group is the name, as"
            r" 'patient(\d+)', or parent"
        ) from None
    found, without = [], []
    for file in files:
        match = pattern.search(file)
        if match is None:
            without.append(file)
        else:
            found.append(match[1] if pattern.groups and match[1] is not None else match[0])
    if without:
        lenient = f".*?{group}|.*" if pattern.groups else f".*?({group})|.*"
        raise AugendError(
            f"--group {group!r} matches nothing in {len(without)} of {len(without) + len(found)} paths (first: {without[0]});"
            f" if such a picture stands on its own, write --group {lenient!r}"
        )
    return found


def some(names: tuple[str, ...]) -> str:
    """The first names, for an error."""
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
