"""Reciprocals and roots on shares, over the whole range that they promise."""

from typing import Any

import numpy as np
import pytest

from mpc import Party, open_
from protocols.roots import evaluate, inverse_root_series, inverse_series, normalise, root_series
from tests.protocols.helpers import run
from tests.protocols.promises import at_rank, watched

OCTAVES = 18


def values() -> np.ndarray:
    """Powers of 4 and their neighbours: where the comparison bits change."""
    edges = 4.0 ** -np.arange(OCTAVES)
    return np.concatenate([edges, edges * (1 - 2.0**-20), edges[1:] * (1 + 2.0**-20), [0.3, 0.5, 2e-5]])


@pytest.mark.parametrize(("preprocessing", "parties"), [("dealer", 2), ("prss", 3), ("prss", 5)])
def test_one_over_a_root_over_36_octaves(preprocessing: str, parties: int) -> None:
    x = values()

    async def program(party: Party, data: Any) -> Any:
        shared = await party.share(data, bound=1.0, scale=60, owner=0, shape=x.shape)
        found = await normalise(party, shared, top=0, octaves=OCTAVES, width=2)
        inverse = await evaluate(party, found.mantissa, inverse_root_series(), to=30)
        root = await evaluate(party, found.mantissa, root_series(), to=30)
        return await open_(party, found.factor, found.cofactor, found.too_small, inverse, root)

    with watched() as promises:
        factor, cofactor, too_small, inverse, root = run(at_rank(program), [x] + [None] * (parties - 1), preprocessing)[
            0
        ]
    assert promises.check(parties) == 10
    assert too_small.tolist() == (x < 4.0**-OCTAVES).astype(int).tolist()
    assert (factor * cofactor == 2 ** (OCTAVES - 1)).all()
    np.testing.assert_allclose(inverse * factor * np.sqrt(x), 1, atol=2e-6)
    np.testing.assert_allclose(root / factor / np.sqrt(x), 1, atol=2e-6)


@pytest.mark.parametrize("x", [0.0, 2.0**-60, 2.0**-40, 4.0**-OCTAVES * 0.99])
def test_what_is_too_small_is_told_and_stays_bounded(x: float) -> None:
    async def program(party: Party, data: Any) -> Any:
        shared = await party.share(data, bound=1.0, scale=60, owner=0, shape=(1,))
        found = await normalise(party, shared, top=0, octaves=OCTAVES, width=2)
        inverse = await evaluate(party, found.mantissa, inverse_root_series(), to=30)
        return await open_(party, found.too_small, inverse)

    with watched() as promises:
        too_small, inverse = run(at_rank(program), [np.array([x]), None])[0]
    promises.check(2)
    assert too_small.tolist() == [1]
    assert abs(inverse[0]) <= inverse_root_series().bound


def test_reciprocals_of_whole_numbers() -> None:
    x = np.concatenate([np.arange(1, 40), 2 ** np.arange(6, 33), 2 ** np.arange(6, 33) - 1])

    async def program(party: Party, data: Any) -> Any:
        shared = (await party.share(data, bound=2**32, owner=1, shape=x.shape)).lifted(16)
        found = await normalise(party, shared, top=32, octaves=32, width=1)
        inverse = await evaluate(party, found.mantissa, inverse_series(), to=38)
        return await open_(party, inverse, found.factor)

    inverse, factor = run(program, [None, x])[0]
    np.testing.assert_allclose(inverse * factor * x / 2.0**32, 1, atol=3e-9)


def test_series_are_as_good_as_they_say() -> None:
    for series, power, low, tolerance in [
        (inverse_root_series(), -0.5, 0.25, 1e-6),
        (root_series(), 0.5, 0.25, 1e-6),
        (inverse_series(), -1.0, 0.5, 2e-9),
    ]:
        x = np.linspace(low, 1, 5000)
        approximate = np.polynomial.polynomial.polyval(x - series.center, series.coefficients)
        np.testing.assert_allclose(approximate, x**power, rtol=tolerance)
