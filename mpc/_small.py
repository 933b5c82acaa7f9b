"""GF(p) in numpy for a prime below 2^31: a product fits one uint64, so the operators are nearly numpy's own.

Made for exact privacy tests in tiny fields, not for speed; there is no C counterpart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc._kernel_table import FieldArray, Float64Array, Int64Array, Kernels

MAX_MODULUS = 2**31


class SmallField:
    """The operations modulo p; each result is reduced at once.

    Parameters
    ----------
    modulus : int
        A prime below 2^31.
    """

    def __init__(self, modulus: int) -> None:
        self._modulus = modulus
        self._p = np.uint64(modulus)
        self._half = (modulus - 1) // 2

    def _into(self, value: Any, out: FieldArray | None) -> FieldArray:
        reduced: FieldArray = np.mod(value, self._p)
        if out is None:
            return reduced
        out[...] = reduced
        return out

    def add(self, x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
        return self._into(np.add(x, y), out)

    def sub(self, x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
        return self._into(np.add(x, np.subtract(self._p, y)), out)

    def mul(self, x: Any, y: Any, out: FieldArray | None = None) -> FieldArray:
        return self._into(np.multiply(x, y), out)

    def neg(self, x: Any) -> FieldArray:
        return self._into(np.subtract(self._p, x), None)

    def beaver(self, d: Any, e: Any, a: Any, b: Any, c: Any, out: FieldArray | None = None) -> FieldArray:
        return self._into(np.multiply(d, b) + self.mul(e, a) + c, out)  # < 2^62 + 2^32

    def beaver_lead(self, d: Any, e: Any, a: Any, b: Any, c: Any, out: FieldArray | None = None) -> FieldArray:
        return self.beaver(d, e, a, self.add(b, e), c, out)

    def sum_last(self, x: Any) -> FieldArray:
        return self._into(np.sum(x, axis=-1, dtype=np.uint64), None)  # < 2^64 for at most 2^33 entries

    def matmul(self, x: FieldArray, y: FieldArray) -> FieldArray:
        if x.ndim == 0 or y.ndim == 0 or x.shape[-1] != y.shape[0 if y.ndim == 1 else -2]:
            raise ValueError(f"matmul: shapes {x.shape} and {y.shape} do not fit")
        inner = x.shape[-1]
        step = (2**64 - 1) // (self._modulus - 1) ** 2 - 1  # products that one uint64 holds beside a reduced sum
        total = self._into(np.matmul(x[..., :step], y[:step] if y.ndim == 1 else y[..., :step, :]), None)
        for start in range(step, inner, step):
            k = slice(start, start + step)
            total = self.add(total, self._into(np.matmul(x[..., k], y[k] if y.ndim == 1 else y[..., k, :]), None))
        return total

    def scale(self, x: Any, k: Any) -> FieldArray:
        return self.mul(x, self.from_int64(k))

    def dot(self, x: Any, k: Any) -> FieldArray:
        return self.sum_last(self.scale(x, k))

    def from_int64(self, k: Any) -> FieldArray:
        reduced: FieldArray = np.mod(np.asarray(k, dtype=np.int64), np.int64(self._modulus)).view(np.uint64)
        return reduced

    def _signed(self, x: Any) -> Int64Array:
        x = np.asarray(x)
        signed: Int64Array = x.view(np.int64) - np.where(x > self._half, np.int64(self._modulus), np.int64(0))
        return signed

    def encode_fixed(self, v: Float64Array, factor: float) -> tuple[FieldArray, int]:
        with np.errstate(over="ignore"):
            rounded = np.rint(v * factor)
        inside = np.abs(rounded) <= self._half
        values = np.where(inside, rounded, 0.0).astype(np.int64)
        return self.from_int64(values), v.size - int(np.count_nonzero(inside))

    def to_int64(self, x: FieldArray) -> tuple[Int64Array, int]:
        return self._signed(x), 0

    def decode_fixed(self, x: Any, factor: float) -> Float64Array:
        value: Float64Array = np.multiply(self._signed(x), factor)
        return value

    def shift_round(self, x: Any, bits: int) -> FieldArray:
        return self.from_int64((self._signed(x) + np.int64(1 << (bits - 1))) >> np.int64(bits))

    def residue(self, x: Any, m: int) -> Int64Array:
        remainder: Int64Array = np.mod(self._signed(x), np.int64(m))
        return remainder

    def noncanonical(self, x: FieldArray) -> int:
        return int(np.count_nonzero(x >= self._p))

    def low_bits(self, x: FieldArray, bits: int) -> tuple[FieldArray, int]:
        masked = x & np.uint64(2**bits - 1)
        return masked, self.noncanonical(masked)

    def from_objects(self, values: Any) -> FieldArray:
        return np.asarray(values, dtype=np.uint64)

    def to_objects(self, x: FieldArray) -> Any:
        return x.astype(object)

    def kernels(self) -> Kernels:
        """Return the table of these operations."""
        return Kernels(
            add=self.add, sub=self.sub, mul=self.mul, neg=self.neg, beaver=self.beaver,
            beaver_lead=self.beaver_lead, sum=self.sum_last, matmul=self.matmul, scale=self.scale, dot=self.dot,
            from_int64=self.from_int64, encode_fixed=self.encode_fixed, to_int64=self.to_int64,
            decode_fixed=self.decode_fixed, shift_round=self.shift_round, residue=self.residue,
            noncanonical=self.noncanonical, low_bits=self.low_bits, from_objects=self.from_objects,
            to_objects=self.to_objects,
        )  # fmt: skip
