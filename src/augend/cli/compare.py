"""`augend compare`, `augend trial`, `augend report`: which procedure is worth its cost on these pictures."""

from __future__ import annotations

import functools
import json
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from augend.cli.announce import announce, show_plan
from augend.cli.options import (
    DATA,
    SETTINGS,
    Augmentations,
    Budget,
    FalseLabels,
    Fit,
    Fraction,
    Group,
    Json,
    Model,
    Overrides,
    Plugins,
    Root,
    Size,
    TakeFrom,
    Weights,
    data_word,
    pixels_override,
    plugin_paths,
    printable,
)
from augend.contract import AugendError

__all__ = ["add_to", "command_line", "run_shown", "take"]


def command_line() -> str:
    """The command as it was typed, but for what only says who runs the trials."""
    return " ".join(map(shlex.quote, ["augend", *(word for word in sys.argv[1:] if word != "--prepare-only")]))


def compare(
    data: Annotated[
        str | None,
        typer.Argument(
            help=f"{DATA} Default: tilted digits.",
            show_default=False,
        ),
    ] = None,
    recipes: Annotated[
        str | None, typer.Option(help="Names or files, separated by commas.", show_default=False)
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The recipe that the others are measured against.", show_default=False)
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Paired repeats (default 5).", show_default=False)] = None,
    budget: Budget = None,
    time_: Annotated[
        str | None,
        typer.Option("--time", help="Of the whole command: 30min, 2h; steps follow from it.", show_default=False),
    ] = None,
    equal: Annotated[
        str | None,
        typer.Option(help="What all recipes cost alike: steps, seconds or flops (default: by --time or --budget)."),
    ] = None,
    tune: Annotated[
        int | None, typer.Option(help="Learning rates tried a recipe, at a quarter of its budget.", show_default=False)
    ] = None,
    refit: Annotated[
        str | None,
        typer.Option(
            help="What the study's model is trained on: train, trainval or all (default trainval).", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; an existing one is continued.", show_default=False)
    ] = None,
    settings: Annotated[str | None, typer.Option(help=SETTINGS, show_default=False)] = None,
    model: Model = None,
    weights: Weights = None,
    regime: Annotated[
        str | None,
        typer.Option(help="pretrained or scratch (default: by the data and the weights at hand).", show_default=False),
    ] = None,
    group: Group = None,
    fit: Fit = None,
    fraction: Fraction = None,
    false_labels: FalseLabels = None,
    seed: Annotated[int | None, typer.Option(help="The base seed (default 0).", show_default=False)] = None,
    margin: Annotated[
        float | None, typer.Option(help="Points of accuracy that matter (default 1).", show_default=False)
    ] = None,
    data_root: Root = None,
    size: Size = None,
    precision: Annotated[
        str | None, typer.Option(help="auto (timed), 32-true or bf16-mixed.", show_default=False)
    ] = None,
    set_: Overrides = None,
    augment: Augmentations = None,
    plugin: Plugins = None,
    take_from: TakeFrom = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be done and how long it takes; train nothing.")
    ] = False,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Write the trials; run them with `augend trial`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare training procedures on pictures, and say which one to use."""
    from augend.cli.display import Decoding, Timing
    from augend.study.compare import next_folder, open_study, plan_only
    from augend.study.request import DIGITS
    from augend.study.taken import check_other

    begun, decoding = time.monotonic(), Decoding()
    given: dict[str, Any] = {
        "data": None if data is None else data_word(data),
        "recipes": None if recipes is None else tuple(part.strip() for part in recipes.split(",") if part.strip()),
        "reference": reference,
        "repeats": repeats,
        "budget": budget,
        "time": time_,
        "equal": equal,
        "tune": tune,
        "refit": refit,
        "weights": None if weights is None else str(weights.resolve()),
        "regime": regime,
        "group": group,
        "fit": fit,
        "fraction": fraction,
        "false_labels": false_labels,
        "settings": settings,
        "model": model,
        "seed": seed,
        "margin": None if margin is None else margin / 100,
        "root": data_root,
        "size": size,
        "precision": precision,
        "overrides": (*(set_ or ()), *pixels_override(augment)) or None,
        "plugins": plugin_paths(plugin) or None,
    }
    folder = out or functools.partial(next_folder, "compare", data or DIGITS)
    if plan:
        where = folder if isinstance(folder, Path) else folder()
        study = plan_only(where, given, command_line(), begun=begun, progress=decoding, timing=Timing())
        if as_json:
            print(json.dumps(study.record))
        else:
            show_plan(study)
        return
    if prepare_only and tune:
        raise AugendError("--prepare-only writes trials whose learning rates are known; leave --tune out")
    if take_from is not None:
        check_other(take_from)
    study = open_study(folder, given, command_line(), begun=begun, progress=decoding, timing=Timing())
    take(study, take_from)
    announce(study)
    if prepare_only:
        place = shlex.quote(str(study.path))
        typer.echo(
            f"{len(study.pending)} trials written; run one with: augend trial {place} N   then: augend report {place}"
        )
        return
    show_results(study.path, run_shown(study), as_json)


def take(study: Any, other: Path | None) -> None:
    """Copy what another study has already trained, and say how much that was."""
    from augend.study.taken import take_from

    if other is None:
        return
    taken, reasons = take_from(study, other)
    others = "; ".join(f"{count} not: {reason}" for reason, count in reasons.items())
    typer.echo(f"Taken from {printable(str(other))}: {taken} trials{f' ({others})' if others else ''}", err=True)


def run_shown(study: Any, work: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Run a study under the live table, which says how long it takes from the `work` of its recipes' trials; its results."""
    from augend.cli.display import StudyDisplay
    from augend.study.running import run_study

    with StudyDisplay(study, work) as display:
        assert isinstance(display, StudyDisplay)
        return run_study(study, display)


def show_results(path: Path, results: dict[str, Any], as_json: bool) -> None:
    """The answer, the table, where the report is; exit code 3 when some trials failed."""
    from rich.console import Console
    from rich.table import Table

    from augend.study.results import table_rows

    if as_json:
        print(json.dumps(results))
    else:
        console = Console()
        if not console.is_terminal:
            console = Console(width=160)
        header, *rows = table_rows(results)
        table = Table(box=None, pad_edge=False)
        for place, heading in enumerate(header):
            table.add_column(heading, justify="left" if place == 0 else "right")
        for row in rows:
            table.add_row(*row)
        console.print(results["advice"]["text"], markup=False, highlight=False)
        console.print()
        console.print(table, markup=False, highlight=False)
        console.print()
        console.print(f"The whole report: {path / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
        for line in (*(f"note: {one}" for one in results["missed"]), *_model(path, results)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if results["trials"]["failed"] or not results["complete"]:
        raise typer.Exit(3)


def _model(path: Path, results: dict[str, Any]) -> list[str]:
    about = results.get("model")
    if about is None:
        return []
    trained = {
        "train": "repeat 0's training pictures",
        "trainval": "all but repeat 0's test pictures",
        "all": "all pictures",
    }[about["trained_on"]]
    return [f'The model ("{about["recipe"]}", trained on {trained}), for augend predict and augend.load: {path}']


def trial(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    number: Annotated[str, typer.Argument(help="A number from 0, or the trial's name.")],
) -> None:
    """Run one trial of a prepared study (a Slurm array needs no more)."""
    from augend.cli.display import TrainDisplay
    from augend.contract import AugendError
    from augend.study.compare import as_it_is
    from augend.study.evidence import read_json
    from augend.study.running import prepare
    from augend.study.trials import run_trial

    about = as_it_is(study)
    names = about.names
    name = names[int(number)] if number.isdigit() and int(number) < len(names) else number
    if name not in names:
        raise AugendError(
            f"{study}: there is no trial {number!r}; they are 0 to {len(names) - 1}, or {', '.join(names[:4])}, …"
        )
    prepare(about, command_line(), only=name)
    folder = study / "trials" / name
    with TrainDisplay() as display:
        assert isinstance(display, TrainDisplay)
        state = run_trial(folder, display)
    if state == "busy":
        raise AugendError(f"trial {name}: another process is working on it; wait for it or stop it")
    if state == "failed":
        raise AugendError(f"trial {name} failed: {read_json(folder / 'state.json')['reason']}")
    typer.echo(f"trial {name}: {state}")


def report(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    as_json: Json = False,
) -> None:
    """Gather the finished trials of a study: choose, read the test sets, write table and page."""
    from augend import report as writer
    from augend.study import results
    from augend.study.evidence import read_record
    from augend.study.running import leave_model

    if "sensitivity" in read_record(study).raw:
        raise AugendError(
            f"{study}: compares no recipes; gather it with: augend sensitivity --out {shlex.quote(str(study))}"
        )
    found = results.write(study)
    leave_model(study, found)
    writer.write(study, found)
    show_results(study, found, as_json)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compare)
    app.command()(trial)
    app.command()(report)
