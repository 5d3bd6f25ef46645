"""Probabilities of causation: was the cause necessary, would it have been sufficient, is it both?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..effects.answering import SharedPosterior, ask_all
from ..effects.average import read_options
from ..effects.problem import Problem, number, site_name, world
from ..errors import ImpossibleEvidenceError, InferenceError
from ..notation.parser import to_text
from ..notation.terms import Comparison, Number, Outcome, Probability
from ..query.estimate import Estimate, QueryDiagnostics
from ..structural.form import StructuralForm
from ..structural.noise import fresh_seed
from ..typing import Program

__all__ = ["ProbabilitiesOfCausation", "probabilities_of_causation"]


@dataclass(frozen=True)
class ProbabilitiesOfCausation:
    """The three probabilities, each an :class:`~causalppl.query.estimate.Estimate`; NaN where its condition is impossible.

    Attributes:
        pn: probability of necessity.
        ps: probability of sufficiency.
        pns: probability of necessity and sufficiency.
    """

    pn: Estimate
    ps: Estimate
    pns: Estimate


def probabilities_of_causation(
    model: Program,
    *,
    cause: str,
    effect: str,
    present: float = 1.0,
    absent: float = 0.0,
    occurs: float = 1.0,
    **options: Any,
) -> Callable[..., ProbabilitiesOfCausation]:
    r"""Probabilities of necessity, of sufficiency, and of both.

    .. math::
        PN = P(Y_{x'} \ne y \mid x, y), \quad PS = P(Y_x = y \mid x', Y \ne y), \quad PNS = P(Y_x = y, Y_{x'} \ne y)

    Counterfactuals, so they rest on how the program couples worlds; :func:`tian_pearl_bounds` and :func:`causalppl.bounds` say what
    holds for every coupling.

    Args:
        model: a Pyro program.
        cause: the site that was or was not at x.
        effect: a discrete site.
        present, absent: the values x and x' of the cause.
        occurs: the value y of the effect.
        options: ``evidence``, ``method``, ``num_samples``, ``seed``, ``units``, ``parameters`` and ``over``, as for
            :func:`causalppl.effects.average_treatment_effect`.

    Returns:
        a callable that takes the program's own arguments and returns :class:`ProbabilitiesOfCausation`. With evidence all three
        are about the units that have it, and one whose condition contradicts it is NaN, with a note.

    Raises:
        UnknownSiteError: a name is no site.
        QueryError: the effect does not depend on the cause, or is continuous.

    Warns:
        CouplingWarning: an answer depends on a default coupling.

    References:
        J. Pearl (1999), Probabilities of Causation: Three Counterfactual Interpretations and their Identification.
        J. Tian, J. Pearl (2000), Probabilities of Causation: Bounds and Identification.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def fire():
        ...     lightning = pyro.sample("lightning", dist.Bernoulli(0.5))
        ...     match = pyro.sample("match", dist.Bernoulli(0.5))
        ...     return pyro.deterministic("fire", lightning * match)
        >>> found = cp.attribution.probabilities_of_causation(fire, cause="match", effect="fire")()
        >>> float(found.pn), float(found.ps), float(found.pns)
        (1.0, 0.5, 0.5)
    """
    verb = "probabilities_of_causation"
    site_name(verb, "cause", cause)
    site_name(verb, "effect", effect)
    x, other = number(verb, "present", present), number(verb, "absent", absent)
    y, chosen = Number(number(verb, "occurs", occurs)), read_options(verb, options)

    def run(*args: Any, **kwargs: Any) -> ProbabilitiesOfCausation:
        form = StructuralForm(model, args, kwargs, chosen.evidence, fresh_seed(chosen.seed))
        problem = Problem(verb, form, cause, effect, chosen, ("cause", "effect"))
        problem.check()
        shared = SharedPosterior(chosen.method, form)
        sufficient = Comparison(world(effect, **{cause: x}), "=", y)
        without = Comparison(world(effect, **{cause: other}), "!=", y)
        taken, not_taken = (Comparison(Outcome(cause), "=", Number(v)) for v in (x, other))
        happened = Comparison(Outcome(effect), "=", y)
        not_happened = Comparison(Outcome(effect), "!=", y)
        necessity = Probability((without,), (taken, happened))
        sufficiency = Probability((sufficient,), (not_taken, not_happened))
        both = Probability((sufficient, without))
        return ProbabilitiesOfCausation(
            _or_undefined(problem, necessity, shared),
            _or_undefined(problem, sufficiency, shared),
            ask_all(problem, [both], shared)[0],
        )

    return run


def _or_undefined(problem: Problem, tree: Probability, shared: SharedPosterior) -> Estimate:
    try:
        return ask_all(problem, [tree], shared)[0]
    except (ImpossibleEvidenceError, InferenceError) as error:
        note = f"undefined: its condition does not happen ({error})"
        diagnostics = QueryDiagnostics("none", "", {}, (note,))
        nothing = (math.nan, math.nan)
        return Estimate(math.nan, nothing, math.nan, None, 3, False, diagnostics, to_text(tree))
