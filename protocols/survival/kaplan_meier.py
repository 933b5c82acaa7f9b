"""Kaplan-Meier curves of the pooled data: the counts of each interval are added up, the curve is made in the clear.

A curve tells the counts that it is made of: how many rows are at risk at the beginning of each interval, how
many have an event in it, how many are censored in it. So these counts are what is opened, and what a disclosure
control must speak of. Where it asks for a minimum, neighbouring intervals are merged until each count is 0 or
at least the minimum, and nothing else is ever opened: there is no withheld count that could follow from others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, open_
from protocols.pools.joining import pool
from protocols.pools.variables import Categorical, Label, Variable, categorical
from protocols.release.disclosure import Disclosure, Release
from protocols.release.suppression import rounded
from protocols.survival.endings import endings, running
from protocols.survival.merging import merged
from protocols.survival.survival_results import CONF_TYPES, KaplanMeierResult, SurvivalCurve, survival_curve
from protocols.survival.time_grids import TimeGrid, TimeGridLike, agreed_grid, followed


async def kaplan_meier(
    party: Party,
    time: Any,
    event: Any,
    *,
    grid: TimeGridLike,
    group: Any = None,
    categories: Sequence[Label] | None = None,
    grouped: bool | None = None,
    confidence: float = 0.95,
    conf_type: str = "log-log",
    partition: str = "rows",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> KaplanMeierResult | None:
    """Estimate survival with the data of all parties.

    Parameters
    ----------
    party : Party
    time, event : array_like
        Shape (rows,): how long each row was followed, at least 0; 1 or True if it had the event then, 0 or False
        if it was censored. NaN and None are missing: such rows are left out and counted. With
        ``partition="columns"`` None where another party holds them.
    grid : sequence of float, (start, stop, step), or step
        Public times at which events are told apart, see :mod:`protocols.survival.time_grids`: times are rounded up to
        it. A step alone tells all parties the order of magnitude (the power of 16) of the largest time.
    group : array_like, optional
        A category for each row: one curve for each.
    categories : sequence, optional
        All groups, agreed in the study.
    grouped : bool, optional
        With ``partition="columns"``: True at all parties if one of them gives groups.
    confidence : float
        Of the pointwise intervals.
    conf_type : {"log-log", "plain", "log"}
        Intervals on the scale of ``log(-log(S))`` (the default of lifelines), of S, or of log S (that of R).
    partition : {"rows", "columns"}
    to : collection of int, optional
        Ranks of the parties that learn the curves; all by default.
    disclosure : Disclosure, optional

    Returns
    -------
    KaplanMeierResult or None
        None at a party that is not in ``to``.

    Raises
    ------
    DataError, AgreementError
        See :func:`protocols.pools.joining.pool`; negative times.
    DisclosureError
        At all parties: too few rows or parties, also of a group.

    Notes
    -----
    **Who learns what.** All parties: how many rows are complete, in how many each variable is missing, how many each
    group has, and what :func:`protocols.pools.joining.pool` says. Those in ``to``: for each group and interval of the
    grid how many rows have an event and how many are censored, which is what the curve is made of. Semi-honest.

    **With a minimum cell m**, each group has at least m rows, and its intervals are merged until all counts of events
    and of censored rows are 0 or at least m: :func:`protocols.survival.merging.merged` says how, and what that reveals
    to all parties. A group that has between 1 and m - 1 events (or censored rows) in all is withheld. Rows at risk are
    sums of opened counts, hence 0 or at least m, too. Counts of 0 are shown: that nobody had an event in an interval
    speaks of all rows at risk then. Events of a merged interval count at its end, as with a coarser grid.
    **With rounding** the numbers of events and of censored rows up to each time are rounded before they are opened, so
    that errors do not add up; rows at risk, curve and median follow from rounded counts. The numbers of rows of
    the groups stay exact. Curves of the same rows in other groups, or on other grids, may tell more together.

    **Error**: counts are exact, the rest is float64 arithmetic on them; the same as lifelines' ``KaplanMeierFitter`` on
    times rounded up to the grid.

    **Cost** with G points and g groups: with rows that of the pool, and 1 round with ``2 G g`` elements, whatever the
    number of rows. With columns and n rows about ``2 n (G + g + 4)`` elements more. A minimum cell: see
    :func:`protocols.survival.merging.merged`; rounding: see :func:`protocols.release.suppression.rounded`.

    Sources: Kaplan, Meier, J. Amer. Statist. Assoc. 53, 1958; Greenwood's variance and intervals: Kalbfleisch,
    Prentice, "The Statistical Analysis of Failure Time Data", 2002, section 1.4.
    """
    _check_options(confidence, conf_type)
    release = Release.of(party, to, disclosure)
    scope, data = party.at("kaplan meier"), followed(time, event, rank=party.rank)
    options = {"confidence": float(confidence), "conf_type": conf_type, **release.terms()}
    points = await agreed_grid(scope.at("grid"), "kaplan_meier", grid, data, partition=partition, terms=options)
    scope = points.scope(scope, grid)
    variables: dict[str, Variable | None] = data.on(points)
    kinds: dict[str, type[Variable]] = {"time": Categorical, "event": Categorical}
    with_groups = group is not None if grouped is None else grouped
    if with_groups:
        variables["group"] = (
            None if group is None else categorical(group, rank=party.rank, what="group", categories=categories)
        )
        kinds["group"] = Categorical
    made = await pool(
        scope.at("pool"),
        "kaplan_meier",
        variables,
        partition=partition,
        release=release,
        kinds=kinds,
        terms={"grid": points.describe(), **options},
    )
    sizes = await made.open_sizes()
    if not sizes.n and not party.rehearsing:
        raise DataError("kaplan_meier: no row is complete")
    if with_groups:
        await made.group_sizes("group")

    # 1. Counts of each interval: events and censored rows. What follows depends on the public number of rows, so that
    #    it has a name of its own for each: a rehearsal does not know the number yet.
    scope = scope.at(f"of {sizes.n} rows")
    factors = ["time", "event", "group"] if with_groups else ["time", "event"]
    groups: tuple[Label | None, ...] = made.categories["group"] if with_groups else (None,)
    counts = (await made.counts(*factors)).bounded_by(max(1, sizes.n))
    ended = endings(counts.reshape(len(points) + 1, 2, len(groups)))

    # 2. What may be opened of them, and opening it.
    found = await _open_endings(scope.at("counts"), ended, sizes.n, release)
    if found is None:
        return None

    # 3. The curves, in the clear.
    curves = tuple(_curve(label, one, points, confidence, conf_type) for label, one in zip(groups, found, strict=True))
    return KaplanMeierResult(
        curves,
        sizes.n,
        sizes.missing,
        float(confidence),
        conf_type,
        _reasons(found, groups, len(points), release.disclosure),
        tuple(str(label) for label in groups if label is not None),
    )


def _check_options(confidence: float, conf_type: str) -> None:
    if not 0 < confidence < 1:
        raise ValueError("confidence is between 0 and 1")
    if conf_type not in CONF_TYPES:
        raise ValueError(f"conf_type is {', '.join(map(repr, CONF_TYPES))}, not {conf_type!r}")


@dataclass(frozen=True, eq=False)
class _Opened:
    """Counts of a group's intervals, of which each ends with the ``stops``-th point; None if nothing."""

    stops: NDArray[np.int64]
    counts: NDArray[np.int64] | None


async def _open_endings(party: Party, ended: Share, n: int, release: Release) -> list[_Opened] | None:
    """Open events and censored rows of each group in intervals; see :func:`kaplan_meier`."""
    groups, _, points = ended.shape
    disclosure = release.disclosure
    minimum = 0 if disclosure is None else disclosure.minimum_cell
    stops: list[NDArray[np.int64] | None] = [np.arange(1, points + 1)] * groups
    upto = running(ended, n)
    if minimum > 1:
        stops = await merged(party.at("merge"), upto, minimum)
    rounding = 1 if disclosure is None else disclosure.rounding
    if rounding > 1:
        # All of them, so that what is computed does not depend on what was merged.
        upto = (await rounded(party.at("rounding"), upto.reshape(-1), rounding)).reshape(ended.shape)
    shown = [upto[k][:, ends - 1].reshape(-1) for k, ends in enumerate(stops) if ends is not None]
    opened = await open_(party, concatenate(shown), to=release.to) if shown else np.zeros(0, np.int64)
    if opened is None or (release.to is not None and party.rank not in release.to):
        return None
    found, start = [], 0
    for ends in stops:
        if ends is None:
            found.append(_Opened(np.zeros(0, np.int64), None))
            continue
        sums = np.asarray(opened[start : start + 2 * ends.size]).reshape(2, -1)
        found.append(_Opened(ends, np.diff(sums, axis=1, prepend=0).astype(np.int64)))
        start += 2 * ends.size
    return found


def _curve(label: Label | None, one: _Opened, grid: TimeGrid, confidence: float, conf_type: str) -> SurvivalCurve:
    counts = np.zeros((2, 0), np.int64) if one.counts is None else one.counts
    time = grid.points[one.stops - 1]
    since = np.concatenate([[0.0], time[:-1]]) if time.size else time
    return survival_curve(label, since, time, counts[0], counts[1], confidence, conf_type)


def _reasons(
    found: Sequence[_Opened], groups: Sequence[Label | None], points: int, disclosure: Disclosure | None
) -> tuple[str, ...]:
    """Say what was withheld, merged and rounded."""
    reasons = []
    for label, one in zip(groups, found, strict=True):
        who = "the curve" if label is None else f"the curve of {label}"
        if one.counts is None:
            reasons.append(f"{who} is withheld: too few events, or too few censored rows")
        elif one.stops.size < points:
            reasons.append(f"{who}: {points} intervals are merged into {one.stops.size}, some have too few rows")
    if disclosure is not None and disclosure.rounding > 1:
        reasons.append(f"counts are rounded to multiples of {disclosure.rounding}; the curves follow from these")
    return tuple(reasons)
