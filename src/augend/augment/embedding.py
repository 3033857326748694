"""Omega: the augmentation of an embedding, learned from pairs of pictures and their augmented versions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augend.augment.base import checked
from augend.augment.pairs import PairAugmenter, Scales, blocks
from augend.checkpoint import digest_of, plain, read_described, write_bytes
from augend.contract import AugendError, Component
from augend.models import build
from augend.models.stages import Stages
from augend.randomness import Draws, stream_key

__all__ = ["EmbeddingAugmenter", "work_into"]

SCHEMA = 1
KEY = "augend-embedding"  # of the description in a file's metadata; that of a trained model is "augend"
MOST = 1e9


class EmbeddingAugmenter(PairAugmenter):
    """Omega: a small network that maps the embedding of a picture to that of its augmented version.

    d -> `hidden` x d -> ReLU -> d, the recipes' model word ``omega``, learned by stochastic gradient descent with momentum
    and a cosine schedule on the mean squared difference. From then on augmenting takes two matrix products instead of a
    picture's pass through the backbone. An Omega stands for one augmentation, always applied: let `Z_aug` embed pictures
    that were all flipped, not half of them, or it learns the mean of both.

    The weights equal those of a recipe's phase that is called `name` and trains a network called `name`, bit for bit: same
    embeddings, seed, batch and settings (sgd, cosine without warm-up, ``match``), one thread count, one torch build. Order,
    initial weights and rate are functions of (seed, name, step) in both.

    Args:
        hidden: width of the hidden layer as a multiple of d.
        lr: learning rate, for a loss that is a mean over d, hence so high. Choose it by the score of rows that were not
            fitted, see below.
        momentum, weight_decay: of the descent.
        epochs: passes over the rows, in steps rounded up.
        batch: rows a step. A batch that begins before an epoch's end takes its rest from the next.
        standardise: learn from entries of mean 0 and deviation 1, and towards targets that are centred and divided by one
            number for all entries, so that a rate suits embeddings of any scale and the minimiser stays that of the squared
            difference. Both are worked into the weights in the end: what is kept is a plain network either way.
        seed: of initial weights and order. Torch's default generator is left as it was.
        name: of the phase and network of a recipe that this equals.

    Attributes:
        network_: the `Stages` up, relu, down, in eval mode.
        n_features_in_: d.
        steps_: of the descent.
        augmentation_, backbone_: what its file says of them, or None.

    Cost: 10 `hidden` d^2 FLOPs a row and epoch, 4 `hidden` d^2 a row to augment. Memory: another copy of the pairs, if
    standardised.

    Scores of held-out rows by rate: a rotation by 40 degrees with noise (d = 128, 12,000 rows, 20 epochs; the rotation itself
    scores 0.92): -0.07 at 0.01, 0.85 at 0.1, 0.91 at 1.0. Flips of digits (64 features of a small network, 863 rows, 50
    epochs; `RidgeAugmenter` scores 0.30): -0.41 at 0.01, 0.15 at 0.1, 0.31 at 1.0, and 3.0 diverges. 600 pictures
    under a ResNet-10 (d = 512; 200 held out): 1.0 was best of 0.01 … 1.0 for each of four augmentations, 0.01 worst.

    Example:
        >>> z = torch.randn(600, 8, generator=torch.Generator().manual_seed(0))
        >>> turned = z.roll(1, dims=1)
        >>> omega = EmbeddingAugmenter(lr=1.0, epochs=20).fit(z[:500], turned[:500])
        >>> omega.score(z[500:], turned[500:]) > 0.9
        True
        >>> omega.augment(z, p=0.5, generator=torch.Generator().manual_seed(1)).shape
        torch.Size([600, 8])

    Source: embedding, sections III.A and III.B, Equation 7. Deviations: the mean over the entries instead of their sum (the
    same minimiser); embeddings are standardised; momentum, rate, schedule, batch and epochs are ours, the paper names none.
    """

    def __init__(
        self,
        hidden: float = 2,
        *,
        lr: float = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        epochs: float = 50,
        batch: int = 128,
        standardise: bool = True,
        seed: int = 0,
        name: str = "omega",
    ) -> None:
        word = type(self).__name__
        self.hidden, self.lr = checked(word, "hidden", hidden, 0, MOST), checked(word, "lr", lr, 0, MOST)
        self.momentum = checked(word, "momentum", momentum, 0, 1)
        self.weight_decay = checked(word, "weight_decay", weight_decay, 0, MOST)
        self.epochs = checked(word, "epochs", epochs, 0, MOST)
        if checked(word, "batch", batch, 1, MOST) != int(batch):
            raise AugendError(f"{word}: batch must be a whole number of rows, found {batch!r}")
        self.batch, self.standardise, self.seed, self.name = int(batch), standardise, seed, name
        self.augmentation_: str | None = None
        self.backbone_: str | None = None

    def _network(self, width: int) -> Stages:
        key = stream_key(self.seed, "network", self.name)
        return build(Component("omega", {"hidden": self.hidden}), shape=(width,), classes=0, generator_seed=key)

    def _learn(self, z: Tensor, zg: Tensor) -> None:
        scales = Scales(z, zg) if self.standardise else None
        if scales is not None:
            z, zg = scales.entering(z), scales.leaving(zg)
        network = self._network(z.shape[1]).to(z.device).train()
        steps = max(1, math.ceil(Fraction(str(self.epochs)) * len(z) / self.batch))
        optimizer = torch.optim.SGD(
            network.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, fused=True
        )
        order = Draws(self.seed, f"{self.name}/order")
        with torch.enable_grad():
            for step, picks in enumerate(_batches(len(z), self.batch, steps, order)):
                rows = picks.to(z.device)
                loss = (network(z[rows])[""] - zg[rows]).square().mean(1).mean()
                loss.backward()
                for group in optimizer.param_groups:
                    group["lr"] = 0.5 * (1 + math.cos(math.pi * (step / steps))) * self.lr
                optimizer.step()
                optimizer.zero_grad()
        if scales is not None:
            work_into(network, scales)
        if not all(bool(torch.isfinite(weight).all()) for weight in network.parameters()):
            raise AugendError(
                f"{self._at('fit')}: training diverged at lr={self.lr:g}; lower it, or leave standardise on"
            )
        self.network_, self.steps_ = network.eval().requires_grad_(False), steps
        self.augmentation_ = self.backbone_ = None

    def _mapped(self, z: Tensor, seeds: Callable[[], Tensor]) -> Tensor:
        network = self.network_.to(z.device)
        return torch.cat([network(part)[""] for (part,) in blocks(z)])

    def save(
        self, path: str | Path, *, augmentation: str | None = None, backbone: nn.Module | str | None = None
    ) -> None:
        """Write weights and a description as safetensors, so that others can use it without the pictures it learned from.

        A recipe takes the file too: ``networks: {omega: {model: omega, input: source.features, weights: FILE}}``.

        Args:
            path: the file; one that exists is replaced in one step.
            augmentation: what it does to pictures, in words or as an augmentation's `describe()` has it.
            backbone: the network whose embeddings it takes, of whose weights a digest is kept; or such a digest.
        """
        if not hasattr(self, "network_"):
            raise AugendError(f"{self._at('save')}: nothing is learned yet; call fit(Z, Z_aug) first")
        from safetensors.torch import save

        self.augmentation_ = self.augmentation_ if augmentation is None else augmentation
        self.backbone_ = self.backbone_ if backbone is None else _named(backbone)
        tensors = plain(self.network_.get_submodule("model").state_dict())
        settings = {name: getattr(self, name) for name in _SETTINGS}
        about = {
            "schema": SCHEMA,
            "d": self.n_features_in_,
            "settings": settings,
            "steps": self.steps_,
            "augmentation": self.augmentation_,
            "backbone": self.backbone_,
        }
        about["digest"] = digest_of(tensors, json.dumps(about))
        try:
            write_bytes(Path(path), save(tensors, metadata={KEY: json.dumps(about)}))
        except OSError as error:
            raise AugendError(
                f"{path}: cannot be written ({error.strerror}); name a file in a folder that exists"
            ) from error

    @classmethod
    def load(cls, path: str | Path, *, backbone: nn.Module | str | None = None) -> EmbeddingAugmenter:
        """Read what `save` wrote, onto the CPU. Nothing is unpickled.

        Args:
            path: the file.
            backbone: the network that makes your embeddings, or a digest of it: refused when the file names another.

        Raises:
            AugendError: a file that is missing, damaged, foreign or of a newer schema, or learned on another backbone.
        """
        tensors, about = _read(Path(path))
        try:
            made = cls(**about["settings"])
            made.n_features_in_, made.steps_ = int(about["d"]), int(about["steps"])
            made.augmentation_, made.backbone_ = about["augmentation"], about["backbone"]
            made.network_ = made._network(made.n_features_in_).eval().requires_grad_(False)
            made.network_.get_submodule("model").load_state_dict(tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            said = " ".join(str(error).split())[:200]
            raise AugendError(f"{path}: its weights do not fit its description ({said}); get the file anew") from error
        given = None if backbone is None else _named(backbone)
        if given is not None and made.backbone_ is not None and given != made.backbone_:
            raise AugendError(
                f"{path}: learned on a backbone with the digest {made.backbone_}, yours has {given}; fit one on your own "
                "embeddings"
            )
        return made


_SETTINGS = ("hidden", "lr", "momentum", "weight_decay", "epochs", "batch", "standardise", "seed", "name")


def _batches(size: int, rows: int, steps: int, order: Draws) -> Iterator[Tensor]:
    """int64 ``(rows,)`` a step, from shuffled epochs one after the other: the picks of the order ``shuffle``."""
    left, epoch = torch.empty(0, dtype=torch.int64), 0
    for _ in range(steps):
        while len(left) < rows:
            left = torch.cat([left, torch.randperm(size, generator=order.child(f"epoch/{epoch}").generator())])
            epoch += 1
        yield left[:rows]
        left = left[rows:]


def work_into(network: Stages, scales: Scales) -> None:
    """Let an Omega of standardised embeddings take embeddings as they come, and give them so."""
    up, down = (network.get_submodule(f"model.{stage}") for stage in (network.names[0], network.names[-1]))
    assert isinstance(up, nn.Linear) and isinstance(down, nn.Linear)
    with torch.no_grad():
        weight = up.weight.double() * scales.inverse
        up.bias.copy_(up.bias.double() - weight @ scales.mean)
        up.weight.copy_(weight)
        down.weight.copy_(down.weight.double() * scales.size)
        down.bias.copy_(down.bias.double() * scales.size + scales.target)


def _named(backbone: nn.Module | str) -> str:
    return digest_of(backbone.state_dict()) if isinstance(backbone, nn.Module) else backbone


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise AugendError(f"{path}: there is no such file; name one that EmbeddingAugmenter.save wrote")
    tensors, metadata = read_described(path)
    if KEY not in metadata:
        raise AugendError(
            f"{path}: holds no augmentation of embeddings; name a file that EmbeddingAugmenter.save wrote"
        )
    try:
        about: dict[str, Any] = json.loads(metadata[KEY])
        schema = about["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise AugendError(f"{path}: damaged, its description cannot be read; get the file anew") from error
    if schema != SCHEMA:
        raise AugendError(f"{path}: written by a newer augend (schema {schema}); update this one")
    if about.pop("digest", None) != digest_of(tensors, json.dumps(about)):
        raise AugendError(f"{path}: damaged, its content is not what was written; get the file anew")
    return tensors, about
