"""A posterior in a file: draws, evidence, parameters and the program's arguments; the program itself stays code."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from ..errors import ProgramError, site_list
from ..mechanisms import exact_log_prob
from ..structural.evaluation import Evaluation
from ..structural.evidence import Interval, as_tensor
from ..structural.form import StructuralForm
from ..structural.noise import isolated_rng, keyed_seed
from ..structural.sealed_file import is_plain, read_sealed, write_sealed
from ..structural.sites import site_kind, unmasked
from ..typing import Message, Program
from .posterior_draws import PosteriorDraws

__all__ = ["read_posterior", "write_posterior"]

_LAYOUT = "causalppl posterior 2"
_DRAWS = ("num_samples", "method", "why", "ess", "pareto_k", "rhat", "unit_names", "notes")


def write_posterior(
    path: str | PathLike[str],
    form: StructuralForm,
    draws: PosteriorDraws,
    requested: int,
    evaluation: Evaluation | None,
) -> None:
    """Write what :func:`read_posterior` needs beside the program. Nothing in the file is code.

    Args:
        evaluation: factual values and noise, where these do not follow from the draws.
    """
    plain = is_plain((form.args, form.kwargs))
    write_sealed(
        path,
        _LAYOUT,
        {
            "sites": _fingerprint(form),
            "reference": {n: s.value.detach() for n, s in form.sites.items()},
            "log_probs": _log_probs(form, {n: s.value for n, s in form.sites.items()}),
            "arguments": (form.args, form.kwargs) if plain else None,
            "evidence": {n: _encoded(n, v) for n, v in form.evidence.items()},
            "seed": form.seed,
            "params": form.params,
            "indices": form.indices,
            "modules": form.modules.copies(),
            "latents": draws.latents,
            "draws": {name: getattr(draws, name) for name in _DRAWS},
            "requested": requested,
            "known": None if evaluation is None else evaluation.known,
        },
    )


def read_posterior(
    path: str | PathLike[str], model: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[StructuralForm, PosteriorDraws, int, Evaluation | None]:
    """Read a posterior of ``model``.

    Raises:
        ProgramError: the file holds something else or belongs to another program, or its arguments were not saved.
    """
    found = read_sealed(path, _LAYOUT, "posterior", "Posterior.save", "abduct again")
    if not args and not kwargs:
        if found["arguments"] is None:
            raise ProgramError(
                "load: the program's arguments were no tensors or numbers and are not in the file; give them again, "
                "cp.Posterior.load(path, model, *args)"
            )
        args, kwargs = found["arguments"]
    evidence = {n: _decoded(v) for n, v in found["evidence"].items()}
    form = StructuralForm(
        model,
        args,
        kwargs,
        evidence,
        found["seed"],
        found["params"],
        found["indices"],
        found["modules"],
    )
    mine = _fingerprint(form)
    if mine != found["sites"]:
        ours, theirs = dict(mine), dict(found["sites"])
        names = [n for n in {**theirs, **ours} if ours.get(n) != theirs.get(n)]
        shown = "; ".join(
            f"{n!r} is {ours.get(n, 'absent')}, was {theirs.get(n, 'absent')}" for n in names[:5]
        )
        raise ProgramError(
            f"load: the posterior in {fspath(path)!r} is of another program or other arguments; sites that differ: "
            f"{site_list(names)} ({shown or 'their order'})"
        )
    _check_densities(fspath(path), form, found["reference"], found["log_probs"])
    draws = PosteriorDraws(found["latents"], **found["draws"])
    known = found["known"]
    evaluation = None
    if known is not None:
        values, noise = known
        evaluation = Evaluation.of(form, draws.num_samples, values, noise, draws.latents)
    return form, draws, found["requested"], evaluation


def _log_probs(form: StructuralForm, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What every site's law says of these values: the program's parents and parameters in numbers."""
    found: dict[str, Tensor] = {}

    def rule(msg: Message) -> Tensor:
        name = msg["name"]
        if site_kind(msg) == "deterministic":
            found[name] = torch.as_tensor(msg["value"]).detach()
        else:
            found[name] = exact_log_prob(unmasked(msg["fn"]), values[name]).detach()
        return values[name]

    with isolated_rng(keyed_seed(form.seed, "file")), torch.no_grad():
        form.run(rule)
    return found


def _check_densities(
    path: str, form: StructuralForm, values: Mapping[str, Tensor], then: Mapping[str, Tensor]
) -> None:
    now = _log_probs(form, values)
    changed = [
        n
        for n, given in then.items()
        if now[n].shape != given.shape
        or not torch.isclose(now[n].to(given), given, rtol=1e-3, atol=1e-4, equal_nan=True).all()
    ]
    if changed:
        raise ProgramError(
            f"load: the posterior in {path!r} is of another program or other arguments: the laws of {site_list(changed)} have other "
            "numbers; give the program and the arguments that it was made with"
        )


def _fingerprint(form: StructuralForm) -> list[tuple[str, str]]:
    return [
        (
            n,
            " ".join(
                (
                    s.kind,
                    type(s.fn).__name__ if s.kind == "sample" else "",
                    getattr(s.mechanism, "name", type(s.mechanism).__name__),
                    str(tuple(s.value.shape)),
                )
            ),
        )
        for n, s in form.sites.items()
    ]


def _encoded(name: str, given: Any) -> Any:
    if isinstance(given, Interval):
        return {"low": given.low, "high": given.high}
    return as_tensor(name, given)


def _decoded(saved: Any) -> Any:
    return Interval(saved["low"], saved["high"]) if isinstance(saved, Mapping) else saved
