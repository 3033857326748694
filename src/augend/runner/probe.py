"""Precision and memory format `auto`: real steps of this procedure are timed in every mode, and the choice is remembered."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch

from augend.checkpoint import write_json
from augend.contract import Picks
from augend.data.named import cache_folder
from augend.data.pictures import Split
from augend.randomness import Draws
from augend.recipes.plan import Plan
from augend.runner.assembly import Scene, build_networks, stage
from augend.runner.hardware import Hardware, describe, fastest
from augend.runner.optimizer import build_optimizer
from augend.runner.sight import unasked

__all__ = ["choose", "stepper", "trial_of"]

PLACES = 8  # of a phase, at which its steps are timed in turn


def choose(
    plan: Plan, splits: Mapping[str, Split], base: Hardware, *, remember: bool = True
) -> tuple[Hardware, list[dict[str, Any]]]:
    """The fastest mode of this machine for the plan's most expensive kind of phase (the one that moves most weights).

    Args:
        base: device and threads; its precision and format are what is chosen.
        remember: take an earlier choice for the same networks, shape and machine from the cache folder, or leave one there.

    Returns:
        The choice, and what was timed (empty when it was remembered).
    """
    key = _key(plan, splits, base)
    path = cache_folder() / "modes" / f"{key}.json"
    if remember and path.is_file():
        try:
            return dataclasses.replace(base, **json.loads(path.read_text(encoding="utf-8"))), []
        except (ValueError, TypeError):
            path.unlink(missing_ok=True)
    torch.set_num_threads(base.threads)
    chosen, rows = fastest(trial_of(plan, splits), base)
    if remember:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"precision": chosen.precision, "channels_last": chosen.channels_last})
    return chosen, rows


def _key(plan: Plan, splits: Mapping[str, Split], base: Hardware) -> str:
    networks = {name: (net.model.word, dict(net.model.options)) for name, net in plan.networks.items()}
    phase = plan.phases[0]
    about = [networks, splits["main"].shape, phase.rows, len(phase.views), base.accelerator, base.threads, describe()]
    return hashlib.blake2b(json.dumps(about, default=str, sort_keys=True).encode(), digest_size=12).hexdigest()


def trial_of(plan: Plan, splits: Mapping[str, Split]) -> Callable[[Hardware], Callable[[], float]]:
    """Hardware -> a function that takes one training step of the plan's most expensive phase and returns its loss."""
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def trial(hardware: Hardware) -> Callable[[], float]:
        on = {role: split.to(device if hardware.accelerator == "cuda" else "cpu") for role, split in splits.items()}
        networks = build_networks(plan, on, seed=0).to(on["main"].train.labels.device)
        if hardware.channels_last:
            networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def moved(number: int) -> int:
            return sum(p.numel() for p in networks.only(list(plan.phases[number].train)).values())

        spec = plan.phases[max(range(len(plan.phases)), key=moved)]
        scene = stage(spec, networks, on, seed=0, channels_last=hardware.channels_last)
        unasked(scene)
        return stepper(scene, hardware)

    return trial


def stepper(
    scene: Scene, hardware: Hardware, choose: Callable[[int, Draws, float], Picks] | None = None
) -> Callable[[], float]:
    """A function that takes one training step of a scene with an optimizer of its own, and returns its loss.

    Args:
        choose: what comes next, instead of the scene's order.
    """
    spec = scene.spec
    optimizer = build_optimizer(spec.optimizer, scene.moving)
    if scene.sight is not None:
        scene.sight.ready(optimizer, hardware.autocast)
    count = iter(range(1 << 30))

    def step() -> float:
        number = next(count)
        draws = Draws(0, spec.name, number, spec.rows)
        progress = number % PLACES / PLACES  # what follows the phase's progress costs what it does on the whole
        picks = (choose or scene.picks)(number, draws, progress)
        if picks.taken is not None:
            loss = sum(scene.adopt(picks.taken).values())
            assert isinstance(loss, torch.Tensor)
        else:
            batch = scene.batch(picks, draws, progress)
            scene.phase.draws = draws
            with hardware.autocast():
                terms = scene.phase(batch)
            loss = sum(terms.values())
            assert isinstance(loss, torch.Tensor)
            loss.backward()  # type: ignore[no-untyped-call]
        if choose is None:
            scene.tell(picks)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step
