"""Sums of pictures: coefficients, exact proportions, a step, maps inside a network, what a cascade costs, resuming, what is refused."""

# ruff: noqa: E501
from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
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
from augend.recipes import check, known, resolve
from augend.runner import keeper
from augend.runner.assembly import Scene, build_networks, stage
from augend.runner.banks import fill_banks, worth_caching
from augend.runner.charge import step_cost
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job, start
from augend.runner.probe import trial_of
from augend.stages.networks import Networks
from augend.study.compare import open_study
from augend.study.evidence import read_record
from augend.study.regime import SCRATCH
from augend.study.results import decide
from augend.study.trials import run_trial
from fixture_study import Made, make_study
from runs import SMALL, Killed, finish, killed_at, same_run, train

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


# ------------------------------------------------------------------ durations, the ledger


def planned(phase: dict[str, Any], rows: int = 50, pictures: int = 1000, **more: Any) -> int | None:
    recipe = {"phases": [{"name": "only", **phase}]}
    settings = {"optimizer": {"adam": {"lr": 1e-3}}, "batch": rows}
    plan = resolve(
        recipe, settings, sizes={"main": pictures}, traits={"main": frozenset()}, data="d", model="small", **more
    )
    return plan.phases[0].steps


def test_an_epoch_counts_the_pictures_of_sums() -> None:
    assert [planned({"augment": [{"sum": k}], "until": "4epoch"}) for k in (1, 2, 3, 8)] == [80, 40, 27, 10]
    assert planned({"augment": [{"pair": {}}], "until": "4epoch"}) == 80
    for epochs, rows in itertools.product((1, 5, 60), (1, 7, 50)):
        steps = planned({"augment": [{"sum": {"gradual": 8}}], "until": f"{epochs}epoch"}, rows)
        assert steps is not None

        def seen(steps: int, rows: int = rows) -> int:
            return rows * sum(8 - step * 7 // steps for step in range(steps))

        assert seen(steps) >= epochs * 1000 and (steps == 1 or seen(steps - 1) < epochs * 1000)


DATA = "digits:train=128,valid=40,test=60"


def ledger_of(folder: Path, recipe: str, budget: str, *overrides: str) -> dict[str, Any]:
    job = Job(data=DATA, recipe=recipe, budget=budget, model="small", settings="quick", overrides=overrides)
    start(job, RunFolder(folder), Hardware(threads=1), splits={"main": load(DATA)})
    return dict(json.loads((folder / "ledger.json").read_text()))


def test_a_cascade_costs_1_875_epochs(tmp_path: Path) -> None:
    """An epoch of each phase 8, 4, 2, 1 is 1 + 1/2 + 1/4 + 1/8 epochs of plain steps, by the ledger."""
    epochs = [f"sum{k}.until=1epoch" for k in (8, 4, 2, 1)]
    cascade = ledger_of(tmp_path / "cascade", "cascade", "15step", "batch=16", *epochs)
    plain = ledger_of(tmp_path / "plain", "augmented", "1epoch", "batch=16")
    counted, one = cascade["total"], plain["total"]
    assert one["pictures"] == one["rows"] == 128 and one["forward"] == 8
    for counts in ("rows", "flops", "forward", "backward"):
        assert counted[counts] == 1.875 * one[counts], counts
    assert [phase["pictures"] for phase in cascade["phases"].values()] == [128] * 4
    assert [phase["rows"] for phase in cascade["phases"].values()] == [16, 32, 64, 128]


def test_a_gradual_phase_charges_the_pictures_it_sees(tmp_path: Path) -> None:
    train(tmp_path / "run", "gradual-cascade", budget="16step", settings="quick", model="small")
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())["phases"]
    assert ledger["gradual"]["pictures"] == 64 * sum(8 - step * 7 // 12 for step in range(12))
    assert ledger["gradual"]["rows"] == 12 * 64 and ledger["tune"]["pictures"] == 4 * 64
    assert ledger["gradual"]["flops"] == 3 * ledger["tune"]["flops"]  # rows stay as many


@pytest.mark.parametrize(
    ("until", "steps"),
    [("20step", (40, 40, 40, 40)), ("plateau: {watch: train/loss, patience: 2}, at most: 20step", (5, 10, 20, 40))],
)
def test_an_epoch_of_a_plateau_counts_pictures(
    until: str, steps: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a plateau the phases are looked at once per as many rows as pictures."""
    epochs: list[tuple[str, int]] = []
    equip = keeper.Keeper.equip

    def equipped(self: keeper.Keeper, scene: Scene) -> Any:
        found = equip(self, scene)
        epochs.append((self.spec.name, self.epoch_steps))
        return found

    monkeypatch.setattr(keeper.Keeper, "equip", equipped)
    names = ("sum8", "sum4", "sum2", "sum1")
    ends = [f"{name}.until={{{until}}}" if "plateau" in until else f"{name}.until={until}" for name in names]
    ends += [f"{name}.schedule={{lr: constant}}" for name in names]
    overrides = ("batch=5", *ends)
    train(tmp_path / "run", "cascade", budget="80step", settings="quick", model="small", overrides=overrides)
    assert epochs == list(zip(names, steps, strict=True))


def test_timing_sees_the_whole_of_a_gradual_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(data=SMALL, recipe="gradual-cascade", model="small", budget="40step", settings="quick")
    splits = {"main": load(SMALL)}
    plan = resolve_job(job, splits)
    asked: list[int] = []
    batch = Scene.batch
    monkeypatch.setattr(
        Scene, "batch", lambda self, picks, *more: (asked.append(picks.index.shape[1]), batch(self, picks, *more))[1]
    )
    step = trial_of(plan, splits)(Hardware(threads=1))
    for _ in range(8):
        step()
    assert sorted(set(asked)) == [2, 3, 4, 5, 6, 7, 8]


# ------------------------------------------------------------------ recipes


def test_resumes_where_the_number_of_pictures_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    batch = Scene.batch
    monkeypatch.setattr(
        Scene, "batch", lambda self, picks, *more: (asked.append(picks.index.shape[1]), batch(self, picks, *more))[1]
    )
    how = {
        "budget": "20step",
        "settings": "quick",
        "model": "small",
        "overrides": ("batch=24", "smoothing=0.1", "average=0.9"),
    }
    train(tmp_path / "whole", "gradual-cascade", **how)
    assert asked == [8 - step * 7 // 15 for step in range(15)] + [1] * 5
    monkeypatch.undo()
    for kill in (2, 3, 11):  # inside an interval, at its end, where few are left
        undo = killed_at(kill, monkeypatch)
        with pytest.raises(Killed):
            train(tmp_path / f"killed-{kill}", "gradual-cascade", **how)
        undo()
        finish(tmp_path / f"killed-{kill}")
        same_run(tmp_path / "whole", tmp_path / f"killed-{kill}")


PLATEAUS = """
like: cascade
drop: [sum8]
set:
  sum4.until: {plateau: {watch: train/loss, patience: 1}, at most: 12step}
  sum2.until: {plateau: {watch: valid/accuracy, patience: 2}, at most: 12step}
  sum1.until: {plateau: {watch: train/loss, patience: 2}, at most: 16step}
"""


def test_a_cascade_over_plateaus_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the paper runs it: each phase to a plateau, kept at its best weights; killed in the middle of one."""
    recipe = tmp_path / "plateaus.yaml"
    recipe.write_text(PLATEAUS)
    how = {
        "budget": "40step",
        "settings": "quick",
        "model": "small",
        "overrides": ("batch=16", "schedule.lr=on-plateau"),
    }
    train(tmp_path / "whole", str(recipe), **how)
    ledger = json.loads((tmp_path / "whole" / "ledger.json").read_text())["phases"]
    steps = [phase["rows"] // 16 for phase in ledger.values()]
    for kill in (steps[0] // 2, steps[0] + steps[1] // 2):
        undo = killed_at(kill, monkeypatch)
        with pytest.raises(Killed):
            train(tmp_path / f"killed-{kill}", str(recipe), **how)
        undo()
        finish(tmp_path / f"killed-{kill}")
        same_run(tmp_path / "whole", tmp_path / f"killed-{kill}")


SUM, INSIDE = "{sum: {k: 2}}", "{sum: {k: 2, at: net.features}}"
REFUSED = {
    "triplets after sums": (f"augment: [rotate, {SUM}], objective: {{cross-entropy: 1, soft-margin-triplet: {{of: net.features}}}}", "soft-margin-triplet needs one picture a row, and rows are mixed at input@x"),
    "triplets of summed features": (f"augment: {INSIDE}, objective: {{cross-entropy: 1, soft-margin-triplet: {{of: net.features}}}}", "rows are mixed at net.features@x"),
    "groups": (f"augment: [rotate, {SUM}], order: groups", "groups needs one picture a row"),
    "gradual to a plateau": ("augment: {sum: {gradual: 8}}, schedule: {lr: constant}, until: {plateau: {}, at most: 100step}", "ends at a plateau, so how far it has come is not known, and view 'x' changes with progress"),
    "a bank": (f"augment: [rotate, {SUM}], cache: {{views: 8}}", "no cache can hold"),
    "a closed form": (f"augment: {SUM}, fit: logistic, train: 'net[classify:]'", "needs one picture a row"),
    "twice": (f"augment: [{SUM}, {INSIDE}]", "mixes rows twice"),
    "not last": (f"augment: [{SUM}, hflip]", "sum mixes pictures, so it must be the last"),
    "neither": ("augment: {sum: {}}", "k .pictures a row. or gradual"),
    "an option": ("augment: {sum: {kk: 2}}", "did you mean 'k'"),
    "a label": ("augment: {pair: {label: last}}", "label must be 'first' or 'both'"),
    "two views inside": (f"augment: {{views: {{a: {INSIDE}, b: none}}}}", "view 'a' has several pictures a row as far as net.features .sum., so it must be the only view"),
    "gradual inside": ("augment: {sum: {gradual: 4, at: net.features}}", "must have as many pictures a row throughout the phase"),
    "two places inside": ("augment: [{noise: {sigma: 0.1, at: 'net[:middle]'}}, {sum: {k: 2, at: net.features}}]", r"no place but net.features, found net\[:middle\]"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_summed_is_refused_by_validate(what: str, tmp_path: Path) -> None:
    phase, fragment = REFUSED[what]
    file = tmp_path / "mine.yaml"
    file.write_text(f"phases:\n- {{name: a, {phase}}}\n")
    with pytest.raises(AugendError, match=fragment) as caught:
        check(file)
    assert "\n" not in str(caught.value) and "phase a" in str(caught.value)


def test_what_has_several_pictures_a_row_is_no_term() -> None:
    with pytest.raises(
        AugendError, match=r"beside@x has several pictures a row, which become one only at net.features"
    ):
        scene_of(
            {"augment": [{"sum": {"k": 2, "at": "net.features"}}], "objective": {"cross-entropy": {"of": ["net", "beside"]}}},
            networks={"beside": {"model": "linear", "input": "net[:conv2]"}, "net": {"model": "small"}}, result="net",
        )  # fmt: skip


def test_controls_change_one_thing() -> None:
    cascade = check("cascade").phases
    for name, left in (
        ("cascade-4", [4, 2, 1]),
        ("cascade-to-2", [8, 4, 2]),
        ("cascade-4-to-2", [4, 2]),
        ("cascade-2-to-2", [2]),
    ):
        assert [phase.name for phase in check(name).phases] == [f"sum{k}" for k in left]
    assert [phase.name for phase in check("cascade-by-one").phases] == [f"sum{k}" for k in range(8, 0, -1)]
    rate = [phase.optimizer.options["lr"] for phase in cascade]
    assert rate == pytest.approx([rate[0], rate[0], rate[0], 0.2 * rate[0]]) and {phase.keep for phase in cascade} == {
        "valid/accuracy"
    }
    (alone,) = check("cascade-1").phases
    assert (alone.name, alone.optimizer.options["lr"], alone.views) == ("sum1", rate[0], cascade[-1].views)
    for own, other in zip(check("cascade-1111").phases, cascade, strict=True):
        assert own.views["x"] == cascade[-1].views["x"] and (own.steps, own.optimizer, own.keep) == (
            other.steps,
            other.optimizer,
            other.keep,
        )
    for own, other in zip(check("cascade-unsummed").phases, cascade, strict=True):
        assert own.rows == other.rows * max([op.component.options.get("k", 1) for op in other.views["x"]])
    for own, other in zip(check("cascade-maps", params={"split": "conv3"}).phases, cascade, strict=True):
        assert [op.component for op in own.views["x"]] == [op.component for op in other.views["x"]]
    gradual, pairing = check("gradual-cascade").phases, check("sample-pairing").phases
    assert gradual[1] == pairing[1] and gradual[0].views["x"][:-1] == pairing[0].views["x"][:-1]
    assert (gradual[0].steps, gradual[1].steps) == (7500, 2500)


def test_what_a_comparison_from_scratch_runs_by_default_is_built() -> None:
    assert set(SCRATCH) <= {recipe.name for recipe in known()} and "gradual-cascade" in SCRATCH


@pytest.mark.parametrize(("recipe", "where"), [("sums", "phase plain"), ("cascade-maps", "phase sum8")])
def test_a_row_of_more_pictures_than_there_are_is_refused(recipe: str, where: str) -> None:
    data = "digits:train=20,valid=20,test=20"
    split = {"main": load(data)}
    sets = ("k=5000",) if recipe == "sums" else ("sum8.augment=[pixels, {sum: {k: 5000, at: 'net[:$split]'}}]",)
    with pytest.raises(
        AugendError, match=rf"{where}, augment: a row is made of 5000 pictures, and there are 20 to train on"
    ):
        resolve_job(Job(data=data, recipe=recipe, overrides=sets, budget="8step"), split)


def test_weights_picked_on_validation_pictures_are_not_advised_on_them(tmp_path: Path) -> None:
    """However good it looks there, beside recipes that keep their last; among such alone the choice is theirs."""
    recipes = {"augmented": Made(0.8), "cascade": Made(0.95), "plain": Made(0.7)}
    kept = [{"name": n, "title": n, "phases": 1, "keeps_best": n == "cascade"} for n in recipes]
    study = make_study(tmp_path / "one", recipes, extra={"recipes": kept})
    chosen = decide(read_record(study))
    assert chosen is not None and chosen["advised"] == "augmented"
    plain = [{**one, "keeps_best": False} for one in kept]
    chosen = decide(read_record(make_study(tmp_path / "two", recipes, extra={"recipes": plain})))
    assert chosen is not None and chosen["advised"] == "cascade"


def test_a_comparison_says_who_is_not_advised(tmp_path: Path) -> None:
    words = {
        "data": "digits:train=60,valid=20,test=30",
        "recipes": ("augmented", "cascade-1"),
        "repeats": 1,
        "budget": "10step",
    }
    study = open_study(tmp_path / "study", {**words, "model": "mlp"}, "command")
    assert [one["keeps_best"] for one in study.record["recipes"]] == [False, True]
    (note,) = [one for one in study.record["notes"] if one.startswith("cascade-1: the best weights are picked")]
    assert note.endswith("it is not advised beside recipes that keep their last")
    study = open_study(tmp_path / "other", {**words, "model": "mlp", "reference": "cascade-1"}, "command")
    assert any("the reference is one of them, so the advice favours them" in one for one in study.record["notes"])


def test_a_finished_trial_leaves_no_checkpoints(tmp_path: Path) -> None:
    words = {
        "data": "digits:train=60,valid=20,test=30",
        "recipes": ("cascade-1",),
        "repeats": 1,
        "budget": "12step",
        "model": "mlp",
    }
    study = open_study(tmp_path / "study", words, "command")
    assert run_trial(tmp_path / "study" / "trials" / study.names[0], lambda kind, values: None) == "finished"
    assert not list((tmp_path / "study" / "trials" / study.names[0] / "checkpoints").glob("*.ckpt"))


def test_best_weights_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long phase improves often; what no checkpoint names is removed while it runs."""
    monkeypatch.setattr(keeper, "SAVE_SECONDS", 0.0)
    seen: list[int] = []
    write_best = keeper.Keeper._keep_best

    def counting(self: keeper.Keeper, value: float) -> None:
        write_best(self, value)
        seen.append(len(list((self.folder.path / "checkpoints").glob("best-*.ckpt"))))

    improved: list[float] = []
    monkeypatch.setattr(keeper.Keeper, "_keep_best", counting)
    train(tmp_path / "run", "cascade-1", budget="120step", model="mlp")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "valid" and line["accuracy"] > max(improved, default=0.0):
            improved.append(line["accuracy"])
    assert len(improved) > 4 and any(later < before for before, later in itertools.pairwise(seen))
    assert len(list((tmp_path / "run" / "checkpoints").glob("best-*.ckpt"))) <= 2


@pytest.mark.parametrize(("until", "looks"), [("", [13, 20]), ("plateau", [7, 14, 20])])
def test_sums_are_looked_at_as_often_as_what_they_are_compared_with(
    until: str, looks: list[int], tmp_path: Path
) -> None:
    """An epoch of 200 pictures, two a row and 16 rows a step, is 7 steps: patience counts these, a choice 13, as without sums."""
    words = {"like": "sums", "set": {"plain.keep": {"best": "valid/accuracy"}}}
    if until:
        words["set"]["plain.until"] = {"plateau": {"watch": "train/loss", "patience": 9}, "at most": "20step"}
        words["set"]["plain.schedule"] = {"lr": "constant"}
    (tmp_path / "mine.yaml").write_text(json.dumps(words))
    params = {"k": 2}
    train(
        tmp_path / "run",
        str(tmp_path / "mine.yaml"),
        budget="20step",
        model="mlp",
        params=params,
        overrides=("batch=16",),
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "valid"] == looks
