"""Test-time sums: by hand, the same whatever is beside them, and an early stop that changes no decision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import augend
from augend import AugendError, Draws, TestTimeSums
from augend.evaluate.attacks import Randomised, expected_gradient, fgsm, input_gradient, pgd, worst
from toys import CLASSES, accuracy, one_thread, pictures, trained  # noqa: F401

pytestmark = pytest.mark.usefixtures("one_thread")


class Told(nn.Module):
    """Answers what a table says: the draws of `TestTimeSums` come in order, and its pictures hold their row's number."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table, self.draw = table, -1  # (draws, N, classes)
        self.asked = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.draw += 1
        self.asked += len(x)
        return self.table[self.draw, x.flatten(1)[:, 0].mul(2000).round().long()]


def told(table: Tensor, average: Any = "logits") -> tuple[TestTimeSums, Tensor]:
    """Sums over partners that are black and weigh nothing to speak of, and pictures that say which row they are."""
    rows = torch.arange(table.shape[1]).float().view(-1, 1) / 2000
    sums = TestTimeSums(Told(table), torch.zeros(3, 1), weight=1e6, draws=len(table), average=average)
    return sums, rows


def by_hand(sums: TestTimeSums, x: Tensor, keys: list[int]) -> list[Tensor]:
    """Each draw's logits, picture by picture."""
    assert sums.references is not None
    bank = sums.references.float() / (255 if sums.references.dtype == torch.uint8 else 1)
    answers = []
    for number in range(sums.draws):
        rows = []
        for one, key in zip(x, keys, strict=True):
            chosen = Draws(sums.seed, "test-time-sums", number, torch.tensor([key])).integers(len(bank), sums.k - 1)[0]
            total = sums.weight * one
            for partner in chosen.tolist():
                total = total + bank[partner]
            rows.append(sums.model((total / (sums.weight + sums.k - 1))[None])[0])
        answers.append(torch.stack(rows))
    return answers


@pytest.mark.parametrize(("k", "weight"), [(2, 1.0), (2, 4.0), (4, 0.5), (8, 2.0)])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_the_answer_by_hand(k: int, weight: float, kind: str) -> None:
    x, _ = pictures(6, 1)
    bank = pictures(40, 2)[0]
    references = (bank * 255).round().byte() if kind == "uint8" else bank
    with torch.no_grad():
        for average in ("logits", "probabilities"):
            sums = TestTimeSums(trained(), references, k, weight, draws=5, seed=3, average=average)  # type: ignore[arg-type]
            answers = torch.stack(by_hand(sums, x, list(range(6))))
            wanted = answers.mean(0) if average == "logits" else answers.softmax(-1).mean(0).log()
            torch.testing.assert_close(sums(x), wanted, rtol=1e-4, atol=1e-4)
            assert torch.equal(sums.classify(x).classes, sums(x).argmax(1))
            counts = torch.stack([(answers.argmax(-1) == c).sum(0) for c in range(CLASSES)], 1)
            assert torch.equal(sums.vote(x).classes, counts.argmax(1))


def test_sums_by_hand() -> None:
    sums = TestTimeSums(trained(), pictures(4, 1)[0], k=3, weight=2.0)
    x = torch.full((1, 1, 2, 2), 0.5)
    partners = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])[None]
    assert torch.equal(sums.mixed(x, partners), torch.full((1, 1, 2, 2), (2 * 0.5 + 0 + 1) / 4))
    bytes_ = (255 * partners).byte()
    assert torch.equal(sums.mixed((255 * x).byte(), bytes_), (2 * (x * 255).floor() / 255 + 1) / 4)


def test_it_draws_the_same_again_whatever_is_beside() -> None:
    x, _ = pictures(30, 3)
    sums = TestTimeSums(trained(), pictures(50, 4)[0], draws=4)
    state = torch.get_rng_state()
    with torch.no_grad():
        whole = sums(x)
        torch.manual_seed(9)
        assert torch.equal(whole, sums(x)) and not torch.equal(
            whole, TestTimeSums(trained(), sums.references, seed=1)(x)
        )
        order = torch.randperm(30)
        torch.testing.assert_close(sums(x[order], order), whole[order], rtol=1e-5, atol=1e-5)
        for rows in torch.arange(30).split(7):
            torch.testing.assert_close(sums(x[rows], rows), whole[rows], rtol=1e-5, atol=1e-5)
        assert torch.equal(sums.vote(x[20:], torch.arange(20, 30)).classes, sums.vote(x).classes[20:])
        given = TestTimeSums(trained(), None, draws=4)
        assert torch.equal(given(x, references=sums.references), whole)
    torch.set_rng_state(state)


def test_nothing_is_changed_and_references_are_no_weights() -> None:
    model, (x, y) = trained(), pictures(20, 5)
    state, generator = {key: one.clone() for key, one in model.state_dict().items()}, torch.get_rng_state()
    sums = augend.TestTimeSums(model, pictures(50, 4)[0], draws=4)
    sums(x), sums.vote(x), sums.classify(x)
    pgd(sums, x, y, steps=2, samples=2, restarts=2)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(one, state[key]) for key, one in model.state_dict().items())
    assert all(one.grad is None for one in model.parameters()) and not any(one.training for one in sums.modules())
    assert sums.state_dict().keys() == {f"model.{key}" for key in state}
    assert (
        "references" in dict(sums.named_buffers())
        and isinstance(sums, Randomised)
        and not isinstance(model, Randomised)
    )


def test_gradients_flow_and_their_expectation_is_the_mean_over_fresh_draws() -> None:
    model, (x, y) = trained(), pictures(8, 6)
    sums = TestTimeSums(model, pictures(50, 4)[0], draws=3, weight=2.0)
    leaf = x.clone().requires_grad_()
    nn.functional.cross_entropy(sums(leaf), y, reduction="sum").backward()
    assert leaf.grad is not None and bool(leaf.grad.abs().sum((1, 2, 3)).gt(0).all())
    model.zero_grad(set_to_none=True)
    torch.testing.assert_close(input_gradient(sums, x, y), leaf.grad)
    assert torch.equal(fgsm(sums, x, y), fgsm(sums, x, y))
    draws = Draws(1, "attack", keys=8)
    each = [input_gradient(lambda z, n=n: sums.sample(z, draws.child(f"sample/{n}")), x, y) for n in range(5)]  # type: ignore[misc]
    torch.testing.assert_close(expected_gradient(sums, 5, "loss")(x, y, draws), torch.stack(each).mean(0))
    for average in ("logits", "probabilities"):
        sums = TestTimeSums(model, pictures(50, 4)[0], draws=3, weight=2.0, average=average)  # type: ignore[arg-type]

        def answer(z: Tensor, of: TestTimeSums = sums) -> Tensor:
            return of.averaged(torch.stack([of.sample(z, draws.child(f"sample/{n}")) for n in range(5)]))

        found = expected_gradient(sums, 5)(x, y, draws)
        torch.testing.assert_close(found, input_gradient(answer, x, y), rtol=1e-4, atol=1e-6)
        assert all(one.grad is None for one in model.parameters())
    assert not torch.equal(each[0], each[1])  # fresh partners
    assert not torch.equal(fgsm(sums, x, y, samples=1), fgsm(sums, x, y, samples=1, draws=Draws(2, "other", keys=8)))


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("draws", [1, 2, 7, 16])
def test_the_early_stop_changes_no_vote(classes: int, draws: int) -> None:
    """Thousands of random cases, from unanimous to torn, ties among them."""
    draw = torch.Generator().manual_seed(classes * 100 + draws)
    rows = 1500
    lean = 4 * torch.rand(1, rows, classes, generator=draw) * torch.rand(1, rows, 1, generator=draw) ** 2
    table = lean + torch.randn(draws, rows, classes, generator=draw)
    sums, x = told(table)
    stopped = sums.vote(x)
    shown = sums.model.asked  # type: ignore[union-attr]
    sums, x = told(table)
    full = sums.vote(x, stop=False)
    counts = torch.nn.functional.one_hot(table.argmax(-1), classes).sum(0)
    assert torch.equal(full.classes, counts.argmax(1)) and full.share == 1 and int(full.used.min()) == draws
    assert torch.equal(stopped.classes, full.classes)
    assert shown == int(stopped.used.sum()) and stopped.share == pytest.approx(shown / (rows * draws))
    if draws > 2:
        assert stopped.share < 1
    # and no picture was kept longer than needed: before the last draw that was seen, a rival could still have won
    for row in range(0, rows, 50):
        used = int(stopped.used[row]) - 1
        seen = torch.bincount(table[:used, row].argmax(-1), minlength=classes)
        leader, left = int(seen.argmax()), draws - used
        rival = [int(seen[c]) + left + (c < leader) > int(seen[leader]) for c in range(classes) if c != leader]
        assert any(rival)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("draws", [1, 5, 16])
def test_the_early_stop_changes_no_mean_of_probabilities(classes: int, draws: int) -> None:
    draw = torch.Generator().manual_seed(classes * 100 + draws)
    rows = 1500
    lean = 12 * torch.randn(1, rows, classes, generator=draw) * torch.rand(1, rows, 1, generator=draw)
    table = lean + 2 * torch.randn(draws, rows, classes, generator=draw)
    sums, x = told(table, "probabilities")
    stopped = sums.classify(x)
    sums, x = told(table, "probabilities")
    full = sums.classify(x, stop=False)
    sums, x = told(table, "probabilities")
    assert torch.equal(stopped.classes, full.classes) and torch.equal(full.classes, sums(x).argmax(1))
    assert torch.equal(full.classes, table.double().softmax(-1).sum(0).argmax(1))
    assert full.share == 1 and (draws == 1 or stopped.share < 1)
    sums, x = told(table)
    assert sums.classify(x).share == 1  # logits have no bounds


def test_the_early_stop_on_a_trained_model() -> None:
    x, y = pictures(300, 7)
    sums = TestTimeSums(trained(), pictures(200, 4)[0], weight=3.0, draws=16, average="probabilities")
    votes, means = sums.vote(x), sums.classify(x)
    assert torch.equal(votes.classes, sums.vote(x, stop=False).classes)
    assert torch.equal(means.classes, sums.classify(x, stop=False).classes)
    with torch.no_grad():
        assert torch.equal(means.classes, sums(x).argmax(1))
    assert 9 / 16 <= votes.share < 0.8 and votes.share <= means.share < 0.95
    assert float((votes.classes == y).float().mean()) > 0.6


def test_going_through_the_sums_is_the_stronger_attack() -> None:
    """All against the same defence. Which partners come is worth something, too: who knows them does best."""
    model, (x, y) = trained(), pictures(150, 8)
    sums = TestTimeSums(model, pictures(200, 4)[0], draws=8)
    clean, eps = accuracy(sums, x, y), 8 / 255
    moved = pgd(model, x, y, eps)
    through = pgd(sums, x, y, eps, samples=16)
    transferred, adaptive = (accuracy(sums, one, y) for one in (moved, through))
    assert 0.5 < adaptive < transferred < clean
    assert accuracy(sums, pgd(sums, x, y, eps), y) < adaptive
    taken = worst(sums, [through, moved], y)
    right = [sums(one).argmax(1) == y for one in (taken, through, moved)]
    assert torch.equal(right[0], right[1] & right[2])


def test_mistakes_are_one_line() -> None:
    bank, model = pictures(5, 1)[0], trained()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"k": 1}, "k is 1"),
        ({"draws": 0}, "draws is 0"),
        ({"weight": 0.0}, r"weight is 0\.0"),
        ({"weight": math.inf}, "weight is inf"),
        ({"average": "votes"}, "average is 'votes'"),
        ({"references": bank + 1}, r"references must lie in \[0, 1\]"),
        ({"references": bank.long()}, "references must be uint8"),
        ({"references": bank[:0]}, r"references must be \(R"),
        ({"model": nn.Sequential(nn.Linear(2, 2))}, "train mode"),
    ]
    for given, said in wrong:
        with pytest.raises(AugendError, match=said):
            TestTimeSums(**{"model": model, "references": bank, **given})
    x = pictures(3, 1)[0]
    for sums, arguments, said in [
        (TestTimeSums(model, None), (x,), "there are no references"),
        (TestTimeSums(model, bank[..., :4]), (x,), "bring them to one size"),
        (TestTimeSums(model, bank), (x, torch.arange(2)), "keys for 3 pictures"),
        (TestTimeSums(model, bank), (255 * x,), r"pictures must lie in \[0, 1\]"),
    ]:
        with pytest.raises(AugendError, match=said):
            sums(*arguments)
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    sums = TestTimeSums(own, bank)
    sums.train()
    with pytest.raises(AugendError, match="train mode"):
        sums(x)
