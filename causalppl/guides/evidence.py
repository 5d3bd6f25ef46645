"""What is known in one run of a program, as a guide's networks take it; and whether it is the program that they know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import GuideMismatchError, MethodError, closest_name, site_list
from ..structural.evidence import as_tensor, fit_evidence
from ..structural.form import StructuralForm
from ..structural.sites import Site
from .encoding import supports_of
from .posterior_network import Evidence
from .reading import Reading, SiteShape

if TYPE_CHECKING:
    from .amortized import Guide

__all__ = [
    "check_program",
    "differences",
    "evidence_from",
    "evidence_of",
    "plate_sizes",
    "site_differences",
]


def plate_sizes(sites: Mapping[str, Site]) -> dict[str, int]:
    """Plate to its number of units."""
    return {f.name: f.size for s in sites.values() for f in s.frames if f.vectorized}


def differences(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> list[str]:
    """How two programs' records differ, in words.

    Args:
        theirs: the record that a guide was made with.
        mine: that of the program at hand.
    """
    found = []
    for name in theirs:
        if name not in mine:
            near = closest_name(name, [n for n in mine if n not in theirs])
            found.append(f"site {name!r} is absent" + (f" ({near!r} is there)" if near else ""))
    found += [f"site {name!r} is new" for name in mine if name not in theirs]
    for name, record in theirs.items():
        for what, was in record.items():
            now = mine.get(name, record)[what]
            if now != was:
                found.append(f"{what} of {name!r} is {now!r}, was {was!r}")
    return found


def site_differences(theirs: Mapping[str, Any], form: StructuralForm) -> list[str]:
    """How a program differs from the one that a guide was made with, as far as its sites tell; their parents are not looked at."""
    mine = {}
    for name, site in form.sites.items():
        if site.kind == "sample":
            shape = SiteShape.of(site)
            mine[name] = {
                "distribution": shape.family,
                "shape of one value": list(shape.inner),
                "plates": list(shape.plates),
                "number of values": None if shape.values is None else len(shape.values),
            }
    was = {n: {k: v for k, v in r.items() if k != "parents"} for n, r in theirs.items()}
    return differences(was, mine)


def check_program(reading: Reading, form: StructuralForm) -> None:
    """Refuse another program.

    Raises:
        GuideMismatchError: names what differs.
    """
    shapes = {n: SiteShape.of(s) for n, s in form.sites.items() if s.kind == "sample"}
    found = site_differences(reading.record, form)
    moved = [
        f"dims of plates of {n!r} are {s.axes}, were {reading.shapes[n].axes}"
        for n, s in shapes.items()
        if n in reading.shapes and not found and s.axes != reading.shapes[n].axes
    ]
    if found or moved:
        raise GuideMismatchError(
            f"the guide is for another program: {'; '.join([*found, *moved][:8])}. Build a guide for this one, "
            "cp.AmortizedGuide(model, observed=[...])(*args), and fit it"
        )


def evidence_of(reading: Reading, form: StructuralForm, arbitrary: bool) -> Evidence:
    """What a form knows, one row of it.

    Raises:
        GuideMismatchError: another program, or evidence on a site that the guide does not see.
        MethodError: a range, a part of a value, or a part of the data for a guide that needs all.
    """
    check_program(reading, form)
    values, known = {}, {}
    for name, site in form.sites.items():
        if site.kind == "factor":
            continue
        if site.interval is not None:
            raise MethodError(
                f"AmortizedGuide: a range is known of site {name!r}, and a guide sees values only; use cp.ImportanceSampling() or cp.NUTS()"
            )
        if (
            name not in reading.observed
            and (name in form.conditioned or site.observed)
            and site.kind == "sample"
        ):
            raise _unseen(name, reading)
        if name in form.conditioned and site.kind == "deterministic":
            raise _unseen(name, reading)
    for name in reading.observed:
        site, shape = form.sites[name], reading.shapes[name]
        units = shape.units_first(site.value.unsqueeze(0)).shape[: 1 + len(shape.plates)]
        values[name] = site.value.unsqueeze(0)
        if not site.observed:
            known[name] = torch.zeros(units, dtype=torch.bool)
        elif site.missing is None:
            known[name] = torch.ones(units, dtype=torch.bool)
        else:
            known[name] = ~_whole_units(name, shape, site.missing)
        if not arbitrary and not bool(known[name].all()):
            raise MethodError(
                f"AmortizedGuide: site {name!r} is not known, or a part of it is not, and the guide was built with "
                "arbitrary_evidence=False; give all of its observed sites, or build and fit one with arbitrary_evidence=True"
            )
    return Evidence(values, known, supports_of(form.sites), plate_sizes(form.sites))


def evidence_from(guide: Guide, given: Mapping[str, Any]) -> Evidence:
    """Evidence by site for the program that the guide was built with, without a run of it."""
    reading = guide.reading
    sites = reading.form.sites
    for name in given:
        if name not in reading.observed:
            raise _unseen(name, reading)
    values, known = {}, {}
    for name in reading.observed:
        site, shape = sites[name], reading.shapes[name]
        value, there = site.value, name in given
        units = shape.units_first(value.unsqueeze(0)).shape[: 1 + len(shape.plates)]
        known[name] = torch.full(units, there)
        if there:
            found = fit_evidence(name, as_tensor(name, given[name]), site.fn, site.value, False)
            value = found.value
            if found.missing is not None:
                known[name] = ~_whole_units(name, shape, found.missing)
        values[name] = value.unsqueeze(0)
        if not guide.builder.arbitrary_evidence and not bool(known[name].all()):
            raise MethodError(
                f"AmortizedGuide: site {name!r} is not known, and the guide was built with arbitrary_evidence=False; give all of "
                f"{site_list(reading.observed)}"
            )
    return Evidence(values, known, supports_of(sites), plate_sizes(sites))


def _whole_units(name: str, shape: SiteShape, missing: Tensor) -> Tensor:
    """Which units are missing, ``(1,) + units``."""
    first = shape.units_first(missing.unsqueeze(0))
    lead = 1 + len(shape.plates)
    flat = first.flatten(lead) if first.dim() > lead else first.unsqueeze(-1)
    if bool((flat.any(-1) & ~flat.all(-1)).any()):
        raise MethodError(
            f"AmortizedGuide: a part of a value of site {name!r} is missing; a guide takes whole values of shape {shape.inner}. Use "
            "cp.NUTS(), or make the parts sites of their own"
        )
    return flat.all(-1)


def _unseen(name: str, reading: Reading) -> GuideMismatchError:
    return GuideMismatchError(
        f"the guide does not see site {name!r}: it was built for evidence on {site_list(reading.observed)}. Build one with "
        f"observed={[*reading.observed, name]!r} and fit it, or leave {name!r} out of the evidence"
    )
