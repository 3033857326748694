"""Freezing the low part of a network in a loop of one's own, so that nothing thaws it by accident."""

from __future__ import annotations

from types import MethodType

from torch import nn

from augend.models.split import split_model

__all__ = ["Frozen", "freeze_below"]


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """In place of `train`: a frozen module stays in eval mode, so that no running statistic moves and nothing drops out."""
    return module


class Frozen:
    """What `freeze_below` returns: what is frozen, and the way back.

    Attributes:
        modules: the frozen modules.
        parameters: the frozen weights.
    """

    def __init__(self, model: nn.Module, modules: list[nn.Module], parameters: list[nn.Parameter]) -> None:
        self._model = model
        self.modules, self.parameters = modules, parameters
        self._asked = [p.requires_grad for p in parameters]
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        for module in modules:
            module.training = False
            object.__setattr__(module, "train", MethodType(_stay, module))

    def remove(self) -> None:
        """Thaw: weights ask for gradients as before, modules take the model's mode. A second call does nothing."""
        for parameter, asked in zip(self.parameters, self._asked, strict=True):
            parameter.requires_grad_(asked)
        for module in self.modules:
            module.__dict__.pop("train", None)
            module.training = self._model.training
        self.modules, self.parameters, self._asked = [], [], []


def freeze_below(model: nn.Module, at: str) -> Frozen:
    """Freeze everything that runs before the module named `at`: no gradient, eval mode, no running statistics.

    It holds after ``model.train()``, under `torch.compile`, in DistributedDataParallel (wrap after freezing) and in a
    ``copy.deepcopy`` of the model (whose copy the handle cannot thaw). Give the optimizer only what still asks for a
    gradient.

    Args:
        model: an `nn.Sequential`, or a classifier of torchvision or timm.
        at: the dotted name of the first module that still learns, as for `augend.split_model`.

    Returns:
        A handle; ``handle.remove()`` thaws.

    Raises:
        AugendError: there is no such module, or the network cannot be cut there.

    Source: factoring, section 4 (f_low is frozen while f_high sees augmented data). Cost of a step: the frozen part's
    backward is saved; `augend.cache_trunk` saves its forward as well.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
        >>> handle = freeze_below(model, "2")
        >>> model.train()[1].training, [p.requires_grad for p in model.parameters()]
        (False, [False, False, False, False, True, True])
        >>> handle.remove()
        >>> model[1].training
        True
    """
    trunk, head = split_model(model, at)
    above = set(head.modules())
    own = set(model.modules())
    modules = [module for module in trunk.modules() if module in own and module not in above]
    learning = set(head.parameters())
    return Frozen(model, modules, [parameter for parameter in trunk.parameters() if parameter not in learning])
