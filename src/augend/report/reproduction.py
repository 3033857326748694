"""A reproduction as a page of Markdown: our numbers beside the printed ones, the claims and their verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augend.checkpoint import write_bytes
from augend.report.figures import draw_figures
from augend.study.table import percent
from augend.study.tables import load_table

__all__ = ["markdown", "write"]


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
    return f"{100 * share:+.1f}".replace("-", "−")


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
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows.values():
        reach = row["to_reference"]
        cells = [row["called"], str(row["steps"])]
        cells += [_whole(reach, kind) for kind in kinds] + [_part(reach, kind) for kind in kinds]
        lines.append(_line(cells))
    return (
        f"Cost as shares of {reference}'s: of the whole run, and until a row's validation accuracy was {reference}'s last "
        "(median over those seeds that got there, in steps of one curve point). Seconds: CPU seconds a step, one thread, "
        "each phase alone on a quiet machine; with a cached trunk, filling it included.\n\n" + "\n".join(lines)
    )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def markdown(found: dict[str, Any], captions: dict[str, str] | None = None) -> str:
    """The text: what was run, the table, the claims. Accuracies in percent, differences in points, 95 % intervals."""
    reference = found["rows"][found["reference"]]["called"]
    columns = found["columns"]
    head = [
        "row",
        "recipe",
        "printed",
        "logged",
        *columns.values(),
        f"points against {reference}, {columns[found['headline']]}",
        "FLOPs ×",
        f"FLOPs × to {reference}'s validation accuracy",
        "n",
    ]
    base = found["rows"][found["reference"]]["flops"]
    table = [_line(head), _line(["---"] * len(head))]
    for name, row in found["rows"].items():
        against = row["versus_reference"].get(found["headline"])
        table.append(
            _line(
                [
                    row["called"],
                    f"`{name}`",
                    _share(row["printed"]),
                    _share(row["logged"]),
                    *(_level(row["levels"].get(split)) for split in columns),
                    "reference" if name == found["reference"] else _difference(against),
                    f"{row['flops'] / base:.2f}" if row["flops"] and base else "–",  # what was spent, caches used
                    _part(row["to_reference"], "flops"),
                    f"{row['repeats']}" + (f", {len(row['failed'])} failed" if row["failed"] else ""),
                ]
            )
        )
    parts = [
        f"# {found['title']}",
        f"Source: {found['source']}. Protocol `{found['protocol']}`: {found['about']}.",
        "\n".join(table),
    ]
    reasons = [f"* `{name}`: {reason}" for name, row in found["rows"].items() for reason in row["failed"]]
    if reasons:
        parts.append("Failed:\n\n" + "\n".join(reasons))
    if costs := _costs(found):
        parts.append(costs)
    if found["claims"]:
        head = ["claim", "points, 95 %", "FLOPs ×", "points at equal cost", "verdict"]
        lines = [_line(head), _line(["---"] * len(head))]
        for claim in found["claims"]:
            cells = [claim["says"], _difference(claim["difference"]), f"{claim['flops_ratio']:.2f}"]
            lines.append(_line([*cells, _difference(claim["at_equal_cost"]), f"**{claim['verdict']}**"]))
        parts.append("\n".join(lines))
    parts += [f"![{name}](figures/{name}.png)\n\n{caption}" for name, caption in (captions or {}).items()]
    environment = found["environment"]
    parts.append(
        f"{environment['processor']}, Python {environment['python']}, torch {environment['torch']}, "
        f"{found['hardware']['precision']}{', channels-last' if found['hardware']['channels_last'] else ''}, seeds from "
        f"{found['seed']} on; {found['sizes']['train']} pictures to train, {found['sizes']['valid']} to validate, "
        f"{found['sizes']['test']} to test. `{found['command']}`"
    )
    return "\n\n".join(parts) + "\n"
