"""A training in a file: weights, the optimiser's state and the history, and no code."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import torch

from ..errors import ProgramError

__all__ = ["read_checkpoint", "saved_seed", "write_checkpoint"]

_LAYOUT = "causalppl training 1"


def write_checkpoint(path: str | PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a checkpoint so that at every moment the path holds a whole one: the old or the new."""
    target = os.path.abspath(fspath(path))
    handle, draft = tempfile.mkstemp(
        dir=os.path.dirname(target), prefix=f".{os.path.basename(target)}."
    )
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"layout": _LAYOUT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def read_checkpoint(
    path: str | PathLike[str] | None, settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What :func:`write_checkpoint` wrote, or ``None`` where there is no such file yet.

    Args:
        settings: those of the training that is to go on; they have to be those in the file.

    Raises:
        ProgramError: the file holds something else, or a training with other settings.
    """
    if path is None or not os.path.exists(path):
        return None
    wrong = f"checkpoint: {fspath(path)!r} holds no training, or a damaged one; give another path, or delete it to begin anew"
    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError):
        raise ProgramError(wrong) from None
    if not isinstance(found, dict) or found.get("layout") != _LAYOUT:
        raise ProgramError(wrong)
    theirs = found["settings"]
    differ = [n for n in settings if settings[n] != theirs.get(n)]
    if differ:
        shown = "; ".join(f"{n} is {settings[n]!r}, was {theirs.get(n)!r}" for n in differ)
        raise ProgramError(
            f"checkpoint: {fspath(path)!r} is of a training with other settings ({shown}); give these, or another path"
        )
    return found


def saved_seed(path: str | PathLike[str] | None) -> int | None:
    """The seed of the training in a file, for those who draw from it themselves; ``None`` where there is no file yet.

    Raises:
        ProgramError: the file holds something else.
    """
    found = read_checkpoint(path, {})
    return None if found is None else int(found["settings"]["seed"])
