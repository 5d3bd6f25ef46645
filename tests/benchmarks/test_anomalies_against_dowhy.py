"""The injected noise is ranked first at least as often as by DoWhy and by the plain ranking of noises, and ten times faster."""

from __future__ import annotations

import importlib.util
import statistics

import pytest

from .anomalies_against_dowhy import Anomaly, chosen_cases, compare, is_outlier, random_anomaly


def test_cases_are_what_they_say() -> None:
    for seed in range(10):
        case = random_anomaly(seed)
        assert isinstance(case, Anomaly) and 8 <= len(case.parents) <= 12
        assert abs(case.noises[case.cause]) == 4.0
        assert random_anomaly(seed).values == case.values
    assert all(is_outlier(case) for _, case in chosen_cases(3, outliers=True))


def test_the_injected_noise_is_ranked_first() -> None:
    hits, _, _ = compare(chosen_cases(12, outliers=True), left_out=("dowhy",))
    ours = sum(hits.pop("causalppl"))
    assert ours >= 11
    assert all(ours >= sum(found) for found in hits.values())


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("dowhy") is None,
    reason="dowhy is not installed (the extra 'bench' has it)",
)
def test_dowhy_is_not_better_and_ten_times_slower() -> None:
    hits, seconds, _ = compare(chosen_cases(20, outliers=True))
    assert sum(hits["causalppl"]) >= sum(hits["dowhy"])
    assert statistics.median(seconds["dowhy"]) > 10 * statistics.median(seconds["causalppl"])
