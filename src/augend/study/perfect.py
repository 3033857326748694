"""Perfect ordering: every order of an epoch's batches, epoch after epoch, from the starts that stand for all of them.

Each epoch tries every order from each start that was carried on, judges all of them on test pictures, and carries on: one run
of each of k clusters of test losses, the best and the worst. (Training procedure augmentations, 2.2, Table 2.1.) Since the
carried runs are chosen by their test losses, a second set of pictures, by which nothing is chosen, says what a choice is
worth.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator
from torch import Tensor, nn

from augend.checkpoint import read, write, write_json
from augend.contract import Saved
from augend.data.named import mnist_pictures
from augend.data.pictures import Pictures
from augend.order.every import Copies, every_order
from augend.randomness import Draws, stream_key
from augend.recipes.reading import Place, parse
from augend.recipes.schema import Words, checked
from augend.study.evidence import read_json
from augend.study.tables import table_text
from augend.study.whole import asked_scale, opened, rank_correlation
from augend.study.windows import WindowJudge

__all__ = ["Perfect", "Size", "load_perfect", "run_perfect"]

PAD = 3
MEAN, STD = 0.1307, 0.3081
TRIED = 4  # batches, to find how many copies go side by side
AGAIN = 25  # of a start's orders whose held-out losses are computed beside its best and its worst

Progress = Callable[[Mapping[str, Any]], None]


class Size(Words):
    """How large a run is: `batches` of `rows` pictures, for `epochs`, from `kept` clusters; judged on `judged` pictures."""

    about: str
    batches: int
    rows: int
    epochs: int
    kept: int
    judged: int


def _sizes(value: object) -> object:
    if not isinstance(value, Mapping):
        raise ValueError(f"found {value!r}; allowed: a mapping of scales")
    return {name: checked(Size, one, Place(str(name))) for name, one in value.items()}


class Perfect(Words):
    """A table of this kind; `printed` has the paper's columns, an epoch a line: least, mean, best accuracy, losses."""

    kind: Literal["perfect-ordering"]
    title: str
    source: str
    classes: tuple[int, int]
    optimizer: dict[str, Any]
    scales: Annotated[dict[str, Size], BeforeValidator(_sizes)]
    printed: tuple[tuple[float, float, float, float, float], ...] = ()


def load_perfect(name: str) -> Perfect:
    """The table by name."""
    return checked(Perfect, parse(table_text(name), name), Place(name))


@dataclass
class _Pieces:
    """Normalised pictures: to train on, to judge by, and held out; and the names of the first."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    held: tuple[Tensor, Tensor]
    names: tuple[str, ...]


def run_perfect(
    name: str, scale: str | None, out: Path, *, seed: int, root: str | None, command: str, listen: Progress
) -> dict[str, Any]:
    """Run or continue it; every start's orders are kept as they are done.

    Returns:
        What was found, as in ``perfect.json``.
    """
    table = load_perfect(name)
    asked = asked_scale(name, scale, table.scales)
    size = table.scales[asked]
    request = {"table": name, "scale": asked, "seed": seed}
    environment = opened(out, request, command)["environment"]
    try:
        pieces = _pictures(table, size, seed, root)
        epochs = _epochs(table, size, seed, pieces, out, listen)
    except KeyboardInterrupt:  # files are whole or not there, so nothing need be waited for
        raise Saved(f"stopped; the starts that are done are kept. Continue with: {command}", 130) from None
    found_all = {
        "schema": 1,
        **request,
        "title": table.title,
        "source": table.source,
        "about": size.about,
        "judged": size.judged,
        "command": command,
        "environment": environment,
        "epochs": epochs,
        "printed": [list(one) for one in table.printed],
    }
    write_json(out / "perfect.json", found_all)
    batches = [
        _epoch_batches(size, seed, epoch)[number].tolist()
        for epoch, order in enumerate(_lineage(epochs, size.batches))
        for number in order
    ]
    write_json(out / "best-order.json", {"pictures": list(pieces.names), "batches": batches})
    return found_all


def _epochs(
    table: Perfect, size: Size, seed: int, pieces: _Pieces, out: Path, listen: Progress
) -> list[dict[str, Any]]:
    """What every epoch found; of a start that is done, its file is read."""
    model = network(seed)
    judge, again = WindowJudge(*pieces.test), WindowJudge(*pieces.held)
    starts = Copies.of(model)

    def make(weights: Iterable[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(weights, **table.optimizer)

    request = read_json(out / "request.json")
    if "chunk" not in request:  # found once, on a small tree: another would change the last bits of a run that goes on
        request["chunk"] = every_order(
            model, make, _batches(pieces.train, size, seed, 0), min(size.batches, TRIED)
        ).chunk
        write_json(out / "request.json", request)
    chunk = request["chunk"]
    epochs: list[dict[str, Any]] = []

    for epoch in range(size.epochs):
        batches = _batches(pieces.train, size, seed, epoch)
        done: list[tuple[dict[str, Tensor], Copies]] = []
        for number in range(len(starts)):
            file = out / "orders" / f"epoch-{epoch + 1:02d}-start-{number:02d}.augend"
            if not file.is_file():
                begin = time.perf_counter()
                found = every_order(model, make, batches, size.batches, start=starts.take([number]), chunk=chunk)
                losses, right = judge(found.copies)
                seconds = time.perf_counter() - begin
                held = _held(again, found.copies, losses, seed, epoch, number)
                values = {"losses": losses, "right": right, **held}
                _save(file, values, found.copies, {"seconds": seconds, "steps": found.steps, "chunk": found.chunk})
            done.append(_load(file))
            listen({"epoch": epoch + 1, "of": size.epochs, "start": number + 1, "starts": len(starts)})
        values, every = _joined(done)
        carried = _carried(values["losses"].numpy(), size.kept, seed)
        epochs.append(_epoch(values, len(starts), carried))
        if epoch:
            epochs[-1]["between"] = _between(epochs[-2], epochs[-1])
        starts = every.take(carried)
    return epochs


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


def _pictures(table: Perfect, size: Size, seed: int, root: str | None) -> _Pieces:
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
    return _Pieces(shown(train, chosen), judged, shown(train, rest), tuple(train.take(chosen).ids))


def _batches(train: tuple[Tensor, Tensor], size: Size, seed: int, epoch: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Position in the epoch -> all batches as they are seen there: cut once an epoch, cropped by the position."""
    draws, order = Draws(seed, "perfect/epoch", epoch), _epoch_batches(size, seed, epoch)
    padded = torch.nn.functional.pad(train[0], [PAD] * 4, value=-MEAN / STD)

    def at(position: int) -> tuple[Tensor, Tensor]:
        moves = draws.child(f"position/{position}").rows(torch.arange(size.rows)).integers(2 * PAD + 1, 2).tolist()
        side = train[0].shape[-1]
        rows = [padded[order[:, row], :, a : a + side, b : b + side] for row, (a, b) in enumerate(moves)]
        return torch.stack(rows, 1), train[1][order]

    return at


def _epoch_batches(size: Size, seed: int, epoch: int) -> Tensor:
    """int64 ``(batches, rows)``: how an epoch's pictures are cut."""
    count = size.batches * size.rows
    return Draws(seed, "perfect/epoch", epoch).permutation(count)[0].view(size.batches, size.rows)


def _lineage(epochs: list[dict[str, Any]], batches: int) -> list[tuple[int, ...]]:
    """The order of every epoch that led to the best run of the last."""
    orders = list(itertools.permutations(range(batches)))
    found, run = [], epochs[-1]["best_start"] * len(orders) + epochs[-1]["best_order"]
    for number in reversed(range(len(epochs))):
        start, order = divmod(run, len(orders))
        found.append(orders[order])
        run = epochs[number - 1]["carried"][start] if number else 0
    return found[::-1]


def _held(judge: WindowJudge, copies: Copies, losses: Tensor, seed: int, epoch: int, start: int) -> dict[str, Tensor]:
    """Losses on the second set, of the best, the worst, and some others; judging all of them would double the time."""
    ranked = losses.argsort()
    drawn = Draws(seed, f"perfect/held/{start}", epoch).permutation(len(losses))[0][:AGAIN]
    numbers = torch.tensor(sorted({*ranked[[0, -1]].tolist(), *drawn.tolist()}))
    return {"held_of": numbers, "held": judge(copies.take(numbers))[0]}


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


def _load(file: Path) -> tuple[dict[str, Tensor], Copies]:
    tensors, _ = read(file)

    def under(prefix: str) -> dict[str, Tensor]:
        return {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{prefix}/")}

    state: dict[str, dict[str, Tensor]] = {}
    for full, value in under("state").items():
        name, _, key = full.partition("//")
        state.setdefault(name, {})[key] = value
    return under("value"), Copies(under("weight"), under("buffer"), state)


def _joined(done: list[tuple[dict[str, Tensor], Copies]]) -> tuple[dict[str, Tensor], Copies]:
    """All starts' values and copies; numbers of held-out losses count through."""
    size = len(done[0][0]["losses"])
    values = {name: torch.cat([one[name] for one, _ in done]) for name in ("losses", "right", "held")}
    values["held_of"] = torch.cat([one["held_of"] + number * size for number, (one, _) in enumerate(done)])
    return values, Copies.joined([copies for _, copies in done])


def _carried(losses: NDArray[np.float32], clusters: int, seed: int) -> list[int]:
    """The first run of each cluster of test losses, the best and the worst: at most clusters + 2 numbers."""
    from sklearn.cluster import KMeans

    count = min(clusters, len(np.unique(losses)))
    labels = KMeans(count, n_init=10, random_state=seed).fit_predict(losses[:, None].astype(np.float64))
    first = [int(np.flatnonzero(labels == cluster)[0]) for cluster in range(count)]
    return list(dict.fromkeys([*sorted(first), int(losses.argmin()), int(losses.argmax())]))


def _epoch(values: Mapping[str, Tensor], starts: int, carried: list[int]) -> dict[str, Any]:
    """What an epoch came to, as JSON values."""
    losses, right = values["losses"].double().numpy(), values["right"].double().numpy()
    orders = len(losses) // starts
    held_of, held = values["held_of"].numpy(), values["held"].double().numpy()
    best = int(losses.argmin())
    return {
        "runs": len(losses),
        "orders": orders,
        "carried": carried,
        "accuracy": [float(right.min()), float(right.mean()), float(right.max())],
        "loss": [float(losses.min()), float(losses.mean()), float(losses.max())],
        "best_order": best % orders,
        "best_start": best // orders,
        "held_best": float(held[held_of == best][0]),
        "held_mean": float(held.mean()),
        "held_correlation": rank_correlation(losses[held_of], held),
        "by_start": [float(one) for one in losses.reshape(starts, orders).mean(1)],
        "by_order": [round(float(one), 6) for one in losses.reshape(starts, orders).mean(0)],
        "losses": [round(float(one), 6) for one in losses],
        "accuracies": [round(float(one), 6) for one in right],
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
