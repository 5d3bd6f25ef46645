"""The effect on each unit, given what is known of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..counterfactual import Posterior, abduct
from ..query.answer import Request, answer
from ..query.estimate import Estimate, QueryDiagnostics
from ..query.finite import FiniteModel, NotFinite
from ..query.parser import to_text
from ..query.relevance import relevance
from ..query.resolution import outcomes
from ..query.terms import Comparison, Expectation, Expression, Number, Probability
from ..typing import Program
from .answering import sampled_couplings
from .average import OPTIONS, contrast, read_options
from .problem import Problem, number, on_programs

__all__ = ["individual_effect"]


def individual_effect(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    treated: float = 1.0,
    control: float = 0.0,
    **options: Any,
) -> Callable[..., Estimate]:
    r"""The individual effect: of each observed unit, with that unit's own noise.

    .. math:: Y_{t=1}(u_i) - Y_{t=0}(u_i), \quad u_i \sim p(u_i \mid \text{data})

    The effect of a unit is a number that is not known. ``value`` is its posterior mean, ``interval`` its 95% posterior interval and
    ``draws`` its posterior; where all noise can be abducted they are one number.

    Args:
        model: a Pyro program.
        treatment, outcome: names of sites.
        treated, control: the two values of the treatment, in its unit.
        options: ``evidence``, ``method``, ``num_samples`` and ``seed``, as for
            :func:`~causalppl.effects.average_treatment_effect`.

    Returns:
        a callable that takes the program's own arguments and returns an :class:`~causalppl.query.estimate.Estimate` of rung 3: a float
        where one run of the program is one unit, an array of the outcome's shape, ``batch_shape + event_shape``, otherwise.

    Raises:
        UnknownSiteError, QueryError: as for :func:`~causalppl.effects.average_treatment_effect`.
        NoMechanismError: a site between treatment and outcome has no structural assignment.

    Warns:
        CouplingWarning: the answer depends on a default coupling.

    References:
        D. B. Rubin (1974), Estimating Causal Effects of Treatments in Randomized and Nonrandomized Studies.
        J. Pearl (2009), Causality, theorem 7.1.7.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist, torch
        >>> def model():
        ...     with pyro.plate("people", 2):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         t = pyro.sample("t", dist.Bernoulli(0.5))
        ...         pyro.sample("y", dist.Normal(t * (1 + z), 1.0))
        >>> evidence = {"z": torch.tensor([0.0, 2.0]), "t": torch.tensor([0.0, 1.0]), "y": torch.tensor([0.5, 3.5])}
        >>> cp.effects.individual_effect(model, treatment="t", outcome="y", evidence=evidence)().value
        array([1., 3.])
    """
    verb = "individual_effect"
    one, zero = number(verb, "treated", treated), number(verb, "control", control)
    chosen = read_options(verb, options, OPTIONS[:4], num_samples=1_000)

    def run(problem: Problem) -> Estimate:
        difference = contrast(problem, one, zero)
        found = _exact(problem, difference)
        return _sampled(problem, difference, one, zero) if found is None else found

    return on_programs(verb, model, treatment, outcome, chosen, run)


def _exact(problem: Problem, difference: Expression) -> Estimate | None:
    """By sums over tables, where one run of a finite program is the unit; ``None`` elsewhere."""
    form, options = problem.form, problem.options
    if options.method is not None:
        return None
    needed = None if form.dependencies.hidden else relevance(outcomes(difference), problem.arrows)
    try:
        model = FiniteModel(form, needed)
        if model.branching:
            return None
        values = model.values_of(problem.outcome)
    except NotFinite:
        return None

    def ask(tree: Expression) -> Estimate:
        request = Request(to_text(tree), tree, None, options.num_samples, None, None, "sample")
        return answer(request, form)

    mean = ask(Expectation(difference))
    if not mean.exact:
        return None
    steps = sorted({a - b for a in values for b in values})
    law = [float(ask(Probability((Comparison(difference, "=", Number(d)),)))) for d in steps]
    interval = (_quantile(steps, law, 0.025), _quantile(steps, law, 0.975))
    return replace(mean, interval=interval, rung=3)


def _quantile(values: list[float], law: list[float], level: float) -> float:
    reached = np.cumsum(law) / math.fsum(law)
    return values[int(np.argmax(reached >= level - 1e-12))]


def _sampled(problem: Problem, difference: Expression, treated: float, control: float) -> Estimate:
    form, options = problem.form, problem.options
    posterior = abduct(
        form.model,
        form.evidence,
        method=options.method,
        num_samples=options.num_samples,
        seed=form.seed,
    )(*form.args, **form.kwargs)
    named = {"treated": {problem.treatment: treated}, "control": {problem.treatment: control}}
    worlds = posterior.predict(worlds=named, sites=[problem.outcome])
    one, zero = (worlds.tensor(problem.outcome, world=w).double() for w in named)
    draws = (one - zero).detach()
    mechanisms = sampled_couplings(problem, posterior, named)
    return _summary(problem, posterior, draws, mechanisms, to_text(difference))


def _summary(
    problem: Problem,
    posterior: Posterior,
    draws: torch.Tensor,
    mechanisms: dict[str, str],
    text: str,
) -> Estimate:
    own = posterior._draws
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.quantile(draws, ends, dim=0).unbind(0)
    certain = len(draws) == 1
    error = torch.zeros_like(low)
    if not certain:
        ess = own.ess if own.ess is not None else own.num_samples
        share = min(1.0, float(torch.as_tensor(ess).min()) / max(1, own.num_samples))
        error = draws.std(0) / math.sqrt(max(1.0, share * len(draws)))
    diagnostics = QueryDiagnostics(own.method, own.why, mechanisms, own.notes)
    return Estimate(
        _plain(draws.mean(0)),
        (_plain(low), _plain(high)),
        _plain(error),
        None if certain else draws.numpy(),
        3,
        certain and own.method == "Exact",
        diagnostics,
        text,
    )


def _plain(value: torch.Tensor) -> Any:
    return float(value) if value.dim() == 0 else value.numpy()
