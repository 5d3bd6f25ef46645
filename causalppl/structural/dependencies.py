"""Which site's values enter which distribution of a program: the arrows of its causal graph.

The program is run, once, on one set of values, and :mod:`~causalppl.structural.provenance` follows the value of every
site into the parameters of later sites. What is found is a superset of the arrows that carry an effect: dependence is
followed through operations (``0 * x`` depends on ``x``), and a value that Python got to see may steer everything that
comes after it. Sites in branches that were not taken are unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample

from ..errors import ProgramError, UnknownSiteError, closest_name, site_list
from ..typing import Message, Program, Values
from .provenance import Labels, Provenance

__all__ = ["Dependencies", "DependencyTracker", "SiteKind", "site_kind", "track"]

#: What a node of the graph is. A factor has no value, so it is never a parent.
SiteKind = Literal["sample", "observed", "deterministic", "factor"]


@dataclass(frozen=True)
class Dependencies:
    """The sites of a program and the sites that each depends on directly.

    Attributes:
        parents: site to its direct parents, in the order of the program. A deterministic site is a node of its own: it
            stands between its parents and its children.
        kinds: site to ``"sample"``, ``"observed"``, ``"deterministic"`` or ``"factor"``.
        control: site to those of its parents that are there only because Python saw their values before (an ``if``, a
            loop bound, ``.item()``): the arrow may carry no effect, and in another run the site may not exist.
        hidden: all sites whose values Python saw.
        weights: site to the sites that its mask or scale depends on: they weigh its density and do not enter its value.

    Example:
        >>> chain = Dependencies({"a": frozenset(), "b": frozenset("a"), "c": frozenset("b")})
        >>> sorted(chain.ancestors("c")), sorted(chain.descendants(["a"]))
        (['a', 'b'], ['b', 'c'])
    """

    parents: Mapping[str, Labels]
    kinds: Mapping[str, SiteKind] = ()  # type: ignore[assignment]
    control: Mapping[str, Labels] = ()  # type: ignore[assignment]
    hidden: Labels = frozenset()
    weights: Mapping[str, Labels] = ()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for name in ("kinds", "control", "weights"):
            object.__setattr__(self, name, dict(getattr(self, name)))

    @property
    def sites(self) -> tuple[str, ...]:
        """All sites, in the order of the program."""
        return tuple(self.parents)

    def ancestors(self, names: str | Iterable[str]) -> Labels:
        """All sites from which a directed path leads to one of ``names``.

        A site is no ancestor of itself; one of ``names`` that precedes another is among the result.

        Raises:
            UnknownSiteError: where a name is no site of the program.
        """
        return _reachable(self._known(names), self.parents)

    def descendants(self, names: str | Iterable[str]) -> Labels:
        """All sites to which a directed path leads from one of ``names``.

        Raises:
            UnknownSiteError: where a name is no site of the program.
        """
        children: dict[str, set[str]] = {name: set() for name in self.parents}
        for child, parents in self.parents.items():
            for parent in parents:
                children.setdefault(parent, set()).add(child)
        return _reachable(self._known(names), children)

    def of_all_branches(self, fixed: Iterable[str]) -> Dependencies:
        """What may hold in other runs: where Python saw values that vary, what follows may depend on all that came before.

        Args:
            fixed: sites whose values are the same in all runs.
        """
        known = set(fixed)
        for name, parents in self.parents.items():
            if self.kinds.get(name) == "deterministic" and parents <= known:
                known.add(name)
        open_ = self.hidden - known
        if not open_:
            return self
        joined: dict[str, Labels] = {}
        before: set[str] = set()
        for name, own in self.parents.items():
            joined[name] = own | before if own & open_ else own
            if self.kinds.get(name) != "factor":
                before.add(name)
        return replace(self, parents=joined)

    def _known(self, names: str | Iterable[str]) -> list[str]:
        wanted = [names] if isinstance(names, str) else list(names)
        for name in wanted:
            if name not in self.parents:
                raise _unknown(name, self.parents)
        return wanted


class DependencyTracker:
    """Follows the values of sites while a program runs inside this context.

    A handler calls :meth:`site` for each site once its value is fixed, and gives the program the value that it returns.
    What the handler itself computes in between belongs in :meth:`ignoring_escapes`, so that a rejection sampler's loop
    or a check does not count as the program's control flow. Parameters (``pyro.param``, ``nn.Parameter``) are no nodes.

    Example:
        >>> import pyro.distributions as dist
        >>> with DependencyTracker() as tracker:
        ...     x = tracker.site("x", dist.Normal(0.0, 1.0), torch.tensor(0.3))
        ...     fn = dist.Normal(torch.stack([x, x * 2]), 1.0).to_event(1)
        ...     y = tracker.site("y", fn, torch.zeros(2))
        >>> tracker.dependencies().parents
        {'x': frozenset(), 'y': frozenset({'x'})}
    """

    def __init__(self) -> None:
        self._provenance = Provenance(self._escaped)
        self._parents: dict[str, Labels] = {}
        self._kinds: dict[str, SiteKind] = {}
        self._control: dict[str, Labels] = {}
        self._weights: dict[str, Labels] = {}
        self._hidden: Labels = frozenset()

    def __enter__(self) -> DependencyTracker:
        self._provenance.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._provenance.__exit__(*exception)

    @property
    def hidden(self) -> Labels:
        """The sites whose values Python has seen up to now."""
        return self._hidden

    def ignoring_escapes(self) -> AbstractContextManager[None]:
        """A context for code that is not the program's own: values read in it are not its control flow."""
        return self._provenance.silent()

    def provenance(self, obj: Any) -> Labels:
        """The sites whose values entered a tensor, or any tensor reachable from an object such as a distribution.

        Direct ones only: a value of site ``b`` counts as ``b``, whatever ``b`` came from.
        """
        return self._provenance.of(obj)

    def tag(self, name: str, value: Any) -> Any:
        """The value of site ``name``, to be used downstream: equal numbers in fresh memory that is labelled ``name``.

        Containers are tagged part by part. A value without a tensor cannot be followed, so it counts as seen by Python.
        """
        labels = frozenset({name})
        if isinstance(value, torch.Tensor):
            return self._provenance.label(value, labels)
        if isinstance(value, dict):
            return {key: self.tag(name, part) for key, part in value.items()}
        if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
            return type(value)(self.tag(name, part) for part in value)
        self._hidden |= labels
        return value

    def site(
        self, name: str, fn: Any, value: Any, kind: SiteKind = "sample", weights: Any = ()
    ) -> Any:
        """Record a site and its parents, and :meth:`tag` its value.

        Args:
            name: the site's name.
            fn: its distribution; not looked at for a deterministic site.
            value: its value, of shape ``batch_shape + event_shape`` of ``fn``.
            kind: a deterministic or observed site also depends on what its value came from.
            weights: what the site's density is masked and scaled by.

        Returns:
            the value that the program is to go on with.

        Raises:
            ProgramError: where the program has used the name before.
        """
        if name in self._parents:
            raise ProgramError(
                f"the program has two sites named {name!r}; give each its own name, such as "
                f"f'{name}_{{i}}' in a loop"
            )
        parents: Labels = frozenset()
        if kind != "deterministic":
            parents |= self.provenance(fn)
        if kind in ("deterministic", "observed"):
            parents |= self.provenance(value)
        self._parents[name] = parents | self._hidden
        self._control[name] = self._hidden - parents
        self._kinds[name] = kind
        self._weights[name] = self.provenance(weights)
        return value if kind == "factor" else self.tag(name, value)

    def dependencies(self) -> Dependencies:
        """What has been recorded up to now."""
        return Dependencies(
            parents=dict(self._parents),
            kinds=dict(self._kinds),
            control=dict(self._control),
            hidden=self._hidden,
            weights=dict(self._weights),
        )

    def _escaped(self, labels: Labels) -> None:
        self._hidden |= labels


def site_kind(message: Message) -> SiteKind:
    """What node of the graph a sample message is; an intervened site is deterministic."""
    if (message["infer"] or {}).get("_deterministic", False):
        return "deterministic"
    fn = message["fn"]
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    if isinstance(fn, dist.Unit):
        return "factor"
    return "observed" if message["is_observed"] else "sample"


class _TrackMessenger(Messenger):
    """Gives sites their values, in the order: given, the program's own, drawn."""

    def __init__(self, tracker: DependencyTracker, values: Values) -> None:
        super().__init__()
        self.tracker = tracker
        self.values = values

    def _pyro_sample(self, message: Any) -> None:
        if site_is_subsample(message):
            return
        name, kind = message["name"], site_kind(message)
        with self.tracker.ignoring_escapes():
            if name in self.values and kind in ("sample", "observed"):
                message["value"] = torch.as_tensor(self.values[name])
            elif message["value"] is None:
                message["value"] = message["fn"](*message["args"], **message["kwargs"])
        message["done"] = True

    def _pyro_post_sample(self, message: Any) -> None:
        if not site_is_subsample(message):
            weights = (message["mask"], message["scale"])
            message["value"] = self.tracker.site(
                message["name"], message["fn"], message["value"], site_kind(message), weights
            )


def track(
    model: Program,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    values: Values | None = None,
) -> Dependencies:
    """Run a program once and see which site's values enter which distribution.

    Argument validation is off while the program runs, and handlers outside this call do not see it. The global random
    number generators and settings are as before afterwards; the param store gains the program's own parameters only.

    Args:
        model: the Pyro program.
        args: its positional arguments.
        kwargs: its keyword arguments.
        values: site name to the value it is given in this run, in the site's shape; sites without one are drawn.
            Observed sites can be given another value; deterministic ones follow from the others, so that their entries
            are not used.

    Returns:
        the :class:`Dependencies`, sites in the order of the program. Subsampling is no site; factors are.

    Raises:
        UnknownSiteError: where ``values`` names a site that the program does not have.
        ProgramError: where the program uses a site's name twice.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     m = pyro.deterministic("m", x**2)
        ...     return pyro.sample("y", dist.Normal(m, 1.0))
        >>> track(model).parents
        {'x': frozenset(), 'm': frozenset({'x'}), 'y': frozenset({'m'})}
    """
    given = dict(values or {})
    tracker = DependencyTracker()
    with _undisturbed(), _TrackMessenger(tracker, given), tracker:
        model(*args, **(kwargs or {}))
    found = tracker.dependencies()
    for name in given:
        if name not in found.parents:
            raise _unknown(name, found.parents)
    return found


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No outer handlers, no validation, and the state of the generators given back."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        with pyro.poutine.block(), pyro.validation_enabled(False):
            yield


def _reachable(start: Iterable[str], arrows: Mapping[str, Iterable[str]]) -> Labels:
    found: set[str] = set()
    todo = list(start)
    while todo:
        for name in arrows.get(todo.pop(), ()):
            if name not in found:
                found.add(name)
                todo.append(name)
    return frozenset(found)


def _unknown(name: str, sites: Iterable[str]) -> UnknownSiteError:
    known = list(sites)
    near = closest_name(name, known)
    return UnknownSiteError(
        f"the program has no site {name!r}; its sites are {site_list(known)}"
        + (f"; did you mean {near!r}?" if near else "")
    )
