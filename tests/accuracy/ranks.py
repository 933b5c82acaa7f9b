"""Rank tests and quantiles."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.accuracy import datasets
from tests.accuracy.cases import Case, Col, Figure, call, exact, p_value


def cases() -> list[Case]:
    """Return the comparisons."""
    from scipy import stats

    from protocols.comparisons.quantiles import quantile
    from protocols.comparisons.ranks import kruskal_wallis, mann_whitney

    clinic = datasets.by_institution(datasets.lung())
    lung = datasets.pooled(clinic)
    men, women = (lung[lung.sex == sex].wt_loss.dropna() for sex in (1, 2))
    trial = datasets.dealt(datasets.gbsg2())
    gbsg2 = datasets.pooled(trial)
    grades = [gbsg2[gbsg2.tgrade == grade].progrec for grade in ("I", "II", "III")]
    q = [0.1, 0.25, 0.5, 0.75, 0.9]
    rank_sum = stats.mannwhitneyu(men, women)
    kruskal = stats.kruskal(*grades)
    by_arm = [np.quantile(gbsg2[gbsg2.horTh == label].progrec, q) for label in ("no", "yes")]
    cells = datasets.dealt(datasets.breast_cancer())
    return [
        Case(
            "mann_whitney",
            "lung by institution",
            "scipy",
            clinic,
            call(mann_whitney, "wt_loss", "sex", categories=(1, 2), bound=100.0, resolution=1.0),
            lambda found: [
                exact("U", rank_sum.statistic, found.statistic),
                p_value("p", rank_sum.pvalue, found.p_value),
            ],
            quick=True,
        ),
        Case(
            "kruskal_wallis",
            "gbsg2",
            "scipy",
            trial,
            call(kruskal_wallis, "progrec", "tgrade", bound=4096.0, resolution=1.0),
            lambda found: [
                Figure("H", kruskal.statistic, found.statistic, 1e-9),
                p_value("p", kruskal.pvalue, found.p_value),
            ],
        ),
        Case(
            "quantile",
            "breast_cancer",
            "numpy",
            cells,
            call(quantile, "mean_area", q=q, bound=4096.0),
            lambda found: [_of(np.quantile(datasets.breast_cancer().mean_area, q), found)],
        ),
        Case(
            "quantile by group",
            "gbsg2",
            "numpy",
            trial,
            call(quantile, "progrec", q=q, by=Col("horTh"), categories=("no", "yes"), bound=4096.0, resolution=1.0),
            lambda found: [_of(np.stack(by_arm), found)],
        ),
    ]


def _of(reference: Any, found: Any) -> Figure:
    return Figure(f"quantiles ({reference.size})", reference, np.reshape(found.values, reference.shape), 1e-9)
