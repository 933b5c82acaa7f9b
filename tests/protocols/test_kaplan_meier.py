"""Kaplan-Meier curves against lifelines; what is merged, and what is ever opened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import AgreementError, DataError, Party
from mpc.prepare import prepare
from protocols.release.disclosure import Disclosure, DisclosureError
from protocols.survival.kaplan_meier import kaplan_meier
from protocols.survival.survival_results import KaplanMeierResult, SurvivalCurve
from protocols.survival.time_grids import TimeGrid, grid_of
from tests.protocols.helpers import run, run_one
from tests.protocols.survival import COHORTS, Cohort, lung


def curves(cohort: Cohort, grid: Any, preprocessing: str = "prss", group: str | None = None, **options: Any) -> Any:
    async def program(party: Party, frame: Any) -> Any:
        groups = None if group is None else frame[group]
        return await kaplan_meier(party, frame[cohort.time], frame[cohort.event], grid=grid, group=groups, **options)

    return run(program, cohort.parts, preprocessing)[0]


def by_lifelines(curve: SurvivalCurve, time: Any, event: Any) -> None:
    from lifelines import KaplanMeierFitter
    from lifelines.utils import median_survival_times

    fitted = KaplanMeierFitter().fit(time, event)
    table, interval = fitted.event_table.iloc[1:], fitted.confidence_interval_.iloc[1:]
    np.testing.assert_array_equal(curve.time, table.index)
    np.testing.assert_array_equal(curve.at_risk, table.at_risk)
    np.testing.assert_array_equal(curve.events, table.observed)
    np.testing.assert_array_equal(curve.censored, table.censored)
    np.testing.assert_allclose(curve.survival, fitted.survival_function_.iloc[1:, 0], atol=1e-12)
    np.testing.assert_allclose(np.column_stack([curve.lower, curve.upper]), interval, atol=1e-12)
    assert curve.median == fitted.median_survival_time_
    ends = median_survival_times(fitted.confidence_interval_).to_numpy().reshape(-1)
    assert curve.median_interval == tuple(ends)


@pytest.mark.parametrize("name", COHORTS)
def test_the_curve_is_that_of_lifelines(name: str) -> None:
    cohort = COHORTS[name]()
    frame = cohort.frame
    result = curves(cohort, (1, float(frame[cohort.time].max()), 1))
    by_lifelines(result.curve(), frame[cohort.time], frame[cohort.event])
    assert (result.n, result.missing) == (len(frame), {"time": 0, "event": 0})


@pytest.mark.parametrize(
    ("preprocessing", "grid"), [("dealer", (30, 600, 30)), ("prss", [100, 250.5, 600, 1022]), ("ot", [100, 600])]
)
def test_groups_on_a_coarse_grid(preprocessing: str, grid: Any) -> None:
    """Times are rounded up, those beyond the last point censored there; one row has no ph.ecog."""
    cohort = lung()
    result = curves(cohort, grid, preprocessing, "ph.ecog", categories=(0, 1, 2, 3))
    frame = cohort.frame.dropna(subset=["ph.ecog"])
    time, event = grid_of(grid).rounded(frame.time.to_numpy(), frame.status.to_numpy())
    for label in (0, 1, 2, 3):
        rows = (frame["ph.ecog"] == label).to_numpy()
        by_lifelines(result.curve(label), time[rows], event[rows])
    assert result.missing == {"time": 0, "event": 0, "group": 1}
    assert result.names == ("0", "1", "2", "3")


def test_standard_errors_and_other_intervals() -> None:
    from statsmodels.duration.survfunc import SurvfuncRight

    cohort = lung()
    reference = SurvfuncRight(cohort.frame.time, cohort.frame.status)
    plain = curves(cohort, (1, 1022, 1), conf_type="plain", confidence=0.9).curve()
    places = np.searchsorted(plain.time, reference.surv_times)
    np.testing.assert_allclose(plain.std_err[places], reference.surv_prob_se, rtol=1e-10)
    np.testing.assert_allclose(plain.lower, np.maximum(plain.survival - 1.6448536 * plain.std_err, 0), atol=1e-8)
    log = curves(cohort, (1, 1022, 1), conf_type="log").curve()
    width = 1.959963984540054 * log.std_err / log.survival
    np.testing.assert_allclose(log.upper, np.minimum(log.survival * np.exp(width), 1))
    np.testing.assert_allclose(log.lower, log.survival * np.exp(-width))
    assert log.at([0, 5, 4.9, 1022]).tolist() == [1, log.survival[0], 1, log.survival[-1]]


def test_a_step_alone_ends_above_all_times() -> None:
    cohort = lung()
    by_lifelines(curves(cohort, 1).curve(), cohort.frame.time, cohort.frame.status)


def test_columns_of_different_parties() -> None:
    """Times at one party, events at another, groups at a third; each lacks some."""
    frame = lung().frame
    status = frame.status.astype(float).where(frame.index % 17 > 0)

    async def program(party: Party, _: Any) -> Any:
        mine = [(frame.time, None, None), (None, status, None), (None, None, frame["ph.ecog"])][party.rank]
        return await kaplan_meier(
            party, *mine[:2], grid=(10, 1030, 10), group=mine[2], categories=(0, 1, 2, 3), grouped=True,
            partition="columns",
        )  # fmt: skip

    result = run(program, [None] * 3, "dealer")[0]
    kept = frame[status.notna() & frame["ph.ecog"].notna()]
    assert (result.n, result.missing) == (len(kept), {"time": 0, "event": 14, "group": 1})
    for label in (0, 1, 2, 3):
        rows = kept[kept["ph.ecog"] == label]
        by_lifelines(result.curve(label), *grid_of((10, 1030, 10)).rounded(rows.time.to_numpy(), rows.status))


# ---- grids --------------------------------------------------------------------------------------


def test_times_belong_to_the_first_point_that_is_not_before_them() -> None:
    grid = grid_of((0.1, 0.5, 0.1))
    assert len(grid) == 5
    times = [0, 0.1, 0.1000001, 0.3, 0.1 + 0.2, 0.49, 0.5, 0.5001, 7]
    assert grid.places(np.array(times)).tolist() == [0, 0, 1, 2, 2, 4, 4, 5, 5]
    assert grid_of([0, 3, 5]).places(np.array([0.0, 0.5, 3, 3.5, 5])).tolist() == [0, 1, 1, 2, 2]
    assert grid_of(2.5, largest=16).points.tolist() == [2.5, 5, 7.5, 10, 12.5, 15]
    assert grid_of([1, 2, 8]).points.tolist() == [1, 2, 8]  # no step


@given(st.integers(1, 50), st.integers(1, 40))
def test_whole_times_stay_as_they_are(last: int, step: int) -> None:
    grid = grid_of((step, step * last, step)) if last > 1 else grid_of([step])
    times = np.arange(step, step * last + 1, step).astype(float)
    assert grid.rounded(times, np.ones(last))[0].tolist() == times.tolist()


@pytest.mark.parametrize("grid", [[], [3, 2], [-1, 2], [0.0], [1, np.nan], (0, 10_000, 1), [[1, 2]], 0.0, -1, np.inf])
def test_what_is_no_grid(grid: Any) -> None:
    with pytest.raises(ValueError, match="grid"):
        run_one(kaplan_meier, [(np.ones(3), np.ones(3))] * 2, grid=grid)


# ---- disclosure control -------------------------------------------------------------------------


def cut(counts: list[np.ndarray], minimum: int) -> list[int] | None:
    """Cut a grid as :func:`protocols.survival.merging.merged` says, in the clear."""

    def allowed(start: int, stop: int) -> bool:
        return all(one[start:stop].sum() in (0, *range(minimum, 10**4)) for one in counts)

    def parts(start: int, stop: int) -> list[int]:
        for eighths in (4, 2, 6, 1, 3, 5, 7):
            place = start + (stop - start) * eighths // 8
            if start < place < stop and allowed(start, place) and allowed(place, stop):
                return [*parts(start, place), *parts(place, stop)]
        return [stop]

    return parts(0, len(counts[0])) if allowed(0, len(counts[0])) else None


def _counts(cohort: Cohort, label: int, grid: TimeGrid) -> list[np.ndarray]:
    rows = cohort.frame[cohort.frame.sex == label]
    places = grid.places(rows.time.to_numpy())
    return [np.bincount(places[rows.status == event], minlength=len(grid)) for event in (1, 0)]


@pytest.mark.parametrize(("preset", "preprocessing"), [("datashield", "prss"), ("vantage6", "dealer"), ("cms", "prss")])
def test_no_small_count_is_ever_opened(preset: str, preprocessing: str) -> None:
    cohort, rules = lung(), Disclosure.preset(preset)
    grid = grid_of((1, 1022, 1))

    async def program(party: Party, frame: Any) -> Any:
        result = await kaplan_meier(
            party, frame.time, frame.status, grid=(1, 1022, 1), group=frame.sex, categories=(1, 2), disclosure=rules
        )
        return result, party.costs.openings

    result, openings = run(program, cohort.parts, preprocessing)[0]
    for label in (1, 2):
        curve = result.curve(label)
        counts = _counts(cohort, label, grid)
        ends = cut(counts, rules.minimum_cell)
        assert ends is not None
        shown = np.array([[one[a:b].sum() for a, b in zip([0, *ends], ends, strict=False)] for one in counts])
        kept = shown.sum(axis=0) > 0
        np.testing.assert_array_equal([curve.events, curve.censored], shown[:, kept])
        np.testing.assert_array_equal(curve.time, np.array(ends)[kept])
        for column in (curve.events, curve.censored, curve.at_risk):
            assert ((column == 0) | (column >= rules.minimum_cell)).all()
    # What is opened: sizes and the bits of their rules; bits of cuts; counts of intervals.
    others = [one for one in openings if "merge" not in one.step]
    assert all(one.elements <= 4 for one in others[:-1])
    ends_of = [cut(_counts(cohort, label, grid), rules.minimum_cell) for label in (1, 2)]
    assert others[-1].elements == 2 * sum(len(ends or ()) for ends in ends_of)
    assert "intervals are merged" in result.suppressed[0]


def test_a_group_with_few_events_is_withheld() -> None:
    rng = np.random.default_rng(5)
    time, group = rng.integers(1, 40, 90), np.arange(90) % 2
    event = np.where(group == 1, np.arange(90) < 4, rng.random(90) < 0.5).astype(int)
    inputs = [(time[k::3], event[k::3], group[k::3]) for k in range(3)]

    async def program(party: Party, data: Any) -> Any:
        return await kaplan_meier(
            party, data[0], data[1], grid=(1, 40, 1), group=data[2], disclosure=Disclosure.preset("vantage6")
        )

    result = run(program, inputs)[0]
    assert result.curve(1).time.size == 0
    assert np.isnan(result.curve(1).median)
    assert result.curve(0).events.sum() == event[group == 0].sum()
    assert "the curve of 1 is withheld: too few events, or too few censored rows" in result.suppressed
    assert "withheld" in result.summary()


def test_counts_are_rounded() -> None:
    cohort = lung()
    rules = Disclosure("rounded", rounding=5)
    curve = curves(cohort, (1, 1022, 1), disclosure=rules).curve()
    exact = curves(cohort, (1, 1022, 1)).curve()
    for column in (curve.events, curve.censored, curve.at_risk):
        assert not (column % 5).any()
    places = np.searchsorted(exact.time, curve.time)
    upto = np.stack([exact.events.cumsum(), exact.censored.cumsum()])[:, places]
    assert np.abs(np.stack([curve.events.cumsum(), curve.censored.cumsum()]) - upto).max() <= 2
    assert np.abs(curve.survival - exact.survival[places]).max() < 0.05


def test_small_groups_are_refused() -> None:
    with pytest.raises(DisclosureError, match="at least 11 rows for each category of group"):
        curves(lung(), (1, 1022, 1), group="ph.ecog", categories=(0, 1, 2, 3), disclosure=Disclosure.preset("cms"))


def test_those_who_are_not_named_learn_nothing() -> None:
    async def program(party: Party, frame: Any) -> Any:
        result = await kaplan_meier(party, frame.time, frame.status, grid=(50, 1050, 50), to=[1])
        return result, party.costs.openings

    results = run(program, lung().parts)
    assert [isinstance(result, KaplanMeierResult) for result, _ in results] == [False, True, False]
    assert [(one.elements, one.to) for one in results[0][1]] == [(3, None), (2 * 21, (1,))]


# ---- the rest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
@pytest.mark.parametrize("preset", [None, "opensafely"])
def test_it_can_be_prepared(preprocessing: str, preset: str | None) -> None:
    rules = None if preset is None else Disclosure.preset(preset)

    async def program(party: Party, frame: Any) -> Any:
        async def study(seat: Party) -> Any:
            return await kaplan_meier(seat, frame.time, frame.status, grid=(1, 1022, 1), disclosure=rules)

        await prepare(party, study)
        return (await study(party)).curve().events.sum()

    assert run(program, lung().parts, preprocessing)[0] == 165


def test_the_cost_does_not_depend_on_the_rows() -> None:
    async def program(party: Party, rows: Any) -> Any:
        await kaplan_meier(party, np.ones(rows), np.ones(rows), grid=(1, 60, 1))
        return sum(step.elements_opened for step in party.costs.by_step.values()), party.costs.rounds

    few, many = (run(program, [rows, rows])[0] for rows in (3, 3000))
    assert few == many
    assert few[0] == 3 + 2 * 60  # sizes; counts


@pytest.mark.parametrize(
    ("time", "event", "said"),
    [
        ([-1.0, 2, 3], [1, 1, 1], "party 0: 1 of 3 values of time are negative"),
        ([1.0, np.inf, 3], [1, 1, 1], "infinite"),
        ([1.0, 2, 3], [1, 2, 0], "party 0: 1 of 3 values of event are none of its 2 categories"),
        ([1.0, 2], [1, 1, 0], "time has 2 rows and event has 3"),
        (["a", "b", "c"], [1, 1, 0], "time"),
        ([np.nan] * 3, [1, 1, 0], "no row is complete"),
    ],
)
def test_bad_data(time: Any, event: Any, said: str) -> None:
    inputs = [(time, event), (np.array([], float), np.array([], int))]
    with pytest.raises(DataError, match=said):
        run_one(kaplan_meier, inputs, grid=[1, 2, 5])


def test_parties_that_mean_different_grids() -> None:
    async def program(party: Party, grid: Any) -> Any:
        return await kaplan_meier(party, [1.0], [1], grid=grid)

    with pytest.raises(AgreementError, match="grid"):
        run(program, [(1, 500, 1), (1, 500, 2)])
    with pytest.raises(AgreementError, match="grid"):
        run(program, [1, 2])


def test_bad_parameters() -> None:
    inputs = [([1.0], [1])] * 2
    with pytest.raises(ValueError, match="conf_type"):
        run_one(kaplan_meier, inputs, grid=[1, 2], conf_type="logit")
    with pytest.raises(ValueError, match="confidence"):
        run_one(kaplan_meier, inputs, grid=[1, 2], confidence=95)
    with pytest.raises(ValueError, match="at most 255 points"):
        run_one(kaplan_meier, inputs, grid=(1, 300, 1), partition="columns")


def test_the_result_in_words_and_in_json() -> None:
    import json

    result = curves(lung(), (1, 1022, 1), group="sex", categories=(1, 2))
    text = result.summary()
    assert "Kaplan-Meier: 2" in text
    assert "Median: 426.0000 [345.0000, 524.0000]" in text
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["curves"][0]["median"] == 270
    with pytest.raises(KeyError):
        result.curve(3)
