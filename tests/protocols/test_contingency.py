"""Tables of real data against scipy and statsmodels."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable, Table2x2
from statsmodels.stats.proportion import confint_proportions_2indep

from mpc import AgreementError, DataError, Party, prepare
from protocols.release.disclosure import Disclosure
from protocols.tables.contingency import ContingencyResult, contingency_table
from protocols.tables.count_statistics import Estimate, conditional_odds_ratio, pearson, stratified
from tests.protocols.helpers import run, run_one

CITIES = tuple(range(8))


@lru_cache
def smoking() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smoking and lung cancer in eight Chinese cities, as counts (8, 2, 2), no before yes, and as 8,419 rows."""
    from statsmodels.datasets import china_smoking

    data = china_smoking.load_pandas().data
    names = [f"smoking_{s}_cancer_{c}" for s in ("no", "yes") for c in ("no", "yes")]
    counts = data[names].to_numpy().astype(np.int64).reshape(-1, 2, 2)
    cells = np.stack(np.meshgrid(CITIES, [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(-1, 3)
    rows = np.repeat(cells, counts.reshape(-1), axis=0)
    return counts, np.random.default_rng(0).permutation(rows)


async def by_city(party: Party, rows: NDArray[np.int64], **parameters: Any) -> ContingencyResult | None:
    return await contingency_table(
        party, rows[:, 1], rows[:, 2], strata=rows[:, 0], strata_categories=CITIES, **parameters
    )


def ends(found: Estimate) -> list[float]:
    return [found.value, found.lower, found.upper]


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3), ("prss", 5), ("ot", 2)])
def test_smoking_by_city(preprocessing: str, parties: int) -> None:
    counts, rows = smoking()
    if parties != 3:  # some of the cities; the layers without rows say nothing
        rows, counts = rows[rows[:, 0] > 4], counts * (np.arange(8) > 4)[:, np.newaxis, np.newaxis]
    found = run_one(by_city, np.array_split(rows, parties), preprocessing)
    assert found.strata_counts.tolist() == counts.tolist()
    pooled = counts.sum(axis=0)
    assert found.counts.tolist() == pooled.tolist()
    assert found.row_totals.tolist() == pooled.sum(axis=1).tolist()
    assert found.column_totals.tolist() == pooled.sum(axis=0).tolist()
    assert found.n == found.total == counts.sum()

    reference = StratifiedTable([table[::-1, ::-1] for table in counts.astype(float) if table.any()])
    assert found.pooled is not None
    ratio = found.pooled.odds_ratio
    np.testing.assert_allclose(
        [ratio.value, ratio.lower, ratio.upper],
        [reference.oddsratio_pooled, *reference.oddsratio_pooled_confint()],
        rtol=1e-12,
    )
    for ours, theirs in [
        (found.pooled.cmh, reference.test_null_odds()),
        (found.pooled.cmh_corrected, reference.test_null_odds(correction=True)),
        (found.pooled.breslow_day, reference.test_equal_odds()),
        (found.pooled.tarone, reference.test_equal_odds(adjust=True)),
    ]:
        np.testing.assert_allclose(ours.statistic, theirs.statistic, rtol=1e-9)
        np.testing.assert_allclose(ours.p_value, theirs.pvalue, atol=1e-9)
    assert "Mantel-Haenszel" in found.summary()
    json.dumps(found.to_dict())


@pytest.mark.parametrize("city", [0, 5])
@pytest.mark.parametrize("difference", ["newcombe", "wald"])
def test_one_city_against_scipy_and_statsmodels(city: int, difference: str) -> None:
    counts, rows = smoking()
    table = counts[city]
    ours = rows[rows[:, 0] == city]
    parts = [(part[:, 1], part[:, 2]) for part in np.array_split(ours, 3)]
    found = run_one(contingency_table, parts, difference=difference, confidence=0.99)
    plain, yates = stats.chi2_contingency(table, correction=False), stats.chi2_contingency(table)
    np.testing.assert_allclose(found.expected, plain.expected_freq, rtol=1e-12)
    np.testing.assert_allclose([found.chi2.statistic, found.chi2.p_value], plain[:2], rtol=1e-10)
    np.testing.assert_allclose([found.chi2_yates.statistic, found.chi2_yates.p_value], yates[:2], rtol=1e-10)
    np.testing.assert_allclose(found.fisher_p, stats.fisher_exact(table).pvalue, rtol=1e-10)
    np.testing.assert_allclose(found.cramers_v, stats.contingency.association(table), rtol=1e-10)
    reference = Table2x2(table[::-1, ::-1].astype(float), shift_zeros=False)
    np.testing.assert_allclose(
        ends(found.odds_ratio), [reference.oddsratio, *reference.oddsratio_confint(0.01)], rtol=1e-10
    )
    np.testing.assert_allclose(
        ends(found.risk_ratio), [reference.riskratio, *reference.riskratio_confint(0.01)], rtol=1e-10
    )
    exact = stats.contingency.odds_ratio(table)
    np.testing.assert_allclose(
        ends(found.odds_ratio_exact), [exact.statistic, *exact.confidence_interval(0.99)], rtol=1e-9
    )
    (c, d), (a, b) = table[:, ::-1]
    name = {"newcombe": "newcomb", "wald": "wald"}[difference]
    interval = confint_proportions_2indep(a, a + b, c, c + d, method=name, compare="diff", alpha=0.01)
    np.testing.assert_allclose(ends(found.risk_difference), [a / (a + b) - c / (c + d), *interval], rtol=1e-10)


@pytest.mark.parametrize(
    "table",
    [[[5, 3], [2, 9]], [[0, 3], [2, 9]], [[5, 0], [2, 9]], [[5, 0], [0, 9]], [[1, 1], [1, 1]], [[900, 20], [3, 1500]]],
)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_the_exact_odds_ratio_is_that_of_scipy(table: list[list[int]], confidence: float) -> None:
    found = conditional_odds_ratio(np.array(table, dtype=float), confidence)
    reference = stats.contingency.odds_ratio(table)
    expected = [reference.statistic, *reference.confidence_interval(confidence)]
    np.testing.assert_allclose(ends(found), expected, rtol=1e-8)


def test_more_rows_and_columns() -> None:
    from lifelines.datasets import load_lung

    lung = load_lung()[["ph.ecog", "sex"]]
    parts = [(lung["ph.ecog"][k::3], lung["sex"][k::3]) for k in range(3)]
    found = run_one(contingency_table, parts, row_categories=[0, 1, 2, 3], column_categories=[1, 2])
    table = lung.groupby(["ph.ecog", "sex"]).size().unstack(fill_value=0).to_numpy()
    assert found.counts.tolist() == table.tolist()
    reference = stats.chi2_contingency(table)
    np.testing.assert_allclose([found.chi2.statistic, found.chi2.p_value], reference[:2], rtol=1e-10)
    assert found.chi2.df == reference.dof
    assert found.names == ("ph.ecog", "sex")
    assert found.missing == {"ph.ecog": 1, "sex": 0}
    assert np.isnan(found.fisher_p)
    assert np.isnan(found.odds_ratio.value)


def test_an_empty_row_leaves_no_test() -> None:
    found = run_one(contingency_table, [([0, 0], [1, 0]), ([0], [1])], row_categories=[0, 1])
    assert found.counts.tolist() == [[1, 2], [0, 0]]
    assert np.isnan(found.chi2.statistic)
    assert np.isnan(found.odds_ratio.value)
    assert "nan" not in found.summary()


def test_layers_that_say_nothing_are_left_out() -> None:
    full = np.array([[[10.0, 4], [3, 9]], [[7, 2], [5, 6]]])
    more = np.concatenate([full, [[[4, 0], [3, 0]], [[0, 0], [3, 5]], [[0, 0], [0, 0]]]])
    assert stratified(more, 0.95) == stratified(full, 0.95)
    assert pearson(np.array([[1.0, 2], [np.nan, 3]])).df == 0


def test_columns_at_three_parties() -> None:
    _, rows = smoking()
    chosen = rows[:60].copy()
    expected = np.zeros((8, 2, 2))
    np.add.at(expected, tuple(chosen[1:].T), 1)  # the first row is incomplete

    async def program(party: Party, _: Any) -> Any:
        strata = [None if k == 0 else v for k, v in enumerate(chosen[:, 0])] if party.rank == 2 else None
        return await contingency_table(
            party,
            chosen[:, 1] if party.rank == 0 else None,
            chosen[:, 2] if party.rank == 1 else None,
            strata=strata,
            by_strata=True,
            strata_categories=CITIES,
            partition="columns",
        )

    for preprocessing in ("dealer", "prss"):
        found = run(program, [None] * 3, preprocessing)[0]
        assert found.strata_counts.tolist() == expected.tolist()
        assert found.missing == {"strata": 1, "rows": 0, "columns": 0}


def test_small_cells_are_withheld_with_all_that_would_tell_them() -> None:
    counts, rows = smoking()
    rule = Disclosure("test", minimum_cell=40)
    found = run_one(by_city, np.array_split(rows, 3), disclosure=rule, row_categories=[0, 1], column_categories=[0, 1])
    held = np.isnan(found.strata_counts)
    assert held[counts < 40].all()
    assert held.sum() > (counts < 40).sum()
    assert (found.strata_counts[~held] == counts[~held]).all()
    assert found.pooled is not None
    assert np.isnan(found.pooled.odds_ratio.value)
    assert any("not available" in text for text in found.suppressed)


def test_rounded_counts_to_one_party_after_preparing() -> None:
    counts, rows = smoking()
    same: dict[str, Any] = {"row_categories": [0, 1], "column_categories": [0, 1], "to": [0]}
    same["disclosure"] = Disclosure.preset("opensafely")

    async def program(party: Party, part: Any) -> Any:
        await prepare(party, lambda seat: contingency_table(seat, part[:, 1], part[:, 2], **same))
        return await contingency_table(party, part[:, 1], part[:, 2], **same)

    found, *others = run(program, np.array_split(rows, 3), "prss")
    assert others == [None, None]
    pooled = counts.sum(axis=0)
    assert found.counts.tolist() == (5 * ((pooled + 2) // 5)).tolist()
    np.testing.assert_allclose(found.chi2.statistic, stats.chi2_contingency(found.counts, correction=False)[0])
    assert np.isnan(found.fisher_p)
    assert "rounded" in found.suppressed[-1]


def test_costs_are_as_documented() -> None:
    _, rows = smoking()

    async def plain(party: Party, part: Any) -> Any:
        await contingency_table(party, part[:, 1], part[:, 2], row_categories=[0, 1], column_categories=[0, 1])
        return party.costs.rounds, party.costs.elements_opened

    async def layered(party: Party, part: Any) -> Any:
        await by_city(party, part)
        return party.costs.elements_opened

    parts = np.array_split(rows, 3)
    assert run(plain, parts) == [(5, 3 + 3 * 3)] * 3
    assert run(layered, parts) == [4 + 9 * 3 * 3] * 3


def test_what_is_wrong_is_named() -> None:
    good = ([0, 1], [1, 0])
    with pytest.raises(DataError, match=r"party 1: .*2 rows and .*3"):
        run_one(contingency_table, [good, ([0, 1], [1, 0, 1])])
    with pytest.raises(ValueError, match="difference"):
        run_one(contingency_table, [good, good], difference="score")
    with pytest.raises(DataError, match="categories"):
        run_one(contingency_table, [(["a", "b"], [1, 0])] * 3, disclosure=Disclosure("t", minimum_cell=2))

    async def differing(party: Party, data: Any) -> Any:
        return await contingency_table(party, *data, row_categories=[0, 1] if party.rank else [1, 0])

    with pytest.raises(AgreementError, match="row"):
        run(differing, [good, good])
