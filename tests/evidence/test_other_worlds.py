"""Evidence in worlds that did not happen: noise cells of discrete programs, and normals of linear ones."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import scipy.stats
import torch
from monte_carlo import assert_moments, assert_share
from pyro import poutine

import causalppl as cp
from causalppl import errors

N = dist.Normal
INF = math.inf


# --- Discrete programs: all cells of the noise --------------------------------------------------


def switch() -> None:
    z = pyro.sample("z", dist.Bernoulli(0.3))
    x = pyro.sample("x", dist.Bernoulli(0.2 + 0.5 * z))
    pyro.sample("y", dist.Bernoulli(0.1 + 0.4 * x + 0.3 * z))


def cells() -> dict[str, dict[float, float]]:
    """Monotone noise: a value is one where u < p. Cut where some parent setting changes the answer."""
    return {
        "z": reference.uniform_cells([0.3]),
        "x": reference.uniform_cells([0.2, 0.7]),
        "y": reference.uniform_cells([0.1, 0.4, 0.5, 0.8]),
    }


def solved(u: dict[str, float], do: dict[str, float]) -> dict[str, float]:
    z = do.get("z", float(u["z"] < 0.3))
    x = do.get("x", float(u["x"] < 0.2 + 0.5 * z))
    return {"z": z, "x": x, "y": do.get("y", float(u["y"] < 0.1 + 0.4 * x + 0.3 * z))}


WORLDS: dict[str, dict[str, float]] = {"none": {"x": 0.0}, "all": {"x": 1.0}}


@pytest.mark.parametrize(
    "evidence",
    [
        {"none/y": 0.0},
        {"none/y": 1.0, "all/y": 1.0},
        {"y": 1.0, "none/y": 0.0},
        {"x": 1.0, "y": 1.0, "none/y": 0.0},
        {"none/z": 1.0, "all/y": 0.0},
        {"none/y": cp.Interval(0.5, 1.5), "x": 0.0},
    ],
)
def test_discrete_evidence_in_any_world_against_all_noise_cells(evidence: dict[str, Any]) -> None:
    def value(given: Any) -> float:
        return 1.0 if isinstance(given, cp.Interval) else given

    def agrees(u: dict[str, float]) -> bool:
        for key, given in evidence.items():
            world, _, site = key.rpartition("/")
            if solved(u, WORLDS.get(world, {}))[site] != value(given):
                return False
        return True

    posterior = cp.abduct(switch, evidence, worlds=WORLDS, num_samples=4000, seed=0)()
    found = posterior.predict(worlds={**WORLDS, "healthy": {"z": 0.0}})
    for world, do in {"factual": {}, **WORLDS, "healthy": {"z": 0.0}}.items():
        for site in "zxy":
            expected = reference.conditional(
                cells(), lambda u, do=do, site=site: solved(u, do)[site], agrees
            )
            assert_share(found.tensor(site, world) == 1, expected)


def test_who_is_helped_who_is_hurt() -> None:
    """Within those cured with and not without, the treatment is needed by all: an event of two worlds as evidence."""
    worlds = {"none": {"x": 0.0}, "all": {"x": 1.0}}
    evidence = {"none/y": 0.0, "all/y": 1.0}
    posterior = cp.abduct(switch, evidence, worlds=worlds, num_samples=4000, seed=1)()
    found = posterior.predict(worlds=worlds)
    assert bool((found.tensor("y", "none") == 0).all())
    assert bool((found.tensor("y", "all") == 1).all())
    y, x = found.tensor("y", "factual"), found.tensor("x", "factual")
    assert bool((y == x).all())


def test_units_have_weights_of_their_own() -> None:
    """30 units of the switch: jointly their evidence would be met by one draw in a billion."""

    def model() -> None:
        with pyro.plate("units", 30):
            switch()

    y0 = (torch.arange(30) % 3 == 0).float()
    posterior = cp.abduct(
        model, {"none/y": y0}, worlds={"none": {"x": 0.0}}, num_samples=2000, seed=0
    )()
    z = posterior.predict().tensor("z", "factual")
    for value in (0.0, 1.0):
        expected = reference.conditional(
            cells(),
            lambda u: solved(u, {})["z"],
            lambda u, v=value: solved(u, {"x": 0.0})["y"] == v,
        )
        assert_share(z[:, y0 == value].flatten(), expected)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_units_that_influence_each_other_in_rare_draws_only(seed: int) -> None:
    """Both alarms together change everything, which two draws seldom show: weights of single units would be wrong."""

    def model() -> None:
        units = pyro.plate("units", 2)
        with units:
            z = pyro.sample("z", dist.Bernoulli(0.3))
            x = pyro.sample("x", dist.Bernoulli(0.5))
        both = (z.sum() == 2).float()
        with units:
            pyro.sample("y", dist.Bernoulli(both * (1 - x) * 0.9 + 0.05))

    weight = {
        z: math.prod(0.3 if v else 0.7 for v in z) * (0.95 if sum(z) == 2 else 0.05) ** 2
        for z in itertools.product((0, 1), repeat=2)
    }
    expected = sum(w for z, w in weight.items() if z[0]) / sum(weight.values())
    posterior = cp.abduct(
        model, {"n/y": torch.ones(2)}, worlds={"n": {"x": 0.0}}, num_samples=2000, seed=seed
    )()
    assert_share(posterior.predict().tensor("z", "factual")[:, 0] == 1, expected)


def test_evidence_outside_the_plate_that_sees_all_units() -> None:
    """A total over units is observed: its weight belongs to no unit, and must not be lost."""

    def model() -> None:
        with pyro.plate("units", 2):
            x = pyro.sample("x", N(0.0, 1.0))
            y = pyro.sample("y", N(x, 1.0))
        pyro.sample("total", N(y.sum(), 0.5))

    # noise e_i = 1 (anchored where x = 0), so y_i = x_i + 1 and total ~ N(x_0 + x_1 + 2, .5)
    mean, cov = reference.normal_posterior(
        np.zeros(2), np.eye(2), np.ones((1, 2)), 0.5, np.array([3.0])
    )
    posterior = cp.abduct(
        model, {"total": 5.0, "n/y": torch.ones(2)}, worlds={"n": {"x": 0.0}}, num_samples=2000,
        seed=0,
    )()  # fmt: skip
    x = posterior.predict().tensor("x", "factual")
    assert_moments(x[:, 0], mean[0], cov[0, 0], 1000)
    assert_moments(x.sum(1), mean.sum(), cov.sum(), 1000)


def test_a_function_of_discrete_sites_is_known_in_another_world() -> None:
    """s = a + b is 1 where a = 1, and so is the Delta: b is 0 in every world."""

    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(0.5))
        b = pyro.sample("b", dist.Bernoulli(0.5))
        pyro.deterministic("s", 0.1 * a + 0.2 * b)
        pyro.sample("d", dist.Delta(a - b))

    for evidence in ({"n/s": 0.1}, {"n/d": 1.0}):
        posterior = cp.abduct(model, evidence, worlds={"n": {"a": 1.0}}, num_samples=500, seed=0)()
        found = posterior.predict()
        assert bool((found.tensor("b", "factual") == 0).all())
        assert_share(found.tensor("a", "factual") == 1, 0.5)


# --- Continuous points: anchored ----------------------------------------------------------------


def linear() -> None:
    z = pyro.sample("z", N(0.0, 1.0))
    x = pyro.sample("x", N(0.5 * z, 1.0))
    m = pyro.sample("m", N(x - z, 0.5))
    pyro.sample("y", N(2 * m + x, 1.0))


SITES = ("z", "x", "m", "y")
EFFECTS = {
    "z": {},
    "x": {"z": 0.5},
    "m": {"x": 1.0, "z": -1.0},
    "y": {"m": 2.0, "x": 1.0},
}
SCALES = {"z": 1.0, "x": 1.0, "m": 0.5, "y": 1.0}


def affine_maps(do: dict[str, float]) -> dict[str, tuple[np.ndarray, float]]:
    """Every site of a world as coefficients of the four standard noises, and a constant."""
    maps: dict[str, tuple[np.ndarray, float]] = {}
    for k, site in enumerate(SITES):
        if site in do:
            maps[site] = np.zeros(4), do[site]
            continue
        row, constant = SCALES[site] * np.eye(4)[k], 0.0
        for parent, weight in EFFECTS[site].items():
            row = row + weight * maps[parent][0]
            constant += weight * maps[parent][1]
        maps[site] = row, constant
    return maps


@pytest.mark.parametrize(
    "evidence",
    [
        {"none/y": 1.5},
        {"y": 2.0, "none/m": 0.3},
        {"x": 1.0, "none/y": -1.0},
        {"none/m": 0.5, "other/y": 1.0},
        {"z": 0.4, "none/m": 0.5, "other/y": 1.0},
        {"none/z": 1.0, "y": 0.0},
    ],
)
def test_continuous_points_of_a_linear_program(evidence: dict[str, float]) -> None:
    """All worlds are linear in four normal noises, so the posterior is a normal's: condition it by matrices."""
    worlds: dict[str, dict[str, float]] = {"none": {"x": 0.0}, "other": {"z": 1.0}}
    worlds = {w: d for w, d in worlds.items() if any(k.startswith(w + "/") for k in evidence)}
    rows, values = [], []
    for key, given in evidence.items():
        world, _, site = key.rpartition("/")
        row, constant = affine_maps(worlds.get(world, {}))[site]
        rows.append(row)
        values.append(given - constant)
    a = np.array(rows)
    gain = a.T @ np.linalg.inv(a @ a.T)
    mean, cov = gain @ np.array(values), np.eye(4) - gain @ a

    posterior = cp.abduct(linear, evidence, worlds=worlds, num_samples=2000, seed=0)()
    asked = {**worlds, "third": {"m": 1.0}}
    found = posterior.predict(worlds=asked)
    ess = float(found.diagnostics.ess)
    for world, do in {"factual": {}, **asked}.items():
        for site, (row, constant) in affine_maps(do).items():
            draws = found.tensor(site, world)
            assert_moments(draws, row @ mean + constant, max(float(row @ cov @ row), 0.0), ess / 2)
    for key, given in evidence.items():
        world, _, site = key.rpartition("/")
        drawn = found.tensor(site, world or "factual")
        torch.testing.assert_close(drawn, torch.full_like(drawn, given), rtol=1e-4, atol=1e-4)


def test_points_for_some_units_ranges_for_others() -> None:
    """Each unit has its own kind of knowledge: a point there, a range there, a point here, nothing."""

    def model() -> None:
        with pyro.plate("units", 4):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(x, 1.0))

    worlds = {"none": {"x": 0.0}}
    evidence = {
        "none/y": cp.Interval([1.0, 0.0, -INF, -INF], [1.0, 1.0, INF, INF]),
        "y": torch.tensor([math.nan, math.nan, 2.0, math.nan]),
    }
    posterior = cp.abduct(model, evidence, worlds=worlds, num_samples=4000, seed=0)()
    found = posterior.predict(worlds=worlds)
    x, y, y0 = (
        found.tensor("x", "factual"), found.tensor("y", "factual"), found.tensor("y", "none"),
    )  # fmt: skip
    assert bool((y0[:, 0] == 1).all()) and bool((y[:, 2] == 2).all())
    assert_moments(y[:, 0], 1, 1)
    assert bool(((y0[:, 1] >= 0) & (y0[:, 1] <= 1)).all())
    law = scipy.stats.truncnorm(0, 1)
    assert_moments(y0[:, 1], law.mean(), law.var())
    assert_moments(x[:, 1], 0, 1)
    assert_moments(x[:, 2], 1, 0.5)
    assert_moments(y[:, 3], 0, 2)
    torch.testing.assert_close(y - x, y0, rtol=1e-4, atol=1e-4)


def test_factual_masks_and_scales_weigh_beside_an_anchor() -> None:
    """w is anchored where x = 0, y factual with scale 4, v masked: z has precision 1 + 1 + 4."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        x = pyro.sample("x", N(0.0, 1.0))
        with poutine.scale(scale=4.0):
            pyro.sample("y", N(z, 1.0))
        with poutine.mask(mask=torch.tensor(False)):
            pyro.sample("v", N(z, 0.1))
        pyro.sample("w", N(x + z, 1.0))

    posterior = cp.abduct(
        model, {"y": 2.0, "v": -5.0, "a/w": 3.0}, worlds={"a": {"x": 0.0}}, num_samples=4000,
        seed=0,
    )()  # fmt: skip
    assert_moments(posterior.predict().tensor("z", "factual"), 11 / 6, 1 / 6, 2000)


def test_factual_functions_and_ranges_weigh_beside_an_anchor() -> None:
    """The coin is known through a function of it, z through a range of a function; y is anchored elsewhere."""

    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(0.5))
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.deterministic("not_a", 1 - a)
        pyro.deterministic("twice", 2 * z)
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x + a + z, 1.0))

    evidence = {"not_a": 0.0, "twice": cp.Interval(0.0, INF), "n/y": 3.0}
    posterior = cp.abduct(model, evidence, worlds={"n": {"x": 0.0}}, num_samples=2000, seed=0)()
    found = posterior.predict()
    assert bool((found.tensor("a", "factual") == 1).all())
    # z given z + e = 2 is N(1, .5), cut at zero
    law = scipy.stats.truncnorm(-1 / math.sqrt(0.5), INF, 1.0, math.sqrt(0.5))
    assert_moments(found.tensor("z", "factual"), law.mean(), law.var(), 1000)


# --- Ranges -------------------------------------------------------------------------------------


def test_ranges_in_two_worlds_against_a_bivariate_normal() -> None:
    """z, e ~ N(0, 1): y = z + e > 1 in fact, y = .5 z + e < 0 where the effect is halved: an orthant of a bivariate normal."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        k = pyro.sample("k", N(1.0, 1.0))
        pyro.sample("y", N(k * z, 1.0))

    worlds = {"half": {"k": 0.5}}
    evidence = {"k": 1.0, "y": cp.Interval(1.0, INF), "half/y": cp.Interval(-INF, 0.0)}
    posterior = cp.abduct(model, evidence, worlds=worlds, num_samples=2000, seed=0)()
    found = posterior.predict(worlds=worlds)
    z, y = found.tensor("z", "factual"), found.tensor("y", "factual")
    y_half = found.tensor("y", "half")
    assert float(y.min()) >= 1 and float(y_half.max()) <= 0
    grid = np.linspace(-8, 8, 4001)
    # given z: e > 1 - z and e < -.5 z
    mass = np.clip(scipy.stats.norm.cdf(-0.5 * grid) - scipy.stats.norm.cdf(1 - grid), 0, None)
    weight = mass * scipy.stats.norm.pdf(grid)
    weight /= weight.sum()
    mean = float(weight @ grid)
    ess = float(np.mean(found.diagnostics.ess))
    assert_moments(z, mean, float(weight @ grid**2) - mean**2, min(ess, 2000.0))
    torch.testing.assert_close(y - y_half, 0.5 * z, rtol=1e-4, atol=1e-4)
    # the grid's own mass, by scipy's bivariate normal of (-(z + e), z / 2 + e)
    orthant = scipy.stats.multivariate_normal([0, 0], [[2.0, -1.5], [-1.5, 1.25]]).cdf([-1.0, 0.0])
    step = grid[1] - grid[0]
    assert mass @ scipy.stats.norm.pdf(grid) * step == pytest.approx(orthant, rel=1e-3)


def test_a_site_that_only_the_other_world_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of a site in a branch stays with the draw that the evidence chose."""
    monkeypatch.setattr("causalppl.inference.world_evidence._PROPOSALS", 1000)

    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        b = pyro.sample("b", N(0.0, 1.0)) if x > 0 else torch.zeros(())
        pyro.sample("y", N(b, 0.1))

    worlds = {"treated": {"x": 1.0}}
    evidence = {"x": 0.0, "treated/y": cp.Interval(1.0, INF)}
    with pytest.warns(errors.ExecutorWarning):
        posterior = cp.abduct(model, evidence, worlds=worlds, num_samples=50, seed=0)()
    for _ in range(2):
        found = posterior.predict(worlds=worlds)
        assert float(found.tensor("y", "treated").min()) >= 1.0


# --- What is refused ----------------------------------------------------------------------------


def pair() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    y = pyro.sample("y", N(x, 1.0))
    pyro.deterministic("double", 2 * y)
    pyro.factor("weight", -(x**2))


@pytest.mark.parametrize(
    ("evidence", "worlds", "error", "message"),
    [
        ({"y": 1.0, "n/y": 0.0}, {"n": {"x": 0.0}}, errors.EvidenceError, "as a range"),
        (
            {"n/y": 1.0, "k/y": 0.0},
            {"n": {"x": 0.0}, "k": {"x": 1.0}},
            errors.EvidenceError,
            "as a range",
        ),
        (
            {"n/x": 1.0},
            {"n": {"x": 0.0}},
            errors.EvidenceError,
            "own intervention; leave out 'n/x'",
        ),
        ({"n/double": 1.0}, {"n": {"x": 0.0}}, errors.EvidenceError, r"cp.Interval\(low, high\)"),
        ({"n/yy": 1.0}, {"n": {"x": 0.0}}, errors.UnknownSiteError, "did you mean 'n/y'"),
        ({"m/y": 1.0}, {"n": {"x": 0.0}}, errors.UnknownSiteError, "has no site 'm/y'"),
        ({"n/y": 1.0}, {"n": {"x": N(0.0, 1.0)}}, errors.EvidenceError, "cp.policy reads"),
        ({"n/weight": 1.0}, {"n": {"x": 0.0}}, errors.EvidenceError, "leave it out"),
        ({"weight": 1.0}, {}, errors.EvidenceError, "leave it out"),
        (
            {"x": 1.0, "y": 1.0, "n/y": cp.Interval(50.0, 60.0)},
            {"n": {"x": 0.0}},
            errors.ImpossibleEvidenceError,
            "widen an interval",
        ),
    ],
)
def test_messages(evidence: Any, worlds: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cp.abduct(pair, evidence, worlds=worlds, num_samples=100, seed=0)()


def test_a_world_named_like_the_beginning_of_a_site() -> None:
    def model() -> None:
        y = pyro.sample("y", N(0.0, 1.0))
        pyro.sample("none/y", N(y, 1.0))

    with pytest.raises(errors.EvidenceError, match="choose another name for the world"):
        cp.abduct(model, {"none/y": 1.0}, worlds={"none": {}})()
    # where no world bears the name, it is the site
    posterior = cp.abduct(model, {"none/y": 1.0}, num_samples=4000, seed=0)()
    assert_moments(posterior.predict().tensor("y", "factual"), 0.5, 0.5, 2000)


def test_a_method_that_cannot_weigh_an_anchor() -> None:
    with pytest.raises(errors.MethodError, match="leave method out"):
        cp.abduct(pair, {"n/y": 1.0}, worlds={"n": {"x": 0.0}}, method=cp.NUTS())()
