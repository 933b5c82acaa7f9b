"""The loops around AES, C and numpy alike, against the same thing bit by bit."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

from mpc.ot._native import TWIN, Loops, compiled

WORDS = [0, 1, 2, 7, 8, 9, 16, 31, 32, 33, 65, 130]


def words(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 1 << 64, shape, dtype=np.uint64)


def bits(array: np.ndarray) -> np.ndarray:
    """The bits of the last axis, least first."""
    return np.unpackbits(np.ascontiguousarray(array).view(np.uint8), axis=-1, bitorder="little")


def strided(array: np.ndarray) -> np.ndarray:
    """The same entries, none of them beside another."""
    wide = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


class TestTranspose:
    @pytest.mark.parametrize("count", WORDS)
    def test_moves_every_bit(self, on: Loops, rng: np.random.Generator, count: int) -> None:
        rows = words(rng, 128, count)
        entries = on.transpose(rows)
        assert entries.shape == (count, 64, 2)
        if count:
            assert np.array_equal(bits(entries.reshape(-1, 2)), bits(rows).T)

    @pytest.mark.parametrize("row", [0, 1, 63, 64, 127])
    def test_single_bits(self, on: Loops, row: int) -> None:
        for bit in (0, 1, 31, 32, 63, 64, 64 * 8, 64 * 9 - 1):
            rows = np.zeros((128, 9), np.uint64)
            rows[row, bit // 64] = np.uint64(1) << np.uint64(bit % 64)
            entries = on.transpose(rows).reshape(-1, 2)
            assert entries[bit, row // 64] == np.uint64(1) << np.uint64(row % 64)
            assert np.count_nonzero(entries) == 1

    @pytest.mark.parametrize("count", [1, 8, 13])
    def test_any_memory_layout(self, on: Loops, rng: np.random.Generator, count: int) -> None:
        rows = words(rng, 128, count)
        expected = on.transpose(rows)
        assert np.array_equal(on.transpose(strided(rows)), expected)
        assert np.array_equal(on.transpose(np.asfortranarray(rows)), expected)
        out = strided(np.zeros_like(expected))
        on.transpose(rows, out=out)
        assert np.array_equal(out, expected)

    def test_refuses_other_shapes(self, on: Loops) -> None:
        for shape in ((127, 2), (129, 2), (64, 2)):
            with pytest.raises(ValueError):
                on.transpose(np.zeros(shape, np.uint64))


class TestFold:
    @pytest.mark.parametrize("depth", range(1, 9))
    def test_sums(self, on: Loops, rng: np.random.Generator, depth: int) -> None:
        for count in WORDS:
            leaves = words(rng, 1 << depth, count)
            kept = leaves.copy()
            total, sums = np.empty(count, np.uint64), np.empty((depth, count), np.uint64)
            on.fold(leaves, out=(total, sums))
            assert np.array_equal(leaves, kept)
            assert np.array_equal(total, np.bitwise_xor.reduce(leaves, axis=0))
            for b in range(depth):
                chosen = [y for y in range(1 << depth) if y >> b & 1]
                assert np.array_equal(sums[b], np.bitwise_xor.reduce(leaves[chosen], axis=0))

    @pytest.mark.parametrize("count", [3, 40])
    def test_any_memory_layout(self, on: Loops, rng: np.random.Generator, count: int) -> None:
        leaves = words(rng, 8, count)
        expected = on.fold(leaves, out=(np.empty(count, np.uint64), np.empty((3, count), np.uint64)))
        out = strided(np.zeros(count, np.uint64)), strided(np.zeros((3, count), np.uint64))
        on.fold(strided(leaves), out=out)
        assert np.array_equal(out[0], expected[0])
        assert np.array_equal(out[1], expected[1])

    @pytest.mark.parametrize(("leaves", "depth"), [(4, 1), (2, 2), (3, 2), (1, 0), (512, 9), (0, 1)])
    def test_refuses_what_is_no_tree(self, on: Loops, leaves: int, depth: int) -> None:
        out = np.empty(5, np.uint64), np.empty((depth, 5), np.uint64)
        with pytest.raises(ValueError):
            on.fold(np.zeros((leaves, 5), np.uint64), out=out)


class TestCorrect:
    @pytest.mark.parametrize("count", WORDS)
    def test_adds_where_the_mask_is_set(self, on: Loops, rng: np.random.Generator, count: int) -> None:
        row, x = words(rng, count), words(rng, 3, count)
        masks = np.array([0, 2**64 - 1, 0], np.uint64)
        expected = x.copy()
        expected[1] ^= row
        assert np.array_equal(on.correct(row, masks, x), expected)
        assert np.array_equal(on.correct(strided(row), strided(masks), strided(x)), expected)
        on.correct(row, masks, x, out=x)
        assert np.array_equal(x, expected)


class TestHashSteps:
    @pytest.mark.parametrize("step", [0, 1])
    @pytest.mark.parametrize("first", [0, 2**32 - 2, 2**40 + 7, 2**64 - 5])
    def test_spread(self, on: Loops, rng: np.random.Generator, first: int, step: int) -> None:
        keys, blocks = words(rng, 5, 2), np.array([0, 3, 2**32 - 1], np.uint64)
        found = on.spread(keys, np.uint64(first), np.uint64(step), blocks)
        assert found.shape == (5, 3, 2)
        for n, key in enumerate(keys.tolist()):
            for b, block in enumerate(blocks.tolist()):
                number = key[0] + (key[1] << 64) ^ ((first + step * n) << 32 | block)
                assert found[n, b].tolist() == [number & 2**64 - 1, number >> 64]
        assert np.array_equal(on.spread(strided(keys), np.uint64(first), np.uint64(step), strided(blocks)), found)

    @pytest.mark.parametrize("step", [0, 1])
    @pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 100])
    def test_spread_to_one_block(self, on: Loops, rng: np.random.Generator, count: int, step: int) -> None:
        keys, blocks = words(rng, count, 2), np.array([7, 9], np.uint64)
        both = on.spread(keys, np.uint64(2**33), np.uint64(step), blocks)
        assert np.array_equal(on.spread(keys, np.uint64(2**33), np.uint64(step), blocks[1:]), both[:, 1:])

    def test_gather(self, on: Loops, rng: np.random.Generator) -> None:
        keys, blocks = words(rng, 5, 2), words(rng, 5, 3, 2)
        expected = keys[:, None] ^ blocks
        assert np.array_equal(on.gather(keys, blocks), expected)
        assert np.array_equal(on.gather(strided(keys), strided(blocks)), expected)
        on.gather(keys, blocks, out=blocks)
        assert np.array_equal(blocks, expected)


class TestBoth:
    @pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 31, 64, 1001])
    def test_exchanges_where_a_flip_is_set(self, on: Loops, rng: np.random.Generator, count: int) -> None:
        keys, delta = words(rng, count, 2), words(rng, 2)
        flips = rng.integers(0, 2, count, dtype=np.uint8)
        found = on.both(keys, np.packbits(flips, bitorder="little"), delta)
        assert found.shape == (2, count, 2)
        pair = np.stack([keys, keys ^ delta])
        assert np.array_equal(found[0], pair[flips, np.arange(count)])
        assert np.array_equal(found[1], pair[1 - flips, np.arange(count)])

    @pytest.mark.parametrize("size", [0, 1, 3])
    def test_takes_a_bit_for_each_entry(self, on: Loops, rng: np.random.Generator, size: int) -> None:
        with pytest.raises(ValueError, match="a bit for each entry"):
            on.both(words(rng, 9, 2), np.zeros(size, np.uint8), words(rng, 2))


class TestRestore:
    @pytest.mark.parametrize("count", WORDS)
    def test_undoes_transpose(self, on: Loops, rng: np.random.Generator, count: int) -> None:
        entries = words(rng, count, 64, 2)
        rows = on.restore(entries)
        assert rows.shape == (128, count)
        if count:
            assert np.array_equal(bits(rows), bits(entries.reshape(-1, 2)).T)
        assert np.array_equal(on.transpose(rows), entries)

    @pytest.mark.parametrize("count", [1, 8, 13])
    def test_any_memory_layout(self, on: Loops, rng: np.random.Generator, count: int) -> None:
        entries = words(rng, count, 64, 2)
        expected = on.restore(entries)
        assert np.array_equal(on.restore(strided(entries)), expected)
        out = strided(np.zeros_like(expected))
        on.restore(entries, out=out)
        assert np.array_equal(out, expected)

    def test_refuses_other_shapes(self, on: Loops) -> None:
        for shape in ((2, 63, 2), (2, 64, 3)):
            with pytest.raises(ValueError):
                on.restore(np.zeros(shape, np.uint64))


def number(block: np.ndarray) -> int:
    return int(block[0]) | int(block[1]) << 64


def times(a: int, b: int) -> int:
    """Multiply in GF(2^128), bit by bit."""
    product = 0
    for bit in range(128):
        product ^= a << bit if b >> bit & 1 else 0
    for bit in reversed(range(128, 255)):
        if product >> bit & 1:
            product ^= (1 << 128 | 0x87) << bit - 128
    return product


class Polynomials(NamedTuple):
    evaluate: Callable[..., np.ndarray]
    combine: Callable[..., np.ndarray]


@pytest.fixture(params=["c", "portable", "numpy"])
def by(request: pytest.FixtureRequest) -> Polynomials:
    """With carry-less multiplication where there is one, without, and the twin."""
    if request.param == "numpy":
        return Polynomials(TWIN.evaluate, TWIN.combine)
    c = pytest.importorskip("mpc._transfers")
    if request.param == "c":
        return Polynomials(c.evaluate, c.combine)
    return Polynomials(c.evaluate_portable, c.combine_portable)


class TestCombine:
    @pytest.mark.parametrize("count", [0, 2, 6, 8, 10, 16, 34])
    def test_evaluates_the_rows_that_entries_come_from(
        self, by: Polynomials, rng: np.random.Generator, count: int
    ) -> None:
        rows, points = words(rng, 128, count), words(rng, 2, 2)
        entries = TWIN.transpose(rows)
        for some in (points, points[:1], points[:0]):
            found = by.combine(entries, some)
            assert found.shape == (len(some), 128, 2)
            for point, values in zip(some, found, strict=True):
                assert np.array_equal(values, by.evaluate(rows, point))
        out = strided(np.zeros((2, 128, 2), np.uint64))
        by.combine(entries, strided(points), out=out)
        assert np.array_equal(out, by.combine(entries, points))

    def test_refuses_what_are_no_blocks(self, by: Polynomials) -> None:
        for shape, points in (((3, 64, 2), 2), ((2, 64, 2), 3), ((2, 63, 2), 1), ((2, 64, 3), 1)):
            with pytest.raises(ValueError):
                by.combine(np.zeros(shape, np.uint64), np.zeros((points, 2), np.uint64))


class TestEvaluate:
    @pytest.mark.parametrize("blocks", [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 53])
    def test_is_a_polynomial(self, by: Polynomials, rng: np.random.Generator, blocks: int) -> None:
        rows, point = words(rng, 3, 2 * blocks), words(rng, 2)
        found = by.evaluate(rows, point)
        assert found.shape == (3, 2)
        for row, value in zip(rows, found, strict=True):
            expected = 0
            for block in row.reshape(-1, 2):
                expected = times(expected, number(point)) ^ number(block)
            assert number(value) == expected

    @pytest.mark.parametrize("edge", [0, 1, 2, 0x87, 1 << 63, 1 << 64, 1 << 127, (1 << 128) - 1])
    def test_edges(self, by: Polynomials, edge: int) -> None:
        for other in (0, 1, 3, 1 << 64, 1 << 127, (1 << 128) - 1):
            row = np.array([other & 2**64 - 1, other >> 64, 0, 0], np.uint64)
            point = np.array([edge & 2**64 - 1, edge >> 64], np.uint64)
            assert number(by.evaluate(row, point)) == times(other, edge)

    @pytest.mark.parametrize("edge", [0, 1, 2, 0x87, 1 << 63, 1 << 64, 1 << 127, (1 << 128) - 1])
    def test_edges_of_every_coefficient(self, by: Polynomials, edge: int) -> None:
        """Of a row of two times sixteen and three more, of which one is not zero."""
        blocks = 35
        point = np.array([edge & 2**64 - 1, edge >> 64], np.uint64)
        rows = np.zeros((blocks, blocks, 2), np.uint64)
        rows[np.arange(blocks), np.arange(blocks)] = 2**64 - 1, 1 << 63
        expected, value = [], (1 << 127) + 2**64 - 1
        for _ in range(blocks):
            expected.append(value)
            value = times(value, edge)
        assert [number(found) for found in by.evaluate(rows.reshape(blocks, -1), point)] == expected[::-1]

    def test_any_layout_of_rows(self, by: Polynomials, rng: np.random.Generator) -> None:
        rows, point = words(rng, 6, 20), words(rng, 2)
        expected = by.evaluate(rows, point)
        assert np.array_equal(by.evaluate(rows[::2], strided(point)), expected[::2])
        out = strided(np.zeros((6, 2), np.uint64))
        by.evaluate(rows, point, out=out)
        assert np.array_equal(out, expected)

    def test_refuses_half_blocks(self, by: Polynomials) -> None:
        with pytest.raises(ValueError, match="blocks"):
            by.evaluate(np.zeros((2, 3), np.uint64), np.zeros(2, np.uint64))


def test_c_takes_words_only() -> None:
    on = compiled()
    if on is None:
        pytest.skip("the C loops were not built")
    for dtype in (np.int64, np.uint32, np.float64, object):
        with pytest.raises(TypeError):
            on.transpose(np.zeros((128, 1), dtype))
        with pytest.raises(TypeError):
            on.gather(np.zeros((1, 2), dtype), np.zeros((1, 1, 2), dtype))
    with pytest.raises(ValueError):
        on.spread(np.zeros((4, 3), np.uint64), np.uint64(0), np.uint64(1), np.zeros(1, np.uint64))
    with pytest.raises(ValueError):
        on.gather(np.zeros((4, 2), np.uint64), np.zeros((5, 1, 2), np.uint64))
    with pytest.raises(ValueError, match="in one piece"):
        on.both(np.zeros((18, 2), np.uint64)[::2], np.zeros(2, np.uint8), np.zeros(2, np.uint64))
    with pytest.raises(ValueError, match="in one piece"):
        on.evaluate(np.zeros((2, 8), np.uint64)[:, ::2], np.zeros(2, np.uint64))
    with pytest.raises(ValueError, match="in one piece"):
        on.combine(np.zeros((4, 64, 2), np.uint64)[::2], np.zeros((2, 2), np.uint64))
    with pytest.raises(ValueError):
        on.correct(np.zeros(4, np.uint64), np.zeros(1, np.uint64), np.zeros((1, 5), np.uint64))
