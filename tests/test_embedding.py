"""Augmentations of embeddings: Omega equals the recipes' phase, learns what is there and no more, and its controls hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import augend
from augend import (
    AugendError,
    Draws,
    EmbeddingAugmenter,
    IdentityAugmenter,
    NoiseAugmenter,
    RidgeAugmenter,
)
from augend.address import Address
from augend.augment.embedding import KEY, _batches
from augend.augment.embedding_controls import PENALTIES
from augend.augment.network import Apply
from augend.contract import Component
from augend.models import build
from augend.order.shuffle import Shuffle
from augend.pixels import to_float
from augend.recipes.plan import Plan
from augend.runner.assembly import build_networks
from augend.runner.job import Job
from augend.stages.bank import chunks
from runs import SMALL, final_state, splits_of, train

D = 16
Pairs = tuple[Tensor, Tensor]


def rotated(rows: int, degrees: float = 40.0, noise: float = 0.3, width: int = D) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of unlike scale, the same turned about their middle in every plane of a basis, and that with noise."""
    draws = torch.Generator().manual_seed(7)
    z = torch.randn(rows, width, generator=draws) * torch.linspace(0.5, 2.0, width)
    basis = torch.linalg.qr(torch.randn(width, width, generator=draws)).Q
    turn = torch.eye(width) * math.cos(math.radians(degrees))
    for first in range(0, width, 2):
        turn[first, first + 1], turn[first + 1, first] = (s * math.sin(math.radians(degrees)) for s in (-1, 1))
    exact, middle = z @ (basis @ turn @ basis.T).T, torch.linspace(-1, 3, width)
    return z + middle, exact + middle, exact + middle + noise * torch.randn(rows, width, generator=draws)


Z, EXACT, TURNED = rotated(3000)
N = 2000  # fitted; the rest is held out
ALL = [EmbeddingAugmenter, IdentityAugmenter, NoiseAugmenter, RidgeAugmenter]


def small(**changed: Any) -> EmbeddingAugmenter:
    return EmbeddingAugmenter(**{"lr": 0.5, "epochs": 1, **changed})


def made(kind: type) -> Any:
    return small() if kind is EmbeddingAugmenter else kind()


@pytest.fixture(scope="module")
def omega() -> EmbeddingAugmenter:
    return EmbeddingAugmenter(lr=1.0, epochs=30).fit(Z[:N], TURNED[:N])


# ---------------------------------------------------------------------- the same weights as a recipe's phase


@pytest.mark.parametrize("standardise", [True, False])
def test_the_weights_are_those_of_the_recipe_bit_for_bit(standardise: bool, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "optimizer: {sgd: {lr: 0.3, momentum: 0.9, weight_decay: 1e-3}}\nschedule: {lr: cosine}\nbatch: 32\npixels: none\n"
    )
    always = "omega.augment={views: {z: none, zg: {hflip: 1.0}}}"
    until = ("base.until=6step", "omega.until=2.3epoch", "head.until=1step")
    how: dict[str, Any] = {"settings": str(settings), "model": "small", "seed": 5, "overrides": (always, *until)}
    recipe = "transfer-embed"
    if not standardise:
        recipe = str(tmp_path / "transfer-embed.yaml")
        Path(recipe).write_text(
            "like: transfer-embed\nnetworks: {omega: {model: {omega: {standardise: false}}, input: source.features}}\n"
        )
    train(tmp_path / "run", recipe, budget="100step", **how)
    state = final_state(tmp_path / "run")
    ended = {name.removeprefix("net/omega."): t for name, t in state.items() if name.startswith("net/omega.")}

    job = Job(data=SMALL, recipe="transfer-embed", **how)
    splits = splits_of(job)
    networks = build_networks(Plan.from_json((tmp_path / "run" / "plan.json").read_text()), splits, 5).eval()
    begun = {name: t.clone() for name, t in networks.stages("omega").state_dict().items()}
    source = {name.removeprefix("net/source."): t for name, t in state.items() if name.startswith("net/source.")}
    networks.stages("source").load_state_dict(source)
    pixels = to_float(splits["main"].train.pixels)

    def embedded(pictures: Tensor) -> Tensor:
        with torch.no_grad():  # in batches of the shape of a step's, two views of 32 rows
            parts = [
                networks.tensor(Address("source", "features"), pictures[i])[:n] for i, n in chunks(len(pixels), 64)
            ]
        return torch.cat(parts)

    z, zg = embedded(pixels), embedded(pixels.flip(-1))
    same: dict[str, Any] = {"lr": 0.3, "weight_decay": 1e-3, "epochs": 2.3, "batch": 32, "standardise": standardise}
    fitted = EmbeddingAugmenter(**same, seed=5).fit(z, zg)
    assert fitted.steps_ == 15  # 2.3 x 200 / 32, rounded up
    found = fitted.network_.state_dict()
    assert found.keys() == ended.keys() and len(found) == 4
    for name, tensor in found.items():
        assert torch.equal(tensor, ended[name]) and not torch.equal(tensor, begun[name]), name
    for other in ({"seed": 6}, {"name": "other"}, {"epochs": 2}):
        weights = EmbeddingAugmenter(**{**same, "seed": 5, **other}).fit(z, zg).network_.state_dict()
        assert not torch.equal(weights["model.up.weight"], ended["model.up.weight"]), other


@pytest.mark.parametrize(("size", "rows"), [(10, 4), (10, 10), (3, 8), (7, 1)])
def test_batches_are_the_picks_of_shuffle(size: int, rows: int) -> None:
    order = Shuffle()
    order.start(size, Draws(3, "omega/order"))
    for step, batch in enumerate(_batches(size, rows, 9, Draws(3, "omega/order"))):
        assert batch.tolist() == order.next(step, rows, 1, 0.0).index[:, 0].tolist()


# ---------------------------------------------------------------------- what it learns


def test_reaches_the_ceiling_and_beats_what_learns_nothing(omega: EmbeddingAugmenter) -> None:
    held = Z[N:], TURNED[N:]
    ceiling = 1 - float((EXACT - TURNED)[N:].square().sum() / (Z - TURNED)[N:].square().sum())
    assert 0.5 < ceiling < 0.95
    score = omega.score(*held)
    assert 0.95 * ceiling <= score < 1
    assert score > IdentityAugmenter().fit(Z[:N], TURNED[:N]).score(*held) == 0.0
    assert omega.cosine(*held) > IdentityAugmenter().fit(Z[:N], TURNED[:N]).cosine(*held) + 0.05


def test_shuffled_pairs_teach_nothing() -> None:
    other = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    fitted = EmbeddingAugmenter(lr=1.0, epochs=10).fit(Z[:N], TURNED[:N][other])
    assert fitted.score(Z[N:], TURNED[N:]) <= 0.05
    assert RidgeAugmenter().fit(Z[:N], TURNED[:N][other]).score(Z[N:], TURNED[N:]) <= 0.05


def test_a_network_learns_what_no_linear_map_can() -> None:
    z = torch.randn(3000, 8, generator=torch.Generator().manual_seed(2))
    pairs = (z, z.abs())
    linear = RidgeAugmenter().fit(z[:N], pairs[1][:N]).score(z[N:], z.abs()[N:])
    assert EmbeddingAugmenter(lr=1.0, epochs=20).fit(z[:N], z.abs()[:N]).score(z[N:], z.abs()[N:]) > linear + 0.1


def test_standardising_serves_any_scale_and_leaves_a_plain_network() -> None:
    scale = torch.logspace(-3, 0, D)
    z, zg = Z * scale + 5 * scale, TURNED * scale
    z[:, 3], zg[:, 3] = 0.25, 0.75  # an entry that says nothing
    fitted = EmbeddingAugmenter(lr=1.0, epochs=10).fit(z[:N], zg[:N])
    plain = EmbeddingAugmenter(lr=1.0, epochs=10, standardise=False).fit(z[:N], zg[:N])
    assert fitted.score(z[N:], zg[N:]) > max(0.9, plain.score(z[N:], zg[N:]))
    assert [tuple(t.shape) for t in fitted.network_.state_dict().values()] == [(2 * D, D), (2 * D,), (D, 2 * D), (D,)]
    assert not list(fitted.network_.buffers())
    moved = EmbeddingAugmenter(lr=1.0, epochs=10).fit(1000 * z[:N], 1000 * zg[:N])
    assert moved.score(1000 * z[N:], 1000 * zg[N:]) == pytest.approx(fitted.score(z[N:], zg[N:]), abs=1e-3)


def test_is_a_function_of_the_seed_and_leaves_global_chance_alone() -> None:
    before, unlike = torch.get_rng_state(), np.random.get_state()[1]
    with torch.no_grad():  # also under a caller's no_grad
        weights = [small(seed=seed).fit(Z, TURNED).network_.state_dict() for seed in (0, 0, 1)]
    for kind in ALL:
        fitted = made(kind).fit(Z, TURNED)
        assert torch.equal(fitted.transform(Z), fitted.transform(Z))
        fitted.augment(Z, 0.5, torch.Generator().manual_seed(0))
        fitted.augment(Z, 0.5, Draws(0, "head", keys=len(Z)))
    assert torch.equal(torch.get_rng_state(), before) and np.array_equal(np.random.get_state()[1], unlike)
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not any(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])


def test_diverging_is_one_line() -> None:
    with pytest.raises(AugendError, match=r"fit: training diverged at lr=1e\+06; lower it"):
        small(lr=1e6, epochs=5).fit(Z, TURNED)


# ---------------------------------------------------------------------- scores


def test_score_and_cosine_by_hand() -> None:
    z, zg = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 4.0]])
    ridge = RidgeAugmenter(1.0).fit(z, zg)
    ridge.coef_, ridge.intercept_ = 2 * torch.eye(2).double(), torch.zeros(2).double()
    assert ridge.score(z, zg) == pytest.approx(1 - (1 + 1) / (1 + 4))
    assert ridge.cosine(z, zg) == pytest.approx((math.sqrt(0.5) + 1) / 2)
    assert ridge.cosine(torch.zeros(2, 2), zg) == 0.0


def test_where_nothing_changes_the_score_is_nan(omega: EmbeddingAugmenter) -> None:
    assert math.isnan(omega.score(Z, Z)) and math.isnan(IdentityAugmenter().fit(Z, Z).score(Z, Z))
    assert IdentityAugmenter().fit(Z, Z).cosine(Z, Z) == pytest.approx(1.0)


# ---------------------------------------------------------------------- controls


@pytest.mark.parametrize("per_dimension", [False, True])
def test_noise_is_as_large_as_the_residual(omega: EmbeddingAugmenter, per_dimension: bool) -> None:
    residual = (TURNED - omega.transform(Z)).double()
    noise = NoiseAugmenter(omega, per_dimension=per_dimension).fit(Z, TURNED)
    expected = residual.square().mean(0).sqrt() if per_dimension else residual.square().mean().sqrt().expand(D)
    assert torch.allclose(noise.scale_.double(), expected, rtol=1e-5)
    added = (noise.transform(Z) - Z).double()
    assert torch.allclose(added.std(0), expected, rtol=0.06) and float(added.mean().abs()) < 0.01
    assert noise.score(Z, TURNED) == pytest.approx(omega.score(Z, TURNED) - 1, abs=0.02)
    alone = NoiseAugmenter(per_dimension=per_dimension).fit(Z, TURNED)
    assert alone.score(Z, TURNED) == pytest.approx(-1.0, abs=0.02)
    first, second = (alone.augment(Z, 1.0, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(("rows", "penalty"), [(300, 1e-3), (300, 10.0), (10, 1e-2)])
def test_ridge_is_that_of_scikit_learn(rows: int, penalty: float) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    z, zg = Z[:rows].clone(), TURNED[:rows]
    z[:, 5] = 3.0
    scaler = StandardScaler().fit(z.double().numpy())
    theirs = Ridge(alpha=penalty * rows).fit(scaler.transform(z.double().numpy()), zg.double().numpy())
    ours = RidgeAugmenter(penalty).fit(z, zg)
    assert np.abs(ours.coef_.numpy() * scaler.scale_ - theirs.coef_)[:, np.arange(D) != 5].max() < 1e-5
    new = Z[2000:].clone()
    new[:, 5] = 3.0
    predicted = theirs.predict(scaler.transform(new.double().numpy()))
    assert np.abs(ours.transform(new.double()).numpy() - predicted).max() < 1e-5


@pytest.mark.parametrize("rows", [18, 40, 300])  # at 18 one degree of freedom decides
def test_ridge_takes_the_penalty_of_least_generalised_cross_validation(rows: int) -> None:
    z, zg = Z[:rows].double().numpy(), TURNED[:rows].double().numpy()
    x = np.c_[np.ones(rows), (z - z.mean(0)) / z.std(0)]
    errors = {}
    for penalty in PENALTIES:
        hat = x @ np.linalg.solve(x.T @ x + rows * penalty * np.diag([0.0] + [1.0] * D), x.T)
        errors[penalty] = np.square(zg - hat @ zg).sum() / rows / (1 - np.trace(hat) / rows) ** 2
    best = min(errors, key=lambda penalty: errors[penalty])
    assert RidgeAugmenter().fit(Z[:rows], TURNED[:rows]).penalty_ == best
    assert 1e-7 < best < 100  # so the test can fail


# ---------------------------------------------------------------------- as an augmentation in training


def test_augment_changes_the_rows_that_apply_would(omega: EmbeddingAugmenter) -> None:
    draws = Draws(4, "head", step=2, keys=len(Z))
    apply = Apply("omega", 0.3).bind(omega.transform)
    assert torch.equal(omega.augment(Z, 0.3, draws), apply.apply(Z, apply.draw(draws, 0.0)))
    some = omega.augment(Z, 0.3, torch.Generator().manual_seed(0))
    moved = (some != Z).any(1)
    assert float(moved.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(some[moved], omega.transform(Z)[moved])
    assert torch.equal(omega.augment(Z, 0.0), Z) and torch.equal(omega.augment(Z, 1.0), omega.transform(Z))
    torch.manual_seed(3)
    first = omega.augment(Z)
    torch.manual_seed(3)
    assert torch.equal(first, omega.augment(Z)) and not torch.equal(first, omega.augment(Z))


@pytest.mark.parametrize("kind", ALL)
def test_answers_in_kind(kind: type) -> None:
    fitted = made(kind).fit(Z.numpy(), TURNED)
    for dtype in (torch.float32, torch.float64, torch.float16):
        z = Z.to(dtype)
        kept = z.numpy()
        kept.setflags(write=False)
        assert fitted.transform(z).dtype == dtype and fitted.transform(z).shape == z.shape
        assert isinstance(fitted.transform(kept), np.ndarray) and fitted.transform(kept).dtype == kept.dtype
        assert np.array_equal(fitted.transform(kept), fitted.transform(z).numpy())
        assert np.array_equal(fitted.augment(kept, 0.0), kept)
    learner = Z.clone().requires_grad_()
    assert not fitted.transform(learner).requires_grad and not fitted.augment(learner).requires_grad
    assert fitted.score(Z.numpy(), TURNED.numpy()) == fitted.score(Z, TURNED)


# ---------------------------------------------------------------------- files


def test_a_file_is_the_same_augmenter(omega: EmbeddingAugmenter, tmp_path: Path) -> None:
    path, backbone = tmp_path / "omega.safetensors", nn.Linear(3, D)
    omega.save(path, augmentation="hflip", backbone=backbone)
    read = EmbeddingAugmenter.load(path, backbone=backbone)
    assert torch.equal(read.transform(Z), omega.transform(Z))
    assert (read.augmentation_, read.steps_, read.lr, read.n_features_in_) == ("hflip", omega.steps_, 1.0, D)
    again = tmp_path / "again.safetensors"
    read.save(again)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(AugendError, match="learned on a backbone with the digest"):
        EmbeddingAugmenter.load(path, backbone=nn.Linear(3, D))
    assert read.fit(Z[:100], TURNED[:100]).backbone_ is None  # what was said of other weights is not said of these


def test_a_recipe_takes_the_file(omega: EmbeddingAugmenter, tmp_path: Path) -> None:
    omega.save(tmp_path / "omega.safetensors")
    taken = build(
        Component("omega"), shape=(D,), classes=0, weights=tmp_path / "omega.safetensors", generator_seed=9
    ).eval()
    assert torch.equal(taken(Z)[""], omega.transform(Z))


def _spoilt(kind: str, path: Path) -> None:
    if kind == "missing":
        path.unlink()
    elif kind == "text":
        path.write_text("no weights")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif kind == "flipped":
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(data)
    elif kind == "foreign":
        save_file({"weight": torch.zeros(3)}, path)
    elif kind == "model":
        save_file({"weight": torch.zeros(3)}, path, metadata={"augend": json.dumps({"schema": 1})})
    else:
        from safetensors import safe_open

        with safe_open(path, "pt") as opened:
            metadata = opened.metadata()
        about = json.loads(metadata[KEY])
        about |= {"schema": 2} if kind == "newer" else {"d": 12}
        text = "[1" if kind == "garbled" else json.dumps(about)
        save_file(load_file(path), path, metadata={**metadata, KEY: text})


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "there is no such file"),
        ("text", "cannot be read as safetensors"),
        ("cut", "cannot be read as safetensors"),
        ("flipped", "damaged, its content"),
        ("foreign", "holds no augmentation of embeddings"),
        ("model", "holds no augmentation of embeddings"),
        ("newer", r"written by a newer augend \(schema 2\); update this one"),
        ("garbled", "damaged, its description"),
        ("edited", "damaged, its content"),
    ],
)
def test_a_spoilt_file_is_one_line(kind: str, says: str, omega: EmbeddingAugmenter, tmp_path: Path) -> None:
    path = tmp_path / "omega.safetensors"
    omega.save(path)
    _spoilt(kind, path)
    with pytest.raises(AugendError, match=says) as caught:
        EmbeddingAugmenter.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_saving_needs_something_learned_and_a_folder(omega: EmbeddingAugmenter, tmp_path: Path) -> None:
    with pytest.raises(AugendError, match="save: nothing is learned yet"):
        EmbeddingAugmenter().save(tmp_path / "omega.safetensors")
    with pytest.raises(AugendError, match="cannot be written"):
        omega.save(tmp_path / "nowhere" / "omega.safetensors")


# ---------------------------------------------------------------------- what is refused

HOLED = Z.clone()
HOLED[7, 2] = float("nan")


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ((Z[:0], TURNED[:0]), r"fit: Z is \(0, 16\); give"),
        ((Z[:, :0], TURNED[:, :0]), r"fit: Z is \(3000, 0\); give"),
        ((Z[0], TURNED[0]), r"fit: Z is \(16,\); give"),
        ((HOLED, TURNED), "fit: Z has values that are not finite in 1 of 3000 rows, first in row 7"),
        ((Z, HOLED.numpy()), "fit: Z_aug has values that are not finite"),
        ((Z, TURNED[:-1]), r"fit: Z is \(3000, 16\) and Z_aug \(2999, 16\)"),
        ((Z.long(), TURNED), "fit: Z is of torch.int64; give"),
        ((Z, TURNED.numpy().astype(int)), "fit: Z_aug is of int64; give"),
        ((Z.tolist(), TURNED), "fit: Z is a list; give"),
    ],
)
def test_pairs_that_are_none_are_one_line(kind: type, pair: Any, says: str) -> None:
    with pytest.raises(AugendError, match=f"^{kind.__name__}.{says}") as caught:
        made(kind).fit(*pair)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ALL)
def test_what_does_not_fit_is_one_line(kind: type) -> None:
    with pytest.raises(AugendError, match=r"transform: nothing is learned yet; call fit"):
        made(kind).transform(Z)
    with pytest.raises(AugendError, match=r"score: nothing is learned yet"):
        made(kind).score(Z, TURNED)
    fitted = made(kind).fit(Z, TURNED)
    for call in (fitted.transform, fitted.augment, lambda z: fitted.score(z, z), lambda z: fitted.cosine(z, z)):
        with pytest.raises(AugendError, match="Z has 15 entries a row, fitted were 16; give embeddings of the same"):
            call(Z[:, :15])
        with pytest.raises(AugendError, match="not finite"):
            call(HOLED)
    with pytest.raises(AugendError, match="augment: Draws of 5 rows for 3000 rows"):
        fitted.augment(Z, 0.5, Draws(0, "head", keys=5))
    with pytest.raises(AugendError, match=r"augment: p must be a number from 0 to 1, found 2"):
        fitted.augment(Z, 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hidden": -1}, "hidden must be a number"),
        ({"lr": float("nan")}, "lr must be a number"),
        ({"momentum": 2}, "momentum must be a number from 0 to 1"),
        ({"batch": 0}, "batch must be a number"),
        ({"batch": 2.5}, "batch must be a whole number"),
        ({"epochs": -1}, "epochs must be a number"),
    ],
)
def test_settings_out_of_range_are_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(AugendError, match=f"EmbeddingAugmenter: {says}"):
        EmbeddingAugmenter(**options)


def test_options_of_others() -> None:
    with pytest.raises(AugendError, match="penalty is 0; it is 'gcv' or a number above 0"):
        RidgeAugmenter(0)
    with pytest.raises(AugendError, match="model 'omega': hidden"):
        EmbeddingAugmenter(hidden=0.01).fit(Z, TURNED)
    assert {kind.__name__ for kind in ALL} <= set(augend.__all__)
