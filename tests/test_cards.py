"""The cards of the families: their Python runs, their recipes are sound, and every recipe they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import augend
from augend.names import known as known_words
from augend.recipes.library import known
from augend.recipes.resolve import check

CARDS = sorted((Path(augend.__file__).parent / "recipes").glob("*/card.md"))


def _blocks(card: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_its_python_runs(card: Path, tmp_path: Path) -> None:
    for number, block in enumerate(_blocks(card, "python")):
        script = tmp_path / f"block{number}.py"
        script.write_text(block)
        done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_its_recipes_are_sound(card: Path, tmp_path: Path) -> None:
    for number, block in enumerate(_blocks(card, "yaml")):
        recipe = tmp_path / f"recipe{number}.yaml"
        recipe.write_text(block)
        assert check(recipe).phases


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_what_it_names_exists(card: Path) -> None:
    """Words in backquotes that look like a recipe's are a recipe, a word of recipes or a command's option."""
    words = {recipe.name for recipe in known()}
    words |= {word for kind in ("model", "data", "objective", "order") for word in known_words(kind)}
    named = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", card.read_text(encoding="utf-8")))
    assert named <= words, named - words
