"""Mechanisms: the structural assignment ``v = f(parents, noise)`` of every family of distributions."""

from . import (  # noqa: F401  (importing a family registers it)
    circular,
    compound,
    convolved,
    counts,
    couplings,
    dirichlet,
    discrete,
    inverse_cdf,
    location_scale,
    matrices,
    mixtures,
    multivariate,
    numerical_cdf,
    refused,
    relaxed,
    rewritten,
    straight_through,
    transformed,
    wrappers,
)
from .dtype import value_dtype
from .log_prob import exact_log_prob, possible
from .protocol import Mechanism, NoiseDistribution, TupleDistribution
from .registry import mechanism_for, mechanism_names, register_mechanism

__all__ = [
    "Mechanism",
    "NoiseDistribution",
    "TupleDistribution",
    "exact_log_prob",
    "possible",
    "mechanism_for",
    "mechanism_names",
    "register_mechanism",
    "value_dtype",
]
