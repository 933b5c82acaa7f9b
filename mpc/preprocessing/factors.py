"""Functions of a replicated mask, as products of factors that single parties know.

A replicated mask is a sum of pieces (an XOR, for bits). Every set of n - t parties has a member among the
first t + 1, so each piece goes to the first member of its set, and the sum becomes one of t + 1 addends,
each known to one of the parties 0 to t. A function that turns sums into products, such as
``exp(i w r)`` or ``(-1)^r``, becomes a product of t + 1 factors.

For t = 1 (three or four parties) the second factor is known to all parties but 0. Party 0 splits its
own between 1 and 2 (one part from a seed, the rest is sent); multiplying is then local. For more
parties the factors are shared and multiplied by Beaver's method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpc._copying import copy_into
from mpc.errors import PeerError
from mpc.share import Share
from mpc.transport import CHUNK_BYTES

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.party import Party


def addends(field: Field, known: dict[tuple[int, ...], FieldArray]) -> dict[int, FieldArray]:
    """Add the pieces that we know by the first member of their set."""
    sums: dict[int, FieldArray] = {}
    for members, piece in known.items():
        first = members[0]
        sums[first] = piece if first not in sums else field.add(sums[first], piece)
    return sums


async def split_first(party: Party, field: Field, shape: tuple[int, ...], own: FieldArray | None) -> FieldArray | None:
    """Split what party 0 holds between the parties 1 and 2.

    Parameters
    ----------
    own : FieldArray or None
        Party 0's values; None at the others.

    Returns
    -------
    FieldArray or None
        Our part, at the parties 1 and 2; None at the others.

    Notes
    -----
    Reveals nothing: 1 draws its part from the seed it shares with 0, which pads what 2 receives. Cost: 1
    round; ``|shape|`` elements from party 0 to party 2.
    """
    step, cost = party.next_step("split"), party.cost_of("split")
    cost.rounds += 1
    size = int(np.prod(shape, dtype=np.int64))
    most = CHUNK_BYTES // field.element_bytes
    parts = [slice(start, min(start + most, size)) for start in range(0, size, most)]
    if own is not None:
        rest = field.sub(own, party.pair_stream(1, "split").elements(field, shape)).reshape(-1)
        for k, part in enumerate(parts):
            await party.send(2, f"{step}.{k}", field.to_bytes(rest[part]), cost)
        return None
    if party.rank == 1:
        return party.pair_stream(0, "split").elements(field, shape)
    if party.rank != 2:
        return None
    received = np.empty(size, field.dtype)
    for k, part in enumerate(parts):
        count = part.stop - part.start
        data = await party.transport.receive(0, f"{step}.{k}", count * field.element_bytes)
        try:
            copy_into(received[part], field.from_bytes(data, (count,)))
        except ValueError as error:
            raise PeerError(f"party 0 sent no valid part at step {step!r}: {error}", rank=0, step=step) from None
    return received.reshape(shape)


def share_factor(
    party: Party, field: Field, shape: tuple[int, ...], owner: int, own: FieldArray | None, scale: int, magnitude: int
) -> Share:
    """Share what one party holds; all summands but its own come from pairwise seeds, nothing is sent."""
    if own is not None:
        for other in range(party.size):
            if other != owner:
                own = field.sub(own, party.pair_stream(other, "factor").elements(field, shape))
    else:
        own = party.pair_stream(owner, "factor").elements(field, shape)
    return Share(field, own, scale, magnitude, leads=party.rank == 0)
