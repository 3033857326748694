"""`augend data check`: what is in a folder or a table of pictures, before anything is trained on it."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augend.cli.options import Group, Json, Size, data_word
from augend.contract import AugendError

if TYPE_CHECKING:
    from augend.data.pictures import Split

__all__ = ["app"]

app = typer.Typer(help="Look at pictures before training on them.", no_args_is_help=True, add_completion=False)

_FEW = 5  # sets, bursts, suffixes that are listed; --json has them all
_CLASSES = 24
_ROWS, _COLUMNS = 4, 7  # of the grid


@app.callback()
def _about() -> None:
    """Look at pictures before training on them."""


@app.command()
def check(
    path: Annotated[str, typer.Argument(help="A folder of class folders, or a table of paths and labels (.csv).")],
    group: Group = None,
    size: Size = None,
    grid: Annotated[
        Path | None,
        typer.Option(help="Write a picture (.png) of what augmentation makes of some of them.", show_default=False),
    ] = None,
    augment: Annotated[str, typer.Option(help="What the grid shows: light, standard or strong.")] = "standard",
    as_json: Json = False,
) -> None:
    """Classes, sizes, unreadable files, duplicates, bursts, imbalance, and which split `compare` would draw."""
    from augend.data.check import inspected
    from augend.names import known

    if path.partition(":")[0] in known("data"):
        raise AugendError(
            f"{path}: a known set, which needs no check; give a folder or a table (./{path} for a folder)"
        )
    with _progress() as progress:
        report, split = inspected(data_word(path), size or 64, group=group, progress=progress)
    report["augmentations"] = _safe(report.get("traits"))
    if grid is not None and split is not None:
        _write_grid(split, augment, grid)
    if as_json:
        print(json.dumps(report))
    elif "classes" in report:
        _print(report, path, grid)
    if not report["usable"]:
        raise AugendError(report["problem"])


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """A line that counts files while they are decoded, on a terminal alone."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("decoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("decoding", total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def _operations(name: str, traits: list[str]) -> Any:
    from augend.contract import Component
    from augend.recipes.augmentations import expand
    from augend.recipes.reading import Place
    from augend.recipes.words import OpWords

    return expand([OpWords(Component(name))], (), traits, Place("augend data check").at("augment"))


def _safe(traits: list[str] | None) -> dict[str, list[str]]:
    """What each named set of augmentations does to labels with these traits."""
    if traits is None:
        return {}
    return {
        name: [_spelled(op.component) for op in _operations(name, traits)] for name in ("light", "standard", "strong")
    }


def _spelled(component: Any) -> str:
    from augend.names import options

    defaults = {key: p.default for key, p in options("augment", component.word).items()}
    given = {key: value for key, value in component.options.items() if value != defaults.get(key)}
    inside = ", ".join(f"{key.replace('_', '-')} {value}" for key, value in given.items())
    return f"{component.word} ({inside})" if inside else str(component.word)


def _write_grid(split: Split, augment: str, file: Path) -> None:
    import torch
    from PIL import Image

    from augend.augment import build
    from augend.augment.chain import Chain
    from augend.augment.grid import grid
    from augend.randomness import Draws

    if file.suffix.lower() != ".png":
        raise AugendError(f"--grid {file}: give a file that ends in .png")
    chain = Chain([build(op.component) for op in _operations(augment, sorted(split.traits))], split.shape[1:])
    first = [int((split.train.labels == c).nonzero()[0]) for c in sorted(set(split.train.labels.tolist()))[:_ROWS]]
    shown, draws = split.train.take(first), Draws(0, "grid", 0, torch.arange(len(first)))
    page = grid(shown.pixels[:], chain, draws, _COLUMNS, whole=shown.kept[:])
    array = page.permute(1, 2, 0).numpy()
    try:
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(file)
    except OSError as error:
        raise AugendError(f"--grid {file}: cannot be written ({error.strerror or error})") from None


# ---------------------------------------------------------------------------------------------- on a terminal


def _plain(text: object) -> str:
    """A name as it can be shown anywhere: no control characters, no bytes that are no text."""
    shown = str(text).encode(errors="replace").decode()
    return "".join(c if c.isprintable() else "?" for c in shown)


def _amount(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _print(report: dict[str, Any], path: str, grid: Path | None) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    width = console.width if console.is_terminal else 0  # a pipe gets whole lines
    lost = report["pictures"] - report["readable"]
    classes = _amount(len(report["classes"]), "class", "classes")
    print(
        f"{_plain(report['path'])}: {_amount(report['pictures'], 'picture')} in {classes}"
        f"{f', {lost:,} of them unreadable' if lost else ''}\n"
    )
    for line in _class_table(report):
        print(line)
    print()
    for name, text in _facts(report):
        print(_wrapped(f"{name:<9} {_plain(text)}", 10, width))
    for heading, lines in _lists(report):
        print(f"\n{heading}")
        for line in lines:
            print(_wrapped(f"  {_plain(line)}", 4, width))
    if report["usable"]:
        print("\nAugmentations for such labels, by their name for --augment")
        for name, operations in report["augmentations"].items():
            print(_wrapped(f"  {name:<9} {', '.join(operations) or 'nothing'}", 12, width))
        shown = shlex.quote(_plain(path))
        look = f"Look at them: augend data check {shown} --grid grid.png" if grid is None else f"They are in {grid}"
        print(f"  {look}\n  Where a class can no longer be named, use --augment light, or none.")
        print(f"\nUsable. Next: augend compare {shown}")


def _wrapped(text: str, indent: int, width: int) -> str:
    if not width:
        return text
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)


def _class_table(report: dict[str, Any]) -> list[str]:
    from rich.cells import cell_len

    rows = sorted(report["classes"], key=lambda row: (-row["readable"], row["name"]))
    columns = {"all": "pictures", "train": "train", "valid": "valid", "test": "test"}
    columns = {key: heading for key, heading in columns.items() if any(key in row for row in rows)}
    if report["pictures"] > report["readable"]:
        columns["readable"] = "readable"
    if any(row["independent"] < row["readable"] for row in rows):
        columns["independent"] = "independent"
    shown = rows if len(rows) <= _CLASSES else [*rows[: _CLASSES // 2], *rows[-_CLASSES // 2 :]]
    names = [_plain(row["name"]) for row in shown]
    wide = max(cell_len(name) for name in ["class", *names])
    lines = ["  ".join(["class".ljust(wide), *columns.values()])]
    for name, row in zip(names, shown, strict=True):
        cells = [f"{row[key]:>{len(heading)},}" for key, heading in columns.items()]
        small = [f"too small: at least {report['least']}"] if row["too_small"] else []
        lines.append("  ".join([name + " " * (wide - cell_len(name)), *cells, *small]))
    if len(rows) > len(shown):
        lines.insert(1 + _CLASSES // 2, f"… {len(rows) - len(shown)} more (--json lists all)")
    return lines


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if report["sizes"]:
        parts = [f"{name} {width} x {height}" for name, (width, height) in report["sizes"].items()]
        facts.append(("sizes", ", ".join(parts)))
    balance = report["imbalance"]
    if balance:
        judged = f"{balance['metric']} will decide"
        facts.append(
            (
                "balance",
                f"{balance['largest']} has {balance['ratio']:.2g} times the pictures of {balance['smallest']}: {judged}",
            )
            if balance["ratio"] > 1
            else ("balance", f"all classes are of one size: {judged}")
        )
    if split := report.get("split"):
        about = {
            "redrawn": "60/20/20 %, redrawn with each repeat",
            "validation redrawn": "your test set is kept; validation is redrawn out of train with each repeat",
            "fixed": "yours, as it is",
        }[split["kind"]]
        facts.append(
            (
                "split",
                f"{about}: {split['train']:,} to train, {split['valid']:,} to validate, {split['test']:,} to test",
            )
        )
    if "traits" in report:
        facts.append(("labels", f"survive {', '.join(report['traits']) or 'no change at all'}"))
    return facts


def _lists(report: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Headings with lines below: unreadable files, duplicates, bursts, notes."""
    if report["unreadable"]:
        lines = []
        for row in report["unreadable"][:_FEW]:
            package = f"; install {row['package']}" if row["package"] else ""
            lines.append(f"{row['files']} {row['suffix']} (first: {row['first']}: {row['reason']}){package}")
        yield "Unreadable, left out", lines
    if report["alike"]:
        copies = _amount(report["copies"], "exact copy", "exact copies")
        near = _amount(report["near_duplicates"], "near-duplicate")
        lines = []
        for one in report["alike"][:_FEW]:
            kind = "the same" if one["exact"] else "alike"
            labels = f"; DIFFERENT LABELS: {', '.join(one['labels'])}" if len(one["labels"]) > 1 else ""
            lines.append(f"{kind}: {_several(one['files'])}{labels}")
        kept = ", kept on one side of every split" if (report.get("split") or {}).get("kind") == "redrawn" else ""
        yield f"{copies}, {near}{kept}", [*lines, *_rest(report["alike"], "set")]
    if report["bursts"]:
        lines = [f"{len(files)} pictures: {_several(files)}" for files in report["bursts"][:_FEW]]
        heading = f"{_amount(len(report['bursts']), 'burst')} ({_amount(sum(map(len, report['bursts'])), 'picture')})"
        yield f"{heading}, taken within seconds in one folder", [*lines, *_rest(report["bursts"], "burst")]
    if report["notes"]:
        yield "Notes", report["notes"]


def _several(files: list[str]) -> str:
    return ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def _rest(all_of_them: list[Any], what: str) -> list[str]:
    more = len(all_of_them) - _FEW
    return [f"… {_amount(more, f'more {what}')} (--json lists all)"] if more > 0 else []
