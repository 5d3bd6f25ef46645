"""Pictures show the right numbers, tell worlds apart without colour, and refuse what they cannot show."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle, StepPatch

import causalppl as cp
from causalppl import errors

OKABE_ITO = {"#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}
PEOPLE = 30


def scalar_program() -> torch.Tensor:
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    return pyro.sample("y", dist.Normal(x, 1.0))


def coin_program() -> None:
    a = pyro.sample("a", dist.Bernoulli(0.5))
    pyro.sample("b", dist.Bernoulli(0.2 + 0.6 * a))


def people_program() -> None:
    """The effect of x differs between people and is uncertain: b is latent."""
    b = pyro.sample("b", dist.Normal(2.0, 0.5))
    with pyro.plate("people", PEOPLE):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Normal(b * x * (1 + z) + z, 0.1))
        pyro.sample("ill", dist.Bernoulli(0.2 + 0.5 * x))
        pyro.sample("both", dist.Normal(torch.zeros(PEOPLE, 2), 1.0).to_event(1))


@pytest.fixture(scope="module")
def scalar() -> cp.Worlds:
    return cp.counterfactual(scalar_program, {"x": 2.0}, num_samples=400, seed=0)()


@pytest.fixture(scope="module")
def people() -> cp.Worlds:
    worlds = {"treated": {"x": 1.0}, "control": {"x": 0.0}}
    return cp.counterfactual(people_program, worlds=worlds, num_samples=200, seed=0)()


@pytest.fixture
def axes() -> Axes:
    return plt.figure().add_subplot()


def legend_texts(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def outlines(axes: Axes) -> list[StepPatch]:
    return [p for p in axes.patches if isinstance(p, StepPatch) and not p.get_fill()]


def draws(result: cp.Worlds, site: str, world: str) -> np.ndarray:
    return result.tensor(site, world=world).numpy().astype(float)


def test_axes_in_axes_out(scalar: cp.Worlds, axes: Axes) -> None:
    before = plt.get_fignums()
    assert cp.plots.worlds(scalar, "y", ax=axes) is axes
    assert plt.get_fignums() == before
    assert isinstance(cp.plots.worlds(scalar, "y"), Axes)


def test_density_of_a_scalar_site_is_that_of_its_draws(scalar: cp.Worlds, axes: Axes) -> None:
    cp.plots.worlds(scalar, "y", ax=axes)
    for line, world in zip(outlines(axes), ("factual", "counterfactual"), strict=True):
        heights, edges, _ = line.get_data()
        widths = np.diff(edges)
        assert np.isclose((heights * widths).sum(), 1.0)
        values = draws(scalar, "y", world)
        centre = (heights * widths * (edges[1:] + edges[:-1]) / 2).sum()
        assert abs(centre - values.mean()) < widths[0] / 2
        assert any(world in t and f"{values.mean():.3g}" in t for t in legend_texts(axes))


def test_a_certain_value_is_a_line(scalar: cp.Worlds, axes: Axes) -> None:
    cp.plots.worlds(scalar, "x", ax=axes)
    assert any(np.allclose(line.get_xdata(), 2.0) for line in axes.lines)
    assert len(outlines(axes)) == 1


def test_bars_of_a_discrete_site_are_its_probabilities(axes: Axes) -> None:
    result = cp.counterfactual(coin_program, {"a": 1.0}, {"b": 1.0}, num_samples=500, seed=0)()
    cp.plots.worlds(result, "a", ax=axes)
    bars = [p for p in axes.patches if isinstance(p, Rectangle)]
    factual = draws(result, "a", "factual").mean()
    assert [bar.get_height() for bar in bars] == pytest.approx([1 - factual, factual, 0.0, 1.0])
    assert 0.7 < factual < 0.9  # 0.8 by Bayes' rule: it is not the prior's half that is drawn
    assert "probability" in axes.get_ylabel()


def test_a_plate_shows_the_units_posterior_means(people: cp.Worlds, axes: Axes) -> None:
    cp.plots.worlds(people, "y", ax=axes, worlds=["treated"])
    heights, edges, _ = outlines(axes)[0].get_data()
    means = draws(people, "y", "treated").mean(axis=0)
    assert np.allclose(heights * np.diff(edges) * PEOPLE, np.histogram(means, edges)[0])
    assert "people" in axes.get_ylabel()


def test_individuals_show_their_mean_and_interval_in_each_world(
    people: cp.Worlds, axes: Axes
) -> None:
    cp.plots.worlds(people, "y", ax=axes, units=[4, 17], level=0.8)
    ends = [s for c in axes.collections if isinstance(c, LineCollection) for s in c.get_segments()]
    dots = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    wanted = [draws(people, "y", world)[:, unit] for unit in (4, 17) for world in people.worlds]
    assert dots == pytest.approx([v.mean() for v in wanted])
    assert [tuple(s[:, 0]) for s in ends] == [
        pytest.approx(tuple(np.quantile(v, [0.1, 0.9]))) for v in wanted
    ]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["people 4", "people 17"]
    assert len({s[0, 1] for s in ends}) == 6  # nothing hides behind another world


def test_individuals_can_be_named(people: cp.Worlds, axes: Axes) -> None:
    cp.plots.worlds(people, "y", ax=axes, units={3: "Joe"})
    assert [t.get_text() for t in axes.get_yticklabels()] == ["Joe"]


def test_individuals_of_a_discrete_site_are_dots_as_large_as_their_probability(
    people: cp.Worlds, axes: Axes
) -> None:
    cp.plots.worlds(people, "ill", ax=axes, worlds=["treated"], units=[0])
    dots = {
        float(line.get_xdata()[0]): line.get_markersize()
        for line in axes.lines
        if len(line.get_xdata()) == 1
    }
    ill = draws(people, "ill", "treated")[:, 0].mean()
    assert dots[1.0] ** 2 / (dots[0.0] ** 2 + dots[1.0] ** 2) == pytest.approx(ill)


def test_worlds_differ_without_colour_and_are_safe_for_colour_blind_readers(
    people: cp.Worlds,
) -> None:
    densities = cp.plots.worlds(people, "y")
    assert len({str(p.get_linestyle()) for p in outlines(densities)}) == 3
    assert {to_hex(p.get_edgecolor()) for p in outlines(densities)} <= OKABE_ITO
    bars = [p for p in cp.plots.worlds(people, "ill").patches if isinstance(p, Rectangle)]
    assert len({p.get_hatch() for p in bars}) == 3


def test_worlds_come_in_the_order_asked_for(people: cp.Worlds, axes: Axes) -> None:
    cp.plots.worlds(people, "y", ax=axes, worlds=["control", "factual"])
    assert [text.split(" (")[0] for text in legend_texts(axes)] == ["control", "factual"]


def test_axes_are_labelled(people: cp.Worlds) -> None:
    assert cp.plots.worlds(people, "y").get_xlabel() == "y"
    assert cp.plots.worlds(people, "y", label="weight, kg").get_xlabel() == "weight, kg"
    assert (
        cp.plots.contrast(people, "y", "treated", "control").get_xlabel()
        == "y: treated minus control"
    )


def test_contrast_shows_the_population_and_every_individual(people: cp.Worlds, axes: Axes) -> None:
    cp.plots.contrast(people, "y", "treated", "control", ax=axes, level=0.9)
    effect = draws(people, "y", "treated") - draws(people, "y", "control")
    population = effect.mean(axis=1)
    low, high = np.quantile(population, [0.05, 0.95])
    segments = [
        s for c in axes.collections if isinstance(c, LineCollection) for s in c.get_segments()
    ]
    assert any(tuple(s[:, 0]) == pytest.approx((low, high)) for s in segments)
    assert any(
        f"{population.mean():.3g}" in t and f"{low:.3g} to {high:.3g}" in t
        for t in legend_texts(axes)
    )
    (rows,) = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == PEOPLE]
    assert np.allclose(rows, np.sort(effect.mean(axis=0)))
    order = np.argsort(effect.mean(axis=0))
    individual = [tuple(s[:, 0]) for s in segments if s[0, 1] < 0]
    assert np.allclose(individual, np.quantile(effect[:, order], [0.05, 0.95], axis=0).T)


def test_contrast_of_a_single_unit_and_of_an_event(scalar: cp.Worlds, axes: Axes) -> None:
    cp.plots.contrast(scalar, "y", "counterfactual", "factual", ax=axes)
    assert len(outlines(axes)) == 1
    coins = cp.counterfactual(coin_program, {"a": 1.0}, num_samples=300, seed=0)()
    event = cp.plots.contrast(coins, "b", "counterfactual", "factual")
    bars = [p.get_height() for p in event.patches if isinstance(p, Rectangle)]
    change = draws(coins, "b", "counterfactual") - draws(coins, "b", "factual")
    assert bars == pytest.approx([np.mean(change == v) for v in np.unique(change)])


def test_one_draw_and_heavy_tails_have_pictures_too(axes: Axes) -> None:
    exact = cp.counterfactual(scalar_program, {"x": 0.0}, {"x": 0.5, "y": 1.5})()
    cp.plots.worlds(exact, "y", ax=axes)
    assert any(np.allclose(line.get_xdata(), 1.0) for line in axes.lines)
    cp.plots.contrast(exact, "y", "counterfactual", "factual").figure.canvas.draw()

    def heavy() -> None:
        pyro.sample("c", dist.Cauchy(0.0, 1.0))

    picture = cp.plots.worlds(cp.counterfactual(heavy, {}, num_samples=2000, seed=0)(), "c")
    heights, _, _ = outlines(picture)[0].get_data()
    assert (heights > 0).sum() > 10  # the bulk is resolved, whatever the farthest draw


def test_unknown_names_are_typed_errors_that_help(people: cp.Worlds, axes: Axes) -> None:
    with pytest.raises(errors.UnknownSiteError, match="yy"):
        cp.plots.worlds(people, "yy", ax=axes)
    with pytest.raises(errors.UnknownWorldError, match="'treatd'; did you mean 'treated'"):
        cp.plots.worlds(people, "y", ax=axes, worlds=["treatd"])
    with pytest.raises(errors.UnknownWorldError, match="did you mean 'control'"):
        cp.plots.contrast(people, "y", "treated", "contrl", ax=axes)
    with pytest.raises(errors.UnknownSiteError):
        cp.plots.contrast(people, "why", "treated", "control", ax=axes)
    assert not axes.has_data()


def test_what_has_no_picture_is_refused(people: cp.Worlds, scalar: cp.Worlds, axes: Axes) -> None:
    with pytest.raises(errors.ShapeError, match="'both' has the dimensions"):
        cp.plots.worlds(people, "both", ax=axes)
    with pytest.raises(
        errors.ShapeError, match="unit 30 is not in the plate 'people'; units go from 0 to 29"
    ):
        cp.plots.worlds(people, "y", ax=axes, units=[PEOPLE])
    with pytest.raises(errors.ShapeError, match="in no plate"):
        cp.plots.worlds(scalar, "y", ax=axes, units=[0])
    assert not axes.has_data()


def test_matplotlibs_settings_are_left_alone(people: cp.Worlds) -> None:
    before = dict(matplotlib.rcParams)
    cp.plots.contrast(people, "y", "treated", "control")
    assert dict(matplotlib.rcParams) == before
