"""Truncation: how far off it may be, that it leans to no side, and that its result is born masked."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import F61, F127, Party, RangeError, Share, multiply, open_, truncate, truncate_all
from mpc.arithmetic import STATISTICAL_SECURITY_BITS, mask_bits
from tests.mpc.support import ALL_WORLDS, SMALL_WORLDS, exact, run, same, shares_of


def pieces(parties: int, preprocessing: str) -> int:
    return math.comb(parties, (parties - 1) // 2) if preprocessing == "prss" else parties


def truncated(values: Any, dropped: int, parties: int, preprocessing: str, bound: int, to: int = 0) -> np.ndarray:
    """Truncate encoded integers; returns the encoded integers of the results, at the scale ``to``."""

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [values], bound)
        y = await truncate(party, x.scaled_down(dropped + to), to=to)
        assert (y.scale, y.masked is None) == (to, False)
        assert y.magnitude == (bound >> dropped) + pieces(parties, preprocessing) + 1
        return await open_(party, Share(y.field, y.values, 0, y.magnitude, leads=y.leads))

    return exact(same(run(program, parties=parties, preprocessing=preprocessing).results))


@pytest.mark.parametrize(("parties", "preprocessing"), ALL_WORLDS)
@pytest.mark.parametrize("dropped", [1, 24, 70])
def test_error_is_bounded(parties: int, preprocessing: str, dropped: int, rng: np.random.Generator) -> None:
    """At most (m + 1)/2 units; m is the number of integers in the mask."""
    bound = 2**78
    edges = [0, 1, -1, bound, -bound, 2 ** (dropped - 1), -(2 ** (dropped - 1)), 2**dropped - 1, 1 - 2**dropped]
    values = exact([*edges, *(int(v) << 16 for v in rng.integers(-(2**62), 2**62, size=50))])
    got = truncated(values, dropped, parties, preprocessing, bound)
    error = got * 2**dropped - values
    assert all(2 * abs(e) <= (pieces(parties, preprocessing) + 1) << dropped for e in error)


@pytest.mark.parametrize(("parties", "preprocessing"), [(2, "dealer"), (3, "prss"), (5, "prss"), (2, "ot")])
def test_error_is_unbiased(parties: int, preprocessing: str) -> None:
    """Mean 0 and variance (m + 1)/12, for values anywhere between two units; false alarms: once in 10^9."""
    m, count = pieces(parties, preprocessing), 4000
    for value in (0, 1, 2**23, 2**24 - 1, -(2**22)):
        got = truncated(np.full(count, value), 24, parties, preprocessing, 2**40)
        error = got.astype(float) - value / 2**24
        deviation = math.sqrt((m + 1) / 12)
        assert abs(error.mean()) < 6.2 * deviation / math.sqrt(count)
        assert abs(error.var() / deviation**2 - 1) < 6.2 * math.sqrt(2 / count)


def test_the_fraction_decides_the_chances() -> None:
    """With one bit dropped the bias of rounding half up shows: 1/4 of a unit for each integer and the offset."""
    got = truncated(np.zeros(4000, int), 1, 2, "dealer", 2**40)
    assert abs(got.astype(float).mean() - 0.75) < 0.1


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_a_chain_of_fixed_point_products(parties: int, preprocessing: str, rng: np.random.Generator) -> None:
    """Each opens what is truncated and nothing else: products of born-masked shares are free."""
    values = rng.uniform(-1, 1, size=(2, 40))

    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, list(values), 1.0)
        x, y = await truncate_all(party, [x.lifted(48), y.lifted(48)])
        before = party.costs.total
        for _ in range(6):
            x = (await truncate(party, await multiply(party, x, y))).bounded_by(1.1)
        spent = party.costs.since(before)
        transfers = 6 * 2 if preprocessing == "ot" else 0
        assert (spent.rounds - transfers, spent.elements_opened, spent.triples) == (6, 6 * 40, 6 * 40)
        return await open_(party, x)

    got = same(run(program, parties=parties, preprocessing=preprocessing).results)
    np.testing.assert_allclose(got, values[0] * values[1] ** 6, atol=6 * (parties + 2) * 2.0**-24)


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_born_masked_shares_in_local_operations(parties: int, preprocessing: str) -> None:
    """A shifted mask through everything that keeps masks, and into products of both kinds."""
    values = np.array([[1.5, -2.0, 0.25], [3.0, 0.5, -1.0]])

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [values], 4.0)
        x = await truncate(party, x.lifted(48))
        y = (-(x * 3) + 0.5).T[0] - x[:, 0]
        z = (x + x - 1.0)[1]
        assert z.masked is not None
        before = party.costs.total
        square = await multiply(party, z, z)
        assert party.costs.since(before).elements_opened == 0
        return await open_(party, y, z, square)

    y, z, square = run(program, parties=parties, preprocessing=preprocessing).results[0]
    unit = (pieces(parties, preprocessing) + 1) * 2.0**-24
    np.testing.assert_allclose(y, -3 * values[:, 0] + 0.5 - values[:, 0], atol=4 * unit)
    np.testing.assert_allclose(z, 2 * values[1] - 1, atol=2 * unit)
    np.testing.assert_allclose(square, (2 * values[1] - 1) ** 2, atol=30 * unit)


def test_several_at_once() -> None:
    """What is at the scale already is left alone; what is below is lifted; one round for the rest."""

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.array([1.5, -2.0])], 2.0)
        before = party.costs.total
        results = await truncate_all(party, [x, x.lifted(30), x.scaled_down(4), x.lifted(40)[0]], to=26)
        assert (party.costs.since(before).rounds, party.costs.since(before).elements_opened) == (1, 5)
        assert [r.scale for r in results] == [26] * 4
        same_scale = await truncate(party, x)
        assert same_scale is x
        return await open_(party, *results)

    wanted: list[Any] = [[1.5, -2], [1.5, -2], [1.5 / 16, -1 / 8], 1.5]
    for got, expected in zip(run(program).results[0], wanted, strict=True):
        np.testing.assert_allclose(got, expected, atol=2.0**-24)


@given(bits=st.integers(0, 90), parties=st.integers(2, 4), field=st.sampled_from([F127, F61]))
def test_range(bits: int, parties: int, field: Any) -> None:
    """Either the mask fits beside the value, in all its size, or nothing is sent."""
    bound = 2**bits - 1

    async def program(party: Party, _: Any) -> Any:
        x = await party.share([bound, -bound, 0] if party.rank == 0 else None, bound=bound, owner=0, field=field)
        x = Share(field, x.values, 3, bound, leads=x.leads)
        return await open_(party, await truncate(party, x, to=0))

    done = run(program, parties=parties)
    fits = bound + (parties << mask_bits(bound)) <= field.half if bound <= field.half else False
    if fits:
        for got, value in zip(exact(same(done.results)), [bound, -bound, 0], strict=True):
            assert abs(8 * int(got) - value) <= 4 * (parties + 1)
    else:
        assert all(isinstance(outcome, RangeError) for outcome in done.outcomes if not isinstance(outcome, Exception))
        assert isinstance(done.outcomes[0], RangeError)
        assert not done.sent_after_inputs()


def test_the_mask_is_as_long_as_stated() -> None:
    for magnitude in (0, 1, 2, 3, 4, 2**40 - 1, 2**40, 2**80 + 1):
        assert 2 ** mask_bits(magnitude) >= (2 * magnitude) << STATISTICAL_SECURITY_BITS


def test_nothing_is_sent_where_one_of_several_does_not_fit() -> None:
    async def program(party: Party, _: Any) -> None:
        (x,) = await shares_of(party, [np.zeros(3)], 2**30)
        fits = x.bounded_by(1.0).lifted(30)
        for other in (
            x.bounded_by(1.0).scaled_down(127),
            x.lifted(70),
            Share(F127, x.values, 0, F127.half, leads=x.leads),
        ):
            with pytest.raises(RangeError):
                await truncate_all(party, [fits, other], to=24)

    done = run(program)
    done.results  # noqa: B018
    assert not done.sent_after_inputs()


def test_scales_are_not_negative() -> None:
    async def program(party: Party, _: Any) -> None:
        with pytest.raises(ValueError, match="at least 0"):
            await truncate(party, party.constant(1.0), to=-1)

    assert not run(program, parties=2).sent


def test_fields_may_be_mixed() -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.array([100, -7])], 2**10)
        (y,) = await shares_of(party, [np.array([60])], 2**10, F61)
        return await open_(party, *await truncate_all(party, [x.scaled_down(2), y.scaled_down(3)], to=0))

    first, second = run(program).results[0]
    assert np.abs(first - np.array([25, -7 / 4])).max() <= 2
    assert np.abs(second - 7.5).max() <= 2
    assert F127 is not F61
