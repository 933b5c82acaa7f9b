"""Products, and operands that were masked once for many of them."""

import asyncio
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import (
    F61,
    F127,
    GF,
    Field,
    Party,
    RangeError,
    Share,
    concatenate,
    mask,
    matmul,
    multiply,
    open_,
    products,
    truncate,
)
from mpc.preprocessing.requests import MOST_TERMS
from tests.mpc.support import (
    ALL_WORLDS,
    SMALL_WORLDS,
    WORLDS,
    but_transfers,
    exact,
    in_turn,
    opened,
    run,
    same,
    shares_of,
)

FIELDS: list[Any] = [F127, F61, GF(10007)]
worlds = pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
small_worlds = pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)


@pytest.mark.parametrize(
    ("parties", "preprocessing", "shapes"),
    in_turn(ALL_WORLDS, [((), ()), ((3,), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((), (2, 2)), ((0, 3), (3,))]),
)
def test_multiply(parties: int, preprocessing: str, shapes: Any, rng: np.random.Generator) -> None:
    x, y = (rng.integers(-(2**40), 2**40, size=shape) for shape in shapes)
    product = opened(multiply, x, y, bound=2**40, parties=parties, preprocessing=preprocessing)
    np.testing.assert_array_equal(exact(product), exact(x) * exact(y))
    assert product.shape == np.broadcast_shapes(*shapes)


@pytest.mark.parametrize("field", FIELDS, ids=repr)
@given(data=st.data())
def test_products_of_edges(field: Field, data: st.DataObject) -> None:
    """Factors up to the very end of the field's room."""
    half = field.half
    a = data.draw(st.sampled_from([1, 2, half, half // 2, 3, 2**20 % half]) | st.integers(1, half))
    b = half // a
    values = st.lists(st.sampled_from([0, 1, -1]) | st.integers(-1, 1), min_size=4, max_size=4)
    x, y = (exact(data.draw(values)) * bound for bound in (a, b))

    async def program(party: Party, _: Any) -> Any:
        p, q = await shares_of(party, [x, y], [a, b], field)
        z = await multiply(party, p, q)
        assert z.magnitude == a * b
        return await open_(party, z)

    np.testing.assert_array_equal(exact(run(program, preprocessing="prss").results[0]), x * y)


@worlds
@pytest.mark.parametrize(
    "shapes",
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((2, 3), (3, 4)),
        ((4, 2, 3), (4, 3, 2)),
        ((2, 3), (5, 3, 1)),
        ((5, 1, 2, 3), (2, 3, 2)),
        ((3,), (2, 3, 4)),
        ((2, 4, 3), (3,)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
    ],
    ids=str,
)
def test_matmul(parties: int, preprocessing: str, shapes: Any, rng: np.random.Generator) -> None:
    x, y = (rng.integers(-(2**40), 2**40, size=shape) for shape in shapes)
    product = opened(matmul, x, y, bound=2**40, parties=parties, preprocessing=preprocessing)
    expected = np.matmul(exact(x), exact(y)) if x.size and y.size else np.matmul(x, y)
    np.testing.assert_array_equal(exact(product), exact(expected))


@small_worlds
def test_fixed_point(parties: int, preprocessing: str, rng: np.random.Generator) -> None:
    """Scales add, nothing is rounded."""
    x, y = rng.normal(size=(2, 50))

    async def protocol(party: Party, p: Share, q: Share) -> Share:
        z = await multiply(party, p, q)
        assert z.scale == 48
        return z

    product = opened(protocol, x, y, bound=8, parties=parties, preprocessing=preprocessing)
    np.testing.assert_array_equal(product, np.rint(x * 2**24) * np.rint(y * 2**24) / 2**48)


@small_worlds
def test_many_products_in_one_round(parties: int, preprocessing: str) -> None:
    x, y, z = np.arange(4), np.arange(4) - 2, np.array([[1, 2, 3, 4]])

    async def program(party: Party, _: Any) -> Any:
        p, q, r = await shares_of(party, [x, y, z], 2**10)
        before = but_transfers(party.costs)
        results = await products(
            party,
            "all",
            [(p, q, "multiply"), (p, p, "multiply"), (r, q, "matmul"), (r, r.T, "matmul"), (q, p, "multiply")],
        )
        spent = but_transfers(party.costs, before)
        assert spent.rounds == 1
        assert spent.elements_opened == p.size + q.size + 2 * r.size  # r.T is another operand
        return await open_(party, *results)

    for results in run(program, parties=parties, preprocessing=preprocessing).results:
        for got, expected in zip(results, [x * y, x * x, z @ y, z @ z.T, x * y], strict=True):
            np.testing.assert_array_equal(got, expected)


@small_worlds
@pytest.mark.parametrize("size", [3 * 2**13 + 1, 40_000])
def test_long_products(parties: int, preprocessing: str, size: int, rng: np.random.Generator) -> None:
    """Openings in parts, corrections in several messages."""
    x, y = rng.integers(-(2**60), 2**60, size=(2, size))
    product = opened(multiply, x, y, bound=2**60, parties=parties, preprocessing=preprocessing)
    np.testing.assert_array_equal(exact(product), exact(x) * exact(y))


def test_operands_that_do_not_go_together() -> None:
    async def program(party: Party, _: Any) -> None:
        x = party.constant(np.arange(6).reshape(2, 3))
        other = party.constant(np.arange(6).reshape(2, 3), field=F61)
        with pytest.raises(TypeError, match="F61"):
            await multiply(party, x, other)
        with pytest.raises(ValueError, match="broadcast"):
            await multiply(party, x, x.T)
        for left, right in [(x, x), (x[0, 0], x), (x, x[0, 0]), (x, x[1, :2])]:
            with pytest.raises(ValueError, match="do not fit"):
                await matmul(party, left, right)
        with pytest.raises(ValueError, match="broadcast"):
            await matmul(party, x.reshape(2, 1, 3).broadcast_to((2, 1, 3)), x.reshape(3, 2).broadcast_to((3, 3, 2)))

    done = run(program, parties=2)
    done.results  # noqa: B018
    assert not done.sent


# ---- operands that are masked -----------------------------------------------------------------------------------

X = np.array([[1, -2, 3], [2**30, 5, -6]])
W = np.array([[7, 0, -1], [1, 1, 2**30]])

# name, what is done to a masked share, the same on integers
LOCAL: list[tuple[str, Callable[[Any], Any]]] = [
    ("as it is", lambda x: x),
    ("negated", operator.neg),
    ("times 3", lambda x: x * 3),
    ("times -2^40", lambda x: -(2**40) * x),
    ("times numpy", lambda x: x * np.int64(5)),
    ("plus 5", lambda x: x + 5),
    ("minus an array", lambda x: x - np.array([1, 2, 3], np.uint8)),
    ("public minus", lambda x: 7 - x),
    ("reshaped", lambda x: x.reshape(3, 2)),
    ("transposed", lambda x: x.T),
    ("rows", lambda x: x[1:]),
    ("all rows", lambda x: x[:]),
    ("a row", lambda x: x[-1]),
    ("a row's entry", lambda x: x[0][2]),
    ("doubled", lambda x: x + x),
    ("less itself", lambda x: x - x),
    ("mixed", lambda x: (3 * (x + x * 2).T[1:].reshape(-1) - 4)[1:3]),
]


@small_worlds
@pytest.mark.parametrize(("name", "operation"), LOCAL, ids=[name for name, _ in LOCAL])
def test_what_keeps_a_mask(parties: int, preprocessing: str, name: str, operation: Any) -> None:
    """Nothing more of x is opened, and the value is right, opened and multiplied."""

    async def program(party: Party, _: Any) -> Any:
        x, w = await shares_of(party, [X, W], 2**30)
        kept = operation(await mask(party, x))
        assert kept.masked is not None
        other = operation(w).bounded_by(2**20)  # a promise that does not hold; the product is not opened to decode
        before = party.costs.total
        product = await multiply(party, kept.bounded_by(2**80), other)
        assert party.costs.since(before).elements_opened == other.size
        square = await multiply(party, kept.bounded_by(2**60), kept.bounded_by(2**60))
        assert party.costs.since(before).elements_opened == other.size
        free = [Share(F127, s.values, 0, F127.half, leads=s.leads) for s in (kept, product, square)]
        return await open_(party, *free)

    value, product, square = (exact(v) for v in run(program, parties=parties, preprocessing=preprocessing).results[1])
    x, w = exact(operation(exact(X))), exact(operation(exact(W)))
    np.testing.assert_array_equal(value, x)
    p = F127.modulus
    for got, expected in ((product, x * w), (square, x * x)):
        np.testing.assert_array_equal((got - expected) % p, 0 * expected)


@small_worlds
def test_what_loses_a_mask(parties: int, preprocessing: str) -> None:
    """Still right, only opened again."""

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [X], 2**30)
        kept = await mask(party, x)
        lost = [
            kept + x,
            kept[:, 1],
            kept * np.array([1, 2, 3]),
            kept.sum(0),
            kept.broadcast_to((2, 2, 3)),
            kept + np.ones((2, 2, 3), int),
            kept @ np.eye(3, dtype=int),
        ]
        assert all(share.masked is None for share in lost)
        return await open_(party, *lost)

    expected = [
        2 * X,
        X[:, 1],
        X * np.array([1, 2, 3]),
        X.sum(0),
        np.broadcast_to(X, (2, 2, 3)),
        np.broadcast_to(X + 1, (2, 2, 3)),
        X,
    ]
    for got, value in zip(run(program, parties=parties, preprocessing=preprocessing).results[0], expected, strict=True):
        np.testing.assert_array_equal(got, value)


@small_worlds
def test_a_matrix_masked_once_for_many_products(parties: int, preprocessing: str, rng: np.random.Generator) -> None:
    X, ws = rng.integers(-1000, 1000, size=(6, 4)), rng.integers(-1000, 1000, size=(5, 4))

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [X], 1000)
        x = await mask(party, x)
        assert await mask(party, x) is x
        forward, back = [], []
        before = party.costs.total
        for w in await shares_of(party, list(ws), 1000):
            forward.append(await matmul(party, x, w))
            back.append(await matmul(party, x.T, forward[-1]))
        assert party.costs.since(before).elements_opened == 5 * (4 + 6)
        return await open_(party, *forward, *back)

    opened = run(program, parties=parties, preprocessing=preprocessing).results[0]
    for k, w in enumerate(ws):
        np.testing.assert_array_equal(opened[k], X @ w)
        np.testing.assert_array_equal(opened[5 + k], X.T @ (X @ w))


@small_worlds
def test_a_mask_with_a_long_history_is_let_go(parties: int, preprocessing: str) -> None:
    """A dealer takes requests of bounded length; beyond, a share is opened again instead of failing."""

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [X], 2**30)
        kept = x = await mask(party, x)
        for _ in range(40):
            x = x.reshape(3, 2).T.T.reshape(2, 3)[0:2]
        assert x.masked is None
        total = kept
        for _ in range(2 * MOST_TERMS):
            total = total + kept
        long = kept
        for _ in range(6):
            long = (long * 2**90).bounded_by(2**30)  # as a bound that is not kept: the factor must stay in the field
        sums = [kept.reshape(1, 1, 1, 1, 1, 2, 3).reshape(2, 3) for _ in range(MOST_TERMS)]
        many = sums[0]
        for other in sums[1:]:
            many = many + other
        results = [await multiply(party, share, share) for share in (x, total, many)]
        factor = await multiply(party, long, kept)
        return (*await open_(party, *results), factor.masked)

    first, second, third, _ = run(program, parties=parties, preprocessing=preprocessing).results[0]
    np.testing.assert_array_equal(exact(first), exact(X) ** 2)
    np.testing.assert_array_equal(exact(second), exact(X) ** 2 * (2 * MOST_TERMS + 1) ** 2)
    np.testing.assert_array_equal(exact(third), exact(X) ** 2 * MOST_TERMS**2)


OPERATIONS = st.lists(
    st.sampled_from(["neg", "T", "rows", "row", "flat", "plus self", "times", "add", "other"]), max_size=10
)


@given(names=OPERATIONS, preprocessing=st.sampled_from(["dealer", "prss"]))
def test_chains_on_masked_shares(names: list[str], preprocessing: str) -> None:
    """Any chain of local operations on masked shares, then products: all right."""
    start, second = exact(np.arange(12).reshape(3, 4) - 5), exact(np.arange(12)[::-1].reshape(3, 4))

    def step(x: Any, y: Any, name: str) -> tuple[Any, Any]:
        if name == "neg":
            return -x, y
        if name == "T":
            return x.T, y.T
        if name == "rows":
            return (x[1:], y[1:]) if len(x) > 1 else (x, y)
        if name == "row":
            return (x[-1], y[-1]) if x.ndim > 1 else (x, y)
        if name == "flat":
            return x.reshape(-1), y.reshape(-1)
        if name == "plus self":
            return x + x, y
        if name == "times":
            return x * 3, y * -2
        if name == "add":
            return x + 5, 2 - y
        return x - y, y

    async def program(party: Party, _: Any) -> Any:
        x, y = [await mask(party, s) for s in await shares_of(party, [start, second], 12)]
        for name in names:
            x, y = step(x, y, name)
        return await open_(party, x, await multiply(party, x, y))

    x, y = start, second
    for name in names:
        x, y = step(x, y, name)
    got, product = run(program, preprocessing=preprocessing).results[2]
    np.testing.assert_array_equal(exact(got), exact(x))
    np.testing.assert_array_equal(exact(product), exact(x * y))


# ---- range ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS, ids=repr)
def test_products_beyond_the_field(field: Field) -> None:
    """Refused before anything is sent, whatever the values are."""

    async def program(party: Party, _: Any) -> None:
        root = int(field.half**0.5) + 1
        x = Share(field, field.zeros((2, 2)), 0, root, leads=party.rank == 0)
        small = Share(field, field.zeros((2, 2)), 0, field.half // root, leads=party.rank == 0)
        for left, right, protocol in [(x, x, multiply), (x, x, matmul), (x, small, matmul)]:
            with pytest.raises(RangeError, match=protocol.__name__):
                await protocol(party, left, right)
        with pytest.raises(RangeError):
            await products(party, "both", [(small, small[:1], "multiply"), (x, x, "multiply")])

    done = run(program)
    done.results  # noqa: B018
    assert not done.sent


# ---- side by side -----------------------------------------------------------------------------------------------


@worlds
def test_protocols_side_by_side_in_scopes_of_their_own(parties: int, preprocessing: str) -> None:
    values = np.arange(24).reshape(4, 6) - 11

    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [values], 100)

        async def work(scope: Party, k: int) -> Any:
            share = x[k]
            for _ in range(k + 1):
                share = await truncate(scope, (await multiply(scope, share, x[k])).scaled_down(4).lifted(30), to=24)
            return await open_(scope, share)

        async with asyncio.TaskGroup() as group:
            order = range(4) if party.rank % 2 else reversed(range(4))  # parties may begin in any order
            scopes = [party.at("work") for _ in range(4)]
            tasks = {k: group.create_task(work(scopes[k], k)) for k in order}
        return [tasks[k].result() for k in range(4)]

    results = same([np.array(r) for r in run(program, parties=parties, preprocessing=preprocessing).results])
    for k in range(4):
        expected = values[k].astype(float)
        for _ in range(k + 1):
            expected = expected * values[k] / 16
        np.testing.assert_allclose(results[k], expected, rtol=1e-5, atol=1e-3)


def test_two_openings_at_once_in_one_scope_are_refused() -> None:
    """Their masks would be drawn in the order of arrival, which is another one at every party."""

    async def program(party: Party, _: Any) -> None:
        x = party.constant(np.arange(3))
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(multiply(party, x, x))

    for outcome in run(program, parties=2).outcomes:
        assert isinstance(outcome, ExceptionGroup)
        assert any("party.at" in str(error) for error in outcome.exceptions)


def test_joining_masked_shares() -> None:
    async def program(party: Party, _: Any) -> Any:
        x, w = [await mask(party, s) for s in await shares_of(party, [X, W], 2**30)]
        return await open_(party, concatenate([x, w]), await matmul(party, concatenate([x, w]), x.T))

    both, product = run(program).results[0]
    np.testing.assert_array_equal(both, np.concatenate([X, W]))
    np.testing.assert_array_equal(exact(product), exact(np.concatenate([X, W])) @ exact(X.T))
