"""What docstrings say that a protocol costs, compared with what it cost."""

import hashlib
import math
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from mpc import (
    F127,
    Costs,
    Field,
    Opening,
    Party,
    StepCost,
    is_negative,
    mask,
    matmul,
    multiply,
    open_,
    opening,
    prepare,
    sigmoid,
    truncate,
)
from mpc.costs import MOST_OPENINGS
from mpc.preprocessing.factors import split_first
from mpc.sigmoid import series
from mpc.transport import CHUNK_BYTES
from tests.mpc.support import ALL_WORLDS, SMALL_WORLDS, WORLDS, Run, but_transfers, run, shares_of

LARGE = 3 * CHUNK_BYTES // 16  # elements; openings of these go in parts

worlds = pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
small_worlds = pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)


def cost_of(
    protocol: Callable[..., Awaitable[Any]],
    shapes: list[tuple[int, ...]],
    parties: int,
    preprocessing: str,
    *,
    bound: Any = 100,
    masked: tuple[int, ...] = (),
    field: Field = F127,
) -> tuple[StepCost, Run]:
    """Return what the protocol cost party 0, but for transfers, once all parties are known to have paid the same."""

    async def program(party: Party, _: Any) -> StepCost:
        shares = await shares_of(party, [np.zeros(shape, int) for shape in shapes], bound, field)
        shares = [await mask(party, x) if k in masked else x for k, x in enumerate(shares)]
        before = but_transfers(party.costs)
        await protocol(party, *shares)
        return but_transfers(party.costs, before)

    done = run(program, parties=parties, preprocessing=preprocessing)
    costs = done.results
    assert len({party.costs.rounds for party in done.parties}) == 1
    assert len({(c.rounds, c.elements_opened, c.triples) for c in costs}) == 1
    return costs[0], done


def payload(elements: int, parties: int, width: int = 16) -> int:
    """Bytes that a party sends to open so many elements by broadcast."""
    return elements * width * (parties - 1)


@worlds
@pytest.mark.parametrize(
    ("shapes", "masked", "opened", "triples"),
    [
        ([(7,), (7,)], (), 14, 7),
        ([(5, 1), (1, 3)], (), 8, 15),
        ([(4,), ()], (), 5, 4),
        ([(7,), (7,)], (0,), 7, 7),
        ([(7,), (7,)], (1,), 7, 7),
        ([(7,), (7,)], (0, 1), 0, 7),
    ],
    ids=str,
)
def test_multiply(parties: int, preprocessing: str, shapes: Any, masked: Any, opened: int, triples: int) -> None:
    cost, _ = cost_of(multiply, shapes, parties, preprocessing, masked=masked)
    assert (cost.rounds, cost.elements_opened, cost.triples) == (1 if opened else 0, opened, triples)
    assert cost.bytes_sent == payload(opened, parties)
    assert cost.messages == (parties - 1 if opened else 0)


@worlds
def test_square(parties: int, preprocessing: str) -> None:
    cost, _ = cost_of(lambda party, x: multiply(party, x, x), [(9,)], parties, preprocessing)
    assert (cost.rounds, cost.elements_opened, cost.triples) == (1, 9, 9)


@worlds
@pytest.mark.parametrize(("masked", "opened"), [((), 6 + 12), ((0,), 12), ((0, 1), 0)])
def test_matmul(parties: int, preprocessing: str, masked: Any, opened: int) -> None:
    cost, _ = cost_of(matmul, [(2, 3), (3, 4)], parties, preprocessing, masked=masked)
    assert (cost.rounds, cost.elements_opened, cost.triples) == (1 if opened else 0, opened, 2 * 3 * 4)


@worlds
def test_mask_truncate_and_open(parties: int, preprocessing: str) -> None:
    for protocol in (mask, lambda party, x: truncate(party, x.lifted(30)), lambda party, x: open_(party, x)):
        cost, _ = cost_of(protocol, [(3, 5)], parties, preprocessing)
        assert (cost.rounds, cost.elements_opened, cost.triples) == (1, 15, 0)
        assert cost.bytes_sent == payload(15, parties)


@pytest.mark.parametrize(("parties", "preprocessing"), [(2, "dealer"), (3, "prss"), (5, "dealer")])
def test_large_openings(parties: int, preprocessing: str) -> None:
    """Two rounds and 2(n-1)/n elements sent for each, instead of n-1."""
    cost, _ = cost_of(lambda party, x: open_(party, x), [(LARGE,)], parties, preprocessing)
    assert cost.rounds == (1 if parties == 2 else 2)
    assert cost.elements_opened == LARGE
    expected = 16 * LARGE * (1 if parties == 2 else 2 * (parties - 1) / parties)
    assert cost.bytes_sent == pytest.approx(expected, rel=1e-3)
    at_most, _ = cost_of(lambda party, x: open_(party, x), [(opening.BROADCAST_BYTES // 16,)], parties, preprocessing)
    assert (at_most.rounds, at_most.bytes_sent) == (1, payload(opening.BROADCAST_BYTES // 16, parties))


@small_worlds
def test_openings_to_some(parties: int, preprocessing: str) -> None:
    cost, done = cost_of(lambda party, x: open_(party, x, to=[1]), [(10,)], parties, preprocessing)
    assert (cost.rounds, cost.elements_opened, cost.bytes_sent) == (1, 10, 160)
    assert len(done.sent_after_inputs()) == parties - 1


@pytest.mark.parametrize(("parties", "preprocessing"), ALL_WORLDS)
@pytest.mark.parametrize("bound", [1, 3, 2**10 - 1, 2**47])
def test_comparison(parties: int, preprocessing: str, bound: int) -> None:
    """In units of 64 entries: a word of bits is counted as one element."""
    cost, _ = cost_of(is_negative, [(64,)], parties, preprocessing, bound=bound)
    k = bound.bit_length()
    more = {"dealer": 0, "prss": 2 * ((parties - 1) // 2), "ot": parties - 1}[preprocessing]
    assert cost.rounds == 2 + math.ceil(math.log2(k)) + more
    if preprocessing == "dealer":
        assert cost.elements_opened <= 64 + 3 * k + 1
        assert cost.bytes_sent == payload(64, parties) + payload(cost.elements_opened - 64, parties, 8)


@pytest.mark.parametrize(("parties", "preprocessing"), ALL_WORLDS)
def test_sigmoid(parties: int, preprocessing: str) -> None:
    cost, done = cost_of(sigmoid, [(11,)], parties, preprocessing, bound=20)
    colluders = (parties - 1) // 2 if preprocessing == "prss" else 0
    assert cost.rounds == {"dealer": 1, "prss": 2 * colluders, "ot": parties - 1}[preprocessing]
    width = 2 * len(series(22.0, 1e-4)[1])
    if preprocessing == "dealer":
        assert cost.elements_opened == 11
        corrections = [m for m in done.log if m.frm == parties and m.step.startswith("correction")]
        assert sum(len(m.data) for m in corrections) == 11 * width * 16
    elif colluders == 1:
        assert cost.elements_opened == 11
        split = [m for m in done.sent_after_inputs() if "split" in m.step]
        assert {(m.frm, m.to) for m in split} == {(0, 2)}
        assert sum(len(m.data) for m in split) == 11 * width * 16


def test_material_of_a_sigmoid() -> None:
    assert 2 * len(series(22.0, 1e-4)[1]) == 32
    assert 2 * len(series(60.0, 1e-4)[1]) == 70


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_a_dealer_sends_one_element_for_each_product_to_the_last_party(parties: int) -> None:
    async def both(party: Party, x: Any, y: Any, z: Any) -> None:
        await multiply(party, x, y)
        await matmul(party, z, z.T)

    _, done = cost_of(both, [(7,), (7,), (3, 2)], parties, "dealer")
    answers = [m for m in done.log if m.frm == parties and not m.step.startswith("join/")]
    assert {m.to for m in answers} == {parties - 1}
    assert sum(len(m.data) for m in answers) == 16 * (7 + 3 * 3)
    requests = [m for m in done.log if m.to == parties]
    assert {m.frm for m in requests if m.data != b"leave"} == {parties - 1}


@pytest.mark.parametrize("parties", [3, 4, 5, 7])
def test_prss_sends_nothing_for_masks_and_products(parties: int) -> None:
    async def free(party: Party, x: Any, y: Any) -> None:
        await multiply(party, x, y)

    _, done = cost_of(free, [(7,), (7,)], parties, "prss", masked=(0, 1))
    assert not [m for m in done.sent_after_inputs() if "/mask#" not in m.step]


def test_splitting_sends_one_array_from_party_0_to_party_2() -> None:
    async def program(party: Party, _: Any) -> Any:
        return await split_first(party, F127, (5,), F127.encode(np.arange(5)) if party.rank == 0 else None)

    done = run(program, preprocessing="prss")
    none, first, second = done.results
    assert none is None
    np.testing.assert_array_equal(F127.decode(F127.add(first, second)), np.arange(5))
    assert [(m.frm, m.to, len(m.data)) for m in done.sent] == [(0, 2, 80)]
    assert all(party.costs.rounds == 1 for party in done.parties)


def test_costs_add_up_by_step() -> None:
    async def program(party: Party, _: Any) -> None:
        (x,) = await shares_of(party, [np.zeros(4, int)], 5)
        for _ in range(3):
            await multiply(party.at("work"), x, x)
        await open_(party, x)

    for party in run(program).parties:
        costs = party.costs
        assert {name: (c.rounds, c.elements_opened) for name, c in costs.by_step.items() if c.rounds} == {
            "share/header": (1, 0),
            "work/multiply": (3, 12),
            "open": (1, 4),
        }
        assert (costs.rounds, costs.elements_opened, costs.triples) == (5, 16, 12)
        assert costs.bytes_sent == sum(c.bytes_sent for c in costs.by_step.values())
        assert costs.total.seconds >= 0


def test_counting() -> None:
    costs = Costs()
    costs.step("a").rounds += 2
    before = costs.total
    costs.step("a").add(StepCost(rounds=1, bytes_sent=7))
    costs.step("b").triples += 5
    assert costs.since(before) == StepCost(rounds=1, bytes_sent=7, triples=5)
    assert (costs.rounds, costs.bytes_sent, costs.triples) == (3, 7, 5)


# ---- what was opened ----------------------------------------------------------------------------------------------


def digest_of(*arrays: Any) -> str:
    """The digest as docstrings describe it."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.name} {array.shape}\n".encode())
        if array.dtype.kind == "O":
            digest.update(",".join(map(str, array.flat)).encode())
        else:
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


@small_worlds
def test_openings_are_listed_with_a_digest_where_they_were_learnt(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        values = [np.arange(6).reshape(2, 3), np.array(1.5), 1 << 70]
        whole, fixed, large = await shares_of(party, values, [7, 7, 1 << 71])
        await multiply(party, await truncate(party, fixed.lifted(30)), whole)  # masked: no opening
        everything = await open_(party, whole, large)
        other = await open_(party.at("deep").at("er"), fixed, to=[1])
        await open_(party, whole[:0])
        return everything, other

    done = run(program, parties=parties, preprocessing=preprocessing)
    for (everything, other), party in zip(done.results, done.parties, strict=True):
        first, second, third = party.costs.openings
        assert first == Opening("open", ((2, 3), ()), 7, None, digest_of(*everything))
        assert second == Opening(
            "deep/er/open to", ((),), 1, (1,), None if party.rank != 1 else digest_of(np.asarray(other))
        )
        assert (third.shapes, third.elements) == (((0, 3),), 0)
        assert party.costs.openings_unlisted == 0
    assert len({party.costs.openings[0].digest for party in done.parties}) == 1


def test_what_fails_after_it_went_out_is_listed_too() -> None:
    async def program(party: Party, _: Any) -> None:
        (x,) = await shares_of(party, [np.array([5])], 7)
        await open_(party, x.bounded_by(2))

    for party in run(program).parties:
        assert [(o.step, o.digest) for o in party.costs.openings] == [("open", None)]


def test_a_rehearsal_opens_nothing() -> None:
    async def program(party: Party, _: Any) -> Costs:
        (x,) = await shares_of(party, [np.arange(3)], 7)
        return await prepare(party, lambda seat: open_(seat, x, to=[0]))

    done = run(program)
    assert all(not rehearsed.openings for rehearsed in done.results)
    assert all(not party.costs.openings for party in done.parties)


def test_the_list_of_openings_is_bounded() -> None:
    costs, opening = Costs(), Opening("open", ((),), 1, None, "00")
    for _ in range(MOST_OPENINGS + 3):
        costs.opened(opening)
    assert (len(costs.openings), costs.openings_unlisted) == (MOST_OPENINGS, 3)
