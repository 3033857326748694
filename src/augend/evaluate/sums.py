"""Test-time sums: a model asked about sums of a picture with training pictures, the answers averaged.

Source: the thesis "Deep Learning Training Procedure Augmentations", chapter 3, test time sum augmentation (Tables 3.5, 3.6).
With k = 2 and weight 1 it is mixup inference (Pang and others 2020), whose partners may be pictures of the class that the
model predicts, or of the others. The exact early stop is ours.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from augend.contract import AugendError
from augend.pixels import to_float
from augend.randomness import Draws

__all__ = ["Decision", "TestTimeSums"]

PARTNERS = ("any", "predicted", "others")
SLACK = 1e-4  # a lead must be larger than what rounding can do to a sum of probabilities; by far


class Decision(NamedTuple):
    """What was decided, and after how many draws.

    Attributes:
        classes: int64 ``(N,)``.
        used: int64 ``(N,)``, draws that were looked at for each picture.
        share: the mean of `used` over the number of draws, in [0, 1].
    """

    classes: Tensor
    used: Tensor
    share: float


class TestTimeSums(nn.Module):
    """A trained model that sees each picture in `draws` sums with training pictures, and averages its answers.

    A sum is ``(weight * x + x_2 + ... + x_k) / (weight + k - 1)``, its partners x_2 to x_k drawn with replacement.

    Args:
        model: float32 pixels in [0, 1] -> logits ``(N, classes)``, in eval mode; normalisation inside. It is used as it is,
            and nothing of it is changed.
        references: the pictures that are partners, ``(R, ...)`` of the pictures' shape: uint8, or floats in [0, 1]. Training
            pictures, never test pictures, which would make one answer depend on the others. They are a buffer, not part of
            the state dict. None: they are given with every call.
        k: pictures in a sum, the picture itself among them; 2 or more.
        weight: of the picture itself, above 0, where each partner has 1; lambda in the thesis, which uses 1.
        draws: sums a picture (thesis: 125 for accuracy, 64 under attack).
        seed: what the partners follow from.
        average: "logits" (thesis) or "probabilities".
        partners: "any"; "predicted", pictures of the class that the model alone predicts; or "others", pictures of the other
            classes. By an attack through the sums the choice is seen as it falls, without a gradient.
        labels: int64 ``(R,)``, the references' classes; wanted where partners are not any.

    Partners are a function of the seed, a picture's number and the draw, not of what else is in the batch. Numbers are the
    `keys` of a call; without them, places in the batch. So the same call gives the same answer, and a data set that
    is evaluated in batches, with its pictures' numbers as keys, gives what one large batch gives (up to rounding: bits follow
    the batch's shape).

    Works under autograd. `augend.evaluate.attacks` can attack the answer as it is, or with expectation over fresh draws
    (``samples=16``), which a fair evaluation of such a defence needs.

    Cost: `draws` forward passes a call, and one more where partners follow the prediction (one a sum under attack); `vote`
    and, of probabilities, `classify` stop early where they can.

    Raises:
        AugendError: the model is in train mode; sizes or values do not fit; there are no references, or none of a class.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
        >>> sums = TestTimeSums(model, torch.randint(256, (50, 1, 8, 8), dtype=torch.uint8), draws=8)
        >>> pictures = torch.rand(5, 1, 8, 8)
        >>> torch.equal(sums(pictures), sums(pictures)), tuple(sums(pictures).shape)
        (True, (5, 3))
        >>> decided = sums.vote(pictures)
        >>> torch.equal(decided.classes, sums.vote(pictures, stop=False).classes), decided.share <= 1
        (True, True)
    """

    __test__ = False  # no test of pytest's, whatever its name begins with
    references: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        references: Tensor | None,
        k: int = 2,
        weight: float = 1.0,
        draws: int = 16,
        seed: int = 0,
        average: Literal["logits", "probabilities"] = "logits",
        partners: Literal["any", "predicted", "others"] = "any",
        labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("k", k, 2), ("draws", draws, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise AugendError(f"test-time sums: {name} is {value!r}; it must be a whole number from {least} on")
        if not (math.isfinite(weight) and weight > 0):
            raise AugendError(f"test-time sums: weight is {weight!r}; it must be a number above 0")
        if average not in ("logits", "probabilities"):
            raise AugendError(f"test-time sums: average is {average!r}; it is one of logits, probabilities")
        if partners not in PARTNERS:
            raise AugendError(f"test-time sums: partners is {partners!r}; it is one of {', '.join(PARTNERS)}")
        if references is not None:
            _partners(references)
            if partners != "any" and (labels is None or labels.shape != references.shape[:1]):
                found = "none" if labels is None else tuple(labels.shape)
                raise AugendError(
                    f"test-time sums: partners={partners} needs the references' labels, ({len(references)},), found {found}"
                )
        self.model, self.partners = model, partners
        self.k, self.weight, self.draws, self.seed, self.average = k, float(weight), draws, seed, average
        self.register_buffer("references", references, persistent=False)
        # references by class, those of one next to one another: (their classes, their numbers)
        self._by_class = None if labels is None else labels.cpu().sort(stable=True)
        self._still()
        self.training = False  # the model's own mode is not touched

    def forward(self, pictures: Tensor, keys: Tensor | None = None, *, references: Tensor | None = None) -> Tensor:
        """The averaged answer.

        Args:
            pictures: uint8 or floats in [0, 1], ``(N, ...)``.
            keys: int64 ``(N,)``, the pictures' numbers; default their places.
            references: other partners than those of the constructor.

        Returns:
            float32 ``(N, classes)``: the mean logits, or the logarithm of the mean probabilities. Softmax gives probabilities
            in both cases, and the largest is what `classify` says.
        """
        return self.averaged(self.answers(pictures, keys, references=references))

    def answers(self, pictures: Tensor, keys: Tensor | None = None, *, references: Tensor | None = None) -> Tensor:
        """Every draw's logits, float32 ``(draws, N, classes)``, which `averaged` averages; the arguments are those of a call.

        The first n are those that n draws would give.
        """
        _in_range("pictures", pictures)
        said = self._predicted(pictures)
        return torch.stack([self._draw(pictures, keys, number, references, said) for number in range(self.draws)])

    def sample(self, pictures: Tensor, draws: Draws) -> Tensor:
        """Logits ``(N, classes)`` of one sum, its partners given by `draws` (a row a picture): a fresh draw for an attack."""
        return self._logits(pictures, draws, None, self._predicted(pictures))

    def averaged(self, answers: Tensor) -> Tensor:
        """The answer ``(N, classes)`` that several draws' logits ``(draws, N, classes)`` make, as `forward` returns it."""
        if self.average == "logits":
            return answers.mean(0)
        return torch.logsumexp(functional.log_softmax(answers, -1), 0) - math.log(len(answers))

    def mixed(self, pictures: Tensor, partners: Tensor) -> Tensor:
        """The sums that the model sees, float32 ``(N, ...)`` in [0, 1], with partners ``(N, k - 1, ...)`` given by hand."""
        x, others = to_float(pictures), to_float(partners)
        if others.shape != (len(x), self.k - 1, *x.shape[1:]):
            wanted = (len(x), self.k - 1, *x.shape[1:])
            raise AugendError(f"test-time sums: partners are {tuple(others.shape)}; {wanted} is wanted")
        return (self.weight * x + others.sum(1)) / (self.weight + self.k - 1)

    def vote(self, pictures: Tensor, keys: Tensor | None = None, *, stop: bool = True) -> Decision:
        """The class that most draws answer; of equals the first.

        Args:
            pictures, keys: as of a call.
            stop: leave a picture once the draws that are left could not change the decision, were they all for its rival. The
                decisions are those of all draws (where logits are equal to the last bits, up to rounding).
        """
        return self._decided(pictures, keys, stop, votes=True)

    def classify(self, pictures: Tensor, keys: Tensor | None = None, *, stop: bool = True) -> Decision:
        """The class of the largest average, as of a call.

        Args:
            pictures, keys: as of a call.
            stop: leave a picture once the draws that are left could not change the decision. Of probabilities that is known,
                since each lies in [0, 1]. Logits have no bounds: all draws are used.
        """
        return self._decided(pictures, keys, stop and self.average == "probabilities", votes=False)

    def _decided(self, pictures: Tensor, keys: Tensor | None, stop: bool, votes: bool) -> Decision:
        _in_range("pictures", pictures)
        keys = torch.arange(len(pictures)) if keys is None else keys
        waiting = torch.arange(len(pictures))
        classes, used = torch.zeros(len(pictures), dtype=torch.int64), torch.full((len(pictures),), self.draws)
        seen: list[Tensor] = []  # what was answered about those that wait: (N, classes) a draw
        said = self._predicted(pictures)
        with torch.no_grad():
            for number in range(self.draws):
                rows = waiting.to(pictures.device)
                now = None if said is None else said[waiting]
                seen.append(self._draw(pictures[rows], keys[waiting], number, None, now))
                left = self.draws - number - 1
                if left == 0:
                    classes[waiting] = self._settled(torch.stack(seen), votes).cpu()
                # until half of the draws are seen, those that are left could always have their way
                elif stop and number + 1 >= left:
                    decided = _certain(torch.stack(seen), left, votes).cpu()
                    ended = waiting[decided]
                    classes[ended] = self._settled(torch.stack(seen)[:, decided.to(pictures.device)], votes).cpu()
                    used[ended] = number + 1
                    waiting = waiting[~decided]
                    if not len(waiting):
                        break
                    seen = [one[~decided.to(one.device)] for one in seen]
        share = float(used.double().mean()) / self.draws if len(used) else 0.0
        return Decision(classes.to(pictures.device), used, share)

    def _settled(self, answers: Tensor, votes: bool) -> Tensor:
        return (_counts(answers) if votes else self.averaged(answers)).argmax(1)

    def _predicted(self, pictures: Tensor) -> Tensor | None:
        """int64 ``(N,)``, on the CPU: what the model alone says, where partners follow it."""
        if self.partners == "any":
            return None
        self._still()
        with torch.no_grad():
            found: Tensor = self.model(to_float(pictures)).argmax(1).cpu()
        return found

    def _draw(
        self, pictures: Tensor, keys: Tensor | None, number: int, references: Tensor | None, said: Tensor | None
    ) -> Tensor:
        keys = torch.arange(len(pictures)) if keys is None else keys
        if keys.shape != pictures.shape[:1]:
            raise AugendError(f"test-time sums: {tuple(keys.shape)} keys for {len(pictures)} pictures")
        draws = Draws(self.seed, "test-time-sums", number, keys.cpu())
        return self._logits(pictures, draws, references, said)

    def _logits(self, pictures: Tensor, draws: Draws, references: Tensor | None, said: Tensor | None) -> Tensor:
        self._still()
        bank = self.references if references is None else references
        if bank is None:
            raise AugendError(
                "test-time sums: there are no references; give training pictures to the constructor or the call"
            )
        if references is not None:
            _partners(references)
            if said is not None:
                raise AugendError(
                    f"test-time sums: partners={self.partners} goes by labels; give references and labels to the constructor"
                )
        if bank.shape[1:] != pictures.shape[1:]:
            sizes = f"{tuple(bank.shape[1:])}, pictures {tuple(pictures.shape[1:])}"
            raise AugendError(f"test-time sums: references are {sizes}; bring them to one size")
        chosen = (draws.integers(len(bank), self.k - 1) if said is None else self._of_class(draws, said)).to(
            bank.device
        )
        partners = bank.index_select(0, chosen.flatten()).view(*chosen.shape, *bank.shape[1:]).to(pictures.device)
        found: Tensor = self.model(self.mixed(pictures, partners))
        return found.float()

    def _of_class(self, draws: Draws, said: Tensor) -> Tensor:
        """int64 ``(N, k - 1)``: numbers of references of each row's class, or of the others."""
        assert self._by_class is not None
        by_class, numbers = self._by_class
        begin = torch.searchsorted(by_class, said)[:, None]
        count = torch.searchsorted(by_class, said, right=True)[:, None] - begin
        few = count if self.partners == "predicted" else len(by_class) - count
        if int(few.min()) < 1:
            which = "" if self.partners == "predicted" else "other than "
            raise AugendError(
                f"test-time sums: no reference is of a class {which}{int(said[few.argmin()])}, which the model predicts"
            )
        place = draws.integers(few, self.k - 1)
        place = place + begin if self.partners == "predicted" else place + count * (place >= begin)
        return numbers[place]

    def _still(self) -> None:
        training = next((name or "itself" for name, part in self.model.named_modules() if part.training), None)
        if training is not None:
            raise AugendError(f"test-time sums: the model is in train mode ({training}); call .eval() on it first")

    def extra_repr(self) -> str:
        """What `repr` says of it."""
        how = f"average={self.average!r}, partners={self.partners!r}"
        return f"k={self.k}, weight={self.weight:g}, draws={self.draws}, seed={self.seed}, {how}"


def _counts(answers: Tensor) -> Tensor:
    """How many draws answer each class: ``(draws, N, classes)`` -> int64 ``(N, classes)``."""
    return functional.one_hot(answers.argmax(-1), answers.shape[-1]).sum(0)


def _certain(answers: Tensor, left: int, votes: bool) -> Tensor:
    """bool ``(N,)``: whether `left` more draws, whatever they say, leave the class that leads in front.

    Votes: the rival gets all of them; of equals the class with the smaller number wins. Probabilities: in each draw that is
    left the leader gets 0 and the rival 1.
    """
    if not votes:
        sums = functional.softmax(answers.double(), -1).sum(0)
        if sums.shape[1] < 2:
            return torch.ones(len(sums), dtype=torch.bool, device=sums.device)
        first, second = sums.topk(2, dim=1).values.unbind(1)
        return first - second > left + SLACK
    counts = _counts(answers)
    leader = counts.argmax(1, keepdim=True)
    number = torch.arange(counts.shape[1], device=counts.device)
    # one vote more for classes before the leader, who would win a tie
    rivals = counts + left + (number < leader)
    held = (counts.gather(1, leader) >= rivals) | (number == leader)
    return held.all(1)


def _partners(references: Tensor) -> None:
    if references.ndim < 2 or not len(references):
        raise AugendError(f"test-time sums: references must be (R, ...) pictures, found {tuple(references.shape)}")
    if references.dtype != torch.uint8 and not references.is_floating_point():
        raise AugendError(f"test-time sums: references must be uint8, or floats in [0, 1], found {references.dtype}")
    _in_range("references", references)


def _in_range(what: str, values: Tensor) -> None:
    """Sums of pictures in other ranges are sums of something else."""
    if values.is_floating_point() and not bool(((values >= 0) & (values <= 1)).all()):
        raise AugendError(f"test-time sums: {what} must lie in [0, 1]; normalisation belongs inside the model")
