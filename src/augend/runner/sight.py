"""How an order sees the network that is being trained: the runner's probe. What it computes is counted, for the ledger."""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from augend.address import Address
from augend.contract import AugendError, Batch, Component, Losses, Order, Picks
from augend.data.pictures import Pictures, Split
from augend.evaluate.predict import logits, losses_and_entropies
from augend.names import lookup
from augend.order.choosing import Scored
from augend.order.given import Given
from augend.order.scoring import Table
from augend.order.trial import evaluating
from augend.pixels import to_float
from augend.randomness import Draws, seed_default_generators
from augend.recipes.durations import sources_of
from augend.recipes.plan import PhasePlan, Plan, TermPlan
from augend.runner.outputs import Phase

if TYPE_CHECKING:
    from augend.runner.assembly import Scene

__all__ = ["Looked", "Sight", "check_orders", "order_of", "read_scores", "teacher_of", "unasked"]


@dataclass
class Looked:
    """What was computed for scores: rows through the phase's forward, through its backward, held-out rows, rows that were
    made (fetched and augmented), and rows that a teacher was asked about."""

    forward: int = 0
    backward: int = 0
    held: int = 0
    made: int = 0
    taught: int = 0


class _HeldBatch(Batch):
    """Held-out pictures: another phase's, with the same networks."""


class Sight:
    """A probe on a scene. `ready` and `at` are the runner's to call: once a phase, and before every step.

    Args:
        scene: of the phase.
        held: the pictures held out under the name `external`, if any.
    """

    def __init__(self, scene: Scene, held: Pictures | None) -> None:
        self._scene, self._pictures = scene, held
        self.held = 0 if held is None else len(held)
        self.model: nn.Module = scene.phase
        self.clip = scene.spec.clip
        self.rank, self.ranks = 0, 1
        self.looked = Looked()
        self._autocast: Callable[[], AbstractContextManager[object]] | None = None
        self._sum: Callable[[Tensor], Tensor] = lambda scores: scores

    def ready(
        self, optimizer: Optimizer, autocast: Callable[[], AbstractContextManager[object]], fabric: Any | None = None
    ) -> None:
        """The optimizer whose steps are tried, the precision they are taken in, and the other ranks."""
        self.optimizer, self._autocast = optimizer, autocast
        if fabric is not None and fabric.world_size > 1:
            coupled = self._scene.phase.coupled
            if coupled:
                raise AugendError(
                    f"phase {self._scene.spec.name!r}: {coupled[0]} compares rows of all ranks, and each candidate is scored "
                    "on one; use one rank, or order: shuffle"
                )
            self.rank, self.ranks = fabric.global_rank, fabric.world_size
            self._sum = lambda scores: fabric.all_reduce(scores, reduce_op="sum")

    def at(self, draws: Draws, progress: float) -> None:
        """The coming step: its random numbers, and how far the phase has come."""
        self._draws, self._progress, self.looked = draws, progress, Looked()
        if self.ranks > 1:
            self._agree()

    def _agree(self) -> None:
        """Every rank's running statistics are those of rank 0, so that a score is the same whoever computes it.

        Each has seen its own rows in the step before; the coming step's forward would give them rank 0's anyway.
        """
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for buffer in self.model.buffers():
            by_type.setdefault(buffer.dtype, []).append(buffer)
        for own in by_type.values():
            flat = torch.cat([buffer.flatten() for buffer in own])
            torch.distributed.broadcast(flat, 0)
            for buffer, part in zip(own, torch.split(flat, [buffer.numel() for buffer in own]), strict=True):
                buffer.copy_(part.view_as(buffer))

    def batch(self, picks: Picks, *, redrawn: bool = False) -> Batch:
        """The whole batch, as the coming step would see it."""
        scene = self._scene
        self.looked.made += len(picks.index)
        draws = (self._draws.child("redrawn") if redrawn else self._draws).rows(torch.arange(len(picks.index)))
        lap, scene.lap = scene.lap, lambda part: None  # what is done for scores is charged to the order
        try:
            return scene.batch(picks, draws, self._progress)
        finally:
            scene.lap = lap

    def external(self, index: Tensor) -> Batch:
        """Held-out pictures, plain."""
        assert self._pictures is not None
        labels = self._pictures.labels
        pixels, _ = self._pictures.fetch(index[:, None].to(labels.device))
        return _HeldBatch({"x": self._scene.laid_out(to_float(pixels[:, 0]))}, labels[index.to(labels.device)], index)

    @functools.cached_property
    def outside(self) -> Phase:
        """The phase that sees held-out pictures: cross-entropy of the network that learns from labels."""
        scene = self._scene
        network = _answering(scene.spec)
        assert network is not None  # see check_orders
        term = TermPlan("held", Component("cross-entropy", {}), 1.0, (Address(network, "", "x"),))
        spec = dataclasses.replace(scene.spec, views={"x": ()}, terms=(term,))
        made = lookup("objective", "cross-entropy")(reduction="none")
        return Phase(scene.phase.networks, spec, {"held": made}, classes=scene.phase.classes)

    def loss(self, state: Mapping[str, Tensor] | None, batch: Batch) -> Losses:
        """Of a whole batch; dropout draws what the coming step would draw."""
        if self._autocast is None:
            raise AugendError(
                f"{self._scene.spec.name}: order {self._scene.spec.order.word} scores by a network that is being trained, "
                "and nothing is trained here; use order: shuffle"
            )
        outside = isinstance(batch, _HeldBatch)
        phase = self.outside if outside else self._scene.phase
        rows = len(batch.targets)
        if outside:
            self.looked.held += rows
        else:
            self.looked.forward += rows
            self.looked.backward += rows * torch.is_grad_enabled()
        seed_default_generators(self._draws.child(f"model/{self.rank}").key)
        phase.draws = self._draws
        ranks, gather = phase.ranks, phase.gather
        phase.ranks, phase.gather = 1, None  # the whole batch is here
        try:
            with self._autocast():
                terms = phase(batch) if state is None else torch.func.functional_call(phase, dict(state), (batch,))
        finally:
            phase.ranks, phase.gather = ranks, gather
        return Losses(terms, phase.row_loss)

    def gather(self, scores: Tensor) -> Tensor:
        """Every rank's scores, and what every rank has looked at."""
        if self.ranks == 1:
            return scores
        device = self._scene.pictures.labels.device  # ranks on GPUs exchange what lies there
        counts = torch.tensor(dataclasses.astuple(self.looked), dtype=torch.float64)
        whole = self._sum(torch.cat([scores.to(device).double(), counts.to(device)]))
        self.looked = Looked(*(int(value) for value in whole[len(scores) :]))
        return whole[: len(scores)].to(scores.dtype)

    def table(self, file: str, column: str) -> Tensor:
        """A file's scores, by the pictures' ids."""
        return read_scores(file, self._scene.pictures, column)

    def taught(self, network: str, column: str) -> Tensor:
        """A network's answers for the training pictures, plain and in evaluation mode; ranks share the pictures."""
        size = len(self._scene.pictures)
        mine = torch.arange(size).tensor_split(self.ranks)[self.rank]
        values = torch.zeros(size)
        values[mine] = self.asked(network, column, mine)
        values = self.gather(values).float()  # first: a rank that gives up alone leaves the others waiting
        wrong = int((~values.isfinite()).sum())
        if wrong:
            raise AugendError(
                f"phase {self._scene.spec.name!r}: teacher {network!r} answers {wrong} of {size} pictures with no number; it "
                "has diverged (a smaller rate, or clip, helps)"
            )
        return values

    def asked(self, network: str, column: str, index: Tensor) -> Tensor:
        """float32 ``(n,)``, on the CPU: what a network says of training pictures by their numbers."""
        scene = self._scene
        pictures = scene.pictures if len(index) == len(scene.pictures) else scene.pictures.take(index)
        self.looked.taught += len(pictures)
        assert self._autocast is not None
        with evaluating(self.model):
            answers = logits(
                scene.phase.networks, network, pictures, channels_last=scene.channels_last, autocast=self._autocast
            )
        return losses_and_entropies(answers, pictures.labels)[column].cpu()


def order_of(spec: PhasePlan, pictures: Pictures) -> Order:
    """The order of a phase, not started; one from a file is told the names of the pictures that it is about."""
    order: Order = lookup("order", spec.order.word)(**spec.order.options)
    if isinstance(order, Given):
        order.ids = pictures.ids
    return order


def reads_files(plan: Plan) -> bool:
    """Whether an order of this plan reads a file of scores or batches, which may fit the pictures of one repeat only."""
    orders = (lookup("order", phase.order.word)(**phase.order.options) for phase in plan.phases)
    return any(isinstance(o, Given) or file_of(o) is not None for o in orders)


def file_of(order: Order) -> Table | None:
    """The table of scores that an order reads from a file."""
    table = order.table if isinstance(order, Scored) else None
    return table if table is not None and table.file is not None else None


def teacher_of(order: object) -> str | None:
    """The network that an order asks for scores, once, when its phase begins."""
    return order.table.teacher if isinstance(order, Scored) and order.table is not None else None


def unasked(scene: Scene) -> None:
    """Let zeros stand for a teacher's answers about all pictures, where steps are only tried or timed."""
    if teacher_of(scene.order) is not None:
        assert isinstance(scene.order, Scored) and scene.order.table is not None
        scene.order.table.values = torch.zeros(len(scene.pictures))


def check_orders(plan: Plan, splits: Mapping[str, Split]) -> None:
    """Refuse, before anything is written, files that give no order or no scores of these pictures."""
    for phase in plan.phases:
        pictures = splits[phase.data].train
        order = order_of(phase, pictures)
        if isinstance(order, Given):
            order.start(len(pictures), Draws(0, "check"))
            sources = sources_of(phase)
            for step in range(phase.steps or 0):
                order.next(step, phase.rows, sources(step / (phase.steps or 1)))
        if (table := file_of(order)) is not None:
            read_scores(str(table.file), pictures, table.column)
        if isinstance(order, Scored) and order.external and _answering(phase) is None:
            raise AugendError(
                f"phase {phase.name!r}, order {phase.order.word}: against: external scores by cross-entropy with labels, and "
                "the phase has none; use against: same"
            )
        if isinstance(order, Scored) and order.external and "external" not in splits[phase.data].held:
            raise AugendError(
                f"phase {phase.name!r}, order {phase.order.word}: against: external scores on held-out pictures, and none "
                "are held out; write hold: {external: 10%} in the recipe, or against: same"
            )


def _answering(spec: PhasePlan) -> str | None:
    """The first network whose answers are compared with labels."""
    answers = (term.of[0] for term in spec.terms if term.component.word == "cross-entropy")
    return next((address.network for address in answers if not address.tensor), None)


def read_scores(file: str, pictures: Pictures, column: str = "score") -> Tensor:
    """float32 ``(n,)``: one score a picture, from a CSV file with the columns id and `column`.

    Raises:
        AugendError: there is no such file, it lacks a column or a picture, or a score is no number.
    """
    path = Path(file)
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            found = {row["id"]: float(row[column]) for row in csv.DictReader(lines)}
    except FileNotFoundError:
        raise AugendError(
            f"scores {path}: there is no such file; write one with: augend evaluate RUN --scores {shlex.quote(str(path))}"
        ) from None
    except (KeyError, ValueError, TypeError, OSError, UnicodeDecodeError) as error:
        raise AugendError(
            f"scores {path}: is no table with the columns id and {column} ({type(error).__name__}: {error}); write one with: "
            f"augend evaluate RUN --scores {shlex.quote(str(path))}"
        ) from None
    missing = [one for one in pictures.ids if one not in found]
    if missing:
        raise AugendError(
            f"scores {path}: {len(missing)} of {len(pictures.ids)} training pictures have no score, {missing[0]} among them; "
            "write the file from a run on the same pictures, for all of them"
        )
    wrong = [one for one in pictures.ids if not math.isfinite(found[one])]
    if wrong:
        raise AugendError(
            f"scores {path}: the score of {wrong[0]} is {found[wrong[0]]} ({len(wrong)} such); a model that diverged is no "
            "teacher"
        )
    return torch.tensor([found[one] for one in pictures.ids])
