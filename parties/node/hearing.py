"""How much a worker may say: a program may run in it that got at its socket to the node."""

from __future__ import annotations

import asyncio
import time

from parties.node.messages import Event, Opened, Progress

# A worker lists at most 10,000 openings, and tells of each once.
MOST_OPENINGS = 11_000
# The rest are figures, about twice a second for as long as it computes.
MOST_BYTES = 64 * 1024 * 1024
MOST_BYTES_A_SECOND = 8 * 1024
# More than that in a second are not taken faster: the node has others to listen to.
EVENTS_A_SECOND = 500


class Hearing:
    """Counts what one worker says, since the node writes much of it down."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._openings = 0
        self._events = 0
        self._second = self._began
        self._in_second = 0

    async def pace(self) -> None:
        """Wait, if it talks so fast that the node would come to nothing else.

        What is there already is received without waiting, so that one who never pauses would keep the event
        loop for itself.
        """
        now = time.monotonic()
        if now >= self._second + 1:
            self._second, self._in_second = now, 0
        self._in_second += 1
        if self._in_second > EVENTS_A_SECOND:
            await asyncio.sleep(self._second + 1 - now)

    def is_too_much(self, event: Event, bytes_received: int) -> bool:
        """Take an event into account, and tell whether it is more than any study has to say."""
        if isinstance(event, Opened):
            self._openings += len(event.openings)
        if not isinstance(event, Progress):
            self._events += 1
        most = MOST_BYTES + (time.monotonic() - self._began) * MOST_BYTES_A_SECOND
        return max(self._openings, self._events) > MOST_OPENINGS or bytes_received > most
