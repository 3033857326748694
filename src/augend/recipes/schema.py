"""What a recipe and settings are: every key, its kind of value, its default. A mistake is one line with its place.

Two layers. `RecipeWords` is a recipe as its file has it: phases are still mappings, because `like`, `set` and
parameters may change them. `PhaseWords`, `NetworkWords` and `SettingsWords` are what stands after that, every value
typed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from augend.address import Address, Slice
from augend.contract import AugendError, Component
from augend.names import nearest
from augend.recipes import words
from augend.recipes.plan import Duration
from augend.recipes.reading import Place

__all__ = ["BUILTIN_PARAMS", "NetworkWords", "PhaseWords", "RecipeWords", "SettingsWords", "checked"]

BUILTIN_PARAMS = ("data", "model", "weights", "split", "base")
"""Parameters of every recipe: the data, the model, its weights' file, the stage to cut at, the role `base`'s data."""


class Words(BaseModel):
    """Keys that are not declared are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, populate_by_name=True)


Name = Annotated[str, PlainValidator(words.name)]
Text = Annotated[str, PlainValidator(words.text)]
Written = Annotated[Component, PlainValidator(words.component)]


class PhaseWords(Words):
    """One phase, as recipes write it. Attributes are the keys of the language.

    A phase with `fit` is a closed form: it takes no steps, so `optimizer`, `schedule`, `until`, `order` and `keep` (perhaps
    inherited from the recipe that it is like) are not used, and `objective` is the one thing that it minimises.
    """

    name: Name
    data: Annotated[str, PlainValidator(words.role)] = "main"
    order: Written = Component("shuffle")
    batch: Annotated[int | words.Multiple, PlainValidator(words.size)] = words.Multiple(1.0)
    size: Annotated[int | words.Multiple | None, PlainValidator(words.size)] = None
    augment: Annotated[Mapping[str, tuple[words.OpWords, ...]], PlainValidator(words.views)] = Field(
        default_factory=lambda: words.views("none")
    )
    objective: Annotated[Mapping[str, words.TermWords], PlainValidator(words.objective)] = Field(
        default_factory=lambda: words.objective("cross-entropy")
    )
    train: Annotated[tuple[Slice, ...] | None, PlainValidator(words.slices)] = None
    start: Annotated[Mapping[str, Slice], PlainValidator(words.start)] = Field(default_factory=dict)
    optimizer: Annotated[Component | words.Fresh | None, PlainValidator(words.optimizer)] = None
    schedule: Annotated[Component | None, PlainValidator(words.schedule)] = None
    until: Annotated[Duration | None, PlainValidator(words.until)] = None
    keep: Annotated[str, PlainValidator(words.keep)] = "last"
    cache: Annotated[Literal["auto"] | bool | int, PlainValidator(words.cache)] = "auto"
    fit: Annotated[Component | None, PlainValidator(words.component)] = None
    skip: Any = None


class NetworkWords(Words):
    """One network: what builds it, the tensor it starts from (None: pixels), whose classes it answers, its weights."""

    model: Written
    input: Annotated[Address | None, PlainValidator(words.optional(words.address))] = None
    classes: Annotated[str, PlainValidator(words.role)] = "main"
    weights: Annotated[str | None, PlainValidator(words.optional(words.text))] = None


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise words.wrong(value, "a mapping")
    return dict(value)


def _named(value: object) -> dict[str, dict[str, Any]]:
    found = {words.name(key): _mapping(item) for key, item in _mapping(value).items()}
    for reserved in ("input", "all"):
        if reserved in found:
            raise ValueError(f"no network may be called {reserved!r} (addresses and slices use the word)")
    return found


def _roles(value: object) -> dict[str, str]:
    return {words.role(key): words.text(item) for key, item in _mapping(value).items()}


def _phases(value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value:
        raise words.wrong(value, "a list of phases, each with a name")
    found = []
    for number, phase in enumerate(value, 1):
        if not isinstance(phase, Mapping) or "name" not in phase:
            raise ValueError(f"phase number {number}: found {phase!r}; allowed: a mapping with a name")
        called = words.name(phase["name"])
        if called == "end":
            raise ValueError("no phase may be called 'end' (insert uses the word)")
        for key in phase:
            if key not in PhaseWords.model_fields:
                raise ValueError(f"phase {called}: {words.unknown(key, [*PhaseWords.model_fields])}")
        found.append(dict(phase))
    return found


def _inserted(value: object) -> dict[str, list[dict[str, Any]]]:
    return {key: _phases(item) for key, item in _mapping(value).items()}


def _paths(value: object) -> dict[str, Any]:
    found = _mapping(value)
    for path in found:
        phase, _, key = path.partition(".")
        if not phase or not key:
            raise ValueError(f"found {path!r}; allowed: PHASE.KEY, such as tune.augment")
    return found


def _params(value: object) -> dict[str, Any]:
    found = _mapping(value)
    for key in found:
        words.name(key)
        if key in SettingsWords.model_fields:
            raise ValueError(f"no parameter may be called {key!r}: it is a key of settings")
    return found


class RecipeWords(Words):
    """A recipe as its file has it; `title` is its plain title ("freeze, then augment"), `when` says when to use it.

    `hold` cuts pieces from the main training pictures, which no phase trains on; an order may score on ``external``.
    """

    like: Text | None = None
    title: Text = ""
    when: Text = ""
    params: Annotated[Mapping[str, Any], PlainValidator(_params)] = Field(default_factory=dict)
    data: Annotated[Mapping[str, str], PlainValidator(_roles)] = Field(default_factory=dict)
    hold: Annotated[Mapping[str, float | int], PlainValidator(words.held)] = Field(default_factory=dict)
    networks: Annotated[Mapping[str, dict[str, Any]], PlainValidator(_named)] = Field(default_factory=dict)
    result: Annotated[tuple[str, ...] | None, PlainValidator(words.names)] = None
    phases: Annotated[list[dict[str, Any]], PlainValidator(_phases)] | None = None
    insert: Annotated[Mapping[str, list[dict[str, Any]]], PlainValidator(_inserted)] = Field(default_factory=dict)
    drop: Annotated[tuple[str, ...], PlainValidator(words.names)] = ()
    set: Annotated[Mapping[str, Any], PlainValidator(_paths)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_source_of_phases(self) -> RecipeWords:
        if self.like is None and self.phases is None:
            raise ValueError("found neither phases nor like; allowed: a list of phases, or the recipe it is like")
        if self.like is not None and self.phases is not None:
            raise ValueError("found both like and phases; allowed: like with set, insert and drop, or phases")
        return self


def _amount_below(limit: float, lowest: float = 0.0) -> PlainValidator:
    def parse(value: object) -> float | None:
        if value is None:
            return None
        if not lowest <= words.number(value) < limit:
            raise words.wrong(value, f"a number from {lowest:g} to below {limit:g}")
        return words.number(value)

    return PlainValidator(parse)


def _norm(value: object) -> float | None:
    if value is not None and words.number(value) <= 0:
        raise words.wrong(value, "a number above 0, or null for no clipping")
    return None if value is None else words.number(value)


def _fixes(value: object) -> dict[str, dict[str, Any]]:
    allowed = [key for key in PhaseWords.model_fields if key != "name"]
    found = {}
    for path, fix in _mapping(value).items():
        recipe, _, phase = path.partition(".")
        if not recipe or not phase:
            raise ValueError(f"found {path!r}; allowed: RECIPE.PHASE, such as ft.tune")
        found[path] = _mapping(fix)
        for key in found[path]:
            if key not in allowed:
                raise ValueError(f"{path}: {words.unknown(key, allowed)}")
    return found


class MonitorWords(Words):
    """What is looked at beside training: a phase that trains nothing.

    Attributes:
        every: steps between looks, ``50step``; the first is before the first step.
        data, order, batch, augment, objective: as in a phase; the batch is drawn once, from validation pictures.
        norms: slices whose sums of tensor norms are looked at.
    """

    every: Annotated[Duration, PlainValidator(words.until)]
    data: Annotated[str, PlainValidator(words.role)] = "main"
    order: Written = Component("shuffle")
    batch: Annotated[int | words.Multiple, PlainValidator(words.size)] = words.Multiple(1.0)
    augment: Annotated[Mapping[str, tuple[words.OpWords, ...]], PlainValidator(words.views)] = Field(
        default_factory=lambda: words.views("none")
    )
    objective: Annotated[Mapping[str, words.TermWords], PlainValidator(words.objective)] = Field(default_factory=dict)
    norms: Annotated[tuple[Slice, ...] | None, PlainValidator(words.slices)] = None


def _monitor(value: object) -> MonitorWords | None:
    return None if value is None else checked(MonitorWords, value, Place("monitor"))


class SettingsWords(Words):
    """What the recipes of one comparison share and a recipe does not say.

    Attributes:
        like: other settings, by name or by file beside this one, whose keys hold where there are none; `phases` are joined
            key by key. What it names is put in its place when settings are read.
        optimizer: word and options in torch's argument names.
        schedule: learning-rate schedule of every optimizer.
        batch: rows a step; None (``auto``): 32 below 2,000 training pictures, 64 below 20,000, else 128.
        budget: length of the whole run; None where the command line gives it.
        average: decay of averaged weights, None for none.
        smoothing: label smoothing of every term that has it.
        clip: largest gradient norm, None for no clipping.
        pixels: the augmentations that recipes call `pixels`.
        phases: ``RECIPE.PHASE`` -> keys fixed for one phase of a recipe and of those made like it.
        monitor: what is looked at beside training, see `MonitorWords`; it costs nothing that the ledger counts, and moves
            nothing.
    """

    like: str | None = None
    optimizer: Written
    schedule: Annotated[Component, PlainValidator(words.schedule)] = Component("constant")
    batch: Annotated[int | None, PlainValidator(words.batch)]
    budget: Annotated[Duration | None, PlainValidator(words.optional(words.budget))] = None
    average: Annotated[float | None, _amount_below(1.0)] = None
    smoothing: Annotated[float, _amount_below(1.0)] = 0.0
    clip: Annotated[float | None, PlainValidator(_norm)] = None
    pixels: Annotated[tuple[words.OpWords, ...], PlainValidator(words.ops)] = Field(
        default_factory=lambda: words.ops("none")
    )
    phases: Annotated[Mapping[str, dict[str, Any]], PlainValidator(_fixes)] = Field(default_factory=dict)
    monitor: Annotated[MonitorWords | None, PlainValidator(_monitor)] = None


_Model = TypeVar("_Model", bound=Words)


def checked(model: type[_Model], tree: object, place: Place) -> _Model:
    """`tree` as a `model`; the first mistake becomes one line that begins with its place.

    >>> checked(PhaseWords, {"name": "tune", "untill": "50%"}, Place("mine.yaml").inside("tune"))
    Traceback (most recent call last):
    ...
    augend.contract.AugendError: mine.yaml: phase tune: found key 'untill'; allowed: name, data, order, batch, size, \
augment, objective, train, start, optimizer, schedule, until, keep, cache, fit, skip; did you mean 'until'?
    """
    if not isinstance(tree, Mapping):
        raise place.found(tree, f"a mapping with the keys {', '.join(model.model_fields)}")
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise _line(error, model, place) from None


def _line(error: ValidationError, model: type[Words], place: Place) -> AugendError:
    # A key that does not exist says more than the value that is missing because of it.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    key, *within = first["loc"] or ("",)
    key = str(key)
    if within:  # of a list or a mapping of other words
        *entries, last = within
        known = {"extra_forbidden": f"found key {last!r}, which is not known there", "missing": f"{last} is missing"}
        if first["type"] not in known:
            entries = within
        where = [f"entry {one + 1 if isinstance(one, int) else one}" for one in entries]
        return place.at(key).error(": ".join([*where, known.get(first["type"], first["msg"])]))
    if first["type"] == "extra_forbidden":
        fields = list(model.model_fields)
        return place.error(f"found key {key!r}; allowed: {', '.join(fields)}{nearest(key, fields)}")
    if first["type"] == "missing":
        return place.error(f"{key} is missing")
    cause = first.get("ctx", {}).get("error")
    return (place.at(key) if key else place).error(cause if cause is not None else first["msg"])
