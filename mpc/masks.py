"""Masks: shared random arrays that nobody knows, and what may be done to them without talking.

A product needs two masks and their product; a truncation needs one mask of bounded size. Reshaping,
indexing and shifting a mask keep it a mask whose products the preprocessing can still supply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from mpc.indices import MOST_DIGIT_SIGNS, R32, digit_weights

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.preprocessing.requests import Recipe


class Structure(NamedTuple):
    """One local operation on a mask, in a form that a dealer can be told.

    ``kind`` is ``"reshape"`` (numbers: the new shape), ``"transpose"`` (of the last two axes),
    ``"rows"`` (numbers: start, stop along the first axis), ``"row"`` (number: index along the first
    axis), ``"shift"`` (number: bits; every piece is divided by ``2^bits`` and rounded) or ``"digits"``
    (:func:`mpc.indices.digit_weights`, for sorting).
    """

    kind: str
    numbers: tuple[int, ...] = ()

    def apply(self, field: Field, values: FieldArray) -> FieldArray:
        """Apply the operation to one array of elements."""
        if self.kind == "reshape":
            return values.reshape(self.numbers)
        if self.kind == "transpose":
            return values.swapaxes(-1, -2)
        if self.kind == "rows":
            start, stop = self.numbers
            return values[start:stop]
        if self.kind == "row":
            return np.asarray(values[self.numbers[0]], dtype=values.dtype)
        if self.kind == "shift":
            return field.shift_round(values, self.numbers[0])
        if (
            self.kind == "digits"
            and field is R32
            and values.ndim == 2
            and values.size
            and len(values) <= MOST_DIGIT_SIGNS
        ):
            return digit_weights(values)
        raise ValueError(f"{self.kind!r} is not an operation on masks of {field} and shape {values.shape}")


class Mask(Protocol):
    """A shared random array that nobody knows.

    Attributes
    ----------
    summand : FieldArray
        Our additive summand; uniform given the sum of all summands, also to all other parties that
        the preprocessing allows to collude, as long as the mask has not been reshaped or shifted.
    recipe : Recipe
        Which mask this is: where it was drawn and what was done to it since.
    pieces : int
        The mask is a sum of this many integers, each drawn and shifted for itself.
    """

    @property
    def field(self) -> Field: ...

    @property
    def summand(self) -> FieldArray: ...

    @property
    def recipe(self) -> Recipe: ...

    @property
    def pieces(self) -> int: ...

    def after(self, structure: Structure) -> Mask:
        """Return the mask after a local operation."""

    def release(self) -> None:
        """Give back what products of the mask are made from; the summand stays."""

    def times(self, factor: int) -> Mask:
        """Return the mask multiplied by a public integer."""

    def plus(self, other: Mask) -> Mask | None:
        """Return the sum of two masks of one shape; None where it has grown too long to follow."""


class Masked(NamedTuple):
    """A value that was opened under a mask: ``value = offset + mask``; the offset is public."""

    offset: FieldArray
    mask: Mask

    def after(self, structure: Structure) -> Masked | None:
        """Return what the operation makes of both; None where the mask has grown too long to follow."""
        if self.mask.recipe.is_full:
            return None
        return Masked(structure.apply(self.mask.field, self.offset), self.mask.after(structure))

    def times(self, factor: int) -> Masked:
        """Return the masked value multiplied by a public integer."""
        return Masked(self.mask.field.scale_int(self.offset, factor), self.mask.times(factor))

    def plus(self, other: Masked) -> Masked | None:
        """Return the masked sum; None where shapes differ or the mask would grow too long."""
        if self.offset.shape != other.offset.shape:
            return None
        mask = self.mask.plus(other.mask)
        return None if mask is None else Masked(self.mask.field.add(self.offset, other.offset), mask)
