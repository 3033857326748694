"""An order that a file gives, batch by batch: what `every_order` found is replayed by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augend.contract import AugendError, Picks, Probe
from augend.randomness import Draws

__all__ = ["Given"]


class Given:
    """Batches from a file, in its order.

    Args:
        file: JSON, ``{"batches": [[3, 1, 4, …], …]}``: for every step the numbers of its pictures, those of a row next to
            one another. With ``"pictures": [name, …]`` the numbers are places in that list, and its names say which
            pictures are meant, whatever the data are that one trains on.

    Attributes:
        ids: names of the pictures that are trained on, in their order; set before `start` where the file names pictures. A
            run does so. Without them the file must name as many pictures as there are, and is taken to mean these.

    Raises:
        AugendError: the file is no such file; a number is no picture's; a picture that it names is not trained on; a batch
            has another length than the step asks for; the file ends before the phase.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "order.json"
        >>> _ = file.write_text('{"pictures": ["c", "a"], "batches": [[1], [0]]}')
        >>> order = Given(str(file))
        >>> order.ids = ["a", "b", "c"]
        >>> order.start(3, Draws(0, "order"))
        >>> order.next(0, rows=1).index[:, 0].tolist(), order.next(1, rows=1).index[:, 0].tolist()
        ([0], [2])
    """

    pure = True
    hears: frozenset[str] = frozenset()

    def __init__(self, file: str) -> None:
        self._file = file
        self.ids: Sequence[str] | None = None

    def start(self, size: int, draws: Draws, probe: Probe | None = None, variants: int | None = None) -> None:
        """Read the file and check its numbers and names."""
        path = Path(self._file)
        batches, names = _read(path)
        numbers = list(range(size)) if names is None else _numbers(path, names, self.ids, size)
        for number, batch in enumerate(batches):
            if not isinstance(batch, list) or not batch or any(type(one) is not int for one in batch):
                raise AugendError(
                    f"order given: {path}: batch {number} is no list of picture numbers, which are whole; allowed: {ALLOWED}"
                )
            if not 0 <= min(batch) <= max(batch) < len(numbers):
                raise AugendError(f"order given: {path}: batch {number} has a number outside 0 .. {len(numbers) - 1}")
        meant = [[numbers[one] for one in batch] for batch in batches]
        self._batches = [torch.tensor(batch, dtype=torch.int64) for batch in meant]
        digest = hashlib.sha256(json.dumps(meant).encode()).digest()
        self._fingerprint = torch.frombuffer(bytearray(digest), dtype=torch.int64)

    def next(self, step: int, rows: int, sources: int = 1, progress: float = 0.0) -> Picks:
        """The file's batch of this step."""
        if step >= len(self._batches):
            raise AugendError(
                f"order given: {self._file}: holds {len(self._batches)} batches, and step {step + 1} is asked for; train "
                f"no longer, as --budget {len(self._batches)}step"
            )
        batch = self._batches[step]
        if len(batch) != rows * sources:
            raise AugendError(
                f"order given: {self._file}: batch {step} has {len(batch)} pictures, and a step takes {rows * sources}; "
                "set batch to the file's"
            )
        return Picks(batch.view(rows, sources))

    def feedback(self, picks: Picks, *, loss: Tensor | None, gradient: Tensor | None) -> None:
        """A given order hears nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """Which file it was; for the rest the step says all."""
        return {"fingerprint": self._fingerprint.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Check that the file is the one that the phase began with."""
        if not torch.equal(state["fingerprint"], self._fingerprint):
            raise AugendError(
                f"order given: {Path(self._file).absolute()}: has changed since the phase began; put the first file back, or "
                "start a new run"
            )


ALLOWED = '{"batches": [[picture numbers], …]}'


def _read(path: Path) -> tuple[list[Any], list[Any] | None]:
    """The file's batches, and the names of its pictures where it has any; that these are lists is checked here."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        batches, names = found["batches"], found.get("pictures")
        if not isinstance(batches, list) or not isinstance(names, list | None):
            raise TypeError
    except FileNotFoundError:
        raise AugendError(f"order given: {path.absolute()}: there is no such file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AugendError(f"order given: {path}: holds no {ALLOWED} ({type(error).__name__})") from None
    return batches, names


def _numbers(path: Path, names: list[Any], ids: Sequence[str] | None, size: int) -> list[int]:
    """Of each picture that the file names, which one it is of those that are trained on."""
    if ids is None:
        if len(names) != size:
            raise AugendError(
                f"order given: {path}: names {len(names)} pictures, and there are {size}; say which are which before the "
                "order is started: order.ids = [names]"
            )
        return list(range(size))
    places = {name: place for place, name in enumerate(ids)}
    missing = [name for name in names if not isinstance(name, str) or name not in places]
    if missing:
        raise AugendError(
            f"order given: {path}: {len(missing)} of the {len(names)} pictures that it names are not trained on, "
            f"{missing[0]} among them; train on all of the data set that the order was found on, as DATA:valid=0"
        )
    return [places[name] for name in names]
