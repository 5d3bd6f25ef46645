"""Families that are another family in other words: mixtures with a class of their own, and draws from a list of samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from .protocol import Mechanism, NoiseDistribution
from .registry import mechanism_for, register_wrapper

__all__ = ["Rewritten"]


@dataclass(frozen=True)
class Rewritten:
    """The mechanism of ``rewrite(fn)``, a distribution with the same law and shapes."""

    rewrite: Callable[[Any], Any]
    inner: Mechanism

    @property
    def name(self) -> str:
        """The other family's."""
        return self.inner.name

    @property
    def invertible(self) -> bool:
        """Whether the other family's is."""
        return self.inner.invertible

    def noise(self, fn: Any) -> NoiseDistribution:
        """The other family's."""
        return self.inner.noise(self.rewrite(fn))

    def forward(self, fn: Any, noise: Any) -> Tensor:
        """The other family's value."""
        return self.inner.forward(self.rewrite(fn), noise)

    def base(self, fn: Any) -> NoiseDistribution:
        """The other family's."""
        return self.inner.base(self.rewrite(fn))

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Any:
        """The other family's noise."""
        return self.inner.abduct(self.rewrite(fn), value, base)


def _mixture(logits: Tensor, component: Any) -> Any:
    choice = dist.Categorical(logits=logits, validate_args=False)
    return dist.MixtureSameFamily(choice, component, validate_args=False)


def _normals(fn: Any, loc: Tensor, scale: Tensor) -> Any:
    component = dist.Normal(loc, scale.expand_as(loc), validate_args=False)
    return _mixture(fn.component_logits, component.to_event(1))


def _diagonal(fn: Any) -> Any:
    return _normals(fn, fn.locs, fn.coord_scale)


def _shared_diagonal(fn: Any) -> Any:
    return _normals(fn, fn.locs, fn.coord_scale.unsqueeze(-2))


def _scales(fn: Any) -> Any:
    scale = fn.component_scale.unsqueeze(-1) * fn.coord_scale
    return _normals(fn, torch.zeros_like(scale), scale)


def _listed(fn: Any) -> Any:
    points = dist.Delta(fn._samples, event_dim=len(fn.event_shape), validate_args=False)
    return _mixture(fn._log_weights, points)


def _quadrature(fn: Any) -> Any:
    # Pyro's density is this finite mixture, a rule of quadrature over the normal noise in the logits
    return _mixture(fn.log_weights.expand(fn.nb_dist.batch_shape), fn.nb_dist)


_REWRITES: dict[type, Callable[[Any], Any]] = {
    dist.MixtureOfDiagNormals: _diagonal,
    dist.MixtureOfDiagNormalsSharedCovariance: _shared_diagonal,
    dist.GaussianScaleMixture: _scales,
    dist.Empirical: _listed,
    dist.LogNormalNegativeBinomial: _quadrature,
}


def _register(family: type, rewrite: Callable[[Any], Any]) -> None:
    @register_wrapper(family)
    def _rule(fn: Any, name: str | None) -> Mechanism:
        return Rewritten(rewrite, mechanism_for(rewrite(fn), name))


for _family, _rewrite in _REWRITES.items():
    _register(_family, _rewrite)
