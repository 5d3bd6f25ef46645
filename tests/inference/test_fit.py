"""cp.fit against closed forms and other algorithms: least squares, logistic regression, probabilistic PCA, EM."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import autoguide
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

import causalppl as cp

N = dist.Normal
GENERATOR = torch.Generator().manual_seed(7)
X = torch.randn(60, 3, generator=GENERATOR, dtype=torch.float64)
Y = X @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64) + 1
Y = Y + 0.7 * torch.randn(60, generator=GENERATOR, dtype=torch.float64)
WAVES = {"steps": 400, "schedule": "cosine", "learning_rate": 0.1, "seed": 0}


def regression(x: torch.Tensor) -> None:
    slopes = pyro.param("slopes", torch.zeros(3, dtype=torch.float64))
    intercept = pyro.param("intercept", torch.zeros((), dtype=torch.float64))
    scale = pyro.param("scale", torch.tensor(2.0).double(), constraint=constraints.positive)
    with pyro.plate("units", len(x)):
        pyro.sample("y", N(intercept + x @ slopes, scale))


def least_squares(x: torch.Tensor, y: torch.Tensor) -> dict[str, np.ndarray]:
    design = np.concatenate([x.numpy(), np.ones((len(x), 1))], 1)
    found = np.linalg.solve(design.T @ design, design.T @ y.numpy())
    scale = np.sqrt(np.mean((y.numpy() - design @ found) ** 2))
    return {"slopes": found[:3], "intercept": found[3], "scale": scale}


def check(found: cp.inference.fit.Fit, expected: dict[str, Any], atol: float = 1e-3) -> None:
    assert found.parameters.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found.parameters[name], value, rtol=0, atol=atol)


def test_least_squares() -> None:
    found = cp.fit(regression, {"y": Y}, **WAVES)(X)
    expected = least_squares(X, Y)
    check(found, expected, 1e-4)
    assert found.method == "maximum likelihood" and found.guide is None
    # the last loss is minus the log likelihood of a unit at its maximum, in closed form
    scale = float(expected["scale"])
    assert found.history.loss[-1] == pytest.approx(math.log(scale * math.sqrt(2 * math.pi)) + 0.5)
    # the program has them: a new person's counterfactual needs no more
    worlds = cp.counterfactual(found.model, {"y": 0.0}, {"y": [1.0]})(X[:1])
    assert worlds.tensor("y", world="factual") == 1.0
    assert pyro.get_param_store()["scale"].item() == pytest.approx(scale, abs=1e-4)


def test_it_stops_by_itself_and_says_when_it_could_not() -> None:
    found = cp.fit(regression, {"y": Y}, learning_rate=0.1, seed=0)(X)
    check(found, least_squares(X, Y), 2e-3)
    assert found.history.stopped == "settled" and found.history.steps < 3000
    pyro.clear_param_store()
    with pytest.warns(cp.errors.InferenceWarning, match="not settled after 20 steps"):
        cp.fit(regression, {"y": Y}, steps=20, seed=0)(X)


class Units(torch.utils.data.Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return len(Y)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": X[index], "y": Y[index]}


def in_files(path: Path) -> tuple[np.memmap[Any, Any], np.memmap[Any, Any]]:
    found = []
    for name, values in {"x": X.numpy(), "y": Y.numpy()}.items():
        file = np.memmap(path / name, mode="w+", dtype=np.float64, shape=values.shape)
        file[:] = values
        file.flush()
        found.append(np.memmap(path / name, mode="r", dtype=np.float64, shape=values.shape))
    return found[0], found[1]


def test_batches_of_arrays_files_and_datasets_are_the_same(tmp_path: Path) -> None:
    settings = WAVES | {"steps": 200, "batch_size": 20}
    x, y = in_files(tmp_path)
    runs: list[Callable[[], Any]] = [
        lambda: cp.fit(regression, {"y": Y}, **settings)(X),
        lambda: cp.fit(regression, {"y": y}, **settings)(x),
        lambda: cp.fit(regression, {"y": y, "x": x}, **settings)(),
        lambda: cp.fit(regression, Units(), **settings)(),
    ]
    found = []
    for run in runs:
        pyro.clear_param_store()
        found.append(run())
    check(found[0], least_squares(X, Y), 0.03)  # the noise of batches, which the rate leaves
    for other in found[1:]:
        assert other.history.loss == found[0].history.loss
        assert all(torch.equal(other.parameters[n], v) for n, v in found[0].parameters.items())


def test_a_loader_gives_its_own_batches(tmp_path: Path) -> None:
    loader = torch.utils.data.DataLoader(Units(), batch_size=25, shuffle=True)  # the last has 10
    settings = {"steps": 301, "schedule": "cosine", "learning_rate": 0.1, "seed": 0}
    found = cp.fit(regression, loader, **settings, check_every=50, checkpoint=tmp_path / "a")()
    check(found, least_squares(X, Y), 0.08)
    # epochs are shuffled anew, and a training that is taken up again sees the batches that it would have seen
    pyro.clear_param_store()
    count = 0

    def broken() -> dict[str, float]:
        nonlocal count
        count += 1
        if count == 5:  # after 200 steps: not at the end of an epoch of three batches
            raise KeyboardInterrupt
        return {}

    more = settings | {"check_every": 50, "checkpoint": tmp_path / "b"}
    with pytest.raises(KeyboardInterrupt):
        cp.fit(regression, loader, **more, monitors=broken)()
    pyro.clear_param_store()
    again = cp.fit(regression, loader, **more)()
    assert again.history.loss == found.history.loss


def test_a_plate_that_the_program_subsamples_itself() -> None:
    def model(x: torch.Tensor) -> None:
        slopes = pyro.param("slopes", torch.zeros(3, dtype=torch.float64))
        intercept = pyro.param("intercept", torch.zeros((), dtype=torch.float64))
        scale = pyro.param("scale", torch.tensor(2.0).double(), constraint=constraints.positive)
        with pyro.plate("units", len(x), subsample_size=20) as index:
            pyro.sample("y", N(intercept + x[index] @ slopes, scale))

    found = cp.fit(model, {"y": Y}, **WAVES)(X)
    check(found, least_squares(X, Y), 0.05)


def test_a_plate_of_all_units_is_cut() -> None:
    """The plate's size is a number; batches take their rows of it."""

    def model(count: int) -> None:
        rates = pyro.param("rates", torch.ones(2), constraint=constraints.positive)
        with pyro.plate("kinds", 2), pyro.plate("visits", count, dim=-2):
            pyro.sample("wait", dist.Exponential(rates))

    waits = dist.Exponential(torch.tensor([0.5, 2.0])).sample(torch.Size([40]))
    found = cp.fit(model, {"wait": waits}, batch_size=10, plate="visits", **WAVES)(40)
    np.testing.assert_allclose(found.parameters["rates"], 1 / waits.mean(0), rtol=0.05)


def test_logistic_regression_by_a_network_against_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    treated = (X[:, 0] - 0.5 * X[:, 1] + torch.linspace(-1.5, 1.5, 60) > 0).double()
    other = linear_model.LogisticRegression(C=np.inf, tol=1e-8).fit(X.numpy(), treated.numpy())
    network = nn.Linear(3, 1).double()

    def model(x: torch.Tensor) -> None:
        with pyro.plate("units", len(x)):
            pyro.sample("t", dist.Bernoulli(logits=network(x)[:, 0]))

    found = cp.fit(model, {"t": treated}, **WAVES)(X)
    np.testing.assert_allclose(found.parameters["Linear.weight"], other.coef_, atol=2e-3)
    np.testing.assert_allclose(found.parameters["Linear.bias"], other.intercept_, atol=2e-3)
    assert network.weight.grad is None and list(pyro.get_param_store()) == []


def test_missing_outcomes_are_left_out() -> None:
    y = Y.clone()
    y[::3] = math.nan
    kept = ~y.isnan()
    expected = least_squares(X[kept], Y[kept])
    check(cp.fit(regression, {"y": y}, **WAVES)(X), expected)

    def observed(x: torch.Tensor, y: torch.Tensor) -> None:
        with pyro.condition(data={"y": y}):
            regression(x)

    pyro.clear_param_store()
    check(cp.fit(observed, **WAVES)(X, y), expected)


def test_missing_entries_of_vectors() -> None:
    """Entries of a vector that are independent are left out one by one; whole vectors that are missing, of any law."""
    y = torch.stack([Y, -Y], 1)
    y[:20, 0] = math.nan
    y[30:, 1] = math.nan

    def model(law: Any) -> None:
        mean = pyro.param("mean", torch.zeros(2, dtype=torch.float64))
        with pyro.plate("units", len(y)):
            pyro.sample("y", law(mean))

    found = cp.fit(model, {"y": y}, **WAVES)(lambda mean: N(mean, 1.0).to_event(1))
    np.testing.assert_allclose(found.parameters["mean"], np.nanmean(y, 0), atol=1e-4)

    def together(mean: torch.Tensor) -> Any:
        return dist.MultivariateNormal(mean, torch.eye(2, dtype=torch.float64))

    with pytest.raises(cp.errors.MethodError, match="entries depend on each other"):
        cp.fit(model, {"y": y}, **WAVES)(together)
    pyro.clear_param_store()
    y[:20] = y[30:] = math.nan
    found = cp.fit(model, {"y": y}, **WAVES)(together)
    np.testing.assert_allclose(found.parameters["mean"], np.nanmean(y, 0), atol=1e-4)


def test_missing_covariates_are_integrated_out() -> None:
    """Of a bivariate normal: the likelihood of complete pairs and of single outcomes, maximised by scipy."""
    optimize = pytest.importorskip("scipy.optimize")
    x, y = X[:, 0], Y - X[:, 2]
    seen = x.clone()
    seen[::2] = math.nan
    kept = ~seen.isnan()

    def minus(theta: np.ndarray) -> float:
        mean, slope, log_spread, log_scale = torch.tensor(theta)
        spread, scale = log_spread.exp(), log_scale.exp()
        pairs = N(mean, spread).log_prob(x[kept]) + N(slope * x[kept], scale).log_prob(y[kept])
        alone = N(slope * mean, (slope**2 * spread**2 + scale**2).sqrt()).log_prob(y[~kept])
        return -float(pairs.sum() + alone.sum())

    expected = optimize.minimize(minus, np.zeros(4), method="BFGS").x

    def model() -> None:
        mean = pyro.param("mean", torch.zeros((), dtype=torch.float64))
        slope = pyro.param("slope", torch.zeros((), dtype=torch.float64))
        spread = pyro.param("spread", torch.ones((), dtype=torch.float64), constraints.positive)
        scale = pyro.param("scale", torch.ones((), dtype=torch.float64), constraints.positive)
        with pyro.plate("units", 60):
            x = pyro.sample("x", N(mean, spread))
            pyro.sample("y", N(slope * x, scale))

    found = cp.fit(model, {"x": seen, "y": y}, **(WAVES | {"learning_rate": 0.05}))()
    assert found.method == "evidence lower bound" and "'x'" in found.why
    values = [*expected[:2], *np.exp(expected[2:])]
    check(found, dict(zip(["mean", "slope", "spread", "scale"], values, strict=True)), 0.02)


# --- Latent variables --------------------------------------------------------------------------------------------------

FACTORS = torch.randn(200, 2, generator=GENERATOR) @ torch.tensor(
    [[2.0, 1.0, 0.0, -1.0], [0.0, 1.0, 1.5, 0.5]]
) + 0.5 * torch.randn(200, 4, generator=GENERATOR)


def principal(y: torch.Tensor) -> torch.Tensor:
    """The covariance that probabilistic PCA has at its maximum (Tipping and Bishop, 1999)."""
    values, vectors = torch.linalg.eigh(y.T @ y / len(y))
    noise = values[:2].mean()
    signal = vectors[:, 2:] * (values[2:] - noise)
    return signal @ vectors[:, 2:].T + noise * torch.eye(4)


def ppca(count: int) -> None:
    weights = pyro.param("weights", lambda: torch.randn(4, 2))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
    with pyro.plate("units", count):
        z = pyro.sample("z", N(0.0, 1.0).expand([2]).to_event(1))
        pyro.sample("y", N(z @ weights.T, scale).to_event(1))


class Encoder(nn.Module):
    """The posterior of probabilistic PCA is normal, with a mean that is linear in the data."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.factor = nn.Linear(4, 2), nn.Parameter(torch.eye(2))

    def forward(self, y: torch.Tensor) -> None:
        with pyro.plate("units", len(y)):
            law = dist.MultivariateNormal(self.mean(y), scale_tril=self.factor.tril())
            pyro.sample("z", law)


def covariance(found: cp.inference.fit.Fit) -> torch.Tensor:
    weights, scale = found.parameters["weights"], found.parameters["scale"]
    return weights @ weights.T + scale**2 * torch.eye(4)


def test_probabilistic_pca_without_a_guide() -> None:
    settings = WAVES | {"steps": 600, "learning_rate": 0.05}
    found = cp.fit(ppca, {"y": FACTORS}, **settings)(200)
    exact = principal(FACTORS)
    # a third of the standard error of the largest variance, 5 sqrt(2 / 200)
    torch.testing.assert_close(covariance(found), exact, rtol=0, atol=0.15)
    # at the maximum the bound is the log likelihood
    law = torch.distributions.MultivariateNormal(torch.zeros(4), exact)
    expected = -float(law.log_prob(FACTORS).mean())
    assert np.mean(found.history.loss[-100:]) == pytest.approx(expected, abs=0.03)
    assert "normal approximations" in found.why and "for each unit of units" in found.why


def test_probabilistic_pca_with_a_guide_in_batches() -> None:
    def model(y: torch.Tensor) -> None:
        with pyro.condition(data={"y": y}):
            ppca(len(y))

    guide = Encoder()
    settings = WAVES | {"steps": 600, "learning_rate": 0.05, "batch_size": 50, "held_out": 0.1}
    found = cp.fit(model, guide=guide, **settings)(FACTORS)
    torch.testing.assert_close(covariance(found), principal(FACTORS), rtol=0, atol=0.5)
    assert (
        found.history.best_step
        == min(zip(found.history.held_out, found.history.checks, strict=True))[1]
    )
    # the guide is the posterior that the fitted weights have, in closed form
    weights, scale = found.parameters["weights"], found.parameters["scale"]
    precision = weights.T @ weights / scale**2 + torch.eye(2)
    mean = FACTORS @ weights @ torch.linalg.inv(precision) / scale**2
    factor = guide.factor.detach().tril()
    torch.testing.assert_close(guide.mean(FACTORS).detach(), mean, rtol=0, atol=0.25)
    torch.testing.assert_close(factor @ factor.T, torch.linalg.inv(precision), rtol=0, atol=0.1)


def test_batches_of_units_that_have_latents_of_their_own() -> None:
    """Each unit's approximation is trained when its batch comes; two ways to write the plate."""
    settings = WAVES | {"steps": 200, "learning_rate": 0.1, "batch_size": 100}
    losses = []
    for guide in (None, autoguide.AutoNormal(ppca)):
        pyro.clear_param_store()
        found = cp.fit(ppca, {"y": FACTORS}, guide, **settings)(200)
        losses.append(np.mean(found.history.loss[-30:]))
    law = torch.distributions.MultivariateNormal(torch.zeros(4), principal(FACTORS))
    best = -float(law.log_prob(FACTORS).mean())
    assert best - 0.05 < losses[0] < best + 0.15
    assert best - 0.05 < losses[1] < best + 0.4  # independent entries


@pytest.mark.parametrize("batch_size", [None, 25])
def test_a_latent_that_all_units_share(batch_size: int | None) -> None:
    """An informative prior, so that it matters how often a batch counts; the evidence maximised on a grid."""
    y = 2 + 1.5 * torch.randn(100, generator=torch.Generator().manual_seed(3))

    def model() -> None:
        scale = pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
        mean = pyro.sample("mean", N(0.0, 0.1))
        with pyro.plate("units", 100):
            pyro.sample("y", N(mean, scale))

    grid = torch.linspace(1.2, 3.5, 1000)
    # y has the covariance scale^2 I + 0.01 11', whose eigenvectors are the mean and what is orthogonal to it
    along, across = 100 * y.mean() ** 2, ((y - y.mean()) ** 2).sum()
    log_evidence = -0.5 * (
        (grid**2 + 1).log() + along / (grid**2 + 1) + 99 * (grid**2).log() + across / grid**2
    )
    expected = float(grid[log_evidence.argmax()])
    steps = 500 if batch_size is None else 300
    settings = WAVES | {"steps": steps, "learning_rate": 0.05}
    found = cp.fit(model, {"y": y}, batch_size=batch_size, **settings)()
    assert float(found.parameters["scale"]) == pytest.approx(expected, abs=0.05)
    # with batches that counted once it would be far off: the mean would stay at its prior
    assert abs(expected - float((y**2).mean().sqrt())) > 0.2


MIXED = torch.cat([torch.linspace(-1.6, -0.4, 70), torch.linspace(1.0, 5.0, 30)])


def em(y: np.ndarray, rounds: int = 500) -> dict[str, np.ndarray]:
    """Dempster, Laird and Rubin (1977), for two normals."""
    share, mean, scale = np.array([0.5, 0.5]), np.array([-0.5, 1.0]), np.array([1.0, 1.0])
    for _ in range(rounds):
        heights = share / scale * np.exp(-0.5 * ((y[:, None] - mean) / scale) ** 2)
        parts = heights / heights.sum(1, keepdims=True)
        share = parts.mean(0)
        mean = (parts * y[:, None]).sum(0) / parts.sum(0)
        scale = np.sqrt((parts * (y[:, None] - mean) ** 2).sum(0) / parts.sum(0))
    return {"share": share, "mean": mean, "scale": scale}


def mixture() -> None:
    share = pyro.param("share", torch.tensor([0.5, 0.5]), constraint=constraints.simplex)
    mean = pyro.param("mean", torch.tensor([-0.5, 1.0]))
    scale = pyro.param("scale", torch.ones(2), constraint=constraints.positive)
    with pyro.plate("units", 100):
        kind = pyro.sample("kind", dist.Categorical(share))
        pyro.sample("y", N(mean[kind], scale[kind]))


def test_a_mixture_against_em() -> None:
    found = cp.fit(mixture, {"y": MIXED}, **(WAVES | {"steps": 400}))()
    check(found, em(MIXED.double().numpy()), 2e-3)
    assert found.method == "maximum likelihood" and "'kind'" in found.why


def test_a_mixture_in_batches_and_with_missing_outcomes() -> None:
    y = MIXED.clone()
    y[::10] = math.nan
    kept = y[~y.isnan()].double().numpy()
    settings = WAVES | {"steps": 100, "batch_size": 50}
    found = cp.fit(mixture, {"y": y}, **settings)()
    check(found, em(kept), 0.15)
    assert found.method == "maximum likelihood"


def test_finite_latents_of_another_plate_at_the_same_dim() -> None:
    """Two diseases and three symptoms: every symptom depends on both. The likelihood by listing all cases."""
    seen = torch.tensor([1.0, 0.0, 1.0])

    def model() -> None:
        rate = pyro.param("rate", torch.tensor(0.5), constraint=constraints.unit_interval)
        with pyro.plate("diseases", 2):
            ill = pyro.sample("ill", dist.Bernoulli(rate))
        with pyro.plate("symptoms", 3):
            pyro.sample("seen", dist.Bernoulli(0.1 + 0.4 * ill.sum()))

    found = cp.fit(model, {"seen": seen}, **WAVES)()
    rate = np.linspace(0.001, 0.999, 999)
    cases = [((1 - rate) ** 2, 0.1), (2 * rate * (1 - rate), 0.5), (rate**2, 0.9)]
    likelihood = sum(weight * p**2 * (1 - p) for weight, p in cases)
    assert float(found.parameters["rate"]) == pytest.approx(rate[likelihood.argmax()], abs=5e-3)


def test_missing_outcomes_of_latents_are_left_out() -> None:
    """Probabilistic PCA of the units that are there; those that are not have no approximations but of their latents."""
    y = FACTORS.clone()
    y[::4] = math.nan
    kept = FACTORS[~y.isnan().any(1)]
    found = cp.fit(ppca, {"y": y}, **(WAVES | {"learning_rate": 0.05}))(200)
    laws = [
        torch.distributions.MultivariateNormal(torch.zeros(4), c)
        for c in (covariance(found), principal(kept))
    ]
    reached, best = (float(law.log_prob(kept).mean()) for law in laws)
    assert best - 0.02 < reached < best + 1e-4
    assert "'z'" in found.why and "'y'" not in found.why


def test_a_guide_may_leave_out_finite_latents() -> None:
    """A point for the means and the prior's pull on it: the same maximum as a factor in a program without a guide."""

    def body(mean: torch.Tensor) -> None:
        with pyro.plate("units", 100):
            kind = pyro.sample("kind", dist.Categorical(torch.tensor([0.7, 0.3])))
            pyro.sample("y", N(mean[kind], 1.0))

    def latent() -> None:
        body(pyro.sample("mean", N(torch.zeros(2), 0.1).to_event(1)))

    def point() -> None:
        at = pyro.param("at", torch.tensor([-0.5, 1.0]))
        pyro.sample("mean", dist.Delta(at, event_dim=1))

    def penalised() -> None:
        mean = pyro.param("mean", torch.tensor([-0.5, 1.0]))
        pyro.factor("prior", N(0.0, 0.1).log_prob(mean).sum())
        body(mean)

    settings = WAVES | {"steps": 200}
    one = cp.fit(latent, {"y": MIXED}, point, **settings)()
    two = cp.fit(penalised, {"y": MIXED}, **settings)()
    torch.testing.assert_close(one.parameters["at"], two.parameters["mean"], rtol=0, atol=2e-3)
    assert "'kind' are summed out" in one.why


# --- What is learned and what is left --------------------------------------------------------------------------------


def test_modules_of_every_kind_are_learned_and_nothing_else_changes() -> None:
    class Law(PyroModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(()))
            self.scale = PyroParam(torch.tensor(2.0), constraint=constraints.positive)

        def forward(self) -> Any:
            return N(self.mean + frozen(torch.ones(1))[0], self.scale)

    frozen, law = nn.Linear(1, 1).requires_grad_(False), Law()
    pyro.param("other", torch.tensor(1.0))
    store, generator = pyro.get_param_store(), torch.get_rng_state()
    before = frozen.weight.clone()

    def model() -> None:
        with pyro.plate("units", 60):
            pyro.sample("y", law())

    y = Y.float()
    found = cp.fit(model, {"y": y}, **WAVES)()
    constant = float(frozen(torch.ones(1)).detach())
    assert float(law.mean.detach()) + constant == pytest.approx(float(y.mean()), abs=1e-3)
    assert float(law.scale.detach()) == pytest.approx(float(y.std(correction=0)), abs=1e-3)
    assert set(found.parameters) == {"mean", "scale"}
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(frozen.weight, before) and float(store["other"].detach()) == 1.0
    assert set(store.keys()) == {"other", "mean", "scale"}
    assert law.mean.grad is None


def test_networks_with_dropout_train_in_their_own_mode() -> None:
    network = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1)).double()
    seen = []
    network.register_forward_hook(lambda module, args, output: seen.append(module.training))

    def model(x: torch.Tensor) -> None:
        with pyro.plate("units", len(x)):
            pyro.sample("y", N(network(x)[:, 0], 1.0))

    settings = WAVES | {"steps": 20, "learning_rate": 0.01, "batch_size": 10}
    found = [cp.fit(model, {"y": Y}, **settings)(X)]
    assert seen[-20:] == [True] * 20 and network.training
    assert "Sequential.0.weight" in found[0].parameters


def test_an_amortized_guide_is_a_guide() -> None:
    def model(y: torch.Tensor) -> None:
        with pyro.condition(data={"y": y}):
            ppca(len(y))

    guide = cp.AmortizedGuide(model, flow="gaussian", width=8, seed=0)(FACTORS)
    settings = WAVES | {"steps": 20, "batch_size": 100, "learning_rate": 0.02}
    found = cp.fit(model, guide=guide, **settings)(FACTORS)
    assert found.history.loss[-1] < 0.8 * found.history.loss[0]
    assert any("amortized guide" in name for name in found.parameters)


def test_a_seed_reproduces() -> None:
    losses = []
    for seed in (1, 1, 2):
        pyro.clear_param_store()
        run = cp.fit(ppca, {"y": FACTORS[:20]}, steps=10, schedule="constant", seed=seed)
        losses.append(run(20).history.loss)
    assert losses[0] == losses[1] != losses[2]


def test_without_a_seed_a_training_is_taken_up_with_that_of_its_file(tmp_path: Path) -> None:
    settings = {"schedule": "constant", "batch_size": 20, "checkpoint": tmp_path / "file"}
    first = cp.fit(regression, {"y": Y}, steps=10, **settings)(X)
    whole = cp.fit(regression, {"y": Y}, steps=20, **settings)(X)
    assert whole.history.loss[:10] == first.history.loss and whole.history.steps == 20


def wrong_guide() -> None:
    pyro.sample("w", N(pyro.param("at", torch.zeros(())), 1.0))


def latent() -> None:
    z = pyro.sample("z", N(pyro.param("at", torch.zeros(())), 1.0))
    with pyro.plate("units", 60):
        x = pyro.sample("x", N(z, 1.0))
        pyro.sample("y", N(x, 1.0))


def single() -> None:
    with pyro.plate("units", 60):
        x = pyro.sample("x", N(pyro.param("at", torch.zeros(())), 1.0))
        pyro.sample("y", N(x, 1.0))


def counts() -> None:
    rate = pyro.param("rate", torch.ones(()), constraint=constraints.positive)
    with pyro.plate("units", 60):
        pyro.sample("y", N(pyro.sample("n", dist.Poisson(rate)), 1.0))


LOST = torch.where(torch.arange(60) % 2 == 0, math.nan, Y.float())


@pytest.mark.parametrize(
    ("model", "data", "more", "error", "says"),
    [
        (latent, {"y": Y, "x": Y}, {"guide": wrong_guide}, cp.errors.GuideMismatchError, "'z'.*'w'"),
        (latent, {"y": Y, "v": Y}, {}, cp.errors.UnknownSiteError, "no site 'v'"),
        (latent, {"y": Y[:7]}, {}, cp.errors.ShapeError, r"\(7,\)"),
        (latent, {"y": Y, "x": LOST}, {"guide": lambda: None}, cp.errors.GuideMismatchError, "'x', 'z'"),
        (latent, {"y": Y}, {"batch_size": 20}, cp.errors.MethodError, "unit by unit"),
        (latent, {"y": Y}, {"batch_size": 70}, cp.errors.MethodError, "at most that"),
        (latent, {"y": Y[:50]}, {"batch_size": 20}, cp.errors.MethodError, "no plate has the 50"),
        (latent, {"y": Y, "x": Y[:7]}, {"batch_size": 5}, cp.errors.MethodError, "'x': 7"),
        (latent, {"y": Y}, {"held_out": 0.1}, cp.errors.MethodError, "give batch_size="),
        (single, {"y": Y}, {"batch_size": 20, "held_out": 0.1}, cp.errors.MethodError, "no step trains"),
        (latent, {"y": Y}, {"held_out": 2.0}, cp.errors.MethodError, "held_out=2.0"),
        (latent, {"y": Y}, {"num_particles": 0}, cp.errors.MethodError, "num_particles=0"),
        (latent, {"y": Y}, {"guide": "auto"}, cp.errors.MethodError, "no Pyro guide"),
        (latent, [1.0, 2.0], {}, cp.errors.MethodError, "batch_size="),
        (latent, torch.utils.data.TensorDataset(Y), {"batch_size": 5}, cp.errors.EvidenceError, "each a mapping"),
        (counts, {"y": Y}, {}, cp.errors.MethodError, "discrete and not finite"),
        (wrong_guide, {"w": math.inf}, {}, cp.errors.SupportError, "infinite"),
    ],
)  # fmt: skip
def test_what_it_refuses(model: Any, data: Any, more: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        cp.fit(model, data, **({"steps": 5, "schedule": "constant", "seed": 0} | more))()


def test_a_program_without_parameters_has_nothing_to_learn() -> None:
    with pytest.raises(cp.errors.MethodError, match="nothing to train"):
        cp.fit(lambda: pyro.sample("x", N(0.0, 1.0)), {"x": 1.0}, seed=0)()


def test_a_loss_that_is_not_finite_ends_it_with_the_reason() -> None:
    def model() -> None:
        weight = pyro.param("weight", torch.tensor(0.5))
        pyro.factor(
            "entropy", -weight * weight.log()
        )  # it should be positive, and is drawn below zero

    with pytest.raises(cp.errors.TrainingError, match="fit: the loss is nan after") as caught:
        cp.fit(
            lambda: (model(), pyro.sample("x", N(pyro.param("weight"), 0.01))),
            {"x": -1.0},
            learning_rate=0.1,
            seed=0,
        )()
    assert 2 < len(caught.value.history.loss) < 100
    assert float(pyro.get_param_store()["weight"].detach()) < 0  # the step before it was taken
