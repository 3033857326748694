"""Named sets of augmentations (`none`, `light`, `standard`, `strong`, `tilt-5`, `pixels`), safe for the labels."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from augend import names
from augend.recipes import words
from augend.recipes.components import complete
from augend.recipes.plan import Op
from augend.recipes.reading import Place, parse
from augend.recipes.words import OpWords

__all__ = ["TRAITS", "expand", "sets"]

TRAITS = frozenset({"hflip", "vflip", "colour", "rotate", "crop"})
"""What labels of a data set may survive."""


@dataclass(frozen=True)
class _Entry:
    """One augmentation of a set: used where the labels survive all of `needs` and not all of `unless`."""

    op: OpWords
    needs: frozenset[str]
    unless: frozenset[str]

    def safe(self, traits: Collection[str]) -> bool:
        return self.needs <= set(traits) and not (self.unless and self.unless <= set(traits))


def _traits(value: object, place: Place) -> frozenset[str]:
    found = value if isinstance(value, list) else [value]
    for one in found:
        if one not in TRAITS:
            raise place.unknown(str(one), sorted(TRAITS), "trait")
    return frozenset(found)


@functools.cache
def sets() -> Mapping[str, tuple[_Entry, ...]]:
    """The named sets of ``settings/augmentations.yaml``."""
    file = resources.files("augend.recipes") / "settings" / "augmentations.yaml"
    place = Place("augmentations")
    found = {}
    for name, entries in parse(file.read_text(encoding="utf-8"), "augmentations").items():
        found[name] = tuple(
            _Entry(
                words.ops(entry["op"])[0],
                _traits(entry.get("needs", []), place.at(name)),
                _traits(entry.get("unless", []), place.at(name)),
            )
            for entry in entries
        )
    return found


def expand(
    ops: Sequence[OpWords], pixels: Sequence[OpWords], traits: Collection[str], place: Place, inside: str = ""
) -> tuple[Op, ...]:
    """Augmentations as written, sets replaced by what they hold for data with these traits, options named.

    Args:
        ops: as a recipe's view lists them.
        pixels: what the settings call ``pixels``.
        traits: what the labels of the data survive. Only sets are filtered; an augmentation that is named is used.
        place: where mistakes are.
        inside: "pixels" while the settings' own set is expanded.
    """
    found: list[Op] = []
    for written in ops:
        word = written.component.word
        if word in sets() or word == "pixels":
            if written.component.options or written.at is not None:
                raise place.at(word).error("is a set of augmentations and takes no options; write what it should hold")
            if word != "pixels":
                safe = [entry.op for entry in sets()[word] if entry.safe(traits)]
                found.extend(expand(safe, (), traits, place, inside))
            elif inside:
                raise place.error("pixels cannot name itself")
            else:
                found.extend(expand(pixels, (), traits, Place("settings").at("pixels"), "pixels"))
            continue
        if word not in names.known("augment"):
            raise place.unknown(word, [*sets(), "pixels", *names.known("augment")], "augmentation")
        made = complete("augment", written.component, place)
        if "network" in names.options("augment", word) and not made.options.get("network"):
            raise place.at(word).error("option network is missing: the network to apply")
        found.append(Op(made, written.at))
    return tuple(found)
