"""``set_mechanism`` as one of Pyro's effect handlers: the coupling of worlds is chosen site by site."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, overload

from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ..errors import NoMechanismError, ProgramError
from ..mechanisms import mechanism_for
from ..typing import Message, Program
from .handler import program_arguments, unknown_site

__all__ = ["MechanismMessenger", "set_mechanism"]


class MechanismMessenger(Messenger):
    """Chooses the mechanisms of sites in the program it encloses; see :func:`set_mechanism`."""

    def __init__(self, mechanisms: Mapping[Any, Any], program: Any = None) -> None:
        super().__init__()
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
        self._arguments = program_arguments(program) if program is not None else ()
        self._seen: dict[str, None] = {}

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is None:
            for key in self.mechanisms:
                names = [n for n in self._seen if _matches(key, n)]
                if not names:
                    text = key if isinstance(key, str) else key.pattern
                    raise unknown_site("set_mechanism", text, list(self._seen), self._arguments)

    def _pyro_sample(self, msg: Message) -> None:
        name = msg["name"]
        if isinstance(msg["fn"], _Subsample):
            return
        self._seen[name] = None
        for key, choice in self.mechanisms.items():
            # the first half of a site with obs_mask is where its mechanism is
            if _matches(key, name) or _matches(key, name.removesuffix("_observed")):
                infer = msg["infer"] or {}
                if infer.get("_deterministic", False):
                    continue
                if isinstance(choice, str):
                    mechanism_for(msg["fn"], choice)  # an unknown name is told here
                msg["infer"] = {**infer, "mechanism": choice}
                return


def _matches(key: str | re.Pattern[str], name: str) -> bool:
    return key == name if isinstance(key, str) else key.fullmatch(name) is not None


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
    if mechanisms is None:
        if not isinstance(model, Mapping):
            raise ProgramError(
                "set_mechanism: give the mechanisms too, such as cp.set_mechanism(model, {'y': 'inverse_cdf'}), or the mapping "
                "alone as a decorator or context manager"
            )
        return MechanismMessenger(model)
    if not callable(model):
        raise ProgramError(f"set_mechanism: {model!r} is no Pyro program; give a callable")
    changed: Program = MechanismMessenger(mechanisms, program=model)(model)
    return changed
