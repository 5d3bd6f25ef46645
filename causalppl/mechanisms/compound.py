"""Counts in steps: a beta-binomial's probability is drawn first, a multinomial's categories follow one another.

Abduction of a compound count is by conjugacy: the latent probability has a Beta or Dirichlet posterior given the count. The
noise of the count is truncated at the probability that the noise of the first step gives back, so that values return exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .counts import binomial_threshold, count_at, score_within
from .discrete import GumbelMax
from .logistic import standard_logistic
from .logits import category_logits
from .protocol import NoiseDistribution, TupleDistribution
from .registry import register_mechanism
from .special import BetaLaw, GammaLaw

__all__ = ["BetaThenBinomial", "CategoriesInTurn", "CountsOfDraws", "DirichletThenMultinomial"]


@dataclass(frozen=True)
class BetaThenBinomial:
    """``v = F_n,p^-1(sigmoid(score_2))`` with ``p`` the Beta quantile of ``score_1``: increasing in both scores."""

    name: str = "beta_then_binomial"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Two logistic scores in float64, batch shape ``fn.batch_shape``."""
        score = standard_logistic(fn.batch_shape, fn.concentration1, torch.float64)
        return TupleDistribution(score, score)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The number of successes."""
        total = fn.total_count.double()
        with torch.no_grad():
            odds = _prior(fn).point(noise[0])
        count = count_at(partial(binomial_threshold, total, odds), noise[1], total + 0 * odds)
        return count.to(fn.concentration1.dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """A score for the probability's posterior, and one mapped into the value's cell."""
        return self.noise(fn)

    @torch.no_grad()
    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, Tensor]:
        """The probability from its posterior ``Beta(a + v, b + n - v)``, then the count's score."""
        prior, count, total = _prior(fn), value.double(), fn.total_count.double()
        posterior = BetaLaw(prior.a + count, prior.b + total - count)
        first = prior.score(posterior.point(base[0]))
        threshold = partial(binomial_threshold, total, prior.point(first))
        return first, score_within(threshold, value, base[1])


def _prior(fn: Any) -> BetaLaw:
    return BetaLaw(fn.concentration1.double(), fn.concentration0.double())


def _turns(logits: Tensor) -> list[Tensor]:
    """Log odds of each category but the last against all after it, each of shape ``batch_shape``."""
    after = torch.logcumsumexp(logits.double().flip(-1), -1).flip(-1)
    none = torch.isneginf(after[..., 1:])
    rest = torch.where(none, 0.0, after[..., 1:])
    odds = torch.where(none, torch.inf, logits[..., :-1].double() - rest)
    return list(odds.unbind(-1))


def _dealt(logits: Tensor, total: Tensor, scores: Tensor) -> Tensor:
    """Counts of all categories from the scores of all but the last, float64."""
    left, counts = total.double().expand(logits.shape[:-1]), []
    for odds, score in zip(_turns(logits), scores.unbind(-1), strict=True):
        counts.append(count_at(partial(binomial_threshold, left, odds), score, left + 0 * score))
        left = left - counts[-1]
    return torch.stack(torch.broadcast_tensors(*counts, left), -1)


def _scores(logits: Tensor, total: Tensor, value: Tensor, base: Tensor) -> Tensor:
    """Scores truncated to the cells of the counts."""
    left, scores = total.double().expand(logits.shape[:-1]), []
    for i, odds in enumerate(_turns(logits)):
        threshold = partial(binomial_threshold, left, odds)
        scores.append(score_within(threshold, value[..., i], base[..., i]))
        left = left - value[..., i].double()
    return torch.stack(scores, -1) if scores else base


def _total(fn: Any, like: Tensor) -> Tensor:
    return torch.as_tensor(fn.total_count, device=like.device)


@dataclass(frozen=True)
class CategoriesInTurn:
    """``v_1`` is binomial, ``v_2`` binomial among the trials that are left, and so on, each by its inverse distribution function.

    The order of the categories is an assumption about the mechanism; the last one takes what is left.
    """

    name: str = "inverse_cdf"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, shape ``batch_shape + (categories - 1,)``."""
        logits = category_logits(fn)
        shape = torch.Size((*fn.batch_shape, logits.shape[-1] - 1))
        return standard_logistic(shape, logits, torch.float64)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """Counts, in the order of the categories."""
        logits = category_logits(fn)
        return _dealt(logits, _total(fn, logits), noise).to(logits.dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """Logistic scores, mapped into the counts' cells."""
        return self.noise(fn)

    @torch.no_grad()
    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The scores truncated to the counts' cells."""
        logits = category_logits(fn)
        return _scores(logits, _total(fn, logits), value, base)


@dataclass(frozen=True)
class CountsOfDraws:
    """``v`` counts ``total_count`` categorical draws, each by Gumbel-max: what happens to one trial does not touch another.

    Which draws fell into which category is lost in the count; abduction deals them out at random.
    """

    name: str = "gumbel_max"
    invertible: bool = False

    def _draws(self, fn: Any) -> Any:
        logits = category_logits(fn).unsqueeze(-2)
        law = dist.Categorical(logits=logits, validate_args=False)
        return law.expand((*fn.batch_shape, fn.total_count))

    def noise(self, fn: Any) -> NoiseDistribution:
        """Gumbel(0, 1), shape ``batch_shape + (total_count, categories)``."""
        return GumbelMax().noise(self._draws(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """Counts of the winners."""
        return GumbelMax(one_hot=True).forward(self._draws(fn), noise).sum(-2)

    def base(self, fn: Any) -> NoiseDistribution:
        """A key for each draw, whose order deals the draws out, and Gumbels."""
        logits = category_logits(fn)
        shape = torch.Size((*fn.batch_shape, fn.total_count))
        return TupleDistribution(standard_logistic(shape, logits, torch.float64), self.noise(fn))

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """Gumbels of every draw given its category."""
        keys, gumbels = base
        place = keys.argsort(-1).argsort(-1).unsqueeze(-1)
        category = (place >= value.cumsum(-1).unsqueeze(-2)).sum(-1)
        return GumbelMax().abduct(self._draws(fn), category, gumbels)


@dataclass(frozen=True)
class DirichletThenMultinomial:
    """Probabilities by normalised Gammas, then the categories in turn."""

    name: str = "dirichlet_then_multinomial"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic scores in float64 of the Gammas, ``batch_shape + (categories,)``, and of the counts, one fewer."""
        like, kinds = fn.concentration, fn.event_shape[0]
        first, second = (torch.Size((*fn.batch_shape, n)) for n in (kinds, kinds - 1))
        return TupleDistribution(
            standard_logistic(first, like, torch.float64),
            standard_logistic(second, like, torch.float64),
        )

    def _logits(self, fn: Any, scores: Tensor) -> Tensor:
        return torch.log_softmax(GammaLaw(fn.concentration.double()).point(scores), -1)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """Counts, in the order of the categories."""
        with torch.no_grad():
            logits = self._logits(fn, noise[0])
        return _dealt(logits, _total(fn, logits), noise[1]).to(fn.concentration.dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """Scores for the probabilities' posterior, for the sum of the Gammas, and for the counts' cells."""
        total = standard_logistic(fn.batch_shape, fn.concentration, torch.float64)
        return TupleDistribution(*self.noise(fn).parts, total)  # type: ignore[attr-defined]

    @torch.no_grad()
    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, Tensor]:
        """The probabilities from their posterior ``Dirichlet(concentration + v)``, then the noises of both steps."""
        prior = fn.concentration.double()
        shares = torch.log_softmax(GammaLaw(prior + value.double()).point(base[0]), -1)
        log_sum = GammaLaw(prior.sum(-1)).point(base[2]).unsqueeze(-1)
        scores = GammaLaw(prior).score(shares + log_sum)
        logits = self._logits(fn, scores)
        return scores, _scores(logits, _total(fn, logits), value, base[1])


register_mechanism(dist.BetaBinomial, BetaThenBinomial())
register_mechanism(torch.distributions.Multinomial, CategoriesInTurn())
register_mechanism(torch.distributions.Multinomial, CountsOfDraws())
register_mechanism(dist.DirichletMultinomial, DirichletThenMultinomial())
