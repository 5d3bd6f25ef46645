"""Guides as proposals: right whatever the guide, as long as its k-hat says so; and what a guide must not be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch
from pyro.infer import SVI, Trace_ELBO, autoguide

import causalppl as cp

N = dist.Normal
Y = torch.linspace(-2, 2, 8)


def units(y: torch.Tensor) -> None:
    with pyro.plate("units", len(y)):
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 0.7), obs=y)


def regression(y: torch.Tensor) -> None:
    a = pyro.sample("a", N(0.0, 2.0))
    s = pyro.sample("s", dist.HalfNormal(2.0))
    with pyro.plate("units", len(y)):
        pyro.sample("y", N(a, s), obs=y)


def trained(guide: Any, model: Any, steps: int = 300) -> Any:
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(steps):
            svi.step(Y)
    return guide


def regression_by_quadrature() -> dict[str, float]:
    y = Y.double().numpy()
    a, s = np.meshgrid(np.linspace(-4, 4, 401), np.linspace(0.05, 8, 800), indexing="ij")
    logs = -(a**2) / 8 - s**2 / 8 - len(y) * np.log(s)
    logs -= ((y[:, None, None] - a) ** 2).sum(0) / (2 * s**2)
    w = np.exp(logs - logs.max())
    w /= w.sum()
    mean = {"a": (w * a).sum(), "s": (w * s).sum()}
    return mean | {
        "a sd": math.sqrt((w * (a - mean["a"]) ** 2).sum()),
        "s sd": math.sqrt((w * (s - mean["s"]) ** 2).sum()),
    }


AUTOGUIDES = [
    autoguide.AutoNormal,
    autoguide.AutoDiagonalNormal,
    autoguide.AutoMultivariateNormal,
    autoguide.AutoStructured,
]


@pytest.mark.parametrize("kind", AUTOGUIDES, ids=lambda kind: kind.__name__)
def test_pyros_autoguides(kind: Any) -> None:
    guide = trained(kind(regression), regression)
    method = cp.ImportanceSampling(guide, num_proposals=20_000)
    posterior = cp.abduct(regression, method=method, num_samples=4000, seed=0)(Y)
    expected = regression_by_quadrature()
    for name in "as":
        draws = posterior.latents[name]
        sd = expected[f"{name} sd"]
        assert float(draws.mean()) == pytest.approx(expected[name], abs=5 * sd / math.sqrt(2000))
        assert float(draws.std()) == pytest.approx(sd, rel=0.15)


def test_an_autoguide_in_a_plate_has_weights_per_unit() -> None:
    guide = trained(autoguide.AutoNormal(units), units)
    posterior = cp.abduct(units, method=cp.ImportanceSampling(guide), num_samples=4000, seed=0)(Y)
    diagnostics = posterior.predict().diagnostics
    assert diagnostics.method == "ImportanceSampling(guide)"
    assert dict(diagnostics.pareto_k.sizes) == {"units": 8}
    z = posterior.latents["z"].double()
    torch.testing.assert_close(z.mean(0), (Y / 1.49).double(), rtol=0, atol=0.05)
    np.testing.assert_allclose(z.var(0), 0.49 / 1.49, rtol=0.12)


def test_an_auxiliary_draw_that_latents_scatter_around() -> None:
    """z given the level is normal and not a function of it: the weights are p(z, y) / q(z | level)."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 0.7), obs=torch.tensor(1.49))

    def guide() -> None:
        level = pyro.sample("level", N(1.0, 0.5), infer={"is_auxiliary": True})
        pyro.sample("z", N(level, 0.8))

    z = cp.abduct(model, method=cp.ImportanceSampling(guide), num_samples=4000, seed=0)().latents
    assert set(z) == {"z"}
    sd = math.sqrt(0.49 / 1.49)
    assert float(z["z"].mean()) == pytest.approx(1.0, abs=4 * sd / math.sqrt(2000))
    assert float(z["z"].std()) == pytest.approx(sd, rel=0.06)


def test_deltas_of_too_few_or_too_many_auxiliary_draws_have_no_density() -> None:
    def sum_of_two(y: torch.Tensor) -> None:
        a, b = (pyro.sample(n, N(0.0, 1.0), infer={"is_auxiliary": True}) for n in ("u", "v"))
        pyro.sample("a", dist.Delta(a + b))
        pyro.sample("s", dist.LogNormal(0.0, 1.0))

    def same_twice(y: torch.Tensor) -> None:
        u = pyro.sample("u", N(0.0, 1.0), infer={"is_auxiliary": True})
        pyro.sample("a", dist.Delta(u))
        pyro.sample("s", dist.Delta(u.exp(), u))

    for guide in (sum_of_two, same_twice):
        with pytest.raises(cp.errors.MethodError, match="no density"):
            cp.abduct(regression, method=cp.ImportanceSampling(guide), seed=0)(Y)


def test_a_guide_whose_units_share_a_draw() -> None:
    mean = torch.tensor([0.6, 0.3, -0.3])
    scale = 0.5 * torch.eye(3) + 0.3

    def model() -> None:
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z, 0.7), obs=mean * 1.49)

    def guide() -> None:
        whole = pyro.sample(
            "whole", dist.MultivariateNormal(mean, scale), infer={"is_auxiliary": True}
        )
        with pyro.plate("units", 3):
            pyro.sample("z", dist.Delta(whole))

    posterior = cp.abduct(model, method=cp.ImportanceSampling(guide), num_samples=4000, seed=0)()
    assert "joint weights" in posterior.predict().diagnostics.why
    z = posterior.latents["z"].double().numpy()
    np.testing.assert_allclose(z.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(z.T), 0.49 / 1.49 * np.eye(3), atol=0.05)


def test_coupled_units_are_weighed_jointly_though_the_guide_treats_them_one_by_one() -> None:
    def model() -> None:
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z.cumsum(0), 0.8), obs=torch.tensor([1.0, 0.5, -0.5]))

    def guide() -> None:
        with pyro.plate("units", 3):
            pyro.sample("z", N(torch.tensor([0.5, -0.2, -0.5]), 0.8))

    mean, cov = reference.normal_posterior(
        np.zeros(3), np.eye(3), np.tril(np.ones((3, 3))), 0.8, np.array([1.0, 0.5, -0.5])
    )
    method = cp.ImportanceSampling(guide, num_proposals=20_000)
    posterior = cp.abduct(model, method=method, num_samples=4000, seed=0)()
    assert "joint weights" in posterior.predict().diagnostics.why
    z = posterior.latents["z"].double().numpy()
    np.testing.assert_allclose(z.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(z.T), cov, atol=0.06)


def test_a_guide_that_is_too_narrow_is_caught() -> None:
    def guide(y: torch.Tensor) -> None:
        with pyro.plate("units", len(y)):
            pyro.sample("z", N(y / 1.49, 0.2))

    with pytest.warns(cp.errors.InferenceWarning, match="k-hat"):
        cp.abduct(units, method=cp.ImportanceSampling(guide), num_samples=1000, seed=0)(Y)


def test_a_guide_that_is_far_off_collapses() -> None:
    def guide(y: torch.Tensor) -> None:
        with pyro.plate("units", len(y)):
            pyro.sample("z", N(y + 30, 0.2))

    with pytest.raises(cp.errors.InferenceError, match=r"collapsed.*laplace"):
        cp.abduct(units, method=cp.ImportanceSampling(guide), num_samples=1000, seed=0)(Y)


def test_a_guide_of_discrete_and_continuous_latents() -> None:
    """P(k = 1 | y) = 1 / (1 + exp(-4 / 2.5)) by hand."""

    def model() -> None:
        k = pyro.sample("k", dist.Bernoulli(0.5))
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z + 2 * k, 0.5), obs=torch.tensor(2.0))

    def guide() -> None:
        k = pyro.sample("k", dist.Bernoulli(0.6))
        pyro.sample("z", N(1.5 - 1.5 * k, 0.6))

    method = cp.ImportanceSampling(guide, num_proposals=20_000)
    k = cp.abduct(model, method=method, num_samples=10_000, seed=0)().latents["k"]
    assert float(k.mean()) == pytest.approx(1 / (1 + math.exp(-1.6)), abs=0.02)


def test_parameters_generator_and_store_are_left_alone() -> None:
    def guide(y: torch.Tensor) -> None:
        shift = pyro.param("shift", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(0.7), constraint=dist.constraints.positive)
        with pyro.plate("units", len(y)):
            pyro.sample("z", N(y / 1.49 + shift, scale))

    guide(Y)
    before = {n: v.detach().clone() for n, v in pyro.get_param_store().items()}
    state = torch.get_rng_state()
    run = cp.abduct(units, method=cp.ImportanceSampling(guide), num_samples=50, seed=1)
    first = run(Y).latents["z"]
    assert torch.equal(first, run(Y).latents["z"])
    assert torch.equal(state, torch.get_rng_state())
    after = dict(pyro.get_param_store().items())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n].detach()) for n in before)


def one_too_few(y: torch.Tensor) -> None:
    pyro.sample("a", N(0.0, 1.0))


def one_too_many(y: torch.Tensor) -> None:
    for name in "asb":
        pyro.sample(name, dist.LogNormal(0.0, 1.0))


def other_shape(y: torch.Tensor) -> None:
    pyro.sample("a", N(torch.zeros(2), 1.0).to_event(1))
    pyro.sample("s", dist.LogNormal(0.0, 1.0))


@pytest.mark.parametrize(
    ("guide", "says"),
    [
        (one_too_few, "no site for the latent 's'"),
        (one_too_many, "no latent site 'b'"),
        (other_shape, r"'a' has shape \(2,\), the program's \(\)"),
    ],
)
def test_a_guide_for_another_program(guide: Any, says: str) -> None:
    with pytest.raises(cp.errors.GuideMismatchError, match=says):
        cp.abduct(regression, method=cp.ImportanceSampling(guide), seed=0)(Y)


def test_a_point_is_no_proposal() -> None:
    guide = trained(autoguide.AutoDelta(regression), regression, steps=2)
    with pytest.raises(cp.errors.MethodError, match="no randomness"):
        cp.abduct(regression, method=cp.ImportanceSampling(guide), seed=0)(Y)


def test_a_partly_known_site_is_refused() -> None:
    def guide(y: torch.Tensor) -> None:
        with pyro.plate("units", len(y)):
            pyro.sample("z", N(0.0, 1.0))

    known = torch.full((8,), math.nan)
    known[0] = 1.0
    with pytest.raises(cp.errors.MethodError, match="a part of which is known"):
        cp.abduct(units, {"z": known}, method=cp.ImportanceSampling(guide), seed=0)(Y)
