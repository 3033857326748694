"""What pages in Markdown share: tables, numbers, and the line that says where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["line", "provenance", "signed", "table", "three"]


def line(cells: Iterable[str]) -> str:
    """A row of a table."""
    return "| " + " | ".join(cells) + " |"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A whole table.

    >>> print(table(["a", "b"], [["1", "2"]]))
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def three(values: Sequence[float]) -> str:
    """Values side by side."""
    return " / ".join(f"{value:.3f}" for value in values)


def signed(value: float | None, digits: int = 2) -> str:
    """With its sign, a true minus, none before zero; a dash of none."""
    return "–" if value is None else f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def provenance(found: dict[str, Any]) -> str:
    """How a long run was made: command, seed, versions, machine."""
    about = found["environment"]
    return (
        f"`{found['command']}`; seed {found['seed']}, augend {about.get('augend', '?')} {about.get('commit', '')}, torch "
        f"{about['torch']}, {about['processor']}, {about['cores']} cores."
    )
