"""Packed bits with MACs: each bit has one of 64 bits.

The MAC of a bit b is ``alpha b`` with alpha in GF(2^64), so that the MAC of a word is 64 numbers: AND with public bits
chooses among them, and XOR adds them (Nielsen, Nordholt, Orlandi, Burra, CRYPTO 2012, section 3). Memory and
corrections of a dealer are 65 times those of the bits alone; what parties send each other is the bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpc.authenticated import Authenticated
from mpc.errors import SecurityError
from mpc.field import Field
from mpc.ot._native import loops
from mpc.words import W64, WORD_BITS, pack_bits, unpack_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import FieldArray


class AuthenticatedWords(Authenticated):
    """Vectors of 64 bits with MACs; see :class:`mpc.authenticated.Authenticated`.

    Parameters
    ----------
    key : FieldArray
        Our summand of alpha, one word. Never shown.
    """

    def __init__(self, key: FieldArray) -> None:
        super().__init__(W64, key)
        self.dtype = np.dtype([("value", "<u8"), ("mac", "<u8", (WORD_BITS,))])
        self.element_bytes = 8 * (1 + WORD_BITS)

    @property
    def mac_entries(self) -> tuple[int, ...]:
        """The shape of the MAC of one word."""
        return (WORD_BITS,)

    def public_mac(self, public: FieldArray) -> FieldArray:
        """Return our summand of the MACs of public words."""
        return np.asarray(masks(public) & self._key)

    def mul(self, x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
        """Multiply by public words bit by bit."""
        if self.pairs(x) == self.pairs(y):
            return super().mul(x, y, out)
        summands, public = (x, y) if self.pairs(x) else (y, x)
        result = self.joined(summands["value"] & public, summands["mac"] & masks(public))
        if out is not None:
            out[...] = result
            return out
        return result

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
        """Return the local step of a Beaver product."""
        values = W64.beaver(d, e, a["value"], b["value"], c["value"], lead=lead)
        chosen_d, chosen_e = masks(d), masks(e)
        macs = b["mac"] ^ (chosen_e & self._key)
        macs = (macs & chosen_d) ^ c["mac"]
        macs ^= a["mac"] & chosen_e
        result = self.joined(values, macs)
        if out is not None:
            out[...] = result
            return out
        return result

    def beaver_matmul(self, *operands: FieldArray, lead: bool) -> FieldArray:
        """Refuse: bits have no matrix products."""
        raise TypeError("packed bits have no matrix products")

    def sum(self, x: FieldArray, axis: int | tuple[int, ...] | None = None) -> FieldArray:
        """Refuse: nothing adds up words along an axis."""
        raise TypeError("packed bits with MACs are not summed along an axis")

    def dense(self, x: FieldArray, count: int) -> FieldArray:
        """Lay the first ``count`` bits of each row of words end to end."""
        values = pack_bits(unpack_bits(x["value"], count).reshape(-1))
        macs = np.zeros((len(values) * WORD_BITS,), np.uint64)
        rows = x["mac"].reshape(*x.shape[:-1], -1)[..., :count]
        macs[: rows.size] = rows.reshape(-1)
        return self.joined(values, macs.reshape(-1, WORD_BITS))

    def discrepancy(
        self, notes: Sequence[tuple[FieldArray, FieldArray]], coin: Callable[[int], FieldArray], piece: int
    ) -> FieldArray:
        """Return our summand of what is zero if everything was opened rightly; see :mod:`mpc.mac_check`.

        Two MACs are a coefficient of a polynomial over GF(2^128), from the first power on, and its value at a point
        that two coins make is cut to 64 bits. For each key but 0, what is off by ``d alpha`` becomes a given word for
        at most ``2^64 D`` of the 2^128 points, D the number of coefficients. So of the linear maps of keys that points
        make, the mean number of keys with one image is at most ``D + 1``, and a cheater passes with a probability of
        at most ``(D + 1) / 2^64``: 2^-44.9 for a piece of 2^20 bits.
        """
        total, room = 0, piece // WORD_BITS
        held: list[NDArray[np.uint64]] = []
        parts: list[NDArray[np.uint64]] = []
        for opened, macs in notes:
            start = 0
            while start < opened.size:
                part = slice(start, min(start + room, opened.size))
                held.append(np.bitwise_xor(macs[part], self.public_mac(opened[part])).reshape(-1))
                room -= part.stop - part.start
                start = part.stop
                if not room:
                    parts.append(np.concatenate(held))
                    held, room = [], piece // WORD_BITS
        if held:
            parts.append(np.concatenate(held))
        on, last = loops(), np.zeros(2, np.uint64)
        for number, off in enumerate(parts):
            point = np.concatenate([coin(2 * number), coin(2 * number + 1)])
            total ^= int(on.evaluate(np.concatenate([off, last]), point)[0])
        return np.array([total], np.uint64)


def masks(words: FieldArray) -> NDArray[np.uint64]:
    """Return, for each bit of words, 64 bits like it: shape ``(*words.shape, 64)``."""
    bits = unpack_bits(np.ascontiguousarray(words).reshape(*words.shape, 1), WORD_BITS)
    return np.asarray(np.negative(bits.astype(np.int64)).view(np.uint64))


# ---- which field has which MACs --------------------------------------------------------------------


def authenticated(base: Field, key: FieldArray) -> Authenticated:
    """Return a field with MACs under our summand of a key.

    Raises
    ------
    SecurityError
        There are no MACs for this ring.
    """
    if base is W64:
        return AuthenticatedWords(key)
    if type(base) is not Field:
        raise SecurityError(
            f"security='malicious' has no MACs for {base}, where not every element has an inverse: use F61 or F127"
        )
    return Authenticated(base, key)
