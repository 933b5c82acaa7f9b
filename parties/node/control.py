"""Control channels: how two nodes of a consortium talk when no study is computed.

Messages of at most 1 MiB over a WebSocket on mutual TLS 1.3 between the nodes' own keys, or over a channel
of the same shape through a relay. Who is there is what the certificate says.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import aiohttp
from aiohttp import web

from parties.connect import AddressBook, NotConnectedError
from parties.identity import Identity, client_context, host_name, presented_certificate, server_context
from parties.node.doors import group_of

if TYPE_CHECKING:
    from collections.abc import Iterable

PATH = "/control"
MESSAGE_BYTES = 1 << 20
HANDSHAKE_SECONDS = 10.0
_LONGEST_REASON = 300
_MOST_PENDING = 128
_MOST_OF_ADDRESS = 16
# A member has one link, and another one while that is replaced.
_MOST_OF_MEMBER = 4


class ChannelClosedError(Exception):
    """The other side is gone; the text says how and holds no data."""


class Channel(Protocol):
    """Whole messages in order, both ways."""

    async def send(self, data: bytes) -> None:
        """Send one message; suspends while the other side does not keep up."""

    async def receive(self) -> bytes:
        """Return the next message."""

    async def close(self) -> None:
        """Close it, whatever the other side does."""


class SocketChannel:
    """A channel over a WebSocket of aiohttp."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse | web.WebSocketResponse) -> None:
        self._websocket = websocket

    async def send(self, data: bytes) -> None:
        """Send one message; see :class:`Channel`."""
        try:
            await self._websocket.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError, RuntimeError) as error:  # RuntimeError: it is closing
            raise ChannelClosedError(f"the connection broke ({type(error).__name__})") from None

    async def receive(self) -> bytes:
        """Return the next message; see :class:`Channel`."""
        message = await self._websocket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
            raise ChannelClosedError("it closed the connection")
        if message.type is aiohttp.WSMsgType.ERROR and isinstance(self._websocket.exception(), aiohttp.WebSocketError):
            raise ChannelClosedError("it sent a message that is too long or not well formed")
        raise ChannelClosedError("the connection broke")

    async def close(self) -> None:
        """Close it; see :class:`Channel`."""
        await self._websocket.close()


class ControlServer:
    """Takes connections that the node accepted for itself.

    Parameters
    ----------
    identity : Identity
        The node's key and certificate.
    pinned : iterable of bytes
        Certificates that get through TLS.
    admit : callable
        ``admit(certificate)`` returns the member's name, or None if it is none.
    serve : callable
        ``await serve(name, channel)`` for as long as the channel lives.
    refused : callable
        ``refused(address, reason)`` is told of connections that were turned away.
    """

    def __init__(
        self,
        identity: Identity,
        pinned: Iterable[bytes],
        *,
        admit: Callable[[bytes], str | None],
        serve: Callable[[str, Channel], Awaitable[None]],
        refused: Callable[[str, str], None],
    ) -> None:
        self._tls = server_context(identity, pinned)
        self._admit = admit
        self._serve = serve
        self._refused = refused
        self._server = web.Server(self._answer, access_log=None)
        self._pending: dict[asyncio.Task[None], str] = {}  # handshakes, and from where
        self._open: dict[str, list[asyncio.Transport]] = {}  # connections of each member, oldest first

    def trust(self, identity: Identity, pinned: Iterable[bytes]) -> None:
        """Use another certificate of ours, or other pinned ones, for connections from now on."""
        self._tls = server_context(identity, pinned)

    def take(self, connection: socket.socket) -> None:
        """Take a TCP connection on which TLS has not begun; never waits.

        Handshakes that are not done are bounded, in all and from one address: beyond that the connection
        is closed at once.
        """
        try:
            address = group_of(str(connection.getpeername()[0]))
        except OSError:
            connection.close()
            return
        of_address = sum(1 for other in self._pending.values() if other == address)
        if of_address >= _MOST_OF_ADDRESS or len(self._pending) >= _MOST_PENDING:
            connection.close()
            self._refused(address, "too many TLS handshakes at once")
            return
        task = asyncio.get_running_loop().create_task(self._shake_hands(connection, address))
        self._pending[task] = address
        task.add_done_callback(self._pending.pop)

    async def _shake_hands(self, connection: socket.socket, address: str) -> None:
        connection.setblocking(False)
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                self._server, connection, ssl=self._tls, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
            self._count(transport)
        except ssl.SSLError as error:
            self._refused(address, f"the TLS handshake failed: {tls_reason(error)}")
        except OSError as error:
            self._refused(address, f"the TLS handshake did not come to its end ({type(error).__name__})")

    def _count(self, transport: asyncio.Transport) -> None:
        """Bound a member's connections, whatever it does with them: the oldest goes."""
        certificate = presented_certificate(transport.get_extra_info("ssl_object"))
        name = None if certificate is None else self._admit(certificate)
        if name is None:  # its key was revoked since the pinned certificates were set
            self._refused("a revoked member", "its certificate is not in our consortium file")
            transport.abort()
            return
        alive = [one for one in self._open.get(name, []) if not one.is_closing()]
        while len(alive) >= _MOST_OF_MEMBER:
            alive.pop(0).abort()
        self._open[name] = [*alive, transport]

    async def close(self) -> None:
        """Close what is still open."""
        pending = list(self._pending)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        await self._server.shutdown(1.0)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None or request.path != PATH:
            raise web.HTTPNotFound
        certificate = presented_certificate(transport.get_extra_info("ssl_object"))
        if certificate is None:
            raise web.HTTPForbidden
        name = self._admit(certificate)
        if name is None:
            self._refused(request.remote or "an unknown address", "its certificate is not in our consortium file")
            raise web.HTTPForbidden
        websocket = web.WebSocketResponse(compress=False, max_msg_size=MESSAGE_BYTES)
        await websocket.prepare(request)
        try:
            await self._serve(name, SocketChannel(websocket))
        finally:
            await websocket.close()
        return websocket


class Dialler:
    """Dials other nodes directly.

    Parameters
    ----------
    identity : Identity
        The node's key and certificate.
    pinned : iterable of bytes
        The others' certificates.
    """

    def __init__(self, identity: Identity, pinned: Iterable[bytes]) -> None:
        self._tls = client_context(identity, pinned)
        self._hosts: dict[str, str] = {}
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=AddressBook(self._hosts), use_dns_cache=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    def trust(self, identity: Identity, pinned: Iterable[bytes]) -> None:
        """Use another certificate of ours, or other pinned ones, from now on."""
        self._tls = client_context(identity, pinned)

    async def dial(self, certificates: tuple[bytes, ...], host: str, port: int) -> Channel:
        """Connect to the node that holds one of these certificates (all of one key).

        Raises
        ------
        NotConnectedError
            Says why not, and what to do if that is known.
        """
        name = host_name(certificates[0])
        self._hosts[name] = host
        try:
            websocket = await self._client.ws_connect(
                f"wss://{name}:{port}{PATH}", ssl=self._tls, max_msg_size=MESSAGE_BYTES, compress=0
            )
        except aiohttp.WSServerHandshakeError as error:
            raise NotConnectedError(f"it refuses our connection (HTTP {error.status})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NotConnectedError(_dialling_reason(error)) from None
        if presented_certificate(websocket.get_extra_info("ssl_object")) not in certificates:
            await websocket.close()
            raise NotConnectedError("it shows a certificate that is another member's")
        return SocketChannel(websocket)

    async def close(self) -> None:
        """Release connections."""
        await self._client.close()


def tls_reason(error: ssl.SSLError) -> str:
    """Say in words what ended a TLS handshake, and what to do about it."""
    said = getattr(error, "verify_message", "") or error.reason or ""
    for mark, meaning in _TLS_REASONS.items():
        if mark in said.lower().replace("_", " "):
            return meaning
    return said.lower().replace("_", " ")[:_LONGEST_REASON] or "without a reason"


_THEIR_DOUBT = (
    "it may not accept our certificate (unknown there, or revoked): compare the consortium files' fingerprints"
)
_OUR_DOUBT = "its certificate is not in our consortium file (unknown, or revoked): compare the files' fingerprints"
_TLS_REASONS: Mapping[str, str] = {
    "alert certificate expired": "it says that our certificate has expired or is not yet valid by its clock",
    "alert unknown ca": _THEIR_DOUBT,
    "alert bad certificate": _THEIR_DOUBT,
    "alert certificate unknown": _THEIR_DOUBT,
    "certificate has expired": "its certificate has expired by our clock: it has to renew it (keygen --renew)",
    "not yet valid": "its certificate is not yet valid by our clock: compare the clocks",
    "self-signed certificate": _OUR_DOUBT,
    "self signed certificate": _OUR_DOUBT,
    "unable to get local issuer": _OUR_DOUBT,
    "hostname mismatch": "it holds another key than the one that was asked for",
    "did not return a certificate": "it showed no certificate",
    "wrong version number": "it does not speak TLS",
    "http request": "it does not speak TLS",
}


def _dialling_reason(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return tls_reason(cause)
        cause = getattr(cause, "os_error", None) or getattr(cause, "certificate_error", None) or cause.__cause__
    if isinstance(error, aiohttp.ServerDisconnectedError):
        # asyncio closes without the alert that would say why.
        return f"it closed the connection without a word: {_THEIR_DOUBT}"
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, ConnectionResetError):
        return "whoever is at its address does not hold its key, or is overloaded: check the address"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"nothing answers at its address ({type(error.os_error).__name__})"
    return f"it closed the connection ({type(error).__name__})"
