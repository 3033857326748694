"""What a person sees while training runs: a live table on a terminal, one plain line per interval elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from augend.cli.remaining import Remaining, recipe_of

__all__ = ["Decoding", "Looking", "StudyDisplay", "Timing", "TrainDisplay"]

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


class Decoding(_Display):
    """How far the decoding of a folder is; silent while it takes less than a second."""

    def __call__(self, done: int, total: int) -> None:
        """Hear of files done, of files in all."""
        if self._due(1.0) or (done == total and self._shown > self.begun):
            self.say(f"decoding: {done} of {total} pictures")


class Timing(_Display):
    """How many recipes have been timed; silent while it takes less than `EVERY`."""

    def __call__(self, done: int, total: int) -> None:
        """Hear of recipes done, of all."""
        if self._due(EVERY):
            self.say(f"timing: {done} of {total} recipes")


class Looking(_Display):
    """How many pictures a model has been shown; silent while it takes less than `EVERY`."""

    def __call__(self, name: str, done: int, total: int) -> None:
        """Hear of a model's pictures done, of all."""
        if self._due(EVERY):
            self.say(f"{name}: {done} of {total} pictures")


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
            self._now |= {key: values[key] for key in ("phase", "step", "steps", "total")}
            self._first, self._phase_begun = int(values["global_step"]), time.monotonic()
            spec = values["plan"]
            moving = ", ".join(str(part) for part in spec.train)
            how = f"{spec.steps} steps of {spec.rows}" if spec.fit is None else spec.fit.word
            self.say(f"phase {spec.name}: {how}, trains {moving}")
        elif kind == "fit":
            self.say(
                f"phase {values['phase']}: {values['rows']} rows of {values['features']} features, "
                f"penalty {values['penalty']:.3g}, loss {values['loss']:.4f}"
            )
            if not values["converged"]:
                self.say(f"phase {values['phase']}: the solution has not converged; give a stronger penalty")
        elif kind == "augmenter":
            score = (
                "nothing moves"
                if values["score"] is None
                else f"score {values['score']:.3f} (1 perfect, 0 the identity)"
            )
            self.say(f"phase {values['phase']}: {values['network']} on {values['pictures']} held-out pictures: {score}")
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
        steps = f" {now.get('step', 0)}/{now['steps']}" if now.get("steps") else ""
        parts = [f"{now.get('phase', '')}{steps}"]
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

    def __init__(self, study: Any, work: Mapping[str, float] | None = None) -> None:
        """`study`: an `augend.study.request.Study`, of which some trials may be finished; `work`: see `Remaining`."""
        from augend.study.running import workers_for

        super().__init__(False)
        record = study.record
        self.titles = {recipe["name"]: recipe["title"] for recipe in record["recipes"]}
        self.steps: dict[str, int] = {name: record["plan"][name]["steps"] for name in self.titles}
        self.trials: list[str] = study.names
        pending = study.pending
        self.done = set(self.trials) - set(pending)
        self.progress: dict[str, int] = {name: self.steps[recipe_of(name)] for name in self.done}
        self.valid: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        predicted = {name: one["total"] for name, one in (record.get("predicted") or {}).items()}
        self.remaining = Remaining(pending, self.steps, workers_for(study), predicted, work or {})

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Hear an event of a worker."""
        trial, kind = str(event.get("trial", "")), event["kind"]
        self.remaining.hear(event)
        if kind in ("line", "valid"):
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
        elif kind == "tuned":
            for name, about in event["rates"].items():
                tried = ", ".join(f"{rate}: {_percent(value)}" for rate, value in about["tried"].items())
                self.say(f"tuned {name}: {about['override']} (validation accuracy {tried})")
        elif kind == "note":
            self.say(f"{trial}: {event['text']}" if trial else str(event["text"]))
        if self._due(0.2):
            self._show()

    def _left(self) -> str:
        left = self.remaining.seconds()
        return "" if left is None else f"about {_seconds(left)} left"

    def _other(self) -> str:
        """What runs beside the table's trials: tuning before them, the last model after them."""
        others = [name for name in self.progress if "/" in name and name not in self.done]
        return f"{others[-1]}, step {self.progress[others[-1]]}" if others else ""

    def _show(self) -> None:
        if self.live is None:
            done = sum(name in self.done for name in self.trials)
            parts = [f"{done} of {len(self.trials)} trials done", self._other(), self._left()]
            self.say("; ".join(part for part in parts if part))
            return
        table = Table(box=None, pad_edge=False)
        for heading in ("procedure", "trials", "steps", "valid so far"):
            table.add_column(heading, justify="left" if heading == "procedure" else "right")
        for recipe, title in self.titles.items():
            names = [name for name in self.trials if recipe_of(name) == recipe]
            scores = [self.valid[name] for name in names if name in self.valid]
            table.add_row(
                recipe if title in ("", recipe) else f"{title} ({recipe})",
                f"{sum(name in self.done for name in names)}/{len(names)}",
                f"{sum(self.progress.get(name, 0) for name in names)}/{self.steps[recipe] * len(names)}",
                f"{100 * sum(scores) / len(scores):.1f} %" if scores else "",
            )
        table.caption = "   ".join(part for part in (self._other(), self._left()) if part)
        self.live.update(table, refresh=True)


def _percent(share: float | None) -> str:
    return "failed" if share is None else f"{100 * share:.1f} %"
