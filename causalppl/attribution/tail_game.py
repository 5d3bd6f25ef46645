"""The game behind an anomaly: how probable an outcome as extreme is when some noises are kept and the others drawn anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import NoMechanismError
from ..query.distributions import doubled, unwrapped
from ..structural.form import StructuralForm
from ..structural.noise import draw, isolated_rng, keyed_seed
from ..structural.sites import site_kind
from ..typing import Message, Noise

__all__ = ["TailGame"]

#: A probability below this is not told apart from none.
LEAST = 1e-300
#: Equality of an outcome with itself, after it has been computed again.
ROUNDING = 1e-5
#: Share of the draws in which one noise is stretched, so that rare outcomes are seen, and by how much.
STRETCHED, STRETCH = 0.5, 3.0


class _Reached(BaseException):
    """Stops a run at the target. Not an Exception, so that no program catches it."""


@dataclass(frozen=True)
class TailGame:
    """A target site of a program, the sites whose noises are players, and draws of their noises.

    Attributes:
        form: the program.
        target: the site that is explained.
        players: sample sites among its ancestors, and itself where it is one.
        background: player to noise drawn anew, shape ``(draws,) + noise shape``.
        ratios: player to density of its stretched noise over that of its own at the draw, shape ``(draws,) + target shape``; empty
            where no noise was stretched.
    """

    form: StructuralForm
    target: str
    players: Sequence[str]
    background: Mapping[str, Noise]
    ratios: Mapping[str, Tensor]

    @classmethod
    def drawn(
        cls,
        form: StructuralForm,
        target: str,
        players: Sequence[str],
        draws: int,
        stretch: bool = False,
    ) -> TailGame:
        """The game with ``draws`` draws of every noise.

        Args:
            stretch: whether in half of the draws one noise is three times what it was; weights undo this again.
        """
        background: dict[str, Noise] = {}
        laws: dict[str, Any] = {}
        shape, seed = form.sites[target].value.shape, keyed_seed(form.seed, "anomaly")
        for name in players:
            site = form.sites[name]
            if site.mechanism is None:
                raise NoMechanismError(
                    f"site {name!r} has no noise to attribute to: {site.why_none}"
                )
            law = site.mechanism.noise(site.fn)
            background[name] = draw(law, draws, seed, name)
            if stretch and _stretchable(law, background[name], shape):
                laws[name] = law
        ratios: dict[str, Tensor] = {}
        if laws:
            with isolated_rng(keyed_seed(seed, "stretched")):
                chosen = torch.randint(len(laws), (draws, *shape))
                chosen[torch.rand(draws, *shape) >= STRETCHED] = -1
        for i, (name, law) in enumerate(laws.items()):
            own: Any = background[name]
            own = background[name] = torch.where(chosen == i, STRETCH * own, own)
            ratio = law.log_prob(own / STRETCH) - law.log_prob(own)
            ratios[name] = ratio.double().exp() / STRETCH
        return cls(form, target, players, background, ratios)

    @property
    def draws(self) -> int:
        """How many draws of the noises there are."""
        first: Any = next(iter(self.background.values()))
        while isinstance(first, tuple):
            first = first[0]
        return len(first)

    def outcomes(self, given: Mapping[str, Tensor]) -> Tensor:
        """The target with all noises drawn anew, shape ``(draws,) + target shape``, float64.

        Args:
            given: values of what is no player: parameters.
        """
        found = self._run(self.background, given, self.draws, None)
        return found["value"].double()

    def shares(
        self,
        coalitions: Tensor,
        kept: Mapping[str, Noise],
        given: Mapping[str, Tensor],
        median: Tensor,
        distance: Tensor,
    ) -> tuple[Tensor, Tensor]:
        r"""P(|Y - median| >= distance) where a coalition's noises are kept, draw by draw of the others.

        Where the target's own noise is drawn and its family has a distribution function, the probability is taken over it in closed
        form; elsewhere a draw counts 0 or 1.

        Args:
            coalitions: members, booleans of shape ``(coalitions, players)``.
            kept: player to its noise in fact.
            given: values of what is no player.
            median, distance: of the target's shape.

        Returns:
            these shares, and the weights of the draws, each ``(coalitions, draws) + target shape`` in float64.
        """
        own = self.players.index(self.target) if self.target in self.players else None
        if own is None:
            return self._hits(coalitions, kept, given, median, distance)[0], self._weights(
                coalitions, median
            )
        # the target's own noise does not move its parents: one run serves the coalitions with it and without
        settled = coalitions.clone()
        settled[:, own] = True
        distinct, place = torch.unique(settled, dim=0, return_inverse=True)
        hits, tail = self._hits(distinct, kept, given, median, distance)
        if tail is None:  # no distribution function: its draws count one by one
            hits, _ = self._hits(coalitions, kept, given, median, distance)
            return hits, self._weights(coalitions, median)
        kept_own = coalitions[:, own].reshape(-1, 1, *([1] * median.dim()))
        shares = torch.where(kept_own, hits[place], tail[place])
        return shares, self._weights(distinct, median)[place]

    def _hits(
        self,
        coalitions: Tensor,
        kept: Mapping[str, Noise],
        given: Mapping[str, Tensor],
        median: Tensor,
        distance: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Whether the outcome is as extreme, and the probability that it is given the target's parents, where that is known."""
        count, draws = len(coalitions), self.draws
        noise: dict[str, Noise] = {}
        for i, name in enumerate(self.players):
            member = coalitions[:, i]
            noise[name] = tree_map(
                lambda new, old, member=member: _mixed(new, old, member),
                self.background[name],
                kept[name],
            )
        found = self._run(noise, given, count * draws, (median, distance))
        value = found["value"].double().reshape(count, draws, *median.shape)
        hits = ((value - median).abs() >= distance * (1 - ROUNDING)).double()
        tail = found["tail"].reshape(hits.shape) if "tail" in found else None
        return hits, tail

    def _weights(self, settled: Tensor, median: Tensor) -> Tensor:
        """Density of the draws that matter under the noises' own laws over that under the mixture that they were drawn from."""
        count = len(settled)
        if not self.ratios:
            return torch.ones(count, self.draws, *median.shape, dtype=torch.float64)
        share = STRETCHED / len(self.ratios)
        mixture = torch.full((count, self.draws, *median.shape), 1 - STRETCHED, dtype=torch.float64)
        for i, name in enumerate(self.players):
            if name in self.ratios:
                member = settled[:, i].reshape(count, 1, *([1] * median.dim()))
                mixture += share * torch.where(member, 1.0, self.ratios[name])
        return 1 / mixture

    def _run(
        self,
        noise: Mapping[str, Noise],
        given: Mapping[str, Tensor],
        rows: int,
        tail: tuple[Tensor, Tensor] | None,
    ) -> dict[str, Tensor]:
        form, target = self.form, self.target
        mechanisms = {name: form.sites[name].mechanism for name in self.players}

        def row(own: dict[str, Noise]) -> dict[str, Tensor]:
            found: dict[str, Tensor] = {}

            def rule(msg: Message) -> Tensor:
                name = msg["name"]
                mechanism = mechanisms.get(name)
                if mechanism is not None:
                    value = mechanism.forward(msg["fn"], own[name])
                elif name in given:
                    value = given[name]
                elif msg["value"] is not None and site_kind(msg) != "sample":
                    value = msg["value"]
                else:  # what the target does not depend on
                    value = form.sites[name].value
                if name == target:
                    found["value"] = value
                    if tail is not None and mechanism is not None:
                        exceeds = _tail(msg["fn"], *tail)
                        if exceeds is not None:
                            found["tail"] = exceeds
                    raise _Reached
                return value

            try:
                form.run(rule)
            except _Reached:
                pass
            return found

        with torch.no_grad():
            found = form.executor.map(
                row, rows, dict(noise), kind=("anomaly", target, tail is None)
            )
        if isinstance(found, list):
            found = {n: torch.stack([r[n] for r in found]) for n in found[0]}
        return found  # type: ignore[no-any-return]


def _stretchable(law: Any, noise: Noise, shape: torch.Size) -> bool:
    """Whether three times the noise is a noise too, with a density, one for each number of the target."""
    if not isinstance(noise, Tensor) or noise.shape[1:] != shape or not hasattr(law, "log_prob"):
        return False
    try:
        found = law.log_prob(STRETCH * noise[:1])
    except (NotImplementedError, ValueError):
        return False
    real = getattr(law, "support", None)
    lower = getattr(real, "lower_bound", None)
    return (
        found.shape == noise[:1].shape and lower is None and not getattr(real, "is_discrete", False)
    )


def _mixed(new: Tensor, old: Tensor, member: Tensor) -> Tensor:
    """Noise of every coalition and draw, ``(coalitions * draws,) + noise shape``: kept for members, drawn for others."""
    shape = (len(member), *new.shape)
    chosen = torch.where(member.reshape(-1, *([1] * new.dim())), old, new)
    return chosen.expand(shape).reshape(-1, *new.shape[1:])


def _tail(fn: Any, median: Tensor, distance: Tensor) -> Tensor | None:
    """P(|Y - median| >= distance) under ``fn``; ``None`` where it is not continuous, or has no distribution function."""
    base = unwrapped(fn)
    try:
        if base.support.is_discrete or fn.event_shape:
            return None
        low, high = median - distance, median + distance
        if type(base).__name__ == "Normal":
            loc, scale = base.loc.double(), base.scale.double()
            upper, lower = (high - loc) / scale, (low - loc) / scale
            return torch.special.ndtr(-upper) + torch.special.ndtr(lower)
        wide = doubled(base)
        return 1 - wide.cdf(high) + wide.cdf(low)
    except (AttributeError, NotImplementedError, ValueError):
        return None
