"""Logic on shares: equality, signs, choices, bits, the largest entry.

All of it is exact, and rests on the two things of :mod:`mpc.comparison`: a value opened under a mask whose
bits are shared, and AND gates over packed words.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from mpc.arithmetic import multiply, products
from mpc.bits import bits_to_field, is_zero, open_addends, planes_to_field, sum_planes, take_signs
from mpc.comparison import is_negative, negative_and_masked
from mpc.share import Share, stack

if TYPE_CHECKING:
    from mpc.field import Field, FieldArray
    from mpc.party import Party
    from mpc.preprocessing import Operation
    from mpc.share import Public


async def equal(party: Party, x: Share | Public, y: Share | Public) -> Share:
    """Tell entry by entry whether two arrays are equal, at least one of them shared.

    Parameters
    ----------
    party : Party
    x, y : Share, number or array
        Shapes that broadcast together; of different scales, the coarser one is lifted.

    Returns
    -------
    Share
        1 where ``x == y`` as encoded, else 0; integers (scale 0).

    Raises
    ------
    RangeError
        Before anything is sent: the difference leaves no room for its mask.

    Notes
    -----
    Exact. Opens the difference under a mask 40 bits longer (statistical, 2^-40 an entry) and bits under
    uniform masks: z = c + r is 0 where the bits of r are those of -c. Semi-honest.
    Cost with k the bits of the bound on the difference and the preprocessing ``dealer``:
    ``2 + ceil(log2(k))`` rounds, 1 field element and ``2 k - 1`` bits opened an entry. With ``prss`` and
    three or four parties 1 round more, with t > 1 possible colluders ``2 t`` rounds more (for k = 1 one less).
    """
    z = _difference(x, y, "equal")
    field, count, bits = z.field, z.size, z.magnitude.bit_length()
    if not count or not bits:
        return party.constant(1, field=field, shape=z.shape)
    scope = party.at("equal")
    addends = await open_addends(scope, z.reshape(-1), bits, 0, "equal")
    zero = await is_zero(scope, addends)
    return (await bits_to_field(scope, zero, field, count)).reshape(z.shape)


async def sign(party: Party, x: Share) -> Share:
    """Return -1, 0 or 1 for each entry; integers (scale 0).

    Notes
    -----
    Exact. Reveals what :func:`mpc.less_than` reveals. Cost: one comparison of ``2 |x|`` entries.
    """
    below = await is_negative(party.at("sign"), stack([x, -x]))
    return _bounded(below[1] - below[0], 1)


async def absolute(party: Party, x: Share) -> Share:
    """Return absolute values, with the scale and the bound of ``x``.

    Notes
    -----
    Exact. Reveals what :func:`mpc.less_than` reveals. Cost: that of a comparison, then 1 round (2 above 96 KiB,
    n >= 3), ``|x|`` elements opened and as many triples.
    """
    scope = party.at("absolute")
    below, masked = await negative_and_masked(scope, x)
    return _bounded(x - await multiply(scope, below, masked) * 2, x.magnitude)


async def minimum(party: Party, x: Share | Public, y: Share | Public) -> Share:
    """Return the smaller one of two arrays' entries, at least one array shared.

    Parameters
    ----------
    party : Party
    x, y : Share, number or array
        Shapes that broadcast together.

    Returns
    -------
    Share
        The larger scale of the two (a public operand is encoded at that of the share); magnitude that of
        the larger bound.

    Raises
    ------
    RangeError
        Before anything is sent: the difference leaves no room for its mask.

    Notes
    -----
    Exact: ``y + [x < y] (x - y)``. Reveals what :func:`mpc.less_than` reveals. Cost: that of a comparison, then 1
    round (2 above 96 KiB, n >= 3); 1 element opened an entry (the difference is masked already), 1 triple.
    """
    return await _extreme(party.at("minimum"), x, y, "minimum")


async def maximum(party: Party, x: Share | Public, y: Share | Public) -> Share:
    """Return the larger one of two arrays' entries; see :func:`minimum`."""
    return await _extreme(party.at("maximum"), x, y, "maximum")


async def _extreme(party: Party, x: Share | Public, y: Share | Public, name: str) -> Share:
    """Return y, plus x - y where that is negative (the minimum), or x less it there (the maximum)."""
    z = _difference(x, y, name)
    below, masked = await negative_and_masked(party, z)
    step = await multiply(party, below, masked)
    chosen = step + y if name == "minimum" else -step + x
    return _bounded(chosen, _larger(x, y, z))


async def select(party: Party, condition: Share, x: Share | Public, y: Share | Public) -> Share:
    """Return ``x`` where the condition is 1, and ``y`` where it is 0.

    Parameters
    ----------
    party : Party
    condition : Share
        Of 0s and 1s, which the caller vouches for; scale 0.
    x, y : Share, number or array
        At least one of them shared; shapes that broadcast together and with that of the condition.

    Returns
    -------
    Share
        The larger scale of the two (a public operand is encoded at that of the share); magnitude that of
        the larger bound.

    Notes
    -----
    Exact: ``y + condition (x - y)``. Semi-honest; reveals nothing. Cost: 1 round (2 above 96 KiB, n >= 3);
    ``|condition| + |x - y|`` elements opened, less those of masked operands; 1 triple an entry.
    """
    z = _difference(x, y, "select")
    if condition.scale:
        raise ValueError("select: a condition is 0 or 1, of scale 0")
    step = await multiply(party, _bounded(condition, min(condition.magnitude, 1)), z)
    return _bounded(step + y, _larger(x, y, z))


async def to_bits(
    party: Party, x: Share, count: int | None = None, *, signed: bool = False, field: Field | None = None
) -> Share:
    """Cut integers into bits.

    Parameters
    ----------
    party : Party
    x : Share
        Any shape. Its encoded integers are cut: with fraction bits, these are the lowest ones.
    count : int, optional
        How many bits; by default all that the bound of x admits.
    signed : bool
        Give the bits of ``x + 2^(count - 1)`` instead, which are in the order of x; one more by default.
    field : Field, optional
        That of the result; by default that of x. ``F61`` takes half the time and memory of ``F127``.

    Returns
    -------
    Share
        Shape ``(*x.shape, count)``, 0 or 1, lowest bit first, scale 0. Entry ``[..., j]`` of a result is
        contiguous in memory.

    Raises
    ------
    RangeError
        Before anything is sent: x leaves no room for its mask.

    Notes
    -----
    The bits are those of x (or ``x + 2^(count - 1)``) modulo ``2^count``: exact where ``0 <= x < 2^count``
    (or ``-2^(count - 1) <= x < 2^(count - 1)``), which the caller vouches for; privacy does not rest on it.
    A negative x without ``signed`` gives the bits of ``x + 2^b``, b those of its bound, and zeros above.

    Opens x under a mask 40 bits longer than its bound (statistical, 2^-40 an entry) and bits under uniform
    masks. Semi-honest. The sum of what was opened and of the mask is taken by a prefix adder; see
    :func:`mpc.bits.sum_planes`. Cost for k bits with the preprocessing ``dealer``:
    ``2 + ceil(log2(k - 1))`` rounds (each 2 above 96 KiB, n >= 3), 1 field element and about
    ``(k / 2) log2(k) + 3 k`` bits opened an entry; the dealer sends k elements an entry to the last party.
    With ``prss`` and t possible colluders t rounds more (for k = 1 one less) and ``2 t k`` bits; beside them,
    t rounds for each 2^17 bits that become elements, which wait for nothing else. For t = 1, party 0 sends
    k elements an entry to party 2 in these.
    """
    size = x.magnitude.bit_length() + signed
    count = size if count is None else count
    field = x.field if field is None else party.over(field)
    if count < 0:
        raise ValueError("to_bits: a number of bits is at least 0")
    cut = min(size, count)
    if not x.size or not cut:
        return party.constant(0, field=field, shape=(*x.shape, count))
    scope = party.at("bits")
    addends = await open_addends(scope, x.reshape(-1), cut, 1 << cut - 1 if signed else 0, "to_bits")
    try:
        async with asyncio.TaskGroup() as group:
            material = group.create_task(take_signs(scope.at("signs"), field, cut * x.size))
            planes = await sum_planes(scope, addends)
    except BaseExceptionGroup as failures:  # a peer's fault fails both; one of them says whose it was
        raise failures.exceptions[0] from failures
    bits = await planes_to_field(scope, planes, x.size, material.result(), field)
    if count > cut:
        bits = _extended(bits, count, signed)
    values = np.moveaxis(bits.values.reshape(count, *x.shape), 0, -1)
    return Share(field, values, 0, 1, leads=party.rank == 0)


def _extended(bits: Share, count: int, signed: bool) -> Share:
    """Add planes: zeros, or what ``2^(count - 1)`` instead of ``2^(cut - 1)`` makes of the sign."""
    cut = len(bits)
    wide = bits.field.zeros((count, *bits.shape[1:]))
    wide[:cut] = bits.values
    if signed:
        wide[cut - 1 : count - 1] = (1 - bits[cut - 1]).values
        wide[count - 1] = bits.values[cut - 1]
    return Share(bits.field, wide, 0, 1, leads=bits.leads)


def from_bits(bits: Share, scale: int = 0) -> Share:
    """Put bits together again: ``sum_j 2^j bits[..., j]``, with ``scale`` fraction bits; local.

    Parameters
    ----------
    bits : Share
        Shape ``(..., count)``, lowest first, scale 0.
    scale : int

    Raises
    ------
    RangeError
        The sum does not fit the field.
    """
    if not bits.ndim or bits.scale:
        raise ValueError("from_bits takes bits along the last axis, of scale 0")
    field = bits.field
    total: FieldArray = field.zeros(bits.shape[:-1])
    reach = bits.magnitude * ((1 << bits.shape[-1]) - 1)
    whole = Share(field, total, scale, reach, leads=bits.leads)  # refuses what does not fit
    for j in reversed(range(bits.shape[-1])):
        total = field.add(field.add(total, total), bits.values[..., j])
    return Share(field, total, scale, whole.magnitude, leads=bits.leads)


async def argmax(party: Party, x: Share, axis: int = -1) -> tuple[Share, Share]:
    """Find the largest entry along an axis; of several, the first.

    Parameters
    ----------
    party : Party
    x : Share
    axis : int

    Returns
    -------
    index : Share
        Shape of x without the axis; positions from 0, scale 0.
    value : Share
        The entries there, with the scale and the bound of x.

    Raises
    ------
    RangeError
        Before anything is sent: twice the bound of x leaves no room for its mask.
    ValueError
        There is no such axis, or no entry along it.

    Notes
    -----
    Exact. A tournament of neighbours; the winner's position is carried along. Reveals what
    :func:`mpc.less_than` reveals. Cost for m entries: ``ceil(log2(m))`` times the rounds of a comparison of
    numbers with twice the bound and 1 round for the choice; m - 1 comparisons, and about ``2 m``
    elements and triples for the choices, for each entry of the result.
    """
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"argmax: there is no axis {axis} of shape {x.shape}")
    if not x.shape[axis]:
        raise ValueError("argmax: of no entries, none is the largest")
    values = Share(x.field, np.moveaxis(x.values, axis, -1), x.scale, x.magnitude, leads=party.rank == 0)
    index = party.constant(np.arange(x.shape[axis]), field=x.field).broadcast_to(values.shape)
    scope, known = party.at("argmax"), True
    while values.shape[-1] > 1:
        values, index = await _duels(scope.at("duels"), values, index, known)
        known = False
    return index[..., 0], values[..., 0]


async def _duels(party: Party, values: Share, index: Share, known: bool) -> tuple[Share, Share]:
    """Let neighbours along the last axis compete; who is left over goes on."""
    width = values.shape[-1]
    first, second = (..., slice(0, width - 1, 2)), (..., slice(1, width, 2))
    below, lead = await negative_and_masked(party, values[first] - values[second])
    jobs: list[tuple[Share, Share, Operation]] = [(below, lead, "multiply")]
    if not known:  # at first, the second one's position is the first one's and 1
        jobs.append((below, index[second] - index[first], "multiply"))
    steps = await products(party, "choose", jobs)
    winners = _bounded(values[first] - steps[0], values.magnitude)
    places = _bounded(index[first] + (below if known else steps[1]), index.magnitude)
    if width % 2:
        rest = (..., slice(width - 1, width))
        winners, places = _beside(winners, values[rest]), _beside(places, index[rest])
    return winners, places


def _beside(x: Share, y: Share) -> Share:
    values = x.field.zeros((*x.shape[:-1], x.shape[-1] + y.shape[-1]))
    values[..., : x.shape[-1]] = x.values
    values[..., x.shape[-1] :] = y.values
    return Share(x.field, values, x.scale, x.magnitude, leads=x.leads)


def _difference(x: Share | Public, y: Share | Public, operation: str) -> Share:
    difference = x - y
    if not isinstance(difference, Share):
        raise TypeError(f"{operation} takes shares, or a share and public numbers")
    return difference


def _larger(x: Share | Public, y: Share | Public, difference: Share) -> int:
    """Return the larger bound of two operands at the scale of their difference, whose bound is their sum."""
    shared = x if isinstance(x, Share) else y
    if not isinstance(shared, Share):
        raise TypeError("one of two operands is shared")
    one = shared.magnitude << (difference.scale - shared.scale)
    return max(one, difference.magnitude - one)


def _bounded(x: Share, magnitude: int) -> Share:
    """State a bound that follows from what the entries are, where the arithmetic alone gives a wider one."""
    return Share(x.field, x.values, x.scale, magnitude, leads=x.leads)
