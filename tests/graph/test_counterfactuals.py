"""Identification of counterfactuals: published verdicts, enumeration of noise, and pairs of models that agree on data."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from formula_values import evaluate
from noise_models import NoiseModel
from scipy.optimize import linprog
from test_identification import arrows

from causalppl.errors import EvidenceError, GraphError, QueryError, UnknownSiteError
from causalppl.graph import CausalGraph, Conflict, Hedge
from causalppl.graph.formula import free

# --- Published verdicts -----------------------------------------------------------------------------------------------

#: name: (arrows, latent, question, identified from data, identified from experiments)
PUBLISHED = {
    # Shpitser and Pearl (2008), the running example of ID* and IDC*, by its factual name for z[d]
    "IDC*": ("u: x:u d: z:d w:x y:w,z,u", "u", "P(y[x=1]=1 | x=0, z[d=0]=1, d=0)", True, True),
    "ID*": ("u: x:u d: z:d w:x y:w,z,u", "u", "P(y[x=1]=1, x=0, z[d=0]=1, d=0)", True, True),
    # the probability of necessity and sufficiency, from no experiment: Pearl (2009), section 9.2
    "PNS": ("x: y:x", "", "P(y[x=1]=1, y[x=0]=0)", False, False),
    "PN": ("x: y:x", "", "P(y[x=0]=0 | x=1, y=1)", False, False),
    # the effect on the treated: Shpitser and Pearl (2009)
    "ETT, back door": ("z: x:z y:x,z", "", "P(y[x=1]=1 | x=0)", True, True),
    "ETT, front door": ("u: x:u m:x y:m,u", "u", "P(y[x=1]=1 | x=0)", True, True),
    "ETT, bow arc": ("u: x:u y:x,u", "u", "P(y[x=1]=1 | x=0)", False, False),
    "ETT of the treated themselves": ("u: x:u y:x,u", "u", "P(y[x=1]=1 | x=1)", True, True),
    # the effect itself is identified here, its share among the treated is not
    "ETT, napkin": ("u: v: w:u,v z:w x:z,u y:x,v", "u v", "P(y[x=1]=1 | x=0)", False, False),
    # natural effects: Pearl (2001); confounded mediators; Avin, Shpitser and Pearl (2005), the recanting witness
    "natural": ("t: m:t y:t,m", "", "P(y[t=1, m=m[t=0]]=1)", True, True),
    "natural, m and y confounded": ("u: t: m:t,u y:t,m,u", "u", "P(y[t=1, m=m[t=0]]=1)", False, False),
    "natural, t and y confounded": ("u: t:u m:t y:t,m,u", "u", "P(y[t=1, m=m[t=0]]=1)", False, True),
    "recanting witness": ("t: w:t m:w y:t,w,m", "", "P(y[t=1, m=m[t=0]]=1)", False, False),
    "no witness": ("t: w:t m:t y:t,w,m", "", "P(y[t=1, m=m[t=0]]=1)", True, True),
    # consistency and exclusion
    "consistency": ("u: x:u y:x,u", "u", "P(y[x=1]=1 | x=1, y=1)", True, True),
    "exclusion": ("z: x:z y:x", "", "P(y[x=1, z=0]=1, y[x=1, z=1]=0)", True, True),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_verdicts(name: str) -> None:
    text, latent, question, *verdicts = PUBLISHED[name]
    graph = CausalGraph(arrows(text), latent=frozenset(latent.split()))
    for experiments, expected in zip((False, True), verdicts, strict=True):
        found = graph.identify(question, experiments)
        assert found.identified is expected
        assert (found.hedge is None) is expected


def test_formulas_as_they_are_printed() -> None:
    back = CausalGraph({"z": [], "x": ["z"], "y": ["x", "z"]})
    front = CausalGraph(arrows("u: x:u m:x y:m,u"), latent=frozenset("u"))

    def printed(graph: CausalGraph, question: str, **keywords: bool) -> str:
        return str(graph.identify(question, **keywords).estimand)

    assert printed(back, "P(y=1 | do(x=1))") == "sum_{z'} P(z') P(y=1 | z', x=1)"
    assert printed(back, "P(y | do(x=1), z=0)") == "P(y | z=0, x=1)"
    assert printed(back, "P(y[x=1]=1)") == "sum_{z'} P(z') P(y=1 | z', x=1)"
    assert printed(back, "E[y[x=1] | x=0]") == (
        "[sum_{z'} P(z') P(x=0 | z') P(y[x=1] | z', x=1)] / [P(x=0)]"
    )
    assert printed(front, "P(y[x=1]=1 | x=0)") == "sum_{m'} P(y=1 | x=0, m') P(m' | x=1)"
    assert printed(front, "P(x=0)") == "P(x=0)"
    assert printed(back, "P(y[x=1]=1 | y=0, x=1)") == "0"
    assert printed(back, "P(x[x=1]=1)") == "1"
    bow = CausalGraph(arrows("u: x:u y:x,u"), latent=frozenset("u"))
    assert printed(bow, "P(y=1 | do(x=1))", experiments=True) == "P(y=1 | do(x=1))"
    # a nested mediator and a factual one are two variables
    chain = CausalGraph(arrows("x: m:x y:m"))
    assert printed(chain, "P(y[m=m[x=1]]=1)") == "sum_{m'} P(m' | x=1) P(y=1 | m')"


def test_what_forbids_an_estimand_is_named() -> None:
    bow = CausalGraph(arrows("u: x:u y:x,u"), latent=frozenset("u"))
    hedge = bow.identify("P(y[x=1]=1)").hedge
    assert isinstance(hedge, Hedge) and hedge.outer == {"x", "y"}
    conflict = bow.identify("P(y[x=1]=1 | x=0)").hedge
    assert isinstance(conflict, Conflict) and conflict.outcomes == ("x", "y[x=1]")
    assert str(conflict) == "conflict: x and y[x=1] share noise and need x at 1 and at 0 at once"
    impossible = bow.identify("P(y=1 | x=0, x=1)")
    assert not impossible.identified and "contradicts itself" in impossible.why


@pytest.mark.parametrize(
    ("question", "error", "match"),
    [
        ("P(y[x=1]=1 | x==0)", QueryError, "character 16"),
        ("P(y[x=1]=1) - P(y[x=0]=1)", QueryError, "no single probability"),
        ("E[y[x=1] - y[x=0]]", QueryError, "the law of an outcome rather than its mean"),
        ("P(yy[x=1]=1)", UnknownSiteError, "did you mean 'y'"),
        ("P(y[xx=1]=1)", UnknownSiteError, "no node 'xx'"),
        ("P(y[u=1]=1 | x=0)", GraphError, "'u' is latent"),
        ("P(y[x=1]=1 | u=0)", GraphError, "'u' is latent"),
        ("P(y[x=1]=1 | x[x=1]=1)", EvidenceError, "in a world where do sets it"),
    ],
)
def test_questions_that_cannot_be_asked(question: str, error: type[Exception], match: str) -> None:
    graph = CausalGraph(arrows("u: x:u y:x,u"), latent=frozenset("u"))
    with pytest.raises(error, match=match):
        graph.identify(question)


# --- Functions without noise -------------------------------------------------------------------------------------------


def test_a_function_has_no_noise_to_share() -> None:
    fire = {"lightning": [], "match": [], "fire": ["lightning", "match"]}
    question = "P(fire[match=0]=0 | match=1, fire=1)"
    assert not CausalGraph(fire).identify(question).identified
    known = CausalGraph(fire, deterministic=frozenset(["fire"])).identify(question)
    # lightning and match: three in four fires are of either alone
    table = np.zeros((2, 2, 2))
    for a, b in itertools.product((0, 1), repeat=2):
        table[a, b, a | b] = 0.25

    model = NoiseModel(fire, frozenset(), np.random.default_rng(0), frozenset(["fire"]))
    model.joint = {"names": ["lightning", "match", "fire"], "p": table}
    assert evaluate(known.estimand, model, {}) == pytest.approx(0.5)


def test_a_treatment_that_is_a_function_of_a_confounder_has_no_overlap() -> None:
    graph = CausalGraph({"s": [], "x": ["s"], "y": ["s", "x"]}, deterministic=frozenset("x"))
    found = graph.identify("P(y[x=1]=1 | x=0)")
    assert not found.identified and "x is a function" in found.why
    assert graph.identify("P(y[x=1]=1 | x=1)").identified


# --- Random graphs and questions, against enumeration -------------------------------------------------------------------

Asked = tuple[
    str, tuple
]  # a site and its settings; a setting's value is a number or another of these


class Case:
    """A random graph with latents, and a random question about it."""

    def __init__(self, seed: int, functions: bool = False) -> None:
        rng = self.rng = random.Random(seed)
        self.nodes = list("abcd")[: rng.choice([2, 3, 3, 4])]
        pairs = list(itertools.combinations(self.nodes, 2))
        shared = [p for p in pairs if rng.random() < 0.3][:2]
        self.parents: dict[str, list[str]] = {f"u{i}": [] for i in range(len(shared))}
        for n in self.nodes:
            self.parents[n] = [a for a, b in pairs if b == n and rng.random() < 0.55]
            self.parents[n] += [f"u{i}" for i, pair in enumerate(shared) if n in pair]
        self.latent = frozenset(n for n in self.parents if n.startswith("u"))
        self.functions = frozenset(
            n for n in self.nodes if functions and self.parents[n] and rng.random() < 0.35
        )
        self.event = [self.value() for _ in range(rng.choice([1, 1, 2, 2, 3]))]
        self.given = [self.value() for _ in range(rng.choice([0, 0, 1, 1, 2]))]

    def value(self) -> tuple[Asked, int]:
        return self.outcome(True), self.rng.randint(0, 1)

    def outcome(self, nested: bool) -> Asked:
        rng = self.rng
        site = rng.choice(self.nodes)
        others = [n for n in self.nodes if n != site]
        settings = []
        for n in sorted(rng.sample(others, min(rng.choice([0, 0, 1, 1, 1, 2]), len(others)))):
            if nested and rng.random() < 0.15:
                other = rng.choice([m for m in self.nodes if m != n])
                settings.append((n, (n, ((other, rng.randint(0, 1)),))))
            else:
                settings.append((n, rng.randint(0, 1)))
        return site, tuple(settings)

    @property
    def question(self) -> str:
        def text(asked: Asked | int) -> str:
            if isinstance(asked, int):
                return str(asked)
            inside = ", ".join(f"{n}={text(v)}" for n, v in asked[1])
            return f"{asked[0]}[{inside}]" if inside else asked[0]

        sides = [", ".join(f"{text(a)}={v}" for a, v in s) for s in (self.event, self.given)]
        return f"P({' | '.join(s for s in sides if s)})"

    def mask(self, model: NoiseModel, side: list[tuple[Asked, int]]) -> np.ndarray:
        def values(asked: Asked | int) -> np.ndarray | int:
            if isinstance(asked, int):
                return asked
            return model.world({n: values(v) for n, v in asked[1]})[asked[0]]

        found = np.ones(len(model.states), dtype=bool)
        for asked, value in side:
            found &= values(asked) == value
        return found

    def model(self, seed: int, **keywords: int) -> NoiseModel:
        rng = np.random.default_rng(seed)
        return NoiseModel(self.parents, self.latent, rng, self.functions, **keywords)


def check_case(seed: int) -> tuple[bool, bool] | None:
    """Estimands against enumeration; where there is none, that the data do not determine the answer."""
    case = Case(seed)
    graph = CausalGraph(case.parents, latent=case.latent)
    try:
        verdicts = [graph.identify(case.question, experiments) for experiments in (False, True)]
    except EvidenceError:
        return None
    model = case.model(seed)
    event, given = case.mask(model, case.event), case.mask(model, case.given)
    if not given.any():  # a condition that contradicts itself, which the graph may or may not see
        return None
    assert verdicts[1].identified or not verdicts[0].identified
    for found in verdicts:
        assert not found.why, (seed, found.why)
        if found.identified:
            names = sorted(free(found.estimand))
            for at in itertools.product((0, 1), repeat=len(names)):
                value = evaluate(found.estimand, model, dict(zip(names, at, strict=True)))
                assert value == pytest.approx(model.answer(event, given), abs=1e-9), (seed, found)
    if not verdicts[0].identified:
        assert not determined(case, seed), (seed, case.question, verdicts[0].hedge)
    return verdicts[0].identified, verdicts[1].identified


def determined(case: Case, seed: int) -> bool:
    """Whether, in models with much freedom, data tell the answer."""
    # two values may settle what no graph does: where a is not 1, it is 0; so three are tried too
    for trial, levels in enumerate((2, 2, 3, 3)):
        bases = next(
            b
            for b in (12, 8, 6, 5, 4, 3, 2, 1)
            if (b * levels) ** len(case.nodes) * 3 ** len(case.latent) <= 100_000
        )
        model = case.model(seed + 1000 * trial, levels=levels, bases=bases)
        event, given = case.mask(model, case.event), case.mask(model, case.given)
        if not given.any():
            continue
        if model.answer(event, given) in (0.0, 1.0):
            return False  # so only because sites have few values
        if not model.is_determined(event, given, [model.cells()]):
            return False
    return True


@pytest.mark.parametrize("block", range(4))
def test_random_questions(block: int) -> None:
    found = [check_case(seed) for seed in range(60 * block, 60 * block + 60)]
    counted = [f for f in found if f is not None]
    assert sum(f[0] for f in counted) > 20 and sum(not f[1] for f in counted) > 1
    assert len(counted) > 40


@pytest.mark.slow
def test_many_random_questions() -> None:
    found = [check_case(seed) for seed in range(1000, 4000)]
    counted = [f for f in found if f is not None]
    assert len(counted) > 2000
    # what only experiments tell is rare, and is there
    assert any(f == (False, True) for f in counted)


@pytest.mark.parametrize("block", range(2))
def test_random_questions_with_functions(block: int) -> None:
    """A function adds overlap to what positivity asks for, so that estimands are compared where they are defined."""
    compared = more = 0
    for seed in range(150 * block, 150 * block + 150):
        case = Case(seed, functions=True)
        plain = CausalGraph(case.parents, latent=case.latent)
        graph = CausalGraph(case.parents, latent=case.latent, deterministic=case.functions)
        try:
            found = graph.identify(case.question)
            more += found.identified and not plain.identify(case.question).identified
        except EvidenceError:
            continue
        model = case.model(seed)
        event, given = case.mask(model, case.event), case.mask(model, case.given)
        if found.identified and given.any():
            names = sorted(free(found.estimand))
            with np.errstate(all="ignore"):
                try:
                    value = evaluate(found.estimand, model, dict.fromkeys(names, 0))
                except ZeroDivisionError:
                    continue
            compared += 1
            assert value == pytest.approx(model.answer(event, given), abs=1e-9), (seed, found)
    assert compared > 60 and more > 1


# --- Two models that agree on all that is known, and not on the answer ---------------------------------------------------


class Encouraged:
    """z -> x -> y with x and y confounded, as a joint law over the responses of x to z and of y to x.

    What is observed, and what experiments show, is linear in that law, and so is a counterfactual.
    """

    def __init__(self, levels: int) -> None:
        self.levels = levels
        self.types = list(
            itertools.product(
                itertools.product(range(levels), repeat=2),
                itertools.product(range(2), repeat=levels),
            )
        )
        self.prior = np.array([0.4, 0.6])  # of z

    def rows(self, test) -> np.ndarray:
        """The probability of a test of ``(z, x responses, y responses)`` as a linear function of the law."""
        return np.array(
            [sum(p * test(z, rx, ry) for z, p in enumerate(self.prior)) for rx, ry in self.types]
        )

    def shown(self, experiments: bool) -> np.ndarray:
        found = [
            self.rows(lambda z, rx, ry, at=at: (z, rx[z], ry[rx[z]]) == at)
            for at in itertools.product(range(2), range(self.levels), range(2))
        ]
        if experiments:
            found += [self.rows(lambda z, rx, ry, x=x: ry[x]) for x in range(self.levels)]
            found += [
                self.rows(lambda z, rx, ry, a=a, b=b, c=c: (rx[a], ry[rx[a]]) == (b, c))
                for a, b, c in itertools.product(range(2), range(self.levels), range(2))
            ]
        return np.array(found)

    def extremes(self, target: np.ndarray, known: np.ndarray, law: np.ndarray) -> list[np.ndarray]:
        """Two laws that show what ``law`` shows, and give the target its least and its greatest value."""
        found = []
        for sign in (1.0, -1.0):
            solved = linprog(sign * target, A_eq=known, b_eq=known @ law, method="highs")
            assert solved.status == 0
            found.append(solved.x)
        return found


TARGETS = {
    # question: (numerator, denominator)
    "P(y[x=1]=1)": (lambda z, rx, ry: ry[1], lambda z, rx, ry: 1),
    "P(y[z=1]=1)": (lambda z, rx, ry: ry[rx[1]], lambda z, rx, ry: 1),
    "P(y[x=1]=1 | z=0)": (lambda z, rx, ry: ry[1] * (z == 0), lambda z, rx, ry: z == 0),
    "P(y[x=1]=1 | x=0)": (lambda z, rx, ry: ry[1] * (rx[z] == 0), lambda z, rx, ry: rx[z] == 0),
    "P(y[x=1]=1 | x=1)": (lambda z, rx, ry: ry[1] * (rx[z] == 1), lambda z, rx, ry: rx[z] == 1),
    "P(y[x=1]=1, y[x=0]=0)": (lambda z, rx, ry: ry[1] * (1 - ry[0]), lambda z, rx, ry: 1),
    "P(y[x=0]=0 | x=1, y=1)": (
        lambda z, rx, ry: (rx[z] == 1) * ry[1] * (1 - ry[0]),
        lambda z, rx, ry: (rx[z] == 1) * ry[1],
    ),
    "P(x[z=1]=1, x[z=0]=0)": (lambda z, rx, ry: (rx[1] == 1) * (rx[0] == 0), lambda z, rx, ry: 1),
    "P(y[z=1]=1 | z=0)": (lambda z, rx, ry: ry[rx[1]] * (z == 0), lambda z, rx, ry: z == 0),
    "P(y[z=1]=1 | z=0, x=0)": (
        lambda z, rx, ry: ry[rx[1]] * (z == 0) * (rx[0] == 0),
        lambda z, rx, ry: (z == 0) * (rx[0] == 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("experiments", [False, True])
@pytest.mark.parametrize("question", TARGETS)
def test_a_verdict_is_whether_models_that_agree_differ(question: str, experiments: bool) -> None:
    graph = CausalGraph(arrows("u: z: x:z,u y:x,u"), latent=frozenset("u"))
    verdict = graph.identify(question, experiments)
    model = Encouraged(levels=3)
    law = np.random.default_rng(3).dirichlet(np.full(len(model.types), 1.0))
    top, bottom = (model.rows(test) for test in TARGETS[question])
    known = model.shown(experiments)
    values = []
    for found in model.extremes(top, known, law):
        np.testing.assert_allclose(known @ found, known @ law, atol=1e-8)
        assert bottom @ found == pytest.approx(bottom @ law, abs=1e-8)
        values.append(top @ found / (bottom @ found))
    if verdict.identified:
        assert values[0] == pytest.approx(values[1], abs=1e-7)
    else:
        assert verdict.hedge is not None and values[1] - values[0] > 0.01
