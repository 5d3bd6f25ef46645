"""Queries of any program: abduction and prediction, with conditions that select draws and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .. import interventions
from ..counterfactual import Posterior
from ..errors import (
    ImpossibleEvidenceError,
    IncompatibleMechanismError,
    InferenceError,
    NoMechanismError,
    QueryError,
)
from ..inference import Method
from ..notation.arithmetic import check_finite, compute, holds
from ..notation.parser import to_text
from ..notation.resolution import Arrows, Resolved, outcomes
from ..notation.terms import (
    Arithmetic,
    Comparison,
    Expectation,
    Expression,
    Number,
    Outcome,
    Probability,
    Setting,
    Term,
)
from ..structural import Interval
from ..structural.form import StructuralForm
from .doubts import Seen, doubtful_couplings
from .draws import Unobserved, chunks, new_units, posterior_of
from .estimate import Estimate, QueryDiagnostics
from .layout import Layout
from .relevance import ancestors
from .scope import Scope
from .summary import Sums, summarise

__all__ = ["sampled_answer"]

#: Sites whose default coupling an answer depends on, with this coupling and the family's others.
Doubtful: TypeAlias = dict[str, tuple[str, Sequence[str]]]


def sampled_answer(
    query: Expression,
    terms: Mapping[Term, Resolved],
    form: StructuralForm,
    arrows: Arrows,
    scope: Scope,
    text: str,
    method: Method | None,
    num_samples: int,
    why: str,
) -> tuple[Estimate, Doubtful]:
    """The answer, and the discrete sites whose default coupling it depends on.

    Raises:
        QueryError: a condition that cannot be sampled.
        ImpossibleEvidenceError: no draw fits a condition that has to be met exactly.
        InferenceError: a condition selects no draw.
    """
    paired = _paired(query, terms)

    def draw(query: Expression, terms: Mapping[Term, Resolved]) -> tuple[Estimate, Doubtful]:
        sampler = _Sampler(form, arrows, scope, method, num_samples)
        return _drawn(sampler, query, terms, text, why)

    if paired is not None:
        with suppress(NoMechanismError, IncompatibleMechanismError):
            return draw(*paired)  # worlds that share no noise can still be drawn one by one
    return draw(query, terms)


def _paired(
    query: Expression, terms: Mapping[Term, Resolved]
) -> tuple[Expression, dict[Term, Resolved]] | None:
    """A difference of two expectations as the expectation of a difference, its worlds side by side in the same draws."""
    if not (isinstance(query, Arithmetic) and query.operator == "-"):
        return None
    left, right = query.left, query.right
    if not (isinstance(left, Expectation) and isinstance(right, Expectation)):
        return None
    one, other = terms[left], terms[right]
    if one.term.given != other.term.given:
        return None
    assert isinstance(one.term, Expectation) and isinstance(other.term, Expectation)
    expression = Arithmetic("-", one.term.expression, other.term.expression)
    term = Expectation(expression, one.term.given)
    rung = max(one.rung, other.rung)
    return term, {term: Resolved(term, f"{one.text} - {other.text}", rung, None)}


def _drawn(
    sampler: _Sampler,
    query: Expression,
    terms: Mapping[Term, Resolved],
    text: str,
    why: str,
) -> tuple[Estimate, Doubtful]:
    form, scope, arrows = sampler.form, sampler.scope, sampler.arrows
    sums = {term: sampler.term(resolved) for term, resolved in terms.items()}
    value, interval, error, draws = summarise(query, sums)
    for term, own in sums.items():
        check_finite(own.ratio(tuple(range(own.weight.dim()))), term, terms[term].text)
    check_finite(value, query, text)
    coupled = [sampler.coupled(resolved) for resolved in terms.values()]
    names = {n: getattr(form.sites[n].mechanism, "name", "?") for found in coupled for n in found}
    doubtful: Doubtful = {}
    for resolved, found in zip(terms.values(), coupled, strict=True):
        if found:
            doubtful |= doubtful_couplings(sampler.seen[resolved.text], found, arrows)
    diagnostics = QueryDiagnostics(
        ", ".join(dict.fromkeys(sampler.methods)),
        "; ".join(dict.fromkeys([f"sampled: {why}", *sampler.reasons])),
        names,
        (*scope.notes(terms.values()), *dict.fromkeys(sampler.remarks)),
    )
    certain = all(s.certain for s in sums.values())
    rung = max((r.rung for r in terms.values()), default=1)
    return Estimate(value, interval, error, draws, rung, certain, diagnostics, text), doubtful


class _Sampler:
    """Runs what the terms of one query need, each run once."""

    def __init__(
        self,
        form: StructuralForm,
        arrows: Arrows,
        scope: Scope,
        method: Method | None,
        num_samples: int,
    ) -> None:
        self.form, self.arrows, self.scope = form, arrows, scope
        self.method, self.num_samples = method, num_samples
        self.methods: list[str] = []
        self.reasons: list[str] = []
        self.remarks: list[str] = []
        self.seen: dict[str, Seen] = {}
        self._posteriors: dict[object, Posterior] = {}
        self._new: tuple[Posterior, int] | None = None

    # --- One term -----------------------------------------------------------------------------------------------------

    def term(self, resolved: Resolved) -> Sums:
        """Weights and weighted values of a term, row by row."""
        if self.scope.units is None and not self.scope.parameters:
            return self._runs(resolved)
        term, observed = resolved.term, self.scope.observed(resolved)
        for comparison in term.given:
            site = _equality(comparison)
            if site is not None and self._has_density(site[0].site):
                raise QueryError(
                    f"query: the condition {to_text(comparison)!r} has probability zero in every unit, because {site[0].site!r} is "
                    "continuous; ask for a range, as in "
                    f"{site[0].site} > {site[1] - 0.1:g}, {site[0].site} < {site[1] + 0.1:g}"
                )
        if observed:
            posterior, each = self._posterior(self.form.model, self.form.evidence, self.method), 1
        else:
            posterior, each = self._new_units()
        weight, total = self._tally(posterior, resolved, term.given, None)
        if self.scope.parameters:
            count = posterior.num_samples // each
            parts = 2 if each > 1 else 1
            shape = (count, parts, each // parts)
            weight = weight.reshape(shape).sum(2)
            total = total.reshape(*shape, *total.shape[1:]).sum(2)
        return self._sums(posterior, resolved, weight, total, bool(self.scope.parameters))

    def _runs(self, resolved: Resolved) -> Sums:
        """Without plates and parameters a run is a unit, and equalities are evidence."""
        term, observed = resolved.term, self.scope.observed(resolved)
        single = not observed and resolved.world is not None
        evidence: dict[str, Any] = dict(self.form.evidence) if observed else {}
        rest = []
        for comparison in term.given:
            found = _equality(comparison)
            named = found is not None and (single or not found[0].settings)
            if found is not None and named and not self._selects(found[0].site):
                site, value = found[0].site, found[1]
                if not _agrees(evidence.get(site, value), value):
                    raise ImpossibleEvidenceError(
                        f"query: the condition {to_text(comparison)!r} of {resolved.text!r} contradicts the evidence on {site!r}"
                    )
                evidence[site] = value
            elif found is not None and self._has_density(found[0].site):
                raise QueryError(
                    f"query: the condition {to_text(comparison)!r} on a continuous site of another world has probability "
                    "zero; ask for a range"
                )
            else:
                rest.append(comparison)
        model = self.form.model if observed else Unobserved()(self.form.model)
        world: tuple[Setting, ...] | None = None
        if single:
            world = resolved.world
            done = {s.site: s.value for s in world or ()}
            model = interventions.do(model, done) if done else model
        method = self.method if evidence or observed else None
        key = (observed, world)
        posterior = self._posterior(model, evidence, method, key)
        weight, total = self._tally(posterior, resolved, tuple(rest), world)
        return self._sums(posterior, resolved, weight, total, False)

    def _sums(
        self,
        posterior: Posterior,
        resolved: Resolved,
        weight: Tensor,
        total: Tensor,
        parameters: bool,
    ) -> Sums:
        if not bool((weight > 0).any()):
            raise InferenceError(
                f"query: the condition of {resolved.text!r} selects none of {posterior.num_samples} draws; raise num_samples, "
                "or give what is known as evidence="
            )
        draws = posterior._draws
        ess = draws.ess
        least = float(torch.as_tensor(ess).min()) if ess is not None else float("inf")
        rows = posterior.num_samples
        return Sums(
            weight,
            total,
            # noise is keyed by seed, row and site: what nothing is conditioned on shares it row by row, whatever world it is of
            run=id(posterior) if posterior._form.evident or posterior._form.evidence else 0,
            efficiency=min(1.0, least / rows) if rows > 1 else 1.0,
            parameters=parameters,
            probability=isinstance(resolved.term, Probability),
            certain=rows == 1 and draws.method == "Exact",
        )

    # --- Draws --------------------------------------------------------------------------------------------------------

    def _posterior(
        self, model: Any, evidence: Mapping[str, Any], method: Method | None, key: object = None
    ) -> Posterior:
        name = (
            key,
            tuple((n, v if isinstance(v, int | float) else id(v)) for n, v in evidence.items()),
        )
        if name not in self._posteriors:
            found = posterior_of(model, self.form, evidence, method, self.num_samples)
            self._posteriors[name] = found
            self.methods.append(found._draws.method)
            self.reasons.append(found._draws.why)
            self.remarks += found._draws.notes
        return self._posteriors[name]

    def _new_units(self) -> tuple[Posterior, int]:
        if self._new is None:
            parameters: dict[str, Tensor] = {}
            if self.scope.parameters:
                posterior = self._posterior(self.form.model, self.form.evidence, self.method)
                parameters = {n: posterior.latents[n] for n in self.scope.parameters}
            self._new = new_units(
                self.form, self.scope, self._shared(), parameters, self.num_samples
            )
            self.methods.append("simulation")
        return self._new

    def _shared(self) -> frozenset[str]:
        """Sites that belong to no unit."""
        inside = {
            n
            for n, s in self.form.sites.items()
            if any(f.name == self.scope.units for f in s.frames)
        }
        if self.scope.units is None:
            return frozenset()
        below = {n for n in self.arrows if inside & ancestors(n, self.arrows)}
        return frozenset(self.form.sites) - inside - below

    def _continuous(self, site: str) -> bool:
        names = {site} if self._sampled(site) else ancestors(site, self.arrows)
        return any(self._sampled(n) and not self.form.sites[n].discrete for n in names)

    def _selects(self, site: str) -> bool:
        """Whether a site is a function with few values of continuous ones: draws that have a value are chosen among all."""
        known = self.form.sites.get(site)
        if known is None or self._sampled(site) or not self._continuous(site):
            return False
        value = known.value
        return not value.is_floating_point() or bool((value == value.round()).all())

    def _has_density(self, site: str) -> bool:
        return self._continuous(site) and not self._selects(site)

    def _sampled(self, site: str) -> bool:
        return site in self.form.sites and self.form.sites[site].kind == "sample"

    # --- Values -------------------------------------------------------------------------------------------------------

    def _tally(
        self,
        posterior: Posterior,
        resolved: Resolved,
        given: tuple[Comparison, ...],
        base: tuple[Setting, ...] | None,
    ) -> tuple[Tensor, Tensor]:
        """Sums over the units of each row: of weights, and of weighted values, float64.

        Args:
            base: the settings of the world that the posterior itself is of; ``None`` for the factual one.
        """
        term = resolved.term
        event = term.event if isinstance(term, Probability) else (term.expression,)
        found = outcomes(*event, *given)
        worlds: dict[str, dict[str, Any]] = {}
        names: dict[tuple[Setting, ...], str] = {(): "factual"}
        if base is None:
            for outcome in found:
                _declare(outcome.settings, names, worlds)
        self.seen[resolved.text] = Seen(posterior, worlds)
        sites = [o.site for o in found]
        keep = sites if all(n in posterior._form.sites for n in sites) else None
        weights, totals = [], []
        for part in chunks(posterior, len(worlds)):
            result = part.posterior.predict(worlds=worlds, sites=keep)
            layout = Layout(posterior._form, found)
            dims = layout.event_of(event)

            def value(outcome: Outcome, result: Any = result, layout: Layout = layout) -> Tensor:
                world = "factual" if base is not None else names[outcome.settings]
                return layout.align(outcome.site, result.tensor(outcome.site, world=world))

            weight = layout.ones(part.posterior.num_samples)
            for comparison in given:
                layout.scalar(comparison)
                weight = weight * torch.as_tensor(holds(comparison, value)).double()
            if isinstance(term, Probability):
                amount = layout.ones(part.posterior.num_samples)
                for comparison in term.event:
                    layout.scalar(comparison)
                    amount = amount * torch.as_tensor(holds(comparison, value)).double()
            else:
                amount = torch.as_tensor(compute(term.expression, value)).double()
            weight, amount = layout.summed(weight, amount, dims)
            weights.append(weight)
            totals.append(amount)
        return torch.cat(weights), torch.cat(totals)

    # --- Couplings ----------------------------------------------------------------------------------------------------

    def coupled(self, resolved: Resolved) -> tuple[str, ...]:
        """Sample sites that the answer depends on in two worlds, downstream of what differs between these."""
        observed = self.scope.observed(resolved)
        if resolved.rung < 3 and not observed:
            return ()
        term = resolved.term
        event = term.event if isinstance(term, Probability) else (term.expression,)
        found = outcomes(*event, *term.given)
        settings = {o.settings for o in found} | ({()} if observed else set())
        if len(settings) < 2:
            return ()
        set_sites = {s.site for world in settings for s in world}
        asked = {o.site for o in found}
        upstream = asked.union(*(ancestors(n, self.arrows) for n in asked))
        return tuple(
            n
            for n, s in self.form.sites.items()
            if self._sampled(n)
            and n in upstream
            and ancestors(n, self.arrows) & set_sites
            and s.mechanism
        )


def _declare(
    settings: tuple[Setting, ...],
    names: dict[tuple[Setting, ...], str],
    worlds: dict[str, dict[str, Any]],
) -> str:
    """The name of a world, after those that its settings refer to."""
    if settings not in names:
        made: dict[str, Any] = {}
        for setting in settings:
            if isinstance(setting.value, Outcome):
                inner = _declare(setting.value.settings, names, worlds)
                made[setting.site] = interventions.from_world(inner)
            else:
                made[setting.site] = setting.value
        names[settings] = f"world {len(names)}"
        worlds[names[settings]] = made
    return names[settings]


def _agrees(known: Any, value: float) -> bool:
    """Whether evidence of any form allows the value."""
    if isinstance(known, Interval):
        return bool((known.low <= value).all() and (value <= known.high).all())
    given = torch.as_tensor(known)
    return bool(((given == value) | torch.isnan(given.double())).all())


def _equality(comparison: Comparison) -> tuple[Outcome, float] | None:
    """The site and number of an equality between the two."""
    sides = (comparison.left, comparison.right)
    for left, right in (sides, sides[::-1]):
        if comparison.operator == "=" and isinstance(left, Outcome) and isinstance(right, Number):
            return left, right.value
    return None
