"""Our end of each pair: random transfers in stock, turned into products of what we know with what a peer knows.

The chooser says which transfers it takes, and its bits xor their random bits; the offerer answers with what
corrects the pads to products (:mod:`mpc.ot.pads`). Nothing else is sent, and the chooser waits for one answer.

Random transfers come from two ends' stock (:mod:`mpc.ot.ends`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc._copying import copy_into
from mpc.errors import PeerError
from mpc.ot.ends import ChooserEnd, OffererEnd
from mpc.ot.extension import base_keys
from mpc.transport import CHUNK_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import FieldArray
    from mpc.ot.pads import Kind
    from mpc.party import Party

# Corrections of one chunk at most.
_MESSAGE_BYTES = CHUNK_BYTES
# How many chunks the chooser may be ahead.
_WINDOW = 16
# Transfers in a chunk of bits, whose corrections are short: what is computed before others have their turn.
_MOST_AT_ONCE = 1 << 15


class _Chunk(NamedTuple):
    """Some rows, and some of their columns; rows that are too long for one message come in several chunks."""

    rows: slice
    columns: slice

    @property
    def begins(self) -> bool:
        """Whether its transfers are new; the further columns of a row use the same keys."""
        return bool(self.columns.start == 0)


def _chunks(rows: int, kind: Kind, width: int) -> list[_Chunk]:
    """Cut ``rows`` rows of ``width`` elements so that the corrections of each chunk fit one message."""
    most = _MESSAGE_BYTES // kind.field.element_bytes
    if kind.corrections(1) < kind.transfers:
        most = min(most, _MOST_AT_ONCE // kind.transfers)
    columns = max(1, min(width, most // kind.corrections(1)))
    height = max(1, most // kind.corrections(width)) if columns == width else 1
    return [
        _Chunk(slice(row, min(row + height, rows)), slice(column, min(column + columns, width)))
        for row in range(0, rows, height)
        for column in range(0, width, columns)
    ]


class Choice:
    """A product under way at the chooser: begun, so that the offerer can answer while we do something else."""

    def __init__(self, end: ChooserEnd, scope: Party, kind: Kind, choices: NDArray[np.uint8], width: int) -> None:
        self._end = end
        self._scope = scope
        self._kind = kind
        self._choices = choices
        self._width = width
        self._chunks = _chunks(len(choices), kind, width)
        self._sent = 0
        self._keys: deque[tuple[int, NDArray[np.uint64]]] = deque()

    async def begin(self) -> None:
        """Send our bits of the first chunks."""
        for _ in range(min(_WINDOW, len(self._chunks))):
            await self._send_next()
            await asyncio.sleep(0)  # others have their turn

    async def _send_next(self) -> None:
        if self._sent == len(self._chunks):
            return
        number, chunk = self._sent, self._chunks[self._sent]
        self._sent += 1
        if not chunk.begins:
            return
        bits = self._choices[chunk.rows].reshape(-1)
        self._keys.append(await self._end.choose(self._scope, f"{self._scope.path}/choices.{number}", bits))

    async def finish(self) -> FieldArray:
        """Receive the corrections; return our summands."""
        field, other = self._kind.field, self._end.other
        summands = np.empty((len(self._choices), self._width), field.dtype)
        first, keys = 0, np.empty((0, 2), np.uint64)
        for number, chunk in enumerate(self._chunks):
            if chunk.begins:
                first, keys = self._keys.popleft()
            rows, columns = chunk.rows.stop - chunk.rows.start, chunk.columns.stop - chunk.columns.start
            count = rows * self._kind.corrections(columns)
            step = _corrections_step(self._scope, number)
            await asyncio.sleep(0)  # others have their turn, also where everything is here already
            data = await self._scope.transport.receive(other, step, count * field.element_bytes)
            try:
                corrections = field.from_bytes(data, (count,))
            except ValueError as error:
                raise PeerError(
                    f"party {other} sent no valid corrections at step {step!r}: {error}", rank=other, step=step
                ) from None
            await self._send_next()
            part = self._kind.add_up(
                self._end.hashed, keys, first, chunk.columns, self._choices[chunk.rows], corrections
            )
            copy_into(summands[chunk.rows, chunk.columns], part)
        return summands


class Pairs:
    """Both our ends with each other party; see the module's documentation.

    Parameters
    ----------
    choosers, offerers : sequence of ChooserEnd, sequence of OffererEnd
        One for each other party.

    Notes
    -----
    Threat model: semi-honest, or malicious where extensions are checked (:func:`mpc.ot.meeting.meet`); all parties but
    one may collude. A dishonest chooser can choose other bits in each product, and a dishonest offerer can offer other
    values, or send corrections that give the chooser's summand an error that depends on its bits: what is built on this
    checks its results. Who learns what: the offerer sees the chooser's bits
    xor random bits that are uniform to it; the chooser sees corrections that are padded by the hash of keys that it
    does not have (correlation robustness).
    """

    def __init__(self, choosers: Sequence[ChooserEnd], offerers: Sequence[OffererEnd]) -> None:
        self._choosers = {end.other: end for end in choosers}
        self._offerers = {end.other: end for end in offerers}

    def ends(self, other: int) -> tuple[ChooserEnd, OffererEnd]:
        """Return our two ends with another party."""
        return self._choosers[other], self._offerers[other]

    async def choose(self, scope: Party, other: int, kind: Kind, choices: NDArray[np.uint8], width: int) -> Choice:
        """Begin to multiply what we know by rows of elements that another party knows.

        Parameters
        ----------
        scope : Party
            A scope of this one product's own, named alike at both ends.
        other : int
        kind : Kind
        choices : numpy.ndarray
            uint8, shape ``(rows, kind.transfers)``.
        width : int
            Elements in a row.

        Returns
        -------
        Choice
            Its ``finish()`` gives our summands, shape ``(rows, width)``.

        Notes
        -----
        Cost: a message in each direction. Bytes: ``rows * transfers / 8`` and the extension's (16 / k for each
        transfer) from us, ``rows`` times ``kind.corrections(width)`` elements from the other party.
        """
        choice = Choice(self._choosers[other], scope, kind, choices, width)
        await choice.begin()
        return choice

    async def pads(self, scope: Party, other: int, kind: Kind, rows: int, width: int) -> Offered:
        """Offer before the values are known; the summands are there at once, and the values follow.

        Waits for the chooser's bits and sends nothing. Pads and corrections are kept as a whole: ``rows`` times
        ``kind.corrections(width)`` elements.

        Raises
        ------
        RuntimeError
            More than 16 chunks, of 240 KiB of corrections each (or a part of a row that is longer): the chooser waits
            for corrections before it sends more bits.
        """
        if len(_chunks(rows, kind, width)) > _WINDOW:
            raise RuntimeError(f"{rows} rows of {width} elements are too many to offer before the values are known")
        return await self._offered(scope, other, kind, kind.field.zeros((rows, width)), send=False)

    async def offer(self, scope: Party, other: int, kind: Kind, values: FieldArray) -> FieldArray:
        """Let another party multiply what it knows by our rows, shape ``(rows, width)``; return our summands."""
        return (await self._offered(scope, other, kind, values, send=True)).summands

    async def _offered(self, scope: Party, other: int, kind: Kind, values: FieldArray, *, send: bool) -> Offered:
        end, cost = self._offerers[other], scope.cost_of("transfers")
        summands = np.empty(values.shape, kind.field.dtype)
        first, keys = 0, np.empty((2, 0, 2), np.uint64)
        kept: list[FieldArray] = []
        chunks = _chunks(len(values), kind, values.shape[1])
        for number, chunk in enumerate(chunks):
            if chunk.begins:
                count = (chunk.rows.stop - chunk.rows.start) * kind.transfers
                first, keys = await end.offer(scope, f"{scope.path}/choices.{number}", count)
            rows = np.ascontiguousarray(values[chunk.rows, chunk.columns])
            corrections, part = kind.offer(end.hashed, keys, first, chunk.columns, rows)
            copy_into(summands[chunk.rows, chunk.columns], part)
            if send:
                await scope.send(other, _corrections_step(scope, number), kind.field.to_bytes(corrections), cost)
            else:
                kept.append(corrections)
            await asyncio.sleep(0)  # others have their turn
        return Offered(scope, other, kind, chunks, summands, kept)

    async def choose_keys(self, scope: Party, other: int, choices: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Get one random key of two from each of some transfers; at the other end :meth:`offer_keys`.

        Parameters
        ----------
        scope : Party
            A scope of this one call's own, named alike at both ends.
        choices : numpy.ndarray
            uint8, shape ``(count,)``, zeros and ones. Secret.

        Returns
        -------
        numpy.ndarray
            uint8, shape ``(count, 16)``. Secret.
        """
        end = self._choosers[other]
        first, keys = await end.choose(scope, f"{scope.path}/choices", choices)
        return base_keys(end.hashed, first, keys)

    async def offer_keys(self, scope: Party, other: int, count: int) -> NDArray[np.uint8]:
        """Get both random keys of some transfers, shape ``(count, 2, 16)``, one of which the other party gets, too."""
        end = self._offerers[other]
        first, keys = await end.offer(scope, f"{scope.path}/choices", count)
        return np.stack([base_keys(end.hashed, first, half) for half in keys], axis=1)


class Offered:
    """A product at the offerer, corrected or to be corrected.

    Attributes
    ----------
    summands : FieldArray
        Ours, shape ``(rows, width)``; they do not depend on the values.
    """

    def __init__(
        self,
        scope: Party,
        other: int,
        kind: Kind,
        chunks: list[_Chunk],
        summands: FieldArray,
        kept: list[FieldArray],
    ) -> None:
        self.summands = summands
        self._scope = scope
        self._other = other
        self._kind = kind
        self._chunks = chunks
        self._kept = kept

    async def correct(self, values: FieldArray) -> None:
        """Send what corrects the chooser's pads to products with these rows; once."""
        if values.shape != self.summands.shape:
            raise ValueError(f"values of shape {values.shape} where {self.summands.shape} were offered")
        if len(self._kept) != len(self._chunks):
            raise RuntimeError("corrections are sent once")
        kept, self._kept = self._kept, []
        field, cost = self._kind.field, self._scope.cost_of("transfers")
        for number, (chunk, differences) in enumerate(zip(self._chunks, kept, strict=True)):
            rows = values[chunk.rows, chunk.columns]
            corrections = field.add(differences.reshape(len(rows), -1, rows.shape[1]), rows[:, None, :])
            await self._scope.send(
                self._other, _corrections_step(self._scope, number), field.to_bytes(corrections), cost
            )

    def __repr__(self) -> str:
        return f"Offered(shape={self.summands.shape})"


def _corrections_step(scope: Party, number: int) -> str:
    return f"{scope.path}/corrections.{number}"
