"""Scoring rows with a model that nobody opened."""

from typing import Any

import numpy as np
import pytest

from mpc import AgreementError, DataError, Party, Share, open_
from protocols import SharedModel, logistic_regression, predict_proba
from tests.protocols.helpers import Data, by_rows, diabetes, run, run_one, spector
from tests.protocols.promises import at_rank, watched


def wanted(data: Data) -> np.ndarray:
    fit = run_one(logistic_regression, by_rows(data, 2), l2=1.0)
    return np.asarray(fit.predict_proba(data.X))


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3), ("ot", 2)])
def test_every_party_learns_the_probabilities_of_its_own_rows(preprocessing: str, parties: int) -> None:
    async def program(party: Party, part: Any) -> Any:
        model = await logistic_regression(party, *part, l2=1.0, reveal=False)
        own = await predict_proba(party, part[0], model)
        second = await predict_proba(party, part[0], model, to=[1])
        shared = await predict_proba(party, part[0], model, reveal=False)
        assert isinstance(shared, Share)
        return model, own, second, await open_(party, shared)

    data = spector() if preprocessing == "ot" else diabetes()
    with watched() as promises:
        results = run(at_rank(program), by_rows(data, parties), preprocessing)
    promises.check(parties)
    expected = wanted(data)
    np.testing.assert_allclose(np.concatenate([own for _, own, _, _ in results]), expected, atol=1e-5)
    assert [second is None for _, _, second, _ in results] == [rank != 1 for rank in range(parties)]
    np.testing.assert_allclose(results[1][2], expected, atol=1e-5)
    np.testing.assert_allclose(results[0][3], expected, atol=1e-5)
    model = results[0][0]
    assert isinstance(model, SharedModel)
    assert model.converged
    assert repr(model) == f"SharedModel({data.X.shape[1]} columns, fitted to {len(data.y)} rows)"


def test_without_revealing_the_model_only_two_bits_are_opened() -> None:
    async def program(party: Party, part: Any) -> Any:
        await logistic_regression(party, *part, reveal=False, bound=1000.0, missing="raise")
        return {name: cost.elements_opened for name, cost in party.costs.by_step.items() if name.endswith("open")}

    assert run(program, by_rows(diabetes(), 2))[0] == {"open": 2}


def test_what_a_party_knows_of_its_columns_is_not_shown() -> None:
    async def program(party: Party, part: Any) -> Any:
        return await logistic_regression(party, *part, l2=1.0, partition="columns", reveal=False)

    data = diabetes()
    model = run(program, [(data.X[:, :4], None), (data.X[:, 4:], data.y)])[0]
    assert model.own is not None
    shown = repr(model) + repr(model.own) + repr(model.coefficients)
    assert not any(f"{mean:.3g}"[:4] in shown for mean in data.X[:, :4].mean(axis=0))


def test_columns_of_the_same_rows() -> None:
    data = diabetes()

    async def program(party: Party, part: Any) -> Any:
        X, y = part
        model = await logistic_regression(party, X, y, l2=1.0, partition="columns", reveal=False)
        return await predict_proba(party, X, model)

    results = run(program, [(data.X[:, :4], None), (data.X[:, 4:], data.y)])
    for probabilities in results:
        np.testing.assert_allclose(probabilities, wanted(diabetes()), atol=1e-5)


def test_rows_far_outside_saturate() -> None:
    rng = np.random.default_rng(3)  # of other rows the slopes may be near 0, or the second as large as the first
    X = rng.normal(size=(60, 2))
    y = (X[:, 0] + rng.logistic(size=60) > 0).astype(np.int64)
    far = np.array([[999.0, 0.0], [-999.0, 0.0], [-999.0, 999.0]])

    async def program(party: Party, rows: Any) -> Any:
        part = slice(0, 20) if party.rank == 0 else slice(20, None)
        model = await logistic_regression(party, X[part], y[part], bound=1000.0, reveal=False)
        return await predict_proba(party, rows, model)

    with watched() as promises:
        first, second = run(at_rank(program), [far, np.zeros((0, 2))])
    promises.check(2)
    np.testing.assert_allclose(first, [1, 0, 0], atol=1e-6)
    assert second.shape == (0,)


@pytest.mark.filterwarnings("ignore:logistic_regression. not converged")
def test_rows_beyond_the_bound_and_wrong_columns_are_refused() -> None:
    data = diabetes()

    async def program(party: Party, rows: Any) -> Any:
        model = await logistic_regression(party, data.X, data.y, reveal=False, steps=1)
        return await predict_proba(party, rows, model)

    good = data.X[:2]
    with pytest.raises(DataError, match="party 1: 2 of 20 values of X are beyond"):
        run(program, [good, good + np.eye(2, 10) * 1e9])
    with pytest.raises(DataError, match="NaN"):
        run(program, [good, good * np.nan])
    with pytest.raises((ValueError, AgreementError), match="columns"):
        run(program, [good[:, :3], good[:, :3]])
    with pytest.raises(AgreementError, match="columns"):
        run(program, [good, good[:, :3]])
