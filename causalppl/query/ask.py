"""``query`` and ``mechanism_sensitivity``: text and program in, estimate out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from ..errors import (
    CouplingWarning,
    MethodError,
    QueryError,
    warn_caller,
)
from ..inference import Method
from ..interventions import program_arguments, set_mechanism
from ..structural.dependencies import track
from ..structural.form import StructuralForm
from ..structural.noise import fresh_seed, isolated_rng, keyed_seed
from ..typing import Program, Values
from .couplings import Conditional, NoExactCoupling
from .estimate import Estimate
from .finite import FiniteModel, NotFinite
from .parser import parse
from .resolution import Arrows, outcomes, resolve
from .scope import read_scope
from .terms import Expression, parts

__all__ = ["Choice", "mechanism_sensitivity", "query"]

#: One mechanism for each site that is varied; ``dict(choice)`` is a mapping.
Choice: TypeAlias = tuple[tuple[str, str], ...]

#: Runs that are looked at for sites in branches.
LOOKS = 12


def query(
    text: str,
    model: Program,
    *,
    evidence: Values | None = None,
    method: Method | None = None,
    num_samples: int = 10_000,
    seed: int | None = None,
    units: str | None = None,
    parameters: Sequence[str] | None = None,
    over: Literal["sample", "population"] | None = None,
) -> Callable[..., Estimate]:
    r"""Ask a program a question in the literature's notation.

    .. math:: P(y_{x=1} = 1 \mid x = 0, y = 0) \quad\text{is}\quad \texttt{P(y[x=1] = 1 | x=0, y=0)}

    ``y[x=1]`` is a potential outcome, ``m=m[x=0]`` inside the brackets a nested one; ``do(x=1)`` after the bar puts all plain names of
    its term into that world. Terms combine by ``+ - * /``, events by commas. Programs whose sample sites are finite are summed
    exactly, in float64; others are answered by abduction and prediction, conditions selecting draws and units.

    Args:
        text: the query.
        model: a Pyro program.
        evidence: site to what was observed; ``obs=`` sites are evidence already.
        method: an inference method; given, finite programs are sampled too.
        num_samples: posterior draws, where sampling is needed.
        seed: an integer; ``None`` takes one from torch's generator.
        units: the plate whose indices are the units; by default that of the sites asked about.
        parameters: latent sites that all units share; by default those outside the plate of the units that do not come from it.
        over: ``"sample"`` for the observed units, ``"population"`` for new ones. By default terms of rung 3 speak of the former, others of
            the latter.

    Returns:
        a callable that takes the program's own arguments and returns an :class:`~causalppl.query.estimate.Estimate`.

    Raises:
        QueryError: the text cannot be read, or asks what the program cannot answer.
        UnknownSiteError: a name is no site.
        EvidenceError: a condition on a site which the same world's ``do`` sets.
        ImpossibleEvidenceError: a condition of probability zero.

    Warns:
        CouplingWarning: the answer depends on a default coupling of a categorical site.

    References:
        J. Pearl (2009), Causality, chapter 7.
        J. Pearl, M. Glymour, N. Jewell (2016), Causal Inference in Statistics: A Primer, chapter 4.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def fire():
        ...     lightning = pyro.sample("lightning", dist.Bernoulli(0.5))
        ...     match = pyro.sample("match", dist.Bernoulli(0.5))
        ...     return pyro.deterministic("fire", lightning * match)
        >>> float(cp.query("P(fire[match=0] = 0 | match=1, fire=1)", fire)())
        1.0
    """
    tree = parse(text)
    if over not in (None, "sample", "population"):
        raise QueryError(f"query: over={over!r}; give 'sample', 'population' or None")
    if not isinstance(num_samples, int) or num_samples < 1:
        raise MethodError(f"num_samples={num_samples!r}: give a positive integer")
    if isinstance(parameters, str):
        raise QueryError(f"query: give parameters as a list, as in [{parameters!r}]")
    if method is not None and (isinstance(method, type) or not hasattr(method, "sample")):
        raise MethodError(
            f"method={method!r} is no inference method; give cp.Exact(), cp.NUTS(), ... or None"
        )

    def run(*args: Any, **kwargs: Any) -> Estimate:
        form = StructuralForm(model, args, kwargs, evidence, fresh_seed(seed))
        finite, why = None, f"method={type(method).__name__} was given"
        if method is None:
            try:
                finite = FiniteModel(form)
            except NotFinite as reason:
                why = str(reason)
        if finite is not None and not all(finite.knows(*s) for s in _settings(tree, finite.nodes)):
            finite, why = None, "do sets a site to a value that it never has in the program"
        arrows = _arrows(form) if finite is None else finite.parents
        resolved, terms = resolve(tree, arrows, program_arguments(model))
        asked = [o.site for o in outcomes(tree)]
        scope = read_scope(form, arrows, asked, over, units, parameters)
        found: tuple[Estimate, dict[str, Conditional]] | None = None
        if finite is not None:
            from .exact import exact_answer  # each engine loads where it is used

            try:
                found = exact_answer(resolved, terms, finite, scope, text)
            except NotFinite as reason:
                why = str(reason)
            except NoExactCoupling as site:
                why = f"the mechanism of site {str(site)!r} has no closed form for two worlds"
        if found is not None:
            estimate, coupled = found
            _warn(
                {
                    name: (law.mechanism, law.others)
                    for name, law in coupled.items()
                    if len(law.support) > 2 and not law.chosen
                }
            )
            return estimate
        from .sampled import sampled_answer  # an engine that exact queries do not need

        estimate, doubtful = sampled_answer(
            resolved, terms, form, arrows, scope, text, method, num_samples, why
        )
        _warn(doubtful)
        return estimate

    return run


def _settings(tree: Expression, nodes: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Sites that exist, and the numbers that they are set to."""
    for part in parts(tree):
        for setting in (*getattr(part, "settings", ()), *getattr(part, "do", ())):
            if isinstance(setting.value, float) and setting.site in nodes:
                yield setting.site, setting.value


def _arrows(form: StructuralForm) -> Arrows:
    """Direct parents, of all sites that some runs show."""
    found: dict[str, frozenset[str]] = {}
    for look in range(LOOKS):
        with isolated_rng(keyed_seed(form.seed, "dependencies", look)):
            seen = track(form.model, form.args, form.kwargs)
        for name, parents in seen.parents.items():
            if seen.kinds[name] != "factor":
                found[name] = found.get(name, frozenset()) | parents
        if not seen.hidden:  # no value steers the program, so one run tells all
            break
    return {name: tuple(p for p in found if p in parents) for name, parents in found.items()}


def _warn(doubtful: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    named = [
        f"{name!r} ({used}; also {', '.join(others)})"
        for name, (used, others) in doubtful.items()
        if others
    ]
    if named:
        site = next(n for n, (_, others) in doubtful.items() if others)
        used, others = doubtful[site]
        warn_caller(
            f"query: the answer depends on how worlds are coupled at site {' and '.join(named)}, which no data can tell. "
            f"Compare the couplings with cp.mechanism_sensitivity(..., mechanisms={{{site!r}: {[used, *others]!r}}}), "
            f"bound the answer with cp.bounds, or choose one with cp.set_mechanism(model, {{{site!r}: {used!r}}})",
            CouplingWarning,
        )


def mechanism_sensitivity(
    text: str, model: Program, mechanisms: Mapping[str, Iterable[str]], **keywords: Any
) -> Callable[..., dict[Choice, Estimate]]:
    """The same query under every combination of mechanisms: how much of the answer is the coupling's.

    Args:
        text: the query.
        model: a Pyro program.
        mechanisms: site to the names of the mechanisms to try.
        keywords: as for :func:`query`; all combinations share the seed.

    Returns:
        a callable that takes the program's own arguments and returns a dict from choice, a tuple of ``(site, name)`` pairs in the order of
        ``mechanisms``, to :class:`~causalppl.query.estimate.Estimate`.

    Raises:
        UnknownSiteError: a site that the program does not have.
        NoMechanismError: the site's family has no mechanism of that name.

    References:
        M. Oberst, D. Sontag (2019), Counterfactual Off-Policy Evaluation with Gumbel-Max Structural Causal Models.

    Example:
        >>> import causalppl as cp, pyro, torch, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Bernoulli(0.5))
        ...     p = torch.where(x > 0, torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5]))
        ...     return pyro.sample("y", dist.Categorical(p))
        >>> found = cp.mechanism_sensitivity("P(y[x=1] = 0 | x=0, y=1)", model, {"y": ["inverse_cdf", "gumbel_max"]})()
        >>> {dict(choice)["y"]: round(float(estimate), 4) for choice, estimate in found.items()}
        {'inverse_cdf': 1.0, 'gumbel_max': 0.2308}
    """
    if not isinstance(mechanisms, Mapping) or not mechanisms:
        raise QueryError(
            "mechanism_sensitivity: give mechanisms as a mapping such as {'y': ['inverse_cdf', 'gumbel_max']}"
        )
    table = {s: [n] if isinstance(n, str) else list(n) for s, n in mechanisms.items()}
    for site, names in table.items():
        if not names or not all(isinstance(name, str) for name in names):
            raise QueryError(
                f"mechanism_sensitivity: {names!r} for site {site!r}; give names of mechanisms, as in ['inverse_cdf']"
            )
    parse(text)
    settings = dict(keywords)

    def run(*args: Any, **kwargs: Any) -> dict[Choice, Estimate]:
        shared = {**settings, "seed": fresh_seed(settings.get("seed"))}
        found: dict[Choice, Estimate] = {}
        for names in itertools.product(*table.values()):
            choice = dict(zip(table, names, strict=True))
            chosen = set_mechanism(model, choice)
            found[tuple(choice.items())] = query(text, chosen, **shared)(*args, **kwargs)
        return found

    return run
