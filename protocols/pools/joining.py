"""Bringing the variables of an analysis together: all parties mean the same, or nothing runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mpc import DataError, Party
from protocols.pools.column_pool import pool_columns
from protocols.pools.pool import Pool
from protocols.pools.row_pool import pool_rows
from protocols.pools.variables import Categorical, Numeric, Variable
from protocols.release.disclosure import Release

_PARTITIONS = ("rows", "columns")


async def pool(
    party: Party,
    protocol: str,
    variables: Mapping[str, Variable | None],
    *,
    partition: str = "rows",
    release: Release,
    kinds: Mapping[str, type[Variable]],
    terms: Mapping[str, object] | None = None,
    spread: Sequence[str] = (),
) -> Pool:
    """Check that all parties mean the same, and make a pool of their data.

    Parameters
    ----------
    party : Party
        A scope of its own.
    protocol : str
    variables : mapping
        Ours, by what they are to the analysis; with ``partition="columns"`` None for what others hold.
    partition : {"rows", "columns"}
    release : Release
    kinds : mapping
        Of each variable: Numeric or Categorical.
    terms : mapping, optional
        Further parameters that must be the same at all parties.
    spread : sequence of str
        Numeric variables whose columns several parties may hold (with ``partition="columns"``): the columns
        come in the order of the parties.

    Returns
    -------
    Pool

    Raises
    ------
    AgreementError
        The parties differ in a parameter, a column, a bound or categories.
    DataError
        No party, or more than one, holds a variable; parties hold different numbers of rows; categories that
        nobody declared, together with a disclosure control.

    Notes
    -----
    All parties learn what is declared: names, bounds, categories, recipients. Of what is not: with rows and no
    bound, the order of magnitude (the power of 16) of each column's largest value in the pooled data; where
    categories are not declared, which labels occur at which party, but that 0 and 1 are told as one. With
    columns: who holds which column, how many rows there are, whether a variable is ever missing, and without a
    bound the order of magnitude of each column's largest value. Which rows are incomplete stays secret.
    Cost: 1 round; one more for labels; without a bound see :func:`protocols.magnitudes.agree_exponents`. With
    columns 2 rounds, and one product over all rows for each further variable with missing values.
    """
    if partition not in _PARTITIONS:
        raise ValueError(f"partition is 'rows' or 'columns', not {partition!r}")
    common = {"partition": partition, **(terms or {}), **release.terms()}
    if partition == "columns":
        return await pool_columns(party, protocol, variables, kinds, release, common, spread)
    given: dict[str, Variable] = {}
    for what, variable in variables.items():
        if variable is None:
            raise DataError(
                f"party {party.rank}: {what} is not given; with partition='rows' every party gives its own rows"
            )
        given[what] = variable
    return await pool_rows(party, protocol, given, release, common)


__all__ = ["Categorical", "Numeric", "Pool", "pool"]
