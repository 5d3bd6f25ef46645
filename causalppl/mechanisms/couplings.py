"""Other couplings of the same laws: antitone and independent worlds, for location-scale families.

The parents of a continuous site do not tell how its worlds are coupled. With ``y ~ Normal(x, 1)``, the probability that
``y`` grows as ``x`` goes from 0 to 1 is 1.00 when the noise is shared ("affine"), .691 when it is reflected and .760 when it is
independent, and no data on one world at a time can tell the three apart. These two are relative to the world in which the
noise was abducted: where the parameters are what they were there, the value is what it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .location_scale import LOCATION_SCALE, Affine
from .logistic import log1mexp
from .protocol import NoiseDistribution, TupleDistribution
from .registry import register_mechanism

__all__ = ["Antitone", "IndependentWorlds"]


@dataclass(frozen=True)
class _Constant:
    """The law of a noise that is always ``value``."""

    value: float
    shape: torch.Size
    like: Tensor

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """``sample_shape + shape``."""
        return torch.full(
            (*sample_shape, *self.shape), self.value, dtype=self.like.dtype, device=self.like.device
        )


@dataclass(frozen=True)
class _Keys:
    """The law of 62-bit integers."""

    shape: torch.Size
    device: torch.device

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """``sample_shape + shape``."""
        return torch.randint(2**62, (*sample_shape, *self.shape), device=self.device)


def _nowhere(fn: Any) -> tuple[_Constant, _Constant]:
    # prior noise has no reference world: NaN is near nothing
    return (
        _Constant(math.nan, fn.batch_shape, fn.loc),
        _Constant(math.nan, fn.batch_shape, fn.scale),
    )


def _near(fn: Any, loc: Tensor, scale: Tensor) -> Tensor:
    """Whether the parameters are those of the reference, to 1e-6 relative."""
    same_loc = (fn.loc - loc).abs() <= 1e-6 * (loc.abs() + scale)
    return same_loc & ((fn.scale - scale).abs() <= 1e-6 * scale)


def _negative(noise: Tensor) -> Tensor:
    return -noise


def _reflected_gumbel(noise: Tensor) -> Tensor:
    # F(z) = exp(-exp(-z)): the point with survival F(z) is -log(-log(1 - F(z)))
    return -torch.log(-log1mexp(-torch.exp(-noise)))


@dataclass(frozen=True)
class Antitone:
    """``v = loc + scale * e`` with ``e`` the noise in the reference world and its reflection where the parameters differ.

    The reflection of ``e`` is ``F^-1(1 - F(e))``: ``-e`` for the symmetric families. The noise is the tuple of ``e`` and the
    reference location and scale, each of shape ``batch_shape``; the latter are NaN for prior noise, which is increasing.
    """

    affine: Affine
    reflect: Callable[[Tensor], Tensor] = _negative
    name: str = "antitone"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Standard noise without a reference world."""
        return TupleDistribution(self.affine.noise(fn), *_nowhere(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The value with shared noise in the reference world, with reflected noise elsewhere."""
        shared, loc, scale = noise
        kept = _near(fn, loc, scale) | torch.isnan(loc)
        return self.affine.forward(fn, torch.where(kept, shared, self.reflect(shared)))

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, ...]:
        """The standard noise, with this world as the reference."""
        shared = self.affine.abduct(fn, value, None)
        return shared, fn.loc.expand_as(shared), fn.scale.expand_as(shared)


def _mix(word: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        word = (word ^ _shifted(word, shift)) * factor
    return word ^ _shifted(word, 31)


def _shifted(word: Tensor, bits: int) -> Tensor:
    return (word >> bits) & ((1 << (64 - bits)) - 1)  # torch's shift copies the sign


def _rounded(value: Tensor, unit: Tensor) -> Tensor:
    """The bits of ``value`` in steps of about ``2**-12`` of the larger of itself and ``unit``."""
    size = torch.maximum(value.abs(), unit.abs()).double()
    step = torch.exp2(torch.floor(torch.log2(size)) - 12)
    return (torch.round(value.double() / step) * step + 0.0).view(torch.int64)


def _hashed_uniform(key: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """A uniform in (0, 1), float64, that is a function of a key and of rounded parameters."""
    word = _mix(key)
    for bits in (_rounded(loc, scale), _rounded(scale, scale)):
        word = _mix(word + _mix(bits - 0x61C8864680B583EB))
    return (_shifted(word, 12).double() + 0.5) * 2.0**-52


@dataclass(frozen=True)
class IndependentWorlds:
    """``v = loc + scale * e(loc, scale)``: a random field, the same for equal parameters, independent for different ones.

    The noise is the tuple of a key, the field's value in the reference world, and the reference location and scale, each of
    shape ``batch_shape``. Elsewhere the field is a hash of the key and of the parameters, these rounded to about 12 bits so that
    round-off does not change it; so any further worlds are independent of each other too.
    """

    affine: Affine
    quantile: Callable[[Tensor], Tensor]
    name: str = "independent"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """A key, and no reference world."""
        return TupleDistribution(self.base(fn), self.affine.noise(fn), *_nowhere(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The value with the field's noise at the parameters of ``fn``."""
        key, shared, loc, scale = noise
        with torch.no_grad():
            elsewhere = self.quantile(_hashed_uniform(key, fn.loc, fn.scale)).to(shared.dtype)
            kept = _near(fn, loc, scale)
        return self.affine.forward(fn, torch.where(kept, shared, elsewhere))

    def base(self, fn: Any) -> NoiseDistribution:
        """The key."""
        return _Keys(fn.batch_shape, fn.loc.device)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, ...]:
        """A fresh key, and the standard noise with this world as the reference."""
        shared = self.affine.abduct(fn, value, None)
        return base, shared, fn.loc.expand_as(shared), fn.scale.expand_as(shared)


def _laplace(u: Tensor) -> Tensor:
    centred = u - 0.5
    return -centred.sign() * torch.log1p(-2 * centred.abs())


def _cauchy(u: Tensor) -> Tensor:
    return torch.tan(math.pi * (u - 0.5))


def _gumbel(u: Tensor) -> Tensor:
    return -torch.log(-torch.log(u))


def _soft_laplace(u: Tensor) -> Tensor:
    return torch.log(torch.tan(0.5 * math.pi * u))


_QUANTILES: dict[type, Callable[[Tensor], Tensor]] = {
    torch.distributions.Normal: torch.special.ndtri,
    torch.distributions.Laplace: _laplace,
    torch.distributions.Cauchy: _cauchy,
    torch.distributions.Gumbel: _gumbel,
    dist.Logistic: torch.logit,
    dist.SoftLaplace: _soft_laplace,
}

for _family, _standard in LOCATION_SCALE.items():
    _affine = Affine(_standard)
    _reflect = _reflected_gumbel if _family is torch.distributions.Gumbel else _negative
    register_mechanism(_family, Antitone(_affine, _reflect))
    register_mechanism(_family, IndependentWorlds(_affine, _QUANTILES[_family]))
