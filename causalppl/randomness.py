"""Seeds, and torch's generators seeded for a while and put back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch

from .errors import MethodError

__all__ = ["fresh_seed", "isolated_rng", "keyed_seed"]


def fresh_seed(seed: Any) -> int:
    """The seed given, or one integer from torch's generator."""
    if seed is None:
        return int(torch.randint(2**31 - 1, ()).item())
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise MethodError(f"seed={seed!r}: give an integer, or None for one from torch's generator")
    return int(seed)


def keyed_seed(seed: int, *key: object) -> int:
    """A seed that depends on every part of the key, the same on all machines."""
    text = "\x1f".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Torch's generators seeded inside and restored afterwards."""
    if torch.accelerator.is_available():
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
        return
    # the one generator there is: thirty times faster than asking for all that there might be
    own = torch.default_generator
    state = own.get_state()
    own.manual_seed(seed)
    try:
        yield
    finally:
        own.set_state(state)
