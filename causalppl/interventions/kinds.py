"""What ``do`` may do to a site: hard, functional, stochastic, policy, and for some units only.

An intervention replaces a site's structural assignment. All of them are functions of the value the site
would have taken by itself (its *natural* value) and of the values upstream in its own world.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import IncompatibleMechanismError, InterventionError, ShapeError

__all__ = [
    "FromWorld",
    "Functional",
    "Hard",
    "Intervention",
    "Interventions",
    "Policy",
    "Shift",
    "Stochastic",
    "Where",
    "as_intervention",
    "as_interventions",
    "cast_to",
    "fit_shape",
    "from_world",
    "index_subsamples",
    "match",
    "outcome",
    "policy",
    "replacement",
    "shift",
    "take_subsamples",
    "where",
]


@dataclass(frozen=True, eq=False)
class Hard:
    """``v = value``, whatever the parents."""

    value: Tensor


@dataclass(frozen=True, eq=False)
class Functional:
    """``v = function(natural value)``."""

    function: Callable[[Tensor], Any]


@dataclass(frozen=True, eq=False)
class Shift:
    """``v = natural value + amount``."""

    amount: Tensor


@dataclass(frozen=True, eq=False)
class Policy:
    """``v = function(values upstream in the same world)``."""

    function: Callable[[Mapping[str, Tensor]], Any]


@dataclass(frozen=True, eq=False)
class Stochastic:
    """``v ~ distribution``: the mechanism is replaced, with noise of its own."""

    distribution: Any


@dataclass(frozen=True)
class FromWorld:
    """``v`` = the value that the site has in another world of the same question."""

    world: str


@dataclass(frozen=True, eq=False)
class Where:
    """The intervention where ``mask`` is true, the natural value elsewhere."""

    mask: Tensor
    inner: Hard | Functional | Shift | Policy | FromWorld


Intervention: TypeAlias = Hard | Functional | Shift | Policy | Stochastic | FromWorld | Where
#: Site name, or a compiled regular expression that names must match in full, to intervention.
Interventions: TypeAlias = "dict[str | re.Pattern[str], Intervention]"


def shift(amount: Any) -> Shift:
    """Functional intervention ``v = natural value + amount``.

    Args:
        amount: a number, or a tensor that broadcasts to the site's ``batch_shape + event_shape``, in the site's units.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model(): return pyro.sample("x", dist.Delta(dist.Normal(0.0, 1.0).mean))
        >>> cp.do(model, {"x": cp.shift(2.0)})()
        tensor(2.)
    """
    return Shift(_tensor("shift", amount))


def policy(function: Callable[[Mapping[str, Tensor]], Any]) -> Policy:
    """Dynamic intervention: ``v = function(values)``, where ``values`` maps upstream sites to their values.

    The values are those of the intervened world itself, after its other interventions.

    Example:
        >>> import causalppl as cp
        >>> treat_the_ill = cp.policy(lambda v: (v["severity"] > 0).float())
    """
    return Policy(function)


def from_world(world: str) -> FromWorld:
    """Nested counterfactual: the site takes the value that it has in another world of the same question.

    With ``worlds={"control": {"t": 0.0}, "direct": {"t": 1.0, "m": cp.from_world("control")}}`` the outcome in ``"direct"`` is
    ``y[t=1, m=m[t=0]]``, whose contrast with ``"control"`` is the natural direct effect.

    Args:
        world: the name of a world of the question, or ``"factual"``.

    References:
        J. Pearl (2001), Direct and Indirect Effects.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     t = pyro.sample("t", dist.Normal(0.0, 1.0))
        ...     m = pyro.sample("m", dist.Normal(2 * t, 1.0))
        ...     return pyro.sample("y", dist.Normal(3 * t + m, 1.0))
        >>> posterior = cp.abduct(model, {"t": 0.0, "m": 0.0, "y": 0.0})()
        >>> worlds = posterior.predict(worlds={"control": {"t": 0.0}, "direct": {"t": 1.0, "m": cp.from_world("control")}})
        >>> float(worlds.contrast("y", "direct", "control"))
        3.0
    """
    if not isinstance(world, str):
        raise InterventionError(f"from_world: {world!r} is no world's name; give a string")
    return FromWorld(world)


def where(mask: Any, intervention: Any) -> Where:
    """Intervene on some units only; the others keep their natural value.

    Args:
        mask: booleans that broadcast to the site's shape; true where the intervention applies.
        intervention: anything ``do`` takes except a distribution.

    Raises:
        InterventionError: the mask is not boolean, or the intervention is a distribution.

    Example:
        >>> import causalppl as cp, torch
        >>> only_first = cp.where(torch.tensor([True, False]), 1.0)
    """
    mask = torch.as_tensor(mask)
    if mask.dtype != torch.bool:
        raise InterventionError(
            f"where: the mask has dtype {mask.dtype}; give booleans, such as mask.bool()"
        )
    inner = _read("where", intervention)
    if isinstance(inner, Stochastic | Where):
        raise InterventionError(
            "where: a distribution or another cp.where cannot stand inside cp.where; "
            "combine the masks, or use a policy"
        )
    return Where(mask, inner)


def as_intervention(site: str, given: Any) -> Intervention:
    """Read what a user wrote for a site.

    Raises:
        InterventionError: NaN, or something that is no number, array, tensor, distribution or callable.
    """
    read = _read(site, given)
    inner = read.inner if isinstance(read, Where) else read
    value = (
        inner.value
        if isinstance(inner, Hard)
        else inner.amount
        if isinstance(inner, Shift)
        else None
    )
    if value is not None and value.is_floating_point() and bool(torch.isnan(value.detach()).any()):
        raise InterventionError(
            f"do: the value for site {site!r} is or contains NaN; give a number, "
            "or cp.where(mask, value) to leave some units as they are"
        )
    return read


def _tensor(site: str, given: Any) -> Tensor:
    try:
        return given.clone() if isinstance(given, Tensor) else torch.tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InterventionError(
            f"do: {given!r} for site {site!r} cannot be made a tensor: {error}"
        ) from None


def _read(site: str, given: Any) -> Intervention:
    if isinstance(given, Hard | Functional | Shift | Policy | Stochastic | FromWorld | Where):
        return given
    if isinstance(given, Tensor):
        return Hard(given.clone())  # written to later, the intervention stays as it was asked
    if isinstance(given, numbers.Number | np.ndarray | np.generic | list | tuple):
        return Hard(_tensor(site, given))
    if isinstance(given, type):
        raise InterventionError(
            f"do: {given.__name__} for site {site!r} is a class; give an instance, such as dist.Normal(0.0, 1.0)"
        )
    if hasattr(given, "log_prob") and hasattr(given, "sample"):  # before callable: these are too
        return Stochastic(given)
    if callable(given):
        return Functional(given)
    raise InterventionError(
        f"do: {given!r} (a {type(given).__name__}) for site {site!r} is no intervention; give a number, "
        "an array, a tensor, a distribution, a callable of the natural value, cp.policy or cp.where"
    )


def as_interventions(given: Mapping[Any, Any] | None) -> Interventions:
    """Read a whole mapping of site to intervention."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InterventionError(
            f"do: interventions are a mapping such as {{'x': 1.0}}, not a {type(given).__name__}"
        )
    for key in given:
        if not isinstance(key, str | re.Pattern):
            raise InterventionError(
                f"do: {key!r} is no site name; keys are strings or compiled regular expressions"
            )
    return {
        key: as_intervention(key if isinstance(key, str) else key.pattern, value)
        for key, value in given.items()
    }


def match(interventions: Interventions, site: str) -> Intervention | None:
    """The intervention on a site: by name, otherwise the first pattern that matches it in full."""
    found = interventions.get(site)
    if found is None:
        for key, value in interventions.items():
            if isinstance(key, re.Pattern) and key.fullmatch(site):
                return value
    return found


def cast_to(site: str, value: Tensor, dtype: torch.dtype, verb: str = "do") -> Tensor:
    """Cast to the site's dtype; a fraction for an integer site is refused."""
    if value.dtype == dtype:
        return value
    if value.is_complex() and not dtype.is_complex:
        raise InterventionError(
            f"{verb}: the value for site {site!r} is complex, and the site's values are real ({dtype}); give a real number"
        )
    integral = not dtype.is_floating_point and not dtype.is_complex
    if integral and value.is_floating_point() and not torch._C._functorch.is_batchedtensor(value):
        if bool((value.detach() != value.detach().round()).any()):
            raise InterventionError(
                f"{verb}: {value.tolist()!r} for site {site!r} is a fraction, and the site's values are "
                f"integers ({dtype}); give whole numbers"
            )
    return value.to(dtype)


def index_subsamples(value: Tensor, subsamples: Iterable[tuple[int, int, Tensor]]) -> Tensor:
    """A value of a subsampled plate's full size, indexed by the subsample; see :func:`fit_shape`."""
    for dim, full_size, indices in subsamples:
        if value.dim() >= -dim and value.shape[dim] == full_size and len(indices) != full_size:
            value = value.index_select(value.dim() + dim, indices)
    return value


def replacement(site: str, new: Any, fn: Any) -> Any:
    """The distribution that a stochastic intervention puts in place of ``fn``, in its shape.

    Raises:
        IncompatibleMechanismError: it does not fit the site.
    """
    if new.event_dim > fn.event_dim:
        raise IncompatibleMechanismError(
            f"do: the distribution for site {site!r} has event shape {tuple(new.event_shape)}, and one value of the site has shape "
            f"{tuple(fn.event_shape)}; leave out .to_event()"
        )
    if new.event_dim < fn.event_dim and len(new.shape()) >= fn.event_dim:
        new = new.to_event(fn.event_dim - new.event_dim)
    try:
        return new.expand(fn.batch_shape)
    except RuntimeError:
        raise IncompatibleMechanismError(
            f"do: the distribution for site {site!r} has batch shape {tuple(new.batch_shape)}, which does not expand to the site's "
            f"{tuple(fn.batch_shape)}"
        ) from None


def take_subsamples(
    intervention: Intervention, subsamples: Iterable[tuple[int, int, Tensor]]
) -> Intervention:
    """An intervention whose amounts and masks of a subsampled plate's full size are the subsample's."""
    subsamples = list(subsamples)
    if isinstance(intervention, Shift):
        return Shift(index_subsamples(intervention.amount, subsamples))
    if isinstance(intervention, Where):
        inner = intervention.inner
        if isinstance(inner, Hard):
            inner = Hard(index_subsamples(inner.value, subsamples))
        elif isinstance(inner, Shift):
            inner = Shift(index_subsamples(inner.amount, subsamples))
        return Where(index_subsamples(intervention.mask, subsamples), inner)
    return intervention


def fit_shape(
    site: str,
    value: Tensor,
    shape: torch.Size,
    subsamples: Iterable[tuple[int, int, Tensor]] = (),
    verb: str = "do",
) -> Tensor:
    """Broadcast to the site's shape; where a plate is subsampled, index a full-size value by it.

    Args:
        shape: the site's ``batch_shape + event_shape``.
        subsamples: for each subsampled plate of the site: dim counted from the right of ``shape``, full size, indices.
    """
    given = value.shape
    value = index_subsamples(value, subsamples)
    try:
        return value if value.shape == shape else value.expand(shape)
    except RuntimeError:
        raise ShapeError(
            f"{verb}: the value for site {site!r} has shape {tuple(given)}, which does not broadcast to the "
            f"site's shape {tuple(shape)}; give a number or a tensor of that shape"
        ) from None


def _returned(site: str, given: Any) -> Tensor:
    if isinstance(given, Tensor):
        return given
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise InterventionError(
            f"do: the callable for site {site!r} returned {given!r}; return a number or a tensor"
        ) from None


def outcome(
    site: str,
    intervention: Hard | Functional | Shift | Policy | FromWorld | Where,
    natural: Callable[[], Tensor],
    upstream: Mapping[str, Tensor],
    index: Callable[[Tensor], Tensor] = lambda value: value,
) -> Tensor:
    """The value an intervention gives, before it is cast and broadcast (``Where`` casts by itself).

    Args:
        index: takes a subsampled plate's part of a value of full size.
    """
    if isinstance(intervention, Shift):
        return natural() + index(intervention.amount)
    if isinstance(intervention, Hard):
        return intervention.value
    if isinstance(intervention, Functional):
        return _returned(site, intervention.function(natural()))
    if isinstance(intervention, Policy):
        try:
            given = intervention.function(upstream)
        except KeyError as error:
            raise InterventionError(
                f"do: the policy for site {site!r} reads {error.args[0]!r}, which is not upstream of it; "
                f"values it may read here: {sorted(upstream)}"
            ) from None
        return _returned(site, given)
    if isinstance(intervention, FromWorld):
        raise InterventionError(
            f"do: cp.from_world({intervention.world!r}) for site {site!r} needs that world beside this one; ask "
            "cp.counterfactual or Posterior.predict with worlds="
        )
    value = natural()
    inner = index(outcome(site, intervention.inner, lambda: value, upstream, index))
    inner = cast_to(site, inner, value.dtype)
    try:
        return torch.where(index(intervention.mask), inner, value)
    except RuntimeError:
        raise ShapeError(
            f"do: for site {site!r}, where's mask {tuple(intervention.mask.shape)} and value "
            f"{tuple(inner.shape)} do not broadcast to the site's shape {tuple(value.shape)}"
        ) from None
