"""A relay with a certificate of a private authority, members who know each other, and an HTTP proxy."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import functools
import ipaddress
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from parties.governance.consortium import Consortium, Member
from parties.governance.keys import NodeKey
from parties.identity import Identity, host_name, make_identity
from parties.relay.admission import CHALLENGE, HELLO, PAIRED, make_request, purpose_of
from parties.relay.client import RelayAddress, meet
from parties.relay.passes import Register, make_pass
from parties.relay.sealed_wire import SealedWire
from parties.relay.server import Limits, Relay

Run = Callable[[Awaitable[Any]], Any]
LIMIT = 256 * 1024
CONTEXT = b"session 1, north and city"
LOG = logging.getLogger("tests.relay")

# Python 3.13 takes an authority's certificate only if it says that it is one.
AUTHORITY = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def make_authority(directory: Path, names: tuple[str, ...] = ("127.0.0.1", "localhost")) -> tuple[Path, Path, Path]:
    """Make an authority and a server certificate of it; returns the files of the authority, certificate and key."""
    now = datetime.datetime.now(datetime.UTC)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of our own")])

    def builder(subject: x509.Name, public_key: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    authority = (
        builder(authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(AUTHORITY, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    certificate = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay")]), key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    files = tuple(directory / name for name in ("authority.pem", "relay.pem", "relay-key.pem"))
    files[0].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[2].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files[0], files[1], files[2]


@dataclass
class World:
    """Members, strangers, and the files of a relay."""

    directory: Path
    nodes: dict[str, Identity] = field(default_factory=dict)
    name: str = "trial"

    def __post_init__(self) -> None:
        self.authority, self.certificate, self.key = make_authority(self.directory)
        for name in ("north", "city", "south"):
            self.nodes[name] = make_identity(name)

    @property
    def consortium(self) -> Consortium:
        members = (Member(name, name.title(), "party", (each.certificate,)) for name, each in self.nodes.items())
        return Consortium(self.name, tuple(members))

    @property
    def register(self) -> Register:
        return Register([self.consortium])

    @functools.cached_property
    def trust(self) -> ssl.SSLContext:
        """What a client checks the relay's certificate with."""
        return ssl.create_default_context(cafile=str(self.authority))

    def server_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def address(self, port: int, **options: Any) -> RelayAddress:
        return RelayAddress(f"https://127.0.0.1:{port}", ca_file=str(self.authority), **options)

    def pass_of(self, member: str, holder: Identity, *, seconds: float = 60.0, consortium: str | None = None) -> bytes:
        key = NodeKey(self.nodes[member])
        return make_pass(
            key.sign, consortium or self.name, key.key_id, host_name(holder.certificate), time.time() + seconds
        )

    @contextlib.asynccontextmanager
    async def relay(
        self, limits: Limits | None = None, *, tidy: Callable[[], object] | None = None
    ) -> AsyncIterator[Running]:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        port = listener.getsockname()[1]
        names = ("127.0.0.1", "localhost")
        async with Relay(listener, self.register, names, self.server_tls(), LOG, limits, tidy) as relay:
            yield Running(relay, port, self.address(port))


@dataclass
class Running:
    """A relay that runs."""

    relay: Relay
    port: int
    address: RelayAddress


class Side:
    """One end: what it received, and how it ended."""

    def __init__(self, on_message: Callable[[bytes], None] | None = None) -> None:
        self.messages: list[bytes] = []
        self.lost: list[Exception | None] = []
        self.news = asyncio.Event()
        self.wire: SealedWire | None = None
        self._on_message = on_message

    def on_message(self, message: bytes | bytearray) -> None:
        if self._on_message is not None:
            self._on_message(bytes(message))
        else:
            self.messages.append(bytes(message))
        self.news.set()

    def on_lost(self, fault: Exception | None) -> None:
        self.lost.append(fault)
        self.news.set()

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.news.clear()
                await self.news.wait()

    @property
    def open(self) -> SealedWire:
        assert self.wire is not None
        return self.wire

    def write(self, message: bytes) -> None:
        self.open.write(message)


async def come(
    address: RelayAddress,
    us: Identity,
    peer: Identity,
    *,
    initiator: bool,
    context: bytes = CONTEXT,
    passes: bytes | None = None,
    side: Side | None = None,
) -> Side:
    """Meet a peer, and keep what it sends."""
    side = side or Side()
    side.wire = await meet(
        address,
        identity=us,
        peer_certificate=peer.certificate,
        context=context,
        passes=passes,
        initiator=initiator,
        on_message=side.on_message,
        on_lost=side.on_lost,
        limit=LIMIT,
    )
    return side


@contextlib.asynccontextmanager
async def joined(
    address: RelayAddress, one: Identity, other: Identity, **options: Any
) -> AsyncIterator[tuple[Side, Side]]:
    """Two ends that met; the first is the initiator."""
    async with asyncio.timeout(30):
        first, second = await asyncio.gather(
            come(address, one, other, initiator=True, **options),
            come(address, other, one, initiator=False, **options),
        )
    try:
        yield first, second
    finally:
        for side in (first, second):
            side.open.drop()
        await asyncio.wait([side.open.closed for side in (first, second)], timeout=2)


async def settle(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something holds that nobody tells us of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # nobody sets an event for us
            await asyncio.sleep(0.005)


class Proxy:
    """An HTTP proxy that lets connections through by CONNECT, in as few lines as it takes."""

    def __init__(self, user: str | None = None, password: str = "") -> None:
        self.asked: list[str] = []
        self._credentials = None if user is None else base64.b64encode(f"{user}:{password}".encode()).decode()
        self._tasks: set[asyncio.Task[None]] = set()
        self.status = 200

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._tunnel(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split(" ")
        assert method == "CONNECT"
        self.asked.append(target)
        status = self.status
        if (
            status == 200
            and self._credentials is not None
            and f"Proxy-Authorization: Basic {self._credentials}" not in head
        ):
            status = 407
        if status != 200:
            writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return
        host, _, port = target.rpartition(":")
        upstream_reader, upstream = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        try:
            await asyncio.gather(copy(reader, upstream), copy(upstream_reader, writer))
        finally:
            upstream.close()


@contextlib.asynccontextmanager
async def raw_guest(
    world: World, running: Running, us: str, peer: str, context: bytes = CONTEXT
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Ask as a member does, and then say what one likes."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{running.address.url}/relay", ssl=world.trust, max_msg_size=2**21, autoping=False
        ) as websocket,
    ):
        await websocket.send_bytes(HELLO)
        challenge = (await websocket.receive_bytes())[1:]
        there = host_name(world.nodes[peer].certificate)
        request = make_request(world.nodes[us], challenge, "127.0.0.1", there, purpose_of(context), None)
        await websocket.send_bytes(request)
        yield websocket


class HostileRelay:
    """A relay with a good certificate and bad intentions: lets everybody in, and does as it likes with messages.

    Parameters
    ----------
    world : World
    tamper : callable
        ``tamper(side, number, message)`` gives what is forwarded in place of message ``number`` of the guest
        who came first (side 0) or second (side 1).
    """

    def __init__(self, world: World, tamper: Callable[[int, int, bytes], list[bytes]] | None = None) -> None:
        self._world = world
        self._tamper = tamper or (lambda side, number, message: [message])
        self.guests: list[web.WebSocketResponse] = []
        self.seen: tuple[list[bytes], list[bytes]] = ([], [])
        self.both = asyncio.Event()

    async def __aenter__(self) -> HostileRelay:
        self._server = web.Server(self._answer, access_log=None)
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(self._server, "127.0.0.1", 0, ssl=self._world.server_tls())
        self.address = self._world.address(self._listening.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        await self._server.shutdown(0.5)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        websocket = web.WebSocketResponse(max_msg_size=2**20, timeout=0.5)
        await websocket.prepare(request)
        await websocket.receive_bytes()
        await websocket.send_bytes(CHALLENGE + bytes(32))
        await websocket.receive_bytes()
        side = len(self.guests)
        self.guests.append(websocket)
        if side:
            self.both.set()
        await self.both.wait()
        await websocket.send_bytes(PAIRED)
        with contextlib.suppress(TypeError, ConnectionError):
            while True:
                message = await websocket.receive_bytes()
                self.seen[side].append(message)
                for each in self._tamper(side, len(self.seen[side]) - 1, message):
                    await self.guests[1 - side].send_bytes(each)
        await self.guests[1 - side].close()
        return websocket
