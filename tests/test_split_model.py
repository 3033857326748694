"""head(trunk(x)) is model(x), bit for bit, wherever a network can be cut; elsewhere the message helps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from augend.contract import AugendError, Component
from augend.models import Chain, as_stages, build, default_split, split_model

FAST = {
    "resnet18": ("layer3", 48),
    "convnext_atto": ("stages.2", 64),
    "vit_tiny_patch16_224": ("blocks.6", 64),
    "mobilenetv3_small_100": ("blocks.3", 48),
    "efficientnet_b0": ("blocks.4", 48),
    "regnetx_002": ("s3", 48),
    "densenet121": ("features.denseblock3", 32),
    "mixer_s32_224": ("blocks.4", 64),
}
SLOW = {
    "resnet50": ("layer4", 64),
    "resnet26d": ("layer3.1", 64),
    "resnext50_32x4d": ("layer3", 64),
    "resnetv2_50": ("stages.2", 64),
    "seresnet18": ("layer3", 64),
    "deit_tiny_patch16_224": ("blocks.9", 64),
    "deit_tiny_distilled_patch16_224": ("blocks.9", 64),
    "swin_tiny_patch4_window7_224": ("layers.2", 224),
    "swinv2_cr_tiny_224": ("stages.2", 224),
    "beitv2_base_patch16_224": ("blocks.6", 32),
    "cait_xxs24_224": ("blocks.12", 64),
    "levit_128s": ("stages.2", 224),
    "edgenext_xx_small": ("stages.2", 64),
    "poolformer_s12": ("stages.2", 64),
    "repvgg_a0": ("stages.2", 64),
    "ghostnet_100": ("blocks.5", 64),
    "vgg11_bn": ("features.15", 64),
    "inception_v3": ("Mixed_6a", 128),
    "xception41": ("blocks.6", 64),
    "convnextv2_atto": ("stages.3", 64),
    "maxvit_tiny_tf_224": ("stages.2", 224),
    "mobilevit_xxs": ("stages.3", 64),
    "mobilenetv2_050": ("blocks.4", 64),
    "mnasnet_small": ("blocks.4", 64),
    "regnety_002": ("s4.b2", 64),
    "tiny_vit_5m_224": ("stages.2", 224),
    "dpn48b": ("features.conv4_1", 64),
    "hardcorenas_a": ("blocks.4", 64),
    "nfnet_l0": ("stages.2", 64),
    "gmlp_s16_224": ("blocks.20", 64),
    "visformer_tiny": ("stage3.1", 224),
    "cspresnet50": ("stages.3", 64),
}
TORCHVISION = {
    "resnet18": ("layer3", 48),
    "vit_b_32": ("encoder.layers.encoder_layer_8", 64),
    "mobilenet_v3_small": ("features.8", 48),
    "vgg11_bn": ("features.15", 32),
    "densenet121": ("features.denseblock3", 48),
    "efficientnet_b0": ("features.5", 48),
    "googlenet": ("inception4a", 64),
    "shufflenet_v2_x0_5": ("stage3", 64),
    "squeezenet1_1": ("features.8", 64),
    "convnext_tiny": ("features.5", 64),
    "swin_t": ("features.5", 64),
}
pytestmark = pytest.mark.filterwarnings("ignore")


def same_bits(model: nn.Module, at: str, x: Tensor) -> None:
    """In both modes, gradients and running statistics included."""
    trunk, head = split_model(model, at)
    both = [id(p) for part in (trunk, head) for p in part.parameters()]
    assert {*both} <= {id(p) for p in model.parameters()}  # shared, not copied
    names = {**trunk.state_dict(), **head.state_dict()}
    assert names.keys() <= model.state_dict().keys()
    for mode in (False, True):
        model.train(mode), trunk.train(mode), head.train(mode)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        results, gradients, states = [], [], []
        for run in (model, lambda x: head(trunk(x))):
            model.load_state_dict(before)
            model.zero_grad()
            torch.manual_seed(11)
            with torch.set_grad_enabled(mode):
                results.append(run(x))
            if mode:
                results[-1].square().sum().backward()
            gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
            states.append({name: value.clone() for name, value in model.state_dict().items()})
        assert torch.equal(*results)
        for one, two in (gradients, states):
            assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
        assert bool(gradients[0]) == mode


def as_chain(word: str, at: str, side: int) -> None:
    """The same network as stages: owned once, the default cut works, features enter classify."""
    net = build(Component(word), shape=(3, side, side), classes=7, cuts=[at], generator_seed=3)
    assert isinstance(net, Chain) and net.names[-1] == "classify" and at in net.names
    owned = [p for name in net.names for p in net.parameters_of(name)]
    assert len(owned) == len({id(p) for p in owned}) == len(list(net.parameters()))
    net.eval()
    x = torch.rand(2, 3, side, side)
    chosen = default_split(net, (3, side, side))
    with torch.no_grad():
        expected = net.model(x)
        for key in (f":{at}", f":{chosen}", "features"):
            out = net(x, {key, ""})
            assert torch.equal(out[""], expected)
            stage = key.removeprefix(":") if key != "features" else "classify"
            assert torch.equal(net(out[key], start=stage)[""], expected)


@pytest.mark.parametrize("word", FAST)
def test_timm(word: str) -> None:
    at, side = FAST[word]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = build(Component(word), shape=(3, side, side), classes=5, generator_seed=0)
    same_bits(net.get_submodule("model"), at, torch.rand(2, 3, side, side))
    as_chain(word, at, side)


@pytest.mark.slow
@pytest.mark.parametrize("word", SLOW)
def test_more_of_timm(word: str) -> None:
    at, side = SLOW[word]
    torch.set_num_threads(1)
    options = {} if word in ("mixer_s32_224", "levit_128s", "repvgg_a0", "vgg11_bn") else {"drop_rate": 0.1}
    net = build(Component(word, options), shape=(3, side, side), classes=5, generator_seed=0)
    same_bits(net.get_submodule("model"), at, torch.rand(2, 3, side, side))
    as_chain(word, at, side)


@pytest.mark.parametrize(
    "word",
    [w if w in ("resnet18", "mobilenet_v3_small") else pytest.param(w, marks=pytest.mark.slow) for w in TORCHVISION],
)
def test_torchvision(word: str) -> None:
    at, side = TORCHVISION[word]
    torch.set_num_threads(1)
    net = build(Component(f"torchvision:{word}"), shape=(3, side, side), classes=5, generator_seed=0)
    same_bits(net.get_submodule("model"), at, torch.rand(2, 3, side, side))
    as_chain(f"torchvision:{word}", at, side)


def test_default_splits_of_known_networks() -> None:
    expected = {
        "resnet18": "layer4",
        "convnext_atto": "stages.3",
        "vit_tiny_patch16_224": "blocks.8",
        "densenet121": "features.denseblock4",
        "regnetx_002": "s4",
    }
    for word, stage in expected.items():
        assert default_split(build(Component(word), shape=(3, 32, 32), classes=2, generator_seed=0)) == stage


def test_dropout_and_batch_norm_of_a_sequential() -> None:
    inner = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.ReLU(inplace=True))
    model = nn.Sequential(nn.Linear(4, 6), inner, nn.Linear(6, 3))
    for at in ("1", "1.1", "1.2", "1.3", "2"):
        same_bits(model, at, torch.rand(8, 4))


class Skip(nn.Module):
    """The output of `a` passes `b` by, so a cut at `c` would need two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        low = self.a(x)
        return self.d(self.c(self.b(low)) + low)


def test_a_tensor_that_passes_the_cut_is_named_with_a_cut_that_works() -> None:
    with pytest.raises(
        AugendError, match=r"split at 'c': Skip cannot be cut there.*output of b.*output of a; '[bd]' works"
    ):
        split_model(Skip(), "c")
    same_bits(Skip(), "b", torch.rand(3, 4))
    same_bits(Skip(), "d", torch.rand(3, 4))


class Sizes(nn.Module):
    """Uses its batch size, a parameter and a buffer of its own on both sides of a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = nn.Linear(4, 6), nn.Linear(6, 3)
        self.token = nn.Parameter(torch.rand(1, 6))
        self.register_buffer("scale", torch.rand(6), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, _ = x.shape
        tokens = self.token.expand(rows, -1)
        y = self.low(x.reshape(rows, 4)) * self.scale + tokens
        return self.high(y + tokens * self.scale).reshape(rows, 3)


def test_batch_sizes_parameters_and_buffers_are_had_again() -> None:
    model = Sizes()
    same_bits(model, "high", torch.rand(5, 4))
    trunk, head = split_model(model, "low")
    assert torch.equal(head(trunk(torch.ones(2, 4))), model(torch.ones(2, 4)))
    assert torch.equal(head(trunk(torch.ones(7, 4))), model(torch.ones(7, 4)))  # not the batch size it was made with
    assert set(head.state_dict()) == set(model.state_dict())


def test_unknown_names_and_networks_that_decide() -> None:
    import timm

    model = timm.create_model("resnet18")
    with pytest.raises(AugendError, match=r"no module 'layer33'; did you mean 'layer3'"):
        split_model(model, "layer33")
    with pytest.raises(AugendError, match=r"no module 'backbone' \(its modules: conv1, bn1"):
        split_model(model, "backbone")
    with pytest.raises(
        AugendError, match=r"split at 'layer3.0.conv2': .* uses the output of layer2; 'layer3.0.act2' works"
    ):
        split_model(model, "layer3.0.conv2")
    same_bits(model, "layer3.0.act2", torch.rand(2, 3, 32, 32))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x + 1


class Sum(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0] + pair[1]


def test_a_pair_between_stages_is_no_tensor() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Pair(), Sum(), nn.Linear(4, 2))
    net = as_stages(model)
    x = torch.rand(3, 4)
    assert torch.equal(net(x, {"", ":1"})[""], model(x))
    with pytest.raises(AugendError, match="tensor ':2' is tuple of several, not one tensor"):
        net(x, {":2"})
    assert default_split(net, (4,)) == "classify"


@pytest.mark.slow
def test_networks_of_several_streams_are_refused_where_they_cross() -> None:
    import timm

    hrnet = timm.create_model("hrnet_w18_small")
    with pytest.raises(AugendError, match=r"split at 'stage3': .*several tensors enter it; 'transition1.0' works"):
        split_model(hrnet, "stage3")
    with pytest.raises(AugendError, match=r"what follows uses the output of stage3.0.branches.1"):
        split_model(hrnet, "stage3.0.fuse_layers.0")
    assert default_split(as_stages(hrnet), (3, 64, 64)) == "final_layer"
    with pytest.raises(AugendError, match=r"'cls_attn_blocks\.0' works"):  # its blocks are told height and width
        split_model(timm.create_model("xcit_nano_12_p16_224"), "blocks.6")


def test_modes_and_hooks_of_leaves_are_kept() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)))
    model[0].eval()
    split_model(model, "1.1")
    assert not model[0].training and model.training and model[1][0].training
    trunk, _ = split_model(model, "1.1")
    before = model[0].running_mean.clone()
    trunk(torch.rand(4, 4))
    assert torch.equal(model[0].running_mean, before)
