"""Run a paper's table as a study, and say what stands: our numbers beside the printed ones, and a verdict on each claim.

A table is a study like any other (`augend.study.compare`), so it is continued, extended by repeats and run as an array of
trials in the same way. Its seconds are not those of its trials, which run side by side (`augend.study.reach`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augend.checkpoint import digest_of, write_json
from augend.contract import AugendError
from augend.evaluate import threats
from augend.evaluate.kept import keep
from augend.evaluate.shifts import COLOURED, ORIGINAL
from augend.models.weights import read_weights
from augend.names import nearest
from augend.recipes.durations import written
from augend.recipes.language import compose, knows
from augend.recipes.library import load
from augend.recipes.library import settings as load_settings
from augend.recipes.plan import Duration
from augend.runner.job import Kept, load_splits
from augend.study.attacked import ATTACKED, attack_trials, told_of
from augend.study.attacked import columns as attack_columns
from augend.study.columns import (
    augmenters,
    chosen_by_validation,
    measured,
    score_difference,
    scored,
)
from augend.study.compare import open_study
from augend.study.decoded import decoded_rows
from augend.study.epochs import by_epoch, epoch_difference
from augend.study.equal import equal_budget
from augend.study.equation8 import equation8
from augend.study.evidence import Evidence, Record, Trial, read_json, read_record, read_trials, trial_name
from augend.study.given_back import GivenBack
from augend.study.reach import falls, reaches
from augend.study.request import Request, Study
from augend.study.shifted import Progress, Variation, model_of, shift_trial
from augend.study.statistics import Estimate, mean_of, said
from augend.study.tables import Asked, Attacked, Claim, Table, load_table, recipe_text
from augend.study.unchanged import makers

__all__ = ["GIVEN_BACK", "gather", "open_reproduction", "trained", "verdict"]

SAME_COST = 1.02
GIVEN_BACK = "given-back.npz"  # ROW/CHANGE -> uint8 (3, pictures, C, H, W): clean, changed, given back
SHIFT = "under:"  # and a shift: the test pictures under it, as the finished models see them


def open_reproduction(
    name: str,
    protocol: str | None,
    out: Path,
    *,
    command: str,
    scale: str | None = None,
    repeats: int | None = None,
    rows: Sequence[str] | None = None,
    bases: Path | None = None,
    data: str | None = None,
    option: str = "--out",
    **given: Any,
) -> Study:
    """The study of a table in one protocol, new or continued.

    Args:
        name: ``factoring/table-1``.
        protocol, scale: of those that the table has; None: see `Table.asked`.
        out: the study's folder.
        repeats: of every row (default: the table's; rows may ask for fewer).
        rows: only these.
        bases: the finished study of the table's `bases`, whose models its rows start from.
        data: other data than the table's; the paper's numbers are then left out.
        option: by which a command names the folder.
        given: other fields of `Request`: root, size, budget, seed, precision, plugins.
    """
    if (out / "study.json").is_file():
        before = read_json(out / "study.json").get("reproduces")
        way = {} if before is None or before["table"] != name else before
        if not way or protocol not in (None, way["protocol"]) or scale not in (None, way.get("scale")):
            raise AugendError(f"{out}: holds another study than {name}; give another {option}")
        if data not in (None, way.get("data")):
            raise AugendError(f"{out}: is {name} on {way.get('data') or 'its own data'}; give another {option}")
        _same_bases(out, bases, repeats)
        known = [recipe["name"] for recipe in read_json(out / "study.json")["recipes"]]
        if rows is not None and set(rows) != set(known):
            raise AugendError(
                f"{out}: this study has the rows {', '.join(known)}; leave --rows out to continue it, or give another --out"
            )
        return open_study(out, {"repeats": repeats, **given}, command)
    table = load_table(name)
    asked = table.asked(name, protocol, scale, data)
    chosen = table.chosen(name, asked.protocol, rows)
    paper = name.partition("/")[0]
    texts = {row: recipe_text(paper, row) for row in chosen}
    most = asked.repeats if repeats is None else repeats
    composed = [compose(load(text)) for text in texts.values()]
    request = {
        "data": asked.data,
        "recipes": tuple(texts.values()),
        "reference": table.reference if table.reference in chosen else next(iter(chosen)),
        "repeats": most,
        "budget": asked.budget,
        "settings": asked.settings,
        "model": asked.model,
        # what only rows have that were left out is not for this study
        "overrides": tuple(text for text in asked.overrides if any(knows(one, text) for one in composed)),
        "fewer": {row: min(spec.repeats, most) for row, spec in chosen.items() if spec.repeats is not None},
        "own": {row: spec.overrides for row, spec in chosen.items() if spec.overrides},
        "poorer": {row: spec.poorer for row, spec in chosen.items() if spec.poorer},
        "leaks": asked.leaks,
        "starts": {row: trained(bases, spec.base, most) for row, spec in chosen.items() if spec.base and bases},
        **{key: value for key, value in given.items() if value is not None},
    }
    plain = Request(**{key: value for key, value in request.items() if value is not None})
    if bases is not None and (its := read_json(bases / "study.json")["seed"]) != plain.seed:
        raise AugendError(
            f"{bases}: was made with seed {its}, not {plain.seed}, so it has learned from pictures held out here; "
            "give the same --seed, or another --bases"
        )
    _columns_fit(name, table, asked)  # a mistake is said before anything is trained
    others = {row: spec.flops for row, spec in chosen.items() if spec.flops is not None}
    kept: Kept = {}
    budget = plain.budget or load_settings(plain.settings).words.budget
    multiplied = {row: times(budget, spec.times) for row, spec in chosen.items() if spec.times != 1 and budget}
    request["budgets"] = multiplied | {
        row: equal_budget(
            job := plain.job(texts[row], 0),
            dear := plain.job(recipe_text(paper, other), 0),
            load_splits(job, kept=kept),
            load_splits(dear, kept=kept),
        )
        for row, other in others.items()
    }
    about: dict[str, Any] = {"reproduces": {"table": name, "protocol": asked.protocol, "scale": asked.scale}}
    if asked.other:
        about["reproduces"]["data"] = data
    if bases is not None:
        files = dict.fromkeys(file for starts in plain.starts.values() for file in starts)
        about["bases"] = {"path": str(bases.resolve()), "digests": {f: digest_of(read_weights(f)) for f in files}}
    return open_study(out, request, command, about=about)


def times(budget: str | Duration, factor: float) -> str:
    """So many times a length, as a command names it.

    >>> times("60epoch", 2), times("600000step", 2)
    ('120epoch', '1200000step')
    """
    text = budget if isinstance(budget, str) else written(budget)
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    product = float(number) * factor
    return f"{int(product) if product.is_integer() else repr(product)}{text[len(number) :]}"


def trained(bases: Path, row: str, repeats: int) -> tuple[str, ...]:
    """The models of a row of a study of bases, one a repeat: a network that two repeats shared would make them depend."""
    found = read_record(bases)
    files = [bases / "trials" / trial_name(row, r) / "model.safetensors" for r in range(repeats)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        table, out = found.raw.get("reproduces", {}).get("table", "TABLE"), shlex.quote(str(bases))
        raise AugendError(
            f"{bases}: holds no model of {row} at {missing[0].parent.name}, and {repeats} are needed; train them: "
            f"augend reproduce {table} --out {out} --repeats {repeats}"
        )
    return tuple(str(file.resolve()) for file in files)


def _same_bases(out: Path, bases: Path | None, repeats: int | None) -> None:
    """A study goes on from the networks that it began with."""
    record = read_json(out / "study.json")
    known = record.get("bases")
    if known is None:
        return
    if bases is not None and str(bases.resolve()) != known["path"]:
        raise AugendError(f"{out}: its rows start from {known['path']}; leave --bases out, or give another --out")
    if repeats is not None and repeats > record["repeats"]:
        raise AugendError(
            f"{out}: its rows start from {record['repeats']} networks each, so they cannot have {repeats} repeats; "
            "give another --out"
        )
    for file, digest in known["digests"].items():
        if digest_of(read_weights(file)) != digest:
            raise AugendError(f"{file}: is no longer what this study began with; restore it or give another --out")


def _columns_fit(name: str, table: Table, asked: Asked) -> None:
    """Claims and printed numbers are about columns that there are."""
    own = set() if asked.attacked is None else set(attack_columns(attacks_of(asked.attacked)).values())
    for claim in table.claims:
        for column in filter(None, (claim.attacked, claim.than_attacked)):
            if column not in own:
                raise AugendError(f"{name}: a claim is about the column {column!r}{nearest(column, sorted(own))}")
        if claim.than_attacked and not claim.attacked:
            raise AugendError(f"{name}: a claim has than_attacked and no attacked")
    own |= {*asked.columns.values(), *(table.shifts or "").split(","), *table.measures}
    for row in table.rows.values():
        for column in row.beside(asked.protocol):
            if column not in own:
                raise AugendError(
                    f"{name}: a number is printed for the column {column!r}{nearest(column, sorted(own))}"
                )


def attacks_of(words: Attacked) -> threats.Asked:
    """What a table's words about attacks ask for."""
    return threats.asked(**words.model_dump())


def gather(study: Path, after: Progress | None = None) -> dict[str, Any]:
    """What a reproduction has found so far, as JSON values; written to ``reproduction.json``.

    Levels are means over repeats with 95 % intervals, differences are paired; both as in every study.

    Args:
        study: its folder.
        after: called with (which model, pictures done, pictures in all), where models are shown changed pictures.
    """
    record = read_record(study)
    about = record.raw["reproduces"]
    table = load_table(about["table"])
    asked = table.asked(about["table"], about["protocol"], about.get("scale"), about.get("data"))
    trials = read_trials(record, test=True, peers=True)
    shifts = _shifts(table, trials)
    moved = _shifted(trials, shifts, after) if shifts else {}
    wanted = None if asked.attacked is None else attacks_of(asked.attacked)
    if wanted is not None:
        attack_trials(trials, wanted, after)
    evidence = Evidence(record, trials)
    back = table.decoded
    given_back = GivenBack(record) if back is None else decoded_rows(record, trials, back.changes, back.judge, after)
    if seen := given_back.seen:
        keep(study / GIVEN_BACK, {}, {f"{row}/{name}": x.numpy() for row, by in seen.items() for name, x in by.items()})
    names = [recipe.name for recipe in evidence.recipes]
    columns = {**asked.columns, **{SHIFT + shift: shift for shift in shifts.split(",") if shift}}
    columns |= {} if wanted is None else attack_columns(wanted)
    splits = [split for split in columns if any(split in trial.splits for trial in trials)]
    failed = _failed(record)
    reach = reaches(evidence)
    rows = {}
    for recipe in record.recipes:
        row = table.rows[recipe.name]
        steps = record.raw["plan"][recipe.name]["steps"]
        rows[recipe.name] = {
            "called": row.called,
            "title": recipe.title,
            "printed": None if asked.other else row.printed_in(asked.protocol),
            "logged": None if asked.other else row.logged_in(asked.protocol),
            "beside": {} if asked.other else row.beside(asked.protocol),
            "steps": steps,
            "flops": _flops(evidence, recipe.name) if recipe.name in names else None,
            "to_reference": reach.get(recipe.name),
            "repeats": len(evidence.repeats(recipe.name)),
            "failed": failed.get(recipe.name, []),
            "augmenters": {name: scored(evidence, recipe.name, name) for name in augmenters(evidence, recipe.name)},
            "falls": _said(mean_of(falls(evidence, recipe.name)), 0, 1) if table.stability else None,
            "measures": {name: measured(evidence, recipe.name, name) for name in table.measures},
            "levels": {s: _level(evidence, recipe.name, s) for s in splits if _has(evidence, s, recipe.name)},
            "versus_reference": {
                s: _said(evidence.difference(recipe.name, record.reference, s), -1, 1)
                for s in splits
                if recipe.name != record.reference and _has(evidence, s, recipe.name, record.reference)
            },
            "variation": {
                pair: {kind: _said(mean_of([one[pair][kind] for one in moved[recipe.name]])) for kind in kinds}
                for pair, kinds in (moved[recipe.name][0] if recipe.name in moved else {}).items()
            },
        }
    found = {
        "schema": 1,
        "table": about["table"],
        "protocol": asked.protocol,
        "scale": asked.scale,
        "title": table.title,
        "source": table.source,
        "about": asked.about,
        "columns": {split: columns[split] for split in splits},
        "headline": asked.headline,
        "reference": record.reference,
        "sizes": record.sizes,
        "rows": rows,
        "claims": [
            judged(evidence, claim, asked.headline, rows, given_back)
            for claim in table.claims
            if {claim.better, claim.than} <= set(names)
            and (claim.shift is None or claim.shift in shifts.split(","))
            and (not claim.after or epoch_difference(evidence, claim.better, claim.than, claim.after))
        ],
        "choices": [one for choice in table.choices if (one := chosen_by_validation(evidence, choice, asked.headline))],
        "equation8": equation8(evidence, **table.equation8) if table.equation8 else None,
        "decoded": given_back.rows,
        "by_epoch": by_epoch(evidence, [row for row in table.epochs.rows if row in names], record.reference),
        "printed_by_epoch": {} if asked.other else table.epochs.printed(asked.protocol),
        "attacked": None if wanted is None else told_of(evidence, wanted),
        "complete": all(
            row["repeats"] == recipe.repeats for row, recipe in zip(rows.values(), record.recipes, strict=True)
        ),
        "command": record.raw["command"],
        "environment": record.raw["environment"],
        "made_by": makers(study),
        "hardware": record.raw["hardware"],
        "seed": record.raw["seed"],
    }
    write_json(study / "reproduction.json", found)
    return found


def _has(evidence: Evidence, split: str, *names: str) -> bool:
    """Whether these recipes have finished repeats, all of which know a split."""
    known = [evidence.trials[name, r].splits for name in names for r in evidence.repeats(name)]
    return all(evidence.repeats(name) for name in names) and all(split in splits for splits in known)


def _shifts(table: Table, trials: Sequence[Trial]) -> str:
    """The table's shifts, but those of colours where pictures have none: other data than the table's may be grey."""
    wanted = (table.shifts or "").split(",")
    if trials and COLOURED & set(wanted) and model_of(trials[0].folder).shape[0] == 1:
        wanted = [name for name in wanted if name not in COLOURED]
    return ",".join(wanted) if trials else ""


def _shifted(trials: Sequence[Trial], shifts: str, after: Progress | None) -> dict[str, list[Variation]]:
    """Put what models make of shifted test pictures among their splits; row -> how far these move each repeat's."""
    kept: Kept = {}
    moved: dict[str, list[Variation]] = {}
    for trial in sorted(trials, key=lambda one: one.repeat):  # those of a repeat share their data
        splits, apart = shift_trial(trial.folder, shifts, kept, after=after)
        trial.splits.update({SHIFT + name: one for name, one in splits.items() if name != ORIGINAL})
        moved.setdefault(trial.recipe, []).append(apart)
    return moved


def _level(evidence: Evidence, name: str, split: str) -> dict[str, Any]:
    return {**_said(evidence.level(name, split), 0, 1), "values": evidence.scores(name, split)}


def _said(found: Estimate | None, *ends: float) -> dict[str, Any]:
    return said(found, *ends) or {"mean": None, "low": None, "high": None, "repeats": 0}


def _flops(evidence: Evidence, name: str) -> float:
    return float(evidence.trials[name, evidence.repeats(name)[0]].ledger["total"]["flops"])


def _failed(record: Record) -> dict[str, list[str]]:
    """Row -> the reasons of its failed repeats: a loss that is not finite is a finding here."""
    found: dict[str, list[str]] = {}
    for recipe in record.recipes:
        for repeat in range(recipe.repeats):
            path = record.folder / "trials" / f"{recipe.name}-r{repeat}" / "state.json"
            state = read_json(path) if path.is_file() else {}
            if state.get("state") == "failed":
                found.setdefault(recipe.name, []).append(str(state.get("reason", "")))
    return found


def judged(
    evidence: Evidence,
    claim: Claim,
    headline: str,
    rows: Mapping[str, Mapping[str, Any]],
    given_back: GivenBack | None = None,
) -> dict[str, Any]:
    """A claim with its paired difference on its split, at equal steps and at equal cost, and the verdict."""
    if claim.of != "accuracy" or claim.after:
        if claim.after:
            difference = epoch_difference(evidence, claim.better, claim.than, claim.after)
        elif claim.of == "score":
            difference = score_difference(evidence, claim.better, claim.than)
        else:
            assert given_back is not None and claim.change is not None  # the table's own check
            difference = given_back.difference(claim.better, claim.than, claim.of, claim.change)
        about = claim.model_dump(include={"says", "better", "than", "of", "change", "after"})
        return {
            **about,
            "difference": _said(difference, *((-1, 1) if claim.of in ("kept", "accuracy") else ())),
            "at_equal_cost": None,
            "verdict": verdict(difference, difference),
        }
    split = SHIFT + claim.shift if claim.shift else ATTACKED + claim.attacked if claim.attacked else headline
    than = ATTACKED + claim.than_attacked if claim.than_attacked else split
    found = evidence.difference(claim.better, claim.than, split, than=than)
    ratio = rows[claim.better]["flops"] / rows[claim.than]["flops"]
    pair = claim.equal or claim.better, claim.than_equal or claim.than
    equal = None
    if (claim.equal or claim.than_equal or (ratio <= SAME_COST and than == split)) and evidence.repeats(*pair):
        # where no other rows are named, `better` costs no more as it stands; what another way of asking costs is not known
        equal = evidence.difference(*pair, split, than=than)
    return {
        "says": claim.says,
        "better": claim.better,
        "than": claim.than,
        "split": split,
        "than_split": than,
        "difference": _said(found, -1, 1),
        "flops_ratio": ratio if than == split else None,  # what another way of asking costs is not in the ledger
        "at_equal_cost": None if equal is None else {**_said(equal, -1, 1), "rows": list(pair)},
        "verdict": verdict(found, equal),
    }


def verdict(found: Estimate | None, equal: Estimate | None) -> str:
    """The word for a claim that a difference is above 0, at equal steps (`found`) and at equal cost (`equal`, if known).

    "held": in both. "held only at unequal cost": at equal cost it is separably below 0. "held; at equal cost not separable".
    "held; cost not compared": nothing stands at equal cost. "reversed": below 0, and at equal cost not separably above it,
    else "reversed only at unequal cost". "not separable with n = …".
    """
    if found is None or found.interval is None:
        return f"not separable with n = {0 if found is None else found.repeats}"
    low, high = found.interval
    if low <= 0 <= high:
        return f"not separable with n = {found.repeats}"
    beside = None if equal is None else equal.interval
    if high < 0:
        return "reversed only at unequal cost" if beside is not None and beside[0] > 0 else "reversed"
    if beside is None:
        return "held; cost not compared"
    if beside[0] > 0:
        return "held"
    return "held only at unequal cost" if beside[1] < 0 else "held; at equal cost not separable"
