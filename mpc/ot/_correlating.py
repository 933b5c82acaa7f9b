"""What correlated elements are summed up from: the pads of one tree's leaves, for either end.

A pad is 16 bytes of a leaf's stream, taken modulo p. With ``S_b`` the sum of the pads of those leaves whose number has
bit b, the sums of all trees are made from the last tree down to the first, ``2^depth`` times what they were at each.

Here is the numpy twin, for every field; the C loops of F61 and F127 are in ``_kernels.c``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mpc._copying import copy_into
from mpc.field import F127

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray

    Words = NDArray[np.uint64]


class Loops(Protocol):
    """The two ends of one tree, over one field."""

    def prove(self, pads: Words, values: FieldArray, sums: FieldArray, corrections: FieldArray) -> FieldArray:
        """Write the corrections of one tree, and bring our sums up to it.

        Parameters
        ----------
        pads : numpy.ndarray
            uint64, shape ``(2^depth, n, 2)``, low words first.
        values : FieldArray
            Shape ``(n,)``.
        sums : FieldArray
            Shape ``(n,)``: zeros at the last tree, then what was returned.
        corrections : FieldArray
            Shape ``(n,)``, to be written: values plus all pads.

        Returns
        -------
        FieldArray
            ``2^depth sums + sum of 2^b S_b``.
        """

    def hold(self, pads: Words, corrections: FieldArray, bits: NDArray[np.uint8], sums: FieldArray) -> FieldArray:
        """Bring the holder's sums up to a tree.

        Parameters
        ----------
        pads : numpy.ndarray
            As in :meth:`prove`, in the order of ``y ^ digit``; the first are zeros.
        corrections : FieldArray
            Shape ``(n,)``.
        bits : numpy.ndarray
            uint8, shape ``(depth,)``: those of the digit.
        sums : FieldArray
            Shape ``(n,)``.

        Returns
        -------
        FieldArray
            ``2^depth sums + digit * corrections + sum of 2^b (1 - 2 bit_b) S_b``.
        """


class Twin:
    """Both ends in numpy; documented by :class:`Loops`."""

    def __init__(self, field: Field) -> None:
        self._field = field

    def prove(self, pads: Words, values: FieldArray, sums: FieldArray, corrections: FieldArray) -> FieldArray:
        """See :class:`Loops`."""
        elements = self._elements(pads)
        copy_into(corrections, self._field.add(values, self._field.sum(elements, axis=0)))
        return self._advance([self._of_bit(elements, b) for b in range(_depth(pads))], sums)

    def hold(self, pads: Words, corrections: FieldArray, bits: NDArray[np.uint8], sums: FieldArray) -> FieldArray:
        """See :class:`Loops`."""
        field, elements = self._field, self._elements(pads)
        terms = []
        for b, mask in enumerate(np.negative(bits.astype(np.int64)).view(np.uint64)):
            plus = self._of_bit(elements, b)
            words, minus = plus.view(np.uint64), field.neg(plus).view(np.uint64)
            chosen = (words ^ ((words ^ minus) & mask)).view(field.dtype)  # S_b, or its negative
            terms.append(
                field.add(chosen, (np.ascontiguousarray(corrections).view(np.uint64) & mask).view(field.dtype))
            )
        return self._advance(terms, sums)

    def _of_bit(self, elements: FieldArray, b: int) -> FieldArray:
        return self._field.sum(elements[[y for y in range(len(elements)) if y >> b & 1]], axis=0)

    def _advance(self, terms: list[FieldArray], sums: FieldArray) -> FieldArray:
        """Double and add from the last term down."""
        for term in reversed(terms):
            sums = self._field.add(self._field.add(sums, sums), term)
        return sums

    def _elements(self, pads: Words) -> FieldArray:
        """Take pads modulo p."""
        field = self._field
        if field is F127:
            below, _ = field.from_uniform(np.ascontiguousarray(pads).reshape(-1).view(np.uint8))
            top = (pads[..., 1] >> np.uint64(63)).astype(np.int64)  # of weight 2^127 = 1
            return field.add(below.reshape(top.shape), field.encode(top))
        low, high = np.moveaxis(np.remainder(pads, np.uint64(field.modulus)), -1, 0)
        return field.add(low, field.scale_int(high, (1 << 64) % field.modulus))


def _depth(pads: Any) -> int:
    return len(pads).bit_length() - 1


@dataclass(frozen=True, slots=True)
class _Compiled:
    """Both ends in C; documented by :class:`Loops`."""

    prove_loop: np.ufunc
    hold_loop: np.ufunc

    def prove(self, pads: Words, values: FieldArray, sums: FieldArray, corrections: FieldArray) -> FieldArray:
        """See :class:`Loops`."""
        after: FieldArray = self.prove_loop(pads, values, sums, out=(corrections, None))[1]
        return after

    def hold(self, pads: Words, corrections: FieldArray, bits: NDArray[np.uint8], sums: FieldArray) -> FieldArray:
        """See :class:`Loops`."""
        after: FieldArray = self.hold_loop(pads, corrections, bits, sums)
        return after


def loops_of(field: Field) -> Loops:
    """Return the loops of a field: those in C where its operations are, else the twin."""
    if field.backend != "c":
        return Twin(field)
    from mpc import _kernels as c

    return _Compiled(c.f127_prove, c.f127_hold) if field is F127 else _Compiled(c.f61_prove, c.f61_hold)
