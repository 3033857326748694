"""`augend reproduce`: a paper's table or figure, run again with intervals, its controls beside it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augend.cli.announce import announce
from augend.cli.compare import command_line, run_shown, take
from augend.cli.options import Budget, Json, Root, Size, TakeFrom
from augend.contract import AugendError

if TYPE_CHECKING:
    from augend.study.tables import Asked

__all__ = ["add_to"]


def reproduce(
    table: Annotated[
        str | None, typer.Argument(help="As factoring/table-1 (default: list what there is).", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="One of the table's protocols (default: its first).", show_default=False)
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="smoke, cpu or paper, where the table has them (default: cpu).", show_default=False),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Seeds of every row (default: the table's).", show_default=False)
    ] = None,
    rows: Annotated[str | None, typer.Option(help="Only these rows, separated by commas.", show_default=False)] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Other data than the table's, as in augend train: your own pictures.", show_default=False),
    ] = None,
    budget: Budget = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The study's folder (default runs/reproduce-TABLE-…); an existing one is continued."),
    ] = None,
    bases: Annotated[
        Path | None,
        typer.Option(
            help="The study of the networks that rows start from (default: beside --out).", show_default=False
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The base seed (default 0).", show_default=False)] = None,
    size: Size = None,
    data_root: Root = None,
    take_from: TakeFrom = None,
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Write the trials; run them with `augend trial`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a table or figure of a paper again: our numbers beside the printed ones, and a verdict on each claim."""
    from augend.cli.display import Looking
    from augend.report import reproduction
    from augend.study import reproduce as study_reproduce
    from augend.study.compare import check_free
    from augend.study.tables import kind_of, known_tables, load_table, whole_tables
    from augend.study.taken import check_other

    kind = None if table is None else kind_of(table)
    if table is not None and kind is not None:
        if protocol or repeats or rows or data or budget or bases or take_from or prepare_only:
            raise AugendError(f"{table}: has no rows; it takes --scale, --out, --seed, --data-root and --json alone")
        _whole(kind, table, scale, out or default_folder(table, "", scale or "cpu"), seed or 0, data_root, as_json)
        return
    if table is None:
        for name, whole in whole_tables().items():
            one = _long_run(whole)[0](name)
            typer.echo(f"{name:28} {one.title}  [--scale {', '.join(one.scales)}]")
        for name, title in known_tables().items():
            about = load_table(name)
            scales = f"; --scale {', '.join(about.scales)}" if about.scales else ""
            typer.echo(f"{name:28} {title}  [{', '.join(about.protocols)}{scales}]")
        return
    wanted = load_table(table)
    if take_from is not None:
        check_other(take_from)
    if out is not None and (out / "study.json").is_file():  # it knows its own protocol, scale and bases
        folder, asked = out, None
    else:
        asked = wanted.asked(table, protocol, scale, data)
        folder = out or default_folder(table, asked.protocol, asked.scale, data=data)
    only = None if rows is None else [part.strip() for part in rows.split(",") if part.strip()]
    if size is not None and data is None:
        raise AugendError("--size is about a folder of pictures; name it with --data")
    given: dict[str, Any] = {"command": command_line(), "seed": seed, "root": data_root, "size": size}
    if wanted.bases is None and bases is not None:
        raise AugendError(f"{table}: its rows start from nothing; leave --bases out")
    if wanted.bases is not None and asked is not None and not (folder / "study.json").is_file():
        wanted.chosen(table, asked.protocol, only)  # a mistake is said before bases are trained
        check_free(folder)
        theirs = load_table(wanted.bases)
        of_both = (one.asked(one.title, asked.protocol, asked.scale).data for one in (theirs, wanted))
        shared = data if data is not None and len(set(of_both)) == 1 else None  # they learn from the same pictures
        bases = bases or default_folder(wanted.bases, asked.protocol, asked.scale, folder.parent, shared)
        if not (bases / "study.json").is_file():
            check_free(bases, "--bases")
        how = {**given, "data": shared}
        if not _trained(wanted.bases, asked, bases, repeats or asked.repeats, how, prepare_only):
            return
    study = study_reproduce.open_reproduction(
        table,
        protocol if asked is None else asked.protocol,
        folder,
        scale=scale if asked is None else asked.scale,
        repeats=repeats,
        rows=only,
        bases=bases,
        data=data,
        budget=budget,
        **given,
    )
    take(study, take_from)
    announce(study)
    if prepare_only:
        typer.echo(
            f"{len(study.pending)} trials written; run one with: augend trial {shlex.quote(str(folder))} N   "
            "then repeat this command"
        )
        return
    run_shown(study, _work(study))
    found = study_reproduce.gather(folder, Looking())
    page = reproduction.write(folder, found)
    if as_json:
        print(json.dumps(found))
    else:
        typer.echo(page.read_text(encoding="utf-8"))
        typer.echo(f"Everything: {folder}")
    if not found["complete"]:
        raise typer.Exit(3)


def _work(study: Any) -> dict[str, float]:
    """FLOPs of a trial of each row, which the page prints too: rows of a table may cost twenty times one another."""
    from augend.study.reach import counted, spent

    return {name: spent(prices) for name, prices in counted(study.path, study.files).items()}


def _long_run(kind: str) -> tuple[Callable[[str], Any], Callable[..., dict[str, Any]], Callable[..., Path]]:
    """How a table of a kind is read, run and shown."""
    if kind == "order-measures":
        from augend.report import measured as measured_page
        from augend.study.measured import load_measured, run_measured

        return load_measured, run_measured, measured_page.write
    from augend.report import perfect as perfect_page
    from augend.study.perfect import load_perfect, run_perfect

    return load_perfect, run_perfect, perfect_page.write


def _whole(kind: str, table: str, scale: str | None, out: Path, seed: int, root: str | None, as_json: bool) -> None:
    """A table that is one long run instead of rows."""

    def listen(now: Mapping[str, Any]) -> None:
        epoch = f"epoch {now['epoch']} of {now['of']}: " if "epoch" in now else ""
        typer.echo(f"{epoch}start {now['start']} of {now['starts']}", err=True)

    _, run, write = _long_run(kind)
    found = run(table, scale, out, seed=seed, root=root, command=command_line(), listen=listen)
    page = write(out, found)
    typer.echo(json.dumps(found) if as_json else page.read_text(encoding="utf-8"))
    if not as_json:
        typer.echo(f"Everything: {out}")


def _trained(table: str, asked: Asked, bases: Path, repeats: int, given: dict[str, Any], prepare_only: bool) -> bool:
    """Train the networks that rows start from, where they are not; False where they are only to be prepared."""
    from augend.report import reproduction
    from augend.study.evidence import read_json
    from augend.study.reproduce import gather, open_reproduction

    if (bases / "study.json").is_file():  # a study keeps its seed, and may have more repeats
        repeats = max(repeats, int(read_json(bases / "study.json")["repeats"]))
        given = {**given, "seed": None}
    how = {**given, "option": "--bases"}
    study = open_reproduction(table, asked.protocol, bases, scale=asked.scale, repeats=repeats, **how)
    if not study.pending:
        return True
    if prepare_only:
        typer.echo(
            f"{len(study.pending)} trials written that train the bases; run one with: "
            f"augend trial {shlex.quote(str(bases))} N"
        )
        typer.echo("then repeat this command for the trials that start from them")
        return False
    typer.echo(f"First the networks that the rows start from: {bases}")
    announce(study)
    run_shown(study, _work(study))
    reproduction.write(bases, gather(bases))
    return True


def default_folder(
    table: str, protocol: str, scale: str | None, beside: Path = Path("runs"), data: str | None = None
) -> Path:
    """Where a table's study lies: runs/reproduce-PAPER-TABLE-PROTOCOL, with its scale where it has several.

    >>> str(default_folder("learned/figure-5", "small", "cpu", data="pictures/cats"))
    'runs/reproduce-learned-figure-5-small-cpu-pictures-cats'
    """
    from augend.checkpoint import file_word

    shown = None if data is None else file_word(data)
    return beside / "-".join(filter(None, ("reproduce", table.replace("/", "-"), protocol, scale, shown)))


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reproduce)
