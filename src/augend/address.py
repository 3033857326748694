"""Addresses name tensors (`net.features@a`), slices name weights (`net[layer3:]`). Parsing only; no torch.

An address is network, tensor, view. The tensor is "" (the network's result), a named output (`features`, `mean`) or
":STAGE", what enters that stage. `input` names the view itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from augend.contract import AugendError

__all__ = ["Address", "Slice"]

_NAME = r"[A-Za-z_][\w-]*"
_STAGE = r"[A-Za-z0-9_][\w.-]*"
_ADDRESS = re.compile(rf"(?P<net>{_NAME})(?:\.(?P<tensor>{_NAME})|\[:(?P<stage>{_STAGE})\])?(?:@(?P<view>{_NAME}))?")
_SLICE = re.compile(rf"(?P<net>{_NAME})(?:\[(?P<first>{_STAGE})?(?P<colon>:)?(?P<last>{_STAGE})?\])?")


@dataclass(frozen=True)
class Address:
    """A tensor of a step: `net`, `net.features@a`, `net[:layer3]`, `vae.mean@noisy`, `input@clean`.

    >>> Address.parse("net[:layer3]@a")
    Address(network='net', tensor=':layer3', view='a')
    """

    network: str
    tensor: str = ""
    view: str | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        found = _ADDRESS.fullmatch(text.strip())
        if found is None:
            raise AugendError(
                f"{text!r} is no address; write it like net, net.features, net[:layer3] or net.features@a"
            )
        tensor = found["tensor"] or (f":{found['stage']}" if found["stage"] else "")
        if tensor == ":classify":  # `features` is what enters the last stage of every classifier
            tensor = "features"
        return cls(found["net"], tensor, found["view"])

    def at(self, view: str) -> Address:
        """The same tensor of another view."""
        return Address(self.network, self.tensor, view)

    @property
    def key(self) -> str:
        """The address without its view, as a recipe writes it."""
        return str(Address(self.network, self.tensor))

    def __str__(self) -> str:
        tensor = f"[{self.tensor}]" if self.tensor.startswith(":") else f".{self.tensor}" if self.tensor else ""
        return f"{self.network}{tensor}" + (f"@{self.view}" if self.view else "")


@dataclass(frozen=True)
class Slice:
    """Weights of a network: all of it, the stages from `first` up to (not including) `last`, or one stage.

    >>> Slice.parse("net[layer3:]"), Slice.parse("vae[encode]").only
    (Slice(network='net', first='layer3', last=None, only=None), 'encode')
    """

    network: str
    first: str | None = None
    last: str | None = None
    only: str | None = None

    @classmethod
    def parse(cls, text: str) -> Slice:
        found = _SLICE.fullmatch(text.strip())
        if found is None or ("[" in text and not found["colon"] and (found["first"] is None or found["last"])):
            raise AugendError(f"{text!r} is no slice; write it like net, net[layer3:], net[:classify] or vae[encode]")
        if found["colon"]:
            return cls(found["net"], found["first"], found["last"])
        return cls(found["net"], only=found["first"])

    def covers(self, names: tuple[str, ...], where: str = "train") -> tuple[str, ...]:
        """The stage names meant, of a network whose stages are `names`; unknown stages are an error that lists them."""
        for stage in (self.first, self.last, self.only):
            if stage is not None and stage not in names:
                raise AugendError(
                    f"{where}: {self} names stage {stage!r}, which network {self.network!r} does not have; "
                    f"its stages are {', '.join(names)}"
                )
        if self.only is not None:
            return (self.only,)
        first = names.index(self.first) if self.first else 0
        last = names.index(self.last) if self.last else len(names)
        return names[first:last]

    def __str__(self) -> str:
        if self.only:
            return f"{self.network}[{self.only}]"
        if self.first or self.last:
            return f"{self.network}[{self.first or ''}:{self.last or ''}]"
        return self.network
