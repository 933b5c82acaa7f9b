"""Making connections: accepting, dialling, meeting at a relay, and the hello with which each begins.

The server and the client of aiohttp do HTTP, TLS and the WebSocket handshake; who is there is what the
certificate says and nothing else. The dialling side speaks first and the other one keeps silent until
then, so that no byte can arrive between aiohttp's part of the connection and ours (:mod:`parties.wire`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from mpc.errors import SottovoceError
from parties.frames import FRAME_BYTES, FrameError, Hello, parse, parse_hello
from parties.gate import HANDSHAKE_SECONDS, Gate
from parties.identity import Identity, client_context, host_name, presented_certificate, server_context
from parties.line import Line
from parties.link import Link, Verdict
from parties.members import Member, Route
from parties.wire import Wire

if TYPE_CHECKING:
    from parties.relay.client import RelayAddress
    from parties.wire import MessageWire

_PATH = "/mesh"
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_AFTER_SUCCESS_SECONDS = 0.25
# While nobody has been there yet, everybody is about to start.
_LONGEST_FIRST_PAUSE_SECONDS = 0.5
# Connections that are handed to us before we can take them; of more, the first are stale.
_MOST_EARLY = 16
# Close code of our own (RFC 6455, section 7.4.2): authenticated, but not expected here and now.
_NOT_EXPECTED = 4000


class NotConnectedError(Exception):
    """One attempt to reach a peer failed; the text says why and holds no data."""


class Host(Protocol):
    """For whom connections are made: the mesh."""

    def link_to(self, peer: int) -> Link | None:
        """Return the link to a peer, or None if no connection to it is wanted any more."""

    def unwelcome(self, link: Link, verdict: Verdict, spoken: bool) -> Link | None:
        """Return another link that goes with a hello which this one cannot take, or None."""

    def connected(self, link: Link) -> None:
        """Take note that a link has a connection."""

    def lost(self, link: Link, fault: Exception | None) -> None:
        """Take note that a link's connection is gone."""


class _UpgradedWebSocket(aiohttp.ClientWebSocketResponse):
    """Keeps the HTTP response, through which the connection's transport can be had."""

    def __init__(
        self,
        reader: Any,
        writer: Any,
        protocol: Any,
        response: aiohttp.ClientResponse,
        *more: Any,
        **named: Any,
    ) -> None:
        super().__init__(reader, writer, protocol, response, *more, **named)
        self.response = response


class AddressBook(AbstractResolver):
    """Says where the node of a key is dialled.

    The name in the URL is the key's (:func:`parties.identity.host_name`), so that TLS asks for that key
    and checks that it is that key who answers, at whatever address.
    """

    def __init__(self, hosts: Mapping[str, str]) -> None:
        self._hosts = hosts
        self._names = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of the node whose key has the name ``host``."""
        address = self._hosts[host]
        try:
            version = ipaddress.ip_address(address).version
        except ValueError:
            found = await self._names.resolve(address, port, family)
            return [ResolveResult({**result, "hostname": host}) for result in found]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if version == 6 else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Release nothing."""
        await self._names.close()


class Doorkeeper:
    """Our side of all connections.

    Parameters
    ----------
    identity : Identity
        Our key and certificate.
    rank : int
        Our rank.
    members : sequence of Member
        All nodes in rank order, ourselves included.
    routes : mapping
        Of each peer's rank to how we connect to it.
    session : bytes
        What this run is called.
    host : Host
        Whose links the connections are for.
    passes : bytes, optional
        What shows a relay that we may use it.
    attempt_seconds : float
        How long one attempt to connect may take.
    """

    def __init__(
        self,
        identity: Identity,
        rank: int,
        members: Sequence[Member],
        routes: Mapping[int, Route],
        session: bytes,
        host: Host,
        passes: bytes | None,
        attempt_seconds: float,
    ) -> None:
        self._identity = identity
        self._rank = rank
        self._members = members
        self._routes = routes
        self._session = session
        self._host = host
        self._passes = passes
        self._attempt_seconds = attempt_seconds
        self._ranks = {member.certificate: number for number, member in enumerate(members)}
        self._names: list[str] = []
        self._server: web.Server | None = None
        self._gate: Gate | None = None
        self._early: deque[socket.socket] = deque()
        self._closed = False
        self._client: aiohttp.ClientSession | None = None
        self._client_tls: ssl.SSLContext | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self, listener: socket.socket | None) -> None:
        """Begin to accept connections, also on a socket that already listens, if there is one."""
        pinned = [member.certificate for number, member in enumerate(self._members) if number != self._rank]
        # A certificate that was not made for this fails here, and not in the middle of dialling.
        self._names = [host_name(member.certificate) for member in self._members]
        hosts = {name: member.host for name, member in zip(self._names, self._members, strict=True)}
        routes = self._routes.values()
        if any(route.dials and route.relay is None for route in routes):
            self._client_tls = client_context(self._identity, pinned)
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=AddressBook(hosts), use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                ws_response_class=_UpgradedWebSocket,
            )
        if listener is not None or any(route.waits for route in routes):
            self._server = web.Server(self._answer, access_log=None)
            self._gate = Gate(self._server, server_context(self._identity, pinned))
            for connection in self._early:
                self._gate.admit(connection)
            self._early.clear()
            if listener is not None:
                self._gate.listen(listener)

    def adopt(self, connection: socket.socket) -> None:
        """Take a TCP connection that somebody else accepted for us; it is ours from now on."""
        if self._gate is not None:
            self._gate.admit(connection)
            return
        self._early.append(connection)
        while len(self._early) > (0 if self._closed else _MOST_EARLY):
            self._early.popleft().close()

    async def close(self) -> None:
        """Stop accepting and close what is still open."""
        self._closed = True
        while self._early:
            self._early.popleft().close()
        try:
            if self._gate is not None:
                await self._gate.close()
            if self._server is not None:
                await self._server.shutdown(1.0)
        finally:
            if self._client is not None:
                await self._client.close()

    # ---- hello ----------------------------------------------------------------------------------

    def _take_hello(self, line: Line, message: bytes | bytearray) -> None:
        """Take the first message of a line that has begun."""
        found = self._decide(line.peer, message, line)
        if isinstance(found, str):
            line.refuse(found)
            return
        link, hello = found
        if hello is None:
            line.wire.write(link.hello())
            line.refuse("it remembers a link that we do not")
            return
        if line.speaker is None:
            # First is the old connection cut, so that what we say we have heard stays true.
            link.detach()
            line.wire.write(link.hello())
        link.attach(line, line.wire, hello)
        line.attached(link)
        self._host.connected(link)

    def _decide(self, peer: int, message: bytes | bytearray, line: Line | None) -> tuple[Link, Hello | None] | str:
        """Tell for which link a hello is; without the hello if it only should hear ours, or why it is refused."""
        try:
            frame = parse(message)
            hello = parse_hello(frame)
        except FrameError as error:
            return f"it sent {error}"
        if (frame.sender, frame.receiver, frame.session) != (peer, self._rank, self._session):
            return "it sent a hello for somebody else, or of another session"
        link = self._host.link_to(peer)
        speaker = None if line is None else line.speaker
        if link is None:
            return "it came too late"
        if line is not None and speaker is not None:
            # What we said on this line must be what we would say now.
            if speaker is not link or line.spoken != link.spoken or link.wire is not None:
                return "it came too late"
        verdict = link.judge(hello)
        if verdict is Verdict.WELCOME:
            return link, hello
        if verdict is Verdict.STALE and speaker is None and link.wire is None:
            return link, None
        other = self._host.unwelcome(link, verdict, speaker is not None)
        return (other, hello) if other is not None else "it is not where it was, or was started anew"

    # ---- being dialled --------------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None or request.path != _PATH:
            raise web.HTTPNotFound
        certificate = presented_certificate(transport.get_extra_info("ssl_object"))
        peer = None if certificate is None else self._ranks.get(certificate)
        route = None if peer is None else self._routes.get(peer)
        if peer is None or route is None or not route.waits:
            raise web.HTTPForbidden
        socket_ = web.WebSocketResponse(compress=False, max_msg_size=FRAME_BYTES + 1, autoping=True)
        with contextlib.suppress(ConnectionError):  # who goes away in the middle of this may come again
            await self._receive_member(request, transport, peer, socket_)
        if not socket_.prepared:
            raise web.HTTPBadRequest
        return socket_

    async def _receive_member(
        self, request: web.BaseRequest, transport: asyncio.Transport, peer: int, socket_: web.WebSocketResponse
    ) -> None:
        await socket_.prepare(request)
        try:
            hello = await socket_.receive_bytes(timeout=HANDSHAKE_SECONDS)
        except (TimeoutError, TypeError):  # TypeError: it is no binary message
            await socket_.close(code=_NOT_EXPECTED)
            return
        found = self._decide(peer, hello, None)
        if isinstance(found, str) or found[1] is None:
            if not isinstance(found, str):
                await socket_.send_bytes(found[0].hello())
            await socket_.close(code=_NOT_EXPECTED)
            return
        # No await from here to our hello: the dialling side is silent until it hears that.
        if self._gate is not None:
            self._gate.proven(request.protocol)
        line = Line(peer, self._take_hello, self._host.lost)
        wire = self._wire(transport, line, dialled=False)
        wire.count_received(hello)
        line.begin(wire, None)
        line.on_message(hello)
        if line.refused:
            wire.close()
        await asyncio.wait([wire.closed])  # not the future itself: who cancels us must not cancel it

    # ---- reaching -------------------------------------------------------------------------------

    async def keep(self, peer: int, vacant: asyncio.Event, failed: Callable[[str], None]) -> None:
        """Connect to a peer, and again each time the connection is gone, until cancelled.

        Parameters
        ----------
        peer : int
        vacant : asyncio.Event
            Set while there is no connection.
        failed : callable
            Told after each attempt what was wrong with it.
        """
        pause = 0.0
        since: float | None = None
        while True:
            await vacant.wait()
            # Who was there for longer than we would wait now was worth not waiting for.
            if since is not None and self._loop.time() - since > max(pause, _FIRST_PAUSE_SECONDS):
                pause = 0.0
            await asyncio.sleep(pause)
            link = self._host.link_to(peer)
            if link is None or link.wire is not None:
                vacant.clear()
                continue
            longest = _LONGEST_PAUSE_SECONDS if link.greeted else _LONGEST_FIRST_PAUSE_SECONDS
            pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), longest)
            since = None
            try:
                await self._attempt(peer)
                since = self._loop.time()
                pause = min(pause, _LONGEST_PAUSE_AFTER_SUCCESS_SECONDS)
            except (NotConnectedError, SottovoceError) as error:
                failed(str(error))
            except TimeoutError:
                failed("it did not answer")

    async def _attempt(self, peer: int) -> None:
        route = self._routes[peer]
        line = Line(peer, self._take_hello, self._host.lost)
        ends = self._loop.time() + self._attempt_seconds
        if route.relay is None:
            async with asyncio.timeout_at(ends):
                wire: MessageWire = await self._dial(peer, line)
            speaks_first = True
        else:
            # Waiting there for the peer is no failure, however long it takes.
            wire = await self._meet(peer, route.relay, line, route.dials)
            ends = self._loop.time() + self._attempt_seconds
            speaks_first = not route.dials
        try:
            current = self._host.link_to(peer)
            if current is None or current.wire is not None:
                raise NotConnectedError("it came too late")
            line.begin(wire, current if speaks_first else None)
            waits: list[asyncio.Future[Any]] = [line.greeted, wire.close_seen]
            async with asyncio.timeout_at(ends):
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            line.refuse("it did not answer")
            wire.drop()
            raise
        reason = line.greeted.result() if line.greeted.done() else "it does not expect us, or not in this session"
        if reason is not None:
            line.refuse(reason)
            wire.close()
            raise NotConnectedError(reason)

    async def _dial(self, peer: int, line: Line) -> Wire:
        member = self._members[peer]
        client = self._client
        if client is None or self._client_tls is None:
            raise RuntimeError("the doorkeeper is not open")
        try:
            websocket = await client.ws_connect(
                f"wss://{self._names[peer]}:{member.port}{_PATH}",
                ssl=self._client_tls,
                max_msg_size=FRAME_BYTES + 1,
                compress=0,
            )
        except aiohttp.ClientError as error:
            raise NotConnectedError(_reason(error)) from None
        except OSError as error:
            raise NotConnectedError(type(error).__name__) from None
        if not isinstance(websocket, _UpgradedWebSocket):
            raise TypeError("the client session makes other connections than ours")
        response = websocket.response
        connection = response.connection
        transport = None if connection is None else connection.transport
        if transport is None:
            response.close()
            raise NotConnectedError("it closed the connection")
        # The trust store holds the certificates of all members; this must be this one's.
        if presented_certificate(transport.get_extra_info("ssl_object")) != member.certificate:
            response.close()
            raise NotConnectedError("its certificate is not the agreed one")
        wire = self._wire(transport, line, dialled=True)
        wire.release = response.close  # also keeps the response, which closes when it is collected
        return wire

    async def _meet(self, peer: int, relay: RelayAddress, line: Line, begins: bool) -> MessageWire:
        from parties.relay.client import meet

        ends = sorted((self._rank, peer))
        context = b"".join((b"link", self._session, *(end.to_bytes(2, "big") for end in ends)))
        return await meet(
            relay,
            identity=self._identity,
            peer_certificate=self._members[peer].certificate,
            context=context,
            passes=self._passes,
            initiator=begins,
            on_message=line.on_message,
            on_lost=line.on_lost,
            limit=FRAME_BYTES,
        )

    def _wire(self, transport: asyncio.Transport, line: Line, *, dialled: bool) -> Wire:
        return Wire(transport, dialled=dialled, limit=FRAME_BYTES, on_message=line.on_message, on_lost=line.on_lost)


def _reason(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "the TLS handshake failed: its certificate, or ours, is not the agreed one"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"it refused the connection (HTTP {error.status})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"nothing answers at its address ({type(error.os_error).__name__})"
    return f"it closed the connection ({type(error).__name__})"
