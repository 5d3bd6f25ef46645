"""A posterior in a file: draws, evidence, parameters and the program's arguments; the program itself stays code."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor

from ..errors import ProgramError, site_list
from ..structural.evaluation import Evaluation
from ..structural.evidence import Interval, as_tensor
from ..structural.form import StructuralForm
from ..typing import Program
from .posterior_draws import PosteriorDraws

__all__ = ["read_posterior", "write_posterior"]

_LAYOUT = "causalppl posterior 1"
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
    plain = _is_plain((form.args, form.kwargs))
    torch.save(
        {
            "layout": _LAYOUT,
            "sites": _fingerprint(form),
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
        fspath(path),
    )


def read_posterior(
    path: str | PathLike[str], model: Program, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[StructuralForm, PosteriorDraws, int, Evaluation | None]:
    """Read a posterior of ``model``.

    Raises:
        ProgramError: the file holds something else or belongs to another program, or its arguments were not saved.
    """
    try:
        found = torch.load(fspath(path), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ProgramError(f"load: {fspath(path)!r} holds no posterior") from error
    if not isinstance(found, dict) or found.get("layout") != _LAYOUT:
        raise ProgramError(f"load: {fspath(path)!r} holds no posterior that this version can read")
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
    draws = PosteriorDraws(found["latents"], **found["draws"])
    known = found["known"]
    evaluation = None
    if known is not None:
        values, noise = known
        evaluation = Evaluation.of(form, draws.num_samples, values, noise, draws.latents)
    return form, draws, found["requested"], evaluation


def _fingerprint(form: StructuralForm) -> list[tuple[str, str]]:
    return [
        (n, f"{s.kind} {type(s.fn).__name__ if s.kind == 'sample' else ''} {tuple(s.value.shape)}")
        for n, s in form.sites.items()
    ]


def _encoded(name: str, given: Any) -> Any:
    if isinstance(given, Interval):
        return {"low": given.low, "high": given.high}
    return as_tensor(name, given)


def _decoded(saved: Any) -> Any:
    return Interval(saved["low"], saved["high"]) if isinstance(saved, Mapping) else saved


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_plain(v) for k, v in value.items())
    return value is None or isinstance(value, bool | int | float | str) or type(value) is Tensor
