"""The logistic score: how noise of inverse distribution functions is kept.

A uniform score rounds to 1 in the upper tail. Its logit, ``s = log F - log S`` with distribution function ``F`` and survival
``S = 1 - F``, keeps both tails, and ``log F = -softplus(-s)``, ``log S = -softplus(s)``.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = [
    "StandardLogistic",
    "inverse_softplus",
    "inside",
    "log1mexp",
    "softplus",
    "standard_logistic",
    "truncated",
]


class StandardLogistic(dist.Logistic):  # type: ignore[misc]
    """Logistic(0, 1), drawn from a wide uniform: the logit of a float32 one is infinite now and then, and coarse in the upper tail."""

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # type: ignore[override]  # noqa: B008
        """Finite draws of shape ``sample_shape + batch_shape``, fine in both tails as far as 1e-16."""
        like = self.loc
        wide = torch.float32 if like.device.type == "mps" else torch.float64
        uniform = torch.rand(self._extended_shape(sample_shape), dtype=wide, device=like.device)
        # half of the smallest step above zero, which torch.rand gives too
        return uniform.clamp_(min=torch.finfo(wide).eps / 4).logit_().to(like.dtype)


def standard_logistic(
    shape: torch.Size, like: Tensor, dtype: torch.dtype | None = None
) -> StandardLogistic:
    """The law of a logistic score, batch shape ``shape``, in the dtype of ``like`` unless told, on its device."""
    zero = torch.zeros((), dtype=dtype or like.dtype, device=like.device)
    law: StandardLogistic = StandardLogistic(zero, zero + 1).expand(shape)
    return law


def softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x))`` to full precision (torch's default turns into ``x`` too early for float64)."""
    return torch.nn.functional.softplus(x, threshold=40.0)


def inverse_softplus(y: Tensor) -> Tensor:
    """``log(exp(y) - 1)`` for ``y >= 0``: the score whose minus log survival is ``y``."""
    return y + torch.log(-torch.expm1(-y))


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - exp(x))`` for ``x <= 0``, accurate at both ends, with finite gradients."""
    near = x > -math.log(2.0)
    small = torch.where(near, x, -1.0)
    large = torch.where(near, -1.0, x)
    return torch.where(near, torch.log(-torch.expm1(small)), torch.log1p(-torch.exp(large)))


def truncated(low: Tensor, high: Tensor, base: Tensor) -> Tensor:
    """A logistic score conditioned to lie in ``(low, high)``: an increasing function of the logistic score ``base``.

    Distribution function and survival are both linear in ``sigmoid(base)``; each is accurate in its own tail.
    """
    up, down = -softplus(-base), -softplus(base)
    log_cdf = torch.logaddexp(-softplus(-low) + down, -softplus(-high) + up)
    log_survival = torch.logaddexp(-softplus(low) + down, -softplus(high) + up)
    return torch.where(
        log_survival < log_cdf, inverse_softplus(-log_survival), -inverse_softplus(-log_cdf)
    )


def inside(score: Tensor, low: Tensor, high: Tensor, eps: float) -> Tensor:
    """``score`` kept a few units of round-off inside ``(low, high)``, or in the middle of a cell thinner than that.

    Thresholds that another executor computes with other round-off then still fall on the same side.
    """

    def room(edge: Tensor) -> Tensor:
        return 8 * eps * (1 + torch.where(torch.isinf(edge), 0.0, edge).abs())

    width = high - low
    lowest = low + torch.minimum(room(low), width / 2)
    highest = high - torch.minimum(room(high), width / 2)
    return torch.minimum(torch.maximum(score, lowest), highest)
