"""Names for the axes of a site's values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import ProgramError

__all__ = ["SiteLabels"]

_RESERVED = ("draw", "chain", "world")


@dataclass(frozen=True, eq=False)
class SiteLabels:
    """How the axes of a site of shape ``batch_shape + event_shape`` are named.

    A batch dim owned by a plate has the plate's name; one of size 1 that no plate owns is dropped; the others are
    ``{site}_dim_{k}``, ArviZ's convention.

    Args:
        plates: name, dim counted from the right of the batch shape, size, indices (``None``: all) of each plate.
    """

    name: str
    plates: tuple[tuple[str, int, int, Tensor | None], ...]
    batch_shape: torch.Size
    event_shape: torch.Size

    def __post_init__(self) -> None:
        for plate, *_ in self.plates:
            if plate in _RESERVED:
                raise ProgramError(
                    f"the plate {plate!r} of site {self.name!r} has a name that results use themselves ({', '.join(_RESERVED)}); "
                    "rename it, for example to 'units'"
                )

    def axes(self) -> list[tuple[str | None, int, Tensor | None]]:
        """For each axis: its name (``None`` where it is dropped), size and coordinates."""
        owners = {len(self.batch_shape) + dim: (name, at) for name, dim, _, at in self.plates}
        found: list[tuple[str | None, int, Tensor | None]] = []
        unnamed = 0
        for axis, size in enumerate((*self.batch_shape, *self.event_shape)):
            if axis in owners:
                found.append((owners[axis][0], size, owners[axis][1]))
            elif axis < len(self.batch_shape) and size == 1:
                found.append((None, size, None))
            else:
                found.append((f"{self.name}_dim_{unnamed}", size, None))
                unnamed += 1
        return found

    def dims(self) -> tuple[str, ...]:
        """Names of the axes that are kept."""
        return tuple(name for name, _, _ in self.axes() if name is not None)

    def kept_shape(self) -> tuple[int, ...]:
        """The shape without the axes that are dropped."""
        return tuple(size for name, size, _ in self.axes() if name is not None)

    def coords(self) -> dict[str, Any]:
        """Coordinates of the axes that are kept, as arrays."""
        return {
            name: (torch.arange(size) if at is None else at.detach().cpu()).numpy()
            for name, size, at in self.axes()
            if name is not None
        }
