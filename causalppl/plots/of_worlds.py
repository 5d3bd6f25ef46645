"""Pictures of worlds: what happened beside what would have happened, and the difference with its uncertainty.

Worlds differ in colour, line style, hatching and marker, never in colour alone, so that pictures survive print and
colour-blind readers. Individuals stand in rows under the population, on the same horizontal axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import ShapeError, UnknownWorldError, closest_name, site_list
from .looks import LOOKS, Look, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from xarray import DataArray

    from ..results import Worlds

__all__ = ["contrast", "worlds"]

Array = npt.NDArray[np.float64]


#: How a difference between two worlds is drawn: unlike any of the first worlds.
_DIFFERENCE = Look("#0072B2", "-", "o", "///")
_MOST_CATEGORIES = 12
_MOST_BINS = 60
#: Heights are in parts of the population's height.
_ROW = 0.17
_INDIVIDUALS = 1.3


def worlds(
    result: Worlds,
    site: str,
    *,
    ax: Axes | None = None,
    units: Iterable[int] | Mapping[int, str] | None = None,
    worlds: Sequence[str] | None = None,
    label: str | None = None,
    level: float = 0.95,
) -> Axes:
    r"""One site in several worlds, side by side.

    A site without a plate shows its posterior distribution in each world: a density, or the probability of each value
    where there are few. A site in a plate shows how its units' posterior means, :math:`E[v_i \mid \text{data}]`, spread
    over the units; a discrete one shows the share of each value over units and draws. The legend has the means.

    Args:
        result: what ``cp.counterfactual`` or ``predict`` returned.
        site: a site with the dimensions ``(draw, world)`` or ``(draw, world, units)``.
        ax: axes to draw into; new ones by default.
        units: positions of individuals in the plate, drawn as rows under the population: posterior mean and
            interval in each world; for a discrete site, dots whose area is the probability of their value. A
            mapping gives the rows names.
        worlds: names of the worlds to show, in this order; all of them by default.
        label: text of the horizontal axis, best with the outcome's units; the site's name by default.
        level: probability of the individuals' intervals, which lie between quantiles.

    Returns:
        The axes.

    Raises:
        UnknownSiteError: the result does not have the site.
        UnknownWorldError: the result does not have a world, or none of the worlds shown has the site.
        ShapeError: the site has further dimensions, or a unit is not in the plate.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(x, 1.0))
        >>> result = cp.counterfactual(model, {"x": 2.0}, num_samples=200, seed=0)()
        >>> axes = cp.plots.worlds(result, "y", label="outcome, kg")
        >>> axes.get_xlabel()
        'outcome, kg'
    """
    names = _known_worlds(result, result.worlds if worlds is None else worlds)
    data = result[site]
    plate = _plate_of(site, data, beside=("draw", "world"))
    rows = _unit_names(site, data, plate, () if units is None else units)
    draws = {n: np.asarray(data.sel(world=n).values, dtype=float) for n in names}
    draws = {n: v[~np.isnan(v).reshape(len(v), -1).any(axis=1)] for n, v in draws.items()}
    draws = {n: v for n, v in draws.items() if len(v)}
    if not draws:
        raise UnknownWorldError(
            f"plots: none of the worlds {site_list(names)} has the site {site!r}"
        )
    looks = {name: LOOKS[i % len(LOOKS)] for i, name in enumerate(names)}
    axes = new_axes() if ax is None else ax

    categories = _categories(draws.values())
    if categories is None:
        _draw_densities(axes, {n: v.mean(0) if plate else v for n, v in draws.items()}, looks)
        axes.set_ylabel(f"density over {plate}" if plate else "posterior density")
    else:
        _draw_bars(axes, draws, categories, looks)
        axes.set_ylabel(f"share of {plate}" if plate else "posterior probability")
    top = axes.get_ylim()[1]
    heights = {unit: -top * _ROW * (i + 0.75) for i, unit in enumerate(rows)}
    for unit, height in heights.items():
        for i, (name, values) in enumerate(draws.items()):
            nudge = top * _ROW * 0.5 * (0.5 - (i + 0.5) / len(draws))
            _draw_unit(axes, values[:, unit], height + nudge, categories, looks[name], level)
    _label_rows(
        axes, {heights[unit]: name for unit, name in rows.items()}, top, categories is not None
    )
    axes.set_xlabel(site if label is None else label)
    axes.legend(frameon=False, fontsize="small", loc="best" if not rows else "upper left")
    return axes


def contrast(
    result: Worlds,
    site: str,
    treated: str,
    control: str,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    level: float = 0.95,
) -> Axes:
    r"""The difference of one site between two worlds: the population's above, every individual's below.

    Above, the posterior of :math:`\frac{1}{n} \sum_i (v_i^{treated} - v_i^{control})` with its mean and interval;
    below, for a site in a plate, each unit's posterior mean and interval, sorted by the mean.

    Args:
        result: what ``cp.counterfactual`` or ``predict`` returned.
        site: a site with the dimensions ``(draw, world)`` or ``(draw, world, units)``.
        treated, control: names of worlds; the difference is treated minus control.
        ax: axes to draw into; new ones by default.
        label: text of the horizontal axis, best with the outcome's units.
        level: probability of the intervals, which lie between quantiles.

    Returns:
        The axes.

    Raises:
        UnknownSiteError: the result does not have the site.
        UnknownWorldError: the result does not have a world, or the site is absent from one of the two.
        ShapeError: the site has further dimensions.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(x, 1.0))
        >>> result = cp.counterfactual(model, {"x": 2.0}, num_samples=200, seed=0)()
        >>> cp.plots.contrast(result, "y", "counterfactual", "factual").get_xlabel()
        'y: counterfactual minus factual'
    """
    _known_worlds(result, (treated, control))
    data = result.contrast(site, treated, control)
    plate = _plate_of(site, data, beside=("draw",))
    draws = np.asarray(data.values, dtype=float)
    draws = draws[~np.isnan(draws).reshape(len(draws), -1).any(axis=1)]
    if not len(draws):
        raise UnknownWorldError(
            f"plots: site {site!r} is not in both worlds, {treated!r} and {control!r}"
        )
    axes = new_axes() if ax is None else ax

    population = draws.mean(axis=1) if plate else draws
    categories = None if plate else _categories([population])
    if categories is None:
        _draw_densities(axes, {"": population}, {"": _DIFFERENCE}, legend=False)
        axes.set_yticks([])
        height = 0.03 * axes.get_ylim()[1]
        _draw_mean(axes, population, height, f"mean over {plate}" if plate else "mean", level)
    else:
        _draw_bars(axes, {"difference": population}, categories, {"difference": _DIFFERENCE})
    axes.set_ylabel("posterior density" if categories is None else "posterior probability")
    if plate:
        _draw_sorted(axes, draws, plate, level)
    axes.axvline(0.0, color="grey", linestyle=":", linewidth=1, zorder=0)
    axes.set_xlabel(f"{site}: {treated} minus {control}" if label is None else label)
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return axes


def _known_worlds(result: Worlds, names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if name not in result.worlds:
            near = closest_name(name, result.worlds)
            hint = f"; did you mean {near!r}?" if near else ""
            raise UnknownWorldError(
                f"plots: the result has no world {name!r}{hint} (its worlds: {site_list(result.worlds)})"
            )
    return tuple(dict.fromkeys(names))


def _plate_of(site: str, data: DataArray, beside: tuple[str, ...]) -> str | None:
    """The one dimension over units, or ``None``; other shapes have no picture here."""
    others = [str(d) for d in data.dims if d not in beside]
    if len(others) > 1:
        raise ShapeError(
            f"plots: site {site!r} has the dimensions {site_list(others)} and a picture shows one of them at most; "
            "record the part you want as a site of its own with pyro.deterministic"
        )
    return others[0] if others else None


def _unit_names(
    site: str, data: DataArray, plate: str | None, units: Iterable[int] | Mapping[int, str]
) -> dict[int, str]:
    """Positions of individuals to the names of their rows."""
    names: dict[int, str] = {}
    for unit in units:
        if plate is None:
            raise ShapeError(
                f"plots: site {site!r} is in no plate, so it has no units to show; leave units out"
            )
        size = data.sizes[plate]
        if not 0 <= unit < size:
            raise ShapeError(
                f"plots: unit {unit} is not in the plate {plate!r}; units go from 0 to {size - 1}"
            )
        coordinate = data[plate].values[unit] if plate in data.coords else unit
        name = str(coordinate) if isinstance(coordinate, str) else f"{plate} {coordinate}"
        names[int(unit)] = units[unit] if isinstance(units, Mapping) else name
    return names


def _categories(draws: Iterable[Array]) -> Array | None:
    """The values of a site that takes few whole numbers; ``None`` for any other."""
    values = np.unique(np.concatenate([np.unique(v) for v in draws]))
    whole = bool(np.all(values == np.round(values)))
    return values if whole and len(values) <= _MOST_CATEGORIES else None


def _interval(values: Array, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _draw_densities(
    axes: Axes, samples: Mapping[str, Array], looks: Mapping[str, Look], legend: bool = True
) -> None:
    """Histograms on common bins, as outlines; a sample that does not vary is a vertical line."""
    constant = {
        n for n, v in samples.items() if np.ptp(v) <= 1e-6 * max(1.0, float(np.abs(v).max()))
    }
    edges = _bin_edges([v for n, v in samples.items() if n not in constant])
    top = 0.0
    for name, values in samples.items():
        look, text = looks[name], f"{name} (mean {values.mean():.3g})" if legend else None
        if name in constant:
            axes.axvline(
                values.mean(), color=look.colour, linestyle=look.line, linewidth=2, label=text
            )
            continue
        heights = np.histogram(values, edges)[0] / (len(values) * np.diff(edges))
        axes.stairs(heights, edges, fill=True, color=look.colour, alpha=0.12)
        axes.stairs(
            heights, edges, color=look.colour, linestyle=look.line, linewidth=1.8, label=text
        )
        top = max(top, float(heights.max()))
    axes.set_ylim(0, 1.08 * top if top else 1.0)


def _bin_edges(samples: Sequence[Array]) -> Array:
    """Bins for all samples by the rule of Freedman and Diaconis, without the far ends of heavy tails."""
    if not samples:
        return np.array([0.0, 1.0])
    ends, widths = [], []
    for values in samples:
        first, third = np.quantile(values, [0.25, 0.75])
        spread = third - first or np.ptp(values)
        ends += [max(values.min(), first - 8 * spread), min(values.max(), third + 8 * spread)]
        widths.append(2 * spread / len(values) ** (1 / 3))
    low, high = min(ends), max(ends)
    bins = int(np.clip((high - low) / min(widths), 5, _MOST_BINS))
    return np.linspace(low, high, bins + 1)


def _draw_bars(
    axes: Axes, draws: Mapping[str, Array], categories: Array, looks: Mapping[str, Look]
) -> None:
    """The share of each value in each world, worlds side by side."""
    gap = float(np.diff(categories).min()) if len(categories) > 1 else 1.0
    width = 0.8 * gap / len(draws)
    for i, (name, values) in enumerate(draws.items()):
        look, shares = looks[name], [float(np.mean(values == c)) for c in categories]
        axes.bar(
            categories + width * (i - (len(draws) - 1) / 2), shares, 0.9 * width,
            facecolor="white" if look.hatch else look.colour, edgecolor=look.colour, hatch=look.hatch,
            linewidth=1.5, label=f"{name} (mean {values.mean():.3g})",
        )  # fmt: skip
    axes.set_xticks(categories, [f"{c:g}" for c in categories])
    axes.set_ylim(0, 1.08)


def _draw_unit(
    axes: Axes, values: Array, height: float, categories: Array | None, look: Look, level: float
) -> None:
    """One individual in one world."""
    style: dict[str, Any] = {
        "color": look.colour,
        "marker": look.marker,
        "linestyle": "none",
        "zorder": 4,
    }
    if categories is None:
        axes.hlines(height, *_interval(values, level), colors=look.colour, linewidth=2)
        axes.plot(values.mean(), height, markersize=6, markeredgecolor="white", **style)
        return
    for category in categories:
        share = float(np.mean(values == category))
        axes.plot(category, height, markersize=9 * share**0.5, **style)


def _draw_mean(axes: Axes, values: Array, height: float, name: str, level: float) -> None:
    """The mean as a dot on its interval, written out in the legend."""
    (low, high), mean = _interval(values, level), float(values.mean())
    text = f"{name}: {mean:.3g}"
    if high > low:
        axes.hlines(height, low, high, colors="black", linewidth=3, zorder=4)
        text += f" ({level:.0%} interval {low:.3g} to {high:.3g})"
    axes.plot(mean, height, "o", color="black", markeredgecolor="white", zorder=5, label=text)


def _draw_sorted(axes: Axes, draws: Array, plate: str, level: float) -> None:
    """Every unit's effect as a horizontal line with a dot, sorted, under the population's."""
    top, means = axes.get_ylim()[1], draws.mean(axis=0)
    order = np.argsort(means)
    lows, highs = np.quantile(draws[:, order], [(1 - level) / 2, (1 + level) / 2], axis=0)
    heights = -top * (0.1 + _INDIVIDUALS * (np.arange(len(means)) + 0.5) / len(means))
    thin = float(np.clip(120 / len(means), 0.3, 2.0))
    axes.hlines(heights, lows, highs, colors=_DIFFERENCE.colour, linewidth=thin, alpha=0.45)
    dot = float(np.clip(3 * thin, 1, 6))
    axes.plot(means[order], heights, ".", color="black", markersize=dot)
    axes.plot(
        [], [], ".-", color=_DIFFERENCE.colour, markerfacecolor="black", markeredgecolor="black", linewidth=2,
        label=f"individual {plate}: mean and {level:.0%} interval",
    )  # fmt: skip
    axes.axhline(-0.05 * top, color="black", linewidth=0.6)
    axes.set_ylim(-top * (0.15 + _INDIVIDUALS), top * 1.35)
    axes.set_ylabel("")
    axes.set_yticks(
        [-top * (0.1 + _INDIVIDUALS / 2), top / 2],
        [f"{plate}, sorted", "posterior density"],
        rotation=90,
        verticalalignment="center",
    )
    axes.tick_params(axis="y", length=0)


def _label_rows(axes: Axes, rows: Mapping[float, str], top: float, shares: bool) -> None:
    """Ticks: shares above the base line, names of individuals below it; densities need no numbers."""
    ticks = {s: f"{s:g}" for s in (0.0, 0.25, 0.5, 0.75, 1.0)} if shares else {}
    axes.set_yticks([*ticks, *rows], [*ticks.values(), *rows.values()])
    if rows:
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_ylim(min(rows) - 0.75 * _ROW * top, top * 1.25)
        bottom, ceiling = axes.get_ylim()
        # Beside the axis and not beyond the names, where matplotlib would put the label.
        axes.annotate(
            axes.get_ylabel(),
            (0, (top / 2 - bottom) / (ceiling - bottom)),
            xycoords="axes fraction",
            xytext=(-36 if shares else -6, 0),
            textcoords="offset points",
            rotation=90,
            horizontalalignment="right",
            verticalalignment="center",
        )
        axes.set_ylabel("")
