"""The picture of a training shows its numbers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

import causalppl as cp
from causalppl import errors
from causalppl.training import History

LOSS = [1000.0, *np.linspace(9, 1, 99)]
HISTORY = History(
    "fit", LOSS, [0.1] * 100, [0, 50, 100], [8.0, 2.0, 3.0], {"ess": [1.0, 5.0, 7.0]}, 50, "held_out", 1.0
)  # fmt: skip


def test_losses_means_and_what_was_held_out() -> None:
    _, ax = plt.subplots()
    axes = cp.plots.history(HISTORY, ax=ax)
    assert axes is ax
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["loss of each step"].get_ydata(), LOSS)
    means = lines["mean of 2 steps"]
    np.testing.assert_allclose(means.get_ydata()[:3], [504.5, LOSS[1] - 4 / 98, LOSS[2] - 4 / 98])
    np.testing.assert_allclose(means.get_xdata()[:2], [1.5, 2.5])
    np.testing.assert_allclose(lines["held out"].get_xydata(), [[0, 8], [50, 2], [100, 3]])
    kept = lines["weights kept, after 50 steps"]
    assert kept.get_xdata()[0] == 50
    # the first step does not flatten the rest, and all that was held out is seen
    bottom, top = axes.get_ylim()
    assert bottom < 1 and 8 < top < 20
    assert axes.get_title() == "fit: the held-out loss had ceased to fall after 100 steps"
    # what is told apart by colour is told apart by line or marker too
    assert lines["held out"].get_linestyle() != means.get_linestyle()


@pytest.mark.parametrize(("quantity", "values"), [("ess", [1, 5, 7]), ("learning_rate", [0.1] * 100)])  # fmt: skip
def test_other_quantities(quantity: str, values: list[float]) -> None:
    axes = cp.plots.history(HISTORY, quantity)
    np.testing.assert_allclose(axes.lines[0].get_ydata(), values)
    assert axes.get_ylabel() == quantity.replace("_", " ")


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(errors.UnknownSiteError, match="'loss', 'learning_rate', 'ess'"):
        cp.plots.history(HISTORY, "elbo")
    with pytest.raises(errors.MethodError, match="no steps"):
        cp.plots.history(History())
    one = cp.plots.history(History("fit", [2.0], [0.1]))
    assert one.get_ylim()[0] < 2 < one.get_ylim()[1]
