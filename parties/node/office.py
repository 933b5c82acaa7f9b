"""What an attempt needs of its node, and of its worker: no more, so that a test can give it all."""

from __future__ import annotations

import datetime
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from parties.governance.consortium import Consortium
    from parties.governance.keys import NodeKey
    from parties.governance.records import Kind, Record
    from parties.node.config import NodeConfig
    from parties.node.depot import Depot
    from parties.node.library import Entry
    from parties.node.material_messages import Stored
    from parties.node.messages import Assignment, Event, MemberAddress
    from parties.node.results import Results
    from parties.node.store import Store

READY_SECONDS = 60.0


class Worker(Protocol):
    """A worker as an attempt needs it; see :class:`parties.node.workers.Worker`."""

    certificate: bytes
    confined_by: tuple[str, ...]

    async def begin(self, members: Sequence[MemberAddress], session: bytes, passes: bytes | None = None) -> None:
        """Let it compute."""

    def adopt(self, sock: socket.socket) -> None:
        """Hand it a connection."""

    def reply(self, message: Stored, passed: socket.socket | None = None) -> None:
        """Answer what it has asked."""

    def events(self) -> AsyncIterator[Event]:
        """Yield what it tells; the last is Finished or Failed."""

    async def stop(self, reason: str) -> None:
        """Ask it to stop, and see to it."""

    async def close(self, *, failed: bool = False) -> None:
        """Leave nothing of it."""


@dataclass(frozen=True, slots=True)
class Office:
    """What an attempt needs of its node.

    Attributes
    ----------
    config, key, consortium, store, results
        The node's.
    version : str
        Of the software.
    clock : callable
        Returns now, in UTC.
    say : callable
        ``say(entry, kind, body)`` signs a statement, keeps it and tells the others.
    note : callable
        ``note(event, **fields)`` writes to the audit log.
    head : callable
        Returns number and hash of the audit log's last entry.
    route, unroute : callable
        Lead connections that ask for a key's name to a worker.
    start : callable
        ``await start(assignment, directory)`` starts a worker.
    trouble : callable
        ``trouble(member)`` says why there is no link to a member; empty if there is one.
    ready_seconds : float
        For all members to be ready.
    depot : Depot or None
        Where material is kept.
    """

    config: NodeConfig
    key: NodeKey
    consortium: Consortium
    store: Store
    results: Results
    version: str
    clock: Callable[[], datetime.datetime]
    say: Callable[[Entry, Kind, dict[str, Any]], Record]
    note: Callable[..., None]
    head: Callable[[], tuple[int, str]]
    route: Callable[[str, Callable[[socket.socket], None]], None]
    unroute: Callable[[str], None]
    start: Callable[[Assignment, Path], Awaitable[Worker]]
    trouble: Callable[[str], str]
    ready_seconds: float = READY_SECONDS
    depot: Depot | None = None
