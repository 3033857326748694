"""Components as written become components as built: words known, options named, checked against the constructor."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from augend import names
from augend.contract import Component
from augend.recipes.reading import Place
from augend.recipes.words import POSITIONAL

__all__ = ["OPTIMIZERS", "SCHEDULES", "checked_options", "complete", "complete_optimizer", "copies"]

_SCALARS = {"float": (int, float), "int": (int,), "str": (str,), "bool": (bool,), "None": (type(None),)}
_KINDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "None": "null",
    "Sequence[float]": "a list of numbers",
    "Sequence[int]": "a list of whole numbers",
    "Sequence[str]": "a list of texts",
}


def _keyword(name: str, annotation: str, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _table(**options: tuple[str, Any] | str) -> dict[str, inspect.Parameter]:
    return {
        name: _keyword(name, given) if isinstance(given, str) else _keyword(name, *given)
        for name, given in options.items()
    }


# torch.optim's argument names and defaults, written out so that settings are checked without importing torch; how a
# step is computed (fused, foreach, capturable) is the runner's business. A test compares them with torch.
_ADAM: dict[str, tuple[str, Any] | str] = {"lr": "float", "betas": ("list", [0.9, 0.999]), "eps": ("float", 1e-8)}
OPTIMIZERS: Mapping[str, Mapping[str, inspect.Parameter]] = {
    "adam": _table(**_ADAM, weight_decay=("float", 0.0), amsgrad=("bool", False)),
    "adamw": _table(**_ADAM, weight_decay=("float", 0.01), amsgrad=("bool", False)),
    "sgd": _table(
        lr="float",
        momentum=("float", 0.0),
        dampening=("float", 0.0),
        weight_decay=("float", 0.0),
        nesterov=("bool", False),
    ),
}
"""Optimizer word -> its options, in torch's names; the learning rate is always written."""

SCHEDULES: Mapping[str, Mapping[str, inspect.Parameter]] = {
    "constant": {},
    "cosine": _table(warmup=("float", 0.0), floor=("float", 0.0)),
    "steps": _table(factor="float", at="list"),
    "on-plateau": _table(
        watch=("str", "train/loss"),
        factor=("float", 0.1),
        patience=("int", 10),
        threshold=("float", 1e-4),
        floor=("float", 0.0),
    ),
}
"""Learning-rate schedule word -> its options; `augend.recipes.schedules` says what they do."""


def complete(kind: str, component: Component, place: Place) -> Component:
    """A registered component with its options named and checked; ``kind`` is one of `augend.names`, or "fit"."""
    if kind not in names.BUILTIN or component.word not in names.known(kind):
        raise place.unknown(component.word, names.known(kind) if kind in names.BUILTIN else [], kind)
    allowed = names.options(kind, component.word)
    found = checked_options(component, allowed, place)
    make = names.lookup(kind, found.word)
    needed = {name for name, one in inspect.signature(make).parameters.items() if one.default is one.empty}
    if needed <= set(allowed):
        # Cheap to build, and it knows best which values it takes. What needs shapes or classes is built by the runner.
        try:
            make(**found.options)
        except (TypeError, ValueError) as error:
            raise place.error(error) from None
    return found


def complete_optimizer(written: Component, place: Place) -> Component:
    """An optimizer with all of its options, the learning rate above 0."""
    if written.word not in OPTIMIZERS:
        raise place.unknown(written.word, OPTIMIZERS, "optimizer")
    found = checked_options(written, OPTIMIZERS[written.word], place)
    if not found.options["lr"] > 0:
        raise place.at("lr").found(found.options["lr"], "a number above 0")
    return found


def checked_options(component: Component, allowed: Mapping[str, inspect.Parameter], place: Place) -> Component:
    """`component` with Python names for its options, each one allowed and of the right type, none missing.

    >>> checked_options(Component("sgd", {"lr": 0.1, "weight-decay": 1e-4}), OPTIMIZERS["sgd"], Place("s")).options
    {'lr': 0.1, 'weight_decay': 0.0001}
    """
    place = place.at(component.word)
    named = [name for name, one in allowed.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    anything = any(one.kind == one.VAR_KEYWORD for one in allowed.values())
    options: dict[str, Any] = {}
    for written, value in component.options.items():
        name = written.replace("-", "_")
        if written == POSITIONAL:
            if not named:
                raise place.error(f"takes no options, found {value!r}")
            name = named[0]
        if name in options:
            raise place.error(f"option {name} is given twice")
        if name not in named and not anything:
            raise place.unknown(written, named, "option")
        if name in named:
            _check_type(name, value, allowed[name], place)
        options[name] = value
    missing = [name for name in named if allowed[name].default is inspect.Parameter.empty and name not in options]
    if missing:
        raise place.error(f"option {missing[0]} is missing (write {{{component.word}: {{{missing[0]}: …}}}})")
    return Component(component.word, options)


def _check_type(name: str, value: Any, parameter: inspect.Parameter, place: Place) -> None:
    wanted = parameter.annotation
    parts = [part.strip() for part in str(getattr(wanted, "__name__", wanted)).split("|")]
    if not all(part in _KINDS for part in parts):
        return
    if not any(_fits(value, part) for part in parts):
        raise place.at(name).found(value, " or ".join(_KINDS[part] for part in parts))


def _fits(value: Any, kind: str) -> bool:
    if kind in _SCALARS:
        return isinstance(value, _SCALARS[kind]) and (kind == "bool" or not isinstance(value, bool))
    each = kind.removeprefix("Sequence[").removesuffix("]")
    return isinstance(value, list | tuple) and all(_fits(one, each) for one in value)


def copies(order: Component) -> int:
    """How many rows of a step show the same picture: the `copies` of an order that has them, otherwise 1."""
    found = names.options("order", order.word).get("copies")
    return 1 if found is None else int(order.options.get("copies", found.default))
