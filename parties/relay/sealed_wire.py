"""A wire whose messages are sealed for the peer: what a link uses where a relay stands in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from parties.relay.sealed import DATA, PING, PONG, Keys, SealError
from parties.wire import Wire


class SealedWire:
    """What :class:`parties.wire.Wire` is to a link, with the peer at the far end of a relay.

    Messages, and pings and their answers, are sealed from end to end. Closing is not: a close frame ends
    our connection to the relay, which then ends the peer's. That a close was seen says nothing about what
    has arrived, and a relay can close when it likes; what must not be lost needs a goodbye of its own.

    Nothing is reported before :meth:`start`, so that whoever asked for the wire has it first.

    Parameters
    ----------
    wire : Wire
        Our connection to the relay, which hands :meth:`take` what it receives and :meth:`lost` its end.
    keys : Keys
        What the handshake gave.
    on_message, on_lost : callable
        As for ``Wire``.
    """

    def __init__(
        self,
        wire: Wire,
        keys: Keys,
        *,
        on_message: Callable[[bytes | bytearray], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._wire = wire
        self._seal = keys.seal.seal
        self._open = keys.unseal.open
        self._on_message = on_message
        self._on_lost = on_lost
        self._early: list[bytes] | None = []
        self._lost_early: tuple[Exception | None] | None = None
        self._loop = asyncio.get_running_loop()
        self.release: Callable[[], object] = _nothing  # called when the connection is gone
        # When the peer, not only the relay, last gave a sign of life.
        self.last_heard = self._loop.time()
        # What was read together with the handshake's end may still come; no more than one read.
        wire.pause_reading()

    def start(self) -> None:
        """Begin to report messages."""
        early, self._early = self._early, None
        for message in early or ():
            self._on_message(message)
        if self._lost_early is not None:
            self._on_lost(*self._lost_early)
        else:
            self._wire.resume_reading()

    # ---- writing --------------------------------------------------------------------------------

    def write(self, head: bytes, payload: bytes | memoryview | bytearray = b"") -> None:
        """Write one message made of two parts; never waits."""
        start, sealed = self._seal(DATA, b"".join((head, payload)))
        self._wire.write(start, sealed)

    @property
    def congested(self) -> bool:
        """Whether the peer, the relay or the network does not keep up."""
        return self._wire.congested

    async def drain(self) -> None:
        """Wait until the peer keeps up again, or there is no point in it any more."""
        await self._wire.drain()

    def give_up(self) -> None:
        """End all waiting for the peer to keep up."""
        self._wire.give_up()

    def ping(self) -> None:
        """Ask the peer for a sign of life; the relay cannot give it."""
        self._control(PING)

    def _control(self, kind: int) -> None:
        start, sealed = self._seal(kind, b"")
        self._wire.write(start, sealed)

    # ---- closing --------------------------------------------------------------------------------

    def say_close(self) -> None:
        """Send a close frame to the relay, after which we send nothing."""
        self._wire.say_close()

    def close(self) -> None:
        """Close the connection once what was written has been sent to the relay."""
        self._wire.close()

    def fail(self, fault: Exception) -> None:
        """Report a fault, take nothing more, and close the connection after what was written."""
        self._wire.fail(fault)

    def drop(self) -> None:
        """Close the connection at once, whatever was not yet sent."""
        self._wire.drop()

    @property
    def closed(self) -> asyncio.Future[None]:
        """Resolved when the connection is gone."""
        return self._wire.closed

    @property
    def close_seen(self) -> asyncio.Future[None]:
        """Resolved when the relay's close frame came, or the connection is gone."""
        return self._wire.close_seen

    # ---- reading --------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Leave what comes in the network's buffers, so that the peer has to wait."""
        self._wire.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._wire.resume_reading()

    def take(self, message: bytes | bytearray) -> None:
        """Open a message of the peer; one that does not open ends the connection."""
        try:
            kind, content = self._open(message)
            if kind != DATA and (content or kind not in (PING, PONG)):
                raise SealError("a sealed message out of turn")
        except SealError as error:
            self._wire.fail(error)
            return
        self.last_heard = self._loop.time()
        if kind == DATA:
            if self._early is None:
                self._on_message(content)
            else:
                self._early.append(content)
        elif kind == PING and not self._wire.congested:
            # Who does not read our answers gets none: they would pile up.
            self._control(PONG)

    def lost(self, fault: Exception | None) -> None:
        """Report that the connection is gone."""
        if self._early is None:
            self._on_lost(fault)
        else:
            self._lost_early = (fault,)

    # ---- counting -------------------------------------------------------------------------------

    @property
    def bytes_sent(self) -> int:
        """Bytes towards the relay, with all that is added on the way there."""
        return self._wire.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Bytes from the relay, with all that was added."""
        return self._wire.bytes_received

    def count_received(self, message: bytes | bytearray) -> None:
        """Count a message as received."""
        self._wire.count_received(message)


def _nothing() -> None:
    """Release nothing."""
