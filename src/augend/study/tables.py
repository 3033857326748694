"""What a paper's table asks for: rows, protocols, printed numbers, claims. Read from ``papers/PAPER/TABLE.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from augend.contract import AugendError
from augend.names import nearest
from augend.recipes.library import known, read_file
from augend.recipes.reading import Place, parse
from augend.recipes.schema import Words, checked

__all__ = [
    "TOP_FIVE",
    "Asked",
    "Choice",
    "Claim",
    "Protocol",
    "Row",
    "Scale",
    "Table",
    "kind_of",
    "known_tables",
    "load_table",
    "table_text",
    "whole_tables",
]

TOP_FIVE = "top-5"
MEASURES = (TOP_FIVE, "loss")  # of test pictures


class Attacked(Words):
    """Words of `augend evaluate`: attacks on finished models, and test-time sums that these answer through."""

    attack: str | None = None
    eps: str | None = None
    sums: str | None = None
    steps: int | None = None
    restarts: int | None = None
    samples: int | None = None
    known: bool = False
    pictures: int | None = None


class GivenBack(Words):
    """What the autoencoders of rows make of changed test pictures: which `changes` (``all``, or names), and the row whose
    classifier judges them."""

    changes: str = "all"
    judge: str


class _Way(Words):
    """What a protocol and a scale may both fix. A scale's words stand over those of its protocol, these over the table's.

    Attributes:
        about: what is done, in words.
        data: the data word, as a command names it.
        overrides: of settings and phases, for every row; the scale's come last.
        settings, model, budget: a name, a network's word, a length.
        attacked: how finished models are attacked, each a column.
    """

    about: str
    data: str | None = None
    overrides: tuple[str, ...] = ()
    settings: str | None = None
    model: str | None = None
    budget: str | None = None
    attacked: Attacked | None = None


class Protocol(_Way):
    """One way to run a table; see `_Way` for the rest.

    Attributes:
        columns: split (``test``, ``shifted:NAME``) -> what the table calls it.
        headline: the split that printed numbers and claims are about.
        leaks: rows score on test pictures where they would on pictures held out, as the authors did.
    """

    columns: dict[str, str] = Field(default_factory=lambda: {"test": "test"})
    headline: str = "test"
    leaks: bool = False


class Scale(_Way):
    """How much of a table is run: ``smoke`` to see that it runs, ``cpu`` for two hours of two cores, ``paper`` for all of it.

    Attributes:
        protocols: those that there are at this scale (default: all).
        repeats: of every row (default: the table's), at most those that a row asks for.
    """

    protocols: tuple[str, ...] | None = None
    repeats: int | None = None


@dataclass(frozen=True)
class Asked:
    """A table in one protocol at one scale (None: it has but one): what is to be run."""

    protocol: str
    scale: str | None
    about: str
    data: str
    overrides: tuple[str, ...]
    settings: str
    model: str | None
    budget: str | None
    repeats: int
    columns: dict[str, str]
    headline: str
    attacked: Attacked | None
    leaks: bool = False
    other: bool = False  # data that the user named instead of the table's: the paper's numbers are not about them


def _in(value: float | dict[str, float] | None, protocol: str) -> float | None:
    return value.get(protocol) if isinstance(value, dict) else value


class Row(Words):
    """A row: a recipe of the catalogue or of the paper's ``recipes.yaml``.

    Attributes:
        called: what the paper calls it (``as`` in the file).
        printed: the paper's number, a share, or one for each protocol.
        logged: the raw value in the authors' logs, likewise.
        flops: the row whose FLOPs this one shall cost; its budget is set by that.
        times: how many times the table's budget it has.
        repeats: where fewer are enough.
        protocols: where it is run (default: in all).
        base: the row of the table's `bases` whose model is this one's weights.
        fraction, false_labels: of the training pictures, see `augend.runner.job.Job`.
        overrides: of settings and phases, for this row alone.
        printed_columns, logged_columns: what the table calls a column beside the headline -> as `printed` and `logged`.
    """

    called: str = Field(alias="as")
    printed: float | dict[str, float] | None = None
    logged: float | dict[str, float] | None = None
    flops: str | None = None
    times: float = 1
    repeats: int | None = None
    protocols: tuple[str, ...] | None = None
    base: str | None = None
    fraction: float | None = None
    false_labels: float | None = None
    overrides: tuple[str, ...] = ()
    printed_columns: dict[str, float | dict[str, float]] = Field(default_factory=dict)
    logged_columns: dict[str, float | dict[str, float]] = Field(default_factory=dict)

    @property
    def poorer(self) -> dict[str, float]:
        """How its training pictures differ from the table's."""
        own = {"fraction": self.fraction, "false_labels": self.false_labels}
        return {key: value for key, value in own.items() if value is not None}

    def printed_in(self, protocol: str) -> float | None:
        """The paper's number in one protocol."""
        return _in(self.printed, protocol)

    def beside(self, protocol: str) -> dict[str, dict[str, float]]:
        """Column beside the headline -> the paper's numbers there, as ``printed`` and ``logged``."""
        found: dict[str, dict[str, float]] = {}
        for kind, columns in (("printed", self.printed_columns), ("logged", self.logged_columns)):
            for column, value in columns.items():
                if (number := _in(value, protocol)) is not None:
                    found.setdefault(column, {})[kind] = number
        return found

    def logged_in(self, protocol: str) -> float | None:
        """The raw value in the authors' logs, in one protocol."""
        return _in(self.logged, protocol)


class Claim(Words):
    """A sentence of the paper as a paired comparison: row `better` is above row `than`.

    Where the two cost something else, `equal` stands for `better` at the cost of `than`, or `than_equal` for `than` at the
    cost of `better`.

    Attributes:
        of: what is compared: "accuracy"; "score" of the networks called omega; of the table's `decoded`, under one `change`,
            "undone" (the autoencoder's score) or "kept" (labels in what it gives back). A row beside itself is then compared
            with leaving pictures changed.
        shift: of the table's `shifts`, the one under which they are compared (default: the headline, as it is).
        attacked: the attacked column in which they are compared, ``pgd 8/255, adaptive``.
        than_attacked: that of `than`, if it is another one.
        after: the epoch after which validation accuracies are compared (default: the headline, in the end).
    """

    says: str
    better: str
    than: str
    equal: str | None = None
    than_equal: str | None = None
    of: Literal["accuracy", "score", "undone", "kept"] = "accuracy"
    change: str | None = None
    shift: str | None = None
    attacked: str | None = None
    than_attacked: str | None = None
    after: int | None = None


def _mappings(kind: type[Words]) -> BeforeValidator:
    def parse_all(value: Any) -> dict[str, Any]:
        return {str(name): kind.model_validate(item) for name, item in dict(value).items()}

    return BeforeValidator(parse_all)


class Choice(Words):
    """What is chosen among rows by their validation accuracy: what it is of (``says``), and the rows."""

    says: str
    among: tuple[str, ...]


class Epochs(Words):
    """Rows whose validation accuracy after each epoch is a table of its own.

    Attributes:
        rows: row -> the paper's number after each epoch, from the first on; none where it prints none.
        printed_in: the protocols that these numbers are about.
    """

    rows: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    printed_in: tuple[str, ...] = ()

    def printed(self, protocol: str) -> dict[str, list[float]]:
        """The paper's numbers, where they are about this protocol."""
        return {row: [*values] for row, values in self.rows.items()} if protocol in self.printed_in else {}


class Table(Words):
    """A table or figure of a paper that `augend reproduce` can run. See `Protocol`, `Scale`, `Row` and `Claim`.

    Attributes:
        bases: the table that trains the networks that rows start from, in the same protocol at the same scale.
        attacked: see `Attacked`; a scale's or protocol's stands over it.
        decoded: see `GivenBack`.
        shifts: of the test pictures, under which the finished models are shown them as well, separated by commas.
        measures: each a column beside the accuracies, see `augend.study.columns.measured`.
        choices: what is chosen by validation among rows.
        stability: rows have a column that says how far validation accuracy falls from one look to the next.
        epochs: see `Epochs`.
        equation8: the rows that `augend.study.equation8` compares: `pictures`, `embeddings` and `none`.
    """

    title: str
    source: str
    settings: str
    model: str | None = None
    overrides: tuple[str, ...] = ()
    reference: str
    repeats: int = 10
    bases: str | None = None
    protocols: Annotated[dict[str, Protocol], _mappings(Protocol)]
    scales: Annotated[dict[str, Scale], _mappings(Scale)] = Field(default_factory=dict)
    rows: Annotated[dict[str, Row], _mappings(Row)]
    claims: tuple[Claim, ...] = ()
    figures: tuple[dict[str, Any], ...] = ()
    shifts: str | None = None
    attacked: Attacked | None = None
    decoded: GivenBack | None = None
    measures: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()
    stability: bool = False
    epochs: Epochs = Field(default_factory=Epochs)
    equation8: dict[str, str] | None = None

    @model_validator(mode="after")
    def _names_fit(self) -> Table:
        named = (self.reference, *self.epochs.rows, *(c for claim in self.claims for c in (claim.better, claim.than)))
        for row in named:
            if row not in self.rows:
                raise ValueError(f"found row {row!r}; allowed: {', '.join(self.rows)}{nearest(row, list(self.rows))}")
        for choice in self.choices:
            for row in choice.among:
                if row not in self.rows:
                    raise ValueError(f"choice {choice.says!r}: there is no row {row!r}{nearest(row, list(self.rows))}")
        for claim in self.claims:
            if claim.after and not {claim.better, claim.than} <= set(self.epochs.rows):
                raise ValueError(f"a claim is about epoch {claim.after}; its rows must be among the table's `epochs`")
        for measure in self.measures:
            if measure not in MEASURES and "/" not in measure:
                raise ValueError(f"found measure {measure!r}; allowed: {', '.join(MEASURES)}, PHASE/TERM")
        if self.decoded is not None and self.decoded.judge not in self.rows:
            raise ValueError(
                f"decoded: there is no row {self.decoded.judge!r}{nearest(self.decoded.judge, list(self.rows))}"
            )
        for claim in self.claims:
            if (claim.of in ("undone", "kept")) != (claim.change is not None) or (
                claim.change and self.decoded is None
            ):
                raise ValueError(
                    "a claim of undone or kept names a change, in a table with `decoded`; others name none"
                )
            if claim.shift is not None and claim.shift not in (self.shifts or "").split(","):
                raise ValueError(f"a claim is about the shift {claim.shift!r}, which is none of the table's shifts")
        for name, protocol in self.protocols.items():
            if protocol.headline not in protocol.columns:
                raise ValueError(f"protocol {name}: its headline {protocol.headline!r} is none of its columns")
            of_it = [s for s in self.scales.values() if s.protocols is None or name in s.protocols]
            if protocol.data is None and (not of_it or any(scale.data is None for scale in of_it)):
                raise ValueError(f"protocol {name}: neither it nor every scale says the data")
        for name, scale in self.scales.items():
            for protocol_name in scale.protocols or ():
                if protocol_name not in self.protocols:
                    raise ValueError(f"scale {name}: there is no protocol {protocol_name!r}")
        if any(row.base for row in self.rows.values()) and self.bases is None:
            raise ValueError("a row names a base, but the table has no `bases`")
        return self

    def asked(self, name: str, protocol: str | None = None, scale: str | None = None, data: str | None = None) -> Asked:
        """What is to be run.

        Args:
            name: of the table, for errors.
            protocol: default: the first that there is at the scale.
            scale: default: "cpu", or else the first.
            data: other data than the table's.
        """
        if scale is None and self.scales:
            scale = "cpu" if "cpu" in self.scales else next(iter(self.scales))
        if scale is not None and scale not in self.scales:
            known = f"known: {', '.join(self.scales)}" if self.scales else "it has one scale; leave --scale out"
            raise AugendError(f"{name}: there is no scale {scale!r}{nearest(scale, list(self.scales))} ({known})")
        size = self.scales[scale] if scale is not None else Scale(about="")
        allowed = [one for one in self.protocols if size.protocols is None or one in size.protocols]
        protocol = protocol or allowed[0]
        if protocol not in allowed:
            where = "" if scale is None else f" at scale {scale}"
            raise AugendError(
                f"{name}: there is no protocol {protocol!r}{where}{nearest(protocol, allowed)} (known: {', '.join(allowed)})"
            )
        way = self.protocols[protocol]
        own = size.data or way.data
        assert own is not None
        told = "; ".join(text for text in (way.about, size.about, data and f"but on {data}") if text)
        return Asked(
            protocol,
            scale,
            told,
            data or own,
            (*self.overrides, *way.overrides, *size.overrides),
            size.settings or way.settings or self.settings,
            size.model or way.model or self.model,
            size.budget or way.budget,
            size.repeats or self.repeats,
            way.columns,
            way.headline,
            size.attacked or way.attacked or self.attacked,
            way.leaks,
            data is not None,
        )

    def rows_of(self, protocol: str) -> dict[str, Row]:
        """The rows of one protocol."""
        return {name: row for name, row in self.rows.items() if row.protocols is None or protocol in row.protocols}

    def chosen(self, name: str, protocol: str, rows: Sequence[str] | None) -> dict[str, Row]:
        """The rows of one protocol, or those of them that were named."""
        found = self.rows_of(protocol)
        for row in rows or ():
            if row not in found:
                raise AugendError(
                    f"{name}: there is no row {row!r}{nearest(row, list(found))} (rows: {', '.join(found)})"
                )
        return {row: spec for row, spec in found.items() if rows is None or row in rows}


def _papers() -> Traversable:
    return resources.files("augend") / "papers"


def known_tables() -> dict[str, str]:
    """``PAPER/TABLE`` -> title, of every table whose rows are recipes."""
    return {name: load_table(name).title for name in _names() if kind_of(name) is None}


def kind_of(name: str) -> str | None:
    """What a table is that has no rows but is one long run (its ``kind``); None of others and of names that are none."""
    found = re.search(r"^kind: (\S+)$", table_text(name), re.MULTILINE)
    return None if found is None else found[1]


def table_text(name: str) -> str:
    """The file of a table; empty where there is none."""
    paper, _, stem = name.partition("/")
    file = _papers() / paper / f"{stem}.yaml"
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def whole_tables() -> dict[str, str]:
    """``PAPER/TABLE`` -> kind, of every table that is one long run."""
    return {name: kind for name in _names() if (kind := kind_of(name)) is not None}


def _names() -> list[str]:
    return sorted(
        f"{paper.name}/{file.name.removesuffix('.yaml')}"
        for paper in _papers().iterdir()
        if paper.is_dir()
        for file in paper.iterdir()
        if file.name.endswith(".yaml") and file.name != "recipes.yaml" and not file.name.startswith("settings")
    )


def load_table(name: str) -> Table:
    """A table by name, ``factoring/table-1``; a mistake in its file is one line.

    >>> load_table("factoring/table-1").rows["aug-ft"].printed
    0.813
    """
    names = _names()
    if name not in names:
        raise AugendError(f"there is no table {name!r}{nearest(name, names)} (known: {', '.join(names)})")
    return checked(Table, parse(table_text(name), name), Place(name))


def recipe_text(paper: str, row: str) -> str:
    """How a command names a row's recipe: a word of the catalogue, or an entry of the paper's ``recipes.yaml``."""
    if row in {recipe.name for recipe in known()}:
        return row
    with resources.as_file(_papers() / paper / "recipes.yaml") as file:
        found: Mapping[str, Any] = read_file(file) if file.is_file() else {}
        if row not in found:
            raise AugendError(f"{paper}: row {row!r} is no recipe of the catalogue or of the paper's recipes.yaml")
        return f"{Path(file)}:{row}"
