"""Simulation-based calibration: does a method find again what the program itself put there?

If latents and data are drawn from the program, a right posterior and the truth are exchangeable, so that the rank of the
truth among posterior draws is uniform, for every quantity that is computed from a posterior. A counterfactual contrast is
one of these: its truth is computed from the noise of the simulated world by the same call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from ..counterfactual import Posterior, abduct
from ..errors import InferenceWarning, MethodError, ShapeError, UnknownSiteError, site_list
from ..inference import Method
from ..interventions import unknown_site
from ..progress import Progress, progress_from
from ..results.labels import as_array
from ..structural.noise import fresh_seed, keyed_seed
from ..typing import Program
from .ranks import rank, regridded
from .simulations import Simulations
from .uniformity import holm, pooled_p_values, uniformity_p_value

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["LOG_LIKELIHOOD", "Calibration", "Quantity", "simulation_based_calibration"]

#: What is computed from a posterior: a DataArray with the dim ``"draw"``, or a tensor or array whose first axis is the draws.
Quantity = Callable[[Posterior], Any]

#: The name of the quantity that is always there: the log probability of all data given the latents, in nats.
LOG_LIKELIHOOD = "log_likelihood"


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


def simulation_based_calibration(
    model: Program,
    method: Method | None = None,
    *,
    observed: Iterable[str] | None = None,
    num_simulations: int = 100,
    num_samples: int = 99,
    thin: int = 10,
    sites: Iterable[str] | None = None,
    quantities: Mapping[str, Quantity] | None = None,
    level: float = 0.95,
    seed: int | None = None,
    progress: bool | Progress = False,
) -> Callable[..., Calibration]:
    r"""Checks a program and an inference method against each other on worlds that the program simulates.

    .. math:: \theta_s \sim p(\theta), \quad y_s \sim p(y \mid \theta_s), \quad \theta_{s1}, \ldots, \theta_{sD} \sim
        \text{method}(y_s), \qquad r_s = \#\{d : f(\theta_{sd}) < f(\theta_s)\}

    If the method gives the program's posterior, :math:`r_s` is uniform on :math:`0, \ldots, D` for every quantity :math:`f`,
    of latents, data and noise. Ranks of latents alone cannot see a method that ignores the data; those of the joint log
    likelihood can, so it is always among the quantities.

    Args:
        model: a Pyro program. Data come from its sites with ``obs=``, whose values are replaced by simulated ones; a program that
            reads its data elsewhere too, from an argument, is not simulated by this.
        method: an inference method; ``None`` chooses one for each simulation, as :func:`causalppl.abduct` does.
        observed: further sites that are data.
        num_simulations: simulated worlds; each costs one call of the method.
        num_samples: draws that each truth is ranked among.
        thin: the method is asked for ``thin * num_samples`` draws and every ``thin``-th is kept, so that neighbours in a chain
            do not matter. Where it reports fewer effective draws than twice those kept, fewer are kept.
        sites: latent or deterministic sites whose ranks are taken; all latent ones by default.
        quantities: name to a function of a :class:`causalppl.Posterior` that gives one value or array for each draw, such as
            ``lambda p: p.predict({"x": 1.0}).contrast("y", "counterfactual")``. The truth is the same function of the
            simulated world, noise included.
        level: a right method passes with this probability at least.
        seed: an integer; ``None`` takes one from torch's generator.
        progress: ``True`` draws a bar.

    Returns:
        a callable that takes the program's own arguments and returns a :class:`Calibration`.

    Raises:
        MethodError: nothing is data, nothing can be judged, or the program weighs its density by factors or scales.
        ProgramError: the program's sites differ from run to run.
        UnknownSiteError: a name that is no site.
        ShapeError: a quantity has not one entry for each draw.

    References:
        Sean Talts, Michael Betancourt, Daniel Simpson, Aki Vehtari, Andrew Gelman (2018), Validating Bayesian inference
        algorithms with simulation-based calibration. https://arxiv.org/abs/1804.06788
        Martin Modrák, Angie H. Moon, Shinyoung Kim, Paul Bürkner, Niko Huurre, Kateřina Faltejsková, Andrew Gelman, Aki
        Vehtari (2023), Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes
        sensitivity. https://doi.org/10.1214/23-BA1404

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def coins(heads):
        ...     fair = pyro.sample("fair", dist.Bernoulli(0.5))
        ...     with pyro.plate("throws", len(heads)):
        ...         pyro.sample("heads", dist.Bernoulli(0.8 - 0.3 * fair), obs=heads)
        >>> check = cp.diagnostics.simulation_based_calibration(coins, cp.Enumeration(), num_simulations=50, seed=0)
        >>> check(torch.zeros(5)).passed
        True
    """
    for name, number in (
        ("num_simulations", num_simulations),
        ("num_samples", num_samples),
        ("thin", thin),
    ):
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise MethodError(f"{name}={number!r}: give a positive integer")
    if not 0 < level < 1:
        raise MethodError(f"level={level!r}: give a probability between 0 and 1, such as 0.95")

    def run(*args: Any, **kwargs: Any) -> Calibration:
        own_seed, report = fresh_seed(seed), progress_from(progress)
        simulations = Simulations(model, args, kwargs, observed, num_simulations, own_seed)
        asked = _Asked(simulations, sites, quantities)
        ranking = _Ranking(asked, num_samples, own_seed)
        report.start("simulations", num_simulations)
        try:
            for s in range(num_simulations):
                posterior = ranking.abducted(
                    lambda s=s: abduct(  # type: ignore[misc]
                        model,
                        simulations.evidence(s),
                        method=method,
                        num_samples=thin * num_samples,
                        seed=keyed_seed(own_seed, "simulation", s),
                    )(*args, **kwargs)
                )
                ranking.add(s, posterior)
                report.advance()
        finally:
            report.stop()
        return ranking.result(level)

    return run


class _Asked:
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


class _Ranking:
    """Collects ranks, one simulation after another."""

    def __init__(self, asked: _Asked, num_samples: int, seed: int) -> None:
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
        doubts = {
            "".join(c for c in str(w.message).split(":")[0])
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
