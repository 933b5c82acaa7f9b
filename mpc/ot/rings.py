"""Rings of polynomials for lattice-based encryption (:mod:`mpc.ot.lattice`), and what is drawn for it.

Integers modulo q, a product of primes, are held as their residues; see :class:`Ring`.
"""

from __future__ import annotations

import math
import os
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mpc import _twin_lattice as twin
from mpc.field import BACKEND_VARIABLE, F61, F127, _warn_once
from mpc.prg import SEED_BYTES, Prg
from mpc.words import W64

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.prg import RandomStream, Stream

    Words = NDArray[np.uint64]

__all__ = ["PRIMES", "Coins", "Ring", "loops", "rings_of"]

# Below 2^48 and 1 modulo 2^15, so that 32768th roots of unity exist; all above 2^47.
PRIMES = (
    281474976546817,
    281474976317441,
    281474975662081,
    281474975563777,
    281474975367169,
    281474974482433,
    281474972418049,
)
_PRIME_BITS = 48
RESIDUE_BYTES = 6
_RESIDUES = np.uint64((1 << _PRIME_BITS) - 1)
STATISTICAL_BITS = 40
_ERROR_BITS = 21  # an error is the difference of the numbers of ones among so many bits each
_TERNARY_LIMIT = np.uint8(243)  # bytes below are as often 0 as 1 as 2 modulo 3
_LIMB_BITS = 32


def loops() -> Any:
    """Return the C loops or their twin, by the same rules as the fields: one variable, one warning."""
    if F61.backend == "numpy":
        return twin
    try:
        from mpc import _lattice as c
    except ImportError:
        if os.environ.get(BACKEND_VARIABLE) == "c":
            raise ImportError(f"{BACKEND_VARIABLE}=c, but the extension mpc._lattice was not built") from None
        _warn_once()
        return twin
    return c


class Coins:
    """Randomness of one party for one use, from a seed of 32 secret bytes; no two draws share a stream.

    Attributes
    ----------
    opened : int
        Streams so far.
    """

    __slots__ = ("_prg", "opened")

    def __init__(self, seed: bytes) -> None:
        self._prg = Prg(seed)
        self.opened = 0

    @classmethod
    def drawn(cls, stream: RandomStream) -> Coins:
        """Draw the seed from a stream that nobody else knows."""
        return cls(stream.elements(W64, (SEED_BYTES // 8,)).tobytes())

    def stream(self) -> Stream:
        """Open a stream that has not been opened before."""
        self.opened += 1
        return self._prg.stream(f"coins {self.opened}")

    def seed(self) -> bytes:
        """Draw a fresh seed; it may become public, and tells nothing about what else is drawn."""
        return self.stream().raw(SEED_BYTES).tobytes()

    def child(self) -> Coins:
        """Make coins for another use, which draw from streams of their own."""
        return Coins(self.seed())

    def errors(self, count: int) -> NDArray[np.int64]:
        """Draw centred binomial errors."""
        raw = self.stream().raw(8 * count).view("<u8")
        ones = np.uint64((1 << _ERROR_BITS) - 1)
        plus, minus = np.bitwise_count(raw & ones), np.bitwise_count(raw >> np.uint64(_ERROR_BITS) & ones)
        errors: NDArray[np.int64] = plus.astype(np.int64) - minus
        return errors

    def ternary(self, count: int) -> NDArray[np.int64]:
        """Draw numbers that are uniform among -1, 0 and 1."""
        stream = self.stream()
        drawn = stream.raw(count).copy()
        while (above := np.flatnonzero(drawn >= _TERNARY_LIMIT)).size:
            drawn[above] = stream.raw(above.size)
        digits: NDArray[np.int64] = np.asarray(drawn % np.uint8(3), np.int64) - 1
        return digits

    def __repr__(self) -> str:
        return f"Coins(opened={self.opened})"


class _Roots(NamedTuple):
    """Powers of a 2N-th root of unity modulo each prime, exponents in bit-reversed order, and their ratios to it."""

    powers: Words
    ratios: NDArray[np.float64]


class Ring:
    """Polynomials modulo ``x^N + 1`` and a product of primes, for messages over one field.

    Polynomials are arrays of uint64, ``(..., level, N)``: residues modulo each of the first ``level`` primes, as
    coefficients, or transformed (:meth:`forward`).

    Parameters
    ----------
    field : Field
    degree : int
        N, a power of 2.
    primes : tuple of int
    kept : int
        How many primes the answers have.
    on : module
        The loops.
    """

    def __init__(self, field: Field, degree: int, primes: tuple[int, ...], kept: int, on: Any = None) -> None:
        self.field = field
        self.degree = degree
        self.primes = primes
        self.kept = kept
        self.moduli = np.array(primes, np.uint64)
        self._on = on or loops()

    def __repr__(self) -> str:
        return f"Ring({self.field}, {self.degree}, primes={len(self.primes)})"

    # ---- sizes ------------------------------------------------------------------------------------------------------

    def flood_bits(self, level: int) -> int:
        """Return ``log2 F``; see the module's documentation."""
        return math.prod(self.primes[:level]).bit_length() - 1 - self.field.bits - 2

    def noise(self, bits: int, terms: int) -> int:
        """Return the bound on the noise without the flood, for ``terms`` coefficients of ``bits`` bits."""
        largest = min((1 << bits) - 1, self.field.half)
        return (_ERROR_BITS + 1) * terms * largest + 2 * _ERROR_BITS * self.degree + 1

    def level(self, bits: int, terms: int, entries: int) -> int | None:
        """Return how many primes a product takes, None where all are too few.

        Parameters
        ----------
        bits : int
            Of the known factor's entries.
        terms : int
            Coefficients of the known factor that one result adds up.
        entries : int
            Results, all of which together tell less than 2^-40.
        """
        needed = entries * self.noise(bits, terms) << STATISTICAL_BITS
        levels = range(self.kept + 1, len(self.primes) + 1)
        return next((level for level in levels if needed <= 2 << self.flood_bits(level)), None)

    # ---- arithmetic -------------------------------------------------------------------------------------------------

    def forward(self, x: Words) -> Words:
        """Transform coefficients, so that products are products of entries."""
        return self._transform(self._on.forward, self._roots, x)

    def backward(self, x: Words) -> Words:
        """Undo :meth:`forward`."""
        return self._transform(self._on.backward, self._back, x)

    def _transform(self, loop: Any, roots: _Roots, x: Words) -> Words:
        level = x.shape[-2]
        return np.asarray(loop(x, roots.powers[:level], roots.ratios[:level], self.moduli[:level]))

    def multiply_add(self, x: Words, y: Words, z: Words) -> Words:
        """Return ``x y + z``, entry by entry."""
        return np.asarray(self._on.multiply_add(x, y, z, self.moduli[: x.shape[-2]]))

    def add(self, x: Words, y: Words) -> Words:
        """Add."""
        total: Words = x + y
        np.minimum(total, total - self.moduli[: x.shape[-2], None], out=total)
        return total

    def small(self, values: NDArray[np.int64], level: int) -> Words:
        """Return the residues of small integers, shape ``(n,)``."""
        residues: Words = (values >> np.int64(63)).view(np.uint64) & self.moduli[:level, None]
        residues += values.view(np.uint64)
        return residues

    def lifted(self, elements: FieldArray, level: int) -> Words:
        """Return the residues of elements, shape ``(n,)``, as integers between -p/2 and p/2."""
        half = self.field.half
        raised = np.ascontiguousarray(self.field.add(elements, self.field.encode(half)))  # integers from 0 to p - 1
        return self._residues(raised.view(np.uint32).reshape(raised.size, -1), -half, level)

    def encoded(self, elements: FieldArray, level: int) -> Words:
        """Return ``round(q m / p)`` for elements m, shape ``(n,)``.

        ``q m - c`` is a multiple of p for the c between -p/2 and p/2 that is ``q m`` modulo p. So
        ``round(q m / p) = (q m - c) / p``, which is ``-c / p`` modulo each prime of q.
        """
        p = self.field.modulus
        c = self.field.scale_int(elements, math.prod(self.primes[:level]) % p)
        factors = np.array([[-pow(p, -1, q) % q] for q in self.primes[:level]], np.uint64)
        return self._times(self.lifted(c, level), factors)

    def _residues(self, limbs: NDArray[np.uint32], offset: int, level: int) -> Words:
        offsets = np.array([offset % q for q in self.primes[:level]], np.uint64)
        return np.asarray(self._on.residues(limbs, self.moduli[:level], offsets))

    def _times(self, x: Words, factors: Words) -> Words:
        """Multiply by one number for each prime, shape ``(level, 1)``."""
        wide = np.broadcast_to(factors, x.shape)
        return self.multiply_add(x, wide, np.broadcast_to(np.uint64(0), x.shape))

    def flooded(self, count: int, level: int, coins: Coins) -> Words:
        """Draw integers that are uniform in ``[-F, F)``."""
        bits = self.flood_bits(level) + 1
        limbs = -(-bits // _LIMB_BITS)
        drawn = coins.stream().raw(4 * limbs * count).view("<u4").reshape(count, limbs).astype(np.uint32)
        drawn[:, -1] &= np.uint32((1 << (bits - _LIMB_BITS * (limbs - 1))) - 1)
        return self._residues(drawn, -(1 << (bits - 1)), level)

    def uniform(self, seed: bytes, number: int, level: int) -> Words:
        """Expand a public seed to polynomial ``number``, uniform, shape ``(level, N)``."""
        stream = Prg(seed).stream(f"polynomial {number}")
        words = stream.raw(8 * level * self.degree).view("<u8") & _RESIDUES
        limits = np.repeat(self.moduli[:level], self.degree)
        while (above := np.flatnonzero(words >= limits)).size:
            words[above] = stream.raw(8 * above.size).view("<u8") & _RESIDUES
        return words.reshape(level, self.degree)

    def dropped(self, x: Words) -> Words:
        """Round coefficients to the primes that answers have, dropping one prime after the other."""
        for level in range(len(x) - 1, self.kept - 1, -1):
            last = self.primes[level]
            inverses = np.array([pow(last, -1, q) for q in self.primes[:level]], np.uint64)
            # With the last residue taken between -q_l / 2 and q_l / 2, the difference is a multiple of its prime.
            x = np.asarray(
                self._on.drop(x[:level], x[level], self.moduli[:level], np.uint64(last), inverses), np.uint64
            )
        return x

    def rounded(self, x: Words) -> FieldArray:
        """Return ``round(p x / q')`` for residues of the primes that answers have, shape ``(kept, n)``.

        ``x = sum y_i q' / q_i`` modulo q', ``y_i = x (q' / q_i)^-1`` modulo ``q_i``, hence
        ``p x / q' = sum p y_i / q_i`` modulo p. With ``t_i = p y_i`` modulo ``q_i`` its integer part is
        ``(p y_i - t_i) / q_i``, which is ``-t_i / q_i`` in the field; the fractions ``t_i / q_i`` are added up in
        floating point, with an error below 2^-49, and are no nearer than 1/10 to a tie.
        """
        p, primes = self.field.modulus, self.primes[: self.kept]
        whole = math.prod(primes)
        factors = np.array([[p * pow(whole // q, -1, q) % q] for q in primes], np.uint64)
        t = self._times(x, factors).astype(np.int64)
        fractions = (t / np.array(primes, np.float64)[:, None]).sum(axis=0)
        total = self.field.encode(np.rint(fractions).astype(np.int64))
        for row, q in zip(t, primes, strict=True):
            total = self.field.add(total, self.field.scale_int(self.field.encode(row), -pow(q, -1, p) % p))
        return total

    # ---- bytes ------------------------------------------------------------------------------------------------------

    def to_bytes(self, x: Words) -> bytes:
        """Return the wire form: 6 bytes for each residue, little-endian."""
        return np.ascontiguousarray(x, "<u8").view(np.uint8).reshape(-1, 8)[:, :RESIDUE_BYTES].tobytes()

    def from_bytes(self, data: bytes | bytearray | memoryview, level: int) -> Words:
        """Read the wire form of residues, ``(level, n)``.

        Raises
        ------
        ValueError
            A residue is not below its prime, or the length is no multiple.
        """
        each = len(data) // level
        if each * level != len(data) or each % RESIDUE_BYTES:
            raise ValueError("no whole number of residues")
        padded = bytes(data) + bytes(8 - RESIDUE_BYTES)  # words that overlap
        shape, steps = (level, each // RESIDUE_BYTES), (each, RESIDUE_BYTES)
        residues: Words = np.ndarray(shape, "<u8", padded, strides=steps) & _RESIDUES
        if (residues >= self.moduli[:level, None]).any():
            raise ValueError("a residue is not below its prime")
        return residues

    # ---- roots of unity ---------------------------------------------------------------------------------------------

    @cached_property
    def _roots(self) -> _Roots:
        return self._table(backwards=False)

    @cached_property
    def _back(self) -> _Roots:
        return self._table(backwards=True)

    def _table(self, *, backwards: bool) -> _Roots:
        n, primes = self.degree, self.primes
        roots = []
        for q in primes:
            candidates = (pow(g, (q - 1) // (2 * n), q) for g in range(2, q))
            root = next(found for found in candidates if pow(found, n, q) == q - 1)
            roots.append(pow(root, -1, q) if backwards else root)
        powers = np.ones((len(primes), 1), np.uint64)
        while (known := powers.shape[1]) < n:  # the next powers lie between those that are known, in reversed order
            factors = np.array([[pow(root, n // (2 * known), q)] for root, q in zip(roots, primes, strict=True)])
            powers = np.concatenate([powers, self._times(powers, factors.astype(np.uint64))], axis=1)
        if backwards:
            powers[:, 0] = [pow(n, -1, q) for q in primes]
        return _Roots(powers, powers / np.array(primes, np.float64)[:, None])


@cache
def rings_of(field: Field) -> tuple[Ring, ...]:
    """Return the rings for messages over a field, that of the smallest ciphertexts first."""
    if field is F127:
        return (Ring(F127, 16384, PRIMES, 3),)
    if field is F61:
        return Ring(F61, 8192, PRIMES[:4], 2), Ring(F61, 16384, PRIMES[:5], 2)
    return ()
