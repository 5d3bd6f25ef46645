"""Shapley values of a game, from the values of its coalitions: exact over all, or over random orders of the players."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Plan", "exact_plan", "permutation_plan"]


@dataclass(frozen=True)
class Plan:
    """The coalitions to evaluate, and how Shapley values are linear in their values.

    Attributes:
        coalitions: members, booleans of shape ``(coalitions, players)``; the empty one first, the grand one last.
        weights: of the exact plan ``(players, coalitions)``; with permutations ``(orders, players, coalitions)``, whose mean
            over orders estimates the values and whose spread is the error.
    """

    coalitions: npt.NDArray[np.bool_]
    weights: npt.NDArray[np.float64]

    @property
    def exact(self) -> bool:
        """Whether all coalitions are there."""
        return self.weights.ndim == 2


def exact_plan(players: int) -> Plan:
    r"""All coalitions, with the weights of Shapley's formula.

    .. math:: \phi_i = \sum_{S \not\ni i} \frac{|S|!\,(n - |S| - 1)!}{n!} [v(S \cup i) - v(S)]

    Example:
        >>> exact_plan(2).weights
        array([[-0.5,  0.5, -0.5,  0.5],
               [-0.5, -0.5,  0.5,  0.5]])
    """
    codes = np.arange(2**players)
    members = (codes[:, None] >> np.arange(players)) & 1 == 1
    sizes = members.sum(1)
    whole = math.factorial(players)
    factor = np.array(
        [math.factorial(k) * math.factorial(players - k - 1) / whole for k in range(players)]
        + [0.0]
    )
    # a coalition with i counts as S + i, one without it as S
    weights = np.where(members, factor[sizes - 1][:, None], -factor[sizes][:, None])
    return Plan(members, weights.T.astype(np.float64))


def permutation_plan(players: int, orders: int, seed: int) -> Plan:
    """Coalitions along random orders of the players, each with its reverse; values add up along every order.

    Args:
        players: their number.
        orders: pairs of orders.
        seed: of numpy's generator.
    """
    rng = np.random.default_rng(seed)
    chains = []
    for _ in range(orders):
        order = rng.permutation(players)
        chains += [order, order[::-1]]
    index: dict[bytes, int] = {}
    rows: list[npt.NDArray[np.bool_]] = []

    def number(members: npt.NDArray[np.bool_]) -> int:
        key = members.tobytes()
        if key not in index:
            index[key] = len(rows)
            rows.append(members.copy())
        return index[key]

    steps = np.zeros((len(chains), players + 1), dtype=int)
    for k, chain in enumerate(chains):
        members = np.zeros(players, dtype=bool)
        steps[k, 0] = number(members)
        for j, player in enumerate(chain):
            members[player] = True
            steps[k, j + 1] = number(members)
    # the grand coalition goes last
    last = index[np.ones(players, dtype=bool).tobytes()]
    swap = np.arange(len(rows))
    swap[last], swap[-1] = len(rows) - 1, last
    rows[last], rows[-1] = rows[-1], rows[last]
    weights = np.zeros((orders, players, len(rows)))
    for k, chain in enumerate(chains):
        for j, player in enumerate(chain):
            weights[k // 2, player, swap[steps[k, j + 1]]] += 0.5
            weights[k // 2, player, swap[steps[k, j]]] -= 0.5
    return Plan(np.stack(rows), weights)
