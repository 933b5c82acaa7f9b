"""What we send: in order, and kept until it is acknowledged, so that another connection can bring it again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from parties.frames import acknowledging

if TYPE_CHECKING:
    from mpc.transport import Buffer
    from parties.wire import MessageWire

# What a kept frame occupies beside its payload.
_FRAME_OVERHEAD = 512
# How many frames are sent again in one go.
_BURST_FRAMES = 4


class Outbox:
    """The frames from the first that is not acknowledged to the last that was sent.

    Payloads are kept by reference: who sends a buffer does not change it afterwards.

    Parameters
    ----------
    limit : int
        Beyond so many bytes a sender waits.
    announced : callable
        Tells what a frame that is sent again acknowledges.

    Attributes
    ----------
    keeping : bool
        Whether frames are kept; otherwise they go over the first connection or not at all.
    first : int
        Number of the oldest frame that is not acknowledged.
    next : int
        Number of the frame that is sent next.
    """

    def __init__(self, limit: int, announced: Callable[[], int]) -> None:
        self._limit = limit
        self._announced = announced
        self._frames: deque[tuple[bytes, Buffer]] = deque()
        self._wire: MessageWire | None = None
        self._resending: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._given_up = False
        self.keeping = False
        self.held = 0
        self.first = 0
        self.next = 0

    # ---- sending --------------------------------------------------------------------------------

    def write(self, header: bytes, payload: Buffer) -> bool:
        """Send the next frame, at once or when there is a connection; never waits.

        Returns
        -------
        bool
            Whether a sender should wait until there is :meth:`room`: until acknowledgements come, or the
            network keeps up.
        """
        self.next += 1
        wire = self._wire
        if self.keeping:
            self._frames.append((header, payload))
            self.held += len(payload) + _FRAME_OVERHEAD
            if wire is None or self._resending is not None:
                return self.held > self._limit
        elif wire is None:
            raise RuntimeError("the link is not connected")
        wire.write(header, payload)
        return wire.congested or self.held > self._limit

    def release(self, acknowledged: int) -> None:
        """Let go of all frames before this number, which lies between :attr:`first` and :attr:`next`."""
        frames = self._frames
        for _ in range(min(acknowledged - self.first, len(frames))):
            self.held -= len(frames.popleft()[1]) + _FRAME_OVERHEAD
        self.first = acknowledged
        if self._room is not None and self.held <= self._limit:
            self._wake()

    # ---- connections ----------------------------------------------------------------------------

    def attach(self, wire: MessageWire) -> None:
        """Go on over a connection: what is kept is sent again, then what comes up."""
        self._wire = wire
        if self._frames:
            self._resending = asyncio.get_running_loop().create_task(self._resend(wire))

    async def _resend(self, wire: MessageWire) -> None:
        """Send what is kept, and what comes up meanwhile, as fast as the network takes it."""
        number = self.first
        while number < self.next:
            for _ in range(_BURST_FRAMES):
                number = max(number, self.first)
                if number < self.next:
                    header, payload = self._frames[number - self.first]
                    wire.write(acknowledging(header, self._announced()), payload)
                    number += 1
            # Also gives way, so that a connection that is gone is noticed.
            await (wire.drain() if wire.congested else asyncio.sleep(0))
        self._resending = None

    def detach(self) -> None:
        """Send nothing more over the connection that we had."""
        self._wire = None
        if self._resending is not None:
            self._resending.cancel()
            self._resending = None

    # ---- waiting --------------------------------------------------------------------------------

    async def room(self) -> None:
        """Wait until a sender need not wait any more, or there is no point in it."""
        while not self._given_up:
            wire = self._wire
            if self.held > self._limit:
                if self._room is None:
                    self._room = asyncio.get_running_loop().create_future()
                await asyncio.shield(self._room)
            elif wire is not None and wire.congested:
                await wire.drain()
            else:
                return

    def give_up(self) -> None:
        """End all waiting."""
        self._given_up = True
        if self._wire is not None:
            self._wire.give_up()
        self._wake()

    def _wake(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None
