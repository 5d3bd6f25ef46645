"""Whether an answer may be trusted: calibration on simulated worlds, coverage, predictive checks, convergence, refutation."""

from .calibration import simulation_based_calibration
from .calibration_result import Calibration
from .confounding import ConfoundingSensitivity, confounding_sensitivity
from .coverage import coverage
from .of_guides import calibrate
from .predictive import posterior_predictive
from .refutation import Refutation, refute
from .reliability import summary
from .uniformity import Band, ecdf_band, uniformity_p_value

__all__ = [
    "Band",
    "Calibration",
    "ConfoundingSensitivity",
    "Refutation",
    "calibrate",
    "confounding_sensitivity",
    "coverage",
    "ecdf_band",
    "posterior_predictive",
    "refute",
    "simulation_based_calibration",
    "summary",
    "uniformity_p_value",
]
