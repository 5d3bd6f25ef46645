"""Attribution: how probably a cause was necessary or sufficient, what the actual causes were, and which noise made an outlier."""

from .actual_causes import Cause, actual_causes
from .anomaly import AnomalyAttribution, attribute_anomaly
from .probabilities import ProbabilitiesOfCausation, probabilities_of_causation
from .tian_pearl import TianPearlBounds, tian_pearl_bounds

__all__ = [
    "AnomalyAttribution",
    "Cause",
    "ProbabilitiesOfCausation",
    "TianPearlBounds",
    "actual_causes",
    "attribute_anomaly",
    "probabilities_of_causation",
    "tian_pearl_bounds",
]
