"""A reproduction as a page of Markdown: our numbers beside the printed ones, the claims and their verdicts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from augend.checkpoint import write_bytes
from augend.report.card import escaped
from augend.report.figures import draw_figures
from augend.report.lines import line, signed
from augend.study.table import percent
from augend.study.tables import TOP_FIVE, load_table

__all__ = ["markdown", "write"]

MOST_CLASSES = 20  # that a table of all is read of


def write(study: Path, found: dict[str, Any]) -> Path:
    """Draw the figures and write ``reproduction.md`` into the study's folder."""
    captions = draw_figures(study, found, load_table(found["table"]).figures)
    path = study / "reproduction.md"
    write_bytes(path, markdown(found, captions).encode())
    return path


def _level(found: dict[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "–"
    text = percent(found["mean"])
    return text if found["low"] is None else f"{text} ({percent(found['low'])} to {percent(found['high'])})"


def _signed(share: float) -> str:
    return signed(100 * share, 1)


def _difference(found: dict[str, Any] | None) -> str:
    if found is None or found["mean"] is None:
        return "–"
    text = _signed(found["mean"])
    return text if found["low"] is None else f"{text} ({_signed(found['low'])} to {_signed(found['high'])})"


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _whole(reach: dict[str, Any] | None, kind: str) -> str:
    value = None if reach is None else reach["whole"].get(kind)
    return "–" if value is None else f"{value:.2f}"


def _part(reach: dict[str, Any] | None, kind: str) -> str:
    """The share at which a row was as good as the reference in the end, and how many of its seeds ever were."""
    if reach is None or kind not in reach["part"]:
        return "–"
    if reach["part"][kind] is None:
        return f"never in {reach['of']}"
    few = f" ({reach['reached']} of {reach['of']})" if reach["reached"] < reach["of"] else ""
    return f"{reach['part'][kind]:.2f}{few}"


def _costs(found: dict[str, Any]) -> str:
    """Seconds, where a quiet bench has timed the study's phases: whole runs, and parts up to the reference's accuracy."""
    rows = found["rows"]
    if not any(row["to_reference"] and "seconds_plain" in row["to_reference"]["whole"] for row in rows.values()):
        return ""
    reference = rows[found["reference"]]["called"]
    kinds = {
        "flops": "FLOPs, no cache",
        "seconds_plain": "seconds, no cache",
        "seconds_cached": "seconds, cached trunk",
    }
    head = [
        "row",
        "steps",
        *(f"{what}: all" for what in kinds.values()),
        *(f"{what}: to there" for what in kinds.values()),
    ]
    lines = [line(head), line(["---"] * len(head))]
    for row in rows.values():
        reach = row["to_reference"]
        cells = [row["called"], str(row["steps"])]
        cells += [_whole(reach, kind) for kind in kinds] + [_part(reach, kind) for kind in kinds]
        lines.append(line(cells))
    return (
        f"Cost as shares of {reference}'s: of the whole run, and until a row's validation accuracy was {reference}'s last "
        "(median over those seeds that got there, in steps of one curve point). Seconds: CPU seconds a step, one thread, "
        "each phase alone on a quiet machine; with a cached trunk, filling it included.\n\n" + "\n".join(lines)
    )


def _table(found: dict[str, Any]) -> str:
    """The rows. Columns that nobody has a value for are left out."""
    reference, columns, rows = found["rows"][found["reference"]]["called"], found["columns"], found["rows"]
    base = rows[found["reference"]]["flops"]
    learned = dict.fromkeys(name for row in rows.values() for name in row.get("augmenters", {}))
    reach = f"FLOPs × to {reference}'s validation accuracy"
    cells: dict[str, list[str]] = {
        "row": [row["called"] for row in rows.values()],
        "recipe": [f"`{name}`" for name in rows],
        "printed": [_share(row["printed"]) for row in rows.values()],
        "logged": [_share(row["logged"]) for row in rows.values()],
        **{
            called: [_level(row["levels"].get(split)) + _beside(row["beside"].get(called, {})) for row in rows.values()]
            for split, called in columns.items()
        },
        **{
            _measure(measure): [
                (_level if measure == TOP_FIVE else _score)(row["measures"].get(measure))
                + _beside(row["beside"].get(measure, {}), percent if measure == TOP_FIVE else "{:.2f}".format)
                for row in rows.values()
            ]
            for measure in next(iter(rows.values())).get("measures", {})
        },
        f"points against {reference}, {columns[found['headline']]}": [
            "reference" if name == found["reference"] else _difference(row["versus_reference"].get(found["headline"]))
            for name, row in rows.items()
        ],
        **{
            f"score of {name}": [_score(row.get("augmenters", {}).get(name)) for row in rows.values()]
            for name in learned
        },
        **(
            {}
            if not any(row.get("falls") for row in rows.values())
            else {"mean fall from look to look": [_fall(row["falls"]) for row in rows.values()]}
        ),
        "FLOPs ×": [  # what was spent, caches used
            f"{row['flops'] / base:.2f}" if row["flops"] and base else "–" for row in rows.values()
        ],
        reach: [_part(row["to_reference"], "flops") for row in rows.values()],
        "n": [
            f"{row['repeats']}" + (f", {len(row['failed'])} failed" if row["failed"] else "") for row in rows.values()
        ],
    }
    may_go = ("printed", "logged", reach)  # where no row has a number
    shown = {head: column for head, column in cells.items() if head not in may_go or set(column) != {"–"}}
    lines = [line(list(shown)), line(["---"] * len(shown)), *map(line, map(list, zip(*shown.values(), strict=True)))]
    return "\n".join(lines)


def _measure(name: str) -> str:
    phase, _, term = name.partition("/")
    return f"{term} while it learned ({phase})" if term else name


def _choice(found: dict[str, Any], rows: dict[str, Any]) -> str:
    """What was chosen by validation, and what all of them were there."""
    each = ", ".join(f"{rows[row]['called']} {_level(level)}" for row, level in found["valid"].items())
    return (
        f"{found['says']}, chosen by validation: **{rows[found['chosen']]['called']}**, which is {_level(found['level'])} in "
        f"the test. On validation pictures: {each}."
    )


def _fall(found: dict[str, Any] | None) -> str:
    """Points of validation accuracy, with their interval."""
    if found is None or found["mean"] is None:
        return "–"
    text = f"{100 * found['mean']:.2f}"
    return text if found["low"] is None else f"{text} ({100 * found['low']:.2f} to {100 * found['high']:.2f})"


def _beside(numbers: dict[str, float], said: Callable[[float], str] = percent) -> str:
    return "".join(f"; {kind} {said(value)}" for kind, value in numbers.items())


def _score(found: dict[str, Any] | None) -> str:
    """A score of a network that learned to augment: 1 is perfect, 0 leaves its input as it is."""
    if found is None or found["mean"] is None:
        return "–"
    numbers = [f"{found[key]:.2f}".replace("-", "−") for key in ("mean", "low", "high") if found[key] is not None]
    return numbers[0] if len(numbers) == 1 else f"{numbers[0]} ({numbers[1]} to {numbers[2]})"


def _claim(claim: dict[str, Any]) -> list[str]:
    if claim.get("of") in ("score", "undone"):
        return [claim["says"], f"score {_score(claim['difference'])}", "–", "–"]
    if claim.get("of") == "kept" or claim.get("after"):
        return [claim["says"], _difference(claim["difference"]), "–", "–"]
    points = [_difference(claim[key]) for key in ("difference", "at_equal_cost")]
    ratio = "–" if claim["flops_ratio"] is None else f"{claim['flops_ratio']:.2f}"
    return [claim["says"], points[0], ratio, points[1]]


def _by_epoch(found: dict[str, Any]) -> str:
    """Rows after each epoch beside the printed numbers, as columns; then what is between them and the reference."""
    rows = found.get("by_epoch")
    if not rows:
        return ""
    about, reference = found["rows"], found["rows"][found["reference"]]["called"]
    head = ["epoch", *(about[name]["called"] for name in rows)]
    others = [name for name, row in rows.items() if row["versus"]]
    printed = [found["printed_by_epoch"].get(name, []) for name in rows]
    levels = [line(head), line(["---"] * len(head))]
    apart = [line(["epoch", *(about[name]["called"] for name in others)]), line(["---"] * (1 + len(others)))]
    for epoch in range(max(len(row["levels"]) for row in rows.values())):
        of_it = [row["levels"][epoch] if epoch < len(row["levels"]) else None for row in rows.values()]
        beside = [_beside({"printed": own[epoch]} if epoch < len(own) else {}) for own in printed]
        levels.append(line([str(epoch + 1), *(_level(one) + more for one, more in zip(of_it, beside, strict=True))]))
        between = [[*rows[name]["versus"][epoch : epoch + 1], None][0] for name in others]
        apart.append(line([str(epoch + 1), *map(_difference, between)]))
    seeds = ", ".join(str(row["levels"][0]["repeats"]) for row in rows.values())
    parts = [f"Accuracy on validation pictures after each epoch, the mean of seeds (n = {seeds}):", "\n".join(levels)]
    if others:
        parts += [f"Points against {reference} after each epoch, paired by seed:", "\n".join(apart)]
    return "\n\n".join(parts)


def _given_back(found: dict[str, Any]) -> str:
    """What autoencoders make of changed test pictures: a table of scores, one of labels that are still to be seen."""
    all_rows = found.get("decoded")
    if not all_rows:
        return ""
    first = {name: next(one for one in all_rows if all_rows[one] == own) for name, own in all_rows.items()}
    rows = {name: own for name, own in all_rows.items() if first[name] == name}
    changes = list(next(iter(rows.values())))
    head = ["autoencoder", *changes]
    scores, labels = ([line(head), line(["---"] * len(head))] for _ in range(2))
    for name, by_change in rows.items():
        called = found["rows"][name]["called"]
        scores.append(line([called, *(_score(by_change[change]["score"]) for change in changes)]))
        labels.append(line([called, *(_level(by_change[change].get("kept")) for change in changes)]))
    as_changed = next(iter(rows.values()))
    labels.append(line(["*left as changed*", *(_level(as_changed[change].get("kept_changed")) for change in changes)]))
    parts = [
        "How far a change of held-out test pictures is undone, in mean squares (1: wholly; 0: as well as leaving it):",
        "\n".join(scores),
        "Of the pictures that the judge recognises as they are, those that it recognises in what is given back:",
        "\n".join(labels),
    ]
    called = {name: found["rows"][name]["called"] for name in all_rows}
    same = [f'"{called[name]}" has the autoencoder of "{called[one]}".' for name, one in first.items() if one != name]
    return "\n\n".join([*parts, *([" ".join(same)] if same else []), *_by_class(found, rows, changes)])


def _by_class(found: dict[str, Any], rows: dict[str, Any], changes: list[str]) -> list[str]:
    """Whose labels are still to be seen in what is given back: a table a change, a line a class."""
    classes = list(next(iter(rows.values()))[changes[0]].get("classes", {}))
    if len(classes) > MOST_CLASSES:
        return [f"The same of each of {len(classes)} classes is in reproduction.json."]
    parts = []
    for change in changes if classes else []:
        lines = [line([change, *(found["rows"][name]["called"] for name in rows)]), line(["---"] * (1 + len(rows)))]
        for one in classes:
            kept = (by_change[change]["classes"].get(one) for by_change in rows.values())
            lines.append(line([escaped(one), *map(_level, kept)]))
        parts.append("\n".join(lines))
    return ["The same by class:", *parts] if parts else []


def _attacked(found: dict[str, Any]) -> str:
    """How the rows were attacked, on what; where gradients say nothing; and success, which clean accuracy does not decide."""
    about = found.get("attacked")
    if not about:
        return ""
    rows, sums = found["rows"], about["asked"]["sums"]
    how = dict.fromkeys(
        f"{one.partition(' ')[0]}, {one.rpartition(', ')[2]}: {said}" for one, said in about["procedures"].items()
    )
    done = " and ".join(["attacked"] * bool(about["procedures"]) + ["asked through sums"] * bool(sums))
    text = f"{done.capitalize()}: {about['pictures']} {about['of']} pictures."
    if sums:
        text += (
            f" Test-time sums: k = {sums['k']}, weight {sums['weight']:g}, {sums['draws']} draws, mean {sums['average']}, "
            f"partners among up to {sums['references']} training pictures."
        )
    points = [f"* {one}." for one in how]
    for name, one in about["rows"].items():
        called = rows[name]["called"]
        if one["blind"]:
            share = percent(one["blind"])
            points.append(
                f"* {called}: {share} % of what is right when clean has no gradient; attacks see nothing there."
            )
        points += [f"* {called}, {note}." for note in one["notes"]]
    if points:
        text += "\n\n" + "\n".join(points)
    if not about["procedures"]:
        return text
    head = ["of what is right when clean, wrong under", *(rows[name]["called"] for name in about["rows"])]
    lines = [line(head), line(["---"] * len(head))]
    lines += [
        line([column, *(_level(one["success"].get(column)) for one in about["rows"].values())])
        for column in about["procedures"]
    ]
    return text + "\n\n" + "\n".join(lines)


def _equation8(found: dict[str, Any]) -> str:
    """What augmenting embeddings saves: the networks' sizes, Equation 8 from the run's own terms, and what was measured."""
    said = found.get("equation8")
    if not said:
        return ""
    lines = [line(["network", "parameters", "bytes", "MACs a row"]), line(["---"] * 4)]
    lines += [
        line([name, *(f"{said['networks'][network][key]:,}" for key in ("parameters", "bytes", "macs"))])
        for name, network in (("Φ, the trunk", "source"), ("Ω", "omega"), ("Ψ, the head", "net"))
    ]
    head = ["cost in", "C of Φ, Ω, Ψ with its backward, a row", f"Equation 8, N = {said['views']:.0f}", "measured"]
    head += ["both with Ω's training", "pays from N ="]
    rows = [line(head), line(["---"] * len(head))]
    for unit, one in said["costs"].items():
        terms = ", ".join(f"{one[part]:.3g}" for part in ("trunk", "augmenter", "head"))
        trained = f"{one['predicted_trained']:.2f}, {one['measured_trained']:.2f}"
        pays = "never" if one["pays_from"] is None else str(one["pays_from"])
        rows.append(line([unit, terms, f"{one['predicted']:.2f}", f"{one['measured']:.2f}", trained, pays]))
    return (
        "\n".join(lines)
        + "\n\nHow many times as much augmenting pictures cost as augmenting embeddings. Measured: the head's "
        f"phase of `{said['pictures']}` over that of `{said['embeddings']}`. "
        "Seconds are of trials that ran side by side; on a quiet machine: `bench/omega.py`.\n\n" + "\n".join(rows)
    )


def markdown(found: dict[str, Any], captions: dict[str, str] | None = None) -> str:
    """The text: what was run, the table, the claims. Accuracies in percent, differences in points, 95 % intervals."""
    where = f"Protocol `{found['protocol']}`" + (f", scale `{found['scale']}`" if found.get("scale") else "")
    parts = [
        f"# {found['title']}",
        f"Source: {found['source']}. {where}: {found['about']}.",
        _table(found),
    ]
    reasons = [f"* `{name}`: {reason}" for name, row in found["rows"].items() for reason in row["failed"]]
    if reasons:
        parts.append("Failed:\n\n" + "\n".join(reasons))
    if costs := _costs(found):
        parts.append(costs)
    if by_epoch := _by_epoch(found):
        parts.append(by_epoch)
    if equation := _equation8(found):
        parts.append(equation)
    if given_back := _given_back(found):
        parts.append(given_back)
    if attacked := _attacked(found):
        parts.append(attacked)
    if any(row.get("measures") for row in found["rows"].values()):
        parts.append("Intervals of what is measured beside accuracy, top-5 included, are over the repeats alone.")
    parts += [_choice(one, found["rows"]) for one in found.get("choices", [])]
    if found["claims"]:
        head = ["claim", "points, 95 %", "FLOPs ×", "points at equal cost", "verdict"]
        lines = [line(head), line(["---"] * len(head))]
        lines += [line([*_claim(claim), f"**{claim['verdict']}**"]) for claim in found["claims"]]
        count = len(found["claims"])
        by_chance = (
            f"\n\nEach of these {count} intervals by itself misses the truth once in twenty times." if count > 1 else ""
        )
        parts.append("\n".join(lines) + by_chance)
    parts += [f"![{name}](figures/{name}.png)\n\n{caption}" for name, caption in (captions or {}).items()]
    environment = found["environment"]
    commit = f"commit {environment['commit']}, " if environment.get("commit") else ""
    parts.append(
        f"{environment['processor']}, Python {environment['python']}, torch {environment['torch']}, {commit}"
        f"{found['hardware']['precision']}{', channels-last' if found['hardware']['channels_last'] else ''}, seeds from "
        f"{found['seed']} on; {found['sizes']['train']} pictures to train, {found['sizes']['valid']} to validate, "
        f"{found['sizes']['test']} to test. `{found['command']}`"
    )
    if made := found.get("made_by"):
        parts.append(
            "**Not one code and machine.** "
            + " ".join(f"{said}: {len(trials)} of the trials." for said, trials in made.items())
        )
    return "\n\n".join(parts) + "\n"
