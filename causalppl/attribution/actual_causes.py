"""Actual causes: which of the things that happened made the outcome happen, by the modified Halpern-Pearl definition."""

from __future__ import annotations

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from ..counterfactual import Posterior, abduct
from ..errors import EvidenceError, QueryError
from ..inference import Method
from ..interventions import program_arguments, unknown_site
from ..notation.terms import Outcome
from ..query.draws import Unobserved, posterior_of
from ..query.finite import FiniteModel, NotFinite
from ..query.relevance import ancestors, arrows_of, relevance
from ..structural import Interval
from ..structural.form import StructuralForm
from ..structural.noise import fresh_seed, keyed_seed
from ..typing import Program, Values
from .contingencies import Contingency, Setting, search

__all__ = ["Cause", "actual_causes"]

#: Distinct values up to which a site without a support of its own is tried in full.
MOST_VALUES = 16
#: Interventions evaluated at a time.
WORLDS = 2_048


@dataclass(frozen=True)
class Cause:
    """An actual cause.

    Attributes:
        sites: its sites; several of them are a cause only together, and each is a part of it.
        witness: the sites that are held at their actual values while the cause is changed; empty where nothing needs to be.
        alternative: values of the cause's sites under which the outcome does not happen then.
        responsibility: its degree, 1 / (sites changed + sites held) at the least. Over several contexts the mean, which counts 0
            where it is no cause: the degree of blame.
        interval: 95% interval of the responsibility: of Monte Carlo error over contexts, a point where there is one context.
        probability: of its being a cause at all.
        exact: whether the context was known and every alternative was tried.
    """

    sites: frozenset[str]
    witness: Mapping[str, float]
    alternative: Mapping[str, float]
    responsibility: float
    interval: tuple[float, float]
    probability: float
    exact: bool

    def __repr__(self) -> str:
        named = ", ".join(sorted(self.sites))
        held = f", while {_assigned(self.witness)}" if self.witness else ""
        sure = "" if self.exact else f", probability {self.probability:.3g}"
        return f"Cause({named}: responsibility {self.responsibility:.3g}{held}{sure})"


def actual_causes(
    model: Program,
    evidence: Values | None = None,
    outcome: Mapping[str, Any] | None = None,
    *,
    candidates: Iterable[str] | None = None,
    largest: int | None = None,
    method: Method | None = None,
    num_samples: int = 100,
    seed: int | None = None,
) -> Callable[..., list[Cause]]:
    r"""The actual causes of an outcome, by the modified Halpern-Pearl definition.

    A set X of sites is a cause of the outcome :math:`\varphi` in a context if

    - AC1: X had its values and :math:`\varphi` happened;
    - AC2: there are values x' and a set W, **held at its actual values**, with
      :math:`[X \leftarrow x', W \leftarrow w^*] \neg\varphi`;
    - AC3: no strict subset of X satisfies AC1 and AC2.

    The context is the noise of all sites. Evidence on every root site fixes it where everything else is deterministic: then the
    answer is by enumeration. Where noise is left (a random site that is no root, a root that was not seen), contexts are drawn from its
    posterior, searched one by one, and averaged. Of a site with many values some are tried, so causes may be missed, never made up.

    Args:
        model: a Pyro program.
        evidence: site to what happened, best for every root site; ``obs=`` sites are evidence already.
        outcome: site to the value that happened, or to a :class:`causalppl.Interval`; several sites happen together.
        candidates: sites that may be causes or be held; by default the root and deterministic sites that the outcome depends on.
        largest: the most sites of a cause that is looked for; all sizes by default.
        method: an inference method, where something is latent.
        num_samples: contexts, where noise is left.
        seed: an integer; ``None`` takes one from torch's generator.

    Returns:
        a callable that takes the program's own arguments and returns a list of :class:`Cause`, by responsibility, then size, then the order
        of the program.

    Raises:
        UnknownSiteError: a name is no site.
        EvidenceError: the outcome did not happen.
        QueryError: nothing to explain, or a candidate that is no scalar.

    References:
        J. Y. Halpern (2015), A Modification of the Halpern-Pearl Definition of Causality.
        J. Y. Halpern (2016), Actual Causality, chapters 2 and 6.
        H. Chockler, J. Y. Halpern (2004), Responsibility and Blame: A Structural-Model Approach.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def rocks():
        ...     suzy = pyro.sample("suzy", dist.Bernoulli(0.5))
        ...     billy = pyro.sample("billy", dist.Bernoulli(0.5))
        ...     suzy_hits = pyro.deterministic("suzy_hits", suzy)
        ...     billy_hits = pyro.deterministic("billy_hits", billy * (1 - suzy_hits))
        ...     pyro.deterministic("shatters", 1 - (1 - suzy_hits) * (1 - billy_hits))
        >>> causes = cp.attribution.actual_causes(rocks, evidence={"suzy": 1.0, "billy": 1.0}, outcome={"shatters": 1.0})()
        >>> [(sorted(cause.sites), dict(cause.witness)) for cause in causes]
        [(['suzy'], {'billy_hits': 0.0}), (['suzy_hits'], {'billy_hits': 0.0})]
    """
    if not isinstance(outcome, Mapping) or not outcome:
        raise QueryError(
            "actual_causes: give what happened as a mapping from sites to values, as in outcome={'y': 1.0}"
        )
    if isinstance(candidates, str):
        raise QueryError(f"actual_causes: give candidates as a list, as in [{candidates!r}]")
    named = None if candidates is None else list(candidates)
    if largest is not None and (not isinstance(largest, int) or largest < 1):
        raise QueryError(f"actual_causes: largest={largest!r}; give a positive integer, or None")
    happened = dict(outcome)

    def run(*args: Any, **kwargs: Any) -> list[Cause]:
        form = StructuralForm(model, args, kwargs, evidence, fresh_seed(seed))
        case = _Case(form, happened, named)
        posterior = case.posterior(method, num_samples)
        found: list[dict[frozenset[str], Contingency]] = []
        for context, count in _contexts(posterior, case.settled):
            causes = case.causes(context, largest)
            if causes is not None:
                found += [{cause.sites: cause for cause in causes}] * count
        if not found:
            raise EvidenceError(
                f"actual_causes: the outcome {case.described} did not happen in any of {posterior.num_samples} contexts, so there is "
                "nothing to explain; check it against the evidence"
            )
        exact = case.determined and not case.incomplete
        return _averaged(found, exact, list(case.candidates))

    return run


class _Case:
    """A program in which something happened, and the sites that may have caused it."""

    def __init__(
        self, form: StructuralForm, outcome: Mapping[str, Any], candidates: list[str] | None
    ) -> None:
        self.form, self.outcome = form, outcome
        self.arrows = arrows_of(form)
        arguments = program_arguments(form.model)
        for role, names in (("outcome", outcome), ("candidates", candidates or ())):
            for name in names:
                if name not in self.arrows:
                    raise unknown_site(
                        f"actual_causes: {role}", str(name), list(self.arrows), arguments
                    )
        above = set().union(*(ancestors(name, self.arrows) for name in outcome)) - set(outcome)
        if candidates is None:
            candidates = [n for n in self.arrows if n in above and self._endogenous(n)]
        self.candidates = tuple(n for n in candidates if n in above)
        if not self.candidates:
            raise QueryError(
                f"actual_causes: {self.described} depends on no candidate; candidates are root and deterministic sites unless you name "
                "others, candidates=[...]"
            )
        for name in (*self.candidates, *outcome):
            site = form.sites.get(name)
            if site is not None and site.value.numel() != 1:
                raise QueryError(
                    f"actual_causes: site {name!r} has shape {tuple(site.value.shape)}; causes and outcomes are single numbers, so give "
                    "each of its entries a site of its own"
                )
        below = {
            c: {d for d in self.candidates if c in ancestors(d, self.arrows)} for c in candidates
        }
        self.below = {c: frozenset(d) for c, d in below.items()}
        self.incomplete: set[str] = set()

    def _endogenous(self, name: str) -> bool:
        site = self.form.sites.get(name)
        function = site is not None and site.function
        return function or not tuple(self.arrows[name])

    @property
    def described(self) -> str:
        """The outcome in words."""
        return ", ".join(f"{name} = {value}" for name, value in self.outcome.items())

    @cached_property
    def settled(self) -> bool:
        """Whether the values of the latent sites fix all noise that the outcome of an intervention depends on."""
        sites = self.form.sites
        if any(n not in sites for n in self.arrows):
            return False
        moved = {n for n in sites if set(self.candidates) & ancestors(n, self.arrows)}
        return all(
            sites[n].function
            or sites[n].kind != "sample"
            or (sites[n].mechanism is not None and sites[n].mechanism.invertible)  # type: ignore[union-attr]
            for n in moved
        )

    @property
    def determined(self) -> bool:
        """Whether the evidence fixes all noise: then there is one context."""
        return self.settled and not self.form.latent

    def posterior(self, method: Method | None, num_samples: int) -> Posterior:
        """Contexts in which the outcome happened, as far as evidence can say so."""
        form = self.form
        evidence = dict(form.evidence)
        for name, value in self.outcome.items():
            site = form.sites.get(name)
            free = site is not None and not site.observed and name not in evidence
            if form.latent and free and self._discrete(name):
                evidence[name] = value
        count = 1 if self.determined else num_samples
        ask = abduct(form.model, evidence, method=method, num_samples=count, seed=form.seed)
        return ask(*form.args, **form.kwargs)

    def _discrete(self, name: str) -> bool:
        names = {name} | ancestors(name, self.arrows)
        found = [self.form.sites[n] for n in names if n in self.form.sites]
        return all(s.discrete or s.function for s in found if s.kind == "sample")

    # --- One context --------------------------------------------------------------------------------------------------

    def causes(self, context: Posterior, largest: int | None) -> list[Contingency] | None:
        """The causes in one context; ``None`` where the outcome did not happen in it."""
        facts = context.predict(sites=[*self.candidates, *self.outcome])
        if not self._holds(lambda name: facts.tensor(name, world="factual")):
            return None
        actual = {n: float(facts.tensor(n, world="factual")) for n in self.candidates}

        def happens(settings: Sequence[Setting]) -> list[bool]:
            answers: list[bool] = []
            for start in range(0, len(settings), WORLDS):
                part = settings[start : start + WORLDS]
                worlds = context.predict(
                    worlds={str(i): dict(s) for i, s in enumerate(part)}, sites=[*self.outcome]
                )
                for i in range(len(part)):
                    answers.append(self._holds(lambda n, w=str(i): worlds.tensor(n, world=w)))  # type: ignore[misc]  # noqa: B023
            return answers

        others = {n: [v for v in self.alternatives[n] if v != actual[n]] for n in self.candidates}
        most = largest or len(self.candidates)
        return search(happens, actual, self.candidates, others, self.below, most)

    def _holds(self, value: Callable[[str], torch.Tensor]) -> bool:
        for name, wanted in self.outcome.items():
            found = value(name).double()
            if isinstance(wanted, Interval):
                inside = (wanted.low <= found) & (found <= wanted.high)
            else:
                inside = found == torch.as_tensor(wanted).to(value(name)).double()
            if not bool(inside.all()):
                return False
        return True

    @cached_property
    def alternatives(self) -> dict[str, list[float]]:
        """Every value that a candidate can have, or some of them where these are many."""
        known: dict[str, list[float]] = {}
        for name in self.candidates:
            values = self._support(name)
            if values is None:
                drawn = self._drawn[name]
                values = sorted(set(drawn.tolist()))
                self.incomplete.add(name)
                if len(values) > MOST_VALUES:
                    levels = (torch.arange(MOST_VALUES) + 0.5) / MOST_VALUES
                    values = torch.quantile(drawn, levels.to(drawn)).tolist()
            known[name] = values
        return known

    def _support(self, name: str) -> list[float] | None:
        site = self.form.sites.get(name)
        if site is not None and getattr(site.fn, "has_enumerate_support", False):
            found = site.fn.enumerate_support(expand=False).reshape(-1)
            return found.tolist() if len(found) <= MOST_VALUES else None  # type: ignore[no-any-return]
        needed = None
        if not self.form.dependencies.hidden:
            needed = relevance([Outcome(name)], self.arrows)
        try:
            model = FiniteModel(self.form, needed)
            return None if model.branching else list(model.values_of(name))
        except NotFinite:
            return None

    @cached_property
    def _drawn(self) -> dict[str, torch.Tensor]:
        form = self.form
        drawn = posterior_of(Unobserved()(form.model), form, {}, None, 2_000)
        worlds = drawn.predict(sites=list(self.candidates))
        return {n: worlds.tensor(n, world="factual").reshape(-1).double() for n in self.candidates}


def _contexts(posterior: Posterior, settled: bool) -> Iterator[tuple[Posterior, int]]:
    """The posterior's draws one by one, each with noise of its own; equal ones once with their number, if nothing else is random."""
    form, draws = posterior._form, posterior._draws
    if draws.num_samples == 1:
        yield posterior, 1
        return
    same: Counter[object] = Counter()
    first: dict[object, int] = {}
    for i in range(draws.num_samples):
        key: object = i
        if settled:
            key = tuple((n, v[i].numpy().tobytes()) for n, v in posterior.latents.items())
        same[key] += 1
        first.setdefault(key, i)
    for key, i in first.items():
        part = copy.copy(form)
        part.seed = keyed_seed(form.seed, "context", i)
        latents = {n: v[i : i + 1] for n, v in draws.latents.items()}
        yield Posterior(part, replace(draws, latents=latents, num_samples=1)), same[key]


def _averaged(
    found: Sequence[Mapping[frozenset[str], Contingency]], exact: bool, order: Sequence[str]
) -> list[Cause]:
    """Causes over contexts: mean responsibility with its error, and the witness that most contexts have."""
    count = len(found)
    each: dict[frozenset[str], list[Contingency]] = defaultdict(list)
    for context in found:
        for sites, contingency in context.items():
            each[sites].append(contingency)
    causes = []
    for sites, seen in each.items():
        degrees = [c.responsibility for c in seen] + [0.0] * (count - len(seen))
        mean = math.fsum(degrees) / count
        half = 0.0
        if count > 1:
            variance = math.fsum((d - mean) ** 2 for d in degrees) / (count - 1)
            half = 1.959963984540054 * math.sqrt(variance / count)
        common = Counter(_assigned(c.witness) + _assigned(c.alternative) for c in seen)
        wanted = common.most_common(1)[0][0]
        shown = next(c for c in seen if _assigned(c.witness) + _assigned(c.alternative) == wanted)
        interval = (max(0.0, mean - half), min(1.0, mean + half))
        causes.append(
            Cause(
                sites,
                shown.witness,
                shown.alternative,
                mean,
                interval,
                len(seen) / count,
                exact,
            )
        )
    place = {name: i for i, name in enumerate(order)}
    causes.sort(
        key=lambda c: (-c.responsibility, len(c.sites), sorted(place[name] for name in c.sites))
    )
    return causes


def _assigned(setting: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in sorted(setting.items()))
