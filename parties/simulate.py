"""A consortium on one machine: one process for each organisation, as it would be in earnest.

The processes talk over TLS on the loopback interface with certificates made for this run. What they run
is what nodes run; only where the certificates and addresses come from differs.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mpc.session import check_preprocessing, check_security, join, serve_dealer
from parties.codec import decode, encode
from parties.errors import PartyError
from parties.loops import loop_factory
from parties.processes import Child, run_forked
from parties.reports import Failure, PartyCosts, Report, Results, RunCosts, cause_of, failure_of

if TYPE_CHECKING:
    from mpc.party import Party
    from parties.identity import Identity
    from parties.mesh import Member, Mesh

Program = Callable[["Party", Any], Awaitable[Any]]

# Until the others are killed after one failed; they get its message within milliseconds.
_GRACE_SECONDS = 2.0
_CONNECT_SECONDS = 30.0
_LAST_WORD_SECONDS = 2.0
_POLL_SECONDS = 0.1
# First byte of what a process reports.
_DONE = b"D"
_FAILED = b"F"


def simulate(
    program: Program,
    inputs: Sequence[Any],
    *,
    preprocessing: str | None = None,
    security: str = "semi-honest",
    in_process: bool = False,
    timeout_seconds: float = 300.0,
) -> Results:
    """Run a program at several organisations, each in its own process on this machine.

    Parameters
    ----------
    program : async callable
        ``await program(party, data)`` runs at each organisation with its own data.
    inputs : sequence
        The data of each organisation, in rank order.
    preprocessing : {"dealer", "prss", "ot"}, optional
        Where products of masks come from (see docs/security.md for whom they trust). In a simulation
        nobody is harmed by a default: ``"prss"`` for 3 to 7 organisations, otherwise ``"dealer"``,
        which adds one process.
    security : {"semi-honest", "malicious"}
        Whether organisations follow the program, or may do as they please: then what is opened is checked, and a run
        in which somebody cheats ends. ``"malicious"`` takes the preprocessing ``"dealer"``, its default, or ``"ot"``.
    in_process : bool
        Run all organisations in one event loop, without network or processes: for debuggers, and for
        platforms without ``fork`` (Windows).
    timeout_seconds : float
        For the whole run.

    Returns
    -------
    Results
        The list of return values in rank order; ``.costs`` tells what the run cost.

    Raises
    ------
    PartyError
        A party failed or died, or the run took too long. Names the party and the type of its error; it
        does not repeat the text of errors that may quote data.
    ValueError
        The preprocessing does not suit the number of organisations, or the security model.

    Notes
    -----
    Return values travel without pickle: numbers, text, lists, dicts, numpy arrays, pandas frames and
    dataclasses of these (:mod:`parties.codec`). Works in scripts, in notebooks and inside a running
    event loop, which waits meanwhile.
    """
    count = len(inputs)
    if preprocessing is None:
        preprocessing = "prss" if 3 <= count <= 7 and security == "semi-honest" else "dealer"
    check_preprocessing(preprocessing, count)
    check_security(security, preprocessing)
    if inspect.isfunction(program) and not inspect.iscoroutinefunction(program):
        raise TypeError(f"{program.__qualname__} is no program: define it with 'async def'")
    if not in_process and not hasattr(os, "fork"):
        raise RuntimeError(
            "this platform cannot fork processes, which is how programs reach them without pickle: "
            "use simulate(..., in_process=True)"
        )
    run = _run_in_process if in_process else _run_in_processes
    return _outside_any_loop(partial(run, program, list(inputs), preprocessing, security, timeout_seconds))


def _outside_any_loop(run: Callable[[threading.Event], Results]) -> Results:
    """Call a function that blocks and may start an event loop, from wherever we are."""
    cancelled = threading.Event()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run(cancelled)
    # A notebook: its loop is running in this thread, and a second one cannot.
    outcome: list[Results | BaseException] = []
    finished = threading.Event()

    def keep() -> None:
        try:
            outcome.append(run(cancelled))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asked
            outcome.append(error)
        finally:
            finished.set()

    thread = threading.Thread(target=keep, name="simulate")
    thread.start()
    try:
        finished.wait()  # not join(): an interrupt there makes Python 3.11 believe that the thread ended
    finally:
        cancelled.set()
        finished.wait()
        thread.join()
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


# ---- in processes -------------------------------------------------------------------------------


def _run_in_processes(
    program: Program,
    inputs: list[Any],
    preprocessing: str,
    security: str,
    timeout_seconds: float,
    cancelled: threading.Event,
) -> Results:
    started = time.perf_counter()
    # Before the fork, so that all is imported once and not in every process.
    from parties.identity import make_identity
    from parties.mesh import Member

    make_loop = loop_factory()
    count = len(inputs)
    nodes = count + (preprocessing == "dealer")
    identities = [make_identity(f"node {rank}") for rank in range(nodes)]
    # Bound before anybody is started: no port can be taken in between, and who is dialled too early
    # finds a queue. The last one dials all others and is never dialled.
    listeners = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(nodes - 1)]
    try:
        addresses = [(listener.getsockname()[:2]) for listener in listeners] + [("", 0)]
        members = [
            Member(identity.certificate, host, port)
            for identity, (host, port) in zip(identities, addresses, strict=True)
        ]
        seat = partial(
            _Seat, members=members, parties=count, session=secrets.token_bytes(16), timeout_seconds=timeout_seconds
        )
        functions: list[Callable[[], bytes]] = []
        for rank in range(nodes):
            taken = seat(rank=rank, identity=identities[rank], listeners=listeners)
            if rank < count:
                work = partial(_take_part, program, inputs[rank], preprocessing, security)
            else:
                work = partial(_deal, security)
            functions.append(partial(_run_seat, taken, work, make_loop))
        with _cores_shared_by(nodes):
            children = run_forked(
                functions,
                timeout_seconds=timeout_seconds,
                grace_seconds=_GRACE_SECONDS,
                is_failure=lambda report: not report.startswith(_DONE),
                cancelled=cancelled,
            )
    finally:
        for listener in listeners:
            listener.close()
    reports = _reports(children, count, timeout_seconds)
    costs = RunCosts(seconds=time.perf_counter() - started, parties=tuple(report.costs for report in reports))
    return Results([decode(report.value) for report in reports[:count]], costs)


@contextlib.contextmanager
def _cores_shared_by(processes: int) -> Iterator[None]:
    """Let the matrix products of each process use its part of the cores.

    Threads of several processes that spin for the same cores are slower than one each, by an order of
    magnitude. The limit is inherited by the processes that are forked meanwhile.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=max(1, (os.cpu_count() or 1) // processes), user_api="blas"):
        yield


class _Seat:
    """All that one process needs to be a node."""

    def __init__(
        self,
        *,
        rank: int,
        identity: Identity,
        members: Sequence[Member],
        parties: int,
        session: bytes,
        listeners: Sequence[socket.socket],
        timeout_seconds: float,
    ) -> None:
        self.rank = rank
        self.identity = identity
        self.members = members
        self.parties = parties
        self.session = session
        self.listeners = listeners
        self.timeout_seconds = timeout_seconds
        # A little before all are stopped, so that those who wait can still say for whom.
        self.ends = time.monotonic() + timeout_seconds - min(_LAST_WORD_SECONDS, timeout_seconds / 10)

    def mesh(self) -> Mesh:
        """Make our links; the other nodes' sockets are theirs alone from here on."""
        from parties.mesh import Mesh, Patience

        for rank, listener in enumerate(self.listeners):
            if rank != self.rank:
                listener.close()
        # A party that computes for long without awaiting is not dead: its death would end its
        # connections at once on this machine. What bounds the wait is the time for the whole run.
        patience = Patience(
            connect_seconds=min(_CONNECT_SECONDS, self.timeout_seconds),
            receive_seconds=self.timeout_seconds,
            until=asyncio.get_running_loop().time() + self.ends - time.monotonic(),
            silence_seconds=self.timeout_seconds,
        )
        return Mesh(
            self.identity,
            self.rank,
            self.members,
            parties=self.parties,
            session=self.session,
            listener=self.listeners[self.rank] if self.rank < len(self.listeners) else None,
            patience=patience,
        )


def _run_seat(
    seat: _Seat,
    work: Callable[[Mesh], Awaitable[tuple[bytes, PartyCosts]]],
    make_loop: Callable[[], asyncio.AbstractEventLoop] | None,
) -> bytes:
    """Be a node: this is what a child process does from beginning to end."""
    with asyncio.Runner(loop_factory=make_loop) as runner:
        report = runner.run(_sit(seat, work))
    return (_DONE if isinstance(report, Report) else _FAILED) + encode(report)


async def _sit(seat: _Seat, work: Callable[[Mesh], Awaitable[tuple[bytes, PartyCosts]]]) -> Report | Failure:
    mesh = seat.mesh()
    try:
        await mesh.connect()
        value, costs = await work(mesh)
    except BaseException as error:  # noqa: BLE001 - SystemExit too: whatever it was, it is reported
        await mesh.stop(cause_of(error))
        await mesh.close()
        return failure_of(error)
    await mesh.close()
    return Report(value, costs.with_traffic(mesh.traffic))


async def _take_part(
    program: Program, data: Any, preprocessing: str, security: str, mesh: Mesh
) -> tuple[bytes, PartyCosts]:
    party = await join(mesh, preprocessing=preprocessing, security=security)
    began = time.perf_counter()
    # Written while the others can still be told that it cannot be.
    value = encode(await program(party, data))
    seconds = time.perf_counter() - began
    await party.leave()
    return value, PartyCosts.measure(mesh.rank, seconds, party.costs)


async def _deal(security: str, mesh: Mesh) -> tuple[bytes, PartyCosts]:
    began = time.perf_counter()
    await serve_dealer(mesh, security=security)
    return encode(None), PartyCosts.measure(mesh.rank, time.perf_counter() - began, None)


def _reports(children: Sequence[Child], count: int, timeout_seconds: float) -> list[Report]:
    """Return all reports, or raise what made the run fail."""
    decoded = [None if child.report is None else decode(memoryview(child.report)[1:]) for child in children]
    # 1. Who died without a word is the cause of whatever the others say.
    for rank, child in enumerate(children):
        if decoded[rank] is None and not child.stopped:
            how = f"signal {child.signal}" if child.signal is not None else f"exit status {child.status}"
            raise PartyError(f"{_name(rank, count)} died ({how})", rank=rank, error_type="ProcessDied")
    # 2. Then whose own program failed, and last who suffered from another's failure, the first of them.
    failures = [(rank, report) for rank, report in enumerate(decoded) if isinstance(report, Failure)]
    if failures:
        rank, failure = min(failures, key=lambda item: (item[1].of_peer, item[1].when))
        raise failure.error(rank, _name(rank, count))
    late = [rank for rank, report in enumerate(decoded) if report is None]
    if late:
        names = ", ".join(_name(rank, count) for rank in late)
        raise PartyError(
            f"the run did not end within {timeout_seconds:g} s; still at work: {names}",
            rank=late[0],
            error_type="TimeoutError",
        )
    return [report for report in decoded if isinstance(report, Report)]


def _name(rank: int, count: int) -> str:
    return "the dealer" if rank == count else f"party {rank}"


# ---- in one event loop --------------------------------------------------------------------------


def _run_in_process(
    program: Program,
    inputs: list[Any],
    preprocessing: str,
    security: str,
    timeout_seconds: float,
    cancelled: threading.Event,
) -> Results:
    from mpc.memory import root_cause, run_together

    async def run() -> list[tuple[Any, Party | None]]:
        async with asyncio.timeout(timeout_seconds), asyncio.TaskGroup() as group:
            work = group.create_task(
                run_together(
                    program,
                    inputs,
                    preprocessing=preprocessing,
                    security=security,
                    timeout_seconds=0.9 * timeout_seconds,
                )
            )
            while not work.done():
                await asyncio.wait([work], timeout=_POLL_SECONDS)
                if cancelled.is_set():
                    raise asyncio.CancelledError
        return work.result()

    started = time.perf_counter()
    try:
        outcomes = asyncio.run(run())
    except TimeoutError:
        raise PartyError(
            f"the run did not end within {timeout_seconds:g} s", rank=0, error_type="TimeoutError"
        ) from None
    seconds = time.perf_counter() - started
    cause = root_cause([outcome for outcome, _ in outcomes])
    if cause is not None:
        rank, error = cause
        # The error itself is kept as the cause: this is the process whose data it may quote.
        raise failure_of(error).error(rank, _name(rank, len(inputs))) from error
    costs = [
        PartyCosts.measure(rank, seconds, None if party is None else party.costs)
        for rank, (_, party) in enumerate(outcomes)
    ]
    return Results([outcome for outcome, _ in outcomes], RunCosts(seconds, tuple(costs)))
