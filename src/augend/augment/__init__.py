"""What examples become: augmentations of pictures (and of tensors inside a network).

Every augmentation is two functions. ``draw(draws, progress, copy)`` makes parameters, one line for each row, on the
CPU; ``apply(x, params)`` uses them, on the whole batch at once, wherever it lies. They need nothing else of augend:

    >>> import torch
    >>> from augend import Draws
    >>> from augend.augment.geometry import HFlip, PaddedCrop
    >>> augment = Chain([PaddedCrop(4), HFlip()])
    >>> x = torch.rand(8, 3, 32, 32)
    >>> for step in range(2):
    ...     seen = augment.apply(x, augment.draw(Draws(0, "train", step, keys=8), progress=0.0))
    >>> seen.shape
    torch.Size([8, 3, 32, 32])
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from augend import names
from augend.augment.chain import Chain
from augend.contract import AugendError, Augment, Component, Mixing

__all__ = ["Chain", "build", "chain"]


def build(component: Component) -> Augment | Mixing:
    """The augmentation that a recipe's word and options mean.

    >>> build(Component("rotate", {"degrees": 15})).describe()
    '{"rotate": {"degrees": [-15.0, 15.0], "expand": false, "mode": "bilinear"}}'
    """
    make = names.lookup("augment", component.word)
    allowed = names.options("augment", component.word)
    free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in allowed.values())
    known = [name for name, p in allowed.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    for option in component.options:
        if option not in known and not free:
            raise AugendError(
                f"{component.word} has no option {option!r}{names.nearest(option, known)} "
                f"(allowed: {', '.join(known) or 'none'})"
            )
    missing = [n for n in known if allowed[n].default is inspect.Parameter.empty and n not in component.options]
    if missing:
        raise AugendError(f"{component.word} needs {', '.join(missing)} (options: {', '.join(known)})")
    try:
        made: Augment | Mixing = make(**component.options)
    except (TypeError, ValueError) as error:
        if isinstance(error, AugendError):
            raise
        raise AugendError(f"{component.word}: {' '.join(str(error).split())}") from error
    if not isinstance(made, Augment | Mixing):
        raise AugendError(f"{component.word} is no augmentation: it lacks variants, sources, draw, or apply (or mix)")
    return made


def chain(components: Iterable[Component]) -> Chain:
    """The augmentations of a view, in order, as one."""
    return Chain([build(component) for component in components])
