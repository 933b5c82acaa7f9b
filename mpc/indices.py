"""Indices: integers modulo 2^32, with the interface of a field.

Positions, counts and digits are small and never truncated, so that 4 bytes do where a field takes 8 or 16,
and additions are numpy's own. Masks, openings and Beaver products need a ring only; nothing here divides.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mpc._kernel_table import Kernels
from mpc.field import Field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import FieldArray

_MASK = np.uint64(0xFFFFFFFF)
MOST_DIGIT_SIGNS = 15  # digits of four bits; what is done with them grows with the cube


class Indices(Field):
    """The integers modulo 2^32; use the one instance :data:`R32`."""

    def __init__(self) -> None:
        self.name = "R32"
        self.modulus = 1 << 32
        self.bits = 32
        self.half = (1 << 31) - 1
        self.element_bytes = 4
        dtype: Any = np.dtype("<u4")
        self.dtype = self._wire = dtype

    def __reduce__(self) -> str:
        return self.name

    @property
    def backend(self) -> str:
        """Where the operations come from: always numpy."""
        return "numpy"

    @cached_property
    def _kernels(self) -> Kernels:
        return Kernels(
            add=np.add,
            sub=np.subtract,
            mul=np.multiply,
            neg=np.negative,
            beaver=lambda d, e, a, b, c: d * b + e * a + c,
            beaver_lead=lambda d, e, a, b, c: d * (b + e) + e * a + c,
            sum=lambda x: np.sum(x, axis=-1, dtype=np.uint32),
            matmul=np.matmul,
            scale=lambda x, k: x * wrapped(k),
            dot=lambda x, k: np.sum(x * wrapped(k), axis=-1, dtype=np.uint32),
            from_int64=wrapped,
            to_int64=lambda x: (x.view(np.int32).astype(np.int64), 0),
            noncanonical=lambda x: 0,
            low_bits=lambda words, bits: (words.copy(), 0),
            from_objects=lambda values: wrapped(np.asarray(values, np.uint64)),
            to_objects=lambda x: x.astype(object),
            encode_fixed=_undefined,
            decode_fixed=_undefined,
            shift_round=_undefined,
            residue=_undefined,
        )


def wrapped(integers: Any) -> NDArray[np.uint32]:
    """Return integers of 64 bits modulo 2^32."""
    return np.asarray((np.asarray(integers).astype(np.uint64) & _MASK).astype(np.uint32))


def _undefined(*operands: Any) -> NoReturn:
    raise TypeError("indices have no such operation")


R32 = Indices()


# ---- sorting by one digit -----------------------------------------------------------------------


def characters(height: int) -> NDArray[np.int64]:
    """Return the signs ``(-1)^(bits that u and v have in common)``, shape ``(height + 1, height + 1)``."""
    numbers = np.arange(height + 1)
    common = numbers[:, None] & numbers
    parity = np.zeros_like(common)
    while common.any():
        parity ^= common & 1
        common >>= 1
    return 1 - 2 * parity


def digit_counts(height: int) -> NDArray[np.int64]:
    """Return K of :func:`digit_weights`: ``K[u, w] = sum over digits v' < v of chi_u(v) chi_w(v')``."""
    signs = characters(height)
    below = np.cumsum(signs, axis=0) - signs  # over v' < v
    return signs.T @ below


def digit_weights(signs: FieldArray) -> FieldArray:
    """Return what the signs of the digits are multiplied by to give places; linear, local.

    Parameters
    ----------
    signs : numpy.ndarray
        uint32, shape ``(V - 1, count)``: row ``u - 1`` holds ``s_u = (-1)^(parity of u & digit)``.

    Returns
    -------
    numpy.ndarray
        ``W_u(j) = V sum_(l <= j) s_u(l) + sum_w K(u, w) sum_l s_w(l)``, for u and w from 1 to V - 1.

    Notes
    -----
    An entry j of digit v has the place ``(entries with a smaller digit) + (entries l <= j with digit v) - 1``
    in the order by digits. With the indicator of v, ``(1/V) sum_u chi_u(v) s_u``, and the orthogonality of
    the characters chi, ``V^2 place = sum_u s_u W_u - V^2``, u from 0 and ``s_0 = 1``.
    """
    height = len(signs)
    prefix = np.cumsum(signs, axis=1, dtype=np.uint32)
    counts = wrapped(digit_counts(height)[1:, 1:]) @ prefix[:, -1]
    return np.asarray(np.uint32(height + 1) * prefix + counts[:, None])
