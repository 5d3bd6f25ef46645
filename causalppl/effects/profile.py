"""Several effects side by side: one for each dose, or for each level of a site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..query.estimate import Estimate, QueryDiagnostics

__all__ = ["Profile", "profile"]


@dataclass(frozen=True, eq=False, repr=False)
class Profile(Estimate):
    """An estimate whose first dim runs over doses or levels.

    Attributes:
        site: the site that the doses or levels are of.
        at: these, shape ``(k,)``, in the site's unit.
    """

    site: str = ""
    at: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(0))


def profile(site: str, at: Sequence[float], parts: Sequence[Estimate], text: str) -> Profile:
    """The estimates of one question at several doses or levels, stacked along a new first dim.

    Args:
        site: what varies.
        at: its values, one for each of the parts.
        parts: the estimates.
        text: the question.
    """
    sizes = {None if p.draws is None else len(p.draws) for p in parts}
    together = len(sizes) == 1 and None not in sizes
    diagnostics = [p.diagnostics for p in parts]
    merged = QueryDiagnostics(
        ", ".join(dict.fromkeys(d.method for d in diagnostics)),
        "; ".join(dict.fromkeys(d.why for d in diagnostics)),
        {n: m for d in diagnostics for n, m in d.mechanisms.items()},
        tuple(dict.fromkeys(note for d in diagnostics for note in d.notes)),
    )
    return Profile(
        value=np.stack([np.asarray(p.value) for p in parts]),
        interval=tuple(np.stack([np.asarray(p.interval[i]) for p in parts]) for i in (0, 1)),  # type: ignore[arg-type]
        standard_error=np.stack([np.asarray(p.standard_error) for p in parts]),
        # draws come first, then the levels
        draws=np.stack([p.draws for p in parts], axis=1) if together else None,  # type: ignore[misc]
        rung=max(p.rung for p in parts),
        exact=all(p.exact for p in parts),
        diagnostics=merged,
        text=text,
        site=site,
        at=np.asarray(at, dtype=float),
    )
