"""Pools whose columns are held by different parties: the same rows, in the same order, at all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import DataError, Party, PeerError, Share, concatenate, less_than, matmul, multiply
from protocols.agreement import agree, announce
from protocols.magnitudes import exponents_of
from protocols.pools.moments import Moments, column_moments
from protocols.pools.pool import INPUT_SCALE, Pool, pair_rules, value_rules
from protocols.pools.row_pool import checked_labels, indicators
from protocols.pools.variables import Categorical, Label, Numeric, Variable, check_rows
from protocols.release.disclosure import Release, check_public, hold, refusal
from protocols.shares import sum_of

_MOST_ROWS = 1 << 31
_MOST_COLUMNS = 4096
_LARGEST_EXPONENT = 400


class ColumnPool(Pool):
    """See :class:`protocols.pools.pool.Pool`."""

    partition = "columns"

    def __init__(self, party: Party, protocol: str, release: Release, rows: int, holders: int) -> None:
        super().__init__(party, protocol, release)
        self.rows = rows
        self._holders = holders
        self._columns: dict[str, Share] = {}
        self._present: dict[str, Share | None] = {}
        self._weight: Share | None = None
        self._own: dict[str, Variable] = {}
        self._widths: dict[str, list[tuple[int, int]]] = {}

    def shared_sizes(self) -> tuple[Share, dict[str, Share]]:
        """See :class:`protocols.pools.pool.Pool`."""
        whole = self.party.constant(self.rows, shape=(1,))
        used = whole if self._weight is None else self._weight.sum().reshape(1)
        missing = {
            what: self.party.constant(0, shape=(1,)) if present is None else whole - present.sum().reshape(1)
            for what, present in self._present.items()
        }
        return used, missing

    async def check(self, *, parameters: int = 0) -> None:
        """See :class:`protocols.pools.pool.Pool`; of complete rows one bit is opened: whether there are enough."""
        disclosure = self.release.disclosure
        check_public(disclosure, self.protocol, rows=self.rows, parties=self._holders, parameters=parameters)
        needed = 0 if disclosure is None else disclosure.rows_needed(parameters)
        if disclosure is None or self._weight is None or not needed:
            return
        used, _ = self.shared_sizes()
        scope = self.party.at("disclosure")
        if not await hold(scope, await less_than(scope.at("rows"), used, needed)):
            raise refusal(disclosure, self.protocol, [f"at least {needed} rows in which nothing is missing"])

    @property
    def rows_are_secret(self) -> bool:
        """See :class:`protocols.pools.pool.Pool`."""
        return False

    @property
    def rehearsed_rows(self) -> int:
        """See :class:`protocols.pools.pool.Pool`."""
        return max(self.rows, 1)

    async def check_values(self, what: str, by: str | None = None, *, sums: bool = True) -> None:
        """See :class:`protocols.pools.pool.Pool`."""
        disclosure = self.release.disclosure
        if disclosure is None:
            return
        if disclosure.dominance and sums:
            raise ValueError(f"disclosure control {disclosure.name!r}: dominance is checked where rows are split, only")
        if not disclosure.minimum_cell:
            return
        scope = self.party.at("values")
        groups = self.party.constant(1, shape=(self.rows, 1)) if by is None else await self.counted(by)
        if by is None and self._weight is not None:
            groups = self._weight.reshape(self.rows, 1)
        ones, zeros = await self._values(what)
        cells = [
            (await matmul(scope, groups.T, one)).bounded_by(max(self.rows, 1)).reshape(-1) for one in (ones, zeros)
        ]
        # A column is a table if no row that counts holds anything else.
        width = ones.shape[1]
        known = sum_of([cell.reshape(-1, width).sum(axis=0) for cell in cells])
        rest = (groups.sum().reshape(1).broadcast_to((width,)) - known).bounded_by(max(self.rows, 1))
        table = await less_than(scope.at("table"), rest, 1)
        few = await less_than(scope.at("few"), concatenate(cells), disclosure.minimum_cell)
        tables = table.reshape(1, width).broadcast_to((few.size // width, width)).reshape(-1)
        if not await hold(scope.at("hold"), (await multiply(scope, few, tables)).bounded_by(1)):
            raise refusal(disclosure, self.protocol, value_rules(disclosure, by))

    async def check_pairs(self, what: str) -> None:
        """See :class:`protocols.pools.pool.Pool`."""
        disclosure, width = self.release.disclosure, len(self.names[what])
        first, second = np.triu_indices(width, 1)
        if disclosure is None or not disclosure.minimum_cell or not first.size:
            return
        scope = self.party.at("pairs")
        weight = self.party.constant(1, shape=(self.rows,)) if self._weight is None else self._weight
        sides = await self._values(what)
        counted = [(await multiply(scope, side, weight.reshape(self.rows, 1))).bounded_by(1) for side in sides]
        cells = [
            (await matmul(scope, a.T, b)).bounded_by(max(self.rows, 1))[first, second] for a in counted for b in sides
        ]
        # A pair is a table if its four cells are all rows that count.
        rest = (weight.sum().reshape(1).broadcast_to((first.size,)) - sum_of(cells)).bounded_by(max(self.rows, 1))
        table = await less_than(scope.at("table"), rest, 1)
        few = await less_than(scope.at("few"), concatenate(cells), disclosure.minimum_cell)
        tables = table.reshape(1, first.size).broadcast_to((4, first.size)).reshape(-1)
        if not await hold(scope.at("hold"), (await multiply(scope, few, tables)).bounded_by(1)):
            raise refusal(disclosure, self.protocol, pair_rules(disclosure))

    async def _values(self, what: str) -> tuple[Share, Share]:
        """Return of each entry whether it is 1, and whether it is 0, as the parties that hold the columns say."""
        parts: list[Share] = []
        for rank, width in self._widths[what]:
            mine = self._own.get(what) if rank == self.party.rank else None
            flags = None
            if isinstance(mine, Numeric):
                flags = np.stack([mine.values == 1, (mine.values == 0) & mine.present]).astype(np.int64)
            scope = self.party.at("values of a column")
            parts.append(await scope.share(flags, bound=1, owner=rank, shape=(2, self.rows, width)))
        both = parts[0] if len(parts) == 1 else concatenate(parts, axis=2)
        return both[0], both[1]

    async def counts(self, *factors: str) -> Share:
        """See :class:`protocols.pools.pool.Pool`."""
        scope = self.party.at("counts")
        shape = tuple(len(self.categories[what]) for what in factors)
        product = await self.counted(factors[0])
        for what in factors[1:-1]:
            left, right = product.reshape(self.rows, -1, 1), self._columns[what].reshape(self.rows, 1, -1)
            product = (await multiply(scope, left, right)).bounded_by(1).reshape(self.rows, -1)
        if len(factors) == 1:
            return product.sum(axis=0)
        table = (await matmul(scope, product.T, self._columns[factors[-1]])).bounded_by(max(self.rows, 1))
        return table.reshape(*shape)

    async def counted(self, what: str) -> Share:
        """Return the indicators of a categorical variable, 0 in rows that do not count."""
        column = self._columns[what]
        if self._weight is None:
            return column
        return (await multiply(self.party.at("counted"), column, self._weight.reshape(self.rows, 1))).bounded_by(1)

    async def moments(self, what: str, by: str | None = None, sizes: NDArray[np.int64] | None = None) -> Moments:
        """See :class:`protocols.pools.pool.Pool`."""
        groups = np.array([self.sizes.n]) if sizes is None else sizes
        if by is not None:
            members = await self.counted(by)
        elif self._weight is not None:
            members = self._weight.reshape(self.rows, 1)
        else:
            members = self.party.constant(1, shape=(self.rows, 1))
        return await column_moments(
            self.party.at("moments"), self._columns[what], members, groups, self.exponents[what]
        )

    async def vectors(self, *whats: str) -> list[Share]:
        """See :class:`protocols.pools.pool.Pool`."""
        return [self._columns[what] for what in whats]

    @property
    def weight(self) -> Share | None:
        """See :class:`protocols.pools.pool.Pool`."""
        return self._weight


@dataclass(frozen=True, slots=True)
class _Held:
    """What a party says of a variable that it holds."""

    names: tuple[str, ...]
    exponents: tuple[int, ...]
    categories: tuple[Label, ...]
    gaps: bool


async def pool_columns(
    party: Party,
    protocol: str,
    variables: Mapping[str, Variable | None],
    kinds: Mapping[str, type[Variable]],
    release: Release,
    terms: dict[str, object],
    spread: Sequence[str],
) -> ColumnPool:
    """Make a pool of columns; see :func:`protocols.pools.joining.pool`."""
    ours = {what: variable for what, variable in variables.items() if variable is not None}
    rows = check_rows(ours, rank=party.rank) if ours else None
    await agree(party, protocol, {**terms, "variables": {what: kind.__name__ for what, kind in kinds.items()}})
    told = {what: _describe(variable, party.rank, release) for what, variable in ours.items()}
    said = await announce(party, "columns", {"rows": rows, "held": told})
    found = [_heard(one, kinds, rank) for rank, one in enumerate(said)]
    together = _common_rows(protocol, [count for count, _ in found])
    holders = {what: [rank for rank, (_, held) in enumerate(found) if what in held] for what in variables}
    for what, ranks in holders.items():
        if not ranks:
            raise DataError(f"{protocol}: no party gives {what}")
        if len(ranks) > 1 and what not in spread:
            raise DataError(f"{protocol}: parties {' and '.join(map(str, ranks))} both give {what}; one party does")

    made = ColumnPool(party, protocol, release, together, len({rank for ranks in holders.values() for rank in ranks}))
    for what, ranks in holders.items():
        held = [found[rank][1][what] for rank in ranks]
        made.names[what] = tuple(name for one in held for name in one.names)
        if kinds[what] is Categorical:
            made.categories[what] = held[0].categories
        else:
            made.exponents[what] = np.array([e for one in held for e in one.exponents], dtype=np.int64)
        mine = variables.get(what)
        if mine is not None:
            made._own[what] = mine
        made._widths[what] = [(rank, len(one.names)) for rank, one in zip(ranks, held, strict=True)]
        await _share(made, what, ranks, held, mine)
    weights = [present for present in made._present.values() if present is not None]
    if weights:
        product = weights[0]
        for other in weights[1:]:
            product = (await multiply(party.at("weight"), product, other)).bounded_by(1)
        made._weight = product
    return made


async def _share(made: ColumnPool, what: str, ranks: list[int], held: list[_Held], ours: Variable | None) -> None:
    """Share the columns of a variable, and where they are missing."""
    party, parts, presents = made.party, [], []
    for rank, one in zip(ranks, held, strict=True):
        scope, mine = party.at("column"), rank == party.rank
        width = len(one.categories) or len(one.names)
        entries, complete = _entries(ours, one) if mine and ours is not None else (None, None)
        parts.append(await scope.share(entries, bound=1, owner=rank, shape=(made.rows, width), scale=INPUT_SCALE))
        if one.gaps:
            flags = None if complete is None else complete.astype(np.int64)
            presents.append(await scope.share(flags, bound=1, owner=rank, shape=(made.rows,)))
    made._columns[what] = parts[0] if len(parts) == 1 else concatenate(parts, axis=1)
    present = presents[0] if presents else None
    for other in presents[1:]:
        present = (await multiply(party.at("present"), other, present)).bounded_by(1) if present is not None else other
    made._present[what] = present


def _entries(variable: Variable, held: _Held) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if isinstance(variable, Categorical):
        return indicators(variable.declared(held.categories, rank=0).codes, len(held.categories)), variable.complete
    return np.ldexp(variable.values, -np.array(held.exponents)), variable.complete


def _describe(variable: Variable, rank: int, release: Release) -> dict[str, object]:
    """Say of a variable that we hold what all parties must know."""
    gaps = not bool(variable.complete.all())
    if isinstance(variable, Categorical):
        categories = variable.categories
        if categories is None:
            categories = (0, 1) if set(variable.own) <= {0, 1} else variable.own
            if release.disclosure is not None and categories != (0, 1):
                raise DataError(
                    f"party {rank}: {variable.name} has other labels than 0 and 1 and declares no categories: "
                    "categories=, or a pandas Categorical (a must under a disclosure control)"
                )
            variable.declared(categories, rank=rank)
        return {"names": [variable.name], "exponents": [], "categories": list(categories), "gaps": gaps}
    if variable.bounds is None:
        largest = np.maximum(variable.largest, 2.0**-24)
        exponents = [4 * math.ceil(e / 4) for e in exponents_of(largest).tolist()]
    else:
        exponents = exponents_of(variable.bounds).tolist()
    return {"names": list(variable.names), "exponents": exponents, "categories": [], "gaps": gaps}


def _heard(said: dict[str, Any], kinds: Mapping[str, type[Variable]], rank: int) -> tuple[int | None, dict[str, _Held]]:
    """Check what a party announced."""

    def fail(what: str) -> PeerError:
        return PeerError(f"party {rank} announced no valid {what}", rank=rank, step="announce/columns")

    rows = said.get("rows")
    if rows is not None and not (type(rows) is int and 0 <= rows < _MOST_ROWS):
        raise fail("number of rows")
    told = said.get("held")
    if not isinstance(told, dict):
        raise fail("columns")
    held = {}
    for what, one in told.items():
        if what not in kinds or not isinstance(one, dict) or set(one) != {"names", "exponents", "categories", "gaps"}:
            raise fail("columns")
        names, exponents, categories = one["names"], one["exponents"], checked_labels(one["categories"])
        if not isinstance(names, list) or not 1 <= len(names) <= _MOST_COLUMNS:
            raise fail("columns")
        if not all(isinstance(name, str) and len(name) <= 200 and name.isprintable() for name in names):
            raise fail("columns")
        if not isinstance(exponents, list) or categories is None or type(one["gaps"]) is not bool:
            raise fail("columns")
        if not all(type(e) is int and abs(e) <= _LARGEST_EXPONENT for e in exponents):
            raise fail("columns")
        if kinds[what] is Numeric and (len(exponents) != len(names) or categories):
            raise fail("columns")
        if kinds[what] is Categorical and (
            exponents or len(names) != 1 or not 2 <= len(set(categories)) == len(categories) <= 256
        ):
            raise fail("categories")
        held[what] = _Held(tuple(names), tuple(exponents), categories, one["gaps"])
    if held and rows is None:
        raise fail("number of rows")
    return rows, held


def _common_rows(protocol: str, counts: list[int | None]) -> int:
    """Return the number of rows that all name."""
    said = {rank: count for rank, count in enumerate(counts) if count is not None}
    if not said:
        raise DataError(f"{protocol}: no party gives a column")
    first = min(said)
    for rank, count in said.items():
        if count != said[first]:
            raise DataError(
                f"{protocol}: party {first} has {said[first]} rows and party {rank} has {count}; with "
                "partition='columns' all have the same rows in the same order"
            )
    return said[first]
