"""Meeting a peer at a relay: outbound HTTPS only, through a proxy where there must be one.

The connection is made by aiohttp and taken over by :mod:`parties.wire`, as those between nodes are. The
relay is silent until we speak, so no byte can arrive in between.
"""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from mpc.errors import SottovoceError
from parties.connect import NotConnectedError
from parties.governance.keys import expiry
from parties.identity import Identity, host_name
from parties.relay.admission import (
    CHALLENGE,
    HELLO,
    NONCE_BYTES,
    PAIRED,
    PATH,
    REASON_BYTES,
    REFUSED,
    WAIT,
    WAIT_SECONDS,
    make_request,
    purpose_of,
)
from parties.relay.sealed import OVERHEAD_BYTES, READY, Initiator, Responder, SealError
from parties.relay.sealed_wire import SealedWire
from parties.wire import Wire

_CONNECT_SECONDS = 20.0
_ANSWER_SECONDS = 15.0
_WAIT_SECONDS = 3 * WAIT_SECONDS
_TALK_BYTES = 1024  # more than any message before those of the link


class RelayAddressError(SottovoceError, ValueError):
    """The address of a relay or of a proxy is not one; says what it must be."""


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """Where a relay is, and how to get there.

    Attributes
    ----------
    url : str
        ``https://host`` or ``https://host:port``.
    ca_file : str or None
        PEM file of the authorities that are trusted to vouch for the relay; the system's if left out.
    proxy : str or None
        ``http://[user:password@]host:port`` of an HTTP proxy that lets connections through by CONNECT.
        It never shows in ``repr``.
    """

    url: str
    ca_file: str | None = None
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse what is no address."""
        _split(self.url, "https", "a relay is https://host or https://host:port", credentials=False)
        if self.proxy is not None:
            _split(self.proxy, "http", "a proxy is http://host:port or http://user:password@host:port")

    @property
    def host(self) -> str:
        """The host alone, as it is dialled."""
        return (urlsplit(self.url).hostname or "").lower()


def _split(url: str, scheme: str, otherwise: str, *, credentials: bool = True) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise RelayAddressError(otherwise) from None
    plain = url.isascii() and url.isprintable() and " " not in url
    more = parts.path.strip("/") or parts.query or parts.fragment or (parts.username is not None and not credentials)
    if not plain or parts.scheme != scheme or not parts.hostname or more:
        raise RelayAddressError(otherwise)


async def meet(
    address: RelayAddress,
    *,
    identity: Identity,
    peer_certificate: bytes,
    context: bytes,
    passes: bytes | None = None,
    initiator: bool,
    on_message: Callable[[bytes | bytearray], None],
    on_lost: Callable[[Exception | None], None],
    limit: int,
) -> SealedWire:
    """Meet a peer at a relay; waits, for as long as the caller lets it, until the peer is there.

    Parameters
    ----------
    address : RelayAddress
    identity : Identity
        Who we are.
    peer_certificate : bytes
        DER; whom we ask for. What counts is its key, and that it is valid now.
    context : bytes
        What the link is for: both ends must name the same. The relay learns its hash.
    passes : bytes, optional
        A pass of a member, if our key is not a member's own.
    initiator : bool
        Whether we begin the handshake; one end must, the other must not.
    on_message, on_lost : callable
        As for :class:`parties.wire.Wire`. Neither is called before this has returned and its caller has
        let go of the event loop.
    limit : int
        Longest message that is taken, in bytes; a relay forwards 256 KiB and no more.

    Returns
    -------
    SealedWire
        Nobody but the peer can read it or write to it.

    Raises
    ------
    NotConnectedError
        Saying why. If the peer did not come, the caller's own time-out ends the wait.
    """
    now = datetime.datetime.now(datetime.UTC)
    for whose, certificate in (("our", identity.certificate), ("its", peer_certificate)):
        fault = expiry(certificate).fault(now)
        if fault is not None:
            raise NotConnectedError(f"{whose} certificate {fault}")
    meeting = _Meeting(address, identity, peer_certificate, context, passes, initiator, on_message, on_lost)
    wire, release = await _connect(address, meeting, limit)
    wire.release = release
    try:
        sealed = await meeting.over(wire)
        if wire.closed.done():
            raise NotConnectedError("it came to the relay, and went away again")
    except BaseException:
        meeting.abandon()
        wire.drop()
        release()
        raise

    def gone() -> None:
        release()
        sealed.release()

    wire.release = gone
    asyncio.get_running_loop().call_soon(sealed.start)
    return sealed


class _Meeting:
    """What is said from the relay's challenge to the end of the handshake; one method a state."""

    def __init__(
        self,
        address: RelayAddress,
        identity: Identity,
        peer_certificate: bytes,
        context: bytes,
        passes: bytes | None,
        initiator: bool,
        on_message: Callable[[bytes | bytearray], None],
        on_lost: Callable[[Exception | None], None],
    ) -> None:
        self._address = address
        self._identity = identity
        self._peer = host_name(peer_certificate)
        self._purpose = purpose_of(context)
        self._passes = passes
        self._handshake = (Initiator if initiator else Responder)(identity, peer_certificate, context)
        self._initiator = initiator
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._sealed: SealedWire | None = None
        self._done: asyncio.Future[SealedWire] = self._loop.create_future()
        self._silence = f"the relay {address.url} does not answer"
        self._deadline = 0.0
        self._paired = False
        self.take: Callable[[bytes | bytearray], None] = self._challenged

    async def over(self, wire: Wire) -> SealedWire:
        """Speak first, and wait until all has been said."""
        self._wire = wire
        self._deadline = self._loop.time() + _ANSWER_SECONDS
        wire.write(HELLO)
        while not self._done.done():
            left = self._deadline - self._loop.time()
            if left <= 0:
                raise NotConnectedError(self._silence)
            await asyncio.wait([self._done], timeout=left)
        return self._done.result()

    def abandon(self) -> None:
        """Give up: whatever is still said leads to nothing."""
        self.take = _ignore
        self._done.cancel()

    def on_message(self, message: bytes | bytearray) -> None:
        """Take a message of the relay, or later of the peer."""
        if self._sealed is None and len(message) > _TALK_BYTES:
            self._fail(f"the relay {self._address.url} sent {len(message)} bytes out of turn")
            return
        self.take(message)

    def on_lost(self, fault: Exception | None) -> None:
        """Take note that the connection is gone."""
        if self._sealed is not None:
            self._sealed.lost(fault)
        elif self._paired:
            self._fail("it came to the relay, and the connection ended during the handshake")
        else:
            self._fail(f"the relay {self._address.url} closed the connection")

    def _fail(self, why: str) -> None:
        self.take = _ignore
        if not self._done.done():
            self._done.set_exception(NotConnectedError(why))

    def _say(self, message: bytes) -> None:
        if self._wire is not None:
            self._wire.write(message)

    def _next(self, state: Callable[[bytes | bytearray], None], seconds: float, silence: str) -> None:
        self.take = state
        self._silence = silence
        self._deadline = self._loop.time() + seconds

    def _challenged(self, message: bytes | bytearray) -> None:
        nonce = bytes(message[1:])
        if message[:1] != CHALLENGE or len(nonce) != NONCE_BYTES:
            self._refused(message)
            return
        self._say(make_request(self._identity, nonce, self._address.host, self._peer, self._purpose, self._passes))
        self._next(self._waiting, _ANSWER_SECONDS + _WAIT_SECONDS, f"the relay {self._address.url} fell silent")

    def _waiting(self, message: bytes | bytearray) -> None:
        if message == WAIT:
            self._next(self._waiting, _WAIT_SECONDS, self._silence)
        elif message == PAIRED:
            self._paired = True
            self._next(self._talking, _ANSWER_SECONDS, "it came to the relay, and does not finish the handshake")
            if self._initiator:
                self._say(self._handshake.step() or b"")
        else:
            self._refused(message)

    def _refused(self, message: bytes | bytearray) -> None:
        if message[:1] == REFUSED:
            reason = bytes(message[1 : 1 + REASON_BYTES]).decode("utf-8", "replace")
            shown = "".join(char if char.isprintable() else " " for char in reason)
            self._fail(f"the relay {self._address.url} refused us: {shown}")
        else:
            self._fail(f"the relay {self._address.url} speaks another protocol")

    def _talking(self, message: bytes | bytearray) -> None:
        try:
            answer = self._handshake.step(message)
            if answer is not None:
                self._say(answer)
            if self._initiator:
                # The peer's first word shows that it has the keys, and has taken its connection over.
                self.take = self._confirmed
            elif answer is None:
                start, ready = self._handshake.keys.seal.seal(READY, b"")
                self._say(start + ready)
                self._finish()
        except SealError as error:
            self._fail(f"somebody is at the relay in its place, or alters what it says: it sent {error}")

    def _confirmed(self, message: bytes | bytearray) -> None:
        try:
            if self._handshake.keys.unseal.open(message) != (READY, b""):
                raise SealError("a sealed message out of turn")
        except SealError as error:
            self._fail(f"it sent {error}")
            return
        self._finish()

    def _finish(self) -> None:
        if self._wire is None or self._done.done():
            return
        keys = self._handshake.keys
        self._sealed = SealedWire(self._wire, keys, on_message=self._on_message, on_lost=self._on_lost)
        self.take = self._sealed.take
        self._done.set_result(self._sealed)


def _ignore(message: bytes | bytearray) -> None:
    """Take nothing more from a relay that was wrong once."""


# ---- getting there --------------------------------------------------------------------------------


class _Upgraded(aiohttp.ClientWebSocketResponse):
    """Keeps the HTTP response, through which the connection's transport can be had."""

    def __init__(self, reader: Any, writer: Any, protocol: Any, response: Any, *more: Any, **named: Any) -> None:
        super().__init__(reader, writer, protocol, response, *more, **named)
        self.response: aiohttp.ClientResponse = response


async def _connect(address: RelayAddress, meeting: _Meeting, limit: int) -> tuple[Wire, Callable[[], object]]:
    """Connect to the relay; returns the wire, and what is to be called when it is gone."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, use_dns_cache=False, resolver=aiohttp.ThreadedResolver()),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        ws_response_class=_Upgraded,
    )
    try:
        trust = await asyncio.to_thread(_trust, address)  # reading all authorities takes a while
        async with asyncio.timeout(_CONNECT_SECONDS):
            websocket = await session.ws_connect(
                address.url.rstrip("/") + PATH,
                ssl=trust,
                proxy=address.proxy,
                max_msg_size=_TALK_BYTES,
                compress=0,
            )
    except aiohttp.ClientError as error:
        raise NotConnectedError(_reason(address, error)) from None
    except TimeoutError:
        raise NotConnectedError(f"the relay {address.url} does not answer") from None
    except OSError as error:
        raise NotConnectedError(f"the relay {address.url} cannot be reached ({type(error).__name__})") from None
    else:
        if not isinstance(websocket, _Upgraded):
            raise TypeError("the client session makes other connections than ours")
        response = websocket.response
        connection = response.connection
        transport = None if connection is None else connection.transport
        if transport is None:
            response.close()
            raise NotConnectedError(f"the relay {address.url} closed the connection")
        wire = Wire(
            transport,
            dialled=True,
            limit=max(limit + OVERHEAD_BYTES, _TALK_BYTES),
            on_message=meeting.on_message,
            on_lost=meeting.on_lost,
        )
        session.detach()  # the connection is ours now, and ends with the wire
        return wire, response.close
    finally:
        await session.close()


def _trust(address: RelayAddress) -> ssl.SSLContext:
    """Return the TLS context for a relay, whose certificate and host name are checked as a browser does."""
    if address.ca_file is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=address.ca_file)
    except OSError as error:  # errors of ssl are among them
        raise NotConnectedError(
            f"the authorities in {address.ca_file} cannot be read ({type(error).__name__}): it must be a PEM file"
        ) from None


def _reason(address: RelayAddress, error: aiohttp.ClientError) -> str:
    relay = f"the relay {address.url}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status == 407:
            return "the proxy asks for a user and a password, or for others (HTTP 407)"
        return f"the proxy does not let us through to {relay} (HTTP {error.status})"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"nothing answers at the proxy's address ({type(error.os_error).__name__})"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or "it does not say why"
        return (
            f"the TLS certificate of {relay} is not trusted here ({why}): is its authority in the file of authorities?"
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return f"the TLS handshake with {relay} failed"
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"{relay} does not speak as a relay does (HTTP {error.status})"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"nothing answers at {relay} ({type(error.os_error).__name__})"
    return f"{relay} closed the connection ({type(error).__name__})"
