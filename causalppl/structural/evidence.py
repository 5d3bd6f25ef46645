"""Evidence as people have it: numbers, arrays, tensors, columns of a data frame; entries missing; ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import EvidenceError, ImpossibleEvidenceError, SupportError
from ..interventions import cast_to, check_support, fit_shape
from .intervals import constant_bounds
from .sites import elements

__all__ = ["Interval", "Known", "as_tensor", "fit_evidence", "hidden_entries", "read_evidence"]


@dataclass(frozen=True, eq=False)
class Interval:
    """Evidence that a site's value lies in a range, ``low <= v <= high``.

    Args:
        low, high: numbers, arrays or tensors that broadcast to the site's shape, in the site's units. Infinite for an open
            end; NaN where nothing is known of an entry; equal where an entry is known.

    Raises:
        EvidenceError: an entry of ``low`` exceeds that of ``high``.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model(): return pyro.sample("x", dist.Normal(0.0, 1.0))
        >>> worlds = cp.abduct(model, {"x": cp.Interval(1.0, 1.1)}, num_samples=100, seed=0)().predict()
        >>> 1.0 <= float(worlds["x"].min()) <= float(worlds["x"].max()) <= 1.1
        True
    """

    low: Any
    high: Any

    def __post_init__(self) -> None:
        low, high = as_tensor("Interval", self.low), as_tensor("Interval", self.high)
        try:
            wrong = bool((low > high).any())
        except RuntimeError:
            raise EvidenceError(
                f"Interval: low has shape {tuple(low.shape)} and high {tuple(high.shape)}; they do not broadcast"
            ) from None
        if wrong:
            raise EvidenceError(
                f"Interval: low={self.low!r} exceeds high={self.high!r}; give the lower end first"
            )
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)


@dataclass(frozen=True)
class Known:
    """What is known of a site: its value where entries are known, which are missing, and a range."""

    value: Tensor
    missing: Tensor | None = None
    interval: tuple[Tensor, Tensor] | None = None

    @property
    def nothing(self) -> bool:
        """Whether no entry is known, not even its range."""
        return self.missing is not None and bool(self.missing.all()) and self.interval is None


def read_evidence(evidence: Any) -> dict[str, Any]:
    """Site to what was given: from a mapping, a data frame (columns are sites) or a dataset.

    Raises:
        EvidenceError: something else, or a key that is no string.
    """
    if evidence is None:
        return {}
    if not isinstance(evidence, Mapping) and not (
        hasattr(evidence, "items") and hasattr(evidence, "columns")
    ):
        raise EvidenceError(
            f"evidence: give a mapping of site to value such as {{'y': 1.0}}, or a data frame whose columns are sites, not "
            f"{evidence!r}"
        )
    found = dict(evidence.items())
    for name in found:
        if not isinstance(name, str):
            raise EvidenceError(f"evidence: {name!r} is no site name; keys are strings")
    return found


def as_tensor(name: str, given: Any) -> Tensor:
    """A tensor of its own memory; missing entries of columns and object arrays are NaN."""
    if isinstance(given, Tensor):
        return given.detach().clone()
    try:
        if hasattr(given, "cat") and hasattr(given.cat, "codes"):  # a categorical column
            codes = np.asarray(given.cat.codes, dtype=float)
            return torch.tensor(np.where(codes < 0, np.nan, codes))
        if hasattr(given, "isna") and hasattr(
            given, "to_numpy"
        ):  # pandas, its own kinds of missing included
            lost = np.asarray(given.isna())
            given = given.to_numpy(dtype=float, na_value=np.nan) if lost.any() else given.to_numpy()
        elif isinstance(given, np.ma.MaskedArray):
            given = np.ma.filled(given.astype(float), np.nan)
        array = np.asarray(getattr(given, "values", given))
        if array.dtype == object:
            array = array.astype(float)
        return torch.tensor(array)
    except (TypeError, ValueError, RuntimeError):
        raise EvidenceError(
            f"evidence: {given!r} for site {name!r} is no value; give a number, an array, a column or a tensor"
        ) from None


def fit_evidence(name: str, given: Any, fn: Any, like: Tensor, free: bool) -> Known:
    """Evidence in the site's shape, dtype and device, with its missing entries.

    Args:
        like: some value of the site.
        free: whether no support is to be checked, as at a deterministic site.

    Raises:
        EvidenceError, ShapeError, SupportError: it does not fit the site.
    """
    if isinstance(given, Interval):
        return _fit_interval(name, given, fn, like, free)
    value = as_tensor(name, given).to(like.device)
    if value.is_complex() and not like.is_complex():
        raise EvidenceError(
            f"evidence: the value for site {name!r} is complex, and the site's values are real"
        )
    if not free and bool(torch.isinf(value).any()):
        raise SupportError(
            f"evidence: the value for site {name!r} is infinite; give a finite one, or a range, cp.Interval(low, high)"
        )
    missing = (
        torch.isnan(value)
        if value.is_floating_point()
        else torch.zeros_like(value, dtype=torch.bool)
    )
    lost = bool(missing.any())
    filled = torch.where(missing, torch.zeros_like(value), value) if lost else value
    fitted = fit_shape(
        name, cast_to(name, filled, like.dtype, "evidence"), like.shape, verb="evidence"
    )
    if not lost:
        if not free:
            check_support("evidence", name, fn, fitted)
        return Known(fitted)
    missing = fit_shape(name, missing, like.shape, verb="evidence")
    completed = torch.where(missing, like, fitted)
    if not free:
        _check_completed(name, fn, completed, missing)
    return Known(completed, missing)


def _fit_interval(name: str, given: Interval, fn: Any, like: Tensor, free: bool) -> Known:
    """A range in the site's shape; an entry whose ends agree is a known one, and the others are missing within their range."""
    wide = torch.promote_types(like.dtype, torch.float32)
    ends = [
        fit_shape(name, end.to(like.device, wide), like.shape, verb="evidence")
        for end in (given.low, given.high)
    ]
    low = torch.where(torch.isnan(ends[0]), -torch.inf, ends[0])
    high = torch.where(torch.isnan(ends[1]), torch.inf, ends[1])
    if bool((torch.isinf(low) & (low == high)).any()):
        raise EvidenceError(
            f"evidence: both ends of the range of site {name!r} are the same infinity, which holds no number; give "
            "cp.Interval(low, float('inf')) for an open end"
        )
    points = low == high
    if free or not bool(points.any()):
        if not free:
            _check_range(name, fn, low, high)
        return Known(like, None, (low, high))
    if elements(fn) is None and not bool(points.all()):
        raise EvidenceError(
            f"evidence: the range of site {name!r} fixes some entries of {type(fn).__name__}, whose entries depend on each other; give "
            "ranges for all of its entries, or single values and NaN"
        )
    known = fit_evidence(name, torch.where(points, low, torch.nan), fn, like, free)
    if known.missing is None:
        return known
    _check_range(name, fn, low, high)
    return Known(known.value, known.missing, (low, high))


def _check_range(name: str, fn: Any, low: Tensor, high: Tensor) -> None:
    """Refuse a range without a value of the site, as far as the family alone tells."""
    law = elements(fn)
    discrete = law is not None and bool(getattr(law.support, "is_discrete", False))
    if discrete:  # the values of families with independent entries are whole numbers
        low, high = low.ceil(), high.floor()
    bottom, top = (-torch.inf, torch.inf) if law is None else constant_bounds(law)
    outside = (low > top) | (high < bottom)
    if not discrete:
        outside = outside | ((low < high) & ((low == top) | (high == bottom)))
    if bool((outside | (low > high)).any()):
        raise ImpossibleEvidenceError(
            f"evidence: the range of site {name!r} holds no value of its distribution {type(law).__name__} (support {law.support}); "
            "give a range that meets the support"
        )


def _check_completed(name: str, fn: Any, completed: Tensor, missing: Tensor) -> None:
    events = fn.event_dim
    inner = fn
    while isinstance(inner, torch.distributions.Independent):
        inner = inner.base_dist
    if inner.event_dim and not bool(missing.all()):
        flat = missing.flatten(missing.dim() - events)
        halves = bool((flat.any(-1) & ~flat.all(-1)).any())
        if halves and type(inner.support).__name__ not in (
            "_IndependentConstraint",
            "_RealVector",
            "_Real",
        ):
            raise EvidenceError(
                f"evidence: a part of a value of site {name!r} ({type(inner).__name__}) is NaN, and its entries determine each "
                "other; give all of its entries or none"
            )
    try:
        check_support("evidence", name, fn, completed)
    except SupportError:
        if inner.event_dim == 0:
            raise


def hidden_entries(value: Tensor, mask: Any, own_mask: Any, events: int) -> Tensor | None:
    """Entries of an observation that are NaN or masked: Pyro's idioms for missing data."""
    lost = (
        torch.isnan(value)
        if value.is_floating_point()
        else torch.zeros_like(value, dtype=torch.bool)
    )
    for part in (mask, own_mask):
        if part is not None:
            kept = torch.as_tensor(part, device=value.device)
            kept = kept.reshape((*kept.shape, *[1] * events)) if kept.dim() else kept
            lost = lost | ~kept.expand(value.shape)
    return lost if bool(lost.any()) else None
