"""Laws of one site, or of several continuous ones together, given a context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MethodError
from ..networks import CategoricalHead, ConditionalFlow
from .encoding import RealVector, indices, values_at
from .reading import SiteShape

__all__ = ["ContinuousHead", "DiscreteHead", "Head", "Supports"]

Supports = Mapping[str, Any]
#: A count whose simulated values exceed this has too many categories.
_MOST_COUNTS = 512


class Head(nn.Module):
    """The law of some sites that stand in the same plates.

    Attributes:
        names: the sites.
        plates: their plates, outermost first.
    """

    names: tuple[str, ...]
    plates: tuple[str, ...]

    def log_prob(self, values: Mapping[str, Tensor], context: Tensor, supports: Supports) -> Tensor:
        """Log density in nats, ``(rows,) + units``."""
        raise NotImplementedError

    def draw(
        self, context: Tensor, supports: Supports, dtypes: Mapping[str, torch.dtype]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """A draw of each site for each row of the context, and its log density."""
        raise NotImplementedError


class ContinuousHead(Head):
    """A flow on the real line for the sites together, and each site's bijection to its support."""

    def __init__(
        self,
        shapes: Sequence[SiteShape],
        simulated: Mapping[str, Tensor],
        supports: Supports,
        context: int,
        flow: str | Callable[[int, int], nn.Module],
        width: int,
    ) -> None:
        super().__init__()
        self.names, self.plates = tuple(s.name for s in shapes), shapes[0].plates
        vectors = [RealVector(s, simulated[s.name], supports[s.name]) for s in shapes]
        self.vectors = nn.ModuleList(vectors)
        self.sizes = [v.size for v in vectors]
        self.flow = ConditionalFlow(sum(self.sizes), context, flow, width)

    def log_prob(self, values: Mapping[str, Tensor], context: Tensor, supports: Supports) -> Tensor:
        """See :class:`Head`."""
        x, log_det = self.standardised(values, supports)
        return self.flow.log_prob(x, context) + log_det  # type: ignore[no-any-return]

    def standardised(
        self, values: Mapping[str, Tensor], supports: Supports
    ) -> tuple[Tensor, Tensor]:
        """The sites' values as one vector, ``(rows,) + units + (size,)``, and the log Jacobian."""
        parts: list[tuple[Tensor, Tensor]] = [
            v(values[n], supports[n]) for n, v in zip(self.names, self.vectors, strict=True)
        ]
        log_det = parts[0][1]
        for _, other in parts[1:]:
            log_det = log_det + other
        return torch.cat([x for x, _ in parts], -1), log_det

    def draw(
        self, context: Tensor, supports: Supports, dtypes: Mapping[str, torch.dtype]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """See :class:`Head`."""
        x, log_q = self.flow.draw(context)
        values, log_dets = self.placed(x, supports, dtypes)
        for log_det in log_dets.values():
            log_q = log_q + log_det
        return values, log_q

    def placed(
        self, x: Tensor, supports: Supports, dtypes: Mapping[str, torch.dtype]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The inverse of :meth:`standardised`: site to value, and to its log Jacobian."""
        values, log_dets = {}, {}
        vectors: Any = self.vectors
        for name, vector, part in zip(self.names, vectors, x.split(self.sizes, -1), strict=True):
            values[name], log_dets[name] = vector.inverse(part, supports[name], dtypes[name])
        return values, log_dets


class DiscreteHead(Head):
    """Categories one entry after another; open-ended counts with a geometric tail.

    Raises:
        MethodError: a family whose values are neither finite nor counts, or too large counts.
    """

    def __init__(self, shape: SiteShape, simulated: Tensor, context: int, width: int) -> None:
        super().__init__()
        self.names, self.plates, self.shape = (shape.name,), shape.plates, shape
        tail = shape.values is None
        index = indices(shape, shape.units_first(simulated))
        if shape.values is None:
            if shape.event and shape.family not in ("Independent", "ExpandedDistribution"):
                raise MethodError(
                    f"AmortizedGuide: the values of the discrete site {shape.name!r} ({shape.family}) depend on each other and are not "
                    "finitely many categories; leave it out of what is latent, or use cp.ImportanceSampling()"
                )
            largest = (
                int(index.double().quantile(0.999))
                if index.numel() < 1_000_000
                else int(index.max())
            )
            if largest > _MOST_COUNTS or int(index.min()) < 0:
                raise MethodError(
                    f"AmortizedGuide: the count {shape.name!r} reaches {largest}; a guide has categories for 0 to {_MOST_COUNTS}. "
                    "Rescale it, or put a continuous site in its place"
                )
            categories = largest + 1
        else:
            categories = len(shape.values)
        self.head = CategoricalHead(index.shape[-1], categories, context, tail, width)

    def log_prob(self, values: Mapping[str, Tensor], context: Tensor, supports: Supports) -> Tensor:
        """See :class:`Head`."""
        index = indices(self.shape, self.shape.units_first(values[self.names[0]]))
        return self.head.log_prob(index, context)

    def draw(
        self, context: Tensor, supports: Supports, dtypes: Mapping[str, torch.dtype]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """See :class:`Head`."""
        name = self.names[0]
        index, log_q = self.head.draw(context)
        value = self.shape.units_back(values_at(self.shape, index, dtypes[name]))
        return {name: value}, log_q
