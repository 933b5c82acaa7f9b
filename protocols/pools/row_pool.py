"""Pools whose rows are held by different parties: sums over rows are made in the clear, by each of its own."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc import AgreementError, DataError, Party, Share, concatenate
from protocols.agreement import agree, announce
from protocols.magnitudes import agree_exponents, exponents_of
from protocols.pools.moments import Moments, row_moments
from protocols.pools.pool import INPUT_SCALE, ROW_BITS, Pool, pair_rules, value_rules
from protocols.pools.variables import Categorical, Label, Numeric, Variable, check_rows, ordered
from protocols.release.disclosure import Release, check, dominated, hold, refusal, short_of
from protocols.shares import sum_of


class RowPool(Pool):
    """See :class:`protocols.pools.pool.Pool`.

    Attributes
    ----------
    own : dict of str to Numeric or Categorical
        Our complete rows of each variable.
    """

    partition = "rows"

    def __init__(self, party: Party, protocol: str, release: Release, own: dict[str, Variable], sums: Share) -> None:
        super().__init__(party, protocol, release)
        self.own = own
        self._sums = sums
        self._rows_of: list[int | None] = [None] * party.size  # as they were announced with the first vectors

    def numbers(self, what: str) -> Numeric:
        """Return our complete rows of a numeric variable, in the clear."""
        found = self.own[what]
        if not isinstance(found, Numeric):
            raise TypeError(f"{what} is no numeric variable")
        return found

    def codes(self, what: str) -> NDArray[np.int64]:
        """Return the categories of our complete rows, as numbers from 0."""
        found = self.own[what]
        if not isinstance(found, Categorical):
            raise TypeError(f"{what} is no categorical variable")
        return found.codes

    @property
    def rows(self) -> int:
        """How many complete rows we have."""
        return next(iter(self.own.values())).rows

    def shared_sizes(self) -> tuple[Share, dict[str, Share]]:
        """See :class:`protocols.pools.pool.Pool`."""
        return self._sums[:1], {what: self._sums[k : k + 1] for k, what in enumerate(self.own, 1)}

    async def check(self, *, parameters: int = 0) -> None:
        """See :class:`protocols.pools.pool.Pool`."""
        scope = self.party.at("disclosure")
        await check(scope, self.release.disclosure, self.protocol, rows=self.rows, parameters=parameters)

    @property
    def rows_are_secret(self) -> bool:
        """See :class:`protocols.pools.pool.Pool`."""
        return True

    @property
    def rehearsed_rows(self) -> int:
        """See :class:`protocols.pools.pool.Pool`."""
        return 1

    async def check_values(self, what: str, by: str | None = None, *, sums: bool = True) -> None:
        """See :class:`protocols.pools.pool.Pool`."""
        disclosure = self.release.disclosure
        if disclosure is None:
            return
        values = self.numbers(what).values
        codes = np.zeros(len(values), np.int64) if by is None else self.codes(by)
        groups = 1 if by is None else len(self.categories[by])
        fails = []
        if disclosure.minimum_cell:
            # A column with other values than 0 and 1 is no table, in whichever group they are.
            table = ((values == 0) | (values == 1)).all(axis=0)
            ours = [
                np.where(table, ((values == value) & (codes == k)[:, np.newaxis]).sum(axis=0), disclosure.minimum_cell)
                for k in range(groups)
                for value in (0, 1)
            ]
            capped = np.minimum(np.concatenate(ours), disclosure.minimum_cell)
            least = np.full(len(capped), disclosure.minimum_cell)
            fails.append(await short_of(self.party.at("cells"), capped, least))
        if disclosure.dominance and sums:
            units = np.ldexp(values, -self.exponents[what])
            parts = np.concatenate([units * (codes == k)[:, np.newaxis] for k in range(groups)], axis=1)
            share = Fraction(str(disclosure.dominance))
            fails.append(await dominated(self.party.at("dominance"), parts, share))
        if fails and not await hold(self.party.at("values"), concatenate(fails)):
            raise refusal(disclosure, self.protocol, value_rules(disclosure, by))

    async def check_pairs(self, what: str) -> None:
        """See :class:`protocols.pools.pool.Pool`."""
        disclosure, values = self.release.disclosure, self.numbers(what).values
        first, second = np.triu_indices(values.shape[1], 1)
        if disclosure is None or not disclosure.minimum_cell or not first.size:
            return
        table = ((values == 0) | (values == 1)).all(axis=0)
        ours = []
        for a in (0, 1):
            for b in (0, 1):
                cells = ((values == a).astype(np.int64).T @ (values == b).astype(np.int64))[first, second]
                ours.append(np.where(table[first] & table[second], cells, disclosure.minimum_cell))
        capped = np.minimum(np.concatenate(ours), disclosure.minimum_cell)
        scope = self.party.at("pairs")
        fails = await short_of(scope, capped, np.full(len(capped), disclosure.minimum_cell))
        if not await hold(scope.at("hold"), fails):
            raise refusal(disclosure, self.protocol, pair_rules(disclosure))

    async def counts(self, *factors: str) -> Share:
        """See :class:`protocols.pools.pool.Pool`."""
        shape = tuple(len(self.categories[what]) for what in factors)
        cells = np.ravel_multi_index(tuple(self.codes(what) for what in factors), shape)
        table = np.bincount(cells, minlength=math.prod(shape)).reshape(shape)
        return await total(self.party.at("counts"), table)

    async def moments(self, what: str, by: str | None = None, sizes: NDArray[np.int64] | None = None) -> Moments:
        """See :class:`protocols.pools.pool.Pool`."""
        data, exponents = self.numbers(what), self.exponents[what]
        codes = np.zeros(data.rows, np.int64) if by is None else self.codes(by)
        groups = np.array([self.sizes.n]) if sizes is None else sizes
        units = np.ldexp(data.values, -exponents)
        if self.party.rehearsing:  # then nobody knows how many rows there are, and our part of them might not fit
            units, codes = units[:0], codes[:0]
        return await row_moments(self.party.at("moments"), units, codes, groups, exponents)

    async def vectors(self, *whats: str) -> list[Share]:
        """See :class:`protocols.pools.pool.Pool`."""
        shared = []
        for what in whats:
            if isinstance(self.own[what], Numeric):
                entries: NDArray[Any] = np.ldexp(self.numbers(what).values, -self.exponents[what])
            else:
                entries = indicators(self.codes(what), len(self.categories[what]))
            shapes: list[tuple[int | None, ...]] = [(rows, entries.shape[1]) for rows in self._rows_of]
            parts = await self.party.at("vectors").share(entries, bound=1, scale=INPUT_SCALE, shape=shapes)
            self._rows_of = [len(part) for part in parts]
            shared.append(concatenate(parts))
        if self._sizes is not None and not self.party.rehearsing and any(len(one) != self.sizes.n for one in shared):
            rows = sum(filter(None, self._rows_of))
            raise AgreementError(f"{self.protocol}: the parties share {rows} rows, and counted {self.sizes.n} before")
        return shared

    @property
    def weight(self) -> Share | None:
        """See :class:`protocols.pools.pool.Pool`."""
        return None


async def total(party: Party, ours: NDArray[Any]) -> Share:
    """Add up the parties' counts, each of which knows its own.

    Raises
    ------
    DataError
        Before anything is sent: we have more rows than fit.
    """
    most = (1 << ROW_BITS) // party.size
    if ours.size and ours.max() > most:
        raise DataError(f"party {party.rank}: more than {most} rows")
    return sum_of(await party.share(ours.astype(np.int64), bound=most, shape=ours.shape))


def indicators(codes: NDArray[np.int64], categories: int) -> NDArray[np.int64]:
    """Return a column of 0 and 1 for each category, shape (rows, categories); code -1 is none of them."""
    return np.asarray(codes[:, np.newaxis] == np.arange(categories), dtype=np.int64)


async def pool_rows(
    party: Party, protocol: str, variables: dict[str, Variable], release: Release, terms: dict[str, object]
) -> RowPool:
    """Make a pool of rows; see :func:`protocols.pools.joining.pool`."""
    check_rows(variables, rank=party.rank)
    await agree(party, protocol, {**terms, **{what: v.describe() for what, v in variables.items()}})
    variables = await with_categories(party, protocol, variables, release)
    complete = np.logical_and.reduce([v.complete for v in variables.values()])
    missing = [int((~v.complete).sum()) for v in variables.values()]
    sums = await total(party.at("rows"), np.array([int(complete.sum()), *missing]))
    made = RowPool(party, protocol, release, {what: v.kept(complete) for what, v in variables.items()}, sums)
    for what, variable in variables.items():
        if isinstance(variable, Categorical):
            made.categories[what] = variable.categories or ()
            made.names[what] = (variable.name,)
            continue
        made.names[what] = variable.names
        if variable.bounds is None:
            made.exponents[what] = await agree_exponents(party.at("bounds"), variable.values)
        else:
            made.exponents[what] = exponents_of(variable.bounds)
    return made


async def with_categories(
    party: Party, protocol: str, variables: dict[str, Variable], release: Release
) -> dict[str, Variable]:
    """Find the categories that nobody declared: the labels that occur anywhere."""
    open_ones = {w: v for w, v in variables.items() if isinstance(v, Categorical) and v.categories is None}
    if not open_ones:
        return variables
    ours: dict[str, object] = {}
    for what, variable in open_ones.items():
        labels = (0, 1) if set(variable.own) <= {0, 1} else variable.own
        # Under a disclosure control a rare label is not told.
        ours[what] = None if release.disclosure is not None and labels != (0, 1) else list(labels)
    said = await announce(party, "labels", ours)
    done = dict(variables)
    for what, variable in open_ones.items():
        labels_of = [checked_labels(one.get(what)) for one in said]
        if any(labels is None for labels in labels_of):
            raise DataError(
                f"{protocol}: {what} has other labels than 0 and 1, and nobody declared its categories; under a "
                "disclosure control all parties declare them: categories=, or a pandas Categorical"
            )
        union = ordered({label for labels in labels_of for label in labels or ()})
        if len(union) < 2:
            raise DataError(f"{protocol}: {what} has {len(union)} category in the data of all parties; it takes two")
        done[what] = variable.declared(union, rank=party.rank)
    return done


def checked_labels(said: Any) -> tuple[Label, ...] | None:
    """Return what a peer announced if it is a list of labels, else None."""
    if not isinstance(said, list):
        return None
    if not all(type(one) is int or (isinstance(one, str) and len(one) <= 100 and one.isprintable()) for one in said):
        return None
    return tuple(said)
