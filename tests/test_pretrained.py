"""Pretrained weights: from a hub's cache by its real loading code into one file; and what a study makes of having them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from augend import AugendError
from augend.contract import Component
from augend.models import build, factory
from augend.models.pretrained import digest_of, fetch_weights, native_side
from photos import fill

MODEL = "resnet18"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's cache as its client leaves it, holding one network with weights of our own."""
    import timm

    home = tmp_path_factory.mktemp("hub")
    name = timm.get_pretrained_cfg(MODEL).hf_hub_id
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots" / commit).mkdir(parents=True)
    torch.manual_seed(5)
    save_file(timm.create_model(MODEL).state_dict(), repository / "snapshots" / commit / "model.safetensors")
    return home


def run(code: list[str], hub: Path | None, cache: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AUGEND_CACHE": str(cache), "AUGEND_OFFLINE": "1", **more}
    environment |= {"HF_HOME": str(hub or cache / "no-hub"), "TORCH_HOME": str(cache / "torch")}
    return subprocess.run([sys.executable, *code], capture_output=True, text=True, timeout=300, env=environment)


def test_weights_come_from_the_hubs_cache(hub: Path, tmp_path: Path) -> None:
    """The trunk and its normalisation, without the classifier, in a file that any later run takes without the hub."""
    code = (
        "from pathlib import Path; from augend.models.pretrained import fetch_weights; "
        f"print(fetch_weights({MODEL!r}, Path({str(tmp_path)!r})))"
    )
    done = run(["-c", code], hub, tmp_path)
    assert done.returncode == 0, done.stderr
    file = Path(done.stdout.strip().splitlines()[-1])
    tensors = load_file(file)
    assert not any("fc." in name for name in tensors) and {"mean", "std"} <= {
        name.rsplit(".", 1)[-1] for name in tensors
    }
    torch.manual_seed(5)
    import timm

    stem = timm.create_model(MODEL).conv1.weight
    net = build(Component(MODEL), shape=(3, 32, 32), classes=4, weights=file, generator_seed=1)
    assert torch.equal(net.get_submodule("model").conv1.weight, stem)
    assert torch.allclose(net.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    assert fetch_weights(MODEL, tmp_path) == file and len(digest_of(file)) == 16


def test_the_weights_own_size() -> None:
    assert native_side("resnet18") == 224 and native_side("torchvision:inception_v3") == 299


@pytest.mark.slow
def test_a_study_starts_from_what_is_at_hand(hub: Path, tmp_path: Path) -> None:
    """Pictures of one's own and weights in the hub's cache: probes against fine-tuning; without them one loud line."""
    data = fill(tmp_path / "data", {"cat": 20, "dog": 20})
    asked = [
        "-m",
        "augend",
        "compare",
        str(data),
        "--size",
        "32",
        "--budget",
        "20step",
        "--repeats",
        "2",
        "--plan",
        "--json",
    ]
    done = run(asked, hub, tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    assert (record["regime"], record["reference"]) == ("pretrained", "finetune")
    assert record["request"]["settings"] == "pretrained" and record["request"]["model"] == MODEL
    assert [r["name"] for r in record["recipes"]][:4] == ["probe", "probe-views", "probe-mix", "finetune"]
    assert record["weights"] == digest_of(Path(record["request"]["weights"]))
    assert record["plan"]["probe"]["steps"] == 0 and record["predicted"]["probe"]["training"] > 0
    without = run(asked[:-1], None, tmp_path / "other")
    assert without.returncode == 0, without.stderr
    assert "NO PRETRAINED WEIGHTS" in without.stdout and "mixup" in without.stdout
    insisted = run([*asked, "--regime", "pretrained"], None, tmp_path / "other")
    assert insisted.returncode == 2 and "AUGEND_OFFLINE" in insisted.stderr
    assert len(insisted.stderr.strip().splitlines()) == 1


def test_a_hub_that_does_not_answer_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(factory, "HUB_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        factory._reachable.cache_clear()
        assert factory._reachable()
    factory._reachable.cache_clear()
    begun = time.monotonic()
    assert not factory._reachable() and time.monotonic() - begun < 2
    with pytest.raises(AugendError, match="the hub cannot be reached"):
        raise AugendError(factory._why_not(OSError("no route")))
    factory._reachable.cache_clear()


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.zeros(2, 2)}, tmp_path / "odd.safetensors")
    data = fill(tmp_path / "data", {"cat": 8, "dog": 8})
    asked = [
        "-m",
        "augend",
        "compare",
        str(data),
        "--weights",
        str(tmp_path / "odd.safetensors"),
        "--out",
        str(tmp_path / "s"),
    ]
    done = run(asked, None, tmp_path / "cache")
    assert done.returncode == 2 and "--model" in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "s").exists()


def test_what_is_no_file_of_weights_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("no weights")
    data = fill(tmp_path / "data", {"cat": 8, "dog": 8})
    done = run(
        ["-m", "augend", "compare", str(data), "--weights", str(tmp_path / "notes.md")], None, tmp_path / "cache"
    )
    assert done.returncode == 2 and "notes.md" in done.stderr and "weights_only" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
