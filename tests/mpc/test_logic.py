"""Equality, signs, choices, bits and tournaments: exact at every edge, at their documented cost, in private."""

import asyncio
import math
import re
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc import F61, F127, GF, Party, RangeError, Share, arithmetic, bits, mask, open_, opening, prepare, truncate
from mpc.bits import Addends, sum_planes, words_share
from mpc.logic import absolute, argmax, equal, from_bits, maximum, minimum, select, sign, to_bits
from mpc.masks import Masked
from mpc.preprocessing import requests
from mpc.words import W64, bit_planes, negated_planes, pack_bits, unpack_bits
from tests.mpc.enumeration import distance, views
from tests.mpc.support import SMALL_WORLDS, WORLDS, exact, in_turn, opened, run, same, seeded, shares_of
from tests.mpc.test_comparison import edges
from tests.mpc.test_costs import cost_of
from tests.mpc.test_privacy import ZEROS_KNOWN, holder, removed

worlds = pytest.mark.parametrize(("parties", "preprocessing"), WORLDS)
small_worlds = pytest.mark.parametrize(("parties", "preprocessing"), SMALL_WORLDS)


def bits_of(values: Any, count: int) -> np.ndarray:
    return np.asarray((exact(values)[..., None] >> np.arange(count).astype(object) & 1).astype(int))


# ---- values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parties", "preprocessing", "bound"), in_turn(WORLDS, [0, 1, 2, 3, 8, 2**24 - 1, 2**63, 2**70])
)
def test_everything_at_the_edges(parties: int, preprocessing: str, bound: int) -> None:
    values = edges(bound)
    turned, sizes, width = values[::-1], np.abs(values), bound.bit_length()

    async def program(party: Party, _: Any) -> Any:
        x, y, u = await shares_of(party, [values, turned, sizes], bound)
        low, high = await minimum(party, x, y), await maximum(party, x, y)
        size, (index, largest) = await absolute(party, x), await argmax(party, x)
        assert low.magnitude == high.magnitude == size.magnitude == largest.magnitude == bound
        assert (await to_bits(party, u)).shape == (len(values), width)
        return await open_(
            party,
            await equal(party, x, y),
            await sign(party, x),
            size,
            low,
            high,
            await to_bits(party, u),
            await to_bits(party, u, width + 2),
            await to_bits(party, x, signed=True),
            await to_bits(party, x, width + 4, signed=True),
            index,
            largest,
        )

    expected = [
        values == turned,
        np.sign(values),
        sizes,
        np.minimum(values, turned),
        np.maximum(values, turned),
        bits_of(sizes, width).reshape(len(values), width),
        bits_of(sizes, width + 2),
        bits_of(values + 2**width, width + 1),
        bits_of(values + 2 ** (width + 3), width + 4),
        np.argmax(values),
        bound,
    ]
    results = run(program, parties=parties, preprocessing=preprocessing).results
    for k, value in enumerate(expected):
        np.testing.assert_array_equal(same([result[k] for result in results]), np.asarray(value) * 1)


@given(data=st.data())
def test_any_two_integers(data: st.DataObject) -> None:
    bound = data.draw(st.integers(1, 2**80))
    number = st.integers(-bound, bound) | st.sampled_from([0, 1, -1, bound, -bound])
    pairs = data.draw(st.lists(st.tuples(number, number | st.just(None)), min_size=1, max_size=70))
    x, y = exact([a for a, _ in pairs]), exact([a if b is None else b for a, b in pairs])
    preprocessing = data.draw(st.sampled_from(["dealer", "prss"]))
    width = data.draw(st.integers(0, bound.bit_length() + 1))

    async def program(party: Party, _: Any) -> Any:
        s, t = await shares_of(party, [x, y], bound)
        return await open_(
            party,
            await equal(party, s, t),
            await minimum(party, s, t),
            await maximum(party, s, t),
            await to_bits(party, s, width, signed=True),
        )

    same_, low, high, cut = run(program, preprocessing=preprocessing).results[0]
    np.testing.assert_array_equal(same_, (x == y).astype(int))
    np.testing.assert_array_equal(low, np.minimum(x, y))
    np.testing.assert_array_equal(high, np.maximum(x, y))
    # Modulo 2^width also where x is beyond what the caller vouched for.
    expected = bits_of(x + (1 << width >> 1), width) if width else np.zeros((len(x), 0))
    np.testing.assert_array_equal(cut, expected)


@small_worlds
def test_bits_of_every_width(parties: int, preprocessing: str, rng: np.random.Generator) -> None:
    """Blocks of the prefix tree that end anywhere."""

    widths = [*range(1, 20), 31, 32, 33, 47, 64, 65, 66, 79]
    numbers = [exact([int.from_bytes(rng.bytes(10), "little") % 2**width for _ in range(5)]) for width in widths]

    async def program(party: Party, _: Any) -> Any:
        shares = await shares_of(party, numbers, [2**width - 1 for width in widths])
        return await open_(party, *[await to_bits(party, x) for x in shares])

    got = run(program, parties=parties, preprocessing=preprocessing).results[0]
    for values, width, result in zip(numbers, widths, got, strict=True):
        np.testing.assert_array_equal(result, bits_of(values, width))


@small_worlds
@pytest.mark.parametrize("count", [1, 63, 64, 65, 130])
def test_any_number_of_entries(
    parties: int, preprocessing: str, count: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed 64 to a word, and brought into the field in pieces: the last one may be full or not."""
    monkeypatch.setattr(bits, "_CONVERTED_AT_ONCE", 64)
    x, y = rng.integers(0, 8, size=(2, count))
    world: dict[str, Any] = {"bound": 7, "parties": parties, "preprocessing": preprocessing}
    np.testing.assert_array_equal(opened(equal, x, y, **world), x == y)
    np.testing.assert_array_equal(opened(to_bits, x, **world), bits_of(x, 3))
    np.testing.assert_array_equal(opened(sign, x - y, **world), np.sign(x - y))


@small_worlds
def test_shapes_scales_and_public_operands(parties: int, preprocessing: str) -> None:
    x, y = np.array([[0.5, -1.25, 2.0], [0.0, 3.0, -3.0]]), np.array([1, 0, -3])

    async def program(party: Party, _: Any) -> Any:
        s, t = await shares_of(party, [x, y], 3)
        low = await minimum(party, s, 0.5)
        assert low.scale == 24
        assert low.bound == pytest.approx(3, abs=1e-6)
        assert (await maximum(party, 7, t)).magnitude == 7
        cut = await to_bits(party, s + 3.0, 27)
        return await open_(
            party,
            await equal(party, s, t),
            await equal(party, np.array([[0.5], [3.0]]), s),
            await equal(party, s[0, 0], s[1, 1]),
            await sign(party, s),
            await sign(party, s[1, 2]),
            await absolute(party, s),
            await minimum(party, s, t),
            low,
            await maximum(party, np.array([[1.0], [2.0]]), s),
            await maximum(party, t, 7),
            await maximum(party, 0, s[1, 2]),
            from_bits(cut, 24) - 3.0,
            await to_bits(party, t[0], 3),
            *await argmax(party, s, 0),
            *await argmax(party, s.T, axis=-2),
        )

    expected = [
        x == y,
        x == [[0.5], [3.0]],
        False,
        np.sign(x),
        -1,
        np.abs(x),
        np.minimum(x, y),
        np.minimum(x, 0.5),
        np.maximum(x, [[1.0], [2.0]]),
        [7, 7, 7],
        0,
        x,
        [1, 0, 0],
        [0, 1, 0],
        x.max(axis=0),
        x.argmax(axis=1),
        x.max(axis=1),
    ]
    for got, value in zip(run(program, parties=parties, preprocessing=preprocessing).results[1], expected, strict=True):
        np.testing.assert_array_equal(got, np.asarray(value) * 1.0)


@small_worlds
def test_nothing_of_nothing(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.zeros((0, 3), int)], 5)
        index, value = await argmax(party, x)
        return await open_(
            party,
            await equal(party, x, x),
            await sign(party, x),
            await absolute(party, x),
            await minimum(party, x, 1),
            await select(party, x.bounded_by(1), x, x),
            await to_bits(party, x),
            from_bits(x),
            index,
            value,
        )

    shapes = [got.shape for got in run(program, parties=parties, preprocessing=preprocessing).results[0]]
    assert shapes == [(0, 3)] * 5 + [(0, 3, 3), (0,), (0,), (0,)]


@small_worlds
def test_select(parties: int, preprocessing: str) -> None:
    condition, x, y = np.array([[1, 0, 1], [0, 0, 1]]), np.array([2.5, -1.0, 0.25]), np.array([4, 5, -6])

    async def program(party: Party, _: Any) -> Any:
        c, s, t = await shares_of(party, [condition, x, y], [1, 3, 6])
        mixed = await select(party, c, s, t)
        assert (mixed.scale, mixed.bound) == (24, 6)
        inverse = await select(party, 1 - c, s, t)  # its bound is 2
        kept = await select(party, c, await mask(party, s), 0.0)
        return await open_(
            party, mixed, inverse, kept, await select(party, c, 1, t), await select(party, c[0, 0], t, 0)
        )

    got = run(program, parties=parties, preprocessing=preprocessing).results[1]
    expected = [np.where(condition, x, y), np.where(condition, y, x), condition * x, np.where(condition, 1, y), y]
    for result, value in zip(got, expected, strict=True):
        np.testing.assert_array_equal(result, value)


@small_worlds
@pytest.mark.parametrize("width", range(1, 10))
def test_argmax_names_the_first_of_the_largest(
    parties: int, preprocessing: str, width: int, rng: np.random.Generator
) -> None:
    x = rng.integers(-1, 2, size=(30, width))
    x[0] = 1

    async def program(party: Party, _: Any) -> Any:
        (s,) = await shares_of(party, [x], 1)
        index, value = await argmax(party, s)
        assert (index.magnitude, index.scale) == (width - 1, 0)
        return await open_(party, index, value)

    index, value = run(program, parties=parties, preprocessing=preprocessing).results[0]
    np.testing.assert_array_equal(index, x.argmax(axis=1))
    np.testing.assert_array_equal(value, x.max(axis=1))


@pytest.mark.parametrize(("parties", "preprocessing"), [*SMALL_WORLDS, (5, "prss")])
def test_fields(parties: int, preprocessing: str, rng: np.random.Generator) -> None:
    """F61 has room for a dozen bits beside the mask; bits of wide values may be had in F61."""
    x, y = rng.integers(-(2**11) + 1, 2**11, size=(2, 70))
    wide = rng.integers(-(2**50), 2**50, size=70)

    async def program(party: Party, _: Any) -> Any:
        s, t = await shares_of(party, [x, y], 2**11 - 1, F61)
        (w,) = await shares_of(party, [wide], 2**50)
        narrow = await to_bits(party, w, signed=True, field=F61)
        wider = await to_bits(party, s, signed=True, field=F127)
        assert (narrow.field, narrow.shape, wider.field) == (F61, (70, 52), F127)
        assert narrow.values[:, 3].flags.c_contiguous
        return await open_(
            party,
            await minimum(party, s, t),
            await equal(party, s, t),
            from_bits(narrow) - 2**51,
            from_bits(wider) - 2**11,
            *await argmax(party, s),
        )

    got = run(program, parties=parties, preprocessing=preprocessing).results[0]
    for result, value in zip(got, [np.minimum(x, y), x == y, wide, x, x.argmax(), x.max()], strict=True):
        np.testing.assert_array_equal(result, value * 1)


@pytest.mark.parametrize("preprocessing", ["dealer", "prss"])
def test_masked_operands(preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [np.array([1.5, -2.5, 0.0])], 4.0)
        kept, born = await mask(party, x), await truncate(party, x.lifted(40))
        return await open_(
            party,
            await equal(party, kept, 1.5),
            await minimum(party, kept, born - 1.0),
            await absolute(party, born),
            await sign(party, kept),
            from_bits(await to_bits(party, kept, signed=True), 24),
            *await argmax(party, kept),
        )

    got = run(program, preprocessing=preprocessing).results[0]
    expected: list[Any] = [[1, 0, 0], [0.5, -3.5, -1], [1.5, 2.5, 0], [1, -1, 0], np.array([1.5, -2.5, 0]) + 8, 0, 1.5]
    for result, value in zip(got, expected, strict=True):
        np.testing.assert_allclose(result, value, atol=1e-6)  # a truncation is exact to a few units


def test_what_is_promised_wrongly_is_cut_off() -> None:
    """A negative number without ``signed``, and fewer bits than there are."""
    np.testing.assert_array_equal(
        opened(lambda party, x: to_bits(party, x, 6), np.array([-3, 5]), bound=7), bits_of([5, 5], 6)
    )
    np.testing.assert_array_equal(
        opened(lambda party, x: to_bits(party, x, 2), np.array([-3, 7]), bound=7), bits_of([1, 3], 2)
    )


def test_bits_together_again() -> None:
    async def program(party: Party, _: Any) -> Any:
        (x,) = await shares_of(party, [bits_of([5, 2**59 + 3], 60)], 1, F61)
        assert from_bits(x).magnitude == 2**60 - 1
        assert from_bits(x[:, :3], 2).bound == 7 / 4
        with pytest.raises(RangeError):
            from_bits(Share(F61, F61.zeros((2, 61)), 0, 1))
        with pytest.raises(ValueError, match="scale 0"):
            from_bits(x.lifted(1))
        with pytest.raises(ValueError, match="last axis"):
            from_bits(x[0, 0])
        return await open_(party, from_bits(x), from_bits(x[:, :3], 2), from_bits(x[:, :0]))

    whole, fraction, nothing = run(program).results[0]
    np.testing.assert_array_equal(whole, [5, 2**59 + 3])
    np.testing.assert_array_equal(fraction, [1.25, 0.75])
    np.testing.assert_array_equal(nothing, [0, 0])


# ---- what is refused --------------------------------------------------------------------------------------------


def test_bad_input() -> None:
    async def program(party: Party, _: Any) -> None:
        x = Share(F127, F127.zeros(2), 0, F127.half, leads=party.rank == 0)
        c = Share(F127, F127.zeros(2), 3, 1, leads=party.rank == 0)
        for refused in (
            sign(party, x),
            absolute(party, x),
            to_bits(party, x),
            equal(party, x, 0),
            minimum(party, x, 0),
            argmax(party, x.bounded_by(2**90)),
        ):
            with pytest.raises(RangeError):
                await refused
        for typed in (equal(party, 1, 2), minimum(party, 1, 2), select(party, c, 1, 2)):
            with pytest.raises(TypeError, match="shares"):
                await typed
        for valued in (
            select(party, c, c, 2),
            to_bits(party, c, -1),
            argmax(party, c, 1),
            argmax(party, c[0]),
            argmax(party, c[:0]),
        ):
            with pytest.raises(ValueError, match=r"select|at least 0|argmax"):
                await valued

    done = run(program)
    done.results  # noqa: B018
    assert not done.sent


# ---- costs ------------------------------------------------------------------------------------------------------


def addends(parties: int, preprocessing: str) -> int:
    """In how many addends the bits of a mask come, but for the first one."""
    return {"dealer": 0, "prss": (parties - 1) // 2, "ot": parties - 1}[preprocessing]


def rounds_of_comparison(bound: int, parties: int, preprocessing: str) -> int:
    """Transfers are not counted; prss takes a round to split what signs are made of."""
    t = addends(parties, preprocessing)
    return 2 + math.ceil(math.log2(bound.bit_length())) + (2 * t if preprocessing == "prss" else t)


@worlds
@pytest.mark.parametrize("bound", [1, 3, 2**10 - 1, 2**47])
def test_cost_of_equal(parties: int, preprocessing: str, bound: int) -> None:
    """In units of 64 entries: a word of bits is counted as one element."""
    cost, _ = cost_of(lambda party, x: equal(party, x, 0), [(64,)], parties, preprocessing, bound=bound)
    k, t = bound.bit_length(), addends(parties, preprocessing)
    signs = t if preprocessing == "prss" else 0
    assert cost.rounds == 2 + math.ceil(math.log2(k)) + signs + (0 if t < 2 else t - (k == 1))
    if t < 2:
        assert cost.elements_opened == 64 + 2 * k - 1


@worlds
@pytest.mark.parametrize("width", [1, 2, 3, 4, 9, 32, 33])
def test_cost_of_bits(parties: int, preprocessing: str, width: int) -> None:
    cost, done = cost_of(to_bits, [(64,)], parties, preprocessing, bound=2**width - 1)
    t = addends(parties, preprocessing)
    depth = math.ceil(math.log2(width - 1)) if width > 1 else 0
    signs = t if preprocessing == "prss" else 0
    assert cost.rounds == 2 + depth + signs + t - (width == 1 and t > 0)
    tree = 0
    for half in (2**j for j in range(depth)):
        upper = [i for i in range(width - 1) if i & half]
        tree += len(upper) + (2 * len({i // half for i in upper}) if width - 1 > 2 * half else 1)
    assert tree <= width / 2 * math.log2(width) + 2 * width
    if t < 2:
        assert cost.elements_opened == 64 + tree + width + 2 * t * (width - 1)
    if preprocessing == "dealer":
        corrections = [m for m in done.log if m.frm == parties and m.step.startswith("correction")]
        assert sum(len(m.data) for m in corrections if len(m.data) >= 16 * 64) == 16 * 64 * width
    elif preprocessing == "prss" and t == 1:
        split = [m for m in done.sent_after_inputs() if "split" in m.step]
        assert {(m.frm, m.to) for m in split} == {(0, 2)}
        assert sum(len(m.data) for m in split) == 16 * 64 * width


@worlds
def test_cost_of_choices(parties: int, preprocessing: str) -> None:
    def rounds(bound: int) -> int:
        return rounds_of_comparison(bound, parties, preprocessing)

    def cost(protocol: Callable[..., Any], *shapes: tuple[int, ...], bound: int = 100) -> Any:
        return cost_of(protocol, list(shapes), parties, preprocessing, bound=bound)[0]

    comparison = rounds(200)
    low, both = cost(minimum, (64,), (64,)), cost(sign, (64,))
    assert low.rounds == cost(maximum, (64,), (64,)).rounds == comparison + 1
    assert both.rounds == rounds(100)
    assert cost(absolute, (64,)).rounds == rounds(100) + 1
    assert cost(lambda party, x: argmax(party, x), (7, 64)).rounds == 6 * (comparison + 1)
    chosen = cost(lambda party, c, x, y: select(party, c.bounded_by(1), x, y), (64,), (64,), (64,))
    assert (chosen.rounds, chosen.elements_opened, chosen.triples) == (1, 128, 64)
    if preprocessing == "dealer":
        k = (200).bit_length()
        assert low.elements_opened <= 64 + 3 * k + 1 + 64
        assert both.elements_opened <= 2 * (64 + 3 * 7 + 1)


# ---- beside others, and ahead of time ---------------------------------------------------------------------------


async def everything(party: Party, x: Share, y: Share) -> list[Share]:
    return [
        await equal(party, x, y),
        await sign(party, x),
        await absolute(party, x),
        await minimum(party, x, y),
        await select(party, (await equal(party, x, y)), x, y),
        from_bits(await to_bits(party, x, signed=True)),
        *await argmax(party, x),
    ]


@worlds
def test_what_was_prepared_is_used(parties: int, preprocessing: str) -> None:
    x, y = np.array([5, -3, 0, 7, 7]), np.array([5, 3, 0, -7, 6])

    async def program(party: Party, _: Any) -> Any:
        s, t = await shares_of(party, [x, y], 7)
        expected = await prepare(party, everything, s, t)
        before = party.costs.total
        results = await everything(party, s, t)
        spent = party.costs.since(before)
        assert spent.elements_opened == expected.elements_opened
        assert spent.triples == expected.triples
        return await open_(party, *results)

    got = run(program, parties=parties, preprocessing=preprocessing).results
    chosen = np.where(x == y, x, y)
    expected = [x == y, np.sign(x), np.abs(x), np.minimum(x, y), chosen, x + 8, 3, 7]
    for result, value in zip(got[-1], expected, strict=True):
        np.testing.assert_array_equal(result, np.asarray(value) * 1)


@small_worlds
def test_side_by_side(parties: int, preprocessing: str) -> None:
    async def program(party: Party, _: Any) -> Any:
        x, y = await shares_of(party, [np.arange(-5, 6), np.zeros(11, int)], 5)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(equal(party.at("a"), x, y)),
                group.create_task(to_bits(party.at("b"), x, signed=True)),
                group.create_task(maximum(party.at("c"), x, y)),
            ]
        return await open_(party, *(task.result() for task in tasks))

    zero, cut, high = run(program, parties=parties, preprocessing=preprocessing).results[-1]
    np.testing.assert_array_equal(zero, np.arange(-5, 6) == 0)
    np.testing.assert_array_equal(cut, bits_of(np.arange(-5, 6) + 8, 4))
    np.testing.assert_array_equal(high, np.maximum(np.arange(-5, 6), 0))


def test_many_entries() -> None:
    x = np.arange(9000)

    async def program(party: Party, _: Any) -> Any:
        s, t = await shares_of(party, [x, x // 2 * 2], 2**20 - 1)
        cut = await to_bits(party, s, field=F61)
        return await open_(party, from_bits(cut), await equal(party, s, t))

    for preprocessing in ("dealer", "prss"):
        whole, even = run(program, preprocessing=preprocessing).results[2]
        np.testing.assert_array_equal(whole, x)
        np.testing.assert_array_equal(even, x % 2 == 0)


# ---- words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [F61, F127, GF(8191)], ids=repr)
@pytest.mark.parametrize("count", [0, 1, 64, 65, 1000])
def test_planes(field: Any, count: int, rng: np.random.Generator) -> None:
    width = field.bits
    values = exact([int.from_bytes(rng.bytes(16), "little") % field.modulus for _ in range(count)])
    elements = field.encode(np.array([v - field.modulus if v > field.half else v for v in values], object))
    planes = bit_planes(field, elements, width)
    assert planes.shape == (width, -(-count // 64))
    assert planes.dtype == np.uint64
    np.testing.assert_array_equal(unpack_bits(planes, count).T, bits_of(values, width).reshape(count, width))
    negated = unpack_bits(negated_planes(planes), count)
    np.testing.assert_array_equal(negated.T, bits_of(-values, width).reshape(count, width))


# ---- privacy ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lanes_go_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many lanes there are, an opening is a broadcast, as it is for each of them alone."""
    monkeypatch.setattr(opening, "BROADCAST_BYTES", 1 << 30)
    monkeypatch.setattr(opening, "CHUNK_BYTES", 1 << 30)
    monkeypatch.setattr(requests, "CHUNK_BYTES", 1 << 30)
    monkeypatch.setattr(bits, "_CONVERTED_AT_ONCE", 1 << 30)
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", 2)


STATISTICAL_SEATS = [
    (2, "dealer", {0}, 83),
    (2, "dealer", {1}, 83),
    (3, "prss", {0}, 127),
    (3, "prss", {1}, 127),
    (3, "prss", {2}, 127),
]


async def equal_to_zero(party: Party, x: Share) -> Share:
    return await equal(party, x, 0)


def applied(function: Callable[..., Any], owner: int, field: Any) -> Any:
    async def protocol(party: Party, lanes: int, secret: int) -> None:
        values = np.full(lanes, secret) if party.rank == owner else None
        await function(party, await party.share(values, bound=1, owner=owner, shape=(lanes,), field=field))

    return protocol


@pytest.mark.usefixtures("lanes_go_out_together")
@pytest.mark.parametrize(("parties", "preprocessing", "coalition", "modulus"), STATISTICAL_SEATS)
@pytest.mark.parametrize("what", ["equal", "bits"])
def test_openings_keep_their_statistical_distance(
    what: str, parties: int, preprocessing: str, coalition: set[int], modulus: int
) -> None:
    """From the first opening to the result: everything that is sent, for values of one bit."""
    apart = distance(
        applied(equal_to_zero if what == "equal" else to_bits, holder(parties, preprocessing, coalition), GF(modulus)),
        [0, 1, -1] if what == "equal" else [0, 1],
        coalition=coalition,
        parties=parties,
        preprocessing=preprocessing,
        field=GF(modulus),
        packed=r"/convert#|correction 0\.",
        known=rf"share\||zero\|{what}#0",
        fixings=1,
    )
    assert 0 < apart <= 2**-2


@pytest.mark.usefixtures("lanes_go_out_together")
@pytest.mark.parametrize(("parties", "preprocessing", "coalition"), [(2, "dealer", {0}), (3, "dealer", {0, 1})])
def test_a_product_with_what_was_compared_keeps_it(
    parties: int, preprocessing: str, coalition: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An absolute value opens x once, under the mask of the comparison."""
    monkeypatch.setattr(arithmetic, "STATISTICAL_SECURITY_BITS", 1)
    apart = distance(
        applied(absolute, holder(parties, preprocessing, coalition), GF(61)),
        [0, 1, -1],
        coalition=coalition,
        parties=parties,
        preprocessing=preprocessing,
        field=GF(61),
        packed=r"/convert#",
        fixings=1,
    )
    assert 0 < apart <= 2**-1


@pytest.mark.usefixtures("lanes_go_out_together")
@pytest.mark.parametrize(
    ("planes", "parties", "preprocessing", "coalition"),
    [
        (planes, *seat[:3])
        for planes, seat in product([2, 3, 4, 5], STATISTICAL_SEATS)
        if (planes, seat[1]) != (5, "prss")  # 2^25 choices
    ],
)
def test_additions_tell_nothing(planes: int, parties: int, preprocessing: str, coalition: set[int]) -> None:
    """Carries that are masked once for many uses: all that the adder sends, for every sum of two numbers."""
    owner = holder(parties, preprocessing, coalition)

    def held(party: Party, number: int, lanes: int) -> np.ndarray:
        number = number if party.rank == owner else 0
        return np.stack([pack_bits(np.full(lanes, number >> j & 1, np.uint8)) for j in range(planes)])

    async def protocol(party: Party, lanes: int, secret: tuple[int, int]) -> None:
        a, b = (words_share(party, held(party, number, lanes)) for number in secret)
        nothing: Any = Masked(W64.zeros(lanes), None)  # type: ignore[arg-type]
        if preprocessing == "dealer":
            public = np.stack([pack_bits(np.full(lanes, j % 2, np.uint8)) for j in range(planes)])
            await sum_planes(party, Addends(public, [a + b], nothing))
        else:
            await sum_planes(party, Addends(None, [a, b], nothing))

    top = 2**planes - 1
    options: dict[str, Any] = {"coalition": coalition, "parties": parties, "preprocessing": preprocessing}
    options |= {"field": GF(3), "packed": "prefix|generate|correction", "fixings": 1}
    secrets = [(0, 0), (1, 1), (top, 1), (top // 3, top), (0, top // 2)]
    for row in views(protocol, secrets, known=ZEROS_KNOWN, **options):
        assert all(view.same_as(row[0]) for view in row)
        assert (planes == 2 and preprocessing == "dealer") or row[0].messages
    if planes == 4:
        assert distance(protocol, secrets, known=ZEROS_KNOWN, sabotage=removed("mask|"), **options) > 0.1


@pytest.mark.parametrize(("parties", "preprocessing"), [(3, "prss"), (5, "prss"), (2, "dealer")])
def test_opened_bits_are_even(parties: int, preprocessing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal secrets in all entries: whatever is opened of their bits looks like tosses of a coin, each its own."""
    monkeypatch.setattr(bits, "_CONVERTED_AT_ONCE", 1024)

    async def program(party: Party, _: Any) -> None:
        (x,) = await shares_of(party, [np.full(1024, 77)], 127)
        await to_bits(party, x)
        await equal(party, x, 77)

    done = run(program, parties=parties, preprocessing=preprocessing, make_source=seeded("coins"))
    done.results  # noqa: B018
    found: dict[str, np.ndarray] = {}
    for m in done.sent_after_inputs():
        name = re.search(r"(bits|equal)/(and|convert|prefix|generate|either|carry save)#\d+$", m.step)
        if name and m.to == (m.frm + 1) % parties:  # one copy of each summand
            words = np.frombuffer(m.data, "<u8")
            found[m.step] = found.get(m.step, np.zeros_like(words)) ^ words
    assert {step.split("/")[-1].split("#")[0] for step in found} >= {"and", "convert", "prefix"}
    for step, words in found.items():
        assert len(np.unique(words)) == words.size, step
        for plane in unpack_bits(words.reshape(-1, 16), 1024):
            assert abs(plane.mean() - 0.5) < 5.5 * 0.5 / 32, step
