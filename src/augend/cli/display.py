"""What a person sees while training runs: a live table on a terminal, one plain line per interval elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

__all__ = ["StudyDisplay", "TrainDisplay"]

EVERY = 10.0  # seconds between plain lines


def _seconds(value: float) -> str:
    minutes, seconds = divmod(round(value), 60)
    if minutes >= 100:
        return f"{minutes // 60}:{minutes % 60:02d} h"
    return f"{minutes}:{seconds:02d} min" if minutes else f"{seconds} s"


class _Display:
    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self.live = Live(console=self.console, auto_refresh=False, transient=True) if self.console.is_terminal else None
        self.begun = self._shown = time.monotonic()

    def __enter__(self) -> _Display:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live is not None:
            self.live.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _due(self, terminal: float = 0.1) -> bool:
        now = time.monotonic()
        if now - self._shown < (terminal if self.live is not None else EVERY):
            return False
        self._shown = now
        return True


class TrainDisplay(_Display):
    """Phase, step, loss, validation accuracy, cost so far and time left of one run."""

    def __init__(self, quiet: bool = False) -> None:
        super().__init__(quiet)
        self._now: dict[str, Any] = {}
        self._phase_begun = self.begun
        self._first = 0

    def __call__(self, kind: str, values: Mapping[str, Any]) -> None:
        """Hear an event."""
        if kind == "phase":
            self._now |= {"phase": values["phase"], "steps": values["steps"], "total": values["total"]}
            self._first, self._phase_begun = int(values["global_step"]), time.monotonic()
            spec = values["plan"]
            moving = ", ".join(str(part) for part in spec.train)
            self.say(f"phase {spec.name}: {spec.steps} steps of {spec.rows}, trains {moving}")
        elif kind == "note":
            self.say(str(values["text"]))
        elif kind == "valid":
            self._now["accuracy"] = values["accuracy"]
        elif kind == "cache":
            self._now["cache"] = f"cache {values['done']}/{values['total']}"
        if kind in ("line", "valid"):
            self._now |= {k: values[k] for k in ("step", "global_step", "loss", "seconds") if k in values}
        if kind in ("line", "valid", "cache") and self._due():
            self._show()

    def _show(self) -> None:
        now = self._now
        parts = [f"{now.get('phase', '')} {now.get('step', 0)}/{now.get('steps', '?')}"]
        if "loss" in now:
            parts.append(f"loss {now['loss']:.4f}")
        if "accuracy" in now:
            parts.append(f"valid {100 * now['accuracy']:.1f} %")
        if "cache" in now:
            parts.append(now.pop("cache"))
        if "seconds" in now:
            parts.append(f"training {_seconds(now['seconds'])}")
        total, done = now.get("total"), now.get("global_step", 0)
        if total and done > self._first:
            rate = (time.monotonic() - self._phase_begun) / (done - self._first)
            parts.append(f"about {_seconds(rate * (total - done))} left")
        line = "   ".join(parts)
        if self.live is None:
            self.say(line)
        else:
            self.live.update(line, refresh=True)


class StudyDisplay(_Display):
    """A table of recipes: trials done, what is running, validation accuracy so far."""

    def __init__(
        self, titles: Mapping[str, str], steps: Mapping[str, int], trials: list[str], finished: set[str]
    ) -> None:
        """`titles` and `steps` by recipe; `trials` by name, of which `finished` were done before."""
        super().__init__(False)
        self.titles, self.steps, self.trials = titles, steps, trials
        self.progress: dict[str, int] = {name: steps[_recipe(name)] for name in finished}
        self._before = sum(self.progress.values())
        self.valid: dict[str, float] = {}
        self.done = set(finished)
        self.failed: dict[str, str] = {}
        self._work_begun: float | None = None

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Hear an event of a worker."""
        trial, kind = str(event.get("trial", "")), event["kind"]
        if kind in ("line", "valid"):
            self._work_begun = self._work_begun or time.monotonic()
            self.progress[trial] = int(event["global_step"])
            if kind == "valid":
                self.valid[trial] = float(event["accuracy"])
        elif kind == "ended":
            if event["state"] == "finished":
                self.done.add(trial)
            elif event["state"] == "failed":
                self.failed[trial] = str(event["reason"])
                self.say(f"trial {trial} failed: {event['reason']}")
        elif kind == "lost":
            self.failed[trial] = "its process ended"
            self.say(
                f"trial {trial}: its process ended with code {event['code']}; run the command again to continue it"
            )
        elif kind == "note":
            self.say(f"{trial}: {event['text']}" if trial else str(event["text"]))
        if self._due(0.2):
            self._show()

    def _left(self) -> str:
        done = sum(self.progress.values())
        total = sum(self.steps[_recipe(name)] for name in self.trials)
        if self._work_begun is None or done <= self._before:
            return ""
        return f"about {_seconds((time.monotonic() - self._work_begun) * (total - done) / (done - self._before))} left"

    def _show(self) -> None:
        if self.live is None:
            self.say(f"{len(self.done)} of {len(self.trials)} trials done; {self._left()}".rstrip("; "))
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("procedure", "trials", "steps", "valid so far"):
            table.add_column(heading, justify="left" if heading == "procedure" else "right")
        for recipe, title in self.titles.items():
            names = [name for name in self.trials if _recipe(name) == recipe]
            scores = [self.valid[name] for name in names if name in self.valid]
            table.add_row(
                recipe if title in ("", recipe) else f"{title} ({recipe})",
                f"{sum(name in self.done for name in names)}/{len(names)}",
                f"{sum(self.progress.get(name, 0) for name in names)}/{self.steps[recipe] * len(names)}",
                f"{100 * sum(scores) / len(scores):.1f} %" if scores else "",
            )
        table.caption = self._left()
        self.live.update(table, refresh=True)


def _recipe(trial: str) -> str:
    return trial.rpartition("-r")[0]
