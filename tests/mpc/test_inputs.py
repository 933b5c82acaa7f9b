"""Input sharing: what goes in comes out, and what must not go in is refused before a byte leaves."""

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import F61, F127, GF, AgreementError, DataError, Field, Party, PeerError, RangeError, agree, open_
from mpc.inputs import Header
from tests.mpc.support import SMALL_WORLDS, WORLDS, run, same

FIELDS: list[Any] = [F127, F61, GF(10007)]


def shared(
    values: Any, *, bound: Any, parties: int = 2, preprocessing: str = "dealer", owner: int = 0, **options: Any
) -> Any:
    async def program(party: Party, _: Any) -> Any:
        held = values if party.rank == owner else None
        return await open_(party, await party.share(held, bound=bound, owner=owner, **options))

    return same(run(program, parties=parties, preprocessing=preprocessing).results)


@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
def test_every_party_may_be_the_owner(parties: int, preprocessing: str) -> None:
    for owner in range(parties):
        values = np.arange(6).reshape(2, 3) - owner
        opened = shared(values, bound=10, parties=parties, preprocessing=preprocessing, owner=owner)
        np.testing.assert_array_equal(opened, values)


@pytest.mark.parametrize("field", FIELDS, ids=repr)
def test_edges_of_the_field(field: Field) -> None:
    half = field.half
    edges = [0, 1, -1, half, -half, half - 1, 1 - half, half // 2, -(half // 2)]
    opened = shared(np.array(edges, dtype=object), bound=half, field=field)
    assert [int(v) for v in opened] == edges
    assert (opened.dtype == object) == (half > 2**63)


@given(
    st.lists(st.integers(-(2**126) + 1, 2**126 - 1) | st.sampled_from([2**63, -(2**63), 2**64, 2**63 - 1]), max_size=6)
)
def test_integers_of_any_size(values: list[int]) -> None:
    opened = shared(values if values else np.zeros(0, int), bound=2**126 - 1)
    assert [int(v) for v in opened] == values
    assert opened.dtype == (np.int64 if all(-(2**63) <= v < 2**63 for v in values) else object)


@given(st.lists(st.floats(-(2.0**60), 2.0**60), min_size=1, max_size=6))
def test_floats(values: list[float]) -> None:
    opened = shared(np.array(values), bound=2**60)
    assert opened.dtype == np.float64
    for got, value in zip(opened, values, strict=True):
        assert abs(got - value) <= 2**-25 + abs(value) * 2**-53


@pytest.mark.parametrize("scale", [1, 24, 44, 80])
def test_other_fraction_bits(scale: int) -> None:
    values = np.array([0.1, -3.7, 5.0, 1e-9])
    opened = shared(values, bound=8, scale=scale)
    np.testing.assert_allclose(opened, values, rtol=2**-52, atol=2.0 ** -(scale + 1))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (5, 5),
        (-2.5, -2.5),
        (True, 1),
        ([True, False], [1, 0]),
        (np.float32(0.25), 0.25),
        (np.uint8(200), 200),
        ([], np.zeros(0)),
        (np.zeros((0, 3), int), np.zeros((0, 3), int)),
        (np.array(7), 7),
        ([[1], [2]], [[1], [2]]),
        (np.array([1, 2.5, 3], dtype=object), [1, 2.5, 3]),
        (np.array([True, 3], dtype=object), [1, 3]),
        ([2**63 + 1, -1], [2**63 + 1, -1]),
        ((2**63, 1 - 2**63), [2**63, 1 - 2**63]),
        (np.array([np.int8(-128), np.int64(2**62)], dtype=object), [-128, 2**62]),
        (np.array([1, 2, 3], np.float16), [1, 2, 3]),
        (np.ma.array([1, 2]), [1, 2]),
        (np.arange(6)[::2], [0, 2, 4]),
    ],
    ids=repr,
)
def test_kinds_of_numbers(values: Any, expected: Any) -> None:
    opened = shared(values, bound=2**64)
    np.testing.assert_array_equal(opened, np.asarray(expected, dtype=opened.dtype))
    assert opened.shape == np.shape(values)


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
def test_everybody_shares_an_own_array(parties: int, preprocessing: str) -> None:
    """Of different lengths, in one round; the list is in rank order at every party."""
    arrays = [np.arange(rank * 2, dtype=float).reshape(rank, 2) - 0.5 for rank in range(parties)]

    async def program(party: Party, own: Any) -> Any:
        shares = await party.share(own, bound=10)
        assert party.costs.rounds == 1
        return await open_(party, *shares)

    for opened in run(program, arrays, preprocessing=preprocessing).results:
        for got, array in zip(opened, arrays, strict=True):
            np.testing.assert_array_equal(got, array)


def test_an_owner_elsewhere_needs_no_values() -> None:
    """Others pass None (with or without the shape), or an array of the shape, whose values do not count."""
    for stand_in, options in [(None, {}), (None, {"shape": (3,)}), (np.full(3, 99), {}), (np.full(3, 1e9), {})]:

        async def program(party: Party, own: Any, options: Any = options) -> Any:
            return await open_(party, await party.share(own, bound=5, owner=1, **options))

        np.testing.assert_array_equal(run(program, [stand_in, np.array([1, -2, 3]), stand_in]).results[2], [1, -2, 3])


def test_an_input_is_sent_as_nothing_but_a_header() -> None:
    async def program(party: Party, own: Any) -> None:
        await party.share(own, bound=2**20)

    done = run(program, [np.arange(1000) + rank for rank in range(3)])
    done.results  # noqa: B018
    assert {len(m.data) for m in done.sent} == {len(b'[[1000],0,"1048576","F127"]')}
    assert len(done.sent) == 6
    assert all(party.costs.bytes_sent == 2 * 27 + 5 for party in done.parties)  # two headers, and the farewell


def test_two_inputs_of_one_party_are_shared_independently() -> None:
    async def program(party: Party, _: Any) -> Any:
        held = np.zeros(4, int) if party.rank == 0 else None
        shares = [await party.share(held, bound=1, owner=0) for _ in range(2)]
        return [share.values for share in shares]

    for first, second in run(program).results:
        assert not np.array_equal(first, second)


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "bound", "words"),
    [
        (np.array([1.0, np.nan, np.inf]), 5, "2 of 3 values are NaN or infinite"),
        (np.array([[1.0, np.nan], [2.0, np.nan]]), 5, "2 of 4 values are NaN or infinite in column 1 (2)"),
        (np.array([1, 6, -6]), 5, "2 of 3 values are beyond the agreed bound of 5"),
        (np.array([5.0000001]), 5, "1 of 1 values are beyond"),
        (np.array([0.3]), 0.25, "beyond"),
        (np.array([1]), 0.5, "beyond"),
        (np.array([-(2**63)]), 2**63 - 1, "beyond"),
        (np.array([2**64 - 1], np.uint64), 2**63, "beyond"),
        (np.array([np.int8(-128)], dtype=object), 100, "beyond"),
        (np.array([np.int64(-(2**63))], dtype=object), 100, "beyond"),
        (np.array([2**70], dtype=object), 2**69, "beyond"),
        (np.array(["a"]), 5, "not made of numbers"),
        (np.array([1j]), 5, "not made of numbers"),
        (np.array([None, 1.0], dtype=object), 5, "not made of numbers"),
        (np.array(["2020-01-01"], "datetime64[D]"), 5, "not made of numbers"),
        (np.ma.array([1.0, 2.0], mask=[False, True]), 5, "masked"),
        (np.array([1]), np.nan, "finite"),
        (np.array([1]), np.inf, "finite"),
        (np.array([1]), -1, "finite"),
    ],
    ids=lambda v: repr(v)[:40],
)
@pytest.mark.parametrize("owner", [None, 0])
def test_bad_data_stays_at_home(
    values: Any, bound: Any, words: str, owner: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The error comes before anything is sent; it tells counts and columns, but no value."""

    async def program(party: Party, _: Any) -> None:
        await party.share(values if party.rank == 0 else 0, bound=bound if party.rank == 0 else 5, owner=owner)

    with caplog.at_level(logging.DEBUG):
        done = run(program, parties=2)
    failed = done.outcomes[0]
    assert isinstance(failed, DataError)
    assert words in str(failed)
    assert not [m for m in done.sent if m.frm == 0]
    assert str(done.outcomes[1]) == "party 0 stopped: DataError"  # counts are for the owner's eyes
    assert not [record for record in caplog.records if record.name != "asyncio"]


@pytest.mark.parametrize(
    ("values", "bound", "field"),
    [
        (np.array([1]), 2**126, F127),
        (np.array([1.0]), 2**102, F127),
        (np.array([1]), 2**60, F61),
        (np.array([1]), 5004, GF(10007)),
        (np.array([1]), 10**400, F127),
        (np.array([1.0]), 1e300, F127),
    ],
)
@pytest.mark.parametrize("owner", [None, 0])
def test_bounds_that_fit_no_field(values: Any, bound: Any, field: Field, owner: int | None) -> None:
    async def program(party: Party, _: Any) -> None:
        await party.share(values, bound=bound, owner=owner, field=field)

    done = run(program, parties=2)
    assert isinstance(done.outcomes[0], RangeError)
    assert not [m for m in done.sent if m.frm == 0]


def test_an_owner_without_values() -> None:
    async def program(party: Party, own: Any) -> None:
        await party.share(own, bound=5, owner=0, shape=(3,))

    assert "no values" in str(run(program, [None, None]).outcomes[0])
    assert "agreed is (3,)" in str(run(program, [np.zeros(2), None]).outcomes[0])


def test_there_is_no_such_owner() -> None:
    async def program(party: Party, _: Any) -> None:
        await party.share(np.zeros(2), bound=5, owner=2)

    assert "no party 2" in str(run(program, parties=2).outcomes[0])


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"bound": 6}, "bound of 6"),
        ({"bound": 5, "field": F61}, "F61"),
        ({"bound": 5, "values": np.zeros(3)}, "floats with 24 fraction bits"),
    ],
    ids=["bound", "field", "kind"],
)
def test_parties_that_disagree(theirs: dict[str, Any], words: str) -> None:
    for owner in (None, 1):

        async def program(party: Party, options: dict[str, Any], owner: int | None = owner) -> None:
            stated = {"values": np.zeros(3, int)} | options
            await party.share(stated.pop("values"), owner=owner, **stated)

        outcomes = run(program, [{"bound": 5}, theirs, {"bound": 5}]).outcomes
        if owner == 1 and "values" in theirs:
            continue  # the owner says what kind it is; stand-ins need not be of that kind
        assert isinstance(outcomes[0], AgreementError)
        assert words in str(outcomes[0])
        assert "party 1" in str(outcomes[0])


def test_another_shape_than_agreed() -> None:
    async def program(party: Party, shape: Any) -> None:
        await party.share(np.zeros(4) if party.rank == 0 else None, bound=5, owner=0, shape=shape)

    outcomes = run(program, [(4,), (2, 2), (4,)]).outcomes
    assert isinstance(outcomes[1], AgreementError)
    assert "(4,)" in str(outcomes[1])


# (what party 1 shares, the shape that all expect, what its error says of it)
OTHER_SHAPES: list[tuple[Any, Any, str]] = [
    (np.zeros(()), (2, 3), "shape () agreed is (2, 3)"),
    (np.zeros((1, 2, 3)), (2, 3), "shape (1, 2, 3)"),
    (np.zeros((2, 4)), (2, 3), "shape (2, 4)"),
    (np.zeros((5, 4)), (None, 3), "agreed is (any, 3)"),
    (np.zeros(3), (None, 3), "agreed is (any, 3)"),
    (np.zeros((4, 3)), [(2, 3), (5, 3), (None, 3)], "agreed is (5, 3)"),
    (np.zeros(1), (), "agreed is ()"),
]


@pytest.mark.parametrize(("theirs", "shape", "words"), OTHER_SHAPES, ids=str)
def test_another_shape_than_expected_of_everybody(theirs: Any, shape: Any, words: str) -> None:
    """Each party refuses its own array before anything is sent, and a peer's header before anything is allocated."""

    async def program(party: Party, own: Any) -> None:
        await party.share(own[0], bound=5, shape=own[1])

    expected = shape if isinstance(shape, list) else [shape] * 3
    fitting = [np.zeros(tuple(7 if length is None else length for length in one)) for one in expected]
    honest = run(program, [(fitting[0], shape), (theirs, shape), (fitting[2], shape)])
    assert isinstance(honest.outcomes[1], DataError)
    assert all(word in str(honest.outcomes[1]) for word in words.split(" agreed"))
    assert not [m for m in honest.sent if m.frm == 1]
    lying = run(program, [(fitting[0], shape), (theirs, None), (fitting[2], shape)])
    for rank in (0, 2):
        assert isinstance(lying.outcomes[rank], AgreementError | PeerError)
        assert f"party 1 shares shape {theirs.shape}" in str(lying.outcomes[rank])


def test_an_axis_may_be_free() -> None:
    async def program(party: Party, rows: int) -> Any:
        everybody = await party.share(np.ones((rows, 2)), bound=1, shape=(None, 2))
        told = await party.share(np.ones((rows, 2)), bound=1, shape=[(len(one), 2) for one in everybody])
        owned = await party.share(np.ones((rows, 2)) if party.rank == 1 else None, bound=1, owner=1, shape=(None, 2))
        return [one.shape for one in [*everybody, *told, owned]]

    for shapes in run(program, [0, 4, 2]).results:
        assert shapes == [(0, 2), (4, 2), (2, 2)] * 2 + [(4, 2)]


def test_shapes_for_other_parties_than_there_are() -> None:
    async def program(party: Party, owner: int | None) -> None:
        await party.share(np.zeros(2), bound=5, shape=[(2,)], owner=owner)

    assert "1 shapes for 2 parties" in str(run(program, parties=2).outcomes[0])
    assert isinstance(run(program, [0, 0]).outcomes[0], TypeError)


def test_more_entries_than_are_shared_at_once() -> None:
    """Nobody allocates more than 2^28 entries on the word of a peer, and nobody announces more."""
    large = np.broadcast_to(np.int64(1), (1 << 20, (1 << 8) + 1))

    async def program(party: Party, own: Any) -> None:
        await party.share(own, bound=5)

    done = run(program, [np.zeros(2, int), large])
    assert isinstance(done.outcomes[1], DataError)
    assert "share it in parts" in str(done.outcomes[1])
    assert not [m for m in done.sent if m.frm == 1]
    assert Header.from_bytes(Header((1 << 28,), 0, 5, "F127").to_bytes()).shape == (1 << 28,)
    for shape in [((1 << 28) + 1,), (1 << 27, 3), (1 << 30, 0)]:
        with pytest.raises(ValueError, match="not a header"):
            Header.from_bytes(Header(shape, 0, 5, "F127").to_bytes())


@pytest.mark.parametrize("theirs", [23, 25])
def test_other_fraction_bits_are_a_disagreement(theirs: int) -> None:
    async def program(party: Party, scale: int) -> None:
        await party.share(np.zeros(2), bound=2**60, owner=1, scale=scale)

    outcomes = run(program, [24, theirs]).outcomes
    assert isinstance(outcomes[0], AgreementError)


# ---- agreement on terms -----------------------------------------------------------------------------------------


def test_agreement_on_terms() -> None:
    async def program(party: Party, terms: str) -> None:
        await agree(party, "columns", terms)

    done = run(program, ["age, sex"] * 3)
    done.results  # noqa: B018
    assert {len(m.data) for m in done.sent} == {32}
    assert all(party.costs.rounds == 1 for party in done.parties)

    outcomes = run(program, ["age, sex", "age, sex", "age"]).outcomes
    assert all(isinstance(outcome, AgreementError) for outcome in outcomes)
    assert "party 2 and party 0 do not name the same columns" in str(outcomes[0])
    assert "party 0 and party 2" in str(outcomes[2])


@pytest.mark.parametrize("field", FIELDS, ids=repr)
def test_constants(field: Field) -> None:
    async def program(party: Party, _: Any) -> Any:
        constants = [
            party.constant(5, field=field),
            party.constant(np.array([-3, 4]), field=field),
            party.constant(2, field=field, shape=(2, 2)),
            party.constant(1, scale=3, field=field),
            party.constant(0.5, scale=4, field=field),
        ]
        return await open_(party, *constants)

    five, array, filled, lifted, half = run(program).results[1]
    assert five == 5
    np.testing.assert_array_equal(array, [-3, 4])
    np.testing.assert_array_equal(filled, [[2, 2], [2, 2]])
    assert (lifted, half) == (1.0, 0.5)
