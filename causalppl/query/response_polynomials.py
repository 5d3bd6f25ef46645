r"""Terms of a query as polynomials in what a finite program leaves open: how its sites are coupled across worlds.

A site's response is the function from its parents' values to its own. The program settles the law of the response at one
configuration of the parents, and nothing else: the joint law at two configurations is open. So the probability of a term is
a sum of products of joint probabilities of responses, one factor per site at most, since the responses of different sites are
independent. A factor at a single configuration is a number of the program's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from ..errors import UnknownSiteError, closest_name, site_list
from ..notation.terms import Arithmetic, Comparison, Expression, Lookup, Number, Outcome, Setting

__all__ = [
    "Config",
    "CouplingPolynomials",
    "Factor",
    "FiniteProgram",
    "Monomial",
    "Polynomial",
    "TooManyStates",
    "add",
    "constant_of",
    "holds",
    "outcomes_in",
    "scale",
    "value_of",
]

#: Values of a site's parents, in the order of the program.
Config: TypeAlias = tuple[float, ...]
#: A site, and what its response is at two or more configurations: the joint probability of these.
Factor: TypeAlias = tuple[str, tuple[tuple[Config, float], ...]]
#: A product of factors of different sites; the empty one is 1.
Monomial: TypeAlias = tuple[Factor, ...]
#: Monomial to coefficient.
Polynomial: TypeAlias = dict[Monomial, float]

_CONSTANT: Monomial = ()


class FiniteProgram(Protocol):
    """What bounds need to know of a program whose sites have finitely many values.

    Attributes:
        sites: names in the order of the program.
        parents: site to the earlier sites that its distribution may depend on.
    """

    @property
    def sites(self) -> Sequence[str]: ...

    @property
    def parents(self) -> Mapping[str, Sequence[str]]: ...

    def conditional(self, site: str, given: Mapping[str, float]) -> Mapping[float, float]:
        """Value to probability of ``site``, at the values of its parents. A deterministic site has one value."""
        ...


class TooManyStates(Exception):
    """The program is too large to be taken apart."""


@dataclass(frozen=True)
class _Node:
    """A site in a world, that world reduced to the settings that reach the site."""

    site: str
    settings: tuple[Setting, ...]
    parents: tuple[_Node | float, ...] = field(compare=False, default=())


@dataclass
class CouplingPolynomials:
    """Makes the polynomials, and remembers the program's tables on the way.

    Attributes:
        program: the program.
        tables: ``(site, configuration)`` to the probabilities of the site's values there, zeros left out.
        constrained: sites that an assumption ties, so that a factor keeps configurations with one possible value too.
        max_states: how many joint assignments are followed at most.
    """

    program: FiniteProgram
    constrained: frozenset[str] = frozenset()
    max_states: int = 200_000
    tables: dict[tuple[str, Config], dict[float, float]] = field(default_factory=dict)
    _nodes: dict[tuple[str, tuple[Setting, ...]], _Node | float] = field(default_factory=dict)
    _known: dict[str, list[float]] = field(default_factory=dict)

    def polynomial(
        self, weight: Expression | None, events: Sequence[Comparison], do: tuple[Setting, ...] = ()
    ) -> Polynomial:
        r""":math:`E[\text{weight} \cdot 1\{\text{events}\}]`; without a weight, the probability.

        Args:
            weight: what is averaged.
            events: all of them must hold.
            do: the world that factual names belong to.

        Raises:
            UnknownSiteError: a name is no site of the program.
            TooManyStates: the joint assignments are more than ``max_states``.
        """
        outcomes = [*outcomes_in(weight)] if weight is not None else []
        for comparison in events:
            outcomes += [*outcomes_in(comparison.left), *outcomes_in(comparison.right)]
        nodes = {o: self._node(o.site, o.settings or do) for o in dict.fromkeys(outcomes)}
        total: Polynomial = {}
        for values, monomial, coefficient in self._assignments(nodes, events):
            known = {o: values[n] if isinstance(n, _Node) else n for o, n in nodes.items()}
            worth = coefficient * (value_of(weight, known) if weight is not None else 1.0)
            if worth != 0.0:
                total[monomial] = total.get(monomial, 0.0) + worth
        return total

    def _node(self, site: str, settings: tuple[Setting, ...]) -> _Node | float:
        if (site, settings) not in self._nodes:
            self._nodes[site, settings] = self._new_node(site, settings)
        return self._nodes[site, settings]

    def _new_node(self, site: str, settings: tuple[Setting, ...]) -> _Node | float:
        sites = list(self.program.sites)
        for name in (site, *(s.site for s in settings)):
            if name not in sites:
                near = closest_name(name, sites)
                raise UnknownSiteError(
                    f"the program has no site {name!r}; its sites are {site_list(sites)}"
                    + (f"; did you mean {near!r}?" if near else "")
                )
        for setting in settings:
            if setting.site == site:
                if isinstance(setting.value, Outcome):
                    return self._node(setting.value.site, setting.value.settings)
                return self._same(site, setting.value)
        parents = tuple(self._node(p, settings) for p in self.program.parents[site])
        return _Node(site, self._reaching(site, settings), parents)

    def _reaching(self, site: str, settings: tuple[Setting, ...]) -> tuple[Setting, ...]:
        """The settings that a directed path leads from to the site, through no other setting."""
        named = {s.site: s for s in settings}
        found: dict[str, Setting] = {}
        todo, seen = [site], {site}
        while todo:
            for parent in self.program.parents[todo.pop()]:
                if parent in named:
                    found[parent] = named[parent]
                elif parent not in seen:
                    seen.add(parent)
                    todo.append(parent)
        # A nested value that does not depend on its own settings is the factual one, wherever it is written.
        return tuple(sorted((self._reduced(s) for s in found.values()), key=lambda s: s.site))

    def _reduced(self, setting: Setting) -> Setting:
        if not isinstance(setting.value, Outcome):
            return Setting(setting.site, self._same(setting.site, setting.value))
        node = self._node(setting.value.site, setting.value.settings)
        value = Outcome(node.site, node.settings) if isinstance(node, _Node) else node
        return Setting(setting.site, value)

    def _same(self, site: str, value: float) -> float:
        """The value, or one seen before that differs by round-off of float32 only: 0.1 as written and as a tensor has it."""
        known = self._known.setdefault(site, [])
        for other in known:
            if _equal(other, value):
                return other
        known.append(float(value))
        return known[-1]

    def _assignments(
        self, nodes: Mapping[Outcome, _Node | float], events: Sequence[Comparison]
    ) -> Iterator[tuple[dict[_Node, float], Monomial, float]]:
        """Values of the asked nodes where the events hold, their monomial and coefficient; equal ones are merged."""
        order = _parents_first([n for n in nodes.values() if isinstance(n, _Node)])
        asked = {n for n in nodes.values() if isinstance(n, _Node)}
        due: dict[int, list[Comparison]] = {}
        for comparison in events:
            needs = [nodes[o] for s in (comparison.left, comparison.right) for o in outcomes_in(s)]
            last = max((order.index(n) for n in needs if isinstance(n, _Node)), default=-1)
            due.setdefault(last, []).append(comparison)
        # An assignment: values of the nodes still needed, responses of sites not yet complete, finished factors.
        states: dict[tuple[_Values, _Responses, Monomial], float] = {((), (), ()): 1.0}
        work = 0
        for position in range(-1, len(order)):
            if position >= 0:
                states = self._extended(states, order, position)
            keep = asked | {p for n in order[position + 1 :] for p in n.parents}
            merged: dict[tuple[_Values, _Responses, Monomial], float] = {}
            for (values, responses, monomial), coefficient in states.items():
                at = dict(values)
                known = {
                    o: at.get(n, math.nan) if isinstance(n, _Node) else n for o, n in nodes.items()
                }
                if not all(holds(c, known) for c in due.get(position, ())):
                    continue
                key = (tuple((n, v) for n, v in values if n in keep), responses, monomial)
                merged[key] = merged.get(key, 0.0) + coefficient
            states = merged
            work += len(states)
            if work > self.max_states:
                raise TooManyStates
        for (values, _, monomial), coefficient in states.items():
            yield dict(values), monomial, coefficient

    def _extended(
        self,
        states: Mapping[tuple[_Values, _Responses, Monomial], float],
        order: Sequence[_Node],
        position: int,
    ) -> dict[tuple[_Values, _Responses, Monomial], float]:
        """All assignments with the next node's value added."""
        node = order[position]
        alone = sum(n.site == node.site for n in order) == 1
        complete = all(n.site != node.site for n in order[position + 1 :])
        longer: dict[tuple[_Values, _Responses, Monomial], float] = {}
        for (values, responses, monomial), coefficient in states.items():
            at = dict(values)
            config = tuple(at[p] if isinstance(p, _Node) else p for p in node.parents)
            table = self.table(node.site, config)
            shown = dict(responses).get(node.site, ())
            before = dict(shown).get(config)
            for value, probability in table.items():
                if before is not None and value != before:
                    continue
                weight, factors, others = coefficient, monomial, responses
                if alone:
                    weight *= probability
                else:
                    now = shown if before is not None else (*shown, (config, value))
                    rest = tuple(r for r in responses if r[0] != node.site)
                    if complete:
                        number, factor = self._factor(node.site, now)
                        weight, others = weight * number, rest
                        factors = tuple(sorted((*monomial, *factor)))
                    else:
                        others = (*rest, (node.site, now))
                key = ((*values, (node, value)), others, factors)
                longer[key] = longer.get(key, 0.0) + weight
            if len(longer) > self.max_states:
                raise TooManyStates
        return longer

    def _factor(
        self, site: str, shown: tuple[tuple[Config, float], ...]
    ) -> tuple[float, tuple[Factor, ...]]:
        """The number, or the open factor, that a site's responses at some configurations contribute."""
        if site in self.constrained and len(shown) > 1:
            return 1.0, ((site, tuple(sorted(shown))),)
        # Where the site has one value only it is that value in any coupling.
        free = [(c, v) for c, v in shown if len(self.table(site, c)) > 1]
        if not free:
            return 1.0, ()
        if len(free) == 1:
            return self.table(site, free[0][0])[free[0][1]], ()
        return 1.0, ((site, tuple(sorted(free))),)

    def table(self, site: str, config: Config) -> dict[float, float]:
        """Probabilities of the site's values at a configuration, those of probability zero left out."""
        if (site, config) not in self.tables:
            given = dict(zip(self.program.parents[site], config, strict=True))
            found = self.program.conditional(site, given)
            kept = {self._same(site, v): float(p) for v, p in found.items() if p > 0.0}
            total = math.fsum(kept.values())
            self.tables[site, config] = {v: p / total for v, p in sorted(kept.items())}
        return self.tables[site, config]


_Values: TypeAlias = tuple[tuple[_Node, float], ...]
_Responses: TypeAlias = tuple[tuple[str, tuple[tuple[Config, float], ...]], ...]


def _parents_first(asked: Sequence[_Node]) -> list[_Node]:
    order: dict[_Node, None] = {}

    def visit(node: _Node) -> None:
        if node not in order:
            for parent in node.parents:
                if isinstance(parent, _Node):
                    visit(parent)
            order[node] = None

    for node in asked:
        visit(node)
    return list(order)


def outcomes_in(expression: Expression) -> Iterator[Outcome]:
    """The outcomes of an expression inside a term; those in the settings of a world are not among them."""
    if isinstance(expression, Outcome):
        yield expression
    elif isinstance(expression, Arithmetic):
        yield from outcomes_in(expression.left)
        yield from outcomes_in(expression.right)
    elif isinstance(expression, Lookup):
        for argument in expression.arguments:
            yield from outcomes_in(argument)


def value_of(expression: Expression, values: Mapping[Outcome, float]) -> float:
    """The number that an expression inside a term is, given those of its outcomes."""
    if isinstance(expression, Number):
        return float(expression.value)
    if isinstance(expression, Outcome):
        return values[expression]
    if isinstance(expression, Arithmetic):
        left, right = value_of(expression.left, values), value_of(expression.right, values)
        if expression.operator == "/":
            return left / right if right else math.copysign(math.inf, left) if left else math.nan
        return {"+": left + right, "-": left - right, "*": left * right}[expression.operator]
    if isinstance(expression, Lookup):
        return expression.function(tuple(value_of(a, values) for a in expression.arguments))
    raise TypeError(f"a term inside a term: {expression!r}")


def _equal(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-9)


def holds(comparison: Comparison, values: Mapping[Outcome, float]) -> bool:
    """Whether a comparison is true; numbers that differ by round-off of float32 are equal."""
    left, right = value_of(comparison.left, values), value_of(comparison.right, values)
    equal = _equal(left, right)
    match comparison.operator:
        case "=":
            return equal
        case "!=":
            return not equal
        case "<":
            return left < right and not equal
        case "<=":
            return left < right or equal
        case ">":
            return left > right and not equal
        case ">=":
            return left > right or equal


def add(left: Polynomial, right: Polynomial, factor: float = 1.0) -> Polynomial:
    """``left + factor * right``."""
    total = dict(left)
    for monomial, coefficient in right.items():
        total[monomial] = total.get(monomial, 0.0) + factor * coefficient
    return {m: c for m, c in total.items() if c != 0.0 or m == _CONSTANT}


def scale(polynomial: Polynomial, factor: float) -> Polynomial:
    """``factor * polynomial``."""
    return add({}, polynomial, factor)


def constant_of(polynomial: Polynomial) -> float | None:
    """The number that a polynomial is, ``None`` where it depends on a coupling."""
    if any(m != _CONSTANT for m in polynomial):
        return None
    return polynomial.get(_CONSTANT, 0.0)
