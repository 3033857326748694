"""The denoising VAE, its bound against a float64 reference, principal components, and what the runner makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from augend import AugendError, Bernoulli, DenoisingVAE, Gaussian, GaussianKL
from augend.address import Address
from augend.evaluate.export import export_model
from augend.evaluate.load import load
from augend.models.vae import PrincipalComponents, latent_head
from augend.recipes import check, dump
from augend.runner.assembly import build_networks, stage
from augend.runner.banks import worth_caching
from augend.runner.job import Job, resolve_job
from augend.stages.networks import Networks
from augend.stages.pca import Pca
from inprocess import run as command
from runs import SMALL, required, splits_of, train


def _authors(latent: int) -> nn.Module:
    """The published network for 64 x 64 pictures, written out: for its sizes."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 128), (128, 256), (256, 512)):
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    heads = [nn.Linear(2048, latent), nn.Linear(2048, latent), nn.Linear(latent, 2048)]
    for before, after in ((512, 256), (256, 128), (128, 64), (64, 32), (32, 32)):
        layers += [nn.ConvTranspose2d(before, after, 3, 2, 1, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, *heads, nn.Conv2d(32, 3, 3, padding=1))


def test_the_papers_sizes() -> None:
    ours = DenoisingVAE(128, shape=(3, 64, 64))
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in _authors(128).parameters())
    assert ours.encoder(torch.rand(2, 3, 64, 64)).shape == (2, 512, 2, 2)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 45, 64), (1, 33, 17)])
def test_pictures_of_any_size_come_back(shape: tuple[int, ...]) -> None:
    vae = DenoisingVAE(8, widths=(4, 8, 8, 8, 8), shape=shape)
    x = torch.rand(2, *shape)
    out = vae(x, {"", "mean", "logvar", "sample", "logits", "picture"})
    assert out["picture"].shape == out["logits"].shape == x.shape and out["mean"].shape == (2, 8)
    assert torch.equal(out["picture"], out["logits"].sigmoid()) and torch.equal(out[""], out["picture"])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 64, 64), (1, 20, 33), (1, 17, 40), (1, 16, 30)])
def test_blocks_are_convolutions_whatever_their_size(shape: tuple[int, ...], last: bool) -> None:
    ours = DenoisingVAE(8, widths=(4, 8, 8, 6, 5), shape=shape).double()
    if last:
        ours = ours.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torchs = DenoisingVAE(8, widths=(4, 8, 8, 6, 5), shape=shape).double()
    torchs.load_state_dict(ours.state_dict())
    for block in (*torchs.encoder, *torchs.decoder):
        conv = getattr(block, "conv", None)
        if conv is not None:
            conv.__class__ = nn.ConvTranspose2d if isinstance(conv, nn.ConvTranspose2d) else nn.Conv2d
    x = torch.rand(6, *shape, dtype=torch.float64)
    found = []
    for vae in (ours, torchs):
        torch.manual_seed(0)
        out = vae(x, {"logits", "mean", "logvar"})
        (out["logits"].square().sum() + out["mean"].sum() + out["logvar"].exp().sum()).backward()
        found.append([*out.values(), *(p.grad for p in vae.parameters())])
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-9)


def test_the_mean_is_the_mean_and_the_variance_the_variance() -> None:
    """Samples of many draws have the heads' moments: exchange the heads, as the published classifier did, and this fails."""
    torch.manual_seed(0)
    vae = DenoisingVAE(3, widths=(4, 4, 4, 4, 4), shape=(1, 32, 32)).eval()
    with torch.no_grad():
        vae.mean_head.bias.copy_(torch.tensor([5.0, -3.0, 0.0]))
        vae.logvar_head.bias.copy_(torch.tensor([-2.0, 0.0, 1.0]))
        mean, logvar = vae.encode(torch.rand(1, 1, 32, 32).expand(20000, -1, -1, -1))
        z = vae.sample(mean, logvar)
    torch.testing.assert_close(z.mean(0), mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(z.var(0), logvar[0].exp(), rtol=0.05, atol=0)
    assert (z.mean(0) - torch.tensor([5.0, -3.0, 0.0])).abs().max() < 1  # the biases dominate: the right head was asked
    with torch.no_grad():
        named = vae(torch.rand(4, 1, 32, 32), {"mean", "logvar"})
    assert (named["mean"][:, 0] > 3).all() and (named["logvar"][:, 0] < -1).all()


def test_the_decoder_sees_samples_only_while_it_learns() -> None:
    torch.manual_seed(0)
    vae, x = DenoisingVAE(4, widths=(4, 4, 4, 4, 4), shape=(1, 32, 32)), torch.rand(3, 1, 32, 32)
    vae.eval()
    assert torch.equal(vae(x)[""], vae.reconstruct(x)) and torch.equal(vae(x)[""], vae(x)[""])
    vae.decoder.train()
    assert not torch.equal(vae(x)[""], vae(x)[""])
    assert not torch.equal(vae(x, {"sample"})["sample"], vae(x, {"sample"})["sample"])


def test_the_slip_of_the_published_code_has_a_name() -> None:
    torch.manual_seed(0)
    vae, x = DenoisingVAE(4, widths=(4, 4, 4, 4, 4), authors=True, shape=(1, 32, 32)).eval(), torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        vae.unused_weight.zero_()
        vae.unused_bias.fill_(-40.0)  # no noise left
        torch.testing.assert_close(vae(x, {"slipped"})["slipped"], vae(x, {"logvar"})["logvar"])
    with pytest.raises(AugendError, match="there is no tensor 'slipped'"):
        DenoisingVAE(4, shape=(1, 32, 32))(x, {"slipped"})


def test_norms_alone_can_learn_their_statistics() -> None:
    vae = DenoisingVAE(4, widths=(4, 4), shape=(1, 32, 32))
    networks = Networks({"vae": vae}, {"vae": None})
    assert networks.only("vae[norms]") == {} and vae.encoder.block1.norm.training
    assert not vae.encoder.block1.conv.training and networks.first_moving("vae") is None
    moving = networks.only(["vae[encode]", "vae[mean]"])
    assert {name.split(".")[1] for name in moving} == {"encoder", "mean_head"}
    whole = networks.only("vae")
    assert len(whole) == len(dict(vae.named_parameters()))


def test_latents_that_hardly_differ_are_no_handicap() -> None:
    """Those of a random encoder: about one number, 1e-4 apart. In evaluation as in training, after few steps."""
    torch.manual_seed(0)
    labels = torch.arange(200) % 2
    z = 0.03 + 2e-4 * torch.randn(200, 8)
    z[:, 0] += 3e-4 * labels
    spread, right = {}, {}
    for standardise in (False, True):
        torch.manual_seed(1)
        head = latent_head(standardise=standardise, shape=(8,), classes=2)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
        for _ in range(20):
            torch.nn.functional.cross_entropy(head(z), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        head.eval()
        with torch.no_grad():
            spread[standardise] = float(head.get_submodule("hidden")[:-1](z).std(0).mean())
            right[standardise] = float((head(z).argmax(1) == labels).float().mean())
    assert spread[False] < 0.2 and 0.5 < spread[True] < 2
    assert right[True] > 0.75 and right[True] > right[False] + 0.1
    assert not list(head.get_submodule("hidden.standard").parameters())  # nothing more is learned
    with torch.no_grad():
        assert head(torch.full((3, 8), 0.03)).isfinite().all()


@pytest.mark.parametrize(
    ("recipe", "standardised"),
    [("random-encoder", True), ("pca-then-classify", False), ("supervised-encoder", False)],
)
def test_the_encoder_that_learned_nothing_is_no_straw_man(recipe: str, standardised: bool) -> None:
    networks = build_networks(*_planned(recipe), 0)
    assert ("net.model.hidden.standard.running_var" in networks.state_dict()) is standardised


# ------------------------------------------------------------------ the bound


def _bound(x: Tensor, logits: Tensor, mean: Tensor, logvar: Tensor) -> tuple[float, float, float]:
    """Both parts by their definitions, float64, without torch's own losses: Bernoulli, Gaussian (0.5), KL; per picture."""
    x, logits, mean, logvar = (part.double() for part in (x, logits, mean, logvar))
    p = 1 / (1 + torch.exp(-logits))
    bernoulli = -(x * torch.log(p) + (1 - x) * torch.log(1 - p)).sum((1, 2, 3)).mean()
    normal = torch.distributions.Normal(p, 0.5)
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    latent = torch.distributions.Normal(mean, torch.exp(0.5 * logvar))
    kl = torch.distributions.kl_divergence(latent, prior).sum(1).mean()
    return float(bernoulli), float(-normal.log_prob(x).sum((1, 2, 3)).mean()), float(kl)


def test_the_terms_are_those_of_the_bound() -> None:
    torch.manual_seed(1)
    x, logits = torch.rand(5, 3, 8, 8), 3 * torch.randn(5, 3, 8, 8)
    mean, logvar = torch.randn(5, 7), torch.randn(5, 7)
    bernoulli, gaussian, kl = _bound(x, logits, mean, logvar)
    assert float(Bernoulli()(logits, x)) == pytest.approx(bernoulli, rel=1e-5)
    assert float(Gaussian(0.5)(logits.sigmoid(), x)) == pytest.approx(gaussian, rel=1e-5)
    assert float(GaussianKL()(mean, logvar)) == pytest.approx(kl, rel=1e-5)
    for term, tensors in ((Bernoulli, (logits, x)), (Gaussian, (logits, x)), (GaussianKL, (mean, logvar))):
        rows = term(reduction="none")(*tensors)
        assert rows.shape == (5,) and float(rows.mean()) == pytest.approx(float(term()(*tensors)), rel=1e-6)
    assert float(GaussianKL()(torch.zeros(2, 3), torch.zeros(2, 3))) == 0


def test_gradients_of_the_bound() -> None:
    logits = torch.randn(2, 1, 3, 3, dtype=torch.float32, requires_grad=True)
    x = torch.rand(2, 1, 3, 3, requires_grad=True)
    Bernoulli()(logits, x).backward()
    torch.testing.assert_close(logits.grad, (logits.detach().sigmoid() - x.detach()) / 2)
    assert x.grad is None  # what is aimed at stays
    mean, logvar = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    GaussianKL()(mean, logvar).backward()
    torch.testing.assert_close(mean.grad, mean.detach() / 3)
    torch.testing.assert_close(logvar.grad, (logvar.detach().exp() - 1) / 6)


def test_large_logits_and_low_precision_do_not_overflow() -> None:
    logits = torch.tensor([[60.0, -60.0]], dtype=torch.bfloat16)
    assert float(Bernoulli()(logits, torch.tensor([[1.0, 0.0]]))) == pytest.approx(0.0, abs=1e-6)
    assert float(Bernoulli()(logits, torch.tensor([[0.0, 1.0]]))) == pytest.approx(120.0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Gaussian(0), "sigma is 0; allowed: above 0"),
        (lambda: Bernoulli()(torch.zeros(2, 3), torch.zeros(2, 4)), r"bernoulli: shapes \(2, 3\) and \(2, 4\) differ"),
        (lambda: GaussianKL()(torch.zeros(2, 3), torch.zeros(2, 4)), "gaussian-kl: shapes"),
        (lambda: DenoisingVAE(0, shape=(3, 32, 32)), "latent 0"),
        (lambda: DenoisingVAE(8, shape=(64,)), "takes pictures"),
        (lambda: PrincipalComponents(100, shape=(1, 8, 8)), "allowed: 1 to 64"),
        (lambda: Pca().fit(torch.rand(5, 8), 6), "6 components of 5 pictures"),
    ],
)
def test_what_cannot_be_is_said(make: Any, says: str) -> None:
    with pytest.raises(AugendError, match=says):
        make()


# ------------------------------------------------------------------ principal components


def test_components_are_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    rows = torch.randn(300, 40, generator=torch.Generator().manual_seed(0)) * torch.logspace(1, -2, 40)
    found, oracle = Pca().fit(rows, 5), PCA(5, svd_solver="full").fit(rows.numpy())
    ours = (rows @ found.coef_.T + found.intercept_).numpy()
    theirs = oracle.transform(rows.numpy())
    signs = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours * signs, theirs, atol=0.02)
    assert found.loss_ == pytest.approx(1 - oracle.explained_variance_ratio_.sum(), abs=1e-3)


def test_a_phase_solves_for_components(tmp_path: Path) -> None:
    train(tmp_path / "run", "pca-then-classify", settings="quick", budget="10step", overrides=("latent=20",))
    model = load(tmp_path / "run")
    pictures = splits_of(Job(data=SMALL, recipe="plain"))["main"].train.pixels[:].float() / 255
    with torch.no_grad():
        mean = model.networks.tensor(Address("vae", "mean"), pictures)
        back = model.networks.tensor(Address("vae", "picture"), pictures)
    assert mean.mean(0).abs().max() < 1e-3  # centred on what it was fitted on
    assert torch.all(mean.var(0)[:-1] >= mean.var(0)[1:] - 1e-4)  # the largest first
    middle = pictures.mean(0, keepdim=True)
    assert float((back - pictures).square().mean()) < 0.3 * float((middle - pictures).square().mean())


# ------------------------------------------------------------------ in the runner


def test_a_denoiser_is_scored_on_held_out_pictures_and_shown(tmp_path: Path) -> None:
    network = {"vae": {"model": {"denoising-vae": {"latent": 16, "widths": [8, 16, 16]}}}}
    for name in ("denoise-then-classify", "vae-then-classify"):
        (tmp_path / f"{name}.yaml").write_text(dump({"like": name, "networks": network}))
    result = train(tmp_path / "run", str(tmp_path / "denoise-then-classify.yaml"), settings="quick", budget="140step")
    scored = result["augmenters"]["vae"]
    assert scored["pictures"] == 40 and 0 < scored["moved"] < 1 and scored["score"] < 1
    assert scored["score"] == pytest.approx(1 - scored["squared"] / scored["moved"])
    with Image.open(tmp_path / "run" / "grids" / "denoise-undone.png") as image:
        assert image.size == (7 * (28 + 2) + 2, 4 * (28 + 2) + 2)
    plain = train(tmp_path / "plain", str(tmp_path / "vae-then-classify.yaml"), settings="quick", budget="20step")
    assert plain["augmenters"]["vae"]["score"] is None and plain["augmenters"]["vae"]["moved"] == 0


def test_a_sampled_latent_is_drawn_anew_and_never_kept(tmp_path: Path) -> None:
    for recipe, cached in (("denoise-then-classify", True), ("sampled-latent", False)):
        job = Job(data=SMALL, recipe=recipe, settings="quick", budget="700step")
        splits = splits_of(job)
        plan = resolve_job(job, splits)
        scene = stage(plan.phases[1], build_networks(plan, splits, 0), splits, seed=0)
        assert bool(worth_caching(scene, 500)) is cached


@pytest.mark.parametrize("part", ["encode", "mean", "logvar", "decode"])
def test_each_part_may_move_alone(part: str, tmp_path: Path) -> None:
    """What its docs name as slices; the frozen parts keep their weights."""
    terms = {
        "bernoulli": {"of": "vae.logits", "to": "input"},
        "gaussian-kl": {"of": ["vae.mean", "vae.logvar"], "weight": 0.1},
    }
    vae = {"model": {"denoising-vae": {"latent": 4, "widths": [8, 8]}}}
    phases = [
        {"name": "part", "train": f"vae[{part}]", "objective": terms, "until": "3step"},
        {"name": "rest", "train": "net", "until": "1step", "optimizer": "fresh"},
    ]
    (tmp_path / "mine.yaml").write_text(
        dump({"networks": {"vae": vae, "net": {"model": "linear", "input": "vae.mean"}}, "phases": phases})
    )
    train(tmp_path / "run", str(tmp_path / "mine.yaml"), settings="quick", budget="4step")
    before = build_networks(*_planned(str(tmp_path / "mine.yaml")), 0).stages("vae").state_dict()
    after = load(tmp_path / "run").networks.stages("vae").state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    own = {"encode": {"encoder"}, "mean": {"mean_head"}, "logvar": {"logvar_head"}, "decode": {"decoder", "widen"}}
    assert {name.split(".")[0] for name in moved} == own[part]


def _planned(recipe: str) -> tuple[Any, Any]:
    job = Job(data=SMALL, recipe=recipe, settings="quick", budget="4step")
    splits = splits_of(job)
    return resolve_job(job, splits), splits


def test_only_principal_components_are_fitted_as_such(tmp_path: Path) -> None:
    phases = [{"name": "only", "train": "net[classify:]", "fit": "pca"}]
    (tmp_path / "mine.yaml").write_text(dump({"networks": {"net": {"model": "small"}}, "phases": phases}))
    with pytest.raises(AugendError, match="network 'net' is none of them; give it the model pca"):
        train(tmp_path / "run", str(tmp_path / "mine.yaml"), settings="quick", budget="4step")


@pytest.mark.parametrize(
    ("recipe", "words", "says"),
    [
        (
            "pca-then-classify",
            [],
            "phase 'pca': 128 principal components need as many pictures, and there are 60; ask for",
        ),
        (
            "denoise-then-classify",
            ["batch=1"],
            "batches of one picture leave batch norm no mean to take; take batches of 2",
        ),
        ("denoise-then-classify", ["widths=[4,8,'x']"], "widths: found [4, 8, 'x']; allowed: a list of whole numbers"),
        ("denoise-then-classify", ["widths=9"], "widths: found 9; allowed: a list of whole numbers"),
    ],
)
def test_what_cannot_be_trained_is_one_line(recipe: str, words: list[str], says: str, tmp_path: Path) -> None:
    small = ["--budget", "4step", "--settings", "quick", "--out", str(tmp_path / "run")]
    sets = [text for word in words for text in ("--set", word)]
    done = command("train", "digits:train=60,valid=20,test=20", "--recipe", recipe, *small, *sets)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and says in done.stderr
    assert not (tmp_path / "run" / "plan.json").exists()


@pytest.mark.parametrize("of", [["vae.mean"], ["vae.mean", "vae.logvar", "vae.sample"]])
def test_the_divergence_takes_two_tensors(of: list[str]) -> None:
    terms = {"gaussian-kl": {"of": of}, "bernoulli": {"of": "vae.logits", "to": "input"}}
    recipe = {
        "networks": {"vae": {"model": "denoising-vae"}, "net": {"model": "linear", "input": "vae.mean"}},
        "phases": [{"name": "only", "train": "vae", "objective": terms}],
    }
    with pytest.raises(AugendError, match=r"takes 2 tensors \(mean, logvar\)|give it a second"):
        check(recipe, "quick", budget="4step")


def test_a_model_that_draws_is_not_exported(tmp_path: Path) -> None:
    train(tmp_path / "run", "sampled-latent", settings="quick", budget="8step", params=required("sampled-latent"))
    with pytest.raises(AugendError, match="draws for every answer"):
        export_model(load(tmp_path / "run"), tmp_path / "m.safetensors", torch.rand(4, 1, 28, 28))
    assert not (tmp_path / "m.safetensors").exists()


def test_the_trained_encoder_is_in_the_model_file(tmp_path: Path) -> None:
    train(tmp_path / "run", "denoise-then-classify", settings="quick", budget="12step")
    model = load(tmp_path / "run")
    x = torch.rand(3, 1, 28, 28)
    vae = model.networks.stages("vae")
    with torch.no_grad():
        mean = vae(x, {"mean"})["mean"]
        assert torch.equal(model(x), model.networks.stages("net")(mean)[""].float())
