"""Pictures made by tests: smooth, all different, and as awkward as those that people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("cats <script>", "[red]birds", "dogs 🐕")
SIZES = (
    (64, 48),
    (48, 64),
    (33, 90),
    (90, 33),
    (128, 128),
    (7, 5),
    (40, 40),
    (200, 150),
    (64, 65),
    (31, 32),
    (50, 80),
    (96, 64),
)


def photo(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A smooth picture in colour, unlike those of all other seeds."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def exif(turned: int | None = None, taken: str | None = None) -> Image.Exif:
    """Metadata with an orientation and the moment of exposure."""
    made = Image.Exif()
    if turned is not None:
        made[0x0112] = turned
    if taken is not None:
        made.get_ifd(0x8769)[0x9003] = taken
    return made


def fill(base: Path, counts: dict[str, int], *, start: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
    """JPEGs in class folders, all different."""
    seed = start
    for name, count in counts.items():
        (base / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            photo(seed, size).save(base / name / f"{i:03d}.jpg", quality=92)
            seed += 1
    return base


def messy(base: Path) -> Path:
    """Four classes of JPEGs: 12 sizes, some turned by EXIF, grey, CMYK, truncated, one class of 4, names that bite."""
    seed = 1000
    for name, count in zip((*NAMES, "four"), (60, 24, 24, 4), strict=True):
        (base / name).mkdir(parents=True)
        for i in range(count):
            image, about = photo(seed, SIZES[i % 12]), exif(turned=6 if i % 5 == 0 else None)
            kind = {3: "L", 7: "CMYK"}.get(i % 12)
            (image.convert(kind) if kind else image).save(base / name / f"{i:03d}.jpg", exif=about, quality=92)
            seed += 1
    whole = (base / NAMES[0] / "004.jpg").read_bytes()
    (base / NAMES[0] / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    return base
