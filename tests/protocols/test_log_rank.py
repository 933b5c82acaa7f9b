"""The log-rank test against lifelines and statsmodels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mpc import DataError, Party
from mpc.prepare import prepare
from protocols.release.disclosure import Disclosure, DisclosureError
from protocols.survival.log_rank import WEIGHTS, log_rank
from protocols.survival.survival_results import LogRankResult
from protocols.survival.time_grids import grid_of
from tests.protocols.helpers import run, run_one
from tests.protocols.promises import at_rank, watched
from tests.protocols.survival import COHORTS, Cohort, lung

GROUPS = {"lung": "sex", "rossi": "race", "gbsg2": "horTh", "whas500": "gender", "veteran": "Treatment=test"}


def compared(cohort: Cohort, group: str, grid: Any, preprocessing: str = "prss", **options: Any) -> Any:
    async def program(party: Party, frame: Any) -> Any:
        return await log_rank(party, frame[cohort.time], frame[cohort.event], frame[group], grid=grid, **options)

    return run(program, cohort.parts, preprocessing)[0]


def by_lifelines(time: Any, group: Any, event: Any, weights: str | None = None) -> Any:
    from lifelines.statistics import multivariate_logrank_test

    powers = {"p": 1, "q": 0} if weights == "fleming-harrington" else {}
    return multivariate_logrank_test(time, group, event, weightings=weights, **powers)


@pytest.mark.parametrize("name", COHORTS)
def test_two_groups(name: str) -> None:
    cohort = COHORTS[name]()
    group = next(one for one in cohort.frame if one.startswith(GROUPS[name][:9]))
    frame = cohort.frame
    result = compared(cohort, group, (1, float(frame[cohort.time].max()), 1))
    reference = by_lifelines(frame[cohort.time], frame[group], frame[cohort.event])
    assert result.statistic == pytest.approx(reference.test_statistic, rel=1e-6)
    assert result.p_value == pytest.approx(reference.p_value, abs=1e-8)
    assert result.df == 1
    for k, label in enumerate(result.groups):
        rows = frame[group] == label
        assert result.observed[k] == frame[cohort.event][rows].sum()
        assert result.sizes[k] == rows.sum()
    assert result.expected.sum() == pytest.approx(result.observed.sum(), abs=1e-5)


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
@pytest.mark.parametrize("weights", [None, *WEIGHTS])
def test_four_groups_and_weights(weights: str | None, preprocessing: str) -> None:
    """One of the groups is a single row; one row has none."""
    cohort = lung()
    frame = cohort.frame.dropna(subset=["ph.ecog"])
    result = compared(cohort, "ph.ecog", (1, 1022, 1), preprocessing, categories=(0, 1, 2, 3), weights=weights)
    reference = by_lifelines(frame.time, frame["ph.ecog"], frame.status, weights)
    assert result.statistic == pytest.approx(reference.test_statistic, rel=1e-6)
    assert (result.df, result.n, result.missing["group"]) == (3, 227, 1)


def test_expected_events_and_covariance() -> None:
    """By hand, in the clear, with Wilcoxon's weights."""
    cohort = lung()
    result = compared(cohort, "sex", (1, 1022, 1), weights="wilcoxon")
    time, event, first = (np.asarray(one) for one in (cohort.frame.time, cohort.frame.status, cohort.frame.sex == 1))
    expected = difference = variance = 0.0
    for t in np.unique(time[event == 1]):
        n, d, n1 = (time >= t).sum(), (event[time == t]).sum(), (first & (time >= t)).sum()
        d1 = event[first & (time == t)].sum()
        expected += d * n1 / n
        difference += n * (d1 - d * n1 / n)
        variance += n**2 * d * (n1 / n) * (1 - n1 / n) * (n - d) / max(n - 1, 1)
    assert result.expected[0] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(result.difference, [difference, -difference], rtol=1e-6)
    np.testing.assert_allclose(result.covariance, variance * np.array([[1, -1], [-1, 1]]), rtol=1e-6)


@pytest.mark.parametrize("weights", [None, "wilcoxon"])
def test_strata(weights: str | None) -> None:
    from statsmodels.duration.survfunc import survdiff

    cohort = lung()
    frame = cohort.frame.dropna(subset=["ph.ecog"])

    async def program(party: Party, part: Any) -> Any:
        return await log_rank(
            party, part.time, part.status, part.sex, grid=(5, 1025, 5), strata=part["ph.ecog"],
            strata_categories=(0, 1, 2, 3), weights=weights,
        )  # fmt: skip

    result = run(program, cohort.parts)[0]
    time, event = grid_of((5, 1025, 5)).rounded(frame.time.to_numpy(), frame.status.to_numpy())
    kinds = {"weight_type": "gb"} if weights else {}
    statistic, p = survdiff(time, event, frame.sex.to_numpy(), strata=frame["ph.ecog"].to_numpy(), **kinds)
    assert result.statistic == pytest.approx(statistic, rel=1e-6)
    assert result.p_value == pytest.approx(p, abs=1e-8)
    assert "stratified" in result.summary()


def test_columns_of_different_parties() -> None:
    frame = lung().frame

    async def program(party: Party, _: Any) -> Any:
        mine = [(frame.time, frame.status, None), (None, None, frame["ph.ecog"])][party.rank]
        return await log_rank(party, *mine, grid=(10, 1030, 10), categories=(0, 1, 2, 3), partition="columns")

    result = run(program, [None] * 2, "dealer")[0]
    kept = frame.dropna(subset=["ph.ecog"])
    time, event = grid_of((10, 1030, 10)).rounded(kept.time.to_numpy(), kept.status.to_numpy())
    assert result.statistic == pytest.approx(by_lifelines(time, kept["ph.ecog"], event).test_statistic, rel=1e-6)


@pytest.mark.parametrize(
    ("parties", "preprocessing"), [(2, "dealer"), (5, "dealer"), (5, "prss"), (7, "prss"), (2, "ot")]
)
def test_any_number_of_parties(parties: int, preprocessing: str) -> None:
    frame = lung().frame
    parts = [frame[np.arange(228) % parties == k] for k in range(parties)]

    async def program(party: Party, part: Any) -> Any:
        return await log_rank(party, part.time, part.status, part.sex, grid=(50, 1050, 50), categories=(1, 2))

    time, event = grid_of((50, 1050, 50)).rounded(frame.time.to_numpy(), frame.status.to_numpy())
    reference = by_lifelines(time, frame.sex, event).test_statistic
    assert run(program, parts, preprocessing)[0].statistic == pytest.approx(reference, rel=1e-6)


def test_groups_without_rows_or_difference() -> None:
    """Nobody is in group 2; the others are the same."""
    time, event = np.tile([3, 4, 4, 7, 9, 9], 4), np.tile([1, 1, 0, 1, 0, 1], 4)
    group = np.repeat([0, 1, 0, 1], 6)
    inputs = [(time[k::2], event[k::2], group[k::2]) for k in range(2)]
    result = run_one(log_rank, inputs, grid=(1, 10, 1), categories=(0, 1, 2))
    assert result.df == 1
    assert result.statistic == pytest.approx(0, abs=1e-9)
    assert result.expected[2] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("weights", [None, *WEIGHTS])
def test_all_promised_bounds_hold(weights: str | None) -> None:
    """Many ties, all at one time, a group of one row."""
    time, event = np.array([1] * 40 + [2, 3]), np.ones(42, int)
    group = (np.arange(42) == 41).astype(int)

    async def program(party: Party, part: Any) -> Any:
        return await log_rank(party, *part, grid=[1, 2, 3, 4], weights=weights)

    inputs = [(time[k::3], event[k::3], group[k::3]) for k in range(3)]
    with watched() as promises:
        result = run(at_rank(program), inputs, "prss")[0]
    assert promises.check(3) > 10
    assert result.statistic == pytest.approx(by_lifelines(time, group, event, weights).test_statistic, rel=1e-6)


# ---- who learns what ----------------------------------------------------------------------------


def test_small_cells_are_refused() -> None:
    rules = Disclosure.preset("vantage6")
    with pytest.raises(DisclosureError, match="at least 5 rows for each category of group"):
        compared(lung(), "ph.ecog", (1, 1022, 1), categories=(0, 1, 2, 3), disclosure=rules)
    time, group = np.arange(60) % 13 + 1, np.arange(60) % 2
    event = np.where(group == 1, np.arange(60) < 8, np.arange(60) % 3 > 0).astype(int)  # 4 events in group 1
    inputs = [(time[k::3], event[k::3], group[k::3]) for k in range(3)]
    with pytest.raises(DisclosureError, match="at least 5 events and as many censored rows in each group"):
        run_one(log_rank, inputs, grid=(1, 13, 1), disclosure=rules)
    assert run_one(log_rank, inputs, grid=(1, 13, 1)).observed[1] == 4


def test_small_strata_are_refused() -> None:
    """A stratum of 3 rows of either group with 3 events."""
    rng = np.random.default_rng(1)
    strata = (np.arange(120) < 6).astype(int)
    group, event = np.arange(120) % 2, rng.integers(0, 2, 120)
    event[:6] = [1, 1, 1, 0, 0, 0]
    time = rng.integers(1, 13, 120)

    async def program(party: Party, rows: Any) -> Any:
        options: dict[str, Any] = {"strata": strata[rows], "strata_categories": (0, 1), "categories": (0, 1)}
        rules = Disclosure.preset("opensafely")
        return await log_rank(party, time[rows], event[rows], group[rows], grid=(1, 13, 1), disclosure=rules, **options)

    with pytest.raises(DisclosureError, match="in each stratum, and as many rows of each group in each stratum"):
        run(program, [slice(k, None, 3) for k in range(3)])
    strata[:] = np.arange(120) // 2 % 2
    assert run(program, [slice(k, None, 3) for k in range(3)])[0].n == 120


def test_events_are_rounded() -> None:
    exact = compared(lung(), "sex", (1, 1022, 1), categories=(1, 2))
    result = compared(lung(), "sex", (1, 1022, 1), categories=(1, 2), disclosure=Disclosure.preset("opensafely"))
    assert result.observed.tolist() == [110, 55]
    # Differences, too, are told in steps: 2 n / m = 57 to an octave.
    assert result.statistic == pytest.approx(exact.statistic, rel=3 / 114)
    apart = exact.observed - exact.expected
    np.testing.assert_allclose(result.observed - result.expected, apart, rtol=1 / 114)
    assert np.abs((result.observed - result.expected) / apart - 1).min() > 1e-6
    assert result.suppressed[0] == "events are rounded to multiples of 5"
    assert "one part in 114" in result.suppressed[1]


def test_what_is_opened() -> None:
    async def program(party: Party, part: Any) -> Any:
        result = await log_rank(party, part.time, part.status, part.sex, grid=(1, 1022, 1), categories=(1, 2), to=[2])
        return result, party.costs.openings

    results = run(program, lung().parts)
    assert [isinstance(result, LogRankResult) for result, _ in results] == [False, False, True]
    openings = results[2][1]
    assert [one.elements for one in openings] == [4, 2, 2 + 2 + 2 + 4]  # sizes, groups; the result
    assert [one.to for one in openings] == [None, None, (2,)]


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_it_can_be_prepared(preprocessing: str) -> None:
    async def program(party: Party, part: Any) -> Any:
        async def study(seat: Party) -> Any:
            return await log_rank(seat, part.time, part.status, part.sex, grid=(9, 1026, 9), weights="tarone-ware")

        await prepare(party, study)
        return (await study(party)).statistic

    assert run(program, lung().parts, preprocessing)[0] > 9


def test_the_cost_does_not_depend_on_the_rows() -> None:
    async def program(party: Party, rows: Any) -> Any:
        data = np.arange(rows)
        await log_rank(party, data % 50, data % 3 > 0, data % 2, grid=(1, 60, 1))
        return sum(step.elements_opened for step in party.costs.by_step.values()), party.costs.rounds

    few, many = (run(program, [rows, rows])[0] for rows in (130, 250))
    assert few == many
    assert few[0] == pytest.approx(60 * (45 + 4 * 2), rel=0.1)
    assert few[1] == pytest.approx(45, abs=3)


@pytest.mark.parametrize(("preprocessing", "colluders", "times"), [("dealer", 0, 1), ("prss", 2, 2)])
def test_the_cost_of_five_parties(preprocessing: str, colluders: int, times: int) -> None:
    async def program(party: Party, rows: Any) -> Any:
        data = np.arange(rows)
        await log_rank(party, data % 50, data % 3 > 0, data % 2, grid=(1, 60, 1))
        return sum(step.elements_opened for step in party.costs.by_step.values()), party.costs.rounds

    elements, rounds = run(program, [60] * 5, preprocessing)[0]
    about = 60 * (45 + 4 * 2)
    assert 0.9 * times <= elements / about <= 1.1 * times + 0.3 * colluders
    assert rounds == pytest.approx(45 + 4 * colluders, abs=3)


def test_without_events_there_is_no_difference() -> None:
    data = np.arange(40)
    result = run_one(log_rank, [(data % 9 + 1.0, 0 * data, data % 2)] * 2, grid=(1, 9, 1))
    assert (result.statistic, result.p_value, result.df) == (0.0, 1.0, 1)
    assert not result.difference.any()
    assert not result.covariance.any()
    assert not result.expected.any()


@pytest.mark.parametrize(
    ("parts", "options", "said"),
    [
        ([([1.0], [1], [0])] * 2, {}, "1 of 2 groups have rows"),
        ([([1.0, -2], [1, 0], [0, 1])] * 2, {}, "negative"),
        ([([1.0, 2], [1, 0], [0, 1, 1])] * 2, {}, "rows"),
        ([([1.0, 2, 3], [1, 0], [0, 1, 1])] * 2, {}, "time has 3 rows and event has 2"),
        ([([1.0, 2], [1, 0], [0, 5])] * 2, {"categories": (0, 1)}, "none of its 2 categories"),
    ],
)
def test_bad_data(parts: Any, options: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        run_one(log_rank, parts, grid=[1, 2, 5], **options)


def test_unknown_weights() -> None:
    with pytest.raises(ValueError, match="wilcoxon"):
        run_one(log_rank, [([1.0], [1], [0])] * 2, grid=[1, 2], weights="gehan")


def test_the_result_in_words_and_in_json() -> None:
    import json

    result = compared(lung(), "sex", (1, 1022, 1), categories=(1, 2))
    assert "chi2 = 10.3267, df = 1, p = 0.0013" in result.summary()
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["observed"] == [112, 53]
