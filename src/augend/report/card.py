"""The card beside an exported model: what it is, how good it is and by what measure, how to load it. Markdown."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from augend.evaluate.export import Exported
from augend.evaluate.load import Classifier
from augend.evaluate.plain import plain_network
from augend.report.phases import phase_words
from augend.report.snippets import reading, snippet
from augend.study.evidence import read_rows, shown_by
from augend.study.lineage import began_with
from augend.study.origin import Origin, read_plan, steps_taken

__all__ = ["card", "escaped"]

CLASSES = 40  # more are counted, not listed
_SPECIAL = re.compile(r"([\\`*_\[\]|#~$!])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escaped(text: str) -> str:
    """Text of a user's as Markdown that shows just that: no markup, no HTML, one line.

    >>> escaped("<b>a|b*")
    '&lt;b&gt;a\\\\|b\\\\*'
    """
    line = " ".join("".join(ch if ch.isprintable() else " " for ch in text).split())
    return _SPECIAL.sub(r"\\\1", "".join(_ENTITIES.get(ch, ch) for ch in line))


def card(classifier: Classifier, origin: Origin, files: list[Exported]) -> str:
    """The text, for a model that was written to `files`."""
    parts = [
        f"# A picture classifier for {len(classifier.classes)} classes",
        _what(classifier, origin),
        "## Use",
        f"Read pictures:\n\n```python\n{reading(classifier)}\n```",
        *(_use(classifier, one) for one in files),
        "## How good it is",
        _accuracy(classifier, origin),
        "## How it was trained",
        _training(classifier, origin),
        "## Limits",
        "It answers one of its classes for every picture, also for a picture of none of them, and what is said above holds "
        "for pictures like those it was tested on. Its licence is not set: whoever trained it chooses one, and the pictures, "
        "and the weights that training began from, may bring conditions of their own.",
        f"*Written {time.strftime('%Y-%m-%d')} by augend.*",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(classifier: Classifier, origin: Origin) -> str:
    channels, height, width = classifier.shape
    networks = classifier.about["networks"]
    weights = sum(p.numel() for p in classifier.parameters())
    made = " and ".join(f"`{spec['model']['word']}`" for spec in networks.values())
    names = [escaped(name) for name in classifier.classes]
    listed = ", ".join(names[:CLASSES]) + (f" and {len(names) - CLASSES} more" if len(names) > CLASSES else "")
    return (
        f"A network ({made}, {weights:,} weights) that says which of these classes a picture shows: {listed}.\n\n"
        f"* Input: float32 `(N, {channels}, {height}, {width})`, {'RGB' if channels == 3 else 'grey'}, pixels in [0, 1], any "
        f"N. Other pictures are resized to a short side of {classifier.resize} (bilinear, antialiased) and cropped at the "
        "centre.\n"
        "* Output: float32 logits, one a class in the order above; their softmax gives probabilities."
    )


def _use(classifier: Classifier, exported: Exported) -> str:
    checked = (
        f"`{exported.file.name}` ({exported.format}, {exported.file.stat().st_size / 1e6:.3g} MB): logits within "
        f"{exported.difference:.1g} of the original's on {exported.pictures} pictures, read by {exported.reader}."
    )
    code = snippet(exported, classifier)
    note = ""
    plain = plain_network(classifier) if exported.format == "plain safetensors" else None
    if exported.format == "plain safetensors" and (plain is None or plain.code is None):
        note = (
            "\n\nThis network cannot be written as a few lines of plain torch"
            f"{'' if plain is not None else ' (it is made of several, whose weights stand under NETWORK.NAME)'}: "
            "`augend.load` on the run gives it back, and `augend export --to model.pt2` or `model.onnx` a file that needs no "
            "augend."
        )
    return f"{checked}{note}\n\n```python\n{code}\n```"


def _accuracy(classifier: Classifier, origin: Origin) -> str:
    if origin.study is not None and origin.recipe is not None:
        return _estimate(origin.study, origin.recipe, origin)
    result = origin.read("result.json")
    counts = _counts(origin)
    if "test" not in result or not counts.get("test"):
        return "Nothing is known of it here: the run's results did not lie beside the model."
    from scipy.stats import binomtest

    number, right = sum(counts["test"]), round(result["test"] * sum(counts["test"]))
    interval = binomtest(right, number).proportion_ci(method="wilson")
    return (
        f"Right on {100 * result['test']:.1f} % of {number:,} test pictures (95 %: {100 * interval.low:.1f} to "
        f"{100 * interval.high:.1f}). One run: the interval is of which pictures were drawn for the test, not of training "
        "again."
        + _learned_before(origin)
        + _shifted({key: value for key, value in result.items() if key.startswith("shifted:")})
    )


def _learned_before(origin: Origin) -> str:
    """Whether the weights that a run began with knew its test pictures."""
    plan = None if origin.run is None else read_plan(origin.run)
    if origin.run is None or plan is None or not (origin.run / "predictions.npz").is_file():
        return ""
    rows = read_rows(origin.run / "predictions.npz")
    test = shown_by(rows["ids"][rows["split"] == "test"].tolist())
    known = int(began_with(plan).among(origin.read("run.json")["job"]["data"], test.tolist()).sum())
    return (
        f" **The weights that it began with had learned from {known:,} of them**, which flatters it." if known else ""
    )


def _estimate(study: dict[str, Any], name: str, origin: Origin) -> str:
    recipe = study["recipes"][name]
    test = recipe.get("test")
    if test is None:
        return "The study has no test result of this recipe yet."
    score = "balanced accuracy" if study["metric"] == "balanced_accuracy" else "accuracy"
    interval = "" if test["low"] is None else f" (95 %: {100 * test['low']:.1f} to {100 * test['high']:.1f})"
    trials = "one trial" if test["repeats"] == 1 else f"{test['repeats']} trials"
    lines = [
        f"Test {score} **{100 * test['mean']:.1f} %**{interval}: the study's estimate of the recipe "
        f"“{escaped(recipe['title'])}”, from {trials} on {study['sizes']['test']:,} test pictures"
        f"{'' if study['fixed_test'] or test['repeats'] == 1 else ' each, drawn anew'}, none of which was trained on."
    ]
    own = origin.read("result.json").get("test")
    if origin.trained_on == "train":
        said = "" if own is None else f"; on its test pictures it was right in {100 * own:.1f} %"
        lines.append(f"The weights are those of {'that' if test['repeats'] == 1 else 'one such'} trial{said}.")
    else:
        more = {"trainval": "the validation pictures of the first repeat too", "all": "all pictures"}[origin.trained_on]
        lines.append(
            f"The weights come from training once more, as long, on {more}; the estimate is of the recipe, on fewer pictures."
        )
    if recipe.get("calibration_error") is not None:
        lines.append(
            f"Its probabilities are off by {100 * recipe['calibration_error']:.1f} points on average (expected calibration "
            "error)."
        )
    recall = [(share, escaped(name)) for name, share in zip(study["classes"], recipe.get("recall", []), strict=False)]
    worst = sorted((share, name) for share, name in recall if share is not None and share < 0.995)[:5]
    if len(study["classes"]) > 2 and worst:
        lines.append("Recognised least: " + ", ".join(f"{name} ({100 * share:.0f} %)" for share, name in worst) + ".")
    shifted = {f"shifted:{key}": value["mean"] for key, value in recipe.get("shifted", {}).items()}
    return " ".join(lines) + _shifted(shifted)


def _shifted(found: dict[str, float]) -> str:
    return "".join(
        f" On test pictures shifted by a fixed rule ({escaped(key.removeprefix('shifted:'))}): {100 * share:.1f} %."
        for key, share in found.items()
    )


def _counts(origin: Origin) -> dict[str, list[int]]:
    found: dict[str, list[int]] = origin.read("run.json").get("data", {}).get("main", {}).get("counts", {})
    return found


def _training(classifier: Classifier, origin: Origin) -> str:
    if origin.run is None:
        return f"By the recipe {escaped(str(classifier.about['recipe']))}; the run itself did not lie beside the model."
    asked, environment = origin.read("run.json"), origin.read("environment.json")
    plan, counts = read_plan(origin.run), _counts(origin)
    data = asked["data"]["main"]
    lines = [f"Pictures: {escaped(Path(data['name']).name or data['name'])}."]
    if counts:
        number = {piece: sum(counts.get(piece, [])) for piece in ("train", "valid", "test")}
        apart = f", {number['valid']:,} to validate, {number['test']:,} to test"
        lines[0] += f" {number['train']:,} to train{apart if origin.trained_on == 'train' else ''}."
        if len(counts["train"]) <= CLASSES:
            rows = [f"| {escaped(name)} | {n:,} |" for name, n in zip(data["classes"], counts["train"], strict=True)]
            lines.append("\n".join(["| class | training pictures |", "|---|---:|", *rows]))
    if plan is not None:
        title = plan.recipe if plan.title in ("", plan.recipe) else f"{plan.title} ({plan.recipe})"
        words = phase_words(plan, max(1, sum(counts.get("train", [1]))), steps_taken(origin.run, plan))
        steps = [
            f"{number}. *{escaped(w.name)}*: {w.length}. Pictures: {escaped(w.sees)}. Moves: {escaped(w.moves)}. Minimises: "
            f"{escaped(w.minimises)}. {escaped(w.optimizer)}."
            for number, w in enumerate(words, 1)
        ]
        lines += [f"Recipe: {escaped(title)}.", "\n".join(steps)]
    job = asked["job"]
    versions = ", ".join(f"{key} {environment[key]}" for key in ("augend", "torch", "python") if key in environment)
    machine = environment.get("gpu") or environment.get("processor") or "processor not known"
    lines.append(
        f"Seed {job['seed'] + job['repeat']}; settings {escaped(Path(job['settings']).name)}; {versions}; {escaped(machine)}."
    )
    return "\n\n".join(lines)
