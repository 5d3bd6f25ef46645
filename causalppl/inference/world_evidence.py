"""Evidence in counterfactual worlds: draws of the factual world weighed by what is known of the others.

Given the noise, a discrete value or a range in another world holds or does not: weight one or zero, so the draws that
remain are exact draws of the posterior. A point on a continuous site fixes that site's noise, given its parents there: the
site is *anchored* in that world, weighs by its density, and its factual value follows from its noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import (
    EvidenceError,
    ImpossibleEvidenceError,
    InferenceError,
    InferenceWarning,
    MethodError,
    ProgramError,
    UnknownSiteError,
    closest_name,
    site_list,
    warn_caller,
)
from ..interventions import Interventions
from ..mechanisms import exact_log_prob
from ..progress import Progress
from ..structural.evaluation import Evaluation, World, carried_values
from ..structural.evidence import Known, fit_evidence, read_evidence
from ..structural.form import ROW, StructuralForm
from ..structural.noise import draw, keyed_seed
from ..structural.question import FACTUAL, Question
from ..structural.sites import Site, split_log_prob
from ..typing import Message, Noise
from .choice import choose_and_sample
from .importance import ImportanceSampling
from .posterior_draws import Method, PosteriorDraws, Units, common_units, refuse_subsampling
from .weights import effective_sample_size, pareto_smooth, resample

__all__ = ["WorldEvidence"]

_PROPOSALS = 10_000


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
        joint = _Joint(form, known, anchors, draws, self.named)
        return joint.sample(start, num_samples)

    def _read(self, form: StructuralForm) -> dict[str, dict[str, Known]]:
        found: dict[str, dict[str, Known]] = {}
        for world, given in self.worlds.items():
            for name, value in given.items():
                if name not in form.sites:
                    near = closest_name(name, form.sites)
                    raise UnknownSiteError(
                        f"evidence: {world + '/' + name!r} names no site of the world {world!r}"
                        + (f"; did you mean {world + '/' + near!r}?" if near else "")
                        + f" The program's sites: {site_list(form.sites)}"
                    )
                if name in self.named[world]:
                    raise EvidenceError(
                        f"evidence: site {name!r} of world {world!r} is set by that world's own intervention; leave out "
                        f"{world + '/' + name!r}"
                    )
                site = form.sites[name]
                free = site.kind == "deterministic"
                fact = fit_evidence(name, value, site.fn, site.value, free)
                if not fact.nothing:
                    found.setdefault(world, {})[name] = fact
        return found


def _anchors(form: StructuralForm, known: Mapping[str, Mapping[str, Known]]) -> dict[str, str]:
    """Continuous sites whose value is known as a point in another world, and that world."""
    anchors: dict[str, str] = {}
    for world, facts in known.items():
        for name, fact in facts.items():
            site = form.sites[name]
            if fact.interval is not None or (site.discrete and site.kind == "sample"):
                continue
            if site.kind == "deterministic":
                if site.value.is_floating_point():
                    raise EvidenceError(
                        f"evidence: {world + '/' + name!r} is a deterministic site, so a single value may have probability zero; "
                        "give a range, cp.Interval(low, high)"
                    )
                continue
            other = FACTUAL if site.observed else anchors.get(name)
            if other is not None:
                raise EvidenceError(
                    f"evidence: the continuous site {name!r} is given as a point in the worlds {other!r} and {world!r}; one fixes "
                    "its noise and the other then has probability zero. Give one of them as a range, cp.Interval(low, high)"
                )
            if fact.missing is not None:
                raise EvidenceError(
                    f"evidence: {world + '/' + name!r} has NaN entries; give all of its entries, or ranges, cp.Interval"
                )
            if site.mechanism is None:
                raise EvidenceError(
                    f"evidence: {world + '/' + name!r}: the site has no structural assignment: {site.why_none}"
                )
            anchors[name] = world
    return anchors


class _Joint:
    """All worlds in which something is known, one row at a time."""

    def __init__(
        self,
        form: StructuralForm,
        known: Mapping[str, Mapping[str, Known]],
        anchors: Mapping[str, str],
        draws: PosteriorDraws,
        named: Mapping[str, Interventions],
    ) -> None:
        self.form, self.known, self.anchors, self.draws = form, known, anchors, draws
        self.rows = draws.num_samples
        self.evaluation = Evaluation(form, self.rows, draws.latents)
        self.question = Question(form, named, self.evaluation.has)
        self.order = [w for group in self.question.groups for w in group.worlds]
        self.affected = {
            w: self.evaluation.affected(frozenset(given))
            for w, given in self.question.worlds.items()
        }
        self.units = Units((), (), ())

    def sample(
        self, start: Mapping[str, Any], num_samples: int
    ) -> tuple[PosteriorDraws, Evaluation]:
        form, rows = self.form, self.rows
        bases = self.evaluation.bases()
        bases |= {
            n: draw(form.sites[n].mechanism.base(form.sites[n].fn), rows, form.seed, n, "base")  # type: ignore[union-attr]
            for n in self.anchors
            if n not in bases and not form.sites[n].mechanism.invertible  # type: ignore[union-attr]
        }
        fresh = {w: self.evaluation.fresh_noise(g) for w, g in self.question.worlds.items()}
        inputs = (self.evaluation.index, dict(start), bases, fresh)
        self._find_units(inputs)
        found = form.executor.map(self._row, rows, *inputs, kind="world evidence")
        if isinstance(found, list):
            values, noise = [f[0] for f in found], [f[1] for f in found]
            weights = torch.stack([f[2] for f in found])
        else:
            values, noise, weights = found
        smooth, k_hat = self._judged(weights)
        ess = effective_sample_size(smooth)
        random = rows > 1
        kept = num_samples if random else 1
        generator = torch.Generator(smooth.device).manual_seed(keyed_seed(form.seed, "worlds"))
        index = resample(smooth, kept, generator)
        values, noise = self._chosen(values, index), self._chosen(noise, index)
        latents = (
            {} if isinstance(values, list) else {n: values[n] for n in form.latent if n in values}
        )
        scalar = not self.units.dims
        draws = replace(
            self.draws,
            latents=latents,
            num_samples=kept,
            why=f"{self.draws.why}; weighed by the evidence in {site_list(self.known)}",
            ess=float(ess) if scalar else ess,
            pareto_k=float(k_hat) if scalar else k_hat,
            unit_names=self.units.names,
        )
        return draws, Evaluation.of(form, kept, values, noise, latents)

    def _judged(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.where(torch.isnan(weights), -torch.inf, weights)
        if bool((weights.amax(0) == -torch.inf).any()):
            raise ImpossibleEvidenceError(
                f"evidence: none of {self.rows} draws agrees with what is known of the worlds {site_list(self.known)}; it is "
                "impossible, or too rare to be met by chance: widen an interval, or leave a part out"
            )
        smooth, k_hat = pareto_smooth(weights)
        least = float(effective_sample_size(smooth).min())
        if self.rows > 1 and least < 3:
            raise InferenceError(
                f"evidence in other worlds: the weights collapsed to {least:.1f} effective draws of {self.rows}; ask for more "
                "samples, widen an interval, or leave a part of the evidence out"
            )
        if self.rows > 1 and (least < 50 or bool((k_hat > 0.7).any())):
            warn_caller(
                f"evidence in other worlds leaves {least:.0f} effective draws (k-hat {float(k_hat.max()):.2f}); ask for more samples",
                InferenceWarning,
            )
        return smooth, k_hat

    # --- One row --------------------------------------------------------------------------------------------------

    def _row(
        self,
        index: Tensor,
        start: dict[str, Any],
        bases: dict[str, Noise],
        fresh: dict[str, dict[str, Noise]],
    ) -> tuple[dict[str, Tensor], dict[str, Noise], Tensor]:
        """Factual values, noise, and log weight. Each pass settles one more anchored site, in the order of the program."""
        noise: dict[str, Noise] = dict(start) if self.anchors else {}
        for _ in range(len(self.anchors) + 1):
            weigh = _Weight(self.units)
            facts = self.form.run(self._factual(start, noise, bases, weigh))
            values = {FACTUAL: facts}
            for world in self.order:
                given = self.question.worlds[world]
                carried = carried_values(given, values)
                rules = World(
                    self.evaluation,
                    given,
                    self.affected[world],
                    index,
                    facts,
                    noise,
                    fresh[world],
                    carried,
                )
                rule = self._other(world, rules.rule_for(), noise, bases, weigh)
                values[world] = self.form.run(rule)
        return facts, noise, weigh.total

    def _factual(
        self,
        start: Mapping[str, Any],
        noise: dict[str, Noise],
        bases: Mapping[str, Noise],
        weigh: _Weight,
    ) -> Callable[[Message], Tensor]:
        form = self.form

        def rule(msg: Message) -> Tensor:
            name, site = msg["name"], form.sites.get(msg["name"])
            if site is None:
                raise ProgramError(
                    f"evidence in other worlds: site {name!r} exists in some runs only; give evidence for what decides it"
                )
            if site.kind != "sample" or site.mechanism is None:
                value = form.given(msg, {} if self.anchors else start)
                if self.anchors and site.kind != "deterministic":
                    weigh.add(msg, exact_log_prob(msg["fn"], value))
                return value
            if not self.anchors:
                value = form.given(msg, start)
            elif site.latent:
                drawn = site.mechanism.forward(msg["fn"], noise[name])
                if site.interval is not None:
                    weigh.compare(msg, site, drawn, Known(drawn, None, site.interval))
                if site.missing is None:
                    return drawn
                value = torch.where(site.missing, drawn, site.value)
                weigh.add(msg, split_log_prob(msg["fn"], value, site.missing)[1])
            else:
                value = form.given(msg, {})
                weigh.add(msg, exact_log_prob(msg["fn"], value))
            noise[name] = site.mechanism.abduct(msg["fn"], value, bases.get(name))
            return value

        return rule

    def _other(
        self,
        world: str,
        own: Callable[[Message], Tensor],
        noise: dict[str, Noise],
        bases: Mapping[str, Noise],
        weigh: _Weight,
    ) -> Callable[[Message], Tensor]:
        facts = self.known.get(world, {})

        def rule(msg: Message) -> Tensor:
            name = msg["name"]
            fact, site = facts.get(name), self.form.sites.get(name)
            if fact is None or site is None:
                return own(msg)
            if self.anchors.get(name) == world:
                assert site.mechanism is not None
                weigh.add(msg, exact_log_prob(msg["fn"], fact.value))
                noise[name] = site.mechanism.abduct(msg["fn"], fact.value, bases.get(name))
                return fact.value
            value = own(msg)
            weigh.compare(msg, site, value, fact)
            return value

        return rule

    # --- Units ----------------------------------------------------------------------------------------------------

    def _find_units(self, inputs: tuple[Any, ...]) -> None:
        """Weights per unit where all that is random or known stands in a plate, and units do not influence each other's."""
        form = self.form
        sites = dict(form.latent)
        sites |= {n: form.sites[n] for facts in self.known.values() for n in facts}
        units = common_units(sites)
        if not units.dims or self.rows < 2 or form.executor.sequential_because is not None:
            return
        self.units = units
        rows = [tree_map(lambda leaf, i=i: leaf[i], inputs) for i in (0, 1)]
        weights = [self._row(*row)[2] for row in rows]
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            pick = torch.rand(units.sizes, generator=generator) < 0.5
            mixed = self._mixed(rows[0], rows[1], pick)
            expected = torch.where(pick, weights[1], weights[0])
            if not torch.allclose(
                self._row(*mixed)[2], expected, rtol=1e-4, atol=1e-4, equal_nan=True
            ):
                self.units = Units((), (), ())
                return

    def _mixed(self, first: tuple[Any, ...], second: tuple[Any, ...], pick: Tensor) -> Any:
        parts: list[Any] = [first[0]]
        for a, b in zip(first[1:3], second[1:3], strict=True):
            parts.append({n: self._mix(n, a[n], b[n], pick) for n in a})
        parts.append(
            {
                w: {n: self._mix(n, v, second[3][w][n], pick) for n, v in g.items()}
                for w, g in first[3].items()
            }
        )
        return tuple(parts)

    def _mix(self, name: str, a: Any, b: Any, pick: Tensor) -> Any:
        site = self.form.sites[name]

        def mix(x: Tensor, y: Tensor) -> Tensor:
            shape = self._where(site, x.dim())
            return x if shape is None else torch.where(pick.reshape(shape).to(x.device), y, x)

        return tree_map(mix, a, b)

    def _where(self, site: Site, dims: int) -> list[int] | None:
        """The shape that units' sizes take among a site's dims, which begin with its batch's; ``None`` outside the plates."""
        frames = {f.dim for f in site.frames if f.vectorized}
        if not frames.issuperset(self.units.dims):
            return None
        shape, batch = [1] * dims, len(site.fn.batch_shape)
        for dim, size in zip(self.units.dims, self.units.sizes, strict=True):
            shape[batch + dim] = size
        return shape

    def _chosen(self, found: Any, index: Tensor) -> Any:
        """Values or noise of the draws that were picked, for each unit on its own where weights are."""
        if isinstance(found, list):
            return [found[int(i)] for i in index]
        if not self.units.dims:
            return tree_map(lambda leaf: leaf[index.to(leaf.device)], found)
        picked = {}
        for name, tree in found.items():
            site = self.form.sites[name]

            def take(leaf: Tensor, site: Site = site) -> Tensor:
                shape = self._where(site, leaf.dim() - 1)
                if shape is None:
                    return leaf[: len(index)]
                rows = index.reshape(len(index), *shape).to(leaf.device)
                return leaf.gather(0, rows.expand(len(index), *leaf.shape[1:]))

            picked[name] = tree_map(take, tree)
        return picked


class _Weight:
    """The log weight of one row: of each unit, or of all together."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self.total: Tensor = torch.zeros(units.sizes)

    def add(self, msg: Message, log_prob: Tensor) -> None:
        """Add a site's log probabilities, of its batch shape; outside the units' plates they are the same for all units."""
        dims = {f.dim for f in msg["cond_indep_stack"] if f.vectorized}
        if self.units.dims and not dims.issuperset(self.units.dims):
            return
        rest = [d for d in range(-log_prob.dim(), 0) if d not in self.units.dims]
        self.total = self.total + (log_prob.sum(rest) if rest else log_prob)

    def compare(self, msg: Message, site: Site, value: Tensor, fact: Known) -> None:
        """Add minus infinity where a value is not what is known."""
        if fact.interval is not None:
            holds = (value >= fact.interval[0]) & (value <= fact.interval[1])
        else:
            holds = value == fact.value
            if fact.missing is not None:
                holds = holds | fact.missing
        log_prob = torch.where(holds, 0.0, -torch.inf)
        events = site.event_dim
        self.add(msg, log_prob.sum(list(range(-events, 0))) if events else log_prob)
