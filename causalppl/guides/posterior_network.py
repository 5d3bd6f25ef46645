"""The networks of a guide: evidence and the sites sampled before to the law of the next sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..networks import ResidualNetwork, SetEmbedding
from .encoding import SiteEncoder
from .heads import ContinuousHead, DiscreteHead, Head, Supports
from .reading import Reading, SiteShape

__all__ = ["Evidence", "PosteriorNetwork", "in_rows", "spread"]


@dataclass(frozen=True)
class Evidence:
    """What is known, in rows: each row is a run of the program.

    Attributes:
        values: observed site to values, ``(rows,) + site shape``; anything finite where nothing is known.
        known: observed site to whether a unit's value is known, ``(rows,) + sizes of its plates``.
        supports: site to the support of its distribution.
        sizes: plate to its number of units.
    """

    values: Mapping[str, Tensor]
    known: Mapping[str, Tensor]
    supports: Supports
    sizes: Mapping[str, int]

    @property
    def rows(self) -> int:
        """Their number."""
        return len(next(iter(self.values.values())))


class PosteriorNetwork(nn.Module):
    r""":math:`q(x \mid y) = \prod_h q(x_h \mid \text{context}_h)` over heads in the order of a faithful inverse.

    Args:
        reading: the program.
        simulated: site to simulated values, for scales and sizes.
        supports: site to the support of its distribution.
        embed: observed site to module, or to the name of a kind.
        flow: see :class:`~causalppl.networks.ConditionalFlow`.
        width: of the networks.
    """

    def __init__(
        self,
        reading: Reading,
        simulated: Mapping[str, Tensor],
        supports: Supports,
        embed: Mapping[str, Any],
        flow: str | Callable[[int, int], nn.Module],
        width: int,
    ) -> None:
        super().__init__()
        self.shapes, self.observed = reading.shapes, reading.observed
        blocks = list(_blocks(reading))
        used = {n for _, context in blocks for n in context}
        encoders = {
            n: SiteEncoder(self.shapes[n], simulated[n], supports[n], embed.get(n), width)
            for n in self.shapes
            if n in used
        }
        self.encoders = nn.ModuleDict({_key(n): e for n, e in encoders.items()})
        self.heads = nn.ModuleList()
        self.contexts = nn.ModuleList()
        for names, context in blocks:
            shapes = [self.shapes[n] for n in names]
            sizes = {n: encoders[n].size for n in context}
            self.contexts.append(_Context(shapes[0].plates, context, sizes, self.shapes, width))
            self.heads.append(
                DiscreteHead(shapes[0], simulated[names[0]], width, width)
                if shapes[0].discrete
                else ContinuousHead(shapes, simulated, supports, width, flow, width)
            )

    def pairs(self) -> Iterator[tuple[Head, _Context]]:
        """Heads with the networks of their contexts, in the order of sampling."""
        return zip(self.heads, self.contexts, strict=True)  # type: ignore[arg-type]

    def log_prob(self, values: Mapping[str, Tensor], evidence: Evidence) -> list[Tensor]:
        """Log density of each head's sites in nats, ``(rows,) + units``; zero where an observed site is known.

        Args:
            values: every sampled site to its values, ``(rows,) + site shape``; observed ones included.
        """
        features = {n: self.encode(n, values[n], evidence.supports) for n in self._encoded}
        sampled: set[str] = set()
        found = []
        for head, context in self.pairs():
            there = {n: self._there(n, features[n], evidence, sampled) for n in context.names}
            seen = context(features, there, evidence.sizes)
            log_q = head.log_prob(values, seen, evidence.supports)
            if head.names[0] in self.observed:
                log_q = torch.where(evidence.known[head.names[0]], 0.0, log_q)
            found.append(log_q)
            sampled.update(head.names)
        return found

    def draw(
        self,
        evidence: Evidence,
        samples: int,
        dtypes: Mapping[str, torch.dtype],
        inside: frozenset[str] = frozenset(),
        each: int = 1,
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Draws, ``(rows * samples * each,) + site shape``, those of a row next to each other; and the log density of each head.

        Known values of observed sites are as they are.

        Args:
            inside: plates whose sites are drawn ``each`` times for every draw of the sites outside.
        """
        features = {
            n: self.encode(n, evidence.values[n], evidence.supports)
            for n in self._encoded
            if n in evidence.values
        }
        values: dict[str, Tensor] = {}
        found: list[Tensor] = []
        total = evidence.rows * samples
        for step in self.steps(evidence, features):
            if inside and inside <= set(step.head.plates):
                total = evidence.rows * samples * each
            drawn, log_q = step.head.draw(in_rows(step.context, total), evidence.supports, dtypes)
            name = step.head.names[0]
            if name in self.observed:
                known = in_rows(evidence.known[name], total)
                given = in_rows(evidence.values[name], total)
                drawn[name] = torch.where(spread(self.shapes[name], known), given, drawn[name])
                log_q = torch.where(known, 0.0, log_q)
            values.update(drawn)
            found.append(log_q)
            for own in drawn:
                if own in self._encoded:
                    features[own] = self.encode(own, drawn[own], evidence.supports)
        total = evidence.rows * samples * each
        return {n: in_rows(v, total) for n, v in values.items()}, [in_rows(q, total) for q in found]

    def steps(self, evidence: Evidence, features: dict[str, Tensor]) -> Iterator[_Step]:
        """Heads with their contexts; features of a head's sites are to be added before the next."""
        sampled: set[str] = set()
        for head, context in self.pairs():
            there = {n: self._there(n, features[n], evidence, sampled) for n in context.names}
            yield _Step(head, context(features, there, evidence.sizes))
            sampled.update(head.names)

    def encode(self, name: str, value: Tensor, supports: Supports) -> Tensor:
        """What networks see of a site, ``(rows,) + units + (size,)``."""
        return self.encoders[_key(name)](value, supports[name])  # type: ignore[no-any-return]

    def encodes(self, name: str) -> bool:
        """Whether some head sees the site."""
        return _key(name) in self.encoders

    @property
    def _encoded(self) -> list[str]:
        return [n for n in self.shapes if self.encodes(n)]

    @property
    def pools(self) -> set[str]:
        """Plates whose units are not treated one by one."""
        return {p for _, context in self.pairs() for group in context.groups for p in group}

    @staticmethod
    def _there(name: str, feature: Tensor, evidence: Evidence, sampled: set[str]) -> Tensor:
        if name not in evidence.known or name in sampled:
            return torch.ones(feature.shape[:-1], dtype=torch.bool, device=feature.device)
        return evidence.known[name]


@dataclass(frozen=True)
class _Step:
    """A head and its context, ``(rows,) + units + (width,)``."""

    head: Head
    context: Tensor


def _blocks(reading: Reading) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Sites that share a head, with their context: neighbours in the order that are continuous, latent and in the same plates."""
    group: list[str] = []
    context: set[str] = set()
    shapes, place = reading.shapes, {n: i for i, n in enumerate(reading.shapes)}

    def joins(name: str) -> bool:
        first = shapes[group[0]]
        own = shapes[name]
        return (
            name not in reading.observed
            and group[0] not in reading.observed
            and not (first.discrete or own.discrete)
            and first.plates == own.plates
        )

    for name, needs in reading.order.items():
        if group and not joins(name):
            yield tuple(group), tuple(sorted(context - set(group), key=place.__getitem__))
            group, context = [], set()
        group.append(name)
        context |= needs
    yield tuple(group), tuple(sorted(context - set(group), key=place.__getitem__))


class _Context(nn.Module):
    """What a head sees: features of the sites in its own plates or outside, and sets of those in further plates.

    An element of a set is what all sites in its plates say of one unit together. Nested plates are pooled from the inside out.
    """

    def __init__(
        self,
        plates: tuple[str, ...],
        names: tuple[str, ...],
        sizes: Mapping[str, int],
        shapes: Mapping[str, SiteShape],
        width: int,
    ) -> None:
        super().__init__()
        self.plates, self.names = plates, names
        self.of = {n: shapes[n].plates for n in names}
        extra = {n: tuple(p for p in self.of[n] if p not in plates) for n in names}
        self.direct = [n for n in names if not extra[n]]
        self.groups = list(dict.fromkeys(e for e in extra.values() if e))
        self.members = [[n for n in names if set(extra[n]) <= set(g)] for g in self.groups]
        self.deciding = [[n for n in names if set(extra[n]) == set(g)] for g in self.groups]
        self.sets = nn.ModuleList()
        for group, members in zip(self.groups, self.members, strict=True):
            inputs = sum(sizes[n] + 1 for n in members)
            stages = [
                SetEmbedding(inputs if i == 0 else width, width, width) for i in range(len(group))
            ]
            self.sets.append(nn.ModuleList(stages))
        total = sum(sizes[n] + 1 for n in self.direct) + width * len(self.groups)
        self.trunk = ResidualNetwork(max(total, 1), width, width)

    def forward(
        self,
        features: Mapping[str, Tensor],
        there: Mapping[str, Tensor],
        sizes: Mapping[str, int],
    ) -> Tensor:
        """``(rows,) + units + (width,)``."""
        rows = max((len(features[n]) for n in self.names), default=1)
        shown = {
            n: torch.cat(
                [
                    features[n] * (t := there[n].unsqueeze(-1).to(features[n])),
                    t.expand(*features[n].shape[:-1], 1),
                ],
                -1,
            )
            for n in self.names
        }

        def laid(value: Tensor, name: str, plates: tuple[str, ...]) -> Tensor:
            return _laid_out(value, self.of[name], plates, sizes, rows)

        parts = [laid(shown[n], n, self.plates) for n in self.direct]
        sets: Any = self.sets
        for group, members, deciding, stages in zip(
            self.groups, self.members, self.deciding, sets, strict=True
        ):
            axes = (*self.plates, *group)
            x = torch.cat([laid(shown[n], n, axes) for n in members], -1)
            present = torch.stack(
                [laid(there[n].unsqueeze(-1), n, axes)[..., 0] for n in deciding]
            ).any(0)
            for stage in stages:
                x = stage(x, present)
                present = present.any(-1)
            parts.append(x)
        if not parts:
            parts = [torch.zeros((rows, *(sizes[p] for p in self.plates), 1))]
        return self.trunk(torch.cat(parts, -1))  # type: ignore[no-any-return]


def _laid_out(
    value: Tensor,
    own: tuple[str, ...],
    plates: tuple[str, ...],
    sizes: Mapping[str, int],
    rows: int,
) -> Tensor:
    """``(r,) + own + (d,)`` to ``(rows,) + plates + (d,)``; ``r`` divides ``rows``, those of one next to each other."""
    kept = [p for p in plates if p in own]
    value = value.permute(0, *(1 + own.index(p) for p in kept), value.dim() - 1)
    for axis, plate in enumerate(plates):
        if plate not in own:
            value = value.unsqueeze(1 + axis)
    value = in_rows(value, rows)
    return value.expand(rows, *(sizes[p] for p in plates), value.shape[-1])


def in_rows(value: Tensor, total: int) -> Tensor:
    """Each row as often as makes ``total`` rows, its copies next to each other."""
    rows = len(value)
    if rows == total:
        return value
    if rows == 1:
        return value.expand(total, *value.shape[1:])
    return value.repeat_interleave(total // rows, 0)


def spread(shape: SiteShape, units: Tensor) -> Tensor:
    """``(rows,) + sizes of plates`` to a shape that broadcasts against ``(rows,) + site shape``."""
    found = units.reshape(*units.shape, *([1] * len(shape.inner)))
    return shape.units_back(found)


def _key(name: str) -> str:
    """Names of modules have no dots and are none of a module's own, such as "train"."""
    return "site " + name.replace(".", "\x1f")
