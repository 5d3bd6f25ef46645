"""Where the continuous latents of a program stand on the real line."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints, transforms
from torch.nn.functional import softplus

from ..errors import MethodError
from ..structural.sites import Site, elements
from .posterior_draws import Units

__all__ = ["Coordinates"]

_FARTHEST = (
    30.0  # a value at the edge of its support has its coordinate at infinity; it starts here
)


class Coordinates:
    """The part of a real vector that holds one latent site, or what is missing of it.

    A vector has shape ``(*unit sizes, dim)``; the site's part is ``vector[..., start:stop]``. Without units, known entries of a
    site whose entries are independent have no coordinates. With units each unit has as many, so the coordinate of a known entry
    is idle: it has a standard normal law and no effect.
    """

    def __init__(self, site: Site, start: int, units: Units, method: str) -> None:
        self.site, self.start, self.units, self.method = site, start, units, method
        self.inner = elements(site.fn)
        self.each = self.inner is not None and (
            site.missing is not None or site.interval is not None
        )
        alone = self.each and site.missing is not None and not units.dims
        self.index = site.missing.flatten().nonzero().squeeze(-1) if alone else None  # type: ignore[union-attr]
        transform = self.transform(site.fn)
        shape = torch.Size(transform.inverse_shape(site.value.shape))
        events = site.fn.event_dim if self.each else transform.domain.event_dim
        self.shape, self.events = shape, events
        self.axes = [len(shape) + dim - events for dim in units.dims]
        rest = [size for axis, size in enumerate(shape) if axis not in self.axes]
        self.rest = torch.Size(rest)
        count = len(self.index) if self.index is not None else self.rest.numel()
        self.stop = start + count

    def transform(self, fn: Any) -> Any:
        """The map from the real line to the site's support under ``fn``, or to the range where one is known."""
        site = self.site
        if site.interval is None:
            return _bijection(elements(fn) if self.each else fn)
        inner = elements(fn)
        if inner is None:
            raise MethodError(
                f"{self.method}: a range of site {site.name!r}, whose entries depend on each other; use cp.ImportanceSampling()"
            )
        low, high = site.interval
        low = torch.maximum(low, torch.as_tensor(getattr(inner.support, "lower_bound", -math.inf)))
        high = torch.minimum(high, torch.as_tensor(getattr(inner.support, "upper_bound", math.inf)))
        if bool(torch.isinf(low).all() & torch.isinf(high).all()):
            return _bijection(inner)
        return _IntoRanges(low, high)

    def _spread(self, vector: Tensor) -> Tensor:
        """The site's coordinates in the shape that the transform takes."""
        raw = vector[..., self.start : self.stop]
        if self.index is not None:
            full = raw.new_zeros(self.shape.numel())
            return full.index_put((self.index,), raw).reshape(self.shape)
        wide = raw.reshape(torch.Size([*self.units.sizes, *self.rest]))
        return wide.movedim(tuple(range(len(self.axes))), tuple(self.axes))

    def _gathered(self, raw: Tensor) -> Tensor:
        """The inverse: ``(*unit sizes, coordinates of the site)``."""
        if self.index is not None:
            return raw.flatten()[self.index]
        return raw.movedim(tuple(self.axes), tuple(range(len(self.axes)))).reshape(
            *self.units.sizes, -1
        )

    def write(self, value: Tensor, fn: Any) -> Tensor:
        """The coordinates of a value, shape ``(*unit sizes, coordinates of the site)``."""
        raw = self.transform(fn).inv(value)
        raw = raw.nan_to_num(0.0, _FARTHEST, -_FARTHEST)
        if self.site.missing is not None and raw.shape == self.site.value.shape:
            raw = torch.where(self.site.missing, raw, 0.0)
        return self._gathered(raw)

    def read(self, vector: Tensor, fn: Any) -> tuple[Tensor, Tensor]:
        """The site's value, and the log Jacobian of the map, of the batch shape of ``fn``."""
        site, raw = self.site, self._spread(vector)
        transform = self.transform(fn)
        value = transform(raw)
        jacobian = transform.log_abs_det_jacobian(raw, value)
        if site.missing is None:
            return value, self._summed(jacobian) if self.each else jacobian
        known = ~site.missing
        if self.each:
            jacobian = torch.where(known, 0.0, jacobian)
            if self.index is None:
                jacobian = jacobian + torch.where(known, -0.5 * raw**2, 0.0)
            return torch.where(known, site.value, value), self._summed(jacobian)
        # a part of an event whose entries depend on each other: what is known of it leaves an idle coordinate behind
        lost = site.missing.flatten(site.missing.dim() - site.fn.event_dim).any(-1)
        whole = lost.reshape(*lost.shape, *([1] * self.events)).expand(raw.shape)
        idle = known if raw.shape == site.value.shape else ~whole
        filler = self._summed(torch.where(idle, -0.5 * raw**2, 0.0), self.events)
        kept = torch.where(lost, jacobian.expand(lost.shape), 0.0)
        return torch.where(known, site.value, value), kept + filler

    def _summed(self, entries: Tensor, dims: int | None = None) -> Tensor:
        dims = self.site.fn.event_dim if dims is None else dims
        return entries.sum(tuple(range(-dims, 0))) if dims else entries


def _bijection(fn: Any) -> Any:
    """From the real line onto the support."""
    if isinstance(fn, torch.distributions.Independent):
        inner = _bijection(fn.base_dist)
        return transforms.IndependentTransform(inner, fn.reinterpreted_batch_ndims)
    if isinstance(fn, torch.distributions.TransformedDistribution):
        base = fn.base_dist
        while isinstance(base, torch.distributions.Independent):
            base = base.base_dist
        # torch takes the last transform's codomain for the support, which is wrong where the base's is not the whole line
        if base.support is not constraints.real and base.support is not constraints.real_vector:
            return transforms.ComposeTransform([_bijection(fn.base_dist), *fn.transforms])
    return biject_to(fn.support)


class _IntoRanges(transforms.Transform):
    """Entry by entry onto ``(low, high)``, each of which may be infinite for some entries."""

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = 1

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.low, self.high = torch.broadcast_tensors(low, high)
        self.below, above = ~torch.isinf(self.low), ~torch.isinf(self.high)
        self.between, self.half = self.below & above, self.below ^ above
        self.start = torch.where(self.below, self.low, 0.0)
        self.end = torch.where(above, self.high, 0.0)
        self.width = torch.where(self.between, self.end - self.start, 1.0)

    def _one_sided(self, x: Tensor) -> Tensor:
        """The distance's logarithm where one end is open; 0 elsewhere, whose exponential has a gradient too."""
        return torch.where(self.half, torch.where(self.below, x, -x), 0.0)

    def _call(self, x: Tensor) -> Tensor:
        inside = self.start + self.width * torch.sigmoid(x)
        distance = self._one_sided(x).exp()
        half = torch.where(self.below, self.start + distance, self.end - distance)
        return torch.where(self.between, inside, torch.where(self.half, half, x))

    def _inverse(self, y: Tensor) -> Tensor:
        share = torch.where(self.between, (y - self.start) / self.width, 0.5)
        distance = torch.where(self.below, y - self.start, self.end - y)
        log_distance = torch.where(self.half, distance, 1.0).log()
        half = torch.where(self.below, log_distance, -log_distance)
        return torch.where(self.between, torch.logit(share), torch.where(self.half, half, y))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Of each entry."""
        inside = self.width.log() - softplus(x) - softplus(-x)
        return torch.where(self.between, inside, self._one_sided(x))
