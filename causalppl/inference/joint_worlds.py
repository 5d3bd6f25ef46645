"""Draws of several worlds at once, row by row, weighed by what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import (
    ImpossibleEvidenceError,
    InferenceError,
    InferenceWarning,
    ProgramError,
    site_list,
    warn_caller,
)
from ..interventions import Interventions
from ..mechanisms import exact_log_prob
from ..structural.densities import equal_log_prob, weighed
from ..structural.evaluation import Evaluation, World, carried_values
from ..structural.evidence import Known
from ..structural.form import ROW, StructuralForm
from ..structural.noise import draw, keyed_seed
from ..structural.question import FACTUAL, Question
from ..structural.sites import Site, split_log_prob, unmasked
from ..typing import Message, Noise
from .posterior_draws import PosteriorDraws, Units, common_units
from .weights import effective_sample_size, pareto_smooth, resample

__all__ = ["JointWorlds"]

_NO_UNITS = Units((), (), ())
#: How many of the draws are evaluated again to see whether units are independent.
_RECOMBINED = 1000


class JointWorlds:
    """All worlds in which something is known, one row at a time."""

    def __init__(
        self,
        form: StructuralForm,
        known: Mapping[str, Mapping[str, Known]],
        anchors: Mapping[str, tuple[str, ...]],
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
        self.plates = self._plates()

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
        kept = num_samples if self.rows > 1 else 1
        values, noise, own, outside = self._evaluated(inputs, self.rows)
        units = self.plates
        if units.dims and not isinstance(values, list):
            smooth, k_hat, index = self._resampled(own, kept)
            if not self._recombines(inputs, own, outside, index):
                units = _NO_UNITS
        else:
            units = _NO_UNITS
        if not units.dims:
            joint = own.flatten(1).sum(1) if own.dim() > 1 else own
            smooth, k_hat, index = self._resampled(joint + outside, kept)
        ess = self._judged(smooth, k_hat)
        values, noise = self._chosen(values, index, units), self._chosen(noise, index, units)
        latents = (
            {} if isinstance(values, list) else {n: values[n] for n in form.latent if n in values}
        )
        scalar = not units.dims
        if scalar:  # sites in branches go on with the noise of the rows that they were weighed in
            latents[ROW] = self.evaluation.index[index.to(self.evaluation.index.device)]
        draws = replace(
            self.draws,
            latents=latents,
            num_samples=kept,
            why=f"{self.draws.why}; weighed by the evidence in {site_list(self.known)}",
            ess=float(ess) if scalar else ess,
            pareto_k=float(k_hat) if scalar else k_hat,
            unit_names=units.names,
        )
        return draws, Evaluation.of(form, kept, values, noise, latents)

    def _evaluated(self, inputs: tuple[Any, ...], rows: int) -> tuple[Any, Any, Tensor, Tensor]:
        """Values, noise, log weights of the units and of what stands outside their plates, of every row."""
        found = self.form.executor.map(self._row, rows, *inputs, kind="world evidence")
        if not isinstance(found, list):
            return found  # type: ignore[no-any-return]
        values, noise = [f[0] for f in found], [f[1] for f in found]
        return values, noise, torch.stack([f[2] for f in found]), torch.stack([f[3] for f in found])

    def _resampled(self, weights: Tensor, kept: int) -> tuple[Tensor, Tensor, Tensor]:
        weights = torch.where(torch.isnan(weights), -torch.inf, weights)
        if bool((weights.amax(0) == -torch.inf).any()):
            raise ImpossibleEvidenceError(
                f"evidence: none of {self.rows} draws agrees with what is known of the worlds {site_list(self.known)}; it is "
                "impossible, or too rare to be met by chance: widen an interval, or leave a part out"
            )
        smooth, k_hat = pareto_smooth(weights)
        generator = torch.Generator(smooth.device).manual_seed(keyed_seed(self.form.seed, "worlds"))
        return smooth, k_hat, resample(smooth, kept, generator)

    def _judged(self, smooth: Tensor, k_hat: Tensor) -> Tensor:
        ess = effective_sample_size(smooth)
        least = float(ess.min())
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
        return ess

    # --- One row --------------------------------------------------------------------------------------------------

    def _row(
        self,
        index: Tensor,
        start: dict[str, Any],
        bases: dict[str, Noise],
        fresh: dict[str, dict[str, Noise]],
    ) -> tuple[dict[str, Tensor], dict[str, Noise], Tensor, Tensor]:
        """Factual values, noise, and log weights. Each pass settles one more anchored site, in the order of the program."""
        noise: dict[str, Noise] = dict(start) if self.anchors else {}
        for _ in range(1 + sum(map(len, self.anchors.values()))):
            weigh = _Weight(self.plates)
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
        return facts, noise, weigh.own, weigh.outside

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
            value = (
                self._weighed(msg, site, noise, weigh) if self.anchors else form.given(msg, start)
            )
            # an anchored site keeps the noise that it has where it is known
            kept = name in self.anchors and site.missing is None
            if site.kind == "sample" and site.mechanism is not None and not kept:
                noise[name] = site.mechanism.abduct(msg["fn"], value, bases.get(name))
            return value

        return rule

    def _weighed(self, msg: Message, site: Site, noise: dict[str, Noise], weigh: _Weight) -> Tensor:
        """The factual value of a site that follows from its noise, and the weight of what is known of it."""
        fn = msg["fn"]
        if site.latent:
            assert site.mechanism is not None
            value = site.mechanism.forward(fn, noise[site.name])
            if site.missing is not None:
                value = torch.where(site.missing, value, site.value)
                weigh.add(msg, weighed(split_log_prob(fn, value, site.missing)[1], msg))
        else:
            value = self.form.given(msg, {})
            if site.kind != "deterministic":
                weigh.add(msg, weighed(exact_log_prob(fn, value), msg, masked=True))
            elif site.name in self.form.conditioned:
                weigh.add(msg, equal_log_prob(self.form, site.name, msg["value"]))
        if site.interval is not None:
            weigh.compare(msg, site, value, Known(value, site.missing, site.interval))
        return value

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
            if world in self.anchors.get(name, ()):
                assert site.mechanism is not None
                fn, value = unmasked(msg["fn"]), fact.value
                if fact.missing is None:
                    weigh.add(msg, exact_log_prob(fn, value))
                else:
                    value = torch.where(fact.missing, own(msg), value)
                    weigh.add(msg, split_log_prob(fn, value, fact.missing)[1])
                noise[name] = site.mechanism.abduct(fn, value, bases.get(name))
            else:
                value = own(msg)
            if fact.interval is not None or world not in self.anchors.get(name, ()):
                weigh.compare(msg, site, value, fact)
            return value

        return rule

    # --- Units ----------------------------------------------------------------------------------------------------

    def _plates(self) -> Units:
        """The plates that all that is random or known stands in."""
        form = self.form
        sites = dict(form.latent)
        sites |= {n: form.sites[n] for facts in self.known.values() for n in facts}
        units = common_units(sites)
        return units if units.dims and self.rows > 1 else _NO_UNITS

    def _recombines(
        self, inputs: tuple[Any, ...], own: Tensor, outside: Tensor, index: Tensor
    ) -> bool:
        """Whether units keep their weights beside units of other rows, in the very combinations that are returned."""
        index = index[:_RECOMBINED]
        rows, start, bases, fresh = inputs
        count = len(index)
        mixed = (
            rows[:count],
            self._chosen(start, index, self.plates),
            self._chosen(bases, index, self.plates),
            {w: self._chosen(noise, index, self.plates) for w, noise in fresh.items()},
        )
        values, _, again, beyond = self._evaluated(mixed, count)
        if isinstance(values, list):
            return False
        expected = own.gather(0, index.to(own.device))
        return _close(again, expected) and _close(beyond, outside[:count])

    def _where(self, site: Site, dims: int, units: Units) -> list[int] | None:
        """The shape that units' sizes take among a site's dims, which begin with its batch's; ``None`` outside the plates."""
        frames = {f.dim for f in site.frames if f.vectorized}
        if not frames.issuperset(units.dims):
            return None
        shape, batch = [1] * dims, len(site.fn.batch_shape)
        for dim, size in zip(units.dims, units.sizes, strict=True):
            shape[batch + dim] = size
        return shape

    def _chosen(self, found: Any, index: Tensor, units: Units) -> Any:
        """Values or noise of the draws that were picked, for each unit on its own where weights are."""
        if isinstance(found, list):
            return [found[int(i)] for i in index]
        if not units.dims:
            return tree_map(lambda leaf: leaf[index.to(leaf.device)], found)
        picked = {}
        for name, tree in found.items():
            site = self.form.sites[name]

            def take(leaf: Tensor, site: Site = site) -> Tensor:
                shape = self._where(site, leaf.dim() - 1, units)
                if shape is None:
                    return leaf[: len(index)]
                rows = index.reshape(len(index), *shape).to(leaf.device)
                return leaf.gather(0, rows.expand(len(index), *leaf.shape[1:]))

            picked[name] = tree_map(take, tree)
        return picked


class _Weight:
    """The log weights of one row: of each unit, and of what stands outside the units' plates."""

    def __init__(self, units: Units) -> None:
        self.units = units
        self.own, self.outside = torch.zeros(units.sizes), torch.zeros(())

    def add(self, msg: Message, log_prob: Tensor) -> None:
        """Add a site's log probabilities, of its batch shape."""
        dims = {f.dim for f in msg["cond_indep_stack"] if f.vectorized}
        if not self.units.dims or not dims.issuperset(self.units.dims):
            self.outside = self.outside + log_prob.sum()
            return
        rest = [d for d in range(-log_prob.dim(), 0) if d not in self.units.dims]
        self.own = self.own + (log_prob.sum(rest) if rest else log_prob)

    def compare(self, msg: Message, site: Site, value: Tensor, fact: Known) -> None:
        """Add minus infinity where a value is not what is known."""
        if fact.interval is not None:
            holds = (value >= fact.interval[0]) & (value <= fact.interval[1])
        else:
            holds = value == fact.value
            if site.function and value.is_floating_point():  # sums may round differently
                holds = (value - fact.value).abs() <= 1e-6 * fact.value.abs() + 1e-8
            if fact.missing is not None:
                holds = holds | fact.missing
        log_prob = torch.where(holds, 0.0, -torch.inf)
        events = site.event_dim
        self.add(msg, log_prob.sum(list(range(-events, 0))) if events else log_prob)


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
