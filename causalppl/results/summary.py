"""A table of every site in every world: the first thing to look at."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import SupportError
from .labels import SiteLabels, as_array
from .store import Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["summary"]


def summary(
    store: Store,
    sites: Sequence[str],
    worlds: Sequence[str],
    prob: float,
    by_unit: bool,
) -> pd.DataFrame:
    """One row for each site, element and world; see :meth:`causalppl.results.Worlds.summary`."""
    import numpy as np
    import pandas as pd

    if not 0 < prob < 1:
        raise SupportError(
            f"summary: prob={prob!r} is not between 0 and 1; a 95% interval is prob=0.95"
        )
    for world in worlds:
        store.world(world)
    rows: list[tuple[str, str]] = []
    columns: list[Any] = []
    for site in sites:
        having = set(store.having(site))
        labels = store.labels[site]
        chosen = [world for world in worlds if world in having]
        tables = [_statistics(_draws(store.values[w][site], labels, by_unit), prob) for w in chosen]
        for i, name in enumerate(_element_names(labels, by_unit)):
            rows += [(name, world) for world in chosen]
            columns += [table[:, i] for table in tables]
    frame = pd.DataFrame(
        np.stack(columns) if columns else np.empty((0, 4)),
        index=pd.MultiIndex.from_tuples(rows, names=["site", "world"]),
        columns=["mean", "sd", "lower", "upper"],
    )
    frame.attrs["prob"] = prob
    return frame


def _draws(value: Tensor, labels: SiteLabels, by_unit: bool) -> Any:
    """Draws as a float64 array of shape ``(draws, elements)``, averaged over plates unless ``by_unit``."""
    labels.squeeze(value)  # checks the shape
    value = value.detach()
    plates = [] if by_unit else [axis.position + 1 for axis in labels.axes() if axis.of_plate]
    value = value.mean(plates, dtype=torch.float64) if plates else value.double()
    return as_array(value).reshape(len(value), -1)


def _statistics(draws: Any, prob: float) -> Any:
    """``(4, elements)``: mean, standard deviation and the two ends of the equal-tailed interval."""
    import numpy as np

    tail = (1 - prob) / 2
    return np.vstack([draws.mean(0), draws.std(0), np.quantile(draws, [tail, 1 - tail], axis=0)])


def _element_names(labels: SiteLabels, by_unit: bool) -> list[str]:
    """``y``, or ``y[0, 2]`` by coordinates, as ArviZ writes elements."""
    kept = [axis for axis in labels.axes() if by_unit or not axis.of_plate]
    if not kept:
        return [labels.name]
    return [
        f"{labels.name}[{', '.join(str(c) for c in index)}]"
        for index in itertools.product(*(axis.coordinates() for axis in kept))
    ]
