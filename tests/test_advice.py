"""The rule on fixtures of all four forms, its ties, and how often it errs in simulated studies."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from augend.study import results
from augend.study.advice import Choice, Entry, choose, sentence, times
from augend.study.evidence import Recipe
from augend.study.statistics import Estimate, estimate, guess
from fixture_study import DEFAULT, Made, make_study, outcomes

PRIOR = guess(1, evaluated=300, trained=900, fixed=False)


def level(mean: float, error: float) -> Estimate:
    """An estimate of that mean and standard error, from many repeats."""
    return Estimate(mean, 1000, error * math.sqrt(1000), 0.0, 0.0, 999)


def decide(
    means: dict[str, float],
    seconds: dict[str, float],
    *,
    error: float = 0.001,
    phases: dict[str, int] | None = None,
    reference: str = "augmented",
    constant: float = 0.1,
    special: Sequence[str] | None = None,
) -> Choice:
    names = list(means)
    hard = [n for n in names if n not in ("plain", "augmented")] if special is None else special
    entries = [
        Entry(
            Recipe(n, n, (phases or {}).get(n, 1), n in hard), means[n], seconds[n], level(means[n] - constant, error)
        )
        for n in names
    ]
    return choose(
        entries, lambda a, b: level(means[a] - means[b], error), reference=reference, margin=0.01, prior=PRIOR
    )


def test_form_1_the_leader_is_clearly_best_and_no_rival_is_likely_to_beat_it() -> None:
    made = decide({"plain": 0.80, "augmented": 0.85, "ait": 0.91}, {"plain": 1, "augmented": 2, "ait": 3})
    assert (made.form, made.advised, made.leader, made.rival) == (1, "ait", "ait", None)
    assert made.candidates == ("ait",) and max(made.better.values()) < 0.01


def test_form_1_a_cheaper_recipe_is_surely_within_the_margin() -> None:
    made = decide({"augmented": 0.905, "aug-ft": 0.904}, {"augmented": 10, "aug-ft": 4})
    assert (made.form, made.advised, made.leader) == (1, "aug-ft", "augmented")


def test_form_2_a_cheaper_recipe_is_only_possibly_within_the_margin() -> None:
    made = decide({"augmented": 0.905, "aug-ft": 0.900}, {"augmented": 10, "aug-ft": 4}, error=0.02)
    assert (made.form, made.advised, made.rival) == (2, "aug-ft", "augmented")


def test_form_2_where_the_leader_is_chosen_names_the_strongest_rival() -> None:
    made = decide(
        {"augmented": 0.880, "aug-ft": 0.900, "ait": 0.885}, {"augmented": 9, "aug-ft": 4, "ait": 6}, error=0.04
    )
    assert (made.form, made.advised, made.leader, made.rival) == (2, "aug-ft", "aug-ft", "ait")


def test_form_3_the_reference_is_the_cheapest_candidate() -> None:
    made = decide({"plain": 0.85, "augmented": 0.9, "ait": 0.905}, {"plain": 1, "augmented": 2, "ait": 5})
    assert (made.form, made.advised) == (3, "augmented")
    ordinary = decide({"plain": 0.85, "augmented": 0.9}, {"plain": 1, "augmented": 2})
    assert (ordinary.form, ordinary.advised) == (1, "augmented")  # nothing special was compared


def test_form_4_comes_before_all_others() -> None:
    made = decide({"augmented": 0.105, "ait": 0.102}, {"augmented": 2, "ait": 1})
    assert (made.form, made.advised) == (4, None)
    assert decide({"augmented": 0.115, "ait": 0.102}, {"augmented": 2, "ait": 1}).form != 4


def test_a_recipe_exactly_the_margin_below_is_no_candidate() -> None:
    made = decide({"augmented": 0.90, "aug-ft": 0.89}, {"augmented": 10, "aug-ft": 4}, error=0.02)
    assert made.candidates == ("augmented",)


def test_among_costs_within_ten_percent_fewer_phases_win_then_the_better() -> None:
    same = {"augmented": 0.900, "aug-ft": 0.902, "mixup": 0.901, "cutmix": 0.9015}
    two = decide(same, {"augmented": 11.5, "aug-ft": 10, "mixup": 10.5, "cutmix": 10.9}, phases={"aug-ft": 2})
    assert two.advised == "cutmix"  # one phase each; better than mixup
    far = decide(same, {"augmented": 11.5, "aug-ft": 10, "mixup": 11.2, "cutmix": 11.3}, phases={"aug-ft": 2})
    assert far.advised == "aug-ft"


@pytest.mark.parametrize(("error", "advised", "form"), [(0.002, "mixup", 1), (0.005, "augmented", 3)])
def test_at_the_references_cost_a_special_recipe_must_be_separated_from_it(
    error: float, advised: str, form: int
) -> None:
    """0.8 points better, within the margin: advised if that is no accident, else nothing speaks for leaving the reference."""
    made = decide({"augmented": 0.900, "mixup": 0.908}, {"augmented": 10.5, "mixup": 10}, error=error)
    assert (made.advised, made.form) == (advised, form)
    ordinary = decide({"augmented": 0.900, "plain": 0.908}, {"augmented": 10.5, "plain": 10}, error=error)
    assert ordinary.advised == "plain"  # nothing special: the better one
    longer = decide(
        {"augmented": 0.900, "mixup": 0.908}, {"augmented": 10.5, "mixup": 10}, error=error, phases={"augmented": 2}
    )
    assert longer.advised == "mixup"  # and the reference has more phases


def test_a_full_tie_goes_to_the_first() -> None:
    made = decide({"a": 0.9, "b": 0.9}, {"a": 5, "b": 5}, reference="a", special=["b"])
    assert (made.advised, made.leader, made.form) == ("a", "a", 3)


def test_one_repeat_is_judged_with_the_guess() -> None:
    def lone(name: str, other: str) -> Estimate:
        means = {"augmented": 0.80, "aug-ft": 0.90}
        return estimate([means[name] - means[other]], evaluated=300, trained=900)

    entries = [
        Entry(Recipe(n, n, 1, n == "aug-ft"), m, 1.0, estimate([m - 0.1], evaluated=300, trained=900))
        for n, m in (("augmented", 0.80), ("aug-ft", 0.90))
    ]
    made = choose(entries, lone, reference="augmented", margin=0.01, prior=PRIOR)
    assert (made.form, made.advised) == (1, "aug-ft")


@pytest.mark.parametrize(("ratio", "text"), [(0.4, "0.4"), (0.384, "0.38"), (1.0, "1"), (12.4, "12"), (250.0, "250")])
def test_ratios_read_well(ratio: float, text: str) -> None:
    assert times(ratio) == text


LARGE = (3000, 1000, 1000)


def text_of(folder: Path, recipes: dict[str, Made], **options: object) -> tuple[int, str]:
    found = results.write(make_study(folder, recipes, curves=False, **options))  # type: ignore[arg-type]
    return found["advice"]["form"], found["advice"]["text"]


def test_sentence_1(tmp_path: Path) -> None:
    recipes = {"augmented": Made(0.80, 10.0), "aug-ft": Made(0.92, 4.0, 2, "freeze, then augment")}
    form, text = text_of(tmp_path, recipes, sizes=LARGE)
    assert form == 1
    assert text.startswith('Use "freeze, then augment" (aug-ft). On pictures it has not seen it is right about 9')
    assert "; no other recipe is likely to be more than 1 point better (at most 1 %), and" in text
    assert 'and "aug-ft" costs 0.4' in text and text.endswith('of "augmented".')


def test_sentence_2_asks_for_repeats_or_pictures(tmp_path: Path) -> None:
    recipes = {"augmented": Made(0.90, 10.0), "aug-ft": Made(0.90, 4.0, 2)}
    form, text = text_of(tmp_path, recipes, seed=2)
    assert form == 2
    assert "cannot be told apart with 300 test pictures and 5 repeats; " in text
    assert '"aug-ft" is cheaper (x0.' in text and "so start with " in text
    assert "To separate them" in text and ("--repeats 20." in text or "more pictures." in text)


VERSUS = {"mean": 0.002, "low": -0.01, "high": 0.014, "repeats": 5, "spread": 0.01, "shared": 1e-5, "floor": 1e-3}
BETTER = {"better": 0.3, "within": 0.7, "worse": 0.0}


def said(folder: Path, made: Choice, seconds: dict[str, float], **versus: object) -> str:
    """The sentence of a choice; `versus`: what the test pictures say of the rival."""
    recipes = {name: Made(0.9, cost) for name, cost in seconds.items()}
    found = results.write(make_study(folder, recipes, curves=False, reference=next(iter(recipes))))
    found["choice"] = {**found["choice"], **asdict(made)}
    for name, recipe in found["recipes"].items():
        recipe["cost"]["counted"] = seconds[name]
        recipe["versus_advised"] = None
    assert made.rival is not None
    found["recipes"][made.rival]["versus_advised"] = {**VERSUS, "separated": 0, "probabilities": BETTER, **versus}
    form, text = sentence(found)
    assert form == 2
    return text


def test_a_lead_within_the_margin_is_said_where_validation_shows_it(tmp_path: Path) -> None:
    seconds = {"augmented": 10.0, "aug-ft": 4.0}
    made = decide({"augmented": 0.905, "aug-ft": 0.897}, seconds, error=0.0035)
    assert (made.form, made.advised, made.rival) == (2, "aug-ft", "augmented")
    lead = made.ahead["augmented"]
    assert lead["separated"] == 1 and 0 < lead["low"] < lead["mean"] < 0.01
    assert said(tmp_path, made, seconds) == (
        '"augmented" is 0.8 points better (0.1 to 1.5) than "aug-ft" on the validation pictures, which is less than the '
        'margin of 1 point; "aug-ft" costs 0.4 of it, so start with "aug-ft".'
    )
    lead["separated"] = 0
    assert '"aug-ft" and "augmented" cannot be told apart with 300 test pictures' in said(tmp_path, made, seconds)


def test_validation_and_test_pictures_that_disagree_are_both_told(tmp_path: Path) -> None:
    seconds = {"augmented": 10.0, "aug-ft": 4.0}
    made = decide({"augmented": 0.905, "aug-ft": 0.897}, seconds, error=0.0035)
    made.ahead["augmented"] |= {"mean": -0.02, "low": -0.03, "high": -0.01, "separated": -1}
    ahead = {"mean": 0.03, "low": 0.01, "high": 0.05, "separated": 1, "probabilities": {**BETTER, "better": 0.9}}
    text = said(tmp_path, made, seconds, **ahead)
    assert text.startswith(
        '"aug-ft" is 2.0 points better (1.0 to 3.0) than "augmented" on the validation pictures, so '
    )
    assert 'But on the test pictures "augmented" was 3.0 points better than "aug-ft" (1.0 to 5.0)' in text


def test_what_is_hardly_cheaper_did_not_do_better(tmp_path: Path) -> None:
    """X costs 1.09 of the cheapest and has fewer phases; L, the better one, costs 1.11 of it."""
    seconds = {"cutmix": 10.9, "aug-ft": 10.0, "mixup": 11.1}
    means = {"cutmix": 0.901, "aug-ft": 0.900, "mixup": 0.906}
    made = decide(means, seconds, phases={"aug-ft": 2}, error=0.02)
    assert (made.form, made.advised, made.rival) == (2, "cutmix", "mixup")
    assert '"cutmix" is a little cheaper, so start with "cutmix".' in said(tmp_path, made, seconds)


def test_at_equal_seconds_what_was_used_more_or_less_is_chance(tmp_path: Path) -> None:
    """Two recipes that are as good: the one that took fewer of the seconds that both were given is not cheaper."""
    recipes = {"augmented": Made(0.90, 10.0), "infobatch": Made(0.90, 8.0), "grab": Made(0.90, 9.5)}
    own = results.write(make_study(tmp_path / "own", recipes, sizes=LARGE, curves=False))
    assert own["choice"]["advised"] == "infobatch" and own["alike"] == "steps"
    given = {"request": {"time": "1h"}, "predicted": {name: {"training": 9.0} for name in recipes}}
    found = results.write(make_study(tmp_path / "equal", recipes, sizes=LARGE, curves=False, extra=given))
    assert found["alike"] == "seconds" and found["choice"]["advised"] == "augmented"
    assert found["advice"]["text"] == 'None of the special recipes is worth its cost here: use "augmented".'
    assert found["recipes"]["infobatch"]["cost"]["used_of_predicted"] == pytest.approx(8 / 9, rel=0.05)
    assert own["missed"] == [] and len(found["missed"]) == 1  # grab's 5 % and everybody's 10 are no news
    assert re.match(
        r"seconds were not equal after all: infobatch used 0\.(7|8)\d of what augmented", found["missed"][0]
    )
    better = {"augmented": Made(0.90, 10.0), "infobatch": Made(0.97, 8.0)}
    found = results.write(make_study(tmp_path / "better", better, sizes=LARGE, curves=False, extra=given))
    assert found["advice"]["text"].startswith("Use") and "costs" not in found["advice"]["text"]
    two = {name: recipes[name] for name in ("augmented", "infobatch")}
    tuned = {**given, "tuned": {"augmented": {"seconds": 50.0}, "infobatch": {"seconds": 5.0}}}
    found = results.write(make_study(tmp_path / "tuned", two, sizes=LARGE, curves=False, extra=tuned))
    assert found["choice"]["advised"] == "infobatch"  # tuning is on top of what was given
    dear = {**given, "predicted": {"augmented": {"training": 14.0}, "infobatch": {"training": 9.0}}}
    found = results.write(make_study(tmp_path / "dear", two, sizes=LARGE, curves=False, extra=dear))
    assert found["choice"]["advised"] == "infobatch"  # phases of a fixed length took more than was to be given


def test_a_recipe_that_has_not_begun_is_waited_for_and_one_that_failed_is_named(tmp_path: Path) -> None:
    """Advice that leaves a recipe out without a word would read as if it had been compared."""
    recipes = {"augmented": Made(0.93, 4.0), "aug-ft": Made(0.80, 9.0, 2), "mixup": Made(0.97, 5.0)}
    others = [f"{name}-r{r}" for name in ("augmented", "aug-ft") for r in range(5)]
    study = make_study(tmp_path, recipes, sizes=LARGE, finished=others, curves=False)
    found = results.write(study)
    assert found["choice"] is None and found["advice"]["text"].startswith("No repeat is finished by every recipe yet")
    for r in range(5):
        (study / "trials" / f"mixup-r{r}" / "state.json").write_text('{"state": "failed", "reason": "it broke"}')
    found = results.write(study)
    assert found["repeats_finished"] == 5 and found["choice"]["advised"] == "augmented"
    assert found["advice"]["form"] == 1 and "None of the special" not in found["advice"]["text"]
    assert '"mixup" failed in every repeat, so nothing is said of it.' in found["advice"]["text"]
    assert found["failed_recipes"] == ["mixup"] and not found["complete"]
    (study / "trials" / "mixup-r4" / "state.json").write_text('{"state": "running"}')
    assert results.write(study)["choice"] is None


def test_the_choice_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that ends while results are written counts for both files, or for none."""
    names = [f"{name}-r{r}" for name in ("augmented", "aug-ft") for r in range(2)]
    recipes = {"augmented": Made(0.80, 10.0), "aug-ft": Made(0.92, 4.0, 2)}
    study = make_study(tmp_path, recipes, repeats=2, sizes=LARGE, curves=False)
    (study / "trials" / "aug-ft-r1" / "state.json").write_text('{"state": "running"}')
    decided = results.decide

    def meanwhile(*args: object) -> object:
        found = decided(*args)  # type: ignore[arg-type]
        (study / "trials" / "aug-ft-r1" / "state.json").write_text('{"state": "finished"}')
        return found

    monkeypatch.setattr(results, "decide", meanwhile)
    found = results.write(study)
    assert found["choice"] == json.loads((study / "choice.json").read_text()) and found["choice"]["repeats"] == [0]
    assert found["trials"]["finished"] == len(names) - 1 and found["repeats_finished"] == 1


def test_sentence_3(tmp_path: Path) -> None:
    recipes = {"augmented": Made(0.93, 4.0), "aug-ft": Made(0.80, 9.0, 2)}
    assert text_of(tmp_path, recipes, sizes=LARGE) == (
        3,
        'None of the special recipes is worth its cost here: use "augmented".',
    )


def test_sentence_4(tmp_path: Path) -> None:
    form, text = text_of(tmp_path, {name: Made(0.1) for name in DEFAULT}, classes=("dog", *"123456789"))
    assert form == 4
    assert "every recipe is within the margin of always answering " in text
    assert text.endswith("Check the labels: augend data check tilted-digits.")


def test_few_repeats_are_screening(tmp_path: Path) -> None:
    recipes = {"augmented": Made(0.80, 10.0), "aug-ft": Made(0.92, 4.0, 2)}
    form, text = text_of(tmp_path / "three", recipes, sizes=LARGE, repeats=3)
    assert form == 1 and text.endswith("With 3 repeats this is screening, not evidence.")
    form, text = text_of(tmp_path / "one", recipes, sizes=LARGE, repeats=1)
    assert form == 1 and "With 1 repeat this is screening, not evidence." in text
    assert "(at most" not in text and " to " not in text.split(";")[0]


def test_the_choice_is_of_validation_alone(tmp_path: Path) -> None:
    """Test predictions that say the opposite change no choice, but the sentence warns."""
    recipes = {"augmented": Made(0.93, 10.0), "aug-ft": Made(0.85, 4.0, 2)}
    study = make_study(tmp_path, recipes, sizes=LARGE, curves=False)
    before = results.write(study)["choice"]
    for path in study.glob("trials/augmented-r*/predictions.npz"):
        rows = dict(np.load(path))
        test = np.flatnonzero(rows["split"] == "test")
        rows["probabilities"][test[:400]] = np.eye(10)[(rows["labels"][test[:400]] + 1) % 10]
        np.savez(path, **rows)
    after = results.write(study)
    assert after["choice"] == before == json.loads((study / "choice.json").read_text())
    assert before["advised"] == "augmented"
    assert 'But on the test pictures "aug-ft" was' in after["advice"]["text"]


def _study(
    rng: np.random.Generator,
    truth: dict[str, float],
    seconds: dict[str, float],
    *,
    pictures: int,
    phases: dict[str, int],
) -> Choice:
    """A study of 60/20/20 splits of `pictures`, 5 repeats, as the rule sees it."""
    n_valid, n_train = pictures // 5, 3 * pictures // 5
    difficulty = rng.standard_normal(pictures)
    values: dict[str, list[float]] = {name: [] for name in truth}
    for _ in range(5):
        valid = rng.choice(pictures, n_valid, replace=False)
        for name, accuracy in truth.items():
            values[name].append(float(outcomes(accuracy, difficulty[valid], rng).mean()))

    def read(numbers: Sequence[float]) -> Estimate:
        return estimate(numbers, evaluated=n_valid, trained=n_train)

    entries = [
        Entry(
            Recipe(n, n, phases[n], n != "augmented"),
            float(np.mean(v)),
            seconds[n],
            read([x - 0.1 for x in v]),
        )
        for n, v in values.items()
    ]
    return choose(
        entries,
        lambda a, b: read(list(np.subtract(values[a], values[b]))),
        reference="augmented",
        margin=0.01,
        prior=guess(1, evaluated=n_valid, trained=n_train, fixed=False),
    )


@pytest.mark.slow
@pytest.mark.parametrize("pictures", [3000, 10000])
def test_a_cheap_recipe_two_points_worse_is_seldom_advised(pictures: int) -> None:
    rng = np.random.default_rng(7)
    truth = {"augmented": 0.90, "aug-ft": 0.88, "mixup": 0.90, "ait": 0.90}
    seconds = {"augmented": 10.0, "aug-ft": 4.0, "mixup": 10.0, "ait": 20.0}
    phases = {"augmented": 1, "aug-ft": 2, "mixup": 1, "ait": 1}
    made = [_study(rng, truth, seconds, pictures=pictures, phases=phases) for _ in range(400)]
    assert np.mean([choice.advised == "aug-ft" for choice in made]) <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("pictures", [300, 3000])
def test_of_four_equal_recipes_the_cheap_one_is_a_candidate_and_noise_is_not_the_only_one(pictures: int) -> None:
    rng = np.random.default_rng(8)
    truth = dict.fromkeys(("augmented", "aug-ft", "mixup", "ait"), 0.90)
    seconds = {"augmented": 10.0, "aug-ft": 4.0, "mixup": 10.0, "ait": 20.0}
    made = [_study(rng, truth, seconds, pictures=pictures, phases=dict.fromkeys(truth, 1)) for _ in range(300)]
    alone = np.mean([len(choice.candidates) == 1 for choice in made])
    cheap = np.mean([choice.advised == "aug-ft" for choice in made])
    print(f"{pictures} pictures: one candidate {alone:.2f}, the cheapest advised {cheap:.2f}")
    assert alone < (0.6 if pictures == 300 else 0.2)
    assert cheap > (0.4 if pictures == 300 else 0.75)


@pytest.mark.slow
def test_shuffled_labels_are_told_from_weak_learning() -> None:
    rng = np.random.default_rng(9)
    seconds, phases = dict.fromkeys(DEFAULT, 1.0), dict.fromkeys(DEFAULT, 1)
    chance = [_study(rng, dict.fromkeys(DEFAULT, 0.10), seconds, pictures=1500, phases=phases) for _ in range(300)]
    learnt = [_study(rng, dict.fromkeys(DEFAULT, 0.20), seconds, pictures=1500, phases=phases) for _ in range(300)]
    assert np.mean([choice.form == 4 for choice in chance]) > 0.85
    assert np.mean([choice.form == 4 for choice in learnt]) < 0.02
