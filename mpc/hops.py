"""Counting how many messages follow one another: a network where a message takes one unit of time, and work none.

All parties run in one event loop whose clock stands still while anybody has something to do, and jumps to the
next arrival when all wait. What the clock shows in the end is the longest chain of messages, each of which could
only be sent after the one before it had arrived; protocols that run side by side share their hops.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from typing import Any

from mpc.memory import MemoryNetwork

_NEVER = 1e12


class _Jumping(selectors.DefaultSelector):
    """A selector that does not wait for a timer: it moves the clock on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            self.now += timeout
            timeout = 0
        return super().select(timeout)


class HopLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while all of its tasks wait."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return how many units have passed."""
        return self._jumping.now

    @staticmethod
    def busy_seconds() -> float:
        """Return the processor time that this process has taken, whatever else the machine does."""
        used = os.times()
        return used.user + used.system


class HopNetwork(MemoryNetwork):
    """Links in a :class:`HopLoop`: a message arrives one unit after it was sent.

    Parameters
    ----------
    size : int
        Number of parties; rank ``size`` is the dealer's.

    Attributes
    ----------
    sent, received : list of int
        Payload bytes of each rank since joining, the dealer's last.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, timeout_seconds=_NEVER)
        self.sent = [0] * (size + 1)
        self.received = [0] * (size + 1)

    def _post(self, frm: int, to: int, step: str, data: bytes) -> None:
        if not step.startswith("join/"):
            self.sent[frm] += len(data)
            self.received[to] += len(data)
        asyncio.get_running_loop().call_later(1.0, super()._post, frm, to, step, data)

    def leave(self, rank: int, reason: str) -> None:
        """Let a party go once everything it sent has been delivered."""
        asyncio.get_running_loop().call_later(1.5, super().leave, rank, reason)
