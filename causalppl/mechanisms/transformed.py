"""Transformed distributions and conditional flows: the base's mechanism, then the transforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions.transforms as transforms
import torch
from torch import Tensor

from ..errors import NoMechanismError
from .inverses import applied, steps, undone
from .protocol import Mechanism, NoiseDistribution
from .registry import mechanism_for, register_wrapper

__all__ = ["Transformed"]


@dataclass(frozen=True)
class Transformed:
    """``v = T_n(... T_1(f(parents, noise)))`` with ``f`` the mechanism of ``fn.base_dist`` and bijective transforms.

    Parameters of the transforms are parents too: they are read from ``fn`` in every world.
    """

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
        """The base's value, transformed."""
        value = self.inner.forward(fn.base_dist, noise)
        for transform in steps(fn.transforms):
            value = applied(transform, value)
        return value

    def base(self, fn: Any) -> NoiseDistribution:
        """The law of what the base's abduction needs."""
        return self.inner.base(fn.base_dist)

    def abduct(self, fn: Any, value: Tensor, base: Any) -> Any:
        """The base's noise of the value that the transforms started from."""
        for transform in reversed(list(steps(fn.transforms))):
            value = undone(transform, value)
        return self.inner.abduct(fn.base_dist, value, base)


#: What to do about transforms that lose something, where there is more to say than to take another one.
_ADVICE: dict[type, str] = {
    transforms.AbsTransform: "use FoldedDistribution, whose mechanism draws the sign from its posterior",
    transforms.SoftmaxTransform: "use StickBreakingTransform, which is bijective",
}


@register_wrapper(torch.distributions.TransformedDistribution)
def _transformed(fn: Any, name: str | None) -> Mechanism:
    for transform in steps(fn.transforms):
        inner = getattr(transform, "base_transform", transform)
        if isinstance(inner, transforms.Sylvester):
            raise NoMechanismError(
                f"{type(fn).__name__} applies Sylvester, which is not one-to-one for all of its parameters; use a planar, "
                "spline, autoregressive or coupling transform"
            )
        if not transform.bijective:
            advice = _ADVICE.get(type(inner), "use a bijective transform")
            raise NoMechanismError(
                f"{type(fn).__name__} applies {type(inner).__name__}, which is not bijective, so the noise is no "
                f"function of the value; {advice}, or register a mechanism for the class with "
                f"cp.register_mechanism({type(fn).__name__}, mechanism)"
            )
    return Transformed(mechanism_for(fn.base_dist, name))
