"""The causal graph as a value: its nodes and arrows, and the questions it answers by itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import networkx as nx

from ..errors import GraphError, UnknownSiteError, closest_name, site_list
from ..structural import StructuralForm
from .criteria import Criteria
from .drawing import Drawing, draw
from .perturbation import Effects, perturb
from .question import names_in, read_question
from .separation import separated
from .twin import twin_nodes
from .unit import UnitGraph
from .verdict import Identification
from .verdicts import verdict

__all__ = ["CausalGraph"]


@dataclass(frozen=True)
class CausalGraph:
    """Sites and the arrows between them.

    Attributes:
        arrows: node to its parents, in the order of the program.
        latent: the nodes whose values are not known.
        deterministic: the nodes that are functions of their parents.
        parameters: latent nodes that are learnt from all units: no confounders of one, and left out of identification.
        selection: factor to the nodes it depends on. A factor is no node: it selects, so it counts as conditioned.
        hidden: nodes whose values Python saw; arrows and sites after them are those of one run.
        intervened: the nodes that are set from outside.
        plates: node to the plates it is in, outermost first.
        form: the structural form that the graph was read off, where there is one.

    Example:
        >>> graph = CausalGraph({"z": [], "x": ["z"], "y": ["x", "z"]})
        >>> graph.backdoor_sets("x", "y")
        [frozenset({'z'})]
        >>> print(graph.identify("P(y | do(x))").estimand)
        sum_{z'} P(z') P(y | z', x)
    """

    arrows: Mapping[str, Iterable[str]]
    latent: frozenset[str] = frozenset()
    deterministic: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    selection: Mapping[str, Iterable[str]] = ()  # type: ignore[assignment]
    hidden: frozenset[str] = frozenset()
    intervened: frozenset[str] = frozenset()
    plates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    form: StructuralForm | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "arrows", {n: frozenset(p) for n, p in self.arrows.items()})
        chosen = {n: frozenset(p) for n, p in dict(self.selection).items()}
        object.__setattr__(self, "selection", chosen)
        for name in ("latent", "deterministic", "parameters", "hidden", "intervened"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))
            self._known(getattr(self, name))
        for parents in [*self.arrows.values(), *chosen.values()]:
            self._known(parents)
        if not nx.is_directed_acyclic_graph(self.to_networkx()):
            raise GraphError("the arrows form a cycle; a causal graph has none")

    @property
    def nodes(self) -> tuple[str, ...]:
        """All sites, in the order of the program."""
        return tuple(self.arrows)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """All arrows, parent first."""
        return tuple((p, n) for n in self.nodes for p in self.nodes if p in self.arrows[n])

    def to_networkx(self) -> nx.DiGraph:
        """The graph as a ``networkx.DiGraph``."""
        graph = nx.DiGraph()
        graph.add_nodes_from(self.nodes)
        graph.add_edges_from(self.edges)
        return graph

    def parents(self, x: str) -> frozenset[str]:
        """The nodes with an arrow into ``x``."""
        self._known([x])
        return frozenset(self.arrows[x])

    def ancestors(self, x: str) -> frozenset[str]:
        """The nodes from which a directed path leads to ``x``, without ``x``."""
        self._known([x])
        return frozenset(nx.ancestors(self.to_networkx(), x))

    def descendants(self, x: str) -> frozenset[str]:
        """The nodes to which a directed path leads from ``x``, without ``x``."""
        self._known([x])
        return frozenset(nx.descendants(self.to_networkx(), x))

    def do(self, x: str | Iterable[str]) -> CausalGraph:
        """The graph once ``x`` is set from outside: no arrow leads into it, and its value is known."""
        chosen = self._known([x] if isinstance(x, str) else x)
        arrows = {n: () if n in chosen else p for n, p in self.arrows.items()}
        known = {n: getattr(self, n) - chosen for n in ("latent", "deterministic", "parameters")}
        return replace(self, arrows=arrows, intervened=self.intervened | chosen, form=None, **known)

    def twin(self, interventions: Iterable[str] | Mapping[str, Any]) -> CausalGraph:
        """The twin network: this world and one, ``counterfactual``, where some sites are set, sharing noise.

        Sites that an intervention changes are copied as ``world/site``, a function of their parents and of the latent
        ``noise/site``, which the copies share.

        Args:
            interventions: the sites that are set, or a mapping from them to values, which the graph does not depend on; or a
                mapping from worlds to such sites or mappings.

        Raises:
            UnknownSiteError: a name that is no node.
            GraphError: a copy would have the name of a node.

        Example:
            >>> graph = CausalGraph({"z": [], "x": ["z"], "y": ["x", "z"]})
            >>> twin = graph.twin({"x": 1.0})
            >>> twin.d_separated("x", "counterfactual/y"), twin.d_separated("x", "counterfactual/y", "z")
            (False, True)
        """
        if isinstance(interventions, str):
            interventions = [interventions]
        several = isinstance(interventions, Mapping) and all(
            isinstance(v, Mapping | list | tuple | set | frozenset) for v in interventions.values()
        )
        given = dict(interventions) if several else {"counterfactual": interventions}  # type: ignore[arg-type, call-overload]
        worlds = {str(w): self._known(x) for w, x in given.items()}
        found = twin_nodes(self.to_networkx(), self.deterministic, worlds)
        for node in found.original:
            if node in self.arrows:
                raise GraphError(
                    f"twin: the graph has a node {node!r} already; give the world another name"
                )
        copies = found.original.items()
        return replace(
            self,
            arrows=found.arrows,
            latent=self.latent | (set(found.original) - found.intervened),
            deterministic=frozenset(found.functions),
            intervened=self.intervened | found.intervened,
            plates={**self.plates, **{c: self.plates[n] for c, n in copies if n in self.plates}},
            form=None,
        )

    def render(self) -> Drawing:
        """A drawing, with its text in DOT as ``.source``: latent nodes are dashed, observed ones shaded, functions boxes.

        Intervened nodes have a double border, plates are boxes around their nodes, arrows from values that Python saw are dotted.
        """
        return draw(self)

    def check(self, moves: int = 4) -> Effects:
        """Look for the arrows again, by moving one site at a time, and compare.

        Raises:
            GraphError: a site has an effect where the graph has no arrow, or there is no program to run.
        """
        if self.form is None:
            raise GraphError(
                "check: only a graph that was read off a program can be checked against it"
            )
        effects = perturb(self.form, moves)
        halves = self.form.halves
        whole = {n: n.removesuffix("_observed") for n in halves.values()}
        arrows = frozenset(
            (whole.get(a, a), whole.get(b, b)) for a, b in effects.arrows if a not in halves
        )
        arrows = frozenset((a, b) for a, b in arrows if a != b)
        missing = [
            (a, b)
            for a, b in sorted(arrows)
            if a not in {**self.selection, **self.arrows}.get(b, ())
        ]
        if missing:
            pairs = ", ".join(f"{a} -> {b}" for a, b in missing)
            raise GraphError(f"check: the program has effects that tracking has not seen: {pairs}")
        return replace(effects, arrows=arrows)

    def d_separated(
        self, a: str | Iterable[str], b: str | Iterable[str], given: str | Iterable[str] = ()
    ) -> bool:
        """Whether ``a`` and ``b`` are independent given ``given`` in every program with this graph.

        A function of conditioned nodes is conditioned (D-separation); factors are. Parameters are ordinary nodes here.

        Raises:
            UnknownSiteError: a name that is no node.
            GraphError: the sets overlap.
        """
        sets = [self._known([s] if isinstance(s, str) else s) for s in (a, b, given)]
        for one, other in combinations(sets, 2):
            if one & other:
                raise GraphError(
                    f"d_separated: {site_list(sorted(one & other))} is in two of the three sets; give each node once"
                )
        graph, selected = self._selected(self.to_networkx())
        return separated(graph, sets[0], sets[1], sets[2] | selected, self.deterministic)

    def backdoor_sets(self, x: str, y: str) -> list[frozenset[str]]:
        """Every minimal set of observed nodes that satisfies the back-door criterion; the empty one where none is needed.

        A set of which ``x`` is a function leaves nothing to compare, and is not among them.
        """
        return self._criteria(x, y).backdoor()

    def frontdoor_sets(self, x: str, y: str) -> list[frozenset[str]]:
        """Every minimal set of observed nodes that satisfies the front-door criterion."""
        return self._criteria(x, y).frontdoor()

    def instruments(self, x: str, y: str) -> dict[str, list[frozenset[str]]]:
        """Instruments for the effect of ``x`` on ``y``, each with the minimal sets it is to be conditioned on.

        An instrument is dependent on ``x``, and separated from ``y`` once no arrow leads into ``x``.

        References:
            Pearl (2009), Causality, section 7.4.
        """
        return self._criteria(x, y).instruments(self.nodes)

    def identify(self, question: str, experiments: bool = False) -> Identification:
        r"""Whether the answer to a question follows from the distribution of the observed nodes, and how.

        .. math:: P(y_{x=1} \mid x = 0) = \sum_z P(z \mid x = 0) P(y \mid z, x = 1)

        for ``identify("P(y[x=1]=1 | x=0)")`` where ``z`` blocks the back door. Without values, ``"P(y | do(x), z)"``, the estimand
        is a function of the sites named.

        Args:
            question: a probability in the notation of :func:`causalppl.query`, values being optional where no world is in brackets,
                or ``E[y ...]`` for the law of ``y``. Where an event is no equality with a number, the estimand is the law of the
                potential outcomes in it, which stand in it as variables.
            experiments: whether experiments on any of the observed sites are given too. The estimand then has terms
                ``P(y | do(x))`` where the data alone do not do.

        Raises:
            QueryError: text that cannot be read, or no single probability.
            UnknownSiteError: a name that is no node.
            GraphError: a name in the question is latent, or a factor selects the units.

        References:
            Shpitser, Pearl (2008), Complete identification methods for the causal hierarchy.

        Example:
            >>> graph = CausalGraph({"z": [], "x": ["z"], "y": ["x", "z"]})
            >>> print(graph.identify("P(y[x=1]=1 | x=0)").estimand)
            [sum_{z'} P(z') P(x=0 | z') P(y=1 | z', x=1)] / [P(x=0)]
            >>> print(graph.identify("P(y[x=1]=1, y[x=0]=0)").hedge)
            conflict: y[x=1] and y[x=0] share noise and need x at 1 and at 0 at once
        """
        self._known(names_in(question))
        asked = read_question(question, self.arrows)
        y, x, z = asked.sites()
        if asked.world is not None:  # elsewhere a site may well be named in several worlds
            _once([y | z, x])
        return verdict(asked, self.unit([y, x, z]), experiments)

    def _known(self, names: Iterable[str]) -> frozenset[str]:
        wanted = frozenset(names)
        for name in sorted(wanted):
            if name not in self.arrows:
                near = closest_name(name, self.arrows)
                raise UnknownSiteError(
                    f"the graph has no node {name!r}; its nodes are {site_list(self.arrows)}"
                    + (f"; did you mean {near!r}?" if near else "")
                )
        return wanted

    def _selected(self, graph: nx.DiGraph) -> tuple[nx.DiGraph, set[str]]:
        names = {factor: f"\0{factor}" for factor in self.selection}
        for factor, node in names.items():
            graph.add_edges_from((p, node) for p in self.selection[factor])
            graph.add_node(node)
        return graph, set(names.values())

    def unit(self, asked: Iterable[Iterable[str]]) -> UnitGraph:
        """One unit's graph, for a question about these sites.

        Raises:
            GraphError: a site is latent, or a factor selects the units.
        """
        named = frozenset().union(*map(self._known, asked))
        for name in sorted(named & self.latent):
            raise GraphError(
                f"{name!r} is latent: nothing observed tells of it; name the observed sites, causal_graph(model, observed=[...])"
            )
        for factor, parents in self.selection.items():
            if set(parents) - self.parameters:
                raise GraphError(
                    f"the factor {factor!r} selects units by {site_list(sorted(parents))}; these criteria hold for unselected units only"
                )
        graph = self.to_networkx()
        graph.remove_nodes_from(self.parameters)
        return UnitGraph(graph, frozenset(graph) - self.latent, self.deterministic)

    def _criteria(self, x: str, y: str) -> Criteria:
        _once([{x}, {y}])
        return Criteria(self.unit([{x}, {y}]), x, y)


def _once(sets: Iterable[Iterable[str]]) -> None:
    for one, other in combinations(map(frozenset, sets), 2):
        if one & other:
            raise GraphError(f"{site_list(sorted(one & other))} is named twice in the question")
