"""Conditional effects: one for each level of a site, or along a grid of a continuous one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..counterfactual import Posterior
from ..errors import ImpossibleEvidenceError, InferenceError, QueryError
from ..inference import PosteriorDraws, local_draws
from ..notation.parser import to_text
from ..notation.resolution import Resolved
from ..notation.terms import Comparison, Expectation, Number, Outcome, Term
from ..query.draws import Unobserved, new_units, posterior_of
from ..query.estimate import Estimate, QueryDiagnostics
from ..query.relevance import ancestors
from ..query.scope import Scope, read_scope
from ..query.summary import Sums, summarise
from ..structural.form import StructuralForm
from ..structural.noise import keyed_seed
from ..structural.sites import Site
from ..typing import Program
from .answering import SharedPosterior, ask_all
from .average import contrast, read_options
from .problem import Problem, number, on_programs, site_name
from .profile import Profile, profile

__all__ = ["conditional_effect"]

#: Where a continuous site is looked at, by default: these quantiles.
QUANTILES = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
#: Distinct values up to which a site without a support of its own is taken as discrete.
MOST_LEVELS = 20


def conditional_effect(
    model: Program,
    *,
    treatment: str,
    outcome: str,
    by: str,
    levels: Iterable[float] | None = None,
    treated: float = 1.0,
    control: float = 0.0,
    **options: Any,
) -> Callable[..., Estimate]:
    r"""The conditional average treatment effect.

    .. math:: CATE(z) = E[Y_{t=1} - Y_{t=0} \mid Z = z]

    Where ``by`` does not depend on the treatment it is of rung 2 and speaks of the population. A site that does gives a
    counterfactual, about those whose value happened to be z.

    Args:
        model: a Pyro program.
        treatment, outcome: names of sites.
        by: the site whose levels tell the groups apart, one number for each unit.
        levels: its values. By default all of a finite support that can occur; seven quantiles of a continuous site.
        treated, control: the two values of the treatment, in its unit.
        options: as for :func:`~causalppl.effects.average_treatment_effect`.

    Returns:
        a callable that takes the program's own arguments and returns a :class:`~causalppl.effects.Profile`: an estimate whose value has
        shape ``(levels,) + event_shape`` in the outcome's unit, and which knows the levels as ``.at``.

    Raises:
        UnknownSiteError: a name is no site.
        QueryError: ``by`` is the treatment or the outcome, or is no one number for each unit.
        ImpossibleEvidenceError, InferenceError: a level that was given does not occur.

    References:
        J. Hahn (1998), On the Role of the Propensity Score in Efficient Semiparametric Estimation of Average Treatment Effects.
        J. Pearl (2009), Causality, chapter 4.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     z = pyro.sample("z", dist.Bernoulli(0.5))
        ...     t = pyro.sample("t", dist.Bernoulli(0.25 + 0.5 * z))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 * (1 + t + t * z)))
        >>> cp.effects.conditional_effect(model, treatment="t", outcome="y", by="z")().value
        array([0.25, 0.5 ])
    """
    verb = "conditional_effect"
    one, zero = number(verb, "treated", treated), number(verb, "control", control)
    site_name(verb, "by", by)
    if by in (treatment, outcome):
        raise QueryError(f"{verb}: by={by!r} is the treatment or the outcome; give another site")
    given = None if levels is None else [number(verb, "levels", level) for level in levels]
    if given == []:
        raise QueryError(f"{verb}: give at least one level of {by!r}, or leave levels out")

    def answer(problem: Problem) -> Estimate:
        problem.known("by", by)
        chosen = _levels(problem, by) if given is None else given
        site = problem.form.sites.get(by)
        dense = site is not None and bool(site.frames) and _continuous(problem, by)
        solve = _along_grid if dense else _by_level
        return solve(problem, by, chosen, given is None, one, zero)

    return on_programs(verb, model, treatment, outcome, read_options(verb, options), answer)


# --- Levels -----------------------------------------------------------------------------------------------------------


def _levels(problem: Problem, by: str) -> list[float]:
    """A finite support, or quantiles of what is observed or would be."""
    site = problem.form.sites.get(by)
    if (
        site is not None
        and site.kind == "sample"
        and getattr(site.fn, "has_enumerate_support", False)
    ):
        return sorted({float(v) for v in site.fn.enumerate_support(expand=False).reshape(-1)})
    values = _values(problem, by, site)
    distinct = sorted(set(values.tolist()))
    if not _continuous(problem, by):
        if len(distinct) <= MOST_LEVELS:
            return distinct
        raise QueryError(
            f"{problem.verb}: {by!r} has many values and no finite support; say which, as in levels={distinct[:3]}"
        )
    return torch.quantile(values, torch.tensor(QUANTILES, dtype=values.dtype)).tolist()  # type: ignore[no-any-return]


def _values(problem: Problem, by: str, site: Site | None) -> Tensor:
    if site is not None and site.observed and site.missing is None and site.value.numel() > 1:
        return site.value.reshape(-1).double()
    form = problem.form
    drawn = posterior_of(Unobserved()(form.model), form, {}, None, 2_000)
    return drawn.predict(sites=[by]).tensor(by, world="factual").reshape(-1)[:100_000].double()


def _continuous(problem: Problem, by: str) -> bool:
    form = problem.form
    site = form.sites.get(by)
    names = {by} if site is not None and site.kind == "sample" else ancestors(by, problem.arrows)
    found = (form.sites.get(n) for n in names)
    return any(s is not None and s.kind == "sample" and not s.discrete for s in found)


# --- Answers ----------------------------------------------------------------------------------------------------------


def _by_level(
    problem: Problem, by: str, levels: Sequence[float], drop: bool, treated: float, control: float
) -> Profile:
    """The condition is met exactly, or selects draws and units."""
    difference = contrast(problem, treated, control)
    trees = [
        Expectation(difference, (Comparison(Outcome(by), "=", Number(level)),)) for level in levels
    ]
    kept, found = [], []
    shared = SharedPosterior(problem.options.method, problem.form)
    for level, tree in zip(levels, trees, strict=True):
        try:
            found += ask_all(problem, [tree], shared)
        except (ImpossibleEvidenceError, InferenceError):
            if not drop:  # a level that was asked for
                raise
            continue
        kept.append(level)
    if not kept:
        raise InferenceError(
            f"{problem.verb}: none of the levels of {by!r} occurs in the draws; raise num_samples, or give levels"
        )
    return profile(by, kept, found, f"E[{to_text(difference)} | {by}=...]")


def _along_grid(
    problem: Problem, by: str, levels: Sequence[float], drop: bool, treated: float, control: float
) -> Profile:
    """New units whose value is that of the grid: parameters from the data, the rest of the units given the value."""
    if problem.treatment in ancestors(by, problem.arrows):
        raise QueryError(
            f"{problem.verb}: {by!r} is continuous, stands in a plate and depends on the treatment {problem.treatment!r}, so no unit "
            "has one exact value; give a site that comes before the treatment"
        )
    form, options = problem.form, problem.options
    if options.over == "sample":
        raise QueryError(
            f"{problem.verb}: {by!r} is continuous, so no observed unit has exactly the value of a level; leave over out to ask about new "
            "units, or take the units near it from cp.effects.individual_effect"
        )
    scope = read_scope(
        form, problem.arrows, [problem.outcome], "population", options.units, options.parameters
    )
    parameters: dict[str, Tensor] = {}
    posterior = None
    if scope.parameters:
        posterior = posterior_of(
            form.model, form, form.evidence, options.method, options.num_samples
        )
        parameters = {n: posterior.latents[n] for n in scope.parameters}
    parts = [
        _at_level(problem, scope, posterior, parameters, by, level, treated, control)
        for level in levels
    ]
    difference = to_text(contrast(problem, treated, control))
    return profile(by, levels, parts, f"E[{difference} | {by}=...]")


def _at_level(
    problem: Problem,
    scope: Scope,
    posterior: Posterior | None,
    parameters: dict[str, Tensor],
    by: str,
    level: float,
    treated: float,
    control: float,
) -> Estimate:
    outcome = problem.outcome
    drawn, draws = _units_at(problem, scope, parameters, by, level)
    named = {"treated": {problem.treatment: treated}, "control": {problem.treatment: control}}
    worlds = drawn.predict(worlds=named, sites=[outcome])
    one, zero = (worlds.tensor(outcome, world=w).double().detach() for w in named)
    sums = _sums(one - zero, draws, drawn._form.sites[outcome], posterior)
    condition = Comparison(Outcome(by), "=", Number(level))
    term = Expectation(contrast(problem, treated, control), (condition,))
    by_term: dict[Term, Sums] = {term: sums}
    mean, interval, error, estimands = summarise(term, by_term)
    methods, why = ["simulation"], f"sampled: {by!r} is continuous and stands in a plate"
    if posterior is not None:
        methods = [posterior._draws.method, *methods]
        why += f"; {posterior._draws.why}"
    notes = tuple(scope.notes([Resolved(term, to_text(term), 2, None)]))
    diagnostics = QueryDiagnostics(", ".join(methods), why, {}, notes)
    return Estimate(mean, interval, error, estimands, 2, False, diagnostics, to_text(term))


def _units_at(
    problem: Problem, scope: Scope, parameters: dict[str, Tensor], by: str, level: float
) -> tuple[Posterior, int]:
    """Units whose value is the level, and how many draws of the parameters they are of (0 without parameters)."""
    form = problem.form
    value = torch.full_like(form.sites[by].value, level)
    evidence, shared = {**form.evidence, by: value}, _shared(problem, scope) | {by}
    seed = keyed_seed(form.seed, "grid")
    known = {n: v for n, v in evidence.items() if n in shared}
    fresh = StructuralForm(Unobserved(shared)(form.model), form.args, form.kwargs, known, seed)
    draws = len(next(iter(parameters.values()))) if parameters else 0
    own = {n for n in fresh.latent if n not in parameters}
    if not own & fresh.dependencies.ancestors(by):  # the value says nothing of the rest
        whole = StructuralForm(form.model, form.args, form.kwargs, evidence, seed)
        drawn, _ = new_units(whole, scope, shared, parameters, problem.options.num_samples)
        return drawn, draws
    rows = draws or problem.options.num_samples
    fixed = {n: v for n, v in parameters.items() if n in fresh.latent}
    latents = local_draws(fresh, fixed, rows)
    return Posterior(fresh, PosteriorDraws(latents, rows, "simulation")), draws


def _sums(effects: Tensor, draws: int, site: Site, posterior: Posterior | None) -> Sums:
    """Effects of shape ``(rows, *batch, *event)``, summed over the units of each row, or of each half of a parameter draw's."""
    event = effects.shape[effects.dim() - site.event_dim :]
    if not draws:
        flat = effects.reshape(len(effects), -1, *event)
        weight = torch.full(flat.shape[:1], float(flat.shape[1]), dtype=torch.float64)
        return Sums(weight, flat.sum(1), 0, 1.0, False, False, False)
    flat = effects.reshape(draws, -1, *event)
    half = max(1, flat.shape[1] // 2)
    halves = [flat[:, start : start + half].sum(1) for start in (0, half)][: flat.shape[1]]
    weight = torch.full((draws, len(halves)), float(half), dtype=torch.float64)
    assert posterior is not None
    ess = posterior._draws.ess
    least = draws if ess is None else float(torch.as_tensor(ess).min())
    efficiency = min(1.0, least / draws) if draws > 1 else 1.0
    return Sums(weight, torch.stack(halves, 1), 0, efficiency, True, False, False)


def _shared(problem: Problem, scope: Scope) -> frozenset[str]:
    """Sites that belong to no unit: what is observed of them stays so."""
    sites = problem.form.sites
    inside = {n for n, s in sites.items() if any(f.name == scope.units for f in s.frames)}
    below = {n for n in problem.arrows if inside & ancestors(n, problem.arrows)}
    return frozenset(sites) - inside - below
