"""Messages between a node and its worker, over a pair of Unix sockets.

A message is JSON behind four bytes that say how long it is. A connection that the node accepted for its
worker travels beside a message as a descriptor (``SCM_RIGHTS``), sent with the message's first byte, so
that it is there once the message is. It may be there earlier, which is why the message says that it has one.
"""

from __future__ import annotations

import array
import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import Mapping
from typing import Any

from mpc.errors import SottovoceError

MESSAGE_BYTES = 4 * 1024 * 1024
_LENGTH = struct.Struct(">I")
_HAS_SOCKET = 1 << 31
_READ_BYTES = 256 * 1024
# What may wait to be sent, or to be taken.
_WAITING_BYTES = 2 * MESSAGE_BYTES
_WAITING_SOCKETS = 64
# Not all systems have these; there, Python ignores the signal anyway.
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
_DESCRIPTOR = array.array("i").itemsize


class ExchangeError(SottovoceError, RuntimeError):
    """The other side of an exchange is gone, does not read, or sent what is no message."""


class Exchange:
    """One end of the pair.

    Parameters
    ----------
    sock : socket.socket
        Our end; taken over.
    takes_sockets : bool
        Whether sockets may come along. Where not, the system closes what is sent.

    Attributes
    ----------
    bytes_received : int
        All that came.
    """

    def __init__(self, sock: socket.socket, *, takes_sockets: bool = False) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._space = socket.CMSG_SPACE(_DESCRIPTOR) if takes_sockets else 0
        self._received = bytearray()
        self.bytes_received = 0
        self._sockets: deque[socket.socket] = deque()
        self._along: socket.socket | None = None
        self._ended = False
        self._over = False
        self._sending: deque[tuple[memoryview, socket.socket | None]] = deque()
        self._waiting_bytes = 0
        self._broken = False
        self._writing = False
        self._drained: list[asyncio.Future[None]] = []
        self._arrival: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    # ---- sending --------------------------------------------------------------------------------

    def post(self, message: Mapping[str, Any], passed: socket.socket | None = None) -> None:
        """Send a message, whole or not at all; never waits.

        Parameters
        ----------
        message : mapping
            What JSON knows.
        passed : socket.socket, optional
            Goes along. It is ours no more, whatever becomes of it.

        Raises
        ------
        ExchangeError
            If the message is too long, the other side is gone, or too much waits to be read by it.
        """
        try:
            content = json.dumps(message, allow_nan=False, separators=(",", ":")).encode()
            if len(content) > MESSAGE_BYTES:
                raise ExchangeError(f"a message of {len(content)} bytes: the most is {MESSAGE_BYTES}")
            if self._broken:
                raise ExchangeError("the other process is gone")
            sockets = sum(1 for _, along in self._sending if along is not None)
            if self._waiting_bytes + len(content) > _WAITING_BYTES or sockets >= _WAITING_SOCKETS:
                raise ExchangeError("the other process does not take its messages")
        except BaseException:
            if passed is not None:
                passed.close()
            raise
        data = memoryview(_LENGTH.pack(len(content) | (0 if passed is None else _HAS_SOCKET)) + content)
        self._sending.append((data, passed))
        self._waiting_bytes += len(data)
        if not self._writing:
            self._flush()

    async def drain(self) -> None:
        """Wait until all is sent.

        Raises
        ------
        ExchangeError
            If the other side is gone.
        """
        if self._sending:
            future: asyncio.Future[None] = self._loop.create_future()
            self._drained.append(future)
            await future
        if self._broken:
            raise ExchangeError("the other process is gone")

    def _flush(self) -> None:
        try:
            while self._sending:
                data, passed = self._sending[0]
                control = []
                if passed is not None:
                    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [passed.fileno()]))]
                count = self._sock.sendmsg([data], control, _NO_SIGNAL)
                if passed is not None:
                    passed.close()  # it is in the other's queue
                self._waiting_bytes -= count
                if count == len(data):
                    self._sending.popleft()
                else:
                    self._sending[0] = (data[count:], None)
        except (BlockingIOError, InterruptedError):
            self._watch_writing(True)
            return
        except OSError:  # gone, or ETOOMANYREFS: it let more sockets lie than the system allows
            self._break()
            return
        self._watch_writing(False)
        self._wake()

    def _watch_writing(self, on: bool) -> None:
        if on and not self._writing:
            self._loop.add_writer(self._sock, self._flush)
        elif self._writing and not on:
            self._loop.remove_writer(self._sock)
        self._writing = on

    def _break(self) -> None:
        self._broken = True
        if self._sock.fileno() >= 0:
            self._watch_writing(False)
        for _, passed in self._sending:
            if passed is not None:
                passed.close()
        self._sending.clear()
        self._waiting_bytes = 0
        self._wake()

    def _wake(self) -> None:
        drained, self._drained = self._drained, []
        for future in drained:
            if not future.done():
                future.set_result(None)

    # ---- receiving ------------------------------------------------------------------------------

    async def receive(self) -> dict[str, Any] | None:
        """Return the next message, or None when there will be none; may be cancelled without loss.

        Raises
        ------
        ExchangeError
            If what comes is no message.
        """
        if (left := self.take_socket()) is not None:
            left.close()
        while True:
            message = self._cut()
            if message is not None:
                return message
            if self._ended:
                return None
            try:
                data, control, flags, _ = self._sock.recvmsg(_READ_BYTES, self._space, _CLOSE_ON_EXEC)
            except (BlockingIOError, InterruptedError):
                if self._over:
                    self._ended = True
                else:
                    await self._readable()
                continue
            except OSError:
                data, control, flags = b"", [], 0
            self._keep(control)
            if not data:
                self._ended = True
            elif flags & socket.MSG_CTRUNC and self._space:
                raise ExchangeError("more sockets came along than are taken")
            self._received += data
            self.bytes_received += len(data)

    def take_socket(self) -> socket.socket | None:
        """Return the socket that came along with the message received last, if one did."""
        along, self._along = self._along, None
        return along

    def _keep(self, control: list[tuple[int, int, bytes]]) -> None:
        for level, kind, content in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors = array.array("i")
                descriptors.frombytes(content[: len(content) - len(content) % _DESCRIPTOR])
                self._sockets.extend(socket.socket(fileno=descriptor) for descriptor in descriptors)
        if len(self._sockets) > _WAITING_SOCKETS:
            raise ExchangeError("more sockets came than messages that announce one")

    def _cut(self) -> dict[str, Any] | None:
        if len(self._received) < _LENGTH.size:
            return None
        (size,) = _LENGTH.unpack_from(self._received)
        has_socket, size = size & _HAS_SOCKET, size & ~_HAS_SOCKET
        if size > MESSAGE_BYTES:
            raise ExchangeError(f"a message of {size} bytes: the most is {MESSAGE_BYTES}")
        if len(self._received) < _LENGTH.size + size:
            return None
        content = bytes(self._received[_LENGTH.size : _LENGTH.size + size])
        del self._received[: _LENGTH.size + size]
        try:
            message = json.loads(content, parse_constant=_refuse)
        except (ValueError, RecursionError):
            raise ExchangeError("a message that is no JSON") from None
        if not isinstance(message, dict):
            raise ExchangeError("a message that is no JSON object")
        if has_socket:
            if not self._sockets:
                raise ExchangeError("a message whose socket did not come along")
            self._along = self._sockets.popleft()
        return message

    async def _readable(self) -> None:
        self._arrival = future = self._loop.create_future()
        self._loop.add_reader(self._sock, self._arrived)
        try:
            await future
        finally:
            self._arrival = None
            if self._sock.fileno() >= 0:
                self._loop.remove_reader(self._sock)

    def _arrived(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    # ---- the end --------------------------------------------------------------------------------

    def end(self) -> None:
        """Expect nothing any more beside what has come already: its process has ended."""
        self._over = True
        self._arrived()

    def close(self) -> None:
        """Close our end, and every socket that was not taken; who waits to receive gets None."""
        if self._sock.fileno() < 0:
            return
        self._ended = True
        self._received.clear()
        self._break()
        while self._sockets:
            self._sockets.popleft().close()
        if (left := self.take_socket()) is not None:
            left.close()
        self._loop.remove_reader(self._sock)
        self._arrived()
        self._sock.close()


def _refuse(name: str) -> Any:
    raise ValueError(name)
