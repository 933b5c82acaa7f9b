"""MACs without a dealer: each party brings summands, and all get summands of their MACs.

A party's summand alpha_j of the key of MACs is its Delta in correlated elements (:mod:`mpc.ot.correlated`), toward
every other party. For its elements ``x^(i)`` party i gets M_ij, party j gets ``K_ij = M_ij + alpha_j x^(i)``, and
with

    ``m_i = alpha_i x^(i) - sum_j M_ij + sum_j K_ji``

the m_i sum up to ``alpha x``, alpha and x being the sums of all alpha_i and all x^(i) (Keller, Orsini, Scholl,
"MASCOT", CCS 2016, section 4, Figure 7).

**The check of a batch.** Every party brings ``SUMS`` further elements that are uniform. After all has been received
the parties toss a coin, and open ``SUMS`` random combinations y of the batch, each with one of these elements added.
They have MACs as all else, and so are noted and checked with what is opened later, at the latest before anything is
opened as a result or under a mask of bounded size (:mod:`mpc.mac_check`).

**What it shows.** Let party j be honest, and alpha_j its key. To it the cheaters together may have brought no
elements at all, but any functions of its key: ``K - M = eps(alpha_j)``, a vector over the batch that is fixed when
the coin is tossed (other elements at other digits of the key, say). The claim: but for a small probability there are
elements x, known when y has been opened, such that whoever later opens another value than follows from them, and from
what honest parties brought, is caught. Up to the first failure nothing that the cheaters see depends on alpha_j, so
fix all coins and count keys. What a check of openings looks at is, for a key, a vector v: for each value
``eps(alpha_j) - d alpha_j``, where d is by how much j saw it shifted.

1. *Two keys and a check.* A check passes if one combination of v, by the powers of a coin tossed when v was fixed for
   every key, is what the cheaters say it is. Two keys with different v both pass with probability below n/p, n being
   the number of values. So for the part W of the keys with which cheaters pass T checks, other keys than those of one
   v not counted, ``E[W^2] <= T n/p``, and ``E[W] <= sqrt(T n/p)``.
2. *Three keys and a batch.* Let keys have the same v. Then ``<chi_r, eps(alpha_j)> = y_r alpha_j + const`` for each
   r. Three points ``(alpha_j, eps(alpha_j))`` that lie on no line satisfy that, for any y, with probability
   ``p^-SUMS``, because chi was drawn after eps was fixed. Let x be the slope of that line on which most keys lie,
   among lines whose slope fits y. With w the part of the keys that pass and lie elsewhere, ``E[w^3] <= 4 p^-SUMS``,
   hence ``E[w] <= (4 p^-SUMS)^(1/3)`` for each batch.
3. *One key.* On the line ``eps(alpha_j) = x alpha_j + const``. Where a value is wrong, v differs for any two of these
   keys.

In F127, with two sums, 2^10 checks of 2^20 values each, and 2^10 batches, all of this is below 2^-47; the first term
is nearly all of it. (MASCOT opens one sum.) It is our argument, for errors of any form. In F61 it shows 2^-15 only,
so F61 is refused. What a cheater finds out of alpha_j by guesses that are right is counted in.

The line, and so what x is, may be chosen when y has been opened, but only among lines that were there before: with a
part beta of the keys on it, it is one of at most ``2 / beta``. What is said to be fixed when a coin is tossed later is
one of so many; that adds ``beta + 4 / (beta p)``, 2^-62 for the best beta. The number of checks does not count apart
from the number of values: the first term is ``sqrt(values / p)`` for all of a run.

*Other honest parties.* Their keys are independent, so the same holds toward each. All have seen the same y (this is
compared in the next check), which fits one x only, but for a probability of ``p^-SUMS``: nobody brings different
elements toward different honest parties.

*Different keys.* A dishonest holder may have taken alpha_j toward one party and ``alpha_j + delta_i`` toward party i.
Then the MAC of y is off by ``sum delta_i y^(i)``. Each ``y^(i)`` is uniform even given y, because every party brings
elements of its own to every batch, whoever else brings something, and because a sharing of zero is added before y is
opened. So that passes with probability 1/p whatever the data are, and no attempt tells anything of elements that have
few values.

**What is learnt.** Nothing: corrections of correlated elements are uniform, and so is y. A check that fails may tell
about the key, and ends the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mpc._copying import join
from mpc.authenticated import Authenticated
from mpc.coins import toss
from mpc.errors import CheatingError, PeerError
from mpc.opening import open_flat
from mpc.ot.bit_proofs import PROOF_ELEMENTS, holds, proof
from mpc.ot.correlated import Correlated
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from mpc.field import FieldArray
    from mpc.mac_check import Guard
    from mpc.ot.correlated import Holder, Prover
    from mpc.ot.pairs import Pairs
    from mpc.party import Party
    from mpc.prg import Prg

T = TypeVar("T")

# Random combinations of each batch that are opened.
SUMS = 2
OWN_KEY = "own"  # the seed that nobody else knows


class Ends(NamedTuple):
    """Our ends of correlated elements over one field, by the other party's rank."""

    provers: dict[int, Prover]
    holders: dict[int, Holder]


class Macs:
    """Gives MACs to what parties bring; one for each party and session.

    Parameters
    ----------
    pairs : Pairs
        Whose transfers are checked for consistency (``meet(..., malicious=True)``).
    """

    def __init__(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._seat: Party | None = None
        self._ends: dict[str, Ends] = {}
        self._setting_up = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Macs({', '.join(self._ends)})"

    def sit(self, seat: Party) -> None:
        """Take a seat of a session for set-ups, which scopes that run side by side have in common."""
        self._seat = seat

    async def ends(self, field: Authenticated) -> Ends:
        """Return our ends over a field, set up when first asked for.

        Notes
        -----
        Cost: 2 rounds; ``field.bits`` transfers for each ordered pair.
        """
        base = field.public
        async with self._setting_up:
            ends = self._ends.get(base.name)
            if ends is None:
                ends = self._ends[base.name] = await self._set_up(field)
        return ends

    async def _set_up(self, field: Authenticated) -> Ends:
        if self._seat is None:
            raise RuntimeError("MACs are made in a session")
        base, pairs = field.public, self._pairs
        scope = self._seat.at("".join(letter for letter in base.name if letter.isalnum()))
        scope.cost_of("transfers").rounds += 2
        delta = field.public_mac(base.encode(1))
        async with side_by_side() as group:
            provers = {
                other: group.create_task(Correlated.prove_setup(scope, pairs, other, base)) for other in scope.others
            }
            holders = {
                other: group.create_task(Correlated.hold_setup(scope, pairs, other, base, delta))
                for other in scope.others
            }
        return Ends(_results(provers), _results(holders))

    async def authenticate(
        self,
        scope: Party,
        field: Authenticated,
        own: FieldArray,
        owners: Collection[int] | None = None,
        *,
        bits: bool = False,
        apart: bool = False,
    ) -> tuple[FieldArray, Prg]:
        """Give MACs to elements, of which each owner brings a summand.

        Parameters
        ----------
        scope : Party
            A scope of this batch's own.
        field : Authenticated
        own : FieldArray
            Our summands, plain elements, shape ``(n,)``; zeros if we are no owner.
        owners : collection of int, optional
            Who brings elements, the same at all parties; all by default.
        bits : bool
            Whether the elements are bits, which the owners prove (:mod:`mpc.ot.bit_proofs`).
        apart : bool
            Whether the elements of each owner get MACs for themselves, and not their sum.

        Returns
        -------
        FieldArray
            Summands with MACs, shape ``(n,)``; ``(parties, n)`` of what is apart.
        Prg
            The batch's coin, tossed after all elements were fixed: for tests of them under labels of their own.

        Raises
        ------
        CheatingError
            What an owner has brought are no bits.
        PeerError
            A party is late, gone, or sends nonsense.

        Notes
        -----
        Cost: 4 rounds, 5 with bits; n elements, and 2 or 3 more, times the digits of a key from each owner to each
        other party.
        """
        base, rank, count, guard = field.public, scope.rank, len(own), scope.guard
        if guard is None:
            raise TypeError("MACs are made where parties may cheat")
        ends = await self.ends(field)
        owning = range(scope.size) if owners is None else owners
        stream = scope.stream(OWN_KEY, "pad")
        pads = stream.elements(base, (SUMS,))
        brought = {other: pads if rank not in owning else join([pads, own]) for other in scope.others}
        sizes = {other: SUMS + (count if other in owning else 0) for other in range(scope.size)}
        if bits:  # one more, another one for each holder
            brought = {
                other: join([ours, stream.elements(base, (1,))]) if rank in owning else ours
                for other, ours in brought.items()
            }

        # 1. Correlate.
        scope.cost_of("transfers").rounds += 1
        async with side_by_side() as group:
            proving, holding = {}, {}
            for other in scope.others:
                size = sizes[other] + int(bits and other in owning)
                proving[other] = group.create_task(ends.provers[other].extend(scope, brought[other]))
                holding[other] = group.create_task(ends.holders[other].extend(scope, size))
        tags, keys = _results(proving), _results(holding)

        # 2. The coin, now that all of it is fixed.
        coin = await toss(scope)
        if bits:
            weights = coin.stream("bits").elements(base, (count,))
            proofs = {other: (brought[other], tags[other]) for other in scope.others} if rank in owning else {}
            await _prove_bits(scope, guard, field, weights, proofs, {k: keys[k] for k in scope.others if k in owning})

        # 3. Our summands of the MACs of what each party has brought.
        ours = join([pads, own])[: sizes[rank]]
        macs = {other: keys[other][: sizes[other]] for other in scope.others}
        macs[rank] = field.public_mac(ours)
        for other in scope.others:
            macs[rank] = base.sub(macs[rank], tags[other][: sizes[rank]])
        values, every = base.zeros((SUMS + count,)), base.zeros((SUMS + count,))
        values[: len(ours)] = ours
        for one in macs.values():
            base.add(every[: len(one)], one, out=every[: len(one)])

        # 4. Open random combinations; nobody is to see our summand, see "Different keys".
        weights = coin.stream("sums").elements(base, (SUMS, count))
        sums, sum_macs = (base.add(base.matmul(weights, x[SUMS:]), x[:SUMS]) for x in (values, every))
        sums = base.add(sums, scope.zero_share(base, (SUMS,)))
        step = scope.next_step("sums")
        with guard.under_way(step):
            opened = await open_flat(scope, "sums", field, sums, sum_macs)
            guard.announced(step, {0: base.to_bytes(opened)})
        if not apart:
            return field.joined(values[SUMS:], every[SUMS:]), coin
        rows = field.zeros((scope.size, count))
        rows["value"][rank] = values[SUMS:]
        for other in owning:
            rows["mac"][other] = macs[other][SUMS:]
        return rows, coin


async def _prove_bits(
    scope: Party,
    guard: Guard,
    field: Authenticated,
    weights: FieldArray,
    ours: dict[int, tuple[FieldArray, FieldArray]],
    keys: dict[int, FieldArray],
) -> None:
    """Prove to holders that what we have brought are bits, given that and our M; check proofs, given our K."""
    base, step, cost = field.public, scope.next_step("bits"), scope.cost_of("transfers")
    cost.rounds += 1
    for other, (brought, tags) in ours.items():
        last = join([brought[-1:], tags[-1:]])
        shown = proof(base, weights, brought[SUMS:-1], tags[SUMS:-1], last)
        await scope.send(other, step, base.to_bytes(shown), cost)
    delta = field.public_mac(base.encode(1))
    for other, held in keys.items():
        data = await scope.transport.receive(other, step, PROOF_ELEMENTS * base.element_bytes)
        try:
            shown = base.from_bytes(data, (PROOF_ELEMENTS,))
        except ValueError as error:
            raise PeerError(f"party {other} sent no proof at step {step!r}: {error}", rank=other, step=step) from None
        if not holds(base, weights, held[SUMS:-1], held[-1:], delta, shown):
            guard.stop()
            raise CheatingError(f"the check of bits failed: party {other} brought something else at step {step!r}")


def _results(tasks: dict[int, asyncio.Task[T]]) -> dict[int, T]:
    return {other: task.result() for other, task in tasks.items()}
