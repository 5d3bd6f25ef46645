"""Mistakes and warnings as a person at a terminal reads them."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ..errors import CausalPPLError
from .program_file import ProgramFile

__all__ = ["one_sentence", "say"]


@contextmanager
def one_sentence(show_traceback: bool) -> Iterator[dict[str, ProgramFile]]:
    """Turns any exception of the body into one sentence and exit code 2, and warnings into one line each."""
    origin: dict[str, ProgramFile] = {}
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say("warning", str(message))
            yield origin
    except (typer.Exit, typer.Abort, KeyboardInterrupt):
        raise
    except BrokenPipeError:
        # The reader of a pipe has gone, such as head: nobody is left to tell, nor is the interpreter at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        if show_traceback:
            traceback.print_exc()
        program = origin.get("program")
        say("error", _sentence(error, program))
        raise typer.Exit(2) from None


def _sentence(error: Exception, program: ProgramFile | None) -> str:
    if isinstance(error, CausalPPLError):
        return str(error)
    if program is not None and (line := program.line_of(error)) is not None:
        return f"{program.path.name}, line {line}: {type(error).__name__}: {error}"
    return f"{type(error).__name__}: {error} (--traceback shows where)"


def say(kind: str, sentence: str) -> None:
    """One sentence on one line; a place that a caret points at keeps its lines."""
    lines = sentence.splitlines()
    carets = [i for i, line in enumerate(lines) if line.strip() == "^"]
    if carets:
        at = carets[0]
        before, after = " ".join(lines[: at - 1]), " ".join(lines[at + 1 :])
        sentence = "\n".join(
            [" ".join(before.split()), *lines[at - 1 : at + 1], " ".join(after.split())]
        )
    else:
        sentence = " ".join(sentence.split())
    typer.echo(f"causalppl: {kind}: {sentence}", err=True)
