"""Mixup and cutmix: torchvision's numbers, targets, parts of a batch, tensors inside a network, what is refused."""

# ruff: noqa: E501
from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

import augend
from augend.augment.chain import Chain
from augend.augment.geometry import HFlip
from augend.augment.grid import grid
from augend.augment.mix import CutMix, MixUp, soft_targets
from augend.contract import AugendError, Augment, Mixing, Pairing, Picks
from augend.data import load
from augend.names import register
from augend.objective.classification import CrossEntropy
from augend.objective.reduce import RowTerm
from augend.randomness import Draws
from augend.recipes import check
from augend.runner.assembly import Scene, build_networks, stage
from augend.runner.banks import fill_banks, worth_caching
from augend.runner.charge import step_cost
from augend.runner.hardware import Hardware
from augend.runner.job import Job, resolve_job
from augend.stages.networks import Networks
from runs import SMALL, Killed, finish, killed_at, same_run, train

ROWS, CLASSES = 12, 5
X = torch.rand(ROWS, 3, 16, 11, generator=torch.Generator().manual_seed(0))
Y = torch.randint(CLASSES, (ROWS,), generator=torch.Generator().manual_seed(1))
DRAWS = Draws(0, "test", 3, ROWS)
PICKED = torch.randperm(200, generator=torch.Generator().manual_seed(2))[:40].view(20, 2)  # of the small digits


def paired(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x.roll(1, 0)


# ------------------------------------------------------------------ the components


@pytest.mark.parametrize("alpha", [0.2, 1.0])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("soft", [False, True])
def test_torchvisions_numbers(seed: int, alpha: float, soft: bool) -> None:
    labels = soft_targets(Y, CLASSES) if soft else Y
    for word in ("MixUp", "CutMix"):
        theirs = getattr(v2, word)(alpha=alpha, num_classes=None if soft else CLASSES)
        torch.manual_seed(seed)
        expected = theirs(X, labels)
        torch.manual_seed(seed)  # what it drew, in its order
        drawn = [float(theirs._dist.sample(())), int(torch.randint(11, (1,))), int(torch.randint(16, (1,)))]
        params = torch.tensor([drawn[0], (drawn[1] + 0.5) / 11, (drawn[2] + 0.5) / 16]).repeat(ROWS, 1)
        ours = getattr(augend, word)(alpha, num_classes=CLASSES)
        images, targets = ours.mix(paired(X), paired(soft_targets(Y, CLASSES)), params)
        assert torch.equal(images, expected[0]) and torch.equal(targets, expected[1])


@pytest.mark.parametrize("make", [MixUp, CutMix])
def test_called_like_torchvision(make: Any) -> None:
    x, y = X.clone(), Y.clone()
    mix = make(0.4, num_classes=CLASSES)
    images, targets = mix(x, y, DRAWS)
    assert torch.equal(x, X) and torch.equal(y, Y)  # never in place
    assert images.shape == X.shape and targets.shape == (ROWS, CLASSES) and targets.dtype == torch.float32
    torch.testing.assert_close(targets.sum(1), torch.ones(ROWS))
    again = mix(x, soft_targets(y, CLASSES), DRAWS)  # soft labels in
    assert torch.equal(again[0], images) and torch.equal(again[1], targets)
    assert not torch.equal(mix(x, y, Draws(0, "test", 4, ROWS))[1], targets)
    torch.manual_seed(5)
    first = mix(x, y)
    torch.manual_seed(5)
    assert torch.equal(mix(x, y)[1], first[1]) and not torch.equal(mix(x, y)[1], first[1])
    wide = mix(x.double(), soft_targets(y, CLASSES).double(), DRAWS)
    assert wide[0].dtype == wide[1].dtype == torch.float64
    assert isinstance(mix, Pairing) and isinstance(mix, Mixing) and not isinstance(mix, Augment)


def test_a_row_is_mixed_with_the_one_before() -> None:
    images, targets = MixUp(1.0, num_classes=CLASSES)(X, Y, DRAWS)
    share = float(DRAWS.rows(torch.tensor([0])).child("lambda").beta(1.0, 1.0))
    torch.testing.assert_close(images, share * X + (1 - share) * X.roll(1, 0))
    hot = soft_targets(Y, CLASSES)
    torch.testing.assert_close(targets, share * hot + (1 - share) * hot.roll(1, 0))


def test_the_area_of_the_box_is_the_partners_share() -> None:
    own, other = torch.zeros(400, 1, 32, 24), torch.ones(400, 1, 32, 24)
    targets = [torch.eye(2)[side].expand(400, 2) for side in (0, 1)]
    cut = CutMix(1.0, per="row")
    draws = Draws(1, "area", keys=400)
    images, mixed = cut.mix((own, other), targets, cut.draw(draws, 0.0))
    torch.testing.assert_close(images.mean((1, 2, 3)), mixed[:, 1])
    assert 0.2 < float(mixed[:, 1].mean()) < 0.4 and float(mixed[:, 1].std()) > 0.1  # less than 1/2: boxes are cut off
    rows, columns = images[:, 0].amax(2).sum(1), images[:, 0].amax(1).sum(1)
    torch.testing.assert_close(rows * columns / (32 * 24), mixed[:, 1])  # it is a box


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lambda_is_beta(alpha: float) -> None:
    rows = MixUp(alpha, per="row").draw(Draws(0, "beta", keys=4000), 0.0)[:, 0]
    assert stats.kstest(rows.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01
    steps = torch.cat([MixUp(alpha).draw(Draws(0, "beta", step, 2), 0.0)[:1, 0] for step in range(1000)])
    assert stats.kstest(steps.double().numpy(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("make", [MixUp, CutMix])
def test_one_lambda_a_batch_or_one_a_row(make: Any) -> None:
    part = torch.tensor([7, 8, 2])
    for per, distinct in (("batch", 1), ("row", ROWS)):
        params = make(1.0, per=per).draw(DRAWS, 0.0)
        assert len(params.unique(dim=0)) == distinct
        assert torch.equal(make(1.0, per=per).draw(DRAWS.rows(part), 0.0), params[part])  # a rank's rows
    hit = torch.stack([make(1.0, p=0.3).draw(Draws(0, "p", step), 0.0)[0, 0] < 1 for step in range(1000)])
    assert 0.25 < float(hit.float().mean()) < 0.35
    images, targets = make(1.0, p=0, num_classes=CLASSES)(X, Y, DRAWS)
    assert torch.equal(images, X) and torch.equal(targets, soft_targets(Y, CLASSES))


def test_half_precision_mixes_in_full() -> None:
    x = X.bfloat16()
    images, _ = MixUp(1.0, num_classes=CLASSES)(x, Y, DRAWS)
    full, _ = MixUp(1.0, num_classes=CLASSES)(x.float(), Y, DRAWS)
    assert images.dtype == torch.bfloat16 and torch.equal(images, full.bfloat16())


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda: MixUp(0.0), "mixup: alpha must be a number of at least 0.001"),
        (lambda: CutMix(1.0, p=2), "cutmix: p must be a number from 0 to 1"),
        (lambda: MixUp(per="picture"), "per must be 'batch' or 'row', found 'picture'"),
        (lambda: MixUp()(X, Y), "num_classes is needed"),
        (lambda: MixUp(num_classes=2)(X, Y), "a label lies outside 0 .. 1"),
        (lambda: MixUp(num_classes=5)(X, Y[:3]), r"12 images need labels \(12,\) or \(12, classes\)"),
        (lambda: MixUp(num_classes=5)(X, Y, Draws(0, "s", 0, 3)), "as many rows of draws"),
        (lambda: MixUp(num_classes=5)((X * 255).byte(), Y), "must be floats, found uint8; divide by 255"),
        (lambda: CutMix(num_classes=5)(X.flatten(1), Y), r"cuts boxes out of maps .* not out of \(12, 528\)"),
    ],
)
def test_mistakes_are_one_line(call: Any, fragment: str) -> None:
    with pytest.raises(AugendError, match=fragment) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_smooths_soft_targets_rightly(smoothing: float) -> None:
    logits = torch.randn(ROWS, CLASSES)
    share = 0.3
    hot = soft_targets(Y, CLASSES)
    term = CrossEntropy(smoothing, reduction="none")
    mixed = term(logits, targets=share * hot + (1 - share) * hot.roll(1, 0))
    torch.testing.assert_close(mixed, share * term(logits, targets=Y) + (1 - share) * term(logits, targets=Y.roll(1)))
    logs = logits.log_softmax(1)
    smooth = (1 - smoothing) * hot + smoothing / CLASSES
    torch.testing.assert_close(term(logits, targets=Y), -(smooth * logs).sum(1))


def test_a_chain_ends_with_it_and_shows_it() -> None:
    chain = Chain([HFlip(), MixUp(1.0)])
    assert chain.pairing is chain.mixing is not None and chain.sources(0.0) == 1 and chain.variants is None
    params = chain.draw(DRAWS, 0.0)
    assert torch.equal(params[:, :1], Chain([HFlip()]).draw(DRAWS, 0.0))  # flips as without mixing
    hot = soft_targets(Y, CLASSES)
    images, targets = chain.mixed(X, hot, params, torch.arange(ROWS).roll(1))
    flipped = HFlip().apply(X, params[:, :1])
    expected = MixUp(1.0).mix(paired(flipped), paired(hot), params[:, 1:])
    assert torch.equal(images, expected[0]) and torch.equal(targets, expected[1])
    pictures = (X * 255).byte()
    page = grid(pictures, Chain([MixUp(1.0)]), Draws(0, "g"), columns=1)
    share = float(Chain([MixUp(1.0)]).draw(Draws(0, "g").child("column 0").rows(torch.arange(2)), 0.0)[0, 0])
    tile = page[:, 2:18, 15:26].float()
    torch.testing.assert_close(tile, share * pictures[0] + (1 - share) * pictures[1].float(), atol=0.51, rtol=0)


# ------------------------------------------------------------------ a step


def scene_of(phase: dict[str, Any], networks: dict[str, Any] | None = None, **more: Any) -> tuple[Scene, Networks]:
    recipe = {"phases": [{"name": "only", **phase}], **({"networks": networks} if networks else {}), **more}
    job = Job(data=SMALL, recipe=recipe, model="small", budget="10step", settings="quick", overrides=("batch=20",))  # type: ignore[arg-type]
    splits = {"main": load(SMALL)}
    plan = resolve_job(job, splits)
    networks_ = build_networks(plan, splits, seed=0)
    return stage(plan.phases[0], networks_, splits, seed=0), networks_


def step_of(scene: Scene, keys: Tensor | None = None) -> tuple[Any, Draws]:
    draws = Draws(0, "only", 2, 20)
    picks = Picks(PICKED[:, : scene.sources(0.0)])
    return scene.batch(picks, draws if keys is None else draws.rows(keys), 0.0), draws


@pytest.mark.parametrize("word", ["mixup", "cutmix"])
@pytest.mark.parametrize("per", ["batch", "row"])
def test_a_batch_is_mixed_with_itself(word: str, per: str) -> None:
    scene, _ = scene_of({"augment": [{"crop": 2}, {word: {"alpha": 1.0, "per": per}}]})
    plain, _ = scene_of({"augment": [{"crop": 2}]})
    batch, draws = step_of(scene)
    alone, _ = step_of(plain)
    assert torch.equal(batch.targets, alone.targets) and torch.equal(batch.ids, alone.ids)
    mix = {"mixup": MixUp, "cutmix": CutMix}[word](1.0, per=per, num_classes=10)
    images, targets = mix(alone.views["x"], alone.targets, draws.child("x").child(f"1:{word}"))
    assert torch.equal(batch.views["x"], images) and torch.equal(batch.soft["x"], targets)
    assert step_cost(scene, batch).pictures(Picks(PICKED[:, : scene.sources(0.0)])) == 20  # rows, fetched once each


def test_a_ranks_part_is_that_part_of_the_whole() -> None:
    scene, _ = scene_of(
        {"augment": {"views": {"a": [{"crop": 2}, {"cutmix": {"alpha": 1.0}}], "b": ["hflip", {"mixup": {"per": "row"}}], "c": [{"crop": 1}]}},
         "objective": {"cross-entropy": {"of": ["net@a", "net@b", "net@c"]}}}
    )  # fmt: skip
    whole, _ = step_of(scene)
    for keys in (torch.arange(0, 7), torch.arange(7, 20), torch.tensor([4]), torch.tensor([9, 3, 12])):
        part, _ = step_of(scene, keys)
        assert part.views.keys() == {"a", "b", "c"} and part.soft.keys() == {"a", "b"}
        for view in part.views:
            assert torch.equal(part.views[view], whole.views[view][keys])
        for view in part.soft:
            assert torch.equal(part.soft[view], whole.soft[view][keys])
        assert torch.equal(part.ids, whole.ids[keys]) and torch.equal(part.targets, whole.targets[keys])
        assert all(torch.equal(part.params[view], whole.params[view][keys]) for view in part.params)


def test_each_view_has_its_own_targets() -> None:
    scene, networks = scene_of(
        {"augment": {"views": {"clean": "none", "mixed": [{"mixup": {"alpha": 1.0}}]}}, "batch": 20}
    )
    batch, _ = step_of(scene)
    out = networks["net"](torch.cat([batch.views["clean"], batch.views["mixed"]]))[""].chunk(2)
    expected = functional.cross_entropy(out[0], batch.targets) + functional.cross_entropy(out[1], batch.soft["mixed"])
    networks.only("net")  # the same statistics again
    torch.testing.assert_close(scene.phase(batch)["cross-entropy"], expected / 2)


@pytest.mark.parametrize("at", ["net.features", "net[:conv3]", "net[:classify]", "net"])
@pytest.mark.parametrize("train_", ["net", "net[classify:]"])
def test_mixing_inside_a_network(at: str, train_: str) -> None:
    scene, networks = scene_of({"augment": [{"crop": 2}, {"mixup": {"alpha": 1.0, "at": at}}], "train": train_})
    batch, draws = step_of(scene)
    key = {"net.features": "features", "net[:classify]": "features", "net[:conv3]": ":conv3", "net": ""}[at]
    assert not batch.soft and batch.views["x"].shape == (20, 1, 28, 28)
    net = networks.stages("net")
    value = net(batch.views["x"], {key})[key]
    address = at.replace("[:classify]", ".features")
    numbers = draws.child("x").child(address).child("0:mixup")
    mixed, targets = MixUp(1.0, num_classes=10)(value, batch.targets, numbers)
    out = mixed if key == "" else net(mixed, {""}, "classify" if key == "features" else key[1:])[""]
    expected = functional.cross_entropy(out, targets)
    networks.only(train_)
    loss = scene.phase(batch)["cross-entropy"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is not None for p in scene.moving.values())
    assert step_cost(scene, batch).flops > 0


def test_a_gradient_flows_back_to_both_rows() -> None:
    scene, networks = scene_of({"augment": [{"mixup": {"alpha": 1.0, "at": "net.features"}}]})
    batch, _ = step_of(scene)
    batch.views["x"].requires_grad_(True)
    networks.eval()  # rows do not meet in batch norm
    net = networks.stages("net")
    whole = scene.phase.tensors(batch)["net@x"]
    (grads,) = torch.autograd.grad(whole[3].sum(), batch.views["x"])
    assert grads.flatten(1).abs().sum(1).nonzero().flatten().tolist() == [2, 3]
    assert net.names[-1] == "classify"


@pytest.mark.parametrize("bank", [True, False])
def test_mixing_above_a_cached_trunk(bank: bool) -> None:
    """A row's features are of its own draw of the bank, its partner's of that row's; nothing is computed below."""
    scene, networks = scene_of(
        {
            "augment": [{"crop": 2} if bank else "hflip", {"mixup": {"alpha": 1.0, "at": "net.features"}}],
            "train": "net[classify:]",
            "cache": {"views": 4} if bank else True,
        }
    )
    plain, _ = scene_of({"augment": [{"crop": 2} if bank else "hflip"], "train": "net[classify:]"})
    routes = worth_caching(scene, 1000)
    assert [route.name for route in routes] == ["net"]
    net = networks.stages("net")
    fill_banks(scene, routes, seed=0, forward=lambda route, x: net(x, route.frozen_wants))
    batch, draws = step_of(scene)
    assert not batch.views and batch.cached["net"]["features"]["x"].shape == (20, 64)
    if not bank:
        seen = net(step_of(plain)[0].views["x"], {"features"})["features"]
        torch.testing.assert_close(batch.cached["net"]["features"]["x"], seen)
    mixed, targets = MixUp(1.0, num_classes=10)(
        batch.cached["net"]["features"]["x"], batch.targets, draws.child("x").child("net.features").child("0:mixup")
    )
    expected = functional.cross_entropy(net(mixed, {""}, "classify")[""], targets)
    torch.testing.assert_close(scene.phase(batch)["cross-entropy"], expected)
    part, _ = step_of(scene, torch.arange(5, 11))
    assert torch.equal(part.cached["net"]["features"]["x"], batch.cached["net"]["features"]["x"][5:11])
    assert torch.equal(part.partners["net.features"]["x"], torch.arange(4, 10))


HEAD = {"net": {"model": "small"}, "head": {"model": {"mlp": [16]}, "input": "net.features"}, "beside": {"model": "linear", "input": "net[:conv2]"}}  # fmt: skip


def test_networks_below_a_mixture_keep_their_targets() -> None:
    """`head` starts where features are mixed, `beside` before: each term has the targets of its own rows."""
    scene, networks = scene_of(
        {"augment": [{"mixup": {"alpha": 1.0, "at": "net.features"}}], "objective": {"cross-entropy": {"of": ["head", "beside"]}}},
        HEAD, result="head",
    )  # fmt: skip
    batch, draws = step_of(scene)
    found = networks.stages("net")(batch.views["x"], {"features", ":conv2"})
    mixed, targets = MixUp(1.0, num_classes=10)(
        found["features"], batch.targets, draws.child("x").child("net.features").child("0:mixup")
    )
    expected = functional.cross_entropy(networks.stages("head")(mixed)[""], targets)
    expected = expected + functional.cross_entropy(networks.stages("beside")(found[":conv2"])[""], batch.targets)
    networks.only("all")
    torch.testing.assert_close(scene.phase(batch)["cross-entropy"], expected)


def test_two_ranks_gather_what_they_mix() -> None:
    """The parts of two ranks, each given the whole by `gather`, lose together what one rank loses."""
    scene, networks = scene_of({"augment": [{"crop": 2}, {"mixup": {"alpha": 1.0, "at": "net.features"}}]})
    whole, _ = step_of(scene)
    scene.phase.networks.eval()
    alone = scene.phase(whole)["cross-entropy"]
    features = networks.stages("net")(whole.views["x"], {"features"})["features"]
    scene.phase.ranks, parts = 2, []
    for keys in (torch.arange(10), torch.arange(10, 20)):
        part, _ = step_of(scene, keys)
        scene.phase.gather = lambda t: features if t.ndim == 2 else whole.targets
        parts.append(scene.phase(part)["cross-entropy"])
    torch.testing.assert_close(sum(parts) / 2, alone)
    assert scene.phase.coupled == ["mixing at net.features"]


def test_bf16_learns_from_soft_targets() -> None:
    scene, _ = scene_of({"augment": [{"mixup": {"alpha": 1.0, "at": "net.features"}}]})
    batch, _ = step_of(scene)
    full = scene.phase(batch)["cross-entropy"]
    with Hardware(precision="bf16-mixed", threads=1).autocast():
        loss = scene.phase(batch)["cross-entropy"]
    loss.backward()
    torch.testing.assert_close(loss.float(), full, rtol=0.02, atol=0.02)


def test_channels_last_stays_so_inside() -> None:
    scene, networks = scene_of({"augment": [{"cutmix": {"alpha": 1.0, "at": "net[:conv3]"}}]})
    networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    scene.channels_last = True
    batch, _ = step_of(scene)
    met: list[Tensor] = []
    networks.stages("net").model.conv3.register_forward_pre_hook(lambda module, given: met.append(given[0]))
    scene.phase(batch)
    assert met[0].shape == (20, 32, 7, 7) and met[0].is_contiguous(memory_format=torch.channels_last)


# ------------------------------------------------------------------ recipes


@register.objective("hard-labels-only")
class _Hard(RowTerm):
    labels = True

    def forward(self, logits: Tensor, *, targets: Tensor | None = None) -> Tensor:
        raise AssertionError("refused before it is called")


@register.augment("two-pictures")
class _Two:
    variants = None

    def sources(self, progress: float) -> int:
        return 2

    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor:
        return draws.uniform(1)

    def mix(self, x: Sequence[Tensor], targets: Sequence[Tensor], params: Tensor) -> tuple[Tensor, Tensor]:
        return (x[0] + x[1]) / 2, (targets[0] + targets[1]) / 2


MIXUP, INSIDE = "{mixup: {alpha: 1.0}}", "{mixup: {alpha: 1.0, at: net.features}}"
REFUSED = {
    "twice in a list": ("augment: [{mixup: {}}, {cutmix: {}}]", "mix pictures only once"),
    "twice at addresses": ("augment: [{mixup: {}}, {mixup: {at: net.features}}]", "view 'x' mixes rows twice"),
    "not last": ("augment: [{mixup: {}}, hflip]", "must be the last augmentation"),
    "triplets": (f"augment: {MIXUP}, objective: {{soft-margin-triplet: {{of: net.features}}}}", "needs one picture a row"),
    "triplets of what is mixed": (f"augment: {INSIDE}, objective: {{cross-entropy: 1, soft-margin-triplet: {{of: net.features}}}}", "rows are mixed at net.features@x"),
    "triplets above": ("augment: {mixup: {at: 'net[:middle]'}}, objective: {cross-entropy: 1, soft-margin-triplet: {of: net.features}}", r"rows are mixed at net\[:middle\]@x"),
    "groups": (f"augment: [rotate, {MIXUP}], order: groups", "groups needs one picture a row"),
    "a bank": (f"augment: [rotate, {MIXUP}], cache: {{views: 8}}", "no cache can hold; mix what is cached, as"),
    "hard labels": (f"augment: {MIXUP}, objective: {{hard-labels-only: {{of: net}}}}", "takes one class a row"),
    "an alpha": ("augment: {mixup: {alpha: 0}}", "alpha must be a number of at least"),
    "an option": ("augment: {mixup: {alhpa: 1}}", "did you mean 'alpha'"),
    "sums inside one of two views": ("augment: {views: {a: {two-pictures: {at: net.features}}, b: none}}", "has several pictures a row as far as net.features"),
    "other mixtures": (f"augment: {{views: {{a: {MIXUP}, b: {MIXUP}}}}}, objective: {{cross-entropy: 1, match: {{of: net@a, to: net@b}}}}", "compares rows that are mixed differently"),
    "mixed and not": (f"augment: {{views: {{a: {MIXUP}, b: none}}}}, objective: {{match: {{of: net@a, to: net@b}}}}", "mixed differently .input@a and nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_mixed_is_refused_by_validate(what: str, tmp_path: Path) -> None:
    phase, fragment = REFUSED[what]
    file = tmp_path / "mine.yaml"
    file.write_text(f"phases:\n- {{name: a, {phase}}}\n")
    with pytest.raises(AugendError, match=fragment) as caught:
        check(file)
    assert "\n" not in str(caught.value) and "phase a" in str(caught.value)


def test_what_can_be_mixed_is_not() -> None:
    views = {"views": {"clean": "none", "mixed": [{"mixup": {"alpha": 1.0}}]}}
    triplet = {"soft-margin-triplet": {"of": "net.features@clean"}, "cross-entropy": 1}
    assert check({"phases": [{"name": "a", "augment": views, "objective": triplet}]}).phases
    peers = {"networks": {"peer": {"model": "$model"}}, "result": ["net", "peer"]}
    mutual = {"cross-entropy": {"of": ["net", "peer"]}, "mutual": {"of": ["net", "peer"]}}
    assert check({**peers, "phases": [{"name": "a", "augment": [{"mixup": {}}], "objective": mutual}]}).phases


@pytest.mark.parametrize(
    ("phase", "fragment"),
    [
        ({"augment": [{"mixup": {"at": "net[:conv1]"}}]}, "is what enters the network; to act on pixels, leave `at` out"),
        ({"augment": [{"mixup": {"at": "net[:nowhere]"}}]}, "has no module 'nowhere'"),
        (
            {"augment": [{"mixup": {"at": "net.features"}}], "objective": {"cross-entropy": {"of": "beside"}}, "train": "beside"},
            "no term sees what is mixed at net.features",
        ),
        (
            {"augment": [{"mixup": {"at": "net[:conv2]"}}], "objective": {"cross-entropy": 1, "soft-margin-triplet": {"of": "net[:conv3]"}}},
            r"soft-margin-triplet needs one picture a row, and rows are mixed at net\[:conv2\]",
        ),
    ],
)  # fmt: skip
def test_what_only_the_network_tells_is_refused_before_a_step(phase: dict[str, Any], fragment: str) -> None:
    with pytest.raises(AugendError, match=fragment):
        scene_of(phase, HEAD)


CACHED = """
phases:
- {name: plain}
- name: head
  augment: [pixels, {mixup: {alpha: 0.2, at: net.features}}]
  cache: {views: 3}
  train: "net[classify:]"
  optimizer: fresh
- {name: upper, train: "net[$split:]", augment: [{crop: 2}, {cutmix: {alpha: 1.0, at: "net[:$split]"}}]}
"""


def test_mixing_inside_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "inside.yaml"
    recipe.write_text(CACHED)
    how = {"budget": "24step", "model": "small", "settings": "quick", "overrides": ("average=0.9", "smoothing=0.1")}
    train(tmp_path / "whole", str(recipe), **how)
    for kill in (8, 11, 19):
        undo = killed_at(kill, monkeypatch)
        with pytest.raises(Killed):
            train(tmp_path / f"killed-{kill}", str(recipe), **how)
        undo()
        finish(tmp_path / f"killed-{kill}")
        same_run(tmp_path / "whole", tmp_path / f"killed-{kill}")
    ledger = json.loads((tmp_path / "whole" / "ledger.json").read_text())
    assert ledger["total"]["pictures"] == ledger["total"]["rows"] == 24 * 64


def test_sums_share_the_mechanism() -> None:
    """Rows of two picked pictures beside a view that is not mixed, which shows the first of them."""
    scene, _ = scene_of(
        {"augment": {"views": {"sum": ["hflip", "two-pictures"], "one": "none", "pair": [{"mixup": {"alpha": 1.0}}]}}}
    )
    assert scene.sources(0.0) == 2
    batch, _ = step_of(scene)
    pixels, labels = scene.pictures.fetch(PICKED)
    assert torch.equal(batch.views["one"], pixels[:, 0].float() / 255) and torch.equal(batch.targets, labels[:, 0])
    own, _ = scene.chains["sum"].split(batch.params["sum"], 2)
    flipped = HFlip().apply(pixels.flatten(0, 1).float() / 255, own).view(20, 2, 1, 28, 28)
    assert torch.equal(batch.views["sum"], flipped.mean(1))
    assert torch.equal(batch.soft["sum"], soft_targets(labels, 10).mean(1))
    assert batch.soft["pair"].shape == (20, 10)
    part, _ = step_of(scene, torch.arange(6, 9))
    assert all(torch.equal(part.views[view], batch.views[view][6:9]) for view in batch.views)


def test_weights_and_copies_go_with_their_rows() -> None:
    scene, _ = scene_of({"augment": "hflip"})
    picks = Picks(PICKED[:, :1], torch.arange(20) % 2, torch.rand(20))
    whole = scene.batch(picks, Draws(0, "only", 0, 20), 0.0)
    part = scene.batch(picks, Draws(0, "only", 0, torch.arange(3, 9)), 0.0)
    assert whole.weight is not None and part.weight is not None and torch.equal(part.weight, whole.weight[3:9])
    assert torch.equal(part.params["x"][:, 0], torch.arange(3, 9) % 2.0)
    assert torch.equal(part.views["x"], whole.views["x"][3:9])
