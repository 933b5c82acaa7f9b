"""A number and a group for each row: what comparisons of groups begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mpc import DataError, Party
from protocols.pools.joining import pool
from protocols.pools.pool import Pool
from protocols.pools.variables import Categorical, Label, Numeric, categorical, numeric
from protocols.release.disclosure import Release
from protocols.rows import Bound


def one_column(x: Any, *, rank: int, bound: Bound) -> Numeric | None:
    """Read a single column of numbers; None where others hold it.

    Raises
    ------
    DataError
        It has several columns, or see :func:`protocols.pools.variables.numeric`.
    """
    if x is None:
        return None
    column = numeric(x, rank=rank, what="x", bound=bound)
    if len(column.names) != 1:
        raise DataError(f"party {rank}: x has {len(column.names)} columns; it takes one")
    return column


async def grouped_pool(
    party: Party,
    protocol: str,
    column: Numeric | None,
    group: Any,
    *,
    categories: Sequence[Label] | None,
    partition: str,
    release: Release,
    terms: Mapping[str, object],
) -> Pool:
    """Make a pool of ``x`` and ``group``, and open how many rows there are.

    Parameters
    ----------
    party : Party
    protocol : str
    column : Numeric or None
        None where others hold it.
    group : array_like or None
        The category of each of our rows; None where others hold it.
    categories, partition, release, terms
        See :func:`protocols.pools.joining.pool`.

    Returns
    -------
    Pool
        Its sizes are known.

    Raises
    ------
    DataError, AgreementError, DisclosureError
        See :func:`protocols.pools.joining.pool` and :meth:`protocols.pools.pool.Pool.open_sizes`.

    Notes
    -----
    All parties learn what they learn there. Cost: that of both.
    """
    factor = None if group is None else categorical(group, rank=party.rank, what="group", categories=categories)
    made = await pool(
        party.at("pool"),
        protocol,
        {"x": column, "group": factor},
        kinds={"x": Numeric, "group": Categorical},
        partition=partition,
        release=release,
        terms=terms,
    )
    await made.open_sizes()
    return made
