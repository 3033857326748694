"""Every order of an epoch from one of perfect ordering's starts, judged and kept in a file; several starts side by side.

A start needs nothing but the copy it begins from, so starts of an epoch go to processes of equally many threads: a start
comes to the same bits wherever it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augend.checkpoint import read, write
from augend.contract import AugendError
from augend.order.every import Copies, every_order, renew_statistics
from augend.randomness import Draws, stream_key
from augend.recipes.schema import Words
from augend.study.processes import WORTH, side_by_side
from augend.study.windows import WindowJudge

__all__ = ["MEAN", "STD", "Pieces", "Size", "Starts", "again", "batches_at", "cut", "load", "network"]

PAD = 3
MEAN, STD = 0.1307, 0.3081
TRIED = 4  # batches, to find how many copies go side by side
AGAIN = 25  # of a start's orders whose held-out losses are computed beside its best and its worst

Task = tuple[int, int, Copies]  # epoch, number of the start, the copy it begins from


class Size(Words):
    """How large a run is: `batches` of `rows` pictures, for `epochs`, from `kept` clusters; judged on `judged` pictures."""

    about: str
    batches: int
    rows: int
    epochs: int
    kept: int
    judged: int


@dataclass
class Pieces:
    """Normalised pictures: to train on, to judge by, and held out; and the names of the first."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    held: tuple[Tensor, Tensor]
    names: tuple[str, ...]


def network(seed: int) -> nn.Module:
    """The paper's network: 2,274 weights, whatever the pictures' size the mean over all places."""
    torch_state = torch.get_rng_state()
    torch.manual_seed(stream_key(seed, "perfect", "network") & 0x7FFFFFFF)
    made = nn.Sequential(
        nn.Conv2d(1, 16, 2), nn.ReLU(), nn.BatchNorm2d(16), nn.Conv2d(16, 32, 2), nn.ReLU(), nn.BatchNorm2d(32),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2),
    )  # fmt: skip
    torch.set_rng_state(torch_state)
    return made


def batches_at(
    train: tuple[Tensor, Tensor], size: Size, seed: int, epoch: int
) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Position in the epoch -> all batches as they are seen there: cut once an epoch, cropped by the position."""
    draws, order = Draws(seed, "perfect/epoch", epoch), cut(size, seed, epoch)
    padded = torch.nn.functional.pad(train[0], [PAD] * 4, value=-MEAN / STD)

    def at(position: int) -> tuple[Tensor, Tensor]:
        moves = draws.child(f"position/{position}").rows(torch.arange(size.rows)).integers(2 * PAD + 1, 2).tolist()
        side = train[0].shape[-1]
        rows = [padded[order[:, row], :, a : a + side, b : b + side] for row, (a, b) in enumerate(moves)]
        return torch.stack(rows, 1), train[1][order]

    return at


def cut(size: Size, seed: int, epoch: int) -> Tensor:
    """int64 ``(batches, rows)``: how an epoch's pictures are cut."""
    count = size.batches * size.rows
    return Draws(seed, "perfect/epoch", epoch).permutation(count)[0].view(size.batches, size.rows)


def again(seed: int, epoch: int, number: int, orders: int) -> Tensor:
    """int64: which of a start's orders are judged on held-out pictures whatever their test loss is."""
    return Draws(seed, f"perfect/held/{number}", epoch).permutation(orders)[0][:AGAIN]


@dataclass
class Starts:
    """Tries starts, and keeps what they came to in ``orders/`` of a run's folder.

    Args:
        optimizer: of torch's SGD.
        chunk: copies side by side (`chunk_of`): another would change the last bits of a run that goes on.
        workers: processes side by side.
        threads: of each process.
    """

    optimizer: dict[str, Any]
    size: Size
    seed: int
    pieces: Pieces
    out: Path
    chunk: int | None = None
    workers: int = 1
    threads: int = 1
    _judges: tuple[WindowJudge, WindowJudge] | None = field(default=None, repr=False)
    _slowest: float = 0.0

    def file(self, epoch: int, number: int) -> Path:
        """Where a start's orders are kept; it is whole or not there."""
        return self.out / "orders" / f"epoch-{epoch + 1:02d}-start-{number:02d}.augend"

    def chunk_of(self, model: nn.Module) -> int:
        """How many copies side by side are the fastest, found on a small tree."""
        batches = batches_at(self.pieces.train, self.size, self.seed, 0)
        return every_order(model, self._made, batches, min(self.size.batches, TRIED)).chunk

    def each(self, tasks: Sequence[Task]) -> Iterator[int]:
        """Do starts, and say the number of each that is done."""
        left = list(tasks)
        while left:
            if self.workers > 1 and len(left) > 1 and self._slowest * len(left) > WORTH:
                alone = replace(self, workers=1, _judges=None)  # judges are made by each process itself
                yield from side_by_side(alone.tried, left, self.out, workers=self.workers, threads=self.threads)
                return
            yield self.one(left.pop(0))

    def one(self, task: Task) -> int:
        """Try every order from a start, judge them, and keep them."""
        epoch, number, copy = task
        if self._judges is None:
            self._judges = WindowJudge(*self.pieces.test), WindowJudge(*self.pieces.held)
        judge, other = self._judges
        begin = time.perf_counter()
        batches = batches_at(self.pieces.train, self.size, self.seed, epoch)
        found = every_order(network(self.seed), self._made, batches, self.size.batches, start=copy, chunk=self.chunk)
        losses, right = judge(found.copies)
        seconds = time.perf_counter() - begin
        self._slowest = max(self._slowest, seconds)
        ranked = losses.argsort()
        drawn = again(self.seed, epoch, number, len(losses))
        some = torch.tensor(sorted({*ranked[[0, -1]].tolist(), *drawn.tolist()}))  # all of them would double the time
        taken = found.copies.take(some)
        renewed = other(renew_statistics(network(self.seed), taken, self.pieces.train[0]))[0]
        values = {"losses": losses, "right": right, "held_of": some, "held": other(taken)[0], "renewed": renewed}
        about = {"seconds": seconds, "steps": found.steps, "chunk": found.chunk}
        _save(self.file(epoch, number), values, found.copies, about)
        return number

    def tried(self, task: Task) -> Iterator[int]:
        """`one`, for `side_by_side`."""
        yield self.one(task)

    def known(self, seconds: float) -> None:
        """A start took so long, in a process before this one."""
        self._slowest = max(self._slowest, seconds)

    def _made(self, weights: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(weights, **self.optimizer)


def _save(file: Path, values: Mapping[str, Tensor], copies: Copies, about: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    state = {f"state/{name}//{key}": value for name, own in copies.state.items() for key, value in own.items()}
    kept = {
        **{f"value/{name}": value for name, value in values.items()},
        **{f"weight/{name}": value for name, value in copies.weights.items()},
        **{f"buffer/{name}": value for name, value in copies.buffers.items()},
        **state,
    }
    write(file, kept, dict(about))


def load(file: Path) -> tuple[dict[str, Tensor], Copies, float]:
    """What a start came to: values, the copies, seconds.

    The values: ``losses`` and ``right`` of every order on test pictures; of the orders ``held_of``, ``held``, the loss on
    held-out ones, and ``renewed``, the same where batch norm's statistics are those of the training pictures.
    """
    tensors, about = read(file)
    if "value/renewed" not in tensors:
        raise AugendError(f"{file}: is of an earlier version; give another --out, or remove the folder")

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{prefix}/")}

    state: dict[str, dict[str, Tensor]] = {}
    for full, value in under("state").items():
        name, _, key = full.partition("//")
        state.setdefault(name, {})[key] = value
    return under("value"), Copies(under("weight"), under("buffer"), state), float(about["seconds"])
