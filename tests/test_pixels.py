"""Every function of `augend.pixels` against torchvision, kornia or Pillow for the same parameters, row by row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image
from torch import Tensor

from augend import pixels
from augend.contract import AugendError

SHAPES = [(5, 3, 32, 32), (4, 1, 28, 28), (3, 3, 17, 23), (1, 3, 9, 12), (1, 1, 5, 5)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def pictures(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def numbers(rows: int, low: float, high: float, seed: int = 1) -> Tensor:
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed)) * (high - low) + low


def rowwise(function: Callable[..., Tensor], x: Tensor, *params: Tensor) -> Tensor:
    return torch.stack([function(row, *(p[i].tolist() for p in params)) for i, row in enumerate(x)])


def close(ours: Tensor, theirs: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def few_differ(ours: Tensor, theirs: Tensor, part: float) -> None:
    """Nearest neighbour: an exact tie may fall to the other side."""
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs() > 1e-5).float().mean() <= part


@shapes
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_flips(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = (pictures(shape) * 255).to(dtype)
    rows = torch.arange(shape[0]) % 2 == 0
    for ours, theirs in ((pixels.hflip, tv.horizontal_flip), (pixels.vflip, tv.vertical_flip)):
        expected = torch.stack([theirs(row) if hit else row for row, hit in zip(x, rows, strict=True)])
        assert torch.equal(ours(x, rows), expected)


@shapes
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("padding", [0, 1, 4])
def test_padded_crop_for_every_corner(shape: tuple[int, ...], dtype: torch.dtype, padding: int) -> None:
    x = (pictures(shape) * 255).to(dtype)
    ends = [0, padding, 2 * padding]
    for top in ends:
        for left in ends:
            offsets = torch.tensor([[top, left]]).repeat(len(x), 1)
            offsets[0] = padding  # rows differ
            expected = torch.stack(
                [
                    tv.crop(tv.pad(row, [padding]), int(down), int(right), *shape[2:])
                    for row, (down, right) in zip(x, offsets, strict=True)
                ]
            )
            assert torch.equal(pixels.padded_crop(x, offsets, padding), expected)
            assert torch.equal(pixels.padded_crop(x, offsets, padding)[0], x[0])


@shapes
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_rotate(shape: tuple[int, ...], mode: pixels.Mode) -> None:
    x, degrees = pictures(shape), numbers(shape[0], -180, 180)
    theirs = rowwise(lambda row, a: tv.rotate(row, a, tv.InterpolationMode(mode)), x, degrees)
    few_differ(pixels.rotate(x, degrees, mode), theirs, 0 if mode == "bilinear" else 0.002)


def test_rotate_against_kornia() -> None:
    from kornia.geometry.transform import rotate

    x, degrees = pictures((4, 3, 31, 31)), numbers(4, -90, 90)
    close(pixels.rotate(x, degrees), rotate(x, degrees))


def test_rotation_counts_counter_clockwise_and_zero_keeps_the_bits() -> None:
    x = pictures((2, 1, 8, 8))
    turned = pixels.rotate(x, torch.tensor([90.0, 0.0]))
    close(turned[0], torch.rot90(x[0], 1, (1, 2)))
    assert torch.equal(turned[1], x[1])


@shapes
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("corner", [False, True])
def test_affine(shape: tuple[int, ...], mode: pixels.Mode, corner: bool) -> None:
    rows, _, height, width = shape
    x = pictures(shape)
    degrees, scale = numbers(rows, -60, 60, 2), numbers(rows, 0.6, 1.7, 3)
    moves = torch.stack([numbers(rows, -5, 5, 4), numbers(rows, -5, 5, 5)], 1).round()
    shear = torch.stack([numbers(rows, -30, 30, 6), numbers(rows, -30, 30, 7)], 1)
    centre = torch.tensor([[-width / 2, -height / 2]]).repeat(rows, 1) if corner else None
    ours = pixels.warp(x, pixels.affine_matrices(degrees, moves, scale, shear, centre), mode)
    theirs = rowwise(
        lambda row, angle, move, size, slant: tv.affine(
            row,
            -angle,  # torchvision's affine counts clockwise
            [int(m) for m in move],
            size,
            slant,
            tv.InterpolationMode(mode),
            center=[0, 0] if corner else None,
        ),
        x,
        degrees,
        moves,
        scale,
        shear,
    )
    few_differ(ours, theirs, 0 if mode == "bilinear" else 0.002)


def test_fill_is_what_a_larger_picture_of_that_value_gives() -> None:
    x, degrees, margin = pictures((4, 3, 16, 16)), numbers(4, -80, 80), 12
    wide = torch.full((4, 3, 40, 40), 0.3)
    wide[:, :, margin:-margin, margin:-margin] = x
    expected = pixels.rotate(wide, degrees)[:, :, margin:-margin, margin:-margin]
    close(pixels.rotate(x, degrees, fill=0.3), expected)
    nearest = rowwise(lambda row, a: tv.rotate(row, a, fill=[0.3]), x, degrees)
    few_differ(pixels.rotate(x, degrees, "nearest", fill=0.3), nearest, 0.002)


@pytest.mark.parametrize("side", [(28, 28), (32, 32), (17, 23)])
def test_expanded_rotation_is_pillows(side: tuple[int, int]) -> None:
    """As the authors of the factoring paper tilted: at most 1 in 1,000 pixels comes from the neighbouring place."""
    height, width = side
    degrees = torch.cat([torch.tensor([-30.0, -15, 0, 15, 30, 90, 45]), numbers(60, -60, 60)])
    x = (pictures((len(degrees), 1, height, width)) * 255).to(torch.uint8)

    def pillow(row: Tensor, angle: float) -> Tensor:
        image = Image.fromarray(row[0].numpy()).rotate(angle, expand=True)
        return torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.NEAREST)))[None]

    ours, theirs = pixels.rotate(x, degrees, expand=True), rowwise(pillow, x, degrees)
    assert torch.equal(ours[2], x[2])
    few_differ(ours.float(), theirs.float(), 0.001)
    assert torch.equal(pixels.rotate(pixels.to_float(x), degrees, expand=True), pixels.to_float(ours))


@shapes
def test_resized_crop(shape: tuple[int, ...]) -> None:
    rows, _, height, width = shape
    x = pictures(shape)
    tall = numbers(rows, 1, height, 8).round().long()
    wide = numbers(rows, 1, width, 9).round().long()
    tall[0], wide[0] = height, width
    top = ((height - tall + 1) * numbers(rows, 0, 1, 10)).long()
    left = ((width - wide + 1) * numbers(rows, 0, 1, 11)).long()
    boxes = torch.stack([top, left, tall, wide], 1)
    for size in ((height, width), (11, 8)):
        theirs = rowwise(
            lambda row, box, size=size: tv.resized_crop(row, *box, size=list(size), antialias=False), x, boxes
        )
        close(pixels.resized_crop(x, boxes, size), theirs)
    close(pixels.resized_crop(x, boxes)[0], x[0])


def test_erase() -> None:
    x = pictures((4, 3, 12, 15))
    boxes = torch.tensor([[0, 0, 3, 4], [5, 6, 7, 9], [2, 2, 0, 0], [11, 14, 1, 1]])
    theirs = rowwise(lambda row, box: tv.erase(row, *box, v=torch.tensor(0.25)), x, boxes)
    assert torch.equal(pixels.erase(x, boxes, 0.25), theirs)
    assert torch.equal(pixels.erase(x, boxes)[2], x[2])


FACTORS = [
    (pixels.brightness, tv.adjust_brightness, 0.0, 2.0),
    (pixels.contrast, tv.adjust_contrast, 0.0, 2.0),
    (pixels.saturation, tv.adjust_saturation, 0.0, 2.0),
    (pixels.hue, tv.adjust_hue, -0.5, 0.5),
    (pixels.sharpness, tv.adjust_sharpness, 0.0, 2.0),
    (pixels.solarize, tv.solarize, 0.0, 1.0),
]


@shapes
@pytest.mark.parametrize(("ours", "theirs", "low", "high"), FACTORS, ids=lambda v: getattr(v, "__name__", None))
def test_strength(
    shape: tuple[int, ...], ours: Callable[..., Tensor], theirs: Callable[..., Tensor], low: float, high: float
) -> None:
    x, by = pictures(shape), numbers(shape[0], low, high)
    x[0, :, :3, :3] = 0.5  # without a hue
    close(ours(x, by), rowwise(theirs, x, by))


@shapes
def test_levels(shape: tuple[int, ...]) -> None:
    x = pictures(shape)
    bits = torch.arange(shape[0]) % 8 + 1
    close(pixels.posterize(x, bits), rowwise(tv.posterize, x, bits))
    assert float(pixels.posterize(x, torch.zeros(shape[0])).abs().max()) == 0
    narrow = 0.2 + x * 0.3
    narrow[0, 0] = 0.4
    for picture in (x, narrow, (narrow * 20).round() / 20):
        close(pixels.autocontrast(picture), rowwise(tv.autocontrast, picture))
        close(pixels.equalize(picture), rowwise(tv.equalize, picture))


@shapes
def test_grayscale(shape: tuple[int, ...]) -> None:
    x = pictures(shape)
    rows = torch.arange(shape[0]) % 2 == 0
    channels = shape[1]
    theirs = torch.stack([tv.rgb_to_grayscale(row, channels) if hit else row for row, hit in zip(x, rows, strict=True)])
    close(pixels.grayscale(x, rows), theirs)


def test_grey_pictures_keep_their_colour() -> None:
    x, by = pictures((3, 1, 6, 6)), numbers(3, 0, 0.5)
    for function in (pixels.saturation, pixels.hue, pixels.grayscale):
        assert torch.equal(function(x, by.bool() if function is pixels.grayscale else by), x)


def test_other_channels_are_refused() -> None:
    x, by = pictures((2, 4, 6, 6)), numbers(2, 0, 0.5)
    for function in (pixels.saturation, pixels.hue, pixels.contrast):
        with pytest.raises(AugendError, match="1 or 3 channels, not 4"):
            function(x, by)


def test_rows_do_not_see_each_other() -> None:
    """Bits where the operation works place by place; 1e-6 where sums may be cut into vectors differently."""
    x, by = pictures((9, 3, 16, 16)), numbers(9, 0.1, 0.5)
    some = torch.tensor([7, 2, 5])
    cases: list[tuple[Callable[[Tensor, Tensor], Tensor], float]] = [
        (lambda x, by: pixels.rotate(x, by * 90), 0),
        (lambda x, by: pixels.rotate(x, by * 90, expand=True), 0),
        (lambda x, by: pixels.resized_crop(x, torch.stack([by * 8, by * 4, 3 + by * 4, 4 + by * 6], 1).round()), 0),
        (lambda x, by: pixels.erase(x, (torch.stack([by, by, by, by], 1) * 10).round()), 0),
        (pixels.brightness, 0),
        (pixels.contrast, 1e-6),
        (pixels.saturation, 0),
        (pixels.hue, 0),
        (pixels.sharpness, 0),
        (pixels.solarize, 0),
        (lambda x, by: pixels.equalize(x), 0),
        (lambda x, by: pixels.autocontrast(x), 0),
    ]
    for function, atol in cases:
        close(function(x[some], by[some]), function(x, by)[some], atol)


def test_inputs_are_not_written() -> None:
    x, by = pictures((4, 3, 8, 8)), numbers(4, 0.1, 0.9)
    before = x.clone()
    for function in (pixels.brightness, pixels.contrast, pixels.saturation, pixels.hue, pixels.sharpness):
        function(x, by)
    pixels.equalize(x)
    pixels.autocontrast(x)
    pixels.posterize(x, (by * 8).round())
    pixels.rotate(x, torch.zeros(4)).mul_(0)
    pixels.hflip(x, by > 2).mul_(0)
    pixels.padded_crop(x, torch.full((4, 2), 2), 2).mul_(0)
    assert torch.equal(x, before)
