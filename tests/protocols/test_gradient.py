"""Gradient descent on shares against the same algorithm in float64."""

from typing import Any

import numpy as np
import pytest

from mpc import Party
from protocols import logistic_regression
from tests.protocols.helpers import Data, breast_cancer, by_rows, diabetes, run, run_one, spector
from tests.protocols.promises import at_rank, watched


def float64_run(data: Data, *, l2: float, steps: int, rate: float, momentum: float = 0.0) -> np.ndarray:
    """Return the standardised coefficients, the intercept first."""
    Z = (data.X - data.X.mean(axis=0)) / data.X.std(axis=0)
    A = np.column_stack([np.ones(len(Z)), Z])
    penalty = np.concatenate([[0.0], np.full(Z.shape[1], l2)])
    w, v = np.zeros(A.shape[1]), np.zeros(A.shape[1])
    for _ in range(steps):
        gradient = (A.T @ (0.5 * (1 + np.tanh(A @ w / 2)) - data.y) + penalty * w) / len(Z)
        v = momentum * v + rate * gradient
        w = w - v
    return w


def standardised(fit: Any, data: Data) -> np.ndarray:
    inner = fit.coef * data.X.std(axis=0)
    return np.concatenate([[fit.intercept + fit.coef @ data.X.mean(axis=0)], inner])


def test_a_hundred_steps_on_breast_cancer() -> None:
    data = breast_cancer()
    fit = run_one(logistic_regression, by_rows(data, 3), "prss", solver="gradient")
    wanted = float64_run(data, l2=0.0, steps=100, rate=4 / 31)
    np.testing.assert_allclose(standardised(fit, data), wanted, atol=1e-4)
    assert fit.iterations == 100
    assert not fit.converged
    assert "not yet zero" in fit.warnings[0]
    assert np.isnan(fit.std_err).all()
    assert np.isnan(fit.p_value).all()


@pytest.mark.parametrize(("l2", "momentum"), [(0.0, 0.9), (5.0, 0.0), (5.0, 0.5)])
def test_penalty_and_momentum(l2: float, momentum: float) -> None:
    data = diabetes()
    parameters: dict[str, Any] = {"l2": l2, "momentum": momentum, "steps": 40}
    fit = run_one(logistic_regression, by_rows(data, 2), solver="gradient", learning_rate=0.2, **parameters)
    wanted = float64_run(data, rate=0.2, **parameters)
    np.testing.assert_allclose(standardised(fit, data), wanted, atol=1e-4)


def test_it_ends_where_newton_does() -> None:
    data = spector()
    fit = run_one(logistic_regression, by_rows(data, 2), solver="gradient", l2=1.0, steps=300)
    newton = run_one(logistic_regression, by_rows(data, 2), l2=1.0)
    assert fit.converged
    assert fit.warnings == ()
    np.testing.assert_allclose(fit.coef, newton.coef, atol=3e-3)


@pytest.mark.parametrize("preprocessing", ["dealer", "ot"])
def test_columns_of_the_same_rows(preprocessing: str) -> None:
    data = spector()
    inputs = [(data.X[:, :1], None), (data.X[:, 1:], data.y)]
    options: dict[str, Any] = {"steps": 20, "learning_rate": 0.5, "partition": "columns"}
    fit = run_one(logistic_regression, inputs, preprocessing, solver="gradient", **options)
    wanted = float64_run(data, l2=0.0, steps=20, rate=0.5)
    np.testing.assert_allclose(standardised(fit, data), wanted, atol=1e-4)


def test_predictors_that_leave_the_range_are_told_even_if_they_come_back() -> None:
    data = spector()
    fit = run_one(logistic_regression, by_rows(data, 2), solver="gradient", steps=12, learning_rate=40.0, limit=8)
    assert not fit.converged
    assert "left the range" in fit.warnings[0]


def test_a_wider_range_takes_them_in() -> None:
    data = spector()
    parameters: dict[str, Any] = {"steps": 6, "learning_rate": 20.0}
    fit = run_one(logistic_regression, by_rows(data, 2), solver="gradient", limit=120, **parameters)
    assert "left the range" not in " ".join(fit.warnings)
    wanted = float64_run(data, l2=0.0, steps=6, rate=20.0)
    np.testing.assert_allclose(standardised(fit, data), wanted, atol=1e-2)


def test_a_rate_that_cannot_end_well_is_refused() -> None:
    with pytest.raises(ValueError, match="learning_rate is too high"):
        run_one(logistic_regression, by_rows(spector(), 2), solver="gradient", learning_rate=100.0, l2=100.0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_every_bound_holds(momentum: float, rng: np.random.Generator) -> None:
    X = np.concatenate([rng.standard_cauchy(size=(50, 2)), np.zeros((1, 2))])
    X[0] = 1e4

    async def program(party: Party, part: Any) -> Any:
        return await logistic_regression(
            party, *part, solver="gradient", steps=25, l2=3.0, learning_rate=3.0, momentum=momentum
        )

    with watched() as promises:
        run(at_rank(program), by_rows(Data(X, rng.integers(0, 2, 51)), 2))
    assert promises.check(2) > 75


def test_costs_are_as_documented() -> None:
    data = spector()
    n, d = data.X.shape

    async def program(party: Party, part: Any) -> Any:
        await logistic_regression(party, *part, solver="gradient", steps=9)
        return party.costs.by_step

    costs = run(program, by_rows(data, 3))[0]
    steps = [cost for name, cost in costs.items() if name.startswith("descend") and "range" not in name]
    assert sum(cost.rounds for cost in steps) == 9 * 3
    assert sum(cost.elements_opened for cost in steps) == 9 * (2 * n + d + 1)
