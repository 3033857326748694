"""A network as an augmentation of pictures: what is seen, what it is charged, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from augend import AugendError, Draws, Picks
from augend.augment.network import Apply
from augend.contract import Component
from augend.cost import count_flops
from augend.models import build
from augend.recipes import check, dump
from augend.runner import grids
from augend.runner.assembly import build_networks, stage
from augend.runner.job import Job, resolve_job
from runs import SMALL, required, splits_of, train

THROUGH = {"apply": {"network": "vae.picture", "p": 0.5}}
ROWS = 64  # of a step, by the quick settings


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    """A trained autoencoder and the network of the settings."""
    asked = required("canonicalise")
    vae = {"denoising-vae": {"widths": asked["widths"], "latent": asked["latent"]}}
    return {"vae": {"model": vae, "weights": asked["vae"]}, "net": {"model": "small"}}


@pytest.fixture(scope="module")
def one(networks: dict[str, Any]) -> int:
    """FLOPs of a picture through the autoencoder."""
    ((word, options),) = networks["vae"]["model"].items()
    network = build(Component(word, options), shape=(1, 28, 28), classes=2, generator_seed=0)
    return count_flops(network.eval(), torch.zeros(1, 1, 28, 28), backward=False).total


def flops(folder: Path, networks: dict[str, Any], phase: dict[str, Any], budget: str = "4step") -> int:
    recipe = {"networks": networks, "phases": [{"name": "only", "train": "net", **phase}]}
    folder.mkdir(exist_ok=True)
    (folder / "mine.yaml").write_text(dump(recipe))
    train(folder / "run", str(folder / "mine.yaml"), settings="quick", budget=budget)
    return int(json.loads((folder / "run" / "ledger.json").read_text())["total"]["flops"])


def test_what_is_seen_is_what_the_network_makes(networks: dict[str, Any]) -> None:
    recipe = {"networks": networks, "phases": [{"name": "only", "train": "net", "augment": [{"rotate": 30}, THROUGH]}]}
    job = Job(data=SMALL, recipe=recipe, settings="quick", budget="4step")  # type: ignore[arg-type]
    splits = splits_of(job)
    plan = resolve_job(job, splits)
    built = build_networks(plan, splits, seed=0)
    scene = stage(plan.phases[0], built, splits, seed=0)
    built.eval()
    picks = Picks(torch.arange(20)[:, None])
    batch = scene.batch(picks, Draws(0, "only", 0, 20), 0.0)
    turn, through = scene.chains["x"].ops
    turned = turn.apply(scene.pictures.pixels[:20].float() / 255, batch.params["x"][:, :1])
    with torch.no_grad():
        made = built.stages("vae")(turned, frozenset({"picture"}))["picture"]
    assert isinstance(through, Apply)
    hit = through.hits(batch.params["x"][:, 1:])
    assert 0 < int(hit.sum()) < 20
    torch.testing.assert_close(batch.views["x"], torch.where(hit[:, None, None, None], made, turned))
    assert not batch.views["x"].requires_grad


@pytest.mark.parametrize(
    ("before", "each"),
    [([], 1), ([{"sum": {"k": 3}}], 3), ([{"mixup": {"alpha": 1.0}}], 1)],
    ids=["alone", "sums", "pairs"],
)
def test_every_picture_through_it_is_charged(
    networks: dict[str, Any], one: int, tmp_path: Path, before: list[Any], each: int
) -> None:
    plain = flops(tmp_path / "plain", networks, {"augment": before})
    through = flops(tmp_path / "through", networks, {"augment": [THROUGH, *before]})
    assert one > 0 and through - plain == 4 * ROWS * each * one


def test_the_network_is_built_once_for_what_is_shown_of_all_views(
    networks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def counted(*given: Any) -> Any:
        built.append(build_networks(*given))
        return built[-1]

    monkeypatch.setattr(grids, "build_networks", counted)
    terms = {"cross-entropy": {"of": ["net@a", "net@b"]}}
    first = {"name": "first", "train": "net", "objective": terms}
    phases = [{**first, "augment": {"views": {"a": [THROUGH], "b": ["hflip", THROUGH]}}}]
    phases += [{"name": "second", "train": "net", "augment": [THROUGH]}]
    (tmp_path / "mine.yaml").write_text(dump({"networks": networks, "phases": phases}))
    train(tmp_path / "run", str(tmp_path / "mine.yaml"), settings="quick", budget="4step")
    shown = {one.name for one in (tmp_path / "run" / "grids").iterdir()}
    assert shown == {"first-a.png", "first-b.png", "second-x.png"} and len(built) == 1
    train(tmp_path / "plain", "augmented", settings="quick", budget="4step")
    assert len(built) == 1


def test_sums_that_fade_are_charged_as_they_fade(networks: dict[str, Any], one: int, tmp_path: Path) -> None:
    fading = [{"sum": {"gradual": 4}}]
    plain = flops(tmp_path / "plain", networks, {"augment": fading}, "8step")
    through = flops(tmp_path / "through", networks, {"augment": [THROUGH, *fading]}, "8step")
    seen = json.loads((tmp_path / "through" / "run" / "ledger.json").read_text())["total"]["pictures"]
    assert through - plain == seen * one and 8 * ROWS < seen < 8 * ROWS * 4


def test_what_fills_a_cache_is_charged_once(networks: dict[str, Any], one: int, tmp_path: Path) -> None:
    frozen = {"train": "net[classify:]", "cache": True}
    plain = flops(tmp_path / "plain", networks, {**frozen, "augment": [{"hflip": 0.5}]}, "40step")
    through = flops(tmp_path / "through", networks, {**frozen, "augment": [THROUGH]}, "40step")
    pictures = len(splits_of(Job(data=SMALL, recipe="plain"))["main"].train)
    assert through - plain == 2 * pictures * one  # both outcomes of each picture, and no step


def test_a_closed_form_is_charged_for_it(networks: dict[str, Any], one: int, tmp_path: Path) -> None:
    """Principal components, whose products do not depend on what the pictures are."""
    base = {"base": {"model": {"pca": {"latent": 8}}}, "net": {"model": "linear", "input": "base.mean"}}
    whole = {"networks": {**networks, **base}}
    phases = [{"name": "pca", "fit": "pca", "train": "base"}, {"name": "only", "train": "net"}]
    spent = []
    for name, augment in (("plain", [{"hflip": 0.5}]), ("through", [THROUGH])):
        recipe = {**whole, "phases": [{**phases[0], "augment": augment}, phases[1]]}
        (tmp_path / f"{name}.yaml").write_text(dump(recipe))
        train(tmp_path / name, str(tmp_path / f"{name}.yaml"), settings="quick", budget="4step")
        spent.append(json.loads((tmp_path / name / "ledger.json").read_text())["total"]["flops"])
    pictures = len(splits_of(Job(data=SMALL, recipe="plain"))["main"].train)
    assert spent[1] - spent[0] == 2 * pictures * one


@pytest.mark.parametrize(
    ("phase", "more", "says"),
    [
        (
            {"train": ["vae", "net"]},
            {},
            "network 'vae' moves in this phase, and its pictures are made before each step",
        ),
        ({"train": ["vae[decode]", "net"]}, {}, "network 'vae' moves in this phase"),
        ({"augment": [{"apply": {"network": "input"}}]}, {}, "found network 'input'; allowed: net, vae"),
        ({}, {"input": "net.features"}, "network 'vae' takes net.features, and what is augmented here are pictures"),
    ],
)
def test_what_is_refused(phase: dict[str, Any], more: dict[str, Any], says: str) -> None:
    networks = {"vae": {"model": "denoising-vae", **more}, "net": {"model": "small"}}
    terms = {"cross-entropy": {"of": "net"}, "bernoulli": {"of": "vae.logits", "to": "input"}}
    own = {"name": "only", "train": "net", "augment": [THROUGH], "objective": terms, **phase}
    with pytest.raises(AugendError) as caught:
        check({"networks": networks, "phases": [own]}, "quick", budget="4step")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_pictures_of_another_size_are_refused_at_once(networks: dict[str, Any], tmp_path: Path) -> None:
    net = {"model": "small"}
    recipe = {
        "networks": {**networks, "net": net},
        "phases": [{"name": "only", "train": "net", "size": 20, "augment": [THROUGH]}],
    }
    (tmp_path / "mine.yaml").write_text(dump(recipe))
    with pytest.raises(AugendError, match=r"size: network 'vae' \(denoising-vae\) cannot take pictures of 20 x 20"):
        train(tmp_path / "run", str(tmp_path / "mine.yaml"), settings="quick", budget="4step")
