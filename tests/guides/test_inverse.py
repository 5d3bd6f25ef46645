"""The inverse of a graph claims no independence that the posterior does not have: checked in numbers on normal programs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from causalppl.guides.inverse import faithful_inverse


def random_program(seed: int, size: int = 7) -> tuple[dict[str, set[str]], np.ndarray]:
    """A random DAG, and the covariance of the linear normal program on it."""
    rng = np.random.default_rng(seed)
    weights = np.tril(rng.normal(size=(size, size)) * (rng.random((size, size)) < 0.45), -1)
    total = np.linalg.inv(np.eye(size) - weights)
    parents = {f"v{i}": {f"v{j}" for j in range(i) if weights[i, j]} for i in range(size)}
    return parents, total @ total.T


def partial_covariance(covariance: np.ndarray, a: int, b: int, given: list[int]) -> float:
    """Covariance of two variables given others."""
    if not given:
        return float(covariance[a, b])
    inner = np.linalg.inv(covariance[np.ix_(given, given)])
    return float(covariance[a, b] - covariance[a, given] @ inner @ covariance[given, b])


def check_faithful(seed: int, arbitrary: bool) -> None:
    parents, covariance = random_program(seed)
    names = list(parents)
    rng = np.random.default_rng(100 + seed)
    observed = [n for n in names if rng.random() < 0.5] or [names[-1]]
    sampled = {n: 0 for n in names if arbitrary or n not in observed}
    if not sampled:
        return
    order = faithful_inverse(parents, sampled, observed)
    assert set(order) == set(sampled)
    patterns = (
        product([True, False], repeat=len(observed)) if arbitrary else [[True] * len(observed)]
    )
    for pattern in patterns:
        known = {n for n, there in zip(observed, pattern, strict=True) if there}
        before: list[str] = []
        for name, context in order.items():
            if name in known:
                continue
            available = known | set(before)
            seen = [names.index(n) for n in available & context]
            for other in available - context:
                rest = partial_covariance(covariance, names.index(name), names.index(other), seen)
                # independent of each one left out, and so, being normal, of all given the context
                assert abs(rest) < 1e-9, (name, other, context, known)
            before.append(name)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("arbitrary", [False, True])
def test_no_independence_is_claimed_that_is_not_there(seed: int, arbitrary: bool) -> None:
    check_faithful(seed, arbitrary)


def test_a_context_that_lacks_a_neighbour_is_caught() -> None:
    """The check can fail: a collider's cause is not independent of the other given the effect."""
    covariance = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 3.0]])
    assert abs(partial_covariance(covariance, 0, 1, [2])) > 0.1


def test_sites_outside_plates_come_first_and_see_the_data() -> None:
    parents = {"m": set(), "s": set(), "z": {"m", "s"}, "y": {"z"}}
    order = faithful_inverse(parents, {"m": 0, "s": 0, "z": 1}, ["y"])
    assert list(order)[-1] == "z"
    assert order["z"] == {"m", "s", "y"}
    first, second = list(order)[:2]
    assert order[first] == {"y"} and order[second] == {first, "y"}


def test_arguments_of_a_factor_depend_on_each_other() -> None:
    parents: dict[str, set[str]] = {"a": set(), "b": set(), "y": {"a"}}
    apart = faithful_inverse(parents, {"a": 0, "b": 0}, ["y"])
    linked = faithful_inverse(parents, {"a": 0, "b": 0}, ["y"], [["a", "b"]])
    assert "b" not in apart["a"] and "a" not in apart["b"]
    assert "b" in linked["a"] or "a" in linked["b"]
