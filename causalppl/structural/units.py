"""Units and parameters: whose noise is kept for each question, and what is learnt from everybody."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import MethodError, UnknownSiteError, closest_name, site_list
from .form import StructuralForm

__all__ = ["parameters", "unit_plates"]


def unit_plates(form: StructuralForm) -> frozenset[str]:
    """The plates whose indices are the units: those that all observed sites in plates share.

    Where nothing is observed in a plate, those that all latent sites in plates share.
    """
    for chosen in ("observed", "latent"):
        stacks = [
            {f.name for f in s.frames}
            for s in form.sites.values()
            if s.kind == "sample" and getattr(s, chosen) and s.frames
        ]
        shared = set.intersection(*stacks) if stacks else set()
        if shared:
            return frozenset(shared)
    return frozenset()


def parameters(form: StructuralForm, named: Iterable[str] | None = None) -> list[str]:
    """Latent sites outside the units' plates without an ancestor among the units; or those named.

    Without a plate there are none unless named.

    Raises:
        UnknownSiteError: a name that is no latent site.
    """
    if named is not None:
        chosen = list(named)
        for name in chosen:
            if name not in form.latent:
                near = closest_name(name, form.latent)
                raise UnknownSiteError(
                    f"parameters: {name!r} is no latent site; these are {site_list(form.latent)}"
                    + (f"; did you mean {near!r}?" if near else "")
                )
        return chosen
    plates = unit_plates(form)
    if not plates:
        return []
    inside = {
        n
        for n, s in form.sites.items()
        if s.kind != "factor" and plates & {f.name for f in s.frames}
    }
    return [
        n for n in form.latent if n not in inside and not form.dependencies.ancestors(n) & inside
    ]


def needs_parameters(form: StructuralForm) -> MethodError:
    """The error for a program without a plate of units, none of whose latent sites is named a parameter."""
    return MethodError(
        "for_units: the program has no plate of units, so none of its latent sites is known to be a parameter; put the units in a "
        f"pyro.plate, or name the parameters, parameters=[...], among {site_list(form.latent)}"
    )
