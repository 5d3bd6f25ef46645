"""Results with names: draws of every site in every world, labelled by draw, world and plate."""

from .diagnostics import Diagnostics
from .labels import SiteLabels
from .worlds import Worlds

__all__ = ["Diagnostics", "SiteLabels", "Worlds"]
