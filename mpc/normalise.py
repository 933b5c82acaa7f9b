"""Which octave a secret lies in, and the secret brought into one: the first half of every root and reciprocal.

A value that was opened under a mask is a sum of numbers whose bits are shared. "Is it below 2^j" asks
whether all bits of the sum from the j-th up are zero. For two addends with propagate bits ``p = a + b`` and
generate bits ``g = a b``, that has an answer for either carry into the j-th bit: with a carry, all p above
must be 1; without, the bits must read, from below, pairs of zeros, then (if at all) one pair of ones, then
p = 1. Both are associative, so one prefix tree gives the carries and another, beside it, the answers for
all j, in as many rounds as one comparison takes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc.arithmetic import mask, mask_bits, multiply, products, truncate
from mpc.bits import half_sum, inverted, open_addends, planes_to_field, take_signs, words_field, words_share
from mpc.errors import RangeError
from mpc.series import POWER_SCALE
from mpc.share import Share, stack
from mpc.tasks import side_by_side

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.party import Party


def room(party: Party, field: Field) -> int:
    """Return the largest k such that values below ``2^k`` can be truncated or compared by these parties."""
    pieces = party.preprocessing.pieces_of(party.size)
    bits = field.bits
    while bits > 0 and (1 << bits) + (pieces << mask_bits((1 << bits) - 1)) > field.half:
        bits -= 1
    return bits


def guard_bits(party: Party) -> int:
    """Return by how many bits the error of a truncation may be above one unit of the last place."""
    return max(0, ceil_log2((party.preprocessing.pieces_of(party.size) + 1) / 2))


def ceil_log2(value: float) -> int:
    """Return the least e with ``value <= 2^e``: exact, so that all parties choose the same scales."""
    fraction, exponent = math.frexp(value)
    return exponent - 1 if fraction == 0.5 else exponent


def integers(x: Share) -> Share:
    """Return the encoded integers themselves: the same summands with scale 0. Local."""
    return rescaled(x, 0)


def rescaled(x: Share, scale: int) -> Share:
    """Return the same summands as a number with another scale: times ``2^(x.scale - scale)``. Local and free.

    A negative scale becomes a multiplication by a public power of two.
    """
    if scale < 0:
        return rescaled(x, 0) * (1 << -scale)
    if x.masked is not None:
        return Share(x.field, None, scale, x.magnitude, leads=x.leads, masked=x.masked)
    return Share(x.field, x.values, scale, x.magnitude, leads=x.leads)


async def masked_at(party: Party, x: Share, scale: int) -> Share:
    """Bring a share to a scale, masked: by a truncation, or where there is nothing to drop by a fresh mask.

    Cost: 1 round; ``|x|`` elements.
    """
    if x.scale > scale:
        return await truncate(party, x, scale)
    return await mask(party, x.lifted(scale))


# ---- the octave ---------------------------------------------------------------------------------


class Octave(NamedTuple):
    """Where vectors of secrets lie among powers of two.

    Attributes
    ----------
    x : Share
        The secrets as integers (scale 0), masked.
    hit : Share
        Shape (octaves, entries), scale 0: entry k is 1 where ``2^(top - width (k + 1)) <= x < 2^(top - width k)``,
        else 0; all are 0 where x lies elsewhere.
    """

    x: Share
    hit: Share


async def octave(party: Party, x: Share, *, low: int, top: int, width: int = 1) -> Octave:
    """Find the octave of each entry.

    Parameters
    ----------
    party : Party
    x : Share
        A vector of integers (scale 0).
    low, top : int
        The range: ``2^low <= x < 2^top``.
    width : int
        Bits of one octave.

    Returns
    -------
    Octave
        With ``ceil((top - low) / width)`` octaves, counted from above.

    Raises
    ------
    RangeError
        Before anything is sent: x and its mask together do not fit the field.

    Notes
    -----
    Exact. Opens x under a mask 40 bits longer (statistical, 2^-40 an entry) and bits under uniform masks.
    Semi-honest. Cost, with k the bits of the bound on x and the preprocessing ``dealer``:
    ``ceil(log2(k + 1)) + 3`` rounds and 1 element an entry, besides a few bits for each bit of x; with
    ``prss`` and t possible colluders ``2 t`` rounds more.
    """
    scope, field, size = party.at("octave"), x.field, x.size
    bits = x.magnitude.bit_length()
    count = -(-(top - low) // width)
    edges = [min(bits, max(0, top - width * k)) for k in range(count + 1)]

    async with side_by_side() as group:
        material = group.create_task(take_signs(scope.at("signs"), field, count * size))
        addends = await open_addends(scope, x, bits + 1, 0, "normalise")
        below = await _zero_from(scope, *await half_sum(scope, addends), sorted(set(edges)), size)
        over = words_field(scope)
        planes = np.stack([over.add(below[upper], below[lower]) for upper, lower in pairwise(edges)])
    hit = await planes_to_field(scope, words_share(scope, planes), size, material.result(), field)
    masked = Share(field, None, 0, x.magnitude, leads=party.rank == 0, masked=addends.masked)
    return Octave(masked, hit)


class _Gates:
    """AND gates of one round: planes are handed in, and their products come out by number."""

    def __init__(self) -> None:
        self._left: list[FieldArray] = []
        self._right: list[FieldArray] = []

    def add(self, left: FieldArray, right: FieldArray) -> int:
        """Note a gate; returns its number."""
        self._left.append(left)
        self._right.append(right)
        return len(self._left) - 1

    async def run(self, party: Party, name: str) -> FieldArray:
        """Evaluate all of them."""
        if not self._left:
            return words_field(party).zeros((0, 1))
        left, right = (words_share(party, np.stack(side)) for side in (self._left, self._right))
        (done,) = await products(party, name, [(left, right, "multiply")])
        return done.values


def prefix_plan(count: int, wanted: set[int]) -> list[list[tuple[int, int]]]:
    """Return for each round of Sklansky's prefix tree the pairs (position, last position of the half below).

    Only what the wanted positions need is in it.
    """
    needed, plan = set(wanted), []
    for level in reversed(range(max(0, count - 1).bit_length())):
        steps = [(i, (i >> level << level) - 1) for i in sorted(needed) if i >> level & 1]
        needed |= {anchor for _, anchor in steps}
        plan.append(steps)
    return plan[::-1]


async def _zero_from(
    party: Party, propagate: Share, generate: Share, edges: list[int], size: int
) -> dict[int, FieldArray]:
    """Return for each edge the words that say where all bits of the sum from there up are zero.

    The sum is taken modulo 2 to the number of planes. A block of bits is described by ``none`` (all sum bits
    are zero without a carry in, and none comes out), ``out`` (the same, and one comes out) and ``all`` (with
    a carry in all sum bits are zero, and it comes out). Upon a lower block L, a higher one H gives
    ``none = none_L none_H, out = none_L out_H + out_L all_H, all = all_L all_H``: whether the last carry
    leaves the top does not matter, so what is complete there needs but ``none + out`` and ``all``.
    """
    top, over = len(propagate) - 1, words_field(party)
    carry, through = generate.values.copy(), propagate.values[:-1].copy()
    every = propagate.values[::-1].copy()  # from the top down
    out = np.zeros_like(every)
    out[1:] = generate.values[::-1]
    none = inverted(party, words_share(party, over.add(every, out)), size).values.copy()
    lower = prefix_plan(top, {edge - 1 for edge in edges if edge})
    upper = prefix_plan(top + 1, {top - edge for edge in edges})
    for level in range(max(len(lower), len(upper))):
        gates = _Gates()
        changes: list[tuple[FieldArray, int, list[int]]] = []
        for i, below in lower[level] if level < len(lower) else []:
            changes.append((carry, i, [-1, gates.add(through[i], carry[below])]))
            if i >> level + 1:  # below the lowest block there is nothing to let through
                changes.append((through, i, [gates.add(through[i], through[below])]))
        for i, above in upper[level] if level < len(upper) else []:
            returned = gates.add(out[i], every[above])
            changes.append((every, i, [gates.add(every[i], every[above])]))
            if i >> level + 1:
                changes.append((out, i, [gates.add(none[i], out[above]), returned]))
                changes.append((none, i, [gates.add(none[i], none[above])]))
            else:
                changes.append((none, i, [gates.add(none[i], none[above]), returned]))
        done = await gates.run(party, "octave")
        for planes, i, terms in changes:
            summands = [planes[i]] if terms[0] < 0 else []
            planes[i] = reduce(over.add, [*summands, *(done[k] for k in terms if k >= 0)])
    gates = _Gates()
    chosen = {edge: gates.add(carry[edge - 1], over.add(every[top - edge], none[top - edge])) for edge in edges if edge}
    done = await gates.run(party, "carried")
    return {edge: over.add(none[top - edge], done[chosen[edge]]) if edge else none[top - edge] for edge in edges}


def weighted(hit: Share, weights: Sequence[int]) -> Share:
    """Return the weight of the octave that was hit, 0 where none was. Local."""
    columns = hit.T @ np.array(weights, dtype=object)
    largest = max(map(abs, weights))
    return Share(columns.field, columns.values, 0, min(columns.magnitude, largest), leads=columns.leads)


# ---- the mantissa -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Normalised:
    """A vector of positive secrets ``x = m 2^(top - width k)``, as integers.

    Attributes
    ----------
    t : Share
        Scale 39, masked. Width 1: ``m = (t + 3) / 4`` in [1/2, 1). Width 2: ``m = (t + 5/4) / 2`` in [1/4, 1).
        0 where x is out of range.
    inside : Share
        0 or 1, scale 0: whether x is in the range.
    hit : Share
        See :class:`Octave`.
    factors : list of Share
        Masked, scale 0: ``weights[k]``, for each weights asked for; 0 where x is out of range.
    """

    t: Share
    inside: Share
    hit: Share
    factors: list[Share]


def check_room(party: Party, x: Share, *, low: int, top: int, width: int, what: str) -> int:
    """Raise RangeError where :func:`normalise` has no room; returns the number of octaves."""
    if not 0 <= low < top:
        raise ValueError(f"{what}: the range is empty")
    count = -(-(top - low) // width)
    most = room(party, x.field)
    if max(x.magnitude.bit_length(), top + (2 if width == 2 else 0)) > most:
        raise RangeError(
            f"{what}: a value of {x.magnitude.bit_length()} bits (bounded by {x.bound:.3g} at scale {x.scale}), in a "
            f"range up to 2^{top} units, leaves no room for a mask in {x.field}, where {most} bits fit: declare a "
            "tighter bound, or truncate first"
        )
    if x.magnitude.bit_length() + width * (count - 1) + 3 >= x.field.bits:
        raise RangeError(
            f"{what}: a value of {x.magnitude.bit_length()} bits in a range of {count * width} octaves is too much "
            f"for {x.field}: narrow the range, or truncate first"
        )
    return count


async def normalise(
    party: Party, x: Share, *, low: int, top: int, width: int = 1, weights: Sequence[Sequence[int]] = ()
) -> Normalised:
    """Bring positive secrets into one octave by a secret power of ``2^width``.

    Parameters
    ----------
    party : Party
    x : Share
        A vector; its encoded integers count, whatever the scale.
    low, top : int
        The range ``2^low <= x < 2^top`` of the encoded integers.
    width : int
        1, or 2 before a square root.
    weights : sequence of sequences of int
        For each factor wanted, a weight for each octave, from above.

    Raises
    ------
    RangeError
        Before anything is sent: value and range are too much for the field.

    Notes
    -----
    Whatever x is, also 0, negative, or beyond the range: all bounds hold, because the octave is exact.
    Cost: that of :func:`octave`, then 2 rounds and ``2 + len(weights)`` elements an entry (without weights 1 more
    than that of the power).
    """
    if width not in (1, 2):
        raise ValueError("an octave has one bit or two")
    count = check_room(party, x, low=low, top=top, width=width, what="normalise")
    found = await octave(party, integers(x), low=low, top=top, width=width)
    inside = weighted(found.hit, [1] * count)

    # 1. x 2^(width k) is in [2^(top - width), 2^top); the power is masked together with the factors.
    power = [1 << width * k for k in range(count)]
    wanted = [power, *(list(w) for w in weights)]
    distinct = [w for k, w in enumerate(wanted) if w not in wanted[:k]]
    opened = await mask(party, stack([weighted(found.hit, w) for w in distinct]))
    masked = [_row(opened, k, max(map(abs, w))) for k, w in enumerate(distinct)]
    scaled = await multiply(party, found.x, masked[0])  # both are masked: nothing is sent

    # 2. t = 4 m - 3 or 2 m - 5/4, with m in units of 2^-top; 0 where the power is 0.
    if width == 1:
        t = rescaled(scaled * 4 - inside * (3 << top), top).bounded_by(1)
    else:
        t = rescaled(scaled * 8 - inside * (5 << top), top + 2).bounded_by(0.75)
    t = await masked_at(party, t, POWER_SCALE)
    factors = [masked[distinct.index(w)] for w in wanted[1:]]
    return Normalised(t, inside, found.hit, factors)


def _row(masked: Share, k: int, largest: int) -> Share:
    row = masked[k]
    return Share(row.field, None, 0, min(row.magnitude, largest), leads=row.leads, masked=row.masked)
