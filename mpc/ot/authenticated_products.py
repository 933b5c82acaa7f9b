"""Products of masks with MACs, by transfers among parties of which all but one may cheat.

After MASCOT (Keller, Orsini, Scholl, CCS 2016, section 5), which makes random triples; here masks a and b are given,
and values may have been opened under them before. Per entry:

1. *Multiply.* Each party i draws a summand of a fresh b', and ``RAW`` elements ``x_t^(i)``; for each other party j
   the bits of these choose in transfers in which j offers its summand of b' (:mod:`mpc.ot.pads`): summands of ``z_t =
   x_t b'``.
2. *Combine.* With coins r tossed now: ``x = x_1 + sum_t r_t x_t``, ``x' = x_2 + sum_t r'_t x_t`` over t > 2; z and z'
   of the z_t in the same way. (MASCOT takes coins for all t.)
3. *Correct.* Open ``d = a - x``. ``c = z + d b'``. Each party gives MACs to its summands of c, x' and b'
   (:mod:`mpc.ot.macs`).
4. *Sacrifice.* With coins chi, one for each product, ``f = sum chi z'`` gets a MAC, one element for all of the batch.
   With a coin rho open ``e = rho a - x'`` with its MACs. Then ``T = sum chi (rho c - e b') - f`` must be 0: its MAC
   is noted as that of an opened 0 (:mod:`mpc.mac_check`), and nothing is sent.
5. *Replace.* Open ``g = b - b'`` with its MACs. The result is ``c + g a``.

Coins chi are tossed when c, x' and b' have been brought, rho when f has.

**Soundness.** Let a, b', c, x' and f be what their MACs say (:mod:`mpc.ot.macs`). Whatever cheaters do in 1. to 3.
(other bits toward different offerers, other b' toward different choosers or at different bits, d off or unlike toward
different parties, c off), ``c = a b' + E`` and ``z' = x' b' + E'`` with E and E', for each product, functions of what
honest parties hold that are fixed when chi is tossed. f may be off by an s that is fixed when rho is tossed. MACs
hold e to ``rho a - x'``. So

    ``T = rho sum chi E - (sum chi E' + s)``.

If any E is not 0, ``sum chi E`` is 0 with probability 1/p over chi, and if it is not, T is 0 with probability 1/p
over rho: a wrong product passes with probability below 2/p for each batch, whatever a and b are and whoever knows
them. (x' needs its MACs: d off by delta and e off by ``rho delta`` are what a + delta would give.)

**Privacy.** T is 0 if E and E' are as a cheater has guessed, so that passing might tell it something. Three kinds of
guesses there are.

*About b'.* What is linear in honest parties' summands of b' is uniform until g is opened, and then T is fixed: a
guess is right with probability 1/p. (With b itself it could be right more often: where ``y - b`` was opened before, b
is known up to y, and y may have few values.)

*About the x_t*, which an honest party chooses by, bit by bit. d and e show ``a - x`` and ``rho a - x'``, so x and x'
must be uniform to all others. But an offerer that offers different numbers at different bits makes E and E' depend on
these bits. Let L be that dependence, as a function of the x_t fixed before r is tossed, and w_l the probability of L
= l. To pass, the cheater guesses L, maybe after it knows r. (Two values of L fit the same E and E' with probability
1/p^2 over r; on average what fits besides the likeliest has a probability of 1/p at most.) Given l, the x_t of an
entry have min-entropy ``RAW log p - log 1/w_l``; so (x, x'), a universal hash of them, is within ``dist(r, l) <=
sqrt(p^(2 - RAW) / w_l) / 2`` of uniform, on average over r (leftover hash lemma). To guess right, and to tell (x, x')
from uniform then, has for the best guess at each r the probability ``E_r[max_l w_l dist(r, l)] <= sqrt(sum_l w_l^2
E_r[dist(r, l)^2]) <= p^(1 - RAW / 2) / 2``: 2^-64.5 for an entry in F127, and 2^-44 for 2^20 products.

*About a.* Who knows a up to few values (``y - a`` was opened before) knows x up to few values once d is opened,
before it brings c. By the same count, with x instead of (x, x'), that changes what it knows of L by 1/p; and x' stays
unknown until e is opened, when f has been brought.

A sacrifice that fails shows, in a sum with all else, T times a key that is unknown.

**Matrices.** An entry of a is multiplied by a row of b' with the same transfers for all of the row, and products are
added up before 3. So there are transfers and MACs for each entry of a, MACs for each entry of b and of the result,
and corrections as for all products of entries.

Cost: 15 rounds. Bytes from each party to each other for a product in F127, at 688 bytes for a correlated element: 9.8
kB, of which 6.1 kB are corrections of transfers and 1.6 kB the transfers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from mpc._copying import as_plain, join
from mpc.coins import toss
from mpc.opening import open_flat, open_unchecked
from mpc.ot.macs import OWN_KEY
from mpc.ot.pads import Numbers
from mpc.ot.plans import number_bits
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from mpc.authenticated import Authenticated
    from mpc.field import Field, FieldArray
    from mpc.ot.macs import Macs
    from mpc.ot.pairs import Pairs
    from mpc.party import Party
    from mpc.prg import RandomStream

# Raw factors for each pair that is made of them, x and x'.
RAW = 3


class Way(Protocol):
    """How entries of a, each with a row of b, become products; all arrays are plain elements."""

    def rows(self, b: FieldArray) -> FieldArray:
        """Return for each entry of a the row that it is multiplied by, shape ``(entries, width)``."""

    def gather(self, field: Field, products: FieldArray) -> FieldArray:
        """Return the flat results for products of shape ``(entries, width)``."""

    def times(self, field: Field, public: FieldArray, b: FieldArray) -> FieldArray:
        """Return the flat results for a public array in place of a, given flat."""

    def times_public(self, field: Field, a: FieldArray, public: FieldArray) -> FieldArray:
        """Return the flat results for a, given flat, and a public array in place of b."""


class Entries:
    """Entry by entry; a and b are flat."""

    def rows(self, b: FieldArray) -> FieldArray:
        """See :class:`Way`."""
        return b[:, np.newaxis]

    def gather(self, field: Field, products: FieldArray) -> FieldArray:
        """See :class:`Way`."""
        return products[:, 0]

    def times(self, field: Field, public: FieldArray, b: FieldArray) -> FieldArray:
        """See :class:`Way`."""
        return field.mul(public, b)

    def times_public(self, field: Field, a: FieldArray, public: FieldArray) -> FieldArray:
        """See :class:`Way`."""
        return field.mul(a, public)


class Matrices:
    """A matrix of ``height`` rows, given flat, times a matrix b."""

    def __init__(self, height: int) -> None:
        self._height = height

    def rows(self, b: FieldArray) -> FieldArray:
        """See :class:`Way`."""
        return np.tile(as_plain(np.ascontiguousarray(b)), (self._height, 1)).view(b.dtype)

    def gather(self, field: Field, products: FieldArray) -> FieldArray:
        """See :class:`Way`."""
        stacked = products.reshape(self._height, -1, products.shape[1])
        return field.sum(stacked, 1).reshape(-1)

    def times(self, field: Field, public: FieldArray, b: FieldArray) -> FieldArray:
        """See :class:`Way`."""
        return field.matmul(public.reshape(self._height, -1), np.ascontiguousarray(b)).reshape(-1)

    def times_public(self, field: Field, a: FieldArray, public: FieldArray) -> FieldArray:
        """See :class:`Way`."""
        return field.matmul(a.reshape(self._height, -1), public).reshape(-1)


async def multiply_masks(
    scope: Party, pairs: Pairs, macs: Macs, field: Authenticated, a: FieldArray, b: FieldArray, way: Way
) -> FieldArray:
    """Multiply what has MACs; see the module's documentation.

    Parameters
    ----------
    scope : Party
        A scope of this batch's own.
    pairs : Pairs
    macs : Macs
    field : Authenticated
    a : FieldArray
        Our summands with MACs, flat.
    b : FieldArray
        The same, as ``way`` takes it.
    way : Way

    Returns
    -------
    FieldArray
        Our summands with MACs of the results, flat. They may be used at once; what is wrong is found by the next check.

    Raises
    ------
    CheatingError, PeerError
        Some party cheats, and it shows at once.
    """
    base, guard = field.public, scope.guard
    if guard is None:
        raise TypeError("products are checked where parties may cheat")
    left = np.ascontiguousarray(a["value"])

    # 1. Raw products, (entries, RAW, width).
    stream = scope.stream(OWN_KEY, "raw")
    raw, factor = stream.elements(base, (left.size, RAW)), stream.elements(base, b.shape)
    products = await _raw_products(scope, pairs, base, raw, way.rows(factor))

    # 2. Combine, now that all of them are fixed.
    coin = await toss(scope, "hash")
    x, z = _combined(base, coin.stream("first"), 0, raw, products, way)
    x_, z_ = _combined(base, coin.stream("second"), 1, raw, products, way)

    # 3. Correct, and give MACs.
    d = await open_unchecked(scope, "difference", base, base.sub(left, x))
    own = base.add(z, way.times(base, d, factor))
    given, coin = await macs.authenticate(scope.at("c"), field, join([own, x_, factor.reshape(-1)]))
    c, second, fresh = given[: own.size], given[own.size : own.size + x_.size], given[own.size + x_.size :]
    fresh = fresh.reshape(b.shape)

    # 4. Sacrifice.
    chi = coin.stream("sacrifice").elements(base, (c.size,))
    f, coin = await macs.authenticate(scope.at("f"), field, base.matmul(chi, z_).reshape(1))
    rho = coin.stream("sacrifice").elements(base, (1,))
    step = scope.next_step("zero")
    # Who has noted T has our part of e. Batches are far smaller than what makes an opening check at once, which would
    # wait for this very step.
    with guard.under_way(step):
        masked = field.sub(field.mul(a, rho), second)
        e = await open_flat(scope, "masked", field, masked["value"], masked["mac"])
        tags = np.ascontiguousarray(fresh["mac"]), np.ascontiguousarray(c["mac"]), f["mac"]
        guard.note(step, field, base.zeros((1,)), sacrificed(base, way, (chi, rho, e), *tags))

    # 5. From b' to b, now that nobody can do anything about the sacrifice.
    rest = field.sub(b, fresh).reshape(-1)
    g = await open_flat(scope, "rest", field, rest["value"], rest["mac"])
    return field.add(c, way.times_public(field, a, g.reshape(b.shape)))


def sacrificed(
    field: Field,
    way: Way,
    public: tuple[FieldArray, FieldArray, FieldArray],
    b: FieldArray,
    c: FieldArray,
    f: FieldArray,
) -> FieldArray:
    """Return ``T = sum chi (rho c - e b) - f``, or our summand of it or of its MAC, for public chi, rho and e."""
    chi, rho, e = public
    terms = field.sub(field.mul(c, rho), way.times(field, e, b))
    return field.sub(field.matmul(chi, terms).reshape(1), f)


async def _raw_products(scope: Party, pairs: Pairs, base: Field, raw: FieldArray, rows: FieldArray) -> FieldArray:
    """Return our summands of what all bring for a times what all bring for b, shape ``(entries, RAW, width)``."""
    kind = Numbers(base, base.bits)
    factors = raw.reshape(-1)
    values = np.repeat(as_plain(rows), RAW, axis=0).view(base.dtype)
    bits = number_bits(base, factors, base.bits)
    scope.cost_of("transfers").rounds += 2
    choices = [await pairs.choose(scope, other, kind, bits, values.shape[1]) for other in scope.others]
    # All at once: whoever chooses goes on choosing while others still answer.
    async with side_by_side() as group:
        tasks = [group.create_task(choice.finish()) for choice in choices]
        tasks += [group.create_task(pairs.offer(scope, other, kind, values)) for other in scope.others]
    total = base.mul(factors[:, np.newaxis], values)
    for task in tasks:
        base.add(total, task.result(), out=total)
    return total.reshape(len(raw), RAW, -1)


def _combined(
    base: Field, coin: RandomStream, first: int, raw: FieldArray, products: FieldArray, way: Way
) -> tuple[FieldArray, FieldArray]:
    """Return a random combination of raw factors, and the same of their products."""
    x, z = raw[:, first], products[:, first]
    for t in range(2, RAW):
        weights = coin.elements(base, (len(raw),))
        x = base.add(x, base.mul(weights, raw[:, t]))
        z = base.add(z, base.mul(weights[:, np.newaxis], products[:, t]))
    return x, way.gather(base, z)
