"""Types that several layers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, Union

import torch

#: Exogenous noise of one site: a tensor, or a tuple of tensors (possibly empty).
Noise: TypeAlias = Union[torch.Tensor, "tuple[Noise, ...]"]

#: A Pyro program: any callable that contains ``pyro.sample`` statements.
Program: TypeAlias = Callable[..., Any]

#: A sample site's message, as Pyro's handlers see it.
Message: TypeAlias = dict[str, Any]

#: Site name to value, as users write it: numbers, arrays, tensors.
Values: TypeAlias = Mapping[str, Any]
