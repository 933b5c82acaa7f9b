"""One connection of a link, from its first message to its end.

Each side's first message is its hello, and nobody says more before having heard the other's: only then
is known what the other one lacks. Where a connection was dialled, the dialling side speaks first; at a
relay, the side that answered the handshake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parties.link import Link
    from parties.wire import MessageWire


class Line:
    """Hands what a connection brings to its link, as long as it is the link's connection.

    Parameters
    ----------
    peer : int
        Rank of the peer, whose certificate was checked.
    on_hello : callable
        ``on_hello(line, message)`` gets the first message, and attaches the line or refuses it.
    on_lost : callable
        ``on_lost(link, fault)`` is told when the connection is gone while it was the link's.

    Attributes
    ----------
    speaker : Link or None
        The link for which we have said hello on this line.
    spoken : int
        How many hellos that link had said by then.
    greeted : asyncio.Future
        Resolved by the peer's hello: with None if the line was attached, else with the reason.
    """

    def __init__(
        self,
        peer: int,
        on_hello: Callable[[Line, bytes | bytearray], None],
        on_lost: Callable[[Link, Exception | None], None],
    ) -> None:
        self.peer = peer
        self.speaker: Link | None = None
        self.spoken = 0
        self.greeted: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._on_hello = on_hello
        self._on_lost = on_lost
        self._wire: MessageWire | None = None
        self._link: Link | None = None
        self._over = False
        self._lost = False

    def begin(self, wire: MessageWire, speaker: Link | None) -> None:
        """Begin to talk: first of both for ``speaker``, or else when the peer has spoken."""
        self._wire = wire
        if self._lost:
            return
        if speaker is not None:
            self.speaker = speaker
            wire.write(speaker.hello())
            self.spoken = speaker.spoken

    @property
    def wire(self) -> MessageWire:
        """The connection."""
        if self._wire is None:
            raise RuntimeError("the line has not begun")
        return self._wire

    def on_message(self, message: bytes | bytearray) -> None:
        """Take one message from the connection."""
        link = self._link
        if link is not None:
            link.on_message(message)
        elif self._over:
            pass
        elif self._wire is not None:
            self._on_hello(self, message)
        else:
            self.refuse("it spoke out of turn")

    def attached(self, link: Link) -> None:
        """Become the connection of a link."""
        self._link = link
        if not self.greeted.done():
            self.greeted.set_result(None)

    def refuse(self, reason: str) -> None:
        """Take nothing from this connection."""
        self._over = True
        if not self.greeted.done():
            self.greeted.set_result(reason)

    @property
    def refused(self) -> bool:
        """Whether nothing is taken from this connection, or not any more."""
        return self._over

    def cut(self) -> None:
        """End the connection, which is not the link's any more."""
        self._link = None
        self._over = True
        if not self._lost:
            self.wire.give_up()
            self.wire.drop()

    def on_lost(self, fault: Exception | None) -> None:
        """Take note that the connection is gone."""
        self._lost = True
        link = self._link
        if link is not None:
            self._on_lost(link, fault)
        else:
            self.refuse("it closed the connection")
