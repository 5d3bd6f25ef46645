"""Programs and requests that have to be refused, beside those of test_bad_input.py: one sentence each.

An entry marked as an expected failure is answered today, silently wrong or with an error that is no help.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import causalppl as cp
from causalppl import errors

pytestmark = pytest.mark.filterwarnings("ignore::causalppl.errors.ExecutorWarning")

N = dist.Normal


def once(_how: str, *case: Any, name: str) -> Any:
    """A case that once failed, and how."""
    return pytest.param(*case, id=name)


def ask(
    program: Callable[..., Any],
    interventions: Any = None,
    evidence: Any = None,
    args: tuple[Any, ...] = (),
    **options: Any,
) -> cp.Worlds:
    options = {"num_samples": 6, "seed": 0, **options}
    return cp.counterfactual(program, interventions, evidence, **options)(*args)


# --- Programs -----------------------------------------------------------------------------------


def twice_the_name() -> None:
    pyro.sample("x", N(0.0, 1.0))
    pyro.sample("x", N(1.0, 1.0))


def sample_and_deterministic() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.deterministic("x", 2 * x)


def twice_in_the_other_branch() -> None:
    """The name is used twice only where a is 1, which the record does not show."""
    a = pyro.sample("a", dist.Bernoulli(0.5))
    pyro.sample("x", N(a, 1.0))
    if a == 1:
        pyro.sample("x", N(0.0, 1.0))


def one_plate_of_two_sizes() -> None:
    with pyro.plate("units", 3):
        pyro.sample("x", N(0.0, 1.0))
    with pyro.plate("units", 4):
        pyro.sample("y", N(0.0, 1.0))


def plate_of_random_size() -> None:
    n = pyro.sample("n", dist.Poisson(3.0))
    with pyro.plate("units", int(n) + 1):
        pyro.sample("x", N(0.0, 1.0))


def plate_of_chosen_size() -> None:
    """The size is known in the factual world, and another in the world of the intervention."""
    many = pyro.sample("many", dist.Bernoulli(0.5))
    with pyro.plate("units", 5 if many == 1 else 2):
        pyro.sample("x", N(0.0, 1.0))


def drawn_by_rsample() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.sample("y", N(x + N(0.0, 1.0).rsample(), 1.0))


def drawn_inside_a_factor() -> None:
    x = pyro.sample("x", N(0.0, 1.0), obs=torch.tensor(0.5))
    pyro.factor("f", -torch.rand(()) * x.abs())


def drawn_into_a_deterministic_site() -> None:
    pyro.sample("x", N(0.0, 1.0))
    pyro.deterministic("y", torch.randn(()))


def drawn_by_a_generator(generator: torch.Generator) -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.sample("y", N(x + torch.rand((), generator=generator), 1.0))


def changes_its_argument(data: torch.Tensor) -> None:
    data += 1
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.sample("y", N(x + data.sum(), 1.0))


def counts_its_calls(calls: list[int]) -> None:
    calls.append(1)
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.sample("y", N(x + len(calls), 1.0))


def hidden_by_block() -> None:
    x = poutine.block(lambda: pyro.sample("x", N(0.0, 1.0)))()
    pyro.sample("y", N(x, 1.0))


def new_name_each_run(calls: list[int]) -> None:
    calls.append(1)
    pyro.sample(f"x_{len(calls)}", N(0.0, 1.0))


def bad_parameters() -> None:
    pyro.sample("x", N(0.0, -1.0))


def without_sites() -> None:
    """Somebody forgot the model: nothing here is a site."""


def gives_a_generator() -> Any:
    yield pyro.sample("x", N(0.0, 1.0))


class Model(pyro.nn.PyroModule):
    def forward(self) -> None:
        pyro.sample("x", N(0.0, 1.0))


RANDOM = "not deterministic given its sites"
SIZES = "subsample indices of the first run are used for a plate of another size"
EMPTY = "a program without a site is answered with an empty result"


@pytest.mark.parametrize(
    ("program", "args", "error", "match"),
    [
        (twice_the_name, (), errors.ProgramError, "two sites named 'x'"),
        (sample_and_deterministic, (), errors.ProgramError, "two sites named 'x'"),
        once(
            SIZES,
            one_plate_of_two_sizes,
            (),
            errors.ProgramError,
            "units",
            name="one_plate_of_two_sizes",
        ),
        once(
            SIZES,
            plate_of_random_size,
            (),
            errors.ProgramError,
            "different shapes|plate",
            name="plate_of_random_size",
        ),
        (drawn_by_rsample, (), errors.NondeterministicProgramError, f"{RANDOM}.*'y'"),
        (drawn_into_a_deterministic_site, (), errors.NondeterministicProgramError, RANDOM),
        once(
            "a factor is left out of the check of determinism",
            drawn_inside_a_factor,
            (),
            errors.NondeterministicProgramError,
            RANDOM,
            name="drawn_inside_a_factor",
        ),
        (
            drawn_by_a_generator,
            (torch.Generator().manual_seed(0),),
            errors.NondeterministicProgramError,
            RANDOM,
        ),
        (changes_its_argument, (torch.zeros(2),), errors.NondeterministicProgramError, RANDOM),
        (counts_its_calls, ([],), errors.NondeterministicProgramError, RANDOM),
        (new_name_each_run, ([],), errors.NondeterministicProgramError, "site 'x_2' differs"),
        (hidden_by_block, (), errors.NondeterministicProgramError, f"{RANDOM}.*'y'"),
        once(EMPTY, without_sites, (), errors.ProgramError, "no site", name="without_sites"),
        once(
            EMPTY, gives_a_generator, (), errors.ProgramError, "generator", name="gives_a_generator"
        ),
        once(EMPTY, Model, (), errors.ProgramError, "instance|no site", name="a_class"),
    ],
)
def test_invalid_programs(
    program: Callable[..., Any], args: tuple[Any, ...], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        cp.abduct(program, num_samples=6, seed=0)(*args).predict()


def test_a_name_used_twice_in_the_world_only() -> None:
    with pytest.raises(errors.ProgramError, match="two sites named 'x'"):
        ask(twice_in_the_other_branch, {"a": 1.0}, {"a": 0.0, "x": 0.2})


def test_a_plate_whose_size_the_intervention_changes() -> None:
    with pytest.raises(errors.IncompatibleMechanismError, match="'x'"):
        ask(plate_of_chosen_size, {"many": 1.0}, {"many": 0.0, "x": torch.zeros(2)})


def test_a_parameter_out_of_its_constraint_is_the_programs_own_error() -> None:
    with pytest.raises(ValueError, match="scale") as caught:
        ask(bad_parameters)
    assert not isinstance(caught.value, errors.CausalPPLError)


@pytest.mark.parametrize(
    ("args", "kwargs", "match"),
    [
        ((), {}, "missing 1 required"),
        ((1.0,), {"b": 2}, "unexpected keyword"),
        ((1, 2), {}, "2 were given"),
    ],
)
def test_wrong_arguments_are_the_programs_own_error(
    args: tuple[Any, ...], kwargs: dict[str, Any], match: str
) -> None:
    def program(a: float) -> None:
        pyro.sample("x", N(a, 1.0))

    for call in (cp.abduct(program, seed=0), cp.counterfactual(program, {"x": 1.0}, seed=0)):
        with pytest.raises(TypeError, match=match) as caught:
            call(*args, **kwargs)
        assert not isinstance(caught.value, errors.CausalPPLError)


@pytest.mark.parametrize("name", ["draw", "chain", "world"])
@pytest.mark.parametrize("depth", ["outer", "inner"])
def test_reserved_names_of_nested_plates(name: str, depth: str) -> None:
    names = (name, "units") if depth == "outer" else ("units", name)

    def program() -> None:
        with pyro.plate(names[0], 2, dim=-2), pyro.plate(names[1], 3, dim=-1):
            pyro.sample("x", N(0.0, 1.0))

    with pytest.raises(errors.ProgramError, match=f"plate '{name}'.*rename"):
        ask(program)


def test_a_site_with_the_name_of_a_plate() -> None:
    def program() -> None:
        with pyro.plate("units", 3):
            pyro.sample("x", N(0.0, 1.0))
        pyro.sample("units", N(0.0, 1.0))

    worlds = ask(program)
    for run in (lambda: worlds.dataset, worlds.to_arviz):
        with pytest.raises(errors.ProgramError, match=r"site 'units'.*rename"):
            run()


# --- Requests -----------------------------------------------------------------------------------


def model() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    b = pyro.sample("b", dist.Bernoulli(torch.sigmoid(x)))
    k = pyro.sample("k", dist.Categorical(logits=torch.stack([x, b, x * b])))
    with pyro.plate("units", 3):
        y = pyro.sample("y", N(x + b + k, 1.0))
        share = pyro.sample("share", dist.Dirichlet(torch.ones(2)))
    pyro.deterministic("total", y.sum() + share.sum())


GOOD: dict[str, Any] = {
    "x": 0.5,
    "b": 1.0,
    "k": 1,
    "y": torch.tensor([1.0, 2.0, 3.0]),
    "share": torch.full((3, 2), 0.5),
}

NAN = "a callable's NaN is not looked for, and sites below it are given numbers"


@pytest.mark.parametrize(
    ("interventions", "error", "match"),
    [
        ({"z": 1.0}, errors.UnknownSiteError, "no site 'z'.*'x', 'b', 'k', 'y'"),
        ({"units": 1.0}, errors.UnknownSiteError, "no site 'units'"),
        ({"factual/x": 1.0}, errors.UnknownSiteError, "no site 'factual/x'"),
        ({1: 1.0}, errors.InterventionError, "1 is no site name"),
        ({re.compile("z.*"): 1.0}, errors.UnknownSiteError, "z"),
        ({"x": float("nan")}, errors.InterventionError, "'x'.*NaN"),
        ({"total": float("nan")}, errors.InterventionError, "'total'.*NaN"),
        ({"x": cp.shift(float("nan"))}, errors.InterventionError, "'x'.*NaN"),
        ({"x": [[1.0], [2.0, 3.0]]}, errors.InterventionError, "'x' cannot be made a tensor"),
        ({"y": torch.zeros(0)}, errors.ShapeError, r"'y' has shape \(0,\).*\(3,\)"),
        ({"y": torch.zeros(3, 1)}, errors.ShapeError, r"'y'.*\(3, 1\)"),
        ({"x": torch.zeros(1)}, errors.ShapeError, r"'x' has shape \(1,\)"),
        ({"total": torch.zeros(2)}, errors.ShapeError, "'total'"),
        ({"b": 0.5}, errors.SupportError, "'b'.*support"),
        ({"b": -1}, errors.SupportError, "'b'.*support"),
        ({"k": 3}, errors.SupportError, "'k'.*support"),
        ({"share": torch.tensor([0.9, 0.9])}, errors.SupportError, "'share'.*support"),
        ({"k": 0.5}, errors.InterventionError, "0.5 for site 'k' is a fraction"),
        (
            {"y": cp.where(torch.tensor([True, False]), 1.0)},
            errors.ShapeError,
            r"'y'.*mask \(2,\)",
        ),
        (
            {"b": cp.policy(lambda v: v["total"])},
            errors.InterventionError,
            "'total', which is not upstream.*'x'",
        ),
        ({"x": lambda v: v * torch.ones(3)}, errors.ShapeError, r"'x' has shape \(3,\)"),
        ({"x": N(torch.zeros(3), 1.0)}, errors.IncompatibleMechanismError, r"'x'.*\(3,\)"),
        once(
            "the imaginary part is dropped in silence",
            {"x": 1j},
            errors.InterventionError,
            "complex",
            name="complex",
        ),
        once(NAN, {"x": lambda v: v * math.nan}, errors.InterventionError, "NaN", name="nan"),
        once(
            NAN,
            {"b": cp.policy(lambda v: v["x"] * math.nan)},
            errors.InterventionError,
            "NaN",
            name="policy_nan",
        ),
        once(
            "torch's RuntimeError about NoneType comes out",
            {"x": lambda v: None},
            errors.InterventionError,
            "'x'",
            name="callable_of_nothing",
        ),
        once(
            "the class is looked up as if it were a distribution: no mechanism for DistributionMeta",
            {"x": dist.Normal},
            errors.InterventionError,
            "class|instance",
            name="class_of_distributions",
        ),
        once(
            "the site gets a dimension: three values for each of three units",
            {"y": N(torch.zeros(3), 1.0).to_event(1)},
            errors.CausalPPLError,
            "'y'",
            name="distribution_of_vectors_for_scalars",
        ),
    ],
)
def test_invalid_interventions(interventions: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ask(model, interventions, GOOD)


@pytest.mark.parametrize(
    ("evidence", "error", "match"),
    [
        ({"z": 1.0}, errors.UnknownSiteError, "no site 'z'"),
        ({"units": 1.0}, errors.UnknownSiteError, "no site 'units'"),
        ({"x": None}, errors.EvidenceError, "None for site 'x' is no value"),
        once(
            "infinity passes for real; the program runs on and fails in a distribution below",
            {"x": math.inf},
            errors.CausalPPLError,
            "'x'",
            name="infinite",
        ),
        ({"x": torch.zeros(1)}, errors.ShapeError, r"'x' has shape \(1,\)"),
        ({"y": torch.zeros(0)}, errors.ShapeError, "'y'"),
        ({"b": 2.0}, errors.SupportError, "'b'.*support"),
        ({"k": -1}, errors.SupportError, "'k'.*support"),
        ({"share": torch.full((3, 2), 0.7)}, errors.SupportError, "'share'.*support"),
        ({"total": 99.0}, errors.EvidenceError, "'total'"),
        once(
            "a TypeError of the look-up of near names comes out",
            {1: 1.0},
            errors.EvidenceError,
            "site name",
            name="no_name",
        ),
        once(
            "the imaginary part is dropped in silence",
            {"x": 1j},
            errors.EvidenceError,
            "complex",
            name="complex",
        ),
    ],
)
def test_invalid_evidence(evidence: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ask(model, {"x": 1.0}, {**GOOD, **evidence})


@pytest.mark.parametrize(
    ("worlds", "error", "match"),
    [
        ({"factual": {"x": 1.0}}, errors.WorldNameError, "'factual' is reserved"),
        ({"a/b": {"x": 1.0}}, errors.WorldNameError, "'a/b' is no world name.*without '/'"),
        ({("a",): {"x": 1.0}}, errors.WorldNameError, "is no world name"),
        ({"a": None}, errors.InterventionError, "world 'a' is given as None"),
        ({"a": [("x", 1.0)]}, errors.InterventionError, "world 'a'.*mapping"),
        (["a"], errors.WorldNameError, "mapping of world name"),
        ({"a": {"x": 1.0}, "b": {"z": 1.0}}, errors.UnknownSiteError, "no site 'z'"),
    ],
)
def test_invalid_worlds(worlds: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ask(model, None, GOOD, worlds=worlds)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"num_samples": "10"}, errors.MethodError, "num_samples='10'"),
        ({"num_samples": None}, errors.MethodError, "num_samples=None"),
        ({"method": cp.Exact}, errors.MethodError, "no inference method"),
        (
            {"method": cp.PosteriorSamples({"x": torch.zeros(3)})},
            errors.MethodError,
            "'x'.*latent",
        ),
        once(
            "True is taken for one draw",
            {"num_samples": True},
            errors.MethodError,
            "num_samples",
            name="num_samples_true",
        ),
        once(
            "Python's ValueError about int() comes out",
            {"seed": "a"},
            errors.CausalPPLError,
            "seed",
            name="seed_text",
        ),
        once(
            "cut to an integer in silence",
            {"seed": 1.5},
            errors.CausalPPLError,
            "seed",
            name="seed_fraction",
        ),
    ],
)
def test_invalid_options(options: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ask(model, {"x": 1.0}, GOOD, **options)


@pytest.mark.parametrize(
    ("sites", "named"),
    [
        (["z"], "'z'"),
        (["x", "z"], "'z'"),
        (["units"], "'units'"),
        once(
            "a TypeError of the look-up of near names comes out",
            [1],
            "'1'",
            name="no_name",
        ),
    ],
)
def test_unknown_sites_to_keep(sites: Any, named: str) -> None:
    posterior = cp.abduct(model, GOOD, num_samples=3, seed=0)()
    with pytest.raises(errors.UnknownSiteError, match=f"sites: the program has no site {named}"):
        posterior.predict({"x": 1.0}, sites=sites)


# --- Sites of branches --------------------------------------------------------------------------


def never_taken() -> None:
    a = pyro.sample("a", dist.Bernoulli(torch.tensor(0.0)))
    if a == 1:
        pyro.sample("hidden", N(0.0, 1.0))
    pyro.sample("y", N(a, 1.0))


def sometimes_taken() -> None:
    a = pyro.sample("a", dist.Bernoulli(0.5))
    if a == 1:
        pyro.sample("hidden", N(0.0, 1.0))
    pyro.sample("y", N(a, 1.0))


def test_do_on_a_site_of_a_branch_never_taken() -> None:
    with pytest.raises(errors.UnknownSiteError, match="no site 'hidden'"):
        ask(never_taken, {"hidden": 1.0})
    # where nothing is random neither is any world's branch
    with pytest.raises(errors.UnknownSiteError, match="no site 'hidden'"):
        ask(sometimes_taken, {"hidden": 1.0}, {"a": 0.0, "y": 0.3})


def test_do_on_a_site_that_the_intervention_itself_opens() -> None:
    worlds = ask(sometimes_taken, {"a": 1.0, "hidden": 2.0}, {"a": 0.0, "y": 0.3})
    assert float(worlds.tensor("hidden", "counterfactual")[0]) == 2.0


def test_keeping_a_site_that_some_rows_show() -> None:
    worlds = cp.abduct(sometimes_taken, num_samples=8, seed=0)().predict(
        {"a": 1.0}, sites=["hidden"]
    )
    assert bool(worlds.tensor("hidden", "counterfactual").isfinite().all())


# --- Programs that are valid, and refused or answered wrongly -----------------------------------


def test_uncondition() -> None:
    """Pyro's own handler takes the data out, and the values of deterministic sites with them."""

    def program() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        twice = pyro.deterministic("twice", 2 * x)
        pyro.sample("y", N(twice, 1.0), obs=torch.tensor(1.0))

    worlds = ask(poutine.uncondition(program), {"x": 1.0})
    assert worlds.tensor("twice", "counterfactual").tolist() == [2.0] * 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_network_traced_by_torch() -> None:
    traced = torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1), check_trace=False)

    def program() -> None:
        x = pyro.sample("x", N(torch.zeros(1), 1.0).to_event(1))
        pyro.sample("y", N(traced(x), 1.0).to_event(1))

    worlds = ask(program, {"x": torch.ones(1)}, {"x": torch.zeros(1), "y": torch.zeros(1)})
    weight = traced.weight.detach()[0, 0]
    torch.testing.assert_close(worlds.tensor("y", "counterfactual"), weight.reshape(1, 1))


def test_labels_of_a_site_that_do_has_set() -> None:
    def program() -> None:
        with pyro.plate("units", 3):
            pyro.sample("v", N(torch.zeros(3), 1.0).to_event(1))

    assert ask(program)["v"].dims == ("draw", "world", "units", "v_dim_0")
    intervened = cp.do(program, {"v": torch.eye(3)})
    assert ask(intervened)["v"].dims == ("draw", "world", "units", "v_dim_0")
