"""How good predictions are."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.accuracy import datasets
from tests.accuracy.cases import Case, Figure, call, exact


def cases() -> list[Case]:
    """Return the comparisons."""
    from sklearn.calibration import calibration_curve
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import brier_score_loss, roc_auc_score

    from protocols.prediction.calibration import brier_score, calibration
    from protocols.prediction.prediction_quality import roc_auc

    frame = datasets.breast_cancer()
    columns = ["mean_radius", "mean_smoothness", "mean_symmetry"]
    model = LogisticRegression(max_iter=5000).fit(frame[columns], frame.target)
    parts = datasets.dealt(frame.assign(probability=model.predict_proba(frame[columns])[:, 1]))
    pooled = datasets.pooled(parts)
    observed, mean = calibration_curve(pooled.target, pooled.probability, n_bins=10)

    def table(found: Any) -> list[Figure]:
        full = found.count > 0
        return [
            Figure(f"observed ({full.sum()})", observed, found.observed[full], 1e-9),
            Figure(f"mean predicted ({full.sum()})", mean, found.mean_predicted[full], 1e-9),
            exact("rows in bins (10)", np.histogram(pooled.probability, 10, (0, 1))[0], found.count),
        ]

    return [
        Case(
            "roc_auc",
            "breast_cancer",
            "scikit-learn",
            parts,
            call(roc_auc, "probability", "target"),
            lambda found: [
                Figure("area", roc_auc_score(pooled.target, pooled.probability), found.auc, 1e-9),
                Figure("DeLong's standard error", _delong(pooled), found.std_err, 1e-9),
            ],
            quick=True,
        ),
        Case("calibration", "breast_cancer", "scikit-learn", parts, call(calibration, "probability", "target"), table),
        Case(
            "brier_score",
            "breast_cancer",
            "scikit-learn",
            parts,
            call(brier_score, "probability", "target"),
            lambda found: [Figure("score", brier_score_loss(pooled.target, pooled.probability), found.score, 1e-9)],
        ),
    ]


def _delong(pooled: Any) -> float:
    """DeLong, DeLong and Clarke-Pearson's formula, pair by pair."""
    ill, well = (pooled[pooled.target == k].probability.to_numpy() for k in (1, 0))
    above = np.sign(ill[:, np.newaxis] - well) / 2 + 0.5
    return float(np.sqrt(above.mean(axis=1).var(ddof=1) / len(ill) + above.mean(axis=0).var(ddof=1) / len(well)))
