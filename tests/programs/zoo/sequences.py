"""Time: hidden Markov models, random walks, epidemics, filters, panels and change points."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from .entry import Entry, normal_data

N = dist.Normal

MOVES = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]])
LEVELS = torch.tensor([-2.0, 0.0, 2.0])
SERIES = normal_data(30, 5)


def hmm_of_names(words: torch.Tensor) -> None:
    """States and symbols are categories, in a Python loop."""
    symbols = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    state = torch.tensor(0)
    for t, word in enumerate(words):
        state = pyro.sample(f"state_{t}", dist.Categorical(MOVES[state]))
        pyro.sample(f"word_{t}", dist.Categorical(symbols[state]), obs=word)


def hmm_markov(y: torch.Tensor) -> None:
    """Normal emissions, with ``pyro.markov`` and states marked for enumeration."""
    state = torch.tensor(1)
    for t in pyro.markov(range(len(y))):
        state = pyro.sample(
            f"state_{t}", dist.Categorical(MOVES[state]), infer={"enumerate": "parallel"}
        )
        pyro.sample(f"y_{t}", N(LEVELS[state], 1.0), obs=y[t])


def hmm_of_sequences(sequences: torch.Tensor, lengths: torch.Tensor) -> None:
    """Sequences of unequal lengths: a plate with a mask at each step."""
    stay = pyro.sample("stay", dist.Beta(8.0, 2.0))
    count, longest = sequences.shape
    change = (1 - stay) / 2
    moves = change * torch.ones(3, 3) + (stay - change) * torch.eye(3)
    with pyro.plate("sequences", count, dim=-1):
        state = torch.zeros(count, dtype=torch.long)
        for t in pyro.markov(range(longest)):
            with pyro.poutine.mask(mask=t < lengths):
                state = pyro.sample(f"state_{t}", dist.Categorical(moves[state]))
                pyro.sample(f"y_{t}", N(LEVELS[state], 0.5), obs=sequences[:, t])


def random_walk(y: torch.Tensor) -> None:
    drift = pyro.sample("drift", N(0.0, 1.0))
    with pyro.plate("days", len(y)):
        step = pyro.sample("step", N(drift, 0.3))
        path = pyro.deterministic("path", torch.cumsum(step, -1))
        pyro.sample("y", N(path, 0.1), obs=y)


def local_level(y: torch.Tensor) -> None:
    s = pyro.sample("s", dist.HalfNormal(1.0))
    level = torch.zeros(())
    for t in range(len(y)):
        level = pyro.sample(f"level_{t}", N(level, s))
        pyro.sample(f"y_{t}", N(level, 0.5), obs=y[t])


def local_trend(y: torch.Tensor) -> list[torch.Tensor]:
    """Level and slope; the observations are one site at the end."""
    level, slope, seen = torch.zeros(()), torch.zeros(()), []
    for t in range(len(y)):
        slope = pyro.sample(f"slope_{t}", N(0.9 * slope, 0.2))
        level = pyro.sample(f"level_{t}", N(level + slope, 0.3))
        seen.append(level)
    pyro.sample("y", N(torch.stack(seen), 0.5).to_event(1), obs=y)
    return seen


def autoregression(y: torch.Tensor) -> None:
    """Each observation depends on the one before, by index."""
    phi = pyro.sample("phi", dist.Uniform(-1.0, 1.0))
    before = torch.tensor(0.5)
    for t in range(len(y)):
        before = pyro.sample(f"y_{t}", N(phi * before, 0.5), obs=y[t])


def stochastic_volatility(y: torch.Tensor) -> None:
    h = pyro.sample("h_0", N(0.0, 1.0))
    for t in range(1, len(y)):
        h = pyro.sample(f"h_{t}", N(0.9 * h, 0.3))
        pyro.sample(f"r_{t}", dist.StudentT(5.0, 0.0, torch.exp(h / 2)), obs=y[t])


def epidemic(reported: torch.Tensor) -> torch.Tensor:
    """Susceptible, infected and recovered, in whole people."""
    contact = pyro.sample("contact", dist.Gamma(8.0, 8.0))
    s, i = torch.tensor(95.0), torch.tensor(5.0)
    for t in range(len(reported)):
        catch = 1 - torch.exp(-contact * i / 100)
        new = pyro.sample(f"new_{t}", dist.Binomial(s, catch))
        healed = pyro.sample(f"healed_{t}", dist.Binomial(i, torch.tensor(0.3)))
        s, i = s - new, i + new - healed
        pyro.sample(f"reported_{t}", dist.Poisson(0.5 * new + 0.1), obs=reported[t])
    return s


def renewal(y: torch.Tensor) -> None:
    """Infections by a convolution with the serial interval, written in place."""
    r = pyro.sample("r", dist.LogNormal(0.2, 0.3))
    kernel = torch.tensor([0.2, 0.5, 0.3])
    noise = pyro.sample("noise", N(torch.zeros(len(y)), 0.1).to_event(1))
    infections = torch.ones(len(y) + 3)
    for t in range(len(y)):
        past = (infections[t : t + 3] * kernel).sum()
        infections = infections.clone()
        infections[t + 3] = r * past * torch.exp(noise[t])
    curve = pyro.deterministic("infections", infections[3:])
    pyro.sample("y", dist.Poisson(10 * curve).to_event(1), obs=y)


def change_point(y: torch.Tensor) -> None:
    early = pyro.sample("early", dist.Exponential(1.0))
    late = pyro.sample("late", dist.Exponential(0.2))
    tau = pyro.sample("tau", dist.Uniform(0.0, 1.0))
    times = torch.linspace(0, 1, len(y))
    with pyro.plate("years", len(y)):
        pyro.sample("y", dist.Poisson(torch.where(times < tau, early, late) + 0.1), obs=y)


def change_point_by_index(y: torch.Tensor) -> None:
    """A discrete day of change, enumerable."""
    day = pyro.sample("day", dist.Categorical(torch.ones(5) / 5), infer={"enumerate": "parallel"})
    with pyro.plate("days", len(y)) as days:
        pyro.sample("y", N((days >= day).float() * 3.0, 0.5), obs=y)


def constant_velocity(y: torch.Tensor) -> None:
    """A state of four numbers moved by a matrix, seen through another."""
    step = torch.eye(4) + torch.diag(torch.ones(2), 2)
    look = torch.eye(4)[:2]
    state = pyro.sample("x_0", dist.MultivariateNormal(torch.zeros(4), torch.eye(4)))
    for t in range(1, len(y)):
        state = pyro.sample(f"x_{t}", dist.MultivariateNormal(step @ state, 0.1 * torch.eye(4)))
        pyro.sample(f"y_{t}", dist.MultivariateNormal(look @ state, 0.2 * torch.eye(2)), obs=y[t])


def predators(y: torch.Tensor) -> None:
    """Hares and lynxes by Euler steps of a differential equation."""
    rates = pyro.sample("rates", dist.LogNormal(-1.5 * torch.ones(4), 0.2).to_event(1))
    a, b, c, d = rates.unbind(-1)
    state, path = torch.ones(2), []
    for _ in range(len(y)):
        for _ in range(3):
            hares, lynxes = state.unbind(-1)
            change = [a * hares - b * hares * lynxes, c * hares * lynxes - d * lynxes]
            state = state + 0.3 * torch.stack(change)
        path.append(state)
    pyro.sample("y", dist.LogNormal(torch.stack(path).log(), 0.2).to_event(2), obs=y)


def branching(generations: int) -> None:
    """Children of all of a generation: a Poisson count that drives the next."""
    alive = torch.tensor(3.0)
    for g in range(generations):
        alive = pyro.sample(f"alive_{g}", dist.Poisson(1.3 * alive))


def seasonal(y: torch.Tensor) -> None:
    """Months that sum to zero, tiled over the years."""
    free = pyro.sample("free", N(torch.zeros(3), 1.0).to_event(1))
    months = torch.cat([free, -free.sum(-1, keepdim=True)], -1)
    trend = pyro.sample("trend", N(0.0, 0.1))
    mean = months.repeat(2) + trend * torch.arange(8.0)
    with pyro.plate("time", 8):
        pyro.sample("y", N(mean, 0.2), obs=y)


def capture_recapture(seen: torch.Tensor) -> None:
    """Cormack, Jolly, Seber: animals live and are seen; each year depends on the one before."""
    count, years = seen.shape
    survive = pyro.sample("survive", dist.Uniform(0.0, 1.0))
    catch = pyro.sample("catch", dist.Uniform(0.0, 1.0))
    with pyro.plate("animals", count, dim=-1):
        alive = torch.ones(count)
        for t in pyro.markov(range(years)):
            alive = pyro.sample(f"alive_{t}", dist.Bernoulli(alive * survive))
            pyro.sample(f"seen_{t}", dist.Bernoulli(alive * catch), obs=seen[:, t])


def panel(y: torch.Tensor) -> None:
    """Firms by years: both have effects, and an outcome depends on the firm's own past."""
    firms, years = y.shape
    with pyro.plate("firms", firms):
        alpha = pyro.sample("alpha", N(0.0, 1.0))
        before = alpha
        for t in range(years):
            x = pyro.sample(f"x_{t}", N(0.5 * before, 1.0))
            before = pyro.sample(f"y_{t}", N(alpha + 0.5 * x + 0.3 * before, 0.5), obs=y[:, t])


def switching_regimes(y: torch.Tensor) -> None:
    """The regime chooses the dynamics by indexing a table of matrices."""
    tables = torch.stack([0.9 * torch.eye(2), torch.tensor([[0.0, -0.9], [0.9, 0.0]])])
    regime = torch.tensor(0)
    x = torch.ones(2)
    for t in range(len(y)):
        stay = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
        regime = pyro.sample(f"regime_{t}", dist.Categorical(stay[regime]))
        x = pyro.sample(f"x_{t}", N(tables[regime] @ x, 0.1).to_event(1))
        pyro.sample(f"y_{t}", N(x.sum(), 0.1), obs=y[t])


def gaussian_hmm(y: torch.Tensor) -> None:
    """A whole series as one site, with the states summed out."""
    scale = pyro.sample("scale", dist.LogNormal(0.0, 0.3))
    hmm = dist.GaussianHMM(
        dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
        torch.eye(1),
        dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
        torch.eye(1),
        dist.Normal(torch.zeros(1), scale).to_event(1),
        duration=len(y),
    )
    pyro.sample("y", hmm, obs=y)


def after(t: int, *names: str, upto: int = 5) -> str:
    return " ".join(f"{name}_{k}" for k in range(t, upto) for name in names)


ENTRIES = (
    Entry(
        "HMM of categories",
        hmm_of_names,
        {"state_1": 2},
        "word_1 " + after(2, "state", "word", upto=4),
        "",
        args=(torch.tensor([0, 0, 1, 2]),),
    ),
    Entry(
        "HMM by pyro.markov",
        hmm_markov,
        {"state_2": 2},
        "y_2 " + after(3, "state", "y"),
        "",
        args=(SERIES,),
        law="y_2 y_4",
    ),
    Entry(
        "HMM of masked sequences",
        hmm_of_sequences,
        {"stay": 0.0},
        after(0, "state", "y", upto=4),
        "state_0 y_0",
        args=(normal_data(31, 3, 4), torch.tensor([4, 2, 3])),
    ),
    Entry("random walk", random_walk, {"drift": 2.0}, "step path y", args=(SERIES,), law="path y"),
    Entry(
        "local level",
        local_level,
        {"level_2": 3.0},
        "y_2 level_3 y_3 level_4 y_4",
        args=(SERIES,),
        law="y_4",
    ),
    Entry(
        "local trend",
        local_trend,
        {"slope_2": 3.0},
        "level_2 slope_3 level_3 slope_4 level_4 y",
        args=(SERIES,),
    ),
    Entry("autoregression", autoregression, {"y_1": 3.0}, "y_2 y_3 y_4", args=(SERIES,), law="y_3"),
    Entry(
        "stochastic volatility",
        stochastic_volatility,
        {"h_2": 3.0},
        "r_2 h_3 r_3 h_4 r_4",
        args=(SERIES,),
    ),
    Entry(
        "SIR epidemic",
        epidemic,
        {"contact": 4.0},
        after(0, "new", "reported", upto=4) + " healed_1 healed_2 healed_3",
        "new_0",
        args=(torch.tensor([2.0, 3.0, 4.0, 3.0]),),
        law="new_1 reported_3",
    ),
    Entry(
        "SIR epidemic, a day's healing",
        epidemic,
        {"healed_0": 5.0},
        after(1, "new", "healed", "reported", upto=4),
        "",
        args=(torch.tensor([2.0, 3.0, 4.0, 3.0]),),
    ),
    Entry(
        "renewal epidemic",
        renewal,
        {"r": 2.5},
        "infections y",
        args=(torch.tensor([9.0, 8.0, 12.0, 10.0]),),
    ),
    Entry(
        "change point",
        change_point,
        {"tau": 0.0},
        "y",
        args=(torch.tensor([1.0, 0.0, 2.0, 6.0, 7.0]),),
    ),
    Entry(
        "change point by index",
        change_point_by_index,
        {"day": 3},
        "y",
        args=(SERIES,),
        law="day y",
    ),
    Entry(
        "constant velocity",
        constant_velocity,
        {"x_1": torch.tensor([1.0, 2.0, 3.0, 4.0])},
        "y_1 x_2 y_2 x_3 y_3",
        args=(normal_data(32, 4, 2),),
    ),
    Entry(
        "predators and prey",
        predators,
        {"rates": torch.tensor([0.3, 0.2, 0.2, 0.3])},
        "y",
        args=(normal_data(33, 4, 2).exp(),),
    ),
    Entry(
        "branching process",
        branching,
        {"alive_0": 30.0},
        "alive_1 alive_2 alive_3",
        kwargs={"generations": 4},
        law="alive_2",
    ),
    Entry(
        "seasons",
        seasonal,
        {"free": torch.tensor([1.0, 2.0, 3.0])},
        "y",
        args=(normal_data(34, 8),),
    ),
    Entry(
        "capture and recapture",
        capture_recapture,
        {"survive": 0.02},
        after(0, "alive", "seen", upto=4),
        "alive_0",
        args=((normal_data(35, 6, 4) > 0).float(),),
    ),
    Entry(
        "capture, none caught",
        capture_recapture,
        {"catch": 0.0},
        after(0, "seen", upto=4),
        "seen_0",
        args=((normal_data(35, 6, 4) > 0).float(),),
    ),
    Entry(
        "panel of firms",
        panel,
        {"x_1": 2.0},
        "y_1 x_2 y_2",
        args=(normal_data(36, 4, 3),),
    ),
    Entry(
        "switching regimes",
        switching_regimes,
        {"x_0": torch.tensor([3.0, -1.0])},
        "y_0 x_1 y_1 x_2 y_2",
        args=(SERIES[:3],),
    ),
    Entry(
        "Gaussian HMM as one site",
        gaussian_hmm,
        {"scale": 3.0},
        "y",
        args=(normal_data(37, 4, 1),),
        needs=(
            dist.GaussianHMM(
                dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
                torch.eye(1),
                dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
                torch.eye(1),
                dist.Normal(torch.zeros(1), 1.0).to_event(1),
                duration=4,
            ),
        ),
    ),
)
