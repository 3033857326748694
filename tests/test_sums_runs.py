"""Sums of pictures in runs and studies: what a cascade costs, resuming, what is refused, who is advised."""

# ruff: noqa: E501
from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from augend.contract import AugendError
from augend.data import load
from augend.recipes import check, known, resolve
from augend.runner import keeper
from augend.runner.assembly import Scene
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job, start
from augend.runner.probe import trial_of
from augend.study.compare import open_study
from augend.study.evidence import read_record
from augend.study.regime import SCRATCH
from augend.study.results import decide
from augend.study.trials import run_trial
from fixture_study import Made, make_study
from runs import SMALL, Killed, finish, killed_at, same_run, train

# ------------------------------------------------------------------ durations, the ledger


def planned(phase: dict[str, Any], rows: int = 50, pictures: int = 1000, **more: Any) -> int | None:
    recipe = {"phases": [{"name": "only", **phase}]}
    settings = {"optimizer": {"adam": {"lr": 1e-3}}, "batch": rows}
    plan = resolve(
        recipe, settings, sizes={"main": pictures}, traits={"main": frozenset()}, data="d", model="small", **more
    )
    return plan.phases[0].steps


def test_an_epoch_counts_the_pictures_of_sums() -> None:
    assert [planned({"augment": [{"sum": k}], "until": "4epoch"}) for k in (1, 2, 3, 8)] == [80, 40, 27, 10]
    assert planned({"augment": [{"pair": {}}], "until": "4epoch"}) == 80
    for epochs, rows in itertools.product((1, 5, 60), (1, 7, 50)):
        steps = planned({"augment": [{"sum": {"gradual": 8}}], "until": f"{epochs}epoch"}, rows)
        assert steps is not None

        def seen(steps: int, rows: int = rows) -> int:
            return rows * sum(8 - step * 7 // steps for step in range(steps))

        assert seen(steps) >= epochs * 1000 and (steps == 1 or seen(steps - 1) < epochs * 1000)


DATA = "digits:train=128,valid=40,test=60"


def ledger_of(folder: Path, recipe: str, budget: str, *overrides: str) -> dict[str, Any]:
    job = Job(data=DATA, recipe=recipe, budget=budget, model="small", settings="quick", overrides=overrides)
    start(job, RunFolder(folder), Hardware(threads=1), splits={"main": load(DATA)})
    return dict(json.loads((folder / "ledger.json").read_text()))


def test_a_cascade_costs_1_875_epochs(tmp_path: Path) -> None:
    """An epoch of each phase 8, 4, 2, 1 is 1 + 1/2 + 1/4 + 1/8 epochs of plain steps, by the ledger."""
    epochs = [f"sum{k}.until=1epoch" for k in (8, 4, 2, 1)]
    cascade = ledger_of(tmp_path / "cascade", "cascade", "15step", "batch=16", *epochs)
    plain = ledger_of(tmp_path / "plain", "augmented", "1epoch", "batch=16")
    counted, one = cascade["total"], plain["total"]
    assert one["pictures"] == one["rows"] == 128 and one["forward"] == 8
    for counts in ("rows", "flops", "forward", "backward"):
        assert counted[counts] == 1.875 * one[counts], counts
    assert [phase["pictures"] for phase in cascade["phases"].values()] == [128] * 4
    assert [phase["rows"] for phase in cascade["phases"].values()] == [16, 32, 64, 128]


def test_a_gradual_phase_charges_the_pictures_it_sees(tmp_path: Path) -> None:
    train(tmp_path / "run", "gradual-cascade", budget="16step", settings="quick", model="small")
    ledger = json.loads((tmp_path / "run" / "ledger.json").read_text())["phases"]
    assert ledger["gradual"]["pictures"] == 64 * sum(8 - step * 7 // 12 for step in range(12))
    assert ledger["gradual"]["rows"] == 12 * 64 and ledger["tune"]["pictures"] == 4 * 64
    assert ledger["gradual"]["flops"] == 3 * ledger["tune"]["flops"]  # rows stay as many


@pytest.mark.parametrize(
    ("until", "steps"),
    [("20step", (40, 40, 40, 40)), ("plateau: {watch: train/loss, patience: 2}, at most: 20step", (5, 10, 20, 40))],
)
def test_an_epoch_of_a_plateau_counts_pictures(
    until: str, steps: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a plateau the phases are looked at once per as many rows as pictures."""
    epochs: list[tuple[str, int]] = []
    equip = keeper.Keeper.equip

    def equipped(self: keeper.Keeper, scene: Scene) -> Any:
        found = equip(self, scene)
        epochs.append((self.spec.name, self.epoch_steps))
        return found

    monkeypatch.setattr(keeper.Keeper, "equip", equipped)
    names = ("sum8", "sum4", "sum2", "sum1")
    ends = [f"{name}.until={{{until}}}" if "plateau" in until else f"{name}.until={until}" for name in names]
    ends += [f"{name}.schedule={{lr: constant}}" for name in names]
    overrides = ("batch=5", *ends)
    train(tmp_path / "run", "cascade", budget="80step", settings="quick", model="small", overrides=overrides)
    assert epochs == list(zip(names, steps, strict=True))


def test_timing_sees_the_whole_of_a_gradual_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(data=SMALL, recipe="gradual-cascade", model="small", budget="40step", settings="quick")
    splits = {"main": load(SMALL)}
    plan = resolve_job(job, splits)
    asked: list[int] = []
    batch = Scene.batch
    monkeypatch.setattr(
        Scene, "batch", lambda self, picks, *more: (asked.append(picks.index.shape[1]), batch(self, picks, *more))[1]
    )
    step = trial_of(plan, splits)(Hardware(threads=1))
    for _ in range(8):
        step()
    assert sorted(set(asked)) == [2, 3, 4, 5, 6, 7, 8]


# ------------------------------------------------------------------ recipes


def test_resumes_where_the_number_of_pictures_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    batch = Scene.batch
    monkeypatch.setattr(
        Scene, "batch", lambda self, picks, *more: (asked.append(picks.index.shape[1]), batch(self, picks, *more))[1]
    )
    how = {
        "budget": "20step",
        "settings": "quick",
        "model": "small",
        "overrides": ("batch=24", "smoothing=0.1", "average=0.9"),
    }
    train(tmp_path / "whole", "gradual-cascade", **how)
    assert asked == [8 - step * 7 // 15 for step in range(15)] + [1] * 5
    monkeypatch.undo()
    for kill in (2, 3, 11):  # inside an interval, at its end, where few are left
        undo = killed_at(kill, monkeypatch)
        with pytest.raises(Killed):
            train(tmp_path / f"killed-{kill}", "gradual-cascade", **how)
        undo()
        finish(tmp_path / f"killed-{kill}")
        same_run(tmp_path / "whole", tmp_path / f"killed-{kill}")


PLATEAUS = """
like: cascade
drop: [sum8]
set:
  sum4.until: {plateau: {watch: train/loss, patience: 1}, at most: 12step}
  sum2.until: {plateau: {watch: valid/accuracy, patience: 2}, at most: 12step}
  sum1.until: {plateau: {watch: train/loss, patience: 2}, at most: 16step}
"""


def test_a_cascade_over_plateaus_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the paper runs it: each phase to a plateau, kept at its best weights; killed in the middle of one."""
    recipe = tmp_path / "plateaus.yaml"
    recipe.write_text(PLATEAUS)
    how = {
        "budget": "40step",
        "settings": "quick",
        "model": "small",
        "overrides": ("batch=16", "schedule.lr=on-plateau"),
    }
    train(tmp_path / "whole", str(recipe), **how)
    ledger = json.loads((tmp_path / "whole" / "ledger.json").read_text())["phases"]
    steps = [phase["rows"] // 16 for phase in ledger.values()]
    for kill in (steps[0] // 2, steps[0] + steps[1] // 2):
        undo = killed_at(kill, monkeypatch)
        with pytest.raises(Killed):
            train(tmp_path / f"killed-{kill}", str(recipe), **how)
        undo()
        finish(tmp_path / f"killed-{kill}")
        same_run(tmp_path / "whole", tmp_path / f"killed-{kill}")


SUM, INSIDE = "{sum: {k: 2}}", "{sum: {k: 2, at: net.features}}"
REFUSED = {
    "triplets after sums": (f"augment: [rotate, {SUM}], objective: {{cross-entropy: 1, soft-margin-triplet: {{of: net.features}}}}", "soft-margin-triplet needs one picture a row, and rows are mixed at input@x"),
    "triplets of summed features": (f"augment: {INSIDE}, objective: {{cross-entropy: 1, soft-margin-triplet: {{of: net.features}}}}", "rows are mixed at net.features@x"),
    "groups": (f"augment: [rotate, {SUM}], order: groups", "groups needs one picture a row"),
    "gradual to a plateau": ("augment: {sum: {gradual: 8}}, schedule: {lr: constant}, until: {plateau: {}, at most: 100step}", "ends at a plateau, so how far it has come is not known, and view 'x' changes with progress"),
    "a bank": (f"augment: [rotate, {SUM}], cache: {{views: 8}}", "no cache can hold"),
    "a closed form": (f"augment: {SUM}, fit: logistic, train: 'net[classify:]'", "needs one picture a row"),
    "twice": (f"augment: [{SUM}, {INSIDE}]", "mixes rows twice"),
    "not last": (f"augment: [{SUM}, hflip]", "sum mixes pictures, so it must be the last"),
    "neither": ("augment: {sum: {}}", "k .pictures a row. or gradual"),
    "an option": ("augment: {sum: {kk: 2}}", "did you mean 'k'"),
    "a label": ("augment: {pair: {label: last}}", "label must be 'first' or 'both'"),
    "two views inside": (f"augment: {{views: {{a: {INSIDE}, b: none}}}}", "view 'a' has several pictures a row as far as net.features .sum., so it must be the only view"),
    "gradual inside": ("augment: {sum: {gradual: 4, at: net.features}}", "must have as many pictures a row throughout the phase"),
    "two places inside": ("augment: [{noise: {sigma: 0.1, at: 'net[:middle]'}}, {sum: {k: 2, at: net.features}}]", r"no place but net.features, found net\[:middle\]"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_summed_is_refused_by_validate(what: str, tmp_path: Path) -> None:
    phase, fragment = REFUSED[what]
    file = tmp_path / "mine.yaml"
    file.write_text(f"phases:\n- {{name: a, {phase}}}\n")
    with pytest.raises(AugendError, match=fragment) as caught:
        check(file)
    assert "\n" not in str(caught.value) and "phase a" in str(caught.value)


def test_controls_change_one_thing() -> None:
    cascade = check("cascade").phases
    for name, left in (
        ("cascade-4", [4, 2, 1]),
        ("cascade-to-2", [8, 4, 2]),
        ("cascade-4-to-2", [4, 2]),
        ("cascade-2-to-2", [2]),
    ):
        assert [phase.name for phase in check(name).phases] == [f"sum{k}" for k in left]
    assert [phase.name for phase in check("cascade-by-one").phases] == [f"sum{k}" for k in range(8, 0, -1)]
    rate = [phase.optimizer.options["lr"] for phase in cascade]
    assert rate == pytest.approx([rate[0], rate[0], rate[0], 0.2 * rate[0]]) and {phase.keep for phase in cascade} == {
        "valid/accuracy"
    }
    (alone,) = check("cascade-1").phases
    assert (alone.name, alone.optimizer.options["lr"], alone.views) == ("sum1", rate[0], cascade[-1].views)
    for own, other in zip(check("cascade-1111").phases, cascade, strict=True):
        assert own.views["x"] == cascade[-1].views["x"] and (own.steps, own.optimizer, own.keep) == (
            other.steps,
            other.optimizer,
            other.keep,
        )
    for own, other in zip(check("cascade-unsummed").phases, cascade, strict=True):
        assert own.rows == other.rows * max([op.component.options.get("k", 1) for op in other.views["x"]])
    for own, other in zip(check("cascade-maps", params={"split": "conv3"}).phases, cascade, strict=True):
        assert [op.component for op in own.views["x"]] == [op.component for op in other.views["x"]]
    gradual, pairing = check("gradual-cascade").phases, check("sample-pairing").phases
    assert gradual[1] == pairing[1] and gradual[0].views["x"][:-1] == pairing[0].views["x"][:-1]
    assert (gradual[0].steps, gradual[1].steps) == (7500, 2500)


def test_what_a_comparison_from_scratch_runs_by_default_is_built() -> None:
    assert set(SCRATCH) <= {recipe.name for recipe in known()} and "gradual-cascade" in SCRATCH


@pytest.mark.parametrize(("recipe", "where"), [("sums", "phase plain"), ("cascade-maps", "phase sum8")])
def test_a_row_of_more_pictures_than_there_are_is_refused(recipe: str, where: str) -> None:
    data = "digits:train=20,valid=20,test=20"
    split = {"main": load(data)}
    sets = ("k=5000",) if recipe == "sums" else ("sum8.augment=[pixels, {sum: {k: 5000, at: 'net[:$split]'}}]",)
    with pytest.raises(
        AugendError, match=rf"{where}, augment: a row is made of 5000 pictures, and there are 20 to train on"
    ):
        resolve_job(Job(data=data, recipe=recipe, overrides=sets, budget="8step"), split)


def test_weights_picked_on_validation_pictures_are_not_advised_on_them(tmp_path: Path) -> None:
    """However good it looks there, beside recipes that keep their last; among such alone the choice is theirs."""
    recipes = {"augmented": Made(0.8), "cascade": Made(0.95), "plain": Made(0.7)}
    kept = [{"name": n, "title": n, "phases": 1, "keeps_best": n == "cascade"} for n in recipes]
    study = make_study(tmp_path / "one", recipes, extra={"recipes": kept})
    chosen = decide(read_record(study))
    assert chosen is not None and chosen["advised"] == "augmented"
    plain = [{**one, "keeps_best": False} for one in kept]
    chosen = decide(read_record(make_study(tmp_path / "two", recipes, extra={"recipes": plain})))
    assert chosen is not None and chosen["advised"] == "cascade"


def test_a_comparison_says_who_is_not_advised(tmp_path: Path) -> None:
    words = {
        "data": "digits:train=60,valid=20,test=30",
        "recipes": ("augmented", "cascade-1"),
        "repeats": 1,
        "budget": "10step",
    }
    study = open_study(tmp_path / "study", {**words, "model": "mlp"}, "command")
    assert [one["keeps_best"] for one in study.record["recipes"]] == [False, True]
    (note,) = [one for one in study.record["notes"] if one.startswith("cascade-1: the best weights are picked")]
    assert note.endswith("it is not advised beside recipes that keep their last")
    study = open_study(tmp_path / "other", {**words, "model": "mlp", "reference": "cascade-1"}, "command")
    assert any("the reference is one of them, so the advice favours them" in one for one in study.record["notes"])


def test_a_finished_trial_leaves_no_checkpoints(tmp_path: Path) -> None:
    words = {
        "data": "digits:train=60,valid=20,test=30",
        "recipes": ("cascade-1",),
        "repeats": 1,
        "budget": "12step",
        "model": "mlp",
    }
    study = open_study(tmp_path / "study", words, "command")
    assert run_trial(tmp_path / "study" / "trials" / study.names[0], lambda kind, values: None) == "finished"
    assert not list((tmp_path / "study" / "trials" / study.names[0] / "checkpoints").glob("*.ckpt"))


def test_best_weights_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long phase improves often; what no checkpoint names is removed while it runs."""
    monkeypatch.setattr(keeper, "SAVE_SECONDS", 0.0)
    seen: list[int] = []
    write_best = keeper.Keeper._keep_best

    def counting(self: keeper.Keeper, value: float) -> None:
        write_best(self, value)
        seen.append(len(list((self.folder.path / "checkpoints").glob("best-*.ckpt"))))

    improved: list[float] = []
    monkeypatch.setattr(keeper.Keeper, "_keep_best", counting)
    train(tmp_path / "run", "cascade-1", budget="120step", model="mlp")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "valid" and line["accuracy"] > max(improved, default=0.0):
            improved.append(line["accuracy"])
    assert len(improved) > 4 and any(later < before for before, later in itertools.pairwise(seen))
    assert len(list((tmp_path / "run" / "checkpoints").glob("best-*.ckpt"))) <= 2


@pytest.mark.parametrize(("until", "looks"), [("", [13, 20]), ("plateau", [7, 14, 20])])
def test_sums_are_looked_at_as_often_as_what_they_are_compared_with(
    until: str, looks: list[int], tmp_path: Path
) -> None:
    """An epoch of 200 pictures, two a row and 16 rows a step, is 7 steps: patience counts these, a choice 13, as without sums."""
    words = {"like": "sums", "set": {"plain.keep": {"best": "valid/accuracy"}}}
    if until:
        words["set"]["plain.until"] = {"plateau": {"watch": "train/loss", "patience": 9}, "at most": "20step"}
        words["set"]["plain.schedule"] = {"lr": "constant"}
    (tmp_path / "mine.yaml").write_text(json.dumps(words))
    params = {"k": 2}
    train(
        tmp_path / "run",
        str(tmp_path / "mine.yaml"),
        budget="20step",
        model="mlp",
        params=params,
        overrides=("batch=16",),
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "valid"] == looks
