"""The finite part of any program, as bounds read it: tables of its finite sites, and cells of those that are compared with numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..notation.resolution import Arrows, Resolved
from ..notation.terms import Comparison, Number, Outcome, Term
from ..structural.form import StructuralForm
from ..structural.sites import Site
from .finite import FiniteModel, obstacle
from .open_terms import OpenTerms
from .relevance import relevance
from .response_bounds import Meaning
from .response_polynomials import FiniteProgram
from .site_laws import SiteLaws, cell_probabilities
from .supports import range_of

__all__ = ["FinitePart"]


class FinitePart:
    """What the terms of a query come to for the finite sites of a program.

    Args:
        form: the program.
        arrows: site to its direct parents.
        terms: the resolved terms.
        whole: the program as tables, where Python sees values and it is finite.

    Attributes:
        open: the scalar sites without a table, whose laws are known where their family has a distribution function.
        meanings: term to what it comes to.
    """

    def __init__(
        self,
        form: StructuralForm,
        arrows: Arrows,
        terms: Mapping[Term, Resolved],
        whole: FiniteModel | None,
    ) -> None:
        self._form, self._arrows, self._whole = form, arrows, whole
        readable = {} if form.dependencies.hidden else form.sites
        self.open = tuple(n for n, s in readable.items() if _is_open(s))
        self._reader = OpenTerms(
            SiteLaws(form),
            arrows,
            tuple(arrows) if whole else tuple(n for n, s in readable.items() if not obstacle(s)),
            self.open,
            tuple(n for n in self.open if form.sites[n].discrete),
        )
        read = {term: self._meaning(resolved) for term, resolved in terms.items()}
        self.meanings = {term: self._reader.in_cells(meaning) for term, meaning in read.items()}

    def _meaning(self, resolved: Resolved) -> Meaning:
        known = range_of(resolved.term, self._form, self._arrows)
        term = resolved.term
        if resolved.rung == 3:
            # what is observed of the unit; factors weigh it in ways that tables do not tell
            if any(s.kind == "factor" for s in self._form.sites.values()):
                return Meaning(known)
            told = (Comparison(Outcome(n), "=", Number(v)) for n, v in self._observed())
            term = replace(term, given=(*term.given, *told))
        return self._reader.meaning(term, known)

    def _observed(self) -> Iterator[tuple[str, float]]:
        """Observed sites and their values; NaN for those without one number, which no table has anyway."""
        for name, site in self._form.sites.items():
            if site.observed and site.kind == "sample":
                yield name, float(site.value) if not site.value.dim() else math.nan

    def compared(self) -> tuple[str, ...]:
        """Open sites whose values were compared with each other."""
        return self._reader.compared_sites()

    def program(self) -> FiniteProgram:
        """The finite sites that the terms came to.

        Raises:
            NotFinite: some site has no table after all.
        """
        model = self._whole
        if model is None:
            model = FiniteModel(self._form, relevance(self._reader.needed, self._arrows))
        return _Tables(model, self._reader)

    def nothing(self) -> FiniteProgram:
        """A program without sites; no term is known but for its range."""
        self.meanings = {term: Meaning(m.known) for term, m in self.meanings.items()}
        return _Nothing()


def _is_open(site: Site) -> bool:
    plain = site.kind == "sample" and not site.frames and not site.masked
    return plain and not site.value.dim() and obstacle(site) is not None


@dataclass(frozen=True)
class _Nothing:
    sites: Sequence[str] = ()

    @property
    def parents(self) -> Mapping[str, Sequence[str]]:
        return {}

    def conditional(self, site: str, given: Mapping[str, float]) -> Mapping[float, float]:
        raise KeyError(site)


class _Tables:
    """Tables of the finite sites that matter, and of the cells of the open ones that are compared with numbers."""

    def __init__(self, model: FiniteModel, reader: OpenTerms) -> None:
        self._model, self._reader = model, reader
        cells = reader.thresholds
        self.sites = (*model.nodes, *cells)
        self.parents = {**model.parents, **{n: tuple(reader.arrows[n]) for n in cells}}

    def conditional(self, site: str, given: Mapping[str, float]) -> Mapping[float, float]:
        if site in self._reader.thresholds:
            own = {p: given[p] for p in self.parents[site]}
            return cell_probabilities(
                self._reader.laws.given(site, own), self._reader.thresholds[site]
            )
        law = self._model.conditional(site, given)
        if isinstance(law, float):
            return {law: 1.0}
        return dict(zip(law.support, law.probabilities, strict=True))
