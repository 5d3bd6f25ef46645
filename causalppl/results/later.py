"""A field of a frozen dataclass that is computed when it is first read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, overload

__all__ = ["Later", "TextOrLater"]

#: What such a field may be given.
TextOrLater: TypeAlias = str | Callable[[], str | None] | None


class Later:
    """Stores text, ``None``, or a function that gives it; reads as the text."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> None: ...
    @overload
    def __get__(self, instance: object, owner: type) -> str | None: ...
    def __get__(self, instance: object | None, owner: type) -> str | None:
        if instance is None:
            return None  # what dataclass takes for the default
        fields: dict[str, Any] = instance.__dict__
        if callable(fields[self._name]):
            fields[self._name] = fields[self._name]()
        text: str | None = fields[self._name]
        return text

    def __set__(self, instance: object, value: TextOrLater) -> None:
        instance.__dict__[self._name] = value
