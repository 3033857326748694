"""Workers that die, and trials that other processes have: a pool goes on, and ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from augend.study import pool as room
from augend.study.pool import Pool


@pytest.fixture(autouse=True)
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "WORKER", "idle_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def heard(pool: Pool, names: list[str]) -> list[dict[str, Any]]:
    """All events but ticks; a pool that ticks for a minute would tick for ever."""

    def until() -> Iterator[dict[str, Any]]:
        begun = time.monotonic()
        for event in pool.run(names):
            assert time.monotonic() - begun < 60, "it never ends"
            yield event

    return [event for event in until() if event["kind"] not in ("tick", "ready")]


def ended(events: list[dict[str, Any]]) -> list[str]:
    return [event["trial"] for event in events if event["kind"] == "ended" and event["state"] == "finished"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_died_is_given_nothing_more(workers: int, tmp_path: Path) -> None:
    """Tuning, trials and the last model are runs of one pool: a worker killed in the first is dead in the second."""
    with Pool(tmp_path, workers) as pool:
        events = heard(pool, ["die"])
        assert [(event["kind"], event["code"]) for event in events] == [("lost", -signal.SIGKILL)]
        assert sorted(ended(heard(pool, ["a", "b", "c"]))) == ["a", "b", "c"]
        events = heard(pool, ["a", "die", "b", "c"])  # what it leaves behind is done by the one in its place
        assert sorted(ended(events)) == ["a", "b", "c"] and [e["trial"] for e in events if e["kind"] == "lost"] == [
            "die"
        ]


def test_a_worker_killed_while_it_waits(tmp_path: Path) -> None:
    with Pool(tmp_path, 1) as pool:
        assert ended(heard(pool, ["a"])) == ["a"]
        os.kill(pool._workers[0].pid, signal.SIGKILL)
        pool._workers[0].wait()
        assert ended(heard(pool, ["b", "c"])) == ["b", "c"]


def test_a_worker_that_was_asked_to_leave_is_replaced(tmp_path: Path) -> None:
    with Pool(tmp_path, 1) as pool:
        assert ended(heard(pool, ["leave", "a"])) == ["a"]


def test_workers_that_cannot_begin_are_not_replaced_for_ever(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with Pool(tmp_path, 2) as pool:
        events = heard(pool, ["a", "b", "c", "d"])
    lost, said = [e["trial"] for e in events if e["kind"] == "lost"], [e for e in events if e["kind"] == "note"]
    assert len(lost) <= 2 and len(said) == 1 and said[0]["text"].startswith("no worker process is left")
    assert all(name in said[0]["text"] for name in "abcd" if name not in lost)


def test_a_trial_that_another_process_has_is_tried_last(tmp_path: Path) -> None:
    with Pool(tmp_path, 2) as pool:
        events = heard(pool, ["busy", "busy-once", "slow", "a"])
    given = [line.split()[1] for line in (tmp_path / "given").read_text().splitlines()]
    assert sorted(given[:4]) == ["a", "busy", "busy-once", "slow"] and sorted(given[4:]) == ["busy", "busy-once"]
    assert sorted(ended(events)) == ["a", "busy-once", "slow"]
    assert [e["state"] for e in events if e["kind"] == "ended" and e["trial"] == "busy"] == ["busy"]
    assert [e["text"] for e in events if e["kind"] == "note" and e["trial"] == "busy"] == [
        "another process is working on it; it is tried again at the end",
        "another process is working on it; it is not finished; run the command again",
    ]
