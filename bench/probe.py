"""The linear probe against one pass over the pictures, and against fine-tuning: small timm network, one thread, CPU time.

    python bench/probe.py                               # 300 pictures of 224x224, 10 epochs of fine-tuning: 2 minutes
    python bench/probe.py --pictures 3000 --epochs 30   # what a user has

First the equality: the probe answers what scikit-learn's logistic regression does on embeddings that were computed here.
Then what the ledgers charge for training and what prepares it (in CPU time), over a bare loop of forwards over the training
and validation pictures.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import augend
from augend.cost import Ledger
from augend.data.pictures import Pictures, Split
from augend.runner import curve, keeper
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job
from augend.runner.loop import run
from common import machine, report

CLASSES, BESIDE, ROWS = 5, 60, 32


def blobs(pictures: int, side: int, draw: torch.Generator, ids: str) -> Pictures:
    """Noise over a colour of the class: enough for features of random weights."""
    labels = torch.arange(pictures) % CLASSES
    colours = torch.randint(60, 196, (CLASSES, 3), generator=torch.Generator().manual_seed(1))
    noise = torch.randint(-60, 60, (pictures, 3, side, side), generator=draw)
    return Pictures(
        (colours[labels][:, :, None, None] + noise).to(torch.uint8), labels, tuple(f"{ids}{i}" for i in range(pictures))
    )


def data(pictures: int, side: int) -> Split:
    draw = torch.Generator().manual_seed(0)
    parts = {part: blobs(n, side, draw, part) for part, n in (("train", pictures), ("valid", BESIDE), ("test", BESIDE))}
    return Split(**parts, classes=tuple("abcde"), name="made-up", traits=frozenset({"hflip", "crop"}))


def once(recipe: str, model: str, split: Split, epochs: int) -> tuple[float, Path]:
    """CPU seconds that the ledger of a run charges, and its folder."""
    job = Job(data="made-up", recipe=recipe, model=model, budget=f"{epochs}epoch", overrides=(f"batch={ROWS}",))
    plan = resolve_job(job, {"main": split})
    folder = RunFolder(Path(tempfile.mkdtemp()) / "run")
    folder.create()
    run(plan, {"main": split}, folder, seed=0, hardware=Hardware(threads=1))
    return json.loads((folder.path / "ledger.json").read_text())["total"]["training_seconds"], folder.path


def one_pass(network: torch.nn.Module, split: Split) -> tuple[float, list[torch.Tensor]]:
    """CPU seconds of what cannot be saved: every training and validation picture through the network once."""
    begin = time.process_time()
    found = []
    with torch.no_grad():
        for part in (split.train, split.valid):
            rows = [part.pixels[at : at + ROWS].float() / 255 for at in range(0, len(part), ROWS)]
            found.append(torch.cat([network(x, frozenset({"features"}))["features"] for x in rows]))
    return time.process_time() - begin, found


def same(folder: Path, split: Split) -> float:
    """How many of the test pictures the probe answers as scikit-learn does under the same penalty."""
    network = augend.load(folder).networks.stages("net")
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    with torch.no_grad():
        parts = [
            network(p.pixels.float() / 255, frozenset({"features"}))["features"] for p in (split.train, split.test)
        ]
        answers = network(split.test.pixels.float() / 255)[""].argmax(1)
    mean, deviation = parts[0].mean(0), parts[0].std(0, unbiased=False).clamp_min(1e-9)
    x, test = (((part - mean) / deviation).double().numpy() for part in parts)
    theirs = LogisticRegression(C=1 / (line["penalty"] * len(x)), max_iter=5000, tol=1e-8).fit(
        x, split.train.labels.numpy()
    )
    return float(np.mean(theirs.predict(test) == answers.numpy()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="mobilenetv3_small_100")
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=10)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    curve.POINTS = 1
    keeper.SAVE_SECONDS = 1e9
    keeper.Ledger = functools.partial(Ledger, clock=time.process_time)  # other processes do not count
    split = data(asked.pictures, asked.side)
    probes, passes = [], []
    for _ in range(3):
        seconds, folder = once("probe", asked.model, split, asked.epochs)
        probes.append(seconds)
        passes.append(one_pass(augend.load(folder).networks.stages("net"), split)[0])
    agreed = same(folder, split)
    print(f"answers as scikit-learn's: {100 * agreed:.1f} %")
    tuned, _ = once("finetune", asked.model, split, asked.epochs)
    seconds = {"probe": f"{min(probes):.1f}s", "pass": f"{min(passes):.1f}s", "finetune": f"{tuned:.1f}s"}
    fair = agreed >= 0.98
    report(
        "probe over one pass", min(probes) / min(passes), "<= 1.2", fair and min(probes) <= 1.2 * min(passes), **seconds
    )
    report(
        f"finetune, {asked.epochs} epochs, over probe", tuned / min(probes), ">= 10", fair and tuned >= 10 * min(probes)
    )


if __name__ == "__main__":
    print(machine())
    main()
