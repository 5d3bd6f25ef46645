"""Study designs: instruments, front doors, mediation, panels, interference, selection, policies."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from .entry import Entry, normal_data, uniform_data

N = dist.Normal


def instrument(z: torch.Tensor) -> torch.Tensor:
    """Encouragement moves the treatment; a hidden cause moves treatment and outcome."""
    with pyro.plate("people", len(z)):
        encouraged = pyro.sample("encouraged", dist.Bernoulli(0.5), obs=z)
        u = pyro.sample("u", N(0.0, 1.0))
        dose = pyro.sample("dose", N(encouraged + u, 0.5))
        return pyro.sample("outcome", N(2 * dose - u, 0.5))


def front_door() -> None:
    with pyro.plate("people", 6):
        u = pyro.sample("u", N(0.0, 1.0))
        smokes = pyro.sample("smokes", dist.Bernoulli(logits=2 * u))
        tar = pyro.sample("tar", N(3 * smokes, 0.5))
        pyro.sample("cancer", N(tar + u, 0.5))


def mediation() -> None:
    with pyro.plate("people", 5):
        t = pyro.sample("t", dist.Bernoulli(0.5))
        m = pyro.sample("m", N(1.5 * t, 1.0))
        pyro.sample("y", N(t + 2 * m + t * m, 1.0))


def differences(y: torch.Tensor) -> None:
    """Two groups before and after: group, period, and their product."""
    base = pyro.sample("base", N(0.0, 1.0))
    trend = pyro.sample("trend", N(0.0, 1.0))
    effect = pyro.sample("effect", N(1.0, 0.5))
    group = torch.tensor([0.0, 1.0]).reshape(2, 1)
    period = torch.tensor([0.0, 0.0, 1.0])
    with pyro.plate("groups", 2, dim=-2):
        alpha = pyro.sample("alpha", N(base, 0.3))
        with pyro.plate("periods", 3, dim=-1):
            pyro.sample("y", N(alpha + trend * period + effect * group * period, 0.1), obs=y)


def synthetic_control(donors: torch.Tensor, treated: torch.Tensor) -> None:
    """Weights on the simplex combine the donor regions into the one that was treated."""
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(donors.shape[0])))
    twin = pyro.deterministic("twin", weights @ donors)
    with pyro.plate("months", donors.shape[1]):
        pyro.sample("region", N(twin, 0.1), obs=treated)


def interference(network: torch.Tensor) -> None:
    """One person's vaccine protects the neighbours: a matrix product over the plate."""
    with pyro.plate("people", len(network)):
        vaccine = pyro.sample("vaccine", dist.Bernoulli(0.5))
        around = pyro.deterministic("around", network @ vaccine)
        pyro.sample("health", N(vaccine + 0.5 * around, 0.2))


def discontinuity(score: torch.Tensor) -> None:
    """Treated above a cutoff of a score."""
    jump = pyro.sample("jump", N(1.0, 0.5))
    with pyro.plate("pupils", len(score)):
        running = pyro.sample("running", N(score, 0.2))
        treated = pyro.deterministic("treated", (running > 0).float())
        pyro.sample("grade", N(running + jump * treated, 0.1))


def selection(x: torch.Tensor) -> None:
    """Wages are known of those who work only: a mask computed from a site."""
    b = pyro.sample("b", N(1.0, 0.5))
    with pyro.plate("people", len(x)):
        taste = pyro.sample("taste", N(x, 1.0))
        works = pyro.deterministic("works", taste > 0)
        with pyro.poutine.mask(mask=works):
            pyro.sample("wage", N(b * x + 0.5 * taste, 0.2))


def regimes(visits: int) -> None:
    """Treatment at each visit follows what the last one showed."""
    with pyro.plate("patients", 4):
        health = pyro.sample("health_0", N(0.0, 1.0))
        for t in range(1, visits):
            drug = pyro.sample(f"drug_{t}", dist.Bernoulli(logits=-3 * health))
            health = pyro.sample(f"health_{t}", N(0.8 * health + drug, 0.3))


def advertising(spend: torch.Tensor) -> None:
    """Adstock by a convolution over the weeks, then saturation."""
    keep = pyro.sample("keep", dist.Beta(3.0, 3.0))
    gain = pyro.sample("gain", dist.HalfNormal(2.0))
    lags = keep ** torch.arange(3.0)
    padded = torch.cat([torch.zeros(2), spend])
    stock = torch.nn.functional.conv1d(padded[None, None], lags.flip(-1)[None, None])[0, 0]
    stock = pyro.deterministic("stock", stock)
    with pyro.plate("weeks", len(spend)):
        pyro.sample("sales", N(gain * stock / (1 + stock), 0.1))


def supply_and_demand() -> None:
    """Two equations solved together for price and quantity."""
    cost = pyro.sample("cost", N(0.0, 1.0))
    taste = pyro.sample("taste", N(0.0, 1.0))
    matrix = torch.tensor([[1.0, 1.5], [1.0, -0.5]])
    price_quantity = torch.linalg.solve(matrix, torch.stack([10 + taste, 1 + cost], -1))
    pyro.sample("market", N(price_quantity, 0.1).to_event(1))


def collider() -> None:
    talent = pyro.sample("talent", N(0.0, 1.0))
    looks = pyro.sample("looks", N(0.0, 1.0))
    pyro.sample("famous", dist.Bernoulli(logits=8 * (talent + looks)))


def transport_hours(flows: torch.Tensor) -> None:
    """Deterministic nodes all the way between the cause and what is seen."""
    demand = pyro.sample("demand", dist.Gamma(5.0 * torch.ones(3), 1.0).to_event(1))
    load = pyro.deterministic("load", flows @ demand, event_dim=1)
    delay = pyro.deterministic("delay", 1 + 0.15 * (load / 10) ** 4, event_dim=1)
    pyro.sample("hours", dist.LogNormal(torch.log((load * delay).sum()), 0.05))


def spending_by_group(group: torch.Tensor) -> None:
    """Sums over groups by scatter_add, sent back to the people of each group."""
    with pyro.plate("people", len(group)):
        income = pyro.sample("income", dist.LogNormal(0.0, 0.5))
    total = torch.zeros(3).scatter_add(0, group, income)
    with pyro.plate("people_again", len(group)):
        pyro.sample("tax", N(0.1 * total[group] + 0.2 * income, 0.05))


def auction() -> None:
    """The highest bidder pays the second bid: a sort over the plate."""
    with pyro.plate("bidders", 4):
        value = pyro.sample("value", dist.Uniform(0.0, 10.0))
        bid = pyro.sample("bid", dist.LogNormal(torch.log(value), 0.05))
    pyro.deterministic("paid", bid.sort().values[-2])
    pyro.deterministic("winner", bid.argmax(-1))


def standardised() -> None:
    """An outcome standardised by its own mean and deviation over the units."""
    with pyro.plate("units", 6):
        x = pyro.sample("x", N(0.0, 1.0))
        raw = pyro.sample("raw", N(3 * x, 1.0))
        pyro.deterministic("score", (raw - raw.mean()) / raw.std())


ENTRIES = (
    Entry(
        "instrument",
        instrument,
        {"encouraged": 1.0},
        "dose outcome",
        args=(torch.tensor([0.0, 1.0, 0.0, 1.0]),),
        law="dose outcome",
    ),
    Entry("front door", front_door, {"smokes": 1.0}, "tar cancer", law="tar cancer"),
    Entry("front door, the hidden cause", front_door, {"u": 3.0}, "smokes tar cancer", "cancer"),
    Entry("mediation", mediation, {"t": 1.0}, "m y", law="y"),
    Entry("mediation, the mediator", mediation, {"m": 0.5}, "y"),
    Entry(
        "difference in differences",
        differences,
        {"effect": 0.0},
        "y",
        args=(normal_data(70, 2, 3),),
    ),
    Entry(
        "synthetic control",
        synthetic_control,
        {"weights": torch.tensor([0.5, 0.25, 0.25])},
        "twin region",
        args=(normal_data(71, 3, 4), normal_data(72, 4)),
        law="region",
    ),
    Entry(
        "interference in a network",
        interference,
        {"vaccine": torch.tensor([1.0, 0.0, 1.0, 0.0])},
        "around health",
        args=((uniform_data(73, 4, 4) > 0.5).float(),),
        law="health",
    ),
    Entry(
        "discontinuity",
        discontinuity,
        {"running": 0.3},
        "treated grade",
        args=(normal_data(74, 5),),
    ),
    Entry("selection by mask", selection, {"taste": 1.0}, "works wage", args=(normal_data(75, 5),)),
    Entry(
        "treatment by history",
        regimes,
        {"health_1": -3.0},
        "drug_2 health_2",
        "health_2",
        args=(3,),
        law="health_2",
    ),
    Entry(
        "advertising stock",
        advertising,
        {"keep": 0.9},
        "stock sales",
        args=(uniform_data(76, 5),),
    ),
    Entry("supply and demand", supply_and_demand, {"cost": 2.0}, "market", law="market"),
    Entry("collider", collider, {"talent": 6.0}, "famous"),
    Entry(
        "deterministic chain",
        transport_hours,
        {"demand": torch.tensor([1.0, 9.0, 5.0])},
        "load delay hours",
        args=(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),),
    ),
    Entry(
        "deterministic chain, cut",
        transport_hours,
        {"delay": torch.tensor([3.0, 1.0])},
        "hours",
        args=(torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),),
    ),
    Entry(
        "sums over groups",
        spending_by_group,
        {"income": 2.0},
        "tax",
        args=(torch.tensor([0, 1, 2, 1, 0]),),
    ),
    Entry(
        "auction",
        auction,
        {"value": torch.tensor([9.0, 8.0, 1.0, 1.0])},
        "bid paid winner",
        "bid paid",
        law="paid",
    ),
    Entry("standardised outcome", standardised, {"x": torch.arange(6.0)}, "raw score", law="score"),
)
