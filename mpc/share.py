"""Shares: what one party holds of a secret array, and the arithmetic that needs no message.

Operators are local and free. Whatever sends a message is an awaited function elsewhere, so there is
no product of two shares here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc import _copying
from mpc.errors import DataError, RangeError
from mpc.masks import Masked, Structure

if TYPE_CHECKING:
    from fractions import Fraction

    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray

FRACTION_BITS = 24
_INT64_MAX = (1 << 63) - 1

Public = int | float | np.ndarray | np.integer | np.floating


class Share:
    """One party's summand of a secret array. Immutable.

    Attributes
    ----------
    field : Field
    values : numpy.ndarray
        Our summand; any shape, every entry in ``[0, p)``.
    scale : int
        Fraction bits; 0 for integers.
    magnitude : int
        Public bound on the absolute value of the encoded integers, the same at all parties.
    leads : bool or None
        Whether we are the party that adds public constants (rank 0); unknown if None.
    masked : Masked or None
        The public offset and the mask, where the value has been opened under one. Products of such
        a value need no further opening of it.
    """

    __slots__ = ("_values", "field", "leads", "magnitude", "masked", "scale")
    __array_ufunc__ = None  # numpy leaves array * share to us

    def __init__(
        self,
        field: Field,
        values: FieldArray | None,
        scale: int,
        magnitude: int,
        *,
        leads: bool | None = None,
        masked: Masked | None = None,
    ) -> None:
        if magnitude > field.half:
            raise RangeError(
                f"a value bounded by 2^{math.log2(magnitude):.1f} (scale {scale}) does not fit {field}, which holds "
                f"2^{field.bits - 1}: declare a tighter bound, truncate first, or use a larger field"
            )
        if values is None and masked is None:
            raise ValueError("a share needs its values or the mask it was opened under")
        self.field = field
        self._values = values
        self.scale = scale
        self.magnitude = magnitude
        self.leads = leads
        self.masked = masked

    @property
    def values(self) -> FieldArray:
        """Our summand of the secret; for a masked value the leading party's includes the offset."""
        if self._values is None:
            if self.masked is None:
                raise ValueError("a share without values and mask")
            offset, mask = self.masked
            self._values = self.field.add_public(mask.summand, offset, leads=bool(self.leads))
        return self._values

    # ---- shape ----------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the secret array."""
        held = self._values if self.masked is None else self.masked.offset
        if held is None:
            raise ValueError("a share without values and mask")
        return tuple(held.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def bound(self) -> float:
        """The public bound on the absolute value, in the units of the data."""
        return self.magnitude / (1 << self.scale)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a scalar share")
        return self.shape[0]

    def __iter__(self) -> Iterator[Share]:
        return (self[i] for i in range(len(self)))

    def _structured(self, structure: Structure) -> Share:
        masked = None if self.masked is None else self.masked.after(structure)
        if masked is None:
            return self._with(structure.apply(self.field, self.values))
        return self._masked_with(masked, self.magnitude)

    def reshape(self, *shape: int | Sequence[int]) -> Share:
        """Return the same entries in another shape; one length may be -1."""
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        lengths = np.empty(self.shape, np.bool_).reshape(wanted).shape  # type: ignore[arg-type]
        return self._structured(Structure("reshape", lengths))

    @property
    def T(self) -> Share:  # noqa: N802 - numpy's name
        """The share with its last two axes swapped; a vector stays as it is."""
        return self if self.ndim < 2 else self._structured(Structure("transpose"))

    def __getitem__(self, key: Any) -> Share:
        if self.masked is not None and isinstance(key, int) and not isinstance(key, bool) and self.ndim:
            row = range(len(self))[key]
            return self._structured(Structure("row", (row,)))
        if self.masked is not None and isinstance(key, slice) and key.step in (None, 1) and self.ndim:
            start, stop, _ = key.indices(len(self))
            return self._structured(Structure("rows", (start, max(start, stop))))
        picked = self.values[key]
        return self._with(np.asarray(picked, dtype=self.values.dtype))

    def broadcast_to(self, shape: tuple[int, ...]) -> Share:
        """Return a share whose entries repeat to fill ``shape``."""
        return self._with(np.broadcast_to(self.values, shape))

    # ---- arithmetic -----------------------------------------------------------------------------

    def _with(self, values: FieldArray, magnitude: int | None = None, scale: int | None = None) -> Share:
        return Share(
            self.field,
            values,
            self.scale if scale is None else scale,
            self.magnitude if magnitude is None else magnitude,
            leads=self.leads,
        )

    def _masked_with(self, masked: Masked, magnitude: int, scale: int | None = None) -> Share:
        scale = self.scale if scale is None else scale
        return Share(self.field, None, scale, magnitude, leads=self.leads, masked=masked)

    def lifted(self, scale: int) -> Share:
        """Return the same number with more fraction bits; local and exact."""
        if scale == self.scale:
            return self
        if scale < self.scale:
            raise ValueError(f"a scale goes down by truncate(), not by lifted(): {self.scale} to {scale}")
        factor = 1 << (scale - self.scale)
        if self.magnitude * factor > self.field.half:
            raise RangeError(
                f"lifting a value bounded by {self.bound:.3g} to scale {scale} would leave {self.field}: "
                "truncate the other operand first, or declare a tighter bound"
            )
        if self.masked is not None:
            return self._masked_with(self.masked.times(factor), self.magnitude * factor, scale)
        return self._with(self.field.scale_int(self.values, factor), self.magnitude * factor, scale)

    def scaled_down(self, bits: int) -> Share:
        """Divide by ``2^bits``: the same summands with more fraction bits; local, exact, free."""
        if bits < 0:
            raise ValueError("scaled_down() takes the number of bits, at least 0")
        return Share(self.field, self._values, self.scale + bits, self.magnitude, leads=self.leads, masked=self.masked)

    def _alike(self, other: Share) -> tuple[Share, Share]:
        if self.field is not other.field:
            raise TypeError(f"shares over {self.field} and {other.field} do not mix")
        scale = max(self.scale, other.scale)
        return self.lifted(scale), other.lifted(scale)

    def _encode_public(self, public: Public, scale: int) -> tuple[FieldArray, int]:
        """Encode public numbers at a scale; returns elements and the bound on their magnitude."""
        array = np.asarray(public)
        if array.dtype.kind in "iu" or (array.dtype.kind == "O" and all_integers(array)):
            integers = np.asarray(python_integers(array) << scale) if scale or array.dtype == object else array
            return self.field.encode(integers), _largest(integers)
        if array.dtype.kind == "f":
            if scale == 0 and array.size and not np.equal(np.rint(array), array).all():
                raise DataError("an integer share takes integers; lift it with .lifted(24) to add fractions")
            if scale >= self.field.bits:
                raise RangeError(
                    f"{scale} fraction bits are too many for {self.field} to add fractions: truncate first"
                )
            return self.field.encode_fixed(array, scale), _largest_fixed(array, scale)
        raise TypeError(f"public numbers are integers or floats, not {array.dtype}")

    def _plus_public(self, public: Public, *, negated: bool = False) -> Share:
        if self.leads is None:
            raise TypeError("this share does not know its party: add party.constant(...) instead")
        constant, magnitude = self._encode_public(public, self.scale)
        if negated:  # as elements: numpy's own negation wraps unsigned and the least signed integers
            constant = self.field.neg(constant)
        magnitude += self.magnitude
        if self.masked is not None and np.broadcast_shapes(constant.shape, self.shape) == self.shape:
            return self._masked_with(Masked(self.field.add(self.masked.offset, constant), self.masked.mask), magnitude)
        return self._with(self.field.add_public(self.values, constant, leads=self.leads), magnitude)

    def __add__(self, other: Share | Public) -> Share:
        if not isinstance(other, Share):
            return self._plus_public(other)
        x, y = self._alike(other)
        magnitude = x.magnitude + y.magnitude
        masked = x.masked.plus(y.masked) if x.masked is not None and y.masked is not None else None
        if masked is not None:
            return x._masked_with(masked, magnitude)
        return x._with(x.field.add(x.values, y.values), magnitude)

    __radd__ = __add__

    def __sub__(self, other: Share | Public) -> Share:
        if not isinstance(other, Share):
            return self._plus_public(other, negated=True)
        if self.masked is not None and other.masked is not None:
            return self + -other
        x, y = self._alike(other)
        return x._with(x.field.sub(x.values, y.values), x.magnitude + y.magnitude)

    def __rsub__(self, other: Public) -> Share:
        return (-self)._plus_public(other)

    def __neg__(self) -> Share:
        if self.masked is not None:
            return self._masked_with(self.masked.times(-1), self.magnitude)
        return self._with(self.field.neg(self.values))

    def __mul__(self, public: Public | Share) -> Share:
        """Multiply by public numbers; floats are encoded with 24 fraction bits, which add up."""
        if isinstance(public, Share):
            raise TypeError("a product of two shares sends messages: await multiply(party, x, y)")
        if self.masked is not None and isinstance(public, int | np.integer) and not isinstance(public, bool):
            factor = int(public)
            magnitude = self._product_bound("multiplication by a public value", abs(factor))
            return self._masked_with(self.masked.times(factor), magnitude)
        scale = FRACTION_BITS if np.asarray(public).dtype.kind == "f" else 0
        integers, largest = _public_integers(public, scale)
        magnitude = self._product_bound("multiplication by a public value", largest)
        if largest <= _INT64_MAX:
            values = self.field.scale_int(self.values, integers.astype(np.int64, copy=False))
        else:
            values = self.field.mul(self.values, self.field.encode(integers))
        return self._with(values, magnitude, self.scale + scale)

    __rmul__ = __mul__

    def _product_bound(self, operation: str, factor: int) -> int:
        magnitude = self.magnitude * factor
        if magnitude > self.field.half:
            raise RangeError(
                f"{operation}: a value bounded by {self.bound:.3g} (scale {self.scale}) times {_about(factor)} could "
                f"leave {self.field}: truncate first, or declare a tighter bound"
            )
        return magnitude

    def __matmul__(self, public: NDArray[Any] | Share) -> Share:
        if isinstance(public, Share):
            raise TypeError("a product of two shares sends messages: await matmul(party, x, y)")
        encoded, reach, scale = self._public_matrix(public, axis=0 if np.ndim(public) == 1 else -2)
        magnitude = self._product_bound("matrix product with a public matrix", reach)
        return self._with(self.field.matmul(self.values, encoded), magnitude, self.scale + scale)

    def __rmatmul__(self, public: NDArray[Any]) -> Share:
        encoded, reach, scale = self._public_matrix(public, axis=-1)
        magnitude = self._product_bound("matrix product with a public matrix", reach)
        return self._with(self.field.matmul(encoded, self.values), magnitude, self.scale + scale)

    def _public_matrix(self, public: NDArray[Any], axis: int) -> tuple[FieldArray, int, int]:
        array = np.asarray(public)
        scale = FRACTION_BITS if array.dtype.kind == "f" else 0
        integers, _ = _public_integers(array, scale)
        reach = np.abs(integers.astype(object)).sum(axis=axis) if integers.size else 0
        return self.field.encode(integers), _largest(np.asarray(reach, dtype=object)), scale

    def sum(self, axis: int | tuple[int, ...] | None = None) -> Share:
        """Sum over one axis, several, or all; bounds add up."""
        total = np.asarray(self.field.sum(self.values, axis=axis), dtype=self.values.dtype)
        terms = self.size // max(1, total.size) if self.size else 0
        return self._with(total, self._product_bound(f"sum of {terms} terms", terms))

    def bounded_by(self, bound: float | Fraction) -> Share:
        """State a tighter public bound, in the units of the data.

        The caller vouches that it holds: proven, checked at the source, or checked on shares.
        """
        magnitude = min(self.magnitude, ceil_scaled(bound, self.scale))
        return Share(self.field, self._values, self.scale, magnitude, leads=self.leads, masked=self.masked)

    # ---- what a secret refuses ------------------------------------------------------------------

    def __bool__(self) -> bool:
        raise TypeError("a share has no truth value: compare with less_than() and open the result")

    def __array__(self, *args: Any, **kwargs: Any) -> NDArray[Any]:
        raise TypeError("a share is no array of numbers: await open_(party, x) reveals one")

    def __repr__(self) -> str:
        return f"Share({self.field}, shape={self.shape}, scale={self.scale})"


def concatenate(shares: Sequence[Share], axis: int = 0) -> Share:
    """Join shares along an axis; scales are lifted to the largest."""
    return _joined(shares, lambda arrays: _copying.join(arrays, axis))


def stack(shares: Sequence[Share], axis: int = 0) -> Share:
    """Join shares of one shape along a new axis."""
    return _joined(shares, lambda arrays: _copying.stack(arrays, axis))


def _joined(shares: Sequence[Share], join: Any) -> Share:
    if not shares:
        raise ValueError("nothing to join")
    first = shares[0]
    if any(share.field is not first.field for share in shares):
        raise TypeError("shares over different fields do not mix")
    scale = max(share.scale for share in shares)
    lifted = [share.lifted(scale) for share in shares]
    values = join([share.values for share in lifted])
    return first._with(values, max(share.magnitude for share in lifted), scale)


def ceil_scaled(bound: float | Fraction | np.integer[Any], scale: int) -> int:
    """Return ``ceil(bound * 2^scale)`` exactly, for a bound of any size; ``DataError`` if it is none."""
    if isinstance(bound, np.integer):
        bound = int(bound)
    if not bound >= 0 or bound == math.inf:
        raise DataError("a bound is a finite number, at least 0")
    numerator, denominator = bound.as_integer_ratio()
    return -(-(int(numerator) << scale) // denominator)


def all_integers(array: NDArray[Any]) -> bool:
    """Whether an object array holds integers (or booleans) and nothing else."""
    return all(isinstance(v, int | np.integer | np.bool_) for v in array.flat)


def python_integers(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of Python's integers: numpy's own would wrap around, among objects, too."""
    if array.dtype.kind != "O":
        return array.astype(object)
    integers = np.empty(array.shape, dtype=object)
    integers.reshape(-1)[:] = [int(v) for v in array.flat]
    return integers


def _about(factor: int) -> str:
    return f"{factor:.3g}" if factor < 1 << 100 else f"2^{factor.bit_length()}"


def _largest(integers: NDArray[Any]) -> int:
    return max(abs(int(integers.max())), abs(int(integers.min()))) if integers.size else 0


def _largest_fixed(array: NDArray[Any], scale: int) -> int:
    return ceil_scaled(float(np.abs(array).max()), scale) + 1 if array.size else 0


def _public_integers(public: Public, scale: int) -> tuple[NDArray[Any], int]:
    """Round public numbers to integers at a scale: int64 where they fit, objects beyond."""
    array = np.asarray(public)
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise DataError(f"{int((~np.isfinite(array)).sum())} of {array.size} public factors are NaN or infinite")
        with np.errstate(over="ignore"):
            scaled = np.rint(np.ldexp(array.astype(np.float64), scale))
        if np.isinf(scaled).any():
            raise RangeError(f"public factors from 2^{1024 - scale} up fit no field")
        largest = int(np.abs(scaled).max()) if array.size else 0
        exact = scaled.astype(np.int64) if largest < 1 << 62 else np.array([int(v) for v in scaled.flat], dtype=object)
        return exact.reshape(array.shape), largest
    if array.dtype.kind in "iu" or (array.dtype.kind == "O" and all_integers(array)):
        largest = _largest(array)
        return array.astype(np.int64, copy=False) if largest <= _INT64_MAX else python_integers(array), largest
    raise TypeError(f"public numbers are integers or floats, not {array.dtype}")
