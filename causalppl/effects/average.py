"""Average effects: of the whole population, and of those who were treated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from ..errors import closest_name
from ..inference import Method
from ..query.estimate import Estimate
from ..query.terms import Arithmetic, Comparison, Expectation, Number, Outcome
from ..typing import Program, Values
from .answering import ask
from .problem import Options, Problem, number, on_programs, world

__all__ = [
    "OPTIONS",
    "average_treatment_effect",
    "contrast",
    "effect_on_treated",
    "read_options",
    "total_effect",
]


def average_treatment_effect(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    treated: float = 1.0,
    control: float = 0.0,
    evidence: Values | None = None,
    method: Method | None = None,
    num_samples: int = 10_000,
    seed: int | None = None,
    units: str | None = None,
    parameters: Sequence[str] | None = None,
    over: Literal["sample", "population"] | None = None,
) -> Callable[..., Estimate]:
    r"""The average treatment effect.

    .. math:: E[Y_{t=1}] - E[Y_{t=0}] = E[Y \mid do(t=1)] - E[Y \mid do(t=0)]

    Args:
        model: a Pyro program.
        treatment: the site that is set.
        outcome: the site whose mean is asked about; event dims give an array.
        treated, control: the two values of the treatment, in its unit.
        evidence: site to what was observed; ``obs=`` sites are evidence already.
        method: an inference method; given, finite programs are sampled too.
        num_samples: posterior draws, where sampling is needed.
        seed: an integer; ``None`` takes one from torch's generator.
        units: the plate whose indices are the units; by default that of the outcome.
        parameters: latent sites that all units share; see :func:`causalppl.query`.
        over: ``"population"`` for new units, which is the default; ``"sample"`` for the observed ones (SATE).

    Returns:
        a callable that takes the program's own arguments and returns an :class:`~causalppl.query.estimate.Estimate` in the outcome's
        unit, of rung 2.

    Raises:
        UnknownSiteError: a name is no site.
        QueryError: no directed path leads from treatment to outcome, or a value is no number.

    References:
        D. B. Rubin (1974), Estimating Causal Effects of Treatments in Randomized and Nonrandomized Studies.
        J. Pearl (2009), Causality, chapter 3.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Bernoulli(0.5))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.5 * t))
        >>> float(cp.effects.average_treatment_effect(model, treatment="t", outcome="y")())
        0.5
    """
    verb = "average_treatment_effect"
    options = Options(evidence, method, num_samples, seed, units, parameters, over)
    one, zero = number(verb, "treated", treated), number(verb, "control", control)

    def answer(problem: Problem) -> Estimate:
        return ask(problem, Expectation(contrast(problem, one, zero)))

    return on_programs(verb, model, treatment, outcome, options, answer)


def total_effect(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    treated: float = 1.0,
    control: float = 0.0,
    **options: Any,
) -> Callable[..., Estimate]:
    r"""The total effect: through all paths, direct and mediated.

    .. math:: TE = E[Y_{t=1}] - E[Y_{t=0}] = NDE_{0 \to 1} - NIE_{1 \to 0}

    with the natural indirect effect of the reverse change; without interaction the two parts are NDE and NIE, which then add up.
    It is the average treatment effect under the name that mediation analysis gives it.

    Args:
        model: a Pyro program.
        treatment, outcome: names of sites.
        treated, control: the two values of the treatment, in its unit.
        options: ``evidence``, ``method``, ``num_samples``, ``seed``, ``units``, ``parameters`` and ``over``, as for
            :func:`average_treatment_effect`.

    Returns:
        as :func:`average_treatment_effect` does.

    References:
        J. Pearl (2001), Direct and indirect effects.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Bernoulli(0.5))
        ...     m = pyro.sample("m", dist.Bernoulli(0.25 + 0.5 * t))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.25 * t + 0.25 * m))
        >>> float(cp.effects.total_effect(model, treatment="t", outcome="y")())
        0.375
    """
    return average_treatment_effect(
        model, treatment=treatment, outcome=outcome, treated=treated, control=control, **options
    )


def effect_on_treated(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    treated: float = 1.0,
    control: float = 0.0,
    **options: Any,
) -> Callable[..., Estimate]:
    r"""The effect of treatment on the treated.

    .. math:: ETT = E[Y_{t=1} - Y_{t=0} \mid t = 1]

    With ``treated=0.0, control=1.0`` and the sign turned it is the effect that the untreated would have had. A counterfactual, of rung
    3: it speaks of the observed units unless ``over="population"``.

    Args:
        model: a Pyro program.
        treatment, outcome: names of sites.
        treated: the value that the units in question had.
        control: the value that they are compared under.
        options: as for :func:`average_treatment_effect`.

    Returns:
        a callable that takes the program's own arguments and returns an :class:`~causalppl.query.estimate.Estimate` in the outcome's unit.

    Raises:
        UnknownSiteError, QueryError: as for :func:`average_treatment_effect`; also a continuous treatment of units in a plate, of
            whom none has one exact value.

    References:
        J. J. Heckman (1992), Randomization and Social Policy Evaluation.
        I. Shpitser, J. Pearl (2009), Effects of Treatment on the Treated: Identification and Generalization.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     z = pyro.sample("z", dist.Bernoulli(0.5))
        ...     t = pyro.sample("t", dist.Bernoulli(0.25 + 0.5 * z))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 * (1 + t + t * z)))
        >>> float(cp.effects.effect_on_treated(model, treatment="t", outcome="y")())  # E[z | t=1] is 3/4
        0.4375
    """
    verb = "effect_on_treated"
    one, zero = number(verb, "treated", treated), number(verb, "control", control)

    def answer(problem: Problem) -> Estimate:
        given = (Comparison(Outcome(treatment), "=", Number(one)),)
        return ask(problem, Expectation(contrast(problem, one, zero), given))

    return on_programs(verb, model, treatment, outcome, read_options(verb, options), answer)


def contrast(problem: Problem, treated: float, control: float) -> Arithmetic:
    """The outcome under treatment minus that under control."""
    return Arithmetic(
        "-",
        world(problem.outcome, **{problem.treatment: treated}),
        world(problem.outcome, **{problem.treatment: control}),
    )


#: What every effect takes besides its sites and doses.
OPTIONS = ("evidence", "method", "num_samples", "seed", "units", "parameters", "over")


def read_options(
    verb: str,
    given: dict[str, Any],
    allowed: Sequence[str] = OPTIONS,
    num_samples: int = 10_000,
) -> Options:
    """Keyword arguments with the defaults of :func:`average_treatment_effect`.

    Raises:
        TypeError: one that the effect does not take, as Python would.
    """
    for name in given:
        if name not in allowed:
            near = closest_name(name, allowed)
            hint = (
                f"; did you mean {near!r}?" if near else f"; its options are {', '.join(allowed)}"
            )
            raise TypeError(f"{verb}() got an unexpected keyword argument {name!r}{hint}")
    defaults = {"evidence": None, "method": None, "num_samples": num_samples, "seed": None}
    return Options(**(defaults | given))
