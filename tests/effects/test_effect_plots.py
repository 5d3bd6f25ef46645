"""Pictures of effects show the right numbers, and refuse what they cannot show."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest

import causalppl as cp
from causalppl.errors import ShapeError

SITES = {"treatment": "t", "outcome": "y"}


def model():
    z = pyro.sample("z", dist.Bernoulli(0.5))
    t = pyro.sample("t", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(t * (1 + z), 1.0))


def finite():
    t = pyro.sample("t", dist.Bernoulli(0.5))
    pyro.sample("y", dist.Bernoulli(0.25 + 0.5 * t))


@pytest.fixture(scope="module")
def curve():
    given = {"doses": [2.0, 0.0, 1.0], "num_samples": 400, "seed": 1}
    return cp.effects.dose_response(model, **SITES, **given)()


@pytest.fixture(scope="module")
def levels():
    return cp.effects.conditional_effect(model, **SITES, by="z", num_samples=400, seed=1)()


def test_a_forest_has_a_row_for_each_number(levels):
    exact = cp.effects.average_treatment_effect(finite, **SITES)()
    axes = plt.figure().add_subplot()
    assert cp.plots.forest({"finite": exact, "by z": levels}, ax=axes) is axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["finite", "by z: z = 0", "by z: z = 1"]
    bars = [
        line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linestyle() == "-"
    ]
    found = np.array([bar.get_xdata() for bar in bars])
    expected = [[0.5, 0.5], *np.stack(levels.interval, axis=1)]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    markers = [line for line in axes.lines if line.get_marker() == "o"]
    assert next(m.get_markerfacecolor() for m in markers) == "white"  # exact
    assert [float(m.get_xdata()[0]) for m in markers] == pytest.approx([0.5, *levels.value])
    top, bottom = axes.get_ylim()
    assert top > bottom  # the first row is at the top


def test_the_reference_line():
    exact = cp.effects.average_treatment_effect(finite, **SITES)()
    dotted = [line for line in cp.plots.forest(exact).lines if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in dotted] == [0.0]
    assert not any(
        line.get_linestyle() == ":" for line in cp.plots.forest(exact, reference=None).lines
    )


def test_a_curve_is_drawn_in_the_order_of_its_doses(curve):
    axes = cp.plots.dose_response(curve)
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [0.0, 1.0, 2.0]
    assert line.get_ydata() == pytest.approx(curve.value[[1, 2, 0]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("t", "E[y | do(t=...)]")
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(curve.interval[0].min())
    assert heights.max() == pytest.approx(curve.interval[1].max())


def test_several_curves_differ_in_more_than_colour(curve, levels):
    axes = cp.plots.dose_response({"one": curve, "other": curve})
    looks = {(line.get_linestyle(), line.get_marker()) for line in axes.lines}
    assert len(looks) == 2
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other"]
    assert cp.plots.dose_response(levels).get_xlabel() == "z"


def test_what_is_refused(curve):
    single = cp.effects.average_treatment_effect(finite, **SITES)()
    with pytest.raises(ShapeError, match=r"have shape \(\); a curve has one number"):
        cp.plots.dose_response(single)
    with pytest.raises(ShapeError, match="3 values and 2 doses"):
        cp.plots.dose_response(curve, [0.0, 1.0])
    with pytest.raises(ShapeError, match="no curve"):
        cp.plots.dose_response({})
    with pytest.raises(ShapeError, match="0 rows"):
        cp.plots.forest({})
