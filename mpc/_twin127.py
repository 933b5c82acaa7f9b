"""F127 in numpy: the readable twin of the C loops, p = 2^127 - 1, two uint64 words ``(lo, hi)`` an element.

Reduction is folding: ``2^127 = 1 (mod p)``. Products work on five limbs of 26 bits, whose columns fit into uint64
without carries; ``2^130 = 8 (mod p)`` brings the upper columns back.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc._crt_matmul import LIMB_BITS, CrtMatmul, limbs_from_products, residues_from_limbs
from mpc._kernel_table import FieldArray, Float64Array, Int64Array, Kernels

DTYPE = np.dtype([("lo", "<u8"), ("hi", "<u8")])
MODULUS = 2**127 - 1
_ALL = np.uint64(2**64 - 1)
_TOP = np.uint64(2**63 - 1)  # the upper word of p; the lower one is _ALL
_LIMB = np.uint64(2**LIMB_BITS - 1)
_LIMB_SHIFT = np.uint64(LIMB_BITS)
_ONE, _63 = np.uint64(1), np.uint64(63)
_BLOCK = 2048  # elements a pass: the temporaries of a product stay in the cache


def _u(value: int) -> np.uint64:
    return np.uint64(value)


def pack(lo: FieldArray, hi: FieldArray, out: FieldArray | None = None) -> FieldArray:
    """Words as elements."""
    if out is None:
        out = np.empty(np.shape(lo), dtype=DTYPE)
    out["lo"] = lo
    out["hi"] = hi
    return out


def canonical(lo: FieldArray, hi: FieldArray, out: FieldArray | None = None) -> FieldArray:
    """Reduce ``lo + 2^64 hi <= 2p``: one fold gives at most p, and p itself becomes 0."""
    folded = lo + (hi >> _63)
    high = (hi & _TOP) + (folded < lo)
    is_p = (folded == _ALL) & (high == _TOP)
    return pack(np.where(is_p, _u(0), folded), np.where(is_p, _u(0), high), out)


def words(x: Any) -> tuple[FieldArray, FieldArray]:
    x = np.asarray(x)
    if x.dtype != DTYPE:
        raise TypeError(f"elements of F127 are {DTYPE}, not {x.dtype}")
    return x["lo"], x["hi"]


def _add_words(xl: FieldArray, xh: FieldArray, yl: FieldArray, yh: FieldArray, out: FieldArray | None) -> FieldArray:
    lo = np.asarray(xl + yl)
    return canonical(lo, xh + yh + (lo < xl), out)  # the sum of two numbers up to p: at most 2p < 2^128


def add(x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
    return _add_words(*words(x), *words(y), out)


def sub(x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
    yl, yh = words(y)
    return _add_words(*words(x), ~yl, ~yh & _TOP, out)  # p - y is the complement of its 127 bits


def neg(x: Any) -> FieldArray:
    lo, hi = words(x)
    return canonical(np.asarray(~lo), np.asarray(~hi & _TOP))


def limbs26(x: Any) -> list[FieldArray]:
    """Five limbs of 26 bits (23 in the last)."""
    lo, hi = words(x)
    return [
        lo & _LIMB,
        (lo >> _u(26)) & _LIMB,
        (lo >> _u(52)) | ((hi & _u(2**14 - 1)) << _u(12)),
        (hi >> _u(14)) & _LIMB,
        hi >> _u(40),
    ]


def from_columns(columns: list[FieldArray], out: FieldArray | None = None) -> FieldArray:
    """Reduce ``sum_j columns[j] * 2^(26 j)``, five columns below 2^63 each."""
    limbs = list(columns)
    for _ in range(3):  # after pass 1 the carry out of the top is below 2^38, after pass 2 below 2^13, then at most 1
        carry: Any = _u(0)
        for j in range(5):
            total = limbs[j] + carry  # < 2^63 + 2^38
            limbs[j], carry = total & _LIMB, total >> _LIMB_SHIFT
        limbs[0] = limbs[0] + (carry << _u(3))  # 2^130 = 8; < 2^26 + 2^41
    # The limbs fit, but for the lowest after a rare last carry; the value is below 2^130 + 8.
    low = limbs[0] + (limbs[1] << _u(26))  # < 2^53
    middle = limbs[2]
    lo = low + (middle << _u(52))
    hi = (middle >> _u(12)) + (limbs[3] << _u(14)) + ((limbs[4] & _u(2**23 - 1)) << _u(40)) + (lo < low)
    extra = limbs[4] >> _u(23)  # weight 2^127 = 1; at most 7
    folded = lo + extra
    return canonical(folded, hi + (folded < extra), out)  # < 2^127 + 16


def _multiply(x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
    xs, ys = limbs26(x), limbs26(y)
    columns = [sum(xs[i] * ys[j - i] for i in range(max(0, j - 4), min(j, 4) + 1)) for j in range(9)]
    # A column has at most 5 products below 2^52; folded, 2^54.4 + 8 * 2^54 < 2^58.
    folded = [columns[j] + (columns[j + 5] << _u(3)) if j < 4 else columns[j] for j in range(5)]
    return from_columns(folded, out)  # type: ignore[arg-type]


def mul(x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
    x, y = np.broadcast_arrays(x, y)
    if x.size <= _BLOCK:
        return _multiply(x, y, out)
    result = np.empty(x.size, dtype=DTYPE)
    left, right = x.reshape(-1), y.reshape(-1)
    for start in range(0, x.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        _multiply(left[block], right[block], result[block])
    result = result.reshape(x.shape)
    if out is None:
        return result
    out[...] = result
    return out


def beaver(d: Any, e: Any, a: Any, b: Any, c: Any, out: FieldArray | None = None) -> FieldArray:
    return add(add(mul(d, b), mul(e, a)), c, out)


def beaver_lead(d: Any, e: Any, a: Any, b: Any, c: Any, out: FieldArray | None = None) -> FieldArray:
    return beaver(d, e, a, add(b, e), c, out)  # d*b + d*e = d*(b + e)


def sum_last(x: Any) -> FieldArray:
    return from_columns([np.sum(limb, axis=-1) for limb in limbs26(x)])  # < 2^63 for fewer than 2^37 entries


# ---- signed integers: two's complement of 128 bits, the upper word as int64 ---------------------------------------


def _signed(x: Any) -> tuple[FieldArray, Int64Array]:
    """Signed representative: ``v - p = v + 1 - 2^127`` where v has bit 126, that is, where it exceeds half."""
    lo, hi = words(x)
    negative = hi >> _u(62)
    low = lo + negative
    return low, ((hi + (low < lo)) | (negative << _63)).view(np.int64)


def _from_signed(low: FieldArray, high: Int64Array) -> FieldArray:
    """Elements from signed integers between -p and p: negative ones become ``v - 1 + 2^127``."""
    negative = (high < 0).view(np.uint8).astype(np.uint64)
    lo = low - negative
    return canonical(lo, (high.view(np.uint64) - (lo > low)) & _TOP)


def from_int64(k: Any) -> FieldArray:
    k = np.asarray(k, dtype=np.int64)
    return _from_signed(k.view(np.uint64), np.asarray(k >> np.int64(63)))


def to_int64(x: FieldArray) -> tuple[Int64Array, int]:
    low, high = _signed(x)
    value = low.view(np.int64)
    return value, int(np.count_nonzero(high != value >> np.int64(63)))


def encode_fixed(v: Float64Array, factor: float) -> tuple[FieldArray, int]:
    with np.errstate(over="ignore"):
        rounded = np.rint(v * factor)
    size = np.abs(rounded)
    inside = size < 2.0**126  # half = 2^126 - 1, and the float64 below 2^126 is smaller
    size = np.where(inside, size, 0.0)
    hi = np.floor(size * 2.0**-64)
    magnitude = pack((size - hi * 2.0**64).astype(np.uint64), hi.astype(np.uint64))
    return np.where(rounded < 0, neg(magnitude), magnitude), v.size - int(np.count_nonzero(inside))


def decode_fixed(x: Any, factor: float) -> Float64Array:
    lo, hi = words(x)
    negative = (hi >> _u(62)).astype(bool)
    lo, hi = np.where(negative, ~lo, lo), np.where(negative, ~hi & _TOP, hi)  # magnitude, below 2^126
    # Correct rounding: at least 55 leading bits stay, the rest is only remembered as "not zero".
    top = hi != 0
    kept = (hi << _u(1) | lo >> _63).astype(np.float64)
    exponent = np.frexp(kept)[1].astype(np.int64)  # 2^(exponent-1) <= 2 hi + .. <= 2^exponent
    drop = np.clip(exponent, 1, 63).astype(np.uint64)
    shifted = (lo >> drop) | (hi << (_u(64) - drop)) | ((lo & ((_ONE << drop) - _ONE)) != 0)
    value = np.where(top, np.ldexp(shifted.astype(np.float64), drop.astype(np.int32)), lo.astype(np.float64))
    return np.where(negative, -value, value) * np.float64(factor)


def shift_round(x: Any, bits: int) -> FieldArray:
    low, high = _signed(x)
    half = 1 << (bits - 1)
    lo = low + _u(half % 2**64)
    hi = high + np.int64(half >> 64) + (lo < low)  # below 2^126 + 2^125: no overflow
    if bits < 64:
        shifted = (lo >> _u(bits)) | (hi.view(np.uint64) << _u(64 - bits))
        return _from_signed(shifted, hi >> np.int64(bits))
    return _from_signed((hi >> np.int64(bits - 64)).view(np.uint64), hi >> np.int64(63))


def residue(x: Any, m: int) -> Int64Array:
    lo, hi = words(x)
    remainder, modulus = hi % _u(m), _u(m)
    for part in (lo >> _u(32), lo & _u(2**32 - 1)):
        remainder = ((remainder << _u(32)) | part) % modulus  # < 2^63
    remainder = remainder + (hi >> _u(62)) * _u(-MODULUS % m)
    return (remainder % modulus).view(np.int64)


# ---- public integer factors ---------------------------------------------------------------------------------------


def scale(x: Any, k: Any) -> FieldArray:
    return mul(x, from_int64(k))


def dot(x: Any, k: Any) -> FieldArray:
    return sum_last(scale(x, k))


# ---- raw words, Python integers, matrices -------------------------------------------------------------------------


def noncanonical(x: FieldArray) -> int:
    lo, hi = words(x)
    return int(np.count_nonzero((hi > _TOP) | ((hi == _TOP) & (lo == _ALL))))


def low_bits(x: FieldArray, bits: int) -> tuple[FieldArray, int]:
    lo, hi = words(x)
    mask = 2**bits - 1
    masked = pack(lo & _u(mask % 2**64), hi & _u(mask >> 64))
    return masked, noncanonical(masked)


def from_objects(values: Any) -> FieldArray:
    values = np.asarray(values, dtype=object)
    low = np.asarray(values & (2**64 - 1), dtype=np.uint64)
    return pack(low, np.asarray(values >> 64, dtype=np.uint64))


def to_objects(x: FieldArray) -> Any:
    lo, hi = words(x)
    return (hi.astype(object) << 64) + lo.astype(object)


def residues(x: FieldArray, moduli: Float64Array) -> Float64Array:
    return residues_from_limbs([limb.astype(np.float64) for limb in limbs26(x)], moduli)


def join(products: Float64Array, weights: Float64Array) -> FieldArray:
    columns = [(limb.astype(np.int64) + _LIFT).view(np.uint64) for limb in limbs_from_products(products, weights)]
    return sub(from_columns(columns), _LIFT_SUM)


_LIFT = np.int64(2**54)  # makes a signed limb of at most 53 bits positive
_LIFT_SUM = from_objects(np.array(sum(2 ** (54 + LIMB_BITS * j) for j in range(5)) % MODULUS, dtype=object))


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
