"""Replicated data against closed forms, and in the form that ArviZ takes; a posterior's own doubts in a table."""

from __future__ import annotations

import math
import warnings
from typing import Any

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

import causalppl as cp
from causalppl import errors
from causalppl.diagnostics import posterior_predictive, summary

from .methods import Conjugate, gaussian

DATA = torch.tensor([0.4, 1.3, 0.9, 2.0, 1.1])
DRAWS = 4000


def group(data: Any, name: str) -> Any:
    """A group of what ArviZ takes, in either of its versions."""
    return data[name]


@pytest.fixture(scope="module")
def replicated() -> Any:
    """The conjugate program with its exact posterior."""
    posterior = cp.abduct(gaussian, method=Conjugate(), num_samples=DRAWS, seed=0)(DATA)
    return posterior_predictive(posterior)


def test_replicated_data_have_the_closed_form(replicated: Any) -> None:
    found = group(replicated, "posterior_predictive")["y"]
    assert found.dims == ("chain", "draw", "people") and found.shape == (1, DRAWS, 5)
    mean, variance = float(DATA.sum()) / 6, 1 + 1 / 6
    for i in range(5):
        law = stats.norm(mean, variance**0.5)
        assert stats.kstest(found.values[0, :, i], law.cdf).pvalue > 1e-3
    # two replicates share the mean, hence its variance
    covariance = np.cov(found.values[0, :, 0], found.values[0, :, 1])[0, 1]
    assert covariance == pytest.approx(1 / 6, abs=4 * variance / DRAWS**0.5)


def test_the_other_groups_hold_data_draws_and_their_likelihood(replicated: Any) -> None:
    means = group(replicated, "posterior")["mean"].values[0]
    expected = stats.norm.logpdf(DATA.numpy(), means[:, None])
    assert np.allclose(group(replicated, "log_likelihood")["y"].values[0], expected, atol=1e-5)
    assert np.allclose(group(replicated, "observed_data")["y"], DATA)


def test_arviz_draws_and_computes_with_it(replicated: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(arviz, "plot_ppc"):
            arviz.plot_ppc(replicated, num_pp_samples=20)
        else:
            arviz.plot_ppc_dist(replicated, num_samples=20)
        found = arviz.loo(replicated)
    # the exact leave-one-out predictive density of the conjugate model
    rest = (float(DATA.sum()) - DATA.numpy()) / 5
    exact = stats.norm.logpdf(DATA.numpy(), rest, (1 + 1 / 5) ** 0.5).sum()
    value = found.elpd_loo if hasattr(found, "elpd_loo") else found.elpd
    assert float(value) == pytest.approx(exact, abs=0.05)


def test_arviz_one_gets_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arviz, "__version__", "1.0.0")
    posterior = cp.abduct(gaussian, method=Conjugate(), num_samples=10, seed=0)(DATA)
    tree = posterior_predictive(posterior)
    assert isinstance(tree, xr.DataTree)
    assert set(tree.children) == {
        "posterior",
        "posterior_predictive",
        "observed_data",
        "log_likelihood",
    }
    assert tree["posterior_predictive"]["y"].dims == ("chain", "draw", "people")


def hierarchy(y: Tensor, w: Tensor) -> None:
    """Units with a latent of their own, a datum with missing entries, and a vector downstream of it."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("people", len(y)):
        own = pyro.sample("own", dist.Normal(mean, 1.0))
        seen = pyro.sample("y", dist.Normal(own, 0.1), obs=y)
        later = pyro.sample("later", dist.Normal(seen, 0.01))
        pyro.sample("w", dist.Normal(later.unsqueeze(-1), torch.ones(2)).to_event(1), obs=w)
    pyro.factor("nothing", torch.zeros(()))


def test_what_depends_on_replicated_data_is_drawn_anew() -> None:
    y, w = torch.tensor([3.0, float("nan"), -3.0]), torch.zeros(3, 2)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2000, 3, generator=generator)
    draws = {
        "mean": torch.zeros(2000),
        "own": 5.0 + noise,
        "y": y.nan_to_num(9.0).expand(2000, 3),
        "later": torch.full((2000, 3), 100.0),
    }
    posterior = cp.abduct(hierarchy, method=cp.PosteriorSamples(draws), seed=0)(y, w)
    found = posterior_predictive(posterior)
    new = group(found, "posterior_predictive")
    assert set(new.data_vars) == {"y", "w"}
    assert np.abs(new["y"].values[0] - draws["own"].numpy()).max() < 0.6, "own keeps its draws"
    assert new["w"].dims == ("chain", "draw", "people", "w_dim_0")
    # "later" was 100; it depends on y, which was drawn anew around 5
    assert float(new["w"].mean()) == pytest.approx(5.0, abs=0.1)
    assert np.isnan(group(found, "observed_data")["y"].values).tolist() == [False, True, False]
    likelihood = group(found, "log_likelihood")
    assert likelihood["w"].dims == ("chain", "draw", "people")
    assert np.isnan(likelihood["y"].values).any(axis=(0, 1)).tolist() == [False, True, False]

    units = group(posterior_predictive(posterior, fresh=["own"]), "posterior_predictive")["y"]
    law = stats.norm(0.0, (1 + 0.1**2) ** 0.5)  # units of a mean of zero
    assert stats.kstest(units.values[0, :, 0], law.cdf).pvalue > 1e-3


def test_evidence_given_as_a_mapping_is_replicated_too() -> None:
    def model() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample("y", dist.Bernoulli(0.2 + 0.6 * x))

    posterior = cp.abduct(model, {"y": 1.0}, method=cp.Enumeration(), num_samples=DRAWS, seed=0)()
    found = group(posterior_predictive(posterior), "posterior_predictive")["y"]
    # P(x=1 | y=1) = .8, so P(new y = 1) = .8 * .8 + .2 * .2
    assert float(found.mean()) == pytest.approx(0.68, abs=4 * 0.47 / DRAWS**0.5)


def test_networks_are_those_of_the_posterior() -> None:
    class Network(pyro.nn.PyroModule):
        """A mean that is a parameter of a module."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.tensor(5.0))

        def forward(self, y: Tensor) -> None:
            with pyro.plate("people", len(y)):
                pyro.sample("y", dist.Normal(self.bias, 0.1), obs=y)

    network = Network()
    posterior = cp.abduct(network, num_samples=1)(torch.zeros(500))
    with torch.no_grad():
        network.bias.fill_(-5.0)
    found = group(posterior_predictive(posterior), "posterior_predictive")["y"]
    assert float(found.mean()) == pytest.approx(5.0, abs=0.05)
    assert network.bias.item() == -5.0


def test_predictive_refusals() -> None:
    def model() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))

    with pytest.raises(errors.MethodError, match="none of the sites 'x' is observed"):
        posterior_predictive(cp.abduct(model, num_samples=10)())
    posterior = cp.abduct(gaussian, method=Conjugate(), num_samples=10)(DATA)
    with pytest.raises(errors.UnknownSiteError, match="mean"):
        posterior_predictive(posterior, fresh=["men"])


# --- summary --------------------------------------------------------------------------------------------------------


def given(draws: Tensor) -> cp.Posterior:
    """A posterior of the conjugate program with these draws."""
    method = cp.PosteriorSamples({"mean": draws})
    return cp.abduct(gaussian, method=method, seed=0)(DATA)


def test_good_draws_are_fine() -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        row = summary(given(torch.randn(1000, generator=generator))).loc["mean"]
        assert row.finding == "fine"
        assert row.ess_bulk > 700 and row.rhat < 1.02
        assert math.isnan(row.pareto_k) and math.isnan(row.method_rhat)


def test_chains_apart_and_drifting_draws_are_found() -> None:
    draws = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    apart = draws + torch.arange(4).repeat_interleave(250)
    drifting = draws + torch.linspace(0, 2, 1000)
    for bad in (apart, drifting):
        assert "R-hat" in summary(given(bad)).loc["mean", "finding"]


def test_few_effective_draws_and_bad_weights_are_found() -> None:
    sticky = summary(
        cp.abduct(gaussian, method=Conjugate(sticky=0.9), num_samples=1000, seed=0)(DATA)
    )
    assert "effective draws, fewer than 400" in sticky.loc["mean", "finding"]

    def surprised(y: Tensor) -> None:
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("people", len(y)):
            pyro.sample("y", dist.Normal(mean, 0.05), obs=y)

    method = cp.ImportanceSampling(warn=False, num_proposals=2000)
    posterior = cp.abduct(surprised, method=method, seed=0)(torch.full((50,), 3.3))
    row = summary(posterior).loc["mean"]
    assert row.method_ess < 50 and "effective draws" in row.finding
    assert row.pareto_k == pytest.approx(float(posterior.predict().diagnostics.pareto_k))


def test_worst_values_over_units_are_shown() -> None:
    def model(y: Tensor) -> None:
        with pyro.plate("people", len(y)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    method = cp.ImportanceSampling(num_proposals=5000)
    posterior = cp.abduct(model, method=method, seed=0)(torch.tensor([0.0, 2.0]))
    row = summary(posterior).loc["z"]
    diagnostics = posterior.predict().diagnostics
    assert row.entries == 2
    assert row.method_ess == pytest.approx(float(diagnostics.ess.min()))
    assert row.pareto_k == pytest.approx(float(diagnostics.pareto_k.max()))


def test_nothing_latent_gives_an_empty_table() -> None:
    def model() -> None:
        pyro.sample("x", dist.Normal(0.0, 1.0))

    table = summary(cp.abduct(model, {"x": 1.0})())
    assert len(table) == 0 and "finding" in table.columns
