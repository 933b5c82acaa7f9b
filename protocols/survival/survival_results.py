"""Opened results of the analyses of times to an event."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocols.distributions import chi_squared_tail, normal_half_width
from protocols.pools.variables import Label
from protocols.release.outcome import Result, notes, number, p_text, plain, table

# Rounding must not hide that a curve has reached a half.
_HALF = 0.5 + 1e-12
_LONGEST_TABLE = 40
CONF_TYPES = ("log-log", "plain", "log")


@dataclass(frozen=True, eq=False)
class SurvivalCurve(Result):
    """The product-limit estimate of one group.

    Attributes
    ----------
    group : str, int or None
        None where there are no groups.
    since, time : numpy.ndarray
        Shape (intervals,): each entry speaks of the interval from ``since`` (not included) to ``time``; only
        intervals in which somebody had an event or was censored.
    at_risk, events, censored : numpy.ndarray
        Rows at risk at the beginning of the interval, with an event in it, censored in it.
    survival, std_err : numpy.ndarray
        At the end of the interval; the standard error is Greenwood's, NaN where survival is 0.
    lower, upper : numpy.ndarray
        Ends of the pointwise intervals.
    median : float
        The first time at which survival is at most 1/2; infinite if it never is, NaN without any entry.
    median_interval : tuple of float
        The first times at which the lower and the upper ends are.
    """

    group: Label | None
    since: NDArray[np.float64]
    time: NDArray[np.float64]
    at_risk: NDArray[np.int64]
    events: NDArray[np.int64]
    censored: NDArray[np.int64]
    survival: NDArray[np.float64]
    std_err: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    median: float
    median_interval: tuple[float, float]

    def at(self, times: Any) -> NDArray[np.float64]:
        """Return the survival at given times: the curve falls at the end of each interval."""
        steps = np.concatenate([[1.0], self.survival])
        return np.asarray(steps[np.searchsorted(self.time, np.asarray(times, np.float64), side="right")])

    def summary(self) -> str:
        """Return the table that users of lifelines know, shortened in the middle."""
        head = ["time", "at_risk", "observed", "censored", "survival", "std err", "lower", "upper"]
        rows = list(self._rows())
        if len(rows) > _LONGEST_TABLE:
            half = _LONGEST_TABLE // 2
            rows = [*rows[:half], ["..."] * len(head), *rows[-half:]]
        title = "Kaplan-Meier" if self.group is None else f"Kaplan-Meier: {self.group}"
        low, high = self.median_interval
        median = f"Median: {number(self.median)} [{number(low)}, {number(high)}]"
        return "\n".join([table(head, rows, title=title), median])

    def _rows(self) -> Iterator[list[str]]:
        for k in range(len(self.time)):
            counts = [str(int(column[k])) for column in (self.at_risk, self.events, self.censored)]
            figures = [number(column[k]) for column in (self.survival, self.std_err, self.lower, self.upper)]
            yield [f"{self.time[k]:g}", *counts, *figures]


@dataclass(frozen=True, eq=False)
class KaplanMeierResult(Result):
    """Product-limit estimates of all groups.

    Attributes
    ----------
    curves : tuple of SurvivalCurve
        In the order of the groups; of a group that is withheld, one without entries.
    n : int
        Complete rows of all groups together.
    missing : dict of str to int
        By variable: rows in which it is missing.
    confidence : float
    conf_type : str
    suppressed : tuple of str
        What was withheld, merged or rounded, in words.
    names : tuple of str
        Names of the groups.
    """

    curves: tuple[SurvivalCurve, ...]
    n: int
    missing: dict[str, int | None]
    confidence: float
    conf_type: str
    suppressed: tuple[str, ...]
    names: tuple[str, ...]

    def curve(self, group: Label | None = None) -> SurvivalCurve:
        """Return the curve of a group."""
        for one in self.curves:
            if one.group == group:
                return one
        raise KeyError(f"there is no group {group!r}")

    def summary(self) -> str:
        """Return a table for each group."""
        return "\n\n".join(
            [*(one.summary() for one in self.curves), "\n".join(notes(self.n, self.missing, self.suppressed))]
        )


def survival_curve(
    group: Label | None,
    since: NDArray[np.float64],
    time: NDArray[np.float64],
    events: NDArray[np.int64],
    censored: NDArray[np.int64],
    confidence: float,
    conf_type: str,
) -> SurvivalCurve:
    """Compute a curve from opened counts, one entry an interval."""
    kept = events + censored > 0
    since, time, events, censored = since[kept], time[kept], events[kept], censored[kept]
    at_risk = (events + censored)[::-1].cumsum()[::-1]
    left = at_risk - events
    with np.errstate(divide="ignore", invalid="ignore"):
        survival = np.cumprod(left / at_risk)
        spread = np.sqrt(np.cumsum(np.where(left > 0, events / (at_risk * np.maximum(left, 1.0)), 0.0)))
        lower, upper = _interval(survival, spread, normal_half_width(confidence), conf_type)
        std_err = np.where(survival > 0, survival * spread, np.nan)
    return SurvivalCurve(
        group,
        since,
        time,
        at_risk,
        events,
        censored,
        survival,
        std_err,
        lower,
        upper,
        _first_half(time, survival),
        (_first_half(time, lower), _first_half(time, upper)),
    )


def _interval(
    survival: NDArray[np.float64], spread: NDArray[np.float64], z: float, conf_type: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of the pointwise intervals (Kalbfleisch, Prentice, 2002, section 1.4)."""
    if conf_type == "plain":
        half = z * survival * spread
        return np.maximum(survival - half, 0.0), np.minimum(survival + half, 1.0)
    log = np.log(survival)
    if conf_type == "log":
        lower, upper = np.exp(log - z * spread), np.minimum(np.exp(log + z * spread), 1.0)
    else:
        lower = np.exp(-np.exp(np.log(-log) - z * spread / log))
        upper = np.exp(-np.exp(np.log(-log) + z * spread / log))
    whole = survival >= 1  # before the first event
    return np.where(whole, 1.0, lower), np.where(whole, 1.0, upper)


def _first_half(time: NDArray[np.float64], curve: NDArray[np.float64]) -> float:
    if not len(time):
        return math.nan
    reached = np.flatnonzero(curve <= _HALF)
    return float(time[reached[0]]) if reached.size else math.inf


@dataclass(frozen=True, eq=False)
class LogRankResult(Result):
    """A test of whether groups have the same hazard.

    Attributes
    ----------
    statistic, p_value : float
        Chi square with ``df`` degrees of freedom.
    df : int
    observed, expected : numpy.ndarray
        Shape (groups,): events, and events expected if hazards were the same; not weighted.
    difference : numpy.ndarray
        Shape (groups,): observed less expected, weighted, over all strata.
    covariance : numpy.ndarray
        Shape (groups, groups): of the differences, hypergeometric.
    sizes : numpy.ndarray
        Shape (groups,): rows.
    weights : str or None
    groups : tuple
    strata : tuple
        Empty without.
    n, missing, suppressed, names
        See :class:`KaplanMeierResult`.
    """

    statistic: float
    df: int
    p_value: float
    observed: NDArray[np.float64]
    expected: NDArray[np.float64]
    difference: NDArray[np.float64]
    covariance: NDArray[np.float64]
    sizes: NDArray[np.int64]
    weights: str | None
    groups: tuple[Label, ...]
    strata: tuple[Label, ...]
    n: int
    missing: dict[str, int | None]
    suppressed: tuple[str, ...]
    names: tuple[str, ...]

    def summary(self) -> str:
        """Return the table that users of R's survdiff know."""
        head = ["group", "N", "Observed", "Expected", "(O-E)^2/E"]
        rows = []
        for k, label in enumerate(self.groups):
            o, e = self.observed[k], self.expected[k]
            share = (o - e) ** 2 / e if e > 0 else math.nan
            rows.append([str(label), str(int(self.sizes[k])), f"{o:.0f}", number(e), number(share)])
        kind = "Log-rank test" if self.weights is None else f"Log-rank test, weights: {self.weights}"
        title = f"{kind}, stratified" if self.strata else kind
        found = f"chi2 = {self.statistic:.4f}, df = {self.df}, p = {p_text(self.p_value)}"
        return "\n".join([table(head, rows, title=title), found, *notes(self.n, self.missing, self.suppressed)])


@dataclass(frozen=True, eq=False)
class CoxResult(Result):
    """A proportional hazards model.

    Attributes
    ----------
    coef, std_err : numpy.ndarray
        Shape (d,), in the units of the data; NaN for constant columns, errors also where there is none.
    log_likelihood_null, log_likelihood : float
        Partial log-likelihoods, of all coefficients 0 and of the fit, with the tied events as stated.
    n, events : int
        Rows, and rows with the event.
    ties : str
    l2 : float
    confidence : float
    concordance : float
        Harrell's; NaN where it was not asked for.
    iterations : int
    converged : bool
        Whether the result may be relied on; if not, ``warnings`` say why.
    strata : tuple
        Empty without.
    missing, suppressed, names
        See :class:`KaplanMeierResult`; the names are those of the d columns.
    warnings : tuple of str
    """

    coef: NDArray[np.float64]
    std_err: NDArray[np.float64]
    log_likelihood_null: float
    log_likelihood: float
    n: int
    events: int
    ties: str
    l2: float
    confidence: float
    concordance: float
    iterations: int
    converged: bool
    strata: tuple[Label, ...]
    missing: dict[str, int | None]
    suppressed: tuple[str, ...]
    names: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def hazard_ratio(self) -> NDArray[np.float64]:
        """Factor by which one unit of each column changes the hazard."""
        return np.asarray(np.exp(self.coef))

    @property
    def z(self) -> NDArray[np.float64]:
        """Coefficients over standard errors."""
        return np.asarray(self.coef / self.std_err)

    @property
    def p_value(self) -> NDArray[np.float64]:
        """Two-sided, normal."""
        return np.array([math.erfc(abs(one) / math.sqrt(2)) for one in self.z])

    @property
    def conf_int(self) -> NDArray[np.float64]:
        """Shape (d, 2): ends of the intervals of the coefficients."""
        half = normal_half_width(self.confidence) * self.std_err
        return np.stack([self.coef - half, self.coef + half], axis=1)

    @property
    def likelihood_ratio(self) -> tuple[float, int, float]:
        """Statistic, degrees of freedom and p-value of the test of all coefficients together."""
        statistic, df = 2 * (self.log_likelihood - self.log_likelihood_null), int(np.isfinite(self.std_err).sum())
        return statistic, df, chi_squared_tail(statistic, df) if df else math.nan

    @property
    def aic(self) -> float:
        """Akaike's criterion of the partial likelihood."""
        return -2 * self.log_likelihood + 2 * int(np.isfinite(self.std_err).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and texts, with what follows from the estimates."""
        derived = ("hazard_ratio", "z", "p_value", "conf_int", "likelihood_ratio", "aic")
        return {**super().to_dict(), **{name: plain(getattr(self, name)) for name in derived}}

    def summary(self) -> str:
        """Return the table that users of lifelines know."""
        level = f"{100 * self.confidence:g}%"
        head = ["covariate", "coef", "exp(coef)", "se(coef)", f"coef lower {level}", f"coef upper {level}", "z", "p"]
        rows = []
        columns = zip(self.names, self.coef, self.hazard_ratio, self.std_err, self.conf_int, strict=True)
        for (name, coef, ratio, error, (low, high)), z, p in zip(columns, self.z, self.p_value, strict=True):
            figures = [number(one) for one in (coef, ratio, error, low, high, z)]
            rows.append([name, *figures, p_text(p)])
        statistic, df, p = self.likelihood_ratio
        title = "Cox proportional hazards" + (", stratified" if self.strata else "")
        facts = [
            f"Events: {self.events}, ties: {self.ties}, penalty (l2): {self.l2:g}",
            f"Partial log-likelihood: {self.log_likelihood:.4f} (null: {self.log_likelihood_null:.4f})",
            f"Likelihood ratio test: {statistic:.4f} on {df} df, p = {p_text(p)}; partial AIC: {self.aic:.4f}",
            *([] if math.isnan(self.concordance) else [f"Concordance: {self.concordance:.4f}"]),
            f"Converged: {self.converged}, iterations: {self.iterations}",
        ]
        below = [*facts, *notes(self.n, self.missing, self.suppressed), *(f"Warning: {one}" for one in self.warnings)]
        return "\n".join([table(head, rows, title=title), *below])
