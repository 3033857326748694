"""Planted truths over twenty studies each: what is equal is not separated, harm is seen, shuffled labels are found out.

No copy of a picture crosses a split. (Slow: an hour on two cores; figures go into docs/results.md.)
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import augend
from augend.data import load
from test_truth import arrows

STUDIES = 20
ASKED: dict[str, Any] = {"model": "small", "size": 32, "budget": "200step", "repeats": 5, "precision": "32-true"}


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of 100 photographs."""
    root = Path(os.environ.get("AUGEND_DATA", "")) / "tiny-imagenet-20"
    if not root.is_dir():
        pytest.skip("AUGEND_DATA holds no tiny-imagenet-20")
    folder = tmp_path_factory.mktemp("animals")
    for source in sorted((root / "train").iterdir())[:4]:
        (folder / source.name).mkdir()
        for file in sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpeg", ".jpg"))[:100]:
            shutil.copy(file, folder / source.name / file.name)
    return folder


def study(data: Path, out: Path, number: int, *recipes: str, reference: str) -> dict[str, Any]:
    return augend.compare(
        str(data), recipes, reference=reference, seed=1000 * number, out=out / str(number), refit="train", **ASKED
    )


@pytest.mark.slow
def test_equal_recipes_are_seldom_separated(animals: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(f"{name}:\n  phases: [{{name: phase-{name}, augment: pixels}}]\n")
    separated = 0
    for number in range(STUDIES):
        found = study(
            animals, tmp_path, number, str(tmp_path / "one.yaml"), str(tmp_path / "two.yaml"), reference="one"
        )  # fmt: skip
        against = found["recipes"]["two"]["versus_reference"]["test"]
        separated += bool(against["separated"])
        print(number, f"{100 * against['mean']:+.2f} ({100 * against['low']:+.2f} to {100 * against['high']:+.2f})")
    print(f"{separated} of {STUDIES} separated")
    assert separated <= 3


@pytest.mark.slow
def test_flips_lose_on_arrows(tmp_path: Path) -> None:
    (tmp_path / "flipped.yaml").write_text("flipped:\n  phases: [{name: plain, augment: [hflip]}]\n")
    advised = []
    for number in range(STUDIES):
        arrows(tmp_path / f"arrows-{number}", 60, seed=number)
        found = study(
            tmp_path / f"arrows-{number}", tmp_path, number, "plain", str(tmp_path / "flipped.yaml"), reference="plain"
        )  # fmt: skip
        advised.append(found["choice"]["advised"])
    print(advised)
    assert advised == ["plain"] * STUDIES


@pytest.mark.slow
def test_shuffled_labels_are_found_out(animals: Path, tmp_path: Path) -> None:
    forms = []
    for number in range(STUDIES):
        files = sorted(p for p in animals.rglob("*") if p.is_file())
        classes = sorted(p.name for p in animals.iterdir())
        drawn = np.random.default_rng(number).integers(len(classes), size=len(files))
        for file, place in zip(files, drawn.tolist(), strict=True):
            target = tmp_path / f"shuffled-{number}" / classes[place]
            target.mkdir(parents=True, exist_ok=True)
            os.link(file, target / file.name)
        found = study(tmp_path / f"shuffled-{number}", tmp_path, number, "plain", "augmented", reference="augmented")
        forms.append(found["advice"]["form"])
    print(forms)
    assert forms == [4] * STUDIES


def test_no_copy_crosses_a_split(animals: Path, tmp_path: Path) -> None:
    """Every picture lies in its class twice, under other names, one of them in a folder of another class."""
    twice = tmp_path / "twice"
    classes = sorted(p.name for p in animals.iterdir())
    for place, name in enumerate(classes):
        for number, file in enumerate(sorted((animals / name).iterdir())):
            for copy in ("a", "b"):
                wrong = copy == "b" and number % 10 == 0
                target = twice / (classes[(place + 1) % len(classes)] if wrong else name)
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target / f"{copy}-{file.name}")
    for repeat in range(STUDIES):
        split = load(twice, size=32, repeat=repeat)
        where: dict[str, set[str]] = {}
        for piece in ("train", "valid", "test"):
            for name in split.pieces()[piece].ids:
                where.setdefault(Path(name).name.partition("-")[2], set()).add(piece)
        assert len(where) == 400 and all(len(pieces) == 1 for pieces in where.values())
