"""``import causalppl`` is light: it costs little beyond Pyro, and heavy packages load where they are used."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

HEAVY = (
    "arviz",
    "graphviz",
    "matplotlib",
    "nutpie",
    "pandas",
    "ray",
    "rich",
    "typer",
    "xarray",
    "zuko",
)


def python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Code run by a fresh interpreter."""
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def loaded_by(code: str) -> set[str]:
    """Top-level packages loaded after the code, in a fresh interpreter."""
    report = (
        "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    return set(json.loads(python(f"{code}\n{report}").stdout.splitlines()[-1]))


def test_import_loads_no_heavy_package() -> None:
    by_pyro = loaded_by("import pyro, torch.func")
    heavy = loaded_by("import causalppl") & set(HEAVY)
    assert not heavy - by_pyro


def test_a_simple_answer_loads_no_heavy_package() -> None:
    ask = """
import causalppl as cp, pyro, pyro.distributions as dist
def model():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    return pyro.sample("y", dist.Normal(x, 1.0))
worlds = cp.counterfactual(model, {"x": 0.0}, {"x": 0.5, "y": 1.5})()
assert worlds.tensor("y", world="counterfactual").item() == 1.0
"""
    by_pyro = loaded_by("import pyro, torch.func")
    assert not (loaded_by(ask) & set(HEAVY)) - by_pyro


def test_plots_are_reached_without_importing_them_by_name() -> None:
    loaded = loaded_by("import causalppl as cp; cp.plots.worlds")
    assert "matplotlib" not in loaded  # only drawing needs it


def import_seconds() -> tuple[float, float]:
    """Seconds that ``import causalppl`` takes once Pyro is loaded, and that Pyro took."""
    times = python("import pyro\nimport causalppl", "-X", "importtime").stderr
    found = [
        re.search(rf"\|\s*(\d+) \| {name}$", times, re.MULTILINE) for name in ("causalppl", "pyro")
    ]
    own, pyro = (int(match[1]) / 1e6 for match in found if match is not None)
    return own, pyro


@pytest.mark.slow
def test_import_is_light_beside_pyro() -> None:
    # 0.3 s where Pyro takes less than two; on a slower or busy machine both grow, and other work only adds
    times = [import_seconds() for _ in range(5)]
    assert min(own for own, _ in times) < max(0.3, 0.17 * min(pyro for _, pyro in times)), times


def test_importing_changes_no_global_setting() -> None:
    code = """
import warnings, torch, pyro
from torch.distributions import Distribution
def state():
    return (torch.get_default_dtype(), Distribution._validate_args, pyro.settings.get(), list(warnings.filters),
            torch.get_rng_state().tolist(), torch.get_num_threads(), len(pyro.poutine.runtime._PYRO_STACK))
before = state()
import causalppl, causalppl.plots
assert state() == before, "changed"
"""
    python(code)
