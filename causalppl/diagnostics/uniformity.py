"""Whether ranks are uniform: a test on their whole ECDF, with an exact p-value and the band that it draws.

Ranks are whole numbers, so nothing is smoothed or simulated: under uniformity the number of ranks below a point is binomial,
and the probability that the whole path of these numbers stays in a band follows from one pass along the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import MethodError, ShapeError

__all__ = ["Band", "ecdf_band", "holm", "pooled_p_values", "uniformity_p_value"]

Array = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int64]

_MOST_POINTS = 100
#: Below this, one minus a sum of probabilities is rounding; the union bound over the points takes over.
_FINEST = 1e-9


class Band(NamedTuple):
    """A simultaneous band for the ECDF of uniform ranks; all of shape ``(points,)``.

    Attributes:
        points: where the ECDF is looked at, as fractions of the ranks: the ECDF's expected value there.
        low, high: smallest and largest value of the ECDF that stays inside.
    """

    points: Array
    low: Array
    high: Array


def uniformity_p_value(ranks: Ranks, num_draws: int) -> float:
    r"""The p-value of the hypothesis that ranks are independent and uniform on ``0, ..., num_draws``.

    The statistic is the smallest two-sided binomial tail probability of the ECDF over all points,

    .. math:: T = \min_j \; 2 \min\{P(B_j \le n_j), P(B_j \ge n_j)\}, \quad B_j \sim \text{Binomial}(S, z_j),

    with :math:`n_j` the number of ranks below the :math:`j`-th point, so that bias, too narrow and too wide posteriors all
    count, wherever they show. :math:`P(T \le t)` is computed exactly.

    Args:
        ranks: shape ``(simulations,)``, whole numbers from 0 to ``num_draws``.
        num_draws: the number of draws that each rank is among.

    Raises:
        ShapeError: not one axis, or no ranks.
        MethodError: ranks outside of their range.

    References:
        Teemu Säilynoja, Paul-Christian Bürkner, Aki Vehtari (2022), Graphical test for discrete uniformity and its
        applications in goodness-of-fit evaluation and multiple sample comparison. https://doi.org/10.1007/s11222-022-10090-6

    Example:
        >>> import numpy as np
        >>> uniformity_p_value(np.arange(100), 99)
        1.0
        >>> uniformity_p_value(np.arange(100) // 2, 99) < 1e-6
        True
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or not len(ranks):
        raise ShapeError(
            f"ranks have shape {ranks.shape}; give one rank for each simulation, (simulations,)"
        )
    if ranks.min() < 0 or ranks.max() > num_draws:
        raise MethodError(
            f"ranks go from {ranks.min()} to {ranks.max()}; among {num_draws} draws they are 0 to {num_draws}"
        )
    process = _process(len(ranks), num_draws)
    counts = np.searchsorted(np.sort(ranks), process.edges, side="left")
    return process.p_value(counts)


def ecdf_band(num_simulations: int, num_draws: int, level: float = 0.95) -> Band:
    """The band that the ECDF of uniform ranks leaves, anywhere, with probability at most ``1 - level``.

    It is the band of :func:`uniformity_p_value`: outside of it the p-value is at most ``1 - level``.

    Example:
        >>> band = ecdf_band(100, 99)
        >>> bool((band.low <= band.points).all() and (band.points <= band.high).all())
        True
    """
    if not 0 < level < 1:
        raise MethodError(f"level={level!r}: give a probability between 0 and 1, such as 0.95")
    process = _process(num_simulations, num_draws)
    low, high = process.limits(process.tail_at(level))
    return Band(process.edges / (num_draws + 1), low / num_simulations, high / num_simulations)


def pooled_p_values(ranks: Ranks, num_draws: int) -> tuple[float, float]:
    r"""p-values for the mean and for the spread of ranks of many entries, pooled within each simulation.

    Entries of one simulation, such as the units of a plate, may depend on each other, and each may be off by too
    little to show alone. With :math:`u = (r + 1/2) / (D + 1)`, the averages over the entries of :math:`u` and of
    :math:`(u - 1/2)^2` are independent between simulations whatever the dependence within, and their expectations are
    known, 1/2 and :math:`(1 - (D+1)^{-2}) / 12`: each is compared with its expectation by a t-test over the simulations.

    Args:
        ranks: shape ``(simulations, entries)``.
        num_draws: :math:`D`, the number of draws that each rank is among.

    Returns:
        p-values of the mean (bias) and of the spread (too narrow or too wide); 1 with fewer than ten simulations.
    """
    u = (np.asarray(ranks) + 0.5) / (num_draws + 1)
    means, spreads = u.mean(axis=1), ((u - 0.5) ** 2).mean(axis=1)
    expected = (1 - (num_draws + 1.0) ** -2) / 12
    return _t_test(means, 0.5), _t_test(spreads, expected)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number by Holm's method, valid under any dependence.

    References:
        Sture Holm (1979), A simple sequentially rejective multiple test procedure.

    Example:
        >>> holm([0.01, 0.04, 0.5])
        [0.03, 0.08, 0.5]
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for step, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _t_test(values: Array, expected: float) -> float:
    if len(values) < 10:
        return 1.0
    error = values.std(ddof=1) / np.sqrt(len(values))
    from scipy import stats  # loads where it is used: it adds filters of warnings on import

    if error < 1e-12:
        return 1.0 if abs(values.mean() - expected) < 1e-9 else 0.0
    return float(2 * stats.t.sf(abs(values.mean() - expected) / error, len(values) - 1))


@lru_cache(maxsize=32)
def _process(num_simulations: int, num_draws: int) -> _CountProcess:
    return _CountProcess(num_simulations, num_draws)


class _CountProcess:
    """The numbers of uniform ranks below each point, a Markov chain from 0 to the number of simulations.

    Args:
        num_simulations, num_draws: how many ranks there are, and among how many draws each is.
    """

    def __init__(self, num_simulations: int, num_draws: int) -> None:
        if num_simulations < 1 or num_draws < 1:
            raise MethodError(
                f"{num_simulations} ranks among {num_draws} draws cannot be judged; give at least one of each"
            )
        from scipy import stats

        self.total = num_simulations
        count = min(num_draws, _MOST_POINTS)
        self.edges: Ranks = np.unique(np.linspace(1, num_draws, count).round().astype(np.int64))
        z = self.edges / (num_draws + 1)
        numbers = np.arange(num_simulations + 1)[:, None]
        self._below: Array = 2 * stats.binom.cdf(numbers, num_simulations, z)
        self._above: Array = 2 * stats.binom.sf(numbers - 1, num_simulations, z)
        # Counts of a Poisson process have independent increments; given their total they are those of uniform ranks.
        steps = np.diff(np.concatenate([[0.0], z, [1.0]])).round(12)
        pmfs: dict[float, Array] = {
            s: stats.poisson.pmf(np.arange(num_simulations + 1), num_simulations * s)
            for s in set(steps.tolist())
        }
        self._increments = [_trimmed(pmfs[s]) for s in steps.tolist()[:-1]]
        self._last = pmfs[steps.tolist()[-1]]
        self._whole = float(stats.poisson.pmf(num_simulations, num_simulations))

    def limits(self, tail: float) -> tuple[Ranks, Ranks]:
        """Smallest and largest count at each point whose two-sided tail probability exceeds ``tail``."""
        low = (self._below <= tail).sum(axis=0)
        high = self.total - (self._above <= tail).sum(axis=0)
        return low, high

    def inside(self, tail: float) -> float:
        """The probability that all counts have a two-sided tail probability above ``tail``."""
        low, high = self.limits(tail)
        start, mass = 0, np.ones(1)
        for lowest, highest, increment in zip(low, high, self._increments, strict=True):
            if lowest > highest:
                return 0.0
            mass = np.convolve(mass, increment)
            kept = np.zeros(highest - lowest + 1)
            first, last = max(lowest, start), min(highest, start + len(mass) - 1)
            if first > last:
                return 0.0
            kept[first - lowest : last - lowest + 1] = mass[first - start : last - start + 1]
            start, mass = int(lowest), kept
        rest = self._last[self.total - start - np.arange(len(mass))]
        return min(1.0, float(np.sum(mass * rest)) / self._whole)

    def p_value(self, counts: Any) -> float:
        """The probability of counts at least as extreme as these."""
        at = np.arange(len(self.edges))
        tails = np.minimum(self._below[counts, at], self._above[counts, at])
        smallest = float(np.min(np.asarray(tails, dtype=float)))
        if smallest >= 1.0:
            return 1.0
        p_value = 1.0 - self.inside(smallest * (1 + 1e-9))
        bound = len(self.edges) * smallest
        return float(min(1.0, bound if p_value < _FINEST else min(p_value, bound)))

    def tail_at(self, level: float) -> float:
        """The largest tail probability whose band holds all counts with probability ``level`` at least."""
        low, high = (1 - level) / (2 * len(self.edges)), 1.0
        for _ in range(40):
            middle = (low * high) ** 0.5
            low, high = (middle, high) if self.inside(middle) >= level else (low, middle)
        return low


def _trimmed(pmf: Array) -> Array:
    """Without the far upper tail, which adds nothing."""
    return pmf[: int(np.flatnonzero(pmf > 1e-18)[-1]) + 1]
