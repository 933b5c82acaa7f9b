"""Regressions."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tests.accuracy import datasets
from tests.accuracy.cases import RELATIVE, Case, Figure, call

# What these state of their errors: about 1e-5, and about 1e-6.
LOGISTIC = 1e-5
_POISSON = 5e-6


def cases() -> list[Case]:
    """Return the comparisons."""
    return [*_linear(), *_logistic(), *_poisson()]


def of_model(params: Any, std_err: Any, p_values: Any, found: Any, bound: float = RELATIVE) -> list[Figure]:
    """Compare coefficients, their standard errors and p-values with a reference's."""
    ours = np.concatenate([[found.intercept], found.coef])
    count = f"({len(ours)})"
    return [
        Figure(f"coefficients {count} in standard errors", params, ours, bound, unit=std_err),
        Figure(f"standard errors {count}", std_err, found.std_err, bound),
        Figure(f"p {count}", p_values, found.p_value, bound, absolute=True),
    ]


def _linear() -> list[Case]:
    import statsmodels.api as sm

    from protocols.regression.linear_regression import linear_regression

    columns = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    parts = datasets.dealt(datasets.diabetes())
    pooled = datasets.pooled(parts)

    def compare(found: Any) -> list[Figure]:
        fit = sm.OLS(pooled.target, sm.add_constant(pooled[columns].astype(float))).fit()
        return [
            *of_model(fit.params, fit.bse, fit.pvalues, found),
            Figure("R squared", fit.rsquared, found.r_squared),
            Figure("F", fit.fvalue, found.f_statistic),
            Figure("log-likelihood", fit.llf, found.log_likelihood),
        ]

    return [
        Case(
            "linear_regression",
            "diabetes",
            "statsmodels",
            parts,
            call(linear_regression, columns, "target", bound=1024.0, y_bound=512.0),
            compare,
            quick=True,
        )
    ]


def _logistic() -> list[Case]:
    from protocols import logistic_regression

    progress = datasets.dealt(datasets.diabetes())
    marriages = datasets.dealt(datasets.fair())
    patients = datasets.dealt(datasets.whas500())
    columns = ["age", "bmi", "bp", "s5"]
    about = ["rate_marriage", "age", "yrs_married", "children", "religious", "educ"]
    risks = ["age", "gender", "hr", "sysbp", "bmi", "chf"]
    return [
        Case(
            "logistic_regression",
            "diabetes",
            "statsmodels",
            progress,
            call(logistic_regression, columns, "progressed", bound=256.0),
            partial(_logit, datasets.pooled(progress), columns, "progressed"),
        ),
        Case(
            "logistic_regression",
            "whas500",
            "statsmodels",
            patients,
            call(logistic_regression, risks, "died", bound=256.0),
            partial(_logit, datasets.pooled(patients), risks, "died"),
        ),
        Case(
            "logistic_regression",
            "fair",
            "statsmodels",
            marriages,
            call(logistic_regression, about, "affair", bound=64.0),
            partial(_logit, datasets.pooled(marriages), about, "affair"),
        ),
    ]


def _logit(pooled: pd.DataFrame, columns: list[str], outcome: str, found: Any) -> list[Figure]:
    import statsmodels.api as sm

    fit = sm.Logit(pooled[outcome], sm.add_constant(pooled[columns].astype(float))).fit(disp=0, tol=1e-12)
    return [
        *of_model(fit.params, fit.bse, fit.pvalues, found, LOGISTIC),
        Figure("log-likelihood", fit.llf, found.log_likelihood),
    ]


def _poisson() -> list[Case]:
    import statsmodels.api as sm

    from protocols.regression.poisson import poisson_regression

    columns = ["lncoins", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp"]
    parts = datasets.dealt(datasets.randhie())
    pooled = datasets.pooled(parts)

    def compare(found: Any) -> list[Figure]:
        fit = sm.GLM(pooled.mdvis, sm.add_constant(pooled[columns]), family=sm.families.Poisson()).fit(tol=1e-13)
        return [
            *of_model(fit.params, fit.bse, fit.pvalues, found, _POISSON),
            Figure("deviance", fit.deviance, found.deviance),
            Figure("log-likelihood", fit.llf, found.log_likelihood),
        ]

    return [
        Case(
            "poisson_regression",
            "randhie",
            "statsmodels",
            parts,
            call(poisson_regression, columns, "mdvis", bound=64.0, y_bound=100.0),
            compare,
        )
    ]
