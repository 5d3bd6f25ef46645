"""Handwritten digits: what would this one look like in the same hand, had another digit been written?

Each image is 8 by 8 whole numbers from 0 to 16: how many pixels of a 4 by 4 block of the scanned digit were inked. Somebody meant a
``digit`` and wrote it in a ``style`` (slant, width, weight of the stroke), six numbers that nobody recorded::

    digit --> image <-- style

    digit_i ~ Categorical(1/10, ..., 1/10)
    style_i ~ N(0, I_6)
    image_i ~ DiscretizedLogistic(decoder(digit_i, style_i)), each block on its own

The decoder is a network and has to be fitted: ``cp.fit(model, guide=guide, ...)(images, digits)``, where :data:`guide` is the encoder
of a variational autoencoder, a Pyro guide written by hand. Digit and style are independent, so setting the digit leaves the style of
the writer as it was; and the noise of each block, which belongs to this very sheet of paper, stays too. That is the
counterfactual image. Nothing in the data tells how a block's noise would act on another digit: that it is monotone is an assumption.

There is no exact answer. What can be measured is whether a classifier that has seen only real images reads the digit that was set:
after 1,500 steps on 1,500 images, a support vector machine that reads 98.3% of the other images reads 96.6% of their counterfactuals.

Data: the ``scikit-learn`` package, ``load_digits``: the test set of E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten
Digits, UCI Machine Learning Repository, https://doi.org/10.24432/C50P49.
"""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import nn

from causalppl.networks import Decoder, DiscretizedLogisticHead, ResidualNetwork

__all__ = ["STYLES", "Encoder", "data", "decoder", "guide", "model"]

STYLES = 6


class Encoder(nn.Module):
    """The guide: style given image and digit, a normal law with a full covariance."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.network = ResidualNetwork(64 + 10, STYLES + STYLES**2, width)

    def forward(self, images: torch.Tensor, digits: torch.Tensor) -> None:
        """The program's arguments."""
        which = nn.functional.one_hot(digits.long(), 10).to(images)
        out = self.network(torch.cat([images.flatten(-2) / 8 - 1, which], -1))
        loc, raw = out[:, :STYLES], out[:, STYLES:].unflatten(-1, (STYLES, STYLES))
        scales = nn.functional.softplus(raw.diagonal(dim1=-2, dim2=-1)) + 1e-2
        factor = torch.diag_embed(scales) + raw.tril(-1)
        with pyro.plate("images", len(images)):
            pyro.sample("style", dist.MultivariateNormal(loc, scale_tril=factor))


with torch.random.fork_rng(
    devices=[]
):  # the same weights at each import, and the generator as it was
    torch.manual_seed(0)
    decoder = Decoder([10, STYLES], DiscretizedLogisticHead((8, 8), 0, 16), width=128)
    guide = Encoder()


def model(images: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
    """Images and the digits that they show.

    Args:
        images: ``(images, 8, 8)``, inked pixels of 16 in each block.
        digits: ``(images,)``, 0 to 9.

    Returns:
        The site ``image``, ``(images, 8, 8)``.
    """
    with pyro.plate("images", len(images)):
        digit = pyro.sample("digit", dist.Categorical(torch.full((10,), 0.1)), obs=digits)
        style = pyro.sample("style", dist.Normal(torch.zeros(STYLES), 1.0).to_event(1))
        which = nn.functional.one_hot(digit.long(), 10)
        return pyro.sample("image", decoder(which, style), obs=images)


def data() -> tuple[tuple[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]:
    """All 1,797 images and their digits, in an order in which any part shows all writers; they are observed in the program itself."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.images), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.images, dtype=torch.float32)[order]
    return (images, torch.tensor(found.target)[order]), {}
