"""Share translation: a shared random array through permutations that single parties know, by oblivious transfer.

One permutation (Mohassel, Sadeghian, EUROCRYPT 2013, their evaluation of switching networks, with correlated
transfers): a party K knows it, and sets the switches of a network by it (:mod:`mpc.ot.networks`). The rows are shared
by addition; K's summand is U, that of each other party J is V_J. At a switch with the bit s, wires 0 and 1 take on

    x0' = x0 + s (x1 - x0),    x1' = x1 - s (x1 - x0).

K does that to its own summand alone. For each J, a correlated transfer with the choice s and the value
``D = V_J1 - V_J0`` gives K an e and J an o with ``e + o = s D``; K adds e to wire 0 and subtracts it from wire 1, and J
does so with o. So all summands add up to the rows after the switch. J's o is a pad, known before D is: J goes
through the whole network without hearing anything, and only then sends what corrects the pads to the products.

Who learns what: K sees ``e = s D - o`` for each switch and J, where o is uniform and used once; so all that K sees is
uniform and independent of V_J, which it pads. J sees nothing but the choices, which random bits of K pad. All parties
but one may collude; semi-honest: a J that corrects to another D changes the rows, unnoticed.

A chain of permutations (:func:`translate`) makes the material of :func:`mpc.preprocessing.carriages.carry_by_parties`,
which a dealer makes otherwise (share translation: Chase, Ghosh, Poburinnaya, ASIACRYPT 2020, for two parties).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from mpc._copying import as_plain, copy_into
from mpc.field import F61
from mpc.ot.networks import layout, route, switch_count, walk
from mpc.ot.pads import Numbers
from mpc.transport import CHUNK_BYTES
from mpc.words import W64, pack_bits, unpack_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.ot.networks import Ends, Layout
    from mpc.ot.pads import Kind
    from mpc.party import Party
    from mpc.preprocessing.permutations import Hop

    Job = tuple[slice, Party]  # some of the switches, and a scope for them

# A network is evaluated in pieces, so that what is kept of it has a bound: so much is corrected to one other party in a
# piece. The choices of some pieces are ahead of the one that is waited for, so that messages both ways overlap.
_PIECE_BYTES = 8 * CHUNK_BYTES
_AHEAD = 3


class Choice(Protocol):
    """Transfers of which we choose one value each: begun, so that others can begin as well."""

    async def finish(self) -> FieldArray:
        """Wait for the other party; return our summands, shape ``(rows, width)``."""


class Pads(Protocol):
    """Transfers that we offer values in: our summands are known, the values not yet."""

    @property
    def summands(self) -> FieldArray:
        """Return our summands, shape ``(rows, width)``; to the other party they are uniform."""

    async def correct(self, values: FieldArray) -> None:
        """Say what the values are, once; sends messages, waits for none."""


class Engine(Protocol):
    """Correlated transfers with each other party: what we use of :class:`mpc.ot.pairs.Pairs`.

    Summands at both ends add up to ``choices * values``, row by row. Every call has a scope of its own, named alike
    at both ends; calls for different parties may have the same one. Calls with one party are finished in the order in
    which they began.
    """

    async def choose(self, scope: Party, other: int, kind: Kind, choices: NDArray[np.uint8], width: int) -> Choice:
        """Send what depends on our choices, shape ``(rows, 1)``: all of it, for calls of ``_PIECE_BYTES``."""

    async def pads(self, scope: Party, other: int, kind: Kind, rows: int, width: int) -> Pads:
        """Wait for another party's choices; send nothing."""


class TranslationCost(NamedTuple):
    """What a translation costs all parties together.

    Attributes
    ----------
    transfers : int
        Correlated transfers, one bit of choice each.
    elements : int
        Elements that correct pads.
    delays : int
        Messages that wait for one another.
    """

    transfers: int
    elements: int
    delays: int


def translation_cost(parties: int, hops: int, rows: int, width: int) -> TranslationCost:
    """Return the cost of translating rows of so many elements: ``hops (parties - 1) switch_count(rows)`` transfers.

    For packed words ``width`` counts the words of a row, ``ceil(bits / 64)``. Bytes: ``element_bytes`` for each element
    from those who do not know the permutation, and for each transfer 1/8 and what the extension takes (16 / k) from
    the one who does; in a chain each party sends about as much as any other. 100,000 rows of one element of F127
    are 25.1 MB of corrections for each hop and other party.
    """
    transfers = hops * (parties - 1) * switch_count(rows)
    return TranslationCost(transfers, transfers * width, hops + 1 if transfers else 0)


# ---- rows ---------------------------------------------------------------------------------------


def as_rows(field: Field, values: FieldArray, count: int) -> FieldArray:
    """Return a new array of shape ``(count, width)`` whose rows are those of an array.

    The first axis holds the rows; for packed words the bits of the last axis do, and the bits of one row are
    packed again. Bits beyond the rows are dropped, as wherever packed words are permuted.
    """
    if field is not W64:
        rows = np.empty((count, math.prod(values.shape[1:])), field.dtype)
        copy_into(rows, values.reshape(rows.shape))
        return rows
    planes = unpack_bits(values.reshape(-1, values.shape[-1]), count)
    return pack_bits(np.ascontiguousarray(planes.T))


def from_rows(field: Field, rows: FieldArray, shape: tuple[int, ...]) -> FieldArray:
    """Return rows as an array of the given shape; see :func:`as_rows`."""
    if field is not W64:
        return rows.reshape(shape)
    planes = unpack_bits(rows, math.prod(shape[:-1]))
    return pack_bits(np.ascontiguousarray(planes.T)).reshape(shape)


def composed(hop: Hop, count: int) -> NDArray[np.intp]:
    """Return the one permutation that all steps of a hop make: row ``[l]`` of it comes to row l."""
    index = np.arange(count, dtype=np.uint64)
    return hop.rearrange(F61, index, count).astype(np.intp)


# ---- one permutation ----------------------------------------------------------------------------


async def permuted(
    scope: Party, engine: Engine, knower: int, permutation: NDArray[np.intp] | None, field: Field, rows: FieldArray
) -> FieldArray:
    """Permute shared rows by a permutation that one party knows.

    Parameters
    ----------
    scope : Party
        A scope of this call's own.
    engine : Engine
    knower : int
        Rank of the party that knows the permutation.
    permutation : numpy.ndarray or None
        Row ``permutation[l]`` comes to row l; None at all other parties.
    field : Field
    rows : FieldArray
        Our summand, shape ``(count, width)``, C order; it is overwritten.

    Returns
    -------
    FieldArray
        Our summand of the permuted rows.

    Notes
    -----
    See the module's documentation for the protocol, for who learns what, and for the sources.
    Cost: :func:`translation_cost` with one hop. A message to each other party and one back, both in pieces; who does
    not know the permutation goes on as soon as its part is sent.
    """
    network, kind = layout(len(rows)), Numbers(field, 1)
    if not network.switches or not rows.shape[1]:
        return rows
    pieces = _pieces(network.switches, rows.shape[1] * field.element_bytes)
    jobs = [(piece, scope.at("piece")) for piece in pieces]
    if scope.rank == knower:
        if permutation is None:
            raise RuntimeError("a permutation that we do not know")
        await _permute(engine, kind, network, jobs, route(permutation), rows)
    else:
        await _let_permute(engine, kind, network, jobs, knower, rows)
    return rows


async def _permute(
    engine: Engine, kind: Kind, network: Layout, jobs: Sequence[Job], bits: NDArray[np.uint8], rows: FieldArray
) -> None:
    """Permute our summand, and add what the transfers with all others give."""

    async def begin(piece: slice, scope: Party) -> list[Choice]:
        choices, width = bits[piece, None], rows.shape[1]
        return [await engine.choose(scope, other, kind, choices, width) for other in scope.others]

    # The others shall not wait for our choices, nor must we keep all that they will send.
    begun = [await begin(*job) for job in jobs[:_AHEAD]]
    for number, (piece, _) in enumerate(jobs):
        begun += [await begin(*job) for job in jobs[number + _AHEAD : number + _AHEAD + 1]]
        summands = await _sum(kind.field, begun.pop(0))
        for some in walk(network, as_plain(rows), piece.start, piece.stop):
            lower, upper = _taken(some, rows.dtype)
            _cross(lower, upper, bits[some.switches])
            _put(kind.field, some, lower, upper, summands[some.within(piece)])


async def _let_permute(
    engine: Engine, kind: Kind, network: Layout, jobs: Sequence[Job], knower: int, rows: FieldArray
) -> None:
    """Make what our pads make of our summand, and correct the pads to what the transfers need."""
    field = kind.field
    for piece, scope in jobs:
        pads = await engine.pads(scope, knower, kind, piece.stop - piece.start, rows.shape[1])
        values = np.empty_like(pads.summands)
        for some in walk(network, as_plain(rows), piece.start, piece.stop):
            lower, upper = _taken(some, rows.dtype)
            part = some.within(piece)
            field.sub(upper, lower, out=values[part])
            _put(field, some, lower, upper, pads.summands[part])
        await pads.correct(values)


async def _sum(field: Field, choices: Sequence[Choice]) -> FieldArray:
    """Wait for all others side by side; add up our summands."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(choice.finish()) for choice in choices]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    summands = [task.result() for task in tasks]
    for more in summands[1:]:
        field.add(summands[0], more, out=summands[0])
    return summands[0]


def _pieces(switches: int, row_bytes: int) -> list[slice]:
    """Cut a network into runs of switches, as even as they can be."""
    number = -(-switches // max(1, _PIECE_BYTES // row_bytes))
    edges = [switches * k // number for k in range(number + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _taken(some: Ends, dtype: np.dtype[Any]) -> tuple[FieldArray, FieldArray]:
    """Return copies of the rows at both ends, shape ``(switches, width)``: in one piece they are added faster."""
    lower, upper = (np.array(end, order="C").reshape(-1, end.shape[-1]) for end in (some.lower, some.upper))
    return lower.view(dtype), upper.view(dtype)


def _put(field: Field, some: Ends, lower: FieldArray, upper: FieldArray, summands: FieldArray) -> None:
    """Put the rows back, with what one wire of each switch is given and the other one loses."""
    some.lower[...] = as_plain(field.add(lower, summands, out=lower)).reshape(some.lower.shape)
    some.upper[...] = as_plain(field.sub(upper, summands, out=upper)).reshape(some.upper.shape)


def _cross(lower: FieldArray, upper: FieldArray, bits: NDArray[np.uint8]) -> None:
    """Exchange rows where a bit is 1; no branch or address depends on a bit."""
    word = np.dtype(np.uint32 if lower.dtype.itemsize == 4 else np.uint64)
    x, y = lower.view(word), upper.view(word)
    difference = x ^ y
    difference &= -bits.astype(word)[:, None]
    x ^= difference
    y ^= difference


# ---- a chain of them ----------------------------------------------------------------------------


async def translate(
    scope: Party,
    engine: Engine,
    hops: Sequence[Hop],
    count: int,
    field: Field,
    shape: tuple[int, ...],
    before: FieldArray | None,
    between: Sequence[FieldArray | None],
) -> FieldArray:
    """Return our part of what corrects a shared array that is carried through a chain of permutations.

    Parameters
    ----------
    scope : Party
        A scope of this call's own.
    engine : Engine
    hops : sequence of Hop
        Of permutations with one factor for each party, which it alone knows.
    count : int
        Number of rows.
    field : Field
    shape : tuple of int
        The first axis holds the rows; for packed words the bits of the last axis do.
    before : FieldArray or None
        The mask that we subtract from our summand before it goes to the first party; None there.
    between : sequence of (FieldArray or None)
        For each hop but the last, the mask that its party adds before it passes the array on; None elsewhere.

    Returns
    -------
    FieldArray
        The parts of all parties add up to what :func:`mpc.preprocessing.carriages.dealt_correction` gives without
        fresh parts. Given their sum they are not uniform: what is opened later is masked or gets a zero-sharing.

    Notes
    -----
    With ``a`` the sum of the masks before, P_l and m_l permutation and mask of hop l, what comes out of ``x - a`` is
    ``P_h(... P_1(x)) + off``, and ``-off = P_h(... P_2(P_1(a) - m_1) ...)``. So each party begins with its mask, or
    zero; at each hop :func:`permuted` carries the sum through, and the hop's party subtracts its mask.

    Who learns what, with the messages of :func:`~mpc.preprocessing.carriages.carry_by_parties`: an honest party shows
    its summand of x under its mask before, the array that it passes on under its mask of that hop, choices under
    random bits, and corrections under pads. All of these masks are its own, uniform, and used once; what else
    depends on them is its part of the result, which stays with it. So all that a coalition sees is uniform and
    independent of x, of the honest parties' permutations, and of everything that the coalition holds.
    Cost: :func:`translation_cost`. Parties only wait for the party of the hop before: ``h + 1`` messages one after
    the other for h hops.
    """
    ours = as_rows(field, field.zeros(shape) if before is None else before, count)
    for hop, mask in zip(hops, [*between, None], strict=True):
        permutation = composed(hop, count) if scope.rank == hop.factor else None
        ours = await permuted(scope.at("hop"), engine, hop.factor, permutation, field, ours)
        if mask is not None:
            field.sub(ours, as_rows(field, mask, count), out=ours)
    return from_rows(field, ours, shape)
