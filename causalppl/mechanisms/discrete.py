"""Bernoulli and categorical sites, with exactly truncated noise.

A value is abducted to noise drawn from the cell that leads to it, kept a few units of round-off inside, so that the same parents
give the value back exactly, whichever executor computes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .logistic import inside, standard_logistic, truncated
from .logits import category_logits, log_odds
from .protocol import NoiseDistribution
from .registry import register_mechanism

__all__ = ["GumbelMax", "MonotoneBernoulli", "OrderedCategorical"]


@dataclass(frozen=True)
class MonotoneBernoulli:
    """``v = 1`` exactly where ``score + log odds > 0``: increasing in the score and in the probability.

    Of those with value 1 under probability .7, a share of 3/7 has value 0 under probability .4; none of those with value 0
    has value 1.

    References:
        J. Pearl (2009), Causality, section 9.2 (monotonicity).
    """

    name: str = "inverse_cdf"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1), batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, fn._param)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """One where the score exceeds minus the log odds."""
        odds = log_odds(fn)
        return (noise > -odds).to(odds.dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score, mapped into the value's half line."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score truncated to the side of the threshold where the value lies."""
        odds = log_odds(fn)
        # Given a one, P(score > s) = p sigmoid(-base), so that 1 + e^s = (1 + e^-odds) (1 + e^base). Given a zero the same holds with
        # all signs changed. In logs, e^s = e^a + e^b + e^(a + b).
        up = value > 0.5
        edge, own = torch.where(up, -odds, odds), torch.where(up, base, -base)
        largest = torch.maximum(torch.maximum(edge, own), edge + own).detach()
        terms = (edge - largest).exp() + (own - largest).exp() + (edge + own - largest).exp()
        score = terms.log() + largest
        room = (
            8
            * torch.finfo(odds.dtype).eps
            * (1 + torch.where(edge.abs() == torch.inf, 0.0, edge).abs())
        )
        score = torch.maximum(score, edge + room)
        return torch.where(up, score, -score)


@dataclass(frozen=True)
class GumbelMax:
    """``v = argmax_k (log p_k + g_k)`` with standard Gumbel noise.

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
        shape = (*fn.batch_shape, logits.shape[-1])
        return dist.Gumbel(zero, zero + 1).expand(shape)  # type: ignore[no-any-return]

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The category whose perturbed log probability is largest."""
        logits = category_logits(fn)
        return _category((logits + noise).argmax(-1), self.one_hot, logits)

    def base(self, fn: Any) -> NoiseDistribution:
        """Gumbels, truncated at abduction."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """Gumbels given which one wins."""
        logits = category_logits(fn)
        wins = _wins(value, self.one_hot, logits)
        top = torch.where(wins, base, 0.0).sum(-1, keepdim=True)
        others = -torch.logaddexp(logits - top, -base)  # a category of probability 0 keeps its own
        none = torch.isneginf(logits)
        size = 1 + top.abs() + torch.where(none, 0.0, logits).abs()
        highest = top - logits - 8 * torch.finfo(logits.dtype).eps * size
        return torch.where(wins, top - logits, torch.minimum(others, highest))


def _category_thresholds(fn: Any) -> Tensor:
    """Scores at which one category passes into the next, shape ``batch_shape + (categories - 1,)``, float64."""
    logits = category_logits(fn).double()
    below = torch.logcumsumexp(logits, -1)[..., :-1]
    above = torch.logcumsumexp(logits.flip(-1), -1).flip(-1)[..., 1:]
    return below - above


def _cutpoints(fn: Any) -> Tensor:
    """The same for an ordered logistic regression, whose latent variable the score is."""
    return fn.cutpoints.double() - fn.predictor.double().unsqueeze(-1)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class OrderedCategorical:
    """``v = F^-1(sigmoid(score))`` in the order of the categories: increasing.

    The score is float64: cells can be thin.
    """

    one_hot: bool = False
    thresholds: Callable[[Any], Tensor] = _category_thresholds
    name: str = "inverse_cdf"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, category_logits(fn), torch.float64)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The category whose cell holds the score."""
        logits = category_logits(fn)
        found = (noise.unsqueeze(-1) > self.thresholds(fn)).sum(-1)
        return _category(found, self.one_hot, logits)

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score, mapped into the value's cell."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score truncated to the value's cell."""
        logits = category_logits(fn)
        edges = self.thresholds(fn)
        infinite = torch.full_like(edges[..., :1], torch.inf)
        wins = _wins(value, self.one_hot, logits)
        low = torch.where(wins, torch.cat([-infinite, edges], -1), 0.0).sum(-1)
        high = torch.where(wins, torch.cat([edges, infinite], -1), 0.0).sum(-1)
        return inside(truncated(low, high, base), low, high, torch.finfo(logits.dtype).eps)


def _wins(value: Tensor, is_one_hot: bool, logits: Tensor) -> Tensor:
    if is_one_hot:
        return value > 0.5
    return value.unsqueeze(-1) == torch.arange(logits.shape[-1], device=logits.device)


def _category(index: Tensor, is_one_hot: bool, logits: Tensor) -> Tensor:
    if not is_one_hot:
        return index
    return (index.unsqueeze(-1) == torch.arange(logits.shape[-1], device=logits.device)).to(
        logits.dtype
    )


register_mechanism(torch.distributions.Bernoulli, MonotoneBernoulli())
register_mechanism(torch.distributions.Categorical, GumbelMax())
register_mechanism(torch.distributions.Categorical, OrderedCategorical())
register_mechanism(torch.distributions.OneHotCategorical, GumbelMax(one_hot=True))
register_mechanism(torch.distributions.OneHotCategorical, OrderedCategorical(one_hot=True))
register_mechanism(dist.OrderedLogistic, OrderedCategorical(thresholds=_cutpoints))
register_mechanism(dist.OrderedLogistic, GumbelMax())
