"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Given", "Model", "Seed", "ShowTraceback"]

Model = Annotated[
    str,
    typer.Argument(metavar="MODEL.py", help="The file, or MODEL.py:name.", show_default=False),
]
Given = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SITE=VALUE",
        help="Evidence, over what data() gives; V1,V2,... for several units. Repeatable.",
    ),
]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same numbers.")]
ShowTraceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]
