"""Tests of means, analysis of variance, correlations."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.accuracy import datasets
from tests.accuracy.cases import Case, Figure, call, exact, p_value


def cases() -> list[Case]:
    """Return the comparisons."""
    return [*_t_tests(), *_anovas(), *_correlations()]


def _t_tests() -> list[Case]:
    from scipy import stats

    from protocols.comparisons.means import t_test

    clinic = datasets.by_institution(datasets.lung())
    lung = datasets.pooled(clinic)
    women, men = (lung[lung.sex == sex].age for sex in (2, 1))
    trial = datasets.dealt(datasets.gbsg2())
    gbsg2 = datasets.pooled(trial)
    yes, no = (gbsg2[gbsg2.horTh == label].age for label in ("yes", "no"))

    def compare(reference: Any) -> Any:
        def figures(found: Any) -> list[Figure]:
            low, high = reference.confidence_interval(0.95)
            return [
                Figure("t", reference.statistic, found.statistic),
                Figure("degrees of freedom", reference.df, found.df),
                Figure("interval (2)", [low, high], found.conf_int),
                p_value("p", reference.pvalue, found.p_value),
            ]

        return figures

    return [
        Case(
            "t_test, Welch",
            "lung by institution",
            "scipy",
            clinic,
            call(t_test, "age", "sex", bound=120.0, categories=(1, 2)),
            compare(stats.ttest_ind(men, women, equal_var=False)),
            quick=True,
        ),
        Case(
            "t_test, Student",
            "gbsg2",
            "scipy",
            trial,
            call(t_test, "age", "horTh", kind="student", categories=("no", "yes")),
            compare(stats.ttest_ind(no, yes)),
            quick=True,
        ),
        Case(
            "t_test, paired",
            "lung by institution",
            "scipy",
            clinic,
            call(_paired, ["ph_karno", "pat_karno"]),
            compare(_paired_reference(lung)),
        ),
        Case(
            "t_test of one sample",
            "whas500",
            "scipy",
            datasets.dealt(datasets.whas500()),
            call(t_test, "sysbp", kind="one_sample", mean=140.0),
            compare(stats.ttest_1samp(datasets.whas500().sysbp, 140.0)),
        ),
    ]


async def _paired(party: Any, frame: Any) -> Any:
    from protocols.comparisons.means import t_test

    return await t_test(party, frame.ph_karno, y=frame.pat_karno, kind="paired", bound=100.0)


def _paired_reference(lung: Any) -> Any:
    from scipy import stats

    both = lung[["ph_karno", "pat_karno"]].dropna()
    return stats.ttest_rel(both.ph_karno, both.pat_karno)


def _anovas() -> list[Case]:
    from scipy import stats
    from statsmodels.stats.oneway import anova_oneway

    from protocols.comparisons.anova import anova

    trial = datasets.dealt(datasets.gbsg2())
    gbsg2 = datasets.pooled(trial)
    groups = [gbsg2[gbsg2.tgrade == grade].tsize for grade in ("I", "II", "III")]
    plain, welch = stats.f_oneway(*groups), anova_oneway(groups, use_var="unequal")
    within = sum(float(((one - one.mean()) ** 2).sum()) for one in groups)
    return [
        Case(
            "anova",
            "gbsg2",
            "scipy",
            trial,
            call(anova, "tsize", "tgrade"),
            lambda found: [
                Figure("F", plain.statistic, found.statistic),
                Figure("sum of squares within", within, found.sum_squares_within),
                p_value("p", plain.pvalue, found.p_value),
            ],
            quick=True,
        ),
        Case(
            "anova, Welch",
            "gbsg2",
            "statsmodels",
            trial,
            call(anova, "tsize", "tgrade", welch=True),
            lambda found: [
                Figure("F", welch.statistic, found.statistic),
                Figure("degrees of freedom within", welch.df_denom, found.df_within),
                p_value("p", welch.pvalue, found.p_value),
            ],
        ),
    ]


def _correlations() -> list[Case]:
    from scipy import stats

    from protocols.comparisons.correlations import correlation, covariance

    columns = ["age", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "target"]
    parts = datasets.dealt(datasets.diabetes())
    pooled = datasets.pooled(parts)[columns]
    off = ~np.eye(len(columns), dtype=bool)

    def compare(kind: str) -> Any:
        def figures(found: Any) -> list[Figure]:
            function = stats.pearsonr if kind == "pearson" else stats.spearmanr
            pairs = [[function(pooled[a], pooled[b]) for b in columns] for a in columns]
            r = np.array([[one.statistic for one in row] for row in pairs])
            p = np.array([[one.pvalue for one in row] for row in pairs])
            return [
                Figure("coefficients (45)", r[off], found.correlation[off], unit=1.0),
                p_value("p (45)", p[off], found.p_value[off]),
            ]

        return figures

    return [
        Case(
            "covariance",
            "diabetes",
            "numpy",
            parts,
            call(covariance, columns),
            lambda found: [
                Figure("covariances (55)", pooled.cov(), found.covariance, unit=_scales(pooled)),
            ],
            quick=True,
        ),
        Case("correlation, Pearson", "diabetes", "scipy", parts, call(correlation, columns), compare("pearson")),
        Case(
            "correlation, Spearman",
            "diabetes",
            "scipy",
            parts,
            call(correlation, columns, kind="spearman", bound=1000.0, resolution=0.0001),
            compare("spearman"),
        ),
        Case("n of a correlation", "diabetes", "numpy", parts, call(correlation, columns[:2]), _count(pooled)),
    ]


def _count(pooled: Any) -> Any:
    return lambda found: [exact("rows", len(pooled), found.n)]


def _scales(pooled: Any) -> Any:
    return np.sqrt(np.outer(pooled.var(), pooled.var()))
