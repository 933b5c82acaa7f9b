"""Matrix products with the shapes of ``numpy.matmul``, arranged as products of matrices (:mod:`mpc.ot.matrices`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc._copying import as_plain, copy_into
from mpc.ot.matrices import layout
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.ot.matrices import Lattices, Layout
    from mpc.ot.rings import Coins, Ring
    from mpc.party import Party

_AT_ONCE = 4  # products of a stack that are under way at a time


class MatrixProducts(NamedTuple):
    """A stack of matrix products, of one layout each.

    Attributes
    ----------
    ring : Ring
    plan : Layout
    left, right : FieldArray
        Ours, shapes ``(stack, rows, inner)`` and ``(stack, inner, columns)``.
    shape : tuple of int
        Of the result.
    """

    ring: Ring
    plan: Layout
    left: FieldArray
    right: FieldArray
    shape: tuple[int, ...]

    @property
    def bytes_sent(self) -> int:
        """Bytes sent to each other party, but for keys."""
        return len(self.left) * self.plan.bytes_sent

    async def cross(self, scope: Party, lattices: Lattices, coins: Coins) -> FieldArray:
        """Return our summand of all products of one party's left matrices with another's right matrices."""
        field, (rows, _, columns) = self.ring.field, self.plan.shape[:: -1 if self.plan.flipped else 1]
        total = np.empty((len(self.left), rows, columns), field.dtype)
        for start in range(0, len(total), _AT_ONCE):
            numbers = range(start, min(start + _AT_ONCE, len(total)))
            async with side_by_side() as group:
                tasks = [
                    group.create_task(
                        lattices.cross(
                            scope.at("matrix"), self.ring, self.plan, self.left[n], self.right[n], coins.child()
                        )
                    )
                    for n in numbers
                ]
            for n, task in zip(numbers, tasks, strict=True):
                copy_into(total[n], task.result())
        return total.reshape(self.shape)


def matrix_products(
    field: Field, x: FieldArray, y: FieldArray, shape: tuple[int, ...], x_bits: int, y_bits: int
) -> MatrixProducts | None:
    """Arrange ``numpy.matmul(x, y)``; None where there is no such way.

    Parameters
    ----------
    field : Field
    x, y : FieldArray
        Our summands.
    shape : tuple of int
        Of the result.
    x_bits, y_bits : int
        Every party's entries are numbers of so many bits.
    """
    left = x.reshape(1, -1) if x.ndim == 1 else x
    right = y.reshape(-1, 1) if y.ndim == 1 else y
    if right.ndim == 2:  # one matrix for all of the stack
        left = left.reshape(-1, left.shape[-1])
    front = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    (rows, inner), columns = left.shape[-2:], right.shape[-1]
    found = layout(field, (rows, inner, columns), x_bits, y_bits) if math.prod(front) else None
    if found is None:
        return None
    ring, plan = found
    left, right = (
        np.broadcast_to(as_plain(operand), (*front, *operand.shape[-2:]))
        .reshape(-1, *operand.shape[-2:])
        .view(field.dtype)
        for operand in (left, right)
    )
    return MatrixProducts(ring, plan, left, right, shape)
