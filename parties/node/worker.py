"""The process that computes one attempt of one study, and then ends.

It has a key and a certificate of its own. What its node says comes over one socket, what its peers say over
links to their workers; what it has to say goes to the node, and nothing is printed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from mpc.errors import PeerError, SottovoceError, for_peers
from parties.identity import make_identity
from parties.node.computing import Attempt, StoppedError, TimeLimitError
from parties.node.exchange import MESSAGE_BYTES, Exchange, ExchangeError
from parties.node.keepers import NodeKeeper, NoKeeper
from parties.node.ledger import Ledger
from parties.node.material_messages import Stored
from parties.node.messages import (
    Adopt,
    Assigned,
    Begin,
    Failed,
    Finished,
    Hello,
    Pinned,
    Stop,
    as_json,
    from_node,
    result_digest,
)
from parties.node.process import follow
from parties.node.program import ProgramError, place_of
from parties.node.telling import Teller
from parties.reports import cause_of, failure_of

_FLUSH_SECONDS = 5.0
_TEXT = 4000


class ResultError(SottovoceError, ValueError):
    """A result cannot be told to the node."""


def main(exchange: int, ledger: int, in_force: list[str]) -> None:
    """Be a worker.

    Parameters
    ----------
    exchange : int
        Our end of the socket to the node.
    ledger : int
        The node's ledger of seeds, open.
    in_force : list of str
        What confines this process (:mod:`parties.node.enter`).
    """
    from parties.loops import loop_factory

    follow(exchange)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_work(socket.socket(fileno=exchange), ledger, in_force))


async def _work(sock: socket.socket, ledger: int, in_force: list[str]) -> None:
    exchange = Exchange(sock, takes_sockets=True)
    try:
        first = await exchange.receive()
        if first is None:
            return
        assigned = from_node(first)
        if not isinstance(assigned, Assigned):
            raise ExchangeError("the first message of a node is an assignment")
        await Seat(exchange, assigned, ledger, in_force).sit()
        with contextlib.suppress(TimeoutError, ExchangeError):  # a node that is gone hears nothing
            async with asyncio.timeout(_FLUSH_SECONDS):
                await exchange.drain()
    finally:
        exchange.close()


class Seat:
    """A worker between its node and its attempt."""

    def __init__(self, exchange: Exchange, assigned: Assigned, ledger: int, in_force: list[str]) -> None:
        self._exchange = exchange
        self._assigned = assigned
        self._ledger = ledger
        self._in_force = in_force
        self._begun: asyncio.Future[Begin] = asyncio.get_running_loop().create_future()
        self._teller: Teller | None = None
        self._keeper = NodeKeeper(exchange) if assigned.assignment.depot else None

    async def sit(self) -> None:
        """Do the work from beginning to end, and tell how it went."""
        try:
            identity = make_identity("worker")
            attempt = Attempt(self._assigned, identity, self._in_force)
            attempt.keeper = self._keeper or NoKeeper()
        except SottovoceError as error:
            self._tell(_failed(error, None))
            return
        self._exchange.post(as_json(Hello(certificate=identity.certificate, confined_by=tuple(self._in_force))))
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._do(attempt))
            hearing = group.create_task(self._hear(attempt, work))
            try:
                await work
            finally:
                hearing.cancel()
                attempt.close()

    async def _hear(self, attempt: Attempt, work: asyncio.Task[None]) -> None:
        """Heed what the node says."""
        while True:
            message = await self._exchange.receive()
            if message is None:
                self._stop("its node is gone", attempt, work)
                return
            heard = from_node(message)
            along = self._exchange.take_socket()
            if isinstance(heard, Begin) and not self._begun.done():
                attempt.take_rows_from(along)
                self._begun.set_result(heard)
            elif isinstance(heard, Adopt) and along is not None:
                attempt.adopt(along)
            elif isinstance(heard, Pinned):
                attempt.pinned.set()
            elif isinstance(heard, Stored) and self._keeper is not None:
                self._keeper.heard(heard, along)
            else:
                if along is not None:
                    along.close()
                if isinstance(heard, Stop):
                    self._stop(heard.reason, attempt, work)

    def _stop(self, reason: str, attempt: Attempt, work: asyncio.Task[None]) -> None:
        if attempt.stopping is None:
            attempt.stopping = reason
            work.cancel()

    async def _do(self, attempt: Attempt) -> None:
        """Compute, say how it went, and take leave of the others."""
        last = await self._compute(attempt)
        if self._teller is not None:
            with contextlib.suppress(ExchangeError, asyncio.CancelledError):  # too late to stop: it is done
                await self._teller.finish()
        # The node has the result before we wait for others to take note of our goodbye.
        self._tell(last)
        try:
            await attempt.leave()
        except asyncio.CancelledError:  # the node does not want us to wait
            return

    async def _compute(self, attempt: Attempt) -> Finished | Failed:
        telling: asyncio.Task[None] | None = None
        try:
            attempt.get_ready()
            begin = await self._begun
            self._teller = teller = Teller(self._exchange, attempt.names)
            telling = asyncio.get_running_loop().create_task(teller.keep_telling())
            assignment = self._assigned.assignment
            with Ledger(
                self._ledger, study=assignment.study_hash, attempt=assignment.attempt, session=begin.session
            ) as ledger:
                result = await attempt.run(begin, ledger, teller)
                teller.enter("leaving")
            return _finished(result)
        except BaseException as error:  # noqa: BLE001 - whatever it was, the node must hear of it
            return _failed(error, self._teller, attempt.stopping)
        finally:
            if telling is not None:
                telling.cancel()

    def _tell(self, last: Finished | Failed) -> None:
        with contextlib.suppress(ExchangeError):
            self._exchange.post(as_json(last))


def _finished(result: dict[str, Any] | None) -> Finished:
    if result is None:
        return Finished()
    try:
        finished = Finished(result=result, digest=result_digest(result))
    except SottovoceError:
        raise
    except ValueError:
        raise ResultError("the result is nothing that can be written as JSON") from None
    size = len(finished.model_dump_json())
    if size > MESSAGE_BYTES - 1024:
        raise ResultError(f"the result takes {size} bytes as JSON: the most is {MESSAGE_BYTES - 1024}")
    return finished


def _failed(error: BaseException, teller: Teller | None, reason: str | None = None) -> Failed:
    """Say how it failed; a text goes along if it is ours, which are free of data."""
    phase = "starting" if teller is None else teller.phase
    if reason is not None and isinstance(cause_of(error), asyncio.CancelledError):
        error = StoppedError(reason)
    cause = cause_of(error)
    failure = failure_of(error)
    kind = cause.error_type if isinstance(cause, ProgramError) else failure.error_type
    if isinstance(cause, StoppedError | TimeLimitError):
        kind = kind.removesuffix("Error")  # as the node calls it when it has to say so itself
    text = failure.text
    if isinstance(cause, MemoryError):
        kind, text = "MemoryError", "the study needs more memory than this node's limits allow a worker"
    elif not isinstance(cause, SottovoceError):
        place = failure.places[-1] if failure.places else place_of(cause)
        text = f"the worker failed{f' at {place}' if place else ''}; this is a fault of the software"
    of_peer = isinstance(cause, PeerError)
    return Failed(
        error_type=kind if kind.isidentifier() and kind.isascii() and len(kind) <= 80 else "Error",
        text=text[:_TEXT],
        for_peers=for_peers(cause)[:_TEXT],
        culprit=cause.rank if isinstance(cause, PeerError) and 0 <= cause.rank < 64 else None,
        of_peer=of_peer,
        step=cause.step[:400] if isinstance(cause, PeerError) and cause.step else "",
        phase=phase,
    )
