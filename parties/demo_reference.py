"""Models in the clear, to compare with: what a hospital gets alone, and what all would get on one heap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Model(Protocol):
    """What a joint fit and one in the clear have in common."""

    @property
    def intercept(self) -> float:
        """Log-odds where all features are 0."""

    @property
    def coef(self) -> NDArray[np.float64]:
        """Change of the log-odds for one unit of each feature."""

    @property
    def std_err(self) -> NDArray[np.float64]:
        """Standard errors, that of the intercept first."""


@dataclass(frozen=True, slots=True)
class ClearFit:
    """A logistic model in original units; see :class:`Model`."""

    intercept: float
    coef: NDArray[np.float64]
    std_err: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quality:
    """How a model does on patients whose diagnosis is known; a tumour is called malignant from 50 %."""

    missed: int
    malignant: int
    false_alarms: int
    benign: int
    auc: float
    log_loss: float


def fit_in_the_clear(X: NDArray[np.float64], y: NDArray[np.int64], *, l2: float) -> ClearFit:
    """Fit with scikit-learn the model that :func:`protocols.logistic_regression` fits on shares.

    Features are standardised, the intercept is not penalised, and standard errors come from the
    penalised Hessian, which scikit-learn does not give.
    """
    from sklearn.linear_model import LogisticRegression

    mean, deviation = X.mean(axis=0), X.std(axis=0)
    Z = (X - mean) / deviation
    fit = LogisticRegression(C=1 / l2, tol=1e-12, max_iter=10_000).fit(Z, y)
    A = np.column_stack([np.ones(len(Z)), Z])
    p = fit.predict_proba(Z)[:, 1]
    H = A.T @ (A * (p * (1 - p))[:, None]) + np.diag([0.0] + [l2] * X.shape[1])

    # Back to original units: w = z_coef / deviation, intercept = z_intercept - w @ mean.
    back = np.diag(np.concatenate([[1.0], 1 / deviation]))
    back[0, 1:] = -mean / deviation
    intercept, *coef = back @ np.concatenate([fit.intercept_, fit.coef_[0]])
    std_err = np.sqrt(np.diag(back @ np.linalg.inv(H) @ back.T))
    return ClearFit(float(intercept), np.array(coef), std_err)


def largest_difference(ours: Model, theirs: Model) -> float:
    """Return the largest difference of two models' coefficients, in standard errors of the second."""
    difference = np.concatenate([[ours.intercept - theirs.intercept], ours.coef - theirs.coef])
    return float(np.max(np.abs(difference) / theirs.std_err))


def quality(model: Model, X: NDArray[np.float64], y: NDArray[np.int64]) -> Quality:
    """Try a model on patients whose diagnosis is known."""
    from sklearn.metrics import roc_auc_score

    log_odds = model.intercept + X @ model.coef
    called_malignant = log_odds > 0
    return Quality(
        missed=int(np.sum(~called_malignant & (y == 1))),
        malignant=int(np.sum(y == 1)),
        false_alarms=int(np.sum(called_malignant & (y == 0))),
        benign=int(np.sum(y == 0)),
        auc=float(roc_auc_score(y, log_odds)),
        log_loss=float(np.mean(np.logaddexp(0.0, np.where(y == 1, -log_odds, log_odds)))),
    )
