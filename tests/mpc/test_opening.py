"""Opening: exact values, to all or to some, by broadcast or in parts."""

from typing import Any

import numpy as np
import pytest

from mpc import F61, F127, GF, Party, RangeError, open_, opening
from mpc.share import Share
from mpc.transport import CHUNK_BYTES
from tests.mpc.support import SMALL_WORLDS, WORLDS, run, same, shares_of

X = np.array([[0, 1, -1], [2**40, -(2**40), 7]])
Y = np.array([0.5, -0.25, 1e-3])


@pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
def test_several_arrays_of_several_fields_go_out_together(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y, empty = await shares_of(party, [X, Y, np.zeros((0, 2))], 2**41)
        (small,) = await shares_of(party, [X // 2**20], 2**21, F61)
        before = party.costs.total
        opened = await open_(party, x, small, y, empty, x[0, 1])
        assert party.costs.since(before).rounds == 2  # one for each field
        return opened

    for opened in run(program, parties=parties, preprocessing=preprocessing).results:
        np.testing.assert_array_equal(opened[0], X)
        np.testing.assert_array_equal(opened[1], X // 2**20)
        np.testing.assert_allclose(opened[2], Y, atol=2**-25)
        assert opened[3].shape == (0, 2)
        assert opened[4] == 1
        assert [v.dtype.kind for v in opened] == ["i", "i", "f", "f", "i"]


@pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)
@pytest.mark.parametrize("to", [[0], [1], {0, 1}, [], [1, 1]])
def test_to_some_only(parties: int, preprocessing: str, to: Any) -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [X, Y], 2**41)
        return await open_(party, x, y, to=to)

    done = run(program, parties=parties, preprocessing=preprocessing)
    for rank, opened in enumerate(done.results):
        if rank in to:
            np.testing.assert_array_equal(opened[0], X)
            np.testing.assert_allclose(opened[1], Y, atol=2**-25)
        else:
            assert opened == (None, None)
    assert {m.to for m in done.sent_after_inputs()} == set(to)


def test_the_recipients_are_parties() -> None:
    async def program(party: Party, _: Any) -> Any:
        with pytest.raises(ValueError, match="ranks go from 0 to 1"):
            await open_(party, party.constant(1), to=[2])
        with pytest.raises(ValueError, match="nothing"):
            await open_(party)

    assert not run(program, parties=2).sent


# Just below, at and above every edge: of broadcasting, of one chunk, of a group of chunks, of the window.
SIZES = [
    opening.BROADCAST_BYTES // 16,
    opening.BROADCAST_BYTES // 16 + 1,
    CHUNK_BYTES // 16 * 3,
    CHUNK_BYTES // 16 * 3 + 1,
    CHUNK_BYTES // 16 * 3 * opening.WINDOW * 2 + 5,
]


@pytest.mark.parametrize(("parties", "preprocessing"), [(2, "dealer"), (3, "prss"), (4, "dealer"), (5, "prss")])
@pytest.mark.parametrize("size", SIZES)
def test_long_arrays(parties: int, preprocessing: str, size: int) -> None:
    if size == SIZES[-1] and parties > 3:
        size = CHUNK_BYTES // 16 * parties + 1
    values = np.arange(size) - size // 2

    async def program(party: Party, _: Any) -> Any:
        x = await party.share(values if party.rank == 1 else None, bound=size, owner=1)
        return await open_(party, x), await open_(party, x, to=[1])

    done = run(program, parties=parties, preprocessing=preprocessing)
    for rank, (opened, alone) in enumerate(done.results):
        np.testing.assert_array_equal(opened, values)
        assert (alone is None) == (rank != 1)
    np.testing.assert_array_equal(done.results[1][1], values)
    assert max(len(m.data) for m in done.sent) <= CHUNK_BYTES


@pytest.mark.parametrize("field", [F61, GF(5)], ids=repr)
def test_long_arrays_of_other_fields(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "BROADCAST_BYTES", 1000)
    size = 1000 // field.element_bytes + 7
    values = np.arange(size) % 5 - 2

    async def program(party: Party, _: Any) -> Any:
        x = await party.share(values if party.rank == 0 else None, bound=2, owner=0, field=field)
        return await open_(party, x)

    done = run(program)
    np.testing.assert_array_equal(same(done.results), values)
    assert any(m.step.endswith("s") for m in done.sent_after_inputs())


@pytest.mark.parametrize(
    "values",
    [
        np.array([6, 0]),
        np.array([-6, 0]),
        np.array([0.0, 5.1]),
        np.array([-(2**63), 0]),
        np.array([2**64, 0], dtype=object),
        np.array([-(2**64), 0], dtype=object),
    ],
)
def test_a_broken_promise_is_told_to_all(values: Any) -> None:
    async def program(party: Party, _: Any) -> Any:
        x = await party.share(values if party.rank == 0 else None, bound=2**65, owner=0)
        await open_(party, party.constant(1), x.bounded_by(5))

    for outcome in run(program).outcomes:
        assert isinstance(outcome, RangeError)
        assert "bounded_by" in str(outcome)


@pytest.mark.parametrize("bound", [5, 5.0, 0.3, 2**100 + 1])
def test_values_at_their_bound_pass(bound: Any) -> None:
    async def program(party: Party, _: Any) -> Any:
        return await open_(party, await party.share([bound, -bound], bound=bound, owner=0))

    got = run(program).results[0]
    np.testing.assert_allclose(got.astype(float), np.array([bound, -bound], dtype=float), rtol=1e-6)


def test_more_fraction_bits_than_a_field_has() -> None:
    async def program(party: Party, _: Any) -> Any:
        x = await party.share(np.ones(3) if party.rank == 0 else None, bound=1, owner=0)
        with pytest.raises(RangeError, match="fraction bits"):
            await open_(party, x.scaled_down(103))
        return await open_(party, x.scaled_down(102))

    done = run(program)
    np.testing.assert_array_equal(done.results[2], np.full(3, 2.0**-102))
    assert len(done.sent_after_inputs()) == 6


def test_each_opening_is_shared_afresh() -> None:
    """The same summands twice would still be the same; what is sent is not."""

    async def program(party: Party, _: Any) -> Any:
        x = Share(F127, F127.zeros((4,)), 0, 0, leads=party.rank == 0)
        await open_(party, x)
        await open_(party, x)

    done = run(program)
    messages = [m.data for m in done.sent if m.frm == 0 and m.to == 1]
    assert len(set(messages)) == 2
    assert bytes(64) not in messages
