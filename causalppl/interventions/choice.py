"""``set_mechanism`` as one of Pyro's effect handlers: the coupling of worlds is chosen site by site."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, overload

from ..errors import NoMechanismError
from ..mechanisms import mechanism_for
from ..typing import Message, Program
from .site_handler import SiteHandler, three_forms

__all__ = ["MechanismMessenger", "set_mechanism"]


class MechanismMessenger(SiteHandler):
    """Chooses the mechanisms of sites in the program it encloses; see :func:`set_mechanism`."""

    verb = "set_mechanism"

    def __init__(self, mechanisms: Mapping[Any, Any], program: Any = None) -> None:
        super().__init__(mechanisms, program)
        for key, choice in mechanisms.items():
            if not isinstance(key, str | re.Pattern):
                raise NoMechanismError(
                    f"set_mechanism: {key!r} is no site name; keys are strings or patterns"
                )
            methods = ("noise", "forward", "base", "abduct")
            if not isinstance(choice, str) and not all(hasattr(choice, m) for m in methods):
                raise NoMechanismError(
                    f"set_mechanism: {choice!r} for site {key!r} is neither a mechanism's name, such as 'inverse_cdf', nor a mechanism"
                )
        self.mechanisms = dict(mechanisms)

    def _pyro_sample(self, msg: Message) -> None:
        name, infer = msg["name"], msg["infer"] or {}
        if not self._shown(msg) or infer.get("_deterministic", False):
            return
        for key, choice in self.mechanisms.items():
            # the first half of a site with obs_mask is where its mechanism is
            if self._names(key, name) or self._names(key, name.removesuffix("_observed")):
                if isinstance(choice, str):
                    mechanism_for(msg["fn"], choice)  # an unknown name is told here
                msg["infer"] = {**infer, "mechanism": choice}
                return


@overload
def set_mechanism(model: Program, mechanisms: Mapping[Any, Any]) -> Program: ...
@overload
def set_mechanism(model: Mapping[Any, Any], mechanisms: None = None) -> MechanismMessenger: ...


def set_mechanism(
    model: Program | Mapping[Any, Any], mechanisms: Mapping[Any, Any] | None = None
) -> Program | MechanismMessenger:
    """Choose the structural assignments of some sites, and with them how worlds are coupled.

    A distribution does not determine its mechanism: all choices agree on rungs 1 and 2 and may disagree on rung 3. The same can be
    written at the site, ``pyro.sample("y", fn, infer={"mechanism": "inverse_cdf"})``; this wins where both are given.

    Three forms: ``set_mechanism(model, {...})`` returns a program; ``set_mechanism({...})`` is a decorator and a context manager.

    Args:
        model: a Pyro program, or the mapping alone for the other two forms.
        mechanisms: site name (or compiled regular expression) to the name of a mechanism of the site's family, or a
            :class:`~causalppl.mechanisms.protocol.Mechanism`.

    Raises:
        UnknownSiteError: at the end of a run, where no run has shown the site.
        NoMechanismError: the site's family has no mechanism of that name.

    Example:
        >>> import causalppl as cp, pyro, pyro.distributions as dist
        >>> def model():
        ...     x = pyro.sample("x", dist.Normal(0.0, 1.0))
        ...     return pyro.sample("y", dist.Normal(x, 1.0))
        >>> reflected = cp.set_mechanism(model, {"y": "antitone"})
        >>> worlds = cp.counterfactual(reflected, {"x": 1.0}, {"x": 0.0, "y": 2.0})()
        >>> worlds.tensor("y", world="counterfactual")
        tensor([-1.])
    """
    found: Program | MechanismMessenger = three_forms(
        MechanismMessenger, "set_mechanism", "{'y': 'inverse_cdf'}", model, mechanisms
    )
    return found
