"""Python that reads an exported model without augend, for its card."""

from __future__ import annotations

from augend.evaluate.export import Exported
from augend.evaluate.load import Classifier
from augend.evaluate.plain import plain_network

__all__ = ["reading", "snippet"]

_READING = """\
import numpy as np
from PIL import Image, ImageOps


def read(path):
    image = ImageOps.exif_transpose(Image.open(path)).convert({mode!r})
    image = ImageOps.fit(image, ({resize}, {resize}), Image.Resampling.BILINEAR){crop}
    return np.asarray(image, np.float32).reshape({height}, {width}, {channels}).transpose(2, 0, 1) / 255


pictures = np.stack([read(path) for path in paths])"""

_ONNX = """\
import json

import onnxruntime

session = onnxruntime.InferenceSession({file!r})
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
[logits] = session.run(["logits"], {{"pictures": pictures}})   # float32 {shape}
answers = [classes[number] for number in logits.argmax(1)]"""

_PROGRAM = """\
import json

import torch

about = {{"about.json": ""}}
model = torch.export.load({file!r}, extra_files=about).module()
classes = json.loads(json.loads(about["about.json"])["classes"])
with torch.no_grad():
    logits = model(torch.as_tensor(pictures))   # float32 {shape}
answers = [classes[number] for number in logits.argmax(1)]"""

_SAFETENSORS = """\
import json
{standard}
import torch
{imports}

{prelude}with safe_open({file!r}, "pt") as file:
    about, weights = file.metadata(), {{name: file.get_tensor(name) for name in file.keys()}}
classes = json.loads(about["classes"])
mean, std = (torch.tensor(json.loads(about[key])).view(-1, 1, 1) for key in ("mean", "std"))
model = {code}
model.load_state_dict(weights)
model.eval()
with torch.no_grad():
    logits = model((torch.as_tensor(pictures) - mean) / std)   # float32 {shape}
answers = [classes[number] for number in logits.argmax(1)]"""

_AUGEND = """\
import augend

model = augend.load("PATH/OF/THE/RUN")
answers = [model.classes[number] for number in model(pictures).argmax(1)]   # uint8 or [0, 1], any size"""


def snippet(exported: Exported, classifier: Classifier) -> str:
    """Lines that take float32 `pictures` in [0, 1] at the training size, and leave `logits` and `answers`."""
    file, shape = exported.file.name, f"(N, {', '.join(map(str, classifier.shape))}) in [0, 1]"
    if exported.format == "ONNX":
        return _ONNX.format(file=file, shape=shape)
    if exported.format == "torch program":
        return _PROGRAM.format(file=file, shape=shape)
    plain = plain_network(classifier)
    if plain is None or plain.code is None:
        return _AUGEND
    # in the order in which imports stand
    imports = "\n".join(sorted(["from safetensors import safe_open", plain.imports], key=lambda line: line.split()[1]))
    return _SAFETENSORS.format(
        file=file,
        shape=shape,
        standard=f"{plain.standard}\n" if plain.standard else "",
        imports=imports,
        prelude=f"\n{plain.prelude}" if plain.prelude else "",
        code=plain.code,
    )


def reading(classifier: Classifier) -> str:
    """Lines that read picture files `paths` into numpy float32 `pictures`."""
    channels, height, width = classifier.shape
    resize = max(classifier.resize, height, width)
    left, top = (resize - width) // 2, (resize - height) // 2
    cut = f"\n    image = image.crop(({left}, {top}, {left + width}, {top + height}))"
    return _READING.format(
        mode="RGB" if channels == 3 else "L",
        channels=channels,
        height=height,
        width=width,
        resize=resize,
        crop=cut if (height, width) != (resize, resize) else "",
    )
