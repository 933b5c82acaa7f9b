"""All analyses: what each takes, what may differ between parties, and its reference. Here sums, tables and tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import protocols
from protocols import Column
from tests.protocols.edges import references
from tests.protocols.edges.model_cases import model_cases
from tests.protocols.edges.references import EDGES, Q
from tests.protocols.edges.running import Case, fields
from tests.protocols.edges.tables import BOUND, THREE, TWO

ROWS, BOTH = ("rows",), ("rows", "columns")
# Values are told apart to an eighth where ranks are wanted: sorting takes as many rounds as there are bits.
LEVELS = 1 / 24
COLUMNS = (
    Column("h", "category", categories=TWO),
    Column("x", "number", lower=-BOUND, upper=BOUND),
    Column("y", "boolean"),
)
X = ("x", "z")


def _value(result: Any) -> dict[str, Any]:
    return {"value": result}


def _contingency(result: Any) -> dict[str, Any]:
    found = fields("counts", "total", "row_totals", "fisher_p")(result)
    return {
        **found,
        "chi2": (result.chi2.statistic, result.chi2.p_value),
        "odds_ratio": result.odds_ratio.value,
        "risk_difference": result.risk_difference.value,
        "exact": result.odds_ratio_exact.value,
    }


def _table_one(result: Any) -> dict[str, Any]:
    x, y = result.characteristics
    found = {
        **fields("n", "group_n")(result),
        **fields("mean", "sd")(x),
        "n of x": x.n,
        "p of x": x.test.p_value,
        "counts": y.counts,
    }
    return {**found, "quartiles": np.stack([x.q1, x.median, x.q3], axis=1)}


def _cases() -> list[Case]:
    f: Callable[..., Any] = fields
    two = {"bound": BOUND, "categories": TWO}
    three = {"bound": BOUND, "categories": THREE}
    fewer = {"bound": 20.0, "categories": ("b", "a"), "to": [0]}
    more = {"bound": 20.0, "categories": (*THREE, "d"), "to": [0]}
    ranked = {"resolution": LEVELS}
    of_groups = {"x": "x", "group": "h"}
    of_three = {"x": "x", "group": "g"}
    t_values = f("estimate", "df", "statistic", "p_value", "conf_int")
    fit = {"bound": BOUND}
    return [
        # ---- sums
        Case(
            "sum",
            protocols.secure_sum,
            {"values": X},
            references.sums,
            _value,
            {"bound": BOUND},
            gaps=False,
            bounded=("values",),
            others={"bound": 20.0, "to": [0]},
        ),
        Case(
            "mean",
            protocols.secure_mean,
            {"values": X},
            references.means,
            _value,
            {"bound": BOUND},
            gaps=False,
            bounded=("values",),
            others={"bound": 20.0, "to": [0], "count": "secret"},
        ),
        Case(
            "mean of a secret count",
            protocols.secure_mean,
            {"values": X},
            references.means,
            _value,
            {"bound": BOUND, "count": "secret"},
            gaps=False,
            bounded=("values",),
            others={"bound": 20.0},
        ),
        Case(
            "variance",
            protocols.secure_variance,
            {"values": X},
            partial(references.variances, ddof=1),
            _value,
            {"bound": BOUND},
            gaps=False,
            bounded=("values",),
            others={"bound": 20.0, "to": [0], "ddof": 0},
        ),
        Case(
            "variance of a population",
            protocols.secure_variance,
            {"values": X},
            partial(references.variances, ddof=0),
            _value,
            {"ddof": 0},
            gaps=False,
            others={"ddof": 1},
        ),
        # ---- tables
        Case(
            "table_one",
            protocols.table_one,
            {"frame": ("h", "x", "y")},
            references.tables_one,
            _table_one,
            {"by": "h", "columns": COLUMNS, "p_values": True},
            partitions=BOTH,
            gaps_apart=True,
            slow=True,
            bounded=("x",),
            others={"by": "y", "p_values": False, "quantiles": False, "to": [0], "columns": COLUMNS[::-1]},
        ),
        Case(
            "proportion",
            protocols.proportion,
            {"values": "g"},
            references.proportions,
            f("counts", "total", "estimate", "conf_int"),
            {"categories": THREE},
            partitions=BOTH,
            others={"categories": (*THREE, "d"), "confidence": 0.9, "method": "clopper-pearson", "level": "a"},
        ),
        Case(
            "histogram",
            protocols.histogram,
            {"x": "x"},
            references.histograms,
            f("counts", "below", "above", "density", "n"),
            {"bins": EDGES},
            partitions=BOTH,
            others={"bins": EDGES[1:], "outside": "join", "to": [0]},
        ),
        Case(
            "contingency_table",
            protocols.contingency_table,
            {"rows": "h", "columns": "y"},
            partial(references.contingency, labels=TWO, by="h"),
            _contingency,
            {"row_categories": TWO, "column_categories": (0, 1)},
            partitions=BOTH,
            others={"row_categories": THREE, "column_categories": (1, 0), "confidence": 0.9, "difference": "wald"},
        ),
        Case(
            "contingency_table of three",
            protocols.contingency_table,
            {"rows": "g", "columns": "y"},
            partial(references.contingency, labels=THREE, by="g"),
            _contingency,
            {"row_categories": THREE, "column_categories": (0, 1)},
            partitions=BOTH,
        ),
        # ---- quantiles
        Case(
            "quantile",
            protocols.quantile,
            {"x": "x"},
            partial(references.quantiles, method="linear"),
            f("values", "n"),
            {"q": Q, "bound": BOUND},
            slow=True,
            bounded=("x",),
            others={
                "q": (*Q[:-1], 0.95),
                "bound": 20.0,
                "method": "inverted_cdf",
                "resolution": 0.5,
                "to": [0],
            },
        ),
        Case(
            "quantile of a sorted column",
            protocols.quantile,
            {"x": "x"},
            partial(references.quantiles, method="inverted_cdf"),
            f("values", "n"),
            {"q": Q, "bound": BOUND, "method": "inverted_cdf", "resolution": LEVELS},
            partitions=BOTH,
            bounded=("x",),
            others={"resolution": 1.0},
        ),
        Case(
            "quantile on a grid",
            protocols.quantile,
            {"x": "x"},
            partial(references.quantiles, method="linear"),
            f("values", "n"),
            {"q": Q, "grid": (-BOUND, BOUND, LEVELS)},
            bounded=("x",),
            others={"grid": (-BOUND, BOUND, 0.5)},
        ),
        Case(
            "quantile by group",
            protocols.quantile,
            {"x": "x", "by": "g"},
            references.quantiles_by_group,
            f("values", "group_n"),
            {"q": Q, **three, **ranked},
            partitions=BOTH,
            bounded=("x",),
            others={"categories": (*THREE, "d")},
        ),
        # ---- means
        *(
            Case(
                f"t_test {kind}",
                protocols.t_test,
                of_groups,
                partial(references.t_tests, kind=kind),
                t_values,
                {**two, "kind": kind},
                partitions=BOTH,
                bounded=("x",),
                others={
                    **fewer,
                    "kind": "student" if kind == "welch" else "welch",
                    "mean": 1.0,
                    "alternative": "less",
                    "confidence": 0.9,
                },
            )
            for kind in ("welch", "student")
        ),
        Case(
            "t_test paired",
            protocols.t_test,
            {"x": "x", "y": "z"},
            partial(references.t_tests, kind="paired"),
            t_values,
            {"bound": BOUND, "kind": "paired"},
            partitions=BOTH,
            bounded=("x", "y"),
            atol=1e-7,
            others={"bound": 20.0, "mean": 1.0, "alternative": "greater", "confidence": 0.9},
        ),
        Case(
            "t_test one_sample",
            protocols.t_test,
            {"x": "x"},
            partial(references.t_tests, kind="one_sample"),
            t_values,
            {"bound": BOUND, "kind": "one_sample"},
            partitions=BOTH,
            bounded=("x",),
            others={"bound": 20.0, "mean": 1.0, "alternative": "greater", "confidence": 0.9},
        ),
        Case(
            "anova",
            protocols.anova,
            of_three,
            partial(references.anovas, welch=False),
            f("statistic", "p_value", "group_n", "sum_squares_within", "eta_squared"),
            three,
            partitions=BOTH,
            bounded=("x",),
            others={**more, "welch": True},
        ),
        Case(
            "anova welch",
            protocols.anova,
            of_three,
            partial(references.anovas, welch=True),
            f("statistic", "p_value", "group_n", "df_within"),
            {**three, "welch": True},
            partitions=BOTH,
            bounded=("x",),
            others={**more, "welch": False},
        ),
        # ---- ranks
        *(
            Case(
                f"mann_whitney {alternative}",
                protocols.mann_whitney,
                of_groups,
                partial(references.mann_whitneys, alternative=alternative),
                f("statistic", "estimate", "p_value", "exact"),
                {**two, **ranked, "alternative": alternative},
                partitions=BOTH,
                bounded=("x",),
                others={**fewer, "alternative": "greater", "confidence": 0.9, "resolution": 1.0},
            )
            for alternative in ("two-sided", "less")
        ),
        Case(
            "mann_whitney on a grid",
            protocols.mann_whitney,
            of_groups,
            partial(references.mann_whitneys, alternative="two-sided"),
            f("statistic", "estimate", "p_value", "exact"),
            {"categories": TWO, "grid": (-BOUND, BOUND, LEVELS)},
            bounded=("x",),
            others={"grid": (-BOUND, BOUND, 0.5), "categories": ("b", "a")},
        ),
        Case(
            "kruskal_wallis",
            protocols.kruskal_wallis,
            of_three,
            references.kruskals,
            f("statistic", "p_value"),
            {**three, **ranked},
            partitions=BOTH,
            bounded=("x",),
            atol=1e-7,
            others={**more, "resolution": 1.0},
        ),
        # ---- several columns
        Case(
            "covariance",
            protocols.covariance,
            {"X": X},
            references.covariances,
            f("covariance", "n"),
            fit,
            partitions=BOTH,
            bounded=("X",),
            others={"bound": 20.0, "to": [0]},
        ),
        Case(
            "correlation pearson",
            protocols.correlation,
            {"X": X},
            partial(references.correlations, kind="pearson"),
            f("correlation", "p_value", "n"),
            fit,
            partitions=BOTH,
            bounded=("X",),
            atol=1e-7,
            others={"bound": 20.0, "to": [0], "kind": "spearman", "confidence": 0.9},
        ),
        Case(
            "correlation spearman",
            protocols.correlation,
            {"X": X},
            partial(references.correlations, kind="spearman"),
            f("correlation", "p_value", "n"),
            {"bound": BOUND, "kind": "spearman", "resolution": 1 / 40},
            partitions=BOTH,
            bounded=("X",),
            atol=1e-7,
            others={"bound": 20.0, "to": [0], "resolution": 1.0},
        ),
    ]


CASES: dict[str, Case] = {case.name: case for case in (*_cases(), *model_cases())}
