"""The house itself: nothing imports upwards, heavy libraries stay out, public names are documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import augend
from augend.names import BUILTIN, PUBLIC, imported

SOURCE = Path(augend.__file__).parent

# Rooms from the ground up; a room may import its own floor's own room, and any floor below.
FLOORS = [
    {"contract"},
    {"names", "address", "randomness", "checkpoint", "cost", "pixels", "interrupt"},
    {"data", "models"},
    {"order", "augment", "objective", "stages"},
    {"evaluate"},
    {"recipes"},
    {"runner"},
    {"study"},
    {"report"},
    {"cli"},
    {"__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def _imports(file: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "augend":
            if node.module == "augend":
                found += [
                    f"augend.{alias.name}"
                    for alias in node.names
                    if (SOURCE / alias.name).exists() or (SOURCE / f"{alias.name}.py").exists()
                ]
            else:
                found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("augend.")]
    return found


FILES = sorted(SOURCE.rglob("*.py"))


def test_nothing_imports_upwards() -> None:
    wrong = []
    for file in FILES:
        here = _room("augend." + ".".join(file.relative_to(SOURCE).with_suffix("").parts))
        if here in ("__init__", "contract"):  # the contract names types of its floor for the checker alone
            continue
        for module in _imports(file):
            there = _room(module)
            if there == here:
                continue
            # pixels, names and the like are one floor of small files that may use one another downwards only
            if LEVEL[there] > LEVEL[here] or (LEVEL[there] == LEVEL[here] and LEVEL[here] >= 2):
                wrong.append(f"{file.relative_to(SOURCE)} imports {module}")
    allowed = {
        # the study writes its page when it ends; the report reads the study's files
        "study/running.py imports augend.report",
    }
    assert set(wrong) <= allowed, sorted(set(wrong) - allowed)


def test_every_room_has_a_floor() -> None:
    rooms = {p.stem for p in SOURCE.glob("*.py")} | {
        p.name for p in SOURCE.iterdir() if p.is_dir() and any(p.glob("*.py"))
    }
    assert rooms - {"__init__", "__pycache__"} <= set(LEVEL)


HEAVY = {
    "torch",
    "numpy",
    "torchvision",
    "timm",
    "lightning_fabric",
    "sklearn",
    "scipy",
    "matplotlib",
    "jinja2",
    "pydantic",
}


@pytest.mark.parametrize("code", ["import augend", "import augend.cli", "import augend; dir(augend)"])
def test_importing_loads_nothing_heavy(code: str) -> None:
    script = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    loaded = set(
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    )
    heavy = HEAVY if code != "import augend.cli" else HEAVY - {"pydantic"}
    assert not loaded & heavy


def test_help_lists_the_commands() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "augend", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for command in ("compare", "train", "resume", "evaluate", "predict", "recipes", "report", "trial"):
        assert command in shown


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_exist_and_are_documented(name: str) -> None:
    value = getattr(augend, name)
    assert value.__doc__ and len(value.__doc__.split()) > 5


@pytest.mark.parametrize("target", sorted({t for table in BUILTIN.values() for t in table.values()}))
def test_words_of_recipes_exist_and_are_documented(target: str) -> None:
    assert imported(target).__doc__


def test_files_read_in_one_sitting() -> None:
    long = {
        str(f.relative_to(SOURCE)): n for f in FILES if (n := len(f.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert not long
