"""Data of which each party holds other columns of the same rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tests.accuracy import datasets
from tests.accuracy.cases import Case, Col, Figure, call, exact, p_value
from tests.accuracy.counts import of_table
from tests.accuracy.regression import LOGISTIC, of_model
from tests.accuracy.survival import of_cox, of_curve


def cases() -> list[Case]:
    """Return the comparisons."""
    return [*_tests(), *_regressions(), *_survival(), _quality()]


def _tests() -> list[Case]:
    from scipy import stats

    from protocols.comparisons.correlations import correlation
    from protocols.comparisons.means import t_test
    from protocols.comparisons.ranks import mann_whitney
    from protocols.tables.contingency import contingency_table

    whas500, diabetes = datasets.whas500(), datasets.diabetes()
    pressures, outcomes = ["sysbp", "diasbp"], ["gender", "died"]
    patients = datasets.by_columns(whas500, pressures, outcomes)
    women, men = (whas500[whas500.gender == k].sysbp for k in (1, 0))
    welch, ranks = stats.ttest_ind(men, women, equal_var=False), stats.mannwhitneyu(men, women)
    measured = ["bmi", "bp", "s5"]
    r = np.corrcoef(diabetes[measured].to_numpy(float).T)
    split = {"partition": "columns"}
    return [
        Case(
            "t_test, Welch",
            "whas500 by columns",
            "scipy",
            patients,
            call(t_test, "sysbp", "gender", bound=256.0, **split),
            lambda found: [
                Figure("t", welch.statistic, found.statistic),
                p_value("p", welch.pvalue, found.p_value),
            ],
            "dealer",
            quick=True,
        ),
        Case(
            "mann_whitney",
            "whas500 by columns",
            "scipy",
            patients,
            call(mann_whitney, "sysbp", "gender", bound=256.0, resolution=1.0, **split),
            lambda found: [exact("U", ranks.statistic, found.statistic), p_value("p", ranks.pvalue, found.p_value)],
            "dealer",
        ),
        Case(
            "contingency_table",
            "whas500 by columns",
            "scipy",
            datasets.by_columns(whas500, ["gender"], ["died"], ["age"]),
            call(contingency_table, "gender", "died", **split),
            lambda found: of_table(pd.crosstab(whas500.gender, whas500.died), found),
        ),
        Case(
            "correlation, Pearson",
            "diabetes by columns",
            "numpy",
            datasets.by_columns(diabetes, ["bmi", "bp"], ["s5"], ["target"]),
            call(correlation, measured, bound=256.0, **split),
            lambda found: [Figure("coefficients (3)", r, found.correlation, unit=1.0)],
        ),
    ]


def _regressions() -> list[Case]:
    import statsmodels.api as sm

    from protocols import logistic_regression
    from protocols.regression.linear_regression import linear_regression

    diabetes = datasets.diabetes()
    columns = ["age", "bmi", "bp", "s5"]
    design = sm.add_constant(diabetes[columns].astype(float))
    parts = datasets.by_columns(diabetes, ["age", "bmi", "target", "progressed"], ["bp"], ["s5"])

    def linear(found: Any) -> list[Figure]:
        fit = sm.OLS(diabetes.target, design).fit()
        return of_model(fit.params, fit.bse, fit.pvalues, found)

    def logistic(found: Any) -> list[Figure]:
        fit = sm.Logit(diabetes.progressed, design).fit(disp=0, tol=1e-12)
        return of_model(fit.params, fit.bse, fit.pvalues, found, LOGISTIC)

    return [
        Case(
            "linear_regression",
            "diabetes by columns",
            "statsmodels",
            parts,
            call(linear_regression, columns, "target", bound=256.0, y_bound=512.0, partition="columns"),
            linear,
        ),
        Case(
            "logistic_regression",
            "diabetes by columns",
            "statsmodels",
            parts,
            call(logistic_regression, columns, "progressed", bound=256.0, partition="columns"),
            logistic,
        ),
    ]


def _survival() -> list[Case]:
    from protocols.survival.cox import cox_regression
    from protocols.survival.kaplan_meier import kaplan_meier

    rossi, lung = datasets.rossi(), datasets.lung()
    decades = lung.assign(time=10.0 * np.ceil(lung.time / 10))
    risks = ["fin", "age", "prio"]
    return [
        Case(
            "kaplan_meier by sex, days in tens",
            "lung by columns",
            "lifelines",
            datasets.by_columns(lung, ["time", "age"], ["status"], ["sex"]),
            call(
                kaplan_meier,
                "time",
                "status",
                grid=(0, 1100, 10),
                group=Col("sex"),
                categories=(1, 2),
                grouped=True,
                partition="columns",
            ),
            lambda found: [
                figure
                for curve in found.curves
                for figure in of_curve(
                    decades[decades.sex == curve.group], "time", "status", curve, f", sex {curve.group}"
                )
            ],
        ),
        Case(
            "cox_regression, Efron",
            "rossi by columns",
            "lifelines",
            datasets.by_columns(rossi, ["week", "arrest", "fin"], ["age"], ["prio"]),
            call(cox_regression, "week", "arrest", risks, bound=64.0, partition="columns"),
            partial(of_cox, rossi, "week", "arrest", risks, "efron"),
        ),
    ]


def _quality() -> Case:
    from sklearn.metrics import roc_auc_score

    from protocols.prediction.prediction_quality import roc_auc

    frame = datasets.breast_cancer()
    return Case(
        "roc_auc of a measurement",
        "breast_cancer by columns",
        "scikit-learn",
        datasets.by_columns(frame, ["mean_radius"], ["target"], ["mean_area"]),
        call(roc_auc, "mean_radius", "target", grid=None, bound=64.0, partition="columns"),
        lambda found: [Figure("area", roc_auc_score(frame.target, frame.mean_radius), found.auc, 1e-9)],
    )
