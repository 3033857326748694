"""Untargeted attacks within an L-infinity budget: FGSM, BIM, MIM and PGD, in batches, on pixels in [0, 1].

Each ascends the cross-entropy of the true class along the sign of its gradient. Only the gradient of the input is computed:
no parameter's `.grad` is filled, no buffer moves, no flag is changed, and no generator but the given `Draws` is asked.
Normalisation belongs inside the model, so that budgets are those of pixels.

A step does what torchattacks and foolbox do, to the bit. What is returned is then moved inwards (`within`), by the last bit
of some pixels: ``x + eps`` rounded to float32 is above the budget as often as below it.

Words and meanings are those of torchattacks. The defaults are those of the thesis "Deep Learning Training Procedure
Augmentations" (chapter 3) as its script has them: eps 8/255; 10 steps, of eps/10 for BIM and MIM, of eps/4 (2/255) for PGD.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from augend.contract import AugendError
from augend.randomness import Draws

__all__ = ["EPS", "Gradient", "Randomised", "bim", "expected_gradient", "fgsm", "fgsm_sweep", "gradient_of", "in_bfloat16",
           "input_gradient", "mim", "pgd", "within", "worst"]  # fmt: skip

EPS = 8 / 255
Gradient = Callable[[Tensor, Tensor, Draws], Tensor]
"""Pictures float32 ``(N, ...)``, labels int64 ``(N,)``, draws with a row a picture -> what is ascended, like the pictures."""


@runtime_checkable
class Randomised(Protocol):
    """A model that draws when it is asked, such as `augend.TestTimeSums`.

    Called, it answers as the defender does, by pictures' numbers; `sample` is one draw's logits, with numbers that are given;
    `averaged` makes one answer ``(N, classes)`` of several draws' logits ``(draws, N, classes)``.
    """

    def __call__(self, pictures: Tensor, keys: Tensor | None = None) -> Tensor: ...
    def sample(self, pictures: Tensor, draws: Draws) -> Tensor: ...
    def averaged(self, answers: Tensor) -> Tensor: ...


def input_gradient(model: Callable[[Tensor], Tensor], pictures: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the cross-entropy, summed over the pictures, with respect to them.

    The sum, not the mean: a picture's gradient then does not depend on how many others are in the batch, and gets no smaller.

    Args:
        model: pictures -> logits ``(N, classes)``.
        pictures: float ``(N, ...)``.
        labels: int64 ``(N,)``.

    Returns:
        Like `pictures`. Nothing else has a gradient afterwards that had none before.
    """

    def loss(x: Tensor) -> Tensor:
        logits = model(x)  # in bfloat16 1 minus a large probability would be 0
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return functional.cross_entropy(logits, labels, reduction="sum")

    return _input_gradient(loss, pictures)


def _input_gradient(value: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = pictures.detach().requires_grad_()
        found = value(leaf)
        gradient = torch.autograd.grad(found, leaf, allow_unused=True)[0] if found.requires_grad else None
        if gradient is None:
            raise AugendError("the model passes no gradient to its input (it detaches it, or works without gradients)")
    return gradient


def expected_gradient(model: Randomised, samples: int, of: Literal["answer", "loss"] = "answer") -> Gradient:
    """What to ascend against a model that draws: expectation over transformation, with fresh draws at every step.

    Whoever attacks a randomised model must do this (Athalye and others 2018): one draw's gradient is that of another model.

    Args:
        model: `augend.TestTimeSums`, or anything with such a `sample` and `averaged`.
        samples: draws a step.
        of: "answer": the gradient of the cross-entropy of the answer averaged over these draws, as the model averages: what
            decides. It is the mean over the draws of each one's gradient, all led by the average. "loss": the mean of the
            gradients of each draw's own cross-entropy, in which draws that are wrong already weigh most: mostly weaker.

    Cost: a forward and a backward pass a draw; with "answer" one more forward pass, so that no two graphs are in memory.
    """
    _whole("samples", samples)
    if of not in ("answer", "loss"):
        raise AugendError(f"of is {of!r}; it is one of answer, loss")

    def gradient(pictures: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        fresh = [draws.child(f"sample/{number}") for number in range(samples)]
        with torch.no_grad():
            answers = torch.stack([model.sample(pictures, one) for one in fresh])
        with torch.enable_grad():
            answers.requires_grad_()
            losses = functional.cross_entropy(model.averaged(answers), labels, reduction="sum")
            (towards,) = torch.autograd.grad(losses, answers)
        total = torch.zeros_like(pictures)
        for one, share in zip(fresh, towards, strict=True):
            total += _input_gradient(lambda x, one=one, share=share: (model.sample(x, one) * share).sum(), pictures)  # type: ignore[misc]
        return total

    def mean(pictures: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        total = torch.zeros_like(pictures)
        for number in range(samples):
            fresh = draws.child(f"sample/{number}")
            total += input_gradient(lambda x, fresh=fresh: model.sample(x, fresh), pictures, labels)  # type: ignore[misc]
        return total.div_(samples)

    return gradient if of == "answer" else mean


def fgsm(
    model: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    eps: float = EPS,
    *,
    samples: int | None = None,
    gradient: Gradient | None = None,
    draws: Draws | None = None,
) -> Tensor:
    """The fast gradient sign method: one step of eps along the sign of the gradient (Goodfellow and others 2015).

    Args:
        model: pictures -> logits ``(N, classes)``, in eval mode.
        pictures: float32 ``(N, ...)`` in [0, 1]; they are left as they are.
        labels: int64 ``(N,)``, the true classes.
        eps: the budget in [0, 1]: no pixel moves by more, to the last bit. 0: the pictures themselves.
        samples: None: the gradient of the model as it answers. n: that of n fresh draws, averaged (`expected_gradient`).
        gradient: what to ascend instead of the cross-entropy's gradient.
        draws: a row a picture, where something is drawn; a picture's numbers follow from its key, by default its place.

    Returns:
        float32 like `pictures`, in [0, 1] and within eps of them.

    Raises:
        AugendError: the model is in train mode, pictures are not float32 in [0, 1], labels do not fit, a number is wrong.

    Cost: one forward and one backward pass.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
        >>> pictures, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0])
        >>> attacked = fgsm(model, pictures, labels, eps=4 / 255)
        >>> bool((attacked - pictures).abs().max() <= 4 / 255)
        True
    """
    return fgsm_sweep(model, pictures, labels, [eps], samples=samples, gradient=gradient, draws=draws)[0]


def fgsm_sweep(
    model: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    eps: Sequence[float],
    *,
    samples: int | None = None,
    gradient: Gradient | None = None,
    draws: Draws | None = None,
) -> Tensor:
    """`fgsm` at several budgets from one gradient: float32 ``(len(eps), N, ...)``, each equal to `fgsm` at its own.

    Arguments, errors and cost are those of `fgsm`: one gradient, however many budgets.
    """
    budgets = [_budget(one) for one in eps]
    draws = _checked(model, pictures, labels, draws)
    ask = gradient_of(model, samples) if gradient is None else gradient
    x = pictures.detach()
    if not any(budgets):
        return torch.stack([x.clone() for _ in budgets])
    sign = ask(x, labels, draws.child("restart/0").child("step/0")).sign()
    return torch.stack([within(_moved(x, sign, one, x, one), x, one) for one in budgets])


def bim(
    model: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    eps: float = EPS,
    *,
    alpha: float | None = None,
    steps: int = 10,
    samples: int | None = None,
    gradient: Gradient | None = None,
    draws: Draws | None = None,
) -> Tensor:
    """The basic iterative method: steps of alpha from the picture itself, kept within eps (Kurakin and others 2017).

    With one step of eps it is `fgsm`.

    Args:
        model, pictures, labels, eps, samples, gradient, draws: as of `fgsm`.
        alpha: how far a step moves each pixel; default eps/10.
        steps: how many.

    Returns:
        float32 like `pictures`, in [0, 1] and within eps of them.

    Cost: a forward and a backward pass a step.
    """
    alpha = eps / 10 if alpha is None else alpha
    return _attack(model, pictures, labels, eps, alpha, steps, None, 1, False, samples, gradient, draws)


def mim(
    model: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    eps: float = EPS,
    *,
    alpha: float | None = None,
    steps: int = 10,
    decay: float = 1.0,
    samples: int | None = None,
    gradient: Gradient | None = None,
    draws: Draws | None = None,
) -> Tensor:
    """The momentum iterative method: `bim` along a running sum of gradients (Dong and others 2018).

    Each gradient is divided by its mean absolute value over the picture, then added to `decay` times the sum so far. With
    decay 0 it is `bim`: a division by a positive number changes no sign. A picture without any gradient stays where it is.

    Args:
        model, pictures, labels, eps, alpha, steps, samples, gradient, draws: as of `bim`.
        decay: how much of the sum so far is kept, 0 or more.

    Returns:
        float32 like `pictures`, in [0, 1] and within eps of them.

    Cost: a forward and a backward pass a step.
    """
    alpha = eps / 10 if alpha is None else alpha
    if not (math.isfinite(decay) and decay >= 0):
        raise AugendError(f"decay is {decay}; it must be a number from 0 on")
    return _attack(model, pictures, labels, eps, alpha, steps, decay, 1, False, samples, gradient, draws)


def pgd(
    model: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    eps: float = EPS,
    *,
    alpha: float | None = None,
    steps: int = 10,
    random_start: bool = False,
    restarts: int = 1,
    samples: int | None = None,
    gradient: Gradient | None = None,
    draws: Draws | None = None,
) -> Tensor:
    """Projected gradient descent on minus the cross-entropy, with restarts (Madry and others 2018).

    Args:
        model, pictures, labels, eps, samples, gradient, draws: as of `fgsm`.
        alpha: how far a step moves each pixel; default eps/4, which is the thesis' 2/255 at its 8/255.
        steps: how many a start.
        random_start: begin anywhere in the ball, drawn from `draws`, and not at the picture (as the thesis does).
        restarts: how many starts; those after the first are random. Of each picture's results the `worst` for the model as it
            answers is kept. So more never help the model.

    Returns:
        float32 like `pictures`, in [0, 1] and within eps of them.

    Cost: a forward and a backward pass a step and restart (times `samples`), and from the second restart on two answers each.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
        >>> pictures, labels = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 0])
        >>> one, more = (pgd(model, pictures, labels, restarts=restarts) for restarts in (1, 3))
        >>> bool((model(more).argmax(1) == labels).sum() <= (model(one).argmax(1) == labels).sum())
        True
    """
    alpha = eps / 4 if alpha is None else alpha
    return _attack(model, pictures, labels, eps, alpha, steps, None, restarts, random_start, samples, gradient, draws)


def worst(model: nn.Module, candidates: Sequence[Tensor], labels: Tensor, keys: Tensor | None = None) -> Tensor:
    """Of several attacked versions of each picture the one that is worst for the model as it answers.

    A wrong answer is worse than a right one; then the larger cross-entropy counts; of equals the first is taken.

    Args:
        model: in eval mode.
        candidates: each float32 ``(N, ...)``, attacked from the same pictures.
        labels: int64 ``(N,)``.
        keys: the pictures' numbers, where the model draws (`Randomised`).

    Returns:
        float32 ``(N, ...)``.
    """
    if not candidates:
        raise AugendError("attacks: the worst of no candidates was asked for")
    best = candidates[0]
    wrong, loss = _score(model, best, labels, keys)
    for other in candidates[1:]:
        also, more = _score(model, other, labels, keys)
        better = (also & ~wrong) | ((also == wrong) & (more > loss))
        best = torch.where(better.view(-1, *[1] * (best.ndim - 1)), other, best)
        wrong, loss = torch.where(better, also, wrong), torch.where(better, more, loss)
    return best


def _score(model: nn.Module, pictures: Tensor, labels: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which pictures the model as it answers gets wrong, and their cross-entropy."""
    with torch.no_grad():
        logits = model(pictures, keys) if isinstance(model, Randomised) else model(pictures)
        return logits.argmax(1) != labels, functional.cross_entropy(logits, labels, reduction="none")


def within(moved: Tensor, pictures: Tensor, eps: float) -> Tensor:
    """The nearest float32 pictures that lie in [0, 1] and, in exact arithmetic, at most eps from `pictures`.

    >>> x, eps = torch.tensor([0.1]), 8 / 255
    >>> float((x + eps) - x) > eps, float(within(x + eps, x, eps) - x) <= eps
    (True, True)
    """
    exact, budget = pictures.double(), torch.tensor(float(eps), dtype=torch.float64)
    # the largest float32 that is no more than eps: a sum with it is exact in float64, and so are comparisons in float32
    budget = _rounded(budget, down=True).double().to(pictures.device)
    low, high = _rounded(exact - budget, down=False), _rounded(exact + budget, down=True)
    return torch.clamp(moved, low.clamp_(min=0), high.clamp_(max=1))


def _rounded(values: Tensor, *, down: bool) -> Tensor:
    """float64 -> the nearest float32 on one side."""
    near = values.float()
    wrong = near.double() > values if down else near.double() < values
    return torch.where(wrong, torch.nextafter(near, torch.full_like(near, -math.inf if down else math.inf)), near)


def _moved(now: Tensor, sign: Tensor, alpha: float, x: Tensor, eps: float) -> Tensor:
    """A step, and back into the ball and the range of pixels; with these roundings it is the libraries' step."""
    return torch.add(now, sign, alpha=alpha).sub_(x).clamp_(-eps, eps).add_(x).clamp_(0, 1)


def _attack(
    model: nn.Module,
    pictures: Tensor,
    labels: Tensor,
    eps: float,
    alpha: float,
    steps: int,
    decay: float | None,
    restarts: int,
    random_start: bool,
    samples: int | None,
    gradient: Gradient | None,
    draws: Draws | None,
) -> Tensor:
    _budget(eps)
    if not (math.isfinite(alpha) and alpha >= 0):
        raise AugendError(f"alpha is {alpha}; it must be a number from 0 on")
    _whole("steps", steps)
    _whole("restarts", restarts)
    draws = _checked(model, pictures, labels, draws)
    ask = gradient_of(model, samples) if gradient is None else gradient
    x = pictures.detach()
    if eps == 0:
        return x.clone()
    ends: list[Tensor] = []
    for restart in range(restarts):
        now = x
        if random_start or restart:
            noise = draws.child(f"start/{restart}").uniform(x[0].numel(), -1.0, 1.0)
            now = (x + eps * noise.view(x.shape).to(x.device)).clamp_(0, 1)
        own, total = draws.child(f"restart/{restart}"), None
        for step in range(steps):
            found = ask(now, labels, own.child(f"step/{step}"))
            if decay is not None:
                found = torch.where(found.isnan(), 0, found)  # or one pixel without a slope holds its picture for good
                size = found.abs().mean(dim=tuple(range(1, found.ndim)), keepdim=True)
                found = found / torch.where(size > 0, size, 1.0)
                found = total = found if total is None else found + decay * total
            now = _moved(now, found.sign(), alpha, x, eps)
        ends = [*ends, within(now, x, eps)]
        if restart:  # two at a time, so that no more are in memory
            ends = [worst(model, ends, labels, draws.keys)]
    return ends[0]


def gradient_of(model: nn.Module, samples: int | None = None) -> Gradient:
    """What attacks ascend if nothing else is said: of the model as it answers, or with `samples` of that many fresh draws."""
    if samples is None:
        if isinstance(model, Randomised):
            return lambda pictures, labels, draws: input_gradient(lambda x: model(x, draws.keys), pictures, labels)
        return lambda pictures, labels, draws: input_gradient(model, pictures, labels)
    if not isinstance(model, Randomised):
        raise AugendError(f"samples is {samples}, but this model draws nothing (it has no `sample`); leave samples out")
    return expected_gradient(model, samples)


def in_bfloat16(gradient: Gradient) -> Gradient:
    """The same gradient by passes in bfloat16, for machines that are fast at these: near to it, and no more that of other
    libraries to the bit. What an attack ends on is still judged in full precision.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    >>> bim(model, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), gradient=in_bfloat16(gradient_of(model))).dtype
    torch.float32
    """

    def found(pictures: Tensor, labels: Tensor, draws: Draws) -> Tensor:
        with torch.autocast(pictures.device.type, torch.bfloat16):
            return gradient(pictures, labels, draws)

    return found


def _checked(model: nn.Module, pictures: Tensor, labels: Tensor, draws: Draws | None) -> Draws:
    """Refuse what would attack something else than was meant; the draws."""
    training = next((name or "the model" for name, part in model.named_modules() if part.training), None)
    if training is not None:
        raise AugendError(
            f"the model is in train mode ({training}); call .eval() first: what is attacked must hold still"
        )
    if pictures.dtype != torch.float32 or pictures.ndim < 2 or not len(pictures):
        found = f"{str(pictures.dtype).removeprefix('torch.')} {tuple(pictures.shape)}"
        raise AugendError(f"pictures must be float32 (N, ...) in [0, 1], found {found}")
    if not bool(((pictures >= 0) & (pictures <= 1)).all()):
        raise AugendError(
            f"pictures must lie in [0, 1], found {float(pictures.min()):g} to {float(pictures.max()):g}; normalisation "
            "belongs inside the model"
        )
    if labels.dtype != torch.int64 or labels.shape != pictures.shape[:1]:
        found = f"{str(labels.dtype).removeprefix('torch.')} {tuple(labels.shape)}"
        raise AugendError(f"labels must be int64 ({len(pictures)},), one a picture, found {found}")
    draws = Draws(0, "attack", keys=len(pictures)) if draws is None else draws
    if len(draws.keys) != len(pictures):
        raise AugendError(f"draws have {len(draws.keys)} rows for {len(pictures)} pictures")
    return draws


def _budget(eps: float) -> float:
    if not 0 <= eps <= 1:
        raise AugendError(f"eps is {eps}; it must lie in [0, 1], the range of pixels")
    return eps


def _whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AugendError(f"{name} is {value!r}; it must be a whole number from 1 on")
