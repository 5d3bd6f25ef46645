"""Pictures of calibration show the numbers of the result."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection
from matplotlib.patches import StepPatch

import causalppl as cp
from causalppl import errors
from causalppl.diagnostics import Calibration, coverage

DRAWS, SIMULATIONS = 19, 100


def calibration(spread: float) -> Calibration:
    """Ranks of one scalar and of a plate of three: uniform at 1, too far apart above."""
    generator = np.random.default_rng(0)

    def ranks(*shape: int) -> np.ndarray:
        u = generator.random((SIMULATIONS, *shape))
        u = np.where(u < 0.5, (2 * u) ** spread / 2, 1 - (2 - 2 * u) ** spread / 2)
        return np.minimum(np.floor(u * (DRAWS + 1)), DRAWS).astype(int)

    arrays = {
        "mean": xr.DataArray(ranks(), dims="simulation"),
        "z": xr.DataArray(ranks(3), dims=("simulation", "units")),
    }
    tested = {n: np.ones(a.shape[1:], dtype=bool) for n, a in arrays.items()}
    return Calibration(xr.Dataset(arrays), DRAWS, tested, 0.95, "by hand")


@pytest.mark.parametrize(("spread", "leaves"), [(1.0, False), (2.5, True)])
def test_lines_leave_the_band_where_ranks_are_not_uniform(spread: float, leaves: bool) -> None:
    result = calibration(spread)
    axes = cp.plots.calibration(result)
    (band,) = (c for c in axes.collections if isinstance(c, PolyCollection))
    outline = band.get_paths()[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == DRAWS + 2]
    assert len(lines) == 4
    outside = [
        not outline.contains_points(line.get_xydata()[1:-1], radius=1e-6).all()
        and not outline.contains_points(line.get_xydata()[1:-1], radius=-1e-6).all()
        for line in lines
    ]
    assert any(outside) == leaves
    # the ECDF of the scalar's ranks, counted by hand
    for x, y in zip(lines[0].get_xdata()[1:-1], lines[0].get_ydata()[1:-1], strict=True):
        below = float((result.ranks["mean"].values < round(x * (DRAWS + 1))).mean())
        assert y == pytest.approx(below - x)
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["95% band, all 4 lines together", "mean", "z (3 entries)"]


def test_bars_are_relative_frequencies() -> None:
    result, (_, ax) = calibration(1.0), plt.subplots()
    assert cp.plots.rank_histogram(result, "mean", ax=ax) is ax
    bars = [p for p in ax.patches if isinstance(p, StepPatch)][-1]
    values, edges, _ = bars.get_data()
    assert len(values) == 10 and np.average(values, weights=np.diff(edges)) == pytest.approx(1.0)
    first = (result.ranks["mean"].values < 2).mean() / 0.1
    assert values[0] == pytest.approx(first)
    cp.plots.rank_histogram(result, "z").figure.canvas.draw()


def test_coverage_has_a_point_and_a_bar_for_each_level() -> None:
    table = coverage(calibration(2.5), [0.2, 0.5, 0.8])
    axes = cp.plots.coverage(table, ["mean"])
    points = axes.lines[1].get_xydata()
    assert np.allclose(points[:, 1], table.loc["mean"].empirical)
    assert (points[:, 1] < points[:, 0]).all(), "over-confident: below the diagonal"
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["mean"]


def test_plots_refuse_what_is_not_there() -> None:
    result = calibration(1.0)
    with pytest.raises(errors.UnknownSiteError, match="'men'"):
        cp.plots.calibration(result, ["men"])
    with pytest.raises(errors.UnknownSiteError, match="'men'"):
        cp.plots.coverage(coverage(result), ["men"])
    many = {f"q{i}": result.ranks["mean"] for i in range(9)}
    tested = {n: np.ones((), dtype=bool) for n in many}
    crowd = Calibration(xr.Dataset(many), DRAWS, tested, 0.95, "by hand")
    with pytest.raises(errors.MethodError, match="9 quantities in one picture"):
        cp.plots.calibration(crowd)
