"""Steps of one family in the recipe of another, by `set` alone: they train, are killed, and resume to the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runs import Killed, finish, killed_at, same_run, train

PEERS = """
like: aug-ft                       # factoring: plain, then only the high stages see augmented pictures
networks: {peer: {model: $model}}  # invariance: and a peer teaches them
result: [net, peer]
set:
  plain.objective: {cross-entropy: {of: [net, peer]}}
  tune.objective: {cross-entropy: {of: [net, peer]}, mutual: {weight: 1, of: [net, peer]}}
  tune.train: ["net[$split:]", "peer[$split:]"]
"""
TRIPLETS = """
like: dml                          # invariance: two networks teach each other
set:
  train.order: {groups: {copies: 3}}
  train.objective:
    cross-entropy: {of: [net, peer]}
    mutual: {weight: 1, of: [net, peer]}
    soft-margin-triplet: {weight: 0.1, of: [net.features, peer.features]}   # factoring: copies lie close together
"""
FROM_A_TEACHER = """
like: distill-high                 # factoring: distillation, and last only the readout moves
set: {readout.train: readout, readout.augment: pixels}
"""
COMPOSED = {"peers-above-a-cut": PEERS, "peers-with-triplets": TRIPLETS, "readout-on-views": FROM_A_TEACHER}


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_recipes_train_and_resume(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / f"{name}.yaml"
    recipe.write_text(COMPOSED[name])
    how = {"budget": "18step", "overrides": ("batch=24", "pixels=tilt-5")}
    train(tmp_path / "whole", str(recipe), **how)
    undo = killed_at(11, monkeypatch)
    with pytest.raises(Killed):
        train(tmp_path / "killed", str(recipe), **how)
    undo()
    finish(tmp_path / "killed")
    same_run(tmp_path / "whole", tmp_path / "killed")
    terms = {
        key for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines() for key in json.loads(line)
    }
    assert {"mutual", "match"} & terms
