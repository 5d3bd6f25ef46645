"""Laplace importance sampling against quadrature, conjugate posteriors and brute force; and where it must say no."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import reference
import torch
from torch.distributions.transforms import AffineTransform, SigmoidTransform

import causalppl as cp
from causalppl.inference.coordinates import _bijection, _IntoRanges
from causalppl.inference.laplace import fit_laplace
from causalppl.structural.form import StructuralForm
from models import confounded_treatment

N = dist.Normal
LAPLACE = cp.ImportanceSampling("laplace")


def latents(
    model: Any, evidence: Any = None, *args: Any, draws: int = 4000
) -> dict[str, np.ndarray]:
    posterior = cp.abduct(model, evidence, method=LAPLACE, num_samples=draws, seed=0)(*args)
    return {n: v.double().numpy() for n, v in posterior.latents.items()}


def confounder_by_quadrature(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and sd of each unit's z, on a grid of 4,001 points."""
    z = np.linspace(-7, 7, 4001)
    sign = np.where(x[:, None] > 0.5, 1, -1)
    logs = -(z**2) / 2 - np.log1p(np.exp(-sign * z))
    logs = logs - (y[:, None] - (x[:, None] * (1 + z) + z)) ** 2 / (2 * 0.5**2)
    weights = np.exp(logs - logs.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    mean = weights @ z
    return mean, np.sqrt(weights @ z**2 - mean**2)


def test_the_latent_confounder_of_a_hundred_units() -> None:
    args, evidence = confounded_treatment.data()
    mean, sd = confounder_by_quadrature(*(evidence[s].double().numpy() for s in "xy"))
    method = LAPLACE
    posterior = cp.abduct(
        confounded_treatment.model, evidence, method=method, num_samples=1000, seed=0
    )(*args)
    z = posterior.latents["z"].double().numpy()
    # 1,000 independent draws of sd .38 have an RMSE of .0120 in the mean, .0085 in the sd
    assert np.sqrt(((z.mean(0) - mean) ** 2).mean()) < 0.015
    assert np.sqrt(((z.std(0) - sd) ** 2).mean()) < 0.012
    diagnostics = posterior.predict().diagnostics
    assert tuple(diagnostics.ess.dims) == tuple(diagnostics.pareto_k.dims) == ("units",)
    assert float(diagnostics.ess.min()) > 3000 and float(diagnostics.pareto_k.max()) < 0.3
    # units are independent a posteriori, and so are their draws
    assert np.abs(np.corrcoef(z.T) - np.eye(100)).mean() < 0.04


def test_the_choice_goes_from_the_prior_to_laplace_and_says_why() -> None:
    args, evidence = confounded_treatment.data()
    posterior = cp.abduct(confounded_treatment.model, evidence, num_samples=200, seed=0)(*args)
    diagnostics = posterior.predict().diagnostics
    assert diagnostics.method == "ImportanceSampling(laplace)"
    assert "draws from the prior weigh badly" in diagnostics.why


@pytest.mark.slow
def test_the_choice_goes_from_laplace_to_nuts_and_says_why() -> None:
    """A ring: the posterior's density is the same all around, so a Student law at one point of it weighs badly."""

    def ring() -> None:
        z = pyro.sample("z", N(torch.zeros(6), 1.0).to_event(1))
        pyro.sample("y", N(z.norm(), 0.2), obs=torch.tensor(3.0))

    diagnostics = cp.abduct(ring, num_samples=4000, seed=0)().predict().diagnostics
    assert diagnostics.method.startswith("NUTS")
    assert "too many for draws from the prior" in diagnostics.why
    assert "a Laplace approximation weigh" in diagnostics.why


def test_two_modes_far_apart_are_both_found() -> None:
    """y = z ** 2 + noise leaves the sign open; draws around one mode alone would look perfect."""
    y = torch.tensor([1.0, 4.0, 9.0])

    def model() -> None:
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(0.5, 1.5))
            pyro.sample("y", N(z**2, 0.05), obs=y)

    z = latents(model)["z"]
    for i, seen in enumerate(y.tolist()):
        weight, _ = reference.quadrature(
            lambda t, seen=seen: -((t - 0.5) ** 2) / 4.5 - (seen - t**2) ** 2 / 0.005,
            lambda t: (t > 0).astype(float),
            low=-5,
            high=5,
        )
        assert (z[:, i] > 0).mean() == pytest.approx(weight, abs=4 * 0.5 / math.sqrt(2000))


def test_conjugate_posteriors_of_constrained_latents_per_unit() -> None:
    """Gamma-Poisson and Beta-binomial, a unit each."""
    counts, wins = torch.tensor([0.0, 3.0, 11.0]), torch.tensor([1.0, 0.0, 9.0])

    def model() -> None:
        with pyro.plate("units", 3):
            rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
            share = pyro.sample("share", dist.Beta(2.0, 3.0))
            pyro.sample("counts", dist.Poisson(rate), obs=counts)
            pyro.sample("wins", dist.Binomial(10, share), obs=wins)

    found = latents(model)
    rate = counts.numpy() + 2
    np.testing.assert_allclose(found["rate"].mean(0), rate / 2, atol=4 * 1.8 / math.sqrt(2500))
    np.testing.assert_allclose(found["rate"].std(0), np.sqrt(rate) / 2, rtol=0.08)
    a, b = wins.numpy() + 2, 13 - wins.numpy()
    np.testing.assert_allclose(found["share"].mean(0), a / (a + b), atol=0.012)
    sd = np.sqrt(a * b / (a + b) ** 2 / (a + b + 1))
    np.testing.assert_allclose(found["share"].std(0), sd, rtol=0.08)


def test_a_simplex_against_its_conjugate_posterior() -> None:
    def model() -> None:
        with pyro.plate("people", 2):
            p = pyro.sample("p", dist.Dirichlet(torch.tensor([1.0, 2.0, 3.0])))
            seen = torch.tensor([[0, 0, 0, 0, 2], [2, 2, 2, 2, 2]])
            once = dist.Categorical(p.unsqueeze(-2).expand(2, 5, 3))
            pyro.sample("seen", once.to_event(1), obs=seen)

    p = latents(model)["p"]
    assert p.shape == (4000, 2, 3)
    alpha = np.array([[5.0, 2, 4], [1, 2, 8]])
    np.testing.assert_allclose(p.mean(0), alpha / 11, atol=0.012)
    share = alpha / 11
    np.testing.assert_allclose(p.std(0), np.sqrt(share * (1 - share) / 12), rtol=0.1)


def test_nested_plates_have_weights_for_each_group() -> None:
    """Groups hold members; each group's latents, the members' included, are one unit."""
    y = torch.tensor([[0.5, 1.5], [2.0, 2.5], [-1.0, 0.0]])

    def model() -> None:
        with pyro.plate("groups", 3, dim=-2):
            level = pyro.sample("level", N(0.0, 1.0))
            with pyro.plate("members", 2, dim=-1):
                z = pyro.sample("z", N(level, 0.5))
                pyro.sample("y", N(z, 0.3), obs=y)

    posterior = cp.abduct(model, method=LAPLACE, num_samples=4000, seed=0)()
    diagnostics = posterior.predict().diagnostics
    assert dict(diagnostics.ess.sizes) == {"groups": 3}
    level, z = (posterior.latents[s].double().numpy() for s in ("level", "z"))
    prior = np.array([[1, 1, 1], [1, 1.25, 1], [1, 1, 1.25]])
    for g in range(3):
        design = np.array([[0, 1, 0], [0, 0, 1]])
        mean, cov = reference.normal_posterior(np.zeros(3), prior, design, 0.3, y[g].numpy())
        draws = np.column_stack([level[:, g, 0], z[:, g]])
        np.testing.assert_allclose(draws.mean(0), mean, atol=4 * 0.45 / math.sqrt(2500))
        np.testing.assert_allclose(np.cov(draws.T), cov, atol=0.025)


def test_crossed_plates_whose_latents_are_all_in_both() -> None:
    y = torch.tensor([[0.5, 1.5], [2.0, 2.5], [-1.0, 0.0]])

    def model() -> None:
        with pyro.plate("rows", 3, dim=-2), pyro.plate("columns", 2, dim=-1):
            z = pyro.sample("z", N(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("y", N(z.sum(-1), 1.0), obs=y)

    posterior = cp.abduct(model, method=LAPLACE, num_samples=4000, seed=0)()
    assert dict(posterior.predict().diagnostics.ess.sizes) == {"rows": 3, "columns": 2}
    z = posterior.latents["z"].double().numpy()
    np.testing.assert_allclose(z.mean(0), (y / 3)[..., None].expand(3, 2, 2), atol=0.06)
    between = np.array([np.corrcoef(z[:, i, j].T)[0, 1] for i in range(3) for j in range(2)])
    np.testing.assert_allclose(between, -0.5, atol=0.06)  # covariance I - 11' / 3


def test_units_that_see_each_other_are_fitted_jointly() -> None:
    y = torch.tensor([1.0, 0.5, -0.5])

    def model() -> None:
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(0.0, 1.0))
            pyro.sample("y", N(z.cumsum(0), 0.2), obs=y)

    mean, cov = reference.normal_posterior(
        np.zeros(3), np.eye(3), np.tril(np.ones((3, 3))), 0.2, y.numpy()
    )
    posterior = cp.abduct(model, method=LAPLACE, num_samples=4000, seed=0)()
    assert "jointly" in posterior.predict().diagnostics.why
    z = posterior.latents["z"].double().numpy()
    np.testing.assert_allclose(z.mean(0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(z.T), cov, atol=0.01)


def test_missing_entries_keep_what_is_known() -> None:
    x, y = torch.tensor([1.0, math.nan, math.nan]), torch.tensor([2.0, 2.0, math.nan])

    def model() -> None:
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(0.0, 1.0))
            first = pyro.sample("x", N(z, 1.0))
            pyro.sample("y", N(first, 0.5))

    found = latents(model, {"x": x, "y": y})
    prior = np.array([[1.0, 1, 1], [1, 2, 2], [1, 2, 2.25]])
    assert (found["x"][:, 0] == 1).all() and (found["y"][:, :2] == 2).all()
    assert found["z"][:, 0].mean() == pytest.approx(0.5, abs=0.05)
    assert found["x"][:, 1].mean() == pytest.approx(2 * 2 / 2.25, abs=0.05)
    assert found["x"][:, 1].var() == pytest.approx(2 - 4 / 2.25, rel=0.12)
    free = np.cov(np.stack([found[s][:, 2] for s in "zxy"]))
    np.testing.assert_allclose(free, prior, atol=0.3)


def test_a_partly_known_vector_whose_entries_depend_on_each_other() -> None:
    """z ~ N(0, [[1, .8], [.8, 1]]), its first entry seen: the second is N(.8 z1, .36)."""
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])

    def model() -> None:
        with pyro.plate("units", 2):
            pyro.sample("z", dist.MultivariateNormal(torch.zeros(2), covariance))

    seen = torch.tensor([[1.5, math.nan], [math.nan, -1.0]])
    z = latents(model, {"z": seen})["z"]
    assert (z[:, 0, 0] == 1.5).all() and (z[:, 1, 1] == -1).all()
    assert z[:, 0, 1].mean() == pytest.approx(1.2, abs=0.04)
    assert z[:, 1, 0].mean() == pytest.approx(-0.8, abs=0.04)
    assert z[:, 0, 1].std() == pytest.approx(0.6, rel=0.08)


def test_a_range_against_quadrature() -> None:
    """z ~ N(0, 1) known to lie in [0.5, 2], seen through y = z + noise."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 0.5), obs=torch.tensor(0.0))

    z = latents(model, {"z": cp.Interval(0.5, 2.0)})["z"]
    mean, sd = reference.quadrature(
        lambda t: -(t**2) / 2 - t**2 / 0.5, lambda t: t, low=0.5, high=2.0
    )
    assert z.min() >= 0.5 and z.max() <= 2
    assert z.mean() == pytest.approx(mean, abs=4 * sd / math.sqrt(2000))
    assert z.std() == pytest.approx(sd, rel=0.08)


def test_a_parameter_and_its_units_have_their_joint_posterior() -> None:
    y = torch.tensor([2.0, 1.0, 3.0])

    def model() -> None:
        theta = pyro.sample("theta", N(0.0, 1.0))
        with pyro.plate("units", 3):
            z = pyro.sample("z", N(theta, 1.0))
            pyro.sample("y", N(z, 1.0), obs=y)

    prior = np.ones((4, 4)) + np.diag([0.0, 1, 1, 1])
    design = np.hstack([np.zeros((3, 1)), np.eye(3)])
    mean, cov = reference.normal_posterior(np.zeros(4), prior, design, 1.0, y.numpy())
    found = latents(model)
    draws = np.column_stack([found["theta"], found["z"]])
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(draws.T), cov, atol=0.06)


def test_evidence_far_in_the_tail_which_draws_from_the_prior_cannot_reach() -> None:
    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 0.01), obs=torch.tensor(8.0))

    with pytest.raises(cp.errors.InferenceError, match="laplace"):
        cp.abduct(model, method=cp.ImportanceSampling(), seed=0)()
    z = latents(model)["z"]
    assert z.mean() == pytest.approx(8 / 1.0001, abs=4 * 0.01 / math.sqrt(2000))
    assert z.std() == pytest.approx(0.01, rel=0.06)


def test_tails_as_heavy_as_cauchys_do_not_break_the_weights() -> None:
    """Two Cauchy observations and a flat-ish prior: the posterior's tails fall like t ** -4."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 100.0))
        with pyro.plate("seen", 2):
            pyro.sample("y", dist.Cauchy(z, 1.0), obs=torch.tensor([0.5, -0.5]))

    posterior = cp.abduct(model, method=LAPLACE, num_samples=4000, seed=0)()
    assert posterior.predict().diagnostics.pareto_k < 0.7
    z = posterior.latents["z"].double().numpy()
    inside, _ = reference.quadrature(
        lambda t: -np.log1p((t - 0.5) ** 2) - np.log1p((t + 0.5) ** 2),
        lambda t: (np.abs(t) < 1).astype(float),
        low=-200,
        high=200,
    )
    assert (np.abs(z) < 1).mean() == pytest.approx(inside, abs=4 * 0.5 / math.sqrt(2500))


def test_the_proposal_integrates_to_one_and_its_draws_have_its_density() -> None:
    """The mixture's density on a grid, and the share of its draws below a point."""

    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.5))
        pyro.sample("y", N(z**2, 0.5), obs=torch.tensor(4.0))

    proposal, _ = fit_laplace(StructuralForm(model, (), {}, None, 0), "test")
    assert len(proposal.modes) == 2
    grid = torch.linspace(-300, 300, 600_001, dtype=torch.float64)
    density = proposal.log_prob(grid.float().unsqueeze(-1)).double().exp().numpy()
    step = float(grid[1] - grid[0])
    assert density.sum() * step == pytest.approx(1.0, abs=2e-3)
    vectors, log_q = proposal.draw(20_000, seed=1)
    torch.testing.assert_close(log_q, proposal.log_prob(vectors))
    below = density[grid.numpy() < 1.9].sum() * step
    share = float((vectors[:, 0] < 1.9).float().mean())
    assert share == pytest.approx(below, abs=4 * 0.5 / math.sqrt(20_000))


def test_it_is_reproducible_and_leaves_the_generator_alone() -> None:
    args, evidence = confounded_treatment.data()

    def run() -> torch.Tensor:
        abducted = cp.abduct(
            confounded_treatment.model, evidence, method=LAPLACE, num_samples=50, seed=5
        )
        return abducted(*args).latents["z"]

    before = torch.get_rng_state()
    assert torch.equal(run(), run())
    assert torch.equal(before, torch.get_rng_state())


def test_a_program_that_runs_row_by_row() -> None:
    def model() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        level = z if float(z) > 0 else 2 * z
        pyro.sample("y", N(level, 0.5), obs=torch.tensor(1.0))

    method = cp.ImportanceSampling("laplace", num_proposals=400)
    with pytest.warns(cp.errors.ExecutorWarning):
        posterior = cp.abduct(model, method=method, num_samples=400, seed=0)()
    mean, _ = reference.quadrature(
        lambda t: -(t**2) / 2 - (1 - np.where(t > 0, t, 2 * t)) ** 2 / 0.5,
        lambda t: t,
        low=-5,
        high=5,
    )
    assert float(posterior.latents["z"].mean()) == pytest.approx(mean, abs=0.12)


def discrete() -> None:
    k = pyro.sample("k", dist.Poisson(3.0))
    z = pyro.sample("z", N(k, 1.0))
    pyro.sample("y", N(z, 1.0), obs=torch.tensor(1.0))


def wide() -> None:
    z = pyro.sample("z", N(torch.zeros(201), 1.0).to_event(1))
    pyro.sample("y", N(z.sum(), 1.0), obs=torch.tensor(1.0))


def ranged_function() -> None:
    z = pyro.sample("z", N(0.0, 1.0))
    pyro.deterministic("square", z**2)


@pytest.mark.parametrize(
    ("model", "evidence", "says"),
    [
        (discrete, None, r"'k' .*not finite"),
        (wide, None, "201 dimensions.*cp.NUTS"),
        (ranged_function, {"square": cp.Interval(1.0, 2.0)}, "'square'.*no density"),
    ],
)
def test_what_it_cannot_serve(model: Any, evidence: Any, says: str) -> None:
    with pytest.raises(cp.errors.MethodError, match=says):
        cp.abduct(model, evidence, method=LAPLACE, seed=0)()


def test_an_unknown_proposal() -> None:
    with pytest.raises(cp.errors.MethodError, match="'prior', 'laplace' or a Pyro guide"):
        cp.ImportanceSampling("posterior")


def test_coordinates_of_ranges_and_of_transformed_laws() -> None:
    """Onto the support and back, with the right Jacobian and finite gradients, however far out."""
    low = torch.tensor([-1.0, 2.0, -torch.inf, -torch.inf], dtype=torch.float64)
    high = torch.tensor([3.0, torch.inf, 0.5, torch.inf], dtype=torch.float64)
    shifted = dist.TransformedDistribution(
        dist.Exponential(torch.ones(4, dtype=torch.float64)), [AffineTransform(1.0, 2.0)]
    )
    logit_uniform = dist.TransformedDistribution(
        dist.Uniform(torch.zeros(4, dtype=torch.float64), 1.0), [SigmoidTransform().inv]
    )
    laws = [_IntoRanges(low, high), _bijection(shifted), _bijection(logit_uniform)]
    laws.append(_bijection(shifted.to_event(1)))
    for transform in laws:
        for size in (0.3, 3.0):
            x = (size * torch.tensor([0.7, -0.4, 0.9, -1.0])).double().requires_grad_()
            y = transform(x)
            jacobian = torch.autograd.functional.jacobian(transform, x).diagonal().abs().log()
            found = transform.log_abs_det_jacobian(x, y)
            total = jacobian.sum() if found.dim() == 0 else jacobian
            torch.testing.assert_close(found, total)
            torch.testing.assert_close(transform.inv(y), x)
    far = torch.tensor([800.0, 1.0, 1.0, 800.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(_IntoRanges(low, high)(far).sum(), far)
    assert bool(torch.isfinite(gradient).all())
    assert bool((_bijection(shifted)(torch.randn(4).double()) > 1).all())


@pytest.mark.parametrize("scale", [2.0, -2.0])
def test_a_latent_law_whose_support_torch_does_not_know(scale: float) -> None:
    """x = 1 + scale e with e ~ Exponential(1): torch says that its support is the real line."""
    y = 1.0 + 0.4 * scale

    def model() -> None:
        law = dist.TransformedDistribution(dist.Exponential(1.0), [AffineTransform(1.0, scale)])
        x = pyro.sample("x", law)
        pyro.sample("y", dist.Normal(x, 0.5), obs=torch.tensor(y))

    e = torch.linspace(0, 12, 200_001, dtype=torch.float64)
    weights = (-e - 0.5 * ((y - 1 - scale * e) / 0.5) ** 2).exp()
    mean = float((weights * e).sum() / weights.sum())
    sd = float(((weights * (e - mean) ** 2).sum() / weights.sum()).sqrt())
    method = cp.ImportanceSampling("laplace")
    posterior = cp.abduct(model, method=method, num_samples=4000, seed=0)()
    found = (posterior.latents["x"].double() - 1) / scale
    assert float(found.min()) > 0
    assert float(found.mean()) == pytest.approx(mean, abs=4.5 * sd / 4000**0.5 * 1.5)
    assert float(found.std()) == pytest.approx(sd, rel=0.08)
