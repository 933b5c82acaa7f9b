"""Statistics of opened counts: proportions, tables with two rows and two columns, layers of such tables.

Plain functions on public numbers; nothing here is secret. Counts may be rounded ones: what is whole where a
formula asks for it (exact tests) is checked by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.distributions import chi_squared_tail
from protocols.release.outcome import Result, number, p_text

_NOTHING = (math.nan, math.nan)


@dataclass(frozen=True)
class Estimate(Result):
    """A number and its interval; NaN where there is none."""

    value: float
    lower: float
    upper: float

    def summary(self) -> str:
        """Return the number and its interval."""
        return f"{number(self.value)} [{number(self.lower)}, {number(self.upper)}]"


@dataclass(frozen=True)
class HypothesisTest(Result):
    """A statistic, its degrees of freedom and its p-value; NaN where there is none."""

    statistic: float
    df: int
    p_value: float

    def summary(self) -> str:
        """Return statistic, degrees of freedom and p-value."""
        return f"{number(self.statistic)}, df {self.df}, p {p_text(self.p_value)}"


NO_ESTIMATE = Estimate(math.nan, *_NOTHING)
NO_TEST = HypothesisTest(math.nan, 0, math.nan)


def checked_confidence(confidence: float) -> float:
    """Return a confidence level.

    Raises
    ------
    ValueError
        It is not between 0 and 1.
    """
    level = float(confidence)
    if not 0 < level < 1:
        raise ValueError("confidence is above 0 and below 1, such as 0.95")
    return level


def normal_quantile(confidence: float) -> float:
    """Return the quantile of the normal distribution for a two-sided interval."""
    from scipy.special import ndtri

    return -float(ndtri((1 - confidence) / 2))


def proportion_interval(count: float, n: float, confidence: float, method: str = "wilson") -> tuple[float, float]:
    """Return the interval of a proportion.

    Parameters
    ----------
    count, n : float
        NaN where they are withheld; then so is the interval, as without a row.
    confidence : float
    method : {"wilson", "clopper-pearson"}

    Notes
    -----
    Wilson, J. Am. Stat. Assoc. 22 (1927), without continuity correction; Clopper, Pearson, Biometrika 26 (1934).
    """
    if not n > 0 or math.isnan(count):
        return _NOTHING
    if method == "wilson":
        z = normal_quantile(confidence)
        p, q = count / n, z * z / n
        centre, half = p + q / 2, z * math.sqrt(p * (1 - p) / n + q / (4 * n))
        # The ends are exact at 0 and 1, where the difference below would only nearly be so.
        lower = 0.0 if count == 0 else (centre - half) / (1 + q)
        return lower, 1.0 if count == n else (centre + half) / (1 + q)
    from scipy.special import betainccinv, betaincinv

    part = (1 - confidence) / 2
    lower = 0.0 if count == 0 else float(betaincinv(count, n - count + 1, part))
    return lower, 1.0 if count == n else float(betainccinv(count + 1, n - count, part))


def pearson(table: NDArray[np.float64], *, yates: bool = False) -> HypothesisTest:
    """Return Pearson's chi-squared test of independence; none where a row or a column is empty.

    Notes
    -----
    With ``yates`` differences are made smaller by 1/2, or to nothing if they are below (as scipy does).
    """
    df = (table.shape[0] - 1) * (table.shape[1] - 1)
    if np.isnan(table).any() or not (table.sum(axis=0).all() and table.sum(axis=1).all()):
        return NO_TEST
    expected = expected_counts(table)
    apart = np.abs(table - expected)
    if yates:
        apart = np.maximum(apart - 0.5, 0)
    statistic = float((apart**2 / expected).sum())
    return HypothesisTest(statistic, df, chi_squared_tail(statistic, df))


def expected_counts(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what independence of rows and columns would give."""
    n = table.sum()
    return np.asarray(np.outer(table.sum(axis=1), table.sum(axis=0)) / n) if n else np.full(table.shape, np.nan)


def cramers_v(table: NDArray[np.float64]) -> float:
    """Return Cramer's V, without correction of its bias."""
    found = pearson(table)
    if not found.df:
        return math.nan
    return math.sqrt(found.statistic / (float(table.sum()) * (min(table.shape) - 1)))


def fisher(table: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of Fisher's exact test of a table of two rows and two columns."""
    from scipy.stats import fisher_exact

    if np.isnan(table).any():
        return math.nan
    return float(fisher_exact(table.astype(np.int64)).pvalue)


def odds_ratio(table: NDArray[np.float64], confidence: float) -> Estimate:
    """Return the sample odds ratio with Woolf's interval.

    Parameters
    ----------
    table : numpy.ndarray
        ``[[a, b], [c, d]]``; the ratio is ``a d / (b c)``.

    Notes
    -----
    Woolf, Ann. Hum. Genet. 19 (1955): normal on the scale of logarithms. Without an interval where a cell is 0.
    """
    (a, b), (c, d) = table.tolist()
    value = _ratio(a * d, b * c)
    if not (a and b and c and d):
        return Estimate(value, *_NOTHING)
    return _on_logarithms(value, 1 / a + 1 / b + 1 / c + 1 / d, confidence)


def conditional_odds_ratio(table: NDArray[np.float64], confidence: float) -> Estimate:
    """Return the conditional maximum likelihood estimate of the odds ratio with its exact interval.

    Notes
    -----
    Given all totals, the cell a follows Fisher's noncentral hypergeometric distribution, whose only parameter is the
    odds ratio; the ends of the interval leave half of the error each (Cornfield, Proc. 3rd Berkeley Symp., 1956). As
    ``scipy.stats.contingency.odds_ratio`` and R's ``fisher.test``, but for large counts in less time.
    """
    from scipy.special import gammaln

    if np.isnan(table).any() or not (table.sum(axis=0).all() and table.sum(axis=1).all()):
        return NO_ESTIMATE
    (a, b), (c, d) = np.rint(table).tolist()
    x = np.arange(max(0.0, a - d), min(a + b, a + c) + 1)
    weights = -sum(gammaln(cells + 1) for cells in (x, a + b - x, a + c - x, d - a + x))

    def chances(logarithm: float) -> NDArray[np.float64]:
        terms = weights + logarithm * x
        terms = np.exp(terms - terms.max())
        return np.asarray(terms / terms.sum())

    part = (1 - confidence) / 2
    value = _rising(lambda t: float(chances(t) @ x) - a) if x[0] < a < x[-1] else None
    lower = _rising(lambda t: float(chances(t)[x >= a].sum()) - part) if x[0] < a else None
    upper = _rising(lambda t: part - float(chances(t)[x <= a].sum())) if a < x[-1] else None
    ends = [math.exp(lower) if lower is not None else 0.0, math.exp(upper) if upper is not None else math.inf]
    return Estimate(math.exp(value) if value is not None else (math.inf if a > x[0] else 0.0), *ends)


def _rising(f: Callable[[float], float]) -> float:
    """Return where a function that rises from below 0 to above it is 0."""
    from scipy.optimize import brentq

    low, high = -1.0, 1.0
    while f(low) > 0 and low > -500:
        low *= 2
    while f(high) < 0 and high < 500:
        high *= 2
    return float(brentq(f, low, high, xtol=1e-13, rtol=1e-13))


def risk_ratio(table: NDArray[np.float64], confidence: float) -> Estimate:
    """Return the ratio of the risks ``a / (a + b)`` and ``c / (c + d)``.

    Notes
    -----
    Katz et al., Biometrics 34 (1978): normal on the scale of logarithms. Without an interval where a or c is 0.
    """
    (a, b), (c, d) = table.tolist()
    if not (a + b and c + d):
        return NO_ESTIMATE
    value = _ratio(a * (c + d), c * (a + b))
    if not (a and c):
        return Estimate(value, *_NOTHING)
    return _on_logarithms(value, 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d), confidence)


def risk_difference(table: NDArray[np.float64], confidence: float, method: str = "newcombe") -> Estimate:
    """Return the difference of the risks ``a / (a + b)`` and ``c / (c + d)``.

    Parameters
    ----------
    method : {"newcombe", "wald"}

    Notes
    -----
    Newcombe, Stat. Med. 17 (1998) 873, method 10: from two Wilson intervals, without continuity correction.
    """
    (a, b), (c, d) = table.tolist()
    if not (a + b and c + d):
        return NO_ESTIMATE
    first, second = a / (a + b), c / (c + d)
    value = first - second
    if method == "wald":
        variance = first * (1 - first) / (a + b) + second * (1 - second) / (c + d)
        half = normal_quantile(confidence) * math.sqrt(variance)
        return Estimate(value, value - half, value + half)
    low1, high1 = proportion_interval(a, a + b, confidence)
    low2, high2 = proportion_interval(c, c + d, confidence)
    down, up = math.hypot(first - low1, high2 - second), math.hypot(high1 - first, second - low2)
    return Estimate(value, value - down, value + up)


@dataclass(frozen=True)
class Stratified(Result):
    """What layers of tables of two rows and two columns say together.

    Attributes
    ----------
    odds_ratio : Estimate
        Mantel-Haenszel.
    cmh, cmh_corrected : HypothesisTest
        Cochran-Mantel-Haenszel test of no association, without and with continuity correction.
    breslow_day, tarone : HypothesisTest
        Test that all layers have the same odds ratio, as it is and with Tarone's correction.
    informative : int
        Layers in which neither a row nor a column is empty; the others say nothing.
    """

    odds_ratio: Estimate
    cmh: HypothesisTest
    cmh_corrected: HypothesisTest
    breslow_day: HypothesisTest
    tarone: HypothesisTest
    informative: int

    def summary(self) -> str:
        """Return the pooled odds ratio and the tests."""
        return "\n".join(
            [
                f"Odds ratio over strata (Mantel-Haenszel): {self.odds_ratio}",
                f"Cochran-Mantel-Haenszel: {self.cmh}",
                f"Breslow-Day: {self.breslow_day}",
            ]
        )


def stratified(tables: NDArray[np.float64], confidence: float) -> Stratified:
    """Pool layers of tables of two rows and two columns.

    Parameters
    ----------
    tables : numpy.ndarray
        Shape (layers, 2, 2).
    confidence : float

    Notes
    -----
    Mantel, Haenszel, J. Natl. Cancer Inst. 22 (1959); interval after Robins, Breslow, Greenland, Biometrics 42
    (1986), eq. 3; Breslow, Day, Statistical Methods in Cancer Research I (1980), eq. 4.30; Tarone, Biometrika 72
    (1985). Layers with an empty row or column are left out.
    """
    kept = tables[(tables.sum(axis=1) > 0).all(axis=1) & (tables.sum(axis=2) > 0).all(axis=1)]
    if np.isnan(tables).any() or not len(kept):
        return Stratified(NO_ESTIMATE, NO_TEST, NO_TEST, NO_TEST, NO_TEST, 0 if np.isnan(tables).any() else len(kept))
    pooled = _mantel_haenszel(kept, confidence)
    plain, tarone = _breslow_day(kept, pooled.value)
    return Stratified(pooled, _cmh(kept, 0.0), _cmh(kept, 0.5), plain, tarone, len(kept))


def _mantel_haenszel(tables: NDArray[np.float64], confidence: float) -> Estimate:
    a, b, c, d = tables.reshape(-1, 4).T
    n = a + b + c + d
    right, wrong = a * d / n, b * c / n
    r, s = float(right.sum()), float(wrong.sum())
    value = _ratio(r, s)
    if not (r and s):
        return Estimate(value, *_NOTHING)
    agree, differ = (a + d) / n, (b + c) / n
    variance = (
        (agree * right).sum() / (2 * r * r)
        + (agree * wrong + differ * right).sum() / (2 * r * s)
        + (differ * wrong).sum() / (2 * s * s)
    )
    return _on_logarithms(value, float(variance), confidence)


def _cmh(tables: NDArray[np.float64], correction: float) -> HypothesisTest:
    n = tables.sum(axis=(1, 2))
    rows, columns = tables.sum(axis=2), tables.sum(axis=1)
    more = n > 1
    expected = rows[:, 0] * columns[:, 0] / n
    variance = rows.prod(axis=1)[more] * columns.prod(axis=1)[more] / (n[more] ** 2 * (n[more] - 1))
    apart = max(abs(float((tables[:, 0, 0] - expected).sum())) - correction, 0.0)
    if not variance.sum() > 0:
        return NO_TEST
    statistic = apart**2 / float(variance.sum())
    return HypothesisTest(statistic, 1, chi_squared_tail(statistic, 1))


def _breslow_day(tables: NDArray[np.float64], ratio: float) -> tuple[HypothesisTest, HypothesisTest]:
    """Return the test without and with Tarone's correction."""
    df = len(tables) - 1
    if not df or not 0 < ratio < math.inf:
        return NO_TEST, NO_TEST
    first, column, n = tables[:, 0].sum(axis=1), tables[:, :, 0].sum(axis=1), tables.sum(axis=(1, 2))
    # The cell a that has the common odds ratio: (1 - r) a^2 + (n - f - k + r (f + k)) a - r f k = 0.
    square, linear, constant = 1 - ratio, n - first - column + ratio * (first + column), -ratio * first * column
    # This form of the root does not cancel, and also holds for a ratio of 1.
    a = -2 * constant / (linear + np.sqrt(linear**2 - 4 * square * constant))
    variance = 1 / (1 / a + 1 / (first - a) + 1 / (column - a) + 1 / (n - first - column + a))
    apart = tables[:, 0, 0] - a
    statistic = float((apart**2 / variance).sum())
    corrected = statistic - float(apart.sum() ** 2 / variance.sum())
    plain, tarone = (HypothesisTest(one, df, chi_squared_tail(one, df)) for one in (statistic, corrected))
    return plain, tarone


def _ratio(numerator: float, denominator: float) -> float:
    if denominator:
        return numerator / denominator
    return math.inf if numerator > 0 else math.nan


def _on_logarithms(value: float, variance: float, confidence: float) -> Estimate:
    factor = math.exp(normal_quantile(confidence) * math.sqrt(max(variance, 0.0)))
    return Estimate(value, value / factor, value * factor)
