"""What is to be said about a study before it trains: who looks better than it is, what was set for some recipes alone."""

from __future__ import annotations

from collections.abc import Mapping

from augend.data.pictures import Split
from augend.names import lookup
from augend.recipes.library import load
from augend.recipes.plan import Plan
from augend.study.request import Request

__all__ = ["keeps_best", "notes_of"]


def notes_of(
    request: Request,
    plans: Mapping[str, Plan],
    splits: Mapping[str, Mapping[str, Split]],
    reference: str,
    main: Split,
) -> list[str]:
    """The notes of a study, one line each.

    Args:
        plans, splits: by how a command names the recipe.
        reference: its name.
        main: the pictures that there are; recipes may have less.
    """
    return [
        *_reach(request, plans),
        *_flattered(plans, reference),
        *_fitted(plans),
        *main.notes,
        *_poorer(request, splits),
    ]


def keeps_best(plan: Plan) -> bool:
    """Whether validation pictures pick this recipe's weights."""
    return any(phase.keep != "last" for phase in plan.phases)


def _flattered(plans: Mapping[str, Plan], reference: str) -> list[str]:
    """Who looks better on validation pictures than others do, and what `augend.study.results.decide` makes of it."""
    names = [plan.recipe for plan in plans.values() if keeps_best(plan)]
    if not names or len(names) == len(plans):
        return []
    so = f"{', '.join(names)}: the best weights are picked on validation pictures, which flatters these there; "
    if reference in names:
        return [so + "the reference is one of them, so the advice favours them (--set PHASE.keep=last keeps the last)"]
    return [so + f"{'they are' if len(names) > 1 else 'it is'} not advised beside recipes that keep their last"]


def _fitted(plans: Mapping[str, Plan]) -> list[str]:
    """Whose penalty validation pictures choose; it is one number of a few, so these are advised all the same."""
    names = [plan.recipe for plan in plans.values() if _validates(plan)]
    if not names or len(names) == len(plans):
        return []
    return [
        f"{', '.join(names)}: the penalty of the closed form is chosen on validation pictures, which flatters these there a "
        "little, and the advice is by validation: where they lead by little, see the test pictures too"
    ]


def _validates(plan: Plan) -> bool:
    methods = [lookup("fit", phase.fit.word)(**phase.fit.options) for phase in plan.phases if phase.fit is not None]
    return any(getattr(method, "validates", False) for method in methods)


def _reach(request: Request, plans: Mapping[str, Plan]) -> list[str]:
    """What was set for some recipes alone: the others have no such phase or parameter."""
    overrides = {plan.recipe: request.job(recipe, 0).overrides for recipe, plan in plans.items()}
    notes = []
    for text in request.overrides:
        without = [name for name, own in overrides.items() if text not in own]
        if without:
            notes.append(f"--set {text} says nothing to {', '.join(without)}")
    return notes


def _poorer(request: Request, splits: Mapping[str, Mapping[str, Split]]) -> list[str]:
    """What recipes with poorer data of their own have, a line each."""
    names = {recipe: load(recipe).name for recipe in splits} if request.poorer else {}
    return [
        f"{name}: {note}" for r, name in names.items() if name in request.poorer for note in splits[r]["main"].notes
    ]
