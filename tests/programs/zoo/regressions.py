"""Regressions: one outcome for each unit, of every family that people use."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule, PyroSample
from torch.nn import functional

from .entry import Entry, normal_data, uniform_data

N = dist.Normal

X = normal_data(20, 6)
TABLE = normal_data(21, 6, 3)


def logistic(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with pyro.plate("coefficients", x.shape[1]):
        beta = pyro.sample("beta", N(0.0, 1.0))
    bias = pyro.sample("bias", N(0.0, 1.0))
    with pyro.plate("units", len(x)):
        return pyro.sample("y", dist.Bernoulli(logits=x @ beta + bias), obs=y)


def poisson_with_offset(x: torch.Tensor, exposure: torch.Tensor, y: torch.Tensor) -> None:
    a = pyro.sample("a", N(1.0, 0.5))
    b = pyro.sample("b", N(0.0, 0.5))
    with pyro.plate("units", len(x)):
        rate = pyro.deterministic("rate", exposure * torch.exp(a + b * x))
        pyro.sample("y", dist.Poisson(rate), obs=y)


def negative_binomial(x: torch.Tensor, y: torch.Tensor) -> None:
    a = pyro.sample("a", N(1.0, 0.5))
    concentration = pyro.sample("concentration", dist.Exponential(1.0))
    with pyro.plate("units", len(x)):
        mean = torch.exp(a + 0.3 * x)
        logits = torch.log(mean) - torch.log(concentration)
        pyro.sample("y", dist.NegativeBinomial(concentration, logits=logits), obs=y)


def gamma_poisson(x: torch.Tensor, y: torch.Tensor) -> None:
    a = pyro.sample("a", N(1.0, 0.5))
    with pyro.plate("units", len(x)):
        pyro.sample("y", dist.GammaPoisson(2.0, torch.exp(-a - 0.3 * x)), obs=y)


def zero_inflated(x: torch.Tensor, y: torch.Tensor) -> None:
    gate = pyro.sample("gate", dist.Beta(2.0, 2.0))
    b = pyro.sample("b", N(1.0, 0.5))
    with pyro.plate("units", len(x)):
        counts = dist.ZeroInflatedPoisson(torch.exp(b + 0.3 * x), gate=gate)
        pyro.sample("y", counts, obs=y)


def hurdle(x: torch.Tensor) -> None:
    """Whether anything was spent, and how much: zero where not."""
    b = pyro.sample("b", N(0.0, 1.0))
    with pyro.plate("units", len(x)):
        any_spent = pyro.sample("any", dist.Bernoulli(logits=b * x))
        amount = pyro.sample("amount", dist.LogNormal(1.0 + 0.5 * b * x, 0.5))
        pyro.deterministic("spent", torch.where(any_spent == 1, amount, torch.zeros(())))


def ordinal(x: torch.Tensor, y: torch.Tensor) -> None:
    b = pyro.sample("b", N(0.0, 1.0))
    first = pyro.sample("first", N(-1.0, 0.5))
    gaps = pyro.sample("gaps", dist.Exponential(torch.ones(2)).to_event(1))
    cutpoints = torch.cat([first.unsqueeze(-1), first + gaps.cumsum(-1)], -1)
    with pyro.plate("units", len(x)):
        pyro.sample("y", dist.OrderedLogistic(b * x, cutpoints), obs=y)


def robust(x: torch.Tensor, y: torch.Tensor) -> None:
    df = pyro.sample("df", dist.Gamma(2.0, 0.5))
    b = pyro.sample("b", N(0.0, 1.0))
    with pyro.plate("units", len(x)):
        pyro.sample("y", dist.StudentT(df + 1, b * x, 0.5), obs=y)


def multinomial_logit(x: torch.Tensor, y: torch.Tensor) -> None:
    weights = pyro.sample("weights", N(torch.zeros(3, 4), 1.0).to_event(2))
    with pyro.plate("units", len(x)):
        logits = torch.einsum("uk,kc->uc", x, weights)
        pyro.sample("y", dist.Categorical(logits=logits), obs=y)


def survival_with_mask(x: torch.Tensor, time: torch.Tensor, dead: torch.Tensor) -> None:
    """Weibull times; the censored ones by a masked site and a factor of the survival function."""
    shape = pyro.sample("shape", dist.Gamma(4.0, 2.0))
    b = pyro.sample("b", N(0.0, 0.5))
    with pyro.plate("patients", len(x)):
        scale = torch.exp(1.0 + b * x)
        with pyro.poutine.mask(mask=dead):
            pyro.sample("time", dist.Weibull(scale, shape), obs=time)
        pyro.factor("alive", torch.where(dead, torch.zeros(()), -((time / scale) ** shape)))


def accelerated_failure(x: torch.Tensor) -> None:
    """Event and censoring time; the earlier is seen."""
    b = pyro.sample("b", N(0.0, 0.5))
    with pyro.plate("patients", len(x)):
        event = pyro.sample("event", dist.LogNormal(b * x, 0.5))
        censored = pyro.sample("censored", dist.Exponential(0.5))
        pyro.deterministic("seen", torch.minimum(event, censored))
        pyro.deterministic("died", (event < censored).float())


def heteroskedastic(x: torch.Tensor, y: torch.Tensor) -> None:
    b = pyro.sample("b", N(0.0, 1.0))
    g = pyro.sample("g", N(0.0, 0.5))
    with pyro.plate("units", len(x)):
        pyro.sample("y", N(b * x, functional.softplus(g * x + 1.0)), obs=y)


def gamma_regression(x: torch.Tensor, y: torch.Tensor) -> None:
    b = pyro.sample("b", N(0.0, 0.5))
    with pyro.plate("units", len(x)):
        pyro.sample("y", dist.Gamma(2.0, 2.0 / torch.exp(b * x)), obs=y)


def beta_regression(x: torch.Tensor, y: torch.Tensor) -> None:
    b = pyro.sample("b", N(0.0, 0.5))
    with pyro.plate("units", len(x)):
        mean = torch.sigmoid(b * x)
        pyro.sample("y", dist.Beta(8 * mean, 8 * (1 - mean)), obs=y)


def median_regression(x: torch.Tensor, y: torch.Tensor) -> None:
    b = pyro.sample("b", dist.Cauchy(0.0, 0.5))
    with pyro.plate("units", len(x)):
        pyro.sample("y", dist.Laplace(b * x, 0.5), obs=y)


def quantile_regression(x: torch.Tensor, y: torch.Tensor) -> None:
    b = pyro.sample("b", dist.Logistic(0.0, 0.5))
    with pyro.plate("units", len(x)):
        pyro.sample("y", dist.AsymmetricLaplace(b * x, 1.0, 2.0), obs=y)


def truncated_by_hand(x: torch.Tensor) -> None:
    """A normal cut off below zero, through its distribution function."""
    b = pyro.sample("b", N(0.0, 1.0))
    standard = N(0.0, 1.0)
    with pyro.plate("units", len(x)):
        below = standard.cdf(-(1.0 + b * x))
        u = pyro.sample("u", dist.Uniform(0.0, 1.0))
        y = 1.0 + b * x + standard.icdf((below + u * (1 - below)).clamp(max=1 - 1e-6))
        pyro.deterministic("y", y.clamp(min=0.0))


def half_normal_folded(x: torch.Tensor, y: torch.Tensor) -> None:
    b = pyro.sample("b", N(0.0, 1.0))
    with pyro.plate("units", len(x)):
        pyro.sample("y", dist.FoldedDistribution(N(b * x, 0.5)), obs=y)


def gaussian_process(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    length = pyro.sample("length", dist.LogNormal(0.0, 0.3))
    apart = (x[:, None] - x[None, :]) / length
    kernel = torch.exp(-0.5 * apart**2) + 1e-2 * torch.eye(len(x))
    f = pyro.sample("f", dist.MultivariateNormal(torch.zeros(len(x)), kernel))
    with pyro.plate("units", len(x)):
        return pyro.sample("y", N(f, 0.2), obs=y)


class BayesianNetwork(PyroModule):
    """A small network with a prior on every weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = PyroModule[torch.nn.Linear](3, 4)
        self.first.weight = PyroSample(N(0.0, 1.0).expand([4, 3]).to_event(2))
        self.first.bias = PyroSample(N(0.0, 1.0).expand([4]).to_event(1))
        self.last = PyroModule[torch.nn.Linear](4, 1)
        self.last.weight = PyroSample(N(0.0, 1.0).expand([1, 4]).to_event(2))
        self.last.bias = PyroSample(N(0.0, 1.0).expand([1]).to_event(1))

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        sigma = pyro.sample("sigma", dist.Gamma(2.0, 4.0))
        mean = self.last(torch.tanh(self.first(x))).squeeze(-1)
        with pyro.plate("units", x.shape[0]):
            pyro.sample("y", N(mean, sigma), obs=y)
        return mean


def regression_by_mixture(x: torch.Tensor, y: torch.Tensor) -> None:
    """Two lines, and a marginal mixture for each unit."""
    slopes = pyro.sample("slopes", N(torch.tensor([-1.0, 1.0]), 0.5).to_event(1))
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(2)))
    with pyro.plate("units", len(x)):
        lines = N(x.unsqueeze(-1) * slopes, 0.3)
        chosen = dist.Categorical(weights.expand(len(x), 2))
        pyro.sample("y", dist.MixtureSameFamily(chosen, lines), obs=y)


def wind_direction(x: torch.Tensor, y: torch.Tensor) -> None:
    b = pyro.sample("b", N(0.0, 1.0))
    with pyro.plate("days", len(x)):
        loc = 2 * torch.atan(b * x)
        pyro.sample("angle", dist.VonMises(loc, 3.0), obs=y)


def angles_from_above() -> None:
    """An angle at the root of the program: no mechanism is needed where its parents stay."""
    angle = pyro.sample("angle", dist.VonMises(0.0, 2.0))
    speed = pyro.sample("speed", dist.Weibull(5.0, 2.0))
    east = pyro.deterministic("east", speed * torch.cos(angle))
    pyro.sample("drift", N(torch.stack([east, speed * torch.sin(angle)]), 0.1).to_event(1))


def mismeasured(x: torch.Tensor, y: torch.Tensor) -> None:
    b = pyro.sample("b", N(0.0, 1.0))
    with pyro.plate("units", len(x)):
        truth = pyro.sample("truth", N(0.0, 1.0))
        pyro.sample("measured", N(truth, 0.5), obs=x)
        pyro.sample("y", N(b * truth, 0.5), obs=y)


def piecewise_basis(x: torch.Tensor, y: torch.Tensor) -> None:
    """A matrix of hinge functions built inside, times coefficients that follow a random walk."""
    knots = torch.linspace(-1, 1, 4)
    steps = pyro.sample("steps", N(torch.zeros(4), 0.5).to_event(1))
    basis = (x.unsqueeze(-1) - knots).clamp(min=0)
    with pyro.plate("units", len(x)):
        pyro.sample("y", N(basis @ torch.cumsum(steps, 0), 0.3), obs=y)


def seemingly_unrelated(x: torch.Tensor, y: torch.Tensor) -> None:
    """Two outcomes with correlated errors."""
    b = pyro.sample("b", N(torch.zeros(2), 1.0).to_event(1))
    rho = pyro.sample("rho", dist.Uniform(-0.9, 0.9))
    one = torch.ones(())
    covariance = torch.stack([torch.stack([one, rho]), torch.stack([rho, one])])
    with pyro.plate("units", len(x)):
        mean = x.unsqueeze(-1) * b
        pyro.sample("y", dist.MultivariateNormal(mean, covariance), obs=y)


def probit_by_threshold(x: torch.Tensor) -> None:
    b = pyro.sample("b", N(1.0, 0.5))
    with pyro.plate("units", len(x)):
        utility = pyro.sample("utility", N(b * x, 1.0))
        pyro.deterministic("buys", utility > 0)


COUNTS = torch.tensor([2.0, 0.0, 5.0, 1.0, 3.0, 2.0])
POSITIVE = uniform_data(22, 6) + 0.2
ANGLES = (uniform_data(23, 6) - 0.5) * 2 * math.pi

ENTRIES = (
    Entry(
        "logistic regression",
        logistic,
        {"beta": torch.tensor([9.0, -9.0, 9.0])},
        "y",
        args=(TABLE, (X > 0).float()),
        law="y",
    ),
    Entry(
        "Poisson with offset",
        poisson_with_offset,
        {"a": 3.0},
        "rate y",
        args=(X, POSITIVE, COUNTS),
        law="rate y",
    ),
    Entry("negative binomial", negative_binomial, {"a": 3.0}, "y", args=(X, COUNTS), law="y"),
    Entry("gamma-Poisson", gamma_poisson, {"a": 3.0}, "y", args=(X, COUNTS)),
    Entry("zero-inflated Poisson", zero_inflated, {"gate": 0.99}, "y", args=(X, COUNTS), law="y"),
    Entry("zero-inflated Poisson, rate", zero_inflated, {"b": 3.0}, "y", args=(X, COUNTS)),
    Entry("hurdle", hurdle, {"b": 3.0}, "any amount spent", "amount spent", args=(X,), law="spent"),
    Entry("ordinal", ordinal, {"b": 8.0}, "y", args=(X, torch.tensor([0, 1, 2, 3, 1, 2]))),
    Entry("robust Student", robust, {"df": 40.0}, "y", args=(X, X), law="y"),
    Entry(
        "multinomial logit",
        multinomial_logit,
        {"weights": 8 * normal_data(24, 3, 4)},
        "y",
        args=(TABLE, torch.tensor([0, 1, 2, 3, 1, 2])),
    ),
    Entry(
        "Weibull survival, censored by mask",
        survival_with_mask,
        {"b": 1.0},
        "time",
        args=(X, POSITIVE, X < 0.5),
    ),
    Entry(
        "two clocks, the earlier is seen",
        accelerated_failure,
        {"censored": 0.01},
        "seen died",
        "seen",
        args=(X,),
        law="seen died",
    ),
    Entry("heteroskedastic", heteroskedastic, {"g": 2.0}, "y", args=(X, X)),
    Entry("Gamma regression", gamma_regression, {"b": 2.0}, "y", args=(X, POSITIVE), law="y"),
    Entry("Beta regression", beta_regression, {"b": 2.0}, "y", args=(X, POSITIVE / 2)),
    Entry("median regression", median_regression, {"b": 2.0}, "y", args=(X, X)),
    Entry("quantile regression", quantile_regression, {"b": 2.0}, "y", args=(X, X)),
    Entry("truncated by hand", truncated_by_hand, {"b": 2.0}, "y", args=(X,), law="y"),
    Entry("folded normal", half_normal_folded, {"b": 2.0}, "y", args=(X, POSITIVE)),
    Entry("Gaussian process", gaussian_process, {"length": 0.4}, "f y", args=(X, X), law="f y"),
    Entry(
        "Bayesian neural network",
        BayesianNetwork(),
        {"first.weight": normal_data(25, 4, 3)},
        "y",
        args=(TABLE, X),
        law="y",
    ),
    Entry(
        "mixture of regressions",
        regression_by_mixture,
        {"slopes": torch.tensor([-3.0, 3.0])},
        "y",
        args=(X, X),
        law="y",
    ),
    Entry(
        "wind direction",
        wind_direction,
        {"b": 2.0},
        "angle",
        args=(X, ANGLES),
        needs=(dist.VonMises(0.0, 1.0),),
    ),
    Entry("angle at the root", angles_from_above, {"speed": 1.0}, "east drift"),
    Entry("angle set", angles_from_above, {"angle": 1.0}, "east drift"),
    Entry("mismeasured covariate", mismeasured, {"truth": 0.5}, "measured y", args=(X, X)),
    Entry("hinge functions", piecewise_basis, {"steps": normal_data(26, 4)}, "y", args=(X, X)),
    Entry("correlated outcomes", seemingly_unrelated, {"rho": 0.8}, "y", args=(X, TABLE[:, :2])),
    Entry(
        "probit, a boolean outcome",
        probit_by_threshold,
        {"b": 9.0},
        "utility buys",
        "utility",
        args=(X,),
        law="buys",
    ),
)
