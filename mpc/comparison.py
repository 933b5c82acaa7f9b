"""Comparison on shares: open under a mask, then a circuit of packed bits.

With ``z`` masked as ``c = z - r``, the sign of ``z = c + r`` is a carry bit of an addition whose one
operand is public and whose other one is shared bit by bit. The carry comes from a tree of depth
log2(k) of packed AND gates; one bit that is known both as an XOR share and as a share in the field
brings the result back (Escudero, Ghosh, Keller, Rachuri, Scholl, CRYPTO 2020, sections 3 and 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpc.arithmetic import bounded_mask, mask_bits, open_masked, products
from mpc.share import Share
from mpc.words import W64, bit_planes, pack_bits, unpack_bits

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.party import Party
    from mpc.preprocessing import Operation
    from mpc.share import Public


async def less_than(party: Party, x: Share | Public, y: Share | Public) -> Share:
    """Compare two arrays entry by entry, at least one of them shared.

    Parameters
    ----------
    party : Party
    x, y : Share, number or array
        Shapes that broadcast together.

    Returns
    -------
    Share
        1 where ``x < y``, else 0; integers (scale 0).

    Raises
    ------
    RangeError
        Before anything is sent: the difference leaves no room for its mask.

    Notes
    -----
    Exact. Opens the difference under a mask 40 bits longer (statistical, 2^-40 an entry) and bits under
    uniform masks. Semi-honest. With k the bits of the bound on the difference and the preprocessing
    ``dealer``: ``2 + ceil(log2(k))`` rounds, 1 field element and about ``3 k`` bits opened an entry.
    With ``prss`` and t possible colluders ``2 t`` rounds more: two for three or four parties.
    """
    difference = x - y
    if not isinstance(difference, Share):
        raise TypeError("less_than compares shares, or a share with public numbers")
    return await is_negative(party, difference)


async def is_negative(party: Party, z: Share) -> Share:
    """Return 1 where a shared value is below zero, else 0; see :func:`less_than`."""
    scope = party.at("compare")
    field, shape, count = z.field, z.shape, z.size
    if not count:
        return Share(field, field.zeros(shape), 0, 1, leads=party.rank == 0)
    flat = z.reshape(-1)

    # 1. Open c = z - r. Then c + 2^k, plus a multiple of 2^(k+1) that makes it positive, is public and
    #    z + 2^k = that + r (mod 2^(k+1)); its bit k tells z >= 0.
    bits = z.magnitude.bit_length()
    mask = await bounded_mask(scope, flat, "comparison")
    asked = await scope.preprocessing.bits(scope, mask, bits + 1)
    (offset,) = await open_masked(scope, "mask", [flat], [mask.summand])
    reach = mask.pieces << mask_bits(flat.magnitude)
    public = field.add(offset, field.encode((1 << bits) + (1 << bits + 1) + reach))

    # 2. The sum's bit k is the sum of the bits k, and the carry out of the k bits below.
    if asked is None:
        addends = scope.preprocessing.addends(scope, mask, public, bits + 1)
        propagate, generate = await _half_sum(scope, [_words(scope, planes) for planes in addends])
    else:
        planes, secret = bit_planes(field, public, bits + 1), _words(scope, await asked)
        propagate = secret + _public_words(scope, planes)
        generate = _words(scope, W64.mul(secret.values, planes))[:-1]
    carry = await _carry(scope, propagate[:bits], generate)
    top = _words(scope, propagate[bits].values) + carry

    # 3. Bring z < 0, the complement, into the field.
    ones = _public_words(scope, pack_bits(np.ones(count, np.uint8)))
    return (await bits_to_field(scope, top + ones, field, count)).reshape(shape)


def _words(party: Party, values: FieldArray) -> Share:
    return Share(W64, values, 0, 0, leads=party.rank == 0)


def _public_words(party: Party, words: FieldArray) -> Share:
    return _words(party, words if party.rank == 0 else W64.zeros(words.shape))


async def _half_sum(party: Party, terms: list[Share]) -> tuple[Share, Share]:
    """Reduce addends to what the carry tree needs: propagate = a + b, generate = a * b (mod 2)."""
    while len(terms) > 2:
        # Carry-save: three addends become their bitwise sum and their carries, one plane up.
        a, b, c, *more = terms
        (product,) = await products(party, "carry save", [(a + c, b + c, "multiply")])
        carries = product + c
        shifted = W64.zeros(carries.shape)
        shifted[1:] = carries.values[:-1]
        terms = [*more, a + b + c, _words(party, shifted)]
    a, b = terms
    (generate,) = await products(party, "generate", [(a[:-1], b[:-1], "multiply")])
    return a + b, generate


async def _carry(party: Party, propagate: Share, generate: Share) -> Share:
    """Return the carry out of all planes: a tree of ``(g, p) o (g', p') = (g + p g', p p')``."""
    p, g = propagate.values, generate.values
    if not len(g):
        return _words(party, W64.zeros(g.shape[1:]))
    while len(g) > 1:
        pairs = len(g) // 2
        high, low = slice(1, 2 * pairs, 2), slice(0, 2 * pairs, 2)
        p_high = _words(party, p[high])
        # The lowest planes have nothing below them that could be propagated: p is not needed there.
        jobs: list[tuple[Share, Share, Operation]] = [(p_high, _words(party, g[low]), "multiply")]
        if len(g) > 2:
            jobs.append((p_high, _words(party, p[low]), "multiply"))
        joined = await products(party, "carry", jobs)
        new_g = W64.add(g[high], joined[0].values)
        new_p = joined[1].values if len(g) > 2 else p[high]
        if len(g) % 2:
            new_g, new_p = np.concatenate([new_g, g[-1:]]), np.concatenate([new_p, p[-1:]])
        g, p = new_g, new_p
    return _words(party, g[0])


async def bits_to_field(party: Party, words: Share, field: Field, count: int) -> Share:
    """Turn XOR-shared bits, packed, into shares of 0 and 1 in a field.

    Notes
    -----
    Opens the bits under uniform masks whose signs ``(-1)^bit`` are shared in the field; then ``(-1)^b``
    is local, and ``b = (1 - (-1)^b) / 2``. Cost: 1 round, 1 bit opened an entry.
    """
    mask = await party.preprocessing.uniform(party, W64, words.shape)
    answer = await party.preprocessing.signs(party, mask, field, count)
    (opened,) = await open_masked(party, "convert", [words], [mask.summand])
    flips = 1 - 2 * unpack_bits(opened, count).astype("int64")
    sign = Share(field, field.scale_int(await answer, flips), 0, 1, leads=party.rank == 0)
    halves = field.mul((1 - sign).values, field.encode(field.half + 1 - field.modulus))
    return Share(field, halves, 0, 1, leads=party.rank == 0)
