"""Two connections of a relay, joined: what one end sends, the other one gets, as it came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from parties.frames import FRAME_BYTES
from parties.relay.admission import Guest
from parties.relay.sealed import OVERHEAD_BYTES
from parties.wire import Wire

MESSAGE_BYTES = FRAME_BYTES + OVERHEAD_BYTES
# For an end to take what was still written to it, when the other one has gone.
_LAST_SECONDS = 10.0


class End(Wire):
    """One of two joined connections.

    Its messages are written to the other one as they come. When the other one does not keep up, this one
    is not read any more; so what a relay holds for an end is one message, one reading buffer and what the
    transport takes before it says stop, whatever both do.
    """

    def __init__(
        self, transport: asyncio.Transport, guest: Guest, on_lost: Callable[[End, Exception | None], None]
    ) -> None:
        self.guest = guest
        self.other: End | None = None
        self.messages = 0
        super().__init__(
            transport,
            dialled=False,
            limit=MESSAGE_BYTES,
            on_message=self._forward,
            on_lost=lambda fault: on_lost(self, fault),
        )

    def _forward(self, message: bytes | bytearray) -> None:
        self.messages += 1
        if self.other is not None:
            self.other.write(b"", message)

    def pause_writing(self) -> None:
        """Let the other end wait, because this one does not keep up."""
        super().pause_writing()
        if self.other is not None:
            self.other.hold()

    def hold(self) -> None:
        """Stop reading, if there is still something to read."""
        if not self._closing:
            self.pause_reading()

    def resume_writing(self) -> None:
        """Let the other end go on."""
        super().resume_writing()
        if self.other is not None:
            self.other.resume_reading()


class Pair:
    """Two ends that asked for each other, until one of them goes.

    Parameters
    ----------
    first, second : tuple
        Transport and guest of each end. Both are silent until they hear from the relay.
    on_over : callable
        Told of the pair when both connections are gone.
    """

    def __init__(
        self,
        first: tuple[asyncio.Transport, Guest],
        second: tuple[asyncio.Transport, Guest],
        on_over: Callable[[Pair], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.ends = (End(*first, self._lost), End(*second, self._lost))
        self.ends[0].other, self.ends[1].other = self.ends[1], self.ends[0]
        self.began = self._loop.time()
        self.why = ""
        self._on_over = on_over
        self._left = 2
        self._timer: asyncio.TimerHandle | None = None
        for end in self.ends:
            end.closed.add_done_callback(self._closed)

    @property
    def last_heard(self) -> float:
        """When either end last sent anything, on the event loop's clock."""
        return max(end.last_heard for end in self.ends)

    def end(self, why: str) -> None:
        """Close both connections, after what was written to them; does nothing if they are being closed."""
        self._end(why, self.ends)

    def _lost(self, end: End, fault: Exception | None) -> None:
        what = "closed" if fault is None else "lost" if isinstance(fault, OSError) else "a rule broken"
        self._end(f"{what} by {end.guest}", [each for each in self.ends if each is not end])

    def _end(self, why: str, ends: Iterable[End]) -> None:
        if self.why:
            return
        self.why = why
        for end in ends:
            end.say_close()
            end.close()
        self._timer = self._loop.call_later(_LAST_SECONDS, self._drop)

    def _drop(self) -> None:
        for end in self.ends:
            end.drop()

    def _closed(self, _: asyncio.Future[None]) -> None:
        self._left -= 1
        if not self._left:
            if self._timer is not None:
                self._timer.cancel()
            self._on_over(self)
