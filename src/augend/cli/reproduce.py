"""`augend reproduce`: a paper's table or figure, run again with intervals, its controls beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from augend.cli.announce import announce
from augend.cli.compare import command_line, run_shown
from augend.cli.options import Budget, Json, Root

__all__ = ["add_to"]


def reproduce(
    table: Annotated[
        str | None, typer.Argument(help="As factoring/table-1 (default: list what there is).", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="One of the table's protocols (default: its first).", show_default=False)
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Seeds of every row (default: the table's).", show_default=False)
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Only these rows, separated by commas.", show_default=False)] = None,
    budget: Budget = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The study's folder (default runs/reproduce-TABLE-PROTOCOL); an existing one is continued."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The base seed (default 0).", show_default=False)] = None,
    data_root: Root = None,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Write the trials; run them with `augend trial`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a table or figure of a paper again: our numbers beside the printed ones, and a verdict on each claim."""
    from augend.report import reproduction
    from augend.study import reproduce as study_reproduce
    from augend.study.tables import known_tables, load_table

    if table is None:
        for name, title in known_tables().items():
            typer.echo(f"{name:28} {title}  [{', '.join(load_table(name).protocols)}]")
        return
    chosen = protocol or next(iter(load_table(table).protocols))
    folder = out or Path("runs") / f"reproduce-{table.replace('/', '-')}-{chosen}"
    study = study_reproduce.open_reproduction(
        table,
        chosen,
        folder,
        command=command_line(),
        repeats=repeats,
        rows=None if rows is None else [part.strip() for part in rows.split(",") if part.strip()],
        budget=budget,
        seed=seed,
        root=data_root,
    )
    announce(study)
    if prepare_only:
        typer.echo(
            f"{len(study.pending)} trials written; run one with: augend trial {folder} N   then repeat this command"
        )
        return
    run_shown(study)
    found = study_reproduce.gather(folder)
    page = reproduction.write(folder, found)
    if as_json:
        print(json.dumps(found))
    else:
        typer.echo(page.read_text(encoding="utf-8"))
        typer.echo(f"Everything: {folder}")
    if not found["complete"]:
        raise typer.Exit(3)


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reproduce)
