"""Probabilities of 0 and 1 as they were given.

torch clamps probabilities to ``[eps, 1 - eps]`` on the way to logits, which turns impossible into improbable. A mechanism and an
exact log probability need the difference, so they read the parameters here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["category_logits", "given_as_probs", "log_odds"]


def given_as_probs(fn: Any) -> bool:
    """Whether ``fn.probs`` is the parameter; the other parametrisation may be cached beside it."""
    cached = fn.__dict__
    return "probs" in cached and ("logits" not in cached or cached.get("_param") is cached["probs"])


def _was_clamped(fn: Any, logits: Tensor) -> Tensor:
    # ``expand`` forgets which of two cached parametrisations was given. Where a probability is exactly 0 or 1, a logit as
    # small as clamping makes it cannot have been given: its probability would not round to 0 or 1.
    return logits.abs() < 0.1 - math.log(torch.finfo(logits.dtype).eps)


def log_odds(fn: Any) -> Tensor:
    """``log p - log(1 - p)``, infinite where ``p`` is exactly 0 or 1; shape ``fn.batch_shape``."""
    if given_as_probs(fn):
        return torch.logit(fn.probs)
    logits: Tensor = fn.logits
    if "probs" not in fn.__dict__:
        return logits
    sure = ((fn.probs == 0) | (fn.probs == 1)) & _was_clamped(fn, logits)
    return torch.where(sure, logits * torch.inf, logits)


def category_logits(fn: Any) -> Tensor:
    """Normalised log probabilities, minus infinity where one is exactly 0; shape ``fn.batch_shape + (categories,)``."""
    fn = fn.__dict__.get("_categorical", fn)
    if given_as_probs(fn):
        return torch.log(fn.probs)
    logits: Tensor = fn.logits
    if "probs" not in fn.__dict__:
        return logits
    certain = (fn.probs == 1) & (logits < -0.75 * torch.finfo(logits.dtype).eps)
    logits = torch.where(certain, 0.0, logits)
    return torch.where((fn.probs == 0) & _was_clamped(fn, logits), -torch.inf, logits)
