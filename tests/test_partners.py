"""Test-time sums with partners of the class that the model predicts, or of the others: mixup inference's two kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from augend import AugendError, Draws, TestTimeSums, load
from augend.evaluate.attacks import pgd, worst
from augend.evaluate.grid import grid_of
from augend.evaluate.threats import asked
from augend.pixels import to_float
from augend.runner.job import Job
from augend.study.attacked import attacked
from augend.study.grid import grid
from runs import SMALL, splits_of, train
from toys import CLASSES, one_thread, pictures, trained  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")
Kind = Literal["predicted", "others"]
KINDS: tuple[Kind, ...] = ("predicted", "others")


def allowed(kind: Kind, labels: Tensor, said: int) -> list[int]:
    """Numbers of the references that may be partners, class by class, as they stand in the bank."""
    rows = [n for c in range(CLASSES) for n in range(len(labels)) if int(labels[n]) == c]
    return [n for n in rows if (int(labels[n]) == said) == (kind == "predicted")]


def by_hand(sums: TestTimeSums, x: Tensor, labels: Tensor, kind: Kind) -> Tensor:
    """Each draw's logits, picture by picture, from the class that the model alone says."""
    assert sums.references is not None
    found = []
    for number in range(sums.draws):
        rows = []
        for key, one in enumerate(x):
            mine = allowed(kind, labels, int(sums.model(one[None]).argmax()))
            draws = Draws(sums.seed, "test-time-sums", number, torch.tensor([key]))
            chosen = [mine[int(n)] for n in draws.integers(len(mine), sums.k - 1)[0]]
            total = sums.weight * one + sum(sums.references[n] for n in chosen)
            rows.append(sums.model((total / (sums.weight + sums.k - 1))[None])[0])
        found.append(torch.stack(rows))
    return torch.stack(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 4])
def test_the_answer_by_hand(kind: Kind, k: int) -> None:
    x, _ = pictures(12, 1)
    bank, labels = pictures(60, 2)
    with torch.no_grad():
        sums = TestTimeSums(trained(), bank, k, 2.0, draws=4, partners=kind, labels=labels)
        wanted = by_hand(sums, x, labels, kind)
        torch.testing.assert_close(sums.answers(x), wanted, rtol=1e-4, atol=1e-4)
        assert torch.equal(sums.classify(x).classes, wanted.mean(0).argmax(1))
        anyone = TestTimeSums(trained(), bank, k, 2.0, draws=4)
        assert not torch.allclose(anyone(x), sums(x), atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_partner_of_its_kind_comes_as_often(kind: Kind) -> None:
    bank, labels = pictures(40, 2)
    sums = TestTimeSums(trained(), bank, k=2, partners=kind, labels=labels)
    for said in range(CLASSES):
        chosen = sums._of_class(Draws(0, "often", keys=8000), torch.full((8000,), said))[:, 0]
        mine = allowed(kind, labels, said)
        assert set(chosen.tolist()) == set(mine)
        counts = chosen.bincount(minlength=40)[mine].double()
        expected = 8000 / len(mine)
        assert float(((counts - expected) ** 2 / expected).sum()) < 2 * len(mine) + 20  # chi squared


@pytest.mark.parametrize("kind", KINDS)
def test_stopping_early_changes_no_decision(kind: Kind) -> None:
    bank, labels = pictures(60, 2)
    x, _ = pictures(40, 3)
    sums = TestTimeSums(trained(), bank, weight=3.0, draws=9, average="probabilities", partners=kind, labels=labels)
    for ask in (sums.vote, sums.classify):
        early, whole = ask(x), ask(x, stop=False)
        assert torch.equal(early.classes, whole.classes) and early.share < 1
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(sums(x[order], order), sums(x)[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_is_these_sums(kind: Kind, tmp_path: Path) -> None:
    train(tmp_path / "run", "plain", settings="quick", budget="60step")
    words = f"weight=2,draws=3,partners={kind}"
    found = attacked(tmp_path / "run", asked("pgd", "8/255", words, samples=2, restarts=2, steps=3))
    split = splits_of(Job(data=SMALL, recipe="plain"))["main"]
    model = load(tmp_path / "run")
    x, y, numbers = to_float(split.test.pixels), split.test.labels, torch.arange(len(split.test))
    sums = TestTimeSums(model, split.train.pixels, 2, 2.0, 3, partners=kind, labels=split.train.labels)
    draws = Draws(0, "attack/pgd", keys=numbers)
    how: dict[str, Any] = {"steps": 3, "restarts": 2, "draws": draws}
    with torch.no_grad():
        clean = (sums(x, numbers).argmax(1) == y).double().mean()
    moved = [pgd(sums, x, y, 8 / 255, samples=2, **how), pgd(model, x, y, 8 / 255, **how)]
    with torch.no_grad():
        adaptive = (sums(worst(sums, moved, y, numbers), numbers).argmax(1) == y).double().mean()
    means = {(one["attack"], one["threat"]): one["accuracy"]["mean"] for one in found["models"]["run"]["conditions"]}
    assert means["clean", "test-time sums"] == pytest.approx(float(clean))
    assert means["pgd", "adaptive"] == pytest.approx(float(adaptive))
    assert found["asked"]["sums"]["partners"] == kind
    (points,) = grid(tmp_path / "run", asked(None, sums=words), grid_of(words))["models"].values()
    assert points["points"][0]["conditions"][0]["accuracy"]["mean"] == pytest.approx(float(clean))


def test_answers_that_were_kept_are_found_again() -> None:
    """What was kept when partners had no kinds is named by options without one."""
    assert "partners" not in asked(None, sums="k=2").common["sums"]
    assert asked(None, sums="partners=others").common["sums"]["partners"] == "others"


def test_what_cannot_be() -> None:
    bank, labels = pictures(30, 2)
    x, _ = pictures(3, 1)
    with pytest.raises(AugendError, match="partners is 'same'; it is one of any, predicted, others"):
        TestTimeSums(trained(), bank, partners="same")  # type: ignore[arg-type]
    for wrong, said in ((None, "none"), (labels[:5], r"\(5,\)")):
        with pytest.raises(AugendError, match=rf"partners=others needs the references' labels, \(30,\), found {said}"):
            TestTimeSums(trained(), bank, partners="others", labels=wrong)
    with pytest.raises(AugendError, match="goes by labels; give references and labels to the constructor"):
        TestTimeSums(trained(), None, partners="predicted")(x, references=bank)
    said = int(trained()(x[:1]).argmax())
    few = bank[labels != said], labels[labels != said]
    with pytest.raises(AugendError, match=f"no reference is of a class {said}, which the model predicts"):
        TestTimeSums(trained(), few[0], partners="predicted", labels=few[1])(x[:1])
    same = bank[labels == said], labels[labels == said]
    with pytest.raises(AugendError, match=f"no reference is of a class other than {said}"):
        TestTimeSums(trained(), same[0], partners="others", labels=same[1])(x[:1])
    with pytest.raises(AugendError, match="partners is 'near'"):
        asked(None, sums="partners=near")
    with pytest.raises(AugendError, match="references, average and partners have one"):
        grid_of("partners=any|others")
