"""causalppl: interventions and counterfactuals for Pyro programs.

A Pyro program plus a structural assignment ``v = f(parents, noise)`` for each of its sample sites is a structural causal
model: a deterministic function from exogenous noise and interventions to values. Everything here is a use of that function.
"""

from . import errors
from .counterfactual import Posterior, abduct
from .errors import CausalPPLError
from .inference import NUTS, Enumeration, Exact, ImportanceSampling, PosteriorSamples
from .interventions import do, from_world, policy, set_mechanism, shift, where
from .mechanisms import Mechanism, mechanism_for, register_mechanism
from .predictor import Counterfactual, compile, counterfactual
from .query import Bounds, Estimate, bounds, mechanism_sensitivity, query
from .results import Diagnostics, Worlds
from .structural import Interval, settings
from .worlds import multi_world, twin_world

__version__ = "0.1.0"

__all__ = [
    "NUTS",
    "SVI",
    "Amortized",
    "AmortizedGuide",
    "Bounds",
    "CausalPPLError",
    "Counterfactual",
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
    "attribution",
    "bounds",
    "causal_graph",
    "compile",
    "counterfactual",
    "diagnostics",
    "do",
    "effects",
    "errors",
    "fit",
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
    # What draws or judges loads more than an answer needs, so it is imported where they are asked for.
    if name in ("attribution", "diagnostics", "effects", "plots"):
        import importlib

        return importlib.import_module(f".{name}", __name__)
    if name == "SVI":
        from .inference.svi import SVI

        return SVI
    if name == "Amortized":
        from .inference.amortized import Amortized

        return Amortized
    if name == "AmortizedGuide":
        from .guides import AmortizedGuide

        return AmortizedGuide
    if name == "fit":
        from .inference.fit import fit

        return fit
    if name == "causal_graph":
        from .graph import causal_graph

        return causal_graph
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
