"""Sums, means and variances over the data of all parties."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mpc import F127, AgreementError, DataError, Party, Share, concatenate, less_than, multiply, open_, truncate
from mpc.normalise import normalise
from mpc.series import evaluate, reciprocal_series
from protocols.agreement import agree
from protocols.cheating import added_up
from protocols.magnitudes import agree_exponents, exponents_of
from protocols.pools.arrays import (
    DEFAULT_EXPONENT,
    as_columns,
    cells_of,
    check_shape,
    kind_of,
    largest_of,
    local_sum,
    own_array,
    plain,
    spread_of,
)
from protocols.release.disclosure import Disclosure, Release, check
from protocols.rows import Bound, stated
from protocols.shares import sum_of

# Fraction bits of a sum, counted from the bound: a float64 of the bound's size keeps all its bits.
_SUM_SCALE = 80
# What a party may have where parties may cheat, and a bound with room for rounding.
_MOST_ROWS = 1 << 48
_WITH_ROUNDING = 1 + 2.0**-40
_VARIANCE_SCALE = 76
_COARSE_VARIANCE = 2.0**-50
# With a secret count: at most this many rows, in bits.
_COUNT_BITS = 32
_COUNTED_SCALE = 40


class PrecisionWarning(UserWarning):
    """A result that rounding has left few digits of."""


@overload
async def secure_sum(
    party: Party, values: Any, *, bound: Bound = ..., to: None = ..., disclosure: Disclosure | None = ...
) -> NDArray[Any]: ...


@overload
async def secure_sum(
    party: Party, values: Any, *, bound: Bound = ..., to: Collection[int] | None, disclosure: Disclosure | None = ...
) -> NDArray[Any] | None: ...


async def secure_sum(
    party: Party,
    values: Any,
    *,
    bound: Bound = None,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> NDArray[Any] | None:
    """Add up what the parties hold.

    Parameters
    ----------
    party : Party
    values : array_like
        A number or a vector: the parties' vectors are added entry by entry. Of shape (rows, columns):
        the sum of each column over the rows of all parties, who may hold different numbers of rows,
        also none.
    bound : float or (columns,) array_like, optional
        Public bound on the absolute value of every entry, agreed in the study. By default integers may
        be of any size whose sum the field holds (125 bits), floats up to 2^40 (10^12).
    to : collection of int, optional
        Ranks of the parties that learn the sums; all by default.
    disclosure : Disclosure, optional
        Rules that must hold, see :class:`protocols.Disclosure`. A number or a vector counts as one row of
        its party, however many are behind it (or none); a table counts with its rows.

    Returns
    -------
    numpy.ndarray or None
        Integers give the exact sum (int64, or Python integers beyond); floats give float64, off by at
        most ``n 2^-80`` of the bound and the rounding of each party's own sum, less than ``2^-48`` of the
        sum of its absolute values. None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent: our data is NaN, infinite, beyond the bound or no numbers. The message
        names party, columns and counts, never values.
    AgreementError
        The parties disagree on shape, kind of number, bound, recipients or disclosure control.
    DisclosureError
        At all parties, before the sums are opened: a rule of the disclosure control does not hold.

    Notes
    -----
    The parties in ``to`` learn the sums and nothing else; the others nothing but the common parameters, which are
    public. The number of rows of a party stays with it. With ``disclosure`` all parties learn one bit: whether its
    rules hold. Semi-honest, all others may collude (for ``disclosure``: as many as the preprocessing says); parties
    may cheat, too, see :mod:`protocols.cheating`. Rows are summed where they are, in one pass, so the cost does not
    depend on them; a table is not copied, and must not change until the sum is there.
    Cost: 3 rounds; ``|sum|`` elements opened; no preprocessing. With ``disclosure`` also that of
    :func:`protocols.release.disclosure.check`.
    """
    release = Release.of(party, to, disclosure)
    array, bounds = own_array(party.rank, values, bound)
    total = local_sum(array) if array.ndim > 1 else plain(array)
    await agree(party, "secure_sum", {**_terms(array, bounds, bound, shape=total.shape), **release.terms()})
    await _check(party, release, "secure_sum", array if array.ndim == 2 else array.reshape(1, -1), bounds)
    shared, exponents = await _share_sums(party, total, kind_of(array), bounds)
    opened = await open_(party, shared, to=release.to)
    if opened is None:
        return None
    return np.asarray(opened if exponents is None else np.ldexp(opened, exponents))


async def secure_mean(
    party: Party,
    values: Any,
    *,
    bound: Bound = None,
    count: str = "total",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> Any:
    """Average over the rows of all parties.

    Parameters
    ----------
    party : Party
    values : array_like
        Shape (rows, columns), or (rows,) for one column; numbers of rows may differ, also be 0.
    bound : float or (columns,) array_like, optional
        See :func:`secure_sum`. With ``count="secret"`` and no bound the parties find one for each column,
        which tells all of them the order of magnitude (the power of 16) of its largest value.
    count : {"total", "secret"}
        ``"total"``: who learns the means also learns how many rows there are together (not who holds how
        many). ``"secret"``: they learn the means only; the division happens on shares, and the means are
        rounded to ``2^-34`` of the bound.
    to : collection of int, optional
        Ranks of the parties that learn the means; all by default.
    disclosure : Disclosure, optional
        Rules that must hold before anything is opened.

    Returns
    -------
    float, numpy.ndarray or None
        The mean, or the means of the columns. None at a party that is not in ``to``.

    Raises
    ------
    DataError
        See :func:`secure_sum`; also, at the parties in ``to``, if no party has a row.
    AgreementError
        See :func:`secure_sum`; also, where parties may cheat and all learn the means, if one is beyond its bound.
    DisclosureError
        At all parties: a rule of the disclosure control does not hold.

    Notes
    -----
    Semi-honest; with ``"total"`` parties may cheat, see :mod:`protocols.cheating`. With ``"total"`` the sums and the
    total count are opened, which say the same as means and count: 4 rounds, ``|columns| + 1`` elements. With
    ``"secret"`` also whether there is any row at all: 32 rounds with an agreed bound and a dealer (4 more with ``prss``
    among three). All of it is opened to the parties in ``to`` alone; the others learn nothing, except with ``"secret"``
    and no bound the orders of magnitude, and with ``disclosure`` one bit, whether its rules hold.
    """
    if count not in ("total", "secret"):
        raise ValueError(f"count is 'total' or 'secret', not {count!r}")
    if count == "secret":
        party.semi_honest_only("secure_mean(count='secret')", "a party could share a sum that does not fit its count")
    release = Release.of(party, to, disclosure)
    array, bounds = own_array(party.rank, values, bound, found_together=count == "secret")
    check_shape(party.rank, array)
    total, largest = local_sum(array), largest_of(array) if count == "secret" and bounds is None else None
    terms = {**_terms(array, bounds, bound, shape=total.shape), "count": count, **release.terms()}
    await agree(party, "secure_mean", terms)
    await _check(party, release, "secure_mean", as_columns(array), bounds)
    if count == "secret":
        exponents = await _common_exponents(party, largest, bounds)
        sums = np.ldexp(np.asarray(total, dtype=np.float64).reshape(-1), -exponents)
        found = await _mean_of_secret_count(party, sums, len(array), exponents, release)
        return found if array.ndim == 2 or found is None else float(found[0])
    shared, exponents = await _share_sums(party, total, kind_of(array), bounds)
    rows = await added_up(party, np.int64(len(array)), F127.half // party.size, cheating=_MOST_ROWS)
    sums, n = await open_(party, shared, rows, to=release.to)
    if n is None:
        return None
    if not n:
        raise DataError("secure_mean: no party has a row")
    means = np.asarray(sums / int(n), dtype=np.float64)
    if exponents is not None:
        means = np.ldexp(means, exponents)
    # Where some do not learn the means, an error would tell them about these.
    if party.security != "semi-honest" and release.to is None and _beyond(means, bounds):
        raise AgreementError(
            "secure_mean: a mean is beyond its bound: some party gave a sum that does not fit its number of rows"
        )
    return means if array.ndim == 2 else float(means)


def _beyond(means: NDArray[np.float64], bounds: NDArray[np.float64] | None) -> bool:
    return bounds is not None and bool((abs(means) > bounds * _WITH_ROUNDING).any())


async def secure_variance(
    party: Party,
    values: Any,
    *,
    bound: Bound = None,
    ddof: int = 1,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> Any:
    """Compute the variance over the rows of all parties.

    Parameters
    ----------
    party : Party
    values : array_like
        Shape (rows, columns), or (rows,) for one column; numbers of rows may differ, also be 0.
    bound : float or (columns,) array_like, optional
        See :func:`secure_sum`; without one the parties find one for each column, which tells all of them the
        order of magnitude (the power of 16) of its largest value. The variance is rounded to ``2^-64`` of
        the squared bound.
    ddof : {1, 0}
        1 divides by the number of rows less one, 0 by the number of rows.
    to : collection of int, optional
        Ranks of the parties that learn the variances; all by default.
    disclosure : Disclosure, optional
        Rules that must hold before anything is opened; ``dominance`` does not speak of variances.

    Returns
    -------
    float, numpy.ndarray or None
        The variance, or the variances of the columns. None at a party that is not in ``to``.

    Raises
    ------
    DataError
        See :func:`secure_sum`; also if there are no more than ``ddof`` rows.
    DisclosureError
        At all parties: a rule of the disclosure control does not hold.

    Warns
    -----
    PrecisionWarning
        If a standard deviation is below ``2^-25`` of its bound: the column is constant, or the bound is
        much too loose.

    Notes
    -----
    All parties learn the total number of rows, with which each weighs its own rows; those in ``to`` also the
    variances; nobody the means, or who holds how many rows. With ``disclosure`` all learn one bit before
    that, whether its rules hold, and nothing else where they do not. Without a bound, see above. Semi-honest.
    Each party computes the squared deviations from its own mean in the clear; only the deviations of the
    parties' means from the common mean are computed on shares, so nothing cancels (Chan, Golub, LeVeque,
    1983, eq. 2.1).
    Cost, with a bound: 9 rounds; with k columns and n parties ``1 + n + k + nk + 2k`` elements opened.
    """
    if ddof not in (0, 1):
        raise ValueError(f"ddof is 0 or 1, not {ddof!r}")
    release = Release.of(party, to, disclosure)
    array, bounds = own_array(party.rank, values, bound, found_together=True)
    check_shape(party.rank, array)
    rows, one_column = len(array), array.ndim == 1
    largest = largest_of(array) if bounds is None else None
    spread, units = spread_of(as_columns(array), largest, bounds)
    terms = {**_terms(array, bounds, bound, shape=array.shape[1:]), "ddof": ddof, **release.terms()}
    await agree(party, "secure_variance", terms)
    await check(
        party.at("disclosure"),
        disclosure,
        "secure_variance",
        rows=rows,
        columns=cells_of(as_columns(array), disclosure),
    )
    exponents = await _common_exponents(party, largest, bounds)

    # 1. The total number of rows.
    n = int(await open_(party, await _share_total(party, np.int64(rows), bound=1 << 60)))
    if n <= ddof:
        raise DataError(f"secure_variance: {n} rows are too few")

    # 2. In the clear, in units of the bound: our mean, rounded to the grid, and the spread around it.
    columns, shift = len(exponents), units - exponents
    mean = np.rint(np.ldexp(spread.means[0], 36 + shift)) * 2.0**-36
    within_us = np.ldexp(spread.around(np.ldexp(mean, -shift)[np.newaxis])[0], 2 * shift) / n
    weight = rows / n

    # 3. Shares of w_j m_j, sqrt(w_j), sqrt(w_j) m_j, with w_j the part of all rows that party j holds.
    root = np.rint(math.sqrt(weight) * 2.0**38) * 2.0**-38
    parts = np.concatenate([weight * mean, root * mean, [root]])
    held = await party.share(parts, bound=1.0, scale=38, shape=parts.shape)
    inner = sum_of(await party.share(within_us, bound=4.0, scale=_VARIANCE_SCALE, shape=(columns,)))
    common = sum_of([one[:columns] for one in held]).bounded_by(1.001)

    # 4. Between parties: sum_j (sqrt(w_j) m_j - sqrt(w_j) m)^2.
    roots = concatenate([one[2 * columns :] for one in held]).reshape(party.size, 1)
    owned = concatenate([one[columns : 2 * columns] for one in held]).reshape(party.size, columns)
    product = await multiply(party, roots, common.reshape(1, columns))
    deviations = await truncate(party, owned - product, _VARIANCE_SCALE // 2)
    between = (await multiply(party, deviations, deviations)).sum(axis=0)

    # 5. Round before opening, so that the low bits of the squares stay hidden.
    variance = await open_(party, await truncate(party, (between + inner).bounded_by(1.01), 68), to=release.to)
    if variance is None:
        return None
    coarse = np.flatnonzero(variance < _COARSE_VARIANCE)
    if coarse.size:
        named = ", ".join(map(str, coarse[:10]))
        warnings.warn(
            f"secure_variance: column {named} is constant, or its standard deviation is below 2^-25 of its bound; the "
            "variance is rounded to 2^-64 of the squared bound",
            PrecisionWarning,
            stacklevel=2,
        )
    result = np.ldexp(np.maximum(variance, 0.0), 2 * exponents) * (n / (n - ddof))
    return float(result[0]) if one_column else result


def _terms(
    array: NDArray[Any], bounds: NDArray[np.float64] | None, bound: Bound, *, shape: tuple[int, ...]
) -> dict[str, object]:
    return {
        "shape": list(shape),
        "axes": array.ndim,
        "numbers": "floats" if array.dtype.kind == "f" else "integers",
        "bound": stated(bound, bounds),
    }


async def _check(
    party: Party, release: Release, protocol: str, rows: NDArray[Any], bounds: NDArray[np.float64] | None
) -> None:
    """Check the rules for sums over rows; raises at all parties."""
    disclosure, parts = release.disclosure, None
    if disclosure is None:
        return
    if disclosure.dominance:
        if bounds is None:
            raise ValueError(f"disclosure control {disclosure.name!r} takes an agreed bound: {protocol}(..., bound=)")
        units = np.broadcast_to(exponents_of(bounds), rows.shape[1:])
        parts = np.ldexp(rows.astype(np.float64), -units)
    columns = cells_of(rows, disclosure)
    await check(party.at("disclosure"), disclosure, protocol, rows=len(rows), columns=columns, parts=parts)


async def _share_sums(
    party: Party, total: NDArray[Any], kind: str, bounds: NDArray[np.float64] | None
) -> tuple[Share, Any]:
    """Share our sums and add up everybody's; floats in units of their column's bound."""
    if kind != "f":
        return sum_of(await party.share(total, bound=F127.half // party.size, shape=total.shape)), None
    exponents: Any = DEFAULT_EXPONENT if bounds is None else exponents_of(bounds)
    if bounds is not None and total.ndim == 0:
        exponents = exponents[0]
    room = float((F127.half // party.size) >> _SUM_SCALE)
    units = np.ldexp(total, -exponents)
    return sum_of(await party.share(units, bound=room, scale=_SUM_SCALE, shape=units.shape)), exponents


async def _share_total(party: Party, ours: Any, *, bound: int) -> Share:
    return sum_of(await party.share(ours, bound=bound, shape=np.shape(ours)))


async def _common_exponents(
    party: Party, largest: NDArray[np.float64] | None, bounds: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    if bounds is not None:
        return exponents_of(bounds)
    return await agree_exponents(party.at("bounds"), np.atleast_2d(np.zeros(0) if largest is None else largest))


async def _mean_of_secret_count(
    party: Party, units: NDArray[np.float64], count_us: int, exponents: NDArray[np.int64], release: Release
) -> NDArray[np.float64] | None:
    """Divide on shares; ``units`` are our sums in units of ``2^exponents``, over so many rows."""
    most = (1 << _COUNT_BITS) // party.size
    if count_us > most:
        raise DataError(f"party {party.rank}: more than {most} rows")

    # 1. The count, and the power of two that makes it 32 bits long.
    rows = await _share_total(party, np.array([count_us]), bound=most)
    sums = sum_of(await party.share(units, bound=float(most), scale=_COUNTED_SCALE, shape=units.shape))
    empty = await less_than(party.at("any rows"), rows, 1)
    if await open_(party, empty, to=release.to):  # who does not learn it goes on, with means that nobody sees
        raise DataError("secure_mean: no party has a row")
    top = _COUNT_BITS + 1
    count = await normalise(party, rows, low=0, top=top, weights=[[1 << k for k in range(top)]])

    # 2. With count = m 2^(33 - k): mean = (sum * 2^k / 2^33) / m; the first factor is at most 1 as |sum| <= count.
    scaled = (await multiply(party, sums, count.factors[0])).bounded_by(1.001 * 2.0**top)
    shrunk = await truncate(party, scaled.scaled_down(top), 38)
    inverse = await evaluate(party, count.t, reciprocal_series(), to=38, where=count.inside)
    means = await truncate(party, await multiply(party, shrunk, inverse), 36)
    opened = await open_(party, means, to=release.to)
    return None if opened is None else np.asarray(np.ldexp(opened, exponents))
