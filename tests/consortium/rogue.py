"""Those who do not keep the rules: strangers without a certificate, and a member that attacks the others."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

from parties.governance import keys, records
from parties.governance.canonical import canonical
from parties.governance.consortium import Consortium as Members
from parties.governance.records import Record
from parties.governance.versions import code_version
from parties.identity import Identity, client_context, host_name
from parties.node.control import Channel, ChannelClosedError, Dialler
from parties.node.hello import Hello
from tests.consortium.nodes import Node, eventually


def name_of(node: Node) -> str:
    """The name under which a node's own key is asked for."""
    return host_name(keys.load_certificate(node.directory / "certificate.pem"))


def knock(node: Node, name: str, identity: Identity | None = None, certificate: bytes | None = None) -> bytes:
    """Make a TLS connection to a node's port, ask for a key, and return the first bytes that come.

    Parameters
    ----------
    node : Node
    name : str
        The key's name.
    identity : Identity, optional
        Who we say that we are.
    certificate : bytes, optional
        Whose we expect to see; by default the node's own.

    Returns
    -------
    bytes
        Nothing if the node closed the connection, with or without an alert.
    """
    pinned = [certificate or keys.load_certificate(node.directory / "certificate.pem")]
    if identity is not None:
        context = client_context(identity, pinned)
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=pinned[0])
    with socket.create_connection((node.host, node.port), timeout=15) as plain, contextlib.suppress(ConnectionError):
        try:
            with context.wrap_socket(plain, server_hostname=name) as connection:
                connection.sendall(_UPGRADE)
                return connection.recv(1000)
        except ssl.SSLError as refusal:
            if not isinstance(refusal, ssl.SSLEOFError) and "ALERT" not in str(refusal).upper():
                raise
    return b""


_UPGRADE = (
    b"GET /control HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Member:
    """A member with a good key and a good certificate, whose node we are.

    Parameters
    ----------
    node : Node
        Its directory; its own node does not run.
    """

    def __init__(self, node: Node) -> None:
        self.name = node.name
        self.key = keys.load(node.directory / "key.pem", node.directory / "certificate.pem")
        self.members = Members.load(node.directory / "consortium.toml")

    @contextlib.asynccontextmanager
    async def dial(self, to: Node, *, greet: bool = True) -> AsyncIterator[Channel]:
        """Connect to a node, as its peer does."""
        certificates = self.members.member(to.name).certificates
        dialler = Dialler(self.key.identity, [each for one in self.members.members for each in one.certificates])
        try:
            channel = await dialler.dial(certificates, to.host, to.port)
            if greet:
                await say(channel, self.hello())
                assert (await hear(channel))["kind"] == "hello"
            try:
                yield channel
            finally:
                await channel.close()
        finally:
            await dialler.close()
            await asyncio.sleep(0.1)  # a TLS connection takes a moment to be gone

    def hello(self, **changed: Any) -> dict[str, Any]:
        """What it says first, but for what is changed."""
        ours = Hello(self.name, self.members.fingerprint, code_version()["version"])
        return {**ours.message(datetime.datetime.now(datetime.UTC)), **changed}

    def record(self, kind: records.Kind, study: str, body: Mapping[str, Any], **changed: Any) -> Record:
        """A record of its own, well signed; or of another author or consortium, as it would like to have it."""
        return records.make(
            self.key,
            changed.get("consortium", self.members.name),
            changed.get("author", self.name),
            kind,
            study,
            dict(body),
            changed.get("now", datetime.datetime.now(datetime.UTC)),
        )


async def say(channel: Channel, message: Mapping[str, Any]) -> None:
    """Send a message, whatever is in it."""
    await channel.send(canonical(dict(message)))


async def hear(channel: Channel, kind: str = "", seconds: float = 10.0) -> dict[str, Any]:
    """Return the next message, or the next of a kind."""
    async with asyncio.timeout(seconds):
        while True:
            message: dict[str, Any] = json.loads(await channel.receive())
            if not kind or message["kind"] == kind:
                return message


async def answer_to(channel: Channel, record: Mapping[str, Any], seconds: float = 10.0) -> str:
    """Send a record and return why it is refused; empty if it is not, or was known."""
    await say(channel, {"kind": "record", "record": record})
    # What comes back after this was sent after the record was dealt with: records are dealt with in order.
    await say(channel, {"kind": "want", "ids": []})
    try:
        return str((await hear(channel, "refused", seconds))["why"])
    except TimeoutError:
        return ""


async def parting_words(channel: Channel) -> str:
    """Wait until the node closes the link; return why it says it does."""
    why = ""
    with contextlib.suppress(ChannelClosedError):
        while True:
            message = await hear(channel)
            why = str(message.get("why", "")) if message["kind"] == "bye" else why
    return why


def noted(node: Node, *words: str) -> dict[str, Any]:
    """Wait until a node's audit log holds an entry with all these words; return it."""

    def found() -> dict[str, Any] | None:
        entries = [entry for entry in node.audit() if all(word in json.dumps(entry) for word in words)]
        return entries[-1] if entries else None

    entry: dict[str, Any] = eventually(found, f"{node.name} noted {words}")
    return entry


def record_of(node: Node, study: str, kind: str, author: str) -> dict[str, Any] | None:
    """A signed record as a node keeps it; None if it has none such."""
    lines = (node.state / "studies" / study / "records.jsonl").read_text("utf-8").splitlines()
    fitting = (one for one in map(json.loads, lines) if (one["kind"], one["author"]) == (kind, author))
    return next(fitting, None)
