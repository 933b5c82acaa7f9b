"""Comparison: exact at every edge, for every width, with every preprocessing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import F61, F127, Party, RangeError, Share, is_negative, less_than, mask, open_, truncate
from mpc.arithmetic import mask_bits
from tests.mpc.support import ALL_WORLDS, SMALL_WORLDS, exact, in_turn, opened, run, same, shares_of


def edges(bound: int) -> np.ndarray:
    around = [0, 1, 2, 3, bound, bound - 1, bound // 2, bound // 2 + 1]
    around += [2**k + d for k in range(0, bound.bit_length(), 7) for d in (-1, 0, 1)]
    return exact(sorted({s * v for v in around if 0 <= v <= bound for s in (1, -1)}))


@pytest.mark.parametrize(
    ("parties", "preprocessing", "bound"),
    in_turn(ALL_WORLDS, [0, 1, 2, 3, 4, 7, 8, 2**24, 2**63, 2**64 + 1, 2**78]),
)
def test_signs_at_the_edges(parties: int, preprocessing: str, bound: int) -> None:
    values = edges(bound)

    async def program(party: Party, _: Any) -> Any:
        (z,) = await shares_of(party, [values], bound)
        result = await is_negative(party, z)
        assert (result.scale, result.magnitude, result.field) == (0, 1, F127)
        return await open_(party, result)

    got = same(run(program, parties=parties, preprocessing=preprocessing).results)
    np.testing.assert_array_equal(got, (values < 0).astype(int))


@given(data=st.data())
def test_any_two_integers(data: st.DataObject) -> None:
    bound = data.draw(st.integers(1, 2**80))
    number = st.integers(-bound, bound) | st.sampled_from([0, 1, -1, bound, -bound])
    pairs = data.draw(st.lists(st.tuples(number, number), min_size=1, max_size=70))
    x, y = (exact(column) for column in zip(*pairs, strict=True))
    preprocessing = data.draw(st.sampled_from(["dealer", "prss"]))
    got = opened(less_than, x, y, bound=bound, preprocessing=preprocessing)
    np.testing.assert_array_equal(got, (x < y).astype(int))


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_any_number_of_entries(parties: int, preprocessing: str, count: int, rng: np.random.Generator) -> None:
    """Packed 64 to a word: the last word may be full or not."""
    x, y = rng.integers(-3, 4, size=(2, count))
    got = opened(less_than, x, y, bound=3, parties=parties, preprocessing=preprocessing)
    np.testing.assert_array_equal(got, x < y)


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_shapes_scales_and_public_operands(parties: int, preprocessing: str) -> None:
    x = np.array([[0.5, -1.25, 2.0], [0.0, 3.0, -3.0]])

    async def program(party: Party, _: Any) -> Any:
        s, integers = await shares_of(party, [x, np.array([1, 0, -3])], 3)
        return await open_(
            party,
            await less_than(party, s, integers),
            await less_than(party, s, 0.5),
            await less_than(party, np.array([[1.0], [2.0]]), s),
            await less_than(party, s[0, 0], s[1, 1]),
            await less_than(party, s, s),
            await less_than(party, s[:0], 1.0),
            await less_than(party, 0, integers),
        )

    results = run(program, parties=parties, preprocessing=preprocessing).results[1]
    expected = [x < [1, 0, -3], x < 0.5, np.array([[1.0], [2.0]]) < x, True, x < x, x[:0] < 1, [True, False, False]]
    for got, value in zip(results, expected, strict=True):
        np.testing.assert_array_equal(got, np.asarray(value, int))


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_masked_operands(preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.array([1.5, -2.5, 0.0])], 4.0)
        kept, born = await mask(party, x), await truncate(party, x.lifted(40))
        return await open_(party, await less_than(party, kept, 1.0), await less_than(party, born, kept - 1.0))

    first, second = run(program, preprocessing=preprocessing).results[0]
    np.testing.assert_array_equal(first, [0, 1, 1])
    np.testing.assert_array_equal(second, [0, 0, 0])


@pytest.mark.parametrize(("parties", "preprocessing"), [(2, "dealer"), (3, "prss"), (7, "prss"), (7, "dealer")])
@pytest.mark.parametrize("field", [F61, F127], ids=repr)
def test_the_last_bound_that_fits(parties: int, preprocessing: str, field: Any) -> None:
    """No wrap-around at the very limit; one bit more is refused before anything is sent."""
    from mpc.preprocessing.prss import seed_sets

    pieces = parties if preprocessing == "dealer" else len(seed_sets(parties))
    bits = max(b for b in range(field.bits) if 2**b - 1 + (pieces << mask_bits(2**b - 1)) <= field.half)
    for bound, fits in [(2**bits - 1, True), (2 ** (bits + 1) - 1, False)]:
        values = edges(bound)

        async def program(party: Party, _: Any, bound: int = bound, fits: bool = fits, values: Any = values) -> Any:
            z = await party.share(values if party.rank == 0 else None, bound=bound, owner=0, field=field)
            if fits:
                return await open_(party, await is_negative(party, z))
            with pytest.raises(RangeError, match="comparison"):
                await is_negative(party, z)
            return None

        done = run(program, parties=parties, preprocessing=preprocessing)
        if fits:
            np.testing.assert_array_equal(same(done.results), (values < 0).astype(int))
        else:
            done.results  # noqa: B018
            assert not done.sent_after_inputs()


def test_a_difference_beyond_the_field() -> None:
    async def program(party: Party, _: Any) -> None:
        x = Share(F127, F127.zeros(2), 0, F127.half, leads=party.rank == 0)
        with pytest.raises(RangeError):
            await less_than(party, x, -x)
        with pytest.raises(RangeError):
            await less_than(party, x, 1)
        with pytest.raises(TypeError, match="shares"):
            await less_than(party, 1, 2)

    assert not run(program).sent


def test_many_entries() -> None:
    """Openings in parts also among the bits."""
    x = np.arange(9000) - 4500

    async def program(party: Party, _: Any) -> Any:
        (z,) = await shares_of(party, [x], 2**40)
        return await open_(party, await is_negative(party, z))

    for preprocessing in ("dealer", "prss"):
        np.testing.assert_array_equal(run(program, preprocessing=preprocessing).results[2], x < 0)
