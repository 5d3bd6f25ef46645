"""Expected coverage: how often intervals contain the truth, beside how often they say that they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import MethodError
from .calibration_result import Calibration

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["coverage"]

_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def coverage(
    calibration: Calibration, levels: Sequence[float] = _LEVELS, *, confidence: float = 0.95
) -> pd.DataFrame:
    r"""Nominal against empirical coverage of central intervals, read off the ranks of a calibration.

    The interval between the :math:`k`-th smallest and the :math:`k`-th largest of :math:`D` draws contains the truth
    with probability

    .. math:: 1 - 2k / (D + 1)

    if truth and draws are exchangeable, which is exact: no quantile is estimated. Each level is rounded to the nearest
    that :math:`D` draws have.

    Args:
        calibration: what :func:`simulation_based_calibration` returned.
        levels: probabilities between 0 and 1.
        confidence: probability of the error bars.

    Returns:
        One row for each quantity and level, a data frame with the columns ``nominal``, ``empirical``, the share of truths
        inside, and ``low`` and ``high``, its confidence interval: Clopper and Pearson's for one entry. For several entries,
        which may depend on each other, it is Student's over the simulations.

    Raises:
        MethodError: a level that is no probability.

    References:
        C. J. Clopper, E. S. Pearson (1934), The use of confidence or fiducial limits illustrated in the case of the binomial.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> method = cp.ImportanceSampling(num_proposals=2000)
        >>> check = cp.diagnostics.simulation_based_calibration(model, method, num_simulations=40, seed=0)(torch.zeros(()))
        >>> table = cp.diagnostics.coverage(check, [0.5, 0.9])
        >>> bool((table.low <= table.nominal).all() and (table.nominal <= table.high).all())
        True
    """
    import pandas as pd

    for level in (*levels, confidence):
        if not 0 < level < 1:
            raise MethodError(f"coverage: {level!r} is no probability between 0 and 1")
    draws, rows = calibration.num_samples, []
    for quantity in calibration.tested:
        ranks = calibration.ranks_of(quantity)
        for level in levels:
            k = round((draws + 1) * (1 - level) / 2)
            inside = (k <= ranks) & (ranks <= draws - k)
            low, high = _interval(inside, confidence)
            rows.append((quantity, level, 1 - 2 * k / (draws + 1), float(inside.mean()), low, high))
    columns = ["quantity", "level", "nominal", "empirical", "low", "high"]
    return pd.DataFrame(rows, columns=columns).set_index(["quantity", "level"])


def _interval(inside: npt.NDArray[np.bool_], confidence: float) -> tuple[float, float]:
    """A confidence interval of a share, ``inside`` of shape ``(simulations, entries)``."""
    from scipy import stats

    count, entries = inside.shape
    shares = inside.mean(axis=1)
    spread = float(shares.std(ddof=1)) if count > 1 else 0.0
    if entries == 1 or spread == 0.0:
        found = stats.binomtest(round(float(shares.sum())), count).proportion_ci(confidence)
        return float(found.low), float(found.high)
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * spread / count**0.5
    mean = float(shares.mean())
    return max(0.0, mean - half), min(1.0, mean + half)
