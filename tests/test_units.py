"""Units and parameters: whose noise is kept, what is shared, and people who come later."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch

import causalppl as cp

N = dist.Normal
X = torch.tensor([0.5, -1.0, 2.0, 0.3])
Y = torch.tensor([1.0, 0.2, 2.5, -0.4])


def people(covariate: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    """y_i = theta c_i + z_i + e_i: a parameter, a latent of each person, and noise."""
    theta = pyro.sample("theta", N(0.0, 1.0))
    with pyro.plate("people", len(covariate)):
        x = pyro.sample("x", N(covariate, 1.0))
        z = pyro.sample("z", N(0.0, 0.8))
        return pyro.sample("y", N(theta * x + z, 0.6), obs=y)


EVIDENCE = {"x": X, "y": Y}


def fitted(num_samples: int = 2000) -> object:
    return cp.abduct(people, evidence=EVIDENCE, num_samples=num_samples, seed=0)(torch.zeros(4))


def theta_posterior() -> tuple[float, float]:
    sd = math.sqrt(0.8**2 + 0.6**2)
    mean, cov = reference.normal_posterior(
        np.zeros(1), np.eye(1), X.numpy()[:, None], sd, Y.numpy()
    )
    return float(mean[0]), float(cov[0, 0])


def test_a_parameter_is_conditioned_on_everybody() -> None:
    mean, var = theta_posterior()
    theta = fitted().predict().tensor("theta", world="factual")
    assert float(theta.mean()) == pytest.approx(mean, abs=5 * math.sqrt(var / 500))
    assert float(theta.var()) == pytest.approx(var, rel=0.25)


def test_parameters_and_latents_are_shared_by_worlds() -> None:
    worlds = fitted().predict(worlds={"a": {"x": 0.0}, "b": {"x": cp.shift(1.0)}})
    for site in ("theta", "z"):
        here = worlds.tensor(site, world="factual")
        for world in "ab":
            torch.testing.assert_close(worlds.tensor(site, world=world), here)
    theta = worlds.tensor("theta", world="factual")[:, None]
    torch.testing.assert_close(worlds.tensor("y", world="a"), Y - theta * X, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        worlds.tensor("y", world="b"), Y + theta.expand(-1, 4), rtol=1e-4, atol=1e-4
    )


def test_a_latent_of_a_person_is_abducted_with_the_draws_own_parameter() -> None:
    """z_i given theta and the data is normal; averaged over theta, so is z_i: the two must fit together."""
    worlds = fitted(4000).predict()
    theta = worlds.tensor("theta", world="factual")[:, None]
    z = worlds.tensor("z", world="factual")
    share = 0.64 / (0.64 + 0.36)
    residual = z - share * (Y - theta * X)  # N(0, .64 * .36) independent of theta
    assert float(residual.mean(0).abs().max()) < 0.06
    assert float(residual.var(0).sub(0.64 * 0.36).abs().max()) < 0.05
    joined = torch.cat([theta, residual], -1).T.double()
    assert float(torch.corrcoef(joined)[0, 1:].abs().max()) < 0.12


# --- New people ---------------------------------------------------------------------------------


def test_new_people_reuse_the_parameters_draws() -> None:
    posterior = fitted()
    new = torch.tensor([1.0, -1.0])
    later = posterior.for_units(torch.zeros(2), evidence={"x": new, "y": torch.tensor([3.0, 0.0])})
    worlds = later.predict({"x": 0.0})
    assert worlds["y"].sizes["people"] == 2
    theta = worlds.tensor("theta", world="factual")
    assert torch.equal(theta, posterior.predict().tensor("theta", world="factual"))
    torch.testing.assert_close(
        worlds.tensor("y", world="counterfactual"),
        torch.tensor([3.0, 0.0]) - theta[:, None] * new,
        rtol=1e-4,
        atol=1e-4,
    )


def test_new_peoples_latents_are_conditioned_on_their_evidence_given_each_parameter_draw() -> None:
    posterior = fitted(4000)
    new_x, new_y = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([3.0, 0.0, 1.0])
    worlds = posterior.for_units(torch.zeros(3), evidence={"x": new_x, "y": new_y}).predict()
    theta = worlds.tensor("theta", world="factual")[:, None]
    z = worlds.tensor("z", world="factual")
    residual = z - 0.64 * (new_y - theta * new_x)
    assert float(residual.mean(0).abs().max()) < 0.06
    assert float(residual.var(0).sub(0.64 * 0.36).abs().max()) < 0.05


def test_a_new_person_without_an_outcome_gets_a_prediction() -> None:
    mean, var = theta_posterior()
    later = fitted(4000).for_units(torch.zeros(1), evidence={"x": torch.tensor([2.0])})
    y = later.predict().tensor("y", world="factual")[:, 0]
    assert float(y.mean()) == pytest.approx(2 * mean, abs=0.1)
    assert float(y.var()) == pytest.approx(4 * var + 1.0, rel=0.15)


def test_new_people_without_parameters() -> None:
    def model(n: int) -> None:
        with pyro.plate("people", n):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(2 * x, 1.0))

    posterior = cp.abduct(model, evidence={"x": X, "y": Y}, seed=0)(4)
    later = posterior.for_units(
        2, evidence={"x": torch.tensor([1.0, 0.0]), "y": torch.tensor([2.5, 1.0])}
    )
    got = later.predict({"x": 0.0}).tensor("y", world="counterfactual")
    torch.testing.assert_close(got, torch.tensor([[0.5, 1.0]]), rtol=1e-5, atol=1e-5)


def test_the_first_people_are_unchanged_by_those_who_come_later() -> None:
    posterior = fitted(50)
    before = posterior.predict({"x": 0.0}).tensor("y", world="counterfactual")
    posterior.for_units(torch.zeros(1), evidence={"x": torch.tensor([2.0])}).predict()
    assert torch.equal(posterior.predict({"x": 0.0}).tensor("y", world="counterfactual"), before)


def test_new_people_are_reproducible_and_leave_the_generator_alone() -> None:
    posterior = fitted(50)
    state = torch.get_rng_state()
    a, b = (
        posterior.for_units(torch.zeros(1), evidence={"x": torch.tensor([2.0])})
        .predict()
        .tensor("y", world="factual")
        for _ in range(2)
    )
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), state)


# --- Per unit -----------------------------------------------------------------------------------


def test_a_discrete_noise_is_each_units_own() -> None:
    """Two people with the same record have noises of their own: their counterfactuals are independent coins."""

    def model() -> None:
        with pyro.plate("people", 2):
            x = pyro.sample("x", dist.Bernoulli(0.5))
            pyro.sample("y", dist.Bernoulli(0.4 + 0.3 * x))

    worlds = cp.counterfactual(
        model, {"x": 0.0}, {"x": torch.ones(2), "y": torch.ones(2)}, num_samples=20_000, seed=0
    )()
    zero = (worlds.tensor("y", world="counterfactual") == 0).double()
    np.testing.assert_allclose(zero.mean(0), 3 / 7, atol=4 * 0.5 / math.sqrt(20_000))
    assert float((zero[:, 0] * zero[:, 1]).mean()) == pytest.approx(
        (3 / 7) ** 2, abs=4 * 0.5 / math.sqrt(20_000)
    )


def test_a_unit_does_not_depend_on_who_else_is_asked_about() -> None:
    """Independent people: one person's exact answer is the same in any company."""

    def model(n: int) -> None:
        with pyro.plate("people", n):
            x = pyro.sample("x", dist.Exponential(1.0))
            pyro.sample("y", N(x**2, 1.0))

    alone = cp.counterfactual(model, {"x": 3.0}, {"x": X.abs()[:1], "y": Y[:1]})(1)
    together = cp.counterfactual(model, {"x": 3.0}, {"x": X.abs(), "y": Y})(4)
    torch.testing.assert_close(
        alone.tensor("y", world="counterfactual")[:, 0],
        together.tensor("y", world="counterfactual")[:, 0],
    )


def test_units_that_influence_each_other() -> None:
    """Setting one person's x moves the next person's y, through the program and not through the weights."""

    def model() -> None:
        with pyro.plate("people", 4):
            x = pyro.sample("x", N(0.0, 1.0))
            pyro.sample("y", N(x + torch.cat([torch.zeros(1), x[:-1]]), 1.0))

    treated = torch.tensor([False, True, False, False])
    worlds = cp.counterfactual(model, {"x": cp.where(treated, cp.shift(1.0))}, {"x": X, "y": Y})()
    moved = worlds.tensor("y", world="counterfactual")[0] - Y
    torch.testing.assert_close(moved, torch.tensor([0.0, 1.0, 1.0, 0.0]), rtol=1e-5, atol=1e-5)
