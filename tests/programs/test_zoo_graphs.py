"""The graphs of all programs of the zoo, against moving one site at a time. The moving is done here.

Every effect is an arrow, in all of them. Every arrow has an effect too, but where Python saw values, which is said of the graph, out of
functions, which are not moved here, and for the exceptions below.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pyro
import pytest
import torch
from plain import is_deterministic, is_site, unobserved
from pyro.poutine.messenger import Messenger
from zoo import ENTRIES, Entry

import causalppl as cp

pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.GraphWarning")


class Hold(Messenger):
    """Gives sites fixed values, and records the law of each: its density there, or the value of a function."""

    def __init__(self, values: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.values, self.laws, self.fns = values, {}, {}

    def _pyro_sample(self, msg: Any) -> None:
        if not is_site(msg):
            return
        name, own = msg["name"], msg["value"]
        if own is None:
            own = msg["fn"]()
        held = self.values.setdefault(name, own.detach().clone()).clone()
        if is_deterministic(msg):
            self.laws[name] = own.detach().clone()
        else:
            self.fns[name] = msg["fn"]
            self.laws[name] = msg["fn"].log_prob(held).detach()
        msg["value"], msg["done"] = held, True


def run(entry: Entry, values: dict[str, torch.Tensor]) -> Hold:
    with torch.random.fork_rng(), torch.no_grad(), pyro.validation_enabled(False):
        torch.manual_seed(5)
        with pyro.get_param_store().scope(), Hold(dict(values)) as held:
            unobserved(entry.program)(*entry.args, **entry.kwargs)
    return held


def differs(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None or a.shape != b.shape:
        return True
    return not torch.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


#: Arrows without an effect that this test could see, and why.
EFFECTLESS = {
    "attention": {
        ("tokens", "y"): "the mean over a normalised layer is zero whatever the tokens are"
    },
}


def moves(entry: Entry, name: str, fn: Any, value: torch.Tensor) -> list[torch.Tensor]:
    """Two draws, values of the support where it is small, and that of the entry's own intervention."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        found = [fn.sample(), fn.sample()]
    if fn.has_enumerate_support:
        with contextlib.suppress(
            NotImplementedError
        ):  # the elements of a plate differ in their support
            found += list(fn.enumerate_support()[:4])
    if name in entry.do:
        found.append(torch.as_tensor(entry.do[name]).to(value.dtype).expand(value.shape))
    return [m for m in found if m.shape == value.shape and not torch.equal(m, value)]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.name.replace(",", ""))
def test_effects_and_arrows_are_the_same(entry: Entry) -> None:
    graph = cp.causal_graph(unobserved(entry.program))(*entry.args, **entry.kwargs)
    start = run(entry, {})
    halves = {n for n in start.values if n.endswith(("_observed", "_unobserved"))}
    found, moved_sites = set(), set()
    for name, fn in start.fns.items():
        if name in halves or name not in graph.nodes:
            continue
        for moved in moves(entry, name, fn, start.values[name]):
            moved_sites.add(name)
            again = run(entry, {**start.values, name: moved})
            for child in start.laws.keys() & again.laws.keys() - {name} - halves:
                if child in graph.nodes and differs(start.laws[child], again.laws[child]):
                    found.add((name, child))
                    assert name in graph.parents(child), f"{name} -> {child}"
    effectless = {(a, b) for a, b in graph.edges if a in moved_sites} - found
    if not graph.hidden:
        assert effectless == EFFECTLESS.get(entry.name, {}).keys()
    assert entry.downstream - set(entry.do) <= set().union(
        *(graph.descendants(x) for x in entry.do if x in graph.nodes)
    ) | (set() if not entry.varying else entry.downstream)
