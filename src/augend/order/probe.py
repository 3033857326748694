"""The probe of a bare loop: how an order sees the model of somebody's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from augend.contract import AugendError, Batch, Losses, Picks

__all__ = ["LoopProbe"]

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]


class LoopProbe:
    """What an order needs to score by a model: one in a bare loop, on one process.

    Args:
        model: called on float32 ``(rows, ...)``; its parameters are those of `optimizer`.
        optimizer: any of torch's.
        fetch: picture numbers, int64 ``(rows,)``, -> inputs and int64 labels, as training sees them.
        loss: logits and labels -> float32 ``(rows,)``.
        held: inputs and labels of held-out pictures, for scores on an external batch.
        scores: float32 ``(size,)``, one a picture, for orders by given scores or by a teacher's.
        clip: largest gradient norm of a step, where the loop clips.

    Example:
        >>> from augend import Draws
        >>> from augend.order import ByDelta
        >>> torch.manual_seed(0); x, y = torch.randn(64, 4), torch.arange(64) % 2
        <torch._C.Generator object at ...>
        >>> model = nn.Linear(4, 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> order = ByDelta(candidates=4, against="same")
        >>> order.start(64, Draws(0, "order"), LoopProbe(model, optimizer, lambda index: (x[index], y[index])))
        >>> for step in range(8):
        ...     index = order.next(step, rows=16).index[:, 0]
        ...     optimizer.zero_grad()
        ...     functional.cross_entropy(model(x[index]), y[index]).backward()
        ...     optimizer.step()
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        fetch: Fetch,
        *,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        held: tuple[Tensor, Tensor] | None = None,
        scores: Tensor | None = None,
        clip: float | None = None,
    ) -> None:
        self.model, self.optimizer, self.clip = model, optimizer, clip
        self.rank, self.ranks = 0, 1
        self.held = 0 if held is None else len(held[1])
        self._fetch, self._held, self._scores = fetch, held, scores
        self._loss = loss or (lambda logits, labels: functional.cross_entropy(logits, labels, reduction="none"))

    def batch(self, picks: Picks, *, redrawn: bool = False) -> Batch:
        """The pictures of these rows, fetched."""
        if picks.index.shape[1] != 1:
            raise AugendError("a LoopProbe shows rows of one picture; sums of pictures need a probe of your own")
        return self.training(picks.index[:, 0])

    def training(self, index: Tensor) -> Batch:
        """Training pictures by their numbers."""
        x, labels = self._fetch(index)
        return Batch({"x": x}, labels, index)

    def external(self, index: Tensor) -> Batch:
        """Held-out pictures by their numbers."""
        if self._held is None:
            raise AugendError("scores on an external batch need held-out pictures: LoopProbe(…, held=(inputs, labels))")
        return Batch({"x": self._held[0][index]}, self._held[1][index], index)

    def loss(self, state: Mapping[str, Tensor] | None, batch: Batch) -> Losses:
        """Of a batch under the live weights, or with those in `state` in their place."""
        inputs = (batch.views["x"],)
        logits = self.model(*inputs) if state is None else torch.func.functional_call(self.model, dict(state), inputs)
        rows = self._loss(logits, batch.targets)
        return Losses({"loss": rows.mean()}, rows.detach())

    def gather(self, scores: Tensor) -> Tensor:
        """One process has them all."""
        return scores

    def table(self, file: str, column: str) -> Tensor:
        """The scores that were given, whatever file an order names."""
        if self._scores is None:
            raise AugendError("an order by given scores needs them: LoopProbe(…, scores=tensor)")
        return self._scores

    def taught(self, network: str, column: str) -> Tensor:
        """The scores that were given, whatever teacher an order names."""
        return self.table(network, column)
