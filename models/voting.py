"""A vote by simple majority: how responsible is one voter for the result?

::

    vote_1 --> wins
    ...    ----^
    vote_11 ---^

Every vote is a fair coin, and the motion ``wins`` with more than half of them. With 6 to 5 every voter in favour is a cause,
with responsibility 1. With 11 to 0 no single voter is: it takes six to turn the result, so each of the C(11, 6) = 462 sets of
six is a cause, and each of its voters has responsibility 1/6.

Source: Chockler, Halpern (2004), Responsibility and Blame: A Structural-Model Approach; Halpern (2016), Actual Causality, chapter 6.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

__all__ = ["KNOWN", "data", "model"]

KNOWN = {
    "unanimous_causes": 462.0,
    "unanimous_responsibility": 1 / 6,
    "close_causes": 6.0,
    "close_responsibility": 1.0,
}


def model(voters: int = 11) -> torch.Tensor:
    """One vote: ``vote_1`` to ``vote_11`` and ``wins``, each 0 or 1.

    Args:
        voters: how many there are.
    """
    ayes = sum(pyro.sample(f"vote_{i + 1}", dist.Bernoulli(0.5)) for i in range(voters))
    return pyro.deterministic("wins", (torch.as_tensor(ayes) > voters / 2).float())


def data(ayes: int = 11) -> tuple[tuple[()], dict[str, torch.Tensor]]:
    """The first ``ayes`` of eleven voters were in favour: all of them, unless said otherwise."""
    return (), {f"vote_{i + 1}": torch.tensor(float(i < ayes)) for i in range(11)}
