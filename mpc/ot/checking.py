"""Consistency of an extension: a chooser that means different choice bits in different trees is found.

The semi-honest extension does not need it. It is the check of SoftSpokenOT (Roy, CRYPTO 2022, on malicious security of
its subspace VOLE) for the repetition code, with a uniformly random linear hash R: after it has received the
corrections of a batch, the offerer names 128 random sums of its transfers, and the chooser answers with the same sums
of its own, as if they were 128 transfers: ``x = R c`` and ``y = R t``. The offerer checks ``R q = y ^ x delta``. (The
check of Keller, Orsini and Scholl, CRYPTO 2015, which compares one product in GF(2^128), is of the same kind; Roy
shows in the same paper that its proof does not hold.)

**What it costs.** The last 128 transfers of a batch have the unit vectors as weights: they pad the sums, and are
dropped. One more message each way, of 16 bytes and of 2064 bytes; about 30 ns a transfer at each end.

**What the offerer learns:** nothing. ``x`` is padded by the 128 choice bits that are dropped, whatever the challenge
is, and y follows from x, delta and q.

**What a dishonest chooser can do.** Let ``c_j`` be the choice bits that its corrections mean in tree j: the offerer
has ``q_b = v_b ^ delta_b c_j`` for the k bits b of this tree. An answer (x, y) passes there if ``y_b ^ R v_b = delta_b
(R c_j ^ x)``, for each b.

- Where ``R c_j`` differs from x, that takes a right guess of the k bits. It succeeds with probability ``2^-k``, and
  then tells them: a bits of delta for a probability of ``2^-a`` of not being caught. Not being caught and then
  guessing the rest of delta is as likely as guessing delta at once.
- Where it equals x for several trees, their ``c_j`` are equal, but for a probability of ``2^-128`` for each pair of
  different ones: R is drawn after all of them are fixed. So what is left after guessing is a correct extension.
- Sums of a tree's levels (:meth:`mpc.ot.extension.Chooser.from_keys`) that are inconsistent make what the offerer
  computes, ``q_b`` for its path, depend on the path in other ways. Of the paths for which an answer passes, any two
  differ in ``q_b`` by 0 where they have the same bit b, and by one and the same c where they do not, again because R
  was drawn later; so these paths, too, belong to one correct extension, and that the offerer's is among them is what
  the chooser has guessed. There are at most ``2^(2k) 128`` such differences, so for k <= 8 two that differ have the
  same image under R with a probability below ``2^-80``. (This is our argument; Roy checks the trees by themselves, as
  Boyle et al., CCS 2019.)

R comes from a challenge of 128 bits through AES-128 in counter mode: all probabilities above are up to what tells that
from random. Who builds on this must end for good when a check fails, must use no key of a batch before it has
passed, and must make pads with a tweaked hash (:mod:`mpc.ot.hashing`).
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc.ot._native import loops

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.ot._native import Loops

    Words = NDArray[np.uint64]

CHALLENGE_BYTES = 16
SACRIFICED = 128  # transfers at the end of a batch that are dropped
_ENTRY_BYTES = 16
PROOF_BYTES = _ENTRY_BYTES + SACRIFICED * _ENTRY_BYTES


def proof(challenge: bytes, choices: NDArray[np.uint8], keys: Words, on: Loops | None = None) -> bytes:
    """Answer a challenge, as the chooser.

    Parameters
    ----------
    challenge : bytes
        16 bytes that the offerer drew and sent after it had our corrections.
    choices : numpy.ndarray
        uint8, shape ``(count / 8,)``: our choice bits of the whole batch, packed least first.
    keys : numpy.ndarray
        uint64, shape ``(count, 2)``. The last 128 transfers are used up.

    Returns
    -------
    bytes
        ``PROOF_BYTES`` bytes for the offerer.
    """
    weights = _weights(challenge, len(keys))
    masks = _masks(np.unpackbits(choices, count=len(keys), bitorder="little"))
    x = b"".join(np.bitwise_xor.reduce(weights[:, word] & masks).tobytes() for word in (0, 1))
    return x + _sums(keys, weights, on).tobytes()


def check(challenge: bytes, keys: Words, delta: Words, answer: bytes, on: Loops | None = None) -> bool:
    """Return whether the chooser's corrections were consistent, as the offerer.

    Parameters
    ----------
    challenge : bytes
        What we drew from ``secrets`` and sent after we had the corrections.
    keys : numpy.ndarray
        uint64, shape ``(count, 2)``: our keys of the whole batch. The last 128 transfers are used up.
    delta : numpy.ndarray
        uint64, shape ``(2,)``.
    answer : bytes
        What the chooser's :func:`proof` returned.

    Raises
    ------
    ValueError
        An answer of another length than ``PROOF_BYTES``.
    """
    if len(answer) != PROOF_BYTES:
        raise ValueError(f"an answer has {PROOF_BYTES} bytes, not {len(answer)}")
    x = np.unpackbits(np.frombuffer(answer, np.uint8, _ENTRY_BYTES), bitorder="little")
    claimed = np.frombuffer(answer, "<u8", offset=_ENTRY_BYTES).reshape(SACRIFICED, 2)
    found = _sums(keys, _weights(challenge, len(keys)), on)
    return hmac.compare_digest((claimed ^ (delta & _masks(x)[:, None])).tobytes(), found.tobytes())


def _weights(challenge: bytes, count: int) -> Words:
    """Return 128 public random bits for each transfer, the unit vectors for the last 128."""
    if len(challenge) != CHALLENGE_BYTES:
        raise ValueError(f"a challenge has {CHALLENGE_BYTES} bytes, not {len(challenge)}")
    if count < SACRIFICED:
        raise ValueError(f"a batch has at least {SACRIFICED} transfers, not {count}")
    stream = Cipher(algorithms.AES(challenge), modes.CTR(bytes(16))).encryptor()
    drawn = bytearray(stream.update(bytes((count - SACRIFICED) * _ENTRY_BYTES)))
    drawn += np.packbits(np.eye(SACRIFICED, dtype=np.uint8), axis=1, bitorder="little").tobytes()
    return np.frombuffer(drawn, "<u8").astype(np.uint64, copy=False).reshape(count, 2)


def _masks(bits: NDArray[np.uint8]) -> Words:
    """Return a word of ones for each 1."""
    return np.negative(bits.astype(np.int64)).view(np.uint64)


def _sums(keys: Words, weights: Words, on: Loops | None) -> Words:
    sums: Words = (on or loops()).combine(keys, weights)
    return sums
