"""One picture file to a square of uint8, with what else is seen while it is open."""

from __future__ import annotations

import datetime
import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["FITS", "GREYS", "Fit", "Seen", "decode_file", "eight_bits", "heic", "look", "reason", "unreadable_note"]

#: How a picture becomes a square: the middle is kept, or the whole with bars.
Fit = Literal["crop", "pad"]
FITS: tuple[Fit, ...] = ("crop", "pad")

GREYS = 32  # side of the grey version by which pictures are recognised

HEIC = (".heic", ".heif")
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"}
_TURNED = {5, 6, 7, 8}  # EXIF orientations that exchange width and height
_ORIENTATION, _EXIF, _TAKEN = 0x0112, 0x8769, 0x9003


@dataclass(frozen=True)
class Seen:
    """What was seen of a file.

    Attributes:
        pixels: uint8 ``(3, size, size)``.
        grey: whether the file has one channel (the three are then equal).
        greys: uint8 ``(32, 32)``, the whole picture squeezed into a square.
        width, height: of the picture as shown, in pixels.
        taken: when the camera took it, in seconds; None where the file does not say.
    """

    pixels: NDArray[np.uint8]
    grey: bool
    greys: NDArray[np.uint8]
    width: int
    height: int
    taken: int | None


def eight_bits(image: Image.Image) -> Image.Image:
    """The picture as 8-bit L or RGB: 16 bits scaled, transparent parts white. ValueError for floating-point numbers."""
    if image.mode == "F":
        raise ValueError("pictures of floating-point numbers have no known range")
    if image.mode.startswith("I"):
        # Pillow's own conversion would clip 16 bits to 255, which turns all but the darkest pictures white.
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    transparent = "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "RGBa", "La"}
    if transparent:
        grey = image.mode in {"1", "L", "LA", "La"}
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("L" if grey else "RGB")
    return image if image.mode in {"L", "RGB"} else image.convert("L" if image.mode == "1" else "RGB")


def _fitted(image: Image.Image, size: int, fit: Fit) -> Image.Image:
    if fit == "crop":
        return ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    longest = max(image.size)
    width, height = (max(1, round(side * size / longest)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    # Bars in the picture's own mean colour: black ones would be the strongest edges of many pictures.
    mean = np.asarray(small, np.float64).reshape(width * height, -1).mean(0).round().astype(int).tolist()
    square = Image.new(image.mode, (size, size), mean[0] if len(mean) == 1 else tuple(mean))
    square.paste(small, ((size - width) // 2, (size - height) // 2))
    return square


def _taken(exif: Image.Exif) -> int | None:
    try:
        text = str(exif.get_ifd(_EXIF).get(_TAKEN, "")).strip("\0 ")
        moment = datetime.datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
    except Exception:  # damaged metadata is no reason to lose a picture
        return None
    return round((moment - datetime.datetime(1970, 1, 1)).total_seconds())


def look(file: str | Path, size: int, fit: Fit = "crop") -> Seen:
    """One picture, turned as its EXIF says, as a square of `size` pixels (bilinear, antialiased).

    ``crop`` resizes the short side to `size` and keeps the middle; ``pad`` resizes the long side and fills the bars with
    the mean colour of the picture. 16-bit greys are scaled to 8 bits, palettes, CMYK and the like become RGB, transparent
    pixels white; of an animation the first frame is taken.

    Raises:
        Exception: of many kinds, whatever Pillow raises for a file that is damaged or no picture.
    """
    with Image.open(file) as opened:
        width, height = opened.size
        # A JPEG is decoded at 1/2, 1/4 or 1/8 as long as twice the wanted size is left to resize from.
        wanted, decides = 2 * max(size, GREYS), min(width, height) if fit == "crop" else max(width, height)
        opened.draft(None, (max(1, width * wanted // decides), max(1, height * wanted // decides)))
        grey = opened.mode in _GREY
        exif = opened.getexif()
        if exif.get(_ORIENTATION) in _TURNED:
            width, height = height, width
        taken = _taken(exif)
        image = eight_bits(ImageOps.exif_transpose(opened))
    pixels = np.asarray(_fitted(image, size, fit), np.uint8)
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[:, :, None], (*pixels.shape, 3))
    small = image.resize((GREYS, GREYS), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    return Seen(
        np.ascontiguousarray(pixels.transpose(2, 0, 1)), grey, np.asarray(small, np.uint8), width, height, taken
    )


def decode_file(file: str | Path, size: int, fit: Fit = "crop") -> tuple[NDArray[np.uint8], bool]:
    """The pixels of `look`, uint8 ``(3, size, size)``, and whether the file has one channel."""
    seen = look(file, size, fit)
    return seen.pixels, seen.grey


def heic() -> bool:
    """Lets Pillow open .heic and .heif where the package for it is installed; whether it is."""
    found = importlib.util.find_spec("pillow_heif") is not None
    if found:
        importlib.import_module("pillow_heif").register_heif_opener()
    return found


def reason(error: Exception) -> str:
    """Why a file could not be read, in a few words."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return "not a picture that Pillow can read" if isinstance(error, UnidentifiedImageError) else text


def suffixes(files: Iterable[str]) -> list[tuple[str, int]]:
    """How many files have which suffix, the most frequent first."""
    counts = Counter(Path(name).suffix.lower() or "no suffix" for name in files)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def package_for(suffix: str) -> str | None:
    """The package that teaches Pillow to read files of this suffix, where there is one."""
    return "pillow-heif" if suffix in HEIC else None


def unreadable_note(unreadable: Mapping[str, str]) -> str:
    """One line: how many files of which suffix were left out, the first reason, the package that may help."""
    counted = suffixes(unreadable)
    first, why = next(iter(unreadable.items()))
    package = next((f"; install {name} for {s}" for s, _ in counted if (name := package_for(s)) is not None), "")
    return f"left out as unreadable: {', '.join(f'{n} {s}' for s, n in counted)} (first: {first}: {why}){package}"
