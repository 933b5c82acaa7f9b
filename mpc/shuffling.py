"""Shuffling: the same secret random permutation for the rows of several arrays; nobody knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpc.preprocessing.permutations import Move
from mpc.share import Share

if TYPE_CHECKING:
    from mpc.party import Party


# What is carried through a permutation has no MACs on its way.
NO_PERMUTATIONS = "nothing checks what is moved by a secret permutation; compare with less_than, argmax, minimum"


async def shuffle(party: Party, shares: Sequence[Share]) -> list[Share]:
    """Bring the rows of several arrays into a random order that nobody knows, the same for all of them.

    Parameters
    ----------
    party : Party
    shares : sequence of Share
        At least one axis each, and as many rows (entries along the first axis) in one as in the other;
        scales, bounds, fields and further axes may differ.

    Returns
    -------
    list of Share
        The rows in the new order.

    Raises
    ------
    ValueError
        Before anything is sent: different numbers of rows, or an array without rows.

    Notes
    -----
    Nothing is revealed. The order is a product of factors: with ``prss`` one for each set of n - t parties,
    which its members expand from their common seed, so that any t parties miss one; with ``dealer`` one for
    each party, from the seed that it shares with the dealer, so that any n - 1 parties miss one. Uniform up
    to a statistical distance of ``rows^2 / 2^127`` a factor. Who must not collude: half or more of the
    parties (prss); the dealer with any party (dealer). Semi-honest.
    Sources and proofs: :func:`mpc.preprocessing.carriages.carry_by_committees` (Laur, Willemson, Zhang,
    ISC 2011) and :func:`~mpc.preprocessing.carriages.carry_by_parties` (Chase, Ghosh, Poburinnaya,
    ASIACRYPT 2020).
    Cost: ``C(n, t)`` rounds and ``C(n, t) + t - 1`` messages of all entries (prss; 3 and 3 for three
    parties), or n rounds and ``2 (n - 1)`` messages, and one dealt element an entry (dealer). What is handed
    over, masked, counts as opened. No round for less than two rows.
    """
    party.semi_honest_only("shuffle", NO_PERMUTATIONS)
    count = _rows(shares)
    if count < 2:
        return list(shares)
    scope = party.at("shuffle")
    move = Move(apply=await scope.preprocessing.permutation(scope, count))
    return await moved(scope, [(share, move) for share in shares])


async def moved(party: Party, jobs: Sequence[tuple[Share, Move]]) -> list[Share]:
    """Move the rows of arrays, each by a move of its own with the same hops, in one message a hop.

    The first axis holds the rows; for packed words the bits of the last axis do. Masks are fresh with each
    call. The summands of the results are not uniform given their sum (some may be zero): before they are
    opened they need a mask or a zero-sharing, as the results of products do.
    """
    if not jobs:
        return []
    preprocessing = party.preprocessing
    prepared = [
        (await preprocessing.carriage(party, move, share.field, share.shape), share.values) for share, move in jobs
    ]
    arrays = await preprocessing.carry(party, prepared)
    return [
        Share(share.field, values, share.scale, share.magnitude, leads=party.rank == 0)
        for (share, _), values in zip(jobs, arrays, strict=True)
    ]


def _rows(shares: Sequence[Share]) -> int:
    if not shares:
        raise ValueError("nothing to shuffle")
    if not all(share.ndim for share in shares):
        raise ValueError("an array without axes has no rows")
    counts = {len(share) for share in shares}
    if len(counts) > 1:
        raise ValueError(f"arrays of {', '.join(map(str, sorted(counts)))} rows do not go together")
    return counts.pop()
