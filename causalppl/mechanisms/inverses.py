"""Inverses of transforms: those that Pyro lacks or computes loosely are written here, the others are Pyro's own.

Pyro's planar, radial, polynomial and neural autoregressive flows look their inverse up in a cache of what they have just
computed. Here radial flows are inverted in closed form, planar ones by one equation in one unknown, and autoregressive ones
coordinate by coordinate, in the order in which a coordinate depends on the ones before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyro.distributions.transforms as transforms
import torch
from pyro.distributions.transforms.matrix_exponential import ConditionedMatrixExponential
from pyro.distributions.transforms.planar import ConditionedPlanar
from pyro.distributions.transforms.radial import ConditionedRadial
from torch import Tensor
from torch.distributions.transforms import _InverseTransform

__all__ = ["ONE_WAY", "applied", "steps", "undone"]

_HALVINGS = 40  # a step of Newton's follows, which doubles the digits
_REACH = 15.0  # roots lie between -sinh and sinh of it, about 1.6 million


def steps(given: Iterable[Any]) -> Iterator[Any]:
    """The transforms one after another, compositions taken apart."""
    for transform in given:
        if isinstance(transform, torch.distributions.ComposeTransform):
            yield from steps(transform.parts)
        else:
            yield transform


def applied(transform: Any, value: Tensor) -> Tensor:
    """``T(value)``."""
    if isinstance(transform, _InverseTransform):
        return undone(transform.inv, value)
    return transform(value)  # type: ignore[no-any-return]


def undone(transform: Any, value: Tensor) -> Tensor:
    """``T^-1(value)``, with first derivatives in the value and in the transform's parameters."""
    if isinstance(transform, _InverseTransform):
        return applied(transform.inv, value)
    if isinstance(transform, torch.distributions.ComposeTransform):
        for part in reversed(transform.parts):
            value = undone(part, value)
        return value
    if isinstance(transform, torch.distributions.IndependentTransform):
        return undone(transform.base_transform, value)
    for family, inverse in _INVERSES.items():
        if isinstance(transform, family):
            return inverse(transform, value)
    return transform.inv(value)  # type: ignore[no-any-return]


def _root(increasing: Callable[[Tensor], Tensor], target: Tensor) -> Tensor:
    """The point where an increasing function of each entry meets the target, by bisection; no derivatives."""
    low, high = torch.full_like(target, -_REACH), torch.full_like(target, _REACH)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        point = torch.sinh(middle)
        found = increasing(point)
        # far out a function may overflow, and its sign is that of the point
        above = torch.where(torch.isnan(found), point > 0, found > target)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return torch.sinh((low + high) / 2)


def _newton(function: Callable[[Tensor], Tensor], target: Tensor, start: Tensor) -> Tensor:
    """One step on a vector: it carries the derivatives, and takes off what the bisection left."""
    size = start.shape[-1]
    basis = torch.eye(size, dtype=start.dtype, device=start.device)
    pullback = torch.func.vjp(function, start)[1]
    rows = [pullback(unit.expand_as(start))[0] for unit in basis.unbind()]
    slope = torch.stack(rows, -2).detach()
    missing = (target - function(start)).unsqueeze(-1)  # last: Pyro's flows keep what they see
    return start + torch.linalg.solve(slope, missing).squeeze(-1)


def _in_order(transform: Any, value: Tensor, order: Iterable[int]) -> Tensor:
    """The inverse of a map whose coordinates increase in themselves and depend on those before them in the order."""
    # the bare map: calls of the transform are cached, and a function under ``vjp`` must not be
    function: Callable[[Tensor], Tensor] = transform._call
    with torch.no_grad():
        known = torch.zeros_like(value)
        for i in order:
            mine = torch.arange(value.shape[-1], device=value.device) == i

            def one(
                point: Tensor, known: Tensor = known, mine: Tensor = mine, i: int = i
            ) -> Tensor:
                return function(torch.where(mine, point.unsqueeze(-1), known))[..., i]

            root = _root(one, value[..., i])
            known = torch.where(mine, root.unsqueeze(-1), known)
    return _newton(function, value, known)


def _polynomial_or_neural(transform: Any, value: Tensor) -> Tensor:
    return _in_order(transform, value, _order(transform))


def _order(transform: Any) -> list[int]:
    return transform.arn.get_permutation().tolist()  # type: ignore[no-any-return]


def _block(transform: Any, value: Tensor) -> Tensor:
    return _in_order(transform, value, range(value.shape[-1]))


def _affine_autoregressive(transform: Any, value: Tensor) -> Tensor:
    # each pass gets one more coordinate of the order right; Pyro's own starts from float32 whatever the dtype
    found = torch.zeros_like(value)
    for _ in range(value.shape[-1]):
        mean, log_scale = transform.arn(found)
        if transform.stable:
            gate = torch.nn.functional.logsigmoid(log_scale + transform.sigmoid_bias)
            found = (value - (1 - torch.exp(gate)) * mean) * torch.exp(-gate)
        else:
            limits = transform.log_scale_min_clip, transform.log_scale_max_clip
            found = (value - mean) * torch.exp(-log_scale.clamp(*limits))
    return found


def _parameters(transform: Any) -> tuple[Tensor, ...]:
    given = transform._params
    return given() if callable(given) else given  # type: ignore[no-any-return]


def _planar(transform: Any, value: Tensor) -> Tensor:
    bias, u, w = _parameters(transform)
    u = transform.u_hat(u, w)
    # a = w.x + bias solves a + w.u tanh(a) = w.y + bias, whose left side increases
    pull = (w * u).sum(-1, keepdim=True)
    target = (w * value).sum(-1, keepdim=True) + bias
    pull, target = torch.broadcast_tensors(pull, target)
    with torch.no_grad():
        root = _root(lambda a: a + pull * torch.tanh(a), target)
        slope = 1 + pull * (1 - torch.tanh(root).square())
    root = root - (root + pull * torch.tanh(root) - target) / slope
    return value - u * torch.tanh(root)


def _radial(transform: Any, value: Tensor) -> Tensor:
    centre, alpha, beta = _parameters(transform)
    alpha = torch.nn.functional.softplus(alpha)
    beta = torch.nn.functional.softplus(beta) - alpha
    offset = value - centre
    # the radius r of x solves r + beta r / (alpha + r) = |y - centre|, a quadratic equation
    size = offset.norm(dim=-1, keepdim=True)
    half = (size - alpha - beta) / 2
    discriminant = torch.sqrt(half.square() + size * alpha)
    radius = torch.where(half > 0, half + discriminant, size * alpha / (discriminant - half))
    return centre + offset / (1 + beta / (alpha + radius))


def _linear(transform: Any, value: Tensor) -> Tensor:
    """Of a linear map, by its matrix: Pyro cuts the series of ``exp(W)`` and of ``exp(-W)`` off, and they are no inverses."""
    size = value.shape[-1]
    basis = torch.eye(size, dtype=value.dtype, device=value.device)
    images = [transform._call(unit.expand_as(value)) for unit in basis.unbind()]
    return torch.linalg.solve(torch.stack(images, -1), value.unsqueeze(-1)).squeeze(-1)


def _elu(transform: Any, value: Tensor) -> Tensor:
    return torch.where(value > 0, value, torch.log1p(value.clamp(max=0.0)))


_INVERSES: dict[type, Callable[[Any, Tensor], Tensor]] = {
    transforms.AffineAutoregressive: _affine_autoregressive,
    transforms.Polynomial: _polynomial_or_neural,
    transforms.NeuralAutoregressive: _polynomial_or_neural,
    transforms.BlockAutoregressive: _block,
    ConditionedPlanar: _planar,
    ConditionedRadial: _radial,
    ConditionedMatrixExponential: _linear,
    transforms.ELUTransform: _elu,
}

#: Flows whose inverse Pyro only looks up: their log determinant has to be computed at the point found here.
ONE_WAY: tuple[type, ...] = (
    transforms.Polynomial,
    transforms.NeuralAutoregressive,
    transforms.BlockAutoregressive,
    ConditionedPlanar,
    ConditionedRadial,
)
