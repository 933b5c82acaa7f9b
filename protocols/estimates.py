"""From a fit on shares to what is opened: coefficients and standard errors in the units of the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, concatenate, matmul, multiply, open_, truncate
from protocols.fit import Fit, Plan
from protocols.roots import evaluate, normalise, root_series
from protocols.standardise import DESIGN_SCALE, MEAN_BITS, Design, OwnColumns

_COEFFICIENT_SCALE = 30
_ROOT_SCALE = 22
_ERROR_SCALE = 24
# Our inverse is a little above its bound where it was rounded.
_SLACK = 1.05


@dataclass(frozen=True, slots=True)
class Estimates:
    """Opened results in the units of the data.

    Attributes
    ----------
    intercept : float
    coefficients : numpy.ndarray
        Shape (columns,).
    std_err : numpy.ndarray
        Shape (columns + 1,), the intercept first; NaN without an inverse, and for constant columns.
    constant : numpy.ndarray
        Whether a column counts as constant.
    checks : numpy.ndarray
        The fit's checks, opened.
    """

    intercept: float
    coefficients: NDArray[np.float64]
    std_err: NDArray[np.float64]
    constant: NDArray[np.bool_]
    checks: NDArray[np.bool_]


async def estimate(party: Party, design: Design, fit: Fit, plan: Plan, own: OwnColumns | None) -> Estimates:
    """Open coefficients, standard errors, checks and which columns are constant; nothing else.

    Parameters
    ----------
    party : Party
    design : Design
    fit : Fit
    plan : Plan
    own : OwnColumns or None
        Where columns are held by parties: ours. Standardised coefficients are then opened to the column's
        owner alone, who tells everybody what they are in the units of the data.

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
    opening = [intercept, fit.checks, design.constant]
    if slopes is not None:
        opening += [coefficients] if errors is None else [coefficients, errors]
    elif errors is not None:
        opening += [errors[:1]]
    opened = await open_(party, *opening)
    b, checks, constant = opened[:3]
    if slopes is not None:
        values = np.ldexp(opened[3], -design.exponents)
        std_err = np.full(width, np.nan) if errors is None else opened[4] * unit
        std_err[1:] = np.ldexp(std_err[1:], -design.exponents)
    else:
        if own is None:
            raise ValueError("without slopes each party needs its own columns")
        values, inner = await _by_owners(party, own, coefficients, None if errors is None else errors[1:], unit)
        std_err = np.concatenate([[np.nan] if errors is None else opened[3] * unit, inner])
    constant = np.asarray(constant, dtype=np.bool_)
    return Estimates(
        float(b),
        np.where(constant, 0.0, values),
        np.where(np.concatenate([[False], constant]), np.nan, std_err),
        constant,
        np.asarray(checks, dtype=np.bool_),
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
    reach = math.ceil(math.log2(bound))
    reach += reach % 2
    octaves = max(2, math.ceil((reach + math.log2(4.5 * plan.largest_eigenvalue)) / 2) + 1)
    scaled = await normalise(party.at("variances"), variances, top=reach, octaves=octaves, width=2)
    root = await evaluate(party, scaled.mantissa, root_series(), to=_ROOT_SCALE)
    errors = await multiply(party, root, scaled.cofactor)

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
    found = await normalise(party.at("origin"), squares.reshape(1), top=top, octaves=top // 2 + 1, width=2)
    direction = (await multiply(party, point, found.factor)).scaled_down(top // 2).bounded_by(1.01)
    return await truncate(party, direction, DESIGN_SCALE), found.cofactor


async def _by_owners(
    party: Party, own: OwnColumns, coefficients: Share, errors: Share | None, unit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Open each column's figures to its owner, who publishes them in the units of the data."""
    counts = own.counts
    ours: list[NDArray[np.float64]] = []
    start = 0
    for owner, count in enumerate(counts):
        part = slice(start, start + count)
        shares = [coefficients[part]] if errors is None else [coefficients[part], errors[part]]
        opened = await open_(party, *shares, to=[owner])
        if owner == party.rank:
            ours = [opened] if errors is None else list(opened)
        start += count
    safe = np.where(own.deviation > 0, own.deviation, 1.0)
    units = (1.0, unit)
    published = await publish(party, [figures / safe * units[k] for k, figures in enumerate(ours)])
    values = published[0]
    return values, published[1] if errors is not None else np.full(values.size, np.nan)


async def publish(party: Party, arrays: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Tell everybody our numbers and learn theirs, exactly; joined in rank order.

    Cost: 2 rounds; two elements a number.
    """
    stacked = np.stack([np.asarray(array, np.float64) for array in arrays])
    mantissas, exponents = np.frexp(stacked)
    integers = np.stack([np.ldexp(mantissas, 53).astype(np.int64), exponents.astype(np.int64)])
    shares = await party.share(integers, bound=1 << 53)
    whole, powers = await open_(party, concatenate(shares, axis=2))
    return list(np.ldexp(whole.astype(np.float64), powers.astype(np.int64) - 53))
