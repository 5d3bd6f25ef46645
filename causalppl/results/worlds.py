"""The answer to a counterfactual question: draws of every site in every world, sharing the noise of each draw.

Tensors are what was computed and stay as they are; xarray, pandas and ArviZ are views of them, built when they
are asked for.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from ..errors import ShapeError, WorldNameError, site_list
from .dataset import arviz_data, dataset
from .diagnostics import Diagnostics
from .events import Event, probability
from .labels import SiteLabels
from .netcdf import read, write
from .store import FACTUAL, Store
from .summary import summary

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["Worlds"]


@final
class Worlds:
    """Draws of sites in the factual world and in others, coupled: draw ``i`` of all worlds has the same noise.

    Draws have equal weight, so a mean over ``"draw"`` is an expectation. ``worlds["y"]`` is an xarray DataArray
    with dims ``("draw", "world", <plates>, <event dims>)``; iteration and ``in`` are over sites.

    Args:
        values: world to site to draws of shape ``(num_draws,) + batch_shape + event_shape``; ``"factual"``
            first. A world may lack sites. A value that is the same in all draws may be an expanded view.
        labels: site to the names of its axes.
        diagnostics: how the draws were computed.
        draw_coords: further coordinates of the draws, each of shape ``(num_draws,)``; ``"chain"`` is understood
            by :meth:`to_arviz`.
        site_attrs: site to further attributes of its DataArray: text and numbers.

    Raises:
        WorldNameError: the first world is not ``"factual"``.
        ShapeError: a site has no labels, or draws differ in number.

    Example:
        >>> import torch
        >>> y = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
        >>> worlds = Worlds(
        ...     {"factual": {"y": y}, "treated": {"y": y + 1.0}},
        ...     {"y": SiteLabels("y", (("people", -1, 2, None),), (2,))},
        ...     Diagnostics("Exact"),
        ... )
        >>> worlds["y"].dims
        ('draw', 'world', 'people')
        >>> worlds.contrast("y").mean("draw").values
        array([1., 1.], dtype=float32)
        >>> float(worlds.probability(lambda w: (w["treated"]["y"] > w["factual"]["y"]).all(1)))
        1.0
    """

    __slots__ = ("_store", "diagnostics")

    def __init__(
        self,
        values: Mapping[str, Mapping[str, Tensor]],
        labels: Mapping[str, SiteLabels],
        diagnostics: Diagnostics,
        *,
        draw_coords: Mapping[str, Tensor] | None = None,
        site_attrs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        mine = {
            site: {"mechanism": name}
            for site, name in diagnostics.mechanisms.items()
            if site in labels
        }
        self._store = Store(
            {world: dict(sites) for world, sites in values.items()},
            labels,
            dict(draw_coords or {}),
            {site: {**mine.get(site, {}), **(site_attrs or {}).get(site, {})} for site in labels},
        )
        self.diagnostics = diagnostics

    # --- What there is --------------------------------------------------------------------------------------------

    @property
    def worlds(self) -> tuple[str, ...]:
        """Names of the worlds, ``"factual"`` first."""
        return tuple(self._store.values)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of all sites, those of the factual world first, in program order."""
        return tuple(self._store.labels)

    @property
    def num_draws(self) -> int:
        """Number of draws, the same for all worlds."""
        return self._store.num_draws

    def __iter__(self) -> Iterator[str]:
        return iter(self._store.labels)

    def __len__(self) -> int:
        return len(self._store.labels)

    def __contains__(self, site: object) -> bool:
        return site in self._store.labels

    # --- Values ---------------------------------------------------------------------------------------------------

    def tensor(self, site: str, world: str) -> Tensor:
        """The draws of one site in one world, shape ``(num_draws,) + batch_shape + event_shape``.

        No copy: the tensor keeps its gradient, dtype and device.

        Raises:
            UnknownWorldError, UnknownSiteError: there is no such world, or the world lacks the site.
        """
        return self._store.tensor(site, world)

    def __getitem__(self, site: str) -> xr.DataArray:
        """A site in all worlds: a DataArray with dims ``("draw", "world") + plates + event dims``.

        A world that lacks the site is NaN, and integers and booleans are then float64. The array is a copy.

        Raises:
            UnknownSiteError: no world has the site.
            ShapeError: the site has another shape in some world; :meth:`tensor` gives each.
        """
        self._store.having(site)
        return self._store.array(site)

    # --- Answers --------------------------------------------------------------------------------------------------

    def contrast(
        self, site: str, world: str | None = None, baseline: str | None = None
    ) -> xr.DataArray:
        r"""The effect in each draw and unit, :math:`v_{world} - v_{baseline}`, with dims ``("draw", ...)``.

        NaN where one of the two worlds lacks the site. Booleans are subtracted as the integers 0 and 1, so that
        "became true" is 1 and "became false" is -1.

        Args:
            site: the site.
            world: the world to look at; may be left out where there is exactly one beside the factual.
            baseline: the world to subtract; the factual one by default.

        Raises:
            UnknownSiteError, UnknownWorldError: a name that the result does not have.
            WorldNameError: ``world`` is left out and there is not exactly one.
        """
        self._store.having(site)
        baseline = FACTUAL if baseline is None else baseline
        if world is None:
            others = [name for name in self.worlds if name != FACTUAL]
            if len(others) != 1:
                raise WorldNameError(
                    f"contrast({site!r}) needs a world to look at: the worlds beside {FACTUAL!r} are "
                    f"{site_list(others)}; write worlds.contrast({site!r}, world, baseline)"
                )
            world = others[0]
        labels = self._store.labels[site]
        values = [self._store.world(name).get(site) for name in (world, baseline)]
        first, second = (None if value is None else _subtractable(value) for value in values)
        if first is None or second is None:
            shape, dtype = (self.num_draws, *labels.shape), self._store.dtype_with_missing(site)
            difference = torch.full(shape, torch.nan, dtype=dtype)
        elif first.shape != second.shape:
            raise ShapeError(
                f"site {site!r} has shape {tuple(first.shape[1:])} in world {world!r} and {tuple(second.shape[1:])} in "
                f"{baseline!r}; they cannot be subtracted"
            )
        else:
            difference = first - second
        coords = {
            name: value for name, value in self._store.leading_coords().items() if name != "world"
        }
        attrs = {**self._store.attrs(site), "contrast": f"{world} - {baseline}"}
        return labels.label(difference, coords=coords, attrs=attrs)

    def probability(self, event: Event) -> xr.DataArray:
        r"""The share of draws in which an event holds: :math:`P(\text{event})` up to Monte Carlo error.

        The standard error is :math:`\sqrt{p (1 - p) / \text{num\_draws}}` where draws are independent.

        Args:
            event: a function of ``w``, where ``w[world][site]`` is a tensor of shape
                ``(num_draws,) + site shape``, that returns a boolean tensor of shape ``(num_draws, ...)``.

        Returns:
            A DataArray of probabilities: without dims for an event of shape ``(num_draws,)``. Otherwise an axis
            is named after the plate that the sites in the event have there, else ``event_dim_0``,
            ``event_dim_1``, ...

        Raises:
            UnknownSiteError, UnknownWorldError: the event reads what is not there.
            SupportError: the event is not boolean.
            ShapeError: the event's first dim is not the draws.
        """
        return probability(self._store, event)

    def summary(
        self,
        sites: str | Sequence[str] | None = None,
        worlds: str | Sequence[str] | None = None,
        prob: float = 0.95,
        by_unit: bool = False,
    ) -> pd.DataFrame:
        """Mean, standard deviation and equal-tailed interval over draws, one row for each site and world.

        With ``by_unit=False`` a site is first averaged over its plates in each draw, so a row describes the
        average of the sample's units and ``sd`` is the uncertainty of that average, not the spread between
        units. With ``by_unit=True`` each unit has rows of its own. Event dims always have: ``y[0]``, ``y[1]``,
        ...

        Args:
            sites: sites to show; all by default.
            worlds: worlds to show; all by default.
            prob: probability mass between ``lower`` and ``upper``.
            by_unit: whether each unit has its own row.

        Returns:
            A data frame indexed by ``(site, world)`` with the columns ``mean``, ``sd`` (of the draws, divided
            by their number), ``lower`` and ``upper``, in the site's own unit. Worlds that lack a site have no
            row.

        Raises:
            UnknownSiteError, UnknownWorldError: a name that the result does not have.
            SupportError: ``prob`` is not between 0 and 1.
        """
        chosen = self.sites if sites is None else (sites,) if isinstance(sites, str) else sites
        places = self.worlds if worlds is None else (worlds,) if isinstance(worlds, str) else worlds
        return summary(self._store, chosen, places, prob, by_unit)

    # --- Other forms ----------------------------------------------------------------------------------------------

    @property
    def dataset(self) -> xr.Dataset:
        """All sites as an xarray Dataset, with versions and diagnostics as attributes; built anew at each access.

        Raises:
            ProgramError: a site has the name of a dim, or a plate differs between sites.
        """
        return dataset(self._store, self.diagnostics)

    def to_arviz(self) -> Any:
        """All sites in the group ``posterior`` with dims ``("chain", "draw", "world", ...)``.

        An ``arviz.InferenceData`` with ArviZ 0.x, an ``xarray.DataTree`` with ArviZ 1.x. Booleans are integers
        there, because ArviZ subtracts; a slash in a name is a dot, and the attribute ``site`` holds the site's
        name. There is one chain unless ``draw_coords`` had ``"chain"`` with as many draws for each.

        Example:
            >>> import arviz, torch
            >>> y = {"y": torch.arange(8.0)}
            >>> worlds = Worlds({"factual": y}, {"y": SiteLabels("y")}, Diagnostics("Exact"))
            >>> dict(worlds.to_arviz().posterior.sizes)
            {'chain': 1, 'draw': 8, 'world': 1}
        """
        return arviz_data(self.dataset)

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything as netCDF; :meth:`load` and ``xarray.open_dataset`` read it.

        A slash in a name is written as a dot, and an attribute keeps the names. Gradients are not kept.
        """
        write(self._store, self.diagnostics, path)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Worlds:
        """Read what :meth:`save` wrote.

        Raises:
            SupportError: the file was written by something else.
        """
        store, diagnostics = read(path)
        return cls(
            store.values,
            store.labels,
            diagnostics,
            draw_coords=store.draw_coords,
            site_attrs=store.site_attrs,
        )

    # --- For the eye ----------------------------------------------------------------------------------------------

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """Site, dims, dtype and worlds, for a reader; computes nothing."""
        rows = []
        for site, labels in self._store.labels.items():
            having = self._store.having(site)
            dims = ", ".join(f"{axis.name}: {axis.size}" for axis in labels.axes())
            dtype = str(self._store.dtype(site)).removeprefix("torch.")
            where = (
                "" if len(having) == len(self.worlds) else f"only in {site_list(having, most=5)}"
            )
            rows.append((site, f"({dims})", dtype, where))
        return rows

    def _headline(self) -> str:
        count, worlds = self.num_draws, len(self.worlds)
        return (
            f"{count} draw{'s' if count != 1 else ''} of {worlds} world{'s' if worlds != 1 else ''}: "
            f"{site_list(self.worlds, most=8)}"
        )

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
        lines = [
            "  ".join(c.ljust(w) for c, w in zip(row, (*widths, 0), strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(
            [f"Worlds: {self._headline()}", *(f"  {line}" for line in lines), str(self.diagnostics)]
        )

    def _repr_html_(self) -> str:
        cells = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
            for row in self._rows()
        )
        return (
            f"<div><strong>Worlds</strong>: {html.escape(self._headline())}<table><thead><tr><th>site</th><th>dims</th>"
            f"<th>dtype</th><th></th></tr></thead><tbody>{cells}</tbody></table><details><summary>diagnostics</summary>"
            f"<pre>{html.escape(str(self.diagnostics))}</pre></details></div>"
        )


def _subtractable(value: Tensor) -> Tensor:
    """Detached, and wide enough to hold a negative difference: booleans and unsigned bytes as int64."""
    value = value.detach()
    return value.long() if value.dtype in (torch.bool, torch.uint8) else value
