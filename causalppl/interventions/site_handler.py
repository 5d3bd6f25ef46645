"""What the handlers of this package share: keys that name sites, a check that some run showed them, and three forms."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ..errors import ProgramError, UnknownSiteError, closest_name, site_list
from ..typing import Message

__all__ = ["SiteHandler", "program_arguments", "three_forms", "unknown_site"]


def program_arguments(program: Any) -> tuple[str, ...]:
    """Names of a program's own arguments, where they can be read."""
    try:
        return tuple(inspect.signature(getattr(program, "forward", program)).parameters)
    except (TypeError, ValueError):
        return ()


def unknown_site(
    verb: str, name: str | re.Pattern[str], sites: list[str], arguments: tuple[str, ...] = ()
) -> UnknownSiteError:
    """The error for a site that no run has shown, with what to type instead."""
    if isinstance(name, re.Pattern):
        return UnknownSiteError(
            f"{verb}: no site matches the pattern {name.pattern!r} in full. The program's sites: {site_list(sites)}"
        )
    if name in arguments:
        return UnknownSiteError(
            f"{verb}: {name!r} is an argument of the program, not a site; to make it one, write "
            f'{name} = pyro.deterministic("{name}", {name}) at the top of the program'
        )
    near = closest_name(name, sites)
    hint = f"; did you mean {near!r}?" if near else "."
    return UnknownSiteError(
        f"{verb}: the program has no site {name!r}{hint} Its sites: {site_list(sites)}"
    )


class SiteHandler(Messenger):
    """A handler of the sites named by the keys of a mapping: names, or compiled patterns matched in full.

    Args:
        keys: what the user named.
        program: the program that the handler encloses, where it is known.
    """

    verb: str

    def __init__(self, keys: Mapping[Any, Any], program: Any = None) -> None:
        super().__init__()
        self._keys = tuple(keys)
        self._arguments = program_arguments(program) if program is not None else ()
        self._seen: dict[str, None] = {}  # over all runs: a site in a branch is no mistake

    def _shown(self, msg: Message) -> bool:
        """Note a site; whether it can be handled: indices of subsamples and factors cannot."""
        factor = msg["is_observed"] and (msg["infer"] or {}).get("is_auxiliary", False)
        if isinstance(msg["fn"], _Subsample) or factor:
            return False
        self._seen[msg["name"]] = None
        return True

    def _names(self, key: Any, name: str) -> bool:
        return key.fullmatch(name) is not None if isinstance(key, re.Pattern) else key == name

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if kind is not None:
            return
        if self._keys and not self._seen:
            raise UnknownSiteError(
                f"{self.verb}: no site was run inside. Run the program itself in the block; questions such as cp.counterfactual run it "
                f"closed to handlers outside, so give them the changed program, cp.{self.verb}(model, ...)"
            )
        for key in self._keys:
            if not any(self._names(key, name) for name in self._seen):
                raise unknown_site(self.verb, key, list(self._seen), self._arguments)


def three_forms(
    handler: Callable[..., SiteHandler], verb: str, example: str, model: Any, given: Any
) -> Any:
    """``verb(model, mapping)`` is a program; ``verb(mapping)`` a decorator and a context manager."""
    if given is None:
        if not isinstance(model, Mapping):
            raise ProgramError(
                f"{verb}: give the mapping too, such as cp.{verb}(model, {example}), or the mapping alone as a decorator or "
                "context manager"
            )
        return handler(model)
    if not callable(model):
        raise ProgramError(f"{verb}: {model!r} is no Pyro program; give a callable")
    return handler(given, program=model)(model)
