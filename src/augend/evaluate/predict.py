"""Predictions of a network for pictures, in batches. Nothing is changed; a network that draws, as from a latent, draws the
same whenever it is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn import functional

from augend.address import Address
from augend.data.pictures import Pictures
from augend.randomness import seed_default_generators, undisturbed
from augend.stages.networks import Networks

__all__ = ["logits", "losses_and_entropies", "probabilities"]


def logits(
    networks: Networks,
    result: str,
    pictures: Pictures,
    *,
    batch: int = 250,
    channels_last: bool = False,
    autocast: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> Tensor:
    """float32 ``(N, classes)`` logits on the pictures' device; the networks must be in eval mode.

    Args:
        result: the network that is asked.
        batch: pictures a forward (50 to 500 is fastest on a CPU).
    """
    out = []
    with torch.no_grad(), autocast(), undisturbed():
        seed_default_generators(0)
        for begin in range(0, len(pictures), batch):
            x = pictures.pixels[begin : begin + batch].to(torch.float32).div_(255.0)
            if channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            out.append(networks.tensor(Address(result), x).float())
    return torch.cat(out) if out else torch.zeros(0, 0)


def probabilities(networks: Networks, result: str, pictures: Pictures, **how: object) -> Tensor:
    """float32 ``(N, classes)``, rows sum to 1, on the CPU; arguments as `logits`."""
    return functional.softmax(logits(networks, result, pictures, **how), dim=1).cpu()  # type: ignore[arg-type]


def losses_and_entropies(answers: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Of logits ``(N, classes)`` and labels ``(N,)``: `score`, the cross-entropy, and `entropy`, of the soft label; nats.

    >>> found = losses_and_entropies(torch.zeros(1, 2), torch.tensor([1]))
    >>> [round(float(value), 3) for value in found.values()]
    [0.693, 0.693]
    """
    losses = functional.cross_entropy(answers, labels, reduction="none")
    return {"score": losses, "entropy": torch.special.entr(answers.softmax(1)).sum(1)}
