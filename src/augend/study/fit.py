"""Train a model of one's own by a recipe, on any map-style data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from augend import names
from augend.data import from_dataset
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware, default_accelerator
from augend.runner.job import Job, resolve_job, resume, start
from augend.runner.keeper import Listener, silent
from augend.study.compare import next_folder

__all__ = ["fit"]


def fit(
    recipe: str,
    model: nn.Module,
    train: Any,
    val: Any = None,
    *,
    classes: Sequence[str] | None = None,
    budget: str = "10epoch",
    settings: str = "good-practice",
    overrides: Sequence[str] = (),
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
    precision: str = "32-true",
    threads: int = 1,
    out: str | Path | None = None,
    listen: Listener = silent,
) -> dict[str, Any]:
    """Train `model` in place by a recipe.

    Args:
        recipe: a name (``augend recipes``) or a file.
        model: an `nn.Sequential` or any module whose forward can be followed, answering logits ``(rows, classes)`` for
            float32 pictures ``(rows, C, H, W)`` normalised by the training set's mean and deviation. Its weights are
            where training begins, and it ends with the final ones (averaged where the settings keep an average).
        train, val: map-style data sets of (picture, label): PIL pictures, arrays or tensors, uint8 or float in [0, 1], all of
            one shape. Without `val` a stratified fifth of `train` is held out.
        classes: names of the classes (default: their numbers).
        budget: ``2000step`` or ``30epoch``.
        settings, overrides, params: as on the command line.
        out: the run's folder (default ``runs/fit-MODEL-N``) for checkpoints, metrics and predictions; a run that was
            killed there is continued by the same call.
        listen: hears events, see `augend.runner.keeper.Keeper`.

    Returns:
        What stands in ``result.json``.

    Example:
        >>> import torch
        >>> data = [(torch.rand(1, 8, 8), n % 2) for n in range(40)]
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> fit("plain", net, data, budget="4step", out=getfixture("tmp_path") / "run")["steps"]
        4
    """
    from safetensors.torch import load_file

    word = f"{names.OWN}{type(model).__name__}"
    names.own_model(word, model)
    split = from_dataset(train, val, classes=classes, seed=seed)
    job = Job(
        data=split.name,
        recipe=recipe,
        settings=settings,
        overrides=tuple(overrides),
        params=dict(params or {}),
        model=word,
        budget=budget,
        seed=seed,
    )
    hardware = Hardware(accelerator=default_accelerator(), precision=precision, threads=threads)
    folder = RunFolder(out if out is not None else next_folder("fit", type(model).__name__))
    splits = {"main": split}
    if folder.exists:
        result = resume(folder.path, listen=listen, splits=splits)
    else:
        plan = resolve_job(job, splits)
        result = start(job, folder, hardware, plan=plan, splits=splits, command="augend.fit", listen=listen)
    trained = load_file(folder.path / "model.safetensors")
    model.load_state_dict({k.removeprefix("net.model."): v for k, v in trained.items() if k.startswith("net.model.")})
    return result
