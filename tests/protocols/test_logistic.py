"""Newton's method on shares against statsmodels and scikit-learn on the pooled data."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc import Party
from protocols import ConvergenceWarning, LogisticResult, logistic_regression
from protocols.regression.fit import Plan
from tests.protocols.helpers import (
    Data,
    breast_cancer,
    by_rows,
    diabetes,
    heart,
    penalised_reference,
    run,
    run_one,
    spector,
)
from tests.protocols.promises import at_rank, watched

MODELS = [("dealer", 2), ("dealer", 3), ("prss", 5), ("ot", 2), ("ot", 3)]
# Coefficients are compared in units of their standard errors, standard errors relatively.
TOLERANCE = 1e-4


def compare(fit: LogisticResult, params: Any, std_err: Any, tolerance: float = TOLERANCE) -> None:
    assert np.abs((fit.params - params) / std_err).max() < tolerance
    assert np.abs(fit.std_err / std_err - 1).max() < tolerance


@pytest.mark.parametrize(
    ("dataset", "preprocessing", "parties"),
    [(diabetes, "prss", 3), *((spector, *model) for model in MODELS)],
)
def test_penalised_fit_equals_scikit_learn(dataset: Callable[[], Data], preprocessing: str, parties: int) -> None:
    data = dataset()
    fit = run_one(logistic_regression, by_rows(data, parties), preprocessing, l2=1.0)
    reference = penalised_reference(data, 1.0)
    compare(fit, reference.params, reference.std_err)
    assert fit.converged
    assert fit.n == len(data.y)
    assert fit.warnings == ()


def test_breast_cancer() -> None:
    data = breast_cancer()
    fit = run_one(logistic_regression, by_rows(data, 2), "dealer", l2=1.0)
    reference = penalised_reference(data, 1.0)
    compare(fit, reference.params, reference.std_err)
    assert fit.converged


@pytest.mark.parametrize("dataset", [diabetes, spector, heart])
def test_unpenalised_fit_equals_statsmodels(dataset: Callable[[], Data]) -> None:
    import statsmodels.api as sm

    data = dataset()
    wanted = sm.Logit(data.y, sm.add_constant(data.X)).fit(disp=0, tol=1e-12)
    fit = run_one(logistic_regression, by_rows(data, 3), "prss")
    compare(fit, wanted.params, wanted.bse)
    np.testing.assert_allclose(fit.z, wanted.tvalues, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(fit.p_value, wanted.pvalues, rtol=1e-2, atol=1e-5)
    np.testing.assert_allclose(fit.conf_int, wanted.conf_int(), atol=float(2e-4 * wanted.bse.max()))
    np.testing.assert_allclose(fit.odds_ratios, np.exp(wanted.params[1:]), rtol=1e-3)


@pytest.mark.parametrize("l2", [0.01, 30.0])
def test_weak_and_strong_penalties(l2: float) -> None:
    data = diabetes()
    fit = run_one(logistic_regression, by_rows(data, 2), l2=l2)
    reference = penalised_reference(data, l2)
    compare(fit, reference.params, reference.std_err)


def test_linear_predictors_far_beyond_the_sigmoid() -> None:
    """|Xw| goes beyond 60: most rows are at 0 or 1, and everything depends on a few in between."""
    rng = np.random.default_rng(2)
    X = rng.normal(size=(300, 2)) * [30.0, 1.0]
    y = (X[:, 0] + X[:, 1] * 3 + rng.logistic(size=300) * 2 > 0).astype(np.int64)
    data = Data(X, y)
    reference = penalised_reference(data, 1e-3)
    assert np.abs(X @ reference.params[1:] + reference.params[0]).max() > 60
    fit = run_one(logistic_regression, by_rows(data, 2), l2=1e-3, steps=16)
    assert fit.converged
    compare(fit, reference.params, reference.std_err, tolerance=1e-3)


@pytest.mark.parametrize(("preprocessing", "parties", "l2"), [("dealer", 2, 0.0), ("prss", 3, 1.0)])
def test_columns_of_the_same_rows_at_different_parties(preprocessing: str, parties: int, l2: float) -> None:
    data = diabetes()
    blocks = np.array_split(np.arange(data.X.shape[1]), parties)
    inputs = [(data.X[:, block], data.y if k == parties - 1 else None) for k, block in enumerate(blocks)]
    fit = run_one(logistic_regression, inputs, preprocessing, l2=l2, partition="columns")
    whole = run_one(logistic_regression, by_rows(data, 2), l2=l2)
    compare(fit, whole.params, whole.std_err)
    assert fit.partition == "columns"


def test_all_parties_get_the_same_result() -> None:
    async def program(party: Party, data: Any) -> Any:
        return await logistic_regression(party, *data, names=["GPA", "TUCE", "PSI"])

    results = run(program, by_rows(spector(), 3))
    assert len({str(result.to_dict()) for result in results}) == 1
    assert "TUCE" in results[0].summary()


def test_one_row_at_a_party_and_none_at_another() -> None:
    data = spector()
    inputs = [(data.X[:1], data.y[:1]), (data.X[:0], data.y[:0]), (data.X[1:], data.y[1:])]
    fit = run_one(logistic_regression, inputs)
    whole = run_one(logistic_regression, by_rows(data, 2))
    compare(fit, whole.params, whole.std_err)


def test_an_agreed_bound_gives_the_same_and_reveals_no_magnitudes() -> None:
    async def program(party: Party, data: Any) -> Any:
        fit = await logistic_regression(party, *data, bound=[10, 100, 1])
        return fit, any("bounds" in name for name in party.costs.by_step)

    (fit, asked), *_ = run(program, by_rows(spector(), 2))
    assert not asked
    whole = run_one(logistic_regression, by_rows(spector(), 2))
    compare(fit, whole.params, whole.std_err)


def test_stopping_early_takes_fewer_steps() -> None:
    data = heart()
    fit = run_one(logistic_regression, by_rows(data, 2), stop_early=True, steps=25)
    whole = run_one(logistic_regression, by_rows(data, 2))
    assert 3 <= fit.iterations < whole.iterations == 10
    assert fit.converged
    compare(fit, whole.params, whole.std_err, tolerance=1e-3)


def test_too_few_steps_are_told() -> None:
    with pytest.warns(UserWarning, match="not converged after 3 steps"):
        fit = run_one(logistic_regression, by_rows(diabetes(), 2), l2=1.0, steps=3)
    assert not fit.converged


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_costs_are_as_documented(preprocessing: str) -> None:
    data = spector()
    n, d = data.X.shape

    async def program(party: Party, part: Any) -> Any:
        await logistic_regression(party, *part)
        return party.costs

    costs = run(program, by_rows(data, 3), preprocessing)[0].by_step
    plan = Plan(n, d + 1, 0.0)
    rough, fine = (len(plan.schulz_factors(rough=rough)) for rough in (True, False))
    assert (rough, fine) == (7, 15)
    bits = re.compile("compare/(carry|convert|generate|half)")
    elements = sum(
        cost.elements_opened for name, cost in costs.items() if name.startswith("newton") and not bits.search(name)
    )
    assert elements == 10 * (n * (d + 8) + 6 * (d + 1)) + 2 * (7 * rough + 3 * fine) * (d + 1) ** 2
    rounds = {
        top: sum(c.rounds for name, c in costs.items() if name.split("/")[0] == top)
        for top in ("newton", "logistic", "likelihood")
    }
    total = sum(cost.rounds for cost in costs.values())
    slack = 1.0 if preprocessing == "dealer" else 1.25
    assert rounds["newton"] <= slack * (10 * 25 + 2 * (7 * rough + 3 * fine))
    assert rounds["likelihood"] <= slack * 20
    assert total - rounds["newton"] - rounds["likelihood"] <= slack * 120
    # In the clear: what is missing, a magnitude for each column; then 2 bits, d constants, d + 1 estimates and as many
    # errors; the log-likelihood, how many rows have y = 1, and how many there are.
    clear = {name: cost.elements_opened for name, cost in costs.items() if name.endswith("/open")}
    assert clear == {
        "logistic/missing/open": d + 1,
        "logistic/bounds/open": d,
        "estimate/open": 2 + d + 2 * (d + 1) + 3,
    }


def test_every_bound_holds_on_hostile_data(rng: np.random.Generator) -> None:
    """The bounds that keep masks longer than what they hide are promises of the protocol: check them."""
    n = 60
    X = rng.normal(size=(n, 3))
    y = (X[:, 0] + rng.normal(size=n) > 0).astype(np.int64)
    outlier = X.copy()
    outlier[0, 1] = 1e6
    cases = {
        "collinear": (np.column_stack([X, X[:, 0] + X[:, 1]]), y, 0.0),
        "separable": (X, (X[:, 0] > 0).astype(np.int64), 0.0),
        "barely penalised": (X, (X[:, 0] > 0).astype(np.int64), 1e-4),
        "heavily penalised": (X, y, 1e4),
        "outlier": (outlier, y, 0.0),
        "constant": (X * [1.0, 0.0, 1.0], y, 0.0),
        "constant and heavily penalised": (X * [1.0, 0.0, 1.0], y, 1e4),
        "two rows": (X[:2], np.array([0, 1]), 0.0),
        "more columns than rows": (rng.normal(size=(8, 12)), y[:8], 0.0),
        "one class": (X, np.ones(n, np.int64), 1.0),
    }
    for name, (columns, labels, l2) in cases.items():

        async def program(party: Party, part: Any, l2: float = l2) -> Any:
            return await logistic_regression(party, *part, l2=l2, steps=6)

        with watched() as promises, warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            run(at_rank(program), by_rows(Data(columns, labels), 2))
        assert promises.check(2) > 100, name
