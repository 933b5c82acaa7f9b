"""Correlated elements: what one party knows times what another keeps for good, as a difference of two summands.

For an ordered pair of parties and a field the holder has an element ``Delta``, always the same. The prover brings any
elements x and gets M, the holder gets K with ``K = M + Delta x``: K and Delta are a key, M is the MAC of x under it.
COPEe (Keller, Orsini, Scholl, "MASCOT", CCS 2016, section 3), with the digits of Delta taken ``DEPTH`` bits at a time
(Roy, "SoftSpokenOT", CRYPTO 2022, section 3.1, there over fields of characteristic 2).

The two ends share trees, one for each digit ``d_t`` of Delta (:mod:`mpc.ot.trees`): the prover knows all leaves, the
holder all but the one of its digit's number. Every leaf is a stream of pads ``r_y``. The prover sends ``u = x + sum
r_y`` for each tree, and the holder computes, from the pads that it has,

    ``k_t = d_t u + sum (y - d_t) r_y = d_t x + sum y r_y = d_t x + m_t``,

so that ``K = sum 2^(DEPTH t) k_t`` and ``M = sum 2^(DEPTH t) m_t`` are what is wanted.

**What the parties learn.** The holder sees u, which the pad that it lacks makes uniform whatever x is. The prover
receives nothing once the trees have been set up, and there the holder's choices under random bits that it does not
know. Pads come from AES-128 in counter mode under the key of a leaf, with a first block that belongs to the scope, as a
pseudorandom function; modulo p they are ``2^-127`` from uniform over F127 and ``2^-67`` over F61.

**What a dishonest prover can do.** It may mean other elements x at different digits, or set up trees whose leaves, as
the holder finds them, depend on its digits. Then ``K = M + Delta x + sum f_t(d_t)``, with functions ``f_t`` of one
digit each that it knows and has fixed when the last u is sent; over single bits they are ``2^t d_t e_t`` (MASCOT has
these; its functionality hands them to the adversary). Nothing here notices. A random combination of many elements,
drawn after all u were received and opened with its MAC, does: the prover passes only where the digits that matter are
as it guessed, so that what it learns of Delta costs it as much in probability. That is the task of who calls this
(:mod:`mpc.ot.macs`).

**What a dishonest holder can do.** It may choose any Delta, at the set-up and never again; its messages say nothing
else, and a prover's M, x and streams do not depend on them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpc._copying import copy_into
from mpc.errors import PeerError
from mpc.ot._correlating import loops_of
from mpc.ot.leaves import NONCE_BYTES, Leaves
from mpc.ot.trees import grow_leaves, grow_leaves_but_one, sums_bytes
from mpc.transport import CHUNK_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.ot.pairs import Pairs
    from mpc.party import Party

    Bytes = NDArray[np.uint8]

DEPTH = 3  # measured, see Prover.extend
# Elements that are worked on at a time, in bytes; pads of one tree then stay in the cache.
_STRETCH_BYTES = 1 << 15
# Corrections of one message at most.
_MESSAGE_BYTES = CHUNK_BYTES
# How many messages the prover may be ahead, and how often the holder says where it is.
_WINDOW = 16
_TURN = 8


class Correlated:
    """Sets up both ends of a pair, once for each direction and field."""

    @classmethod
    async def prove_setup(cls, scope: Party, pairs: Pairs, other: int, field: Field) -> Prover:
        """Become the prover, while ``other`` becomes the holder.

        Parameters
        ----------
        scope : Party
            A scope of this set-up's own, named alike at both ends; both directions may be set up in it.
        pairs : Pairs
        other : int
        field : Field

        Notes
        -----
        Cost: a message in each direction; ``field.bits`` transfers, in which we offer.
        """
        keys = await pairs.offer_keys(scope, other, field.bits)
        leaves, sums = grow_leaves(keys, DEPTH, scope.path.encode())
        await scope.send(other, _sums_step(scope), sums, scope.cost_of("transfers"))
        return Prover(other, field, leaves)

    @classmethod
    async def hold_setup(cls, scope: Party, pairs: Pairs, other: int, field: Field, delta: FieldArray) -> Holder:
        """Become the holder of ``delta``, one element of any shape, while ``other`` becomes the prover.

        See :meth:`prove_setup`.

        Raises
        ------
        PeerError
            The prover sent what are no sums of trees.
        """
        bits = _bits(field, delta)
        keys = await pairs.choose_keys(scope, other, bits)
        sums = await scope.transport.receive(other, _sums_step(scope), sums_bytes(DEPTH, field.bits))
        leaves = grow_leaves_but_one(bits, keys, DEPTH, scope.path.encode(), sums)
        return Holder(other, field, leaves, bits)


class Prover:
    """The end that brings elements.

    Parameters
    ----------
    other : int
        The holder's rank.
    field : Field
    leaves : sequence of numpy.ndarray
        For each digit of Delta, from the first, the keys of all leaves: uint8, shape ``(2^depth, 16)``.
    """

    def __init__(self, other: int, field: Field, leaves: Sequence[Bytes]) -> None:
        self.other = other
        self.field = field
        self._leaves = Leaves(leaves, missing=0)
        self._loops = loops_of(field)
        self._nonces: set[bytes] = set()

    async def extend(self, scope: Party, values: FieldArray) -> FieldArray:
        """Bring elements; return our summands M.

        Parameters
        ----------
        scope : Party
            A scope of its own, named alike at both ends; both directions may use it, each once. The holder extends by
            as many elements there.
        values : FieldArray
            Shape ``(n,)``: x.

        Returns
        -------
        FieldArray
            Shape ``(n,)``.

        Raises
        ------
        RuntimeError
            A scope that was used before: its streams would be used again.

        Notes
        -----
        Cost: no round, for nothing is waited for but that the holder keeps up. Bytes: one element for each element and
        digit (688 bytes an element of F127, 168 of F61), in messages of up to 240 KiB. Processor time, of one core of a
        2023 Xeon with wide AES instructions, for each element and bit of Delta, to which each call adds some 0.4 ms, or
        2 ms where it brings more than 2^12 elements:

        ===== ===== ===== ====== ======
        DEPTH field bytes prover holder
        ===== ===== ===== ====== ======
        1     F127  16    8 ns   5 ns
        2     F127  8.1   6 ns   5 ns
        3     F127  5.4   6 ns   5 ns
        4     F127  4.0   8 ns   7 ns
        3     F61   2.8   9 ns   7 ns
        ===== ===== ===== ====== ======

        TLS takes 1.7 ns a byte at both ends together, so that 3 costs least there.
        """
        if values.ndim != 1:
            raise ValueError(f"elements of shape (n,) are brought, not {values.shape}")
        field, cost = self.field, scope.cost_of("transfers")
        streams = self._leaves.open(_nonce(scope, self._nonces), len(values))
        summands = np.empty(values.shape, field.dtype)
        number = 0
        for part in _stretches(len(values), field):
            ours = np.ascontiguousarray(values[part])
            sums = field.zeros(len(ours))
            for trees in _messages(len(self._leaves), len(ours), field):
                corrections = np.empty((len(trees), len(ours)), field.dtype)
                for row, tree in zip(corrections, trees, strict=True):
                    pads = streams.read(tree, part.start, len(ours))
                    sums = self._loops.prove(pads, ours, sums, row)
                if number >= _WINDOW and number % _TURN == 0:
                    await scope.transport.receive(self.other, _turn_step(scope, number - _WINDOW), 0)
                await scope.send(self.other, _corrections_step(scope, number), field.to_bytes(corrections), cost)
                number += 1
                await asyncio.sleep(0)  # others have their turn
            copy_into(summands[part], sums)
        return summands

    def __repr__(self) -> str:
        return f"Prover({self.field}, other={self.other})"


class Holder:
    """The end that has Delta.

    Parameters
    ----------
    other : int
        The prover's rank.
    field : Field
    leaves : sequence of numpy.ndarray
        For each digit of Delta the keys of the leaves, in the order of ``y ^ digit``: the first is none.
    bits : numpy.ndarray
        uint8, shape ``(field.bits,)``: those of Delta, least first. Secret.
    """

    def __init__(self, other: int, field: Field, leaves: Sequence[Bytes], bits: Bytes) -> None:
        self.other = other
        self.field = field
        self._leaves = Leaves(leaves, missing=1)
        starts = np.cumsum([len(keys).bit_length() - 1 for keys in leaves])[:-1]
        self._digits = np.split(bits, starts)
        self._loops = loops_of(field)
        self._nonces: set[bytes] = set()

    async def extend(self, scope: Party, count: int) -> FieldArray:
        """Return our summands ``K = M + Delta x`` for so many elements of the prover's, shape ``(count,)``.

        See :meth:`Prover.extend`.

        Raises
        ------
        PeerError
            The prover sent what are no corrections.
        """
        field, cost = self.field, scope.cost_of("transfers")
        streams = self._leaves.open(_nonce(scope, self._nonces), count)
        summands = np.empty(count, field.dtype)
        number = 0
        parts = _stretches(count, field)
        messages = sum(len(_messages(len(self._leaves), part.stop - part.start, field)) for part in parts)
        for part in parts:
            length = part.stop - part.start
            sums = field.zeros(length)
            for trees in _messages(len(self._leaves), length, field):
                corrections = await self._receive(scope, number, (len(trees), length))
                for row, tree in zip(corrections, trees, strict=True):
                    pads = streams.read(tree, part.start, length)
                    sums = self._loops.hold(pads, row, self._digits[tree], sums)
                if number % _TURN == 0 and number + _WINDOW < messages:
                    await scope.send(self.other, _turn_step(scope, number), b"", cost)
                number += 1
                await asyncio.sleep(0)  # others have their turn
            copy_into(summands[part], sums)
        return summands

    async def _receive(self, scope: Party, number: int, shape: tuple[int, int]) -> FieldArray:
        step = _corrections_step(scope, number)
        data = await scope.transport.receive(self.other, step, shape[0] * shape[1] * self.field.element_bytes)
        try:
            return self.field.from_bytes(data, shape)
        except ValueError as error:
            raise PeerError(
                f"party {self.other} sent no valid corrections at step {step!r}: {error}", rank=self.other, step=step
            ) from None

    def __repr__(self) -> str:
        return f"Holder({self.field}, other={self.other})"


# ---- messages -------------------------------------------------------------------------------------------------------


def _nonce(scope: Party, used: set[bytes]) -> bytes:
    """Return the first block of a scope's streams, less its counter.

    It is kept, not the path: whoever may name scopes finds two that share it by 2^48 hashes, and they end in an error.
    """
    nonce = hashlib.blake2b(scope.path.encode(), digest_size=NONCE_BYTES, person=b"svoce.correlate").digest()
    if nonce in used:
        raise RuntimeError(f"elements were correlated in the scope {scope.path!r} before, or in one with its streams")
    used.add(nonce)
    return nonce


def _stretches(count: int, field: Field) -> list[slice]:
    most = _STRETCH_BYTES // field.element_bytes
    return [slice(start, min(start + most, count)) for start in range(0, count, most)]


def _messages(trees: int, length: int, field: Field) -> list[range]:
    """Return the trees, from the last down to the first, whose corrections for a stretch go into each message."""
    most = max(1, _MESSAGE_BYTES // (length * field.element_bytes))
    return [range(last, max(last - most, -1), -1) for last in range(trees - 1, -1, -most)]


def _corrections_step(scope: Party, number: int) -> str:
    return f"{scope.path}/corrections.{number}"


def _turn_step(scope: Party, number: int) -> str:
    return f"{scope.path}/turn.{number}"


def _sums_step(scope: Party) -> str:
    return f"{scope.path}/corrections.0"


def _bits(field: Field, delta: FieldArray) -> Bytes:
    if delta.size != 1:
        raise ValueError(f"Delta is one element, not an array of shape {delta.shape}")
    return np.unpackbits(np.frombuffer(field.to_bytes(delta), np.uint8), count=field.bits, bitorder="little")
