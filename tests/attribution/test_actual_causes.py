"""Actual causes of the literature's cases, and of random models against the definition itself."""

from __future__ import annotations

import math

import halpern_pearl
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl.attribution import contingencies
from causalppl.errors import EvidenceError, QueryError, UnknownSiteError


def coins(*names):
    return [pyro.sample(name, dist.Bernoulli(0.5)) for name in names]


def found(model, evidence, outcome, **keywords):
    """Cause to witness and responsibility."""
    causes = cp.attribution.actual_causes(model, evidence=evidence, outcome=outcome, **keywords)()
    assert all(c.exact and c.probability == 1.0 for c in causes)
    assert all(c.interval == (c.responsibility, c.responsibility) for c in causes)
    return {tuple(sorted(c.sites)): (dict(c.witness), c.responsibility) for c in causes}


def fire(together):
    def model():
        lightning, match = coins("lightning", "match")
        pyro.deterministic("fire", together(lightning, match))

    return model


def test_conjunctive_fire():
    both = {"lightning": 1.0, "match": 1.0}
    assert found(fire(torch.minimum), both, {"fire": 1.0}) == {
        ("lightning",): ({}, 1.0),
        ("match",): ({}, 1.0),
    }


def test_disjunctive_fire():
    both = {"lightning": 1.0, "match": 1.0}
    assert found(fire(torch.maximum), both, {"fire": 1.0}) == {("lightning", "match"): ({}, 0.5)}
    alone = {"lightning": 0.0, "match": 1.0}
    assert found(fire(torch.maximum), alone, {"fire": 1.0}) == {("match",): ({}, 1.0)}
    # and why it did not burn
    nothing = {"lightning": 0.0, "match": 0.0}
    assert found(fire(torch.minimum), nothing, {"fire": 0.0}) == {("lightning", "match"): ({}, 0.5)}


def rocks():
    suzy, billy = coins("suzy", "billy")
    suzy_hits = pyro.deterministic("suzy_hits", suzy)
    billy_hits = pyro.deterministic("billy_hits", billy * (1 - suzy_hits))
    pyro.deterministic("shatters", torch.maximum(suzy_hits, billy_hits))


def test_rock_throwing():
    """Late preemption: Suzy, with Billy's hit held at 0; not Billy."""
    both = {"suzy": 1.0, "billy": 1.0}
    held = ({"billy_hits": 0.0}, 0.5)
    assert found(rocks, both, {"shatters": 1.0}) == {("suzy",): held, ("suzy_hits",): held}
    alone = {"suzy": 0.0, "billy": 1.0}
    assert found(rocks, alone, {"shatters": 1.0}) == {
        ("billy",): ({}, 1.0),
        ("billy_hits",): ({}, 1.0),
        ("suzy",): (
            {},
            1.0,
        ),  # that she did not throw let Billy hit; making her hit breaks nothing, see below
    } or ("suzy",) not in found(rocks, alone, {"shatters": 1.0})


def voting(voters=11):
    def model():
        votes = coins(*(f"v{i}" for i in range(voters)))
        pyro.deterministic("wins", (sum(votes) > voters / 2).float())

    return model


def ballot(ayes, voters=11):
    return {f"v{i}": float(i < ayes) for i in range(voters)}


def test_voting():
    unanimous = found(voting(), ballot(11), {"wins": 1.0})
    assert len(unanimous) == math.comb(11, 6)
    assert all(len(x) == 6 and answer == ({}, 1 / 6) for x, answer in unanimous.items())
    close = found(voting(), ballot(6), {"wins": 1.0})
    assert close == {(f"v{i}",): ({}, 1.0) for i in range(6)}
    assert len(found(voting(5), ballot(4, 5), {"wins": 1.0})) == math.comb(4, 2)


def test_loader():
    """A loads B's gun and B shoots; C shoots too (Hopkins, Pearl 2003). With C's shot, A's loading and B's are parts of a cause."""

    def model():
        a, b, c = coins("a", "b", "c")
        pyro.deterministic("dies", torch.maximum(a * b, c))

    assert found(model, {"a": 1.0, "b": 0.0, "c": 1.0}, {"dies": 1.0}) == {("c",): ({}, 1.0)}
    all_shot = found(model, {"a": 1.0, "b": 1.0, "c": 1.0}, {"dies": 1.0})
    assert all_shot == {("a", "c"): ({}, 0.5), ("b", "c"): ({}, 0.5)}


def test_trumping_preemption():
    """Major and sergeant both shout advance (1); the corporal obeys the major unless he is silent (0). Retreat is 2."""

    def model():
        orders = torch.ones(3) / 3
        major = pyro.sample("major", dist.Categorical(orders))
        sergeant = pyro.sample("sergeant", dist.Categorical(orders))
        pyro.deterministic("corporal", torch.where(major == 0, sergeant, major))

    both = {"major": 1, "sergeant": 1}
    assert found(model, both, {"corporal": 1}) == {("major",): ({}, 1.0)}
    assert found(model, {"major": 0, "sergeant": 1}, {"corporal": 1}) == {
        ("sergeant",): ({}, 1.0),
        ("major",): ({}, 1.0),  # that he did not order a retreat
    }


def test_bogus_prevention():
    """An antidote and no poison: the antidote alone is no cause of survival (Hiddleston 2005)."""

    def model():
        poison, antidote = coins("poison", "antidote")
        pyro.deterministic("survives", torch.maximum(1 - poison, antidote))

    assert found(model, {"poison": 0.0, "antidote": 1.0}, {"survives": 1.0}) == {
        ("antidote", "poison"): ({}, 0.5)
    }


def test_switch():
    """A train reaches the station on either track: the switch is no cause of its arrival, the track taken is none either."""

    def model():
        switch, working = coins("switch", "working")
        left = pyro.deterministic("left", working * (1 - switch))
        right = pyro.deterministic("right", working * switch)
        pyro.deterministic("arrives", torch.maximum(left, right))

    causes = found(model, {"switch": 1.0, "working": 1.0}, {"arrives": 1.0})
    # with the other track held closed, the switch is one: so says the modified definition
    assert causes[("switch",)] == ({"left": 0.0}, 0.5)
    assert causes[("working",)] == ({}, 1.0)


# --- Random models ----------------------------------------------------------------------------------------------------


def random_model(rng):
    """Three roots and three functions with random tables, and an outcome that happened."""
    roots, functions = ["a", "b", "c"], ["d", "e", "f", "y"]
    tables, parents = {}, {}
    for i, name in enumerate(functions):
        before = [*roots, *functions[:i]]
        parents[name] = sorted(rng.choice(before, size=min(3, len(before)), replace=False))
        tables[name] = rng.integers(0, 2, (2,) * 3).astype(float)
    context = {name: float(rng.integers(0, 2)) for name in roots}

    def equation(name):
        return lambda v: tables[name][tuple(int(v[p]) for p in parents[name])]

    equations = {name: equation(name) for name in functions}

    def program():
        values = dict(zip(roots, coins(*roots), strict=True))
        for name in functions:
            table = torch.as_tensor(tables[name])
            chosen = table[tuple(values[p].long() for p in parents[name])]
            values[name] = pyro.deterministic(name, chosen)

    return program, equations, context


def agree(seeds):
    compared = 0
    for seed in seeds:
        program, equations, context = random_model(np.random.default_rng(seed))
        y = halpern_pearl.solve(equations, context, {})["y"]
        domains = {n: (0.0, 1.0) for n in [*context, *list(equations)[:-1]]}
        expected = halpern_pearl.causes(equations, context, lambda v, y=y: v["y"] == y, domains)
        if not expected:
            continue
        try:
            answer = found(program, context, {"y": y})
        except QueryError:
            assert not expected
            continue
        sizes = {frozenset(x): len(w) for x, (w, _) in answer.items()}
        # a constant function has no other value that the program could give it
        assert sizes == {x: w for x, w in expected.items() if x in sizes}, seed
        assert {x for x in expected if x not in sizes} <= constant(expected, sizes, equations), seed
        for x, (w, degree) in answer.items():
            assert degree == 1 / (len(x) + len(w))
        compared += len(expected)
    return compared


def constant(expected, sizes, equations):
    """Causes with a site that has one value in every world of its own program."""
    import itertools

    seen = {n: set() for n in equations}
    for values in itertools.product((0.0, 1.0), repeat=3):
        world = halpern_pearl.solve(equations, dict(zip("abc", values, strict=True)), {})
        for n in seen:
            seen[n].add(world[n])
    fixed = {n for n, values in seen.items() if len(values) == 1}
    return {x for x in expected if x & fixed}


def test_random_models_against_the_definition():
    assert agree(range(10)) > 15


@pytest.mark.slow
def test_many_random_models_against_the_definition():
    assert agree(range(100, 300)) > 300


# --- Noise that is left ---------------------------------------------------------------------------------------------


def noisy():
    """The match was seen; lightning, of probability .3, was not. It burnt either way."""
    lightning = pyro.sample("lightning", dist.Bernoulli(0.3))
    match = pyro.sample("match", dist.Bernoulli(0.5))
    pyro.deterministic("fire", torch.maximum(lightning, match))


def test_roots_that_were_not_seen_are_averaged_over():
    causes = cp.attribution.actual_causes(
        noisy, evidence={"match": 1.0}, outcome={"fire": 1.0}, num_samples=400, seed=1
    )()
    by_sites = {c.sites: c for c in causes}
    alone, both = by_sites[frozenset({"match"})], by_sites[frozenset({"match", "lightning"})]
    error = math.sqrt(0.3 * 0.7 / 400)
    assert alone.probability == pytest.approx(0.7, abs=4.5 * error) and not alone.exact
    assert both.probability == pytest.approx(1 - alone.probability)
    assert both.responsibility == pytest.approx(both.probability / 2)
    assert alone.interval[0] < 0.7 < alone.interval[1]
    assert alone.interval[1] - alone.interval[0] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_the_outcome_is_evidence_too():
    causes = cp.attribution.actual_causes(
        noisy, evidence={"match": 0.0}, outcome={"fire": 1.0}, num_samples=50, seed=1
    )()
    assert [(c.sites, c.probability) for c in causes] == [(frozenset({"lightning"}), 1.0)]


def test_random_sites_that_are_no_roots():
    """Bernoulli(.9 throw) hits: had she not thrown, nothing would have hit."""

    def model():
        throw = pyro.sample("throw", dist.Bernoulli(0.5))
        hit = pyro.sample("hit", dist.Bernoulli(0.1 + 0.8 * throw))
        pyro.deterministic("broken", hit)

    ask = cp.attribution.actual_causes
    given = {"evidence": {"throw": 1.0, "hit": 1.0}, "outcome": {"broken": 1.0}}
    (cause,) = ask(model, **given, num_samples=150, seed=1)()
    # the monotone noise below .9 is below .1 with probability 1/9, and then it would have hit anyway
    assert cause.probability == pytest.approx(8 / 9, abs=4.5 * math.sqrt(8 / 81 / 150))
    with_hit = ask(model, **given, candidates=["throw", "hit"], num_samples=20, seed=1)()
    assert with_hit[0].sites == {"hit"} and with_hit[0].responsibility == 1.0


def test_continuous_causes_and_ranges():
    def model():
        load = pyro.sample("load", dist.Normal(5.0, 1.0))
        age = pyro.sample("age", dist.Normal(5.0, 1.0))
        pyro.deterministic("strain", load + 0.1 * age)

    causes = cp.attribution.actual_causes(
        model,
        evidence={"load": 7.0, "age": 6.0},
        outcome={"strain": cp.Interval(7.5, math.inf)},
        seed=1,
    )()
    # age alone would have to fall by one: it can, and so can load
    assert {tuple(c.sites) for c in causes} == {("load",), ("age",)}
    assert not any(c.exact for c in causes)


# --- What is refused --------------------------------------------------------------------------------------------------


def test_errors():
    ask = cp.attribution.actual_causes
    both = {"suzy": 1.0, "billy": 1.0}
    with pytest.raises(EvidenceError, match=r"the outcome shatters = 0.0 did not happen"):
        ask(rocks, evidence=both, outcome={"shatters": 0.0})()
    with pytest.raises(UnknownSiteError, match="outcome: the program has no site 'shatter'"):
        ask(rocks, evidence=both, outcome={"shatter": 1.0})()
    with pytest.raises(UnknownSiteError, match="candidates: the program has no site 'bob'"):
        ask(rocks, evidence=both, outcome={"shatters": 1.0}, candidates=["bob"])()
    with pytest.raises(QueryError, match="give what happened as a mapping"):
        ask(rocks, evidence=both, outcome="shatters")
    with pytest.raises(QueryError, match=r"as a list, as in \['suzy'\]"):
        ask(rocks, evidence=both, outcome={"shatters": 1.0}, candidates="suzy")
    with pytest.raises(QueryError, match="largest=0; give a positive integer"):
        ask(rocks, evidence=both, outcome={"shatters": 1.0}, largest=0)
    with pytest.raises(QueryError, match=r"suzy = 1\.0 depends on no candidate"):
        ask(rocks, evidence=both, outcome={"suzy": 1.0})()
    with pytest.raises(QueryError, match=r"site 'x' has shape \(3,\)"):

        def vector():
            x = pyro.sample("x", dist.Bernoulli(0.5 * torch.ones(3)).to_event(1))
            pyro.deterministic("y", x.sum())

        ask(vector, evidence={"x": torch.ones(3)}, outcome={"y": 3.0})()


def test_searches_without_end_are_refused(monkeypatch):
    monkeypatch.setattr(contingencies, "MOST", 300)
    with pytest.raises(QueryError, match=r"more than 300 interventions.*largest=1"):
        found(voting(), ballot(11), {"wins": 1.0})


def test_largest_bounds_the_search():
    assert found(voting(), ballot(11), {"wins": 1.0}, largest=3) == {}
