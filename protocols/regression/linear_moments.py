"""From the rows or columns that parties bring to the standardised second moments of a linear regression, on shares."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, mask, matmul, multiply, open_, stack, truncate
from mpc.arithmetic import products
from mpc.normalise import rescaled
from protocols.magnitudes import agree_exponents, exponents_of
from protocols.pools.blocks import Spread, Total, scaled
from protocols.pools.moments import COVARIANCE_SCALE, MEAN_SCALE, Moments
from protocols.regression.glm import cells, column_sizes, presence, row_exponents, row_sizes
from protocols.regression.least_squares import SPREAD_BITS, Standard, exactly, standardise_moments
from protocols.regression.sample import Sample
from protocols.release.disclosure import Release
from protocols.shares import sum_of

NAME = "linear_regression"
_CENTRE_SCALE = 38
_ROOT_SCALE = 38
_OWNED_SCALE = 56
_WEIGHT_SCALE = 40
_FIGURE_SCALE = 60
# With columns: means are at most 1000 standard deviations from 0. On complete rows a column's standard deviation may be
# so much smaller than on all that its owner has: 2^9 times, less a factor for the rows that are left out.
_FARTHEST = 1000.0
_COLUMN_SPREAD_BITS = (8, 9)
_ROOM_BITS = 78
_MOST_ROW_BITS = 24


class Prepared(NamedTuple):
    """What a fit takes.

    Attributes
    ----------
    standard : Standard
    n : int
        Complete rows.
    weight : float
        Sum of their weights.
    log_weights : Share or None
        Shape (1,): sum of the logarithms of weights, where there are any.
    missing : dict of str to int or None
    least : str
        In words, which spread is so small that a column counts as constant.
    """

    standard: Standard
    n: int
    weight: float
    log_weights: Share | None
    missing: dict[str, int | None]
    least: str


def _enough(party: Party, n: int, columns: int) -> int:
    """Return how many rows there are, if these are enough; a rehearsal does not know, and takes any number."""
    if party.rehearsing:
        return columns + 2
    if n < 1:
        raise DataError(f"{NAME}: no party has a complete row")
    if n <= columns + 1:
        raise DataError(f"{NAME}: {n} complete rows are too few for {columns} columns and an intercept")
    return n


async def from_rows(party: Party, ours: Sample, release: Release, y_bound: float | None) -> Prepared:
    """Bring the rows of all parties to standardised moments."""
    n, missed = await row_sizes(party.at("sizes"), NAME, ours, release, columns=len(ours.names))
    n = _enough(party, n, len(ours.names))
    await cells(party.at("disclosure"), NAME, ours, release)
    exponents = await row_exponents(party.at("bounds"), ours.coded)
    if y_bound is None or "offset" in ours.vectors:
        largest = max((float(np.abs(y).max(initial=0.0)) for _, y, _ in _blocks(ours)), default=0.0)
        unit = await agree_exponents(party.at("y bounds"), np.array([[largest]]))
    else:
        unit = exponents_of(np.array([y_bound]))
    exponents = np.concatenate([exponents, unit])
    total, logs, step = float(n), None, None
    if "weights" in ours.vectors:
        total, logs, step = await _weights(party.at("weights"), ours)
    spread = Spread(1, len(exponents))
    if not party.rehearsing:  # then neither units nor the sum of weights are known
        for X, y, weights in _blocks(ours):
            turned = np.empty((len(exponents), len(y)))
            turned[:-1], turned[-1] = X.T, y
            spread.add(
                scaled(turned, exponents), weights=None if weights is None or step is None else _on_grid(weights, step)
            )
    moments = await weighted_moments(party.at("moments"), spread, total, exponents)
    standard = await standardise_moments(party.at("standardise"), moments)
    return Prepared(standard, n, total, logs, missed, f"below 2^-{SPREAD_BITS} of its bound")


def _blocks(
    ours: Sample,
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]]:
    """Go through our complete rows, a block at a time: X, y less the offset, and weights."""
    vectors = ours.vectors
    for rows in ours.coded.blocks():
        outcome = vectors["y"].block(rows)
        if "offset" in vectors:
            outcome = outcome - vectors["offset"].block(rows)
        yield ours.coded.block(rows), outcome, vectors["weights"].block(rows) if "weights" in vectors else None


def _on_grid(weights: NDArray[np.float64], exponent: int) -> NDArray[np.float64]:
    """Round weights that are at most ``2^exponent`` to the grid on which their sum is shared."""
    return np.ldexp(np.rint(np.ldexp(weights, _WEIGHT_SCALE - exponent)), exponent - _WEIGHT_SCALE)


async def _weights(party: Party, ours: Sample) -> tuple[float, Share, int]:
    """Open the sum of all weights, and share that of their logarithms (of those above 0); say what they are at most."""
    largest, sums, logs = 0.0, Total((1,)), Total((1,))
    for _, _, weights in _blocks(ours):
        if weights is not None and len(weights):
            largest = max(largest, float(weights.max()))
            logs.add(np.log(np.where(weights > 0, weights, 1.0)).sum(keepdims=True))
    (exponent,) = (await agree_exponents(party, np.array([[largest]]))).tolist()
    held = np.zeros(1)
    if party.rehearsing:
        exponent = 0
    else:
        for _, _, weights in _blocks(ours):
            if weights is not None:
                sums.add(np.ldexp(_on_grid(weights, exponent), -exponent).sum(keepdims=True))
        held = sums.value
    added = sum_of(await party.share(held, bound=2.0**32, scale=_WEIGHT_SCALE, shape=(1,)))
    shared = sum_of(await party.share(logs.value, bound=2.0**42, scale=_WEIGHT_SCALE, shape=(1,)))
    total = float(np.asarray(await open_(party, added))[0]) or float(party.rehearsing)
    if not total > 0:
        raise DataError(f"{NAME}: the weights of all parties are 0")
    return math.ldexp(total, exponent), shared, exponent


async def weighted_moments(party: Party, ours: Spread, total: float, exponents: NDArray[np.int64]) -> Moments:
    """Compute weighted moments of rows that are held by different parties.

    Parameters
    ----------
    party : Party
        A scope of its own.
    ours : Spread
        Our rows with their weights, one group; at most 1 in size.
    total : float
        Public: the sum of the weights of all parties.
    exponents : numpy.ndarray

    Notes
    -----
    As :func:`protocols.pools.moments.row_moments`, of one group. Sums of products are positive semidefinite but for
    ``2^-53`` of them and ``2^-68``, whatever the rounding before. Nothing is revealed. Cost with n parties: 7 rounds;
    ``n + n d + d + n d + d^2`` elements.
    """
    d = len(exponents)
    mean = np.rint(np.ldexp(ours.means[0], _CENTRE_SCALE)) * 2.0**-_CENTRE_SCALE
    scatter, sums = ours.around(mean[np.newaxis])[0] / total, ours.sums[0] / total
    part = float(ours.weight[0]) / total
    root = float(np.rint(np.ldexp(math.sqrt(part), _ROOT_SCALE))) * 2.0**-_ROOT_SCALE

    # 1. Sums of what each party knows; sqrt(w) and sqrt(w) m, with w a party's part of all weights.
    means = sum_of(await party.share(sums, bound=1.001, scale=MEAN_SCALE, shape=(d,))).bounded_by(1.001)
    within = sum_of(await party.share(scatter, bound=4.0, scale=2 * _CENTRE_SCALE, shape=(d, d)))
    centre = sum_of(await party.share(part * mean, bound=1.001, scale=_CENTRE_SCALE, shape=(d,))).bounded_by(1.001)
    roots = stack(await party.share(np.array([root]), bound=1.001, scale=_ROOT_SCALE, shape=(1,)))
    owned = stack(await party.share(root * mean, bound=1.001, scale=_OWNED_SCALE, shape=(d,)))

    # 2. Between parties.
    product = await multiply(party, roots, centre.reshape(1, d))
    apart = (owned.lifted(_ROOT_SCALE + _CENTRE_SCALE) - product).bounded_by(2.01)
    deviations = await truncate(party, apart, _CENTRE_SCALE)
    (between,) = await products(party, "between", [(deviations.T, deviations, "matmul")])
    covariance = (between.bounded_by(1.01) + within).bounded_by(1.02)
    covariance = await truncate(party, covariance.reshape(1, d, d), COVARIANCE_SCALE)
    return Moments(np.array([1]), means.reshape(1, d), covariance, exponents)


# ---- columns ------------------------------------------------------------------------------------


async def from_columns(party: Party, ours: Sample, release: Release) -> Prepared:
    """Bring columns of the same rows to standardised moments: each party scales its own in the clear."""
    rows, kept, giver = ours.rows, ours.present, ours.givers["y"]
    if rows > 1 << _MOST_ROW_BITS:
        raise ValueError(f"with partition='columns' there are at most 2^{_MOST_ROW_BITS} rows")
    if ours.givers.get("offset", giver) != giver:
        raise DataError(f"{NAME}: with partition='columns' who gives y gives the offset")
    weight = await presence(party.at("presence"), ours)
    n, missed = await column_sizes(party.at("sizes"), NAME, ours, weight, release)
    n = _enough(party, n, len(ours.names))

    # 1. In the clear: our columns, less their means, with a standard deviation from 1/2 to 1.
    row_bits = (rows - 1).bit_length()
    scale = min(30, (_ROOM_BITS - 2 - row_bits) // 2)
    own = _Own.of(ours.coded.X, kept, party.rank, "X")
    outcome = None
    if giver == party.rank:
        values = ours.vectors["y"].values
        if "offset" in ours.vectors:
            values = values - ours.vectors["offset"].values
        outcome = _Own.of(values[:, np.newaxis], kept, party.rank, "y")
    scope = party.at("columns")
    shapes: list[tuple[int | None, ...]] = [(count,) for count in ours.columns]
    values = await scope.share(own.values, bound=_reach(rows), scale=scale, shape=[(rows, k) for k in ours.columns])
    centres = await scope.share(own.centre, bound=_FARTHEST + 1.0, scale=_FIGURE_SCALE, shape=shapes)
    powers = await scope.share(own.power, bound=1 << 12, shape=shapes)
    last = _Own(None, None, None) if outcome is None else outcome
    values.append(await scope.share(last.values, bound=_reach(rows), owner=giver, shape=(rows, 1), scale=scale))
    centres.append(await scope.share(last.centre, bound=_FARTHEST + 1.0, owner=giver, shape=(1,), scale=_FIGURE_SCALE))
    powers.append(await scope.share(last.power, bound=1 << 12, owner=giver, shape=(1,)))

    # 2. On shares: moments of complete rows, in units of 2^unit.
    unit = 0 if weight is None else 1
    if not party.rehearsing:
        unit = max(unit, math.ceil(math.log2(rows / n) / 2))
    moments = await _moments(party.at("moments"), concatenate(values, axis=1), weight, n, row_bits, unit)
    mean = rescaled(concatenate(centres).reshape(1, -1), _FIGURE_SCALE + unit) + moments.mean
    moments = Moments(moments.n, mean, moments.covariance, moments.exponents)
    bits = _COLUMN_SPREAD_BITS[weight is not None]
    found = await standardise_moments(party.at("standardise"), moments, spread_bits=bits)
    power = concatenate(powers) + found.power - unit
    standard = Standard(found.cross, found.centre, power, found.constant, np.zeros(len(ours.names) + 1, np.int64))
    least = f"in complete rows below 2^-{max(bits - unit - 1, 0)} of that in all rows where its party has a value"
    return Prepared(standard, n, float(n), None, missed, least)


@dataclass(frozen=True, slots=True)
class _Own:
    """Our columns: centred and scaled by powers of two, means in the same units, and the powers."""

    values: NDArray[np.float64] | None
    centre: NDArray[np.float64] | None
    power: NDArray[np.int64] | None

    @classmethod
    def of(cls, X: NDArray[np.float64], kept: NDArray[np.bool_], rank: int, what: str) -> _Own:
        used = X[kept]
        mean = used.mean(axis=0) if len(used) else np.zeros(X.shape[1])
        spread = used.std(axis=0) if len(used) else np.zeros(X.shape[1])
        spread = np.where(spread > 2.0**-40 * np.abs(used).max(axis=0, initial=0.0), spread, 0.0)
        far = (spread > 0) & (np.abs(mean) > _FARTHEST * spread)
        if far.any():
            named = ", ".join(str(j) for j in np.flatnonzero(far)[:10])
            raise DataError(
                f"party {rank}: the mean of column {named} of {what} is more than {_FARTHEST:g} standard "
                "deviations from 0; subtract a round number from the column first"
            )
        power = np.where(spread > 0, -np.frexp(np.where(spread > 0, spread, 1.0))[1], 0).astype(np.int64)
        values = np.where(kept[:, np.newaxis] & (spread > 0), np.ldexp(X - mean, power), 0.0)
        reach = _reach(len(X))
        return cls(np.clip(values, -reach, reach), np.where(spread > 0, np.ldexp(mean, power), 0.0), power)


def _reach(rows: int) -> float:
    """Bound on entries that are at most so many root mean squares of 1 from 0."""
    return 1.01 * math.sqrt(max(1, rows))


async def _moments(party: Party, data: Share, weight: Share | None, n: int, row_bits: int, unit: int) -> Moments:
    """Compute moments of the rows that count, of columns with a mean square of at most 1 over all rows.

    Notes
    -----
    Nothing is revealed. Error: about ``2^-37`` of a column's variance over all rows. Cost: 5 rounds, ``rows (k + 1)``
    elements for k columns; with a weight ``rows (k + 2)`` more.
    """
    rows, k = data.shape
    ones = party.constant(1.0, scale=data.scale, shape=(rows, 1))
    A = await mask(party, concatenate([ones, data], axis=1))
    counted = A if weight is None else await multiply(party, A, weight.reshape(rows, 1))
    sums = (await matmul(party, A.T, counted)).bounded_by(1.03 * 2**row_bits)
    short = await truncate(party, sums.scaled_down(row_bits), _CENTRE_SCALE)

    # Divide by n: means of products, at most rows / n; then centre.
    bits = _CENTRE_SCALE - 2 * unit
    factor = round(Fraction(1 << bits + row_bits, max(n, 1)))
    products_ = exactly((short * np.array(factor)).scaled_down(bits), 1.03 * 4.0**unit)
    products_ = await truncate(party, products_, _CENTRE_SCALE - unit)
    mean = products_[0, 1:].bounded_by(1.03 * 2.0**unit)
    squares = await multiply(party, mean.reshape(k, 1), mean.reshape(1, k))
    covariance = products_[1:, 1:].lifted(squares.scale) - squares
    covariance = rescaled(covariance, squares.scale + 2 * unit).bounded_by(1.02)
    covariance = await truncate(party, covariance.reshape(1, k, k), COVARIANCE_SCALE)
    mean = rescaled(mean.reshape(1, k), mean.scale + unit)
    return Moments(np.array([n]), mean, covariance, np.full(k, unit))
