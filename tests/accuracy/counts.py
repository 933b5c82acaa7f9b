"""Tables, proportions, histograms."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tests.accuracy import datasets
from tests.accuracy.cases import Case, Col, Figure, call, exact, p_value


def cases() -> list[Case]:
    """Return the comparisons."""
    return [*_tables(), _baseline()]


def _baseline() -> Case:
    from protocols.pools.variables import Column
    from protocols.tables.table_one import table_one

    columns = [
        Column("age", "integer", "years", 18, 100),
        Column("tsize", "integer", "mm", 0, 200),
        Column("progrec", "integer", "fmol", 0, 4000),
        Column("tgrade", "category", categories=("I", "II", "III")),
        Column("horTh", "category", categories=("no", "yes")),
    ]
    parts = datasets.dealt(datasets.gbsg2()[[column.name for column in columns]])
    program = partial(_table_one, table_one, columns)
    return Case("table_one", "gbsg2", "pandas", parts, program, partial(_of_baseline, datasets.pooled(parts)))


async def _table_one(protocol: Any, columns: Any, party: Any, frame: Any) -> Any:
    return await protocol(party, frame, by="horTh", columns=columns)


def _of_baseline(pooled: pd.DataFrame, found: Any) -> list[Figure]:
    whole = [pooled, *(pooled[pooled.horTh == label] for label in ("no", "yes"))]
    numbers = ("age", "tsize", "progrec")

    def each(function: Any) -> Any:
        return [[function(rows[name]) for rows in whole] for name in numbers]

    return [
        Figure("means (9)", each(np.mean), [found[name].mean for name in numbers]),
        Figure("standard deviations (9)", each(lambda x: np.std(x, ddof=1)), [found[name].sd for name in numbers]),
        Figure("medians (9)", each(np.median), [found[name].median for name in numbers]),
        Figure("quartiles (9)", each(lambda x: np.quantile(x, 0.25)), [found[name].q1 for name in numbers]),
        exact(
            "counts (9)",
            np.array([[(rows.tgrade == grade).sum() for rows in whole] for grade in ("I", "II", "III")]),
            found["tgrade"].counts,
        ),
    ]


def _tables() -> list[Case]:
    from statsmodels.stats.proportion import proportion_confint

    from protocols.tables.contingency import contingency_table
    from protocols.tables.histograms import histogram
    from protocols.tables.proportions import proportion

    trial = datasets.dealt(datasets.gbsg2())
    gbsg2 = datasets.pooled(trial)
    cities = datasets.by_city(datasets.china_smoking())
    smoking = datasets.pooled(cities)
    patients = datasets.dealt(datasets.whas500())
    whas500 = datasets.pooled(patients)
    edges = np.arange(20.0, 111.0, 10.0)
    died = int(whas500.died.sum())
    wilson = proportion_confint(died, len(whas500), method="wilson")
    return [
        Case(
            "contingency_table, 3 x 2",
            "gbsg2",
            "scipy",
            trial,
            call(contingency_table, "tgrade", "horTh", column_categories=("no", "yes")),
            lambda found: of_table(pd.crosstab(gbsg2.tgrade, gbsg2.horTh), found),
            quick=True,
        ),
        Case(
            "contingency_table, 2 x 2",
            "whas500",
            "scipy, statsmodels",
            patients,
            call(contingency_table, "gender", "died"),
            lambda found: [
                *of_table(pd.crosstab(whas500.gender, whas500.died), found),
                *_of_two(pd.crosstab(whas500.gender, whas500.died), found),
            ],
            quick=True,
        ),
        Case(
            "contingency_table with strata",
            "china_smoking by city",
            "statsmodels",
            cities,
            call(
                contingency_table, "smoking", "cancer", strata=Col("city"), strata_categories=sorted(set(smoking.city))
            ),
            lambda found: _of_strata(smoking, found),
        ),
        Case(
            "proportion",
            "whas500",
            "statsmodels",
            patients,
            call(proportion, "died"),
            lambda found: [Figure("Wilson's interval (2)", wilson, np.reshape(found.conf_int, (-1, 2))[-1], 1e-9)],
        ),
        Case(
            "histogram",
            "gbsg2",
            "numpy",
            trial,
            call(histogram, "age", bins=edges),
            lambda found: [exact("counts (9)", np.histogram(gbsg2.age, edges)[0], found.counts)],
            quick=True,
        ),
    ]


def of_table(table: pd.DataFrame, found: Any) -> list[Figure]:
    from scipy import stats

    chi2 = stats.chi2_contingency(table, correction=False)
    return [
        exact(f"counts ({table.size})", table, found.counts),
        Figure("chi squared", chi2.statistic, found.chi2.statistic, 1e-9),
        p_value("p", chi2.pvalue, found.chi2.p_value),
    ]


def _of_two(table: pd.DataFrame, found: Any) -> list[Figure]:
    from scipy import stats
    from statsmodels.stats.contingency_tables import Table2x2

    sample = Table2x2(table.to_numpy()[::-1, ::-1])
    exact_ratio = stats.contingency.odds_ratio(table.to_numpy(), kind="conditional")
    return [
        p_value("Fisher's p", stats.fisher_exact(table)[1], found.fisher_p),
        Figure("odds ratio", sample.oddsratio, found.odds_ratio.value, 1e-9),
        Figure("its interval (2)", sample.oddsratio_confint(), [found.odds_ratio.lower, found.odds_ratio.upper], 1e-9),
        Figure("conditional odds ratio", exact_ratio.statistic, found.odds_ratio_exact.value),
        Figure("risk ratio", sample.riskratio, found.risk_ratio.value, 1e-9),
    ]


def _of_strata(smoking: pd.DataFrame, found: Any) -> list[Figure]:
    from statsmodels.stats.contingency_tables import StratifiedTable

    layers = [pd.crosstab(group.smoking, group.cancer).to_numpy() for _, group in smoking.groupby("city")]
    reference = StratifiedTable(layers)
    test = reference.test_null_odds(correction=False)
    return [
        exact(f"counts ({4 * len(layers)})", np.stack(layers), found.strata_counts),
        Figure("Mantel-Haenszel odds ratio", reference.oddsratio_pooled, found.pooled.odds_ratio.value, 1e-9),
        Figure("Cochran-Mantel-Haenszel statistic", test.statistic, found.pooled.cmh.statistic, 1e-9),
        p_value("its p", test.pvalue, found.pooled.cmh.p_value),
        p_value("Breslow-Day p", reference.test_equal_odds().pvalue, found.pooled.breslow_day.p_value),
    ]
