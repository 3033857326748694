"""Networks by name: registered words, `torchvision:NAME`, and every name of timm."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import socket
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augend.contract import AugendError, Component
from augend.models.stages import Stages, as_stages
from augend.models.weights import load_weights, put_weights
from augend.names import known, lookup, nearest, options

__all__ = ["build"]

HUB_SECONDS = 5.0

_Scale = tuple[Sequence[float], Sequence[float]]


def build(
    component: Component,
    *,
    shape: tuple[int, ...],
    classes: int,
    cuts: Sequence[str] = (),
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    pretrained: bool = False,
    weights: str | Path | None = None,
    generator_seed: int,
) -> Stages:
    """A network as `Stages`, its initial weights a function of `generator_seed` alone.

    Args:
        component: a registered word ("figure1"), ``torchvision:NAME``, or a name of timm ("resnet18", "hf-hub:OWNER/NAME"),
            with its options.
        shape: of one input, ``(C, H, W)`` or ``(D,)``.
        classes: number of classes.
        cuts: dotted paths of modules at which the network must be able to stop and start.
        mean, std: floats a channel by which pixels are normalised; None: they are not. Pretrained weights and weights from
            a file bring their own, which win.
        pretrained: take the weights that timm or torchvision offer, from their caches or the network.
        weights: a file of weights: safetensors, or a state dict saved by torch. A classifier of another shape is left out
            (``notes`` says so).
        generator_seed: key of the initialisation; the state of torch's default generator is left as it was.

    Raises:
        AugendError: an unknown name or option (the nearest is said), weights that do not fit, or no way to get them.

    Example:
        >>> net = build(Component("small"), shape=(3, 32, 32), classes=5, generator_seed=1)
        >>> net.names
        ('conv1', 'conv2', 'conv3', 'pool', 'classify')
    """
    word, chosen = component.word, dict(component.options)
    with torch.random.fork_rng(devices=[]):
        if word in known("model"):
            model, scale = _registered(word, chosen, shape, classes, generator_seed), None
        elif word.startswith("torchvision:"):
            model, scale = _torchvision(word, chosen, shape, classes, pretrained, generator_seed)
        else:
            model, scale = _timm(word, chosen, shape, classes, pretrained, generator_seed)
    if getattr(model, "raw_pixels", False):  # a network that is built for pixels in [0, 1] as they are
        mean = std = None
    stages = as_stages(model, cuts, mean=mean, std=std)
    if pretrained and weights is None:
        if scale is None:
            raise AugendError(f"model {word!r}: there are no pretrained weights of it; give a file of weights")
        if word.startswith("torchvision:"):
            put_weights(stages, _torchvision_weights(word), f"the pretrained weights of {word}")
    scaled = weights is not None and load_weights(stages, weights)
    if scale is not None and not scaled and (pretrained or weights is not None):
        stages.normalise(*(_for_channels(values, shape[0]) for values in scale))
    return stages


def _seed(key: int) -> None:
    torch.default_generator.manual_seed(key & 0x7FFF_FFFF_FFFF_FFFF)


def _for_channels(values: Sequence[float], channels: int) -> list[float]:
    return list(values) if len(values) == channels else [sum(values) / len(values)] * channels


def _registered(word: str, chosen: Mapping[str, Any], shape: tuple[int, ...], classes: int, key: int) -> nn.Module:
    builder = lookup("model", word)
    allowed = options("model", word)
    parameters = inspect.signature(builder).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name in chosen:
        if name not in allowed and not takes_any:
            listed = ", ".join(allowed) or "none"
            raise AugendError(
                f"model {word!r} has no option {name!r}{nearest(name, list(allowed))} (options: {listed})"
            )
    for name, value in chosen.items():
        if name in parameters and isinstance(parameters[name].default, tuple) and not isinstance(value, list | tuple):
            raise AugendError(f"model {word!r}: {name} is {value!r}; it is a list, as {list(parameters[name].default)}")
    context = {"shape": tuple(shape), "classes": classes}
    _seed(key)
    try:
        model = builder(**chosen, **{name: value for name, value in context.items() if takes_any or name in parameters})
    except AugendError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise AugendError(f"model {word!r} with {dict(chosen)} for inputs {tuple(shape)}: {_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise AugendError(f"model {word!r}: its builder returned {type(model).__name__}, not an nn.Module")
    return model


def _torchvision(
    word: str, chosen: dict[str, Any], shape: tuple[int, ...], classes: int, pretrained: bool, key: int
) -> tuple[nn.Module, _Scale | None]:
    from torchvision import models

    name = word.removeprefix("torchvision:")
    words = models.list_models(module=models)
    if name not in words:
        raise AugendError(f"unknown model {word!r}{nearest(name, words)} (torchvision has {len(words)})")
    if shape[0] != 3:
        raise AugendError(f"model {word!r} takes 3 channels, the data have {shape[0]}; a timm name adapts itself")
    if name.startswith("vit_"):
        chosen = {"image_size": shape[1]} | chosen
    if name in ("googlenet", "inception_v3"):
        # their weights come from another framework, with a normalisation of its own inside the network
        chosen = {"aux_logits": False, "init_weights": True, "transform_input": pretrained} | chosen
    _seed(key)
    try:
        model: nn.Module = models.get_model(name, weights=None, num_classes=classes, **chosen)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AugendError(f"model {word!r} with {chosen}: {_line(error)}") from error
    found = models.get_model_weights(name)
    transforms = next(iter(found)).transforms() if len(found) else None
    scale = (transforms.mean, transforms.std) if transforms is not None else None
    return model, scale


def _torchvision_weights(word: str) -> dict[str, Tensor]:
    from torchvision import models

    found = models.get_model_weights(word.removeprefix("torchvision:")).DEFAULT
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(found.url).name
    if _offline() and not cached.is_file():
        raise _unreachable(word, "AUGEND_OFFLINE is set and they are not in torch's cache")
    try:
        state: dict[str, Tensor] = found.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # network and disk say it in many ways
        raise _unreachable(word, _line(error)) from error
    return {name: value for name, value in state.items() if not name.lower().startswith("aux")}


def _timm(
    word: str, chosen: dict[str, Any], shape: tuple[int, ...], classes: int, pretrained: bool, key: int
) -> tuple[nn.Module, _Scale | None]:
    if pretrained or word.startswith("hf-hub:"):
        _prepare_hub()
    import timm

    if not word.startswith("hf-hub:") and not timm.is_model(word):
        words = [*known("model"), *timm.list_models()]
        raise AugendError(
            f"unknown model {word!r}{nearest(word, words)} (words: {', '.join(known('model'))}; "
            f"timm has {len(timm.list_models())} more; torchvision:NAME)"
        )
    if len(shape) != 3:
        raise AugendError(
            f"model {word!r} takes pictures (C, H, W), not inputs of shape {tuple(shape)}; try 'mlp' or 'linear'"
        )
    if pretrained and _offline() and not word.startswith("hf-hub:"):
        offered = timm.get_pretrained_cfg(word)
        url = None if offered is None or offered.hf_hub_id else offered.url
        if isinstance(url, str) and not (Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name).is_file():
            raise _unreachable(word, "AUGEND_OFFLINE is set and they are not in torch's cache")
    given = {"num_classes": classes, "in_chans": shape[0], **chosen}
    tries = [{"img_size": tuple(shape[1:])} | given, given] if "img_size" not in chosen else [given]
    for number, arguments in enumerate(tries):
        _seed(key)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model: nn.Module = timm.create_model(word, pretrained=pretrained, **arguments)
            break
        except TypeError as error:
            if "img_size" in str(error) and number + 1 < len(tries):
                continue  # a network for pictures of any size
            raise AugendError(f"model {word!r} with {chosen}: {_line(error)}") from error
        except Exception as error:  # the hub, the network and timm's own checks
            if pretrained or word.startswith("hf-hub:"):
                raise _unreachable(word, _why_not(error)) from error
            raise AugendError(f"model {word!r} for pictures {tuple(shape)} with {chosen}: {_line(error)}") from error
    cfg: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    return model, (cfg["mean"], cfg["std"]) if cfg.get("mean") is not None else None


def _offline() -> bool:
    return os.environ.get("AUGEND_OFFLINE", "0") not in ("", "0")


def _prepare_hub() -> None:
    """What the hub's client reads when it is imported: how long to wait, and whether to try at all."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    if _offline() or not _reachable():
        os.environ["HF_HUB_OFFLINE"] = "1"
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True  # it may have been imported before


@functools.cache
def _reachable() -> bool:
    """Whether the hub answers within five seconds; its client would try again and again for a minute."""
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    answered = threading.Event()

    def knock() -> None:
        with contextlib.suppress(OSError):
            where = (address.hostname or "", address.port or (80 if address.scheme == "http" else 443))
            with socket.create_connection(where, timeout=HUB_SECONDS):
                answered.set()

    thread = threading.Thread(target=knock, daemon=True)  # looking a name up knows no limit of its own
    thread.start()
    thread.join(HUB_SECONDS)
    return answered.is_set()


def _why_not(error: Exception) -> str:
    if _offline():
        return "AUGEND_OFFLINE is set"
    return _line(error) if _reachable() else "the hub cannot be reached"


def _unreachable(word: str, reason: str) -> AugendError:
    return AugendError(
        f"model {word!r}: its pretrained weights are neither on this machine nor to be had ({reason}); give a file of weights"
    )


def _line(error: Exception) -> str:
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:200]
