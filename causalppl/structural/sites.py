"""What one site of a program is: its distribution, what is known of its value, and its structural assignment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor

from ..mechanisms import Mechanism, exact_log_prob, mechanism_for
from ..typing import Message

__all__ = ["Site", "elements", "site_kind", "site_mechanism", "split_log_prob", "unmasked"]


@dataclass(frozen=True)
class Site:
    """What the reference run showed of one site.

    Attributes:
        kind: ``"sample"``, ``"deterministic"`` or ``"factor"``.
        value: its value in the reference run, evidence included, shape ``batch_shape + event_shape``.
        observed: whether at least one entry is known.
        missing: the entries that are not, of the value's shape; ``None`` where all are known or none is.
        interval: lowest and highest value, of the value's shape, where a range is known.
        masked: whether its density is masked.
    """

    name: str
    kind: str
    fn: Any
    value: Tensor
    observed: bool
    frames: tuple[Any, ...]
    mechanism: Mechanism | None
    why_none: str = ""
    missing: Tensor | None = None
    interval: tuple[Tensor, Tensor] | None = None
    masked: bool = False

    @property
    def latent(self) -> bool:
        """Whether inference has to find its value, or a part of it."""
        return self.kind == "sample" and (not self.observed or self.missing is not None)

    @property
    def function(self) -> bool:
        """Whether its value is a function of its parents: ``pyro.deterministic``, or a ``Delta``."""
        inner = unmasked(self.fn)
        while isinstance(inner, torch.distributions.Independent | ExpandedDistribution):
            inner = inner.base_dist
        return self.kind == "deterministic" or isinstance(inner, dist.Delta)

    @property
    def event_dim(self) -> int:
        """Dims of one value. A deterministic site has as many as its value where Pyro was not told, which says nothing."""
        dims: int = self.fn.event_dim
        return 0 if self.kind == "deterministic" and dims >= self.value.dim() else dims

    @property
    def discrete(self) -> bool:
        """Whether its values are discrete, as far as its distribution tells."""
        try:
            return bool(self.fn.support.is_discrete)
        except (AttributeError, NotImplementedError):
            return not self.value.is_floating_point()


def site_mechanism(msg: Message) -> Mechanism:
    """The mechanism chosen at the site, or its family's default."""
    chosen = (msg["infer"] or {}).get("mechanism")
    if chosen is not None and not isinstance(chosen, str):
        return chosen  # type: ignore[no-any-return]
    return mechanism_for(msg["fn"], chosen)


def site_kind(msg: Message) -> str:
    """``"deterministic"``, ``"factor"`` or ``"sample"``."""
    infer = msg["infer"] or {}
    if infer.get("_deterministic", False):
        return "deterministic"
    return "factor" if infer.get("is_auxiliary", False) and msg["is_observed"] else "sample"


def unmasked(fn: Any) -> Any:
    """``fn`` without the masks inside: its law, which a mask does not change."""
    if isinstance(fn, dist.MaskedDistribution):
        return unmasked(fn.base_dist)
    if isinstance(fn, torch.distributions.Independent | ExpandedDistribution):
        inner = unmasked(fn.base_dist)
        if inner is fn.base_dist:
            return fn
        if isinstance(fn, ExpandedDistribution):
            return inner.expand(fn.batch_shape)
        return inner.to_event(fn.reinterpreted_batch_ndims)
    return fn


def elements(fn: Any) -> Any:
    """The law of single entries where these are independent, batch shape the value's; otherwise ``None``."""
    inner = unmasked(fn)
    while isinstance(inner, torch.distributions.Independent):
        inner = inner.base_dist
    return inner if inner.event_dim == 0 else None


def split_log_prob(fn: Any, value: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of the missing entries and of the known ones, each of ``fn``'s batch shape.

    An event whose entries are not independent counts as missing as a whole where one of its entries is.
    """
    inner, events = elements(fn), fn.event_dim
    if inner is None:
        log_prob = exact_log_prob(unmasked(fn), value)
        lost = missing.flatten(missing.dim() - events).any(-1)
        return torch.where(lost, log_prob, 0.0), torch.where(lost, 0.0, log_prob)
    log_prob = exact_log_prob(inner, value)
    parts = torch.where(missing, log_prob, 0.0), torch.where(missing, 0.0, log_prob)
    if events:
        dims = list(range(-events, 0))
        return parts[0].sum(dims), parts[1].sum(dims)
    return parts
