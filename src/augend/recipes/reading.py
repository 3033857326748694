"""YAML 1.2 in and out, and the one-line mistakes that every reader of recipes shares."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from augend.contract import AugendError
from augend.names import listed, nearest

__all__ = ["AMBIGUOUS", "Place", "dump", "parse", "plain", "read", "text_of"]

# YAML 1.1 readers take these for booleans, so a recipe that used them would mean two things.
AMBIGUOUS = frozenset({"on", "off", "yes", "no", "y", "n"})


@dataclass(frozen=True)
class Place:
    """Where a mistake is: a file (or the name of a recipe), a phase, a key.

    >>> Place("mine.yaml").inside("tune").at("order").text
    'mine.yaml: phase tune, order'
    """

    source: str
    phase: str | None = None
    key: str | None = None

    def inside(self, phase: str) -> Place:
        """The same file, in a phase."""
        return replace(self, phase=phase)

    def at(self, key: str) -> Place:
        """The same phase, at a key (below the one already given, if any)."""
        return replace(self, key=f"{self.key}.{key}" if self.key else key)

    @property
    def text(self) -> str:
        """The place in words, as a message begins."""
        inner = ", ".join(part for part in (f"phase {self.phase}" if self.phase else "", self.key or "") if part)
        return f"{self.source}: {inner}" if inner else self.source

    def error(self, problem: str | Exception) -> AugendError:
        """The mistake as one line that begins with its place."""
        return AugendError(" ".join(f"{self.text}: {problem}".split()))

    def found(self, value: object, allowed: str) -> AugendError:
        """`value` was found where only `allowed` may stand."""
        return self.error(f"found {value!r}; allowed: {allowed}")

    def unknown(self, word: str, words: Iterable[str], what: str = "") -> AugendError:
        """`word` is none of `words`; names the nearest one. Of many words those are listed that are like it."""
        allowed = list(words)
        kind = f"{what} " if what else ""
        return self.error(f"found {kind}{word!r}; allowed: {listed(word, allowed)}{nearest(word, allowed)}")


def parse(text: str, source: str) -> Any:
    """What a YAML 1.2 text says, keys checked; a mistake names the line.

    >>> parse("{lr: 5e-4, when: on}", "example")
    {'lr': 0.0005, 'when': 'on'}
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        tree = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = " ".join(str(error.problem or error.context).split())
        raise AugendError(f"{source}{line}: {problem}") from None
    except YAMLError as error:
        raise AugendError(f"{source}: {' '.join(str(error).split())}") from None
    try:
        return plain(tree, Place(source))
    except RecursionError:
        raise AugendError(f"{source}: an alias contains itself") from None


def read(path: str | Path) -> Any:
    """`parse` of a file."""
    return parse(text_of(path), str(path))


def text_of(path: str | Path) -> str:
    """The text of a file, or one line that says why it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise AugendError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise AugendError(f"{path}: cannot be read: {error}") from None


def plain(tree: Any, place: Place) -> Any:
    """A copy of a tree with tuples made lists; keys must be text and none of on, off, yes, no, y, n."""
    if isinstance(tree, Mapping):
        for key in tree:
            if not isinstance(key, str):
                raise place.error(f"key {key!r} is {type(key).__name__}, not text; put it in quotes or rename it")
            if key.lower() in AMBIGUOUS:
                raise place.error(f"no key may be called {key!r} (some readers of YAML take it for true or false)")
        return {key: plain(value, place.at(key)) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(item, place) for item in tree]
    if tree is None or isinstance(tree, str | int | float):
        return tree
    raise place.found(tree, "text, numbers, true, false, null, lists and mappings")


def dump(tree: Mapping[str, Any]) -> str:
    """A tree as YAML that `parse` reads back."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 120
    yaml.allow_unicode = True
    out = io.StringIO()
    yaml.dump(tree, out)
    return out.getvalue()
