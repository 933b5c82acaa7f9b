"""Coins: bytes that nobody could foresee or choose, tossed by all parties under commitments.

Each party commits to 32 random bytes, and shows them once it has all commitments (Blum, 1981; the commitment is a
hash, taken for a random oracle). Whoever shows its part only after it has received all that a coin is to test, knows
that this was fixed before anybody knew the coin.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mpc.errors import PeerError
from mpc.prg import Prg, new_seed

if TYPE_CHECKING:
    from mpc.costs import StepCost
    from mpc.party import Party

DIGEST_BYTES = 32


async def toss(seat: Party, name: str = "coin") -> Prg:
    """Toss a coin.

    Parameters
    ----------
    seat : Party
        In a scope of this protocol's own. Whoever calls has received all that the coin is to test.
    name : str

    Returns
    -------
    Prg
        The same streams at all parties.

    Raises
    ------
    PeerError
        A party showed something else than it had committed to.

    Notes
    -----
    That nobody showed unlike parts to others is compared in the next check (:mod:`mpc.mac_check`).
    Cost: 2 rounds; 64 bytes to each other party.
    """
    step, cost, guard = seat.next_step(name), seat.cost_of(name), seat.guard
    if guard is None:
        raise TypeError("coins are tossed where parties may cheat")
    with guard.under_way(step):
        part = new_seed()
        cost.rounds += 2
        commitments = await exchange(seat, f"{step}.commit", commitment(step, seat.rank, part), cost)
        parts = await exchange(seat, f"{step}.show", part, cost)
        for other in seat.others:
            if commitments[other] != commitment(step, other, parts[other]):
                guard.stop()  # there is no second throw
                raise broken(other, step)
        guard.announced(step, parts)
    return Prg(digest_of(step.encode(), *(parts[rank] for rank in sorted(parts))))


async def exchange(seat: Party, step: str, ours: bytes, cost: StepCost, *, upto: int | None = None) -> dict[int, bytes]:
    """Send a few bytes to all, and receive as many (or up to a number) from each."""
    for other in seat.others:
        await seat.send(other, step, ours, cost)
    received = {seat.rank: ours}
    for other in seat.others:
        if upto is None:
            received[other] = bytes(await seat.transport.receive(other, step, len(ours)))
        else:
            received[other] = bytes(await seat.transport.receive_upto(other, step, upto))
    return received


def digest_of(*parts: bytes) -> bytes:
    """Hash bytes, each with its length."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"sottovoce.check")
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def commitment(step: str, rank: int, shown: bytes) -> bytes:
    """Commit to bytes of which at least 32 are random."""
    return digest_of(b"commitment", step.encode(), rank.to_bytes(4, "little"), shown)


def broken(other: int, step: str) -> PeerError:
    """Return the error of a party that shows something else than it had committed to."""
    return PeerError(
        f"party {other} showed something else than it had committed to at step {step!r}", rank=other, step=step
    )
