"""`augend train`, `resume`: one run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from augend.cli.options import (
    DATA,
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
    Precision,
    Root,
    Seed,
    SettingsName,
    Size,
    Weights,
    data_word,
    pixels_override,
    plugin_paths,
)

__all__ = ["add_to"]


def train(
    data: Annotated[str, typer.Argument(help=DATA)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="The same as --set: split=layer3 optimizer.lr=3e-4.", show_default=False)
    ] = None,
    recipe: Annotated[str, typer.Option(help="A name (augend recipes) or a file.")] = "augmented",
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default=False)] = None,
    model: Model = None,
    budget: Budget = None,
    settings: SettingsName = "good-practice",
    seed: Seed = 0,
    weights: Weights = None,
    set_: Overrides = None,
    data_root: Root = None,
    size: Size = None,
    group: Group = None,
    fit: Fit = None,
    fraction: Fraction = None,
    false_labels: FalseLabels = None,
    precision: Precision = "auto",
    threads: Annotated[
        int | None, typer.Option(help="Threads of the CPU (default: its cores).", show_default=False)
    ] = None,
    devices: Annotated[int, typer.Option(help="Ranks on this machine.")] = 1,
    deterministic: Annotated[
        bool, typer.Option(help="Only deterministic GPU kernels: resuming is then exact there too.")
    ] = False,
    augment: Augmentations = None,
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Train one recipe and leave a model that `augend.load` and `augend predict` take."""
    from augend.cli.display import Decoding, TrainDisplay
    from augend.contract import AugendError
    from augend.names import load_plugin
    from augend.runner.folder import RunFolder
    from augend.runner.hardware import Hardware, default_accelerator, main_rank
    from augend.runner.job import Job, join, load_splits, resolve_job, start
    from augend.study.compare import next_folder

    if not main_rank():
        join(os.environ["AUGEND_RUN"])
        return
    plugins = plugin_paths(plugin)
    for path in plugins:
        load_plugin(path)
    job = Job(
        data=data_word(data),
        recipe=recipe,
        settings=settings,
        overrides=(*(overrides or ()), *(set_ or ()), *pixels_override(augment)),
        params={} if weights is None else {"weights": str(weights.resolve())},
        model=model,
        budget=budget,
        seed=seed,
        root=data_root,
        size=size,
        group=group,
        fit=fit or "crop",
        fraction=1.0 if fraction is None else fraction,
        false_labels=false_labels or 0.0,
        plugins=plugins,
    )
    folder = RunFolder(out or next_folder("train", data))
    folder.check()
    if folder.exists:
        raise AugendError(f"{folder.path}: there is a run already; continue it with: augend resume {folder.quoted}")
    splits = load_splits(job, progress=Decoding())
    plan = resolve_job(job, splits)
    if model is not None and model not in {network.model.word for network in plan.networks.values()}:
        raise AugendError(
            f"--model {model}: {plan.recipe} brings its own networks, which it says nothing to; leave it out"
        )
    base = Hardware(
        accelerator=default_accelerator(),
        devices=devices,
        threads=threads or os.cpu_count() or 1,
        deterministic=deterministic,
    )
    hardware = _choose(plan, splits, base, precision)
    from augend.cli.compare import command_line
    from augend.study.lineage import began_with, learned_before

    known = learned_before(data, [(began_with(plan), splits["main"])])
    for note in [*(note for split in splits.values() for note in split.notes), *known]:
        print(f"note: {note}", file=sys.stderr)
    with TrainDisplay() as display:
        assert isinstance(display, TrainDisplay)
        result = start(job, folder, hardware, plan=plan, splits=splits, command=command_line(), listen=display)
    _show(folder.path, result, as_json)


def _choose(plan: Any, splits: Any, base: Any, precision: str) -> Any:
    import dataclasses

    from augend.runner.probe import choose

    if precision != "auto":
        return dataclasses.replace(base, precision=precision)
    return choose(plan, splits, base)[0]


def resume(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    as_json: Json = False,
) -> None:
    """Continue a run that was stopped or killed; it ends with the same bits. A finished run is left as it is."""
    from augend.cli.display import TrainDisplay
    from augend.runner.folder import RunFolder
    from augend.runner.job import resume as go_on

    done = RunFolder(run).done
    with TrainDisplay() as display:
        assert isinstance(display, TrainDisplay)
        result = go_on(run, listen=display)
    if done:
        print(f"{run} is finished already; nothing was done", file=sys.stderr)
    _show(run, result, as_json)


def _show(path: Path, result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    typer.echo(f"{result['title']} ({result['recipe']}), seed {result['seed']}, {result['steps']} steps")
    for split in [key for key in result if key in ("valid", "test") or key.startswith("shifted:")]:
        typer.echo(f"  {split:<18} {100 * result[split]:.2f} % right")
    seconds = result["ledger"]["seconds"]
    training = sum(value for part, value in seconds.items() if part != "evaluation")
    typer.echo(f"  training           {training:.1f} s, {result['ledger']['flops'] / 1e12:.3g} TFLOP")
    typer.echo(f"  model              {path / 'model.safetensors'}")


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (train, resume):
        app.command()(command)
