"""Resident batches with crop and flip against a two-worker DataLoader with torchvision. Prints `name ratio goal`.

    python bench/resident_batches.py [--compile] [--rounds 5]

Both make float32 batches of 128 pictures, padded by 4, cropped to 32 x 32 and flipped with probability 1/2, out of
50,000 pictures in memory (CIFAR-10 if `AUGEND_DATA` has its binary files, otherwise random ones). Ours: index,
parameters, crop, flip and conversion, in one thread of this process; theirs: the same per picture in two worker
processes. Rates are measured in turns, the best round of each counts. Before that, our batches are compared bit for bit
with a per-picture reference. The line marked # also gives process CPU time for the same work in one thread, half of
which is what two undisturbed workers could reach at best: on a busy machine that is the figure to trust.
"""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from augend.augment import Chain
from augend.augment.geometry import HFlip, PaddedCrop
from augend.randomness import Draws

COUNT, ROWS, PADDING, STEPS = 50_000, 128, 4, 16
CHAIN = Chain([PaddedCrop(PADDING), HFlip()])


def pictures() -> tuple[Tensor, str]:
    """uint8 (50000, 3, 32, 32), and what they are."""
    folder = Path(os.environ.get("AUGEND_DATA", ".")) / "cifar-10-batches-bin"
    files = [folder / f"data_batch_{number}.bin" for number in range(1, 6)]
    if all(file.is_file() for file in files):
        raw = np.concatenate([np.fromfile(file, dtype=np.uint8).reshape(-1, 3073)[:, 1:] for file in files])
        return torch.from_numpy(raw.reshape(-1, 3, 32, 32)), "CIFAR-10"
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (COUNT, 3, 32, 32), dtype=torch.uint8, generator=generator), "random pictures"


def drawn(chunk: int, order: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Picture numbers and parameters of the next 16 steps, parameters drawn in one call."""
    rows = torch.arange(STEPS * ROWS) + chunk * STEPS * ROWS
    params = CHAIN.draw(Draws(0, "bench", keys=rows), 0.0)
    return list(zip(torch.split(order[rows % COUNT], ROWS), torch.split(params, ROWS), strict=True))


def batch(data: Tensor, index: Tensor, params: Tensor) -> Tensor:
    """float32 (128, 3, 32, 32) in [0, 1]."""
    return CHAIN.apply(data.index_select(0, index), params)


def reference(data: Tensor, index: Tensor, params: Tensor) -> Tensor:
    """The same batch, made one picture at a time."""
    made = []
    for number, (top, left, flip) in zip(index.tolist(), params.int().tolist(), strict=True):
        picture = F.pad(data[number].float() / 255, [PADDING] * 4)[:, top : top + 32, left : left + 32]
        made.append(picture.flip(-1) if flip else picture)
    return torch.stack(made)


class PerPicture(Dataset[Tensor]):
    """Pictures transformed one by one, as a DataLoader's workers do it."""

    def __init__(self, data: Tensor) -> None:
        from torchvision.transforms import v2

        self.data = data
        self.transform = v2.Compose(
            [v2.RandomCrop(32, padding=PADDING), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        made: Tensor = self.transform(self.data[index])
        return made


def loader_rate(batches: Iterator[Tensor], count: int) -> float:
    """Pictures a second of the next `count` batches."""
    start = time.perf_counter()
    seen = sum(len(next(batches)) for _ in range(count))
    return seen / (time.perf_counter() - start)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Least process CPU time of a call, out of ten."""
    least = float("inf")
    for _ in range(10):
        start = time.process_time()
        work()
        least = min(least, time.process_time() - start)
    return least


def run(make: Callable[[Tensor, Tensor, Tensor], Tensor], data: Tensor, order: Tensor, chunk: int = 0) -> None:
    """16 batches, parameters and index included."""
    for index, params in drawn(chunk, order):
        make(data, index, params)


def our_rate(make: Callable[[Tensor, Tensor, Tensor], Tensor], data: Tensor, order: Tensor, seconds: float) -> float:
    """Pictures a second, parameters and index included."""
    start, chunk = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        run(make, data, order, chunk)
        chunk += 1
    return chunk * STEPS * ROWS / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Resident batches against a two-worker DataLoader.")
    parser.add_argument("--compile", action="store_true", help="time torch.compile too (takes a minute to start)")
    parser.add_argument("--rounds", type=int, default=5, help="turns; the best counts (at least 3)")
    options = parser.parse_args()

    torch.set_num_threads(1)  # one core for us, two for the loader; on a busy machine threads wait for each other
    data, kind = pictures()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    makers = {"eager": (batch, 8)}
    if options.compile:
        makers["compiled"] = (torch.compile(batch, dynamic=False), 15)
    for name, (make, _) in makers.items():
        for index, params in drawn(0, order)[:5]:
            assert torch.equal(make(data, index, params), reference(data, index, params)), name

    loader = DataLoader(PerPicture(data), batch_size=ROWS, shuffle=True, num_workers=2, persistent_workers=True)
    best: dict[str, float] = {}
    for _ in range(max(3, options.rounds)):
        batches = iter(loader)
        loader_rate(batches, 8)
        rates = {"loader": loader_rate(batches, 40)}
        del batches  # the workers finish what they have prefetched and wait
        time.sleep(0.5)
        for name, (make, _) in makers.items():
            rates[name] = max(our_rate(make, data, order, 0.1) for _ in range(10))
        best = {name: max(rate, best.get(name, 0.0)) for name, rate in rates.items()}
    theirs = PerPicture(data)
    per_batch = cpu_seconds(lambda: torch.stack([theirs[number] for number in range(ROWS)]))
    for name, (make, _) in makers.items():
        ratio = per_batch / cpu_seconds(functools.partial(run, make, data, order)) * STEPS
        print(f"# CPU time in one thread, per picture / {name}: {ratio:.1f}, half of it {ratio / 2:.1f}")
    print(f"# {kind}; pictures a second: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in best.items()))
    for name, (_, goal) in makers.items():
        print(f"resident-batches-{name} {best[name] / best['loader']:.1f} {goal}")


if __name__ == "__main__":
    main()
