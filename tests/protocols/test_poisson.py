"""Regression of counts on shares against statsmodels on the pooled data."""

import json
import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import stats

from mpc import AgreementError, DataError, Party
from mpc.prepare import prepare
from protocols.regression.poisson import poisson_regression
from protocols.regression.regression_results import PoissonResult
from protocols.regression.results import ConvergenceWarning
from protocols.release.disclosure import Disclosure, DisclosureError
from tests.protocols.helpers import run, run_one
from tests.protocols.promises import at_rank, watched

MODELS = [("dealer", 2), ("prss", 3), ("ot", 2)]


class Data(NamedTuple):
    X: Any
    y: Any


@lru_cache
def affairs() -> Data:
    """1,000 of the 6,366 answers that statsmodels ships: rounded counts with far more zeros than Poisson's."""
    from statsmodels.datasets import fair

    frame = fair.load_pandas().data.iloc[::6][:1000]
    names = ["rate_marriage", "age", "yrs_married", "religious"]
    return Data(frame[names].to_numpy(float), np.rint(frame.affairs.to_numpy(float)))


@lru_cache
def visits() -> Data:
    """Doctor visits of 800 people in the RAND health insurance experiment; up to 50."""
    from statsmodels.datasets import randhie

    frame = randhie.load_pandas().data.iloc[::25][:800]
    names = ["lncoins", "idp", "lpi", "physlm", "disea", "hlthp"]
    return Data(frame[names].to_numpy(float), frame.mdvis.to_numpy(float))


def parts(data: Data, parties: int, *more: Any) -> list[Any]:
    cuts = np.sort(np.random.default_rng(1).choice(np.arange(1, len(data.y)), parties - 1, replace=False))
    pieces = [np.split(np.asarray(one), cuts) for one in (data.X, data.y, *more)]
    return list(zip(*pieces, strict=True))


def fitted(inputs: list[Any], preprocessing: str = "dealer", **options: Any) -> Any:
    """Run with keyword arguments of each party's own."""

    async def program(party: Party, data: Any) -> Any:
        own = data[2] if len(data) > 2 else {}
        return await poisson_regression(party, data[0], data[1], **own, **options)

    return run(program, inputs, preprocessing)[0]


def reference(data: Data, **options: Any) -> Any:
    import statsmodels.api as sm

    X = sm.add_constant(np.asarray(data.X, dtype=float))
    return sm.GLM(data.y, X, family=sm.families.Poisson(), **options).fit(tol=1e-13, maxiter=200)


def compare(fit: PoissonResult, wanted: Any, tolerance: float = 2e-6) -> None:
    errors = np.asarray(wanted.bse)
    assert fit.converged
    assert np.abs((fit.params - np.asarray(wanted.params)) / errors).max() < tolerance
    np.testing.assert_allclose(fit.std_err, errors, rtol=tolerance)
    # Where z is off by (1 + |z|) tolerances p is by 1.07 of them at most.
    np.testing.assert_allclose(fit.p_value, wanted.pvalues, atol=1.1 * tolerance)
    assert np.abs((fit.conf_int - np.asarray(wanted.conf_int())) / errors[:, None]).max() < 5 * tolerance
    np.testing.assert_allclose(fit.rate_ratios, np.exp(wanted.params[1:]), rtol=1e-5)
    # Pearson's chi squared may be off by about 2^-16 of the sum of |y - mean|; of random exposures that is 4 or 5
    # standard deviations of its rounding, so twice that.
    off = 2.0**-15 * float(np.abs(wanted.resid_response) @ np.asarray(wanted.model.freq_weights))
    for ours, theirs, stated in [
        (fit.log_likelihood, wanted.llf, 0.0),
        (fit.null_log_likelihood, wanted.llnull, 0.0),
        (fit.deviance, wanted.deviance, 0.0),
        (fit.null_deviance, wanted.null_deviance, 0.0),
        (fit.pearson_chi2, wanted.pearson_chi2, off),
        (fit.aic, wanted.aic, 0.0),
        (fit.bic, wanted.bic_llf, 0.0),
        (fit.dispersion, wanted.pearson_chi2 / wanted.df_resid, off / wanted.df_resid),
    ]:
        assert ours == pytest.approx(theirs, rel=1e-6, abs=stated)
    assert fit.df_model == wanted.df_model
    assert fit.df_resid == pytest.approx(wanted.df_resid, rel=1e-7)


@pytest.mark.parametrize(("preprocessing", "parties"), MODELS)
def test_rows_equal_statsmodels(preprocessing: str, parties: int) -> None:
    data = visits()
    if preprocessing == "ot":
        data = Data(data.X[:120, :2], data.y[:120])
    fit = run_one(poisson_regression, parts(data, parties), preprocessing)
    compare(fit, reference(data))
    assert fit.n == len(data.y)
    assert fit.total == data.y.sum()


def test_counts_with_many_zeros() -> None:
    compare(run_one(poisson_regression, parts(affairs(), 2)), reference(affairs()))


def test_weights_and_exposures(rng: np.random.Generator) -> None:
    data = visits()
    exposure = np.log(rng.uniform(0.1, 30, len(data.y)))
    weights = rng.integers(0, 5, len(data.y)).astype(float)
    inputs = [(X, y, {"offset": o, "weights": w}) for X, y, o, w in parts(data, 3, exposure, weights)]
    fit = fitted(inputs, "prss")
    compare(fit, reference(data, offset=exposure, freq_weights=weights))
    assert fit.weight == weights.sum()


def test_columns_with_missing_values_weights_and_exposures(rng: np.random.Generator) -> None:
    data = visits()
    X, y = data.X.copy(), data.y.copy()
    X[3, 1] = X[90, 5] = y[8] = np.nan
    kept = ~(np.isnan(X).any(axis=1) | np.isnan(y))
    exposure, weights = rng.normal(size=len(y)), rng.uniform(0.5, 3, len(y))
    inputs = [(X[:, :2], None, {"weights": weights}), (X[:, 2:], y, {"offset": exposure})]
    fit = fitted(inputs, partition="columns")
    # Exposures from 0.03 to 30: a few rows have nearly all of the weight, and the same rounding counts for more.
    compare(fit, reference(Data(X[kept], y[kept]), offset=exposure[kept], freq_weights=weights[kept]), 1e-5)
    assert fit.n == kept.sum()
    assert fit.missing == {"party 0": 1, "party 1": 2}


def test_rates_by_category() -> None:
    """A table of deaths as one row a cell, with the logarithm of the person-years as offset."""
    import pandas as pd
    import statsmodels.api as sm
    import statsmodels.formula.api as smf

    smoking = [("no", k, d, p) for k, (d, p) in enumerate([(2, 18790), (12, 10673), (28, 5710), (28, 2585)])]
    smoking += [("yes", k, d, p) for k, (d, p) in enumerate([(32, 52407), (104, 43248), (206, 28612), (186, 12663)])]
    frame = pd.DataFrame(smoking, columns=["smokes", "age", "deaths", "years"]).astype({"age": str})
    offset = np.log(frame.years / 1000)
    wanted = smf.glm("deaths ~ smokes + age", frame, family=sm.families.Poisson(), offset=offset).fit(tol=1e-13)
    pieces = [frame.iloc[:5], frame.iloc[5:]]
    inputs = [(f[["smokes", "age"]], f.deaths, {"offset": offset[f.index]}) for f in pieces]
    fit = fitted(inputs, y_bound=256)
    assert fit.names == ("smokes[T.yes]", "age[T.1]", "age[T.2]", "age[T.3]")
    np.testing.assert_allclose(fit.params, wanted.params, rtol=1e-6)
    np.testing.assert_allclose(fit.std_err, wanted.bse, rtol=1e-6)
    assert fit.deviance == pytest.approx(wanted.deviance, rel=1e-5)


def test_stopping_early_takes_fewer_steps() -> None:
    fit = run_one(poisson_regression, parts(visits(), 2), stop_early=True, steps=25)
    assert 3 <= fit.iterations < 10
    compare(fit, reference(visits()))


def told(data: Data, text: str, **options: Any) -> Any:
    with pytest.warns(ConvergenceWarning, match=text):
        return run_one(poisson_regression, parts(data, 2), **options)


def test_what_cannot_be_fitted_is_told() -> None:
    data = visits()
    few = Data(data.X[:200, 1:4], data.y[:200])
    assert not told(Data(np.column_stack([few.X, few.X[:, 0] - few.X[:, 1]]), few.y), "collinear", steps=4).converged
    assert not told(few, "not converged after 1 steps", steps=1).converged
    group = (np.arange(200) % 4 == 0).astype(float)
    assert not told(Data(group[:, None], np.where(group == 1, 0, few.y)), "all counts are 0").converged
    assert not told(Data(few.X, few.y * 0), "all counts are 0", steps=4).converged
    fit = told(Data(np.insert(few.X, 1, 3.0, axis=1), few.y), "no spread in column x2")
    np.testing.assert_allclose(np.delete(fit.params, 2), reference(few).params, rtol=1e-4)
    assert np.isnan(fit.coef[1])
    np.testing.assert_allclose(fit.predict(np.insert(few.X, 1, 3.0, axis=1)), reference(few).fittedvalues, rtol=1e-4)


@pytest.mark.parametrize("guard", [None, Disclosure("five", minimum_cell=5)])
def test_large_counts_keep_their_likelihood(guard: Disclosure | None) -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(150, 2))
    data = Data(X, rng.poisson(np.exp(10.3 + 0.02 * X[:, 0])).astype(float))
    fit = run_one(poisson_regression, parts(data, 2), y_bound=1e6, disclosure=guard)
    wanted = reference(data)
    np.testing.assert_allclose(fit.params, wanted.params, rtol=1e-4)
    assert fit.llr == pytest.approx(2 * (wanted.llf - wanted.llnull), abs=0.02)
    if guard is None:
        assert fit.deviance == pytest.approx(wanted.deviance, abs=0.02)
        assert fit.log_likelihood == pytest.approx(wanted.llf, abs=0.01)
        assert fit.pearson_chi2 == pytest.approx(wanted.pearson_chi2, rel=1e-3)


def moderate() -> Data:
    rng = np.random.default_rng(7)
    X = rng.normal(size=(120, 2))
    return Data(X, rng.poisson(np.exp(0.2 + 0.3 * X[:, 0])).astype(float))


@pytest.mark.parametrize(("partition", "y_bound"), [("rows", 2.0**20), ("columns", 1e9)])
def test_a_loose_bound_does_no_harm(partition: str, y_bound: float) -> None:
    """A study's bound is what its columns may hold at most, whatever the counts are."""
    data = moderate()
    inputs = parts(data, 3) if partition == "rows" else [(data.X[:, :1], None), (data.X[:, 1:], data.y)]
    fit, wanted = run_one(poisson_regression, inputs, partition=partition, y_bound=y_bound), reference(data)
    assert fit.converged
    assert np.abs((fit.params - wanted.params) / wanted.bse).max() < 2e-6
    np.testing.assert_allclose(fit.std_err, wanted.bse, rtol=2e-6)
    assert fit.log_likelihood == pytest.approx(wanted.llf, rel=1e-6)
    assert fit.deviance == pytest.approx(wanted.deviance, rel=1e-6)


@pytest.mark.parametrize(("y_bound", "asked"), [(16, 0), (17, 1), (None, 1)])
def test_only_the_power_of_16_above_the_largest_count_is_told(y_bound: float | None, asked: int) -> None:
    async def program(party: Party, part: Any) -> Any:
        await poisson_regression(party, *part, y_bound=y_bound, bound=9.0, steps=2, missing="raise")
        return {name: cost.elements_opened for name, cost in party.costs.by_step.items() if name.endswith("/open")}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        opened = run(program, parts(moderate(), 2))[0]
    assert opened == {**({"poisson/prepare/y bounds/open": 1} if asked else {}), "estimate/open": 2 + 2 + 2 * 3 + 7}


def test_a_failed_fit_has_no_numbers() -> None:
    """Estimates near 0 with tiny or negative errors would look like results with p = 0.000."""
    X, y = visits().X[:200, 1:2], visits().y[:200]
    fit = told(Data(np.column_stack([X, X]), y), "collinear", steps=4)
    for values in (fit.params, fit.std_err, fit.z, fit.p_value, fit.conf_int, fit.rate_ratios):
        assert np.isnan(values).all()
    for name in ("log_likelihood", "deviance", "pearson_chi2", "llr", "llr_p_value", "aic", "bic", "dispersion"):
        assert np.isnan(getattr(fit, name)), name
    assert fit.total == y.sum()
    assert "Warning" in fit.summary()
    assert json.loads(json.dumps(fit.to_dict()))["p_value"] == [None] * 3


def test_who_learns_what_and_disclosure_control() -> None:
    data = visits()
    few = Data(data.X[:100, :4], data.y[:100])

    async def program(party: Party, part: Any) -> Any:
        return await poisson_regression(party, *part, to=[0])

    results = run(program, parts(few, 2))
    assert results[1] is None
    compare(results[0], reference(few))
    with pytest.raises(DisclosureError, match="at least 300 rows"):
        run_one(poisson_regression, parts(few, 2), disclosure=Disclosure("strict", minimum_rows=300))


@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_a_minimum_cell_withholds_what_tells_counts_of_counts(partition: str, rng: np.random.Generator) -> None:
    """Log-likelihood and deviance add up to a sum over rows of a function of y alone."""
    data = Data(visits().X[:200, :3], visits().y[:200])
    exposure = rng.normal(size=200)
    inputs = [(X, y, {"offset": o}) for X, y, o in parts(data, 2, exposure)]
    if partition == "columns":
        inputs = [(data.X[:, :2], None, {"offset": exposure}), (data.X[:, 2:], data.y, {})]
    fit = fitted(inputs, disclosure=Disclosure("five", minimum_cell=5), partition=partition)
    wanted = reference(data, offset=exposure)
    assert np.abs((fit.params - wanted.params) / wanted.bse).max() < 1e-5
    np.testing.assert_allclose(fit.std_err, wanted.bse, rtol=1e-5)
    withheld = ("log_likelihood", "null_log_likelihood", "deviance", "null_deviance", "pearson_chi2", "dispersion")
    for name in (*withheld, "aic", "bic", "pseudo_r_squared"):
        assert np.isnan(getattr(fit, name)), name
    assert fit.llr == pytest.approx(2 * (wanted.llf - wanted.llnull), abs=0.005)
    # What is opened for it is told in steps of 2^-10; with counts below 256 these are the steps of half of it and:
    total = data.y.sum()
    steps = (fit.llr / 2 + total * (np.log(total / np.exp(exposure).sum() / 256) - 1)) * 2**10
    assert steps == pytest.approx(np.rint(steps), abs=1e-3, rel=0)
    assert fit.llr_p_value == pytest.approx(stats.chi2.sf(fit.llr, 3), rel=1e-9)
    assert "deviance" in fit.suppressed[0]
    assert "withheld" in fit.summary()
    assert fit.to_dict()["deviance"] is None


def test_a_minimum_cell_costs_fewer_openings() -> None:
    """Three sums and the kernel go out beside the estimates, not seven."""

    async def program(party: Party, part: Any) -> Any:
        guard = Disclosure("five", minimum_cell=5)
        await poisson_regression(party, *part, bound=16, y_bound=64, steps=7, disclosure=guard)
        return party.costs.by_step["estimate/open"].elements_opened

    assert run(program, parts(Data(visits().X[:100, :3], visits().y[:100]), 2))[0] == 2 + 3 + 2 * 4 + 4


def fails_with(inputs: list[Any], error: type[Exception], text: str, **options: Any) -> None:
    with pytest.raises(error, match=text) as caught:
        fitted(inputs, **options)
    assert "31337" not in str(caught.value)


def test_bad_data_and_parameters() -> None:
    X, y = visits().X[:20], visits().y[:20]
    good = (X, y)
    fails_with([good, (X, y - 31337)], DataError, "party 1: 20 of 20 values of y are below 0")
    fails_with([good, (X, y + 31337)], DataError, "beyond the agreed bound of 100", y_bound=100)
    fails_with([good, (X, y + 2.0**21)], DataError, "too large")
    fails_with([good, (X, y, {"offset": np.full(20, 31.0)})], DataError, "beyond the agreed bound of 20")
    fails_with([good, (X, None)], DataError, "every party gives y")
    fails_with([good, (*good, {"steps": 3})], AgreementError, "steps")
    fails_with([(X[:0], y[:0])] * 2, DataError, "no party has a complete row")
    fails_with([good, good], ValueError, "steps", steps=0)
    fails_with([good, good], ValueError, "confidence", confidence=2.0)


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_costs_are_as_documented(preprocessing: str) -> None:
    X, y = visits().X[:64, :3], visits().y[:64]

    async def program(party: Party, part: Any, steps: int) -> Any:
        await poisson_regression(party, *part, steps=steps, bound=16, y_bound=64)
        clear = {name: cost.elements_opened for name, cost in party.costs.by_step.items() if name.endswith("/open")}
        return party.costs.rounds, clear

    async def three(party: Party, part: Any) -> Any:
        return await program(party, part, 3)

    async def four(party: Party, part: Any) -> Any:
        return await program(party, part, 4)

    pieces = parts(Data(X, y), 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        (first, clear), (second, _) = run(three, pieces, preprocessing)[0], run(four, pieces, preprocessing)[0]
    slack = 1 if preprocessing == "dealer" else 1.35
    assert second - first <= slack * 110
    assert first - 4 * (second - first) <= slack * 200
    # In the clear: what is missing, the size of the largest count; estimates with two checks, the constant columns, and
    # seven sums.
    assert clear == {
        "poisson/prepare/missing/open": 4,
        "poisson/prepare/y bounds/open": 1,
        "estimate/open": 2 + 3 + 2 * 4 + 7,
    }


@pytest.mark.parametrize("y_bound", [64, 2**18])
def test_it_can_be_prepared(y_bound: float) -> None:
    X, y = visits().X[:100, :3], visits().y[:100]

    async def program(party: Party, part: Any) -> Any:
        async def study(seat: Party) -> Any:
            return await poisson_regression(seat, *part, bound=16, y_bound=y_bound)

        await prepare(party, study)
        return await study(party)

    compare(run(program, parts(Data(X, y), 2))[0], reference(Data(X, y)))


def test_every_bound_holds_on_hostile_data(rng: np.random.Generator) -> None:
    X = rng.normal(size=(40, 2))
    y = rng.poisson(np.exp(X[:, 0])).astype(float)
    outlier = X.copy()
    outlier[0, 1] = 1e6
    spike = y.copy()
    spike[3] = 1e6
    cases = {
        "collinear": (np.column_stack([X, X[:, 0] + X[:, 1]]), y),
        "outlier": (outlier, y),
        "constant": (X * [1.0, 0.0], y),
        "no events": (X, y * 0),
        "one event": (X, (np.arange(40) == 7).astype(float)),
        "one large count": (X, spike),
        "steep": (X * 10, np.rint(np.exp(np.clip(8 * X[:, 0], None, 12)))),
    }
    for name, (columns, counts) in cases.items():

        async def program(party: Party, part: Any) -> Any:
            return await poisson_regression(party, *part, steps=5)

        with watched() as promises, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            run(at_rank(program), parts(Data(columns, counts), 2))
        assert promises.check(2) > 100, name


def test_summary_and_dict() -> None:
    X, y = visits().X[:60, :2], visits().y[:60]
    fit = run_one(poisson_regression, parts(Data(X, y), 2), names=["coins", "idp"])
    text = fit.summary()
    assert str(fit) == text
    assert "Pearson chi2:" in text
    assert "coins" in text
    plain = fit.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    np.testing.assert_allclose(fit.predict(X[:2]), np.exp(X[:2] @ fit.coef + fit.intercept))
