"""The dtype of a site's values, known without drawing one."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["value_dtype"]


def value_dtype(fn: Any) -> torch.dtype:
    """The dtype of the values of ``fn``."""
    if isinstance(fn, dist.Delta):
        return fn.v.dtype  # type: ignore[no-any-return]
    if isinstance(fn, torch.distributions.Categorical):
        return torch.int64
    base = getattr(fn, "base_dist", None)
    if base is not None:
        return value_dtype(base)
    for name in getattr(fn, "arg_constraints", {}):
        value = fn.__dict__.get(name)
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.dtype
    inner = getattr(fn, "_categorical", None)
    if inner is not None:
        return category_dtype(inner)
    return torch.get_default_dtype()


def category_dtype(fn: Any) -> torch.dtype:
    """The dtype of a categorical's parameters."""
    found: Tensor = fn._param
    return found.dtype
