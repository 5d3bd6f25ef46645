"""Neural networks that programs, guides and mechanisms are made of: conditional flows, categorical heads, decoders,
embedding networks.

Nothing here knows of programs or inference. Flows load zuko where they are built, and nowhere else.
"""

from .categorical import CategoricalHead
from .decoders import BernoulliHead, Decoder, DiscretizedLogisticHead, GaussianHead
from .discretized_logistic import DiscretizedLogistic
from .embeddings import ImageEmbedding, SequenceEmbedding, SetEmbedding, embedding_for
from .flows import FLOWS, ConditionalFlow
from .residual import ResidualNetwork

__all__ = [
    "FLOWS",
    "BernoulliHead",
    "CategoricalHead",
    "ConditionalFlow",
    "Decoder",
    "DiscretizedLogistic",
    "DiscretizedLogisticHead",
    "GaussianHead",
    "ImageEmbedding",
    "ResidualNetwork",
    "SequenceEmbedding",
    "SetEmbedding",
    "embedding_for",
]
