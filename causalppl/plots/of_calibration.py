"""Pictures of calibration: ranks against the band that chance leaves them, and coverage against what was promised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..diagnostics import Calibration, ecdf_band
from ..errors import MethodError, UnknownSiteError, site_list
from .looks import LOOKS, Look, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["calibration", "coverage", "rank_histogram"]

_BAND = "0.85"
_MOST_BINS = 20


def calibration(
    result: Calibration,
    quantities: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    level: float | None = None,
) -> Axes:
    r"""The ECDF of ranks minus that of uniform ranks, with the band that it leaves by chance with probability ``1 - level``.

    One line for each entry of each quantity, thin where there are many; the band is for all lines together (Bonferroni). A
    line below zero before it is above means a posterior that is too wide, the reverse one that is too narrow; a line on one
    side is bias: above zero, draws are too high.

    Args:
        result: what ``cp.diagnostics.simulation_based_calibration`` returned.
        quantities: which to show; all by default.
        ax: axes to draw into; new ones by default.
        level: probability of the band; that of the result by default.

    Returns:
        The axes.

    Raises:
        UnknownSiteError: the result does not have a quantity.

    References:
        Teemu Säilynoja, Paul-Christian Bürkner, Aki Vehtari (2022), Graphical test for discrete uniformity and its
        applications in goodness-of-fit evaluation and multiple sample comparison.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> method = cp.ImportanceSampling(num_proposals=1000)
        >>> check = cp.diagnostics.simulation_based_calibration(model, method, num_simulations=20, seed=0)(torch.zeros(()))
        >>> cp.plots.calibration(check, ["mean"]).get_xlabel()
        'rank of the truth, as a share of the draws'
    """
    shown = {n: result.ranks_of(n) for n in quantities or result.tested}
    axes = new_axes() if ax is None else ax
    level = result.level if level is None else level
    lines = sum(r.shape[1] for r in shown.values())
    band = ecdf_band(result.num_simulations, result.num_samples, 1 - (1 - level) / lines)
    points = np.concatenate([[0.0], band.points, [1.0]])
    low, high = np.pad(band.low - band.points, 1), np.pad(band.high - band.points, 1)
    together = "" if lines == 1 else f", all {lines} lines together"
    axes.fill_between(
        points, low, high, color=_BAND, linewidth=0, label=f"{level:.0%} band{together}"
    )
    axes.axhline(0.0, color="grey", linewidth=0.8)
    edges = np.round(band.points * (result.num_samples + 1))
    for look, (name, ranks) in zip(_looks(len(shown)), shown.items(), strict=True):
        alpha = float(np.clip(3 / ranks.shape[1], 0.25, 1.0))
        width = 1.8 if ranks.shape[1] == 1 else 1.0
        for i, column in enumerate(ranks.T):
            ecdf = np.searchsorted(np.sort(column), edges, side="left") / len(column)
            axes.plot(
                points, np.pad(ecdf - band.points, 1), color=look.colour, linestyle=look.line,
                linewidth=width, alpha=alpha, label="" if i else _text(name, ranks),
            )  # fmt: skip
    axes.set_xlim(0, 1)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top + (0.08 + 0.05 * len(shown)) * (top - bottom))
    axes.set_xlabel("rank of the truth, as a share of the draws")
    axes.set_ylabel("ECDF of ranks minus uniform")
    legend = axes.legend(frameon=False, fontsize="small", loc="upper right")
    for handle in legend.get_lines():
        handle.set_alpha(1.0)
        handle.set_linewidth(1.8)
    return axes


def rank_histogram(
    result: Calibration, quantity: str, *, ax: Axes | None = None, level: float = 0.95
) -> Axes:
    r"""How often each rank occurred, relative to uniform ranks, entries pooled; in grey what chance does to single bars.

    Too many low and high ranks mean a posterior that is too narrow, too few one that is too wide; a slope is bias.

    Args:
        result: what ``cp.diagnostics.simulation_based_calibration`` returned.
        quantity: a latent site, a quantity of one's own, or ``"log_likelihood"``.
        ax: axes to draw into; new ones by default.
        level: probability that chance leaves a single bar within the grey. Where there are several entries, which may depend on
            each other, its width is estimated from the differences between simulations.

    Returns:
        The axes.

    Raises:
        UnknownSiteError: the result does not have the quantity.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> method = cp.ImportanceSampling(num_proposals=1000)
        >>> check = cp.diagnostics.simulation_based_calibration(model, method, num_simulations=20, seed=0)(torch.zeros(()))
        >>> len(cp.plots.rank_histogram(check, "mean").patches) > 0
        True
    """
    ranks, axes = result.ranks_of(quantity), new_axes() if ax is None else ax
    values = result.num_samples + 1
    wanted = int(np.clip(ranks.size // 10, 4, min(_MOST_BINS, values)))
    # bars of equally many ranks where the number of ranks allows it
    bins = max((b for b in range(2, wanted + 1) if values % b == 0), default=wanted)
    if bins < wanted / 2:
        bins = wanted
    edges = np.round(np.linspace(0, values, bins + 1))
    expected = np.diff(edges) / values
    hits = np.stack([np.histogram(row, edges)[0] for row in ranks]) / ranks.shape[1]
    low, high = _chance(hits, expected, ranks.shape[1], level)
    axes.fill_between(
        edges / values, np.append(low, low[-1]), np.append(high, high[-1]), step="post",
        color=_BAND, linewidth=0, label=f"{level:.0%} of single bars",
    )  # fmt: skip
    axes.axhline(1.0, color="grey", linewidth=0.8)
    heights = hits.mean(axis=0) / expected
    look = LOOKS[6]
    axes.stairs(heights, edges / values, fill=True, color=look.colour, alpha=0.2)
    axes.stairs(
        heights, edges / values, color=look.colour, linewidth=1.8, label=_text(quantity, ranks)
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.3 * max(float(heights.max()), float(high.max())))
    axes.set_xlabel("rank of the truth, as a share of the draws")
    axes.set_ylabel("frequency relative to uniform")
    axes.legend(frameon=False, fontsize="small", loc="upper center", ncols=2)
    return axes


def coverage(
    table: pd.DataFrame, quantities: Sequence[str] | None = None, *, ax: Axes | None = None
) -> Axes:
    r"""How often central intervals contain the truth, against how often they say so: right ones lie on the diagonal.

    Points below the diagonal mean over-confident intervals. Error bars are the confidence intervals in the table.

    Args:
        table: what ``cp.diagnostics.coverage`` returned.
        quantities: which to show; all by default.
        ax: axes to draw into; new ones by default.

    Returns:
        The axes.

    Raises:
        UnknownSiteError: the table does not have a quantity.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model(y):
        ...     mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        ...     pyro.sample("y", dist.Normal(mean, 1.0), obs=y)
        >>> method = cp.ImportanceSampling(num_proposals=1000)
        >>> check = cp.diagnostics.simulation_based_calibration(model, method, num_simulations=20, seed=0)(torch.zeros(()))
        >>> cp.plots.coverage(cp.diagnostics.coverage(check)).get_ylabel()
        'share of truths inside'
    """
    known = list(dict.fromkeys(table.index.get_level_values("quantity")))
    for name in quantities or ():
        if name not in known:
            raise UnknownSiteError(f"plots: no quantity {name!r}; there are {site_list(known)}")
    shown, axes = list(quantities or known), new_axes() if ax is None else ax
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for i, (look, name) in enumerate(zip(_looks(len(shown)), shown, strict=True)):
        rows = table.loc[name]
        nudge = 0.008 * (i - (len(shown) - 1) / 2)
        bars = np.stack([rows.empirical - rows.low, rows.high - rows.empirical])
        axes.errorbar(
            rows.nominal + nudge, rows.empirical, np.clip(bars, 0, None), color=look.colour,
            marker=look.marker, linestyle="none", markersize=4.5, linewidth=1.2, label=name,
        )  # fmt: skip
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel("probability of the central interval")
    axes.set_ylabel("share of truths inside")
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return axes


def _chance(
    hits: npt.NDArray[np.float64], expected: npt.NDArray[np.float64], entries: int, level: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where single bars lie with probability ``level``, relative to their expectation."""
    from scipy import stats

    count, tail = len(hits), (1 - level) / 2
    if entries == 1:
        low, high = (stats.binom.ppf(q, count, expected) / count for q in (tail, 1 - tail))
    else:
        half = stats.norm.ppf(1 - tail) * hits.std(axis=0, ddof=1) / count**0.5
        low, high = np.clip(expected - half, 0, None), expected + half
    return low / expected, high / expected


def _looks(count: int) -> list[Look]:
    if count > len(LOOKS):
        raise MethodError(
            f"plots: {count} quantities in one picture cannot be told apart; name at most {len(LOOKS)} with quantities=[...]"
        )
    return list(LOOKS[:count])


def _text(name: str, ranks: npt.NDArray[np.int64]) -> str:
    return name if ranks.shape[1] == 1 else f"{name} ({ranks.shape[1]} entries)"
