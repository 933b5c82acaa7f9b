"""Survival curves, log-rank tests, proportional hazards."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tests.accuracy import datasets
from tests.accuracy.cases import Case, Col, Figure, call, exact, p_value


def cases() -> list[Case]:
    """Return the comparisons."""
    return [*_curves(), *_log_ranks(), *_hazards()]


def _curves() -> list[Case]:
    from protocols.survival.kaplan_meier import kaplan_meier

    clinic = datasets.by_institution(datasets.lung())
    release = datasets.dealt(datasets.rossi())
    lung = datasets.pooled(clinic)
    return [
        Case(
            "kaplan_meier by sex",
            "lung by institution",
            "lifelines",
            clinic,
            call(kaplan_meier, "time", "status", grid=(0, 1100, 1), group=Col("sex"), categories=(1, 2)),
            lambda found: [
                figure
                for curve in found.curves
                for figure in of_curve(lung[lung.sex == curve.group], "time", "status", curve, f", sex {curve.group}")
            ],
            quick=True,
        ),
        Case(
            "kaplan_meier",
            "rossi",
            "lifelines",
            release,
            call(kaplan_meier, "week", "arrest", grid=(0, 52, 1)),
            lambda found: of_curve(datasets.rossi(), "week", "arrest", found.curves[0], ""),
        ),
    ]


def of_curve(pooled: pd.DataFrame, time: str, event: str, curve: Any, which: str) -> list[Figure]:
    from lifelines import KaplanMeierFitter

    fitter = KaplanMeierFitter().fit(pooled[time], pooled[event])
    interval = fitter.confidence_interval_.loc[curve.time].to_numpy()
    survival = fitter.survival_function_.loc[curve.time].to_numpy()[:, 0]
    steps = len(curve.time)
    return [
        exact(f"rows at risk ({steps}){which}", fitter.event_table.at_risk.loc[curve.time], curve.at_risk),
        Figure(f"survival ({steps}){which}", survival, curve.survival, 1e-9),
        Figure(f"intervals ({2 * steps}){which}", interval, np.stack([curve.lower, curve.upper], axis=1), 1e-9),
        exact(f"median{which}", fitter.median_survival_time_, curve.median),
    ]


def _log_ranks() -> list[Case]:
    from lifelines.statistics import multivariate_logrank_test

    from protocols.survival.log_rank import log_rank

    clinic = datasets.by_institution(datasets.lung())
    veterans = datasets.dealt(datasets.veteran())
    trial = datasets.dealt(datasets.gbsg2())

    def compare(pooled: pd.DataFrame, columns: list[str], weights: dict[str, Any], found: Any) -> list[Figure]:
        time, event, group = (pooled[column] for column in columns)
        reference = multivariate_logrank_test(time, group.astype(str), event, **weights)
        return [
            Figure("chi squared", reference.test_statistic, found.statistic),
            p_value("p", reference.p_value, found.p_value),
        ]

    def case(
        name: str, data: str, parts: Any, columns: list[str], more: Any, weights: dict[str, Any], **k: Any
    ) -> Case:
        program = call(log_rank, *columns, **more)
        return Case(
            name, data, "lifelines", parts, program, partial(compare, datasets.pooled(parts), columns, weights), **k
        )

    sexes = {"grid": (0, 1100, 1), "categories": (1, 2)}
    arms = {"grid": (0, 2700, 1), "categories": ("no", "yes")}
    followed = ["time", "status", "sex"]
    return [
        case("log_rank", "lung by institution", clinic, followed, sexes, {}, quick=True),
        case("log_rank, four groups", "veteran", veterans, ["time", "died", "celltype"], {"grid": (0, 1000, 1)}, {}),
        case("log_rank", "gbsg2", trial, ["time", "cens", "horTh"], arms, {}),
        case(
            "log_rank, Wilcoxon",
            "lung by institution",
            clinic,
            followed,
            sexes | {"weights": "wilcoxon"},
            {"weightings": "wilcoxon"},
        ),
        case(
            "log_rank, Peto",
            "lung by institution",
            clinic,
            followed,
            sexes | {"weights": "peto"},
            {"weightings": "peto"},
        ),
    ]


def _hazards() -> list[Case]:
    from protocols.survival.cox import cox_regression

    clinic = [part.dropna(subset=["ph_ecog"]) for part in datasets.by_institution(datasets.lung())]
    release = datasets.dealt(datasets.rossi())
    trial = datasets.dealt(datasets.gbsg2())
    patients = datasets.dealt(datasets.whas500())
    transplants = datasets.dealt(datasets.heart())

    def case(
        data: str, parts: Any, time: str, event: str, columns: list[str], bound: float, ties: str = "efron"
    ) -> Case:
        return Case(
            f"cox_regression, {ties.capitalize()}",
            data,
            "lifelines" if ties == "efron" else "statsmodels",
            parts,
            call(cox_regression, time, event, columns, bound=bound, ties=ties),
            partial(of_cox, datasets.pooled(parts), time, event, columns, ties),
        )

    return [
        case("lung by institution", clinic, "time", "status", ["age", "sex", "ph_ecog"], 128.0),
        case("rossi", release, "week", "arrest", ["fin", "age", "race", "wexp", "mar", "paro", "prio"], 64.0),
        case("rossi", release, "week", "arrest", ["fin", "age", "prio"], 64.0, "breslow"),
        case("gbsg2", trial, "time", "cens", ["treated", "age", "post", "tsize", "pnodes", "progrec"], 4096.0),
        case("heart", transplants, "survival", "censors", ["age"], 128.0),
        case("whas500", patients, "time", "died", ["age", "gender", "bmi", "hr", "chf"], 256.0),
    ]


def of_cox(pooled: pd.DataFrame, time: str, event: str, columns: list[str], ties: str, found: Any) -> list[Figure]:
    if ties == "efron":
        from lifelines import CoxPHFitter

        options = {"precision": 1e-12, "r_precision": 1e-14}
        model = CoxPHFitter().fit(pooled[[time, event, *columns]], time, event, fit_options=options)
        params, std_err, p = model.params_, model.standard_errors_, model.summary["p"]
        likelihood = model.log_likelihood_
    else:
        from statsmodels.duration.hazard_regression import PHReg

        fit = PHReg(pooled[time], pooled[columns], pooled[event], ties=ties).fit(disp=0)
        params, std_err, p, likelihood = fit.params, fit.bse, fit.pvalues, fit.llf
    count = f"({len(columns)})"
    return [
        Figure(f"coefficients {count} in standard errors", params, found.coef, unit=std_err),
        Figure(f"standard errors {count}", std_err, found.std_err),
        p_value(f"p {count}", p, found.p_value),
        Figure("partial log-likelihood", likelihood, found.log_likelihood),
    ]
