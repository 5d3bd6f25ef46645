"""Other couplings of the same laws: antitone and independent worlds, for every family that is monotone in one noise.

The parents of a site do not tell how its worlds are coupled. With ``y ~ Normal(x, 1)``, the probability that ``y`` grows as
``x`` goes from 0 to 1 is 1.00 when the noise is shared ("affine"), .691 when it is reflected and .760 when it is independent,
and no data on one world at a time can tell the three apart. These two are relative to the world in which the noise was
abducted: where the parameters are what they were there, the value is what it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from . import relaxed  # noqa: F401  (registers a family that gets its couplings here)
from .circular import Rotation
from .counts import MonotoneCount, MonotoneGeometric
from .discrete import MonotoneBernoulli, OrderedCategorical
from .inverse_cdf import InverseCDF
from .location_scale import LOCATION_SCALE
from .logistic import log1mexp
from .numerical_cdf import NumericalCDF
from .protocol import Mechanism, NoiseDistribution, TupleDistribution
from .registry import all_registered, register_mechanism, registered

__all__ = ["Antitone", "IndependentWorlds"]


@dataclass(frozen=True)
class _Constant:
    """The law of a noise that is always NaN: no world of reference."""

    shape: torch.Size
    device: torch.device

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """``sample_shape + shape``."""
        shape = (*sample_shape, *self.shape)
        return torch.full(shape, math.nan, dtype=torch.float64, device=self.device)


@dataclass(frozen=True)
class _Keys:
    """The law of 62-bit integers."""

    shape: torch.Size
    device: torch.device

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
        """``sample_shape + shape``."""
        return torch.randint(2**62, (*sample_shape, *self.shape), device=self.device)


def _parts(fn: Any) -> Iterator[tuple[Tensor, Tensor | float]]:
    """Each parameter with the unit in which its differences count, both of shape ``batch_shape + own dimensions``."""
    named = dict(fn.arg_constraints)
    if "probs" in named and "logits" in named:
        del named["probs"], named["logits"]
        yield fn._param, 0.0 if fn._param is fn.__dict__.get("probs") else 1.0
    if "temperature" in fn.__dict__:
        yield torch.as_tensor(fn.temperature), 0.0
    for name, constraint in named.items():
        unit: Tensor | float = 0.0
        if name == "loc" and "scale" in named:
            unit = fn.scale
        elif name in ("low", "high") and "low" in named:
            unit = (fn.high - fn.low).abs()
        elif constraint is constraints.real:
            unit = 1.0
        yield torch.as_tensor(getattr(fn, name)), unit


def _parameters(fn: Any) -> tuple[Tensor, Tensor]:
    """All parameters and their units in one tensor each, float64, shape ``batch_shape + (numbers,)``."""
    batch = fn.batch_shape
    values: list[Tensor] = []
    units: list[Tensor] = []
    for value, unit in _parts(fn):
        own = value.shape[len(batch) :]
        for part, found in ((value, values), (torch.as_tensor(unit).expand(value.shape), units)):
            flat = part.detach().double().expand((*batch, *own))
            found.append(flat.reshape((*batch, math.prod(own))))
    return torch.cat(values, -1), torch.cat([unit.to(values[0].device) for unit in units], -1)


def _nowhere(fn: Any) -> _Constant:
    # prior noise has no reference world: NaN is near nothing
    values = _parameters(fn)[0]
    return _Constant(values.shape, values.device)


def _near(fn: Any, reference: Tensor) -> Tensor:
    """Whether the parameters are those of the reference, to 1e-6 relative; shape ``batch_shape``."""
    values, units = _parameters(fn)
    room = 1e-6 * torch.maximum(reference.abs(), units)
    return ((values == reference) | ((values - reference).abs() <= room)).all(-1)


def _negative(noise: Tensor) -> Tensor:
    return -noise


def _reflected_gumbel(noise: Tensor) -> Tensor:
    # F(z) = exp(-exp(-z)): the point with survival F(z) is -log(-log(1 - F(z)))
    return -torch.log(-log1mexp(-torch.exp(-noise)))


@dataclass(frozen=True)
class Antitone:
    """``v = f(e)`` with ``e`` the noise in the reference world and its reflection where the parameters differ.

    The reflection of ``e`` is ``F^-1(1 - F(e))``: ``-e`` for symmetric noise, as logistic scores are. The noise is the pair of
    ``e`` and the reference parameters, the latter NaN for prior noise, which is increasing.

    Args:
        inner: a mechanism that is monotone in one noise of shape ``batch_shape``.
        reflect: the reflection of its noise.
    """

    inner: Mechanism
    reflect: Callable[[Tensor], Tensor] = _negative
    name: str = "antitone"

    @property
    def invertible(self) -> bool:
        """Whether the shared noise is a function of the value."""
        return self.inner.invertible

    def noise(self, fn: Any) -> NoiseDistribution:
        """The monotone mechanism's noise without a reference world."""
        return TupleDistribution(self.inner.noise(fn), _nowhere(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The value with shared noise in the reference world, with reflected noise elsewhere."""
        shared, reference = noise
        kept = _near(fn, reference) | torch.isnan(reference).any(-1)
        return self.inner.forward(fn, torch.where(kept, shared, self.reflect(shared)))

    def base(self, fn: Any) -> NoiseDistribution:
        """What the monotone mechanism needs."""
        return self.inner.base(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, Tensor]:
        """The monotone mechanism's noise, with this world as the reference."""
        shared: Any = self.inner.abduct(fn, value, base)
        return shared, _reference(fn, shared)


def _reference(fn: Any, shared: Tensor) -> Tensor:
    values = _parameters(fn)[0]
    return values.expand((*shared.shape, values.shape[-1]))


def _mix(word: Tensor) -> Tensor:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014, Fast splittable pseudorandom number generators)."""
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        word = (word ^ _shifted(word, shift)) * factor
    return word ^ _shifted(word, 31)


def _shifted(word: Tensor, bits: int) -> Tensor:
    return (word >> bits) & ((1 << (64 - bits)) - 1)  # torch's shift copies the sign


def _rounded(value: Tensor, unit: Tensor) -> Tensor:
    """The bits of ``value`` in steps of about ``2**-12`` of the larger of itself and ``unit``."""
    size = torch.maximum(value.abs(), unit).clamp(1e-300, 1e300)
    step = torch.exp2(torch.floor(torch.log2(size)) - 12)
    return (torch.round(value / step) * step + 0.0).view(torch.int64)


def _hashed_uniform(key: Tensor, fn: Any) -> Tensor:
    """A uniform in (0, 1), float64, that is a function of a key and of rounded parameters."""
    word = _mix(key)
    for bits in _rounded(*_parameters(fn)).unbind(-1):
        word = _mix(word + _mix(bits - 0x61C8864680B583EB))
    return (_shifted(word, 12).double() + 0.5) * 2.0**-52


@dataclass(frozen=True)
class IndependentWorlds:
    """``v = f(e(parameters))``: a random field, the same for equal parameters, independent for different ones.

    The noise is the tuple of a key, the field's value in the reference world, and the reference parameters. Elsewhere the field
    is a hash of the key and of the parameters, these rounded to about 12 bits so that round-off does not change it; so any
    further worlds are independent of each other too.

    Args:
        inner: a mechanism with one noise of shape ``batch_shape``.
        quantile: the quantile function of that noise.
    """

    inner: Mechanism
    quantile: Callable[[Tensor], Tensor] = torch.logit
    name: str = "independent"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """A key, and no reference world."""
        return TupleDistribution(self._keys(fn), self.inner.noise(fn), _nowhere(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The value with the field's noise at the parameters of ``fn``."""
        key, shared, reference = noise
        with torch.no_grad():
            elsewhere = self.quantile(_hashed_uniform(key, fn)).to(shared.dtype)
            kept = _near(fn, reference)
        return self.inner.forward(fn, torch.where(kept, shared, elsewhere))

    def _keys(self, fn: Any) -> _Keys:
        return _Keys(fn.batch_shape, _nowhere(fn).device)

    def base(self, fn: Any) -> NoiseDistribution:
        """The key, and what the other mechanism needs."""
        return TupleDistribution(self._keys(fn), self.inner.base(fn))

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, ...]:
        """A fresh key, and the other mechanism's noise with this world as the reference."""
        shared: Any = self.inner.abduct(fn, value, None if self.inner.invertible else base[1])
        return base[0], shared, _reference(fn, shared)


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

for _family in LOCATION_SCALE:
    _affine = registered(_family)["affine"]
    _reflect = _reflected_gumbel if _family is torch.distributions.Gumbel else _negative
    register_mechanism(_family, Antitone(_affine, _reflect))
    register_mechanism(_family, IndependentWorlds(_affine, _QUANTILES[_family]))

#: Mechanisms whose noise is one logistic score.
_SCORED = (
    InverseCDF,
    MonotoneBernoulli,
    MonotoneCount,
    MonotoneGeometric,
    NumericalCDF,
    OrderedCategorical,
    Rotation,
)

for _family, _mechanisms in all_registered():
    for _mechanism in _mechanisms:
        if isinstance(_mechanism, _SCORED):
            register_mechanism(_family, Antitone(_mechanism))
            register_mechanism(_family, IndependentWorlds(_mechanism))
