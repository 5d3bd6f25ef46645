"""Random matrices by their standard triangular constructions, whose parts are independent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .logistic import softplus, standard_logistic
from .protocol import NoiseDistribution, TupleDistribution
from .registry import register_mechanism
from .special import BetaLaw, GammaLaw

__all__ = ["Bartlett", "Vine"]

_LOG_2 = math.log(2.0)


@dataclass(frozen=True)
class Vine:
    """Cholesky factor of a correlation matrix from independent partial correlations, a C-vine in the order of the variables.

    ``L_ij = r_ij prod_k<j sqrt(1 - r_ik^2)`` and ``(1 + r_ij) / 2 ~ Beta(b_j, b_j)`` with ``b_j = concentration + (d - 1 - j) / 2``
    for the columns ``j = 1..d-1``, each ``r_ij`` increasing in a logistic score of its own.

    References:
        D. Lewandowski, D. Kurowicka, H. Joe (2009), Generating random correlation matrices based on vines and extended onion method.
    """

    name: str = "vine"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64, shape ``batch_shape + (d (d - 1) / 2,)``: the entries below the diagonal, row by row."""
        pairs = fn.dim * (fn.dim - 1) // 2
        shape = torch.Size((*fn.batch_shape, pairs))
        return standard_logistic(shape, fn.concentration, torch.float64)

    def _law(self, fn: Any) -> BetaLaw:
        column = _below(fn.dim, fn.concentration.device)[1]
        shape = fn.concentration.double().unsqueeze(-1) + (fn.dim - 2 - column) / 2
        return BetaLaw(shape, shape)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The lower triangular factor, ``batch_shape + (d, d)``."""
        rows, columns = _below(fn.dim, noise.device)
        logits = self._law(fn).point(noise)
        # r = tanh(z / 2) and sqrt(1 - r^2) = 1 / cosh(z / 2), the latter in logs
        correlation = _placed(torch.tanh(logits / 2), rows, columns, fn.dim, 1.0)
        size = logits.abs()
        log_rest = _placed(_LOG_2 - size / 2 - softplus(-size), rows, columns, fn.dim, 0.0)
        before = torch.cumsum(log_rest, -1) - log_rest
        return (correlation * torch.exp(before)).tril().to(fn.concentration.dtype)

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed: the noise is a function of value and parents."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Tensor:
        """The scores of the partial correlations."""
        rows, columns = _below(fn.dim, value.device)
        squares = value.double().square().tril()
        after = squares.flip(-1).cumsum(-1).flip(-1)[..., rows, columns + 1]
        tiny = torch.finfo(torch.float64).tiny
        logits = 2 * torch.asinh(value.double()[..., rows, columns] / after.clamp(min=tiny).sqrt())
        return self._law(fn).score(logits)


def _below(dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, columns = torch.tril_indices(dim, dim, -1, device=device).unbind(0)
    return rows, columns


def _placed(entries: Tensor, rows: Tensor, columns: Tensor, dim: int, diagonal: float) -> Tensor:
    """Entries below a constant diagonal, by a product: writing in place does not go under ``vmap``."""
    # one_hot looks at its values, which a trace cannot
    cells = torch.arange(dim * dim, device=entries.device)
    place = ((rows * dim + columns).unsqueeze(-1) == cells).to(entries.dtype)
    matrix = (entries @ place).reshape((*entries.shape[:-1], dim, dim))
    return matrix + diagonal * torch.eye(dim, dtype=entries.dtype, device=entries.device)


@dataclass(frozen=True)
class Bartlett:
    """``v = L A A' L'`` with ``L L'`` the scale matrix and ``A`` lower triangular: normal below, roots of chi-squared on the diagonal.

    References:
        M. S. Bartlett (1933), On the theory of statistical regression.
    """

    name: str = "bartlett"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Logistic(0, 1) in float64 for the diagonal, ``batch_shape + (d,)``; standard normal below it, row by row."""
        dim = fn.event_shape[-1]
        like = fn.df
        zero = torch.zeros((), dtype=like.dtype, device=like.device)
        normal = dist.Normal(zero, zero + 1).expand((*fn.batch_shape, dim * (dim - 1) // 2))
        diagonal = standard_logistic(torch.Size((*fn.batch_shape, dim)), like, torch.float64)
        return TupleDistribution(diagonal, normal)

    def _law(self, fn: Any) -> GammaLaw:
        order = torch.arange(fn.event_shape[-1], dtype=torch.float64, device=fn.df.device)
        return GammaLaw((fn.df.double().unsqueeze(-1) - order) / 2)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The positive definite matrix."""
        dim = fn.event_shape[-1]
        roots = torch.exp(0.5 * (self._law(fn).point(noise[0]) + _LOG_2))
        lower = _placed(noise[1], *_below(dim, noise[1].device), dim, 0.0)
        factor = fn.scale_tril @ (lower + torch.diag_embed(roots.to(lower.dtype)))
        return factor @ factor.mT  # type: ignore[no-any-return]

    def base(self, fn: Any) -> NoiseDistribution:
        """Not needed: the noise is a function of value and parents."""
        return self.noise(fn)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[Tensor, Tensor]:
        """The factor ``A``, and its scores."""
        lower = torch.linalg.cholesky_ex(value).L
        factor = torch.linalg.solve_triangular(fn.scale_tril.expand_as(lower), lower, upper=False)
        rows, columns = _below(fn.event_shape[-1], value.device)
        half_square = 2 * torch.log(factor.diagonal(dim1=-2, dim2=-1).double()) - _LOG_2
        return self._law(fn).score(half_square), factor[..., rows, columns]


register_mechanism(torch.distributions.LKJCholesky, Vine())
register_mechanism(torch.distributions.Wishart, Bartlett())
