"""``query`` and ``mechanism_sensitivity``: text and program in, estimate out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from ..errors import QueryError
from ..inference import Method
from ..interventions import set_mechanism
from ..notation.parser import parse
from ..structural.form import StructuralForm
from ..structural.noise import fresh_seed
from ..typing import Program, Values
from .estimate import Estimate

__all__ = ["Choice", "mechanism_sensitivity", "query"]

#: One mechanism for each site that is varied; ``dict(choice)`` is a mapping.
Choice: TypeAlias = tuple[tuple[str, str], ...]


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
    observed: Sequence[str] | None = None,
) -> Callable[..., Estimate]:
    r"""Ask a program a question in the literature's notation.

    .. math:: P(y_{x=1} = 1 \mid x = 0, y = 0) \quad\text{is}\quad \texttt{P(y[x=1] = 1 | x=0, y=0)}

    ``y[x=1]`` is a potential outcome, ``m=m[x=0]`` inside the brackets a nested one; ``do(x=1)`` after the bar puts all plain names of
    its term into that world. Terms combine by ``+ - * /``, events by commas. Where all sites that matter are finite, the answer is
    a sum over their tables, exact in float64; a site matters if the query, the evidence that it uses, or an ancestor of these is it
    (in programs whose values Python sees, all do). Otherwise it comes by abduction and prediction, conditions selecting draws and units.

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
        observed: the sites that ``diagnostics.identification`` takes as observed; those with values by default, and all but the
            parameters where none has one. The number does not depend on it.

    Returns:
        a callable that takes the program's own arguments and returns an :class:`~causalppl.query.estimate.Estimate`.

    Raises:
        QueryError: the text cannot be read, asks what the program cannot answer, or divides by zero.
        UnknownSiteError: a name is no site.
        EvidenceError: a condition on a site which the same world's ``do`` sets.
        ImpossibleEvidenceError: a condition of probability zero.

    Warns:
        CouplingWarning: the answer depends on a default coupling of a discrete site.
        IdentificationWarning: nothing observed tells of something that the answer depends on.

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
    from .answer import Request, answer  # the engines load where they are used

    tree = parse(text)
    request = Request(text, tree, method, num_samples, units, parameters, over, observed)

    def run(*args: Any, **kwargs: Any) -> Estimate:
        return answer(request, StructuralForm(model, args, kwargs, evidence, fresh_seed(seed)))

    return run


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
