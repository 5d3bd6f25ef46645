"""Log probabilities without clamping: 0 and 1 are exact, and what lies outside a support has probability zero."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints

from .inverse_cdf import general_pareto_hazard
from .inverses import ONE_WAY, applied, steps, undone
from .logits import category_logits, given_as_probs, log_odds

__all__ = ["exact_log_prob", "possible"]

#: ``log p(value)`` on the support, by the class that defines ``log_prob``: a subclass with its own density keeps it.
_Density = Callable[[Any, Tensor], Tensor]


def exact_log_prob(fn: Any, value: Tensor) -> Tensor:
    """``log p(value)`` in nats, minus infinity exactly where the probability is zero.

    Probabilities of 0 and 1 are not clamped, and a value outside the support is no error, whether validation is on or off.
    Pure tensor operations, so that ``torch.func.vmap`` and ``make_fx`` apply.

    Args:
        fn: a distribution.
        value: of shape ``fn.batch_shape + fn.event_shape``, or broadcastable to it.

    Returns:
        a tensor of shape ``fn.batch_shape``.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> exact_log_prob(dist.Bernoulli(torch.tensor(0.0)), torch.tensor(1.0))
        tensor(-inf)
    """
    kind = type(fn)
    density = _density(kind)  # type: ignore[arg-type]
    log_prob = density(fn, value)
    if density in _COMPLETE:
        return log_prob
    check = _support_check(fn)
    if check is None:
        return log_prob
    return torch.where(check(value), log_prob, -torch.inf)


def possible(fn: Any, value: Tensor) -> Tensor:
    """A number of the same shape as :func:`exact_log_prob` that is minus infinity, or NaN, where that is: cheaper for some families.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> possible(dist.Bernoulli(torch.tensor(0.3)), torch.tensor([0.0, 0.5, 1.0]))
        tensor([0., -inf, 0.])
    """
    return _check(type(fn))(fn, value)  # type: ignore[arg-type]


@cache
def _check(kind: type) -> _Density:
    return _CHECKS.get(_owner(kind), exact_log_prob)


def _independent_possible(fn: Any, value: Tensor) -> Tensor:
    return _summed(possible(fn.base_dist, value), fn.reinterpreted_batch_ndims)


def _bernoulli_possible(fn: Any, value: Tensor) -> Tensor:
    if given_as_probs(fn):
        sure, never, known = fn.probs >= 1, fn.probs <= 0, fn.probs == fn.probs
    else:
        odds = log_odds(fn)
        sure, never, known = odds == torch.inf, odds == -torch.inf, odds == odds
    found = torch.where(value == 1, ~never, (value == 0) & ~sure) & known
    return torch.where(found, 0.0, -torch.inf)


def _normal_possible(fn: Any, value: Tensor) -> Tensor:
    score = (value - fn.loc) / fn.scale
    return torch.where(fn.scale < torch.inf, -score * score, -torch.inf)


@cache
def _density(kind: type) -> _Density:
    return _DENSITIES.get(_owner(kind), _own)


def _owner(kind: type) -> type:
    return next(cls for cls in kind.__mro__ if "log_prob" in cls.__dict__)


def _support_check(fn: Any) -> Callable[[Tensor], Tensor] | None:
    """The support's check, where it is one number at a time: constraints on whole vectors allow less round-off than sums have."""
    try:
        support = fn.support
    except (AttributeError, NotImplementedError):
        return None
    inner = support
    while isinstance(inner, constraints.independent):
        inner = inner.base_constraint
    if inner is constraints.real or isinstance(inner, type(constraints.dependent)):
        return None
    if isinstance(inner, type(constraints.simplex)):
        return lambda value: (value >= 0).all(-1) & ((value.sum(-1) - 1).abs() < 1e-3)
    return support.check if inner.event_dim == 0 else None


def _unvalidated(fn: Any) -> Any:
    """``fn``, or a copy that raises for no value."""
    if not fn._validate_args:
        return fn
    quiet = copy.copy(fn)
    for name, part in vars(fn).items():
        if isinstance(part, Distribution):
            quiet.__dict__[name] = _unvalidated(part)
    quiet._validate_args = False
    return quiet


def _own(fn: Any, value: Tensor) -> Tensor:
    return _unvalidated(fn).log_prob(value)  # type: ignore[no-any-return]


def _summed(log_prob: Tensor, dims: int) -> Tensor:
    return log_prob.sum(tuple(range(-dims, 0))) if dims > 0 else log_prob


def _independent(fn: Any, value: Tensor) -> Tensor:
    return _summed(exact_log_prob(fn.base_dist, value), fn.reinterpreted_batch_ndims)


def _expanded(fn: Any, value: Tensor) -> Tensor:
    log_prob = exact_log_prob(fn.base_dist, value)
    return log_prob.expand(torch.broadcast_shapes(log_prob.shape, fn.batch_shape))


def _masked(fn: Any, value: Tensor) -> Tensor:
    if fn._mask is False:
        batch = value.shape[: value.dim() - fn.event_dim]
        like = value if value.is_floating_point() else torch.zeros((), device=value.device)
        return like.new_zeros(torch.broadcast_shapes(batch, fn.batch_shape))
    log_prob = exact_log_prob(fn.base_dist, value)
    return log_prob if fn._mask is True else torch.where(fn._mask, log_prob, 0.0)


def _transformed(fn: Any, value: Tensor) -> Tensor:
    dims = len(fn.event_shape)
    total: Tensor | float = 0.0
    for transform in reversed(list(steps(fn.transforms))):
        source = undone(transform, value)
        if isinstance(transform, ONE_WAY):
            applied(transform, source)  # the log determinant is kept from the last evaluation
        inner = transform.domain.event_dim
        dims += inner - transform.codomain.event_dim
        log_det = transform.log_abs_det_jacobian(source, value)
        log_det = _summed(
            log_det, log_det.dim() - (source.dim() - inner)
        )  # StackTransform does not
        total = total - _summed(log_det, dims - inner)
        value = source
    return total + _summed(
        exact_log_prob(fn.base_dist, value), dims - len(fn.base_dist.event_shape)
    )


def _trials(fn: Any, successes: Tensor, failures: Tensor) -> Tensor:
    """``successes log p + failures log(1 - p)`` with ``0 log 0 = 0``, also in its gradient."""
    none, all_ = successes == 0, failures == 0
    if given_as_probs(fn):
        log_p = torch.log(torch.where(none, 1.0, fn.probs))
        log_q = torch.log1p(-torch.where(all_, 0.0, fn.probs))
    else:
        odds = log_odds(fn)
        log_p = torch.nn.functional.logsigmoid(torch.where(none, 0.0, odds))
        log_q = torch.nn.functional.logsigmoid(-torch.where(all_, 0.0, odds))
    return successes * log_p + failures * log_q


def _bernoulli(fn: Any, value: Tensor) -> Tensor:
    if given_as_probs(fn):
        value = value.to(fn.probs.dtype)
        return _trials(fn, value, 1 - value)
    odds = log_odds(fn)
    return torch.nn.functional.logsigmoid(torch.where(value > 0.5, odds, -odds))


def _geometric(fn: Any, value: Tensor) -> Tensor:
    return _trials(fn, torch.ones_like(value), value)


def _binomial(fn: Any, value: Tensor) -> Tensor:
    if getattr(fn, "approx_log_prob_tol", 0.0) > 0:  # the user asked for an approximation
        return _own(fn, value)
    n = fn.total_count
    ways = torch.lgamma(n + 1) - torch.lgamma(value + 1) - torch.lgamma(n - value + 1)
    return ways + _trials(fn, value, n - value)


def _poisson(fn: Any, value: Tensor) -> Tensor:
    log_rate = torch.log(torch.where(value == 0, 1.0, fn.rate))
    return value * log_rate - fn.rate - torch.lgamma(value + 1)


def _general_pareto(fn: Any, value: Tensor) -> Tensor:
    # torch's own mixes dtypes in float64
    return -torch.log(fn.scale) - (1 + fn.concentration) * general_pareto_hazard(fn, value)


def _categorical(fn: Any, value: Tensor) -> Tensor:
    table = fn.probs if given_as_probs(fn) else category_logits(fn)
    shape = torch.broadcast_shapes(table.shape[:-1], value.shape)
    known = (value >= 0) & (value < table.shape[-1])
    index = value.long().clamp(0, table.shape[-1] - 1).expand(shape).unsqueeze(-1)
    found = table.expand((*shape, table.shape[-1])).gather(-1, index).squeeze(-1)
    log_prob = torch.log(found) if given_as_probs(fn) else found
    return torch.where(known & (value == value.long()), log_prob, -torch.inf)


def _one_hot(fn: Any, value: Tensor) -> Tensor:
    inner, hot = fn._categorical, value > 0.5
    if given_as_probs(inner):
        log_prob = torch.log(torch.where(hot, inner.probs, 0.0).sum(-1))
    else:
        log_prob = torch.where(hot, category_logits(inner), 0.0).sum(-1)
    valid = ((value == 0) | (value == 1)).all(-1) & (value.sum(-1) == 1)
    return torch.where(valid, log_prob, -torch.inf)


def _unit(fn: Any, value: Tensor) -> Tensor:
    return _own(fn, value)


_DENSITIES: dict[type, _Density] = {
    torch.distributions.Independent: _independent,
    dist.Independent: _independent,
    ExpandedDistribution: _expanded,
    dist.MaskedDistribution: _masked,
    torch.distributions.TransformedDistribution: _transformed,
    dist.Unit: _unit,
    torch.distributions.Bernoulli: _bernoulli,
    torch.distributions.Geometric: _geometric,
    dist.Geometric: _geometric,
    torch.distributions.Binomial: _binomial,
    dist.Binomial: _binomial,
    torch.distributions.Poisson: _poisson,
    dist.Poisson: _poisson,
    torch.distributions.Categorical: _categorical,
    dist.Categorical: _categorical,
    torch.distributions.OneHotCategorical: _one_hot,
}

if hasattr(torch.distributions, "GeneralizedPareto"):  # younger than the oldest torch allowed
    _DENSITIES[torch.distributions.GeneralizedPareto] = _general_pareto

#: Whether a value is possible, where that is cheaper to know than its density.
_CHECKS: dict[type, _Density] = {
    torch.distributions.Independent: _independent_possible,
    dist.Independent: _independent_possible,
    torch.distributions.Bernoulli: _bernoulli_possible,
    torch.distributions.Normal: _normal_possible,
}

#: Densities that need no check of the support: it is done inside, or there is none.
_COMPLETE = frozenset({_independent, _expanded, _masked, _unit, _categorical, _one_hot})
