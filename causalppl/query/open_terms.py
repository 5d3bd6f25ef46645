"""Terms about sites that are continuous or have infinitely many values, put into words of the finite sites.

Such a site is *open*. Given the values of its parents its response is independent of everything else, as long as nothing else that
the term needs comes from it. So what a term says of it becomes a function of its parents, which are finite:

* its mean, where the term is linear in it;
* the probability of a comparison in which it appears alone, or the least and greatest where it appears in two worlds;
* its density at the value that a condition gives it.

Where a term compares the site with numbers, in as many worlds as it likes, the site itself becomes finite: a cell between two
thresholds, or a threshold, is then a value.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..notation.arithmetic import linear
from ..notation.resolution import Arrows
from ..notation.terms import (
    Arithmetic,
    Comparison,
    Expectation,
    Expression,
    Lookup,
    Number,
    Outcome,
    Probability,
    Setting,
    Term,
)
from .makarov import ComparedPairs, Operator, Scaled, compared, compared_alone
from .relevance import relevance
from .response_bounds import Interval, Meaning, Weighted
from .response_polynomials import outcomes_in
from .site_laws import NoLaw, SiteLaws

__all__ = ["OpenTerms"]

_FLIPPED: dict[Operator, Operator] = {
    "<": ">",
    "<=": ">=",
    ">": "<",
    ">=": "<=",
    "=": "=",
    "!=": "!=",
}


class _Beyond(Exception):
    """Nothing here serves the term."""


@dataclass
class OpenTerms:
    """Reads the terms of one query.

    Attributes:
        laws: where the laws of open sites come from.
        arrows: site to its direct parents.
        finite: the sites that have tables.
        open: the scalar sites outside of plates that have none.
        counts: those of them whose values are integers.
        thresholds: after all terms were read, open site to the numbers that it is compared with, sorted.
        needed: outcomes of the finite sites that the terms came to.
    """

    laws: SiteLaws
    arrows: Arrows
    finite: Collection[str]
    open: Collection[str]
    counts: Collection[str]
    thresholds: dict[str, list[float]] = field(default_factory=dict)
    needed: list[Outcome] = field(default_factory=list)
    _pairs: list[ComparedPairs] = field(default_factory=list)

    def meaning(self, term: Term, known: Interval) -> Meaning:
        """What a term comes to; nothing but ``known`` where it is out of reach. Cells are named by :meth:`in_cells` later."""
        try:
            return _Reading(self, term, known).meaning()
        except (_Beyond, ValueError):
            return Meaning(known)

    def compared_sites(self) -> tuple[str, ...]:
        """After the bounds were computed, the sites whose responses were compared with each other."""
        return tuple(dict.fromkeys(site for pairs in self._pairs for site in pairs.sites))

    def parents(self, outcome: Outcome) -> tuple[Outcome | Number, ...]:
        """The parents of a site in the outcome's world."""
        return tuple(_in_world(p, outcome.settings) for p in self.arrows[outcome.site])

    def ask(self, found: Iterable[Outcome]) -> None:
        """Take note of outcomes whose values matter.

        Raises:
            _Beyond: one of the sites that they need has no table.
        """
        outcomes = list(found)
        if not relevance(outcomes, self.arrows).laws <= set(self.finite):
            raise _Beyond
        self.needed += outcomes

    def in_cells(self, meaning: Meaning) -> Meaning:
        """The same with the numbers that open sites are compared with replaced by those of the cells."""
        changed: dict[str, Any] = {}
        for name in ("low", "high"):
            weighted: Weighted | None = getattr(meaning, name)
            if weighted is not None:
                term = weighted.term
                given = tuple(map(self._cell, term.given))
                if isinstance(term, Probability):
                    term = Probability(tuple(map(self._cell, term.event)), given)
                else:
                    term = Expectation(term.expression, given)
                changed[name] = replace(weighted, term=term)
        return replace(meaning, **changed)

    def _cell(self, comparison: Comparison) -> Comparison:
        left, right = comparison.left, comparison.right
        if isinstance(left, Outcome) and left.site in self.open:
            assert isinstance(right, Number)
            at = self.thresholds[left.site].index(right.value)
            return Comparison(left, comparison.operator, Number(float(2 * at + 1)))
        return comparison


class _Reading:
    """One term, taken apart by what it says of open sites."""

    def __init__(self, owner: OpenTerms, term: Term, known: Interval) -> None:
        self.owner, self.term, self.known = owner, term, known
        self.uses: dict[str, list[str]] = {}  # open site to what it is used for
        self.cells: dict[str, set[float]] = {}
        self.needed: list[Outcome] = []
        self.top: list[tuple[Lookup, Lookup]] = []
        self.both: list[Expression] = []
        self.pairs = ComparedPairs()
        owner._pairs.append(self.pairs)

    def meaning(self) -> Meaning:
        term = self.term
        given = tuple(c for c in (self._condition(c) for c in term.given) if c is not None)
        read: Term
        if isinstance(term, Probability):
            event = tuple(c for c in (self._event(c) for c in term.event) if c is not None)
            read = Probability(event, given)
        else:
            read = Expectation(self._averaged(term.expression), given)
        for kinds in self.uses.values():
            # in cells a site is a node of its own; otherwise it may be used once, or linearly
            if len(set(kinds)) > 1 or (kinds[0] not in ("cells", "mean") and len(kinds) > 1):
                raise _Beyond
        self.owner.ask(self.needed)
        for site, numbers in self.cells.items():
            known = set(self.owner.thresholds.get(site, ()))
            self.owner.thresholds[site] = sorted(known | numbers)
        both = _product(self.both)
        low = Weighted(read, _product([low for low, _ in self.top]), both)
        if all(low is high for low, high in self.top):
            return Meaning(self.known, low)
        high = Weighted(read, _product([high for _, high in self.top]), both)
        return Meaning(self.known, low, high, self.pairs.sharp)

    def _opens(self, *expressions: Expression) -> list[Outcome]:
        """The open outcomes; the others are asked."""
        found = list(dict.fromkeys(o for e in expressions for o in outcomes_in(e)))
        mine = [o for o in found if o.site in self.owner.open]
        self.needed += [o for o in found if o not in mine]
        for outcome in mine:
            self.needed += [Outcome(p, outcome.settings) for p in self.owner.arrows[outcome.site]]
        return mine

    def _use(self, outcomes: Iterable[Outcome], what: str) -> None:
        for site in {o.site for o in outcomes}:
            self.uses.setdefault(site, []).append(what)

    def _condition(self, comparison: Comparison) -> Comparison | None:
        """A condition in words of finite sites; ``None`` where it became a weight."""
        opens = self._opens(comparison.left, comparison.right)
        if not opens:
            return comparison
        factors, constant = linear(Arithmetic("-", comparison.left, comparison.right))
        if len(opens) > 1 or opens[0] not in factors:
            raise _Beyond
        (outcome,) = opens
        if comparison.operator == "=" and outcome.site not in self.owner.counts:
            # of a continuous site this has probability zero: its density weighs
            if len(factors) > 1:
                raise _Beyond
            self._use(opens, "density")
            self.both.append(self._density(outcome, -constant / factors[outcome]))
            return None
        if len(factors) == 1:
            return self._in_cells(outcome, factors[outcome], comparison.operator, -constant)
        self._use(opens, "alone")
        self.both.append(self._alone(comparison.operator, factors, constant, outcome))
        return None

    def _event(self, comparison: Comparison) -> Comparison | None:
        opens = self._opens(comparison.left, comparison.right)
        if not opens:
            return comparison
        factors, constant = linear(Arithmetic("-", comparison.left, comparison.right))
        opens = [o for o in opens if o in factors]
        if len(opens) == 1 and len(factors) == 1:
            return self._in_cells(opens[0], factors[opens[0]], comparison.operator, -constant)
        if len(opens) == 1:
            self._use(opens, "alone")
            found = self._alone(comparison.operator, factors, constant, opens[0])
            self.top.append((found, found))
        elif len(opens) == 2 and all(low is high for low, high in self.top):
            self._use(opens, "compared")
            self.top.append(self._compared(comparison.operator, factors, constant, opens))
        else:
            raise _Beyond
        return None

    def _in_cells(
        self, outcome: Outcome, factor: float, operator: Operator, number: float
    ) -> Comparison:
        self._use([outcome], "cells")
        self.cells.setdefault(outcome.site, set()).add(number / factor)
        return Comparison(
            outcome, operator if factor > 0 else _FLIPPED[operator], Number(number / factor)
        )

    def _alone(
        self,
        operator: Operator,
        factors: Mapping[Outcome, float],
        constant: float,
        outcome: Outcome,
    ) -> Lookup:
        """The probability of a comparison with finite sites, by the values of these and of the site's parents."""
        rest = {o: f for o, f in factors.items() if o != outcome}
        parents = self.owner.parents(outcome)

        def function(values: tuple[float, ...]) -> float:
            config, others = values[: len(parents)], values[len(parents) :]
            s = -constant - math.fsum(f * v for f, v in zip(rest.values(), others, strict=True))
            return compared_alone(
                Scaled(self._law(outcome.site, config), factors[outcome]), operator, s
            )

        return Lookup((*parents, *rest), function)

    def _compared(
        self,
        operator: Operator,
        factors: Mapping[Outcome, float],
        constant: float,
        opens: Sequence[Outcome],
    ) -> tuple[Lookup, Lookup]:
        """The least and the greatest probability of a comparison of two open outcomes, by the values of the finite ones."""
        first, second = opens
        rest = {o: f for o, f in factors.items() if o not in opens}
        one, two = self.owner.parents(first), self.owner.parents(second)
        cut = len(one), len(one) + len(two)
        known: dict[tuple[float, ...], tuple[float, float, bool]] = {}

        def ends(values: tuple[float, ...]) -> tuple[float, float, bool]:
            if values not in known:
                others = values[cut[1] :]
                s = -constant - math.fsum(f * v for f, v in zip(rest.values(), others, strict=True))
                a = (first.site, values[: cut[0]])
                b = (second.site, values[cut[0] : cut[1]])
                if a == b:  # one response, so one value
                    found = self._own(operator, a, factors[first] + factors[second], s)
                    known[values] = found, found, True
                else:
                    found_pair = compared(
                        Scaled(self._law(*a), factors[first]),
                        Scaled(self._law(*b), factors[second]),
                        operator,
                        s,
                    )
                    known[values] = found_pair
                    self.pairs.add(a, b, s, found_pair[2])
            return known[values]

        arguments = (*one, *two, *rest)
        return Lookup(arguments, lambda v: ends(v)[0]), Lookup(arguments, lambda v: ends(v)[1])

    def _own(
        self, operator: Operator, where: tuple[str, tuple[float, ...]], factor: float, s: float
    ) -> float:
        if factor == 0.0:
            truth = {"=": s == 0, "!=": s != 0, "<": s > 0, "<=": s >= 0, ">": s < 0, ">=": s <= 0}
            return float(truth[operator])
        return compared_alone(Scaled(self._law(*where), factor), operator, s)

    def _density(self, outcome: Outcome, value: float) -> Lookup:
        def function(config: tuple[float, ...]) -> float:
            density = self._law(outcome.site, config).density
            if density is None:
                raise NoLaw
            return float(density(np.array([value]))[0])

        return Lookup(self.owner.parents(outcome), function)

    def _averaged(self, expression: Expression) -> Expression:
        """The expression with the means of open outcomes in their places, where it is linear in these."""
        opens = self._opens(expression)
        self._use(opens, "mean")
        return self._with_means(expression, frozenset(opens))

    def _with_means(self, expression: Expression, opens: frozenset[Outcome]) -> Expression:
        if isinstance(expression, Outcome) and expression in opens:
            return Lookup(self.owner.parents(expression), self._mean(expression.site))
        if not isinstance(expression, Arithmetic):
            return expression
        inside = [bool(opens & set(outcomes_in(e))) for e in (expression.left, expression.right)]
        if inside[1] and (expression.operator == "/" or (expression.operator == "*" and inside[0])):
            raise _Beyond
        left, right = (self._with_means(e, opens) for e in (expression.left, expression.right))
        return Arithmetic(expression.operator, left, right)

    def _mean(self, site: str) -> Any:
        def function(config: tuple[float, ...]) -> float:
            mean = self._law(site, config).mean
            if not math.isfinite(mean):
                raise NoLaw
            return mean

        return function

    def _law(self, site: str, config: tuple[float, ...]) -> Any:
        return self.owner.laws.given(site, dict(zip(self.owner.arrows[site], config, strict=True)))


def _in_world(site: str, settings: tuple[Setting, ...]) -> Outcome | Number:
    own = next((s for s in settings if s.site == site), None)
    if own is None:
        return Outcome(site, settings)
    return own.value if isinstance(own.value, Outcome) else Number(own.value)


def _product(factors: Sequence[Expression]) -> Expression | None:
    if not factors:
        return None
    total = factors[0]
    for factor in factors[1:]:
        total = Arithmetic("*", total, factor)
    return total
