"""Files of tensors, numbers and text: no code in them, and not a byte read that was not written."""

from __future__ import annotations

import hashlib
import io
import pickle
import warnings
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from ..errors import ProgramError

__all__ = ["is_plain", "read_sealed", "write_sealed"]


def write_sealed(path: str | PathLike[str], layout: str, content: Mapping[str, Any]) -> None:
    """Write what :func:`read_sealed` reads, with its digest."""
    written = io.BytesIO()
    torch.save(dict(content), written)
    data = written.getvalue()
    held = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    torch.save({"layout": layout, "sha256": _digest(data), "content": held}, fspath(path))


def read_sealed(
    path: str | PathLike[str], layout: str, holds: str, written_by: str, remedy: str
) -> dict[str, Any]:
    """What the file holds, if every byte is as it was written.

    Args:
        layout: the one that this version reads; the version of a layout is its last word.
        holds, written_by, remedy: for messages, such as ``"posterior"``, ``"Posterior.save"``, ``"abduct again"``.

    Raises:
        ProgramError: it holds something else, or was damaged.
        FileNotFoundError: there is no such file.
    """
    path = fspath(path)
    wrong = (
        f"load: {path!r} holds no {holds}, or a damaged one; give a file that {written_by} wrote"
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other programs
            found = torch.load(path, weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, ValueError):
        raise ProgramError(wrong) from None
    if not isinstance(found, dict) or not isinstance(found.get("content"), Tensor):
        raise ProgramError(wrong)
    given = str(found.get("layout"))
    if given.rpartition(" ")[0] != layout.rpartition(" ")[0]:
        raise ProgramError(wrong)
    if given != layout:
        raise ProgramError(
            f"load: {path!r} was written in the layout {given!r} and this version reads {layout!r}; load it with the "
            f"version that wrote it, or {remedy}"
        )
    data = found["content"].numpy().tobytes()
    if _digest(data) != found.get("sha256"):
        raise ProgramError(wrong)
    content: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
    return content


def is_plain(value: Any) -> bool:
    """Whether a value is made of tensors, numbers, text, lists, tuples and dicts alone."""
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and is_plain(v) for k, v in value.items())
    return value is None or isinstance(value, bool | int | float | str) or type(value) is Tensor


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
