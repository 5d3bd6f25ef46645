"""Values of sites as networks see them: real vectors of about unit size, units first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import biject_to, constraints

from ..errors import MethodError
from ..networks import embedding_for
from .reading import SiteShape

__all__ = ["RealVector", "SiteEncoder", "indices", "squashed", "values_at"]

_LINEAR = 5.0
_FAR = 30.0
#: Observed values of up to this many entries are shown on the real line too, where their support is a part of it.
_SHORT = 16


def squashed(x: Tensor) -> Tensor:
    """Linear up to five, logarithmic beyond, so that one wild value does not drown the others."""
    size = x.abs()
    return torch.where(size <= _LINEAR, x, x.sign() * (_LINEAR + torch.log1p(size - _LINEAR)))


def indices(shape: SiteShape, value: Tensor) -> Tensor:
    """Values of a discrete site, units first, as numbers of categories: ``(rows,) + units + (entries,)``."""
    lead = 1 + len(shape.plates)
    if shape.values is None:
        return value.flatten(lead).long() if value.dim() > lead else value.unsqueeze(-1).long()
    if shape.one_hot:
        return (
            value.argmax(-1).flatten(lead)
            if value.dim() > lead + 1
            else value.argmax(-1, keepdim=True)
        )
    flat = value.flatten(lead) if value.dim() > lead else value.unsqueeze(-1)
    return torch.searchsorted(shape.values.contiguous(), flat.to(shape.values).contiguous())


def values_at(shape: SiteShape, index: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of :func:`indices`."""
    units = index.shape[:-1]
    if shape.values is None:
        return index.reshape(*units, *shape.inner).to(dtype)
    if shape.one_hot:
        return F.one_hot(index, len(shape.values)).reshape(*units, *shape.inner).to(dtype)
    return shape.values[index].reshape(*units, *shape.inner).to(dtype)


class RealVector(nn.Module):
    r"""A continuous site's value as a standardised vector of the real line, by its support's bijection.

    Mean and scale are those of simulations, so that a flow begins near the prior.

    Args:
        shape: the site's layout.
        value: simulated values, ``(rows,) + site shape``.
        support: of the site's distribution.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, shape: SiteShape, value: Tensor, support: Any) -> None:
        super().__init__()
        self.shape = shape
        flat, _ = self._unconstrained(value, support)
        flat = flat.flatten(0, -2)
        kept = flat.isfinite()
        clean = torch.where(kept, flat, torch.zeros_like(flat))
        count = kept.sum(0).clamp(min=1)
        mean = clean.sum(0) / count
        spread = (torch.where(kept, (flat - mean) ** 2, 0.0).sum(0) / count).sqrt()
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", torch.where(spread > 1e-6, spread, 1.0).float())
        self.size = flat.shape[-1]

    def forward(self, value: Tensor, support: Any) -> tuple[Tensor, Tensor]:
        """``(rows,) + site shape`` to ``(rows,) + units + (size,)``, and the log Jacobian, ``(rows,) + units``, in nats."""
        flat, log_det = self._unconstrained(value, support)
        x = ((flat - self.mean) / self.scale).clamp(-_FAR, _FAR)
        return x, log_det - self.scale.log().sum()

    def inverse(self, x: Tensor, support: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Values, ``(rows,) + site shape``, and the log Jacobian of :meth:`forward` there."""
        shape, bijection = self.shape, biject_to(support)
        real = (x * self.scale + self.mean).to(dtype)
        inner = bijection.inverse_shape(torch.Size(_site_shape(shape, real.shape[1:-1])))
        loose = [s for i, s in enumerate(inner) if i not in shape.axes]
        laid = shape.units_back(real.reshape(*real.shape[:-1], *loose))
        value = bijection(laid)
        log_det = self._per_unit(-bijection.log_abs_det_jacobian(laid, value))
        return value, log_det.to(x) - self.scale.log().sum()

    def _unconstrained(self, value: Tensor, support: Any) -> tuple[Tensor, Tensor]:
        bijection = biject_to(support)
        real = bijection.inv(value)
        log_det = self._per_unit(-bijection.log_abs_det_jacobian(real, value))
        lead = 1 + len(self.shape.plates)
        found = self.shape.units_first(real)
        flat = found.flatten(lead) if found.dim() > lead else found.unsqueeze(-1)
        return flat.float(), log_det.float()

    def _per_unit(self, log_det: Tensor) -> Tensor:
        """``(rows,) + batch + some event dims`` to ``(rows,) + units``."""
        found = self.shape.units_first(log_det)
        lead = 1 + len(self.shape.plates)
        return found.flatten(lead).sum(-1) if found.dim() > lead else found


def _site_shape(shape: SiteShape, units: torch.Size) -> list[int]:
    """The shape of a site's value for units of these sizes."""
    sizes = dict(zip(shape.axes, units, strict=True))
    inner = iter(shape.inner)
    return [sizes[i] if i in sizes else next(inner) for i in range(shape.batch + shape.event)]


class SiteEncoder(nn.Module):
    """What networks are shown of a site's value.

    Args:
        shape: the site's layout.
        value: simulated values, ``(rows,) + site shape``.
        support: of the site's distribution.
        embed: for an observed site: ``None``, the name of a kind, or a module from ``(batch,) + event shape`` to ``(batch, size)``.
        width: of embeddings.

    Raises:
        MethodError: the module does not return ``(batch, size)``.
    """

    def __init__(
        self,
        shape: SiteShape,
        value: Tensor,
        support: Any,
        embed: str | nn.Module | None = None,
        width: int = 64,
    ) -> None:
        super().__init__()
        self.shape, self.own = shape, isinstance(embed, nn.Module)
        self.real: RealVector | None = None
        self.kinds = 0 if shape.values is None else len(shape.values)
        self.embed: nn.Module | None = None
        first = shape.units_first(value)
        flat = first.reshape(-1, *shape.inner).float()
        clean = torch.where(flat.isfinite(), flat, torch.zeros_like(flat))
        spread = clean.std(0)
        self.register_buffer("mean", clean.mean(0))
        self.register_buffer("scale", torch.where(spread > 1e-6, spread, torch.ones_like(spread)))
        if isinstance(embed, nn.Module):
            self.embed = embed
            self.size = _size(shape.name, embed, flat[:2])
        elif self.kinds:
            entries = max(1, flat[0].numel() // (self.kinds if shape.one_hot else 1))
            self.size = entries * self.kinds
        else:
            self.embed, self.size = embedding_for(shape.inner, width, embed)
            if (
                self.size <= _SHORT
                and self.size == flat[0].numel()
                and not shape.discrete
                and not _is_real(support)
            ):
                self.real = RealVector(shape, value, support)
                self.size += self.real.size

    mean: Tensor
    scale: Tensor

    def forward(self, value: Tensor, support: Any) -> Tensor:
        """``(rows,) + site shape`` to ``(rows,) + units + (size,)``."""
        shape = self.shape
        first = shape.units_first(value)
        units = first.shape[: 1 + len(shape.plates)]
        if self.embed is None:
            seen = F.one_hot(indices(shape, first), self.kinds)
            return seen.to(self.mean).reshape(*units, self.size)
        flat = first.reshape(-1, *shape.inner).to(self.mean)
        shown = flat if self.own else squashed((flat - self.mean) / self.scale)
        found = self.embed(shown)
        if self.real is not None:
            real, _ = self.real(value, support)
            found = torch.cat([found, squashed(real).reshape(len(found), -1)], -1)
        return found.reshape(*units, self.size)  # type: ignore[no-any-return]


def _is_real(support: Any) -> bool:
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support in (constraints.real, constraints.real_vector)


def _size(name: str, embed: nn.Module, batch: Tensor) -> int:
    try:
        with torch.no_grad():
            found = embed(batch)
    except RuntimeError as error:
        raise MethodError(
            f"embed: the network of site {name!r} fails on a batch of shape {tuple(batch.shape)}: {error}; it receives (batch,) + event "
            "shape"
        ) from error
    if not isinstance(found, Tensor) or found.dim() != 2 or len(found) != len(batch):
        shown = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise MethodError(
            f"embed: the network of site {name!r} returned {shown} for a batch of shape {tuple(batch.shape)}; it must return "
            f"({len(batch)}, features)"
        )
    return int(found.shape[-1])


def supports_of(sites: Mapping[str, Any]) -> dict[str, Any]:
    """Site to its distribution's support."""
    return {n: s.fn.support for n, s in sites.items() if s.kind == "sample"}
