"""The one fully connected network that all others here are built from."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResidualNetwork"]


class ResidualNetwork(nn.Module):
    r"""A fully connected network with residual blocks and a linear path around them.

    .. math:: f(x) = A x + B\,(h + g_1(h) + g_2(h + g_1(h)) + \ldots), \quad h = C x

    Each block starts as zero, so that the network starts linear: what is linear in the data is learnt in a few hundred steps.

    Args:
        inputs, outputs: sizes of the last axis.
        width: of the hidden layers.
        blocks: number of residual blocks of two layers each.

    Example:
        >>> import torch
        >>> ResidualNetwork(3, 2)(torch.zeros(5, 4, 3)).shape
        torch.Size([5, 4, 2])
    """

    def __init__(self, inputs: int, outputs: int, width: int = 64, blocks: int = 2) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(blocks))
        self.leave = nn.Linear(width, outputs)
        self.around = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``batch + (inputs,)`` to ``batch + (outputs,)``."""
        h = self.enter(x)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h) + self.around(x)  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Two layers with a gate, which multiplies: what is known decides how the rest counts."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.gate, self.last = (nn.Linear(width, width) for _ in range(3))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, h: Tensor) -> Tensor:
        return self.last(F.silu(self.first(h)) * self.gate(h))  # type: ignore[no-any-return]
