"""Table 1: baseline characteristics of the pooled rows, overall and by group."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import Party, open_
from protocols.agreement import agree
from protocols.comparisons.group_means import spread_floor
from protocols.comparisons.quantiles import quantile
from protocols.pools.frames import Frame, kind_of
from protocols.pools.moments import Moments
from protocols.pools.pool import Pool
from protocols.pools.variables import Categorical, Column, Label, Numeric
from protocols.release.disclosure import Disclosure, DisclosureError, Release
from protocols.release.suppression import lines_of, open_counts, withheld_counts
from protocols.tables.count_statistics import NO_TEST
from protocols.tables.proportions import rounding_note
from protocols.tables.table_one_groups import Groups, Study, all_rows, find_groups, group_sizes, merged
from protocols.tables.table_one_results import (
    Characteristic,
    TableOneResult,
    chi_squared_of_counts,
    difference_of_means,
    difference_of_parts,
    welch_anova,
)

_QUARTILES = [0.25, 0.5, 0.75]
_FEW = "not shown by group: too few rows in one of them"


async def table_one(
    party: Party,
    frame: Any,
    *,
    by: str | None = None,
    columns: Sequence[Column] | None = None,
    p_values: bool = False,
    quantiles: bool = True,
    partition: str = "rows",
    to: Collection[int] | None = None,
    disclosure: Disclosure | None = None,
) -> TableOneResult | None:
    """Describe the pooled rows: means, standard deviations, quartiles and counts, overall and by group.

    Parameters
    ----------
    party : Party
    frame : Frame, pandas.DataFrame or mapping of str to array_like
        Our rows. With ``partition="columns"`` the columns that we hold.
    by : str, optional
        The column whose categories are the groups. Rows in which it is missing are left out.
    columns : sequence of Column, optional
        What each column holds, agreed in the study, in the order of the table; needed with ``partition="columns"``.
        By default each party's types say it (see :func:`protocols.pools.frames.columns_of`); they must be the same.
    p_values : bool
        Tests of no difference between groups: Welch's analysis of variance for numbers, Pearson's chi-squared for
        categories. Off by default: in a table of randomised groups they test what is known, and there are many.
    quantiles : bool
        Medians and quartiles; most of the time goes into these.
    partition : {"rows", "columns"}
    to : collection of int, optional
        Ranks that learn the table; all by default.
    disclosure : Disclosure, optional
        Groups and cells below the minimum are withheld, and others that would tell them; a variable that a rule
        does not allow is withheld, and the table goes on.

    Returns
    -------
    TableOneResult or None
        None at a party that learns nothing.

    Raises
    ------
    AgreementError
        Before any value is shared: the parties declare a column differently; names it.
    DataError
        Our data does not fit what is declared; see :class:`protocols.pools.frames.Frame`.
    DisclosureError
        At all parties: too few rows or parties for any table.

    Notes
    -----
    Each variable is described over the rows in which it is not missing.
    All parties learn how many rows there are, overall and in each group that is not withheld, and for each variable in
    how many of them it is missing (how many values are missing is not treated as a cell); which groups and cells
    are withheld, and which variables a rule does not allow; and what the pools tell of each variable (without
    declared bounds or categories: orders of magnitude, labels). The recipients learn the rest. A group is shown for
    all variables or for none; those that are withheld together have at least the minimum, as the overall numbers
    less the shown ones tell theirs. A variable with too few values in a group that is shown is not shown by group.
    Differences and tests are functions of what is opened. Semi-honest.
    Error: counts are exact; means and standard deviations as in :mod:`protocols.pools.moments`.
    Quartiles interpolate linearly; with ``partition="columns"`` they take a ``by`` that is never missing.
    Cost with rows, g groups, n parties, declared bounds and categories, without rules: 6 rounds and g + 3 elements
    opened; for each number 25 rounds and at most ``(g + 1)(4 n + 4) + g + 3`` elements; for each category of k values
    7 rounds and ``(g + 1)(k + 1) + g + 3``. Quartiles cost much more, see
    :func:`protocols.comparisons.quantiles.quantile`, which runs twice. Where groups are withheld, a number takes a
    second pool; with rules see :func:`protocols.release.suppression.open_counts`.
    """
    release = Release.of(party, to, disclosure)
    if partition == "columns" and columns is None and not isinstance(frame, Frame):
        raise ValueError("with partition='columns' all parties declare all columns: columns=[Column(...)]")
    ours = frame if isinstance(frame, Frame) else Frame(frame, columns, rank=party.rank, partial=partition == "columns")
    if by is not None and kind_of(ours.column(by)) is not Categorical:
        raise ValueError(f"by is a category or a boolean; {by} is of type {ours.column(by).type}")
    shown = [column for column in ours.columns if column.name != by]
    if not shown:
        raise ValueError("table_one takes at least one column beside by")
    terms = {"by": by, "p_values": p_values, "quantiles": quantiles, "partition": partition, **release.terms()}
    await agree(party, "table_one", {"columns": list(ours.names), **ours.describe(), **terms})

    study = Study(party, ours, release, partition, p_values, quantiles)
    groups = None if by is None else await find_groups(study, by)
    n = await all_rows(study) if groups is None else groups.total
    found = [await _describe(study, column, groups, n, k) for k, column in enumerate(shown)]
    every = tuple(one for one in found if one is not None)
    if not every:
        return None
    if groups is None:
        return TableOneResult("", (), np.empty(0), every, p_values, n, {}, rounding_note(release))
    reasons = (*groups.reasons, *rounding_note(release))
    return TableOneResult(by or "", groups.labels, groups.n, every, p_values, n, groups.missing, reasons)


async def _describe(study: Study, column: Column, groups: Groups | None, rows: int, k: int) -> Characteristic | None:
    """Describe one variable; None at a party that learns nothing."""
    scope = study.party.at(f"variable {k}")
    variables = {"x": (column, study.frame.variable(column.name))}
    if groups is not None:
        variables["by"] = (groups.column, groups.variable)
    made = await study.pooled(scope.at("pool"), variables)
    one = _blank(column, made.categories.get("x", ()), 0 if groups is None else len(groups.labels))
    try:
        sizes = await made.open_sizes()
    except DisclosureError:
        return _to_recipients(study, replace(one, suppressed=("withheld: too few rows or parties",)))

    # 1. How many values there are, overall and by group.
    notes, by_group = list[str](), None
    one.n[0], one.missing[0] = sizes.n, rows - sizes.n
    if groups is not None:
        by_group = await group_sizes(_apart(scope, groups).at("sizes"), made, groups)
        if by_group is None:
            notes.append(_FEW)
        else:
            one.n[groups.places] = by_group
            one.missing[groups.places] = groups.n[groups.shown] - by_group

    # 2. What they are.
    fill = _numbers if one.kind == "number" else _categories
    filled = await fill(study, scope, one, made, groups, by_group, notes)
    if filled is None:
        return None
    if not study.p_values or (groups is not None and not groups.all_shown):
        filled = replace(filled, test=NO_TEST)
        notes += ["no test: groups are withheld"] if study.p_values else []
    return replace(filled, suppressed=tuple(notes))


def _blank(column: Column, levels: tuple[Label, ...], groups: int) -> Characteristic:
    """Return a variable of which nothing is known."""
    n, missing, mean, sd, median, q1, q3 = np.full((7, 1 + groups), np.nan)
    return Characteristic(
        name=column.name,
        unit=column.unit,
        kind="number" if kind_of(column) is Numeric else "category",
        n=n,
        missing=missing,
        mean=mean,
        sd=sd,
        median=median,
        q1=q1,
        q3=q3,
        levels=levels,
        counts=np.full((len(levels), 1 + groups), np.nan),
        parts=np.full((len(levels), 1 + groups), np.nan),
        smd=np.nan,
        test=NO_TEST,
    )


def _apart(scope: Party, groups: Groups | None) -> Party:
    """Return a scope that a rehearsal does not enter, where its shapes are not those of the real run."""
    return scope if groups is None or groups.all_shown else scope.at("merged")


def _to_recipients(study: Study, one: Characteristic) -> Characteristic | None:
    to = study.release.to
    return one if to is None or study.party.rank in to else None


async def _categories(
    study: Study,
    scope: Party,
    one: Characteristic,
    made: Pool,
    groups: Groups | None,
    by_group: NDArray[np.int64] | None,
    notes: list[str],
) -> Characteristic | None:
    """Count categories, overall and by group."""
    if groups is None or by_group is None:
        found = await made.counts("x")
        (k,), rows, shown = found.shape, 1, 0
        opened = await open_counts(scope.at("no groups"), found, lines_of((k,)), study.release)
    else:
        found = await made.counts("by", "x")
        k, shown = found.shape[1], len(by_group)
        # The sizes of the groups are public by now; which overall counts are shown does not depend on the groups.
        overall = scope.at("overall cells")
        hidden, _ = await withheld_counts(overall, found.sum(axis=0), lines_of((k,)), study.release)
        table = merged(found, groups)
        rows, cells = len(table), _apart(scope, groups).at("cells")
        never = rows + np.flatnonzero(hidden[:k])
        always = [*range(rows), *(rows + np.flatnonzero(~hidden[:k]))]
        lines = lines_of((rows, k))
        opened = await open_counts(cells, table.reshape(-1), lines, study.release, told=always, withheld=never.tolist())
    if opened is None:
        return None
    counts = one.counts.copy()
    if groups is None or by_group is None:
        counts[:, 0] = opened.counts
    else:
        counts[:, 0] = opened.totals[rows : rows + k]
        counts[:, groups.places] = opened.counts.reshape(rows, k)[:shown].T
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = counts / one.n
    notes.extend(opened.reasons)
    smd, test = difference_of_parts(parts[:, 1:]), NO_TEST
    if by_group is not None:
        test = chi_squared_of_counts(counts[:, 1:])
    return replace(one, counts=counts, parts=parts, smd=smd, test=test)


async def _numbers(
    study: Study,
    scope: Party,
    one: Characteristic,
    made: Pool,
    groups: Groups | None,
    by_group: NDArray[np.int64] | None,
    notes: list[str],
) -> Characteristic | None:
    """Compute means, standard deviations and quartiles, overall and by group."""
    mean, sd = one.mean.copy(), one.sd.copy()
    allowed = await _allowed(made, None, notes)
    if allowed:
        opened = await _opened_moments(scope.at("overall"), made, await made.moments("x"), 1)
        if opened is not None:
            mean[:1], sd[:1] = opened
    if allowed and groups is not None and by_group is not None:
        grouped, sizes = made, by_group
        if not groups.all_shown:
            # Overall numbers less the shown ones tell those of the other groups together: rules hold for these, too.
            x = (study.frame.column(one.name), study.frame.variable(one.name))
            merged = (groups.column, groups.merged_variable)
            grouped = await study.pooled(scope.at("merged groups"), {"x": x, "by": merged})
            sizes = np.append(by_group, made.sizes.n - by_group.sum())
        if await _allowed(grouped, "by", notes):
            moments = await grouped.moments("x", "by", sizes)
            opened = await _opened_moments(_apart(scope, groups).at("by group"), grouped, moments, len(by_group))
            if opened is not None:
                mean[groups.places], sd[groups.places] = opened
    found = replace(one, mean=mean, sd=sd)
    if study.quantiles and (made.sizes.n or study.party.rehearsing):
        found = await _quartiles(study, scope.at("quartiles"), found, groups, by_group is not None, notes)
    smd = difference_of_means(mean[1:], sd[1:])
    return _to_recipients(study, replace(found, smd=smd, test=welch_anova(one.n[1:], mean[1:], sd[1:])))


async def _allowed(made: Pool, by: str | None, notes: list[str]) -> bool:
    """Whether the rules for values hold; says so if they do not."""
    try:
        await made.check_values("x", by)
    except DisclosureError as error:
        which = " by group" if by else ""
        notes.append(f"mean and SD{which} are withheld: {str(error).partition('it takes ')[2] or 'a rule for values'}")
        return False
    return True


async def _opened_moments(
    party: Party, made: Pool, m: Moments, groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Open means and standard deviations of the first groups, shape (groups,) each.

    A standard deviation that is not told apart from none is 0, so that no test is made of rounding.
    """
    mean, variance = await open_(party, m.mean[:groups], m.variance[:groups], to=made.release.to)
    if mean is None:
        return None
    n = m.n[:groups].astype(np.float64)
    told = np.where(variance[:, 0] > spread_floor(made, n), variance[:, 0], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.sqrt(told * (n / (n - 1)))
    spread[n < 2] = np.nan
    centre = np.where(n > 0, mean[:, 0], np.nan)
    return np.ldexp(centre, m.exponents[0]), np.ldexp(spread, m.exponents[0])


async def _quartiles(
    study: Study, party: Party, one: Characteristic, groups: Groups | None, grouped: bool, notes: list[str]
) -> Characteristic:
    """Compute medians and quartiles, overall and by group, as far as the rules allow."""
    found = np.stack([one.q1, one.median, one.q3]).copy()
    x = study.frame.variable(one.name)
    values, bound = None, study.frame.column(one.name).bound
    if isinstance(x, Numeric):
        values = np.where(x.present[:, 0], x.values[:, 0], np.nan)
    common: dict[str, Any] = {
        "partition": study.partition,
        "bound": bound,
        "to": study.release.to,
        "disclosure": study.release.disclosure,
    }
    if groups is None or study.partition == "rows" or groups.complete:
        overall = values
        if overall is not None and groups is not None and groups.variable is not None:
            overall = np.where(groups.variable.complete, overall, np.nan)
        try:
            result = await quantile(party.at("overall"), overall, _QUARTILES, **common)
            if result is not None:
                found[:, 0] = result.values
        except DisclosureError:
            notes.append("quartiles are withheld: too few rows beside one of them")
    else:
        notes.append("no quartiles of all rows: with partition='columns' these take groups that are never missing")
    if groups is not None and grouped:
        shown = groups.shown_variable
        labels = None if shown is None else list(shown.labels)
        try:
            result = await quantile(
                _apart(party, groups).at("by group"),
                values,
                _QUARTILES,
                by=labels,
                categories=groups.shown_labels,
                **common,
            )
            if result is not None:
                found[:, groups.places] = result.values.T
        except DisclosureError:
            notes.append("quartiles by group are withheld: too few rows beside one of them")
    return replace(one, q1=found[0], median=found[1], q3=found[2])
