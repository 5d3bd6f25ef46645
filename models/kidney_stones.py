"""Kidney stones: the treatment that is better for everybody and looks worse in the table.

Doctors gave open surgery (``treatment`` 1) to large stones more often, and large stones heal less often::

    large --> treatment --> success
    large ------------------^

The probabilities are the published frequencies, so that seeing gives the published table exactly: success in 273 of 350 with open
surgery and 289 of 350 with the other treatment, .780 against .826. Doing reverses the order: averaged over 357 small and 343
large stones, open surgery heals (357 x 81/87 + 343 x 192/263) / 700 = .833, the other (357 x 234/270 + 343 x 55/80) / 700 = .779.
``large`` satisfies the back-door criterion.

Source: Charig, Webb, Payne, Wickham (1986), Comparison of treatment of renal calculi, British Medical Journal 292.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "model"]

KNOWN = {
    "seeing_1": 273 / 350,
    "seeing_0": 289 / 350,
    "doing_1": (357 * 81 / 87 + 343 * 192 / 263) / 700,
    "doing_0": (357 * 234 / 270 + 343 * 55 / 80) / 700,
}


def model() -> torch.Tensor:
    """One patient: ``large`` stone, open-surgery ``treatment``, ``success``, each 0 or 1."""
    large = pyro.sample("large", dist.Bernoulli(343 / 700))
    treatment = pyro.sample(
        "treatment", dist.Bernoulli(torch.where(large == 1, 263 / 343, 87 / 357))
    )
    small = torch.where(treatment == 1, 81 / 87, 234 / 270)
    big = torch.where(treatment == 1, 192 / 263, 55 / 80)
    return pyro.sample("success", dist.Bernoulli(torch.where(large == 1, big, small)))
