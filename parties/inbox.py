"""What one peer sent and has not been received yet, each message under its step."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpc.errors import PeerError

if TYPE_CHECKING:
    from mpc.transport import Buffer

# How many steps back a second message under the same label is recognised. Older labels are forgotten,
# so that a long run does not grow; a message under one of them waits unread and overwrites nothing.
_REMEMBERED_STEPS = 16384
# What an unread message occupies beside its bytes.
_MESSAGE_OVERHEAD = 512


@dataclass(slots=True)
class _Waiter:
    future: asyncio.Future[Buffer]
    size: int
    exact: bool
    deadline: float


class Inbox:
    """Puts messages together from their parts and keeps them until they are received.

    Parameters
    ----------
    name : str
        What messages call the peer.
    peer : int
        Its rank.
    limit : int
        How many bytes may wait.
    on_fault : callable
        Called when the peer broke a rule: ``on_fault(what, step)``.
    on_full, on_eased : callable
        Called with each part beyond the limit, and when half of it is free again.
    """

    def __init__(
        self,
        name: str,
        peer: int,
        limit: int,
        *,
        on_fault: Callable[[str, str | None], None],
        on_full: Callable[[], None],
        on_eased: Callable[[], None],
    ) -> None:
        self._name = name
        self._peer = peer
        self.limit = limit
        self._on_fault = on_fault
        self._on_full = on_full
        self._on_eased = on_eased
        self._loop = asyncio.get_running_loop()
        self._arrived: dict[str, Buffer] = {}
        self._partial: dict[str, bytearray] = {}
        self._waiting: dict[str, _Waiter] = {}
        self._used: set[str] = set()
        self._used_in_order: deque[str] = deque()
        self.held = 0
        self.full = False
        self.finished = False

    # ---- what comes in --------------------------------------------------------------------------

    def put(self, step: str, length: int, offset: int, payload: memoryview) -> None:
        """Take a message, or a part of one."""
        got = len(payload)
        waiter = self._waiting.get(step)
        if waiter is not None and length != waiter.size and (waiter.exact or length > waiter.size):
            self._on_fault(_wrong_length(length, waiter.size, waiter.exact), step)
            return
        if got == length and step not in self._partial:
            if step in self._arrived or step in self._used:
                self._on_fault("a second message", step)
            else:
                self._complete(step, payload, waiter)
            return
        partial = self._partial.get(step)
        if partial is None:
            if step in self._arrived or step in self._used:
                self._on_fault("a second message", step)
                return
            partial = self._partial[step] = bytearray()
        if offset != len(partial) or not got:
            self._on_fault("the parts of a message out of order", step)
            return
        partial += payload
        if len(partial) == length:
            del self._partial[step]
            if waiter is None:
                self.held -= len(partial) - got
            self._complete(step, partial, waiter)
        elif waiter is None:
            self._hold(got)

    def _complete(self, step: str, message: Buffer, waiter: _Waiter | None) -> None:
        if waiter is None:
            self._arrived[step] = message
            self._hold(len(message) + _MESSAGE_OVERHEAD)
            return
        del self._waiting[step]
        self._remember(step)
        if not waiter.future.done():
            waiter.future.set_result(message)

    def finish(self) -> None:
        """Take note that nothing more will come; what is complete can still be received."""
        if self._partial:
            self._on_fault("a goodbye in the middle of a message", next(iter(self._partial)))
            return
        self.finished = True
        waiting, self._waiting = self._waiting, {}
        for step, waiter in waiting.items():
            if not waiter.future.done():
                waiter.future.set_exception(self._finished_error(step))

    # ---- receiving ------------------------------------------------------------------------------

    def take(self, step: str, size: int, exact: bool) -> Buffer | None:
        """Receive the message of a step, if it has arrived."""
        message = self._arrived.pop(step, None)
        if message is None:
            return None
        got = len(message)
        self._remember(step)
        self.held -= got + _MESSAGE_OVERHEAD
        if self.full and self.held <= self.limit // 2:
            self._ease()
        if got != size and (exact or got > size):
            what = _wrong_length(got, size, exact)
            self._on_fault(what, step)
            raise PeerError(f"{self._name} sent {what} at step {step!r}", rank=self._peer, step=step)
        return message

    def wait(self, step: str, size: int, exact: bool, deadline: float) -> asyncio.Future[Buffer]:
        """Return what the message of a step, which has not arrived, will resolve."""
        if self.finished:
            raise self._finished_error(step)
        if step in self._waiting or step in self._used:
            raise RuntimeError(f"a second receive of step {step!r} from {self._name}")
        future: asyncio.Future[Buffer] = self._loop.create_future()
        self._waiting[step] = _Waiter(future, size, exact, deadline)
        if step in self._partial:
            self.held -= len(self._partial[step])
        if self.full and self.held <= self.limit:
            self._ease()
        return future

    def forget(self, step: str) -> None:
        """Take back a wait that was cancelled: the message, if it comes, is kept for another one."""
        if self._waiting.pop(step, None) is not None and step in self._partial:
            self._hold(len(self._partial[step]))

    @property
    def oldest(self) -> tuple[str, float] | None:
        """Step and deadline of the receive that waits longest."""
        for step, waiter in self._waiting.items():
            return step, waiter.deadline
        return None

    def fail(self, error_at: Callable[[str], PeerError]) -> None:
        """End every wait with an error made for its step."""
        waiting, self._waiting = self._waiting, {}
        for step, waiter in waiting.items():
            if not waiter.future.done():
                waiter.future.set_exception(error_at(step))

    # ---- inside ---------------------------------------------------------------------------------

    def _finished_error(self, step: str) -> PeerError:
        text = f"{self._name} has finished and never sent what was due at step {step!r}"
        return PeerError(text, rank=self._peer, step=step)

    def _remember(self, step: str) -> None:
        self._used.add(step)
        self._used_in_order.append(step)
        if len(self._used_in_order) > _REMEMBERED_STEPS:
            self._used.discard(self._used_in_order.popleft())

    def _hold(self, size: int) -> None:
        self.held += size
        if self.held > self.limit:
            self.full = True
            self._on_full()

    def _ease(self) -> None:
        self.full = False
        self._on_eased()


def _wrong_length(got: int, size: int, exact: bool) -> str:
    return f"{got} bytes where {'' if exact else 'at most '}{size} were due"
