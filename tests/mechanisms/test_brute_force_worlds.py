"""Counterfactuals of compound mechanisms against rejection: simulate both worlds in NumPy, keep the draws that show the value.

Nothing here is shared with the mechanisms: the structural assignments are written again, with scipy's quantile functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.stats as st
import torch

from causalppl.mechanisms import mechanism_for
from causalppl.mechanisms.law_cases import expanded
from causalppl.mechanisms.two_sample import different_columns

Array = np.ndarray[Any, Any]
_DRAWS, _SIMULATED = 1000, 40_000


@dataclass(frozen=True)
class Coupling:
    """Two worlds of one site.

    Args:
        here: the distribution in the world of the value.
        there: the distribution in the other world.
        value: the value here, about which draws are kept.
        both: ``(generator, draws)`` to the values of both worlds with shared noise, shapes ``(draws, numbers)``.
        width: how near to the value counts as the value.
        mechanism: its name.
    """

    here: Any
    there: Any
    value: Any
    both: Callable[[np.random.Generator, int], tuple[Array, Array]]
    width: float = 0.0
    mechanism: str | None = None

    def accepted(self) -> tuple[Array, Array]:
        """Pairs of both worlds' values where this one is near the value."""
        generator, pairs = np.random.default_rng(5), []
        value = np.atleast_1d(np.asarray(self.value, dtype=float))
        while sum(len(here) for here, _ in pairs) < 2 * _DRAWS and len(pairs) < 12:
            here, there = (
                world.reshape(_SIMULATED, -1) for world in self.both(generator, _SIMULATED)
            )
            near = (np.abs(here - value) <= self.width).all(1)
            pairs.append((here[near], there[near]))
        here, there = (np.concatenate(worlds)[: 2 * _DRAWS] for worlds in zip(*pairs, strict=True))
        return here, there

    def abducted(self, values: Array) -> Array:
        """The mechanism's values there of those here."""
        torch.manual_seed(6)
        draws, like = len(values), self.here.sample()
        here, there = expanded(self.here, draws), expanded(self.there, draws)
        mechanism = mechanism_for(here, self.mechanism)
        value = torch.tensor(values).to(like.dtype).reshape(draws, *like.shape)
        noise = mechanism.abduct(
            here, value, None if mechanism.invertible else mechanism.base(here).sample()
        )
        return mechanism.forward(there, noise).double().numpy().reshape(draws, -1)


def tensor(*numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def number(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def in_turn(uniforms: Array, total: int, probabilities: Array) -> Array:
    """Multinomial counts, a binomial quantile for each category but the last, from what is left."""
    left, counts = np.full(len(uniforms), total), []
    for i in range(probabilities.shape[1] - 1):
        rest = probabilities[:, i:].sum(1)
        p = np.clip(
            np.divide(probabilities[:, i], rest, out=np.zeros_like(rest), where=rest > 0), 0, 1
        )
        counts.append(st.binom.ppf(uniforms[:, i], left, p).astype(int).clip(0))
        left = left - counts[-1]
    return np.stack([*counts, left], 1)  # fmt: skip


def beta_binomial() -> Coupling:
    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        p, v = generator.random((2, n))
        return tuple(st.binom.ppf(v, 5, st.beta.ppf(p, *ab)) for ab in ((2.0, 3.0), (0.7, 0.5)))  # type: ignore[return-value]

    here, there = (
        dist.BetaBinomial(number(a), number(b), total_count=5) for a, b in ((2.0, 3.0), (0.7, 0.5))
    )
    return Coupling(here, there, 1.0, both)


_P, _Q = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.3, 0.2])


def multinomial() -> Coupling:
    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        u = generator.random((n, 2))
        return tuple(in_turn(u, 4, np.tile(p, (n, 1))) for p in (_P, _Q))  # type: ignore[return-value]

    fns = (dist.Multinomial(4, torch.tensor(p)) for p in (_P, _Q))
    return Coupling(*fns, [1.0, 1.0, 2.0], both, mechanism="inverse_cdf")


def multinomial_by_draws() -> Coupling:
    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        gumbels = generator.gumbel(size=(n, 4, 3))
        return tuple(  # type: ignore[return-value]
            (np.log(p) + gumbels).argmax(-1)[..., None].__eq__(np.arange(3)).sum(1)
            for p in (_P, _Q)
        )

    fns = (dist.Multinomial(4, torch.tensor(p)) for p in (_P, _Q))
    return Coupling(*fns, [1.0, 1.0, 2.0], both, mechanism="gumbel_max")


def dirichlet_multinomial() -> Coupling:
    shapes = np.array([0.5, 2.0, 1.0]), np.array([3.0, 0.7, 5.0])

    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        first, second = generator.random((n, 3)), generator.random((n, 2))
        gammas = (st.gamma.ppf(first, a) for a in shapes)
        return tuple(in_turn(second, 3, g / g.sum(1, keepdims=True)) for g in gammas)  # type: ignore[return-value]

    fns = (dist.DirichletMultinomial(torch.tensor(a), total_count=3) for a in shapes)
    return Coupling(*fns, [1.0, 1.0, 1.0], both)


def dirichlet() -> Coupling:
    shapes = np.array([0.5, 2.0, 1.0]), np.array([3.0, 0.7, 5.0])

    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        gammas = (
            st.gamma.ppf(u, a) for u, a in zip([generator.random((n, 3))] * 2, shapes, strict=True)
        )
        return tuple(g / g.sum(1, keepdims=True) for g in gammas)  # type: ignore[return-value]

    fns = (dist.Dirichlet(torch.tensor(a)) for a in shapes)
    return Coupling(*fns, [0.2, 0.5, 0.3], both, width=0.05)


def zero_inflated_poisson() -> Coupling:
    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        gate, u = generator.random((2, n))
        return tuple(
            np.where(gate > 1 - g, 0, st.poisson.ppf(u, r)) for g, r in ((0.3, 1.0), (0.1, 4.0))
        )  # type: ignore[return-value]

    fns = (dist.ZeroInflatedPoisson(number(r), gate=number(g)) for g, r in ((0.3, 1.0), (0.1, 4.0)))
    return Coupling(*fns, 0.0, both)


def mixture() -> Coupling:
    worlds = (
        (_P[:2] / _P[:2].sum(), np.array([0.0, 1.0])),
        (_Q[:2] / _Q[:2].sum(), np.array([3.0, -1.0])),
    )

    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        gumbels, normals = generator.gumbel(size=(n, 2)), generator.normal(size=(n, 2))
        return tuple(  # type: ignore[return-value]
            (loc + normals)[np.arange(n), (np.log(p) + gumbels).argmax(1)] for p, loc in worlds
        )

    fns = (
        dist.MixtureSameFamily(
            dist.Categorical(torch.tensor(p)), dist.Normal(torch.tensor(loc), 1.0)
        )
        for p, loc in worlds
    )
    return Coupling(*fns, 0.8, both, width=0.05)


def diagonal_mixture() -> Coupling:
    scales = np.array([1.0, 3.0]), np.array([2.0, 0.5])

    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        gumbels, normals = generator.gumbel(size=(n, 2)), generator.normal(size=(n, 2))
        return tuple(
            (normals * s)[np.arange(n), (np.log(_P[:2]) + gumbels).argmax(1)] for s in scales
        )  # type: ignore[return-value]

    fns = (
        dist.MixtureOfDiagNormals(
            tensor([0.0], [0.0]), torch.tensor(s)[:, None], torch.log(torch.tensor(_P[:2]))
        )
        for s in scales
    )
    return Coupling(*fns, [1.2], both, width=0.05)


def folded() -> Coupling:
    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        z = generator.normal(size=n)
        return np.abs(0.5 + z), np.abs(-2.0 + 0.7 * z)

    fns = (
        dist.FoldedDistribution(dist.Normal(number(m), number(s)))
        for m, s in ((0.5, 1.0), (-2.0, 0.7))
    )
    return Coupling(*fns, 0.6, both, width=0.05)


def student() -> Coupling:
    lowers = np.array([[1.0, 0.0], [0.5, 2.0]]), np.array([[0.3, 0.0], [-1.0, 1.0]])

    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        z, u = generator.normal(size=(n, 2)), generator.random(n)
        return tuple(  # type: ignore[return-value]
            z @ lower.T * np.sqrt(df / st.chi2.ppf(u, df))[:, None]
            for lower, df in zip(lowers, (3.0, 9.0), strict=True)
        )

    fns = (
        dist.MultivariateStudentT(number(df), tensor(0.0, 0.0), torch.tensor(lower))
        for lower, df in zip(lowers, (3.0, 9.0), strict=True)
    )
    return Coupling(*fns, [1.0, -1.0], both, width=0.15)


def projected_normal() -> Coupling:
    centres = np.array([1.0, -1.0]), np.array([0.0, 0.6])

    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        x = [generator.normal(size=(n, 2))] * 2
        return tuple(
            (c + z) / np.linalg.norm(c + z, axis=1, keepdims=True)
            for c, z in zip(centres, x, strict=True)
        )  # type: ignore[return-value]

    fns = (dist.ProjectedNormal(torch.tensor(c)) for c in centres)
    return Coupling(*fns, [np.cos(0.5), np.sin(0.5)], both, width=0.05)


def sine_skewed() -> Coupling:
    worlds = ((0.3, 1.0, 0.6), (1.0, 2.0, -0.9))

    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        u, gate = generator.random((2, n))
        angles = np.linspace(-np.pi, np.pi, 20_001)  # scipy's own quantiles take minutes

        def world(loc: float, concentration: float, skew: float) -> Array:
            y = loc + np.interp(u, st.vonmises.cdf(angles, concentration), angles)
            y = np.where(gate > 1 - (1 + skew * np.sin(y - loc)) / 2, y, 2 * loc - y)
            return np.mod(y + np.pi, 2 * np.pi) - np.pi

        return world(*worlds[0]), world(*worlds[1])

    fns = (
        dist.SineSkewed(dist.VonMises(tensor(loc), tensor(k)).to_event(1), tensor(skew))
        for loc, k, skew in worlds
    )
    return Coupling(*fns, [1.1], both, width=0.05)


def soft_asymmetric_laplace() -> Coupling:
    worlds = ((0.0, 1.0, 0.5, 0.8), (1.0, 2.0, 3.0, 0.3))

    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        u, z = generator.random(n), generator.normal(size=n)
        return tuple(  # type: ignore[return-value]
            st.laplace_asymmetric.ppf(u, asymmetry, loc, scale) + scale * soft * z
            for loc, scale, asymmetry, soft in worlds
        )

    fns = (dist.SoftAsymmetricLaplace(*(number(x) for x in world)) for world in worlds)
    return Coupling(*fns, 0.9, both, width=0.05)


def masked_mixture() -> Coupling:
    def both(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        z, u = generator.normal(size=n), generator.random(n)
        return 0.5 + z, st.expon.ppf(u, scale=0.5)

    fns = (
        dist.MaskedMixture(
            torch.tensor(mask), dist.Normal(number(0.5), 1.0), dist.Exponential(number(2.0))
        )
        for mask in (False, True)
    )
    return Coupling(*fns, 0.9, both, width=0.05)


COUPLINGS = (
    beta_binomial, diagonal_mixture, dirichlet, dirichlet_multinomial, folded, masked_mixture, mixture, multinomial,
    multinomial_by_draws, projected_normal, sine_skewed, soft_asymmetric_laplace, student, zero_inflated_poisson,
)  # fmt: skip


@pytest.mark.parametrize("make", COUPLINGS, ids=lambda make: make.__name__)
def test_counterfactuals_are_those_of_rejection(make: Callable[[], Coupling]) -> None:
    coupling = make()
    here, there = coupling.accepted()
    assert len(here) >= 400
    ours = coupling.abducted(
        here[::2]
    )  # one half of the pairs is abducted, the other one is what to find
    ours, theirs = (
        torch.tensor(np.concatenate(pair, 1), dtype=torch.float64)
        for pair in ((here[::2], ours), (here[1::2], there[1::2]))
    )
    differing = list(different_columns(ours, theirs, 1e-4))
    assert not differing, differing
