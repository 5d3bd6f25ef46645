"""More than fifty queries, one of every kind the notation has, each against a loop over all noise, with its rung and its grounds.

The program is z -> x -> m -> y with arrows from z to m and from x to y, three values each but z, coupled in order of the values.
"""

from __future__ import annotations

import noise_cells
import numpy as np
import pytest

import causalppl as cp

pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.CouplingWarning")

RNG = np.random.default_rng(11)
MODEL = {
    "z": noise_cells.random_node(RNG, {}, 2, "bernoulli"),
    "x": noise_cells.random_node(RNG, {"z": 2}, 3, "inverse_cdf"),
    "m": noise_cells.random_node(RNG, {"z": 2, "x": 3}, 3, "inverse_cdf"),
    "y": noise_cells.random_node(RNG, {"x": 3, "m": 3}, 3, "inverse_cdf"),
}
CELLS, RUN = noise_cells.NoiseCells(MODEL), noise_cells.program(MODEL)

GRAPH, COUPLED = "graph", "graph and couplings"

#: The query; the event and the condition as functions of worlds; its rung; what it rests on where everything is measured.
QUERIES = [
    # seeing
    ("P(y=1)", lambda w: w()["y"] == 1, None, 1, None),
    ("P(y != 1)", lambda w: w()["y"] != 1, None, 1, None),
    ("P(y > 0)", lambda w: w()["y"] > 0, None, 1, None),
    ("P(0 < y)", lambda w: w()["y"] > 0, None, 1, None),
    ("P(y >= m)", lambda w: w()["y"] >= w()["m"], None, 1, None),
    ("P(y = m, x = 2)", lambda w: w()["y"] == w()["m"] and w()["x"] == 2, None, 1, None),
    ("P(y + m = 2 | z=1)", lambda w: w()["y"] + w()["m"] == 2, lambda w: w()["z"] == 1, 1, None),
    ("P(y * x <= 1 | m > 0, z < 1)", lambda w: w()["y"] * w()["x"] <= 1, lambda w: w()["m"] > 0 and w()["z"] < 1, 1, None),
    ("E[y]", lambda w: w()["y"], None, 1, None),
    ("E[y | x=2]", lambda w: w()["y"], lambda w: w()["x"] == 2, 1, None),
    ("E[y * m - x / 2 + 1 | z != 0]", lambda w: w()["y"] * w()["m"] - w()["x"] / 2 + 1, lambda w: w()["z"] != 0, 1, None),
    ("E[y / x | x != 0]", lambda w: w()["y"] / w()["x"], lambda w: w()["x"] != 0, 1, None),
    # doing
    ("P(y=1 | do(x=1))", lambda w: w(x=1)["y"] == 1, None, 2, GRAPH),
    ("P(y=2, m=0 | do(x=2))", lambda w: w(x=2)["y"] == 2 and w(x=2)["m"] == 0, None, 2, GRAPH),
    ("P(y=1 | do(x=1), z=0)", lambda w: w(x=1)["y"] == 1, lambda w: w()["z"] == 0, 2, GRAPH),
    ("P(y > m | do(x=0), m >= 1)", lambda w: w(x=0)["y"] > w(x=0)["m"], lambda w: w(x=0)["m"] >= 1, 2, GRAPH),
    ("P(y=1 | do(x=1, m=2))", lambda w: w(x=1, m=2)["y"] == 1, None, 2, GRAPH),
    ("P(y=1 | do(m=2))", lambda w: w(m=2)["y"] == 1, None, 2, GRAPH),
    ("P(x=1 | do(m=2))", lambda w: w()["x"] == 1, None, 2, GRAPH),
    ("P(y=1 | do(z=1))", lambda w: w(z=1)["y"] == 1, None, 2, GRAPH),
    ("E[y | do(x=2)]", lambda w: w(x=2)["y"], None, 2, GRAPH),
    ("E[y[x=2]]", lambda w: w(x=2)["y"], None, 2, GRAPH),
    ("E[y[x=2] | z=1]", lambda w: w(x=2)["y"], lambda w: w()["z"] == 1, 2, GRAPH),
    ("E[y[x=2] | m[x=2]=1]", lambda w: w(x=2)["y"], lambda w: w(x=2)["m"] == 1, 2, GRAPH),
    ("P(y[x=2]=1, m[x=2]=1)", lambda w: w(x=2)["y"] == 1 and w(x=2)["m"] == 1, None, 2, GRAPH),
    ("E[y[x=2] - y[x=0]]", lambda w: w(x=2)["y"] - w(x=0)["y"], None, 2, GRAPH),
    ("E[3 * y[x=2] - y[x=0] / 2 - 1]", lambda w: 3 * w(x=2)["y"] - w(x=0)["y"] / 2 - 1, None, 2, GRAPH),
    ("E[y[x=1, m=m[x=1]]]", lambda w: w(x=1)["y"], None, 2, GRAPH),
    # imagining: the treated, and what one world says of another
    ("E[y[x=2] | x=0]", lambda w: w(x=2)["y"], lambda w: w()["x"] == 0, 3, GRAPH),
    ("P(y[x=2]=1 | x=0)", lambda w: w(x=2)["y"] == 1, lambda w: w()["x"] == 0, 3, GRAPH),
    ("P(y[x=2]=1 | x=0, z=1)", lambda w: w(x=2)["y"] == 1, lambda w: w()["x"] == 0 and w()["z"] == 1, 3, GRAPH),
    ("P(y[x=2]=1 | x != 0)", lambda w: w(x=2)["y"] == 1, lambda w: w()["x"] != 0, 3, GRAPH),
    ("P(y[x=2]=1 | x=2, y=0)", lambda w: w(x=2)["y"] == 1, lambda w: w()["x"] == 2 and w()["y"] == 0, 3, GRAPH),
    ("P(y[x=2]=1, x=2)", lambda w: w(x=2)["y"] == 1 and w()["x"] == 2, None, 3, GRAPH),
    ("P(y[m=2]=1 | m=0)", lambda w: w(m=2)["y"] == 1, lambda w: w()["m"] == 0, 3, GRAPH),
    ("P(y[m=2]=1 | x=1)", lambda w: w(m=2)["y"] == 1, lambda w: w()["x"] == 1, 2, GRAPH),
    ("P(y[x=1]=1 | x=0, y=0)", lambda w: w(x=1)["y"] == 1, lambda w: w()["x"] == 0 and w()["y"] == 0, 3, COUPLED),
    ("P(y[x=1]=1 | y=0)", lambda w: w(x=1)["y"] == 1, lambda w: w()["y"] == 0, 3, COUPLED),
    ("P(y[x=1]=1 | m=0)", lambda w: w(x=1)["y"] == 1, lambda w: w()["m"] == 0, 3, COUPLED),
    ("P(y[x=1]=1 | m[x=0]=0, z=1)", lambda w: w(x=1)["y"] == 1, lambda w: w(x=0)["m"] == 0 and w()["z"] == 1, 3, COUPLED),
    ("P(y[x=1]=1 | y[x=0] >= 1)", lambda w: w(x=1)["y"] == 1, lambda w: w(x=0)["y"] >= 1, 3, COUPLED),
    ("P(m[x=1]=2 | m=1, x=0)", lambda w: w(x=1)["m"] == 2, lambda w: w()["m"] == 1 and w()["x"] == 0, 3, COUPLED),
    # imagining: worlds compared
    ("P(y[x=1]=1, y[x=0]=0)", lambda w: w(x=1)["y"] == 1 and w(x=0)["y"] == 0, None, 3, COUPLED),
    ("P(y[x=2] > y[x=0])", lambda w: w(x=2)["y"] > w(x=0)["y"], None, 3, COUPLED),
    ("P(y[x=2] = y[x=0])", lambda w: w(x=2)["y"] == w(x=0)["y"], None, 3, COUPLED),
    ("P(y[x=2] > y | x=0)", lambda w: w(x=2)["y"] > w()["y"], lambda w: w()["x"] == 0, 3, COUPLED),
    ("P(y[x=2] - y[x=0] >= 1 | z=0)", lambda w: w(x=2)["y"] - w(x=0)["y"] >= 1, lambda w: w()["z"] == 0, 3, COUPLED),
    ("P(y[x=0] < y[x=1], y[x=1] < y[x=2])", lambda w: w(x=0)["y"] < w(x=1)["y"] < w(x=2)["y"], None, 3, COUPLED),
    ("E[y[x=2] * y[x=0]]", lambda w: w(x=2)["y"] * w(x=0)["y"], None, 3, COUPLED),
    ("E[y[x=2] / (1 + m[x=0]) | y > 0]", lambda w: w(x=2)["y"] / (1 + w(x=0)["m"]), lambda w: w()["y"] > 0, 3, COUPLED),
    # imagining: nested worlds
    ("E[y[x=2, m=m[x=0]]]", lambda w: w(x=2, m=w(x=0)["m"])["y"], None, 3, GRAPH),
    ("E[y[x=2, m=m[x=0]] - y[x=0]]", lambda w: w(x=2, m=w(x=0)["m"])["y"] - w(x=0)["y"], None, 3, GRAPH),
    ("E[y[x=2] - y / 2 | x=0]", lambda w: w(x=2)["y"] - w()["y"] / 2, lambda w: w()["x"] == 0, 3, GRAPH),
    ("P(y[x=2, m=m[x=0]]=1 | z=1)", lambda w: w(x=2, m=w(x=0)["m"])["y"] == 1, lambda w: w()["z"] == 1, 3, GRAPH),
    ("P(y[x=2, m=m[x=0]]=1 | x=1)", lambda w: w(x=2, m=w(x=0)["m"])["y"] == 1, lambda w: w()["x"] == 1, 3, GRAPH),
    ("E[y[x=2, m=m]]", lambda w: w(x=2, m=w()["m"])["y"], None, 3, GRAPH),
    ("P(y[x=2, m=m[x=0]] > y[x=0])", lambda w: w(x=2, m=w(x=0)["m"])["y"] > w(x=0)["y"], None, 3, COUPLED),
    ("P(y[x=2, m=m[x=0]]=1 | m=2, x=2)", lambda w: w(x=2, m=w(x=0)["m"])["y"] == 1, lambda w: w()["m"] == 2 and w()["x"] == 2, 3, COUPLED),
]  # fmt: skip


def test_they_are_more_than_fifty() -> None:
    assert len({text for text, *_ in QUERIES}) == len(QUERIES) >= 50


@pytest.mark.parametrize(
    ("text", "event", "given", "rung", "grounds"), QUERIES, ids=[q[0] for q in QUERIES]
)
def test_a_query_against_all_noise(text, event, given, rung, grounds) -> None:
    found = cp.query(text, RUN)()
    assert found.exact and found.rung == rung
    expected = CELLS.answer(event, given or (lambda w: True))
    assert float(found) == pytest.approx(expected, abs=1e-12)
    assert found.diagnostics.identification == grounds


ARITHMETIC = [
    ("E[y | do(x=2)] - E[y | do(x=0)]", ["E[y[x=2]]", "E[y[x=0]]"], lambda a, b: a - b),
    ("P(y=1 | do(x=2)) / P(y=1 | do(x=0))", ["P(y[x=2]=1)", "P(y[x=0]=1)"], lambda a, b: a / b),
    (
        "(E[y[x=2, m=m[x=0]]] - E[y[x=0]]) / (E[y[x=2]] - E[y[x=0]])",
        ["E[y[x=2, m=m[x=0]]]", "E[y[x=0]]", "E[y[x=2]]"],
        lambda a, b, c: (a - b) / (c - b),
    ),
    ("1 - 2 * P(y=1) + -E[m]", ["P(y=1)", "E[m]"], lambda a, b: 1 - 2 * a - b),
]  # fmt: skip


@pytest.mark.parametrize(("text", "parts", "together"), ARITHMETIC)
def test_terms_are_put_together(text, parts, together) -> None:
    values = [float(cp.query(part, RUN)()) for part in parts]
    assert float(cp.query(text, RUN)()) == pytest.approx(together(*values), abs=1e-12)
