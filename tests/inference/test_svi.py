"""SVI against closed forms; its doubt where a guide cannot fit; and what it must leave alone."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch
from pyro.infer import autoguide

import causalppl as cp

N = dist.Normal
Y = torch.linspace(-2, 2, 12)
X = torch.tensor([0.3, -1.2, 0.8, 0.1, 1.9, -0.4, -2.0, 0.6, 1.1, -0.9, 0.0, 1.4])


def units(y: torch.Tensor) -> None:
    with pyro.plate("units", len(y)):
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 0.7), obs=y)


def regression(x: torch.Tensor, y: torch.Tensor) -> None:
    a = pyro.sample("a", N(0.0, 2.0))
    b = pyro.sample("b", N(0.0, 1.0))
    with pyro.plate("units", len(y)):
        pyro.sample("y", N(a + b * x, 0.5), obs=y)


def exact(x: torch.Tensor, y: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    design = np.stack([np.ones(len(x)), x.double().numpy()], 1)
    return reference.normal_posterior(
        np.zeros(2), np.diag([4.0, 1.0]), design, 0.5, y.double().numpy()
    )


def normal_guide(x: torch.Tensor, y: torch.Tensor) -> None:
    for name in "ab":
        loc = pyro.param(f"{name} loc", torch.zeros(()))
        scale = pyro.param(f"{name} scale", torch.tensor(0.1), constraint=dist.constraints.positive)
        pyro.sample(name, N(loc, scale))


def check_regression(posterior: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    mean, cov = exact(x, y)
    sd = np.sqrt(np.diag(cov))
    draws = np.stack([posterior.latents[n].double().numpy() for n in "ab"], 1)
    np.testing.assert_allclose((draws.mean(0) - mean) / sd, 0, atol=5 / math.sqrt(2000))
    np.testing.assert_allclose(
        np.cov(draws.T) / np.outer(sd, sd), cov / np.outer(sd, sd), atol=0.12
    )


def test_units_have_guides_and_doubts_of_their_own() -> None:
    posterior = cp.abduct(units, method=cp.SVI(learning_rate=0.05), num_samples=3000, seed=0)(Y)
    diagnostics = posterior.predict().diagnostics
    assert diagnostics.method == "SVI(auto_normal)"
    assert dict(diagnostics.pareto_k.sizes) == {"units": 12}
    assert float(diagnostics.pareto_k.max()) < 0.7 and float(diagnostics.ess.min()) > 2000
    z = posterior.latents["z"]
    torch.testing.assert_close(z.mean(0), Y / 1.49, rtol=0, atol=5 * 0.57 / math.sqrt(2500))
    np.testing.assert_allclose(z.var(0), 0.49 / 1.49, rtol=0.13)
    assert any("ELBO in nats" in str(note) for note in diagnostics.notes)


@pytest.mark.parametrize("guide", ["auto_normal", "auto_multivariate_normal", normal_guide])
def test_a_regression(guide: Any) -> None:
    posterior = cp.abduct(
        regression, method=cp.SVI(guide, learning_rate=0.05), num_samples=3000, seed=0
    )(X + 0.5, Y)
    check_regression(posterior, X + 0.5, Y)


def test_the_elbo_is_the_evidence_at_its_maximum() -> None:
    """A conjugate model whose posterior the guide can reach: the ELBO rises to log p(y), a normal density by hand."""
    posterior = cp.abduct(units, method=cp.SVI(learning_rate=0.05), num_samples=10, seed=0)(Y)
    history = posterior._draws.history
    expected = float(N(0.0, math.sqrt(1.49)).log_prob(Y).sum())
    error = np.std(history[-200:]) / math.sqrt(
        200
    )  # the entropy is exact, so each step's value has an error
    assert np.mean(history[-200:]) == pytest.approx(expected, abs=4 * error + 0.01)
    assert error < 0.2
    assert sum(history[:20]) / 20 < expected - 5


def test_minibatches_of_a_subsampled_plate() -> None:
    x = torch.randn(300, generator=torch.Generator().manual_seed(0))
    y = 1 + 0.5 * x + 0.5 * torch.randn(300, generator=torch.Generator().manual_seed(1))

    def model() -> None:
        a = pyro.sample("a", N(0.0, 2.0))
        b = pyro.sample("b", N(0.0, 1.0))
        with pyro.plate("units", 300, subsample_size=60) as index:
            pyro.sample("y", N(a + b * x[index], 0.5), obs=y[index])

    method = cp.SVI(learning_rate=0.05)
    posterior = cp.abduct(model, method=method, num_samples=3000, seed=0)()
    mean, cov = exact(x, y)
    sd = np.sqrt(np.diag(cov))
    for i, name in enumerate("ab"):
        draws = posterior.latents[name]
        assert abs(float(draws.mean()) - mean[i]) < 0.6 * sd[i]  # the noise of minibatches remains
        assert float(draws.std()) == pytest.approx(sd[i], rel=0.3)
    assert "minibatches" in posterior.predict().diagnostics.why
    with pytest.raises(cp.errors.MethodError, match=r"cp\.SVI"):
        cp.abduct(model, method=cp.NUTS(), seed=0)()


def test_missing_entries_ranges_and_discrete_latents_under_a_guide_by_name() -> None:
    def model() -> None:
        with pyro.plate("units", 3):
            k = pyro.sample("k", dist.Bernoulli(0.5))
            z = pyro.sample("z", N(2 * k, 0.3))
            pyro.sample("y", N(z, 1.0))

    evidence = {"y": torch.tensor([0.0, 2.0, math.nan]), "z": cp.Interval(-1.0, 3.0)}
    method = cp.SVI(learning_rate=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cp.errors.InferenceWarning)  # one normal for two modes
        posterior = cp.abduct(model, evidence, method=method, num_samples=2000, seed=0)()
    k, z, y = (posterior.latents[s] for s in ("k", "z", "y"))
    assert bool((y[:, 0] == 0).all()) and bool((z >= -1).all()) and bool((z <= 3).all())
    near = z[:, 0] < 1
    assert float(k[near, 0].mean()) < 0.05  # exact given z
    assert float(k[z[:, 1] > 1.5, 1].mean()) > 0.95


def test_a_guide_that_cannot_bend_says_so() -> None:
    """Two coordinates tied to a thousandth: independent normals have the wrong shape, a full covariance has the right one."""

    def model() -> None:
        a, b = (pyro.sample(n, N(0.0, 1.0)) for n in "ab")
        pyro.sample("y", N(a - b, 0.01), obs=torch.tensor(0.0))

    with pytest.warns(cp.errors.InferenceWarning, match="no good stand-in"):
        cp.abduct(model, method=cp.SVI(learning_rate=0.05), num_samples=100, seed=0)()


def test_too_few_steps_are_reported() -> None:
    with pytest.warns(cp.errors.InferenceWarning) as caught:
        posterior = cp.abduct(units, method=cp.SVI(steps=30), num_samples=20, seed=0)(Y)
    assert any("not settled after 30 steps" in str(w.message) for w in caught)
    assert len(posterior._draws.history) == 30
    assert "had not settled" in str(posterior.predict().diagnostics.notes)


def test_what_is_the_users_is_left_alone() -> None:
    """Store, generator, the guide, its model, the program's parameters and networks; and a seed gives the same draws."""
    network = torch.nn.Linear(1, 1)
    pyro.param("offset", torch.tensor(1.0))

    def model(y: torch.Tensor) -> None:
        offset = pyro.param("offset", torch.tensor(0.0))
        z = pyro.sample("z", N(offset, 1.0))
        with pyro.plate("units", len(y)):
            pyro.sample("y", N(z + 0 * network(torch.ones(1)), 1.0), obs=y)

    guide = autoguide.AutoNormal(model)
    guide(Y)
    store, generator = pyro.get_param_store(), torch.get_rng_state()
    before = {n: v.detach().clone() for n, v in store.items()}
    own = {n: v.detach().clone() for n, v in guide.named_parameters()}
    its_model = guide.model
    run = cp.abduct(model, method=cp.SVI(guide, learning_rate=0.05), num_samples=500, seed=0)
    first = run(Y).latents["z"]
    assert torch.equal(first, run(Y).latents["z"])
    # prior N(1, 1) with the store's offset, and 12 observations of mean 0
    assert float(first.mean()) == pytest.approx(1 / 13, abs=5 / math.sqrt(13 * 400))
    assert torch.equal(generator, torch.get_rng_state())
    assert before.keys() == dict(store.items()).keys()
    assert all(torch.equal(v.detach(), before[n]) for n, v in store.items())
    assert all(torch.equal(v, own[n]) for n, v in guide.named_parameters())
    assert guide.model is its_model
    assert network.weight.grad is None
    assert float(store["offset"].detach()) == 1.0


def test_evidence_is_given_to_a_guide_of_ones_own() -> None:
    def model() -> None:
        a = pyro.sample("a", N(0.0, 1.0))
        pyro.sample("y", N(a, 1.0))

    def guide() -> None:
        loc = pyro.param("loc", torch.zeros(()))
        scale = pyro.param("scale", torch.ones(()), constraint=dist.constraints.positive)
        pyro.sample("a", N(loc, scale))

    method = cp.SVI(guide, learning_rate=0.05)
    a = cp.abduct(model, {"y": 2.0}, method=method, num_samples=2000, seed=0)().latents["a"]
    assert float(a.mean()) == pytest.approx(1.0, abs=5 * math.sqrt(0.5 / 1800))
    assert float(a.var()) == pytest.approx(0.5, rel=0.13)


def discrete(y: torch.Tensor) -> None:
    k = pyro.sample("k", dist.Bernoulli(0.5))
    z = pyro.sample("z", N(k, 1.0))
    pyro.sample("y", N(z, 1.0), obs=y[0])


def without_parameters(y: torch.Tensor) -> None:
    with pyro.plate("units", len(y)):
        pyro.sample("z", N(0.0, 1.0))


def of_another_program(y: torch.Tensor) -> None:
    pyro.sample("w", N(pyro.param("w loc", torch.zeros(())), 1.0))


def part(y: torch.Tensor) -> None:
    with pyro.plate("units", 12, subsample_size=4):
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 1.0))


@pytest.mark.parametrize(
    ("model", "evidence", "guide", "says"),
    [
        (discrete, None, without_parameters, "'k' is discrete"),
        (units, None, without_parameters, "no parameters to train"),
        (units, {"z": cp.Interval(0.0, 1.0)}, without_parameters, "a range is known"),
        (part, {"y": torch.zeros(4)}, "auto_normal", "one minibatch"),
    ],
)
def test_what_it_cannot_serve(model: Any, evidence: Any, guide: Any, says: str) -> None:
    with pytest.raises(cp.errors.MethodError, match=says):
        cp.abduct(model, evidence, method=cp.SVI(guide), seed=0)(Y)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"guide": "auto_delta"}, "a point and no posterior"),
        ({"guide": "auto"}, "'auto_normal', 'auto_multivariate_normal'"),
        ({"steps": 0}, "must be positive"),
        ({"learning_rate": -1.0}, "must be positive"),
    ],
)
def test_settings_that_are_refused(settings: Any, says: str) -> None:
    with pytest.raises(cp.errors.MethodError, match=says):
        cp.SVI(**settings)
