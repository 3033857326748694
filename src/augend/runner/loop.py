"""Runs a recipe: one page. For each phase: which examples, what they become, what is minimised, which weights move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from augend.contract import AugendError
from augend.data.pictures import Split
from augend.randomness import Draws, seed_default_generators
from augend.recipes.plan import Plan
from augend.recipes.schedules import rate
from augend.runner.assembly import Scene, missing_gradients, stage, trains
from augend.runner.augmenters import bind_residuals, score_augmenters, standardise, work_in
from augend.runner.banks import Filling, fill_banks, worth_caching
from augend.runner.charge import StepCost, filling_flops, step_cost
from augend.runner.fitting import fit_phase
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.keeper import Keeper, Listener, silent
from augend.runner.lending import Lending
from augend.runner.outcome import write_outcome
from augend.runner.outputs import Route

__all__ = ["run"]


def run(
    plan: Plan,
    splits: Mapping[str, Split],
    folder: RunFolder,
    *,
    seed: int,
    hardware: Hardware,
    listen: Listener = silent,
) -> dict[str, Any]:
    """Train by a resolved plan, from the folder's newest checkpoint or from the start, and write what came out.

    Args:
        plan: what to do; steps that depend on a plateau are resolved as their phase begins.
        splits: role -> data.
        folder: created and locked by the caller.
        seed: of everything that is drawn.
        listen: hears the run's events.

    Returns:
        The result, as in ``result.json``: accuracies, steps, cost.
    """
    fabric = hardware.fabric()
    splits = {role: split.to(fabric.device) for role, split in splits.items()}
    keeper = Keeper(plan, splits, folder, seed=seed, hardware=hardware, fabric=fabric, listen=listen)
    keeper.restore()
    with keeper.stop.listening():
        for number in range(keeper.at.phase, len(plan.phases)):
            spec = keeper.begin(number)
            assert spec.steps is not None
            scene = stage(spec, keeper.networks, splits, seed=seed, channels_last=hardware.channels_last)
            bind_residuals(scene, keeper.at.augmenters)
            scene.lap = keeper.ledger.lap
            if spec.fit is not None:
                fit_phase(scene, keeper)
                continue
            optimizer = keeper.equip(scene)
            _open(scene, optimizer, hardware, fabric)
            _cache(scene, keeper, spec.steps)
            standardise(scene)
            keeper.first_look()
            forward = _wrapped(scene, fabric)
            backward = fabric.backward if fabric.world_size > 1 else torch.Tensor.backward
            cost: StepCost | None = None
            segment_steps = _segment_steps(keeper.plan, spec.segment)
            for step in range(keeper.at.step, spec.steps):
                progress = step / spec.steps
                draws = Draws(seed, spec.name, step, spec.rows)
                factor = keeper.rate * rate(spec.schedule, keeper.at.segment_step, segment_steps)
                for group in optimizer.param_groups:  # before the order looks: what it tries is the coming step
                    group["lr"] = factor * group["initial_lr"]
                picks = scene.picks(step, draws, progress)
                keeper.ledger.lap("order")
                if picks.taken is None or cost is None:
                    batch = scene.batch(picks, _local(draws, fabric), progress)
                if cost is None:
                    cost = step_cost(scene, batch, progress)
                    keeper.ledger.restart()  # counting is not training
                if picks.taken is None:
                    seed_default_generators(draws.child(f"model/{fabric.global_rank}").key)
                    scene.phase.draws = draws
                    with hardware.autocast():
                        terms = forward(batch)
                    backward(_sum(terms))
                else:
                    terms = scene.adopt(picks.taken)
                if step == keeper.first_step:
                    _check_gradients(scene)
                if spec.clip is not None:
                    torch.nn.utils.clip_grad_norm_(list(scene.moving.values()), spec.clip)
                scene.tell(picks)
                optimizer.step()
                optimizer.zero_grad()
                keeper.average.update()
                keeper.ledger.lap("step")
                keeper.ledger.charge(
                    rows=spec.rows, pictures=cost.pictures(picks), **cost.charged(scene, picks, progress)
                )
                if keeper.after(terms):
                    break
            work_in(scene)
            score_augmenters(scene, keeper)
            keeper.finish()
        keeper.end()
        result = write_outcome(keeper)
    listen("done", result)
    return result


def _segment_steps(plan: Plan, segment: int) -> int:
    """Steps of an optimizer's whole life, as far as known (a plateau's rate is constant or keeps its own state)."""
    return max(1, sum(phase.steps or 0 for phase in plan.phases if phase.segment == segment))


def _open(scene: Scene, optimizer: Optimizer, hardware: Hardware, fabric: Any) -> None:
    """Let the order see, where it asks; refuse what it cannot hear on several ranks."""
    if scene.sight is not None:
        scene.sight.ready(optimizer, hardware.autocast, fabric)
    if fabric.world_size > 1 and "loss" in scene.order.hears:
        raise AugendError(
            f"phase {scene.spec.name!r}: order {scene.spec.order.word} hears the loss of every row, and each rank knows its "
            "own rows alone; use one rank"
        )


def _local(draws: Draws, fabric: Any) -> Draws:
    """The draws of this rank's rows of the batch."""
    if fabric.world_size == 1:
        return draws
    return draws.rows(draws.keys.tensor_split(fabric.world_size)[fabric.global_rank])


def _wrapped(scene: Scene, fabric: Any) -> nn.Module:
    """The phase, wrapped anew for its own frozen set on several ranks; as it is on one (the wrapper costs 0.1 ms)."""
    if fabric.world_size == 1:
        return scene.phase
    scene.phase.ranks = fabric.world_size
    coupled = scene.phase.coupled
    if coupled and scene.spec.rows % fabric.world_size:
        raise AugendError(
            f"phase {scene.spec.name!r}: {coupled[0]} needs rows of other ranks, so {scene.spec.rows} rows must divide into "
            f"{fabric.world_size} ranks"
        )
    scene.phase.gather = lambda t: fabric.all_gather(t, sync_grads=True).flatten(0, 1)
    wrapped: nn.Module = fabric.setup_module(scene.phase, move_to_device=False)
    return wrapped


def _sum(terms: Mapping[str, Tensor]) -> Tensor:
    values = list(terms.values())
    return values[0] if len(values) == 1 else torch.stack(values).sum()


def _check_gradients(scene: Scene) -> None:
    missing = missing_gradients(scene.moving)
    if missing:
        raise AugendError(
            f"phase {scene.spec.name!r}: train is {trains(scene.spec)}, but {len(missing)} of these weights get no gradient "
            f"from its terms ({', '.join(scene.phase.terms)}), {missing[0]} among them; narrow `train` or add a term that "
            "reaches them"
        )


def _cache(scene: Scene, keeper: Keeper, steps: int) -> None:
    """Compute the frozen part's outputs once, where that is exact and pays."""
    lending = Lending.of(keeper)
    chosen = worth_caching(scene, steps, shared=lending is not None)
    if not chosen:
        return

    def forward(route: Route, pixels: Tensor) -> dict[str, Tensor]:
        with keeper.hardware.autocast():
            return keeper.networks.stages(route.name)(pixels, route.frozen_wants, None)  # type: ignore[no-any-return]

    def after(done: int, total: int) -> None:
        keeper.listen("cache", {"phase": scene.spec.name, "done": done, "total": total})
        if keeper.stopping():
            keeper.ledger.restart()  # it is filled again: seconds lost to a stop are not charged
            keeper.pause()

    filling = Filling(lending)
    rows = fill_banks(scene, chosen, seed=keeper.seed, forward=forward, after=after, filling=filling)
    if keeper.at.step:
        keeper.ledger.restart()  # filled again after a kill
        return
    filling.forward = sum(-(-sum(by_view.values()) // scene.spec.rows) for by_view in rows.values())
    filling.flops = sum(filling_flops(scene, route, rows[route.name]) for route in chosen)
    filling.charge(keeper.ledger)
