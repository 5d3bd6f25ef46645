"""Twin and multi-world programs: several worlds as one Pyro program, for people who bring their own inference.

The factual world runs as it is written: its sites, densities and handlers are the original program's. Every other world runs
after it on the same noise, site by site ``f(abduct(v))``, and records deterministic sites, ``world/site``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from .errors import ProgramError, WorldNameError
from .interventions import (
    FromWorld,
    Hard,
    Intervention,
    Interventions,
    Stochastic,
    Where,
    as_interventions,
    cast_to,
    check_support,
    fit_shape,
    match,
    natural_source,
    outcome,
    program_arguments,
    replacement,
    take_subsamples,
    unknown_site,
)
from .mechanisms import Mechanism, mechanism_for
from .structural.question import FACTUAL, evaluation_order, named_worlds
from .structural.sites import site_kind, site_mechanism
from .typing import Message, Noise, Program

__all__ = ["multi_world", "twin_world"]


class _Fact:
    """A site of the factual world: its law and value there, and its noise once somebody asks for it."""

    def __init__(self, msg: Message, value: Tensor) -> None:
        fn = msg["fn"]
        batch = value.shape[: value.dim() - fn.event_dim]
        # handlers outside may have added dims to the value, of particles or of enumeration
        self.fn = (
            fn
            if batch == fn.batch_shape
            else fn.expand(torch.broadcast_shapes(batch, fn.batch_shape))
        )
        self.value = value
        self._noise: Noise | None = None

    def noise(self, mechanism: Mechanism) -> Noise:
        """Abducted once, so that all worlds share it."""
        if self._noise is None:
            base = None
            if not mechanism.invertible:
                with torch.no_grad():
                    base = mechanism.base(self.fn).sample()
            self._noise = mechanism.abduct(self.fn, self.value, base)
        return self._noise


class _Factual(Messenger):
    """Remembers what the factual run showed."""

    def __init__(self) -> None:
        super().__init__()
        self.facts: dict[str, _Fact] = {}
        self.naturals: dict[str, _Fact] = {}
        self.fresh: dict[tuple[str, str], Noise] = {}
        self.values: dict[str, Tensor] = {}
        self.indices: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: Message) -> None:
        name, value = msg["name"], msg["value"]
        if isinstance(msg["fn"], _Subsample):
            self.indices[name] = value
            return
        kind = site_kind(msg)
        if kind != "factor":
            self.values[name] = value
        if kind == "sample":
            self.facts[name] = _Fact(msg, value)

    def fresh_noise(self, name: str, fn: Any) -> Noise:
        """Noise of a mechanism that a world puts in: drawn once for a site and family, and shared by worlds as all noise is."""
        mechanism = mechanism_for(fn)
        key = name, f"{type(mechanism).__name__} {mechanism.name} {tuple(fn.shape())}"
        if key not in self.fresh:
            with torch.no_grad():
                self.fresh[key] = mechanism.noise(fn).sample()
        return self.fresh[key]

    def natural(self, msg: Message) -> Tensor:
        """The natural value of a site that the program itself intervenes on."""
        drawn: Tensor = msg["fn"](*msg["args"], **msg["kwargs"])
        self.naturals[msg["name"]] = _Fact(msg, drawn)
        return drawn


class _World(Messenger):
    """Runs the program in another world: each site is deterministic, and bears the world's name."""

    def __init__(
        self, name: str, interventions: Interventions, factual: _Factual, others: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.world, self.interventions, self.factual, self.others = (
            name,
            interventions,
            factual,
            others,
        )
        self.values: dict[str, Tensor] = {}

    def _process_message(self, msg: Message) -> None:  # type: ignore[override]
        if msg["type"] != "sample":
            return
        name = msg["name"]
        if isinstance(msg["fn"], _Subsample):
            msg["value"], msg["stop"] = self.factual.indices.get(name), True
            return
        if site_kind(msg) == "factor":
            msg["stop"] = True  # evidence weighs the factual world only
            return
        value = self._value(msg)
        self.values[name] = value
        events = msg["fn"].event_dim
        msg["fn"] = dist.Delta(value, event_dim=min(events, value.dim())).mask(False)
        # not "done", so that enumeration outside keeps track of the value's dims
        msg["value"], msg["is_observed"] = value, True
        msg["infer"] = {"_deterministic": True, "_program_name": name}
        msg["name"] = f"{self.world}/{name}"
        if msg["name"] in self.factual.values:
            raise WorldNameError(
                f"multi_world: the program has a site {msg['name']!r}, which is also the name of {name!r} in the world {self.world!r}; "
                "choose another name for the world"
            )

    def _postprocess_message(self, msg: Message) -> None:  # type: ignore[override]
        name = (msg["infer"] or {}).get("_program_name") if msg["type"] == "sample" else None
        if name is None:
            return
        if "_intervened" not in msg["infer"] and not _equal(msg["value"], self.values[name]):
            raise ProgramError(
                f"multi_world: site {msg['name']!r} follows from the factual world's noise, and a handler gives it another value, "
                "which would weigh nothing; condition factual sites only, or give cp.abduct the evidence with worlds="
            )
        self.values[name] = msg["value"]
        msg["name"] = name  # handlers inside the program know the site by its own name

    def _value(self, msg: Message) -> Tensor:
        name = msg["name"]
        intervention = match(self.interventions, name)
        if intervention is None:
            return self.natural(msg)
        natural: list[Tensor] = []

        def once() -> Tensor:
            if not natural:
                natural.append(self.natural(msg))
            return natural[0]

        if isinstance(intervention, Stochastic):
            new = replacement(name, intervention.distribution, msg["fn"])
            return mechanism_for(new).forward(new, self.factual.fresh_noise(name, new))
        present = msg["value"] if site_kind(msg) == "deterministic" else once()
        shape, dtype = present.shape, present.dtype
        indices = self.factual.indices
        events = 0 if site_kind(msg) == "deterministic" else msg["fn"].event_dim
        subsamples = [
            (f.dim - events, f.full_size, indices[f.name])
            for f in msg["cond_indep_stack"]
            if f.vectorized and f.full_size is not None and f.name in indices
        ]
        intervention = take_subsamples(self._resolved(name, intervention), subsamples)
        assert not isinstance(intervention, Stochastic)
        raw = outcome(name, intervention, once, self.values)
        value = fit_shape(name, cast_to(name, raw, dtype), shape, subsamples)
        if isinstance(intervention, Hard) and site_kind(msg) == "sample":
            check_support("do", name, msg["fn"], value)
        return value

    def _resolved(self, name: str, intervention: Intervention) -> Any:
        inner = intervention.inner if isinstance(intervention, Where) else intervention
        if not isinstance(inner, FromWorld):
            return intervention
        values = self.others[inner.world]
        if name not in values:
            raise ProgramError(
                f"from_world: the world {inner.world!r} has no site {name!r} in this run"
            )
        hard = Hard(values[name])
        return Where(intervention.mask, hard) if isinstance(intervention, Where) else hard

    def natural(self, msg: Message) -> Tensor:
        """The value that the site takes by itself, from the noise that it had in the factual world."""
        name = msg["name"]
        if site_kind(msg) != "sample":
            return msg["value"]  # type: ignore[no-any-return]
        fact = self.factual.facts.get(name) or self.factual.naturals.get(name)
        mechanism = site_mechanism(msg)
        if fact is None:  # a site that the factual run lacks
            fact = self.factual.facts[name] = _Fact(
                msg, mechanism.forward(msg["fn"], _fresh(mechanism, msg))
            )
            return fact.value
        return mechanism.forward(msg["fn"], fact.noise(mechanism))


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (
        a.shape == b.shape and bool(((a == b) | (torch.isnan(a) & torch.isnan(b))).all())
    )


def _fresh(mechanism: Mechanism, msg: Message) -> Noise:
    with torch.no_grad():
        noise: Noise = mechanism.noise(msg["fn"]).sample()
    return noise


@contextmanager
def _naturals(source: Callable[[Message], Tensor]) -> Iterator[None]:
    token = natural_source.set(source)
    try:
        yield
    finally:
        natural_source.reset(token)


def multi_world(
    model: Program | Mapping[str, Mapping[Any, Any]],
    worlds: Mapping[str, Mapping[Any, Any]] | None = None,
) -> Any:
    r"""One Pyro program that runs the factual world and others on the same noise.

    Its joint density is that of the original program, :math:`p(v)`: sites keep their names in the factual world, and in every other
    world they are deterministic, named ``"world/site"``. So it serves wherever a program does: ``SVI``, ``NUTS``, ``Predictive``,
    ``poutine``. Evidence goes to the factual sites; evidence in other worlds is :func:`causalppl.abduct`'s.

    Args:
        model: a Pyro program, or the worlds alone for a decorator.
        worlds: world name to interventions, anything :func:`causalppl.do` and :func:`causalppl.from_world` take.

    Returns:
        a program that returns a dict, world name to the program's own return value, ``"factual"`` first.

    Raises:
        WorldNameError, InterventionError: worlds that cannot be.
        UnknownSiteError: at the end of a run, where no world has shown an intervened site.
        NoMechanismError: a site whose distribution has no structural assignment.

    References:
        A. Balke, J. Pearl (1994), Probabilistic Evaluation of Counterfactual Queries.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(2 * x, 1.0))
        >>> both = cp.multi_world(model, {"treated": {"x": 1.0}, "control": {"x": 0.0}})
        >>> values = both()
        >>> round(float(values["treated"] - values["control"]), 5)
        2.0
    """
    if worlds is None:
        if not isinstance(model, Mapping):
            raise ProgramError(
                "multi_world: give the worlds too, such as cp.multi_world(model, {'treated': {'x': 1.0}}), or the mapping alone "
                "as a decorator"
            )
        given = model
        return lambda program: multi_world(program, given)
    if not callable(model):
        raise ProgramError(f"multi_world: {model!r} is no Pyro program; give a callable")
    program, named = model, named_worlds(None, worlds)
    order = evaluation_order(named)

    def run(*args: Any, **kwargs: Any) -> dict[str, Any]:
        factual = _Factual()
        with _naturals(factual.natural), factual:
            returned = {FACTUAL: program(*args, **kwargs)}
        values: dict[str, Mapping[str, Tensor]] = {FACTUAL: factual.values}
        for name in order:
            world = _World(name, named[name], factual, values)
            with _naturals(world.natural), world:
                returned[name] = program(*args, **kwargs)
            values[name] = world.values
        _check_seen(named, values, program)
        return {name: returned[name] for name in (FACTUAL, *named)}

    return run


def _check_seen(
    named: Mapping[str, Interventions], values: Mapping[str, Mapping[str, Tensor]], program: Program
) -> None:
    seen = list(dict.fromkeys(n for found in values.values() for n in found))
    for given in named.values():
        for key in given:
            if isinstance(key, str) and key not in seen:
                raise unknown_site("do", key, seen, program_arguments(program))
            if not isinstance(key, str) and not any(key.fullmatch(n) for n in seen):
                raise unknown_site("do", key, seen)


def twin_world(
    model: Program | Mapping[Any, Any], interventions: Mapping[Any, Any] | None = None
) -> Any:
    """One Pyro program that runs the factual world and ``"counterfactual"`` on the same noise; see :func:`multi_world`.

    Args:
        model: a Pyro program, or the interventions alone for a decorator.
        interventions: site to anything :func:`causalppl.do` takes.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(2 * x, 1.0))
        >>> list(pyro.poutine.trace(cp.twin_world(model, {"x": 1.0})).get_trace().nodes)[1:-1]
        ['x', 'y', 'counterfactual/x', 'counterfactual/y']
    """
    if interventions is None:
        if not isinstance(model, Mapping):
            raise ProgramError(
                "twin_world: give the interventions too, such as cp.twin_world(model, {'x': 1.0}), or the mapping alone as a decorator"
            )
        given = model
        return lambda program: twin_world(program, given)
    as_interventions(interventions)  # says what is wrong with them in their own words
    return multi_world(model, {"counterfactual": interventions})
