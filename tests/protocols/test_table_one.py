"""Table 1 of real data against pandas; groups that are too small; what parties do not agree on."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mpc import AgreementError, DataError, Party, prepare
from protocols.pools.variables import Column
from protocols.release.disclosure import Disclosure, DisclosureError
from protocols.tables.table_one import table_one
from protocols.tables.table_one_results import difference_of_means, difference_of_parts, welch_anova
from tests.protocols.helpers import run

COLUMNS = [
    Column("age", "integer", "years", 0, 128),
    Column("wt.loss", "number", "lb", -64, 128),
    Column("meal.cal", "number", "kcal", 0, 4096),
    Column("ph.ecog", "category", categories=(0, 1, 2, 3)),
    Column("sex", "category", categories=("female", "male")),
]


@lru_cache
def lung() -> pd.DataFrame:
    """228 patients with lung cancer, at 18 institutions."""
    from lifelines.datasets import load_lung

    data = load_lung()
    data["sex"] = data["sex"].map({1: "male", 2: "female"})
    return data


def split(data: pd.DataFrame, parties: int) -> list[pd.DataFrame]:
    """By institution, as in life."""
    place = data["inst"].fillna(0).astype(int) % parties
    return [data[place == k] for k in range(parties)]


def in_turn(data: pd.DataFrame, parties: int) -> list[pd.DataFrame]:
    return [data.iloc[k::parties] for k in range(parties)]


def describe(data: list[Any], preprocessing: str = "dealer", **parameters: Any) -> list[Any]:
    async def program(party: Party, ours: Any) -> Any:
        return await table_one(party, ours, **parameters)

    return run(program, data, preprocessing)


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3), ("ot", 2)])
def test_lung_by_sex_is_what_pandas_finds(preprocessing: str, parties: int) -> None:
    data = lung()
    found = describe(split(data, parties), preprocessing, columns=COLUMNS, by="sex", p_values=True, quantiles=False)[0]
    assert (found.by, found.groups, found.n) == ("sex", ("female", "male"), 228)
    assert found.group_n.tolist() == [90, 138]
    groups = [data, *(data[data["sex"] == sex] for sex in found.groups)]
    for name in ("age", "wt.loss", "meal.cal"):
        ours = found[name]
        assert ours.n.tolist() == [g[name].count() for g in groups]
        assert ours.missing.tolist() == [g[name].isna().sum() for g in groups]
        np.testing.assert_allclose(ours.mean, [g[name].mean() for g in groups], rtol=1e-9)
        np.testing.assert_allclose(ours.sd, [g[name].std() for g in groups], rtol=1e-7)
        _, first, second = (g[name].dropna() for g in groups)
        pooled = np.sqrt((first.var() + second.var()) / 2)
        np.testing.assert_allclose(ours.smd, abs(first.mean() - second.mean()) / pooled, rtol=1e-6)
        np.testing.assert_allclose(ours.test.p_value, stats.ttest_ind(first, second, equal_var=False).pvalue, atol=1e-8)
    table = data.groupby(["ph.ecog", "sex"]).size().unstack(fill_value=0).to_numpy()
    ecog = found["ph.ecog"]
    assert ecog.counts.tolist() == np.column_stack([table.sum(axis=1), table]).tolist()
    np.testing.assert_allclose(ecog.parts[:, 1:], table / table.sum(axis=0))
    np.testing.assert_allclose(ecog.test.p_value, stats.chi2_contingency(table).pvalue, atol=1e-10)
    assert ecog.missing.tolist() == [1, 0, 1]
    assert "mean (SD)" in found.summary()
    assert json.loads(json.dumps(found.to_dict()))["characteristics"][0]["unit"] == "years"


def test_quartiles_are_those_of_pandas() -> None:
    data = lung()[["age", "meal.cal", "sex"]]
    parts = [data.iloc[:100], data.iloc[100:]]
    found = describe(parts, columns=[COLUMNS[0], COLUMNS[2], COLUMNS[4]], by="sex")[0]
    groups = [data, *(data[data["sex"] == sex] for sex in found.groups)]
    for name, width in (("age", 128), ("meal.cal", 4096)):
        expected = np.array([g[name].quantile([0.25, 0.5, 0.75]) for g in groups]).T
        ours = np.stack([found[name].q1, found[name].median, found[name].q3])
        np.testing.assert_allclose(ours, expected, rtol=0, atol=width * 2.0**-38)
    assert "median [IQR]" in found.summary()


def test_without_groups_and_without_declared_columns() -> None:
    data = lung()[["age", "sex", "wt.loss"]].assign(old=lung()["age"] > 70)
    found = describe([data.iloc[:99], data.iloc[99:]], quantiles=False)[1]
    assert (found.n, found.names) == (228, ("age", "sex", "wt.loss", "old"))
    np.testing.assert_allclose(found["age"].mean, [data["age"].mean()], rtol=1e-9)
    assert found["sex"].levels == ("female", "male")
    assert found["old"].counts[:, 0].tolist() == [(~data["old"]).sum(), data["old"].sum()]
    assert found["wt.loss"].missing.tolist() == [14]
    assert np.isnan(found["age"].smd)


RULE = Disclosure("test", minimum_rows=10, minimum_cell=8)
INSTITUTION = Column("inst", "category", categories=tuple(range(1, 34)))


def test_small_groups_are_withheld_and_the_table_goes_on() -> None:
    data = lung().copy()
    sizes = data["inst"].value_counts()
    inst = Column("inst", "category", categories=tuple(sorted(int(one) for one in sizes.index)))
    columns = [COLUMNS[0], COLUMNS[3], inst]

    async def program(party: Party, ours: Any) -> Any:
        same: dict[str, Any] = {"columns": columns, "by": "inst", "disclosure": RULE, "quantiles": False}
        await prepare(party, lambda seat: table_one(seat, ours, **same))
        return await table_one(party, ours, **same)

    found = run(program, in_turn(data, 3), "prss")[0]
    counts = np.array([sizes[one] for one in found.groups])
    held = np.isnan(found.group_n)
    assert held[counts < 8].all()
    assert (found.group_n[~held] == counts[~held]).all()
    assert counts[held].sum() >= 8
    age, ecog = found["age"], found["ph.ecog"]
    assert np.isnan(age.mean[1:][held]).all()
    means = data.groupby("inst")["age"].agg(["mean", "std"])
    shown = [one for one, hidden in zip(found.groups, held, strict=True) if not hidden]
    np.testing.assert_allclose(age.mean[1:][~held], means.loc[shown, "mean"], rtol=1e-9)
    np.testing.assert_allclose(age.sd[1:][~held], means.loc[shown, "std"], rtol=1e-7)
    with_inst = data[data["inst"].notna()]
    np.testing.assert_allclose(age.mean[0], with_inst["age"].mean(), rtol=1e-9)
    table = with_inst.groupby(["ph.ecog", "inst"]).size().unstack(fill_value=0)[list(found.groups)].to_numpy()
    known = ~np.isnan(ecog.counts[:, 1:])
    assert (ecog.counts[:, 1:][known] == table[known]).all()
    assert (table[known] >= 8).all()
    assert not known[:, held].any()
    assert "groups are withheld" in found.summary()
    assert ecog.n[0] == 226


def test_a_variable_with_too_few_values_in_a_group_is_shown_overall_only() -> None:
    data = pd.DataFrame({"group": [0] * 40 + [1] * 40, "x": np.arange(80.0)})
    data.loc[3:39, "x"] = np.nan  # three values in the first group
    data["y"] = np.arange(80.0) ** 2
    columns = [Column("group", "boolean"), Column("x", "number", lower=0, upper=100), Column("y", "number")]
    found = describe(in_turn(data, 3), columns=columns, by="group", disclosure=RULE, quantiles=False)[0]
    assert np.isnan(found["x"].mean[1:]).all()
    assert np.isnan(found["x"].n[1:]).all()
    np.testing.assert_allclose(found["x"].mean[0], data["x"].mean(), rtol=1e-9)
    np.testing.assert_allclose(found["y"].mean[1:], data.groupby("group")["y"].mean(), rtol=1e-9)
    assert "too few" in found["x"].suppressed[0]


def test_a_number_that_is_a_yes_or_no_tells_no_small_count() -> None:
    data = pd.DataFrame({"group": [0, 1] * 30, "event": [1.0] * 5 + [0.0] * 55})
    columns = [Column("group", "boolean"), Column("event", "number", lower=0, upper=1)]
    found = describe(in_turn(data, 3), columns=columns, by="group", disclosure=RULE, quantiles=False)[0]
    assert np.isnan(found["event"].mean).all()
    assert len(found["event"].suppressed) == 1


def test_recipients_and_rounding() -> None:
    data = lung()[["ph.ecog", "sex", "age"]]
    columns = [COLUMNS[3], COLUMNS[4], COLUMNS[0]]
    rule = Disclosure.preset("opensafely")
    first, second, third = describe(
        in_turn(data, 3), "prss", columns=columns, by="sex", to=[1], disclosure=rule, quantiles=False
    )
    assert (first, third) == (None, None)
    counts = second["ph.ecog"].counts
    assert (counts[~np.isnan(counts)] % 5 == 0).all()
    assert np.isnan(counts[3]).all()  # one patient
    assert "rounded" in second.suppressed[-1]
    np.testing.assert_allclose(second["age"].mean[0], data["age"].mean())


def test_columns_at_three_parties() -> None:
    data = lung()[["age", "wt.loss", "ph.ecog", "sex"]].iloc[:40]
    columns = [COLUMNS[0], COLUMNS[1], COLUMNS[3], COLUMNS[4]]
    parts = [data[["age", "sex"]], data[["wt.loss"]], data[["ph.ecog"]]]
    found = describe(parts, "prss", columns=columns, by="sex", partition="columns", quantiles=False)[2]
    groups = [data, *(data[data["sex"] == sex] for sex in found.groups)]
    for name in ("age", "wt.loss"):
        np.testing.assert_allclose(found[name].mean, [g[name].mean() for g in groups], rtol=1e-7)
        np.testing.assert_allclose(found[name].sd, [g[name].std() for g in groups], rtol=1e-6)
        assert found[name].missing.tolist() == [g[name].isna().sum() for g in groups]
    assert found["ph.ecog"].counts[:, 0].tolist() == [(data["ph.ecog"] == k).sum() for k in range(4)]
    alone = describe(parts, columns=columns, partition="columns", quantiles=False)[0]
    assert alone.n == 40
    with pytest.raises(ValueError, match="declare all columns"):
        describe(parts, partition="columns")


def test_quartiles_of_columns() -> None:
    data = lung()[["age", "sex"]].iloc[:40]
    columns = [COLUMNS[0], COLUMNS[4]]
    found = describe([data[["age"]], data[["sex"]]], columns=columns, by="sex", partition="columns")[0]
    expected = [data["age"].median(), *data.groupby("sex")["age"].median()]
    np.testing.assert_allclose(found["age"].median, expected, atol=1e-8)


def test_a_schema_that_differs_is_found_before_any_value_is_shared() -> None:
    data = lung()[["age", "sex"]]
    ages = [Column("age", "number", "years", 0, 128), Column("age", "number", "months", 0, 128)]
    shared = []

    async def program(party: Party, ours: Any) -> Any:
        try:
            return await table_one(party, ours, columns=[ages[party.rank], COLUMNS[4]], by="sex")
        finally:
            shared.append([name for name in party.costs.by_step if "share" in name])

    with pytest.raises(AgreementError, match="column age"):
        run(program, in_turn(data, 2))
    assert shared == [[], []]
    texts = data.assign(age=data["age"].astype(str))
    with pytest.raises(AgreementError, match="column age"):
        describe([data, texts], by="sex")
    with pytest.raises(AgreementError, match="columns"):
        describe([data, data.rename(columns={"age": "Age"})], by="sex")


@pytest.mark.parametrize("parties", [2, 3])
def test_costs_are_as_documented(parties: int) -> None:
    def costs(columns: list[Column]) -> tuple[int, int]:
        async def program(party: Party, ours: Any) -> Any:
            await table_one(party, ours, columns=columns, by="sex", quantiles=False)
            return party.costs.rounds, party.costs.elements_opened

        found: tuple[int, int] = run(program, in_turn(lung(), parties))[0]
        return found

    age, ecog, sex = COLUMNS[0], COLUMNS[3], COLUMNS[4]
    g, k = 2, 4
    assert costs([ecog, sex]) == (6 + 7, g + 3 + (g + 1) * (k + 1) + g + 3)
    rounds, elements = costs([age, sex])
    assert rounds == 6 + 25
    assert elements <= g + 3 + (g + 1) * (4 * parties + 4) + g + 3


def test_what_is_wrong_is_named() -> None:
    data = lung()[["age", "sex"]]
    with pytest.raises(ValueError, match="by is a category"):
        describe([data, data], by="age")
    with pytest.raises(ValueError, match="no column"):
        describe([data, data], by="group")
    with pytest.raises(ValueError, match="beside by"):
        describe([data[["sex"]]] * 2, by="sex")
    with pytest.raises(DataError, match="nobody declared"):
        describe([data, data, data], by="sex", disclosure=RULE)
    few = data.iloc[:2]
    with pytest.raises(DisclosureError):
        describe([few, few, few], columns=[COLUMNS[0], COLUMNS[4]], by="sex", disclosure=RULE)


def test_differences_between_groups() -> None:
    assert difference_of_means(np.array([1.0, 3, 2]), np.array([2.0, 2, 2])) == 1
    assert difference_of_means(np.array([1.0, 1]), np.zeros(2)) == 0
    assert difference_of_means(np.array([1.0, 2]), np.zeros(2)) == np.inf
    assert np.isnan(difference_of_means(np.array([1.0, np.nan]), np.ones(2)))
    # Of two categories, the usual formula; Yang and Dalton's own form of more, written out.
    first, second = 0.3, 0.45
    usual = abs(first - second) / np.sqrt((first * (1 - first) + second * (1 - second)) / 2)
    np.testing.assert_allclose(difference_of_parts(np.array([[1 - first, 1 - second], [first, second]])), usual)
    a, b = np.array([0.2, 0.5, 0.3]), np.array([0.4, 0.4, 0.2])
    S = np.array(
        [
            [
                (a[j] * (1 - a[j]) + b[j] * (1 - b[j])) / 2 if j == k else -(a[j] * a[k] + b[j] * b[k]) / 2
                for k in (1, 2)
            ]
            for j in (1, 2)
        ]
    )
    T = (a - b)[1:]
    np.testing.assert_allclose(difference_of_parts(np.column_stack([a, b])), np.sqrt(T @ np.linalg.inv(S) @ T))
    # A category that does not occur changes nothing; the order of categories neither.
    more = np.column_stack([[0.2, 0, 0.5, 0.3], [0.4, 0, 0.4, 0.2]])
    np.testing.assert_allclose(difference_of_parts(more), difference_of_parts(np.column_stack([a, b])))
    np.testing.assert_allclose(difference_of_parts(more[::-1]), difference_of_parts(more))
    assert difference_of_parts(np.array([[1.0, 0], [0, 1]])) == np.inf


def test_welch_of_three_groups_against_statsmodels() -> None:
    from statsmodels.stats.oneway import anova_oneway

    data = lung()
    groups = [data.loc[data["ph.ecog"] == k, "age"].to_numpy() for k in range(3)]
    n, mean, sd = np.array([[len(g), g.mean(), g.std(ddof=1)] for g in groups]).T
    reference = anova_oneway(groups, use_var="unequal")
    found = welch_anova(n, mean, sd)
    np.testing.assert_allclose([found.statistic, found.p_value], [reference.statistic, reference.pvalue], rtol=1e-9)
