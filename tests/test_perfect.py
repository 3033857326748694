"""Perfect ordering: the fast judge against the network, a run that is killed and goes on, what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from augend import AugendError, Draws, checkpoint
from augend.contract import Saved
from augend.order import Copies, Given, every, every_order, judge_copies
from augend.report import perfect as page
from augend.study import perfect, starts
from augend.study.processes import side_by_side
from augend.study.tables import kind_of, known_tables, whole_tables
from augend.study.windows import WindowJudge

TABLE = "procedures/table-2-1"


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded digits, twice as large, instead of MNIST, which not every machine has."""
    from augend.data import load
    from augend.data.pictures import Pictures

    split = load("digits")

    def pictures(*_: object) -> tuple[Pictures, Pictures]:
        return split.train.joined(split.valid), split.test

    monkeypatch.setattr(perfect, "mnist_pictures", pictures)
    table = perfect.load_perfect(TABLE)
    size = table.scales["smoke"].model_copy(update={"batches": 3, "rows": 4, "kept": 2, "judged": 64})
    small = table.model_copy(update={"scales": {"smoke": size}})
    monkeypatch.setattr(perfect, "load_perfect", lambda name: small)
    monkeypatch.setattr(every, "CHUNKS", (6,))  # timing would choose one, and another one's last bits are others


def _pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Strokes on a blank background."""
    draw = torch.Generator().manual_seed(0)
    x = torch.full((count, 1, 12, 12), -0.4)
    for number in range(count):
        row = int(torch.randint(2, 9, (1,), generator=draw))
        x[number, 0, row : row + 2, 2:9] = torch.rand(2, 7, generator=draw) * 2
    return x, torch.arange(count) % 2


def test_the_fast_judge_is_the_network() -> None:
    """Losses and accuracies of copies in different states, against the network run as it is; one picture is blank."""
    x, y = _pictures(40)
    x[3] = -0.4  # nothing but background
    model = perfect.network(0).train()
    trained = every_order(model, lambda w: torch.optim.SGD(w, lr=0.1), [(x[:8], y[:8]), (x[8:16], y[8:16])])
    fast, right = WindowJudge(x, y)(trained.copies)
    slow, accuracies = judge_copies(model, trained.copies, x, y)
    torch.testing.assert_close(fast, slow, atol=1e-5, rtol=1e-5)
    assert torch.equal(right, accuracies)
    shown = [module for module in model if isinstance(module, nn.BatchNorm2d)]
    assert len(shown) == 2 and float(trained.copies.buffers["2.running_mean"].abs().sum()) > 0


def test_the_network_is_the_papers() -> None:
    weights = sum(p.numel() for p in perfect.network(0).parameters())
    assert weights == 16 * 4 + 16 + 32 + 32 * 16 * 4 + 32 + 64 + 2 * 32 + 2
    first, second = perfect.network(0), perfect.network(1)
    assert torch.equal(first[0].weight, perfect.network(0)[0].weight) and not torch.equal(
        first[0].weight, second[0].weight
    )


def _run(out: Path, heard: list[Any] | None = None, **how: Any) -> dict[str, Any]:
    listen = (lambda now: None) if heard is None else heard.append
    asked = {"seed": 0, "root": None, "command": "augend reproduce", "listen": listen, "workers": 1, **how}
    return perfect.run_perfect(TABLE, "smoke", out, **asked)


def test_a_run_is_carried_on_and_written(digits: None, tmp_path: Path) -> None:
    heard: list[Any] = []
    found = _run(tmp_path / "run", heard)
    first, second, third = found["epochs"]
    assert first["runs"] == first["orders"] == 6 and second["orders"] == 6
    assert second["runs"] == 6 * len(first["carried"]) and third["runs"] == 6 * len(second["carried"])
    losses = np.array(first["losses"])
    assert {int(losses.argmin()), int(losses.argmax())} <= set(first["carried"]) and len(first["carried"]) <= 4
    assert first["loss"][0] <= first["loss"][1] <= first["loss"][2]
    assert first["loss"][0] == pytest.approx(losses.min(), abs=1e-6)
    assert third["loss"][2] - third["loss"][0] > 1e-4  # the order makes a difference
    assert "between" not in first and set(second["between"]) == {"starts", "orders"}
    assert heard[-1] == {"epoch": 3, "of": 3, "start": len(second["carried"]), "starts": len(second["carried"])}
    text = page.write(tmp_path / "run", found).read_text()
    assert (
        "held-out loss: running / renewed statistics" in text
        and text.count("| 3 |") == 2
        and "0.671" not in text
        and (tmp_path / "run" / "figures" / "figure-2-1.png").is_file()
    )
    printed = page.write(tmp_path / "run", {**found, "scale": "paper"}).read_text()
    assert "0.671 / 0.776 / 0.903" in printed
    assert json.loads((tmp_path / "run" / "perfect.json").read_text()) == found


def test_what_an_order_is_worth_is_asked_within_a_start() -> None:
    """Starts differ by far; within each the better orders are the worse ones on held-out pictures."""
    each, drawn = [], []
    for level in (1.0, 5.0, 9.0):
        test = level + torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
        held_of = torch.tensor([0, 1, 3, 4, 5])  # the best, the worst, and three that were drawn
        held = level + torch.tensor([0.50, 0.40, 0.20, 0.10, 0.00])
        renewed = level + torch.tensor([0.05, 0.00, 0.01, 0.02, 0.00])
        each.append({"losses": test, "right": 1 / test, "held_of": held_of, "held": held, "renewed": renewed})
        drawn.append(torch.tensor([1, 3, 4]))
    found = perfect._epoch(each, drawn, [0])
    assert found["held_correlation"] == pytest.approx(-1)  # over all of them together it would be above 0.9
    assert found["best_start"] == found["best_order"] == 0
    assert found["held_best"] == pytest.approx(1.5) and found["held_mean"] == pytest.approx(1 + 0.7 / 3)
    assert found["held_worth"] == pytest.approx(
        0.7 / 3 - 0.5
    )  # the best orders are chosen noise, and worse than others
    about = found["renewed"]
    assert about["mean"] == pytest.approx([5 + 0.7 / 3, 5 + 0.01]) and about["spread"] == pytest.approx(
        [0.1527525, 0.01], abs=1e-5
    )
    assert about["worth"] == pytest.approx(0.01 - 0.05, abs=1e-5) and about["correlation"] == pytest.approx(-1)


def test_renewed_losses_are_those_of_the_training_pictures_statistics(digits: None, tmp_path: Path) -> None:
    """Against the plain way: a model of each order, torch's own renewal, and its loss on held-out pictures."""
    found = _run(tmp_path / "run")
    table, size = perfect.load_perfect(TABLE), perfect.load_perfect(TABLE).scales["smoke"]
    pieces = perfect._pictures(table, size, 0, None)
    values, copies, _ = starts.load(tmp_path / "run" / "orders" / "epoch-02-start-00.augend")
    model, expected = perfect.network(0), []
    for number in values["held_of"].tolist():
        copies.load_into(model, number)
        torch.optim.swa_utils.update_bn([pieces.train[0]], model)
        with torch.no_grad():
            expected.append(float(torch.nn.functional.cross_entropy(model.eval()(pieces.held[0]), pieces.held[1])))
    torch.testing.assert_close(values["renewed"], torch.tensor(expected), atol=1e-5, rtol=1e-5)
    assert float((values["renewed"] - values["held"]).abs().min()) > 1e-3  # running statistics are others
    assert found["epochs"][1]["renewed"]["spread"][1] > 0


def test_a_start_of_an_earlier_version_is_refused(digits: None, tmp_path: Path) -> None:
    _run(tmp_path / "run")
    file = tmp_path / "run" / "orders" / "epoch-02-start-00.augend"
    tensors, about = checkpoint.read(file)
    del tensors["value/renewed"]
    checkpoint.write(file, tensors, about)
    with pytest.raises(AugendError, match=r"epoch-02-start-00\.augend: is of an earlier version; give another --out"):
        _run(tmp_path / "run")


def test_a_run_goes_on_with_the_runs_that_it_carried_on(digits: None, tmp_path: Path) -> None:
    """They are clusters of losses, which another version might choose otherwise; what was trained on is not mixed."""
    found = _run(tmp_path / "run")
    file = tmp_path / "run" / "carried.json"
    kept = json.loads(file.read_text())["carried"]
    assert kept == [epoch["carried"] for epoch in found["epochs"]]
    assert _run(tmp_path / "run")["epochs"] == found["epochs"]
    other = [kept[0], [*kept[1][:-1], kept[1][-1] + 1], kept[2]]
    file.write_text(json.dumps({"carried": other}))
    with pytest.raises(AugendError, match=r"carried\.json: epoch 2 carried on the runs .*, and now .* would be chosen"):
        _run(tmp_path / "run")
    file.unlink()  # a run of an earlier version: it is written now
    assert _run(tmp_path / "run")["epochs"] == found["epochs"] and json.loads(file.read_text())["carried"] == kept


def test_the_best_order_is_replayed_from_its_file(digits: None, tmp_path: Path) -> None:
    found = _run(tmp_path / "run")
    table, size = perfect.load_perfect(TABLE), perfect.load_perfect(TABLE).scales["smoke"]
    pieces = perfect._pictures(table, size, 0, None)
    order = Given(str(tmp_path / "run" / "best-order.json"))
    order.start(size.batches * size.rows, Draws(0, "order"))
    model = perfect.network(0).train()
    optimizer = torch.optim.SGD(model.parameters(), **table.optimizer)
    for step in range(size.epochs * size.batches):
        epoch, position = divmod(step, size.batches)
        picks = order.next(step, size.rows).index[:, 0]
        cut = starts.cut(size, 0, epoch)
        number = int((cut == picks).all(1).nonzero())
        x, y = (part[number] for part in starts.batches_at(pieces.train, size, 0, epoch)(position))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    losses, _ = judge_copies(model, Copies.of(model), *pieces.test)
    assert float(losses[0]) == pytest.approx(found["epochs"][-1]["loss"][0], rel=1e-4)
    names = json.loads((tmp_path / "run" / "best-order.json").read_text())["pictures"]
    assert len(names) == len(set(names)) == size.batches * size.rows


def test_a_killed_run_goes_on_to_the_same_numbers(digits: None, tmp_path: Path) -> None:
    """Every start's orders are kept; those of the start that was cut short are computed again."""

    class Killed(BaseException):
        pass

    def dying(now: Any) -> None:
        if (now["epoch"], now["start"]) == (2, 2):
            raise Killed

    whole = _run(tmp_path / "whole")
    with pytest.raises(Killed):
        _run(tmp_path / "killed", listen=dying)
    done = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "killed" / "orders").iterdir()}
    assert len(done) == 3
    again = _run(tmp_path / "killed")
    assert all((tmp_path / "killed" / "orders" / name).stat().st_mtime_ns == when for name, when in done.items())
    for one, other in zip(whole["epochs"], again["epochs"], strict=True):
        assert one["carried"] == other["carried"]
        assert one["losses"] == other["losses"]


def test_processes_side_by_side_change_no_bit(digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = _run(tmp_path / "alone")
    monkeypatch.setattr(starts, "WORTH", 0.0)
    heard: list[Any] = []
    begun: list[int] = []
    monkeypatch.setattr(
        starts,
        "side_by_side",
        lambda work, left, *args, **how: (begun.append(len(left)), side_by_side(work, left, *args, **how))[1],
    )
    beside = _run(tmp_path / "beside", heard, workers=2)
    assert begun == [len(epoch["carried"]) for epoch in alone["epochs"][:2]]  # in the first epoch there is one start
    assert beside["epochs"] == alone["epochs"]
    assert [now["start"] for now in heard] == [
        number + 1 for epoch in alone["epochs"] for number in range(epoch["runs"] // epoch["orders"])
    ]
    for file in (tmp_path / "alone" / "orders").iterdir():
        one, other = starts.load(file), starts.load(tmp_path / "beside" / "orders" / file.name)
        assert one[1].weights.keys() == other[1].weights.keys() and one[1].state
        for part in ("weights", "buffers"):
            mine, theirs = getattr(one[1], part), getattr(other[1], part)
            assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
        for name, own in one[1].state.items():
            assert all(torch.equal(value, other[1].state[name][key]) for key, value in own.items())
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_one_line(digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "WORTH", 0.0)

    def killing(now: Any) -> None:
        if now["epoch"] == 2:
            os.kill(multiprocessing.active_children()[-1].pid or 0, signal.SIGKILL)

    with pytest.raises(AugendError, match=r"a process that tried a start has died .* repeat the command to go on"):
        _run(tmp_path / "run", listen=killing, workers=2)
    assert not multiprocessing.active_children()
    assert _run(tmp_path / "run")["epochs"] == _run(tmp_path / "other")["epochs"]


def test_a_run_keeps_its_number_of_threads(digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    one = starts.Starts.one
    monkeypatch.setattr(
        starts.Starts,
        "one",
        lambda self, task: (seen.append((torch.get_num_threads(), self.threads)), one(self, task))[1],
    )
    before = torch.get_num_threads()
    _run(tmp_path / "run")
    assert set(seen) == {(1, 1)} and torch.get_num_threads() == before
    request = json.loads((tmp_path / "run" / "request.json").read_text())
    (tmp_path / "run" / "request.json").write_text(json.dumps({**request, "threads": 2}))
    next((tmp_path / "run" / "orders").glob("epoch-03*")).unlink()
    seen.clear()
    _run(tmp_path / "run")
    assert seen == [(2, 2)] and torch.get_num_threads() == before


def test_an_interrupt_ends_the_processes_too(digits: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "WORTH", 0.0)

    def impatient(now: Any) -> None:
        if now["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(Saved):
        _run(tmp_path / "run", listen=impatient, workers=2)
    assert not multiprocessing.active_children()
    assert _run(tmp_path / "run")["epochs"] == _run(tmp_path / "other")["epochs"]


def test_an_interrupt_ends_it_at_once_and_says_how_to_go_on(digits: None, tmp_path: Path) -> None:
    def impatient(now: Any) -> None:
        if (now["epoch"], now["start"]) == (2, 1):
            raise KeyboardInterrupt

    with pytest.raises(Saved, match="starts that are done are kept") as caught:
        _run(tmp_path / "run", listen=impatient)
    assert caught.value.code == 130 and len(list((tmp_path / "run" / "orders").iterdir())) == 2
    assert not (tmp_path / "run" / "perfect.json").exists()


def test_what_it_refuses(digits: None, tmp_path: Path) -> None:
    _run(tmp_path / "run")
    with pytest.raises(AugendError, match="holds another run"):
        _run(tmp_path / "run", seed=1)
    with pytest.raises(AugendError, match="there is no scale 'huge'"):
        perfect.run_perfect(TABLE, "huge", tmp_path / "x", seed=0, root=None, command="", listen=print)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("keep")
    with pytest.raises(AugendError, match="is not empty and holds no run"):
        _run(tmp_path / "other")
    assert (tmp_path / "other" / "mine.txt").read_text() == "keep"
    assert kind_of(TABLE) == whole_tables()[TABLE] == "perfect-ordering" and TABLE not in known_tables()
    assert len(Copies.of(perfect.network(0))) == 1
