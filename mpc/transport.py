"""What the protocols need of a network: send bytes to a rank, receive bytes from a rank.

Two implementations pass the same tests: :mod:`mpc.memory` and the WebSocket mesh of ``parties``.
"""

from __future__ import annotations

from typing import Protocol

from mpc.errors import PeerError

Buffer = bytes | bytearray | memoryview

# A message of this size fills one frame of 256 KiB, header included.
CHUNK_BYTES = 240 * 1024


class Transport(Protocol):
    """Authenticated, private, ordered links from us to every other party.

    There is one message for each sender and step label. A second one is an error. Messages may
    arrive before they are asked for; how many bytes may wait is bounded, so that protocols keep
    their messages small (:data:`CHUNK_BYTES`) and receive as they send.
    """

    @property
    def rank(self) -> int:
        """Our own rank."""

    @property
    def size(self) -> int:
        """Number of parties; a dealer, where there is one, has this number as its rank."""

    async def send(self, to: int, step: str, data: Buffer) -> None:
        """Send one message; suspends only under back-pressure.

        The buffer is not copied, and may be sent again long after this has returned: it is not to be
        changed any more.
        """

    async def receive(self, frm: int, step: str, size: int) -> Buffer:
        """Receive the message of exactly ``size`` bytes; anything else raises ``PeerError``."""

    async def receive_upto(self, frm: int, step: str, limit: int) -> Buffer:
        """Receive a message of at most ``limit`` bytes."""

    async def abort(self, type_name: str, text: str) -> None:
        """Tell all peers that we stop, and why; the text holds no data."""

    async def close(self) -> None:
        """Say goodbye and close the links."""


def check_size(message: Buffer, size: int, *, rank: int, step: str) -> None:
    """Refuse a message of the wrong length, at the edge."""
    if len(message) != size:
        raise PeerError(
            f"party {rank} sent {len(message)} bytes at step {step!r} where {size} were due", rank=rank, step=step
        )
