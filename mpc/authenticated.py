"""Elements with MACs: what shares are made of where parties may cheat.

A summand of a secret x is a pair: a summand of x, and a summand of ``alpha x``, the MAC, where alpha is a global key
that nobody knows; each party has a summand of it. Linear operations act on both parts; whoever changes what is
opened would have to change the MAC by alpha times as much (Bendlin, Damgard, Orlandi, Zakarias, EUROCRYPT 2011;
Damgard, Keller, Larraia, Pastro, Scholl, Smart, ESORICS 2013, section 2). What was opened is checked by
:mod:`mpc.mac_check`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc._copying import copy_into, join
from mpc.field import Field, FieldArray

if TYPE_CHECKING:
    import numpy.typing as npt


class Authenticated(Field):
    """A prime field whose elements carry MACs, with the interface of :class:`mpc.field.Field`.

    Arrays of summands have a structured dtype of two elements, ``value`` and ``mac``; public values are plain
    elements of :attr:`public`. Whatever is linear takes summands, plain elements, or where it is a product, one of
    each. A product of two summands is no local operation, and a TypeError.

    Parameters
    ----------
    base : Field
    key : FieldArray
        Our summand of alpha, one element. Never shown.

    Notes
    -----
    One instance for each party and session, so that shares of different sessions do not mix.
    """

    def __init__(self, base: Field, key: FieldArray) -> None:
        self._base = base
        self._key = key
        self.modulus, self.bits, self.half, self.name = base.modulus, base.bits, base.half, base.name
        self.dtype = np.dtype([("value", base.dtype), ("mac", base.dtype)])
        self.element_bytes = 2 * base.element_bytes

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("elements with MACs belong to one session")

    @property
    def backend(self) -> str:
        """See :class:`mpc.field.Field`."""
        return self._base.backend

    # ---- public values and summands --------------------------------------------------------------

    @property
    def public(self) -> Field:
        """The field of what is opened."""
        return self._base

    @property
    def mac_entries(self) -> tuple[int, ...]:
        """The shape of the MAC of one element."""
        return ()

    def pairs(self, x: FieldArray) -> bool:
        """Whether an array holds summands with MACs, and not public values."""
        return bool(x.dtype == self.dtype)

    def joined(self, values: FieldArray, macs: FieldArray) -> FieldArray:
        """Return summands made of their two parts."""
        result: Any = np.empty(values.shape, self.dtype)
        copy_into(result["value"], values)
        copy_into(result["mac"], macs)
        return np.asarray(result)

    def parts(self, x: Any) -> tuple[FieldArray, FieldArray | None]:
        """Return the values, which are sent when they are opened, and the MACs."""
        if not self.pairs(x):
            raise TypeError("what has no MACs is not opened here")
        return x["value"], x["mac"]

    def mac_array(self, count: int) -> FieldArray | None:
        """Return room for the MACs of so many elements."""
        return np.empty((count, *self.mac_entries), self._base.dtype)

    def public_mac(self, public: FieldArray) -> FieldArray:
        """Return our summand of the MACs of public values."""
        return self._base.mul(public, self._key)

    def add_public(
        self, x: FieldArray, public: FieldArray, *, leads: bool, out: FieldArray | None = None
    ) -> FieldArray:
        """Add a public value: to the value at the leading party, and with our part of the key to everybody's MAC."""
        if not self.pairs(x) or self.pairs(public):
            raise TypeError("a public value is added to summands")
        if out is None:
            out = np.empty(np.broadcast_shapes(x.shape, public.shape), self.dtype)
        if leads:
            self._base.add(x["value"], public, out=out["value"])
        elif out is not x:
            copy_into(out["value"], x["value"])
        self._base.add(x["mac"], self.public_mac(public), out=out["mac"])
        return out

    # ---- linear ----------------------------------------------------------------------------------

    def zeros(self, shape: int | tuple[int, ...]) -> FieldArray:
        """Return summands that are zero."""
        return np.zeros(shape, dtype=self.dtype)

    def _both(self, operation: Callable[..., FieldArray], x: Any, *more: Any) -> FieldArray:
        if not self.pairs(x):
            return operation(x, *more)
        return self.joined(operation(x["value"], *more), operation(x["mac"], *more))

    def _together(self, name: str, x: FieldArray, y: FieldArray, out: FieldArray | None) -> FieldArray:
        operation = getattr(self._base, name)
        if self.pairs(x) != self.pairs(y):
            raise TypeError("a public value and a summand do not mix: add_public")
        if not self.pairs(x):
            return np.asarray(operation(x, y, out=out))
        if out is None:
            out = np.empty(np.broadcast_shapes(x.shape, y.shape), self.dtype)
        operation(x["value"], y["value"], out=out["value"])
        operation(x["mac"], y["mac"], out=out["mac"])
        return out

    def add(self, x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
        """Add two summands, or two public values."""
        return self._together("add", x, y, out)

    def sub(self, x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
        """Subtract two summands, or two public values."""
        return self._together("sub", x, y, out)

    def neg(self, x: FieldArray) -> FieldArray:
        """Negate."""
        return self._both(self._base.neg, x)

    def mul(self, x: FieldArray, y: FieldArray, out: FieldArray | None = None) -> FieldArray:
        """Multiply by public values entry by entry."""
        if self.pairs(x) and self.pairs(y):
            raise TypeError(_NO_PRODUCT)
        if not self.pairs(x) and not self.pairs(y):
            return self._base.mul(x, y, out=out)
        summands, public = (x, y) if self.pairs(x) else (y, x)
        if out is None:
            out = np.empty(np.broadcast_shapes(x.shape, y.shape), self.dtype)
        self._base.mul(summands["value"], public, out=out["value"])
        self._base.mul(summands["mac"], public, out=out["mac"])
        return out

    def matmul(self, x: FieldArray, y: FieldArray) -> FieldArray:
        """Multiply by a public matrix, from either side."""
        if self.pairs(x) and self.pairs(y):
            raise TypeError(_NO_PRODUCT)
        if self.pairs(x):
            return self._both(lambda part: self._base.matmul(np.ascontiguousarray(part), y), x)
        return self._both(lambda part: self._base.matmul(x, np.ascontiguousarray(part)), y)

    def sum(self, x: FieldArray, axis: int | tuple[int, ...] | None = None) -> FieldArray:
        """Sum over all axes, one axis or several."""
        return self._both(self._base.sum, x, axis)

    def scale_int(self, x: FieldArray, k: int | np.integer[Any] | npt.NDArray[np.integer[Any]]) -> FieldArray:
        """Multiply by public integers."""
        return self._both(self._base.scale_int, x, k)

    def dot_int(self, x: FieldArray, k: npt.NDArray[np.integer[Any]]) -> FieldArray:
        """Sum ``x * k`` over the last axis, for public int64 factors k."""
        return self._both(self._base.dot_int, x, k)

    # ---- products ----------------------------------------------------------------------------------

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
        """Return the local step of a Beaver product; d and e are public, and ``d e`` has a MAC from everybody."""
        base = self._base
        if out is None:
            out = np.empty(np.broadcast_shapes(d.shape, e.shape), self.dtype)
        base.beaver(d, e, a["value"], b["value"], c["value"], lead=lead, out=out["value"])
        # d b + e a + c + alpha d e = d (b + alpha e) + e a + c, with the MACs of a, b, c
        right = base.mul(e, self._key)
        base.add(b["mac"], right, out=right)
        base.beaver(d, e, a["mac"], right, c["mac"], lead=False, out=out["mac"])
        return out

    def beaver_matmul(
        self, d: FieldArray, e: FieldArray, a: FieldArray, b: FieldArray, c: FieldArray, *, lead: bool
    ) -> FieldArray:
        """Return the same of a matrix product."""
        base = self._base
        a, b = self._apart(a), self._apart(b)
        values = base.beaver_matmul(d, e, a[0], b[0], c["value"], lead=lead)
        right = base.add(b[1], base.mul(e, self._key))
        return self.joined(values, base.beaver_matmul(d, e, a[1], right, c["mac"], lead=False))

    def _apart(self, x: FieldArray) -> Any:
        return np.ascontiguousarray(x["value"]), np.ascontiguousarray(x["mac"])

    # ---- public values alone -----------------------------------------------------------------------

    def encode(self, values: Any) -> FieldArray:
        """Encode signed integers as public values."""
        return self._base.encode(values)

    def encode_fixed(self, floats: npt.ArrayLike, bits: int) -> FieldArray:
        """Encode float64 numbers as public values."""
        return self._base.encode_fixed(floats, bits)

    def decode(self, x: FieldArray) -> npt.NDArray[Any]:
        """Decode public values."""
        return self._base.decode(self._plain(x))

    def decode_fixed(self, x: FieldArray, bits: int) -> npt.NDArray[np.float64]:
        """Decode public values with fraction bits."""
        return self._base.decode_fixed(self._plain(x), bits)

    def shift_round(self, x: FieldArray, bits: int) -> FieldArray:
        """Shift public values; a summand that is shifted needs another MAC."""
        return self._base.shift_round(self._plain(x), bits)

    def residue(self, x: FieldArray, m: int) -> npt.NDArray[np.int64]:
        """Return public values modulo m."""
        return self._base.residue(self._plain(x), m)

    def equal(self, x: FieldArray, y: FieldArray) -> npt.NDArray[np.bool_]:
        """Compare public values."""
        return self._base.equal(self._plain(x), self._plain(y))

    def is_canonical(self, x: FieldArray) -> bool:
        """Whether both parts are."""
        return all(self._base.is_canonical(np.ascontiguousarray(x[part])) for part in ("value", "mac"))

    def _plain(self, x: FieldArray) -> FieldArray:
        if self.pairs(x):
            raise TypeError("summands with MACs have no such operation")
        return x

    # ---- checks --------------------------------------------------------------------------------------

    def discrepancy(
        self, notes: Sequence[tuple[FieldArray, FieldArray]], coin: Callable[[int], FieldArray], piece: int
    ) -> FieldArray:
        """Return our summand of what is zero if everything was opened rightly; see :mod:`mpc.mac_check`.

        Parameters
        ----------
        notes : sequence of (FieldArray, FieldArray)
            Flat arrays: what was opened, and our summands of the MACs.
        coin : callable
            ``coin(k)``: one element, which the values of piece k are combined with the powers of.
        piece : int
            So many values are a piece.
        """
        base = self._base
        total = base.zeros((1,))
        number, room, weight = 0, piece, base.encode([1])
        chi = Powers(base, coin(0))
        for opened, macs in _runs(notes):
            start = 0
            while start < opened.size:
                if not room:
                    number, room = number + 1, piece
                    chi = Powers(base, coin(number))
                    weight = chi.base_point  # from the first power on: the pieces have no term in common
                part = slice(start, min(opened.size, start + room))
                values, tags = chi.combine(opened[part]), chi.combine(macs[part])
                off = base.sub(tags, base.mul(values, self._key))
                total = base.add(total, base.mul(off, weight))
                weight = base.mul(weight, chi.power(part.stop - start))
                room -= part.stop - start
                start = part.stop
        return total

    # ---- bytes ---------------------------------------------------------------------------------------

    def to_bytes(self, x: FieldArray) -> memoryview:
        """Return the wire form of summands, as a dealer sends them: all values, then all MACs."""
        flat = x.reshape(-1)
        return memoryview(bytes(self._base.to_bytes(flat["value"])) + bytes(self._base.to_bytes(flat["mac"])))

    def from_bytes(self, data: bytes | bytearray | memoryview, shape: int | tuple[int, ...]) -> FieldArray:
        """Read the wire form; ``ValueError`` if it is none."""
        count = shape if isinstance(shape, int) else int(np.prod(shape, dtype=np.int64))
        middle = count * self._base.element_bytes
        view = memoryview(data)
        # Copied, so that the MACs begin at an address that suits them.
        macs = self._base.from_bytes(bytes(view[middle:]), (count, *self.mac_entries))
        return self.joined(self._base.from_bytes(view[:middle], count), macs).reshape(shape)

    def from_uniform(self, raw: npt.NDArray[np.uint8]) -> tuple[FieldArray, npt.NDArray[np.intp]]:
        """Refuse: values and MACs are drawn from streams of their own."""
        raise TypeError("summands with MACs are drawn in two parts")

    def bounded_from_uniform(self, raw: npt.NDArray[np.uint8], bits: int) -> FieldArray:
        """Refuse: see :meth:`from_uniform`."""
        raise TypeError("summands with MACs are drawn in two parts")


class Powers:
    """The powers of one element, and sums of values with them."""

    _ROW = 1024

    def __init__(self, base: Field, point: FieldArray) -> None:
        self._base = base
        self.base_point = point
        row = base.encode([1])
        while row.size < self._ROW:
            row = join([row, base.mul(row, self.power(row.size))])
        self._row = row
        self._rows: Powers | None = None

    def power(self, exponent: int) -> FieldArray:
        """Return one power, by squaring."""
        base, result, square = self._base, self._base.encode([1]), self.base_point
        while exponent:
            if exponent & 1:
                result = base.mul(result, square)
            exponent >>= 1
            square = base.mul(square, square) if exponent else square
        return result

    def combine(self, values: FieldArray) -> FieldArray:
        """Return ``sum_j values_j point^j``, one element."""
        base = self._base
        whole = values.size // self._ROW * self._ROW
        if not whole:
            return base.matmul(values, self._row[: values.size]).reshape(1)
        sums = base.matmul(values[:whole].reshape(-1, self._ROW), self._row)
        if whole < values.size:
            rest = values[whole:]
            sums = join([sums, base.matmul(rest, self._row[: rest.size]).reshape(1)])
        if self._rows is None:
            self._rows = Powers(base, self.power(self._ROW))
        return self._rows.combine(sums)


def _runs(notes: Sequence[tuple[FieldArray, FieldArray]]) -> Iterator[tuple[FieldArray, FieldArray]]:
    """Join short arrays, which are worth one operation together."""
    held: list[tuple[FieldArray, FieldArray]] = []
    for note in notes:
        if note[0].size < _SHORT:
            held.append(note)
            continue
        if held:
            yield join([opened for opened, _ in held]), join([macs for _, macs in held])
            held = []
        yield note
    if held:
        yield join([opened for opened, _ in held]), join([macs for _, macs in held])


_SHORT = 1 << 12
_NO_PRODUCT = "a product of two summands sends messages: multiply()"
