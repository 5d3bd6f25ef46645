"""The NUTS engine against closed forms and quadrature, its fallbacks, and what it must leave alone."""

from __future__ import annotations

import logging
import math
import threading
import warnings

import numpy as np
import pytest
import torch
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor

from causalppl.errors import InferenceError, MethodError, ShapeError
from causalppl.inference import log_density as engine
from causalppl.inference.convergence import convergence
from causalppl.inference.nutpie_sampler import NutsDraws, sample_nuts

STANDARD_ERRORS = 5.0


def normal(x: Tensor) -> Tensor:
    return -0.5 * (x**2).sum()


def starts(dim: int) -> Tensor:
    return torch.randn(4, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def branching(x: Tensor) -> Tensor:
    """A Python branch on a value: correct, and impossible to trace."""
    return normal(x) if float(x.detach()[0]) > 0 else -0.5 * (x**2).sum()


def check_mean(draws: Tensor, truth: float) -> None:
    """The mean over chains and draws, within Monte Carlo error by the chains' own effective size."""
    ess = convergence(draws).ess_bulk
    assert ess > 100
    error = STANDARD_ERRORS * float(draws.std()) / math.sqrt(ess)
    assert float(draws.mean()) == pytest.approx(truth, abs=error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_correlated_normal(dtype: torch.dtype) -> None:
    covariance = torch.tensor([[1.0, 1.7, 0.2], [1.7, 4.0, 0.5], [0.2, 0.5, 0.25]], dtype=dtype)
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=dtype)
    precision = torch.linalg.inv(covariance)

    def log_density(x: Tensor) -> Tensor:
        return -0.5 * (x - mean) @ precision @ (x - mean)

    result = sample_nuts(log_density, starts(3).to(dtype), num_samples=700, warmup=300, seed=1)
    assert result.draws.shape == (4, 700, 3)
    assert result.draws.dtype == dtype
    assert (result.executor, result.notes, result.warmup) == ("traced", (), 300)
    assert result.step_sizes.shape == (4,)
    assert bool((result.step_sizes > 0).all())
    assert result.evaluations > 4 * 700
    assert convergence(result.draws).rhat < 1.02
    for i in range(3):
        check_mean(result.draws[..., i], float(mean[i]))
        for j in range(i + 1):
            centred = (result.draws[..., i] - mean[i]) * (result.draws[..., j] - mean[j])
            check_mean(centred, float(covariance[i, j]))


def test_funnel() -> None:
    def log_density(x: Tensor) -> Tensor:
        scale = torch.distributions.Normal(0.0, 1.0).log_prob(x[0])
        return scale + torch.distributions.Normal(0.0, (x[0] / 2).exp()).log_prob(x[1:]).sum()

    start = starts(4)
    settings = {"num_samples": 1500, "warmup": 500, "compile": False}
    result = sample_nuts(log_density, start, seed=2, target_accept=0.95, **settings)
    assert result.executor == "traced"
    check_mean(result.draws[..., 0], 0.0)
    check_mean(result.draws[..., 0] ** 2, 1.0)
    check_mean(result.draws[..., 1], 0.0)
    check_mean((result.draws[..., 2].abs() > 1.0).double(), _funnel_tail())


def _funnel_tail() -> float:
    """P(|x| > 1) where x ~ Normal(0, exp(v / 2)) and v ~ Normal(0, 1), by quadrature."""
    v = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    density = torch.distributions.Normal(0.0, 1.0).log_prob(v).exp()
    inside = torch.special.erfc((-v / 2).exp() / math.sqrt(2))
    return float(torch.trapezoid(density * inside, v))


def test_logistic_regression_against_quadrature() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, generator=generator, dtype=torch.float64)
    y = (torch.rand(60, generator=generator) < torch.sigmoid(0.5 + 1.5 * x)).double()

    def log_density(b: Tensor) -> Tensor:
        likelihood = torch.distributions.Bernoulli(logits=b[0] + b[1] * x).log_prob(y).sum()
        return likelihood + torch.distributions.Normal(0.0, 2.0).log_prob(b).sum()

    grid = torch.linspace(-4, 6, 201, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    logs = torch.func.vmap(log_density)(points)
    weights = torch.softmax(logs, 0)
    result = sample_nuts(
        log_density, torch.zeros(4, 2).double(), num_samples=800, warmup=300, seed=4
    )
    assert result.executor == "traced"
    for i in range(2):
        mean = float(weights @ points[:, i])
        check_mean(result.draws[..., i], mean)
        check_mean((result.draws[..., i] - mean) ** 2, float(weights @ (points[:, i] - mean) ** 2))


def run(log_density: engine.LogDensity = normal, **changes: object) -> NutsDraws:
    settings: dict[str, object] = {"num_samples": 100, "warmup": 100, "seed": 0, **changes}
    start = settings.pop("initial", torch.ones(2, 2).double())
    return sample_nuts(log_density, start, **settings)  # type: ignore[arg-type]


def test_a_seed_reproduces_exactly_and_chains_differ() -> None:
    first, second, other = run(seed=5), run(seed=5), run(seed=6)
    assert torch.equal(first.draws, second.draws)
    assert not torch.equal(first.draws, other.draws)
    assert not torch.equal(first.draws[0], first.draws[1])
    one_chain = run(seed=5, initial=torch.ones(1, 2).double())
    assert torch.equal(one_chain.draws[0], first.draws[0])
    assert run(seed=-1).draws.shape == (2, 100, 2)


def test_constants_burned_into_a_trace_are_caught() -> None:
    def log_density(x: Tensor) -> Tensor:
        return normal(x) / (1.0 + len(x[x > 0]))  # the length becomes a Python number

    graph = engine._trace(log_density, torch.ones(2).double())
    wrong = engine._run_graph(graph)(-torch.ones(2).double())[0]
    assert float(wrong) != float(log_density(-torch.ones(2).double()))  # tracing alone is silent
    result = run(log_density)
    assert result.executor == "eager"
    assert "does not reproduce" in result.notes[0]


def test_constants_that_only_draws_reveal_are_caught() -> None:
    def log_density(x: Tensor) -> Tensor:
        return -0.5 * ((x - 35.0) ** 2).sum() / (1.0 + 3.0 * len(x[x > 29.0]))

    start = torch.full((2, 1), 22.0).double()
    pair = engine.value_and_gradient(log_density, start[0], evaluations=1)
    assert pair.executor == "traced"  # nothing near the initial point tells
    result = run(log_density, initial=start, num_samples=500, warmup=300)
    assert result.executor == "eager"
    assert "disagreed" in result.notes[-1]
    check_mean((result.draws - 35.0) ** 2, _widened_variance())


def _widened_variance() -> float:
    x = torch.linspace(0, 70, 200001, dtype=torch.float64)
    density = (-0.5 * (x - 35) ** 2 / torch.where(x > 29, 4.0, 1.0)).exp()
    return float((density * (x - 35) ** 2).sum() / density.sum())


def test_untraceable_programs_run_eagerly_on_the_callers_thread() -> None:
    threads = set()

    def log_density(x: Tensor) -> Tensor:
        threads.add(threading.get_ident())
        return branching(x)

    with torch.no_grad():
        result = run(log_density, num_samples=300)
    assert result.executor == "eager"
    assert "cannot be traced" in result.notes[0]
    assert threads == {threading.get_ident()}
    check_mean(result.draws[..., 0] ** 2, 1.0)


def test_executors_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "worth_compiling", lambda *_: True)
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
    y = x.sum(1)

    def log_density(b: Tensor) -> Tensor:
        return torch.distributions.Normal(x @ b[:3], b[3].exp()).log_prob(y).sum() + normal(b)

    start = torch.zeros(4).double()
    plain = engine.eager_value_and_gradient(log_density)
    for compile in (False, True):
        pair = engine.value_and_gradient(log_density, start, evaluations=1, compile=compile)
        can = compile and engine.has_cpp_compiler()
        assert pair.executor == ("compiled" if can else "traced")
        for k in range(3):
            point = torch.full((4,), 0.3 * k - 0.4).double()
            for ours, expected in zip(pair.evaluate(point), plain(point), strict=True):
                torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "worth_compiling", lambda *_: True)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    result = run()
    assert result.executor == "traced"
    assert "no C++ compiler" in result.notes[0]
    assert torch.equal(result.draws, run(compile=False).draws)


def test_when_inductor_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import torch._inductor

    def fail(*_: object, **__: object) -> None:
        logging.getLogger("torch._inductor").error("noise")
        warnings.warn("noise", stacklevel=1)
        raise RuntimeError("CppCompileError: no header\nand more")

    monkeypatch.setattr(engine, "worth_compiling", lambda *_: True)
    monkeypatch.setattr(engine, "has_cpp_compiler", lambda: True)
    monkeypatch.setattr(torch._inductor, "compile", fail)
    result = run()
    assert result.executor == "traced"
    assert result.notes == (
        "compiling failed (RuntimeError: CppCompileError: no header); "
        "the log density runs as a traced graph",
    )
    assert capfd.readouterr() == ("", "")


def test_a_wrong_compilation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "worth_compiling", lambda *_: True)
    monkeypatch.setattr(engine, "has_cpp_compiler", lambda: True)
    monkeypatch.setattr(engine, "_compile", lambda *_: lambda x: (normal(x) + 0.1, -x))
    result = run()
    assert result.executor == "traced"
    assert "differs" in result.notes[0]


def test_compiling_is_a_matter_of_the_work_ahead() -> None:
    graph = engine._trace(normal, torch.ones(3))
    assert not engine.worth_compiling(graph, 1_000)
    assert engine.worth_compiling(graph, 10_000_000)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_region_without_density(bad: float) -> None:
    def log_density(x: Tensor) -> Tensor:
        return torch.where(x[0] > 0, normal(x), bad)

    result = run(log_density, num_samples=1500, warmup=500)
    assert result.executor == "traced"
    assert bool((result.draws[..., 0] > 0).all())
    check_mean(result.draws[..., 0], math.sqrt(2 / math.pi))


def test_a_failing_factorisation_is_outside_the_support() -> None:
    def log_density(x: Tensor) -> Tensor:
        matrix = torch.eye(2, dtype=x.dtype) + x[0] * torch.tensor([[0.0, 1.0], [1.0, 0.0]]).to(x)
        return normal(x) + torch.linalg.cholesky(matrix).diagonal().log().sum()

    for function in (log_density, lambda x: log_density(x) + 0.0 * float(x.detach()[0])):
        result = run(function, initial=torch.full((2, 1), 0.1).double(), num_samples=400)
        assert bool((result.draws.abs() < 1).all())


def test_a_start_at_the_mode() -> None:
    check_mean(run(initial=torch.zeros(2, 2).double(), num_samples=300).draws[..., 0], 0.0)


def test_an_exception_of_the_program_passes_through(capfd: pytest.CaptureFixture[str]) -> None:
    class Mine(Exception):
        pass

    for kind in (Mine, KeyboardInterrupt):
        calls = []

        def log_density(x: Tensor, kind: type[BaseException] = kind, calls: list = calls) -> Tensor:
            calls.append(0)
            if len(calls) > 300:
                raise kind("mine")
            return branching(x)

        with pytest.raises(kind, match="mine"):
            run(log_density, num_samples=10_000)
    assert capfd.readouterr() == ("", "")


class Recorder:
    def __init__(self) -> None:
        self.total: int | None = None
        self.steps, self.stopped, self.threads = 0, 0, set[int]()

    def start(self, description: str, total: int | None = None) -> None:
        self.total = total

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.steps += steps
        self.threads.add(threading.get_ident())

    def stop(self) -> None:
        self.stopped += 1


@pytest.mark.parametrize("log_density", [normal, branching])
def test_progress_counts_every_step(log_density: engine.LogDensity) -> None:
    recorder = Recorder()
    run(log_density, progress=recorder)
    assert (recorder.total, recorder.steps, recorder.stopped) == (400, 400, 1)
    assert recorder.threads == {threading.get_ident()}


def snapshot() -> dict[str, object]:
    import torch._dynamo.config
    import torch._inductor.config

    return {
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "validate": torch.distributions.Distribution._validate_args,
        "filters": list(warnings.filters),
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),  # type: ignore[index, union-attr]
        "inductor": torch._inductor.config.get_config_copy(),
        "dynamo": torch._dynamo.config.get_config_copy(),
        "levels": [logging.getLogger(n).level for n in ("", "torch", "torch._inductor")],
        "stack": list(_PYRO_STACK),
    }


@pytest.mark.parametrize("log_density", [normal, branching])
def test_nothing_global_changes(
    log_density: engine.LogDensity,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(engine, "worth_compiling", lambda *_: True)
    run(log_density)  # imports happen once
    before, start = snapshot(), torch.ones(2, 2).double()
    result = run(log_density, initial=start)
    assert snapshot() == before
    assert torch.equal(start, torch.ones(2, 2).double())
    assert not result.draws.requires_grad
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"initial": torch.zeros(3)}, ShapeError, r"shape \(3,\)"),
        ({"initial": torch.zeros(2, 0)}, ShapeError, "neither of them 0"),
        ({"initial": torch.zeros(2, 2).long()}, MethodError, "int64"),
        ({"num_samples": 0}, MethodError, "num_samples=0"),
        ({"warmup": 0}, MethodError, "warmup=0"),
        ({"target_accept": 1.0}, MethodError, "target_accept=1.0"),
        ({"log_density": lambda x: -(x**2)}, ShapeError, "scalar"),
        ({"log_density": lambda x: normal(x) * math.nan}, InferenceError, "chain 0 is nan"),
        ({"log_density": lambda x: normal(x[:1])}, InferenceError, r"coordinates \[1\]"),
    ],
)
def test_misuse(changes: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(**changes)  # type: ignore[arg-type]
