"""Scores of pictures that pass a network as an augmentation: a candidate is augmented once, however often it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from augend.contract import Component
from augend.cost import count_flops
from augend.models import build
from augend.recipes import dump
from augend.runner.job import Job, resolve_job
from augend.study.equal import plan_flops
from runs import SMALL, required, splits_of, train

ROWS = 50  # of a step: four batches an epoch

# Batches that are made in the four steps of an epoch, of which the first two look at three candidates where batches are cut.
MADE = {
    "shuffle": 4,
    "{by-loss: {candidates: 3}}": 4 * 3 + 4,
    "{by-delta: {candidates: 3}}": 3 + 3 + 2 + 1 + 4,
    "{by-delta: {candidates: 3, redraw: true}}": 3 + 3 + 2 + 1 + 4,
    "{by-delta: {candidates: 3, trial: step}}": 3 + 3 + 2 + 1,
    "{by-delta: {candidates: 3, take: average}}": 3 + 3 + 2 + 1,
    "{sample-by-loss: {pool: 2}}": 4 * 2 + 4,
}


@pytest.mark.parametrize("order", MADE)
def test_batches_that_are_made_are_charged(order: str, tmp_path: Path) -> None:
    asked = required("canonicalise")
    model = {"denoising-vae": {"widths": asked["widths"], "latent": asked["latent"]}}
    network = build(Component("denoising-vae", model["denoising-vae"]), shape=(1, 28, 28), classes=2, generator_seed=0)
    one = count_flops(network.eval(), torch.zeros(1, 1, 28, 28), backward=False).total
    spent: list[int] = []
    foreseen: list[int] = []
    for name, augment in (("plain", ["hflip"]), ("through", [{"apply": {"network": "vae.picture", "p": 0.5}}])):
        networks = {"vae": {"model": model, "weights": asked["vae"]}, "net": {"model": "figure1"}}
        recipe = {"networks": networks, "phases": [{"name": "only", "train": "net", "augment": augment}]}
        (tmp_path / f"{name}.yaml").write_text(dump(recipe))
        how: dict[str, Any] = {
            "recipe": str(tmp_path / f"{name}.yaml"),
            "settings": "quick",
            "budget": "4step",
            "overrides": (f"batch={ROWS}", f"only.order={order}"),
        }
        train(tmp_path / name, **how)
        spent.append(json.loads((tmp_path / name / "ledger.json").read_text())["total"]["flops"])
        job = Job(data=SMALL, **how)
        splits = splits_of(job)
        foreseen.append(sum(steps * flops for steps, flops in plan_flops(resolve_job(job, splits), splits)))
    assert spent[1] - spent[0] == MADE[order] * ROWS * one > 0
    assert foreseen == pytest.approx(spent, rel=1e-6)
