"""A guide in a file: its networks, and what identifies its program; the program itself stays code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import GuideMismatchError, MethodError, ProgramError, site_list
from ..mechanisms import exact_log_prob
from ..structural.form import StructuralForm
from ..structural.sealed_file import is_plain, read_sealed, write_sealed
from ..structural.sites import site_kind, unmasked
from ..structural.unobserved import without_observations
from ..training import History
from ..typing import Message, Program
from .evidence import differences, site_differences

if TYPE_CHECKING:
    from .amortized import Guide

__all__ = ["read_guide", "write_guide"]

_LAYOUT = "causalppl guide 2"
_OWN = "a callable of the user's"


def write_guide(path: str | PathLike[str], guide: Guide) -> None:
    """Write what :func:`read_guide` needs beside the program."""
    builder, reading = guide.builder, guide.reading
    form = reading.form
    plain = is_plain((reading.args, reading.kwargs))
    reference = {n: s.value.detach() for n, s in form.sites.items()}
    write_sealed(
        path,
        _LAYOUT,
        {
            "record": reading.record,
            "observed": list(reading.observed),
            "arbitrary_evidence": builder.arbitrary_evidence,
            "flow": builder.flow if isinstance(builder.flow, str) else _OWN,
            "embed": {n: e if isinstance(e, str) else _OWN for n, e in builder.embed.items()},
            "width": builder.width,
            "seed": guide.seed,
            "arguments": (reading.args, reading.kwargs) if plain else None,
            "reference": reference,
            "densities": densities(form, reference),
            "network": guide.network.state_dict(),
            "familiar": guide.familiar.state_dict(),
            "history": None if guide.history is None else asdict(guide.history),
        },
    )


def read_guide(
    path: str | PathLike[str],
    model: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    embed: Mapping[str, Any] | None,
    flow: str | Callable[[int, int], nn.Module] | None,
) -> Guide:
    """See :meth:`AmortizedGuide.load`."""
    from .amortized import AmortizedGuide

    found = read_sealed(path, _LAYOUT, "guide", "Guide.save", "fit again")
    if not args and not kwargs:
        if found["arguments"] is None:
            raise ProgramError(
                "load: the program's arguments were no tensors or numbers and are not in the file; give them again, "
                "cp.AmortizedGuide.load(path, model, *args)"
            )
        args, kwargs = found["arguments"]
    embeds = {n: e for n, e in found["embed"].items() if e != _OWN} | dict(embed or {})
    lacking = [n for n, e in found["embed"].items() if e == _OWN and n not in embeds]
    if lacking or (found["flow"] == _OWN and flow is None):
        what = f"embed={{{lacking[0]!r}: ...}}" if lacking else "flow=..."
        raise GuideMismatchError(
            f"load: the guide in {fspath(path)!r} has networks of the user's own, which are code and not in the file; give them again, "
            f"cp.AmortizedGuide.load(path, model, {what})"
        )
    form = StructuralForm(without_observations(model), args, kwargs, None, found["seed"])
    _refuse(fspath(path), site_differences(found["record"], form))
    builder = AmortizedGuide(
        model,
        found["observed"],
        embeds,
        flow or found["flow"],
        found["arbitrary_evidence"],
        found["width"],
        found["seed"],
    )
    try:
        guide = builder(*args, **kwargs)
    except MethodError as error:
        raise GuideMismatchError(
            f"load: the guide in {fspath(path)!r} is for another program: {error}"
        ) from error
    _check_program(fspath(path), guide, found)
    for part, state in ((guide.network, found["network"]), (guide.familiar, found["familiar"])):
        try:
            part.load_state_dict(state)
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines()[1:4]]
            raise GuideMismatchError(
                f"load: the networks of the guide in {fspath(path)!r} have other shapes than those given: {'; '.join(lines)}"
            ) from None
    if found["history"] is not None:
        guide.history = History(**found["history"])
    return guide


def densities(form: StructuralForm, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What every sample site's law says of these values, a number each: the program's parameters in numbers."""
    found: dict[str, Tensor] = {}

    def rule(msg: Message) -> Tensor:
        if site_kind(msg) == "sample":
            law = unmasked(msg["fn"])
            found[msg["name"]] = exact_log_prob(law, values[msg["name"]]).sum().detach()
        elif site_kind(msg) == "deterministic":
            return msg["value"]  # type: ignore[no-any-return]
        return values[msg["name"]]

    with torch.no_grad():
        form.run(rule)
    return found


def _refuse(path: str, differ: list[str]) -> None:
    if differ:
        raise GuideMismatchError(
            f"load: the guide in {path!r} is for another program: {'; '.join(differ[:8])}"
        )


def _check_program(path: str, guide: Guide, found: Mapping[str, Any]) -> None:
    """Refuse another program, or one whose laws have other numbers.

    Raises:
        GuideMismatchError: the message says what differs.
    """
    _refuse(path, differences(found["record"], guide.reading.record))
    form, values = guide.reading.form, found["reference"]
    if any(values[n].shape != s.value.shape for n, s in form.sites.items() if n in values):
        return  # of another number of units: its laws cannot be compared at the same values
    now = densities(form, values)
    changed = [
        n
        for n, given in found["densities"].items()
        if not torch.isclose(now[n].to(given), given, rtol=1e-3, atol=1e-3, equal_nan=True)
    ]
    if changed:
        raise GuideMismatchError(
            f"load: the guide in {path!r} is for another program: the laws of {site_list(changed)} have other numbers; give the program, "
            "its parameters and the arguments that the guide was made with"
        )
