"""What can be seen of an order while it is trained: numbers at each position that might tell a good order from a bad one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from augend.contract import AugendError
from augend.order.every import Copies
from augend.order.trial import evaluating, in_mode

__all__ = ["MEASURES", "measure_orders"]

MEASURES = {
    "loss": "loss of the batch as the step sees it",
    "delta": "how far the step lowers the batch's loss, in evaluation mode",
    "gradient": "norm of the step's gradient",
    "held-out": "cosine of the step's gradient with that of held-out pictures",
    "previous": "cosine of the update with the one before it; none at the first position",
    "balance": "entropy of the batch's labels over that of equal shares",
    "distance": "how far the weights are from their start after the step, L2",
}
Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def measure_orders(
    model: nn.Module,
    optimizer: Callable[[Iterable[Tensor]], Optimizer],
    batches: Sequence[Batch],
    orders: Tensor,
    *,
    held: Batch,
    classes: int,
    loss: Loss = functional.cross_entropy,
    start: Copies | None = None,
) -> dict[str, Tensor]:
    """Train a model through batches in some orders, each from the same start, and measure every step.

    Args:
        model: where every order starts, unless `start` is given; left as it is. Weights that need no gradient stay; others
            that the loss does not reach are refused.
        optimizer: makes one of torch's over the tensors that it is given.
        batches: inputs and labels of each.
        orders: int64 ``(orders, n)``: which batch comes at each position.
        held: inputs and labels of held-out pictures, for their gradient.
        classes: of the labels.
        loss: logits ``(rows, classes)`` and labels -> scalar.
        start: one copy to go on from, its optimizer's state included.

    Returns:
        Name of a measure (`MEASURES` says what each is) -> float32 ``(orders, n)``; nan where there is none.

    Cost:
        Five passes of a batch and three of the held-out pictures a step; steps that orders begin with alike are taken once.

    Example:
        >>> x, y = torch.randn(3, 4, 5), torch.tensor([[0, 1, 0, 1]] * 3)
        >>> def sgd(weights): return torch.optim.SGD(weights, lr=0.1)
        >>> orders = torch.tensor([[0, 1, 2], [0, 2, 1]])
        >>> found = measure_orders(nn.Linear(5, 2), sgd, list(zip(x, y)), orders, held=(x[0], y[0]), classes=2)
        >>> found["loss"].shape, bool(found["loss"][0, 0] == found["loss"][1, 0])
        (torch.Size([2, 3]), True)

    Source: training procedure augmentations, the future work on perfect ordering.
    """
    if orders.ndim != 2 or not 0 <= int(orders.min()) <= int(orders.max()) < len(batches):
        raise AugendError(f"measure_orders: orders are numbers of {len(batches)} batches, int64 (orders, n)")
    out = {name: torch.full(orders.shape, math.nan) for name in MEASURES}
    if start is not None and len(start) != 1:
        raise AugendError(f"measure_orders: goes on from one copy, found {len(start)}; take one: copies.take([number])")
    walk = _Walk(batches, held, classes, loss, orders, out)
    own = copy.deepcopy(model)
    made = optimizer([weight for weight in own.parameters() if weight.requires_grad])
    if start is not None:
        start.load_into(own, 0, made)
    walk.on(_Trained(own, made, _flat(own), None), list(range(len(orders))), 0)
    return out


class _Trained:
    """A model in the middle of an order, and the update that brought it there."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, start: Tensor, update: Tensor | None) -> None:
        self.model, self.optimizer, self.start, self.update = model, optimizer, start, update


class _Walk:
    """Down the tree of the orders' beginnings."""

    def __init__(
        self,
        batches: Sequence[Batch],
        held: Batch,
        classes: int,
        loss: Loss,
        orders: Tensor,
        out: dict[str, Tensor],
    ) -> None:
        self._batches, self._held, self._classes, self._loss = batches, held, classes, loss
        self._orders, self._out = orders.tolist(), out

    def on(self, at: _Trained, numbers: list[int], position: int) -> None:
        """Measure the next step of these orders, which are alike so far, and go on from each."""
        if position == len(self._orders[0]):
            return
        weights = {name: weight for name, weight in at.model.named_parameters() if weight.requires_grad}
        with evaluating(at.model):
            lost = self._loss(at.model(self._held[0]), self._held[1])
        found = dict(zip(weights, torch.autograd.grad(lost, list(weights.values()), allow_unused=True), strict=True))
        unreached = [name for name, gradient in found.items() if gradient is None]
        if unreached:
            raise AugendError(
                f"measure_orders: {unreached[0]} gets no gradient from the loss; freeze it: requires_grad_(False)"
            )
        outside = _joined(gradient for gradient in found.values() if gradient is not None)

        def batch_of(number: int) -> int:
            return int(self._orders[number][position])

        for batch, some in groupby(sorted(numbers, key=batch_of), key=batch_of):
            going = list(some)
            child = copy.deepcopy(at)
            for name, value in self._step(child, self._batches[batch], outside).items():
                self._out[name][going, position] = value
            self.on(child, going, position + 1)

    def _step(self, at: _Trained, batch: Batch, outside: Tensor) -> dict[str, float]:
        x, y = batch
        before, weights = self._clean(at.model, batch), _flat(at.model)
        at.optimizer.zero_grad()
        with in_mode(at.model, training=True):
            seen = self._loss(at.model(x), y)
            seen.backward()  # type: ignore[no-untyped-call]
        moving = [weight for weight in at.model.parameters() if weight.requires_grad]
        gradient = _joined([torch.zeros_like(w) if w.grad is None else w.grad for w in moving])
        at.optimizer.step()
        update = _flat(at.model) - weights
        shares = y.bincount(minlength=self._classes) / len(y)
        found = {
            "loss": float(seen.detach()),
            "delta": before - self._clean(at.model, batch),
            "gradient": float(gradient.norm()),
            "held-out": float(functional.cosine_similarity(gradient, outside, dim=0)),
            "balance": float(torch.special.entr(shares).sum()) / math.log(max(2, self._classes)),
            "distance": float((_flat(at.model) - at.start).norm()),
        }
        if at.update is not None:
            found["previous"] = float(functional.cosine_similarity(update, at.update, dim=0))
        at.update = update
        return found

    def _clean(self, model: nn.Module, batch: Batch) -> float:
        with torch.no_grad(), evaluating(model):
            return float(self._loss(model(batch[0]), batch[1]))


def _flat(model: nn.Module) -> Tensor:
    return _joined([weight.detach() for weight in model.parameters() if weight.requires_grad])


def _joined(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])
