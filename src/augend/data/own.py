"""Pictures of one's own as a `Split`: the one road from a folder or a table to train, validation and test."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augend.contract import AugendError
from augend.data.cache import Progress
from augend.data.decode import FITS, unreadable_note
from augend.data.looked import Looked, listed, look_at
from augend.data.pictures import Pictures, Split
from augend.data.rows import resident_limit
from augend.data.splits import Amount, limited, three_ways, two_ways
from augend.names import nearest

__all__ = ["draw", "notes_of", "own", "remarks"]


def own(
    path: str | Path,
    size: int = 64,
    train: int | None = None,
    valid: Amount | None = None,
    test: Amount | None = None,
    *,
    seed: int = 0,
    repeat: int = 0,
    traits: frozenset[str] | None = None,
    group: str | None = None,
    fit: str = "crop",
    memory: int | None = None,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Split:
    """Pictures of one's own, decoded once to squares, in a folder of class folders or named by a table.

    Without a test set of their own they are split 60/20/20, redrawn with each repeat. Pictures marked ``test`` (by their
    folder, or the column ``split``) are a fixed test set, and ``val`` validation; with ``train`` and ``val`` alone, ``val``
    is the fixed test set (the numbers that people report are those of ``val``), and validation is redrawn out of train.
    Names may be train, training, val, valid, validation, test. What cannot be read is left out and counted in
    `Split.notes`. Copies, near-duplicates, bursts and groups never cross a split that is drawn.

    Args:
        path: a folder (see `augend.data.folder`) or a .csv or .tsv file (`augend.data.table`); ids are relative to it.
        size: side of the squares in pixels. Of larger files a margin is kept around them, which crops of random size draw
            from and everything else leaves out (`augend.data.looked`).
        train: how many pictures to train on (all that are left).
        valid: number or fraction for validation (0.2 where it is drawn).
        test: number or fraction for test (0.2 where it is drawn). Of a fixed test set: how many of its pictures to take, the
            same in every repeat (all).
        traits: what labels survive; by default those of photographs: hflip, colour (unless all are grey), rotate, crop.
        group: what else belongs together: ``parent``, the folder a picture lies in, or a regular expression whose first
            group is searched in the path (see `augend.data.listing.grouped_by`); by default a table's column ``group``.
        fit: ``crop`` keeps the middle square; ``pad`` the whole picture, with bars in its mean colour.
        memory: bytes; what needs more once decoded stays on the disk and is read batch by batch (`resident_limit`).
        cache: where decoded pictures are kept (``AUGEND_CACHE``/pictures).
        progress: called with (files done, files in all) while decoding.

    Raises:
        AugendError: one line, for a data set without pictures, of one class, with a class of too few pictures, with a class
            in test that train lacks; a folder too deep, a line that is wrong; a cache that cannot be written.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 4096:
        raise AugendError(f"{path}: size must be a number of pixels from 1 to 4096, found {size!r}")
    known = next((one for one in FITS if one == fit), None)
    if known is None:
        raise AugendError(f"{path}: unknown fit {fit!r}{nearest(str(fit), [*FITS])} (known: {', '.join(FITS)})")
    listing = listed(path, group)
    listing.check(listing.counts())  # before the long decoding, and once more after it
    looked = look_at(listing, size, fit=known, cache=cache, progress=progress)
    looked.check()
    split = draw(looked, (train, valid, test), seed=seed, repeat=repeat, traits=traits, memory=memory)
    return dataclasses.replace(split, fit=known)


def draw(
    looked: Looked,
    amounts: tuple[int | None, Amount | None, Amount | None] = (None, None, None),
    *,
    seed: int = 0,
    repeat: int = 0,
    traits: frozenset[str] | None = None,
    memory: int | None = None,
) -> Split:
    """The split of pictures that have passed `Looked.check`; arguments as `own`, `amounts` of train, validation and test."""
    listing, pixels, text = looked.listing, looked.found.pixels, looked.listing.text
    number = {name: i for i, name in enumerate(listing.classes)}
    everything = Pictures.with_margin(
        cast(Tensor, pixels),
        (looked.size, looked.size),
        torch.tensor([number[entry.label] for entry in looked.entries], dtype=torch.int64),
        tuple(entry.file for entry in looked.entries),
        torch.from_numpy(looked.groups) if len(np.unique(looked.groups)) < len(looked.groups) else None,
    )

    def gathered(piece: str) -> Pictures:
        return everything.take([i for i, entry in enumerate(looked.entries) if entry.piece == piece])

    train, valid, test = amounts
    pool = gathered(listing.main)
    drawn_valid, drawn_test = (0.2 if amount is None else amount for amount in (valid, test))
    if listing.alone:
        pieces = three_ways(pool, train, drawn_valid, drawn_test, seed, repeat, what=text)
    else:
        own_test = "test" if "test" in listing.places else "valid"
        exam = limited(gathered(own_test), test, seed, what=f"{text}: test")
        if listing.carved:
            pieces = (*two_ways(pool, drawn_valid, train, seed, repeat, what=text), exam)
        else:
            checked = limited(gathered("valid"), valid, seed, what=f"{text}: valid")
            pieces = (limited(pool, train, seed, what=f"{text}: train"), checked, exam)
    notes = notes_of(looked)
    most = resident_limit() if memory is None else memory
    needed = len(everything) * pixels.shape[1] * pixels.side**2
    if needed > most:
        notes.append(
            f"the decoded pictures take {needed / 1e9:.2g} GB, more than the {most / 1e9:.2g} GB kept in memory"
            " (AUGEND_MEMORY), and are read from the cache batch by batch"
        )
    else:
        pieces = (pieces[0].resident(), pieces[1].resident(), pieces[2].resident())
    if traits is None:
        traits = frozenset({"hflip", "rotate", "crop"} | ({"colour"} if pool.shape[0] == 3 else set()))
    return Split(
        text,
        listing.classes,
        *pieces,
        traits,
        fixed_test=not listing.alone,
        seed=seed,
        repeat=repeat,
        notes=tuple(notes),
        decoding=float(looked.found.seconds.mean()),
    )


def notes_of(looked: Looked) -> list[str]:
    """What the user should know, a line each: what was left out, what is kept together, what is wrong with the labels."""
    unreadable = looked.found.unreadable
    return [*([unreadable_note(unreadable)] if unreadable else []), *_kept(looked), *_torn(looked), *remarks(looked)]


def remarks(looked: Looked) -> list[str]:
    """Those notes that no list of files says better: on the folder's or table's form, on what could not be kept together."""
    listing, notes = looked.listing, [*looked.listing.notes, *_let_go(looked), *_crossing(looked)]
    if listing.carved and "test" not in listing.places:
        valid, train = (listing.places[piece] for piece in ("valid", "train"))
        notes.append(f"{valid} is the fixed test set; validation is drawn out of {train}")
    return notes


def _kept(looked: Looked) -> list[str]:
    listing = looked.listing
    kept = _counted(looked, np.array([entry.piece == listing.main for entry in looked.entries], bool))
    if not kept or not (listing.alone or listing.carved):
        return []
    together = " and ".join(filter(None, (", ".join(kept[:-1]), kept[-1])))
    return [
        f"{together} {'is' if together.startswith('1 ') and len(kept) == 1 else 'are'} kept on one side of every split"
    ]


def _let_go(looked: Looked) -> list[str]:
    joined, found = looked.joined, []
    for members, what, instead in [
        *((members, "look alike", "exact copies") for members in joined.unlike),
        *((members, "were taken one after the other", "near-duplicates") for members in joined.endless),
    ][:3]:
        first = looked.entries[members[0]]
        found.append(
            f"{len(members)} pictures that {what} (first: {first.file}) are too large a part of class {first.label!r}: only"
            f" {instead} among them are kept together"
        )
    return found


def _torn(looked: Looked) -> list[str]:
    torn = looked.joined.torn
    if not len(torn):
        return []
    one, other = (looked.entries[i] for i in torn[0].tolist())
    more = f" ({len(torn)} such pairs)" if len(torn) > 1 else ""
    return [
        f"one picture has two labels: {one.file} ({one.label!r}) and {other.file} ({other.label!r}) are the same{more};"
        " correct the labels"
    ]


def _counted(looked: Looked, among: NDArray[np.bool_]) -> list[str]:
    """Copies, near-duplicates, bursts and groups among some of the pictures, in words."""
    digests, joined = np.array(looked.found.digests), looked.joined
    sets = [kept for members in joined.sets if len(kept := members[among[members]]) > 1]
    copies = sum(len(members) - len(np.unique(digests[members])) for members in sets)
    alike = sum(len(np.unique(digests[members])) - 1 for members in sets)
    bursts = [kept for members in joined.bursts if len(kept := members[among[members]]) > 1]
    named = {entry.group for entry, here in zip(looked.entries, among.tolist(), strict=True) if here} - {None}
    words = [
        (copies, f"{copies} exact {'copy' if copies == 1 else 'copies'}"),
        (alike, f"{alike} near-duplicate{'s' if alike > 1 else ''}"),
        (len(bursts), f"{len(bursts)} burst{'s' if len(bursts) > 1 else ''} ({sum(map(len, bursts))} pictures)"),
        (len(named), f"{len(named)} group{'s' if len(named) > 1 else ''} that you named"),
    ]
    return [text for count, text in words if count]


def _crossing(looked: Looked) -> list[str]:
    """Groups that lie in two pieces of the user's own, which are left where they are."""
    listing, groups = looked.listing, looked.groups
    if listing.alone:
        return []
    notes = []
    piece = np.array([entry.piece for entry in looked.entries])
    rows = list(zip(looked.entries, groups.tolist(), strict=True))
    own_test = "test" if "test" in listing.places else "valid"
    pairs = [("train", own_test), *([("train", "valid"), ("valid", "test")] if not listing.carved else [])]
    for one, other in pairs:
        both = np.intersect1d(groups[piece == one], groups[piece == other])
        if not len(both):
            continue
        here = [next(e.file for e, g in rows if g == both[0] and e.piece == at) for at in (other, one)]
        count = int((np.isin(groups, both) & (piece == other)).sum())
        names = [listing.places[p] for p in (one, other)]
        notes.append(
            f"{count} picture{'s' if count > 1 else ''} of {names[1]} belong to pictures of {names[0]} (first:"
            f" {' to '.join(here)}), which flatters every score on {names[1]}; remove them from one of the two"
        )
    return notes
