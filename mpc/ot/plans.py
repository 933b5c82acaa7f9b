"""How products of masks are made: by transfers, in parts, or by encryption, whichever costs less."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc._copying import as_plain, join
from mpc.ot.entries import EntryProducts, entry_products
from mpc.ot.matmul import MatrixProducts, matrix_products
from mpc.ot.pads import Ands, Numbers
from mpc.words import W64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.ot.pads import Kind
    from mpc.preprocessing import Operation

# Entries of products of entries that are under way at a time: what is worked on stays in memory of this order.
_AT_ONCE = 1 << 16
_EXTENSION_BITS = 33  # sent for a transfer before it is used
# How long a byte of each kind takes, in terms of a byte of transfers, where 1 Gbit/s lie between parties.
_MATRIX_WEIGHT = 2.5
_ENTRY_WEIGHT = 3.0
_MOST_SUMMED = 1 << 22  # products that are made one by one to be added up


class Work(NamedTuple):
    """Part of a product: numbers, one a row, times rows of elements; and how to get back to the product's shape."""

    kind: Kind
    numbers: FieldArray
    values: FieldArray
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def choices(self) -> NDArray[np.uint8]:
        """Return the bits of the numbers."""
        return number_bits(self.kind.field, self.numbers, self.kind.transfers)

    def restored(self, products: FieldArray) -> FieldArray:
        """Bring rows of products into the shape of this part."""
        moved = as_plain(products).reshape([self.shape[axis] for axis in self.axes])
        return np.ascontiguousarray(moved.transpose(np.argsort(self.axes))).view(products.dtype)


class Plan:
    """A product, cut into parts along one axis; a matrix product along its inner axis, whose parts add up.

    The operand whose entries have fewer bits is the one whose bits are chosen by; of two alike, the one with fewer
    entries. Only bits and shapes decide, which are the same at all parties.
    """

    def __init__(self, field: Field, x: FieldArray, y: FieldArray, bits: tuple[int, int], operation: Operation) -> None:
        self.field, self.operation, self.bits = field, operation, bits
        self.operands = x, y
        if operation == "matmul":
            self.shape = _matmul_shape(x.shape, y.shape)
            x = x.reshape(*x.shape, 1) if x.ndim > 1 else x.reshape(1, -1, 1)
            y = y.reshape(*y.shape[:-2], 1, *y.shape[-2:]) if y.ndim > 1 else y.reshape(1, -1, 1)
        else:
            self.shape = np.broadcast_shapes(x.shape, y.shape)
        self.full = full = np.broadcast_shapes(x.shape, y.shape) or (1,)
        x, y = (operand.reshape((1,) * (len(full) - operand.ndim) + operand.shape) for operand in (x, y))
        self._kind: Kind = Ands() if self.field is W64 else Numbers(self.field, min(bits))
        if (bits[1], y.size) < (bits[0], x.size):
            x, y = y, x
        self.numbers, self.values = x, y
        rows = [axis for axis, length in enumerate(full) if x.shape[axis] == length]
        self._axes = (*rows, *(axis for axis in range(len(full)) if axis not in rows))
        self._axis = len(full) - 2 if operation == "matmul" else max(rows, key=lambda axis: full[axis], default=0)
        length = full[self._axis]
        each = max(1, _AT_ONCE * length // max(1, math.prod(full)))
        self.parts = [slice(start, start + each) for start in range(0, length, each)] if math.prod(full) else []

    @property
    def bytes_sent(self) -> int:
        """Bytes sent to each other party."""
        corrections = math.prod(self.full) * self._kind.corrections(1) * self.field.element_bytes
        return corrections + self.numbers.size * self._kind.transfers * _EXTENSION_BITS // 8

    def work(self, part: slice) -> Work:
        """Return one part of the product."""
        length = self.full[self._axis]
        cut = (slice(None),) * self._axis + (part,)
        numbers, values = (x[cut] if x.shape[self._axis] == length else x for x in (self.numbers, self.values))
        shape = np.broadcast_shapes(numbers.shape, values.shape)
        table = np.broadcast_to(as_plain(values), shape).transpose(self._axes).reshape(numbers.size, -1)
        rows = np.ascontiguousarray(table).view(self.field.dtype)
        return Work(self._kind, numbers.reshape(-1), rows, shape, self._axes)

    def joined(self, parts: Sequence[FieldArray]) -> FieldArray:
        """Return our summand of the whole product."""
        if not parts:
            return self.field.zeros(self.shape)
        if self.operation != "matmul":
            return join(parts, self._axis).reshape(self.shape)
        total: FieldArray | None = None
        for part in parts:
            summed = self.field.sum(part, -2)
            total = summed if total is None else self.field.add(total, summed)
        return (self.field.zeros(self.shape) if total is None else total).reshape(self.shape)


def _matmul_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return (*np.broadcast_shapes(a[:-2], b[:-2]), *rows, *columns)


def number_bits(field: Field, numbers: FieldArray, count: int) -> NDArray[np.uint8]:
    """Return the lowest bits of canonical integers, one row each."""
    as_bytes = np.ascontiguousarray(numbers).view(np.uint8).reshape(numbers.size, field.dtype.itemsize)
    return np.unpackbits(as_bytes, axis=1, count=count, bitorder="little")


def by_encryption(plan: Plan) -> MatrixProducts | EntryProducts | None:
    """Choose encryption of matrices or of slots; None where transfers cost less.

    Only bits and shapes decide, which are the same at all parties.
    """
    (x, y), field = plan.operands, plan.field
    found: list[tuple[float, MatrixProducts | EntryProducts]] = []
    if plan.operation == "matmul":
        matrices = matrix_products(field, x, y, plan.shape, *plan.bits)
        if matrices is not None:
            found.append((_MATRIX_WEIGHT * matrices.bytes_sent, matrices))
    if plan.operation == "multiply" or math.prod(plan.full) <= _MOST_SUMMED:
        entries = entry_products(field, plan.numbers, plan.values, plan.shape)
        if entries is not None:
            found.append((_ENTRY_WEIGHT * entries.bytes_sent, entries))
    cost, best = min(found, key=lambda one: one[0], default=(0.0, None))
    return best if cost < plan.bytes_sent else None
