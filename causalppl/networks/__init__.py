"""Neural networks that programs, guides and mechanisms are made of: conditional flows, categorical heads, embedding networks.

Nothing here knows of programs or inference. Flows load zuko where they are built, and nowhere else.
"""

from .categorical import CategoricalHead
from .embeddings import ImageEmbedding, SequenceEmbedding, SetEmbedding, embedding_for
from .flows import FLOWS, ConditionalFlow
from .residual import ResidualNetwork

__all__ = [
    "FLOWS",
    "CategoricalHead",
    "ConditionalFlow",
    "ImageEmbedding",
    "ResidualNetwork",
    "SequenceEmbedding",
    "SetEmbedding",
    "embedding_for",
]
