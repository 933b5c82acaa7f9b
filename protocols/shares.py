"""Small steps on shares that several protocols take."""

from __future__ import annotations

from collections.abc import Sequence

from mpc import Party, Share, concatenate, less_than, multiply


def sum_of(shares: Sequence[Share]) -> Share:
    """Add shares up."""
    total = shares[0]
    for share in shares[1:]:
        total = total + share
    return total


async def clamped(party: Party, x: Share, limit: int) -> Share:
    """Return a vector's entries where they are within +-limit, else the nearer end.

    Notes
    -----
    Nothing is revealed. Cost: one comparison of ``2 |x|`` entries; 1 round and ``2 |x|`` elements, ``|x|``
    if x is masked.
    """
    size = x.size
    beyond = await less_than(party, limit, concatenate([x, -x]))
    above, below = beyond[:size], beyond[size:]
    kept = await multiply(party, x, (1 - above - below).bounded_by(1))
    return (kept + (above - below) * limit).bounded_by(limit)
