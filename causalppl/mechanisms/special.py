"""Distribution functions that torch lacks, both tails in logs, with their inverses: Gamma, Beta and Student's t.

In a suitable coordinate ``z`` each of these laws has a log-concave density ``g``: ``log x`` for Gamma, ``logit x`` for
Beta, ``asinh(t / sqrt(df))`` for Student. A tail is then ``g(z)`` times an integral of ``exp(-phi(t))`` over ``t > 0``,
with ``phi`` convex near enough and ``phi(0) = 0``, which a fixed double-exponential rule gives to about 1e-10. It is made
of elementary functions, so autograd gives derivatives in every parameter, and ``vmap`` and ``make_fx`` apply. Logs of
tails are concave too, hence Newton's method for the inverse converges from the far side of the root without safeguards.
Parameters and points are float64 and broadcast. With shape parameters from 1e-3 to 1e6, scores up to 700 come back to 1e-7 relative
at the worst and values to 1e-10; below 1e-6 or beyond 1e12 Newton's method may fail.

References:
    H. Takahasi, M. Mori (1974), Double exponential formulas for numerical integration.
    H. Alzer (1997), On some inequalities for the incomplete gamma function.
    B. Laurent, P. Massart (2000), Adaptive estimation of a quadratic functional by model selection (Gamma's tail bound).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .logistic import log1mexp, softplus

__all__ = ["COARSE", "FINE", "BetaLaw", "GammaLaw", "LogConcaveLaw", "Rule", "StudentLaw"]

#: Nodes and weights for ``int_0^inf exp(-phi(t)) dt``, in units of the integrand's own scale.
Rule = tuple[Tensor, Tensor]


def _rule(step: float) -> Rule:
    u = torch.arange(-3.5, 7.5, step, dtype=torch.float64)
    nodes = torch.exp(u - torch.exp(-u))
    return nodes, step * nodes * (1 + torch.exp(-u))


FINE, COARSE = _rule(0.1), _rule(0.25)
_COARSE_STEPS, _FINE_STEPS = 8, 2
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _log_integral(phi: Callable[[Tensor], Tensor], scale: Tensor, rule: Rule) -> Tensor:
    nodes, weights = (part.to(scale.device) for part in rule)
    scale = scale.detach()  # where the nodes lie does not change the integral
    values = torch.exp(-phi(scale.unsqueeze(-1) * nodes))
    return torch.log((values * weights).sum(-1)) + torch.log(scale)


def _pair(log_tail: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """``(log F, log S)`` from the one that was integrated."""
    other = log1mexp(log_tail.clamp(max=-1e-300))
    return torch.where(left, log_tail, other), torch.where(left, other, log_tail)


def _stirling(shape: Tensor) -> Tensor:
    """What Stirling's formula lacks: ``lgamma(a) - (a - 1/2) log a + a - log(2 pi) / 2``, without cancellation for large ``a``."""
    large = shape.clamp(min=8.0)
    square = 1 / (large * large)
    series = 1 / 1188 - square * 691 / 360360
    for coefficient in (1 / 1680, 1 / 1260, 1 / 360, 1 / 12):
        series = coefficient - square * series
    small = shape.clamp(max=8.0)
    direct = torch.lgamma(small) - (small - 0.5) * torch.log(small) + small - _HALF_LOG_2PI
    return torch.where(shape < 8.0, direct, series / large)


class LogConcaveLaw(ABC):
    """A law on the real line whose density in ``z`` is log-concave."""

    @abstractmethod
    def log_density(self, z: Tensor) -> Tensor:
        """``log g(z)``."""

    @abstractmethod
    def log_tails(self, z: Tensor, rule: Rule = FINE) -> tuple[Tensor, Tensor]:
        """``(log F(z), log S(z))``."""

    @abstractmethod
    def outer(self, log_tail: Tensor, left: Tensor) -> Tensor:
        """A point at least as far out, to the left or right, as the one with this log probability beyond it."""

    def score(self, z: Tensor, rule: Rule = FINE) -> Tensor:
        """The logistic score ``log F - log S``, differentiable in ``z`` and in the parameters."""
        log_cdf, log_survival = self.log_tails(z, rule)
        return log_cdf - log_survival

    def point(self, score: Tensor) -> Tensor:
        """The ``z`` of a score: its inverse, with first derivatives in the score and in the parameters."""
        with torch.no_grad():
            z, slope = self._solve(score)
        return z + (score - self.score(z)) / slope

    def _solve(self, score: Tensor) -> tuple[Tensor, Tensor]:
        left = score < 0
        target = -softplus(score.abs())
        z = self.outer(target, left)
        for rule in [COARSE] * _COARSE_STEPS + [FINE] * _FINE_STEPS:
            log_cdf, log_survival = self.log_tails(z, rule)
            log_tail = torch.where(left, log_cdf, log_survival)
            step = (log_tail - target) * torch.exp(log_tail - self.log_density(z))
            z = z - torch.where(left, step, -step)
        log_cdf, log_survival = self.log_tails(z)
        return z, torch.exp(self.log_density(z) - log_cdf - log_survival)


@dataclass(frozen=True)
class GammaLaw(LogConcaveLaw):
    """``z = log x`` with ``x ~ Gamma(concentration, 1)``."""

    concentration: Tensor

    def log_density(self, z: Tensor) -> Tensor:
        """``a z - exp(z) - log Gamma(a)``, measured from the mode: for large ``a`` the terms cancel."""
        a = self.concentration
        move = z - torch.log(a)
        top = 0.5 * torch.log(a) - _HALF_LOG_2PI - _stirling(a)
        return a * (move - torch.expm1(move)) + top

    def log_tails(self, z: Tensor, rule: Rule = FINE) -> tuple[Tensor, Tensor]:
        """Regularised incomplete gamma functions, in logs."""
        a, x = torch.broadcast_tensors(self.concentration, torch.exp(z))
        left = x < a.clamp(min=1.0)  # with a < 1 the right tail has a corner at x = 1

        side = torch.where(left, -1.0, 1.0).double().unsqueeze(-1)

        def phi(t: Tensor) -> Tensor:
            move = (side * t).clamp(max=50.0)  # to the right, where exp(x) is long past everything
            return x.unsqueeze(-1) * torch.expm1(move) - a.unsqueeze(-1) * move

        narrow = torch.sqrt(torch.where(left, torch.minimum(x, a), x))
        scale = 1 / (torch.where(left, a - x, x - a).clamp(min=0.0) + narrow)
        return _pair(self.log_density(z) + _log_integral(phi, scale, rule), left)

    def outer(self, log_tail: Tensor, left: Tensor) -> Tensor:
        """``F(x) <= x^a / Gamma(a + 1)`` and Chernoff's bound; Laurent and Massart's, or Alzer's where ``a < 1``."""
        a = self.concentration
        near = torch.log1p(-torch.sqrt(-2 * log_tail / a).clamp(max=1.0)) + torch.log(a)
        below = torch.maximum((log_tail + torch.lgamma(a + 1)) / a, near)
        above = torch.log(a + torch.sqrt(-2 * a * log_tail) - log_tail)
        root = log1mexp(log_tail) / a.clamp(max=1.0)
        steep = torch.where(root < -30.0, root, torch.log(-log1mexp(root.clamp(min=-30.0))))
        above = torch.where(a < 1, torch.minimum(above, steep), above)
        return torch.where(left, below, above)


@dataclass(frozen=True)
class BetaLaw(LogConcaveLaw):
    """``z = logit x`` with ``x ~ Beta(a, b)``."""

    a: Tensor
    b: Tensor

    def _log_beta(self) -> Tensor:
        return torch.lgamma(self.a) + torch.lgamma(self.b) - torch.lgamma(self.a + self.b)

    def log_density(self, z: Tensor) -> Tensor:
        """``a log x + b log(1 - x) - log B(a, b)``, measured from the mode: for large parameters the terms cancel."""
        a, b = self.a, self.b
        move = z - torch.log(a / b)
        down, share = torch.where(move > 0, b, a), torch.where(move > 0, b, a) / (a + b)
        fall = -move.abs()
        inner = down * fall - (a + b) * torch.log1p(share * torch.expm1(fall))
        top = 0.5 * torch.log(a / (a + b) * b) - _HALF_LOG_2PI
        return inner + top - _stirling(a) - _stirling(b) + _stirling(a + b)

    def log_tails(self, z: Tensor, rule: Rule = FINE) -> tuple[Tensor, Tensor]:
        """Regularised incomplete beta functions, in logs."""
        a, b, z = torch.broadcast_tensors(self.a, self.b, z)
        # from the mode on, but not where a small parameter makes the density flat up to a corner on the other side
        log_x, log_y = -1 / a.clamp(min=1.0), -1 / b.clamp(min=1.0)
        mode = torch.minimum(torch.log(a / b), log_x - log1mexp(log_x))
        left = z < torch.maximum(mode, log1mexp(log_y) - log_y)
        near, beyond = torch.where(left, a, b), torch.sigmoid(torch.where(left, z, -z))

        def phi(t: Tensor) -> Tensor:
            shrunk = torch.log1p(beyond.unsqueeze(-1) * torch.expm1(-t))
            return near.unsqueeze(-1) * t + (a + b).unsqueeze(-1) * shrunk

        spread = torch.minimum((a + b) * beyond * (1 - beyond), near)
        scale = 1 / ((near - (a + b) * beyond).clamp(min=0.0) + torch.sqrt(spread))
        return _pair(self.log_density(z) + _log_integral(phi, scale, rule), left)

    def outer(self, log_tail: Tensor, left: Tensor) -> Tensor:
        """The least of three bounds, by symmetry for the right tail; the last of them is close but no bound where ``b < 1``."""
        a, b = torch.where(left, self.b, self.a), torch.where(left, self.a, self.b)
        # S(x) <= ((1 - x) / x)^b / (b B(a, b))
        far = -(log_tail + self._log_beta() + torch.log(b)) / b
        # Chernoff: S(x) <= exp(-(a + b) KL(p, x)) with KL(p, x) >= d^2 / (2 x) and >= d^2 / (2 (1 - p)) at x = p + d
        rate, p, q = -log_tail / (a + b), a / (a + b), b / (a + b)
        move = torch.minimum(
            rate + torch.sqrt(rate * (rate + 2 * p)), torch.sqrt(2 * rate * q)
        ).clamp(max=q)
        near = torch.log(p + move) - torch.log(q - move)
        bound = torch.minimum(torch.minimum(far, near), _steep(log_tail, a, b))
        return torch.where(left, -bound, bound)


def _steep(log_tail: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The logit of ``x`` with ``1 - exp(log_tail) = (1 - (1 - x)^b)^a``; infinite where ``a >= 1``."""
    root = log1mexp(log_tail) / a
    log_rest = log1mexp(root.clamp(min=-30.0)) / b
    logit = torch.where(root < -30.0, root - torch.log(b), log1mexp(log_rest) - log_rest)
    return torch.where(a < 1, logit, torch.inf)


@dataclass(frozen=True)
class StudentLaw(LogConcaveLaw):
    """``z = asinh(t / sqrt(df))`` with ``t ~ Student(df)``: density proportional to ``cosh(z)^-df``."""

    df: Tensor

    def _log_constant(self) -> Tensor:
        half = self.df / 2
        ratio = half * torch.log1p(0.5 / half) + 0.5 * torch.log(half) - 0.5
        return ratio + _stirling(half + 0.5) - _stirling(half) - 0.5 * math.log(math.pi)

    def log_density(self, z: Tensor) -> Tensor:
        """``-df log cosh z`` and the constant."""
        size = z.abs()
        near = 0.5 * torch.log1p(torch.sinh(size.clamp(max=1.0)).square())
        log_cosh = torch.where(size < 1, near, size + softplus(-2 * size) - math.log(2.0))
        return self._log_constant() - self.df * log_cosh

    def log_tails(self, z: Tensor, rule: Rule = FINE) -> tuple[Tensor, Tensor]:
        """By symmetry, the tail beyond ``abs(z)``."""
        df, size = torch.broadcast_tensors(self.df, z.abs())
        share = torch.sigmoid(-2 * size)

        def phi(t: Tensor) -> Tensor:
            shrunk = torch.log1p(share.unsqueeze(-1) * torch.expm1(-2 * t))
            return df.unsqueeze(-1) * (t + shrunk)

        scale = 1 / (df * torch.tanh(size) + torch.sqrt(df) / torch.cosh(size.clamp(max=300.0)))
        log_tail = self.log_density(z) + _log_integral(phi, scale, rule)
        return _pair(log_tail, z < 0)

    def outer(self, log_tail: Tensor, left: Tensor) -> Tensor:
        """``S(z) <= cosh(z)^-df / 2``, and ``cosh z >= exp(z) / 2`` in the density."""
        known = self._log_constant() - torch.log(self.df) - log_tail
        log_cosh = ((-math.log(2.0) - log_tail) / self.df).clamp(min=0.0)
        near = log_cosh + torch.log1p(torch.sqrt(-torch.expm1(-2 * log_cosh)))
        above = torch.minimum(math.log(2.0) + known / self.df, near)
        return torch.where(left, -above, above)
