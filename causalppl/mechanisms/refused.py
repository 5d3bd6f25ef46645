"""Families without a mechanism, and why: the error names the way round."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist

from ..errors import NoMechanismError
from .protocol import Mechanism
from .registry import register_wrapper

__all__ = ["REASONS"]

_CHAIN = (
    "is a whole chain in one site, whose hidden states its noise would have to carry; write the chain with a sample site for "
    "each step (pyro.markov), which have mechanisms"
)
_GRAPH = (
    "is drawn by an algorithm of varying length, and no structural assignment is established for it; write the decisions as "
    "sample sites of their own"
)
_STABLE = (
    "is a function of two variables, and the posterior of them given the value has no closed form; apply "
    "pyro.infer.reparam.LatentStableReparam to the site, whose own sites have mechanisms"
)

#: Class to the reason why it has no mechanism, as the end of a sentence that begins with its name.
REASONS: dict[type, str] = {
    dist.hmm.HiddenMarkovModel: _CHAIN,
    dist.IndependentHMM: _CHAIN,
    dist.GaussianMRF: _CHAIN,
    dist.CoalescentTimes: _GRAPH,
    dist.CoalescentTimesWithRate: "is a likelihood without a sampler; use it for observed data only",
    dist.OneOneMatching: _GRAPH,
    dist.OneTwoMatching: _GRAPH,
    dist.SpanningTree: _GRAPH,
    dist.Stable: _STABLE,
    dist.TruncatedPolyaGamma: "is a truncated series of Gammas, which its sum does not determine; write the terms as sites of "
    "their own, or register a mechanism",
    dist.VonMises3D: "has no sampler in Pyro, hence is a likelihood for observed data only; use ProjectedNormal",
    dist.SineBivariateVonMises: "is drawn by rejection, and its marginal has no closed form; write two VonMises sites, the "
    "second one's location a function of the first",
    dist.ImproperUniform: "is no probability law and cannot be drawn; give the site a proper prior",
    dist.GroupedNormalNormal: "integrates a latent effect of each group out, which the worlds would have to share; write the "
    "effects as a sample site",
    dist.Rejector: "is drawn by rejection, so that its noise has no fixed length; use the distribution that it draws from",
}


def _register(family: type, reason: str) -> None:
    @register_wrapper(family)
    def _rule(fn: Any, name: str | None) -> Mechanism:
        raise NoMechanismError(
            f"{type(fn).__name__} {reason} (cp.register_mechanism({type(fn).__name__}, mechanism) registers one of your own)"
        )


for _family, _reason in REASONS.items():
    _register(_family, _reason)
