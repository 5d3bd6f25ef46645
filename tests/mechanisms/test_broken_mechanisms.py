"""Each law against a mechanism that breaks it and nothing simpler: the suite has to notice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from composed_cases import folded

from causalppl.mechanisms import laws
from causalppl.mechanisms.compound import BetaThenBinomial
from causalppl.mechanisms.counts import binomial_threshold, score_within
from causalppl.mechanisms.dirichlet import NormalisedGammas
from causalppl.mechanisms.discrete import GumbelMax, MonotoneBernoulli
from causalppl.mechanisms.location_scale import Affine
from causalppl.mechanisms.mixtures import FoldedSign
from causalppl.mechanisms.multivariate import Cholesky
from causalppl.mechanisms.special import BetaLaw, GammaLaw

_NORMAL: Any = ({"loc": 1.0, "scale": 2.0}, {"loc": -0.7, "scale": 0.6})
_CATEGORICAL: Any = ({"probs": [0.2, 0.3, 0.5]}, {"probs": [0.5, 0.3, 0.2]})
_COMPOUND: Any = (
    {"concentration1": 2.0, "concentration0": 3.0, "total_count": 9},
    {"concentration1": 0.4, "concentration0": 0.7, "total_count": 9},
)
_SIMPLEX: Any = ({"concentration": [0.5, 2.0, 1.0]}, {"concentration": [3.0, 0.7, 5.0]})
_VECTOR: Any = (
    {"loc": [1.0, 2.0], "scale_tril": [[1.0, 0.0], [0.5, 2.0]]},
    {"loc": [0.0, -2.0], "scale_tril": [[0.3, 0.0], [-1.0, 1.0]]},
)


@dataclass(frozen=True)
class _Normal(Affine):
    standard: Callable[..., Any] = dist.Normal


class ForgetsScale(_Normal):
    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        return value - fn.loc


class WrongScale(_Normal):
    """By 15 percent."""

    def forward(self, fn: Any, noise: Any) -> Any:
        return fn.loc + 1.15 * fn.scale * noise

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        return (value - fn.loc) / (1.15 * fn.scale)


class NoiseOfParents(_Normal):
    def noise(self, fn: Any) -> Any:
        return fn

    def forward(self, fn: Any, noise: Any) -> Any:
        return noise

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        return value


class Detached(_Normal):
    def forward(self, fn: Any, noise: Any) -> Any:
        return super().forward(fn, noise) - fn.loc + fn.loc.detach()


class ReadsValues(_Normal):
    def forward(self, fn: Any, noise: Any) -> Any:
        return fn.loc.item() + fn.scale * noise if noise.dim() == 0 else super().forward(fn, noise)


class BurnsIn(_Normal):
    def forward(self, fn: Any, noise: Any) -> Any:
        return torch.tensor(fn.loc.tolist(), dtype=noise.dtype) + fn.scale * noise


class SharedNoise(_Normal):
    def noise(self, fn: Any) -> Any:
        return dist.Normal(fn.loc.new_zeros(()), 1.0).expand(fn.batch_shape[:1] or ())


class ScoreOfHalfLine(MonotoneBernoulli):
    """Puts the noise at a point of its cell: right values, wrong law."""

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        return torch.where(value > 0.5, 1.0, -1.0) - fn.logits


class UntruncatedGumbels(GumbelMax):
    """Lifts the winner above the others instead of truncating them."""

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        scores = fn.logits + base
        wins = value.unsqueeze(-1) == torch.arange(scores.shape[-1])
        top = scores.max(-1, keepdim=True).values + 1
        return torch.where(wins, top, scores) - fn.logits


class ProbabilityOfPrior(BetaThenBinomial):
    """Draws the probability without a look at the count: right values, wrong law of the noise."""

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        odds = BetaLaw(fn.concentration1.double(), fn.concentration0.double()).point(base[0])
        threshold = partial(binomial_threshold, fn.total_count.double(), odds)
        return base[0], score_within(threshold, value, base[1])


class FixedSum(NormalisedGammas):
    """Puts the sum that the normalisation lost at its mean."""

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        concentration = fn.concentration.double()
        return GammaLaw(concentration).score(
            torch.log(value.double() * concentration.sum(-1, keepdim=True))
        )


class DependentParts(Cholesky):
    """Noises that are standard normal each, but of one sign."""

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        first, second = super().abduct(fn, value, base).unbind(-1)
        return torch.stack([first, second.abs() * first.sign()], -1)


class SignOfValue(FoldedSign):
    """Takes the sign to be positive always."""

    def abduct(self, fn: Any, value: Any, base: Any) -> Any:
        return self.inner.abduct(fn.base_dist, value, base[1])


@pytest.mark.parametrize(
    ("law", "mechanism", "family", "worlds"),
    [
        (laws.round_trip, ForgetsScale(), dist.Normal, _NORMAL),
        (laws.value_law, WrongScale(), dist.Normal, _NORMAL),
        (laws.noise_law, WrongScale(), dist.Normal, _NORMAL),
        (laws.exogenous, NoiseOfParents(), dist.Normal, _NORMAL),
        (laws.batches, SharedNoise(), dist.Normal, _NORMAL),
        (laws.gradients, Detached(), dist.Normal, _NORMAL),
        (laws.noise_law, ScoreOfHalfLine(), dist.Bernoulli, ({"probs": 0.7}, {"probs": 0.4})),
        (laws.noise_law, UntruncatedGumbels(), dist.Categorical, _CATEGORICAL),
        (laws.noise_law, ProbabilityOfPrior(), dist.BetaBinomial, _COMPOUND),
        (laws.noise_law, FixedSum(), dist.Dirichlet, _SIMPLEX),
        (laws.noise_law, DependentParts(), dist.MultivariateNormal, _VECTOR),
        (laws.noise_law, SignOfValue(Affine(dist.Normal)), folded, _NORMAL),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_law_notices(law: Any, mechanism: Any, family: Any, worlds: Any) -> None:
    draws = 1000 if family in (dist.BetaBinomial, dist.Dirichlet) else 8000  # as in the suite
    with pytest.raises(laws.LawError, match=f"law {law.__name__!r} fails"):
        law(laws.MechanismCase(family, *worlds, mechanism, draws=draws))


@pytest.mark.parametrize("mechanism", [ReadsValues(), BurnsIn()])
def test_python_values_stop_vmap_and_traces(mechanism: Any) -> None:
    case = laws.MechanismCase(dist.Normal, *_NORMAL, mechanism)
    for law in (laws.vectorises, laws.traces):
        with pytest.raises((laws.LawError, RuntimeError)):
            law(case)
