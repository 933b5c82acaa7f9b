"""Shared bits, packed 64 to a word: additions, AND trees, and the way into a field and back.

A value that is opened under a mask, ``z = c + r``, is a sum of numbers whose bits are shared: the public c
and the bits of r that a dealer deals, or t + 1 addends that are known to one party each. Adding them bit
by bit, in AND gates over whole words, gives z modulo a power of two (Escudero, Ghosh, Keller, Rachuri,
Scholl, CRYPTO 2020, sections 3 and 5). A bit that is known both as an XOR share and as a share in the
field brings results back.

Planes: entry ``[i, w]`` of an array of words holds bit i of the values 64 w to 64 w + 63.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpc._copying import copy_into
from mpc.arithmetic import bounded_mask, mask_bits, open_masked, products
from mpc.masks import Masked
from mpc.share import Share, concatenate
from mpc.words import W64, WORD_BITS, Words, bit_planes, chosen, negated_planes, pack_bits, unpack_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.party import Party
    from mpc.preprocessing import Operation

# Bits that become elements in one go: what is worked on then fits a cache.
_CONVERTED_AT_ONCE = 1 << 17
# How many of these may have been asked for before the first is needed.
_ASKED_AHEAD = 3


class Addends(NamedTuple):
    """A flat array that was opened under a mask, as a sum of planes modulo a power of two.

    Attributes
    ----------
    public : numpy.ndarray or None
        Planes of the public addend; None where it is part of the first shared one.
    shared : list of Share
        Planes over W64. Where there is no public addend, each is known to one party, which holds all of it.
    masked : Masked
        The same array, as products can use it without another opening.
    """

    public: NDArray[np.uint64] | None
    shared: list[Share]
    masked: Masked


async def open_addends(party: Party, z: Share, count: int, constant: int, operation: str) -> Addends:
    """Open a flat share under a mask whose bits are shared.

    Parameters
    ----------
    party : Party
    z : Share
    count : int
        Planes wanted; at most one more than the bits of ``z.magnitude``.
    constant : int
        The sum of the addends is ``z + constant`` modulo ``2^count``.
    operation : str
        Who asks; for the error.

    Raises
    ------
    RangeError
        Before anything is sent: value and mask together do not fit the field.

    Notes
    -----
    The mask is a sum of integers 40 bits longer than the bound on z: values are told apart with advantage
    at most 2^-40 an entry (statistical). Semi-honest. Cost: 1 round, ``|z|`` elements opened.
    """
    field = z.field
    mask = await bounded_mask(party, z, operation)
    asked = await party.preprocessing.bits(party, mask, count)
    (offset,) = await open_masked(party, "mask", [z], [mask.summand], bounded=True)
    # Multiples of 2^count that make the public addend positive as an integer.
    reach = (mask.pieces << mask_bits(z.magnitude)) + (2 << z.magnitude.bit_length())
    public = field.add(offset, field.encode(constant + reach))
    masked = Masked(offset, mask)
    if asked is None:
        addends = party.preprocessing.addends(party, mask, public, count)
        return Addends(None, [words_share(party, planes) for planes in addends], masked)
    return Addends(bit_planes(field, public, count), [words_share(party, await asked)], masked)


def words_share(party: Party, values: FieldArray) -> Share:
    """Return a share over W64 from our summand."""
    return Share(words_field(party), values, 0, 0, leads=party.rank == 0)


def words_field(party: Party) -> Words:
    """Return what shares over W64 are made of: with MACs, where parties may cheat."""
    field: Words = party.over(W64)  # type: ignore[assignment]
    return field


def public_words(party: Party, words: FieldArray) -> Share:
    """Return a share of public words."""
    field = words_field(party)
    return words_share(party, field.add_public(field.zeros(words.shape), words, leads=party.rank == 0))


def inverted(party: Party, x: Share, count: int) -> Share:
    """Return the complements of the first ``count`` bits of the words of the last axis."""
    return x + public_words(party, pack_bits(np.ones(count, np.uint8)))


# ---- additions ----------------------------------------------------------------------------------


async def _carry_save(party: Party, terms: list[Share]) -> tuple[Share, Share]:
    """Reduce addends to two: three become their bitwise sum and their carries, one plane up."""
    while len(terms) > 2:
        a, b, c, *more = terms
        (product,) = await products(party, "carry save", [(a + c, b + c, "multiply")])
        terms = [*more, a + b + c, _one_plane_up(product + c, len(a))]
    a, b = terms
    return a, b


def _one_plane_up(x: Share, count: int) -> Share:
    shifted = x.field.zeros((count, *x.shape[1:]))
    shifted[1:] = x.values[: count - 1]
    return Share(x.field, shifted, 0, 0, leads=x.leads)


async def half_sum(party: Party, addends: Addends) -> tuple[Share, Share]:
    """Reduce addends a, b to what adders need: propagate = a + b, generate = a b (mod 2, without the top).

    Cost: no round with a public addend; without, one for each addend but the first, ``2 k`` words opened
    in each for k planes.
    """
    if addends.public is not None:
        (secret,) = addends.shared
        propagate = secret + public_words(party, addends.public)
        return propagate, words_share(party, secret.field.mul(secret.values, addends.public)[:-1])
    a, b = await _carry_save(party, addends.shared)
    if len(a) == 1:
        return a + b, words_share(party, a.field.zeros((0, *a.shape[1:])))
    (generate,) = await products(party, "generate", [(a[:-1], b[:-1], "multiply")])
    return a + b, generate


async def carry_out(party: Party, propagate: Share, generate: Share) -> Share:
    """Return the carry out of all planes: a tree of ``(g, p) o (g', p') = (g + p g', p p')``.

    Cost: ``ceil(log2(k))`` rounds, about ``3 k`` planes opened for k planes.
    """
    p, g, field = propagate.values, generate.values, propagate.field
    if not len(g):
        return words_share(party, field.zeros(g.shape[1:]))
    while len(g) > 1:
        pairs = len(g) // 2
        high, low = slice(1, 2 * pairs, 2), slice(0, 2 * pairs, 2)
        p_high = words_share(party, p[high])
        # The lowest planes have nothing below them that could be propagated: p is not needed there.
        jobs: list[tuple[Share, Share, Operation]] = [(p_high, words_share(party, g[low]), "multiply")]
        if len(g) > 2:
            jobs.append((p_high, words_share(party, p[low]), "multiply"))
        joined = await products(party, "carry", jobs)
        new_g = field.add(g[high], joined[0].values)
        new_p = joined[1].values if len(g) > 2 else p[high]
        if len(g) % 2:
            new_g, new_p = np.concatenate([new_g, g[-1:]]), np.concatenate([new_p, p[-1:]])
        g, p = new_g, new_p
    return words_share(party, g[0])


async def sum_planes(party: Party, addends: Addends) -> Share:
    """Add up: return the planes of the sum, XOR-shared.

    Notes
    -----
    All carries by Sklansky's prefix tree (IRE Trans. Electronic Computers, 1960). In round j, the upper
    half of every block of ``2^j`` planes takes up the carry out of its lower half. That carry has many
    uses and is masked once, so that a round opens half of the planes and two for each block: fewer than
    in any other tree of this depth. Cost: that of :func:`half_sum`, then for k planes
    ``ceil(log2(k - 1))`` rounds and about ``(k / 2) log2(k) + 2 k`` planes opened.
    """
    propagate, generate = await half_sum(party, addends)
    p, g, field = propagate.values[:-1].copy(), generate.values.copy(), propagate.field
    half = 1
    while half < len(g):
        jobs, targets = _prefix_jobs(party, p, g, half)
        for target, joined in zip(targets, await products(party, "prefix", jobs), strict=True):
            taken = joined.values.reshape(len(joined.values), -1, *g.shape[1:])
            g[target] = field.add(g[target], taken[0])
            if len(taken) == 2:
                p[target] = taken[1]
        half *= 2
    total = propagate.values.copy()
    total[1:] = field.add(total[1:], g)
    return words_share(party, total)


def _prefix_jobs(
    party: Party, p: FieldArray, g: FieldArray, half: int
) -> tuple[list[tuple[Share, Share, Operation]], list[NDArray[np.intp]]]:
    """Return the products of one round, and the planes that each of them changes.

    All whole blocks make one product, of operands ``(blocks, half, words)`` and ``(2, blocks, 1, words)``;
    a last block that ends within its upper half makes another.
    """
    planes = np.arange(len(g))
    whole = len(g) // (2 * half) * 2 * half
    pieces = [planes[:whole].reshape(-1, 2 * half), planes[whole:].reshape(1, -1)]
    jobs: list[tuple[Share, Share, Operation]] = []
    targets = []
    for blocks in pieces:
        upper = blocks[:, half:]
        if not upper.size:
            continue
        carry = blocks[:, half - 1 : half]
        # Below the first block nothing is carried in: alone, it needs no p any more.
        low = [g[carry], p[carry]] if len(g) > 2 * half else [g[carry]]
        jobs.append((words_share(party, p[upper]), words_share(party, np.stack(low)), "multiply"))
        targets.append(upper.reshape(-1))
    return jobs, targets


# ---- is it zero ---------------------------------------------------------------------------------


async def is_zero(party: Party, addends: Addends) -> Share:
    """Return words whose bits say where the sum of the addends is zero modulo ``2^k``.

    Notes
    -----
    ``a + b = 0`` where the bits of b are those of -a, and whoever knows all of a knows -a: no carry has to
    be computed. Of more addends, carry-save leaves two that nobody knows; they cancel where every
    ``a_i + b_i + (a_(i-1) or b_(i-1))`` is 0 (Cortadella, Llaberia, IEEE Trans. Computers 1992).
    Cost: ``ceil(log2(k))`` rounds and ``2 (k - 1)`` planes opened; t rounds and about ``2 t k`` planes more
    with t + 1 > 2 addends.
    """
    first, *others = addends.shared
    if addends.public is not None:
        unlike = first + public_words(party, negated_planes(addends.public))
    elif len(others) == 1:
        unlike = words_share(party, negated_planes(first.values)) + others[0]
    else:
        a, b = await _carry_save(party, addends.shared)
        unlike = a + b
        if len(a) > 1:
            (both,) = await products(party, "either", [(a[:-1], b[:-1], "multiply")])
            unlike = unlike + _one_plane_up(a[:-1] + b[:-1] + both, len(a))
    return await all_set(party, inverted(party, unlike, addends.masked.offset.size))


async def all_set(party: Party, planes: Share) -> Share:
    """AND all planes: ``ceil(log2(k))`` rounds, ``2 (k - 1)`` planes opened."""
    while len(planes) > 1:
        half = len(planes) // 2
        (joined,) = await products(party, "and", [(planes[:half], planes[half : 2 * half], "multiply")])
        planes = concatenate([joined, planes[2 * half :]]) if len(planes) % 2 else joined
    return planes[0]


# ---- into the field -----------------------------------------------------------------------------


async def bits_to_field(party: Party, words: Share, field: Field, count: int) -> Share:
    """Turn the first bits of a flat array of XOR-shared words into shares of 0 and 1 in a field.

    Notes
    -----
    Opens the bits under uniform masks whose signs ``(-1)^bit`` are shared in the field; then ``(-1)^b``
    is local, and ``b = (1 - (-1)^b) / 2``. Cost: 1 round, 1 bit opened an entry.
    """
    mask = await party.preprocessing.uniform(party, words.field, words.shape)
    answer = await party.preprocessing.signs(party, mask, field, count)
    (opened,) = await open_masked(party, "convert", [words], [mask.summand])
    bits = (await answer).copy()
    _signs_to_bits(field, bits, unpack_bits(opened, count), leads=party.rank == 0)
    return Share(field, bits, 0, 1, leads=party.rank == 0)


def _signs_to_bits(field: Field, signs: FieldArray, flips: NDArray[np.uint8], *, leads: bool) -> None:
    """Turn our summand of signs into that of ``(1 - (-1)^flip sign) / 2``, in place."""
    half = -field.half  # 1/2 = (p + 1)/2 (mod p)
    field.mul(signs, chosen(field, flips, -half, half), out=signs)
    field.add_public(signs, field.encode(half), leads=leads, out=signs)


class SignedMask(NamedTuple):
    """Masks for bits, and the signs of the masks in a field; see :func:`bits_to_field`."""

    words: FieldArray
    signs: FieldArray


async def take_signs(party: Party, field: Field, count: int) -> SignedMask:
    """Take what it needs to bring ``count`` bits into a field; depends on no value, so may be taken ahead.

    Notes
    -----
    In pieces of 2^17 bits. Cost: with prss and t possible colluders t rounds for each piece, which do not wait
    for one another; for t = 1, ``count`` elements from party 0 to party 2.
    """
    over = words_field(party)
    words = over.zeros(-(-count // WORD_BITS))
    signs = field.zeros(count)
    asked: deque[tuple[int, Awaitable[FieldArray]]] = deque()
    for start in range(0, count, _CONVERTED_AT_ONCE):
        size = min(_CONVERTED_AT_ONCE, count - start)
        mask = await party.preprocessing.uniform(party, over, (-(-size // WORD_BITS),))
        words[start // WORD_BITS :][: mask.summand.size] = mask.summand
        asked.append((start, await party.preprocessing.signs(party, mask, field, size)))
        if len(asked) > _ASKED_AHEAD:
            await _settle(signs, *asked.popleft())
    while asked:
        await _settle(signs, *asked.popleft())
    return SignedMask(words, signs)


async def _settle(signs: FieldArray, start: int, answer: Awaitable[FieldArray]) -> None:
    values = await answer
    copy_into(signs[start : start + values.size], values)


async def planes_to_field(party: Party, planes: Share, count: int, material: SignedMask, field: Field) -> Share:
    """Turn all planes into elements, with what was taken for ``len(planes) * count`` bits.

    Returns
    -------
    Share
        Shape ``(planes, count)``.

    Notes
    -----
    Cost: 1 round (2 above 96 KiB, n >= 3), 1 bit opened for each.
    """
    # The planes end to end, without the unused bits at the end of each.
    height = len(planes)
    dense = planes.values.reshape(-1)
    if count % WORD_BITS:
        dense = words_field(party).dense(planes.values, count)
    (opened,) = await open_masked(party, "convert", [words_share(party, dense)], [material.words])
    bits = material.signs
    for start in range(0, height * count, _CONVERTED_AT_ONCE):
        part = bits[start : start + _CONVERTED_AT_ONCE]
        _signs_to_bits(field, part, unpack_bits(opened[start // WORD_BITS :], part.size), leads=party.rank == 0)
    return Share(field, bits.reshape(height, count), 0, 1, leads=party.rank == 0)
