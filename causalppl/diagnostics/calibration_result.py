"""What a calibration found: ranks of truths, whether they are uniform, and what they say if they are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import UnknownSiteError, site_list
from .uniformity import holm, pooled_p_values, uniformity_p_value

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["Calibration"]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Ranks of truths among posterior draws, and whether they are uniform.

    Attributes:
        ranks: quantity to whole numbers from 0 to ``num_samples``, dims ``("simulation", <plates>, <event dims>)``.
            Entries that data determine have no rank to judge and are left out of the tests.
        num_samples: draws that each truth is ranked among.
        tested: quantity to the entries that are judged, as a boolean mask.
        level: the probability of passing, at least, if everything is right.
        method: the inference method, as results name it; several where they differed.
        notes: warnings that the method gave, each with the number of simulations that had it.
    """

    ranks: xr.Dataset
    num_samples: int
    tested: Mapping[str, npt.NDArray[np.bool_]]
    level: float
    method: str
    notes: tuple[str, ...] = ()

    @property
    def num_simulations(self) -> int:
        """The number of simulated worlds."""
        return int(self.ranks.sizes["simulation"])

    def ranks_of(self, quantity: str) -> npt.NDArray[np.int64]:
        """Ranks of the entries that are judged, shape ``(simulations, entries)``.

        Raises:
            UnknownSiteError: there is no such quantity.
        """
        if quantity not in self.tested:
            raise UnknownSiteError(
                f"calibration: no quantity {quantity!r}; there are {site_list(self.tested)}"
            )
        array = self.ranks[quantity].values.reshape(self.num_simulations, -1)
        return np.asarray(array[:, self.tested[quantity].ravel()], dtype=np.int64)

    @cached_property
    def p_values(self) -> dict[str, float]:
        """Quantity to its p-value, adjusted for the number of its entries and of all quantities (Bonferroni, then Holm)."""
        names = list(self.tested)
        return dict(zip(names, holm([self._p_value(n) for n in names]), strict=True))

    @property
    def p_value(self) -> float:
        """The smallest adjusted p-value: the probability of ranks as uneven as these, somewhere, if everything is right."""
        return min(self.p_values.values())

    @property
    def passed(self) -> bool:
        """Whether the ranks of no quantity contradict the method: ``p_value > 1 - level``."""
        return self.p_value > 1 - self.level

    def _p_value(self, quantity: str) -> float:
        ranks = self.ranks_of(quantity)
        own = [uniformity_p_value(column, self.num_samples) for column in ranks.T]
        smallest = len(own) * min(own)
        if len(own) == 1:
            return min(1.0, smallest)
        return min(1.0, 3 * min(smallest, *pooled_p_values(ranks, self.num_samples)))

    def summary(self) -> pd.DataFrame:
        """A table with one row for each quantity.

        Columns: ``entries``; ``mean_rank``, between 0 and 1, 0.5 if right (below: draws are too high); ``spread``, the ranks'
        mean squared distance from the middle, 1 if right (above: the posterior is too narrow); ``p_value``, adjusted; and ``finding``.
        """
        import pandas as pd

        rows = {}
        for name, p_value in self.p_values.items():
            u = (self.ranks_of(name) + 0.5) / (self.num_samples + 1)
            spread = float(((u - 0.5) ** 2).mean()) * 12 / (1 - (self.num_samples + 1.0) ** -2)
            rows[name] = {
                "entries": u.shape[1],
                "mean_rank": float(u.mean()),
                "spread": spread,
                "p_value": p_value,
                "finding": self._finding(float(u.mean()), spread, u.size, p_value),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("quantity")

    def _finding(self, mean: float, spread: float, count: int, p_value: float) -> str:
        """What the ranks say, in words; directions only where they stand out by themselves."""
        if p_value > 1 - self.level:
            return "no contradiction"
        bias, width = (mean - 0.5) * np.sqrt(12 * count), (spread - 1) * np.sqrt(count / 0.8)
        words = []
        if abs(bias) > 3:
            words.append(f"draws too {'low' if bias > 0 else 'high'}")
        if abs(width) > 3 and abs(bias) < 2 * abs(width):
            words.append(f"too {'narrow' if width > 0 else 'wide'}")
        return ", ".join(words) or "ranks not uniform"

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "NOT CALIBRATED"
        head = (
            f"{verdict}: {self.method}, {self.num_simulations} simulations, ranks among {self.num_samples} draws, "
            f"smallest adjusted p-value {self.p_value:.2g}"
        )
        table = self.summary().to_string(float_format=lambda v: f"{v:.3g}")
        return "\n".join([head, table, *(f"note: {n}" for n in self.notes)])

    __repr__ = __str__
