"""The advice of a study, by rule: which recipe is chosen on validation, and which of four sentences is true of it.

The rule, with L the recipe of the best validation mean: candidates are the recipes with P(worse than L by more than the
margin) < 0.5; X is the cheapest of them by seconds (where seconds were given, by those, not by what was used of them), and
among those that cost within 10 % of it the one with fewer phases (then the better one; but the reference, if it is among
them, before a special one that is not separated from it: what is special must be better, or cheaper, to be advised). Asking
for proof of equivalence instead makes the noise winner the only candidate.

4. `Nothing learned ...` comes first: no recipe has P(better than always answering the largest class by more than the
   margin) >= 0.8. (By means alone, four recipes at chance would often escape it.)
3. `None of the special recipes ...`: X is the reference, and special recipes were compared, of which every one can be judged.
1. `Use X ...`: X = L and no other has P(better by more than the margin) > 0.2, or X is another and P(X within the
   margin of L, or better) >= 0.8.
2. `X and Y cannot be told apart ...`: otherwise; where validation tells them apart, by how much Y leads within the margin.

The choice needs validation only. The sentence is made from results.json alone; what the test pictures say may weaken it
(form 1 becomes form 2, a warning is added) but never changes X.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from augend.study.evidence import Recipe
from augend.study.statistics import Estimate, pictures_needed, probabilities

__all__ = ["Choice", "Entry", "choose", "sentence"]

REPEATS_MOST = 20
REPEATS_EVIDENCE = 5
SAME_COST = 1.10
LIKELY = 0.5
RIVAL = 0.2
SURE = 0.8
_EXACT = 1e-9


@dataclass(frozen=True)
class Entry:
    """A recipe as the rule sees it: its validation mean, the seconds it costs (`results.decide` says which).

    `above` is its validation score minus that of always answering the largest training class.
    """

    recipe: Recipe
    mean: float
    seconds: float
    above: Estimate


@dataclass(frozen=True)
class Choice:
    """What was chosen on validation, as `choice.json` holds it.

    Attributes:
        form: 1 to 4, before the test pictures are read.
        advised: X; None in form 4.
        leader: L.
        rival: Y of form 2.
        candidates: recipes that are not likely to be worse than L by more than the margin.
        better: P(recipe better than X by more than the margin) on validation, for every other recipe.
        ahead: every other recipe's validation score minus X's: mean, low and high (95 %), separated (`Estimate.separated`).
    """

    form: int
    advised: str | None
    leader: str
    rival: str | None
    candidates: tuple[str, ...]
    better: dict[str, float]
    ahead: dict[str, dict[str, Any]] = field(default_factory=dict)


def _believed(found: Estimate, prior: Estimate) -> Estimate:
    """With one repeat there is no spread: the guess made before training stands in, for the form of the advice only."""
    return found if found.error is not None else dataclasses.replace(prior, mean=found.mean)


def _better(found: Estimate, margin: float) -> float:
    three = probabilities(found, margin)
    assert three is not None  # `_believed` has seen to it
    return three.better


def choose(
    entries: Sequence[Entry],
    difference: Callable[[str, str], Estimate],
    *,
    reference: str,
    margin: float,
    prior: Estimate,
    unjudged: Sequence[Recipe] = (),
) -> Choice:
    """Apply the rule.

    Args:
        entries: the recipes with a finished trial.
        difference: paired validation difference, first minus second.
        reference: name of the reference.
        margin: share, 0.01 is one point.
        prior: `statistics.guess(1, ...)`, used where a difference rests on one repeat.
        unjudged: recipes of the study that are no entries: of a special one among them it is not said that it is not worth
            its cost.
    """
    place = {entry.recipe.name: number for number, entry in enumerate(entries)}
    leader = min(entries, key=lambda e: (-e.mean, e.seconds, place[e.recipe.name]))
    top = leader.recipe.name

    def against(name: str, other: str) -> Estimate:
        return _believed(difference(name, other), prior)

    # the distribution is symmetric, so P(worse by more than the margin) < 0.5 means: the mean is above minus the margin
    candidates = [e for e in entries if e is leader or against(e.recipe.name, top).mean > -margin + _EXACT]
    names = tuple(e.recipe.name for e in candidates)
    if all(_better(_believed(e.above, prior), margin) < SURE for e in entries):
        return Choice(4, None, top, None, names, {})
    cheapest = min(e.seconds for e in candidates)
    near = [e for e in candidates if e.seconds <= SAME_COST * cheapest]
    chosen = min(near, key=lambda e: (e.recipe.phases, -e.mean, e.seconds, place[e.recipe.name]))
    usual = next((e for e in near if e.recipe.name == reference and e.recipe.phases == chosen.recipe.phases), chosen)
    if usual is not chosen and chosen.recipe.special and against(chosen.recipe.name, reference).separated < 1:
        chosen = usual
    advised = chosen.recipe.name
    better: dict[str, float] = {}
    ahead: dict[str, dict[str, Any]] = {}
    for entry in entries:
        name = entry.recipe.name
        if name != advised:
            better[name] = _better(against(name, advised), margin)
            found = difference(name, advised)
            low, high = found.interval or (None, None)
            ahead[name] = {"mean": found.mean, "low": low, "high": high, "separated": found.separated}
    special = [e.recipe for e in entries if e.recipe.special]
    if advised == reference and special and not any(recipe.special for recipe in unjudged):
        return Choice(3, advised, top, None, names, better, ahead)
    if advised == top:
        rival = max(better, key=lambda name: better[name], default=None)
        sure = rival is None or better[rival] <= RIVAL
    else:
        rival = top
        sure = 1 - better[top] >= SURE
    return Choice(1 if sure else 2, advised, top, None if sure else rival, names, better, ahead)


def times(ratio: float) -> str:
    """A cost ratio in two digits: 0.4, 0.38, 1.2, 12."""
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.2g}"


def _hundred(estimate: dict[str, Any]) -> str:
    fine = estimate["mean"] >= 0.98 or (estimate["low"] is not None and estimate["high"] - estimate["low"] < 0.01)
    digits = 1 if fine else 0
    if estimate["low"] is None:
        return f"about {100 * estimate['mean']:.{digits}f} in 100"
    low, high = (100 * estimate[end] for end in ("low", "high"))
    return f"about {100 * estimate['mean']:.{digits}f} in 100 ({low:.{digits}f} to {high:.{digits}f})"


def _margin(results: dict[str, Any]) -> str:
    share = results["margin"]
    return f"{100 * share:.2g} {'point' if math.isclose(share, 0.01) else 'points'}"


def _quoted(results: dict[str, Any], name: str) -> str:
    title = results["recipes"][name]["title"]
    return f'"{name}"' if title in ("", name) else f'"{title}" ({name})'


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _at_most(results: dict[str, Any], advised: str) -> float | None:
    """The largest P(better than X by more than the margin) of any other recipe, on validation or on test."""
    found = list(results["choice"]["better"].values())
    for recipe in results["recipes"].values():
        against = recipe["versus_advised"]
        if against is not None and against["probabilities"] is not None:
            found.append(against["probabilities"]["better"])
    return max(found, default=None)


def _cost(results: dict[str, Any], name: str, other: str) -> float | None:
    mine, theirs = (results["recipes"][n]["cost"]["counted"] for n in (name, other))
    return None if not mine or not theirs else float(mine / theirs)


def _form1(results: dict[str, Any], advised: str) -> str:
    recipe, reference = results["recipes"][advised], results["reference"]
    each = " of each class" if results["metric"] == "balanced_accuracy" else ""
    text = f"Use {_quoted(results, advised)}. On pictures it has not seen it is right {_hundred(recipe['test'])}{each}"
    most = _at_most(results, advised)
    if most is not None:
        text += f"; no other recipe is likely to be more than {_margin(results)} better"
        if results["repeats_finished"] > 1:
            text += f" (at most {max(1, math.ceil(100 * most - _EXACT))} %)"
    ratio = _cost(results, advised, reference) if reference in results["recipes"] else None
    if ratio is not None and advised != reference and times(ratio) != "1":
        text += f', and "{advised}" costs {times(ratio)} of "{reference}"'
    return text + "."


def _remedy(results: dict[str, Any], found: dict[str, Any]) -> str:
    estimate = Estimate(
        found["mean"], found["repeats"], found["spread"], found["shared"], found["floor"], found["repeats"] - 1
    )
    pictures = sum(results["sizes"].values())
    most = max(REPEATS_MOST, found["repeats"])
    more = pictures_needed(estimate, found["mean"], pictures, most) if estimate.spread is not None else 0
    if more == 0 and found["repeats"] < most:
        folder = shlex.quote(results["folder"])
        return f"To separate them, run: augend compare --out {folder} --repeats {most}."
    if not more:
        return "To separate them you need more than a million more pictures."
    return f"To separate them you need about {more:,} more pictures."


def _between(found: dict[str, Any], sign: int = 1) -> str:
    """``0.9 points better (0.1 to 1.7)``; `sign` -1: seen from the other side."""
    low, high = sorted(100 * sign * found[end] for end in ("low", "high"))
    return f"{100 * sign * found['mean']:.1f} points better ({low:.1f} to {high:.1f})"


def _why(results: dict[str, Any], advised: str, rival: str) -> str:
    """What speaks for X, which is not the better of the two on validation unless it is neither cheaper nor simpler."""
    ratio = _cost(results, advised, rival)
    mine, theirs = (results["recipes"][n] for n in (advised, rival))
    if ratio is not None and ratio < 1 / SAME_COST:
        return f"is cheaper (x{times(ratio)})"
    if mine["phases"] < theirs["phases"]:
        return "is simpler"
    ahead = results["choice"]["ahead"].get(rival)
    if ahead is not None and ahead["mean"] > 0:  # then it is only by its cost that it was preferred, however little
        return "is a little cheaper"
    return "did better on the validation pictures"


def _form2(results: dict[str, Any], advised: str, rival: str) -> str:
    found, seen = results["recipes"][rival]["versus_advised"], results["choice"]["ahead"].get(rival)
    one, two = _quoted(results, advised), _quoted(results, rival)
    start = f'so start with "{advised}".'
    if seen is not None and seen["separated"] > 0:
        text = f"{two} is {_between(seen)} than {one} on the validation pictures, which is less than the margin of "
        text += f"{_margin(results)}; "
        ratio = _cost(results, advised, rival)
        cheap = ratio is not None and ratio < 1 / SAME_COST
        why = f"costs {times(ratio)} of it" if ratio is not None and cheap else _why(results, advised, rival)
        text += f'"{advised}" {why}, {start}'
    elif seen is not None and seen["separated"] < 0 and found["separated"] > 0:  # the test pictures are told below
        return f"{one} is {_between(seen, -1)} than {two} on the validation pictures, {start}"
    else:
        kind = "validation" if found["separated"] else "test"
        text = f"{one} and {two} cannot be told apart with "
        text += f"{results['sizes']['valid' if kind == 'validation' else 'test']} {kind} pictures and "
        text += (
            f'{_plural(results["repeats_finished"], "repeat")}; "{advised}" {_why(results, advised, rival)}, {start}'
        )
        if not found["separated"]:
            return f"{text} {_remedy(results, found)}"
    if found["separated"] < 0:
        return f"{text} On the test pictures it was {_between(found, -1)}."
    return text


def _silent(results: dict[str, Any]) -> str:
    """Which recipes nothing can be said of."""
    names = [f'"{name}"' for name in results["failed_recipes"]]
    if not names:
        return ""
    listed = " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])
    return f" {listed} failed in every repeat, so nothing is said of {'it' if len(names) == 1 else 'them'}."


def sentence(results: dict[str, Any]) -> tuple[int, str]:
    """The form that is printed and its text, from the content of `results.json` (without its "advice").

    Form 1 becomes form 2 where on the test pictures another recipe is more likely than not better than X by more than
    the margin; a recipe whose whole test interval lies above X is named in a second sentence.
    """
    choice = results["choice"]
    form, advised, rival = choice["form"], choice["advised"], choice["rival"]
    if form == 4:
        data = shlex.quote(results["data"])
        always = f'always answering "{results["constant"]}"'
        text = f"Nothing learned: every recipe is within the margin of {always}."
        return 4, f"{text} Check the labels: augend data check {data}.{_silent(results)}"
    ahead = {
        name: recipe["versus_advised"]
        for name, recipe in results["recipes"].items()
        if recipe["versus_advised"] is not None and recipe["versus_advised"]["probabilities"] is not None
    }
    strongest = max(ahead, key=lambda name: ahead[name]["probabilities"]["better"], default=None)
    if form == 1 and strongest is not None and ahead[strongest]["probabilities"]["better"] > LIKELY:
        form, rival = 2, strongest
    if form == 1:
        text = _form1(results, advised)
    elif form == 2:
        text = _form2(results, advised, rival)
    else:
        text = f'None of the special recipes is worth its cost here: use "{advised}".'
    text += _silent(results)
    for name, against in ahead.items():
        if against["separated"] > 0 and against["mean"] > results["margin"]:
            text += (
                f' But on the test pictures "{name}" was {100 * against["mean"]:.1f} points better than "{advised}" '
                f"({100 * against['low']:.1f} to {100 * against['high']:.1f}); the choice was made without them."
            )
    if results["repeats_finished"] < REPEATS_EVIDENCE:
        text += f" With {_plural(results['repeats_finished'], 'repeat')} this is screening, not evidence."
    return form, text
