"""What a study says before it trains: its data, its plan, how long it takes, what it can tell apart."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["announce", "show_plan"]

FEW_STEPS, FEW_EPOCHS = 300, 10  # below one of them a trial has hardly learned
DEAR = 1.1  # times what a recipe should cost


def _lines(study: Any) -> list[str]:
    record = study.record
    about = record["data"]
    found = [
        f"{about['name']}: {record['n_train']} pictures to train, {record['n_valid']} to validate, "
        f"{record['n_test']} to test, {len(record['classes'])} classes"
    ]
    return [*found, *(f"note: {note}" for note in record["notes"])]


def _power(study: Any) -> list[str]:
    from augend.study.compare import resolvable

    found = []
    difference = resolvable(study)
    if difference is not None:
        found.append(f"differences from about {100 * difference:.1f} points on can be separated")
    if study.request.repeats < 3:
        found.append("fewer than 3 repeats: screening, not evidence")
    return found


def _machine(record: dict[str, Any]) -> str:
    return f"{record['hardware']['precision']}{', channels-last' if record['hardware']['channels_last'] else ''}"


def _lengths(study: Any) -> str:
    """How many steps the recipes take: one number where they are alike."""
    plan = study.record["plan"].values()
    steps = sorted({one["steps"] for one in plan})
    if len(steps) == 1:
        return f"{steps[0]} steps each ({next(iter(plan))['epochs']:g} epochs)"
    return f"{steps[0]} to {steps[-1]} steps"


def announce(study: Any) -> None:
    """Say what a study will do before it does it, on stderr."""
    record = study.record
    lines = _lines(study)
    lines.append(
        f"{len(record['plan'])} recipes x {study.request.repeats} repeats, {_lengths(study)}; {_machine(record)}; "
        f"everything goes to {study.path}"
    )
    lines += [*_duration(study), *_short(study), *_dear(study), *_power(study)]
    print("\n".join(lines), file=sys.stderr)


def _duration(study: Any) -> list[str]:
    from augend.study.running import workers_for
    from augend.study.sizing import clock_text, makespan

    predicted = study.record.get("predicted")
    if predicted is None:
        return []
    trials = [predicted[name.rpartition("-r")[0]]["total"] for name in study.pending]
    return [f"about {clock_text(makespan(trials, workers_for(study)))} of training from here on"] if trials else []


def _short(study: Any) -> list[str]:
    """Recipes that learn too little in what they are given, and what could be left out."""
    record = study.record
    few = [
        n for n, p in record["plan"].items() if p["steps"] > 0 and (p["steps"] < FEW_STEPS or p["epochs"] < FEW_EPOCHS)
    ]
    if not few:
        return []
    remedy = "give more --time or a larger --budget, or fewer --repeats"
    if len(record["plan"]) > 2:
        predicted = record.get("predicted") or {}
        dearest = max(
            record["plan"], key=lambda name: predicted.get(name, {}).get("total", record["plan"][name]["steps"])
        )
        keep = [name for name in record["plan"] if name != dearest or name == record["reference"]]
        remedy += f", or fewer recipes, such as --recipes {','.join(keep)}" if len(keep) < len(record["plan"]) else ""
    return [f"warning: under {FEW_STEPS} steps or {FEW_EPOCHS} epochs a trial ({', '.join(few)}); {remedy}"]


def _dear(study: Any) -> list[str]:
    """Recipes that cannot cost as little as the others, since the lengths of their phases are fixed."""
    shares = {name: one.get("share", 1.0) for name, one in (study.record.get("predicted") or {}).items()}
    dear = [f"{name} {share:.1f} times" for name, share in shares.items() if share > DEAR]
    if not dear:
        return []
    return [
        f"warning: not equal in {study.request.alike}: {', '.join(dear)} what the others cost, since a phase of a fixed "
        "length takes it; give a larger --budget or more --time, or a shorter phase"
    ]


def show_plan(study: Any) -> None:
    """Print the plan of a study: a line a recipe, minutes, memory and disk, what it can tell apart."""
    from rich.console import Console
    from rich.table import Table

    from augend.study.running import footprint, workers_for
    from augend.study.sizing import clock_text, makespan

    record = study.record
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    for line in _lines(study):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "repeats", "steps", "epochs", "a trial"):
        table.add_column(heading, justify="left" if heading == "recipe" else "right")
    for recipe in record["recipes"]:
        name = recipe["name"]
        plan = record["plan"][name]
        repeats = min(recipe["repeats"] or study.request.repeats, study.request.repeats)
        title = f"{recipe['title']} ({name})" if recipe["title"] not in ("", name) else name
        table.add_row(
            title,
            str(repeats),
            str(plan["steps"]),
            f"{plan['epochs']:g}",
            clock_text(record["predicted"][name]["total"]),
        )
    console.print(table, markup=False, highlight=False)
    workers = workers_for(study)
    whole = makespan([record["predicted"][name.rpartition("-r")[0]]["total"] for name in study.names], workers)
    memory, disk = footprint(study)
    about = [
        f"about {clock_text(whole)} in all, {workers} trials side by side; {_machine(record)}",
        f"about {memory / 2**30:.1f} GiB of memory, {disk / 2**20:.0f} MiB of disk in {study.path}",
    ]
    for line in (*about, *_short(study), *_dear(study), *_power(study)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
