"""Every file in models/ keeps the convention that models/__init__.py states."""

from __future__ import annotations

import ast
import importlib.util
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pyro
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "models"
# The files whose mechanisms are networks take the network classes from causalppl.networks, and that is all.
FILES = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")

pytestmark = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def load(path: Path) -> ModuleType:
    """The file on its own, as someone who was handed it would load it."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_imports_nothing_of_the_toolkit_but_networks(path: Path) -> None:
    imported = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, (
                f"{path.name}:{node.lineno} is relative: the file does not stand alone"
            )
            imported.append(node.module or "")
    toolkit = [name for name in imported if name.split(".")[0] == "causalppl"]
    assert all(name.startswith("causalppl.networks") for name in toolkit)


def test_says_what_it_models(path: Path) -> None:
    module = load(path)
    assert module.__doc__ and "-->" in module.__doc__, "the docstring draws the graph"
    assert callable(module.model)


def test_data_leaves_the_generators_alone_and_is_the_same_each_time(path: Path) -> None:
    module = load(path)
    if not hasattr(module, "data"):
        pytest.skip("has nothing to condition on")
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    (args, evidence), (args_again, evidence_again) = module.data(), module.data()
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    assert (
        torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
    )
    assert isinstance(args, tuple) and len(args) == len(args_again)
    for one, other in zip(args, args_again, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert evidence.keys() == evidence_again.keys()
    assert all(torch.equal(evidence[site], evidence_again[site]) for site in evidence)


def test_evidence_fits_the_sites_and_is_possible(path: Path) -> None:
    module = load(path)
    if not hasattr(module, "data"):
        pytest.skip("has nothing to condition on")
    args, evidence = module.data()
    pyro.set_rng_seed(0)
    trace = pyro.poutine.trace(module.model).get_trace(*args)
    for site, value in evidence.items():
        assert trace.nodes[site]["value"].shape == value.shape, site
        assert trace.nodes[site]["value"].dtype == value.dtype, site
    sampled = {s: v for s, v in evidence.items() if not is_deterministic(trace.nodes[s])}
    conditioned = pyro.poutine.trace(pyro.poutine.condition(module.model, sampled)).get_trace(*args)
    assert torch.isfinite(conditioned.log_prob_sum())


def is_deterministic(site: dict) -> bool:
    return site["infer"].get("_deterministic", False)
