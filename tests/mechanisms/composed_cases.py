"""Mixtures, compounds, wrappers, directions, matrices."""

from __future__ import annotations

import warnings
from typing import Any

import pyro.distributions as dist
import torch
from case_table import Parameters, add
from simple_cases import _LOWER, _OTHER


def mixture_of_normals(logits: Any, locs: Any, **options: Any) -> Any:
    """Two normals of scale 0.5."""
    return dist.MixtureSameFamily(
        dist.Categorical(logits=logits), dist.Normal(locs, torch.full_like(locs, 0.5)), **options
    )


def mixture_of_counts(probs: Any, rates: Any) -> Any:
    """Poisson components, whose zeros overlap."""
    return dist.MixtureSameFamily(dist.Categorical(probs), dist.Poisson(rates))


def mixture_of_vectors(probs: Any, locs: Any) -> Any:
    """Bivariate components, as an event."""
    components = dist.Normal(locs, torch.ones_like(locs)).to_event(1)
    return dist.MixtureSameFamily(dist.Categorical(probs), components)


def masked_mixture(mask: Any, loc: Any, rate: Any) -> Any:
    """A normal where the mask is false, an exponential where it is true."""
    return dist.MaskedMixture(mask, dist.Normal(loc, torch.ones_like(loc)), dist.Exponential(rate))


def folded(loc: Any, scale: Any) -> Any:
    """The absolute value of a normal."""
    return dist.FoldedDistribution(dist.Normal(loc, scale))


add(
    mixture_of_normals,
    {"logits": [0.3, 1.0], "locs": [0.0, 1.0]},
    {"logits": [2.0, 0.0], "locs": [3.0, -1.0]},
)
add(
    mixture_of_counts,
    {"probs": [0.3, 0.7], "rates": [0.3, 4.0]},
    {"probs": [1.0, 0.0], "rates": [3.0, 9.0]},
    draws=1000,
)
add(
    mixture_of_vectors,
    {"probs": [0.3, 0.7], "locs": [[0.0, 1.0], [2.0, -1.0]]},
    {"probs": [0.6, 0.4], "locs": [[0.0, 0.0], [1.0, 1.0]]},
)
add(
    masked_mixture,
    {"mask": [True, False], "loc": [0.0, 1.0], "rate": [1.0, 2.0]},
    {"mask": [False, False], "loc": [0.0, 1.0], "rate": [1.0, 2.0]},
)
add(folded, {"loc": 0.5, "scale": 1.0}, {"loc": -2.0, "scale": 0.7}, relative=False)
add(dist.ZeroInflatedPoisson, {"rate": 2.0, "gate": 0.3}, {"rate": 0.5, "gate": 0.9}, draws=1000)
add(
    dist.ZeroInflatedPoisson,
    {"rate": [2.0, 3.0], "gate_logits": [0.3, -20.0]},
    {"rate": [0.5, 1.0], "gate_logits": [0.9, 2.0]},
    "[2]",
    draws=1000,
)
add(
    dist.ZeroInflatedNegativeBinomial,
    {"total_count": 2.5, "probs": 0.7, "gate": 0.3},
    {"total_count": 1.5, "probs": 0.8, "gate": 0.1},
    draws=500,
)
add(
    dist.AsymmetricLaplace,
    {"loc": 1.0, "scale": 2.0, "asymmetry": 0.5},
    {"loc": 0.0, "scale": 1.0, "asymmetry": 3.0},
)
add(dist.ContinuousBernoulli, {"probs": 0.9}, {"probs": 0.2})
add(dist.ContinuousBernoulli, {"logits": [1e-7, 0.03]}, {"logits": [-3.0, 12.0]}, "[2]")
add(
    dist.RelaxedBernoulli,
    {"temperature": 0.7, "probs": 0.3},
    {"temperature": 2.0, "probs": 0.8},
    relative=False,
)
add(
    dist.RelaxedOneHotCategorical,
    {"temperature": 0.7, "probs": [0.3, 0.2, 0.5]},
    {"temperature": 1.5, "probs": [0.1, 0.8, 0.1]},
    draws=2000,
    relative=False,
)
add(
    dist.Dirichlet,
    {"concentration": [0.5, 2.0, 1.0]},
    {"concentration": [3.0, 0.7, 5.0]},
    draws=1000,
)
add(
    dist.LogisticNormal,
    {"loc": [0.5, 2.0], "scale": [1.0, 0.5]},
    {"loc": [0.0, 0.0], "scale": [0.5, 2.0]},
    relative=False,
)
add(
    dist.LowRankMultivariateNormal,
    {"loc": [1.0, 2.0], "cov_factor": [[1.0], [0.5]], "cov_diag": [1.0, 2.0]},
    {"loc": [0.0, 0.0], "cov_factor": [[-1.0], [2.0]], "cov_diag": [0.3, 0.1]},
)
add(
    dist.MultivariateStudentT,
    {"df": 3.0, "loc": [1.0, 2.0], **_LOWER},
    {"df": 9.0, "loc": [0.0, -2.0], **_OTHER},
    draws=2000,
)
add(
    dist.SkewLogistic,
    {"loc": 1.0, "scale": 2.0, "asymmetry": 0.5},
    {"loc": 0.0, "scale": 1.0, "asymmetry": 3.0},
)
add(
    dist.VonMises,
    {"loc": 1.0, "concentration": 2.0},
    {"loc": -3.0, "concentration": 80.0},
    draws=1000,
    relative=False,
)
add(
    dist.ProjectedNormal,
    {"concentration": [1.0, -2.0]},
    {"concentration": [0.0, 0.3]},
    draws=2000,
    relative=False,
)
add(
    dist.ProjectedNormal,
    {"concentration": [4.0, -2.0, 1.0]},
    {"concentration": [0.0, 0.3, -0.2]},
    "[3]",
    draws=2000,
    relative=False,
)


def sine_skewed(loc: Any, concentration: Any, skewness: Any) -> Any:
    """Two independent angles, skewed together."""
    return dist.SineSkewed(dist.VonMises(loc, concentration).to_event(1), skewness)


add(
    sine_skewed,
    {"loc": [0.3, -1.0], "concentration": [1.0, 3.0], "skewness": [0.4, -0.5]},
    {"loc": [0.0, 2.0], "concentration": [2.0, 0.5], "skewness": [-0.9, 0.1]},
    draws=1000,
    batchable=False,  # its constructor reads values
    relative=False,
)
add(
    dist.BetaBinomial,
    {"concentration1": 2.0, "concentration0": 3.0, "total_count": 9},
    {"concentration1": 0.4, "concentration0": 0.7, "total_count": 9},
    draws=500,
)
add(
    dist.Multinomial,
    {"total_count": 6, "probs": [0.2, 0.3, 0.5]},
    {"total_count": 6, "probs": [0.5, 0.0, 0.5]},
    draws=500,
)
add(
    dist.DirichletMultinomial,
    {"concentration": [0.5, 2.0, 1.0], "total_count": 6},
    {"concentration": [3.0, 0.7, 5.0], "total_count": 6},
    draws=300,
)


def correlations(concentration: torch.Tensor, draws: int) -> torch.Tensor:
    """Correlation matrices of three variables by rejection from the cube: torch's own sampler has another law than its density."""
    found: list[torch.Tensor] = []
    while sum(map(len, found)) < draws:
        a, b, c = (2 * torch.rand(3, 20 * draws, dtype=concentration.dtype) - 1).unbind()
        determinant = 1 + 2 * a * b * c - a * a - b * b - c * c
        accept = torch.rand_like(a) < determinant.clamp(min=0.0) ** (concentration - 1)
        one = torch.ones_like(a)
        rows = torch.stack([one, a, b, a, one, c, b, c, one], -1).reshape(-1, 3, 3)
        found.append(rows[accept & (determinant > 0)])
    return torch.cat(found)[:draws]


class CorrelationCholesky(dist.LKJCholesky):  # type: ignore[misc]
    """With a sampler that has the law of the density."""

    def sample(self, sample_shape: torch.Size = torch.Size()) -> torch.Tensor:  # noqa: B008
        """By rejection."""
        rows = correlations(self.concentration.flatten()[0], max(1, sample_shape.numel()))
        lower: torch.Tensor = torch.linalg.cholesky(rows)
        return lower.reshape((*sample_shape, 3, 3))


class CorrelationMatrix(dist.LKJ):  # type: ignore[misc]
    """With a sampler that has the law of the density."""

    def sample(self, sample_shape: torch.Size = torch.Size()) -> torch.Tensor:  # noqa: B008
        """By rejection."""
        rows = correlations(self.concentration.flatten()[0], max(1, sample_shape.numel()))
        return rows.reshape((*sample_shape, 3, 3))


for _family in (CorrelationCholesky, CorrelationMatrix):
    add(
        _family,
        {"dim": 3, "concentration": 1.0},
        {"dim": 3, "concentration": 4.0},
        draws=1000,
        relative=False,
    )


class QuietWishart(dist.Wishart):  # type: ignore[misc]
    """Torch's sampler takes regular matrices for singular ones and warns at every draw."""

    def rsample(self, *args: Any, **options: Any) -> Any:
        """Torch's draws, without the warning."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return super().rsample(*args, **options)


add(
    QuietWishart,
    {"df": 4.5, **_LOWER},
    {"df": 2.2, **_OTHER},
    draws=1000,
    relative=False,
    differentiable=("df", "scale_tril"),
    batchable=False,  # its constructor reads values
)
add(
    dist.MixtureOfDiagNormals,
    {
        "locs": [[0.0, 1.0], [2.0, -1.0]],
        "coord_scale": [[1.0, 0.5], [0.3, 2.0]],
        "component_logits": [0.3, 1.0],
    },
    {
        "locs": [[0.0, 0.0], [1.0, 1.0]],
        "coord_scale": [[2.0, 0.5], [1.0, 1.0]],
        "component_logits": [0.0, -1.0],
    },
    draws=2000,
)
add(
    dist.MixtureOfDiagNormalsSharedCovariance,
    {
        "locs": [[0.0, 1.0], [2.0, -1.0]],
        "coord_scale": [1.0, 0.5],
        "component_logits": [0.3, 1.0],
    },
    {
        "locs": [[0.0, 0.0], [1.0, 1.0]],
        "coord_scale": [2.0, 0.5],
        "component_logits": [0.0, -1.0],
    },
    draws=2000,
)
_SOFT: Parameters = {"temperature": 0.7}
add(
    dist.RelaxedBernoulliStraightThrough,
    {"probs": 0.3, **_SOFT},
    {"probs": 0.8, **_SOFT},
    differentiable=(),  # straight through: not those of the value
)
add(
    dist.RelaxedOneHotCategoricalStraightThrough,
    {"probs": [0.3, 0.2, 0.5], **_SOFT},
    {"probs": [0.1, 0.8, 0.1], **_SOFT},
    differentiable=(),
)
add(
    dist.OneHotCategoricalStraightThrough,
    {"probs": [0.3, 0.2, 0.5]},
    {"probs": [0.1, 0.8, 0.1]},
    differentiable=(),
)


class TabledNegativeBinomial(dist.LogNormalNegativeBinomial):  # type: ignore[misc]
    """Pyro's class has a density and no sampler."""

    def sample(self, sample_shape: torch.Size = torch.Size()) -> torch.Tensor:  # noqa: B008
        """By the table of the density; beyond it lies less than 1e-7."""
        counts = torch.arange(400, dtype=self.logits.dtype)
        table = self.log_prob(counts.reshape(-1, *[1] * len(self.batch_shape)))
        return dist.Categorical(logits=table.movedim(0, -1)).sample(sample_shape).to(counts.dtype)


def log_normal_negative_binomial(total_count: Any, logits: Any, noise: Any) -> Any:
    """A mixture of negative binomials, by a rule of quadrature."""
    return TabledNegativeBinomial(total_count, logits, noise)


def listed(points: Any, log_weights: Any) -> Any:
    """Draws from a list of samples."""
    return dist.Empirical(points, log_weights)


def zero_inflated(loc: Any, gate: Any) -> Any:
    """A continuous base: zeros are the gate's."""
    return dist.ZeroInflatedDistribution(dist.Normal(loc, torch.ones_like(loc)), gate=gate)


def point(v: Any) -> Any:
    """A site without noise."""
    return dist.Delta(v)


def masked(loc: Any) -> Any:
    """A wrapper that weighs densities."""
    return dist.Normal(loc, torch.ones_like(loc)).mask(torch.tensor([True, False])).to_event(1)


add(
    log_normal_negative_binomial,
    {"total_count": 2.5, "logits": -0.5, "noise": 0.4},
    {"total_count": 4.0, "logits": 0.5, "noise": 0.8},
    draws=300,
    batchable=False,  # its constructor makes the rule of quadrature in NumPy
)
add(
    listed,
    {"points": [0.5, 1.5, 4.0], "log_weights": [0.0, 1.0, -1.0]},
    {"points": [0.3, 2.5, 3.0], "log_weights": [1.0, 0.0, -1.0]},
)
add(zero_inflated, {"loc": 2.0, "gate": 0.3}, {"loc": 0.5, "gate": 0.9})
add(point, {"v": 2.0}, {"v": -1.0})
add(masked, {"loc": [0.0, 1.0]}, {"loc": [2.0, 1.0]})
add(
    dist.SoftAsymmetricLaplace,
    {"loc": 1.0, "scale": 2.0, "asymmetry": 0.5, "softness": 0.3},
    {"loc": 0.0, "scale": 1.0, "asymmetry": 3.0, "softness": 1.5},
)
add(
    dist.GaussianScaleMixture,
    {
        "coord_scale": [1.0, 0.5],
        "component_logits": [0.3, 1.0],
        "component_scale": [1.0, 3.0],
    },
    {
        "coord_scale": [2.0, 0.5],
        "component_logits": [0.0, -1.0],
        "component_scale": [0.5, 2.0],
    },
    draws=2000,
)
add(dist.NanMaskedNormal, {"loc": 1.0, "scale": 2.0}, {"loc": -0.7, "scale": 0.6})
