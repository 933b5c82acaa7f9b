"""One attempt of one study at one node: worker, readiness of all, session, result, outcome.

Everything that others are told is on disk first. However an attempt ends here, the others hear of it: they
wait for nobody who has given up.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import logging
import secrets
import unicodedata
from pathlib import Path
from typing import Any

from mpc.errors import SottovoceError
from parties.governance.canonical import digest
from parties.governance.checks import one_line, parse_address, write_time
from parties.governance.errors import AuditError
from parties.identity import fingerprint, host_name
from parties.node.accounts import entries_of
from parties.node.desk import Desk
from parties.node.library import Entry
from parties.node.material_messages import Material, Prepare
from parties.node.messages import Assignment, Event, Failed, Finished, Limits, MemberAddress, Progress, Relaying
from parties.node.office import Office, Worker
from parties.node.pins import Pin
from parties.node.reach import places
from parties.node.states import Attempt, Preparation
from parties.node.store import StoreError

# A failure that another member reports may be about its farewell, when we are done in a moment.
_GRACE_SECONDS = 1.0
_AGAIN_SECONDS = 5.0

WORKERS = "workers"

log = logging.getLogger(__name__)


class _EndError(SottovoceError):
    """The attempt ends here without a result.

    Parameters
    ----------
    error_type, text : str
        For all members.
    retry : bool
        Whether it was a fault that passes.
    culprit : str, optional
        The member at fault.
    private : str
        For our owner alone.
    """

    def __init__(
        self, error_type: str, text: str, *, retry: bool, culprit: str | None = None, private: str = ""
    ) -> None:
        super().__init__(private or text)
        self.error_type = error_type
        self.text = text
        self.retry = retry
        self.culprit = culprit
        self.private = private or text


class AttemptRun:
    """Runs one attempt; :meth:`run` returns when its outcome was told.

    Parameters
    ----------
    office : Office
    entry : Entry
        The study.
    number : int
        Of the attempt.
    dry : bool
        Whether it ends after the dry run.
    prepare : Preparation, optional
        What it prepares, if that is what it is for.

    Attributes
    ----------
    progress : Progress or None
        What the worker said last.
    told : bool
        Whether its outcome was told, and only the worker's leave is left.
    """

    def __init__(
        self, office: Office, entry: Entry, number: int, dry: bool, prepare: Preparation | None = None
    ) -> None:
        self.entry, self.number = entry, number
        self.dry = dry
        self.prepare = prepare
        self.progress: Progress | None = None
        self.told = False
        self._office = office
        self._study = entry.study
        self._end: _EndError | None = None
        self._pin: Pin | None = None
        self._stopped = asyncio.Event()

    def stop(self, why: str, *, retry: bool, error_type: str = "Stopped") -> None:
        """Make it end soon; the reason is for all members. Only the first reason counts."""
        self._stop(_EndError(error_type, why, retry=retry))

    def _stop(self, end: _EndError) -> None:
        self._end = self._end or end
        self._stopped.set()

    async def run(self) -> None:
        """Run the attempt, tell its outcome, and take leave; raises nothing but being cancelled."""
        async with contextlib.AsyncExitStack() as leaving:
            await self._tell(await self._outcome(leaving))
            self.told = True

    async def _outcome(self, leaving: contextlib.AsyncExitStack) -> dict[str, Any]:
        try:
            result = await self._run(leaving)
            return self._body(ok=True, result=result)
        except _EndError as end:
            return self._failed(end)
        except SottovoceError as error:
            # Of ours, so free of data; but it may name our files, which is nobody else's business.
            kind = type(error).__name__
            return self._failed(
                _EndError(kind, f"{self._office.config.name} cannot take part", retry=False, private=str(error))
            )
        except Exception as error:  # whatever it is, the others must not wait for us
            log.exception("attempt %d of study %s failed by a fault of the node", self.number, self._study.hash[:12])
            return self._failed(
                _EndError(type(error).__name__, "", retry=False, private="a fault of the node: see its log")
            )

    # ---- the attempt ----------------------------------------------------------------------------

    async def _run(self, leaving: contextlib.AsyncExitStack) -> str | None:
        office, study = self._office, self._study
        self._check_allowed()
        worker = await office.start(self._assignment(), Path(WORKERS) / study.hash[:16])
        # Not before the outcome is told: a worker that has finished may wait for a member that is away.
        leaving.push_async_callback(self._leave, worker)
        office.note("confined", study=study.hash, attempt=self.number, by=list(worker.confined_by))
        office.route(host_name(worker.certificate), worker.adopt)  # before anybody hears of it, and dials
        return await self._with(worker)

    async def _leave(self, worker: Worker) -> None:
        try:
            await worker.close(failed=self._end is not None)
        finally:
            self._office.unroute(host_name(worker.certificate))

    def _check_allowed(self) -> None:
        refusals = self._office.config.refusals(self._study)
        if refusals:  # the owner changed the settings after the approval
            raise _EndError(
                "NotAllowed",
                f"the owner of {self._office.config.name} does not allow this study any more",
                retry=False,
                private=refusals[0],
            )
        self._office.store.check_room()

    def _assignment(self) -> Assignment:
        config, study = self._office.config, self._study
        source = config.source_for(study) if config.name in study.contributors else None
        limits = config.limits
        pin = self._pin = None if source is None or self.dry else Pin(self._office.store, study.hash)
        return Assignment(
            study=study.plain(),
            study_hash=study.hash,
            rank=study.members.index(config.name),
            attempt=self.number,
            program=self.entry.program,
            source=None if source is None else source.model_dump(mode="json"),
            base=str(config.base),
            dry_only=self.dry,
            limits=Limits(
                cores=limits.cores,
                memory_mb=limits.memory_mb,
                time_seconds=float(min(limits.time_seconds, study.time_limit_seconds)),
            ),
            allow_unconfined=config.allow_unconfined,
            relaying=Relaying(ca_file=None if config.relay_ca is None else str(config.relay_ca), proxy=config.proxy),
            reaches=places(study, self._office.consortium, config.name, config.proxy),
            rows_key=None if pin is None else pin.key,
            rows_digest=None if pin is None else pin.digest,
            prepare=None if self.prepare is None else Prepare(runs=self.prepare.runs, rows=self.prepare.rows),
            depot=self._office.depot is not None,
        )

    async def _with(self, worker: Worker) -> str | None:
        office = self._office
        office.say(
            self.entry,
            "ready",
            {
                "attempt": self.number,
                "certificate": base64.b64encode(worker.certificate).decode("ascii"),
                "dry": self.dry,
                "nonce": secrets.token_hex(32),
                **({} if self.prepare is None else {"prepare": dataclasses.asdict(self.prepare)}),
                "version": office.version,
                "fingerprint": office.consortium.fingerprint,
            },
        )
        attempt = await self._all_ready()
        self._compare(attempt)
        members = self._members(attempt)
        session = bytes.fromhex(session_of(attempt))
        office.note(
            "session",
            study=self._study.hash,
            attempt=self.number,
            session=session.hex(),
            version=office.version,
            members={one.name: fingerprint(one.certificate) for one in members},
        )
        await worker.begin(members, session, self._passes(worker))
        async with contextlib.AsyncExitStack() as stack:
            desk = await stack.enter_async_context(self._desk(session))
            watching = asyncio.create_task(self._watch(worker))
            stack.push_async_callback(_cancelled, watching)
            try:
                async for event in worker.events():
                    if isinstance(event, Finished):
                        return self._finished(event)
                    if isinstance(event, Failed):
                        raise self._end or self._failure(event)
                    if isinstance(event, Material):
                        worker.reply(*await desk.answer(event))
                    else:
                        self._heard(event)
            except (StoreError, AuditError):
                await worker.stop(f"{office.config.name} cannot write to its disk")  # the others hear of it now
                raise
        raise _EndError("WorkerFault", "the worker ended without saying how", retry=False)

    def _desk(self, session: bytes) -> Desk:
        runs = 0 if self.prepare is None else self.prepare.runs
        depot, note = self._office.depot, self._office.note
        return Desk(depot, self._study.hash, self.number, note, session=session.hex(), runs=runs, spends=not self.dry)

    def _current(self) -> Attempt:
        state = self.entry.state(self._office.clock())
        return next(one for one in state.attempts if one.number == self.number)

    async def _all_ready(self) -> Attempt:
        """Wait until all members are ready for this attempt."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._office.ready_seconds
        while True:
            changed = self.entry.changed
            attempt = self._current()
            self._heed_others(attempt)
            if self._end is not None:
                raise self._end
            if attempt.computed:
                return attempt
            if loop.time() >= until:
                raise self._absence(attempt)
            await _either(changed, self._stopped, until - loop.time())

    def _absence(self, attempt: Attempt) -> _EndError:
        absent = []
        for name in attempt.absent:
            trouble = self._office.trouble(name)
            absent.append(f"{name} ({trouble})" if trouble else name)
        who = ", ".join(absent)
        return _EndError(
            "NotReady",
            f"not ready within {self._office.ready_seconds:g} s: {who}",
            retry=True,
            culprit=attempt.absent[0],
        )

    def _heed_others(self, attempt: Attempt) -> None:
        """Stop if another member says that it is over."""
        ours = self._office.config.name
        others = [one for one in attempt.failures if one.member != ours]
        if others:
            cause = others[0]
            text = f"{cause.member} reports: {cause.text or cause.error_type}"
            culprit = cause.culprit if cause.culprit not in (None, ours) else cause.member
            self._stop(_EndError("PeerFailed", text, retry=True, culprit=culprit))

    def _compare(self, attempt: Attempt) -> None:
        """See that all run the same software with the same consortium file."""
        office = self._office
        holders: dict[str, str] = {}
        for name, record in attempt.ready.items():
            other = holders.setdefault(record.body["certificate"], name)
            if other != name:
                text = f"{other} and {name} show the same worker's certificate"
                raise _EndError("SameCertificate", text, retry=False, culprit=name)
            if record.body["version"] != office.version:
                raise _EndError(
                    "OtherVersion",
                    f"{name} runs version {record.body['version']} and {office.config.name} {office.version}: "
                    "install the same version everywhere",
                    retry=False,
                    culprit=name,
                )
            if record.body["fingerprint"] != office.consortium.fingerprint:
                raise _EndError(
                    "OtherConsortium",
                    f"the consortium file of {name} has the fingerprint {record.body['fingerprint']}, that of "
                    f"{office.config.name} {office.consortium.fingerprint}: compare the files",
                    retry=False,
                    culprit=name,
                )

    def _members(self, attempt: Attempt) -> list[MemberAddress]:
        members = []
        for name in self._study.members:
            member = self._office.consortium.member(name)
            host, port = ("", 0) if member.address is None else parse_address(member.address)
            certificate = base64.b64decode(attempt.ready[name].body["certificate"])
            members.append(MemberAddress(name=name, certificate=certificate, host=host, port=port, relay=member.relay))
        return members

    def _passes(self, worker: Worker) -> bytes | None:
        from parties.relay.passes import LONGEST_SECONDS, make_pass

        office = self._office
        if not any(office.consortium.member(name).relay for name in self._study.members):
            return None
        seconds = self._study.time_limit_seconds + self._study.resume_seconds + 3600
        return make_pass(
            office.key.sign,
            office.consortium.name,
            office.key.key_id,
            host_name(worker.certificate),
            office.clock().timestamp() + min(seconds, LONGEST_SECONDS - 3600),
        )

    async def _watch(self, worker: Worker) -> None:
        """Stop the worker when we are told to, or another member has failed."""
        while self._end is None:
            changed = self.entry.changed
            attempt = self._current()
            if any(one.member != self._office.config.name for one in attempt.failures):
                await _either(self._stopped, self._stopped, _GRACE_SECONDS)
                self._heed_others(attempt)
                break
            await _either(changed, self._stopped)
        if self._end is not None:
            await worker.stop(_told(self._end.text) or self._end.error_type)

    # ---- what the worker tells ------------------------------------------------------------------

    def _heard(self, event: Event) -> None:
        if self._pin is not None:
            self._pin.heed(event)
        if isinstance(event, Progress):
            self.progress = event
            self.entry.wake()
        for what, fields in entries_of(event, self._study.members):
            self._office.note(what, study=self._study.hash, attempt=self.number, **fields)

    def _finished(self, event: Finished) -> str | None:
        office, study = self._office, self._study
        if self.dry:
            return None
        result = event.result
        if office.config.name in study.recipients and result is None:
            raise _EndError("WorkerFault", "the computation gave no result to a recipient", retry=False)
        if result is None or office.config.name not in study.recipients:
            return None
        kept = office.results.keep(study.hash, self.number, result)
        office.note("result", study=study.hash, attempt=self.number, sha256=kept, to=list(study.recipients))
        return kept

    def _failure(self, event: Failed) -> _EndError:
        members = self._study.members
        culprit = members[event.culprit] if event.culprit is not None and event.culprit < len(members) else None
        where = f" (step {event.step})" if event.step else ""
        return _EndError(
            event.error_type,
            event.for_peers,
            retry=event.of_peer or event.error_type == "WorkerDied",
            culprit=culprit,
            private=(event.text or event.error_type) + where,
        )

    # ---- the outcome ----------------------------------------------------------------------------

    def _failed(self, end: _EndError) -> dict[str, Any]:
        self._end = self._end or end
        about = {"attempt": self.number, "error_type": end.error_type, "text": one_line(end.private, 1000)}
        with contextlib.suppress(StoreError, AuditError):  # the outcome is what counts
            self._office.note("failure", study=self._study.hash, **about, culprit=end.culprit, retry=end.retry)
            self._office.store.note(self._study.hash, {**about, "time": write_time(self._office.clock())})
        return self._body(ok=False, end=end)

    def _body(self, *, ok: bool, result: str | None = None, end: _EndError | None = None) -> dict[str, Any]:
        return {
            "attempt": self.number,
            "ok": ok,
            "error_type": "" if end is None else _told(end.error_type, 100),
            "text": "" if end is None else _told(end.text),
            "culprit": None if end is None else end.culprit,
            "retry": end is not None and end.retry,
            "result": result,
        }

    async def _tell(self, body: dict[str, Any]) -> None:
        while True:
            number, entry_hash = self._office.head()
            try:
                self._office.say(self.entry, "outcome", {**body, "audit": {"number": number, "hash": entry_hash}})
                return
            except (StoreError, AuditError) as error:
                log.error("the outcome of an attempt cannot be recorded, tried again: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)


def session_of(attempt: Attempt) -> str:
    """Return the session that follows from who is ready with which worker, in hexadecimal: 16 bytes."""
    ids = sorted(record.id for record in attempt.ready.values())
    return digest("sottovoce session 1", "\n".join(ids).encode("ascii"))[:32]


def _told(text: str, longest: int = 1000) -> str:
    """Return a text as records take it."""
    return unicodedata.normalize("NFC", one_line(text, longest)).strip()[:longest]


async def _either(first: asyncio.Event, second: asyncio.Event, seconds: float | None = None) -> None:
    """Wait for one of two events, or until the time is over."""
    tasks = [asyncio.create_task(first.wait()), asyncio.create_task(second.wait())]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
