"""Whole messages between two members through a relay, for what they say to each other beside the links."""

from __future__ import annotations

import asyncio
from collections import deque

from parties.identity import Identity
from parties.node.control import MESSAGE_BYTES, ChannelClosedError
from parties.relay.client import RelayAddress, meet
from parties.relay.sealed_wire import SealedWire

# Messages travel in parts, so that a relay need hold little: a byte that says whether more follows, and the part.
_PART_BYTES = 128 * 1024
_MORE, _LAST = b"\1", b"\0"
# What may wait to be received, before the peer has to wait.
_WAITING_BYTES = 4 * MESSAGE_BYTES
_MESSAGE_OVERHEAD = 512
_CLOSE_SECONDS = 2.0


class Channel:
    """Whole messages in order, sealed between two members; see :class:`parties.node.control.Channel`.

    That the peer is silent is not noticed here: both sides are expected to say something now and then.

    Parameters
    ----------
    limit : int
        Longest message in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._wire: SealedWire | None = None
        self._sending = asyncio.Lock()
        self._arrived: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._part = bytearray()
        self._news = asyncio.Event()
        self._why = ""

    def open(self, wire: SealedWire) -> None:
        """Begin to speak over a wire whose messages and end we are told."""
        self._wire = wire

    async def send(self, data: bytes) -> None:
        """Send one message; suspends while the other side does not keep up.

        Raises
        ------
        ChannelClosedError
            If the other side is gone.
        """
        if len(data) > self._limit:
            raise ValueError(f"a message of {len(data)} bytes, where at most {self._limit} are allowed")
        async with self._sending:
            view = memoryview(data)
            for at in range(0, max(len(view), 1), _PART_BYTES):
                wire = self._wire
                if wire is None or self._why:
                    raise ChannelClosedError(self._why or "the channel is not open")
                wire.write(_MORE if at + _PART_BYTES < len(view) else _LAST, view[at : at + _PART_BYTES])
                if wire.congested:
                    await wire.drain()

    async def receive(self) -> bytes:
        """Return the next message.

        Raises
        ------
        ChannelClosedError
            If the other side is gone, and everything that came before was received.
        """
        while not self._arrived:
            if self._why:
                raise ChannelClosedError(self._why)
            self._news.clear()
            await self._news.wait()
        message = self._arrived.popleft()
        self._held -= len(message) + _MESSAGE_OVERHEAD
        if self._paused and self._held <= _WAITING_BYTES // 2 and self._wire is not None:
            self._paused = False
            self._wire.resume_reading()
        return message

    async def close(self) -> None:
        """Close it, whatever the other side does."""
        wire, self._why = self._wire, self._why or "we closed it"
        self._news.set()
        if wire is None:
            return
        wire.give_up()
        wire.say_close()
        try:
            await asyncio.wait([wire.closed], timeout=_CLOSE_SECONDS)
        finally:
            wire.drop()

    def on_message(self, part: bytes | bytearray) -> None:
        """Take a part of a message from the wire."""
        if self._why:
            return
        flag, content = part[:1], memoryview(part)[1:]
        self._part += content
        if flag not in (_MORE, _LAST) or len(self._part) > self._limit or (flag == _MORE and not content):
            self._end("it sent a message that is too long or not well formed")
            if self._wire is not None:
                self._wire.drop()
        elif flag == _LAST:
            self._arrived.append(bytes(self._part))
            self._held += len(self._part) + _MESSAGE_OVERHEAD
            self._part.clear()
            self._news.set()
            if self._held > _WAITING_BYTES and not self._paused and self._wire is not None:
                self._paused = True
                self._wire.pause_reading()

    def on_lost(self, fault: Exception | None) -> None:
        """Take note that the connection is gone."""
        if fault is None:
            self._end("it closed the connection, or the relay did")
        elif isinstance(fault, OSError):
            self._end(f"the connection broke ({type(fault).__name__})")
        else:
            self._end(f"it sent {fault}")

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._news.set()


async def meet_channel(
    address: RelayAddress,
    *,
    identity: Identity,
    peer_certificate: bytes,
    context: bytes,
    passes: bytes | None = None,
    initiator: bool,
    limit: int = MESSAGE_BYTES,
) -> Channel:
    """Meet a peer at a relay, and return a channel to it; see :func:`parties.relay.client.meet`."""
    channel = Channel(limit)
    wire = await meet(
        address,
        identity=identity,
        peer_certificate=peer_certificate,
        context=context,
        passes=passes,
        initiator=initiator,
        on_message=channel.on_message,
        on_lost=channel.on_lost,
        limit=_PART_BYTES + 1,
    )
    channel.open(wire)
    return channel
