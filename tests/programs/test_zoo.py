"""Every program of the zoo through the public interface: do, null and real interventions, executors, labels."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import arviz  # noqa: F401
import pyro
import pytest
import torch
from plain import SEEDS, axes, check_row, is_deterministic, nodes, record, unobserved
from zoo import ENTRIES, Entry

import causalppl as cp

pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.ExecutorWarning")


def has_no_mechanism(distribution: Any) -> bool:
    try:
        cp.mechanism_for(distribution)
    except cp.errors.NoMechanismError:
        return True
    return False


def zoo(check: str, passes_through: bool = True) -> pytest.MarkDecorator:
    """The entries as parameters; what is known to fail is an expected failure with its reason.

    ``passes_through``: whether the check sends an intervention through the sites downstream, which need mechanisms.
    """
    cases = []
    for entry in ENTRIES:
        lacking = [d for d in entry.needs if passes_through and has_no_mechanism(d)]
        marks = [
            pytest.mark.xfail(
                strict=True,
                raises=cp.errors.NoMechanismError,
                reason=f"no mechanism for {type(d).__name__} yet",
            )
            for d in lacking
        ]
        if check in entry.defects:
            marks.append(pytest.mark.xfail(strict=True, reason=entry.defects[check]))
        cases.append(pytest.param(entry, id=entry.name.replace(",", ""), marks=marks))
    return pytest.mark.parametrize("entry", cases)


@functools.cache
def recorded(entry: Entry) -> cp.Posterior:
    """A whole factual trace as evidence, over the program's own data: nothing to infer.

    Draws differ only in the noise of discrete sites.
    """
    evidence = record(nodes(entry, SEEDS[0]))
    return cp.abduct(entry.program, evidence, num_samples=4, seed=0)(*entry.args, **entry.kwargs)


def rows(entry: Entry) -> cp.Posterior:
    """Several factual traces, one a draw; where traces differ in their sites, draws from the prior."""
    if entry.varying:
        prior = cp.abduct(unobserved(entry.program), num_samples=6, seed=0)
        return prior(*entry.args, **entry.kwargs)
    traces = [record(nodes(entry, seed)) for seed in SEEDS]
    samples = {name: torch.stack([trace[name] for trace in traces]) for name in traces[0]}
    return cp.abduct(
        unobserved(entry.program), method=cp.PosteriorSamples(samples), num_samples=4, seed=0
    )(*entry.args, **entry.kwargs)


@functools.cache
def moved(entry: Entry) -> cp.Worlds:
    """The factual rows and the world of the entry's intervention."""
    return rows(entry).predict(entry.do)


def in_both(worlds: cp.Worlds) -> Iterable[tuple[str, torch.Tensor, torch.Tensor]]:
    """Site, factual draws, other draws; where only one world has a site, the other's draws are NaN."""
    for site in worlds:
        yield site, worlds.tensor(site, "factual"), worlds.tensor(site, "counterfactual")


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Discrete values exactly; numbers to 1e-5 of their size."""
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    return torch.allclose(a, b, rtol=1e-5, atol=1e-5, equal_nan=True)


@zoo("do", passes_through=False)
def test_do(entry: Entry) -> None:
    before = nodes(entry, SEEDS[0])
    with torch.random.fork_rng(), torch.no_grad(), pyro.get_param_store().scope():
        torch.manual_seed(SEEDS[0])
        intervened = cp.do(unobserved(entry.program), entry.do)
        after = pyro.poutine.trace(intervened).get_trace(*entry.args, **entry.kwargs)
    for site, value in entry.do.items():
        seen = after.nodes[site]["value"]
        assert seen.shape == before[site]["value"].shape
        assert torch.equal(seen, torch.as_tensor(value).to(seen).expand_as(seen))
        assert float(torch.as_tensor(after.nodes[site]["fn"].log_prob(seen)).sum()) == 0.0
    if not entry.varying:
        assert [n for n in after.nodes if n in before] == list(before)
        for site, node in before.items():
            assert after.nodes[site]["value"].shape == node["value"].shape, site
            assert after.nodes[site]["fn"].event_dim == node["fn"].event_dim, site


@zoo("null")
def test_null_intervention(entry: Entry) -> None:
    found = nodes(entry, SEEDS[0])
    null = {site: found[site]["value"] for site in entry.do}
    worlds = recorded(entry).predict(null)
    assert set(worlds) == set(found)
    for site, here, there in in_both(worlds):
        value = found[site]["value"].expand(here.shape)
        if is_deterministic(found[site]):
            assert same(here, value), site
        else:
            assert torch.equal(here, value), site
        discrete = found[site]["fn"].support.is_discrete
        assert torch.equal(here, there) if discrete else same(here, there), site


@zoo("real")
def test_real_intervention(entry: Entry) -> None:
    changed = set()
    for worlds in (recorded(entry).predict(entry.do), moved(entry)):
        for site, here, there in in_both(worlds):
            if site in entry.do:
                wanted = torch.as_tensor(entry.do[site]).to(there).expand_as(there)
                assert torch.equal(there, wanted), site
            elif not torch.equal(here, there):
                # a deterministic site elsewhere is computed anew, and may round differently
                if site in entry.downstream or not same(here, there):
                    changed.add(site)
    assert changed <= entry.downstream, f"not downstream: {changed - entry.downstream}"
    assert entry.moved <= changed, f"not moved: {entry.moved - changed}"
    assert changed, "nothing moved"


@zoo("rows")
def test_rows_follow_from_the_factual_ones(entry: Entry) -> None:
    worlds = moved(entry)
    for draw in range(worlds.num_draws):
        here, there = (
            {
                site: worlds.tensor(site, world)[draw]
                for site in worlds
                if not bool(worlds.tensor(site, world)[draw].isnan().any())
            }
            for world in ("factual", "counterfactual")
        )
        check_row(entry, here, there)


@zoo("executors")
def test_executors_agree(entry: Entry) -> None:
    batched = moved(entry)
    posterior = rows(entry)
    posterior._form.executor.sequential_because = "the test asks for it"
    one_by_one = posterior.predict(entry.do)
    assert one_by_one.diagnostics.executor == "sequential"
    assert set(batched) == set(one_by_one)
    for world in ("factual", "counterfactual"):
        for site in batched:
            a, b = batched.tensor(site, world), one_by_one.tensor(site, world)
            assert a.dtype == b.dtype and same(a, b), (world, site)
    if entry.executor is not None:
        assert batched.diagnostics.executor == entry.executor


@pytest.mark.slow
@zoo("compiled")
def test_compiled_worlds_agree(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The traced graph; machine code, which takes seconds a program, is tested on a few elsewhere."""
    monkeypatch.setattr("causalppl.structural.compiled.has_cpp_compiler", lambda: False)
    plain, posterior = moved(entry), rows(entry)
    posterior.predict(entry.do)
    traced = posterior.predict(entry.do, compile=True)
    batched = plain.diagnostics.executor == "vmap"
    assert traced.diagnostics.executor == ("compiled" if batched else "sequential")
    for world in ("factual", "counterfactual"):
        for site in plain:
            assert same(plain.tensor(site, world), traced.tensor(site, world)), (world, site)


@zoo("labels")
def test_labels_and_files(entry: Entry, tmp_path: Path) -> None:
    worlds = moved(entry)
    found = nodes(entry, SEEDS[0])
    for site in worlds:
        array = worlds[site]
        assert array.dims[:2] == ("draw", "world")
        assert array.sizes["draw"] == worlds.num_draws and array.sizes["world"] == 2
        if site in found:
            assert array.dims[2:] == axes(site, found[site]), site
    posterior = worlds.to_arviz().posterior
    for site in worlds:
        assert posterior[site.replace("/", ".")].sizes["draw"] == worlds.num_draws
    path = tmp_path / "worlds.nc"
    worlds.save(path)
    loaded = cp.Worlds.load(path)
    assert set(loaded) == set(worlds)
    for world in ("factual", "counterfactual"):
        for site in worlds:
            a, b = worlds.tensor(site, world), loaded.tensor(site, world)
            assert torch.allclose(a.to(b.dtype), b, rtol=0, atol=0, equal_nan=True), (world, site)
