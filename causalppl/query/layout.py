"""How the tensors of different sites fit together: rows, then units and other plates, then event dims."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..errors import QueryError
from ..notation.parser import to_text
from ..notation.resolution import outcomes
from ..notation.terms import Comparison, Expression, Outcome
from ..structural.form import StructuralForm

__all__ = ["Layout"]


class Layout:
    """A common arrangement of some outcomes' tensors, each of shape ``(rows,) + site shape``.

    A site that stands in no plate has event dims only, and is the same for all units.
    """

    def __init__(self, form: StructuralForm, found: Iterable[Outcome]) -> None:
        self._form = form
        self._batch = {o.site: self._batch_dims(o.site) for o in found}
        self.rank = max(self._batch.values(), default=0)

    def _batch_dims(self, name: str) -> int:
        site = self._form.sites.get(name)
        if site is None or not any(f.vectorized for f in site.frames):
            return 0
        dims = site.value.dim() - (0 if site.kind == "deterministic" else site.fn.event_dim)
        for frame in site.frames:
            if frame.vectorized and (
                dims < -frame.dim or site.value.shape[dims + frame.dim] not in (1, frame.size)
            ):
                raise QueryError(
                    f"query: site {name!r} has shape {tuple(site.value.shape)}, which does not fit its plate {frame.name!r} of size "
                    f"{frame.size}; ask about a sample site, or one number for each unit"
                )
        return dims

    def _event(self, name: str) -> torch.Size:
        site = self._form.sites.get(name)
        return torch.Size() if site is None else site.value.shape[self._batch[name] :]

    def align(self, name: str, value: Tensor) -> Tensor:
        """``(rows, *rank plate dims, *event dims)``; booleans and integers stay as they are."""
        missing = self.rank - self._batch[name]
        return value.reshape(len(value), *([1] * missing), *value.shape[1:])

    def ones(self, rows: int) -> Tensor:
        """Weights of one, ``(rows, *rank dims of size 1)``."""
        return torch.ones(rows, *([1] * self.rank), dtype=torch.float64)

    def scalar(self, comparison: Comparison) -> None:
        """Refuse to compare a vector."""
        for outcome in outcomes(comparison):
            shape = self._event(outcome.site)
            if len(shape):
                raise QueryError(
                    f"query: {to_text(comparison)!r} compares {outcome.site!r}, whose values have shape {tuple(shape)}; add a "
                    "deterministic site for the number in question"
                )

    def event_of(self, parts: Iterable[Expression | Comparison]) -> int:
        """Event dims of an expectation's expression, one shape for all of its outcomes."""
        shapes = {
            self._event(o.site)
            for part in parts
            if not isinstance(part, Comparison)
            for o in outcomes(part)
        }
        if len(shapes) > 1:
            raise QueryError(
                f"query: an expression mixes values of the shapes {sorted(map(tuple, shapes))}; use sites of one shape"
            )
        return len(shapes.pop()) if shapes else 0

    def summed(self, weight: Tensor, amount: Tensor, event: int) -> tuple[Tensor, Tensor]:
        """Sums over the plates: of weights ``(rows,)`` and of weighted amounts ``(rows, *event dims)``.

        A row's sums are over all units even where nothing differs between them.
        """
        rows = len(weight)
        if amount.dim() == 0:
            amount = amount.expand(rows, *([1] * self.rank))
        plates = torch.broadcast_shapes(weight.shape[1:], amount.shape[1 : 1 + self.rank])
        weight = weight.expand(rows, *plates)
        wide = weight.reshape(*weight.shape, *([1] * event))
        # what is not selected does not count, also where it is NaN
        chosen = torch.where(wide > 0, amount, 0.0)
        dims = tuple(range(1, 1 + self.rank))
        if not dims:
            return weight, chosen
        return weight.sum(dims), chosen.sum(dims)
