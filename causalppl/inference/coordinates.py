"""Where the continuous latents of a program stand on the real line."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import biject_to, constraints

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
            return biject_to(elements(fn).support if self.each else fn.support)
        inner = elements(fn)
        if inner is None:
            raise MethodError(
                f"{self.method}: a range of site {site.name!r}, whose entries depend on each other; use cp.ImportanceSampling()"
            )
        low, high = site.interval
        low = torch.maximum(low, torch.as_tensor(getattr(inner.support, "lower_bound", -math.inf)))
        high = torch.minimum(high, torch.as_tensor(getattr(inner.support, "upper_bound", math.inf)))
        open_low, open_high = bool(torch.isinf(low).all()), bool(torch.isinf(high).all())
        if open_low and open_high:
            return biject_to(inner.support)
        if bool(torch.isinf(low).any()) != open_low or bool(torch.isinf(high).any()) != open_high:
            raise MethodError(
                f"{self.method}: the ranges of site {site.name!r} are open for some entries only; use cp.ImportanceSampling()"
            )
        found: Any
        if open_low or open_high:
            found = constraints.less_than(high) if open_low else constraints.greater_than(low)
        else:
            found = constraints.interval(low, high)
        return biject_to(found)

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
