"""An order that a file gives, batch by batch: what `every_order` found is replayed by it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from augend.contract import AugendError, Picks, Probe
from augend.randomness import Draws

__all__ = ["Given"]


class Given:
    """Batches from a file, in its order.

    Args:
        file: JSON, ``{"batches": [[3, 1, 4, …], …]}``: for every step the numbers of its pictures, those of a row next to
            one another.

    Raises:
        AugendError: the file is no such file; a number is no picture's; a batch has another length than the step asks for;
            the file ends before the phase.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "order.json"
        >>> _ = file.write_text('{"batches": [[2, 0], [1, 3]]}')
        >>> order = Given(str(file))
        >>> order.start(4, Draws(0, "order"))
        >>> order.next(1, rows=2).index[:, 0].tolist()
        [1, 3]
    """

    pure = True
    hears: frozenset[str] = frozenset()

    def __init__(self, file: str) -> None:
        self._file = file

    def start(self, size: int, draws: Draws, probe: Probe | None = None, variants: int | None = None) -> None:
        """Read the file and check its numbers."""
        path = Path(self._file)
        allowed = '{"batches": [[picture numbers], …]}'
        try:
            batches = json.loads(path.read_text(encoding="utf-8"))["batches"]
            self._batches = [torch.tensor(batch, dtype=torch.int64) for batch in batches]
        except FileNotFoundError:
            raise AugendError(f"order given: {path.absolute()}: there is no such file") from None
        except (OSError, ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
            raise AugendError(f"order given: {path}: holds no {allowed} ({type(error).__name__})") from None
        digest = hashlib.sha256(json.dumps(batches).encode()).digest()
        self._fingerprint = torch.frombuffer(bytearray(digest), dtype=torch.int64)
        for number, batch in enumerate(self._batches):
            if batch.ndim != 1 or not len(batch):
                raise AugendError(
                    f"order given: {path}: batch {number} is no list of picture numbers; allowed: {allowed}"
                )
            if not 0 <= int(batch.min()) <= int(batch.max()) < size:
                raise AugendError(f"order given: {path}: batch {number} has a number outside 0 .. {size - 1}")

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
