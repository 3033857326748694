"""From a recipe as written to one without references: like, insert, drop, set, settings, overrides, parameters."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from augend.contract import AugendError
from augend.names import nearest
from augend.recipes.library import Recipe, Settings, parent
from augend.recipes.reading import Place, parse, plain
from augend.recipes.schema import BUILTIN_PARAMS, PhaseWords, SettingsWords

__all__ = [
    "Composed",
    "Override",
    "assign",
    "bind",
    "compose",
    "knows",
    "overridden",
    "reaching",
    "settled",
    "split_overrides",
]

_PARAM = re.compile(r"\$([A-Za-z][\w-]*)")
_REQUIRED = "required"
_NOT_COMPONENTS = ("objective", "start", "train")


@dataclass(frozen=True)
class Composed:
    """A recipe with `like`, `insert`, `drop` and `set` done; parameters are still written as ``$word``.

    Attributes:
        lineage: (name, names of its phases) of this recipe and those it is like, itself first.
        params: declared parameters with their defaults ("required" where there is none), the built-in ones left out.
        data: role -> what it is bound to.
        hold: name of a piece that is cut from the main training pictures -> share or number of them.
    """

    name: str
    title: str
    place: Place
    lineage: tuple[tuple[str, tuple[str, ...]], ...]
    params: Mapping[str, Any]
    data: Mapping[str, str]
    hold: Mapping[str, float | int]
    networks: Mapping[str, Mapping[str, Any]]
    result: tuple[str, ...]
    phases: tuple[Mapping[str, Any], ...]

    @property
    def phase_names(self) -> tuple[str, ...]:
        """Names of the phases in order."""
        return tuple(phase["name"] for phase in self.phases)

    def words(self) -> dict[str, Any]:
        """The keys of a recipe that says the same without `like`; a file of them loads as this recipe."""
        found = {
            "title": self.title if self.title != self.name else None,
            "params": dict(self.params),
            "data": {role: text for role, text in self.data.items() if role != "main"},
            "hold": {name: f"{100 * n:g}%" if isinstance(n, float) else n for name, n in self.hold.items()},
            "networks": {name: dict(network) for name, network in self.networks.items()},
            "result": list(self.result),
            "phases": [dict(phase) for phase in self.phases],
        }
        return {key: copy.deepcopy(value) for key, value in found.items() if value}


def compose(recipe: Recipe) -> Composed:
    """`recipe` with everything it is like folded in; a circle of `like` is an error.

    >>> from augend.recipes.library import load
    >>> compose(load("aug-ft")).phases[1]["train"]
    'net[$split:]'
    """
    chain = [recipe]
    while (above := parent(chain[-1])) is not None:
        names = [one.name for one in chain]
        if any(one.name == above.name and one.source == above.source for one in chain):
            raise recipe.place.at("like").error(f"goes in a circle: {' -> '.join([*names, above.name])}")
        chain.append(above)
    found = Composed(
        recipe.name,
        recipe.title,
        recipe.place,
        (),
        {},
        {"main": "$data"},
        {},
        {"net": {"model": "$model", "weights": "$weights"}},
        ("net",),
        (),
    )
    for one in reversed(chain):
        found = _apply(one, found)
    return found


def _apply(recipe: Recipe, to: Composed) -> Composed:
    own = recipe.words
    phases = [copy.deepcopy(dict(phase)) for phase in (own.phases if own.phases is not None else to.phases)]
    phases = _inserted(phases, own.insert, recipe.place.at("insert"))
    phases = _dropped(phases, own.drop, recipe.place.at("drop"))
    names = [phase["name"] for phase in phases]
    for name in names:
        if names.count(name) > 1:
            raise recipe.place.error(f"found two phases called {name!r}; a name belongs to one phase")
    for path, value in own.set.items():
        _set(phases, path.split("."), value, recipe.place.at("set"))
    return replace(
        to,
        params={**to.params, **own.params},
        data={**to.data, **own.data},
        hold={**to.hold, **own.hold},
        networks={**to.networks, **own.networks},
        result=own.result if own.result is not None else to.result,
        phases=tuple(phases),
        lineage=((recipe.name, tuple(names)), *to.lineage),
    )


def _inserted(
    phases: list[dict[str, Any]], insert: Mapping[str, list[dict[str, Any]]], place: Place
) -> list[dict[str, Any]]:
    for before, new in insert.items():
        names = [phase["name"] for phase in phases]
        if before != "end" and before not in names:
            raise place.unknown(before, [*names, "end"], "phase")
        at = len(phases) if before == "end" else names.index(before)
        phases = [*phases[:at], *copy.deepcopy(new), *phases[at:]]
    return phases


def _dropped(phases: list[dict[str, Any]], drop: Sequence[str], place: Place) -> list[dict[str, Any]]:
    for name in drop:
        names = [phase["name"] for phase in phases]
        if name not in names:
            raise place.unknown(name, names, "phase")
        phases = [phase for phase in phases if phase["name"] != name]
    if not phases:
        raise place.error("drops every phase; a recipe has at least one")
    return phases


def _set(phases: list[dict[str, Any]], path: Sequence[str], value: Any, place: Place) -> None:
    names = [phase["name"] for phase in phases]
    if path[0] not in names:
        raise place.at(".".join(path)).unknown(path[0], names, "phase")
    allowed = [key for key in PhaseWords.model_fields if key != "name"]
    if len(path) < 2 or path[1] not in allowed:
        raise place.at(".".join(path)).unknown(path[1] if len(path) > 1 else "", allowed, "key")
    at = names.index(path[0])
    phases[at] = assign(phases[at], path[1:], value, place.at(".".join(path)))


def assign(tree: Mapping[str, Any], path: Sequence[str], value: Any, place: Place) -> dict[str, Any]:
    """A copy of `tree` with `value` at `path`. A component's name need not be written: ``optimizer.lr``.

    >>> assign({"optimizer": {"adam": {"lr": 1e-3}}}, ["optimizer", "lr"], 3e-4, Place("s"))
    {'optimizer': {'adam': {'lr': 0.0003}}}
    """
    key, *rest = path
    if not rest:
        return {**tree, key: copy.deepcopy(value)}
    return {**tree, key: _deeper(tree.get(key), rest, value, place, key not in _NOT_COMPONENTS)}


def _deeper(inner: Any, rest: Sequence[str], value: Any, place: Place, component: bool) -> dict[str, Any]:
    if isinstance(inner, list):
        raise place.error("cannot reach into a list; set the whole key")
    if isinstance(inner, str) and (component or len(rest) > 1):
        inner = {inner: {}}
    elif not component and isinstance(inner, int | float):
        inner = {"weight": inner}  # a term written as its weight alone
    elif isinstance(inner, str):
        inner = {inner: None}
    if inner is None:
        inner = {}
    if not isinstance(inner, Mapping):
        raise place.found(inner, "a word or a mapping to reach into")
    if component and rest[0] not in inner and len(inner) == 1:
        ((word, options),) = inner.items()
        if options is None or isinstance(options, Mapping):
            return {word: assign(options or {}, rest, value, place)}
        if isinstance(options, str):
            return {word: _deeper(options, rest, value, place, True)}
    if len(rest) == 1:
        return {**inner, rest[0]: copy.deepcopy(value)}
    return {**inner, rest[0]: _deeper(inner.get(rest[0]), rest[1:], value, place, component)}


@dataclass(frozen=True)
class Override:
    """``PATH=VALUE`` of the command line: a phase's key, a key of the settings, or a parameter."""

    path: tuple[str, ...]
    value: Any

    @property
    def text(self) -> str:
        """The path as written."""
        return ".".join(self.path)


def split_overrides(texts: Iterable[str], composed: Composed) -> tuple[list[Override], list[Override], dict[str, Any]]:
    """Overrides of phases, of settings, and parameters, from texts such as ``tune.until=2000step``.

    >>> from augend.recipes.library import load
    >>> split_overrides(["tune.until=2000step", "optimizer.lr=3e-4", "split=conv3"], compose(load("aug-ft")))
    ([Override(path=('tune', 'until'), value='2000step')], [Override(path=('optimizer', 'lr'), value=0.0003)], \
{'split': 'conv3'})
    """
    phases: list[Override] = []
    settings: list[Override] = []
    params: dict[str, Any] = {}
    heads = [key for key in SettingsWords.model_fields if key not in ("like", "phases")]
    bindable = [*BUILTIN_PARAMS, *composed.params]
    for text in texts:
        path, equals, given = text.partition("=")
        if not equals or not path or not all(path.split(".")):
            raise AugendError(
                f"override {text!r}: allowed: PATH=VALUE, such as tune.until=2000step or optimizer.lr=3e-4"
            )
        found = Override(tuple(path.split(".")), parse(given, f"override {path}"))
        if len(found.path) > 1 and found.path[0] in composed.phase_names:
            phases.append(found)
        elif found.path[0] in heads:
            settings.append(found)
        elif len(found.path) == 1 and path in bindable:
            params[path] = found.value
        else:
            first = found.path[0]
            choice = [*composed.phase_names, *heads] if len(found.path) > 1 else [*heads, *bindable]
            what = "phase or key of the settings" if len(found.path) > 1 else "key of the settings or parameter"
            raise AugendError(
                f"override {text!r}: {composed.name} has no {what} {first!r} "
                f"(allowed: {', '.join(choice)}){nearest(first, choice)}"
            )
    return phases, settings, params


def reaching(overrides: Sequence[str], recipe: Composed, others: Sequence[Composed]) -> tuple[str, ...]:
    """The overrides of a study that are for this recipe: a phase or parameter that only others have is left to them. What
    nobody has stays, and is refused as a mistake when it is resolved.

    >>> from augend.recipes.library import load
    >>> plain, peers = compose(load("plain")), compose(load("dml"))
    >>> reaching(["peer=small", "batch=32", "nothing=1"], plain, [plain, peers])
    ('batch=32', 'nothing=1')
    """
    return tuple(text for text in overrides if knows(recipe, text) or not any(knows(one, text) for one in others))


def knows(composed: Composed, text: str) -> bool:
    """Whether a recipe has the phase or parameter that an override is about (or it is a key of the settings)."""
    try:
        split_overrides([text], composed)
    except AugendError:
        return False
    return True


def overridden(settings: Settings, overrides: Sequence[Override]) -> Settings:
    """The settings with overrides in them."""
    raw: dict[str, Any] = dict(settings.raw)
    for override in overrides:
        raw = assign(raw, override.path, override.value, Place(f"override {override.text}"))
    return Settings.of(settings.name, raw, f"{settings.source} with overrides") if overrides else settings


def settled(composed: Composed, settings: Settings, overrides: Sequence[Override]) -> Composed:
    """The recipe with what the settings fix for its phases, then what the command line says.

    A fix for ``RECIPE.PHASE`` holds for the recipe and those made like it; the nearer one wins.
    """
    phases = [copy.deepcopy(dict(phase)) for phase in composed.phases]
    place = Place(settings.source).at("phases")
    for name, names in reversed(composed.lineage):
        for path, fix in settings.words.phases.items():
            recipe, _, phase = path.partition(".")
            if recipe != name:
                continue
            if phase not in names:
                raise place.at(path).unknown(phase, names, "phase")
            phases = [{**one, **copy.deepcopy(fix)} if one["name"] == phase else one for one in phases]
    for override in overrides:
        _set(phases, override.path, override.value, Place("override"))
    return replace(composed, phases=tuple(phases))


def bind(composed: Composed, given: Mapping[str, Any], builtin: Mapping[str, Any]) -> Composed:
    """The recipe with every ``$word`` replaced.

    Args:
        composed: the recipe.
        given: values of parameters, declared or built in, that the user gives.
        builtin: values of the built-in parameters otherwise; one that is missing is an error where it is used.
    """
    for name in given:
        if name not in composed.params and name not in BUILTIN_PARAMS:
            raise composed.place.at("params").unknown(name, [*BUILTIN_PARAMS, *composed.params], "parameter")
    values = _Values(composed, plain(given, composed.place.at("params")), builtin)
    return replace(
        composed,
        params={},
        data={role: values.fill(text, composed.place.at(f"data.{role}")) for role, text in composed.data.items()},
        networks=values.each(composed.networks, "networks"),
        phases=tuple(
            {key: values.fill(value, composed.place.inside(phase["name"]).at(key)) for key, value in phase.items()}
            for phase in composed.phases
        ),
    )


class _Values:
    """The values of parameters, looked up when used, so that only a parameter in use can be missing."""

    def __init__(self, composed: Composed, given: Mapping[str, Any], builtin: Mapping[str, Any]) -> None:
        self._composed, self._given, self._builtin = composed, given, builtin

    def each(self, trees: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, Mapping[str, Any]]:
        return {name: self.fill(tree, self._composed.place.at(f"{key}.{name}")) for name, tree in trees.items()}

    def fill(self, tree: Any, place: Place, busy: tuple[str, ...] = ()) -> Any:
        if isinstance(tree, Mapping):
            return {key: self.fill(value, place, busy) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self.fill(item, place, busy) for item in tree]
        if not isinstance(tree, str) or "$" not in tree:
            return tree
        if whole := _PARAM.fullmatch(tree):
            return self._value(whole[1], place, busy)
        return _PARAM.sub(lambda found: self._text(found[1], tree, place, busy), tree)

    def _text(self, name: str, inside: str, place: Place, busy: tuple[str, ...]) -> str:
        value = self._value(name, place, busy)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise place.error(f"{inside!r} needs text or a number for ${name}, found {value!r}")
        return str(value)

    def _value(self, name: str, place: Place, busy: tuple[str, ...]) -> Any:
        if name in busy:
            raise place.error(f"parameters go in a circle: {' -> '.join([*busy, name])}")
        params = self._composed.params
        if name in self._given:
            return self._given[name]
        if name in params:
            if params[name] == _REQUIRED:
                raise place.error(f"${name} is required and has no value; give it as --set {name}=VALUE")
            return self.fill(params[name], place, (*busy, name))
        if name in self._builtin:
            return self.fill(self._builtin[name], place, (*busy, name))
        if name == "split":
            raise place.error(
                "$split has no value: the model declares no stage to cut at; give it as --set split=STAGE"
            )
        if name in BUILTIN_PARAMS:
            raise place.error(f"${name} has no value; give it as --set {name}=VALUE")
        choice = [*params, *BUILTIN_PARAMS]
        raise place.unknown(f"${name}", [f"${one}" for one in choice], "parameter")
