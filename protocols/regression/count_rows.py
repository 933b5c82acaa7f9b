"""The rows or columns of counts that parties bring to a regression, standardised and shared.

Counts and means are kept in units of ``2^top``, which is above all counts, so that a mean is at most ``e^2``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, mask, multiply
from protocols.agreement import agree
from protocols.magnitudes import agree_exponents, exponents_of
from protocols.regression.fit import Plan
from protocols.regression.glm import column_sizes, presence, row_exponents, rows_by_party
from protocols.regression.sample import Sample
from protocols.regression.standardise import Design, OwnColumns, own_columns, standardise_columns, standardise_rows
from protocols.release.disclosure import Release

_LARGEST_TOP = 20
MOST_COUNTED = 1 << _LARGEST_TOP
_NO_TOP = 56
# Up to such a bound nobody asks for the largest count: it is at most 2^12 times a mean of 2^-8.
LARGEST_UNASKED = 16
# The first means are counts and this.
_START = 0.1
_COUNT_SCALE = 20
_WEIGHT_SCALE = 24
_OFFSET_SCALE = 24
TERM_SCALE = 40
# Means are cut at e^2 units.
LARGEST_MEAN = 7.4


def log_unit(top: int) -> float:
    """Return ``log(2^top)``, the same at all parties."""
    with localcontext(Context(prec=40)):
        return float(Decimal(2).ln() * top)


@dataclass(frozen=True, slots=True)
class CountPlan(Plan):
    """See :class:`protocols.regression.fit.Plan`."""

    @property
    def largest_eigenvalue(self) -> float:
        """Bound on the eigenvalues of the information matrix: its trace, as means are at most ``e^2``."""
        return math.ldexp(1.03 * LARGEST_MEAN * self.width * self.rows, -self.row_bits)


@dataclass(frozen=True, slots=True)
class CountRows:
    """What the fit is made of.

    Attributes
    ----------
    design : Design
    plan : CountPlan
    own : OwnColumns or None
    y : Share
        Shape (rows,), at most 1: counts in units of ``2^top``.
    start : Share
        Shape (rows, 2): the first means and working responses times means, in the same units.
    constants : Share
        Shape (rows, 2): ``log(y!)`` and ``y log(y) - y``, in the same units.
    weights : Share or None
        Masked, in units of ``4^weight_power``; 0 where a row does not count.
    offset : Share or None
    exposure : Share or None
        Shape (rows,): exponentials of the offset in units of ``2^exposure_power``.
    top, limit, weight_power, exposure_power : int
        No count is above ``2^limit``, which does not depend on the data where a bound is agreed.
    n : int
    missing : dict
    """

    design: Design
    plan: CountPlan
    own: OwnColumns | None
    y: Share
    start: Share
    constants: Share
    weights: Share | None
    offset: Share | None
    exposure: Share | None
    top: int
    limit: int
    weight_power: int
    exposure_power: int
    n: int
    missing: dict[str, int | None] = field(default_factory=dict)


async def prepare_counts(
    party: Party, protocol: str, ours: Sample, release: Release, *, partition: str, y_bound: float | None
) -> CountRows:
    """Count, standardise and share what the parties bring."""
    if partition == "rows":
        return await _prepare_rows(party, protocol, ours, release, y_bound)
    return await _prepare_columns(party, protocol, ours, release, y_bound)


class _Unit(NamedTuple):
    """Counts are kept in units of ``2^top``; ``limit`` is known beforehand, and at least as large."""

    top: int
    limit: int

    @classmethod
    def of(cls, party: Party, exponent: int | None, y_bound: float | None, protocol: str) -> _Unit:
        """Return even powers of two above all counts: by their bound, and by what was found, where that was asked."""
        agreed = _stated_top(y_bound)
        found = agreed if exponent is None or party.rehearsing else min(max(0, exponent), agreed)
        if found > _LARGEST_TOP and not party.rehearsing:
            raise DataError(
                f"{protocol}: counts above 2^{_LARGEST_TOP} are too large; use a linear regression of logarithms"
            )
        top = min(found, _LARGEST_TOP)
        return cls(top, top if y_bound is None else min(agreed, _LARGEST_TOP))


def _stated_top(y_bound: float | None) -> int:
    """Return the even power of two above a bound."""
    exponent = _NO_TOP if y_bound is None else int(exponents_of(np.array([y_bound]))[0])
    return max(0, exponent + exponent % 2)


def is_found(y_bound: float | None) -> bool:
    """Whether the parties find out the power of 16 above all counts: where the bound may be far above the mean."""
    return y_bound is None or y_bound > LARGEST_UNASKED


def _per_row(y: NDArray[np.float64], top: int) -> NDArray[np.float64]:
    """Return start and constants, all in units of ``2^top``."""
    from scipy.special import gammaln, xlogy

    means = y + _START
    columns = [means, means * np.log(means) - _START, gammaln(y + 1), xlogy(y, y) - y]
    return np.asarray(np.ldexp(np.stack(columns, axis=1), -top))


async def _prepare_rows(
    party: Party, protocol: str, ours: Sample, release: Release, y_bound: float | None
) -> CountRows:
    counts, missing = await rows_by_party(party, protocol, ours, release)
    shapes: list[tuple[int | None, ...]] = [(rows,) for rows in counts]

    async def shared(values: NDArray[np.float64], scale: int, bound: float = 1.0) -> Share:
        return concatenate(await party.share(values, bound=bound, scale=scale, shape=shapes))

    exponents = await row_exponents(party.at("bounds"), ours.coded)
    y = ours.vectors["y"].values
    exponent = None
    if is_found(y_bound):
        (exponent,) = (await agree_exponents(party.at("y bounds"), y[:, np.newaxis])).tolist()
    top, limit = _Unit.of(party, exponent, y_bound, protocol)
    design = await standardise_rows(party.at("standardise"), ours.coded.X, counts, exponents)
    counted = await shared(np.ldexp(y, -top), _COUNT_SCALE + limit)
    per_row: list[tuple[int | None, ...]] = [(rows, 4) for rows in counts]
    values = concatenate(await party.share(_per_row(y, top), bound=_LARGEST_TOP, scale=TERM_SCALE, shape=per_row))

    weights, power = None, 0
    if (held := ours.values("weights")) is not None:
        (largest,) = (await agree_exponents(party.at("weights"), held[:, np.newaxis])).tolist()
        weights, power = await mask(party, await shared(np.ldexp(held, -largest), _WEIGHT_SCALE)), largest // 2
    offset, exposure, unit = None, None, 0
    if (held := ours.values("offset")) is not None:
        (unit,) = (await agree_exponents(party.at("exposure"), np.exp(held)[:, np.newaxis])).tolist()
        offset = await shared(held, _OFFSET_SCALE, 20.0)
        exposure = await shared(np.ldexp(np.exp(held), -unit), TERM_SCALE)
    n = sum(counts)
    plan = CountPlan(n, len(ours.names) + 1, 0.0)
    start, constants = values[:, :2], values[:, 2:]
    return CountRows(
        design, plan, None, counted, start, constants, weights, offset, exposure, top, limit, power, unit, n, missing
    )


async def _prepare_columns(
    party: Party, protocol: str, ours: Sample, release: Release, y_bound: float | None
) -> CountRows:
    rows, kept = ours.rows, ours.present
    if not kept.any():
        raise DataError(f"party {party.rank}: there is no complete row")
    own = own_columns(party, ours.coded.X[kept], ours.columns)
    present = await presence(party.at("presence"), ours)
    n, missing = await column_sizes(party.at("sizes"), protocol, ours, present, release)
    if not n and not party.rehearsing:
        raise DataError(f"{protocol}: there is no complete row")

    # What the holders say of the units of their vectors; others say nothing.
    says = {what: 64 for what in ("y", "weights", "offset")}
    if (y := ours.values("y")) is not None and is_found(y_bound):
        says["y"] += 4 * math.ceil(math.log2(max(y.max(initial=1.0), 1.0)) / 4)
    if (weights := ours.values("weights")) is not None:
        says["weights"] += 4 * math.ceil(math.log2(max(weights.max(initial=0.0), 2.0**-24)) / 4)
    if (offset := ours.values("offset")) is not None:
        says["offset"] += 4 * math.ceil(math.log2(math.exp(offset.max(initial=-20.0))) / 4)
    said = await agree(party.at("units"), protocol, {}, says)
    units = {what: said[rank][what] - 64 for what, rank in ours.givers.items()}
    top, limit = _Unit.of(party, units["y"] if is_found(y_bound) else None, y_bound, protocol)
    X = np.where(kept[:, np.newaxis], ours.coded.X, own.mean)  # standardised to 0 where it is missing
    design = await standardise_columns(party.at("standardise"), X, own)

    async def given(
        what: str, values: NDArray[np.float64] | None, bound: float, shape: tuple[int, ...], scale: int
    ) -> Share:
        share: Share = await party.share(values, bound=bound, owner=ours.givers[what], shape=shape, scale=scale)
        return share

    per_row = None if y is None else _per_row(y, top)
    values = await given("y", per_row, _LARGEST_TOP, (rows, 4), TERM_SCALE)
    y_share = await given("y", None if y is None else np.ldexp(y, -top), 1.0, (rows,), _COUNT_SCALE + limit)
    counted, power, unit, offset_share, exposure = present, 0, 0, None, None
    if "weights" in units:
        power = units["weights"] // 2
        scaled = None if weights is None else np.ldexp(weights, -2 * power)
        shared = await given("weights", scaled, 1.0, (rows,), _WEIGHT_SCALE)
        counted = shared if present is None else (await multiply(party, shared, present)).bounded_by(1)
    if "offset" in units:
        unit = units["offset"]
        offset_share = await given("offset", offset, 20.0, (rows,), _OFFSET_SCALE)
        scaled = None if offset is None else np.ldexp(np.exp(offset), -unit)
        exposure = await given("offset", scaled, 1.0, (rows,), TERM_SCALE)
    masked = None if counted is None else await mask(party, counted)
    return CountRows(
        design,
        CountPlan(rows, len(ours.names) + 1, 0.0),
        own,
        y_share,
        values[:, :2],
        values[:, 2:],
        masked,
        offset_share,
        exposure,
        top,
        limit,
        power,
        unit,
        n,
        missing,
    )
