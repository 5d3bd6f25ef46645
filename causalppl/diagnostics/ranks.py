"""The rank of a truth among draws: exactly uniform where truth and draws are exchangeable, ties included."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["rank", "regridded"]

#: Values that differ by rounding only, in units of the last place, are ties.
_ULPS = 64


def rank(
    truth: npt.NDArray[np.generic],
    draws: npt.NDArray[np.generic],
    generator: np.random.Generator,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    r"""The number of draws below the truth, plus a uniform one of those that equal it.

    .. math:: r = \#\{d_m < \theta\} + U, \quad U \sim \text{Uniform}\{0, \ldots, \#\{d_m = \theta\}\}

    which is uniform on :math:`0, \ldots, D` where truth and draws are exchangeable, whether values are continuous or not.
    Values that differ by less than the rounding of a sum are equal.

    Args:
        truth: any shape.
        draws: shape ``(draws,) + truth.shape``.
        generator: breaks ties.

    Returns:
        ranks of the truth's shape, and where all draws equal the truth.

    References:
        Sean Talts, Michael Betancourt, Daniel Simpson, Aki Vehtari, Andrew Gelman (2018), Validating Bayesian
        inference algorithms with simulation-based calibration. https://arxiv.org/abs/1804.06788
        Martin Modrák et al. (2023), Simulation-based calibration checking for Bayesian computation: the choice of test
        quantities shapes sensitivity. https://doi.org/10.1214/23-BA1404 (ties: section 2.2)

    Example:
        >>> rank(np.array(0.5), np.array([0.1, 0.2, 0.9]), np.random.default_rng(0))[0]
        array(2)
    """
    tolerance: npt.NDArray[np.float64] | float = 0.0
    if draws.dtype.kind == "f":
        scale = np.maximum(np.abs(draws), np.abs(truth)).astype(float)
        tolerance = np.where(
            np.isfinite(scale), _ULPS * np.finfo(draws.dtype.name).eps * scale, 0.0
        )
    with np.errstate(invalid="ignore"):  # infinity minus infinity, which equal each other
        gap = draws.astype(float) - truth.astype(float)
    same = (np.abs(gap) <= tolerance) | (draws == truth)
    below, equal = (~same & (gap < 0)).sum(axis=0), same.sum(axis=0)
    found = np.asarray(below + generator.integers(0, equal, endpoint=True), dtype=np.int64)
    return found, np.asarray(equal == len(draws))


def regridded(
    ranks: npt.NDArray[np.int64], num_draws: int, new_num_draws: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Ranks among ``num_draws`` draws as ranks among ``new_num_draws``: uniform ones stay uniform.

    Each rank becomes a uniform point of its own interval of the unit interval, which is cut anew.

    Example:
        >>> regridded(np.array([0, 1]), 1, 1, np.random.default_rng(0))
        array([0, 1])
    """
    if num_draws == new_num_draws:
        return ranks
    points = (ranks + generator.random(ranks.shape)) / (num_draws + 1)
    return np.asarray(np.floor(points * (new_num_draws + 1)), dtype=np.int64)
