"""Carrying shared arrays through secret permutations: from committee to committee, or from party to party.

Who knows a factor permutes what it holds; what travels between the hops is masked. See
:mod:`mpc.preprocessing.permutations` for who knows which factor.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc.errors import PeerError
from mpc.preprocessing.answers import Local
from mpc.transport import CHUNK_BYTES

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.party import Party
    from mpc.preprocessing.permutations import Hop, Move


class Carriage(NamedTuple):
    """One array that is to be moved, with what the preprocessing gives for it."""

    move: Move
    field: Field
    shape: tuple[int, ...]
    material: DealtMasks | None

    async def arrived(self) -> Carriage:
        """Wait for the dealer's part of the material."""
        if self.material is None:
            return self
        return self._replace(material=self.material._replace(after=Local(await self.material.after)))


class DealtMasks(NamedTuple):
    """A dealer's material for one array: what masks it before and between hops, and what corrects it.

    Attributes
    ----------
    before : FieldArray or None
        What we subtract before our summand goes to the first party; None at the first party itself.
    between : list of (FieldArray or None)
        For each hop but the last, what we add if it is ours.
    after : Awaitable
        Our part of the result; the dealer's correction at the last party.
    """

    before: FieldArray | None
    between: list[FieldArray | None]
    after: Awaitable[FieldArray]


# ---- hops among committees ----------------------------------------------------------------------


async def carry_by_committees(
    party: Party, sets: Sequence[tuple[int, ...]], jobs: Sequence[tuple[Carriage, FieldArray]]
) -> list[FieldArray]:
    """Move shared arrays from committee to committee; all moves have the same hops.

    Parameters
    ----------
    party : Party
    sets : sequence of tuple of int
        The committee of each factor.
    jobs : sequence of (Carriage, FieldArray)
        Each array with our summand of it.

    Returns
    -------
    list of FieldArray
        Our summands; zero where we are not in the last committee.

    Notes
    -----
    At each hop, those who hold a summand and are not in the committee hand it over: all but one part is
    expanded from the seeds that they share with the members, the rest is sent to one member. Then the
    members permute. Laur, Willemson, Zhang, ISC 2011, section 4; Chida et al. 2019, section 4.

    Who learns what: the only messages are ``x - sum of the pads``, one pad for each member but the
    receiver. With committees of n - t >= t + 1 members, at least t pads are drawn. A coalition of t that
    the receiver belongs to, and the sender does not, has at most t - 1 other members, so that it misses
    a pad: a fresh piece of a stream that it does not know. What it receives is therefore uniform and
    independent of the data, of the permutations, and of all else that it sees. And it is disjoint from
    one committee, whose factor it does not know at all; so the product is uniform, too, to it. Summands
    that are kept are never shown: whatever is opened later is masked or gets a zero-sharing first.
    Cost: one round a hop. Each party that leaves sends one message with all arrays: t at the first hop,
    one at each later hop (consecutive committees differ by one member).
    """
    held: list[FieldArray | None] = [values for _, values in jobs]
    routes = [carriage.move.hops() for carriage, _ in jobs]
    holders = set(range(party.size))
    cost = party.cost_of("pass")
    for stop, hop in enumerate(routes[0]):
        members = sets[hop.factor]
        leaving = sorted(holders.difference(members))
        step = party.next_step("pass")
        cost.rounds += 1
        cost.elements_opened += len(leaving) * sum(math.prod(carriage.shape) for carriage, _ in jobs)
        for leaver in leaving if not party.rehearsing else ():
            receiver = min(members, key=lambda member: (member - leaver) % party.size)
            if party.rank == leaver:
                await _hand_over(party, step, members, receiver, jobs, held)
                held = [None] * len(jobs)
            elif party.rank in members:
                parts = await _taken_over(party, step, leaver, receiver, jobs)
                for k, ((carriage, _), part) in enumerate(zip(jobs, parts, strict=True)):
                    ours = held[k]
                    held[k] = part if ours is None else carriage.field.add(ours, part)
        if party.rank in members and not party.rehearsing:
            for k, (carriage, _) in enumerate(jobs):
                ours = held[k]
                if ours is not None:
                    held[k] = routes[k][stop].rearrange(carriage.field, ours, carriage.move.route.rows)
        holders = set(members)
    return [
        carriage.field.zeros(carriage.shape) if values is None or party.rehearsing else values
        for (carriage, _), values in zip(jobs, held, strict=True)
    ]


async def _hand_over(
    party: Party,
    step: str,
    members: Sequence[int],
    receiver: int,
    jobs: Sequence[tuple[Carriage, FieldArray]],
    held: Sequence[FieldArray | None],
) -> None:
    arrays = []
    for (carriage, _), values in zip(jobs, held, strict=True):
        if values is None:
            raise RuntimeError("nothing to hand over")
        for member in members:
            if member != receiver:
                pad = party.pair_stream(member, "pass").elements(carriage.field, carriage.shape)
                values = carriage.field.sub(values, pad)
        arrays.append((carriage.field, values))
    await _send(party, receiver, step, arrays)


async def _taken_over(
    party: Party, step: str, leaver: int, receiver: int, jobs: Sequence[tuple[Carriage, FieldArray]]
) -> list[FieldArray]:
    shapes = [(carriage.field, carriage.shape) for carriage, _ in jobs]
    if party.rank == receiver:
        return await _receive(party, leaver, step, shapes)
    stream = party.pair_stream(leaver, "pass")
    return [stream.elements(field, shape) for field, shape in shapes]


# ---- hops from party to party -------------------------------------------------------------------


async def carry_by_parties(party: Party, jobs: Sequence[tuple[Carriage, FieldArray]]) -> list[FieldArray]:
    """Move shared arrays from party to party, with a dealer's material; all moves have the same hops.

    Notes
    -----
    The others open ``x - a`` to the first party alone, which permutes it, adds a mask and passes it on; so
    does each party after it, without a mask at the last. The result is then off by something that the
    dealer knows: he corrects it, at the last party, in sum with fresh parts that all others expand from
    their seeds. Share translation (Chase, Ghosh, Poburinnaya, ASIACRYPT 2020, section 3) for a chain of
    permutations.

    Who learns what: each message is padded by a stream that only its sender and the dealer know, so to any
    coalition of the parties without the sender it is uniform and independent of all else; the correction
    is padded by the parts of the honest parties, or is theirs. A coalition misses the factors of all
    others. The dealer sees no message between parties, but knows all masks and permutations: he must
    collude with nobody.
    Cost for a move of h hops: h rounds; ``n - 1`` messages to the first party, then ``h - 1``, each with
    all arrays; ahead of time, one element an entry from the dealer to the last party.
    """
    routes = [carriage.move.hops() for carriage, _ in jobs]
    hops = [hop.factor for hop in routes[0]]
    shapes = [(carriage.field, carriage.shape) for carriage, _ in jobs]
    cost = party.cost_of("pass")
    cost.rounds += len(hops)
    cost.elements_opened += (party.size - 1 + len(hops) - 1) * sum(math.prod(shape) for _, shape in shapes)
    materials = [_dealt(carriage) for carriage, _ in jobs]
    steps = [party.next_step("pass") for _ in hops]
    if party.rehearsing:
        return [field.zeros(shape) for field, shape in shapes]

    # 1. Open x - a to the first party.
    carried: list[FieldArray] = [values for _, values in jobs]
    if party.rank == hops[0]:
        for other in party.others:
            parts = await _receive(party, other, steps[0], shapes)
            carried = [field.add(x, y) for (field, _), x, y in zip(shapes, carried, parts, strict=True)]
    else:
        masked = []
        for (field, _), values, material in zip(shapes, carried, materials, strict=True):
            if material.before is None:
                raise RuntimeError("no mask for what leaves us")
            masked.append((field, field.sub(values, material.before)))
        await _send(party, hops[0], steps[0], masked)

    # 2. From hop to hop: permute, mask, pass on.
    for stop, rank in enumerate(hops):
        if party.rank == rank:
            carried = [
                routes[k][stop].rearrange(carriage.field, carried[k], carriage.move.route.rows)
                for k, (carriage, _) in enumerate(jobs)
            ]
        if stop == len(hops) - 1:
            break
        if party.rank == rank:
            passed = []
            for (field, _), values, material in zip(shapes, carried, materials, strict=True):
                mask = material.between[stop]
                if mask is None:
                    raise RuntimeError("no mask for what leaves us")
                passed.append((field, field.add(values, mask)))
            await _send(party, hops[stop + 1], steps[stop + 1], passed)
        elif party.rank == hops[stop + 1]:
            carried = await _receive(party, rank, steps[stop + 1], shapes)

    # 3. What came out, corrected, in sum with everybody's fresh part.
    results = []
    for (field, _), values, material in zip(shapes, carried, materials, strict=True):
        after = await material.after
        results.append(field.add(values, after) if party.rank == hops[-1] else after)
    return results


def _dealt(carriage: Carriage) -> DealtMasks:
    if carriage.material is None:
        raise TypeError("this array was prepared by another preprocessing")
    return carriage.material


def dealt_correction(
    field: Field,
    hops: Sequence[Hop],
    count: int,
    before: Sequence[FieldArray],
    between: Sequence[FieldArray],
    after: Sequence[FieldArray],
) -> FieldArray:
    """Return the dealer's correction: what makes the parts sum up to the moved array.

    Parameters
    ----------
    hops : sequence of Hop
        With all factors.
    before, between, after : sequences of FieldArray
        The masks of all parties but the first, of all hops but the last, and the parts of all parties but
        the last one.
    """
    off = field.zeros(after[0].shape)
    for mask in before:
        off = field.sub(off, mask)
    for stop, hop in enumerate(hops):
        off = hop.rearrange(field, off, count)
        if stop < len(hops) - 1:
            off = field.add(off, between[stop])
    for part in after:
        off = field.add(off, part)
    return field.neg(off)


# ---- messages -----------------------------------------------------------------------------------


def _pieces(total: int) -> list[slice]:
    number = max(1, -(-total // CHUNK_BYTES))
    edges = [total * k // number for k in range(number + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


async def _send(party: Party, to: int, step: str, arrays: Sequence[tuple[Field, FieldArray]]) -> None:
    """Send several arrays as one message, in chunks."""
    cost = party.cost_of("pass")
    parts = [np.frombuffer(field.to_bytes(values), np.uint8) for field, values in arrays]
    joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
    for k, piece in enumerate(_pieces(joined.size)):
        await party.send(to, f"{step}.{k}", joined[piece].data, cost)


async def _receive(
    party: Party, frm: int, step: str, shapes: Sequence[tuple[Field, tuple[int, ...]]]
) -> list[FieldArray]:
    sizes = [math.prod(shape) * field.element_bytes for field, shape in shapes]
    joined = np.empty(sum(sizes), np.uint8)
    for k, piece in enumerate(_pieces(joined.size)):
        data = await party.transport.receive(frm, f"{step}.{k}", piece.stop - piece.start)
        joined[piece] = np.frombuffer(data, np.uint8)
    arrays: list[FieldArray] = []
    start = 0
    for (field, shape), size in zip(shapes, sizes, strict=True):
        # A copy, so that elements begin at an address that suits them.
        part = joined if len(sizes) == 1 else joined[start : start + size].copy()
        start += size
        try:
            arrays.append(field.from_bytes(part.data, shape))
        except ValueError as error:
            raise PeerError(
                f"party {frm} sent no valid arrays at step {step!r}: {error}", rank=frm, step=step
            ) from None
    return arrays
