"""The papers' networks, the builder, and what stages promise."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import augend.names as names
from augend.address import Slice
from augend.contract import AugendError, Component
from augend.models import as_stages, build, default_split
from augend.models.mobilenet import mobilenetv2_cifar
from augend.models.resnet import preresnet, resnet, resnet18_cifar, wide_resnet
from augend.models.small import figure1, figure1_wide, mlp
from augend.models.stages import Chain, Stages


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def made(
    word: str, shape: tuple[int, ...] = (3, 32, 32), classes: int = 10, seed: int = 0, **options: object
) -> Stages:
    return build(Component(word, options), shape=shape, classes=classes, generator_seed=seed)


def test_parameters_as_printed_or_well_known() -> None:
    grey, colour = (1, 28, 28), (3, 32, 32)
    assert count(figure1(shape=grey, classes=10)) == 4074
    assert [count(stage) for stage in figure1(shape=grey, classes=10)] == [40, 296, 1168, 2570]
    wide = figure1_wide(shape=grey, classes=10)
    assert wide.embed[0].in_features == 2560 and wide.embed[2].out_features == 256
    assert count(resnet(32, shape=colour, classes=100)) == 472_756
    assert count(mobilenetv2_cifar(shape=colour, classes=10)) == 2_296_922
    assert count(mobilenetv2_cifar(shape=colour, classes=100)) == 2_412_212
    with torch.device("meta"):
        assert count(wide_resnet(28, 10, shape=colour, classes=10)) == 36_479_194
        assert count(wide_resnet(28, 10, shape=colour, classes=100)) == 36_536_884
    assert count(wide_resnet(40, 4, shape=colour, classes=100)) == 8_972_340
    assert count(preresnet(20, shape=colour, classes=10)) == 272_282
    assert count(preresnet(56, shape=colour, classes=10)) == 590_426
    assert count(resnet18_cifar(shape=colour, classes=10)) == 11_173_962
    assert count(resnet18_cifar(shape=colour, classes=100)) == 11_220_132
    assert count(mlp([1024, 128], shape=(512,), classes=10)) == 512 * 1024 + 1024 + 1024 * 128 + 128 + 128 * 10 + 10


def test_preresnet_has_as_many_weighted_layers_as_its_depth_says() -> None:
    for depth, bottleneck in ((20, False), (56, True), (20, True)):
        model = preresnet(depth, bottleneck, shape=(3, 32, 32), classes=10)
        main = [m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in n]
        assert len(main) == depth
    scaled = preresnet(20, gamma=0.5, shape=(3, 32, 32), classes=10)
    assert all(m.weight.eq(0.5).all() for m in scaled.modules() if isinstance(m, nn.BatchNorm2d))


def test_wide_blocks_by_hand() -> None:
    """A projected shortcut takes what the first norm and ReLU give; any other takes what enters."""
    model = wide_resnet(10, 2, shape=(3, 8, 8), classes=4).eval()
    for stage, x in (("layer1", torch.randn(2, 16, 8, 8)), ("layer2", torch.randn(2, 32, 8, 8))):
        (block,) = model.get_submodule(stage)
        first = block.norms[0](x).relu()
        y = block.convs[1](block.norms[1](block.convs[0](first)).relu())
        torch.testing.assert_close(block(x), y + block.shortcut(first))
    inner = wide_resnet(16, 1, shape=(3, 8, 8), classes=4).eval().layer1[1]
    x = torch.randn(2, 16, 8, 8)
    y = inner.convs[1](inner.norms[1](inner.convs[0](inner.norms[0](x).relu())).relu())
    torch.testing.assert_close(inner(x), x + y)


def test_mobilenet_keeps_the_size_where_the_authors_code_does() -> None:
    model = mobilenetv2_cifar(shape=(3, 32, 32), classes=10).eval()
    x, sides = torch.rand(1, 3, 32, 32), []
    for name, stage in model.named_children():
        x = stage(x)
        sides.append((name, x.shape[-1]) if x.ndim == 4 else (name, None))
    halved = {"block3": 16, "block4": 8, "block6": 4}
    side = 32
    for name, found in sides[:9]:
        side = halved.get(name, side)
        assert found == side, name
    assert sides[-2:] == [("pool", None), ("classify", None)] and x.shape == (1, 10)
    projected = [
        m.shortcut is not None and len(list(m.shortcut.children())) == 2 for m in model.modules() if hasattr(m, "convs")
    ]
    assert sum(projected) == 4  # 32 to 16, 16 to 24, 64 to 96, 160 to 320: where only the width changes


def test_figure1_by_hand() -> None:
    model = figure1(shape=(1, 28, 28), classes=10).eval()
    x = torch.rand(2, 1, 28, 28)
    y = x
    for number in (1, 2, 3):
        conv = model.get_submodule(f"conv{number}.conv")
        y = nn.functional.conv2d(y, conv.weight, conv.bias, padding=1).relu()
        side = (y.shape[-1] + 1) // 2 * 2 - y.shape[-1]  # 7 -> 4: the last pool rounds up
        y = nn.functional.max_pool2d(nn.functional.pad(y, (0, side, 0, side), value=-1.0), 2)
    assert y.shape == (2, 16, 4, 4)
    expected = nn.functional.linear(y.flatten(1), model.classify.fc.weight, model.classify.fc.bias)
    torch.testing.assert_close(model(x), expected)


def test_figure1_features_are_before_dropout() -> None:
    net = made("figure1", (1, 28, 28)).train()
    x = torch.rand(4, 1, 28, 28)
    out = net(x, {"features", ""})
    assert out["features"].shape == (4, 256)
    assert torch.equal(out["features"], net(x, {"features"})["features"])
    assert not torch.equal(out[""], net(x)[""])  # dropout, inside classify
    assert net.names == ("conv1", "conv2", "conv3", "classify")


def test_authors_initialisation() -> None:
    model = made("figure1", (1, 28, 28), init="authors")
    weights = torch.cat([p.flatten() for n, p in model.named_parameters() if n.endswith("weight")])
    assert (
        weights.abs().max() <= 0.02 and 0.0075 < float(weights.detach().std()) < 0.0095
    )  # 0.0088 after the cut at 2 deviations
    assert all(p.eq(0.01).all() for n, p in model.named_parameters() if n.endswith("bias"))


@pytest.mark.parametrize(
    ("word", "shape", "width"),
    [
        ("figure1", (1, 28, 28), 256),
        ("figure1-wide", (1, 28, 28), 256),
        ("small", (3, 40, 40), 64),
        ("resnet", (3, 32, 32), 64),
        ("preresnet", (1, 28, 28), 64),
        ("resnet18-cifar", (3, 8, 8), 512),
        ("linear", (7,), 7),
        ("linear", (3, 4, 4), None),
        ("mlp", (3, 4, 4), 256),
        ("omega", (6,), None),
    ],
)
def test_every_word(word: str, shape: tuple[int, ...], width: int | None) -> None:
    options = {"depth": 8} if word == "resnet" else {}
    net = made(word, shape, classes=6, **options)
    x = torch.rand(3, *shape)
    assert net(x)[""].shape == (3, 6)
    if width is not None:
        assert net(x, {"features"})["features"].shape == (3, width)
    owned = [p for name in net.names for p in net.parameters_of(name)]
    assert {id(p) for p in owned} == {id(p) for p in net.parameters()} and len(owned) == len(list(net.parameters()))
    for first, stage in enumerate(net.names[1:], 1):  # stop and start anywhere, the same bits as in one go
        net.eval()
        key = f":{stage}"
        there = net(x, {key, ""})
        assert set(there) == {key, ""} and net.position(key) == first
        assert torch.equal(net(there[key], start=stage)[""], there[""])
        assert torch.equal(there[""], net(x)[""])
    assert (word == "omega") == ("features" not in net.outputs)


def test_default_splits() -> None:
    expected = {
        "figure1": "conv3",
        "small": "conv3",
        "resnet": "layer3",
        "resnet18-cifar": "layer4",
        "linear": "classify",
    }
    for word, stage in expected.items():
        shape = (3, 32, 32)
        assert default_split(made(word, shape)) == stage
        assert default_split(made(word, shape), shape) == stage


def test_initialisation_is_a_function_of_the_key() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (
        made("figure1", (1, 28, 28), seed=2**63 + 11),
        made("figure1", (1, 28, 28), seed=2**63 + 11),
        made("figure1", (1, 28, 28)),
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


def test_names_of_weights_stay_the_networks_own() -> None:
    net = made("linear", (8,), 3)
    assert list(net.state_dict()) == ["model.classify.weight", "model.classify.bias"]
    scaled = build(Component("small"), shape=(3, 32, 32), classes=3, mean=[0.5] * 3, std=[0.2] * 3, generator_seed=0)
    names_ = list(scaled.state_dict())
    assert names_[:3] == ["mean", "std", "model.conv1.conv.weight"] and len(names_) == len(set(names_))


def test_normalisation_happens_once_and_only_to_pixels() -> None:
    net = build(
        Component("small"), shape=(3, 32, 32), classes=3, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], generator_seed=0
    )
    plain = build(Component("small"), shape=(3, 32, 32), classes=3, generator_seed=0)
    net.eval(), plain.eval()
    x = torch.rand(2, 3, 32, 32)
    by_hand = (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    assert torch.equal(net(x)[""], plain(by_hand)[""])
    assert torch.equal(net(x, {":conv1"})[":conv1"], by_hand)
    assert torch.equal(net(by_hand, start="conv1")[""], plain(by_hand)[""])
    with pytest.raises(AugendError, match="both mean and std"):
        net.normalise([0.5], None)


def test_slices_take_stage_names() -> None:
    net = made("small")
    covered = Slice.parse("net[conv3:]").covers(net.names)
    assert covered == ("conv3", "pool", "classify")
    moving = {id(p) for stage in covered for p in net.parameters_of(stage)}
    assert moving == {id(p) for n, p in net.named_parameters() if ".conv3." in n or ".classify." in n}


def test_only_what_is_wanted_is_computed() -> None:
    net = made("small").eval()
    calls: list[str] = []
    assert isinstance(net, Chain)
    for name, child in net.model.named_children():
        child.register_forward_hook(lambda *_, name=name: calls.append(name))
    x = torch.rand(2, 3, 32, 32)
    net(x, {":conv3"})
    assert calls == ["conv1", "conv2"]
    calls.clear()
    net(net(x, {":conv3"})[":conv3"], {"features"}, start="conv3")
    assert calls == ["conv1", "conv2", "conv3", "pool"]


def test_mistakes_list_what_there_is() -> None:
    net = made("small")
    x = torch.rand(2, 3, 32, 32)
    with pytest.raises(AugendError, match=r"no tensor ':conv9'.*features.*conv1, conv2, conv3, pool, classify"):
        net(x, {":conv9"})
    with pytest.raises(AugendError, match="no tensor 'mean'"):
        net.position("mean")
    with pytest.raises(AugendError, match="comes before stage 'conv3'"):
        net(x, {":conv2"}, start="conv3")
    with pytest.raises(AugendError, match=r"no stage 'conv4'; did you mean 'conv"):
        net.modules_of("conv4")
    with pytest.raises(AugendError, match=r"unknown model 'resnet81'; did you mean"):
        made("resnet81")
    with pytest.raises(AugendError, match=r"no option 'width'; did you mean 'widths'"):
        made("small", width=3)
    with pytest.raises(AugendError, match=r"depth 33.*choose 32 or 38"):
        made("resnet", depth=33)
    with pytest.raises(AugendError, match="takes pictures"):
        made("figure1", (64,))
    with pytest.raises(AugendError, match="takes embeddings"):
        made("omega", (3, 8, 8))
    with pytest.raises(AugendError, match="init 'he'"):
        made("figure1", init="he")
    with pytest.raises(AugendError, match="model 'mlp' with"):
        made("mlp", widths=["wide"])


def test_what_stages_change_in_place_is_not_changed_for_others() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.ReLU(inplace=True), nn.Linear(4, 2))
    net = as_stages(model)
    x = torch.randn(8, 4)
    for _ in range(3):  # the first call finds out, the later ones know
        out = net(x, {":1", ":2", ""})
        assert float(out[":1"].detach().min()) < 0 and float(out[":2"].detach().min()) < 0
        assert torch.equal(out[":2"], model[0](x)) and torch.equal(out[""], model(x))
        entering = out[":2"].detach().clone()
        net(entering, start="2")
        assert torch.equal(entering, out[":2"])
    with torch.inference_mode():
        assert float(net(x, {":2", ""})[":2"].min()) < 0


def test_sequential_children_are_stages_and_the_last_is_classify() -> None:
    net = as_stages(nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3)))
    assert net.names == ("0", "1", "classify") and net.aliases == {"3": "classify"}
    assert net.stage("3") == "classify" and net.position(":3") == net.position("features") == 2
    assert len(net.modules_of("classify")) == 3  # dropout, linear, and the marker of its mode
    deeper = as_stages(
        nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), nn.Linear(4, 2)), ["0.2"]
    )
    assert deeper.names == ("0.0", "0.1", "0.2", "classify")


def test_copies_and_moves_are_whole() -> None:
    net = made("small")
    x = torch.rand(2, 3, 32, 32)
    net.eval()
    wanted = net(x)[""]
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    assert torch.equal(twin(x)[""], wanted) and not torch.equal(net(x)[""], wanted)
    twin.to("meta")
    assert twin(x.to("meta"))[""].shape == (2, 10)
    assert twin.double()(x.double().to("meta"))[""].dtype == torch.float64


class Dropping(nn.Module):
    """A root that drops out in its own forward, as older classifiers do, and branches on its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.fc = nn.Linear(4, 32), nn.Linear(32, 32), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.high(self.low(x).relu())
        x = nn.functional.dropout(x, 0.5, self.training)
        if self.training:
            x = x * 2
        return self.fc(x)


def test_the_roots_own_code_follows_the_mode_of_its_stage() -> None:
    model = Dropping()
    net = as_stages(model, ["high"])
    x = torch.rand(64, 4)
    for mode in (True, False):
        model.train(mode), net.train(mode)
        torch.manual_seed(3)
        expected = model(x)
        torch.manual_seed(3)
        assert torch.equal(net(x)[""], expected)
    net.eval()  # only the low part frozen: the head still drops
    for stage in ("high", "classify"):
        for module in net.modules_of(stage):
            module.train()
    assert not torch.equal(net(x)[""], net(x)[""])
    net.eval()
    for module in net.modules_of("low"):
        module.train()
    assert torch.equal(net(x)[""], net(x)[""])


class Deciding(nn.Module):
    """A forward that cannot be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if x.sum() > 0 else self.fc(-x)


def test_a_network_that_cannot_be_followed_is_one_stage() -> None:
    net = as_stages(Deciding())
    x = -torch.rand(3, 4)
    assert net.names == ("whole",) and torch.equal(net(x)[""], net.get_submodule("model")(x))
    with pytest.raises(AugendError, match="cannot be followed"):
        net(x, {"features"})
    with pytest.raises(AugendError, match="cannot be followed"):
        as_stages(Deciding(), ["fc", "classify"])
    assert as_stages(nn.Sequential(Deciding(), nn.Linear(2, 2))).names == ("0", "classify")  # as a leaf it may decide
    with pytest.raises(AugendError, match="cannot be followed"):
        as_stages(nn.Sequential(Deciding(), nn.Linear(2, 2)), ["0.fc"])


def test_registered_words_and_plain_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names._ADDED, "model", {})

    @names.register.model("my-net")
    def mine(width: int = 3, *, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], width), nn.Linear(width, classes))

    net = made("my-net", (5,), 4, width=7)
    assert net.names == ("0", "1", "classify") and net(torch.rand(2, 5), {"features"})["features"].shape == (2, 7)


def test_compiled_as_eager() -> None:
    net = made("small").eval()
    x = torch.rand(2, 3, 32, 32)
    want = frozenset({":conv3", "features", ""})
    expected = net(x, want)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager")
    got = compiled(x, want)
    assert all(torch.equal(got[key], expected[key]) for key in want)


def test_weights_from_files(tmp_path: Path) -> None:
    folder = tmp_path
    donor = build(Component("small"), shape=(3, 32, 32), classes=7, mean=[0.1] * 3, std=[0.3] * 3, generator_seed=1)
    save_file({f"net.{name}": value for name, value in donor.state_dict().items()}, folder / "ours.safetensors")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{n}": v for n, v in donor.get_submodule("model").state_dict().items()}},
        folder / "theirs.pth",
    )

    def load(name: str, classes: int = 7) -> Stages:
        return build(Component("small"), shape=(3, 32, 32), classes=classes, weights=folder / name, generator_seed=0)

    x = torch.rand(2, 3, 32, 32)
    donor.eval()
    ours = load("ours.safetensors").eval()
    assert torch.equal(ours(x)[""], donor(x)[""]) and ours.notes == ()  # its normalisation came with it
    theirs = load("theirs.pth").eval()
    theirs.normalise([0.1] * 3, [0.3] * 3)
    assert torch.equal(theirs(x)[""], donor(x)[""])
    other = load("theirs.pth", classes=4)
    assert "classifier" in other.notes[0]
    assert torch.equal(other.get_submodule("model.conv3.conv").weight, donor.get_submodule("model.conv3.conv").weight)
    with pytest.raises(
        AugendError, match=r"do not fit Sequential: missing: stem.conv.weight, .* and 44 more; not known here: "
    ):
        build(
            Component("resnet", {"depth": 8}),
            shape=(3, 32, 32),
            classes=7,
            weights=folder / "theirs.pth",
            generator_seed=0,
        )
    (folder / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(AugendError, match=r"broken\.pth: no state dict, or one that holds more"):
        load("broken.pth")
    with pytest.raises(AugendError, match="no such file"):
        load("absent.pth")
    with pytest.raises(AugendError, match="no pretrained weights"):
        build(Component("small"), shape=(3, 32, 32), classes=2, pretrained=True, generator_seed=0)


class Harm:
    def __reduce__(self) -> object:
        return (print, ("unpickled",))


def test_nothing_is_unpickled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "harm.pth"
    torch.save({"weight": Harm()}, path)
    with pytest.raises(AugendError, match="never loaded") as caught:
        build(Component("linear"), shape=(4,), classes=2, weights=path, generator_seed=0)
    assert "weights_only" not in str(caught.value)  # torch's advice, which nobody should follow
    assert "unpickled" not in capsys.readouterr().out
