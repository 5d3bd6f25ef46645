"""Effects as queries: by sums over tables where the program is finite, otherwise from one posterior for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..counterfactual import Posterior
from ..inference import Method, PosteriorDraws, choose_and_sample
from ..interventions import program_arguments
from ..notation.parser import to_text
from ..notation.resolution import outcomes, resolve
from ..notation.terms import Expectation, Expression, parts
from ..progress import Progress
from ..query.answer import Request, answer
from ..query.doubts import Seen, doubtful_couplings
from ..query.estimate import Estimate
from ..query.finite import FiniteModel, NotFinite
from ..query.grounds import Asked, resting_on, warn_of_couplings
from ..query.relevance import ancestors, relevance
from ..query.sampled import sampled_answer
from ..query.scope import read_scope
from ..structural.form import StructuralForm
from .problem import Problem

__all__ = ["SharedPosterior", "ask", "ask_all", "sampled_couplings"]


def ask(problem: Problem, tree: Expression) -> Estimate:
    """The answer to one query about the problem's program."""
    return ask_all(problem, [tree])[0]


def ask_all(
    problem: Problem, trees: Sequence[Expression], shared: SharedPosterior | None = None
) -> list[Estimate]:
    """The answers to several queries, from one posterior where sampling is needed.

    Args:
        shared: what earlier calls have sampled.

    Raises:
        QueryError, EvidenceError, InferenceError: as :func:`causalppl.query` does.

    Warns:
        CouplingWarning: an answer depends on a default coupling.
    """
    options, form = problem.options, problem.form
    requests = [
        Request(
            to_text(tree),
            tree,
            options.method,
            options.num_samples,
            options.units,
            options.parameters,
            options.over,
        )
        for tree in trees
    ]
    why = _not_finite(problem, trees)
    if not why:
        return [answer(request, form) for request in requests]
    shared = shared or SharedPosterior(options.method, form)
    return [_sampled(problem, request, shared, why) for request in requests]


def sampled_couplings(
    problem: Problem, posterior: Posterior, worlds: Mapping[str, Mapping[str, float]]
) -> dict[str, str]:
    """Mechanisms of the sites between treatment and outcome; a default one that worlds depend on is warned of."""
    arrows, sites = problem.arrows, problem.form.sites
    upstream = {problem.outcome} | ancestors(problem.outcome, arrows)
    between = tuple(
        n
        for n, s in sites.items()
        if s.kind == "sample"
        and n in upstream
        and problem.treatment in ancestors(n, arrows)
        and s.mechanism
    )
    doubtful = doubtful_couplings(Seen(posterior, worlds), between, arrows)
    if doubtful:
        warn_of_couplings(problem.verb, doubtful)
    return {n: getattr(sites[n].mechanism, "name", "?") for n in between}


class SharedPosterior:
    """An inference method that remembers the posterior of the program itself, for queries that follow each other."""

    def __init__(self, method: Method | None, form: StructuralForm) -> None:
        self._method, self._model = method, form.model
        self._found: dict[object, PosteriorDraws] = {}

    def sample(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        """Draws of the given method, or of the one that is chosen, from memory where the evidence is the same."""
        if form.model is not self._model:
            return self._draw(form, num_samples, progress)
        evidence = tuple((n, v.numpy().tobytes()) for n, v in form.conditioned.items())
        ranges = tuple(
            (n, *(end.numpy().tobytes() for end in s.interval))
            for n, s in form.sites.items()
            if s.interval is not None
        )
        key = (evidence, ranges, num_samples)
        if key not in self._found:
            self._found[key] = self._draw(form, num_samples, progress)
        return self._found[key]

    def _draw(self, form: StructuralForm, num_samples: int, progress: Progress) -> PosteriorDraws:
        if self._method is None:
            return choose_and_sample(form, num_samples, progress)
        return self._method.sample(form, num_samples, progress)


def _not_finite(problem: Problem, trees: Sequence[Expression]) -> str:
    """Why sums over tables cannot answer; empty where they may."""
    if problem.options.method is not None:
        return f"method={type(problem.options.method).__name__} was given"
    form = problem.form
    try:
        if form.dependencies.hidden:
            FiniteModel(form)
        else:
            FiniteModel(form, relevance(outcomes(*_terms(trees)), problem.arrows))
    except NotFinite as reason:
        return str(reason)
    return ""


def _terms(trees: Sequence[Expression]) -> list[Expression]:
    """What stands inside the terms."""
    found: list[Expression] = []
    for tree in trees:
        found += [part for part in parts(tree) if isinstance(part, Expectation)]
    return found


def _sampled(problem: Problem, request: Request, shared: SharedPosterior, why: str) -> Estimate:
    form, options = problem.form, problem.options
    query, terms = resolve(request.tree, problem.arrows, program_arguments(form.model))
    asked = [outcome.site for outcome in outcomes(request.tree)]
    scope = read_scope(form, problem.arrows, asked, options.over, options.units, options.parameters)

    found, doubtful = sampled_answer(
        query,
        terms,
        form,
        problem.arrows,
        scope,
        request.text,
        shared,
        options.num_samples,
        why,
    )
    read = Asked(request.tree, terms, problem.arrows, scope)
    return resting_on(found, doubtful, read, form, problem.verb)
