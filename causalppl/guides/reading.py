"""What a guide has to know of a program: which sites are observed, which need a law, and how they stand in plates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import MethodError, site_list
from ..interventions import program_arguments, unknown_site
from ..structural.form import StructuralForm
from ..structural.noise import keyed_seed
from ..structural.sites import Site
from ..structural.unobserved import without_observations
from ..typing import Message, Program
from .inverse import faithful_inverse

__all__ = ["Reading", "SiteShape", "refuse_moving_supports"]

#: A finite site with more values than this gets a count's law, or is refused.
_MOST_VALUES = 1000


@dataclass(frozen=True)
class SiteShape:
    """How a site's values are laid out.

    Attributes:
        plates: names of the plates that it stands in, outermost first.
        inner: shape of one unit's value: event dims, and batch dims without a plate.
        discrete: whether values are discrete.
        values: the values of one entry, where these are finite, shape ``(number,)`` or ``(number, number)`` for one-hot ones.
    """

    name: str
    family: str
    plates: tuple[str, ...]
    axes: tuple[int, ...]
    batch: int
    event: int
    inner: tuple[int, ...]
    discrete: bool
    values: Tensor | None

    @classmethod
    def of(cls, site: Site) -> SiteShape:
        """The layout of a site of a form."""
        frames = sorted((f for f in site.frames if f.vectorized), key=lambda f: -f.dim)
        event = site.fn.event_dim
        batch = site.value.dim() - event
        axes = tuple(batch + f.dim for f in frames)
        inner = tuple(s for i, s in enumerate(site.value.shape) if i not in axes)
        return cls(
            site.name,
            type(site.fn).__name__,
            tuple(f.name for f in frames),
            axes,
            batch,
            event,
            inner,
            site.discrete,
            _values(site) if site.discrete else None,
        )

    @property
    def one_hot(self) -> bool:
        """Whether one value is a row of zeros with a single one."""
        return self.values is not None and self.values.dim() == 2

    def units_first(self, value: Tensor, lead: int = 1) -> Tensor:
        """``(rows,) + batch + event`` to ``(rows,) + sizes of plates + inner``."""
        plates = [lead + a for a in self.axes]
        rest = [i for i in range(lead, value.dim()) if i not in plates]
        return value.permute(*range(lead), *plates, *rest)

    def units_back(self, value: Tensor, lead: int = 1) -> Tensor:
        """The inverse of :meth:`units_first`."""
        plates = [lead + a for a in self.axes]
        rest = [i for i in range(lead, value.dim()) if i not in plates]
        order = [*range(lead), *plates, *rest]
        back = [order.index(i) for i in range(value.dim())]
        return value.permute(*back)


class Reading:
    """A program with its data drawn, and what is asked of a guide.

    Attributes:
        form: the program with nothing observed.
        observed: the sites whose values a guide may be given.
        shapes: layouts of all sample sites.
        order: the sites that get a law, in the order of sampling, each with the sites that it depends on.
        notes: what a reader of results should know.

    Raises:
        UnknownSiteError: a name in ``observed`` that is no site.
        MethodError: nothing is observed, nothing is latent, or a plate is subsampled.
    """

    def __init__(
        self,
        model: Program,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        observed: Iterable[str] | None,
        arbitrary_evidence: bool,
        seed: int,
    ) -> None:
        self.model, self.args, self.kwargs = model, args, kwargs
        given = StructuralForm(model, args, kwargs, None, keyed_seed(seed, "given"))
        self.form = StructuralForm(
            without_observations(model), args, kwargs, None, keyed_seed(seed, "simulations")
        )
        _refuse(self.form)
        samples = {n: s for n, s in self.form.sites.items() if s.kind == "sample"}
        own = [n for n, s in given.sites.items() if s.kind == "sample" and s.observed]
        for name in observed or ():
            if name not in samples:
                raise unknown_site("observed", name, list(samples), program_arguments(model))
        names = own if observed is None else list(observed)
        if not names:
            raise MethodError(
                "AmortizedGuide: none of the program's sites has obs=, so nothing is known to be evidence; name the sites that will be, "
                f"observed=[...], among {site_list(samples)}"
            )
        self.observed = tuple(n for n in samples if n in names)
        self.shapes = {n: SiteShape.of(s) for n, s in samples.items()}
        parents = self._parents()
        relevant = _ancestors(self.observed, parents)
        sampled = {
            n: len(self.shapes[n].plates)
            for n in samples
            if n in relevant
            and not samples[n].function
            and (n not in self.observed or arbitrary_evidence)
        }
        if not any(n not in self.observed for n in sampled):
            raise MethodError(
                f"AmortizedGuide: no latent site influences what is observed ({site_list(self.observed)}), so there is nothing to "
                "learn; draws from the program are the posterior"
            )
        self.parents = parents
        self.order = faithful_inverse(parents, sampled, self.observed, self._factors)
        self.notes = self._couplings()

    @property
    def latent(self) -> tuple[str, ...]:
        """Sites with a law that are never evidence."""
        return tuple(n for n in self.order if n not in self.observed)

    def _parents(self) -> dict[str, frozenset[str]]:
        """Direct parents among sample sites; deterministic sites, and those that are functions, replaced by theirs."""
        form = self.form
        found: dict[str, frozenset[str]] = {}
        own = form.dependencies.parents
        functions = {
            n for n, s in form.sites.items() if s.kind == "deterministic" or s.function
        } - set(self.observed)
        for name in form.dependencies.sites:
            direct: frozenset[str] = frozenset()
            for parent in own[name]:
                direct |= found[parent] if parent in functions else frozenset({parent})
            found[name] = direct
        self._factors = [found[n] for n, s in form.sites.items() if s.kind == "factor"]
        return {n: found[n] for n in form.sites if n in found and n not in functions}

    def _couplings(self) -> tuple[str, ...]:
        notes = []
        for name in self.latent:
            plates = set(self.shapes[name].plates)
            outside = [
                n
                for n in self.observed
                if name in self.parents.get(n, ()) and plates - set(self.shapes[n].plates)
            ]
            if outside:
                notes.append(
                    f"units of {name!r} depend on each other given {site_list(outside)}; the guide takes them as independent"
                )
        return tuple(notes)

    @cached_property
    def record(self) -> dict[str, dict[str, Any]]:
        """The program's structure, site by site: what tells it from another program."""
        return {
            n: {
                "distribution": s.family,
                "shape of one value": list(s.inner),
                "plates": list(s.plates),
                "parents": sorted(self.parents.get(n, ())),
                "number of values": None if s.values is None else len(s.values),
            }
            for n, s in self.shapes.items()
        }


def refuse_moving_supports(reading: Reading, values: Mapping[str, Tensor]) -> None:
    """Supports have to be the same whatever the latent sites are: the bijections of two runs are compared.

    Args:
        values: simulated, ``(rows,) + site shape``.

    Raises:
        MethodError: names a site whose support moves.
    """
    ends: list[dict[str, list[Tensor]]] = []
    for row in (0, 1):
        seen: dict[str, list[Tensor]] = {}

        def rule(msg: Message, row: int = row, seen: dict[str, list[Tensor]] = seen) -> Tensor:
            name = msg["name"]
            if name in values:
                seen[name] = _ends(msg["fn"].support)
                return values[name][row]
            return msg["value"]  # type: ignore[no-any-return]

        with torch.no_grad():
            reading.form.run(rule)
        ends.append(seen)
    for name in reading.order:
        pairs = zip(ends[0].get(name, ()), ends[1].get(name, ()), strict=True)
        if any(not torch.equal(a, b) for a, b in pairs):
            raise MethodError(
                f"AmortizedGuide: the support of site {name!r} depends on other latent sites; write the site as a function of one with a "
                "fixed support, such as low + (high - low) * pyro.sample(..., Uniform(0, 1))"
            )


def _ends(support: Any) -> list[Tensor]:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return [
        torch.as_tensor(getattr(support, end))
        for end in ("lower_bound", "upper_bound")
        if hasattr(support, end)
    ]


def _refuse(form: StructuralForm) -> None:
    if form.halves:
        raise MethodError(
            f"AmortizedGuide: site {next(iter(form.halves.values()))!r} has obs_mask=, so what of it is known is a part of the program; "
            "leave obs_mask out, and give NaN in the evidence where a unit's value is missing"
        )
    for site in form.sites.values():
        for frame in site.frames:
            if frame.full_size is not None and frame.size != frame.full_size:
                raise MethodError(
                    f"AmortizedGuide: the plate {frame.name!r} is subsampled to {frame.size} of {frame.full_size}; give the program "
                    "without subsampling: a guide serves any number of units"
                )


def _values(site: Site) -> Tensor | None:
    """The values of one entry, where they are finite and the same for all entries."""
    fn = site.fn
    while isinstance(fn, torch.distributions.Independent) or hasattr(fn, "base_dist"):
        fn = fn.base_dist
    if fn.event_dim > 1 or not getattr(fn, "has_enumerate_support", False):
        return None
    try:
        found = fn.enumerate_support(expand=False)
    except (NotImplementedError, ValueError):
        return None
    if fn.event_dim == 1:
        if type(fn).__name__ not in ("OneHotCategorical", "OneHotCategoricalStraightThrough"):
            return None
        return found.reshape(len(found), -1)
    return found.flatten() if len(found) <= _MOST_VALUES else None


def _ancestors(names: Iterable[str], parents: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(names)
    while todo:
        for parent in parents.get(todo.pop(), ()):
            if parent not in found:
                found.add(parent)
                todo.append(parent)
    return found
