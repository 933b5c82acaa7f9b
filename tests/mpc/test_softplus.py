"""The integral of the sigmoid: errors, sums over many entries, limits, the same public numbers on every machine."""

import hashlib
import math
from typing import Any

import numpy as np
import pytest

from mpc import Party, RangeError, open_
from mpc.sigmoid import integrated_series, series, softplus
from tests.mpc.support import SMALL_WORLDS, run, same, shares_of

GRID = np.concatenate([np.linspace(-22, 22, 501), [0, 1e-9, -1e-9, 22, -22]])


def evaluated(x: np.ndarray, parties: int, preprocessing: str, bound: float = 22.0, **options: Any) -> np.ndarray:
    async def program(party: Party, _: Any) -> Any:
        (share,) = await shares_of(party, [x], bound)
        result = await softplus(party, share, **options)
        assert result.bound <= options.get("limit", 22.0) + 1.01
        return await open_(party, result)

    values: np.ndarray = same(run(program, parties=parties, preprocessing=preprocessing).results)
    return values


@pytest.mark.parametrize(("parties", "preprocessing"), [*SMALL_WORLDS, (5, "prss")])
@pytest.mark.parametrize(("limit", "error"), [(22.0, 1e-6), (22.0, 1e-4), (60.0, 1e-6)])
def test_errors_are_small_and_of_either_sign(parties: int, preprocessing: str, limit: float, error: float) -> None:
    off = evaluated(GRID, parties, preprocessing, limit=limit, error=error) - np.logaddexp(0, GRID)
    rounding = (5e-7 if parties == 5 else 2e-7) * limit / 22  # root mean square; a wider limit takes larger numbers
    assert np.abs(off).max() <= error + 7 * rounding
    middle = off[np.abs(GRID) < 10]  # the roundings differ from entry to entry: 6.5 standard errors miss once in 10^10
    assert np.abs(middle.mean()) < 0.05 * error + 6.5 * middle.std() / math.sqrt(middle.size)


def test_shapes_scales_and_limits() -> None:
    assert evaluated(np.full((2, 3), -1.5), 2, "dealer").shape == (2, 3)
    assert evaluated(np.array([5]), 2, "dealer") == pytest.approx(np.logaddexp(0, 5), abs=2e-6)  # integers
    with pytest.raises(RangeError, match="softplus: the argument is bounded by 30"):
        raise same(run_failing(30.0))
    with pytest.raises(ValueError, match="at most 100"):
        raise same(run_failing(30.0, limit=200.0))


def run_failing(bound: float, **options: Any) -> Any:
    async def program(party: Party, _: Any) -> Any:
        (share,) = await shares_of(party, [np.zeros(2)], bound)
        try:
            await softplus(party, share, **options)
        except ValueError as error:
            return error

    return [run(program, parties=2).results[0]]


def test_it_opens_as_much_as_the_sigmoid() -> None:
    async def program(party: Party, _: Any) -> Any:
        (share,) = await shares_of(party, [np.zeros(7)], 20.0)
        await softplus(party, share)
        return party.costs.rounds - 1, party.costs.elements_opened  # one round was that of sharing

    assert same(run(program, parties=3).results) == (1, 7)


def test_public_numbers_are_the_same_on_every_machine() -> None:
    constant, coefficients = integrated_series(22.0, 1e-6)
    half_period, slopes = series(22.0, 1e-6)
    odd = np.arange(1, 2 * len(slopes), 2)
    np.testing.assert_allclose(coefficients, slopes * half_period / (odd * np.pi), rtol=1e-14)
    assert constant == pytest.approx(np.logaddexp(half_period / 4, -half_period / 4), abs=1e-7)  # at half of the half
    digest = hashlib.sha256(np.append(coefficients, constant).astype("<f8").tobytes()).hexdigest()
    assert digest[:16] == "5d2f5311eea43f2a"
