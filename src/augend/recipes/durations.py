"""Durations become whole numbers of steps: shares, percents and epochs of a budget, and what a plateau leaves over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction

from augend.contract import AugendError
from augend.recipes.components import copies
from augend.recipes.plan import Duration, PhasePlan, Plan

__all__ = ["epoch_steps", "fixed_steps", "look_steps", "pictures_seen", "resolve_steps", "sources_of"]


def epoch_steps(epochs: float, pictures: int, per_step: Fraction | int) -> int:
    """Steps in which at least `epochs` times `pictures` are seen, `per_step` of them a step.

    >>> epoch_steps(3, 100, 64), epoch_steps(0.5, 100, 50)
    (5, 1)
    """
    return max(1, math.ceil(_exact(epochs) * pictures / per_step))


def _exact(amount: float) -> Fraction:
    return Fraction(str(amount))


def pictures_seen(phase: PhasePlan, steps: int) -> int:
    """Pictures that are fetched in `steps` steps of a phase, all of them: rows times the pictures a row, which may become
    fewer (or more) as the phase goes on.
    """
    return phase.rows * _summed(sources_of(phase), steps)


def look_steps(phase: PhasePlan, size: int) -> int:
    """Steps from one look at a watched phase of `size` pictures to the next: an epoch.

    Where nothing waits for a plateau and only the best weights are kept, as many rows as pictures count as one: an epoch of
    eight pictures a row is an eighth of that, and sums would be looked at, and chosen from, more often than what they are
    compared with.
    """
    if phase.duration.plateau is None and phase.schedule.word != "on-plateau":
        return math.ceil(size / phase.rows)
    steps = phase.steps or 1
    return math.ceil(size * steps / pictures_seen(phase, steps))


def sources_of(phase: PhasePlan) -> Callable[[float], int]:
    """Progress -> pictures a row."""
    from augend.augment import build  # loads torch, which listing recipes does without

    made = [build(op.component) for ops in phase.views.values() for op in ops]
    return lambda progress: max((one.sources(progress) for one in made), default=1)


def _summed(sources: Callable[[float], int], steps: int) -> int:
    """The sum of ``sources(step / steps)`` over steps. They only fall or only rise, so where both ends of a stretch are equal
    all of it is."""

    def between(first: int, last: int) -> int:
        ends = sources(first / steps), sources(last / steps)
        if ends[0] == ends[1]:
            return ends[0] * (last - first + 1)
        middle = (first + last) // 2
        return between(first, middle) + between(middle + 1, last)

    return between(0, steps - 1)


def fixed_steps(phase: PhasePlan, sizes: Mapping[str, int]) -> int | None:
    """Steps of a duration in steps or epochs, of a plateau's `at most` too; None for shares and percents."""
    if phase.fit is not None:
        return 0
    if phase.duration.unit == "step":
        return int(phase.duration.amount)
    if phase.duration.unit == "epoch":
        # Groups show a picture several times a step, sums several pictures a row, and an epoch counts pictures.
        sources, rows = sources_of(phase), Fraction(phase.rows, copies(phase.order))
        epochs, size = phase.duration.amount, sizes[phase.data]
        fewest, most = sorted(epoch_steps(epochs, size, rows * sources(end)) for end in (0.0, 1.0))
        while fewest < most:  # the first number of steps that is enough
            middle = (fewest + most) // 2
            enough = rows * _summed(sources, middle) >= _exact(epochs) * size
            fewest, most = (fewest, middle) if enough else (middle + 1, most)
        return most
    return None


def written(duration: Duration) -> str:
    """A duration as a recipe writes it.

    >>> written(Duration("percent", 50))
    '50%'
    """
    text = f"{duration.amount:g}{'%' if duration.unit == 'percent' else duration.unit}"
    return f"at most {text}" if duration.plateau else text


def resolve_steps(plan: Plan, sizes: Mapping[str, int], done: Mapping[int, int] | None = None) -> Plan:
    """The plan with the steps of every phase, as far as they can be known.

    ``Nshare`` is N / (shares of this and later phases) of the budget neither spent nor promised to a phase of fixed
    duration; a plateau is promised its `at most`. A phase whose share depends on how an earlier plateau ends has
    `steps` None until that is in `done`; so what a plateau leaves over goes to the later phases. The `steps` of a
    plateau phase are its cap. Percents are rounded cumulatively, so that ``50%`` twice is the whole budget.

    Args:
        plan: its `budget` is in steps, or None.
        sizes: training pictures of each role.
        done: number of a finished phase -> steps that it took.

    Raises:
        AugendError: shares or percents without a budget, durations over the budget, a phase left without a step.
    """
    done = done or {}
    promised = [_promise(plan, number, sizes) for number in range(len(plan.phases))]
    worst = _shared(plan, promised, done)
    _check_budget(plan, worst)
    open_plateau = False
    phases = []
    for number, (phase, steps) in enumerate(zip(plan.phases, worst, strict=True)):
        depends = open_plateau and phase.duration.unit == "share" and phase.fit is None and number not in done
        phases.append(replace(phase, steps=None if depends else steps))
        open_plateau |= phase.duration.plateau is not None and number not in done
    return replace(plan, phases=tuple(phases))


def _promise(plan: Plan, number: int, sizes: Mapping[str, int]) -> int | None:
    """Steps that a phase is sure to get, None for a share."""
    phase = plan.phases[number]
    fixed = fixed_steps(phase, sizes)
    if fixed is not None or phase.duration.unit == "share":
        return fixed
    budget = _budget(plan, phase)
    earlier = [one for one in plan.phases[:number] if one.duration.unit == "percent" and one.fit is None]
    before = sum((_exact(one.duration.amount) for one in earlier), Fraction(0))
    return math.floor((before + _exact(phase.duration.amount)) * budget / 100) - math.floor(before * budget / 100)


def _budget(plan: Plan, phase: PhasePlan) -> int:
    if plan.budget is None:
        raise AugendError(
            f"{plan.recipe}: phase {phase.name}, until: {written(phase.duration)} needs a budget; "
            "give one (--budget 2000step) or a duration in steps or epochs"
        )
    return plan.budget


def _shared(plan: Plan, promised: list[int | None], done: Mapping[int, int]) -> list[int]:
    steps: list[int] = []
    for number, (phase, sure) in enumerate(zip(plan.phases, promised, strict=True)):
        if number in done:
            steps.append(done[number])
        elif sure is not None:
            steps.append(sure)
        else:
            rest = _budget(plan, phase) - sum(steps) - sum(later or 0 for later in promised[number + 1 :])
            shares = sum(
                _exact(one.duration.amount)
                for one, other in zip(plan.phases[number:], promised[number:], strict=True)
                if other is None
            )
            steps.append(max(0, round(rest * _exact(phase.duration.amount) / shares)))
    return steps


def _check_budget(plan: Plan, steps: list[int]) -> None:
    parts = " + ".join(f"{phase.name} {n}" for phase, n in zip(plan.phases, steps, strict=True))
    if plan.budget is not None and sum(steps) > plan.budget:
        raise AugendError(
            f"{plan.recipe}: the phases together ask for {sum(steps)} steps ({parts}), over the budget of "
            f"{plan.budget}; shorten an `until` or raise the budget"
        )
    for phase, n in zip(plan.phases, steps, strict=True):
        if n < 1 and phase.fit is None:
            raise AugendError(
                f"{plan.recipe}: phase {phase.name}, until: {written(phase.duration)} leaves no step ({parts}, "
                f"budget {plan.budget}); raise the budget or shorten another phase"
            )
