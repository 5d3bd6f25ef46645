"""Python as people write it: recursion, branches, classes, scopes, parameters, masks, odd arguments."""

from __future__ import annotations

import functools
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.contrib.autoname import autoname, sample, scope
from torch.distributions import constraints

from .entry import Entry, normal_data

N = dist.Normal


def geometric(depth: int = 0) -> int:
    """A number of failures, by recursion."""
    again = pyro.sample(f"again_{depth}", dist.Bernoulli(0.6))
    if again == 1 and depth < 6:
        return 1 + geometric(depth + 1)
    return 0


def geometric_then_seen() -> None:
    count = geometric()
    pyro.sample("seen", N(float(count), 0.5))


def sentence(symbol: str = "S", path: str = "s", depth: int = 0) -> list[str]:
    """A tree from a small grammar: which sites there are follows the tree."""
    if symbol in ("dog", "cat", "runs"):
        return [symbol]
    rules = {
        "S": [["NP", "VP"], ["NP"]],
        "NP": [["dog"], ["cat"]],
        "VP": [["runs"], ["runs", "VP"]],
    }[symbol]
    logits = torch.zeros(len(rules)) if depth < 4 else torch.tensor([9.0, -9.0])
    chosen = int(pyro.sample(f"rule_{path}", dist.Categorical(logits=logits)))
    parts = [sentence(s, f"{path}{i}", depth + 1) for i, s in enumerate(rules[chosen])]
    return [word for part in parts for word in part]


def grammar() -> None:
    words = sentence()
    pyro.sample("length", N(float(len(words)), 0.1))


def branches() -> None:
    """Two models of the world; each has a site of its own, both end in y."""
    ill = pyro.sample("ill", dist.Bernoulli(0.5))
    if ill:
        fever = pyro.sample("fever", N(39.0, 0.5))
        pyro.sample("y", N(fever - 37, 0.1))
    else:
        pyro.sample("y", N(torch.zeros(()), 0.1))


def while_below() -> None:
    """A walk until a threshold: the number of steps is the answer."""
    drift = pyro.sample("drift", N(1.0, 0.2))
    position, steps = 0.0, 0
    while position < 3 and steps < 5:
        position = position + float(pyro.sample(f"step_{steps}", N(drift, 0.3)))
        steps += 1
    pyro.sample("steps", dist.Poisson(torch.tensor(float(steps))))


def keyword_arguments(*xs: float, scale: float = 1.0, **options: Any) -> dict[str, torch.Tensor]:
    a = pyro.sample("a", N(sum(xs), scale))
    b = pyro.sample("b", N(a * options["gain"], options.get("sd", 1.0)))
    return {"a": a, "b": b, "both": a + b}


class Callable:
    """An object with its own data."""

    def __init__(self, slope: float) -> None:
        self.slope = slope
        self.calls = 0

    def __call__(self, x: torch.Tensor) -> None:
        self.calls += 1
        with pyro.plate("units", len(x)):
            m = pyro.sample("m", N(self.slope * x, 1.0))
            pyro.sample("y", N(m, 0.5))


def partly(x: torch.Tensor, slope: float) -> torch.Tensor:
    m = pyro.sample("m", N(slope, 1.0))
    return pyro.sample("y", N(m * x, 0.5).to_event(1))


def parameters(x: torch.Tensor) -> None:
    """Parameters of every constraint, in the store."""
    slope = pyro.param("slope", torch.tensor(2.0))
    scale = pyro.param("scale", torch.tensor(0.5), constraint=constraints.positive)
    weights = pyro.param("weights", torch.tensor([0.2, 0.8]), constraint=constraints.simplex)
    with pyro.plate("units", len(x)):
        k = pyro.sample("k", dist.Categorical(weights))
        pyro.sample("y", N(slope * x + 3 * k, scale))


@scope(prefix="inner")
def scoped_part(x: torch.Tensor) -> torch.Tensor:
    loc = pyro.sample("loc", N(x, 1.0))
    return pyro.sample("value", N(loc, 0.1))


def scoped() -> None:
    """Names with a slash, made by scopes."""
    x = pyro.sample("x", N(0.0, 1.0))
    first = scoped_part(x)
    with scope(prefix="outer"):
        pyro.sample("y", N(first, 0.1))


@autoname
def automatic() -> None:
    """Sites named by the library."""
    x = sample(N(0.0, 1.0))
    y = sample(N(2 * x, 1.0))
    sample(dist.Exponential(torch.exp(y)))


def factor_mask_scale(x: torch.Tensor) -> None:
    z = pyro.sample("z", N(0.0, 1.0))
    pyro.factor("penalty", -0.5 * z.abs())
    with pyro.plate("units", len(x)), pyro.poutine.scale(scale=0.1):
        w = pyro.sample("w", N(z, 1.0))
        with pyro.poutine.mask(mask=x > 0):
            pyro.sample("y", N(w + x, 1.0), obs=x)


class Sign(dist.TorchDistribution):
    """A law of the user's own, with no mechanism: a fair sign."""

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012
    support = constraints.real

    def __init__(self) -> None:
        super().__init__(validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Sign:
        assert tuple(batch_shape) == ()
        return self

    def sample(self, sample_shape: Any = ()) -> torch.Tensor:
        return 2.0 * torch.randint(0, 2, torch.Size(sample_shape)) - 1

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        return torch.full_like(value, -0.6931472)


def sign_upstream() -> None:
    """The site without a mechanism stays as it is when what is below it is set."""
    sign = pyro.sample("sign", Sign())
    x = pyro.sample("x", N(sign, 0.5))
    pyro.sample("y", N(x * sign, 0.5))


def labelled_events() -> None:
    """Deterministic vectors inside a plate of their own size."""
    with pyro.plate("units", 3):
        x = pyro.sample("x", N(torch.zeros(3), 1.0).to_event(1))
        twice = pyro.deterministic("twice", 2 * x, event_dim=1)
        pyro.sample("y", N(twice, 1.0).to_event(1))


def one_site_many_shapes() -> None:
    """Scalars, vectors, matrices; integers, booleans and float64 in one program."""
    n = pyro.sample("n", dist.Binomial(6, torch.tensor(0.5)))
    wide = pyro.sample("wide", N(n.double() * torch.ones(2, dtype=torch.float64), 1.0).to_event(1))
    pyro.deterministic("large", wide > 3)
    pyro.deterministic("rounded", wide.round().long())
    pyro.sample("table", N(torch.outer(wide, wide), 1.0).to_event(2))


def in_place_loop() -> None:
    """A buffer filled in a loop over the entries of a site."""
    x = pyro.sample("x", N(torch.zeros(4), 1.0).to_event(1))
    out = torch.zeros(4)
    for i in range(4):
        out[i] = x[i] + (out[i - 1] if i else 0.0)
    pyro.sample("y", N(out, 0.1).to_event(1))


def nested_function() -> Any:
    """Helpers inside, a generator, a comprehension, a lambda, names from f-strings."""
    link = lambda v: torch.tanh(v)  # noqa: E731

    def ask(i: int, parent: torch.Tensor) -> torch.Tensor:
        return pyro.sample(f"q[{i}]", N(link(parent), 0.5))

    root = pyro.sample("root", N(0.0, 1.0))
    answers = [ask(i, root) for i in range(3)]
    total = sum(a for a in answers)
    return pyro.sample("total", N(total, 0.1)), None


def numbers_of_python(x: float) -> float:
    """Plain numbers out of the sites, and back."""
    a = float(pyro.sample("a", N(x, 1.0)))
    b = pyro.sample("b", N(max(a, 0.0), 0.5)).item()
    return round(float(pyro.sample("c", dist.LogNormal(min(b, 1.0), 0.1))), 2)


def complete(choice: str) -> None:
    """An argument of text chooses the model; a dictionary holds the parts."""
    parts = {"normal": N, "laplace": dist.Laplace, "gumbel": dist.Gumbel}
    a = pyro.sample("a", parts[choice](0.0, 1.0))
    pyro.sample("b", parts[choice](a, 1.0))


def dependent_truncation() -> None:
    """Bounds of a support that follow a parent."""
    low = pyro.sample("low", dist.HalfNormal(1.0))
    high = pyro.sample("high", dist.Uniform(low, low + 2))
    pyro.sample("between", dist.Uniform(low, high))


def expanded_and_reordered() -> None:
    """A distribution expanded by hand, with dimensions moved, squeezed and tiled."""
    x = pyro.sample("x", N(0.0, 1.0).expand([2, 3]).to_event(2))
    y = pyro.sample("y", N(x.transpose(0, 1).reshape(6).roll(1), 0.1).to_event(1))
    z = y.reshape(3, 2, 1).squeeze(-1).repeat(1, 2).unbind(-1)
    pyro.sample("z", N(torch.stack(z, 0).logsumexp(0), 0.1).to_event(1))


UNITS = normal_data(80, 4)

ENTRIES = (
    Entry(
        "geometric by recursion",
        geometric_then_seen,
        {"again_0": 0.0},
        "again_1 again_2 again_3 again_4 again_5 again_6 seen",
        "seen",
        varying=True,
        executor="sequential",
    ),
    Entry(
        "grammar",
        grammar,
        {"rule_s": 1},
        "rule_s1 rule_s11 rule_s111 rule_s1111 length",
        "length",
        varying=True,
        executor="sequential",
    ),
    Entry(
        "branches",
        branches,
        {"ill": 0.0},
        "fever y",
        "y",
        varying=True,
        executor="sequential",
    ),
    Entry(
        "walk until a threshold",
        while_below,
        {"drift": 3.5},
        "step_0 step_1 step_2 step_3 step_4 steps",
        "step_0",
        varying=True,
        executor="sequential",
    ),
    Entry(
        "args and kwargs",
        keyword_arguments,
        {"a": 3.0},
        "b",
        args=(1.0, 2.0),
        kwargs={"gain": 2.0, "scale": 0.5, "sd": 0.1},
        law="b",
    ),
    Entry("object with __call__", Callable(2.0), {"m": 1.0}, "y", args=(UNITS,)),
    Entry(
        "partial",
        functools.partial(partly, slope=2.0),
        {"m": 1.0},
        "y",
        args=(UNITS,),
    ),
    Entry(
        "parameters",
        parameters,
        {"k": torch.tensor([0, 1, 0, 1])},
        "y",
        args=(UNITS,),
        law="k y",
    ),
    Entry("scopes", scoped, {"x": 2.0}, "inner/loc inner/value outer/y"),
    Entry("scopes, an inner site", scoped, {"inner/loc": 2.0}, "inner/value outer/y"),
    Entry(
        "named automatically",
        automatic,
        {"automatic/Normal": 1.0},
        "automatic/Normal1 automatic/Exponential",
    ),
    Entry(
        "factor, mask and scale",
        factor_mask_scale,
        {"z": 2.0},
        "w y",
        args=(UNITS,),
    ),
    Entry("a law without a mechanism upstream", sign_upstream, {"x": 3.0}, "y"),
    Entry("a law without a mechanism set", sign_upstream, {"sign": 4.0}, "x y"),
    Entry(
        "vectors in a plate of their size",
        labelled_events,
        {"x": torch.tensor([1.0, 2.0, 3.0])},
        "twice y",
    ),
    Entry(
        "many shapes and types",
        one_site_many_shapes,
        {"n": 0.0},
        "wide large rounded table",
        "wide table",
        law="large rounded",
    ),
    Entry("written in place in a loop", in_place_loop, {"x": torch.arange(4.0)}, "y", law="y"),
    Entry("helpers inside", nested_function, {"root": 2.0}, "q[0] q[1] q[2] total", law="total"),
    Entry(
        "numbers of Python",
        numbers_of_python,
        {"a": 0.9},
        "b c",
        args=(0.5,),
        executor="sequential",
    ),
    Entry("family by argument", complete, {"a": 1.0}, "b", args=("laplace",), law="b"),
    Entry(
        "family by keyword argument",
        complete,
        {"a": 1.0},
        "b",
        kwargs={"choice": "gumbel"},
        law="b",
    ),
    Entry(
        "bounds from parents",
        dependent_truncation,
        {"low": 0.5},
        "high between",
        law="between",
    ),
    Entry("reshaped", expanded_and_reordered, {"x": normal_data(81, 2, 3)}, "y z", law="z"),
)
