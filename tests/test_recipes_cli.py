"""`augend recipes`: list, show, copy, validate."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from augend.cli.recipes import app
from augend.contract import AugendError
from augend.recipes import known, load
from augend.recipes.reading import parse


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_list_is_plain_when_piped() -> None:
    lines = run().stdout.splitlines()
    assert lines == run("list").stdout.splitlines()
    assert len(lines) == len(known())
    assert "factoring\taug-ft\tfreeze, then augment\t" + load("aug-ft").when in lines


def test_show() -> None:
    assert run("show", "aug-ft").stdout == load("aug-ft").text
    assert parse(run("show", "aug-ft-from-0").stdout, "t")["like"] == "aug-ft"
    resolved = parse(run("show", "aug-ft", "--resolved", "--set", "tune.until=30%").stdout, "t")
    assert [phase["name"] for phase in resolved["phases"]] == ["plain", "tune"]
    assert resolved["phases"][1]["until"] == "30%" and "like" not in resolved


def test_copy_then_validate(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    assert run("copy", "aug-ft", str(target)).exit_code == 0
    assert target.read_text() == load("aug-ft").text
    assert run("validate", str(target)).stdout == "mine: sound (2 phases: plain, tune)\n"
    again = run("copy", "aug-ft", str(target))
    assert isinstance(again.exception, AugendError) and "exists already" in str(again.exception)
    target.write_text(target.read_text().replace("shuffle", "shufle"))
    failed = run("validate", str(target))
    assert isinstance(failed.exception, AugendError) and "phase tune, order: found order 'shufle'" in str(
        failed.exception
    )


def test_validate_takes_several_and_names_the_bad_one(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text("good: {like: plain}\nbad: {like: plain, drop: [tune]}\n")
    done = run("validate", "plain", str(file))
    assert done.stdout.splitlines() == ["plain: sound (1 phase: plain)", "good: sound (1 phase: plain)"]
    assert isinstance(done.exception, AugendError) and "(bad)" in str(done.exception)


def test_every_builtin_recipe_validates() -> None:
    assert run("validate", *(recipe.name for recipe in known())).exit_code == 0


def test_unknown_settings() -> None:
    with pytest.raises(AugendError, match="did you mean 'quick'"):
        CliRunner().invoke(app, ["validate", "plain", "--settings", "quik"], catch_exceptions=False)
