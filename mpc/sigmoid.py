"""The logistic function and its integral on shares, in one opening each: Fourier series under a mask."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from mpc._copying import copy_into
from mpc.arithmetic import bounded_mask, open_masked
from mpc.errors import RangeError, SecurityError
from mpc.masks import Structure
from mpc.share import Share
from mpc.waves import WAVE_SCALE, unit_powers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpc.party import Party

_ANGLE_BITS = 31  # an angle is an integer below 2^31
_ANGLE_SCALE = 24  # fraction bits of the argument that angles are computed from: as many as fit, at most these
# Below an error of 2e-5 waves and coefficients take more bits: 48 and 24 in place of 40 and 20.
_COARSE_ERROR = 2e-5
LEAST_ERROR = 1e-6
_FAR_LIMIT, _LEAST_FAR_ERROR = 100.0, 5e-6
_PI = Decimal("3.141592653589793238462643383279502884197169")
_BLOCK = 2048  # entries evaluated at a time, so that memory stays flat
LARGEST_LIMIT = 900.0


async def sigmoid(
    party: Party,
    x: Share,
    *,
    limit: float = 22.0,
    error: float = 1e-4,
    bias: float | None = None,
    allow_beyond: bool = False,
) -> Share:
    """Evaluate ``1 / (1 + exp(-x))`` on a shared array.

    Parameters
    ----------
    party : Party
    x : Share
        Any scale; its public bound must be at most ``limit`` (see :meth:`mpc.share.Share.bounded_by`).
    limit : float
        Range of the argument in which the result is right, at most 900. The material for one entry
        grows with it: 32 elements at 22, 70 at 60.
    error : float
        Largest error for ``|x| <= limit``, from 1e-6 up (5e-6 where the limit is above 100; 2e-6 with
        ``prss`` among seven parties, whose masks are sums of 35 rounded pieces). At 1e-6 it is 0.42e-6 of the series
        and rounding with a standard deviation of 0.14e-6: about one entry in 10^7 is off by more, by less than 1.4e-6.
    bias : float, optional
        Largest error of the series itself, from 1e-9 up: the part that is the same function of x in every entry, so
        that sums over many entries keep it, while rounding averages out. By default as much as the error admits.
    allow_beyond : bool
        Take arguments whose public bound is above the limit. Where the value itself is above it, too,
        the result is some number between 0 and 1: the caller must check the range by other means.

    Returns
    -------
    Share
        Scale 60 (72 for errors below 2e-5), between ``-error`` and ``1 + error``.

    Raises
    ------
    RangeError
        Before anything is sent: the bound on x is above the limit, or x leaves no room for its mask.
    SecurityError
        Before anything is sent: parties may cheat, and the preprocessing is ``"ot"``.

    Notes
    -----
    A series of odd harmonics of period ``2 (limit + 10)``. Opens ``x - r`` once, where r is 40 bits
    longer than x (statistical, 2^-40 an entry); the rest is a public linear combination of shared
    sines and cosines of r. Semi-honest. Sources: Zheng, Zhang, Chow, Peng, Tan,
    Li, Yin, "Secure Softmax/Sigmoid for Machine-learning Computation", ACSAC 2023 (a sigmoid as a
    Fourier series under a mask); :mod:`mpc.waves` for the material.
    Cost: 1 round (2 above 96 KiB, n >= 3); ``|x|`` elements opened; ``|x|`` waves of the
    preprocessing, which take ``2 t - 1`` rounds more with ``prss`` and t possible colluders.
    """
    _check(x, limit, error, allow_beyond, "sigmoid")
    bias = error if bias is None else bias
    if not 1e-9 <= bias <= error:
        raise ValueError("bias goes from 1e-9 to the error")
    half_period, coefficients = series(limit, bias)

    def factors(cos: NDArray[np.float64], sin: NDArray[np.float64]) -> NDArray[np.float64]:
        # sin(k w (c + r)) = sin(k w c) cos(k w r) + cos(k w c) sin(k w r)
        return np.concatenate([sin, cos], axis=0)

    odd_part = await _combined(party, "sigmoid", x, half_period, coefficients, error, factors, 0.5 + error)
    return odd_part + 0.5


async def softplus(party: Party, x: Share, *, limit: float = 22.0, error: float = 1e-6) -> Share:
    """Evaluate ``log(1 + exp(x))`` on a shared array: what a logistic log-likelihood is made of.

    Parameters
    ----------
    party : Party
    x : Share
        Any scale of at most 60; its public bound must be at most ``limit``.
    limit, error
        See :func:`sigmoid`; the limit is at most 100.

    Returns
    -------
    Share
        Scale 60 (72 for errors below 2e-5), between ``-error`` and ``limit + 1``.

    Raises
    ------
    RangeError
        Before anything is sent: the bound on x is above the limit, or x leaves no room for its mask.
    SecurityError
        Before anything is sent: parties may cheat, and the preprocessing is ``"ot"``.

    Notes
    -----
    ``log(1 + exp(x)) = x / 2 + log(2 cosh(x / 2))``, and the second term is the integral of :func:`sigmoid`'s odd
    series: a series of cosines of the same waves. It is off by at most the error (terms left out are integrated,
    hence smaller, and their sum is in the constant), and rounding: with 72 fraction bits and a limit of 22 about 2e-7
    (root mean square; 5e-7 with ``prss`` among five parties), at a limit of 60 twice that; it has another sign in every
    entry, so that sums are better.
    Opened values, threat model, cost: those of :func:`sigmoid`.
    """
    if limit > _FAR_LIMIT:
        raise ValueError(f"softplus takes a limit of at most {_FAR_LIMIT:g}")
    _check(x, limit, error, False, "softplus")
    half_period, _ = series(limit, error)
    constant, coefficients = integrated_series(limit, error)

    def factors(cos: NDArray[np.float64], sin: NDArray[np.float64]) -> NDArray[np.float64]:
        # cos(k w (c + r)) = cos(k w c) cos(k w r) - sin(k w c) sin(k w r)
        return np.concatenate([cos, -sin], axis=0)

    waves = await _combined(party, "softplus", x, half_period, coefficients, error, factors, half_period / 3)
    half = x.lifted(waves.scale - 1).scaled_down(1)
    return (half + constant - waves).bounded_by(limit + 1)


def _check(x: Share, limit: float, error: float, allow_beyond: bool, what: str) -> None:
    """Refuse a range, an error or an argument that the series is not meant for."""
    if not 0 < limit <= LARGEST_LIMIT:
        raise ValueError(f"limit is positive and at most {LARGEST_LIMIT:g}")
    least = LEAST_ERROR if limit <= _FAR_LIMIT else _LEAST_FAR_ERROR
    if not least <= error < 0.1:
        raise ValueError(f"error goes from {least:g} to 0.1 with a limit of {limit:g}")
    if x.bound > limit and not allow_beyond:
        raise RangeError(
            f"{what}: the argument is bounded by {x.bound:.3g}, above the limit of {limit:g}: "
            "state a tighter bound with bounded_by(), or widen limit"
        )


Factors = Callable[["NDArray[np.float64]", "NDArray[np.float64]"], "NDArray[np.float64]"]


async def _combined(
    party: Party,
    name: str,
    x: Share,
    half_period: int,
    coefficients: NDArray[np.float64],
    error: float,
    factors: Factors,
    bound: float,
) -> Share:
    """Evaluate a series of odd harmonics: open x under a mask, combine shared waves of the mask.

    ``factors(cos, sin)`` gives, from those of what was opened, what cosines and then sines of the mask are
    multiplied by.
    """
    if party.guard is not None and not party.guard.has_waves:
        raise SecurityError(
            f"{name} does not run with security='malicious' and preprocessing='ot', which has no waves of masks: "
            "use preprocessing='dealer'"
        )
    field = x.field
    harmonics = tuple(range(1, 2 * len(coefficients), 2))
    angle_scale = min(_ANGLE_SCALE, _ANGLE_BITS - (2 * half_period).bit_length())
    period = 2 * half_period << angle_scale
    wave_scale, factor_scale = (WAVE_SCALE, WAVE_SCALE // 2) if error >= _COARSE_ERROR else (48, 24)
    if x.scale < angle_scale:
        x = x.lifted(angle_scale)
    shift = Structure("shift", (x.scale - angle_scale,))

    # 1. The mask, brought to the scale of angles, and its waves.
    mask = await bounded_mask(party, x, name)
    angle_mask = mask
    if x.scale > angle_scale:
        angle_mask = await party.preprocessing.shifted(party, mask, x.scale - angle_scale)
    answer = await party.preprocessing.waves(party, angle_mask, period=period, harmonics=harmonics, scale=wave_scale)

    # 2. Open c = x - r: it hides x, because r is 40 bits longer.
    (offset,) = await open_masked(party, name, [x], [mask.summand], bounded=True)
    residues = field.residue(shift.apply(field, offset), period).reshape(-1)

    # 3. A wave of c + r is linear in what is shared.
    waves = (await answer).reshape(-1, 2 * len(harmonics))
    values = field.zeros(residues.shape)
    scaled = np.ldexp(coefficients, factor_scale)[:, np.newaxis]
    for start in range(0, residues.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        cos, sin = unit_powers(residues[part], period, harmonics)
        public = factors(cos * scaled, sin * scaled)
        integers = np.rint(public, out=public).T.astype(np.int64, order="C")
        copy_into(values[part], field.dot_int(waves[part], integers))
    magnitude = math.ceil(bound * 2 ** (wave_scale + factor_scale))
    return Share(field, values.reshape(x.shape), wave_scale + factor_scale, magnitude, leads=party.rank == 0)


@lru_cache(maxsize=16)
def series(limit: float, error: float) -> tuple[int, NDArray[np.float64]]:
    """Return half the period (an integer) and the coefficients of the odd harmonics.

    The function ``sum_m (-1)^m tanh((x - m h) / 2) / 2`` of half period h follows ``sigmoid - 1/2`` up to
    ``exp(-(h - |x|))``, stays within (-1/2, 1/2) everywhere, and has the coefficients ``(2 pi / h) /
    sinh(k pi^2 / h)`` for odd k. Six tenths of the error go to the neighbours, the rest to the terms
    left out. Decimal arithmetic gives the same numbers on every machine; see :mod:`mpc.waves` for why
    they must be the same.
    """
    with localcontext(Context(prec=40)):
        allowed = Decimal(error)
        half_period = int((Decimal(limit) - (Decimal("0.6") * allowed).ln()).to_integral_value(ROUND_CEILING))
        exponent = _PI * _PI / half_period

        def coefficient(k: int) -> Decimal:
            return 4 * _PI / half_period / ((k * exponent).exp() - (-k * exponent).exp())

        count = 1
        while coefficient(2 * count + 1) / (1 - (-2 * exponent).exp()) > Decimal("0.35") * allowed:
            count += 1
        return half_period, np.array([float(coefficient(k)) for k in range(1, 2 * count, 2)])


@lru_cache(maxsize=16)
def integrated_series(limit: float, error: float) -> tuple[float, NDArray[np.float64]]:
    """Return the constant and the coefficients of the cosines that are taken off it, for ``log(2 cosh(x / 2))``.

    The integral of :func:`series` from 0 is ``sum_k d_k (1 - cos(k pi x / h))`` with ``d_k = c_k h / (k pi)``; the
    constant is log(2) and the sum of all d_k, also of those whose cosines are left out.
    """
    half_period, coefficients = series(limit, error)
    with localcontext(Context(prec=40)):
        exponent = _PI * _PI / half_period

        def integrated(k: int) -> Decimal:
            return 4 / ((k * exponent).exp() - (-k * exponent).exp()) / k

        terms = [integrated(k) for k in range(1, 2 * len(coefficients), 2)]
        total, k = sum(terms, Decimal(2).ln()), 2 * len(coefficients) + 1
        while (term := integrated(k)) > Decimal("1e-20"):
            total += term
            k += 2
        return float(total), np.array([float(term) for term in terms])
