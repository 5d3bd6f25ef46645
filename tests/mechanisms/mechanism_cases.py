"""One case of two worlds for each mechanism of each family."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch

from causalppl.mechanisms import mechanism_names
from causalppl.mechanisms.laws import MechanismCase

Parameters = dict[str, object]
LOC_SCALE: tuple[Parameters, Parameters] = ({"loc": 1.0, "scale": 2.0}, {"loc": -0.7, "scale": 0.6})

CASES: dict[str, MechanismCase] = {}


def add(
    family: type,
    first: Parameters,
    second: Parameters,
    label: str = "",
    couplings: bool = False,
    **options: Any,
) -> None:
    """A case for each of the family's mechanisms; the couplings that all families share where ``couplings`` says so."""
    names = mechanism_names(family) if isinstance(family, type) else []
    if not couplings:
        names = [name for name in names if name not in ("antitone", "independent")]
    for name in names or [None]:
        title = f"{family.__name__}{label}-{name}" if name else f"{family.__name__}{label}"
        CASES[title] = MechanismCase(family, first, second, name, **options)  # type: ignore[arg-type]


for _family in (
    dist.Normal,
    dist.Laplace,
    dist.Cauchy,
    dist.Gumbel,
    dist.Logistic,
    dist.SoftLaplace,
):
    add(_family, *LOC_SCALE, couplings=_family in (dist.Normal, dist.Gumbel))
add(dist.LogNormal, *LOC_SCALE)
add(dist.Normal, {"loc": [0.0, 3.0], "scale": 2.0}, {"loc": [1.0, -2.0], "scale": 0.3}, "[2]")
add(dist.Exponential, {"rate": 2.0}, {"rate": 0.3}, couplings=True)
add(dist.Weibull, {"scale": 2.0, "concentration": 1.5}, {"scale": 0.5, "concentration": 0.6})
add(dist.Pareto, {"scale": 2.0, "alpha": 1.5}, {"scale": 0.5, "alpha": 3.0})
add(
    dist.Kumaraswamy,
    {"concentration1": 2.0, "concentration0": 0.7},
    {"concentration1": 0.5, "concentration0": 4.0},
)
add(dist.Uniform, {"low": -1.0, "high": 3.0}, {"low": 0.0, "high": 1.0})
add(dist.HalfNormal, {"scale": 2.0}, {"scale": 0.1})
add(dist.HalfCauchy, {"scale": 2.0}, {"scale": 0.1})
add(
    dist.GeneralizedPareto,
    {"loc": 1.0, "scale": 2.0, "concentration": 0.3},
    {"loc": 0.0, "scale": 0.5, "concentration": -0.4},
)
add(dist.Bernoulli, {"probs": 0.7}, {"probs": 0.4}, couplings=True)
add(dist.Bernoulli, {"logits": [3.0, -20.0]}, {"logits": [-1.0, 9.0]}, "[2]")
add(dist.Categorical, {"probs": [0.2, 0.3, 0.5]}, {"probs": [0.5, 0.3, 0.2]}, couplings=True)
add(
    dist.Categorical,
    {"logits": [[0.3, 2.0, -4.0], [0.0, 0.0, 0.0]]},
    {"logits": [[0.3, -20.0, 1.0], [1.0, 2.0, 3.0]]},
    "[2]",
)
add(dist.Categorical, {"probs": [0.2, 0.0, 0.8]}, {"probs": [0.0, 0.3, 0.7]}, "[zero]")
add(dist.OneHotCategorical, {"probs": [0.2, 0.3, 0.5]}, {"probs": [0.5, 0.3, 0.2]})
_LOWER = {"scale_tril": [[1.0, 0.0], [0.5, 2.0]]}
_OTHER = {"scale_tril": [[0.3, 0.0], [-1.0, 1.0]]}
add(dist.MultivariateNormal, {"loc": [1.0, 2.0], **_LOWER}, {"loc": [0.0, -2.0], **_OTHER})
for _matrix in ("covariance_matrix", "precision_matrix"):
    add(
        dist.MultivariateNormal,
        {"loc": [1.0, 2.0], _matrix: [[2.0, 0.5], [0.5, 1.0]]},
        {"loc": [0.0, -2.0], _matrix: [[1.0, -0.3], [-0.3, 0.7]]},
        f"[{_matrix}]",
        differentiable=("loc",),
    )
add(
    dist.Gamma, {"concentration": 3.0, "rate": 2.0}, {"concentration": 0.2, "rate": 0.5}, draws=2000
)
add(
    dist.Gamma,
    {"concentration": [0.05, 200.0], "rate": 2.0},
    {"concentration": [1.0, 0.7], "rate": 0.5},
    "[2]",
    draws=2000,
)
add(dist.Chi2, {"df": 3.0}, {"df": 0.6}, draws=2000)
add(
    dist.InverseGamma,
    {"concentration": 3.0, "rate": 2.0},
    {"concentration": 1.2, "rate": 0.5},
    draws=2000,
)
add(
    dist.Beta,
    {"concentration1": 2.0, "concentration0": 5.0},
    {"concentration1": 0.4, "concentration0": 0.8},
    draws=2000,
)
add(
    dist.AffineBeta,
    {"concentration1": 2.0, "concentration0": 5.0, "loc": -1.0, "scale": 3.0},
    {"concentration1": 1.4, "concentration0": 0.8, "loc": 0.0, "scale": 1.0},
    draws=2000,
)
add(
    dist.StudentT,
    {"df": 3.0, "loc": 1.0, "scale": 2.0},
    {"df": 0.8, "loc": 0.0, "scale": 0.4},
    draws=2000,
)
add(dist.FisherSnedecor, {"df1": 3.0, "df2": 8.0}, {"df1": 1.2, "df2": 2.0}, draws=2000)
add(dist.Poisson, {"rate": 3.0}, {"rate": 40.0}, draws=2000)
add(dist.Poisson, {"rate": [0.0, 2e4]}, {"rate": [0.1, 1.5]}, "[2]", draws=2000)
add(
    dist.Binomial,
    {"total_count": 7, "probs": [0.3, 0.0]},
    {"total_count": 7, "probs": [0.9, 1.0]},
    draws=2000,
)
add(
    dist.Binomial,
    {"total_count": 2000, "logits": -1.0},
    {"total_count": 2000, "logits": 3.0},
    "[2000]",
    draws=2000,
)
add(
    dist.NegativeBinomial,
    {"total_count": 2.5, "probs": 0.7},
    {"total_count": 0.3, "probs": 0.95},
    draws=2000,
)
add(
    dist.GammaPoisson,
    {"concentration": 2.5, "rate": 0.4},
    {"concentration": 0.5, "rate": 0.02},
    draws=1000,
)
add(dist.Geometric, {"probs": 0.3}, {"probs": 0.004})
add(dist.Geometric, {"probs": [1.0, 0.5]}, {"probs": [0.9, 0.01]}, "[2]")
add(
    dist.OrderedLogistic,
    {"predictor": 0.3, "cutpoints": [-1.0, 0.0, 2.0]},
    {"predictor": -2.0, "cutpoints": [-1.0, 0.5, 1.0]},
    batchable=False,  # its constructor writes in place
)


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
    draws=2000,
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
add(dist.ZeroInflatedPoisson, {"rate": 2.0, "gate": 0.3}, {"rate": 0.5, "gate": 0.9}, draws=2000)
add(
    dist.ZeroInflatedPoisson,
    {"rate": [2.0, 3.0], "gate_logits": [0.3, -20.0]},
    {"rate": [0.5, 1.0], "gate_logits": [0.9, 2.0]},
    "[2]",
    draws=2000,
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
    draws=4000,
    relative=False,
)
add(
    dist.Dirichlet,
    {"concentration": [0.5, 2.0, 1.0]},
    {"concentration": [3.0, 0.7, 5.0]},
    draws=2000,
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
    draws=4000,
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
    draws=2000,
    relative=False,
)
add(
    dist.ProjectedNormal,
    {"concentration": [1.0, -2.0]},
    {"concentration": [0.0, 0.3]},
    draws=4000,
    relative=False,
)
add(
    dist.ProjectedNormal,
    {"concentration": [4.0, -2.0, 1.0]},
    {"concentration": [0.0, 0.3, -0.2]},
    "[3]",
    draws=4000,
    relative=False,
)


def sine_skewed(loc: Any, concentration: Any, skewness: Any) -> Any:
    """Two independent angles, skewed together."""
    return dist.SineSkewed(dist.VonMises(loc, concentration).to_event(1), skewness)


add(
    sine_skewed,
    {"loc": [0.3, -1.0], "concentration": [1.0, 3.0], "skewness": [0.4, -0.5]},
    {"loc": [0.0, 2.0], "concentration": [2.0, 0.5], "skewness": [-0.9, 0.1]},
    draws=2000,
    batchable=False,  # its constructor reads values
    relative=False,
)
add(
    dist.BetaBinomial,
    {"concentration1": 2.0, "concentration0": 3.0, "total_count": 9},
    {"concentration1": 0.4, "concentration0": 0.7, "total_count": 9},
    draws=2000,
)
add(
    dist.Multinomial,
    {"total_count": 6, "probs": [0.2, 0.3, 0.5]},
    {"total_count": 6, "probs": [0.5, 0.0, 0.5]},
    draws=2000,
)
add(
    dist.DirichletMultinomial,
    {"concentration": [0.5, 2.0, 1.0], "total_count": 6},
    {"concentration": [3.0, 0.7, 5.0], "total_count": 6},
    draws=1000,
)
add(dist.LKJCholesky, {"dim": 3, "concentration": 1.0}, {"dim": 3, "concentration": 4.0}, draws=2000, relative=False)
add(dist.LKJ, {"dim": 3, "concentration": 0.6}, {"dim": 3, "concentration": 2.0}, draws=2000, relative=False)
add(
    dist.Wishart,
    {"df": 4.5, **_LOWER},
    {"df": 2.2, **_OTHER},
    draws=2000,
    relative=False,
    differentiable=("df", "scale_tril"),
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
    draws=4000,
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
    draws=4000,
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
