"""What `augend evaluate --attack` and `--sums` print."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from augend.cli.options import printable
from augend.cli.shifts import best_effort

if TYPE_CHECKING:
    from collections.abc import Sequence

    from augend.evaluate.threats import Asked, Sums

__all__ = ["show_attacks"]


PICTURES = 1000
BUDGETS = ", L-infinity budgets in shares of the pixels' range"


def show_attacks(
    run: Path,
    words: tuple[str | None, str | None, str | None],
    numbers: dict[str, Any],
    data: str | None,
    root: str | None,
    as_json: bool,
) -> None:
    """Attack a model, or all models of a study, and print how accurate they stay.

    `words` are those of ``--attack``, ``--eps`` and ``--sums``; `numbers` those of `augend.evaluate.threats.asked`, by name.
    """
    from augend.cli.display import Looking
    from augend.evaluate.grid import SEVERAL, grid_of
    from augend.evaluate.threats import PIECES, asked
    from augend.report.attacked_page import write
    from augend.study.attacked import attacked

    attack, eps, sums = words
    several = None if sums is None or SEVERAL not in sums else grid_of(sums)
    if sums is not None and several is not None:
        sums = ",".join(part.partition(SEVERAL)[0] for part in sums.split(","))
    wanted = asked(attack, eps, sums, **numbers)
    wanted = wanted if wanted.pictures else replace(wanted, pictures=PICTURES)
    if several is not None:
        _grid(run, wanted, several, data, root, as_json)
        return
    found = attacked(run, wanted, data=data, root=root, after=Looking())
    if as_json:
        print(json.dumps(found))
    else:
        typer.echo(f"{found['pictures']} {PIECES[wanted.on]} pictures{BUDGETS}")
        for name, model in found["models"].items():
            _model(name, model, found)
    page = best_effort(lambda: write(run, found)) if run.is_dir() else None
    if page is not None and not as_json:
        typer.echo(f"As a page: {printable(str(page))}")


def _grid(run: Path, wanted: Asked, several: Sequence[Sums], data: str | None, root: str | None, as_json: bool) -> None:
    from augend.cli.display import Looking
    from augend.evaluate.threats import PIECES
    from augend.report.grid_page import write
    from augend.study.grid import grid

    found = grid(run, wanted, several, data=data, root=root, after=Looking())
    if as_json:
        print(json.dumps(found))
    else:
        how = ", the attacks' gradients in bfloat16" if wanted.fast else ""
        typer.echo(f"{found['pictures']} {PIECES[wanted.on]} pictures{BUDGETS}{how}")
        for name, model in found["models"].items():
            typer.echo(f"{printable(name)}: bare model, {_conditions(model['bare'])}")
            for one in model["points"]:
                how = f"k = {one['k']}, weight {one['weight']:g}, {one['draws']} draws"
                typer.echo(f"  {how:<28} {_conditions(one['conditions'])}")
            _blind(model)
    page = best_effort(lambda: write(run, found)) if run.is_dir() else None
    if page is not None and not as_json:
        typer.echo(f"As a page: {printable(str(page))}")


def _blind(model: dict[str, Any]) -> None:
    """What makes an attack say less than it seems to."""
    if model["blind"]:
        share = f"{100 * model['blind']:.1f} %"
        typer.echo(f"  {share} of what is right when clean has no gradient: attacks by gradients see nothing there")
    for note in model["notes"]:
        typer.echo(f"  {note}")


def _conditions(some: list[dict[str, Any]]) -> str:
    called = [
        "clean" if one["attack"] == "clean" else " ".join((one["attack"], one["said"], one["threat"])) for one in some
    ]
    return "; ".join(f"{name} {_level(one['accuracy'])}" for name, one in zip(called, some, strict=True))


def _model(name: str, model: dict[str, Any], found: dict[str, Any]) -> None:
    reference = found["reference"]
    if "study" in found:
        typer.echo(f"{printable(name)} ({model['repeats']} repeats{', reference' if name == reference else ''})")
    else:
        typer.echo(printable(name))
    for (attack, threat), group in itertools.groupby(model["conditions"], lambda one: (one["attack"], one["threat"])):
        rows = list(group)
        how = f" ({rows[0]['procedure']})" if rows[0]["procedure"] else ""
        typer.echo(f"  {attack}, {threat}{how}")
        for one in rows:
            success = f", succeeds on {_level(one['success'])} of what is right when clean" if one["success"] else ""
            typer.echo(
                f"    eps {one['said']:<8} {_level(one['accuracy'])} right{success}"
                f"{_against(one['versus_reference'], reference)}"
            )
    _blind(model)
    if model["share_of_draws"] is not None:
        typer.echo(f"  test-time sums used {100 * model['share_of_draws']:.1f} % of their draws on clean pictures")


def _level(one: dict[str, Any]) -> str:
    interval = "" if one["low"] is None else f" ({100 * one['low']:.1f} to {100 * one['high']:.1f})"
    return f"{100 * one['mean']:.1f} %{interval}"


def _against(one: dict[str, Any] | None, reference: str | None) -> str:
    if one is None:
        return ""
    interval = "" if one["low"] is None else f" ({100 * one['low']:+.1f} to {100 * one['high']:+.1f})"
    return f", {100 * one['mean']:+.1f} points against {reference}{interval}"
