"""``causalppl query MODEL.py "P(y[x=1] = 1 | x=0)"``: a question in the literature's notation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .mistakes import one_sentence
from .options import Given, Model, Seed, ShowTraceback
from .program_file import ProgramFileError, load
from .words import parse_assignments

if TYPE_CHECKING:
    from ..query import Estimate

__all__ = ["HELP", "query"]

HELP = """Answer a question in the literature's notation.

[bold]P(y[x=1] = 1 | x=0, y=0)[/bold] is the probability that y would be 1, had x been 1, of those for whom both are 0: \
brackets name the world, and do(x=1) after the bar puts a whole term into it. E\\[...] is a mean; terms combine by + - * /.

[bold]Example.[/bold] Of the patients whom surgery healed, how many would the other treatment not have healed?

  causalppl query models/kidney_stones.py "P(success[treatment=0]=0 | treatment=1, success=1)"

The answer is a number with its 95% interval, its rung of the causal ladder, and what it rests on: data and graph, the \
couplings of the worlds, the form of the program's distributions, or a prior.
"""

Text = Annotated[str, typer.Argument(metavar="QUERY", help="The question.", show_default=False)]
Over = Annotated[
    str | None,
    typer.Option(
        metavar="WHOM", help="sample: the observed units; population: new ones like them."
    ),
]
Units = Annotated[
    str | None, typer.Option(metavar="PLATE", help="The plate whose indices are the units.")
]
Observed = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SITE",
        help="A site that is measured, for what the answer rests on; the number stays. Repeatable.",
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="Number of posterior draws, where some are.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Save = Annotated[Path | None, typer.Option(metavar="FILE.json", help="Save the answer, as JSON.")]


def query(
    model: Model,
    text: Text,
    given: Given = None,
    over: Over = None,
    units: Units = None,
    observed: Observed = None,
    num_samples: Samples = 10_000,
    seed: Seed = None,
    as_json: Json = False,
    save: Save = None,
    show_traceback: ShowTraceback = False,
) -> None:
    """Answer one query about the program of a file; see ``--help``."""
    with one_sentence(show_traceback) as origin:
        evidence = parse_assignments("--given", given or [])
        if save is not None and not save.parent.is_dir():
            raise ProgramFileError(f"--save: there is no folder {str(save.parent)!r}")
        from ..query import parse
        from ..query import query as ask

        parse(text)  # before the file runs, which may take long
        program = origin["program"] = load(model)
        program.evidence.update(evidence)
        estimate = ask(
            text,
            program.model,
            evidence=program.evidence,
            num_samples=num_samples,
            seed=seed,
            units=units,
            over=over,  # type: ignore[arg-type]
            observed=observed or None,
        )(*program.args)
        record = _record(estimate)
        written = json.dumps(record, indent=2, allow_nan=False)
        if as_json:
            typer.echo(written)
        else:
            _show(estimate, record)
        if save is not None:
            save.write_text(written + "\n", encoding="utf-8")
            typer.echo(f"answer: {save}", err=as_json)


def _record(estimate: Estimate) -> dict[str, Any]:
    """The answer as JSON holds it."""
    diagnostics = estimate.diagnostics
    return {
        "query": estimate.text,
        "value": _plain(estimate.value),
        "interval": [_plain(end) for end in estimate.interval],
        "standard_error": _plain(estimate.standard_error),
        "rung": estimate.rung,
        "exact": estimate.exact,
        "identification": diagnostics.identification,
        "method": diagnostics.method,
        "why": diagnostics.why,
        "mechanisms": dict(diagnostics.mechanisms),
        "notes": list(diagnostics.notes),
    }


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else float(value)


def _show(estimate: Estimate, record: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("value", "95% interval", "rung", "rests on"):
        table.add_column(heading)
    low, high = record["interval"]
    certain = estimate.exact and low == high
    interval = "exact" if certain else f"{_number(low)} to {_number(high)}"
    rung = {1: "1, seeing", 2: "2, doing", 3: "3, imagining"}[estimate.rung]
    table.add_row(_number(record["value"]), interval, rung, record["identification"] or "")
    console = Console(highlight=False)
    console.print(f"\n{estimate.text}\n", markup=False)
    console.print(table)
    console.print()
    console.print(str(estimate.diagnostics), soft_wrap=True, markup=False)


def _number(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_number, value)) + "]"
    return f"{value:.6g}"
