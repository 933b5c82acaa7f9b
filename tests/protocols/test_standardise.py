"""Standardised columns: equal to numpy's, whatever the columns look like."""

from typing import Any

import numpy as np
import pytest

from mpc import DataError, Party, open_
from protocols.magnitudes import agree_exponents
from protocols.regression.standardise import Design, own_columns, standardise_columns, standardise_rows
from tests.protocols.helpers import breast_cancer, run
from tests.protocols.promises import at_rank, watched


async def opened(party: Party, design: Design) -> Any:
    slope = design.slope if design.slope is not None else party.constant(0)
    return await open_(party, design.matrix, slope, design.offset, design.constant)


async def rows_program(party: Party, data: Any) -> Any:
    X, counts, exponents = data
    if exponents is None:
        exponents = await agree_exponents(party, X)
    design = await standardise_rows(party, X, counts, exponents)
    return exponents, await opened(party, design)


def standardised(parts: list[Any], preprocessing: str = "dealer", exponents: Any = None) -> Any:
    counts = [len(part) for part in parts]
    with watched() as promises:
        result = run(at_rank(rows_program), [(part, counts, exponents) for part in parts], preprocessing)[0]
    promises.check(len(parts))
    return result


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("dealer", 3), ("prss", 3), ("ot", 2)])
def test_columns_of_very_different_sizes(preprocessing: str, parties: int) -> None:
    X = breast_cancer().X
    parts = np.split(X, [1, 400][: parties - 1])
    exponents, (matrix, slope, offset, constant) = standardised(parts, preprocessing)
    u = np.ldexp(X, -exponents)
    assert (np.abs(u).max(axis=0) <= 1).all()
    assert (np.abs(u).max(axis=0) > 1 / 16).all()
    assert (exponents % 4 == 0).all()
    np.testing.assert_allclose(matrix[:, 0], 1, atol=2.0**-25)
    np.testing.assert_allclose(matrix[:, 1:], (u - u.mean(axis=0)) / u.std(axis=0), atol=5e-5)
    np.testing.assert_allclose(slope * u.std(axis=0), 1, atol=2e-6)
    np.testing.assert_allclose(offset, u.mean(axis=0) / u.std(axis=0), atol=5e-5)
    # Data, slope and offset belong together more closely than that.
    np.testing.assert_allclose(matrix[:, 1:], slope * u - offset, atol=1e-6)
    assert not constant.any()


def test_parties_without_rows_and_with_very_different_means(rng: np.random.Generator) -> None:
    parts = [rng.normal(size=(size, 3)) + shift for size, shift in [(40, 0), (0, 0), (2, 100), (60, -7)]]
    X = np.concatenate(parts)
    _, (matrix, _, _, _) = standardised(parts)
    np.testing.assert_allclose(matrix[:, 1:], (X - X.mean(axis=0)) / X.std(axis=0), atol=5e-5)


def test_columns_without_spread_become_zero() -> None:
    n = 30
    rise = np.linspace(-1, 1, n)
    columns = {
        "plain": rise,
        "constant": np.full(n, 5.0),
        "zero": np.zeros(n),
        "tiny spread": 2.0 + rise * 2**-19,
        "mean of 900 deviations": rise + 900 * rise.std(),
        "mean of 1100 deviations": rise + 1100 * rise.std(),
        "one row differs": np.eye(n)[3],
    }
    X = np.column_stack(list(columns.values()))
    _, (matrix, slope, _, constant) = standardised(np.split(X, [10]))
    assert constant.tolist() == [0, 1, 1, 1, 0, 1, 0]
    assert np.abs(matrix[:, 1:][:, constant == 1]).max() < 1e-6
    assert np.abs(slope[constant == 1]).max() < 1e-5
    good = X[:, constant == 0]
    np.testing.assert_allclose(
        matrix[:, 1:][:, constant == 0], (good - good.mean(axis=0)) / good.std(axis=0), atol=1e-3
    )


def test_a_loose_bound_does_no_harm() -> None:
    rise = np.linspace(-1, 1, 40)[:, None]
    _, (matrix, _, _, _) = standardised(np.split(rise, [5]), exponents=np.array([16]))
    np.testing.assert_allclose(matrix[:, 1:], rise / rise.std(), atol=1e-3)


def test_the_largest_outlier_stays_within_its_bound() -> None:
    """Samuelson's inequality is sharp for one row that differs from all others."""
    X = np.zeros((400, 1))
    X[7] = 1
    _, (matrix, _, _, _) = standardised(np.split(X, [100]))
    assert matrix[7, 1] == pytest.approx(np.sqrt(399), rel=1e-4)


def test_agreed_magnitudes_reveal_one_number_a_column() -> None:
    async def program(party: Party, X: Any) -> Any:
        exponents = await agree_exponents(party, X)
        clear = [cost.elements_opened for name, cost in party.costs.by_step.items() if name.endswith("open")]
        return exponents.tolist(), clear

    parts = [np.array([[0.0, 1.0, 1.0001, -3e9]]), np.zeros((0, 4)), np.array([[0.0, -0.5, 0, 1e-30]])]
    assert run(program, parts) == [([-24, 0, 4, 32], [4])] * 3


def test_values_without_a_magnitude_are_refused() -> None:
    async def program(party: Party, X: Any) -> Any:
        return await agree_exponents(party, X)

    with pytest.raises(DataError, match="party 1: 1 columns hold values above 2\\^56"):
        run(program, [np.ones((2, 2)), np.array([[1, 1e17]])])


def test_own_columns_are_standardised_in_the_clear(rng: np.random.Generator) -> None:
    X = rng.normal(size=(50, 5)) * [1, 1e-8, 1e8, 0, 1] + [0, 0, 0, 3, 100]

    async def program(party: Party, part: Any) -> Any:
        own = own_columns(party, part)
        return await opened(party, await standardise_columns(party, part, own))

    matrix, _, offset, constant = run(program, [X[:, :2], X[:, 2:]])[0]
    deviation = np.where(X.std(axis=0) > 0, X.std(axis=0), 1)
    np.testing.assert_allclose(matrix[:, 1:], (X - X.mean(axis=0)) / deviation, atol=2e-8)
    np.testing.assert_allclose(
        offset, [0 if c else m for c, m in zip(constant, X.mean(0) / deviation, strict=True)], atol=1e-7
    )
    assert constant.tolist() == [0, 0, 0, 1, 0]


def test_an_own_column_far_from_the_origin_is_refused() -> None:
    async def program(party: Party, X: Any) -> Any:
        return own_columns(party, X)

    with pytest.raises(DataError, match="party 1: the mean of column 1"):
        run(program, [np.eye(3), np.eye(3) + np.array([0, 2000, 0])])
