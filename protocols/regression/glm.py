"""What regressions have in common before they compute: rows counted, cells checked, bounds found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, Share, concatenate, less_than, multiply, open_
from protocols.agreement import agree
from protocols.magnitudes import agree_exponents, exponents_of
from protocols.regression.coding import Coded
from protocols.regression.crossed import check_shared, too_rare
from protocols.regression.sample import Sample
from protocols.release.disclosure import Disclosure, Release, check, check_public, hold, quotas, refusal, short_of
from protocols.shares import sum_of

_COUNTED = 1 << 40


async def row_sizes(
    party: Party, protocol: str, ours: Sample, release: Release, *, columns: int
) -> tuple[int, dict[str, int | None]]:
    """Check the disclosure rules and open how many complete rows there are, and what is missing, in all parties' data.

    Notes
    -----
    All parties learn both; of missing values see :func:`missing_counts`. Cost: 2 rounds and 1 element, besides those of
    the rules.
    """
    await check(party.at("disclosure"), release.disclosure, protocol, rows=ours.rows, parameters=columns + 1)
    total = sum_of(await party.share(np.array([ours.rows]), bound=_COUNTED, shape=(1,)))
    n = int(np.asarray(await open_(party.at("sizes"), total))[0])
    return n, await missing_counts(party.at("missing"), ours, release)


async def rows_by_party(
    party: Party, protocol: str, ours: Sample, release: Release
) -> tuple[list[int], dict[str, int | None]]:
    """Check the disclosure rules, and say how many complete rows each party has, and what is missing in all of them.

    Notes
    -----
    All parties learn both; of missing values see :func:`missing_counts`. Cost: 1 round, besides those of the rules.
    """
    counts = [one["rows"] for one in await agree(party, protocol, {}, {"rows": ours.rows})]
    n, parameters = sum(counts), len(ours.names) + 1
    if not n:
        raise DataError(f"{protocol}: no party has a complete row")
    contributors = sum(count > 0 for count in counts)
    check_public(release.disclosure, protocol, rows=n, parties=contributors, parameters=parameters)
    await cells(party.at("disclosure"), protocol, ours, release)
    return counts, await missing_counts(party.at("missing"), ours, release)


async def missing_counts(party: Party, ours: Sample, release: Release) -> dict[str, int | None]:
    """Open in how many rows of all parties each variable is missing.

    Parameters
    ----------
    party : Party
        A scope of its own.
    ours : Sample
        With ``partition="rows"``.
    release : Release

    Returns
    -------
    dict of str to int or None
        None where a minimum cell withholds the number: it is smaller than that, and not 0.

    Notes
    -----
    All parties learn them, as of :meth:`protocols.pools.pool.Pool.open_sizes`. Cost: 1 round and an element a variable;
    with a minimum cell a comparison of twice as many entries and 1 round more. Nothing where they were refused.
    """
    names = list(ours.missing)
    if ours.refused:
        return dict.fromkeys(names, 0)
    gone = np.array(list(ours.missing.values()), np.int64)
    total = sum_of(await party.share(gone, bound=_COUNTED, shape=gone.shape))
    told = np.ones(len(names), np.bool_)
    least = 0 if release.disclosure is None else release.disclosure.minimum_cell
    if least > 1:
        limits = np.array([[least], [1]])
        below = await less_than(party.at("limits"), total.broadcast_to((2, len(names))), limits)
        told = np.asarray(await open_(party.at("few"), below[0] - below[1])) == 0
    found: dict[str, int | None] = dict.fromkeys(names)
    if told.any():
        opened = np.asarray(await open_(party, total[np.flatnonzero(told)])).tolist()
        found |= zip([name for name, shown in zip(names, told, strict=True) if shown], map(int, opened), strict=True)
    return found


async def cells(party: Party, protocol: str, ours: Sample, release: Release) -> None:
    """Check the rule for cells, with ``partition="rows"``: see :func:`check_crossed`; first categories count, too."""
    if release.disclosure is None or not release.disclosure.minimum_cell:
        return
    columns = np.column_stack([ours.coded.X, ours.coded.references])
    await check_crossed(party.at("cells"), release.disclosure, protocol, columns, ours.vectors["y"].values)


async def check_crossed(
    party: Party,
    disclosure: Disclosure | None,
    protocol: str,
    columns: NDArray[np.float64],
    outcome: NDArray[np.float64],
) -> None:
    """Raise at all parties if too few rows have a value of a yes-no column, or of that and of a yes-no outcome.

    Parameters
    ----------
    party : Party
        A scope of its own.
    disclosure : Disclosure or None
    protocol : str
    columns : numpy.ndarray
        Our rows, shape (rows, columns).
    outcome : numpy.ndarray
        Shape (rows,).

    Raises
    ------
    DisclosureError
        At all parties.

    Notes
    -----
    A coefficient of a column of 0 and 1 and its standard error give the table of the column by the outcome, so a small
    cell of it is told by them. One bit is opened, for all rules together. Each party counts its rows and caps the
    counts; whoever sees other values contributes the whole threshold, as in
    :func:`protocols.release.disclosure.quotas`. Tables of two columns by each other, or of three, are not looked at.
    Cost: a comparison of ``6 d + 2`` entries and one of a single entry; no element without a minimum cell.
    """
    if disclosure is None or not disclosure.minimum_cell:
        return
    least = disclosure.minimum_cell
    ours, needed = quotas(disclosure, None, np.column_stack([outcome, columns]))
    table = np.isin(columns, (0, 1)).all(axis=0) & np.isin(outcome, (0, 1)).all()
    cells = [((columns == a) & (outcome == b)[:, np.newaxis]).sum(axis=0) for a in (0, 1) for b in (0, 1)]
    crossed = np.where(table, np.minimum(cells, least), least).reshape(-1)
    ours = np.concatenate([ours, crossed])
    needed = np.concatenate([needed, np.full(crossed.size, least)])
    if not await hold(party, await short_of(party.at("counts"), ours, needed)):
        raise too_rare(disclosure, protocol)


async def presence(party: Party, ours: Sample) -> Share | None:
    """With ``partition="columns"``: share for each row whether nothing is missing in it; None if nothing ever is.

    Notes
    -----
    Nothing is revealed. Cost: a product over all rows for each party with gaps but the first.
    """
    flags = [
        await party.share(
            ours.present.astype(np.int64) if rank == party.rank else None, bound=1, owner=rank, shape=(ours.rows,)
        )
        for rank, gaps in enumerate(ours.gaps)
        if gaps
    ]
    if not flags:
        return None
    product: Share = flags[0]
    for other in flags[1:]:
        product = (await multiply(party, product, other)).bounded_by(1)
    return product


async def column_sizes(
    party: Party, protocol: str, ours: Sample, weight: Share | None, release: Release
) -> tuple[int, dict[str, int | None]]:
    """Check the disclosure rules and open how many complete rows there are, and what is missing at each party.

    Returns
    -------
    n : int
    missing : dict of str to int
        Rows in which something that a party holds is missing, by party.

    Notes
    -----
    All parties learn both; nothing is withheld, since all know the number of all rows, and so in how many of them
    anything is missing. Cost: 1 round and an element a party, where anything is missing, and a comparison with the
    rows that are needed; for cells see :func:`protocols.regression.crossed.check_shared`.
    """
    parameters = sum(ours.columns) + 1
    check_public(release.disclosure, protocol, rows=ours.rows, parties=party.size, parameters=parameters)
    await _shared_cells(party.at("cells"), protocol, ours, weight, release)
    if weight is None:
        return ours.rows, {}
    needed = 0 if release.disclosure is None else release.disclosure.rows_needed(parameters)
    if release.disclosure is not None and needed:
        scope = party.at("rows")
        if not await hold(scope, await less_than(scope, weight.sum().reshape(1), needed)):
            raise refusal(release.disclosure, protocol, [f"at least {needed} rows in which nothing is missing"])
    gone = np.array([int((~ours.present).sum())], np.int64)
    shares = await party.share(gone, bound=max(1, ours.rows), shape=(1,))
    opened = await open_(party.at("sizes"), weight.sum(), *[one.sum() for one in shares])
    n, *absent = (int(one) for one in opened)
    return n, {f"party {rank}": count for rank, count in enumerate(absent) if ours.gaps[rank]}


async def _shared_cells(party: Party, protocol: str, ours: Sample, weight: Share | None, release: Release) -> None:
    """Check the rule for cells, with ``partition="columns"``, over the rows that are used."""
    if release.disclosure is None or not release.disclosure.minimum_cell:
        return
    rows = ours.rows
    entries = np.column_stack([ours.coded.X, ours.coded.references])
    widths = [one + other for one, other in zip(ours.columns, ours.references, strict=True)]
    shapes: list[tuple[int | None, ...]] = [(2, rows, width) for width in widths]
    flags = concatenate(await party.share(_values(entries), bound=1, shape=shapes), axis=2)
    y = ours.values("y")
    held = None if y is None else _values(y)
    answer = await party.share(held, bound=1, owner=ours.givers["y"], shape=(2, rows))
    columns, outcome = (flags[0], flags[1]), (answer[0], answer[1])
    await check_shared(party, release.disclosure, protocol, columns=columns, outcome=outcome, weight=weight)


def _values(entries: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return of each entry whether it is 1, and whether it is 0."""
    return np.stack([entries == 1, entries == 0]).astype(np.int64)


async def row_exponents(party: Party, coded: Coded) -> NDArray[np.int64]:
    """Return public exponents of two above all values of each column: from the bounds, or found together."""
    exponents = np.zeros(len(coded.names), np.int64)
    unknown = np.isnan(coded.bounds)
    exponents[~unknown] = exponents_of(coded.bounds[~unknown])
    if unknown.any():
        exponents[unknown] = await agree_exponents(party, coded.largest[np.newaxis, unknown])
    return exponents
