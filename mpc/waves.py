"""Sines and cosines of a mask's multiples, shared: the material of functions given as Fourier series.

With shares of ``cos(k w r)`` and ``sin(k w r)`` for a mask r, the opened ``c = x - r`` makes
``sin(k w x) = sin(k w c) cos(k w r) + cos(k w c) sin(k w r)`` a public linear combination. A dealer
computes them in the clear; without one they are products of unit complex numbers, each known to one
party, because the mask is a sum of pieces and ``exp(i w (r + s)) = exp(i w r) exp(i w s)``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mpc._copying import join
from mpc.preprocessing.factors import addends, share_factor, split_first
from mpc.share import Share, concatenate
from mpc.words import W64, signs, unpack_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.field import Field, FieldArray
    from mpc.party import Party
    from mpc.preprocessing import Operation

WAVE_SCALE = 40  # fraction bits of dealt waves


# Taylor coefficients of sin and cos, highest first, for arguments up to pi/8: errors below 2^-56.
_SIN = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(7, -1, -1))
_COS = tuple((-1) ** k / math.factorial(2 * k) for k in range(8, -1, -1))
_QUARTER_PI = 0.7853981633974483
_ROOT_HALF = 0.7071067811865476
_OCTANT_COS = np.array([1, _ROOT_HALF, 0, -_ROOT_HALF, -1, -_ROOT_HALF, 0, _ROOT_HALF])
_OCTANT_SIN = np.array([0, _ROOT_HALF, 1, _ROOT_HALF, 0, -_ROOT_HALF, -1, -_ROOT_HALF])

Waves = tuple["NDArray[np.float64]", "NDArray[np.float64]"]


def unit_powers(residues: NDArray[np.int64], period: int, harmonics: tuple[int, ...]) -> Waves:
    """Return cosine and sine of ``2 pi h residue / period`` for every harmonic, along a new first axis.

    The same bits on every machine: these numbers multiply summands that are random field elements, so
    a difference in the last place between two parties would make the result a random element. Library
    sines, complex products and fused multiply-adds differ between processors; single additions,
    multiplications and divisions of IEEE 754 do not, and numpy does one of them at a time.
    """
    count = len(harmonics)
    cos, sin = np.empty((count, *residues.shape)), np.empty((count, *residues.shape))
    if not harmonics:
        return cos, sin
    cos[0], sin[0] = first = _unit(residues, period, harmonics[0])
    steps = np.diff(harmonics)
    if steps.size and (steps != steps[0]).any():
        for j in range(1, count):
            cos[j], sin[j] = _unit(residues, period, harmonics[j])
    elif steps.size:
        # Evenly spaced: turn all that is there by a power of the step, twice as many each time. Squaring
        # doubles the error of a turn, so that harmonic h is off by up to about 3e-16 h.
        turn = _turned(first, first) if steps[0] == 2 * harmonics[0] else _unit(residues, period, int(steps[0]))
        done = 1
        while done < count:
            more = min(done, count - done)
            new = slice(done, done + more)
            cos[new], sin[new] = _turned((cos[:more], sin[:more]), turn)
            turn = _turned(turn, turn)
            done += more
    return cos, sin


def _turned(x: Waves, y: Waves) -> Waves:
    """Multiply unit complex numbers, part by part."""
    return x[0] * y[0] - x[1] * y[1], x[1] * y[0] + x[0] * y[1]


def _unit(residues: NDArray[np.int64], period: int, h: int) -> Waves:
    """Return cosine and sine of one multiple: the nearest multiple of pi/4, and a polynomial for the rest."""
    eighths = np.asarray(residues * h % period) * 8
    octants = (2 * eighths + period) // (2 * period)
    rest = (eighths - octants * period) / period * _QUARTER_PI
    square = rest * rest
    sin, cos = np.full(rest.shape, _SIN[0]), np.full(rest.shape, _COS[0])
    for coefficient in _SIN[1:]:
        sin = sin * square + coefficient
    for coefficient in _COS[1:]:
        cos = cos * square + coefficient
    sin = sin * rest
    return _turned((cos, sin), (_OCTANT_COS[octants % 8], _OCTANT_SIN[octants % 8]))


def _encoded(field: Field, waves: Waves, scale: int) -> FieldArray:
    """Encode the cosines, then the sines, along a last axis of twice the number of harmonics."""
    return field.encode_fixed(np.moveaxis(np.concatenate(waves, axis=0), 0, -1), scale)


def angles_to_waves(
    field: Field, residues: NDArray[np.int64], period: int, harmonics: tuple[int, ...], scale: int
) -> FieldArray:
    """Encode the waves of known residues; see :meth:`mpc.preprocessing.Preprocessing.waves`."""
    return _encoded(field, unit_powers(residues, period, harmonics), scale)


async def prss_waves(
    party: Party,
    field: Field,
    known: dict[tuple[int, ...], FieldArray],
    *,
    period: int,
    harmonics: tuple[int, ...],
    scale: int,
) -> FieldArray:
    """Make shares of the waves of a replicated mask; see :mod:`mpc.preprocessing.factors`.

    Parameters
    ----------
    party : Party
    field : Field
    known : dict
        The mask's pieces that we know, by the set of parties that knows each.
    period, harmonics, scale
        See :meth:`mpc.preprocessing.Preprocessing.waves`; each of two factors takes half the scale.

    Returns
    -------
    FieldArray
        Our summand.

    Notes
    -----
    Semi-honest, at most t parties collude. Nothing is revealed. Cost for t = 1: 1 round, ``2 K |mask|``
    elements from party 0 to party 2, K the number of harmonics; for more parties t Beaver products of
    complex arrays.
    """
    own = {
        first: unit_powers(field.residue(total, period), period, harmonics)
        for first, total in addends(field, known).items()
    }
    threshold = (party.size - 1) // 2
    shape = (*next(iter(known.values())).shape, len(harmonics))
    scope = party.at("waves")
    if threshold == 1:
        return await _two_factors(scope, field, own, shape, scale)
    return await _many_factors(scope, field, own, shape, scale, threshold + 1)


async def _two_factors(
    party: Party, field: Field, own: dict[int, Waves], shape: tuple[int, ...], scale: int
) -> FieldArray:
    width = shape[-1]
    both = (*shape[:-1], 2 * width)
    mine = _encoded(field, own[0], scale // 2) if party.rank == 0 else None
    half = await split_first(party, field, both, mine)
    if half is None:
        return field.zeros(both)
    # (our half of 0's factor) times (the factor that all others know)
    other = _encoded(field, own[1], scale - scale // 2)
    cos_0, sin_0, cos_1, sin_1 = half[..., :width], half[..., width:], other[..., :width], other[..., width:]
    zero = field.zeros(())
    cos = field.beaver(cos_0, field.neg(sin_0), sin_1, cos_1, zero, lead=False)
    sin = field.beaver(sin_0, cos_0, sin_1, cos_1, zero, lead=False)
    return join([cos, sin], axis=-1)


async def _many_factors(
    party: Party,
    field: Field,
    own: dict[int, Waves],
    shape: tuple[int, ...],
    scale: int,
    count: int,
) -> FieldArray:
    from mpc.arithmetic import products, truncate_all

    half = scale // 2
    both = (*shape[:-1], 2 * shape[-1])

    # 1. Each of the parties 0 to t shares its factor.
    def shared(owner: int) -> tuple[Share, Share]:
        mine = _encoded(field, own[owner], half) if party.rank == owner else None
        factor = share_factor(party, field, both, owner, mine, half, 1 << half)
        return factor[..., : shape[-1]], factor[..., shape[-1] :]

    # 2. Multiply them up; all but the last product are truncated, so that the scale ends at 2 half.
    cos, sin = shared(0)
    for owner in range(1, count):
        c, s = shared(owner)
        jobs: list[tuple[Share, Share, Operation]] = [
            (cos, c, "multiply"),
            (sin, s, "multiply"),
            (sin, c, "multiply"),
            (cos, s, "multiply"),
        ]
        cc, ss, sc, cs = await products(party, "unit product", jobs)
        cos, sin = cc - ss, sc + cs
        if owner < count - 1:
            cos, sin = await truncate_all(party, [cos, sin], half)
    return concatenate([cos, sin], axis=-1).values


async def prss_signs(party: Party, mask: dict[tuple[int, ...], FieldArray], field: Field, count: int) -> FieldArray:
    """Make shares of ``(-1)^bit`` for the first ``count`` bits of a replicated mask of words.

    Notes
    -----
    As :func:`prss_waves`, exact. Cost for t = 1: 1 round, ``count`` elements from party 0 to party 2.
    """
    from mpc.arithmetic import multiply

    own = {first: signs(field, unpack_bits(bits, count)) for first, bits in addends(W64, mask).items()}
    threshold = (party.size - 1) // 2
    scope = party.at("signs")
    if threshold == 1:
        half = await split_first(scope, field, (count,), own[0] if party.rank == 0 else None)
        return field.zeros((count,)) if half is None else field.mul(half, own[1])
    factors = [
        share_factor(scope, field, (count,), owner, own[owner] if party.rank == owner else None, 0, 1)
        for owner in range(threshold + 1)
    ]
    total = factors[0]
    for factor in factors[1:]:
        total = await multiply(scope, total, factor)
    return total.values
