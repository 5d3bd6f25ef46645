"""The one loop that trains anything: guides, and the programs' own parameters."""

from .checkpoint import saved_seed
from .history import History
from .loop import train
from .schedules import SCHEDULES

__all__ = ["SCHEDULES", "History", "saved_seed", "train"]
