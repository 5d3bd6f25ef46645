"""How one site of finite support answers in several worlds: exact joint laws of its mechanism's responses.

A site has one noise for all worlds. What is known of that noise after some worlds have shown their values is kept as
a :class:`Known`; a further world with its own conditional law splits it into what each value would add.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from ..structural.noise import keyed_seed

__all__ = ["Conditional", "Fresh", "Known", "NoExactCoupling", "gumbel_max_joint"]

#: Draws of Gumbel noise for each batch where three or more worlds differ.
GUMBELS = 20_000


class NoExactCoupling(Exception):
    """The mechanism of a site gives no joint law in closed form."""


@dataclass(frozen=True, eq=False)
class Conditional:
    """The law of a site given its parents. Two are the same object exactly where they are the same law.

    Attributes:
        site: the site's name.
        support: its values, in order.
        probabilities: one for each value; they sum to 1 in float64.
        coupling: how worlds with different laws hang together: one uniform, Gumbel-max, or nothing known in closed form.
        mechanism: the mechanism's name.
        chosen: whether the user chose the mechanism, rather than its family.
        others: names of the family's other mechanisms.
    """

    site: str
    support: tuple[float, ...]
    probabilities: tuple[float, ...]
    coupling: Literal["inverse_cdf", "gumbel_max", "none"] = "none"
    mechanism: str = ""
    chosen: bool = False
    others: tuple[str, ...] = ()
    edges: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        inner = np.cumsum(self.probabilities)[:-1]
        object.__setattr__(self, "edges", (0.0, *(float(e) for e in inner), 1.0))


class Known(Protocol):
    """What is known of a site's noise."""

    def split(self, law: Conditional) -> Iterator[tuple[float, float, Known]]:
        """Values under ``law``, each with its probability given what is known, and what is then known."""


@dataclass(frozen=True)
class Fresh:
    """Nothing is known yet; ``batch`` numbers the Gumbels to be drawn where they are needed."""

    batch: int = 0
    seed: int = 0

    def split(self, law: Conditional) -> Iterator[tuple[float, float, Known]]:
        """Every value with its own probability."""
        for i, (value, p) in enumerate(zip(law.support, law.probabilities, strict=True)):
            if p > 0:
                known: Known
                if law.coupling == "inverse_cdf":
                    known = _Cell(law, i, law.edges[i], law.edges[i + 1])
                elif law.coupling == "gumbel_max":
                    known = _Gumbels(((law, i),), self)
                else:
                    known = _Value(law, value)
                yield value, p, known


@dataclass(frozen=True)
class _Value:
    """Only that the value is this one, by a mechanism without a closed form."""

    law: Conditional
    value: float

    def split(self, law: Conditional) -> Iterator[tuple[float, float, Known]]:
        """The same law gives the same value."""
        if law is not self.law:
            raise NoExactCoupling(law.site)
        yield self.value, 1.0, self


@dataclass(frozen=True)
class _Cell:
    """The uniform lies in ``[low, high)``; ``law`` and ``index`` are one that led there."""

    law: Conditional
    index: int
    low: float
    high: float

    def split(self, law: Conditional) -> Iterator[tuple[float, float, Known]]:
        """The cells of ``law`` that meet this one, by their share of it."""
        if law is self.law:
            yield law.support[self.index], 1.0, self
            return
        if law.coupling != "inverse_cdf":
            raise NoExactCoupling(law.site)
        width = self.high - self.low
        pieces = []
        for i, value in enumerate(law.support):
            low, high = max(self.low, law.edges[i]), min(self.high, law.edges[i + 1])
            overlap = high - low
            # edges that are equal on paper may differ by a rounding: such a sliver is no event
            sliver = overlap < 1e-15 and overlap < 1e-6 * min(width, law.probabilities[i])
            if overlap > 0 and not sliver:
                pieces.append((value, i, low, high))
        total = sum(high - low for _, _, low, high in pieces)
        for value, i, low, high in pieces:
            yield value, (high - low) / total, _Cell(law, i, low, high)


@dataclass(frozen=True)
class _Gumbels:
    """Under each of these laws, this index wins."""

    shown: tuple[tuple[Conditional, int], ...]
    fresh: Fresh

    def split(self, law: Conditional) -> Iterator[tuple[float, float, Known]]:
        """By the closed form for a second law, by drawn Gumbels for a third."""
        for seen, index in self.shown:
            if law is seen:
                yield law.support[index], 1.0, self
                return
        first, i = self.shown[0]
        if law.coupling != "gumbel_max" or law.support != first.support:
            raise NoExactCoupling(law.site)
        if len(self.shown) == 1:
            row = gumbel_max_joint(first.probabilities, law.probabilities)[i]
        else:
            row = self._drawn(law)
        total = row.sum()
        for j, weight in enumerate(row):
            if weight > 0:
                known = _Gumbels((*self.shown, (law, j)), self.fresh)
                yield law.support[j], float(weight / total), known

    def _drawn(self, law: Conditional) -> np.ndarray:
        """How often each index wins under ``law``, among Gumbels that fit what was shown."""
        first, i = self.shown[0]
        rng = np.random.default_rng(keyed_seed(self.fresh.seed, law.site, i, self.fresh.batch))
        p = np.array(first.probabilities)
        with np.errstate(divide="ignore"):
            clocks = rng.exponential(size=(GUMBELS, len(p)))
            # the winner's clock rings at an exponential time, the others later than it says
            start = clocks[:, i].copy()
            clocks = clocks + start[:, None] * p
            clocks[:, i] = start * p[i]
            fits = np.ones(GUMBELS, dtype=bool)
            for seen, j in self.shown[1:]:
                fits &= (clocks / np.array(seen.probabilities)).argmin(1) == j
            wins = (clocks[fits] / np.array(law.probabilities)).argmin(1)
        if not len(
            wins
        ):  # so rare that no draw showed it: the last world's value is the best guess
            row = np.zeros(len(p))
            row[self.shown[-1][1]] = 1.0
            return row
        return np.bincount(wins, minlength=len(p)).astype(float)


def gumbel_max_joint(p: tuple[float, ...], q: tuple[float, ...]) -> np.ndarray:
    r"""Joint law of the winners of two Gumbel-max sites that share their noise, shape ``(categories, categories)``.

    With exponential clocks :math:`E_k`, the winner under ``p`` has the least :math:`E_k / p_k`. Given
    :math:`E_j = r E_i`, entry ``(i, j)`` is

    .. math:: \int_{p_j / p_i}^{q_j / q_i} \Big(1 + r + \sum_k \max(p_k / p_i, r q_k / q_j)\Big)^{-2} dr,

    and between the kinks of the maxima the integrand is one over the square of a line.

    References:
        M. Oberst, D. Sontag (2019), Counterfactual Off-Policy Evaluation with Gumbel-Max Structural Causal Models.

    Example:
        >>> gumbel_max_joint((0.2, 0.8), (0.5, 0.5)).round(3).tolist()
        [[0.2, 0.0], [0.3, 0.5]]
    """
    n = len(p)
    table = np.zeros((n, n))
    for i, j in itertools.product(range(n), range(n)):
        if p[i] > 0 and q[j] > 0:
            others = [k for k in range(n) if k not in (i, j)]
            if i == j:
                rest = sum(max(p[k] / p[i], q[k] / q[i]) for k in others)
                table[i, i] = 1 / (1 + rest)
            else:
                table[i, j] = _off_diagonal(p, q, i, j, others)
    return table


def _off_diagonal(
    p: tuple[float, ...], q: tuple[float, ...], i: int, j: int, others: list[int]
) -> float:
    low = p[j] / p[i]
    high = q[j] / q[i] if q[i] > 0 else math.inf
    if high <= low * (1 + 1e-14):
        return 0.0
    kinks = (p[k] * q[j] / (p[i] * q[k]) for k in others if q[k] > 0)
    ends = [low, *sorted(x for x in kinks if low < x < high), high]
    total = 0.0
    for a, b in itertools.pairwise(ends):
        middle = (a + b) / 2 if math.isfinite(b) else 2 * a + 1
        constant, slope = 1.0, 1.0
        for k in others:
            if middle * q[k] / q[j] > p[k] / p[i]:
                slope += q[k] / q[j]
            else:
                constant += p[k] / p[i]
        at_a = constant + slope * a
        total += (
            (b - a) / (at_a * (constant + slope * b)) if math.isfinite(b) else 1 / (slope * at_a)
        )
    return total
