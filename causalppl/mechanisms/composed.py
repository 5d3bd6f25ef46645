"""Mechanisms composed of others: wrappers and transforms, resolved by recursion; and sites without noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor

from .protocol import Mechanism, NoiseDistribution, TupleDistribution
from .registry import mechanism_for, register_mechanism, register_wrapper

__all__ = ["OfBase", "PassThrough", "Transformed"]


class _Repeated:
    """A law drawn with further dimensions to the left, for a batch that was expanded."""

    def __init__(self, law: NoiseDistribution, left: torch.Size) -> None:
        self.law, self.left = law, left

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Any:  # noqa: B008
        """Draws of shape ``sample_shape + left + noise shape``."""
        return self.law.sample(torch.Size((*sample_shape, *self.left)))


@dataclass(frozen=True)
class OfBase:
    """The mechanism of ``fn.base_dist``; the wrapper changes shapes or densities only."""

    inner: Mechanism

    @property
    def name(self) -> str:
        """The base's."""
        return self.inner.name

    @property
    def invertible(self) -> bool:
        """The base's."""
        return self.inner.invertible

    def noise(self, fn: Any) -> NoiseDistribution:
        """The base's law, expanded where the wrapper is."""
        return self.inner.noise(_expanded(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The base's structural assignment."""
        return self.inner.forward(fn.base_dist, noise)

    def base(self, fn: Any) -> NoiseDistribution:
        """The base's."""
        return self.inner.base(_expanded(fn))

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Any:
        """The base's."""
        return self.inner.abduct(fn.base_dist, value, base)


def _expanded(fn: Any) -> Any:
    if isinstance(fn, ExpandedDistribution):
        return fn.base_dist.expand(fn.batch_shape)
    return fn.base_dist


@dataclass(frozen=True)
class Transformed:
    """The base's mechanism, then the bijective transforms."""

    inner: Mechanism

    @property
    def name(self) -> str:
        """The base's."""
        return self.inner.name

    @property
    def invertible(self) -> bool:
        """The base's."""
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
        """The base's."""
        return self.inner.base(fn.base_dist)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Any:
        """The noise of the value that the transforms came from."""
        for transform in reversed(fn.transforms):
            value = transform.inv(value)
        return self.inner.abduct(fn.base_dist, value, base)


@dataclass(frozen=True)
class PassThrough:
    """``v`` is a function of the parents alone; the noise is an empty tuple."""

    name: str = "deterministic"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Nothing to draw."""
        return TupleDistribution()

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The value itself."""
        return fn.v.expand(fn.batch_shape + fn.event_shape)  # type: ignore[no-any-return]

    def base(self, fn: Any) -> NoiseDistribution:
        """Nothing to draw."""
        return TupleDistribution()

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[()]:
        """Nothing to know."""
        return ()


def _of_base(fn: Any, name: str | None) -> Mechanism:
    return OfBase(mechanism_for(fn.base_dist, name))


for _wrapper in (torch.distributions.Independent, ExpandedDistribution, dist.MaskedDistribution):
    register_wrapper(_wrapper)(_of_base)


@register_wrapper(torch.distributions.TransformedDistribution)
def _transformed(fn: Any, name: str | None) -> Mechanism:
    from ..errors import NoMechanismError

    for transform in fn.transforms:
        if not transform.bijective:
            raise NoMechanismError(
                f"{type(fn).__name__} applies {type(transform).__name__}, which is not bijective, so the noise is no function of "
                "the value; register a mechanism for the class with cp.register_mechanism"
            )
    return Transformed(mechanism_for(fn.base_dist, name))


register_mechanism(dist.Delta, PassThrough())
