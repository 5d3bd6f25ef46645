"""What answers rest on, against the freedom that models have: the data leave alone just what the verdict says.

Sites are binary, monotone in a uniform noise of their own given all of their parents, latent ones included: the couplings are
known, the tables of probabilities are not. Where the verdict is "graph" or "graph and couplings", no change of the tables that
leaves the observed distribution alone may move the answer; otherwise some change does.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from test_counterfactuals import Asked, Case

from causalppl.errors import EvidenceError
from causalppl.graph import CausalGraph
from causalppl.graph.question import read_question
from causalppl.graph.verdicts import grounds


class Monotone:
    """Tables of probabilities as logits, drawn at random."""

    def __init__(self, case: Case, seed: int, sizes: int = 3) -> None:
        self.case, self.sizes = case, {n: sizes if n in case.latent else 2 for n in case.parents}
        shapes = {
            n: (sizes - 1,) if n in case.latent else tuple(self.sizes[p] for p in own)
            for n, own in case.parents.items()
        }
        self.shapes = shapes
        rng = np.random.default_rng(seed)
        self.logits = torch.as_tensor(
            rng.normal(size=sum(int(np.prod(s)) for s in shapes.values()))
        )

    def tables(self, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        pieces = logits.split([int(np.prod(s)) for s in self.shapes.values()])
        found = {}
        for (n, shape), piece in zip(self.shapes.items(), pieces, strict=True):
            if n in self.case.latent:
                found[n] = torch.cat([piece, torch.zeros(1, dtype=piece.dtype)]).softmax(0)
            else:
                found[n] = piece.sigmoid().reshape(shape)
        return found

    def mass(self, tables, worlds: list[dict[str, float]], test) -> torch.Tensor:
        """The probability of a test of the values in some worlds, latent sites being shared."""
        total = torch.zeros((), dtype=torch.float64)
        latent, nodes = sorted(self.case.latent), self.case.nodes
        for shared in itertools.product(*(range(self.sizes[u]) for u in latent)):
            start = dict(zip(latent, shared, strict=True))
            first = torch.ones((), dtype=torch.float64)
            for u, k in start.items():
                first = first * tables[u][k]
            todo = [(0, [dict(start) for _ in worlds], first)]
            while todo:
                i, values, weight = todo.pop()
                if i == len(nodes):
                    total = total + weight * float(test(values))
                    continue
                n = nodes[i]
                free = [w for w, do in enumerate(worlds) if n not in do]
                p = [tables[n][tuple(values[w][q] for q in self.case.parents[n])] for w in free]
                for own in itertools.product((0, 1), repeat=len(free)):
                    # the uniform lies below the chances of those who are 1, and above those of the others
                    ones = [q for q, v in zip(p, own, strict=True) if v]
                    zeros = [q for q, v in zip(p, own, strict=True) if not v]
                    high = torch.stack(ones).min() if ones else torch.ones(()).double()
                    low = torch.stack(zeros).max() if zeros else torch.zeros(()).double()
                    if high > low:
                        after = [dict(v) for v in values]
                        for w, do in enumerate(worlds):
                            after[w][n] = int(do[n]) if n in do else own[free.index(w)]
                        todo.append((i + 1, after, weight * (high - low)))
        return total

    def is_certain(self) -> bool:
        """Whether the answer is zero or one."""
        *_, top, bottom = self.known(self.logits)
        return bool(top == 0 or top == bottom)

    def known(self, logits: torch.Tensor) -> torch.Tensor:
        """The observed distribution, then numerator and denominator of the answer."""
        worlds: list[dict[str, float]] = [{}]
        for (_, settings), _ in (*self.case.event, *self.case.given):
            if dict(settings) not in worlds:
                worlds.append(dict(settings))

        def holds(side, values) -> bool:
            return all(values[worlds.index(dict(s))][n] == v for (n, s), v in side)

        seen = self.case.nodes

        tables = self.tables(logits)
        cells = [
            self.mass(tables, [{}], lambda v, at=at: tuple(v[0][n] for n in seen) == at)
            for at in itertools.product((0, 1), repeat=len(seen))
        ]
        below = self.mass(tables, worlds, lambda v: holds(self.case.given, v))
        both = self.mass(
            tables, worlds, lambda v: holds(self.case.given, v) and holds(self.case.event, v)
        )
        return torch.stack([*cells, both, below])

    def is_determined(self) -> bool:
        """Whether, to first order, the observed distribution and the couplings tell the answer."""
        values = self.known(self.logits)
        jacobian = torch.autograd.functional.jacobian(self.known, self.logits).numpy()
        top, bottom = values[-2:].numpy()
        if bottom <= 0:
            raise ZeroDivisionError
        slope = jacobian[-2] / bottom - top * jacobian[-1] / bottom**2
        rows = jacobian[:-2]
        if np.abs(slope).max() < 1e-10:
            return True
        residual = slope - rows.T @ np.linalg.lstsq(rows.T, slope, rcond=1e-9)[0]
        return bool(np.linalg.norm(residual) < 1e-6 * np.linalg.norm(slope))


def nested(asked: Asked) -> bool:
    return any(isinstance(v, tuple) for _, v in asked[1])


def compare(seeds, most: int) -> dict[str, int]:
    """As many questions as ``most`` of each verdict."""
    counts = {"graph": 0, "graph and couplings": 0, "graph and parametric form": 0}
    for seed in seeds:
        case = Case(seed)
        if len(case.nodes) > 3 or any(nested(a) for a, _ in (*case.event, *case.given)):
            continue
        graph = CausalGraph(case.parents, latent=case.latent)
        try:
            question = read_question(case.question, graph.arrows)
        except EvidenceError:
            continue
        verdict = grounds(question, graph.unit(question.sites()))
        if counts[verdict] == most:
            continue
        try:
            told = [Monotone(case, seed + k).is_determined() for k in range(2)]
        except ZeroDivisionError:  # a condition without probability
            continue
        counts[verdict] += 1
        if verdict == "graph and parametric form":
            # where a bound holds with equality, the tables leave nothing open by chance
            assert not all(told) or Monotone(case, seed).is_certain(), (seed, case.question)
        else:
            assert all(told), (seed, case.question, verdict)
    return counts


def test_verdicts_are_the_freedom_that_is_left() -> None:
    assert min(compare(range(400), 3).values()) == 3


@pytest.mark.slow
def test_verdicts_are_the_freedom_that_is_left_in_many_models() -> None:
    assert min(compare(range(1000, 6000), 60).values()) == 60
