"""The embedding family's recipes: Omega and its controls inside the runner, how they are scored, banks that are exact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from augend import AugendError, Draws, EmbeddingAugmenter, RidgeAugmenter
from augend.address import Address
from augend.augment.colour import Noise
from augend.checkpoint import digest_of
from augend.pixels import to_float
from augend.recipes import resolve
from augend.recipes.plan import Plan
from augend.report.phases import network_words
from augend.runner.assembly import build_networks
from augend.runner.hardware import Hardware
from augend.runner.job import Job
from runs import SMALL, final_state, splits_of, train

SETTINGS = "optimizer: {sgd: {lr: 0.1, momentum: 0.9}}\nschedule: {lr: cosine}\nbatch: 32\npixels: hflip\n"
SIZE, TRAITS = {"main": 200, "base": 200}, {"main": frozenset({"hflip"}), "base": frozenset({"hflip"})}
FACTS: dict[str, Any] = {"sizes": SIZE, "traits": TRAITS, "data": "digits"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("settings") / "settings.yaml"
    file.write_text(SETTINGS)
    return str(file)


@pytest.fixture(scope="module")
def how(settings: str) -> dict[str, Any]:
    until = ("base.until=20step", "omega.until=40step", "head.until=20step")
    return {"settings": settings, "model": "small", "seed": 3, "budget": "200step", "overrides": until}


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["kind"] == kind]


def head(folder: Path) -> dict[str, Tensor]:
    return {name: t for name, t in final_state(folder).items() if name.startswith("net/net.")}


def pairs(folder: Path, how: dict[str, Any], recipe: str, part: str) -> tuple[Tensor, Tensor]:
    """Embeddings of the pictures and of their mirror images, under the base that a run has trained."""
    job = Job(data=SMALL, recipe=recipe, **how)
    splits = splits_of(job)
    networks = build_networks(Plan.from_json((folder / "plan.json").read_text()), splits, 3).eval()
    state = {name.removeprefix("net/"): t for name, t in final_state(folder).items() if name.startswith("net/")}
    networks.load_state_dict(state)
    x = to_float(getattr(splits["main"], part).pixels)
    with torch.no_grad():
        z, zg = (networks.tensor(Address("source", "features"), one) for one in (x, x.flip(-1)))
    return z, zg


@pytest.mark.parametrize("hidden", [0, 2])
def test_an_omega_that_does_nothing_is_transfer_none_bit_for_bit(
    hidden: int, how: dict[str, Any], tmp_path: Path
) -> None:
    without = {**how, "overrides": ("base.until=20step", "head.until=20step")}
    train(tmp_path / "none", "transfer-none", **without)
    width = next(t.shape[1] for t in head(tmp_path / "none").values() if t.ndim == 2 and len(t) == 1024)
    eye = torch.eye(width)
    layers = {"up": eye} if not hidden else {"up": torch.cat([eye, -eye]), "down": torch.cat([eye, -eye], 1)}
    weights = {f"{name}.weight": w.contiguous() for name, w in layers.items()}
    weights |= {f"{name}.bias": torch.zeros(len(w)) for name, w in layers.items()}
    save_file(weights, tmp_path / "identity.safetensors")
    recipe = tmp_path / "identity.yaml"
    recipe.write_text(
        "like: transfer-embed\ndrop: [omega]\nnetworks: {omega: {model: {omega: {hidden: "
        f"{hidden}}}}}, input: source.features, weights: {tmp_path / 'identity.safetensors'}}}}}\n"
        "set: {head.augment: [{apply: {network: omega, p: 1.0, at: source.features}}]}\n"
    )
    train(tmp_path / "identity", str(recipe), **without)
    ours, theirs = head(tmp_path / "identity"), head(tmp_path / "none")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    train(tmp_path / "embed", "transfer-embed", **how)
    assert not all(torch.equal(theirs[name], t) for name, t in head(tmp_path / "embed").items())


def test_omega_is_scored_on_held_out_pictures_and_noise_is_as_large_as_its_mistakes(
    how: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[float] = []
    apply = Noise.apply
    monkeypatch.setattr(Noise, "apply", lambda self, x, params: (bound.append(self.sigma), apply(self, x, params))[1])
    result = train(tmp_path / "noise", "transfer-noise", **how)
    (line,) = lines(tmp_path / "noise", "augmenter")
    z, zg = pairs(tmp_path / "noise", how, "transfer-noise", "valid")
    state = final_state(tmp_path / "noise")
    omega = EmbeddingAugmenter().fit(z, zg)
    omega.network_.load_state_dict(
        {n.removeprefix("net/omega."): t for n, t in state.items() if n.startswith("net/omega.")}
    )
    assert line["network"] == "omega" and line["phase"] == "omega" and line["pictures"] == len(z) == 40
    assert line["score"] == pytest.approx(omega.score(z, zg), abs=1e-5)
    assert line["cosine"] == pytest.approx(omega.cosine(z, zg), abs=1e-5)
    residual = float((omega.transform(z) - zg).double().square().mean().sqrt())
    assert line["squared"] ** 0.5 == pytest.approx(residual, rel=1e-5) and residual > 0
    assert bound and all(sigma == line["squared"] ** 0.5 for sigma in bound)
    assert result["augmenters"]["omega"]["score"] == line["score"]
    sizes = result["networks"]
    width = omega.network_.get_submodule("model.down").out_features  # type: ignore[attr-defined]
    assert sizes["omega"] == {
        "parameters": 4 * width**2 + 3 * width,
        "bytes": 4 * (4 * width**2 + 3 * width),
        "macs": 4 * width**2,
    }
    assert (
        sizes["net"]["macs"] == width * 1024 + 1024 * 128 + 128 * 10
        and sizes["source"]["macs"] > sizes["omega"]["macs"]
    )
    said = network_words(result)
    assert len(said) == 3 and any(f"scores {line['score']:.2f}" in one for one in said)


def test_a_run_leaves_its_omega_for_others(how: dict[str, Any], tmp_path: Path) -> None:
    """As a file of the component, and of a recipe that learns none: the same head, bit for bit, without omega's phase."""
    train(tmp_path / "run", "transfer-embed", **how)
    file = tmp_path / "run" / "omega.safetensors"
    z, zg = pairs(tmp_path / "run", how, "transfer-embed", "valid")
    (scored,) = lines(tmp_path / "run", "augmenter")
    omega = EmbeddingAugmenter.load(file)
    assert omega.score(z, zg) == pytest.approx(scored["score"], abs=1e-5)
    assert omega.augmentation_ is not None and "hflip" in omega.augmentation_ and omega.steps_ == 40
    state = final_state(tmp_path / "run")
    name = "net/source.model."
    backbone = {key.removeprefix(name): t for key, t in state.items() if key.startswith(name)}
    assert omega.backbone_ == digest_of(backbone)
    with pytest.raises(AugendError, match="learned on a backbone with the digest"):
        EmbeddingAugmenter.load(file, backbone=digest_of({}))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "like: transfer-embed\ndrop: [omega]\n"
        f"networks: {{omega: {{model: omega, input: source.features, weights: {file}}}}}\n"
    )
    until = ("base.until=20step", "head.until=20step")
    train(tmp_path / "other", str(recipe), **{**how, "overrides": until})
    ours, theirs = head(tmp_path / "run"), head(tmp_path / "other")
    assert all(torch.equal(ours[key], t) for key, t in theirs.items())


def test_a_monitor_sees_omega_as_it_will_be_and_leaves_no_trace(how: dict[str, Any], tmp_path: Path) -> None:
    """Between the steps omega stands in standardised embeddings; who looks sees it in those of the network."""
    look = (
        "monitor={every: 30step, batch: 40, augment: {views: {z: none, zg: {hflip: {p: 1}}}}, "
        "objective: {match: {of: omega@z, to: source.features@zg}}}"
    )
    train(tmp_path / "with", "transfer-embed", **{**how, "overrides": (*how["overrides"], look)})
    train(tmp_path / "without", "transfer-embed", **how)
    seen = {line["global_step"]: line["match"] for line in lines(tmp_path / "with", "monitor")}
    (scored,) = lines(tmp_path / "with", "augmenter")
    assert list(seen) == [0, 30, 60] and scored["global_step"] == 60
    assert seen[60] == pytest.approx(scored["squared"], rel=1e-4) and seen[30] > seen[60]
    ours, theirs = final_state(tmp_path / "with"), final_state(tmp_path / "without")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], t) for name, t in theirs.items())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("set: {omega.augment: {views: {z: none, zg: {rotate: 15}}}}", "frozen and cached; write cache: {views: 4}"),
        ("set: {omega.cache: false}", "frozen and cached"),
        (
            "set: {omega.objective: {match: {of: omega@z, to: source.features@zg}, cross-entropy: {of: net@z}}, "
            "omega.train: [omega, net], omega.data: main}",
            "network 'net' takes as they come",
        ),
    ],
)
def test_what_cannot_be_standardised_is_one_line(words: str, said: str, how: dict[str, Any], tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"like: transfer-embed\n{words}\n")
    with pytest.raises(AugendError, match=said) as raised:
        train(tmp_path / "run", str(recipe), **how)
    assert "standardise: false" in str(raised.value) and "\n" not in str(raised.value)


def test_ridge_in_a_recipe_is_the_component(how: dict[str, Any], tmp_path: Path) -> None:
    train(tmp_path / "ridge", "transfer-ridge", **how)
    z, zg = pairs(tmp_path / "ridge", how, "transfer-ridge", "train")
    ridge = RidgeAugmenter().fit(z, zg)
    state = final_state(tmp_path / "ridge")
    torch.testing.assert_close(state["net/omega.model.up.weight"], ridge.coef_.float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(state["net/omega.model.up.bias"], ridge.intercept_.float(), rtol=1e-3, atol=1e-4)
    (line,) = lines(tmp_path / "ridge", "fit")
    assert line["fit"] == "ridge" and line["penalty"] == ridge.penalty_ and line["rows"] == 200
    assert line["loss"] == pytest.approx(ridge.loss_, rel=1e-3)
    assert ridge.loss_ == pytest.approx(float((ridge.transform(z) - zg).double().square().mean()), rel=1e-3)
    (scored,) = lines(tmp_path / "ridge", "augmenter")
    left = EmbeddingAugmenter.load(tmp_path / "ridge" / "omega.safetensors")
    torch.testing.assert_close(left.transform(z), ridge.transform(z), rtol=1e-3, atol=1e-3)
    assert scored["score"] == pytest.approx(
        ridge.score(*pairs(tmp_path / "ridge", how, "transfer-ridge", "valid")), abs=1e-3
    )


def test_cached_views_of_a_finite_augmentation_are_the_pixels_themselves(how: dict[str, Any], tmp_path: Path) -> None:
    """Flips have two outcomes, so a bank of up to eight holds both, and each step finds the one that it would draw."""
    plain = {**how, "overrides": ("base.until=20step", "head.until=20step")}
    train(tmp_path / "cached", "transfer-pixel-cached", **plain)
    train(tmp_path / "pixel", "transfer-pixel", **plain)
    ours, theirs = head(tmp_path / "cached"), head(tmp_path / "pixel")
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    ledger = json.loads((tmp_path / "cached" / "ledger.json").read_text())
    assert ledger["total"]["seconds"]["cache"] > 0
    none = {**plain, "overrides": (*plain["overrides"], "head.augment=none")}
    train(tmp_path / "none", "transfer-pixel-cached", **none)
    assert any(not torch.allclose(t, ours[name], atol=1e-4) for name, t in head(tmp_path / "none").items())


@pytest.mark.parametrize("recipe", ["transfer-embed", "transfer-ridge", "transfer-pixel-cached"])
def test_features_cached_in_bf16_are_counted_and_learned_from(recipe: str, how: dict[str, Any], tmp_path: Path) -> None:
    words = {**how, "overrides": [one for one in how["overrides"] if "omega" not in one or recipe == "transfer-embed"]}
    result = train(tmp_path / "run", recipe, hardware=Hardware(threads=1, precision="bf16-mixed"), **words)
    assert result["ledger"]["flops"] > 0 and 0 <= result["valid"] <= 1


def test_noise_for_some_rows_leaves_the_others() -> None:
    x, noise = torch.rand(400, 6), Noise(0.5, clip=False, p=0.25)
    params = noise.draw(Draws(0, "test", keys=400), 0.0)
    assert params.shape == (400, 3)
    moved = (noise.apply(x, params) != x).all(1)
    assert torch.equal(moved, params[:, 2] > 0.5) and 60 < int(moved.sum()) < 140
    whole = Noise(0.5, clip=False)
    everywhere = whole.apply(x, whole.draw(Draws(0, "test", keys=400), 0.0))
    assert torch.equal(noise.apply(x, params)[moved], everywhere[moved])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": ["omega"]}, "no phase before teaches it"),
        ({"set": {"head.augment": [{"noise": {"residual-of": "net", "at": "source.features"}}]}}, "no phase before"),
        ({"set": {"head.augment": [{"noise": {"residual-of": "nobody"}}]}}, "nobody"),
    ],
)
def test_noise_needs_a_network_that_has_learned(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AugendError, match=message) as caught:
        resolve({"like": "transfer-noise", **change}, **FACTS, model="small", budget="90step")
    assert "\n" not in str(caught.value)


def test_a_closed_form_of_pairs_is_one_linear_map() -> None:
    with pytest.raises(AugendError, match="minimises match of net alone"):
        resolve(
            {
                "like": "transfer-ridge",
                "set": {"omega.train": "net[classify:]", "omega.objective": {"cross-entropy": {"of": "net@z"}}},
            },
            **FACTS,
            model="small",
            budget="90step",
        )
