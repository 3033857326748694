"""Geometry and colour on whole batches, each row with its own parameters: pure functions, no randomness.

Pictures are float32 ``(rows, C, H, W)`` in [0, 1], C 1 (grey) or 3 (red, green, blue); parameters are tensors with one
entry (or line) for each row. What a row becomes depends on that row alone. Parameters mean what they mean in
`torchvision.transforms.v2.functional` on float tensors, except that angles always count counter-clockwise. What only
moves pixels (flips, padded crop, rotate with `expand`) takes any dtype; uint8 moves faster than float32.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from augend.contract import AugendError

__all__ = [
    "affine_matrices",
    "autocontrast",
    "brightness",
    "contrast",
    "equalize",
    "erase",
    "grayscale",
    "hflip",
    "hue",
    "padded_crop",
    "posterize",
    "resized_crop",
    "rotate",
    "saturation",
    "sharpness",
    "solarize",
    "to_float",
    "vflip",
    "warp",
]

Mode = Literal["bilinear", "nearest"]


def to_float(x: Tensor) -> Tensor:
    """uint8 0 .. 255 as float32 in [0, 1]; floats unchanged.

    >>> to_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    return x.float().div_(255) if x.dtype == torch.uint8 else x


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """(rows,) values as float (rows, 1, 1, 1) on the pictures' device."""
    return values.to(x.device, x.dtype).view(-1, 1, 1, 1)


# ------------------------------------------------------------------------------------------------ moving pixels


def _flip(x: Tensor, rows: Tensor, dim: int) -> Tensor:
    rows = rows.to(x.device, torch.bool)
    if (
        torch.compiler.is_compiling() and x.dtype == torch.uint8
    ):  # compiled code is vectorised for floats, not for bytes
        return _flip(x.float(), rows, dim).to(torch.uint8)
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(rows.view(-1, 1, 1, 1), x.flip(dim), x)
    # `where` with a broadcast mask is not vectorised on the CPU; copying whole rows of a doubled batch is up to 5 times
    # faster there.
    number = torch.arange(len(x)) + rows * len(x)
    return torch.cat([x, x.flip(dim)]).index_select(0, number)


def hflip(x: Tensor, rows: Tensor) -> Tensor:
    """Mirror left and right the rows where `rows`, bool ``(rows,)``, is True. Any dtype.

    >>> hflip(torch.tensor([[[[1, 2]]], [[[3, 4]]]]), torch.tensor([False, True])).flatten().tolist()
    [1, 2, 4, 3]
    """
    return _flip(x, rows, -1)


def vflip(x: Tensor, rows: Tensor) -> Tensor:
    """Mirror top and bottom the rows where `rows`, bool ``(rows,)``, is True. Any dtype."""
    return _flip(x, rows, -2)


def _padded(x: Tensor, padding: int) -> Tensor:
    """Zeros on every side of the last two dimensions; a third faster than `F.pad` for bytes."""
    rows, channels, height, width = x.shape
    padded = x.new_zeros(rows, channels, height + 2 * padding, width + 2 * padding)
    padded[:, :, padding : padding + height, padding : padding + width] = x
    return padded


# The compiler's own padding of bytes is scalar code on the CPU, 40 times slower, so it is kept from looking inside.
_padded_opaque = torch.library.custom_op(
    "augend::padded", _padded, mutates_args=(), schema="(Tensor x, int padding) -> Tensor"
)
_padded_opaque.register_fake(_padded)


def padded_crop(x: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Pad by `padding` zeros on every side, then cut a window of the old size. Any dtype.

    Args:
        x: ``(rows, C, H, W)``.
        offsets: whole numbers ``(rows, 2)``: top and left of the window in the padded picture, 0 .. 2 padding each;
            ``padding, padding`` changes nothing.
        padding: pixels.
    """
    rows, channels, height, width = x.shape
    high, wide = height + 2 * padding, width + 2 * padding
    offsets = offsets.to(x.device, torch.int64)
    opaque = torch.compiler.is_compiling() and x.device.type == "cpu"
    padded = _padded_opaque(x, padding) if opaque else _padded(x, padding)
    # Every run of `width` neighbours in memory as a line of one overlapping table: a window is `height` lines of it.
    runs = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
    planes = torch.arange(rows * channels, device=x.device)[:, None] * (high * wide)
    lines = (planes + torch.arange(height, device=x.device) * wide).view(rows, channels * height)
    starts = lines + (offsets[:, :1] * wide + offsets[:, 1:])
    return runs.index_select(0, starts.flatten()).view(rows, channels, height, width)


def affine_matrices(
    degrees: Tensor,
    translate: Tensor | None = None,
    scale: Tensor | None = None,
    shear: Tensor | None = None,
    centre: Tensor | None = None,
) -> Tensor:
    """Matrices for `warp`: shear, scale, turn about `centre`, then move.

    Args:
        degrees: ``(rows,)``, counter-clockwise.
        translate: ``(rows, 2)``, pixels right and down; None: 0.
        scale: ``(rows,)``, above 1 enlarges what is seen; None: 1.
        shear: ``(rows, 2)``, degrees along x and along y; None: 0.
        centre: ``(rows, 2)``, pixels right and down of the picture's middle; None: the middle.

    Returns:
        float32 ``(rows, 2, 3)``: where in the input an output pixel comes from, both in pixels from the middle.
    """
    degrees = degrees.double()
    zero, one = torch.zeros_like(degrees), torch.ones_like(degrees)
    angle = torch.deg2rad(degrees)
    shear_x, shear_y = (zero, zero) if shear is None else torch.deg2rad(shear.to(degrees)).unbind(1)
    size = one if scale is None else scale.to(degrees)

    def matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return torch.stack([a, b, c, d], 1).view(-1, 2, 2)

    # Inverses of turn, shear along y, shear along x, multiplied in the opposite order of the forward map.
    turn = matrix(angle.cos(), -angle.sin(), angle.sin(), angle.cos())
    along_x, along_y = matrix(one, shear_x.tan(), zero, one), matrix(one, zero, shear_y.tan(), one)
    back = along_x @ along_y @ turn / size.view(-1, 1, 1)
    still = torch.zeros_like(back[:, 0]) if centre is None else centre.to(degrees)
    moved = still if translate is None else still + translate.to(degrees)
    return torch.cat([back, still[:, :, None] - back @ moved[:, :, None]], 2).float()


def warp(x: Tensor, matrices: Tensor, mode: Mode = "bilinear", fill: float = 0.0) -> Tensor:
    """Affine map of every row.

    Args:
        x: float ``(rows, C, H, W)``.
        matrices: ``(rows, 2, 3)``, from output to input, in pixels right and down of the middle (`affine_matrices`).
        mode: "bilinear" or "nearest".
        fill: value of what lies outside. At the rim bilinear mixes picture and fill by area; torchvision weighs the
            picture twice there, so the two agree on the rim for fill 0 (torchvision's None) and inside for any fill.
    """
    _, _, height, width = x.shape
    m = matrices.to(x.device, x.dtype).unsqueeze(-1).unsqueeze(-1)  # (rows, 2, 3, 1, 1)
    across = torch.arange(width, device=x.device, dtype=x.dtype) - (width - 1) / 2
    down = (torch.arange(height, device=x.device, dtype=x.dtype) - (height - 1) / 2)[:, None]
    source = m[:, :, 0] * across + m[:, :, 1] * down + m[:, :, 2]  # (rows, 2, H, W)
    grid = torch.stack([source[:, 0] * (2 / width), source[:, 1] * (2 / height)], -1)
    if fill:
        return F.grid_sample(x - fill, grid, mode=mode, padding_mode="zeros", align_corners=False) + fill
    return F.grid_sample(x, grid, mode=mode, padding_mode="zeros", align_corners=False)


def rotate(x: Tensor, degrees: Tensor, mode: Mode = "bilinear", fill: float = 0.0, expand: bool = False) -> Tensor:
    """Turn each row about its middle by `degrees` ``(rows,)``, counter-clockwise; 0 keeps the bits.

    Args:
        x: float ``(rows, C, H, W)``; any dtype with `expand`.
        degrees: ``(rows,)``.
        mode: "bilinear" or "nearest".
        fill: value of what lies outside.
        expand: turn on a canvas that grows to hold the whole picture, then shrink that to the old size, so that what is
            turned gets smaller; to the nearest pixel both times and outside 0, whatever `mode` and `fill` say. So the
            authors of the factoring paper tilted their digits (protocol "authors"). Follows Pillow's
            ``rotate(expand=True)`` and ``resize(NEAREST)``; its 16-bit fixed-point steps may now and then pick the
            neighbour of a pixel.
    """
    if expand:
        return _rotate_expanded(x, degrees)
    turned = warp(x, affine_matrices(degrees), mode, fill)
    return torch.where((degrees == 0).to(x.device).view(-1, 1, 1, 1), x, turned)


def _rotate_expanded(x: Tensor, degrees: Tensor) -> Tensor:
    rows, channels, height, width = x.shape
    angle = torch.deg2rad(degrees.double().to(x.device))
    cos, sin = (v.mul(1e15).round().div(1e15).view(-1, 1, 1) for v in (angle.cos(), angle.sin()))

    def grown(size: float, extent: Tensor) -> Tensor:  # from the floor of one corner to the ceiling of the other
        return ((size + extent) / 2 - 1e-9).ceil() - ((size - extent) / 2 + 1e-9).floor()

    wide = grown(width, cos.abs() * width + sin.abs() * height)
    high = grown(height, sin.abs() * width + cos.abs() * height)

    def shrunk(canvas: Tensor, steps: int) -> Tensor:  # pixel of the grown canvas for each of `steps`, from its middle
        step = canvas / steps
        steps_taken = torch.cat([step / 2, step.expand(-1, -1, steps - 1)], 2)
        # Summed up like Pillow does, because exact ties are frequent (40 to 28 pixels: every seventh).
        return steps_taken.cumsum(2).floor() + 0.5 - canvas / 2

    dx, dy = shrunk(wide, width), shrunk(high, height).transpose(1, 2)
    from_x = (cos * dx - sin * dy + width / 2).floor().long()
    from_y = (sin * dx + cos * dy + height / 2).floor().long()
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    place = (from_y * width + from_x) * inside
    moved = x.flatten(2).gather(2, place.view(rows, 1, -1).expand(-1, channels, -1)).view_as(x)
    return moved * inside[:, None]


def resized_crop(x: Tensor, boxes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Cut a box out of each row and bring it to `size`, bilinear without antialiasing.

    Args:
        x: float ``(rows, C, H, W)``.
        boxes: whole numbers ``(rows, 4)``: top, left, height, width, inside the picture.
        size: height and width of the result; None: the input's.
    """
    _, _, height, width = x.shape
    out_high, out_wide = size or (height, width)
    top, left, high, wide = boxes.to(x.device, torch.float64).unsqueeze(-1).unbind(1)  # (rows, 1) each

    def places(start: Tensor, length: Tensor, steps: int, side: int) -> Tensor:
        at = (torch.arange(steps, device=x.device, dtype=torch.float64) + 0.5) * (length / steps) - 0.5
        # Held inside the box: the pixels beyond its edge take no part.
        at = torch.minimum(at.clamp(min=0), length - 1) + start
        return (at + 0.5) * (2 / side) - 1

    grid_y, grid_x = places(top, high, out_high, height), places(left, wide, out_wide, width)
    grid = torch.stack([grid_x[:, None, :].expand(-1, out_high, -1), grid_y[:, :, None].expand(-1, -1, out_wide)], -1)
    return F.grid_sample(x, grid.to(x.dtype), mode="bilinear", padding_mode="border", align_corners=False)


def erase(x: Tensor, boxes: Tensor, value: float = 0.0) -> Tensor:
    """Overwrite a box of each row; `boxes` whole numbers ``(rows, 4)``: top, left, height, width (0: nothing)."""
    _, _, height, width = x.shape
    top, left, high, wide = boxes.to(x.device, torch.int64).view(-1, 4, 1, 1).unbind(1)
    down = torch.arange(height, device=x.device)[:, None]
    across = torch.arange(width, device=x.device)
    inside = (down >= top) & (down < top + high) & (across >= left) & (across < left + wide)
    return x.masked_fill(inside[:, None], value)


# ------------------------------------------------------------------------------------------------ colour


def _luma(x: Tensor) -> Tensor:
    """Brightness as the eye weighs it (ITU-R 601), (rows, 1, H, W); a grey picture is its own."""
    if x.shape[1] == 1:
        return x
    if x.shape[1] != 3:
        raise AugendError(f"colour operations take pictures of 1 or 3 channels, not {x.shape[1]}; leave them out here")
    red, green, blue = x.unbind(1)
    return (red * 0.2989 + green * 0.587 + blue * 0.114).unsqueeze(1)


def _blend(x: Tensor, other: Tensor | float, factor: Tensor) -> Tensor:
    weight = _wide(factor, x)
    return (x * weight + other * (1 - weight)).clamp_(0, 1)


def brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor` ``(rows,)``: 0 black, 1 as it is, 2 twice as bright."""
    return _blend(x, 0.0, factor)


def contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Away from (above 1) or towards (below 1) the row's mean brightness; `factor` ``(rows,)``."""
    return _blend(x, _luma(x).mean((1, 2, 3), keepdim=True), factor)


def saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Away from (above 1) or towards (below 1) the grey picture; `factor` ``(rows,)``. Grey pictures stay."""
    return x if x.shape[1] == 1 else _blend(x, _luma(x), factor)


def grayscale(x: Tensor, rows: Tensor) -> Tensor:
    """Grey, in as many channels, where `rows`, bool ``(rows,)``, is True. Grey pictures stay."""
    return x if x.shape[1] == 1 else torch.where(rows.to(x.device).view(-1, 1, 1, 1), _luma(x).expand_as(x), x)


def hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the colour circle by `shift` ``(rows,)`` of a whole turn, -0.5 .. 0.5. Grey pictures stay."""
    if x.shape[1] == 1:
        return x
    _luma(x)  # refuses other numbers of channels
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    spread = value - low
    safe = torch.where(spread == 0, torch.ones_like(spread), spread)
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    turned = sixth + 6 * shift.to(x.device, x.dtype).view(-1, 1, 1)

    def channel(start: int) -> Tensor:  # the piecewise linear course of a channel around the circle
        k = (start + turned).remainder(6)
        return value - spread * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack([channel(5), channel(3), channel(1)], 1).clamp_(0, 1)


def posterize(x: Tensor, bits: Tensor) -> Tensor:
    """Keep ``2 ** bits`` levels, rounding down; `bits` ``(rows,)``, 0 .. 8."""
    levels = torch.exp2(_wide(bits, x))
    return torch.minimum((x * levels).floor_(), levels - 1) / levels


def solarize(x: Tensor, threshold: Tensor) -> Tensor:
    """Negative of what is at least `threshold` ``(rows,)``."""
    return torch.where(x >= _wide(threshold, x), 1 - x, x)


def autocontrast(x: Tensor) -> Tensor:
    """Stretch each channel of each row to 0 .. 1; a channel of one value stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    flat = low == high
    low, span = torch.where(flat, 0.0, low), torch.where(flat, 1.0, high - low)
    return ((x - low) / span).clamp_(0, 1)


def equalize(x: Tensor) -> Tensor:
    """Spread each channel's 256 levels so that they are about equally frequent (Pillow's rule)."""
    rows, channels, height, width = x.shape
    level = x.mul(255.999).long().clamp_(0, 255).reshape(rows * channels, -1)
    count = torch.zeros(rows * channels, 256, dtype=torch.int64, device=x.device)
    count.scatter_add_(1, level, torch.ones_like(level))
    # The last level in use is left out of the step, so that it lands on 255.
    last = (count > 0).long().mul(torch.arange(256, device=x.device)).argmax(1, keepdim=True)
    step = (height * width - count.gather(1, last)).div(255, rounding_mode="floor")
    before = count.cumsum(1) - count
    table = (before + step.div(2, rounding_mode="floor")).div(step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    table = torch.where(step == 0, torch.arange(256, device=x.device), table)
    return table.gather(1, level).view_as(x).to(x.dtype).div_(255)


def sharpness(x: Tensor, factor: Tensor) -> Tensor:
    """Away from (above 1) or towards (below 1) a 3 x 3 blur; the rim and pictures under 3 pixels stay."""
    if min(x.shape[-2:]) < 3:
        return x
    across = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    box = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    blurred = x.clone()
    blurred[..., 1:-1, 1:-1] = (box + 4 * x[..., 1:-1, 1:-1]) / 13
    return _blend(x, blurred, factor)
