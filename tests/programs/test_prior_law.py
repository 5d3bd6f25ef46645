"""Draws through the structural form have the program's own law: two-sample tests against forward runs of plain Pyro."""

from __future__ import annotations

from typing import Any

import pyro
import pytest
import scipy.stats
import torch
from plain import is_site, unobserved
from zoo import ENTRIES, Entry

import causalppl as cp

pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.ExecutorWarning")

#: Run at each change; the others with the slow tests.
FAST = {
    "eight schools, non-centred",
    "radon by county",
    "hurdle",
    "probit, a boolean outcome",
    "Gaussian process",
    "random walk",
    "change point by index",
    "sprinkler",
    "a count as an index",
    "variational autoencoder",
    "bounded rate",
    "front door",
    "interference in a network",
    "supply and demand",
    "parameters",
    "many shapes and types",
}


def laws() -> list[Any]:
    """The entries whose law is compared; what is known to fail is an expected failure with its reason."""
    cases = []
    for entry in ENTRIES:
        if entry.law and not entry.varying:
            marks = [] if entry.name in FAST else [pytest.mark.slow]
            if "law" in entry.defects:
                marks.append(pytest.mark.xfail(strict=True, reason=entry.defects["law"]))
            cases.append(pytest.param(entry, id=entry.name.replace(",", ""), marks=marks))
    return cases


FORWARD, DRAWS = 300, 1000
#: The chance that a right library fails one comparison; with these seeds it does not.
LEVEL = 1e-4


def forward(entry: Entry, sites: list[str]) -> dict[str, torch.Tensor]:
    """Independent runs of the program without its data, stacked."""
    program = unobserved(entry.program)
    runs = []
    with torch.random.fork_rng(), torch.no_grad(), pyro.get_param_store().scope():
        torch.manual_seed(101)
        for _ in range(FORWARD):
            trace = pyro.poutine.trace(program).get_trace(*entry.args, **entry.kwargs)
            assert all(is_site(trace.nodes[site]) for site in sites)
            runs.append({site: trace.nodes[site]["value"].detach() for site in sites})
    return {site: torch.stack([run[site] for run in runs]).double() for site in sites}


def summaries(draws: torch.Tensor) -> dict[str, torch.Tensor]:
    """Numbers that see each entry, its spread and how entries go together; one a draw."""
    flat = draws.reshape(len(draws), -1)
    found = {"first": flat[:, 0], "last": flat[:, -1], "mean": flat.mean(1)}
    if flat.shape[1] > 1:
        found["spread"] = flat.std(1)
        found["together"] = flat[:, 0] * flat[:, -1]
    return found


@pytest.mark.parametrize("entry", laws())
def test_prior_law(entry: Entry) -> None:
    sites = entry.law.split()
    posterior = cp.abduct(unobserved(entry.program), num_samples=DRAWS, seed=5)
    worlds = posterior(*entry.args, **entry.kwargs).predict()
    plain = forward(entry, sites)
    for site in sites:
        drawn = worlds.tensor(site, "factual").detach()
        assert drawn.shape == (DRAWS, *plain[site].shape[1:])
        assert len(drawn.unique(dim=0)) > 1
        ours, theirs = summaries(drawn.double()), summaries(plain[site])
        for name, values in ours.items():
            # exact ties of discrete sites are what the two-sample statistic is conservative with
            found = scipy.stats.ks_2samp(values.numpy(), theirs[name].numpy(), method="asymp")
            assert found.pvalue > LEVEL, (site, name, found)
            if len(values.unique()) <= 20:
                levels = torch.cat([values, theirs[name]]).unique()
                table = [
                    [int((v == level).sum()) for level in levels] for v in (values, theirs[name])
                ]
                if len(levels) > 1:
                    assert scipy.stats.chi2_contingency(table).pvalue > LEVEL, (site, name, table)


def test_fast_names_are_entries() -> None:
    """A name that is no entry would take a program out of the run unseen."""
    assert {entry.name for entry in ENTRIES if entry.law} >= FAST


def test_prior_draws_carry_no_gradient() -> None:
    entry = next(entry for entry in ENTRIES if entry.name == "conditional autoencoder")
    worlds = cp.abduct(unobserved(entry.program), num_samples=5, seed=0)(*entry.args).predict()
    assert not any(worlds.tensor(site, "factual").requires_grad for site in worlds)
