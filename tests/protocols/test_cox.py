"""Cox regression against lifelines and statsmodels; what it opens, costs, and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpc import AgreementError, DataError, Party
from mpc.prepare import prepare
from protocols.regression.results import ConvergenceWarning
from protocols.release.disclosure import Disclosure, DisclosureError
from protocols.survival.cox import cox_regression
from protocols.survival.survival_results import CoxResult
from protocols.survival.time_grids import grid_of
from tests.protocols.helpers import run, run_one
from tests.protocols.promises import at_rank, watched
from tests.protocols.survival import COHORTS, Cohort, lung, rossi, veteran


def fitted(cohort: Cohort, preprocessing: str = "prss", columns: Any = None, strata: Any = None, **options: Any) -> Any:
    options = {"steps": 6, **options}

    async def program(party: Party, frame: Any) -> Any:
        blocks = None if strata is None else frame[strata]
        wanted = columns or cohort.columns
        return await cox_regression(
            party, frame[cohort.time], frame[cohort.event], frame[wanted], strata=blocks, **options
        )

    return run(program, cohort.parts, preprocessing)[0]


def by_lifelines(frame: pd.DataFrame, cohort: Cohort, **options: Any) -> Any:
    from lifelines import CoxPHFitter

    penalty = options.pop("penalizer", 0.0)
    return CoxPHFitter(penalizer=penalty).fit(
        frame, cohort.time, cohort.event, fit_options={"precision": 1e-11}, **options
    )


def assert_same(result: Any, coef: Any, std_err: Any) -> None:
    """Six digits: coefficients in standard errors, which are right to 1e-6 themselves."""
    assert np.abs((result.coef - coef) / std_err).max() < 1e-6
    np.testing.assert_allclose(result.std_err, std_err, rtol=1e-6)
    assert result.converged


# The other two are held against it, and against statsmodels, below.
@pytest.mark.parametrize("name", sorted(set(COHORTS) - {"rossi", "veteran"}))
def test_efron_is_that_of_lifelines(name: str) -> None:
    cohort = COHORTS[name]()
    result, reference = fitted(cohort, steps=7), by_lifelines(cohort.complete, cohort)
    assert_same(result, reference.params_, reference.standard_errors_)
    assert result.log_likelihood == pytest.approx(reference.log_likelihood_, abs=1e-5)
    test = reference.log_likelihood_ratio_test()
    assert result.likelihood_ratio[0] == pytest.approx(test.test_statistic, abs=2e-5)
    assert result.likelihood_ratio[1] == test.degrees_freedom
    np.testing.assert_allclose(result.p_value, reference.summary["p"], atol=1e-6)
    np.testing.assert_allclose(result.conf_int[:, 0], reference.summary["coef lower 95%"], rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(result.hazard_ratio, reference.hazard_ratios_, rtol=1e-6)
    assert result.aic == pytest.approx(reference.AIC_partial_, abs=1e-4)
    assert result.missing == {"time": 0, "event": 0, **cohort.frame[cohort.columns].isna().sum().to_dict()}
    assert (result.n, result.events) == (len(cohort.complete), int(cohort.complete[cohort.event].sum()))


@pytest.mark.parametrize("name", ["rossi"])
def test_breslow_is_that_of_statsmodels(name: str) -> None:
    from statsmodels.duration.hazard_regression import PHReg

    cohort = COHORTS[name]()
    frame = cohort.complete
    X = frame[cohort.columns]
    spread = X.std()
    model = PHReg(frame[cohort.time], (X - X.mean()) / spread, status=frame[cohort.event], ties="breslow")
    reference = model.fit(disp=0, method="newton", tol=1e-12)
    result = fitted(cohort, "dealer", ties="breslow")
    assert_same(result, reference.params / spread, reference.bse / spread)
    assert result.log_likelihood == pytest.approx(reference.llf, abs=1e-5)
    assert result.ties == "breslow"


def test_categories_become_indicators() -> None:
    """German Breast Cancer Study Group: texts, and a missing value in each of two columns."""
    cohort = COHORTS["gbsg2"]()
    frame = cohort.frame.assign(tgrade=cohort.frame.tgrade.where(cohort.frame.index != 3))
    frame.loc[5, "age"] = np.nan
    result = fitted(cohort._replace(frame=frame), "dealer", columns=["age", "tgrade"])
    kept = frame.dropna(subset=["age", "tgrade"])[["time", "cens", "age", "II", "III"]]
    reference = by_lifelines(kept.astype(float), cohort)
    # lifelines stops 1.7e-6 standard errors before the optimum.
    assert np.abs((result.coef - reference.params_) / reference.standard_errors_).max() < 3e-6
    assert result.names == ("age", "tgrade[T.II]", "tgrade[T.III]")
    assert result.missing == {"time": 0, "event": 0, "age": 1, "tgrade": 1}


def test_strata_have_hazards_of_their_own() -> None:
    cohort = rossi()
    others = ["age", "prio"]
    result = fitted(cohort, columns=others, strata="wexp", strata_categories=(0, 1), steps=5)
    reference = by_lifelines(cohort.complete[["week", "arrest", "wexp", *others]], cohort, strata=["wexp"])
    assert_same(result, reference.params_, reference.standard_errors_)
    assert result.log_likelihood == pytest.approx(reference.log_likelihood_, abs=1e-5)
    assert result.strata == (0, 1)


def test_a_grid_rounds_times_up() -> None:
    cohort, grid = lung(), (30, 900, 30)
    frame = cohort.frame[["time", "status", "age", "sex"]].astype(float)
    frame["time"], frame["status"] = grid_of(grid).rounded(frame.time.to_numpy(), frame.status.to_numpy())
    reference = by_lifelines(frame, cohort)
    assert_same(
        fitted(cohort, "dealer", ["age", "sex"], grid=grid, steps=5), reference.params_, reference.standard_errors_
    )


def test_the_concordance_is_that_of_lifelines() -> None:
    """Many rows have the same predictor."""
    cohort = rossi()
    part = cohort._replace(frame=cohort.frame[::2], part=cohort.part[::2])
    result = fitted(part, "dealer", columns=["fin", "mar", "prio"], strata="wexp", concordance=True, steps=5)
    frame = part.frame[["week", "arrest", "fin", "mar", "prio", "wexp"]]
    reference = by_lifelines(frame.astype(float), part, strata=["wexp"])
    assert result.concordance == pytest.approx(reference.concordance_index_, abs=1e-6)
    assert "Concordance: 0." in result.summary()


def test_times_need_not_be_whole() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(80, 2))
    time, event = rng.exponential(np.exp(X[:, 0])) / 7, rng.random(80) < 0.7
    inputs = [(time[k::2], event[k::2], X[k::2]) for k in range(2)]
    result = run_one(cox_regression, inputs, bound=8, steps=6)
    frame = pd.DataFrame({"time": time, "status": event, "a": X[:, 0], "b": X[:, 1]})
    reference = by_lifelines(frame, lung())
    assert_same(result, reference.params_, reference.standard_errors_)


def test_a_penalty() -> None:
    """lifelines standardises with divisor n - 1, we with n."""
    cohort = lung()
    n = len(cohort.complete)
    reference = by_lifelines(cohort.complete, cohort, penalizer=0.1)
    assert_same(fitted(cohort, l2=0.1 * n * n / (n - 1)), reference.params_, reference.standard_errors_)


def test_columns_of_different_parties() -> None:
    """Rows in which anything is missing are left out, and nobody learns which."""
    cohort = lung()
    frame = cohort.frame

    async def program(party: Party, names: Any) -> Any:
        time, event = (frame.time, None) if party.rank == 0 else (None, frame.status if party.rank == 1 else None)
        return await cox_regression(party, time, event, frame[names], partition="columns", steps=6)

    split = [cohort.columns[:3], cohort.columns[3:5], cohort.columns[5:]]
    result = run(program, split)[0]
    reference = by_lifelines(cohort.complete, cohort)
    assert_same(result, reference.params_, reference.standard_errors_)
    assert result.names == tuple(cohort.columns)
    assert (result.n, result.missing["X"]) == (168, 60)


@pytest.mark.parametrize(("parties", "preprocessing"), [(2, "dealer"), (3, "prss"), (2, "ot")])
def test_any_number_of_parties(parties: int, preprocessing: str) -> None:
    cohort = veteran()._replace(part=np.arange(137) % parties)
    columns = [name for name in cohort.columns if name.startswith(("Karnofsky", "Age"))]
    result = fitted(cohort, preprocessing, columns=columns, grid=(1, 999, 1), bound=100, steps=4)
    reference = by_lifelines(cohort.complete[[cohort.time, cohort.event, *columns]], cohort)
    assert_same(result, reference.params_, reference.standard_errors_)


# ---- data at the edge ---------------------------------------------------------------------------


def _edge(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    n = 60
    X, time, event = rng.normal(size=(n, 2)), np.ceil(rng.exponential(10, n)), rng.random(n) < 0.7
    rank = np.arange(n)
    if name == "an outlier":
        X[0, 0] = 1e3
    elif name == "separated":
        X[:, 0], time, event = -rank, rank + 1.0, np.ones(n, bool)
    elif name == "all at one time":
        time, event = np.ones(n), np.ones(n, bool)
    elif name == "one event":
        event = rank == 20
    elif name == "collinear":
        X = np.column_stack([X, X[:, 0] + X[:, 1]])
    elif name == "constant":
        X[:, 1] = 7
    elif name == "a rare value":
        X[:, 0], event = rank == 3, rank % 2 == 0
    return time, event.astype(int), X


@pytest.mark.filterwarnings("ignore::protocols.regression.results.ConvergenceWarning")
@pytest.mark.parametrize(
    ("name", "found", "ties", "preprocessing"),
    [
        ("an outlier", None, "breslow", "prss"),
        ("all at one time", None, "efron", "dealer"),
        ("all at one time", None, "breslow", "prss"),
        ("one event", None, "efron", "dealer"),
        ("separated", "the last step was long", "efron", "prss"),
        ("a rare value", "the last step was long", "efron", "dealer"),
        ("collinear", "the information matrix is singular", "efron", "prss"),
        ("constant", "constant columns, which are left out: their coefficients are NaN (x2)", "breslow", "dealer"),
    ],
)
def test_all_promised_bounds_hold(name: str, found: str | None, ties: str, preprocessing: str) -> None:
    time, event, X = _edge(name)

    async def program(party: Party, rows: Any) -> Any:
        data = time[rows], event[rows], X[rows]
        return await cox_regression(party, *data, ties=ties, grid=(1, 100, 1), bound=1024, steps=5)

    with watched() as promises:
        result = run(at_rank(program), np.array_split(np.arange(60), 3), preprocessing)[0]
    assert promises.check(3) > 300
    if found is None:
        assert result.warnings == ()
    else:
        assert any(text.startswith(found) for text in result.warnings)
    assert result.converged == (found is None or name == "constant")
    if name == "collinear":
        assert np.isnan(result.std_err).all()
    if name == "constant":
        for one in (result.coef, result.std_err, result.hazard_ratio, result.p_value):
            assert np.isnan(one).tolist() == [False, True]
        assert result.to_dict()["coef"][1] is None
        assert "-" in result.summary()


def test_more_ties_than_agreed_are_reported() -> None:
    with pytest.warns(ConvergenceWarning, match="more tied events than most_ties allows"):
        assert not fitted(rossi(), columns=["fin"], most_ties=2, steps=4).converged


def test_too_few_steps_are_reported() -> None:
    with pytest.warns(ConvergenceWarning, match="take more steps"):
        assert not fitted(lung(), columns=["age", "sex"], steps=1).converged


def test_it_stops_early() -> None:
    result = fitted(lung(), stop_early=True, steps=20)
    assert result.converged
    assert result.iterations == 5
    assert_same(result, *_reference(lung()))


def _reference(cohort: Cohort) -> Any:
    reference = by_lifelines(cohort.complete, cohort)
    return reference.params_, reference.standard_errors_


# ---- who learns what ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::protocols.regression.results.ConvergenceWarning")
def test_what_is_opened() -> None:
    cohort = lung()

    async def program(party: Party, frame: Any) -> Any:
        result = await cox_regression(
            party, frame.time, frame.status, frame[cohort.columns], to=[1], bound=5000, grid=(1, 1022, 1), steps=1
        )
        return result, party.costs.openings

    results = run(program, cohort.parts)
    assert [isinstance(result, CoxResult) for result, _ in results] == [False, True, False]
    openings = [(one.step.split("/")[-1], one.elements, one.to) for one in results[0][1]]
    # Sizes and events; one bit for each power of two of ties (at most 3 events at once); the result.
    assert [elements for _, elements, _ in openings] == [1 + 3 + 7, 2, 1, 1, 1, 7 + 7 + 2 + 7 + 4]
    assert [to for _, _, to in openings] == [None] * 5 + [(1,)]


@pytest.mark.filterwarnings("ignore::protocols.regression.results.ConvergenceWarning")
@pytest.mark.parametrize(
    ("rows", "columns", "ties", "links", "parties"),
    [(60, 2, 1, 0, 2), (120, 4, 1, 0, 2), (90, 3, 4, 2, 2), (40, 2, 1, 0, 5)],
)
def test_what_a_step_costs(rows: int, columns: int, ties: int, links: int, parties: int) -> None:
    X = np.random.default_rng(0).normal(size=(rows, columns))
    time, event = np.arange(rows) // ties + 1.0, np.ones(rows, int)

    async def program(party: Party, part: Any) -> Any:
        data = time[part], event[part], X[part]
        await cox_regression(party, *data, grid=(1, 200, 1), bound=8, steps=1)
        return [step for name, step in party.costs.by_step.items() if "newton/step" in name]

    colluders = 2 if parties == 5 else 0
    steps = run(program, np.array_split(np.arange(rows), parties), "prss" if colluders else "dealer")[0]
    opened, rounds = sum(step.elements_opened for step in steps), sum(step.rounds for step in steps)
    about = rows * (70 + 8 * columns + 2 * links * (columns + 2)) + 1500
    assert opened == pytest.approx(about * (3 if colluders else 1), rel=0.2)
    assert rounds == pytest.approx(130 + 2 * links + 15 * colluders, abs=5)


def test_parties_that_differ_in_the_partition_hear_of_it() -> None:
    async def program(party: Party, partition: str) -> Any:
        return await cox_regression(
            party, [1.0, 2, 3], [1, 0, 1], [[1.0], [2], [3]], grid=(1, 3, 1), bound=4, partition=partition
        )

    with pytest.raises(AgreementError, match="partition"):
        run(program, ["rows", "columns", "rows"])


def test_small_cells_are_refused() -> None:
    rules = Disclosure.preset("cms")
    with pytest.raises(DisclosureError, match="for each category of event"):
        fitted(veteran(), disclosure=rules)  # 9 are censored
    with pytest.raises(DisclosureError, match="at least 11 rows for each value of a column"):
        fitted(lung(), columns=["age", "few"], disclosure=rules)
    with pytest.raises(DisclosureError, match="at least 11 rows for each value of a column"):
        fitted(lung(), columns=["age", "kind"], disclosure=rules)  # its first label, which has no column, is rare
    with pytest.raises(DisclosureError, match="at least 200 rows for each category of event"):
        fitted(rossi(), disclosure=Disclosure("own", minimum_cell=200))


@pytest.mark.filterwarnings("ignore::protocols.regression.results.ConvergenceWarning")
@pytest.mark.parametrize(
    "case", ["fine", "a value among the rows that are used", "a first label", "a value among events", "no gaps"]
)
def test_small_cells_of_columns_at_several_parties_are_refused(case: str) -> None:
    """Cells are those of the rows that are used, which nobody knows."""
    rng = np.random.default_rng(8)
    n = 80
    order = rng.permutation(n)
    time, event = rng.integers(1, 30, n).astype(float), rng.integers(0, 2, n)
    other, yes, kind = rng.normal(size=n), rng.integers(0, 2, n), rng.integers(0, 3, n)
    if case == "a value among the rows that are used":
        yes = np.zeros(n, np.int64)
        yes[order[:30]] = 1
        other[order[:28]] = np.nan  # all but two of them
    elif case == "a first label":
        kind = np.where(kind == 0, 1, kind)
        kind[order[:9]] = 0
        other[order[:6]] = np.nan
    elif case == "a value among events":
        yes = np.where(event == 1, 0, yes)
        yes[np.flatnonzero(event)[:2]] = 1
    if case != "no gaps":
        other[rng.choice(n, 3)] = np.nan
    parts = [
        (time, event, None),
        (None, None, {"other": other}),
        (None, None, pd.DataFrame({"yes": yes, "kind": pd.Categorical.from_codes(kind, categories=list("abc"))})),
    ]

    async def program(party: Party, own: Any) -> Any:
        rules = Disclosure.preset("vantage6")
        return await cox_regression(
            party, *own, grid=(1, 30, 1), bound=8, steps=3, partition="columns", disclosure=rules
        )

    if case in ("fine", "no gaps"):
        assert run(program, parts)[0].names == ("other", "yes", "kind[T.b]", "kind[T.c]")
        return
    with pytest.raises(DisclosureError, match="at least 5 rows for each value of a column"):
        run(program, parts)


@pytest.mark.filterwarnings("ignore::protocols.regression.results.ConvergenceWarning")
@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_it_can_be_prepared(preprocessing: str) -> None:
    cohort = lung()

    async def program(party: Party, frame: Any) -> Any:
        async def study(seat: Party) -> Any:
            return await cox_regression(
                seat, frame.time, frame.status, frame[["age"]], strata=frame.sex, strata_categories=(1, 2), bound=100,
                steps=2,
            )  # fmt: skip

        await prepare(party, study)
        return await study(party)

    result = run(program, cohort.parts, preprocessing)[0]
    assert result.n == 228


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([([1.0, -2], [1, 0], [[1.0], [2.0]])] * 2, "negative"),
        ([([1.0, 2], [0, 0], [[1.0], [2.0]])] * 2, "no row has an event"),
        ([([1.0, 2], [1, 3], [[1.0], [2.0]])] * 2, "none of its 2 categories"),
        ([([1.0, 2], [1, 0], [[1.0], [np.inf]])] * 2, "infinite"),
        ([([1.0, 2], [1, 0], [[1.0]])] * 2, "rows"),
    ],
)
def test_bad_data(inputs: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        run_one(cox_regression, inputs)


@pytest.mark.parametrize(
    "options",
    [{"ties": "exact"}, {"steps": 0}, {"l2": -1.0}, {"confidence": 0}, {"most_ties": 0}, {"partition": "cells"}],
)
def test_bad_parameters(options: Any) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        run_one(cox_regression, [([1.0], [1], [[1.0]])] * 2, **options)


def test_parties_that_mean_different_things() -> None:
    async def program(party: Party, ties: str) -> Any:
        return await cox_regression(party, [1.0, 2], [1, 0], [[1.0], [2]], ties=ties, grid=[1, 2])

    with pytest.raises(AgreementError, match="ties"):
        run(program, ["efron", "breslow"])


def test_the_result_in_words_and_in_json() -> None:
    import json

    result = fitted(rossi())
    assert "Partial log-likelihood: -658.7477" in result.summary()
    assert "fin        -0.3794     0.6843    0.1914" in result.summary()
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["events"] == 114
