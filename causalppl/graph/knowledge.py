"""What an answer rests on: data and graph, a coupling, the program's parametric form, or a prior that nothing observed corrects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import networkx as nx

from ..errors import GraphError
from ..notation.terms import Outcome, Setting
from ..structural import StructuralForm
from .causal_graph import CausalGraph
from .counterfactual_graph import places
from .question import Question
from .reading import graph_of
from .verdict import Grounds
from .verdicts import grounds

__all__ = ["Knowledge"]

#: From the best to the worst.
_ORDER: tuple[Grounds, ...] = ("graph", "graph and couplings", "graph and parametric form", "prior")


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What is known of a program.

    Where nothing is observed at all, and none is named, the program's own law takes the place of the data: every site but the
    parameters counts as observed, and a parameter as one that nothing informs.

    Attributes:
        form: the program with its evidence.
        parameters: the latent sites that all units share.
        arrows: site to parents in all runs, where they are known.
        observed: the observed sites; those with values where it is ``None``.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from causalppl.graph.question import read_question
        >>> def model():
        ...     u = pyro.sample("u", dist.Normal(0.0, 1.0))
        ...     x = pyro.sample("x", dist.Normal(u, 1.0))
        ...     return pyro.sample("y", dist.Normal(x + u, 1.0))
        >>> known = Knowledge(StructuralForm(model, (), {}, None, 0), observed=("x", "y"))
        >>> known.grounds([read_question("P(y | do(x))", known.graph.arrows)])
        'graph and parametric form'
    """

    form: StructuralForm
    parameters: tuple[str, ...] = ()
    arrows: Mapping[str, Iterable[str]] | None = None
    observed: tuple[str, ...] | None = None

    @cached_property
    def data(self) -> frozenset[str]:
        """The sites with values, ranges included."""
        form = self.form
        known = {
            n
            for n, s in form.sites.items()
            if s.kind == "sample" and (s.observed or s.interval is not None)
        }
        whole = {n: n.removesuffix("_observed") for n in form.halves.values()}
        return frozenset(whole.get(n, n) for n in (*known, *form.conditioned))

    @property
    def seen(self) -> frozenset[str]:
        """What counts as observed, ranges included; empty where nothing is."""
        return self.data if self.observed is None else frozenset(self.observed)

    @cached_property
    def graph(self) -> CausalGraph:
        """The graph, with what is known of it."""
        ranges = {n for n, s in self.form.sites.items() if s.interval is not None}
        observed = self.seen - ranges
        found = graph_of(self.form, observed, self.parameters, self.arrows)
        if self.seen or found.selection:
            return found
        return replace(found, latent=found.parameters)

    def uninformed(self, questions: Iterable[Question]) -> tuple[str, ...]:
        """Parameters that the questions depend on and that nothing observed comes from.

        Other latent sites are variables of a unit: their law is a part of the program's form.
        """
        graph = self.graph
        start = [(o.site, o.settings) for q in questions for o in _everything(q)]
        relevant = {site for site, _ in places(graph.arrows, start)}
        network = graph.to_networkx()
        told = self.seen.union(*graph.selection.values())
        informed = told.union(*(nx.ancestors(network, n) for n in told if n in network))
        doubtful = (relevant & graph.parameters) - graph.deterministic - informed
        return tuple(n for n in graph.nodes if n in doubtful)

    def grounds(self, questions: Iterable[Question]) -> Grounds:
        """What the answers to some questions rest on: the least certain of them."""
        asked = list(questions)
        if self.uninformed(asked):
            return "prior"
        return max((self._one(q) for q in asked), key=_ORDER.index, default="graph")

    def _one(self, question: Question) -> Grounds:
        try:
            unit = self.graph.unit(question.sites())
        except GraphError:  # something latent is asked about, or the units are selected
            return "graph and parametric form"
        return grounds(question, unit)

    def with_data(self, question: Question) -> Question:
        """The question about the one run that was observed, all of which is known."""
        given: dict[Outcome, float | None] = dict(question.given)
        for name in sorted(self.data & self.seen & self.graph.arrows.keys()):
            site = self.form.sites.get(name)
            exact = site is not None and site.missing is None and site.interval is None
            number = float(site.value) if exact and site.value.numel() == 1 else None  # type: ignore[union-attr]
            given.setdefault(Outcome(name), number)
        return replace(question, given=given, world=None if question.world else question.world)


def _everything(question: Question) -> Iterable[Outcome]:
    """All potential outcomes of a question, each with its world."""
    world = tuple(
        Setting(n, float("nan") if v is None else v) for n, v in (question.world or {}).items()
    )
    for outcome in (*question.event, *question.given):
        yield outcome if outcome.settings else Outcome(outcome.site, world)
