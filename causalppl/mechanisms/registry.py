"""From a distribution to its mechanism: a registry by type that users extend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import NoMechanismError, closest_name, site_list
from .protocol import Mechanism

__all__ = [
    "all_registered",
    "mechanism_for",
    "mechanism_names",
    "register_mechanism",
    "register_wrapper",
    "registered",
]

#: What a wrapper's entry computes: the mechanism of a composed distribution from those of its parts.
WrapperRule = Callable[[Any, "str | None"], Mechanism]

_MECHANISMS: dict[type, dict[str, Mechanism]] = {}
_WRAPPERS: dict[type, WrapperRule] = {}


def register_mechanism(
    distribution: type, mechanism: Mechanism, name: str | None = None
) -> Mechanism:
    """Register the structural assignment of a distribution class.

    The first mechanism registered for a class is its default; further ones are reached by name. Registering a
    name again replaces it.

    Args:
        distribution: the distribution class; subclasses inherit unless they have an entry of their own.
        mechanism: an object with the methods of :class:`~causalppl.mechanisms.protocol.Mechanism`.
        name: the name users ask for; the mechanism's own by default.

    Returns:
        the mechanism, so that the call can stand in an expression.

    Raises:
        NoMechanismError: where the object lacks a method of the protocol.

    Example:
        >>> import causalppl as cp, pyro.distributions as dist
        >>> class MyNormal(dist.Normal): pass
        >>> _ = cp.register_mechanism(MyNormal, cp.mechanism_for(dist.Normal(0.0, 1.0)))
    """
    if not isinstance(distribution, type):
        raise NoMechanismError(
            f"register_mechanism: {distribution!r} is no class; give the distribution's class, "
            "such as dist.Normal, not an instance"
        )
    missing = [m for m in ("noise", "forward", "base", "abduct") if not hasattr(mechanism, m)]
    if missing or not hasattr(mechanism, "invertible"):
        lacking = site_list(missing or ["invertible"])
        raise NoMechanismError(
            f"register_mechanism: {mechanism!r} is no mechanism for {distribution.__name__}: "
            f"it lacks {lacking}"
        )
    key = name if name is not None else getattr(mechanism, "name", type(mechanism).__name__)
    _MECHANISMS.setdefault(distribution, {})[key] = mechanism
    return mechanism


def register_wrapper(distribution: type) -> Callable[[WrapperRule], WrapperRule]:
    """Register the rule that composes a wrapper's mechanism from its base's (a decorator)."""

    def decorate(rule: WrapperRule) -> WrapperRule:
        _WRAPPERS[distribution] = rule
        return rule

    return decorate


def registered(distribution: type) -> dict[str, Mechanism]:
    """The mechanisms registered for exactly this class, by name, the default first."""
    return dict(_MECHANISMS.get(distribution, {}))


def all_registered() -> list[tuple[type, list[Mechanism]]]:
    """Every class with mechanisms of its own, and these."""
    return [(family, list(named.values())) for family, named in _MECHANISMS.items()]


def mechanism_names(distribution: type) -> list[str]:
    """Names of the mechanisms registered for a class, the default first."""
    for cls in distribution.__mro__:
        if cls in _MECHANISMS:
            return list(_MECHANISMS[cls])
    return []


def mechanism_for(distribution: Any, name: str | None = None) -> Mechanism:
    """The mechanism of a distribution instance.

    Dispatch is on the type, the most derived registered class first; wrappers (``Independent``,
    ``ExpandedDistribution``, ``TransformedDistribution``, ...) are resolved by recursion.

    Args:
        distribution: a distribution instance.
        name: the mechanism asked for; the documented default of the family where ``None``.

    Returns:
        a :class:`~causalppl.mechanisms.protocol.Mechanism`.

    Raises:
        NoMechanismError: where none is registered, also for the base of a wrapper, or none of that name.

    Example:
        >>> import causalppl as cp, pyro.distributions as dist
        >>> cp.mechanism_for(dist.Normal(0.0, 1.0)).name
        'affine'
    """
    for cls in type(distribution).__mro__:
        named = _MECHANISMS.get(cls)
        if named is not None:
            if name is None:
                return next(iter(named.values()))
            if name in named:
                return named[name]
            near = closest_name(name, named)
            raise NoMechanismError(
                f"{type(distribution).__name__} has no mechanism named {name!r}; it has "
                f"{site_list(named)}" + (f"; did you mean {near!r}?" if near else "")
            )
        rule = _WRAPPERS.get(cls)
        if rule is not None:
            return rule(distribution, name)
    raise NoMechanismError(
        f"no mechanism is registered for {type(distribution).__name__}; "
        f"register one with cp.register_mechanism({type(distribution).__name__}, mechanism), "
        "or choose a distribution from the table in the documentation"
    )
