"""What tells a good order from a bad one: every order of an epoch's batches, and what is seen of some while they are trained.

For several splits of pictures and several stages of training, all orders are judged on held-out pictures; a sample of them
is trained again and measured at every position (`augend.order.measure_orders`), and each measure is correlated, by ranks,
with the loss that its order ended in. (The future work on perfect ordering of training procedure augmentations.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator
from torch import Tensor, nn
from torch.nn import functional

from augend.checkpoint import write_json
from augend.contract import AugendError, Component, Saved
from augend.data.named import cifar10_pictures
from augend.names import lookup
from augend.order.every import Copies, every_order, judge_copies, renew_statistics
from augend.order.measures import MEASURES, measure_orders
from augend.order.trial import in_mode
from augend.randomness import Draws, stream_key
from augend.recipes.schema import Words, Written
from augend.study.evidence import read_json
from augend.study.processes import WORTH, side_by_side
from augend.study.running import cores
from augend.study.statistics import mean_of, said
from augend.study.whole import asked_scale, opened, rank_correlation, sizes_of, whole_table

__all__ = ["JUDGED", "Measured", "MeasuredSize", "load_measured", "run_measured"]

SCHEMA = 3  # from 3 on, with batch norm's statistics renewed as well
JUDGED = ("running", "renewed")  # batch norm's statistics: as training left them, and of all pictures trained on
TRIED = 3  # batches, to find how many copies go side by side
Progress = Callable[[Mapping[str, Any]], None]
Batch = tuple[Tensor, Tensor]


class MeasuredSize(Words):
    """How large a run is: `batches` of `rows` pictures; `splits` of the data; `starts`, epochs of shuffled training before
    the orders are tried; `sampled` of these are measured. `judged` pictures judge all; `held` others give gradients."""

    about: str
    batches: int
    rows: int
    splits: int
    starts: tuple[int, ...]
    judged: int
    held: int
    sampled: int


class Measured(Words):
    """A table of this kind, on some classes of CIFAR-10."""

    kind: Literal["order-measures"]
    title: str
    source: str
    classes: tuple[int, ...]
    model: Written
    optimizer: dict[str, Any]
    scales: Annotated[dict[str, MeasuredSize], BeforeValidator(sizes_of(MeasuredSize))]


def load_measured(name: str) -> Measured:
    """The table by name."""
    return whole_table(Measured, name)


def run_measured(
    name: str,
    scale: str | None,
    out: Path,
    *,
    seed: int,
    root: str | None,
    command: str,
    listen: Progress,
    workers: int | None = None,
) -> dict[str, Any]:
    """Run or continue it; what every start came to is kept as it is done.

    Args:
        listen: told of every start that is done.
        workers: processes side by side, a split each; None: one a core. They change no bit.

    Returns:
        What was found, as in ``measures.json``.
    """
    table = load_measured(name)
    asked = asked_scale(name, scale, table.scales)
    size = table.scales[asked]
    request = {"table": name, "scale": asked, "seed": seed}
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of every process of a run that begins here: so the number of processes changes no bit
    try:
        kept = opened(out, request, command)
        trained = _Splits(table, size, out, seed, kept.get("chunk"))
        found = _starts(trained, root, workers or cores(), kept["threads"], listen)
    except KeyboardInterrupt:  # files are whole or not there, so nothing need be waited for
        raise Saved(f"stopped; the starts that are done are kept. Continue with: {command}", 130) from None
    finally:
        torch.set_num_threads(before)
    whole = {
        "schema": SCHEMA,
        **request,
        "title": table.title,
        "source": table.source,
        "about": size.about,
        "size": size.model_dump(mode="json"),
        "command": command,
        "environment": kept["environment"],
        "starts": found,
        "correlations": {which: {name: _over_splits(found, which, name) for name in MEASURES} for which in JUDGED},
    }
    write_json(out / "measures.json", whole)
    return whole


class _Pieces:
    """A split's pictures, float32 and normalised: batches to train on, pictures to judge by, others for their gradient."""

    def __init__(self, table: Measured, size: MeasuredSize, seed: int, split: int, root: str | None) -> None:
        train, test = cifar10_pictures(root)
        wanted = torch.tensor(table.classes)
        count = size.batches * size.rows

        def drawn(labels: Tensor, stream: str) -> Tensor:
            of_them = torch.isin(labels, wanted).nonzero()[:, 0]
            return of_them[Draws(seed, f"measured/{stream}", split).permutation(len(of_them))[0]]

        chosen = drawn(train.labels, "train")[: count + size.held]
        shown = train.take(chosen[:count]).pixels[:].float() / 255
        mean, std = shown.mean((0, 2, 3), keepdim=True), shown.std((0, 2, 3), keepdim=True)

        def batch(pixels: Tensor, labels: Tensor) -> Batch:
            x = ((pixels.float() / 255 - mean) / std).to(memory_format=torch.channels_last)
            return x, (labels[:, None] == wanted).long().argmax(1)

        self.train = batch(train.take(chosen[:count]).pixels[:], train.labels[chosen[:count]])
        self.held = batch(train.take(chosen[count:]).pixels[:], train.labels[chosen[count:]])
        judged = drawn(test.labels, "test")[: size.judged]
        self.judged = batch(test.take(judged).pixels[:], test.labels[judged])


@dataclass
class _Splits:
    """Trains splits, and keeps what their starts came to in ``starts/`` of a run's folder.

    Args:
        chunk: copies side by side, where it has been found: another would change the last bits of a run that goes on.
    """

    table: Measured
    size: MeasuredSize
    out: Path
    seed: int
    chunk: int | None = None

    def file(self, split: int, start: int) -> Path:
        """Where a start's numbers are kept; it is whole or not there."""
        return self.out / "starts" / f"split-{split:02d}-epoch-{start:03d}.json"

    def missing(self, split: int) -> list[int]:
        """Its starts that are still to be done."""
        return [start for start in self.size.starts if not self.file(split, start).is_file()]

    def tried(self, task: tuple[int, _Pieces]) -> Iterator[Path]:
        """A split's starts one by one, as training goes on from each to the next: the file of each as it is written."""
        split, pieces = task
        table, size = self.table, self.size
        model = _network(table.model, len(table.classes), stream_key(self.seed, "measured/network", split))

        def make(weights: Iterable[Tensor]) -> torch.optim.Optimizer:
            return torch.optim.SGD(weights, **table.optimizer)

        optimizer, begun = make(model.parameters()), 0
        for start in self.missing(split):
            for epoch in range(begun, start):
                for batch in _cut(pieces.train, size, self.seed, split, epoch):
                    _train(model, optimizer, batch)
            begun, begin = start, time.perf_counter()
            batches = _cut(pieces.train, size, self.seed, split, start)
            here = Copies.of(model, optimizer)
            if self.chunk is None:
                self.chunk = _chunk(self.out, model, make, batches)
            values = _start(model, here, make, batches, size, pieces, len(table.classes), self.chunk)
            about = {"schema": SCHEMA, "split": split, "epoch": start, "seconds": time.perf_counter() - begin}
            write_json(self.file(split, start), {**about, **values})
            yield self.file(split, start)


def _starts(splits: _Splits, root: str | None, workers: int, threads: int, listen: Progress) -> list[dict[str, Any]]:
    """What every start of every split came to, in order; those that are done are read."""
    size, seed, out = splits.size, splits.seed, splits.out
    files = [splits.file(split, start) for split in range(size.splits) for start in size.starts]
    files[0].parent.mkdir(exist_ok=True)
    found = {file: _read(file) for file in files if file.is_file()}

    def take(file: Path) -> None:
        found[file] = _read(file)
        listen({"start": len(found), "starts": len(files), "seconds": found[file]["seconds"]})

    def tasks() -> Iterator[tuple[int, _Pieces]]:
        for split in range(size.splits):
            if splits.missing(split):
                yield split, _Pieces(splits.table, size, seed, split, root)

    def done() -> Iterator[Path]:
        for task in tasks():
            for file in splits.tried(task):
                yield file
                left = [split for split in range(size.splits) if splits.missing(split)]
                slow = found[file]["seconds"] * (len(files) - len(found)) > WORTH
                if workers > 1 and len(left) > 1 and slow:
                    yield from side_by_side(splits.tried, tasks(), out, workers=workers, threads=threads)
                    return

    for file in done():
        take(file)
    return [found[file] for file in files]


def _read(file: Path) -> dict[str, Any]:
    """A start that is done."""
    kept: dict[str, Any] = read_json(file)
    if kept.get("schema") != SCHEMA:
        raise AugendError(f"{file}: is of an earlier version; give another --out, or remove the folder")
    return kept


def _start(
    model: nn.Module,
    here: Copies,
    make: Callable[[Iterable[Tensor]], torch.optim.Optimizer],
    batches: list[Batch],
    size: MeasuredSize,
    pieces: _Pieces,
    classes: int,
    chunk: int,
) -> dict[str, Any]:
    """Every order from one start, momentum included, judged in two ways, and the measures of some."""
    every = every_order(model, make, batches, chunk=chunk, start=here)
    drawn = Draws(0, "measured/orders").permutation(len(every.orders))[0][: size.sampled].tolist()
    ways = every.copies, renew_statistics(model, every.copies, pieces.train[0])
    judged = {which: _judged(model, copies, pieces, drawn) for which, copies in zip(JUDGED, ways, strict=True)}
    numbers = [*drawn, *(number for one in judged.values() for number in one["orders"].values())]
    seen = measure_orders(model, make, batches, every.orders[numbers], held=pieces.held, classes=classes, start=here)
    for one in judged.values():
        ends = np.array(one["losses"])[drawn]
        one["correlation"] = {name: _correlated(seen[name][: len(drawn)].double().numpy(), ends) for name in seen}
        at = {name: numbers.index(number) for name, number in one["orders"].items()}
        one["measures"] = {name: {which: _plain(seen[name][row]) for which, row in at.items()} for name in seen}
        one["orders"] = {name: every.orders[number].tolist() for name, number in one["orders"].items()}
    return judged


def _judged(model: nn.Module, copies: Copies, pieces: _Pieces, drawn: list[int]) -> dict[str, Any]:
    """What orders ended in: all of them on the pictures that judge; on others those drawn, the best, median and worst."""
    losses, right = judge_copies(model, copies, *pieces.judged)
    ranked = losses.argsort()
    named = {"best": int(ranked[0]), "median": int(ranked[len(ranked) // 2]), "worst": int(ranked[-1])}
    again = judge_copies(model, copies.take([*drawn, *named.values()]), *pieces.held)[0]
    return {
        "losses": [round(value, 7) for value in losses.tolist()],
        "accuracies": [round(value, 6) for value in right.tolist()],
        "orders": named,
        "loss": {name: float(losses[number]) for name, number in named.items()},
        "held": dict(zip(named, again[len(drawn) :].tolist(), strict=True)),
        "held_mean": float(again[: len(drawn)].mean()),
        "agreement": rank_correlation(losses[drawn].double().numpy(), again[: len(drawn)].double().numpy()),
    }


def _correlated(values: NDArray[Any], ends: NDArray[Any]) -> list[float | None]:
    """Rank correlation with the final loss at every position, and of the mean over the positions."""
    with np.errstate(invalid="ignore"):
        mean = np.nanmean(values, axis=1)
    return [rank_correlation(column, ends) for column in (*values.T, mean)]


def _over_splits(found: list[dict[str, Any]], which: str, name: str) -> list[dict[str, Any] | None]:
    """The correlations' means over a split's starts, and over the splits, with their intervals."""
    columns = []
    for position in range(len(found[0][which]["correlation"][name])):
        by_split: dict[int, list[float]] = {}
        for one in found:
            value = one[which]["correlation"][name][position]
            if value is not None:
                by_split.setdefault(one["split"], []).append(value)
        columns.append(said(mean_of([float(np.mean(values)) for values in by_split.values()]), -1, 1))
    return columns


def _plain(values: Tensor) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _cut(train: Batch, size: MeasuredSize, seed: int, split: int, epoch: int) -> list[Batch]:
    """An epoch's batches: cut anew each epoch."""
    order = Draws(seed, f"measured/epoch/{split}", epoch).permutation(len(train[1]))[0]
    return [(train[0][part], train[1][part]) for part in order.view(size.batches, size.rows)]


def _network(written: Component, classes: int, key: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key & 0x7FFFFFFF)
        made: nn.Module = lookup("model", written.word)(**written.options, shape=(3, 32, 32), classes=classes)
    made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made


def _train(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    optimizer.zero_grad()
    with in_mode(model, training=True):
        functional.cross_entropy(model(batch[0]), batch[1]).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _chunk(out: Path, model: nn.Module, make: Any, batches: list[Batch]) -> int:
    """How many copies go side by side: found once a run, and kept."""
    chunk = every_order(model, make, batches[:TRIED]).chunk
    write_json(out / "request.json", {**read_json(out / "request.json"), "chunk": chunk})
    return chunk
