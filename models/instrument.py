"""A lottery for a training place: an instrument, which alone does not identify an effect.

The lottery ``offer`` moves people to ``train``, and an unmeasured ``drive`` makes them train and earn::

    offer --> train --> employed
    drive --> train
    drive --------------^

Everything is binary, with P(offer = 1) = P(drive = 1) = .5, P(train = 1 | offer, drive) = .1 + .4 offer + .4 drive and
P(employed = 1 | train, drive) = .2 + .3 train + .4 drive. So doing gives .7 and .4. Among those who train, P(drive = 1 | train = 1) =
.35 / .5 = .7, so seeing gives .5 + .28 = .78 and .2 + .12 = .32. ``offer`` is an instrument; the graph alone leaves P(employed | do(train))
not identified. Effects do not vary with ``drive``, so the ratio of the offer's effects, (.3 x .4) / .4 = .3, happens to be right.

Source of the idea: Angrist, Imbens, Rubin (1996), Identification of causal effects using instrumental variables.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "model"]

KNOWN = {"seeing_1": 0.78, "seeing_0": 0.32, "doing_1": 0.7, "doing_0": 0.4}


def model() -> torch.Tensor:
    """One applicant: ``offer``, ``drive``, ``train``, ``employed``, each 0 or 1; ``drive`` is not measured."""
    offer = pyro.sample("offer", dist.Bernoulli(0.5))
    drive = pyro.sample("drive", dist.Bernoulli(0.5))
    train = pyro.sample("train", dist.Bernoulli(0.1 + 0.4 * offer + 0.4 * drive))
    return pyro.sample("employed", dist.Bernoulli(0.2 + 0.3 * train + 0.4 * drive))
