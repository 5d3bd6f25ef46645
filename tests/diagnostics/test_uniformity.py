"""The test of uniform ranks against brute force over all rank vectors, and its error rates."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import comb

import numpy as np
import pytest
from scipy import stats

from causalppl import errors
from causalppl.diagnostics import ecdf_band, uniformity_p_value
from causalppl.diagnostics.ranks import rank, regridded
from causalppl.diagnostics.uniformity import holm, pooled_p_values


def exact_statistic(ranks: tuple[int, ...], num_draws: int) -> Fraction:
    """The smallest two-sided binomial tail probability, in exact arithmetic."""
    total, smallest = len(ranks), Fraction(1)
    for j in range(1, num_draws + 1):
        z = Fraction(j, num_draws + 1)
        mass = [comb(total, k) * z**k * (1 - z) ** (total - k) for k in range(total + 1)]
        count = sum(r < j for r in ranks)
        smallest = min(smallest, 2 * sum(mass[: count + 1]), 2 * sum(mass[count:]))
    return smallest


@pytest.mark.parametrize(("total", "num_draws"), [(1, 3), (3, 2), (4, 4), (6, 2), (5, 1)])
def test_p_values_are_those_of_all_rank_vectors(total: int, num_draws: int) -> None:
    vectors = list(product(range(num_draws + 1), repeat=total))
    found = {v: exact_statistic(v, num_draws) for v in vectors}
    for vector in vectors[:: max(1, len(vectors) // 60)]:
        expected = sum(t <= found[vector] for t in found.values()) / len(vectors)
        union = num_draws * float(found[vector])
        assert uniformity_p_value(np.array(vector), num_draws) == pytest.approx(
            min(1.0, union, expected), rel=1e-9
        )


@pytest.mark.parametrize(("total", "num_draws"), [(40, 9), (100, 99), (200, 999)])
def test_false_positive_rate(total: int, num_draws: int) -> None:
    generator, repeats = np.random.default_rng(0), 1000
    found = np.array(
        [
            uniformity_p_value(generator.integers(0, num_draws + 1, total), num_draws)
            for _ in range(repeats)
        ]
    )
    for level in (0.01, 0.05, 0.2):
        rejected = int((found <= level).sum())
        assert stats.binomtest(rejected, repeats, level, alternative="greater").pvalue > 1e-3
    # ranks are discrete, so the rate may fall short of its level, but not by much
    assert (found <= 0.2).mean() > 0.1


def test_the_band_is_that_of_the_p_value() -> None:
    generator = np.random.default_rng(1)
    band = ecdf_band(80, 19, 0.9)
    for tilt in (1.0, 1.3, 0.7) * 40:
        ranks = np.floor(generator.random(80) ** tilt * 20).astype(int)
        ecdf = np.array([(ranks < j).mean() for j in range(1, 20)])
        inside = ((band.low - 1e-12 <= ecdf) & (ecdf <= band.high + 1e-12)).all()
        assert (
            inside == (uniformity_p_value(ranks, 19) > 0.1)
            or abs(uniformity_p_value(ranks, 19) - 0.1) < 0.01
        )


@pytest.mark.parametrize("power", [0.6, 1.6])
def test_biased_ranks_are_caught(power: float) -> None:
    ranks = np.floor(np.random.default_rng(2).random(200) ** power * 100).astype(int)
    assert uniformity_p_value(ranks, 99) < 1e-3


def test_tiny_p_values_keep_their_size() -> None:
    found = [uniformity_p_value(np.zeros(n, dtype=int), 99) for n in (20, 50, 100)]
    assert 0 < found[2] < found[1] < found[0] < 1e-20


def test_ranks_of_discrete_values_are_uniform() -> None:
    generator, draws = np.random.default_rng(3), 9
    found, naive = [], []
    for p in generator.beta(1, 1, 4000):
        truth, *values = (generator.random(draws + 1) < p) * 1
        found.append(int(rank(np.array(truth), np.array(values), generator)[0]))
        naive.append(sum(v < truth for v in values))
    assert stats.chisquare(np.bincount(found, minlength=draws + 1)).pvalue > 1e-3
    assert uniformity_p_value(np.array(found), draws) > 1e-3
    assert uniformity_p_value(np.array(naive), draws) < 1e-12  # ties on one side, as often done


def test_values_that_differ_by_rounding_are_ties() -> None:
    truth = np.array(-123.456, dtype=np.float32)
    draws = truth + np.array([-1, 0, 1, 2], dtype=np.float32) * np.float32(8e-6)
    found, known = rank(truth, draws.astype(np.float32), np.random.default_rng(0))
    assert known and 0 <= found <= 4
    assert (
        rank(np.array(1.0), np.array([0.0, np.inf, -np.inf, 1.1]), np.random.default_rng(0))[0] == 2
    )
    both = rank(np.array(-np.inf), np.array([-np.inf, -np.inf]), np.random.default_rng(0))
    assert both[1]


@pytest.mark.parametrize(("old", "new"), [(3, 9), (9, 3), (6, 10)])
def test_uniform_ranks_stay_uniform_on_another_grid(old: int, new: int) -> None:
    generator = np.random.default_rng(4)
    found = regridded(generator.integers(0, old + 1, 6000), old, new, generator)
    assert stats.chisquare(np.bincount(found, minlength=new + 1)).pvalue > 1e-3


def test_pooling_is_valid_for_dependent_entries_and_sees_a_small_bias() -> None:
    generator, repeats, rejected = np.random.default_rng(5), 400, 0
    for _ in range(repeats):
        shared = generator.integers(0, 100, (40, 1))  # all entries of a simulation are the same
        rejected += min(pooled_p_values(np.repeat(shared, 30, axis=1), 99)) <= 0.025
    assert stats.binomtest(rejected, repeats, 0.05, alternative="greater").pvalue > 1e-3
    generator = np.random.default_rng(6)
    biased = np.floor(generator.random((60, 100)) ** 1.07 * 100).astype(int)
    single = min(uniformity_p_value(column, 99) for column in biased.T)
    assert 100 * single > 0.05
    assert pooled_p_values(biased, 99)[0] < 1e-3
    narrow = np.clip(np.floor((generator.random((60, 100)) - 0.5) * 104 + 50), 0, 99).astype(int)
    assert pooled_p_values(narrow, 99)[1] < 1e-3
    assert pooled_p_values(biased[:5], 99) == (1.0, 1.0)


def test_holm_is_the_closed_test_of_bonferroni() -> None:
    p_values = [0.011, 0.3, 0.012, 0.04]
    groups = [[i for i in range(4) if mask >> i & 1] for mask in range(1, 16)]
    for i, found in enumerate(holm(p_values)):
        closed = max(len(g) * min(p_values[j] for j in g) for g in groups if i in g)
        assert found == pytest.approx(min(1.0, closed))


def test_refusals() -> None:
    with pytest.raises(errors.ShapeError, match=r"shape \(2, 2\)"):
        uniformity_p_value(np.zeros((2, 2), dtype=int), 9)
    with pytest.raises(errors.MethodError, match="from 3 to 12"):
        uniformity_p_value(np.array([3, 12]), 9)
    with pytest.raises(errors.MethodError, match=r"level=1\.5"):
        ecdf_band(10, 9, 1.5)
    with pytest.raises(errors.MethodError, match="0 draws"):
        ecdf_band(10, 0)
