"""VGG-16 and Inception-v3 for 32 pixels against torchvision's blocks, and what is promised of every network."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg16_bn
from torchvision.models.inception import BasicConv2d, InceptionA, InceptionB, InceptionC, InceptionD, InceptionE

from augend.contract import AugendError, Component
from augend.models import Chain, build, default_split, split_model
from augend.models.inception import inception_v3_cifar
from augend.models.vgg import vgg16_cifar

WORDS = ("vgg16-cifar", "inception-v3-cifar")
WIDTH = {"vgg16-cifar": 512, "inception-v3-cifar": 2048}
SIDE = {"vgg16-cifar": 32, "inception-v3-cifar": 12}  # small, and no stage before the last is down to one place
SMALL = {"vgg16-cifar": {"hidden": 32}, "inception-v3-cifar": {}}  # the same convolutions, and less to compute


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def made(word: str, shape: tuple[int, ...], **options: object) -> Chain:
    net = build(Component(word, SMALL[word] | options), shape=shape, classes=6, generator_seed=0)
    assert isinstance(net, Chain)
    return net


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=WORDS)
def net(request: pytest.FixtureRequest) -> Chain:
    """In eval mode, with scales, shifts and running statistics that differ from channel to channel."""
    word = request.param
    net = made(word, (3, SIDE[word], SIDE[word]))
    torch.manual_seed(0)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
            norm.momentum = 1.0  # the statistics of one batch, so that no layer's numbers fade out
        net.train()(torch.rand(6, 3, SIDE[word], SIDE[word]))
    for norm in norms:
        norm.momentum = 0.1
    return net.eval()


def word_of(net: Chain) -> str:
    return WORDS[net.names[0] == "stem"]


def pictures(net: Chain, rows: int = 2) -> Tensor:
    side = SIDE[word_of(net)]
    return torch.rand(rows, 3, side, side, generator=torch.Generator().manual_seed(1))


def theirs(word: str) -> OrderedDict[str, nn.Module]:
    """The same stages of torchvision's modules; the last two of torch's own."""
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if word == "vgg16-cifar":
        layers, blocks = list(vgg16_bn(weights=None, init_weights=False).features), [[]]
        for layer in layers:
            blocks[-1].append(layer)
            if isinstance(layer, nn.MaxPool2d):
                blocks.append([])
        stages = {f"block{n}": nn.Sequential(*block) for n, block in enumerate(blocks[:-1], 1)}
        head = [nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 6)]
        return OrderedDict(**stages, pool=pool, classify=nn.Sequential(*head))
    stem = [
        BasicConv2d(before, after, kernel_size=kernel, padding=kernel // 2)
        for before, after, kernel in ((3, 32, 3), (32, 32, 3), (32, 64, 3), (64, 80, 1), (80, 192, 3))
    ]
    return OrderedDict(
        stem=nn.Sequential(*stem),
        block1=nn.Sequential(InceptionA(192, 32), InceptionA(256, 64), InceptionA(288, 64)),
        reduce1=InceptionB(288),
        block2=nn.Sequential(*(InceptionC(768, channels_7x7=n) for n in (128, 160, 160, 192))),
        reduce2=InceptionD(768),
        block3=nn.Sequential(InceptionE(1280), InceptionE(2048)),
        pool=pool,
        classify=nn.Linear(2048, 6),
    )


def test_parameters() -> None:
    with torch.device("meta"):  # shapes alone
        vgg = vgg16_cifar(shape=(3, 32, 32), classes=100)
        inception = inception_v3_cifar(shape=(3, 32, 32), classes=100)
        assert count(vgg) == 34_015_396 and count(inception) == 21_990_468
        convolutions = sum(p.numel() for n, p in vgg.named_parameters() if not n.startswith("classify"))
        assert convolutions == 14_723_136 == count(vgg16_bn(weights=None, init_weights=False).features)
        assert count(vgg.classify) == 512 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 100 + 100
        assert count(inception.classify) == 2048 * 100 + 100
        assert sum(isinstance(m, nn.Conv2d) for m in vgg.modules()) == 13
        assert sum(isinstance(m, nn.Conv2d) for m in inception.modules()) == 94
        grey = inception_v3_cifar(shape=(1, 32, 32), classes=100)
        assert count(inception) - count(grey) == 2 * 9 * 32
        x = torch.empty(2, 3, 32, 32)
        shapes = {name: tuple((x := child(x)).shape[1:]) for name, child in inception.named_children()}
    assert shapes == {
        "stem": (192, 32, 32),
        "block1": (288, 32, 32),
        "reduce1": (768, 15, 15),
        "block2": (768, 15, 15),
        "reduce2": (1280, 7, 7),
        "block3": (2048, 7, 7),
        "pool": (2048,),
        "classify": (100,),
    }


def test_the_numbers_are_torchvisions(net: Chain) -> None:
    """Stage by stage, each fed with what the stages before it gave."""
    with torch.device("meta"):
        oracle = theirs(word_of(net))
    assert tuple(oracle) == net.names
    x = pictures(net)
    with torch.no_grad():
        for name, ours in net.model.named_children():
            other = oracle[name].eval()
            assert count(other) == count(ours)
            state = dict(zip(other.state_dict(), ours.state_dict().values(), strict=True))  # the same order of layers
            other.load_state_dict(state, assign=True)
            expected = other(x.clone())
            x = ours(x)
            assert float(expected.std()) > 1e-2 and float((expected[0] - expected[1]).abs().max()) > 1e-3
            torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(net(pictures(net))[""], x)


def test_features_and_every_cut(net: Chain) -> None:
    x = pictures(net)
    width = WIDTH[word_of(net)]
    keys = [f":{stage}" for stage in net.names[1:-1]] + ["features"]
    with torch.no_grad():
        whole = net(x)[""]
        there = net(x, {*keys, ""})
        assert there["features"].shape == (2, width) and whole.shape == (2, 6)
        assert torch.equal(there[""], whole)
        for stage, key in zip(net.names[1:], keys, strict=True):
            assert torch.equal(net(there[key], start=stage)[""], whole)
    owned = [p for name in net.names for p in net.parameters_of(name)]
    assert len(owned) == len({id(p) for p in owned}) == len(list(net.parameters()))
    assert default_split(net) == ("block5" if width == 512 else "block3")


@pytest.mark.parametrize("at", ["auto", "inside"])
def test_a_head_on_its_trunk_is_the_network(net: Chain, at: str) -> None:
    vgg = word_of(net) == "vgg16-cifar"
    stage = default_split(net) if at == "auto" else "block4.conv2" if vgg else "block3.1"
    trunk, head = split_model(net.model, stage)
    with torch.no_grad():
        assert torch.equal(head(trunk(pictures(net))), net.model(pictures(net)))
    assert count(trunk) + count(head) == count(net.model) and count(trunk) > 0


def test_a_cut_inside_a_branch_is_one_line() -> None:
    model = inception_v3_cifar(shape=(3, 32, 32), classes=6)
    with pytest.raises(AugendError, match=r"cannot be cut there.*works") as caught:
        split_model(model, "block3.0.three.1")
    assert "\n" not in str(caught.value)


def test_channels_last_gives_the_same_numbers(net: Chain) -> None:
    x = pictures(net)
    with torch.no_grad():
        plain = net(x, {"features", ""})
        try:
            last = net.to(memory_format=torch.channels_last)(
                x.contiguous(memory_format=torch.channels_last), {"features", ""}
            )
        finally:
            net.to(memory_format=torch.contiguous_format)
    for key in plain:
        error = float((last[key] - plain[key]).norm() / plain[key].norm())
        assert error < 1e-3  # each layer sums in another order: 3e-5 after Inception's 48


@pytest.mark.parametrize("word", WORDS)
def test_a_gradient_reaches_every_weight_of_grey_pictures_of_another_size(word: str) -> None:
    sides = {"vgg16-cifar": (64, 40), "inception-v3-cifar": (13, 11)}[word]
    net = made(word, (1, *sides)).train()
    torch.manual_seed(2)
    out = net(torch.rand(4, 1, *sides), {"features", ""})
    assert out["features"].shape == (4, WIDTH[word])
    nn.functional.cross_entropy(out[""], torch.arange(4)).backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and bool(p.grad.isfinite().all())
        before_norm = word == "vgg16-cifar" and ".conv" in name and name.endswith("bias")
        if not before_norm:  # batch norm takes a bias away again: its gradient is 0 but for rounding
            assert bool(p.grad.ne(0).any()), name


def test_dropout_is_where_it_is_said_to_be() -> None:
    with torch.device("meta"):
        vgg, inception = (
            vgg16_cifar(0.3, 8, shape=(3, 32, 32), classes=6),
            inception_v3_cifar(0.3, shape=(3, 32, 32), classes=6),
        )
        assert [type(m).__name__ for m in vgg.classify] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
        assert [m.p for m in vgg.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]
        assert [m.p for m in inception.modules() if isinstance(m, nn.Dropout)] == [0.3]
        bare = (
            vgg16_cifar(0, 8, shape=(3, 32, 32), classes=6),
            inception_v3_cifar(0, shape=(3, 32, 32), classes=6),
        )
        assert not any(isinstance(m, nn.Dropout) for model in bare for m in model.modules())


def test_smallest_pictures() -> None:
    with torch.device("meta"):
        model = inception_v3_cifar(shape=(3, 7, 7), classes=6).eval()
        assert model(torch.empty(2, 3, 7, 7)).shape == (2, 6)
    for word, shape, message in (
        ("vgg16-cifar", (3, 31, 64), "'vgg16-cifar' takes pictures of 32x32 pixels or more, not 31x64"),
        ("vgg16-cifar", (1, 28, 28), "not 28x28"),
        ("inception-v3-cifar", (3, 32, 6), "'inception-v3-cifar' takes pictures of 7x7 pixels or more, not 32x6"),
        ("vgg16-cifar", (512,), "takes pictures"),
        ("inception-v3-cifar", (2048,), "takes pictures"),
    ):
        with pytest.raises(AugendError, match=message) as caught:
            made(word, shape)
        assert "\n" not in str(caught.value)


def test_mistaken_options_are_one_line() -> None:
    for word, options, message in (
        ("vgg16-cifar", {"hidden": 0}, "hidden 0 is no width"),
        ("vgg16-cifar", {"hiden": 64}, "did you mean 'hidden'"),
        ("vgg16-cifar", {"dropout": 1.5}, "between 0 and 1"),
        ("inception-v3-cifar", {"dropout": -0.1}, "between 0 and 1"),
        ("inception-v3-cifar", {"depth": 48}, "no option 'depth'"),
    ):
        with pytest.raises(AugendError, match=message) as caught:
            made(word, (3, 32, 32), **options)
        assert "\n" not in str(caught.value)


def test_pixels_are_normalised_before_the_first_stage() -> None:
    net = build(
        Component("vgg16-cifar", {"hidden": 8}),
        shape=(3, 32, 32),
        classes=6,
        mean=[0.1, 0.2, 0.3],
        std=[0.4, 0.5, 0.6],
        generator_seed=0,
    ).eval()
    x = torch.rand(1, 3, 32, 32)
    scaled = (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    with torch.no_grad():
        assert torch.equal(net(x)[""], net(scaled, start="block1")[""])
