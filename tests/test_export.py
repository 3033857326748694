"""Exports: read by other programs without augend, checked before they are kept, and the card beside them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import augend
from augend.address import Address
from augend.contract import AugendError, Component
from augend.evaluate import export as export_module
from augend.evaluate.export import export_model
from augend.evaluate.judge import judge
from augend.evaluate.load import Classifier
from augend.models import build
from augend.report.card import card, escaped
from augend.report.snippets import reading
from augend.stages.networks import Networks
from augend.study import results
from augend.study.origin import Origin, origin_of
from fixture_study import Made, make_study
from runs import SMALL, train

Spec = tuple[str, Mapping[str, Any], str | None, tuple[str, ...]]
KINDS: dict[str, tuple[dict[str, Spec], tuple[int, int, int]]] = {
    "timm": ({"net": ("test_resnet", {}, None, ())}, (1, 32, 32)),
    "timm-sized": ({"net": ("vit_tiny_patch16_224", {"depth": 2}, None, ("blocks.1",))}, (3, 32, 32)),
    "torchvision": ({"net": ("torchvision:shufflenet_v2_x0_5", {}, None, ())}, (3, 32, 32)),
    "small": ({"net": ("small", {}, None, ("conv3",))}, (3, 16, 20)),
    "figure1": ({"net": ("figure1", {}, None, ())}, (1, 28, 28)),
    "linear": ({"net": ("linear", {}, None, ())}, (3, 8, 8)),
    "residual": ({"net": ("preresnet", {"depth": 8}, None, ("layer3",))}, (3, 16, 16)),
    "embedded": (
        {"source": ("small", {}, None, ()), "net": ("mlp", {"widths": [8]}, "source.features", ())},
        (3, 16, 16),
    ),
}
CLASSES = ("<script>alert(1)</script>", "a|b", "*five* 五", "=1+1")


def made(kind: str) -> Classifier:
    """A model of random weights, with running statistics that are not the first ones."""
    specs, shape = KINDS[kind]
    networks: dict[str, Any] = {}
    inputs: dict[str, Address | None] = {}
    for name, (word, options, source, cuts) in specs.items():
        inputs[name] = None if source is None else Address.parse(source)
        entering: tuple[int, ...] = shape
        scale = {"mean": [0.4, 0.5, 0.6][: shape[0]], "std": [0.2, 0.25, 0.3][: shape[0]]} if source is None else {}
        if source is not None:
            with torch.no_grad():
                seen = Networks(networks, inputs).eval().tensor(Address.parse(source), torch.zeros(2, *shape))
            entering = tuple(seen.shape[1:])
        networks[name] = build(
            Component(word, options), shape=entering, classes=len(CLASSES), cuts=cuts, generator_seed=1, **scale
        )
    generator = torch.Generator().manual_seed(5)
    for network in networks.values():
        for name, buffer in network.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    about = {
        "schema": 1,
        "result": "net",
        "networks": {
            name: {"model": {"word": w, "options": dict(o)}, "input": s, "classes": len(CLASSES), "cuts": list(c)}
            for name, (w, o, s, c) in specs.items()
        },
        "classes": list(CLASSES),
        "shape": list(shape),
        "recipe": "plain",
    }
    return Classifier(Networks(networks, inputs), about).eval()


def pictures(model: Classifier, count: int = 5) -> Tensor:
    return torch.rand(count, *model.shape, generator=torch.Generator().manual_seed(2))


def logits(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


ALONE = """\
import json, os, sys
import torch
for folder in json.loads(sys.argv[1]):
    os.chdir(folder)
    space = {"pictures": torch.load("pictures.pt", weights_only=True)}
    exec(open("snippet.py").read(), space)
    torch.save(torch.as_tensor(space["logits"]), "logits.pt")
    json.dump(space["answers"], open("answers.json", "w"))
assert not [name for name in sys.modules if name.split(".")[0] == "augend"]
"""


def test_the_cards_code_reads_the_files_without_augend(tmp_path: Path) -> None:
    """Plain torch in another process: each kind of network, by the very lines that its card prints."""
    wanted = [(kind, "model.safetensors") for kind in KINDS if kind not in ("residual", "embedded")]
    wanted += [("residual", "model.pt2"), ("embedded", "model.pt2")]
    models = {}
    for kind, name in wanted:
        folder = tmp_path / kind
        folder.mkdir()
        models[kind] = made(kind)
        torch.save(pictures(models[kind]), folder / "pictures.pt")
        exported = export_model(models[kind], folder / name, pictures(models[kind]))
        assert exported.difference < 1e-5 and exported.pictures == 5
        text = card(models[kind], Origin(None, None, None, "train"), [exported])
        code = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        (folder / "snippet.py").write_text(code[1], encoding="utf-8")
    folders = json.dumps([str(tmp_path / kind) for kind, _ in wanted])
    done = subprocess.run([sys.executable, "-c", ALONE, folders], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for kind, _ in wanted:
        expected = logits(models[kind], pictures(models[kind]))
        found = torch.load(tmp_path / kind / "logits.pt", weights_only=True)
        assert (found - expected).abs().max() < 1e-5, kind
        answers = json.loads((tmp_path / kind / "answers.json").read_text())
        assert answers == [CLASSES[n] for n in expected.argmax(1)]


def test_weights_stand_under_their_librarys_own_names(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from torchvision import models

    model = made("torchvision")
    export_model(model, tmp_path / "model.safetensors", pictures(model))
    weights = load_file(tmp_path / "model.safetensors")
    assert weights.keys() == models.shufflenet_v2_x0_5(num_classes=4).state_dict().keys()


def test_the_cards_code_reads_a_picture_file_as_training_does(tmp_path: Path) -> None:
    from PIL import Image

    from augend.evaluate.pictures import read_picture

    model = made("small")  # 16 x 20: a whole that is not square is cropped twice, so square pictures are compared
    model.shape = (3, 20, 20)
    noise = torch.randint(0, 256, (37, 37, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(tmp_path / "a.png")
    space: dict[str, Any] = {"paths": [tmp_path / "a.png"]}
    exec(reading(model), space)
    assert torch.allclose(torch.from_numpy(space["pictures"][0]), read_picture(model, tmp_path / "a.png"), atol=1e-6)


@pytest.mark.parametrize("kind", ["timm", "embedded"])
def test_onnx_answers_the_same_at_any_batch_size(kind: str, tmp_path: Path) -> None:
    runtime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model = made(kind)
    exported = export_model(model, tmp_path / "model.onnx", pictures(model))
    assert exported.difference < 1e-5 and exported.reader.startswith("onnxruntime ")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    for count in (1, 7):
        [found] = session.run(["logits"], {"pictures": pictures(model, count).numpy()})
        assert abs(torch.from_numpy(found) - logits(model, pictures(model, count))).max() < 1e-5
    about = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(about["classes"])) == CLASSES and "logits" in about["output"]
    assert [d if isinstance(d, str) else int(d) for d in session.get_inputs()[0].shape] == ["batch", *model.shape]
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    content = (tmp_path / "model.onnx").read_bytes()
    for private in (str(Path(torch.__file__).parent), str(Path.home()), "stack_trace"):
        assert private.encode() not in content


def test_a_torch_program_tells_nothing_of_this_machine(tmp_path: Path) -> None:
    import zipfile

    model = made("figure1")
    shown = pictures(model)
    export_model(model, tmp_path / "model.pt2", shown)
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    for private in (str(Path(torch.__file__).parent).encode(), str(Path.home()).encode(), shown[:2].numpy().tobytes()):
        assert private not in content


class Wavering(Classifier):
    """Says something else every time."""

    def forward(self, pictures: Tensor) -> Tensor:
        return super().forward(pictures) + 1e-3 * torch.randn(len(pictures), len(self.classes))


def test_what_differs_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    model = made("small")
    wavering = Wavering(model.networks, model.about).eval()
    with pytest.raises(AugendError, match=r"its logits differ by \d.*more than 0.0001; nothing was written"):
        export_model(wavering, tmp_path / "model.safetensors", pictures(model))
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(AugendError, match="not finite numbers"):
        export_model(model, tmp_path / "model.safetensors", pictures(model))
    assert list(tmp_path.iterdir()) == []


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made("linear")
    for name, fragment in (("model.h5", "one of .onnx"), ("no/model.pt2", "no folder"), ("there.pt2", "already")):
        (tmp_path / "there.pt2").write_text("mine")
        with pytest.raises(AugendError, match=fragment) as caught:
            export_model(model, tmp_path / name, pictures(model))
        assert "\n" not in str(caught.value)
    assert (tmp_path / "there.pt2").read_text() == "mine"
    with pytest.raises(AugendError, match="two pictures or more"):
        export_model(model, tmp_path / "model.pt2", pictures(model, 1))
    monkeypatch.setattr(export_module, "_PACKAGES", ("onnx", "not_installed_here"))
    with pytest.raises(AugendError, match=r"needs not_installed_here; install them with: pip install 'augend\[onnx\]'"):
        export_model(model, tmp_path / "model.onnx", pictures(model))


def test_the_card_escapes_every_name(tmp_path: Path) -> None:
    model = made("linear")
    exported = export_model(model, tmp_path / "model.pt2", pictures(model))
    text = card(model, Origin(None, None, None, "train"), [exported])
    assert "<script" not in text and r"a\|b, \*five\* 五, =1+1" in text
    assert escaped("line\none\u202e") == "line one"


def test_a_run_is_handed_over_with_its_card(tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(run, "aug-ft", budget="40step")
    made = augend.export(run, [tmp_path / "model.safetensors", tmp_path / "model.pt2"])
    assert [one["format"] for one in made["files"]] == ["plain safetensors", "torch program"]
    assert all(one["difference"] < 1e-5 and one["pictures"] == 60 for one in made["files"])
    text = (tmp_path / "model.md").read_text(encoding="utf-8")
    assert made["card"] == str(tmp_path / "model.md")
    assert f"Right on {100 * result['test']:.1f} % of 60 test pictures" in text and "One run" in text
    assert "200 to train, 40 to validate, 60 to test" in text
    assert "2. *tune*: 20 steps of 32 pictures (3.2 epochs)" in text and "Moves: conv3 and above" in text
    assert str(tmp_path) not in text and SMALL.split(":")[0] in text
    again = augend.export(run / "model.safetensors", tmp_path / "model.onnx.safetensors")
    assert again["card"].endswith("model.onnx.md")
    with pytest.raises(AugendError, match="already"):
        augend.export(run, tmp_path / "model.safetensors")


def test_a_model_file_that_stands_alone_needs_pictures(tmp_path: Path) -> None:
    from PIL import Image

    train(tmp_path / "run", "plain", budget="5step")
    (tmp_path / "elsewhere").mkdir()
    alone = tmp_path / "elsewhere" / "mine.safetensors"
    alone.write_bytes((tmp_path / "run" / "model.safetensors").read_bytes())
    with pytest.raises(AugendError, match="--pictures FOLDER"):
        augend.export(alone, tmp_path / "model.safetensors")
    for number in range(3):
        Image.new("RGB", (40, 30), (80 * number, 20, 90)).save(tmp_path / "elsewhere" / f"{number}.jpg")
    found = augend.export(alone, tmp_path / "model.safetensors", pictures=[tmp_path / "elsewhere"])
    assert found["files"][0]["pictures"] == 3
    assert "Nothing is known of it here" in (tmp_path / "model.md").read_text()


def test_a_studys_model_says_that_its_accuracy_is_an_estimate(tmp_path: Path) -> None:
    study = tmp_path / "study"
    found = augend.compare(SMALL, ["plain", "augmented"], out=study, repeats=2, budget="100step", precision="32-true")
    advised = found["choice"]["advised"]
    assert advised is not None
    origin = origin_of(study)
    assert origin.recipe == advised and origin.run is not None and (origin.run / "plan.json").is_file()
    augend.export(study, tmp_path / "model.safetensors")
    text = (tmp_path / "model.md").read_text(encoding="utf-8")
    test = found["recipes"][advised]["test"]
    assert f"**{100 * test['mean']:.1f} %** (95 %: {100 * test['low']:.1f} to {100 * test['high']:.1f})" in text
    assert "the study's estimate of the recipe" in text and "from 2 trials" in text
    with pytest.raises(AugendError, match=r"judge one trial, as .*/trials/NAME"):
        judge(study)
    assert judge(study, SMALL)["splits"]["test"]["pictures"] == 60
    trial = origin_of(study / "trials" / "plain-r1")
    assert trial.recipe == "plain" and trial.study is not None and trial.trained_on == "train"


def test_a_model_trained_once_more_is_not_said_to_be_tested(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", {"plain": Made(0.9), "augmented": Made(0.7)}, repeats=2)
    found = results.write(study)
    assert found["choice"]["advised"] == "plain"
    train(study / "refit" / "plain", "plain", budget="5step", refit="trainval")
    (study / "model.safetensors").write_bytes((study / "refit" / "plain" / "model.safetensors").read_bytes())
    (study / "results.json").write_text(json.dumps({**found, "model": {"recipe": "plain", "trained_on": "trainval"}}))
    for name in (study, study / "refit" / "plain"):
        origin = origin_of(name)
        assert (origin.recipe, origin.trained_on) == ("plain", "trainval")
    augend.export(study, tmp_path / "model.safetensors")
    text = (tmp_path / "model.md").read_text(encoding="utf-8")
    assert f"**{100 * found['recipes']['plain']['test']['mean']:.1f} %**" in text
    assert "training once more, as long, on the validation pictures of the first repeat too" in text
    assert " to validate" not in text and "it was right in" not in text
