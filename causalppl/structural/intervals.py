"""Ranges as evidence: draws inside them, and how probable they are, where the noise has quantiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..mechanisms import Mechanism
from ..mechanisms.logistic import StandardLogistic, log1mexp, softplus, truncated
from .sites import elements

__all__ = ["draw_inside", "has_quantiles", "log_mass"]

#: Mechanisms that are monotone in each entry's noise.
_MONOTONE = ("affine", "inverse_cdf")


def has_quantiles(mechanism: Mechanism | None, fn: Any) -> bool:
    """Whether values can be drawn inside a range at once, by truncating the noise of independent entries."""
    return (
        mechanism is not None
        and mechanism.invertible
        and mechanism.name in _MONOTONE
        and elements(fn) is not None
    )


def _law(mechanism: Mechanism, fn: Any) -> Any:
    law: Any = mechanism.noise(fn)
    while isinstance(law, torch.distributions.Independent) or hasattr(law, "law"):
        law = law.law if hasattr(law, "law") else law.base_dist
    return law


def _score(law: Any, noise: Tensor) -> Tensor:
    """The logistic score of a noise: log distribution function minus log survival."""
    z = noise.double()
    if isinstance(law, StandardLogistic):
        return z
    if isinstance(law, torch.distributions.Normal):
        return torch.special.log_ndtr(z) - torch.special.log_ndtr(-z)
    u = law.cdf(z)
    return torch.log(u) - torch.log1p(-u)


def _noise(law: Any, score: Tensor) -> Tensor:
    if isinstance(law, StandardLogistic):
        return score
    if isinstance(law, torch.distributions.Normal):
        tail = torch.special.ndtri(torch.sigmoid(-score.abs()))
        return torch.where(score < 0, tail, -tail)
    return law.icdf(torch.sigmoid(score))  # type: ignore[no-any-return]


def _scores(
    mechanism: Mechanism, fn: Any, interval: tuple[Tensor, Tensor]
) -> tuple[Any, Tensor, Tensor]:
    """The noise's law, and the scores of the lower and the upper end; infinite where an end leaves the support."""
    law, support = _law(mechanism, fn), elements(fn).support
    lowest = getattr(support, "lower_bound", -torch.inf)
    highest = getattr(support, "upper_bound", torch.inf)
    scores = []
    for end in interval:
        found = _score(law, mechanism.abduct(fn, end, None))  # type: ignore[arg-type]
        found = torch.where((end <= lowest) | torch.isneginf(end), -torch.inf, found)
        scores.append(torch.where((end >= highest) | torch.isposinf(end), torch.inf, found))
    return law, torch.minimum(*scores), torch.maximum(*scores)


def log_mass(mechanism: Mechanism, fn: Any, interval: tuple[Tensor, Tensor]) -> Tensor:
    """``log P(low <= v <= high)`` of each entry, in nats, accurate in both tails."""
    _, low, high = _scores(mechanism, fn, interval)
    # in the tail where both are small: log(exp(a) - exp(b)) = a + log(1 - exp(b - a))
    flip = low > 0
    a = torch.where(flip, -softplus(low), -softplus(-high))
    b = torch.where(flip, -softplus(high), -softplus(-low))
    return torch.where(a > -torch.inf, a + log1mexp((b - a).clamp(max=0.0)), -torch.inf)


def draw_inside(
    mechanism: Mechanism, fn: Any, interval: tuple[Tensor, Tensor], noise: Tensor
) -> Tensor:
    """The value in the range whose noise is ``noise``, truncated: an increasing function of it."""
    law, low, high = _scores(mechanism, fn, interval)
    inside = _noise(law, truncated(low, high, _score(law, noise)))
    value = mechanism.forward(fn, inside.to(noise.dtype))
    return torch.minimum(torch.maximum(value, interval[0]), interval[1]).to(value.dtype)
