"""A study finds what is true, invents nothing, and sees harm. (Slow: full studies; figures go into docs/results.md.)"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def _compare(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "augend", "compare", *arguments, "--json"], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _difference(found: dict[str, Any], recipe: str) -> tuple[float, float, float]:
    against = found["recipes"][recipe]["versus_reference"]["test"]
    print(f"{recipe}: {100 * against['mean']:+.2f} ({100 * against['low']:+.2f} to {100 * against['high']:+.2f})")
    return against["low"], against["mean"], against["high"]


@pytest.mark.slow
def test_truth_is_found(tmp_path: Path) -> None:
    """On 200 tilted digits, 800 steps, 10 repeats, augmented stands above plain."""
    found = _compare("--recipes", "plain,augmented", "--repeats", "10", "--out", str(tmp_path / "study"))
    low, mean, high = _difference(found, "plain")
    assert high < 0, (low, mean, high)
    assert found["choice"]["advised"] == "augmented"


@pytest.mark.slow
def test_nothing_is_invented(tmp_path: Path) -> None:
    """Two copies of one recipe that differ in a phase's name alone, so only in their draws, are not separated."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"{name}:\n  phases: [{{name: phase-{name}, augment: pixels}}]\n")
    files = f"{tmp_path / 'one.yaml'},{tmp_path / 'two.yaml'}"
    found = _compare("--recipes", files, "--reference", "one", "--repeats", "10", "--out", str(tmp_path / "study"))
    low, _, high = _difference(found, "two")
    assert low <= 0 <= high


def arrows(folder: Path, a_class: int, seed: int = 0) -> None:
    """Arrows of any length, place and thickness that point left or right: a flip turns one class into the other."""
    generator = np.random.default_rng(seed)
    for name in ("left", "right"):
        (folder / name).mkdir(parents=True)
        for number in range(a_class):
            picture = np.full((32, 32), 20, np.uint8)
            length, thick = generator.integers(10, 18), generator.integers(1, 3)
            x, y = generator.integers(3, 29 - length), generator.integers(8, 24)
            picture[y - thick : y + thick, x : x + length] = 230
            for step in range(6):  # the head, at the right end
                picture[y - step - 1 : y + step + 1, x + length - step : x + length - step + 2] = 230
            if name == "left":
                picture = picture[:, ::-1]
            noisy = np.clip(picture + generator.normal(0, 25, picture.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{number:03d}.png")


@pytest.mark.slow
def test_harm_is_seen(tmp_path: Path) -> None:
    """Flips lose where left and right are the classes."""
    arrows(tmp_path / "arrows", 120)
    (tmp_path / "flipped.yaml").write_text("flipped:\n  phases: [{name: plain, augment: [hflip]}]\n")
    found = _compare(
        *(str(tmp_path / "arrows"), "--size", "32", "--recipes", f"plain,{tmp_path / 'flipped.yaml'}"),
        *("--reference", "plain", "--budget", "200step", "--repeats", "5", "--out", str(tmp_path / "study")),
    )
    _, mean, high = _difference(found, "flipped")
    assert high < 0 and mean < -0.2
    assert found["choice"]["advised"] == "plain"
