"""The structural form: a Pyro program as a deterministic function of noise and interventions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import (
    EvidenceError,
    ImpossibleEvidenceError,
    NoMechanismError,
    NondeterministicProgramError,
    ProgramError,
)
from ..interventions import natural_source, program_arguments, unknown_site
from ..mechanisms import exact_log_prob, possible
from ..typing import Message, Noise, Program
from .densities import log_probs
from .dependencies import Dependencies, track
from .evidence import fit_evidence, hidden_entries, read_evidence
from .executors import Executor, without_validation
from .intervals import draw_inside, has_quantiles
from .noise import draw, isolated_rng, keyed_seed
from .site_messenger import SiteMessenger
from .sites import Site, elements, site_kind, site_mechanism, unmasked
from .state import ModuleState

#: Key under which a row's latents carry the number of the row that they were drawn in.
ROW = "\x00row"
#: How Pyro names the two halves of a site with ``obs_mask=``.
_KNOWN, _UNKNOWN = "_observed", "_unobserved"

__all__ = ["ROW", "StructuralForm"]


class StructuralForm:
    """A program, its arguments and evidence, read by one reference run.

    Attributes:
        sites: what the reference run showed, in the order of the program.
        conditioned: values of the sites in the evidence, completed where entries are missing.
        halves: Pyro's ``y_unobserved`` to ``y_observed`` where a site has ``obs_mask=``: the first is given the second's value,
            so that both are one site with missing entries, ``y``.
        restated: those ``y_observed`` of which the evidence says, in place of the mask, which entries are known.

    Raises:
        UnknownSiteError, EvidenceError, ShapeError, SupportError, ImpossibleEvidenceError: evidence that does not fit.
        NondeterministicProgramError: the program is random outside its sample sites.
    """

    def __init__(
        self,
        model: Program,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        evidence: Any,
        seed: int,
        params: Mapping[str, Tensor] | None = None,
        indices: Mapping[str, Tensor] | None = None,
        modules: Sequence[Tensor] | None = None,
    ) -> None:
        if not callable(model):
            raise ProgramError(f"{model!r} is no Pyro program; give a callable")
        self.model, self.args, self.kwargs, self.seed = model, args, kwargs, seed
        self.params: dict[str, Tensor] = dict(params or {})
        self.indices: dict[str, Tensor] = dict(indices or {})
        self.halves: dict[str, str] = {}
        self.restated: set[str] = set()
        self.modules = ModuleState(model, args, kwargs, copies=modules)
        self.evidence = read_evidence(evidence)
        self.conditioned: dict[str, Tensor] = {}
        self.sites: dict[str, Site] = {}
        with isolated_rng(keyed_seed(seed, "reference")):
            self.run(self._read, validate=True)
        if not self.sites:
            raise ProgramError(
                "the program ran and showed no site: give a function that runs pyro.sample statements when it is called, an instance and "
                "not its class, and no generator function"
            )
        known = {*self.sites, *(n.removesuffix(_KNOWN) for n in self.halves.values())}
        for name in self.evidence:
            if name not in known:
                raise unknown_site("evidence", name, list(self.sites), program_arguments(model))
        self._check_deterministic()
        self._check_functions()
        sizes = (s.value.numel() * s.value.element_size() for s in self.sites.values())
        self.executor = Executor(8 * sum(sizes))

    def run(self, rule: Callable[[Message], Tensor], validate: bool = False) -> dict[str, Tensor]:
        """Run the program once with every site's value given by ``rule``; the values by site."""
        handler = SiteMessenger(rule, self)
        token = natural_source.set(rule)
        try:
            checks = contextlib.nullcontext() if validate else without_validation()
            with self.modules.restored(), checks, handler:
                self.model(*self.args, **self.kwargs)
        finally:
            natural_source.reset(token)
        return handler.values

    # --- Reading --------------------------------------------------------------------------------------------------

    def _read(self, msg: Message) -> Tensor:
        name, fn, kind = msg["name"], msg["fn"], site_kind(msg)
        value, infer = msg["value"], msg["infer"] or {}
        observed = msg["is_observed"] and kind != "deterministic"
        missing = interval = None
        if name in self.evidence and self.evidence[name] is None:
            raise EvidenceError(
                f"evidence: None for site {name!r} is no value; give NaN for a missing entry, or leave the site out"
            )
        if name.endswith(_UNKNOWN) and self._is_half(msg):
            self.halves[name] = name.removesuffix(_UNKNOWN) + _KNOWN
            return self.sites[self.halves[name]].value
        given = self._given_at(msg, kind)
        if given is not None:
            if kind == "factor":
                raise EvidenceError(
                    f"evidence: {name!r} is a factor, which weighs the draws and has no value; leave it out"
                )
            if infer.get("_intervened", False):
                raise EvidenceError(
                    f"evidence: site {name!r} is set by a do, which removes its mechanism; leave it out of the "
                    "evidence, or condition on it in the program without the do"
                )
            free = kind == "deterministic"
            known = fit_evidence(name, given, fn, value if free else fn.sample(), free)
            value, missing, interval = known.value, known.missing, known.interval
            observed = not known.nothing and (interval is None or missing is not None)
            if not observed:
                missing = None
            if observed:
                self.conditioned[name] = value
        elif value is None:
            value = fn(*msg["args"], **msg["kwargs"])
        elif observed and kind == "sample":
            own = fn._mask if isinstance(fn, dist.MaskedDistribution) else None
            missing = hidden_entries(value, msg["mask"], own, fn.event_dim)
            if missing is not None:
                value = torch.where(missing, fn.sample(), value)
                observed = not bool(missing.all())
                if observed:
                    self.conditioned[name] = value
                else:
                    missing = None
        self._add(msg, kind, value, bool(observed), missing, interval)
        return value  # type: ignore[no-any-return]

    def _given_at(self, msg: Message, kind: str) -> Any:
        """The evidence for a site; of the halves of one with ``obs_mask=`` it is the first's, under their common name."""
        name = msg["name"]
        if kind == "deterministic" and name + _KNOWN in self.halves.values():
            return None
        whole, given = name.removesuffix(_KNOWN), self.evidence.get(name)
        half = whole != name and kind == "sample" and isinstance(msg["mask"], Tensor)
        if given is None and half and whole in self.evidence:
            given, msg["mask"] = self.evidence[whole], None
            self.restated.add(name)
        return given

    def _add(
        self,
        msg: Message,
        kind: str,
        value: Tensor,
        observed: bool,
        missing: Tensor | None,
        interval: tuple[Tensor, Tensor] | None,
    ) -> None:
        mechanism, why, fn = None, "", msg["fn"]
        if kind == "sample":
            try:
                mechanism = site_mechanism(msg)
            except NoMechanismError as error:
                why = str(error)
        masked = msg["mask"] is not None or unmasked(fn) is not fn
        frames = msg["cond_indep_stack"]
        self.sites[msg["name"]] = Site(
            msg["name"],
            kind,
            fn,
            value,
            observed,
            frames,
            mechanism,
            why,
            missing,
            interval,
            masked,
        )

    def _is_half(self, msg: Message) -> bool:
        other = self.sites.get(msg["name"].removesuffix(_UNKNOWN) + _KNOWN)
        return (
            other is not None
            and isinstance(msg["mask"], Tensor)
            and type(other.fn) is type(msg["fn"])
            and other.value.shape == msg["fn"].shape()
        )

    def _check_deterministic(self) -> None:
        reference = {name: site.value for name, site in self.sites.items()}

        def again(msg: Message) -> Tensor:
            name = msg["name"]
            site, own = self.sites.get(name), msg["value"]
            if site is None:
                raise _differs(name)
            free = name not in self.conditioned and site.interval is None and not site.latent
            if own is not None and free and not _same(own, site.value):
                raise _differs(name)
            if site.kind in ("sample", "factor"):
                given = exact_log_prob(site.fn, site.value)
                if not _same(exact_log_prob(msg["fn"], site.value), given):
                    raise _differs(name)
            return reference[name]

        with isolated_rng(keyed_seed(self.seed, "determinism")):
            self.run(again)

    def _check_functions(self) -> None:
        """Point evidence on a function of continuous latents has no density."""
        for name in self.conditioned:
            if not self.sites[name].function:
                continue
            parent = self.continuous_ancestor(name)
            if parent is not None:
                raise EvidenceError(
                    f"evidence: site {name!r} is a deterministic function of the continuous latent site {parent!r}, so a "
                    f"single value has probability zero; give a range, {{{name!r}: cp.Interval(low, high)}}, or make it a "
                    "sample site with a narrow distribution"
                )

    def continuous_ancestor(self, name: str, observed: bool = False) -> str | None:
        """A continuous latent site that a site depends on, if there is one.

        Args:
            observed: whether one that is known counts too, as it does in worlds where it may have another value.
        """
        for parent in self.dependencies.ancestors(name):
            site = self.sites.get(parent)
            if (
                site is not None
                and site.kind == "sample"
                and not site.discrete
                and not site.function
            ):
                if site.latent or observed:
                    return parent
        return None

    # --- What is known --------------------------------------------------------------------------------------------

    @cached_property
    def dependencies(self) -> Dependencies:
        """Which site's values enter which distribution: in the reference run, and in any branch that Python can take by others."""
        whole = [
            n
            for n, s in self.sites.items()
            if n in self.conditioned and s.missing is None and s.interval is None
        ]
        return self.dependencies_at({}).of_all_branches(whole)

    def dependencies_at(self, other: Mapping[str, Tensor]) -> Dependencies:
        """The same where some sample sites have other values: Python may take another branch there."""
        values = {n: s.value for n, s in self.sites.items() if s.kind == "sample"}
        values |= {half: values[whole] for half, whole in self.halves.items()}
        values |= other
        with isolated_rng(keyed_seed(self.seed, "dependencies")), self.modules.restored():
            return track(self.model, self.args, self.kwargs, values=values)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a result says about its evidence."""
        partly = [n for n, s in self.sites.items() if s.missing is not None and s.interval is None]
        if not partly:
            return ()
        names = ", ".join(
            repr(n.removesuffix(_KNOWN) if n in self.halves.values() else n) for n in partly
        )
        return (
            f"missing entries of {names} are latent; that they are missing is taken as ignorable",
        )

    @cached_property
    def latent(self) -> dict[str, Site]:
        """Sites whose value inference has to find, in whole or in part."""
        return {name: site for name, site in self.sites.items() if site.latent}

    @cached_property
    def evident(self) -> bool:
        """Whether anything that is known depends on what is latent, so that the posterior is not the prior."""
        if not self.latent:
            return False
        if any(s.interval is not None for s in self.sites.values()):
            return True
        if any(s.missing is not None and elements(s.fn) is None for s in self.latent.values()):
            return True
        reached = self.dependencies.descendants(self.latent)
        known = [
            n
            for n, s in self.sites.items()
            if s.observed or s.kind == "factor" or n in self.conditioned
        ]
        weights = self.dependencies.weights
        return any(n in reached or weights[n] & set(self.latent) for n in known)

    def given(self, msg: Message, latents: Mapping[str, Tensor]) -> Tensor:
        """A site's factual value: from ``latents``, evidence, observation, or the program's own."""
        name = msg["name"]
        site = self.sites.get(name)
        if site is not None and site.latent and name in latents:
            return latents[name]
        if name in self.conditioned:
            value = self.conditioned[name]
            if site is not None and site.missing is not None and site.kind == "deterministic":
                return torch.where(site.missing, msg["value"], value)
            return value
        if msg["value"] is not None:
            return msg["value"]  # type: ignore[no-any-return]
        if ROW in latents:
            return self.branch(msg, latents[ROW])
        raise ProgramError(
            f"the program shows site {name!r} in some runs only, so its value is not known here"
        )

    # --- Draws ----------------------------------------------------------------------------------------------------

    def prior_noise(self, rows: int, *key: object) -> dict[str, Noise]:
        """Noise of the latent sites, ``rows`` draws each."""
        noise: dict[str, Noise] = {}
        for name, site in self.latent.items():
            if site.mechanism is None:
                raise NoMechanismError(f"site {name!r} cannot be drawn from noise: {site.why_none}")
            noise[name] = draw(site.mechanism.noise(site.fn), rows, self.seed, name, "prior", *key)
        return noise

    def branch(self, msg: Message, row: Tensor) -> Tensor:
        """The value of a site that the reference run lacks, drawn for one row; only where rows run one by one."""
        mechanism = site_mechanism(msg)
        noise = self.branch_noise(mechanism.noise(msg["fn"]), msg["name"], row)
        return mechanism.forward(msg["fn"], noise)

    def branch_noise(self, law: Any, name: str, row: Tensor) -> Noise:
        """Its noise: the same in every world, fixed by seed, site and row."""
        noise: Noise = tree_map(
            lambda leaf: leaf[0], draw(law, 1, self.seed, name, "branch", int(row))
        )
        return noise

    def simulate(
        self, noise: Mapping[str, Noise], row: Tensor, fixed: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Latent values of one row from their noise, given the evidence and the latents in ``fixed``.

        Entries that are known keep their values, and where a range is known values are drawn inside it if the mechanism has
        quantiles.
        """

        def rule(msg: Message) -> Tensor:
            name = msg["name"]
            site = self.latent.get(name)
            if site is None or name not in noise:
                return self.given(msg, {**(fixed or {}), ROW: row})
            mechanism, fn, own = site.mechanism, msg["fn"], noise[name]
            assert mechanism is not None
            if fn.shape() != site.fn.shape():
                raise ProgramError(
                    f"site {name!r} has different shapes in different draws, {tuple(site.fn.shape())} and {tuple(fn.shape())}; pad it "
                    "in the program to the largest"
                )
            if site.interval is not None and has_quantiles(mechanism, fn):
                value = draw_inside(mechanism, fn, site.interval, own)  # type: ignore[arg-type]
            else:
                value = mechanism.forward(fn, own)
            return value if site.missing is None else torch.where(site.missing, value, site.value)

        values = self.run(rule)
        # a branch that this row does not take leaves its sites unused
        found = {
            n: values[n] if n in values else torch.zeros_like(s.value)
            for n, s in self.latent.items()
        }
        return {**found, ROW: row}

    # --- Densities ------------------------------------------------------------------------------------------------

    def log_probs(
        self,
        latents: Mapping[str, Tensor],
        units: tuple[tuple[str, int], ...] = (),
        simulated: bool = False,
    ) -> dict[str, dict[str, Tensor]]:
        """See :func:`~causalppl.structural.densities.log_probs`."""
        return log_probs(self, latents, units, simulated)

    def check_evidence(self, latents: Mapping[str, Tensor]) -> None:
        """Refuse evidence of probability zero where nothing but these values could have led to it."""
        for name, log_prob in log_probs(self, latents, density=possible)["evidence"].items():
            if bool((log_prob == -torch.inf).any()):
                raise ImpossibleEvidenceError(
                    f"evidence: the value of site {name!r} has probability zero given its parents; check it against "
                    "the program"
                )


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    # matrix products may round differently from run to run; what is random differs by far more
    return torch.equal(a, b) or bool(
        torch.isclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True).all()
    )


def _differs(name: str) -> NondeterministicProgramError:
    return NondeterministicProgramError(
        f"the program is not deterministic given its sites: run twice on the same values, site {name!r} differs. "
        "Draw with pyro.sample instead of torch.rand or another generator, and call .eval() on networks that are in train mode with dropout"
    )
