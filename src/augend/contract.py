"""The types and protocols that cross rooms. No logic lives here.

Every room imports this module; it imports nothing of augend. The split it fixes is the one the whole house rests on:
an order returns *picks*, data turns picks into pictures, an augmentation turns pictures into named *views*, networks turn
views into tensors at *addresses*, terms turn tensors into one loss a row, and *slices* say which weights move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from augend.randomness import Draws

__all__ = [
    "AugendError",
    "Augment",
    "Batch",
    "Component",
    "Losses",
    "Mixing",
    "Order",
    "Pairing",
    "Picks",
    "Probe",
    "Saved",
    "Taken",
    "Term",
]


class AugendError(ValueError):
    """A mistake in what the user gave: a file, a recipe, an argument, a checkpoint.

    The message is one line: what is wrong, where, what to do. The command prints it alone and exits with code 2.
    """


class Saved(AugendError):
    """A run stopped early on a signal; everything is saved. Carries the exit code (130 interrupted, 75 asked to stop)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Component:
    """A registered word with its options, as a recipe writes it: ``{groups: {copies: 3}}``.

    Option names are Python identifiers here (``residual-of`` in YAML is ``residual_of``).
    """

    word: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Losses:
    """What a batch costs under some weights.

    Attributes:
        terms: name -> weighted scalar; their sum is what is minimised.
        rows: float32 ``(rows,)``, each row's own share of it, without a gradient; None where rows cannot be told apart.
    """

    terms: Mapping[str, Tensor]
    rows: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The scalar that is minimised."""
        values = list(self.terms.values())
        return sum(values[1:], values[0])


@dataclass(frozen=True)
class Taken:
    """A step that an order tried and that is the step: its gradients need not be computed again.

    Attributes:
        gradients: name of a weight -> its gradient, None where nothing reached it.
        buffers: name -> what the forward made of a running statistic.
        losses: of the batch, before the step.
    """

    gradients: Mapping[str, Tensor | None]
    buffers: Mapping[str, Tensor]
    losses: Losses


@dataclass(frozen=True)
class Picks:
    """Rows to train on: each row is made of one or more pictures.

    Attributes:
        index: int64 ``(rows, sources)``, picture numbers within the phase's training data.
        copy: int64 ``(rows,)``, which of a finite augmentation's variants this row shows, or None (drawn).
        weight: float32 ``(rows,)``, weight of each row's loss, or None (all 1).
        taken: what the step's forward and backward gave, where the order has done them as training would.
    """

    index: Tensor
    copy: Tensor | None = None
    weight: Tensor | None = None
    taken: Taken | None = None


@dataclass
class Batch:
    """What a step sees.

    Attributes:
        views: name -> pixels in [0, 1], float32 ``(rows, C, H, W)``; ``"x"`` when there is one view. A view whose
            frozen part is cached is absent here and present in `cached`.
        targets: int64 ``(rows,)``, the class of each row's (first) picture.
        ids: int64 ``(rows,)``, the picture number that triplets group by.
        weight: float32 ``(rows,)`` or None.
        params: view -> what was drawn for it, float32 ``(rows, p)``.
        soft: view -> float32 ``(rows, classes)``, the targets of a view whose pictures are mixed, instead of `targets`.
        deferred: address -> view -> parameters of the augmentations that act on that tensor instead of on the pixels.
        partners: address -> view -> int64 ``(rows,)``, which row of the whole batch each row of that tensor is mixed with.
        parts: address -> view -> int64 ``(rows, k)``, the classes of the k pictures a row that are summed in that tensor.
            Up to there the view has rows * k pictures, those of a row next to one another.
        cached: network -> tensor -> view -> features ``(rows, ...)`` taken from the cache of the frozen part.
    """

    views: dict[str, Tensor]
    targets: Tensor
    ids: Tensor
    weight: Tensor | None = None
    params: dict[str, Tensor] = field(default_factory=dict)
    soft: dict[str, Tensor] = field(default_factory=dict)
    deferred: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    partners: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    cached: dict[str, dict[str, dict[str, Tensor]]] = field(default_factory=dict)


class Probe(Protocol):
    """How an order sees the model without importing a room; made by the runner, or by the user of a bare loop.

    Attributes:
        model: holds every weight and running statistic that a step may change.
        optimizer: whose step is tried.
        clip: largest gradient norm of a step, or None.
        rank, ranks: candidates are shared out: this process looks at numbers rank, rank + ranks, …
        held: how many held-out pictures there are to score on.
    """

    model: nn.Module
    optimizer: Optimizer
    clip: float | None
    rank: int
    ranks: int
    held: int

    def batch(self, picks: Picks, *, redrawn: bool = False) -> Batch:
        """The pictures as the coming step would see them (`redrawn`: augmented by other random numbers)."""

    def external(self, index: Tensor) -> Batch:
        """Held-out pictures by their numbers, int64 ``(rows,)``, as validation sees them."""

    def loss(self, state: Mapping[str, Tensor] | None, batch: Batch) -> Losses:
        """Under the live weights, or with those in `state` in their place; modes are left as they are."""

    def gather(self, scores: Tensor) -> Tensor:
        """The sum of every rank's scores, each zero where a candidate was another's."""

    def table(self, file: str, column: str) -> Tensor:
        """float32 ``(size,)``: what a column of a file says of each training picture."""

    def taught(self, network: str, column: str) -> Tensor:
        """float32 ``(size,)``, on the CPU: what another network says now of each training picture, as validation sees it:
        its loss ("score") or how unsure it is ("entropy")."""


@runtime_checkable
class Order(Protocol):
    """Which examples come next. `next` returns the picks of the whole global batch, the same on every rank.

    Attributes that may be absent, and are False then: `sees`, it asks the model, so `start` gets a probe; `single`, it
    chooses single pictures and cannot fill rows of several; `cuts`, it cuts epochs into batches whose size must not change.
    """

    pure: bool
    hears: frozenset[Literal["loss", "gradient"]]

    def start(self, size: int, draws: Draws, probe: Probe | None, variants: int | None) -> None: ...
    def next(self, step: int, rows: int, sources: int, progress: float) -> Picks: ...
    def feedback(self, picks: Picks, *, loss: Tensor | None, gradient: Tensor | None) -> None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None: ...


@runtime_checkable
class Augment(Protocol):
    """What examples become: `draw` makes parameters (CPU, per row), `apply` uses them (batched, on the device).

    `variants` is the number of outcomes when finite (1: none, 2: a flip, 5: five rotations), None when infinite. A finite
    augmentation draws one column, the variant number; `copy` dictates it.
    """

    variants: int | None

    def sources(self, progress: float) -> int: ...
    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor: ...
    def apply(self, x: Tensor, params: Tensor) -> Tensor: ...


@runtime_checkable
class Mixing(Protocol):
    """An augmentation that makes one row of several pictures, targets included.

    The order picks `sources` pictures for each row. `mix` gets k tensors ``(rows, ...)``, each row's first pictures, its
    second, …, and their targets, k times float32 ``(rows, classes)``; it returns ``(rows, ...)`` and ``(rows, classes)``.
    With an attribute `integers` that is True, `mix` also takes uint8 pictures, and returns float32 in [0, 1].
    """

    variants: int | None

    def sources(self, progress: float) -> int: ...
    def draw(self, draws: Draws, progress: float, copy: Tensor | None = None) -> Tensor: ...
    def mix(self, x: Sequence[Tensor], targets: Sequence[Tensor], params: Tensor) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Pairing(Mixing, Protocol):
    """A mixing of the batch with itself: one picture is picked for each row (`sources` is 1), and `mix` gets two, the row's
    own and that of its partner, which is another row of the batch. So a step sees as many pictures as rows.

    `partners` says which: of the rows `keys`, int64 ``(n,)``, in a batch of `rows`. It must be a permutation of the batch
    and a function of these numbers alone, so that several ranks make the same pairs.
    """

    def partners(self, keys: Tensor, rows: int) -> Tensor: ...


class Term(Protocol):
    """What is minimised: an nn.Module on tensors. The recipe's `of`, `to` and `weight` are not the component's.

    Attributes:
        labels: whether `targets` are needed.
        soft: whether they may be float ``(rows, classes)`` (after mixing) instead of int64 ``(rows,)``; False where absent.
        joint: True: called once with all tensors of `of`; False: called on each, the results averaged over views of one
            network and summed over networks.
        coupled: rows are compared with each other (mining), so on several ranks the tensors are gathered first.
    """

    labels: bool
    joint: bool
    coupled: bool

    def __call__(
        self,
        *tensors: Tensor,
        targets: Tensor | None = None,
        ids: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Tensor: ...
