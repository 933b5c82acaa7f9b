"""Models, predictions and survival: what each takes, what may differ between parties, and its reference."""

from __future__ import annotations

import protocols
from tests.protocols.edges import models
from tests.protocols.edges.references import BINS, THRESHOLDS
from tests.protocols.edges.running import Case
from tests.protocols.edges.running import fields as f
from tests.protocols.edges.tables import BOUND, THREE

BOTH = ("rows", "columns")
X = ("x", "z")


def model_cases() -> list[Case]:
    """Return the cases."""
    pairs = {"probability": "p", "y": "y"}
    return [
        # ---- models
        Case(
            "linear_regression",
            protocols.linear_regression,
            {"X": X, "y": "w"},
            models.linear,
            f("params", "std_err", "p_value", "n", "df_resid", "ssr", "sigma", "r_squared"),
            {"bound": BOUND, "y_bound": BOUND},
            partitions=BOTH,
            all_hold=True,
            bounded=("X", "y"),
            atol=1e-6,
            rtol=1e-5,
            others={
                "bound": 20.0,
                "y_bound": 20.0,
                "l2": 1.0,
                "names": ["a", "b"],
                "confidence": 0.9,
                "missing": "raise",
                "to": [0],
            },
        ),
        Case(
            "logistic_regression",
            protocols.logistic_regression,
            {"X": X, "y": "y"},
            models.logistic,
            f("params", "std_err", "n", "log_likelihood"),
            {"bound": BOUND, "missing": "drop"},
            partitions=BOTH,
            slow=True,
            all_hold=True,
            bounded=("X",),
            atol=2e-4,
            rtol=2e-4,
            others={
                "bound": 20.0,
                "l2": 1.0,
                "names": ["a", "b"],
                "missing": "raise",
                "to": [0],
                "steps": 9,
                "stop_early": True,
                "solver": "gradient",
                "reveal": False,
            },
        ),
        Case(
            "poisson_regression",
            protocols.poisson_regression,
            {"X": X, "y": "w"},
            models.poisson,
            f("params", "std_err", "n", "log_likelihood", "deviance"),
            {"bound": BOUND, "y_bound": BOUND},
            partitions=BOTH,
            slow=True,
            all_hold=True,
            bounded=("X", "y"),
            atol=1e-4,
            rtol=1e-4,
            others={
                "bound": 20.0,
                "y_bound": 20.0,
                "names": ["a", "b"],
                "missing": "raise",
                "to": [0],
                "steps": 9,
                "stop_early": True,
                "confidence": 0.9,
            },
        ),
        # ---- prediction
        Case(
            "roc_auc",
            protocols.roc_auc,
            {"score": "p", "y": "y"},
            models.areas,
            f("auc", "std_err", "positives", "sensitivity", "specificity"),
            {"bound": 1.0, "grid": THRESHOLDS},
            partitions=BOTH,
            others={"bound": 2.0, "grid": THRESHOLDS[1:], "confidence": 0.9, "to": [0]},
        ),
        Case(
            "brier_score",
            protocols.brier_score,
            pairs,
            models.briers,
            f("score", "skill", "n"),
            {},
            partitions=BOTH,
            atol=1e-6,
            others={"to": [0]},
        ),
        Case(
            "calibration",
            protocols.calibration,
            pairs,
            models.calibrations,
            f("count", "positives", "mean_predicted", "observed", "in_the_large", "brier"),
            {"bins": BINS},
            partitions=BOTH,
            atol=1e-6,
            others={"bins": 5, "to": [0], "slope": True},
        ),
        # ---- survival
        Case(
            "kaplan_meier",
            protocols.kaplan_meier,
            {"time": "t", "event": "e", "group": "g"},
            models.curves,
            models.read_curves,
            {"grid": models.GRID, "categories": THREE, "grouped": True},
            partitions=BOTH,
            others={
                "grid": (1.0, 13.0, 1.0),
                "categories": (*THREE, "d"),
                "confidence": 0.9,
                "conf_type": "plain",
                "to": [0],
            },
        ),
        Case(
            "log_rank",
            protocols.log_rank,
            {"time": "t", "event": "e", "group": "g"},
            models.log_ranks,
            f("observed", "expected", "covariance", "statistic", "p_value", "df"),
            {"grid": models.GRID, "categories": THREE},
            partitions=BOTH,
            atol=1e-6,
            others={"grid": (1.0, 13.0, 1.0), "categories": (*THREE, "d"), "weights": "wilcoxon", "to": [0]},
        ),
        Case(
            "cox_regression",
            protocols.cox_regression,
            {"time": "t", "event": "e", "X": X},
            models.cox,
            f("coef", "std_err", "log_likelihood", "log_likelihood_null", "events"),
            {"bound": BOUND, "grid": models.GRID},
            partitions=BOTH,
            slow=True,
            bounded=("X",),
            atol=1e-5,
            rtol=1e-4,
            others={
                "bound": 20.0,
                "grid": (1.0, 13.0, 1.0),
                "ties": "breslow",
                "l2": 1.0,
                "names": ["a", "b"],
                "steps": 7,
                "stop_early": True,
                "most_ties": 64,
                "concordance": True,
                "confidence": 0.9,
                "to": [0],
            },
        ),
    ]
