"""What is certain of a term whatever else is unknown: the range that its sites' supports leave it."""

from __future__ import annotations

import math
from typing import Any

from torch.distributions import constraints

from ..notation.resolution import Arrows
from ..notation.terms import Arithmetic, Expression, Number, Outcome, Probability, Term
from ..structural.form import StructuralForm
from ..structural.sites import Site
from .distributions import unwrapped
from .response_bounds import INTERVALS, Interval

__all__ = ["range_of"]

_ANYTHING: Interval = (-math.inf, math.inf)


def range_of(term: Term, form: StructuralForm, arrows: Arrows) -> Interval:
    """A range that a term cannot leave: of a probability 0 to 1, of an expectation that of its expression."""
    if isinstance(term, Probability):
        return 0.0, 1.0
    return _range(term.expression, form, arrows)


def _range(expression: Expression, form: StructuralForm, arrows: Arrows) -> Interval:
    if isinstance(expression, Number):
        return expression.value, expression.value
    if isinstance(expression, Arithmetic):
        left, right = (_range(e, form, arrows) for e in (expression.left, expression.right))
        return INTERVALS[expression.operator](left, right)
    if isinstance(expression, Outcome) and expression.site in form.sites:
        return _support(form.sites[expression.site], bool(tuple(arrows[expression.site])))
    return _ANYTHING


def _support(site: Site, has_parents: bool) -> Interval:
    """Ends of the support. Of a family whose support has parameters they are known where no parent can move them."""
    if site.kind != "sample":
        return _ANYTHING
    fn = unwrapped(site.fn)
    support: Any = getattr(type(fn), "support", None)
    if isinstance(support, property) or not isinstance(support, constraints.Constraint):
        if has_parents:
            return _ANYTHING
        support = getattr(fn, "support", None)
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    if support is constraints.boolean:
        return 0.0, 1.0
    ends = []
    for name, unknown in (("lower_bound", -math.inf), ("upper_bound", math.inf)):
        end = getattr(support, name, unknown)
        if getattr(end, "numel", lambda: 1)() != 1:
            return _ANYTHING
        ends.append(float(end))
    return ends[0], ends[1]
