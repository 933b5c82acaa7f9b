"""What analysts ask for, on the data of several parties: tables, tests, regressions, survival.

Every function is a coroutine that all parties call with the same parameters and their own data; each
returns the agreed result at every party, or at the named ones (``to=``), once the agreed disclosure
control (``disclosure=``) holds.
"""

from protocols.anova import AnovaResult, anova
from protocols.calibration import BrierResult, CalibrationResult, brier_score, calibration
from protocols.contingency import ContingencyResult, contingency_table
from protocols.correlations import CorrelationResult, CovarianceResult, correlation, covariance
from protocols.cox import cox_regression
from protocols.disclosure import Disclosure, DisclosureError
from protocols.frames import Frame
from protocols.histograms import HistogramResult, histogram
from protocols.kaplan_meier import kaplan_meier
from protocols.linear_regression import linear_regression
from protocols.log_rank import log_rank
from protocols.logistic import logistic_regression
from protocols.mean_tests import TTestResult, t_test
from protocols.model import SharedModel
from protocols.outcome import Result
from protocols.poisson import poisson_regression
from protocols.predict import predict_proba
from protocols.prediction_quality import RocResult, roc_auc
from protocols.proportions import ProportionResult, proportion
from protocols.quantiles import QuantileResult, quantile
from protocols.ranks import KruskalResult, MannWhitneyResult, kruskal_wallis, mann_whitney
from protocols.regression_results import LinearResult, PoissonResult
from protocols.results import ConvergenceWarning, LogisticResult
from protocols.sums import PrecisionWarning, secure_mean, secure_sum, secure_variance
from protocols.survival_results import CoxResult, KaplanMeierResult, LogRankResult
from protocols.table_one import table_one
from protocols.table_one_results import TableOneResult
from protocols.variables import Column

__all__ = [
    "AnovaResult",
    "BrierResult",
    "CalibrationResult",
    "Column",
    "ContingencyResult",
    "ConvergenceWarning",
    "CorrelationResult",
    "CovarianceResult",
    "CoxResult",
    "Disclosure",
    "DisclosureError",
    "Frame",
    "HistogramResult",
    "KaplanMeierResult",
    "KruskalResult",
    "LinearResult",
    "LogRankResult",
    "LogisticResult",
    "MannWhitneyResult",
    "PoissonResult",
    "PrecisionWarning",
    "ProportionResult",
    "QuantileResult",
    "Result",
    "RocResult",
    "SharedModel",
    "TTestResult",
    "TableOneResult",
    "anova",
    "brier_score",
    "calibration",
    "contingency_table",
    "correlation",
    "covariance",
    "cox_regression",
    "histogram",
    "kaplan_meier",
    "kruskal_wallis",
    "linear_regression",
    "log_rank",
    "logistic_regression",
    "mann_whitney",
    "poisson_regression",
    "predict_proba",
    "proportion",
    "quantile",
    "roc_auc",
    "secure_mean",
    "secure_sum",
    "secure_variance",
    "t_test",
    "table_one",
]
