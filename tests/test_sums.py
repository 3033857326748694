"""Sums of pictures: coefficients, exact proportions, a step, maps inside a network."""

# ruff: noqa: E501
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

import augend
from augend import SamplePairing, SumAugmentation, gradual_coefficients
from augend.augment.chain import Chain
from augend.augment.colour import Brightness
from augend.augment.geometry import HFlip, PaddedCrop
from augend.augment.grid import grid
from augend.augment.mix import soft_targets
from augend.contract import AugendError, Augment, Mixing, Pairing, Picks
from augend.cost import count_flops
from augend.data import load
from augend.objective.classification import BinaryCrossEntropy, CrossEntropy
from augend.randomness import Draws
from augend.runner.assembly import Scene, build_networks, stage
from augend.runner.banks import fill_banks, worth_caching
from augend.runner.charge import step_cost
from augend.runner.job import Job, resolve_job
from augend.stages.networks import Networks
from runs import SMALL

UNIT, CLASSES = 2**24, 5
SEEN = torch.Generator().manual_seed(0)
PICTURES = torch.randint(0, 256, (24, 3, 16, 11), dtype=torch.uint8, generator=SEEN)
Y = torch.randint(CLASSES, (24,), generator=SEEN)
PICKED = torch.randperm(200, generator=SEEN)[:160].view(20, 8)  # of the small digits

# ------------------------------------------------------------------ coefficients


def formula(start: int, progress: float) -> list[float]:
    """As papers write it, without rounding."""
    gone = math.floor(progress * (start - 1) + 1e-12)
    left, part = start - gone, max(0.0, progress * (start - 1) - gone)
    if left == 1:
        return [1.0] + [0.0] * (start - 1)
    return [1 / left + part / (left * (left - 1))] * (left - 1) + [(1 - part) / left] + [0.0] * gone


@pytest.mark.parametrize("start", [1, 2, 3, 4, 5, 7, 8, 12])
def test_coefficients_on_a_grid(start: int) -> None:
    before: Tensor | None = None
    for number in range(201):
        progress = number / 200
        found = gradual_coefficients(start, progress)
        assert found.dtype == torch.float32 and found.shape == (start,)
        assert float(found.sum()) == float(found.flip(0).sum()) == 1.0  # exactly, in any order
        assert torch.equal(found.double() * UNIT, (found.double() * UNIT).round())
        assert bool((found >= 0).all()) and torch.equal(found, found.sort(descending=True).values)
        torch.testing.assert_close(found, torch.tensor(formula(start, progress)), atol=start / UNIT, rtol=0)
        assert int((found > 0).sum()) <= SumAugmentation(gradual=max(2, start)).sources(progress) or start == 1
        if before is not None:
            assert float((found - before).abs().max()) <= (start - 1) / 200 / 2 + start / UNIT or start == 2
        before = found


@pytest.mark.parametrize("start", [2, 3, 4, 8])
def test_where_intervals_meet(start: int) -> None:
    for gone in range(start):
        left = start - gone
        here = gradual_coefficients(start, gone / (start - 1))
        torch.testing.assert_close(here[:left], torch.full((left,), 1 / left), atol=start / UNIT, rtol=0)
        assert not here[left:].any()
        if gone:
            just_before = gradual_coefficients(start, gone / (start - 1) - 1e-5)
            assert just_before[left] < 1e-4  # the last one goes without a jump
            torch.testing.assert_close(just_before, here, atol=1e-4, rtol=0)
    assert gradual_coefficients(start, 1.0).tolist() == [1.0] + [0.0] * (start - 1)


@pytest.mark.parametrize(
    ("start", "progress", "printed"),
    [
        (4, 0.0, [0.25, 0.25, 0.25, 0.25]),
        (4, 0.1, [0.275, 0.275, 0.275, 0.175]),
        (4, 1 / 3, [0.3333, 0.3333, 0.3333, 0.0]),
        (4, 0.5, [0.4167, 0.4167, 0.1667, 0.0]),
        (4, 0.9, [0.85, 0.15, 0.0, 0.0]),
        (8, 0.5, [0.225] * 4 + [0.1, 0, 0, 0]),
        (8, 0.9, [0.65, 0.35, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_examples(start: int, progress: float, printed: list[float]) -> None:
    assert gradual_coefficients(start, progress).tolist() == pytest.approx(printed, abs=5e-5)


@pytest.mark.parametrize("steps", [1, 7, 12, 35, 49, 77, 1000, 1029])
def test_pictures_a_row_are_counted_without_rounding(steps: int) -> None:
    """Where a picture leaves, progress times seven is a whole number that floats may miss by a bit."""
    found = [SumAugmentation(gradual=8).sources(step / steps) for step in range(steps)]
    assert found == [8 - step * 7 // steps for step in range(steps)]


# ------------------------------------------------------------------ the component


@pytest.mark.parametrize("k", [2, 3, 8, 129])
def test_integers_are_added(k: int) -> None:
    pictures = torch.randint(0, 256, (2 * k, 3, 5, 4), dtype=torch.uint8)
    sides = list(pictures.view(2, k, 3, 5, 4).unbind(1))
    labels = torch.randint(CLASSES, (2, k))
    tables = list(soft_targets(labels, CLASSES).unbind(1))
    add = SumAugmentation(k)
    mixed, targets = add.mix(sides, tables, add.draw(Draws(0, "s", keys=2), 0.0))
    whole = torch.stack(sides).long().sum(0)
    assert mixed.dtype == torch.float32 and torch.equal(mixed, (whole.double() / (255 * k)).float())  # rounded once
    other = add.mix(sides[::-1], tables[::-1], torch.zeros(2, 0))
    assert torch.equal(mixed, other[0]) and torch.equal(targets, other[1])
    counts = torch.stack([torch.bincount(row, minlength=CLASSES) for row in labels])
    assert torch.equal(targets, (counts.double() / k).float())
    white = add.mix([torch.full_like(side, 255) for side in sides], tables, torch.zeros(2, 0))[0]
    assert torch.equal(white, torch.ones_like(white))


@pytest.mark.parametrize("progress", [0.0, 0.05, 1 / 7, 0.4, 0.93, 1.0])
def test_gradual_sums_have_the_coefficients(progress: float) -> None:
    add, draws = SumAugmentation(gradual=8), Draws(0, "s", keys=3)
    k, coefficients = add.sources(progress), gradual_coefficients(8, progress)
    sides = list(PICTURES[: 3 * k].view(3, k, 3, 16, 11).unbind(1))
    tables = list(soft_targets(Y[: 3 * k].view(3, k), CLASSES).unbind(1))
    params = add.draw(draws, progress)
    assert params.shape == (3, k) and torch.equal(params, coefficients[:k].repeat(3, 1))
    for given in (sides, [side.float() / 255 for side in sides]):
        mixed, targets = add.mix(given, tables, params)
        expected = sum(c * side.float() / 255 for c, side in zip(coefficients, sides, strict=False))
        torch.testing.assert_close(mixed, expected)
        assert float(mixed.max()) <= 1
    assert torch.equal(targets.sum(1), torch.ones(3))
    assert torch.equal(targets, sum(c * table for c, table in zip(coefficients, tables, strict=False)))


@pytest.mark.parametrize("k", [2, 3, 8])
def test_random_coefficients_are_dirichlet_and_exact(k: int) -> None:
    add = SumAugmentation(k, coefficients="beta", alpha=0.4)
    drawn = add.draw(Draws(0, "beta", keys=3000), 0.0)
    assert torch.equal(drawn.sum(1), torch.ones(3000)) and bool((drawn >= 0).all())
    assert torch.equal(drawn.double() * UNIT, (drawn.double() * UNIT).round())
    for place in range(k):
        own = drawn[:, place].double().clamp(1e-12, 1 - 1e-12).numpy()
        assert stats.kstest(own, stats.beta(0.4, 0.4 * (k - 1)).cdf).pvalue > 0.001
    rows = torch.tensor([5, 2])
    assert torch.equal(add.draw(Draws(0, "beta", keys=rows), 0.0), drawn[rows])
    tables = list(torch.eye(k).repeat(2, 1, 1).unbind(1))
    assert torch.equal(add.mix(tables, tables, drawn[:2])[1], drawn[:2])  # targets have the coefficients


def test_called_in_a_loop() -> None:
    """Every picture is in one row at most; what does not fill a row is left out; nothing is changed in place."""
    images, labels = torch.eye(11).view(11, 1, 1, 11), torch.arange(11)
    for k, rows in ((1, 11), (2, 5), (3, 3), (8, 1), (11, 1)):
        add = SumAugmentation(k, num_classes=11)
        mixed, targets = add(images, labels, Draws(0, "loop", 3))
        assert mixed.shape == (rows, 1, 1, 11) and targets.shape == (rows, 11)
        torch.testing.assert_close(mixed.flatten(1), targets)
        used = (targets > 0).sum(0)
        assert int(used.max()) == 1 and int(used.sum()) == rows * k
        torch.testing.assert_close(targets[targets > 0], torch.full((rows * k,), 1 / k))
        again = add(images, soft_targets(labels, 11), Draws(0, "loop", 3))  # soft labels in
        assert torch.equal(again[0], mixed) and torch.equal(again[1], targets)
    assert torch.equal(images, torch.eye(11).view(11, 1, 1, 11))
    seen = {tuple(SumAugmentation(2, num_classes=11)(images, labels)[1].nonzero()[:, 1].tolist()) for _ in range(20)}
    assert len(seen) > 10  # another permutation each time
    single = SumAugmentation(1, num_classes=CLASSES)
    mixed, _ = single(PICTURES.float(), Y)
    mixed.zero_()
    assert PICTURES.any()


def test_where_its_numbers_come_from() -> None:
    add = SumAugmentation(2, coefficients="beta", num_classes=CLASSES)
    first = add(PICTURES, Y, generator=torch.Generator().manual_seed(7))
    assert torch.equal(add(PICTURES, Y, generator=torch.Generator().manual_seed(7))[0], first[0])
    torch.manual_seed(5)
    second = add(PICTURES, Y)
    torch.manual_seed(5)
    assert torch.equal(add(PICTURES, Y)[1], second[1]) and not torch.equal(add(PICTURES, Y)[1], second[1])
    whole = add(PICTURES, Y, Draws(0, "a", 2, 24))
    assert torch.equal(add(PICTURES, Y, Draws(0, "a", 2))[0], whole[0])  # the rows of the draws do not matter
    assert isinstance(add, Mixing) and not isinstance(add, Augment | Pairing)
    assert whole[0].dtype == torch.float32 and 0 <= float(whole[0].min()) <= float(whole[0].max()) <= 1
    wide = SumAugmentation(3)(PICTURES.double(), soft_targets(Y, CLASSES).double(), Draws(0, "a"))
    assert wide[0].dtype == wide[1].dtype == torch.float64
    half = SumAugmentation(3)(PICTURES.bfloat16(), soft_targets(Y, CLASSES), Draws(0, "a"))
    full = SumAugmentation(3)(PICTURES.float(), soft_targets(Y, CLASSES), Draws(0, "a"))
    assert torch.equal(half[0], (full[0]).bfloat16())


def test_gradual_in_a_loop() -> None:
    add = SumAugmentation(gradual=4, num_classes=CLASSES)
    rows = [len(add(PICTURES, Y, Draws(0, "g", 0), progress=progress)[1]) for progress in (0, 0.34, 0.67, 1)]
    assert rows == [6, 8, 12, 24]
    mixed, targets = add(PICTURES[:4], torch.arange(4), Draws(0, "g", 0), progress=0.5)
    assert sorted(targets[0].tolist(), reverse=True) == [*gradual_coefficients(4, 0.5).tolist(), 0.0][:5]
    assert mixed.shape == (1, 3, 16, 11)


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (SumAugmentation, "k .* or gradual .* must be given, one of them"),
        (lambda: SumAugmentation(2, gradual=8), "one of them"),
        (lambda: SumAugmentation(0), "k must be a whole number from 1, found 0"),
        (lambda: SumAugmentation(gradual=1), "gradual must be a whole number from 2, found 1"),
        (lambda: SumAugmentation(2.0), "k must be a whole number from 1, found 2.0"),
        (lambda: SumAugmentation(2, coefficients="uniform"), "coefficients must be 'equal' or 'beta', found 'uniform'"),
        (lambda: SumAugmentation(gradual=2, coefficients="beta"), "gradual has coefficients of its own"),
        (lambda: SumAugmentation(2, alpha=0), "alpha must be a number of at least"),
        (lambda: SumAugmentation(25, num_classes=5)(PICTURES, Y), "a row is made of 25 images, and there are 24"),
        (lambda: SumAugmentation(2)(PICTURES, Y), "num_classes is needed"),
        (lambda: SumAugmentation(2, num_classes=2)(PICTURES, Y), "a label lies outside 0 .. 1"),
        (lambda: SumAugmentation(2, num_classes=5)(PICTURES, Y / 5), "must be whole class numbers"),
        (lambda: SumAugmentation(2, num_classes=9)(PICTURES, torch.rand(24, 5)), "labels have 5 classes, num_classes says 9"),
        (lambda: SumAugmentation(2, num_classes=5)(PICTURES, Y[:3]), r"24 images need labels \(24,\) or \(24, classes\)"),
        (lambda: SumAugmentation(2, num_classes=5)(PICTURES.int(), Y), "images must be uint8 or floats, found int32"),
        (lambda: SumAugmentation(2, num_classes=5)(PICTURES, Y, Draws(0, "s"), generator=torch.Generator()), "give one of them"),
        (lambda: gradual_coefficients(0, 0.5), "start must be a whole number from 1, found 0"),
        (lambda: gradual_coefficients(4, 1.5), "progress must be a number from 0 to 1, found 1.5"),
        (lambda: SamplePairing("second"), "label must be 'first' or 'both', found 'second'"),
        (lambda: BinaryCrossEntropy(1.0), "smoothing is 1.0; it lies in"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(call: Any, fragment: str) -> None:
    with pytest.raises(AugendError, match=fragment) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_chain_adds_integers_where_nothing_needs_floats() -> None:
    draws = Draws(0, "c", keys=8)
    hot = soft_targets(Y, CLASSES)
    moves = Chain([PaddedCrop(2), HFlip(), SumAugmentation(3)])
    params = moves.draw(draws, 0.0)
    mixed, targets = moves.mixed(PICTURES, hot, params, 3)
    own, _ = moves.split(params, 3)
    single = Chain([PaddedCrop(2), HFlip()])
    moved = single.ops[1].apply(single.ops[0].apply(PICTURES, own[:, :-1]), own[:, -1:])
    assert moved.dtype == torch.uint8
    assert torch.equal(mixed, (moved.view(8, 3, 3, 16, 11).long().sum(1).double() / 765).float())
    assert torch.equal(targets, hot.view(8, 3, CLASSES).sum(1) / 3)
    brighter = Chain([Brightness(0.4), SumAugmentation(3)])
    params = brighter.draw(draws, 0.0)
    alone = Chain([Brightness(0.4)]).apply(PICTURES, brighter.split(params, 3)[0])
    assert torch.equal(brighter.mixed(PICTURES, hot, params, 3)[0], SumAugmentation(3).mix(alone.view(8, 3, 3, 16, 11).unbind(1), [hot] * 3, params[:, :0])[0])  # fmt: skip
    page = grid(PICTURES, Chain([SumAugmentation(8)]), Draws(0, "g"), columns=1)
    tile = page[:, 2:18, 15:26].float()
    torch.testing.assert_close(tile, PICTURES[:8].float().mean(0), atol=0.51, rtol=0)


def test_sample_pairing() -> None:
    x = PICTURES.float() / 255
    first, both = SamplePairing(num_classes=CLASSES), SamplePairing("both", num_classes=CLASSES)
    images, targets = first(x, Y)
    torch.testing.assert_close(images, (x + x.roll(1, 0)) / 2)
    hot = soft_targets(Y, CLASSES)
    assert torch.equal(targets, hot) and torch.equal(both(x, Y)[1], (hot + hot.roll(1, 0)) / 2)
    assert isinstance(first, Pairing)
    chain = Chain([HFlip(), SamplePairing()])
    params = chain.draw(Draws(0, "p", keys=24), 0.0)
    mixed, _ = chain.mixed(PICTURES, hot, params, torch.arange(24).roll(1))
    flipped = HFlip().apply(PICTURES, params)
    assert torch.equal(mixed, ((flipped.int() + flipped.roll(1, 0)).double() / 510).float())  # integers again


# ------------------------------------------------------------------ the losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("k", [2, 3, 8])
def test_soft_labels_are_the_mean_of_the_losses(k: int, smoothing: float) -> None:
    logits, labels = torch.randn(6, CLASSES), torch.randint(CLASSES, (6, k))
    soft = soft_targets(labels, CLASSES).mean(1)
    term = CrossEntropy(smoothing, reduction="none")
    each = torch.stack([term(logits, targets=labels[:, place]) for place in range(k)])
    torch.testing.assert_close(term(logits, targets=soft), each.mean(0))


def test_binary_cross_entropy_is_torchs() -> None:
    logits, soft = torch.randn(6, CLASSES, requires_grad=True), torch.rand(6, CLASSES)
    term = augend.BinaryCrossEntropy()
    torch.testing.assert_close(term(logits, targets=soft), functional.binary_cross_entropy_with_logits(logits, soft))
    hard = Y[:6]
    expected = functional.binary_cross_entropy_with_logits(logits, soft_targets(hard, CLASSES), reduction="none").mean(
        1
    )
    torch.testing.assert_close(augend.BinaryCrossEntropy(reduction="none")(logits, targets=hard), expected)
    smooth = 0.9 * soft + 0.1 / CLASSES
    torch.testing.assert_close(
        augend.BinaryCrossEntropy(0.1)(logits, targets=soft),
        functional.binary_cross_entropy_with_logits(logits, smooth),
    )
    (gradient,) = torch.autograd.grad(term(logits, targets=soft), logits)
    torch.testing.assert_close(gradient, (logits.sigmoid() - soft).detach() / soft.numel())
    assert term(logits.bfloat16(), targets=soft).dtype == torch.float32
    with pytest.raises(AugendError, match="targets are missing"):
        term(logits)


# ------------------------------------------------------------------ a step


def scene_of(phase: dict[str, Any], **more: Any) -> tuple[Scene, Networks]:
    recipe = {"phases": [{"name": "only", **phase}], **more}
    job = Job(data=SMALL, recipe=recipe, model="small", budget="10step", settings="quick", overrides=("batch=20",))  # type: ignore[arg-type]
    splits = {"main": load(SMALL)}
    plan = resolve_job(job, splits)
    networks = build_networks(plan, splits, seed=0)
    return stage(plan.phases[0], networks, splits, seed=0), networks


def step_of(scene: Scene, progress: float = 0.0, keys: Tensor | None = None) -> Any:
    draws = Draws(0, "only", 2, 20)
    picks = Picks(PICKED[:, : scene.sources(progress)])
    return scene.batch(picks, draws if keys is None else draws.rows(keys), progress)


@pytest.mark.parametrize(
    ("options", "progress"), [({"k": 3}, 0.0), ({"gradual": 8}, 0.3), ({"k": 2, "coefficients": "beta"}, 0.0)]
)
def test_a_step_sums_what_was_picked(options: dict[str, Any], progress: float) -> None:
    scene, networks = scene_of({"augment": [{"crop": 2}, {"sum": options}]})
    add = SumAugmentation(**options)
    k = add.sources(progress)
    batch = step_of(scene, progress)
    pixels, labels = scene.pictures.fetch(PICKED[:, :k])
    own, mixing = scene.chains["x"].split(batch.params["x"], k)
    moved = PaddedCrop(2).apply(pixels.flatten(0, 1), own).view(20, k, 1, 28, 28)
    expected = add.mix(moved.unbind(1), soft_targets(labels, 10).unbind(1), mixing)
    assert torch.equal(batch.views["x"], expected[0]) and torch.equal(batch.soft["x"], expected[1])
    assert torch.equal(batch.ids, PICKED[:, 0]) and torch.equal(batch.targets, labels[:, 0])
    assert step_cost(scene, batch).pictures(Picks(PICKED[:, :k])) == 20 * k
    out = networks["net"](batch.views["x"])[""]
    networks.only("net")  # the same statistics again
    torch.testing.assert_close(scene.phase(batch)["cross-entropy"], functional.cross_entropy(out, expected[1]))
    part = step_of(scene, progress, torch.arange(6, 9))
    assert torch.equal(part.views["x"], batch.views["x"][6:9]) and torch.equal(part.soft["x"], batch.soft["x"][6:9])
    alone, _ = scene_of({"augment": [{"crop": 2}]})
    assert torch.equal(step_of(alone).params["x"], batch.params["x"][:, : own.shape[1]])  # the first picture's


def test_a_network_trains_as_often_whatever_a_row_is_made_of() -> None:
    flops = set()
    for augment in ("none", [{"sum": 8}], [{"pair": {}}]):
        scene, _ = scene_of({"augment": augment})
        flops.add(step_cost(scene, step_of(scene)).flops)
    assert len(flops) == 1


@pytest.mark.parametrize("at", ["net.features", "net[:conv3]", "net"])
def test_sums_inside_a_network(at: str) -> None:
    scene, networks = scene_of({"augment": [{"crop": 2}, {"sum": {"k": 3, "at": at}}]})
    assert scene.sources(0.0) == 3 and scene.phase.coupled == []
    batch = step_of(scene)
    plain, _ = scene_of({"augment": [{"crop": 2}, {"sum": 3}]})
    summed = step_of(plain)
    assert torch.equal(batch.params["x"], summed.params["x"])  # the pictures of the sum of pixels
    assert batch.views["x"].shape == (60, 1, 28, 28) and not batch.soft
    key = {"net.features": "features", "net[:conv3]": ":conv3", "net": ""}[at]
    net = networks.stages("net")
    value = net(batch.views["x"], {key})[key]
    mixed = value.view(20, 3, *value.shape[1:]).mean(1)
    out = mixed if key == "" else net(mixed, {""}, "classify" if key == "features" else key[1:])[""]
    networks.only("net")
    loss = scene.phase(batch)["cross-entropy"]
    torch.testing.assert_close(loss, functional.cross_entropy(out, summed.soft["x"]))
    loss.backward()
    assert all(p.grad is not None for p in scene.moving.values())
    assert step_cost(scene, batch).flops > 1.5 * step_cost(plain, summed).flops or key == ":conv3"
    part = step_of(scene, keys=torch.arange(6, 9))
    assert torch.equal(part.views["x"], batch.views["x"][18:27])
    assert torch.equal(part.parts[at]["x"], batch.parts[at]["x"][6:9])


@pytest.mark.parametrize("bank", [True, False])
def test_sums_above_a_cached_trunk(bank: bool) -> None:
    augment = [{"crop": 2} if bank else "hflip", {"sum": {"k": 3, "at": "net.features"}}]
    scene, networks = scene_of({"augment": augment, "train": "net[classify:]", "cache": {"views": 4} if bank else True})
    net = networks.stages("net")
    routes = worth_caching(scene, 1000)
    assert [route.name for route in routes] == ["net"]
    fill_banks(scene, routes, seed=0, forward=lambda route, x: net(x, route.frozen_wants))
    batch = step_of(scene)
    rows = batch.cached["net"]["features"]["x"]
    assert not batch.views and rows.shape == (60, 64)
    if not bank:
        uncached, _ = scene_of({"augment": augment, "train": "net[classify:]", "cache": False})
        assert torch.equal(rows, net(step_of(uncached).views["x"], {"features"})["features"])  # filled at this shape
    out = net(rows.view(20, 3, 64).mean(1), {""}, "classify")[""]
    targets = soft_targets(scene.pictures.labels[PICKED[:, :3]], 10).mean(1)
    torch.testing.assert_close(scene.phase(batch)["cross-entropy"], functional.cross_entropy(out, targets))
    part = step_of(scene, keys=torch.tensor([4]))
    assert torch.equal(part.cached["net"]["features"]["x"], rows[12:15])


def test_channels_last_stays_so_inside() -> None:
    scene, networks = scene_of({"augment": [{"sum": {"k": 2, "at": "net[:conv3]"}}]})
    networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scene.channels_last = True
    met: list[Tensor] = []
    networks.stages("net").model.conv3.register_forward_pre_hook(lambda module, given: met.append(given[0]))
    scene.phase(step_of(scene))
    assert met[0].shape == (20, 32, 7, 7) and met[0].is_contiguous(memory_format=torch.channels_last)


def test_the_split_of_a_cascade_of_maps_costs_what_it_says() -> None:
    """Below the cut k pictures a row, above it one."""
    scene, networks = scene_of({"augment": [{"sum": {"k": 4, "at": "net[:conv3]"}}]})
    whole, _ = scene_of({})
    net = networks.stages("net")

    class Below(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x, frozenset({":conv3"}))[":conv3"]  # type: ignore[no-any-return]

    one, below = step_cost(whole, step_of(whole)).flops, count_flops(Below(), torch.zeros(20, 1, 28, 28)).total
    assert step_cost(scene, step_of(scene)).flops == one + 3 * below


def test_what_has_several_pictures_a_row_is_no_term() -> None:
    with pytest.raises(
        AugendError, match=r"beside@x has several pictures a row, which become one only at net.features"
    ):
        scene_of(
            {"augment": [{"sum": {"k": 2, "at": "net.features"}}], "objective": {"cross-entropy": {"of": ["net", "beside"]}}},
            networks={"beside": {"model": "linear", "input": "net[:conv2]"}, "net": {"model": "small"}}, result="net",
        )  # fmt: skip
