"""The benchmarks compute what they say, and refuse to time what does not."""

from __future__ import annotations

import statistics

import matplotlib.pyplot as plt
import pytest
import torch

from . import abduction_against_torch, cost_curves, worlds_against_torch
from .harness import Case, Contender, Row, check, measure, report
from .programs import ask, chain, triangle


@pytest.mark.parametrize("plate", [True, False])
@pytest.mark.parametrize("program", [triangle, chain(4)], ids=lambda p: p.name)
def test_causalppl_gives_the_numbers_written_by_hand(program: object, plate: bool) -> None:
    noise = program.noise(7)
    worlds = {f"w{k}": {program.target: float(k)} for k in range(3)}
    expected, found = program.by_hand(noise, worlds), ask(program, noise, worlds, plate=plate)()
    assert list(found) == list(expected) == ["factual", "w0", "w1", "w2"]
    for world, sites in expected.items():
        for name, value in sites.items():
            assert torch.allclose(found[world][name].reshape(-1), value, atol=1e-5)


def test_small_cases_of_every_benchmark_agree() -> None:
    for task in (*worlds_against_torch.cases(quick=True)[:2], *cost_curves.cases(quick=True)):
        if not task.name.endswith(("10,000", " 10000", " 16", " 20")):
            check(task.build())
    for task in abduction_against_torch.cases(quick=True):
        check(task.build())


@pytest.mark.parametrize("kind", ["bernoulli", "categorical"])
def test_noise_abducted_by_hand_has_the_law_of_the_other_world(kind: str) -> None:
    values = abduction_against_torch.data(kind, 40_000)
    _, by_hand = abduction_against_torch.KINDS[kind]
    outcome = by_hand(**values)["counterfactual"]["y"].long()
    ones = values["y"][values["x"] == 1].long()
    counts, expected = torch.bincount(outcome) / 40_000, torch.bincount(ones) / len(ones)
    assert (counts - expected).abs().max() < 4 * 0.5 * (1 / 40_000 + 1 / len(ones)) ** 0.5


def test_contenders_that_differ_are_not_timed() -> None:
    right = Contender("right", lambda: {"factual": {"y": torch.ones(3)}})
    wrong = Contender("wrong", lambda: {"factual": {"y": torch.tensor([1.0, 1.0, 1.1])}})
    with pytest.raises(ValueError, match=r"'wrong' differs at factual/y by 0\.1"):
        check(Case("case", [right, wrong]))
    check(Case("case", [right, Contender("other", wrong.run, same=False)]))


def test_ratios_are_medians_within_rounds() -> None:
    def work(steps: int) -> dict[str, dict[str, torch.Tensor]]:
        total = torch.zeros(())
        for _ in range(steps):
            total = total + 1
        return {"factual": {"y": torch.ones(())}}

    case = Case(
        "case", [Contender("one", lambda: work(500)), Contender("four", lambda: work(2000))]
    )
    first, second = measure(case, seconds=0.5)
    assert first.ratio == 1.0
    assert 3 < second.ratio < 5.5
    assert second.ratio_low <= second.ratio <= second.ratio_high
    text = report("title", [first, second], ["a note"])
    assert "| case | four |" in text and "- a note" in text


def rows() -> list[Row]:
    """Two curves of a known slope."""
    found = []
    for curve, power in (("units", 1.0), ("nodes", 2.0)):
        for size in (10, 100, 1000, 10000):
            time = 0.01 * size**power
            found += [Row(f"{curve} {size}", "by hand", time, 1, 1, 1, 5)]
            found += [Row(f"{curve} {size}", "causalppl", 3 * time, 3, 3, 3, 5)]
    return found


def test_exponents_and_the_figure_of_curves(tmp_path: object) -> None:
    lines = cost_curves.exponents(rows())
    assert [line.split("|")[3].strip() for line in lines[2:]] == ["1.00", "1.00", "2.00", "2.00"]
    points = [(s, s**1.5) for s in (3, 9, 27)]
    assert cost_curves.slope(points) == pytest.approx(1.5)
    cost_curves.figure(rows(), tmp_path / "new" / "curves.png")
    assert (tmp_path / "new" / "curves.png").stat().st_size > 10_000
    assert not plt.get_fignums()
    assert statistics.median([r.ratio for r in rows()]) == 2
