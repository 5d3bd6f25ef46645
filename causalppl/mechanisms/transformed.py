"""Transformed distributions and conditional flows: the base's mechanism, then the transforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyro.distributions.transforms as transforms
import torch
from torch import Tensor

from ..errors import NoMechanismError
from .protocol import Mechanism, NoiseDistribution
from .registry import mechanism_for, register_wrapper

__all__ = ["Transformed"]


@dataclass(frozen=True)
class Transformed:
    """``v = T_n(... T_1(f(parents, noise)))`` with ``f`` the mechanism of ``fn.base_dist`` and bijective transforms.

    Parameters of the transforms are parents too: they are read from ``fn`` in every world.
    """

    inner: Mechanism

    @property
    def name(self) -> str:
        """The base's."""
        return self.inner.name

    @property
    def invertible(self) -> bool:
        """Whether the base's is."""
        return self.inner.invertible

    def noise(self, fn: Any) -> NoiseDistribution:
        """The law of the base's noise."""
        return self.inner.noise(fn.base_dist)

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The base's value, transformed."""
        value = self.inner.forward(fn.base_dist, noise)
        for transform in fn.transforms:
            value = transform(value)
        return value

    def base(self, fn: Any) -> NoiseDistribution:
        """The law of what the base's abduction needs."""
        return self.inner.base(fn.base_dist)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Any:
        """The base's noise of the value that the transforms started from."""
        for transform in reversed(fn.transforms):
            value = transform.inv(value)
        return self.inner.abduct(fn.base_dist, value, base)


def _named(*names: str) -> tuple[type, ...]:
    found = (getattr(transforms, prefix + name, None) for name in names for prefix in _PREFIXES)
    return tuple(kind for kind in found if isinstance(kind, type))


_PREFIXES = ("", "Conditioned")

#: Flows whose inverse Pyro only looks up in a cache of what it has just computed.
_ONE_WAY = _named(
    "Planar", "Radial", "Sylvester", "Polynomial", "NeuralAutoregressive", "BlockAutoregressive"
)


def _parts(given: Iterable[Any]) -> Iterator[Any]:
    for transform in given:
        if isinstance(transform, torch.distributions.ComposeTransform):
            yield from _parts(transform.parts)
        else:
            yield getattr(transform, "base_transform", transform)


@register_wrapper(torch.distributions.TransformedDistribution)
def _transformed(fn: Any, name: str | None) -> Mechanism:
    for transform in _parts(fn.transforms):
        if isinstance(transform, _ONE_WAY):
            raise NoMechanismError(
                f"{type(fn).__name__} applies {type(transform).__name__}, which Pyro can compute in one direction only, so "
                "values cannot be abducted; use a spline, affine autoregressive or affine coupling transform"
            )
        if not transform.bijective:
            raise NoMechanismError(
                f"{type(fn).__name__} applies {type(transform).__name__}, which is not bijective, so the noise is no "
                "function of the value; use a bijective transform, or register a mechanism for the class with "
                f"cp.register_mechanism({type(fn).__name__}, mechanism)"
            )
    return Transformed(mechanism_for(fn.base_dist, name))
