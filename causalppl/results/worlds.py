"""Worlds side by side: the draws of every site in the factual world and in the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import CausalPPLError, ShapeError, UnknownSiteError, UnknownWorldError, closest_name, site_list
from .diagnostics import Diagnostics
from .labels import SiteLabels

if TYPE_CHECKING:
    import pandas
    import xarray

__all__ = ["Worlds"]


def _unknown_site(name: object, known: Mapping[str, Any] | tuple[str, ...]) -> UnknownSiteError:
    near = closest_name(str(name), known)
    return UnknownSiteError(
        f"there is no site {name!r} in these worlds; sites: {site_list(known)}"
        + (f"; did you mean {near!r}?" if near else "")
    )


def _unknown_world(name: object, known: Mapping[str, Any] | tuple[str, ...]) -> UnknownWorldError:
    return UnknownWorldError(f"there is no world {name!r}; worlds: {site_list(known)}")


class _World(Mapping[str, Tensor]):
    """One world's tensors by site, with errors that name what there is."""

    def __init__(self, name: str, values: Mapping[str, Tensor]) -> None:
        self._name, self._values = name, values

    def __getitem__(self, site: str) -> Tensor:
        if site not in self._values:
            raise _unknown_site(site, self._values)
        return self._values[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _AllWorlds(dict[str, _World]):
    def __missing__(self, name: str) -> _World:
        raise _unknown_world(name, self)


class Worlds:
    """Draws of every site in every world, sharing their exogenous noise draw by draw.

    Draws have equal weight, so xarray's own ``mean`` and ``quantile`` over ``"draw"`` are right.

    Args:
        values: world to site to draws, shape ``(draws,) + site shape``; ``"factual"`` first.
        labels: how each site's axes are named.
        diagnostics: how the draws came about.
    """

    def __init__(
        self,
        values: Mapping[str, Mapping[str, Tensor]],
        labels: Mapping[str, SiteLabels],
        diagnostics: Diagnostics,
    ) -> None:
        self._values = _AllWorlds({w: _World(w, v) for w, v in values.items()})
        self._labels = dict(labels)
        self.diagnostics = diagnostics
        self._arrays: dict[str, xarray.DataArray] = {}

    @property
    def worlds(self) -> tuple[str, ...]:
        """Names of the worlds, ``"factual"`` first."""
        return tuple(self._values)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the recorded sites."""
        return tuple(self._labels)

    @property
    def num_draws(self) -> int:
        """Number of draws."""
        return max((len(t) for v in self._values.values() for t in v.values()), default=1)

    def __iter__(self) -> Iterator[str]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

    def __contains__(self, site: object) -> bool:
        return site in self._labels

    def __repr__(self) -> str:
        return f"Worlds({self.num_draws} draws; worlds: {', '.join(self.worlds)}; sites: {', '.join(self.sites)})"

    def tensor(self, site: str, *, world: str = "factual") -> Tensor:
        """A site's draws in one world, shape ``(draws,) + site shape``; gradients to interventions are kept."""
        if site not in self._labels:
            raise _unknown_site(site, self._labels)
        return self._values[world][site]

    def __getitem__(self, site: str) -> xarray.DataArray:
        """A site in all worlds: dims ``("draw", "world", <plates>, <event dims>)``, NaN where a world lacks it."""
        if site not in self._labels:
            raise _unknown_site(site, self._labels)
        if site not in self._arrays:
            self._arrays[site] = self._label(site)
        return self._arrays[site]

    def _label(self, site: str) -> xarray.DataArray:
        import xarray

        labels = self._labels[site]
        have = {w: v[site].detach() for w, v in self._values.items() if site in v}
        like = next(iter(have.values()))
        if len(have) < len(self._values) and not like.is_floating_point():
            have = {w: t.to(torch.get_default_dtype()) for w, t in have.items()}
            like = next(iter(have.values()))
        shape = torch.Size((self.num_draws, *labels.kept_shape()))
        parts = []
        for world in self._values:
            if world in have:
                parts.append(have[world].reshape(len(have[world]), *shape[1:]).expand(shape))
            else:
                parts.append(torch.full_like(like, float("nan")).reshape(shape))
        return xarray.DataArray(
            torch.stack([p.cpu() for p in parts], 1).numpy(),
            dims=("draw", "world", *labels.dims()),
            coords={"world": list(self._values), **labels.coords()},
            name=site,
        )

    def contrast(self, site: str, treated: str | None = None, control: str = "factual") -> xarray.DataArray:
        """``treated`` minus ``control``, per draw and unit; with one other world, ``treated`` may be left out."""
        if treated is None:
            others = [w for w in self.worlds if w != control]
            if len(others) != 1:
                raise UnknownWorldError(
                    f"contrast: name the treated world; there are {site_list(others)} besides {control!r}"
                )
            treated = others[0]
        array = self[site]
        for world in (treated, control):
            if world not in self._values:
                raise _unknown_world(world, self._values)
        if array.dtype == bool:
            array = array.astype(float)
        difference: xarray.DataArray = array.sel(world=treated, drop=True) - array.sel(world=control, drop=True)
        return difference.rename(site)

    def probability(self, event: Callable[[Mapping[str, Mapping[str, Tensor]]], Tensor]) -> xarray.DataArray:
        """Share of draws in which an event holds, across worlds, per unit.

        Args:
            event: from ``w`` to booleans of shape ``(draws,) + shape``, where ``w[world][site]`` are tensors.

        Returns:
            A DataArray of that shape without draws: 0-dimensional for an event of the whole draw.
        """
        import xarray

        found = torch.as_tensor(event(self._values))
        if found.dtype != torch.bool:
            raise CausalPPLError(
                f"probability: the event gave values of dtype {found.dtype}; give a comparison such as "
                "w['treated']['y'] == 1"
            )
        if found.dim() == 0 or len(found) != self.num_draws:
            raise ShapeError(
                f"probability: the event has shape {tuple(found.shape)}; its first dimension must be the {self.num_draws} draws"
            )
        share = found.double().mean(0).cpu()
        for labels in self._labels.values():
            if share.shape == (*labels.batch_shape, *labels.event_shape):
                return xarray.DataArray(
                    share.reshape(labels.kept_shape()).numpy(), dims=labels.dims(), coords=labels.coords()
                )
        return xarray.DataArray(share.numpy(), dims=[f"event_dim_{k}" for k in range(share.dim())])

    @property
    def dataset(self) -> xarray.Dataset:
        """All sites as one ``xarray.Dataset``."""
        import xarray

        attrs = {
            "created_by": "causalppl",
            "method": self.diagnostics.method,
            "why": self.diagnostics.why,
            "executor": self.diagnostics.executor,
            "mechanisms": ", ".join(f"{k}: {v}" for k, v in self.diagnostics.mechanisms.items()),
        }
        return xarray.Dataset({site: self[site] for site in self._labels}, attrs=attrs)

    def summary(
        self,
        sites: list[str] | None = None,
        worlds: list[str] | None = None,
        prob: float = 0.95,
        by_unit: bool = False,
    ) -> pandas.DataFrame:
        """Mean, standard deviation and central interval over draws, one row per site and world.

        Args:
            prob: probability inside the interval.
            by_unit: one row per unit; otherwise each draw is averaged over its plates first.
        """
        import pandas

        tail = (1 - prob) / 2
        rows = []
        for site in sites if sites is not None else self.sites:
            array = self[site].astype(float)
            plates = [name for name, *_ in self._labels[site].plates]
            if not by_unit and plates:
                array = array.mean(plates)
            for world in worlds if worlds is not None else self.worlds:
                if world not in self._values:
                    raise _unknown_world(world, self._values)
                draws = array.sel(world=world, drop=True)
                rest = draws.stack(element=[d for d in draws.dims if d != "draw"]) if draws.ndim > 1 else None
                items = [("", draws)] if rest is None else [(str(k), rest.sel(element=k)) for k in rest.element.values]
                for label, column in items:
                    rows.append(
                        {
                            "site": site + label,
                            "world": world,
                            "mean": float(column.mean()),
                            "sd": float(column.std()),
                            "lower": float(column.quantile(tail)),
                            "upper": float(column.quantile(1 - tail)),
                        }
                    )
        return pandas.DataFrame(rows).set_index(["site", "world"])

    def to_arviz(self) -> Any:
        """The draws as ArviZ's container, in the group ``posterior`` with one chain."""
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            import arviz
        dataset = self.dataset.expand_dims(chain=[0]).assign_coords(draw=range(self.num_draws))
        if hasattr(arviz, "InferenceData"):
            return arviz.InferenceData(posterior=dataset)
        import xarray

        return xarray.DataTree.from_dict({"/posterior": dataset})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the dataset as netCDF; a slash in a site's name becomes ``__`` and is recorded in ``long_name``."""
        dataset = self.dataset
        renamed = {s: s.replace("/", "__") for s in dataset.data_vars if "/" in str(s)}
        for site in renamed:
            dataset[site].attrs["long_name"] = site
        dims = {d: str(d).replace("/", "__") for d in dataset.dims if "/" in str(d)}
        dataset = dataset.rename({**renamed, **dims})
        for name in list(dataset.data_vars):
            if dataset[name].dtype == bool:
                dataset[name] = dataset[name].astype("int8")
        dataset.to_netcdf(path, engine="h5netcdf")
