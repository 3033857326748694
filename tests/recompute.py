"""Every number of a study again, from its predictions alone: python tests/recompute.py STUDY. No augend here."""

import json
import re
import sys
from pathlib import Path

import numpy as np
from scipy.stats import t


def recompute(study):
    info, rows, found = json.loads((study / "study.json").read_text()), {}, {}
    balanced, n_train, fixed = info["metric"].startswith("balanced"), info["n_train"], info["fixed_test"]
    for folder in (study / "trials").iterdir():
        name, repeat = folder.name.rsplit("-r", 1)
        if json.loads((folder / "state.json").read_text())["state"] == "finished":
            rows.setdefault(name, {})[int(repeat)] = dict(np.load(folder / "predictions.npz"))

    def right(name, repeat, split):  # per row in order of id: is it right, its class, the picture it is a copy of
        table = rows[name][repeat]
        chosen = np.flatnonzero(table["split"] == split)
        chosen = chosen[np.argsort(table["ids"][chosen])]
        labels = table["labels"][chosen]
        shows = [re.sub(r"@[+-]\d+$", "", name) for name in table["ids"][chosen]]
        return (table["probabilities"][chosen].argmax(1) == labels).astype(float), labels, shows

    def mean_of(values, labels):
        return np.mean([values[labels == c].mean() for c in np.unique(labels)]) if balanced else values.mean()

    def summary(pairs, split):  # mean, its standard error and 95 % interval
        scores, m, n = [mean_of(v, c) for v, c, _ in pairs], len(set(pairs[0][2])), len(pairs)
        if n == 1:
            return {"mean": scores[0], "low": None, "high": None}
        shared, each, labels = np.var(scores, ddof=1) * m / n_train, np.mean([v for v, *_ in pairs], 0), pairs[0][1]
        if (fixed and split != "valid") or all(set(s) == set(pairs[0][2]) for *_, s in pairs):
            _, first, number = np.unique(pairs[0][2], return_index=True, return_inverse=True)
            each, labels = np.bincount(number, each) / np.bincount(number), labels[first]
            groups = [each[labels == c] for c in np.unique(labels)] if balanced else [each]
            shared = sum(g.var(ddof=1) / len(g) for g in groups) / len(groups) ** 2
        error = max(np.sqrt(np.var(scores, ddof=1) / n + shared), 1 / m)
        low, high = t.interval(0.95, n - 1, np.mean(scores), error)
        return {"mean": np.mean(scores), "low": low, "high": high, "law": t(n - 1, np.mean(scores), error)}

    for name, trials in rows.items():
        found[name] = {}
        for split in sorted(set(trials[min(trials)]["split"]) - {"train"}):
            level = summary([right(name, r, split) for r in sorted(trials)], split)
            both = sorted(set(trials) & set(rows.get(info["reference"], {}))) if name != info["reference"] else []
            two = [(right(name, r, split), right(info["reference"], r, split)) for r in both]
            against = summary([(a[0] - b[0], *a[1:]) for a, b in two], split) if two else None
            if against and "law" in against:
                law, margin = against["law"], info["margin"]
                better, worse = law.sf(margin), law.cdf(-margin)
                against["probabilities"] = {"better": better, "within": 1 - better - worse, "worse": worse}
            found[name][str(split)] = {**level, "versus_reference": against}
        tests = [(t["probabilities"][t["split"] == "test"], t["labels"][t["split"] == "test"]) for t in trials.values()]
        shown, labels = (np.concatenate(x) for x in zip(*tests, strict=True))
        sure, hit = shown.max(1).astype(float), shown.argmax(1) == labels
        bins = np.clip(np.ceil(sure * 15) - 1, 0, 14)
        found[name]["calibration_error"] = sum(abs((hit - sure)[bins == b].sum()) for b in range(15)) / len(hit)
        logs = [-np.log(p[np.arange(len(c)), c].astype(float)).mean() for p, c in tests]
        found[name]["nll"], found[name]["accuracy"] = np.mean(logs), hit.mean()
        each = [[(p.argmax(1) == c)[c == k].mean() for k in np.unique(c)] for p, c in tests]
        found[name]["balanced_accuracy"] = np.mean([np.mean(e) for e in each])
        found[name]["recall"] = [hit[labels == k].mean() for k in range(shown.shape[1])]
        found[name]["confusion"] = np.histogram2d(labels, shown.argmax(1), bins=range(shown.shape[1] + 1))[0]
    return found


if __name__ == "__main__":
    for recipe, numbers in recompute(Path(sys.argv[1])).items():
        print(recipe, {key: numbers[key] for key in numbers if key != "confusion"})
