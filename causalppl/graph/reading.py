"""From a program to its causal graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..errors import GraphWarning, UnknownSiteError, closest_name, site_list, warn_caller
from ..structural import StructuralForm
from ..structural.units import parameters
from ..typing import Message, Program
from .causal_graph import CausalGraph
from .separation import determined

__all__ = ["causal_graph", "graph_of"]


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
    whole = _whole(form)
    if observed is not None:
        known = {observed} if isinstance(observed, str) else set(observed)
        _check_observed(known, [whole.get(n, n) for n in form.dependencies.parents])
        for name, site in form.sites.items():
            if site.kind == "sample":
                here = whole.get(name, name) in known
                form.sites[name] = replace(site, observed=here, missing=None)
        form.__dict__.pop("latent", None)
    hidden = sorted({whole.get(n, n) for n in form.dependencies.hidden})
    if hidden:
        warn_caller(
            f"causal_graph: Python saw the values of {site_list(hidden)} (an if, a loop bound, .item()), so every later site "
            "is given an arrow from them, and sites in branches that this run did not take are unknown",
            GraphWarning,
        )
    return graph_of(form, observed if observed is None else known, parameters(form))


def graph_of(
    form: StructuralForm,
    observed: Iterable[str] | None,
    learnt: Iterable[str],
    more: Mapping[str, Iterable[str]] | None = None,
) -> CausalGraph:
    """The graph of a program that has run.

    Args:
        observed: the observed sites; those whose values are known to the form where it is ``None``.
        learnt: the parameters.
        more: sites of other runs, and their parents in all runs.
    """
    found, whole = form.dependencies, _whole(form)
    arrows: dict[str, set[str]] = {}
    factors: dict[str, set[str]] = {}
    for name, parents in (*found.parents.items(), *(more or {}).items()):
        into = factors if found.kinds.get(name) == "factor" else arrows
        node = whole.get(name, name)
        into.setdefault(node, set()).update({whole.get(p, p) for p in parents} - {node})
    functions = {n for n, s in form.sites.items() if s.kind != "factor" and s.function}
    functions -= set(whole.values())
    if observed is None:
        observed = {
            whole.get(n, n) for n, s in form.sites.items() if s.kind == "sample" and s.observed
        }
    known = set(observed) & arrows.keys()
    graph = CausalGraph(arrows, deterministic=frozenset(functions), selection=factors)  # type: ignore[arg-type]
    seen = determined(graph.to_networkx(), known, functions) | known
    return replace(
        graph,
        latent=frozenset(arrows) - seen,
        parameters=frozenset(whole.get(n, n) for n in learnt) - known,
        hidden=frozenset(whole.get(n, n) for n in found.hidden),
        intervened=frozenset(_intervened(form)) & graph.deterministic,
        plates={
            whole.get(n, n): tuple(f.name for f in s.frames)
            for n, s in form.sites.items()
            if s.frames and whole.get(n, n) in arrows
        },
        form=form,
    )


def _whole(form: StructuralForm) -> dict[str, str]:
    """Pyro's two halves of a site with ``obs_mask`` are one node."""
    whole = {n: n.removesuffix("_unobserved") for n in form.halves}
    return whole | {n: n.removesuffix("_observed") for n in form.halves.values()}


def _check_observed(known: Iterable[str], nodes: Iterable[str]) -> None:
    for name in sorted(known):
        if name not in nodes:
            near = closest_name(name, nodes)
            raise UnknownSiteError(
                f"causal_graph: observed names {name!r}, which is no site; the sites are {site_list(nodes)}"
                + (f"; did you mean {near!r}?" if near else "")
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
