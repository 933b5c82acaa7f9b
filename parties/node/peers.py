"""Control links to the other members: who is there, since when, and why not.

Of each two nodes one dials, by the rule of the mesh: the one that comes later in the consortium file, if
both can be dialled; else the one that cannot; and if neither can, both meet at the relay. Who dials tries
again until it works, with growing pauses. A link begins with a hello of both sides, in which everything
that would spoil a study later is compared now: the consortium file, the clocks, the software.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from parties.connect import NotConnectedError
from parties.governance.canonical import canonical
from parties.governance.checks import parse_address
from parties.governance.consortium import Consortium, Member
from parties.governance.keys import NodeKey, expiry
from parties.node.control import Channel, ChannelClosedError, ControlServer, Dialler
from parties.node.hello import Hello, PeerStatus, ProtocolError, Timing, parse_message, shown, way

# What may wait for a peer that does not read. Nobody waits for room: two nodes that answer each other would
# wait for one another.
_QUEUE_BYTES = 64 << 20
_QUEUE_MESSAGES = 20_000
# A long message counts as so many of the messages that a peer may send in a second.
_BYTES_OF_ONE = 4096
_ATTEMPT_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class _Link:
    channel: Channel
    queue: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(_QUEUE_MESSAGES))
    waiting: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""

    def put(self, message: bytes) -> None:
        """Let a message wait for its turn; raises QueueFull if too much waits already."""
        if self.waiting + len(message) > _QUEUE_BYTES:
            raise asyncio.QueueFull
        self.queue.put_nowait(message)
        self.waiting += len(message)

    def taken(self, message: bytes) -> bytes:
        """Count a message that leaves the queue."""
        self.waiting -= len(message)
        return message

    def end(self, why: str) -> None:
        self.why = self.why or why
        self.over.set()


log = logging.getLogger(__name__)

Meet = Callable[[Member, bool], Awaitable[Channel]]


class Peers:
    """Links to all other members, made again whenever they are lost.

    Parameters
    ----------
    name : str
        Ours.
    key : NodeKey
        Ours.
    consortium : Consortium
        Who the others are.
    version : str
        Of our software.
    clock : callable
        Returns now, in UTC.
    on_up, on_down : callable
        Told the name of a peer when its link is up, or gone (with the reason).
    on_message : callable
        ``await on_message(name, message)`` for each message; a :class:`ProtocolError` ends the link.
    on_refused : callable
        ``on_refused(who, why)`` is told of connections that were turned away.
    meet : callable, optional
        ``await meet(member, initiator)`` returns a channel to that member through a relay.
    timing : Timing, optional
    """

    def __init__(
        self,
        name: str,
        key: NodeKey,
        consortium: Consortium,
        *,
        version: str,
        clock: Callable[[], datetime.datetime],
        on_up: Callable[[str], None],
        on_down: Callable[[str, str], None],
        on_message: Callable[[str, dict[str, Any]], Awaitable[None]],
        on_refused: Callable[[str, str], None],
        meet: Meet | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._name = name
        self._key = key
        self._consortium = consortium
        self._version = version
        self._clock = clock
        self._on_up, self._on_down = on_up, on_down
        self._on_message, self._on_refused = on_message, on_refused
        self._meet = meet
        self._timing = timing or Timing()
        self._links: dict[str, _Link] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._dialler = Dialler(key.identity, self._pinned())
        self._closing = ""
        self.server = ControlServer(
            key.identity, self._pinned(), admit=self._admit, serve=self._answer, refused=on_refused
        )
        self.status: dict[str, PeerStatus] = {}
        self._refresh()

    # ---- who is a peer --------------------------------------------------------------------------

    def _pinned(self) -> list[bytes]:
        return [each for one in self._consortium.members if one.name != self._name for each in one.certificates]

    def _admit(self, certificate: bytes) -> str | None:
        member = self._consortium.by_certificate(certificate)
        return None if member is None or member.name == self._name else member.name

    def _refresh(self) -> None:
        names = [one for one in self._consortium.names if one != self._name]
        self.status = {name: self.status.get(name) or PeerStatus(name) for name in names}
        for name in names:
            self.status[name].way = way(self._consortium, self._name, name)

    def trust(self, key: NodeKey, consortium: Consortium) -> None:
        """Go on with another certificate of ours or another consortium file; all links are made anew."""
        self._key, self._consortium = key, consortium
        self.server.trust(key.identity, self._pinned())
        self._dialler.trust(key.identity, self._pinned())
        self._refresh()
        for link in self._links.values():
            link.end("the consortium file was read again")
        self.start()

    # ---- the life of all links ------------------------------------------------------------------

    def start(self) -> None:
        """Begin to dial those whom we dial; others are told by :attr:`server`."""
        due = {name for name, status in self.status.items() if status.way in ("we dial", "relay")}
        for name, task in list(self._dialling.items()):
            if name not in due:
                task.cancel()
                del self._dialling[name]
        for name in due - self._dialling.keys():
            self._dialling[name] = asyncio.create_task(self._keep_dialling(name), name=f"dial {name}")

    async def close(self, why: str) -> None:
        """Tell the others that we go, and close everything."""
        self._closing = why
        for link in self._links.values():
            link.end(why)
        serving = [task for name, task in self._dialling.items() if name in self._links]
        if serving:  # they say goodbye
            await asyncio.wait(serving, timeout=3.0)
        for task in self._dialling.values():
            task.cancel()
        await asyncio.gather(*self._dialling.values(), return_exceptions=True)
        await self.server.close()
        await self._dialler.close()

    @property
    def connected(self) -> frozenset[str]:
        """Names of the members to which there is a link."""
        return frozenset(self._links)

    def trouble(self, name: str) -> str:
        """Say why there is no link to a member."""
        status = self.status.get(name)
        return "it is no member" if status is None else status.trouble

    def push(self, name: str, message: dict[str, Any]) -> None:
        """Send a message to a member if there is a link; never waits.

        A link that does not keep up is closed: what was missed is asked for when it is up again.
        """
        link = self._links.get(name)
        if link is not None:
            try:
                link.put(canonical(message))
            except asyncio.QueueFull:
                link.end("it does not take its messages")

    # ---- dialling -------------------------------------------------------------------------------

    async def _keep_dialling(self, name: str) -> None:
        timing = self._timing
        pause = timing.first_pause
        while not self._closing:
            try:
                async with asyncio.timeout(_ATTEMPT_SECONDS):
                    channel = await self._reach(name)
                if await self._serve(name, channel):
                    pause = timing.first_pause
            except NotConnectedError as error:
                self.status[name].trouble = str(error)
            except TimeoutError:
                self.status[name].trouble = f"it did not answer within {_ATTEMPT_SECONDS:g} s"
            except Exception as error:  # a fault in one conversation must not keep us from ever dialling again
                log.exception("a fault in talking to %s", name)
                self.status[name].trouble = f"a fault of our own ({type(error).__name__}): see the log"
            # By chance, so that nodes that lost each other at once do not all come back at once.
            await asyncio.sleep(pause * (0.5 + secrets.randbelow(1000) / 2000))
            pause = min(2 * pause, timing.longest_pause)

    async def _reach(self, name: str) -> Channel:
        ours = expiry(self._key.certificate).fault(self._clock())
        if ours is not None:
            raise NotConnectedError(f"our own certificate {ours}")
        member = self._consortium.member(name)
        faults = [fault for each in member.certificates if (fault := expiry(each).fault(self._clock()))]
        if len(faults) == len(member.certificates):
            raise NotConnectedError(f"its certificate {faults[0]}")
        if self.status[name].way == "relay":
            if self._meet is None:
                raise NotConnectedError("neither it nor we have an address, and no relay is set up")
            return await self._meet(member, self._name > name)
        if member.address is None:
            raise NotConnectedError("it has no address in the consortium file")
        return await self._dialler.dial(member.certificates, *parse_address(member.address))

    async def _answer(self, name: str, channel: Channel) -> None:
        """Serve a channel that a peer opened."""
        if not self._closing:
            with contextlib.suppress(NotConnectedError):  # it is in the status
                await self._serve(name, channel)

    # ---- one link -------------------------------------------------------------------------------

    async def _serve(self, name: str, channel: Channel) -> bool:
        """Live through one link; True if it was up."""
        link = _Link(channel)
        try:
            try:
                await self._greet(name, channel)
            except NotConnectedError as error:
                if name in self.status:
                    self.status[name].trouble = str(error)
                raise
            older = self._links.pop(name, None)
            if older is not None:  # it would not dial again if it had not lost that one
                older.end("it dialled again")
            self._links[name] = link
            status = self.status[name]
            status.connected, status.since, status.trouble = True, self._clock(), ""
            self._on_up(name)
            try:
                await self._talk(name, link)
            finally:
                if self._links.get(name) is link:
                    del self._links[name]
                    status.connected, status.since, status.trouble = False, self._clock(), link.why
                    self._on_down(name, link.why)
            return True
        finally:
            with contextlib.suppress(TimeoutError, ChannelClosedError):
                async with asyncio.timeout(2.0):
                    await channel.close()

    async def _greet(self, name: str, channel: Channel) -> None:
        """Exchange hellos; raise NotConnectedError if we do not fit together."""
        ours = Hello(self._name, self._consortium.fingerprint, self._version)
        try:
            async with asyncio.timeout(self._timing.hello):
                await channel.send(canonical(ours.message(self._clock())))
                theirs = parse_message(await channel.receive())
        except TimeoutError:
            raise NotConnectedError("it connects, but says no hello") from None
        except ChannelClosedError as error:
            raise NotConnectedError(str(error)) from None
        except ProtocolError as error:
            raise self._refuse(name, str(error)) from None
        wrong = ours.unfit(theirs, self.status[name], self._clock())
        if wrong:
            with contextlib.suppress(ChannelClosedError, TimeoutError):
                async with asyncio.timeout(2.0):
                    await channel.send(canonical({"kind": "bye", "why": wrong}))
            raise self._refuse(name, wrong)

    def _refuse(self, name: str, why: str) -> NotConnectedError:
        self._on_refused(name, why)
        return NotConnectedError(why)

    async def _talk(self, name: str, link: _Link) -> None:
        """Send and receive until one side ends it; ``link.why`` says how."""
        tasks = [
            asyncio.create_task(self._write(link)),
            asyncio.create_task(self._read(name, link)),
            asyncio.create_task(link.over.wait()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if isinstance(error, ProtocolError):
                    self._on_refused(name, str(error))
                    link.end(str(error))
                elif isinstance(error, ChannelClosedError):
                    link.end(str(error))
                elif error is not None:
                    raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(ChannelClosedError, TimeoutError, asyncio.QueueEmpty):
                async with asyncio.timeout(1.0):
                    while self._closing:  # the last words: outcomes of what was stopped
                        await link.channel.send(link.taken(link.queue.get_nowait()))
            with contextlib.suppress(ChannelClosedError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await link.channel.send(canonical({"kind": "bye", "why": link.why}))

    async def _write(self, link: _Link) -> None:
        while True:
            try:
                async with asyncio.timeout(self._timing.alive):
                    message = link.taken(await link.queue.get())
            except TimeoutError:
                message = canonical({"kind": "alive"})
            await link.channel.send(message)

    async def _read(self, name: str, link: _Link) -> None:
        loop = asyncio.get_running_loop()
        tokens, before = self._timing.burst, loop.time()
        while True:
            try:
                async with asyncio.timeout(self._timing.silent):
                    data = await link.channel.receive()
            except TimeoutError:
                raise ChannelClosedError(f"it was silent for {self._timing.silent:g} s") from None
            now = loop.time()
            tokens = (
                min(self._timing.burst, tokens + (now - before) * self._timing.rate) - 1 - len(data) / _BYTES_OF_ONE
            )
            before = now
            if tokens < 0:
                await asyncio.sleep(-tokens / self._timing.rate)
            message = parse_message(data)
            kind = message["kind"]
            if kind == "bye":
                raise ChannelClosedError(f"it says: {shown(message.get('why'))}")
            if kind != "alive":
                await self._on_message(name, message)
