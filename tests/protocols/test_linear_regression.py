"""Least squares on shares against statsmodels and scikit-learn on the pooled data."""

import json
import warnings
from functools import lru_cache
from importlib import import_module
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest

from mpc import AgreementError, DataError, Party, open_
from mpc.prepare import prepare
from protocols.regression.least_squares import _origin
from protocols.regression.linear_regression import linear_regression
from protocols.regression.regression_results import LinearResult
from protocols.regression.results import ConvergenceWarning
from protocols.release.disclosure import Disclosure, DisclosureError
from tests.protocols.helpers import run, run_one
from tests.protocols.promises import at_rank, watched

MODELS = [("dealer", 2), ("dealer", 3), ("prss", 3), ("prss", 5), ("ot", 2)]


class Data(NamedTuple):
    X: Any
    y: Any


@lru_cache
def diabetes() -> Data:
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return Data(bunch.data, bunch.target)


@lru_cache
def stackloss() -> Data:
    from statsmodels.datasets import stackloss as dataset

    frame = dataset.load_pandas().data
    return Data(frame.iloc[:, 1:].to_numpy(float), frame.iloc[:, 0].to_numpy(float))


@lru_cache
def longley() -> Data:
    from statsmodels.datasets import longley as dataset

    frame = dataset.load_pandas()
    return Data(frame.exog.to_numpy(float), frame.endog.to_numpy(float))


@lru_cache
def lung() -> Any:
    from lifelines.datasets import load_lung

    return load_lung()


def parts(data: Data, parties: int, *more: Any) -> list[Any]:
    cuts = np.sort(np.random.default_rng(1).choice(np.arange(1, len(data.y)), parties - 1, replace=False))
    pieces = [np.split(np.asarray(one), cuts) for one in (data.X, data.y, *more)]
    return list(zip(*pieces, strict=True))


def fitted(inputs: list[Any], preprocessing: str = "dealer", **options: Any) -> Any:
    """Run with keyword arguments of each party's own."""

    async def program(party: Party, data: Any) -> Any:
        own = data[2] if len(data) > 2 else {}
        return await linear_regression(party, data[0], data[1], **own, **options)

    return run(program, inputs, preprocessing)[0]


def ordinary(data: Data, **options: Any) -> Any:
    import statsmodels.api as sm

    model = sm.WLS if "weights" in options else sm.OLS
    return model(data.y, sm.add_constant(np.asarray(data.X)), **options).fit()


def compare(fit: LinearResult, wanted: Any, tolerance: float = 1e-6) -> None:
    errors = np.asarray(wanted.bse)
    assert np.abs((fit.params - np.asarray(wanted.params)) / errors).max() < tolerance
    np.testing.assert_allclose(fit.std_err, errors, rtol=tolerance)
    np.testing.assert_allclose(fit.t, wanted.tvalues, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(fit.p_value, wanted.pvalues, atol=1e-6)
    assert np.abs((fit.conf_int - np.asarray(wanted.conf_int())) / errors[:, None]).max() < 10 * tolerance
    for ours, theirs in [
        (fit.r_squared, wanted.rsquared),
        (fit.adj_r_squared, wanted.rsquared_adj),
        (fit.f_statistic, wanted.fvalue),
        (fit.sigma, np.sqrt(wanted.scale)),
        (fit.ssr, wanted.ssr),
        (fit.centered_tss, wanted.centered_tss),
        (fit.log_likelihood, wanted.llf),
        (fit.aic, wanted.aic),
        (fit.bic, wanted.bic),
    ]:
        assert ours == pytest.approx(theirs, rel=tolerance)
    assert fit.f_p_value == pytest.approx(wanted.f_pvalue, abs=1e-6, rel=1e-4)
    assert (fit.df_model, fit.df_resid) == (wanted.df_model, wanted.df_resid)


@pytest.mark.parametrize(("preprocessing", "parties"), MODELS)
@pytest.mark.parametrize("dataset", [diabetes, stackloss])
def test_rows_equal_statsmodels(dataset: Any, preprocessing: str, parties: int) -> None:
    data = dataset()
    fit = run_one(linear_regression, parts(data, parties), preprocessing)
    compare(fit, ordinary(data))
    assert (fit.n, fit.warnings) == (len(data.y), ())


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3)])
def test_columns_equal_statsmodels(preprocessing: str, parties: int) -> None:
    data = diabetes()
    blocks = np.array_split(np.arange(10), parties)
    inputs = [(data.X[:, block], data.y if k == 1 else None) for k, block in enumerate(blocks)]
    compare(run_one(linear_regression, inputs, preprocessing, partition="columns"), ordinary(data))


def test_nearly_collinear_economics() -> None:
    """Longley's data: the correlations' condition number is 12,000."""
    data = longley()
    compare(run_one(linear_regression, parts(data, 2)), ordinary(data))


def test_a_frame_with_categories_and_missing_values() -> None:
    import statsmodels.formula.api as smf

    frame = lung().rename(columns={"wt.loss": "loss", "ph.karno": "karno", "ph.ecog": "ecog"})
    frame = frame.assign(ecog=frame.ecog.map({0: "none", 1: "some", 2: "bed", 3: "bed"}).astype(object))
    columns = ["age", "ecog", "loss"]
    used = frame[[*columns, "karno"]].dropna()
    wanted = smf.ols("karno ~ age + C(ecog) + loss", used).fit()
    order = ["Intercept", "age", "C(ecog)[T.none]", "C(ecog)[T.some]", "loss"]
    edges = [0, 90, 150, len(frame)]
    pieces = [frame.iloc[a:b] for a, b in pairwise(edges)]
    fit = run_one(linear_regression, [(piece[columns], piece.karno) for piece in pieces], "prss")
    assert fit.names == ("age", "ecog[T.none]", "ecog[T.some]", "loss")
    np.testing.assert_allclose(fit.params, wanted.params[order], rtol=1e-6)
    np.testing.assert_allclose(fit.std_err, wanted.bse[order], rtol=1e-6)
    assert fit.n == len(used)
    assert fit.missing == {"age": 0, "ecog": 1, "loss": 14, "y": 1}


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_weights_and_offset(preprocessing: str, rng: np.random.Generator) -> None:
    data = diabetes()
    weights = rng.uniform(0.1, 40, len(data.y))
    offset = rng.normal(size=len(data.y)) * 50
    inputs = [(X, y, {"weights": w, "offset": o, "y_bound": None}) for X, y, w, o in parts(data, 3, weights, offset)]
    fit = fitted(inputs, preprocessing)
    compare(fit, ordinary(Data(data.X, data.y - offset), weights=weights))
    assert fit.weighted


def test_missing_values_at_parties_with_columns(rng: np.random.Generator) -> None:
    data = diabetes()
    X, y = data.X.copy(), data.y.copy()
    X[rng.integers(0, 442, 30), rng.integers(0, 10, 30)] = np.nan
    y[5] = np.nan
    kept = ~(np.isnan(X).any(axis=1) | np.isnan(y))
    fit = run_one(linear_regression, [(X[:, :3], None), (X[:, 3:], y)], partition="columns")
    compare(fit, ordinary(Data(X[kept], y[kept])))
    assert fit.n == kept.sum()
    assert fit.missing["party 1"] == (np.isnan(X[:, 3:]).any(axis=1) | np.isnan(y)).sum()


def outlier_left_out(factor: float) -> tuple[Data, Data]:
    """Return columns with an outlier in a row that is not complete, and the complete rows."""
    data = stackloss()
    X, y = data.X[:, :2].copy(), data.y.copy()
    X[0, 0], X[0, 1] = X[:, 0].mean() + factor * X[1:, 0].std() * np.sqrt(len(y)), np.nan
    return Data(X, y), Data(X[1:], y[1:])


@pytest.mark.parametrize("factor", [10, 50])
def test_columns_that_spread_less_where_all_are_complete(factor: float) -> None:
    given, kept = outlier_left_out(factor)
    fit = run_one(linear_regression, [(given.X[:, :1], None), (given.X[:, 1:], given.y)], partition="columns")
    compare(fit, ordinary(kept), tolerance=1e-5)


def test_a_column_that_hardly_spreads_where_all_are_complete() -> None:
    given, _ = outlier_left_out(300)
    left, right = (given.X[:, :1], None), (given.X[:, 1:], given.y)
    fit = told([left, right], r"no spread in column x1: .* in complete rows below 2\^-7 of", partition="columns")
    assert np.isnan(fit.coef[0])


@pytest.mark.parametrize("l2", [0.5, 200.0])
def test_a_penalty_equals_ridge_on_standardised_columns(l2: float) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    data = diabetes()
    scaler = StandardScaler().fit(data.X)
    Z = scaler.transform(data.X)
    model = Ridge(alpha=l2, solver="cholesky").fit(Z, data.y)
    fit = run_one(linear_regression, parts(data, 2), l2=l2)
    np.testing.assert_allclose(fit.coef, model.coef_ / scaler.scale_, rtol=1e-6)
    np.testing.assert_allclose(fit.predict(data.X), model.predict(Z), rtol=1e-6)
    residual = data.y - model.predict(Z)
    A = np.column_stack([np.ones(442), Z])
    inverse = np.linalg.inv(A.T @ A + np.diag([0.0] + [l2] * 10))
    back = np.eye(11)
    back[0, 1:], back[1:, 1:] = -scaler.mean_ / scaler.scale_, np.diag(1 / scaler.scale_)
    errors = np.sqrt(np.diag(back @ inverse @ back.T) * (residual @ residual) / 431)
    np.testing.assert_allclose(fit.std_err, errors, rtol=1e-6)
    assert np.isnan(fit.f_statistic)


def test_units_and_origins_do_not_matter() -> None:
    data = diabetes()
    X = data.X * 10.0 ** np.arange(-5, 5) + 10.0 ** np.arange(-5, 5) * 700
    shifted = Data(X, data.y * 1e-3 + 4)
    compare(run_one(linear_regression, parts(shifted, 2)), ordinary(shifted), tolerance=2e-5)


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_data_around_zero(preprocessing: str) -> None:
    """Where all means are zero the direction of the data's origin is (1, 0, 0): it must not be cut off to nothing."""

    async def program(party: Party, _: Any) -> Any:
        centre = party.constant(np.zeros(2), scale=40).bounded_by(2.0**17)
        found = [await _origin(party.at(f"origin {k}"), centre) for k in range(40)]
        return [await open_(party, direction, power) for direction, _, power in found]

    for direction, power in run(program, [None] * 3, preprocessing)[0]:
        np.testing.assert_allclose(np.ldexp(direction, int(power[0])), [1, 0, 0], atol=1e-6)


def test_agreed_bounds_and_a_party_without_rows() -> None:
    data = stackloss()
    inputs = [(data.X[:0], data.y[:0]), (data.X[:2], data.y[:2]), (data.X[2:], data.y[2:])]
    compare(run_one(linear_regression, inputs, bound=[100, 50, 100], y_bound=50), ordinary(data))


def test_confidence() -> None:
    data = stackloss()
    fit = run_one(linear_regression, parts(data, 2), confidence=0.9)
    np.testing.assert_allclose(fit.conf_int, ordinary(data).conf_int(0.1), rtol=1e-5)
    assert "[0.05" in fit.summary()
    assert "0.95]" in fit.summary()


def told(inputs: list[Any], text: str, **options: Any) -> Any:
    with pytest.warns(ConvergenceWarning, match=text):
        return run_one(linear_regression, inputs, **options)


def test_collinear_and_constant_columns() -> None:
    data = stackloss()
    twice = Data(np.column_stack([data.X, data.X[:, 0] - data.X[:, 2]]), data.y)
    fit = told(parts(twice, 2), "collinear")
    assert np.isnan(fit.params).all()
    statistics = (fit.r_squared, fit.sigma, fit.ssr, fit.centered_tss, fit.log_likelihood, fit.aic, fit.bic)
    assert np.isnan(statistics).all()
    assert json.loads(json.dumps(fit.to_dict()))["intercept"] is None
    flat = Data(np.insert(data.X, 1, 7.0, axis=1), data.y)
    fit = told(parts(flat, 2), "no spread in column x2")
    whole = ordinary(data)
    assert np.isnan(fit.coef[1])
    assert np.isnan(fit.std_err[2])
    np.testing.assert_allclose(fit.predict(flat.X), whole.fittedvalues, rtol=1e-5)
    np.testing.assert_allclose(np.delete(fit.params, 2), whole.params, rtol=1e-5)
    assert fit.df_resid == whole.df_resid
    left, right = (flat.X[:, :2], None), (flat.X[:, 2:], data.y)
    fit = told([left, right], "no spread in column x2", partition="columns")
    np.testing.assert_allclose(np.delete(fit.params, 2), whole.params, rtol=1e-5)
    told(parts(Data(data.X, np.full(len(data.y), 3.0)), 2), "y is constant")


def test_nothing_is_opened_of_a_fit_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The intercept would be the mean of y, which is no part of the result."""
    linear = import_module("protocols.regression.linear_regression")
    opened: list[Any] = []
    kept = linear._result

    def noted(values: Any, *rest: Any, **more: Any) -> Any:
        opened.append([np.asarray(one, np.float64) for one in values[:6]])
        return kept(values, *rest, **more)

    monkeypatch.setattr(linear, "_result", noted)
    data = stackloss()
    told(parts(Data(np.column_stack([data.X, data.X[:, 0] - data.X[:, 2]]), data.y), 2), "collinear")
    told(parts(Data(data.X, np.full(len(data.y), 3.0)), 2), "y is constant")
    assert len(opened) == 4
    assert all((one == 0).all() for values in opened for one in values)


def test_who_learns_what() -> None:
    data = stackloss()

    async def program(party: Party, part: Any) -> Any:
        return await linear_regression(party, *part, to=[1])

    results = run(program, parts(data, 3))
    assert results[0] is None
    assert results[2] is None
    compare(results[1], ordinary(data))
    for partition in ("columns",):
        inputs = [(data.X[:, :2], None), (data.X[:, 2:], data.y)]
        compare(run_one(linear_regression, inputs, partition=partition, to=[0]), ordinary(data))


def test_disclosure_control() -> None:
    data = stackloss()
    with pytest.raises(DisclosureError, match="at least 40 rows"):
        run_one(linear_regression, parts(data, 2), disclosure=Disclosure("strict", minimum_rows=40))
    rare = Data(np.column_stack([data.X, np.arange(21) == 4]), data.y)
    with pytest.raises(DisclosureError, match="only 0 and 1"):
        run_one(linear_regression, parts(rare, 3), disclosure=Disclosure.preset("vantage6"))
    compare(run_one(linear_regression, parts(data, 3), disclosure=Disclosure.preset("vantage6")), ordinary(data))


def fails_with(inputs: list[Any], error: type[Exception], text: str, **options: Any) -> None:
    with pytest.raises(error, match=text) as caught:
        fitted(inputs, **options)
    assert "31337" not in str(caught.value)


def test_bad_data_and_parameters() -> None:
    data = stackloss()
    good = (data.X, data.y)
    spoilt = data.X.copy()
    spoilt[3, 1] = np.inf
    fails_with([good, (spoilt, data.y)], DataError, "party 1: 1 values of X are infinite")
    spoilt[3, 1] = 31337
    fails_with([good, (spoilt, data.y)], DataError, "beyond the agreed bound", bound=200)
    spoilt[3, 1] = np.nan
    fails_with([good, (spoilt, data.y)], DataError, "party 1: values are missing", missing="raise")
    fails_with([good, (data.X, data.y[:-1])], DataError, r"party 1: y has shape \(20,\), X has 21 rows")
    fails_with([good, (data.X, None)], DataError, "every party gives y")
    fails_with([good, (data.X[:, :2], data.y)], AgreementError, "predictors")
    fails_with([(data.X[:2], data.y[:2])] * 2, DataError, "too few")
    fails_with([good, (*good, {"weights": -np.ones(21)})], DataError, "below 0")
    fails_with([good, (*good, {"weights": np.ones(21)})], AgreementError, "given")
    fails_with([(*good, {"weights": np.zeros(21)})] * 2, DataError, "weights of all parties are 0")
    fails_with([(data.X, None), (data.X, None)], AgreementError, "no party gives y", partition="columns")
    fails_with([good, (*good, {"l2": 2.0})], AgreementError, "l2")
    wrong: list[dict[str, Any]] = [{"l2": -1.0}, {"confidence": 1.0}, {"partition": "cells"}, {"missing": "keep"}]
    for options in wrong:
        fails_with([good, good], ValueError, next(iter(options)), **options)
    weighted = (*good, {"weights": np.ones(21)})
    fails_with([weighted, weighted], ValueError, "partition='rows'", partition="columns")


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_the_cost_does_not_depend_on_rows(preprocessing: str) -> None:
    data = diabetes()

    async def program(party: Party, part: Any) -> Any:
        await linear_regression(party, *part, bound=1000, y_bound=1000)
        clear = {name: cost.elements_opened for name, cost in party.costs.by_step.items() if name.endswith("/open")}
        return party.costs.rounds, party.costs.elements_opened, clear

    small = run(program, parts(Data(data.X[:60], data.y[:60]), 3), preprocessing)[0]
    rounds, elements, clear = run(program, parts(data, 3), preprocessing)[0]
    assert (rounds, elements, clear) == small
    assert rounds <= (125 if preprocessing == "dealer" else 140)
    assert elements <= 75 * 10**2 + 160 * 10
    # Rows and what is missing; for each estimate three numbers, two sums of squares, a power, constants, a bit.
    sizes = {"linear/sizes/sizes/open": 1, "linear/sizes/missing/open": 11}
    assert clear == {**sizes, "linear/result/open": 3 * 11 + 2 + 1 + 11 + 1}


@pytest.mark.parametrize(("partition", "l2"), [("rows", 0.0), ("rows", 3.0), ("columns", 0.0)])
def test_it_can_be_prepared(partition: str, l2: float) -> None:
    data = stackloss()
    halves = parts(data, 2) if partition == "rows" else [(data.X[:, :2], None), (data.X[:, 2:], data.y)]

    async def program(party: Party, part: Any) -> Any:
        async def study(seat: Party) -> Any:
            return await linear_regression(seat, *part, partition=partition, l2=l2, bound=100, y_bound=100)

        await prepare(party, study)
        return await study(party)

    fit = run(program, halves)[0]
    if not l2:
        compare(fit, ordinary(data))


def test_every_bound_holds_on_hostile_data(rng: np.random.Generator) -> None:
    X = rng.normal(size=(40, 3))
    y = X[:, 0] + rng.normal(size=40)
    outlier = X.copy()
    outlier[0, 1] = 1e6
    far = X + np.array([1e5, 0, 0])
    gone = X * 1e-2 + np.array([0, 900 * 0.155, 0])
    gone[0] = np.nan, 900 * 0.155 + 1.0, 1.0
    cases = {
        "plain": (X, y, 0.0),
        "exact": (X, X[:, 0] * 3 + 1, 0.0),
        "collinear": (np.column_stack([X, X[:, 0] + X[:, 1]]), y, 0.0),
        "nearly collinear": (np.column_stack([X[:, 0], X[:, 2], X[:, 0] + 1e-4 * X[:, 1]]), y, 0.0),
        "still regular": (np.column_stack([X[:, 0], X[:, 2], X[:, 0] + 1e-2 * X[:, 1]]), y, 0.0),
        "at the limit": (np.column_stack([X[:, 0], X[:, 0] + 3e-3 * X[:, 1]]), y, 0.0),
        "penalised": (np.column_stack([X, X[:, 0] + X[:, 1]]), y, 1e4),
        "outlier": (outlier, y, 0.0),
        "far from the origin": (far, y, 0.0),
        "constant": (X * [1.0, 0.0, 1.0], y, 0.0),
        "all constant": (X * 0 + 3, y * 0, 0.0),
        "left out": (gone, y, 0.0),
        "nearly all left out": (np.where(np.arange(40)[:, None] < 34, [np.nan, 1.0, 1.0], 1.0) * X, y, 0.0),
    }
    for name, (columns, outcome, l2) in cases.items():
        for partition in ("rows", "columns"):
            if partition == "columns" and name == "far from the origin":
                continue  # refused

            async def program(party: Party, part: Any, l2: float = l2, partition: str = partition) -> Any:
                return await linear_regression(party, *part, l2=l2, partition=partition)

            pieces = parts(Data(columns, outcome), 2)
            inputs = pieces if partition == "rows" else [(columns[:, :1], None), (columns[:, 1:], outcome)]
            with watched() as promises, warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                run(at_rank(program), inputs)
            assert promises.check(2) > 30, (name, partition)


def test_summary_and_dict() -> None:
    fit = run_one(linear_regression, parts(stackloss(), 2), names=["air", "water", "acid"])
    text = fit.summary()
    assert str(fit) == text
    assert "R-squared:" in text
    assert "No. Observations:" in text
    assert "water" in text
    plain = fit.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["names"] == ["air", "water", "acid"]
