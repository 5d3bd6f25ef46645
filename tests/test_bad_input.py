"""Every mistake gets an error that says what was given, what is allowed and what to type, and nothing else changes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import causalppl as cp
from causalppl import errors

N = dist.Normal


def settings_now() -> dict[str, Any]:
    """What a library must not leave changed behind it."""
    return {
        "handlers": list(pyro.poutine.runtime._PYRO_STACK),
        "pyro settings": dict(pyro.settings.get()),
        "validation": torch.distributions.Distribution._validate_args,
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "parameters": sorted(pyro.get_param_store().keys()),
        "numpy": tuple(np.random.get_state()[1]),
        "python": random.getstate(),
    }


@pytest.fixture(autouse=True)
def nothing_global_changes() -> Iterator[None]:
    before = settings_now()
    yield
    after = settings_now()
    pyro.poutine.runtime._PYRO_STACK.clear()
    assert after == before


def raises(
    error: type[Exception],
    *parts: str,
    run: Callable[[], Any],
    builtin: type[Exception] | None = None,
) -> str:
    """The call fails with a CausalPPLError of this class whose message contains every part, and touches no generator.

    Every call in this file is given a seed, so torch's own generator must be as before.
    """
    before = torch.get_rng_state()
    with pytest.raises(error) as caught:
        run()
    message = str(caught.value)
    assert isinstance(caught.value, errors.CausalPPLError)
    assert isinstance(caught.value, (ValueError, TypeError, KeyError, RuntimeError))
    if builtin is not None:
        assert isinstance(caught.value, builtin)
    for part in parts:
        assert part.lower() in message.lower(), f"{part!r} is not in: {message}"
    assert torch.equal(torch.get_rng_state(), before), "the caller's generator moved"
    assert pyro.poutine.runtime._PYRO_STACK == []
    return message


def model(dose: float = 1.0) -> None:
    treatment = pyro.sample("treatment", dist.Bernoulli(0.5))
    kind = pyro.sample("kind", dist.Categorical(torch.ones(3) / 3))
    with pyro.plate("units", 4):
        age = pyro.sample("age", dist.Exponential(1.0))
        pyro.sample("outcome", N(dose * treatment + age + kind, 1.0))


GOOD = {
    "treatment": torch.tensor(1.0),
    "kind": torch.tensor(2),
    "age": torch.ones(4),
    "outcome": torch.zeros(4),
}


def ask(
    interventions: Any = None,
    evidence: Any = None,
    program: Any = model,
    args: tuple[Any, ...] = (),
    **options: Any,
) -> Callable[[], Any]:
    options = {"num_samples": 10, "seed": 0, **options}
    return lambda: cp.counterfactual(program, interventions, evidence, **options)(*args)


def test_the_good_call_works() -> None:
    ask({"treatment": 0.0}, GOOD)()


# --- Unknown names ------------------------------------------------------------------------------


def seeded_do(interventions: Any, program: Any = model) -> Callable[[], Any]:
    def run() -> Any:
        with torch.random.fork_rng():
            return cp.do(program, interventions)()

    return run


@pytest.mark.parametrize(
    "run",
    [seeded_do({"treatmnt": 1.0}), ask({"treatmnt": 1.0}, GOOD)],
    ids=["do", "counterfactual"],
)
def test_unknown_site_in_do(run: Callable[[], Any]) -> None:
    raises(
        errors.UnknownSiteError,
        "treatmnt",
        "'treatment'",
        "'outcome'",
        "did you mean",
        run=run,
        builtin=ValueError,
    )


def test_unknown_site_in_do_as_a_context_manager() -> None:
    def run() -> None:
        with torch.random.fork_rng(), cp.do({"agee": 1.0}):
            model()

    raises(errors.UnknownSiteError, "agee", "did you mean 'age'", run=run)


def test_unknown_site_in_predict() -> None:
    posterior = cp.abduct(model, evidence=GOOD, seed=0)()
    raises(
        errors.UnknownSiteError,
        "outcme",
        "'outcome'",
        run=lambda: posterior.predict({"outcme": 1.0}),
    )
    raises(
        errors.UnknownSiteError,
        "outcme",
        "'outcome'",
        run=lambda: posterior.predict({"treatment": 1.0}, sites=["outcme"]),
    )


def test_unknown_site_in_evidence() -> None:
    raises(
        errors.UnknownSiteError,
        "outcom",
        "did you mean 'outcome'",
        run=ask({"treatment": 1.0}, {"outcom": torch.zeros(4)}),
    )


def test_unknown_site_without_a_near_name() -> None:
    message = raises(errors.UnknownSiteError, "zzz", "'treatment'", run=ask({"zzz": 1.0}, GOOD))
    assert "did you mean" not in message


@pytest.mark.parametrize("where", ["do", "counterfactual", "evidence"])
def test_an_argument_mistaken_for_a_site(where: str) -> None:
    run = {
        "do": seeded_do({"dose": 2.0}),
        "counterfactual": ask({"dose": 2.0}, GOOD),
        "evidence": ask({"treatment": 1.0}, {"dose": 2.0}),
    }[where]
    raises(errors.UnknownSiteError, "dose", "argument", 'pyro.deterministic("dose"', run=run)


def test_an_argument_of_a_module_mistaken_for_a_site() -> None:
    class Model(pyro.nn.PyroModule):
        def forward(self, dose: float) -> torch.Tensor:
            return pyro.sample("y", N(dose, 1.0))

    raises(
        errors.UnknownSiteError,
        "dose",
        "argument",
        run=ask({"dose": 2.0}, {"y": 1.0}, Model(), (1.0,)),
    )


def test_unknown_site_in_a_result() -> None:
    worlds = ask({"treatment": 0.0}, GOOD)()
    for run in (
        lambda: worlds["outcme"],
        lambda: worlds.tensor("outcme", world="factual"),
        lambda: worlds.contrast("outcme", "counterfactual", "factual"),
        lambda: worlds.probability(lambda w: w["factual"]["outcme"] > 0),
    ):
        raises(errors.UnknownSiteError, "outcme", "'outcome'", run=run)


def test_unknown_world_in_a_result() -> None:
    worlds = ask(None, GOOD, worlds={"treated": {"treatment": 1.0}})()
    for run in (
        lambda: worlds.tensor("outcome", world="traeted"),
        lambda: worlds.contrast("outcome", "traeted", "factual"),
        lambda: worlds.probability(lambda w: w["traeted"]["outcome"] > 0),
    ):
        raises(
            errors.UnknownWorldError, "traeted", "'treated'", "'factual'", run=run, builtin=KeyError
        )


# --- Values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run",
    [seeded_do({"age": torch.ones(3)}), ask({"age": torch.ones(3)}, GOOD)],
    ids=["do", "counterfactual"],
)
def test_an_intervention_that_does_not_broadcast(run: Callable[[], Any]) -> None:
    raises(errors.ShapeError, "'age'", "(3,)", "(4,)", run=run, builtin=ValueError)


def test_an_intervention_with_too_many_dimensions() -> None:
    raises(
        errors.ShapeError, "'treatment'", "(4,)", "()", run=ask({"treatment": torch.ones(4)}, GOOD)
    )


def test_evidence_that_does_not_broadcast() -> None:
    raises(
        errors.ShapeError,
        "'outcome'",
        "(3,)",
        "(4,)",
        run=ask({"treatment": 1.0}, {"outcome": torch.zeros(3)}),
    )


def test_an_intervention_that_is_nan() -> None:
    for run in (seeded_do({"treatment": float("nan")}), ask({"treatment": math.nan}, GOOD)):
        raises(errors.InterventionError, "'treatment'", "NaN", run=run, builtin=ValueError)
    raises(
        errors.InterventionError,
        "'age'",
        "NaN",
        run=ask({"age": torch.tensor([1.0, math.nan, 1.0, 1.0])}, GOOD),
    )
    raises(
        errors.InterventionError,
        "'age'",
        "NaN",
        run=ask({"age": cp.where(torch.tensor(True), math.nan)}, GOOD),
    )


def test_a_fraction_for_an_integer_site() -> None:
    raises(errors.InterventionError, "'kind'", "1.5", run=ask({"kind": 1.5}, GOOD))


@pytest.mark.parametrize(
    "value", ["one", None, object(), {"a": 1}], ids=["text", "nothing", "object", "dict"]
)
def test_what_is_no_intervention(value: Any) -> None:
    raises(errors.InterventionError, "'treatment'", run=ask({"treatment": value}, GOOD))
    raises(errors.InterventionError, "'treatment'", run=seeded_do({"treatment": value}))


def test_interventions_that_are_no_mapping() -> None:
    raises(errors.InterventionError, "mapping", "str", run=ask("treatment", GOOD))
    raises(errors.InterventionError, "mapping", run=ask([("treatment", 1.0)], GOOD))


def test_a_policy_that_reads_what_is_not_upstream() -> None:
    raises(
        errors.InterventionError,
        "'treatment'",
        "'outcome'",
        "upstream",
        run=ask({"treatment": cp.policy(lambda v: v["outcome"])}, GOOD),
    )


@pytest.mark.parametrize(
    ("site", "value"),
    [
        ("treatment", 0.5),
        ("treatment", 2.0),
        ("kind", 3),
        ("kind", -1),
        ("age", torch.tensor([1.0, -1.0, 1.0, 1.0])),
    ],
)
def test_evidence_outside_the_support(site: str, value: Any) -> None:
    raises(
        errors.SupportError,
        f"'{site}'",
        "support",
        run=ask({"treatment": 1.0}, {**GOOD, site: value}),
    )


def test_infinite_evidence() -> None:
    raises(
        errors.CausalPPLError,
        "'outcome'",
        run=ask({"treatment": 1.0}, {**GOOD, "outcome": math.inf}),
    )


def test_a_hard_intervention_outside_the_support() -> None:
    for run in (seeded_do({"kind": 7}), ask({"kind": 7}, GOOD)):
        raises(errors.SupportError, "'kind'", "support", run=run, builtin=ValueError)
    raises(errors.SupportError, "'age'", run=ask({"age": -1.0}, GOOD))


def test_a_fraction_as_evidence_on_an_integer_site() -> None:
    raises(
        errors.CausalPPLError, "'kind'", "1.5", run=ask({"treatment": 1.0}, {**GOOD, "kind": 1.5})
    )


def test_evidence_that_is_no_value() -> None:
    raises(errors.EvidenceError, "'kind'", run=ask({"treatment": 1.0}, {"kind": "two"}))
    raises(errors.EvidenceError, "mapping", run=ask({"treatment": 1.0}, ["kind"]))


# --- Evidence -----------------------------------------------------------------------------------


def coins() -> None:
    a = pyro.sample("a", dist.Bernoulli(0.5))
    b = pyro.sample("b", dist.Bernoulli(0.5))
    pyro.deterministic("both", a * b)
    pyro.sample("always", dist.Bernoulli(torch.ones(())))


def test_evidence_of_probability_zero_on_a_deterministic_site() -> None:
    raises(errors.ImpossibleEvidenceError, "both", run=ask({"a": 1.0}, {"both": 3.0}, coins))
    raises(
        errors.ImpossibleEvidenceError, "both", run=ask({"a": 1.0}, {"a": 0.0, "both": 1.0}, coins)
    )
    raises(
        errors.ImpossibleEvidenceError,
        "both",
        run=ask({"a": 1.0}, {"a": 0.0, "b": 1.0, "both": 1.0}, coins),
    )


def test_evidence_of_probability_zero_on_a_sample_site() -> None:
    raises(
        errors.ImpossibleEvidenceError,
        "always",
        run=ask({"a": 1.0}, {"a": 0.0, "b": 1.0, "always": 0.0}, coins),
    )
    raises(errors.ImpossibleEvidenceError, "always", run=ask({"a": 1.0}, {"always": 0.0}, coins))


def test_evidence_on_a_site_that_do_removed() -> None:
    program = cp.do(model, {"treatment": 1.0})
    raises(
        errors.EvidenceError, "'treatment'", "do", run=ask({"kind": 1}, {"treatment": 0.0}, program)
    )
    raises(
        errors.EvidenceError, "'treatment'", "do", run=ask({"kind": 1}, {"treatment": 1.0}, program)
    )


def test_point_evidence_on_a_continuous_deterministic_site() -> None:
    def program() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        u = pyro.sample("u", N(0.0, 1.0))
        pyro.deterministic("total", x + u)

    raises(
        errors.EvidenceError, "'total'", "Interval", run=ask({"x": 1.0}, {"total": 1.0}, program)
    )


# --- Worlds -------------------------------------------------------------------------------------


def test_a_reserved_world_name() -> None:
    raises(
        errors.WorldNameError,
        "'factual'",
        "reserved",
        run=ask(None, GOOD, worlds={"factual": {"treatment": 1.0}}),
        builtin=ValueError,
    )


def test_a_world_named_twice() -> None:
    raises(
        errors.WorldNameError,
        "'counterfactual'",
        run=ask({"treatment": 1.0}, GOOD, worlds={"counterfactual": {"treatment": 0.0}}),
    )


@pytest.mark.parametrize("name", ["", 3, "a/b"])
def test_a_world_name_that_cannot_be_one(name: Any) -> None:
    raises(
        errors.WorldNameError,
        repr(name) if name else "empty",
        run=ask(None, GOOD, worlds={name: {"treatment": 1.0}}),
    )


def test_a_world_that_is_no_mapping() -> None:
    raises(errors.InterventionError, "treated", run=ask(None, GOOD, worlds={"treated": 1.0}))


@pytest.mark.parametrize("name", ["draw", "chain", "world"])
def test_reserved_plate_names(name: str) -> None:
    def program() -> None:
        with pyro.plate(name, 3):
            pyro.sample("x", N(0.0, 1.0))

    raises(errors.ProgramError, f"'{name}'", "plate", run=ask({"x": 1.0}, None, program))


# --- Methods ------------------------------------------------------------------------------------


def test_exact_with_something_latent() -> None:
    evidence = {k: v for k, v in GOOD.items() if k != "age"}
    raises(
        errors.LatentSiteError,
        "'age'",
        "latent",
        run=ask({"treatment": 1.0}, evidence, method=cp.Exact()),
    )
    evidence = {**GOOD, "age": torch.tensor([1.0, math.nan, 1.0, 1.0])}
    raises(
        errors.LatentSiteError,
        "1 of 4 entries of 'age'",
        "NaN",
        run=ask({"treatment": 1.0}, evidence, method=cp.Exact()),
    )


def test_enumeration_of_a_continuous_site() -> None:
    evidence = {k: v for k, v in GOOD.items() if k != "age"}
    raises(
        errors.MethodError, "'age'", run=ask({"treatment": 1.0}, evidence, method=cp.Enumeration())
    )


@pytest.mark.parametrize("method", ["nuts", 3, cp.NUTS], ids=str)
def test_what_is_no_method(method: Any) -> None:
    raises(
        errors.MethodError,
        "method",
        run=ask({"treatment": 1.0}, {"outcome": torch.zeros(4)}, method=method),
    )


def test_an_unknown_sampler() -> None:
    raises(errors.MethodError, "'stan'", "nutpie", "pyro", run=lambda: cp.NUTS(sampler="stan"))


@pytest.mark.parametrize("number", [0, -5, 2.5])
def test_a_number_of_draws_that_is_none(number: Any) -> None:
    raises(
        errors.CausalPPLError,
        "num_samples",
        str(number),
        run=ask({"treatment": 1.0}, None, num_samples=number),
    )


@pytest.mark.parametrize("method", ["Enumeration", "ImportanceSampling", "NUTS"])
def test_a_randomly_subsampled_plate_is_refused(method: str) -> None:
    def program() -> None:
        p = pyro.sample("p", dist.Bernoulli(0.5) if method == "Enumeration" else N(0.0, 1.0))
        with pyro.plate("units", 10, subsample_size=3):
            pyro.sample("y", N(p, 1.0), obs=torch.zeros(3))

    raises(
        errors.MethodError,
        "'units'",
        "subsampl",
        run=ask({"p": 1.0}, None, program, method=getattr(cp, method)()),
    )


def test_posterior_samples_that_do_not_fit() -> None:
    def program() -> None:
        z = pyro.sample("z", N(0.0, 1.0))
        pyro.sample("y", N(z, 1.0), obs=torch.tensor(1.0))

    for samples, parts in (
        ({"zz": torch.zeros(5)}, ("zz", "'z'")),
        ({}, ("'z'",)),
        ({"z": torch.zeros(5, 3)}, ("'z'", "(5, 3)")),
    ):
        raises(
            errors.CausalPPLError,
            *parts,
            run=ask({"z": 1.0}, None, program, method=cp.PosteriorSamples(samples)),
        )


# --- Mechanisms ---------------------------------------------------------------------------------


class Odd(dist.TorchDistribution):
    """A law nobody has told causalppl the mechanism of: a fair sign times a number."""

    arg_constraints = {"size": torch.distributions.constraints.positive}  # noqa: RUF012
    support = torch.distributions.constraints.real

    def __init__(self, size: torch.Tensor, validate_args: bool | None = None) -> None:
        self.size = torch.as_tensor(size)
        super().__init__(self.size.shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Odd:
        return Odd(self.size.expand(batch_shape))

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.size * (2 * torch.randint(0, 2, shape) - 1)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return torch.full_like(value, math.log(0.5))


def odd_one() -> None:
    x = pyro.sample("x", dist.Bernoulli(0.5))
    pyro.sample("odd", Odd(1.0 + x))
    pyro.sample("y", N(x, 1.0))


ODD = {"x": 0.0, "odd": 1.0, "y": 0.2}


def test_a_downstream_site_without_a_mechanism() -> None:
    raises(
        errors.NoMechanismError,
        "'odd'",
        "Odd",
        "register_mechanism",
        run=ask({"x": 1.0}, ODD, odd_one),
        builtin=TypeError,
    )


def test_a_site_without_a_mechanism_is_fine_while_its_parents_stay() -> None:
    worlds = ask({"y": 5.0}, ODD, odd_one)()
    assert float(worlds.tensor("odd", world="counterfactual")[0]) == 1.0
    worlds = ask({"odd": -3.0}, ODD, odd_one)()
    assert float(worlds.tensor("odd", world="counterfactual")[0]) == -3.0


def test_a_wrapper_whose_base_has_no_mechanism() -> None:
    for fn in (Odd(torch.ones(3)).to_event(1), Odd(torch.ones(())).expand([3]).mask(True)):
        raises(errors.NoMechanismError, "Odd", run=lambda fn=fn: cp.mechanism_for(fn))


def test_an_unknown_mechanism_name() -> None:
    raises(
        errors.NoMechanismError,
        "'afine'",
        "'affine'",
        run=lambda: cp.mechanism_for(N(0.0, 1.0), "afine"),
    )

    def program() -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        pyro.sample("y", N(x, 1.0), infer={"mechanism": "afine"})

    raises(
        errors.NoMechanismError,
        "'y'",
        "'afine'",
        "'affine'",
        run=ask({"x": 1.0}, {"x": 0.0, "y": 0.0}, program),
    )


def test_a_mechanism_for_an_unknown_site() -> None:
    if not hasattr(cp, "set_mechanism"):
        pytest.skip("cp.set_mechanism is not there yet")
    program = cp.set_mechanism(model, {"outcme": "affine"})
    raises(
        errors.UnknownSiteError, "outcme", "'outcome'", run=ask({"treatment": 1.0}, GOOD, program)
    )


def test_families_that_differ_between_worlds() -> None:
    def program() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        pyro.sample("y", N(0.0, 1.0) if x > 0 else dist.Exponential(1.0))

    raises(
        errors.IncompatibleMechanismError,
        "'y'",
        "Normal",
        "Exponential",
        run=ask({"x": 0.0}, {"x": 1.0, "y": 0.5}, program),
    )


def test_shapes_that_differ_between_worlds() -> None:
    def program() -> None:
        n = pyro.sample("n", dist.Categorical(torch.ones(4) / 4))
        pyro.sample("y", N(torch.zeros(int(n) + 1), 1.0).to_event(1))

    raises(
        errors.IncompatibleMechanismError,
        "'y'",
        run=ask({"n": 0}, {"n": 2, "y": torch.zeros(3)}, program),
    )


# --- Programs -----------------------------------------------------------------------------------


def random_outside() -> None:
    x = pyro.sample("x", N(0.0, 1.0))
    pyro.sample("y", N(x + torch.rand(()), 1.0))


@pytest.mark.parametrize("evidence", [None, {"x": 0.0, "y": 1.0}], ids=["prior", "observed"])
def test_a_program_that_is_random_outside_its_sites(evidence: Any) -> None:
    raises(
        errors.NondeterministicProgramError,
        "torch.rand",
        "train",
        "'y'",
        run=ask({"x": 1.0}, evidence, random_outside),
    )


def test_a_module_in_train_mode_with_dropout() -> None:
    class Model(pyro.nn.PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = torch.nn.Dropout(0.5)

        def forward(self) -> None:
            x = pyro.sample("x", N(torch.ones(10), 1.0).to_event(1))
            pyro.sample("y", N(self.dropout(x).sum(), 1.0))

    program = Model()
    evidence = {"x": torch.ones(10), "y": 1.0}
    raises(
        errors.NondeterministicProgramError,
        "train",
        run=ask({"x": torch.zeros(10)}, evidence, program),
    )
    worlds = ask({"x": torch.zeros(10)}, evidence, program.eval())()
    assert float(worlds.tensor("y", world="counterfactual")[0]) == pytest.approx(-9.0, abs=1e-4)


def test_what_is_no_program() -> None:
    raises(errors.ProgramError, "callable", run=ask({"x": 1.0}, None, "model"))
    raises(errors.ProgramError, run=lambda: cp.do(3, {"x": 1.0}))


class Mine(Exception):
    pass


@pytest.mark.parametrize("when", ["always", "in the other world"])
def test_the_programs_own_exception_passes_through(when: str) -> None:
    error = Mine("as it was")

    def program() -> None:
        x = pyro.sample("x", dist.Bernoulli(0.5))
        if when == "always" or x > 0:
            raise error
        pyro.sample("y", N(x, 1.0))

    before = torch.get_rng_state()
    with pytest.raises(Mine) as caught:
        ask({"x": 1.0}, {"x": 0.0, "y": 0.0}, program)()
    assert caught.value is error
    assert pyro.poutine.runtime._PYRO_STACK == []
    assert torch.equal(torch.get_rng_state(), before)


def test_a_keyerror_of_the_program_is_the_programs() -> None:
    def program() -> None:
        pyro.sample("x", N(0.0, 1.0))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        ask({"x": 1.0}, None, program)()
    assert not isinstance(caught.value, errors.CausalPPLError)


def test_errors_are_one_message_not_a_chain_of_internals() -> None:
    """What a user reads first is the sentence; an internal exception is not shown as its cause."""
    for run in (
        ask({"treatmnt": 1.0}, GOOD),
        ask({"age": torch.ones(3)}, GOOD),
        ask({"treatment": math.nan}, GOOD),
    ):
        with pytest.raises(errors.CausalPPLError) as caught:
            run()
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__
