"""Log probabilities without clamping: 0 and 1 are exact, and what lies outside a support has none."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.utils import _sum_rightmost
from torch.nn.functional import logsigmoid

from .discrete import bernoulli_logits, category_logits

__all__ = ["exact_log_prob"]


def exact_log_prob(fn: Any, value: Tensor) -> Tensor:
    """``log p(value)``, shape ``fn.batch_shape``, in nats; minus infinity where the probability is zero.

    torch clamps probabilities of Bernoulli and Categorical away from 0 and 1; here they are exact.
    """
    if isinstance(fn, torch.distributions.Independent):
        return _sum_rightmost(exact_log_prob(fn.base_dist, value), fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.MaskedDistribution):
        if fn._mask is False:
            return torch.zeros(fn.batch_shape, device=value.device)
        inner = exact_log_prob(fn.base_dist, value)
        if fn._mask is True:
            return inner
        return torch.where(fn._mask, inner, torch.zeros_like(inner))
    if isinstance(fn, ExpandedDistribution):
        return exact_log_prob(fn.base_dist, value).expand(fn.batch_shape)
    if isinstance(fn, torch.distributions.Bernoulli):
        logits = bernoulli_logits(fn)
        log_prob = torch.where(value > 0.5, logsigmoid(logits), logsigmoid(-logits))
        return torch.where((value == 0) | (value == 1), log_prob, -torch.inf)
    if type(fn) in _CATEGORICAL:
        logits = category_logits(fn)
        logits = logits.expand(torch.broadcast_shapes(logits.shape, (*value.shape, logits.shape[-1])))
        index = value.long().expand(logits.shape[:-1])
        valid = (index >= 0) & (index < logits.shape[-1])
        found = logits.gather(-1, index.clamp(0, logits.shape[-1] - 1).unsqueeze(-1)).squeeze(-1)
        return torch.where(valid, found, -torch.inf)
    if isinstance(fn, torch.distributions.OneHotCategorical):
        logits = category_logits(fn)
        return torch.where(value > 0.5, logits, torch.zeros_like(logits)).sum(-1)
    return _unchecked(fn, value)


_CATEGORICAL = (torch.distributions.Categorical, dist.Categorical)


def _unchecked(fn: Any, value: Tensor) -> Tensor:
    before = Distribution._validate_args
    own = getattr(fn, "_validate_args", None)
    Distribution.set_default_validate_args(False)
    try:
        if own:
            fn._validate_args = False
        log_prob: Tensor = fn.log_prob(value)
    finally:
        Distribution.set_default_validate_args(before)
        if own:
            fn._validate_args = own
    try:
        inside = fn.support.check(value)
    except (AttributeError, NotImplementedError, ValueError):
        return log_prob
    if inside.shape == log_prob.shape:
        return torch.where(inside, log_prob, -torch.inf)
    return log_prob
