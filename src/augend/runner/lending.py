"""Lending: a frozen network's embeddings, kept for other trials and later runs where computing them takes long.

Kept are short rows (embeddings, not maps) that take seconds, in ``AUGEND_CACHE``/banks, at most `MOST_BYTES` of them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from augend.address import Address
from augend.checkpoint import digest_of
from augend.data.named import cache_folder
from augend.runner.hardware import describe
from augend.stages.networks import Networks
from augend.stages.shelf import Shelf, prune

if TYPE_CHECKING:
    from augend.runner.keeper import Keeper

__all__ = ["CACHE_BYTES", "ROW_BYTES", "Lending"]

CACHE_BYTES = 4 << 30  # of a phase's cache in memory; what is larger is read from the disk
ROW_BYTES = 16 << 10  # 4,096 numbers: what takes more is read no faster than it is computed
LEAST_SECONDS = 5.0  # of computing a bank, for it to be kept
MOST_BYTES = 8 << 30
VERSION = 1


class Lending:
    """Where a run finds embeddings of a frozen network, and leaves its own.

    Args:
        about: what the bits of a row depend on beside weights, pixels and batch shape: build, processor, precision, threads.
        waiting: called every second while another process computes.
    """

    def __init__(self, about: Mapping[str, Any], waiting: Callable[[], None] = lambda: None) -> None:
        self.about, self._waiting = about, waiting
        self.folder = cache_folder() / "banks"

    @classmethod
    def of(cls, keeper: Keeper) -> Lending | None:
        """That of a run; None on several ranks, which fill their caches side by side."""
        if keeper.fabric.world_size > 1:
            return None

        def waiting() -> None:
            if keeper.stopping():
                keeper.ledger.restart()
                keeper.pause()

        machine = describe()
        bits = {name: machine[name] for name in ("torch", "processor", "capability", "gpu")}
        return cls({**bits, **keeper.hardware.to_json()}, waiting)

    def room(self) -> int:
        """Bytes that one bank may take on the disk."""
        place = self.folder
        while not place.exists():
            place = place.parent
        return min(MOST_BYTES, shutil.disk_usage(place).free // 2)

    def wants(self, row: int, total: int, seconds: float) -> bool:
        """Whether a bank is kept: of rows of `row` bytes, `total` bytes in all, that takes `seconds`."""
        return row <= ROW_BYTES and total <= self.room() and (seconds >= LEAST_SECONDS or total > CACHE_BYTES)

    def shelf(self, networks: Networks, wanted: list[Address], size: int) -> Shelf | None:
        """The shelf for some tensors of frozen networks in batches of `size`; None where nothing can be written."""
        below = dict(_below(networks, wanted))
        key = {
            "version": VERSION,
            "weights": digest_of(below),
            "networks": {name: str(networks.stages(name)) for name in networks.reached([a.network for a in wanted])},
            "tensors": [str(address) for address in wanted],
            "batch": size,
            **self.about,
        }
        name = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()
        path = self.folder / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        prune(self.folder, MOST_BYTES, keep=path)
        return Shelf(path, key, self._waiting)


def _below(networks: Networks, wanted: list[Address]) -> Iterator[tuple[str, Tensor]]:
    """Weights and running statistics that some tensors depend on."""
    for address in wanted:
        network = networks.stages(address.network)
        end = network.position(address.tensor)
        for stage in network.names[:end]:
            for number, module in enumerate(network.modules_of(stage)):
                for key, tensor in module.state_dict(keep_vars=True).items():
                    yield f"{address.network}.{stage}.{number}.{key}", tensor
            for number, parameter in enumerate(network.parameters_of(stage)):  # those of no module, too
                yield f"{address.network}.{stage}/{number}", parameter
        for name, tensor in (("mean", network.mean), ("std", network.std)):
            if tensor is not None:
                yield f"{address.network}.{name}", tensor
        source = networks.inputs[address.network]
        if source is not None:
            yield from _below(networks, [source])
