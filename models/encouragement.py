"""An encouragement design: tutoring, homework and the exam, and a boy called Joe.

A remedial programme encourages pupils (``x``), which makes them do homework (``h``), and both help
at the exam (``y``)::

    x --> h --> y        h = .5 x + U_H
    x ----------^        y = .7 x + .4 h + U_Y

All variables are in standardised units and the U are independent. The book fixes the coefficients
alone; the scales of the U are taken to be 1, so that a site's standardised noise *is* the book's U.
No answer about Joe, and none about ``do``, depends on them.

Joe had encouragement .5, homework 1 and an exam score of 1.5. Had he doubled his homework, he would
have scored 1.9: his own U = (.5, .75, .75) is kept and ``h`` is set to 2. A pupil drawn at random
and made to do homework 2 scores .8 on average; a pupil who is *seen* to have done homework 2 scores
1.36 (Cov(y, h) / Var(h) = .85 / 1.25 of 2), because encouragement is behind both.

Source: Pearl, Glymour and Jewell (2016), Causal Inference in Statistics: A Primer, section 4.2.3.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "data", "model"]

KNOWN = {
    "seeing": 1.36,  # E[y | h = 2]
    "doing": 0.8,  # E[y | do(h = 2)]
    "imagining": 1.9,  # Joe's y, had his h been 2
    "noise_x": 0.5,
    "noise_h": 0.75,
    "noise_y": 0.75,
}


def model() -> torch.Tensor:
    """One pupil: encouragement ``x``, homework ``h``, exam score ``y``, each a standardised scalar."""
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    h = pyro.sample("h", dist.Normal(0.5 * x, 1.0))
    return pyro.sample("y", dist.Normal(0.7 * x + 0.4 * h, 1.0))


def data() -> tuple[tuple[()], dict[str, torch.Tensor]]:
    """Joe's record: every site is observed, so nothing is left to infer but his noise."""
    return (), {"x": torch.tensor(0.5), "h": torch.tensor(1.0), "y": torch.tensor(1.5)}
