"""The loops of oblivious transfer in numpy: what ``_transfers.c`` computes, readable and several times slower.

Bits are packed least first: bit i of a row is bit ``i % 64`` of word ``i // 64``. All words are uint64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

ROWS = 128
MOST_DEPTH = 8
_MOST_POINTS = 2
_POLYNOMIAL = 1 << 128 | 0x87
_BLOCK_MASK = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_PIECE = 64  # words of a row whose bits are transposed in one go


def transpose(rows: Words, out: Words | None = None) -> Words:
    """Turn the bits of 128 rows into entries of 128 bits.

    Parameters
    ----------
    rows : numpy.ndarray
        Shape ``(128, words)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(words, 64, 2)``: bit j of entry i of word w is bit i of word w of row j.
    """
    if rows.ndim != 2 or len(rows) != ROWS:
        raise ValueError(f"transpose takes {ROWS} rows of words, not an array of shape {rows.shape}")
    words = rows.shape[1]
    entries = np.empty((words, 64, 2), np.uint64) if out is None else out
    for start in range(0, words, _PIECE):
        piece = np.ascontiguousarray(rows[:, start : start + _PIECE])
        bits = np.unpackbits(piece.view(np.uint8), axis=1, bitorder="little")
        packed = np.packbits(bits, axis=0, bitorder="little")  # (16, 64 words)
        entries[start : start + _PIECE] = np.ascontiguousarray(packed.T).view("<u8").reshape(-1, 64, 2)
    return entries


def fold(leaves: Words, out: tuple[Words, Words]) -> tuple[Words, Words]:
    """Sum the leaves of a tree.

    Parameters
    ----------
    leaves : numpy.ndarray
        Shape ``(2^k, words)``, k from 1 to 8.
    out : (numpy.ndarray, numpy.ndarray)
        Shapes ``(words,)`` and ``(k, words)``: for the sum of all leaves, and the sums of those whose number has bit b.
    """
    total, bits = out
    if not 1 <= len(bits) <= MOST_DEPTH or len(leaves) != 1 << len(bits):
        raise ValueError("fold takes 2^k rows of leaves to k rows of sums, k from 1 to 8")
    level = leaves
    for row in bits:  # pairs of leaves, which differ in the lowest bit that is left
        np.bitwise_xor.reduce(level[1::2], axis=0, out=row)
        level = level[0::2] ^ level[1::2]
    total[...] = level[0]
    return total, bits


def correct(row: Words, masks: Words, x: Words, out: Words | None = None) -> Words:
    """Add a row, shape ``(words,)``, to each row of ``x``, shape ``(k, words)``, whose mask is ones and not zeros."""
    corrected: Words = np.bitwise_xor(x, row & masks[:, None], out=out)
    return corrected


def spread(
    keys: Words, first: int | np.uint64, step: int | np.uint64, blocks: Words, out: Words | None = None
) -> Words:
    """Return key n xor the tweak ``(first + step * n) * 2^32 + block``, for each block, a number of 32 bits.

    Parameters
    ----------
    keys : numpy.ndarray
        Shape ``(n, 2)``, the low word first.
    blocks : numpy.ndarray
        Shape ``(b,)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(n, b, 2)``.
    """
    result = np.empty((len(keys), len(blocks), 2), np.uint64) if out is None else out
    index = np.uint64(first) + np.uint64(step) * np.arange(len(keys), dtype=np.uint64)
    low = keys[:, 0] ^ (index << _HALF)
    np.bitwise_xor(low[:, None], blocks & _BLOCK_MASK, out=result[:, :, 0])
    result[:, :, 1] = (keys[:, 1] ^ (index >> _HALF))[:, None]
    return result


def gather(keys: Words, blocks: Words, out: Words | None = None) -> Words:
    """Return key n, of shape ``(n, 2)``, xor each of its blocks, shape ``(n, b, 2)``."""
    sums: Words = np.bitwise_xor(keys[:, None], blocks, out=out)
    return sums


def both(keys: Words, flips: NDArray[np.uint8], delta: Words, out: Words | None = None) -> Words:
    """Return both keys of correlated transfers, in the order that the chooser asks for.

    Parameters
    ----------
    keys : numpy.ndarray
        Shape ``(n, 2)``, in one piece.
    flips : numpy.ndarray
        uint8, shape ``(ceil(n / 8),)``, a bit for each entry, least first: 1 where the two change places.
    delta : numpy.ndarray
        Shape ``(2,)``.

    Returns
    -------
    numpy.ndarray
        Shape ``(2, n, 2)``: keys, and keys xor delta.
    """
    count = len(keys)
    if len(flips) != -(-count // 8):
        raise ValueError("both takes a bit for each entry, eight in a byte")
    pair = np.empty((2, count, 2), np.uint64) if out is None else out
    bits = np.unpackbits(flips, count=count, bitorder="little").astype(np.uint64)
    np.bitwise_xor(keys, delta * bits[:, None], out=pair[0])
    np.bitwise_xor(pair[0], delta, out=pair[1])
    return pair


def restore(entries: Words, out: Words | None = None) -> Words:
    """Turn entries, shape ``(words, 64, 2)``, back into rows, shape ``(128, words)``; undoes :func:`transpose`."""
    if entries.shape[1:] != (64, 2):
        raise ValueError(f"restore takes words of 64 entries, not an array of shape {entries.shape}")
    words = len(entries)
    rows = np.empty((ROWS, words), np.uint64) if out is None else out
    for start in range(0, words, _PIECE):
        piece = np.ascontiguousarray(entries[start : start + _PIECE]).view(np.uint8).reshape(-1, ROWS // 8)
        bits = np.unpackbits(piece, axis=1, bitorder="little")
        packed = np.packbits(np.ascontiguousarray(bits.T), axis=1, bitorder="little")
        rows[:, start : start + _PIECE] = packed.view("<u8")
    return rows


def evaluate(row: Words, point: Words, out: Words | None = None) -> Words:
    """Evaluate rows as polynomials over GF(2^128).

    Parameters
    ----------
    row : numpy.ndarray
        Shape ``(..., w)`` with an even w. Every two words are a coefficient, that of the highest power first: bit i of
        it stands for ``x^i`` modulo ``x^128 + x^7 + x^2 + x + 1``.
    point : numpy.ndarray
        Shape ``(2,)``. Public.

    Returns
    -------
    numpy.ndarray
        Shape ``(..., 2)``.
    """
    words = row.shape[-1]
    if words % 2:
        raise ValueError("evaluate takes rows of blocks of two words")
    weights = _weights(point, words // 2)
    values = np.empty((*row.shape[:-1], 2), np.uint64) if out is None else out
    for place in np.ndindex(row.shape[:-1]):
        bits = np.unpackbits(np.ascontiguousarray(row[place], "<u8").view(np.uint8), bitorder="little")
        values[place] = np.bitwise_xor.reduce(weights & np.negative(bits.astype(np.int64)).view(np.uint64), axis=1)
    return values


def combine(entries: Words, points: Words, out: Words | None = None) -> Words:
    """Evaluate the rows that entries come from, 128 of them, as polynomials.

    Parameters
    ----------
    entries : numpy.ndarray
        Shape ``(words, 64, 2)``, what :func:`transpose` returned, in one piece.
    points : numpy.ndarray
        Shape ``(p, 2)``, at most two. Public.

    Returns
    -------
    numpy.ndarray
        Shape ``(p, 128, 2)``.
    """
    if entries.shape[1:] != (64, 2) or len(entries) % 2 or len(points) > _MOST_POINTS:
        raise ValueError("combine takes blocks of 128 entries and at most two points")
    rows = restore(entries)
    values = np.empty((len(points), ROWS, 2), np.uint64) if out is None else out
    for point, value in zip(points, values, strict=True):
        evaluate(rows, point, out=value)
    return values


def _weights(point: Words, blocks: int) -> Words:
    """Return what each bit of a row counts for, shape ``(2, 128 blocks)``: ``x^i`` times a power of the point."""
    at = int(point[0]) | int(point[1]) << 64
    weights, power = [b""] * (ROWS * blocks), 1
    for block in reversed(range(blocks)):
        multiples = [power]
        for _ in range(ROWS - 1):
            multiples.append(_doubled(multiples[-1]))
        weights[ROWS * block : ROWS * (block + 1)] = [weight.to_bytes(16, "little") for weight in multiples]
        power = 0
        for bit, multiple in enumerate(multiples):
            power ^= multiple if at >> bit & 1 else 0
    return np.ascontiguousarray(np.frombuffer(b"".join(weights), "<u8").astype(np.uint64).reshape(-1, 2).T)


def _doubled(a: int) -> int:
    """Multiply by x in GF(2^128)."""
    return a << 1 ^ (_POLYNOMIAL if a >> (ROWS - 1) else 0)
