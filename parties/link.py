"""One link: the messages between us and one peer, in order, checked, each under its step."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpc.errors import PeerError
from parties.frames import FRAME_BYTES, STEP_BYTES, Frame, FrameError, Kind, header_size, pack_header, parse

if TYPE_CHECKING:
    from mpc.transport import Buffer
    from parties.wire import Wire

_DATA = Kind.DATA
# How many steps back a second message under the same label is recognised. Older labels are forgotten,
# so that a long run does not grow; a message under one of them waits unread and overwrites nothing.
_REMEMBERED_STEPS = 16384
_ABORT_BYTES = 16 * 1024
_ABORT_NAME = 100
_ABORT_TEXT = 2000
# What an unread message occupies beside its bytes.
_MESSAGE_OVERHEAD = 512


@dataclass(frozen=True, slots=True)
class Fault:
    """Why nothing more can be sent or received.

    Attributes
    ----------
    text : str
        What happened; holds no data.
    rank : int
        The peer at fault.
    step : str or None
        The step of the message that was at fault, where there was one.
    """

    text: str
    rank: int
    step: str | None = None

    def error(self, step: str) -> PeerError:
        """Return the error for whoever is at ``step``."""
        where = "" if repr(step) in self.text else f" (we were at step {step!r})"
        return PeerError(self.text + where, rank=self.rank, step=self.step or step)


@dataclass(frozen=True, slots=True)
class Abort:
    """What a peer says when it stops: the type of its error, a text free of data, and whose fault it was."""

    type_name: str
    text: str
    rank: int
    step: str | None


@dataclass(slots=True)
class Traffic:
    """Bytes between us and one peer.

    ``payload`` is what the protocols sent, ``wire`` adds our header, WebSocket and TLS.
    """

    payload_sent: int = 0
    payload_received: int = 0
    wire_sent: int = 0
    wire_received: int = 0


@dataclass(slots=True)
class _Waiter:
    future: asyncio.Future[Buffer]
    size: int
    exact: bool
    deadline: float


def name_of(rank: int, size: int) -> str:
    """Name a peer in messages."""
    return "the dealer" if rank == size else f"party {rank}"


class Link:
    """The link to one peer, whose certificate was checked.

    Frames must come with the right sender, receiver, session and the next sequence number; a message
    is put together from its frames and kept under its step until it is received. What is kept is
    bounded: beyond ``buffer_bytes`` the socket is not read any more, and the peer has to wait.

    Parameters
    ----------
    rank, peer, size : int
        Our rank, the peer's, and the number of parties.
    session : bytes
        What this run is called, 16 bytes.
    buffer_bytes : int
        How much may wait to be received.
    on_fault : callable
        Called when the peer broke a rule: ``on_fault(link, what, step)``.
    on_abort : callable
        Called when the peer says that it stops.
    """

    def __init__(
        self,
        rank: int,
        peer: int,
        size: int,
        session: bytes,
        *,
        buffer_bytes: int,
        on_fault: Callable[[Link, str, str | None], None],
        on_abort: Callable[[Link, Abort], None],
    ) -> None:
        self.rank = rank
        self.peer = peer
        self.name = name_of(peer, size)
        self._session = session
        self._buffer_bytes = buffer_bytes
        self._on_fault = on_fault
        self._on_abort = on_abort
        self._loop = asyncio.get_running_loop()
        self.wire: Wire | None = None
        # Resolved by the peer's hello: with None, or with what was wrong.
        self.greeted: asyncio.Future[str | None] = self._loop.create_future()
        self._greeted = False
        self.finished = False  # the peer said goodbye
        self.failed = False
        self.suspected = False
        self.payload_sent = 0
        self.payload_received = 0

        self._sent = 0
        self._heard = 0
        self._arrived: dict[str, Buffer] = {}
        self._partial: dict[str, bytearray] = {}
        self._waiting: dict[str, _Waiter] = {}
        self._used: set[str] = set()
        self._used_in_order: deque[str] = deque()
        self._held = 0
        self._reading_paused = False

    # ---- sending --------------------------------------------------------------------------------

    def _write(self, kind: Kind, step: bytes, payload: Buffer, length: int, offset: int) -> None:
        if self.wire is None:
            raise RuntimeError("the link is not connected")
        head = pack_header(kind, self.rank, self.peer, self._session, self._sent, step, length, offset)
        self._sent += 1
        self.wire.write(head, payload)

    def hello(self) -> None:
        """Begin: the header alone says who, to whom, and in which session."""
        self._write(Kind.HELLO, b"", b"", 0, 0)

    def goodbye(self) -> None:
        """End: we have sent all that we ever will."""
        self._write(Kind.GOODBYE, b"", b"", 0, 0)

    def abort(self, abort: Abort) -> None:
        """Stop: tell the peer why."""
        fields = (str(abort.rank), abort.step or "", abort.type_name[:_ABORT_NAME], abort.text[:_ABORT_TEXT])
        payload = "\0".join(field.replace("\0", " ") for field in fields).encode("utf-8", "replace")
        self._write(Kind.ABORT, b"", payload, len(payload), 0)

    def post(self, step: str, data: Buffer) -> Coroutine[None, None, None] | None:
        """Write a message; what remains to be awaited, if the peer does not keep up, is returned."""
        wire = self.wire
        if wire is None:
            raise RuntimeError("the link is not connected")
        label = step.encode("ascii")
        if isinstance(data, memoryview) and (data.format != "B" or data.ndim != 1):
            data = data.cast("B")
        size = len(data)
        if size > FRAME_BYTES - header_size(label):
            return self._post_long(label, memoryview(data))
        wire.write(pack_header(_DATA, self.rank, self.peer, self._session, self._sent, label, size, 0), data)
        self._sent += 1
        self.payload_sent += size
        return wire.drain() if wire.congested else None

    async def _post_long(self, label: bytes, data: memoryview) -> None:
        room = FRAME_BYTES - header_size(label)
        for offset in range(0, len(data), room):
            part = data[offset : offset + room]
            self._write(Kind.DATA, label, part, len(data), offset)
            self.payload_sent += len(part)
            if self.wire is not None and self.wire.congested:
                await self.wire.drain()
            if self.failed or self.finished:
                return

    # ---- receiving ------------------------------------------------------------------------------

    def on_message(self, message: bytes | bytearray) -> None:
        """Take one WebSocket message from the wire."""
        if self.failed:
            return
        try:
            frame = parse(message)
        except FrameError as error:
            self._fault(str(error), None)
            return
        step = frame.step
        if frame.session != self._session:
            self._fault("a frame of another session", step or None)
        elif frame.sender != self.peer or frame.receiver != self.rank:
            self._fault(f"a frame from {frame.sender} to {frame.receiver}", step or None)
        elif frame.sequence != self._heard:
            self._fault(f"frame number {frame.sequence} where {self._heard} was due", step or None)
        elif self.finished:
            self._fault("a frame after its goodbye", step or None)
        else:
            self._heard += 1
            if frame.kind is _DATA and self._greeted:
                self._take_data(step, frame.length, frame.offset, frame.payload)
            else:
                self._take_other(frame)

    def _take_other(self, frame: Frame) -> None:
        if frame.kind is Kind.ABORT:
            self._take_abort(frame)
        elif frame.kind is Kind.GOODBYE and self._greeted:
            if self._partial:
                self._fault("a goodbye in the middle of a message", next(iter(self._partial)))
                return
            self.finished = True
            waiting, self._waiting = self._waiting, {}
            for step, waiter in waiting.items():
                if not waiter.future.done():
                    waiter.future.set_exception(self._finished_error(step))
        elif frame.kind is Kind.HELLO and not self._greeted:
            self._greeted = True
            self.greeted.set_result(None)
        else:
            self._fault(f"a frame of kind {frame.kind.name} out of turn", frame.step or None)

    def _take_data(self, step: str, length: int, offset: int, payload: memoryview) -> None:
        got = len(payload)
        self.payload_received += got
        waiter = self._waiting.get(step)
        if waiter is not None and length != waiter.size and (waiter.exact or length > waiter.size):
            self._fault(_wrong_length(length, waiter.size, waiter.exact), step)
            return
        if got == length and step not in self._partial:
            if step in self._arrived or step in self._used:
                self._fault("a second message", step)
            else:
                self._complete(step, payload, waiter)
            return
        partial = self._partial.get(step)
        if partial is None:
            if step in self._arrived or step in self._used:
                self._fault("a second message", step)
                return
            partial = self._partial[step] = bytearray()
        if offset != len(partial) or not got:
            self._fault("the parts of a message out of order", step)
            return
        partial += payload
        if len(partial) == length:
            del self._partial[step]
            if waiter is None:
                self._held -= len(partial) - got
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

    def _take_abort(self, frame: Frame) -> None:
        try:
            abort = _parse_abort(bytes(frame.payload), self.peer)
        except ValueError:
            self._fault("an abort that cannot be read", None)
            return
        self.failed = True
        if not self._greeted:
            self._greeted = True
            self.greeted.set_result(f"it stopped: {abort.type_name}")
        self._on_abort(self, abort)

    def _fault(self, what: str, step: str | None) -> None:
        self.failed = True
        if not self._greeted:
            self._greeted = True
            self.greeted.set_result(f"it sent {what}")
            return
        self._on_fault(self, f"{self.name} sent {what}", step)

    def take(self, step: str, size: int, exact: bool) -> Buffer | None:
        """Receive the message of a step, if it has arrived."""
        message = self._arrived.pop(step, None)
        if message is None:
            return None
        got = len(message)
        self._remember(step)
        self._let_go(got + _MESSAGE_OVERHEAD)
        if got != size and (exact or got > size):
            what = _wrong_length(got, size, exact)
            self._fault(what, step)
            raise PeerError(f"{self.name} sent {what} at step {step!r}", rank=self.peer, step=step)
        return message

    def wait(self, step: str, size: int, exact: bool, deadline: float) -> asyncio.Future[Buffer]:
        """Return what the message of a step, which has not arrived, will resolve."""
        if self.finished:
            raise self._finished_error(step)
        if step in self._waiting or step in self._used:
            raise RuntimeError(f"a second receive of step {step!r} from {self.name}")
        future: asyncio.Future[Buffer] = self._loop.create_future()
        self._waiting[step] = _Waiter(future, size, exact, deadline)
        if step in self._partial:
            self._held -= len(self._partial[step])
        if self._reading_paused and self._held <= self._buffer_bytes:
            self._resume()
        return future

    def forget(self, step: str) -> None:
        """Take back a wait that was cancelled: the message, if it comes, is kept for another one."""
        if self._waiting.pop(step, None) is not None and step in self._partial:
            self._hold(len(self._partial[step]))

    def _finished_error(self, step: str) -> PeerError:
        text = f"{self.name} has finished and never sent what was due at step {step!r}"
        return PeerError(text, rank=self.peer, step=step)

    def _remember(self, step: str) -> None:
        self._used.add(step)
        self._used_in_order.append(step)
        if len(self._used_in_order) > _REMEMBERED_STEPS:
            self._used.discard(self._used_in_order.popleft())

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held > self._buffer_bytes and not self._reading_paused and self.wire is not None:
            self._reading_paused = True
            self.wire.pause_reading()

    def _let_go(self, size: int) -> None:
        self._held -= size
        if self._reading_paused and self._held <= self._buffer_bytes // 2:
            self._resume()

    def _resume(self) -> None:
        self._reading_paused = False
        if self.wire is not None:
            self.wire.resume_reading()

    # ---- waiting --------------------------------------------------------------------------------

    @property
    def stalled(self) -> bool:
        """Whether we do not read because too much waits to be received."""
        return self._reading_paused

    @property
    def oldest(self) -> tuple[str, float] | None:
        """Step and deadline of the receive that waits longest."""
        for step, waiter in self._waiting.items():
            return step, waiter.deadline
        return None

    def fail_waiters(self, fault: Fault) -> None:
        """End every wait, because nothing more can come, or go."""
        self.failed = True
        if self.wire is not None:
            self.wire.give_up()
        waiting, self._waiting = self._waiting, {}
        for step, waiter in waiting.items():
            if not waiter.future.done():
                waiter.future.set_exception(fault.error(step))

    @property
    def traffic(self) -> Traffic:
        """What went over this link so far."""
        wire = self.wire
        if wire is None:
            return Traffic()
        return Traffic(self.payload_sent, self.payload_received, wire.bytes_sent, wire.bytes_received)


def _wrong_length(got: int, size: int, exact: bool) -> str:
    return f"{got} bytes where {'' if exact else 'at most '}{size} were due"


def _parse_abort(payload: bytes, peer: int) -> Abort:
    """Read what a peer says when it stops: four fields of text; ``ValueError`` if it is not that."""
    if len(payload) > _ABORT_BYTES:
        raise ValueError("too long")
    rank, step, type_name, text = payload.decode("utf-8").split("\0")
    if len(step) > STEP_BYTES or len(type_name) > _ABORT_NAME or len(text) > _ABORT_TEXT:
        raise ValueError("a field is too long")
    culprit = int(rank) if rank.isascii() and rank.isdigit() and len(rank) < 6 else peer
    return Abort(_shown(type_name), _shown(text), culprit, _shown(step) or None)


def _shown(text: str) -> str:
    """Text of a peer as we dare to show it: it may not steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
