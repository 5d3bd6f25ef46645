"""One case of two worlds for each mechanism of each family."""

from __future__ import annotations

import pyro.distributions as dist

from causalppl.mechanisms import mechanism_names
from causalppl.mechanisms.laws import MechanismCase

Parameters = dict[str, object]
LOC_SCALE: tuple[Parameters, Parameters] = ({"loc": 1.0, "scale": 2.0}, {"loc": -0.7, "scale": 0.6})

CASES: dict[str, MechanismCase] = {}


def add(
    family: type, first: Parameters, second: Parameters, label: str = "", **options: object
) -> None:
    """A case for each of the family's mechanisms."""
    for name in mechanism_names(family) or [None]:
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
    add(_family, *LOC_SCALE)
add(dist.LogNormal, *LOC_SCALE)
add(dist.Normal, {"loc": [0.0, 3.0], "scale": 2.0}, {"loc": [1.0, -2.0], "scale": 0.3}, "[2]")
add(dist.Exponential, {"rate": 2.0}, {"rate": 0.3})
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
add(dist.Bernoulli, {"probs": 0.7}, {"probs": 0.4})
add(dist.Bernoulli, {"logits": [3.0, -20.0]}, {"logits": [-1.0, 9.0]}, "[2]")
add(dist.Categorical, {"probs": [0.2, 0.3, 0.5]}, {"probs": [0.5, 0.3, 0.2]})
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
