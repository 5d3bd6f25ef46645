"""A mechanism is the structural assignment ``v = f(parents, noise)`` of one sample site.

The parents are inside the site's distribution object ``fn`` (its parameters were computed from them),
so a mechanism is four functions of ``fn``. Everything above this layer leans on that one sentence.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch

from ..typing import Noise

__all__ = ["Mechanism", "NoiseDistribution", "TupleDistribution"]


class NoiseDistribution(Protocol):
    """The law of a noise: anything with ``sample``; pyro distributions are, so is :class:`TupleDistribution`."""

    def sample(self, sample_shape: torch.Size = ...) -> Any:
        """Draw noise: every tensor has shape ``sample_shape + (shape of one noise)``."""


@runtime_checkable
class Mechanism(Protocol):
    """The structural assignment of a family of distributions, and its abduction.

    The noise is **exogenous**: the law ``noise(fn)`` depends on the shapes, dtype and device of ``fn`` and on
    nothing else. ``forward(fn, noise)`` with ``noise ~ noise(fn)`` has the law ``fn``, and
    ``forward(fn, abduct(fn, value, base)) == value``. ``abduct`` with ``value ~ fn`` and ``base ~ base(fn)`` has the law
    ``noise(fn)``. All methods are pure tensor functions without Python branches on values, so that
    ``torch.func.vmap`` and ``make_fx`` apply to them; randomness enters through ``noise`` and ``base`` alone.

    Attributes:
        name: the name under which results record it and users ask for it, such as ``"affine"``.
        invertible: whether the noise is a function of the value and the parents. Then ``abduct`` ignores
            ``base`` and is given ``None``.
    """

    @property
    def name(self) -> str: ...

    @property
    def invertible(self) -> bool: ...

    def noise(self, fn: Any) -> NoiseDistribution:
        """Distribution of the exogenous noise of a site whose distribution is ``fn``."""

    def forward(self, fn: Any, noise: Noise) -> torch.Tensor:
        """Structural assignment: the value of shape ``fn.batch_shape + fn.event_shape``."""

    def base(self, fn: Any) -> NoiseDistribution:
        """Distribution of the randomness that abduction needs."""

    def abduct(self, fn: Any, value: torch.Tensor, base: Noise | None) -> Noise:
        """The noise given value and parents; a deterministic function of ``base ~ base(fn)``."""


class TupleDistribution:
    """Independent parts drawn together: ``sample`` returns a tuple, one entry a part.

    Example:
        >>> import pyro.distributions as dist
        >>> pair = TupleDistribution(dist.Normal(0.0, 1.0), dist.Uniform(0.0, 1.0))
        >>> [part.shape for part in pair.sample(torch.Size([3]))]
        [torch.Size([3]), torch.Size([3])]
    """

    def __init__(self, *parts: NoiseDistribution) -> None:
        self.parts = parts

    def sample(self, sample_shape: torch.Size = torch.Size()) -> tuple[Any, ...]:  # noqa: B008
        """A tuple of the parts' draws, each of shape ``sample_shape + part shape``."""
        return tuple(part.sample(sample_shape) for part in self.parts)
