"""Finding a quantile by asking on which side of public numbers it lies; the rows stay where they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import Party, Share, is_negative, less_than, multiply, open_, stack
from mpc.logic import maximum
from mpc.tasks import side_by_side
from protocols.comparisons.rank_sums import whole_bound
from protocols.pools.pool import INPUT_SCALE
from protocols.pools.row_pool import RowPool, total
from protocols.release.steps import stated

# A quantile between two rows: the weight of the upper one, in units of 2^-30.
_WEIGHT_BITS = 30
# A search asks about 2^7 - 1 numbers at a time; of many quantiles at once, about fewer.
_STEP_BITS, _SHORT_STEP_BITS = 7, 4
_MANY = 24


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which rows quantiles lie at, for each group and quantile.

    Attributes
    ----------
    lower : numpy.ndarray
        Shape (groups, k): how many rows are before the one at or below the quantile.
    weights : numpy.ndarray
        Shape (groups, k): how far the quantile is from there to the next row, in units of 2^-30; integers.
    between : bool
        Whether any quantile lies between two rows.
    """

    lower: NDArray[np.int64]
    weights: NDArray[np.int64]
    between: bool

    def scope(self, party: Party, name: str) -> Party:
        """Return a scope that says which of two ways is gone: a rehearsal, which does not know, goes the longer one."""
        return party.at(f"{name} between" if self.between else name)

    def mixed(self, low: Share, high: Share) -> Share:
        """Return the quantiles from the rows below and above; shapes (groups, k, ...), scale 30."""
        weights = self.weights.reshape(*self.weights.shape, *[1] * (low.ndim - 2))
        return (
            (low * ((1 << _WEIGHT_BITS) - weights) + high * weights).scaled_down(_WEIGHT_BITS).bounded_by(low.magnitude)
        )


def rows_wanted(q: NDArray[np.float64], sizes: NDArray[np.int64], method: str, *, between: bool) -> Wanted:
    """Find the rows; with the operations of numpy, single ones and so the same everywhere."""
    n = np.maximum(sizes, 1)[:, np.newaxis].astype(np.float64)
    if method == "linear":
        place = (n - 1) * q
        lower = np.floor(place)
        weights = np.rint(np.ldexp(place - lower, _WEIGHT_BITS)).astype(np.int64)
        # The rounded weight of the next row may be 1.
        whole = weights >> _WEIGHT_BITS
        weights = np.where(whole == 1, 0, weights)
        return Wanted(lower.astype(np.int64) + whole, weights, between or bool(weights.any()))
    lower = np.clip(np.ceil(n * q - 1), 0, n - 1).astype(np.int64)
    return Wanted(lower, np.zeros_like(lower), False)


async def searched(party: Party, made: RowPool, wanted: Wanted, resolution: float | None) -> NDArray[np.float64]:
    """Find quantiles by asking on which side of public numbers they lie.

    All values are whole numbers of a unit here. In ``(base, base + width]`` the quantile is known to be.
    """
    exponent = int(made.exponents["x"][0])
    values = made.numbers("x").values[:, 0]
    if resolution is None:
        largest = 1 << INPUT_SCALE
        steps = np.rint(np.ldexp(values, INPUT_SCALE - exponent)).astype(np.int64)
    else:
        largest, steps = whole_bound(made, "x"), values.astype(np.int64)
    groups, k = wanted.lower.shape
    codes = made.codes("by") if "by" in made.categories else np.zeros(steps.size, np.int64)
    own = [np.sort(steps[codes == group]) for group in range(groups)]
    left = (2 * largest + 1).bit_length()
    passes = -(-left // (_STEP_BITS if groups * k <= _MANY else _SHORT_STEP_BITS))
    base = np.full((groups, k), -largest - 1, dtype=np.int64)
    for one in range(passes):
        bits = -(-left // (passes - one))
        left -= bits
        asked = base[..., np.newaxis] + (np.arange(1, 1 << bits) << left)
        below = await _not_above(party.at("pass"), own, asked, wanted, largest)
        count = np.asarray(await open_(party.at("side"), below.sum(axis=-1)), dtype=np.int64)
        base = base + (((1 << bits) - 1 - count) << left)
    if wanted.between:
        found = await open_(party.at("between"), await _in_unit(party.at("value"), own, base, wanted, largest))
    else:
        found = (base + 1).astype(np.float64)
    return np.asarray(np.ldexp(found, exponent - INPUT_SCALE) if resolution is None else found * resolution)


@dataclass(frozen=True, slots=True)
class _Sides:
    """For each of some public numbers, shared: whether so many rows are at or below it, and the rows next to it.

    Attributes
    ----------
    reached, passed : Share
        Whether the lower of the two rows of the quantile is at or below the number; and the upper one.
    mixed : Share or None
        What the quantile is if the number lies between both: made of the largest value at or below the number
        and the smallest above it. None where no quantile lies between rows.
    """

    reached: Share
    passed: Share
    mixed: Share | None


async def _sides(
    party: Party, own: list[NDArray[np.int64]], asked: NDArray[np.int64], wanted: Wanted, largest: int
) -> _Sides:
    """Count the rows at or below public numbers, shape (groups, k, numbers), and find those next to them."""
    counts, low, high = np.zeros_like(asked), np.zeros_like(asked), np.zeros_like(asked)
    for group, values in enumerate(own):
        counts[group] = np.searchsorted(values, asked[group], side="right")
        ended = np.concatenate([[-largest - 1], values, [largest + 1]])
        low[group], high[group] = ended[counts[group]], ended[counts[group] + 1]
    shared = await total(party.at("counts"), counts)
    ranks = wanted.lower[..., np.newaxis] + 1
    if not wanted.between:
        reached = 1 - await less_than(party.at("reached"), shared, ranks)
        return _Sides(reached, reached, None)
    held = await party.at("next").share(np.stack([low, -high]), bound=largest + 1, shape=(2, *asked.shape))
    async with side_by_side() as group_of_two:
        compared = group_of_two.create_task(
            less_than(party.at("reached"), stack([shared, shared]), np.stack([ranks, ranks + 1]))
        )
        nearest = group_of_two.create_task(_largest(party.at("nearest"), held))
    short, ends = compared.result(), nearest.result()
    return _Sides(1 - short[0], 1 - short[1], wanted.mixed(ends[0], -ends[1]))


async def _largest(party: Party, shares: list[Share]) -> Share:
    """Return the largest of several arrays, entry by entry."""
    while len(shares) > 1:
        pairs = len(shares) // 2
        left, right = stack(shares[:pairs]), stack(shares[pairs : 2 * pairs])
        winners = await maximum(party.at("pair"), left, right)
        shares = [*(winners[k] for k in range(pairs)), *shares[2 * pairs :]]
    return shares[0]


async def _not_above(
    party: Party, own: list[NDArray[np.int64]], asked: NDArray[np.int64], wanted: Wanted, largest: int
) -> Share:
    """Return 1 where a quantile is not above a public number; nothing is revealed."""
    sides = await _sides(party, own, asked, wanted, largest)
    if sides.mixed is None:
        return sides.reached
    # Between both rows the number is to be compared with what lies between them.
    # The numbers asked follow from what was opened: the bound is that of all that could be asked.
    above = await is_negative(party.at("above"), stated(-sides.mixed + asked, 5 * largest + 3))
    undecided = (sides.reached - sides.passed).bounded_by(1)
    return (sides.reached - await multiply(party.at("decide"), undecided, above)).bounded_by(1)


async def _in_unit(
    party: Party, own: list[NDArray[np.int64]], base: NDArray[np.int64], wanted: Wanted, largest: int
) -> Share:
    """Return the quantile in ``(base, base + 1]``: the upper end, unless base lies between both of its rows."""
    sides = await _sides(party, own, base[..., np.newaxis], wanted, largest)
    if sides.mixed is None:
        raise ValueError("no quantile lies between two rows")
    step = await multiply(party.at("choose"), sides.reached, (sides.mixed - (base + 1)[..., np.newaxis]))
    return (step + (base + 1)[..., np.newaxis]).reshape(base.shape)
