"""What a result holds: tensors by world and site, and an error that lists the names when one is not there."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import (
    ShapeError,
    UnknownSiteError,
    UnknownWorldError,
    WorldNameError,
    closest_name,
    site_list,
)
from .labels import SiteLabels, as_array

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["FACTUAL", "Store"]

FACTUAL = "factual"


@dataclass(frozen=True, eq=False)
class Store:
    """Draws by world and site, with the names of their axes.

    Attributes:
        values: world to site to draws of shape ``(num_draws,) + site shape``; ``"factual"`` first.
        labels: site to the names of its axes, in program order.
        draw_coords: further coordinates of the draws, of shape ``(num_draws,)``.
        site_attrs: site to attributes of its DataArray.
        num_draws: number of draws.
    """

    values: Mapping[str, Mapping[str, Tensor]]
    labels: Mapping[str, SiteLabels]
    draw_coords: Mapping[str, Tensor] = field(default_factory=dict)
    site_attrs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    num_draws: int = field(init=False)

    def __post_init__(self) -> None:
        if next(iter(self.values), None) != FACTUAL:
            raise WorldNameError(
                f"the first world must be {FACTUAL!r}; the worlds are {site_list(self.values)}"
            )
        names = dict.fromkeys(site for sites in self.values.values() for site in sites)
        if missing := [name for name in names if name not in self.labels]:
            raise ShapeError(
                f"no labels for {site_list(missing)}; give one SiteLabels for each site"
            )
        object.__setattr__(self, "labels", {name: self.labels[name] for name in names})
        counts = {
            len(v) if v.dim() else 0 for sites in self.values.values() for v in sites.values()
        }
        if len(counts) > 1 or 0 in counts:
            raise ShapeError(
                f"the first dim of every value is the draws, but their sizes are {sorted(counts)}"
            )
        object.__setattr__(self, "num_draws", counts.pop() if counts else 1)
        for name, coordinate in self.draw_coords.items():
            if tuple(coordinate.shape) != (self.num_draws,):
                raise ShapeError(
                    f"draw_coords {name!r} has shape {tuple(coordinate.shape)}; it must be ({self.num_draws},)"
                )

    # --- By name --------------------------------------------------------------------------------------------------

    def world(self, world: object) -> Mapping[str, Tensor]:
        """The sites of one world.

        Raises:
            UnknownWorldError: there is no such world.
        """
        if isinstance(world, str) and world in self.values:
            return self.values[world]
        near = closest_name(world, self.values) if isinstance(world, str) else None
        hint = f"; did you mean {near!r}?" if near else "."
        raise UnknownWorldError(
            f"no world {world!r} in this result{hint} The worlds are {site_list(self.values)}"
        )

    def having(self, site: object) -> tuple[str, ...]:
        """The worlds that have a site.

        Raises:
            UnknownSiteError: no world has it.
        """
        if isinstance(site, str) and site in self.labels:
            return tuple(world for world, sites in self.values.items() if site in sites)
        near = closest_name(site, self.labels) if isinstance(site, str) else None
        hint = f"; did you mean {near!r}?" if near else "."
        if isinstance(site, str) and site in self.values:
            hint = f": {site!r} is a world, and a site comes first, as in worlds[site].sel(world={site!r})."
        raise UnknownSiteError(
            f"no site {site!r} in this result{hint} The sites are {site_list(self.labels)}"
        )

    def tensor(self, site: object, world: object) -> Tensor:
        """The draws of one site in one world, as they are stored.

        Raises:
            UnknownWorldError: there is no such world.
            UnknownSiteError: the world does not have the site.
        """
        sites = self.world(world)
        if isinstance(site, str) and site in sites:
            return sites[site]
        having = self.having(site)
        raise UnknownSiteError(
            f"world {world!r} does not have the site {site!r}; the worlds that have it are {site_list(having)}"
        )

    # --- Together -------------------------------------------------------------------------------------------------

    def dtype(self, site: str) -> torch.dtype:
        """The dtype that holds a site's values in all worlds that have it."""
        return functools.reduce(
            torch.promote_types, (self.values[w][site].dtype for w in self.having(site))
        )

    def dtype_with_missing(self, site: str) -> torch.dtype:
        """The dtype that also holds NaN: integers and booleans become float64."""
        dtype = self.dtype(site)
        return dtype if dtype.is_floating_point or dtype.is_complex else torch.float64

    def stacked(self, site: str) -> Tensor:
        """All worlds in one tensor ``(draws, worlds, *site shape)``, a copy on the CPU; NaN in worlds without the site.

        Raises:
            ShapeError: the site's shape differs between worlds.
        """
        having = self.having(site)
        shape = self.labels[site].shape
        for world in having:
            found = tuple(self.values[world][site].shape[1:])
            if found != shape:
                raise ShapeError(
                    f"site {site!r} has shape {found} in world {world!r} where its labels say {shape}, so the "
                    f"worlds do not fit into one array; take each by itself with "
                    f"worlds.tensor({site!r}, world={world!r})"
                )
        complete = len(having) == len(self.values)
        dtype = self.dtype(site) if complete else self.dtype_with_missing(site)
        stacked = torch.empty((self.num_draws, len(self.values), *shape), dtype=dtype)
        for position, sites in enumerate(self.values.values()):
            stacked[:, position] = sites[site].detach() if site in sites else torch.nan
        return stacked

    def array(self, site: str) -> xr.DataArray:
        """A site in all worlds: dims ``("draw", "world") + plates + event dims``."""
        return self.labels[site].label(
            self.stacked(site),
            leading=("draw", "world"),
            coords=self.leading_coords(),
            attrs=self.attrs(site),
        )

    def leading_coords(self) -> dict[str, Any]:
        """Coordinates of the draws and worlds."""
        import numpy as np

        extra = {name: ("draw", as_array(value)) for name, value in self.draw_coords.items()}
        return {"draw": np.arange(self.num_draws), "world": np.array(list(self.values)), **extra}

    def attrs(self, site: str) -> dict[str, Any]:
        """Attributes of a site's DataArray: its name as the program has it, and what else is known."""
        return {"site": site, **self.site_attrs.get(site, {})}
