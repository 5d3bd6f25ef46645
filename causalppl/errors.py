"""Typed errors and warnings: each says what was given, what is allowed and what to type next.

Every error derives from :class:`CausalPPLError`; where plain Python would raise a ``ValueError`` or a
``TypeError`` for the same mistake, the class is one of these too, so that ordinary ``except`` clauses work.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable

__all__ = [
    "CausalPPLError",
    "CausalPPLWarning",
    "CouplingWarning",
    "EvidenceError",
    "ExecutorWarning",
    "GraphError",
    "GraphWarning",
    "GuideMismatchError",
    "IdentificationWarning",
    "ImpossibleEvidenceError",
    "IncompatibleMechanismError",
    "InferenceError",
    "InferenceWarning",
    "InterventionError",
    "LatentSiteError",
    "MethodError",
    "NoMechanismError",
    "NondeterministicProgramError",
    "OutOfDistributionWarning",
    "ProgramError",
    "QueryError",
    "ShapeError",
    "SupportError",
    "TrainingError",
    "UnknownSiteError",
    "UnknownWorldError",
    "WorldNameError",
    "closest_name",
    "site_list",
    "warn_caller",
]


class CausalPPLError(Exception):
    """Base of all errors that causalppl raises on purpose."""


class ProgramError(CausalPPLError, ValueError):
    """The program cannot be read as a structural causal model as it is written."""


class NondeterministicProgramError(ProgramError):
    """The program gives different values for the same noise: it is random outside its sample sites."""


class UnknownSiteError(CausalPPLError, ValueError):
    """A site was named that no run of the program has shown."""


class InterventionError(CausalPPLError, ValueError):
    """An intervention that cannot be applied to its site."""


class EvidenceError(CausalPPLError, ValueError):
    """Evidence that cannot be conditioned on as it was given."""


class ImpossibleEvidenceError(EvidenceError):
    """Evidence that the program gives probability zero."""


class ShapeError(CausalPPLError, ValueError):
    """A value whose shape does not fit its site."""


class SupportError(CausalPPLError, ValueError):
    """A value outside the support of its site's distribution."""


class WorldNameError(CausalPPLError, ValueError):
    """A world's name is reserved, used twice, or otherwise not allowed."""


class UnknownWorldError(CausalPPLError, KeyError):
    """A world was named that the result does not have."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class NoMechanismError(CausalPPLError, TypeError):
    """A site needs a structural assignment and its distribution has none registered."""


class IncompatibleMechanismError(CausalPPLError, ValueError):
    """A site's noise in one world cannot drive its mechanism in another."""


class MethodError(CausalPPLError, ValueError):
    """An inference method that cannot serve this program and evidence."""


class LatentSiteError(MethodError):
    """``Exact`` was asked for while something is latent."""


class InferenceError(CausalPPLError, RuntimeError):
    """Inference failed: the result would not be a posterior."""


class TrainingError(InferenceError):
    """A loss that is not finite. Its ``history`` is that of the steps before, a :class:`causalppl.training.History`."""

    history: object = None


class GuideMismatchError(CausalPPLError, ValueError):
    """A guide was made for another program."""


class QueryError(CausalPPLError, ValueError):
    """A query that cannot be read, or that asks what its program cannot answer."""


class GraphError(CausalPPLError, ValueError):
    """A graph that is no causal graph, or a question that it cannot answer."""


class CausalPPLWarning(UserWarning):
    """Base of all warnings of causalppl."""


class InferenceWarning(CausalPPLWarning):
    """A posterior whose own diagnostics say that it should not be trusted as it is."""


class OutOfDistributionWarning(InferenceWarning):
    """Evidence that the program's simulations hardly ever resemble, so that networks trained on them have not learnt it."""


class CouplingWarning(CausalPPLWarning):
    """An answer that depends on how worlds are coupled, where the family has several couplings."""


class IdentificationWarning(CausalPPLWarning):
    """An answer about what no data tell of: it is what the prior says."""


class GraphWarning(CausalPPLWarning):
    """A graph that may lack arrows or sites of its program."""


class ExecutorWarning(CausalPPLWarning):
    """The program runs correctly but on a slower executor than asked for."""


def warn_caller(message: str, category: type[CausalPPLWarning]) -> None:
    """Warn at the line of the user's own code that led here."""
    frame, level = sys._getframe(1), 2
    inside = ("causalppl", "torch", "pyro", "contextlib")
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in inside:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """The known name that looks most like ``name``, or ``None`` where nothing is near."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return found[0] if found else None


def site_list(names: Iterable[str], most: int = 20) -> str:
    """Names for an error message: in program order, shortened when there are many."""
    known = [repr(n) for n in names]
    if not known:
        return "(none)"
    more = f", and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more
