"""Consistency of an extension: a chooser that means different choice bits in different trees is found.

The semi-honest extension does not need it. It is the check of SoftSpokenOT (Roy, CRYPTO 2022, on malicious security of
its subspace VOLE) for the repetition code: with a public linear map R that nobody knew before, the chooser tells sums
of its transfers, as if they were transfers themselves: ``x = R c`` and ``y = R t``. The offerer checks
``R q = y ^ x delta``. (The check of Keller, Orsini and Scholl, CRYPTO 2015, which compares one product in GF(2^128),
is of the same kind; Roy shows in the same paper that its proof does not hold.)

**R is a polynomial hash.** A row, one bit of each transfer, is cut into m blocks, the coefficients of a polynomial of
degree m - 1 over GF(2^128). R evaluates it at two points. Two different rows, fixed before the points, have the same
image if both points are roots of their difference: with a probability of at most ``eps = ((m - 1) / 2^128)^2``; in a
message there are fewer than 2^9 blocks, so ``eps < 2^-238``. The last two blocks, 256 transfers, pad both values,
whatever the points are, if only they differ. They are dropped.

**The points are a hash of all that was said** (:class:`Transcript`; Fiat, Shamir, CRYPTO '86), from the base transfers
to the corrections that are checked, so that the answer travels with the corrections: no message more, nobody waits, and
no key is ever in stock whose extension has not passed. The price is that a chooser may try several messages before
it sends one; that is why there are two points, and not one.

**What it costs.** 4128 bytes and 256 transfers of an extension, which has up to 62,000. About 4 ns a transfer at each
end: 3 for SHA-256, 1 for the polynomials from rows (4 without AVX-512, 5 where keys have to be transposed back to rows,
160 where there is no instruction for carry-less multiplication, or no C for it).

**What the offerer learns:** nothing. The points depend on the corrections, given which c is uniform to it; so x is
padded by the choice bits that are dropped, and y follows from x, delta and q.

**What a dishonest chooser can do.** It knows the keys of all leaves, so what the offerer will compute for the bits b
of tree j is a known function of the k bits a of delta that belong to the tree: rows ``Q_b(a)``, fixed by what is
hashed, however the corrections were made, and the sums of the tree's levels
(:meth:`mpc.ot.extension.Chooser.from_keys`), and base transfers. The answer (x, y) passes if a is in the set A_j of
those with ``R Q_b(a) = y_b ^ a_b x`` for each b, for all trees. Nothing else that the chooser has seen depends on
delta, but that earlier checks have passed (what it gets under pads looks random). So:

- It passes with the probability ``product of |A_j| / 2^k``, and then knows that delta is in this product, in which it
  is uniform: a bits of delta for a probability of ``2^-a`` of not being caught. Not being caught and then guessing the
  rest of delta is as likely as guessing delta at once.
- For any two a, a' of one A_j, ``R (Q_b(a) ^ Q_b(a')) = (a_b ^ a'_b) x``. If R takes different ones of these
  differences, and zero, to different images, then those for ``a_b = a'_b`` are zero, and all others, in all trees, are
  one and the same row c. With ``v_b = Q_b(a) ^ a_b c`` for any a of A_j, the offerer has ``q_b = v_b ^ delta_b c``: a
  correct extension, in which the chooser knows v and c.
- There are at most ``128 * 2^(2k - 1)`` differences, 2^14 for k = 4, hence fewer than 2^27 pairs of them and zero, two
  of which meet with a probability below ``2^27 eps < 2^-211``. (With honest sums of trees there are 32 differences.)
  That is for each evaluation of the hash, taken for a random oracle: who makes 2^80 of them finds such a pair
  with a probability below 2^-131. Roy checks the trees by themselves, as Boyle et al., CCS 2019.

So an extension that passes is a correct one with an offerer whose delta the chooser may have guessed in part, and
guessing has its price. Several extensions have checks of their own, and their prices multiply up. Who builds on this
ends for good when a check fails, uses no key of an extension before it has passed, and makes pads with a tweaked hash
(:mod:`mpc.ot.hashing`), since a dishonest chooser has a say in v and c.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import numpy as np

from mpc.ot._native import loops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.ot._native import Loops
    from mpc.transport import Buffer

    Words = NDArray[np.uint64]

CHALLENGE_BYTES = 32
SACRIFICED = 256  # transfers at the end of an extension that are dropped
_STEP = 128  # transfers of a block
_POINTS = 2
_CHOICES_BYTES = _POINTS * 16
PROOF_BYTES = _CHOICES_BYTES + _POINTS * 128 * 16


class Transcript:
    """What both ends of an extension have seen so far, as a digest: the same at both, whoever of them spoke.

    Parameters
    ----------
    session : bytes
        Public, of this direction of this pair alone.
    said : sequence of bytes
        All messages that keys of this extension depend on, in an order that both know.

    Attributes
    ----------
    start : bytes
        The digest of these, 32 bytes, which names the extension.
    """

    __slots__ = ("_digest", "start")

    def __init__(self, session: bytes, *said: Buffer) -> None:
        self._digest = hashlib.sha256(b"sottovoce.transcript" + session).digest()
        for message in said:
            self.challenge(message)
        self.start = self._digest

    def challenge(self, message: Buffer) -> bytes:
        """Add what the chooser says; return what it is asked: 32 bytes that nobody knew before it was made."""
        # Twice, so that what is hashed cannot be continued.
        inner = hashlib.sha256(self._digest)
        inner.update(message)
        self._digest = hashlib.sha256(b"sottovoce.challenge" + inner.digest()).digest()
        return self._digest

    def __repr__(self) -> str:
        return "Transcript()"


def proof(
    challenge: bytes, choices: NDArray[np.uint8], keys: Words, on: Loops | None = None, *, rows: Words | None = None
) -> bytes:
    """Answer a challenge, as the chooser.

    Parameters
    ----------
    challenge : bytes
        Of the transcript, to which our corrections have been added.
    choices : numpy.ndarray
        uint8, shape ``(count / 8,)``: our choice bits of the whole extension, packed least first.
    keys : numpy.ndarray
        uint64, shape ``(count, 2)``. The last 256 transfers are used up.
    rows : numpy.ndarray, optional
        The same before they were transposed, shape ``(128, count / 64)``, which is faster.

    Returns
    -------
    bytes
        ``PROOF_BYTES`` bytes for the offerer.
    """
    points, used = _points(challenge), on or loops()
    row = np.frombuffer(choices.tobytes(), "<u8").astype(np.uint64, copy=False)
    x = np.stack([used.evaluate(row, point) for point in points])
    return _bytes(x) + _bytes(_sums(keys, points, used, rows))


def check(
    challenge: bytes,
    keys: Words,
    delta: Words,
    answer: Buffer,
    on: Loops | None = None,
    *,
    rows: Words | None = None,
) -> bool:
    """Return whether the chooser's corrections were consistent, as the offerer.

    Parameters
    ----------
    challenge : bytes
        Of the transcript, to which the corrections have been added.
    keys : numpy.ndarray
        uint64, shape ``(count, 2)``: our keys of the whole extension. The last 256 transfers are used up.
    delta : numpy.ndarray
        uint64, shape ``(2,)``.
    answer : bytes, bytearray or memoryview
        What the chooser's :func:`proof` returned.
    rows : numpy.ndarray, optional
        See :func:`proof`.

    Raises
    ------
    ValueError
        An answer of another length than ``PROOF_BYTES``.
    """
    if len(answer) != PROOF_BYTES:
        raise ValueError(f"an answer has {PROOF_BYTES} bytes, not {len(answer)}")
    x = np.frombuffer(answer, "<u8", 2 * _POINTS).reshape(_POINTS, 1, 2)
    y = np.frombuffer(answer, "<u8", offset=_CHOICES_BYTES).reshape(_POINTS, 128, 2)
    bits = np.unpackbits(delta.astype("<u8").view(np.uint8), bitorder="little").astype(np.uint64)
    expected = y ^ x * bits[:, None]
    return hmac.compare_digest(_bytes(expected), _bytes(_sums(keys, _points(challenge), on or loops(), rows)))


def _points(challenge: bytes) -> Words:
    """Return the points, shape ``(2, 2)``."""
    if len(challenge) != CHALLENGE_BYTES:
        raise ValueError(f"a challenge has {CHALLENGE_BYTES} bytes, not {len(challenge)}")
    return np.frombuffer(challenge, "<u8").astype(np.uint64).reshape(_POINTS, 2)


def _sums(keys: Words, points: Words, on: Loops, rows: Words | None) -> Words:
    """Return the row of each bit of the keys at the points, shape ``(2, 128, 2)``."""
    if len(keys) < SACRIFICED or len(keys) % _STEP:
        raise ValueError(f"an extension has at least {SACRIFICED} transfers, in blocks, not {len(keys)}")
    if rows is not None:
        return np.stack([on.evaluate(rows, point) for point in points])
    sums: Words = on.combine(keys.reshape(-1, 64, 2), points)
    return sums


def _bytes(words: Words) -> bytes:
    return words.astype("<u8", copy=False).tobytes()
