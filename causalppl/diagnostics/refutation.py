"""Attempts to refute a program: its independences tested on data, and its effect where it must vanish or stay."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from ..counterfactual import Posterior, abduct
from ..effects import average_treatment_effect
from ..errors import EvidenceError, MethodError
from ..inference import Method
from ..query.estimate import Estimate, QueryDiagnostics
from ..query.relevance import arrows_of
from ..structural.form import StructuralForm
from ..structural.noise import fresh_seed, keyed_seed
from ..structural.units import parameters, unit_plates
from ..typing import Program
from .altered import OnlyUnits, with_cause
from .independence import holm, independence_p_value

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Refutation", "refute"]

#: The most sites that two others are separated by, where no parents' set does it.
MOST_GIVEN = 3
#: Posterior standard deviations that an effect may be off by.
WIDTH = 3.29


@dataclass(frozen=True)
class Refutation:
    """What was tried, and what it came to.

    Attributes:
        independences: one row for each independence that the program implies among the observed sites: ``a``, ``b``, ``given``,
            ``p_value`` and ``rejected``.
        effect: of the treatment, on all data; ``None`` where none was asked about.
        placebo: what one standard deviation of the treatment shuffled among units adds to the outcome (to its log odds where it is
            binary), which must be none.
        random_common_cause: the effect with a random covariate added as a cause of treatment and outcome, which must change nothing.
        subsets: the effect on random parts of the units.
        failures: what did not pass, in words.
        notes: what was not tried, and why.
    """

    independences: pd.DataFrame
    effect: Estimate | None
    placebo: Estimate | None
    random_common_cause: Estimate | None
    subsets: tuple[Estimate, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed: the program is not refuted, which does not make it true."""
        return not self.failures

    def __str__(self) -> str:
        tried = f"{len(self.independences)} independences tested"
        for name in ("placebo", "random_common_cause"):
            found = getattr(self, name)
            tried += f"; {name.replace('_', ' ')}: {found.value:.4g}" if found is not None else ""
        lines = [tried, *(f"failed: {text}" for text in self.failures), *self.notes]
        return "\n".join(lines)


def refute(
    model: Program,
    data: Any,
    *,
    treatment: str | None = None,
    outcome: str | None = None,
    level: float = 0.05,
    subsets: int = 3,
    method: Method | None = None,
    num_samples: int = 1_000,
    seed: int | None = None,
) -> Callable[..., Refutation]:
    r"""Try to refute a program with data.

    - **Independences.** Every :math:`a \perp b \mid S` that the program's graph implies among observed sites of the units, one for
      each pair without an arrow, is tested; Holm's correction keeps the chance of any false alarm at ``level``.
    - **Placebo.** The treatment shuffled among units is added beside the true one, with a coefficient of its own: it has to be none. A
      program that is too sure of itself, or takes as independent what is not, finds one.
    - **Random common cause.** A covariate of pure chance is added as a cause of treatment and outcome: the effect has to stay.
    - **Subsets.** On random four fifths of the units the effect has to stay within what fewer data explain.

    The last three need a treatment, an outcome, and parameters that learn from the data.

    Args:
        model: a Pyro program whose units stand in a plate.
        data: site to values, shape ``(units,)``, or a data frame whose columns are sites.
        treatment, outcome: names of sites.
        level: of the tests of independence.
        subsets: how many random parts of the units.
        method: an inference method.
        num_samples: posterior draws.
        seed: an integer; ``None`` takes one from torch's generator.

    Returns:
        a callable that takes the program's own arguments and returns a :class:`Refutation`.

    Raises:
        UnknownSiteError, ShapeError: data that do not fit the program.
        EvidenceError: no column has one complete number for each unit.

    References:
        A. Sharma, E. Kiciman (2020), DoWhy: An End-to-End Library for Causal Inference.
        J. Pearl (2009), Causality, section 1.2.3.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model(n):
        ...     with pyro.plate("units", n):
        ...         a = pyro.sample("a", dist.Normal(0.0, 1.0))
        ...         b = pyro.sample("b", dist.Normal(0.0, 1.0))
        >>> a = torch.randn(200, generator=torch.Generator().manual_seed(0))
        >>> cp.diagnostics.refute(model, {"a": a, "b": a + 0.1})(200).passed
        False
    """
    if (treatment is None) != (outcome is None):
        raise MethodError("refute: give both treatment and outcome, or neither")
    evidence = _columns(data)

    def run(*args: Any, **kwargs: Any) -> Refutation:
        own_seed = fresh_seed(seed)
        form = StructuralForm(model, args, kwargs, evidence, own_seed)
        found = _independences(form, level)
        failures = [
            f"{row.a} and {row.b} depend on each other given {list(row.given)}, p = {row.p_value:.2g}"
            for row in found.itertuples()
            if row.rejected
        ]
        if treatment is None or outcome is None:
            note = "no treatment and outcome were given, so no effect was tried"
            return Refutation(found, None, None, None, (), tuple(failures), (note,))
        ask = _Effects(form, evidence, treatment, outcome, method, num_samples, own_seed)
        return ask.refuted(found, failures, subsets)

    return run


def _columns(data: Any) -> dict[str, torch.Tensor]:
    if hasattr(data, "columns"):
        data = {name: data[name].to_numpy() for name in data.columns}
    if not isinstance(data, Mapping) or not data:
        raise EvidenceError(
            "refute: give data as a mapping from sites to arrays, or as a data frame whose columns are sites"
        )
    return {
        str(name): values if torch.is_tensor(values) else torch.tensor(np.array(values))
        for name, values in data.items()
    }


# --- Independences ----------------------------------------------------------------------------------------------------


def _independences(form: StructuralForm, level: float) -> pd.DataFrame:
    import pandas as pd

    columns = _complete(form)
    if not columns:
        raise EvidenceError(
            "refute: no site of the data has one complete number for each unit of a plate"
        )
    rows = []
    for a, b, given in _implied(form, list(columns)):
        p = independence_p_value(columns[a], columns[b], [columns[name] for name in given])
        rows.append((a, b, tuple(given), p))
    rejected = holm([row[3] for row in rows], level)
    frame = pd.DataFrame(rows, columns=["a", "b", "given", "p_value"])
    return frame.assign(rejected=rejected)


def _complete(form: StructuralForm) -> dict[str, Any]:
    """Sites of the units' plate that are wholly observed, one number for each unit, as float64 arrays."""
    plates, found = unit_plates(form), {}
    for name, site in form.sites.items():
        inside = {f.name for f in site.frames} == plates and len(plates) == 1
        if inside and site.kind == "sample" and site.observed and site.missing is None:
            value = form.conditioned.get(name, site.value)
            if not site.fn.event_shape:
                found[name] = value.double().reshape(-1).numpy()
    return found


def _implied(form: StructuralForm, columns: list[str]) -> list[tuple[str, str, list[str]]]:
    """For each pair of observed sites without an arrow, a smallest set of others that separates them, where one does."""
    import networkx as nx

    arrows = arrows_of(form)
    shared = set(parameters(form))  # constants, as far as the data go
    graph: Any = nx.DiGraph()
    graph.add_nodes_from(n for n in arrows if n not in shared)
    graph.add_edges_from(
        (p, n) for n, ps in arrows.items() for p in ps if {p, n} <= set(graph.nodes)
    )
    found = []
    for a, b in itertools.combinations(columns, 2):
        others = {n for n in columns if n not in (a, b)}
        separator = nx.find_minimal_d_separator(graph, {a}, {b}, restricted=others)
        if separator is not None:
            found.append((a, b, [n for n in columns if n in separator]))
    return found


# --- Effects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Effects:
    """The effect of a treatment, on the data and on altered ones."""

    form: StructuralForm
    data: Mapping[str, torch.Tensor]
    treatment: str
    outcome: str
    method: Method | None
    num_samples: int
    seed: int

    def ask(self, model: Program, data: Mapping[str, torch.Tensor]) -> Estimate:
        """The average effect that a program learns from data."""
        effect = average_treatment_effect(
            model,
            treatment=self.treatment,
            outcome=self.outcome,
            evidence=data,
            method=self.method,
            num_samples=self.num_samples,
            seed=self.seed,
            over="population",
        )
        return effect(*self.form.args, **self.form.kwargs)

    def refuted(self, found: pd.DataFrame, failures: list[str], subsets: int) -> Refutation:
        """All attempts on the effect."""
        form, notes = self.form, list[str]()
        effect = self.ask(form.model, self.data)
        if effect.draws is None or not parameters(form):
            notes.append(
                "the effect depends on no parameter that learns from data, so shuffling, adding and leaving out cannot move it"
            )
            return Refutation(found, effect, None, None, (), tuple(failures), tuple(notes))
        plate = next(f for f in form.sites[self.treatment].frames if f.name in unit_plates(form))
        generator = torch.Generator().manual_seed(keyed_seed(self.seed, "refute"))
        placebo = self._placebo(plate, generator, failures, notes)
        cause = self._random_common_cause(effect, plate, generator, failures, notes)
        parts = tuple(
            self._subset(effect, plate, generator, failures) for _ in range(max(0, subsets))
        )
        return Refutation(found, effect, placebo, cause, parts, tuple(failures), tuple(notes))

    def _placebo(
        self, plate: Any, generator: torch.Generator, failures: list[str], notes: list[str]
    ) -> Estimate | None:
        values = self.data[self.treatment].double()
        shuffled = values[torch.randperm(len(values), generator=generator)]
        standard = (shuffled - shuffled.mean()) / shuffled.std().clamp(min=1e-12)
        scale, name = self._scale(), "effect of a placebo"

        def strengths() -> Mapping[str, Any]:
            return {self.outcome: scale * pyro.sample(name, dist.Normal(0.0, 1.0))}

        widened = with_cause(self.form.model, lambda: _by_unit(standard, plate), strengths)
        ask = abduct(
            widened,
            self.data,
            method=self.method,
            num_samples=self.num_samples,
            seed=self.seed,
        )
        try:
            posterior = ask(*self.form.args, **self.form.kwargs)
        except MethodError as error:
            notes.append(f"no placebo was given: {error}")
            return None
        found = _of_draws(scale * posterior.latents[name].double(), posterior)
        if abs(float(found)) > WIDTH * _spread(found):
            failures.append(
                f"a placebo has an effect of {float(found):.3g}, {abs(float(found)) / _spread(found):.1f} posterior standard deviations "
                "from none: the program is surer than its data allow"
            )
        return found

    def _scale(self) -> float:
        """The unit of what is added to the outcome."""
        support = getattr(self.form.sites[self.outcome].fn, "support", None)
        if support is torch.distributions.constraints.boolean:
            return 1.0
        return float(self.data[self.outcome].double().std()) or 1.0

    def _random_common_cause(
        self,
        effect: Estimate,
        plate: Any,
        generator: torch.Generator,
        failures: list[str],
        notes: list[str],
    ) -> Estimate | None:
        noise = torch.randn(plate.size, generator=generator)
        scale = self._scale()

        def strengths() -> Mapping[str, Any]:
            on_treatment = pyro.sample("random cause of treatment", dist.Normal(0.0, 1.0))
            on_outcome = pyro.sample("random cause of outcome", dist.Normal(0.0, 1.0))
            return {self.treatment: on_treatment, self.outcome: scale * on_outcome}

        widened = with_cause(self.form.model, lambda: _by_unit(noise, plate), strengths)
        try:
            found = self.ask(widened, self.data)
        except MethodError as error:
            notes.append(f"no random common cause was added: {error}")
            return None
        if abs(float(found) - float(effect)) > _spread(effect):
            failures.append(
                f"a random common cause moved the effect from {float(effect):.4g} to {float(found):.4g}"
            )
        return found

    def _subset(
        self, effect: Estimate, plate: Any, generator: torch.Generator, failures: list[str]
    ) -> Estimate:
        chosen = torch.zeros(plate.size, dtype=torch.bool)
        chosen[torch.randperm(plate.size, generator=generator)[: round(0.8 * plate.size)]] = True
        found = self.ask(OnlyUnits(plate.name, chosen, plate.dim)(self.form.model), self.data)
        # a part's estimate differs from the whole's by what the others would have added
        extra = max(_spread(found) ** 2 - _spread(effect) ** 2, 0.05 * _spread(effect) ** 2)
        if abs(float(found) - float(effect)) > WIDTH * math.sqrt(extra):
            failures.append(
                f"four fifths of the units give an effect of {float(found):.4g}, all of them {float(effect):.4g}"
            )
        return found


def _by_unit(values: torch.Tensor, plate: Any) -> torch.Tensor:
    """One number for each unit, in the plate's dim and the default dtype."""
    return values.to(torch.get_default_dtype()).reshape(-1, *([1] * (-plate.dim - 1)))


def _of_draws(draws: torch.Tensor, posterior: Posterior) -> Estimate:
    low, high = torch.quantile(draws, torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    own = posterior._draws
    diagnostics = QueryDiagnostics(own.method, own.why, {}, own.notes)
    ess = own.ess if own.ess is not None else len(draws)
    error = float(draws.std()) / math.sqrt(max(1.0, float(torch.as_tensor(ess).min())))
    text = "the coefficient of a shuffled treatment"
    return Estimate(
        float(draws.mean()), (low, high), error, draws.numpy(), 2, False, diagnostics, text
    )


def _spread(estimate: Estimate) -> float:
    """Posterior standard deviation of an estimand."""
    return float(np.std(estimate.draws)) if estimate.draws is not None else 0.0
