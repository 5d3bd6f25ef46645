"""From a program to its causal graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..errors import GraphWarning, UnknownSiteError, closest_name, site_list, warn_caller
from ..structural import StructuralForm
from ..structural.units import parameters
from ..typing import Message, Program
from .causal_graph import CausalGraph
from .separation import determined

__all__ = ["causal_graph"]


def causal_graph(
    model: Program, observed: str | Iterable[str] | None = None
) -> Callable[..., CausalGraph]:
    """The causal graph of a program, read off one run of it.

    Args:
        model: a Pyro program.
        observed: the observed sites; those with ``obs=`` where it is ``None``.

    Returns:
        a callable that takes the program's arguments and returns the :class:`~causalppl.graph.CausalGraph`. It warns with a
        :class:`~causalppl.errors.GraphWarning` where Python saw values, so that arrows may be missing or without effect.

    Raises:
        UnknownSiteError: ``observed`` names a site that the program does not have.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(x, 1.0))
        >>> causal_graph(model, observed=["x", "y"])().edges
        (('x', 'y'),)
    """

    def read(*args: Any, **kwargs: Any) -> CausalGraph:
        return _read(StructuralForm(model, args, kwargs, None, 0), observed)

    return read


def _read(form: StructuralForm, observed: str | Iterable[str] | None) -> CausalGraph:
    found = form.dependencies
    # Pyro's two halves of a site with obs_mask are one node.
    whole = {n: n.removesuffix("_unobserved") for n in form.halves}
    whole |= {n: n.removesuffix("_observed") for n in form.halves.values()}
    arrows: dict[str, set[str]] = {}
    factors: dict[str, set[str]] = {}
    for name, parents in found.parents.items():
        into = factors if found.kinds[name] == "factor" else arrows
        node = whole.get(name, name)
        into.setdefault(node, set()).update({whole.get(p, p) for p in parents} - {node})
    merged = set(whole.values())
    functions = {n for n, k in found.kinds.items() if k == "deterministic"} - merged
    sample = set(arrows) - functions
    if observed is None:
        known = {whole.get(n, n) for n, s in form.sites.items() if s.observed} & sample
    else:
        known = {observed} if isinstance(observed, str) else set(observed)
        for name in sorted(known):
            if name not in arrows:
                near = closest_name(name, arrows)
                raise UnknownSiteError(
                    f"causal_graph: observed names {name!r}, which is no site; the sites are {site_list(arrows)}"
                    + (f"; did you mean {near!r}?" if near else "")
                )
        for name, site in form.sites.items():
            if site.kind == "sample":
                here = whole.get(name, name) in known
                form.sites[name] = replace(site, observed=here, missing=None)
        form.__dict__.pop("latent", None)
    learnt = {whole.get(n, n) for n in parameters(form)} - known
    hidden = {whole.get(n, n) for n in found.hidden}
    if hidden:
        warn_caller(
            f"causal_graph: Python saw the values of {site_list(sorted(hidden))} (an if, a loop bound, .item()), so every later site "
            "is given an arrow from them, and sites in branches that this run did not take are unknown",
            GraphWarning,
        )
    graph = CausalGraph(arrows, deterministic=frozenset(functions), selection=factors)  # type: ignore[arg-type]
    seen = determined(graph.to_networkx(), known, functions) | known
    return replace(
        graph,
        latent=frozenset(arrows) - seen,
        parameters=frozenset(learnt),
        hidden=frozenset(hidden),
        intervened=frozenset(_intervened(form)) & graph.deterministic,
        plates={
            whole.get(n, n): tuple(f.name for f in s.frames)
            for n, s in form.sites.items()
            if s.frames and whole.get(n, n) in arrows
        },
        form=form,
    )


def _intervened(form: StructuralForm) -> set[str]:
    """The sites that a ``do`` around the program sets."""
    found: set[str] = set()

    def rule(msg: Message) -> Tensor:
        if (msg["infer"] or {}).get("_intervened", False):
            found.add(msg["name"])
        return form.sites[msg["name"]].value

    form.run(rule)
    return found
