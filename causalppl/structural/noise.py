"""Randomness keyed by seed and site name, drawn in bulk outside of any transform."""

from __future__ import annotations

from typing import Any

import torch

from ..randomness import fresh_seed, isolated_rng, keyed_seed

__all__ = ["draw", "fresh_seed", "isolated_rng", "keyed_seed"]


def draw(distribution: Any, rows: int, seed: int, *key: object) -> Any:
    """``rows`` draws of a noise's law, shape ``(rows,) + noise shape``, fixed by seed and key."""
    with isolated_rng(keyed_seed(seed, *key)), torch.no_grad():
        return distribution.sample(torch.Size([rows]))
