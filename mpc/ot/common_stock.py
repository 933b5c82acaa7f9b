"""A stock that all parties hold in common: made in batches, taken in the order that party 0 says.

Scopes that run side by side ask in an order that differs between parties. So party 0 says where each scope takes, and
all parties then take the same. If it tells parties different places, what they hold does not fit together, and has no
right MACs; what it says is compared with the next check, too. Nobody takes a place twice.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.errors import PeerError

if TYPE_CHECKING:
    from mpc.field import FieldArray
    from mpc.party import Party

    # Makes a number of entries in a scope: arrays of that length.
    Make = Callable[[Party, int], Awaitable[list[FieldArray]]]

_PLACE_BYTES = 8
_LEADER = 0
# How far beyond what has been made the leader may send us: scopes side by side do not take more.
_MOST_AHEAD = 1 << 24


class CommonStock:
    """Entries made in batches that grow from the first size to the last, by doubling.

    Parameters
    ----------
    seat : Party
        Where batches are made: one for all of the session, the same at all parties.
    make : callable
        ``make(scope, count)``: arrays of ``count`` entries.
    first, last : int
        Sizes of batches.
    """

    def __init__(self, seat: Party, make: Make, first: int, last: int) -> None:
        self._seat = seat
        self._make = make
        self._size = first
        self._last = last
        self._made = self._next = 0
        self._blocks: deque[_Block] = deque()
        self._growing = asyncio.Lock()

    async def take(self, scope: Party, count: int) -> list[FieldArray]:
        """Take entries.

        Raises
        ------
        PeerError
            Party 0 names a place that is taken, or none.

        Notes
        -----
        Cost: 1 message of 8 bytes from party 0 to each other, and that of a batch where there are too few.
        """
        step, cost = scope.next_step("place"), scope.cost_of("stock")
        if scope.rank == _LEADER:
            data = self._next.to_bytes(_PLACE_BYTES, "little")
            self._next += count
            for other in scope.others:
                await scope.send(other, step, data, cost)
        else:
            data = bytes(await scope.transport.receive(_LEADER, step, _PLACE_BYTES))
        scope.heard(step, {_LEADER: data})
        first = int.from_bytes(data, "little")
        if first + count > self._made + _MOST_AHEAD:
            raise _no_place(step)
        async with self._growing:
            while self._made < first + count:
                await self._grow()
        parts = [part for block in self._blocks if len((part := block.cut(first, first + count)).taken)]
        if sum(len(part.taken) for part in parts) != count or any(part.taken.any() for part in parts):
            raise _no_place(step)
        for part in parts:
            part.taken[:] = True
        while self._blocks and self._blocks[0].taken.all():
            self._blocks.popleft()
        return [np.concatenate(arrays) for arrays in zip(*(part.arrays for part in parts), strict=True)]

    async def _grow(self) -> None:
        size = self._size
        self._size = min(2 * size, self._last)
        arrays = await self._make(self._seat.at("batch"), size)
        self._blocks.append(_Block(self._made, np.zeros(size, np.bool_), arrays))
        self._made += size

    def __repr__(self) -> str:
        return f"CommonStock(made={self._made})"


class _Block:
    """Entries of a batch, or some of them: the number of the first, which are taken, and the entries."""

    __slots__ = ("arrays", "first", "taken")

    def __init__(self, first: int, taken: Any, arrays: list[FieldArray]) -> None:
        self.first = first
        self.taken = taken
        self.arrays = arrays

    def cut(self, start: int, stop: int) -> _Block:
        """Return those from ``start`` to ``stop`` that are here, as views."""
        begin = max(start, self.first)
        part = slice(begin - self.first, max(begin, min(stop, self.first + len(self.taken))) - self.first)
        return _Block(begin, self.taken[part], [array[part] for array in self.arrays])


def _no_place(step: str) -> PeerError:
    return PeerError(f"party {_LEADER} names no free place at step {step!r}", rank=_LEADER, step=step)
