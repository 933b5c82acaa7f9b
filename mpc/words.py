"""Bits, 64 side by side: the ring GF(2)^64 with the interface of a field.

Addition is XOR and multiplication AND, so that everything that works over a field (masks, openings,
Beaver products, both preprocessings) works on packed bits as it is.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mpc._copying import as_plain
from mpc._kernel_table import Kernels
from mpc.field import Field, FieldArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORD_BITS = 64


class Words(Field):
    """Vectors of 64 bits; use the one instance :data:`W64`."""

    def __init__(self) -> None:
        self.name = "W64"
        self.modulus = 2
        self.bits = WORD_BITS
        self.half = 0  # bits have no magnitude: shares of words carry the bound 0
        self.element_bytes = 8
        self.dtype = np.dtype("<u8")
        self._wire = self.dtype

    def dense(self, x: FieldArray, count: int) -> FieldArray:
        """Lay the first ``count`` bits of each row of words end to end."""
        return pack_bits(unpack_bits(x, count).reshape(-1))

    @cached_property
    def _kernels(self) -> Kernels:
        return Kernels(
            add=np.bitwise_xor,
            sub=np.bitwise_xor,
            mul=np.bitwise_and,
            neg=np.copy,
            beaver=lambda d, e, a, b, c: (d & b) ^ (e & a) ^ c,
            beaver_lead=lambda d, e, a, b, c: (d & (b ^ e)) ^ (e & a) ^ c,
            sum=lambda x: np.bitwise_xor.reduce(x, axis=-1),
            noncanonical=lambda x: 0,
            low_bits=lambda words, bits: (words.copy(), 0),
            matmul=_undefined,
            scale=_undefined,
            dot=_undefined,
            from_int64=_undefined,
            encode_fixed=_undefined,
            to_int64=_undefined,
            decode_fixed=_undefined,
            shift_round=_undefined,
            residue=_undefined,
            from_objects=_undefined,
            to_objects=_undefined,
        )


def _undefined(*operands: Any) -> NoReturn:
    raise TypeError("packed bits have no such operation")


W64 = Words()


def pack_bits(bits: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Pack the last axis of 0s and 1s into words, 64 bits each, padded with zeros."""
    *front, count = bits.shape
    padded = np.zeros((*front, -(-count // WORD_BITS) * 8), np.uint8)
    packed = np.packbits(bits, axis=-1, bitorder="little")
    padded[..., : packed.shape[-1]] = packed
    return padded.view("<u8")


def unpack_bits(words: NDArray[np.uint64], count: int) -> NDArray[np.uint8]:
    """Return the first ``count`` bits of the words of the last axis."""
    as_bytes = np.ascontiguousarray(words).view(np.uint8)
    return np.unpackbits(as_bytes, axis=-1, count=count, bitorder="little")


def bit_planes(field: Field, values: FieldArray, count: int) -> NDArray[np.uint64]:
    """Cut the canonical integers of a flat array into planes.

    Returns
    -------
    numpy.ndarray
        Shape ``(count, words)``: plane i holds bit i of every entry, packed.
    """
    planes = np.zeros((count, -(-values.size // WORD_BITS)), np.uint64)
    rows = planes.view(np.uint8)
    # Byte by byte: a byte of all entries is eight planes, and eight times less to go through than words.
    as_bytes = np.ascontiguousarray(values).view(np.uint8).reshape(values.size, values.dtype.itemsize)
    for start in range(0, count, 8):
        column = np.ascontiguousarray(as_bytes[:, start // 8])
        for i in range(start, min(start + 8, count)):
            packed = np.packbits(column & np.uint8(1 << i % 8), bitorder="little")
            rows[i, : packed.size] = packed
    return planes


def negated_planes(planes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the planes of the negated numbers, modulo 2 to the number of planes."""
    negated = np.empty_like(planes)
    carry = np.full(planes.shape[1:], -1, np.int64).view(np.uint64)
    for plane, result in zip(planes, negated, strict=True):  # -x = (not x) + 1
        inverted = ~plane
        np.bitwise_xor(inverted, carry, out=result)
        carry &= inverted
    return negated


def signs(field: Field, bits: NDArray[np.uint8]) -> FieldArray:
    """Return ``(-1)^bit`` as elements."""
    return chosen(field, bits, 1, -1)


def chosen(field: Field, bits: NDArray[np.uint8], zero: int, one: int) -> FieldArray:
    """Return one of two elements for each bit."""
    return np.take(as_plain(field.encode([zero, one])), bits).view(field.public.dtype)
