"""What a run remembers between steps: where it is, what it has measured, what it must save; everything `runner` does not do.

The runner loops; the keeper resolves the next phase, restores and saves checkpoints, writes lines of metrics at steps
fixed by the plan, evaluates, watches for a plateau or a best epoch, and listens for a signal to stop.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from augend.checkpoint import read, write
from augend.contract import AugendError, Saved
from augend.cost import Ledger
from augend.data.pictures import Pictures, Split
from augend.evaluate.predict import logits
from augend.recipes.durations import look_steps, resolve_steps
from augend.recipes.plan import PhasePlan, Plan
from augend.recipes.schedules import OnPlateau
from augend.runner import curve
from augend.runner.assembly import Scene, build_networks, slices_of
from augend.runner.augmenters import worked_in
from augend.runner.folder import RunFolder
from augend.runner.hardware import Hardware
from augend.runner.monitor import Monitor
from augend.runner.optimizer import build_optimizer, load_optimizer, save_optimizer
from augend.runner.stop import Stop
from augend.stages.average import Average

__all__ = ["Keeper", "Listener", "silent"]

Listener = Callable[[str, Mapping[str, Any]], None]

LINE_EVERY = 50  # steps between lines of metrics: the only places where the host waits for the device
SAVE_SECONDS = 10.0


def silent(kind: str, values: Mapping[str, Any]) -> None:
    """A listener that hears nothing."""


@dataclass
class Place:
    """Where a run is; what a checkpoint holds beside tensors."""

    phase: int = 0
    step: int = 0
    global_step: int = 0
    segment: int = -1
    segment_step: int = 0
    done: dict[str, int] = field(default_factory=dict)  # phase number -> steps it took
    metrics: int = 0  # bytes of metrics.jsonl
    since: int = 0  # steps since the last line
    epoch: int = 0  # steps since the last epoch of a watched phase
    watch: dict[str, Any] = field(default_factory=dict)  # plateau and learning-rate state
    best: dict[str, Any] = field(default_factory=dict)
    lines: int = 0
    augmenters: dict[str, Any] = field(default_factory=dict)  # networks that learned to augment, as they were scored


class Keeper:
    """State of a run. See the module.

    Args:
        splits: role -> data, on the run's device.
        listen: called with ("phase" | "line" | "valid" | "cache" | "fit" | "augmenter" | "note" | "saved" | "done", values).
    """

    def __init__(
        self,
        plan: Plan,
        splits: Mapping[str, Split],
        folder: RunFolder,
        *,
        seed: int,
        hardware: Hardware,
        fabric: Any,
        listen: Listener = silent,
    ) -> None:
        self.plan, self.splits, self.folder = plan, splits, folder
        self.seed, self.hardware, self.fabric = seed, hardware, fabric
        self.listen: Listener = listen if fabric.is_global_zero else silent
        self.networks = build_networks(plan, splits, seed).to(fabric.device)
        if hardware.channels_last:
            self.networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks.eval()
        self.ledger = Ledger()
        self.at = Place()
        self.optimizer: Optimizer | None = None
        self.average = Average(self.networks, None)
        self.scene: Scene | None = None
        self.spec: PhasePlan = plan.phases[0]
        self.first_step = 0
        self.total: int | None = None
        self.sums: dict[str, Tensor] = {}
        self.epoch_sum: Tensor | None = None
        self.rate = 1.0
        self._restored: dict[str, Tensor] = {}
        self._saved_at = time.monotonic()
        self.stop = Stop()
        self._agreed: int | None = None
        self.monitor: Monitor | None = None
        if plan.monitor is not None and fabric.is_global_zero:
            self.monitor = Monitor(
                plan.monitor,
                self.networks,
                splits,
                seed=seed,
                channels_last=hardware.channels_last,
                autocast=hardware.autocast,
            )
        valid = splits["main"].valid
        self._curve = valid if len(valid) <= curve.PICTURES else valid.take(torch.arange(curve.PICTURES))

    # ------------------------------------------------------------------ where to begin

    def restore(self) -> None:
        """Continue from the newest intact checkpoint, if there is one."""
        found = self.folder.checkpoints.newest()
        if found is not None:
            tensors, state, said = found
            for line in said:
                self.listen("note", {"text": line})
            with torch.no_grad():
                live = self.networks.state_dict(keep_vars=True)
                for name, tensor in live.items():
                    tensor.copy_(tensors[f"net/{name}"])
            self.at = Place(**state["place"])
            self.ledger.load_state_dict(state["ledger"])
            self._restored = tensors
        if self.fabric.is_global_zero:
            self.folder.open_metrics(self.at.metrics)

    def begin(self, number: int) -> PhasePlan:
        """Resolve a phase to whole steps and write that down first."""
        sizes = {role: len(split.train) for role, split in self.splits.items()}
        self.plan = resolve_steps(self.plan, sizes, {int(k): v for k, v in self.at.done.items()})
        self.spec = self.plan.phases[number]
        if self.fabric.is_global_zero:
            self.folder.write("plan.json", self.plan.to_json())
        if self.at.step == 0:
            for target, source in self.spec.start.items():
                self.networks.copy_weights(target, source)
        if self.spec.segment != self.at.segment:
            self.at.segment, self.at.segment_step = self.spec.segment, 0
            self.optimizer, self.average = None, Average(self.networks, None)
            self._restored = {}  # the weights are in place; the rest belongs to the optimizer before
        return self.spec

    def equip(self, scene: Scene) -> Optimizer:
        """The optimizer of this phase's segment, over everything that moves in it, its state carried or restored."""
        self.scene = scene
        segment = self.networks.only(slices_of(self.plan, self.spec.segment))
        self._segment = segment
        if self.optimizer is None:
            self.optimizer = build_optimizer(self.spec.optimizer, segment)
        if self.average.decay != self.spec.average:  # of all that moves in this optimizer's life
            self.average = Average(self.networks, self.spec.average)
        scene.moving = self.networks.only(list(self.spec.train))
        if self._restored:
            load_optimizer(self.optimizer, segment, _under("opt/", self._restored))
            self.average.load_state_dict(_under("avg/", self._restored))
            if self.at.step:
                scene.order.load_state_dict(_under("order/", self._restored))
                sums = _under("sum/", self._restored)  # a file has no order, and their sum has one
                self.sums = {k: sums[k].to(self.fabric.device) for k in scene.phase.terms if k in sums}
                epoch = self._restored.get("epoch")
                self.epoch_sum = None if epoch is None else epoch.to(self.fabric.device)
            self._restored = {}
        self.first_step = self.at.step
        self.rate = float(self.at.watch.get("lr", {}).get("rate", 1.0))
        self.epoch_steps = look_steps(self.spec, len(scene.pictures))
        plateau = self.spec.duration.plateau
        watched = [plateau.watch] if plateau else []
        if self.spec.schedule.word == "on-plateau":
            watched.append(str(self.spec.schedule.options.get("watch", "train/loss")))
        if self.spec.keep != "last":
            watched.append(self.spec.keep)
        self._watched = watched
        self.enter()
        return self.optimizer

    def enter(self) -> None:
        """Say that the phase begins, and charge it from now on."""
        steps = [phase.steps for phase in self.plan.phases]
        self.total = None if None in steps else sum(s or 0 for s in steps)
        self.points = curve.points(self.plan, len(self.splits["main"].valid))
        self.ledger.phase(self.spec.name)
        if self.at.global_step == 0 and self.at.metrics == 0:
            self.ledger.spend("decoding", sum(len(s.train) * s.decoding for s in self.splits.values()))
        self.listen("phase", {**self._where(), "steps": self.spec.steps, "plan": self.spec, "total": self.total})

    def first_look(self) -> None:
        """What the monitor sees before the first step, once a run."""
        if self.at.global_step == 0 and self.at.metrics == 0:
            self._look()

    def fitted(self, values: Mapping[str, Any]) -> None:
        """Write the line of a closed form and evaluate it. Averages were of other weights, so they end here."""
        self.average = Average(self.networks, None)
        self._restored = {name: t for name, t in self._restored.items() if not name.startswith("avg/")}
        line = {"kind": "fit", **self._where(), **values, "seconds": round(self.ledger.total().training_seconds, 4)}
        if self.fabric.is_global_zero:
            self.folder.line(line)
        self.listen("fit", line)
        self.evaluate()

    def _where(self) -> dict[str, Any]:
        return {"phase": self.spec.name, "step": self.at.step, "global_step": self.at.global_step}

    # ------------------------------------------------------------------ after each step

    def after(self, terms: Mapping[str, Tensor]) -> bool:
        """Count a step; lines, evaluations, saves and watches as due. True ends the phase (a plateau)."""
        at = self.at
        for name, value in terms.items():
            held = self.sums.get(name)
            self.sums[name] = value.detach().clone() if held is None else held.add_(value.detach())
        at.step += 1
        at.global_step += 1
        at.segment_step += 1
        at.since += 1
        last = at.step == self.spec.steps
        if self._watched:
            at.epoch += 1
            loss = sum(v.detach() for v in terms.values())
            assert isinstance(loss, Tensor)
            self.epoch_sum = loss.clone() if self.epoch_sum is None else self.epoch_sum + loss
        valid_due = self._valid_due(last)
        if at.since >= LINE_EVERY or last or valid_due:
            self.line()
        ended = False
        if self._watched:
            if at.epoch >= self.epoch_steps or last:
                ended = self._watch_epoch()
        elif valid_due:
            self.evaluate()
        if self.monitor is not None and self.monitor.due(at.global_step):
            self._look()
        whole = self.fabric.world_size == 1 or not at.since  # right after a line no rank holds sums of its own
        if whole and (self._asked() is not None or time.monotonic() - self._saved_at > SAVE_SECONDS):
            self.pause()
        return ended

    def _valid_due(self, last: bool) -> bool:
        total = self.total
        if last or total is None:
            return last
        now, before = self.at.global_step, self.at.global_step - 1
        return now * self.points // total != before * self.points // total

    def line(self) -> None:
        """Write the mean of each term since the last line; a loss that is not finite stops the run."""
        if not self.at.since:
            return
        means = {name: value / self.at.since for name, value in self._over_ranks(self.sums).items()}
        if self.epoch_sum is not None and self.fabric.world_size > 1:
            self.epoch_sum = self.fabric.all_gather(self.epoch_sum).mean()
        loss = sum(means.values())
        if not math.isfinite(loss):
            raise AugendError(
                f"the loss is not finite in phase {self.spec.name!r} at step {self.at.step} "
                f"({', '.join(f'{k} {v}' for k, v in means.items())}); lower the learning rate or set clip; "
                f"the last good checkpoint is kept in {self.folder.path}"
            )
        self.sums, self.at.since = {}, 0
        self.at.lines += 1
        values = {
            "kind": "train",
            **self._where(),
            "loss": loss,
            **means,
            "seconds": round(self.ledger.total().training_seconds, 4),
        }
        if self.fabric.is_global_zero:
            self.folder.line(values)
        self.listen("line", values)

    def _look(self) -> None:
        """Write what the monitor sees; nothing of it is charged."""
        if self.monitor is None:
            return
        self.ledger.lap("step")
        with worked_in(self.scene):
            line = {"kind": "monitor", **self._where(), **self.monitor.look()}
        self.networks.only(list(self.spec.train))
        self.folder.line(line)
        self.listen("monitor", line)
        self.ledger.restart()

    def _over_ranks(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """Numbers of the whole batch; on several ranks their means, and whether any rank was asked to stop."""
        if self.fabric.world_size == 1:
            return {name: float(value) for name, value in values.items()}
        asked = torch.tensor(float(self.stop.asked or 0), device=self.fabric.device)
        gathered = self.fabric.all_gather(torch.stack([*values.values(), asked]))
        self._agreed = int(gathered[:, -1].max()) or None
        return {name: float(gathered[:, number].mean()) for number, name in enumerate(values)}

    def evaluate(self, full: bool = False) -> float:
        """Validation accuracy of the headline, with averaged weights where they are kept."""
        self.ledger.lap("step")
        pictures = self.splits["main"].valid if full else self._curve
        with self.average.applied():
            values = self._judge(pictures)
        self.networks.only(list(self.spec.train))
        self.ledger.lap("evaluation")
        line = {"kind": "valid", **self._where(), **values, "seconds": round(self.ledger.total().training_seconds, 4)}
        if self.fabric.is_global_zero:
            self.folder.line(line)
        self.listen("valid", line)
        return float(values["accuracy"])

    def _judge(self, pictures: Pictures) -> dict[str, float]:
        values: dict[str, float] = {}
        self.networks.eval()
        for place, name in enumerate(self.plan.result):
            out = logits(
                self.networks,
                name,
                pictures,
                channels_last=self.hardware.channels_last,
                autocast=self.hardware.autocast,
            )
            right = float((out.argmax(1) == pictures.labels).float().mean()) if len(out) else float("nan")
            loss = float(torch.nn.functional.cross_entropy(out, pictures.labels)) if len(out) else float("nan")
            prefix = "" if place == 0 else f"{name}/"
            values |= {f"{prefix}accuracy": right, f"{prefix}valid_loss": loss}
        right = self.fabric.broadcast(values["accuracy"]) if self.fabric.world_size > 1 else values["accuracy"]
        return {**values, "accuracy": right}

    # ------------------------------------------------------------------ epochs that are watched

    def _watch_epoch(self) -> bool:
        assert self.epoch_sum is not None
        watched = {"train/loss": self._over_ranks({"loss": self.epoch_sum})["loss"] / self.at.epoch}
        if any(name.startswith("valid/") for name in self._watched):
            watched["valid/accuracy"] = self.evaluate(full=self.spec.keep != "last")
        elif self._valid_due(self.at.step == self.spec.steps):
            self.evaluate()
        self.epoch_sum, self.at.epoch = None, 0
        if self.spec.keep != "last":
            self._keep_best(watched[self.spec.keep])
        if self.spec.schedule.word == "on-plateau":
            self._lower_rate(watched)
        plateau = self.spec.duration.plateau
        if plateau is None:
            return False
        state = self.at.watch.setdefault("plateau", {"best": None, "bad": 0})
        return curve.no_better(state, watched[plateau.watch], plateau.watch, plateau.min_delta) > plateau.patience

    def _lower_rate(self, watched: Mapping[str, float]) -> None:
        plateau = OnPlateau(self.spec.schedule, float(self.spec.optimizer.options["lr"]))
        if "lr" in self.at.watch:
            plateau.load_state_dict(self.at.watch["lr"])
        self.rate = plateau.observe(watched[plateau.watch])
        self.at.watch["lr"] = plateau.state_dict()

    def _keep_best(self, value: float) -> None:
        best = self.at.best
        if best and value <= best["value"]:
            return
        with self.average.applied():
            tensors = {f"net/{name}": t.detach().clone() for name, t in self.networks.state_dict().items()}
        path = self.folder.path / "checkpoints" / f"best-{self.at.phase:03d}-{self.at.step:09d}.ckpt"
        if self.fabric.is_global_zero:
            digest = write(path, tensors, {"value": value})
            self.at.best = {"value": value, "step": self.at.step, "file": path.name, "digest": digest}
        self.at.best = self.fabric.broadcast(self.at.best) if self.fabric.world_size > 1 else self.at.best

    def end(self) -> None:
        """After the last phase: a run that was killed behind it gets its averaged weights back."""
        if self._restored:
            self.average = Average(self.networks, self.plan.phases[-1].average)
            self.average.load_state_dict(_under("avg/", self._restored))

    def finish(self) -> None:
        """End a phase: the best weights where they are kept, then a checkpoint at the next phase's door."""
        at = self.at
        if self.spec.keep != "last" and at.best:
            tensors, _ = read(self.folder.path / "checkpoints" / str(at.best["file"]))
            with torch.no_grad():
                for name, tensor in self.networks.state_dict(keep_vars=True).items():
                    tensor.copy_(tensors[f"net/{name}"])
            self.networks.only(slices_of(self.plan, self.spec.segment))
            self.average = Average(self.networks, self.spec.average)
        self.ledger.observe_memory(self.fabric.device)
        at.done[str(at.phase)] = at.step
        at.phase, at.step, at.epoch, at.watch, at.best = at.phase + 1, 0, 0, {}, {}
        self.scene, self.epoch_sum = None, None
        self.save()
        if self.fabric.is_global_zero:
            for old in (self.folder.path / "checkpoints").glob(f"best-{at.phase - 2:03d}-*.ckpt"):
                old.unlink()

    # ------------------------------------------------------------------ saving and stopping

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        self._saved_at = time.monotonic()
        if not self.fabric.is_global_zero:
            return
        self.ledger.lap("step")
        self.at.metrics = self.folder.metrics_length()
        tensors = {f"net/{name}": tensor for name, tensor in self.networks.state_dict().items()}
        opt = save_optimizer(self.optimizer, self._segment) if self.optimizer else _under("opt/", self._restored)
        tensors |= {f"opt/{k}": v for k, v in opt.items()}
        tensors |= {f"avg/{k}": v for k, v in self.average.state_dict().items()}
        if self.scene is not None:
            tensors |= {f"order/{k}": v for k, v in self.scene.order.state_dict().items()}
        tensors |= {f"sum/{k}": v for k, v in self.sums.items()}
        if self.epoch_sum is not None:
            tensors["epoch"] = self.epoch_sum
        state = {"place": asdict(self.at), "ledger": self.ledger.state_dict()}
        self.folder.checkpoints.save(self.at.phase, self.at.step, tensors, state)
        self.ledger.restart()
        self.listen("saved", self._where())

    def pause(self) -> None:
        """Save, and leave when a signal asked for it."""
        self.save()
        asked = self._asked()
        if asked is not None:
            code = 130 if asked == signal.SIGINT else 75
            if not self.fabric.is_global_zero:
                raise SystemExit(code)
            raise Saved(f"stopped; everything is saved. Continue with: augend resume {self.folder.quoted}", code)

    def _asked(self) -> int | None:
        """The signal that asks the run to stop; several ranks agree on it at each line of metrics, and stop together."""
        return self.stop.asked if self.fabric.world_size == 1 else self._agreed

    def stopping(self) -> bool:
        """Whether a signal asked the run to stop (looked at between the chunks of a cache, too)."""
        return self._asked() is not None


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
