"""Correlations and covariances against numpy and SciPy; what is opened; columns that do not vary."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mpc import AgreementError, DataError, Party, open_, prepare
from mpc.normalise import normalise
from mpc.series import evaluate, inverse_root_series
from protocols.comparisons.correlations import correlation, correlation_intervals, covariance, normalised
from protocols.release.disclosure import Disclosure, DisclosureError
from tests.protocols.helpers import diabetes, run, run_one
from tests.protocols.promises import at_rank, watched

WORLDS = [("dealer", 2), ("dealer", 3), ("prss", 3), ("ot", 2)]
PARTITIONS = ["rows", "columns"]
# Age, body mass index, blood pressure, total and LDL cholesterol, glucose.
COLUMNS = [0, 2, 3, 4, 5, 9]


def data(*, missing: bool = False) -> Any:
    X = diabetes().X[:, COLUMNS].copy()
    if missing:
        X[::9, 1] = np.nan
        X[4::50, 5] = np.nan
    return X


def split(partition: str, parties: int, X: Any) -> list[Any]:
    if partition == "rows":
        cuts = np.sort(np.random.default_rng(parties).choice(np.arange(1, len(X)), parties - 1, replace=False))
        return np.split(X, cuts)
    return [X[:, :2], *[None] * (parties - 2), X[:, 2:]]


def all_of(program: Any, parts: list[Any], preprocessing: str = "prss") -> Any:
    results = run(program, parts, preprocessing)
    for result in results[1:]:
        assert str(result.to_dict()) == str(results[0].to_dict())
    return results[0]


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
def test_covariances_as_numpy(preprocessing: str, parties: int, partition: str) -> None:
    X = data(missing=True)

    async def program(party: Party, own: Any) -> Any:
        return await covariance(party, own, partition=partition, bound=512)

    found = all_of(program, split(partition, parties, X), preprocessing)
    kept = X[~np.isnan(X).any(axis=1)]
    np.testing.assert_allclose(found.covariance, np.cov(kept.T), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.covariance, found.covariance.T)
    assert found.n == len(kept)
    assert found.missing == {"X": len(X) - len(kept)}


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize(("preprocessing", "parties"), WORLDS)
def test_pearson_as_scipy(preprocessing: str, parties: int, partition: str) -> None:
    X = data(missing=True)

    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own, partition=partition, bound=512, confidence=0.9)

    with watched() as promises:
        found = all_of(at_rank(program), split(partition, parties, X), preprocessing)
    assert promises.check(parties) > 5
    kept = X[~np.isnan(X).any(axis=1)]
    for i in range(6):
        for j in range(i):
            expected = stats.pearsonr(kept[:, i], kept[:, j])
            assert found.correlation[i, j] == found.correlation[j, i] == pytest.approx(expected.statistic, abs=1e-7)
            assert found.p_value[i, j] == pytest.approx(expected.pvalue, abs=1e-7)
            interval = expected.confidence_interval(0.9)
            assert found.conf_int[i, j] == pytest.approx([interval.low, interval.high], abs=1e-7)
    assert np.diag(found.correlation).tolist() == [1.0] * 6
    assert np.diag(found.p_value).tolist() == [0.0] * 6


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3), ("prss", 5)])
def test_spearman_with_ties_as_scipy(preprocessing: str, parties: int, partition: str) -> None:
    X = data(missing=True)[:150]

    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own, kind="spearman", partition=partition, bound=512, resolution=0.05)

    with watched() as promises:
        found = all_of(at_rank(program), split(partition, parties, X), preprocessing)
    assert promises.check(parties) > 10
    kept = np.rint(X[~np.isnan(X).any(axis=1)] / 0.05)
    expected = stats.spearmanr(kept)
    np.testing.assert_allclose(found.correlation, expected.statistic, atol=1e-8)
    np.testing.assert_allclose(found.p_value, expected.pvalue, atol=1e-7)


def test_ranks_of_values_that_differ_in_the_last_digits_and_of_two_values() -> None:
    x = np.array([1e-9, 2e-9, 3e-9, -1.0, 1.0, 0.0, 0.5])
    y = np.array([0.0, 1, 0, 1, 1, 0, 0])

    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own, kind="spearman", bound=1)

    found = all_of(program, split("rows", 3, np.stack([x, y], axis=1)))
    assert found.correlation[0, 1] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-9)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_columns_that_do_not_vary_have_no_correlation_and_tell_nothing_of_others(kind: str, partition: str) -> None:
    X = data()[:40]
    X[:, 3] = 512.0
    X[:, 4] = -X[:, 0] / 4

    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own, kind=kind, partition=partition, bound=512)

    found = all_of(program, split(partition, 3, X))
    assert np.isnan(found.correlation[3]).all()
    assert np.isnan(found.p_value[3]).all()
    assert np.isnan(found.correlation[:, 3]).all()
    assert found.correlation[0, 4] == pytest.approx(-1.0, abs=1e-8)
    assert found.p_value[0, 4] < 1e-6
    (note,) = found.suppressed
    assert note.startswith(found.names[3])
    others = np.delete(np.arange(6), 3)
    reference = np.corrcoef(X[:, others].T) if kind == "pearson" else stats.spearmanr(X[:, others]).statistic
    np.testing.assert_allclose(found.correlation[np.ix_(others, others)], reference, atol=1e-7)


def test_columns_without_names_are_numbered_over_all_parties() -> None:
    rng = np.random.default_rng(3)

    async def program(party: Party, own: Any) -> Any:
        options: dict[str, Any] = {"partition": "columns", "bound": 4}
        both = [await correlation(party, own, **options), await covariance(party, own, **options)]
        return [one.names for one in both if one is not None]

    parts = [rng.uniform(size=(20, 2)), None, rng.uniform(size=(20, 1))]
    assert run(program, parts)[0] == [("X1", "X2", "X3")] * 2


@pytest.mark.parametrize(("partition", "looseness"), [("rows", 14), ("columns", 12)])
def test_a_loose_bound_costs_no_digits(partition: str, looseness: int) -> None:
    rng = np.random.default_rng(8)
    X = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 3))
    bound = float(X.std(axis=0).min()) * 2.0**looseness

    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own, partition=partition, bound=bound)

    with watched() as promises:
        found = all_of(at_rank(program), split(partition, 3, X))
    promises.check(3)
    np.testing.assert_allclose(found.correlation, np.corrcoef(X.T), atol=2e-6)


def test_names_come_from_frames_and_parties_in_order() -> None:
    X = data()[:30]
    frame = pd.DataFrame(X, columns=["age", "bmi", "bp", "tc", "ldl", "glu"])

    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own, partition="columns"), await covariance(party, own, partition="columns")

    one, two = run(program, [frame[["age", "bmi"]], frame[["bp"]], frame[["tc", "ldl", "glu"]]])[0]
    assert one.names == two.names == ("age", "bmi", "bp", "tc", "ldl", "glu")
    assert "Pearson correlation" in str(one)
    assert "age ~ bmi" in str(one)
    assert "Covariance" in str(two)
    np.testing.assert_allclose(one.correlation, np.corrcoef(X.T), atol=1e-7)


# ---- what is opened -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_nothing_is_opened_but_sizes_coefficients_and_which_columns_vary(kind: str) -> None:
    X = data()[:40]

    async def program(party: Party, own: Any) -> Any:
        result = await correlation(party, own, kind=kind, bound=512, to=[2])
        return result, [(one.elements, one.to) for one in party.costs.openings]

    results = run(program, split("rows", 3, X), "prss")
    assert [result is None for result, _ in results] == [True, True, False]
    for _, openings in results:
        assert openings == [(2, None), (15 + 6, (2,))]


def test_a_covariance_opens_a_triangle() -> None:
    async def program(party: Party, own: Any) -> Any:
        result = await covariance(party, own, bound=512, to=[1])
        return result, [(one.elements, one.to) for one in party.costs.openings]

    results = run(program, split("rows", 3, data()))
    assert [result is None for result, _ in results] == [True, False, True]
    assert results[0][1] == [(2, None), (21, (1,))]


def test_the_cost_of_normalising_is_that_of_the_docstring() -> None:
    C = np.cov(data().T) / 2.0**16

    async def program(party: Party, values: Any) -> Any:
        shared = await party.share(values, bound=1.0, owner=0, scale=68, shape=(6, 6))
        marks = [party.costs.total]
        found, varies = await normalised(party, shared, low=32, top=69)
        marks.append(party.costs.total)
        diagonal = shared.reshape(36)[::7]
        octaves = await normalise(
            party.at("a"), diagonal, low=32, top=69, width=2, weights=[[1 << k for k in range(19)]]
        )
        await evaluate(party.at("b"), octaves.t, inverse_root_series(), to=37, where=octaves.inside)
        marks.append(party.costs.total)
        rounds = [mark.rounds for mark in marks]
        elements = [mark.elements_opened for mark in marks]
        return await open_(party, found, varies), np.diff(rounds), np.diff(elements)

    (found, varies), rounds, elements = run(program, [C, None, None], "dealer")[0]
    np.testing.assert_allclose(found, np.corrcoef(data().T)[np.triu_indices(6, 1)], atol=2.0**-32)
    assert varies.tolist() == [1] * 6
    assert (rounds[0] - rounds[1], elements[0] - elements[1]) == (3, 5 * 15)


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_they_can_be_prepared(kind: str, partition: str) -> None:
    X = data(missing=True)[:40]

    async def work(party: Party, own: Any) -> Any:
        return await correlation(party, own, kind=kind, partition=partition, bound=512)

    async def program(party: Party, own: Any) -> Any:
        await prepare(party, work, own)
        return await work(party, own)

    for preprocessing, parties in (("dealer", 2), ("prss", 3)):
        found = all_of(program, split(partition, parties, X), preprocessing)
        kept = X[~np.isnan(X).any(axis=1)]
        expected = np.corrcoef(kept.T) if kind == "pearson" else stats.spearmanr(kept).statistic
        np.testing.assert_allclose(found.correlation, expected, atol=1e-7)


def test_a_rare_value_of_a_column_of_0_and_1_is_refused() -> None:
    X = data()[:60, :2]
    X[:, 1] = np.arange(60) < 4

    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own, disclosure=Disclosure("cells", minimum_cell=5))

    with pytest.raises(DisclosureError, match="0 and 1"):
        run(program, split("rows", 3, X))


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"kind": "kendall"}, "kind is one of"), ({"confidence": 0}, "confidence"), ({"resolution": 1}, "for ranks")],
)
def test_arguments_that_make_no_sense(arguments: Any, text: str) -> None:
    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own, **arguments)

    with pytest.raises(ValueError, match=text):
        run(program, split("rows", 2, data()))


def test_too_few_rows_and_columns() -> None:
    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own)

    with pytest.raises(DataError, match="2 rows are too few"):
        run(program, [np.ones((1, 2)), np.ones((1, 2))])
    with pytest.raises(DataError, match="two columns"):
        run(program, [np.ones((2, 1)), np.ones((2, 1))])

    async def other(party: Party, own: Any) -> Any:
        return await covariance(party, own)

    with pytest.raises(DataError, match="1 rows are too few"):
        run(other, [np.ones((1, 2)), np.ones((0, 2))])


def test_different_kinds_and_names_do_not_meet() -> None:
    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own, kind=["pearson", "spearman"][party.rank])

    with pytest.raises(AgreementError, match="says kind ="):
        run(program, split("rows", 2, data()))

    async def named(party: Party, own: Any) -> Any:
        return await covariance(party, pd.DataFrame(own, columns=list("abcdef")[:: 1 - 2 * party.rank]))

    with pytest.raises(AgreementError, match="says X ="):
        run(named, split("rows", 2, data()))


def test_too_few_complete_rows_of_many() -> None:
    X = np.full((13000, 2), np.nan)
    X[:2] = [[1, 2], [3, 1]]
    X[2] = 7, 9

    async def program(party: Party, own: Any) -> Any:
        return await correlation(party, own[:, party.rank : party.rank + 1], partition="columns")

    with pytest.raises(DataError, match="3 of 13000 rows are complete"):
        run(program, [X, X])


def test_spearman_intervals_are_those_of_bonett_and_wright() -> None:
    low, high = correlation_intervals(np.array([0.5]), 28, "spearman", 0.95)[0]
    half = 1.959963984540054 * math.sqrt((1 + 0.125) / 25)
    assert (low, high) == pytest.approx((math.tanh(math.atanh(0.5) - half), math.tanh(math.atanh(0.5) + half)))
    assert np.isnan(correlation_intervals(np.array([0.5]), 3, "pearson", 0.95)).all()


@pytest.mark.parametrize("analysis", [covariance, correlation])
@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_a_rare_combination_of_two_columns_is_not_told(analysis: Any, partition: str) -> None:
    """Each value of each column is frequent; only together they are rare."""
    X = np.zeros((60, 2))
    X[:30, 0] = X[29:50, 1] = 1
    few = Disclosure("few", minimum_cell=5)
    parts = [X[:20], X[20:]] if partition == "rows" else [X[:, :1], X[:, 1:]]
    with pytest.raises(DisclosureError, match="each combination of values of two columns"):
        run_one(analysis, parts, "dealer", partition=partition, disclosure=few)
    X[25:35, 1] = 1
    parts = [X[:20], X[20:]] if partition == "rows" else [X[:, :1], X[:, 1:]]
    assert run_one(analysis, parts, "dealer", partition=partition, disclosure=few).n == 60
