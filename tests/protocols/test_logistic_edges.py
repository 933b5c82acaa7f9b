"""What regression says about data and parameters that it cannot work with."""

import json
from typing import Any

import numpy as np
import pytest

from mpc import AgreementError, DataError, Party
from protocols import Column, ConvergenceWarning, logistic_regression
from tests.protocols.helpers import Data, by_rows, diabetes, penalised_reference, run, run_one, spector


def fits_with_a_warning(data: Data, text: str, **parameters: Any) -> Any:
    with pytest.warns(ConvergenceWarning, match=text):
        fit = run_one(logistic_regression, by_rows(data, 2), **parameters)
    assert any(text in warning for warning in fit.warnings)
    assert text[:30] in fit.summary()
    return fit


@pytest.fixture
def plain(rng: np.random.Generator) -> Data:
    X = rng.normal(size=(80, 3))
    return Data(X, (X[:, 0] + rng.logistic(size=80) > 0).astype(np.int64))


def test_separable_data(plain: Data) -> None:
    fit = fits_with_a_warning(Data(plain.X, (plain.X[:, 0] > 0).astype(np.int64)), "separable")
    assert not fit.converged


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_only(plain: Data, value: int) -> None:
    fit = fits_with_a_warning(Data(plain.X, np.full(80, value)), "separable")
    assert not fit.converged


def test_collinear_columns(plain: Data) -> None:
    fit = fits_with_a_warning(Data(np.column_stack([plain.X, plain.X.sum(axis=1)]), plain.y), "collinear")
    assert not fit.converged
    assert np.isnan(fit.std_err).all()
    assert np.isnan(fit.p_value).all()


def test_a_penalty_makes_collinear_columns_fit(plain: Data) -> None:
    data = Data(np.column_stack([plain.X, plain.X.sum(axis=1)]), plain.y)
    fit = run_one(logistic_regression, by_rows(data, 2), l2=1.0)
    reference = penalised_reference(data, 1.0)
    assert fit.converged
    assert np.abs((fit.params - reference.params) / reference.std_err).max() < 1e-4


def test_fewer_rows_than_columns(rng: np.random.Generator) -> None:
    data = Data(rng.normal(size=(6, 9)), np.array([0, 1, 0, 1, 1, 0]))
    assert not fits_with_a_warning(data, "collinear").converged


@pytest.mark.parametrize("l2", [0.0, 1.0])
def test_a_constant_column_is_named_and_does_no_harm(plain: Data, l2: float) -> None:
    data = Data(np.insert(plain.X, 1, 7.0, axis=1), plain.y)
    fit = fits_with_a_warning(data, "no spread in column age", l2=l2, names=["a", "age", "b", "c"])
    whole = run_one(logistic_regression, by_rows(plain, 2), l2=l2)
    assert fit.converged
    assert np.isnan(fit.coef[1])
    assert np.isnan(fit.std_err[2])
    assert (fit.df_model, fit.df_resid) == (3, 76)
    np.testing.assert_allclose(fit.predict_proba(data.X), whole.predict_proba(plain.X), atol=1e-5)
    assert json.loads(json.dumps(fit.to_dict(), allow_nan=False))["coef"][1] is None
    np.testing.assert_allclose(np.delete(fit.params, 2), whole.params, atol=1e-4)
    np.testing.assert_allclose(np.delete(fit.std_err, 2), whole.std_err, rtol=1e-4)


def test_a_constant_own_column(plain: Data) -> None:
    inputs = [(np.column_stack([plain.X[:, 0], np.full(80, 3.0)]), plain.y), (plain.X[:, 1:], None)]
    with pytest.warns(ConvergenceWarning, match="no spread in column x2"):
        fit = run_one(logistic_regression, inputs, partition="columns")
    assert fit.converged
    assert np.isnan(fit.coef[1])


def test_a_constant_column_and_gradient_descent(plain: Data) -> None:
    data = Data(np.insert(plain.X, 1, 7.0, axis=1), plain.y)
    fit = run_one(logistic_regression, by_rows(data, 2), solver="gradient", l2=1.0)
    assert np.isnan(fit.coef[1])
    assert fit.df_model == 3
    assert np.isfinite(fit.predict_proba(data.X)).all()
    json.dumps(fit.to_dict(), allow_nan=False)


def fails_with(inputs: list[Any], error: type[Exception], text: str, **parameters: Any) -> None:
    with pytest.raises(error, match=text) as caught:
        run_one(logistic_regression, inputs, **parameters)
    assert "31337" not in str(caught.value)


def test_bad_data_is_named_without_showing_it(plain: Data) -> None:
    good = (plain.X, plain.y)

    def spoilt(value: float) -> Any:
        X = plain.X.copy()
        X[4, 2] = value
        return X, plain.y

    fails_with([good, spoilt(np.nan)], DataError, r"party 1: values are missing in X3 \(1 rows\)", missing="raise")
    fails_with([spoilt(-np.inf), good], DataError, "party 0: 1 values of X are infinite")
    fails_with([good, spoilt(31337.0)], DataError, r"beyond the agreed bound of 100 in column 2 \(1 rows\)", bound=100)
    fails_with([good, spoilt(31337.0)], DataError, r"column 2 \(1 rows, bound 9\)", bound=[50, 50, 9])
    fails_with([good, (plain.X[:, 0], plain.y)], DataError, "party 1: X has shape")
    fails_with([good, (plain.X, plain.y[:-1])], DataError, r"party 1: y has shape \(79,\), X has 80 rows")
    fails_with([good, (plain.X, plain.y + 31336)], DataError, "party 1: 80 of 80 values of y are neither 0 nor 1")
    fails_with([good, (plain.X, plain.y * 0.5)], DataError, "neither 0 nor 1")
    fails_with([good, (plain.X, None)], DataError, "every party gives y")
    fails_with([good, (plain.X.astype(str), plain.y)], DataError, "not made of numbers")
    fails_with([(plain.X[:0], plain.y[:0])] * 2, DataError, "no party has a complete row")


def test_parties_that_disagree_are_told_what_about(plain: Data) -> None:
    good = (plain.X, plain.y)
    fails_with([good, (plain.X[:, :2], plain.y)], AgreementError, "predictors = ")

    different: list[tuple[str, list[Any]]] = [
        ("l2", [1.0, 2.0]),
        ("steps", [8, 9]),
        ("names", [["a", "b", "c"], ["a", "c", "b"]]),
        ("missing", ["raise", "drop"]),
        ("partition", ["rows", "columns"]),
    ]
    for name, values in different:

        async def program(party: Party, data: Any, name: str = name, values: Any = values) -> Any:
            return await logistic_regression(party, *data, **{name: values[party.rank]})

        with pytest.raises(AgreementError, match=f"{name} = "):
            run(program, [good, good])
    fails_with([good, good], DataError, "3 columns and 2 names", names=["a", "b"])


@pytest.mark.parametrize("turned", [False, True])
def test_what_parties_bring_is_agreed_at_once(plain: Data, turned: bool) -> None:
    """An array beside a table, weights at one party alone: named by everybody, never waited for."""
    named = {f"x{j + 1}": plain.X[:, j] for j in range(3)}
    other: list[tuple[Any, dict[str, Any], str]] = [
        (named, {}, "predictors"),
        ({**named, "x3": np.where(plain.X[:, 2] > 0, "high", "low")}, {}, "predictors"),
        (named, {"bound": {"x1": 9.0, "x2": 9.0, "x3": 9.0}}, "predictors"),
        (plain.X, {"weights": np.ones(80)}, "given"),
        (plain.X, {"offset": np.ones(80)}, "given"),
        (plain.X, {"missing": "raise"}, "missing"),
    ]

    async def program(party: Party, part: Any) -> str:
        X, options = part
        try:
            await logistic_regression(party, X, plain.y, **options)
        except AgreementError as error:
            return str(error)
        return "fitted"

    for X, options, text in other:
        parties = [(plain.X, {}), (X, options), (plain.X, {})]
        for said in run(program, parties[::-1] if turned else parties, "prss"):
            assert f"says {text} = " in said


def test_column_partitions_need_one_y_and_the_same_rows(plain: Data) -> None:
    left, right = plain.X[:, :1], plain.X[:, 1:]
    wrong: list[tuple[list[Any], str]] = [
        ([(left, None), (right, None)], "no party gives y"),
        ([(left, plain.y), (right, plain.y)], "parties 0, 1 give y"),
        ([(left, plain.y), (right[:-1], None)], "rows = "),
    ]
    for inputs, text in wrong:
        fails_with(inputs, AgreementError, text, partition="columns")
    fails_with(
        [(left, None), (right, plain.y)], ValueError, "all different", partition="columns", names=["a", "b", "a"]
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {"l2": -1.0},
        {"l2": 1e-6},
        {"l2": np.nan},
        {"solver": "lbfgs"},
        {"partition": "cells"},
        {"steps": 0},
        {"steps": 2.5},
        {"solver": "gradient", "learning_rate": 0.0},
        {"solver": "gradient", "momentum": 1.0},
        {"solver": "gradient", "limit": 1e6},
        {"bound": 0.0},
        {"names": ["a", "b", "a"]},
        {"columns": [Column("GPA", "number")]},
    ],
)
def test_parameters_are_checked(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        run_one(logistic_regression, by_rows(spector(), 2), **parameters)


def test_labels_may_be_booleans_floats_or_a_column() -> None:
    data = spector()
    whole = run_one(logistic_regression, by_rows(data, 2), l2=1.0)
    for labels in (data.y.astype(bool), data.y.astype(float), data.y[:, None]):
        parts = [(data.X[:9], labels[:9]), (data.X[9:], labels[9:])]
        np.testing.assert_allclose(run_one(logistic_regression, parts, l2=1.0).coef, whole.coef, atol=1e-5)


def test_the_units_of_the_data_do_not_matter() -> None:
    data = diabetes()
    factors = 10.0 ** np.arange(-5, 5)
    scaled = Data(data.X * factors, data.y)
    fit = run_one(logistic_regression, by_rows(scaled, 2), l2=1.0)
    reference = penalised_reference(scaled, 1.0)
    assert np.abs((fit.params - reference.params) / reference.std_err).max() < 1e-4
    assert np.abs(fit.std_err / reference.std_err - 1).max() < 1e-4


def test_a_failure_in_the_last_checks_is_no_group_of_failures(plain: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a peer's fault raises side by side comes out as itself, so that callers can tell it."""

    async def faulty(*_: Any) -> Any:
        raise AgreementError("a peer sent something else")

    monkeypatch.setattr("protocols.regression.newton._inverse_is_off", faulty)

    async def program(party: Party, part: Any) -> str:
        try:
            await logistic_regression(party, *part, steps=2)
        except (AgreementError, BaseExceptionGroup) as failure:
            return type(failure).__name__
        return "fitted"

    cut = [(plain.X[:40], plain.y[:40]), (plain.X[40:], plain.y[40:])]
    assert run(program, cut) == ["AgreementError"] * 2
