"""Bounds on the probabilities of causation from an experiment and an observation, whatever the program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import EvidenceError

__all__ = ["TianPearlBounds", "tian_pearl_bounds"]

#: What rounding of published frequencies may come to.
_SLACK = 1e-9


@dataclass(frozen=True)
class TianPearlBounds:
    """Ranges of the probabilities of causation, each ``(low, high)``; NaN where the condition has probability zero.

    Attributes:
        pn: probability of necessity.
        ps: probability of sufficiency.
        pns: probability of necessity and sufficiency.
    """

    pn: tuple[float, float]
    ps: tuple[float, float]
    pns: tuple[float, float]


def tian_pearl_bounds(
    p_joint: Sequence[Sequence[float]], p_do: Sequence[float], *, monotone: bool = False
) -> TianPearlBounds:
    r"""Sharp bounds of Tian and Pearl on PN, PS and PNS.

    .. math::
        \max\{0,\ P(y_x) - P(y_{x'}),\ P(y) - P(y_{x'}),\ P(y_x) - P(y)\} \le PNS \le
        \min\{P(y_x),\ P(y'_{x'}),\ P(x,y) + P(x',y'),\ P(y_x) - P(y_{x'}) + P(x,y') + P(x',y)\}

        \max\{0,\ [P(y) - P(y_{x'})] / P(x,y)\} \le PN \le \min\{1,\ [P(y'_{x'}) - P(x',y')] / P(x,y)\}

        \max\{0,\ [P(y_x) - P(y)] / P(x',y')\} \le PS \le \min\{1,\ [P(y_x) - P(x,y)] / P(x',y')\}

    Where the effect is monotone (nobody is spared by the cause) the lower bounds are the values.

    Args:
        p_joint: from observation, ``[[P(x=0, y=0), P(x=0, y=1)], [P(x=1, y=0), P(x=1, y=1)]]``.
        p_do: from an experiment, ``(P(y=1 | do(x=0)), P(y=1 | do(x=1)))``.
        monotone: whether :math:`y_{x=1} \ge y_{x=0}` holds for everybody.

    Returns:
        :class:`TianPearlBounds`.

    Raises:
        EvidenceError: these are no probabilities, no population can have both, or monotonicity contradicts them.

    References:
        J. Tian, J. Pearl (2000), Probabilities of Causation: Bounds and Identification.
        J. Pearl (2009), Causality, section 9.3.4.

    Example:
        >>> bounds = tian_pearl_bounds([[0.486, 0.014], [0.499, 0.001]], (0.014, 0.016))  # the drug lawsuit
        >>> [tuple(round(end, 4) for end in ends) for ends in (bounds.pn, bounds.ps, bounds.pns)]
        [(1.0, 1.0), (0.0021, 0.0309), (0.002, 0.016)]
    """
    table, (y0, y1) = _read(p_joint, p_do)
    (p00, p01), (p10, p11) = table
    y = p01 + p11
    _check_together(table, y0, y1)
    if monotone:
        if not y0 <= y + _SLACK or not y <= y1 + _SLACK:
            raise EvidenceError(
                f"tian_pearl_bounds: monotone=True needs P(y=1 | do(x=0)) <= P(y=1) <= P(y=1 | do(x=1)), but these are {y0:.6g}, {y:.6g} "
                f"and {y1:.6g}; leave monotone out"
            )
        pns, pn, ps = max(0.0, y1 - y0), _over(y - y0, p11), _over(y1 - y, p00)
        return TianPearlBounds((pn, pn), (ps, ps), (pns, pns))
    return TianPearlBounds(
        pn=_range(_over(y - y0, p11), _over(1 - y0 - p00, p11)),
        ps=_range(_over(y1 - y, p00), _over(y1 - p11, p00)),
        pns=_range(
            max(y1 - y0, y - y0, y1 - y, 0.0),
            min(y1, 1 - y0, p11 + p00, y1 - y0 + p10 + p01),
        ),
    )


def _over(above: float, below: float) -> float:
    """A conditional probability, kept between 0 and 1; NaN where the condition does not happen."""
    return min(1.0, max(0.0, above / below)) if below > 0 else math.nan


def _range(low: float, high: float) -> tuple[float, float]:
    """Both ends; two that rounding has crossed are one."""
    return (low, max(low, high)) if not math.isnan(low) else (math.nan, math.nan)


def _read(p_joint: Any, p_do: Any) -> tuple[list[list[float]], tuple[float, float]]:
    try:
        table = [[float(p) for p in row] for row in p_joint]
        pair = tuple(float(p) for p in p_do)
    except (TypeError, ValueError):
        table, pair = [], ()
    if [len(row) for row in table] != [2, 2] or len(pair) != 2:
        raise EvidenceError(
            "tian_pearl_bounds: give p_joint as [[P(x=0,y=0), P(x=0,y=1)], [P(x=1,y=0), P(x=1,y=1)]] and p_do as "
            "(P(y=1 | do(x=0)), P(y=1 | do(x=1)))"
        )
    for p in (*table[0], *table[1], *pair):
        if not -_SLACK <= p <= 1 + _SLACK:
            raise EvidenceError(f"tian_pearl_bounds: {p!r} is no probability between 0 and 1")
    total = math.fsum((*table[0], *table[1]))
    if abs(total - 1) > 1e-6:
        raise EvidenceError(
            f"tian_pearl_bounds: the joint probabilities sum to {total:.9g}, not to 1; divide counts by their sum"
        )
    return table, (pair[0], pair[1])


def _check_together(table: list[list[float]], y0: float, y1: float) -> None:
    """Those who took x had the outcome that x gives them, so P(x, y) <= P(y_x) <= 1 - P(x, y')."""
    for x, p in ((0, y0), (1, y1)):
        low, high = table[x][1], 1 - table[x][0]
        if not low - _SLACK <= p <= high + _SLACK:
            raise EvidenceError(
                f"tian_pearl_bounds: P(y=1 | do(x={x})) = {p:.6g} is impossible beside the observation, which leaves it "
                f"{low:.6g} to {high:.6g}: P(x={x}, y=1) <= P(y=1 | do(x={x})) <= 1 - P(x={x}, y=0)"
            )
