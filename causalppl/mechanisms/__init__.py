"""Mechanisms: the structural assignment ``v = f(parents, noise)`` of every family of distributions."""

from . import composed, couplings, discrete, inverse_cdf, location_scale, multivariate
from .dtype import value_dtype
from .log_prob import exact_log_prob
from .protocol import Mechanism, NoiseDistribution, TupleDistribution
from .registry import mechanism_for, mechanism_names, register_mechanism

__all__ = [
    "Mechanism",
    "NoiseDistribution",
    "TupleDistribution",
    "composed",
    "couplings",
    "discrete",
    "exact_log_prob",
    "inverse_cdf",
    "location_scale",
    "mechanism_for",
    "mechanism_names",
    "multivariate",
    "register_mechanism",
    "value_dtype",
]
