"""Evidence in counterfactual worlds: draws of the factual world weighed by what is known of the others.

Given the noise, a discrete value or a range in another world holds or does not: weight one or zero, so the draws that
remain are exact draws of the posterior. A point on a continuous site fixes that site's noise, given its parents there: the
site is *anchored* in that world, weighs by its density, and its factual value follows from its noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import EvidenceError, MethodError, UnknownSiteError, closest_name, site_list
from ..interventions import Interventions, Stochastic, match
from ..progress import Progress
from ..structural.evaluation import Evaluation
from ..structural.evidence import Known, fit_evidence, read_evidence
from ..structural.form import ROW, StructuralForm
from ..structural.question import FACTUAL, source
from ..structural.sites import elements
from .choice import choose_and_sample
from .importance import ImportanceSampling
from .joint_worlds import JointWorlds
from .posterior_draws import Method, PosteriorDraws, refuse_subsampling

__all__ = ["WorldEvidence"]

_PROPOSALS = 10_000
#: Mechanisms whose noise refers to the world that it was abducted in.
_RELATIVE = ("antitone", "independent")


@dataclass(frozen=True)
class WorldEvidence:
    """Evidence of the factual world, and of the others by world and site."""

    factual: Any
    worlds: Mapping[str, Mapping[str, Any]]
    named: Mapping[str, Interventions]

    @classmethod
    def split(cls, evidence: Any, named: Mapping[str, Interventions]) -> WorldEvidence:
        """``"world/site"`` is evidence in a world where a declared world bears the name."""
        elsewhere: dict[str, dict[str, Any]] = {}
        if not named:
            return cls(evidence, elsewhere, named)
        factual = {}
        for key, value in read_evidence(evidence).items():
            world, slash, site = key.partition("/")
            if slash and world in named:
                elsewhere.setdefault(world, {})[site] = value
            else:
                factual[key] = value
        return cls(factual, elsewhere, named)

    def sample(
        self, form: StructuralForm, method: Method | None, num_samples: int, progress: Progress
    ) -> tuple[PosteriorDraws, Evaluation]:
        """Draws of noise and factual values given the evidence of all worlds.

        Raises:
            EvidenceError: evidence that does not fit, or a point on one continuous site in two worlds.
            ImpossibleEvidenceError: no draw agrees with the evidence.
            InferenceError: the weights collapsed.
            MethodError: a point on a continuous site in another world, and a method other than importance sampling.
        """
        reached = self._reached()
        known = self._read(form)
        anchors = _anchors(form, known)
        count = max(_PROPOSALS, 10 * num_samples)
        start: Mapping[str, Any]
        if anchors:
            if method is not None and not isinstance(method, ImportanceSampling):
                raise MethodError(
                    f"a point on the continuous site {next(iter(anchors))!r} in another world is weighed by "
                    f"cp.ImportanceSampling(), not by {type(method).__name__}; leave method out, or give a cp.Interval"
                )
            refuse_subsampling(form, "ImportanceSampling")
            draws = PosteriorDraws(
                {}, count, "ImportanceSampling", f"{site_list(anchors)} anchored in other worlds"
            )
            start = form.prior_noise(count)
        else:
            draws = (
                choose_and_sample(form, count, progress)
                if method is None
                else method.sample(form, count, progress)
            )
            start = {n: v for n, v in draws.latents.items() if n != ROW}
        joint = JointWorlds(form, known, anchors, draws, {w: self.named[w] for w in reached})
        return joint.sample(start, num_samples)

    def _read(self, form: StructuralForm) -> dict[str, dict[str, Known]]:
        found: dict[str, dict[str, Known]] = {}
        for world, given in self.worlds.items():
            for name, value in given.items():
                if f"{world}/{name}" in form.sites:
                    raise EvidenceError(
                        f"evidence: {world + '/' + name!r} is a site of the program, and also {name!r} in the world {world!r}; choose "
                        "another name for the world"
                    )
                if name not in form.sites:
                    near = closest_name(name, form.sites)
                    raise UnknownSiteError(
                        f"evidence: {world + '/' + name!r} names no site of the world {world!r}"
                        + (f"; did you mean {world + '/' + near!r}?" if near else "")
                        + f" The program's sites: {site_list(form.sites)}"
                    )
                if match(self.named[world], name) is not None:
                    raise EvidenceError(
                        f"evidence: site {name!r} of world {world!r} is set by that world's own intervention; leave out "
                        f"{world + '/' + name!r}"
                    )
                site = form.sites[name]
                if site.kind == "factor":
                    raise EvidenceError(
                        f"evidence: {world + '/' + name!r} is a factor, which weighs the draws of the factual world; leave it out"
                    )
                free = site.kind == "deterministic"
                fact = fit_evidence(name, value, site.fn, site.value, free)
                if not fact.nothing:
                    found.setdefault(world, {})[name] = fact
        return found

    def _reached(self) -> list[str]:
        """The worlds in which something is known, and those that they take values from.

        Raises:
            EvidenceError: one of them has noise of its own, which belongs to a question: later ones draw theirs afresh.
        """
        reached = list(self.worlds)
        for world in reached:
            for key, intervention in self.named[world].items():
                if isinstance(intervention, Stochastic):
                    raise EvidenceError(
                        f"evidence: world {world!r} draws the site {key!r} from a distribution of its own, whose draws are not kept for "
                        "later questions, so nothing can be known there; give a value, or make the draw a site of the program that "
                        "a cp.policy reads"
                    )
                other = source(intervention)
                if other is not None and other in self.named and other not in reached:
                    reached.append(other)
        return [world for world in self.named if world in reached]


def _anchors(
    form: StructuralForm, known: Mapping[str, Mapping[str, Known]]
) -> dict[str, tuple[str, ...]]:
    """Continuous sites with entries known as points in other worlds, and these worlds."""
    anchors: dict[str, tuple[str, ...]] = {}
    taken: dict[str, list[tuple[str, Tensor]]] = {}
    for world, facts in known.items():
        for name, fact in facts.items():
            site, shown = form.sites[name], f"{world}/{name}"
            if fact.interval is not None and fact.missing is None:
                continue
            if site.discrete and site.kind == "sample":
                continue
            if site.function:
                if form.continuous_ancestor(name, observed=True) is not None:
                    raise EvidenceError(
                        f"evidence: {shown!r} is a deterministic function of continuous sites, so a single value may have probability "
                        "zero; give a range, cp.Interval(low, high)"
                    )
                continue
            if site.mechanism is None:
                raise EvidenceError(
                    f"evidence: {shown!r}: the site has no structural assignment: {site.why_none}"
                )
            if site.mechanism.name in _RELATIVE:
                raise EvidenceError(
                    f"evidence: {shown!r} is a point of a site whose mechanism, {site.mechanism.name!r}, couples worlds relative to "
                    "what happened in fact; give a range, cp.Interval(low, high)"
                )
            if fact.missing is not None and elements(site.fn) is None:
                raise EvidenceError(
                    f"evidence: {shown!r} is known in a part, and its entries depend on each other; give all of its entries, or ranges, "
                    "cp.Interval"
                )
            points = _points(site.value, fact.missing)
            if name not in taken:
                taken[name] = [(FACTUAL, _points(site.value, site.missing))] * site.observed
            for other, theirs in taken[name]:
                if bool((points & theirs).any()):
                    raise EvidenceError(
                        f"evidence: the continuous site {name!r} is given as a point in the worlds {other!r} and {world!r}; one fixes "
                        "its noise and the other then has probability zero. Give one of them as a range, cp.Interval(low, high)"
                    )
            taken[name].append((world, points))
            anchors[name] = (*anchors.get(name, ()), world)
    return anchors


def _points(like: Tensor, missing: Tensor | None) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool) if missing is None else ~missing
