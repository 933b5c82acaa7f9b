"""Random transfers in stock between two parties: the end that has one key of each, and the end that has both.

They come from the extension in blocks, and are taken from the front: the chooser says where it took them. Each is used
once; both ends keep account.

Where parties may be dishonest, ends have a transcript: then each extension comes with a proof of its consistency
(:mod:`mpc.ot.checking`), no key is in stock before it has passed, and an end that has refused one gives no more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mpc.errors import PeerError
from mpc.ot import checking
from mpc.ot._native import loops
from mpc.ot.extension import most_transfers
from mpc.transport import CHUNK_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.ot.checking import Transcript
    from mpc.ot.extension import Chooser, Offerer
    from mpc.ot.hashing import Hash
    from mpc.ot.pads import Keys
    from mpc.party import Party
    from mpc.transport import Buffer

# The stock grows by blocks, from the first size to the last, so that a small computation makes few transfers.
_FIRST_BLOCK = 1 << 12
_PLACE_BYTES = 8
_MOST_TRANSFERS = 1 << 48
# Where the chooser may be dishonest, so many transfers are kept that were made and not yet named: 570 MB of keys.
_MOST_STOCK = 1 << 25


class _Block(NamedTuple):
    """Transfers of one extension: where they begin, the chooser's random bits (or what is spent), the keys."""

    first: int
    bits: NDArray[np.uint8]
    keys: NDArray[np.uint64]

    @property
    def stop(self) -> int:
        return self.first + len(self.bits)

    def cut(self, first: int, count: int) -> _Block:
        """Return those of the transfers from ``first`` on that are in this block, as views."""
        start = max(first, self.first)
        part = slice(start - self.first, max(start, min(first + count, self.stop)) - self.first)
        return _Block(start, self.bits[part], self.keys[part])


def _joined(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class ChooserEnd:
    """Random transfers in which we have one key of two.

    Parameters
    ----------
    other : int
        The offerer's rank.
    chooser : Chooser
    hashed : Hash
        What makes pads of keys; the same at the other end.
    transcript : Transcript, optional
        Of all that was said up to now, where extensions are checked.
    name : str
        What steps of extensions are called after, where a pair of parties has several such ends.
    """

    def __init__(
        self, other: int, chooser: Chooser, hashed: Hash, transcript: Transcript | None = None, name: str = "transfers"
    ) -> None:
        self.other = other
        self.hashed = hashed
        self._chooser = chooser
        self.transcript = transcript
        self._name = name
        self._blocks: deque[_Block] = deque()
        self._next = self._made = chooser.position
        self._extensions = 0
        self._growing = _FIRST_BLOCK
        self._last = most_transfers(chooser.k, CHUNK_BYTES - (checking.PROOF_BYTES if transcript else 0))

    async def take(self, party: Party, count: int) -> tuple[int, NDArray[np.uint8], NDArray[np.uint64]]:
        """Take transfers: the number of the first, our random bits and our keys."""
        missing = self._next + count - self._made
        messages = []
        while missing > 0:
            size = self._growing
            self._growing = min(2 * size, self._last)
            message, bits, keys = extension_of(self._chooser, size, self.transcript)
            self._blocks.append(_Block(self._made, bits, keys))
            self._made += len(bits)
            missing -= len(bits)
            messages.append((self._extensions, message))
            self._extensions += 1
        first = self._next
        self._next += count
        parts = [block.cut(first, count) for block in self._blocks if block.first < self._next]
        while self._blocks and self._blocks[0].stop <= self._next:
            self._blocks.popleft()
        bits, keys = _joined([part.bits for part in parts]), _joined([part.keys for part in parts])
        for number, message in messages:
            await party.send(self.other, f"{self._name}/extension {number}", message, party.cost_of("transfers"))
        return first, bits, keys

    async def choose(self, scope: Party, step: str, bits: NDArray[np.uint8]) -> tuple[int, NDArray[np.uint64]]:
        """Take transfers and tell our bits of them: the number of the first, and our keys."""
        first, random, keys = await self.take(scope, bits.size)
        message = first.to_bytes(_PLACE_BYTES, "little") + np.packbits(bits ^ random, bitorder="little").tobytes()
        await scope.send(self.other, step, message, scope.cost_of("transfers"))
        return first, keys

    def __repr__(self) -> str:
        return f"ChooserEnd(other={self.other})"


class OffererEnd:
    """Random transfers in which we have both keys: those that were sent, and these xor delta.

    Where extensions are checked, keys are in stock only after their extension has passed. When one has failed, nothing
    is taken any more.
    """

    def __init__(
        self, other: int, offerer: Offerer, hashed: Hash, transcript: Transcript | None = None, name: str = "transfers"
    ) -> None:
        self.other = other
        self.hashed = hashed
        self._offerer = offerer
        self.transcript = transcript
        self._name = name
        self._failed: PeerError | None = None
        self._blocks: deque[_Block] = deque()
        self._made = offerer.position
        self._extensions = 0
        self._extending = asyncio.Lock()
        self._loops = loops()

    async def take(self, party: Party, first: int, count: int, flips: NDArray[np.uint8], step: str) -> Keys:
        """Return both keys of the transfers that the chooser names, swapped where it says so, in packed bits.

        Shape ``(2, count, 2)``.
        """
        if first + count > _MOST_TRANSFERS:
            raise PeerError(f"party {self.other} names no transfers at step {step!r}", rank=self.other, step=step)
        async with self._extending:
            while self._made < first + count:
                await self._extend(party)
            self._require_sound()
        parts = [part for block in self._blocks if len((part := block.cut(first, count)).bits)]
        # Bits of our blocks are zeros and ones, which numpy looks through faster as booleans.
        if sum(len(part.bits) for part in parts) != count or any(part.bits.view(bool).any() for part in parts):
            raise PeerError(
                f"party {self.other} names transfers that were used before, at step {step!r}",
                rank=self.other,
                step=step,
            )
        for part in parts:
            part.bits[:] = 1
        while self._blocks and self._blocks[0].bits.view(bool).all():
            self._blocks.popleft()
        keys = _joined([part.keys for part in parts])
        both: Keys = self._loops.both(keys, flips, self._offerer.delta)
        return both

    async def offer(self, scope: Party, step: str, count: int) -> tuple[int, Keys]:
        """Hear which transfers the chooser takes, and its bits: the number of the first, and both keys in its order."""
        message = await scope.transport.receive(self.other, step, _PLACE_BYTES + -(-count // 8))
        first = int.from_bytes(message[:_PLACE_BYTES], "little")
        flips = np.frombuffer(message, np.uint8, offset=_PLACE_BYTES)
        return first, await self.take(scope, first, count, flips, step)

    async def _extend(self, party: Party) -> None:
        self._require_sound()
        step = f"{self._name}/extension {self._extensions}"
        message = await party.transport.receive_upto(self.other, step, CHUNK_BYTES)
        try:
            if self.transcript is not None and sum(len(block.bits) for block in self._blocks) >= _MOST_STOCK:
                raise ValueError("names more transfers than are kept in stock")
            keys = keys_of(self._offerer, message, self.transcript)
        except ValueError as error:
            self._failed = PeerError(f"party {self.other} {error}, at step {step!r}", rank=self.other, step=step)
            if party.guard is not None:
                party.guard.stop()  # nor a second guess
            raise self._failed from None
        self._blocks.append(_Block(self._made, np.zeros(len(keys), np.uint8), keys))
        self._made += len(keys)
        self._extensions += 1

    def _require_sound(self) -> None:
        if self._failed is not None:
            raise PeerError(str(self._failed), rank=self._failed.rank, step=self._failed.step)

    def __repr__(self) -> str:
        return f"OffererEnd(other={self.other})"


def extension_of(
    chooser: Chooser, count: int, transcript: Transcript | None
) -> tuple[bytes, NDArray[np.uint8], NDArray[np.uint64]]:
    """Make transfers as the chooser: what to send, our random bits, our keys.

    With a transcript the message has a proof (:mod:`mpc.ot.checking`), and there are 256 fewer transfers.
    """
    message, packed, keys = chooser.extend(count)
    bits = np.unpackbits(packed, count=count, bitorder="little")
    if transcript is None:
        return message, bits, keys
    kept = count - checking.SACRIFICED
    answer = checking.proof(transcript.challenge(message), packed, keys, rows=chooser.rows(count))
    return message + answer, bits[:kept], keys[:kept]


def keys_of(offerer: Offerer, message: Buffer, transcript: Transcript | None) -> NDArray[np.uint64]:
    """Return our keys, as the offerer, of what the other end made with :func:`extension_of`.

    Raises
    ------
    ValueError
        What the chooser did, where the message is no extension, or does not pass the check.
    """
    view = memoryview(message)
    length = len(view) - (checking.PROOF_BYTES if transcript else 0)
    count = offerer.count_of(length) if length > 0 else 0
    if not count or (transcript and count <= checking.SACRIFICED):
        raise ValueError("sent no extension")
    keys = offerer.extend(count, view[:length])
    if transcript is None:
        return keys
    challenge, rows = transcript.challenge(view[:length]), offerer.rows(count)
    if not checking.check(challenge, keys, offerer.delta, view[length:], rows=rows):
        raise ValueError("sent an extension that fails its check: it cheats")
    return keys[: count - checking.SACRIFICED]
