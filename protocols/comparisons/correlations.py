"""Correlations and covariances of columns; correlations are normalised on shares, so that no variance is opened."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, matmul, multiply, open_, stack, truncate, truncate_all
from mpc.normalise import normalise, rescaled
from mpc.series import evaluate, inverse_root_series
from protocols.comparisons.rank_sums import doubled_ranks, in_steps, ranked_keys, ranking
from protocols.distributions import normal_half_width, t_tail
from protocols.pools.joining import pool
from protocols.pools.pool import Pool
from protocols.pools.variables import Numeric, numeric
from protocols.release.disclosure import Disclosure, Release
from protocols.release.outcome import Result, notes, number, p_text, table
from protocols.rows import Bound

_KINDS = ("pearson", "spearman")
_MOST_PAIRS_SHOWN = 45
# A column whose standard deviation is below 2^-18 (rows) or 2^-16 (columns) of its bound counts as constant.
_SPREAD_BITS = {"rows": 36, "columns": 32}
# Of rows held by different parties as columns, 2^b times fewer may be complete: covariances are rounded (2^-47 of
# squared bounds, times all rows, by complete ones, and some units), ranks are exact.
_MOST_INCOMPLETE_BITS = {"pearson": 6, "spearman": 12}
_MOST_RANKED_BITS = 24
_SCALE = 38
_ROOT_SCALE = 37
_RESULT_SCALE = 40


@dataclass(frozen=True, eq=False)
class CorrelationResult(Result):
    """Correlations of d columns.

    Attributes
    ----------
    kind : {"pearson", "spearman"}
    names : tuple of str
    n : int
        Rows used: those in which no column is missing.
    correlation : numpy.ndarray
        Shape (d, d); NaN where a column is constant.
    p_value : numpy.ndarray
        Shape (d, d), two-sided; 0 on the diagonal.
    conf_int : numpy.ndarray
        Shape (d, d, 2). Pearson: Fisher's z. Spearman: the same with the variance of Bonett and Wright (2000).
    confidence : float
    missing : dict of str to int or None
    suppressed : tuple of str
        Names the columns that are constant.
    """

    kind: str
    names: tuple[str, ...]
    n: int
    correlation: NDArray[np.float64]
    p_value: NDArray[np.float64]
    conf_int: NDArray[np.float64]
    confidence: float
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the matrix, and for up to ten columns a line for each pair, as SciPy's results have it."""
        names, values = self.names, self.correlation.tolist()
        rows = [[name, *map(number, row)] for name, row in zip(names, values, strict=True)]
        lines = [table(["", *names], rows, title=f"{self.kind.capitalize()} correlation")]
        pairs = list(combinations(range(len(names)), 2))
        if len(pairs) <= _MOST_PAIRS_SHOWN:
            low, high = f"[{(1 - self.confidence) / 2:.4g}", f"{(1 + self.confidence) / 2:.4g}]"
            cells = [
                [
                    f"{names[i]} ~ {names[j]}",
                    *map(number, [values[i][j], *self.conf_int[i, j].tolist()]),
                    p_text(float(self.p_value[i, j])),
                ]
                for i, j in pairs
            ]
            lines.append(table(["", "r", low, high, "P>|t|"], cells))
        return "\n".join([*lines, *notes(self.n, self.missing, self.suppressed)])


@dataclass(frozen=True, eq=False)
class CovarianceResult(Result):
    """Covariances of d columns, with divisor n - 1.

    Attributes
    ----------
    names : tuple of str
    n : int
    covariance : numpy.ndarray
        Shape (d, d).
    missing : dict of str to int or None
    suppressed : tuple of str
    """

    names: tuple[str, ...]
    n: int
    covariance: NDArray[np.float64]
    missing: dict[str, int | None]
    suppressed: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return the matrix."""
        rows = [[name, *map(number, row)] for name, row in zip(self.names, self.covariance.tolist(), strict=True)]
        return "\n".join(
            [table(["", *self.names], rows, title="Covariance"), *notes(self.n, self.missing, self.suppressed)]
        )


async def covariance(
    party: Party,
    X: Any,
    *,
    partition: str = "rows",
    bound: Bound = None,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> CovarianceResult | None:
    """Compute the covariances of columns over the rows of all parties.

    Parameters
    ----------
    party : Party
    X : array_like or None
        Shape (rows, d): our rows; with ``partition="columns"`` our columns, None if we have none. All columns
        come in the order of the parties then.
    partition : {"rows", "columns"}
    bound : float or (d,) array_like, optional
        Public bounds on the absolute values of the columns (with ``"columns"``: of ours).
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional

    Returns
    -------
    CovarianceResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError
        Before anything is sent if our data is wrong; at all parties if there are fewer than two rows.
    AgreementError
        The parties differ in a parameter.
    DisclosureError
        At all parties: a rule does not hold.

    Notes
    -----
    Rows with a missing value in any column are left out. All parties learn how many rows are used, and in how many
    something is missing; the recipients the covariances, but no mean. Semi-honest. See
    :func:`protocols.pools.joining.pool`. Of two columns of 0 and 1 the covariance and both variances tell the table of
    both, up to which value is which; so a minimum cell holds for the cells of that table, too
    (:meth:`Pool.check_pairs`). Error: see :mod:`protocols.pools.moments`. Cost with rows: that of making the pool and
    of the moments, and 1 round and ``d (d + 1) / 2`` elements.
    """
    release = Release.of(party, to, disclosure)
    made = await _pooled(party, "covariance", X, partition, bound, release, {})
    sizes = await made.open_sizes()
    if sizes.n < 2 and not party.rehearsing:
        raise DataError(f"covariance: {sizes.n} rows are too few")
    await made.check_values("X")
    await made.check_pairs("X")
    m = await made.moments("X")
    d = len(m.exponents)
    rows, columns = np.triu_indices(d)
    opened = await open_(party.at("open"), m.covariance[0, rows, columns], to=release.to)
    if opened is None:
        return None
    found = np.zeros((d, d))
    units = m.exponents[rows] + m.exponents[columns]
    found[rows, columns] = np.ldexp(opened, units) * (sizes.n / max(1, sizes.n - 1))
    found[columns, rows] = found[rows, columns]
    np.fill_diagonal(found, np.maximum(np.diag(found), 0.0))
    return CovarianceResult(_distinct(made), sizes.n, found, sizes.missing)


async def correlation(
    party: Party,
    X: Any,
    *,
    kind: str = "pearson",
    partition: str = "rows",
    bound: Bound = None,
    resolution: float | None = None,
    confidence: float = 0.95,
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> CorrelationResult | None:
    """Compute the correlations of columns over the rows of all parties.

    Parameters
    ----------
    party : Party
    X : array_like or None
        Shape (rows, d), see :func:`covariance`.
    kind : {"pearson", "spearman"}
        Spearman's: the correlation of mid-ranks.
    partition, bound, to, disclosure
        See :func:`covariance`.
    resolution : float, optional
        Spearman: values are rounded to multiples of it before they are ranked, which takes fewer bits; see
        :func:`protocols.comparisons.ranks.ranked_keys`.
    confidence : float
        Of the intervals.

    Returns
    -------
    CorrelationResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError, AgreementError, DisclosureError
        See :func:`covariance`; it takes at least three rows.

    Notes
    -----
    Rows with a missing value in any column are left out. All parties learn how many rows are used, and in how many
    something is missing; with Spearman and rows also how many complete rows each party has. The recipients
    learn the coefficients, and which columns are constant (one bit each); no variance and no rank. Semi-honest.
    p-values: the exact t-test with n - 2 degrees of freedom (Pearson), the same as an approximation (Spearman).
    Error of a coefficient: about ``2^-33``, and with Pearson that of the covariance (:mod:`protocols.pools.moments`) in
    units of the standard deviations.
    Cost with rows: that of the pool and of the moments (Spearman: of d sorts with :func:`doubled_ranks`, and a product
    of ``d`` columns over all rows); then :func:`normalised`, 1 round and ``d (d + 1) / 2`` elements.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind is one of {', '.join(_KINDS)}, not {kind!r}")
    if not 0 < confidence < 1:
        raise ValueError("confidence is between 0 and 1")
    if resolution is not None and kind == "pearson":
        raise ValueError("resolution is for ranks: kind='spearman'")
    release = Release.of(party, to, disclosure)
    terms: dict[str, object] = {"kind": kind, "confidence": confidence, "resolution": resolution}
    made = await _pooled(party, "correlation", X, partition, bound, release, terms, resolution)
    sizes = await made.open_sizes()
    if sizes.n < 3 and not party.rehearsing:
        raise DataError(f"correlation: {sizes.n} rows are too few")
    d = len(made.names["X"])
    if d < 2:
        raise DataError("correlation takes at least two columns")
    await made.check_values("X", sums=kind == "pearson")
    await made.check_pairs("X")
    if kind == "pearson":
        bits = _SPREAD_BITS[partition]
        _check_complete(made, kind)
        m = await made.moments("X")
        scale = m.covariance.scale
        matrix, low, top = m.covariance[0], scale - bits, scale + 1
    else:
        matrix, low, top = await _rank_scatter(ranking(party, "ranks", made, "X", resolution), made, resolution)
    shared, varies = await normalised(party.at("normalise"), matrix, low=low, top=top)
    coefficients, inside = await open_(party.at("open"), shared, varies, to=release.to)
    if coefficients is None:
        return None
    return _result(made, kind, coefficients, np.asarray(inside) == 1, confidence)


async def normalised(party: Party, matrix: Share, *, low: int, top: int) -> tuple[Share, Share]:
    """Divide covariances by the roots of both variances, on shares.

    Parameters
    ----------
    party : Party
        A scope of its own.
    matrix : Share
        Shape (d, d), its encoded integers below ``2^top``; a covariance matrix.
    low, top : int
        Variances below ``2^low`` (as integers) count as none.

    Returns
    -------
    coefficients : Share
        Shape (d (d - 1) / 2,), scale 40: the rows of the upper triangle; 0 where a variance counts as none.
    varies : Share
        Shape (d,): 1 where it does not.

    Notes
    -----
    With ``v = m 2^top / 4^k``, m in [1/4, 1), and ``y = 1 / sqrt(m)``: ``c_ij / sqrt(v_i v_j) = (c_ij 2^k_i 2^k_j /
    2^top) (y_i y_j)``, where the bracket is at most 1 in size by the inequality of Cauchy and Schwarz; bounds
    leave room for a matrix that rounding has brought out of it. Nothing is revealed. Semi-honest.
    Error: about 2^-34. Cost: :func:`mpc.normalise.normalise`, :func:`mpc.series.evaluate` of degree 22, then 3 rounds
    and 5 elements a coefficient.
    """
    d = len(matrix)
    count = -(-(top - low) // 2)
    variances = matrix.reshape(d * d)[:: d + 1]
    found = await normalise(
        party.at("spread"), variances, low=low, top=top, width=2, weights=[[1 << k for k in range(count)]]
    )
    roots = await evaluate(party.at("root"), found.t, inverse_root_series(), to=_ROOT_SCALE, where=found.inside)
    i, j = np.triu_indices(d, 1)
    # Products of masked vectors open nothing.
    powers = await multiply(party, found.factors[0].reshape(d, 1), found.factors[0].reshape(1, d))
    inverses = (await multiply(party, roots.reshape(d, 1), roots.reshape(1, d)))[i, j].bounded_by(4.1)
    bracket = rescaled(await multiply(party, matrix[i, j], powers[i, j]), top).bounded_by(1.5)
    bracket, inverse = await truncate_all(party, [bracket, inverses], _SCALE)
    coefficients = (await multiply(party, bracket, inverse)).bounded_by(1.7)
    return await truncate(party, coefficients, _RESULT_SCALE), found.inside


# ---- ranks --------------------------------------------------------------------------------------


async def _rank_scatter(party: Party, made: Pool, resolution: float | None) -> tuple[Share, int, int]:
    """Return the scatter matrix of doubled mid-ranks, and the bits that its diagonal lies between."""
    _check_complete(made, "spearman")
    keys = await ranked_keys(party.at("keys"), made, "X", resolution)
    rows, d = keys.values.shape
    bits = rows.bit_length()
    if bits > _MOST_RANKED_BITS:
        raise DataError(f"correlation: ranks are for less than 2^{_MOST_RANKED_BITS} rows")
    n = rows if party.rehearsing else made.sizes.n
    columns = []
    for k in range(d):
        doubled = await doubled_ranks(party.at("column"), keys.values[:, k], keys.bits)
        columns.append((doubled - (n + 1)).bounded_by(2 * rows + 1))
    centred = stack(columns, axis=1)
    if made.weight is None:
        scatter = await matmul(party, centred.T, centred)
    else:
        kept = await multiply(party, centred, made.weight.reshape(rows, 1))
        scatter = await matmul(party, kept.T, kept)
    # Squares of doubled ranks around their mean add up to at most (n^3 - n) / 3.
    scatter = scatter.bounded_by(max(1, rows**3 // 3))
    return scatter, max(0, 2 * bits - 2 * _MOST_INCOMPLETE_BITS["spearman"] - 3), 3 * bits


def _check_complete(made: Pool, kind: str) -> None:
    """Raise where so few rows are complete that rounding tells; public numbers."""
    rows = int(getattr(made, "rows", 0)) if made.partition == "columns" else 0
    if made.sizes.n << _MOST_INCOMPLETE_BITS[kind] < rows and not made.party.rehearsing:
        raise DataError(f"{made.protocol}: {made.sizes.n} of {rows} rows are complete, which is too few")


# ---- results ------------------------------------------------------------------------------------


def _result(
    made: Pool, kind: str, coefficients: NDArray[np.float64], varies: NDArray[np.bool_], confidence: float
) -> CorrelationResult:
    d, n = varies.size, made.sizes.n
    matrix = np.eye(d)
    i, j = np.triu_indices(d, 1)
    matrix[i, j] = matrix[j, i] = np.clip(coefficients, -1.0, 1.0)
    matrix[~varies] = matrix[:, ~varies] = np.nan
    names = _distinct(made)
    constant = tuple(f"{names[k]} is constant, or nearly so for its bound" for k in np.flatnonzero(~varies))
    return CorrelationResult(
        kind,
        names,
        n,
        matrix,
        correlation_p_values(matrix, n),
        correlation_intervals(matrix, n, kind, confidence),
        confidence,
        made.sizes.missing,
        constant,
    )


def correlation_p_values(r: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Return two-sided p-values of ``t = r sqrt((n - 2) / (1 - r^2))`` with n - 2 degrees of freedom."""
    if n < 3:
        return np.full(r.shape, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(r) * np.sqrt((n - 2) / ((1 - r) * (1 + r)))
    return np.asarray(2 * t_tail(t, n - 2), dtype=np.float64)


def correlation_intervals(r: NDArray[np.float64], n: int, kind: str, confidence: float) -> NDArray[np.float64]:
    """Return intervals by Fisher's z, shape (..., 2).

    The variance of z is ``1 / (n - 3)`` for Pearson's coefficient, ``(1 + r^2 / 2) / (n - 3)`` for Spearman's (Bonett,
    Wright, Psychometrika 2000).
    """
    if n < 4:
        return np.full((*r.shape, 2), np.nan)
    factor = 1 + r**2 / 2 if kind == "spearman" else np.ones_like(r)
    half = normal_half_width(confidence) * np.sqrt(factor / (n - 3))
    with np.errstate(divide="ignore"):
        z = np.arctanh(r)
    return np.stack([np.tanh(z - half), np.tanh(z + half)], axis=-1)


def _distinct(made: Pool) -> tuple[str, ...]:
    """Return the columns' names; numbers, where several parties numbered theirs from 1."""
    names = made.names["X"]
    return names if len(set(names)) == len(names) else tuple(f"X{k + 1}" for k in range(len(names)))


async def _pooled(
    party: Party,
    protocol: str,
    X: Any,
    partition: str,
    bound: Bound,
    release: Release,
    terms: dict[str, object],
    resolution: float | None = None,
) -> Pool:
    data = None if X is None else numeric(X, rank=party.rank, what="X", bound=bound)
    if data is not None and resolution is not None:
        data = in_steps(data, resolution)
    return await pool(
        party.at("pool"),
        protocol,
        {"X": data},
        kinds={"X": Numeric},
        partition=partition,
        release=release,
        terms=terms,
        spread=("X",),
    )
