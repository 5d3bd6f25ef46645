"""Names for a site's tensor axes: plates lend their names, other axes are numbered as ArviZ numbers them.

Torch computes with positions and a reader compares with names. This module is the one place where the first
become the second, so that a DataArray, a summary, a file and a probability agree on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ProgramError, ShapeError

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["RESERVED_DIMS", "Axis", "SiteLabels", "as_array"]

#: Dims that every result has of its own, or that ArviZ gives it.
RESERVED_DIMS = ("draw", "chain", "world")


class Axis(NamedTuple):
    """One named axis of a site: its position in ``batch_shape + event_shape``, name, size and plate indices."""

    position: int
    name: str
    size: int
    of_plate: bool
    indices: Tensor | None

    def coordinates(self) -> np.ndarray[Any, Any]:
        """The plate's indices where some were subsampled, otherwise ``0, ..., size - 1``."""
        import numpy as np

        return np.arange(self.size) if self.indices is None else as_array(self.indices)


@dataclass(frozen=True, eq=False)
class SiteLabels:
    """How the axes of one site are named; its value has shape ``batch_shape + event_shape``.

    A batch axis that belongs to a plate bears the plate's name, and the plate's indices are its coordinates. A
    batch axis of size 1 that belongs to no plate is padding for broadcasting and is dropped. All other axes are
    ``{name}_dim_0``, ``{name}_dim_1``, ... from the left, as ArviZ calls them.

    Args:
        name: the site's name.
        plates: for each vectorised plate around the site its name, its dim (negative, counted from the right of
            ``batch_shape``), its size here, and the subsampled indices of shape ``(size,)`` or ``None``. A
            plate along which the value has no axis, or one of size 1, is passed over: the value is the same for
            all its units.
        batch_shape: the site's batch shape.
        event_shape: the site's event shape.

    Raises:
        ProgramError: a plate is named draw, chain or world, or two axes would get the same name.
        ShapeError: a plate's size or indices do not fit ``batch_shape``.

    Example:
        >>> import torch
        >>> labels = SiteLabels("y", (("people", -1, 3, None),), (3,), (2,))
        >>> labels.dims()
        ('people', 'y_dim_0')
        >>> labels.label(torch.zeros(10, 3, 2)).dims
        ('draw', 'people', 'y_dim_0')
    """

    name: str
    plates: tuple[tuple[str, int, int, Tensor | None], ...] = ()
    batch_shape: tuple[int, ...] = ()
    event_shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for plate, *_ in self.plates:
            if plate in RESERVED_DIMS:
                raise ProgramError(
                    f"the plate {plate!r} around site {self.name!r} has a name that results use for a dimension of "
                    f"their own ({', '.join(RESERVED_DIMS)}); rename the plate in the program, for example to "
                    f"{plate + '_units'!r}"
                )
        names = self.dims()
        if len(set(names)) < len(names):
            raise ProgramError(
                f"two axes of site {self.name!r} would have the same name: {names}; rename the plate in the program"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """``batch_shape + event_shape``."""
        return (*self.batch_shape, *self.event_shape)

    def _owners(self) -> dict[int, tuple[str, Tensor | None]]:
        """Position of each batch axis that belongs to a plate, with the plate's name and indices."""
        owners: dict[int, tuple[str, Tensor | None]] = {}
        for plate, dim, size, indices in self.plates:
            position = len(self.batch_shape) + dim
            if dim >= 0:
                raise ShapeError(
                    f"plate {plate!r} of site {self.name!r} has dim {dim}; it must be negative"
                )
            found = self.batch_shape[position] if position >= 0 else 1
            if found == size and position >= 0:
                owners[position] = (plate, indices)
            elif found != 1:
                raise ShapeError(
                    f"plate {plate!r} of size {size} is at dim {dim} of site {self.name!r}, whose batch shape is "
                    f"{tuple(self.batch_shape)}"
                )
            if indices is not None and tuple(indices.shape) != (size,):
                raise ShapeError(
                    f"plate {plate!r} of size {size} has indices of shape {tuple(indices.shape)}; they must be "
                    f"({size},)"
                )
        return owners

    def axes(self) -> tuple[Axis, ...]:
        """The named axes from left to right; dropped axes are left out."""
        owners = self._owners()
        axes: list[Axis] = []
        unnamed = 0
        for position, size in enumerate(self.shape):
            if position in owners:
                plate, indices = owners[position]
                axes.append(Axis(position, plate, size, True, indices))
            elif size != 1 or position >= len(self.batch_shape):
                axes.append(Axis(position, f"{self.name}_dim_{unnamed}", size, False, None))
                unnamed += 1
        return tuple(axes)

    def dims(self) -> tuple[str, ...]:
        """Names of the axes that are kept, from left to right."""
        return tuple(axis.name for axis in self.axes())

    def coords(self) -> dict[str, np.ndarray[Any, Any]]:
        """Coordinates by dim: a plate's indices, otherwise ``0, ..., size - 1``."""
        return {axis.name: axis.coordinates() for axis in self.axes()}

    def squeeze(self, value: Tensor, leading: int = 1) -> Tensor:
        """Drop the axes without a name: ``leading dims + batch_shape + event_shape`` to ``leading dims + dims()``.

        Raises:
            ShapeError: the value does not have the site's shape after its leading dims.
        """
        if tuple(value.shape[leading:]) != self.shape or value.dim() < leading:
            raise ShapeError(
                f"site {self.name!r} was given a value of shape {tuple(value.shape)}; {leading} leading dims and then "
                f"batch_shape {tuple(self.batch_shape)} + event_shape {tuple(self.event_shape)} are expected"
            )
        return value.reshape(*value.shape[:leading], *(axis.size for axis in self.axes()))

    def label(
        self,
        value: Tensor,
        leading: Sequence[str] = ("draw",),
        coords: Mapping[str, Any] | None = None,
        attrs: Mapping[str, Any] | None = None,
    ) -> xr.DataArray:
        """A value with names: a DataArray with dims ``leading + dims()``, detached and on the CPU.

        Args:
            value: tensor of shape ``leading dims + batch_shape + event_shape``. The DataArray may share its
                memory.
            leading: names of the leading dims.
            coords: coordinates of the leading dims; ``0, 1, ...`` where none is given.
            attrs: attributes of the DataArray.

        Raises:
            ShapeError: the value's shape does not fit.
        """
        import numpy as np
        import xarray as xr

        squeezed = self.squeeze(value, len(leading))
        known: dict[str, Any] = {
            d: np.arange(n) for d, n in zip(leading, value.shape, strict=False)
        }
        return xr.DataArray(
            as_array(squeezed),
            dims=(*leading, *self.dims()),
            coords={**known, **self.coords(), **(coords or {})},
            name=self.name,
            attrs=dict(attrs or {}),
        )


def as_array(value: Tensor) -> np.ndarray[Any, Any]:
    """A tensor as NumPy sees it, without gradient; bfloat16, which NumPy lacks, becomes float32."""
    value = value.detach().cpu().resolve_conj().resolve_neg()
    array: np.ndarray[Any, Any] = (
        value.float() if value.dtype == torch.bfloat16 else value
    ).numpy()
    return array
