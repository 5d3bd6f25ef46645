"""Commands and their options; a mistake is one sentence on standard error and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UnknownSiteError, closest_name, site_list
from .graph_command import HELP as GRAPH_HELP
from .graph_command import graph
from .mistakes import one_sentence, say
from .options import Given, Model, Seed, ShowTraceback
from .program_file import ProgramFile, ProgramFileError, load
from .query_command import HELP as QUERY_HELP
from .query_command import query
from .words import Condition, parse_assignments, parse_condition, world_name

if TYPE_CHECKING:
    from ..results import Worlds

__all__ = ["app", "main"]

app = typer.Typer(
    name="causalppl",
    help="Interventions and counterfactuals for ordinary Pyro programs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

_HELP = """What would have happened, had something been different?

MODEL.py is an ordinary Python file that defines a Pyro program, [bold]model[/bold], and, where there \
are data to learn from, a function [bold]data()[/bold] that returns the program's arguments and the \
evidence: a tuple, and a dict of site name to value. MODEL.py:name takes another function of the file.

[bold]Example.[/bold] How much weight would people have gained had everyone quit smoking, rather than \
everyone smoked on? And the people who did smoke on?

  causalppl counterfactual models/smoking_cessation.py \\
    --do quit=1 --versus quit=0 --outcome weight_gain \\
    --among quit=0 --plot quitting.png

The answer is a table: the outcome's average in each world, and the difference, with 95% intervals. \
Below it stands how the posterior was found, whether it can be trusted, and which mechanisms couple \
the worlds.
"""

Do = Annotated[
    list[str],
    typer.Option(metavar="SITE=VALUE", help="Set a site in the counterfactual world. Repeatable."),
]
Outcome = Annotated[str, typer.Option(metavar="SITE", help="The site to compare between worlds.")]
Versus = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SITE=VALUE",
        help="Compare with a second such world instead of with what happened. Repeatable.",
    ),
]
Among = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SITE=VALUE",
        help="Also report the units for which this was so in fact; != < <= > >= too. Repeatable.",
    ),
]
Samples = Annotated[int, typer.Option(min=1, help="Number of posterior draws.")]
Plot = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Save a picture: .png, .pdf, .svg, ...")
]
Save = Annotated[
    Path | None,
    typer.Option(metavar="FILE.nc", help="Save every draw of every site and world, as netCDF."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        from .. import __version__

        typer.echo(f"causalppl {__version__}")
        raise typer.Exit


@app.command(help=_HELP)
def counterfactual(
    model: Model,
    do: Do,
    outcome: Outcome,
    versus: Versus = None,
    given: Given = None,
    among: Among = None,
    num_samples: Samples = 1000,
    seed: Seed = None,
    plot: Plot = None,
    save: Save = None,
    quiet: Quiet = False,
    show_traceback: ShowTraceback = False,
) -> None:
    """Answer one counterfactual question about the program of a file; see ``--help``."""
    with one_sentence(show_traceback) as origin:
        interventions = {world_name(do): parse_assignments("--do", do)}
        if versus:
            if world_name(versus) in interventions:
                raise ProgramFileError("--versus is the same world as --do; give another value")
            interventions[world_name(versus)] = parse_assignments("--versus", versus)
        evidence = parse_assignments("--given", given or [])
        conditions = [parse_condition("--among", text) for text in among or []]
        _check_files(plot, save)
        program = origin["program"] = load(model)
        program.evidence.update(evidence)
        _check_names(program, interventions, [outcome, *(c.site for c in conditions)])

        result = _predict(program, interventions, num_samples, seed, not quiet)
        _report(result, outcome, list(interventions), conditions, plot, save)


def _predict(
    program: ProgramFile,
    interventions: dict[str, dict[str, Any]],
    num_samples: int,
    seed: int | None,
    progress: bool,
) -> Worlds:
    from ..predictor import counterfactual as run

    return run(
        program.model,
        evidence=program.evidence,
        worlds=interventions,
        num_samples=num_samples,
        seed=seed,
        progress=progress,
    )(*program.args)


def _report(
    result: Worlds,
    outcome: str,
    worlds: Sequence[str],
    conditions: Sequence[Condition],
    plot: Path | None,
    save: Path | None,
) -> None:
    from .table import answer, picture

    control = worlds[1] if len(worlds) > 1 else "factual"
    found = answer(result, outcome, worlds[0], control, conditions)
    found.show()
    if plot is not None:
        picture(result, found, plot)
        typer.echo(f"picture: {plot}")
    if save is not None:
        result.save(save)
        typer.echo(f"draws: {save}")


def _check_files(plot: Path | None, save: Path | None) -> None:
    """A long inference should not end in a file that cannot be written."""
    for option, path in (("--plot", plot), ("--save", save)):
        if path is not None and not path.parent.is_dir():
            raise ProgramFileError(f"{option}: there is no folder {str(path.parent)!r}")
    if plot is not None:
        from matplotlib.backend_bases import FigureCanvasBase

        kinds = FigureCanvasBase.get_supported_filetypes()
        if plot.suffix[1:].lower() not in kinds:
            raise ProgramFileError(
                f"--plot: {plot.name!r} does not end in the name of a picture format, such as .png ({site_list(kinds)})"
            )


def _check_names(
    program: ProgramFile, interventions: dict[str, dict[str, Any]], asked: Sequence[str]
) -> None:
    """Unknown sites are found by plain runs of the program, before the inference that may take minutes."""
    import torch
    from pyro.poutine.messenger import Messenger
    from pyro.poutine.util import site_is_subsample

    from ..interventions import do

    sites: dict[str, None] = {}

    class Names(
        Messenger
    ):  # poutine.trace would write its table of shapes into the program's own errors
        def _pyro_post_sample(self, msg: Any) -> None:
            if not site_is_subsample(msg):
                sites[msg["name"]] = None

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for world in ({}, *interventions.values()):
            with Names():
                do(program.model, world)(*program.args)
    for name in asked:
        if name not in sites:
            near = closest_name(name, sites)
            hint = f"; did you mean {near!r}?" if near else ""
            raise UnknownSiteError(
                f"the program has no site {name!r}{hint} (its sites: {site_list(sites)})"
            )


app.command(help=QUERY_HELP)(query)
app.command(help=GRAPH_HELP)(graph)


def main() -> None:
    """Entry point of the command ``causalppl``."""
    sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        status = command.main(arguments, prog_name="causalppl", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        say("error", "interrupted")
        return 130
    except Exception as error:
        # Errors of the command line itself, such as a missing option: typer's own base class is not public.
        if not hasattr(error, "format_message"):
            raise
        say("error", f"{error.format_message().rstrip('.')}; causalppl --help shows how")
        return 2
    return status if isinstance(status, int) else 0
