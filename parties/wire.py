"""The bytes of a link: WebSocket messages over an upgraded connection (RFC 6455).

aiohttp connects, does TLS and the WebSocket handshake. From then on this protocol takes the
connection over through ``asyncio.Transport.set_protocol``, because the handshake is where aiohttp's
generality ends to be of use to us and begins to cost. Measured between three processes on two cores
(uvloop, medians of 9 taken in turn): a round of 16-byte messages takes 118 us instead of 178, the
exchange of 43 MB by each process 109 ms and 67 ms of computing instead of 138 and 88, and one sender
reaches 1370 MB/s instead of 650 (``asyncio.StreamReader`` over the same TLS: 880), because

- a ``BufferedProtocol`` lets TLS decrypt into our buffer; with a plain ``Protocol`` each record of
  16 KiB is a new object of 256 KiB that is then shrunk and joined with its neighbours;
- a message goes to whoever waits for it from the callback that read it, not over a queue and a task;
- what we send is masked with the key zero, and so needs no copy.

What it speaks is the part of RFC 6455 that two nodes need: binary messages in one piece, ping, pong,
close. Anything else fails the connection.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Protocol

BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA
_FINAL = 0x80
_MASKED = 0x80
_WHOLE_BINARY = _FINAL | BINARY
_CONTROL_BYTES = 125

_SHORT = struct.Struct(">BB")
_MEDIUM = struct.Struct(">BBH")
_LONG = struct.Struct(">BBQ")

# The mask of RFC 6455 keeps a hostile script in a browser from writing bytes of its choice to a
# careless proxy (section 10.3). Inside a TLS connection between two pinned certificates there is
# neither script nor proxy, and it protects nothing else: the key stands in front of the message.
_KEY = bytes(4)

_READ_BYTES = 256 * 1024
# A message longer than this is read into a buffer of its own, shorter ones are copied out of ours.
_SHORT_MESSAGE = 8 * 1024
_RECORD_BYTES = 16 * 1024
_RECORD_OVERHEAD = 22  # TLS 1.3: 5 bytes of header, the type, 16 bytes of tag


class WireError(Exception):
    """The peer does not speak the WebSocket protocol as we do; the text holds no data."""


class MessageWire(Protocol):
    """What a link needs of its connection; see :class:`Wire` for what each part means."""

    @property
    def closed(self) -> asyncio.Future[None]:
        """Resolved when the connection is gone."""

    @property
    def close_seen(self) -> asyncio.Future[None]:
        """Resolved when the other end said that it sends nothing more."""

    def write(self, head: bytes, payload: bytes | memoryview | bytearray = b"") -> None:
        """Write one message made of two parts; never waits."""

    @property
    def congested(self) -> bool:
        """Whether the peer or the network does not keep up."""

    @property
    def last_heard(self) -> float:
        """When the peer last gave a sign of life, on the event loop's clock."""

    @property
    def bytes_sent(self) -> int:
        """What was sent so far."""

    @property
    def bytes_received(self) -> int:
        """What was received so far."""

    async def drain(self) -> None:
        """Wait until the peer keeps up again, or there is no point in it any more."""

    def give_up(self) -> None:
        """End all waiting for the peer to keep up."""

    def ping(self) -> None:
        """Ask for a sign of life."""

    def pause_reading(self) -> None:
        """Leave what comes in the network's buffers."""

    def resume_reading(self) -> None:
        """Read on."""

    def say_close(self) -> None:
        """Say that we send nothing more."""

    def close(self) -> None:
        """Close the connection once what was written has been sent."""

    def drop(self) -> None:
        """Close the connection at once."""


class Wire(asyncio.BufferedProtocol):
    """WebSocket framing over a connection that was upgraded.

    Parameters
    ----------
    transport : asyncio.Transport
        The connection; it gets us as its protocol.
    dialled : bool
        Whether we are the client, whose messages are masked.
    limit : int
        Longest message that is taken, in bytes.
    on_message : callable
        Called with each binary message.
    on_lost : callable
        Called once, when the connection is gone, with what was wrong: ``None`` if it was closed.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        *,
        dialled: bool,
        limit: int,
        on_message: Callable[[bytes | bytearray], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._transport = transport
        self._before = transport.get_protocol()
        self._limit = limit
        self._on_message = on_message
        self._on_lost = on_lost
        self._mask_bit = _MASKED if dialled else 0
        self._key = _KEY if dialled else b""
        self._their_mask_bit = 0 if dialled else _MASKED
        self._their_key: bytes | bytearray = b"" if dialled else _KEY
        self.release: Callable[[], object] = _nothing  # called when the connection is gone
        self._fault: Exception | None = None
        self._lost = False
        self._closing = False
        self._close_heard = False
        self._loop = asyncio.get_running_loop()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.close_seen: asyncio.Future[None] = self._loop.create_future()

        # Read side: `_buffer[:_end]` is not yet parsed, unless a long message is being read.
        self._buffer = bytearray(_READ_BYTES)
        self._view = memoryview(self._buffer)
        self._end = 0
        self._long: bytearray | None = None
        self._long_view = self._view
        self._long_end = 0
        self._long_key: bytes | bytearray = b""

        # Write side.
        self._paused = False
        self._given_up = False
        self._writable: asyncio.Future[None] | None = None

        self.last_heard = self._loop.time()
        self.bytes_sent = 0
        self.bytes_received = 0

        transport.set_protocol(self)

    # ---- writing --------------------------------------------------------------------------------

    def write(self, head: bytes, payload: bytes | memoryview | bytearray = b"", opcode: int = BINARY) -> None:
        """Write one message made of two parts; never waits.

        Does nothing once the connection is gone, or we said that we close it.
        """
        if self._closing:
            return
        size = len(head) + len(payload)
        if size <= _CONTROL_BYTES:
            start = _SHORT.pack(_FINAL | opcode, self._mask_bit | size)
        elif size < 65536:
            start = _MEDIUM.pack(_FINAL | opcode, self._mask_bit | 126, size)
        else:
            start = _LONG.pack(_FINAL | opcode, self._mask_bit | 127, size)
        start += self._key
        if len(payload) <= _SHORT_MESSAGE:
            # One TLS record.
            self._transport.write(b"".join((start, head, payload)))
        else:
            # One more, rather than a copy of the payload.
            self._transport.writelines((start + head, payload))
        # Within its TLS records; what TCP and IP add is not counted.
        size += len(start)
        self.bytes_sent += size + (size // _RECORD_BYTES + 1) * _RECORD_OVERHEAD

    @property
    def congested(self) -> bool:
        """Whether the peer or the network does not keep up."""
        return self._paused

    async def drain(self) -> None:
        """Wait until the peer keeps up again, or there is no point in it any more."""
        while self._paused and not self._lost and not self._given_up:
            if self._writable is None:
                self._writable = self._loop.create_future()
            await asyncio.shield(self._writable)

    def give_up(self) -> None:
        """End all waiting for the peer to keep up."""
        self._given_up = True
        self._wake_writers()

    def _wake_writers(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.write(b"", opcode=PING)

    def say_close(self) -> None:
        """Send a close frame, after which we send nothing; the peer answers with its own and closes."""
        self.write(b"\x03\xe8", opcode=CLOSE)  # 1000: normal closure
        self._closing = True

    def close(self) -> None:
        """Close the connection once what was written has been sent."""
        self._closing = True
        self._transport.close()

    def fail(self, fault: Exception) -> None:
        """Report a fault, take nothing more, and close the connection after what was written."""
        if self._fault is None and not self._lost:
            self._fault = fault
            self._long = None
            self._report()
            self.close()

    def drop(self) -> None:
        """Close the connection at once, whatever was not yet sent."""
        self._closing = True
        if not self._lost:  # asyncio's TLS transport has lost its inside by then, up to Python 3.11.2
            self._transport.abort()

    # ---- reading --------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Leave what comes in the network's buffers, so that the peer has to wait."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if not self._lost and not self._transport.is_closing():
            self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to read to (``asyncio.BufferedProtocol``)."""
        if self._long is not None:
            return self._long_view[self._long_end :]
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read (``asyncio.BufferedProtocol``)."""
        self.last_heard = self._loop.time()
        if self._fault is not None:
            self._end = 0
            return
        try:
            if self._long is not None:
                self._long_end += nbytes
                if self._long_end == len(self._long):
                    message, self._long, self._long_view = self._long, None, self._view
                    self._deliver(_WHOLE_BINARY, self._long_key, message)
            else:
                self._end += nbytes
                self._parse()
        except WireError as error:
            self.fail(error)

    def _parse(self) -> None:
        buffer, end, position = self._buffer, self._end, 0
        while end - position >= 2 and self._fault is None:
            first, second = buffer[position], buffer[position + 1]
            size, at = second & 0x7F, position + 2
            if size == 126:
                at += 2
                size = int.from_bytes(buffer[at - 2 : at], "big")
            elif size == 127:
                at += 8
                size = int.from_bytes(buffer[at - 8 : at], "big")
            if at > end:
                break
            if first != _WHOLE_BINARY or second & _MASKED != self._their_mask_bit or size > self._limit:
                self._check_start(first, second, size)
            key = self._their_key
            if key:
                at += 4
                if at > end:
                    break
                key = buffer[at - 4 : at]
            if end - at >= size:
                position = at + size
                self._deliver(first, key, bytes(self._view[at:position]))
            elif size > _SHORT_MESSAGE:
                self._long = bytearray(size)
                self._long_view = memoryview(self._long)
                self._long_end = end - at
                self._long_key = key
                self._long_view[: end - at] = self._view[at:end]
                position = end
                break
            else:
                break
        if position < end:
            buffer[: end - position] = buffer[position:end]
        self._end = end - position

    def _check_start(self, first: int, second: int, size: int) -> None:
        opcode = first & 0x0F
        if first & 0x70 or opcode not in (BINARY, CLOSE, PING, PONG):
            raise WireError(f"a WebSocket frame of a kind that is not spoken here ({first:#04x})")
        if not first & _FINAL:
            raise WireError("a WebSocket message in pieces")
        if second & _MASKED != self._their_mask_bit:
            raise WireError("a WebSocket message of the wrong masking")
        if size > (self._limit if opcode == BINARY else _CONTROL_BYTES):
            raise WireError(f"a WebSocket message of {size} bytes")

    def _deliver(self, first: int, key: bytes | bytearray, message: bytes | bytearray) -> None:
        self.count_received(message)
        if key and key != _KEY:
            message = _unmask(message, key)
        if first == _WHOLE_BINARY:
            if not self._close_heard:
                self._on_message(message)
        elif first == _FINAL | PING:
            if not self._paused:  # who pings and does not read would fill our memory
                self.write(bytes(message), opcode=PONG)
        elif first == _FINAL | CLOSE:
            # It says that it sends nothing more, and we answer. Nothing is lost by closing then.
            self._close_heard = True
            if not self.close_seen.done():
                self.close_seen.set_result(None)
            self.say_close()
            self.close()

    def count_received(self, message: bytes | bytearray) -> None:
        """Count a message as received."""
        size = len(message)
        size += len(self._their_key) + (2 if size <= _CONTROL_BYTES else 4 if size < 65536 else 10)
        self.bytes_received += size + (size // _RECORD_BYTES + 1) * _RECORD_OVERHEAD

    # ---- the connection's life ------------------------------------------------------------------

    def pause_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._paused = True

    def resume_writing(self) -> None:
        """See ``asyncio.BaseProtocol``."""
        self._paused = False
        self._wake_writers()

    def eof_received(self) -> None:
        """See ``asyncio.Protocol``: the peer's end closes ours."""

    def connection_lost(self, exc: Exception | None) -> None:
        """See ``asyncio.BaseProtocol``; aiohttp is told too, so that it forgets the connection."""
        self._lost = self._closing = True
        self._before.connection_lost(exc)
        self.release()
        self._wake_writers()
        if not self.close_seen.done():
            self.close_seen.set_result(None)
        if self._fault is None:
            self._fault = exc
        self._report()
        if not self.closed.done():
            self.closed.set_result(None)

    def _report(self) -> None:
        report, self._on_lost = self._on_lost, _nobody
        report(self._fault)


def _nothing() -> None:
    """Release nothing."""


def _nobody(fault: Exception | None) -> None:
    """Stand in for whoever has been told already."""


def _unmask(message: bytes | bytearray, key: bytes | bytearray) -> bytes:
    size = len(message)
    mask = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(message, "little") ^ int.from_bytes(mask, "little")).to_bytes(size, "little")
