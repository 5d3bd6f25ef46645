"""The handler that gives every site of a program its value by one rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from ..errors import ProgramError
from ..typing import Message
from .sites import site_kind

if TYPE_CHECKING:
    from .form import StructuralForm

__all__ = ["SiteMessenger"]


class SiteMessenger(Messenger):
    """Gives every site its value by one rule, hidden from handlers outside the program."""

    def __init__(self, rule: Callable[[Message], Tensor], form: StructuralForm) -> None:
        super().__init__()
        self.rule, self.form = rule, form
        self.values: dict[str, Tensor] = {}
        self.sizes: dict[str, int] = {}

    def _process_message(self, msg: Message) -> None:  # type: ignore[override]
        msg["stop"] = True
        kind, name = msg["type"], msg["name"]
        if kind == "param":
            if name in self.form.params:
                msg["value"], msg["done"] = self.form.params[name], True
        elif kind == "sample":
            if isinstance(msg["fn"], _Subsample):
                self._indices(msg)
                return
            if name in self.values:
                raise ProgramError(
                    f"the program has two sites named {name!r}; give each its own name"
                )
            if name in self.form.halves:
                msg["value"], msg["done"] = self.values[self.form.halves[name]], True
                return
            if name in self.form.restated:
                msg["mask"] = None
            if msg["value"] is None and site_kind(msg) == "deterministic":  # poutine.uncondition
                msg["value"] = msg["fn"].sample()
            value = self.rule(msg)
            msg["value"], msg["done"] = value, True
            if site_kind(msg) != "factor":
                self.values[name] = value

    def _indices(self, msg: Message) -> None:
        """A subsample is the same in every run; a plate that takes all its units has the size that it asks for."""
        name, fn = msg["name"], msg["fn"]
        if self.sizes.setdefault(name, fn.size) != fn.size:
            raise ProgramError(
                f"the program has two plates named {name!r}, of sizes {self.sizes[name]} and {fn.size}; give each its own name"
            )
        part = fn.subsample_size is not None and fn.subsample_size < fn.size
        known = self.form.indices.get(name)
        if msg["value"] is None and known is not None and (part or len(known) == fn.size):
            msg["value"] = known

    def _postprocess_message(self, msg: Message) -> None:  # type: ignore[override]
        if msg["type"] == "sample" and isinstance(msg["fn"], _Subsample):
            self.form.indices.setdefault(msg["name"], msg["value"])
        elif msg["type"] == "param" and msg["name"] not in self.form.params:
            self.form.params[msg["name"]] = msg["value"].detach().clone()
