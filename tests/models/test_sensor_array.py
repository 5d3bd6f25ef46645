"""The sensor array is what its docstring says, as plain Pyro."""

from __future__ import annotations

import math

import numpy as np
import pyro
import torch

from models.sensor_array import KNOWN, data, model, tone


def test_the_tone_is_that_of_the_formula() -> None:
    angle = 0.4
    found = tone(torch.tensor(angle, dtype=torch.float64)).reshape(8, 8).numpy()
    for m in (0, 3, 7):
        for t in (0, 5):
            late = m * 0.1 * math.sin(angle) / 343.0
            assert abs(found[m, t] - math.cos(2 * math.pi * 800 * (t * 2e-4 - late))) < 1e-9


def test_seeing_and_doing_differ_as_they_must() -> None:
    pyro.set_rng_seed(1)
    count = 200_000

    def amplitude(program: object) -> tuple[np.ndarray, np.ndarray]:
        nodes = pyro.poutine.trace(program).get_trace(count).nodes
        return nodes["amplitude"]["value"].log().numpy(), nodes["damper"]["value"].numpy()

    seen, damper = amplitude(model)
    association = seen[damper == 1].mean() - seen[damper == 0].mean()
    error = math.sqrt(4 * seen.var() / count)
    assert abs(association - KNOWN["association"]) < 4.5 * error
    done = [
        amplitude(pyro.poutine.do(model, {"damper": torch.full((count,), value)}))[0].mean()
        for value in (0.0, 1.0)
    ]
    assert abs(done[1] - done[0] - KNOWN["effect"]) < 4.5 * error


def test_the_data_are_twenty_machines() -> None:
    (count,), evidence = data()
    assert count == 20 and evidence["signal"].shape == (20, 64)
    assert 4 < int(evidence["damper"].sum()) < 16
