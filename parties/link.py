"""One link: the messages between us and one peer, in order, checked, over one connection after another.

Frames must come with the right sender, receiver, session and the next sequence number. A link whose two
ends both keep what they sent until it is acknowledged outlives its connections: each new one begins with
a hello of both sides, which names the frame that is due next, and what the other side lacks is sent
again. Nothing is lost, doubled or moved, because each side takes exactly the frame whose number is due,
from the one connection that it last agreed on.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from parties.faults import Abort, Fault, Traffic, pack_abort, parse_abort
from parties.frames import (
    FRAME_BYTES,
    INCARNATION_BYTES,
    Frame,
    FrameError,
    Hello,
    Kind,
    header_size,
    pack_header,
    pack_hello,
    parse,
)
from parties.inbox import Inbox
from parties.outbox import Outbox

if TYPE_CHECKING:
    from mpc.transport import Buffer
    from parties.line import Line
    from parties.wire import MessageWire

_DATA = Kind.DATA
# What speaks of one connection and is not numbered.
_ASIDE = (Kind.ACK, Kind.HELLO, Kind.LEAVE)
_UNKNOWN = bytes(INCARNATION_BYTES)
# A peer that we send nothing hears what we received after so many bytes, frames or seconds.
ACK_BYTES = 1024 * 1024
ACK_FRAMES = 64
ACK_SECONDS = 0.05


class Verdict(enum.Enum):
    """What a hello is to a link."""

    WELCOME = enum.auto()
    OLD = enum.auto()  # an earlier attempt to connect, which came late
    BEGUN_ANEW = enum.auto()  # the peer has forgotten what was before
    STALE = enum.auto()  # the peer remembers what we do not
    WRONG = enum.auto()  # it acknowledges what it cannot have, or has forgotten part of it


class Link:
    """The link to one peer, whose certificate was checked.

    Parameters
    ----------
    rank, peer : int
        Our rank and the peer's.
    name : str
        What messages call the peer.
    session : bytes
        What this run is called, 16 bytes.
    keeps : bool
        Whether we keep what we send, so that the link can outlive its connection. It does if the peer
        says the same.
    buffer_bytes : int
        How much may wait to be received; a quarter of that may be sent and not acknowledged.
    on_fault : callable
        Called when the peer broke a rule: ``on_fault(link, what, step)``.
    on_abort : callable
        Called when the peer says that it stops.
    on_parted : callable
        Called when the peer has heard our last word, or will not hear it any more.

    Attributes
    ----------
    finished : bool
        The peer said goodbye: it will send nothing more, and read nothing.
    broken_off : bool
        We said that we stop.
    departed : bool
        One of the two has said goodbye and left, and both know it.
    broken : bool
        The peer broke a rule or said that it stops: nothing more is taken from it, nor owed to it.
    failed : bool
        The run has failed: nothing more is sent, and of what comes only acknowledgements count.
    """

    def __init__(
        self,
        rank: int,
        peer: int,
        name: str,
        session: bytes,
        *,
        keeps: bool,
        buffer_bytes: int,
        on_fault: Callable[[Link, str, str | None], None],
        on_abort: Callable[[Link, Abort], None],
        on_parted: Callable[[], None],
    ) -> None:
        self.rank = rank
        self.peer = peer
        self.name = name
        self._session = session
        self._keeps = keeps
        self._on_fault = on_fault
        self._on_abort = on_abort
        self._on_parted = on_parted
        self._loop = asyncio.get_running_loop()
        self.inbox = Inbox(
            name, peer, buffer_bytes, on_fault=self._fault, on_full=self._press, on_eased=self._let_in_again
        )
        self.outbox = Outbox(buffer_bytes // 4, lambda: self._announced)
        self.wire: MessageWire | None = None
        self._line: Line | None = None
        self.finished = False
        self.departed = False
        self.broken = False
        self.broken_off = False
        self.failed = False
        self.payload_sent = 0
        self.payload_received = 0
        self._past_sent = 0
        self._past_received = 0

        # Who is at both ends, and which attempts to connect were made.
        self._ours = secrets.token_bytes(INCARNATION_BYTES)
        self._theirs = _UNKNOWN
        self.keeping = False
        self.connections = 0
        self.spoken = 0  # hellos
        self._last_spoken_to_us = -1

        # Hearing: `_heard` is the frame that is due. The peer is told `_announced`, which lags behind
        # while too much waits to be received, so that it waits with sending more.
        self._heard = 0
        self._announced = 0
        self._told = 0
        self._owed = 0
        self._ack_timer: asyncio.TimerHandle | None = None
        self.reading_paused = False
        self._last_word = False

    # ---- connections ----------------------------------------------------------------------------

    @property
    def greeted(self) -> bool:
        """Whether there has ever been a connection."""
        return self._theirs != _UNKNOWN

    def judge(self, hello: Hello) -> Verdict:
        """Tell what a hello is to us; changes nothing."""
        if hello.knows not in (_UNKNOWN, self._ours):
            return Verdict.STALE
        if not self.greeted:
            return Verdict.WRONG if hello.acknowledged else Verdict.WELCOME
        if hello.incarnation != self._theirs:
            return Verdict.BEGUN_ANEW
        if hello.number <= self._last_spoken_to_us:
            return Verdict.OLD
        if (hello.keeps and self._keeps) != self.keeping:
            return Verdict.WRONG
        if not self.keeping and (self._heard or self.outbox.next):
            return Verdict.BEGUN_ANEW  # there is nothing from which it could go on
        fits = self.outbox.first <= hello.acknowledged <= self.outbox.next
        return Verdict.WELCOME if fits else Verdict.WRONG

    def hello(self) -> bytes:
        """Return the frame that begins a connection: who, to whom, in which session, and from where on.

        What it says is true until a connection is attached, since without one nothing is heard. So only the
        connection that began with our last hello may be attached.
        """
        if self.wire is not None:
            raise RuntimeError("a hello while there is a connection")
        self._announced = self._told = self._heard
        self._owed = 0
        hello = Hello(self.spoken, self._heard, self._ours, self._theirs, self._keeps)
        self.spoken += 1
        payload = pack_hello(hello)
        head = pack_header(
            Kind.HELLO, self.rank, self.peer, self._session, hello.number, b"", len(payload), 0, hello.acknowledged
        )
        return head + payload

    def attach(self, line: Line, wire: MessageWire, hello: Hello) -> None:
        """Go on over a connection whose hello is welcome: send what the peer lacks, and then the rest."""
        self.detach()
        self._theirs = hello.incarnation
        self.keeping = self.outbox.keeping = self._keeps and hello.keeps
        self._last_spoken_to_us = hello.number
        self._line, self.wire = line, wire
        self.connections += 1
        self._release(hello.acknowledged)
        self.outbox.attach(wire)
        if self.reading_paused:
            wire.pause_reading()

    def detach(self) -> None:
        """Let go of the connection; whatever it still brings is not taken."""
        line, wire, self._line, self.wire = self._line, self.wire, None, None
        if self._ack_timer is not None:
            self._ack_timer.cancel()
            self._ack_timer = None
        self.outbox.detach()
        if wire is not None and line is not None:
            self._past_sent += wire.bytes_sent
            self._past_received += wire.bytes_received
            line.cut()

    # ---- sending --------------------------------------------------------------------------------

    def _write(self, kind: Kind, step: bytes, payload: Buffer, length: int, offset: int) -> None:
        """Send a frame that has its place in the order."""
        outbox = self.outbox
        announced = self._told = self._announced
        self._owed = 0
        outbox.write(
            pack_header(kind, self.rank, self.peer, self._session, outbox.next, step, length, offset, announced),
            payload,
        )

    def _write_aside(self, kind: Kind) -> None:
        """Send a frame that speaks of this connection alone."""
        self._told = self._announced
        self._owed = 0
        if self.wire is not None:
            self.wire.write(pack_header(kind, self.rank, self.peer, self._session, 0, b"", 0, 0, self._announced))

    def goodbye(self) -> None:
        """End: we have sent all that we ever will."""
        if not self._last_word and (self.keeping or self.wire is not None):
            self._last_word = True
            self._write(Kind.GOODBYE, b"", b"", 0, 0)

    def abort(self, abort: Abort) -> None:
        """Stop: tell the peer why."""
        if not self._last_word and (self.keeping or self.wire is not None):
            self._last_word = True
            self.broken_off = True
            payload = pack_abort(abort)
            self._write(Kind.ABORT, b"", payload, len(payload), 0)

    @property
    def owing(self) -> bool:
        """Whether our last word has been said, and not yet heard."""
        return self.keeping and self._last_word and not self.parted

    @property
    def leaving(self) -> bool:
        """Whether our goodbye has been heard, and the peer may not know yet that we know."""
        return self.keeping and self.parted and not (self.departed or self.broken or self.broken_off)

    @property
    def parted(self) -> bool:
        """Whether the peer has heard our last word, or will not hear it any more."""
        return self.departed or self.broken or (self._last_word and self.outbox.first == self.outbox.next)

    def post(self, step: str, data: Buffer) -> Coroutine[None, None, None] | None:
        """Write a message; what remains to be awaited, if the peer does not keep up, is returned."""
        label = step.encode("ascii")
        if isinstance(data, memoryview) and (data.format != "B" or data.ndim != 1):
            data = data.cast("B")
        size = len(data)
        if size > FRAME_BYTES - header_size(label):
            return self._post_long(label, memoryview(data))
        announced = self._told = self._announced
        self._owed = 0
        self.payload_sent += size
        outbox = self.outbox
        head = pack_header(_DATA, self.rank, self.peer, self._session, outbox.next, label, size, 0, announced)
        return outbox.room() if outbox.write(head, data) else None

    async def _post_long(self, label: bytes, data: memoryview) -> None:
        room = FRAME_BYTES - header_size(label)
        for offset in range(0, len(data), room):
            part = data[offset : offset + room]
            self._write(_DATA, label, part, len(data), offset)
            self.payload_sent += len(part)
            await self.outbox.room()
            if self.failed or self.finished:
                return

    # ---- hearing --------------------------------------------------------------------------------

    def on_message(self, message: bytes | bytearray) -> None:
        """Take one message from the connection."""
        if self.broken:
            return
        try:
            frame = parse(message)
        except FrameError as error:
            self._fault(str(error), None)
            return
        outbox = self.outbox
        step = frame.step
        if frame.session != self._session:
            self._fault("a frame of another session", step or None)
            return
        if frame.sender != self.peer or frame.receiver != self.rank:
            self._fault(f"a frame from {frame.sender} to {frame.receiver}", step or None)
            return
        if frame.acknowledged != outbox.first:
            if not outbox.first <= frame.acknowledged <= outbox.next:
                self._fault(f"an acknowledgement of frame {frame.acknowledged} of {outbox.next}", step or None)
                return
            self._release(frame.acknowledged)
        if frame.kind is not _DATA and frame.kind in _ASIDE:
            self._take_aside(frame)
        elif self.failed:
            if frame.kind is not _DATA:  # it stops, too, and waits for nothing from us
                self.broken = True
                self._on_parted()
        elif frame.sequence != self._heard:
            self._fault(f"frame number {frame.sequence} where {self._heard} was due", step or None)
        elif self.finished:
            self._fault("a frame after its goodbye", step or None)
        else:
            self._heard += 1
            if frame.kind is not _DATA:
                self._take_last(frame)
                return
            if self.keeping:
                self._acknowledge_soon(len(message))
            self.payload_received += len(frame.payload)
            self.inbox.put(step, frame.length, frame.offset, frame.payload)

    def _take_last(self, frame: Frame) -> None:
        """Take a goodbye or an abort; nothing follows it, so that there is nothing to hold back."""
        self._announced = self._heard
        if frame.kind is Kind.ABORT:
            try:
                abort = parse_abort(bytes(frame.payload), self.peer)
            except ValueError:
                self._fault("an abort that cannot be read", None)
                return
            self.broken = True
            self._acknowledge()
            self._on_abort(self, abort)
            self._on_parted()
            return
        self.inbox.finish()
        if not self.broken:
            self.finished = True
            self.outbox.give_up()
            self._acknowledge()
            self._on_parted()

    def _take_aside(self, frame: Frame) -> None:
        if frame.kind is Kind.HELLO or frame.sequence or frame.length or not self.keeping:
            self._fault(f"a frame of kind {frame.kind.name} out of turn", frame.step or None)
        elif frame.kind is Kind.LEAVE:
            if not (self.finished or self.leaving or self.departed):
                self._fault("a leave without a goodbye", None)
            elif not self.departed:
                self._write_aside(Kind.LEAVE)
                self.departed = True
                self._on_parted()

    def _release(self, acknowledged: int) -> None:
        self.outbox.release(acknowledged)
        if self._last_word and acknowledged == self.outbox.next:
            if self.leaving:
                self._write_aside(Kind.LEAVE)
            self._on_parted()

    def _acknowledge_soon(self, size: int) -> None:
        if not self.inbox.full:
            self._announced = self._heard
        self._owed += size
        if self._owed >= ACK_BYTES or self._announced - self._told >= ACK_FRAMES:
            self._acknowledge()
        elif self._ack_timer is None:
            self._ack_timer = self._loop.call_later(ACK_SECONDS, self._acknowledge_late)

    def _acknowledge_late(self) -> None:
        self._ack_timer = None
        self._acknowledge()

    def _acknowledge(self) -> None:
        if self.keeping and self._told != self._announced:
            self._write_aside(Kind.ACK)

    def _fault(self, what: str, step: str | None) -> None:
        if not self.failed:
            self.broken = True
            self._on_fault(self, f"{self.name} sent {what}", step)
            self._on_parted()

    # ---- too much -------------------------------------------------------------------------------

    def _press(self) -> None:
        """Make the peer wait, because too much waits to be received.

        A peer that keeps what it sent waits once it has a quarter of the buffer unacknowledged, and can
        still be heard. One that does not keep to this is not read any more, like one that keeps nothing.
        """
        if (not self.keeping or self.inbox.held > 2 * self.inbox.limit) and not self.reading_paused:
            self.reading_paused = True
            if self.wire is not None:
                self.wire.pause_reading()

    def _let_in_again(self) -> None:
        self._announced = self._heard
        if self.reading_paused:
            self.reading_paused = False
            if self.wire is not None:
                self.wire.resume_reading()
        self._acknowledge()

    # ---- the end --------------------------------------------------------------------------------

    def fail_waiters(self, fault: Fault) -> None:
        """End every wait, because nothing more can come, or go."""
        self.failed = True
        self.outbox.give_up()
        self.inbox.fail(fault.error)

    @property
    def traffic(self) -> Traffic:
        """What went over this link so far."""

        wire = self.wire
        sent = self._past_sent + (wire.bytes_sent if wire is not None else 0)
        received = self._past_received + (wire.bytes_received if wire is not None else 0)
        return Traffic(self.payload_sent, self.payload_received, sent, received)
