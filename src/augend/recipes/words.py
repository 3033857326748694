"""What the values of a recipe's keys may look like, one parser a kind of value; no file, phase or key is known here.

Each parser takes what YAML (or a Python dict) gave and returns a typed value, or raises a ValueError whose text says
what was found and what is allowed. `schema.py` says which key has which kind of value and adds the place to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from augend.address import Address, Slice
from augend.contract import Component
from augend.names import nearest
from augend.recipes.plan import Duration, Plateau
from augend.recipes.reading import AMBIGUOUS

__all__ = ["POSITIONAL", "Multiple", "OpWords", "TermWords"]

POSITIONAL = ""
"""Option name of a value written without one: ``{grayscale: 0.1}``, ``{mlp: [32]}``; resolving gives it its name."""

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z][\w-]*")
_WORD = re.compile(r"(?:(?:torchvision|hf-hub|timm):[\w./-]+|[A-Za-z0-9][\w.-]*)")
_TIMES = re.compile(r"(\d+(?:\.\d+)?|\.\d+)x")
_UNTIL = re.compile(r"(\d+(?:\.\d+)?)(step|epoch|share|%)")
_METRIC = re.compile(r"(train|valid)/[\w.-]+")


def wrong(value: object, allowed: str) -> ValueError:
    """`value` stands where only `allowed` may."""
    return ValueError(f"found {value!r}; allowed: {allowed}")


def unknown(word: object, words: list[str]) -> ValueError:
    """`word` is none of `words`."""
    return ValueError(f"found {word!r}; allowed: {', '.join(words)}{nearest(str(word), words)}")


@dataclass(frozen=True)
class Multiple:
    """A multiple of the settings' value, as ``8x``."""

    factor: float

    def of(self, value: float) -> float:
        """That many times `value`, as a decimal would have it (0.1 times 3e-3 is 3e-4, not 3.0000000000000003e-4)."""
        return float(f"{self.factor * value:.12g}")


@dataclass(frozen=True)
class OpWords:
    """One augmentation as written; `at` is the tensor it acts on (None: the pixels)."""

    component: Component
    at: Address | None = None


@dataclass(frozen=True)
class TermWords:
    """One term of an objective as written; `of` is None where it is left to the default."""

    component: Component
    weight: float = 1.0
    of: tuple[Address, ...] | None = None
    to: tuple[Address, ...] = ()


@dataclass(frozen=True)
class Fresh:
    """``optimizer: fresh``: the settings' optimizer begun anew, with options changed (numbers or multiples)."""

    changed: Mapping[str, Any] = field(default_factory=dict)


def optional(parse: Callable[[object], _T]) -> Callable[[object], _T | None]:
    """`parse`, with null for nothing."""
    return lambda value: None if value is None else parse(value)


def name(value: object) -> str:
    """A name of a phase, network, view or role."""
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise wrong(value, "a name of letters, digits, - and _ that begins with a letter")
    if value.lower() in AMBIGUOUS:
        raise ValueError(f"nothing may be called {value!r} (some readers of YAML take it for true or false)")
    return value


def text(value: object) -> str:
    """One line of text."""
    if not isinstance(value, str) or "\n" in value.strip():
        raise wrong(value, "one line of text")
    return value.strip()


def names(value: object) -> tuple[str, ...]:
    """A name or a list of names."""
    return tuple(name(item) for item in (value if isinstance(value, list) else [value]))


def number(value: object) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise wrong(value, "a number")
    return value


def whole(value: object) -> int:
    """A whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise wrong(value, "a whole number from 1")
    return value


def batch(value: object) -> int | None:
    """A whole number from 1, or ``auto`` (None): by the number of training pictures."""
    if value == "auto":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise wrong(value, "a whole number from 1, or auto")
    return value


def times(value: object) -> Multiple | None:
    """The multiple that text like ``8x`` says, or None."""
    found = _TIMES.fullmatch(value) if isinstance(value, str) else None
    return Multiple(float(found[1])) if found and float(found[1]) > 0 else None


def size(value: object) -> int | Multiple:
    """A whole number, or a multiple of the settings' value."""
    if (multiple := times(value)) is not None:
        return multiple
    try:
        return whole(value)
    except ValueError:
        raise wrong(value, "a whole number from 1, or a multiple of the settings' value such as 2x or 0.6x") from None


def held(value: object) -> dict[str, float | int]:
    """Pieces cut from the main training pictures, by name: ``{external: 10%}``, ``{external: 500}``."""
    if not isinstance(value, Mapping):
        raise wrong(value, "{NAME: 10%}, or {NAME: a number of pictures}")
    found: dict[str, float | int] = {}
    for key, amount in value.items():
        share = _UNTIL.fullmatch(amount) if isinstance(amount, str) else None
        if share is not None and share[2] == "%" and 0 < float(share[1]) < 100:
            found[name(key)] = float(share[1]) / 100
        else:
            try:
                found[name(key)] = whole(amount)
            except ValueError:
                raise wrong(amount, "a share above 0% and below 100%, or a number of pictures from 1") from None
    return found


def component(value: object) -> Component:
    """A word alone, or one word with its options: ``shuffle``, ``{groups: {copies: 3}}``, ``{mlp: [32]}``."""
    if isinstance(value, str):
        return Component(_word(value))
    if not isinstance(value, Mapping) or len(value) != 1:
        raise wrong(value, "a word, or one word with its options as {word: {option: value}}")
    ((word, given),) = value.items()
    if given is None:
        return Component(_word(word))
    return Component(_word(word), dict(given) if isinstance(given, Mapping) else {POSITIONAL: given})


def _word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(
            f"found {value!r}; allowed: a registered word (a recipe holds no import path: register a component of your "
            "own and name its file with --plugin)"
        )
    return value


def address(value: object) -> Address:
    """One address: ``net``, ``net.features@a``."""
    if not isinstance(value, str):
        raise wrong(value, "an address such as net, net.features, net[:layer3] or net.features@a")
    return Address.parse(value)


def addresses(value: object) -> tuple[Address, ...]:
    """One address or a list of them."""
    found = tuple(address(item) for item in (value if isinstance(value, list) else [value]))
    if not found:
        raise wrong(value, "an address, or a list of addresses")
    return found


def slice_(value: object) -> Slice:
    """One slice: ``net[layer3:]``."""
    if not isinstance(value, str):
        raise wrong(value, "a slice such as all, net, net[layer3:], net[:classify] or vae[encode]")
    return Slice.parse(value)


def slices(value: object) -> tuple[Slice, ...]:
    """One slice or a list of them."""
    found = tuple(slice_(item) for item in (value if isinstance(value, list) else [value]))
    if not found:
        raise wrong(value, "a slice or a list of slices; a phase trains something")
    return found


def start(value: object) -> dict[str, Slice]:
    """``{network: slice}``: the weights that a network begins the phase with."""
    if not isinstance(value, Mapping):
        raise wrong(value, '{NETWORK: slice}, such as {readout: "teacher[classify:]"}')
    return {name(key): slice_(item) for key, item in value.items()}


def ops(value: object) -> tuple[OpWords, ...]:
    """Augmentations in order: a word, a component, or a list of them; ``at`` among the options is the tensor."""
    found = []
    for item in value if isinstance(value, list) else [value]:
        written = component(item)
        options = dict(written.options)
        at = options.pop("at", None)
        where = None if at is None else address(at)
        if where is not None and where.view is not None:
            raise wrong(at, "an address without a view (the augmentation belongs to its own view)")
        if where is not None and where.network == "input":
            where = None
        found.append(OpWords(Component(written.word, options), where))
    return tuple(found)


def views(value: object) -> dict[str, tuple[OpWords, ...]]:
    """``pixels``, ``[hflip, {crop: 4}]`` (one view, called x) or ``{views: {clean: none, noisy: pixels}}``."""
    if isinstance(value, Mapping) and "views" in value:
        inner = value["views"]
        if len(value) != 1 or not isinstance(inner, Mapping) or not inner:
            raise wrong(value, "{views: {NAME: augmentations}} with nothing beside it")
        return {name(view): ops(item) for view, item in inner.items()}
    return {"x": ops(value)}


def objective(value: object) -> dict[str, TermWords]:
    """``cross-entropy``, or ``{term: weight}``, ``{term: {weight:, of:, to:, options}}``, one entry a term."""
    if isinstance(value, str):
        return {value: TermWords(Component(_word(value)))}
    if not isinstance(value, Mapping) or not value:
        raise wrong(value, "a term, or {term: weight} or {term: {weight: …, of: …, to: …}} for each term")
    return {word: _term(word, given) for word, given in value.items()}


def _term(word: str, given: object) -> TermWords:
    if given is None:
        return TermWords(Component(_word(word)))
    try:
        if not isinstance(given, Mapping):
            return TermWords(Component(_word(word)), number(given))
        options = dict(given)
        weight = number(options.pop("weight", 1.0))
        of, to = options.pop("of", None), options.pop("to", None)
        return TermWords(
            Component(_word(word), options),
            weight,
            None if of is None else addresses(of),
            () if to is None else addresses(to),
        )
    except ValueError as error:
        raise ValueError(f"term {word}: {error}") from None


def optimizer(value: object) -> Fresh | Component:
    """``fresh``, ``{fresh: {lr: 0.1x}}``, or an optimizer of the phase's own."""
    written = component(value)
    if written.word != "fresh":
        return written
    return Fresh({key: times(item) or item for key, item in written.options.items()})


def schedule(value: object) -> Component:
    """``{lr: cosine}`` or ``{lr: {cosine: {warmup: 5%}}}``."""
    if not isinstance(value, Mapping) or set(value) != {"lr"}:
        raise wrong(value, "{lr: SCHEDULE}, such as {lr: constant} or {lr: {cosine: {warmup: 5%}}}")
    return component(value["lr"])


def until(value: object) -> Duration:
    """``2000step``, ``10epoch``, ``50%``, ``2share``, or ``{plateau: {…}, at most: 100epoch}``."""
    if isinstance(value, Mapping):
        return _plateau(value)
    allowed = "2000step, 10epoch, 50%, 2share, or {plateau: {…}, at most: …}"
    found = _UNTIL.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise wrong(value, f"{allowed} (a number and its unit in one word)")
    amount = float(found[1])
    units: dict[str, Literal["step", "epoch", "percent", "share"]]
    units = {"step": "step", "epoch": "epoch", "share": "share", "%": "percent"}
    if amount <= 0 or (found[2] == "step" and amount != int(amount)) or (found[2] == "%" and amount > 100):
        raise wrong(value, f"{allowed} (steps are whole numbers from 1, percents at most 100, nothing is 0)")
    return Duration(units[found[2]], int(amount) if amount == int(amount) else amount)


def _plateau(value: Mapping[str, Any]) -> Duration:
    if set(value) != {"plateau", "at most"}:
        near = ", and a plateau needs its `at most`" if "plateau" in value else ""
        raise ValueError(f"found keys {', '.join(map(str, value))}; allowed: plateau and at most, both{near}")
    inner = value["plateau"] or {}
    known = ["watch", "patience", "min_delta"]
    if not isinstance(inner, Mapping):
        raise wrong(inner, "{watch: train/loss, patience: 10, min_delta: 0}")
    for key in inner:
        if key not in known:
            raise ValueError(f"plateau: {unknown(key, known)}")
    cap = until(value["at most"])
    if cap.plateau is not None:
        raise wrong(value["at most"], "a duration such as 100epoch")
    return Duration(
        cap.unit,
        cap.amount,
        Plateau(
            metric(inner.get("watch", "train/loss")),
            whole(inner.get("patience", 10)),
            float(number(inner.get("min_delta", 0.0))),
        ),
    )


def budget(value: object) -> Duration:
    """``2000step`` or ``30epoch``."""
    found = until(value)
    if found.unit not in ("step", "epoch") or found.plateau is not None:
        raise wrong(value, "2000step or 30epoch")
    return found


def metric(value: object) -> str:
    """What may be watched: a metric of train or valid."""
    if isinstance(value, str) and value.partition("/")[0] == "test":
        raise ValueError(f"found {value!r}; allowed: train/… and valid/… (a recipe never names test)")
    if not isinstance(value, str) or not _METRIC.fullmatch(value):
        raise wrong(value, "a metric of train or valid, such as train/loss or valid/accuracy")
    return value


def keep(value: object) -> str:
    """``last`` or ``{best: valid/accuracy}``."""
    if value == "last":
        return "last"
    if not isinstance(value, Mapping) or set(value) != {"best"}:
        raise wrong(value, "last or {best: valid/accuracy}")
    return metric(value["best"])


def cache(value: object) -> Literal["auto"] | bool | int:
    """``auto``, true, false or ``{views: 8}``."""
    if value == "auto":
        return "auto"
    if isinstance(value, bool):
        return value
    if not isinstance(value, Mapping) or set(value) != {"views"}:
        raise wrong(value, "auto, true, false or {views: 8}")
    return whole(value["views"])


def role(value: object) -> str:
    """The name of a role of the data; never test."""
    if value == "test":
        raise ValueError("found 'test'; allowed: main and the recipe's own roles (a recipe never names test)")
    return name(value)
