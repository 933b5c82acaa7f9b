"""Opening: how shared values, masked or as results, become public."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mpc._copying import copy_into, join
from mpc.costs import Opening
from mpc.errors import PeerError, RangeError
from mpc.transport import CHUNK_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.costs import StepCost
    from mpc.field import Field, FieldArray
    from mpc.party import Party
    from mpc.share import Share
    from mpc.transport import Buffer

# Up to this many bytes every party sends its summands to every other: one round. Above, each party
# sums one part of the array and sends the sums around: two rounds, 2(n-1)/n of the bytes.
BROADCAST_BYTES = 96 * 1024
# How many chunks may be under way between sending one and needing the answer.
WINDOW = 3


async def open_(party: Party, *shares: Share, to: Collection[int] | None = None) -> Any:
    """Reveal shared arrays to all parties, or to the named ones.

    Parameters
    ----------
    party : Party
    *shares : Share
        Any shapes; they go out together.
    to : collection of int, optional
        Ranks that learn the values; all by default. The same at all parties.

    Returns
    -------
    numpy.ndarray or tuple of numpy.ndarray
        One array for one share, a tuple for more. Scale 0 gives exact integers (int64, or Python
        integers where these are too small), any other scale float64. With ``to``, the parties that
        are not named get None in place of each array.

    Raises
    ------
    PeerError
        A peer is late, gone, or sent something malformed.
    RangeError
        Before anything is sent, if a share has more fraction bits than the field. Afterwards, if an
        opened value is beyond its declared bound: a promise that was made to
        :meth:`mpc.share.Share.bounded_by` does not hold. All who learn the value see this error.
    CheatingError
        Where parties may cheat: something that was opened before, or this, is not what it should be.

    Notes
    -----
    Reveals the values and nothing else: a fresh zero-sharing is added first, so that the summands are
    uniform given their sum. Semi-honest; any number of parties may collude.
    With ``to``, a party that is not named receives no message; it knows shapes, and who is named.
    ``party.costs.openings`` gets an entry: shapes, ranks, and a digest where we learn the values.
    Cost: 1 round and ``(n-1)`` elements sent for each element up to 96 KiB, beyond (n >= 3) 2 rounds
    and ``2(n-1)/n``; with ``to``, 1 round.
    Where parties may cheat, all that was opened is checked before, and this is checked before it is returned
    (:mod:`mpc.mac_check`). Then ``to`` means: opened to all, under a mask that the recipient alone knows.
    """
    if not shares:
        raise ValueError("nothing to open")
    recipients = None if to is None else sorted(set(to))
    if recipients is not None and not all(0 <= rank < party.size for rank in recipients):
        raise ValueError(f"ranks go from 0 to {party.size - 1}")
    for share in shares:
        if share.scale >= share.field.bits:
            raise RangeError(f"open_: {share.scale} fraction bits are too many for {share.field}: truncate first")
    opened: list[Any] = [None] * len(shares)
    await party.verify()
    try:
        for field in dict.fromkeys(share.field for share in shares):
            which = [k for k, share in enumerate(shares) if share.field is field]
            flat = pack(field, [shares[k].values for k in which])
            values, macs = field.parts(flat)
            if recipients is None or party.guard is None:
                values = field.public.add(values, party.zero_share(field.public, flat.shape))
            if recipients is None:
                revealed: FieldArray | None = await open_flat(party, "open", field, values, macs)
            elif party.guard is not None:
                revealed = await _open_privately(party, "open to", field, flat, recipients)
            else:
                revealed = await _open_to(party, "open to", field, values, recipients)
            await party.verify()
            if revealed is None:
                continue
            for k, numbers in zip(which, unpack(revealed, [shares[k].shape for k in which]), strict=True):
                opened[k] = _decode(shares[k], numbers)
    finally:
        # Also when it failed: the others may have learnt it.
        if not party.rehearsing:
            _note(party, shares, opened, recipients)
    return opened[0] if len(shares) == 1 else tuple(opened)


def _note(party: Party, shares: Sequence[Share], opened: Sequence[Any], recipients: list[int] | None) -> None:
    """Write into our costs what was opened, to whom, and the digest of what we learnt."""
    name = "open" if recipients is None else "open to"
    party.costs.opened(
        Opening(
            step=f"{party.path}/{name}" if party.path else name,
            shapes=tuple(share.shape for share in shares),
            elements=sum(share.size for share in shares),
            to=None if recipients is None else tuple(recipients),
            digest=None if any(values is None for values in opened) else _digest(opened),
        )
    )


def _digest(arrays: Sequence[NDArray[Any]]) -> str:
    """Return SHA-256 over dtype, shape and content of each array; see :class:`mpc.costs.Opening`."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.name} {array.shape}\n".encode())
        if array.dtype.kind == "O":
            digest.update(",".join(str(int(value)) for value in array.flat).encode())
        else:
            digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def _decode(share: Share, values: FieldArray) -> NDArray[Any]:
    field = share.field
    integers_or_floats = field.decode_fixed(values, share.scale) if share.scale else field.decode(values)
    allowed: Any = share.bound * (1 + 2**-50) if share.scale else share.magnitude
    if values.size and not -allowed <= np.min(integers_or_floats) <= np.max(integers_or_floats) <= allowed:
        raise RangeError(
            f"an opened value is beyond its declared bound of {share.bound:.6g}: "
            "a bound promised with bounded_by() does not hold"
        )
    return integers_or_floats


def pack(field: Field, arrays: Sequence[FieldArray]) -> FieldArray:
    """Lay arrays end to end."""
    if len(arrays) == 1:
        return arrays[0].reshape(-1)
    return join([array.reshape(-1) for array in arrays])


def unpack(flat: FieldArray, shapes: Sequence[tuple[int, ...]], inner: tuple[int, ...] = ()) -> list[FieldArray]:
    """Cut what :func:`pack` joined; ``inner`` is the shape of one entry."""
    arrays, start = [], 0
    for shape in shapes:
        stop = start + math.prod(shape)
        arrays.append(flat[start:stop].reshape((*shape, *inner)))
        start = stop
    return arrays


async def open_flat(
    party: Party, name: str, field: Field, summands: FieldArray, macs: FieldArray | None = None
) -> FieldArray:
    """Open a flat array of summands to all; they must be uniform given their sum.

    That is the caller's duty: masked by a fresh mask of the preprocessing, or by a zero-sharing. MACs are not sent:
    they are noted, with what was opened, for the next check (:mod:`mpc.mac_check`).
    """
    step, cost = party.next_step(name), party.cost_of(name)
    cost.elements_opened += summands.size
    guard = party.guard
    if guard is not None and macs is None:
        raise TypeError("what has no MACs is not opened where parties may cheat")
    if guard is None or not summands.size or party.rehearsing:
        return await _opened(party, name, step, cost, field.public, summands)
    with guard.under_way(step):
        opened = await _opened(party, name, step, cost, field.public, summands)
        guard.note(step, field, opened, macs)
    if party.has_opened(opened.size):
        await party.verify()
    return opened


async def open_unchecked(party: Party, name: str, field: Field, summands: FieldArray) -> FieldArray:
    """Open a flat array of plain summands to all, for protocols that check in their own way what comes of it.

    The summands must be uniform given their sum.
    """
    return await _opened(party, name, party.next_step(name), party.cost_of(name), field, summands)


async def _opened(party: Party, name: str, step: str, cost: StepCost, field: Field, summands: FieldArray) -> FieldArray:
    if not summands.size:
        return summands
    started = party.clock()
    size_bytes = summands.size * field.element_bytes
    small = size_bytes <= (BROADCAST_BYTES if party.size > 2 else CHUNK_BYTES)
    cost.rounds += 1 if small or party.size == 2 else 2
    if party.rehearsing:
        return field.zeros(summands.shape)
    how = _broadcast if small else _exchange_chunks if party.size == 2 else _reduce_and_gather
    with party.alone(name):
        opened = await how(party, step, cost, field, summands)
    cost.seconds += party.clock() - started
    return opened


async def _broadcast(party: Party, step: str, cost: StepCost, field: Field, summands: FieldArray) -> FieldArray:
    message = field.to_bytes(summands)
    for other in party.others:
        await party.send(other, step, message, cost)
    total = summands
    for other in party.others:
        total = field.add(total, await _receive(party, other, step, field, summands.size))
    return total


async def _receive(party: Party, other: int, step: str, field: Field, count: int) -> FieldArray:
    data = await party.transport.receive(other, step, count * field.element_bytes)
    return _elements(data, other, step, field, count)


def _elements(data: Buffer, other: int, step: str, field: Field, count: int) -> FieldArray:
    try:
        return field.from_bytes(data, (count,))
    except ValueError as error:
        raise PeerError(
            f"party {other} sent what is no array of {count} elements of {field} at step {step!r}: {error}",
            rank=other,
            step=step,
        ) from None


def _chunks(count: int, field: Field, groups_of: int) -> list[slice]:
    """Cut ``count`` entries into equal chunks of at most CHUNK_BYTES, their number a multiple of ``groups_of``."""
    most = CHUNK_BYTES // field.element_bytes
    number = -(-count // (most * groups_of)) * groups_of
    edges = [count * k // number for k in range(number + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


async def _exchange_chunks(party: Party, step: str, cost: StepCost, field: Field, summands: FieldArray) -> FieldArray:
    """Open between two parties, chunk by chunk, so that both directions flow and buffers stay small."""
    other = 1 - party.rank
    chunks = _chunks(summands.size, field, 1)
    opened = np.empty_like(summands)
    for k in range(len(chunks) + WINDOW):
        if k < len(chunks):
            await party.send(other, f"{step}.{k}", field.to_bytes(summands[chunks[k]]), cost)
        if k >= WINDOW:
            part = chunks[k - WINDOW]
            theirs = await _receive(party, other, f"{step}.{k - WINDOW}", field, part.stop - part.start)
            field.add(summands[part], theirs, out=opened[part])
    return opened


async def _reduce_and_gather(party: Party, step: str, cost: StepCost, field: Field, summands: FieldArray) -> FieldArray:
    """Open among three or more: chunk k is summed by party k mod n, which sends the sum around.

    The three stages of a group of n chunks (send pieces, sum ours, collect the sums) are spread over
    WINDOW groups each, so that computing, encryption and the network overlap.
    """
    size, rank = party.size, party.rank
    chunks = _chunks(summands.size, field, size)
    groups = len(chunks) // size
    opened = np.empty_like(summands)
    for group in range(groups + 2 * WINDOW):
        if group < groups:
            for other in party.others:
                k = group * size + other
                await party.send(other, f"{step}.{k}", field.to_bytes(summands[chunks[k]]), cost)
        if WINDOW <= group < groups + WINDOW:
            k = (group - WINDOW) * size + rank
            part = chunks[k]
            total = summands[part]
            for other in party.others:
                total = field.add(total, await _receive(party, other, f"{step}.{k}", field, part.stop - part.start))
            message = field.to_bytes(total)
            for other in party.others:
                await party.send(other, f"{step}.{k}s", message, cost)
            copy_into(opened[part], total)
        if group >= 2 * WINDOW:
            for other in party.others:
                k = (group - 2 * WINDOW) * size + other
                part = chunks[k]
                total = await _receive(party, other, f"{step}.{k}s", field, part.stop - part.start)
                copy_into(opened[part], total)
    return opened


async def _open_privately(
    party: Party, name: str, field: Field, summands: FieldArray, recipients: list[int]
) -> FieldArray | None:
    """Open to some, with MACs: to all, under a mask that one recipient knows; then to the next.

    So everybody can check what was opened, and nobody but the recipient learns it.
    """
    revealed: FieldArray | None = None
    for recipient in recipients:
        mask, known = await party.preprocessing.known(party, field, summands.shape, 0, recipient)
        values, macs = field.parts(field.sub(summands, mask.summand))
        values = field.public.add(values, party.zero_share(field.public, values.shape))
        offset = await open_flat(party, name, field, values, macs)
        if known is not None:
            revealed = offset if party.rehearsing else field.public.add(offset, known)
    return revealed


async def _open_to(
    party: Party, name: str, field: Field, summands: FieldArray, recipients: list[int]
) -> FieldArray | None:
    """Open to some: everybody sends them its summands, chunk by chunk."""
    step, cost = party.next_step(name), party.cost_of(name)
    cost.rounds += 1
    cost.elements_opened += summands.size
    receiving = party.rank in recipients
    if party.rehearsing:
        return field.zeros(summands.shape) if receiving else None
    chunks = _chunks(summands.size, field, 1) if summands.size else []
    opened = summands.copy()
    for k in range(len(chunks) + WINDOW):
        if k < len(chunks):
            for other in recipients:
                if other != party.rank:
                    await party.send(other, f"{step}.{k}", field.to_bytes(summands[chunks[k]]), cost)
        if k >= WINDOW and receiving:
            part = chunks[k - WINDOW]
            for other in party.others:
                theirs = await _receive(party, other, f"{step}.{k - WINDOW}", field, part.stop - part.start)
                field.add(opened[part], theirs, out=opened[part])
    return opened if receiving else None
