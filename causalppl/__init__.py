"""causalppl: interventions and counterfactuals for Pyro programs.

A Pyro program plus a structural assignment ``v = f(parents, noise)`` for each of its sample sites is a structural causal
model: a deterministic function from exogenous noise and interventions to values. Everything here is a use of that function.
"""

from . import errors
from .counterfactual import Posterior, abduct, counterfactual
from .errors import CausalPPLError
from .inference import NUTS, SVI, Enumeration, Exact, ImportanceSampling, PosteriorSamples
from .interventions import do, from_world, policy, set_mechanism, shift, where
from .mechanisms import Mechanism, mechanism_for, register_mechanism
from .query import Bounds, Estimate, bounds, mechanism_sensitivity, query
from .results import Diagnostics, Worlds
from .structural import Interval, settings
from .worlds import multi_world, twin_world

__version__ = "0.1.0"

__all__ = [
    "NUTS",
    "SVI",
    "Bounds",
    "CausalPPLError",
    "Diagnostics",
    "Enumeration",
    "Estimate",
    "Exact",
    "ImportanceSampling",
    "Interval",
    "Mechanism",
    "Posterior",
    "PosteriorSamples",
    "Worlds",
    "abduct",
    "bounds",
    "counterfactual",
    "do",
    "errors",
    "from_world",
    "mechanism_for",
    "mechanism_sensitivity",
    "multi_world",
    "plots",
    "policy",
    "query",
    "register_mechanism",
    "set_mechanism",
    "settings",
    "shift",
    "twin_world",
    "where",
]


def __getattr__(name: str) -> object:
    # Plots load matplotlib, so the module is imported where it is asked for.
    if name == "plots":
        import importlib

        return importlib.import_module(".plots", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
