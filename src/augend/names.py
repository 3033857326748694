"""Recipe words and public names, as strings only: "module:attribute", imported when first used.

`BUILTIN` says what a word of a recipe means, `PUBLIC` what `augend.NAME` is. Third parties add words by
`@augend.register.objective("my-loss")` (also order, augment, model, data) in a file that the user names with `--plugin`.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from augend.contract import AugendError

__all__ = ["BUILTIN", "PUBLIC", "known", "listed", "load_plugin", "lookup", "nearest", "options", "register"]

LISTED = 40  # more words than these make no line that anybody reads

BUILTIN: dict[str, dict[str, str]] = {
    "order": {
        "shuffle": "augend.order.shuffle:Shuffle",
        "groups": "augend.order.groups:Groups",
        "by-loss": "augend.order.scored:ByLoss",
        "sample-by-loss": "augend.order.scored:SampleByLoss",
        "by-delta": "augend.order.scored:ByDelta",
        "by-score": "augend.order.scored:ByScore",
        "random-scores": "augend.order.scored:RandomScores",
        "infobatch": "augend.order.infobatch:InfoBatch",
        "grab": "augend.order.grab:GraB",
        "given": "augend.order.given:Given",
    },
    "augment": {
        "hflip": "augend.augment.geometry:HFlip",
        "vflip": "augend.augment.geometry:VFlip",
        "crop": "augend.augment.geometry:PaddedCrop",
        "resized-crop": "augend.augment.geometry:ResizedCrop",
        "rotate": "augend.augment.geometry:Rotate",
        "rotations": "augend.augment.geometry:Rotations",
        "affine": "augend.augment.geometry:Affine",
        "brightness": "augend.augment.colour:Brightness",
        "contrast": "augend.augment.colour:Contrast",
        "saturation": "augend.augment.colour:Saturation",
        "hue": "augend.augment.colour:Hue",
        "jitter": "augend.augment.colour:Jitter",
        "grayscale": "augend.augment.colour:Grayscale",
        "erase": "augend.augment.colour:Erase",
        "noise": "augend.augment.colour:Noise",
        "trivial": "augend.augment.trivial:Trivial",
        "one-of": "augend.augment.oneof:OneOf",
        "mixup": "augend.augment.mix:MixUp",
        "cutmix": "augend.augment.mix:CutMix",
        "sum": "augend.augment.sums:SumAugmentation",
        "pair": "augend.augment.sums:SamplePairing",
        "torchvision": "augend.augment.foreign:Torchvision",
        "apply": "augend.augment.network:Apply",
    },
    "objective": {
        "cross-entropy": "augend.objective.classification:CrossEntropy",
        "binary-cross-entropy": "augend.objective.classification:BinaryCrossEntropy",
        "batch-triplet": "augend.objective.triplet:BatchTriplet",
        "soft-margin-triplet": "augend.objective.triplet:SoftMarginTriplet",
        "softmax-triplet": "augend.objective.triplet:SoftmaxTriplet",
        "invariance": "augend.objective.agreement:AugmentationInvariance",
        "mutual": "augend.objective.agreement:MutualLearning",
        "match": "augend.objective.matching:Match",
        "bernoulli": "augend.objective.likelihood:Bernoulli",
        "gaussian": "augend.objective.likelihood:Gaussian",
        "gaussian-kl": "augend.objective.likelihood:GaussianKL",
    },
    "fit": {
        "logistic": "augend.stages.fit:Logistic",
        "ridge": "augend.augment.embedding_controls:RidgeAugmenter",
        "pca": "augend.stages.pca:Pca",
    },
    "model": {
        "figure1": "augend.models.small:figure1",
        "figure1-authors": "augend.models.small:figure1_authors",
        "figure1-wide": "augend.models.small:figure1_wide",
        "small": "augend.models.small:small",
        "linear": "augend.models.small:linear",
        "mlp": "augend.models.small:mlp",
        "omega": "augend.models.small:omega",
        "resnet": "augend.models.resnet:resnet",
        "preresnet": "augend.models.resnet:preresnet",
        "resnet18-cifar": "augend.models.resnet:resnet18_cifar",
        "wide-resnet": "augend.models.resnet:wide_resnet",
        "mobilenetv2-cifar": "augend.models.mobilenet:mobilenetv2_cifar",
        "vgg16-cifar": "augend.models.vgg:vgg16_cifar",
        "inception-v3-cifar": "augend.models.inception:inception_v3_cifar",
        "denoising-vae": "augend.models.vae:DenoisingVAE",
        "pca": "augend.models.vae:PrincipalComponents",
        "latent-head": "augend.models.vae:latent_head",
    },
    "data": {
        "digits": "augend.data.digits:digits",
        "tilted-digits": "augend.data.tilt:tilted_digits",
        "mnist": "augend.data.named:mnist",
        "mnist-tilt": "augend.data.tilt:mnist_tilt",
        "cifar10": "augend.data.named:cifar10",
        "cifar100": "augend.data.named:cifar100",
    },
}

PUBLIC: dict[str, str] = {
    "AugendError": "augend.contract:AugendError",
    "AugmentationInvariance": "augend.objective.agreement:AugmentationInvariance",
    "Batch": "augend.contract:Batch",
    "BinaryCrossEntropy": "augend.objective.classification:BinaryCrossEntropy",
    "Bernoulli": "augend.objective.likelihood:Bernoulli",
    "CutMix": "augend.augment.mix:CutMix",
    "DenoisingVAE": "augend.models.vae:DenoisingVAE",
    "Draws": "augend.randomness:Draws",
    "EmbeddingAugmenter": "augend.augment.embedding:EmbeddingAugmenter",
    "Gaussian": "augend.objective.likelihood:Gaussian",
    "GaussianKL": "augend.objective.likelihood:GaussianKL",
    "IdentityAugmenter": "augend.augment.embedding_controls:IdentityAugmenter",
    "MixUp": "augend.augment.mix:MixUp",
    "MutualLearning": "augend.objective.agreement:MutualLearning",
    "NoiseAugmenter": "augend.augment.embedding_controls:NoiseAugmenter",
    "Picks": "augend.contract:Picks",
    "RidgeAugmenter": "augend.augment.embedding_controls:RidgeAugmenter",
    "SamplePairing": "augend.augment.sums:SamplePairing",
    "SoftMarginTriplet": "augend.objective.triplet:SoftMarginTriplet",
    "SoftmaxTriplet": "augend.objective.triplet:SoftmaxTriplet",
    "SumAugmentation": "augend.augment.sums:SumAugmentation",
    "TestTimeSums": "augend.evaluate.sums:TestTimeSums",
    "batch_hard": "augend.objective.triplet:batch_hard",
    "batch_hardest": "augend.objective.triplet:batch_hardest",
    "cache_trunk": "augend.stages.cache:cache_trunk",
    "compare": "augend.study.compare:compare",
    "export": "augend.report.handover:export",
    "fit": "augend.study.fit:fit",
    "freeze_below": "augend.stages.freeze:freeze_below",
    "gradual_coefficients": "augend.augment.sums:gradual_coefficients",
    "load": "augend.evaluate.load:load",
    "random_triplets": "augend.objective.triplet:random_triplets",
    "split_model": "augend.models.split:split_model",
}

OWN = "own-"  # words of models that came as objects, through `augend.fit`
_ADDED: dict[str, dict[str, Any]] = {kind: {} for kind in BUILTIN}
_T = TypeVar("_T", bound=Callable[..., Any])


def known(kind: str) -> list[str]:
    """All words of a kind ("order", "augment", "objective", "model", "data"), sorted."""
    return sorted({*BUILTIN[kind], *_ADDED[kind]})


def nearest(word: str, words: list[str]) -> str:
    """``"; did you mean 'x'?"``, or an empty string when nothing is near."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(word: str, words: list[str]) -> str:
    """The words, separated by commas; of more than `LISTED` those that are like `word`, and how many more there are.

    >>> listed("aug-tf", ["ft", "plain"]), listed("x-7", [f"x-{n}7" for n in range(90)]).count(",")
    ('ft, plain', 6)
    """
    if len(words) <= LISTED:
        return ", ".join(words) or "none"
    some = difflib.get_close_matches(word, words, n=6, cutoff=0.3) or words[:6]
    return f"{', '.join(some)}, and {len(words) - len(some)} more"


def imported(target: str) -> Any:
    """The object that "module:attribute" names."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def lookup(kind: str, word: str) -> Any:
    """The class or function that a recipe's word means."""
    if word in _ADDED[kind]:
        return _ADDED[kind][word]
    if word not in BUILTIN[kind]:
        words = known(kind)
        raise AugendError(f"unknown {kind} {word!r}{nearest(word, words)} (known: {', '.join(words)})")
    return imported(BUILTIN[kind][word])


def options(kind: str, word: str) -> dict[str, inspect.Parameter]:
    """The options a word takes, in order, as parameters of its constructor (context arguments left out)."""
    parameters = inspect.signature(lookup(kind, word)).parameters
    context = {"reduction", "shape", "classes", "num_classes", "root", "generator"}
    return {name: p for name, p in parameters.items() if name not in context}


class _Register:
    """`@augend.register.objective("my-loss")`: adds a word of your own to the recipes of this process."""

    def _add(self, kind: str, word: str) -> Callable[[_T], _T]:
        def add(target: _T) -> _T:
            if word in BUILTIN[kind] and _ADDED[kind].get(word) is None:
                raise AugendError(f"{kind} {word!r} is built in; register yours under another word")
            _ADDED[kind][word] = target
            return target

        return add

    def order(self, word: str) -> Callable[[_T], _T]:
        """Register a class that follows `augend.contract.Order`."""
        return self._add("order", word)

    def augment(self, word: str) -> Callable[[_T], _T]:
        """Register a class that follows `augend.contract.Augment` or `Mixing`."""
        return self._add("augment", word)

    def objective(self, word: str) -> Callable[[_T], _T]:
        """Register an nn.Module that follows `augend.contract.Term` (attributes it lacks get their defaults)."""
        return self._add("objective", word)

    def model(self, word: str) -> Callable[[_T], _T]:
        """Register ``build(*options, shape, classes) -> nn.Module``."""
        return self._add("model", word)

    def data(self, word: str) -> Callable[[_T], _T]:
        """Register ``build(*options, root) -> augend.data.Split``."""
        return self._add("data", word)


register = _Register()


def own_model(word: str, model: Any) -> None:
    """Let a word mean copies of this module, for `augend.fit`; a later call may give the word another meaning."""

    def build(*, shape: tuple[int, ...], classes: int) -> Any:
        return copy.deepcopy(model)  # training or loading by the word must not write into the user's own

    _ADDED["model"][word] = build


def load_plugin(path: str | Path) -> None:
    """Run a file of the user's that registers components."""
    file = Path(path)
    if not file.is_file():
        raise AugendError(f"--plugin {path}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"augend_plugin_{file.stem}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except AugendError:
        raise
    except Exception as error:
        raise AugendError(f"--plugin {path}: {type(error).__name__}: {error}") from error
