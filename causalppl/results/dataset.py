"""All sites as one xarray Dataset, and as ArviZ wants them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ProgramError
from .diagnostics import Diagnostics
from .labels import as_array
from .store import Store

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["arviz_data", "dataset", "without_slashes"]


def dataset(store: Store, diagnostics: Diagnostics) -> xr.Dataset:
    """All sites with shared coordinates; see :attr:`causalppl.results.Worlds.dataset`."""
    import xarray as xr

    coords = {**store.leading_coords(), **_shared_coords(store)}
    variables: dict[str, Any] = {}
    for site, labels in store.labels.items():
        array = as_array(labels.squeeze(store.stacked(site), leading=2))
        variables[site] = (("draw", "world", *labels.dims()), array, store.attrs(site))
    attrs = {
        "creation_library": "causalppl",
        "creation_library_version": _version("causalppl"),
        "inference_library": "pyro-ppl",
        "inference_library_version": _version("pyro-ppl"),
        "torch_version": str(torch.__version__),
        "description": "Draws of every site in coupled worlds: draw i of all worlds has the same exogenous noise.",
        **diagnostics.as_attrs(),
    }
    return xr.Dataset(variables, coords=coords, attrs=attrs)


def _shared_coords(store: Store) -> dict[str, np.ndarray[Any, Any]]:
    """Coordinates by dim, the same at all sites: checked here, because xarray would silently take the union."""
    import numpy as np

    coords: dict[str, np.ndarray[Any, Any]] = {}
    owner: dict[str, str] = {}
    for site, labels in store.labels.items():
        for dim, found in labels.coords().items():
            if dim in coords and not np.array_equal(coords[dim], found):
                raise ProgramError(
                    f"the sites {owner[dim]!r} and {site!r} have different indices along {dim!r} "
                    f"({len(coords[dim])} and {len(found)} of them), so they do not fit into one dataset; take sites "
                    "one by one, worlds[site], or give the plates different names"
                )
            coords.setdefault(dim, found)
            owner.setdefault(dim, site)
    for name in ("draw", "world", *store.draw_coords, *coords):
        if name in store.labels:
            raise ProgramError(
                f"the site {name!r} has the name of a dimension of the dataset; rename the site, or take "
                "sites one by one: worlds[site]"
            )
    return coords


def arviz_data(data: xr.Dataset) -> Any:
    """A group ``posterior`` for ArviZ; see :meth:`causalppl.results.Worlds.to_arviz`."""
    import arviz
    import xarray as xr

    data, _ = without_slashes(data)
    for name in [n for n, variable in data.data_vars.items() if variable.dtype == bool]:
        data[name] = data[name].astype(int, keep_attrs=True)
    data = _with_chains(data)
    # The name InferenceData is still there in 1.x, where it only warns: ask the version.
    if int(arviz.__version__.split(".")[0]) < 1:
        return arviz.InferenceData(posterior=data)
    return xr.DataTree.from_dict({"posterior": data})


def without_slashes(data: xr.Dataset) -> tuple[xr.Dataset, dict[str, str]]:
    """The dataset with ``.`` for ``/`` in names, which netCDF and DataTree refuse, and new name to old name."""
    taken = {str(name) for name in (*data.variables, *data.dims)}
    old: dict[str, str] = {}
    for name in sorted(name for name in taken if "/" in name):
        new = name.replace("/", ".")
        while new in taken or new in old:
            new += "_"
        old[new] = name
    return data.rename({name: new for new, name in old.items()}), old


def _with_chains(data: xr.Dataset) -> xr.Dataset:
    """Dims ``("chain", "draw", ...)``: by the coordinate ``chain`` where chains are equally long, else one chain."""
    import numpy as np
    import xarray as xr

    chain = (
        data["chain"].values if "chain" in data.coords else np.zeros(data.sizes["draw"], dtype=int)
    )
    names, counts = np.unique(chain, return_counts=True)
    data = data.drop_vars("chain", errors="ignore")
    if len(set(counts)) > 1:
        return data.expand_dims(chain=[0])
    order = np.argsort(chain, kind="stable").reshape(len(names), -1)
    steps = np.arange(order.shape[1])
    parts = [data.isel(draw=rows).assign_coords(draw=steps) for rows in order]
    along = xr.DataArray(names, dims="chain", name="chain")
    return xr.concat(
        parts, dim=along, data_vars="all", coords="minimal", compat="override", join="exact"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a source tree that is not installed
        return "unknown"
