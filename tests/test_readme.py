"""What the README shows, runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run(tmp_path: Path) -> None:
    script = tmp_path / "readme.py"
    script.write_text("\n".join(_blocks("python")))
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_recipe_is_valid(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(_blocks("yaml")[0])
    command = [sys.executable, "-m", "augend", "recipes", "validate", str(tmp_path / "mine.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_first_two_commands_are_one_line_each() -> None:
    main, tests = (block.strip() for block in _blocks("sh")[:2])
    assert "\n" not in main and main.endswith("augend compare")
    assert "\n" not in tests and tests.endswith("pytest")


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
