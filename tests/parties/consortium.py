"""Meshes over real TLS sockets for tests, in one event loop, and a peer that does not keep the rules."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from parties.connect import AddressBook
from parties.frames import Hello, Kind, pack_header, pack_hello
from parties.identity import Identity, client_context, host_name, make_identity
from parties.mesh import Member, Mesh, Patience

QUICK = Patience(
    connect_seconds=5.0, receive_seconds=5.0, heartbeat_seconds=1.0, silence_seconds=3.0, close_seconds=0.15
)
Run = Callable[[Awaitable[Any]], Any]
SESSION = b"a session of ours"[:16]


@dataclass
class Consortium:
    """Identities, listening sockets and members of some nodes."""

    identities: list[Identity]
    listeners: list[socket.socket]
    members: list[Member]
    parties: int

    @classmethod
    def found(cls, parties: int, *, dealer: bool = False) -> Consortium:
        count = parties + dealer
        identities = [make_identity(f"node {rank}") for rank in range(count)]
        listeners = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(count)]
        members = [
            Member(identity.certificate, *listener.getsockname())
            for identity, listener in zip(identities, listeners, strict=True)
        ]
        return cls(identities, listeners, members, parties)

    def __enter__(self) -> Consortium:
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self.listeners:
            listener.close()

    def mesh(self, rank: int, patience: Patience = QUICK, **options: Any) -> Mesh:
        return Mesh(
            options.pop("identity", self.identities[rank]),
            rank,
            options.pop("members", self.members),
            parties=self.parties,
            session=options.pop("session", SESSION),
            listener=self.listeners[rank],
            patience=patience,
            **options,
        )

    async def run(
        self, program: Callable[[Mesh], Awaitable[Any]], patience: Patience = QUICK, **options: Any
    ) -> list[Any]:
        """Run a program at every node; returns the results, exceptions among them."""

        async def one(rank: int) -> Any:
            async with self.mesh(rank, patience, **options) as mesh:
                return await program(mesh)

        ranks = range(len(self.members))
        return await asyncio.gather(*(one(rank) for rank in ranks), return_exceptions=True)

    def client(self) -> aiohttp.ClientSession:
        """An ordinary client that knows where our nodes are."""
        hosts = {host_name(member.certificate): member.host for member in self.members}
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=AddressBook(hosts)))

    def address(self, rank: int) -> str:
        """What stands in the URL of a node."""
        return f"{host_name(self.members[rank].certificate)}:{self.members[rank].port}"

    @contextlib.asynccontextmanager
    async def rogue(self, rank: int, to: int, *, hello: bool = True, session: bytes = SESSION) -> AsyncIterator[Rogue]:
        """Dial a node with the certificate of ``rank`` and an ordinary WebSocket client."""
        pinned = [self.members[to].certificate]
        async with self.client() as client:
            async with client.ws_connect(
                f"wss://{self.address(to)}/mesh",
                ssl=client_context(self.identities[rank], pinned),
                max_msg_size=2**20,
            ) as websocket:
                rogue = Rogue(rank, to, session, websocket)
                if hello:
                    await rogue.say_hello()
                    await websocket.receive_bytes(timeout=15)
                yield rogue


class Rogue:
    """A peer with a good certificate that writes whatever frames it likes."""

    def __init__(self, rank: int, to: int, session: bytes, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self.rank = rank
        self.to = to
        self.session = session
        self.websocket = websocket
        self.sequence = 0

    def frame(self, kind: Kind = Kind.DATA, step: str = "", payload: bytes = b"", **fields: Any) -> bytes:
        """Make a frame as it should be, but for the fields that are given."""
        given: dict[str, Any] = {
            "sender": self.rank,
            "receiver": self.to,
            "session": self.session,
            "sequence": self.sequence,
            "length": len(payload),
            "offset": 0,
            "acknowledged": 0,
            **fields,
        }
        return pack_header(int(kind), step=step.encode(), **given) + payload

    async def send(self, kind: Kind = Kind.DATA, step: str = "", payload: bytes = b"", **fields: Any) -> None:
        await self.websocket.send_bytes(self.frame(kind, step, payload, **fields))
        self.sequence += 1

    async def say_hello(self, *, incarnation: bytes = b"i" * 16, knows: bytes = bytes(16), keeps: bool = False) -> None:
        """Begin, as a peer that has heard nothing so far."""
        payload = pack_hello(Hello(0, 0, incarnation, knows, keeps))
        await self.websocket.send_bytes(self.frame(Kind.HELLO, "", payload, sequence=0))
