"""What a Cox regression reads: predictors with categories, and times as places in an order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, PeerError, concatenate
from protocols.agreement import agree, announce
from protocols.magnitudes import agree_exponents
from protocols.pools.pool import Pool
from protocols.pools.row_pool import RowPool
from protocols.pools.variables import Categorical, Column, Numeric, Variable
from protocols.regression.coding import Bounds, Coded, code_rows, coded, predictors
from protocols.regression.crossed import check_shared
from protocols.regression.glm import check_crossed
from protocols.release.disclosure import Release
from protocols.survival.time_grids import Followed, TimeGrid

# Times without a grid are told apart to 2^-31 of the power of 16 above the largest.
_TIME_BITS = 31
# Keys of the order are shared as numbers of so many bits, in units of a power of two: exactly.
_KEY_BITS = 40
# A number of columns above this is none: predictors, and a first label of each.
_MOST_COLUMNS = 1 << 13
_RESERVED = ("X", "time", "event", "strata")


class Predictors(NamedTuple):
    """Our predictors.

    Attributes
    ----------
    X : Numeric or None
        All columns; None where others hold them.
    single : dict of str to Numeric
        With rows, of each predictor one column that is missing where the predictor is, and 1 where it is a category
        and the row has its first label, which has no column in X.
    factors : tuple of str
        Which of these are categories.
    references : numpy.ndarray
        With columns, of our categories: whether a row has the first label; shape (rows, categories).
    """

    X: Numeric | None
    single: dict[str, Numeric]
    factors: tuple[str, ...] = ()
    references: NDArray[np.float64] = np.zeros((0, 0))


async def read_predictors(
    party: Party,
    protocol: str,
    X: Any,
    *,
    columns: Sequence[Column] | None,
    bound: Bounds,
    names: Sequence[str] | None,
    partition: str,
    release: Release,
    terms: Mapping[str, object],
) -> Predictors:
    """Read X, agree on its columns, and code categories.

    Notes
    -----
    With rows see :func:`protocols.regression.coding.code_rows`. With columns nothing is told yet but the
    parameters (1 round); labels of categories become part of names, which all parties learn.
    """
    terms = {**terms, "partition": partition}
    if partition == "columns":
        await agree(party, protocol, terms)
    if X is None and partition == "columns":
        return Predictors(None, {})
    found = predictors(X, rank=party.rank, columns=columns, bound=bound, names=names)
    if partition == "rows":
        read = await code_rows(party, protocol, found, release, terms)
        categories = [one.name for one in found if isinstance(one, Categorical)]
        factors = tuple(_key(name) for name in categories)
        return Predictors(_together(read, np.ones(read.rows, np.bool_)), _single(read, categories), factors)
    declared: list[Variable] = []
    for one in found:
        if isinstance(one, Categorical) and one.categories is None:
            if release.disclosure is not None:
                raise DataError(
                    f"party {party.rank}: nobody declared the categories of {one.name}; under a disclosure control "
                    "they are declared: columns=, or a pandas Categorical"
                )
            one = one.declared(one.own, rank=party.rank)
        declared.append(one)
    read = coded(declared)
    return Predictors(_together(read, read.present), {}, references=read.references)


def _together(read: Coded, present: NDArray[np.bool_]) -> Numeric:
    bounds = None if np.isnan(read.bounds).any() else read.bounds
    return Numeric(read.names, read.X, np.repeat(present[:, np.newaxis], len(read.names), axis=1), bounds)


def _key(name: str) -> str:
    return f"X.{name}" if name in _RESERVED else name


def _single(read: Coded, categories: Sequence[str]) -> dict[str, Numeric]:
    single = {}
    for name, gone in read.absent.items():
        values = read.references[:, categories.index(name)] if name in categories else np.zeros(read.rows)
        column, present = values.reshape(-1, 1), ~gone.reshape(-1, 1)
        single[_key(name)] = Numeric((name,), column, present, np.ones(1), whole=True)
    return single


async def check_columns(party: Party, made: Pool, read: Predictors) -> None:
    """Check the minimum cell for columns that hold only 0 and 1, and for the first label of categories.

    Also for each of their values among those with and without event. Of the rows that are used: with rows see
    :func:`protocols.regression.glm.check_crossed`; with columns nobody knows which these are, see
    :func:`protocols.regression.crossed.check_shared`, and all parties learn how many categories each party has.
    """
    disclosure = made.release.disclosure
    if disclosure is None or not disclosure.minimum_cell:
        return
    if isinstance(made, RowPool):
        columns = [made.numbers("X").values, *(made.numbers(name).values for name in read.factors)]
        events = made.codes("event").astype(np.float64)
        await check_crossed(party, disclosure, made.protocol, np.concatenate(columns, axis=1), events)
        return
    (event,) = await made.vectors("event")
    entries = np.zeros((len(event), 0))
    if read.X is not None:
        entries = np.concatenate([np.where(read.X.present, read.X.values, np.nan), read.references], axis=1)
    widths = await _widths(party, entries.shape[1])
    shapes: list[tuple[int | None, ...]] = [(2, len(event), width) for width in widths]
    ours = np.stack([entries == 1, entries == 0]).astype(np.int64)
    flags = concatenate(await party.share(ours, bound=1, shape=shapes), axis=2)
    await check_shared(
        party,
        disclosure,
        made.protocol,
        columns=(flags[0], flags[1]),
        outcome=(event[:, 1], event[:, 0]),
        weight=made.weight,
    )


async def _widths(party: Party, ours: int) -> list[int]:
    """Tell each other how many columns are checked."""
    said = [one.get("columns") for one in await announce(party, "columns", {"columns": ours})]
    for rank, width in enumerate(said):
        if isinstance(width, bool) or not isinstance(width, int) or not 0 <= width <= _MOST_COLUMNS:
            raise PeerError(f"party {rank} announced no valid number of columns", rank=rank, step="columns")
    return [int(width) for width in said if width is not None]


async def read_places(party: Party, data: Followed, points: TimeGrid | None) -> tuple[dict[str, Variable | None], int]:
    """Return times as whole numbers that fall as times rise, events as they count, and how many numbers there are."""
    time, event = data.time, data.event
    numbers = np.zeros(0)
    if points is None:
        values = np.zeros((0, 1)) if time is None else time.values
        (exponent,) = await agree_exponents(party, values)
        count = (1 << _TIME_BITS) + 1
        unit = _TIME_BITS - int(exponent)
        numbers = np.minimum(np.rint(np.ldexp(values[:, 0], unit)), count - 1)  # a rehearsal does not know the exponent
    else:
        count = len(points)
        if time is not None:
            numbers = points.places(time.values[:, 0]).astype(np.float64)
            beyond = (numbers == count) & time.present[:, 0]
            if beyond.any() and event is None:
                raise DataError(
                    f"party {party.rank}: {int(beyond.sum())} times are beyond the grid; where another party holds the "
                    "events, the grid reaches all times"
                )
            numbers = np.minimum(numbers, count - 1)
            if event is not None:
                codes = np.where(beyond & event.complete, 0, event.codes)
                event = Categorical.of_codes(event.name, 2, codes, event.complete)
    if time is not None:
        ranks = np.where(time.present[:, 0], count - 1 - numbers, 0.0).reshape(-1, 1)
        time = Numeric(("time",), ranks, time.present, np.array([2.0**_KEY_BITS]), whole=True)
    return {"time": time, "event": event}, count
