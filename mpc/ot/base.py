"""Base transfers: 1-out-of-2 oblivious transfer of random keys by Diffie-Hellman over Ed25519.

Masny, Rindal, "Endemic Oblivious Transfer", CCS 2019: their transfer from a key agreement, with Diffie-Hellman, so
that the two messages do not depend on each other and cross in one round. Written additively, with g a generator of the
group G of prime order, H_0 and H_1 hashes into G (random oracles), for each instance afresh:

1. The receiver, who wants key b, draws x and ``r_(1-b)`` uniformly, sets ``r_b = x g - H_b(r_(1-b))``, and sends
   ``(r_0, r_1)``.
2. The sender draws y_0 and y_1, and sends ``Y_0 = y_0 g`` and ``Y_1 = y_1 g``. With ``A_b = r_b + H_b(r_(1-b))`` its
   keys are ``KDF(b, r_0, r_1, Y_0, Y_1, y_b A_b)``, b = 0, 1.
3. The receiver has ``A_b = x g``, hence ``y_b A_b = x Y_b``, hence key b.

**The receiver's choice is hidden perfectly,** whatever the sender does: ``r_(1-b)`` is uniform, and ``r_b`` is uniform
given it because x is, so that ``(r_0, r_1)`` has the same distribution for both b.

**The sender's other key is hidden** from a receiver that sends what it likes. Of its two queries ``H_0(r_1)`` and
``H_1(r_0)`` one comes last; its answer, say that to ``H_b(r_(1-b))``, is uniform and independent of ``r_b``, which was
the input of the earlier one. So ``A_b`` is a uniform point that the receiver did not choose, and key b is a hash of the
Diffie-Hellman value of it and Y_b: telling it from random takes a query of the KDF at this value, hence solves the
computational Diffie-Hellman problem. (A reduction puts the challenge into Y_b and the answer; it guesses b and the two
queries. It knows the other y, so that it can answer for the key that the receiver does know: with one y for both keys,
which is also in use, that takes an interactive assumption; Canetti, Sarkar, Wang, PKC 2020, name both variants.)
A simulator in the paper's sense reads the choice off the order of the queries, and, against a dishonest sender, gives
answers of H that let it know both x. That is universally composable security against static dishonest parties in the
programmable random oracle model under the (computational or decisional) Diffie-Hellman assumption, for what the authors
call endemic transfer: a dishonest party may influence its own keys (the receiver its one, the sender its two).
Semi-honest parties are a special case.

**That is enough for the extension,** also against dishonest parties (:mod:`mpc.ot.checking`), for nothing is built on
keys being uniform to their owner. The sender becomes the chooser: whatever keys it picked, what the offerer will
compute is a function of delta, fixed by keys and messages; the check asks no more, and its challenge is a hash of the
messages of these transfers, too, so that keys are not picked after it. The receiver becomes the offerer: what it lacks
of a tree is derived from keys that it does not have, which are random to it whatever its own are, and its choices,
delta, are its own to pick. Nothing fails for some choices only: all points are tested before a choice is looked at,
and no multiple of one that passes is zero. Relayed messages of other pairs, roles or sessions make other keys.

Why not Chou and Orlandi's simpler transfer (LATINCRYPT 2015): its proof does not hold, for the receiver's choice
cannot be extracted in time (Genç, Iovino, Rial, "The simplest protocol for oblivious transfer revisited", Information
Processing Letters 161, 2020; Byali, Patra, Ravi, Sarkar, ePrint 2017/1165), and all its instances share one point.

**The group.** Ed25519's curve has order 8 times a prime. ``is_valid_point`` of libsodium accepts canonical encodings
of points of the prime-order subgroup other than zero, and we accept nothing else, so that small components tell
nothing about x or y, and one point has one encoding in what is hashed. H is ``f(h_1) + f(h_2)``, with f Elligator 2
times the cofactor (``from_uniform``) and h a hash of 64 bytes: Elligator alone reaches about half of the points, the
sum of two is indifferentiable from a random oracle into G (Brier et al., CRYPTO 2010; Farashahi et al., Mathematics of
Computation, 2013; ``hash_to_curve`` of RFC 9380, section 3). f takes 255 bits modulo 2^255 - 19, off uniform by
2^-250. Scalars are 512 random bits modulo the order, multiplications are libsodium's, in constant time and without
clamping, which would make scalars multiples of 8 and the points not uniform. What is hashed names the session, both
ranks in their roles, the number of transfers and the instance.

Cost: one round; 64 bytes an instance from each end, so 8 KiB each way for 128; at the sender about 0.5 ms of processor
time an instance, at the receiver 0.3 ms.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from typing import TYPE_CHECKING

import numpy as np
from nacl import bindings as sodium
from nacl.exceptions import CryptoError

from mpc.errors import PeerError
from mpc.transport import check_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.ot.link import Link

KEY_BYTES = 16
POINT_BYTES = 32
_SCALAR_SEED_BYTES = 64
_MOST = 1 << 16
_TURN = 16  # instances between two moments at which other tasks may run
_PAIRS, _POINTS = "pairs", "points"


async def send(link: Link, count: int) -> NDArray[np.uint8]:
    """Be the sender of ``count`` transfers of random keys.

    Parameters
    ----------
    link : Link
        To the receiver; its session is used for nothing else in this direction.
    count : int

    Returns
    -------
    numpy.ndarray
        uint8, shape ``(count, 2, 16)``: both keys of each. Secret.

    Raises
    ------
    PeerError
        The receiver sent too much, too little, or what is no point of the group.
    """
    context = _context(link.session, link.party_rank, link.other, count)
    secret = [_scalar() for _ in range(2 * count)]
    ours = [sodium.crypto_scalarmult_ed25519_base_noclamp(y) for y in secret]
    await link.send(_POINTS, b"".join(ours))
    theirs = await _receive_points(link, _PAIRS, 2 * count)
    keys = np.empty((count, 2, KEY_BYTES), np.uint8)
    for n in range(count):
        pair, said = (theirs[2 * n], theirs[2 * n + 1]), (ours[2 * n], ours[2 * n + 1])
        for b in (0, 1):
            try:
                masked = sodium.crypto_core_ed25519_add(pair[b], _into_group(context, n, b, pair[1 - b]))
                shared = sodium.crypto_scalarmult_ed25519_noclamp(secret[2 * n + b], masked)
            except CryptoError:  # the sum is zero: no honest receiver ever hits that
                raise _no_point(link, _PAIRS) from None
            keys[n, b] = _key(context, n, b, (*pair, *said), shared)
        if n % _TURN == _TURN - 1:
            await asyncio.sleep(0)
    return keys


async def receive(link: Link, choices: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Be the receiver of transfers of random keys.

    Parameters
    ----------
    link : Link
        To the sender; its session is used for nothing else in this direction.
    choices : numpy.ndarray
        uint8, shape ``(count,)``, zeros and ones. Secret.

    Returns
    -------
    numpy.ndarray
        uint8, shape ``(count, 16)``: the keys of our choice. Secret.

    Raises
    ------
    PeerError
        The sender sent too much, too little, or what is no point of the group.
    """
    if choices.dtype != np.uint8 or choices.ndim != 1 or (choices.size and choices.max() > 1):
        raise ValueError("choices are a row of zeros and ones")
    count = len(choices)
    context = _context(link.session, link.other, link.party_rank, count)
    secret, pairs = [], []
    for n, b in enumerate(choices.tolist()):
        # The choice decides which place a point takes and a byte of what is hashed; the work is the same.
        x = _scalar()
        pair = [sodium.crypto_scalarmult_ed25519_base_noclamp(_scalar())] * 2
        own = sodium.crypto_scalarmult_ed25519_base_noclamp(x)
        pair[b] = sodium.crypto_core_ed25519_sub(own, _into_group(context, n, b, pair[1 - b]))
        secret.append(x)
        pairs.append((pair[0], pair[1]))
        if n % _TURN == _TURN - 1:
            await asyncio.sleep(0)
    await link.send(_PAIRS, b"".join(point for pair in pairs for point in pair))
    theirs = await _receive_points(link, _POINTS, 2 * count)
    keys = np.empty((count, KEY_BYTES), np.uint8)
    for n, b in enumerate(choices.tolist()):
        said = (theirs[2 * n], theirs[2 * n + 1])
        try:
            shared = sodium.crypto_scalarmult_ed25519_noclamp(secret[n], said[b])
        except CryptoError:
            raise _no_point(link, _POINTS) from None
        keys[n] = _key(context, n, b, (*pairs[n], *said), shared)
        if n % _TURN == _TURN - 1:
            await asyncio.sleep(0)
    return keys


def _context(session: bytes, sender: int, receiver: int, count: int) -> bytes:
    """Return what all hashes of a run begin with."""
    if not 0 <= count <= _MOST:
        raise ValueError(f"base transfers are at most {_MOST} at a time")
    place = b"".join(number.to_bytes(4, "little") for number in (sender, receiver, count))
    return hashlib.blake2b(place + session, digest_size=32, person=b"sottovoce.base").digest()


def _scalar() -> bytes:
    return sodium.crypto_core_ed25519_scalar_reduce(secrets.token_bytes(_SCALAR_SEED_BYTES))


def _into_group(context: bytes, n: int, b: int, point: bytes) -> bytes:
    """Return ``H_b(point)``, a point of the group whose logarithm nobody knows."""
    said = context + n.to_bytes(4, "little") + bytes([b]) + point
    digest = hashlib.blake2b(said, digest_size=64, person=b"sottovoce.group").digest()
    halves = (sodium.crypto_core_ed25519_from_uniform(digest[at : at + POINT_BYTES]) for at in (0, POINT_BYTES))
    return sodium.crypto_core_ed25519_add(*halves)


def _key(context: bytes, n: int, b: int, points: tuple[bytes, ...], shared: bytes) -> NDArray[np.uint8]:
    """Hash the shared point with all that was said in the instance."""
    said = context + n.to_bytes(4, "little") + bytes([b]) + b"".join(points) + shared
    digest = hashlib.blake2b(said, digest_size=KEY_BYTES, person=b"sottovoce.key").digest()
    return np.frombuffer(digest, np.uint8)


async def _receive_points(link: Link, step: str, count: int) -> list[bytes]:
    """Receive canonical points of the prime-order subgroup, none of them zero."""
    message = bytes(await link.receive(step, count * POINT_BYTES))
    check_size(message, count * POINT_BYTES, rank=link.other, step=link.step(step))
    points = [message[at : at + POINT_BYTES] for at in range(0, len(message), POINT_BYTES)]
    if not all(sodium.crypto_core_ed25519_is_valid_point(point) for point in points):
        raise _no_point(link, step)
    return points


def _no_point(link: Link, step: str) -> PeerError:
    label = link.step(step)
    return PeerError(f"party {link.other} sent no point of the group at step {label!r}", rank=link.other, step=label)
