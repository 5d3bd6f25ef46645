"""Families with a class and a mechanism of their own: location-scale, inverse distribution functions, counts, normals."""

from __future__ import annotations

import pyro.distributions as dist
from case_table import Parameters, add

LOC_SCALE: tuple[Parameters, Parameters] = ({"loc": 1.0, "scale": 2.0}, {"loc": -0.7, "scale": 0.6})

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
    dist.Gamma, {"concentration": 3.0, "rate": 2.0}, {"concentration": 0.2, "rate": 0.5}, draws=1000
)
add(
    dist.Gamma,
    {"concentration": [0.05, 200.0], "rate": 2.0},
    {"concentration": [1.0, 0.7], "rate": 0.5},
    "[2]",
    draws=1000,
)
add(dist.Chi2, {"df": 3.0}, {"df": 0.6}, draws=1000)
add(
    dist.InverseGamma,
    {"concentration": 3.0, "rate": 2.0},
    {"concentration": 1.2, "rate": 0.5},
    draws=1000,
)
add(
    dist.Beta,
    {"concentration1": 2.0, "concentration0": 5.0},
    {"concentration1": 0.4, "concentration0": 0.8},
    draws=1000,
)
add(
    dist.AffineBeta,
    {"concentration1": 2.0, "concentration0": 5.0, "loc": -1.0, "scale": 3.0},
    {"concentration1": 1.4, "concentration0": 0.8, "loc": 0.0, "scale": 1.0},
    draws=1000,
)
add(
    dist.StudentT,
    {"df": 3.0, "loc": 1.0, "scale": 2.0},
    {"df": 0.8, "loc": 0.0, "scale": 0.4},
    draws=1000,
)
add(dist.FisherSnedecor, {"df1": 3.0, "df2": 8.0}, {"df1": 1.2, "df2": 2.0}, draws=1000)
add(dist.Poisson, {"rate": 3.0}, {"rate": 40.0}, draws=1000)
add(dist.Poisson, {"rate": [0.0, 2e4]}, {"rate": [0.1, 1.5]}, "[2]", draws=1000)
add(
    dist.Binomial,
    {"total_count": 7, "probs": [0.3, 0.0]},
    {"total_count": 7, "probs": [0.9, 1.0]},
    draws=500,
)
add(
    dist.Binomial,
    {"total_count": 2000, "logits": -1.0},
    {"total_count": 2000, "logits": 3.0},
    "[2000]",
    draws=500,
)
add(
    dist.NegativeBinomial,
    {"total_count": 2.5, "probs": 0.7},
    {"total_count": 0.3, "probs": 0.95},
    draws=500,
)
add(
    dist.GammaPoisson,
    {"concentration": 2.5, "rate": 0.4},
    {"concentration": 0.5, "rate": 0.02},
    draws=500,
)
add(dist.Geometric, {"probs": 0.3}, {"probs": 0.004})
add(dist.Geometric, {"probs": [1.0, 0.5]}, {"probs": [0.9, 0.01]}, "[2]")
add(
    dist.OrderedLogistic,
    {"predictor": 0.3, "cutpoints": [-1.0, 0.0, 2.0]},
    {"predictor": -2.0, "cutpoints": [-1.0, 0.5, 1.0]},
    batchable=False,  # its constructor writes in place
)
