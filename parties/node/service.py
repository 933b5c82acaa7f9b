"""A node: keys, records, links and workers of one organisation, brought together."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mpc.errors import SottovoceError
from parties.governance import records as signed
from parties.governance.audit import LOG_FILE, AuditLog, code_version
from parties.governance.checks import parse_address, write_time
from parties.governance.consortium import Consortium, Member
from parties.governance.errors import AuditError
from parties.governance.keys import NodeKey, expiry, load, read_passphrase
from parties.governance.records import Kind, Record
from parties.governance.studies import differences
from parties.identity import fingerprint, host_name
from parties.node.attempts import WORKERS
from parties.node.config import NodeConfig
from parties.node.control import Channel
from parties.node.depot import Depot
from parties.node.doors import Doors, Refusals, listen
from parties.node.gossip import Gossip
from parties.node.hello import ProtocolError, Timing
from parties.node.library import Entry, Library
from parties.node.messages import Assignment
from parties.node.moderation import Moderation
from parties.node.office import READY_SECONDS, Office, Worker
from parties.node.peers import Peers
from parties.node.results import Results
from parties.node.scheduler import Scheduler
from parties.node.store import Store, StoreError
from parties.node.workers import Worker as WorkerProcess
from parties.node.workers import clear_away

STOP_SECONDS = 12.0
_LEDGER = "ledger.jsonl"

log = logging.getLogger(__name__)

StartWorker = Callable[[Assignment, Path], Awaitable[Worker]]


class NodeError(SottovoceError, RuntimeError):
    """A node cannot be started as it is set up; says what to change."""


def now() -> datetime.datetime:
    """Return the time, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def load_key(config: NodeConfig, at: datetime.datetime) -> NodeKey:
    """Read the node's key; refuse one whose certificate is not valid now.

    Raises
    ------
    NodeError, KeyFileError
    """
    passphrase = None if config.passphrase_file is None else read_passphrase(config.passphrase_file)
    key = load(config.key, config.certificate, passphrase)
    validity = expiry(key.certificate)
    if (fault := validity.fault(at)) is not None:
        raise NodeError(f"certificate {config.certificate} {fault}")
    if (notice := validity.notice(at)) is not None:
        log.warning("certificate %s %s", config.certificate, notice)
    return key


def load_consortium(config: NodeConfig, key: NodeKey) -> tuple[Consortium, Member]:
    """Read the consortium file, and find ourselves in it.

    Raises
    ------
    NodeError, ConsortiumError
    """
    consortium = Consortium.load(config.consortium)
    gone = consortium.revocation(key.key_id)
    if gone is not None:
        raise NodeError(
            f"the key of {gone.name} was revoked in {config.consortium} ({gone.reason}): it needs a new one"
        )
    us = consortium.by_key(key.key_id)
    if us is None:
        raise NodeError(f"{config.consortium} holds no member with our key: have our card joined to the file")
    if us.name != config.name:
        raise NodeError(
            f"{config.file} says that we are {config.name}, and {config.consortium} calls our key {us.name}"
        )
    if key.certificate not in us.certificates:
        raise NodeError(
            f"{config.consortium} does not hold our certificate {config.certificate}: have our new card taken over "
            "(sottovoce consortium renew), at all members; until then use the previous certificate"
        )
    if us.address is not None and config.listen is None:
        raise NodeError(
            f"{config.consortium} says that others dial us at {us.address}, but {config.file} does not set listen"
        )
    return consortium, us


class Node:
    """One node, from its start to its end; use it as ``async with Node(config) as node``, in an event loop.

    Parameters
    ----------
    config : NodeConfig
    start_worker : callable, optional
        ``await start_worker(assignment, directory)``; by default a process of its own.
    clock : callable, optional
        Returns now, in UTC.
    timing : Timing, optional
        Of the links.
    ready_seconds : float
        For all members to be ready.

    Attributes
    ----------
    us : Member
        How the consortium file describes us.
    counts : Counter
        What has happened, by name, since the start.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        start_worker: StartWorker | None = None,
        clock: Callable[[], datetime.datetime] = now,
        timing: Timing | None = None,
        ready_seconds: float = READY_SECONDS,
    ) -> None:
        config.check_sources()
        self.config = config
        self.clock = clock
        self.counts: Counter[str] = Counter()
        self.started = clock()
        self.key = load_key(config, clock())
        self.consortium, self.us = load_consortium(config, self.key)
        self.code = code_version()
        self._told: dict[str, str] = {}
        self._moderation = Moderation(lambda: clock().timestamp())
        self._doors: Doors | None = None
        self._tasks: list[asyncio.Task[None]] = []
        with contextlib.ExitStack() as undo:
            self.store = Store(config.state)
            undo.callback(self.store.close)
            self.audit = AuditLog(config.state / LOG_FILE, self.key, clock, config.name)
            undo.callback(self.audit.close)
            self.library = Library(self.store, self.consortium, config.name)
            self.depot = Depot(
                config.state / "material",
                lambda salt: self.key.derived("sottovoce material 1", salt),
                lambda: write_time(clock()),
                most_bytes=config.limits.material_mb << 20,
                code=self.code["sources"],
            )
            undo.pop_all()
        self.results = Results(self.store, self.library, push=self._push, clock=clock)
        self.gossip = Gossip(
            self.library,
            config.name,
            clock=clock,
            push=self._push,
            on_taken=self._taken,
            on_refused=self._record_refused,
        )
        self.office = Office(
            config=config,
            key=self.key,
            consortium=self.consortium,
            store=self.store,
            results=self.results,
            version=self.code["version"],
            clock=clock,
            say=self.say,
            note=self.note,
            head=lambda: self.audit.head,
            route=self._route,
            unroute=self._unroute,
            start=start_worker or self._start_worker,
            trouble=self._trouble,
            ready_seconds=ready_seconds,
            depot=self.depot,
        )
        self.peers = Peers(
            self.config.name,
            self.key,
            self.consortium,
            version=self.code["version"],
            clock=self.clock,
            on_up=self._up,
            on_down=self._down,
            on_message=self._heard,
            on_refused=self._refused,
            meet=self._meet,
            timing=timing,
        )
        self.scheduler = Scheduler(self.office, self.library, connected=lambda: self.peers.connected, count=self._count)

    # ---- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Node:
        try:
            await self._open()
        except BaseException:
            await self.close("it could not start")
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close(f"the node of {self.config.name} was stopped")

    async def _open(self) -> None:
        # What a node that was killed has left.
        clear_away(self.config.state / WORKERS)
        if self.config.listen is not None:
            self._doors = Doors(listen(*parse_address(self.config.listen)), report=self._turned_away)
            self._doors.route(host_name(self.key.certificate), self.peers.server.take)
        self.note("started", **self.code, consortium=self.consortium.fingerprint, studies=len(self.library.entries))
        for damage in self.library.damaged:
            log.error("%s", damage)
            self.note("damaged", what=damage)
        if self._doors is not None:
            self._doors.open()
        self.peers.start()
        self._tasks = [asyncio.create_task(self.scheduler.work(), name="scheduler")]

    async def close(self, why: str) -> None:
        """Stop what runs, tell the others, and release everything; does nothing the second time."""
        tasks, self._tasks = self._tasks, []
        try:
            await self.scheduler.stop(why, STOP_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.peers.close(why)
        finally:
            if self._doors is not None:
                self._doors.close()
            with contextlib.suppress(AuditError):
                self.note("stopped", why=why)
            self.depot.close()
            self.audit.close()
            self.store.close()

    def reload(self) -> None:
        """Read the consortium file and the certificate again, and go on with them; links are made anew.

        Raises
        ------
        SottovoceError
            If they cannot be used; then all stays as it is.
        """
        key = load_key(self.config, self.clock())
        consortium, us = load_consortium(self.config, key)
        self.note("read again", consortium=consortium.fingerprint, certificate=fingerprint(key.certificate))
        self.key, self.consortium, self.us = key, consortium, us
        self.library.consortium = consortium
        self.office = replace(self.office, key=key, consortium=consortium)
        self.scheduler.go_on_with(self.office)
        self.peers.trust(key, consortium)
        self.scheduler.look_everywhere()

    # ---- what we say ----------------------------------------------------------------------------

    def say(self, entry: Entry | None, kind: Kind, body: dict[str, Any], study: str = "") -> Record:
        """Sign a statement, write it down, and tell the study's members.

        Raises
        ------
        RefusedError
            If it cannot be said.
        StoreError, AuditError
            If it cannot be written; then nobody is told.
        """
        study_hash = study if entry is None else entry.hash
        record = signed.make(
            self.key,
            self.consortium.name,
            self.config.name,
            kind,
            study_hash,
            body,
            self.clock(),
        )
        self.note(kind, study=study_hash, **_said(record))
        taken = self.library.take(record, self.clock())
        entry = taken or self.library.entries[study_hash]
        self.gossip.announce(entry, record)
        self.scheduler.look(entry)
        return record

    def note(self, event: str, **fields: Any) -> None:
        """Write to the audit log."""
        self.audit.append(event, **fields)

    def _note_about(self, who: str, event: str, **fields: Any) -> None:
        """Note what others do, a few times a minute; a full disk is told elsewhere."""
        if self._moderation.allows(who):
            left_out = self._moderation.left_out()
            with contextlib.suppress(AuditError):
                self.note(event, **fields, **({"left_out": left_out} if left_out else {}))

    def _count(self, what: str) -> None:
        self.counts[what] += 1

    @property
    def door_counts(self) -> dict[str, int]:
        """What became of connections to our port, by kind."""
        return {} if self._doors is None else dict(self._doors.counts)

    # ---- what others say ------------------------------------------------------------------------

    async def _heard(self, peer: str, message: dict[str, Any]) -> None:
        self._count("messages")
        try:
            if not self.gossip.hear(peer, message) and not self.results.hear(peer, message):
                raise ProtocolError("a message of a kind that is not known here")
        except StoreError as error:  # of a file of ours, which is none of the peer's business
            log.error("%s", error)

    def _taken(self, entry: Entry, record: Record, sender: str) -> None:
        study = entry.study
        with contextlib.suppress(AuditError):  # it is told by the scheduler, which writes too
            self.note(record.kind, study=study.hash, author=record.author, sender=sender, **_said(record))
            if record.kind == "outcome" and record.author != self.config.name:
                head = record.body["audit"]
                self.audit.witness(
                    member=record.author,
                    key_id=record.key_id,
                    number=head["number"],
                    entry_hash=head["hash"],
                    study=study.hash,
                )
            if record.kind == "proposal":
                for other in self.library.namesakes(study):
                    differ = differences(other.study, study)[:20]
                    log.warning("%s proposes another study of the title %r: %s", record.author, study.title, differ[0])
                    self.note("namesake", study=study.hash, other=other.hash, differences=differ)
        self.scheduler.look(entry)

    def _record_refused(self, sender: str, why: str, attack: bool) -> None:
        self._count("records refused")
        log.warning("a record from %s is refused: %s", sender, why)
        self._note_about(sender, "attack" if attack else "record refused", sender=sender, reason=why)

    # ---- links ----------------------------------------------------------------------------------

    def _push(self, peer: str, message: dict[str, Any]) -> None:
        self.peers.push(peer, message)

    def _trouble(self, member: str) -> str:
        return "" if member == self.config.name or member in self.peers.connected else self.peers.trouble(member)

    def _up(self, name: str) -> None:
        self._count("links")
        log.info("link to %s is up", name)
        self._told.pop(name, None)
        member = self.consortium.member(name)
        certificates = [fingerprint(each) for each in member.certificates]
        self._note_about(name, "peer connected", peer=name, certificates=certificates)
        self.gossip.meet(name)
        self.scheduler.look_everywhere()

    def _down(self, name: str, why: str) -> None:
        log.info("link to %s is down: %s", name, why)
        self._note_about(name, "peer gone", peer=name, reason=why)

    def _refused(self, who: str, why: str) -> None:
        """Note a connection that was turned away; the same one again and again is noted once."""
        self._count("connections refused")
        if self._told.get(who) != why:
            if len(self._told) > 1000:
                self._told.clear()
            self._told[who] = why
            log.warning("connection of %s refused: %s", who, why)
            self._note_about(who, "peer refused", peer=who, reason=why)

    def _turned_away(self, refusals: Refusals) -> None:
        self.counts["connections refused"] += sum(refusals.reasons.values())
        with contextlib.suppress(AuditError):
            self.note("connections refused", reasons=dict(refusals.reasons), addresses=dict(refusals.addresses))

    async def _meet(self, member: Member, initiator: bool) -> Channel:
        from parties.connect import NotConnectedError
        from parties.relay.channel import meet_channel
        from parties.relay.client import RelayAddress

        # Of the two, the one that comes first names the relay.
        first, second = (member, self.us) if initiator else (self.us, member)
        url = first.relay or second.relay
        if url is None:
            raise NotConnectedError("neither it nor we have an address or a relay in the consortium file")
        config = self.config
        address = RelayAddress(url, None if config.relay_ca is None else str(config.relay_ca), config.proxy)
        return await meet_channel(
            address,
            identity=self.key.identity,
            peer_certificate=member.certificate,
            context=b"control " + self.consortium.name.encode(),
            initiator=initiator,
        )

    # ---- workers --------------------------------------------------------------------------------

    def _route(self, name: str, taker: Callable[..., None]) -> None:
        if self._doors is not None:
            self._doors.route(name, taker)

    def _unroute(self, name: str) -> None:
        if self._doors is not None:
            self._doors.unroute(name)

    async def _start_worker(self, assignment: Assignment, directory: Path) -> Worker:
        return await WorkerProcess.start(
            assignment, ledger=self.config.state / _LEDGER, directory=self.config.state / directory
        )


def _said(record: Record) -> dict[str, Any]:
    """Return what the audit log keeps of a record; the record itself lies with its study."""
    said: dict[str, Any] = {"record": record.id}
    body = record.body
    if record.kind == "proposal":
        said["title"] = body["study"]["title"]
    elif record.kind == "ready":
        certificate = fingerprint(base64.b64decode(body["certificate"]))
        said |= {"attempt": body["attempt"], "worker": certificate, "version": body["version"]}
    else:
        said |= {key: value for key, value in body.items() if key != "audit"}
    return said
