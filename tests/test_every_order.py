"""Every order of an epoch: the tree of prefixes against training each order from its start."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from augend import AugendError
from augend.order import Copies, every_order, judge_copies, renew_statistics

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "plain": lambda p: torch.optim.SGD(p, lr=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
}


def _made(batches: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 2), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 25, 2)
    )  # fmt: skip
    return model, torch.randn(batches, 8, 1, 6, 6), torch.randint(2, (batches, 8))


def _naive(model: nn.Module, make: Any, x: Tensor, y: Tensor, order: tuple[int, ...], epochs: int = 1) -> nn.Module:
    model = copy.deepcopy(model).train()
    optimizer = make(model.parameters())
    for _ in range(epochs):
        for number in order:
            optimizer.zero_grad()
            functional.cross_entropy(model(x[number]), y[number]).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("chunk", [1, 6, None])
def test_every_order_is_trained_as_by_itself(optimizer: str, chunk: int | None) -> None:
    model, x, y = _made(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make = OPTIMIZERS[optimizer]
    found = every_order(model, make, list(zip(x, y, strict=True)), chunk=chunk)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.steps == 4 + 12 + 24 + 24
    assert found.orders.tolist() == [list(order) for order in itertools.permutations(range(4))]
    for number in (0, 7, 23):
        alone = _naive(model, make, x, y, tuple(found.orders[number].tolist())).state_dict()
        for name, value in {**found.copies.weights, **found.copies.buffers}.items():
            torch.testing.assert_close(value[number], alone[name], atol=2e-5, rtol=1e-4)
            assert chunk != 1 or torch.equal(value[number], alone[name])  # one at a time the bits are the same


@pytest.mark.parametrize("chunk", [1, 6])
def test_weights_that_need_no_gradient_stay(chunk: int) -> None:
    model, x, y = _made(3)
    model[0].weight.requires_grad_(False)
    found = every_order(model, OPTIMIZERS["adam"], list(zip(x, y, strict=True)), chunk=chunk)
    assert list(found.copies.weights) == [name for name, _ in model.named_parameters()]
    assert (found.copies.weights["0.weight"] == model[0].weight).all() and "0.weight" not in found.copies.state
    assert not (found.copies.weights["0.bias"] == model[0].bias).all()
    assert not model[0].weight.requires_grad and model[0].bias.requires_grad and model[0].bias.grad is None


class Scaled(nn.Module):
    """A network with a weight that is a single number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.last = nn.Linear(36, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.last(x.flatten(1))


@pytest.mark.parametrize("chunk", [1, 6])
def test_weights_that_the_loss_does_not_reach_are_refused(chunk: int) -> None:
    _, x, y = _made(3)
    model = Scaled()
    model.unused = nn.Linear(2, 2)
    with pytest.raises(AugendError, match=r"unused.weight gets no gradient from the loss; freeze it"):
        every_order(model, OPTIMIZERS["adam"], list(zip(x, y, strict=True)), chunk=chunk)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("chunk", [1, 2])
def test_weights_may_be_numbers(optimizer: str, chunk: int) -> None:
    _, x, y = _made(3)
    torch.manual_seed(0)
    model, make = Scaled(), OPTIMIZERS[optimizer]
    found = every_order(model, make, list(zip(x, y, strict=True)), chunk=chunk)
    for number in range(6):
        alone = _naive(model, make, x, y, tuple(found.orders[number].tolist())).state_dict()
        torch.testing.assert_close(found.copies.weights["scale"][number], alone["scale"], atol=1e-5, rtol=1e-4)


def test_the_best_orders_are_the_naive_ones() -> None:
    """Held-out losses of all 120 orders of five batches: the best and the top 12 are those of training each by itself."""
    model, x, y = _made(5)
    held, labels = torch.randn(64, 1, 6, 6), torch.randint(2, (64,))
    found = every_order(model, OPTIMIZERS["sgd"], list(zip(x, y, strict=True)), chunk=12)
    losses, accuracies = judge_copies(model, found.copies, held, labels, rows=16)
    slow = []
    for order in itertools.permutations(range(5)):
        trained = _naive(model, OPTIMIZERS["sgd"], x, y, order)
        with torch.no_grad():
            out = trained(held)
        slow.append((float(functional.cross_entropy(out, labels)), float((out.argmax(1) == labels).float().mean())))
    torch.testing.assert_close(losses, torch.tensor([loss for loss, _ in slow]), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(accuracies, torch.tensor([right for _, right in slow]), atol=0.02, rtol=0)
    assert losses.argsort()[:12].tolist() == torch.tensor([loss for loss, _ in slow]).argsort()[:12].tolist()
    together, _ = judge_copies(model, found.copies, held, labels, rows=16, chunk=7)
    torch.testing.assert_close(together, losses, atol=1e-5, rtol=1e-5)


def test_goes_on_from_a_copy_with_its_momentum() -> None:
    model, x, y = _made(3)
    batches = list(zip(x, y, strict=True))
    first = every_order(model, OPTIMIZERS["sgd"], batches)
    second = every_order(model, OPTIMIZERS["sgd"], batches, start=first.copies.take([0]))
    alone = _naive(model, OPTIMIZERS["sgd"], x, y, (0, 1, 2), epochs=2).state_dict()
    for name, value in second.copies.weights.items():
        torch.testing.assert_close(value[0], alone[name], atol=2e-5, rtol=1e-4)
    loaded, *_ = _made(3)
    second.copies.load_into(loaded, 0)
    assert torch.equal(loaded[4].weight, second.copies.weights["4.weight"][0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("chunk", [1, 2])
def test_goes_on_from_a_model_with_its_optimizer(optimizer: str, chunk: int) -> None:
    """What the optimizer remembers of training goes on, as if the epoch had simply come next; scalar weights included."""
    _, x, y = _made(3)
    torch.manual_seed(0)
    model, make = Scaled(), OPTIMIZERS[optimizer]
    trained = copy.deepcopy(model)
    stepper = make(trained.parameters())
    for number in range(3):
        stepper.zero_grad()
        functional.cross_entropy(trained(x[number]), y[number]).backward()
        stepper.step()
    start = Copies.of(trained, stepper)
    found = every_order(model, make, list(zip(x, y, strict=True)), start=start, chunk=chunk)
    stepper.zero_grad()
    functional.cross_entropy(trained(x[0]), y[0]).backward()
    stepper.step()  # the copy is no view of what goes on
    alone = _naive(model, make, x, y, (0, 1, 2), epochs=2).state_dict()
    for name, value in found.copies.weights.items():
        torch.testing.assert_close(value[0], alone[name], atol=2e-5, rtol=1e-4)
    loaded = Scaled()
    again = make(loaded.parameters())
    start.load_into(loaded, 0, again)
    for number in range(3):
        again.zero_grad()
        functional.cross_entropy(loaded(x[number]), y[number]).backward()
        again.step()
    torch.testing.assert_close(loaded.last.weight, alone["last.weight"], atol=2e-5, rtol=1e-4)


def test_copies_are_judged_where_the_pictures_lie() -> None:
    """A device of its own, as a GPU is: what is summed there cannot be added to numbers on the CPU."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2)).to("meta")
    x, y = torch.empty(10, 1, 6, 6, device="meta"), torch.empty(10, dtype=torch.int64, device="meta")
    for chunk in (1, 2):
        losses, right = judge_copies(model, Copies.of(model), x, y, rows=4, chunk=chunk)
        assert losses.device == right.device == x.device and losses.shape == (1,)


def test_batches_may_follow_the_position() -> None:
    """Random crops of the paper are drawn by the step, not by the batch."""
    model, x, y = _made(3)
    shifted = every_order(model, OPTIMIZERS["plain"], lambda position: (x + 0.1 * position, y), 3)
    order = shifted.orders[4].tolist()
    trained = copy.deepcopy(model).train()
    optimizer = OPTIMIZERS["plain"](trained.parameters())
    for position, number in enumerate(order):
        optimizer.zero_grad()
        functional.cross_entropy(trained(x[number] + 0.1 * position), y[number]).backward()
        optimizer.step()
    torch.testing.assert_close(shifted.copies.weights["0.weight"][4], trained[0].weight.detach(), atol=2e-5, rtol=1e-4)


def test_what_cannot_be_tried() -> None:
    model, x, y = _made(3)
    batches = list(zip(x, y, strict=True))
    for dropout in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout):
        with pytest.raises(AugendError, match="dropout draws other masks"):
            every_order(nn.Sequential(model, dropout(0.5)), OPTIMIZERS["sgd"], batches)
    with pytest.raises(
        AugendError, match=r"batch 2 has inputs of shape \(5, 1, 6, 6\), batch 0 of \(8, 1, 6, 6\)"
    ) as told:
        every_order(model, OPTIMIZERS["sgd"], [*batches[:2], (x[2, :5], y[2, :5])])
    assert "\n" not in str(told.value)
    with pytest.raises(AugendError, match="an epoch of 10 batches"):
        every_order(model, OPTIMIZERS["sgd"], [batches[0]] * 10)
    with pytest.raises(AugendError, match="count"):
        every_order(model, OPTIMIZERS["sgd"], lambda position: (x, y))
    with pytest.raises(AugendError, match="goes on from one copy, found 6"):
        every_order(model, OPTIMIZERS["sgd"], batches, start=every_order(model, OPTIMIZERS["sgd"], batches).copies)
    assert len(Copies.of(model)) == 1
    for chunk in (0, -1):
        with pytest.raises(AugendError, match=f"chunk is {chunk}; it must be a whole number from 1 on"):
            every_order(model, OPTIMIZERS["sgd"], batches, chunk=chunk)
    with pytest.raises(AugendError, match="there are no batches"):
        every_order(model, OPTIMIZERS["sgd"], [])


def test_renewed_statistics_are_those_of_the_pictures_under_each_copys_weights() -> None:
    """By hand: the mean and the unbiased variance of what batch norm is given, of every copy."""
    model, x, y = _made(3)
    found = every_order(model, OPTIMIZERS["sgd"], list(zip(x, y, strict=True)))
    before = {name: value.clone() for name, value in found.copies.buffers.items()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    pictures = torch.randn(40, 1, 6, 6)
    renewed = renew_statistics(model, found.copies, pictures)
    for number in range(len(renewed)):
        weight, bias = (found.copies.weights[f"0.{name}"][number] for name in ("weight", "bias"))
        seen = functional.conv2d(pictures, weight, bias).relu()
        torch.testing.assert_close(renewed.buffers["2.running_mean"][number], seen.mean((0, 2, 3)))
        torch.testing.assert_close(renewed.buffers["2.running_var"][number], seen.var((0, 2, 3)))
    assert all(torch.equal(value, before[name]) for name, value in found.copies.buffers.items())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert renewed.weights is found.copies.weights and renewed.state is found.copies.state
    losses, _ = judge_copies(model, renewed, x[0], y[0])
    alone = copy.deepcopy(model)
    renewed.load_into(alone, 2)
    torch.testing.assert_close(losses[2], functional.cross_entropy(alone.eval()(x[0]), y[0]).detach())


def test_a_model_without_batch_norm_has_nothing_to_renew() -> None:
    model = nn.Linear(3, 2)
    copies = Copies.of(model)
    assert renew_statistics(model, copies, torch.randn(4, 3)).buffers == {}
