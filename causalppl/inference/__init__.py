"""Posteriors of the latent sites, on the program's own parametrisation."""

from .choice import choose_and_sample
from .enumeration import Enumeration
from .exact import Exact, PosteriorSamples
from .importance import ImportanceSampling
from .local import local_draws
from .nuts import NUTS
from .posterior_draws import Method, PosteriorDraws, method_from
from .posterior_file import read_posterior, write_posterior
from .world_evidence import WorldEvidence

__all__ = [
    "NUTS",
    "Enumeration",
    "Exact",
    "ImportanceSampling",
    "Method",
    "PosteriorDraws",
    "PosteriorSamples",
    "WorldEvidence",
    "choose_and_sample",
    "local_draws",
    "method_from",
    "read_posterior",
    "write_posterior",
]
