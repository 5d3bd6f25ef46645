"""The probability of an event that may span worlds: the share of draws in which it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from ..errors import ShapeError, SupportError
from .labels import Axis, SiteLabels, as_array
from .store import Store

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Event", "probability"]

#: A function of ``w``, where ``w[world][site]`` is a tensor, that returns a boolean tensor of shape ``(draws, ...)``.
Event: TypeAlias = Callable[[Mapping[str, Mapping[str, Tensor]]], Any]


class _World(Mapping[str, Tensor]):
    """The sites of one world; remembers which were read."""

    def __init__(self, store: Store, world: str, read: dict[str, None]) -> None:
        self._store, self._world, self._read = store, world, read

    def __getitem__(self, site: str) -> Tensor:
        found = self._store.tensor(site, self._world)
        self._read[site] = None
        return found

    def __contains__(self, site: object) -> bool:
        return site in self._store.values[self._world]

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.values[self._world])

    def __len__(self) -> int:
        return len(self._store.values[self._world])


class _AllWorlds(Mapping[str, Mapping[str, Tensor]]):
    """``w`` in an event: world to site to tensor."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read: dict[str, None] = {}

    def __getitem__(self, world: str) -> Mapping[str, Tensor]:
        self._store.world(world)
        return _World(self._store, world, self.read)

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.values)

    def __len__(self) -> int:
        return len(self._store.values)


def probability(store: Store, event: Event) -> xr.DataArray:
    """Share of draws in which ``event`` holds; see :meth:`causalppl.results.Worlds.probability`."""
    import xarray as xr

    worlds = _AllWorlds(store)
    happened = event(worlds)
    if not isinstance(happened, Tensor) or happened.dtype != torch.bool:
        given = (
            f"a {happened.dtype} tensor"
            if isinstance(happened, Tensor)
            else f"{type(happened).__name__} {happened!r}"
        )
        raise SupportError(
            f"the event returned {given}; it must return a boolean tensor, such as lambda w: w['factual']['y'] > 0 "
            "(join several with & and |, each in parentheses)"
        )
    if happened.dim() == 0 or len(happened) != store.num_draws:
        raise ShapeError(
            f"the event returned shape {tuple(happened.shape)}; its first dim must be the "
            f"{store.num_draws} draws (compare the tensors w[world][site] element by element, and "
            "reduce over other dims only)"
        )
    share = happened.sum(0).double() / store.num_draws
    axes = _axes(tuple(share.shape), [store.labels[site] for site in worlds.read])
    return xr.DataArray(
        as_array(share).reshape([axis.size for axis in axes]),
        dims=tuple(axis.name for axis in axes),
        coords={axis.name: axis.coordinates() for axis in axes},
        name="probability",
        attrs={"draws": store.num_draws},
    )


def _axes(shape: tuple[int, ...], labels: list[SiteLabels]) -> list[Axis]:
    """Names for the axes of an event computed elementwise from sites with these labels.

    A site whose shape broadcasts to the event's, with as many axes, gives its plates' names. Where two sites
    disagree, or none has a plate, the axis is ``event_dim_k``. Axes of size 1 that no site names are dropped,
    as they are in the sites.
    """
    fitting = [
        label
        for label in labels
        if len(label.shape) == len(shape)
        and all(own in (1, size) for own, size in zip(label.shape, shape, strict=True))
    ]
    named = [{axis.position: axis for axis in label.axes()} for label in fitting]
    axes: list[Axis] = []
    unnamed = 0
    for position, size in enumerate(shape):
        known = [a[position] for a in named if position in a]
        plates = {axis.name: axis for axis in known if axis.of_plate and axis.size == size}
        if len(plates) == 1:
            axes.append(next(iter(plates.values())))
        elif size != 1 or known or not fitting:
            axes.append(Axis(position, f"event_dim_{unnamed}", size, False, None))
            unnamed += 1
    names = [axis.name for axis in axes]
    if len(set(names)) < len(names):  # a plate at two places: positions alone are safe
        return [Axis(a.position, f"event_dim_{k}", a.size, False, None) for k, a in enumerate(axes)]
    return axes
