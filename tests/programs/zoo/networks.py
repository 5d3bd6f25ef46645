"""Neural networks in programs: autoencoders, attention, flows, recurrence, dropout in eval mode."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as transforms
import torch
from pyro.nn import DenseNN, PyroModule
from torch import nn

from .entry import Entry, normal_data, uniform_data

N = dist.Normal


def seeded(build: type[nn.Module], *args: int, seed: int = 50) -> nn.Module:
    """A network whose weights are always the same, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(*args).eval()


class Autoencoder(nn.Module):
    """A decoder from two numbers to nine pixels, and Pyro's habit of registering it in the model."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 9), nn.Sigmoid())

    def model(self, images: torch.Tensor) -> torch.Tensor:
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", images.shape[0]):
            z = pyro.sample("z", N(images.new_zeros(images.shape[0], 2), 1.0).to_event(1))
            pixels = self.decoder(z)
            pyro.sample("image", dist.Bernoulli(pixels).to_event(1), obs=images)
            return pixels


class Conditional(nn.Module):
    """Digit and style make a picture; the digit enters as a one-hot vector beside the style."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(3 + 2, 8), nn.ReLU(), nn.Linear(8, 6))

    def forward(self, labels: torch.Tensor) -> None:
        with pyro.plate("data", len(labels)):
            label = pyro.sample("label", dist.Categorical(torch.ones(3) / 3), obs=labels)
            z = pyro.sample("z", N(torch.zeros(len(labels), 2), 1.0).to_event(1))
            one_hot = nn.functional.one_hot(label, 3).float()
            loc = self.decoder(torch.cat([one_hot, z], -1))
            pyro.sample("x", N(loc, 0.1).to_event(1))


class HalfLabelled(nn.Module):
    """A semi-supervised autoencoder: some labels are given, as one-hot vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Sequential(nn.Linear(3 + 2, 8), nn.Tanh(), nn.Linear(8, 6))

    def model(self, xs: torch.Tensor, ys: torch.Tensor | None = None) -> None:
        with pyro.plate("data", len(xs)):
            z = pyro.sample("z", N(xs.new_zeros(len(xs), 2), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3) / 3), obs=ys)
            logits = self.decoder(torch.cat([y, z], -1))
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=xs)


class Convolutional(nn.Module):
    """A decoder of transposed convolutions, with batch normalisation in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Linear(2, 4 * 2 * 2)
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 1, 2, stride=2)

    def forward(self, images: torch.Tensor) -> None:
        with pyro.plate("images", len(images)):
            z = pyro.sample("z", N(torch.zeros(len(images), 2), 1.0).to_event(1))
            hidden = torch.relu(self.norm(self.start(z).reshape(-1, 4, 2, 2)))
            pyro.sample("image", N(self.up(hidden), 0.1).to_event(3), obs=images)


class Markov(nn.Module):
    """A deep Markov model: gated transitions, an emitter, masks for short sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2), nn.Sigmoid())
        self.proposed = nn.Linear(2, 2)
        self.scale = nn.Linear(2, 2)
        self.emit = nn.Linear(2, 3)
        self.z_0 = nn.Parameter(torch.zeros(2))

    def model(self, batch: torch.Tensor, mask: torch.Tensor) -> None:
        pyro.module("dmm", self)
        z = self.z_0.expand(len(batch), 2)
        with pyro.plate("sequences", len(batch)):
            for t in pyro.markov(range(1, batch.shape[1] + 1)):
                gate, proposed = self.gate(z), self.proposed(z)
                loc = (1 - gate) * z + gate * proposed
                scale = nn.functional.softplus(self.scale(torch.relu(proposed)))
                with pyro.poutine.scale(scale=0.5):
                    z = pyro.sample(f"z_{t}", N(loc, scale).mask(mask[:, t - 1 : t]).to_event(1))
                pyro.sample(
                    f"x_{t}",
                    dist.Bernoulli(logits=self.emit(z)).mask(mask[:, t - 1 : t]).to_event(1),
                    obs=batch[:, t - 1],
                )


class Recurrent(PyroModule):
    """A GRU cell carries what has happened; each event is drawn from what it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(1, 4)
        self.out = nn.Linear(4, 1)

    def forward(self, steps: int) -> torch.Tensor:
        hidden = torch.zeros(1, 4)
        events = []
        for t in range(steps):
            event = pyro.sample(f"event_{t}", N(self.out(hidden).squeeze(), 0.5))
            hidden = self.cell(event.reshape(1, 1), hidden)
            events.append(event)
        return torch.stack(events)


class Attention(PyroModule):
    """An encoder layer of a transformer with dropout, switched off by eval."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.3, batch_first=True)

    def forward(self) -> None:
        tokens = pyro.sample("tokens", N(torch.zeros(3, 4), 1.0).to_event(2))
        mixed = self.layer(tokens.unsqueeze(0)).squeeze(0)
        pyro.sample("y", N(mixed.mean(-1), 0.1).to_event(1))


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.LayerNorm(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self) -> torch.Tensor:
        x = pyro.sample("x", N(torch.zeros(2), 1.0).to_event(1))
        return pyro.sample("y", N(self.net(x).squeeze(-1), 0.1))


class SplineFlow(nn.Module):
    """A rational spline pushes a normal; another transform moves it by its parent."""

    def __init__(self) -> None:
        super().__init__()
        self.spline = transforms.Spline(1, count_bins=4, bound=3.0)

    def forward(self) -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        base = N(torch.zeros(1), torch.ones(1)).to_event(1)
        moved = transforms.AffineTransform(x.unsqueeze(-1), 2.0)
        pyro.sample("y", dist.TransformedDistribution(base, [self.spline, moved]))


class ConditionalFlow(nn.Module):
    """A conditional spline whose knots come from a network of the parent."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = transforms.conditional_spline(1, 1, hidden_dims=[4], count_bins=4)
        # its last layer starts near zero: make the parent matter
        with torch.no_grad():
            for parameter in self.flow.parameters():
                parameter.mul_(3.0)

    def forward(self) -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        base = N(torch.zeros(1), torch.ones(1)).to_event(1)
        given = dist.ConditionalTransformedDistribution(base, [self.flow])
        pyro.sample("y", given.condition(x.unsqueeze(-1)))


class AffineCoupling(nn.Module):
    """A coupling layer on three numbers after one on their parent."""

    def __init__(self) -> None:
        super().__init__()
        self.coupling = transforms.AffineCoupling(1, DenseNN(1, [4], [2, 2]))

    def forward(self) -> None:
        x = pyro.sample("x", N(0.0, 1.0))
        base = N(x * torch.ones(3), 1.0).to_event(1)
        pyro.sample("y", dist.TransformedDistribution(base, [self.coupling]))


def log_and_scale() -> None:
    """Transforms from the standard library of torch, composed."""
    x = pyro.sample("x", N(0.0, 0.5))
    bounded = transforms.ComposeTransform(
        [transforms.SigmoidTransform(), transforms.AffineTransform(1.0, 2.0)]
    )
    pyro.sample("rate", dist.TransformedDistribution(N(x, 1.0), [bounded]))


def embedded_words(words: torch.Tensor) -> None:
    """Embeddings that are themselves sites, looked up by word."""
    with pyro.plate("vocabulary", 5):
        table = pyro.sample("table", N(torch.zeros(2), 1.0).to_event(1))
    meaning = nn.functional.embedding(words, table).mean(0)
    pyro.sample("score", N(meaning.sum(-1), 0.1))


def graph_convolution(edges: torch.Tensor) -> None:
    """Messages between nodes by index_add, twice."""
    w = pyro.sample("w", N(torch.eye(2), 0.1).to_event(2))
    with pyro.plate("nodes", 4):
        h = pyro.sample("h", N(torch.zeros(2), 1.0).to_event(1))
    for _ in range(2):
        h = torch.tanh(torch.zeros(4, 2).index_add(0, edges[1], h[edges[0]]) @ w + h)
    with pyro.plate("readings", 4):
        pyro.sample("y", N(h.sum(-1), 0.1))


PIXELS = (uniform_data(51, 3, 9) > 0.5).float()
BATCH = (uniform_data(52, 2, 3, 3) > 0.5).float()
MASK = torch.tensor([[True, True, True], [True, True, False]])

ENTRIES = (
    Entry(
        "variational autoencoder",
        seeded(Autoencoder).model,
        {"z": 30 * normal_data(53, 3, 2)},
        "image",
        args=(PIXELS,),
        law="image",
    ),
    Entry(
        "conditional autoencoder",
        seeded(Conditional),
        {"label": torch.tensor([2, 2, 0])},
        "x",
        args=(torch.tensor([0, 1, 2]),),
        law="x",
    ),
    Entry(
        "semi-supervised autoencoder",
        seeded(HalfLabelled).model,
        {"z": 30 * normal_data(54, 3, 2)},
        "x",
        args=((uniform_data(55, 3, 6) > 0.5).float(),),
        kwargs={"ys": torch.eye(3)},
    ),
    Entry(
        "semi-supervised autoencoder, labels",
        seeded(HalfLabelled).model,
        {"y": torch.tensor([0.0, 0.0, 1.0])},
        "x",
        "",
        args=((uniform_data(55, 3, 6) > 0.5).float(),),
    ),
    Entry(
        "convolutional decoder",
        seeded(Convolutional),
        {"z": normal_data(56, 3, 2)},
        "image",
        args=(normal_data(57, 3, 1, 4, 4),),
    ),
    Entry(
        "deep Markov model",
        seeded(Markov).model,
        {"z_2": 30 * normal_data(58, 2, 2)},
        "x_2 z_3 x_3",
        "x_2 z_3",
        args=(BATCH, MASK),
    ),
    Entry(
        "recurrent events",
        seeded(Recurrent),
        {"event_1": 3.0},
        "event_2 event_3",
        args=(4,),
        law="event_3",
    ),
    Entry("attention", seeded(Attention), {"tokens": normal_data(59, 3, 4)}, "y"),
    Entry("dropout in eval mode", seeded(Dropped), {"x": torch.tensor([2.0, -1.0])}, "y"),
    Entry("spline flow", seeded(SplineFlow), {"x": 1.0}, "y", law="y"),
    Entry("conditional spline flow", seeded(ConditionalFlow), {"x": 1.0}, "y", law="y"),
    Entry("coupling layer", seeded(AffineCoupling), {"x": 1.0}, "y"),
    Entry("bounded rate", log_and_scale, {"x": 1.0}, "rate", law="rate"),
    Entry(
        "embedded words",
        embedded_words,
        {"table": normal_data(60, 5, 2)},
        "score",
        args=(torch.tensor([0, 3, 3, 1]),),
    ),
    Entry(
        "graph convolution",
        graph_convolution,
        {"h": normal_data(61, 4, 2)},
        "y",
        args=(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]]),),
    ),
)
