"""What regressions have in common: the rows or columns that a party brings, checked, agreed and counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import AgreementError, DataError, Party, Share, multiply, open_
from protocols.agreement import agree
from protocols.magnitudes import agree_exponents, exponents_of
from protocols.pools.variables import Column, numeric
from protocols.regression.coding import Bounds, Coded, code_columns, code_rows, predictors
from protocols.release.disclosure import (
    Disclosure,
    Release,
    check,
    check_cells,
    check_public,
    hold,
    quotas,
    refusal,
    short_of,
)
from protocols.rows import refuse
from protocols.shares import sum_of

MISSING = ("drop", "raise")


@dataclass(frozen=True, slots=True)
class Vector:
    """One number a row, ours: the outcome, weights, or offsets.

    Attributes
    ----------
    values : numpy.ndarray
        Shape (rows,); 0 where it is missing.
    present : numpy.ndarray
        Shape (rows,).
    """

    values: NDArray[np.float64]
    present: NDArray[np.bool_]

    def kept(self, rows: NDArray[np.bool_]) -> Vector:
        """Return some of the rows."""
        return Vector(self.values[rows], self.present[rows])


def vector(
    values: Any, *, rank: int, rows: int, what: str, bound: float | None = None, least: float | None = None
) -> Vector:
    """Return one number a row, with what is missing.

    Parameters
    ----------
    values : array_like
        Shape (rows,) or (rows, 1).
    rank, rows, what
        Ours; what it is and to how many rows it belongs.
    bound : float, optional
        Public bound on the absolute values.
    least : float, optional
        The smallest value allowed.

    Raises
    ------
    DataError
        Naming party and counts; never a value.
    """
    shape = np.shape(values)
    if shape not in ((rows,), (rows, 1)):
        raise DataError(f"party {rank}: {what} has shape {shape}, X has {rows} rows; {what} takes ({rows},)")
    found = numeric(values, rank=rank, what=what, bound=bound)
    if least is not None:
        low = np.asarray(found.present & (found.values < least))
        refuse(low[:, 0], f"below {least:g}", "correct these rows", rank=rank, what=what)
    return Vector(found.values[:, 0], found.present[:, 0])


@dataclass(frozen=True, slots=True)
class Sample:
    """What we bring to a regression.

    Attributes
    ----------
    coded : Coded
        With ``partition="rows"`` our complete rows, otherwise our columns of all rows.
    names : tuple of str
        Of all columns of the model.
    vectors : dict of str to Vector
        Those that we hold of ``y``, ``weights`` and ``offset``.
    givers : dict of str to int
        With ``partition="columns"``: which party holds each of those that somebody holds.
    columns : tuple of int
        With ``partition="columns"``: how many columns each party has.
    gaps : tuple of bool
        With ``partition="columns"``: whether anything that a party holds is ever missing.
    missing : dict of str to numpy.ndarray
        Our rows in which each variable is missing, as counts.
    """

    coded: Coded
    names: tuple[str, ...]
    vectors: dict[str, Vector]
    givers: dict[str, int]
    columns: tuple[int, ...]
    gaps: tuple[bool, ...]
    missing: dict[str, int]

    @property
    def rows(self) -> int:
        """How many rows we bring."""
        return self.coded.rows

    @property
    def present(self) -> NDArray[np.bool_]:
        """Rows in which nothing that we hold is missing."""
        found = self.coded.present
        for one in self.vectors.values():
            found = found & one.present
        return found

    def values(self, what: str) -> NDArray[np.float64] | None:
        """Return one of our vectors; None if we do not hold it."""
        return self.vectors[what].values if what in self.vectors else None


async def sample(
    party: Party,
    protocol: str,
    X: Any,
    vectors: Mapping[str, tuple[Any, Mapping[str, float | None]]],
    *,
    columns: Sequence[Column] | None,
    bound: Bounds,
    names: Sequence[str] | None,
    partition: str,
    missing: str,
    release: Release,
    terms: Mapping[str, object],
) -> Sample:
    """Check what we bring to a regression, and agree on it with the others.

    Parameters
    ----------
    party : Party
        A scope of its own.
    protocol : str
    X, columns, bound, names
        See :func:`protocols.regression.coding.predictors`. With ``partition="columns"`` names are those of all columns.
    vectors : mapping of str to (array_like or None, options)
        What there is beside X, with the options of :func:`vector`.
    partition : {"rows", "columns"}
    missing : {"drop", "raise"}
        What to do with rows in which something is missing.
    release : Release
    terms : mapping
        Further parameters that must be the same at all parties.

    Raises
    ------
    AgreementError, DataError, ValueError
        Before any data is shared.

    Notes
    -----
    All parties learn what :func:`protocols.regression.coding.code_rows` or
    :func:`protocols.regression.coding.code_columns` says; with ``partition="columns"`` also how many columns each party
    has, who holds the vectors, how many rows there are, and whether anything that a party holds is ever missing. Cost:
    1 to 3 rounds; no element.
    """
    if partition not in ("rows", "columns"):
        raise ValueError(f"partition is 'rows' or 'columns', not {partition!r}")
    if missing not in MISSING:
        raise ValueError(f"missing is 'drop' or 'raise', not {missing!r}")
    by_rows = partition == "rows"
    if by_rows and vectors["y"][0] is None:
        raise DataError(f"party {party.rank}: with partition='rows' every party gives y for its rows")
    found = predictors(X, rank=party.rank, columns=columns, bound=bound, names=names if by_rows else None)
    rows = found[0].rows
    held = {
        what: vector(values, rank=party.rank, rows=rows, what=what, **options)
        for what, (values, options) in vectors.items()
        if values is not None
    }
    if missing == "raise":
        gone = sum(int((~one.complete).sum()) for one in found) + sum(int((~v.present).sum()) for v in held.values())
        if gone:
            raise DataError(
                f"party {party.rank}: values are missing in X or beside it ({gone} in all); leave these rows out, or "
                "say missing='drop'"
            )
    common = {"partition": partition, "missing": missing, **terms, **release.terms()}
    if by_rows:
        common["given"] = sorted(held)
        coded = await code_rows(party, protocol, found, release, common)
        present = coded.present
        for one in held.values():
            present = present & one.present
        counts = {name: int(gone.sum()) for name, gone in coded.absent.items()}
        counts |= {what: int((~one.present).sum()) for what, one in held.items()}
        kept = {what: one.kept(present) for what, one in held.items()}
        return Sample(coded.kept(present), coded.names, kept, {}, (), (), counts)

    common["rows"] = rows
    common["names"] = None if names is None else list(names)
    coded, heard = await code_columns(party, protocol, found, release, common)
    if names is not None and len(names) != len(heard):
        raise AgreementError(f"{protocol}: {len(names)} names for {len(heard)} columns")
    own = Sample(coded, tuple(names or heard), held, {}, (), (), {})
    says = {f"gives {what}": int(what in held) for what in vectors}
    gaps = int(not own.present.all())
    declared = await agree(party, protocol, {}, {"columns": len(coded.names), "gaps": gaps, **says})
    givers = {}
    for what in vectors:
        ranks = [rank for rank, one in enumerate(declared) if one[f"gives {what}"]]
        if len(ranks) > 1 or (what == "y" and not ranks):
            said = f"no party gives {what}" if not ranks else f"parties {', '.join(map(str, ranks))} give {what}"
            raise AgreementError(f"{protocol}: {said}; with partition='columns' exactly one does")
        if ranks:
            givers[what] = ranks[0]
    return Sample(
        coded,
        own.names,
        held,
        givers,
        tuple(one["columns"] for one in declared),
        tuple(bool(one["gaps"]) for one in declared),
        {},
    )


async def row_sizes(
    party: Party, protocol: str, ours: Sample, release: Release, *, columns: int
) -> tuple[int, dict[str, int]]:
    """Check the disclosure rules and open how many complete rows there are, and what is missing, in all parties' data.

    Notes
    -----
    All parties learn both. Cost: 2 rounds; one element a variable, and those of the rules.
    """
    await check(party.at("disclosure"), release.disclosure, protocol, rows=ours.rows, parameters=columns + 1)
    counts = np.array([ours.rows, *ours.missing.values()], np.int64)
    total = sum_of(await party.share(counts, bound=1 << 40))
    opened = [int(one) for one in np.asarray(await open_(party.at("sizes"), total))]
    return opened[0], dict(zip(ours.missing, opened[1:], strict=True))


async def cells(party: Party, protocol: str, ours: Sample, release: Release, *, pooled: bool, y: bool = False) -> None:
    """Check the rule for cells: columns of 0 and 1, first categories, and (where it is one) the outcome.

    With pooled rows also for each value of such a column together with each of the outcome, see :func:`check_crossed`.
    """
    kept = ours.present
    if pooled and y:
        columns = np.column_stack([ours.coded.X, ours.coded.references])[kept]
        await check_crossed(party.at("cells"), release.disclosure, protocol, columns, ours.vectors["y"].values[kept])
        return
    extra = [ours.vectors["y"].values] if y and "y" in ours.vectors else []
    table = np.column_stack([*extra, ours.coded.X, ours.coded.references])[kept]
    await check_cells(party.at("cells"), release.disclosure, protocol, table, pooled=pooled)


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
        rules = disclosure.rules(sums=False)[-1:]
        rules += [f"at least {least} rows for each such value together with each value of a yes-no outcome"]
        raise refusal(disclosure, protocol, rules)


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
) -> tuple[int, dict[str, int]]:
    """Check the disclosure rules and open how many complete rows there are, and what is missing at each party.

    Returns
    -------
    n : int
    missing : dict of str to int
        Rows in which something that a party holds is missing, by party.
    """
    columns = sum(ours.columns)
    check_public(release.disclosure, protocol, rows=ours.rows, parties=party.size, parameters=columns + 1)
    await cells(party, protocol, ours, release, pooled=False, y=True)
    if weight is None:
        return ours.rows, {}
    gone = np.array([int((~ours.present).sum())], np.int64)
    shares = await party.share(gone, bound=max(1, ours.rows))
    opened = await open_(party.at("sizes"), weight.sum(), *[one.sum() for one in shares])
    n, *absent = (int(one) for one in opened)
    if not party.rehearsing:
        check_public(release.disclosure, protocol, rows=n, parties=party.size, parameters=columns + 1)
    return n, {f"party {rank}": count for rank, count in enumerate(absent) if ours.gaps[rank]}


async def row_exponents(party: Party, coded: Coded) -> NDArray[np.int64]:
    """Return public exponents of two above all values of each column: from the bounds, or found together."""
    exponents = np.zeros(len(coded.names), np.int64)
    unknown = np.isnan(coded.bounds)
    exponents[~unknown] = exponents_of(coded.bounds[~unknown])
    if unknown.any():
        exponents[unknown] = await agree_exponents(party, coded.X[:, unknown])
    return exponents
