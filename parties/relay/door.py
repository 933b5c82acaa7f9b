"""The door of a relay: who connects is counted before anything is done for them.

A connection costs a relay a file and memory from the moment that it is accepted, TLS included. So there
is a bound on all of them, on those of one address, and on those who have not yet said who they are; and
whoever has not said it in time is shown out, whatever he does meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

# No more files, no more memory: not the fault of who comes now, and it may pass.
_SHORT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_PAUSE_SECONDS = 0.2
_AT_A_TIME = 64
_TIDY_EVERY = 64


@dataclass(slots=True)
class _Visitor:
    address: str
    known: bool = False
    timer: asyncio.TimerHandle | None = None
    transport: asyncio.Transport | None = None
    arriving: asyncio.Task[None] | None = None


class Door(web.Server):
    """Accepts connections for an HTTP server, within bounds.

    Parameters
    ----------
    handler : callable
        Answers requests, as for ``aiohttp.web.Server``.
    tls : ssl.SSLContext or None
        None for plain HTTP. May be replaced; connections from then on use the new one.
    in_all, unknown : int
        How many connections at once, and how many of them of whom we do not know who they are.
    per_address : int or None
        How many of one address; None if all come from one, a proxy's.
    seconds : float
        To say who one is.
    turned_away : callable
        Told why a connection was closed: a few words, and the address.
    tidy : callable, optional
        Called whenever 64 connections have gone.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        tls: ssl.SSLContext | None,
        *,
        in_all: int,
        unknown: int,
        per_address: int | None,
        seconds: float,
        turned_away: Callable[[str, str], None],
        tidy: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(
            handler, access_log=None, lingering_time=0.0, keepalive_timeout=seconds, logger=_quiet(turned_away)
        )
        self.tls = tls
        self._in_all = in_all
        self._most_unknown = unknown
        self._per_address = per_address
        self._seconds = seconds
        self._turned_away = turned_away
        self._tidy = tidy
        self._gone = 0
        self._visitors: dict[asyncio.BaseProtocol, _Visitor] = {}
        self._by_address: Counter[str] = Counter()
        # Those who have not said who they are, by address, in the order in which they came.
        self._unknown: dict[str, dict[asyncio.BaseProtocol, _Visitor]] = {}
        self._unknown_count = 0
        self._listener: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._arriving: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._visitors)

    def is_open(self, protocol: asyncio.BaseProtocol) -> bool:
        """Whether this connection is still there."""
        return protocol in self._visitors

    def open(self, listener: socket.socket) -> None:
        """Begin to accept connections on a socket that listens."""
        listener.setblocking(False)
        self._listener = listener
        self._loop.add_reader(listener, self._accept)

    def shut(self) -> None:
        """Accept no more connections, and close the socket."""
        if self._pause is not None:
            self._pause.cancel()
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        for task in self._arriving:
            task.cancel()

    def _accept(self) -> None:
        if self._listener is None:
            return
        for _ in range(_AT_A_TIME):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SHORT_OF:
                    raise
                self._turned_away("no more files or memory", "everybody")
                self._loop.remove_reader(self._listener)
                self._pause = self._loop.call_later(_PAUSE_SECONDS, self.open, self._listener)
                return
            place = str(address[0])
            if len(self._visitors) >= self._in_all:
                self._refuse(connection, "too many connections", place)
            elif self._per_address is not None and self._by_address[place] >= self._per_address:
                self._refuse(connection, "too many connections of one address", place)
            else:
                self._let_in(connection, place)

    def _let_in(self, connection: socket.socket, place: str) -> None:
        # Counted here and now: the bounds hold for those who come at once, too.
        protocol, visitor = self(), _Visitor(place)
        self._enter(protocol, visitor)
        task = visitor.arriving = self._loop.create_task(self._receive(connection, protocol, visitor))
        self._arriving.add(task)

        def arrived(task: asyncio.Task[None]) -> None:
            self._arriving.discard(task)
            if visitor.transport is None:
                connection.close()
                self._leave(protocol)

        task.add_done_callback(arrived)

    def _refuse(self, connection: socket.socket, why: str, place: str) -> None:
        connection.close()
        self._turned_away(why, place)

    async def _receive(self, connection: socket.socket, protocol: asyncio.BaseProtocol, visitor: _Visitor) -> None:
        options: dict[str, Any] = {} if self.tls is None else {"ssl_handshake_timeout": self._seconds}
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            visitor.transport, _ = await self._loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self.tls, **options
            )
        except OSError as error:  # errors of TLS and of time are among them
            self._turned_away(f"no TLS handshake ({type(error).__name__})", visitor.address)
        except Exception as error:  # noqa: BLE001  # whatever it is, one connection must not close the door
            self._turned_away(f"a connection failed ({type(error).__name__})", visitor.address)

    def _enter(self, protocol: asyncio.BaseProtocol, visitor: _Visitor) -> None:
        if self._unknown_count >= self._most_unknown:
            # Of those at whose address most are waiting, the first: a crowd from one place keeps out itself.
            place = max(self._unknown, key=lambda each: len(self._unknown[each]))
            self._show_out(next(iter(self._unknown[place])), "too many who do not say who they are")
        self._visitors[protocol] = visitor
        self._by_address[visitor.address] += 1
        self._unknown.setdefault(visitor.address, {})[protocol] = visitor
        self._unknown_count += 1
        visitor.timer = self._loop.call_later(self._seconds, self._show_out, protocol, "did not say in time who it is")

    def _show_out(self, protocol: asyncio.BaseProtocol, why: str) -> None:
        visitor = self._visitors.get(protocol)
        if visitor is None:
            return
        self._turned_away(why, visitor.address)
        self._know(protocol, visitor)
        if visitor.transport is not None:
            visitor.transport.abort()
        elif visitor.arriving is not None:
            visitor.arriving.cancel()

    def welcome(self, protocol: asyncio.BaseProtocol) -> None:
        """Note that this connection has said who it is."""
        visitor = self._visitors.get(protocol)
        if visitor is not None:
            self._know(protocol, visitor)

    def _know(self, protocol: asyncio.BaseProtocol, visitor: _Visitor) -> None:
        if visitor.known:
            return
        visitor.known = True
        if visitor.timer is not None:
            visitor.timer.cancel()
        self._unknown_count -= 1
        same = self._unknown[visitor.address]
        del same[protocol]
        if not same:
            del self._unknown[visitor.address]

    def _leave(self, protocol: asyncio.BaseProtocol) -> None:
        visitor = self._visitors.pop(protocol, None)
        if visitor is None:
            return
        self._know(protocol, visitor)
        self._by_address[visitor.address] -= 1
        if not self._by_address[visitor.address]:
            del self._by_address[visitor.address]
        self._gone += 1
        if self._tidy is not None and not self._gone % _TIDY_EVERY:
            self._loop.call_soon(self._tidy)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        """See ``aiohttp.web.Server``: called when a connection is gone."""
        self._leave(handler)
        super().connection_lost(handler, exc)


def _quiet(turned_away: Callable[[str, str], None]) -> logging.Logger:
    """Return a logger for aiohttp that counts; its own would quote whatever somebody sends us, at any length."""

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            fault = record.exc_info[1] if record.exc_info else None
            place = ""
            if fault is not None and not isinstance(fault, HttpProcessingError):  # not theirs, but ours
                frames = traceback.extract_tb(fault.__traceback__)
                place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
            whose = str(record.args[0]) if isinstance(record.args, tuple) and record.args else "somebody"
            turned_away(f"a request that failed ({type(fault).__name__}{place})", whose)

    logger = logging.Logger("sottovoce.relay.http", logging.WARNING)
    logger.addHandler(Count())
    return logger
