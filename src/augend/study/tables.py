"""What a paper's table asks for: rows, protocols, printed numbers, claims. Read from ``papers/PAPER/TABLE.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from augend.contract import AugendError
from augend.names import nearest
from augend.recipes.library import known, read_file
from augend.recipes.reading import Place, parse
from augend.recipes.schema import Words, checked

__all__ = ["Claim", "Protocol", "Row", "Table", "known_tables", "load_table"]


class Protocol(Words):
    """One way to run a table.

    Attributes:
        about: what is done, in words.
        data: the data word, as a command names it.
        overrides: of settings and phases, for every row.
        settings, model, budget: where they differ from the table's.
        columns: split (``test``, ``shifted:NAME``) -> what the table calls it.
        headline: the split that printed numbers and claims are about.
    """

    about: str
    data: str
    overrides: tuple[str, ...] = ()
    settings: str | None = None
    model: str | None = None
    budget: str | None = None
    columns: dict[str, str] = Field(default_factory=lambda: {"test": "test"})
    headline: str = "test"


class Row(Words):
    """A row: a recipe of the catalogue or of the paper's ``recipes.yaml``.

    Attributes:
        called: what the paper calls it (``as`` in the file).
        printed: the paper's number, a share; `logged`: the raw value in the authors' logs.
        flops: the row whose FLOPs this one shall cost; its budget is set by that.
        repeats: where fewer are enough.
        protocols: where it is run (default: in all).
    """

    called: str = Field(alias="as")
    printed: float | None = None
    logged: float | None = None
    flops: str | None = None
    repeats: int | None = None
    protocols: tuple[str, ...] | None = None


class Claim(Words):
    """A sentence of the paper as a paired comparison: row `better` is above row `than`.

    Where the two cost something else, `equal` stands for `better` at the cost of `than`, or `than_equal` for `than` at the
    cost of `better`.
    """

    says: str
    better: str
    than: str
    equal: str | None = None
    than_equal: str | None = None


def _mappings(kind: type[Words]) -> BeforeValidator:
    def parse_all(value: Any) -> dict[str, Any]:
        return {str(name): kind.model_validate(item) for name, item in dict(value).items()}

    return BeforeValidator(parse_all)


class Table(Words):
    """A table or figure of a paper that `augend reproduce` can run. See `Protocol`, `Row` and `Claim`."""

    title: str
    source: str
    settings: str
    model: str | None = None
    overrides: tuple[str, ...] = ()
    reference: str
    repeats: int = 10
    protocols: Annotated[dict[str, Protocol], _mappings(Protocol)]
    rows: Annotated[dict[str, Row], _mappings(Row)]
    claims: tuple[Claim, ...] = ()
    figures: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="after")
    def _names_fit(self) -> Table:
        for row in (self.reference, *(c for claim in self.claims for c in (claim.better, claim.than))):
            if row not in self.rows:
                raise ValueError(f"found row {row!r}; allowed: {', '.join(self.rows)}{nearest(row, list(self.rows))}")
        for name, protocol in self.protocols.items():
            if protocol.headline not in protocol.columns:
                raise ValueError(f"protocol {name}: its headline {protocol.headline!r} is none of its columns")
        return self

    def rows_of(self, protocol: str) -> dict[str, Row]:
        """The rows of one protocol."""
        return {name: row for name, row in self.rows.items() if row.protocols is None or protocol in row.protocols}


def _papers() -> Traversable:
    return resources.files("augend") / "papers"


def known_tables() -> dict[str, str]:
    """``PAPER/TABLE`` -> title, of everything that can be reproduced."""
    return {name: load_table(name).title for name in _names()}


def _names() -> list[str]:
    return sorted(
        f"{paper.name}/{file.name.removesuffix('.yaml')}"
        for paper in _papers().iterdir()
        if paper.is_dir()
        for file in paper.iterdir()
        if file.name.endswith(".yaml") and file.name not in ("settings.yaml", "recipes.yaml")
    )


def load_table(name: str) -> Table:
    """A table by name, ``factoring/table-1``; a mistake in its file is one line.

    >>> load_table("factoring/table-1").rows["aug-ft"].printed
    0.813
    """
    names = _names()
    if name not in names:
        raise AugendError(f"there is no table {name!r}{nearest(name, names)} (known: {', '.join(names)})")
    paper, _, stem = name.partition("/")
    text = (_papers() / paper / f"{stem}.yaml").read_text(encoding="utf-8")
    return checked(Table, parse(text, name), Place(name))


def recipe_text(paper: str, row: str) -> str:
    """How a command names a row's recipe: a word of the catalogue, or an entry of the paper's ``recipes.yaml``."""
    if row in {recipe.name for recipe in known()}:
        return row
    with resources.as_file(_papers() / paper / "recipes.yaml") as file:
        found: Mapping[str, Any] = read_file(file) if file.is_file() else {}
        if row not in found:
            raise AugendError(f"{paper}: row {row!r} is no recipe of the catalogue or of the paper's recipes.yaml")
        return f"{Path(file)}:{row}"
