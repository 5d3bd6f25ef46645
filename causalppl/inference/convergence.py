"""Whether Markov chains have converged: rank-normalised split R-hat, bulk and tail effective sample size."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import ShapeError

__all__ = ["Convergence", "convergence"]

_FEWEST_DRAWS = 4
# Given, since the versions of arviz differ in what they take by default.
_TAILS = (0.05, 0.95)


@dataclass(frozen=True)
class Convergence:
    """The worst diagnostics over all coordinates.

    Args:
        rhat: largest rank-normalised split R-hat; at most 1.01 is good. Infinite where a coordinate is
            stuck at different values in different chains; NaN where there is nothing to judge.
        ess_bulk: smallest effective sample size for means, in draws.
        ess_tail: smallest effective sample size for the 5% and 95% quantiles, in draws.
    """

    rhat: float
    ess_bulk: float
    ess_tail: float

    @property
    def ess(self) -> float:
        """The smaller of bulk and tail effective sample size."""
        return min(self.ess_bulk, self.ess_tail)


def _import_arviz() -> Any:
    # arviz announces its next version on import, which is no concern of a user of this library.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def convergence(draws: Tensor) -> Convergence:
    r"""Convergence diagnostics of chains, the worst over coordinates.

    .. math:: \hat R = \sqrt{\hat V / W}

    with :math:`W` the variance within half chains and :math:`\hat V` the pooled estimate, on ranks turned
    into normal scores, of the draws and of their distance from the median. A single chain is cut in
    two halves, which are treated as chains. Coordinates that never vary are left out.

    Args:
        draws: shape ``(chains, num_draws, ...)``; trailing axes are coordinates. Integers are fine.

    Returns:
        A :class:`Convergence`; all NaN where no coordinate varies or a chain has fewer than four draws.

    Raises:
        ShapeError: fewer than two axes.

    References:
        Aki Vehtari, Andrew Gelman, Daniel Simpson, Bob Carpenter, Paul-Christian Bürkner (2021),
        Rank-Normalization, Folding, and Localization: An Improved R-hat for Assessing Convergence of
        MCMC. https://doi.org/10.1214/20-BA1221

    Example:
        >>> import torch
        >>> from causalppl.inference.convergence import convergence
        >>> draws = torch.randn(4, 500, 3, generator=torch.Generator().manual_seed(0))
        >>> convergence(draws).rhat < 1.01
        True
        >>> convergence(draws + torch.arange(4.0)[:, None, None]).rhat > 1.5
        True
    """
    if draws.dim() < 2:
        raise ShapeError(
            f"draws has shape {tuple(draws.shape)}; it must be (chains, num_draws, ...). "
            "Give one chain as draws[None]."
        )
    array = draws.detach().cpu().double().numpy()
    array = array.reshape(*array.shape[:2], -1)
    if len(array) == 1:
        half = array.shape[1] // 2
        array = np.concatenate([array[:, :half], array[:, -half:]]) if half else array
    varies = ~np.all(array == array[:1, :1], axis=(0, 1))
    if array.shape[1] < _FEWEST_DRAWS or not varies.any():
        return Convergence(math.nan, math.nan, math.nan)
    arviz = _import_arviz()
    figures = []
    # One coordinate at a time: a (chains, draws) array is what every version of arviz takes.
    for column in np.moveaxis(array[..., varies], -1, 0):
        if not np.isfinite(column).all():
            figures.append((math.inf, 0.0, 0.0))
            continue
        if (
            column == column[:, :1]
        ).all():  # stuck apart; rounding would leave a large number or NaN
            figures.append((math.inf, 0.0, 0.0))
            continue
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rhat = float(arviz.rhat(column, method="rank"))
            bulk = float(arviz.ess(column, method="bulk"))
            tail = float(arviz.ess(column, method="tail", prob=_TAILS))
        # No variance within any half chain, but some between them.
        figures.append((math.inf if math.isnan(rhat) else rhat, bulk, tail))
    rhats, bulks, tails = zip(*figures, strict=True)
    return Convergence(max(rhats), float(np.nanmin(bulks)), float(np.nanmin(tails)))
