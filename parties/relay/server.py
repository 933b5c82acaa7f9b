"""The relay: joins nodes that may only dial out, two by two, and forwards what they seal for each other.

It serves the members of the consortia in its files, and whoever shows a pass of one of them
(:mod:`parties.relay.passes`). What it sees is who asks for whom and when, the addresses that they come
from, and sizes and times of messages; what it can do is delay, drop and close. It holds no key of the
two ends, so it reads nothing, and whatever it changes is noticed (:mod:`parties.relay.sealed`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from aiohttp import WSMsgType, web

from parties.relay.admission import (
    CHALLENGE,
    HELLO,
    NONCE_BYTES,
    PAIRED,
    PATH,
    REFUSED,
    REQUEST_BYTES,
    WAIT,
    WAIT_SECONDS,
    AdmissionError,
    Guest,
    admit,
)
from parties.relay.door import Door
from parties.relay.figures import Figures, Journal
from parties.relay.forward import Pair
from parties.relay.passes import Register

_SWEEP_SECONDS = 5.0
# Of somebody who waits we expect at least that it takes our word, every 20 s, that it still has to.
_WATCH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a relay takes, whoever asks.

    Attributes
    ----------
    handshake_seconds : float
        From the connection to an acceptable request.
    idle_seconds : float
        After so long without a message from either end two ends are parted.
    waiting_per_key, waiting_per_member, waiting : int
        How many ends may wait for their other end: of a key, of a member and all its workers, in all.
    connections, connections_per_address : int
        At once.
    unknown : int
        Of these, how many that have not yet said who they are.
    """

    handshake_seconds: float = 10.0
    idle_seconds: float = 300.0
    waiting_per_key: int = 64
    waiting_per_member: int = 256
    waiting: int = 1024
    connections: int = 4096
    connections_per_address: int = 1024
    unknown: int = 256


@dataclass(slots=True)
class _Seat:
    """Somebody who waits; ``called`` gets the pair that it became part of, or why it waits no more."""

    guest: Guest
    transport: asyncio.Transport
    protocol: asyncio.BaseProtocol
    called: asyncio.Future[Pair | str]


class Relay:
    """A relay on a listening socket; ``async with`` it.

    Parameters
    ----------
    listener : socket.socket
        Listens already.
    register : Register
        Whom it serves.
    names : sequence of str
        Host names and addresses by which it is dialled; ``*.example.org`` stands for one more label.
    tls : ssl.SSLContext or None
        None behind a reverse proxy on this machine, which does TLS.
    logger : logging.Logger
    limits : Limits, optional
    tidy : callable, optional
        Called whenever 64 connections have gone.
    """

    def __init__(
        self,
        listener: socket.socket,
        register: Register,
        names: Sequence[str],
        tls: ssl.SSLContext | None,
        logger: logging.Logger,
        limits: Limits | None = None,
        tidy: Callable[[], object] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.figures = Figures()
        self._listener = listener
        self._register = register
        self._names = _lower(names)
        self._journal = Journal(logger, self.figures)
        self._loop = asyncio.get_running_loop()
        self._door = Door(
            self._answer,
            tls,
            in_all=self.limits.connections,
            unknown=self.limits.unknown,
            per_address=self.limits.connections_per_address if tls is not None else None,
            seconds=self.limits.handshake_seconds,
            turned_away=lambda why, place: self._journal.refused(why, f"{why}, from {place}"),
            tidy=tidy,
        )
        self._seats: dict[tuple[str, str, bytes], _Seat] = {}
        self._seats_by_key: Counter[str] = Counter()
        self._seats_by_member: Counter[str] = Counter()
        self._pairs: dict[tuple[str, str, bytes], Pair] = {}
        self._sweeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Relay:
        self._door.open(self._listener)
        self._sweeping = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._door.shut()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        for seat in list(self._seats.values()):
            self._stand_up(seat, "the relay stops")
        pairs = set(self._pairs.values())
        for pair in pairs:
            pair.end("the relay stops")
        closing = [end.closed for pair in pairs for end in pair.ends]
        if closing:
            await asyncio.wait(closing, timeout=1.0)
            for pair in pairs:
                for end in pair.ends:
                    end.drop()
        await self._door.shutdown(1.0)

    async def forever(self) -> None:
        """Wait; ends by being cancelled, or by an error that ends the relay."""
        if self._sweeping is not None:
            await self._sweeping

    @property
    def now(self) -> dict[str, int]:
        """What there is at the moment."""
        return {"connections": self._door.count, "waiting": len(self._seats), "pairs": len(set(self._pairs.values()))}

    def serve(self, register: Register, names: Sequence[str], tls: ssl.SSLContext | None) -> None:
        """Serve these members under these names from now on; who is no longer among them is shown out."""
        self._register, self._names, self._door.tls = register, _lower(names), tls
        self._journal.note(f"serving {len(register)} members")
        self._expel("its member is no longer served", lambda guest: register.member(guest.member_key) is None)

    def _expel(self, why: str, over: Callable[[Guest], bool]) -> None:
        for seat in [each for each in self._seats.values() if over(each.guest)]:
            self._stand_up(seat, why)
        for pair in [each for each in self._pairs.values() if any(over(end.guest) for end in each.ends)]:
            pair.end(why)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._journal.settle()
            self._expel("the pass has expired", _has_expired)
            idle = self._loop.time() - self.limits.idle_seconds
            for pair in [each for each in self._pairs.values() if each.last_heard < idle]:
                pair.end(f"silent for {self.limits.idle_seconds:g} s")

    # ---- one guest ------------------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/healthz":
            return web.Response(text="ok\n")
        websocket = web.WebSocketResponse(compress=False, max_msg_size=REQUEST_BYTES, autoping=False, timeout=1.0)
        if request.path != PATH or not websocket.can_prepare(request) or request.transport is None:
            raise web.HTTPNotFound
        transport, place = request.transport, request.remote or "an address that is gone"
        await websocket.prepare(request)
        try:
            guest = await self._ask(websocket)
            seat = self._seat(guest, transport, request.protocol)
        except AdmissionError as error:
            self._journal.refused("request", f"{error}, from {place}")
            await self._refuse(websocket, str(error))
            return websocket
        except (TimeoutError, TypeError, ConnectionError):  # TypeError: no binary message
            self._journal.refused("no request", f"no request, from {place}")
            await websocket.close()
            return websocket
        self._door.welcome(request.protocol)
        try:
            called = await self._wait(websocket, seat)
        finally:
            self._forget(seat)
        if isinstance(called, Pair):
            end = called.ends[0] if called.ends[0].guest is guest else called.ends[1]
            await asyncio.wait([end.closed])  # not the future itself: who cancels us must not cancel it
        elif called:
            await self._refuse(websocket, called)
        else:
            await websocket.close()
        return websocket

    async def _refuse(self, websocket: web.WebSocketResponse, why: str) -> None:
        try:
            await websocket.send_bytes(REFUSED + why.encode("utf-8"))
            await websocket.close()
        except ConnectionError:
            pass  # it left before it heard why

    async def _ask(self, websocket: web.WebSocketResponse) -> Guest:
        async with asyncio.timeout(self.limits.handshake_seconds):
            if await websocket.receive_bytes() != HELLO:
                raise AdmissionError("this is not the beginning of a request: is it of another version?")
            challenge = secrets.token_bytes(NONCE_BYTES)
            await websocket.send_bytes(CHALLENGE + challenge)
            request = await websocket.receive_bytes()
        return admit(request, challenge, self._is_us, self._register, time.time())

    def _is_us(self, host: str) -> bool:
        host = host.lower()
        return host in self._names or f"*.{host.partition('.')[2]}" in self._names

    # ---- waiting --------------------------------------------------------------------------------

    def _seat(self, guest: Guest, transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> _Seat:
        if not self._door.is_open(protocol):
            raise ConnectionResetError
        limits = self.limits
        place = (guest.key, guest.peer, guest.purpose)
        # Who comes again for the same thing has lost what he had, even where we did not notice.
        old = self._seats.get(place)
        if old is not None:
            self._stand_up(old, "the same key came again for the same purpose")
        pair = self._pairs.get(place)
        if pair is not None:
            pair.end(f"{guest} came again")
        seat = _Seat(guest, transport, protocol, self._loop.create_future())
        other = self._seats.get((guest.peer, guest.key, guest.purpose))
        if other is not None and self._door.is_open(other.protocol):
            self._join(seat, other)
            return seat
        if len(self._seats) >= limits.waiting:
            raise AdmissionError(f"{limits.waiting} ends wait here already, which is all that may")
        if self._seats_by_key[guest.key] >= limits.waiting_per_key:
            raise AdmissionError(f"{limits.waiting_per_key} ends of this key wait here already, which is all that may")
        if self._seats_by_member[guest.member_key] >= limits.waiting_per_member:
            raise AdmissionError(f"{limits.waiting_per_member} ends of {guest.member} wait here already")
        self._seats[place] = seat
        _keep_watch(transport, _WATCH_SECONDS)
        self._seats_by_key[guest.key] += 1
        self._seats_by_member[guest.member_key] += 1
        return seat

    def _stand_up(self, seat: _Seat, called: Pair | str) -> None:
        self._forget(seat)
        if not seat.called.done():
            seat.called.set_result(called)

    def _forget(self, seat: _Seat) -> None:
        guest = seat.guest
        place = (guest.key, guest.peer, guest.purpose)
        if self._seats.get(place) is seat:
            del self._seats[place]
            for count, name in ((self._seats_by_key, guest.key), (self._seats_by_member, guest.member_key)):
                count[name] -= 1
                if not count[name]:
                    del count[name]

    async def _wait(self, websocket: web.WebSocketResponse, seat: _Seat) -> Pair | str:
        """Wait until the guest is called; an empty text if it left before."""
        # It has nothing to say until then, so the first thing that we hear means that it goes.
        hearing = asyncio.create_task(_hear(websocket))
        try:
            while not seat.called.done():
                waits: list[asyncio.Future[Any]] = [hearing, seat.called]
                await asyncio.wait(waits, timeout=WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if hearing.done() and not seat.called.done():
                    return hearing.result()
                if not seat.called.done():
                    await websocket.send_bytes(WAIT)
            return seat.called.result()
        except ConnectionError:
            return ""
        finally:
            hearing.cancel()

    # ---- joining --------------------------------------------------------------------------------

    def _join(self, seat: _Seat, other: _Seat) -> None:
        """Join two ends, without a wait in between: neither says anything before it hears that it is paired."""
        pair = Pair((seat.transport, seat.guest), (other.transport, other.guest), self._over)
        for each in (seat, other):
            self._pairs[each.guest.key, each.guest.peer, each.guest.purpose] = pair
            self._stand_up(each, pair)
            _keep_watch(each.transport, 0)  # an end that does not read for long is no end that is gone
        for end in pair.ends:
            end.write(PAIRED)
        self.figures.paired += 1
        self._journal.note(f"joined {seat.guest} and {other.guest}")

    def _over(self, pair: Pair) -> None:
        for end in pair.ends:
            place = (end.guest.key, end.guest.peer, end.guest.purpose)
            if self._pairs.get(place) is pair:
                del self._pairs[place]
        first, second = pair.ends
        self.figures.messages += first.messages + second.messages
        self.figures.bytes += first.bytes_received + second.bytes_received
        self._journal.note(
            f"parted {first.guest} and {second.guest} after {self._loop.time() - pair.began:.1f} s, "
            f"{first.bytes_received} and {second.bytes_received} bytes: {pair.why}"
        )


def _lower(names: Sequence[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def _has_expired(guest: Guest) -> bool:
    return guest.expires is not None and guest.expires <= time.time()


async def _hear(websocket: web.WebSocketResponse) -> str:
    """Wait for what somebody says who has nothing to say; empty if it left."""
    try:
        message = await websocket.receive()
    except (ConnectionError, RuntimeError):  # RuntimeError: it is closed
        return ""
    left = message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)
    return "" if left or websocket.closed else "a message out of turn"


def _keep_watch(transport: asyncio.Transport, seconds: float) -> None:
    """Have the system close a connection whose other side takes nothing for so long; 0: never."""
    connection = transport.get_extra_info("socket")
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):  # it is gone already
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))
