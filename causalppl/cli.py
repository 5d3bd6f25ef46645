"""The command line: counterfactual questions to a model file, answered as a table, a picture and a data file."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import CausalPPLError, closest_name, site_list

if TYPE_CHECKING:
    from .results import Worlds

__all__ = ["app", "main"]

app = typer.Typer(
    help="Causal answers from Pyro programs.", no_args_is_help=True, pretty_exceptions_enable=False
)


class _Usage(Exception):
    """A mistake in the request, said in one sentence."""


@app.callback()
def _root() -> None:
    """Causal answers from Pyro programs."""


def _load(target: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """The program, its arguments and evidence from ``FILE.py`` or ``FILE.py:name``."""
    path, _, name = target.partition(":")
    file = Path(path)
    if not file.is_file():
        raise _Usage(f"there is no file {path!r}")
    # A file inside a package uses relative imports, so it is loaded under its package's name.
    package, root = [], file.resolve().parent
    while (root / "__init__.py").is_file():
        package.insert(0, root.name)
        root = root.parent
    sys.path.insert(0, str(root))
    try:
        spec = importlib.util.spec_from_file_location(".".join([*package, file.stem]), file)
        if spec is None or spec.loader is None:
            raise _Usage(f"{path!r} is no Python file")
        module = importlib.util.module_from_spec(spec)
        if package:
            importlib.import_module(".".join(package))
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(root))
    name = name or "model"
    program = getattr(module, name, None)
    if not callable(program):
        known = [n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n))]
        raise _Usage(f"{path!r} defines no program {name!r}; it defines {site_list(known)}")
    args, evidence = module.data() if hasattr(module, "data") else ((), {})
    return program, tuple(args), dict(evidence)


def _pairs(given: list[str], option: str) -> dict[str, float]:
    found = {}
    for text in given:
        site, equals, value = text.partition("=")
        try:
            found[site.strip()] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise _Usage(
                f"{option} {text!r} is not understood; write {option} SITE=NUMBER, such as {option} x=1"
            )
    return found


@app.command()
def counterfactual(
    model: Annotated[str, typer.Argument(help="a file that defines `model`, or FILE.py:name")],
    do: Annotated[
        list[str], typer.Option(help="SITE=NUMBER, the intervention; repeat for several sites")
    ],
    outcome: Annotated[str, typer.Option(help="the site to report")],
    given: Annotated[
        list[str] | None, typer.Option(help="SITE=NUMBER, further evidence; repeat")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="SITE=NUMBER, the world to compare with; the factual world by default"),
    ] = None,
    among: Annotated[
        list[str] | None, typer.Option(help="SITE=NUMBER, report the units where it was so")
    ] = None,
    num_samples: Annotated[int, typer.Option(help="posterior draws")] = 1000,
    seed: Annotated[int | None, typer.Option(help="an integer, for the same answer again")] = None,
    plot: Annotated[Path | None, typer.Option(help="write a picture (.png, .svg, .pdf)")] = None,
    save: Annotated[Path | None, typer.Option(help="write all draws as netCDF (.nc)")] = None,
    quiet: Annotated[bool, typer.Option(help="no progress bar")] = False,
) -> None:
    """What would OUTCOME have been under DO, for the very units that were observed?

    The file defines `model`, a Pyro program, and optionally `data()`, which returns its arguments as a tuple and the
    evidence as a mapping of site to value.

    Example: causalppl counterfactual models/encouragement.py --do h=2 --outcome y
    """
    import matplotlib

    matplotlib.use("Agg")
    from . import abduct

    program, args, evidence = _load(model)
    evidence |= _pairs(given or [], "--given")
    worlds = {"do": _pairs(do, "--do")}
    if against:
        worlds["against"] = _pairs(against, "--against")
    posterior = abduct(program, evidence, num_samples=num_samples, seed=seed, progress=not quiet)(
        *args
    )
    result = posterior.predict(worlds=worlds)
    if outcome not in result.sites:
        near = closest_name(outcome, result.sites)
        raise _Usage(
            f"--outcome {outcome!r} is no site; the program has {site_list(result.sites)}"
            + (f"; did you mean {near!r}?" if near else "")
        )
    control = "against" if against else "factual"
    _table(result, outcome, control, worlds, _pairs(among or [], "--among"))
    if plot is not None:
        _draw(result, outcome, plot)
    if save is not None:
        result.save(save)
        typer.echo(f"draws: {save}")


def _select(result: Worlds, outcome: str, among: dict[str, float]) -> Any:
    """Which units to report: booleans over the outcome's plates."""
    chosen = None
    for site, value in among.items():
        where = result[site].sel(world="factual").isel(draw=0, drop=True) == value
        chosen = where if chosen is None else chosen & where
    if chosen is not None and not bool(chosen.any()):
        raise _Usage(f"no unit has {', '.join(f'{s}={v:g}' for s, v in among.items())}")
    return chosen


def _table(
    result: Worlds,
    outcome: str,
    control: str,
    worlds: dict[str, dict[str, float]],
    among: dict[str, float],
) -> None:
    from rich.console import Console
    from rich.table import Table

    chosen = _select(result, outcome, among)
    names = {
        w: "do(" + ", ".join(f"{k}={v:g}" for k, v in given.items()) + ")"
        for w, given in worlds.items()
    }
    names["factual"] = "factual"

    def draws(array: Any) -> Any:
        array = array if chosen is None else array.where(chosen)
        return array.mean([d for d in array.dims if d != "draw"])

    title = outcome + (
        " among " + ", ".join(f"{k}={v:g}" for k, v in among.items()) if among else ""
    )
    table = Table(title=title)
    for heading in ("", "mean", "95% interval"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = [(names[w], draws(result[outcome].sel(world=w))) for w in result.worlds]
    rows.append(
        (f"{names['do']} - {names[control]}", draws(result.contrast(outcome, "do", control)))
    )
    for label, column in rows:
        low, high = (float(column.quantile(q)) for q in (0.025, 0.975))
        interval = f"{low:.3f} to {high:.3f}" if result.num_draws > 1 else "one draw: exact"
        table.add_row(label, f"{float(column.mean()):.3f}", interval)
    Console().print(table)
    typer.echo(f"method: {result.diagnostics.method} ({result.diagnostics.why})")


def _draw(result: Worlds, outcome: str, path: Path) -> None:
    from . import plots

    figure: Any = plots.worlds(result, outcome).figure
    figure.savefig(path, dpi=150, bbox_inches="tight")
    typer.echo(f"picture: {path}")


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        f for f in frames if "site-packages" not in f.filename and "/causalppl/" not in f.filename
    ]
    last = (own or frames)[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors are one sentence on standard error and exit code 2."""
    try:
        code = app(arguments, standalone_mode=False)
    except (_Usage, CausalPPLError) as error:
        typer.echo(f"causalppl: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2) from None
    except typer.Abort:
        raise SystemExit(130) from None
    except Exception as error:
        if hasattr(error, "format_message"):  # click's own usage errors
            typer.echo(f"causalppl: {error.format_message()}", err=True)
            raise SystemExit(2) from None
        text = " ".join(str(error).split())
        typer.echo(f"causalppl: {type(error).__name__} in {_where(error)}: {text}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
