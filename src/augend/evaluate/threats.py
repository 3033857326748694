"""What is asked of trained models under attack, with and without test-time sums: attacks, budgets and threat models.

Every number has a threat model: what the attack may know, and what is judged.

* `BARE`: the model alone is attacked, and judged.
* `TRANSFERRED`: the model alone is attacked, and judged through test-time sums, of which the attack knows nothing. So the
  thesis did it; it is no evidence that sums defend.
* `ADAPTIVE`: the attack goes through the sums, with expectation over fresh draws, or through the very draws of the defender
  where these are known, and restarts. Whoever knows of the sums can still do what one can who does not: where the transferred
  attack is worse for a picture, it is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor, nn

from augend.contract import AugendError
from augend.evaluate.foreign import FOOLBOX, foolbox_attack
from augend.evaluate.sums import TestTimeSums
from augend.names import nearest

__all__ = [
    "ADAPTIVE",
    "ATTACKS",
    "BARE",
    "BLIND",
    "CLEAN",
    "PIECES",
    "SWEEP",
    "THROUGH",
    "TRANSFERRED",
    "Asked",
    "Condition",
    "Sums",
    "asked",
    "conditions",
    "procedure",
    "restarts_of",
    "sums_of",
    "through",
]

ATTACKS = ("fgsm", "bim", "mim", "pgd")
CLEAN = "clean"
BARE, TRANSFERRED, ADAPTIVE = "bare model", "transferred", "adaptive"
THROUGH = "test-time sums"
BLIND = "no gradient"  # a picture at which the bare model's gradient is 0 or no number in every pixel: sign() leaves it alone
PIECES = {"test": "test", "valid": "validation"}  # what may be attacked, and what it is called
SWEEP = "1/255,2/255,4/255,8/255,16/255,32/255,64/255,128/255"


@dataclass(frozen=True)
class Sums:
    """Options of `augend.TestTimeSums`; `references`: how many training pictures may be partners, a fixed stratified part."""

    k: int = 2
    weight: float = 1.0
    draws: int = 16
    average: str = "logits"
    references: int = 2000
    partners: str = "any"


@dataclass(frozen=True)
class Asked:
    """What shall be measured.

    Attributes:
        attacks: of `ATTACKS`, or ``foolbox:NAME``; none: clean pictures alone.
        eps: budgets, as written and as numbers in [0, 1].
        sums: also through test-time sums.
        steps: of BIM, MIM and PGD.
        restarts: of PGD; None: 1 against the bare model (the picture itself, as in the thesis), 3 through sums.
        samples: fresh draws a step of the adaptive attack.
        known: it knows the defender's own draws instead, and ascends the answer as it will be given.
        fast: gradients by passes in bfloat16; answers stay in full precision.
        pictures: how many of the pictures, a fixed stratified subset; None: all.
        seed: of starts and draws.
        on: ``test``, or ``valid``: the validation pictures, on which settings are chosen.
    """

    attacks: tuple[str, ...] = ()
    eps: tuple[tuple[str, float], ...] = ()
    sums: Sums | None = None
    steps: int = 10
    restarts: int | None = None
    samples: int = 16
    pictures: int | None = None
    seed: int = 0
    on: str = "test"
    known: bool = False
    fast: bool = False

    @property
    def common(self) -> dict[str, Any]:
        """What all numbers depend on, as JSON: everything but which attacks and budgets."""
        found = {name: value for name, value in asdict(self).items() if name not in ("attacks", "eps")}
        if self.sums is not None and self.sums.partners == "any":
            del found["sums"]["partners"]  # answers that were kept before there was a choice are found again
        return {name: value for name, value in found.items() if value or name not in ("known", "fast")}


class Condition(NamedTuple):
    """One number: an attack at a budget under a threat model; `CLEAN` has the budget 0."""

    attack: str
    said: str
    eps: float
    threat: str

    @property
    def name(self) -> str:
        """``pgd 8/255, bare model``."""
        return f"{self.attack}, {self.threat}" if self.attack == CLEAN else f"{self.attack} {self.said}, {self.threat}"

    @property
    def bare(self) -> str:
        """The name of the same attack on the model alone."""
        return self._replace(threat=BARE).name

    @property
    def before(self) -> str:
        """The name of the clean pictures as the same system sees them."""
        return f"{CLEAN}, {BARE if self.threat == BARE else THROUGH}"


def asked(
    attack: str | None,
    eps: str | None = None,
    sums: str | None = None,
    *,
    steps: int | None = None,
    restarts: int | None = None,
    samples: int | None = None,
    known: bool = False,
    fast: bool = False,
    pictures: int | None = None,
    on: str | None = None,
) -> Asked:
    """What the words of the command mean; a mistake is one line.

    >>> found = asked("fgsm,pgd", "2/255,0.1", "k=3,draws=8")
    >>> found.eps, found.sums.k, found.sums.draws, found.sums.partners
    ((('2/255', 0.00784313725490196), ('0.1', 0.1)), 3, 8, 'any')
    """
    words = () if attack is None else tuple(dict.fromkeys(part.strip() for part in attack.split(",") if part.strip()))
    if attack is not None and not words:
        raise AugendError(f"--attack: name some of {', '.join(ATTACKS)}")
    for word in words:
        if word.startswith(FOOLBOX):
            foolbox_attack(word)
        elif word not in ATTACKS:
            allowed = f"{', '.join(ATTACKS)}, {FOOLBOX}NAME"
            raise AugendError(f"--attack: there is no {word!r}{nearest(word, list(ATTACKS))} (known: {allowed})")
    if known and (sums is None or not words):
        raise AugendError(
            "--known is about attacks through test-time sums; name both: --attack pgd --sums k=2,draws=16"
        )
    if fast and all(word.startswith(FOOLBOX) for word in words):
        raise AugendError(f"--fast is about gradients of our own attacks; name some: --attack {','.join(ATTACKS)}")
    if not words:
        given = {"--eps": eps, "--steps": steps, "--restarts": restarts, "--samples": samples}
        for name, value in given.items():
            if value is not None:
                raise AugendError(f"{name} is about attacks; name some: --attack {','.join(ATTACKS)}")
        if sums is None:
            option = "--on" if pictures is None else "--pictures"
            raise AugendError(f"{option} is about --attack and --sums; name one of them")
    if on is not None and on not in PIECES:
        raise AugendError(f"--on: there is no {on!r}{nearest(on, list(PIECES))} (known: {', '.join(PIECES)})")
    for name, count in (("steps", steps), ("restarts", restarts), ("samples", samples), ("pictures", pictures)):
        if count is not None and count < 1:
            raise AugendError(f"--{name} {count}: it must be a whole number from 1 on")
    for option, count, of in (("--steps", steps, ("bim", "mim", "pgd")), ("--restarts", restarts, ("pgd",))):
        if count is not None and not set(of) & set(words):
            raise AugendError(f"{option} is about {', '.join(of)}; --attack names none of them")
    if samples is not None and sums is None:
        raise AugendError("--samples is about attacks through test-time sums; say which: --sums k=2,weight=1,draws=16")
    if known and samples is not None:
        raise AugendError(
            "--known attacks the draws that the defender makes, so it needs no fresh ones; leave --samples out"
        )
    return Asked(
        words,
        _budgets("2/255,4/255,8/255" if eps is None else SWEEP if eps == "sweep" else eps) if words else (),
        None if sums is None else sums_of(sums),
        steps or 10,
        restarts,
        samples or 16,
        pictures,
        on=on or "test",
        known=known,
        fast=fast,
    )


def _budgets(text: str) -> tuple[tuple[str, float], ...]:
    found: dict[str, float] = {}
    for part in (one.strip() for one in text.split(",")):
        above, _, below = part.partition("/")
        try:
            value = float(above) / float(below) if below else float(part)
        except (ValueError, ZeroDivisionError):
            raise AugendError(
                f"--eps: {part!r} is no number; write 8/255 or 0.03, several with commas, or sweep"
            ) from None
        if not 0 <= value <= 1:
            raise AugendError(f"--eps: {part} is not in [0, 1], the range of pixels; 8 of 255 grey levels are 8/255")
        found[part] = value
    return tuple(found.items())


def sums_of(text: str) -> Sums:
    """What the words of ``--sums`` mean."""
    kinds: dict[str, Callable[[str], Any]] = {
        "k": int,
        "weight": float,
        "draws": int,
        "average": str,
        "references": int,
        "partners": str,
    }
    given: dict[str, Any] = {}
    for part in (one.strip() for one in text.split(",") if one.strip()):
        name, _, value = part.partition("=")
        if name not in kinds:
            raise AugendError(f"--sums: there is no {name!r}{nearest(name, list(kinds))} (known: {', '.join(kinds)})")
        try:
            given[name] = kinds[name](value)
        except ValueError:
            raise AugendError(f"--sums: {name}={value} is no number") from None
    found = replace(Sums(), **given)
    if found.references < 1:
        raise AugendError(f"--sums: references={found.references}; it must be a whole number from 1 on")
    through(nn.Identity().eval(), None, found, 0)  # says what is wrong with the rest before anything is loaded
    return found


def through(
    model: nn.Module, references: Tensor | None, sums: Sums, seed: int, classes: Tensor | None = None
) -> TestTimeSums:
    """A model that answers through test-time sums; `classes` are those of the references."""
    average = cast(Literal["logits", "probabilities"], sums.average)
    partners = cast(Literal["any", "predicted", "others"], sums.partners)
    return TestTimeSums(model, references, sums.k, sums.weight, sums.draws, seed, average, partners, classes)


def conditions(wanted: Asked) -> list[Condition]:
    """All numbers that are asked for, clean pictures first."""
    found = [Condition(CLEAN, "0", 0.0, BARE)]
    threats = [BARE]
    if wanted.sums is not None:
        found.append(Condition(CLEAN, "0", 0.0, THROUGH))
        threats += [TRANSFERRED, ADAPTIVE]
    return found + [
        Condition(attack, said, eps, threat)
        for attack in wanted.attacks
        for threat in threats
        if not (attack.startswith(FOOLBOX) and threat == ADAPTIVE)  # they know nothing of fresh draws
        for said, eps in wanted.eps
    ]


def procedure(condition: Condition, wanted: Asked) -> str:
    """How an attack was done, for people: ``10 steps of eps/4, 3 starts``."""
    attack, parts = condition.attack, []
    if attack in ("bim", "mim", "pgd"):
        parts.append(f"{wanted.steps} steps of eps/{4 if attack == 'pgd' else 10}")
    if attack == "fgsm":
        parts.append("1 step of eps")
    if attack == "pgd":
        starts = restarts_of(wanted, condition.threat == ADAPTIVE)
        parts.append("from the picture" if starts == 1 else f"{starts} starts, all but the first random")
    if condition.threat == ADAPTIVE:
        fresh = f"expectation over {wanted.samples} fresh draws a step (the defender's own are not known)"
        how = "through the defender's own draws, which are known" if wanted.known else fresh
        parts.append(f"{how}, or transferred where that is worse")
    if attack.startswith(FOOLBOX):
        parts.append("foolbox's own defaults")
    elif wanted.fast and attack != CLEAN:
        parts.append("gradients in bfloat16")
    return ", ".join(parts)


def restarts_of(wanted: Asked, adaptive: bool) -> int:
    """How often PGD starts."""
    return wanted.restarts or (3 if adaptive else 1)
