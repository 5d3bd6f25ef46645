"""Programs whose sample sites are finite, as tables: each site's law given the sites that it depends on.

The tables are filled as they are asked for, by running the program at the values in question. Where Python sees
no value, the sites of a program and their order are fixed, and a law depends on the tracked parents alone. Where it
does see values (``if x:``, ``table[int(x)]``), all assignments are run; if all show the same sites, the
program is a table too, with the parents that matter; if not, sites come and go, and the program is walked run by run.

Where Python sees no value, a table needs no more than the sites that a query needs: the others keep the values of the
reference run, whatever their distributions are, and do not belong to the table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProgramError
from ..interventions import cast_to, check_support
from ..mechanisms import exact_log_prob
from ..structural.form import StructuralForm
from ..structural.sites import Site, site_kind
from ..typing import Message
from .couplings import Conditional
from .distributions import coupling_of, doubled, numbers_of, unwrapped
from .relevance import Relevance

__all__ = ["FiniteModel", "NotFinite", "Run", "obstacle"]

#: Assignments up to which a program whose values Python sees is tabulated.
TABULATED = 2**13


class NotFinite(Exception):
    """Why a program is not a finite one."""


class _Undecided(BaseException):
    """Stops a run at the first sample site without a value. Not an Exception, so that no program catches it."""


@dataclass
class Run:
    """One run of the program: its sites in order, their laws and values.

    Attributes:
        laws: sample site to its law in this run.
        values: site to its value, deterministic sites included.
        waiting: the sample site at which the run was stopped, or ``None``.
    """

    laws: dict[str, Conditional] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    waiting: str | None = None


class FiniteModel:
    """A program whose sites that matter are finite discrete scalars outside of plates, as tables in float64.

    Args:
        form: the program and its arguments, read once.
        relevance: the sites that matter; all of them where it is ``None``, or where Python sees values.

    Attributes:
        nodes: sample and deterministic sites, in the order of the reference run.
        supports: sample site to its values, in order, in the reference run.
        parents: site to the sites that its law or value depends on, in order.
        observed: ``obs=`` site to its value.
        tabulated: whether the tables were filled by running all assignments, because Python sees values.
        branching: whether different runs show different sites; then only :meth:`run` speaks for the program.

    Raises:
        NotFinite: a site that matters is continuous, infinite, no scalar, in a plate, or weighed by a mask or scale.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Bernoulli(torch.tensor(0.5, dtype=torch.float64)))
        ...     return pyro.sample("y", dist.Bernoulli(0.25 + 0.5 * x))
        >>> finite = FiniteModel(StructuralForm(model, (), {}, None, 0))
        >>> finite.parents["y"], finite.conditional("y", {"x": 1.0}).probabilities
        (('x',), (0.25, 0.75))
    """

    def __init__(self, form: StructuralForm, relevance: Relevance | None = None) -> None:
        self.form = form
        found = form.dependencies if not form.dependencies.hidden else form.dependencies_at({})
        self.relevance = None if found.hidden else relevance
        self.has_factors = any(s.kind == "factor" for s in form.sites.values())
        self._interned: dict[Any, Conditional] = {}
        self._laws: dict[Any, tuple[Conditional, Tensor]] = {}
        self._dtypes: dict[str, torch.dtype] = {}
        self._tables: dict[tuple[str, tuple[float, ...]], Conditional | float] = {}
        for site in form.sites.values():
            why = obstacle(site) if self._needs(site.name) else None
            if why is not None:
                raise NotFinite(why)
        reference = self.run({}, complete=True)
        self.nodes = tuple(reference.values)
        self.supports = {name: law.support for name, law in reference.laws.items()}
        self.observed = {
            n: float(s.value)
            for n, s in form.sites.items()
            if s.observed and s.kind == "sample" and n not in form.conditioned and n in self.nodes
        }
        self.branching, self.tabulated = False, bool(found.hidden)
        self.parents: dict[str, tuple[str, ...]] = {
            n: tuple(p for p in self.nodes if p in found.parents[n] and not self._held(n))
            for n in self.nodes
        }
        if found.hidden:
            self._tabulate()

    # --- Runs ---------------------------------------------------------------------------------------------------------

    def run(self, values: Mapping[str, float], complete: bool = False) -> Run:
        """Run the program with these sites at these values.

        Args:
            values: sample or deterministic sites to values; deterministic ones are forced.
            complete: whether sample sites without a value get their first possible one; otherwise the run stops at the first.
        """
        record = Run()

        def rule(msg: Message) -> Tensor:
            name, kind = msg["name"], site_kind(msg)
            if kind == "factor":
                return msg["value"]  # type: ignore[no-any-return]
            if self.relevance is not None and name not in self.relevance:
                return _aside(msg, self.form)
            if (
                kind == "deterministic"
                or self._held(name)
                or type(unwrapped(msg["fn"])).__name__ == "Delta"
            ):
                value = self._scalar(name, _aside(msg, self.form))
                if name in values:
                    value = self._as_tensor(name, values[name], value)
                record.values[name] = float(value)
                return value
            law, support = self._law(msg)
            record.laws[name] = law
            if name in values:
                value = self._as_tensor(name, values[name], support)
            elif complete:
                value = support[next(i for i, p in enumerate(law.probabilities) if p > 0)]
            else:
                record.waiting = name
                raise _Undecided
            record.values[name] = float(value)
            return value

        try:
            with torch.random.fork_rng(devices=[]):
                self.form.run(rule)
        except _Undecided:
            pass
        return record

    def runs(self) -> Iterator[Run]:
        """All complete runs, one for each assignment of the sample sites' supports, whatever its probability."""
        todo: list[dict[str, float]] = [{}]
        while todo:
            given = todo.pop()
            run = self.run(given, complete=True)
            yield run
            # the sites that took their first possible value are given every other one in turn
            path = dict(given)
            for name, law in run.laws.items():
                if name not in given:
                    others = [v for v in law.support if v != run.values[name]]
                    todo += [{**path, name: v} for v in others]
                    path[name] = run.values[name]

    def _tabulate(self) -> None:
        count = math.prod(len(s) for s in self.supports.values())
        found = list(itertools.islice(self.runs(), TABULATED + 1)) if count <= TABULATED else []
        self.branching = not found or len(found) > TABULATED
        self.branching |= any(tuple(run.values) != self.nodes for run in found)
        if self.branching:
            names = dict.fromkeys(n for run in found for n in run.values)
            self.nodes = tuple(dict.fromkeys((*self.nodes, *names)))
            for run in found:
                for name, law in run.laws.items():
                    self.supports.setdefault(name, law.support)
            # what comes later may depend on everything that came before
            before: dict[str, set[str]] = {n: set() for n in self.nodes}
            for run in found:
                for i, name in enumerate(run.values):
                    before[name].update(list(run.values)[:i])
            self.parents = {
                n: tuple(p for p in self.nodes if p in before[n] or p in self.parents.get(n, ()))
                for n in self.nodes
            }
            return
        self._join_branches(found)
        for name in self.nodes:
            parents = self.parents[name]
            table: dict[tuple[float, ...], Conditional | float] = {}
            for run in found:
                entry = run.laws.get(name, run.values[name])
                if table.setdefault(tuple(run.values[p] for p in parents), entry) != entry:
                    raise NotFinite(f"site {name!r} depends on more than {list(parents)}")
            # A site makes no difference only if it was seen to make none, whatever the others are: where one follows from
            # another, not all combinations were.
            while len(table) == math.prod(
                len({key[i] for key in table}) for i in range(len(parents))
            ):
                idle = next((i for i in range(len(parents)) if not _matters(table, i)), None)
                if idle is None:
                    break
                parents = parents[:idle] + parents[idle + 1 :]
                table = {key[:idle] + key[idle + 1 :]: entry for key, entry in table.items()}
            self.parents[name] = parents
            self._tables |= {(name, key): entry for key, entry in table.items()}

    def _join_branches(self, found: list[Run]) -> None:
        """Parents of all branches that Python can take, by one tracked run for each combination of the values that it sees."""
        hidden, done = set(self.form.dependencies.hidden), set[tuple[float | None, ...]]()
        todo = list(found)
        while todo:
            run = todo.pop()
            seen = tuple(run.values.get(name) for name in sorted(hidden))
            if seen in done:
                continue
            done.add(seen)
            values = {n: torch.tensor(run.values[n], dtype=self._dtypes[n]) for n in run.laws}
            there = self.form.dependencies_at(values)
            for name in self.nodes:
                more = there.parents.get(name, frozenset()) | set(self.parents[name])
                self.parents[name] = tuple(p for p in self.nodes if p in more)
            if (
                not there.hidden <= hidden
            ):  # it sees more than was known: what was the same may differ in that
                hidden |= there.hidden
                done, todo = set(), list(found)

    # --- Tables -------------------------------------------------------------------------------------------------------

    def conditional(self, site: str, values: Mapping[str, float]) -> Conditional | float:
        """The law of a sample site, or the value of a deterministic one, given its parents.

        Args:
            site: one of :attr:`nodes`.
            values: at least the site's parents.
        """
        key = (site, tuple(values[p] for p in self.parents[site]))
        if key not in self._tables:
            given = {p: values[p] for p in self.parents[site]}
            run = self.run(given, complete=True)
            for name in self.nodes:
                if name in run.values:
                    found = (name, tuple(run.values[p] for p in self.parents[name]))
                    # a site that was forced has no value of its own here
                    if name in run.laws:
                        self._tables.setdefault(found, run.laws[name])
                    elif name not in given:
                        self._tables.setdefault(found, run.values[name])
            if key not in self._tables:
                raise ProgramError(f"site {site!r} does not show at the values {given}")
        return self._tables[key]

    def effective_parents(self, site: str) -> tuple[str, ...]:
        """Those of the tracked parents whose values make a difference, by comparing all of them."""
        parents = self.parents[site]
        ranges = [self.values_of(p) for p in parents]
        table = {
            key: self.conditional(site, dict(zip(parents, key, strict=True)))
            for key in itertools.product(*ranges)
        }
        return tuple(p for i, p in enumerate(parents) if _matters(table, i))

    def values_of(self, site: str) -> tuple[float, ...]:
        """Every value that a site can have: its support, or what its code gives for all values of its parents."""
        if site in self.supports:
            return self.supports[site]
        parents = self.parents[site]
        found = {
            self.conditional(site, dict(zip(parents, key, strict=True)))
            for key in itertools.product(*(self.values_of(p) for p in parents))
        }
        return tuple(sorted(float(v) for v in found))  # type: ignore[arg-type]

    def knows(self, site: str, value: float) -> bool:
        """Whether the tables say what follows if a site is set to a value that it may never have by itself."""
        return not self.tabulated or site in self.supports or value in self.values_of(site)

    def cast(self, site: str, value: float, verb: str = "do") -> float:
        """The value as the site's dtype holds it; with ``"do"`` it must lie in the support of the reference run.

        Raises:
            InterventionError, SupportError: the value does not fit the site.
        """
        dtype = self._dtypes.get(site, torch.get_default_dtype())
        if verb != "do":
            return float(torch.tensor(value, dtype=dtype)) if dtype.is_floating_point else value
        found = cast_to(site, torch.tensor(value, dtype=torch.float64), dtype)
        known = self.form.sites.get(site)
        if known is not None and known.kind == "sample":
            check_support("do", site, known.fn, found)
        return float(found)

    def _needs(self, name: str) -> bool:
        return self.relevance is None or name in self.relevance.laws

    def _held(self, name: str) -> bool:
        """Whether the site is only ever set, so that its own law is not looked at."""
        return self.relevance is not None and name in self.relevance.held

    # --- Reading sites ------------------------------------------------------------------------------------------------

    def _scalar(self, name: str, value: Any) -> Tensor:
        value = torch.as_tensor(value)
        if value.dim() != 0:
            raise NotFinite(f"site {name!r} has shape {tuple(value.shape)}")
        self._dtypes[name] = value.dtype
        return value

    def _as_tensor(self, name: str, value: float, like: Tensor) -> Tensor:
        return torch.tensor(value, dtype=torch.float64).to(like)

    def _law(self, msg: Message) -> tuple[Conditional, Tensor]:
        name, fn = msg["name"], msg["fn"]
        if fn.shape() != ():
            raise NotFinite(f"site {name!r} has shape {tuple(fn.shape())}")
        if msg["mask"] is not None or msg["scale"] != 1.0:
            raise NotFinite(_weighed(name))
        base = unwrapped(fn)
        signature = (name, type(base), numbers_of(base), str((msg["infer"] or {}).get("mechanism")))
        if signature not in self._laws:
            self._laws[signature] = self._read_law(msg, base)
        return self._laws[signature]

    def _read_law(self, msg: Message, base: Any) -> tuple[Conditional, Tensor]:
        name = msg["name"]
        if not getattr(base, "has_enumerate_support", False):
            raise NotFinite(_infinite(name, base))
        support = base.enumerate_support(expand=False).reshape(-1)
        self._dtypes[name] = support.dtype
        exact = doubled(base)
        wide = support.double() if support.is_floating_point() else support
        with torch.no_grad():
            p = np.exp(exact_log_prob(exact, wide).reshape(-1).double().numpy())
        if not np.isfinite(p).all() or not p.sum() > 0:
            raise ProgramError(f"site {name!r} has probabilities {p.tolist()} in some run")
        p = p / p.sum()
        coupling = coupling_of(msg, base)
        values = tuple(map(float, support))
        law = Conditional(name, values, tuple(map(float, p)), *coupling)
        return self._interned.setdefault((name, values, p.tobytes(), *coupling), law), support


def obstacle(site: Site) -> str | None:
    """Why a site, as the reference run showed it, has no table; ``None`` where it has one."""
    if site.frames:
        return f"site {site.name!r} stands in the plate {site.frames[-1].name!r}"
    if site.kind == "factor":
        return None
    if site.value.dim():
        return f"site {site.name!r} has shape {tuple(site.value.shape)}"
    base = unwrapped(site.fn)
    if site.kind != "sample" or type(base).__name__ == "Delta":
        return None
    if site.masked:
        return _weighed(site.name)
    return None if getattr(base, "has_enumerate_support", False) else _infinite(site.name, base)


def _weighed(name: str) -> str:
    return f"site {name!r} is weighed by a mask or a scale"


def _infinite(name: str, base: Any) -> str:
    return f"site {name!r} ({type(base).__name__}) has no finite support"


def _aside(msg: Message, form: StructuralForm) -> Any:
    """The value of a site whose law is not asked for: its own where it follows from others, that of the reference run."""
    if msg["value"] is not None and site_kind(msg) == "deterministic":
        return msg["value"]
    if type(unwrapped(msg["fn"])).__name__ == "Delta":
        return msg["value"] if msg["value"] is not None else msg["fn"]()
    return form.sites[msg["name"]].value


def _matters(table: Mapping[tuple[float, ...], Conditional | float], i: int) -> bool:
    """Whether the ``i``-th part of the key makes a difference to some entry."""
    rest: dict[tuple[float, ...], Conditional | float] = {}
    for key, entry in table.items():
        other = key[:i] + key[i + 1 :]
        if rest.setdefault(other, entry) != entry:
            return True
    return False
