"""Smoking, tar and cancer: an effect identified through its mechanism, with the confounder unseen.

A disposition ``u`` that nobody measured is behind smoking and cancer; smoking works through tar alone::

    u --> smoking --> tar --> cancer
    u ------------------------^

Everything is binary. P(smoking = 1 | u) = .2 + .6 u, P(tar = 1 | smoking) = .1 + .8 smoking, P(cancer = 1 | tar, u) = .1 + .3 tar + .4 u
and P(u = 1) = .5. So P(cancer | do(smoking)) = .1 + .3 (.1 + .8 smoking) + .2: .57 and .33, while P(u = 1 | smoking = 1) = .8 makes
seeing .69 and .21. No observed set blocks the back door; {tar} is a front-door set.

Source of the graph: Pearl (1995), Causal diagrams for empirical research, Biometrika 82.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "model"]

KNOWN = {"seeing_1": 0.69, "seeing_0": 0.21, "doing_1": 0.57, "doing_0": 0.33}


def model() -> torch.Tensor:
    """One person: ``u``, ``smoking``, ``tar``, ``cancer``, each 0 or 1; ``u`` is not measured."""
    u = pyro.sample("u", dist.Bernoulli(0.5))
    smoking = pyro.sample("smoking", dist.Bernoulli(0.2 + 0.6 * u))
    tar = pyro.sample("tar", dist.Bernoulli(0.1 + 0.8 * smoking))
    return pyro.sample("cancer", dist.Bernoulli(0.1 + 0.3 * tar + 0.4 * u))
