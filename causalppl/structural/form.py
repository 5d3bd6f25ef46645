"""The structural form: a Pyro program as a deterministic function of noise and interventions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import (
    EvidenceError,
    ImpossibleEvidenceError,
    NoMechanismError,
    NondeterministicProgramError,
    ProgramError,
)
from ..interventions import (
    cast_to,
    check_support,
    fit_shape,
    natural_source,
    program_arguments,
    unknown_site,
)
from ..mechanisms import Mechanism, exact_log_prob, mechanism_for
from ..typing import Message, Noise, Program, Values
from .dependencies import track
from .executors import Executor, without_validation
from .noise import draw, isolated_rng, keyed_seed
from .state import ModuleState

#: Key under which a row's latents carry the number of the row that they were drawn in.
ROW = "\x00row"

__all__ = ["ROW", "Site", "SiteMessenger", "StructuralForm"]


@dataclass(frozen=True)
class Site:
    """What the reference run showed of one site."""

    name: str
    kind: str  #: "sample", "deterministic" or "factor"
    fn: Any
    value: Tensor
    observed: bool
    frames: tuple[Any, ...]
    mechanism: Mechanism | None
    why_none: str = ""

    @property
    def latent(self) -> bool:
        """Whether inference has to find its value."""
        return self.kind == "sample" and not self.observed


def site_mechanism(msg: Message) -> Mechanism:
    """The mechanism chosen at the site, or its family's default."""
    chosen = (msg["infer"] or {}).get("mechanism")
    if chosen is not None and not isinstance(chosen, str):
        return chosen  # type: ignore[no-any-return]
    return mechanism_for(msg["fn"], chosen)


def site_kind(msg: Message) -> str:
    """``"deterministic"``, ``"factor"`` or ``"sample"``."""
    infer = msg["infer"] or {}
    if infer.get("_deterministic", False):
        return "deterministic"
    return "factor" if infer.get("is_auxiliary", False) and msg["is_observed"] else "sample"


class SiteMessenger(Messenger):
    """Gives every site its value by one rule, hidden from handlers outside the program."""

    def __init__(
        self,
        rule: Callable[[Message], Tensor],
        params: dict[str, Tensor],
        indices: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.rule, self.params, self.indices = rule, params, indices
        self.values: dict[str, Tensor] = {}

    def _process_message(self, msg: Message) -> None:  # type: ignore[override]
        msg["stop"] = True
        if msg["type"] == "param":
            if msg["name"] in self.params:
                msg["value"], msg["done"] = self.params[msg["name"]], True
        elif msg["type"] == "sample":
            name = msg["name"]
            if isinstance(msg["fn"], _Subsample):
                if msg["value"] is None:
                    msg["value"] = self.indices.get(name)
                return
            if name in self.values:
                raise ProgramError(
                    f"the program has two sites named {name!r}; give each its own name"
                )
            value = self.rule(msg)
            msg["value"], msg["done"] = value, True
            if site_kind(msg) != "factor":
                self.values[name] = value

    def _postprocess_message(self, msg: Message) -> None:  # type: ignore[override]
        if msg["type"] == "sample" and isinstance(msg["fn"], _Subsample):
            self.indices.setdefault(msg["name"], msg["value"])
        elif msg["type"] == "param" and msg["name"] not in self.params:
            self.params[msg["name"]] = msg["value"].detach().clone()


class StructuralForm:
    """A program, its arguments and evidence, read by one reference run.

    Raises:
        UnknownSiteError, EvidenceError, ShapeError, SupportError, ImpossibleEvidenceError: evidence that does not fit.
        NondeterministicProgramError: the program is random outside its sample sites.
    """

    def __init__(
        self,
        model: Program,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        evidence: Values | None,
        seed: int,
    ) -> None:
        if not callable(model):
            raise ProgramError(f"{model!r} is no Pyro program; give a callable")
        self.model, self.args, self.kwargs, self.seed = model, args, kwargs, seed
        self.params: dict[str, Tensor] = {}
        self.indices: dict[str, Tensor] = {}
        if evidence is not None and not isinstance(evidence, Mapping):
            raise EvidenceError(
                f"evidence: give a mapping of site to value such as {{'y': 1.0}}, not {evidence!r}"
            )
        self.modules = ModuleState(model, args, kwargs)
        self.evidence = dict(evidence or {})
        self.conditioned: dict[str, Tensor] = {}
        self.sites: dict[str, Site] = {}
        with isolated_rng(keyed_seed(seed, "reference")):
            self.run(self._read, validate=True)
        missing = [name for name in self.evidence if name not in self.sites]
        if missing:
            raise unknown_site("evidence", missing[0], list(self.sites), program_arguments(model))
        self._check_deterministic()
        self._check_functions()
        sizes = (s.value.numel() * s.value.element_size() for s in self.sites.values())
        self.executor = Executor(8 * sum(sizes))

    def run(self, rule: Callable[[Message], Tensor], validate: bool = False) -> dict[str, Tensor]:
        """Run the program once with every site's value given by ``rule``; the values by site."""
        handler = SiteMessenger(rule, self.params, self.indices)
        token = natural_source.set(rule)
        try:
            checks = contextlib.nullcontext() if validate else without_validation()
            with self.modules.restored(), checks, handler:
                self.model(*self.args, **self.kwargs)
        finally:
            natural_source.reset(token)
        return handler.values

    def _read(self, msg: Message) -> Tensor:
        name, fn, kind = msg["name"], msg["fn"], site_kind(msg)
        observed = msg["is_observed"] and kind != "deterministic"
        value = msg["value"]
        if name in self.evidence:
            if (msg["infer"] or {}).get("_intervened", False):
                raise EvidenceError(
                    f"evidence: site {name!r} is set by a do, which removes its mechanism; leave it out of the "
                    "evidence, or condition on it in the program without the do"
                )
            value = self._evidence(name, fn, value if kind == "deterministic" else None)
            self.conditioned[name], observed = value, True
        elif value is None:
            value = fn(*msg["args"], **msg["kwargs"])
        mechanism, why = None, ""
        if kind == "sample":
            try:
                mechanism = site_mechanism(msg)
            except NoMechanismError as error:
                why = str(error)
        self.sites[name] = Site(
            name, kind, fn, value, observed, msg["cond_indep_stack"], mechanism, why
        )
        return value  # type: ignore[no-any-return]

    def _evidence(self, name: str, fn: Any, natural: Tensor | None) -> Tensor:
        like = natural if natural is not None else self._like(fn)
        given = self.evidence[name]
        if not isinstance(given, Tensor):
            try:
                given = torch.as_tensor(getattr(given, "values", given))
            except (TypeError, ValueError, RuntimeError):
                raise EvidenceError(
                    f"evidence: {self.evidence[name]!r} for site {name!r} is no value; give a number, an "
                    "array or a tensor"
                ) from None
        value: Tensor = given
        if value.is_floating_point() and bool(torch.isnan(value).any()):
            raise EvidenceError(
                f"evidence: the value for site {name!r} contains NaN; missing entries are not supported yet: "
                "leave the whole site out, or drop these units"
            )
        value = cast_to(name, value.to(like.device), like.dtype, "evidence")
        value = fit_shape(name, value, like.shape, verb="evidence")
        check_support("evidence", name, fn, value)
        return value

    @staticmethod
    def _like(fn: Any) -> Tensor:
        drawn: Tensor = fn.sample()
        return drawn

    def _check_deterministic(self) -> None:
        reference = {name: site.value for name, site in self.sites.items()}

        def again(msg: Message) -> Tensor:
            name = msg["name"]
            site = self.sites.get(name)
            own = msg["value"]
            if site is None:
                raise _differs(name)
            if own is not None and name not in self.conditioned and not _same(own, site.value):
                raise _differs(name)
            if site.kind == "sample":
                given = exact_log_prob(site.fn, site.value)
                if not _same(exact_log_prob(msg["fn"], site.value), given):
                    raise _differs(name)
            return reference[name]

        with isolated_rng(keyed_seed(self.seed, "determinism")):
            self.run(again)

    def _check_functions(self) -> None:
        """Point evidence on a function of continuous latents has no density."""
        known = [n for n in self.conditioned if self.sites[n].kind == "deterministic"]
        if not known:
            return
        with isolated_rng(keyed_seed(self.seed, "dependencies")):
            values = {n: s.value for n, s in self.sites.items() if s.kind == "sample"}
            dependencies = track(self.model, self.args, self.kwargs, values=values)
        for name in known:
            for parent in dependencies.ancestors(name):
                site = self.sites.get(parent)
                if site is not None and site.latent and not site.fn.support.is_discrete:
                    raise EvidenceError(
                        f"evidence: site {name!r} is a deterministic function of the continuous latent site {parent!r}, so a single "
                        "value has probability zero; evidence on it needs a range (cp.Interval, not available in this version), or "
                        "make it a sample site with a narrow distribution"
                    )

    @property
    def latent(self) -> dict[str, Site]:
        """Sites whose value inference has to find."""
        return {name: site for name, site in self.sites.items() if site.latent}

    def given(self, msg: Message, latents: Mapping[str, Tensor]) -> Tensor:
        """A site's factual value: evidence, observation, the program's own, or from ``latents``."""
        name = msg["name"]
        if name in self.conditioned:
            return self.conditioned[name]
        if msg["value"] is not None:
            return msg["value"]  # type: ignore[no-any-return]
        if name in latents and name in self.sites:
            return latents[name]
        if ROW in latents:
            return self.branch(msg, latents[ROW])
        raise ProgramError(
            f"the program shows site {name!r} in some runs only, so its value is not known here"
        )

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
        """Latent values of one row from their noise, given the evidence and the latents in ``fixed``."""
        latent = self.latent

        def rule(msg: Message) -> Tensor:
            site = latent.get(msg["name"])
            if site is not None and msg["name"] in noise:
                assert site.mechanism is not None
                return site.mechanism.forward(msg["fn"], noise[msg["name"]])
            return self.given(msg, {**(fixed or {}), ROW: row})

        values = self.run(rule)
        # a branch that this row does not take leaves its sites unused
        found = {
            n: values[n] if n in values else torch.zeros_like(s.value) for n, s in latent.items()
        }
        return {**found, ROW: row}

    def log_probs(
        self, latents: Mapping[str, Tensor], units: tuple[int, ...] = ()
    ) -> dict[str, dict[str, Tensor]]:
        """Log probabilities of one row, exact at 0 and 1: ``{"prior" | "evidence": {site: tensor}}``, in nats.

        Each is summed over all batch dims but those in ``units`` (dims from the right); a site outside the units' plates
        is summed to a scalar.
        """
        parts: dict[str, dict[str, Tensor]] = {"prior": {}, "evidence": {}}

        def rule(msg: Message) -> Tensor:
            value = self.given(msg, latents)
            name, kind = msg["name"], site_kind(msg)
            if kind == "deterministic":
                if name in self.conditioned:
                    off = (msg["value"] - value).abs()
                    equal = (off <= 1e-6 * value.abs() + 1e-8).all()
                    parts["evidence"][name] = torch.where(equal, 0.0, -torch.inf)
                return value
            log_prob = exact_log_prob(msg["fn"], value)
            if msg["mask"] is not None:
                mask = torch.as_tensor(msg["mask"], device=log_prob.device)
                log_prob = torch.where(mask, log_prob, torch.zeros_like(log_prob))
            if not (isinstance(msg["scale"], float) and msg["scale"] == 1.0):
                log_prob = log_prob * msg["scale"]
            dims = {f.dim for f in msg["cond_indep_stack"] if f.vectorized}
            keep = dims.issuperset(units) and bool(units)
            rest = [d for d in range(-log_prob.dim(), 0) if not keep or d not in units]
            reduced = log_prob.sum(rest) if rest else log_prob
            parts["prior" if name in latents else "evidence"][name] = reduced
            return value

        self.run(rule)
        return parts

    def check_evidence(self, latents: Mapping[str, Tensor]) -> None:
        """Refuse evidence of probability zero where nothing but these values could have led to it."""
        for name, log_prob in self.log_probs(latents)["evidence"].items():
            if bool((log_prob == -torch.inf).any()):
                raise ImpossibleEvidenceError(
                    f"evidence: the value of site {name!r} has probability zero given its parents; check it against "
                    "the program"
                )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(
        # matrix products may round differently from run to run; what is random differs by far more
        torch.isclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True).all()
    )


def _differs(name: str) -> NondeterministicProgramError:
    return NondeterministicProgramError(
        f"the program is not deterministic given its sites: run twice on the same values, site {name!r} differs. "
        "Draw with pyro.sample instead of torch.rand or another generator, and call .eval() on networks that are in train mode with dropout"
    )
