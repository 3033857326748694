"""How long a plan takes on this machine, before it is run: a few real steps of every phase are timed, data time included.

Seconds become steps once, before a study starts (`augend.study.sizing`), and are never looked at again: resuming and
repeating stay exact.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from augend.augment.embedding_controls import RidgeAugmenter
from augend.contract import Picks
from augend.data.pictures import Pictures, Split
from augend.evaluate.predict import logits
from augend.names import lookup
from augend.order.choosing import Scored
from augend.order.scored import SampleByLoss
from augend.order.scoring import Passes
from augend.order.shuffle import Shuffle
from augend.randomness import Draws
from augend.recipes.durations import look_steps
from augend.recipes.plan import PhasePlan, Plan
from augend.runner import curve
from augend.runner.assembly import Scene, build_networks, stage
from augend.runner.augmenters import standardising
from augend.runner.banks import drawn_views, worth_caching
from augend.runner.fitting import Embedder, fitted_layer
from augend.runner.hardware import Hardware
from augend.runner.optimizer import build_optimizer
from augend.runner.outputs import Route
from augend.runner.probe import PLACES, stepper
from augend.runner.sight import teacher_of, unasked
from augend.runner.stopwatch import Stopwatch
from augend.stages.fit import Logistic
from augend.stages.networks import Networks
from augend.stages.pca import Pca

__all__ = ["PhaseTime", "RunTime", "time_plan"]

SHORT_STEP = 0.1  # phases of shorter steps are timed twice, at two moments: a machine stumbles for seconds
ITEMS = 8  # at most so many are scored at once to time scoring
PLENTY = 1 << 30
FEW_ROWS = 400
FEW_PICTURES = 250


@dataclass(frozen=True)
class PhaseTime:
    """Seconds of a phase.

    Attributes:
        step: of a step, nothing cached.
        cached: of a step above a filled cache; None where nothing can be cached.
        fill: of filling it.
        worth: more steps than these are worth filling it (0: any; -1: a closed form, which takes none).
        once: of what its order asks a teacher as the phase begins.
    """

    step: float
    cached: float | None = None
    fill: float = 0.0
    worth: int = 0
    once: float = 0.0

    def seconds(self, steps: int) -> float:
        """Of this many steps.

        >>> PhaseTime(1.0, cached=0.5, fill=10.0, worth=30).seconds(20), PhaseTime(1.0, 0.5, 10.0, 30).seconds(40)
        (20.0, 30.0)
        """
        if self.cached is None or steps <= self.worth:
            return self.once + steps * self.step
        return self.once + self.fill + steps * self.cached

    @classmethod
    def combined(cls, ones: Sequence[PhaseTime], how: Callable[[Sequence[float]], float]) -> PhaseTime:
        """One timing made of several of one phase, as by the least of each number, or by their medians.

        >>> PhaseTime.combined([PhaseTime(1.0), PhaseTime(0.8, once=3.0)], min)
        PhaseTime(step=0.8, cached=None, fill=0.0, worth=0, once=0.0)
        """
        step, fill, once = (how([getattr(one, name) for one in ones]) for name in ("step", "fill", "once"))
        cached = [one.cached for one in ones if one.cached is not None]
        return cls(step, how(cached) if cached else None, fill, ones[0].worth, once)


@dataclass(frozen=True)
class RunTime:
    """Seconds of a whole run.

    Attributes:
        phases: in order.
        begin: of loading data, building networks and whatever else comes before the first step.
        look: of one point of the validation curve.
        end: of predicting every split with the final weights.
        valid: how many validation pictures there are.
        pictures: of each phase's data, to train on.
        unit: what a step of the yardstick took that all this was timed against; 1 without one.
    """

    phases: tuple[PhaseTime, ...]
    begin: float
    look: float
    end: float
    valid: int
    pictures: tuple[int, ...] = ()
    unit: float = 1.0

    def training(self, plan: Plan) -> float:
        """Seconds of training and what prepares it, as the ledger counts them, of a plan whose steps are known."""
        return sum(one.seconds(phase.steps or 0) for one, phase in zip(self.phases, plan.phases, strict=True))

    def total(self, plan: Plan) -> float:
        """Wall-clock seconds of the run, evaluation included."""
        return self.begin + self.training(plan) + self._looks(plan) * self.look + self.end

    def _looks(self, plan: Plan) -> float:
        """Points of the curve, and in phases that watch validation a look an epoch instead, at all of it to keep the best."""
        steps = [phase.steps or 0 for phase in plan.phases]
        found, rest = float(len(steps)), sum(steps)
        for phase, size, count in zip(plan.phases, self.pictures, steps, strict=False):
            plateau = phase.duration.plateau
            watched = [phase.keep, phase.schedule.options.get("watch"), plateau.watch if plateau else None]
            if not any(str(one).startswith("valid/") for one in watched):
                continue
            rest -= count
            whole = self.valid / max(1, min(self.valid, curve.PICTURES)) if phase.keep != "last" else 1.0
            found += math.ceil(count / look_steps(phase, size)) * whole
        return found + min(curve.points(plan, self.valid), sum(steps)) * rest / max(1, sum(steps))

    @classmethod
    def combined(cls, runs: Sequence[RunTime], how: Callable[[Sequence[float]], float]) -> RunTime:
        """As `PhaseTime.combined`, of whole runs."""
        phases = [PhaseTime.combined(ones, how) for ones in zip(*(run.phases for run in runs), strict=True)]
        begin, look, end, unit = (
            how([getattr(run, name) for run in runs]) for name in ("begin", "look", "end", "unit")
        )
        return cls(tuple(phases), begin, look, end, runs[0].valid, runs[0].pictures, unit)

    def scaled(self, by: float) -> RunTime:
        """The same on a machine that takes so many times as long."""
        return RunTime.combined([self], lambda values: by * values[0])

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> RunTime:
        """What `to_json` wrote."""
        return cls(
            tuple(PhaseTime(**one) for one in raw["phases"]),
            raw["begin"],
            raw["look"],
            raw["end"],
            raw["valid"],
            tuple(raw.get("pictures", ())),
            raw.get("unit", 1.0),
        )


def time_plan(
    plan: Plan,
    splits: Mapping[str, Split],
    hardware: Hardware,
    *,
    begin: Callable[[], None] = lambda: None,
    end: Callable[[Callable[[], object]], None] = lambda work: None,
    yardstick: Callable[[], object] | None = None,
) -> RunTime:
    """Time a plan's phases, evaluation and beginning; trains nothing that is kept.

    Args:
        begin: called when everything is loaded, before the first step is timed.
        end: called when all is timed, with work that keeps this process as busy as training does.
        yardstick: a step that all is timed against, in turn with it, see `Stopwatch`.

    Cost: about two seconds a phase, and up to four more where its order scores; a second more against a yardstick.
    """
    clock = time.perf_counter
    torch.set_num_threads(hardware.threads)
    start = clock()
    device = "cuda" if hardware.accelerator == "cuda" else "cpu"
    on = {role: split.to(device) for role, split in splits.items()}
    networks = build_networks(plan, on, seed=0).to(device)
    if hardware.channels_last:
        networks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    built = clock() - start
    begin()
    watch = Stopwatch(yardstick)
    phases = [_phase(spec, networks, on, hardware, watch) for spec in plan.phases]
    for number, one in enumerate(phases):
        if yardstick is None and 0 < one.step < SHORT_STEP:
            again = _phase(plan.phases[number], networks, on, hardware, watch)
            phases[number] = PhaseTime.combined([one, again], min)
    main = on["main"]
    look, shown = _looking(networks, plan, main, hardware)
    each = watch.of(look) / shown
    end(look)
    last = sum(len(part) for part in (main.valid, main.test, *main.shifted.values()))
    return RunTime(
        tuple(phases),
        2 * built,
        each * min(len(main.valid), curve.PICTURES),
        each * last,
        len(main.valid),
        tuple(len(on[phase.data].train) for phase in plan.phases),
        watch.unit,
    )


def _phase(
    spec: PhasePlan, networks: Networks, splits: Mapping[str, Split], hardware: Hardware, watch: Stopwatch
) -> PhaseTime:
    scene = stage(spec, networks, splits, seed=0, channels_last=hardware.channels_last)
    chosen = worth_caching(scene, PLENTY)
    if spec.fit is not None:
        return PhaseTime(0.0, 0.0, _fitted(scene, networks, splits[spec.data], hardware, watch), worth=-1)
    once = _asked(scene, hardware, watch)
    plain = _step(scene, hardware, watch) if spec.cache in ("auto", False) or not chosen else 0.0
    if not chosen:
        return PhaseTime(plain, once=once)
    fill = sum(_filled(scene, route, hardware, watch) for route in chosen)
    asked = min(_rows(scene, route) / (spec.rows * scene.entering * len(route.views)) for route in chosen)
    _pretend(scene, chosen, hardware)
    return PhaseTime(
        plain,
        _step(scene, hardware, watch),
        fill,
        int(asked) if spec.cache == "auto" and not standardising(scene) else 0,
        once,
    )


def _step(scene: Scene, hardware: Hardware, watch: Stopwatch) -> float:
    """Seconds of a step: its own, and where its order scores, those of as many items as it does a step on the whole.

    Steps as they come would not say: some orders score everything as an epoch begins, others ever fewer towards its end.
    """
    order, rows = scene.order, scene.spec.rows
    if not isinstance(order, Scored | SampleByLoss) or order.passes(rows, scene.sources(0.0)) == Passes():
        return watch.of(stepper(scene, hardware))
    assert scene.sight is not None
    sight, count = scene.sight, iter(range(1 << 30))
    sight.ready(build_optimizer(scene.spec.optimizer, scene.moving), hardware.autocast)

    def scored(items: int) -> Picks:
        number = next(count)
        progress = number % PLACES / PLACES
        sight.at(Draws(0, scene.spec.name, number, rows), progress)
        return order.rehearsed(items, rows, scene.sources(progress))

    own = watch.of(stepper(scene, hardware, _unscored(scene, scored(1))))  # whose optimizer the trials are then of
    often, items = order.asked(rows, scene.sources(0.0))
    some = max(1, min(ITEMS, round(items)))
    seconds = watch.of(lambda: scored(some))
    if items > some + 1:  # what is done once, however many items there are, is not multiplied
        seconds += (items - some) * max(0.0, seconds - watch.of(lambda: scored(1))) / (some - 1)
    else:
        seconds *= items / some
    return own + often * seconds


def _asked(scene: Scene, hardware: Hardware, watch: Stopwatch) -> float:
    """Seconds of what an order asks a teacher of all pictures, timed on a few; the order then takes zeros for its answers."""
    teacher, order = teacher_of(scene.order), scene.order
    if teacher is None:
        return 0.0
    assert scene.sight is not None and isinstance(order, Scored) and order.table is not None
    sight, column, size = scene.sight, order.table.column, len(scene.pictures)
    sight.ready(build_optimizer(scene.spec.optimizer, scene.moving), hardware.autocast)
    unasked(scene)
    few = torch.arange(min(size, FEW_PICTURES))
    return watch.of(lambda: sight.asked(teacher, column, few)) * size / len(few)


def _unscored(scene: Scene, tried: Picks) -> Callable[[int, Draws, float], Picks]:
    """What comes next without being scored: shuffled pictures, or, where a trial is the step, one that changes nothing."""
    if tried.taken is not None:
        still = {name: None if g is None else torch.zeros_like(g) for name, g in tried.taken.gradients.items()}
        taken = dataclasses.replace(tried.taken, gradients=still)
        return lambda number, draws, progress: dataclasses.replace(tried, taken=taken)
    shuffled = Shuffle()
    shuffled.start(len(scene.pictures), Draws(0, "timing"))

    def choose(number: int, draws: Draws, progress: float) -> Picks:
        return shuffled.next(number, scene.spec.rows, scene.sources(progress), progress)

    return choose


def _fitted(scene: Scene, networks: Networks, split: Split, hardware: Hardware, watch: Stopwatch) -> float:
    """Seconds of a closed form: passing all pictures once for every view, and solving, timed on a few made-up rows."""
    spec = scene.spec
    assert spec.fit is not None
    embed = Embedder.entering(networks, spec.train[0])
    pairs = spec.terms[0].to  # of a closed form of pairs: their other sides pass the network too
    views = [str(address.view) for address in (*spec.terms[0].of, *pairs)]
    rows = len(scene.pictures) * sum(drawn_views(scene, view) or scene.chains[view].variants or 1 for view in views)
    numbers = torch.arange(min(spec.rows, len(scene.pictures)))
    found = torch.zeros(0)

    def forward() -> None:
        nonlocal found
        shown = scene.shown(views[0], numbers, numbers * 0, 0, bank=drawn_views(scene, views[0]) is not None)
        with torch.no_grad(), hardware.autocast():
            found = embed(shown)

    passing = watch.of(forward) / len(numbers) * (rows + (0 if pairs else len(split.valid)))
    few = min(rows, FEW_ROWS)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2 * few, found.shape[1], generator=generator)
    labels = torch.arange(2 * few) % len(split.classes)
    method: RidgeAugmenter | Pca | Logistic = lookup("fit", spec.fit.word)(**spec.fit.options)
    begin = time.perf_counter()
    if isinstance(method, RidgeAugmenter):  # mostly the decomposition, whose cost does not grow with the rows
        method.fit(features[:few], features[few:])
        return passing + time.perf_counter() - begin
    if isinstance(method, Pca):
        method.fit(features, min(fitted_layer(networks, spec).out_features, *features.shape))
        return passing + (time.perf_counter() - begin) * rows / len(features)
    method.fit(features[:few], labels[:few], classes=len(split.classes), valid=(features[few:], labels[few:]))
    return passing + (time.perf_counter() - begin) * rows / few


def _rows(scene: Scene, route: Route) -> int:
    """Rows that filling passes through a network: every picture in every variant."""
    each = (drawn_views(scene, view) or scene.chains[view].variants or 1 for view in route.views)
    return len(scene.pictures) * sum(each)


def _filled(scene: Scene, route: Route, hardware: Hardware, watch: Stopwatch) -> float:
    """Seconds of filling the cache of one network, by passing a few batches through its frozen part."""
    rows = min(scene.spec.rows * len(route.views), len(scene.pictures))
    numbers = torch.arange(rows)
    network = scene.phase.networks.stages(route.name)

    def forward() -> None:
        shown = scene.shown(
            route.views[0], numbers, numbers * 0, 0, bank=drawn_views(scene, route.views[0]) is not None
        )
        with torch.no_grad(), hardware.autocast():
            network(shown, route.frozen_wants, None)

    return watch.of(forward) * _rows(scene, route) / max(1, rows)


def _pretend(scene: Scene, chosen: list[Route], hardware: Hardware) -> None:
    """Give a scene caches of zeros, one row in memory however many there are."""
    for route in chosen:
        network = scene.phase.networks.stages(route.name)
        shown = scene.shown(
            route.views[0], torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 0, bank=False
        )
        with torch.no_grad(), hardware.autocast():
            one = network(shown, route.frozen_wants, None)
        rows = _rows(scene, route)
        scene.banks[route.name] = {
            tensor: {view: torch.zeros_like(value).expand(rows, *value.shape[1:]) for view in route.views}
            for tensor, value in one.items()
        }
        drawn = {view: drawn_views(scene, view) for view in route.views}
        scene.bank_views |= {view: count for view, count in drawn.items() if count is not None}
    scene.__dict__.pop("sees_pixels", None)  # it may have been asked before there were caches


def _looking(networks: Networks, plan: Plan, split: Split, hardware: Hardware) -> tuple[Callable[[], object], int]:
    """A function that evaluates a few pictures, and how many."""
    pictures: Pictures = split.valid.take(torch.arange(min(len(split.valid), FEW_PICTURES)))

    def look() -> None:
        networks.eval()
        for name in plan.result:
            logits(networks, name, pictures, channels_last=hardware.channels_last, autocast=hardware.autocast)

    return look, max(1, len(pictures))
