"""Pictures of one's own, listed in a folder or a table, decoded, and joined to groups that belong together."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from augend.checkpoint import read_arrays, write_bytes
from augend.contract import AugendError
from augend.data.alike import Links, Together, find_links, remembered, together
from augend.data.cache import Decoded, Progress, decoded
from augend.data.decode import Fit, unreadable_note
from augend.data.folder import list_folder
from augend.data.listing import Entry, Listing
from augend.data.named import cache_folder
from augend.data.table import TABLES, list_table

__all__ = ["MARGIN", "Looked", "listed", "look_at"]

MARGIN = 1.15  # short side of what is kept of a picture, over what is seen of it
_PEEKED = 64  # files whose size is looked at before any is decoded


def listed(path: str | Path, group: str | None = None) -> Listing:
    """The pictures of a folder or a table, with their groups."""
    root = Path(path)
    if root.is_dir():
        listing = list_folder(root, deep=group is not None)
    elif root.suffix.lower() in TABLES and root.exists():
        listing = list_table(root)
    else:
        wrong = "neither a folder nor a table (.csv, .tsv)" if root.exists() else "there is no such folder or table"
        raise AugendError(f"{path}: {wrong}")
    if group is not None:
        listing.entries = listing.grouped(group)
    return listing


@dataclass
class Looked:
    """A listing whose pictures have been decoded and joined to groups.

    Attributes:
        listing: all pictures.
        entries: those that can be read, in the order of `found.pixels`.
        found: the decoded pictures, with their margin.
        joined: who belongs together.
        size: side in pixels of what is seen of them.
    """

    listing: Listing
    entries: list[Entry]
    found: Decoded
    joined: Together
    size: int

    @property
    def groups(self) -> NDArray[np.int64]:
        """int64 ``(n,)``: equal for pictures that belong together."""
        return self.joined.groups

    def independent(self) -> dict[str, int]:
        """How many sets of pictures that belong together each class has in what is trained on."""
        rows = zip(self.entries, self.groups.tolist(), strict=True)
        return Counter(label for label, _ in {(e.label, group) for e, group in rows if e.piece == self.listing.main})

    def check(self) -> None:
        """That enough of it can be read, and is independent, to train on."""
        listing = self.listing
        lost = set(listing.classes) - {entry.label for entry in self.entries if entry.piece == listing.main}
        if lost:
            why = unreadable_note(self.found.unreadable)
            raise AugendError(f"{listing.text}: no picture of class {min(lost)!r} can be read ({why})")
        counts = listing.counts(self.entries)
        listing.check(counts, "readable pictures")
        listing.check({**counts, listing.main: self.independent()}, "pictures that do not belong together")


def _stored(listing: Listing, size: int, fit: Fit) -> int:
    """The side to decode at: `MARGIN` times `size` where the files are larger than that, which makes room for crops.

    Decided by the median of 64 files' short sides, spread evenly over the listing. Where files are hardly larger than
    `size` there is no margin to be had, and ``pad`` promises to keep the edges in sight.
    """
    if fit == "pad":
        return size
    from PIL import Image

    files = [entry.file for entry in listing.entries]
    sides = []
    for file in files[:: -(-len(files) // _PEEKED)]:
        try:
            with Image.open(listing.root / file) as opened:  # reads the head of the file alone
                sides.append(min(opened.size))
        except Exception:  # what cannot be read is counted when it is decoded
            continue
    wanted = round(MARGIN * size)
    return wanted if sides and float(np.median(sides)) >= (size + wanted) / 2 else size


def look_at(
    listing: Listing,
    size: int,
    *,
    fit: Fit = "crop",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Looked:
    """Decode the pictures of a listing (once, see `augend.data.cache`) and find out which belong together.

    Args:
        size: side in pixels of what will be seen of each; of larger files a margin is decoded around it.
    """
    files = [entry.file for entry in listing.entries]
    folder = Path(cache) if cache is not None else cache_folder() / "pictures"
    found = decoded(listing.root, files, _stored(listing, size, fit), folder, progress, fit=fit)
    entries = [listing.entries[i] for i in found.index.tolist()]
    numbers = {name: i for i, name in enumerate(sorted({entry.label for entry in entries}))}
    labels = np.array([numbers[entry.label] for entry in entries], np.int64)
    given = [entry.group for entry in entries]
    joined = together(_links(found, [entry.file for entry in entries]), labels, given)
    return Looked(listing, entries, found, joined, size)


def _links(found: Decoded, files: list[str]) -> Links:
    """What belongs together, remembered beside the decoded pictures."""
    if not files:
        return find_links(np.zeros((0, 32, 32), np.uint8), [], [], [])
    kept = remembered(found.entry, found.digests, found.taken, files)
    try:
        return Links(**read_arrays(kept, ("copies", "alike", "bursts")))
    except AugendError:  # there is none, or it is damaged
        links = find_links(found.greys(), found.digests, found.taken, files)
    buffer = io.BytesIO()
    np.savez(buffer, copies=links.copies, alike=links.alike, bursts=links.bursts)
    with contextlib.suppress(OSError):  # a disk that is full by now: they are found again the next time
        write_bytes(kept, buffer.getvalue())
    return links
