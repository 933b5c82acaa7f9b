"""What transfers carry: pads made of keys, and the two kinds of products that they are corrected to.

With pads h_0 and h_1 at the offerer and h_c at the chooser, ``m = h_0 - h_1 + v`` corrects the chooser's pad to
``h_c + c m = h_0 + c v``, so that ``-h_0`` and it are summands of ``c v`` (correlated transfer; Asharov, Lindell,
Schneider, Zohner, CCS 2013, section 5.4; Gilboa, CRYPTO '99, section 4.1, for the bits of a number).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from mpc.field import F127
from mpc.indices import R32
from mpc.ot._fused import fused
from mpc.words import W64, WORD_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.ot._fused import Loops
    from mpc.ot.hashing import Hash

    Keys = NDArray[np.uint64]

_BLOCK_BYTES = 16
_AGAIN = 1 << 31  # blocks from here on are for elements that were out of the field
_COLUMN_BITS = 24
_INT64_BITS = 63


class Kind(Protocol):
    """One kind of product of what the chooser knows, in rows of bits, with rows of elements of the offerer's.

    Attributes
    ----------
    field : Field
        Of values, corrections and summands.
    transfers : int
        Transfers, hence bits of the chooser's, in a row.
    """

    field: Field
    transfers: int

    def corrections(self, width: int) -> int:
        """Return how many elements are sent for a row of so many elements."""

    def offer(
        self, hashed: Hash, keys: Keys, first: int, columns: slice, values: FieldArray
    ) -> tuple[FieldArray, FieldArray]:
        """Return the corrections, in the order in which they are sent, and the offerer's summands.

        ``keys`` are both keys of each transfer, shape ``(2, transfers, 2)``, the first of which goes with the bit 0.
        """

    def add_up(
        self,
        hashed: Hash,
        keys: Keys,
        first: int,
        columns: slice,
        choices: NDArray[np.uint8],
        corrections: FieldArray,
    ) -> FieldArray:
        """Return the chooser's summands."""


class Numbers:
    """Numbers of ``bits`` bits times rows of elements; a single bit selects whole words of W64."""

    def __init__(self, field: Field, bits: int) -> None:
        if not 1 <= bits <= (1 if field is W64 else field.bits):
            raise ValueError(f"numbers of {bits} bits are not multiplied in {field}")
        self.field = field
        self.transfers = bits

    def corrections(self, width: int) -> int:
        """See :class:`Kind`: one element for each bit and element."""
        return self.transfers * width

    def offer(
        self, hashed: Hash, keys: Keys, first: int, columns: slice, values: FieldArray
    ) -> tuple[FieldArray, FieldArray]:
        """See :class:`Kind`."""
        field, (rows, width), loops = self.field, values.shape, fused(self.field)
        shape = (rows, self.transfers, width)
        pads, others = (self._pads(hashed, half, first, columns, loops).reshape(shape) for half in keys)
        if loops is not None:
            return loops.offer(pads, others, values)
        corrections = field.add(field.sub(pads, others), values[:, None, :])
        return corrections, field.neg(_weighted(field, pads))

    def add_up(
        self,
        hashed: Hash,
        keys: Keys,
        first: int,
        columns: slice,
        choices: NDArray[np.uint8],
        corrections: FieldArray,
    ) -> FieldArray:
        """See :class:`Kind`."""
        field, loops = self.field, fused(self.field)
        shape = (len(choices), self.transfers, columns.stop - columns.start)
        pads = self._pads(hashed, keys, first, columns, loops).reshape(shape)
        corrections = corrections.reshape(shape)
        if loops is not None:
            return loops.add_up(pads, corrections, choices)
        if field in (W64, R32):
            chosen = corrections & np.negative(choices.astype(field.dtype))[:, :, None]
        else:
            chosen = field.scale_int(corrections, choices.astype(np.int64)[:, :, None])
        return _weighted(field, field.add(pads, chosen))

    def _pads(self, hashed: Hash, keys: Keys, first: int, columns: slice, loops: Loops | None) -> FieldArray:
        if loops is not None:
            raw = _words(self.field, hashed, keys, first, columns)
            if loops.accept(raw):
                return raw
        return elements(self.field, hashed, keys, first, columns)


class Ands:
    """Packed bits AND packed bits: every bit of a word takes a transfer of its own."""

    def __init__(self) -> None:
        self.field: Field = W64
        self.transfers = WORD_BITS

    def corrections(self, width: int) -> int:
        """See :class:`Kind`: one bit for each bit."""
        return width

    def offer(
        self, hashed: Hash, keys: Keys, first: int, columns: slice, values: FieldArray
    ) -> tuple[FieldArray, FieldArray]:
        """See :class:`Kind`."""
        pads, others = (_bit_pads(hashed, half, first, columns) for half in keys)
        corrections = pads ^ others ^ values
        return corrections, pads

    def add_up(
        self,
        hashed: Hash,
        keys: Keys,
        first: int,
        columns: slice,
        choices: NDArray[np.uint8],
        corrections: FieldArray,
    ) -> FieldArray:
        """See :class:`Kind`."""
        words = np.packbits(choices, axis=-1, bitorder="little").view("<u8")
        pads = _bit_pads(hashed, keys, first, columns)
        summands: FieldArray = pads ^ (corrections.reshape(pads.shape) & words)
        return summands


def elements(field: Field, hashed: Hash, keys: Keys, first: int, columns: slice) -> FieldArray:
    """Make a row of uniform elements of each key; shape ``(keys, columns)``.

    What falls out of the field is made again of later blocks, so that elements are exactly uniform if the hash is; but
    over F127, where it becomes 0: that is ``2^-127`` from uniform.
    """
    words = _words(field, hashed, keys, first, columns)
    if field in (R32, W64):
        return words
    found, rejected = field.from_uniform(np.ascontiguousarray(words).reshape(-1).view(np.uint8))
    turn, width = 0, columns.stop - columns.start
    while rejected.size and field is not F127:  # one in 2^61 over F61
        raw = np.empty((rejected.size, field.element_bytes), np.uint8)
        for row, (n, column) in zip(raw, zip(*divmod(rejected, width), strict=True), strict=True):
            block = _AGAIN + (turn << _COLUMN_BITS) + columns.start + int(column)
            row[:] = hashed(keys[n : n + 1], first + int(n), 1, block).view(np.uint8).reshape(-1)[: len(row)]
        found[rejected], still = field.from_uniform(raw.reshape(-1))
        rejected = rejected[still]
        turn += 1
    return found.reshape(words.shape)


def _words(field: Field, hashed: Hash, keys: Keys, first: int, columns: slice) -> FieldArray:
    """Make as many bytes as an element has, a row of them of each key."""
    if columns.stop > 1 << _COLUMN_BITS:
        raise ValueError(f"rows of at most {1 << _COLUMN_BITS} elements are padded, not {columns.stop}")
    each = _BLOCK_BYTES // field.element_bytes
    start, stop = columns.start // each, -(-columns.stop // each)
    blocks = hashed(keys, first, stop - start, start)
    dtype = field.dtype if field.dtype.itemsize == field.element_bytes else np.dtype(f"<u{field.element_bytes}")
    words = blocks.reshape(len(keys), 2 * (stop - start)).view(dtype)
    return words[:, columns.start - start * each : columns.stop - start * each]


def _bit_pads(hashed: Hash, keys: Keys, first: int, columns: slice) -> NDArray[np.uint64]:
    """Make words of pad bits, shape ``(keys / 64, columns)``: bit t of a word is made of the row's key t."""
    rows = len(keys) // WORD_BITS
    pads = np.empty((rows, columns.stop - columns.start), np.uint64)
    blocks: NDArray[np.uint64] | None = None
    for column in range(columns.start, columns.stop):
        block, bit = divmod(column, 8 * _BLOCK_BYTES)
        if blocks is None or not bit:
            blocks = hashed(keys, first, 1, block)[:, 0]
        byte = blocks.view(np.uint8)[:, bit // 8]
        packed = np.packbits(byte & np.uint8(1 << bit % 8), bitorder="little")
        pads[:, column - columns.start] = packed.view("<u8")
    return pads


def _weighted(field: Field, terms: FieldArray) -> FieldArray:
    """Sum the middle axis with weights 1, 2, 4, ..."""
    count = terms.shape[1]
    if count == 1:
        return terms[:, 0]
    if count < _INT64_BITS:
        return field.dot_int(np.moveaxis(terms, 1, -1), np.left_shift(1, np.arange(count)))
    total = terms[:, -1]
    for t in reversed(range(count - 1)):
        total = field.add(field.add(total, total), terms[:, t])
    return total
