"""Counterfactual graphs: the sites of several worlds that share their noise, each drawn once where worlds agree on it.

A node is a site together with what its parents are: numbers, or other nodes. Two worlds in which these agree have the same
node, since the noise is the same, so that consistency and exclusion need no rules of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import networkx as nx

from ..notation.parser import to_text
from ..notation.terms import Outcome, Setting
from .mixed import MixedGraph

__all__ = ["CounterfactualGraph", "Inconsistent", "Known", "Node", "Place", "places"]

#: What is known of a site's value: a number, or the label of the node that it is the value of.
Known: TypeAlias = float | str

#: A site in the world of these settings.
Place: TypeAlias = tuple[str, tuple[Setting, ...]]


class Inconsistent(Exception):
    """The event has probability zero in every model with this graph."""


@dataclass(eq=False)
class Node:
    """A site of one or several worlds.

    Attributes:
        site: the site.
        label: a name of its own, for its value where it is summed over or left open.
        text: the potential outcome that it is, as a query has it.
        parents: the site's parents in these worlds.
        value: its value in the event.
        asked: whether the event speaks of it.
    """

    site: str
    label: str
    text: str
    parents: Mapping[str, Known]
    value: float | None = None
    asked: bool = False

    @property
    def known(self) -> Known:
        """Its value, as its children see it."""
        return self.label if self.value is None else self.value

    @property
    def summed(self) -> bool:
        """Whether the event leaves it out."""
        return not self.asked


def places(parents: Mapping[str, Iterable[str]], start: Iterable[Place]) -> list[Place]:
    """The sites and worlds that some outcomes come from, themselves included, without what is set to a number."""
    found: dict[Place, None] = {}
    todo = deque(start)
    while todo:
        site, world = todo.popleft()
        setting = next((s for s in world if s.site == site), None)
        if setting is not None:
            if isinstance(setting.value, Outcome):
                todo.append((setting.value.site, setting.value.settings))
        elif (site, world) not in found:
            found[site, world] = None
            todo.extend((p, world) for p in parents[site])
    return list(found)


class CounterfactualGraph:
    """The nodes that an event about several worlds needs, parents first.

    Args:
        graph: the observed sites.
        event: potential outcomes with their values; ``None`` where the value is left open.
        functions: the sites that are functions of their parents, without noise.

    Raises:
        Inconsistent: the event contradicts itself.

    References:
        Shpitser, Pearl (2008), Complete identification methods for the causal hierarchy.
    """

    def __init__(
        self,
        graph: MixedGraph,
        event: Mapping[Outcome, float | None],
        functions: frozenset[str] = frozenset(),
    ) -> None:
        self.graph, self.functions = graph, functions
        self.nodes: list[Node] = []
        self._by_key: dict[Hashable, Node] = {}
        self._places: dict[Place, Node] = {}
        self._labels: set[str] = set()
        self._graph_parents = {
            n: tuple(sorted(graph.directed.predecessors(n))) for n in graph.directed
        }
        values = {(o.site, o.settings): v for o, v in event.items()}
        rank = {n: i for i, n in enumerate(graph.order)}
        for place in sorted(places(self._graph_parents, values), key=lambda p: rank[p[0]]):
            node = self._places[place] = self._node(place, place in values)
            if place in values:
                self._fix(node, values[place])

    def _known(self, place: Place) -> Known:
        site, world = place
        setting = next((s for s in world if s.site == site), None)
        if setting is None:
            return self._places[place].known
        if isinstance(setting.value, Outcome):
            return self._known((setting.value.site, setting.value.settings))
        return setting.value

    def _node(self, place: Place, asked: bool) -> Node:
        site, world = place
        parents = {p: self._known((p, world)) for p in self._graph_parents[site]}
        key = (site, tuple(parents.items()))
        if key not in self._by_key:
            text = to_text(Outcome(site, world))
            label = self._unique(text if asked else site)
            self._by_key[key] = Node(site, label, text, parents)
            self.nodes.append(self._by_key[key])
        return self._by_key[key]

    def _unique(self, name: str) -> str:
        found, count = name, 1
        while found in self._labels:
            count += 1
            found = f"{name}#{count}"
        self._labels.add(found)
        return found

    def _fix(self, node: Node, value: float | None) -> None:
        node.asked = True
        if value is not None and node.value not in (None, value):
            raise Inconsistent
        if value is not None:
            node.value = value

    def components(self) -> list[list[Node]]:
        """Nodes that depend on each other through noise: copies of a site, and sites with a common latent cause."""
        joined: Any = nx.Graph()
        joined.add_nodes_from(self.nodes)
        by_site: dict[str, list[Node]] = {}
        for node in self.nodes:
            by_site.setdefault(node.site, []).append(node)
        for site, copies in by_site.items():
            if site not in self.functions:
                joined.add_edges_from((copies[0], c) for c in copies[1:])
            for other in self.graph.bidirected.neighbors(site):
                joined.add_edges_from((copies[0], c) for c in by_site.get(other, ()))
        return self._in_order(joined)

    def groups(self, components: Sequence[Sequence[Node]]) -> list[list[Sequence[Node]]]:
        """Components that a variable which is summed over ties together."""
        summed = {n.label for n in self.nodes if n.summed}
        tied: Any = nx.Graph()
        for i, component in enumerate(components):
            tied.add_node(("component", i))
            for node in component:
                for known in (node.label, *node.parents.values()):
                    if known in summed:
                        tied.add_edge(("component", i), ("variable", known))
        found = []
        for members in nx.connected_components(tied):
            chosen = sorted(i for kind, i in members if kind == "component")
            found.append([components[i] for i in chosen])
        return sorted(found, key=lambda g: self.nodes.index(g[0][0]))

    def _in_order(self, joined: Any) -> list[list[Node]]:
        place = {node: i for i, node in enumerate(self.nodes)}
        found = [sorted(c, key=place.__getitem__) for c in nx.connected_components(joined)]
        return sorted(found, key=lambda c: place[c[0]])

    def signatures(self, shared: dict[Hashable, int]) -> dict[str, int]:
        """Label to a number that says what the node is; nodes of two graphs that are the same have the same one.

        Args:
            shared: what the numbers stand for, filled by this.
        """
        found: dict[str, int] = {}
        for node in self.nodes:
            parents = tuple(
                (p, found.get(k, k) if isinstance(k, str) else k) for p, k in node.parents.items()
            )
            key = (
                node.site,
                tuple((p, type(k).__name__, k) for p, k in parents),
                node.value,
                node.text if node.asked else "",
            )
            found[node.label] = shared.setdefault(key, len(shared))
        return found
