"""Directions: von Mises by rotation, projected normals, and the sine skewing of laws on a torus."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from .discrete import MonotoneBernoulli
from .logistic import log1mexp, softplus, standard_logistic
from .protocol import Mechanism, NoiseDistribution, TupleDistribution
from .registry import mechanism_for, register_mechanism, register_wrapper

__all__ = ["NormalDirection", "Rotation", "SineSkew", "VonMisesLaw"]

_STEPS, _DROP = 40, 45.0  # safeguarded Newton steps; nats beyond which a tail is cut off
_NODES, _WEIGHTS = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(64))


def _wrapped(angle: Tensor) -> Tensor:
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


@dataclass(frozen=True)
class VonMisesLaw:
    """The centred von Mises law on ``(-pi, pi)``; both tails in logs by Gauss and Legendre's rule. Float64, broadcasts."""

    concentration: Tensor

    def _log_tail(self, size: Tensor) -> Tensor:
        """The log of the integral of ``exp(k (cos t - 1))`` from ``size`` in ``[0, pi)`` to ``pi``."""
        k = self.concentration
        # the integrand has fallen by ``_DROP`` nats where cos t = cos(size) - _DROP / k, if it ever does
        fall = (1 + torch.cos(size)) * 0.5
        share = torch.clamp(_DROP / (2 * k.clamp(min=1e-12) * fall.clamp(min=1e-300)), max=1.0)
        # cos^2(end / 2) = cos^2(size / 2) (1 - share)
        end = 2 * torch.acos((torch.cos(size / 2) * torch.sqrt(1 - share)).clamp(max=1.0))
        width = torch.where(share < 1, end - size, math.pi - size).clamp(min=1e-300).detach()
        nodes = (0.5 * (_NODES.to(k.device) + 1)) * width.unsqueeze(-1)
        middle, half = size.unsqueeze(-1) + nodes / 2, nodes / 2
        # cos t - cos(size) = -2 sin((t + size) / 2) sin((t - size) / 2)
        values = torch.exp(-2 * k.unsqueeze(-1) * torch.sin(middle) * torch.sin(half))
        mass = (values * _WEIGHTS.to(k.device)).sum(-1) * width / 2
        return torch.log(mass) + k * (torch.cos(size) - 1)

    def log_density(self, angle: Tensor) -> Tensor:
        """Log density of the centred angle."""
        whole = math.log(2.0) + self._log_tail(torch.zeros_like(angle))
        return self.concentration * (torch.cos(angle) - 1) - whole

    def score(self, angle: Tensor) -> Tensor:
        """``log F - log S``, differentiable in the angle and in the concentration."""
        k, angle = torch.broadcast_tensors(self.concentration, angle)
        law = VonMisesLaw(k)
        size = angle.abs().clamp(max=math.pi * (1 - 1e-15))
        tail = law._log_tail(size) - law._log_tail(torch.zeros_like(size)) - math.log(2.0)
        score = log1mexp(tail.clamp(max=-math.log(2.0) + 1e-15)) - tail
        return torch.where(angle < 0, -score, score)

    def point(self, score: Tensor) -> Tensor:
        """The angle of a score, with first derivatives in the score and in the concentration."""
        with torch.no_grad():
            angle, slope = self._solve(score)
        return angle + (score - self.score(angle)) / slope

    def _solve(self, score: Tensor) -> tuple[Tensor, Tensor]:
        k, score = torch.broadcast_tensors(self.concentration, score)
        law, target = VonMisesLaw(k), -softplus(score.abs()) + math.log(2.0)
        whole = law._log_tail(torch.zeros_like(k))
        low, high = torch.zeros_like(k), torch.full_like(k, math.pi)
        angle = torch.minimum(high / 2, torch.sqrt(-2 * target / k.clamp(min=1e-12)))
        for _ in range(_STEPS):
            log_tail = law._log_tail(angle) - whole
            inside = log_tail > target  # the point is still short of the root
            low, high = torch.where(inside, angle, low), torch.where(inside, high, angle)
            slope = torch.exp(k * (torch.cos(angle) - 1) - whole - log_tail)
            moved = angle + (log_tail - target) / slope
            angle = torch.where((moved > low) & (moved < high), moved, (low + high) / 2)
        log_tail = law._log_tail(angle) - whole - math.log(2.0)
        steep = law.log_density(angle) - log_tail - log1mexp(log_tail.clamp(max=-1e-300))
        return torch.where(score < 0, -angle, angle), torch.exp(steep)


@dataclass(frozen=True)
class Rotation:
    """``v = loc + F^-1(sigmoid(score))`` modulo 2 pi, with ``F`` the centred law: a change of ``loc`` turns every value alike.

    Values lie in ``[-pi, pi)``. The centred angle increases with the score; the antipode of ``loc`` is where it is cut.
    """

    name: str = "rotation"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, batch shape ``fn.batch_shape``."""
        return standard_logistic(fn.batch_shape, fn.loc, torch.float64)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The angle."""
        centred = VonMisesLaw(fn.concentration.double()).point(noise)
        return _wrapped(fn.loc.double() + centred).to(fn.loc.dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed: the noise is a function of value and parents."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The score of the centred angle."""
        centred = _wrapped(value.double() - fn.loc.double())
        return VonMisesLaw(fn.concentration.double()).score(centred)


@dataclass(frozen=True)
class SineSkew:
    """``v = y`` where a gate's score exceeds minus its log odds, else ``2 loc - y``, modulo 2 pi; ``y`` by the base's mechanism.

    The gate is open with probability ``(1 + sum_i skew_i sin(y_i - loc_i)) / 2``. Since the base is symmetric about ``loc``, the
    value was reflected with probability one half, whatever it is, which makes abduction exact.
    """

    inner: Mechanism
    invertible: bool = False

    @property
    def name(self) -> str:
        """The base's, skewed."""
        return f"sine_skewed({self.inner.name})"

    def noise(self, fn: Any) -> NoiseDistribution:
        """The base's noise, and the gate's logistic score in float64, batch shape ``fn.batch_shape``."""
        gate = standard_logistic(fn.batch_shape, fn.skewness, torch.float64)
        return TupleDistribution(self.inner.noise(fn.base_dist), gate)

    def _gate(self, fn: Any, angle: Tensor) -> Any:
        tilt = fn.skewness * torch.sin(angle - fn.base_dist.mean)
        total = tilt.double().sum(-1).clamp(-1.0, 1.0)
        return dist.Bernoulli(logits=torch.log1p(total) - torch.log1p(-total), validate_args=False)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The angles."""
        angle = self.inner.forward(fn.base_dist, noise[0])
        kept = MonotoneBernoulli().forward(self._gate(fn, angle), noise[1]).unsqueeze(-1) > 0.5
        return _wrapped(torch.where(kept, angle, 2 * fn.base_dist.mean - angle))

    def base(self, fn: Any) -> NoiseDistribution:
        """For the reflection, for the gate's half line, and what the base's abduction needs."""
        gate = standard_logistic(fn.batch_shape, fn.skewness, torch.float64)
        return TupleDistribution(gate, gate, self.inner.base(fn.base_dist))

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Any, Tensor]:
        """Reflected or not, then both noises; the gate's at the angle that the base's noise gives back."""
        kept = base[0] > 0
        angle = torch.where(kept.unsqueeze(-1), value, _wrapped(2 * fn.base_dist.mean - value))
        for_base = None if self.inner.invertible else base[2]
        first = self.inner.abduct(fn.base_dist, angle, for_base)
        gate = self._gate(fn, self.inner.forward(fn.base_dist, first))
        return first, MonotoneBernoulli().abduct(gate, kept.double(), base[1])


@dataclass(frozen=True)
class NormalDirection:
    """``v = x / |x|`` with ``x = concentration + noise`` and standard normal noise.

    The length of ``x`` is lost. Given the direction it has density proportional to ``r^(d - 1) exp(-(r - v.concentration)^2 / 2)``,
    from which abduction draws it by bisection.
    """

    name: str = "projected_normal"
    invertible: bool = False

    def noise(self, fn: Any) -> NoiseDistribution:
        """Standard normal, shape ``batch_shape + event_shape``."""
        zero = torch.zeros((), dtype=fn.concentration.dtype, device=fn.concentration.device)
        shape = fn.batch_shape + fn.event_shape
        return dist.Normal(zero, zero + 1).expand(shape)  # type: ignore[no-any-return]

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """A unit vector."""
        return torch.nn.functional.normalize(fn.concentration + noise, dim=-1)

    def base(self, fn: Any) -> NoiseDistribution:
        """A logistic score for the length."""
        return standard_logistic(fn.batch_shape, fn.concentration, torch.float64)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The normal vector of a drawn length."""
        along = (value * fn.concentration).sum(-1).double()
        length = _length(along.detach(), fn.event_shape[-1], base).to(value.dtype)
        return value * length.unsqueeze(-1) - fn.concentration  # type: ignore[no-any-return]


@torch.no_grad()
def _length(along: Tensor, dim: int, score: Tensor) -> Tensor:
    """The quantile of a density proportional to ``r^(dim - 1) exp(-(r - along)^2 / 2)`` on ``r > 0``."""
    mode = 0.5 * (along + torch.sqrt(along * along + 4 * (dim - 1)))
    # the log density is at most -1/2 curved: it falls by _DROP nats within sqrt(2 _DROP) of the mode
    reach = math.sqrt(2 * _DROP)
    start, end = (mode - reach).clamp(min=0.0), mode + reach

    def log_density(r: Tensor) -> Tensor:
        shape = (dim - 1) * torch.log(r / mode.unsqueeze(-1))
        return shape - 0.5 * (r - mode.unsqueeze(-1)) * (r + (mode - 2 * along).unsqueeze(-1))

    def log_mass(a: Tensor, b: Tensor) -> Tensor:
        nodes = a.unsqueeze(-1) + 0.5 * (_NODES.to(a.device) + 1) * (b - a).unsqueeze(-1)
        mass = (torch.exp(log_density(nodes)) * _WEIGHTS.to(a.device)).sum(-1) * (b - a) / 2
        return torch.log(mass.clamp(min=1e-300))

    low, high = start, end
    for _ in range(50):
        middle = (low + high) / 2
        above = score > log_mass(start, middle) - log_mass(middle, end)
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


register_mechanism(torch.distributions.VonMises, Rotation())
register_mechanism(dist.ProjectedNormal, NormalDirection())


@register_wrapper(dist.SineSkewed)
def _sine_skewed(fn: Any, name: str | None) -> Mechanism:
    return SineSkew(mechanism_for(fn.base_dist, name))
