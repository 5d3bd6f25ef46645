"""Tests of conditional independence on a table of data, by SciPy's tests of contingency tables and of means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["holm", "independence_p_value"]

Column = npt.NDArray[np.float64]

#: Distinct values up to which a column is taken as discrete.
MOST_LEVELS = 10
#: Inner knots of the splines that a continuous column is regressed on.
KNOTS = 3


def independence_p_value(x: Column, y: Column, given: Sequence[Column] = ()) -> float:
    """The p-value of the hypothesis that two columns are independent given others.

    Discrete columns throughout: the G test, its statistics and degrees of freedom summed over the strata of ``given``. Otherwise the
    generalised covariance measure: both are regressed on additive cubic splines of ``given``, and the products of residuals have
    mean zero under independence (Student's test); squares of continuous columns are tested too, with Bonferroni's correction. It sees
    a dependence of means and variances, not every dependence.

    Args:
        x, y: shape ``(n,)``.
        given: columns of the same shape.

    References:
        R. D. Shah, J. Peters (2020), The hardness of conditional independence testing and the generalised covariance measure.

    Example:
        >>> import numpy as np
        >>> z, u, v = np.random.default_rng(0).normal(size=(3, 500))
        >>> x, y = z + u, z + v
        >>> independence_p_value(x, y) < 1e-6 < 0.05 < independence_p_value(x, y, [z])
        True
    """
    if all(_discrete(column) for column in (x, y, *given)):
        return _g_test(x, y, given)
    basis = np.column_stack([np.ones_like(x), *(_basis(column) for column in given)])
    left = _residuals(_features(x), basis)
    right = _residuals(_features(y), basis)
    from scipy import stats

    products = [a * b for a in left.T for b in right.T]
    smallest = min(
        float(stats.ttest_1samp(p, 0.0).pvalue) if p.std() > 0 else 1.0 for p in products
    )
    return min(1.0, smallest * len(products))


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which hypotheses Holm's procedure rejects, the chance of any false one being at most ``level``.

    References:
        S. Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(p_values)
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > level / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected


def _discrete(column: Column) -> bool:
    return len(np.unique(column)) <= MOST_LEVELS


def _g_test(x: Column, y: Column, given: Sequence[Column]) -> float:
    from scipy import stats

    strata = np.zeros(len(x), dtype=int)
    for column in given:
        strata = strata * (MOST_LEVELS + 1) + np.unique(column, return_inverse=True)[1]
    statistic, freedom = 0.0, 0
    for stratum in np.unique(strata):
        own = strata == stratum
        table: Any = stats.contingency.crosstab(x[own], y[own]).count
        if min(table.shape) > 1:
            found = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood")
            statistic, freedom = statistic + found.statistic, freedom + found.dof
    return float(stats.chi2.sf(statistic, freedom)) if freedom else 1.0


def _features(column: Column) -> Column:
    """Indicators of all levels but one, or the standardised column and its square."""
    if _discrete(column):
        levels = np.unique(column)[1:]
        return (column[:, None] == levels).astype(float)
    z = (column - column.mean()) / column.std()
    return np.column_stack([z, z**2])


def _basis(column: Column) -> Column:
    """Indicators, or a cubic spline with knots at quantiles, linear where it leaves these."""
    if _discrete(column):
        return _features(column)
    z = (column - column.mean()) / column.std()
    knots = np.quantile(z, (np.arange(KNOTS) + 1) / (KNOTS + 1))
    powers = [z, z**2, z**3]
    return np.column_stack([*powers, *(np.maximum(z - knot, 0.0) ** 3 for knot in knots)])


def _residuals(values: Column, basis: Column) -> Column:
    fitted: Column = values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]
    return fitted
