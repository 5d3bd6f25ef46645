r"""How two numbers with known laws compare, whatever couples them: the bounds of Makarov and of Frank, Nelsen and Schweizer.

With :math:`\{A < x\} \cap \{B \le s - x\} \subset \{A + B < s\}`,

.. math:: P(A + B < s) \ge \sup_x \max(P(A \le x) + P(B < s - x) - 1, 0),

and no more can be said: the infimum over couplings is this supremum, by Strassen's theorem (approached rather than attained where a
law has no atoms and equality counts). The least probability of each other comparison is of the same form, the greatest one minus the
least of its complement. Any ``x`` gives a valid bound, so that what the search for the best one misses can make a range wider, never
wrong.

References:
    G. Makarov (1981), Estimates for the distribution function of a sum of two random variables when the marginal distributions are fixed.
    M. Frank, R. Nelsen, B. Schweizer (1987), Best-possible bounds for the distribution of a sum, a problem of Kolmogorov.
    V. Strassen (1965), The existence of probability measures with given marginals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .site_laws import TAIL, Floats, SiteLaw

__all__ = ["ComparedPairs", "Operator", "Scaled", "compared", "compared_alone"]

Operator = Literal["=", "!=", "<", "<=", ">", ">="]

_COMPLEMENT: dict[Operator, Operator] = {
    "<": ">=",
    "<=": ">",
    ">": "<=",
    ">=": "<",
    "=": "!=",
    "!=": "=",
}
#: Points of the first grid in each tail and in the middle; rounds, places and points of the refinement.
_TAIL_POINTS, _POINTS = 200, 800
_ROUNDS, _PLACES, _FINE = 5, 4, 60


@dataclass(frozen=True)
class Scaled:
    """``factor * Y``, for a ``Y`` with a known law; the factor is not zero."""

    law: SiteLaw
    factor: float

    def below(self, a: Floats) -> Floats:
        """``P(factor * Y < a)``."""
        y = self._value(a)
        return self.law.below(y) if self.factor > 0 else 1 - self.law.upto(y)

    def upto(self, a: Floats) -> Floats:
        """``P(factor * Y <= a)``."""
        y = self._value(a)
        return self.law.upto(y) if self.factor > 0 else 1 - self.law.below(y)

    def at(self, a: Floats) -> Floats:
        """``P(factor * Y = a)``."""
        return self.upto(a) - self.below(a)

    def points(self) -> Floats:
        """Values that a search for the best one starts from: all of a discrete law, quantiles of a continuous one."""
        if self.law.discrete:
            return self.factor * self.law.atoms()
        tail = np.geomspace(TAIL, 1e-3, _TAIL_POINTS)
        found = self.law.quantile(
            np.concatenate([tail, np.linspace(1e-3, 1 - 1e-3, _POINTS), 1 - tail])
        )
        return self.factor * found[np.isfinite(found)]

    def _value(self, a: Floats) -> Floats:
        y = a / self.factor
        if not self.law.discrete:
            return y
        near = np.round(y)  # an integer but for rounding is one
        return np.where(np.abs(y - near) <= 1e-9 * np.maximum(1.0, np.abs(y)), near, y)


def compared(a: Scaled, b: Scaled, operator: Operator, s: float) -> tuple[float, float, bool]:
    """The least and the greatest ``P(a + b operator s)`` over all couplings of the two, and whether these are sharp.

    Example:
        >>> import pyro.distributions as dist
        >>> from causalppl.query.site_laws import law_of
        >>> treated, untreated = law_of(dist.Normal(1.0, 1.0)), law_of(dist.Normal(0.0, 1.0))
        >>> low, high, sharp = compared(Scaled(treated, 1.0), Scaled(untreated, -1.0), ">", 0.0)
        >>> round(low, 4), high, sharp  # the first is 2 Phi(1 / 2) - 1
        (0.3829, 1.0, True)
    """
    low, first = _least(a, b, operator, s)
    rest, second = _least(a, b, _COMPLEMENT[operator], s)
    return low, max(low, 1.0 - rest), first and second


def compared_alone(a: Scaled, operator: Operator, s: float) -> float:
    """``P(a operator s)``."""
    at = np.array([s])
    below, upto = float(a.below(at)[0]), float(a.upto(at)[0])
    found = {
        "<": below,
        "<=": upto,
        ">": 1.0 - upto,
        ">=": 1.0 - below,
        "=": upto - below,
        "!=": 1.0 - (upto - below),
    }
    return found[operator]


def _least(a: Scaled, b: Scaled, operator: Operator, s: float) -> tuple[float, bool]:
    discrete = a.law.discrete and b.law.discrete
    if operator in ("=", "!="):
        return (
            _least_equal(a, b, operator, s)
            if discrete
            else _least_equal_continuous(a, b, operator, s)
        )

    def together(x: Floats) -> Floats:
        if operator in ("<", "<="):
            other = b.below(s - x) if operator == "<" else b.upto(s - x)
            return a.upto(x) + other - 1
        other = b.upto(s - x) if operator == ">" else b.below(s - x)
        return (1 - a.below(x)) + (1 - other) - 1

    points = np.unique(np.concatenate([a.points(), s - b.points()]))
    values = together(points)
    best = float(values.max(initial=0.0))
    if not discrete:
        best = max(best, _refined(together, points, values))
    return min(1.0, best), True


def _refined(together: object, points: Floats, values: Floats) -> float:
    """The greatest value near the best points of a grid."""
    assert callable(together)
    best = float(values.max())
    for at in np.argsort(values)[-_PLACES:]:
        low, high = points[max(at - 1, 0)], points[min(at + 1, len(points) - 1)]
        for _ in range(_ROUNDS):
            fine = np.linspace(low, high, _FINE)
            found = together(fine)
            top = int(found.argmax())
            best = max(best, float(found[top]))
            low, high = fine[max(top - 1, 0)], fine[min(top + 1, _FINE - 1)]
    return best


def _least_equal(a: Scaled, b: Scaled, operator: Operator, s: float) -> tuple[float, bool]:
    """Of discrete laws: ``A = s - B`` for as little, or as much, of the probability as the two laws allow."""
    x = np.unique(a.points())
    p, q = a.at(x), b.at(s - x)
    if operator == "=":
        return float((p + q - 1).max(initial=0.0)), True
    return max(0.0, 1.0 - float(np.minimum(p, q).sum()) - 4 * TAIL), True


def _least_equal_continuous(
    a: Scaled, b: Scaled, operator: Operator, s: float
) -> tuple[float, bool]:
    """Without atoms equality can be avoided; how much of it there can be is bounded by the distance of the laws."""
    if operator == "=":
        return 0.0, True
    if a.law.discrete or b.law.discrete:
        return 1.0, True
    x = np.unique(np.concatenate([a.points(), s - b.points()]))
    apart = np.abs(a.upto(x) - (1 - b.below(s - x)))  # of the distribution functions of A and s - B
    return float(apart.max(initial=0.0)), False


class ComparedPairs:
    """Which responses of a site were compared. Couplings of pairs fit together where the pairs form no cycle."""

    def __init__(self) -> None:
        self._shown: dict[frozenset[Any], tuple[Any, float]] = {}
        self._sharp = True
        self.sites: dict[str, None] = {}

    def add(self, a: tuple[str, Any], b: tuple[str, Any], s: float, sharp: bool) -> None:
        """Two responses, and the number that they were compared by."""
        self.sites |= {a[0]: None, b[0]: None}
        # responses of two sites are independent; and one pair may not be at its worst for two numbers, or both ways round, at once
        known = self._shown.setdefault(frozenset((a, b)), (a, s))
        self._sharp &= sharp and a[0] == b[0] and known == (a, s)

    def sharp(self) -> bool:
        """Whether the extreme couplings of all pairs can hold at once."""
        import networkx as nx

        graph: Any = nx.Graph(tuple(pair) for pair in self._shown)
        return self._sharp and (not self._shown or nx.is_forest(graph))
