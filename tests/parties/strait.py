"""The network between two nodes, as bad as a test wants it: cut, frozen, slow, one-sided."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import replace

from parties.members import Member
from tests.parties.consortium import Consortium

_PIECE = 64 * 1024
# Close by reset, at once.
_RESET = struct.pack("ii", 1, 0)


class Crossing:
    """One TCP connection through a strait: from the one who dialled to the one who is dialled."""

    def __init__(self, strait: Strait, dialler: socket.socket, dialled: socket.socket) -> None:
        self.ends = (dialler, dialled)
        self.frozen = strait.frozen
        self._strait = strait
        self._thawed = asyncio.Event()
        self._closing: set[int] = set()
        self._tasks = [
            asyncio.ensure_future(self._carry(dialler, dialled)),
            asyncio.ensure_future(self._carry(dialled, dialler)),
        ]
        for task in self._tasks:
            task.add_done_callback(self._close_when_idle)

    async def _carry(self, source: socket.socket, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while not self._closing and (data := await loop.sock_recv(source, _PIECE)):
                while self.frozen:
                    self._thawed.clear()
                    await self._thawed.wait()
                if self._strait.delay_seconds:
                    await asyncio.sleep(self._strait.delay_seconds)
                await loop.sock_sendall(target, data)
                self._strait.carried(len(data))
        self.close()

    def thaw(self) -> None:
        """Let what was held back arrive."""
        self.frozen = False
        self._thawed.set()

    def reset(self, *sides: int) -> None:
        """End the connection at one side, or both, without the other one hearing of it."""
        for side in sides or (0, 1):
            end = self.ends[side]
            if end.fileno() >= 0:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        # Where it is one side, the other half stays, and nothing comes through it any more.
        self.close(*sides)

    def close(self, *sides: int) -> None:
        """End it, or its end at one side, as a program ends that has both."""
        if not self._closing:
            for task in self._tasks:
                task.cancel()
        self._closing.update(sides or (0, 1))
        self._close_when_idle()

    async def closed(self) -> None:
        """Wait until it is closed."""
        await asyncio.wait(self._tasks)
        self._close_when_idle()

    def _close_when_idle(self, _: object = None) -> None:
        # Not before nobody waits for them: a loop that polls a socket which is closed may give up altogether.
        if all(task.done() for task in self._tasks):
            for side in self._closing:
                self.ends[side].close()


class Strait:
    """A port that leads to another one.

    Attributes
    ----------
    frozen : bool
        Whether new connections carry nothing until they are thawed.
    closed : bool
        Whether new connections are refused.
    delay_seconds : float
        How long each piece is held back.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.crossings: list[Crossing] = []
        self.frozen = False
        self.closed = False
        self.delay_seconds = 0.0
        self.bytes_carried = 0
        self._when: tuple[int, Callable[[], None]] | None = None

    async def __aenter__(self) -> Strait:
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        for crossing in self.crossings:
            crossing.close()
        for crossing in self.crossings:
            await crossing.closed()

    def _accept(self) -> None:
        dialler, _ = self._listener.accept()
        try:
            if self.closed:
                raise ConnectionRefusedError
            dialled = socket.create_connection(self._target)  # on this machine: at once
        except OSError:
            dialler.close()
            return
        dialler.setblocking(False)
        dialled.setblocking(False)
        self.crossings.append(Crossing(self, dialler, dialled))

    def carried(self, size: int) -> None:
        """Count, and do what was to be done after so many bytes."""
        self.bytes_carried += size
        if self._when is not None and self.bytes_carried >= self._when[0]:
            what, self._when = self._when[1], None
            what()

    def after(self, more_bytes: int, what: Callable[[], None]) -> None:
        """Call ``what`` once so many more bytes were carried."""
        self._when = self.bytes_carried + more_bytes, what

    def cut(self) -> None:
        """Reset all connections."""
        for crossing in self.crossings:
            crossing.reset()

    def freeze(self) -> None:
        """Hold everything back, on connections of now and later."""
        self.frozen = True
        for crossing in self.crossings:
            crossing.frozen = True

    def thaw(self, *, old: bool = True) -> None:
        """Carry on; ``old`` says whether what was held back comes after all."""
        self.frozen = False
        for crossing in self.crossings:
            if old:
                crossing.thaw()


class Straits(contextlib.AsyncExitStack):
    """Straits between all nodes of a consortium: ``straits[dialler, dialled]``."""

    def __init__(self, nodes: Consortium) -> None:
        super().__init__()
        self._nodes = nodes
        self._by_pair: dict[tuple[int, int], Strait] = {}

    async def __aenter__(self) -> Straits:
        await super().__aenter__()
        for dialler in range(len(self._nodes.members)):
            for dialled in range(dialler):
                target = self._nodes.listeners[dialled].getsockname()
                self._by_pair[dialler, dialled] = await self.enter_async_context(Strait(target))
        return self

    def __getitem__(self, pair: tuple[int, int]) -> Strait:
        return self._by_pair[pair]

    @property
    def all(self) -> list[Strait]:
        """Every one."""
        return list(self._by_pair.values())

    def members(self, rank: int) -> list[Member]:
        """The members as one of them knows them: lower ranks beyond a strait."""
        return [
            replace(member, port=self._by_pair[rank, peer].port) if (rank, peer) in self._by_pair else member
            for peer, member in enumerate(self._nodes.members)
        ]
