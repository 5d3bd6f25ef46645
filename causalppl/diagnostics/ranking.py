"""Quantities of posteriors and their truths, ranked one simulation after another."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..counterfactual import Posterior
from ..errors import InferenceWarning, MethodError, ShapeError
from ..interventions import unknown_site
from ..results.labels import as_array
from ..structural.noise import keyed_seed
from .calibration_result import Calibration
from .ranks import rank, regridded
from .simulations import Simulations

__all__ = ["LOG_LIKELIHOOD", "Asked", "Quantity", "Ranking"]

#: What is computed from a posterior: a DataArray with the dim ``"draw"``, or a tensor or array whose first axis is the draws.
Quantity = Callable[[Posterior], Any]

#: The name of the quantity that is always there: the log probability of all data given the latents, in nats.
LOG_LIKELIHOOD = "log_likelihood"


class Asked:
    """The quantities of a calibration, and their truths."""

    def __init__(
        self,
        simulations: Simulations,
        sites: Iterable[str] | None,
        quantities: Mapping[str, Quantity] | None,
    ) -> None:
        self.simulations = simulations
        self.sites = list(simulations.latent if sites is None else sites)
        self.own = dict(quantities or {})
        for name in self.own:
            if name in self.sites or name == LOG_LIKELIHOOD:
                raise MethodError(
                    f"quantities: {name!r} is the name of a site or of the log likelihood; choose another"
                )
        truths = simulations.truths
        shown = {s for s in truths._form.sites if s not in truths._form.halves}
        for name in self.sites:
            if name not in shown:
                raise unknown_site("sites", name, sorted(shown))
        self.truths: dict[str, npt.NDArray[Any]] = {}
        self.dims: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {}
        for name, (array, dims, coords) in self.of(truths, simulations.count).items():
            self.truths[name], self.dims[name] = array, (dims, coords)

    def of(
        self, posterior: Posterior, draws: int
    ) -> dict[str, tuple[npt.NDArray[Any], tuple[str, ...], dict[str, Any]]]:
        """Quantity to its values, draws first, with the names of the other dims and their coordinates."""
        found = {}
        # a latent site is there already; the others cost a run of the program
        others = [n for n in self.sites if n not in posterior.latents]
        factual = posterior.predict(sites=others) if others else None
        for name in self.sites:
            if name in posterior.latents:
                value = posterior.latents[name]
                array = posterior._labels(name, value).label(value)
            else:
                assert factual is not None
                array = factual[name].sel(world="factual", drop=True)
            found[name] = _read(name, array, draws)
        for name, quantity in self.own.items():
            found[name] = _read(name, quantity(posterior), draws)
        return found


class Ranking:
    """Collects ranks, one simulation after another."""

    def __init__(self, asked: Asked, num_samples: int, seed: int) -> None:
        self.asked, self.num_samples = asked, num_samples
        self.generator = np.random.default_rng(keyed_seed(seed, "ranks"))
        shapes = {n: t.shape for n, t in asked.truths.items()}
        if asked.simulations.latent:
            shapes[LOG_LIKELIHOOD] = (asked.simulations.count,)
        self.ranks = {n: np.zeros(s, dtype=np.int64) for n, s in shapes.items()}
        self.varies = {n: np.zeros(s[1:], dtype=bool) for n, s in shapes.items()}
        self.methods: dict[str, None] = {}
        self.warned: dict[str, int] = {}

    def abducted(self, call: Callable[[], Posterior]) -> Posterior:
        """A posterior, with its method's warnings kept for the notes."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InferenceWarning)
            posterior = call()
        # the same doubt has other numbers in every simulation, and its advice follows a semicolon
        doubts = {
            re.sub(r"\d+(\.\d+)?", "...", str(w.message).split(";")[0])
            for w in caught
            if issubclass(w.category, InferenceWarning)
        }
        for doubt in doubts:
            self.warned[doubt] = self.warned.get(doubt, 0) + 1
        for other in caught:
            if not issubclass(other.category, InferenceWarning):
                warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
        return posterior

    def add(self, run: int, posterior: Posterior) -> None:
        """Rank the truths of one simulation."""
        kept = _thinned(posterior, self.num_samples)
        draws = kept.num_samples
        self.methods[kept._draws.method] = None
        pairs = {
            n: (self.asked.truths[n][run], values)
            for n, (values, *_) in self.asked.of(kept, draws).items()
        }
        if LOG_LIKELIHOOD in self.ranks:
            log_likelihood = self._log_likelihood(run, kept)
            pairs[LOG_LIKELIHOOD] = (log_likelihood[0], log_likelihood[1:])
        for name, (truth, values) in pairs.items():
            if values.shape[1:] != truth.shape:
                raise ShapeError(
                    f"quantity {name!r} has shape {values.shape[1:]} for a posterior and {truth.shape} for the truth, beside "
                    "its draws; it must not depend on their number"
                )
            if np.isnan(values.astype(float)).any() or np.isnan(truth.astype(float)).any():
                raise MethodError(
                    f"quantity {name!r} is NaN in simulation {run}, so it has no rank"
                )
            found, known = rank(np.asarray(truth), values, self.generator)
            self.ranks[name][run] = regridded(found, draws, self.num_samples, self.generator)
            self.varies[name] |= ~known

    def _log_likelihood(self, run: int, posterior: Posterior) -> npt.NDArray[Any]:
        """Of the truth and of each draw, in one call, so that equal latents give equal numbers."""
        form = posterior._form
        truth = self.asked.simulations.values(run, form.latent)
        rows = {
            n: torch.cat([truth[n].to(v).unsqueeze(0), v]) for n, v in posterior.latents.items()
        }

        def row(latents: dict[str, torch.Tensor]) -> torch.Tensor:
            parts = form.log_probs(latents)["evidence"].values()
            return sum((p.double() for p in parts), torch.zeros((), dtype=torch.float64))

        with torch.no_grad():
            found = form.executor.map(row, posterior.num_samples + 1, rows)
        return as_array(torch.stack(found) if isinstance(found, list) else found).astype(np.float32)

    def result(self, level: float) -> Calibration:
        """Everything so far, with names."""
        import xarray as xr

        tested = {n: v for n, v in self.varies.items() if v.any()}
        if not tested:
            raise MethodError(
                "every quantity is determined by the data, so there is nothing to judge; leave some sites latent, or give "
                "quantities= that depend on unobserved noise"
            )
        dims = {**self.asked.dims, LOG_LIKELIHOOD: ((), {})}
        arrays = {
            n: xr.DataArray(
                r,
                dims=("simulation", *dims[n][0]),
                coords={**dims[n][1], "simulation": np.arange(len(r))},
            )
            for n, r in self.ranks.items()
        }
        notes = tuple(
            f"{doubt} (in {count} of {self.asked.simulations.count} simulations)"
            for doubt, count in self.warned.items()
        )
        return Calibration(
            xr.Dataset(arrays, attrs={"num_samples": self.num_samples}),
            self.num_samples,
            tested,
            level,
            ", ".join(self.methods),
            notes,
        )


def _read(
    name: str, value: Any, draws: int
) -> tuple[npt.NDArray[Any], tuple[str, ...], dict[str, Any]]:
    """Values with the draws first, the names of the other dims, and their coordinates."""
    dims: tuple[str, ...]
    if hasattr(value, "dims") and hasattr(value, "transpose"):
        if "draw" not in value.dims:
            raise ShapeError(
                f"quantity {name!r} has the dims {value.dims} and none is 'draw'; do not average over draws"
            )
        value = value.transpose("draw", ...)
        array, dims = value.values, tuple(str(d) for d in value.dims[1:])
        coords = {d: value.coords[d].values for d in dims if d in value.coords}
    else:
        array = as_array(value) if isinstance(value, torch.Tensor) else np.asarray(value)
        dims, coords = tuple(f"{name}_dim_{i}" for i in range(array.ndim - 1)), {}
    if array.ndim == 0 or len(array) != draws:
        raise ShapeError(
            f"quantity {name!r} has shape {array.shape} and the posterior {draws} draws; give one entry for each draw, first"
        )
    return array.astype(np.int64) if array.dtype == bool else array, dims, coords


def _thinned(posterior: Posterior, num_samples: int) -> Posterior:
    """At most ``num_samples`` evenly spaced draws, and at most half of those that the method calls effective."""
    draws = posterior._draws
    count = min(num_samples, draws.num_samples)
    if draws.ess is not None and (draws.rhat is not None or draws.pareto_k is not None):
        smallest = float(torch.as_tensor(draws.ess).min())
        count = max(1, min(count, int(smallest / 2) if np.isfinite(smallest) else count))
    if count == draws.num_samples:
        return posterior
    index = torch.linspace(0, draws.num_samples - 1, count).round().long()
    latents = {n: v[index] for n, v in draws.latents.items()}
    return Posterior(posterior._form, replace(draws, latents=latents, num_samples=count), count)
