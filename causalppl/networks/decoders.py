"""From parents to the law of a value: a network, and a head that turns its outputs into a distribution with a mechanism."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from .discretized_logistic import DiscretizedLogistic
from .residual import ResidualNetwork

__all__ = ["BernoulliHead", "Decoder", "DiscretizedLogisticHead", "GaussianHead"]

_NARROWEST = 1e-3  # a scale that falls to zero has an infinite likelihood


class GaussianHead(nn.Module):
    r"""Independent normal entries, :math:`v_j \sim N(\mu_j(pa), s_j^2)`. Abduction keeps the residual in units of its scale.

    Args:
        event_shape: of one value.
        heteroscedastic: whether scales depend on the parents; otherwise each entry has one of its own.

    Attributes:
        outputs: numbers that it takes from the network.
    """

    def __init__(self, event_shape: Sequence[int] = (), heteroscedastic: bool = False) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.heteroscedastic = heteroscedastic
        self.outputs = self.event_shape.numel() * (2 if heteroscedastic else 1)
        self.raw_scale = nn.Parameter(torch.zeros(self.event_shape))

    def forward(self, x: Tensor) -> Any:
        """``batch + (outputs,)`` to a distribution of that batch shape and the event shape."""
        parts = x.unflatten(-1, (-1, *self.event_shape)).movedim(x.dim() - 1, 0)
        raw = self.raw_scale + parts[1] if self.heteroscedastic else self.raw_scale
        law = dist.Normal(parts[0], nn.functional.softplus(raw) + _NARROWEST)
        return law.to_event(len(self.event_shape))


class BernoulliHead(nn.Module):
    """Independent zeros and ones by their logits. Abduction truncates monotone noise to the value's side.

    Args:
        event_shape: of one value.

    Attributes:
        outputs: numbers that it takes from the network.
    """

    def __init__(self, event_shape: Sequence[int] = ()) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.outputs = self.event_shape.numel()

    def forward(self, x: Tensor) -> Any:
        """``batch + (outputs,)`` to a distribution of that batch shape and the event shape."""
        logits = x.reshape(*x.shape[:-1], *self.event_shape)
        return dist.Bernoulli(logits=logits).to_event(len(self.event_shape))


class DiscretizedLogisticHead(nn.Module):
    """Independent whole numbers from ``low`` to ``high``, pixels for one: :class:`DiscretizedLogistic`, each entry with a learned scale.

    Args:
        event_shape: of one value.
        low, high: the lowest and the highest value.
        heteroscedastic: whether scales depend on the parents; otherwise each entry has one of its own.

    Attributes:
        outputs: numbers that it takes from the network; zeros stand for the middle of the range.
    """

    def __init__(
        self, event_shape: Sequence[int], low: int, high: int, heteroscedastic: bool = False
    ) -> None:
        super().__init__()
        self.event_shape, self.low, self.high = torch.Size(event_shape), low, high
        self.heteroscedastic = heteroscedastic
        self.outputs = self.event_shape.numel() * (2 if heteroscedastic else 1)
        self.raw_scale = nn.Parameter(torch.zeros(self.event_shape))

    def forward(self, x: Tensor) -> Any:
        """``batch + (outputs,)`` to a distribution of that batch shape and the event shape."""
        parts = x.unflatten(-1, (-1, *self.event_shape)).movedim(x.dim() - 1, 0)
        raw = self.raw_scale + parts[1] if self.heteroscedastic else self.raw_scale
        reach = (self.high - self.low) / 4
        loc = (self.low + self.high) / 2 + reach * parts[0]
        scale = 0.25 * reach * nn.functional.softplus(raw) + _NARROWEST * reach
        return DiscretizedLogistic(loc, scale, self.low, self.high).to_event(len(self.event_shape))


class Decoder(nn.Module):
    r"""The law of a value given its parents: ``pyro.sample("image", decoder(digit, style))``.

    Every head's law has a mechanism, so abduction finds the noise of a decoded value by the ordinary rules.

    Args:
        parents: number of entries of each parent's event, in order; 0 for a scalar.
        head: turns the network's outputs into a distribution.
        width: of the network's hidden layers.
        blocks: number of its residual blocks.

    Example:
        >>> import torch
        >>> from causalppl.networks import Decoder, GaussianHead
        >>> law = Decoder([0, 3], GaussianHead((2,)))(torch.zeros(5), torch.zeros(5, 3))
        >>> law.batch_shape, law.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    def __init__(self, parents: Sequence[int], head: Any, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.parents, self.head = tuple(parents), head
        inputs = sum(max(1, size) for size in parents)
        self.network = ResidualNetwork(inputs, head.outputs, width, blocks)

    def forward(self, *parents: Tensor) -> Any:
        """Parents of a common batch shape to a distribution of that batch shape."""
        weight = self.network.enter.weight
        columns = [
            (value if size else value.unsqueeze(-1)).to(weight.dtype)
            for value, size in zip(parents, self.parents, strict=True)
        ]
        batch = torch.broadcast_shapes(*(c.shape[:-1] for c in columns))
        wide = [c.expand(*batch, c.shape[-1]) for c in columns]
        return self.head(self.network(torch.cat(wide, -1)))
