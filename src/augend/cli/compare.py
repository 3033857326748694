"""`augend compare`, `augend trial`, `augend report`: which procedure is worth its cost on these pictures."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from augend.cli.options import Augmentations, Budget, Json, Model, Plugins, Root, Size, data_word, plugin_paths

__all__ = ["add_to"]


def command_line() -> str:
    """The command as it was typed."""
    return " ".join(map(shlex.quote, ["augend", *sys.argv[1:]]))


def compare(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A folder of class folders, or digits, mnist, cifar10, cifar100 (default: tilted digits).",
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
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; an existing one is continued.", show_default=False)
    ] = None,
    settings: Annotated[
        str | None, typer.Option(help="What recipes share: good-practice, quick or a file.", show_default=False)
    ] = None,
    model: Model = None,
    seed: Annotated[int | None, typer.Option(help="The base seed (default 0).", show_default=False)] = None,
    margin: Annotated[
        float | None, typer.Option(help="Points of accuracy that matter (default 1).", show_default=False)
    ] = None,
    data_root: Root = None,
    size: Size = None,
    precision: Annotated[
        str | None, typer.Option(help="auto (timed), 32-true or bf16-mixed.", show_default=False)
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="An override for all recipes, as optimizer.lr=3e-4.", show_default=False),
    ] = None,
    augment: Augmentations = None,
    plugin: Plugins = None,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Write the trials; run them with `augend trial`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare training procedures on pictures, and say which one to use."""
    from augend.study.compare import DIGITS, next_folder, open_study

    given: dict[str, Any] = {
        "data": None if data is None else data_word(data),
        "recipes": None if recipes is None else tuple(part.strip() for part in recipes.split(",") if part.strip()),
        "reference": reference,
        "repeats": repeats,
        "budget": budget,
        "settings": settings,
        "model": model,
        "seed": seed,
        "margin": None if margin is None else margin / 100,
        "root": data_root,
        "size": size,
        "precision": precision,
        "overrides": (*(set_ or ()), *([f"pixels={augment}"] if augment else ())) or None,
        "plugins": plugin_paths(plugin) or None,
    }
    folder = out or next_folder("compare", data or DIGITS)
    study = open_study(folder, given, command_line())
    announce(study)
    if prepare_only:
        typer.echo(
            f"{len(study.pending)} trials written; run one with: augend trial {folder} N   then: augend report {folder}"
        )
        return
    show_results(study.path, run_shown(study), as_json)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def announce(study: Any) -> None:
    """Say what a study will do before it does it."""
    from augend.study.compare import resolvable

    record = study.record
    steps = record["plan"]
    _say(
        f"{record['data']['name']}: {record['n_train']} pictures to train, {record['n_valid']} to validate, "
        f"{record['n_test']} to test, {len(record['classes'])} classes"
    )
    for note in record["notes"]:
        _say(f"note: {note}")
    first = next(iter(steps.values()))
    _say(
        f"{len(steps)} recipes x {study.request.repeats} repeats, {first['steps']} steps each "
        f"({first['epochs']:g} epochs); {record['hardware']['precision']}"
        f"{', channels-last' if record['hardware']['channels_last'] else ''}; everything goes to {study.path}"
    )
    difference = resolvable(study)
    if difference is not None:
        _say(f"differences from about {100 * difference:.1f} points on can be separated")
    if study.request.repeats < 3:
        _say("fewer than 3 repeats: screening, not evidence")


def run_shown(study: Any) -> dict[str, Any]:
    """Run a study under the live table; its results."""
    from augend.cli.display import StudyDisplay
    from augend.study.compare import run_study

    titles = {recipe["name"]: recipe["title"] for recipe in study.record["recipes"]}
    steps = {name: study.record["plan"][name]["steps"] for name in titles}
    with StudyDisplay(titles, steps, study.names, set(study.names) - set(study.pending)) as display:
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
        if (path / "model.safetensors").is_file():
            advised = results["choice"]["advised"]
            line = f'The model ("{advised}", repeat 0), for augend predict and augend.load: {path}'
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if results["trials"]["failed"] or not results["complete"]:
        raise typer.Exit(3)


def trial(
    study: Annotated[Path, typer.Argument(help="A study's folder.")],
    number: Annotated[str, typer.Argument(help="A number from 0, or the trial's name.")],
) -> None:
    """Run one trial of a prepared study (a Slurm array needs no more)."""
    from augend.cli.display import TrainDisplay
    from augend.contract import AugendError
    from augend.study.compare import open_study
    from augend.study.evidence import read_json
    from augend.study.trials import run_trial

    read_json(study / "study.json")
    names = open_study(study, {}, command_line()).names
    name = names[int(number)] if number.isdigit() and int(number) < len(names) else number
    if name not in names:
        raise AugendError(
            f"{study}: there is no trial {number!r}; they are 0 to {len(names) - 1}, or {', '.join(names[:4])}, …"
        )
    folder = study / "trials" / name
    with TrainDisplay() as display:
        assert isinstance(display, TrainDisplay)
        state = run_trial(folder, display)
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
    from augend.study.compare import leave_model

    found = results.write(study)
    leave_model(study, found)
    writer.write(study, found)
    show_results(study, found, as_json)


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compare)
    app.command()(trial)
    app.command()(report)
