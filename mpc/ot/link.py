"""One party's end of the link to one other party, under one prefix of step labels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpc.transport import Buffer

if TYPE_CHECKING:
    from mpc.transport import Transport


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """What a protocol of two parties needs: who they are, what the session is, and how to talk.

    Attributes
    ----------
    party_rank, other : int
        Our rank and the other party's.
    session : bytes
        Public, the same at both ends, and never used for another run of the same protocol between the two: it
        separates what is hashed.
    send : callable
        ``await send(step, data)``.
    receive : callable
        ``await receive(step, size)``: a message of exactly ``size`` bytes; anything else raises ``PeerError``.
    prefix : str
        What step labels begin with.
    """

    party_rank: int
    other: int
    session: bytes = field(repr=False)
    send: Callable[[str, Buffer], Awaitable[None]] = field(repr=False)
    receive: Callable[[str, int], Awaitable[Buffer]] = field(repr=False)
    prefix: str = ""

    @classmethod
    def of(cls, transport: Transport, other: int, session: bytes, prefix: str) -> Link:
        """Return the link to another party over a transport; steps are called ``prefix/step``."""

        async def send(step: str, data: Buffer) -> None:
            await transport.send(other, f"{prefix}/{step}", data)

        async def receive(step: str, size: int) -> Buffer:
            return await transport.receive(other, f"{prefix}/{step}", size)

        return cls(transport.rank, other, session, send, receive, prefix)

    def step(self, name: str) -> str:
        """Return the whole label of a step, for errors."""
        return f"{self.prefix}/{name}" if self.prefix else name
