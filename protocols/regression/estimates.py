"""From a fit on shares to what is opened: coefficients and standard errors in the units of the data."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, concatenate, mask, matmul, multiply, open_, truncate
from mpc.normalise import normalise, octave, rescaled, weighted
from mpc.series import evaluate, root_series
from protocols.regression.fit import Fit, Plan
from protocols.regression.standardise import DESIGN_SCALE, MEAN_BITS, Design, OwnColumns

_COEFFICIENT_SCALE = 30
_ROOT_SCALE = 22
_ERROR_SCALE = 24
# One over a standard deviation is shared as an integer of so many bits and a power of 16.
_FACTOR_BITS = 40
# Our inverse is a little above its bound where it was rounded.
_SLACK = 1.05


@dataclass(frozen=True, slots=True)
class Estimates:
    """Opened results in the units of the data.

    Attributes
    ----------
    intercept : float
    coefficients : numpy.ndarray
        Shape (columns,); NaN for constant columns.
    std_err : numpy.ndarray
        Shape (columns + 1,), the intercept first; NaN without an inverse, and for constant columns.
    constant : numpy.ndarray
        Whether a column counts as constant.
    checks : numpy.ndarray
        The fit's checks, opened.
    beside : tuple of numpy.ndarray
        What was opened beside.
    """

    intercept: float
    coefficients: NDArray[np.float64]
    std_err: NDArray[np.float64]
    constant: NDArray[np.bool_]
    checks: NDArray[np.bool_]
    beside: tuple[Any, ...] = ()


async def estimate(
    party: Party,
    design: Design,
    fit: Fit,
    plan: Plan,
    own: OwnColumns | None,
    *,
    to: Collection[int] | None = None,
    beside: Sequence[Share] = (),
) -> Estimates | None:
    """Open coefficients, standard errors, checks, which columns are constant, and what is given; nothing else.

    Parameters
    ----------
    party : Party
    design : Design
    fit : Fit
    plan : Plan
    own : OwnColumns or None
        Where columns are held by parties: ours. Standardised coefficients are then opened to the column's
        owner alone, who tells everybody what they are in the units of the data.
    to : collection of int, optional
        Ranks that learn it; the others get None. Standardised coefficients then go to nobody.
    beside : sequence of Share
        What belongs to the result, too, and goes out in the same opening.

    Notes
    -----
    With ``S = diag(slope)`` and ``z = w_0 + w' (S u - offset)``: coefficients are ``S w``, the intercept
    ``w_0 - offset' w``, variances the diagonal of ``S V S`` and ``(1, -offset)' V (1, -offset)``. All
    products are rounded on shares before they are opened, since an exact product can be factored.
    """
    width = plan.width
    w = fit.coefficients
    slopes = design.slope

    # 1. The intercept, and the coefficients times 2^exponents.
    shift = (await multiply(party, design.offset, w[1:])).sum()
    intercept = await truncate(party, w[0] - shift, _COEFFICIENT_SCALE)
    scaled = w[1:] if slopes is None else await multiply(party, slopes, w[1:])
    coefficients = await truncate(party, scaled, _COEFFICIENT_SCALE)

    # 2. Standard errors, up to public powers of two.
    errors, unit = None, 1.0
    if fit.inverse is not None:
        errors, power = await _errors(party, design, fit.inverse, plan)
        unit = 2.0 ** (power - plan.row_bits / 2)

    # 3. What everybody learns; without slopes the columns' figures go to their owners first.
    opening, units = [intercept, fit.checks, design.constant], -design.exponents
    if slopes is None:
        if own is None:
            raise ValueError("without slopes each party needs its own columns")
        if to is None:
            return await _by_way_of_owners(party, own, opening, coefficients, errors, unit, beside)
        largest = 0.0 if fit.inverse is None else math.sqrt(_SLACK * fit.inverse.bound)
        limit = 1.02 * largest / (unit * 2 ** (plan.row_bits / 2))
        coefficients, errors, powers = await _in_units(party.at("units"), own, coefficients, errors, limit)
        opening += [powers]
    opened = await open_(party, *opening, coefficients, *([] if errors is None else [errors]), *beside, to=to)
    if opened[0] is None:
        return None
    more = tuple(opened[len(opened) - len(beside) :])
    b, checks, constant, *rest = opened
    if slopes is None:
        units, *rest = rest
    values = np.ldexp(rest[0], units)
    std_err = np.full(width, np.nan) if errors is None else rest[1] * unit
    std_err[1:] = np.ldexp(std_err[1:], units)
    return _estimates(b, values, std_err, constant, checks, more)


def _estimates(
    b: Any,
    values: NDArray[Any],
    std_err: NDArray[Any],
    constant: NDArray[Any],
    checks: Any,
    beside: tuple[Any, ...],
) -> Estimates:
    constant = np.asarray(constant, dtype=np.bool_)
    return Estimates(
        float(b),
        np.where(constant, np.nan, values),
        np.where(np.concatenate([[False], constant]), np.nan, std_err),
        constant,
        np.asarray(checks, dtype=np.bool_),
        beside,
    )


async def _errors(party: Party, design: Design, V: Share, plan: Plan) -> tuple[Share, float]:
    """Return standard errors times ``2^(row_bits / 2 - power)`` on shares, and the power.

    Those of the columns are in units of ``2^-exponents``, or standardised where there are no slopes.
    """
    bound = _SLACK * V.bound
    direction, length = await _origin(party, design)

    # 1. Variances: of the intercept along the normalised direction of the data's origin, then the diagonal.
    image = (await matmul(party, V, direction)).bounded_by(bound)
    image = await truncate(party, image, V.scale + 6)
    first = (await multiply(party, direction, image)).sum().bounded_by(bound)
    first = await truncate(party, first.reshape(1), V.scale)
    index = np.arange(1, plan.width)
    variances = concatenate([first, V[index, index]]).bounded_by(bound)

    # 2. Their roots: no variance is below one over the largest eigenvalue (a quarter of it for the first).
    reach = math.floor(math.log2(bound)) + 1
    reach += reach % 2
    octaves = max(2, math.ceil((reach + math.log2(4.5 * plan.largest_eigenvalue)) / 2) + 1)
    top = variances.scale + reach
    octaves = min(octaves, (top + 1) // 2)
    powers = [1 << octaves - 1 - k for k in range(octaves)]
    low = max(0, top - 2 * octaves)
    scaled = await normalise(party.at("variances"), variances, low=low, top=top, width=2, weights=[powers])
    root = await evaluate(party, scaled.t, root_series(), to=_ROOT_SCALE, where=scaled.inside)
    errors = await multiply(party, root, scaled.factors[0])

    # 3. In the units of the data: times the length of the direction, or the slope.
    slopes = party.constant(np.ones(plan.width - 1, np.int64)) if design.slope is None else design.slope
    units = concatenate([length, slopes])
    errors = await truncate(party, await multiply(party, errors, units), _ERROR_SCALE)
    return errors, reach / 2 - (octaves - 1)


async def _origin(party: Party, design: Design) -> tuple[Share, Share]:
    """Split ``(1, -offset)``, the data's origin, into a masked direction, 1/2 to 1 long, and a power of two."""
    one = party.constant(1.0, scale=DESIGN_SCALE, shape=(1,))
    point = concatenate([one, -design.offset])
    coarse = await truncate(party, design.offset, 18)
    squares = (await multiply(party, coarse, coarse)).sum() + 1.0
    top = 2 * MEAN_BITS + design.offset.size.bit_length() + 1
    top += top % 2
    octaves = top // 2 + 1
    low, top_bit = squares.scale + top - 2 * octaves, squares.scale + top
    found = await octave(party.at("origin"), rescaled(squares.reshape(1), 0), low=low, top=top_bit, width=2)
    factor = weighted(found.hit, [1 << k for k in range(octaves)])
    direction = (await multiply(party, point, factor)).scaled_down(top // 2).bounded_by(1.01)
    length = weighted(found.hit, [1 << octaves - 1 - k for k in range(octaves)])
    return await truncate(party, direction, DESIGN_SCALE), length


async def _by_way_of_owners(
    party: Party,
    own: OwnColumns,
    common: list[Share],
    coefficients: Share,
    errors: Share | None,
    unit: float,
    beside: Sequence[Share],
) -> Estimates:
    """Open each column's figures to its owner, who publishes them in the units of the data."""
    opened = await open_(party, *common, *([] if errors is None else [errors[:1]]), *beside)
    counts = own.counts
    ours: list[NDArray[np.float64]] = []
    start = 0
    for owner, count in enumerate(counts):
        part = slice(start, start + count)
        shares = [coefficients[part]] if errors is None else [coefficients[part], errors[1:][part]]
        figures = await open_(party, *shares, to=[owner])
        if owner == party.rank:
            ours = [figures] if errors is None else list(figures)
        start += count
    safe = np.where(own.deviation > 0, own.deviation, 1.0)
    published = await publish(party, [one / safe * (1.0, unit)[k] for k, one in enumerate(ours)], counts)
    values = published[0]
    inner = published[1] if errors is not None else np.full(values.size, np.nan)
    first = opened[3] * unit if errors is not None else [np.nan]
    b, checks, constant = opened[:3]
    more = tuple(opened[len(opened) - len(beside) :])
    return _estimates(b, values, np.concatenate([first, inner]), constant, checks, more)


async def _in_units(
    party: Party, own: OwnColumns, coefficients: Share, errors: Share | None, limit: float
) -> tuple[Share, Share | None, Share]:
    """Bring each column's figures to the units of the data on shares, up to a power of 16 that comes with them.

    Parameters
    ----------
    party : Party
    own : OwnColumns
        A column's owner shares one over its standard deviation, as ``factor * 2^power``.
    coefficients, errors : Share
        Standardised; at the errors the intercept's comes first, and stays as it is.
    limit : float
        Proven bound on the errors.

    Returns
    -------
    coefficients, errors, powers : Share
        Figures are the standardised ones times at least 1 and at most 16, rounded then to ``2^-30`` (errors
        to ``2^-24``); ``2^power`` brings them to the units of the data. Nobody has learnt anything.

    Notes
    -----
    Cost: 4 rounds; ``5 columns`` elements opened.
    """
    # 1. 1/s = K 2^(power - 36) with 2^36 <= K <= 2^40.
    mantissa, exponent = np.frexp(np.where(own.deviation > 0, own.deviation, 1.0))
    power = -4 * ((exponent.astype(np.int64) - 1) // 4)
    factor = np.rint(np.ldexp(1 / mantissa, _FACTOR_BITS - exponent - power)).astype(np.int64)
    shapes: list[tuple[int | None, ...]] = [(count,) for count in own.counts]
    factors = await mask(party, concatenate(await party.share(factor, bound=1 << _FACTOR_BITS, shape=shapes)))
    powers = concatenate(await party.share(power - 4, bound=1 << 12, shape=shapes))

    # 2. Rounded on shares: an exact product could be factored.
    scaled = (await multiply(party, coefficients, factors)).scaled_down(_FACTOR_BITS - 4)
    values = await truncate(party, scaled, coefficients.scale)
    if errors is None:
        return values, None, powers
    scaled = (await multiply(party, errors[1:].bounded_by(limit), factors)).scaled_down(_FACTOR_BITS - 4)
    return values, concatenate([errors[:1], await truncate(party, scaled, errors.scale)]), powers


async def publish(
    party: Party, arrays: Sequence[NDArray[np.float64]], counts: Sequence[int]
) -> list[NDArray[np.float64]]:
    """Tell everybody our numbers and learn theirs, so many of each party, exactly; joined in rank order.

    Cost: 2 rounds; two elements a number.
    """
    stacked = np.stack([np.asarray(array, np.float64) for array in arrays])
    mantissas, exponents = np.frexp(stacked)
    integers = np.stack([np.ldexp(mantissas, 53).astype(np.int64), exponents.astype(np.int64)])
    shapes: list[tuple[int | None, ...]] = [(2, len(arrays), count) for count in counts]
    shares = await party.share(integers, bound=1 << 53, shape=shapes)
    whole, powers = await open_(party, concatenate(shares, axis=2))
    return list(np.ldexp(whole.astype(np.float64), powers.astype(np.int64) - 53))
