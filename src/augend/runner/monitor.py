"""Looking beside training: terms on one fixed batch of validation pictures, and norms of weights. It leaves no trace.

The networks are in eval mode and nothing is drawn from a generator that training uses; the ledger charges nothing.
(Figure 3 of the factoring paper follows an embedding loss through a phase that does not minimise it.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from augend.contract import AugendError, Batch
from augend.data.pictures import Split
from augend.randomness import Draws
from augend.recipes.plan import MonitorPlan
from augend.runner.assembly import Scene, stage
from augend.stages.networks import Networks

__all__ = ["Monitor"]


class Monitor:
    """Values of a plan's monitor. `look` leaves every weight frozen: the caller sets again what moves.

    Args:
        plan: what to look at, and how often.
        splits: role -> data, on the run's device; validation pictures are used.
        seed: of the one batch.
    """

    def __init__(
        self,
        plan: MonitorPlan,
        networks: Networks,
        splits: Mapping[str, Split],
        *,
        seed: int,
        channels_last: bool = False,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.every = plan.every
        self._plan, self._networks, self._splits, self._seed = plan, networks, splits, seed
        self._channels_last, self._autocast = channels_last, autocast
        self._staged: tuple[Scene, Batch, Draws] | None = None

    def due(self, global_step: int) -> bool:
        """Whether to look after this many steps of the run."""
        return global_step % self.every == 0

    def look(self) -> dict[str, float]:
        """Term -> its value, unweighted; ``norm of SLICE`` -> the sum of its tensors' L2 norms."""
        self._networks.only([])
        values: dict[str, float] = {}
        with torch.no_grad():
            if self._plan.phase.terms:
                scene, batch, draws = self._stage()
                scene.phase.draws = draws
                with self._autocast():
                    values |= {name: float(value) for name, value in scene.phase(batch).items()}
            for part in self._plan.norms:
                network = self._networks.stages(part.network)
                stages = part.covers(network.names, "monitor.norms")
                values[f"norm of {part}"] = float(
                    sum(p.double().norm() for stage_ in stages for p in network.parameters_of(stage_))
                )
        return values

    def _stage(self) -> tuple[Scene, Batch, Draws]:
        if self._staged is None:
            spec = self._plan.phase
            split = self._splits[spec.data]
            if len(split.valid) < spec.rows:
                raise AugendError(
                    f"monitor: {spec.rows} rows are asked for, but there are {len(split.valid)} validation pictures"
                )
            spec = replace(spec, terms=tuple(replace(term, weight=1.0) for term in spec.terms))
            held = {**self._splits, spec.data: replace(split, train=split.valid)}
            scene = stage(spec, self._networks, held, seed=self._seed, channels_last=self._channels_last)
            draws = Draws(self._seed, "monitor", 0, spec.rows)
            picks = scene.order.next(0, spec.rows, scene.sources(0.0), 0.0)
            self._staged = scene, scene.batch(picks, draws, 0.0), draws
        return self._staged
