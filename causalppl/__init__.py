"""causalppl: interventions and counterfactuals for Pyro programs.

A Pyro program plus a structural assignment ``v = f(parents, noise)`` for each of its sample sites is a structural causal
model: a deterministic function from exogenous noise and interventions to values. Everything here is a use of that function.
"""

from . import errors
from .counterfactual import Posterior, abduct, counterfactual
from .errors import CausalPPLError
from .inference import NUTS, Enumeration, Exact, ImportanceSampling, PosteriorSamples
from .interventions import do, policy, shift, where
from .mechanisms import Mechanism, mechanism_for, register_mechanism
from .query import Bounds, Estimate, bounds, mechanism_sensitivity, query
from .results import Diagnostics, Worlds
from .structural import settings

__version__ = "0.1.0"

__all__ = [
    "NUTS",
    "Bounds",
    "CausalPPLError",
    "Diagnostics",
    "Enumeration",
    "Estimate",
    "Exact",
    "ImportanceSampling",
    "Mechanism",
    "Posterior",
    "PosteriorSamples",
    "Worlds",
    "abduct",
    "bounds",
    "counterfactual",
    "do",
    "errors",
    "mechanism_for",
    "mechanism_sensitivity",
    "plots",
    "policy",
    "query",
    "register_mechanism",
    "settings",
    "shift",
    "where",
]


def __getattr__(name: str) -> object:
    # Plots load matplotlib, so the module is imported where it is asked for.
    if name == "plots":
        import importlib

        return importlib.import_module(".plots", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
