"""The structural form of a Pyro program, its executors, its randomness and its dependencies."""

from .executors import Executor, settings
from .form import Site, SiteMessenger, StructuralForm

__all__ = ["Executor", "Site", "SiteMessenger", "StructuralForm", "settings"]
