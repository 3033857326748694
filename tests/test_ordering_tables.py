"""Tables 2.2 to 2.4 of procedures: what a claim compares differs in one thing, and its words are what is tested."""

from __future__ import annotations

from typing import Any

import pytest

from augend.recipes.language import compose
from augend.recipes.library import load
from augend.runner.job import Job, load_splits, resolve_job
from augend.study.tables import load_table, recipe_text
from runs import SMALL

TABLES = ["procedures/table-2-2", "procedures/table-2-3", "procedures/table-2-4"]


def _held(row: str) -> dict[str, Any]:
    return dict(compose(load(recipe_text("procedures", row))).hold)


@pytest.mark.parametrize("name", TABLES)
def test_rows_that_a_claim_compares_hold_out_the_same_pictures(name: str) -> None:
    table = load_table(name)
    for claim in table.claims:
        rows = [row for row in (claim.better, claim.than, claim.equal, claim.than_equal) if row is not None]
        assert all(_held(row) == _held(rows[0]) for row in rows), claim
        assert "as well as" not in claim.says  # what is tested is whether one is above the other
    for name_, row in table.rows.items():
        if row.flops is not None:
            assert _held(name_) == _held(row.flops)


def test_table_2_4_compares_equal_pictures_and_steps() -> None:
    """A tenth is held out of the external batch's rows: their rivals go without it too; all take as many steps."""
    seen = {}
    for row in ("augmented", "augmented-held", "mld-8-held", "mld-external-8"):
        job = Job(
            data=SMALL,
            recipe=recipe_text("procedures", row),
            settings="quick",
            budget="10epoch",
            overrides=("batch=20",),
        )
        splits = load_splits(job)
        seen[row] = len(splits["main"].train), [phase.steps for phase in resolve_job(job, splits).phases]
    assert seen["augmented-held"] == seen["mld-8-held"] == seen["mld-external-8"] == (180, [100])
    assert seen["augmented"] == (200, [100])
    assert load_table("procedures/table-2-4").reference == "augmented-held"


def test_sampling_has_its_controls() -> None:
    table = load_table("procedures/table-2-2")
    orders = {row: load(recipe_text("procedures", row)).words.set for row in table.rows if row.startswith("ma-sampled")}
    weighing = {row: words["warm.order"]["sample-by-loss"]["weighing"] for row, words in orders.items()}
    assert weighing == {"ma-sampled": "direct", "ma-sampled-inverse": "inverse", "ma-sampled-uniform": "uniform"}


def test_large_batches_are_of_as_many_pictures_as_are_scored() -> None:
    """Eight candidates a step of three epochs: as many steps, eight times the rows."""
    warm = {}
    for recipe in ("loss-delta-same", "large-batch"):
        job = Job(data=SMALL, recipe=recipe, settings="quick", budget="10epoch", overrides=("batch=20",))
        plan = resolve_job(job, load_splits(job))
        warm[recipe] = plan.phase("warm")
        assert sum(phase.steps or 0 for phase in plan.phases) == 100
    assert warm["large-batch"].steps == warm["loss-delta-same"].steps == 30
    assert warm["large-batch"].rows == 8 * warm["loss-delta-same"].rows
