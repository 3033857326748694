"""What a finished run leaves: the model, predictions for every picture, the ledger, and last of all the result."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from augend.checkpoint import plain, write_bytes
from augend.data.pictures import Pictures, Split
from augend.evaluate.predict import probabilities
from augend.recipes.plan import Plan
from augend.runner.assembly import cuts
from augend.runner.charge import network_sizes
from augend.stages.networks import Networks

if TYPE_CHECKING:
    from augend.runner.keeper import Keeper

__all__ = ["model_bytes", "predictions", "write_outcome"]

MODEL_SCHEMA = 1


def write_outcome(keeper: Keeper) -> dict[str, Any]:
    """Predict every split with the final weights (averaged where they are kept) and write the run's last files."""
    plan, folder = keeper.plan, keeper.folder
    keeper.ledger.lap("evaluation")
    keeper.networks.eval()
    result: dict[str, Any] = {
        "recipe": plan.recipe,
        "title": plan.title,
        "seed": keeper.seed,
        "steps": keeper.at.global_step,
    }
    result["networks"] = network_sizes(keeper.networks, keeper.splits["main"].shape, plan.result)
    if keeper.at.augmenters:
        result["augmenters"] = keeper.at.augmenters
    with keeper.average.applied():
        for place, name in enumerate(plan.result):
            arrays = predictions(keeper, name)
            suffix = "" if place == 0 else f"-{name}"
            scores = _scores(arrays)
            result |= scores if place == 0 else {name: scores}
            if keeper.fabric.is_global_zero:
                buffer = io.BytesIO()
                np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
                write_bytes(folder.path / f"predictions{suffix}.npz", buffer.getvalue())
                write_bytes(
                    folder.path / f"model{suffix}.safetensors", model_bytes(plan, keeper.networks, keeper.splits, name)
                )
    keeper.ledger.lap("evaluation")
    text = keeper.ledger.to_json()
    result["ledger"] = json.loads(text)["total"]
    if keeper.fabric.is_global_zero:
        folder.write("ledger.json", text)
        folder.write("result.json", result)
    return result


def predictions(keeper: Keeper, name: str) -> dict[str, np.ndarray[Any, Any]]:
    """ids, labels, probabilities and split of every picture; training pictures are listed with NaN probabilities."""
    split = keeper.splits["main"]
    parts: list[tuple[str, Pictures]] = [("train", split.train), ("valid", split.valid), ("test", split.test)]
    parts += [(f"shifted:{shift}", pictures) for shift, pictures in split.shifted.items()]
    ids, labels, tables, words = [], [], [], []
    for word, pictures in parts:
        if not len(pictures):
            continue
        if word == "train":
            table = torch.full((len(pictures), len(split.classes)), float("nan"))
        else:
            table = probabilities(
                keeper.networks,
                name,
                pictures,
                channels_last=keeper.hardware.channels_last,
                autocast=keeper.hardware.autocast,
            )
        ids += list(pictures.ids)
        labels.append(pictures.labels.cpu().numpy())
        tables.append(table.numpy())
        words += [word] * len(pictures)
    return {
        "ids": np.array(ids),
        "labels": np.concatenate(labels),
        "probabilities": np.concatenate(tables),
        "split": np.array(words),
    }


def _scores(arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    right = arrays["probabilities"].argmax(1) == arrays["labels"]
    return {
        str(word): float(right[arrays["split"] == word].mean())
        for word in dict.fromkeys(arrays["split"].tolist())
        if word != "train"
    }


def model_bytes(plan: Plan, networks: Networks, splits: Mapping[str, Split], name: str) -> bytes:
    """A safetensors file that says how to build the networks it holds: those that `name` depends on."""
    from safetensors.torch import save

    needed = networks.reached([name])
    description = {
        "schema": MODEL_SCHEMA,
        "result": name,
        "networks": {
            n: {
                "model": {"word": plan.networks[n].model.word, "options": dict(plan.networks[n].model.options)},
                "input": str(networks.inputs[n]) if networks.inputs[n] is not None else None,
                "classes": len(splits[plan.networks[n].classes].classes),
                "cuts": list(cuts(plan, n)),
            }
            for n in needed
        },
        "classes": list(splits["main"].classes),
        "shape": list(splits["main"].shape),
        "fit": splits["main"].fit,
        "resize": splits["main"].resize,
        "recipe": plan.recipe,
    }
    tensors = {f"{n}.{key}": tensor for n in needed for key, tensor in networks.stages(n).state_dict().items()}
    return save(plain(tensors), metadata={"augend": json.dumps(description)})
