"""Encryption that can be added up and multiplied by what is known: polynomials with errors.

A message is a polynomial with coefficients in a prime field, modulo ``x^N + 1``. A ciphertext ``(c0, c1)`` has
``c0 + c1 s = round(q m / p) + noise`` modulo q for the secret s (Brakerski, CRYPTO 2012; Fan, Vercauteren, IACR ePrint
2012/144). It is multiplied by a polynomial y that is known by multiplying both halves, and then holds ``m y`` modulo p:

- ``round(q m / p) = q m / p + h`` with ``|h| < 1/2``, and ``(q / p) (m y + p z) = (q / p) m y + q z`` for any integer
  polynomial z, so that reducing modulo p costs nothing;
- the noise becomes ``(e + h) y``, with y's coefficients taken between -p/2 and p/2: no factor beside y.

**Noise.** Errors are centred binomial, ``|e| <= 21`` (variance 10.5, as in SEAL), secrets are ternary. A sum of
products with polynomials that have K coefficients other than zero in all, none above Y in absolute value, has noise of
at most
``22 K Y``. What is added before it is sent back (:meth:`PublicKey.answer`): an encryption of zero with noise
``e_pk u + e1 s``, at most ``42 N``; an encoded mask, at most 1/2; a flood, uniform in ``[-F, F)``, where
``F = 2^(floor(log2 q) - bits(p) - 2) <= q / 4p``. :meth:`Ring.level` takes as many primes as make

    ``entries * (22 K Y + 42 N + 1) 2^40 <= 2F``.

A uniform number of ``[-F, F)`` plus a fixed one of absolute value B is within ``B / 2F`` of one without, in statistical
distance: all entries of a product together are within 2^-40 of telling nothing about what else is in their noise.

**Going back.** The answer is rounded to fewer primes, ``q' = q_1 .. q_kept``, one prime after the other: each of both
halves is off by at most ``1/2 + 2^-46``, which the secret makes ``(N + 1) (1/2 + 2^-46)``. With
``F q' / q <= q' / 4p``, and the other noise 2^-40 of that, the noise stays below ``q' / 2p`` by far: ``(N + 1) / 2`` is
about 2^13 where ``q' / 4p`` is 2^15 (F127) or 2^33 (F61). So m is what ``p (c0 + c1 s) / q'`` is rounded to.

**Who learns what.** Whoever gets ciphertexts and public keys sees samples of ring learning with errors under a secret
of the sender's. The sender of a ciphertext gets back ``c1`` and those coefficients of ``c0`` that hold results. It
knows a, s and e, so that ``c1 = a y`` would tell it y. But ``c1 = a y + a_pk u + e1`` is a sample under the fresh
secret u, with an a_pk that is uniform, hence pseudorandom; and c0 is given by c1 and
``c0 + c1 s = round(q m / p) + noise``, where m is uniform by the mask and the noise is the flood's, which hides u and
e1 as well (so that c0 needs no error of its own). Rounding to fewer primes is done with what has been hidden already.
This is circuit privacy by noise flooding (Gentry, STOC 2009, section 4.1), as Overdrive uses it (Keller, Pastro,
Rotaru, EUROCRYPT 2018, section 3).

Threat model: semi-honest. A dishonest peer may send keys and ciphertexts that are none, and learn from answers.
Assumption: ring learning with errors with 128 bits of security by the table of the Homomorphic Encryption Standard
(Albrecht et al., 2018, table 1, ternary secrets): ``log2 q <= 438`` for N = 16384, of which we use 336 at most, and
218 for N = 8192, of which we use 192.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpc._twin_lattice import less
from mpc.ot.rings import Coins, Ring

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import FieldArray

    Words = NDArray[np.uint64]

__all__ = ["Coins", "OwnKey", "PublicKey", "Ring"]


class PublicKey:
    """What others hide their answers with: an encryption of zero, ``b = -a s + e``.

    Parameters
    ----------
    ring : Ring
    seed : bytes
        Of a.
    b : numpy.ndarray
        Transformed, shape ``(primes, N)``.
    """

    __slots__ = ("_a", "b", "ring", "seed")

    def __init__(self, ring: Ring, seed: bytes, b: Words) -> None:
        self.ring = ring
        self.seed = seed
        self.b = b
        self._a = ring.forward(ring.uniform(seed, 0, len(ring.primes)))

    def answer(
        self, c0: Words, c1: Words, positions: NDArray[np.intp] | slice, mask: FieldArray, coins: Coins
    ) -> tuple[Words, Words]:
        """Add a mask to a sum of products, hide everything else, and round to fewer primes.

        Parameters
        ----------
        c0, c1 : numpy.ndarray
            Transformed, shape ``(level, N)``.
        positions : numpy.ndarray or slice
            Of the coefficients that hold results.
        mask : FieldArray
            Uniform, fresh, one for each result.

        Returns
        -------
        (numpy.ndarray, numpy.ndarray)
            ``c0`` at the positions and ``c1``, with as many primes as answers have; see the module's documentation.
        """
        ring, level = self.ring, len(c0)
        u = ring.forward(ring.small(coins.ternary(ring.degree), level))
        first = ring.backward(ring.multiply_add(u, self.b[:level], c0))
        second = ring.backward(ring.multiply_add(u, self._a[:level], c1))
        results = ring.add(first[:, positions], ring.encoded(mask, level))
        results = ring.add(results, ring.flooded(mask.size, level, coins))
        second = ring.add(second, ring.small(coins.errors(ring.degree), level))
        return ring.dropped(results), ring.dropped(second)

    def __repr__(self) -> str:
        return f"PublicKey({self.ring})"


class OwnKey:
    """Our secret, and the public key that goes with it."""

    __slots__ = ("_s", "public", "ring")

    def __init__(self, ring: Ring, coins: Coins) -> None:
        level = len(ring.primes)
        s = ring.forward(ring.small(coins.ternary(ring.degree), level))
        self.ring = ring
        self._s = s
        seed = coins.seed()
        a = ring.forward(ring.uniform(seed, 0, level))
        self.public = PublicKey(ring, seed, self._masked(a, ring.small(coins.errors(ring.degree), level)))

    def _masked(self, a: Words, message: Words) -> Words:
        """Return ``message - a s``, transformed, for transformed a and coefficients of the message."""
        moduli = self.ring.moduli[: len(a), None]
        minus = less(moduli - self._s[: len(a)], moduli)
        return self.ring.multiply_add(a, minus, self.ring.forward(message))

    def encrypt(self, elements: FieldArray, level: int, seed: bytes, number: int, coins: Coins) -> Words:
        """Encrypt the coefficients of a polynomial, shape ``(N,)``.

        Parameters
        ----------
        level : int
        seed : bytes
            Public, fresh for a list of ciphertexts.
        number : int
            Which ciphertext of this list; the other half of it is :meth:`Ring.uniform` of both, taken as transformed.

        Returns
        -------
        numpy.ndarray
            ``c0``, transformed, shape ``(level, N)``.
        """
        ring = self.ring
        errors = ring.small(coins.errors(ring.degree), level)
        return self._masked(ring.uniform(seed, number, level), ring.add(ring.encoded(elements, level), errors))

    def decrypt(self, results: Words, c1: Words, positions: NDArray[np.intp] | slice) -> FieldArray:
        """Decrypt an answer: the elements at the positions."""
        ring, kept = self.ring, len(c1)
        zeros = np.zeros(c1.shape, np.uint64)
        product = ring.backward(ring.multiply_add(ring.forward(c1), self._s[:kept], zeros))
        return ring.rounded(ring.add(results, product[:, positions]))

    def __repr__(self) -> str:
        return f"OwnKey({self.ring})"
