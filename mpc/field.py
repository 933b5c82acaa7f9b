"""Prime fields over numpy arrays: ``F127`` (the default), ``F61`` and any prime below 2^31.

Elements are arrays of natural shape whose every entry is canonical, in ``[0, p)``: ``F61`` and small primes as
uint64, ``F127`` as a 16-byte structure ``(lo, hi)``. Reshaping, indexing and concatenating are numpy's own; all
arithmetic is here. The operations themselves come from C loops, or from their numpy twin where the extension is
missing or ``SOTTOVOCE_KERNELS=numpy`` asks for it.

No operation is constant-time in a strict sense, but no branch or address of the arithmetic depends on an element.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import warnings
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc import _native, _twin61, _twin127
from mpc._copying import join
from mpc._kernel_table import FieldArray, Float64Array, Int64Array, Kernels
from mpc._primes import is_prime
from mpc._small import MAX_MODULUS, SmallField
from mpc.errors import RangeError

__all__ = ["F61", "F127", "GF", "Field", "FieldArray", "KernelWarning"]

BACKEND_VARIABLE = "SOTTOVOCE_KERNELS"
_INT64 = np.dtype(np.int64)
_EMPTY = np.zeros(0, dtype=np.int64)


class KernelWarning(RuntimeWarning):
    """The C kernels are missing; the numpy twin computes the same, several times slower."""


class Field:
    """The integers modulo a prime.

    Use :data:`F61`, :data:`F127` and :func:`GF`; there is one instance for each prime.

    Attributes
    ----------
    name : str
    modulus : int
        The prime p.
    bits : int
        ``modulus.bit_length()``.
    half : int
        ``(p - 1) // 2``: signed integers live in ``[-half, half]``.
    element_bytes : int
        Bytes of an element on the wire, little-endian.
    dtype : numpy.dtype
        Of arrays of elements.
    """

    def __init__(self, modulus: int) -> None:
        self.modulus = modulus
        self.bits = modulus.bit_length()
        self.half = (modulus - 1) // 2
        self.name = {_twin127.MODULUS: "F127", _twin61.MODULUS: "F61"}.get(modulus, f"GF({modulus})")
        self.dtype = _twin127.DTYPE if modulus == _twin127.MODULUS else _twin61.DTYPE
        width = 1 << max(0, (self.bits - 1).bit_length() - 3)  # 1, 2, 4, 8 or 16
        self.element_bytes = width
        self._wire = self.dtype if width >= 8 else np.dtype(f"<u{width}")

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (GF, (self.modulus,)) if self.modulus < MAX_MODULUS else self.name

    # ---- backend ---------------------------------------------------------------------------------------------------

    @cached_property
    def _kernels(self) -> Kernels:
        if self.modulus < MAX_MODULUS:
            return SmallField(self.modulus).kernels()
        native = _native_table(self.modulus)
        if native is not None:
            return native
        return _twin127.kernels() if self.modulus == _twin127.MODULUS else _twin61.kernels()

    @property
    def backend(self) -> str:
        """Where the operations come from: ``"c"`` or ``"numpy"``."""
        return "c" if self.modulus >= MAX_MODULUS and _native_table(self.modulus) is not None else "numpy"

    # ---- public values and summands --------------------------------------------------------------------------------

    @property
    def public(self) -> Field:
        """The field of what is opened: this one, unless summands carry MACs (:mod:`mpc.authenticated`)."""
        return self

    def add_public(
        self, x: FieldArray, public: FieldArray, *, leads: bool, out: FieldArray | None = None
    ) -> FieldArray:
        """Add a public value to our summand; ``leads`` at the one party whose summand takes it up."""
        if leads:
            return self.add(x, public, out=out)
        return np.broadcast_to(x, np.broadcast_shapes(x.shape, public.shape)) if out is None else out

    def parts(self, x: FieldArray) -> tuple[FieldArray, FieldArray | None]:
        """Return the part of our summands that is sent when they are opened, and their MACs if they have any."""
        return x, None

    def mac_array(self, count: int) -> FieldArray | None:
        """Return room for the MACs of so many elements; None without MACs."""
        return None

    # ---- arithmetic; all of it broadcasts --------------------------------------------------------------------------

    def zeros(self, shape: int | tuple[int, ...]) -> FieldArray:
        """Return an array of zeros."""
        return np.zeros(shape, dtype=self.dtype)

    def add(self, x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
        """Add; ``out`` may be one of the operands."""
        return np.asarray(self._kernels.add(x, y, out))

    def sub(self, x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
        """Subtract; ``out`` may be one of the operands."""
        return np.asarray(self._kernels.sub(x, y, out))

    def neg(self, x: FieldArray) -> FieldArray:
        """Negate."""
        return np.asarray(self._kernels.neg(x))

    def mul(self, x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
        """Multiply entry by entry; ``out`` may be one of the operands."""
        return np.asarray(self._kernels.mul(x, y, out))

    def beaver(
        self,
        d: FieldArray,
        e: FieldArray,
        a: FieldArray,
        b: FieldArray,
        c: FieldArray,
        *,
        lead: bool,
        out: FieldArray | None = None,
    ) -> FieldArray:
        """Return ``d*b + e*a + c``, plus ``d*e`` for the leading party: the local step of a Beaver product."""
        step = self._kernels.beaver_lead if lead else self._kernels.beaver
        return np.asarray(step(d, e, a, b, c) if out is None else step(d, e, a, b, c, out))

    def beaver_matmul(
        self, d: FieldArray, e: FieldArray, a: FieldArray, b: FieldArray, c: FieldArray, *, lead: bool
    ) -> FieldArray:
        """Return ``d @ b + a @ e + c``, plus ``d @ e`` for the leading party: the same of a matrix product."""
        right = self.add(b, e) if lead else b  # d b + d e = d (b + e)
        if d.ndim == e.ndim == 2:
            # One product with twice the inner length: [d | a] [right ; e].
            return self.add(self.matmul(join([d, a], axis=1), join([right, e], axis=0)), c)
        return self.add(self.add(self.matmul(d, right), self.matmul(a, e)), c)

    def sum(self, x: FieldArray, axis: int | tuple[int, ...] | None = None) -> FieldArray:
        """Sum over all axes, one axis or several."""
        if axis is None:
            return np.asarray(self._kernels.sum(x.reshape(-1)))
        if not isinstance(axis, tuple):
            return np.asarray(self._kernels.sum(x if axis == -1 and x.ndim else np.moveaxis(x, axis, -1)))
        kept = x.ndim - len(axis)
        moved = np.moveaxis(x, axis, range(kept, x.ndim))
        count = math.prod(moved.shape[kept:])
        return np.asarray(self._kernels.sum(moved.reshape(*moved.shape[:kept], count)))

    def matmul(self, x: FieldArray, y: FieldArray) -> FieldArray:
        """Matrix product with the shapes of ``numpy.matmul``: vectors, matrices, stacks of matrices."""
        return np.asarray(self._kernels.matmul(x, y))

    def scale_int(self, x: FieldArray, k: int | np.integer[Any] | npt.NDArray[np.integer[Any]]) -> FieldArray:
        """Multiply by public integers: an int64 array, or one Python integer of any size."""
        if isinstance(k, int) and not -(2**63) <= k < 2**63:
            return np.asarray(self._kernels.mul(x, self._kernels.from_objects(np.array(k % self.modulus, object))))
        return np.asarray(self._kernels.scale(x, _int64(k)))

    def dot_int(self, x: FieldArray, k: npt.NDArray[np.integer[Any]]) -> FieldArray:
        """Sum ``x * k`` over the last axis, for public int64 factors k."""
        return np.asarray(self._kernels.dot(x, _int64(k)))

    # ---- numbers into elements -------------------------------------------------------------------------------------

    def encode(self, values: int | np.integer[Any] | Sequence[Any] | npt.NDArray[Any]) -> FieldArray:
        """Encode signed integers.

        Parameters
        ----------
        values : int, nested sequence of int, integer array, or object array of Python integers

        Raises
        ------
        RangeError
            If an entry is beyond ``[-half, half]``.
        TypeError
            If an entry is not an integer (booleans are not).
        """
        array = values if isinstance(values, np.ndarray | np.generic) else np.array(values, dtype=object)
        if array.dtype.kind == "i" or (array.dtype.kind == "u" and array.dtype.itemsize < 8):
            return self._encode_int64(np.asarray(array, dtype=np.int64))
        if array.dtype.kind == "u":
            array = array.astype(object)
        if array.dtype.kind != "O":
            raise TypeError(f"encode takes integers, not {array.dtype}; encode_fixed takes floats")
        flat = array.reshape(-1).tolist()
        if not all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in flat):
            raise TypeError("encode takes integers; some entries are of another type (bool and float are refused)")
        integers = [int(v) for v in flat]
        if all(-(2**63) <= v < 2**63 for v in integers):
            return self._encode_int64(np.array(integers, dtype=np.int64).reshape(array.shape))
        beyond = sum(not -self.half <= v <= self.half for v in integers)
        self._require_inside(beyond, len(integers))
        reduced = np.empty(len(integers), dtype=object)
        reduced[:] = [v % self.modulus for v in integers]
        return np.asarray(self._kernels.from_objects(reduced)).reshape(array.shape)

    def _encode_int64(self, values: Int64Array) -> FieldArray:
        if self.half < 2**63 and values.size and not -self.half <= values.min() <= values.max() <= self.half:
            beyond = np.count_nonzero((values < -self.half) | (values > self.half))
            self._require_inside(int(beyond), values.size)
        return np.asarray(self._kernels.from_int64(values))

    def _require_inside(self, beyond: int, count: int) -> None:
        if beyond:
            raise RangeError(f"{beyond} of {count} values are beyond the range of {self.name}, +-{_power(self.half)}")

    def encode_fixed(self, floats: npt.ArrayLike, bits: int) -> FieldArray:
        """Encode float64 numbers as ``round(v * 2^bits)``, ties to even, without any other rounding.

        Raises
        ------
        RangeError
            If a result is beyond ``[-half, half]``.
        ValueError
            If an entry is NaN or infinite; the message says how many, never which or what.
        """
        self._require_bits(bits, 0)
        values = np.asarray(floats, dtype=np.float64)
        elements, beyond = self._kernels.encode_fixed(values.reshape(-1), float(1 << bits))
        if beyond:
            self._refuse(values, bits)
        return np.asarray(elements).reshape(values.shape)

    def _refuse(self, values: Float64Array, bits: int) -> None:
        for words, bad in (("NaN", np.isnan(values)), ("infinite", np.isinf(values))):
            if bad.any():
                raise ValueError(f"{np.count_nonzero(bad)} of {values.size} values are {words}")
        with np.errstate(over="ignore"):
            beyond = np.abs(np.rint(values * float(1 << bits))) > self.half
        raise RangeError(
            f"{np.count_nonzero(beyond)} of {values.size} values are beyond the range of {self.name} at {bits} "
            f"fraction bits, +-{_power(self.half >> bits)}"
        )

    def _require_bits(self, bits: int, least: int) -> None:
        if not least <= bits < self.bits:
            raise ValueError(f"{self.name} takes {least} to {self.bits - 1} bits, not {bits}")

    # ---- elements into numbers -------------------------------------------------------------------------------------

    def decode(self, x: FieldArray) -> npt.NDArray[Any]:
        """Return the signed integers in ``[-half, half]``: int64 where all fit, else an object array of int."""
        x = np.asarray(x)
        flat = x.reshape(-1)
        values, unfit = self._kernels.to_int64(flat)
        if not unfit:
            return np.asarray(values).reshape(x.shape)
        integers = self._kernels.to_objects(flat)
        out = np.empty(x.shape, dtype=object)
        out.reshape(-1)[:] = [v - self.modulus if v > self.half else v for v in integers.tolist()]
        return out

    def decode_fixed(self, x: FieldArray, bits: int) -> Float64Array:
        """Return the signed integers divided by ``2^bits``, correctly rounded to float64."""
        self._require_bits(bits, 0)
        return np.asarray(self._kernels.decode_fixed(x, 1 / (1 << bits)))

    def shift_round(self, x: FieldArray, bits: int) -> FieldArray:
        """Return ``floor((v + 2^(bits-1)) / 2^bits)`` as elements, v the signed representative of an entry."""
        self._require_bits(bits, 0)
        return np.asarray(self._kernels.shift_round(x, bits)) if bits else np.array(x)

    def residue(self, x: FieldArray, m: int) -> Int64Array:
        """Return the signed representatives modulo m, in ``[0, m)``; ``1 <= m < 2^31``."""
        if not 1 <= m < 2**31:
            raise ValueError("residue takes a modulus from 1 to 2^31 - 1")
        return np.asarray(self._kernels.residue(x, m))

    def equal(self, x: FieldArray, y: FieldArray) -> npt.NDArray[np.bool_]:
        """Compare entry by entry."""
        x, y = np.asarray(x), np.asarray(y)
        if self.dtype.names is None:
            return np.asarray(x == y)
        return np.asarray((x["lo"] == y["lo"]) & (x["hi"] == y["hi"]))

    # ---- bytes -----------------------------------------------------------------------------------------------------

    def to_bytes(self, x: FieldArray) -> memoryview:
        """Return the wire form: little-endian, C order; it shares memory with ``x`` where it can."""
        flat = np.asarray(x).reshape(-1)
        packed = np.ascontiguousarray(flat if self._wire is self.dtype else flat.astype(self._wire))
        return packed.view(np.uint8).data

    def from_bytes(self, data: bytes | bytearray | memoryview, shape: int | tuple[int, ...]) -> FieldArray:
        """Read the wire form; the array may share memory with ``data``.

        Raises
        ------
        ValueError
            If the length is wrong, or an entry is p or more.
        """
        count = shape if isinstance(shape, int) else math.prod(shape)
        length = memoryview(data).nbytes
        if length != count * self.element_bytes:
            raise ValueError(f"{length} bytes, where {count} elements of {self.name} take {count * self.element_bytes}")
        elements = np.frombuffer(data, dtype=self._wire) if count else self.zeros(0)
        if self._wire is not self.dtype:
            elements = elements.astype(self.dtype)
        if self._kernels.noncanonical(elements):
            raise ValueError(f"an entry is not a canonical element of {self.name}")
        return elements.reshape(shape)

    def is_canonical(self, x: FieldArray) -> bool:
        """Whether every entry is in ``[0, p)``."""
        return not self._kernels.noncanonical(np.asarray(x).reshape(-1))

    # ---- random bytes into elements --------------------------------------------------------------------------------

    def from_uniform(self, raw: npt.NDArray[np.uint8]) -> tuple[FieldArray, npt.NDArray[np.intp]]:
        """Cut uniform bytes into uniform elements, by rejection.

        Parameters
        ----------
        raw : numpy.ndarray
            uint8, ``element_bytes`` for each element; the bits above ``self.bits`` are dropped.

        Returns
        -------
        elements : numpy.ndarray
            One-dimensional; the entries that are not rejected are exactly uniform.
        rejected : numpy.ndarray
            Indices of the entries that fell on p or above. They hold 0 and must be drawn again.
        """
        words = raw.view(self._wire)
        if self._wire is not self.dtype:
            words = words.astype(self.dtype)
        elements, above = self._kernels.low_bits(words, self.bits)
        elements = np.asarray(elements)
        if not above:
            return elements, _EMPTY
        rejected = np.flatnonzero([self._kernels.noncanonical(elements[i : i + 1]) for i in range(elements.size)])
        elements[rejected] = self.zeros(())
        return elements, rejected

    def bounded_from_uniform(self, raw: npt.NDArray[np.uint8], bits: int) -> FieldArray:
        """Cut uniform bytes into elements uniform in ``[0, 2^bits)``, ``bits < self.bits``.

        An element takes 8 bytes, or 16 where ``bits > 64``.
        """
        self._require_bits(bits, 0)
        if bits > 64:
            return np.asarray(self._kernels.low_bits(raw.view(self.dtype), bits)[0])
        words = raw.view(_twin61.DTYPE)
        elements = self.zeros(words.size)
        low = elements if self.dtype.names is None else elements["lo"]
        np.bitwise_and(words, np.uint64(2**bits - 1), out=low)
        return elements


def _power(bound: int) -> str:
    return str(bound) if bound < 2**20 else f"2^{bound.bit_length()}"


def _int64(k: int | np.integer[Any] | npt.NDArray[np.integer[Any]]) -> Int64Array:
    array: npt.NDArray[Any] = np.asarray(k)
    if array.dtype is _INT64:
        return array
    if array.dtype.kind not in "iu" or not np.can_cast(array.dtype, np.int64):
        raise TypeError(f"public factors are int64, not {array.dtype}")
    return array.astype(_INT64, copy=False).view(_INT64)


@lru_cache(maxsize=2)
def _native_table(modulus: int) -> Kernels | None:
    choice = os.environ.get(BACKEND_VARIABLE, "")
    if choice not in ("", "c", "numpy"):
        raise ValueError(f"{BACKEND_VARIABLE} is 'c' or 'numpy', not {choice!r}")
    if choice == "numpy":
        return None
    table = _native.load(modulus)
    if table is None and choice == "c":
        raise ImportError(f"{BACKEND_VARIABLE}=c, but the extension mpc._kernels was not built")
    if table is None:
        _warn_once()
    return table


@lru_cache(maxsize=1)
def _warn_once() -> None:
    if multiprocessing.parent_process() is None:
        warnings.warn(
            "the C kernels of Sottovoce were not built (no C compiler?); computing with numpy, several times slower",
            KernelWarning,
            stacklevel=2,
        )


F61 = Field(_twin61.MODULUS)
F127 = Field(_twin127.MODULUS)


@cache
def GF(modulus: int) -> Field:
    """Return the field of an odd prime below 2^31 (or of one of the two large primes)."""
    for field in (F61, F127):
        if modulus == field.modulus:
            return field
    if not 3 <= modulus < MAX_MODULUS or not is_prime(modulus):
        raise ValueError("GF takes an odd prime below 2^31")
    return Field(modulus)
