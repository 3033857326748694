"""What every built-in recipe gets by being one: trains, moves what it should, resumes to the same bits, exports."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
import torch

import augend
from augend.data import load as load_data
from augend.randomness import Draws
from augend.recipes import Plan, known, resolved_words
from augend.runner.assembly import build_networks, stage
from augend.runner.folder import RunFolder
from augend.runner.job import Job, resolve_job
from runs import SMALL, Killed, finish, killed_at, killed_in, required, same_run, splits_of, train

RECIPES = sorted(recipe.name for recipe in known())
CONTROLS = {recipe.name for recipe in known() if recipe.when.startswith(("control of", "ablation of"))}
BUDGET = 24


def _model(recipe: str) -> str | None:
    """The data's own network, or one that takes pictures of any size where a phase changes it."""
    return "small" if any("size" in phase for phase in resolved_words(recipe)["phases"]) else None


def _job(recipe: str) -> Job:
    budget = f"{BUDGET}step"
    return Job(
        data=SMALL, recipe=recipe, model=_model(recipe), budget=budget, settings="quick", params=required(recipe)
    )


def _kills(recipe: str, plan: Plan) -> list[tuple[str, int]]:
    """Three steps: a phase boundary, and two by a hash of the name. Where a phase is fitted, three places in it too.

    Of controls, which share their phases with what they control, one step by a hash of the name.
    """
    steps = [phase.steps or 0 for phase in plan.phases if phase.fit is None]
    total = sum(steps)
    seed = int.from_bytes(hashlib.blake2b(recipe.encode(), digest_size=4).digest(), "little")
    fitted = {phase.fit.word for phase in plan.phases if phase.fit is not None}
    kills = [("embedding", 1 + seed % 4), ("fitted", 1)] if fitted else []
    kills += [("fitting", 1 + seed % 6)] if "logistic" in fitted else []
    if not steps:
        return kills
    boundary = steps[0] if len(steps) > 1 else total // 2
    found = sorted({boundary, 1 + seed % (total - 1), 1 + (seed // 1000) % (total - 1)})
    if recipe in CONTROLS:
        found = [1 + seed % (total - 1)]
    return [*kills, *(("step", step) for step in found)]


@pytest.mark.parametrize("recipe", RECIPES)
def test_resumes_to_the_same_bits(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    how = {"budget": f"{BUDGET}step", "settings": "quick", "model": _model(recipe), "params": required(recipe)}
    result = train(whole, recipe, **how)
    plan = resolve_job(_job(recipe), splits_of(_job(recipe)))
    steps = [phase.steps or 0 for phase in plan.phases]
    assert all((n > 0) == (phase.fit is None) for n, phase in zip(steps, plan.phases, strict=True))
    assert result["steps"] == sum(steps) == (BUDGET if any(steps) else 0)
    for place, kill in _kills(recipe, plan):
        folder = tmp_path / f"killed-{place}-{kill}"
        undo = killed_at(kill, monkeypatch) if place == "step" else killed_in(place, kill, monkeypatch)
        with pytest.raises(Killed):
            train(folder, recipe, **how)
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
        if scene.sight is not None:
            optimizer = torch.optim.SGD(scene.moving.values(), lr=0.1)
            scene.sight.ready(optimizer, contextlib.nullcontext)
        batch = scene.batch(scene.picks(0, draws, 0.0), draws, 0.0)
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
