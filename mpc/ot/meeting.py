"""Joining by oblivious transfer: each pair of parties makes its base transfers, and from them both extensions.

The party of lower rank is the sender of 128 base transfers, and so the chooser of a first extension. The first 128
transfers of that serve as base transfers in the other direction, so that public-key operations are made once a pair.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mpc.errors import PeerError
from mpc.ot import base
from mpc.ot.checking import PROOF_BYTES, SACRIFICED, Transcript
from mpc.ot.ends import ChooserEnd, OffererEnd, extension_of, keys_of
from mpc.ot.extension import (
    BITS,
    DEPTH,
    Chooser,
    Offerer,
    base_keys,
    base_pairs,
    corrections_bytes,
    sums_bytes,
)
from mpc.ot.hashing import KEY_BYTES, Hash
from mpc.ot.link import Link
from mpc.ot.pairs import Pairs
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.party import Party
    from mpc.transport import Buffer, Transport


async def meet(transport: Transport, sessions: Mapping[int, bytes], *, malicious: bool = False) -> Pairs:
    """Make our ends with each other party.

    Parameters
    ----------
    transport : Transport
    sessions : mapping of int to bytes
        For each other party a name of this meeting, fresh and the same at both.
    malicious : bool
        Whether others may be dishonest, the same at all parties: extensions are checked, from the first one on, which
        the base transfers of the other direction come from, and pads are made with a tweaked hash.

    Returns
    -------
    Pairs

    Raises
    ------
    PeerError
        A party sent what is no base transfer, or an extension that fails its check.

    Notes
    -----
    Cost for each pair: 3 messages after one another; about 20 kB (24 kB if checked); 128 base transfers
    (:mod:`mpc.ot.base`), about 60 ms of computing at each end.
    """
    async with side_by_side() as group:
        tasks = [group.create_task(_meet(transport, other, session, malicious)) for other, session in sessions.items()]
    ends = [task.result() for task in tasks]
    return Pairs([chooser for chooser, _ in ends], [offerer for _, offerer in ends])


async def _meet(transport: Transport, other: int, session: bytes, malicious: bool) -> tuple[ChooserEnd, OffererEnd]:
    said: dict[str, bytes] = {}
    link = _recorded(Link.of(transport, other, session, "join/ot"), said)
    upward, downward = (_Names(session, way, malicious) for way in ("upward", "downward"))
    count = BITS + SACRIFICED if malicious else BITS
    if transport.rank < other:
        # 1. We choose in the first extension; its first transfers make us the offerer of the second.
        chooser, sums = Chooser.from_keys(await base.send(link, BITS), DEPTH, upward.session)
        above = upward.transcript(said, sums)
        message, choices, keys = extension_of(chooser, count, above)
        await link.send("trees", sums + message)
        sums = bytes(await link.receive("trees back", sums_bytes(DEPTH)))
        offerer = Offerer.from_keys(choices, base_keys(upward.hashed, 0, keys), DEPTH, downward.session, sums)
        below = downward.transcript(said)
        return ChooserEnd(other, chooser, upward.hashed, above), OffererEnd(other, offerer, downward.hashed, below)
    # 2. The same from the other end. We say nothing that depends on the first extension before it has passed.
    choices = np.frombuffer(secrets.token_bytes(BITS), np.uint8) & np.uint8(1)
    secret = await base.receive(link, choices)
    size = sums_bytes(DEPTH)
    before = dict(said)
    message = bytes(
        await link.receive("trees", size + corrections_bytes(count, DEPTH) + (PROOF_BYTES if malicious else 0))
    )
    offerer = Offerer.from_keys(choices, secret, DEPTH, upward.session, message[:size])
    above = upward.transcript(before, message[:size])
    try:
        keys = keys_of(offerer, message[size:], above)
    except ValueError as error:
        step = link.step("trees")
        raise PeerError(f"party {other} {error}, at step {step!r}", rank=other, step=step) from None
    chooser, sums = Chooser.from_keys(base_pairs(upward.hashed, 0, keys, offerer.delta), DEPTH, downward.session)
    await link.send("trees back", sums)
    below = downward.transcript(said)
    return ChooserEnd(other, chooser, downward.hashed, below), OffererEnd(other, offerer, upward.hashed, above)


async def meet_again(
    scope: Party, pairs: Pairs, other: int, choices: NDArray[np.uint8]
) -> tuple[ChooserEnd, OffererEnd]:
    """Make one more extension in each direction, checked, in which the offerer chooses its delta.

    Parameters
    ----------
    scope : Party
        A scope of this one call's own, named alike at both ends; steps of the new extensions are called after it.
    pairs : Pairs
        Of a malicious meeting.
    other : int
    choices : numpy.ndarray
        uint8, shape ``(128,)``, zeros and ones: the bits of our delta, least first. Secret.

    Returns
    -------
    ChooserEnd
        The other party has the delta that it chose.
    OffererEnd
        Ours is what we chose.

    Notes
    -----
    Cost: 128 transfers each way, which are the base transfers, and one message more.
    """
    async with side_by_side() as group:
        both = group.create_task(pairs.offer_keys(scope, other, BITS))
        chosen = group.create_task(pairs.choose_keys(scope, other, choices))
    step = f"{scope.path}/trees"
    # What the other party gets of us depends on its base keys, which come from the end in which it is the chooser.
    theirs, ours = (_Names.of(end, scope.path) for end in reversed(pairs.ends(other)))
    chooser, sent = Chooser.from_keys(both.result(), DEPTH, theirs.session)
    await scope.send(other, step, sent, scope.cost_of("transfers"))
    sums = bytes(await scope.transport.receive(other, step, sums_bytes(DEPTH)))
    offerer = Offerer.from_keys(choices, chosen.result(), DEPTH, ours.session, sums)
    return (
        ChooserEnd(other, chooser, theirs.hashed, theirs.transcript({}, sent), scope.path),
        OffererEnd(other, offerer, ours.hashed, ours.transcript({}, sums), scope.path),
    )


class _Names:
    """What separates one direction of one pair's transfers from all others."""

    def __init__(self, session: bytes, way: str, malicious: bool) -> None:
        self.session = hashlib.blake2b(session, digest_size=32, person=f"svoce.{way}".encode()).digest()
        key = hashlib.blake2b(self.session, digest_size=KEY_BYTES, person=b"svoce.pads").digest()
        self.hashed = Hash(key, tweaked=malicious)
        self._malicious = malicious

    @classmethod
    def of(cls, end: ChooserEnd | OffererEnd, path: str) -> _Names:
        """Return names for an extension whose base transfers come from checked ones, with all that those rest on."""
        if end.transcript is None:
            raise ValueError("extensions are added to checked ones")
        return cls(end.transcript.start + path.encode(), "again", malicious=True)

    def transcript(self, said: Mapping[str, bytes], *more: bytes) -> Transcript | None:
        """Return a transcript of these messages, all of either end; None where nothing is checked."""
        if not self._malicious:
            return None
        return Transcript(self.session, *(said[step] for step in sorted(said)), *more)


def _recorded(link: Link, said: dict[str, bytes]) -> Link:
    """Return a link that notes what is said at each step, by whoever says it: the same at both ends."""

    async def send(step: str, data: Buffer) -> None:
        said[step] = bytes(data)
        await link.send(step, data)

    async def receive(step: str, size: int) -> Buffer:
        data = await link.receive(step, size)
        said[step] = bytes(data)
        return data

    return replace(link, send=send, receive=receive)
