"""Inputs of parties that may cheat: given bit by bit, so that they lie within the agreed bounds whatever is sent.

A party that shared a number beyond its bound could see more than a sum or a product of it: truncation and comparison
open values under masks that are 40 bits longer than what the bounds admit, and a factor that is larger than agreed
lifts somebody else's digits above the mask. So a number x with ``|x| <= M`` is written as ``x + M = sum_j w_j b_j``
with bits b_j and public weights that sum up to 2M: no choice of bits gives anything but a number from -M to M.

For each bit the preprocessing gives a shared random bit r with a MAC that the owner alone knows; the owner tells all
``c = b xor r``, and b is ``r`` or ``1 - r``. After Damgard, Keller, Larraia, Pastro, Scholl, Smart, ESORICS 2013,
section 3, with bits in place of numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mpc._copying import copy_into
from mpc.authenticated import Authenticated
from mpc.errors import PeerError
from mpc.share import Share
from mpc.words import bit_planes, chosen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.inputs import Header
    from mpc.party import Party

_BITS_AT_ONCE = 1 << 18  # one message of 32 KiB; the masks of so many bits take 8 MiB


def weights(magnitude: int) -> list[int]:
    """Return weights whose subsets sum up to every number from 0 to ``2 magnitude``, and to no other.

    Powers of two, and what is left; nothing for 0.
    """
    if not magnitude:
        return []
    powers = (2 * magnitude + 1).bit_length() - 1
    return [1 << j for j in range(powers)] + [2 * magnitude + 1 - (1 << powers)]


async def share_bits(party: Party, owner: int, header: Header, field: Field, encoded: FieldArray | None) -> Share:
    """Share an array of one party within its bounds.

    Parameters
    ----------
    party : Party
    owner : int
    header : Header
        As all parties have heard it.
    field : Field
        With MACs.
    encoded : FieldArray or None
        The owner's values, plain elements within the bounds.

    Notes
    -----
    Tells nothing: c is uniform. Cost: 1 round; one bit sent for each bit of the bound (and two) to each party; as many
    known bits with MACs, of which the dealer sends one element each to the last party.
    """
    if not isinstance(field, Authenticated):
        raise TypeError("inputs are given bit by bit where parties may cheat")
    table = weights(header.magnitude)
    count = int(np.prod(header.shape, dtype=np.int64))
    flat: Any = field.zeros(count)
    at_once = max(1, _BITS_AT_ONCE // max(1, len(table)))
    own = None if encoded is None else encoded.reshape(-1)
    cost = party.cost_of("input")
    cost.rounds += 1 if count and table else 0
    for start in range(0, count if table else 0, at_once):
        stop = min(start + at_once, count)
        mask, known = await party.preprocessing.known(party, field, (stop - start, len(table)), 1, owner)
        told: NDArray[np.uint8] = np.zeros((stop - start, len(table)), np.uint8)
        if own is not None and known is not None and not party.rehearsing:
            told = _cut(field, own[start:stop], header.magnitude, table) ^ _bits_of(field, known)
        if not party.rehearsing:
            told = await _told(party, owner, told)
        copy_into(flat[start:stop], _joined(field, mask.summand, told, header.magnitude, table, party.rank == 0))
    # The owner holds all of it so far. What is opened under a mask of bounded size takes uniform summands.
    flat = field.joined(field.public.add(flat["value"], party.zero_share(field.public, flat.shape)), flat["mac"])
    return Share(field, flat.reshape(header.shape), header.scale, header.magnitude, leads=party.rank == 0)


def _cut(field: Field, values: FieldArray, magnitude: int, table: list[int]) -> NDArray[np.uint8]:
    """Return the bits of our values, shape ``(values, weights)``."""
    public = field.public
    raised = public.add(values, public.encode(magnitude))
    top = _planes(public, raised, len(table))[-1]
    rest = public.sub(raised, chosen(public, top, 0, table[-1]))
    bits = _planes(public, rest, len(table) - 1)
    return np.ascontiguousarray(np.concatenate([bits, top[np.newaxis]]).T)


def _planes(public: Field, values: FieldArray, count: int) -> NDArray[np.uint8]:
    planes = bit_planes(public, values, count)
    return np.unpackbits(planes.view(np.uint8), axis=-1, count=values.size, bitorder="little")


def _bits_of(field: Field, known: FieldArray) -> NDArray[np.uint8]:
    return np.asarray(_planes(field.public, known.reshape(-1), 1)[0].reshape(known.shape))


async def _told(party: Party, owner: int, ours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Tell all others our bits, or hear the owner's."""
    step, cost = party.next_step("input"), party.cost_of("input")
    guard = party.guard
    if guard is None:
        raise TypeError("inputs are given bit by bit where parties may cheat")
    with guard.under_way(step):
        data = np.packbits(ours.reshape(-1), bitorder="little").tobytes()
        if party.rank == owner:
            for other in party.others:
                await party.send(other, step, data, cost)
        else:
            data = bytes(await party.transport.receive(owner, step, len(data)))
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        if bits[ours.size :].any():
            raise PeerError(f"party {owner} sent more bits than are due at step {step!r}", rank=owner, step=step)
        guard.announced(step, {owner: data})
    return np.asarray(bits[: ours.size].reshape(ours.shape))


def _joined(
    field: Field, summand: FieldArray, told: NDArray[np.uint8], magnitude: int, table: list[int], leads: bool
) -> FieldArray:
    """Return our summand of ``sum_j w_j b_j - M``, with ``b_j`` the known bit, or 1 less it where c is 1."""
    public = field.public
    total = field.zeros(len(told))
    constant = np.broadcast_to(public.neg(public.encode(magnitude)), (len(told),))
    for j, weight in enumerate(table):
        factors = chosen(public, told[:, j], weight, -weight)
        total = field.add(total, field.mul(summand[:, j], factors))
        constant = public.add(constant, chosen(public, told[:, j], 0, weight))
    return field.add_public(total, constant, leads=leads)
