"""From sums over draws and units to an estimate with its error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InferenceError
from ..notation.arithmetic import compute
from ..notation.terms import Expression, Probability, Term

__all__ = ["Sums", "summarise"]

#: The 97.5% point of a standard normal.
Z = 1.959963984540054


@dataclass(frozen=True)
class Sums:
    """A term's weights and weighted values, summed over units, float64.

    Attributes:
        weight: shape ``(rows,)``; with parameters ``(draws, parts)``, the parts being independent given the parameters.
        total: the same, and event dims.
        run: rows of terms of one run share their randomness.
        efficiency: effective draws a draw.
        parameters: whether rows differ in parameters, so that each has an estimand of its own.
        probability: whether the term is a probability.
        certain: whether nothing was random.
    """

    weight: Tensor
    total: Tensor
    run: int
    efficiency: float
    parameters: bool
    probability: bool
    certain: bool

    def ratio(self, dims: tuple[int, ...]) -> Tensor:
        """Weighted mean over some leading dims."""
        weight = self.weight.sum(dims) if dims else self.weight
        total = self.total.sum(dims) if dims else self.total
        return total / weight.reshape((*weight.shape, *([1] * (total.dim() - weight.dim()))))


def _number(value: Tensor) -> Any:
    return float(value) if value.dim() == 0 else value.numpy()


def summarise(
    query: Expression, sums: Mapping[Term, Sums]
) -> tuple[Any, tuple[Any, Any], Any, np.ndarray[Any, Any] | None]:
    """Value, 95% interval of the estimand, Monte Carlo standard error, and draws of the estimand."""
    if any(s.parameters for s in sums.values()):
        return _over_parameters(query, sums)
    return _over_runs(query, sums)


def _over_parameters(
    query: Expression, sums: Mapping[Term, Sums]
) -> tuple[Any, tuple[Any, Any], Any, np.ndarray[Any, Any]]:
    """The estimand's posterior. What finitely many new units add to its spread is taken out again."""
    draws = torch.as_tensor(compute(query, lambda t: sums[t].ratio((1,))))
    parts = max(s.weight.shape[1] for s in sums.values())
    known = ~torch.isnan(draws).reshape(len(draws), -1).any(1)
    if not bool(known.any()):
        raise InferenceError("query: in no draw of the parameters do all terms have a value")
    draws = draws[known]
    mean, spread = draws.mean(0), draws.std(0)
    if parts == 2:

        def half(k: int) -> Tensor:
            def one(term: Term) -> Tensor:
                own = sums[term].ratio(())
                return own[:, min(k, own.shape[1] - 1)]

            return torch.as_tensor(compute(query, one))[known]

        noise = torch.nanmean((half(0) - half(1)) ** 2, 0) / 4
        shrink = torch.sqrt((1 - noise / spread**2).clamp(min=0.0))
        shrink = torch.where(spread > 0, shrink, 1.0)
        draws = mean + shrink * (draws - mean)
    efficiency = min(s.efficiency for s in sums.values())
    error = spread / math.sqrt(max(1.0, efficiency * len(draws)))
    low, high = torch.quantile(
        draws, torch.tensor([0.025, 0.975], dtype=draws.dtype), dim=0
    ).unbind(0)
    # an estimand that the parameters do not move is still known to Monte Carlo error only
    low, high = torch.minimum(low, mean - Z * error), torch.maximum(high, mean + Z * error)
    return _number(mean), (_number(low), _number(high)), _number(error), draws.numpy()


def _over_runs(
    query: Expression, sums: Mapping[Term, Sums]
) -> tuple[Any, tuple[Any, Any], Any, None]:
    """Ratio estimates and the delta method, terms of one run together."""
    terms = list(sums)
    means = [sums[t].ratio((0,)) for t in terms]
    shape = torch.broadcast_shapes(*(m.shape for m in means))
    points = [m.expand(shape).clone().requires_grad_() for m in means]
    by_term = dict(zip(terms, points, strict=True))
    with torch.enable_grad():
        value = torch.as_tensor(compute(query, lambda t: by_term[t]), dtype=torch.float64)
        slopes = torch.autograd.grad(value.sum(), points) if points else ()
    variance = torch.zeros(shape, dtype=torch.float64)
    for run in {s.run for s in sums.values()}:
        total: Any = 0.0
        efficiency, rows = 1.0, 1
        for term, mean, slope in zip(terms, means, slopes, strict=True):
            s = sums[term]
            if s.run == run:
                weight = s.weight.reshape(-1, *([1] * (s.total.dim() - 1)))
                total = total + slope * (s.total - mean * weight) / s.weight.mean()
                efficiency, rows = min(efficiency, s.efficiency), max(rows, len(s.weight))
        if rows > 1:
            variance = variance + total.var(0) / (rows * efficiency)
    value = value.detach()
    error = variance.sqrt()
    low, high = value - Z * error, value + Z * error
    if isinstance(query, Probability) and not sums[query].certain:
        low, high = _wilson(value, error, sums[query])
    return _number(value), (_number(low), _number(high)), _number(error), None


def _wilson(p: Tensor, error: Tensor, sums: Sums) -> tuple[Tensor, Tensor]:
    """Wilson's score interval, for as many independent draws as the standard error tells."""
    count = float((sums.weight > 0).sum()) * sums.efficiency
    if float(error) > 0:
        count = float(p * (1 - p) / error**2)
    centre = (p + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * torch.sqrt(p * (1 - p) / count + Z**2 / (4 * count**2))
    low, high = (centre - half).clamp(min=0.0), (centre + half).clamp(max=1.0)
    return torch.where(p == 0, 0.0, low), torch.where(p == 1, 1.0, high)
