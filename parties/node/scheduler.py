"""What runs when: looks at a study after every change and does what is due, in so many workers at a time."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpc.errors import SottovoceError
from parties.governance.errors import AuditError
from parties.governance.files import reason, shown
from parties.node.attempts import AttemptRun
from parties.node.batches import UNSPENT
from parties.node.duties import Abandon, Begin, Fetch, Repeat, Report, duty
from parties.node.library import Entry, Library
from parties.node.office import Office
from parties.node.states import ENDED, Phase, Preparation, StudyState
from parties.node.store import StoreError

_TICK_SECONDS = 5.0
# Between attempts that begin by themselves, and between asking for a result that we lack.
_REPEAT_SECONDS = 1.0
_FETCH_SECONDS = 20.0
_CUT_OFF_SECONDS = 3.0
# That a deadline has passed is our clock's word alone, which may be wrong for a while: what cannot be had back waits.
_SURELY_OVER = datetime.timedelta(days=1)
MOST_QUEUED = 1000

log = logging.getLogger(__name__)


class QueueError(SottovoceError, ValueError):
    """A study cannot be queued now; says why."""


def run_body(attempt: int, dry: bool, prepare: Preparation | None = None) -> dict[str, Any]:
    """Return what the record that begins an attempt says."""
    body: dict[str, Any] = {"attempt": attempt, "dry": dry}
    return body if prepare is None else {**body, "prepare": {"runs": prepare.runs, "rows": prepare.rows}}


def _words(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"{shown(Path(error.filename)) if isinstance(error.filename, str) else 'a file'}: {reason(error)}"


class Scheduler:
    """Begins, stops, repeats and reports attempts.

    Parameters
    ----------
    office : Office
    library : Library
    connected : callable
        Returns the names of the members to which there is a link.
    count : callable
        ``count(what)`` counts for the node's figures.
    """

    def __init__(
        self,
        office: Office,
        library: Library,
        *,
        connected: Callable[[], frozenset[str]],
        count: Callable[[str], None],
    ) -> None:
        self.office = office
        self.runs: dict[str, AttemptRun] = {}
        self.trouble = ""
        self._library = library
        self._connected = connected
        self._count = count
        self._name = office.config.name
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        self._due: dict[str, None] = dict.fromkeys(library.entries)
        self._open: set[str] = set(library.entries)
        self._news = asyncio.Event()
        self._news.set()
        self._stopping = False
        self._may_hold_strays = True
        self._queue: list[tuple[str, bool]] = [
            (study, dry) for study, dry in office.store.load_queue() if study in library.entries
        ]

    # ---- from outside ---------------------------------------------------------------------------

    def look(self, entry: Entry) -> None:
        """Look at a study soon: something about it has changed."""
        self._due[entry.hash] = None
        self._open.add(entry.hash)
        self._news.set()

    def look_everywhere(self) -> None:
        """Look at all studies that are not over."""
        self._due.update(dict.fromkeys(sorted(self._open)))
        self._news.set()

    def go_on_with(self, office: Office) -> None:
        """Use another consortium file and key; stop what computes with a member that is in the file no more."""
        before, self.office = self.office.consortium, office
        for run in self.runs.values():
            for name in run.entry.members:
                key_id = before.member(name).key_id if name in before.names else ""
                after = office.consortium.by_key(key_id)
                if after is None or after.name != name:
                    revoked = office.consortium.revocation(key_id) is not None
                    why = "was revoked" if revoked else "is not in the consortium file any more with the same key"
                    run.stop(f"{name} {why}", retry=False, error_type="MemberRemoved")

    @property
    def queued(self) -> tuple[tuple[str, bool], ...]:
        """Studies that wait for their turn here, with whether that is a dry run."""
        return tuple(self._queue)

    def enqueue(self, entry: Entry, dry: bool) -> None:
        """Run a study as soon as there is room for it.

        Raises
        ------
        QueueError
            If it waits already, or too many do.
        StoreError
            If the queue cannot be written.
        """
        if any(study == entry.hash for study, _ in self._queue):
            raise QueueError("it is in the queue already")
        if len(self._queue) >= MOST_QUEUED:
            raise QueueError(f"{MOST_QUEUED} studies are in the queue: wait, or cancel some")
        self._change_queue([*self._queue, (entry.hash, dry)])
        self._news.set()

    def prepare(self, entry: Entry, prepare: Preparation) -> None:
        """Begin to prepare material for a study.

        Raises
        ------
        QueueError
            If there is no room for it now.
        """
        if self._queue or len(self.runs) >= self.office.config.limits.studies_at_once:
            raise QueueError("other studies run here, or wait for their turn: prepare when they are over")
        state = entry.state(self.office.clock())
        number = state.attempts[-1].number + 1 if state.attempts else 1
        self.office.say(entry, "run", run_body(number, True, prepare))

    def _change_queue(self, queue: list[tuple[str, bool]]) -> None:
        self.office.store.save_queue(queue)
        self._queue = queue

    # ---- the loop -------------------------------------------------------------------------------

    async def work(self) -> None:
        """Do what is due, until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._news.wait()
            everywhere = not self._news.is_set()
            if everywhere:
                self._due.update(dict.fromkeys(sorted(self._open)))
            self._news.clear()
            trouble = ""
            if self._may_hold_strays and not self._stopping:
                trouble = self._guarded(self._forget_strays)
            while self._due and not self._stopping:
                study = next(iter(self._due))
                del self._due[study]
                entry = self._library.entries[study]
                trouble = self._guarded(self._forget, entry) or trouble
                trouble = self._guarded(self._do, entry) or trouble
            if not self._stopping:
                trouble = self._guarded(self._serve_queue) or trouble
            if trouble or everywhere:
                self.trouble = trouble

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> str:
        """Go on with other studies if one cannot be written down; it is tried again later."""
        try:
            work(*arguments)
        except (SottovoceError, OSError) as error:
            text = _words(error)
            if text != self.trouble:
                log.error("%s", text)
            return text
        return ""

    def _do(self, entry: Entry) -> None:
        study = entry.hash
        state = entry.state(self.office.clock())
        run = self.runs.get(study)
        due = duty(
            entry.study,
            state,
            self._name,
            running=None if run is None else run.number,
            result_of=self.office.results.attempt_of(study),
            late=entry.study.deadline_passed(self.office.clock()),
        )
        if isinstance(due, Begin):
            self._begin(entry, state, due)
        elif isinstance(due, Abandon) and run is not None:
            run.stop(due.why, retry=due.retry)
        elif isinstance(due, Report):
            self._report(entry, due)
        elif isinstance(due, Fetch):
            self._fetch(entry, due)
        elif isinstance(due, Repeat):
            self._repeat(entry, due)
        elif due is None and run is None and state.phase in (Phase.FINISHED, Phase.REJECTED, Phase.CANCELLED):
            if not self._has_material(study):
                self._open.discard(study)
                self._library.settle(entry)

    # ---- material of what is over ---------------------------------------------------------------

    def _forget(self, entry: Entry) -> None:
        """Discard what is left for a study that is over."""
        depot, now = self.office.depot, self.office.clock()
        phase = entry.state(now).phase
        if depot is None or phase not in ENDED or entry.hash in self.runs:
            return
        if phase is Phase.EXPIRED and not entry.study.deadline_passed(now - _SURELY_OVER):
            return
        if self._has_material(entry.hash):
            depot.forget(entry.hash)

    def _has_material(self, study: str) -> bool:
        return self.office.depot is not None and self.office.depot.left(study).batches > 0

    def _forget_strays(self) -> None:
        """Discard what is left for studies whose directories were removed; a damaged one may still be put back."""
        depot = self.office.depot
        if depot is not None:
            strays = {batch.study for batch in depot.batches() if batch.state in UNSPENT} - self._library.entries.keys()
            for study in sorted(strays - self._library.left_out):
                depot.forget(study)
                log.info("material of study %s is discarded: the study was removed here", study[:12])
            for study in sorted(strays & self._library.left_out):
                log.warning("material of study %s is kept: the study is here, and could not be read", study[:12])
        self._may_hold_strays = False

    def _begin(self, entry: Entry, state: StudyState, due: Begin) -> None:
        attempt = state.attempt
        connected = self._connected() | {self._name}
        if attempt is None or not connected & set(attempt.begun_by):
            return  # whoever began it is not there: it may be over, and we have not heard
        if len(self.runs) < self.office.config.limits.studies_at_once:
            study = entry.hash
            run = self.runs[study] = AttemptRun(self.office, entry, due.attempt, due.dry, due.prepare)
            self._tasks[study] = asyncio.create_task(self._live(entry, run), name=f"study {study[:12]}")

    async def _live(self, entry: Entry, run: AttemptRun) -> None:
        study = entry.hash
        self._count("attempts begun")
        try:
            await run.run()
        finally:
            del self.runs[study]
            del self._tasks[study]
            outcome = entry.own(self._name, "outcome", run.number)
            self._count("attempts succeeded" if outcome is not None and outcome.body["ok"] else "attempts failed")
            entry.wake()
            self.look_everywhere()  # there is room for another one

    def _report(self, entry: Entry, due: Report) -> None:
        kept = self.office.results.kept(entry.hash) if due.ok else None
        number, entry_hash = self.office.head()
        self.office.say(
            entry,
            "outcome",
            {
                "attempt": due.attempt,
                "ok": due.ok,
                "error_type": due.error_type,
                "text": due.why,
                "culprit": None,
                "retry": not due.ok,
                "result": None if kept is None else kept["digest"],
                "audit": {"number": number, "hash": entry_hash},
            },
        )

    def _repeat(self, entry: Entry, due: Repeat) -> None:
        study = entry.hash
        now = asyncio.get_running_loop().time()
        if not self._all_there(entry) or len(self.runs) >= self.office.config.limits.studies_at_once:
            return
        # Not at once, so that two members that both began it, and two studies that stood in each other's
        # way, do not meet again at the same moment.
        if study not in self._not_before:
            self._not_before[study] = now + _REPEAT_SECONDS
            asyncio.get_running_loop().call_later(_REPEAT_SECONDS, self.look, entry)
        elif now >= self._not_before[study]:
            del self._not_before[study]
            self.office.say(entry, "run", run_body(due.attempt, due.dry, due.prepare))

    def _all_there(self, entry: Entry) -> bool:
        return set(entry.members) <= self._connected() | {self._name}

    def _serve_queue(self) -> None:
        """Begin what waits, in turn; who is not complete lets others pass."""
        for study, dry in list(self._queue):
            entry = self._library.entries[study]
            state = entry.state(self.office.clock())
            if not state.can_run:
                if not state.active:
                    log.info("study %s leaves the queue: %s", study[:12], state.text)
                self._leave_queue(study)
            elif len(self.runs) < self.office.config.limits.studies_at_once and self._all_there(entry):
                number = state.attempts[-1].number + 1 if state.attempts else 1
                self.office.say(entry, "run", {"attempt": number, "dry": dry})
                self._leave_queue(study)
                self._do(entry)

    def _leave_queue(self, study: str) -> None:
        self._change_queue([one for one in self._queue if one[0] != study])
        self._library.entries[study].wake()

    # ---- a result that we lack ------------------------------------------------------------------

    def _fetch(self, entry: Entry, due: Fetch) -> None:
        study = entry.hash
        now = asyncio.get_running_loop().time()
        if study in self._fetching or now < self._not_before.get(study, 0.0):
            return
        holders = [name for name in due.holders if name in self._connected()]
        if holders:
            self._not_before[study] = now + _FETCH_SECONDS
            self._fetching[study] = asyncio.create_task(self._get(entry, due, holders))

    async def _get(self, entry: Entry, due: Fetch, holders: list[str]) -> None:
        study = entry.hash
        try:
            for holder in holders:
                if await self.office.results.fetch(study, due.attempt, due.digest, holder):
                    self.office.note("result", study=study, attempt=due.attempt, sha256=due.digest, source=holder)
                    return
        except (StoreError, AuditError) as error:
            log.error("%s", error)
        finally:
            del self._fetching[study]
            entry.wake()
            self.look(entry)

    # ---- the end --------------------------------------------------------------------------------

    async def stop(self, why: str, seconds: float) -> None:
        """Stop all attempts, so that their outcomes are told; whatever does not end in time is cut off."""
        self._stopping = True
        for run in self.runs.values():
            run.stop(why, retry=True, error_type="NodeStopped")
        tasks = [*self._tasks.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        tasks = [*self._tasks.values(), *self._fetching.values()]
        for task in tasks:
            task.cancel()
        if tasks:  # a worker that still takes leave ends with us
            await asyncio.wait(tasks, timeout=_CUT_OFF_SECONDS)
