"""The dtype of a site's values, known without drawing one."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

__all__ = ["value_dtype"]


def value_dtype(fn: Any) -> torch.dtype:
    """The dtype of the values of ``fn``: int64 for categories, otherwise that of the parameters.

    Args:
        fn: a distribution; wrappers are looked into.

    Returns:
        a dtype; torch's default one where the distribution shows no parameter.

    Example:
        >>> import torch, pyro.distributions as dist
        >>> value_dtype(dist.Categorical(torch.ones(3)).expand([2]).mask(False))
        torch.int64
    """
    if isinstance(fn, dist.Delta):
        return fn.v.dtype  # type: ignore[no-any-return]
    if isinstance(fn, torch.distributions.Categorical):
        return torch.int64
    inner = fn.__dict__.get("base_dist", fn.__dict__.get("_component_distribution"))
    if inner is not None:
        return value_dtype(inner)
    parameter = _floating_parameter(fn)
    return torch.get_default_dtype() if parameter is None else parameter.dtype


def _floating_parameter(fn: Any) -> Tensor | None:
    parts = vars(fn).values()
    for part in parts:
        if isinstance(part, Tensor) and part.is_floating_point():
            return part
    for part in parts:
        if isinstance(part, torch.distributions.Distribution):
            found = _floating_parameter(part)
            if found is not None:
                return found
    return None
