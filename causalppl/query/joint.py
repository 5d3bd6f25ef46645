"""The exact joint law of some sites in some worlds of a finite program.

Table programs are summed site by site, all worlds side by side, and values that nothing later needs are summed out at once:
the cost is that of the widest front, not of all assignments. Programs whose sites come and go are walked run by run,
one world after another, each site's noise remembered from the worlds before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import QueryError
from .couplings import Conditional, Fresh, Known
from .finite import FiniteModel, Run

__all__ = ["Condition", "FromWorld", "JointLaw", "Slot", "World", "joint_law"]

#: A site in a world, by the world's number.
Slot = tuple[str, int]


@dataclass(frozen=True)
class FromWorld:
    """A site set to its own value in an earlier world."""

    world: int


#: Site to what it is set to.
World = Mapping[str, "float | FromWorld"]


@dataclass(frozen=True)
class Condition:
    """Keeps the assignments for which ``holds`` is true; it reads ``slots`` alone, NaN where a site is absent."""

    slots: frozenset[Slot]
    holds: Callable[[Mapping[Slot, float]], bool]


@dataclass
class JointLaw:
    """What :func:`joint_law` finds.

    Attributes:
        slots: the order of the values in the keys of ``mass``.
        mass: values to their probability together with the conditions. It sums to the probability of the conditions.
        coupled: sites whose laws, where they are not certain, differed between worlds: site to one of the laws.
        sampled: those of them for which Gumbels were drawn, because three or more laws differed.
    """

    slots: tuple[Slot, ...]
    mass: dict[tuple[float, ...], float]
    coupled: dict[str, Conditional] = field(default_factory=dict)
    sampled: set[str] = field(default_factory=set)

    def saw(self, site: str, laws: Iterable[Conditional]) -> None:
        """Take note of the laws that a site's noise answered to."""
        # what is certain in a world is certain whatever couples it to others
        distinct = [law for law in dict.fromkeys(laws) if max(law.probabilities) < 1.0]
        if len(distinct) > 1:
            self.coupled[site] = distinct[0]
            if len(distinct) > 2 and distinct[0].coupling == "gumbel_max":
                self.sampled.add(site)


def joint_law(
    model: FiniteModel,
    worlds: Sequence[World],
    asked: Iterable[Slot],
    conditions: Sequence[Condition] = (),
    fresh: Fresh | None = None,
) -> JointLaw:
    """Joint law of the asked sites, together with the conditions.

    Args:
        model: the program.
        worlds: what is set in each; a :class:`FromWorld` refers to an earlier one.
        asked: the sites and worlds in question.
        conditions: what is known.
        fresh: where noise comes from.

    Raises:
        NoExactCoupling: a site's mechanism has no closed form for worlds that differ.
    """
    law = JointLaw(tuple(dict.fromkeys(asked)), {})
    start = fresh or Fresh()
    mass: dict[tuple[float, ...], float] = defaultdict(float)
    if model.branching:
        for values, weight in _walk(model, worlds, start, law):
            found = _Absent(values)
            if all(c.holds(found) for c in conditions):
                mass[tuple(found[slot] for slot in law.slots)] += weight
        law.mass = dict(mass)
    else:
        law.mass = _Front(model, worlds, law, conditions, start).sum()
    return law


class _Absent(dict[Slot, float]):
    """NaN where a run has no such site."""

    def __missing__(self, slot: Slot) -> float:
        return math.nan  # one object, so that keys with it are equal


class _Front:
    """Sums a table program site by site."""

    def __init__(
        self,
        model: FiniteModel,
        worlds: Sequence[World],
        law: JointLaw,
        conditions: Sequence[Condition],
        fresh: Fresh,
    ) -> None:
        self.model, self.worlds, self.law, self.fresh = model, worlds, law, fresh
        self.conditions = list(conditions)
        self.order = {name: i for i, name in enumerate(model.nodes)}
        self.last: dict[Slot, int] = {}  # the step after which a slot is not needed any more
        end = len(model.nodes)
        for slot in law.slots:
            self._need(slot, end)
        for condition in self.conditions:
            ready = max((self.order[s] for s, _ in condition.slots), default=0)
            for slot in condition.slots:
                self._need(slot, ready)
        self._answers: dict[object, list[tuple[tuple[float, ...], float]]] = {}

    def _need(self, slot: Slot, until: int) -> None:
        known = slot in self.last
        self.last[slot] = max(self.last.get(slot, -1), until)
        if known:
            return
        site, world = slot
        setting = self.worlds[world].get(site)
        if isinstance(setting, FromWorld):
            self._need((site, setting.world), self.order[site])
        elif setting is None:
            for parent in self.model.parents[site]:
                self._need((parent, world), self.order[site])

    def sum(self) -> dict[tuple[float, ...], float]:
        """Mass by the values of the asked slots."""
        live: tuple[Slot, ...] = ()
        states: dict[tuple[float, ...], float] = {(): 1.0}
        if not all(c.holds({}) for c in self.conditions if not c.slots):
            return {}
        for step, site in enumerate(self.model.nodes):
            new = tuple((site, k) for k in range(len(self.worlds)) if (site, k) in self.last)
            if not new:
                continue
            both = (*live, *new)
            kept = tuple(slot for slot in both if self.last[slot] > step)
            positions = [both.index(slot) for slot in kept]
            checks = [
                c
                for c in self.conditions
                if any(slot in new for slot in c.slots) and c.slots <= set(both)
            ]
            after: dict[tuple[float, ...], float] = defaultdict(float)
            for state, mass in states.items():
                values = dict(zip(live, state, strict=True))
                for answer, p in self._answer(site, new, values):
                    full = (*state, *answer)
                    if checks:
                        named = dict(zip(both, full, strict=True))
                        if not all(c.holds(named) for c in checks):
                            continue
                    after[tuple(full[i] for i in positions)] += mass * p
            live, states = kept, after
        order = [live.index(slot) for slot in self.law.slots]
        return {tuple(state[i] for i in order): mass for state, mass in states.items()}

    def _answer(
        self, site: str, new: tuple[Slot, ...], values: Mapping[Slot, float]
    ) -> list[tuple[tuple[float, ...], float]]:
        """The site's values in the worlds that need it, with their joint probability."""
        rules: list[float | FromWorld | Conditional] = []
        for _, world in new:
            setting = self.worlds[world].get(site)
            if setting is None:
                parents = {p: values[p, world] for p in self.model.parents[site]}
                setting = self.model.conditional(site, parents)  # type: ignore[assignment]
            rules.append(setting)  # type: ignore[arg-type]
        key = (new, tuple(rules))
        if key not in self._answers:
            laws = [rule for rule in rules if isinstance(rule, Conditional)]
            self.law.saw(site, laws)
            self._answers[key] = list(self._respond(new, rules))
        return self._answers[key]

    def _respond(
        self, new: tuple[Slot, ...], rules: Sequence[float | FromWorld | Conditional]
    ) -> Iterator[tuple[tuple[float, ...], float]]:
        worlds = [world for _, world in new]
        partial: list[tuple[tuple[float, ...], float, Known]] = [((), 1.0, self.fresh)]
        for rule in rules:
            longer: list[tuple[tuple[float, ...], float, Known]] = []
            for answer, p, known in partial:
                if isinstance(rule, Conditional):
                    for value, q, then in known.split(rule):
                        longer.append(((*answer, value), p * q, then))
                elif isinstance(rule, FromWorld):
                    longer.append(((*answer, answer[worlds.index(rule.world)]), p, known))
                else:
                    longer.append(((*answer, rule), p, known))
            partial = longer
        for answer, p, _ in partial:
            yield answer, p


def _walk(
    model: FiniteModel, worlds: Sequence[World], fresh: Fresh, law: JointLaw
) -> Iterator[tuple[dict[Slot, float], float]]:
    """Every joint assignment of all worlds with positive probability."""
    runs: dict[object, Run] = {}

    def world(
        k: int,
        values: dict[Slot, float],
        known: dict[str, Known],
        laws: dict[str, tuple[Conditional, ...]],
        mass: float,
    ) -> Iterator[tuple[dict[Slot, float], float]]:
        if k == len(worlds):
            for site, seen in laws.items():
                law.saw(site, seen)
            yield values, mass
            return
        fixed: dict[str, float] = {}
        for site, setting in worlds[k].items():
            if isinstance(setting, FromWorld):
                if (site, setting.world) not in values:
                    raise QueryError(
                        f"query: a nested setting takes the value of {site!r} from a world in which some runs lack it"
                    )
                setting = values[site, setting.world]
            fixed[site] = setting
        yield from site_by_site(k, fixed, {}, values, known, laws, mass)

    def site_by_site(
        k: int,
        fixed: dict[str, float],
        drawn: dict[str, float],
        values: dict[Slot, float],
        known: dict[str, Known],
        laws: dict[str, tuple[Conditional, ...]],
        mass: float,
    ) -> Iterator[tuple[dict[Slot, float], float]]:
        given = {**drawn, **fixed}
        key = (tuple(fixed.items()), tuple(drawn.items()))
        run = runs.get(key)
        if run is None:
            run = runs[key] = model.run(given)
        if run.waiting is None:
            here = {(name, k): value for name, value in run.values.items()}
            yield from world(k + 1, {**values, **here}, known, laws, mass)
            return
        site = run.waiting
        conditional = run.laws[site]
        seen = (*laws.get(site, ()), conditional)
        for value, p, then in known.get(site, fresh).split(conditional):
            yield from site_by_site(
                k,
                fixed,
                {**drawn, site: value},
                values,
                {**known, site: then},
                {**laws, site: seen},
                mass * p,
            )

    yield from world(0, {}, {}, {}, 1.0)
