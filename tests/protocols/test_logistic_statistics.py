"""Likelihoods, categories, missing values, weights and offsets of a logistic regression, against statsmodels."""

import json
import warnings
from typing import Any

import numpy as np
import pytest

from mpc import AgreementError, DataError, Party
from protocols import ConvergenceWarning, logistic_regression
from protocols.release.disclosure import Disclosure, DisclosureError
from tests.protocols.helpers import Data, by_rows, heart, run, run_one, spector
from tests.protocols.promises import at_rank, watched


def fitted(inputs: list[Any], preprocessing: str = "dealer", **options: Any) -> Any:
    """Run with keyword arguments of each party's own."""

    async def program(party: Party, data: Any) -> Any:
        own = data[2] if len(data) > 2 else {}
        return await logistic_regression(party, data[0], data[1], **own, **options)

    return run(program, inputs, preprocessing)[0]


def binomial(X: Any, y: Any, **options: Any) -> Any:
    import statsmodels.api as sm

    X = sm.add_constant(np.asarray(X, dtype=float))
    return sm.GLM(y, X, family=sm.families.Binomial(), **options).fit(tol=1e-13, maxiter=200)


def compare(fit: Any, wanted: Any) -> None:
    errors = np.asarray(wanted.bse)
    assert np.abs((fit.params - np.asarray(wanted.params)) / errors).max() < 2e-5
    np.testing.assert_allclose(fit.std_err, errors, rtol=2e-5)
    assert fit.log_likelihood == pytest.approx(wanted.llf, rel=2e-6)
    assert fit.deviance == pytest.approx(-2 * wanted.llf, rel=2e-6)
    assert fit.aic == pytest.approx(wanted.aic, rel=2e-6)


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3), ("ot", 2)])
def test_likelihoods_equal_statsmodels(preprocessing: str, parties: int) -> None:
    import statsmodels.api as sm

    data = heart()
    wanted = sm.Logit(data.y, sm.add_constant(data.X)).fit(disp=0, tol=1e-12)
    fit = run_one(logistic_regression, by_rows(data, parties), preprocessing)
    compare(fit, wanted)
    assert fit.null_log_likelihood == pytest.approx(wanted.llnull, rel=1e-9)
    assert fit.pseudo_r_squared == pytest.approx(wanted.prsquared, rel=1e-5)
    assert fit.llr == pytest.approx(wanted.llr, rel=1e-5)
    assert fit.llr_p_value == pytest.approx(wanted.llr_pvalue, abs=1e-6)
    assert fit.bic == pytest.approx(wanted.bic, rel=2e-6)
    text = fit.summary()
    assert "LLR p-value:" in text
    plain = fit.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["log_likelihood"] == fit.log_likelihood


def test_a_penalty_leaves_the_likelihood_and_takes_the_test() -> None:
    data = spector()
    fit = run_one(logistic_regression, by_rows(data, 2), l2=1.0)
    p = fit.predict_proba(data.X)
    assert fit.log_likelihood == pytest.approx(np.log(np.where(data.y == 1, p, 1 - p)).sum(), rel=1e-5)
    assert np.isnan(fit.llr_p_value)


def lung() -> Any:
    from lifelines.datasets import load_lung

    frame = load_lung().rename(columns={"ph.ecog": "ecog", "wt.loss": "loss"})
    frame["dead"] = (frame.status == frame.status.max()).astype(float)
    frame["ecog"] = frame.ecog.map({0: "none", 1: "some", 2: "bed", 3: "bed"}).astype(object)
    frame.loc[5, "dead"] = np.nan
    return frame[["age", "ecog", "loss", "dead"]]


def test_categories_and_missing_values() -> None:
    import statsmodels.formula.api as smf

    frame = lung()
    used = frame.dropna()
    wanted = smf.logit("dead ~ age + C(ecog) + loss", used).fit(disp=0, tol=1e-12)
    order = ["Intercept", "age", "C(ecog)[T.none]", "C(ecog)[T.some]", "loss"]
    pieces = [frame.iloc[:100], frame.iloc[100:130], frame.iloc[130:]]
    fit = run_one(logistic_regression, [(f[["age", "ecog", "loss"]], f.dead) for f in pieces], "prss")
    assert fit.names == ("age", "ecog[T.none]", "ecog[T.some]", "loss")
    assert np.abs((fit.params - wanted.params[order]) / wanted.bse[order]).max() < 2e-5
    assert fit.log_likelihood == pytest.approx(wanted.llf, rel=1e-6)
    assert fit.n == len(used)
    assert fit.missing == {"age": 0, "ecog": 1, "loss": 14, "y": 1}
    assert "Missing: ecog 1, loss 14, y 1" in fit.summary()


def test_weights_and_offsets(rng: np.random.Generator) -> None:
    data = heart()
    weights, offset = rng.uniform(0, 30, len(data.y)), rng.normal(size=len(data.y))
    cuts = np.array_split(np.arange(len(data.y)), 3)
    inputs = [(data.X[c], data.y[c], {"weights": weights[c], "offset": offset[c]}) for c in cuts]
    fit = fitted(inputs, "dealer")
    compare(fit, binomial(data.X, data.y, freq_weights=weights, offset=offset))
    assert np.isnan(fit.null_log_likelihood)
    assert fit.weight == pytest.approx(weights.sum(), rel=1e-6)
    fit = fitted([(X, y, {"weights": own["weights"]}) for X, y, own in inputs], "prss")
    wanted = binomial(data.X, data.y, freq_weights=weights)
    compare(fit, wanted)
    assert fit.null_log_likelihood == pytest.approx(wanted.llnull, rel=1e-6)


def test_weights_count_rows_as_often() -> None:
    data = spector()
    weights = np.arange(32) % 3
    repeated = Data(np.repeat(data.X, weights, axis=0), np.repeat(data.y, weights))
    whole = run_one(logistic_regression, by_rows(repeated, 2), l2=0.0)
    fit = fitted(
        [(data.X[:10], data.y[:10], {"weights": weights[:10]}), (data.X[10:], data.y[10:], {"weights": weights[10:]})]
    )
    assert np.abs((fit.params - whole.params) / whole.std_err).max() < 2e-5
    assert fit.bic == pytest.approx(whole.bic, rel=1e-5)


def test_columns_with_missing_values_weights_and_offsets(rng: np.random.Generator) -> None:
    frame = lung()
    X, y = frame[["age", "loss"]].to_numpy(float), frame.dead.to_numpy()
    kept = ~(np.isnan(X).any(axis=1) | np.isnan(y))
    weights, offset = rng.uniform(0.5, 4, len(y)), rng.normal(size=len(y))
    inputs = [(X[:, :1], None, {"weights": weights}), (X[:, 1:], y, {"offset": offset})]
    fit = fitted(inputs, missing="drop", partition="columns")
    wanted = binomial(X[kept], y[kept], freq_weights=weights[kept], offset=offset[kept])
    compare(fit, wanted)
    assert fit.n == kept.sum()
    assert fit.missing == {"party 1": (~kept).sum()}


def test_separation_is_told() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    with pytest.warns(ConvergenceWarning, match="separable"):
        fit = run_one(logistic_regression, by_rows(Data(X, (X[:, 0] > 0).astype(np.int64)), 2), steps=16)
    assert not fit.converged


def test_disclosure_control_counts_first_categories() -> None:
    frame = lung().dropna()
    frame["ecog"] = ["rare"] * 2 + ["bed"] * 90 + ["some"] * (len(frame) - 92)
    halves = [frame.iloc[:70], frame.iloc[70:140], frame.iloc[140:]]
    from protocols.pools.variables import Column

    columns = [Column("age", "number"), Column("ecog", "category", categories=("rare", "bed", "some"))]
    with pytest.raises(DisclosureError, match="only 0 and 1"):
        run_one(
            logistic_regression,
            [(f, f.dead) for f in halves],
            columns=columns,
            disclosure=Disclosure.preset("vantage6"),
        )


def fails_with(inputs: list[Any], error: type[Exception], text: str, **options: Any) -> None:
    with pytest.raises(error, match=text) as caught:
        fitted(inputs, **options)
    assert "31337" not in str(caught.value)


def test_bad_data_and_parameters() -> None:
    data = spector()
    good = (data.X, data.y)
    gaps = data.X.copy()
    gaps[3, 1] = np.nan
    fails_with([good, (gaps, data.y)], DataError, "missing='drop'", missing="raise")
    weights = {"weights": np.where(np.arange(32) < 2, np.nan, 1.0)}
    fails_with([good, (gaps, data.y, weights)], DataError, r"X2 \(1 rows\), weights \(2 rows\)", missing="raise")
    fails_with([good, (data.X, data.y + 31336)], DataError, "neither 0 nor 1", missing="drop")
    fails_with([good, (data.X, None)], DataError, "every party gives y", missing="drop")
    fails_with([(*good, {"weights": np.ones(32)}), (*good, {"offset": np.ones(32)})], AgreementError, "given")
    offset = (*good, {"offset": np.full(32, 99.0)})
    fails_with([offset, offset], DataError, "beyond the agreed bound of 64")
    weighted = (*good, {"weights": np.ones(32)})
    fails_with([weighted, weighted], ValueError, "solver='newton'", solver="gradient")
    fails_with([good, good], ValueError, "missing is", missing="keep")


def test_every_bound_holds_with_weights_and_offsets(rng: np.random.Generator) -> None:
    X = rng.normal(size=(40, 2))
    y = (X[:, 0] > 0).astype(np.int64)
    cases = {
        "uneven weights": (np.where(np.arange(40) == 3, 1e6, 1e-3), np.zeros(40)),
        "no weight": (np.zeros(40), np.zeros(40)),
        "far offsets": (np.ones(40), np.linspace(-60, 60, 40)),
    }
    for name, (weights, offset) in cases.items():
        inputs = [(X[c], y[c], {"weights": weights[c], "offset": offset[c]}) for c in np.array_split(np.arange(40), 2)]

        async def program(party: Party, part: Any) -> Any:
            return await logistic_regression(party, part[0], part[1], steps=5, **part[2])

        with watched() as promises, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            run(at_rank(program), inputs)
        assert promises.check(2) > 100, name
