"""`augend recipes`: list, show, copy, validate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from augend.cli.options import Overrides
from augend.contract import AugendError

app = typer.Typer(help="List, show, copy and validate recipes.", no_args_is_help=False, add_completion=False)

SettingsName = Annotated[str, typer.Option("--settings", metavar="NAME|FILE", help="Settings to read recipes under.")]


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """Without a command: the list."""
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_() -> None:
    """Family, name, plain title and when to use it, of every built-in recipe; tab-separated when piped."""
    from augend.recipes.library import known

    rows = [(recipe.family, recipe.name, recipe.title, recipe.when) for recipe in known()]
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("family", "name", "title", "when to use it", box=None, pad_edge=False)
    previous = ""
    for family, *rest in rows:
        table.add_row(family if family != previous else "", *rest)
        previous = family
    Console().print(table)
    typer.echo("\nLook at one: augend recipes show NAME. Make one your own: augend recipes copy NAME.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A recipe, or a file of your own.")],
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With `like`, `set` and the settings worked in.")
    ] = False,
    settings: SettingsName = "good-practice",
    overrides: Overrides = None,
) -> None:
    """The text of a recipe."""
    from augend.recipes.library import load
    from augend.recipes.reading import dump
    from augend.recipes.resolve import resolved_words

    if resolved or overrides:
        typer.echo(dump(resolved_words(name, settings, overrides=overrides or ())), nl=False)
    else:
        recipe = load(name)
        typer.echo(recipe.text, nl=False)


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A built-in recipe.")],
    file: Annotated[Path | None, typer.Argument(help="Where to; by default NAME.yaml here.")] = None,
) -> None:
    """Write a recipe to a file of your own, to change it."""
    from augend.recipes.library import load

    recipe = load(name)
    target = file or Path(f"{recipe.name}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise AugendError(f"{target}: a recipe's file ends in .yaml")
    try:
        with target.open("x", encoding="utf-8") as out:
            out.write(recipe.text)
    except FileExistsError:
        raise AugendError(f"{target} exists already; name another file") from None
    except OSError as error:
        raise AugendError(f"{target}: cannot be written: {error.strerror}") from None
    typer.echo(f"wrote {target}; use it as --recipe {target}")


@app.command()
def validate(
    files: Annotated[list[str], typer.Argument(help="Files, or names of built-in recipes.")],
    settings: SettingsName = "good-practice",
    overrides: Overrides = None,
) -> None:
    """Check recipes without running them: every word, address, slice and mixture that can be checked without data."""
    from augend.recipes.library import is_file, load, read_file
    from augend.recipes.resolve import check

    for name in files:
        recipes = read_file(name).values() if is_file(name) and Path(name).exists() else [load(name)]
        for recipe in recipes:
            plan = check(recipe, settings, overrides=overrides or ())
            phases = "1 phase" if len(plan.phases) == 1 else f"{len(plan.phases)} phases"
            typer.echo(f"{recipe.name}: sound ({phases}: {', '.join(phase.name for phase in plan.phases)})")
