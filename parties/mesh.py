"""The mesh: authenticated links from us to every other node, as the protocols want them.

A run ends with its first fault. Whoever sees a peer break a rule, go away or fall silent tells all the
others, who stop too; the error names the peer and the step everywhere.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from mpc.errors import PeerError, for_peers
from parties.connect import Doorkeeper, Member
from parties.frames import SESSION_BYTES
from parties.identity import Identity
from parties.link import Abort, Fault, Link, Traffic, name_of

if TYPE_CHECKING:
    from mpc.transport import Buffer

__all__ = ["Member", "Mesh", "Patience"]

CONNECT_STEP = "connect"
_BUFFER_BYTES = 64 * 1024 * 1024
# How long to wait for the others to take our abort: who is stuck is not waited for.
_LAST_WORDS_SECONDS = 1.0
# How late a timer may be before we think that we ourselves were busy and look again.
_LATE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for others, in seconds.

    Attributes
    ----------
    connect_seconds : float
        Until all nodes are there.
    receive_seconds : float
        For one message. It includes what a peer computes before it sends that message.
    until : float
        On the event loop's clock: no receive waits longer than this.
    heartbeat_seconds : float
        After so long without a byte a peer is asked for a sign of life, which also keeps firewalls
        from forgetting the connection.
    silence_seconds : float
        After so long without any sign a peer counts as gone.
    close_seconds : float
        For the others to take note of our goodbye.
    """

    connect_seconds: float = 30.0
    receive_seconds: float = 300.0
    until: float = math.inf
    heartbeat_seconds: float = 20.0
    silence_seconds: float = 120.0
    close_seconds: float = 5.0


class Mesh:
    """A node's links to all others; implements :class:`mpc.transport.Transport`.

    Use it as ``async with Mesh(...) as mesh``: leaving the block in peace says goodbye, leaving it with
    an exception tells the others its type.

    Parameters
    ----------
    identity : Identity
        Our key and certificate.
    rank : int
        Our rank.
    members : sequence of Member
        All nodes in rank order: the parties and, last, the dealer if there is one.
    parties : int
        How many of them are parties.
    session : bytes
        16 bytes that all nodes agreed on for this run, and for no other.
    listener : socket.socket, optional
        A listening socket; the highest rank, who dials everybody, needs none.
    patience : Patience, optional
        How long to wait for others.
    buffer_bytes : int
        How much each peer may send us ahead of our receiving it.
    """

    def __init__(
        self,
        identity: Identity,
        rank: int,
        members: Sequence[Member],
        *,
        parties: int,
        session: bytes,
        listener: socket.socket | None = None,
        patience: Patience | None = None,
        buffer_bytes: int = _BUFFER_BYTES,
    ) -> None:
        if len(session) != SESSION_BYTES:
            raise ValueError(f"a session has {SESSION_BYTES} bytes")
        if len(members) not in (parties, parties + 1) or not 0 <= rank < len(members):
            raise ValueError(f"{len(members)} members do not make {parties} parties and at most one dealer")
        if len({member.certificate for member in members}) != len(members):
            raise ValueError("two members have the same certificate")
        if members[rank].certificate != identity.certificate:
            raise ValueError(f"our certificate is not the one of rank {rank}")
        self.rank = rank
        self.size = parties
        self.patience = patience or Patience()
        self._session = session
        self._listener = listener
        self._buffer_bytes = buffer_bytes
        self._links: dict[int, Link] = {}
        self._peers = [number for number in range(len(members)) if number != rank]
        self._doorkeeper = Doorkeeper(
            identity, rank, members, session, self._expects, self._on_connected, self._on_lost
        )
        self._complaints: dict[int, str] = {}
        self._fault: Fault | None = None
        self._ready = False
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._beat_timer: asyncio.TimerHandle | None = None

    # ---- opening --------------------------------------------------------------------------------

    async def __aenter__(self) -> Mesh:
        try:
            await self.connect()
        except BaseException as error:
            await self.stop(error)
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self.stop(error)
        await self.close()

    async def connect(self) -> None:
        """Connect to all other nodes.

        Raises
        ------
        PeerError
            When not all are there within ``connect_seconds``; names the first that is absent.
        """
        await self._doorkeeper.open(self._listener)
        dialling = []
        try:
            async with asyncio.timeout(self.patience.connect_seconds):
                async with asyncio.TaskGroup() as group:
                    for peer in range(self.rank):
                        dialling.append(group.create_task(self._doorkeeper.dial(peer, self._complain(peer))))
                    while self._fault is None and len(self._links) < len(self._peers):
                        self._news.clear()
                        await self._news.wait()
                    for task in dialling:
                        task.cancel()
        except TimeoutError:
            absent = [peer for peer in self._peers if peer not in self._links]
            self._fail(Fault(self._absence(absent), absent[0], CONNECT_STEP), tell=True)
        if self._fault is not None:
            raise self._fault.error(CONNECT_STEP)
        self._ready = True
        self._beat_timer = self._loop.call_later(self.patience.heartbeat_seconds, self._beat)

    def _complain(self, peer: int) -> Callable[[str], None]:
        def note(reason: str) -> None:
            self._complaints[peer] = reason

        return note

    def _absence(self, absent: Sequence[int]) -> str:
        names = ", ".join(
            name_of(peer, self.size) + (f" ({self._complaints[peer]})" if peer in self._complaints else "")
            for peer in absent
        )
        return f"not there within {self.patience.connect_seconds:g} s: {names}"

    def _expects(self, peer: int) -> Link | None:
        if self._ready or self._closing or self._fault is not None or peer in self._links:
            return None
        return Link(
            self.rank,
            peer,
            self.size,
            self._session,
            buffer_bytes=self._buffer_bytes,
            on_fault=self._on_fault,
            on_abort=self._on_abort,
        )

    def _on_connected(self, link: Link) -> None:
        self._links[link.peer] = link
        self._news.set()

    # ---- messages -------------------------------------------------------------------------------

    async def send(self, to: int, step: str, data: Buffer) -> None:
        """Send one message; suspends only while the peer does not keep up.

        Raises
        ------
        PeerError
            If the run has failed.
        """
        if self._fault is not None:
            raise self._fault.error(step)
        link = self._links[to]
        if link.finished:  # who has finished would not read it
            return
        congested = link.post(step, data)
        if congested is not None:
            await congested
            if self._fault is not None:
                raise self._fault.error(step)

    async def receive(self, frm: int, step: str, size: int) -> Buffer:
        """Receive the message of exactly ``size`` bytes.

        Raises
        ------
        PeerError
            If it does not come in time or has another length, if the peer cannot send it any more, or
            if the run has failed.
        """
        if self._fault is not None:
            raise self._fault.error(step)
        link = self._links[frm]
        message = link.take(step, size, True)
        return message if message is not None else await self._wait(link, step, size, True)

    async def receive_upto(self, frm: int, step: str, limit: int) -> Buffer:
        """Receive a message of at most ``limit`` bytes; raises as :meth:`receive`."""
        if self._fault is not None:
            raise self._fault.error(step)
        link = self._links[frm]
        message = link.take(step, limit, False)
        return message if message is not None else await self._wait(link, step, limit, False)

    async def _wait(self, link: Link, step: str, size: int, exact: bool) -> Buffer:
        deadline = min(self._loop.time() + self.patience.receive_seconds, self.patience.until)
        future = link.wait(step, size, exact, deadline)
        # One timer for all waits: who began to wait first is also the first whose patience ends.
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_at(deadline, self._sweep)
        try:
            return await future
        except asyncio.CancelledError:
            link.forget(step)
            raise

    @property
    def traffic(self) -> dict[int, Traffic]:
        """Bytes between us and each peer so far."""
        return {peer: link.traffic for peer, link in sorted(self._links.items())}

    # ---- faults ---------------------------------------------------------------------------------

    def _on_fault(self, link: Link, what: str, step: str | None) -> None:
        self._fail(Fault(what + (f" for step {step!r}" if step else ""), link.peer, step), tell=True)
        if link.wire is not None:
            link.wire.close()

    def _on_abort(self, link: Link, abort: Abort) -> None:
        text = f"{link.name} stopped: {abort.type_name}" + (f": {abort.text}" if abort.text else "")
        # A peer's word can blame a third one, but not us: that would make no sense in our report.
        culprit = abort.rank if abort.rank in self._peers else link.peer
        # Told on, since not all may be connected to all yet.
        self._fail(Fault(text, culprit, abort.step), tell=True)

    def _on_lost(self, link: Link, fault: Exception | None) -> None:
        if self._links.get(link.peer) is not link or link.finished or self._closing:
            return
        if not self._ready:
            # Somebody who comes and goes while we still wait for others may come again.
            del self._links[link.peer]
            self._complaints[link.peer] = "it went away again"
            self._news.set()
        if link.failed:
            return
        text = f"{link.name} went away without a goodbye"
        if fault is not None and not isinstance(fault, OSError):
            text = f"{link.name} sent {fault}"
        link.failed = True
        if self._ready:
            self._fail(Fault(text, link.peer), tell=True)

    def _fail(self, fault: Fault, *, tell: bool) -> None:
        if self._fault is not None:
            return
        self._fault = fault
        self._news.set()
        if tell:
            self._tell(Abort("PeerError", fault.text, fault.rank, fault.step))
        for link in self._links.values():
            link.fail_waiters(fault)

    def _tell(self, abort: Abort) -> None:
        # Whose fault it is hears of it like the others, if it still can: it may be a mere mistake.
        for link in self._links.values():
            if not link.finished:
                link.abort(abort)

    # ---- time -----------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """End the receives whose time is over; runs once in a time-out, not once in a receive."""
        timer, self._sweep_timer = self._sweep_timer, None
        now = self._loop.time()
        if timer is None or self._fault is not None or self._closing:
            return
        if now - timer.when() > _LATE_SECONDS:
            # We were busy ourselves: what is overdue may lie in the socket.
            self._sweep_timer = self._loop.call_later(_LATE_SECONDS, self._sweep)
            return
        oldest = [(link, link.oldest) for link in self._links.values()]
        waits = [(wait[1], link, wait[0]) for link, wait in oldest if wait is not None]
        if not waits:
            return
        deadline, link, step = min(waits, key=lambda wait: wait[0])
        if deadline > now:
            self._sweep_timer = self._loop.call_at(deadline, self._sweep)
            return
        text = f"{link.name} sent nothing for step {step!r} "
        if deadline < self.patience.until:
            text += f"within {self.patience.receive_seconds:g} s"
        else:
            text += "before the time for the run was over"
        if link.stalled:
            text += f"; {self._buffer_bytes} bytes of it wait to be received, which is all that may wait"
        self._fail(Fault(text, link.peer, step), tell=True)

    def _beat(self) -> None:
        """Ask the silent for a sign of life, and give up on those who did not answer."""
        self._beat_timer = self._loop.call_later(self.patience.heartbeat_seconds, self._beat)
        now = self._loop.time()
        for link in list(self._links.values()):
            wire = link.wire
            if wire is None or link.finished or link.failed:
                continue
            if link.stalled:
                wire.ping()  # we cannot hear it, but it can hear us
                continue
            silent = now - wire.last_heard
            if silent < self.patience.heartbeat_seconds / 2:
                link.suspected = False
            elif silent > self.patience.silence_seconds and link.suspected:
                text = f"{link.name} gave no sign of life for {silent:.0f} s"
                self._fail(Fault(text, link.peer), tell=True)
                wire.drop()
            else:
                # Only who stays silent for one more beat is given up: we may have been busy ourselves.
                link.suspected = silent > self.patience.silence_seconds
                wire.ping()

    # ---- closing --------------------------------------------------------------------------------

    async def abort(self, type_name: str, text: str, *, rank: int | None = None, step: str | None = None) -> None:
        """Tell all others that we stop, and why; does nothing if they were told already.

        Parameters
        ----------
        type_name : str
            Name of the exception class.
        text : str
            Free of data: it is told to the others. Empty if in doubt.
        rank : int, optional
            Whose fault it was, if not ours.
        step : str, optional
            Where it happened.
        """
        if self._closing or self._fault is not None:
            return
        culprit = self.rank if rank is None else rank
        self._tell(Abort(type_name, text, culprit, step))
        self._fail(Fault(f"we stopped: {type_name}", culprit, step), tell=False)

    async def stop(self, error: BaseException) -> None:
        """Tell all others that we stop because of an exception: its type, and its text if that holds no data."""
        if isinstance(error, PeerError):
            await self.abort(type(error).__name__, str(error), rank=error.rank, step=error.step)
        else:
            await self.abort(type(error).__name__, for_peers(error))

    async def close(self) -> None:
        """Say goodbye, unless the run failed, and close the links; waits for the others to take note."""
        if self._closing:
            return
        self._closing = True
        failed = self._fault is not None
        left = self._fault = self._fault or Fault("we have left", self.rank)
        for timer in (self._sweep_timer, self._beat_timer):
            if timer is not None:
                timer.cancel()
        try:
            await self._part(failed)
        finally:
            for link in self._links.values():
                link.fail_waiters(left)
            await self._doorkeeper.close()

    async def _part(self, failed: bool) -> None:
        wires = []
        for link in self._links.values():
            if link.wire is not None:
                if not failed:
                    link.goodbye()
                link.wire.say_close()
                wires.append(link.wire)
        if not wires:
            return
        try:
            # The answer to our close frame says that everything before it has arrived. A failed run has
            # nothing to deliver but its abort.
            seconds = self.patience.close_seconds
            seconds = min(seconds, _LAST_WORDS_SECONDS) if failed else seconds
            await asyncio.wait([wire.close_seen for wire in wires], timeout=seconds)
            for wire in wires:
                wire.close()
            await asyncio.wait([wire.closed for wire in wires], timeout=0.5)
        finally:
            for wire in wires:
                wire.drop()
        await asyncio.wait([wire.closed for wire in wires], timeout=0.5)
