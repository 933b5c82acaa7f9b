"""Joining by oblivious transfer: each pair of parties makes its base transfers, and from them both extensions.

The party of lower rank is the sender of 128 base transfers, and so the chooser of a first extension. The first 128
transfers of that serve as base transfers in the other direction, so that public-key operations are made once a pair.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mpc.ot import base
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
from mpc.ot.pairs import ChooserEnd, OffererEnd, Pairs
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from mpc.transport import Transport


async def meet(transport: Transport, sessions: Mapping[int, bytes]) -> Pairs:
    """Make our ends with each other party.

    Parameters
    ----------
    transport : Transport
    sessions : mapping of int to bytes
        For each other party a name of this meeting, fresh and the same at both.

    Returns
    -------
    Pairs

    Raises
    ------
    PeerError
        A party sent what is no base transfer.

    Notes
    -----
    Cost for each pair: 3 messages after one another; about 20 kB; 128 base transfers (:mod:`mpc.ot.base`), about 60 ms
    of computing at each end.
    """
    async with side_by_side() as group:
        tasks = [group.create_task(_meet(transport, other, session)) for other, session in sessions.items()]
    ends = [task.result() for task in tasks]
    return Pairs([chooser for chooser, _ in ends], [offerer for _, offerer in ends])


async def _meet(transport: Transport, other: int, session: bytes) -> tuple[ChooserEnd, OffererEnd]:
    link = Link.of(transport, other, session, "join/ot")
    upward, downward = (_Names(session, way) for way in ("upward", "downward"))
    if transport.rank < other:
        # 1. We choose in the first extension; its first transfers make us the offerer of the second.
        chooser, sums = Chooser.from_keys(await base.send(link, BITS), DEPTH, upward.session)
        corrections, packed, keys = chooser.extend(BITS)
        await link.send("trees", sums + corrections)
        choices = np.unpackbits(packed, count=BITS, bitorder="little")
        sums = bytes(await link.receive("trees back", sums_bytes(DEPTH)))
        offerer = Offerer.from_keys(choices, base_keys(upward.hashed, 0, keys), DEPTH, downward.session, sums)
        return ChooserEnd(other, chooser, upward.hashed), OffererEnd(other, offerer, downward.hashed)
    # 2. The same from the other end.
    choices = np.frombuffer(secrets.token_bytes(BITS), np.uint8) & np.uint8(1)
    secret = await base.receive(link, choices)
    message = bytes(await link.receive("trees", sums_bytes(DEPTH) + corrections_bytes(BITS, DEPTH)))
    offerer = Offerer.from_keys(choices, secret, DEPTH, upward.session, message[: sums_bytes(DEPTH)])
    pairs = base_pairs(upward.hashed, 0, offerer.extend(BITS, message[sums_bytes(DEPTH) :]), offerer.delta)
    chooser, sums = Chooser.from_keys(pairs, DEPTH, downward.session)
    await link.send("trees back", sums)
    return ChooserEnd(other, chooser, downward.hashed), OffererEnd(other, offerer, upward.hashed)


class _Names:
    """What separates one direction of one pair's transfers from all others."""

    def __init__(self, session: bytes, way: str) -> None:
        self.session = hashlib.blake2b(session, digest_size=32, person=f"svoce.{way}".encode()).digest()
        key = hashlib.blake2b(self.session, digest_size=KEY_BYTES, person=b"svoce.pads").digest()
        self.hashed = Hash(key)
