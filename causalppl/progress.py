"""Progress as an object that is passed in: silent by default, a bar where a person is watching."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

__all__ = ["BarProgress", "Progress", "SilentProgress", "progress_from"]


class Progress(Protocol):
    """What long work reports to."""

    def start(self, description: str, total: int | None = None) -> None:
        """Begin a stage of ``total`` steps (``None``: unknown)."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Report steps done, with a short note such as an effective sample size."""

    def stop(self) -> None:
        """End the stage."""


class SilentProgress:
    """Reports to nobody: what library calls use unless told otherwise."""

    def start(self, description: str, total: int | None = None) -> None:
        """See :class:`Progress`."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """See :class:`Progress`."""

    def stop(self) -> None:
        """See :class:`Progress`."""


class BarProgress:
    """A bar in the terminal, drawn by rich on standard error."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._description = ""

    def start(self, description: str, total: int | None = None) -> None:
        """See :class:`Progress`."""
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self.stop()
        self._description = description
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task(description, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """See :class:`Progress`."""
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, note=note)

    def stop(self) -> None:
        """See :class:`Progress`."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> BarProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def progress_from(progress: bool | Progress) -> Progress:
    """``True`` gives a bar, ``False`` silence; an object with the three methods is used as it is."""
    if progress is True:
        return BarProgress()
    if progress is False:
        return SilentProgress()
    return progress
