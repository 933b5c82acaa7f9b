"""Gilboa's sums in one pass over pads and corrections: the C loops, where they have been built."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc.field import F61, F127

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray


class Loops(NamedTuple):
    """The C loops of one field; arrays have the shape ``(rows, transfers, width)``.

    Pads are words, of which the loops take as many bits as an element has; where these are p, it counts as 0.
    """

    field: Field
    offer_loop: np.ufunc
    add_up_loop: np.ufunc
    rejected_loop: np.ufunc | None

    def accept(self, pads: FieldArray) -> bool:
        """Whether no word, of shape ``(keys, width)``, must be made again; over F127 none is."""
        return self.rejected_loop is None or not self.rejected_loop(pads.T).any()

    def offer(self, pads: FieldArray, others: FieldArray, values: FieldArray) -> tuple[FieldArray, FieldArray]:
        """Return ``pads - others + values`` and minus the weighted sum of the pads."""
        corrections = np.empty(pads.shape, self.field.dtype)
        summands = np.empty(values.shape, self.field.dtype)
        self.offer_loop(_last(pads), _last(others), values, out=(_last(corrections), summands))
        return corrections, summands

    def add_up(self, pads: FieldArray, corrections: FieldArray, choices: NDArray[np.uint8]) -> FieldArray:
        """Return the weighted sum of pads and chosen corrections."""
        return np.asarray(self.add_up_loop(_last(pads), _last(corrections), choices[:, None, :]))


def _last(array: FieldArray) -> FieldArray:
    """View an array with its middle axis last; much faster than ``numpy.moveaxis``."""
    return array.transpose(0, 2, 1)


def fused(field: Field) -> Loops | None:
    """Return the loops of a field, None where the numpy twin is to be used."""
    return None if field.backend != "c" else _compiled().get(field.modulus)


@cache
def _compiled() -> dict[int, Loops]:
    from mpc import _kernels as c

    both = (
        Loops(F127, c.f127_offer, c.f127_add_up, None),
        Loops(F61, c.f61_offer, c.f61_add_up, c.f61_rejected),
    )
    return {loops.field.modulus: loops for loops in both}
