"""The phases of a bound recipe become those of a plan, one key after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from augend import names
from augend.address import Address, Slice
from augend.contract import AugendError, Component
from augend.recipes import words
from augend.recipes.augmentations import TRAITS, expand
from augend.recipes.checks import asked, check_address, check_phase, check_teacher, in_order, referred, upstream
from augend.recipes.components import complete, complete_optimizer, copies
from augend.recipes.durations import epoch_steps, fixed_steps, resolve_steps
from augend.recipes.language import Composed
from augend.recipes.library import Settings
from augend.recipes.plan import Duration, MonitorPlan, NetworkPlan, PhasePlan, Plan, TermPlan
from augend.recipes.reading import Place
from augend.recipes.schedules import completed
from augend.recipes.schema import NetworkWords, PhaseWords, checked
from augend.recipes.terms import check_residuals, planned_term, trained
from augend.recipes.words import Fresh, Multiple

__all__ = ["Resolving", "data_word"]


def data_word(value: object, place: Place) -> str:
    """What a role is bound to: the name of a data set or the path of a folder."""
    if not isinstance(value, str) or not value:
        raise place.found(value, "the name of a data set or the path of a folder")
    return value


class Resolving:
    """One resolution: the bound recipe, the settings and the facts of the data. `plan` is its answer."""

    def __init__(
        self,
        recipe: Composed,
        settings: Settings,
        sizes: Mapping[str, int],
        traits: Mapping[str, frozenset[str]],
        side: int | None,
        whole: int | None,
    ) -> None:
        self.recipe, self.place, self.sizes, self.traits, self.side = recipe, recipe.place, sizes, traits, side
        self.settings, self.settings_place = settings.words, Place(settings.source)
        self.roles = {role: data_word(text, self.place.at(f"data.{role}")) for role, text in recipe.data.items()}
        for role in self.roles:
            if role not in sizes or role not in traits:
                raise AugendError(
                    f"{self.place.text}: data role {role!r} has no size or traits; load {self.roles[role]!r}"
                )
        self.whole = whole or sizes["main"]
        self.batch = self.settings.batch or _batch(self.whole)
        self.networks = self._networks()
        expand(self.settings.pixels, (), TRAITS, self.settings_place.at("pixels"), "pixels")  # checked even if unused
        self.optimizer = complete_optimizer(self.settings.optimizer, self.settings_place.at("optimizer"))
        self.schedule = completed(self.settings.schedule, self.settings_place.at("schedule"))

    def plan(self, budget: str | None, fallback: str | None = None) -> Plan:
        """The plan, its steps resolved as far as they can be; `fallback` is the budget where one is needed and none given."""
        phases = self._phases()
        networks = self._reached(phases)
        phases = [replace(phase, train=trained(phase, networks)) for phase in phases]
        for phase in phases:
            check_phase(phase, networks, self.place.inside(phase.name), self.sizes[phase.data])
        check_residuals(phases, {name: network.input for name, network in networks.items()}, self.place)
        budget_steps, epochs = self._budget(budget, fallback, phases)
        used = {"main", *(phase.data for phase in phases), *(network.classes for network in networks.values())}
        plan = Plan(
            recipe=self.recipe.name,
            title=self.recipe.title,
            networks=networks,
            result=self.recipe.result,
            roles={role: text for role, text in self.roles.items() if role in used},
            phases=tuple(phases),
            budget=budget_steps,
            epochs=epochs,
            monitor=self._monitor(networks),
            hold=dict(self.recipe.hold),
        )
        return resolve_steps(plan, self.sizes)

    def _networks(self) -> dict[str, NetworkPlan]:
        found: dict[str, NetworkPlan] = {}
        for name, tree in self.recipe.networks.items():
            place = self.place.at(f"networks.{name}")
            written = checked(NetworkWords, tree, place)
            if written.classes not in self.roles:
                raise place.at("classes").unknown(written.classes, self.roles, "role")
            model = written.model
            if model.word in names.known("model"):
                model = complete("model", model, place.at("model"))
            found[name] = NetworkPlan(model, written.input, written.classes, written.weights)
        for name, network in found.items():
            if network.input is not None:
                check_address(network.input, found, (), self.place.at(f"networks.{name}.input"))
        for name in self.recipe.result:
            if name not in found:
                raise self.place.at("result").unknown(name, found, "network")
        return in_order(found, self.place)

    def _reached(self, phases: Sequence[PhasePlan]) -> dict[str, NetworkPlan]:
        """The networks that a result, a term, an augmentation or copied weights need; the rest is not built."""
        needed = [Address(name) for name in self.recipe.result]
        for phase in phases:
            needed += [address for term in phase.terms for address in (*term.of, *term.to)]
            needed += [address for ops in phase.views.values() for _, address in referred(ops)]
            needed += asked(phase.order)
            needed += [Address(one.network) for one in phase.start.values()]
            needed += [Address(one.network) for one in phase.train if phase.fit is not None and one.network != "all"]
        names_ = {one.network for address in needed for one in upstream(address, self.networks)}
        return {name: network for name, network in self.networks.items() if name in names_}

    def _phases(self) -> list[PhasePlan]:
        found: list[PhasePlan] = []
        running = False  # whether the segment has served a step yet
        segment, optimizer, schedule = 0, self.optimizer, self.schedule
        for tree in self.recipe.phases:
            place = self.place.inside(tree["name"])
            written = checked(PhaseWords, tree, place)
            if written.skip:
                continue
            if written.fit is None:
                fresh = written.optimizer is not None
                if fresh:
                    optimizer = self._begun(written.optimizer, place.at("optimizer"))
                    schedule = self.schedule
                    segment += running
                if written.schedule is not None:
                    if running and not fresh:
                        raise place.at("schedule").error(
                            "belongs to an optimizer, and this phase goes on with an earlier one; add optimizer: fresh"
                        )
                    schedule = completed(written.schedule, place.at("schedule"))
                running = True
            found.append(self._phase(written, place, segment, optimizer, schedule))
        if not found:
            raise self.place.error("every phase is skipped")
        return found

    def _begun(self, written: Component | Fresh | None, place: Place) -> Component:
        if isinstance(written, Component):
            return complete_optimizer(written, place)
        assert written is not None
        changed = {}
        for option, value in written.changed.items():
            if isinstance(value, Multiple):
                own = self.optimizer.options.get(option)
                if own is None or isinstance(own, bool) or not isinstance(own, int | float):
                    raise place.at(f"fresh.{option}").error(f"is a multiple of nothing: the settings say {own!r}")
                value = value.of(own)
            changed[option] = value
        return complete_optimizer(
            Component(self.optimizer.word, {**self.optimizer.options, **changed}), place.at("fresh")
        )

    def _phase(
        self, written: PhaseWords, place: Place, segment: int, optimizer: Component, schedule: Component
    ) -> PhasePlan:
        if written.data not in self.roles:
            raise place.at("data").unknown(written.data, self.roles, "role")
        traits = self._traits(written.data)
        views = {
            view: expand(ops, self.settings.pixels, traits, place.at("augment"))
            for view, ops in written.augment.items()
        }
        for ops in views.values():
            for option, address in referred(ops):
                here = place.at("augment").at(option)
                if option != "at" and address.network == "input":
                    raise here.unknown("input", self.networks, "network")
                check_address(address, self.networks, (), here)
        order = complete("order", written.order, place.at("order"))
        for teacher in asked(order):
            check_teacher(teacher, self.networks, written.data, place.at("order").at("teacher"))
        fit = None if written.fit is None else complete("fit", written.fit, place.at("fit"))
        return PhasePlan(
            name=written.name,
            data=written.data,
            rows=self._rows(written.batch, order, place.at("batch")),
            order=order,
            views=views,
            terms=self._terms(written, list(views), place.at("objective")),
            train=self._written_train(written, place.at("train")),
            duration=Duration("step", 0) if fit is not None else written.until or Duration("share", 1),
            steps=None,
            segment=segment,
            optimizer=optimizer,
            schedule=schedule,
            size=self._size(written.size, place.at("size")),
            start=self._start(written, place.at("start")),
            keep=written.keep,
            cache=written.cache,
            fit=fit,
            clip=self.settings.clip,
            average=self.settings.average,
        )

    def _monitor(self, networks: Mapping[str, NetworkPlan]) -> MonitorPlan | None:
        """The settings' monitor as a phase that trains nothing; a recipe without the networks it looks at is refused."""
        asked = self.settings.monitor
        if asked is None:
            return None
        place = self.settings_place.at("monitor")
        if asked.every.unit != "step" or asked.every.plateau or asked.every.amount < 1:
            raise place.at("every").error("is a number of steps, such as 50step")
        keys = ("data", "order", "batch", "augment", *(["objective"] if asked.objective else []))
        # what was checked when the settings were read is taken as it is
        written = PhaseWords.model_construct(name="monitor", **{key: getattr(asked, key) for key in keys})
        planned = self._phase(written, place, 0, self.optimizer, self.schedule)
        phase = replace(planned, duration=Duration("step", 1), steps=1, terms=planned.terms if asked.objective else ())
        for part in asked.norms or ():
            if part.network not in networks:
                raise place.at("norms").unknown(part.network, networks, "network")
        for address in (a for term in phase.terms for a in (*term.of, *term.to)):
            check_address(address, networks, tuple(phase.views), place.at("objective"))
        return MonitorPlan(int(asked.every.amount), phase, asked.norms or ())

    def _traits(self, role: str) -> frozenset[str]:
        for trait in self.traits[role]:
            if trait not in TRAITS:
                raise AugendError(f"data role {role!r}: found trait {trait!r}; allowed: {', '.join(sorted(TRAITS))}")
        return self.traits[role]

    def _rows(self, batch: int | Multiple, order: Component, place: Place) -> int:
        rows = max(1, round(batch.of(self.batch))) if isinstance(batch, Multiple) else batch
        group = copies(order)
        if rows < group:
            raise place.error(f"{rows} rows hold no group of {group} copies; allowed: {group} or more")
        return rows // group * group

    def _size(self, size: int | Multiple | None, place: Place) -> int | None:
        if not isinstance(size, Multiple):
            return size
        if self.side is None:
            raise place.error("is a multiple of the data's side, which is not known here; give it in pixels")
        return max(1, round(size.of(self.side)))

    def _start(self, written: PhaseWords, place: Place) -> dict[str, Slice]:
        for name, part in written.start.items():
            for network in (name, part.network):
                if network not in self.networks:
                    raise place.unknown(network, self.networks, "network")
        return dict(written.start)

    def _terms(self, written: PhaseWords, views: Sequence[str], place: Place) -> tuple[TermPlan, ...]:
        smoothing = self.settings.smoothing if written.fit is None else 0.0  # a closed form takes labels as they are
        return tuple(
            planned_term(name, term, views, self.networks, self.recipe.result, smoothing, place.at(name))
            for name, term in written.objective.items()
        )

    def _written_train(self, written: PhaseWords, place: Place) -> tuple[Slice, ...]:
        for part in written.train or ():
            if part.network not in self.networks and part != Slice("all"):
                raise place.unknown(part.network, [*self.networks, "all"], "network")
        if written.fit is not None and written.train is None:
            return tuple(Slice(name) for name in self.recipe.result)
        return written.train or ()

    def _budget(
        self, given: str | None, fallback: str | None, phases: Sequence[PhasePlan]
    ) -> tuple[int | None, int | None]:
        """Steps, and the whole epochs that they were given as."""
        fixed = [fixed_steps(phase, self.sizes) for phase in phases]
        try:
            written = words.budget(given) if given is not None else self.settings.budget
            if written is None and fallback is not None and None in fixed:
                written = words.budget(fallback)
        except ValueError as error:
            raise AugendError(f"budget: {error}") from None
        if all(phase.fit is not None for phase in phases):
            return 0, None
        if written is not None and written.unit == "epoch":
            epochs = int(written.amount) if written.amount == int(written.amount) else None
            return epoch_steps(written.amount, self.whole, self.batch), epochs
        if written is not None:
            return int(written.amount), None
        if any(phase.duration.plateau for phase in phases) or None in fixed:
            return None, None
        return sum(steps or 0 for steps in fixed), None


def _batch(pictures: int) -> int:
    """Rows a step where the settings leave it open: small data needs steps, large data is seen faster in large batches."""
    return 32 if pictures < 2000 else 64 if pictures < 20_000 else 128
