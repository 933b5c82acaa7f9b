"""What statsmodels, scikit-learn, lifelines and numpy say of pooled complete rows: models, predictions, survival."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from tests.protocols.edges.references import BINS, THRESHOLDS, constant, matrix
from tests.protocols.edges.running import NAN, Answer
from tests.protocols.edges.tables import LAST_TIME, THREE, Table, rows_of

GRID = (1.0, LAST_TIME, 1.0)
# Estimates this far out, or matrices this badly conditioned, may be given up: the results say so.
_FAR, _BAD = 6.0, 1e4


def _ray(directions: NDArray[np.float64], equal: NDArray[np.float64] | None = None) -> bool:
    """Whether some b has ``directions b >= 0``, not all 0, and ``equal b = 0``: then a likelihood grows for ever."""
    size = directions.shape[1]
    found = optimize.linprog(
        -directions.sum(axis=0),
        A_ub=-directions,
        b_ub=np.zeros(len(directions)),
        A_eq=equal if equal is not None and len(equal) else None,
        b_eq=np.zeros(len(equal)) if equal is not None and len(equal) else None,
        bounds=[(-1, 1)] * size,
    )
    return bool(found.status == 0 and -found.fun > 1e-9)


def _design(table: Table) -> tuple[NDArray[np.float64], list[int], bool, bool]:
    """Return the columns with a constant, which of them vary, whether they are independent, and whether only just."""
    X = matrix(table, "x", "z")
    varying = [k for k in range(2) if not constant(X[:, k])]
    kept = X[:, varying]
    scaled = (kept - kept.mean(axis=0)) / kept.std(axis=0)
    singular = np.linalg.svd(scaled, compute_uv=False) if varying else np.ones(1)
    independent = len(X) > len(varying) and bool(singular.min() > 1e-9 * math.sqrt(len(X)))
    near = singular.max() > _BAD**0.5 * singular.min()
    return np.column_stack([np.ones(len(X)), X]), varying, independent, near


def _placed(values: Any, varying: list[int]) -> NDArray[np.float64]:
    """Put estimates of the intercept and of the columns that vary in their places; NaN in the others."""
    found = np.full(3, NAN)
    found[[0, *(1 + k for k in varying)]] = values
    return found


def linear(table: Table) -> Answer:
    import statsmodels.api as sm

    if rows_of(table) < 4:
        return Answer(refused="row")
    A, varying, independent, near = _design(table)
    y = table["w"]
    if constant(y):
        return Answer(warned="y is constant")
    if not independent:
        return Answer(warned="collinear|rows|no spread")
    kept = [0, *(1 + k for k in varying)]
    freedom = len(y) - len(kept)
    fit = sm.OLS(y, A[:, kept]).fit()
    found = {"params": _placed(fit.params, varying), "n": len(y), "df_resid": freedom}
    # Without rows to spare, and where all is explained, what is left is rounding.
    exact = freedom <= 0 or fit.ssr < 1e-9 * max(1.0, fit.centered_tss)
    if not exact:
        found |= {"std_err": _placed(fit.bse, varying), "p_value": _placed(fit.pvalues, varying)}
        found |= {"ssr": fit.ssr, "sigma": math.sqrt(fit.scale)}
        found["r_squared"] = fit.rsquared
    elif freedom <= 0:
        found |= {"std_err": np.full(3, NAN), "p_value": np.full(3, NAN)}
    return Answer(found, may_warn=near, unsaid=("std_err", "p_value"))


def logistic(table: Table) -> Answer:
    import statsmodels.api as sm

    if not rows_of(table):
        return Answer(refused="no party has a row|has no rows|complete")
    A, varying, independent, near = _design(table)
    y = table["y"]
    if not independent:
        return Answer(warned="collinear|separable|no spread")
    kept = A[:, [0, *(1 + k for k in varying)]]
    if _ray(kept * np.where(y == 1, 1.0, -1.0)[:, None]):
        return Answer(warned="separable")
    fit = sm.Logit(y, kept).fit(method="newton", maxiter=100, disp=0, tol=1e-12)
    found = {"params": _placed(fit.params, varying), "std_err": _placed(fit.bse, varying), "n": len(y)}
    found["log_likelihood"] = fit.llf
    # Nearly separable: documented are five parts in ten thousand, which is 2.5 times the case's two.
    far = bool(np.abs(kept @ fit.params).max() > _FAR)
    return Answer(found, may_warn=near or far, slack=2.5 if near or far else 1.0)


def poisson(table: Table) -> Answer:
    import statsmodels.api as sm

    if not rows_of(table):
        return Answer(refused="no party has a row|has no rows|complete")
    A, varying, independent, near = _design(table)
    y = table["w"]
    if not independent:
        return Answer(warned="collinear|no spread|range|converge|steps")
    kept = A[:, [0, *(1 + k for k in varying)]]
    if not y.any() or ((y == 0).any() and _ray(-kept[y == 0], kept[y > 0])):
        return Answer(warned=".")
    fit = sm.GLM(y, kept, family=sm.families.Poisson()).fit(tol=1e-12, maxiter=100)
    found = {"params": _placed(fit.params, varying), "std_err": _placed(fit.bse, varying), "n": len(y)}
    found |= {"log_likelihood": fit.llf, "deviance": fit.deviance}
    weights = kept * np.sqrt(fit.mu)[:, None]
    spread = np.linalg.cond(weights / np.linalg.norm(weights, axis=0))
    far = np.log(fit.mu).min() < math.log(10.0) - 20
    return Answer(found, may_warn=near or far or spread > _BAD**0.5)


# ---- prediction ---------------------------------------------------------------------------------


def areas(table: Table) -> Answer:
    from sklearn.metrics import roc_auc_score

    p, y = table["p"], table["y"]
    ones, zeros = p[y == 1], p[y == 0]
    if not len(ones) or not len(zeros):
        return Answer(refused="class|row")
    above = (ones[:, None] > zeros[None, :]) + 0.5 * (ones[:, None] == zeros[None, :])
    single = min(above.shape) < 2
    variance = (
        NAN if single else above.mean(axis=1).var(ddof=1) / len(ones) + above.mean(axis=0).var(ddof=1) / len(zeros)
    )
    found = {"auc": roc_auc_score(y, p), "std_err": math.sqrt(variance), "positives": len(ones)}
    found["sensitivity"] = [(ones >= t).mean() for t in THRESHOLDS]
    found["specificity"] = [(zeros < t).mean() for t in THRESHOLDS]
    return Answer(found, unsaid=("std_err",))


def briers(table: Table) -> Answer:
    from sklearn.metrics import brier_score_loss

    p, y = table["p"], table["y"]
    if constant(y):
        return Answer(refused="class|row")
    score = brier_score_loss(y, p)
    return Answer({"score": score, "skill": 1 - score / y.var(), "n": len(y)})


def calibrations(table: Table) -> Answer:
    p, y = table["p"], table["y"]
    if constant(y):
        return Answer(refused="class|row")
    bins = np.searchsorted(np.arange(1, BINS) / BINS, p, side="left")
    found: dict[str, Any] = {"count": np.bincount(bins, minlength=BINS)}
    found["positives"] = np.bincount(bins[y == 1], minlength=BINS)
    found["mean_predicted"] = [p[bins == k].mean() if (bins == k).any() else NAN for k in range(BINS)]
    found["observed"] = [y[bins == k].mean() if (bins == k).any() else NAN for k in range(BINS)]
    found |= {"in_the_large": y.mean() - p.mean(), "brier": ((p - y) ** 2).mean()}
    return Answer(found, unsaid=("mean_predicted", "observed"))


# ---- survival -----------------------------------------------------------------------------------


def followed(table: Table) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return times and events as the grid tells them apart: rounded up, censored at the last point."""
    time = np.maximum(np.ceil(table["t"]), 1.0)
    return np.minimum(time, LAST_TIME), np.where(time > LAST_TIME, 0, table["e"])


def curves(table: Table) -> Answer:
    from lifelines import KaplanMeierFitter

    if not rows_of(table):
        return Answer(refused="row|too few")
    time, event = followed(table)
    found: dict[str, Any] = {}
    for label in THREE:
        own = table["g"] == label
        t, e = time[own], event[own]
        points = np.unique(t)
        found[f"{label}: time"] = points
        found[f"{label}: at risk"] = [(t >= one).sum() for one in points]
        found[f"{label}: events"] = [((t == one) & (e == 1)).sum() for one in points]
        found[f"{label}: median"] = _median(t, e)
        if not len(t):
            continue
        fit = KaplanMeierFitter().fit(t, e)
        found[f"{label}: survival"] = survival = np.atleast_1d(fit.predict(points))
        ends = fit.confidence_interval_survival_function_.loc[points].to_numpy()
        # lifelines has no interval where nobody is left, and before the first event that of no width.
        between = (survival > 0) & (survival < 1)
        found[f"{label}: ends"] = np.where(between[:, None], ends, 0.0)
    return Answer(found, unsaid=tuple(f"{label}: median" for label in THREE))


def _median(time: NDArray[np.float64], event: NDArray[np.int64]) -> float:
    """Return the first time at which at most one half survives, in fractions: one half is one half."""
    survival = Fraction(1)
    for point in np.unique(time):
        survival *= 1 - Fraction(int(((time == point) & (event == 1)).sum()), int((time >= point).sum()))
        if survival <= Fraction(1, 2):
            return float(point)
    return math.inf if len(time) else NAN


def read_curves(result: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for one in result.curves:
        between = ((one.survival > 0) & (one.survival < 1))[:, None]
        found |= {
            f"{one.group}: time": one.time,
            f"{one.group}: at risk": one.at_risk,
            f"{one.group}: events": one.events,
            f"{one.group}: survival": one.survival,
            f"{one.group}: median": one.median,
            f"{one.group}: ends": np.where(between, np.stack([one.lower, one.upper], axis=1), 0.0),
        }
    return found


def log_ranks(table: Table) -> Answer:
    """Mantel's test, with the generalised inverse where no one of a group was at risk with others."""
    time, event = followed(table)
    member = np.array([table["g"] == label for label in THREE])
    kept = np.flatnonzero(member.any(axis=1))
    if len(kept) < 2:
        return Answer(refused="two groups|row")
    observed, expected, covariance = np.zeros(3), np.zeros(3), np.zeros((3, 3))
    for point in np.unique(time[event == 1]):
        at_risk = (member & (time >= point)).sum(axis=1).astype(float)
        d, n = ((time == point) & (event == 1)).sum(), at_risk.sum()
        observed += (member & (time == point) & (event == 1)).sum(axis=1)
        expected += d * at_risk / n
        if n > 1:
            spread = np.diag(at_risk / n) - np.outer(at_risk, at_risk) / n**2
            covariance += d * (n - d) / (n - 1) * spread
    found: dict[str, Any] = {"observed": observed, "expected": expected, "covariance": covariance}
    # One less than there are groups, whatever the rank; lifelines takes the generalised inverse, too.
    difference, df = observed - expected, len(kept) - 1
    statistic = difference @ np.linalg.pinv(covariance, rcond=1e-9, hermitian=True) @ difference
    found |= {"statistic": statistic, "df": df, "p_value": stats.chi2.sf(statistic, df)}
    return Answer(found)


def _efron(b: NDArray[np.float64], X: NDArray[np.float64], time: Any, event: Any) -> tuple[float, Any, Any]:
    """Return the partial log-likelihood with Efron's ties, its gradient and information."""
    hazard, value = np.exp(X @ b), 0.0
    gradient, information = np.zeros(X.shape[1]), np.zeros((X.shape[1],) * 2)
    for point in np.unique(time[event == 1]):
        risk, tied = time >= point, (time == point) & (event == 1)
        d = int(tied.sum())
        value += float((X[tied] @ b).sum())
        gradient += X[tied].sum(axis=0)
        for k in range(d):
            weight = hazard * risk - k / d * hazard * tied
            mean = weight @ X / weight.sum()
            value -= math.log(weight.sum())
            gradient -= mean
            information += (X.T * weight) @ X / weight.sum() - np.outer(mean, mean)
    return value, gradient, information


def cox(table: Table) -> Answer:
    """Newton's method on the partial likelihood; none where it grows for ever."""
    time, event = followed(table)
    if not event.any():
        return Answer(refused="event|row")
    A, varying, independent, near = _design(table)
    if not varying:
        return Answer({"coef": np.full(2, NAN), "std_err": np.full(2, NAN), "events": int(event.sum())})
    X = A[:, [1 + k for k in varying]]
    later = [X[i] - X[j] for i in np.flatnonzero(event) for j in np.flatnonzero(time >= time[i]) if i != j]
    apart = np.array(later) if later else np.zeros((0, X.shape[1]))
    if not independent or np.linalg.matrix_rank(apart, tol=1e-9) < X.shape[1]:
        return Answer(warned=".")
    if _ray(apart):
        return Answer(warned=".")
    b = np.zeros(X.shape[1])
    for _ in range(50):
        value, gradient, information = _efron(b, X, time, event)
        step = np.linalg.solve(information, gradient)
        while _efron(b + step, X, time, event)[0] < value - 1e-9:
            step = step / 2
        b = b + step
    value, _, information = _efron(b, X, time, event)
    coef, std_err = np.full(2, NAN), np.full(2, NAN)
    coef[varying], std_err[varying] = b, np.sqrt(np.diag(np.linalg.inv(information)))
    null = _efron(np.zeros_like(b), X, time, event)[0]
    found = {"coef": coef, "std_err": std_err, "log_likelihood": value, "log_likelihood_null": null}
    scaled = (X - X.mean(axis=0)) @ b
    far = (
        np.abs(scaled).max() > _FAR or np.linalg.cond(information * np.outer(X.std(axis=0), X.std(axis=0))) > _BAD**0.5
    )
    return Answer({**found, "events": int(event.sum())}, may_warn=bool(near or far))
