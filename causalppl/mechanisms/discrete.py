"""Discrete families: monotone Bernoulli, Gumbel-max and ordered categoricals, with exactly truncated noise.

A value is abducted to noise drawn from the cell that leads to it, kept a few units of round-off inside it, so that the value
comes back exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot

from .inverse_cdf import log1mexp, standard_logistic
from .protocol import NoiseDistribution
from .registry import register_mechanism

__all__ = ["GumbelMax", "MonotoneBernoulli", "OrderedCategorical", "bernoulli_logits", "category_logits"]


def _given_as_probs(fn: Any) -> bool:
    # the other parametrisation may be cached beside the one that was given
    return fn._param is fn.__dict__.get("probs")


def bernoulli_logits(fn: Any) -> Tensor:
    """Log odds; infinite where the probability was given as exactly 0 or 1."""
    if _given_as_probs(fn):
        return torch.logit(fn.probs)  # type: ignore[no-any-return]
    return fn.logits  # type: ignore[no-any-return]


def category_logits(fn: Any) -> Tensor:
    """Log probabilities; minus infinity where a probability was given as exactly 0."""
    fn = getattr(fn, "_categorical", fn)
    if _given_as_probs(fn):
        return torch.log(fn.probs)  # type: ignore[no-any-return]
    return fn.logits  # type: ignore[no-any-return]


def _margin(*magnitudes: Tensor) -> Tensor:
    eps = 16 * torch.finfo(magnitudes[0].dtype).eps
    size = torch.stack([m.abs().nan_to_num(0.0, 0.0, 0.0) for m in torch.broadcast_tensors(*magnitudes)])
    return eps * (1 + size.sum(0))


def _logistic_in(low: Tensor, high: Tensor, base: Tensor) -> Tensor:
    """A logistic score, truncated to ``(low, high)``, as an increasing function of the logistic score ``base``."""
    # Work in whichever tail is shorter: by symmetry, mirror so that low + high <= 0, and interpolate F in logs.
    mirror = low > -high
    a, b = torch.where(mirror, -high, low), torch.where(mirror, -low, high)
    u = torch.where(mirror, -base, base)
    log_a, log_b = logsigmoid(a), logsigmoid(b)
    log_width = log_b + log1mexp((log_a - log_b).clamp(max=-1e-30))
    log_cdf = torch.logaddexp(log_a, log_width + logsigmoid(u)).clamp(max=-1e-30)
    score = log_cdf - log1mexp(log_cdf)
    return torch.where(mirror, -score, score)


def _inside(score: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Kept off the edges by a few units of round-off, or in the middle of a cell thinner than that."""
    room = _margin(low, high)
    thin = high - low <= 2 * room
    lowest, highest = low + room, high - room
    middle = (low + high) / 2
    kept = torch.minimum(torch.maximum(score, lowest), highest)
    return torch.where(thin, middle, kept)


@dataclass(frozen=True)
class MonotoneBernoulli:
    """``v = 1`` exactly where ``score + logit > 0``: increasing in the score and in the probability."""

    name: str = "inverse_cdf"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1), batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, fn._param)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """One where the score exceeds minus the logit."""
        return (noise > -bernoulli_logits(fn)).to(fn._param.dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score, mapped into the value's cell."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score truncated to the side of the threshold where the value lies."""
        threshold = -bernoulli_logits(fn).expand(base.shape)
        # P(score > t) = sigmoid(-t); log S of the result = log S(t) + log U, and likewise below
        above_log = logsigmoid(-threshold) + logsigmoid(-base)
        below_log = logsigmoid(threshold) + logsigmoid(base)
        above = log1mexp(above_log.clamp(max=-1e-30)) - above_log
        below = below_log - log1mexp(below_log.clamp(max=-1e-30))
        room = _margin(threshold)
        above = torch.maximum(above, threshold + room)
        below = torch.minimum(below, threshold - room)
        free = torch.isinf(threshold)  # a sure event says nothing of its noise
        return torch.where(free, base, torch.where(value > 0.5, above, below))


@dataclass(frozen=True)
class GumbelMax:
    """``v = argmax_k (log p_k + g_k)`` with standard Gumbel noise: Oberst and Sontag's coupling.

    Abduction is exact: the maximum is Gumbel and independent of where it is; the others are Gumbels truncated below it.

    References:
        M. Oberst, D. Sontag (2019), Counterfactual Off-Policy Evaluation with Gumbel-Max Structural Causal Models.
        C. Maddison, D. Tarlow, T. Minka (2014), A* Sampling.
    """

    one_hot: bool = False
    name: str = "gumbel_max"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Gumbel(0, 1), shape ``fn.batch_shape + (categories,)``."""
        logits = category_logits(fn)
        zero = torch.zeros((), dtype=logits.dtype, device=logits.device)
        return dist.Gumbel(zero, zero + 1).expand((*fn.batch_shape, logits.shape[-1]))  # type: ignore[no-any-return]

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The category whose perturbed log probability is largest."""
        logits = category_logits(fn)
        chosen = (logits + noise).argmax(-1)
        return one_hot(chosen, logits.shape[-1]).to(logits.dtype) if self.one_hot else chosen

    def base(self, fn: Any) -> NoiseDistribution:
        """Gumbels, truncated at abduction."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """Gumbels given which one won."""
        logits = category_logits(fn).expand(base.shape)
        index = (value.argmax(-1) if self.one_hot else value.long()).unsqueeze(-1)
        winner = torch.arange(logits.shape[-1], device=logits.device) == index
        top = logits.logsumexp(-1, keepdim=True) + base.gather(-1, index)
        others = -torch.logaddexp(-top, -(logits + base))
        room = _margin(logits, top)
        others = torch.minimum(others, top - room)
        noise = torch.where(winner, top, others) - logits
        return torch.where(torch.isneginf(logits), base, noise)


@dataclass(frozen=True)
class OrderedCategorical:
    """``v = F^-1(u)`` in the order of the categories, with ``u`` kept as a logistic score."""

    one_hot: bool = False
    name: str = "inverse_cdf"
    invertible: bool = False

    def _edges(self, fn: Any) -> Tensor:
        """Scores at which one category passes into the next, shape ``batch_shape + (categories + 1,)``."""
        probs = category_logits(fn).double().softmax(-1)
        below = torch.cumsum(probs, -1)
        above = probs.flip(-1).cumsum(-1).flip(-1)
        inner = torch.log(below[..., :-1]) - torch.log(above[..., 1:])
        edge = torch.full_like(inner[..., :1], torch.inf)
        return torch.cat([-edge, inner, edge], -1)

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, batch shape ``fn.batch_shape``."""
        logits = category_logits(fn)
        return standard_logistic(fn.batch_shape, torch.zeros((), dtype=torch.float64, device=logits.device))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The category whose interval holds the score."""
        edges = self._edges(fn)
        chosen = (noise.unsqueeze(-1) > edges[..., 1:-1]).sum(-1)
        dtype = category_logits(fn).dtype
        return one_hot(chosen, edges.shape[-1] - 1).to(dtype) if self.one_hot else chosen

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score, mapped into the value's cell."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score truncated to the value's interval."""
        edges = self._edges(fn)
        index = (value.argmax(-1) if self.one_hot else value.long()).unsqueeze(-1)
        edges = edges.expand(*base.shape, edges.shape[-1])
        low, high = edges.gather(-1, index).squeeze(-1), edges.gather(-1, index + 1).squeeze(-1)
        return _inside(_logistic_in(low, high, base), low, high)


register_mechanism(torch.distributions.Bernoulli, MonotoneBernoulli())
register_mechanism(torch.distributions.Categorical, GumbelMax())
register_mechanism(torch.distributions.Categorical, OrderedCategorical())
register_mechanism(torch.distributions.OneHotCategorical, GumbelMax(one_hot=True))
register_mechanism(torch.distributions.OneHotCategorical, OrderedCategorical(one_hot=True))

