"""The advice of a study, by rule: which recipe is chosen on validation, and which of four sentences is true of it.

The rule, with L the recipe of the best validation mean: candidates are the recipes with P(worse than L by more than
the margin) < 0.5; X is the cheapest of them by seconds, and among those that cost within 10 % of it the one with fewer
phases (then the better one). Asking for proof of equivalence instead makes the noise winner the only candidate.

4. `Nothing learned ...` comes first: no recipe has P(better than always answering the largest class by more than the
   margin) >= 0.8. (By means alone, four recipes at chance would often escape it.)
3. `None of the special recipes ...`: X is the reference and a special recipe was compared.
1. `Use X ...`: X = L and no other has P(better by more than the margin) > 0.2, or X is another and P(X within the
   margin of L, or better) >= 0.8.
2. `X and Y cannot be told apart ...`: otherwise.

The choice needs validation only. The sentence is made from results.json alone; what the test pictures say may weaken it
(form 1 becomes form 2, a warning is added) but never changes X.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """A recipe as the rule sees it: its validation mean, its training seconds (median of its trials).

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
    """

    form: int
    advised: str | None
    leader: str
    rival: str | None
    candidates: tuple[str, ...]
    better: dict[str, float]


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
) -> Choice:
    """Apply the rule.

    Args:
        entries: the recipes with a finished trial.
        difference: paired validation difference, first minus second.
        reference: name of the reference.
        margin: share, 0.01 is one point.
        prior: `statistics.guess(1, ...)`, used where a difference rests on one repeat.
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
    advised = chosen.recipe.name
    better: dict[str, float] = {}
    for entry in entries:
        name = entry.recipe.name
        if name != advised:
            better[name] = _better(against(name, advised), margin)
    if advised == reference and any(e.recipe.special for e in entries):
        return Choice(3, advised, top, None, names, better)
    if advised == top:
        rival = max(better, key=lambda name: better[name], default=None)
        sure = rival is None or better[rival] <= RIVAL
    else:
        rival = top
        sure = 1 - better[top] >= SURE
    return Choice(1 if sure else 2, advised, top, None if sure else rival, names, better)


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


def _points(share: float) -> str:
    return f"{100 * share:.2g}"


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
    mine, theirs = (results["recipes"][n]["cost"]["seconds"] for n in (name, other))
    return None if not mine or not theirs else float(mine / theirs)


def _form1(results: dict[str, Any], advised: str) -> str:
    recipe, reference = results["recipes"][advised], results["reference"]
    each = " of each class" if results["metric"] == "balanced_accuracy" else ""
    text = f"Use {_quoted(results, advised)}. On pictures it has not seen it is right {_hundred(recipe['test'])}{each}"
    most = _at_most(results, advised)
    margin = results["margin"]
    if most is not None:
        unit = "point" if math.isclose(margin, 0.01) else "points"
        text += f"; no other recipe is likely to be more than {_points(margin)} {unit} better"
        if results["repeats_finished"] > 1:
            text += f" (at most {max(1, math.ceil(100 * most - _EXACT))} %)"
    ratio = _cost(results, advised, reference) if reference in results["recipes"] else None
    if ratio is not None and advised != reference:
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


def _form2(results: dict[str, Any], advised: str, rival: str) -> str:
    found = results["recipes"][rival]["versus_advised"]
    count = _plural(results["repeats_finished"], "repeat")
    kind = "validation" if found["separated"] else "test"
    text = f"{_quoted(results, advised)} and {_quoted(results, rival)} cannot be told apart with "
    text += f"{results['sizes']['valid' if kind == 'validation' else 'test']} {kind} pictures and {count}; "
    ratio = _cost(results, advised, rival)
    mine, theirs = (results["recipes"][n] for n in (advised, rival))
    if ratio is not None and ratio < 1 / SAME_COST:
        why = f"is cheaper (x{times(ratio)})"
    elif mine["phases"] < theirs["phases"]:
        why = "is simpler"
    else:
        why = "did better on the validation pictures"
    text += f'"{advised}" {why}, so start with "{advised}".'
    if found["separated"] < 0:
        low, high = (f"{-100 * found[end]:.1f}" for end in ("high", "low"))
        return f"{text} On the test pictures it was {-100 * found['mean']:.1f} points better ({low} to {high})."
    return text if found["separated"] else f"{text} {_remedy(results, found)}"


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
        return 4, f"{text} Check the labels: augend data check {data}."
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
    for name, against in ahead.items():
        if against["separated"] > 0 and against["mean"] > results["margin"]:
            text += (
                f' But on the test pictures "{name}" was {100 * against["mean"]:.1f} points better than "{advised}" '
                f"({100 * against['low']:.1f} to {100 * against['high']:.1f}); the choice was made without them."
            )
    if results["repeats_finished"] < REPEATS_EVIDENCE:
        text += f" With {_plural(results['repeats_finished'], 'repeat')} this is screening, not evidence."
    return form, text
