"""Everything observed: abduction, action and prediction of 100,000 units against the same by hand.

Noise follows from the values: by subtraction where the outcome is continuous, by drawing the noise that is left once the value is
known where it is discrete: a uniform on its part of the unit interval for Bernoulli outcomes, truncated Gumbels for categorical
ones (C. J. Maddison, D. Tarlow, T. Minka, 2014, A* sampling). Discrete contenders draw noise of their own, so that their
numbers are compared by a null intervention, which must change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch

import causalppl as cp

from .harness import Case, Contender
from .peers import absent, dowhy_from_data
from .programs import Worlds, triangle

__all__ = ["NAME", "TITLE", "cases"]

NAME = "abduction_against_torch"
TITLE = "Everything observed: against hand-written torch"

Values = dict[str, torch.Tensor]
_LOGITS = torch.tensor([[0.0, 0.5, -0.5, 1.0], [1.0, 0.0, 0.5, -0.5]])


def continuous(z: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> None:
    """The triangle, observed."""
    with pyro.plate("units", len(y)):
        zs = pyro.sample("z", dist.Normal(0.0, 1.0), obs=z)
        xs = pyro.sample("x", dist.Normal(zs, 1.0), obs=x)
        pyro.sample("y", dist.Normal(xs * zs + 0.5 * zs, 1.0), obs=y)


def bernoulli(x: torch.Tensor, y: torch.Tensor) -> None:
    """A binary outcome of a binary treatment."""
    with pyro.plate("units", len(y)):
        xs = pyro.sample("x", dist.Bernoulli(0.5), obs=x)
        pyro.sample("y", dist.Bernoulli(logits=xs - 0.5), obs=y)


def categorical(x: torch.Tensor, y: torch.Tensor) -> None:
    """An outcome of four kinds."""
    with pyro.plate("units", len(y)):
        xs = pyro.sample("x", dist.Bernoulli(0.5), obs=x)
        pyro.sample("y", dist.Categorical(logits=_LOGITS[xs.long()]), obs=y)


def continuous_by_hand(z: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Worlds:
    """Noise by subtraction."""
    noise = y - (x * z + 0.5 * z)
    set_x = torch.ones(()).expand(len(y))
    other = {"z": z, "x": set_x, "y": set_x * z + 0.5 * z + noise}
    return {"factual": {"z": z, "x": x, "y": y}, "counterfactual": other}


def bernoulli_by_hand(x: torch.Tensor, y: torch.Tensor) -> Worlds:
    """A uniform below or above one minus the probability of a one."""
    zero, draws = torch.sigmoid(0.5 - x), torch.rand(len(y))
    noise = torch.where(y == 1, zero + (1 - zero) * draws, zero * draws)
    set_x = torch.ones(()).expand(len(y))
    other = {"x": set_x, "y": (noise > torch.sigmoid(0.5 - set_x)).float()}
    return {"factual": {"x": x, "y": y}, "counterfactual": other}


def categorical_by_hand(x: torch.Tensor, y: torch.Tensor) -> Worlds:
    """The largest Gumbel belongs to the observed kind; the others are truncated at it."""
    logits = _LOGITS[x.long()]
    logits = logits - logits.logsumexp(-1, keepdim=True)
    exponentials = torch.empty(logits.shape).exponential_()
    top = -exponentials.gather(1, y[:, None]).log()
    below = -torch.logaddexp((exponentials.log() - logits), -top)
    values = below.scatter(1, y[:, None], top)
    set_x = torch.ones(()).expand(len(y))
    other = {"x": set_x, "y": (values - logits + _LOGITS[set_x.long()]).argmax(-1)}
    return {"factual": {"x": x, "y": y}, "counterfactual": other}


def data(kind: str, units: int) -> Values:
    """Observations of one kind, drawn from the program."""
    generator = torch.Generator().manual_seed(7)
    if kind == "continuous":
        z, own, rest = torch.randn(3, units, generator=generator)
        x = z + own
        return {"z": z, "x": x, "y": x * z + 0.5 * z + rest}
    x = torch.bernoulli(torch.full((units,), 0.5), generator=generator)
    if kind == "bernoulli":
        return {"x": x, "y": torch.bernoulli(torch.sigmoid(x - 0.5), generator=generator)}
    law = torch.softmax(_LOGITS, -1)[x.long()]
    return {"x": x, "y": torch.multinomial(law, 1, generator=generator)[:, 0]}


KINDS: dict[str, tuple[Callable[..., None], Callable[..., Worlds]]] = {
    "continuous": (continuous, continuous_by_hand),
    "bernoulli": (bernoulli, bernoulli_by_hand),
    "categorical": (categorical, categorical_by_hand),
}


def ask(kind: str, values: Values, *, compiled: bool = False) -> Callable[[], Worlds]:
    """Abduction, action and prediction in one call, one draw of the noise that the data leave open."""
    question = cp.counterfactual(KINDS[kind][0], {"x": 1.0}, num_samples=1, seed=0)
    if compiled:
        question = cp.compile(question)

    def run() -> Worlds:
        worlds = question(*values.values())
        return {w: {n: worlds.tensor(n, world=w) for n in values} for w in worlds.worlds}

    return run


@dataclass(frozen=True)
class _Task:
    """One kind of outcome."""

    kind: str
    units: int
    compiled: bool

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.units:,} units"

    def build(self) -> Case:
        values, by_hand = data(self.kind, self.units), KINDS[self.kind][1]
        same = self.kind == "continuous"
        contenders = [
            Contender("by hand", lambda: by_hand(**values)),
            Contender("causalppl", ask(self.kind, values), same=same),
        ]
        if self.compiled:
            run = ask(self.kind, values, compiled=True)
            contenders.insert(1, Contender("causalppl, compiled", run, same=same))
        if same and not any("dowhy" in note for note in absent()):
            run = dowhy_from_data(triangle, values, {"counterfactual": {"x": 1.0}})
            contenders.append(Contender("DoWhy", run, note="the counterfactual world only"))
        for contender in contenders:
            _check_consistency(self.kind, values, contender.run())
        return Case(self.name, contenders, skipped=absent())


def _check_consistency(kind: str, values: Values, found: Any) -> None:
    """Units that the intervention leaves as they were keep their outcome.

    Raises:
        ValueError: some do not.
    """
    kept = values["x"] == 1.0
    outcome = found["counterfactual"]["y"].reshape(-1)
    if not torch.allclose(outcome[kept].float(), values["y"][kept].float(), atol=1e-4):
        raise ValueError(f"{kind}: setting x to its own value changes y")


def cases(quick: bool = False) -> list[_Task]:
    """Three kinds of outcome."""
    return [_Task(kind, 1_000 if quick else 100_000, not quick) for kind in KINDS]
