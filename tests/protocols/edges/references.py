"""What scipy, statsmodels, scikit-learn, lifelines and plain numpy say of pooled complete rows: sums, tables, tests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tests.protocols.edges.running import NAN, Answer
from tests.protocols.edges.tables import THREE, TWO, Table, absent, rows_of

CONFIDENCE = 0.95
EDGES = (-10.0, -4.0, 0.0, 2.0, 10.0)
Q = (0.0, 0.25, 0.5, 0.9, 1.0)
BINS = 4
THRESHOLDS = (0.1, 0.25, 0.5, 0.75)


def matrix(table: Table, *names: str) -> NDArray[np.float64]:
    """Return columns side by side."""
    return np.stack([table[name].astype(np.float64) for name in names], axis=1)


def groups(table: Table, by: str, labels: tuple[str, ...], of: str = "x") -> list[NDArray[np.float64]]:
    """Return the values of each group."""
    return [table[of][table[by] == label] for label in labels]


def constant(values: NDArray[Any]) -> bool:
    """Whether there are no two different values."""
    return len(set(values.tolist())) < 2


# ---- sums ---------------------------------------------------------------------------------------


def sums(table: Table) -> Answer:
    return Answer({"value": matrix(table, "x", "z").sum(axis=0)})


def means(table: Table) -> Answer:
    if not rows_of(table):
        return Answer(refused="no party has a row")
    return Answer({"value": matrix(table, "x", "z").mean(axis=0)})


def variances(table: Table, ddof: int) -> Answer:
    if rows_of(table) <= ddof:
        return Answer(refused=f"{rows_of(table)} rows are too few")
    return Answer({"value": matrix(table, "x", "z").var(axis=0, ddof=ddof)})


# ---- tables -------------------------------------------------------------------------------------


def proportions(table: Table) -> Answer:
    from statsmodels.stats.proportion import proportion_confint

    counts = np.array([(table["g"] == label).sum() for label in THREE], np.float64)
    n = counts.sum()
    if not n:
        nothing = np.full(3, NAN)
        return Answer({"counts": counts, "estimate": nothing}, unsaid=("estimate",))
    interval = np.stack(proportion_confint(counts, n, method="wilson"), axis=1)
    return Answer({"counts": counts, "total": n, "estimate": counts / n, "conf_int": interval})


def histograms(table: Table) -> Answer:
    x = table["x"]
    counts, _ = np.histogram(x, EDGES)
    density = counts / counts.sum() / np.diff(EDGES) if counts.sum() else np.full(4, NAN)
    below, above = (x < EDGES[0]).sum(), (x > EDGES[-1]).sum()
    values = {"counts": counts, "below": below, "above": above, "density": density, "n": len(x)}
    return Answer(values, unsaid=("density",))


def quantiles(table: Table, method: Any) -> Answer:
    if not rows_of(table):
        return Answer(refused="no row|too few|0 rows")
    return Answer({"values": np.quantile(table["x"], Q, method=method), "n": rows_of(table)})


def quantiles_by_group(table: Table) -> Answer:
    if not rows_of(table):
        return Answer(refused="no row|too few|0 rows")
    found = [np.quantile(part, Q) if len(part) else np.full(len(Q), NAN) for part in groups(table, "g", THREE)]
    sizes = [len(part) for part in groups(table, "g", THREE)]
    return Answer({"values": np.array(found), "group_n": sizes}, unsaid=("values",))


def contingency(table: Table, labels: tuple[str, ...], by: str) -> Answer:
    counts = np.array([[((table[by] == one) & (table["y"] == y)).sum() for y in (0, 1)] for one in labels])
    found: dict[str, Any] = {"counts": counts, "total": counts.sum(), "row_totals": counts.sum(axis=1)}
    whole = counts.sum(axis=0).all() and counts.sum(axis=1).all()
    test = stats.chi2_contingency(counts, correction=False) if whole else None
    found["chi2"] = (test.statistic, test.pvalue) if test else (NAN, NAN)
    if len(labels) == 2:
        found["fisher_p"] = stats.fisher_exact(counts).pvalue
        (a, b), (c, d) = counts.tolist()
        found["odds_ratio"] = a * d / (b * c) if b * c else (math.inf if a * d else NAN)
        risks = [pair[1] / sum(pair) if sum(pair) else NAN for pair in counts.tolist()]
        found["risk_difference"] = risks[1] - risks[0]
        found["exact"] = stats.contingency.odds_ratio(counts).statistic if whole else NAN
    return Answer(found, unsaid=("chi2", "fisher_p", "odds_ratio", "risk_difference", "exact"))


# ---- means --------------------------------------------------------------------------------------


def t_tests(table: Table, kind: str) -> Answer:
    if kind in ("welch", "student"):
        first, second = groups(table, "h", TWO)
        n = (len(first), len(second))
        if min(n) < (2 if kind == "welch" else 1) or sum(n) < 3:
            return Answer(refused="groups of .* rows are too small")
        estimate = first.mean() - second.mean()
        flat = constant(first) and constant(second)
        test = None if flat else stats.ttest_ind(first, second, equal_var=kind == "student")
        df = sum(n) - 2.0 if test is None else test.df
        if test is None and kind == "welch":
            df = NAN
    else:
        x = table["x"] - table["z"] if kind == "paired" else table["x"]
        if len(x) < 2:
            return Answer(refused="rows are too few")
        estimate, df = x.mean(), len(x) - 1.0
        test = None if constant(x) else stats.ttest_1samp(x, 0.0)
    interval = (NAN, NAN) if test is None else tuple(test.confidence_interval())
    values = {"estimate": estimate, "df": df, "statistic": NAN if test is None else test.statistic}
    return Answer({**values, "p_value": NAN if test is None else test.pvalue, "conf_int": np.array(interval)})


def anovas(table: Table, welch: bool) -> Answer:
    from statsmodels.stats.oneway import anova_oneway

    parts = [part for part in groups(table, "g", THREE) if len(part)]
    n = [len(part) for part in parts]
    if len(parts) < 2 or sum(n) <= len(parts) or (welch and min(n) < 2):
        return Answer(refused="are too few")
    flat = [constant(part) for part in parts]
    if any(flat) if welch else all(flat):
        return Answer({"statistic": NAN, "p_value": NAN, "group_n": n})
    if welch:
        test = anova_oneway(parts, use_var="unequal", welch_correction=True)
        return Answer({"statistic": test.statistic, "p_value": test.pvalue, "df_within": test.df_denom, "group_n": n})
    statistic, p = stats.f_oneway(*parts)
    every = np.concatenate(parts)
    within = sum(((part - part.mean()) ** 2).sum() for part in parts)
    total = ((every - every.mean()) ** 2).sum()
    return Answer(
        {"statistic": statistic, "p_value": p, "sum_squares_within": within, "eta_squared": 1 - within / total}
    )


# ---- ranks --------------------------------------------------------------------------------------


def mann_whitneys(table: Table, alternative: str) -> Answer:
    first, second = groups(table, "h", TWO)
    if not len(first) or not len(second):
        return Answer(refused="groups of .* rows are too small")
    every = np.concatenate([first, second])
    ties = len(set(every.tolist())) < len(every)
    method = "asymptotic" if ties else "exact"
    test = stats.mannwhitneyu(first, second, alternative=alternative, method=method)
    # scipy divides 0 by 0 where all values are equal: nothing speaks against the hypothesis then.
    p = 1.0 if constant(every) else test.pvalue
    share = test.statistic / (len(first) * len(second))
    return Answer({"statistic": test.statistic, "estimate": share, "p_value": p, "exact": bool(not ties)})


def kruskals(table: Table) -> Answer:
    parts = [part for part in groups(table, "g", THREE) if len(part)]
    if len(parts) < 2:
        return Answer(refused="it takes two groups")
    if constant(np.concatenate(parts)):
        return Answer({"statistic": NAN, "p_value": NAN})
    test = stats.kruskal(*parts)
    return Answer({"statistic": test.statistic, "p_value": test.pvalue})


# ---- several columns ----------------------------------------------------------------------------


def covariances(table: Table) -> Answer:
    X = matrix(table, "x", "z")
    if len(X) < 2:
        return Answer(refused="rows|too few")
    return Answer({"covariance": np.cov(X.T), "n": len(X)})


def correlations(table: Table, kind: str) -> Answer:
    X = matrix(table, "x", "z")
    if len(X) < 3:
        return Answer(refused="rows|too few")
    r = np.full((2, 2), NAN)
    p = np.full((2, 2), NAN)
    for i in range(2):
        if not constant(X[:, i]):
            r[i, i], p[i, i] = 1.0, 0.0
    if not constant(X[:, 0]) and not constant(X[:, 1]):
        test = (stats.pearsonr if kind == "pearson" else stats.spearmanr)(X[:, 0], X[:, 1])
        r[0, 1] = r[1, 0] = test.statistic
        p[0, 1] = p[1, 0] = test.pvalue
    # At a coefficient of 1 a p-value of its rounding: 1e-10 with one degree of freedom is no digit of p.
    near = 1 - np.abs(r[0, 1]) < 1e-6
    return Answer({"correlation": r, "n": len(X)} if near else {"correlation": r, "p_value": p, "n": len(X)})


# ---- table one ----------------------------------------------------------------------------------


def tables_one(table: Table) -> Answer:
    """Of the table with its gaps: rows without a group are left out, and each variable has its own complete rows."""
    kept = ~absent(table["h"])
    by, x, y = (table[name][kept] for name in ("h", "x", "y"))
    found: dict[str, Any] = {"n": len(by), "group_n": [(by == label).sum() for label in TWO]}
    every = [np.ones(len(by), bool), by == "a", by == "b"]
    numbers = [x[one & ~absent(x)].astype(np.float64) for one in every]
    bits = [y[one & ~absent(y)].astype(np.int64) for one in every]
    found["n of x"] = [len(one) for one in numbers]
    found["mean"] = [one.mean() if len(one) else NAN for one in numbers]
    found["sd"] = [one.std(ddof=1) if len(one) > 1 else NAN for one in numbers]
    found["quartiles"] = np.array(
        [np.quantile(one, (0.25, 0.5, 0.75)) if len(one) else np.full(3, NAN) for one in numbers]
    )
    found["counts"] = np.array([[(one == k).sum() for one in bits] for k in (0, 1)])
    first, second = numbers[1:]
    flat = min(len(first), len(second)) < 2 or constant(first) or constant(second)
    found["p of x"] = NAN if flat else stats.ttest_ind(first, second, equal_var=False).pvalue
    return Answer(found, unsaid=tuple(found), withheld={"quartiles": "no quartiles of all rows"})
