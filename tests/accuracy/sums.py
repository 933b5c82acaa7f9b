"""Sums, means and variances."""

from __future__ import annotations

from tests.accuracy import datasets
from tests.accuracy.cases import Case, Figure, call, exact


def cases() -> list[Case]:
    """Return the comparisons."""
    from protocols import secure_mean, secure_sum, secure_variance

    parts = datasets.dealt(datasets.breast_cancer().drop(columns="target"))
    pooled = datasets.pooled(parts)
    columns = list(pooled)
    visits = datasets.dealt(datasets.randhie())
    clinic = datasets.by_institution(datasets.lung())
    return [
        Case(
            "secure_sum of whole numbers",
            "randhie",
            "numpy",
            visits,
            call(secure_sum, ["mdvis", "hlthg"], bound=1000),
            lambda sums: [exact("sums (2)", datasets.pooled(visits)[["mdvis", "hlthg"]].sum(), sums)],
            quick=True,
        ),
        Case(
            "secure_mean",
            "breast_cancer",
            "numpy",
            parts,
            call(secure_mean, columns),
            lambda means: [Figure("means (30)", pooled.mean(), means, 1e-9)],
            quick=True,
        ),
        Case(
            "secure_mean of a secret number of rows",
            "breast_cancer",
            "numpy",
            parts,
            call(secure_mean, columns, count="secret"),
            lambda means: [Figure("means (30)", pooled.mean(), means)],
        ),
        Case(
            "secure_variance",
            "breast_cancer",
            "numpy",
            parts,
            call(secure_variance, columns),
            lambda found: [Figure("variances (30)", pooled.var(ddof=1), found)],
            quick=True,
        ),
        Case(
            "secure_variance",
            "lung by institution",
            "numpy",
            clinic,
            call(secure_variance, ["time", "age"], bound=[2000.0, 120.0]),
            lambda found: [Figure("variances (2)", datasets.pooled(clinic)[["time", "age"]].var(ddof=1), found)],
        ),
    ]
