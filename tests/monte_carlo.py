"""Do draws have the mean and variance that a formula says? Tolerances come from Monte Carlo error alone."""

from __future__ import annotations

import math
from typing import Any

import torch


def assert_moments(
    draws: Any, mean: float, variance: float, effective: float | None = None
) -> None:
    """Mean within 4.5 standard errors, variance within 6 (a normal's, doubled: the laws here have no heavy tails).

    Args:
        draws: one number a draw.
        effective: how many independent draws these are worth; their number by default.
    """
    draws = torch.as_tensor(draws).double()
    n = min(len(draws), effective or len(draws))
    found, spread = float(draws.mean()), float(draws.var())
    error = math.sqrt(variance / n)
    assert abs(found - mean) <= 4.5 * error + 1e-6, (
        f"mean {found:.4f}, not {mean:.4f} ({error:.4f})"
    )
    error = variance * math.sqrt(2 / n) * 2
    assert abs(spread - variance) <= 6 * error + 1e-6, f"variance {spread:.4f}, not {variance:.4f}"


def assert_share(hits: Any, probability: float, effective: float | None = None) -> None:
    """The share of draws within 4.5 standard errors and two draws (rare events are no normals); exact at 0 and 1."""
    hits = torch.as_tensor(hits).double()
    n = min(len(hits), effective or len(hits))
    found = float(hits.mean())
    error = math.sqrt(probability * (1 - probability) / n)
    slack = 2 / n if 1e-9 < probability < 1 - 1e-9 else 1e-9
    assert abs(found - probability) <= 4.5 * error + slack, f"{found:.4f}, not {probability:.4f}"
