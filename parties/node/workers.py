"""A worker as its node sees it: a process of its own that computes one attempt of one study.

The worker has a key and a certificate of its own, made for this attempt, and never the node's. Our rows
are loaded by a second process, which hands them to the worker once the dry run has gone well; where they
come from, and any password for it, the worker never learns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO

from mpc.errors import SottovoceError
from parties.node.clearing import HOME, clear_away, remove
from parties.node.exchange import Exchange, ExchangeError
from parties.node.hearing import Hearing
from parties.node.material_messages import Stored
from parties.node.messages import (
    Adopt,
    Assigned,
    Assignment,
    Begin,
    Costs,
    Event,
    Failed,
    Finished,
    Hello,
    Limits,
    MemberAddress,
    MessageError,
    Opened,
    Opening,
    Phase,
    Pinned,
    Progress,
    Relaying,
    Rows,
    StepCosts,
    Stop,
    as_json,
    from_worker,
    result_digest,
)
from parties.node.process import Process
from parties.node.starting import START_SECONDS, start_loader, start_worker

__all__ = [
    "Assignment",
    "Costs",
    "Event",
    "Failed",
    "Finished",
    "Limits",
    "MemberAddress",
    "Opened",
    "Opening",
    "Progress",
    "Relaying",
    "Rows",
    "StepCosts",
    "Worker",
    "WorkerError",
    "clear_away",
    "result_digest",
]

STOP_SECONDS = 5.0
# For a goodbye to be heard, beside the time for which another member may be away.
_LEAVE_SECONDS = 15.0
_LAST_BREATH_SECONDS = 1.0
# It is to say itself that its time is over; only if it does not, we do.
_GRACE_SECONDS = 5.0
_SAID_BYTES = 64 * 1024
_SAID_FILE = "worker.stderr"


class WorkerError(SottovoceError, RuntimeError):
    """A worker cannot be started."""


class Worker:
    """One attempt's process, from its start until nothing is left of it; made by :meth:`start`.

    Attributes
    ----------
    certificate : bytes
        DER of the certificate that it made for this attempt.
    confined_by : tuple of str
        What keeps it from the node's files and processes; see :mod:`parties.node.enter`.

    Notes
    -----
    Iterate over :meth:`events` to the end, and call :meth:`close` however that ended::

        worker = await Worker.start(assignment, ledger=ledger, directory=directory)
        try:
            ...                                   # tell the others worker.certificate
            await worker.begin(members, session)
            async for event in worker.events():   # the last one is Finished or Failed
                ...
        finally:
            await worker.close()
    """

    def __init__(
        self, assignment: Assignment, process: Process, exchange: Exchange, home: Path, said: IO[bytes]
    ) -> None:
        self.certificate = b""
        self.confined_by: tuple[str, ...] = ()
        self._assignment = assignment
        self._process = process
        self._loader: Process | None = None
        self._exchange = exchange
        self._home = home
        self._said = said
        self._phase: Phase = "starting"
        self._deadline: float | None = None
        self._stopping = ""
        self._late = False
        self._failed = False
        self._lingers = 0.0
        self._hearing = Hearing()
        self._winding_up: asyncio.Task[None] | None = None
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    # ---- the beginning --------------------------------------------------------------------------

    @classmethod
    async def start(cls, assignment: Assignment, *, ledger: Path, directory: Path) -> Worker:
        """Start a process and wait for its certificate.

        Parameters
        ----------
        assignment : Assignment
            What it is to do.
        ledger : Path
            The node's ledger of seeds; see :mod:`parties.node.ledger`.
        directory : Path
            Where the worker gets an empty directory to work in, which goes with it; made if there is
            none. What the last one that failed wrote on standard error stays in ``worker.stderr``.

        Raises
        ------
        WorkerError
            Saying why there is none.
        """
        try:
            worker = cls._spawn(assignment, ledger, directory)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise WorkerError(f"no worker can be started: {why}; look at the limits of this machine") from None
        try:
            async with asyncio.timeout(START_SECONDS):
                hello = await worker._introduce()
        except TimeoutError:
            await worker.close(failed=True)
            raise WorkerError(f"the worker did not start within {START_SECONDS:g} s: is the machine busy?") from None
        except BaseException:
            await worker.close(failed=True)
            raise
        worker.certificate, worker.confined_by = hello.certificate, hello.confined_by
        return worker

    async def _introduce(self) -> Hello:
        # Where our rows come from is not for the process that computes.
        kept = {"source": None, "base": ".", "rows_key": None, "rows_digest": None}
        told = self._assignment.model_copy(update=kept)
        try:
            self._exchange.post(as_json(Assigned(assignment=told)))
            message = await self._exchange.receive()
            hello = None if message is None else from_worker(message)
        except (ExchangeError, MessageError) as error:
            raise WorkerError(f"the worker did not start: {error}") from None
        if isinstance(hello, Failed):
            raise WorkerError(f"the worker refuses the study: {hello.error_type}: {hello.text}")
        if not isinstance(hello, Hello):
            raise WorkerError(f"the worker ended at its start; see {_SAID_FILE} in the node's directory of workers")
        return hello

    @classmethod
    def _spawn(cls, assignment: Assignment, ledger: Path, directory: Path) -> Worker:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            home = Path(tempfile.mkdtemp(prefix=HOME, dir=directory))
            undo.callback(remove, home)
            said = tempfile.TemporaryFile(dir=directory)
            undo.callback(said.close)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            with theirs:
                process = start_worker(assignment, theirs, ledger, home, said)
            undo.callback(process.kill)
            worker = cls(assignment, process, Exchange(ours), home, said)
            undo.pop_all()
        return worker

    async def begin(self, members: Sequence[MemberAddress], session: bytes, passes: bytes | None = None) -> None:
        """Let it compute.

        Parameters
        ----------
        members : sequence of MemberAddress
            The workers of all members in rank order, ours included.
        session : bytes
            16 bytes that all members agreed on for this attempt, and for no other.
        passes : bytes, optional
            The node's permission to use a relay.

        Raises
        ------
        WorkerError
            If the process that loads our rows cannot be started.

        Notes
        -----
        That the worker has died meanwhile is told by :meth:`events`.
        """
        begin = as_json(Begin(members=tuple(members), session=session, passes=passes))
        rows: socket.socket | None = None
        if self._assignment.source is not None:
            try:
                rows = self._start_loading()
            except OSError as error:
                why = error.strerror or type(error).__name__
                raise WorkerError(f"the process that loads the data cannot be started: {why}") from None
        limit = min(self._assignment.limits.time_seconds, 30 * 86400.0)
        self._deadline = asyncio.get_running_loop().time() + limit + _GRACE_SECONDS
        with contextlib.suppress(ExchangeError):
            self._exchange.post(begin, rows)

    def _start_loading(self) -> socket.socket:
        """Start the process that knows where our rows are; returns the socket on which it gives them."""
        theirs, ours = socket.socketpair()
        try:
            with ours:
                self._loader = start_loader(self._assignment, ours, self._home, self._said)
        except BaseException:
            theirs.close()
            raise
        return theirs

    def adopt(self, sock: socket.socket) -> None:
        """Hand it a connection that was accepted for it; its TLS handshake is still to come.

        Parameters
        ----------
        sock : socket.socket
            Ours no more, whatever becomes of it.

        Raises
        ------
        ExchangeError
            If the worker is gone or does not take what it is handed.
        """
        self._exchange.post(as_json(Adopt()), sock)

    # ---- what it says ---------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Event]:
        """Yield what the worker tells; the last event is :class:`Finished` or :class:`Failed`.

        After :class:`Rows` it computes nothing until the next event is asked for.
        It may still be there then, to send to the others what they have not got yet: :meth:`close` waits
        for that. At most one iteration.
        """
        last: Finished | Failed | None = None
        while last is None:
            try:
                async with asyncio.timeout_at(self._deadline):
                    await asyncio.sleep(0)  # or time would never be over for one who always has more to say
                    message = await self._exchange.receive()
                event = None if message is None else from_worker(message)
            except TimeoutError:
                self._hurry()
                continue
            except (ExchangeError, MessageError) as error:
                last = self._fault(f"sent {error}")
                break
            if event is None:
                last = await self._death()
            elif isinstance(event, Finished | Failed):
                last = self._said_last(event)
            elif isinstance(event, Hello):
                last = self._fault("said hello twice")
            elif self._hearing.is_too_much(event, self._exchange.bytes_received):
                last = self._fault("said more than any study has to say")
            else:
                if isinstance(event, Progress):
                    self._phase = event.phase
                yield event
                if isinstance(event, Rows):  # who comes back for the next event has written it down
                    self.reply(Pinned())
                if not self._process.killed:
                    await self._hearing.pace()
        yield last

    def reply(self, message: Pinned | Stored, passed: socket.socket | None = None) -> None:
        """Answer what it has told or asked; a socket may go along. One that is gone is told by :meth:`events`."""
        with contextlib.suppress(ExchangeError):
            self._exchange.post(as_json(message), passed)

    def _said_last(self, event: Finished | Failed) -> Finished | Failed:
        if isinstance(event, Failed):
            self._failed = True
            self._lingers = STOP_SECONDS
            return event
        if event.result is not None and event.digest != result_digest(event.result):
            return self._fault("told another hash than that of its result")
        away = self._assignment.study.get("resume_seconds")
        self._lingers = _LEAVE_SECONDS + (away if isinstance(away, int) else 0)
        return event

    def _fault(self, what: str) -> Failed:
        self._failed = True
        self._process.kill()
        return self._failure("WorkerFault", f"the worker {what}")

    def _hurry(self) -> None:
        """Its time is over: ask it to stop, and kill it if that was in vain."""
        if self._late:
            self._process.kill()
            self._deadline = None
            return
        self._late = True
        self._deadline = asyncio.get_running_loop().time() + STOP_SECONDS
        self._ask_to_stop(f"the time limit of {self._assignment.limits.time_seconds:g} s is over")

    async def _death(self) -> Failed:
        """Say how a worker ended that said nothing of it."""
        # Its end of the exchange is closed a little before it has ended.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_BREATH_SECONDS):
                await self._process.wait()
        await self._wind_up(failed=True)
        if self._late:
            return self._failure(
                "TimeLimit", f"the study took longer than {self._assignment.limits.time_seconds:g} s and was stopped"
            )
        if self._stopping:
            return self._failure("Stopped", self._stopping)
        return self._failure("WorkerDied", f"the worker ended without a word: {self._process.how_it_ended()}")

    def _failure(self, error_type: str, text: str) -> Failed:
        return Failed(error_type=error_type, text=text, for_peers=text, phase=self._phase)

    # ---- the end --------------------------------------------------------------------------------

    async def stop(self, reason: str) -> None:
        """Ask it to stop and to tell the others why; kill it if it has not ended within 5 s.

        Parameters
        ----------
        reason : str
            For the other members too, so free of data.
        """
        if self._winding_up is not None or self._process.has_ended():
            return
        self._ask_to_stop(reason)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()

    def _ask_to_stop(self, reason: str) -> None:
        self._stopping = self._stopping or reason
        with contextlib.suppress(ExchangeError):
            self._exchange.post(as_json(Stop(reason=reason[:1000])))

    async def close(self, *, failed: bool = False) -> None:
        """Let it take leave of the others if it has finished, end it, and remove its directory.

        Leaving takes no time, unless another member is away: then up to the study's time to resume.
        Does nothing the second time.

        Parameters
        ----------
        failed : bool
            Whether to keep what it wrote on standard error; it is kept anyway if it told of a failure.
        """
        await self._wind_up(failed=failed)

    async def _wind_up(self, *, failed: bool = True) -> None:
        if self._winding_up is None:
            self._winding_up = asyncio.get_running_loop().create_task(self._leave_nothing(failed))
        # Whoever cancels us does not cancel this: a process would be left.
        await asyncio.shield(self._winding_up)

    async def _leave_nothing(self, failed: bool) -> None:
        try:
            if self._lingers:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._lingers):
                        await self._process.wait()
        finally:
            try:
                await self._process.end()
                if self._loader is not None:
                    await self._loader.end()
            finally:
                self._clear_away(failed or self._failed)

    def _clear_away(self, failed: bool) -> None:
        self._watching.cancel()
        self._exchange.close()
        if failed:
            with contextlib.suppress(OSError):  # a full disk is no reason to keep a process
                self._keep_what_it_said()
        self._said.close()
        remove(self._home)

    async def _watch(self) -> None:
        """See to it that nobody waits for a word of a process that is gone, whoever else holds its end."""
        await self._process.wait()
        self._exchange.end()

    def _keep_what_it_said(self) -> None:
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _SAID_BYTES))
        said = self._said.read(_SAID_BYTES)
        if not said:
            return
        handle, path = tempfile.mkstemp(dir=self._home.parent)
        with open(handle, "wb") as file:
            file.write(said)
        os.replace(path, self._home.parent / _SAID_FILE)
