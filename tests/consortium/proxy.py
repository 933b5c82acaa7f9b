"""A piece of network that fails on demand: a TCP proxy that cuts, freezes, delays and counts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable

_CHUNK_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing sends a reset, as a firewall does


class Proxy:
    """Forwards connections to one address, from a thread of its own; use it in a ``with`` block.

    Parameters
    ----------
    port : int
        Where the connections go, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self.bytes = 0
        self.recorded: list[bytes] = []  # what the dialling sides sent, connection by connection
        self.recording = False
        self._closed_until_mended = False
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name=f"proxy to {port}", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    # ---- faults ---------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset all connections, and each new one, until :meth:`mend`."""
        self._call(self._cut)

    def reset(self) -> None:
        """Reset the connections there are; new ones pass."""
        self._call(self._reset)

    def freeze(self) -> None:
        """Let nothing through in either direction and close nothing, until :meth:`mend`."""
        self._call(self._flowing.clear)

    def mend(self) -> None:
        """Be an ordinary network again."""
        self._call(self._mend)

    @property
    def connections(self) -> int:
        """How many connections pass through now."""
        return len(self._pairs)

    def _is_cut(self) -> bool:
        return self._closed_until_mended

    def _call(self, what: Callable[[], None]) -> None:
        done = threading.Event()

        def run() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(run)
        done.wait(5)

    def _cut(self) -> None:
        self._closed_until_mended = True
        self._reset()

    def _mend(self) -> None:
        self._closed_until_mended = False
        self._flowing.set()

    def _reset(self) -> None:
        for pair in list(self._pairs):
            for writer in pair:
                _abort(writer)

    # ---- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._forward, sock=self._listener)
        try:
            await self._stopping.wait()
        finally:
            self._reset()
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.accepted += 1
        if self._is_cut():
            _abort(writer)
            return
        await self._flowing.wait()
        try:
            there, to = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _abort(writer)
            return
        pair = (writer, to)
        self._pairs.add(pair)
        if self._is_cut():  # since we began to dial
            self._reset()
        heard = bytearray()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, to, heard))
                group.create_task(self._pump(there, writer, None))
        except* OSError:
            pass
        finally:
            self._pairs.discard(pair)
            if self.recording:
                self.recorded.append(bytes(heard))
            for end in pair:
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heard: bytearray | None) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._flowing.wait()
            self.bytes += len(data)
            if heard is not None and self.recording:
                heard += data
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def _abort(writer: asyncio.StreamWriter) -> None:
    ours = writer.get_extra_info("socket")
    if ours is not None:
        with contextlib.suppress(OSError):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
