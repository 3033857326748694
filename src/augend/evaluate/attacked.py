"""Trained models under attack, with and without test-time sums: what is asked for, and what they answer.

Every number has a threat model: what the attack may know, and what is judged.

* `BARE`: the model alone is attacked, and judged.
* `TRANSFERRED`: the model alone is attacked, and judged through test-time sums, of which the attack knows nothing. So the
  thesis did it; it is no evidence that sums defend.
* `ADAPTIVE`: the attack goes through the sums, with expectation over fresh draws, or through the very draws of the defender
  where these are known, and restarts. Whoever knows of the sums can still do what one can who does not: where the transferred
  attack is worse for a picture, it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from augend.contract import AugendError
from augend.data.pictures import Pictures
from augend.evaluate import attacks
from augend.evaluate.foreign import FOOLBOX, by_foolbox, foolbox_attack
from augend.evaluate.sums import TestTimeSums
from augend.names import nearest
from augend.pixels import to_float
from augend.randomness import Draws, seed_default_generators, undisturbed

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
    "Looked",
    "Sums",
    "asked",
    "batch_of",
    "blind",
    "conditions",
    "look",
    "moved",
    "procedure",
    "shown",
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
BATCH, LEAST = 250, 16
PIXELS = 2_000_000  # of large pictures fewer at a time: a backward pass keeps what every layer made of them


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

    @property
    def common(self) -> dict[str, Any]:
        """What all numbers depend on, as JSON: everything but which attacks and budgets."""
        found = {name: value for name, value in asdict(self).items() if name not in ("attacks", "eps")}
        if self.sums is not None and self.sums.partners == "any":
            del found["sums"]["partners"]  # answers that were kept before there was a choice are found again
        if not self.known:
            del found["known"]
        return found


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


@dataclass(frozen=True)
class Looked:
    """What a model answers: condition -> int64 ``(N,)`` classes, `BLIND` -> 1 where the clean picture has no gradient.

    `share`: of the draws, how many sums used on clean pictures.
    """

    answers: Mapping[str, NDArray[np.int64]]
    share: float | None = None


def asked(
    attack: str | None,
    eps: str | None = None,
    sums: str | None = None,
    *,
    steps: int | None = None,
    restarts: int | None = None,
    samples: int | None = None,
    known: bool = False,
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
        starts = _restarts(wanted, condition.threat == ADAPTIVE)
        parts.append("from the picture" if starts == 1 else f"{starts} starts, all but the first random")
    if condition.threat == ADAPTIVE:
        fresh = f"expectation over {wanted.samples} fresh draws a step (the defender's own are not known)"
        how = "through the defender's own draws, which are known" if wanted.known else fresh
        parts.append(f"{how}, or transferred where that is worse")
    if attack.startswith(FOOLBOX):
        parts.append("foolbox's own defaults")
    return ", ".join(parts)


def _restarts(wanted: Asked, adaptive: bool) -> int:
    return wanted.restarts or (3 if adaptive else 1)


def look(
    model: nn.Module,
    pictures: Pictures,
    labels: Tensor,
    wanted: Asked,
    references: Tensor | None = None,
    *,
    classes: Tensor | None = None,
    kept: Collection[str] = (),
    device: torch.device | str = "cpu",
    after: Callable[[int, int], None] | None = None,
) -> Looked:
    """What a model answers under every condition that is asked for.

    Args:
        model: in eval mode; float32 pixels in [0, 1] -> logits. It is moved to `device`, and otherwise left as it is.
        pictures: of the model's training shape.
        labels: int64 ``(N,)``, class numbers of the model.
        wanted: its subset of pictures is taken already.
        references: training pictures for test-time sums, uint8 ``(R, C, H, W)``.
        classes: int64 ``(R,)``, their class numbers of the model, which partners by class want.
        kept: names of conditions that need no answer.
        device: where it is done.
        after: called with (pictures done under all conditions, pictures in all).

    Cost: a pass forward and one back for each step, restart, budget and attack; adaptive ones two forward and one back for
    each of `samples` (of `draws`, where these are known), and seven answers through the sums (`draws` passes each), by which
    the worst is found and judged.
    """
    model = model.to(device)
    sums = None
    if wanted.sums is not None:
        bank = None if references is None else references.to(device)
        sums = through(model, bank, wanted.sums, wanted.seed, classes)
    todo = [one for one in conditions(wanted) if one.name not in kept]
    found: dict[str, list[Tensor]] = {one.name: [] for one in todo}
    if wanted.attacks and BLIND not in kept:
        found[BLIND] = []
    used: list[Tensor] = []
    done = 0

    def judged(condition: Condition, x: Tensor, numbers: Tensor) -> None:
        nonlocal done
        seed_default_generators(int(numbers[0]))  # a network that draws draws the same, whatever ran before
        if sums is None or condition.threat == BARE:
            with torch.no_grad():
                classes = model(x).argmax(1)
        else:
            classes, draws, _ = sums.classify(x, numbers)
            if condition.attack == CLEAN:
                used.append(draws)
        found[condition.name].append(classes.cpu())
        done += len(x)
        if after is not None:
            after(done, len(todo) * len(pictures))

    with undisturbed():
        for numbers in torch.split(torch.arange(len(pictures)), batch_of(pictures)):
            x = shown(pictures, numbers, device)
            own = labels[numbers.to(labels.device)].to(device)
            for one in todo:
                if one.attack == CLEAN:
                    judged(one, x, numbers)
            if BLIND in found:
                found[BLIND].append(blind(model, x, own).cpu())
            for attack in wanted.attacks:
                seed_default_generators(int(numbers[0]))
                draws = Draws(wanted.seed, f"attack/{attack}", keys=numbers)
                here = [one for one in todo if one.attack == attack]
                plain = dict(moved(model, x, own, attack, _budgets_of(here), wanted, draws, adaptive=False))
                for one in here:
                    if one.threat != ADAPTIVE:
                        judged(one, plain[one.eps], numbers)
                here = [one for one in here if one.threat == ADAPTIVE]
                if sums is not None:
                    adaptive = dict(moved(sums, x, own, attack, _budgets_of(here), wanted, draws, adaptive=True))
                    for one in here:
                        judged(one, attacks.worst(sums, [adaptive[one.eps], plain[one.eps]], own, numbers), numbers)
    share = float(torch.cat(used).double().mean()) / wanted.sums.draws if used and wanted.sums else None
    return Looked({name: torch.cat(parts).numpy() for name, parts in found.items()}, share)


def blind(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """1 for each picture at which a model's gradient is 0, or no number, in every pixel, int64 ``(B,)``."""
    slope = attacks.input_gradient(model, x, labels).flatten(1)
    return ((slope == 0) | slope.isnan()).all(1).long()


def shown(pictures: Pictures, numbers: Tensor, device: torch.device | str) -> Tensor:
    """float32 ``(B, C, H, W)`` in [0, 1]; on the CPU channels last, a third faster (bench/attacks.py)."""
    x = to_float(pictures.fetch(numbers[:, None])[0][:, 0]).to(device)
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def batch_of(pictures: Pictures) -> int:
    """How many pictures are looked at together."""
    return max(LEAST, min(BATCH, PIXELS // math.prod(pictures.shape)))


def _budgets_of(some: Sequence[Condition]) -> list[float]:
    return list(dict.fromkeys(one.eps for one in some))


def moved(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    attack: str,
    budgets: Sequence[float],
    wanted: Asked,
    draws: Draws,
    *,
    adaptive: bool,
) -> Iterator[tuple[float, Tensor]]:
    """Each budget with the attacked pictures."""
    samples = wanted.samples if adaptive and not wanted.known else None
    if not budgets:
        return
    if attack == "fgsm":
        yield from zip(
            budgets, attacks.fgsm_sweep(model, x, labels, budgets, samples=samples, draws=draws), strict=True
        )
        return
    for eps in budgets:
        if attack.startswith(FOOLBOX):
            yield eps, by_foolbox(attack, model, x, labels, eps, wanted.seed + int(draws.keys[0]))
        elif attack == "pgd":
            restarts = _restarts(wanted, adaptive)
            yield (
                eps,
                attacks.pgd(model, x, labels, eps, steps=wanted.steps, restarts=restarts, samples=samples, draws=draws),
            )
        else:
            iterative = attacks.bim if attack == "bim" else attacks.mim
            yield eps, iterative(model, x, labels, eps, steps=wanted.steps, samples=samples, draws=draws)
