"""Networks that turn one observation into a vector, by its shape; and sets of vectors into one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import MethodError
from .residual import ResidualNetwork

__all__ = ["EMBEDDINGS", "ImageEmbedding", "SequenceEmbedding", "SetEmbedding", "embedding_for"]

#: Embeddings by name.
EMBEDDINGS = ("vector", "image", "sequence")
#: Vectors up to this size are seen as they are.
_PLAIN = 16
_SMALLEST_IMAGE = 8


class ImageEmbedding(nn.Module):
    """A small residual convolutional network.

    Args:
        shape: ``(height, width)`` or ``(channels, height, width)``.
        outputs: size of the embedding.
        channels: of the first layer; they double each time the image is halved.

    Example:
        >>> import torch
        >>> ImageEmbedding((1, 8, 8), 16)(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 16])
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, channels: int = 16) -> None:
        super().__init__()
        self.shape = (1, *shape) if len(shape) == 2 else shape
        depth, size = self.shape[0], self.shape[1:]
        self.enter = nn.Conv2d(depth, channels, 3, padding=1)
        stages: list[nn.Module] = []
        while min(size) > 4:
            stages.append(_ImageStage(channels, 2 * channels))
            channels, size = 2 * channels, tuple((s + 1) // 2 for s in size)
        self.stages = nn.Sequential(*stages)
        self.leave = nn.Linear(channels * size[0] * size[1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch,) + shape`` to ``(batch, outputs)``."""
        h = self.stages(self.enter(x.reshape(-1, *self.shape)))
        return self.leave(F.silu(h).flatten(1))  # type: ignore[no-any-return]


class _ImageStage(nn.Module):
    """A residual step at one scale, then half the size and twice the channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, padding=1)
        self.second = nn.Conv2d(inputs, inputs, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        self.halve = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.second(F.silu(self.first(F.silu(x))))
        return self.halve(F.silu(x))  # type: ignore[no-any-return]


class SequenceEmbedding(nn.Module):
    """A bidirectional recurrent network (GRU): both last states, and the mean over time.

    Args:
        shape: ``(length, features)``, or ``(length,)`` for one feature.
        outputs: size of the embedding.
        width: of the state in each direction.

    Example:
        >>> import torch
        >>> SequenceEmbedding((20, 2), 16)(torch.zeros(3, 20, 2)).shape
        torch.Size([3, 16])
    """

    def __init__(self, shape: tuple[int, ...], outputs: int, width: int = 32) -> None:
        super().__init__()
        self.features = shape[1] if len(shape) > 1 else 1
        self.states = nn.GRU(self.features, width, batch_first=True, bidirectional=True)
        self.leave = nn.Linear(4 * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, length, features)`` to ``(batch, outputs)``."""
        over, last = self.states(x.reshape(len(x), -1, self.features))
        return self.leave(torch.cat([last[0], last[1], over.mean(1)], -1))  # type: ignore[no-any-return]


class SetEmbedding(nn.Module):
    r"""A vector for a set, whatever the order and the number of its elements.

    .. math:: s = g\Big(\frac{1}{n} \sum_i f(x_i),\; \log(1 + n)\Big)

    Args:
        inputs: size of an element.
        outputs: size of the vector.
        width: of the networks.

    References:
        Manzil Zaheer, Satwik Kottur, Siamak Ravanbakhsh, Barnabás Póczos, Ruslan Salakhutdinov, Alexander Smola (2017), Deep Sets.
        https://arxiv.org/abs/1703.06114

    Example:
        >>> import torch
        >>> sets, there = torch.randn(2, 5, 3), torch.ones(2, 5, dtype=torch.bool)
        >>> embed = SetEmbedding(3, 8)
        >>> bool(torch.allclose(embed(sets, there), embed(sets.flip(1), there), atol=1e-5))
        True
    """

    def __init__(self, inputs: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.each = ResidualNetwork(inputs, width, width, blocks=1)
        self.all = ResidualNetwork(width + 1, outputs, width, blocks=1)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """``batch + (elements, inputs)`` and which elements there are, ``batch + (elements,)``, to ``batch + (outputs,)``."""
        weight = there.to(x).unsqueeze(-1)
        count = weight.sum(-2)
        mean = (self.each(x) * weight).sum(-2) / count.clamp(min=1.0)
        return self.all(torch.cat([mean, torch.log1p(count) / 5.0], -1))  # type: ignore[no-any-return]


class _Flat(nn.Module):
    """A vector as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1)


def embedding_for(
    shape: tuple[int, ...], outputs: int = 64, kind: str | None = None
) -> tuple[nn.Module, int]:
    """The default network for observations of a shape, and the size of what it returns.

    Images are ``(channels, height, width)``, or ``(height, width)`` with at least eight rows and columns; other matrices are
    sequences, time first; all else is a vector, seen as it is up to 16 entries and through a residual network above.

    Args:
        shape: of one observation.
        outputs: size of the embedding, where there is a network.
        kind: ``"vector"``, ``"image"`` or ``"sequence"``, where the shape alone would mislead.

    Raises:
        MethodError: an unknown kind, or one that does not fit the shape.

    Example:
        >>> [type(embedding_for(s)[0]).__name__ for s in [(64,), (1, 28, 28), (100, 3)]]
        ['_Vector', 'ImageEmbedding', 'SequenceEmbedding']
    """
    if kind is not None and kind not in EMBEDDINGS:
        raise MethodError(
            f"embed={kind!r} is not known; it can be one of {', '.join(map(repr, EMBEDDINGS))}, or an nn.Module"
        )
    wide = len(shape) == 2 and min(shape) >= _SMALLEST_IMAGE
    if kind == "image" or (kind is None and (len(shape) == 3 or wide)):
        if len(shape) not in (2, 3):
            raise MethodError(
                f"embed='image' needs (height, width) or (channels, height, width), not {shape}"
            )
        return ImageEmbedding(shape, outputs), outputs
    if kind == "sequence" or (kind is None and len(shape) == 2 and shape[0] > 1):
        if len(shape) not in (1, 2):
            raise MethodError(
                f"embed='sequence' needs (length,) or (length, features), not {shape}"
            )
        return SequenceEmbedding(shape, outputs), outputs
    size = int(torch.Size(shape).numel())
    if size <= _PLAIN:
        return _Flat(), size
    return _Vector(size, outputs), outputs


class _Vector(nn.Module):
    """A long vector through a residual network."""

    def __init__(self, size: int, outputs: int) -> None:
        super().__init__()
        self.network = ResidualNetwork(size, outputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.reshape(len(x), -1))  # type: ignore[no-any-return]
