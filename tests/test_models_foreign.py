"""Networks of timm and torchvision by name: options, input shapes, weights and their normalisation, no network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from augend.contract import AugendError, Component
from augend.models import Stages, build

pytestmark = pytest.mark.filterwarnings("ignore")


def made(word: str, shape: tuple[int, ...] = (3, 32, 32), classes: int = 5, **more: object) -> Stages:
    options = more.pop("options", {})
    assert isinstance(options, dict)
    return build(Component(word, options), shape=shape, classes=classes, generator_seed=7, **more)  # type: ignore[arg-type]


def test_timm_is_the_network_itself_at_the_size_and_channels_of_the_data() -> None:
    import timm

    net = made("vit_tiny_patch16_224", (1, 32, 48)).eval()
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(7)
        own = timm.create_model("vit_tiny_patch16_224", num_classes=5, in_chans=1, img_size=(32, 48)).eval()
    x = torch.rand(2, 1, 32, 48)
    assert torch.equal(net(x)[""], own(x))
    features = own.forward_head(own.forward_features(x), pre_logits=True)
    assert torch.equal(net(x, {"features"})["features"], features)
    assert made("resnet18", (1, 28, 28))(torch.rand(2, 1, 28, 28))[""].shape == (2, 5)  # takes no img_size
    dropping = made("resnet18", options={"drop_rate": 0.5})
    y = torch.rand(4, 3, 32, 32)
    dropping.eval()
    for module in dropping.modules_of("classify"):
        module.train()
    out = dropping(y, {"features", ""})
    assert not torch.equal(out[""], dropping(y)[""]) and torch.equal(
        out["features"], dropping(y, {"features"})["features"]
    )


def test_torchvision_is_the_network_itself() -> None:
    from torchvision.models import mobilenet_v3_small

    net = made("torchvision:mobilenet_v3_small").eval()
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(7)
        own = mobilenet_v3_small(num_classes=5).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(net(x)[""], own(x))
    assert net.names[-2:] == ("classifier.1", "classify") and net.aliases == {"classifier.3": "classify"}
    assert net(x, {"features"})["features"].shape == (2, 1024)
    assert made("torchvision:vit_b_32", (3, 64, 64))(torch.rand(1, 3, 64, 64))[""].shape == (1, 5)


def test_mistakes() -> None:
    with pytest.raises(AugendError, match=r"unknown model 'convnext_ato'; did you mean 'convnext_atto'"):
        made("convnext_ato")
    with pytest.raises(AugendError, match=r"unknown model 'torchvision:resnet19'; did you mean 'resnet1"):
        made("torchvision:resnet19")
    with pytest.raises(AugendError, match=r"model 'resnet18' .*drop_rat"):
        made("resnet18", options={"drop_rat": 0.1})
    with pytest.raises(AugendError, match="drop_rat"):
        made("torchvision:resnet18", options={"drop_rat": 0.1})
    with pytest.raises(AugendError, match="takes 3 channels, the data have 1"):
        made("torchvision:resnet18", (1, 28, 28))
    with pytest.raises(AugendError, match="takes pictures"):
        made("resnet18", (64,))
    with pytest.raises(AugendError, match=r"no module 'layer5'; did you mean 'layer"):
        made("resnet18", cuts=["layer5"])


def test_weights_of_a_file_bring_their_normalisation_and_other_sizes(tmp_path: Path) -> None:
    import timm

    donor = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=11)
    torch.save(donor.state_dict(), tmp_path / "vit.pth")
    net = made("vit_tiny_patch16_224", weights=tmp_path / "vit.pth", mean=[0.1] * 3, std=[0.2] * 3)
    assert net.mean is not None and net.mean.flatten().tolist() == [0.5] * 3  # timm's for these networks
    assert torch.equal(net.get_submodule("model.blocks.3.mlp.fc1").weight, donor.blocks[3].mlp.fc1.weight)
    assert net.get_parameter("model.pos_embed").shape[1] == 1 + 2 * 2  # 4 x 4 positions made 2 x 2
    assert "classifier" in net.notes[0]
    with pytest.raises(AugendError, match="do not fit ResNet"):
        made("resnet18", weights=tmp_path / "vit.pth")


def test_pretrained_from_torchs_cache_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    monkeypatch.setenv("AUGEND_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path))
    try:
        with pytest.raises(AugendError, match=r"pretrained weights are neither .*AUGEND_OFFLINE.*a file of weights"):
            made("torchvision:resnet18", pretrained=True)
        with pytest.raises(AugendError, match=r"resnet18\.a1_in1k.* neither .*AUGEND_OFFLINE.*a file of weights"):
            made("resnet18.a1_in1k", pretrained=True, options={"cache_dir": str(tmp_path)})
        donor = resnet18()
        (tmp_path / "checkpoints").mkdir()
        torch.save(donor.state_dict(), tmp_path / "checkpoints" / Path(ResNet18_Weights.DEFAULT.url).name)
        net = made("torchvision:resnet18", pretrained=True, mean=[0.1] * 3, std=[0.2] * 3)
    finally:
        torch.hub.set_dir(before)
    assert torch.equal(net.get_submodule("model.layer3.1.conv2").weight, donor.layer3[1].conv2.weight)
    assert net.mean is not None and net.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert "classifier" in net.notes[0] and net(torch.rand(2, 3, 32, 32))[""].shape == (2, 5)
