"""Material that is planned, made, written out, read in and used: by programs that take something of everything."""

import asyncio
import io
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from mpc import (
    F61,
    Party,
    PeerError,
    is_negative,
    mask,
    matmul,
    multiply,
    open_,
    prepare,
    shuffle,
    sigmoid,
    sort,
    truncate,
)
from mpc.plan import Plan, make, plan_of
from mpc.preprocessing.carriages import DealtMasks
from mpc.preprocessing.ot import OtMask
from mpc.preprocessing.permutations import Permutation
from mpc.stock import Record, StockError, Tally, decode, encode, end, records_of, stocked
from tests.mpc.support import Run, run, shares_of

X, Y = np.array([[1.5, -2.0, 0.25]]), np.array([[0.5, 3.0, -1.0]])
SIZES = [2, 3]


async def work(party: Party, scale: float) -> Any:
    """Everything that takes something from a preprocessing, in scopes and out of them."""
    x, y = await shares_of(party, [X * scale, Y * scale], 4.0)
    z = await truncate(party, await multiply(party, x, y))
    kept = await mask(party.at("inner"), y)
    results = [
        await matmul(party.at("inner"), kept, z.T),
        await sigmoid(party, z.bounded_by(16)),
        await is_negative(party, x - y),
        await multiply(party, kept, kept),
        *await shuffle(party.at("mix"), [x.T, y.T]),
    ]
    return await open_(party.at("end"), *results)


def check(results: Any) -> None:
    product, p, negative, square, first, second = results
    z = X * Y
    np.testing.assert_allclose(product, Y @ z.T, atol=1e-5)
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-z)), atol=2e-4)
    np.testing.assert_array_equal(negative, X < Y)
    np.testing.assert_allclose(square, Y * Y)
    pairs = sorted(zip(X[0], Y[0], strict=True))
    assert sorted(zip(first.ravel(), second.ravel(), strict=True)) == pairs


def made(plan: Plan, size: int) -> tuple[list[bytes], list[Tally], Run]:
    """Make what a plan asks for, at all parties; returns what each has written."""

    async def maker(party: Party, _: Any) -> tuple[bytes, Tally]:
        tally, out = Tally(), bytearray()

        async def keep(record: Record) -> None:
            for part in encode(record, tally):
                out.extend(part)

        await make(party, plan, keep)
        return bytes(out + end()), tally

    done = run(maker, parties=size, preprocessing="ot")
    return [data for data, _ in done.results], [tally for _, tally in done.results], done


def used(program: Callable[[Party, Any], Any], written: list[bytes]) -> tuple[Run, list[int]]:
    """Run a program on material; returns how it went, and how many items were left."""
    left = []

    async def user(party: Party, _: Any) -> Any:
        party.preprocessing = stock = stocked(
            party.preprocessing, decode(io.BytesIO(written[party.rank]).read, Tally()), "batch"
        )
        result = await program(party, 1.0)
        left.append(len(stock))
        return result

    return run(user, parties=len(written), preprocessing="ot"), left


@pytest.mark.parametrize("size", SIZES)
def test_what_was_kept_is_used_and_nothing_is_transferred(size: int) -> None:
    plan = plan_of(work, [0.5] * size)
    assert {item.wanted[0] for item in plan.items} == {
        *("uniform", "bounded", "product", "waves", "signs", "bits", "permutation", "carriage")
    }
    written, tallies, _ = made(plan, size)
    assert len({tally.structure for tally in tallies}) == 1
    assert tallies[0].items == len(plan.items)
    done, left = used(work, written)
    for results in done.results:
        check(results)
    assert left == [0] * size
    # Messages are those of inputs, openings and hops, and no others.
    kinds = Counter(message.step.rpartition("/")[2].partition("#")[0] for message in done.sent)
    assert not [kind for kind in kinds if kind.startswith(("choose", "offer", "product", "part"))]
    assert not [m for m in done.sent if "/product" in m.step or "/waves" in m.step or "/carriage" in m.step]
    live = run(work, [1.0] * size, preprocessing="ot")
    assert len(done.sent) < len(live.sent) / 2
    costs = done.parties[0].costs.by_step
    assert not [step for step, cost in costs.items() if step.endswith(("/transfers", "/lattice")) and cost.rounds]


@pytest.mark.parametrize("size", SIZES)
def test_what_is_read_is_what_was_written(size: int) -> None:
    written, tallies, _ = made(plan_of(work, [0.5] * size), size)
    for data, tally in zip(written, tallies, strict=True):
        again, copy = Tally(), bytearray()
        file = io.BytesIO(data)
        records = list(decode(file.read, again))
        assert file.read() == b""
        assert (again.structure, again.items, again.products) == (tally.structure, tally.items, tally.products)
        for record in records:
            for part in encode(record, Tally()):
                copy.extend(part)
        assert bytes(copy + end()) == data


@pytest.mark.parametrize("size", SIZES)
def test_summands_belong_together(size: int) -> None:
    """What one party wrote is one summand; in sum with the others' a product is the product of the masks."""

    async def products(party: Party, _: Any) -> Any:
        x = await party.share(np.arange(5) if party.rank == 0 else None, bound=5, owner=0, shape=(5,))
        y = await party.share(np.arange(5) if party.rank == 1 else None, bound=5, owner=1, shape=(5,))
        return await open_(party, await multiply(party, x, y))

    written, _, _ = made(plan_of(products, [None] * size), size)
    those = [list(decode(io.BytesIO(data).read, Tally())) for data in written]
    assert [record.wanted[0] for record in those[0]] == ["uniform", "uniform", "product"]
    field = those[0][0].item.field
    a, b, c = field.zeros(5), field.zeros(5), field.zeros(5)
    for first, second, product in those:
        a, b, c = field.add(a, first.item.summand), field.add(b, second.item.summand), field.add(c, product.item)
    assert field.mul(a, b).tolist() == c.tolist()


def test_a_program_that_asks_for_something_else_is_served_as_usual() -> None:
    """What does not fit is dropped, at all parties alike."""
    plan = plan_of(work, [0.5] * 2)
    written, _, _ = made(plan, 2)

    async def other(party: Party, _: Any) -> Any:
        x = await party.share(np.arange(8) if party.rank == 0 else None, bound=8, owner=0, shape=(8,))
        return await open_(party, await multiply(party, x, x), await is_negative(party.at("more"), x - 3))

    done, left = used(other, written)
    for squares, negative in done.results:
        np.testing.assert_array_equal(squares, np.arange(8) ** 2)
        np.testing.assert_array_equal(negative, np.arange(8) < 3)
    assert left[0] == left[1] < len(plan.items)


def test_a_program_that_goes_on_longer_takes_the_rest_as_it_comes() -> None:
    async def until_small(party: Party, start: float) -> Any:
        x = await party.share(np.array([start]) if party.rank == 0 else None, bound=1.0, owner=0, shape=(1,))
        for _ in range(10):
            x = await truncate(party, (await multiply(party, x, x)).bounded_by(4.0))
            if np.abs(await open_(party, x)).max() < 0.1:
                break
        return await open_(party, x)

    async def program(party: Party, _: Any) -> Any:
        return await until_small(party, 0.9)

    written, _, _ = made(plan_of(until_small, [0.5] * 2), 2)
    done, left = used(program, written)
    np.testing.assert_allclose(done.results, [[0.9**32]] * 2, atol=1e-5)
    assert left == [0, 0]


def test_sorting_is_planned_too() -> None:
    async def sorted_by(party: Party, _: Any) -> Any:
        x = await party.share(np.array([5, 3, 9, 1]) if party.rank == 0 else None, bound=16, owner=0, shape=(4,))
        keys, _ = await sort(party, x)
        return await open_(party, keys)

    written, _, _ = made(plan_of(sorted_by, [None] * 2), 2)
    done, left = used(sorted_by, written)
    for result in done.results:
        np.testing.assert_array_equal(result, [1, 3, 5, 9])
    assert left == [0, 0]


@pytest.mark.parametrize("size", SIZES)
def test_a_rehearsals_stock_can_be_kept(size: int) -> None:
    """The other way: what prepare() took, in one session, serves the program in another one."""

    async def first(party: Party, x: Any, y: Any) -> Any:
        return await multiply(party, x, y), *await shuffle(party.at("mix"), [x])

    async def rehearse(party: Party, _: Any) -> bytes:
        x, y = await shares_of(party, [X[0], Y[0]], 4.0)
        await prepare(party, first, x, y)
        tally = Tally()
        return b"".join(bytes(part) for one in records_of(party.preprocessing) for part in encode(one, tally)) + end()  # type: ignore[arg-type]

    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [X[0], Y[0]], 4.0)
        return await open_(party.at("end"), *await first(party, x, y))

    written = run(rehearse, parties=size, preprocessing="ot").results
    done, left = used(program, written)
    for product, mixed in done.results:
        np.testing.assert_allclose(product, X[0] * Y[0])
        assert sorted(mixed) == sorted(X[0])
    assert left == [0] * size


@pytest.mark.parametrize(("parties", "preprocessing"), [(2, "dealer"), (3, "prss")])
def test_material_of_other_preprocessings_is_refused_by_name(parties: int, preprocessing: str) -> None:
    async def keep(party: Party, _: Any) -> None:
        (x,) = await shares_of(party, [X], 4.0)
        await prepare(party, multiply, x, x)
        list(records_of(party.preprocessing))  # type: ignore[arg-type]

    async def plan(party: Party, _: Any) -> None:
        await make(party, Plan(()), lambda record: asyncio.sleep(0))

    async def take(party: Party, _: Any) -> None:
        stocked(party.preprocessing, iter(()), "batch")

    for program in (keep, plan, take):
        outcomes = run(program, parties=parties, preprocessing=preprocessing).outcomes
        assert any(isinstance(outcome, StockError) for outcome in outcomes)
        for outcome in outcomes:
            assert isinstance(outcome, StockError | PeerError)
            assert repr(preprocessing) in str(outcome)


# ---- plans ----------------------------------------------------------------------------------------


def test_plans_go_over_the_wire() -> None:
    plan = plan_of(work, [0.5] * 3)
    assert Plan.from_bytes(plan.to_bytes()) == plan
    assert Plan.from_bytes(plan.to_bytes()).digest == plan.digest
    assert plan_of(work, [0.25] * 3).digest == plan.digest


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"[[1]]",
        b'[["", ["nothing"], null]]',
        b'[["", ["uniform", "F127", [-1]], null]]',
        b'[["", ["uniform", "F127", [1]], null]]',
        b'[["", ["permutation", 5], ["", 0, -5]]]',
        b'[["", ["signs", [], "F61", 1], null]]',
        b'[["", ["waves", [], 0, [1], 40], null]]',
        b'[["", ["uniform", "F127", [4294967296]], ["", 0, "F127", [1], 0]]]',
        b"[" * 100_000,
    ],
)
def test_what_is_no_plan_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no plan"):
        Plan.from_bytes(content)


@pytest.mark.parametrize("how", ["missing", "twice", "shape"])
def test_a_plan_that_makes_no_sense_is_refused(how: str) -> None:
    plan = plan_of(work, [0.5] * 2)
    items = list(plan.items)
    first = next(n for n, item in enumerate(items) if item.wanted[0] == "product")
    if how == "missing":
        items = items[first:]
    elif how == "twice":
        items.insert(0, items[0])
    else:
        wanted = (*items[0].wanted[:2], (7, 7), *items[0].wanted[3:])
        items[0] = items[0]._replace(wanted=wanted)

    async def program(party: Party, _: Any) -> None:
        await make(party, Plan(tuple(items)), lambda record: asyncio.sleep(0))

    for outcome in run(program, parties=2, preprocessing="ot").outcomes:
        assert isinstance(outcome, StockError)
        assert "plan" in str(outcome)


def test_what_a_program_raises_on_made_up_data_is_told() -> None:
    async def fails(party: Party, _: Any) -> None:
        x = await party.share([1.0] if party.rank == 0 else None, bound=4.0, owner=0, shape=(1,))
        await multiply(party, x, x)
        raise ZeroDivisionError("of a program")

    async def fails_at_one(party: Party, _: Any) -> None:
        x = await party.share([1.0] if party.rank == 0 else None, bound=4.0, owner=0, shape=(1,))
        if party.rank == 1:
            raise ZeroDivisionError("of a program")
        await multiply(party, x, x)

    for program in (fails, fails_at_one):
        with pytest.raises(ZeroDivisionError, match="of a program"):
            plan_of(program, [None] * 3)


# ---- bytes that are no stock ----------------------------------------------------------------------


def altered(data: bytes) -> Iterator[bytes]:
    (length,) = struct.unpack_from(">I", data)
    head = json.loads(data[4 : 4 + length])

    def with_head(changed: Any) -> bytes:
        text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return struct.pack(">I", len(text)) + text + data[4 + length :]

    yield struct.pack(">I", 1 << 31) + data[4:]
    yield with_head(b"no json")
    yield with_head(head[:4])
    yield with_head([head[0], ["nothing"], *head[2:]])
    yield with_head([["path"], *head[1:]])
    yield with_head([head[0], ["uniform", "F127", [1 << 40]], *head[2:]])
    yield with_head([head[0], ["uniform", "F128", [1]], *head[2:]])
    yield with_head([*head[:2], [5], *head[3:]])
    yield with_head([*head[:3], ["values", [1]], head[4]])
    yield with_head([*head[:3], ["mask", 2, 1 << 20, head[3][3]], head[4]])
    yield with_head([*head[:3], ["mask", 2, 127, []], head[4]])
    yield with_head([*head[:3], None, head[4]])


def test_bytes_that_are_no_stock_are_refused() -> None:
    written, _, _ = made(plan_of(work, [0.5] * 2), 2)
    for data in altered(written[0]):
        with pytest.raises(StockError):
            list(decode(io.BytesIO(data + bytes(1000)).read, Tally()))


def test_numbers_that_are_no_elements_are_refused() -> None:
    """Nothing that is read can bring arithmetic out of its field, whoever wrote it."""
    base = ["", 0, "F61", [1], 0]
    head = ["", ["uniform", "F61", [1]], [], ["mask", 2, 61, [[base, [], "1"]]], []]
    text = json.dumps(head).encode()
    for value, fine in ((F61.modulus - 1, True), (F61.modulus, False)):
        data = struct.pack(">I", len(text)) + text + struct.pack("<Q", value) + end()
        if fine:
            (record,) = decode(io.BytesIO(data).read, Tally())
            assert isinstance(record.item, OtMask)
        else:
            with pytest.raises(StockError):
                list(decode(io.BytesIO(data).read, Tally()))


def test_a_permutation_that_is_none_is_refused() -> None:
    head = ["", ["permutation", 3], [], ["permutation", ["", 0, 3], 2], [True, False]]
    text = json.dumps(head).encode()
    for rows, fine in (((2, 0, 1), True), ((2, 0, 2), False), ((2, 0, 5), False)):
        data = struct.pack(">I", len(text)) + text + struct.pack("<3I", *rows) + end()
        if fine:
            (record,) = decode(io.BytesIO(data).read, Tally())
            assert isinstance(record.item, Permutation)
        else:
            with pytest.raises(StockError):
                list(decode(io.BytesIO(data).read, Tally()))


def test_nothing_secret_shows() -> None:
    """A record that finds its way into a text shows shapes and names."""
    written, _, _ = made(plan_of(work, [0.5] * 2), 2)
    for record in decode(io.BytesIO(written[0]).read, Tally()):
        if isinstance(record.item, OtMask | Permutation):
            assert len(repr(record.item)) < 60
        elif isinstance(record.item, DealtMasks):
            assert record.item.after is not None


def test_names_of_kept_masks_are_never_those_of_a_session() -> None:
    """So that no product that was kept is taken for another pair of masks."""
    written, _, _ = made(plan_of(work, [0.5] * 2), 2)

    async def look(party: Party, _: Any) -> None:
        stock = stocked(party.preprocessing, decode(io.BytesIO(written[party.rank]).read, Tally()), "batch")
        for _, wanted, item, _ in stock.items():
            if isinstance(item, OtMask):
                assert item.recipe.terms[0].base.path.startswith("batch|")
            if isinstance(wanted, tuple) and wanted[0] == "product":
                assert all(term.base.path.startswith("batch|") for term in (*wanted[1].terms, *wanted[2].terms))

    run(look, parties=2, preprocessing="ot").results  # noqa: B018
