"""A trained network in plain torch: the code that builds it without augend, and its weights under its own names.

A network of timm or torchvision is built by its library's own call. Our small networks are written out as an
`nn.Sequential` of torch's layers where they are one; the residual ones are not, and have no such code.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from augend.evaluate.load import Classifier
from augend.models.small import FlatLinear
from augend.names import known

__all__ = ["Plain", "plain_network", "state"]

_LEAVES = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.ReLU,
    nn.Flatten,
    nn.Linear,
    nn.Dropout,
    nn.Identity,
)
_FLAT_LINEAR = """\
class FlatLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x.flatten(1))


"""


@dataclass(frozen=True)
class Plain:
    """How to build a network without augend.

    Attributes:
        standard, imports: lines that import from the standard library, and others.
        prelude: definitions that `code` needs, or nothing.
        code: an expression; None where the network cannot be written so.
        build: the same in this process, for checking.
    """

    standard: str
    imports: str
    prelude: str
    code: str | None
    build: Callable[[], nn.Module]


def state(classifier: Classifier) -> dict[str, Tensor]:
    """The weights under each network's own names; under ``NETWORK.NAME`` where the model is made of several."""
    networks = classifier.networks
    several = len(networks) > 1
    return {
        f"{name}.{key}" if several else key: tensor
        for name in networks
        for key, tensor in _own(networks.stages(name)).state_dict().items()
    }


def _own(stages: nn.Module) -> nn.Module:
    """The network inside of `Stages`; one that is `Stages` itself is its own."""
    inner = getattr(stages, "model", None)
    return inner if isinstance(inner, nn.Module) else stages


def plain_network(classifier: Classifier) -> Plain | None:
    """The one network of a model, to be built without augend; None where the model is made of several."""
    if len(classifier.networks) > 1:
        return None
    about = classifier.about["networks"][classifier.result]
    word, options = about["model"]["word"], dict(about["model"]["options"])
    model = _own(classifier.networks.stages(classifier.result))
    if word in known("model"):
        return _written(model)
    if word.startswith("torchvision:"):
        return _torchvision(model, word.removeprefix("torchvision:"), options, classifier)
    return _timm(word, options, classifier)


def _call(function: str, first: str, arguments: Mapping[str, Any]) -> str:
    return f"{function}({', '.join([repr(first), *(f'{key}={value!r}' for key, value in arguments.items())])})"


def _torchvision(model: nn.Module, name: str, options: dict[str, Any], classifier: Classifier) -> Plain:
    from torchvision import models

    arguments = {"weights": None, "num_classes": len(classifier.classes), **options}
    if name.startswith("vit_"):
        arguments |= {"image_size": classifier.shape[1]} | options
    if name in ("googlenet", "inception_v3"):
        transform = bool(getattr(model, "transform_input", False))
        arguments |= {"aux_logits": False, "init_weights": False, "transform_input": transform} | options
    code = _call("torchvision.models.get_model", name, arguments)
    return Plain("", "import torchvision", "", code, lambda: _quietly(lambda: models.get_model(name, **arguments)))


def _timm(word: str, options: dict[str, Any], classifier: Classifier) -> Plain:
    import timm

    channels, height, width = classifier.shape
    arguments: dict[str, Any] = {"num_classes": len(classifier.classes), "in_chans": channels, **options}
    if "img_size" not in arguments:  # told to those that ask, as when it was trained
        try:
            _quietly(lambda: timm.create_model(word, img_size=(height, width), **arguments))
        except TypeError:
            pass  # a network for pictures of any size
        else:
            arguments["img_size"] = (height, width)
    code = _call("timm.create_model", word, arguments)
    return Plain("", "import timm", "", code, lambda: _quietly(lambda: timm.create_model(word, **arguments)))


def _quietly(build: Callable[[], Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = build()
    return model


def _written(model: nn.Module) -> Plain:
    import copy

    flat = any(isinstance(module, FlatLinear) for module in model.modules())
    prelude = _FLAT_LINEAR if flat else ""
    standard = "from collections import OrderedDict"
    return Plain(standard, "from torch import nn", prelude, _source(model), lambda: copy.deepcopy(model))


def _source(module: nn.Module, indent: str = "") -> str | None:
    """An expression that builds a Sequential of torch's layers, or one of these; None for anything else."""
    if type(module) is FlatLinear:
        return repr(module)
    if type(module) in _LEAVES:
        return f"nn.{module!r}"
    if type(module) is not nn.Sequential:
        return None
    inside = f"{indent}    "
    parts: Sequence[tuple[str, str | None]] = [(name, _source(one, inside)) for name, one in module.named_children()]
    numbered = [name for name, _ in parts] == [str(place) for place in range(len(parts))]
    if any(code is None or not (numbered or name.isidentifier()) for name, code in parts):
        return None
    lines = [f"{inside}{code}," if numbered else f"{inside}{name}={code}," for name, code in parts]
    opened, closed = ("nn.Sequential(", ")") if numbered else ("nn.Sequential(OrderedDict(", "))")
    return "\n".join([opened, *lines, f"{indent}{closed}"])
