"""`augend sensitivity`: which augmentations the labels of these pictures survive."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from augend.cli.compare import command_line
from augend.cli.options import (
    DATA,
    Budget,
    Fit,
    Group,
    Json,
    Model,
    Plugins,
    Root,
    Size,
    Weights,
    data_word,
    plugin_paths,
)
from augend.cli.shifts import best_effort

__all__ = ["add_to"]


def sensitivity(
    data: Annotated[
        str | None, typer.Argument(help=f"{DATA} Default: that of --run, or digits.", show_default=False)
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="A run, whose model is shown the same pictures.", show_default=False)
    ] = None,
    kinds: Annotated[
        str | None,
        typer.Option(help="Augmentations to look at, as hflip,rotate (default: all).", show_default=False),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Points of accuracy that matter (default 5).", show_default=False)
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Networks (default 5); data are split anew for each.", show_default=False)
    ] = None,
    budget: Budget = None,
    time_: Annotated[
        str | None,
        typer.Option(
            "--time", help="Of the training: 30min, 2h; showing the pictures comes on top.", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; an existing one is continued.", show_default=False)
    ] = None,
    model: Model = None,
    weights: Weights = None,
    group: Group = None,
    fit: Fit = None,
    seed: Annotated[int | None, typer.Option(help="The base seed (default 0).", show_default=False)] = None,
    data_root: Root = None,
    size: Size = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Say which augmentations leave the labels of pictures alone, and suggest a set of them."""
    from augend.cli.display import Decoding, Looking, StudyDisplay, Timing
    from augend.report import sensitivity as page
    from augend.study.compare import next_folder
    from augend.study.evidence import read_json
    from augend.study.running import run_trials
    from augend.study.sensitivity import data_of, gather, judged, open_sensitivity

    begun = time.monotonic()
    own = None if run is None else judged(run)  # a mistake is said before anything is trained
    again = out is not None and (out / "study.json").is_file()
    inherited: dict[str, Any] = data_of(own.path) if own is not None and data is None and not again else {}
    if data is None and not again and not inherited:
        data = "digits"
    given: dict[str, Any] = {
        "data": None if data is None else data_word(data),
        "repeats": repeats,
        "budget": budget,
        "time": time_,
        "weights": None if weights is None else str(weights.resolve()),
        "group": group,
        "fit": fit,
        "model": model,
        "seed": seed,
        "root": data_root,
        "size": size,
        "plugins": plugin_paths(plugin) or None,
    }
    given = inherited | {key: value for key, value in given.items() if value is not None}
    folder = out or next_folder("sensitivity", given.get("data", "digits"))
    study = open_sensitivity(
        folder,
        given,
        command_line(),
        kinds=kinds,
        margin=None if margin is None else margin / 100,
        run=own,
        begun=begun,
        progress=Decoding(),
        timing=Timing(),
    )
    _announce(study)
    with StudyDisplay(study) as display:
        assert isinstance(display, StudyDisplay)
        run_trials(study, display)
    finished = [name for name in study.names if name not in study.pending]
    if not finished:
        reason = read_json(folder / "trials" / study.names[0] / "state.json").get("reason", "")
        print(f"augend: {folder}: every trial failed: {reason}", file=sys.stderr)
        raise typer.Exit(3)
    found = gather(folder, own, Looking())
    if as_json:
        print(json.dumps(found))
    else:
        _show(found, page.sentence(found))
    written = best_effort(lambda: page.write(folder, found))
    if written is not None and not as_json:
        typer.echo(f"The whole report: {written}")
    if not as_json and found["suggested"]:
        typer.echo(f"A set to try: augend compare DATA --augment {shlex.quote(str(folder / 'suggested.yaml'))}")
    if found["repeats"] < found["wanted"]:
        raise typer.Exit(3)


def _announce(study: Any) -> None:
    record = study.record
    plan = next(iter(record["plan"].values()))
    lines = [
        f"{record['data']['name']}: {record['n_train']} pictures to train, {record['n_valid']} to validate, "
        f"{len(record['classes'])} classes",
        *(f"note: {note}" for note in record["notes"]),
        f"{study.request.repeats} networks of {plan['steps']} steps ({plan['epochs']:g} epochs) see every "
        f"augmentation; everything goes to {study.path}",
    ]
    if study.request.repeats < 3:
        lines.append("fewer than 3 repeats: next to nothing can be told")
    print("\n".join(lines), file=sys.stderr)


def _show(found: dict[str, Any], sentence: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from augend.report.sensitivity import points

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    table = Table(box=None, pad_edge=False)
    for heading in (
        "augmentation",
        "",
        "labels",
        "accuracy, points",
        *(["your model, points"] if found["run"] else []),
    ):
        table.add_column(heading, justify="right" if "points" in heading else "left")
    for name, way in found["ways"].items():
        verdict = way["verdict"] + (f": {', '.join(way['harmed'])}" if way["harmed"] else "")
        moved = [points(way["model"]["change"])] if found["run"] else []
        table.add_row(name, way["said"], verdict, points(way["change"]), *moved)
    console.print(sentence, markup=False, highlight=False)
    console.print()
    console.print(table, markup=False, highlight=False)
    console.print()


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sensitivity)
