"""What every built-in recipe gets by being one: trains, moves what it should, resumes to the same bits, exports."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

import augend
from augend.data import load as load_data
from augend.randomness import Draws
from augend.recipes import known
from augend.runner.assembly import build_networks, stage
from augend.runner.folder import RunFolder
from augend.runner.job import Job, resolve_job
from runs import SMALL, Killed, finish, killed_at, same_run, splits_of, train

RECIPES = sorted(recipe.name for recipe in known())
BUDGET = 24


def _job(recipe: str) -> Job:
    return Job(data=SMALL, recipe=recipe, budget=f"{BUDGET}step", settings="quick")


def _kills(recipe: str, steps: list[int]) -> list[int]:
    """Three steps: a phase boundary, and two by a hash of the name."""
    total = sum(steps)
    seed = int.from_bytes(hashlib.blake2b(recipe.encode(), digest_size=4).digest(), "little")
    boundary = steps[0] if len(steps) > 1 else total // 2
    return sorted({boundary, 1 + seed % (total - 1), 1 + (seed // 1000) % (total - 1)})


@pytest.mark.parametrize("recipe", RECIPES)
def test_resumes_to_the_same_bits(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    result = train(whole, recipe, budget=f"{BUDGET}step", settings="quick")
    plan = resolve_job(_job(recipe), splits_of(_job(recipe)))
    steps = [phase.steps for phase in plan.phases]
    assert all(n is not None and n > 0 for n in steps)
    assert result["steps"] == sum(steps) == BUDGET
    for kill in _kills(recipe, steps):
        folder = tmp_path / f"killed-{kill}"
        undo = killed_at(kill, monkeypatch)
        with pytest.raises(Killed):
            train(folder, recipe, budget=f"{BUDGET}step", settings="quick")
        undo()
        finish(folder)
        same_run(whole, folder)
    model = augend.load(whole)
    with torch.no_grad():
        out = model(load_data(SMALL).test.pixels[:5])
    assert out.shape == (5, 10) and bool(torch.isfinite(out).all())


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_term_alone_moves_what_it_should(recipe: str) -> None:
    job = _job(recipe)
    splits = splits_of(job)
    plan = resolve_job(job, splits)
    for spec in plan.phases:
        networks = build_networks(plan, splits, seed=0)
        scene = stage(spec, networks, splits, seed=0)
        draws = Draws(0, spec.name, 0, spec.rows)
        scene.phase.draws = draws
        batch = scene.batch(scene.order.next(0, spec.rows, scene.sources(0.0), 0.0), draws, 0.0)
        reached: set[str] = set()
        for term in scene.phase(batch):
            for parameter in scene.moving.values():
                parameter.grad = None
            scene.phase(batch)[term].backward()
            touched = {n for n, p in scene.moving.items() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
            assert touched, f"{spec.name}: term {term} moves nothing"
            reached |= touched
        assert reached == set(scene.moving), f"{spec.name}: {set(scene.moving) - reached} get no gradient from any term"


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    result = train(tmp_path / "run", "plain", budget="5step")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert finish(tmp_path / "run") == result
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert RunFolder(tmp_path / "run").done
