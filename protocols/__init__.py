"""What analysts ask for, on the data of several parties: tables, tests, regressions, survival.

Every function is a coroutine that all parties call with the same parameters and their own data; each
returns the agreed result at every party, or at the named ones (``to=``), once the agreed disclosure
control (``disclosure=``) holds.
"""

from protocols.comparisons.anova import AnovaResult, anova
from protocols.comparisons.correlations import CorrelationResult, CovarianceResult, correlation, covariance
from protocols.comparisons.means import TTestResult, t_test
from protocols.comparisons.quantiles import QuantileResult, quantile
from protocols.comparisons.ranks import KruskalResult, MannWhitneyResult, kruskal_wallis, mann_whitney
from protocols.pools.frames import Frame
from protocols.pools.variables import Column
from protocols.prediction.calibration import BrierResult, CalibrationResult, brier_score, calibration
from protocols.prediction.prediction_quality import RocResult, roc_auc
from protocols.regression.linear_regression import linear_regression
from protocols.regression.logistic import logistic_regression
from protocols.regression.model import SharedModel
from protocols.regression.poisson import poisson_regression
from protocols.regression.predict import predict_proba
from protocols.regression.regression_results import LinearResult, PoissonResult
from protocols.regression.results import ConvergenceWarning, LogisticResult
from protocols.release.disclosure import Disclosure, DisclosureError
from protocols.release.outcome import Result
from protocols.sums import PrecisionWarning, secure_mean, secure_sum, secure_variance
from protocols.survival.cox import cox_regression
from protocols.survival.kaplan_meier import kaplan_meier
from protocols.survival.log_rank import log_rank
from protocols.survival.survival_results import CoxResult, KaplanMeierResult, LogRankResult
from protocols.tables.contingency import ContingencyResult, contingency_table
from protocols.tables.histograms import HistogramResult, histogram
from protocols.tables.proportions import ProportionResult, proportion
from protocols.tables.table_one import table_one
from protocols.tables.table_one_results import TableOneResult

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
