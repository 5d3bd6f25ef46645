"""All cases."""

import composed_cases  # noqa: F401  (adds its cases)
import flow_cases  # noqa: F401
import simple_cases  # noqa: F401
from case_table import CASES, SLOW_TRACES

__all__ = ["CASES", "SLOW_TRACES"]

#: Families built on the quadrature of Gamma and Beta laws: that of Gamma stays in the default run for all of them.
_QUADRATURE = (
    "AffineBeta", "Beta", "Binomial", "Chi2", "Dirichlet", "FisherSnedecor", "Gamma[", "GammaPoisson", "InverseGamma", "Correlation",
    "Multinomial", "MultivariateStudentT", "NegativeBinomial", "Poisson", "ProjectedNormal", "QuietWishart",
    "RelaxedOneHotCategorical", "StudentT", "VonMises", "ZeroInflatedNegative", "ZeroInflatedPoisson", "mixture_of_counts",
    "sine_skewed",
)  # fmt: skip
SLOW_TRACES |= {name for name in CASES if name.startswith(_QUADRATURE)}
