"""Each augmentation word: draws, finite variants, ranges, the same pictures as torchvision's for the same parameters."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import torchvision.transforms.v2 as v2
import torchvision.transforms.v2.functional as tv
from PIL import Image
from torch import Tensor

from augend import names, pixels
from augend.augment import build
from augend.augment.base import boxes
from augend.augment.colour import Brightness, Erase, Grayscale, Hue, Jitter, Noise, normal_like
from augend.augment.foreign import Torchvision
from augend.augment.geometry import Affine, HFlip, PaddedCrop, ResizedCrop, Rotate, Rotations, VFlip
from augend.augment.network import Apply
from augend.augment.trivial import BINS, OPS, Trivial
from augend.contract import AugendError, Augment, Component
from augend.randomness import Draws

OPTIONS: dict[str, dict[str, object]] = {
    "affine": {"degrees": 20, "translate": (0.1, 0.1)},
    "torchvision": {"name": "RandomPerspective", "distortion_scale": 0.3},
    "apply": {"network": "negative"},
    "one-of": {"of": ["hflip", [{"rotate": 20}, {"noise": {"sigma": 0.2}}]], "p": 0.9},
}
WORDS = sorted(word for word, target in names.BUILTIN["augment"].items() if target.startswith("augend.augment."))
PIXEL_WORDS = [word for word in WORDS if hasattr(names.lookup("augment", word), "apply")]
words = pytest.mark.parametrize("word", PIXEL_WORDS)


def make(word: str) -> Augment:
    op = build(Component(word, OPTIONS.get(word, {})))
    if isinstance(op, Apply):
        op.bind(lambda x: 1 - x)
    assert isinstance(op, Augment)
    return op


def pictures(*shape: int, seed: int = 0) -> Tensor:
    levels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return pixels.to_float(levels)


def draws(rows: int = 16, seed: int = 0) -> Draws:
    return Draws(seed, "test", 5, rows)


@words
@pytest.mark.parametrize("shape", [(16, 3, 12, 15), (1, 1, 7, 7)], ids=str)
def test_shape_dtype_range_and_repetition(word: str, shape: tuple[int, ...]) -> None:
    op, x = make(word), pictures(*shape)
    before = x.clone()
    params = op.draw(draws(shape[0]), 0.5)
    assert params.dtype == torch.float32 and params.shape[0] == shape[0] and params.dim() == 2
    assert params.device.type == "cpu" and op.sources(0.0) == 1
    out = op.apply(x, params)
    assert out.shape == x.shape and out.dtype == torch.float32
    assert float(out.min()) >= 0 and float(out.max()) <= 1
    assert torch.equal(op.apply(x, params), out) and torch.equal(x, before)


@words
def test_draws_depend_on_the_row_alone(word: str) -> None:
    op = make(word)
    whole = op.draw(draws(64), 0.5)
    rows = torch.tensor([3, 60, 7])
    assert torch.equal(op.draw(draws().rows(rows), 0.5), whole[rows])
    assert not torch.equal(op.draw(Draws(1, "test", 5, 64), 0.5), whole)
    if op.variants is None:
        assert len(set(map(tuple, whole.tolist()))) > 40


@words
def test_rows_do_not_see_each_other(word: str) -> None:
    op, x = make(word), pictures(64, 3, 16, 16)
    params, rows = op.draw(draws(64), 0.5), torch.tensor([40, 3, 17, 63, 5])
    part = op.apply(x[rows], params[rows])
    exact = word not in ("contrast", "jitter", "trivial", "noise", "torchvision")
    torch.testing.assert_close(part, op.apply(x, params)[rows], atol=0 if exact else 1e-6, rtol=0)


@words
def test_finite_variants_are_all_there_is(word: str) -> None:
    op, x = make(word), pictures(40, 3, 9, 9)
    if op.variants is None:
        return
    params = op.draw(draws(40), 0.0)
    assert params.shape == (40, 1) and set(params[:, 0].tolist()) == set(range(op.variants))
    copies = [op.draw(draws(40), 0.0, torch.full((40,), n)) for n in range(op.variants)]
    shown = torch.stack([op.apply(x, copy) for copy in copies])
    assert torch.equal(shown[0], x)  # number 0 is the identity
    drawn = shown[params[:, 0].long(), torch.arange(40)]
    assert torch.equal(op.apply(x, params), drawn)
    for wrong in (torch.full((40,), op.variants), torch.full((40,), -1), torch.zeros(3)):
        with pytest.raises(AugendError, match=f"{word}: copy must be 40 variant numbers from 0 to {op.variants - 1}"):
            op.draw(draws(40), 0.0, wrong)


@words
def test_description_is_stable_and_tells_options_apart(word: str) -> None:
    op = make(word)
    text = op.describe()  # type: ignore[attr-defined]
    assert text == make(word).describe() and list(json.loads(text)) == [word]  # type: ignore[attr-defined]
    assert "object at" not in text


@words
def test_memory_format_is_no_matter(word: str) -> None:
    op, x = make(word), pictures(32, 3, 10, 12)
    params = op.draw(draws(32), 0.5)
    other = op.apply(x.contiguous(memory_format=torch.channels_last), params)
    torch.testing.assert_close(other, op.apply(x, params), atol=1e-6, rtol=0)


def test_descriptions_differ() -> None:
    assert Rotate(10).describe() != Rotate(11).describe()
    assert Rotate(10).describe() == Rotate([-10, 10]).describe()
    assert (
        Torchvision("GaussianBlur", kernel_size=3).describe() != Torchvision("GaussianBlur", kernel_size=5).describe()
    )


@pytest.mark.parametrize(("p", "variants"), [(0.0, 1), (1.0, 1), (0.3, 2)])
def test_coins(p: float, variants: int) -> None:
    x = pictures(2000, 1, 2, 3)
    for op, dim in ((HFlip(p), -1), (VFlip(p), -2)):
        assert op.variants == variants
        flipped = (op.apply(x, op.draw(draws(2000), 0.0)) == x.flip(dim)).all((1, 2, 3)).float().mean()
        assert abs(float(flipped) - p) < 0.05


def test_crop_moves_evenly_over_all_places() -> None:
    op, x = PaddedCrop(2), torch.zeros(5000, 1, 5, 5)
    x[:, :, 2, 2] = 1
    place = op.apply(x, op.draw(draws(5000), 0.0)).mean(0)[0]
    assert float(place.min()) > 0.025 and float(place.max()) < 0.055  # 1 in 25


def test_resized_crop_draws_torchvisions_boxes() -> None:
    op, rows, height, width = ResizedCrop(), 4000, 24, 40
    ours = op.boxes(op.draw(draws(rows), 0.0), height, width).float()
    torch.manual_seed(0)
    image = torch.zeros(1, height, width)
    transform = v2.RandomResizedCrop(24)
    theirs = torch.tensor([list(transform.make_params([image]).values()) for _ in range(rows)]).float()
    assert (ours[:, :2] >= 0).all() and (ours[:, 0] + ours[:, 2]).max() <= height
    assert (ours[:, 1] + ours[:, 3]).max() <= width and ours[:, 2:].min() >= 1
    for column in range(4):
        points = np.quantile(theirs[:, column], [0.1, 0.3, 0.5, 0.7, 0.9])
        assert np.abs(np.quantile(ours[:, column], [0.1, 0.3, 0.5, 0.7, 0.9]) - points).max() <= 1.01
    ratio = (ours[:, 3] / ours[:, 2]).log()
    assert abs(float(ratio.mean())) < 0.05


def test_resized_crop_falls_back_to_the_largest_box_in_the_middle() -> None:
    op = ResizedCrop(scale=(1, 1), ratio=(1, 1))
    assert op.boxes(op.draw(draws(2), 0.0), 10, 17).tolist() == [[0, 3, 10, 10]] * 2


def test_erase() -> None:
    op, x = Erase(p=0.7), torch.ones(3000, 1, 20, 20)
    params = op.draw(draws(3000), 0.0)
    gone = 1 - op.apply(x, params).mean((1, 2, 3))
    assert abs(float((gone > 0).float().mean()) - 0.7) < 0.03
    hit = gone[gone > 0]
    assert float(hit.min()) > 0.01 and float(hit.max()) < 0.36 and abs(float(hit.mean()) - 0.175) < 0.015
    found, fits = boxes(params[:, 1:], 20, 20, (3.0, 3.0), (1.0, 1.0))
    assert not fits.any() and found.shape == (3000, 4)  # three times the picture never fits


def test_rotations_variants_and_angles() -> None:
    op, x = Rotations(), pictures(5, 1, 28, 28)
    assert op.variants == 5 and op.angles == (0, -30, -15, 15, 30)
    shown = op.apply(x, op.draw(draws(5), 0.0, torch.arange(5)))
    for row, angle in enumerate(op.angles):
        expected = tv.rotate(x[row], angle, tv.InterpolationMode.BILINEAR)
        torch.testing.assert_close(shown[row], expected, atol=1e-5, rtol=0)
    share = op.draw(draws(5000), 0.0)[:, 0].long().bincount() / 5000
    assert float((share - 0.2).abs().max()) < 0.03


@pytest.mark.parametrize("word", ["rotations", "rotate"])
def test_expanded_rotations_are_the_authors_pictures(word: str) -> None:
    """Pillow: rotate on a growing canvas, then resize to the nearest pixel; at most 1 in 1,000 pixels differs."""
    op = Rotations(expand=True) if word == "rotations" else Rotate(30, expand=True)
    x = pictures(40, 1, 28, 28)
    params = op.draw(draws(40), 0.0)
    angles = [op.angles[int(n)] for n in params[:, 0]] if isinstance(op, Rotations) else params[:, 0].tolist()
    theirs = []
    for row, angle in zip(x, angles, strict=True):
        image = Image.fromarray(row[0].mul(255).round().byte().numpy()).rotate(angle, expand=True)
        theirs.append(torch.from_numpy(np.array(image.resize((28, 28), Image.Resampling.NEAREST)))[None])
    differ = (op.apply(x, params) - pixels.to_float(torch.stack(theirs))).abs() > 1e-6
    assert float(differ.float().mean()) <= 0.001


def test_ranges() -> None:
    u = Rotate([5, 20]).draw(draws(2000), 0.0)
    assert 5 <= float(u.min()) < 5.2 and 19.8 < float(u.max()) < 20
    affine = Affine(degrees=10, translate=(0.1, 0.2), scale=(0.5, 2), shear=[1, 2, -4, -3]).draw(draws(2000), 0.0)
    low = torch.tensor([-10, -0.1, -0.2, 0.5, 1, -4])
    high = torch.tensor([10, 0.1, 0.2, 2, 2, -3])
    assert (affine >= low).all() and (affine <= high).all()
    assert (affine.amin(0) - low < 0.05 * (high - low)).all() and (high - affine.amax(0) < 0.05 * (high - low)).all()
    factor = Brightness(1.5).draw(draws(2000), 0.0)
    assert 0 <= float(factor.min()) < 0.02 and 2.48 < float(factor.max()) < 2.5
    turn = Hue(0.2).draw(draws(2000), 0.0)
    assert -0.2 <= float(turn.min()) < -0.19 and 0.19 < float(turn.max()) < 0.2


def test_affine_is_torchvisions() -> None:
    op, x = Affine(degrees=40, translate=(0.2, 0.1), scale=(0.7, 1.4), shear=[-10, 10, -5, 5]), pictures(8, 3, 21, 32)
    params = op.draw(draws(8), 0.0)
    for row, (angle, right, down, size, slant_x, slant_y) in enumerate(params.tolist()):
        expected = tv.affine(
            x[row],
            -angle,
            [round(right * 32), round(down * 21)],
            size,
            [slant_x, slant_y],
            tv.InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(op.apply(x, params)[row], expected, atol=1e-5, rtol=0)


def test_jitter_has_one_order() -> None:
    op, x = Jitter(0.4, 0.3, 0.5, 0.2), pictures(6, 3, 10, 10)
    params = op.draw(draws(6), 0.0)
    for row, (b, c, s, h) in enumerate(params.tolist()):
        expected = tv.adjust_hue(tv.adjust_saturation(tv.adjust_contrast(tv.adjust_brightness(x[row], b), c), s), h)
        torch.testing.assert_close(op.apply(x, params)[row], expected, atol=2e-5, rtol=0)
    assert torch.equal(Jitter(0, 0, 0, 0).apply(x, params), x)


def test_grayscale_probability() -> None:
    op, x = Grayscale(0.25), pictures(2000, 3, 2, 2)
    out = op.apply(x, op.draw(draws(2000), 0.0))
    grey = (out == out[:, :1]).all(1).all((1, 2)).float().mean()
    assert abs(float(grey) - 0.25) < 0.03


def test_noise_is_normal_and_uncorrelated() -> None:
    from scipy import stats

    seeds = Noise(1.0).draw(draws(200), 0.0)
    z = normal_like(torch.empty(200, 3, 15, 15), seeds).view(200, -1).numpy()
    assert z.shape == (200, 675) and np.isfinite(z).all()  # an odd number of places
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(z) - np.eye(200)).max() < 6 / math.sqrt(675)  # rows
    assert np.abs(np.corrcoef(z.T) - np.eye(675)).max() < 6.5 / math.sqrt(200)  # places
    neighbours = torch.stack([torch.arange(200.0), torch.zeros(200)], 1)  # seeds that differ by one
    near = normal_like(torch.empty(200, 675), neighbours).numpy()
    assert np.abs(np.corrcoef(near) - np.eye(200)).max() < 6 / math.sqrt(675)
    assert stats.kstest(near.ravel(), "norm").pvalue > 1e-3


def test_noise_adds_sigma() -> None:
    x = torch.full((50, 1, 20, 20), 0.5)
    op = Noise(0.05)
    out = op.apply(x, op.draw(draws(50), 0.0))
    assert abs(float((out - x).std()) - 0.05) < 0.002
    loud = Noise(2.0, clip=False)
    assert float(loud.apply(x, loud.draw(draws(50), 0.0)).max()) > 1


def test_trivial_has_torchvisions_set() -> None:
    theirs = v2.TrivialAugmentWide._AUGMENTATION_SPACE
    assert list(OPS) == list(theirs)
    for name, (strengths, signed) in OPS.items():
        make_strengths, their_sign = theirs[name]
        expected = make_strengths(BINS, 32, 32)
        assert signed == their_sign
        assert expected is None or torch.equal(strengths, expected.float())


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 17, 21)], ids=str)
def test_trivial_is_torchvisions(shape: tuple[int, ...]) -> None:
    cases = [(op, size, sign) for op in range(len(OPS)) for size in (0, 1, 7, 19, 30) for sign in (1.0, -1.0)]
    params = torch.tensor(cases, dtype=torch.float32)
    x = pictures(len(cases), *shape)
    ours = Trivial().apply(x, params)
    reference = v2.TrivialAugmentWide()
    for row, (number, size, sign) in enumerate(cases):
        name = list(OPS)[number]
        strengths, signed = OPS[name]
        by = float(strengths[size]) * (sign if signed else 1)
        theirs = reference._apply_image_or_video_transform(x[row], name, by, "nearest", {type(x): None, Tensor: None})
        differ = ((ours[row] - theirs).abs() > 1e-5).float().mean()
        assert float(differ) <= 0.01, name  # nearest neighbour: exact ties
        if name not in ("ShearX", "ShearY", "Rotate"):
            assert float(differ) == 0, name


def test_trivial_draws_everything_evenly() -> None:
    params = Trivial().draw(draws(20000), 0.0)
    number, size = params[:, 0].long().bincount() / 20000, params[:, 1].long().bincount() / 20000
    assert len(number) == len(OPS) and float((number - 1 / len(OPS)).abs().max()) < 0.01
    assert len(size) == BINS and float((size - 1 / BINS).abs().max()) < 0.006
    assert set(params[:, 2].tolist()) == {-1.0, 1.0} and abs(float(params[:, 2].mean())) < 0.03


def test_foreign_transforms_are_a_function_of_seed_and_row() -> None:
    op, x = Torchvision("RandomResizedCrop", size=16, antialias=False), pictures(6, 3, 16, 16)
    params = op.draw(draws(6), 0.0)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    whole = op.apply(x, params)
    assert torch.equal(torch.get_rng_state(), state)  # nothing else notices
    torch.manual_seed(2)
    rows = torch.tensor([4, 1])
    assert torch.equal(op.apply(x[rows], params[rows]), whole[rows])
    assert not torch.equal(op.apply(x, op.draw(draws(6, seed=1), 0.0)), whole)


@pytest.mark.parametrize(
    ("word", "options", "message"),
    [
        (
            "rotate",
            {"degree": 3},
            "rotate has no option 'degree'; did you mean 'degrees'.*allowed: degrees, mode, expand",
        ),
        ("rotate", {"degrees": "far"}, "rotate: degrees must be two numbers, found 'far'"),
        ("rotate", {"mode": "cubic"}, "rotate: mode must be 'bilinear' or 'nearest', found 'cubic'"),
        ("rotations", {"angles": []}, "rotations: angles must be a list of degrees"),
        ("rotations", {"angles": [5, 5]}, "rotations: angles must be different"),
        ("hflip", {"p": 1.5}, "hflip: p must be a number from 0 to 1, found 1.5"),
        ("crop", {"padding": 2.5}, "crop: padding must be whole pixels, found 2.5"),
        ("crop", {"padding": -1}, "crop: padding must be a number of at least 0, found -1"),
        ("hue", {"strength": 0.7}, "hue: strength must be a number from 0 to 0.5"),
        ("resized-crop", {"scale": [1, 0.5]}, r"resized-crop: scale must be \[lowest, highest\]"),
        ("affine", {"degrees": 5, "shear": 95}, "affine: shear must stay below 90 degrees"),
        ("noise", {"sigma": True}, "noise: sigma must be a number"),
        ("torchvision", {}, "torchvision needs name"),
        ("affine", {"scale": [1, 2]}, "affine needs degrees"),
        (
            "torchvision",
            {"name": "RandomPerspectiv"},
            "no transform 'RandomPerspectiv'; did you mean 'RandomPerspective'",
        ),
        ("torchvision", {"name": "GaussianBlur"}, "torchvision: GaussianBlur: .*kernel_size"),
        ("hflop", {}, "unknown augment 'hflop'; did you mean 'hflip'"),
    ],
)
def test_mistakes_are_one_line(word: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(AugendError, match=message) as caught:
        build(Component(word, options))
    assert "\n" not in str(caught.value)


def test_foreign_transforms_that_change_the_shape_or_refuse() -> None:
    x = pictures(2, 3, 8, 8)
    for op, message in (
        (
            Torchvision("CenterCrop", size=4),
            r"CenterCrop must keep the picture's shape \[3, 8, 8\], it made \[3, 4, 4\]",
        ),
        (Torchvision("JPEG", quality=50), "JPEG does not take this picture"),
    ):
        with pytest.raises(AugendError, match=message):
            op.apply(x, op.draw(draws(2), 0.0))


def test_apply_runs_a_network_on_some_rows() -> None:
    from torch import nn

    net, z = nn.Linear(4, 4), torch.rand(1000, 4)
    op = Apply("omega", p=0.25)
    with pytest.raises(AugendError, match="network 'omega' is not bound"):
        op.apply(z, op.draw(draws(1000), 0.0))
    params = op.bind(net).draw(draws(1000), 0.0)
    out, hit = op.apply(z, params), params[:, 0] == 1
    assert op.variants == 2 and abs(float(hit.float().mean()) - 0.25) < 0.05
    assert torch.equal(out[~hit], z[~hit]) and torch.equal(out[hit], net(z)[hit])
    assert torch.equal(Apply(p=1.0).bind(net).apply(z, params), net(z))
    with pytest.raises(AugendError, match=r"must keep the shape \[1000, 4\], it made \[1000, 2\]"):
        Apply("omega").bind(nn.Linear(4, 2)).apply(z, params)
