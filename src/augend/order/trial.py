"""What a step on a batch would make of the weights, without taking it: the weights, running statistics, optimizer state,
random generators and gradients of the model stay as they are, bit for bit.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import LBFGS

from augend.contract import AugendError, Batch, Losses, Probe, Taken
from augend.randomness import undisturbed

__all__ = ["Trial", "TrialSteps", "evaluating", "in_mode"]


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Every module in training or evaluation mode in this block, each in its own mode again afterwards."""
    changed = [module for module in model.modules() if module.training != training]
    for module in changed:
        module.training = training
    try:
        yield
    finally:
        for module in changed:
            module.training = not training


def evaluating(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Every module in evaluation mode in this block."""
    return in_mode(model, training=False)


@dataclass(frozen=True)
class Trial:
    """A step that was tried.

    Attributes:
        weights: name -> what it would be; the tensors are used again by the next trial.
        taken: its gradients, running statistics and losses before.
    """

    weights: Mapping[str, Tensor]
    taken: Taken


class TrialSteps:
    """Steps of a model's own optimizer, tried on a shadow of its weights and state.

    The shadow is a copy of the optimizer, so any optimizer of torch will do whose step is a function of the gradients and its
    state, and its own fused update is what is tried. One that asks for the loss again, such as LBFGS, is refused.

    Args:
        probe: how the model is seen.
        train: False: the gradient is taken in evaluation mode, as the paper's authors score. True: the trial is the step:
            training mode, with the dropout masks and the batch's statistics of the step that is about to come.

    Cost:
        A forward and a backward a trial (three forwards' worth), and one copy of weights and state.

    Example:
        >>> from augend.order import LoopProbe
        >>> model, x, y = nn.Linear(4, 2), torch.randn(8, 4), torch.tensor([0, 1] * 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> probe = LoopProbe(model, optimizer, lambda index: (x[index], y[index]))
        >>> batch = probe.training(torch.arange(8))
        >>> trial = TrialSteps(probe).take(batch)
        >>> bool(probe.loss(trial.weights, batch).total < trial.taken.losses.total), model.weight.grad
        (True, None)

    Source: training procedure augmentations, 2.4.2: score a batch by what a step on it gains, then roll back. Deviation:
    nothing is written, so nothing is rolled back.
    """

    def __init__(self, probe: Probe, *, train: bool = False) -> None:
        self._probe, self._train = probe, train
        self._made: tuple[object, list[Tensor]] | None = None

    def take(self, batch: Batch) -> Trial:
        """Try a step on a batch."""
        taken = self.gradients(batch)
        return Trial(self._stepped(taken.gradients), taken)

    def gradients(self, batch: Batch) -> Taken:
        """The forward and backward of a step, without its update."""
        probe = self._probe
        moving = {name: p for name, p in probe.model.named_parameters() if p.requires_grad}
        buffers: dict[str, Tensor] = {}
        if self._train:
            buffers = {name: b.clone() for name, b in probe.model.named_buffers()}
            with undisturbed(), torch.enable_grad():
                losses = probe.loss(buffers, batch)
        else:
            with evaluating(probe.model), torch.enable_grad():
                losses = probe.loss(None, batch)
        got = torch.autograd.grad(losses.total, list(moving.values()), allow_unused=True)
        gradients = dict(zip(moving, got, strict=True))
        terms = {name: value.detach() for name, value in losses.terms.items()}
        return Taken(gradients, buffers, Losses(terms, losses.rows))

    def losses(self, trial: Trial, batch: Batch) -> Losses:
        """Of a batch under the weights of a trial: in evaluation mode, or, where the trial is the step, as it was taken."""
        with torch.no_grad():
            if self._train:
                with undisturbed():
                    buffers = {name: b.clone() for name, b in trial.taken.buffers.items()}
                    return self._probe.loss({**trial.weights, **buffers}, batch)
            return self.external(trial, batch)

    def external(self, trial: Trial, batch: Batch) -> Losses:
        """Of other pictures under the weights and running statistics of a trial, in evaluation mode."""
        with torch.no_grad(), evaluating(self._probe.model):
            return self._probe.loss({**trial.weights, **trial.taken.buffers}, batch)

    def _stepped(self, gradients: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """The weights after the optimizer's own update, on the shadow."""
        optimizer = self._probe.optimizer
        if isinstance(optimizer, LBFGS):
            raise AugendError("a trial step of LBFGS would ask for its loss many times; train with another optimizer")
        live = [p for group in optimizer.param_groups for p in group["params"]]
        if self._made is None or self._made[0] is not optimizer:
            shadow = copy.deepcopy(optimizer)
            self._made = optimizer, [p for group in shadow.param_groups for p in group["params"]]
            self._shadow = shadow
        weights = self._made[1]
        numbers = {id(p): n for n, p in enumerate(live)}
        with torch.no_grad():
            torch._foreach_copy_(weights, live)
            self._copy_state(live, weights)
        for own, group in zip(self._shadow.param_groups, optimizer.param_groups, strict=True):
            own.update({key: value for key, value in group.items() if key != "params"})
        for weight in weights:
            weight.grad = None
        names: dict[str, Tensor] = {}
        for name, parameter in self._probe.model.named_parameters():
            number = numbers.get(id(parameter))
            if number is not None and name in gradients:
                # Clipping and optimizers (SGD with Nesterov momentum) write into gradients, which the step may still need.
                gradient = gradients[name]
                names[name] = weights[number]
                weights[number].grad = None if gradient is None else gradient.clone()
        if self._probe.clip is not None:
            nn.utils.clip_grad_norm_(list(names.values()), self._probe.clip)
        self._shadow.step()
        return {name: weight.detach() for name, weight in names.items()}

    def _copy_state(self, live: list[Tensor], weights: list[Tensor]) -> None:
        """Momentum and whatever else the optimizer keeps, into the shadow's own tensors."""
        into: list[Tensor] = []
        out: list[Tensor] = []
        for parameter, weight in zip(live, weights, strict=True):
            state = self._probe.optimizer.state.get(parameter)
            if not state:
                self._shadow.state.pop(weight, None)
                continue
            own = self._shadow.state[weight]
            for key in [key for key in own if key not in state]:
                del own[key]
            for key, value in state.items():
                have = own.get(key)
                if not isinstance(value, Tensor):
                    own[key] = value
                elif isinstance(have, Tensor) and have.shape == value.shape and have.dtype == value.dtype:
                    into.append(have)
                    out.append(value)
                else:
                    own[key] = value.clone(memory_format=torch.preserve_format)
        if into:
            torch._foreach_copy_(into, out)
