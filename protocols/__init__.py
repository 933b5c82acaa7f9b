"""What analysts ask for, on the data of several parties: sums, means, variances, regression.

Every function is a coroutine that all parties call with the same parameters and their own data; each
returns the agreed result at every party, or at the named ones (``to=``), once the agreed disclosure
control (``disclosure=``) holds.
"""

from protocols.disclosure import Disclosure, DisclosureError
from protocols.logistic import logistic_regression
from protocols.model import SharedModel
from protocols.predict import predict_proba
from protocols.results import ConvergenceWarning, LogisticResult
from protocols.sums import PrecisionWarning, secure_mean, secure_sum, secure_variance

__all__ = [
    "ConvergenceWarning",
    "Disclosure",
    "DisclosureError",
    "LogisticResult",
    "PrecisionWarning",
    "SharedModel",
    "logistic_regression",
    "predict_proba",
    "secure_mean",
    "secure_sum",
    "secure_variance",
]
