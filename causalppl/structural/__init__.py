"""The structural form of a Pyro program, its executors, its randomness and its dependencies."""

from .evidence import Interval
from .executors import Executor, settings
from .form import StructuralForm
from .site_messenger import SiteMessenger
from .sites import Site

__all__ = ["Executor", "Interval", "Site", "SiteMessenger", "StructuralForm", "settings"]
