"""Bounds over couplings against closed forms, explicit couplings and independent searches, on tables."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from coupling_tables import (
    Tables,
    antitone,
    comonotone,
    gumbel_max,
    independent,
    response_law,
    truth,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from causalppl.errors import (
    ImpossibleEvidenceError,
    IncompatibleMechanismError,
    MethodError,
    UnknownSiteError,
)
from causalppl.notation.parser import parse
from causalppl.notation.terms import Outcome, Setting
from causalppl.query.response_bounds import QueryBounds
from causalppl.query.response_polynomials import CouplingPolynomials
from causalppl.query.response_programs import CouplingProgram
from causalppl.query.response_relaxation import JointLaws
from causalppl.query.response_types import blocks_of

PNS = "P(y[x=1]=1, y[x=0]=0)"
PN = "P(y[x=0]=0 | x=1, y=1)"
PS = "P(y[x=1]=1 | x=0, y=0)"


def solve(text, program, **options):
    return QueryBounds(program, **options).extremes(parse(text))


def in_world(site, **values):
    return Outcome(site, tuple(Setting(s, v) for s, v in sorted(values.items())))


def exogenous(p, p0, p1):
    return Tables(x=((), lambda: p), y=(("x",), lambda x: (p0, p1)[int(x)]))


def confounded(u, x, y):
    """x and y share the latent u."""
    return Tables(
        u=((), lambda: u),
        x=(("u",), lambda a: x[int(a)]),
        y=(("u", "x"), lambda a, b: y[int(a)][int(b)]),
    )


def mediated(m, y, x=0.5):
    return Tables(
        x=((), lambda: x),
        m=(("x",), lambda a: m[int(a)]),
        y=(("x", "m"), lambda a, b: y[int(a)][int(b)]),
    )


class TestTianPearl:
    @given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
    @settings(deadline=None, max_examples=25)
    def test_exogenous_treatment(self, p, p0, p1):
        program = exogenous(p, p0, p1)
        pns, pn, ps = (solve(text, program) for text in (PNS, PN, PS))
        assert pns.low == pytest.approx(max(0, p1 - p0), abs=1e-9)
        assert pns.high == pytest.approx(min(p1, 1 - p0), abs=1e-9)
        assert pn.low == pytest.approx(max(0, p1 - p0) / p1, abs=1e-9)
        assert pn.high == pytest.approx(min(1, (1 - p0) / p1), abs=1e-9)
        assert ps.low == pytest.approx(max(0, p1 - p0) / (1 - p0), abs=1e-9)
        assert ps.high == pytest.approx(min(1, p1 / (1 - p0)), abs=1e-9)
        assert pns.sharp and pn.sharp and ps.sharp

    @given(st.lists(st.floats(0.05, 0.95), min_size=5, max_size=5))
    @settings(deadline=None, max_examples=25)
    def test_natural_choice_as_the_confounder(self, numbers):
        # The experiment gives P(y_x), the observation P(x, y); the latent is what the unit chooses by itself.
        chooses, a, b, c, d = numbers
        y = ((a, b), (c, d))  # y[choice][treatment]
        program = confounded(chooses, (0.0, 1.0), y)
        one = [(1 - chooses) * y[0][x] + chooses * y[1][x] for x in (0, 1)]  # P(y_x)
        p11, p10 = chooses * d, chooses * (1 - d)  # P(x, y), P(x, y')
        p01, p00 = (1 - chooses) * a, (1 - chooses) * (1 - a)  # P(x', y), P(x', y')
        py = p11 + p01
        pns, pn, ps = (solve(text, program) for text in (PNS, PN, PS))
        assert pns.low == pytest.approx(max(0, one[1] - one[0], py - one[0], one[1] - py), abs=1e-9)
        assert pns.high == pytest.approx(
            min(one[1], 1 - one[0], p11 + p00, one[1] - one[0] + p10 + p01), abs=1e-9
        )
        assert pn.low == pytest.approx(max(0, (py - one[0]) / p11), abs=1e-9)
        assert pn.high == pytest.approx(min(1, (1 - one[0] - p00) / p11), abs=1e-9)
        assert ps.low == pytest.approx(max(0, (one[1] - py) / p00), abs=1e-9)
        assert ps.high == pytest.approx(min(1, (one[1] - p11) / p00), abs=1e-9)

    @given(st.lists(st.floats(0.05, 0.95), min_size=7, max_size=7))
    @settings(deadline=None, max_examples=25)
    def test_known_confounder_stratum_by_stratum(self, n):
        program = confounded(n[0], n[1:3], (n[3:5], n[5:7]))
        weight = (1 - n[0], n[0])
        found = solve(PNS, program)
        assert found.low == pytest.approx(
            sum(w * max(0, y[1] - y[0]) for w, y in zip(weight, (n[3:5], n[5:7]), strict=True))
        )
        assert found.high == pytest.approx(
            sum(w * min(y[1], 1 - y[0]) for w, y in zip(weight, (n[3:5], n[5:7]), strict=True))
        )

    def test_drug_lawsuit(self):
        program = confounded(0.5, (0.0, 1.0), ((0.028, 0.030), (0.0, 0.002)))
        pns, pn, ps = (solve(text, program) for text in (PNS, PN, PS))
        assert (pns.low, pns.high) == pytest.approx((0.002, 0.016), abs=1e-9)
        assert (pn.low, pn.high) == pytest.approx((1.0, 1.0), abs=1e-9)
        assert (ps.low, ps.high) == pytest.approx((0.002 / 0.972, 0.03 / 0.972), abs=1e-9)

    def test_leukaemia_is_identified_by_monotonicity(self):
        exposed, other = 30 / 69160, 16 / 59026
        program = exogenous(0.5, other, exposed)
        found = {t: solve(t, program, monotone=["y"]) for t in (PNS, PN, PS)}
        assert all(b.sharp and b.high - b.low < 1e-9 for b in found.values())
        assert found[PN].low == pytest.approx(0.3751, abs=5e-5)
        assert found[PS].low == pytest.approx(0.00016275, abs=5e-9)
        assert found[PNS].low == pytest.approx(0.00016271, abs=5e-9)
        assert solve(PN, program).high == pytest.approx(1.0)


class TestRungsOneAndTwo:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("P(y=1)", 0.52 * 0.5 + 0.5 * 0.5),
            ("E[y | do(x=1)]", 0.5),
            ("E[y[x=1]] - E[y[x=0]]", -0.02),
            ("E[y[x=1] - y[x=0]]", -0.02),
            ("E[y[x=1, m=m[x=0]]]", 0.6 * 0.6 + 0.4 * 0.4),
            ("P(y=1 | m=1, x=0)", 0.4),
            ("P(m[x=1]=1 | x=0)", 0.5),
            ("2 * P(x=1) / 4", 0.25),
        ],
    )
    def test_one_value(self, text, value):
        program = mediated((0.4, 0.5), ((0.6, 0.4), (0.6, 0.4)))
        value = 0.51 if text == "P(y=1)" else value
        found = solve(text, program)
        assert found.low == pytest.approx(value, abs=1e-12)
        assert found.high - found.low <= 1e-12 and found.sharp


class TestMediation:
    """x -> m -> y with x -> y: the couplings of m and of y are independent of each other."""

    def joint_laws(self, m, y):
        """The range over joint laws of both responses that reproduce P(m, y | x), independence forgotten."""
        types = list(
            itertools.product(
                itertools.product((0, 1), repeat=2), itertools.product((0, 1), repeat=4)
            )
        )
        rows, right = [], []
        for x, a, b in itertools.product((0, 1), repeat=3):
            rows.append([float(rm[x] == a and ry[2 * x + a] == b) for rm, ry in types])
            right.append((m[x] if a else 1 - m[x]) * (y[x][a] if b else 1 - y[x][a]))
        cost = np.array([float(ry[2 + rm[1]] == 1 and ry[rm[0]] == 0) for rm, ry in types])
        ends = [linprog(s * cost, A_eq=rows, b_eq=right).fun for s in (1, -1)]
        return ends[0], -ends[1]

    def searched(self, m, y, steps=101):
        """A grid over the couplings of m, which have one degree of freedom, and a linear program for y at each."""
        types = list(itertools.product((0, 1), repeat=4))  # y at (x, m) = 00, 01, 10, 11
        rows = [[float(t[i]) for t in types] for i in range(4)] + [[1.0] * 16]
        right = [y[0][0], y[0][1], y[1][0], y[1][1], 1.0]
        both = np.linspace(max(0, m[0] + m[1] - 1), min(m), steps)  # P(m[x=0] = m[x=1] = 1)
        low, high = math.inf, -math.inf
        for s in both:
            pair = {(1, 1): s, (1, 0): m[0] - s, (0, 1): m[1] - s, (0, 0): 1 - m[0] - m[1] + s}
            cost = np.array(
                [sum(p for (a, b), p in pair.items() if t[2 + b] == 1 and t[a] == 0) for t in types]
            )
            low = min(low, linprog(cost, A_eq=rows, b_eq=right).fun)
            high = max(high, -linprog(-cost, A_eq=rows, b_eq=right).fun)
        return low, high

    def test_joint_laws_are_looser_than_independent_responses(self):
        m, y = (0.4, 0.5), ((0.8, 0.1), (0.6, 0.7))
        assert self.joint_laws(m, y) == pytest.approx((0.13, 0.48), abs=1e-9)
        assert self.searched(m, y) == pytest.approx((0.20, 0.40), abs=1e-9)
        found = solve(PNS, mediated(m, y))
        assert (found.low, found.high) == pytest.approx((0.20, 0.40), abs=1e-9)
        assert found.sharp

    @pytest.mark.parametrize("seed", range(6))
    def test_against_a_grid_of_couplings(self, seed):
        numbers = np.random.default_rng(seed).uniform(0.02, 0.98, 6)
        m, y = numbers[:2], numbers[2:].reshape(2, 2)
        found = solve(PNS, mediated(m, y))
        assert (found.low, found.high) == pytest.approx(self.searched(m, y, 21), abs=1e-8)
        assert found.sharp

    def test_against_random_couplings(self):
        m, y = (0.4, 0.5), ((0.8, 0.1), (0.6, 0.7))
        found = solve(PNS, mediated(m, y))
        rng = np.random.default_rng(3)
        types = np.array(list(itertools.product((0, 1), repeat=4)))
        seen = []
        for _ in range(300):
            # A random law of the four responses: each configuration's own uniform, or a shared one, or a reflected one.
            u = rng.random((2000, 4))
            shared = rng.integers(0, 4, 4)
            u = np.where(rng.random(4) < 0.5, 1 - u[:, shared], u[:, shared])
            ry = u < np.array([y[0][0], y[0][1], y[1][0], y[1][1]])
            p = np.array([(ry == t).all(1).mean() for t in types])
            s = rng.uniform(max(0, sum(m) - 1), min(m))
            pair = {(1, 1): s, (1, 0): m[0] - s, (0, 1): m[1] - s, (0, 0): 1 - sum(m) + s}
            seen.append(
                sum(
                    q * p[(types[:, 2 + b] == 1) & (types[:, a] == 0)].sum()
                    for (a, b), q in pair.items()
                )
            )
        error = 4 * 0.5 / math.sqrt(2000)
        assert found.low - error < min(seen) and max(seen) < found.high + error
        assert min(seen) < 0.27 and max(seen) > 0.33  # the couplings do differ

    def test_two_mediators_need_the_search(self):
        # Here the outer bound is not attained: its laws tie the three sites' responses.
        rng = np.random.default_rng(2)
        a, b, c = rng.random(2), rng.random((2, 2)), rng.random((2, 2, 2))
        program = Tables(
            x=((), lambda: 0.5),
            m=(("x",), lambda x: a[int(x)]),
            n=(("x", "m"), lambda x, m: b[int(x), int(m)]),
            y=(("x", "m", "n"), lambda x, m, n: c[int(x), int(m), int(n)]),
        )
        outer = solve(PNS, program, exact=False)
        assert not outer.sharp
        laws = {s: response_law(program, s, comonotone) for s in program.sites}
        value = truth(
            program,
            laws,
            lambda v: float(v(in_world("y", x=1)) == 1 and v(in_world("y", x=0)) == 0),
        )
        assert outer.low - 1e-9 <= value <= outer.high + 1e-9


def explicit(program, weight, condition=lambda value: True):
    """The value under each of several couplings, and its Monte Carlo error."""
    for name, joint in (
        ("comonotone", comonotone),
        ("antitone", antitone),
        ("independent", independent),
        ("gumbel_max", gumbel_max),
    ):
        laws = {s: response_law(program, s, joint) for s in program.sites}
        # roots are not coupled, and keep their exact law
        for site in program.sites:
            if not program.parents[site]:
                laws[site] = response_law(program, site, independent)
        yield name, truth(program, laws, weight, condition), 0.04 if name == "gumbel_max" else 1e-9


def random_program(data, size):
    simplex = st.lists(st.floats(0.05, 1.0), min_size=size, max_size=size).map(
        lambda v: np.array(v) / sum(v)
    )
    x = data.draw(simplex)
    y = [data.draw(simplex) for _ in range(size)]
    return Tables(x=((), lambda: x), y=(("x",), lambda a: y[int(a)])), x, y


class TestExplicitCouplings:
    @given(st.data(), st.integers(2, 3))
    @settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
    def test_one_coupled_site(self, data, size):
        program, _, _ = random_program(data, size)
        last = size - 1
        cases = [
            (
                f"P(y[x={last}] > y[x=0])",
                lambda v: float(v(in_world("y", x=last)) > v(in_world("y", x=0))),
                lambda v: True,
            ),
            (
                f"E[y[x={last}] * y[x=0] | x=0, y>=1]",
                lambda v: v(in_world("y", x=last)) * v(in_world("y", x=0)),
                lambda v: v(Outcome("x")) == 0 and v(Outcome("y")) >= 1,
            ),
            (
                # the probability of this condition depends on the coupling
                f"E[y | y[x={last}] != y[x=0]]",
                lambda v: v(Outcome("y")),
                lambda v: v(in_world("y", x=last)) != v(in_world("y", x=0)),
            ),
        ]
        for text, weight, condition in cases:
            found = solve(text, program)
            assert found.sharp
            for name, value, error in explicit(program, weight, condition):
                if math.isnan(value) or (name == "gumbel_max" and "!=" in text):
                    continue  # impossible under this coupling, or too rare for simulation
                assert found.low - error <= value <= found.high + error, (text, name)

    @given(st.data())
    @settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
    def test_two_coupled_sites(self, data):
        unit = st.floats(0.05, 0.95)
        n = [data.draw(unit) for _ in range(6)]
        program = mediated(n[:2], (n[2:4], n[4:6]))
        cases = [
            (
                PNS,
                lambda v: float(v(in_world("y", x=1)) == 1 and v(in_world("y", x=0)) == 0),
                lambda v: True,
            ),
            (
                "P(y[x=0]=0 | x=1, y=1, m[x=0]=1)",
                lambda v: float(v(in_world("y", x=0)) == 0),
                lambda v: (v(Outcome("x")), v(Outcome("y")), v(in_world("m", x=0))) == (1, 1, 1),
            ),
        ]
        for text, weight, condition in cases:
            found, outer = solve(text, program), solve(text, program, exact=False)
            assert found.sharp
            assert outer.low <= found.low + 1e-9 and found.high <= outer.high + 1e-9
            for name, value, error in explicit(program, weight, condition):
                assert found.low - error <= value <= found.high + error, (text, name)

    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_an_explicit_coupling_attains_the_bound(self, seed, sign):
        rng = np.random.default_rng(seed)
        x, y = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), 3)
        program = Tables(x=((), lambda: x), y=(("x",), lambda a: y[int(a)]))
        make = CouplingPolynomials(program)
        term = parse("E[y[x=2] * y[x=0] | y[x=1] >= 1, y[x=2] != y[x=1]]")
        top = make.polynomial(term.expression, term.given)
        bottom = make.polynomial(None, term.given)
        blocks = blocks_of([f for m in (*top, *bottom) for f in m], make.tables)
        (block,) = set(blocks.values())
        signed = {m: sign * c for m, c in top.items()}
        end, laws = JointLaws(CouplingProgram(blocks), [top, bottom]).least(signed, bottom)
        law = laws[block]
        for i, config in enumerate(block.configs):
            marginal = np.zeros(3)
            for values, p in zip(block.types, law, strict=True):
                marginal[int(values[i])] += p
            assert marginal == pytest.approx(y[int(config[0])], abs=1e-8)
        responses = {
            tuple(zip(block.configs, values, strict=True)): p
            for values, p in zip(block.types, law, strict=True)
            if p > 0
        }
        value = truth(
            program,
            {"x": response_law(program, "x", independent), "y": responses},
            lambda v: v(in_world("y", x=2)) * v(in_world("y", x=0)),
            lambda v: v(in_world("y", x=1)) >= 1 and v(in_world("y", x=2)) != v(in_world("y", x=1)),
        )
        assert value == pytest.approx(sign * end, abs=1e-7)

    @pytest.mark.parametrize("seed", range(4))
    def test_ratio_against_every_vertex(self, seed):
        # Three worlds of a binary site: 8 types, 4 equations. The least ratio lies at a vertex.
        p = np.random.default_rng(seed).uniform(0.1, 0.9, 3)
        program = Tables(x=((), lambda: (0.2, 0.3, 0.5)), y=(("x",), lambda a: p[int(a)]))
        found = solve("P(y[x=2]=1 | y[x=1]=1, y[x=0]=0)", program)
        types = np.array(list(itertools.product((0, 1), repeat=3)))
        rows = np.vstack([types.T, np.ones(8)])
        right = np.append(p, 1.0)
        condition = (types[:, 1] == 1) & (types[:, 0] == 0)
        ratios = []
        for basis in itertools.combinations(range(8), 4):
            square = rows[:, basis]
            if abs(np.linalg.det(square)) < 1e-9:
                continue
            law = np.zeros(8)
            law[list(basis)] = np.linalg.solve(square, right)
            if law.min() > -1e-12 and law[condition].sum() > 1e-9:
                ratios.append(law[condition & (types[:, 2] == 1)].sum() / law[condition].sum())
        assert (found.low, found.high) == pytest.approx((min(ratios), max(ratios)), abs=1e-8)

    def test_dinkelbach_and_charnes_cooper_agree(self):
        program = mediated((0.3, 0.8), ((0.2, 0.6), (0.5, 0.9)))
        make = CouplingPolynomials(program)
        term = parse("P(y[x=0]=0 | x=1, y=1, m[x=0]=1)")
        top, bottom = (
            make.polynomial(None, (*term.event, *term.given)),
            make.polynomial(None, term.given),
        )
        blocks = blocks_of([f for m in (*top, *bottom) for f in m], make.tables)
        solver = CouplingProgram(blocks)
        relaxed = JointLaws(solver, [top, bottom]).least(top, bottom)[0]
        assert solver._ratio(top, bottom) == pytest.approx(relaxed, abs=1e-8)


class TestMonotone:
    def test_chain_is_identified(self):
        program = mediated((0.3, 0.6), ((0.2, 0.5), (0.4, 0.7)))
        effect = 0.4 * 0.4 + 0.6 * 0.7 - (0.7 * 0.2 + 0.3 * 0.5)
        found = solve(PNS, program, monotone=["m", "y"])
        assert (found.low, found.high) == pytest.approx((effect, effect), abs=1e-8)
        some = solve(PNS, program, monotone=["y"])
        free = solve(PNS, program)
        assert free.low - 1e-9 <= some.low <= some.high < free.high - 0.1

    def test_ternary_against_a_linear_program_over_monotone_pairs(self):
        low, high = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
        program = Tables(x=((), lambda: 0.5), y=(("x",), lambda a: (low, high)[int(a)]))
        pairs = [(a, b) for a in range(3) for b in range(a, 3)]
        rows = [[float(a == v) for a, _ in pairs] for v in range(3)]
        rows += [[float(b == v) for _, b in pairs] for v in range(3)]
        cost = np.array([float(a < b) for a, b in pairs])
        ends = [linprog(s * cost, A_eq=rows, b_eq=[*low, *high]).fun for s in (1, -1)]
        found = solve("P(y[x=1] > y[x=0])", program, monotone=["y"])
        assert (found.low, found.high) == pytest.approx((ends[0], -ends[1]), abs=1e-8)

    def test_a_parent_that_does_not_change_is_not_constrained(self):
        # y falls in u, which both worlds share
        program = confounded(0.5, (0.3, 0.7), ((0.6, 0.8), (0.1, 0.3)))
        found = solve(PNS, program, monotone=["y"])
        assert (found.low, found.high) == pytest.approx((0.2, 0.2), abs=1e-8)

    def test_contradicted_by_the_program(self):
        with pytest.raises(IncompatibleMechanismError, match=r"P\(y >= 1\) falls from 0.8 to 0.4"):
            solve(PNS, exogenous(0.5, 0.8, 0.4), monotone=["y"])

    def test_contradicted_at_a_value_that_is_certain(self):
        with pytest.raises(IncompatibleMechanismError, match="leave 'y' out of assume"):
            solve("P(y[x=0] > y[x=1])", exogenous(0.5, 1.0, 0.4), monotone=["y"])

    def test_two_parents_rise_together(self):
        y = {(0, 0): 0.2, (0, 1): 0.5, (1, 0): 0.3, (1, 1): 0.6}
        program = Tables(
            x=((), lambda: 0.5), w=((), lambda: 0.5), y=(("x", "w"), lambda a, b: y[a, b])
        )
        found = solve("P(y[x=1, w=1]=1, y[x=0, w=0]=0)", program, monotone=["y"])
        assert (found.low, found.high) == pytest.approx((0.4, 0.4), abs=1e-8)
        # (0, 1) and (1, 0) are not comparable
        found = solve("P(y[x=1, w=0]=1, y[x=0, w=1]=0)", program, monotone=["y"])
        assert (found.low, found.high) == pytest.approx((0.0, 0.3), abs=1e-8)


class TestConditions:
    def test_impossible(self):
        program = exogenous(0.5, 0.0, 0.4)
        with pytest.raises(ImpossibleEvidenceError, match="probability zero"):
            solve("P(y[x=1]=1 | x=0, y=1)", program)

    def test_impossible_under_the_assumption_only(self):
        program = exogenous(0.5, 0.3, 0.6)
        text = "P(x=1 | y[x=0]=1, y[x=1]=0)"
        assert solve(text, program).low == pytest.approx(0.5)
        with pytest.raises(ImpossibleEvidenceError, match="every coupling"):
            solve(text, program, monotone=["y"])

    def test_rare_condition(self):
        program = exogenous(1e-6, 1e-5, 2e-5)
        found = solve(PN, program)
        assert (found.low, found.high) == pytest.approx((0.5, 1.0), abs=1e-8)

    def test_unknown_site(self):
        with pytest.raises(UnknownSiteError, match="did you mean 'y'"):
            solve("P(yy[x=1]=1)", exogenous(0.5, 0.3, 0.6))

    def test_division_by_a_site_that_can_be_zero(self):
        with pytest.raises(MethodError, match="divides by a site"):
            solve("E[y[x=1] / y[x=0]]", exogenous(0.5, 0.3, 0.6))


class TestArithmetic:
    def test_terms_of_one_difference_share_their_coupling(self):
        # benefit minus harm is the average effect, whatever the coupling
        found = solve("P(y[x=1]=1, y[x=0]=0) - P(y[x=1]=0, y[x=0]=1)", exogenous(0.5, 0.3, 0.6))
        assert (found.low, found.high) == pytest.approx((0.3, 0.3), abs=1e-9)
        assert found.sharp

    def test_ratio_of_two_terms(self):
        program = exogenous(0.5, 0.3, 0.6)
        found = solve("P(y[x=1]=1, y[x=0]=0) / P(y[x=1] != y[x=0])", program)
        # with t = P(1, 1): benefit .6 - t, harm .3 - t, t in [0, .3]
        assert (found.low, found.high) == pytest.approx((0.6 / 0.9, 1.0), abs=1e-8)
        assert found.sharp

    def test_several_conditions_are_bounded_one_by_one(self):
        program = exogenous(0.5, 0.3, 0.6)
        pn, ps = solve(PN, program), solve(PS, program)
        found = solve(f"{PN} * {PS}", program)
        assert (found.low, found.high) == pytest.approx((pn.low * ps.low, pn.high * ps.high))
        assert not found.sharp

    def test_sum_of_two_conditions_with_fixed_probability_is_one_program(self):
        program = exogenous(0.5, 0.3, 0.6)
        found = solve(f"{PN} - {PS}", program)
        # PN = b / .6, PS = b / .7 with b = PNS in [.3, .6]
        assert (found.low, found.high) == pytest.approx(
            (0.3 / 0.6 - 0.3 / 0.7, 0.6 / 0.6 - 0.6 / 0.7), abs=1e-8
        )
        assert found.sharp

    def test_nothing_is_known_of_a_quotient_by_zero(self):
        found = solve("1 / (P(y[x=1]=1, y[x=0]=0) - 0.4)", exogenous(0.5, 0.3, 0.6))
        assert (found.low, found.high) == (-math.inf, math.inf) and not found.sharp


class TestLargePrograms:
    def test_too_many_types_give_an_outer_bound(self):
        # y has 2 x 12 configurations, too many types to list; the pairs that are shown together still bind
        rng = np.random.default_rng(0)
        m, y = rng.dirichlet(np.ones(12), 2), rng.uniform(0.1, 0.3, (2, 12))
        y[1] += 0.6
        program = Tables(
            x=((), lambda: 0.5),
            m=(("x",), lambda a: m[int(a)]),
            y=(("x", "m"), lambda a, b: y[int(a), int(b)]),
        )
        found = solve(PNS, program)
        assert not found.sharp
        effect = m[1] @ y[1] - m[0] @ y[0]
        assert 0 < found.low <= effect + 1e-9
        laws = {s: response_law(program, s, comonotone) for s in program.sites}
        value = truth(
            program,
            laws,
            lambda v: float(v(in_world("y", x=1)) == 1 and v(in_world("y", x=0)) == 0),
        )
        assert found.low - 1e-9 <= value <= found.high + 1e-9 < 1
