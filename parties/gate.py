"""Being dialled: TCP connections come in, and TLS says who it is.

Whoever comes counts as a stranger until it has shown a member's certificate and said hello. Only so many
strangers may stand at the gate; where there are more, the one that came first has to go. A member needs
milliseconds and gets in between any number of them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass

from aiohttp import web

HANDSHAKE_SECONDS = 15.0
MOST_STRANGERS = 64
# After the system had no more files for us to accept with.
_PAUSE_SECONDS = 0.2


@dataclass(slots=True, eq=False)
class _Stranger:
    connection: socket.socket
    protocol: asyncio.BaseProtocol
    proof: asyncio.Future[None]
    handled: bool = False  # somebody else closes the socket


class Gate:
    """Accepts connections for an HTTP server, and takes those that somebody else accepted for us.

    Parameters
    ----------
    server : aiohttp.web.Server
    tls : ssl.SSLContext
    """

    def __init__(self, server: web.Server, tls: ssl.SSLContext) -> None:
        self._server = server
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._strangers: dict[_Stranger, asyncio.Task[None]] = {}
        self._going: set[asyncio.Task[None]] = set()
        self._closed = False

    def listen(self, listener: socket.socket) -> None:
        """Accept connections on a socket that already listens; it is closed with us."""
        listener.setblocking(False)
        self._listener = listener
        # Not sock_accept(): when that is cancelled, a connection it has just accepted is lost and stays open.
        self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):  # it went away while it waited
            return
        except OSError:
            # No more files or memory: those who wait are not turned away, and we do not spin meanwhile.
            self._loop.remove_reader(listener)
            self._pause = self._loop.call_later(_PAUSE_SECONDS, self.listen, listener)
            return
        self.admit(connection)

    def admit(self, connection: socket.socket) -> None:
        """Let a TCP connection in, on which TLS has not begun; it is ours from now on."""
        if self._closed:
            connection.close()
            return
        if len(self._strangers) >= MOST_STRANGERS:
            self._turn_away(next(iter(self._strangers)))
        stranger = _Stranger(connection, self._server(), self._loop.create_future())
        task = self._strangers[stranger] = self._loop.create_task(self._let_in(stranger))
        task.add_done_callback(lambda _: self._forget(stranger))

    def _turn_away(self, stranger: _Stranger) -> None:
        task = self._strangers.pop(stranger)
        task.cancel()
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    async def _let_in(self, stranger: _Stranger) -> None:
        transport: asyncio.BaseTransport | None = None
        try:
            stranger.connection.setblocking(False)
            stranger.handled = True
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                transport, _ = await self._loop.connect_accepted_socket(
                    lambda: stranger.protocol,
                    stranger.connection,
                    ssl=self._tls,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                )
                await asyncio.wait([stranger.proof])
        except (OSError, TimeoutError):  # TLS errors are among the former: strangers do not interest us
            pass
        finally:
            if not stranger.proof.done() and isinstance(transport, asyncio.Transport):
                transport.abort()

    def _forget(self, stranger: _Stranger) -> None:
        self._strangers.pop(stranger, None)
        if not stranger.handled:
            stranger.connection.close()

    def proven(self, protocol: asyncio.BaseProtocol | None) -> None:
        """Take note that the one at the other end of a connection has shown who it is and said hello."""
        for stranger in self._strangers:
            if stranger.protocol is protocol and not stranger.proof.done():
                stranger.proof.set_result(None)

    async def close(self) -> None:
        """Stop accepting, and turn away who has not come in yet."""
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        if self._listener is not None and self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()
        for stranger in list(self._strangers):
            self._turn_away(stranger)
        if self._going:
            await asyncio.wait(list(self._going))
