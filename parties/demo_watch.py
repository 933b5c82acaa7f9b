"""Looking over a party's shoulder: how far it is, and what it gets to see of the others' data."""

from __future__ import annotations

import json
import mmap
import re
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import astuple, dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc.field import F127

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import FieldArray
    from mpc.party import Party
    from mpc.transport import Buffer, Transport

# Steps in which shared values are opened under uniform masks; in chunks where there are many. A chunk
# whose name ends in "s" holds the sum of all parties' summands: the masked values themselves.
_MASKED = re.compile(r"(?P<opening>.*\b(?:multiply|matmul|mask)#\d+)(?:\.\d+s?)?")
_LENGTH = struct.Struct("<I")
_BOARD_BYTES = 16 * 1024
_WRITE_SECONDS = 0.04


@dataclass(slots=True)
class Stage:
    """How far a party is within a step of its study; the step is what stands first in a label.

    Attributes
    ----------
    name : str
    place : str
        Where in that step it is: the next scopes in the label of its last message.
    seconds : float
        From its first message to its last.
    bytes_received : int
    """

    name: str
    place: str = ""
    seconds: float = 0.0
    bytes_received: int = 0


class Board:
    """A little memory that parent and child processes share: one party writes, the parent reads."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _BOARD_BYTES)

    def write(self, stages: Sequence[Stage]) -> None:
        """Say how far we are."""
        text = json.dumps([astuple(stage) for stage in stages]).encode()[: _BOARD_BYTES - _LENGTH.size]
        _LENGTH.pack_into(self._memory, 0, 0)
        self._memory[_LENGTH.size : _LENGTH.size + len(text)] = text
        _LENGTH.pack_into(self._memory, 0, len(text))

    def read(self) -> list[Stage]:
        """Return what was written last; empty before that, and while it is being written."""
        (length,) = _LENGTH.unpack_from(self._memory, 0)
        try:
            return [Stage(*parts) for parts in json.loads(self._memory[_LENGTH.size : _LENGTH.size + length])]
        except ValueError:
            return []


@dataclass(frozen=True, slots=True)
class Sight:
    """What a party saw in the largest opening of its run.

    Attributes
    ----------
    step : str
        Its label.
    values : numpy.ndarray
        The masked values, as fractions of the field: in [0, 1).
    """

    step: str
    values: NDArray[np.float64] = field(repr=False)


class WatchedTransport:
    """The links of one party, with an eye on them."""

    def __init__(self, inner: Transport, board: Board) -> None:
        self._inner = inner
        self._board = board
        self._stages: list[Stage] = []
        self._began = 0.0
        self._written = 0.0
        self._openings: dict[str, dict[str, list[bytes]]] = {}

    @property
    def rank(self) -> int:
        """See :class:`mpc.transport.Transport`."""
        return self._inner.rank

    @property
    def size(self) -> int:
        """See :class:`mpc.transport.Transport`."""
        return self._inner.size

    async def send(self, to: int, step: str, data: Buffer) -> None:
        """Send, and remember what we contributed to an opening."""
        first = (self.rank + 1) % self.size  # all get the same
        if to == first:
            self._note(step, data)
        await self._inner.send(to, step, data)

    async def receive(self, frm: int, step: str, size: int) -> Buffer:
        """Receive, and remember."""
        data = await self._inner.receive(frm, step, size)
        self._report(step, size)
        if frm < self.size:  # else it is the dealer's
            self._note(step, data)
        return data

    async def receive_upto(self, frm: int, step: str, limit: int) -> Buffer:
        """Receive; messages of this kind hold terms and headers, which are public."""
        data = await self._inner.receive_upto(frm, step, limit)
        self._report(step, len(data))
        return data

    async def abort(self, type_name: str, text: str) -> None:
        """See :class:`mpc.transport.Transport`."""
        await self._inner.abort(type_name, text)

    async def close(self) -> None:
        """See :class:`mpc.transport.Transport`."""
        await self._inner.close()

    def _report(self, step: str, size: int) -> None:
        now = time.monotonic()
        name, _, rest = step.partition("/")
        is_new = not self._stages or self._stages[-1].name != name
        if is_new:
            self._began = now
            self._stages.append(Stage(name))
        stage = self._stages[-1]
        stage.place = "/".join(rest.split("/")[:-1][:2])
        stage.seconds = now - self._began
        stage.bytes_received += size
        if is_new or now - self._written > _WRITE_SECONDS:
            self._written = now
            self._board.write(self._stages)

    def _note(self, step: str, data: Buffer) -> None:
        opening = _MASKED.fullmatch(step)
        if opening is not None:
            self._openings.setdefault(opening["opening"], {}).setdefault(step, []).append(bytes(data))

    def finish(self) -> None:
        """Say that the study has ended."""
        self._board.write(self._stages)

    def largest_opening(self) -> Sight:
        """Return the masked values of the largest opening; it is one over F127."""
        step = max(self._openings, key=lambda step: sum(len(m[0]) for m in self._openings[step].values()))
        parts = []
        for label, messages in self._openings[step].items():
            if label.endswith("s"):  # the sum of all summands
                parts.append(_elements(messages[0]))
            elif len(messages) == self.size:  # all summands, ours among them
                parts.append(reduce(F127.add, map(_elements, messages)))
        return Sight(step, np.concatenate(parts)["hi"] / 2.0**63)


def _elements(message: bytes) -> FieldArray:
    return F127.from_bytes(message, (len(message) // F127.element_bytes,))


def watched(
    program: Callable[[Party, Any], Awaitable[Any]], board: Board, *, rank: int = 0
) -> Callable[[Party, Any], Awaitable[tuple[Any, Sight | None]]]:
    """Make a program that does the same, and tells what the party of that rank saw."""

    async def watching(party: Party, data: Any) -> tuple[Any, Sight | None]:
        if party.rank != rank:
            return await program(party, data), None
        transport = party.transport = WatchedTransport(party.transport, board)
        result = await program(party, data)
        transport.finish()
        return result, transport.largest_opening()

    return watching
