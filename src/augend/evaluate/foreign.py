"""Attacks of foolbox by name, where it is installed: ``foolbox:LinfDeepFoolAttack``."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from augend.contract import AugendError
from augend.evaluate.attacks import within
from augend.names import nearest

__all__ = ["FOOLBOX", "by_foolbox", "foolbox_attack"]

FOOLBOX = "foolbox:"


def foolbox_attack(word: str) -> Any:
    """An attack of foolbox by name, with an L-infinity budget."""
    name = word.removeprefix(FOOLBOX)
    try:
        import foolbox
    except ImportError:
        raise AugendError(f"--attack {word} needs foolbox: pip install foolbox") from None
    kind = getattr(foolbox.attacks, name, None)
    try:
        made = kind() if isinstance(kind, type) else None
    except Exception as error:  # some ask for arguments, some for further packages
        raise AugendError(f"--attack: foolbox's {name} cannot be made ({_one_line(error)})") from None
    distance = getattr(made, "distance", None)
    if made is None or not math.isinf(getattr(distance, "p", 0.0)):
        known = [one for one in dir(foolbox.attacks) if one.lower().startswith("linf")]
        raise AugendError(f"--attack: foolbox has no L-infinity attack {name!r}{nearest(name, known)}")
    return made


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def by_foolbox(word: str, model: nn.Module, x: Tensor, labels: Tensor, eps: float, first: int) -> Tensor:
    """Attacked by foolbox, which fills gradients and asks the global generator: on a copy, and the generator is put back."""
    import foolbox

    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(first)  # also of the pictures' device
        target = foolbox.PyTorchModel(copy.deepcopy(model), bounds=(0, 1), device=x.device)
        attack = foolbox_attack(word)
        try:
            _, clipped, _ = attack(target, x, labels, epsilons=eps)
        except Exception as error:  # those that want a target, or the pictures of a data set
            raise AugendError(f"--attack {word}: foolbox cannot run it on labels alone ({_one_line(error)})") from None
    clipped_: Tensor = clipped.detach()
    return within(clipped_, x, eps)
