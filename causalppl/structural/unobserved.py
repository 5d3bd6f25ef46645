"""A program whose data are drawn instead of observed: what simulations are made with."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample

from ..typing import Message, Program
from .sites import site_kind

__all__ = ["without_observations"]


class _Unobserved(Messenger):
    """``obs=`` sites are drawn. Factors and deterministic sites, which Pyro observes too, stay as they are."""

    def _pyro_sample(self, msg: Message) -> None:  # type: ignore[override]
        if (
            msg["is_observed"]
            and site_kind(msg) == "sample"
            and not isinstance(msg["fn"], _Subsample)
        ):
            msg["is_observed"], msg["value"] = False, None


def without_observations(model: Program) -> Program:
    """The program with its ``obs=`` sites drawn instead of observed."""

    def unobserved(*args: Any, **kwargs: Any) -> Any:
        with _Unobserved():
            return model(*args, **kwargs)

    return unobserved
