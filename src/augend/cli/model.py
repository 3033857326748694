"""`augend evaluate`, `predict`, `export`: the model that a run or a study leaves."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from augend.cli.options import Json, Plugins, Root, data_word, plugin_paths, printable
from augend.contract import AugendError

__all__ = ["add_to"]

Trained = Annotated[Path, typer.Argument(help="A run's or a study's folder, or a model.safetensors.")]


def _load_plugins(plugin: list[Path] | None) -> None:
    from augend.names import load_plugin

    for path in plugin_paths(plugin):
        load_plugin(path)


def evaluate(
    run: Trained,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Another data set or folder (default: the run's own).", show_default=False),
    ] = None,
    data_root: Root = None,
    shifts: Annotated[
        str | None,
        typer.Option(
            help="Show it test pictures changed in a fixed way: all, or names such as crop,rotate. A study: all its trials.",
            show_default=False,
        ),
    ] = None,
    attack: Annotated[
        str | None,
        typer.Option(
            help="Attack test pictures: fgsm, bim, mim, pgd, or foolbox:NAME, several with commas. A study: all its trials.",
            show_default=False,
        ),
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(
            help="L-infinity budgets in shares of the pixels' range (default 2/255,4/255,8/255), or sweep: 1/255 to 128/255.",
            show_default=False,
        ),
    ] = None,
    sums: Annotated[
        str | None,
        typer.Option(
            help="Also through sums with training pictures: k=2,weight=1,draws=16 (also average=, references=).",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Of bim, mim and pgd (default 10).", show_default=False)] = None,
    restarts: Annotated[
        int | None,
        typer.Option(help="Of pgd (default 1 against the bare model, 3 through sums).", show_default=False),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Fresh draws a step when sums are attacked (default 16).", show_default=False),
    ] = None,
    known: Annotated[
        bool | None,
        typer.Option(
            "--known", help="The attack through sums knows the partners that the defender draws.", show_default=False
        ),
    ] = None,
    fast: Annotated[
        bool | None,
        typer.Option(
            "--fast", help="The attacks' gradients in bfloat16; answers stay in full precision.", show_default=False
        ),
    ] = None,
    pictures: Annotated[
        int | None,
        typer.Option(
            help="With --attack or --sums: how many pictures, a fixed stratified subset (default 1000).",
            show_default=False,
        ),
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            help="With --attack or --sums: test, or valid to choose settings by (default test).", show_default=False
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Write the model's loss on every picture that may be trained on, for orders by a teacher: FILE.csv.",
            show_default=False,
        ),
    ] = None,
    decoded: Annotated[
        str | None,
        typer.Option(
            help="Show its autoencoder changed test pictures: all, or zoom, rotate, light, hue. A study: all its trials.",
            show_default=False,
        ),
    ] = None,
    judge_: Annotated[
        Path | None,
        typer.Option(
            "--judge", help="With --decoded: a classifier's run that says whether labels stay.", show_default=False
        ),
    ] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Judge a trained model: accuracy, balanced accuracy, calibration, per class, on every split."""
    from augend.evaluate.judge import judge
    from augend.runner.hardware import keep_pages
    from augend.study.shifted import other_data

    keep_pages()
    _load_plugins(plugin)
    if scores is not None:
        from augend.study.teacher import write_scores

        others = (attack, eps, sums, steps, restarts, samples, known, fast, pictures, on, shifts, decoded, judge_)
        if any(one is not None for one in others):
            raise AugendError(
                "--scores writes a file of losses and evaluates nothing else; run the two one after the other"
            )
        counts = write_scores(run, scores, data_word(data) if data else None, data_root)
        if as_json:
            print(json.dumps({"file": str(scores), "pictures": counts}))
            return
        told = ", ".join(f"{count} of {piece}" for piece, count in counts.items())
        typer.echo(f"{scores}: losses of {told}; train by it with --recipe curriculum --set scores={scores}")
        return
    if judge_ is not None and decoded is None:
        raise AugendError(
            "--judge says whether labels stay when pictures are decoded; it needs --decoded, as --decoded all"
        )
    if any(one is not None for one in (attack, eps, sums, steps, restarts, samples, known, fast, pictures, on)):
        from augend.cli.attacks import show_attacks

        if shifts is not None or decoded is not None:
            other = "--shifts" if shifts is not None else "--decoded"
            raise AugendError(f"{other} and --attack are two evaluations; run them one after the other")
        show_attacks(
            run,
            (attack, eps, sums),
            {
                "steps": steps,
                "restarts": restarts,
                "samples": samples,
                "known": bool(known),
                "fast": bool(fast),
                "pictures": pictures,
                "on": on,
            },
            data_word(data) if data else None,
            data_root,
            as_json,
        )
        return
    if decoded is not None:
        from augend.cli.decoded import show_decoded

        if shifts is not None:
            raise AugendError("--shifts and --decoded are two evaluations; run them one after the other")
        show_decoded(run, decoded, judge_, data_word(data) if data else None, data_root, as_json)
        return
    if shifts is not None:
        from augend.cli.shifts import show_shifts

        show_shifts(run, shifts, data_word(data) if data else None, data_root, as_json)
        return
    word = data_word(data) if data else None
    found = judge(run, word, data_root, test_alone=other_data(run, word))
    if as_json:
        print(json.dumps(found))
        return
    for split, judged in found["splits"].items():
        typer.echo(
            f"{split} ({judged['pictures']} pictures): {100 * judged['accuracy']:.2f} % right, balanced "
            f"{100 * judged['balanced_accuracy']:.2f} %, cross-entropy {judged['nll']:.4f} nats, "
            f"calibration error {100 * judged['ece']:.2f} points"
        )
    last = found["splits"].get("test") or next(iter(found["splits"].values()))
    for name, recall in last["recall"].items():
        typer.echo(f"  {printable(name):<20} {'no pictures' if recall is None else f'{100 * recall:.1f} %'}")


def predict(
    run: Trained,
    pictures: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them at any depth.")],
    top: Annotated[int, typer.Option(help="How many classes to say of each picture.")] = 3,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: picture, class, probability, then class2, probability2, ….")
    ] = False,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Say what is on pictures: the most probable classes of each."""
    from augend.evaluate.pictures import predict_files

    _load_plugins(plugin)
    rows, unreadable = predict_files(run, pictures, top=top)
    for line in unreadable:
        print(f"augend: {printable(line)}", file=sys.stderr)
    if as_json:
        print(json.dumps(rows))
    elif as_csv:
        write_csv(rows)
    else:
        for row in rows:
            found = ", ".join(f"{printable(one['class'])} {100 * one['probability']:.1f} %" for one in row["top"])
            typer.echo(f"{printable(row['picture'])}: {found}")
    if unreadable:
        raise typer.Exit(3 if rows else 2)


def write_csv(rows: list[dict[str, Any]]) -> None:
    """A row a picture on stdout; names are written so that a spreadsheet takes them for text."""
    most = max((len(row["top"]) for row in rows), default=1)
    header = ["picture", "class", "probability"]
    header += [f"{word}{number}" for number in range(2, most + 1) for word in ("class", "probability")]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        cells = [_text_cell(row["picture"])]
        for one in row["top"]:
            cells += [_text_cell(one["class"]), f"{one['probability']:.4f}"]
        writer.writerow(cells)


def _text_cell(text: str) -> str:
    """A name that no spreadsheet takes for a formula: those that begin like one get an apostrophe before them."""
    line = printable(text)
    return f"'{line}" if line.lstrip()[:1] in ("=", "+", "-", "@") else line


def export(
    run: Trained,
    to: Annotated[
        list[Path],
        typer.Option("--to", help="FILE.onnx, FILE.safetensors or FILE.pt2; may be given several times."),
    ],
    pictures: Annotated[
        list[Path] | None,
        typer.Option(
            "--pictures", help="What the files are checked on (default: the run's test pictures).", show_default=False
        ),
    ] = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Write a trained model for other programs: checked against the original, with a card beside it."""
    from augend.report.handover import export as written

    _load_plugins(plugin)
    made = written(run, to, pictures=pictures)
    if as_json:
        print(json.dumps(made))
        return
    for one in made["files"]:
        typer.echo(
            f"{one['file']}: {one['format']}, {one['bytes'] / 1e6:.3g} MB; read by {one['reader']} its logits are within "
            f"{one['difference']:.1g} of the original's on {one['pictures']} pictures"
        )
    typer.echo(f"{made['card']}: what it is, how good it is, how to load it")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (evaluate, predict, export):
        app.command()(command)
