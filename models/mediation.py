"""A training programme that works through homework, and partly without it.

The programme makes pupils do homework, and both help them to pass::

    training --> homework --> passes
    training -----------------^

P(homework = 1 | training) = .75 with and .40 without; P(passes = 1 | training, homework) = .8, .4, .3 and .2 for (1, 1), (1, 0), (0, 1)
and (0, 0). So

- natural direct effect: (.4 - .2)(1 - .40) + (.8 - .3)(.40) = .32
- natural indirect effect: (.75 - .40)(.3 - .2) = .035
- total effect: .80 x .75 + .40 x .25 - .30 x .40 - .20 x .60 = .46

.32 of .46 would remain if the programme did not reach homework, so 1 - .32 / .46 = .304 of the gain needs it; homework alone would give
.035 / .46 = .076 of it. The two shares do not add up to one, because training and homework reinforce each other.

Source: Pearl, Glymour and Jewell (2016), Causal Inference in Statistics: A Primer, section 4.5.2.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "model"]

KNOWN = {
    "natural_direct_effect": 0.32,
    "natural_indirect_effect": 0.035,
    "total_effect": 0.46,
    "controlled_direct_effect_0": 0.2,  # nobody does homework
    "controlled_direct_effect_1": 0.5,  # everybody does
}


def model() -> torch.Tensor:
    """One pupil: ``training``, ``homework``, ``passes``, each 0 or 1."""
    training = pyro.sample("training", dist.Bernoulli(0.5))
    homework = pyro.sample("homework", dist.Bernoulli(torch.where(training == 1, 0.75, 0.40)))
    with_training = torch.where(homework == 1, 0.8, 0.4)
    without = torch.where(homework == 1, 0.3, 0.2)
    return pyro.sample("passes", dist.Bernoulli(torch.where(training == 1, with_training, without)))
