"""Durations in whole steps, what plateaus leave over, schedules."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

from augend.contract import AugendError, Component
from augend.recipes import OnPlateau, Plan, rate, resolve, resolve_steps
from augend.recipes.reading import Place
from augend.recipes.schedules import completed

SIZES = {"main": 1000}


def planned(*phases: str | dict[str, Any], budget: str | None = "1000step", batch: int = 50) -> Plan:
    listed = [
        {"name": f"p{n}", "until": one} if isinstance(one, str) else {"name": f"p{n}", **one}
        for n, one in enumerate(phases)
    ]
    return resolve(
        {"phases": listed},
        {"optimizer": {"adam": {"lr": 1e-3}}, "batch": batch, "pixels": "tilt-5"},
        sizes=SIZES,
        traits={"main": frozenset()},
        data="digits",
        model="small",
        budget=budget,
    )


def steps(plan: Plan) -> list[int | None]:
    return [phase.steps for phase in plan.phases]


@pytest.mark.parametrize(
    ("durations", "budget", "expected"),
    [
        (["1share"], "1000step", [1000]),
        (["3share", "4share", "3share"], "1000step", [300, 400, 300]),
        (["1share", "1share", "1share"], "10000step", [3333, 3334, 3333]),
        (["0.5share", "1.5share"], "1000step", [250, 750]),
        (["200step", "1share", "3share"], "1000step", [200, 200, 600]),
        (["1share", "400step", "1share"], "1000step", [300, 400, 300]),
        (["1share", "50%"], "1000step", [500, 500]),
        (["50%", "50%"], "801step", [400, 401]),
        (["33.5%", "33.5%", "33%"], "100step", [33, 34, 33]),
        (["3epoch", "1share"], "1000step", [60, 940]),
        (["0.01epoch", "1share"], "10step", [1, 9]),
        (["100step", "2epoch"], None, [100, 40]),
        (["1share"], "3epoch", [60]),
        (["10step"], "1000step", [10]),
    ],
)
def test_whole_steps(durations: list[str], budget: str | None, expected: list[int]) -> None:
    assert steps(planned(*durations, budget=budget)) == expected


def test_an_epoch_counts_pictures_not_rows() -> None:
    groups = {"until": "1epoch", "order": {"groups": {"copies": 3}}, "augment": "pixels"}
    plan = planned(groups, {"until": "1epoch", "batch": "2x"}, {"until": "1epoch"}, budget=None)
    assert steps(plan) == [63, 10, 20]  # 16 pictures a step in 48 rows; 100; 50
    assert plan.budget == 93
    assert steps(planned("1epoch", budget=None, batch=64)) == [16]  # 15.6 steps: the last batch goes on into the next


PLATEAU = {"plateau": {"watch": "train/loss", "patience": 3}, "at most": "400step"}


def test_what_a_plateau_leaves_goes_to_later_phases() -> None:
    plan = planned({"until": PLATEAU}, "1share", "3share", "100step")
    assert steps(plan) == [400, None, None, 100]
    assert steps(resolve_steps(plan, SIZES, {0: 400})) == [400, 125, 375, 100]
    assert steps(resolve_steps(plan, SIZES, {0: 100})) == [100, 200, 600, 100]
    again = resolve_steps(resolve_steps(plan, SIZES, {0: 100}), SIZES, {0: 100, 1: 200})
    assert steps(again) == [100, 200, 600, 100]
    assert Plan.from_json(again.to_json()) == again


def test_shares_before_a_plateau_keep_its_cap_free() -> None:
    plan = planned("1share", {"until": PLATEAU}, "1share")
    assert steps(plan) == [300, 400, None]
    assert steps(resolve_steps(plan, SIZES, {0: 300, 1: 50})) == [300, 50, 650]


def test_a_plateau_may_be_capped_by_a_share() -> None:
    plan = planned(
        {"until": {"plateau": {}, "at most": "1share"}}, {"until": {"plateau": {}, "at most": "1share"}}, "2share"
    )
    assert steps(plan) == [250, None, None]
    second = resolve_steps(plan, SIZES, {0: 100})
    assert steps(second) == [100, 300, None]
    assert steps(resolve_steps(second, SIZES, {0: 100, 1: 300})) == [100, 300, 600]


def test_a_plateau_without_budget_has_none() -> None:
    plan = planned({"until": PLATEAU}, "100step", budget=None)
    assert plan.budget is None and steps(plan) == [400, 100]
    with pytest.raises(AugendError, match="1share needs a budget"):
        planned({"until": PLATEAU}, "1share", budget=None)


def test_a_cap_over_the_budget_is_an_error() -> None:
    with pytest.raises(AugendError, match="over the budget of 300"):
        planned({"until": PLATEAU}, budget="300step")
    with pytest.raises(AugendError, match="leaves no step"):
        planned({"until": PLATEAU}, "1share", budget="400step")
    with pytest.raises(AugendError, match="budget: found '50%'"):
        planned("1share", budget="50%")


def multipliers(word: str, total: int, **options: Any) -> list[float]:
    return [rate(Component(word, options), step, total) for step in range(total)]


def test_schedules() -> None:
    assert multipliers("constant", 3) == [1, 1, 1]
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.1)
    ours = multipliers("cosine", 20, floor=0.1)
    for value in ours:
        assert optimizer.param_groups[0]["lr"] == pytest.approx(value, abs=1e-12)
        optimizer.step()
        oracle.step()
    warm = multipliers("cosine", 100, warmup=0.05)
    assert warm[:5] == [0.2, 0.4, 0.6, 0.8, 1.0] and max(warm) == 1.0 and warm[5] == 1.0
    assert all(a >= b for a, b in pairwise(warm[5:])) and 0 < warm[-1] < 0.001
    assert multipliers("steps", 10, factor=0.1, at=[0.3, 0.6]) == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 4)
    assert completed(Component("cosine", {"warmup": "5%"}), Place("s")).options == {"warmup": 0.05}
    assert completed(Component("steps", {"factor": 0.2, "at": ["30%", 0.6]}), Place("s")).options["at"] == [0.3, 0.6]


@pytest.mark.parametrize(
    "schedule",
    [
        Component("cosine", {"warmup": 1}),
        Component("cosine", {"warmup": "soon"}),
        Component("steps", {"factor": 2, "at": [0.5]}),
        Component("steps", {"factor": 0.5, "at": [0.7, 0.5]}),
        Component("steps", {"factor": 0.5}),
        Component("on-plateau", {"watch": "test/loss"}),
    ],
)
def test_schedules_refuse(schedule: Component) -> None:
    with pytest.raises(AugendError, match="s: "):
        completed(schedule, Place("s"))


def test_on_plateau_is_torchs() -> None:
    losses = [1.0, 0.9, 0.9, 0.9, 0.9, 0.8999, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    for watch, sign in (("train/loss", 1), ("valid/accuracy", -1)):
        options = {"watch": watch, "factor": 0.3, "patience": 2, "threshold": 1e-3, "floor": 1e-3}
        ours = OnPlateau(Component("on-plateau", options), lr=0.1)
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
        oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="min" if sign == 1 else "max", factor=0.3, patience=2, threshold=1e-3, min_lr=1e-3, eps=0
        )
        for number, loss in enumerate(losses):
            value = loss if sign == 1 else 2 - loss
            oracle.step(value)
            if number == 5:  # resumes from its numbers
                state, ours = ours.state_dict(), OnPlateau(Component("on-plateau", options), lr=0.1)
                ours.load_state_dict(state)
            assert 0.1 * ours.observe(value) == pytest.approx(optimizer.param_groups[0]["lr"])
        assert 0.1 * ours.rate == pytest.approx(1e-3)
