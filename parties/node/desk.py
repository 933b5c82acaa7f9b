"""Where a worker's node keeps material for it: the worker seals and opens, and the node has ledger, files and keys.

A worker gets the key of one file, and a socket for its bytes; it cannot reach the depot itself. The bytes go to and
from the disk in a thread, so that the node has time for others.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any

from mpc.errors import SottovoceError
from parties.governance.checks import one_line
from parties.node.batches import ENDED, BatchError
from parties.node.depot import Depot, Making, Taken
from parties.node.material_messages import Material, OfferOf, Stored

_PIECE = 1 << 20
_MOST_OFFERS = 512
_WHY_LETTERS = 200

Answer = tuple[Stored, socket.socket | None]


class Desk:
    """Answers one worker's requests; use it as ``async with``: what is half-made in the end is discarded.

    Parameters
    ----------
    depot : Depot or None
        None refuses everything.
    study : str
        Hash of the worker's study: it touches no other's material.
    attempt : int
        For the ledger.
    note : callable
        ``note(event, **fields)`` writes to the audit log.
    session : str
        The attempt's, after which batches are called.
    runs : int
        How many batches the attempt makes: none, unless it prepares.
    spends : bool
        Whether it may use one.
    """

    def __init__(
        self,
        depot: Depot | None,
        study: str,
        attempt: int,
        note: Callable[..., None],
        *,
        session: str,
        runs: int,
        spends: bool,
    ) -> None:
        self._depot = depot
        self._study = study
        self._attempt = attempt
        self._note = note
        self._session = session
        self._runs = runs
        self._spends = spends
        self._making: Making | None = None
        self._taken: Taken | None = None
        self._moving: asyncio.Task[None] | None = None
        self._sock: socket.socket | None = None

    async def __aenter__(self) -> Desk:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._halt()
        finally:
            if self._making is not None:
                with contextlib.suppress(SottovoceError):
                    self._discard(self._making.name, "the attempt ended before it was whole")
            if self._taken is not None:
                self._taken.close()

    async def _halt(self) -> str:
        """End the thread that moves bytes, whatever the worker does; say what went wrong in it."""
        moving, self._moving = self._moving, None
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
            self._sock = None
        if moving is None:
            return ""
        (failure,) = await asyncio.gather(moving, return_exceptions=True)
        return _said(failure) if isinstance(failure, OSError | SottovoceError) else ""

    async def answer(self, request: Material) -> Answer:
        """Do what a worker asks for; what is refused is said in the answer."""
        try:
            if self._depot is None:
                raise BatchError("this node keeps no material")
            return await self._do(self._depot, request)
        except SottovoceError as error:
            return Stored(ok=False, text=str(error)[:1000]), None

    async def _do(self, depot: Depot, request: Material) -> Answer:
        if request.ask == "offers":
            offers = depot.offers(self._study)[:_MOST_OFFERS]
            told = (OfferOf.model_validate({"name": o.name, "state": o.state, "matching": o.matching}) for o in offers)
            return Stored(offers=tuple(told)), None
        if request.ask == "close":
            return await self._close()
        name = request.name or ""
        if request.ask == "begin":
            return self._begin(depot, name)
        batch = depot.batch(name)
        if batch is None or batch.study != self._study:
            raise BatchError("there is no such batch for this study")
        if request.ask == "spend":
            return self._spend(depot, name)
        if request.ask == "discard":
            why = one_line(request.why, _WHY_LETTERS)
            if self._making is not None and self._making.name == name:
                why = await self._halt() or why
            self._discard(name, why)
        elif request.ask == "ready":
            self._check_own(name)
            depot.ready(name)
            self._tell("ready", name)
        else:
            await self._made(depot, request)
        return Stored(), None

    def _move(self, work: Callable[[socket.socket], None]) -> socket.socket:
        """Move bytes in a thread; returns the worker's end."""
        ours, theirs = socket.socketpair()
        self._sock = ours
        self._moving = asyncio.create_task(asyncio.to_thread(work, ours))
        return theirs

    def _tell(self, event: str, name: str, **more: Any) -> None:
        self._note("material", study=self._study, attempt=self._attempt, batch=name, what=event, **more)

    # ---- making ---------------------------------------------------------------------------------

    def _check_own(self, name: str) -> None:
        """Refuse batches that this attempt does not make."""
        session, _, number = name.rpartition("-")
        if session != self._session or int(number or "0") >= self._runs:
            raise BatchError("this attempt makes no such batch")

    def _begin(self, depot: Depot, name: str) -> Answer:
        self._check_own(name)
        if self._making is not None:
            raise BatchError("one batch at a time")
        depot.check_room(0)
        making = self._making = depot.begin(self._study, name)
        theirs = self._move(lambda sock: _receive(sock, making, depot))
        return Stored(key=making.key, study=self._study, salt=making.header["salt"]), theirs

    async def _made(self, depot: Depot, request: Material) -> None:
        making, moving = self._making, self._moving
        if making is None or moving is None or making.name != request.name or request.matching is None:
            raise BatchError("that batch is not being made")
        try:
            await moving
        except OSError as failure:
            raise BatchError(_said(failure)) from None
        self._making = self._moving = None
        depot.made(making, matching=request.matching, products=request.products)
        self._tell("made", making.name, bytes=making.size, products=request.products, matching=request.matching)

    def _discard(self, name: str, why: str) -> None:
        depot = self._depot
        batch = None if depot is None else depot.batch(name)
        if depot is None or batch is None or batch.state in ENDED:
            return
        if self._making is not None and self._making.name == name:
            making, self._making = self._making, None
            depot.drop(making, why)
        else:
            depot.discard(name, why)
        self._tell("discarded", name, why=why)

    # ---- using ----------------------------------------------------------------------------------

    def _spend(self, depot: Depot, name: str) -> Answer:
        if not self._spends:
            raise BatchError("a dry run uses nothing up")
        if self._taken is not None:
            raise BatchError("one batch at a time")
        taken = self._taken = depot.take(name, f"attempt {self._attempt}")
        self._tell("spent", name, matching=taken.batch.matching)
        theirs = self._move(lambda sock: _send(sock, taken))
        return Stored(key=taken.key, study=self._study, salt=taken.batch.salt), theirs

    async def _close(self) -> Answer:
        taken, moving = self._taken, self._moving
        if taken is None or moving is None:
            raise BatchError("nothing is being read")
        self._taken = self._moving = None
        try:
            await moving
        except OSError:
            return Stored(ok=False, text="it could not be read"), None
        finally:
            taken.close()
        return Stored(ok=taken.is_ours, text="" if taken.is_ours else "it is not what was written"), None


def _receive(sock: socket.socket, making: Making, depot: Depot) -> None:
    """Write what a worker seals, until it closes its end; in a thread."""
    with sock:
        while data := sock.recv(_PIECE):
            depot.check_room(len(data))
            making.write(data)


def _said(failure: OSError | SottovoceError) -> str:
    """Say what went wrong, without the name of a file."""
    if isinstance(failure, SottovoceError):
        return str(failure)
    return f"material cannot be written: {failure.strerror or type(failure).__name__}"


def _send(sock: socket.socket, taken: Taken) -> None:
    """Give a worker the bytes of a file; in a thread."""
    with sock, contextlib.suppress(ConnectionError):  # it read enough, or is gone
        while data := taken.read(_PIECE):
            sock.sendall(data)
