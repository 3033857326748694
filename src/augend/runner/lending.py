"""Lending: a frozen network's embeddings, kept for other trials and later runs where computing them takes long.

Kept are embeddings, not maps, of finite views that take seconds, in ``AUGEND_CACHE``/banks, at most `MOST_BYTES` of them.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from augend.address import Address
from augend.checkpoint import digest_of
from augend.data.named import cache_folder
from augend.runner.hardware import describe, program
from augend.stages.bank import CannotKeep
from augend.stages.networks import Networks
from augend.stages.shelf import Placed, Shelf, prune

if TYPE_CHECKING:
    from augend.runner.keeper import Keeper

__all__ = ["CACHE_BYTES", "MOST_BYTES", "Lending"]

CACHE_BYTES = 4 << 30  # of a phase's cache in memory; embeddings that are more are read from the disk
LEAST_SECONDS = 5.0  # of computing a bank, for it to be kept
MOST_BYTES = 8 << 30
VERSION = 2


class Lending:
    """Where a run finds embeddings of a frozen network, and leaves its own.

    Args:
        about: what the bits of a row depend on beside weights, pixels and batch shape: builds, processor, precision, threads.
        waiting: called every second while another process computes.
    """

    def __init__(self, about: Mapping[str, Any], waiting: Callable[[], None] = lambda: None) -> None:
        self.about, self._waiting = about, waiting
        self.folder = cache_folder() / "banks"

    @classmethod
    def of(cls, keeper: Keeper) -> Lending | None:
        """That of a run; None on several ranks, which fill their caches side by side, and where files cannot be locked."""
        if keeper.fabric.world_size > 1 or importlib.util.find_spec("fcntl") is None:
            return None

        def waiting() -> None:
            if keeper.stopping():
                keeper.ledger.restart()
                keeper.pause()

        machine = describe()
        bits = {name: machine[name] for name in ("torch", "processor", "capability", "gpu")}
        return cls({**bits, **_builds(), **keeper.hardware.to_json()}, waiting)

    def wants(self, values: Mapping[str, Tensor], total: int, seconds: float) -> bool:
        """Whether a bank is kept: of rows such as `values` ``(size, …)``, `total` rows in all, that takes `seconds`."""
        each = sum(value[0].numel() * value.element_size() for value in values.values())
        return (
            vectors(values) and total * each <= MOST_BYTES and (seconds >= LEAST_SECONDS or total * each > CACHE_BYTES)
        )

    def filled(
        self,
        networks: Networks,
        wanted: Mapping[str, Address],
        show: Callable[[Tensor], Tensor],
        compute: Callable[[Tensor], Mapping[str, Tensor]],
        total: int,
        size: int,
        first: Mapping[str, Tensor],
        after: Callable[[int], None] | None,
    ) -> tuple[dict[str, Placed], float] | None:
        """The rows of a bank and the seconds that they take, whoever computed them; None where nothing can be kept.

        Args:
            wanted: the tensor of frozen networks that each name of `compute` is.
            first: what `compute` makes of the first `size` rows. For the others see `augend.stages.shelf.Shelf.fill`.
        """
        stored = {name: str(address) for name, address in wanted.items()}
        path, key = self._place(networks, wanted, show(torch.arange(size)), first, size)
        try:
            if shutil.disk_usage(_there(self.folder)).free < 2 * total * sum(_row(value) for value in first.values()):
                return None
            with Shelf(path, key, self._waiting, MOST_BYTES) as shelf:
                found = shelf.fill(
                    show,
                    lambda x: {stored[name]: value for name, value in compute(x).items()},
                    total,
                    size,
                    after,
                    {stored[name]: value for name, value in first.items()},
                )
            prune(self.folder, MOST_BYTES)
        except (CannotKeep, OSError):
            return None
        return {name: found[stored[name]] for name in wanted}, shelf.seconds

    def _place(
        self,
        networks: Networks,
        wanted: Mapping[str, Address],
        entering: Tensor,
        first: Mapping[str, Tensor],
        size: int,
    ) -> tuple[Path, dict[str, Any]]:
        addresses = sorted(wanted.values(), key=str)
        key = {
            "version": VERSION,
            "weights": digest_of(dict(_below(networks, addresses))),
            "networks": {name: str(networks.stages(name)) for name in networks.reached([a.network for a in addresses])},
            "tensors": [str(address) for address in addresses],
            "entering": [list(entering.shape[1:]), str(entering.dtype)],
            "rows": {str(wanted[name]): [list(value.shape[1:]), str(value.dtype)] for name, value in first.items()},
            "batch": size,
            **self.about,
        }
        name = hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()
        return self.folder / name, key


def vectors(values: Mapping[str, Tensor]) -> bool:
    """Whether these are embeddings ``(rows, d)``; maps take longer to read than to compute."""
    return all(value.ndim == 2 for value in values.values())


def _row(value: Tensor) -> int:
    return value[0].numel() * value.element_size()


def _there(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


@functools.cache
def _builds() -> dict[str, Any]:
    """Versions of whatever a forward may come from."""
    found: dict[str, Any] = dict(program())
    for package in ("timm", "torchvision"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _below(networks: Networks, wanted: list[Address]) -> Iterator[tuple[str, Tensor]]:
    """Weights and buffers that some tensors depend on."""
    for address in wanted:
        network = networks.stages(address.network)
        end = network.position(address.tensor)
        for stage in network.names[:end]:
            for number, module in enumerate(network.modules_of(stage)):
                for name, tensor in (*module.named_parameters(), *module.named_buffers()):
                    yield f"{address.network}.{stage}.{number}.{name}", tensor
            for number, parameter in enumerate(network.parameters_of(stage)):  # those of no module, too
                yield f"{address.network}.{stage}/{number}", parameter
        owned = {
            id(buffer) for stage in network.names for module in network.modules_of(stage) for buffer in module.buffers()
        }
        for name, buffer in network.named_buffers():  # of the root: normalisation among them
            if id(buffer) not in owned:
                yield f"{address.network}.{name}", buffer
        source = networks.inputs[address.network]
        if source is not None:
            yield from _below(networks, [source])
