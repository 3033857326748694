"""A trained model as a file that other programs read: ONNX, plain safetensors, a torch program; checked before it is kept.

What is exported is the network at its training size: float32 pixels in [0, 1] ``(N, C, H, W)`` to logits
``(N, classes)``, any N. In ONNX and in a torch program (``.pt2``) normalisation is inside. Plain safetensors holds the
weights under the network's own names; mean, deviation and classes stand in its metadata. No file holds code of augend.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augend.address import Address
from augend.checkpoint import plain as plain_tensors
from augend.checkpoint import write_bytes
from augend.contract import AugendError
from augend.evaluate.load import Classifier
from augend.evaluate.plain import plain_network, state

__all__ = ["FORMATS", "LIMIT", "Exported", "check_target", "export_model"]

FORMATS = {".onnx": "ONNX", ".safetensors": "plain safetensors", ".pt2": "torch program"}
LIMIT = 1e-4  # of a logit
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True)
class Exported:
    """A written file and how it was checked.

    Attributes:
        file: where it is.
        format: a value of `FORMATS`.
        difference: the largest difference of a logit from the original's, at most `LIMIT`.
        pictures: how many pictures that was measured on.
        reader: what read the file for the check ("onnxruntime 1.31.1").
    """

    file: Path
    format: str
    difference: float
    pictures: int
    reader: str


class _Deployed(nn.Module):
    """The model without resizing: what is followed by the exporters."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.networks, self.result = classifier.networks, classifier.result

    def forward(self, pictures: Tensor) -> Tensor:
        return self.networks.tensor(Address(self.result), pictures).float()


def check_target(file: Path) -> str:
    """The format of a file that shall be written: by its suffix, if its packages are there and nothing is lost."""
    found = FORMATS.get(file.suffix.lower())
    if found is None:
        raise AugendError(f"--to {file}: the suffix says what to write; it is one of {', '.join(FORMATS)}")
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None] if found == "ONNX" else []
    if missing:
        raise AugendError(
            f"--to {file}: ONNX needs {', '.join(missing)}; install them with: pip install 'augend[onnx]'"
        )
    if file.exists():
        raise AugendError(f"--to {file}: there is such a file already; remove it or give another name")
    if not file.absolute().parent.is_dir():
        raise AugendError(f"--to {file}: there is no folder {file.parent}")
    return found


def export_model(classifier: Classifier, file: str | Path, pictures: Tensor) -> Exported:
    """Write a model to a file, read it back with the format's own reader, and keep it only if it answers the same.

    Args:
        classifier: in eval mode, as `augend.load` gives it; it is moved to the CPU.
        file: ``.onnx``, ``.safetensors`` or ``.pt2``; there must be no such file yet.
        pictures: what the check is done on: float32 in [0, 1] or uint8 ``(n, C, H, W)``, n at least 2.

    Raises:
        AugendError: an unknown suffix, a missing package, a network that the format cannot express, or answers that
            differ by more than `LIMIT`; then nothing is written.
    """
    file = Path(file)
    kind = check_target(file)
    if len(pictures) < 2:
        raise AugendError(f"--to {file}: the check needs two pictures or more, found {len(pictures)}")
    classifier = classifier.cpu().eval()
    with torch.no_grad():
        x = classifier.fitted(pictures.cpu()).contiguous()
        expected = classifier(x)
    for taken in classifier.networks.inputs.values():
        if taken is not None and taken.tensor in classifier.networks.stages(taken.network).random:
            raise AugendError(
                f"--to {file}: the model draws for every answer ({taken}), so no file of it would agree with it"
            )
    if not bool(torch.isfinite(expected).all()):
        raise AugendError(f"--to {file}: the model's answers are not finite numbers; its training has diverged")
    make, read = {"ONNX": (_onnx, _read_onnx), "torch program": (_program, _read_program)}.get(
        kind, (_safetensors, _read_safetensors)
    )
    try:
        content = make(classifier, x)
    except AugendError:
        raise
    except Exception as error:  # the exporters follow code of the network's, and say what stops them in many ways
        first = str(error).strip().split("\n")[0][:200]
        raise AugendError(f"--to {file}: this network cannot be written as {kind} ({first})") from error
    answer, reader = read(content, classifier)
    with torch.no_grad():
        found = torch.cat([answer(x[:1]), answer(x[1:])])  # of two batch sizes
    difference = float((found - expected).abs().max())
    if not difference <= LIMIT:
        raise AugendError(
            f"--to {file}: read back by {reader} its logits differ by {difference:.1e} from the original's, more than "
            f"{LIMIT:g}; nothing was written"
        )
    write_bytes(file, content)
    return Exported(file, kind, difference, len(x), reader)


def _about(classifier: Classifier) -> dict[str, str]:
    """What stands in the file about itself, as texts (JSON where they are lists)."""
    from augend import __version__

    channels, height, width = classifier.shape
    return {
        "classes": json.dumps(list(classifier.classes)),
        "input": f"float32 (N, {channels}, {height}, {width}), {'RGB' if channels == 3 else 'grey'}, pixels in [0, 1]",
        "resize": f"larger pictures: short side to {classifier.resize}, then the middle {height} x {width}",
        "output": "float32 (N, classes): logits; softmax over them gives probabilities",
        "recipe": str(classifier.about["recipe"]),
        "producer": f"augend {__version__}",
    }


def _scale(classifier: Classifier) -> dict[str, str]:
    """Mean and deviation by which the network that sees pixels normalises them; 0 and 1 where it does not."""
    networks = classifier.networks
    first = next(name for name in networks if networks.inputs[name] is None)
    stages = networks.stages(first)
    channels = classifier.shape[0]
    mean = [0.0] * channels if stages.mean is None else stages.mean.flatten().tolist()
    std = [1.0] * channels if stages.std is None else stages.std.flatten().tolist()
    return {"mean": json.dumps(mean), "std": json.dumps(std)}


def _safetensors(classifier: Classifier, x: Tensor) -> bytes:
    from safetensors.torch import save

    networks = {name: spec["model"] | {"input": spec["input"]} for name, spec in classifier.about["networks"].items()}
    about = {
        "format": "pt",
        **_about(classifier),
        **_scale(classifier),
        "normalisation": "not inside: give the network (pixels - mean) / std",
        "networks": json.dumps(networks),
    }
    return save(plain_tensors(state(classifier)), metadata=about)


def _read_safetensors(content: bytes, classifier: Classifier) -> tuple[Callable[[Tensor], Tensor], str]:
    """Built without augend's stages where the model is one network; several go back to their places."""
    import copy

    from safetensors.torch import load

    weights = load(content)
    plain = plain_network(classifier)
    if plain is None:
        several = copy.deepcopy(classifier)
        for name, tensor in state(several).items():
            tensor.copy_(weights[name])
        return several, f"safetensors, torch {torch.__version__}"
    model = plain.build().eval()
    model.load_state_dict(weights)
    scale = {key: torch.tensor(json.loads(text)).view(-1, 1, 1) for key, text in _scale(classifier).items()}

    def answer(x: Tensor) -> Tensor:
        return model((x - scale["mean"]) / scale["std"]).float()  # type: ignore[no-any-return]

    return answer, f"torch {torch.__version__}"


def _followed(classifier: Classifier, x: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # two rows: a batch of one is taken for a constant
        program = torch.export.export(_Deployed(classifier).eval(), (x[:2],), dynamic_shapes={"pictures": {0: batch}})
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def _program(classifier: Classifier, x: Tensor) -> bytes:
    program = _followed(classifier, x)
    program.example_inputs = None  # it would travel with the file: a person's pictures
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"about.json": json.dumps(_about(classifier))})
    return buffer.getvalue()


def _read_program(content: bytes, classifier: Classifier) -> tuple[Callable[[Tensor], Tensor], str]:
    module = torch.export.load(io.BytesIO(content)).module()
    return module, f"torch {torch.__version__}"


def _onnx(classifier: Classifier, x: Tensor) -> bytes:
    import onnx

    program = _followed(classifier, x)
    with warnings.catch_warnings(), _silent("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program,
            (x[:2],),
            input_names=["pictures"],
            output_names=["logits"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    _bare(model.graph)
    for function in model.functions:
        _bare(function)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    model.producer_name = "augend"
    about = {**_about(classifier), "normalisation": "inside: give it pixels in [0, 1]", **_scale(classifier)}
    onnx.helper.set_model_props(model, about)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _bare(graph: Any) -> None:
    """Take out what the exporter noted beside every step: paths and names of this machine's torch."""
    for group in ("node", "input", "output", "value_info", "initializer"):
        for item in getattr(graph, group, ()):
            if hasattr(item, "metadata_props") and not isinstance(item, str):
                del item.metadata_props[:]
            if group == "node":
                item.doc_string = ""
    if hasattr(graph, "metadata_props"):
        del graph.metadata_props[:]


class _silent:  # noqa: N801  (used like a function)
    """Loggers at ERROR for a while."""

    def __init__(self, *names: str) -> None:
        self.loggers = [logging.getLogger(name) for name in names]

    def __enter__(self) -> None:
        self.levels = [logger.level for logger in self.loggers]
        for logger in self.loggers:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in zip(self.loggers, self.levels, strict=True):
            logger.setLevel(level)


def _read_onnx(content: bytes, classifier: Classifier) -> tuple[Callable[[Tensor], Tensor], str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def answer(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"pictures": x.numpy()})[0])

    return answer, f"onnxruntime {onnxruntime.__version__}"
