"""Model files: Python files that define a Pyro program and, by a convention, its data."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import CausalPPLError, closest_name
from ..typing import Program

__all__ = ["ProgramFile", "ProgramFileError", "load"]


class ProgramFileError(CausalPPLError, ValueError):
    """A model file, or another thing named on the command line, that cannot be used as it is."""


@dataclass(frozen=True)
class ProgramFile:
    """A program with its arguments and evidence.

    Attributes:
        path: the file.
        model: the Pyro program.
        args: its positional arguments, from the file's ``data()``.
        evidence: site name to value, from the file's ``data()``.
    """

    path: Path
    model: Program
    args: tuple[Any, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)

    def line_of(self, error: BaseException) -> int | None:
        """The file's last line that took part in an error, if any did."""
        return _line_of(self.path, error)


def load(spec: str) -> ProgramFile:
    """The program of ``MODEL.py`` or ``MODEL.py:name``, with what ``data()`` returns.

    Raises:
        ProgramFileError: there is no such file or program, the file fails to run, or ``data()`` does not return a
            tuple and a dict.
    """
    file, name = _split(spec)
    path = Path(file)
    if not path.is_file():
        near = closest_name(path.name, [p.name for p in path.parent.glob("*.py")])
        hint = f"; did you mean {str(path.parent / near)!r}?" if near else ""
        raise ProgramFileError(f"there is no file {file!r}{hint}")
    path = path.resolve()
    module = _import(path)
    model = getattr(module, name, None)
    if not callable(model):
        own = [
            n
            for n, v in vars(module).items()
            if inspect.isfunction(v) and v.__module__ == module.__name__
        ]
        near = closest_name(name, own)
        hint = f"{path.name}:{near or own[0]}" if own else ""
        raise ProgramFileError(
            f"{path.name} defines no program {name!r}"
            + (
                f"; name the one you mean, such as {hint}"
                if hint
                else "; define it with 'def model(...):'"
            )
        )
    args, evidence = _data(path, module)
    _check_arguments(path, name, model, args)
    return ProgramFile(path, model, args, evidence)


def _split(spec: str) -> tuple[str, str]:
    file, colon, name = spec.rpartition(":")
    return (file, name) if colon and name.isidentifier() else (spec, "model")


def _import(path: Path) -> ModuleType:
    """The file as a module; under its package's name where it is in one, so that relative imports work."""
    folder, names = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    name = ".".join(names)
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise ProgramFileError(f"{path.name} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(
        0, str(folder)
    )  # what lies beside the file can be imported, as in python MODEL.py
    with _failures_of(path, "does not run"):
        if len(names) > 1:
            importlib.import_module(".".join(names[:-1]))
        sys.modules.setdefault(name, module)
        module_spec.loader.exec_module(module)
    return module


def _data(path: Path, module: ModuleType) -> tuple[tuple[Any, ...], dict[str, Any]]:
    data = getattr(module, "data", None)
    if data is None:
        return (), {}
    with _failures_of(path, "failed in data()"):
        found = data()
    if (
        not isinstance(found, tuple)
        or len(found) != 2
        or not isinstance(found[0], tuple)
        or not isinstance(found[1], Mapping)
    ):
        raise ProgramFileError(
            f"data() of {path.name} must return (args, evidence), such as ((covariates,), {{'y': y}})"
        )
    return found[0], dict(found[1])


def _check_arguments(path: Path, name: str, model: Program, args: tuple[Any, ...]) -> None:
    try:
        signature = inspect.signature(model)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args)
    except TypeError as error:
        raise ProgramFileError(
            f"{name}{signature} of {path.name} does not take the {len(args)} arguments that data() gives: {error}"
        ) from None


@contextmanager
def _failures_of(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (Exception, SystemExit) as error:
        line = error.lineno if isinstance(error, SyntaxError) else _line_of(path, error)
        where = f", line {line}" if line is not None else ""
        said = error.msg if isinstance(error, SyntaxError) else error
        raise ProgramFileError(
            f"{path.name} {what}{where}: {type(error).__name__}: {said}"
        ) from error


def _line_of(path: Path, error: BaseException) -> int | None:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    return lines[-1] if lines else None
