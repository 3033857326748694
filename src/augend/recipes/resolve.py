"""A recipe, settings and the sizes of the data become a `Plan`: nothing left to look up, everything checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from augend.contract import AugendError
from augend.recipes.augmentations import TRAITS
from augend.recipes.components import complete_optimizer
from augend.recipes.language import Composed, bind, compose, overridden, settled, split_overrides
from augend.recipes.library import Recipe, Settings, load
from augend.recipes.library import settings as load_settings
from augend.recipes.plan import Plan
from augend.recipes.planning import Resolving, data_word
from augend.recipes.reading import Place

__all__ = ["Asked", "asked_data", "check", "resolve", "resolved_words", "settings_rate"]

RecipeLike = str | Path | Mapping[str, Any] | Recipe
SettingsLike = str | Path | Mapping[str, Any] | Settings


@dataclass(frozen=True)
class Asked:
    """What data a recipe asks for, before they are loaded; a `Plan` says the same of itself.

    Attributes:
        roles: role -> data set.
        hold: piece that is cut from the main training pictures -> share or number of them.
    """

    roles: Mapping[str, str]
    hold: Mapping[str, float | int]


@dataclass(frozen=True)
class _Bound:
    """A recipe and settings with everything said that the user says."""

    recipe: Composed
    settings: Settings


def _bound(
    recipe: RecipeLike,
    settings: SettingsLike,
    overrides: Sequence[str],
    params: Mapping[str, Any] | None,
    builtin: Mapping[str, Any],
) -> _Bound:
    composed = compose(load(recipe))
    phase_says, settings_says, binds = split_overrides(overrides, composed)
    block = overridden(load_settings(settings), settings_says)
    if any(one.path[0] == "optimizer" for one in settings_says):
        _one_optimizer(composed, block)
    given = {key: value for key, value in {**(params or {}), **binds}.items() if (key, value) != ("split", "auto")}
    return _Bound(bind(settled(composed, block, phase_says), given, builtin), block)


def _one_optimizer(composed: Composed, block: Settings) -> None:
    for path, fix in block.words.phases.items():
        recipe, _, phase = path.partition(".")
        here = recipe in [name for name, _ in composed.lineage] and phase in composed.phase_names
        if here and fix.get("optimizer", "fresh") != "fresh":
            raise AugendError(
                f"override optimizer: the settings {block.name!r} fix another optimizer for phase {phase} of {recipe}; "
                f"say which one, as {phase}.optimizer.lr=3e-4"
            )


def asked_data(
    recipe: RecipeLike,
    *,
    data: str,
    model: str | Mapping[str, Any] = "auto",
    overrides: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    settings: SettingsLike = "good-practice",
) -> Asked:
    """What must be loaded before `resolve`: the data set of every role that the recipe uses.

    >>> asked_data("transfer-none", data="cifar10", params={"base": "cifar100"}).roles
    {'main': 'cifar10', 'base': 'cifar100'}
    """
    builtin = {"data": data, "model": model, "weights": None, "base": "$data", "split": "auto"}
    bound = _bound(recipe, settings, overrides, params, builtin).recipe
    return Asked(
        {role: data_word(text, bound.place.at(f"data.{role}")) for role, text in bound.data.items()}, bound.hold
    )


def settings_rate(
    recipe: RecipeLike, settings: SettingsLike = "good-practice", *, overrides: Sequence[str] = ()
) -> float:
    """The learning rate of the settings, overrides included; phases of a recipe may take multiples of it.

    >>> settings_rate("init-embedding", "quick"), settings_rate("plain", "quick", overrides=["optimizer.lr=0.01"])
    (0.001, 0.01)
    """
    _, said, _ = split_overrides(overrides, compose(load(recipe)))
    block = overridden(load_settings(settings), said)
    return float(complete_optimizer(block.words.optimizer, Place(block.source).at("optimizer")).options["lr"])


def resolved_words(
    recipe: RecipeLike,
    settings: SettingsLike = "good-practice",
    *,
    overrides: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The recipe as one mapping without `like`, `set`, `insert`, `drop`; what settings and overrides fix stands in it.

    Parameters stay written as ``$word``, their defaults replaced by the values given.
    """
    composed = compose(load(recipe))
    phase_says, settings_says, binds = split_overrides(overrides, composed)
    found = settled(composed, overridden(load_settings(settings), settings_says), phase_says)
    given = {key: value for key, value in {**(params or {}), **binds}.items() if key in found.params}
    return replace(found, params={**found.params, **given}).words()


def resolve(
    recipe: RecipeLike,
    settings: SettingsLike = "good-practice",
    *,
    sizes: Mapping[str, int],
    traits: Mapping[str, frozenset[str]],
    data: str,
    model: str | Mapping[str, Any],
    split: str | None = None,
    budget: str | None = None,
    fallback: str | None = None,
    side: int | None = None,
    whole: int | None = None,
    overrides: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
) -> Plan:
    """What the runner runs.

    Args:
        recipe: name, file, mapping or `Recipe`.
        settings: name, file, mapping or `Settings`.
        sizes: training pictures of each role (see `roles`).
        traits: what the labels of each role's data survive.
        data: the main data set, ``$data``.
        model: ``$model``, a word or ``{word: options}``.
        split: the stage that ``$split`` names when left at auto; None where the model declares none.
        budget: ``2000step`` or ``30epoch`` (of the main data at the settings' batch); None for the settings'.
        fallback: the budget where the recipe needs one and neither `budget` nor the settings give it.
        side: pixels of the data's side, for phases whose `size` is a multiple of it.
        whole: pictures by which a batch is chosen and epochs of a budget are counted: those of the main data before the
            recipe held some out. None: ``sizes["main"]``.
        overrides: ``PATH=VALUE`` texts of the command line; they win over everything.
        params: values of parameters.

    Raises:
        AugendError: one line that names recipe or file, phase, key, what was found, what is allowed.

    Example:
        >>> plan = resolve("augment-then-plain", sizes={"main": 200}, traits={"main": frozenset({"rotate", "crop"})},
        ...                data="digits", model="figure1", budget="800step")
        >>> [(phase.name, phase.steps, phase.segment) for phase in plan.phases]
        [('augmented', 400, 0), ('plain', 400, 1)]
    """
    builtin: dict[str, Any] = {"data": data, "model": model, "weights": None, "base": "$data"}
    if split is not None:
        builtin["split"] = split
    bound = _bound(recipe, settings, overrides, params, builtin)
    return Resolving(bound.recipe, bound.settings, sizes, traits, side, whole).plan(budget, fallback)


def check(
    recipe: RecipeLike,
    settings: SettingsLike = "good-practice",
    *,
    overrides: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    budget: str | None = None,
) -> Plan:
    """Resolve a recipe for imagined data (10,000 pictures whose labels survive everything), to see that it is sound.

    A parameter that is required and not given is bound to its own name.
    """
    found = load(recipe)
    missing = {name: name for name, value in compose(found).params.items() if value == "required"}
    asked = asked_data(
        found, data="digits", overrides=overrides, params={**missing, **(params or {})}, settings=settings
    )
    fixed = load_settings(settings).words.budget or any("budget" in one.partition("=")[0] for one in overrides)
    return resolve(
        found,
        settings,
        sizes=dict.fromkeys(asked.roles, 10_000),
        traits=dict.fromkeys(asked.roles, TRAITS),
        data="digits",
        model="figure1",
        split="middle",
        budget=budget or (None if fixed else "10000step"),
        side=32,
        overrides=overrides,
        params={**missing, **(params or {})},
    )
