"""Discrete latents: mixtures, topics, Bayesian networks, rankings, tables."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch

from .entry import Entry, normal_data, uniform_data

N = dist.Normal

YES_NO = torch.tensor([1.0, 0.0, 1.0, 1.0])


def gaussian_mixture(y: torch.Tensor) -> None:
    weights = pyro.sample("weights", dist.Dirichlet(torch.ones(3)))
    with pyro.plate("components", 3):
        locs = pyro.sample("locs", N(0.0, 3.0))
    with pyro.plate("data", len(y)):
        k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("y", N(locs[k], 0.5), obs=y)


def mixture_by_vindex(y: torch.Tensor) -> None:
    """Clusters of vectors, indexed in the way that also serves enumeration."""
    with pyro.plate("components", 2):
        locs = pyro.sample("locs", N(torch.zeros(3), 2.0).to_event(1))
        scale = pyro.sample("scale", dist.LogNormal(torch.zeros(3), 0.2).to_event(1))
    with pyro.plate("data", len(y)):
        k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("y", N(locs[k], scale[k]).to_event(1), obs=y)


def topics(words: torch.Tensor) -> None:
    """Latent Dirichlet allocation: topics, documents with proportions, words."""
    count, documents = words.shape
    with pyro.plate("topics", 2):
        topic_words = pyro.sample("topic_words", dist.Dirichlet(torch.ones(5)))
    with pyro.plate("documents", documents, dim=-1):
        shares = pyro.sample("shares", dist.Dirichlet(torch.ones(2)))
        with pyro.plate("words", count, dim=-2):
            z = pyro.sample("z", dist.Categorical(shares), infer={"enumerate": "parallel"})
            pyro.sample("word", dist.Categorical(topic_words[z]), obs=words)


def stick_breaking(y: torch.Tensor) -> None:
    """A Dirichlet process cut off at four sticks."""
    alpha = pyro.sample("alpha", dist.Gamma(2.0, 1.0))
    with pyro.plate("sticks", 3):
        beta = pyro.sample("beta", dist.Beta(1.0, alpha))
    rest = torch.cumprod(1 - beta, -1)
    one = torch.ones(1)
    weights = torch.cat([beta, one]) * torch.cat([one, rest])
    pyro.deterministic("weights_used", weights, event_dim=1)
    with pyro.plate("components", 4):
        loc = pyro.sample("loc", N(0.0, 3.0))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", N(loc[z], 0.5), obs=y)


def latent_classes(answers: torch.Tensor) -> None:
    """Classes of people, and each class's chance of every answer."""
    with pyro.plate("classes", 2):
        p = pyro.sample("p", dist.Beta(torch.ones(3), 1.0).to_event(1))
    with pyro.plate("people", len(answers)):
        c = pyro.sample("c", dist.Bernoulli(0.4)).long()
        pyro.sample("answers", dist.Bernoulli(p[c]).to_event(1), obs=answers)


def sprinkler() -> torch.Tensor:
    cloudy = pyro.sample("cloudy", dist.Bernoulli(0.5))
    sprinkling = pyro.sample("sprinkler", dist.Bernoulli(torch.where(cloudy == 1, 0.1, 0.5)))
    rain = pyro.sample("rain", dist.Bernoulli(torch.where(cloudy == 1, 0.8, 0.2)))
    table = torch.tensor([[0.0, 0.9], [0.9, 0.99]])
    return pyro.sample("wet", dist.Bernoulli(table[sprinkling.long(), rain.long()]))


def chest_clinic() -> None:
    """Asia, tuberculosis, lung cancer, bronchitis, X-ray and dyspnoea."""

    def node(name: str, on: float, off: float, parent: torch.Tensor) -> torch.Tensor:
        return pyro.sample(name, dist.Bernoulli(parent * on + (1 - parent) * off))

    asia = pyro.sample("asia", dist.Bernoulli(0.01))
    smokes = pyro.sample("smokes", dist.Bernoulli(0.5))
    tuberculosis = node("tuberculosis", 0.05, 0.01, asia)
    cancer = node("cancer", 0.1, 0.01, smokes)
    bronchitis = node("bronchitis", 0.6, 0.3, smokes)
    either = pyro.deterministic("either", torch.maximum(tuberculosis, cancer))
    node("xray", 0.98, 0.05, either)
    table = torch.tensor([[0.1, 0.8], [0.7, 0.9]])
    pyro.sample("dyspnoea", dist.Bernoulli(table[either.long(), bronchitis.long()]))


def alarm() -> None:
    """Written with Python's own conditions on the values."""
    burglary = pyro.sample("burglary", dist.Bernoulli(0.01))
    earthquake = pyro.sample("earthquake", dist.Bernoulli(0.02))
    if burglary == 1 and earthquake == 1:
        p = 0.95
    elif burglary == 1:
        p = 0.94
    elif earthquake == 1:
        p = 0.29
    else:
        p = 0.001
    rings = pyro.sample("alarm", dist.Bernoulli(p))
    pyro.sample("john", dist.Bernoulli(0.9 if rings else 0.05))
    pyro.sample("mary", dist.Bernoulli(0.7 if rings else 0.01))


def noisy_or(symptoms: torch.Tensor) -> None:
    """Diseases cause symptoms independently; a matrix product of logarithms."""
    diseases, count = 3, symptoms.shape[-1]
    fail = 0.1 + 0.8 * uniform_data(40, diseases, count)
    with pyro.plate("diseases", diseases):
        ill = pyro.sample("ill", dist.Bernoulli(0.2))
    none = torch.exp(torch.log(torch.tensor(0.95)) + ill @ fail.log())
    with pyro.plate("symptoms", count):
        pyro.sample("symptom", dist.Bernoulli(1 - none), obs=symptoms)


def ranking(orders: torch.Tensor) -> None:
    """Plackett and Luce: the chance of each order of the items, as a factor."""
    with pyro.plate("items", orders.shape[1]):
        worth = pyro.sample("worth", N(0.0, 1.0))
    scores = worth[orders]
    left = torch.flip(torch.logcumsumexp(torch.flip(scores, [-1]), -1), [-1])
    pyro.factor("orders", (scores - left).sum())
    best = pyro.deterministic("best", worth.max())
    pyro.sample("price", N(best, 0.1))


def paired_comparisons(wins: torch.Tensor) -> None:
    """Bradley and Terry: a table of players against players."""
    with pyro.plate("players", len(wins)):
        skill = pyro.sample("skill", N(0.0, 1.0))
    apart = skill[:, None] - skill[None, :]
    pyro.sample("wins", dist.Binomial(5.0, logits=apart).to_event(2), obs=wins)


def count_as_index() -> None:
    """A Poisson number looks up a row of a table."""
    table = torch.linspace(-3.0, 3.0, 10)
    visits = pyro.sample("visits", dist.Poisson(2.0))
    cost = table[visits.long().clamp(max=9)]
    pyro.sample("bill", N(cost, 0.1))


def one_hot_choice(features: torch.Tensor) -> None:
    tastes = pyro.sample("tastes", N(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("shoppers", 4):
        chosen = pyro.sample("chosen", dist.OneHotCategorical(logits=features @ tastes))
        price = pyro.deterministic("price", chosen @ torch.tensor([1.0, 2.0, 3.0, 4.0]))
        pyro.sample("paid", N(price, 0.1))


def compositions(shares: torch.Tensor) -> None:
    """Budget shares whose concentration follows income."""
    b = pyro.sample("b", N(torch.zeros(3), 0.5).to_event(1))
    with pyro.plate("homes", len(shares)) as homes:
        income = (homes.float() - 1.0).unsqueeze(-1)
        pyro.sample("shares", dist.Dirichlet(2 * torch.exp(b * income)), obs=shares)


def ballots(votes: torch.Tensor) -> None:
    """Multinomial counts of districts."""
    logits = pyro.sample("logits", N(torch.zeros(3), 1.0).to_event(1))
    with pyro.plate("districts", len(votes)):
        pyro.sample("votes", dist.Multinomial(20, logits=logits), obs=votes)


def waiting_for_success(tries: torch.Tensor) -> None:
    skill = pyro.sample("skill", dist.Beta(2.0, 2.0))
    with pyro.plate("players", len(tries)):
        pyro.sample("tries", dist.Geometric(skill), obs=tries)


def occupancy(seen: torch.Tensor) -> None:
    """Is the species there, and was it seen: a product of two Bernoulli sites."""
    psi = pyro.sample("psi", dist.Beta(1.0, 1.0))
    sites, visits = seen.shape
    with pyro.plate("sites", sites, dim=-2):
        there = pyro.sample("there", dist.Bernoulli(psi))
        with pyro.plate("visits", visits, dim=-1):
            pyro.sample("seen", dist.Bernoulli(0.5 * there), obs=seen)


def relaxed_choice() -> None:
    logits = pyro.sample("logits", N(torch.zeros(3), 1.0).to_event(1))
    soft = pyro.sample("soft", dist.RelaxedOneHotCategorical(torch.tensor(0.5), logits=logits))
    pyro.sample("y", N(soft @ torch.tensor([-1.0, 0.0, 1.0]), 0.1))


ENTRIES = (
    Entry(
        "Gaussian mixture, a component",
        gaussian_mixture,
        {"locs": torch.tensor([-5.0, 0.5, 5.0])},
        "y",
        args=(normal_data(41, 6),),
    ),
    Entry(
        "Gaussian mixture, the labels",
        gaussian_mixture,
        {"k": 1},
        "y",
        args=(normal_data(41, 6),),
        law="y",
    ),
    Entry(
        "Gaussian mixture, the weights",
        gaussian_mixture,
        {"weights": torch.tensor([0.01, 0.01, 0.98])},
        "k y",
        args=(normal_data(41, 6),),
    ),
    Entry(
        "mixture of vectors",
        mixture_by_vindex,
        {"k": torch.tensor([0, 1, 1, 0])},
        "y",
        args=(normal_data(42, 4, 3),),
    ),
    Entry(
        "topics",
        topics,
        {"topic_words": torch.tensor([[1e-6, 1e-6, 1e-6, 1e-6, 1 - 4e-6]] * 2)},
        "word",
        args=((5 * uniform_data(43, 4, 3)).long(),),
    ),
    Entry(
        "topics, a document's shares",
        topics,
        {"shares": torch.tensor([0.001, 0.999])},
        "z word",
        args=((5 * uniform_data(43, 4, 3)).long(),),
    ),
    Entry(
        "stick-breaking",
        stick_breaking,
        {"alpha": 8.0},
        "beta weights_used z y",
        "beta weights_used",
        args=(normal_data(44, 5),),
        law="weights_used",
    ),
    Entry(
        "latent classes",
        latent_classes,
        {"c": 1.0},
        "answers",
        args=((uniform_data(45, 8, 3) > 0.5).float(),),
    ),
    Entry("sprinkler", sprinkler, {"cloudy": 1.0}, "sprinkler rain wet", "", law="rain wet"),
    Entry("sprinkler on, and rain", sprinkler, {"sprinkler": 1.0, "rain": 1.0}, "wet"),
    Entry(
        "chest clinic",
        chest_clinic,
        {"tuberculosis": 1.0},
        "either xray dyspnoea",
        "either",
        law="bronchitis dyspnoea",
    ),
    Entry(
        "burglar alarm",
        alarm,
        {"alarm": 1.0},
        "john mary",
        "john",
        executor="sequential",
    ),
    Entry("noisy or", noisy_or, {"ill": 1.0}, "symptom", args=(torch.zeros(4),), law="symptom"),
    Entry(
        "ranking by a factor",
        ranking,
        {"worth": torch.tensor([4.0, 2.0, 1.0])},
        "best price",
        args=(torch.tensor([[0, 1, 2], [1, 0, 2]]),),
    ),
    Entry(
        "paired comparisons",
        paired_comparisons,
        {"skill": torch.tensor([4.0, 0.0, -4.0])},
        "wins",
        args=(torch.full((3, 3), 2.0),),
    ),
    Entry("a count as an index", count_as_index, {"visits": 7.0}, "bill", law="visits bill"),
    Entry(
        "one-hot choice",
        one_hot_choice,
        {"tastes": 20 * normal_data(46, 3)},
        "chosen price paid",
        args=(normal_data(47, 4, 3),),
    ),
    Entry(
        "one-hot set",
        one_hot_choice,
        {"chosen": torch.tensor([0.0, 0.0, 0.0, 1.0])},
        "price paid",
        args=(normal_data(47, 4, 3),),
    ),
    Entry(
        "budget shares",
        compositions,
        {"b": torch.tensor([1.0, -1.0, 0.5])},
        "shares",
        args=(torch.full((4, 3), 1 / 3),),
        law="shares",
    ),
    Entry(
        "ballots",
        ballots,
        {"logits": torch.tensor([9.0, 0.0, 0.0])},
        "votes",
        args=(torch.tensor([[5.0, 5.0, 10.0], [2.0, 8.0, 10.0]]),),
        needs=(dist.Multinomial(3, torch.ones(3) / 3),),
    ),
    Entry(
        "waiting for success",
        waiting_for_success,
        {"skill": 0.02},
        "tries",
        args=(torch.tensor([0.0, 2.0, 5.0]),),
        law="tries",
    ),
    Entry(
        "occupancy",
        occupancy,
        {"there": 1.0},
        "seen",
        args=((uniform_data(48, 4, 3) > 0.7).float(),),
    ),
    Entry("relaxed choice", relaxed_choice, {"logits": torch.tensor([3.0, 0.0, -3.0])}, "soft y"),
)
