"""The mesh: authenticated links from us to every other node, as the protocols want them.

A run ends with its first fault. Whoever sees a peer break a rule, go away for too long or fall silent
tells all the others, who stop too; the error names the peer and the step everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from mpc.errors import PeerError, for_peers
from parties.faults import Abort, Fault, Traffic
from parties.frames import SESSION_BYTES
from parties.identity import Identity
from parties.link import Link
from parties.links import CONNECT_STEP, Links, Phase
from parties.members import Member
from parties.watch import Patience

if TYPE_CHECKING:
    from mpc.transport import Buffer

__all__ = ["Member", "Mesh", "Patience"]

_BUFFER_BYTES = 64 * 1024 * 1024
# How long to wait for the others to take our abort: who is stuck is not waited for.
_LAST_WORDS_SECONDS = 1.0
# How long we stay for a peer that has finished, too, and may not know yet that we know.
_LINGER_SECONDS = 15.0


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
        A listening socket; who dials everybody needs none, nor does who is handed its connections
        (:meth:`adopt`).
    patience : Patience, optional
        How long to wait for others; ``resume_seconds`` makes links outlive their connections.
    buffer_bytes : int
        How much each peer may send us ahead of our receiving it.
    passes : bytes, optional
        What shows a relay that we may use it.
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
        passes: bytes | None = None,
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
        self._loop = asyncio.get_running_loop()
        self._meeting = Links(
            identity,
            rank,
            members,
            parties=parties,
            session=session,
            patience=self.patience,
            passes=passes,
            make_link=self._make_link,
            on_failed=self._fail,
        )
        self._links = self._meeting.by_rank
        self._watch = self._meeting.watch
        self._fault: Fault | None = None
        self._closing = False

    def _make_link(self, peer: int, name: str) -> Link:
        return Link(
            self.rank,
            peer,
            name,
            self._session,
            keeps=self.patience.resume_seconds > 0,
            buffer_bytes=self._buffer_bytes,
            on_fault=self._on_fault,
            on_abort=self._on_abort,
            on_parted=self._on_parted,
        )

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
        meeting = self._meeting
        await meeting.open(self._listener)
        try:
            async with asyncio.timeout(self.patience.connect_seconds):
                while self._fault is None and meeting.absent:
                    meeting.news.clear()
                    await meeting.news.wait()
        except TimeoutError:
            absent = meeting.absent
            names = ", ".join(meeting.named(peer) for peer in absent)
            text = f"not there within {self.patience.connect_seconds:g} s: {names}"
            self._fail(Fault(text, absent[0], CONNECT_STEP))
        if self._fault is not None:
            raise self._fault.error(CONNECT_STEP)
        meeting.phase = Phase.AT_WORK
        self._watch.begin()

    def adopt(self, connection: socket.socket) -> None:
        """Take a TCP connection of a peer that somebody else accepted for us; TLS has not begun on it.

        It is ours from now on, and closed if it turns out to be nobody's.
        """
        self._meeting.adopt(connection)

    @property
    def away(self) -> dict[int, float]:
        """How long each peer whose connection was lost has been away, in seconds."""
        return self._watch.away

    @property
    def reconnects(self) -> int:
        """How many connections were made anew."""
        return sum(max(0, link.connections - 1) for link in self._links.values())

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
        message = link.inbox.take(step, size, True)
        return message if message is not None else await self._wait(link, step, size, True)

    async def receive_upto(self, frm: int, step: str, limit: int) -> Buffer:
        """Receive a message of at most ``limit`` bytes; raises as :meth:`receive`."""
        if self._fault is not None:
            raise self._fault.error(step)
        link = self._links[frm]
        message = link.inbox.take(step, limit, False)
        return message if message is not None else await self._wait(link, step, limit, False)

    async def _wait(self, link: Link, step: str, size: int, exact: bool) -> Buffer:
        future = link.inbox.wait(step, size, exact, self._watch.deadline())
        try:
            return await future
        except asyncio.CancelledError:
            link.inbox.forget(step)
            raise

    @property
    def traffic(self) -> dict[int, Traffic]:
        """Bytes between us and each peer so far."""
        return {peer: link.traffic for peer, link in sorted(self._links.items())}

    # ---- faults ---------------------------------------------------------------------------------

    def _on_parted(self) -> None:
        self._meeting.news.set()

    def _on_fault(self, link: Link, what: str, step: str | None) -> None:
        self._fail(Fault(what + (f" for step {step!r}" if step else ""), link.peer, step))
        if link.wire is not None:
            link.wire.close()

    def _on_abort(self, link: Link, abort: Abort) -> None:
        text = f"{link.name} stopped: {abort.type_name}" + (f": {abort.text}" if abort.text else "")
        # A peer's word can blame a third one, but not us: that would make no sense in our report.
        culprit = abort.rank if abort.rank in self._links else link.peer
        # Told on, since not all may be connected to all yet.
        self._fail(Fault(text, culprit, abort.step))

    def _fail(self, fault: Fault) -> None:
        """End the run; all others are told."""
        self._end(fault, Abort("PeerError", fault.text, fault.rank, fault.step))

    def _end(self, fault: Fault, abort: Abort) -> None:
        if self._fault is not None:
            return
        self._fault = fault
        meeting = self._meeting
        meeting.phase = Phase.ENDING
        meeting.news.set()
        self._watch.stop_waiting()
        # Whose fault it is hears of it like the others, if it still can: it may be a mere mistake.
        for link in self._links.values():
            if not link.finished:
                link.abort(abort)
        for link in self._links.values():
            link.fail_waiters(fault)

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
        self._end(Fault(f"we stopped: {type_name}", culprit, step), Abort(type_name, text, culprit, step))

    async def stop(self, error: BaseException) -> None:
        """Tell all others that we stop because of an exception: its type, and its text if that holds no data."""
        if isinstance(error, PeerError):
            await self.abort(type(error).__name__, str(error), rank=error.rank, step=error.step)
        else:
            await self.abort(type(error).__name__, for_peers(error))

    async def close(self) -> None:
        """Say goodbye, unless the run failed, and close the links; waits for the others to take note.

        Where links are resumed, it waits until each peer has heard the goodbye, and with it all that was
        sent before, or until its time to resume is over.
        """
        if self._closing:
            return
        self._closing = True
        failed = self._fault is not None
        left = self._fault = self._fault or Fault("we have left", self.rank)
        self._meeting.phase = Phase.ENDING
        self._watch.stop_waiting()
        try:
            if not failed:
                for link in self._links.values():
                    link.goodbye()
            await self._be_heard(failed)
            await self._part(failed)
        finally:
            for link in self._links.values():
                link.fail_waiters(left)
            await self._meeting.close()

    async def _be_heard(self, failed: bool) -> None:
        """Wait until all who keep a link with us have heard our last word, and know that we know."""
        began = self._loop.time()
        heard: dict[int, float] = {}

        def until(link: Link, now: float) -> float:
            if link.owing:
                if failed:
                    return began + _LAST_WORDS_SECONDS
                patience = max(self.patience.close_seconds, self.patience.resume_seconds)
                return began + (min(patience, _LINGER_SECONDS) if link.finished and link.wire is None else patience)
            return heard.setdefault(link.peer, now) + self.patience.close_seconds if link.leaving else now

        while True:
            now = self._loop.time()
            ends = max(until(link, now) for link in self._links.values())
            if ends <= now:
                return
            self._meeting.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ends - now):
                    await self._meeting.news.wait()

    async def _part(self, failed: bool) -> None:
        self._meeting.phase = Phase.LEFT
        wires = []
        for link in self._links.values():
            if link.wire is not None:
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
