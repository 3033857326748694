"""FLOPs against closed forms, and the ledger."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from augend.contract import Component
from augend.cost import PARTS, EmbeddingCost, Flops, Ledger, count_flops
from augend.models import build

CONVOLUTIONS = {
    "plain": (nn.Conv2d(6, 8, 3, padding=1), (9, 7), 6),
    "strided": (nn.Conv2d(6, 8, 3, stride=2, padding=1), (5, 4), 6),
    "grouped": (nn.Conv2d(6, 8, 3, padding=1, groups=2), (9, 7), 3),
    "depthwise": (nn.Conv2d(6, 6, 5, padding=2, groups=6), (9, 7), 1),
    "pointwise": (nn.Conv2d(6, 8, 1, bias=False), (9, 7), 6),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(kind: str) -> None:
    conv, (height, width), channels_in = CONVOLUTIONS[kind]
    x = torch.zeros(4, 6, 9, 7)
    kernel = conv.kernel_size[0] * conv.kernel_size[1]
    forward = 2 * 4 * conv.out_channels * height * width * channels_in * kernel
    assert count_flops(conv, x) == Flops(forward, forward)  # the weights alone: pixels need no gradient
    assert count_flops(conv, x.clone().requires_grad_()) == Flops(forward, 2 * forward)
    assert count_flops(conv, x, backward=False) == Flops(forward, 0)


def test_transposed_convolution() -> None:
    conv = nn.ConvTranspose2d(6, 8, 3, stride=2, groups=2)
    forward = 2 * 4 * (9 * 7) * 6 * (8 // 2) * 9
    assert count_flops(conv, torch.zeros(4, 6, 9, 7, requires_grad=True)) == Flops(forward, 2 * forward)


def test_linear_batch_norm_and_activation() -> None:
    forward = 2 * 4 * 10 * 20
    x = torch.zeros(4, 10, requires_grad=True)
    assert count_flops(nn.Linear(10, 20), x) == Flops(forward, 2 * forward)
    assert count_flops(nn.Linear(10, 20), torch.zeros(2, 2, 10)) == Flops(forward, forward)
    assert count_flops(nn.BatchNorm2d(3), torch.zeros(4, 3, 5, 5)) == Flops(0, 0)  # element by element: nothing
    assert count_flops(nn.Sequential(nn.ReLU(), nn.MaxPool1d(2)), x) == Flops(0, 0)


class Attention(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v)


def test_attention() -> None:
    rows, heads, tokens, width = 2, 3, 17, 8
    q, k, v = (torch.zeros(rows, heads, tokens, width, requires_grad=True) for _ in range(3))
    forward = 2 * (2 * rows * heads * tokens * tokens * width)  # q k^T and (scores) v
    assert count_flops(Attention(), q, k, v) == Flops(forward, 2 * forward)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    x = torch.zeros(2, 5, 16)
    products = 2 * 2 * 5 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * (2 * 2 * 2 * 5 * 5 * 8)
    assert count_flops(layer, x).forward == products
    assert count_flops(layer.eval(), x, backward=False).forward == products  # torch's fused path counts too


@pytest.mark.parametrize("word", ["resnet18", "convnext_atto", "efficientnet_b0", "vit_tiny_patch16_224"])
def test_total_over_forward_of_whole_networks(word: str) -> None:
    net = build(Component(word), shape=(3, 64, 64), classes=10, generator_seed=0)
    flops = count_flops(net, torch.zeros(2, 3, 64, 64))
    assert 2.5 < flops.total / flops.forward < 3.05


def test_forward_of_a_known_network() -> None:
    net = build(Component("resnet18"), shape=(3, 224, 224), classes=1000, generator_seed=0)
    assert count_flops(net, torch.zeros(1, 3, 224, 224), backward=False).forward == 2 * 1_814_073_344  # 1.81 GMAC


def test_frozen_parts_are_credited() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4)))
    one = 2 * 3 * 8 * 8
    x = torch.zeros(3, 8)
    assert count_flops(model, x) == Flops(4 * one, 7 * one)  # no gradient to the input
    model[:2].requires_grad_(False)
    assert count_flops(model, x) == Flops(4 * one, 3 * one)  # nothing below the cut, and none to its tensor
    model.requires_grad_(False)
    assert count_flops(model, x) == Flops(4 * one, 0)
    net = build(Component("resnet", {"depth": 8}), shape=(3, 16, 16), classes=4, generator_seed=0)
    pictures = torch.zeros(2, 3, 16, 16)
    whole = count_flops(net, pictures)
    for stage in ("stem", "layer1"):
        for parameter in net.parameters_of(stage):
            parameter.requires_grad_(False)
    half = count_flops(net, pictures)
    assert half.forward == whole.forward and half.backward < 0.75 * whole.backward


def test_figure1_by_hand() -> None:
    net = build(Component("figure1"), shape=(1, 28, 28), classes=10, generator_seed=0)
    convs = [2 * 50 * a * b * 9 * s * s for a, b, s in ((1, 4, 28), (4, 8, 14), (8, 16, 7))]
    last = 2 * 50 * 256 * 10
    forward = sum(convs) + last
    assert count_flops(net, torch.zeros(50, 1, 28, 28)) == Flops(forward, 2 * forward - convs[0])


@dataclass
class Rows:
    views: dict[str, Tensor]
    targets: Tensor
    more: tuple[Tensor, ...] = ()
    name: str = "x"


class Losses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 3))

    def forward(self, batch: Rows) -> dict[str, Tensor]:
        logits = self.net(batch.views["x"])
        return {"ce": nn.functional.cross_entropy(logits, batch.targets), "norm": logits.square().mean(1)}


class Looking(Losses):
    """Looks at values, which a copy without them does not have."""

    def forward(self, batch: Rows) -> dict[str, Tensor]:
        kept = batch.views["x"][batch.views["x"].sum(1) > -1]
        return super().forward(Rows({"x": kept}, batch.targets[: len(kept)]))


@pytest.mark.parametrize("kind", [Losses, Looking])
def test_structures_and_what_is_left_alone(kind: type[Losses]) -> None:
    module = kind()
    module.net[3].weight.requires_grad_(False)
    batch = Rows({"x": torch.zeros(4, 6)}, torch.zeros(4, dtype=torch.int64), (torch.ones(2),))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    low, high = 2 * 4 * 6 * 5, 2 * 4 * 5 * 3
    assert count_flops(module, batch) == Flops(low + high, low + high)  # weights of the first, input of the last
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(torch.get_rng_state(), state) and all(p.grad is None for p in module.parameters())
    assert next(module.parameters()).device.type == "cpu" and torch.backends.mha.get_fastpath_enabled()


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ledger_by_phase_and_part() -> None:
    clock = Hands()
    ledger = Ledger(clock)
    ledger.phase("plain")
    for _ in range(3):
        clock.now += 1.0
        ledger.lap("data")
        clock.now += 2.0
        ledger.lap("step")
        ledger.charge(rows=50, pictures=100, forward=1, backward=1, flops=10**15)
    clock.now += 7.0
    ledger.restart()  # saving: nobody's
    clock.now += 5.0
    ledger.lap("evaluation")
    clock.now += 9.0
    ledger.phase("tune")
    clock.now += 0.1
    ledger.lap("cache")
    ledger.charge(rows=1, forward=2)
    ledger.observe_memory()
    plain, tune, total = ledger.phases["plain"], ledger.phases["tune"], ledger.total()
    assert dict(zip(PARTS, plain.seconds, strict=True)) == {
        "decoding": 0.0, "data": 3.0, "augment": 0.0, "step": 6.0, "cache": 0.0, "evaluation": 5.0, "order": 0.0, "bank": 0.0,
    }  # fmt: skip
    assert plain.training_seconds == 9.0 and tune.training_seconds == pytest.approx(0.1)
    assert (total.rows, total.pictures, total.forward, total.backward, total.flops) == (151, 300, 5, 3, 3 * 10**15)
    assert total.memory == tune.memory > 10_000_000 and plain.memory == 0
    ledger.phase("plain")
    ledger.charge(rows=1)
    assert ledger.phases["plain"].rows == 151


def test_ledger_goes_on_from_where_it_was() -> None:
    one = Ledger()
    one.phase("plain")
    for _ in range(10):
        one.charge(rows=3, pictures=3, forward=1, backward=1, flops=2**70)
        one.lap("step")
    state = json.loads(json.dumps(one.state_dict()))
    two = Ledger()
    two.load_state_dict(state)
    assert two.state_dict() == one.state_dict() and two.to_json() == one.to_json()
    for ledger in (one, two):
        ledger.phase("plain").seconds[:] = [0.0] * len(PARTS)
        ledger.charge(rows=1)
    assert two.state_dict() == one.state_dict()
    written = json.loads(one.to_json())
    assert written["phases"]["plain"]["rows"] == written["total"]["rows"] == 31
    assert written["total"]["flops"] == 10 * 2**70 and "training_seconds" in written["total"]


def test_ledger_is_lean() -> None:
    ledger = Ledger()
    ledger.phase("plain")
    best = float("inf")
    for _ in range(5):
        begin = time.process_time()
        for _ in range(2000):
            ledger.lap("data")
            ledger.charge(rows=50, pictures=50, forward=1, backward=1, flops=1000)
            ledger.lap("step")
        best = min(best, (time.process_time() - begin) / 2000)
    assert best < 10e-6  # 2 us on a quiet machine


@pytest.mark.parametrize("fitting", [0.0, 3.0, 499.0, 500.5, 4900.0])
def test_the_views_from_which_omega_pays_are_those_at_which_the_ratio_passes_1(fitting: float) -> None:
    cost = EmbeddingCost(trunk=490.0, augmenter=1.0, head=0.7, pixels=11.0, fitting=fitting)
    first = next(views for views in range(1, 100) if cost.ratio(views) > 1)
    assert cost.pays_from() == first
    assert EmbeddingCost(trunk=1.0, augmenter=2.0, head=0.7).pays_from() is None


def test_equation_8_as_printed() -> None:
    cost = EmbeddingCost(trunk=490.0, augmenter=0.3, head=0.7)
    assert cost.ratio(10, printed=True) == pytest.approx(10 * 490.7 / (490 + 10 * 1.0))
    assert cost.ratio(1) == 1.0 > cost.ratio(1, printed=True)
