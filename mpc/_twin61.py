"""F61 in numpy: the readable twin of the C loops, p = 2^61 - 1, one uint64 an element.

Reduction is folding: ``2^61 = 1 (mod p)``, so the bits above the 61st are added to those below.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc._crt_matmul import LIMB_BITS, CrtMatmul, limbs_from_products, residues_from_limbs
from mpc._kernel_table import FieldArray, Float64Array, Int64Array, Kernels

DTYPE = np.dtype("<u8")
MODULUS = 2**61 - 1
P = np.uint64(MODULUS)
HALF = np.uint64((MODULUS - 1) // 2)
_LIMB = np.uint64(2**LIMB_BITS - 1)


def canonical(value: FieldArray) -> FieldArray:
    """Reduce any uint64: the folded value is at most p + 7, so one conditional subtraction ends it."""
    folded = (value & P) + (value >> np.uint64(61))
    return np.where(folded >= P, folded - P, folded)


def _into(result: FieldArray, out: FieldArray | None) -> FieldArray:
    if out is None:
        return result
    out[...] = result
    return out


def add(x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
    return _into(canonical(np.add(x, y)), out)  # < 2^62


def sub(x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
    return _into(canonical(np.add(x, np.subtract(P, y))), out)  # < 2^62


def neg(x: Any) -> FieldArray:
    return canonical(np.subtract(P, x))


def mul(x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
    x, y = np.asarray(x), np.asarray(y)
    low, shift30, shift31 = np.uint64(2**31 - 1), np.uint64(30), np.uint64(31)
    x0, x1, y0, y1 = x & low, x >> shift31, y & low, y >> shift31
    middle = x0 * y1 + x1 * y0  # < 2 * 2^31 * 2^30 = 2^62, weight 2^31
    # x0 y0 < 2^62; x1 y1 < 2^60 has weight 2^62 = 2; the top of `middle` has weight 2^61 = 1. Sum < 2^63 + 2^61 + 2^32.
    total = x0 * y0 + (x1 * y1 << np.uint64(1)) + ((middle & np.uint64(2**30 - 1)) << shift31) + (middle >> shift30)
    return _into(canonical(total), out)


def beaver(d: Any, e: Any, a: Any, b: Any, c: Any, out: FieldArray | None = None) -> FieldArray:
    return add(add(mul(d, b), mul(e, a)), c, out)


def beaver_lead(d: Any, e: Any, a: Any, b: Any, c: Any, out: FieldArray | None = None) -> FieldArray:
    return beaver(d, e, a, add(b, e), c, out)  # d*b + d*e = d*(b + e)


def sum_last(x: Any) -> FieldArray:
    x = np.asarray(x)
    low = np.sum(x & np.uint64(2**32 - 1), axis=-1)  # < 2^64 for fewer than 2^32 entries
    high = np.sum(x >> np.uint64(32), axis=-1)  # < 2^61
    high_element = canonical(high)
    # high * 2^32: its low 29 bits move up to at most 2^61, the 32 bits above have weight 2^61 = 1.
    moved = ((high_element & np.uint64(2**29 - 1)) << np.uint64(32)) + (high_element >> np.uint64(29))
    return add(canonical(low), canonical(moved))


def from_int64(k: Any) -> FieldArray:
    return np.mod(np.asarray(k, dtype=np.int64), np.int64(MODULUS)).view(np.uint64)


def scale(x: Any, k: Any) -> FieldArray:
    return mul(x, from_int64(k))


def dot(x: Any, k: Any) -> FieldArray:
    return sum_last(scale(x, k))


def _signed(x: Any) -> Int64Array:
    x = np.asarray(x)
    signed: Int64Array = x.view(np.int64) - np.where(x > HALF, np.int64(MODULUS), np.int64(0))
    return signed


def encode_fixed(v: Float64Array, factor: float) -> tuple[FieldArray, int]:
    rounded = np.rint(v * factor)
    inside = np.abs(rounded) < 2.0**60  # half = 2^60 - 1, and the float64 below 2^60 is smaller
    return from_int64(np.where(inside, rounded, 0.0).astype(np.int64)), v.size - int(np.count_nonzero(inside))


def to_int64(x: FieldArray) -> tuple[Int64Array, int]:
    return _signed(x), 0


def decode_fixed(x: Any, factor: float) -> Float64Array:
    return np.multiply(_signed(x).astype(np.float64), factor)


def shift_round(x: Any, bits: int) -> FieldArray:
    return from_int64((_signed(x) + np.int64(1 << (bits - 1))) >> np.int64(bits))  # below 2^61 in size


def residue(x: Any, m: int) -> Int64Array:
    return np.mod(_signed(x), np.int64(m))


def noncanonical(x: FieldArray) -> int:
    return int(np.count_nonzero(x >= P))


def low_bits(x: FieldArray, bits: int) -> tuple[FieldArray, int]:
    masked = x & np.uint64(2**bits - 1)
    return masked, noncanonical(masked)


def from_objects(values: Any) -> FieldArray:
    return np.asarray(values).astype(DTYPE)


def to_objects(x: FieldArray) -> Any:
    return x.astype(object)


def residues(x: FieldArray, moduli: Float64Array) -> Float64Array:
    limbs = [((x >> np.uint64(LIMB_BITS * j)) & _LIMB).astype(np.float64) for j in range(3)]
    return residues_from_limbs(limbs, moduli)


def join(products: Float64Array, weights: Float64Array) -> FieldArray:
    words = [from_int64(limb.astype(np.int64)) for limb in limbs_from_products(products, weights)]
    total = words[0]
    for j, word in enumerate(words[1:], start=1):
        total = add(total, mul(word, np.uint64(2 ** (LIMB_BITS * j))))
    return total


def kernels() -> Kernels:
    """Return the table of this module; words may wrap, so numpy's overflow warning for 0-d operands is silenced."""
    quiet = np.errstate(over="ignore")
    return Kernels(
        add=quiet(add), sub=quiet(sub), mul=quiet(mul), neg=quiet(neg), beaver=quiet(beaver),
        beaver_lead=quiet(beaver_lead), sum=quiet(sum_last), matmul=quiet(CrtMatmul(MODULUS, residues, join, add)),
        scale=quiet(scale), dot=quiet(dot), from_int64=quiet(from_int64), encode_fixed=quiet(encode_fixed),
        to_int64=quiet(to_int64), decode_fixed=quiet(decode_fixed), shift_round=quiet(shift_round),
        residue=quiet(residue), noncanonical=noncanonical, low_bits=low_bits, from_objects=from_objects,
        to_objects=to_objects,
    )  # fmt: skip
