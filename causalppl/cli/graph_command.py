"""``causalppl graph MODEL.py --out graph.svg``: the causal graph of a program, and what it identifies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import GraphError
from .mistakes import one_sentence
from .options import Model, ShowTraceback
from .program_file import ProgramFileError, load

if TYPE_CHECKING:
    from ..graph import CausalGraph

__all__ = ["HELP", "graph"]

HELP = """Draw the causal graph of a program, and say what it identifies.

The graph is read off the program. Latent are the sites without a value, unless --observed names those that are measured.

[bold]Example.[/bold] Does what was measured tell the effect of smoking?

  causalppl graph models/front_door.py --observed smoking --observed tar --observed cancer \\
    --identify "P(cancer | do(smoking))" --out front_door.svg
"""

Observed = Annotated[
    list[str] | None,
    typer.Option(metavar="SITE", help="A site that is measured. Repeatable."),
]
Identify = Annotated[
    list[str] | None,
    typer.Option(
        metavar="QUESTION",
        help="Print its estimand, or what forbids one: P(y | do(x)), P(y[x=1]=1 | x=0). Repeatable.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Save a drawing: .dot as text; .svg and .png by the program dot."
    ),
]


def graph(
    model: Model,
    observed: Observed = None,
    identify: Identify = None,
    out: Out = None,
    show_traceback: ShowTraceback = False,
) -> None:
    """Show the graph of the program of a file; see ``--help``."""
    with one_sentence(show_traceback) as origin:
        if out is not None:
            _check_file(out)
        from ..graph import causal_graph

        program = origin["program"] = load(model)
        found = causal_graph(program.model, observed or None)(*program.args)
        if program.evidence and not observed:  # what data() gives is observed as obs= is
            known = {n for n in found.nodes if n not in found.latent} | program.evidence.keys()
            found = causal_graph(program.model, sorted(known))(*program.args)
        _show(found)
        for question in identify or []:
            verdict = found.identify(question)
            typer.echo(f"\n{question}")
            typer.echo(f"  {verdict.estimand or verdict.hedge or verdict.why}")
        if out is not None:
            found.render().save(out)
            typer.echo(f"\ndrawing: {out}")


def _check_file(out: Path) -> None:
    if not out.parent.is_dir():
        raise ProgramFileError(f"--out: there is no folder {str(out.parent)!r}")
    if out.suffix not in (".dot", ".svg", ".png"):
        raise ProgramFileError(f"--out: {out.name!r} ends in none of .dot, .svg and .png")
    if out.suffix != ".dot":
        import shutil

        if shutil.which("dot") is None:
            raise GraphError(
                "pictures are drawn by the program dot, which is not installed (apt-get install graphviz, or brew, or conda); "
                f"--out {out.with_suffix('.dot')} needs nothing"
            )


def _show(found: CausalGraph) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("site", "kind", "parents"):
        table.add_column(heading)
    for node in found.nodes:
        kinds = {
            "parameter": found.parameters,
            "latent": found.latent - found.parameters,
            "intervened": found.intervened,
            "function": found.deterministic - found.intervened,
        }
        kind = ", ".join(name for name, nodes in kinds.items() if node in nodes) or "observed"
        parents = [n for n in found.nodes if n in found.parents(node)]
        table.add_row(node, kind, ", ".join(parents))
    Console(highlight=False).print(table)
