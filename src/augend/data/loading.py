"""From what a user writes to a `Split`: a known word with options, a folder, or a table."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

from augend import names
from augend.contract import AugendError
from augend.data.cache import Progress
from augend.data.own import own
from augend.data.pictures import Split
from augend.data.splits import Amount

__all__ = ["load", "parsed"]

_OPTION = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)=([^=,]+)")


def _value(text: str) -> int | float | str:
    """A whole number, a fraction (``0.2`` or ``20%``), ``true`` or ``false``, or a word."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"\d+", text):
        return int(text)
    if re.fullmatch(r"\d*\.\d+", text):
        return float(text)
    if re.fullmatch(r"\d+(\.\d+)?%", text):
        return float(text[:-1]) / 100
    return text


def parsed(text: str) -> tuple[str, dict[str, int | float | str]]:
    """The word and the options of ``WORD:OPTION=VALUE,OPTION=VALUE``.

    Example:
        >>> parsed("cifar10:train=2000,valid=10%")
        ('cifar10', {'train': 2000, 'valid': 0.1})
    """
    word, colon, rest = text.partition(":")
    options: dict[str, int | float | str] = {}
    for part in rest.split(",") if colon else []:
        match = _OPTION.fullmatch(part)
        if match is None:
            raise AugendError(f"data {text!r}: cannot read {part!r}; write {word}:train=2000,valid=500")
        key = match[1].replace("-", "_")
        if key in options:
            raise AugendError(f"data {text!r}: {match[1]!r} is given twice")
        options[key] = _value(match[2])
    return word, options


def _called(text: str, word: str, options: dict[str, Any], context: dict[str, Any]) -> Split:
    builder = names.lookup("data", word)
    takes = inspect.signature(builder).parameters
    any_option = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    allowed = sorted(set(names.options("data", word)) - context.keys())
    for key in options:
        if key not in allowed and not any_option:
            known = f"known: {', '.join(allowed)}" if allowed else "it has none"
            raise AugendError(f"data {text!r}: unknown option {key!r}{names.nearest(key, allowed)} ({known})")
    split = builder(**options, **{key: value for key, value in context.items() if key in takes or any_option})
    if not isinstance(split, Split):
        raise AugendError(f"data {word!r} returned a {type(split).__name__}, not an augend.data.Split")
    return split


def load(
    text: str | Path,
    *,
    root: str | Path | None = None,
    seed: int = 0,
    repeat: int = 0,
    size: int | None = None,
    train: int | None = None,
    valid: Amount | None = None,
    traits: frozenset[str] | None = None,
    group: str | None = None,
    fit: str = "crop",
    memory: int | None = None,
    progress: Progress | None = None,
) -> Split:
    """The data set that a user names, split.

    Args:
        text: a known word, perhaps with options, ``cifar10:train=2000,valid=500``; or the path of a folder of class
            folders, or of a table of paths and labels (.csv, .tsv). A word goes before a folder of the same name, which is
            ``./NAME``.
        root: the folder of downloaded sets (``--data-root``), by default ``AUGEND_DATA``.
        seed, repeat: what the split is drawn with; the same two give the same split anywhere.
        size: side of the pictures in pixels; by default a set's own, 64 for a folder.
        train, valid: how many pictures (`valid`: or which fraction); they go before options in `text`.
        traits: what labels survive, where the set's own answer is wrong (a folder of arrows survives no flip).
        group, fit, memory: of a folder or table, see `augend.data.own.own`: what belongs together beside copies and bursts,
            ``crop`` or ``pad``, and how many bytes of decoded pictures are kept in memory.
        progress: called with (files done, files in all) while a folder or table is decoded.

    Raises:
        AugendError: one line, where the word, an option, the folder or the table is not there or not right.

    Example:
        >>> split = load("digits:train=100", seed=1)
        >>> len(split.train), split.classes[:3], sorted(split.traits)
        (100, ('0', '1', '2'), ['crop', 'rotate'])
    """
    given: dict[str, Any] = {key: value for key, value in (("train", train), ("valid", valid)) if value is not None}
    written = str(text)
    word = written.partition(":")[0]
    if isinstance(text, str) and word in names.known("data"):
        for option, value, default in (("group", group, None), ("fit", fit, "crop")):
            if value != default:
                raise AugendError(
                    f"data {written!r}: --{option} {value} is for folders and tables of pictures; leave it out"
                )
        _, options = parsed(written)
        context = {"root": root, "seed": seed, "repeat": repeat, "progress": progress}
        split = _called(written, word, {**options, **given}, context)
        split = dataclasses.replace(split, name=written, traits=split.traits if traits is None else traits)
        return split if size is None else split.resized(size)
    path = Path(text).expanduser()
    if not path.exists():
        words = names.known("data")
        near = names.nearest(word, words)
        raise AugendError(
            f"data {written!r}: neither a folder, nor a table, nor a known set{near} (known: {', '.join(words)})"
        )
    if size is not None:
        given["size"] = size
    given |= {"traits": traits, "group": group, "fit": fit, "memory": memory}
    split = own(path, **given, seed=seed, repeat=repeat, progress=progress)
    return dataclasses.replace(split, name=written)
