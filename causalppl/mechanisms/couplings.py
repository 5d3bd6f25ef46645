"""Other couplings of the same laws: antitone and independent worlds, for location-scale families.

Both are relative to the world in which the noise was abducted: where the parents are what they were there, the value is what
it was; where they differ, the noise is reflected, or drawn anew as a function of the parents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .location_scale import Affine
from .protocol import NoiseDistribution, TupleDistribution
from .registry import register_mechanism

__all__ = ["Antitone", "Independent"]

_AFFINE = Affine()
_MASK = 0x7FFFFFFF


def _parents(fn: Any) -> tuple[Tensor, Tensor]:
    shape = fn.batch_shape
    return fn.loc.expand(shape), fn.scale.expand(shape)


def _unchanged(fn: Any, loc: Tensor, scale: Tensor) -> Tensor:
    def near(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs() <= 1e-5 * (1.0 + b.abs())

    now = _parents(fn)
    never = torch.isnan(loc)  # prior noise has no reference world: any world is as good as the factual one
    return never | (near(now[0], loc) & near(now[1], scale))


def _nowhere(fn: Any) -> NoiseDistribution:
    return dist.Delta(torch.full(fn.batch_shape, float("nan"), dtype=fn.loc.dtype, device=fn.loc.device))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Antitone:
    """``v = loc + s scale * noise``, ``s`` being 1 in the reference world and -1 where its parents differ.

    The noise is a tuple: standard noise, reference location and scale.
    """

    name: str = "antitone"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Standard noise without a reference world."""
        return TupleDistribution(_AFFINE.noise(fn), _nowhere(fn), _nowhere(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """See the class."""
        standard, loc, scale = noise
        return _AFFINE.forward(fn, torch.where(_unchanged(fn, loc, scale), standard, -standard))

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, ...]:
        """Standard noise, and the parents' parameters as reference."""
        return (_AFFINE.abduct(fn, value, None), *_parents(fn))


def _scramble(word: Tensor) -> Tensor:
    # A multiply-xorshift hash on 31 bits; products stay inside int64.
    for factor in (0x45D9F3B, 0x45D9F3B):
        word = ((word ^ (word >> 16)) * factor) & _MASK
    return word ^ (word >> 16)


def _word(value: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(value)
    return (mantissa * 4096).round().long() + exponent.long() * 16384 + 2**24


@dataclass(frozen=True)
class Independent:
    """Worlds with different parents have independent noise; worlds with equal parents the same.

    The noise is a random field over parents: a key, and what the field is at the reference world. Elsewhere it is a hash of the
    key and the parents' parameters, rounded to 12 bits of mantissa so that round-off does not change it.
    """

    name: str = "independent"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Key, standard noise, no reference world."""
        return TupleDistribution(self.base(fn), _AFFINE.noise(fn), _nowhere(fn), _nowhere(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """See the class."""
        key, standard, loc, scale = noise
        now = _parents(fn)
        word = _scramble(_scramble(_scramble((key * _MASK).long()) + _word(now[0])) + _word(now[1]))
        # 24 bits, in the middle of their cell: exactly representable in float32, never 0 or 1
        uniform = ((word & 0xFFFFFF).double() + 0.5) / 2**24
        elsewhere = _AFFINE.noise(fn).icdf(uniform.to(standard.dtype).clamp(1e-7, 1 - 1e-7))  # type: ignore[attr-defined]
        return _AFFINE.forward(fn, torch.where(_unchanged(fn, loc, scale), standard, elsewhere))

    def base(self, fn: Any) -> NoiseDistribution:
        """The key."""
        zero = torch.zeros((), dtype=torch.float64, device=fn.loc.device)
        return dist.Uniform(zero, zero + 1).expand(fn.batch_shape)  # type: ignore[no-any-return]

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, ...]:
        """The key, and the standard noise with the parents' parameters as reference."""
        return (base, _AFFINE.abduct(fn, value, None), *_parents(fn))


for _family in (
    torch.distributions.Normal,
    torch.distributions.Laplace,
    torch.distributions.Cauchy,
    torch.distributions.Gumbel,
    dist.Logistic,
):
    register_mechanism(_family, Antitone())
    register_mechanism(_family, Independent())
