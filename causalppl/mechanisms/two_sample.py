"""Two-sample tests: whether two sets of draws come from one law."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["different_columns", "two_sample_p"]

_FEW = 200  # distinct values up to which values are counted rather than ranked
_ROUND_OFF = 1e-5


def different_columns(
    ours: Tensor, theirs: Tensor, threshold: float
) -> Iterator[tuple[int, float]]:
    """The columns whose laws differ, and their p-values; after them two projections of all, which see dependence.

    Args:
        ours: draws of shape ``(draws, columns)``.
        theirs: draws of the law that ours should have; more of them cost little and make the test sharper.
        threshold: p-values below it count.
    """
    columns = list(zip(ours.unbind(1), theirs.unbind(1), strict=True))
    if len(columns) > 1:
        centre = theirs.median(0).values
        spread = (theirs - centre).abs().median(0).values
        spread = torch.where(spread == 0, 1e-3, spread)
        for sign in (1.0, -1.0):
            weights = sign ** torch.arange(ours.shape[1], dtype=ours.dtype) / spread
            columns.append((((ours - centre) @ weights), ((theirs - centre) @ weights)))
    for i, (a, b) in enumerate(columns):
        p = two_sample_p(a, b)
        if p < threshold:
            yield i, p


def two_sample_p(a: Tensor, b: Tensor) -> float:
    """P-value that two samples have one law: Kolmogorov and Smirnov's, or a chi-squared one for few distinct values."""
    pooled = torch.cat([a, b])
    if pooled.max() - pooled.min() <= _ROUND_OFF * pooled.abs().max():
        return 1.0  # a constant, such as the diagonal of a correlation matrix
    if len(torch.cat([a[: 2 * _FEW], b[: 2 * _FEW]]).unique()) <= _FEW:
        points, where = pooled.unique(return_inverse=True)
        if len(points) <= _FEW:
            parts = where.split([len(a), len(b)])
            return _homogeneity_p(torch.stack([x.bincount(minlength=len(points)) for x in parts]))
    points = pooled.sort().values
    cdfs = [torch.searchsorted(x.sort().values, points, right=True) / len(x) for x in (a, b)]
    distance = float((cdfs[0] - cdfs[1]).abs().max())
    distance *= math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * (k * distance) ** 2) for k in range(1, 101))
    return min(1.0, sum(terms)) if distance > 0.2 else 1.0


def _homogeneity_p(counts: Tensor) -> float:
    """Of a table with a row for each sample; values that the smaller sample should show fewer than five times are pooled."""
    share = counts.sum(1, keepdim=True) / counts.sum()
    common = (share.min() * counts.sum(0)) >= 5
    counts = torch.cat([counts[:, common], counts[:, ~common].sum(1, keepdim=True)], 1).double()
    counts = counts[:, counts.sum(0) > 0]
    expected = share * counts.sum(0)
    half_freedom = torch.tensor(max(counts.shape[1] - 1, 1) / 2, dtype=torch.float64)
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(half_freedom, statistic / 2))
