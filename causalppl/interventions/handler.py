"""``do`` as one of Pyro's effect handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, overload

import pyro.distributions as dist
import torch
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import SupportError
from ..mechanisms import value_dtype
from ..typing import Message, Program
from .kinds import (
    Hard,
    Stochastic,
    as_interventions,
    cast_to,
    fit_shape,
    index_subsamples,
    match,
    outcome,
    replacement,
)
from .site_handler import SiteHandler, three_forms

__all__ = [
    "DoMessenger",
    "check_support",
    "do",
    "natural_source",
]

#: Where an enclosing evaluation of the structural form supplies natural values from its noise.
natural_source: ContextVar[Callable[[Message], Tensor] | None] = ContextVar(
    "natural_source", default=None
)


def check_support(verb: str, site: str, fn: Any, value: Tensor) -> None:
    """Refuse a value outside the support of the site's distribution."""
    if type(getattr(fn, "base_dist", fn)) is dist.Delta or isinstance(fn, dist.Delta):
        return
    try:
        inside = bool(torch.as_tensor(fn.support.check(value.detach())).all())
    except (AttributeError, NotImplementedError, RuntimeError, ValueError):
        return  # no support, or one that cannot be read here (inside a transform such as vmap)
    if not inside:
        raise SupportError(
            f"{verb}: the value for site {site!r} lies outside the support {fn.support} of its distribution "
            f"{type(fn).__name__}; give a value inside"
            + ("" if verb == "evidence" else ", or a callable if leaving the support is meant")
        )


class DoMessenger(SiteHandler):
    """Intervenes on the sites of the program it encloses; see :func:`do`."""

    verb = "do"

    def __init__(self, interventions: Mapping[Any, Any], program: Any = None) -> None:
        self.interventions = as_interventions(interventions)
        super().__init__(self.interventions, program)
        self._runs: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []

    def __enter__(self) -> DoMessenger:
        self._runs.append(({}, {}))
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runs.pop()
        super().__exit__(kind, error, trace)

    def _pyro_sample(self, msg: Message) -> None:
        name, fn = msg["name"], msg["fn"]
        if not self._shown(msg):
            return
        intervention = match(self.interventions, name)
        if intervention is None:
            return
        if isinstance(intervention, Stochastic):
            msg["fn"] = replacement(name, intervention.distribution, fn)
            msg["value"], msg["is_observed"], msg["done"] = None, False, False
            msg["infer"] = {"_intervened": True}
            return
        present = msg["value"]
        upstream, indices = self._runs[-1]
        deterministic = msg["infer"] is not None and msg["infer"].get("_deterministic", False)
        if present is not None and deterministic:
            shape, dtype = present.shape, present.dtype
        else:
            shape, dtype = fn.shape(), value_dtype(fn)
        event_dim = fn.event_dim
        subsamples = [
            (f.dim - (0 if deterministic else event_dim), f.full_size, indices[f.name])
            for f in msg["cond_indep_stack"]
            if f.vectorized and f.name in indices and f.full_size is not None
        ]
        raw = outcome(
            name,
            intervention,
            lambda: self._natural(msg),
            upstream,
            lambda given: index_subsamples(given, subsamples),
        )
        value = fit_shape(name, cast_to(name, raw, dtype), shape, subsamples)
        if isinstance(intervention, Hard) and not deterministic:
            check_support("do", name, fn, value)
        msg["fn"] = dist.Delta(value, event_dim=event_dim).mask(False)
        msg["value"], msg["is_observed"] = value, True
        msg["infer"] = {"_deterministic": True, "_intervened": True}

    def _natural(self, msg: Message) -> Tensor:
        if msg["value"] is not None:
            value: Tensor = msg["value"]
            return value
        source = natural_source.get()
        if source is not None:
            return source(msg)
        drawn: Tensor = msg["fn"](*msg["args"], **msg["kwargs"])
        return drawn

    def _pyro_post_sample(self, msg: Message) -> None:
        upstream, indices = self._runs[-1]
        if isinstance(msg["fn"], _Subsample):
            indices[msg["name"]] = msg["value"]
        else:
            upstream[msg["name"]] = msg["value"]


@overload
def do(model: Program, interventions: Mapping[Any, Any]) -> Program: ...
@overload
def do(model: Mapping[Any, Any], interventions: None = None) -> DoMessenger: ...


def do(
    model: Program | Mapping[Any, Any], interventions: Mapping[Any, Any] | None = None
) -> Program | DoMessenger:
    r"""Pearl's do-operator: replace the structural assignments of some sites, :math:`p(v \mid do(x))`.

    The intervened site's recorded value is the one that downstream code sees, and its density leaves the
    joint: :math:`p(v \mid do(x)) = \prod_{i \notin x} p(v_i \mid pa_i)`.

    Three forms: ``do(model, {...})`` returns a program; ``do({...})`` is a decorator and a context manager.
    Nested on one site, the outer acts on what the inner gives.

    Args:
        model: a Pyro program, or the mapping alone for the other two forms.
        interventions: site name (or compiled regular expression) to a number, array or tensor that broadcasts to the
            site's ``batch_shape + event_shape`` (or to a subsampled plate's full size), a distribution (the mechanism is
            replaced), a callable of the natural value, :func:`policy` or :func:`where`.

    Raises:
        UnknownSiteError: at the end of a run, where no run has shown the site.
        InterventionError: NaN, a fraction for an integer site, or something that is no intervention.
        ShapeError: a value that does not broadcast to its site.
        SupportError: a hard value outside the support of its site.

    References:
        J. Pearl (2009), Causality, section 3.4.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.deterministic("y", 2 * x)
        >>> cp.do(model, {"x": 1.5})()
        tensor(3.)
    """
    found: Program | DoMessenger = three_forms(
        DoMessenger, "do", "{'x': 1.0}", model, interventions
    )
    return found
