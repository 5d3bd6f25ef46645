"""Results in files: netCDF, and an attribute for what it lacks (slashes in names, missing sites, torch dtypes)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SupportError
from .dataset import dataset, without_slashes
from .diagnostics import Diagnostics
from .labels import SiteLabels
from .store import Store

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["read", "write"]

_LAYOUT = "causalppl_layout"
_GROUP = "diagnostics"


def write(store: Store, diagnostics: Diagnostics, path: str | PathLike[str]) -> None:
    """Write a result: sites in the root group, diagnostics per unit in a group of their own."""
    import numpy as np
    import xarray as xr

    data, names = without_slashes(dataset(store, diagnostics))
    for name in [n for n, variable in data.data_vars.items() if variable.dtype == np.float16]:
        data[name] = data[name].astype(np.float32, keep_attrs=True)  # float16 is no netCDF type
    data.attrs[_LAYOUT] = json.dumps(
        {
            "names": names,
            "sites": {site: _layout(store, site) for site in store.labels},
            "draw_coords": list(store.draw_coords),
            "diagnostics": diagnostics.record(),
        }
    )
    data.to_netcdf(fspath(path), mode="w", engine="h5netcdf")
    per_unit, _ = without_slashes(xr.Dataset(diagnostics.arrays()))
    if per_unit:
        per_unit.to_netcdf(fspath(path), mode="a", group=_GROUP, engine="h5netcdf")


def _layout(store: Store, site: str) -> dict[str, Any]:
    labels = store.labels[site]
    return {
        "plates": [
            (name, dim, size, indices is not None) for name, dim, size, indices in labels.plates
        ],
        "batch_shape": list(labels.batch_shape),
        "event_shape": list(labels.event_shape),
        "dtype": str(store.dtype(site)).removeprefix("torch."),
        "worlds": list(store.having(site)),
        "attrs": dict(store.site_attrs.get(site, {})),
    }


def read(path: str | PathLike[str]) -> tuple[Store, Diagnostics]:
    """Read what :func:`write` wrote.

    Raises:
        SupportError: the file was written by something else.
    """
    import xarray as xr

    with xr.open_dataset(fspath(path), engine="h5netcdf") as opened:
        data = opened.load()
    if _LAYOUT not in data.attrs:
        raise SupportError(
            f"{fspath(path)!r} was not written by Worlds.save; open it with xarray.open_dataset"
        )
    layout = json.loads(data.attrs[_LAYOUT])
    data = data.rename(layout["names"])
    worlds = [str(world) for world in data["world"].values]
    values: dict[str, dict[str, Tensor]] = {world: {} for world in worlds}
    labels: dict[str, SiteLabels] = {}
    for site, entry in layout["sites"].items():
        labels[site] = _labels(site, entry, data)
        stacked = torch.from_numpy(data[site].values)
        for world in entry["worlds"]:
            value = stacked[:, worlds.index(world)].to(getattr(torch, entry["dtype"]))
            values[world][site] = value.reshape(len(value), *labels[site].shape)
    store = Store(
        values,
        labels,
        {name: torch.tensor(data[name].values) for name in layout["draw_coords"]},
        {site: entry["attrs"] for site, entry in layout["sites"].items() if entry["attrs"]},
    )
    return store, Diagnostics.from_record(
        layout["diagnostics"], _per_unit(path, layout["diagnostics"])
    )


def _labels(site: str, entry: Mapping[str, Any], data: xr.Dataset) -> SiteLabels:
    plates = tuple(
        (
            name,
            dim,
            size,
            torch.tensor(data[name].values) if subsampled and name in data.coords else None,
        )
        for name, dim, size, subsampled in entry["plates"]
    )
    return SiteLabels(site, plates, tuple(entry["batch_shape"]), tuple(entry["event_shape"]))


def _per_unit(path: str | PathLike[str], record: Mapping[str, Any]) -> dict[str, Any]:
    """The diagnostics that :meth:`Diagnostics.record` leaves out."""
    import xarray as xr

    if not record["arrays"]:
        return {}
    with xr.open_dataset(fspath(path), group=_GROUP, engine="h5netcdf") as opened:
        data = opened.load()
    return {name: data[name] for name in record["arrays"]}
