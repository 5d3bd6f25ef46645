"""Distributions that wrap another, resolved by recursion; and sites that have no noise of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor

from .protocol import Mechanism, NoiseDistribution, TupleDistribution
from .registry import mechanism_for, register_mechanism, register_wrapper

__all__ = ["OfBase", "OfExpanded", "PassThrough"]


@dataclass(frozen=True)
class OfBase:
    """The mechanism of ``fn.base_dist``: the wrapper regroups dimensions or weighs densities, no more."""

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
        """The base's structural assignment."""
        return self.inner.forward(fn.base_dist, noise)

    def base(self, fn: Any) -> NoiseDistribution:
        """The law of what the base's abduction needs."""
        return self.inner.base(fn.base_dist)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Any:
        """The base's abduction."""
        return self.inner.abduct(fn.base_dist, value, base)


@dataclass(frozen=True)
class _Repeated:
    """The law of a base's noise, drawn once for every element of an expanded batch.

    It relies on every noise tensor having shape ``batch_shape`` plus dimensions of its own to the right.
    """

    law: NoiseDistribution
    fn: Any

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Any:  # noqa: B008
        """Draws of shape ``sample_shape + fn.batch_shape + own dimensions``."""
        stretched = self.fn._interstitial_sizes  # {negative batch dim of size 1: its new size}
        added = (*self.fn._expanded_sizes.values(), *stretched.values())
        drawn = self.law.sample(torch.Size((*sample_shape, *added)))
        return self._arranged(drawn, len(sample_shape))

    def _arranged(self, drawn: Any, rows: int) -> Any:
        if isinstance(drawn, tuple):
            return tuple(self._arranged(part, rows) for part in drawn)
        expanded, stretched = self.fn._expanded_sizes, self.fn._interstitial_sizes
        batch = len(self.fn.base_dist.batch_shape)
        own = drawn.shape[rows + len(expanded) + len(stretched) + batch :]
        for i, dim in enumerate(stretched):
            drawn = drawn.transpose(rows + len(expanded) + i, dim - len(own))
        return drawn.reshape((*drawn.shape[:rows], *self.fn.batch_shape, *own))


@dataclass(frozen=True)
class OfExpanded(OfBase):
    """The mechanism of ``fn.base_dist``, which broadcasts; every element of the expanded batch has noise of its own."""

    def noise(self, fn: Any) -> NoiseDistribution:
        """The law of the base's noise, repeated."""
        return _Repeated(self.inner.noise(fn.base_dist), fn)

    def base(self, fn: Any) -> NoiseDistribution:
        """The law of what the base's abduction needs, repeated."""
        return _Repeated(self.inner.base(fn.base_dist), fn)


@dataclass(frozen=True)
class PassThrough:
    """``v`` is a function of the parents alone; the noise is an empty tuple."""

    name: str = "deterministic"
    invertible: bool = True

    def noise(self, fn: Any) -> NoiseDistribution:
        """Nothing to draw."""
        return TupleDistribution()

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The point itself; for a factor, the empty value."""
        if isinstance(fn, dist.Unit):
            return fn.log_factor.new_empty(fn.batch_shape + fn.event_shape)  # type: ignore[no-any-return]
        return fn.v  # type: ignore[no-any-return]

    def base(self, fn: Any) -> NoiseDistribution:
        """Nothing to draw."""
        return TupleDistribution()

    def abduct(self, fn: Any, value: Tensor, base: Any) -> tuple[()]:
        """Nothing to know."""
        return ()


@register_wrapper(torch.distributions.Independent)
@register_wrapper(dist.MaskedDistribution)
def _of_base(fn: Any, name: str | None) -> Mechanism:
    return OfBase(mechanism_for(fn.base_dist, name))


@register_wrapper(ExpandedDistribution)
def _of_expanded(fn: Any, name: str | None) -> Mechanism:
    return OfExpanded(mechanism_for(fn.base_dist, name))


register_mechanism(dist.Delta, PassThrough())
register_mechanism(dist.Unit, PassThrough())
