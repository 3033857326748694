"""Perfect ordering: every order of an epoch's batches, epoch after epoch, from the starts that stand for all of them.

Each epoch tries every order from each start that was carried on, judges all of them on test pictures, and carries on: one run
of each of k clusters of test losses, the best and the worst. (Training procedure augmentations, 2.2, Table 2.1.) Since the
carried runs are chosen by their test losses, a second set of pictures, by which nothing is chosen, says what a choice is
worth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator
from torch import Tensor, nn

from augend.checkpoint import write_json
from augend.contract import AugendError, Saved
from augend.data.named import mnist_pictures
from augend.data.pictures import Pictures
from augend.order.every import Copies
from augend.randomness import Draws
from augend.recipes.schema import Words
from augend.study.evidence import read_json
from augend.study.running import cores
from augend.study.starts import MEAN, STD, Pieces, Size, Starts, again, cut, load, network
from augend.study.whole import asked_scale, opened, rank_correlation, sizes_of, whole_table

__all__ = ["Perfect", "load_perfect", "run_perfect"]

SCHEMA = 3  # from 3 on, what batch norm's running statistics have to do with it
Progress = Callable[[Mapping[str, Any]], None]


class Perfect(Words):
    """A table of this kind; `printed` has the paper's columns, an epoch a line: least, mean, best accuracy, losses."""

    kind: Literal["perfect-ordering"]
    title: str
    source: str
    classes: tuple[int, int]
    optimizer: dict[str, Any]
    scales: Annotated[dict[str, Size], BeforeValidator(sizes_of(Size))]
    printed: tuple[tuple[float, float, float, float, float], ...] = ()


def load_perfect(name: str) -> Perfect:
    """The table by name."""
    return whole_table(Perfect, name)


def run_perfect(
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
    """Run or continue it; every start's orders are kept as they are done.

    Args:
        listen: told of every start that is done.
        workers: processes side by side; None: one a core. They change no bit.

    Returns:
        What was found, as in ``perfect.json``.
    """
    table = load_perfect(name)
    asked = asked_scale(name, scale, table.scales)
    size = table.scales[asked]
    request = {"table": name, "scale": asked, "seed": seed}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of every process of a run that begins here: so the number of processes changes no bit
    try:
        kept = opened(out, request, command)
        pieces = _pictures(table, size, seed, root)
        starts = Starts(table.optimizer, size, seed, pieces, out, workers=workers or cores(), threads=kept["threads"])
        model = network(seed)
        if "chunk" not in kept:
            kept["chunk"] = starts.chunk_of(model)
            write_json(out / "request.json", kept)
        starts.chunk = kept["chunk"]
        epochs = _epochs(starts, model, listen)
    except KeyboardInterrupt:  # files are whole or not there, so nothing need be waited for
        raise Saved(f"stopped; the starts that are done are kept. Continue with: {command}", 130) from None
    finally:
        torch.set_num_threads(threads)
    found_all = {
        "schema": SCHEMA,
        **request,
        "title": table.title,
        "source": table.source,
        "about": size.about,
        "judged": size.judged,
        "command": command,
        "environment": kept["environment"],
        "epochs": epochs,
        "printed": [list(one) for one in table.printed],
    }
    write_json(out / "perfect.json", found_all)
    batches = [
        cut(size, seed, epoch)[number].tolist()
        for epoch, order in enumerate(_lineage(epochs, size.batches))
        for number in order
    ]
    write_json(out / "best-order.json", {"pictures": list(pieces.names), "batches": batches})
    return found_all


def _epochs(starts: Starts, model: nn.Module, listen: Progress) -> list[dict[str, Any]]:
    """What every epoch found; of a start that is done, its file is read."""
    size, begins, epochs = starts.size, Copies.of(model), []
    for epoch in range(size.epochs):
        done: dict[int, tuple[dict[str, Tensor], Copies]] = {}

        def take(number: int, epoch: int = epoch, done: dict[int, Any] = done, count: int = len(begins)) -> None:
            values, copies, seconds = load(starts.file(epoch, number))
            starts.known(seconds)
            done[number] = values, copies
            listen({"epoch": epoch + 1, "of": size.epochs, "start": len(done), "starts": count})

        missing = [n for n in range(len(begins)) if not starts.file(epoch, n).is_file()]
        for number in sorted({*range(len(begins))} - {*missing}):
            take(number)
        for number in starts.each([(epoch, n, begins.take([n])) for n in missing]):
            take(number)
        each = [done[number][0] for number in range(len(begins))]
        carried = _carried(torch.cat([one["losses"] for one in each]).numpy(), size.kept, starts.seed)
        _same_carried(starts.out, epoch, carried)
        drawn = [again(starts.seed, epoch, number, len(one["losses"])) for number, one in enumerate(each)]
        epochs.append(_epoch(each, drawn, carried))
        if epoch:
            epochs[-1]["between"] = _between(epochs[-2], epochs[-1])
        begins = Copies.joined([done[number][1] for number in range(len(begins))]).take(carried)
    return epochs


def _pictures(table: Perfect, size: Size, seed: int, root: str | None) -> Pieces:
    train, test = mnist_pictures(root)
    count = size.batches * size.rows

    def drawn(pictures: Pictures, label: int | None, stream: str) -> Tensor:
        wanted = table.classes if label is None else (label,)
        of_it = torch.isin(pictures.labels, torch.tensor(wanted)).nonzero()[:, 0]
        return of_it[Draws(seed, f"perfect/{stream}").permutation(len(of_it))[0]]

    def shown(pictures: Pictures, index: Tensor) -> tuple[Tensor, Tensor]:
        x = (pictures.take(index).pixels[:].float() / 255 - MEAN) / STD
        return x, (pictures.labels[index] == table.classes[1]).long()

    each = [drawn(train, label, f"train/{label}")[: count // 2] for label in table.classes]
    chosen = torch.cat(each)
    rest = drawn(train, None, "held")
    rest = rest[~torch.isin(rest, chosen)][: size.judged]
    judged = shown(test, drawn(test, None, "test")[: size.judged])
    return Pieces(shown(train, chosen), judged, shown(train, rest), tuple(train.take(chosen).ids))


def _lineage(epochs: list[dict[str, Any]], batches: int) -> list[tuple[int, ...]]:
    """The order of every epoch that led to the best run of the last."""
    orders = list(itertools.permutations(range(batches)))
    found, run = [], epochs[-1]["best_start"] * len(orders) + epochs[-1]["best_order"]
    for number in reversed(range(len(epochs))):
        start, order = divmod(run, len(orders))
        found.append(orders[order])
        run = epochs[number - 1]["carried"][start] if number else 0
    return found[::-1]


def _carried(losses: NDArray[np.float32], clusters: int, seed: int) -> list[int]:
    """The first run of each cluster of test losses, the best and the worst: at most clusters + 2 numbers."""
    from sklearn.cluster import KMeans

    count = min(clusters, len(np.unique(losses)))
    labels = KMeans(count, n_init=10, random_state=seed).fit_predict(losses[:, None].astype(np.float64))
    first = [int(np.flatnonzero(labels == cluster)[0]) for cluster in range(count)]
    return list(dict.fromkeys([*sorted(first), int(losses.argmin()), int(losses.argmax())]))


def _same_carried(out: Path, epoch: int, carried: list[int]) -> None:
    """Write down which runs an epoch carries on, before anything goes on from them; what was begun so must go on so."""
    file = out / "carried.json"
    kept: list[list[int]] = read_json(file)["carried"] if file.is_file() else []
    if epoch >= len(kept):
        write_json(file, {"carried": [*kept, carried]})
    elif kept[epoch] != carried:
        raise AugendError(
            f"{file}: epoch {epoch + 1} carried on the runs {kept[epoch]}, and now {carried} would be chosen (by another "
            "version of scikit-learn, say); go on with what it was begun with, or give another --out"
        )


def _epoch(each: Sequence[Mapping[str, Tensor]], drawn: Sequence[Tensor], carried: list[int]) -> dict[str, Any]:
    """What an epoch came to, as JSON values.

    Of held-out losses: how they go with the test losses is asked among the orders of a start that were `drawn` whatever
    their test loss, and averaged over starts, for starts differ by what came before. Likewise the best order is compared
    with those of its own start.
    """
    losses = torch.cat([one["losses"] for one in each]).double().numpy()
    right = torch.cat([one["right"] for one in each]).double().numpy()
    starts, best = len(each), int(losses.argmin())
    orders = len(losses) // starts
    bests, means, agreed = zip(*(_held(one, some) for one, some in zip(each, drawn, strict=True)), strict=True)
    there = [value for value in agreed if value is not None]
    return {
        "runs": len(losses),
        "orders": orders,
        "carried": carried,
        "accuracy": [float(right.min()), float(right.mean()), float(right.max())],
        "loss": [float(losses.min()), float(losses.mean()), float(losses.max())],
        "best_order": best % orders,
        "best_start": best // orders,
        "held_best": bests[best // orders],
        "held_mean": means[best // orders],
        "held_worth": float(np.mean(np.subtract(means, bests))),
        "held_correlation": float(np.mean(there)) if there else None,
        "renewed": _renewed(each, drawn),
        "by_start": [float(one) for one in losses.reshape(starts, orders).mean(1)],
        "by_order": [round(float(one), 6) for one in losses.reshape(starts, orders).mean(0)],
        "losses": [round(float(one), 6) for one in losses],
        "accuracies": [round(float(one), 6) for one in right],
    }


def _held(values: Mapping[str, Tensor], drawn: Tensor) -> tuple[float, float, float | None]:
    """Of a start: the held-out loss of its best order, the mean of those drawn, and how these go with their test losses."""
    losses, held = values["losses"].double().numpy(), values["held"].double().numpy()
    of = values["held_of"].numpy()
    some = np.isin(of, drawn.numpy())
    best = float(held[losses[of].argmin()])
    return best, float(held[some].mean()), rank_correlation(losses[of[some]], held[some])


def _renewed(each: Sequence[Mapping[str, Tensor]], drawn: Sequence[Tensor]) -> dict[str, Any]:
    """Held-out losses of the orders drawn from each start, with batch norm's running statistics and with renewed ones.

    Returns:
        mean: of both; spread: the standard deviation within a start, of both, the mean over starts; worth: by how much the
        start's best order on test pictures lowers the renewed loss, likewise; correlation: of their ranks, likewise.
    """
    means, spreads, worths, agreed = [], [], [], []
    for values, some in zip(each, drawn, strict=True):
        of = values["held_of"].numpy()
        among = np.isin(of, some.numpy())
        both = np.stack([values[name].double().numpy() for name in ("held", "renewed")])
        best = values["losses"][values["held_of"]].argmin()
        means.append(both[:, among].mean(1))
        spreads.append(both[:, among].std(1, ddof=1))
        worths.append(means[-1][1] - both[1, best])
        agreed.append(rank_correlation(both[0, among], both[1, among]))
    there = [value for value in agreed if value is not None]
    return {
        "mean": np.mean(means, 0).tolist(),
        "spread": np.mean(spreads, 0).tolist(),
        "worth": float(np.mean(worths)),
        "correlation": float(np.mean(there)) if there else None,
    }


def _between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, float | None]:
    """Rank correlations of an epoch with the one before.

    starts: of the carried runs' losses with the mean losses of the orders that go on from them. orders: of the positions'
    mean losses over all starts, whether an order by its numbers is good again (its batches are others).
    """
    carried = np.array([before["losses"][number] for number in before["carried"]])
    return {
        "starts": rank_correlation(carried, np.array(after["by_start"])),
        "orders": rank_correlation(np.array(before["by_order"]), np.array(after["by_order"])),
    }
