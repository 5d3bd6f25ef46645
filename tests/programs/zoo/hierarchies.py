"""Multilevel models: groups, crossed factors, item response, and plates of every kind."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from .entry import Entry, normal_data, uniform_data

N = dist.Normal

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
AT_BATS = torch.tensor([45.0, 45.0, 40.0, 30.0, 20.0])
HITS = torch.tensor([18.0, 17.0, 12.0, 9.0, 4.0])
COUNTY = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3])
FLOOR = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
RADON = normal_data(1, 8)


def schools_centred(error: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    mu = pyro.sample("mu", N(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(y)):
        theta = pyro.sample("theta", N(mu, tau))
        return pyro.sample("y", N(theta, error), obs=y)


def schools_noncentred(error: torch.Tensor, y: torch.Tensor | None = None) -> None:
    mu = pyro.sample("mu", N(0.0, 5.0))
    log_tau = pyro.sample("log_tau", N(1.0, 1.0))
    with pyro.plate("schools", len(error)):
        eta = pyro.sample("eta", N(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + log_tau.exp() * eta)
        pyro.sample("y", N(theta, error), obs=y)


def baseball(at_bats: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
    m = pyro.sample("m", dist.Uniform(0.0, 1.0))
    kappa = pyro.sample("kappa", dist.Pareto(1.0, 1.5))
    with pyro.plate("players", len(hits)):
        phi = pyro.sample("phi", dist.Beta(m * kappa, (1 - m) * kappa))
        return pyro.sample("hits", dist.Binomial(at_bats, phi), obs=hits)


def baseball_logits(at_bats: torch.Tensor, hits: torch.Tensor) -> torch.Tensor:
    loc = pyro.sample("loc", N(-1.0, 1.0))
    scale = pyro.sample("scale", dist.HalfCauchy(1.0))
    with pyro.plate("players", len(hits)):
        alpha = pyro.sample("alpha", N(loc, scale))
        return pyro.sample("hits", dist.Binomial(at_bats, logits=alpha), obs=hits)


def radon(county: torch.Tensor, floor: torch.Tensor, y: torch.Tensor) -> None:
    """Intercepts by county, looked up by an index outside their plate."""
    level = pyro.sample("level", N(0.0, 1.0))
    slope = pyro.sample("slope", N(0.0, 1.0))
    sigma = pyro.sample("sigma", dist.HalfNormal(1.0))
    with pyro.plate("counties", 4):
        a = pyro.sample("a", N(level, 0.5))
    with pyro.plate("homes", len(y)):
        pyro.sample("y", N(a[county] + slope * floor, sigma), obs=y)


def correlated_slopes(group: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> None:
    """Intercepts and slopes with an LKJ prior on their correlation."""
    sigma = pyro.sample("sigma", dist.HalfNormal(torch.ones(2)).to_event(1))
    chol = pyro.sample("chol", dist.LKJCholesky(2, 2.0))
    scale_tril = sigma.unsqueeze(-1) * chol
    with pyro.plate("groups", 4):
        b = pyro.sample("b", dist.MultivariateNormal(torch.zeros(2), scale_tril=scale_tril))
    with pyro.plate("units", len(x)):
        pyro.sample("y", N(b[group, 0] + b[group, 1] * x, 0.5), obs=y)


def concentrated_correlations(y: torch.Tensor) -> None:
    """The concentration of an LKJ prior is itself uncertain."""
    eta = pyro.sample("eta", dist.LogNormal(0.0, 0.5))
    chol = pyro.sample("chol", dist.LKJCholesky(3, eta))
    with pyro.plate("units", len(y)):
        pyro.sample("y", dist.MultivariateNormal(torch.zeros(3), scale_tril=chol), obs=y)


def pupils_in_classes() -> None:
    """Three levels of nested plates, each around the next."""
    with pyro.plate("schools", 2, dim=-3):
        school = pyro.sample("school", N(0.0, 1.0))
        with pyro.plate("classes", 3, dim=-2):
            room = pyro.sample("class", N(school, 0.5))
            with pyro.plate("pupils", 4, dim=-1):
                pyro.sample("score", N(room, 1.0))


def rasch(answers: torch.Tensor) -> None:
    """One-parameter item response: persons crossed with items."""
    persons = pyro.plate("persons", answers.shape[0], dim=-2)
    items = pyro.plate("items", answers.shape[1], dim=-1)
    with persons:
        ability = pyro.sample("ability", N(0.0, 1.0))
    with items:
        difficulty = pyro.sample("difficulty", N(0.0, 1.0))
    with persons, items:
        pyro.sample("answer", dist.Bernoulli(logits=ability - difficulty), obs=answers)


def two_parameter_items(answers: torch.Tensor) -> None:
    spread = pyro.sample("spread", dist.HalfNormal(1.0))
    items = pyro.plate("items", answers.shape[1], dim=-1)
    with items:
        slope = pyro.sample("slope", dist.LogNormal(0.0, 0.3))
        difficulty = pyro.sample("difficulty", N(0.0, spread))
    with pyro.plate("persons", answers.shape[0], dim=-2):
        ability = pyro.sample("ability", N(0.0, 1.0))
        logits = pyro.deterministic("logits", slope * (ability - difficulty))
        with items:
            pyro.sample("answer", dist.Bernoulli(logits=logits), obs=answers)


def subsampled_units(data: torch.Tensor) -> None:
    mean = pyro.sample("mean", N(0.0, 1.0))
    with pyro.plate("units", len(data), subsample_size=3) as index:
        local = pyro.sample("local", N(mean, 1.0))
        pyro.sample("y", N(local, 0.5), obs=data[index])


def sequential_plate(data: torch.Tensor) -> None:
    """The plate as a Python loop: one site for each unit."""
    mean = pyro.sample("mean", N(0.0, 1.0))
    for i in pyro.plate("units", len(data)):
        local = pyro.sample(f"local_{i}", N(mean, 1.0))
        pyro.sample(f"y_{i}", N(local, 0.5), obs=data[i])


def loop_in_a_plate(data: torch.Tensor) -> None:
    """A sequential plate inside a vectorised one."""
    with pyro.plate("units", data.shape[0]):
        total = pyro.sample("start", N(0.0, 1.0))
        for day in pyro.plate("days", data.shape[1]):
            total = total + pyro.sample(f"step_{day}", N(0.1 * total, 1.0))
            pyro.sample(f"y_{day}", N(total, 0.5), obs=data[:, day])


def horseshoe(x: torch.Tensor, y: torch.Tensor) -> None:
    tau = pyro.sample("tau", dist.HalfCauchy(0.1))
    with pyro.plate("coefficients", x.shape[1]):
        local = pyro.sample("local", dist.HalfCauchy(1.0))
        beta = pyro.sample("beta", N(0.0, tau * local))
    with pyro.plate("units", len(y)):
        pyro.sample("y", N(x @ beta, 1.0), obs=y)


def growth_curves(weights: torch.Tensor) -> None:
    """Rats weighed at five ages: one event of five numbers for each rat."""
    ages = torch.linspace(-1.0, 1.0, weights.shape[1])
    alpha = pyro.sample("alpha", N(0.0, 1.0))
    beta = pyro.sample("beta", N(0.0, 1.0))
    with pyro.plate("rats", weights.shape[0]):
        a = pyro.sample("a", N(alpha, 0.5))
        b = pyro.sample("b", N(beta, 0.5))
        mean = a.unsqueeze(-1) + b.unsqueeze(-1) * ages
        pyro.sample("weight", N(mean, 0.3).to_event(1), obs=weights)


def factorised_ratings(ratings: torch.Tensor) -> None:
    """Users and films with three traits each; their product by einsum."""
    users, films = ratings.shape
    with pyro.plate("users", users):
        u = pyro.sample("u", N(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("films", films):
        v = pyro.sample("v", N(torch.zeros(3), 1.0).to_event(1))
    mean = torch.einsum("uk,fk->uf", u, v)
    pyro.sample("ratings", N(mean, 0.5).to_event(2), obs=ratings)


def overdispersed_polls(yes: torch.Tensor, asked: torch.Tensor) -> None:
    share = pyro.sample("share", dist.Beta(2.0, 2.0))
    with pyro.plate("states", len(yes)):
        pyro.sample("yes", dist.BetaBinomial(10 * share, 10 * (1 - share), asked), obs=yes)


def funnel() -> torch.Tensor:
    v = pyro.sample("v", N(0.0, 3.0))
    return pyro.sample("x", N(torch.zeros(4), torch.exp(v / 2)).to_event(1))


def variance_components(y: torch.Tensor) -> None:
    """Batches by machines, with rows and columns of a table as random effects."""
    rows = pyro.plate("rows", y.shape[0], dim=-2)
    columns = pyro.plate("columns", y.shape[1], dim=-1)
    s_row = pyro.sample("s_row", dist.Gamma(2.0, 2.0))
    s_column = pyro.sample("s_column", dist.InverseGamma(3.0, 2.0))
    with rows:
        r = pyro.sample("r", N(0.0, s_row))
    with columns:
        c = pyro.sample("c", N(0.0, s_column))
    with rows, columns:
        cell = pyro.sample("cell", N(r + c, 0.2))
        pyro.sample("y", N(cell - cell.mean(), 0.1), obs=y)


STEPS = range(3)
ANSWERS = (uniform_data(2, 5, 3) > 0.5).float()

#: Pyro yields the indices of a sequential plate as Python numbers, which a trace refuses.
NUMBERS = "a sequential plate turns indices into numbers, so the worlds run by vmap"

ENTRIES = (
    Entry(
        "eight schools, centred",
        schools_centred,
        {"mu": 3.0},
        "theta y",
        args=(ERRORS, EFFECTS),
        law="mu theta y",
    ),
    Entry(
        "eight schools, non-centred",
        schools_noncentred,
        {"log_tau": -1.0},
        "theta y",
        args=(ERRORS,),
        kwargs={"y": EFFECTS},
        law="theta y",
    ),
    Entry(
        "baseball, beta-binomial",
        baseball,
        {"m": 0.3},
        "phi hits",
        "phi",
        args=(AT_BATS, HITS),
        law="phi hits",
    ),
    Entry(
        "baseball, logits",
        baseball_logits,
        {"alpha": torch.tensor([0.0, 1.0, -1.0, 3.0, 2.0])},
        "hits",
        args=(AT_BATS, HITS),
    ),
    Entry("radon by county", radon, {"level": 2.0}, "a y", args=(COUNTY, FLOOR, RADON), law="a y"),
    Entry(
        "LKJ slopes, the scale",
        correlated_slopes,
        {"sigma": torch.tensor([0.1, 2.0])},
        "b y",
        args=(COUNTY, normal_data(3, 8), RADON),
    ),
    Entry(
        "LKJ slopes, the correlation",
        correlated_slopes,
        {"chol": torch.tensor([[1.0, 0.0], [0.6, 0.8]])},
        "b y",
        args=(COUNTY, normal_data(3, 8), RADON),
    ),
    Entry(
        "LKJ with an uncertain concentration",
        concentrated_correlations,
        {"eta": 5.0},
        "chol y",
        args=(normal_data(4, 6, 3),),
        needs=(dist.LKJCholesky(3, 1.0),),
    ),
    Entry(
        "pupils in classes in schools",
        pupils_in_classes,
        {"school": torch.tensor([2.0, -2.0]).reshape(2, 1, 1)},
        "class score",
        law="class score",
    ),
    Entry("pupils, one value for all classes", pupils_in_classes, {"class": 0.25}, "score"),
    Entry(
        "Rasch", rasch, {"difficulty": torch.tensor([-9.0, 0.0, 9.0])}, "answer", args=(ANSWERS,)
    ),
    Entry(
        "two-parameter item response",
        two_parameter_items,
        {"spread": 3.0},
        "difficulty logits answer",
        "difficulty logits",
        args=(ANSWERS,),
        law="logits answer",
    ),
    Entry(
        "subsampled plate", subsampled_units, {"mean": 1.0}, "local y", args=(normal_data(5, 9),)
    ),
    Entry(
        "sequential plate",
        sequential_plate,
        {"local_1": 4.0},
        "y_1",
        args=(normal_data(6, 3),),
        defects={"compiled": NUMBERS},
    ),
    Entry(
        "sequential plate, from the top",
        sequential_plate,
        {"mean": 4.0},
        " ".join(f"local_{i} y_{i}" for i in STEPS),
        args=(normal_data(6, 3),),
        defects={"compiled": NUMBERS},
    ),
    Entry(
        "loop in a plate",
        loop_in_a_plate,
        {"step_1": torch.tensor([3.0, 0.0])},
        "y_1 step_2 y_2",
        args=(normal_data(7, 2, 3),),
        defects={"compiled": NUMBERS},
    ),
    Entry(
        "horseshoe",
        horseshoe,
        {"tau": 1.0},
        "beta y",
        args=(normal_data(8, 6, 3), normal_data(9, 6)),
    ),
    Entry("growth curves", growth_curves, {"beta": 2.0}, "b weight", args=(normal_data(10, 4, 5),)),
    Entry(
        "factorised ratings",
        factorised_ratings,
        {"v": normal_data(11, 4, 3)},
        "ratings",
        args=(normal_data(12, 5, 4),),
    ),
    Entry(
        "overdispersed polls",
        overdispersed_polls,
        {"share": 0.95},
        "yes",
        args=(torch.tensor([3.0, 5.0, 1.0]), torch.tensor([10.0, 20.0, 10.0])),
        needs=(dist.BetaBinomial(1.0, 1.0, 1.0),),
    ),
    Entry("funnel", funnel, {"v": -2.0}, "x", law="v x"),
    Entry(
        "rows and columns",
        variance_components,
        {"s_column": 4.0},
        "c cell y",
        args=(normal_data(13, 3, 2),),
    ),
)
