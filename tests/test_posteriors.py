"""Every inference method against an answer got another way, and its diagnostics against a failure they must report."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch

import causalppl as cp

N = dist.Normal


def factual(posterior: Any, site: str) -> torch.Tensor:
    return posterior.predict().tensor(site, world="factual")


# --- Nothing latent, nothing known --------------------------------------------------------------


def simple() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.sample("y", N(x, 1.0))


def test_everything_observed_is_exact() -> None:
    worlds = cp.counterfactual(simple, {"x": 1.0}, {"x": 0.0, "y": 0.5})()
    assert "exact" in str(worlds.diagnostics.method).lower()
    assert worlds.diagnostics.why
    assert worlds["y"].sizes["draw"] == 1


def test_no_evidence_is_the_prior() -> None:
    posterior = cp.abduct(simple, num_samples=4000, seed=0)()
    x, y = factual(posterior, "x"), factual(posterior, "y")
    assert x.shape == (4000,)
    assert float(x.mean()) == pytest.approx(0, abs=4 / math.sqrt(4000))
    assert float(y.var()) == pytest.approx(2, rel=0.1)


def test_obs_in_the_program_is_evidence_and_the_mapping_overrides_it() -> None:
    def model() -> None:
        x = pyro.sample("x", N(0.0, 1.0), obs=torch.tensor(1.0))
        pyro.sample("y", N(x, 1.0), obs=torch.tensor(2.0))

    worlds = cp.counterfactual(model, {"x": 0.0})()
    assert float(worlds.tensor("y", world="counterfactual")[0]) == pytest.approx(1.0)
    worlds = cp.counterfactual(model, {"x": 0.0}, {"y": 5.0})()
    assert float(worlds.tensor("y", world="factual")[0]) == 5.0
    assert float(worlds.tensor("y", world="counterfactual")[0]) == pytest.approx(4.0)


def test_nan_entries_are_missing_and_become_latent() -> None:
    def model() -> None:
        with pyro.plate("units", 3):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(x, 1.0))

    x, y = torch.tensor([1.0, math.nan, 0.5]), torch.tensor([2.0, 2.0, math.nan])
    n = 3000
    worlds = cp.counterfactual(model, {"x": 0.0}, {"x": x, "y": y}, num_samples=n, seed=0)()
    x0, y0 = worlds.tensor("x", world="factual"), worlds.tensor("y", world="factual")
    assert bool((x0[:, [0, 2]] == x[[0, 2]]).all()) and bool((y0[:, :2] == 2).all())
    # unit 1: x given y = 2 is N(1, .5); unit 2: y given x = .5 is N(.5, 1)
    assert float(x0[:, 1].mean()) == pytest.approx(1.0, abs=0.08)
    assert float(x0[:, 1].var()) == pytest.approx(0.5, rel=0.2)
    assert float(y0[:, 2].mean()) == pytest.approx(0.5, abs=0.1)
    y1 = worlds.tensor("y", world="counterfactual")
    torch.testing.assert_close(y1, y0 - x0, rtol=1e-4, atol=1e-4)
    assert "ignorable" in str(worlds.diagnostics.notes)


# --- Enumeration --------------------------------------------------------------------------------


def shares(values: torch.Tensor, kinds: int = 2) -> np.ndarray:
    return np.bincount(values.long().flatten().numpy(), minlength=kinds) / values.numel()


def test_enumeration_of_a_small_network_against_brute_force() -> None:
    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(0.3))
        b = pyro.sample("b", dist.Categorical(torch.tensor([0.2, 0.5, 0.3])))
        c = pyro.sample("c", dist.Bernoulli(torch.sigmoid(a * 2 - b)))
        pyro.sample("y", N(a + b * c, 0.8))

    n = 20_000
    expected = reference.finite_posterior(
        model, (), {"a": range(2), "b": range(3), "c": range(2)}, {"y": torch.tensor(1.3)}
    )
    posterior = cp.abduct(model, evidence={"y": 1.3}, num_samples=n, seed=0)()
    worlds = posterior.predict()
    assert "enumer" in str(worlds.diagnostics.method).lower()
    columns = [worlds.tensor(s, world="factual").long().numpy() for s in "abc"]
    found = np.zeros((2, 3, 2))
    np.add.at(found, tuple(columns), 1 / n)
    for values, p in expected.items():
        assert found[tuple(int(v) for v in values)] == pytest.approx(
            p, abs=4 * math.sqrt(p * (1 - p) / n) + 1e-4
        )


def test_probabilities_of_zero_and_one_are_exact() -> None:
    """Pyro clamps a Bernoulli's probability away from 0 and 1 by 1e-7; an impossible cell must not win."""

    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(0.5))
        b = pyro.sample("b", dist.Bernoulli(a))  # a copy
        pyro.sample("c", dist.Bernoulli(1 - b))  # its opposite
        pyro.sample("rare", dist.Bernoulli(1e-9 + (1e-9) * a))

    worlds = cp.counterfactual(model, {"a": 0.0}, {"rare": 1.0}, num_samples=5000, seed=0)()
    a, b, c = (worlds.tensor(s, world="factual") for s in "abc")
    assert torch.equal(a, b) and torch.equal(c, 1 - b)
    assert float(a.mean()) == pytest.approx(2 / 3, abs=4 * 0.5 / math.sqrt(5000))


def test_an_impossible_cell_stays_impossible_against_a_mountain_of_likelihood() -> None:
    """A state that the program rules out is not resurrected because the data like it, with 0 written as clamped."""

    def model() -> None:
        a = pyro.sample("a", dist.Bernoulli(torch.zeros(())))
        pyro.sample("y", N(10 * a, 0.5), obs=torch.tensor(10.0))

    a = factual(cp.abduct(model, method=cp.Enumeration(), num_samples=200, seed=0)(), "a")
    assert float(a.max()) == 0.0


def test_enumeration_in_a_plate_is_per_unit() -> None:
    y = torch.tensor([-2.0, 0.4, 0.6, 3.0, 0.5])

    def model() -> None:
        with pyro.plate("units", 5):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
            pyro.sample("y", N(k.float(), 1.0))

    n = 20_000
    k = factual(
        cp.abduct(model, evidence={"y": y}, method=cp.Enumeration(), num_samples=n, seed=0)(), "k"
    )
    for i in range(5):
        logs = np.log([0.5, 0.3, 0.2]) - (float(y[i]) - np.arange(3)) ** 2 / 2
        p = np.exp(logs) / np.exp(logs).sum()
        np.testing.assert_allclose(shares(k[:, i], 3), p, atol=4 * 0.5 / math.sqrt(n))


def test_enumeration_of_many_units_does_not_count_their_product() -> None:
    """2 ** 300 assignments, but only 2 for each unit."""

    def model() -> None:
        with pyro.plate("units", 300):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            pyro.sample("y", N(k, 1.0))

    y = torch.linspace(-2, 3, 300)
    k = factual(
        cp.abduct(model, evidence={"y": y}, method=cp.Enumeration(), num_samples=4000, seed=0)(),
        "k",
    )
    expected = torch.sigmoid(y - 0.5)
    assert float((k.mean(0) - expected).abs().max()) < 5 * 0.5 / math.sqrt(4000)


def test_enumeration_with_a_global_and_local_latents() -> None:
    """One coin decides for all units: conditional on it units are independent, marginally they are not."""
    y = torch.tensor([1.0, 1.0, 0.0])

    def model() -> None:
        g = pyro.sample("g", dist.Bernoulli(0.4))
        with pyro.plate("units", 3):
            k = pyro.sample("k", dist.Bernoulli(0.2 + 0.6 * g))
            pyro.sample("y", dist.Bernoulli(0.1 + 0.7 * k))

    n = 20_000
    worlds = cp.abduct(model, evidence={"y": y}, num_samples=n, seed=0)().predict()
    g, k = worlds.tensor("g", world="factual").long(), worlds.tensor("k", world="factual").long()
    found = np.zeros((2, 2, 2, 2))
    np.add.at(found, (g.numpy(), *k.numpy().T), 1 / n)
    weights = np.zeros((2, 2, 2, 2))
    for index in np.ndindex(2, 2, 2, 2):
        gv, ks = index[0], index[1:]
        w = 0.4 if gv else 0.6
        for ki, yi in zip(ks, y.tolist(), strict=True):
            pk, py = 0.2 + 0.6 * gv, 0.1 + 0.7 * ki
            w *= (pk if ki else 1 - pk) * (py if yi else 1 - py)
        weights[index] = w
    np.testing.assert_allclose(found, weights / weights.sum(), atol=4 * 0.5 / math.sqrt(n))


def test_enumeration_where_units_are_coupled_by_an_observation() -> None:
    """The sum of two coins over a plate is seen: the units are not independent given it."""

    def model() -> None:
        with pyro.plate("units", 2):
            k = pyro.sample("k", dist.Bernoulli(torch.tensor([0.2, 0.6])))
        pyro.deterministic("total", k.sum())

    k = factual(cp.abduct(model, evidence={"total": 1.0}, num_samples=10_000, seed=0)(), "k")
    assert bool((k.sum(-1) == 1).all())
    assert float(k[:, 0].mean()) == pytest.approx(0.08 / (0.08 + 0.48), abs=4 * 0.5 / 100)


# --- Importance sampling ------------------------------------------------------------------------


def independent_units(y: torch.Tensor) -> None:
    with pyro.plate("units", len(y)):
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 0.7), obs=y)


def test_importance_weights_are_per_unit_where_units_are_independent() -> None:
    y = torch.linspace(-2, 2, 60)
    posterior = cp.abduct(
        independent_units, method=cp.ImportanceSampling(), num_samples=4000, seed=0
    )(y)
    worlds = posterior.predict()
    z = worlds.tensor("z", world="factual")
    assert z.shape == (4000, 60)
    mean, var = y / 1.49, torch.tensor(0.49 / 1.49)
    assert float(((z.mean(0) - mean) / var.sqrt()).abs().max()) < 0.15
    assert float((z.var(0) / var - 1).abs().max()) < 0.2
    for diagnostic in (worlds.diagnostics.ess, worlds.diagnostics.pareto_k):
        assert tuple(diagnostic.dims) == ("units",)
        assert diagnostic.sizes["units"] == 60
    assert float(worlds.diagnostics.ess.min()) > 300
    assert float(worlds.diagnostics.pareto_k.max()) < 0.7
    # A joint weight over 60 units would leave a handful of distinct draws.
    assert len(torch.unique(z[:, 30])) > 500
    # and units that are independent a posteriori are so in the draws
    assert float(torch.corrcoef(z.T.double()).fill_diagonal_(0).abs().mean()) < 0.03


def coupled_units(y: torch.Tensor) -> None:
    with pyro.plate("units", len(y)):
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z.mean(), 0.8), obs=y)


@pytest.mark.parametrize("spelling", ["mean", "cat", "cumsum", "global site", "loop"])
def test_importance_weights_are_joint_where_units_are_coupled(spelling: str) -> None:
    """However the coupling is written, weights per unit would be wrong, and are not used."""

    def model() -> None:
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(0.0, 1.0))
            if spelling == "mean":
                level = z.mean().expand(3)
            elif spelling == "cat":
                level = torch.cat([z[1:], z[:1]])
            elif spelling == "cumsum":
                level = z.cumsum(0)
            elif spelling == "global site":
                level = pyro.deterministic("total", z.sum(-1, keepdim=True)).expand(3)
            else:
                level = torch.stack([z[(i + 1) % 3] for i in range(3)])
            pyro.sample("y", N(level, 0.8), obs=torch.tensor([1.0, 0.5, -0.5]))

    matrix = {
        "mean": np.full((3, 3), 1 / 3),
        "cat": np.roll(np.eye(3), 1, axis=1),
        "cumsum": np.tril(np.ones((3, 3))),
        "global site": np.ones((3, 3)),
        "loop": np.roll(np.eye(3), 1, axis=1),
    }[spelling]
    mean, cov = reference.normal_posterior(
        np.zeros(3), np.eye(3), matrix, 0.8, np.array([1.0, 0.5, -0.5])
    )
    posterior = cp.abduct(model, method=cp.ImportanceSampling(), num_samples=20_000, seed=0)()
    worlds = posterior.predict()
    z = worlds.tensor("z", world="factual").double()
    np.testing.assert_allclose(z.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(torch.cov(z.T), cov, atol=0.08)
    assert np.ndim(worlds.diagnostics.ess) == 0


Y3 = torch.tensor([1.0, 0.5, -0.5])


def by_brute_force(log_joint: Callable[[np.ndarray], np.ndarray], draws: int = 300_000) -> Any:
    """Posterior mean and sd of three standard normals, by weighing all draws jointly."""
    z = np.random.default_rng(0).normal(size=(draws, 3))
    logs = log_joint(z)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    mean = weights @ z
    return mean, np.sqrt(weights @ (z - mean) ** 2)


def likelihood(mean: np.ndarray) -> np.ndarray:
    return -((Y3.numpy() - mean) ** 2).sum(1) / (2 * 0.8**2)


COUPLINGS: dict[str, tuple[Callable[[torch.Tensor], Any], Callable[[np.ndarray], np.ndarray]]] = {
    "greatest": (
        lambda z: pyro.sample("y", N(z.max().expand(3), 0.8), obs=Y3),
        lambda z: likelihood(np.repeat(z.max(1, keepdims=True), 3, 1)),
    ),
    "sorted": (
        lambda z: pyro.sample("y", N(z.sort().values, 0.8), obs=Y3),
        lambda z: likelihood(np.sort(z, 1)),
    ),
    "centred": (
        lambda z: pyro.sample("y", N(z - z.mean(), 0.8), obs=Y3),
        lambda z: likelihood(z - z.mean(1, keepdims=True)),
    ),
    "rarely": (
        lambda z: pyro.sample("y", N(z + (z * (z.abs() > 2)).norm(), 0.8), obs=Y3),
        lambda z: likelihood(z + np.linalg.norm(z * (np.abs(z) > 2), axis=1, keepdims=True)),
    ),
}


@pytest.mark.parametrize("name", COUPLINGS)
def test_couplings_that_hide(name: str) -> None:
    """Units that a perturbation of one of them often leaves alone; only a joint weight is right."""
    observe, log_joint = COUPLINGS[name]

    def model() -> None:
        with pyro.plate("units", 3):
            observe(pyro.sample("z", N(0.0, 1.0)))

    mean, sd = by_brute_force(log_joint)
    z = factual(cp.abduct(model, num_samples=5000, seed=0)(), "z").double().numpy()
    np.testing.assert_allclose((z.mean(0) - mean) / sd, 0, atol=0.1)
    np.testing.assert_allclose(z.std(0) / sd, 1, atol=0.1)


@pytest.mark.parametrize("proposal", ["prior", "guide"])
def test_a_coupling_that_only_the_posterior_shows(proposal: str) -> None:
    """Fewer than one draw of the prior in a thousand shows it, and a tenth of those of the posterior."""
    y3, sd = torch.tensor([4.0, 0.5, -0.5]), 0.7

    def model() -> None:
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z + 1.5 * (z.abs() > 3.4).any(), sd), obs=y3)

    def guide() -> None:
        with pyro.plate("units", 3):
            pyro.sample("z", N(torch.tensor([1.7, 0.3, -0.3]), 0.55))

    # by brute force, from a law close to the posterior
    centre, spread = np.array([2.7, 0.0, -0.6]), 0.9
    z = centre + spread * np.random.default_rng(0).normal(size=(400_000, 3))
    means = z + 1.5 * (np.abs(z) > 3.4).any(1, keepdims=True)
    logs = -(z**2 + ((y3.numpy() - means) / sd) ** 2 - ((z - centre) / spread) ** 2).sum(1) / 2
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    mean = weights @ z
    exact = np.sqrt(weights @ (z - mean) ** 2)
    method = cp.ImportanceSampling(
        proposal if proposal == "prior" else guide, num_proposals=200_000, warn=False
    )
    posterior = cp.abduct(model, method=method, num_samples=4000, seed=0)()
    diagnostics = posterior.predict().diagnostics
    assert "where the posterior is" in diagnostics.why
    z = factual(posterior, "z").double().numpy()
    ess = float(diagnostics.ess)
    np.testing.assert_allclose((z.mean(0) - mean) / exact, 0, atol=4.5 / np.sqrt(min(ess, 4000)))


@pytest.mark.parametrize("kind", ["site", "factor", "another plate"])
def test_evidence_outside_the_plate_that_looks_into_it(kind: str) -> None:
    """Each unit has its own outcome, and one more observation is of their sum: it must weigh, and jointly."""

    def model() -> None:
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z, 0.8), obs=Y3)
        total, seen = z.sum(), torch.tensor(2.0)
        if kind == "site":
            pyro.sample("total", N(total, 0.5), obs=seen)
        elif kind == "factor":
            pyro.factor("total", N(total, 0.5).log_prob(seen))
        else:
            with pyro.plate("others", 1):
                pyro.sample("total", N(total.expand(1), 0.5), obs=seen.expand(1))

    design = np.vstack([np.eye(3) / 0.8, np.ones((1, 3)) / 0.5])
    seen = np.append(Y3.numpy() / 0.8, 2 / 0.5)
    mean, cov = reference.normal_posterior(np.zeros(3), np.eye(3), design, 1.0, seen)
    z = factual(cp.abduct(model, num_samples=5000, seed=0)(), "z").double().numpy()
    np.testing.assert_allclose(z.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(z.T), cov, atol=0.05)


def test_a_parameter_above_the_units_is_not_weighed_per_unit() -> None:
    """theta ~ N(0, 1), z_i ~ N(theta, 1), y_i ~ N(z_i, 1): a draw of theta belongs to all units of its draw."""
    y = torch.tensor([2.0, 1.0, 3.0])

    def model() -> None:
        theta = pyro.sample("theta", N(0.0, 1.0))
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(theta, 1.0))
            pyro.sample("y", N(z, 1.0), obs=y)

    theta = factual(
        cp.abduct(model, method=cp.ImportanceSampling(), num_samples=20_000, seed=0)(), "theta"
    )
    assert float(theta.mean()) == pytest.approx(
        6 / 5, abs=0.05
    )  # precision 1 + 3 / 2, mean (6 / 2) / 2.5
    assert float(theta.var()) == pytest.approx(1 / 2.5, rel=0.1)


def test_the_posterior_joint_of_parameter_and_units() -> None:
    """Cov(theta, z_i | y) must survive resampling: it is what a parameter shared by units means."""
    y = torch.tensor([2.0, 1.0, 3.0])

    def model() -> None:
        theta = pyro.sample("theta", N(0.0, 1.0))
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(theta, 1.0))
            pyro.sample("y", N(z, 1.0), obs=y)

    prior = np.ones((4, 4)) + np.diag([0.0, 1, 1, 1])
    mean, cov = reference.normal_posterior(
        np.zeros(4), prior, np.hstack([np.zeros((3, 1)), np.eye(3)]), 1.0, y.numpy()
    )
    worlds = cp.abduct(model, num_samples=4000, seed=0)().predict()
    draws = torch.cat(
        [worlds.tensor("theta", world="factual")[:, None], worlds.tensor("z", world="factual")], -1
    ).double()
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(torch.cov(draws.T), cov, atol=0.1)


def test_collapsed_weights_do_not_pass_in_silence() -> None:
    """An observation 40 standard deviations out: prior draws cannot reach it."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 0.01), obs=torch.tensor(8.0))

    def run() -> Any:
        return cp.abduct(model, method=cp.ImportanceSampling(), num_samples=500, seed=0)()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            posterior = run()
        except cp.errors.InferenceError as error:
            assert "weight" in str(error) or "draw" in str(error)
            return
    said = [w for w in caught if issubclass(w.category, cp.errors.InferenceWarning)]
    assert said and ("k" in str(said[0].message) or "effective" in str(said[0].message))
    assert float(np.asarray(posterior.predict().diagnostics.pareto_k).max()) > 0.7


def test_a_healthy_posterior_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cp.abduct(independent_units, method=cp.ImportanceSampling(), num_samples=2000, seed=0)(
            torch.linspace(-1, 1, 5)
        ).predict()


def test_importance_sampling_by_a_guide() -> None:
    y = torch.linspace(-3, 3, 10)

    def guide(y: torch.Tensor) -> None:
        with pyro.plate("units", len(y)):
            pyro.sample("z", N(y / 1.49, 0.8))

    worlds = cp.abduct(
        independent_units, method=cp.ImportanceSampling(proposal=guide), num_samples=3000, seed=0
    )(y).predict()
    z = worlds.tensor("z", world="factual")
    assert float((z.mean(0) - y / 1.49).abs().max()) < 0.08
    assert float((z.var(0) / (0.49 / 1.49) - 1).abs().max()) < 0.2


def test_factors_are_evidence() -> None:
    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.factor("tilt", z)

    z = factual(cp.abduct(model, num_samples=4000, seed=0)(), "z")
    assert float(z.mean()) == pytest.approx(1.0, abs=0.12)


def test_truncated_support_and_transforms() -> None:
    """A latent scale: HalfNormal prior, two observations; posterior mean by quadrature."""

    def model() -> None:
        s = pyro.sample("s", dist.HalfNormal(2.0))
        with pyro.plate("units", 2):
            pyro.sample("y", N(0.0, s), obs=torch.tensor([1.0, -2.0]))

    mean, sd = reference.quadrature(
        lambda s: -(s**2) / 8 - 2 * np.log(s) - 5 / (2 * s**2), lambda s: s, low=1e-3, high=20
    )
    s = factual(cp.abduct(model, num_samples=3000, seed=0)(), "s")
    assert float(s.mean()) == pytest.approx(mean, abs=0.1)
    assert float(s.std()) == pytest.approx(sd, rel=0.12)


# --- NUTS ---------------------------------------------------------------------------------------

Y = torch.tensor([1.2, 0.4, 2.2, 1.0, 0.1, 1.7])
X = torch.tensor([1.0, -1.0, 2.0, 0.0, -0.5, 1.5])


def regression() -> None:
    a = pyro.sample("a", N(0.0, 2.0))
    b = pyro.sample("b", N(0.0, 1.0))
    with pyro.plate("units", 6):
        pyro.sample("y", N(a + b * X, 0.5), obs=Y)


@pytest.mark.parametrize("sampler", ["nutpie", pytest.param("pyro", marks=pytest.mark.slow)])
def test_nuts_on_a_conjugate_regression(sampler: str) -> None:
    design = np.stack([np.ones(6), X.numpy()], 1)
    mean, cov = reference.normal_posterior(np.zeros(2), np.diag([4.0, 1.0]), design, 0.5, Y.numpy())
    method = cp.NUTS(sampler=sampler, chains=2, warmup=300)
    posterior = cp.abduct(regression, method=method, num_samples=2000, seed=0)()
    worlds = posterior.predict()
    draws = torch.stack([worlds.tensor(s, world="factual") for s in "ab"], -1).double()
    assert draws.shape == (2000, 2)
    draws = draws.numpy()
    standard = np.sqrt(np.diag(cov))
    scale = np.outer(standard, standard)
    np.testing.assert_allclose((draws.mean(0) - mean) / standard, 0, atol=5 / math.sqrt(600))
    np.testing.assert_allclose(np.cov(draws.T) / scale, cov / scale, atol=0.2)
    assert np.asarray(_largest(worlds.diagnostics.rhat)) < 1.02
    assert "nuts" in str(worlds.diagnostics.method).lower()


def _largest(diagnostic: Any) -> float:
    """R-hat is one number per site or entry; this is the worst."""
    if isinstance(diagnostic, dict):
        return max(_largest(v) for v in diagnostic.values())
    if hasattr(diagnostic, "data_vars"):
        return max(_largest(v) for v in diagnostic.data_vars.values())
    return float(np.asarray(diagnostic).max())


def test_nuts_then_counterfactuals_are_arithmetic_in_the_draws() -> None:
    """y = a + b x + e with e kept: had x been x + 1, y would be y + b, draw by draw."""

    def model() -> None:
        b = pyro.sample("b", N(0.0, 1.0))
        with pyro.plate("units", 6):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(b * x, 0.5))

    worlds = cp.counterfactual(
        model,
        {"x": cp.shift(1.0)},
        {"x": X, "y": Y},
        method=cp.NUTS(chains=2, warmup=200),
        num_samples=400,
        seed=0,
    )()
    b = worlds.tensor("b", world="factual")
    effect = worlds.tensor("y", world="counterfactual") - Y
    torch.testing.assert_close(effect, b[:, None].expand(400, 6), rtol=1e-4, atol=1e-4)


def test_nuts_with_constrained_and_vector_latents() -> None:
    def model() -> None:
        w = pyro.sample("w", N(torch.zeros(2), 1.0).to_event(1))
        s = pyro.sample("s", dist.Exponential(1.0))
        u = pyro.sample("u", dist.Uniform(-1.0, 1.0))
        with pyro.plate("units", 6):
            pyro.sample("y", N(w[0] + w[1] * X + u, s), obs=Y)

    worlds = cp.abduct(
        model, method=cp.NUTS(chains=2, warmup=300), num_samples=600, seed=0
    )().predict()
    s, u = worlds.tensor("s", world="factual"), worlds.tensor("u", world="factual")
    assert worlds.tensor("w", world="factual").shape == (600, 2)
    assert float(s.min()) > 0 and float(u.abs().max()) < 1
    assert 0.3 < float(s.mean()) < 1.2


def test_nuts_refuses_discrete_latents_that_are_not_finite() -> None:
    def model() -> None:
        k = pyro.sample("k", dist.Poisson(2.0))
        z = pyro.sample("z", N(k, 1.0))
        pyro.sample("y", N(z, 1.0), obs=torch.tensor(1.0))

    with pytest.raises(cp.errors.MethodError, match="'k'"):
        cp.abduct(model, method=cp.NUTS(), seed=0)()


def test_nuts_is_reproducible() -> None:
    def run() -> torch.Tensor:
        return factual(
            cp.abduct(regression, method=cp.NUTS(chains=2, warmup=100), num_samples=100, seed=3)(),
            "b",
        )

    before = torch.get_rng_state()
    assert torch.equal(run(), run())
    assert torch.equal(torch.get_rng_state(), before)


# --- The choice ---------------------------------------------------------------------------------


def mixture_of_both() -> None:
    k = pyro.sample("k", dist.Bernoulli(0.5))
    z = pyro.sample("z", N(0.0, 1.0))
    pyro.sample("y", N(z + 2 * k, 0.5), obs=torch.tensor(2.0))


def test_a_discrete_and_a_continuous_latent_together() -> None:
    """P(k = 1 | y) = N(2; 2, 1.25) / (N(2; 2, 1.25) + N(2; 0, 1.25)) by hand; some method must get it."""
    one, zero = 1.0, math.exp(-4 / 2.5)
    k = factual(cp.abduct(mixture_of_both, num_samples=4000, seed=0)(), "k")
    assert float(k.mean()) == pytest.approx(one / (one + zero), abs=0.05)


@pytest.mark.parametrize(
    ("model", "args", "expected"),
    [
        (simple, (), None),
        (independent_units, (torch.linspace(-1, 1, 4),), None),
        (mixture_of_both, (), None),
        (regression, (), None),
    ],
    ids=["prior", "units", "mixed", "regression"],
)
def test_the_choice_is_recorded_with_its_reason(
    model: Callable[..., Any], args: Any, expected: Any
) -> None:
    diagnostics = cp.abduct(model, num_samples=100, seed=0)(*args).predict().diagnostics
    assert str(diagnostics.method)
    assert len(str(diagnostics.why)) > 15
    assert diagnostics.executor in ("sequential", "vmap", "compiled")


def test_mechanisms_are_recorded() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        c = pyro.sample("c", dist.Categorical(logits=torch.stack([x, -x], -1)))
        h = pyro.sample("h", dist.HalfNormal(1 + x))
        pyro.sample("y", N(c + h, 1.0), infer={"mechanism": "independent"})

    mechanisms = dict(
        cp.abduct(model, num_samples=10, seed=0)().predict({"x": 1.0}).diagnostics.mechanisms
    )
    assert mechanisms["c"] == "gumbel_max"
    assert mechanisms["h"] == "inverse_cdf"
    assert mechanisms["y"] == "independent"


# --- Given samples, and persistence -------------------------------------------------------------


def test_posterior_samples_are_taken_as_they_are() -> None:
    z = torch.linspace(-1, 2, 7)

    def model() -> None:
        a = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(3 * a, 1.0), obs=torch.tensor(1.0))

    worlds = cp.counterfactual(model, {"z": cp.shift(1.0)}, method=cp.PosteriorSamples({"z": z}))()
    assert torch.equal(worlds.tensor("z", world="factual"), z)
    y = worlds.tensor("y", world="counterfactual")
    torch.testing.assert_close(y, torch.full((7,), 4.0), rtol=1e-5, atol=1e-5)


def test_posterior_samples_from_pyros_own_mcmc() -> None:
    kernel = pyro.infer.NUTS(regression)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mcmc = pyro.infer.MCMC(kernel, num_samples=40, warmup_steps=40, disable_progbar=True)
        mcmc.run()
    samples = mcmc.get_samples()
    worlds = cp.counterfactual(
        regression, {"a": 0.0}, method=cp.PosteriorSamples(samples), seed=0
    )()
    torch.testing.assert_close(
        worlds.tensor("y", world="counterfactual"),
        Y - samples["a"][:, None].expand(40, 6),
        rtol=1e-4,
        atol=1e-4,
    )


persistent = pytest.mark.skipif(not hasattr(cp.Posterior, "save"), reason="not there yet")


@persistent
def test_a_posterior_is_saved_and_loaded(tmp_path: Path) -> None:
    posterior = cp.abduct(mixture_of_both, num_samples=50, seed=0)()
    posterior.save(tmp_path / "posterior")
    loaded = cp.Posterior.load(tmp_path / "posterior", mixture_of_both)
    for site in ("k", "z", "y"):
        for world in ("factual", "counterfactual"):
            a, b = (p.predict({"k": 0.0}).tensor(site, world=world) for p in (posterior, loaded))
            assert torch.equal(a, b)


@persistent
def test_a_posterior_of_another_program_is_not_loaded(tmp_path: Path) -> None:
    cp.abduct(mixture_of_both, num_samples=5, seed=0)().save(tmp_path / "posterior")
    with pytest.raises(cp.CausalPPLError):
        cp.Posterior.load(tmp_path / "posterior", regression).predict()


def test_a_mixture_whose_components_and_data_stand_at_the_same_dim() -> None:
    """Three components, six points: plates of different sizes at one dim; against a grid."""
    y = torch.tensor([-3.0, -2.8, -3.1, 2.9, 3.0, 3.2])

    def model() -> None:
        with pyro.plate("components", 3):
            centre = pyro.sample("centre", N(0.0, 3.0))
        with pyro.plate("points", 6):
            kind = pyro.sample("kind", dist.Categorical(torch.ones(3) / 3))
            pyro.sample("y", N(centre[kind], 0.5), obs=y)

    grid = torch.linspace(-9, 9, 73, dtype=torch.float64)  # the centres' joint posterior on a grid
    a, b, c = torch.meshgrid(grid, grid, grid, indexing="ij")
    centres = torch.stack([a, b, c], -1).reshape(-1, 3)
    terms = -0.5 * ((y.double()[:, None] - centres[:, None, :]) / 0.5) ** 2
    logs = terms.logsumexp(-1).sum(-1) - 0.5 * (centres / 3) ** 2 @ torch.ones(3).double()
    weights = (logs - logs.max()).exp()
    weights /= weights.sum()
    expected = weights @ centres.sort(-1).values
    for proposal, count in (("prior", 400_000), ("laplace", 40_000)):
        method = cp.ImportanceSampling(proposal, num_proposals=count, warn=False)
        posterior = cp.abduct(model, method=method, num_samples=3000, seed=0)()
        found = posterior.latents["centre"].double().sort(-1).values.mean(0)
        sure = slice(None) if proposal == "prior" else [0, 2]  # the third has many modes
        torch.testing.assert_close(found[sure], expected[sure], atol=0.3, rtol=0.0)
        nearest = posterior.latents["centre"].gather(1, posterior.latents["kind"]) - y
        assert float(nearest.abs().mean()) < 0.6


def test_weights_of_units_beside_another_plate_at_the_same_dim() -> None:
    """What is observed in the other plate belongs to no unit of this one."""
    y = torch.tensor([1.0, -0.5, 2.0, 0.0, 0.5, 1.5])

    def model() -> None:
        with pyro.plate("instruments", 3):
            pyro.sample("offset", N(0.0, 1.0), obs=torch.tensor([0.1, 0.2, -0.1]))
        with pyro.plate("units", 6):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z, 1.0), obs=y)

    method = cp.ImportanceSampling(num_proposals=40_000)
    z = factual(cp.abduct(model, method=method, num_samples=4000, seed=0)(), "z").double().numpy()
    np.testing.assert_allclose(z.mean(0), y.numpy() / 2, atol=4.5 * 0.5**0.5 / 4000**0.5 * 1.3)
    np.testing.assert_allclose(z.var(0), 0.5, atol=0.06)
