"""Products and truncation: one idea, a value that was opened under a mask.

With ``x = d + a`` and ``y = e + b``, where d and e are public and a and b are masks,
``xy = d e + d b + e a + ab`` (Beaver, CRYPTO '91). The preprocessing gives shares of ab. An operand
that was masked before needs no second opening (Turbospeedz: Ben-Efraim, Nielsen, Omri, ACNS 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpc.errors import RangeError
from mpc.masks import Masked, Structure
from mpc.opening import open_flat, unpack
from mpc.preprocessing.answers import all_of
from mpc.share import FRACTION_BITS, Share

if TYPE_CHECKING:
    from mpc.field import FieldArray
    from mpc.masks import Mask
    from mpc.party import Party
    from mpc.preprocessing import Operation

# Bits by which a mask of bounded size is longer than what it hides: an observer who sees masked values
# of two different secrets tells them apart with an advantage of at most 2^-40 for each value opened.
STATISTICAL_SECURITY_BITS = 40


async def multiply(party: Party, x: Share, y: Share) -> Share:
    """Multiply two shared arrays entry by entry.

    Parameters
    ----------
    party : Party
    x, y : Share
        Shapes that broadcast together to ``s``, same field. One that is masked already (by
        :func:`mask` or born so by :func:`truncate`) is not opened again.

    Returns
    -------
    Share
        Shape ``s``, scale ``x.scale + y.scale``, magnitude the product of the magnitudes.

    Raises
    ------
    RangeError
        Before anything is sent, if the product could leave the field's room.

    Notes
    -----
    Beaver, CRYPTO '91. Semi-honest; who may collude is up to the preprocessing. Nothing is revealed:
    what is opened is masked by uniform masks, used once.
    Cost: 1 round (2 above 96 KiB, n >= 3); ``|x| + |y|`` elements opened, less those of masked
    operands (none and no round if both are; ``|x|`` for a square ``multiply(party, x, x)``); ``|s|``
    triples.
    """
    return (await products(party, "multiply", [(x, y, "multiply")]))[0]


async def matmul(party: Party, x: Share, y: Share) -> Share:
    """Multiply two shared matrices, with the shape rules of ``numpy.matmul``.

    Returns
    -------
    Share
        Scale ``x.scale + y.scale``; magnitude: inner length times the product of the magnitudes.

    Raises
    ------
    RangeError
        Before anything is sent, if the product could leave the field's room.

    Notes
    -----
    Beaver's idea with a matrix triple (Mohassel, Zhang, S&P 2017, section 4.2). Semi-honest.
    Cost: 1 round (2 above 96 KiB, n >= 3); ``|x| + |y|`` elements opened, less those of masked
    operands; one matrix triple, counted as rows x inner x columns.
    """
    return (await products(party, "matmul", [(x, y, "matmul")]))[0]


async def products(party: Party, name: str, jobs: Sequence[tuple[Share, Share, Operation]]) -> list[Share]:
    """Compute several products in one round; an operand that occurs twice is opened once."""
    magnitudes = [_product_magnitude(x, y, operation) for x, y, operation in jobs]
    preprocessing = party.preprocessing

    # 1. Every operand that is not masked yet gets a fresh uniform mask, used for nothing else.
    masks: dict[int, Mask] = {}
    fresh: list[Share] = []
    for x, y, _ in jobs:
        for operand in (x, y):
            if operand.masked is None and id(operand) not in masks:
                masks[id(operand)] = await preprocessing.uniform(party, operand.field, operand.shape)
                fresh.append(operand)

    # 2. Ask for the products of masks now, so that they travel while the operands are opened.
    pending = []
    for x, y, operation in jobs:
        a, b = (s.masked.mask if s.masked is not None else masks[id(s)] for s in (x, y))
        pending.append((a.summand, b.summand, await preprocessing.product(party, a, b, operation)))
    summands = [masks[id(s)].summand for s in fresh]
    for used in masks.values():
        used.release()

    # 3. Open d = x - a: uniform, whatever x is.
    offsets = await open_masked(party, name, fresh, summands)
    public = {id(s): offset for s, offset in zip(fresh, offsets, strict=True)}

    # 4. xy = (d + a)(e + b), term by term on our summands.
    results = []
    cost = party.cost_of(name)
    answers = await all_of([answer for *_, answer in pending])
    for (x, y, operation), (a_i, b_i, _), c_i, magnitude in zip(jobs, pending, answers, magnitudes, strict=True):
        d, e = (s.masked.offset if s.masked is not None else public[id(s)] for s in (x, y))
        combine = x.field.beaver if operation == "multiply" else x.field.beaver_matmul
        values = combine(d, e, a_i, b_i, c_i, lead=party.rank == 0)
        inner = x.shape[-1] if operation == "matmul" else 1
        cost.triples += values.size * inner
        results.append(Share(x.field, values, x.scale + y.scale, magnitude, leads=party.rank == 0))
    return results


def _product_magnitude(x: Share, y: Share, operation: Operation) -> int:
    if x.field is not y.field:
        raise TypeError(f"shares over {x.field} and {y.field} do not mix")
    terms = 1
    if operation == "matmul":
        if not x.ndim or not y.ndim or x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
            raise ValueError(f"matmul: shapes {x.shape} and {y.shape} do not fit")
        terms = x.shape[-1]
    else:
        np.broadcast_shapes(x.shape, y.shape)
    magnitude = terms * x.magnitude * y.magnitude
    if magnitude > x.field.half:
        over = f" over {terms} terms" if terms > 1 else ""
        raise RangeError(
            f"{operation}: operands bounded by {x.bound:.3g} (scale {x.scale}) and {y.bound:.3g} (scale {y.scale})"
            f"{over} could give a product beyond {x.field}: truncate an operand first, or declare tighter bounds"
        )
    return magnitude


async def mask(party: Party, x: Share) -> Share:
    """Open a shared array under a fresh mask, once, for all products it will be used in.

    Returns
    -------
    Share
        The same value; products, reshapes, transposes and row slices of it open nothing more of it.

    Notes
    -----
    Turbospeedz (ACNS 2019). Semi-honest; what is opened is uniform. Cost: 1 round; ``|x|`` elements.
    """
    if x.masked is not None:
        return x
    fresh = await party.preprocessing.uniform(party, x.field, x.shape)
    (offset,) = await open_masked(party, "mask", [x], [fresh.summand])
    return Share(x.field, None, x.scale, x.magnitude, leads=party.rank == 0, masked=Masked(offset, fresh))


async def open_masked(
    party: Party, name: str, shares: Sequence[Share], masks: Sequence[FieldArray], *, bounded: bool = False
) -> list[FieldArray]:
    """Open ``x - mask`` for several shares of one or more fields, given our summands of fresh masks.

    Where masks are ``bounded``, they hide x only because x is not larger than it should be. Against malicious parties
    all that was opened before is checked first, because a shift that somebody put into it could have made x larger.
    """
    if bounded:
        await party.verify()
    offsets: list[FieldArray | None] = [None] * len(shares)
    for field in dict.fromkeys(share.field for share in shares):
        which = [k for k, share in enumerate(shares) if share.field is field]
        # The mask's summands are uniform given their sum, so these differences are, too.
        shapes = [shares[k].shape for k in which]
        size = sum(shares[k].size for k in which)
        values, macs = np.empty(size, field.public.dtype), field.mac_array(size)
        for k, part, mac_part in zip(which, unpack(values, shapes), _unpacked(macs, shapes), strict=True):
            (x, x_mac), (r, r_mac) = field.parts(shares[k].values), field.parts(masks[k])
            field.public.sub(x, r, out=part)
            if mac_part is not None and x_mac is not None and r_mac is not None:
                field.public.sub(x_mac, r_mac, out=mac_part)
        opened = await open_flat(party, name, field, values, macs)
        for k, offset in zip(which, unpack(opened, shapes), strict=True):
            offsets[k] = offset
    return [offset for offset in offsets if offset is not None]


def _unpacked(macs: FieldArray | None, shapes: Sequence[tuple[int, ...]]) -> Sequence[FieldArray | None]:
    if macs is None:
        return [None] * len(shapes)
    return unpack(macs, shapes, macs.shape[1:])


async def truncate(party: Party, x: Share, to: int | None = None) -> Share:
    """Drop fraction bits: bring a product back to the default scale.

    Parameters
    ----------
    party : Party
    x : Share
    to : int, optional
        Fraction bits to keep; 24 by default.

    Returns
    -------
    Share
        Scale ``to``; born masked, so that the next product opens nothing of it.

    Raises
    ------
    RangeError
        Before anything is sent, if value and mask together do not fit the field. With ``F127`` and
        three parties there is room for values of 83 bits.

    Notes
    -----
    Opens ``x - r``, where r is a sum of integers that are 40 bits longer than the bound on x, so that
    it tells two values apart with advantage at most 2^-40 an entry (statistical), and returns
    ``round((x - r) / 2^f) + sum_i round(r_i / 2^f)``. Semi-honest.
    Error: with m integers in the mask (n for a dealer, C(n, t) for prss) at most ``(m + 1)/2`` units
    of ``2^-to``; standard deviation ``sqrt((m + 1)/12)``, mean ``(m + 1) 2^-(f+1)`` units, f the bits
    dropped: no bias to speak of, unless a single bit is dropped.
    Sources: Catrina, de Hoogh, SCN 2010; Turbospeedz, ACNS 2019; ABY2.0, USENIX Security 2021.
    Cost: 1 round (2 above 96 KiB, n >= 3); ``|x|`` elements opened; no triple.
    """
    return (await truncate_all(party, [x], to))[0]


async def truncate_all(party: Party, shares: Sequence[Share], to: int | None = None) -> list[Share]:
    """Truncate several arrays in one round; see :func:`truncate`."""
    to = FRACTION_BITS if to is None else to
    if to < 0:
        raise ValueError("truncate() keeps at least 0 fraction bits")
    lifted = [None if x.scale > to else x.lifted(to) for x in shares]
    going = [x for x in shares if x.scale > to]
    for x in going:
        if x.scale - to >= x.field.bits:
            raise RangeError(f"truncate: {x.scale - to} fraction bits are more than {x.field} drops at a time")
    masks = [await bounded_mask(party, x, f"truncate to scale {to}") for x in going]
    shifted = [await party.preprocessing.shifted(party, r, x.scale - to) for x, r in zip(going, masks, strict=True)]
    offsets = await open_masked(party, "truncate", going, [r.summand for r in masks], bounded=True)
    truncated = []
    for x, r, offset in zip(going, shifted, offsets, strict=True):
        shift = Structure("shift", (x.scale - to,))
        magnitude = (x.magnitude >> (x.scale - to)) + r.pieces + 1
        masked = Masked(shift.apply(x.field, offset), r)
        truncated.append(Share(x.field, None, to, magnitude, leads=party.rank == 0, masked=masked))
    results = iter(truncated)
    return [next(results) if x is None else x for x in lifted]


def mask_bits(magnitude: int) -> int:
    """Return the length of a mask's integers: 40 bits more than the range ``[-magnitude, magnitude]``."""
    return (2 * magnitude + 1).bit_length() + STATISTICAL_SECURITY_BITS


async def bounded_mask(party: Party, x: Share, operation: str) -> Mask:
    """Take a mask for ``x - r`` as integers: 40 bits longer than x, and the sum still fits the field."""
    bits = mask_bits(x.magnitude)
    pieces = party.preprocessing.pieces_of(party.size)
    if bits >= x.field.bits or x.magnitude + (pieces << bits) > x.field.half:
        room = (x.field.half // (pieces + 1)).bit_length() - STATISTICAL_SECURITY_BITS - 3
        raise RangeError(
            f"{operation}: a value of {x.magnitude.bit_length()} bits (bounded by {x.bound:.3g} at scale {x.scale}) "
            f"leaves no room for a mask {STATISTICAL_SECURITY_BITS} bits longer in {x.field}, where {max(room, 0)} "
            "bits fit: declare a tighter bound, or truncate earlier"
        )
    return await party.preprocessing.bounded(party, x.field, x.shape, bits)
