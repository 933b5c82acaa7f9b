"""The log-rank test on the pooled data: do groups have the same hazard?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, less_than, mask, matmul, multiply, open_, truncate, truncate_all
from mpc.elementary import divide, sqrt
from mpc.tasks import side_by_side
from protocols.distributions import chi_squared_tail
from protocols.pools.joining import pool
from protocols.pools.pool import Pool
from protocols.pools.variables import Categorical, Label, Variable, categorical
from protocols.release.disclosure import Disclosure, Release, hold, refusal
from protocols.release.steps import buckets_of
from protocols.release.suppression import rounded
from protocols.survival.endings import at_risk, endings
from protocols.survival.log_rank_steps import open_in_buckets
from protocols.survival.survival_results import LogRankResult
from protocols.survival.time_grids import TimeGridLike, agreed_grid, followed

WEIGHTS = ("wilcoxon", "tarone-ware", "peto", "fleming-harrington")
# A value that is to be truncated has at most so many bits: with seven parties, too, its mask has room then.
_ROOM_BITS = 78
_FINEST_SCALE = 34
_HIDDEN_BITS = 6
# Eigenvalues of the covariance below this part of the largest count as 0.
_SINGULAR = 1e-9
# Covariances that are all below this, in units of the largest weight, are rounding.
_NO_SPREAD = 2.0**-26


async def log_rank(
    party: Party,
    time: Any,
    event: Any,
    group: Any,
    *,
    grid: TimeGridLike,
    categories: Sequence[Label] | None = None,
    strata: Any = None,
    strata_categories: Sequence[Label] | None = None,
    stratified: bool | None = None,
    weights: str | None = None,
    partition: str = "rows",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> LogRankResult | None:
    """Test whether groups have the same hazard.

    Parameters
    ----------
    party : Party
    time, event : array_like
        See :func:`protocols.survival.kaplan_meier`.
    group : array_like
        A category for each row. With ``partition="columns"`` None where another party holds it.
    grid : sequence of float, (start, stop, step), or step
        Public times at which events are told apart, see :mod:`protocols.survival.time_grids`: times are rounded up to
        it.
    categories : sequence, optional
        All groups, agreed in the study.
    strata : array_like, optional
        A category for each row: groups are compared within each stratum.
    strata_categories : sequence, optional
    stratified : bool, optional
        With ``partition="columns"``: True at all parties if one of them gives strata.
    weights : {None, "wilcoxon", "tarone-ware", "peto", "fleming-harrington"}
        Weight of a time with n rows at risk: 1, n, the square root of n, Peto and Peto's estimate of survival
        there, or the Kaplan-Meier estimate just before it (rho = 1; both of all groups together, in the stratum).
    partition : {"rows", "columns"}
    to : collection of int, optional
        Ranks of the parties that learn the result; all by default.
    disclosure : Disclosure, optional
        A minimum cell holds for the events and for the censored rows of each group; with strata also for the events
        and for the censored rows of each stratum, and for the rows of each group in each stratum.

    Returns
    -------
    LogRankResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError, AgreementError
        See :func:`protocols.pools.joining.pool`; negative times; fewer than two groups with rows.
    DisclosureError
        At all parties: too few rows or parties, or events or censored rows of a group.

    Notes
    -----
    **Who learns what.** All parties: how many rows are complete, in how many each variable is missing, how many each
    group has, and what :func:`protocols.pools.joining.pool` says. Those in ``to``: for each group the events, and
    observed less expected events over all times and strata (with weights and without) and the covariance of the
    weighted ones, rounded to ``2^-28`` and ``2^-40``. Statistic and p-value follow from these. Counts of single times,
    of strata, and rows at risk stay shared. Semi-honest. On few times all their digits would tell such counts: with a
    minimum cell m each difference and each covariance is told to one part in ``4 n / m`` of itself (at most 1024); what
    is told of the largest group brings sums to 0. Statistic, p-value and expected events follow from what is told: p of
    two groups is that of a statistic off by three times as much at most. With a disclosure control that rounds, the
    events are rounded, and the expected numbers are those less the difference.

    **Error**: observed less expected and covariance are off by about ``2^-28`` (in units of the largest weight) and
    ``2^-30`` of themselves; the statistic keeps six digits where the covariance is above 1e-2. Compare lifelines'
    ``multivariate_logrank_test`` and statsmodels' ``survdiff``.

    **Cost** with G points, g groups and s strata: about ``s G (45 + 4 g)`` elements (two divisions, :func:`mpc.divide`,
    side by side) in about 45 rounds with a dealer, whatever the number of rows; with ``prss`` and t possible colluders
    ``4 t`` rounds more, and of five or seven parties 2 to 3 times the elements. With columns also what
    :func:`protocols.survival.kaplan_meier` takes. Weights take 5 to 20 rounds (``2 t`` more) and ``s G`` times 6 to 42
    elements more, those of Peto and of Fleming and Harrington also ``2 log2(G)`` rounds. With a minimum cell see
    :func:`protocols.survival.log_rank_steps.open_in_buckets`.

    Sources: Mantel, Cancer Chemother. Rep. 50, 1966; Klein, Moeschberger, "Survival Analysis", 2003, section 7.3.
    """
    if weights is not None and weights not in WEIGHTS:
        raise ValueError(f"weights is None, {', '.join(map(repr, WEIGHTS))}, not {weights!r}")
    release = Release.of(party, to, disclosure)
    scope, data = party.at("log rank"), followed(time, event, rank=party.rank)
    options = {"weights": weights, **release.terms()}
    points = await agreed_grid(scope.at("grid"), "log_rank", grid, data, partition=partition, terms=options)
    scope = points.scope(scope, grid)
    variables: dict[str, Variable | None] = data.on(points)
    variables["group"] = _factor(group, "group", categories, party.rank)
    with_strata = strata is not None if stratified is None else stratified
    if with_strata:
        variables["strata"] = _factor(strata, "strata", strata_categories, party.rank)
    made = await pool(
        scope.at("pool"),
        "log_rank",
        variables,
        partition=partition,
        release=release,
        kinds=dict.fromkeys(variables, Categorical),
        terms={"grid": points.describe(), **options},
    )
    sizes = await made.open_sizes()
    members = await made.group_sizes("group")
    groups = made.categories["group"]
    if (members > 0).sum() < 2 and not party.rehearsing:
        raise DataError(f"log_rank: {(members > 0).sum()} of {len(groups)} groups have rows; it takes two")
    await _check_events(scope.at("rule"), made, with_strata)

    # 1. Events and rows at risk, for each stratum, group and time. What follows depends on the public number of rows,
    #    so that it has a name of its own for each: a rehearsal does not know the number yet.
    scope, rows = scope.at(f"of {sizes.n} rows"), max(2, sizes.n)
    counts = (await made.counts("time", "event", "group", *(["strata"] if with_strata else []))).bounded_by(rows)
    blocks = len(made.categories["strata"]) if with_strata else 1
    ended = endings(counts.reshape(len(points) + 1, 2, len(groups) * blocks))
    shape = (len(groups), blocks, len(points))
    table = _Table(ended[:, 0].reshape(*shape), at_risk(ended, rows).reshape(*shape), rows)

    # 2. Observed less expected, and its covariance, on shares.
    found = await _compare(scope.at("compare"), table, weights)
    observed = table.events.reshape(len(groups), -1).sum(axis=1).bounded_by(rows)
    if disclosure is not None and disclosure.rounding > 1:
        observed = await rounded(scope.at("rounding"), observed, disclosure.rounding)
    opened = await _opened(scope, observed, found, members, release)
    if opened is None:
        return None
    o, plain, difference, covariance = opened
    if disclosure is None and not o.any():
        plain, difference, covariance = (np.zeros_like(one) for one in (plain, difference, covariance))
    statistic, df, p_value = _tested(difference, covariance, members > 0)
    return LogRankResult(
        statistic,
        df,
        p_value,
        o,
        o - plain,
        difference * found.unit,
        covariance * found.unit**2,
        members,
        weights,
        groups,
        made.categories["strata"] if with_strata else (),
        sizes.n,
        sizes.missing,
        _roundings(release, sizes.n),
        tuple(map(str, groups)),
    )


def _factor(values: Any, what: str, categories: Sequence[Label] | None, rank: int) -> Categorical | None:
    return None if values is None else categorical(values, rank=rank, what=what, categories=categories)


async def _opened(
    party: Party, observed: Share, found: _Compared, members: NDArray[np.int64], release: Release
) -> list[NDArray[np.float64]] | None:
    """Open events, differences without and with weights, and the covariance."""
    buckets = buckets_of(release, int(members.sum()))
    if buckets is None:
        shares = [observed, found.plain, found.difference, found.covariance]
        opened = await open_(party, *shares, to=release.to)
        return None if opened[0] is None else [np.asarray(one, np.float64) for one in opened]
    events = await open_(party, observed, to=release.to)
    differences = [found.plain] if found.plain is found.difference else [found.plain, found.difference]
    scope = party.at(f"in {buckets} buckets")
    told = await open_in_buckets(scope, differences, found.covariance, members, buckets, release.to)
    if events is None or told is None:
        return None
    return [np.asarray(events, np.float64), told[0], *told[-2:]]


def _roundings(release: Release, n: int) -> tuple[str, ...]:
    """Say what is rounded."""
    found = []
    if release.disclosure is not None and release.disclosure.rounding > 1:
        found.append(f"events are rounded to multiples of {release.disclosure.rounding}")
    buckets = buckets_of(release, n)
    if buckets is not None:
        found.append(
            f"differences and covariances are told to one part in {2 * buckets} of themselves, and all else follows "
            "from what is told"
        )
    return tuple(found)


async def _check_events(party: Party, made: Pool, with_strata: bool) -> None:
    """Raise at all parties if a group or a stratum has fewer events, or fewer censored rows, than the minimum cell.

    So if a stratum has fewer rows of a group: differences and their covariance would tell of them.
    """
    disclosure = made.release.disclosure
    if disclosure is None or not disclosure.minimum_cell:
        return
    cells = (await made.counts("group", "event")).reshape(-1)
    if with_strata:
        within = [(await made.counts("strata", other)).reshape(-1) for other in ("event", "group")]
        cells = concatenate([cells, *within])
    short = await less_than(party.at("cells"), cells, disclosure.minimum_cell)
    if not await hold(party, short):
        raise refusal(disclosure, made.protocol, event_rules(disclosure, with_strata=with_strata))


def event_rules(disclosure: Disclosure, *, with_strata: bool) -> list[str]:
    """Return the rule for events in words."""
    if not disclosure.minimum_cell:
        return []
    rule = f"at least {disclosure.minimum_cell} events and as many censored rows in each group"
    return [rule + " and in each stratum, and as many rows of each group in each stratum" if with_strata else rule]


class _Table(NamedTuple):
    """Counts on a grid: shapes (groups, strata, points)."""

    events: Share
    risk: Share
    rows: int


class _Compared(NamedTuple):
    """Sums over all times and strata.

    Attributes
    ----------
    plain, difference : Share
        Shape (groups,): observed less expected, not weighted and weighted.
    covariance : Share
        Shape (groups, groups): of the weighted ones.
    unit : float
        Weights were divided by this.
    """

    plain: Share
    difference: Share
    covariance: Share
    unit: float


async def _compare(party: Party, table: _Table, weights: str | None) -> _Compared:
    """Compute observed less expected and its covariance; see :func:`log_rank`."""
    groups = len(table.events)
    rows = table.rows
    events, risk = table.events.reshape(groups, -1), table.risk.reshape(groups, -1)
    d, n = events.sum(axis=0).bounded_by(rows), risk.sum(axis=0).bounded_by(rows)
    scale = min(_FINEST_SCALE, (_ROOM_BITS - 1 - rows.bit_length()) // 2)

    # 1. Parts of the rows at risk, (groups, times); and (n - d) / (n - 1), where a single row at risk gives 0, as
    #    does none: then there is no variance.
    async with side_by_side() as group:
        parts = group.create_task(_parts(party.at("parts"), risk, n, rows, scale))
        others = group.create_task(_others(party.at("others"), n, d, rows, scale))
    p = parts.result()
    d = await mask(party, d)
    variance = (await multiply(party, d, others.result())).bounded_by(1.001 * rows)

    # 2. Observed less expected: sums over times of d_j - d p_j.
    plain = events.sum(axis=1) - await matmul(party, p, d)
    difference, unit = plain, 1.0
    if weights is not None:
        w, unit = await _weights(party.at("weights"), weights, table, n, d, scale)
        weighted = await multiply(party, w.reshape(1, -1), events)
        expected = (await truncate(party, await multiply(party, w, d), scale)).bounded_by(1.001 * rows)
        difference = weighted.sum(axis=1) - await matmul(party, p, expected)
        for _ in range(2):
            variance = await truncate(party, (await multiply(party, w, variance)).bounded_by(1.01 * rows), scale)

    # 3. Covariance: sums over times of v p_j ([j = l] - p_l).
    spread = (await multiply(party, p, variance.reshape(1, -1))).bounded_by(1.01 * rows)
    spread = await truncate(party, spread, scale)
    diagonal = spread.sum(axis=1).reshape(groups, 1).broadcast_to((groups, groups)) * np.eye(groups, dtype=np.int64)
    covariance = diagonal - await matmul(party, spread, p.T)
    # 4. Rounded before they are opened, so that the low bits of products stay hidden.
    shares = [plain] if weights is None else [plain, difference]
    shares = await truncate_all(party, [one.bounded_by(1.1 * rows) for one in shares], scale - _HIDDEN_BITS)
    plain, difference = shares[0], shares[-1]
    covariance = await truncate(party, covariance.bounded_by(1.1 * rows), scale + _HIDDEN_BITS)
    return _Compared(plain, difference, covariance, unit)


async def _parts(party: Party, risk: Share, n: Share, rows: int, scale: int) -> Share:
    return (await divide(party, risk, n.reshape(1, -1), lower=1, upper=rows, scale=scale)).bounded_by(1.001)


async def _others(party: Party, n: Share, d: Share, rows: int, scale: int) -> Share:
    return (await divide(party, n - d, n - 1, lower=1, upper=rows, scale=scale)).bounded_by(2.001)


async def _weights(party: Party, weights: str, table: _Table, n: Share, d: Share, scale: int) -> tuple[Share, float]:
    """Return the weight of each time, masked, at most 1.001, in units of the second result."""
    bits = table.rows.bit_length()
    bits += bits % 2
    if weights == "wilcoxon":
        whole = n.scaled_down(bits)
        if whole.scale <= scale:
            return await mask(party, whole.lifted(scale)), 2.0**bits
        return (await truncate(party, whole, scale)).bounded_by(1.001), 2.0**bits
    if weights == "tarone-ware":
        found = await sqrt(party, n.scaled_down(bits), upper=1.0, scale=scale)
        return (await mask(party, found)).bounded_by(1.001), 2.0 ** (bits // 2)
    more = int(weights == "peto")
    parts = await divide(party, d, n + more, lower=1, upper=table.rows + more, scale=scale)
    left = (1 - parts).reshape(*table.events.shape[1:]).bounded_by(1.001)
    survival = await _running_product(party, left)
    if not more:  # just before each time
        ones = party.constant(1.0, scale=scale, shape=(len(survival), 1))
        survival = concatenate([ones, survival[:, :-1]], axis=1)
    return await mask(party, survival.reshape(-1).bounded_by(1.001)), 1.0


async def _running_product(party: Party, x: Share) -> Share:
    """Return products up to each entry of the last axis, of numbers from 0 to 1.

    Notes
    -----
    Nothing is revealed. Error: that of one truncation, ``log2(entries)`` times, and of the factors, added up.
    Cost: ``ceil(log2(entries))`` times 2 rounds and 3 elements an entry.
    """
    reach = 1
    while reach < x.shape[-1]:
        product = await multiply(party, x[..., reach:], x[..., :-reach])
        upper = await truncate(party, product.bounded_by(1.01), x.scale)
        x = concatenate([x[..., :reach], upper.bounded_by(1.001)], axis=1)
        reach *= 2
    return x


def _tested(
    difference: NDArray[np.float64], covariance: NDArray[np.float64], occupied: NDArray[np.bool_]
) -> tuple[float, int, float]:
    """Return the statistic over all occupied groups but the last, its degrees of freedom and its p-value."""
    kept = np.flatnonzero(occupied)[:-1]
    u, v = difference[kept], covariance[np.ix_(kept, kept)]
    if np.abs(v).max(initial=0.0) < _NO_SPREAD:
        return 0.0, kept.size, 1.0 if kept.size else float("nan")
    statistic = max(0.0, float(u @ np.linalg.pinv((v + v.T) / 2, rcond=_SINGULAR, hermitian=True) @ u))
    return statistic, kept.size, chi_squared_tail(statistic, kept.size)
