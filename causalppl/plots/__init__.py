"""Pictures: axes in, axes out, so that each fits into any matplotlib figure."""

from .of_calibration import calibration, coverage, rank_histogram
from .of_effects import dose_response, forest
from .of_training import history
from .of_worlds import contrast, worlds

__all__ = [
    "calibration",
    "contrast",
    "coverage",
    "dose_response",
    "forest",
    "history",
    "rank_histogram",
    "worlds",
]
