"""Setting up the mesh: each pair of nodes has one connection, which the higher rank dials.

The server and the client of aiohttp do HTTP, TLS and the WebSocket handshake; who is there is what the
certificate says and nothing else. A connection counts once both sides have said hello in the same
session. The dialling side speaks first and the other one keeps silent until then, so that no byte can
arrive between aiohttp's part of the connection and ours (:mod:`parties.wire`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from parties.frames import FRAME_BYTES, FrameError, Kind, parse
from parties.identity import Identity, client_context, host_name, presented_certificate, server_context
from parties.link import Link
from parties.wire import Wire

_PATH = "/mesh"
_HANDSHAKE_SECONDS = 15.0
_ATTEMPT_SECONDS = 20.0
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5
# Close code of our own (RFC 6455, section 7.4.2): authenticated, but not expected here and now.
_NOT_EXPECTED = 4000


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the others know it.

    Attributes
    ----------
    certificate : bytes
        DER, pinned.
    host, port : str, int
        Where it is dialled; a node that is never dialled may leave them empty.
    """

    certificate: bytes
    host: str = ""
    port: int = 0


class NotConnectedError(Exception):
    """One attempt to reach a peer failed; the text says why and holds no data."""


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
    """Our side of all connections: accepts those of higher ranks and dials those of lower ones.

    Parameters
    ----------
    identity : Identity
        Our key and certificate.
    rank : int
        Our rank.
    members : sequence of Member
        All nodes in rank order, ourselves included.
    session : bytes
        What this run is called.
    expects : callable
        ``expects(rank)`` gives a new :class:`Link` if a connection to that rank is due, else None.
    connected : callable
        Told of each link when both sides have said hello.
    lost : callable
        ``lost(link, fault)`` is told when a link's connection is gone.
    """

    def __init__(
        self,
        identity: Identity,
        rank: int,
        members: Sequence[Member],
        session: bytes,
        expects: Callable[[int], Link | None],
        connected: Callable[[Link], None],
        lost: Callable[[Link, Exception | None], None],
    ) -> None:
        self._identity = identity
        self._rank = rank
        self._members = members
        self._session = session
        self._expects = expects
        self._connected = connected
        self._lost = lost
        self._ranks = {member.certificate: number for number, member in enumerate(members)}
        self._names: list[str] = []
        self._server: web.Server | None = None
        self._listening: asyncio.Server | None = None
        self._client: aiohttp.ClientSession | None = None
        self._client_tls: ssl.SSLContext | None = None

    async def open(self, listener: socket.socket | None) -> None:
        """Begin to accept connections on a socket that already listens, if there is one."""
        pinned = [member.certificate for number, member in enumerate(self._members) if number != self._rank]
        # A certificate that was not made for this fails here, and not in the middle of dialling.
        self._names = [host_name(member.certificate) for member in self._members]
        hosts = {name: member.host for name, member in zip(self._names, self._members, strict=True)}
        if self._rank > 0:
            self._client_tls = client_context(self._identity, pinned)
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, resolver=AddressBook(hosts), use_dns_cache=False),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                ws_response_class=_UpgradedWebSocket,
            )
        if listener is not None:
            self._server = web.Server(self._answer, access_log=None)
            self._listening = await asyncio.get_running_loop().create_server(
                self._server,
                sock=listener,
                ssl=server_context(self._identity, pinned),
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                backlog=64,
            )

    async def close(self) -> None:
        """Stop accepting and close what is still open."""
        try:
            if self._listening is not None:
                self._listening.close()
            if self._server is not None:
                await self._server.shutdown(1.0)
        finally:
            if self._client is not None:
                await self._client.close()

    # ---- being dialled --------------------------------------------------------------------------

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None or request.path != _PATH:
            raise web.HTTPNotFound
        certificate = presented_certificate(transport.get_extra_info("ssl_object"))
        peer = None if certificate is None else self._ranks.get(certificate)
        if peer is None or peer <= self._rank:
            raise web.HTTPForbidden
        socket_ = web.WebSocketResponse(compress=False, max_msg_size=FRAME_BYTES + 1, autoping=True)
        await socket_.prepare(request)
        try:
            hello = await socket_.receive_bytes(timeout=_HANDSHAKE_SECONDS)
        except (TimeoutError, TypeError):  # TypeError: it is no binary message
            await socket_.close(code=_NOT_EXPECTED)
            return socket_
        link = self._expects(peer) if self._is_hello(hello, peer) else None
        if link is None:
            await socket_.close(code=_NOT_EXPECTED)
            return socket_
        # No await from here to hello(): the dialling side is silent until it hears that.
        wire = self._take_over(transport, link, dialled=False)
        wire.count_received(hello)
        link.on_message(hello)
        link.hello()
        self._connected(link)
        await asyncio.wait([wire.closed])  # not the future itself: who cancels us must not cancel it
        return socket_

    def _is_hello(self, message: bytes, peer: int) -> bool:
        try:
            frame = parse(message)
        except FrameError:
            return False
        return (frame.kind, frame.sender, frame.receiver, frame.session, frame.sequence) == (
            Kind.HELLO,
            peer,
            self._rank,
            self._session,
            0,
        )

    # ---- dialling -------------------------------------------------------------------------------

    async def dial(self, peer: int, failed: Callable[[str], None]) -> None:
        """Connect to a lower rank; tries again and again until cancelled.

        Parameters
        ----------
        failed : callable
            Told after each attempt what was wrong with it.
        """
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with asyncio.timeout(_ATTEMPT_SECONDS):
                    await self._attempt(peer)
                return
            except NotConnectedError as error:
                failed(str(error))
            except TimeoutError:
                failed("it did not answer")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _attempt(self, peer: int) -> None:
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
        link = self._expects(peer)
        if link is None:
            response.close()
            return
        wire = self._take_over(transport, link, dialled=True)
        wire.release = response.close  # also keeps the response, which closes when it is collected
        try:
            link.hello()
            waits: list[asyncio.Future[Any]] = [link.greeted, wire.close_seen]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if not link.greeted.done():
                raise NotConnectedError("it does not expect us, or not in this session")
            wrong = link.greeted.result()
            if wrong is not None:
                raise NotConnectedError(wrong)
        except BaseException:
            wire.drop()
            response.close()
            raise
        self._connected(link)

    def _take_over(self, transport: asyncio.Transport, link: Link, *, dialled: bool) -> Wire:
        wire = Wire(
            transport,
            dialled=dialled,
            limit=FRAME_BYTES,
            on_message=link.on_message,
            on_lost=lambda fault: self._lost(link, fault),
        )
        link.wire = wire
        return wire


def _reason(error: aiohttp.ClientError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "the TLS handshake failed: its certificate, or ours, is not the agreed one"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"it refused the connection (HTTP {error.status})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"nothing answers at its address ({type(error.os_error).__name__})"
    return f"it closed the connection ({type(error).__name__})"
