"""Keys of lattice-based encryption between parties, and polynomials as messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpc.errors import PeerError
from mpc.ot.lattice import OwnKey, PublicKey
from mpc.ot.rings import RESIDUE_BYTES
from mpc.prg import SEED_BYTES
from mpc.transport import CHUNK_BYTES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mpc.ot.rings import Coins, Ring
    from mpc.party import Party

    Words = NDArray[np.uint64]


class Seat:
    """Our key for one ring, and the others'; each is sent when it is needed first, once."""

    def __init__(self, ring: Ring, coins: Coins) -> None:
        self.ring = ring
        self.own = OwnKey(ring, coins)
        self._sent: set[int] = set()
        self._known: dict[int, PublicKey] = {}
        self._waiting: dict[int, asyncio.Lock] = {}

    @property
    def _step(self) -> str:
        return f"lattice/{self.ring.field}-{self.ring.degree}/key"

    async def send_to(self, party: Party, other: int) -> None:
        """Send our public key where it has not been sent."""
        if other not in self._sent:
            self._sent.add(other)
            public = self.own.public
            await send(party, other, self._step, public.seed + self.ring.to_bytes(public.b))

    async def key_of(self, party: Party, other: int) -> PublicKey:
        """Return another's public key, once it is here; several may ask at a time."""
        async with self._waiting.setdefault(other, asyncio.Lock()):
            if other not in self._known:
                level = len(self.ring.primes)
                seed, (b,) = await receive(party, other, self._step, self.ring, level, [self.ring.degree], SEED_BYTES)
                self._known[other] = PublicKey(self.ring, seed, b)
        return self._known[other]

    def __repr__(self) -> str:
        return f"Seat({self.ring})"


# ---- messages -------------------------------------------------------------------------------------------------------


async def send(party: Party, other: int, step: str, data: bytes) -> None:
    """Send bytes in pieces that fit a message each, ``step.0``, ``step.1`` and so on."""
    cost, view = party.cost_of("lattice"), memoryview(data)
    for number, start in enumerate(range(0, len(view), CHUNK_BYTES)):
        await party.send(other, f"{step}.{number}", view[start : start + CHUNK_BYTES], cost)


async def receive(
    party: Party, other: int, step: str, ring: Ring, level: int, lengths: Sequence[int], extra: int = 0
) -> tuple[bytes, list[Words]]:
    """Receive what :func:`send` sends: ``extra`` bytes, and arrays of so many residues of each prime.

    Raises
    ------
    PeerError
        Other lengths, or a residue that is not below its prime.
    """
    sizes = [level * length * RESIDUE_BYTES for length in lengths]
    size = extra + sum(sizes)
    pieces = [
        await party.transport.receive(other, f"{step}.{number}", min(CHUNK_BYTES, size - start))
        for number, start in enumerate(range(0, size, CHUNK_BYTES))
    ]
    data = b"".join(pieces)
    found, start = [], extra
    for part in sizes:
        try:
            found.append(ring.from_bytes(data[start : start + part], level))
        except ValueError as error:
            raise PeerError(
                f"party {other} sent no polynomial at step {step!r}: {error}", rank=other, step=step
            ) from None
        start += part
    return data[:extra], found
