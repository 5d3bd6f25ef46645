"""Importance weights: smoothing their tail, how much they are worth, and resampling by them.

Everywhere the first axis numbers proposals and the rest are units, each with weights of its own.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import InferenceError, MethodError, ShapeError

__all__ = ["effective_sample_size", "pareto_smooth", "resample"]

_Psislw: TypeAlias = Callable[[np.ndarray], tuple[Any, Any]]

# A generalised Pareto distribution is not fitted to fewer tail weights than this.
_FEWEST_WEIGHTS = 5


def _check(log_weights: Tensor) -> None:
    if log_weights.dim() < 1 or len(log_weights) == 0:
        raise ShapeError(
            f"log_weights has shape {tuple(log_weights.shape)}; it must be (num_proposals, *units) with "
            "at least one proposal."
        )
    if not log_weights.is_floating_point():
        raise MethodError(f"log_weights has dtype {log_weights.dtype}; it must be floating point.")
    if bool((torch.isnan(log_weights) | (log_weights == math.inf)).any()):
        raise InferenceError(
            "Some log weights are NaN or plus infinity: the program's or the proposal's log density is not "
            "a number there. A weight of zero is minus infinity."
        )
    empty = (log_weights == -math.inf).all(0)
    if bool(empty.any()):
        where = f" in {int(empty.sum())} of {empty.numel()} units" if empty.dim() else ""
        raise InferenceError(
            f"All {len(log_weights)} proposals have weight zero{where}. The evidence is impossible, or so "
            "unlikely under the proposal that more draws or a better proposal are needed."
        )


def _psislw() -> _Psislw:
    """arviz's smoother over the last axis: at the top of arviz 0.2x, in ``arviz_stats`` from 1.0 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    if hasattr(arviz, "psislw"):
        found: _Psislw = arviz.psislw
        return found
    later: _Psislw = importlib.import_module("arviz_stats.base").array_stats.psislw
    return later


def pareto_smooth(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    r"""Pareto-smoothed importance weights, and the shape :math:`\hat k` of each unit's tail.

    The largest :math:`M = \min(S / 5, 3 \sqrt S)` of :math:`S` weights are replaced by expected order
    statistics of a generalised Pareto distribution fitted to them. Below 0.5 its shape :math:`\hat k` means
    weights with a finite variance; up to 0.7 they can be relied upon; above, they cannot; at 1 or above, not
    even their mean exists.

    Cases where nothing can be fitted, weights then being normalised only:

    - the whole tail shares the largest weight (equal weights are the simplest example, and weights that take few
      values the usual one): the weights are bounded and there is no tail to fear, :math:`\hat k = 0`;
    - fewer than five weights are positive, or too few lie in the tail: :math:`\hat k = \infty`.

    Args:
        log_weights: shape ``(num_proposals,) + units``, in nats, unnormalised; minus infinity is a
            proposal of weight zero, which stays so.

    Returns:
        Smoothed log weights of the same shape, whose exponentials sum to 1 over axis 0, and ``k_hat`` of
        shape ``units``. Both have the dtype and device of ``log_weights`` and carry no gradient.

    Raises:
        InferenceError: NaN or plus infinity, or a unit all of whose weights are zero.
        ShapeError, MethodError: not ``(num_proposals, *units)``, or not floating point.

    References:
        Aki Vehtari, Daniel Simpson, Andrew Gelman, Yuling Yao, Jonah Gabry (2024), Pareto Smoothed Importance
        Sampling. https://jmlr.org/papers/v25/19-556.html

    Example:
        >>> import torch
        >>> from causalppl.inference.weights import pareto_smooth
        >>> x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)).double()
        >>> smoothed, k_hat = pareto_smooth(torch.stack([0.2 * x[:, 0], 1.5 * x[:, 1] ** 2], 1))
        >>> k_hat < 0.7
        tensor([ True, False])
        >>> bool(torch.allclose(smoothed.exp().sum(0), torch.ones(2).double()))
        True
    """
    _check(log_weights)
    units = log_weights.shape[1:]
    flat = log_weights.detach().double().cpu().reshape(len(log_weights), -1)
    flat = flat - flat.max(0).values
    proposals = len(flat)
    tail = min(proposals, math.ceil(min(proposals / 5, 3 * math.sqrt(proposals))) + 1)
    positive = (flat > -math.inf).sum(0)
    top = torch.minimum(torch.tensor(tail), positive)
    at_top = flat.sort(0, descending=True).values.gather(0, (top - 1)[None])[0]
    few = positive < min(_FEWEST_WEIGHTS, proposals)
    # Rounding makes weights that are equal on paper differ in the last digits.
    tolerance = 64 * torch.finfo(log_weights.dtype).eps
    shared = (at_top > -tolerance) & ~few
    k_hat = torch.where(few, math.inf, torch.zeros(flat.shape[1], dtype=torch.float64))
    smoothed = flat.clone()
    fit = ~(few | shared)
    if bool(fit.any()):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted, shapes = _psislw()(flat[:, fit].T.contiguous().numpy())
        smoothed[:, fit] = torch.as_tensor(np.asarray(fitted)).T
        shape_of = torch.as_tensor(np.asarray(shapes), dtype=torch.float64)
        k_hat[fit] = torch.where(torch.isnan(shape_of), math.inf, shape_of)
    # The fit breaks down where weights crowd below a bound, or most of the tail at its foot: k of 5 and more. But with a true shape
    # of 0.7 the largest of S weights would be so close to the mean once in a million times, for S of 1000 and more.
    largest = math.log(proposals) - torch.logsumexp(flat, 0)
    spurious = (k_hat > 0.5) & (largest < math.log(math.sqrt(proposals) / 4)) & ~few
    k_hat = torch.where(spurious, 0.0, k_hat)
    smoothed = torch.where(spurious, flat, smoothed)
    smoothed = torch.where(flat == -math.inf, -math.inf, smoothed)
    smoothed = smoothed - torch.logsumexp(smoothed, 0)
    return smoothed.reshape(log_weights.shape).to(log_weights), k_hat.reshape(units).to(log_weights)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""Kish's effective sample size :math:`(\sum_i w_i)^2 / \sum_i w_i^2`, in draws.

    Args:
        log_weights: shape ``(num_proposals,) + units``, in nats; any normalisation.

    Returns:
        Shape ``units``, between 1 and ``num_proposals``.

    Raises:
        InferenceError, ShapeError, MethodError: as :func:`pareto_smooth`.

    References:
        Leslie Kish (1965), Survey Sampling.

    Example:
        >>> import torch
        >>> from causalppl.inference.weights import effective_sample_size
        >>> effective_sample_size(torch.tensor([0.0, 0.0, float("-inf"), 0.0]))
        tensor(3.)
    """
    _check(log_weights)
    weights = (log_weights.detach().double() - log_weights.detach().double().amax(0)).exp()
    return (weights.sum(0) ** 2 / (weights**2).sum(0)).to(log_weights)


def resample(log_weights: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
    r"""Indices of proposals, drawn by weight: systematic resampling, shuffled for each unit on its own.

    Proposal :math:`i` with normalised weight :math:`w_i` is taken :math:`\lfloor n w_i \rfloor` or
    :math:`\lceil n w_i \rceil` times, :math:`n w_i` on average, so equal weights with :math:`n` proposals
    give each exactly once. Each single index has the law :math:`w`. The shuffle is
    independent between units, so that unit A's j-th draw tells nothing about unit B's.

    Args:
        log_weights: shape ``(num_proposals,) + units``, in nats; any normalisation.
        num_samples: :math:`n`, at least 1.
        generator: where all randomness comes from; torch's global one is not touched.

    Returns:
        Integers of shape ``(num_samples,) + units``; a proposal of weight zero is never among them.

    Raises:
        InferenceError, ShapeError, MethodError: as :func:`pareto_smooth`, or ``num_samples`` below 1.

    References:
        Randal Douc, Olivier Cappé, Eric Moulines (2005), Comparison of Resampling Schemes for Particle
        Filtering. https://arxiv.org/abs/cs/0507025

    Example:
        >>> import torch
        >>> from causalppl.inference.weights import resample
        >>> indices = resample(torch.tensor([0.0, float("-inf"), 0.0]), 4, torch.Generator().manual_seed(0))
        >>> indices.sort().values
        tensor([0, 0, 2, 2])
    """
    _check(log_weights)
    if num_samples < 1:
        raise MethodError(f"num_samples={num_samples} was given; it must be at least 1.")
    units = log_weights.shape[1:]
    flat = log_weights.detach().double().reshape(len(log_weights), -1).T
    cumulative = (flat - flat.amax(1, keepdim=True)).exp().cumsum(1)
    cumulative = cumulative / cumulative[:, -1:]
    # Drawn where the generator lives, so that a device does not change the numbers of a seed.
    where = generator.device
    rows = len(flat)
    offset = torch.rand(rows, 1, generator=generator, dtype=torch.float64, device=where)
    order = torch.rand(rows, num_samples, generator=generator, dtype=torch.float64, device=where)
    grid = torch.arange(num_samples, dtype=torch.float64, device=where)
    points = ((grid + offset) / num_samples).to(flat.device).clamp(max=1 - 2.0**-53)
    # The first index whose cumulative weight exceeds the point: one of weight zero adds nothing, so never.
    chosen = torch.searchsorted(cumulative.contiguous(), points.contiguous(), right=True)
    shuffled = chosen.gather(1, order.to(flat.device).argsort(1))
    return shuffled.T.reshape(num_samples, *units).contiguous()
