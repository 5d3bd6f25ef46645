"""What the query engines read off a site's distribution: its parameters in float64, and its mechanism's coupling."""

from __future__ import annotations

import copy
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import NoMechanismError
from ..mechanisms import mechanism_names
from ..mechanisms.counts import MonotoneCount
from ..mechanisms.discrete import GumbelMax, MonotoneBernoulli, OrderedCategorical
from ..structural.sites import site_mechanism
from ..typing import Message

__all__ = ["Coupling", "coupling_of", "doubled", "numbers_of", "unwrapped"]

#: How worlds hang together, the mechanism's name, whether the user chose it, and the family's other mechanisms.
Coupling: TypeAlias = tuple[
    Literal["inverse_cdf", "gumbel_max", "none"], str, bool, tuple[str, ...]
]


def numbers_of(fn: Any) -> tuple[Any, ...]:
    """The parameters of a distribution, as something that can be compared; with nested parts, the object itself."""
    found: list[Any] = []
    for name, part in vars(fn).items():
        if isinstance(part, Tensor):
            found.append(
                (name, str(part.dtype), part.detach().cpu().contiguous().numpy().tobytes())
            )
        elif isinstance(part, int | float):
            found.append((name, part))
        elif isinstance(part, torch.distributions.Distribution):
            return (fn,)
    return tuple(found)


def unwrapped(fn: Any) -> Any:
    """The distribution inside of wrappers that leave a scalar site's law as it is."""
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    return fn


def coupling_of(msg: Message, base: Any) -> Coupling:
    """The coupling that the site's mechanism gives, ``base`` being its distribution without wrappers."""
    chosen = (msg["infer"] or {}).get("mechanism") is not None
    try:
        mechanism = site_mechanism(msg)
    except NoMechanismError:
        return "none", "", chosen, ()
    while hasattr(mechanism, "inner"):
        mechanism = mechanism.inner
    others = tuple(n for n in mechanism_names(type(base)) if n != mechanism.name)
    kind: Literal["inverse_cdf", "gumbel_max", "none"] = "none"
    if isinstance(mechanism, MonotoneBernoulli | OrderedCategorical | MonotoneCount):
        kind = "inverse_cdf"
    elif isinstance(mechanism, GumbelMax):
        kind = "gumbel_max"
    return kind, mechanism.name, chosen, others


def doubled(fn: Any, seen: dict[int, Any] | None = None) -> Any:
    """A copy of a distribution whose parameters are in float64, what was one tensor staying one."""
    seen = {} if seen is None else seen
    if id(fn) in seen:
        return seen[id(fn)]
    twin = copy.copy(fn)
    seen[id(fn)] = twin
    for name, part in vars(fn).items():
        if isinstance(part, Tensor) and part.is_floating_point():
            twin.__dict__[name] = seen.setdefault(id(part), part.detach().double())
        elif isinstance(part, torch.distributions.Distribution):
            twin.__dict__[name] = doubled(part, seen)
    twin._validate_args = False
    return twin
